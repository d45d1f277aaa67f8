--- A channel: a bounded FIFO queue between tasks. A push never waits: on a full channel it returns FULL, and the caller decides. Several
--- tasks may wait to pop; they are served in order of arrival.

local channel = {}

---@class shoal.Channel
local Channel = {}
Channel.__index = Channel
Channel.__name = "shoal.channel"

local inner

--- Append a value; FULL when the channel holds its capacity.
---@return true? ok
---@return string? err
---@return string? code "FULL", "CLOSED"
function Channel:push(value)
  if value == nil then error("push: nil cannot be pushed", 2) end
  if self.closed then return nil, "the channel is closed", "CLOSED" end
  local count = self.count
  if count >= self.capacity then return nil, "the channel holds its " .. self.capacity .. " values", "FULL" end
  self[(self.head + count) % self.capacity + 1] = value
  self.count = count + 1
  if self.waiter then inner.wake_first(self) end
  return true
end

--- Take the oldest value, or wait for one. Values that were in the channel when it was closed can still be popped.
---@param timeout_ms? number
---@return any value
---@return string? err
---@return string? code "TIMEOUT", "CLOSED"
function Channel:pop(timeout_ms)
  local until_ns
  while self.count == 0 do
    if self.closed then return nil, "the channel is closed", "CLOSED" end
    if timeout_ms and not until_ns then
      inner.check_ms("pop", timeout_ms, 2)
      until_ns = inner.now_ns() + math.floor(timeout_ms * 1000000 + 0.5)
    end
    local t = inner.waiting_task("pop", 2)
    local left_ms = until_ns and math.max(0, until_ns - inner.now_ns()) / 1000000
    if not inner.wait(t, self, left_ms) then
      return nil, "nothing came within " .. timeout_ms .. " ms", "TIMEOUT"
    end
    t.woken_by = nil
  end
  local at = self.head + 1
  local value = self[at]
  self[at] = nil
  self.head = at % self.capacity
  self.count = self.count - 1
  return value
end

--- Close the channel: waiting tasks wake, and get CLOSED once it is empty. Idempotent.
function Channel:close()
  if self.closed then return end
  self.closed = true
  inner.wake_all(self)
end

function Channel:__tostring()
  return "channel (" .. self.count .. " of " .. self.capacity .. (self.closed and ", closed)" or ")")
end

function channel.new(means)
  inner = means
  return function (capacity)
    if math.type(capacity) ~= "integer" or capacity < 1 then
      error("task.channel: expected a capacity of at least 1, found " .. tostring(capacity), 3)
    end
    return setmetatable({ capacity = capacity, head = 0, count = 0 }, Channel)
  end
end

return channel
