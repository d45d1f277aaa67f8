--- registry: a gate's view of the datacenters. Managers register, so that the gate knows who and where they are; whether a datacenter can be
--- reached, and what it has, its leader's answers to probes say (member/federation.lua).
---
---   a manager registers ---> probed --- an answer ---> an executor of the leader --- unreachable ---> evicted: its parts start elsewhere
---                              ^-------------------------- an answer ------------------------------------'
---
--- Each manager is a tier of one, so the gate chooses: the first that registers leads its datacenter, until it is unreachable, or answers
--- that it does not lead; then the next that registers does.
local errors = require "shoal.base.errors"
local eviction = require "shoal.job.eviction"
local federation = require "shoal.member.federation"
local log = require "shoal.base.log"
local roster = require "shoal.job.roster"
local silence = require "shoal.base.silence"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

log.event("gate.late", { "what" })
log.event("gate.dc", { "dc", "from", "to", "manager", "address", "silent_ms", "unanswered", "own_errors", "last" })

local registry = {}
registry.__index = registry

local RIVAL_BEATS = 3
local PAST_MAX = 8 -- Past generations of a manager, whose heartbeats may still be in flight.

local QUALMS = { reachable = "info", suspected = "warning", unreachable = "warning" }

local NUMBERS = { "managers", "managers_alive", "workers", "held", "cores", "free", "largest", "load" }

--- Name the first number of an answer that cannot be; nil: none.
local function problem_of(answer)
  for _, name in ipairs(NUMBERS) do
    if answer[name] < 0 then return ("dc.probe reply: %s: expected 0 or more, found %d"):format(name, answer[name]) end
  end
  for part, whole in sorted { managers_alive = "managers", held = "workers", free = "cores", largest = "cores" } do
    if answer[part] > answer[whole] then
      return ("dc.probe reply: %s: expected at most the %d %s, found %d"):format(part, answer[whole], whole, answer[part])
    end
  end
end

--- One probe of the leader of a datacenter. It must not wait for what a cut left behind: see `hurry`.
local function probe(self, name, address, seq, incarnation, timeout_ms)
  local d = self.dcs[name]
  local answer, err, code = self.node.rpc:peer(address):call("dc.probe", {
    dc = name, node = d.leader or "", gate = self.node.name, seq = seq, incarnation = incarnation, digest = d.digest or "",
  }, { timeout_ms = timeout_ms, hurry = true })
  if not answer then return nil, err, code end
  local problem = problem_of(answer)
  if problem then return nil, problem, "MALFORMED" end
  return answer
end

--- `policy.admits(dc, manager)` decides whether an unknown datacenter may register; without it, every one may.
---@param node table
---@param lead table
---@param policy table
function registry.open(node, lead, policy)
  local self = setmetatable({
    node = node, lead = lead, policy = policy, scope = task.scope("registry", node.scope),
    managers = {}, -- one entry a manager, by its name
    dcs = {},      -- by name: the manager that leads it, and what it last answered
    roster = roster.new(node.journal),
    silence = silence.new(node.config.heartbeat_ms, task.now_ms()),
  }, registry)
  self.eviction = eviction.open(node, {
    evict = function (name, why) self:evict(name, why) end,
    changed = function () lead:standing_changed() end,
  })
  function lead.standing_of(name) return self.eviction:standing(name) end
  function lead.took(name) self.eviction:took(name) end
  self.federation = assert(federation.open(node.world, node.config.federation, {
    probe = function (...) return probe(self, ...) end,
    on_answer = function (name, answer) self:answered(name, answer) end,
    on_state = function (event) self:changed(event) end,
  }, { scope = self.scope }))
  self.scope:loop("gate.silence", {}, { interval_ms = node.config.heartbeat_ms }, function () self:look() end)
  return self
end

--- How long a manager has not registered, not counting time in which this gate itself was stalled.
function registry:silent_ms(m) return self.silence:since(m.heard_ms, task.now_ms()) end

--- Whether a manager counts as alive here. For the leader of a datacenter probes decide, for the others their registrations.
function registry:lives(m)
  local d = self.dcs[m.dc]
  if d.leader == m.name and d.answer then return self.federation:state(m.dc) ~= "unreachable" end
  return self:silent_ms(m) < self.node.config.dc_silent_ms
end

--- When a datacenter gave its last sign of life: how long ago its last answered probe was sent, and how often probes are.
---@return number silent_ms, number period_ms
function registry:sign_of(name)
  local f = self.federation:get(name)
  return f and f.silent_ms or math.huge, self.node.config.federation.interval_ms
end

--- Forget managers after dc_forget_ms without a registration, and tell what changed in the table. A look that runs late excuses all
--- silence: registrations sent meanwhile wait in our sockets, which are read after the timers.
function registry:look()
  if self.silence:look(task.now_ms()) then log.warning("gate.late", { what = "looking for silent managers" }) end
  for _, m in sorted(self.managers) do
    if self:silent_ms(m) >= self.node.config.dc_forget_ms then self:forget(m, "it was silent for long") end
  end
  self.roster:look(self:members())
end

--- An answer to a probe that counts: what the datacenter has now. It is an executor from its first one on.
function registry:answered(name, answer)
  local d = self.dcs[name]
  local m = d and self.managers[d.leader]
  if not m or m.name ~= answer.node then return end -- It was forgotten while the probe was under way.
  d.answer = answer
  self.eviction:judge(name, self:facts(name))
  if answer.members then d.digest, d.members, d.classes, d.more = answer.digest, answer.members, answer.classes, answer.more end
  if not answer.leads then return end -- Its tier has no leader: it takes no part, and another manager may.
  d.gone = false
  self.lead:hear(name, m.address, answer.cores, answer.generation, {
    classes = d.classes, more = d.more, largest = answer.largest, held = answer.held,
  })
end

--- A datacenter's reachability changed. The state is committed; the role's hooks come last.
function registry:changed(event)
  local d = self.dcs[event.dc]
  if not d then return end
  log[QUALMS[event.to]]("gate.dc", {
    dc = event.dc, from = event.from, to = event.to, manager = event.leader, address = event.address, silent_ms = event.silent_ms,
    unanswered = event.unanswered, own_errors = event.own_errors, last = event.last,
  })
  if event.to == "unreachable" then
    local why = ("no answer to probes for %d ms"):format(event.silent_ms)
    errors.report("gate.dc_silent", { dc = event.dc, manager = event.leader, address = event.address },
      event.last and ("%s; the last one: %s"):format(why, event.last) or why, "TIMEOUT")
    self.eviction:reach(event.dc, event.to, ("datacenter %s is unreachable: %s"):format(event.dc, why)) -- It evicts, or holds.
  else
    self.eviction:reach(event.dc, event.to)
  end
  self.eviction:judge(event.dc, self:facts(event.dc))
  self.node.hooks:fire("federation.state", { dc = event.dc, from = event.from, to = event.to }, event)
end

--- Evict a datacenter: it is down as an executor, and its parts start elsewhere. Every eviction goes through here and nowhere else, so
--- a rule that holds evictions back stands here.
---@param name string  the datacenter
---@param why string   for people; the reason of each lost attempt
---@return boolean evicted  false: it is unknown or evicted already
function registry:evict(name, why)
  local d = self.dcs[name]
  if not d or d.gone then return false end
  d.gone = true
  self.lead:gone(name, why)
  return true
end

--- Forget a manager, and its datacenter if it was the last manager there.
function registry:forget(m, why)
  local d = self.dcs[m.dc]
  self.managers[m.name] = nil
  self.eviction:drop(m.dc, m.name)
  if d.leader == m.name then
    self:evict(m.dc, ("%s no longer leads datacenter %s: %s"):format(m.name, m.dc, why))
    self.federation:forget(m.dc)
    d.leader, d.members, d.digest, d.answer = nil, {}, nil, nil
  end
  for _, other in sorted(self.managers) do
    if other.dc == m.dc then return end
  end
  self.dcs[m.dc] = nil
  self.eviction:forget(m.dc)
end

--- Whether this heartbeat is of a past generation, or older than one already received. If the newer generation is silent and the past one
--- keeps sending, the past one counts again: two managers had one name, or another process sent in its name.
local function is_old(m, body, silent)
  if m.generation == body.generation then return body.seq < m.seq end
  for _, life in ipairs(m.past) do
    if life.generation == body.generation then return not silent or body.seq <= life.seq end
  end
  return false
end

--- Two managers of one name: another process, at another address, beats while the known one does too. The one that is known stays; the other
--- is refused until the known one has missed RIVAL_BEATS heartbeats, as after a restart elsewhere. Both living, that is an incident.
---@return string? refusal
local function rival(self, m, body)
  local silent_ms = self:silent_ms(m)
  if m.generation == body.generation then -- The known one lives. Did another beat since its last heartbeat?
    if m.rival then
      errors.report("gate.namesake", { dc = m.dc, manager = m.name, stays = m.address, out = m.rival },
        ("two managers are called %s: the one at %s stays, the one at %s is refused"):format(m.name, m.address, m.rival), "EXISTS")
      m.rival = nil
    end
    return nil
  end
  if m.address == body.address or silent_ms >= RIVAL_BEATS * self.node.config.heartbeat_ms then return nil end
  m.rival = body.address
  return ("%s is known at %s, and was heard %.1f s ago: two managers need two names"):format(m.name, m.address, silent_ms / 1000)
end

local function note(m, body)
  if m.generation and m.generation ~= body.generation then
    for i, life in ipairs(m.past) do
      if life.generation == body.generation then table.remove(m.past, i) break end
    end
    table.insert(m.past, 1, { generation = m.generation, seq = m.seq })
    m.past[PAST_MAX + 1] = nil
  end
  m.name, m.dc, m.address, m.generation, m.seq, m.term = body.node, body.dc, body.address, body.generation, body.seq, body.term
  m.heard_ms = task.now_ms()
end

--- Whether a policy's `admits` gave a usable answer.
local function admission(admitted, why)
  if (admitted == nil or type(admitted) == "boolean") and (why == nil or type(why) == "string") then return true end
  return false, "neither true nor false, with a reason: " .. tostring(admitted)
end

--- Take a manager's heartbeat. Its age is measured by this gate's clock; the manager's clock is never compared.
function registry:register(body)
  if body.dc == "" then return nil, "dc: expected a datacenter's name, found none", "CONFIG" end
  if body.term < 0 then return nil, ("term: expected 0 or more, found %d"):format(body.term), "CONFIG" end
  local m = self.managers[body.node]
  if m and is_old(m, body, not self:lives(m)) then
    return nil, ("heartbeat %d of %s is older than what is known of it"):format(body.seq, body.node), "STALE"
  end
  local refusal = m and rival(self, m, body)
  if refusal then return nil, refusal, "EXISTS" end
  if not self.dcs[body.dc] and self.policy.admits then
    local admitted, why = errors.policy("placement", self.policy.admits, {
      ids = { dc = body.dc, manager = body.node }, fallback = true, check = admission,
    }, body.dc, body.node)
    if not admitted then return nil, why or ("datacenter %s is not admitted here"):format(body.dc), "REFUSED" end
  end
  if m and m.dc ~= body.dc then self:forget(m, "it is in " .. body.dc .. " now") end
  m = m or { past = {} }
  note(m, body)
  self.managers[m.name] = m
  self.eviction:press(m.dc, m.name, body.level or "none")
  local d = self.dcs[m.dc] or { gone = true, members = {} }
  self.dcs[m.dc] = d
  if d.leader == m.name or self:vacant(d, m.dc) then
    local ok, err, code = self:follow(d, m)
    if not ok then return nil, err, code end
  end
  return { gate = self.node.name, fence = self.lead.fence }
end

--- Whether another manager may lead a datacenter: it has no leader, or that one is unreachable or does not lead. One that has just been
--- chosen gets the time of a probe first, so that two managers that cannot be reached do not take turns at each heartbeat.
function registry:vacant(d, name)
  if not d.leader then return true end
  local c = self.node.config.federation
  if task.now_ms() - d.chosen_ms < c.interval_ms + c.timeout_ms then return false end
  return d.gone or self.federation:state(name) == "unreachable" or d.answer ~= nil and not d.answer.leads
end

--- This manager leads its datacenter: probe it from now on.
function registry:follow(d, m)
  local ok, err, code = self.federation:know(m.dc, m.name, m.address, m.term, m.generation)
  if not ok and code == "FULL" then
    if not d.leader then
      self.managers[m.name], self.dcs[m.dc] = nil, nil
      self.eviction:forget(m.dc)
    end
    return nil, err, code
  end -- STALE: its term was higher in a later registration, or in an answer.
  if d.leader ~= m.name then d.leader, d.chosen_ms, d.answer, d.digest = m.name, task.now_ms(), nil, nil end
  return true
end

--- What a datacenter has, for judging its health and for people: from its leader's last answer, its managers from their registrations.
---@return { state: string, leader: string?, reachable: boolean, suspect: boolean, managers: integer, managers_alive: integer,
---  workers: integer, cores: integer, free: integer, load: integer, level: string }?
function registry:facts(name)
  local d = self.dcs[name]
  if not d then return nil end
  local state, a = self.federation:state(name) or "unreachable", d.answer or {}
  local facts = {
    state = state, leader = d.leader, reachable = state ~= "unreachable", suspect = state == "suspected", managers = 0, managers_alive = 0,
    workers = (a.workers or 0) - (a.held or 0), cores = a.cores or 0, free = a.free or 0, load = a.load or 0, level = a.level or "none",
  }
  for _, m in sorted(self.managers) do
    if m.dc == name then
      facts.managers = facts.managers + 1
      if self:lives(m) then facts.managers_alive = facts.managers_alive + 1 end
    end
  end
  return facts
end

local STATES = { reachable = "alive", suspected = "suspect", unreachable = "unreachable" }

--- The state of a manager as people see it. A datacenter that was not probed yet counts as its registrations say.
local function state_of(self, d, m)
  if d.leader == m.name and d.answer then return STATES[self.federation:state(m.dc)] end
  return self:lives(m) and "alive" or "silent"
end

--- The managers and workers that the gate knows, as rows for `shoal members`. Workers are as in their leader's last answer with lists.
function registry:members()
  local out = {}
  for name, m in sorted(self.managers) do
    local d = self.dcs[m.dc]
    local state = state_of(self, d, m)
    out[#out + 1] = { name = name, address = m.address, role = "manager", dc = m.dc, state = state, via = self.node.name,
      hold = d.leader == name and self.eviction:held(m.dc) and "held" or nil }
    for _, w in ipairs(d.leader == name and d.members or {}) do
      out[#out + 1] = { name = w.name, address = w.address, role = w.role, dc = w.dc, state = state == "alive" and w.state or state,
        via = w.via, hold = w.hold }
    end
  end
  return out
end

--- Show a worker's hold as its manager answered just now, and not only from the next probe's answer on.
---@param reply { dc: string, worker: string, state: string }
function registry:show_hold(reply)
  local d = self.dcs[reply.dc]
  for _, w in ipairs(d and d.members or {}) do
    if w.name == reply.worker then w.hold = reply.state ~= "" and reply.state or nil end
  end
end

--- Hand a cordon, uncordon or drain to the manager that leads the worker's datacenter.
function registry:hold(body)
  local found, all = {}, {}
  for name, d in sorted(self.dcs) do
    local m = not d.gone and self.managers[d.leader]
    if m and (body.dc == "" or body.dc == name) then
      all[#all + 1] = m
      for _, w in ipairs(d.members or {}) do
        if w.name == body.worker then found[#found + 1] = m end
      end
    end
  end
  if #found > 1 then
    return nil, ("worker %s is in %s and in %s: name its datacenter"):format(body.worker, found[1].dc, found[2].dc), "CONFIG"
  end
  local err, code = ("no datacenter %sis known here"):format(body.dc ~= "" and body.dc .. " " or ""), "NOT_FOUND"
  for _, m in ipairs(#found == 1 and found or all) do -- One that is not a member now may be cordoned all the same.
    local reply
    reply, err, code = self.node.rpc:peer(m.address):call("executor.hold", body)
    if reply then
      self:show_hold(reply)
      return reply
    end
    if code ~= "NOT_FOUND" then return nil, err, code end
  end
  if #all > 1 then err = ("no datacenter here knows a worker %s"):format(body.worker) end
  return nil, err, code
end

--- Forget a manager that is silent, for people.
---@return string? said, string? err, string? code  "BUSY": it sends heartbeats; "NOT_FOUND"
function registry:erase(name)
  local m = self.managers[name]
  if not m then
    local at = {}
    for of, d in sorted(self.dcs) do
      if d.leader then at[#at + 1] = ("%s (datacenter %s)"):format(self.managers[d.leader].address, of) end
    end
    return nil, ("%s is no gate and no manager known here%s"):format(name,
      #at > 0 and "; about a worker, ask a manager: " .. table.concat(at, ", ") or ""), "NOT_FOUND"
  end
  local silent_ms = self:silent_ms(m)
  if self:lives(m) then
    return nil, ("%s is alive here, and registered %.1f s ago, from %s: end it first; a manager that is up returns at once"):format(name,
      silent_ms / 1000, m.address), "BUSY"
  end
  self:forget(m, "it was forgotten by request")
  return ("forgot manager %s of datacenter %s (silent for %.0f s, last at %s)"):format(name, m.dc, silent_ms / 1000, m.address)
end

function registry:close()
  self.federation:close()
  self.eviction:close()
  self.scope:close()
end

return registry
