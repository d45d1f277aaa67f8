--- eviction: what a gate makes of its datacenters' reachability: which is evicted, which is held, and how good each is for new parts.
---
---   unreachable, alone ----------------> evicted: its parts start elsewhere
---   unreachable, with several others --> held: its parts stay, it gets no new ones ---> reachable again: nothing was lost
---                                                                               '---> the hold ends in vain: evicted
---
--- The rules stand in member/correlation.lua (evictions) and member/dc_health.lua (health, and how hard the managers press back). A
--- datacenter that is unreachable gets no part, held or not. A level of its managers lowers what it gets from this gate:
---
---   none: no bound   throttle: 10 parts a second   batch: 2 a second   reject: none until it clears or expires
---
--- Times follow from dc_silent_ms, the time from a cut to `unreachable`, unless the node's config has others: correlation.scaled.
local correlation = require "shoal.member.correlation"
local dc_health = require "shoal.member.dc_health"
local errors = require "shoal.base.errors"
local log = require "shoal.base.log"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local eviction = {}

local Eviction = {}
Eviction.__index = Eviction

--- Parts a second that a level leaves; the levels' delays at workers are 100 ms and 500 ms.
local ROOM = { throttle = 10, batch = 2, reject = 0 }
local WINDOW_MS = 1000

-- The shipped gate's hooks write these two.
log.event("gate.held", { "event", "severity", "datacenters" })
log.event("gate.released", { "event", "severity", "datacenters", "cause", "lasted_ms" })
log.event("gate.dc_evicted", { "dc", "cause", "down_ms" })
log.event("gate.dc_health", { "dc", "from", "to" })

--- Times of health for a gate that probes every interval_ms: two bad probes in a row, five good ones.
local function health_of(interval_ms)
  return { worse_ms = interval_ms * 3 // 2, better_ms = interval_ms * 5, level_ms = math.max(10000, interval_ms * 3) }
end

--- People find it among the incidents, whatever the hooks do.
local function report(self, event, what)
  local names = table.concat(event.datacenters, " ")
  errors.report("gate.held", { event = event.event, datacenters = names, severity = event.severity, known = self.correlation:counts().known },
    ("%s of %d known datacenters %s (%s): evictions are held for up to %d s"):format(#event.datacenters, self.correlation:counts().known, what,
      names, self.correlation.config.hold_ms // 1000), "HELD")
end

local function detected(self, event)
  self.owner.changed()
  report(self, event, "failed at once")
  self.node.hooks:fire("correlation.detected", correlation.ids(event), event)
end

local function healed(self, event)
  self.owner.changed()
  self.node.hooks:fire("correlation.healed", correlation.ids(event), event)
end

---@param node table
---@param owner { evict: fun(dc: string, why: string), changed: fun() }  changed: what can get parts is not what it was
function eviction.open(node, owner)
  local self = setmetatable({ node = node, owner = owner, dcs = {} }, Eviction)
  self.correlation = assert(correlation.open(node.world, node.config.correlation, {
    on_detected = function (event) detected(self, event) end,
    on_raised = function (event) report(self, event, "have failed now") end,
    on_healed = function (event) healed(self, event) end,
    on_evict = function (verdict)
      local d = self.dcs[verdict.dc]
      if not d then return end
      log.warning("gate.dc_evicted", { dc = verdict.dc, cause = verdict.cause, down_ms = verdict.down_ms })
      self.owner.evict(verdict.dc, ("%s; %s"):format(d.why or "unreachable", verdict.why))
    end,
  }))
  self.health = assert(dc_health.open(node.world, health_of(node.config.federation.interval_ms), function (event)
    log.info("gate.dc_health", { dc = event.dc, from = event.from, to = event.to })
    self.owner.changed()
  end))
  return self
end

local function get(self, name)
  local d = self.dcs[name]
  if not d then
    d = { used = 0, window_ms = 0 }
    self.dcs[name] = d
  end
  return d
end

--- Its reachability changed.
---@param to "reachable"|"suspected"|"unreachable"
---@param why? string  of unreachable: the reason, for people
function Eviction:reach(name, to, why)
  local d = get(self, name)
  d.reach, d.why = to, to == "unreachable" and why or nil
  if to == "reachable" then
    local ok, err, code = self.correlation:know(name)
    if ok then ok, err, code = self.correlation:up(name) end
    if not ok then errors.report("correlation.refused", { dc = name }, err, code) end
  elseif not self.correlation:dc(name) then -- It never was reachable, or is one too many for correlation: its failure is its own.
    if to == "unreachable" then self.owner.evict(name, why) end
  elseif to == "suspected" then
    assert(self.correlation:suspect(name))
  else
    assert(self.correlation:down(name))
  end
  self.owner.changed()
end

--- New facts of its health (registry:facts), with the leader's level.
function Eviction:judge(name, facts)
  local ok, err, code = self.health:judge(name, facts)
  if not ok then return errors.report("dc_health.refused", { dc = name }, err, code) end
  if facts.leader then self:press(name, facts.leader, facts.level) end
end

--- A manager's level.
function Eviction:press(name, manager, level)
  local before = self.health:worst(name)
  local ok, err, code = self.health:press(name, manager, ROOM[level] and level or "none")
  if not ok then errors.report("dc_health.refused", { dc = name }, err, code) end
  if self.health:worst(name) ~= before then self.owner.changed() end
end

--- A manager is no more.
function Eviction:drop(name, manager) self.health:drop(name, manager) end

--- The datacenter is no more.
function Eviction:forget(name)
  self.dcs[name] = nil
  self.health:forget(name)
  if self.correlation:dc(name) then assert(self.correlation:forget(name)) end
end

--- Whether it is unreachable and its eviction is held.
function Eviction:held(name)
  local d = self.dcs[name]
  if not d or d.reach ~= "unreachable" then return false end
  local c = self.correlation:dc(name)
  return c ~= nil and not c.evicted
end

local function away_of(self, name, d)
  if d.reach ~= "unreachable" then return nil end
  local event = self.correlation:event()
  if not event then return ("datacenter %s is unreachable"):format(name) end
  return ("datacenter %s is unreachable, one of %d that failed at once; it has up to %d s to return"):format(name, #event.datacenters,
    (event.left_ms + 999) // 1000)
end

--- How a datacenter stands for placing; nil: it is not known.
---@return { health: string, level: string, away: string?, room: integer?, wait: string? }?  away: it gets nothing now, and why; room: so
---  many parts more in this second
function Eviction:standing(name)
  local d = self.dcs[name]
  if not d then return nil end
  local level = self.health:worst(name)
  local s = { health = self.health:state(name), level = level, away = away_of(self, name, d) }
  if ROOM[level] then
    local now_ms = task.now_ms()
    if now_ms - d.window_ms >= WINDOW_MS then d.window_ms, d.used = now_ms, 0 end
    s.room = math.max(0, ROOM[level] - d.used)
    s.wait = ("datacenter %s presses back: its managers are at level %s"):format(name, level)
  end
  return s
end

--- A part was placed on it.
function Eviction:took(name)
  local d = self.dcs[name]
  if d then d.used = d.used + 1 end
end

--- All of them, for people.
---@return { name: string, reach: string, health: string, level: string, held: boolean }[] rows, table? event  that holds
function Eviction:describe()
  local rows = {}
  for name, d in sorted(self.dcs) do
    rows[#rows + 1] = { name = name, reach = d.reach, health = self.health:state(name), level = self.health:worst(name),
      held = self:held(name) }
  end
  return rows, self.correlation:event()
end

function Eviction:close()
  self.correlation:close()
  self.health:close()
end

return eviction
