--- exec.guard: a worker's children die with it, by whatever means it dies.
---
---   first child       start `shoal guard`, with a pipe from us as its stdin
---   each child        writes to the guard that it has started, before it becomes the program; when its group has ended, we write that
---   we are gone       the pipe ends, and the guard kills every group that is left
---   the guard is gone an incident; start another, and name the groups that run to it
---
--- There is one guard for each scope, and it ends with the scope. A process that left the group of its command goes too: the guard kills
--- all descendants, and by its mark in the environment (SHOAL_GUARD) those that lost their parents. In the simulator children go with their
--- machine, so there is no guard.
local errors = require "shoal.base.errors"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local guard = {}

local guards = setmetatable({}, { __mode = "k" }) -- By scope.

---@class Guard
---@field word string  the mark of this guard's children: SHOAL_GUARD in their environment
local Guard = {}
Guard.__index = Guard

--- As c/world/guard.h has it.
local function record(pid, started) return string.pack("<I4I4", pid, started and 1 or 0) end

local lost

local function release(self)
  if self.pipe then self.pipe:close() end
  if self.process then self.process:close() end
  self.pipe, self.process = nil, nil
end

local function open(self)
  local process, err, code
  process, err, code = self.world:spawn {
    argv = { require("shoal.core.node").program(), "guard", self.word }, pipe = { stdin = true }, group = true,
    on_exit = function (status, signal)
      if self.process == process then lost(self, ("the guard ended with status %d, signal %d"):format(status, signal)) end
    end,
  }
  if not process then return nil, "cannot start the guard of the children: " .. err, code end
  self.process, self.pipe = process, process:stream(0)
  self.pipe:attach { on_end = function () end } -- Its exit follows, and is heard above.
  for pid in sorted(self.running) do self.pipe:write(record(pid, true)) end -- A refusal means it has gone: its exit follows.
  return true
end

--- The guard is gone. Until another one runs, a death of ours would leave children behind.
function lost(self, why)
  local pid = self.process:pid()
  release(self)
  local ok, err, code = true, nil, nil
  if not self.closed and next(self.running) then ok, err, code = open(self) end
  errors.report("exec.guard", { pid = pid }, ok and why or why .. "; " .. err, code)
end

--- Start a child that dies with us, in a group of its own. As world:spawn; the caller also calls `ended`.
---@param options table
---@return table? process, string? err, string? code
function Guard:spawn(options)
  options.group = true
  if self.simulated then return self.world:spawn(options) end
  local process, err, code
  for _ = 1, 2 do
    if not self.pipe then
      local ok
      ok, err, code = open(self)
      if not ok then return nil, err, code end
    end
    options.guard = self.pipe
    process, err, code = self.world:spawn(options)
    if process then
      self.running[process:pid()] = true
      return process
    end
    if code ~= "EPIPE" then return nil, err, code end
    if self.pipe then lost(self, "the guard does not read any more") end
  end
  return nil, err, code
end

--- The group of this child is no more. To be called before its process is closed: until then its id is its own.
---@param pid integer
function Guard:ended(pid)
  self.running[pid] = nil
  if self.pipe then self.pipe:write(record(pid, false)) end -- A refusal means it has gone: its exit follows.
end

Guard.__close = function (self)
  self.closed = true
  release(self)
end

--- The guard of what is started in this scope.
---@param world table
---@param scope table
---@return Guard
function guard.of(world, scope)
  local self = guards[scope]
  if self then return self end
  self = setmetatable({ world = world, running = {}, simulated = world:simulated(), word = ("%016x"):format(world:random()) }, Guard)
  guards[scope] = self
  if self.simulated then return self end
  scope:spawn("exec.guard", {}, function ()
    local _ <close> = self
    task.future("exec.guard", scope):await() -- For ever: its scope ends it.
  end)
  return self
end

return guard
