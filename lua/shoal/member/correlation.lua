--- Correlation: several datacenters that fail at about the same time are the network's fault, not theirs. While that holds, none is to be
--- evicted. c/core/correlation.h is the manual; usable alone:
---
---     local correlation = require "shoal.correlation"
---     local world = require "shoal.core.world".current()
---     local c = assert(correlation.open(world, {}, {
---       on_detected = function (event) print("held:", table.concat(event.datacenters, " "), event.severity) end,
---       on_healed = function (event) print("over:", event.cause) end,
---       on_evict = function (verdict) print("evict", verdict.dc, verdict.cause) end,
---     }))
---     for _, dc in ipairs { "eu", "us", "asia" } do assert(c:know(dc)) end
---     c:down "eu"          -- on_evict 10 s later: it is down alone ...
---     c:down "us"          -- ... but now two of three are down: on_detected in 5 s, and nothing is evicted for 60 s
---     require "luv".run()
---
--- The owner's functions run to their end and cannot wait. One that raises is an incident at its site, and the state has moved already:
--- on_evict is called again after 0.5, 1, 2, 4 and 8 s unless the datacenter returns; the others are called once. They may call every
--- method, `close` too: what follows from that comes after them, in order.
local core = require "shoal.core.correlation"
local errors = require "shoal.base.errors"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"

local correlation = { DCS_MAX = core.DCS_MAX, NAME_MAX = core.NAME_MAX }

local DAY_MS = 86400000

--- The core has the same rules across fields, for those that use it alone.
correlation.config = schema.record({
  window_ms = schema.integer { default = 30000, min = 1, max = DAY_MS, doc = "failures that began so far apart are counted together" },
  hold_ms = schema.integer { default = 60000, min = 1, max = DAY_MS, doc = "evictions are held for so long after each rise, unless it heals" },
  down_ms = schema.integer { default = 5000, min = 1, max = DAY_MS, doc = "down for so long counts as down" },
  up_ms = schema.integer { default = 30000, min = 1, max = DAY_MS, doc = "up for so long counts as up again" },
  low = schema.integer { default = 2, min = 2, max = core.DCS_MAX, doc = "datacenters, and at least half of the known ones" },
  medium = schema.integer { default = 3, min = 3, max = core.DCS_MAX },
  high = schema.integer { default = 4, min = 4, max = core.DCS_MAX },
  flap_moves = schema.integer { default = 3, min = 0, max = 8, doc = "changes in flap_ms that damp a datacenter; 0: never" },
  flap_ms = schema.integer { default = 120000, min = 1, max = DAY_MS },
  cool_ms = schema.integer { default = 300000, min = 1, max = DAY_MS, doc = "it is damped until so long after its last change" },
}, function (c)
  if c.window_ms < c.down_ms then return ("window_ms = %d must be at least down_ms = %d"):format(c.window_ms, c.down_ms) end
  if c.medium <= c.low then return ("medium = %d must be greater than low = %d"):format(c.medium, c.low) end
  if c.high <= c.medium then return ("high = %d must be greater than medium = %d"):format(c.high, c.medium) end
  if c.flap_moves == 1 then return "flap_moves must be 0, or 2 to 8: one change is no flapping" end
end)

--- The times in the proportions of the defaults, for an observer that takes total_ms to find a datacenter down (45 s: federation's).
---@param total_ms integer
function correlation.scaled(total_ms)
  local function part(of, by) return math.min(DAY_MS, math.max(1, total_ms * of // by)) end
  return {
    down_ms = part(1, 9), window_ms = part(2, 3), hold_ms = part(4, 3), up_ms = part(2, 3), flap_ms = part(8, 3), cool_ms = part(20, 3),
  }
end

---@class CorrelationEvent
---@field event integer        its number, from 1
---@field severity "low"|"medium"|"high"  of "healed": the highest that it had
---@field datacenters string[] all that were part of it, sorted
---@field at_ns integer        this node's monotonic clock
---@field wall_ns integer      this node's wall clock
---@field lasted_ms integer    since it was detected
---@field cause "returned"|"expired"|nil  of "healed": enough of them are back; hold_ms is over, and those that are down will be evicted

---@class CorrelationVerdict
---@field dc string
---@field cause "alone"|"left"|"vain"  it failed alone; the others of its event are back; the hold is over and it is still down
---@field event integer        0, or its last event
---@field down_ms integer      since its last report
---@field why string           for people

---@class Correlation
local Correlation = {}
Correlation.__index = Correlation
Correlation.__name = "shoal.correlation"

local WHY = {
  alone = "no other datacenter failed at the time",
  left = "others that failed with it are back",
  vain = "it did not come back while evictions were held",
}

---@class CorrelationHandlers
---@field on_detected? fun(event: CorrelationEvent)  `holds` is true already
---@field on_raised? fun(event: CorrelationEvent)    more failed, and the severity rose while it holds
---@field on_healed? fun(event: CorrelationEvent)    `holds` is false already
---@field on_evict? fun(verdict: CorrelationVerdict)

---@param world World
---@param config? table  see `correlation.config`; times in milliseconds
---@param handlers CorrelationHandlers
---@return Correlation? c, string? err, string? code  "CONFIG"
function correlation.open(world, config, handlers)
  for name, fn in sorted(handlers) do
    if type(fn) ~= "function" then error(("correlation: %s: expected a function, found %s"):format(name, type(fn)), 2) end
  end
  local checked, err = correlation.config(config or {})
  if not checked then return nil, "correlation: " .. err, "CONFIG" end
  local state, problem, code = core.new(world:now_ns(), checked)
  if not state then return nil, problem, code end
  local self = setmetatable({ world = world, config = checked, core = state, handlers = handlers }, Correlation)
  self.timer = world:timer(function () self:look() end)
  return self
end

-- ---- telling ----

local function event_of(self, action, now_ns)
  table.sort(action.dcs)
  return {
    event = action.event, severity = action.severity, datacenters = action.dcs, cause = action.cause, at_ns = now_ns,
    wall_ns = self.world:wall_ns(), lasted_ms = (now_ns - action.since_ns) // 1000000,
  }
end

--- The ids of an incident about an event.
---@param event CorrelationEvent
function correlation.ids(event)
  return { event = event.event, datacenters = table.concat(event.datacenters, " "), severity = event.severity, at_ns = event.at_ns,
    wall_ns = event.wall_ns }
end

local function tell(site, fn, event)
  if fn then errors.run(site, correlation.ids(event), nil, fn, event) end
end

local told = {}
function told.detected(self, event) tell("correlation.detected", self.handlers.on_detected, event) end
function told.raised(self, event) tell("correlation.raised", self.handlers.on_raised, event) end
function told.healed(self, event) tell("correlation.healed", self.handlers.on_healed, event) end

local function evict(self, action, now_ns)
  if not self.handlers.on_evict then return end
  local verdict = { dc = action.dc, cause = action.cause, event = action.event, why = WHY[action.cause],
    down_ms = (now_ns - action.since_ns) // 1000000 }
  errors.deliver("correlation.evict", { dc = action.dc, cause = action.cause, event = action.event }, action.dc, function ()
    if not self.closed then self.handlers.on_evict(verdict) end
  end)
end

local function arm(self)
  local at_ns = self.core:deadline()
  if at_ns then self.timer:start_at(at_ns) else self.timer:stop() end
end

--- Take every step that is due. A handler that reports something while it runs is served by the loop that called it.
function Correlation:look()
  if self.looking or self.closed then return end
  self.looking = true
  local over <close> = setmetatable({}, { __close = function () -- luacheck: ignore over
    self.looking = false
    if not self.closed then arm(self) end
  end })
  while not self.closed do
    local now_ns = self.world:now_ns()
    local action = self.core:next(now_ns)
    if not action then return end
    if action.kind == "evict" then evict(self, action, now_ns) else told[action.kind](self, event_of(self, action, now_ns)) end
  end
end

-- ---- reports ----

local function open(self)
  if self.closed then error("correlation: used after close", 3) end
  return self.core, self.world:now_ns()
end

local function done(self, ...)
  if (...) then self:look() end
  return ...
end

--- A datacenter exists and is up. Again is harmless.
---@return true? ok, string? err, string? code  "FULL" past 256, "TOO_LARGE": its name
function Correlation:know(dc)
  local state, now_ns = open(self)
  return done(self, state:know(now_ns, dc))
end

--- It exists no more.
---@return true? ok, string? err, string? code  "NOT_FOUND"
function Correlation:forget(dc)
  local state, now_ns = open(self)
  errors.withdraw("correlation.evict", dc)
  return done(self, state:forget(now_ns, dc))
end

--- There are signs that it fails. An eviction of another one waits for what becomes of it, if together they would be correlated.
---@return true? ok, string? err, string? code  "NOT_FOUND"; so for `down` and `up`
function Correlation:suspect(dc)
  local state, now_ns = open(self)
  return done(self, state:suspect(now_ns, dc))
end

function Correlation:down(dc)
  local state, now_ns = open(self)
  return done(self, state:down(now_ns, dc))
end

function Correlation:up(dc)
  local state, now_ns = open(self)
  errors.withdraw("correlation.evict", dc) -- It is no longer true.
  return done(self, state:up(now_ns, dc))
end

-- ---- questions ----

--- Whether evictions are held.
function Correlation:holds() return self.core:holds() end
---@return "none"|"low"|"medium"|"high"
function Correlation:severity() return self.core:severity() end

--- The event that holds; nil while none does.
---@return { event: integer, severity: string, datacenters: string[], lasted_ms: integer, left_ms: integer }?
function Correlation:event()
  local e = self.core:event()
  if not e then return nil end
  table.sort(e.dcs)
  local now_ns = self.world:now_ns()
  return { event = e.event, severity = e.severity, datacenters = e.dcs, lasted_ms = (now_ns - e.since_ns) // 1000000,
    left_ms = math.max(0, e.until_ns - now_ns) // 1000000 }
end

--- One datacenter as it counts here; nil: it is not known.
---@return { name: string, status: "up"|"falling"|"down"|"rising", suspect: boolean, damped: boolean, evicted: boolean, event: integer,
---  since_ns: integer }?
function Correlation:dc(name) return self.core:dc(name) end

--- All of them, by name.
function Correlation:dcs()
  local rows = self.core:dcs()
  table.sort(rows, function (a, b) return a.name < b.name end)
  return rows
end

--- Reports by kind, `full`, `damped`, `detected`, `raised`, `returned`, `expired`, evictions by cause, `late`, `known`.
function Correlation:counts() return self.core:counts() end

--- Close at once: nothing is told any more. Idempotent. Reports then raise; questions are answered.
function Correlation:close()
  if self.closed then return end
  self.closed = true
  for _, row in ipairs(self.core:dcs()) do errors.withdraw("correlation.evict", row.name) end -- Nobody is left to evict them.
  self.timer:close()
end
Correlation.__close = Correlation.close

function Correlation:__tostring()
  return ("correlation (%s, severity %s)"):format(self.closed and "closed" or "open", self:severity())
end

return correlation
