--- The health of datacenters, for routing: healthy, busy, degraded, unhealthy; and how hard their managers press back.
--- c/core/dc_health.h is the manual; usable alone:
---
---     local h = assert(dc_health.open(require "shoal.core.world".current(), {}, function (e) print(e.dc, e.from, e.to) end))
---     print(h:judge("eu", { reachable = true, managers = 3, managers_alive = 3, workers = 4, cores = 32, free = 20 }))
---     assert(h:press("eu", "m1", "batch"))   -- until it tells "none", or nothing for 10 s
---     print(h:worst "eu")
---
--- on_change runs to its end and cannot wait. If it raises, that is one incident at dc_health.changed, and the state has changed.
local core = require "shoal.core.dc_health"
local errors = require "shoal.base.errors"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"

local dc_health = { DCS_MAX = 256, MANAGERS_MAX = core.MANAGERS_MAX, NAME_MAX = core.NAME_MAX }

--- The core checks the rules across fields.
dc_health.config = schema.record {
  degraded_percent = schema.integer { default = 50, min = 0, max = 100, doc = "degraded while at most so many of its managers live ..." },
  recovered_percent = schema.integer { default = 60, min = 1, max = 100, doc = "... until so many do" },
  busy_percent = schema.integer { default = 95, min = 1, max = 100, doc = "busy while so many of its cores are in use ..." },
  idle_percent = schema.integer { default = 85, min = 0, max = 100, doc = "... until at most so many are" },
  worse_ms = schema.integer { default = 3000, min = 0, max = 600000, doc = "facts ask for a worse state for so long" },
  better_ms = schema.integer { default = 10000, min = 0, max = 600000, doc = "facts ask for a better state for so long" },
  level_ms = schema.integer { default = 10000, min = 1, max = 600000, doc = "a level that is not refreshed ends" },
}

---@class DcHealth
local Health = {}
Health.__index = Health
Health.__name = "shoal.dc_health"

---@param world World
---@param config? table  see `dc_health.config`; times in milliseconds
---@param on_change? fun(event: { dc: string, from: string, to: string })  may call every method
---@return DcHealth? h, string? err, string? code  "CONFIG"
function dc_health.open(world, config, on_change)
  if on_change ~= nil and type(on_change) ~= "function" then
    error("dc_health: on_change: expected a function, found " .. type(on_change), 2)
  end
  local checked, err = dc_health.config(config or {})
  if not checked then return nil, "dc_health: " .. err, "CONFIG" end
  local tried, problem, code = core.new(0, checked)
  if not tried then return nil, problem, code end
  local self = setmetatable({ world = world, config = checked, on_change = on_change, dcs = {}, count = 0, full = 0 }, Health)
  self.timer = world:timer(function () self:look() end)
  return self
end

local function arm(self)
  local first
  for _, d in next, self.dcs do -- order-free: the least
    local at_ns = d.core:deadline()
    if at_ns and (not first or at_ns < first) then first = at_ns end
  end
  if first then self.timer:start_at(first) else self.timer:stop() end
end

--- Take the state as it is now; a change is told.
local function see(self, name, d)
  local from, to = d.state, d.core:state(self.world:now_ns())
  if from == to then return to end
  d.state = to
  if self.on_change and from then
    errors.run("dc_health.changed", { dc = name, from = from, to = to }, nil, self.on_change, { dc = name, from = from, to = to })
  end
  return to
end

--- Look at every datacenter: time changes states too.
function Health:look()
  for name, d in sorted(self.dcs) do
    if self.closed then return end
    if self.dcs[name] == d then see(self, name, d) end
  end
  if not self.closed then arm(self) end
end

local function get(self, name)
  if self.closed then error("dc_health: used after close", 3) end
  if self.dcs[name] then return self.dcs[name] end
  if type(name) ~= "string" then error("dc_health: a datacenter's name: expected a string, found " .. type(name), 3) end
  if self.count >= dc_health.DCS_MAX then
    self.full = self.full + 1
    return nil, ("dc_health: datacenter %s: at most %d are known"):format(name, dc_health.DCS_MAX), "FULL"
  end
  local d = { core = assert(core.new(self.world:now_ns(), self.config)) }
  self.dcs[name], self.count = d, self.count + 1
  return d
end

local function seen(self, name, d)
  local state = see(self, name, d)
  if not self.closed then arm(self) end
  return state
end

--- New facts about a datacenter. The first ones decide at once.
---@param facts { reachable: boolean, suspect?: boolean, managers: integer, managers_alive: integer, workers: integer, cores: integer,
---  free: integer }
---@return "healthy"|"busy"|"degraded"|"unhealthy"|nil state, string? err, string? code  "FULL" past 256
function Health:judge(name, facts)
  local d, err, code = get(self, name)
  if not d then return nil, err, code end
  d.core:judge(self.world:now_ns(), facts)
  return seen(self, name, d)
end

--- A manager's level, as it has just told it.
---@param level "none"|"throttle"|"batch"|"reject"
---@return true? ok, string? err, string? code  "FULL": 256 datacenters, or 32 managers of one that press back at once; "TOO_LARGE": its name
function Health:press(name, manager, level)
  local d, err, code = get(self, name)
  if not d then return nil, err, code end
  local ok
  ok, err, code = d.core:press(self.world:now_ns(), manager, level)
  if not ok then return nil, err, code end
  seen(self, name, d)
  return true
end

--- A manager is no more: its level counts no longer.
function Health:drop(name, manager)
  local d = self.dcs[name]
  if not d or self.closed then return end
  d.core:drop(manager)
  seen(self, name, d)
end

--- Its state; "unhealthy" of one that is not known, for nothing speaks for it.
---@return "healthy"|"busy"|"degraded"|"unhealthy"
function Health:state(name)
  local d = self.dcs[name]
  if not d then return "unhealthy" end
  return self.closed and d.state or seen(self, name, d)
end

--- The worst level of its managers.
---@return "none"|"throttle"|"batch"|"reject"
function Health:worst(name)
  local d = self.dcs[name]
  return d and d.core:worst(self.world:now_ns()) or "none"
end

--- The datacenter exists no more.
function Health:forget(name)
  if not self.dcs[name] then return end
  self.dcs[name], self.count = nil, self.count - 1
  if not self.closed then arm(self) end
end

--- All of them, by name.
---@return { name: string, state: string, level: string }[]
function Health:list()
  local out = {}
  for name in sorted(self.dcs) do out[#out + 1] = { name = name, state = self:state(name), level = self:worst(name) } end
  return out
end

--- Changes of states, levels refused, managers that press back, datacenters refused (`full`).
function Health:counts()
  local sum = { changes = 0, refused = 0, pressing = 0, full = self.full }
  for _, d in next, self.dcs do -- order-free: sums
    for key, value in next, d.core:counts() do sum[key] = sum[key] + value end -- order-free: sums
  end
  return sum
end

--- Close at once. Idempotent. Facts and levels then raise; questions are answered.
function Health:close()
  if self.closed then return end
  self.closed = true
  self.timer:close()
end
Health.__close = Health.close

return dc_health
