--- runner: one part's attempt, from the worker's side: start it, bound its time, and give exactly one result.
---
--- A command is started by the worker itself (exec/commands.lua). A script's users run in a child of ours, `shoal exec`:
---
---             start frame            result frame
---   SPAWNED ---------------> RUNNING --------------> ENDED ---exit---> on_result (once)
---                               |  cancel(): ask; after its deadline kill
---                               |  timeout_ms + GRACE_MS: kill (the child keeps the limit itself, unless it hangs)
---                               +--- exit, a signal, or garbage: a failed result with the end of stderr
---
--- A child may end without a result; then the verdict says how it ended and what it wrote last on stderr, and `lost`: unless we killed it
--- for its time or its garbage, another attempt may do better. on_result comes after the child has exited, so that its cores are free
--- by then.
local commands = require "shoal.run.exec.commands"
local deadline = require "shoal.run.exec.deadline"
local errors = require "shoal.base.errors"
local frames = require "shoal.run.exec.frames"
local guards = require "shoal.run.exec.guard"
local limits = require "shoal.run.exec.limits"
local stats = require "shoal.job.stats"
local task = require "shoal.base.task"
local verdicts = require "shoal.run.exec.verdicts"

local runner = {}

local PROGRESS_MS = 200
local GRACE_MS = 5000      -- Past its own time limit: for a child that hangs.
local CANCEL_MS = 5000     -- For a cancel without a deadline of its own.
local EXIT_MS = 10000      -- From the result to the exit.
local PIPES_MS = 1000      -- From the exit to the end of its pipes, which something it started may hold.
local STDERR_KEEP = 8192   -- Bytes.
local STDERR_SHOWN = 1000  -- Bytes.
local LOG_KEEP = 200       -- Lines for the worker's log.
local PRINT_KEEP = 16 * 1024 -- Bytes of the beginning, and of the end, of what a script prints, for the part's result.
local XCPU = 24            -- The signal at the CPU limit.
local REASON_MAX = 4096    -- Bytes, of a child's.

---@class Run
local Run = {}
Run.__index = Run

--- The program to be the child: ourselves.
local function program()
  return require("shoal.core.node").program()
end

--- A record whose stretches of load are counted from the start of the attempt, as its leader knows it, not of the child's.
local function since_start(self, record)
  if record and self.offset_us then record.load = stats.shifted(record.load, self.offset_us) end
  return record
end

--- Keep a line that the script printed.
local function keep_line(self, text)
  local p = self.printed
  text = text .. "\n"
  p.bytes = p.bytes + #text
  local room = p.tail == "" and PRINT_KEEP - #p.head or 0
  p.head = p.head .. text:sub(1, room)
  p.tail = (p.tail .. text:sub(room + 1)):sub(-PRINT_KEEP)
end

--- The record with the script's lines as the output of its part: a row as a command has, without a status.
local function with_lines(self, record)
  local p, out = self.printed, {}
  if p.bytes == 0 then return record end
  for key, value in next, record do out[key] = value end
  out.commands = table.move(record.commands or {}, 1, #(record.commands or {}), 1, {})
  out.commands[#out.commands + 1] = { run = self.ids.part, head = p.head, tail = p.tail, bytes = p.bytes }
  return out
end

--- The child's result, or ours about it.
local function verdict(self)
  local said = self.said
  local tail = self.stderr:sub(-STDERR_SHOWN)
  if said then
    since_start(self, said.record)
    local note = said.state == "failed" and said.reason and limits.note(self.limits) or ""
    return {
      state = said.state, reason = said.reason and said.reason .. note, stats = with_lines(self, said.record),
      summary = said.record.counts or {}, incidents = said.incidents or {}, log = self.lines, stderr = tail,
    }
  end
  local why = self.problem
  if not why then
    if self.signal == XCPU and self.limits then
      self.problem = ("the child was ended by its cpu limit of %d s"):format(self.limits.cpu_s or 0)
      why = self.problem
    elseif self.signal and self.signal ~= 0 then
      why = ("the child was killed by signal %d"):format(self.signal)
    else
      why = ("the child exited with status %s before its result"):format(tostring(self.status))
    end
  end
  local shown = tail:gsub("%s+$", "")
  why = why .. limits.note(self.limits)
  if shown ~= "" then why = why .. "; its stderr ends: " .. shown end
  return {
    state = self.cancelled and "cancelled" or "failed", reason = self.cancelled and self.cancelled .. " (" .. why .. ")" or why,
    stats = with_lines(self, since_start(self, self.record) or {}), summary = self.summary, incidents = {}, log = self.lines,
    stderr = tail,
    lost = not self.cancelled and not self.problem or nil,
  }
end

local function close(self)
  if self.closed then return end
  self.closed = true
  for _, timer in ipairs(self.timers) do timer:close() end
  for _, stream in ipairs(self.streams) do stream:close() end
  local _, err, code = self.process:kill(9) -- Kills the rest of its group; the id is its own until the close.
  if err and code ~= "ESRCH" then errors.report("exec.kill", self.ids, err, code) end
  self.guard:ended(self.process:pid())
  self.process:close()
end

--- Once the child has exited and its pipes were read to their end.
local function look(self)
  if self.over or not self.status or self.open_pipes > 0 then return end
  self.over = true
  local result = verdict(self)
  if not self.said and not self.cancelled then
    errors.report("exec.child", self.ids, result.reason)
  end
  close(self)
  self.done:settle(true)
  verdicts.give(self.ids, self.on_result, result)
end

local function kill(self, why)
  if self.status then return end
  self.problem = self.problem or why
  local ok, err, code = self.process:kill(9)
  if not ok and code ~= "ESRCH" then errors.report("exec.kill", self.ids, err, code) end
end

local function after(self, ms, fn)
  local timer = deadline.after(self.world, ms, fn)
  self.timers[#self.timers + 1] = timer
  return timer
end

local function valid_record(record) return stats.check(record) and type(record.counts) == "table" end

local function valid_incidents(list)
  if list == nil then return true end
  if type(list) ~= "table" or #list > stats.INCIDENTS_MAX then return false end
  local n = 0
  for _, incident in next, list do -- order-free: one answer for all
    n = n + 1
    if type(incident) ~= "table" then return false end
    for _, field in ipairs { "node", "site", "level", "message" } do
      if type(incident[field]) ~= "string" then return false end
    end
    if type(incident.id) ~= "string" and math.type(incident.id) ~= "integer" then return false end
    if incident.where ~= nil and type(incident.where) ~= "string" then return false end
    if incident.count ~= nil and (math.type(incident.count) ~= "integer" or incident.count < 0) then return false end
  end
  return n == #list
end

--- All of it is judged: nothing that reads it later can fail.
local function valid_result(m)
  return (m.state == "completed" or m.state == "failed" or m.state == "cancelled") and valid_record(m.record)
    and (m.reason == nil or type(m.reason) == "string" and #m.reason <= REASON_MAX) and valid_incidents(m.incidents)
end

local function now_us(self) return self.world:fresh_ns() // 1000 end

--- The child's clock began at its start frame. A message that says when it was written shows when that was, late by its way; the
--- least of all is the best.
local function set_clock(self, m)
  if math.type(m.at_us) ~= "integer" or m.at_us < 0 or m.at_us > stats.REACH_US then return end
  local offset_us = math.max(0, now_us(self) - self.began_us - m.at_us)
  self.offset_us = math.min(self.offset_us or offset_us, offset_us)
end

local function take(self, m)
  if self.said or self.problem then return end
  set_clock(self, m)
  if m.type == "progress" and valid_record(m.record) then
    self.record, self.summary = m.record, m.record.counts
    if self.on_progress then errors.call("exec.progress", self.ids, self.on_progress, m.record.counts, m.record) end
  elseif m.type == "log" and type(m.text) == "string" then
    keep_line(self, m.text)
    self.lines[#self.lines + 1] = m.text
    if #self.lines > LOG_KEEP then
      table.remove(self.lines, 1)
      self.lines_cut = (self.lines_cut or 0) + 1
    end
  elseif m.type == "result" and valid_result(m) then
    self.said = m
    local unsent = math.tointeger(m.log_lines_dropped) or 0
    if unsent > 0 then
      local note = ("(%d later lines were not sent by the child)"):format(unsent)
      keep_line(self, note)
      self.lines[#self.lines + 1] = note
    end
    if self.lines_cut then table.insert(self.lines, 1, ("(%d earlier lines are not kept)"):format(self.lines_cut)) end
    after(self, EXIT_MS, function () kill(self, "it did not exit after its result") end)
  else
    self:garbage(("a %q that is not as it should be, or not due"):format(m.type))
  end
end

--- The child wrote what is no message: nothing that follows can be trusted.
function Run:garbage(err)
  errors.report("exec.protocol", self.ids, err, "MALFORMED")
  kill(self, "the child wrote garbage: " .. err)
end

local function hear(self, fd, on_bytes)
  local stream = self.process:stream(fd)
  self.open_pipes = self.open_pipes + 1
  self.streams[#self.streams + 1] = stream
  stream:attach {
    on_read = function (_, bytes) on_bytes(bytes) end,
    on_end = function ()
      self.open_pipes = self.open_pipes - 1
      look(self)
    end,
  }
end

--- Ask the attempt to end; when it has not after deadline_ms, kill it. The result follows as of any other. Idempotent; a later
--- call may bring the deadline nearer.
---@param reason string
---@param deadline_ms? number
function Run:cancel(reason, deadline_ms)
  if self.over then return end
  if not self.cancelled and not self.said then
    self.cancelled = reason
    local ok, err, code = self.stdin:write(frames.encode { type = "cancel", reason = reason })
    if not ok and not self.status and code ~= "EPIPE" then errors.report("exec.protocol", self.ids, err, code) end
  end
  local at_ms = task.now_ms() + (deadline_ms or CANCEL_MS)
  if not self.kill_at_ms or at_ms < self.kill_at_ms then
    self.kill_at_ms = at_ms
    if self.cancel_timer then self.cancel_timer:stop() end
    self.cancel_timer = after(self, deadline_ms or CANCEL_MS, function ()
      kill(self, "killed: it had not ended when its cancel's deadline passed")
    end)
  end
end

--- The scope has ended, and so has the receiver of the result: kill the child.
Run.__close = function (self)
  if self.over then return end
  self.over = true
  close(self)
end

--- "running" or "ended".
function Run:state() return self.over and "ended" or "running" end

--- The child's process id, for people and specs.
function Run:pid() return self.process:pid() end

---@class RunnerDispatch  see job.read_dispatch
---@field job string
---@field workflow string
---@field part string
---@field attempt integer
---@field fence integer
---@field work Workflow
---@field timeout_ms? integer

local function spawn(self, argv)
  local err, code
  self.process, err, code = self.guard:spawn {
    argv = argv, limits = self.limits, env = { SHOAL_GUARD = self.guard.word }, pipe = { stdin = true, stdout = true, stderr = true },
    on_exit = function (status, signal)
      self.status, self.signal = status, signal
      look(self)
      if self.over then return end
      after(self, PIPES_MS, function ()
        self.open_pipes = 0
        look(self)
      end)
    end,
  }
  if self.process then return true end
  errors.report("exec.spawn", self.ids, err, code)
  return nil, "cannot start a child: " .. err, code
end

local function converse(self, dispatch, progress_ms)
  local feed = frames.reader(function (m) take(self, m) end)
  hear(self, 1, function (bytes)
    if self.problem then return end
    local ok, problem = feed(bytes)
    if not ok then self:garbage(problem) end
  end)
  hear(self, 2, function (bytes) self.stderr = (self.stderr .. bytes):sub(-STDERR_KEEP) end)
  self.stdin = self.process:stream(0)
  self.streams[#self.streams + 1] = self.stdin
  self.stdin:attach { on_end = function () end } -- A child that closed it is about to exit; that is heard elsewhere.
  self.stdin:write(frames.encode {
    type = "start", job = dispatch.job, workflow = dispatch.workflow, part = dispatch.part, attempt = dispatch.attempt,
    fence = dispatch.fence, work = dispatch.work, timeout_ms = dispatch.timeout_ms, progress_ms = progress_ms,
  }) -- A refusal means that the child is gone already: its exit says more than the write could.
end

--- Start an attempt. A refusal starts nothing and makes no callback; otherwise on_result comes exactly once.
---@param node table          a node, or a world
---@param scope table         the attempt ends when it closes, without a callback
---@param dispatch RunnerDispatch
---@param on_progress? fun(summary: table, record: table)  counts so far
---@param on_result fun(result: { state: string, reason: string?, stats: table, summary: table, incidents: table[], lost: boolean? })
---@param options? { argv: string[]?, progress_ms: integer?, inherit: string[]?, folders: table? }  `argv`: the child, for specs;
---  see commands.start
---@return (Run|CommandsRun)? run, string? err, string? code
function runner.start(node, scope, dispatch, on_progress, on_result, options)
  options = options or {}
  local world = type(node) == "table" and node.world or node
  local guard, progress_ms = guards.of(world, scope), options.progress_ms or PROGRESS_MS
  if dispatch.work.command then
    return commands.start(world, scope, guard, dispatch, on_progress, on_result, progress_ms, options)
  end
  local self = setmetatable({
    world = world, guard = guard, limits = dispatch.work.limits, on_progress = on_progress, on_result = on_result, stderr = "", lines = {},
    timers = {}, streams = {}, printed = { head = "", tail = "", bytes = 0 },
    open_pipes = 0, summary = {}, done = task.future("exec.run", scope),
    ids = { job = dispatch.job, workflow = dispatch.workflow, part = dispatch.part, attempt = dispatch.attempt },
  }, Run)
  self.began_us = now_us(self)
  local ok, err, code = spawn(self, options.argv or { program(), "exec" })
  if not ok then return nil, err, code end
  self.ids.pid = self.process:pid()
  scope:keep("exec.run", self.ids, function ()
    local _ <close> = self
    self.done:await() -- dropped: on_result has the result
  end)
  converse(self, dispatch, progress_ms)
  local limit_ms = dispatch.timeout_ms
  if limit_ms then
    after(self, limit_ms + GRACE_MS, function ()
      kill(self, ("killed: not done %d ms after its timeout_ms = %d"):format(GRACE_MS, limit_ms))
    end)
  end
  return self
end

return runner
