--- Failure detection in two layers: nodes whose machine is dead, and nodes that do not respond for one job while their machine lives.
--- The rules are c/core/detector.h's, with a diagram; usable alone:
---
---     local detector = require "shoal.detector"
---     local world = require "shoal.core.world".current()
---     local d = assert(detector.open(world, { members = function () return 5 end }, function (event)
---       print(event.kind, event.job, event.node, event.why)
---     end))
---     d:node("w1", "alive", 1)              -- or d:feed(event), from every event of shoal.swim
---     d:suspect("job-7", "w1", "m1")        -- m1 misses w1's progress for job-7: w1 has 10 s, or less as others confirm it
---     d:confirm("job-7", "w1", "m2")
---     d:progress("job-7", "w1")             -- it was alive after all: job_cleared; else job_expired comes in time
---     d:over "job-7"
---
--- Alone, without membership, a machine is suspected and confirmed in the same way with job nil, and `d:node` with a greater incarnation
--- refutes. Its expiry is its death: `node_expired`, and at once `job_cleared` for each of its jobs.
---
--- An incarnation is { generation, version } as membership has it, its text "G.V", or a number, which is the generation. A greater
--- generation is a new life and clears all suspicions of the old one. Events give it as text.
---
--- Events come in order, each at its site (base/sites.lua): a handler that raises is one incident, and the next event comes. A handler may
--- call anything here, `close` included; its events follow after it has returned.
local core = require "shoal.core.detector"
local errors = require "shoal.base.errors"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"

local detector = {}

local LOOK_AT_ONCE = 200 -- Nodes and jobs that a reconcile pass looks at in one turn of the loop.
local NS_PER_MS = 1000000
local ACCUSERS_MAX = 1024 -- Names of accusers that are kept for `why`; the core tells them apart by number.

local function tuning(min, max, doc) return schema.optional(schema.integer { min = min, max = max, doc = doc }) end

--- Times are milliseconds. `profile` and `watches` give the defaults; the core checks the rules across fields.
detector.config = schema.record {
  profile = schema.enum { "lan", "wan", "local", default = "lan" },
  watches = schema.enum { "workers", "managers", "gates", default = "workers" },
  node_min_ms = tuning(10, 3600000, "a suspected machine has at least this to refute; lan 1,000, wan 5,000, local 200"),
  node_max_ms = tuning(10, 3600000, "and at most this; six times as much"),
  job_min_ms = tuning(10, 3600000, "a node suspected for a job has at least this; workers 1,000, managers 2,000, gates 5,000"),
  job_max_ms = tuning(10, 3600000, "and at most this; workers 10,000, managers 15,000, gates 30,000"),
  confirmations = tuning(0, 7, "further accusers that bring a timeout down to the least; 2"),
  nodes_max = tuning(1, 10000000, "one more is refused; 10,000"),
  job_suspicions_max = tuning(1, 10000000, "one more of a job is refused; 1,000"),
  suspicions_max = tuning(1, 10000000, "one more in all is refused; 50,000"),
  extension_base_ms = tuning(1, 3600000, "the n-th extension is this / 2^n; 30,000"),
  extension_min_ms = tuning(1, 3600000, "but at least this; 1,000"),
  extensions_max = tuning(0, 20, "of a workflow; 5"),
  grace_ms = tuning(0, 3600000, "after the last of them, once; 10,000"),
  beat_ms = tuning(10, 60000, "while there are suspicions the timer fires this often, to notice that this process was away; 100"),
  stall_ms = tuning(10, 60000, "a timer this late is a stall, and the time is given back to the suspects; 100"),
  dead_kept_ms = tuning(1000, 86400000, "a node that died or left is remembered so long, to recognise stale claims; 300,000"),
  reconcile_ms = schema.integer { default = 5000, min = 100, max = 3600000, doc = "from one reconcile pass to the next" },
  members = schema.optional(schema.func { doc = "() -> how many members the group has; more of them get more time" }),
  health = schema.optional(schema.func { doc = "() -> this node's own ill health, 0 .. 8; the worse, the more time others get" }),
  knows_node = schema.optional(schema.func { doc = "(name) -> whether there is such a node; asked by the reconcile pass" }),
  knows_job = schema.optional(schema.func { doc = "(id) -> whether this job still runs; asked by the reconcile pass" }),
}

---@alias DetectorIncarnation integer | string | { generation: integer, version: integer }

---@class DetectorEvent
---@field kind "job_suspected"|"job_expired"|"job_cleared"|"node_suspected"|"node_expired"|"node_cleared"
---@field job string?            nil for a machine
---@field node string
---@field incarnation string     of the node when it was suspected, such as "1782907200.3"
---@field confirmations integer
---@field timeout_ms integer     with the confirmations and extensions it has now
---@field age_ms integer         since the suspicion began
---@field why "suspected"|"timeout"|"progress"|"job over"|"node dead"|"node left"|"node rejoined"|"refuted"|"node forgotten"

---@class DetectorWhy  times are whole milliseconds
---@field node string
---@field job string?
---@field state "alive"|"suspect"|"held"|"dead"|"left"
---@field incarnation string
---@field since_ms integer       since its state changed here
---@field suspicion { since_ms: integer, ends_ms: integer, least_ms: integer, most_ms: integer, extended_ms: integer, postponed_ms: integer,
---  confirmations: integer, wanted: integer, accusers: string[] }?  past 1,024 accusers, one that is no known node is "#NUMBER"
---@field extension { grants: integer, graced: true?, progressed: true?, for_ms: integer }?  of the workflow that asked last

---@class Detector
local Detector = {}
Detector.__index = Detector
Detector.__name = "shoal.detector"

-- What the owner knows ---------------------------------------------------------------------------------------------------

local GETTERS = { members = 1000000, health = 8 } -- And their greatest values.

--- Ask the owner; its last good answer stands while it fails, so that no suspicion waits for it.
local function ask(self, getter, job, node)
  local fn = self.config[getter]
  if not fn or self.asking then return self.good[getter] end
  local ids = { getter = getter, job = job or "none", node = node, last_good = self.good[getter] }
  self.asking = true
  local ok, value = errors.run("detector.getter", ids, nil, fn)
  self.asking = false
  if not ok then
    self.getter_failures = self.getter_failures + 1
    return self.good[getter]
  end
  local whole = type(value) == "number" and math.tointeger(value)
  if whole and whole >= 0 and whole <= GETTERS[getter] then
    self.good[getter] = whole
  else
    self.getter_failures = self.getter_failures + 1
    errors.report("detector.getter", ids,
      ("%s: expected an integer from 0 to %d, found %s"):format(getter, GETTERS[getter], type(value) == "number" and value or type(value)))
  end
  return self.good[getter]
end

local PASS = { "forgotten", "ended", "failed" }

local function pass_ids(self, kind, name)
  local counts, ids = self.core:counts(), { node = "none", job = "none", cycle = self.cycle }
  ids[kind] = name
  for _, field in ipairs(PASS) do ids[field] = self.pass[field] end
  for _, field in ipairs { "looked", "mended", "dropped_nodes", "dropped_grants" } do ids[field] = counts[field] end
  return ids
end

--- Whether the owner says that it does not know this node or job. A failure is an incident, and the answer "it is known".
local function is_unknown(self, kind, name)
  local fn = self.config["knows_" .. kind]
  if not fn then return false end
  local function ids() return pass_ids(self, kind, name) end
  local ok, known = errors.run("detector.reconcile", ids, nil, fn, name)
  if ok and type(known) == "boolean" then return not known end
  self.pass.failed = self.pass.failed + 1
  if ok then errors.report("detector.reconcile", ids(), ("knows_%s: expected true or false, found %s"):format(kind, type(known))) end
  return false
end

--- One turn of a reconcile pass. Returns when the next is due.
local function look(self, now_ns)
  for _ = 1, LOOK_AT_ONCE do
    local kind, name = self.core:look(now_ns)
    if kind == "all" then
      self.cycle = self.cycle + 1
      return now_ns + self.config.reconcile_ms * NS_PER_MS
    end
    local unknown = is_unknown(self, kind, name)
    if self.closed then return now_ns end
    if unknown and kind == "node" then
      self.core:forget(now_ns, name)
      self.pass.forgotten = self.pass.forgotten + 1
    elseif unknown then
      self.core:over(now_ns, name)
      self.pass.ended = self.pass.ended + 1
    end
  end
  return now_ns -- The rest in the next turn.
end

-- Time and events --------------------------------------------------------------------------------------------------------

local function arm(self)
  local due_ns = math.min(self.look_ns, self.core:deadline() or math.maxinteger)
  if self.armed_ns and self.armed_ns <= due_ns then return end -- An earlier look does no harm.
  self.armed_ns = due_ns
  self.timer:start_at(due_ns)
end

local function deliver(self, event)
  local ids = { kind = event.kind, job = event.job or "none", node = event.node }
  local site = "detector.event"
  if event.kind == "job_expired" then
    site, ids = "detector.job_suspicion_expired", {
      job = event.job, node = event.node, incarnation = event.incarnation, confirmations = event.confirmations,
      timeout_ms = event.timeout_ms, age_ms = event.age_ms,
    }
  end
  errors.run(site, ids, nil, self.on_event, event)
end

--- Deliver what happened. A call from a handler leaves it to the loop here, which the handler returns to.
local function drain(self)
  if self.draining then return end
  self.draining = true
  while not self.closed do
    local event = self.core:next()
    if not event then break end
    deliver(self, event)
  end
  self.draining = false
  if not self.closed then arm(self) end
end

local function on_timer(self)
  if self.closed then return end
  self.armed_ns = nil
  local now_ns = self.world:now_ns()
  self.core:tick(now_ns)
  if now_ns >= self.look_ns then self.look_ns = look(self, now_ns) end
  if not self.closed then drain(self) end
end

---@param world World
---@param config? table  see detector.config
---@param on_event fun(event: DetectorEvent)  runs to its end; may call anything here, including close
---@return Detector? detector
---@return string? err  every problem of the config at once
---@return string? code  "CONFIG", "MEMORY", or the world's
function detector.open(world, config, on_event)
  if type(on_event) ~= "function" then error("detector: on_event: expected a function, found " .. type(on_event), 2) end
  local checked, err = detector.config(config or {})
  if not checked then return nil, "detector: " .. err, "CONFIG" end
  local now_ns = world:now_ns()
  local state, code
  state, err, code = core.new(checked, now_ns)
  if not state then return nil, err, code end
  local self = setmetatable({
    world = world, config = checked, core = state, on_event = on_event, good = { members = 0, health = 0 }, getter_failures = 0,
    accusers = {}, accusers_count = 0, names = {}, cycle = 0, pass = { forgotten = 0, ended = 0, failed = 0 },
    look_ns = now_ns + checked.reconcile_ms * NS_PER_MS,
  }, Detector)
  self.timer, err, code = world:timer(function () on_timer(self) end)
  if not self.timer then return nil, err, code end
  arm(self)
  return self
end

local function usable(self)
  if self.closed then error("detector: this detector is closed", 3) end
  return self.world:now_ns()
end

--- An incarnation of any form as its two numbers.
local function numbers_of(incarnation)
  if math.type(incarnation) == "integer" then return incarnation, 0 end
  if type(incarnation) == "table" then return incarnation.generation, incarnation.version or 0 end
  if type(incarnation) == "string" then
    local generation, version = incarnation:match "^(%d+)%.(%d+)$"
    if generation then return math.tointeger(tonumber(generation)), math.tointeger(tonumber(version)) end
  end
  error(("detector: incarnation: expected a number, { generation, version } or \"G.V\", found %s"):format(tostring(incarnation)), 3)
end

-- Layer one --------------------------------------------------------------------------------------------------------------

--- A claim about a node: of membership, or of the node itself. One that is not greater than the last is stale: ignored and counted. Of
--- one incarnation the order is alive, suspect, held, dead, left. "held": membership shows it as dead because it flaps.
---@param name string
---@param state "alive"|"suspect"|"held"|"dead"|"left"  the last three clear every suspicion of the node
---@param incarnation DetectorIncarnation
---@return boolean? changed
---@return string? err
---@return string? code  "FULL": nodes_max are known
function Detector:node(name, state, incarnation)
  local now_ns = usable(self)
  local changed, err, code = self.core:node(now_ns, name, state, numbers_of(incarnation))
  drain(self)
  return changed, err, code
end

local FED = { join = "alive", alive = "alive", suspect = "suspect", dead = "dead", left = "left" }

--- An event of shoal.swim: the same as `node`, or `forget`.
---@param event SwimEvent
---@return boolean? changed
---@return string? err
---@return string? code
function Detector:feed(event)
  local member = event.member
  if event.kind == "forgotten" then return self:forget(member.name) > 0 end
  local state = FED[event.kind]
  if not state then return false end
  return self:node(member.name, event.kind == "dead" and member.held and "held" or state, member.incarnation)
end

--- Nobody knows this node any more: clear its suspicions, and remember nothing of it.
---@param name string
---@return integer cleared
function Detector:forget(name)
  local cleared = self.core:forget(usable(self), name)
  drain(self)
  return cleared
end

-- Both layers ------------------------------------------------------------------------------------------------------------

local function remember(self, accuser)
  if self.accusers[accuser] or self.accusers_count >= ACCUSERS_MAX then return end
  self.accusers_count = self.accusers_count + 1
  self.accusers[accuser], self.names["#" .. core.number(accuser)] = true, accuser
end

--- Suspect a node for a job; where it is suspected already, confirm that. Job nil: the machine.
---@param job string?
---@param node string
---@param accuser string
---@param incarnation? DetectorIncarnation  the life that is accused; nil: the one known here. An older life: ignored and counted.
---@return boolean? changed  false: it accused already, no more accusers are wanted, or the node is dead, held or gone
---@return string? err
---@return string? code  "FULL": a cap is reached; "CLOSED": a getter closed this detector
function Detector:suspect(job, node, accuser, incarnation)
  local now_ns = usable(self)
  local generation = incarnation ~= nil and numbers_of(incarnation) or nil
  local members, health = ask(self, "members", job, node), ask(self, "health", job, node)
  if self.closed then return nil, "detector: this detector is closed", "CLOSED" end
  local changed, err, code = self.core:suspect(now_ns, job, node, accuser, generation, members, health)
  if changed then remember(self, accuser) end
  drain(self)
  return changed, err, code
end

--- One more accuser. This can only bring the deadline nearer.
---@param job string?
---@param node string
---@param accuser string
---@return boolean changed
function Detector:confirm(job, node, accuser)
  local changed = self.core:confirm(usable(self), job, node, accuser)
  if changed then remember(self, accuser) end
  drain(self)
  return changed
end

--- The node made progress for the job, which refutes a suspicion. Cheap while there is none.
---@param job string
---@param node string
---@return boolean refuted
function Detector:progress(job, node)
  local refuted = self.core:progress(usable(self), job, node)
  if refuted then drain(self) end
  return refuted
end

--- More time for a node's work on a job. The n-th grant of a workflow is base / 2^n, each after progress since the one before: more than
--- `progress` was then, if it is given (the node's own count); else calls of `progress` count, and the first grant needs none.
---@param job string
---@param node string
---@param workflow string
---@param progress? integer
---@return integer? granted_ms
---@return string? why
---@return string? code  "REFUSED": no progress, or the node is not alive; "FULL": all were granted, or a cap is reached
---@return integer? grace_ms  with the first "FULL" of a workflow: the last grace, which has just begun; else 0
function Detector:extend(job, node, workflow, progress)
  local granted_ms, why, code, grace_ms = self.core:extend(usable(self), job, node, workflow, progress)
  drain(self)
  return granted_ms, why, code, grace_ms
end

--- The job ended: on this node, or everywhere.
---@param job string
---@param node? string
---@return integer cleared
function Detector:over(job, node)
  local cleared = self.core:over(usable(self), job, node)
  drain(self)
  return cleared
end

-- Looking ----------------------------------------------------------------------------------------------------------------

--- The evidence for a node's state, and for its suspicion. Job nil: the machine's.
---@param job string?
---@param node string
---@return DetectorWhy?  nil: the node is not known
function Detector:why(job, node)
  local why = self.core:why(usable(self), job, node)
  for i, accuser in ipairs(why and why.suspicion and why.suspicion.accusers or {}) do
    why.suspicion.accusers[i] = self.names[accuser] or accuser
  end
  return why
end

--- Counters since the beginning (refusals by cap, clears by reason, stale claims, stalls, ...), and what is there now (`nodes`, `jobs`,
--- `machines` suspected, `suspicions` for jobs, `extensions`); of the reconcile pass `cycles`, `forgotten` nodes, `ended` jobs, `failed`
--- questions, `mended` differences; `getter_failures`. c/core/detector.h explains each.
---@return table<string, integer>
function Detector:counts()
  usable(self)
  local counts = self.core:counts()
  for name, value in sorted(self.pass) do counts[name] = value end
  counts.getter_failures = self.getter_failures
  return counts
end

--- Close at once; no event comes any more. Idempotent. Other methods then raise.
function Detector:close()
  if self.closed then return end
  self.closed = true
  self.timer:close()
end
Detector.__close = Detector.close

function Detector:__tostring() return self.closed and "detector: closed" or tostring(self.core) end

--- A DetectorWhy as text, for people.
---@param why DetectorWhy
---@return string
function detector.explain(why)
  local lines = { ("%s has been %s for %.1f s, incarnation %s"):format(why.node, why.state, why.since_ms / 1000, why.incarnation) }
  local function say(...) lines[#lines + 1] = "  " .. string.format(...) end
  local s, x = why.suspicion, why.extension
  if s then
    say("suspected%s for %.1f s by %s (%d of %d confirmations)", why.job and " for " .. why.job or "", s.since_ms / 1000,
      table.concat(s.accusers, ", "), s.confirmations, s.wanted)
    say("expires in %.1f s; between %.1f s and %.1f s were possible", s.ends_ms / 1000, s.least_ms / 1000, s.most_ms / 1000)
    if s.extended_ms > 0 then say("of this, %.1f s are extensions", s.extended_ms / 1000) end
    if s.postponed_ms > 0 then say("of this, %.1f s were given back because this process was away", s.postponed_ms / 1000) end
  else
    say(why.job and "not suspected for " .. why.job or "its machine is not suspected here")
  end
  if x then
    say("%d extensions were granted%s; the last one ends in %.1f s", x.grants, x.graced and " and the last grace" or "", x.for_ms / 1000)
  end
  return table.concat(lines, "\n")
end

return detector
