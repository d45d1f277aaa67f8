--- exec: `shoal exec`, the child process in which a worker runs one part of a script.
---
---   (stdin) start --> run the script's users --> result --written--> exit 0
---                        |  cancel, or the time limit: stop, and say so in the result
---                        |  the end of stdin or stdout: the worker is gone; exit LOST_STATUS, with or without a result
---
--- A process of its own, so that a crash, a leak or an endless loop of a script harms nothing else and can be killed. It talks
--- in frames (exec/frames.lua) on stdin and stdout, and its incidents go to stderr as lines, where the worker keeps the last of them.
local errors = require "shoal.base.errors"
local frames = require "shoal.run.exec.frames"
local log = require "shoal.base.log"
local sorted = require "shoal.base.sorted"
local stats = require "shoal.job.stats"
local task = require "shoal.base.task"
local workflow = require "shoal.run.workflow"
local world_module = require "shoal.core.world"

local exec = {}

local LOG_LINES_MAX = 1000 -- A script's print in a loop must not be the load.
local LOG_LINE_MAX = 4096 -- Bytes.
local INCIDENTS_MAX = 50
local TEXT_MAX = 2000     -- Bytes of a reason, and of an incident's message.
local LOST_STATUS = 3 -- The worker went away before it had our result.

---@class Exec
local Exec = {}
Exec.__index = Exec

function Exec:send(message)
  if self.mute then return end
  local ok, err, code = self.stdout:write(frames.encode(message))
  if not ok then
    self.mute = true
    errors.report("exec.protocol", { part = self.ids.part, payload_bytes = 0 }, "stdout: " .. err, code)
  end
end

function Exec:elapsed_us() return (self.world:fresh_ns() - self.started_ns) // 1000 end
function Exec:elapsed_ms() return self:elapsed_us() // 1000 end

--- Exit, after what was written has left. A worker that does not read is paused, or busy: the result waits for as long as its end of the
--- pipes is open.
function Exec:leave(status)
  if self.left then return end
  self.left = true
  local timer = self.world:timer(function () self.exit(status) end)
  if self.stdout:queued() == 0 then
    timer:start(0)
  else
    self.on_drain = function () timer:start(0) end
  end
end

local function short(text) return #text <= TEXT_MAX and text or text:sub(1, TEXT_MAX - 3) .. "..." end

local function incidents()
  local out = {}
  for _, i in ipairs(errors.incidents(INCIDENTS_MAX)) do
    out[#out + 1] = { id = i.id, site = i.site, level = i.level, message = short(i.message), where = i.where, count = i.count, node = i.node }
  end
  return out
end

--- The one result.
function Exec:finish(state, reason)
  if self.finished then return end
  self.finished = true
  self.work_scope:close()
  if self.ending then state, reason = self.ending.state, self.ending.reason end
  self.recorder:stop(self:elapsed_us())
  self:send {
    type = "result", at_us = self:elapsed_us(), state = state, reason = reason and short(reason), incidents = incidents(),
    record = stats.fit(self.recorder:export(self:elapsed_ms()), stats.PART_MAX),
    log_lines_dropped = self.log_lines > LOG_LINES_MAX and self.log_lines - LOG_LINES_MAX or nil,
  }
  self:leave(0)
end

--- Stop early. What was measured so far is sent with the result.
---@param state "cancelled"|"failed"
function Exec:stop(state, reason)
  if self.ending or self.finished then return end
  self.ending = { state = state, reason = reason }
  self:finish(state, reason)
end

-- The part -------------------------------------------------------------------------------------------------------------

local function run(self)
  local start = self.start
  return workflow.run {
    world = self.world, scope = self.users, recorder = self.recorder, job = start.job, workflow = start.workflow, part = start.part,
    attempt = start.attempt, work = start.work, zero_ns = self.started_ns,
    limit_ns = start.timeout_ms and self.started_ns + start.timeout_ms * 1000000, log = function (text) self:log(text) end,
  }
end

function Exec:log(text)
  self.log_lines = self.log_lines + 1
  if self.log_lines <= LOG_LINES_MAX then self:send { type = "log", text = text:sub(1, LOG_LINE_MAX) } end
end

local SHAPE = {
  job = "string", workflow = "string", part = "string", attempt = "number", fence = "number", work = "table", progress_ms = "number",
}

function Exec:begin(start)
  for name, kind in sorted(SHAPE) do
    if type(start[name]) ~= kind then
      return self:malformed(("start without a %s called %s"):format(kind, name))
    end
  end
  self.start, self.started_ns = start, self.world:fresh_ns()
  self.ids = { job = start.job, workflow = start.workflow, part = start.part, attempt = start.attempt }
  if self.options.own_process then errors.start(self.world, ("%s#%d"):format(start.part, start.attempt)) end
  if start.timeout_ms then
    self.limit = self.world:timer(function ()
      self:stop("failed", ("not done after timeout_ms = %d"):format(start.timeout_ms))
    end)
    self.limit:start(start.timeout_ms)
  end
  self.work_scope:loop("exec.progress", self.ids, {
    interval_ms = start.progress_ms, first_ms = start.progress_ms, backoff_ms = { start.progress_ms, 5000 },
  }, function ()
    if self.stdout:queued() > 0 then return end -- The worker does not read: newer numbers will do.
    self:send { type = "progress", at_us = self:elapsed_us(), record = self.recorder:export(self:elapsed_ms(), true) }
  end)
  local main = self.work_scope:spawn("exec.workflow", self.ids, run, self)
  self.scope:spawn("exec.result", self.ids, function ()
    local ok, state, reason = main:join()
    if self.finished then return end
    if ok then self:finish(state, reason) else self:finish("failed", "the part's own task failed: " .. state) end
  end)
end

function Exec:malformed(err)
  errors.report("exec.protocol", { part = self.ids.part, payload_bytes = 0 }, err, "MALFORMED")
  self:lost(LOST_STATUS)
end

--- The worker is gone: no result can be delivered.
function Exec:lost(status)
  self.mute = true
  self.scope:close()
  self.exit(status)
end

function Exec:take(message)
  if message.type == "start" and not self.start then
    self:begin(message)
  elseif message.type == "cancel" and self.start then
    self:stop("cancelled", message.reason or "cancelled")
  elseif message.type ~= "cancel" then
    self:malformed(("a %q where none is expected"):format(message.type))
  end
end

--- Serve the worker at the other end of stdin and stdout. Returns at once; `exit` is called when all is done.
---@param options? { world: table?, exit: fun(status: integer)?, own_process: boolean? }  alone in its process: incidents get
---  the part's and attempt's name for their node
function exec.serve(options)
  options = options or {}
  local world = options.world or world_module.current()
  local self = setmetatable({
    world = world, options = options, exit = options.exit or function (status) require("shoal.core.node").exit(status) end, ids = { part = "" },
    recorder = stats.recorder(), log_lines = 0, started_ns = world:fresh_ns(),
  }, Exec)
  self.scope = task.scope("exec")
  self.work_scope = task.scope("part", self.scope)
  self.users = task.scope("users", self.work_scope)
  local stdin, err = world:stdio(0)
  if not stdin then error("exec: stdin: " .. err) end
  self.stdout, err = world:stdio(1)
  if not self.stdout then error("exec: stdout: " .. err) end
  self.stdout:attach {
    on_end = function () self:lost(LOST_STATUS) end,
    on_drain = function () if self.on_drain then self.on_drain() end end,
  }
  local feed = frames.reader(function (message) self:take(message) end)
  stdin:attach {
    on_read = function (_, bytes)
      local ok, problem = feed(bytes)
      if not ok then self:malformed(problem) end
    end,
    on_end = function ()
      if not self.left or self.stdout:queued() > 0 then self:lost(LOST_STATUS) end -- Else the exit is on its way.
    end,
  }
end

--- The program's `shoal exec`.
function exec.main()
  local world = world_module.current()
  log.open(world, { stderr = true })
  task.start(world)
  exec.serve { world = world, own_process = true }
  return nil
end

return exec
