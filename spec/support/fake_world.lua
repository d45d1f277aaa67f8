--- A world of virtual time in plain Lua, for specs of the library: clocks, randomness, timers, files in a table.
---
---   local world = fake_world.new { seed = 1 }
---   world:run(500)       -- let 500 ms pass, firing timers in order
---   world:turn()         -- fire only the timers that are due now
local fake_world = {}

local World = {}
World.__index = World
local Timer = {}
Timer.__index = Timer
local Log = {}
Log.__index = Log

function fake_world.new(options)
  options = options or {}
  return setmetatable({ time_ns = options.now_ns or 5000000000, epoch_ns = 1782907200000000000,
    state = options.seed or 1, seeded = options.seed or 1, timers = {}, open = 0, order = 0, fired = 0, files = {} }, World)
end

function World:now_ns() return self.time_ns end
function World:fresh_ns() return self.time_ns end
function World:wall_ns() return self.epoch_ns + self.time_ns end
function World:seed() return self.seeded end
function World:simulated() return true end

--- xorshift64*
function World:random(n)
  local x = self.state ~ 0x9E3779B97F4A7C15
  x = x ~ (x >> 12)
  x = x ~ (x << 25)
  x = x ~ (x >> 27)
  self.state = x ~ 0x9E3779B97F4A7C15
  x = x * 0x2545F4914F6CDD1D
  if not n then return x end
  return (x >> 1) % n + 1
end
function World:unit() return (self:random() >> 11) / (1 << 53) end

function World:timer(fn)
  self.open = self.open + 1
  return setmetatable({ world = self, fn = fn }, Timer)
end
function Timer:start_at(ns)
  assert(not self.closed, "timer used after close")
  local world = self.world
  world.order = world.order + 1
  self.at_ns, self.order = math.max(ns, world.time_ns), world.order
  world.timers[self] = true
end
function Timer:start(ms) self:start_at(self.world.time_ns + math.floor(ms * 1000000 + 0.5)) end
function Timer:stop() self.world.timers[self] = nil end
function Timer:close()
  if self.closed then return end
  self:stop()
  self.closed, self.world.open = true, self.world.open - 1
end

local function first(world, until_ns)
  local best
  for timer in pairs(world.timers) do -- order-free: the least of all
    if timer.at_ns <= until_ns
      and (not best or timer.at_ns < best.at_ns or timer.at_ns == best.at_ns and timer.order < best.order) then
      best = timer
    end
  end
  return best
end

--- Let `ms` pass.
function World:run(ms)
  local until_ns = self.time_ns + math.floor(ms * 1000000 + 0.5)
  while true do
    local timer = first(self, until_ns)
    if not timer then break end
    self.time_ns = math.max(self.time_ns, timer.at_ns)
    self.timers[timer] = nil
    self.fired = self.fired + 1
    timer.fn()
  end
  self.time_ns = until_ns
end

--- Fire all timers that are due now, including those that are set again for now.
function World:turn() self:run(0) end

--- When the next timer fires, in ms from now; nil when none is set.
function World:next_ms()
  local timer = first(self, math.maxinteger)
  return timer and (timer.at_ns - self.time_ns) / 1000000
end

function World:read_file(path)
  local bytes = self.files[path]
  if not bytes then return nil, path .. ": no such file", "ENOENT" end
  return bytes
end

function World:log(path)
  if self.log_refused then return nil, self.log_refused, "EACCES" end
  self.files[path] = self.files[path] or ""
  return setmetatable({ world = self, path = path }, Log)
end
function Log:append(bytes)
  if self.world.append_raises then error(self.world.append_raises) end
  if self.world.disk_full then return nil, "no space left", "ENOSPC" end
  self.world.files[self.path] = self.world.files[self.path] .. bytes
  return true
end
function Log:lock()
  if self.world.log_locked then return nil, "process 7 writes to it", "BUSY" end
  return true
end
function Log:close() self.closed = true end

--- Standard error: lines are kept in world.stderr_lines.
function World:stdio(fd)
  if fd ~= 2 or not self.stderr_lines then return nil, "there is none", "UNSUPPORTED" end
  return {
    queued = function () return self.stderr_queued or 0 end,
    write = function (_, bytes)
      if self.stderr_broken then return nil, "broken pipe", "EPIPE" end
      self.stderr_lines[#self.stderr_lines + 1] = bytes
      return true
    end,
    close = function () end,
  }
end

return fake_world
