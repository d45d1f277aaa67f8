--- Federation: which datacenters are reachable. The leader of each is probed at a fixed cadence, and the answers decide; the rules, the
--- states and where they come from: c/core/federation.h. Usable alone:
---
---     local federation = require "shoal.federation"
---     local f = assert(federation.open(world, { interval_ms = 2000 }, {
---       probe = function (dc, address, seq, incarnation, timeout_ms) return ask(address, ...) end,   -- in a task of its own: it may wait
---       on_state = function (event) print(event.dc, event.from, event.to) end,
---     }))
---     f:know("eu", "m-eu1", "10.0.0.1:7000", 1)
---
---   unreachable --- an answer ---> reachable --- failures * interval + timeout without one ---> suspected --- suspicion ---> unreachable
---                                      <---------------------- an answer ----------------------------'
---
--- `probe` returns the answer, a table with `incarnation` (as it was given) and `term` (the leader's, a natural number); or nil, err,
--- code. If it raises, or returns a code of ours (see OURS: the send was refused here, or the answer could not be read), that is an error
--- of our own: one incident at `federation.probe`, and the next probe of that datacenter comes after 2, 4, 8, 16, 30, 30 s (+-20 %). Any
--- other code is an unanswered probe: no incident, for one lost packet is nothing; a change of state is an event. No probe delays one of
--- another datacenter.
---
--- Tasks must have been started (`task.start(world)`). `close` ends the loop and every probe under way.
local core = require "shoal.core.federation"
local errors = require "shoal.base.errors"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local federation = {}

local Federation = {}
Federation.__index = Federation
Federation.__name = "shoal.member.federation"

local NS_PER_MS = 1000000
local LOOP_BACKOFF_MS = { 1000, 30000 }
local NAMES_MAX = 64 -- Of one cycle, in an incident.

--- Codes of `probe` that are errors of ours. The others say that the datacenter did not answer.
federation.OURS = {
  FULL = true, TOO_LARGE = true, CONFIG = true, MALFORMED = true, MEMORY = true, CLOSED = true, CIRCUIT = true, UNSUPPORTED = true,
}

--- Times are milliseconds. The defaults: a datacenter that is cut off is suspected after 15 s, and unreachable after 45 s
--- (`federation.bounds` computes it).
federation.config = schema.record({
  interval_ms = schema.integer { default = 2000, min = 1, max = 3600000, doc = "between two probes of one datacenter" },
  timeout_ms = schema.integer { default = 5000, min = 1, max = 28800000, doc = "of a probe, at least; it grows with the measured round trip" },
  timeout_max_ms = schema.optional(schema.integer { min = 1, max = 28800000, doc = "of a probe, at most; 3 * timeout_ms, within 8 intervals" }),
  failures = schema.integer { default = 5, min = 1, max = 100, doc = "probes in a row without an answer that raise a suspicion" },
  suspicion_ms = schema.integer { default = 30000, min = 1, max = 86400000, doc = "from suspected to unreachable" },
  retry_ms = schema.integer { default = 2000, min = 1, max = 3600000, doc = "after an error of our own; doubles" },
  retry_max_ms = schema.integer { default = 30000, min = 1, max = 3600000, doc = "up to this" },
  dcs_max = schema.integer { default = 1000, min = 1, max = 16777216, doc = "datacenters; one more is refused" },
}, function (c)
  local most_ms = core.IN_FLIGHT * c.interval_ms
  c.timeout_max_ms = c.timeout_max_ms or math.max(c.timeout_ms, math.min(3 * c.timeout_ms, most_ms))
  if c.timeout_max_ms < c.timeout_ms then return "timeout_max_ms must be at least timeout_ms" end
  if c.timeout_max_ms > most_ms then
    return ("timeout_max_ms and timeout_ms must be at most %d * interval_ms, for no more probes are under way"):format(core.IN_FLIGHT)
  end
  if c.retry_max_ms < c.retry_ms then return "retry_max_ms must be at least retry_ms" end
end)

---@class FederationEvent
---@field dc string
---@field from "unreachable"|"reachable"|"suspected"
---@field to "unreachable"|"reachable"|"suspected"
---@field leader string
---@field address string
---@field unanswered integer   probes in a row
---@field own_errors integer   in a row
---@field silent_ms integer?   since the last answered probe was sent; nil: none ever was
---@field timeout_ms integer   of a probe now
---@field last string?         the last reason that a probe had no answer

---@class FederationDc
---@field dc string
---@field leader string
---@field address string
---@field state "unreachable"|"reachable"|"suspected"
---@field term integer
---@field incarnation integer  ours, for this datacenter and leader
---@field unanswered integer
---@field own_errors integer
---@field rtt_ms number        smoothed; 0: not measured
---@field timeout_ms number
---@field silent_ms number?
---@field next_ms number       until the next probe
---@field suspected_ms number?    until then, without an answer
---@field unreachable_ms number?
---@field answer table?        the last one that counted
---@field last string?         the last reason that a probe had no answer

local function ms(ns) return ns and ns / NS_PER_MS end

--- Four values in the proportions of the defaults, so that a datacenter that is cut off is unreachable after total_ms.
---@param total_ms integer
function federation.scaled(total_ms)
  local interval_ms, timeout_ms = math.max(1, total_ms * 2 // 45), math.max(1, total_ms * 5 // 45)
  return { interval_ms = interval_ms, timeout_ms = timeout_ms, failures = 5, suspicion_ms = total_ms - 5 * interval_ms - timeout_ms }
end

--- The most time from a cut to suspected and to unreachable, for a config and a probe's timeout.
---@param config? table
---@param timeout_ms? number  as the round trip scaled it; the config's without
---@return integer? suspected_ms, integer|string unreachable_ms, string? code
function federation.bounds(config, timeout_ms)
  local checked, err = federation.config(config or {})
  if not checked then return nil, "federation: " .. err, "CONFIG" end
  return core.bounds(checked, timeout_ms and math.ceil(timeout_ms))
end

-- Probes ---------------------------------------------------------------------------------------------------------------

--- The ids of an incident about one datacenter's probe.
local function ids_of(self, d, probe, extra)
  local view = self.core:view(self.world:now_ns(), d.number) or {}
  local ids = {
    dc = d.name, datacenters = probe.datacenters, interval_ms = self.config.interval_ms, timeout_ms = math.floor(probe.timeout_ms),
    cycle = probe.cycle, reachability = view.state or "forgotten", consecutive = 0, next_delay_ms = self.config.interval_ms,
  }
  for key, value in next, extra or {} do ids[key] = value end -- order-free: a copy
  return ids
end

--- An error of ours: the core postpones the next probe. The ids of its incident; of a probe that is over nothing changes.
local function failed(self, d, probe)
  probe.failed = true
  if self.dcs[d.name] ~= d then return ids_of(self, d, probe) end
  local delay_ns, row = self.core:fail(self.world:now_ns(), d.number, probe.seq, true)
  return ids_of(self, d, probe, delay_ns and { consecutive = row, next_delay_ms = delay_ns // NS_PER_MS })
end

local function malformed(answer)
  if type(answer) ~= "table" then return "the probe's answer is a " .. type(answer) .. ", expected a table" end
  for _, name in ipairs { "incarnation", "term" } do
    local value = answer[name]
    if math.type(value) ~= "integer" or value < 0 then
      return ("the probe's answer has %s = %s, expected a natural number"):format(name, tostring(value))
    end
  end
end

local function answered(self, d, probe, answer)
  if not self.core:ack(self.world:now_ns(), d.number, probe.seq, answer.incarnation, answer.term) then return end -- The core counted it.
  d.answer, d.term, d.last = answer, answer.term, nil
  if not self.hooks.on_answer then return end
  errors.call("federation.probe", function () return ids_of(self, d, probe) end, self.hooks.on_answer, d.name, answer)
end

local function unanswered(self, d, probe, err, code)
  d.last = ("%s (%s)"):format(tostring(err), tostring(code))
  if federation.OURS[code] then
    errors.report("federation.probe", failed(self, d, probe), err, code)
  else
    self.core:fail(self.world:now_ns(), d.number, probe.seq, false) -- NOT_FOUND: its time was over, and the core counted it.
  end
end

--- One probe, in a task of its own.
local function ask(self, d, probe)
  local ok, answer, err, code = errors.call("federation.probe", function () return failed(self, d, probe) end, self.hooks.probe,
    d.name, d.address, probe.seq, probe.incarnation, probe.wait_ms)
  d.tasks[probe.seq] = nil
  if not ok then
    if not probe.failed then failed(self, d, probe) end -- The incident was told by the last resort, without ids.
    d.last = answer.message
  elseif self.dcs[d.name] ~= d then
    return -- Forgotten while it was under way.
  elseif answer == nil then
    unanswered(self, d, probe, err or "the probe returned nothing", code or "MALFORMED")
  else
    local problem = malformed(answer)
    if problem then unanswered(self, d, probe, problem, "MALFORMED") else answered(self, d, probe, answer) end
  end
  self:wake()
end

--- End the probes that cannot count any more: a hook that waits for ever does not pile up.
local function sweep(d, seq)
  for at, t in sorted(d.tasks) do
    if d.over[at] or at <= seq - core.IN_FLIGHT then
      d.tasks[at] = nil
      t:cancel()
    end
  end
  d.over = {}
end

local function start(self, d, probe)
  sweep(d, probe.seq)
  local t, err, code = self.scope:keep("federation.probe", function () return ids_of(self, d, probe) end, ask, self, d, probe)
  if not t then return unanswered(self, d, probe, err, code) end
  d.tasks[probe.seq] = t
end

-- The loop -------------------------------------------------------------------------------------------------------------

local function changed(self, d, from, to, missed, own_errors, silent_ns, timeout_ns)
  local event = {
    dc = d.name, from = from, to = to, leader = d.leader, address = d.address, unanswered = missed, own_errors = own_errors,
    silent_ms = silent_ns and silent_ns // NS_PER_MS, timeout_ms = timeout_ns // NS_PER_MS, last = d.last,
  }
  errors.run("federation.state", { dc = d.name, from = from, to = to }, nil, self.hooks.on_state, event)
end

--- Everything that is due, in one cycle: verdicts first as they come, then the probes.
local function drain(self, cycle)
  local probes, names = {}, {}
  while not self.closed do
    local kind, number, a, b, c, e, f, g = self.core:next(self.world:now_ns())
    if not kind then break end
    local d = self.by_number[number]
    if kind == "probe" then
      probes[#probes + 1] = { d = d, seq = a, incarnation = b, timeout_ms = ms(e), cycle = cycle, wait_ms = self.config.timeout_max_ms }
      if #names < NAMES_MAX then names[#names + 1] = d.name end
    elseif kind == "over" then
      d.over[a] = true
    else
      changed(self, d, a, b, c, e, f, g)
    end
  end
  local datacenters = table.concat(names, ",")
  for _, probe in ipairs(probes) do
    probe.datacenters = datacenters
    if self.dcs[probe.d.name] == probe.d then
      errors.call("federation.probe", function () return failed(self, probe.d, probe) end, start, self, probe.d, probe)
    end
  end
end

function Federation:wake() self.woken:push(true) end -- FULL: it is awake already.

--- The datacenters that a failing loop does not probe, NAMES_MAX of them at most.
local function all_names(self)
  local names = sorted.keys(self.dcs)
  return table.concat(names, ",", 1, math.min(#names, NAMES_MAX))
end

local function loop(self, cycle)
  local due_ns = self.core:deadline()
  self.woken:pop(due_ns and math.max(0, ms(due_ns - self.world:now_ns()))) -- TIMEOUT: something is due.
  drain(self, cycle)
end

-- The face -------------------------------------------------------------------------------------------------------------

--- Begin to probe a datacenter, or take note of its leader. Another leader, another address or another life of it is accepted at once, also
--- while a probe is under way; answers to earlier probes are then ignored. From the same leader a lower term is refused.
---@param dc string
---@param leader string
---@param address string  "ip:port"
---@param term integer    the leader's
---@param life? integer   changes when its process restarts
---@return true? ok
---@return string? err
---@return string? code  "FULL": dcs_max; "STALE"
function Federation:know(dc, leader, address, term, life)
  local d = self.dcs[dc]
  if not d then
    local number, err, code = self.core:know(self.world:now_ns(), term)
    if not number then
      return nil, ("federation: datacenter %s: %d are known already, that is dcs_max (%s)"):format(dc, self.config.dcs_max, err), code
    end
    d = { name = dc, number = number, leader = leader, address = address, term = term, life = life, tasks = {}, over = {} }
    self.dcs[dc], self.by_number[number] = d, d
  elseif d.leader ~= leader or d.address ~= address or d.life ~= life then
    d.leader, d.address, d.term, d.life = leader, address, term, life
    self.core:lead(self.world:now_ns(), d.number, term)
  elseif term < d.term then
    return nil, ("%s led %s with term %d, and now says %d"):format(leader, dc, d.term, term), "STALE"
  else
    return true
  end
  self:wake()
  return true
end

--- Stop to probe a datacenter. Unknown ones are ignored.
function Federation:forget(dc)
  local d = self.dcs[dc]
  if not d then return end
  self.dcs[dc], self.by_number[d.number] = nil, nil
  self.core:forget(d.number)
  for _, t in sorted(d.tasks) do t:cancel() end
end

---@param dc string
---@return "unreachable"|"reachable"|"suspected"|nil state  nil: it is not known
function Federation:state(dc)
  local d = self.dcs[dc]
  return d and self.core:view(self.world:now_ns(), d.number).state
end

---@param dc string
---@return FederationDc?
function Federation:get(dc)
  local d = self.dcs[dc]
  if not d then return nil end
  local v = self.core:view(self.world:now_ns(), d.number)
  return {
    dc = dc, leader = d.leader, address = d.address, state = v.state, term = v.term, incarnation = v.incarnation, unanswered = v.unanswered,
    own_errors = v.own_errors, rtt_ms = ms(v.rtt_ns), timeout_ms = ms(v.timeout_ns), silent_ms = ms(v.silent_ns), next_ms = ms(v.next_ns),
    suspected_ms = ms(v.suspected_ns), unreachable_ms = ms(v.unreachable_ns), answer = d.answer, last = d.last,
  }
end

--- All datacenters, sorted by name.
---@return FederationDc[]
function Federation:list()
  local out = {}
  for name in sorted(self.dcs) do out[#out + 1] = self:get(name) end
  return out
end

--- Probes, answers, unanswered probes, own errors, dropped answers by reason, transitions, datacenters by state, stalls, bytes; `tasks`:
--- probes under way.
function Federation:counts()
  local out = self.core:counts()
  out.tasks = 0
  for _, d in next, self.dcs do -- order-free: a sum
    for _ in next, d.tasks do out.tasks = out.tasks + 1 end -- order-free: a count
  end
  return out
end

--- End the loop and every probe under way. Idempotent; may be called in `probe` and in `on_state`.
function Federation:close()
  if self.closed then return end
  self.closed = true
  self.scope:close()
end

function Federation:__close() self:close() end

---@param world World
---@param config? table  see `federation.config`
---@param hooks { probe: function, on_state: fun(event: FederationEvent), on_answer?: fun(dc: string, answer: table) }
---  on_state and on_answer run to their end at once; both may call anything here
---@param options? { scope?: shoal.Scope, incarnation?: integer }  incarnation: ours are greater; without it from the wall clock
---@return Federation? federation
---@return string? err
---@return string? code "CONFIG"
function federation.open(world, config, hooks, options)
  local checked, err = federation.config(config or {})
  if not checked then return nil, "federation: " .. err, "CONFIG" end
  for name, required in sorted { probe = true, on_state = true, on_answer = false } do
    local fn = hooks[name]
    if type(fn) ~= "function" and (required or fn ~= nil) then
      error(("federation.open: %s: expected a function, found %s"):format(name, type(fn)), 2)
    end
  end
  options = options or {}
  local given = { now_ns = world:now_ns(), seed = world:random() & math.maxinteger,
    incarnation = options.incarnation or math.max(0, world:wall_ns() // NS_PER_MS) }
  for name, value in next, checked do given[name] = value end -- order-free: a copy
  local self = setmetatable({ world = world, config = checked, hooks = hooks, dcs = {}, by_number = {} }, Federation)
  local code
  self.core, err, code = core.new(given)
  if not self.core then return nil, err, code end
  self.woken = task.channel(1)
  self.scope = task.scope("federation", options.scope)
  self.scope:loop("federation.probe_loop", function ()
    return { datacenters = all_names(self), interval_ms = checked.interval_ms }
  end, { interval_ms = 0, backoff_ms = LOOP_BACKOFF_MS }, function (cycle) loop(self, cycle) end)
  return self
end

return federation
