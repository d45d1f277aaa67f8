--- exec.commands: one part's attempt whose work is a command. The worker starts the command itself: a child that runs our Lua would cost
--- several times what a small command does.
---
---             each run ended well                 all runs ended
---   RUNNING --------------------> RUNNING ... ---------------------> ENDED ----> on_result (once)
---      |  cancel(): TERM, KILL after 2 s, at its deadline at once
---      |  timeout_ms: the same, and the result is "failed"
---      +--- a run that fails ends the part; what the machine refused (no memory, no process) loses the attempt, and so does a KILL
---           or TERM that was not ours, of the command or of its keeper (exec/command.lua): the kernel kills so when memory is short, and
---           a service manager ends all processes of a worker so
---
--- A command harms nothing else: all that it starts ends with it, and reading its output is rationed (exec/command.lua). Of the worker's
--- environment it gets only the names in INHERITED. All runs of an attempt have one working folder (exec/folders.lua).
local command = require "shoal.run.exec.command"
local deadline = require "shoal.run.exec.deadline"
local errors = require "shoal.base.errors"
local folders = require "shoal.run.exec.folders"
local limits = require "shoal.run.exec.limits"
local stats = require "shoal.job.stats"
local task = require "shoal.base.task"
local verdicts = require "shoal.run.exec.verdicts"

local commands = {}

--- Codes of a spawn that the command line itself causes. Every other code is the machine's fault, and the attempt is lost.
local ITS_OWN = { ENOENT = true, EACCES = true, ENOTDIR = true, EISDIR = true, ELOOP = true, ENAMETOOLONG = true, E2BIG = true,
  ENOEXEC = true, EPERM = true, EINVAL = true, ETXTBSY = true }
local FROM_OUTSIDE = { [9] = true, [15] = true } -- Signals that hardly any program sends to itself.
local LINE_SHOWN = 200 -- Of the last line of output, in a reason.
--- The worker may have secrets in its environment, and a job must not depend on where it runs.
commands.INHERITED = { "PATH", "HOME", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL" }

---@class CommandsRun
local Commands = {}
Commands.__index = Commands

local function elapsed_ms(self) return (self.world:now_ns() - self.started_ns) // 1000000 end

local function last_line(run)
  local line = (run.tail ~= "" and run.tail or run.head):match("([^\n]+)%s*$")
  return line and ": " .. line:sub(1, LINE_SHOWN) or ""
end

--- The job's variables, and ours over them: what SHOAL_PART says is so.
local function environment(self, number)
  local dispatch, env = self.dispatch, {}
  for name, value in next, dispatch.work.env or {} do env[name] = value end -- order-free: by name
  env.SHOAL_JOB, env.SHOAL_WORKFLOW, env.SHOAL_PART = dispatch.job, dispatch.workflow, dispatch.part
  env.SHOAL_ATTEMPT, env.SHOAL_RUN, env.SHOAL_GUARD = tostring(dispatch.attempt), tostring(number), self.guard.word
  return env
end

--- Keep the record of a run. A part of thousands of runs must not hold the output of each.
local function keep(self, run)
  local recorder = self.recorder
  recorder.commands[#recorder.commands + 1] = run
  recorder.counts.iterations = recorder.counts.iterations + 1
  self.output_bytes = self.output_bytes + #run.head + #run.tail
  if self.output_bytes <= 2 * stats.OUTPUT_MAX then return end
  local trimmed = stats.trim({ commands = recorder.commands, cut = self.cut }, stats.OUTPUT_MAX)
  recorder.commands, self.cut, self.output_bytes = trimmed.commands, trimmed.cut, stats.OUTPUT_MAX
end

--- One run; nil, a reason, and whether the machine is to blame, when it failed.
local function run_one(self, number)
  local dispatch, began_ns = self.dispatch, self.world:now_ns()
  local c <close>, err, code = command.start(self.world, self.guard, {
    argv = dispatch.work.command, env = environment(self, number), inherit = self.inherit, cwd = self.folder, limits = dispatch.work.limits,
  })
  if not c then
    local reason = ("the command cannot be started: %s (%s)"):format(err, code)
    if ITS_OWN[code] then return nil, reason end
    errors.report("exec.spawn", self.ids, err, code)
    return nil, reason, true
  end
  self.command, self.ids.pid = c, c:pid()
  local run = c:wait()
  self.command = nil
  local met = not self.ending and limits.met(dispatch.work.limits, run, c.cpu_ms) or nil
  local killed = not self.ending and not met and (run.status == -1 or FROM_OUTSIDE[run.signal])
  local who = run.status == -1 and "the command's keeper" or "the command"
  self.left = run.left
  if run.status ~= -1 or not killed then -- Else nobody knows how it ended.
    if run.status == -1 then run.status = 0 end -- Our KILL reached the keeper too.
    run.run, run.elapsed_ms = ("%s#%d"):format(dispatch.part, number), (self.world:now_ns() - began_ns) // 1000000
    keep(self, run)
  end
  if killed then
    local reason = ("%s was killed by signal %d, which shoal did not send: the machine, a person or the command itself did"):format(who,
      run.signal)
    errors.report("exec.child", self.ids, reason)
    return nil, reason, true
  end
  if run.status == 0 and run.signal == 0 then return true end
  self.recorder:failure("command")
  local how = run.signal ~= 0 and "was killed by signal " .. run.signal or "exited with status " .. run.status
  if met then return nil, ("the command %s%s"):format(met:format(how), last_line(run)) end
  return nil, ("the command %s%s%s"):format(how, limits.note(dispatch.work.limits), last_line(run))
end

--- The attempt's folder; true, or nil, a reason and true: the machine is to blame.
local function make_folder(self)
  if not self.folders then return true end
  local most = self.dispatch.work.limits and self.dispatch.work.limits.disk or folders.BYTES
  local path, err, code = self.folders:make(most, function (bytes)
    self:stop_for(("ended by its disk limit of %s: its working folder held %s"):format(limits.size(most), limits.size(bytes)))
  end)
  self.folder = path
  if path then return true end
  errors.report("exec.spawn", self.ids, err, code)
  return nil, ("its working folder cannot be made: %s (%s)"):format(err, code), true
end

--- All runs of this part, one after the other; the first that fails ends it.
local function run_all(self)
  local made, why, fault = make_folder(self)
  if not made then return "failed", why, fault end
  for number = 1, self.dispatch.work.parts or 1 do
    if self.ending then break end
    local ok, reason, machine = run_one(self, number)
    if not ok then return "failed", reason, machine end
  end
  return "completed"
end

local function close(self)
  for _, timer in ipairs(self.timers) do timer:close() end
  self.timers = {}
  if self.folder then self.folders:remove(self.folder) end
  self.folder = nil
end

local function finish(self, state, reason, lost)
  self.over = true
  close(self)
  local ending = self.ending
  if ending then state, reason, lost = ending.state, ending.reason, nil end
  if reason and self.left then reason = ("%s; what it left was ended: %s"):format(reason, self.left) end
  local record = self.recorder:export(elapsed_ms(self))
  record.cut = self.cut
  record = stats.fit(stats.trim(record, stats.OUTPUT_MAX), stats.PART_MAX)
  verdicts.give(self.ids, self.on_result, {
    state = state, reason = reason, stats = record, summary = record.counts, incidents = {}, log = {}, stderr = "", lost = lost or nil,
  })
end

--- The part's task failed after it began: it is lost, for its command must not run again. What failed may be its record, so it gets none.
local function give_up(self)
  self.over = true
  close(self)
  local record = stats.recorder():export(elapsed_ms(self))
  verdicts.give(self.ids, self.on_result, {
    state = "failed", reason = "the part's own task failed", stats = record, summary = record.counts, incidents = {}, log = {}, stderr = "",
    lost = true,
  })
end

local function stop(self, state, reason)
  if self.ending or self.over then return end
  self.ending = { state = state, reason = reason }
  if self.command then self.command:stop() end
end

--- End the attempt as failed, for a reason of ours.
function Commands:stop_for(reason) stop(self, "failed", reason) end

--- Ask the attempt to end: TERM to the command, KILL 2 s later, and at the deadline at once. The result follows as of any other.
--- Idempotent; a later call may bring the deadline nearer.
---@param reason string
---@param deadline_ms? number
function Commands:cancel(reason, deadline_ms)
  if self.over then return end
  stop(self, "cancelled", reason)
  if not deadline_ms then return end
  local at_ms = task.now_ms() + deadline_ms
  if self.kill_at_ms and at_ms >= self.kill_at_ms then return end
  self.kill_at_ms = at_ms
  if self.cancel_timer then self.cancel_timer:stop() end
  self.cancel_timer = deadline.after(self.world, deadline_ms, function ()
    if self.command then self.command:kill() end
  end)
  self.timers[#self.timers + 1] = self.cancel_timer
end

--- The scope has ended, and so has the receiver of the result. The command's own close kills it.
Commands.__close = function (self)
  if self.over then return end
  self.over = true
  close(self)
end

--- "running" or "ended".
function Commands:state() return self.over and "ended" or "running" end

--- The process id of the group of the command that runs now, for people and specs; nil between two runs.
function Commands:pid() return self.command and self.command:pid() end

local function report_progress(self, interval_ms)
  local timer
  timer = self.world:timer(function ()
    timer:start(interval_ms)
    local record = self.recorder:export(elapsed_ms(self), true)
    errors.call("exec.progress", self.ids, self.on_progress, record.counts, record)
  end)
  timer:start(interval_ms)
  self.timers[#self.timers + 1] = timer
end

--- As runner.start, for a part whose work is a command.
---@param world table
---@param scope table
---@param guard Guard
---@param dispatch RunnerDispatch
---@param on_progress? function
---@param on_result function
---@param progress_ms integer
---@param more { inherit: string[]?, folders: table? }  names of the worker's environment that the command gets (INHERITED by default);
---  where working folders are made (without: the worker's own)
---@return CommandsRun
function commands.start(world, scope, guard, dispatch, on_progress, on_result, progress_ms, more)
  local self = setmetatable({
    world = world, guard = guard, dispatch = dispatch, on_progress = on_progress, on_result = on_result, timers = {},
    inherit = more.inherit or commands.INHERITED, folders = more.folders, recorder = stats.recorder(), output_bytes = 0,
    started_ns = world:now_ns(),
    ids = { job = dispatch.job, workflow = dispatch.workflow, part = dispatch.part, attempt = dispatch.attempt },
  }, Commands)
  local limit_ms = dispatch.timeout_ms
  if limit_ms then
    self.timers[1] = deadline.after(world, limit_ms, function () stop(self, "failed", ("not done after timeout_ms = %d"):format(limit_ms)) end)
  end
  if on_progress then report_progress(self, progress_ms) end
  scope:keep("exec.run", self.ids, function ()
    local _ <close> = self
    if self.began then return give_up(self) end
    self.began = true
    local ok, state, reason, machine = errors.call("exec.command", self.ids, run_all, self)
    if ok then finish(self, state, reason, machine) else finish(self, "failed", "the part's own task failed: " .. state.message, true) end
  end)
  return self
end

return commands
