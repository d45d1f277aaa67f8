--- A future: a value, or a failure, that arrives later, once. The first set or fail wins.
---
---   local f = task.future "reply of m1"
---   f:set(body)  |  f:fail("m1 did not answer", "TIMEOUT")       by the code that completes it
---   local body, err, code = f:await(5000)                         in a task; or
---   f:take(function (body, err, code) ... end)                    a continuation; or
---   f:drop "an answer would change nothing"                       on purpose
---
--- A failure that is not taken by the end of its scope, or that the collector finds, is an incident at future.untaken: the result of a
--- send must be taken.

local errors = require "shoal.base.errors"

local future = {}

---@class shoal.Future
local Future = {}
Future.__index = Future
Future.__name = "shoal.future"

local inner
local sentinel_seq = 0

--- Represents a failed future until it is taken. Only sentinels have a finalizer, so that other futures cost nothing. A finalizer may
--- run anywhere, so it only leaves a note.
local Sentinel = {
  __gc = function (self)
    if not self.taken then inner.collect(self) end
  end,
}

local function watch(self)
  sentinel_seq = sentinel_seq + 1
  local scope = self.scope
  local sentinel = setmetatable({ number = sentinel_seq, label = self.label, err = self[2], code = self[3],
    scope_name = scope.name }, Sentinel)
  self.sentinel = sentinel
  if scope.closed then
    future.report(sentinel, scope.name)
    return
  end
  local untaken = scope.untaken
  if not untaken then
    untaken = setmetatable({}, { __mode = "k" })
    scope.untaken = untaken
  end
  untaken[sentinel] = true
end

local function taken(self)
  self.is_taken = true
  local sentinel = self.sentinel
  if sentinel then
    sentinel.taken = true
    self.sentinel = nil
    local untaken = self.scope.untaken
    if untaken then untaken[sentinel] = nil end
  end
end

--- The failed futures of a scope that were not taken, in the order in which they failed.
function future.untaken(scope)
  local list = {}
  for sentinel in next, scope.untaken do -- order-free: sorted below
    if not sentinel.taken then list[#list + 1] = sentinel end
  end
  scope.untaken = nil
  table.sort(list, function (a, b) return a.number < b.number end)
  return list
end

--- Report one failure that was not taken, as an incident.
function future.report(sentinel, scope_name)
  if sentinel.taken then return end
  sentinel.taken = true
  errors.report("future.untaken", { future = sentinel.label, code = sentinel.code or "", scope = scope_name },
    sentinel.err, sentinel.code)
end

local function continue(self)
  local fn = self.taker
  self.continue, self.taker = nil, nil
  errors.run(self.take_site or "task.take", self.take_ids or { future = self.label }, nil, fn,
    table.unpack(self, 1, self.n))
end

local function complete(self, done, n)
  self.done, self.n = done, n
  if self.taker then
    self.continue = continue
    inner.make_ready(self)
  elseif self.waiter then
    inner.wake_all(self)
  elseif done == "failed" and not self.is_taken then
    watch(self)
  end
  return true
end

--- Set the value. -> false if the future was already set or failed.
---@param ... any
---@return boolean first
function Future:set(...)
  if self.done then return false end
  local n = select("#", ...)
  if n <= 3 then
    self[1], self[2], self[3] = ...
  else
    for i = 1, n do self[i] = (select(i, ...)) end
  end
  return complete(self, "set", n)
end

--- Fail the future.
---@param err any
---@param code? string
---@return boolean first
function Future:fail(err, code)
  if self.done then return false end
  self[2], self[3] = err, code
  return complete(self, "failed", 3)
end

local function settle(self, value, err, code)
  if value ~= nil then self:set(value) else self:fail(err, code) end
end

--- As set(value), or fail(err, code) when value is nil; and the waiting tasks run before this returns, unless a turn is in progress.
--- For callbacks from the world: it saves a turn of the loop.
function Future:settle(value, err, code)
  inner.turn_with(settle, self, value, err, code)
end

--- Wait for the value.
---@param timeout_ms? number
---@return any ... the set values; or nil, the message and the code; "TIMEOUT" when nothing came in time
function Future:await(timeout_ms)
  self.is_taken = true
  if not self.done then
    if timeout_ms then inner.check_ms("await", timeout_ms, 2) end
    local t = inner.waiting_task("await", 2)
    if not inner.wait(t, self, timeout_ms) and not self.done then
      self.is_taken = false -- A later failure must still be taken.
      return nil, self.label .. ": nothing came within " .. timeout_ms .. " ms", "TIMEOUT"
    end
  elseif self.sentinel then
    taken(self)
  end
  local n = self.n
  if n == 1 then return self[1] end
  return table.unpack(self, 1, n)
end

--- Call fn with the result, as await would return it: after the current event, to its end, isolated from other code.
---@param fn function
---@param site? string  of its failure; default "task.take"
---@param ids? table
function Future:take(fn, site, ids)
  if type(fn) ~= "function" then error("take: expected a function, found " .. type(fn), 2) end
  if self.taker or self.continue then error("take: " .. self.label .. " was taken already", 2) end
  taken(self)
  self.taker, self.take_site, self.take_ids = fn, site, ids
  if self.done then
    self.continue = continue
    inner.make_ready(self)
  end
end

--- Drop the result on purpose; `why` documents the reason.
---@param why string
function Future:drop(why)
  if type(why) ~= "string" or why == "" then error("drop: say why", 2) end
  self.dropped = why
  taken(self)
end

--- "set", "failed", or nil while it is pending.
function Future:state() return self.done or nil end

function Future:__tostring() return "future " .. self.label .. " (" .. (self.done or "pending") .. ")" end

--- For shoal.task: takes the scheduler's functions, returns the constructor.
function future.new(means)
  inner = means
  return function (label, scope)
    -- All fields at once, so that the table is sized once: every call creates a future.
    return setmetatable({ nil, nil, nil, label = label or "?", scope = scope, done = false, n = 0, waiter = false,
      is_taken = false }, Future)
  end
end

return future
