--- dc: a gate's view of the datacenters, built from their managers' registrations. A simple form of the federated monitor.
local backoff = require "shoal.base.backoff"
local dial = require "shoal.wire.dial"
local errors = require "shoal.base.errors"
local fit = require "shoal.job.fit"
local log = require "shoal.base.log"
local roster = require "shoal.job.roster"
local silence = require "shoal.base.silence"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local dc = {}

log.event("gate.late", { "what" })
log.event("manager.gate", { "gate", "address", "name" })

-- The manager's side ---------------------------------------------------------------------------------------------------

local heart = {}
heart.__index = heart

--- The datacenter as its gates need to know it. Workers that are cordoned or draining offer nothing.
local function summary(node, lead)
  local s = { cores = 0, free = 0, largest = 0, held = 0, members = {} }
  local usable = {}
  for _, e in ipairs(lead:all_executors()) do
    if e.state == "up" then
      s.members[#s.members + 1] = {
        name = e.name, address = e.address, role = "worker", dc = node.dc, state = "alive", via = node.name, hold = e.hold,
      }
      if e.hold then
        s.held = s.held + 1
      else
        s.cores, s.free, s.largest = s.cores + e.cores, s.free + math.max(0, e.cores - e.claimed), math.max(s.largest, e.cores)
        usable[#usable + 1] = e
      end
    end
  end
  s.classes, s.more = fit.classes(usable)
  return s
end

--- The gate's address to beat at. A name is looked up when it is needed; after a failure the next of its addresses is tried.
local function address_of(self, gate)
  if not gate.addresses then
    local host, port = dial.split(gate.word)
    if not host then return nil, port, "CONFIG" end
    if host:find ":" or host:find "^%d+%.%d+%.%d+%.%d+$" then return gate.word end
    local found, err, code = dial.lookup(self.node.world, host, port, self.node.config.heartbeat_ms * 2)
    if not found then return nil, err, code end
    gate.addresses, gate.index = found, 1
  end
  return gate.addresses[gate.index]
end

--- Is there another address to try now? After the last one the name is looked up again, for the next heartbeat.
local function turn(gate)
  if not gate.addresses then return false end
  gate.index = gate.index + 1
  if gate.index <= #gate.addresses then return true end
  gate.addresses = nil
  return false
end

local function answered(gate, reply)
  if gate.pause_ms or gate.seq == 1 then log.info("manager.gate", { gate = gate.word, address = gate.address, name = reply.gate }) end
  gate.pause_ms = nil
  gate.wait:reset()
end

local function unanswered(self, gate, err, code)
  gate.pause_ms = gate.wait:next()
  if code == "UNHANDLED" then err = ("%s: it is no gate (%s)"):format(gate.address, err) end
  errors.report("manager.heart", { gate = gate.word, dc = self.node.dc }, err, code)
  if not gate.told and self.node.tell then self.node.tell(("gate %s: %s"):format(gate.word, err)) end
  gate.told = true
end

--- One heartbeat to one gate.
local function beat(self, gate, lead)
  local node = self.node
  if node.apart then return end -- A namesake is a member: the gate must not take us for it.
  local s = summary(node, lead)
  gate.seq = gate.seq + 1
  local body = {
    dc = node.dc, node = node.name, address = node.address, cores = s.cores, free = s.free, members = s.members,
    largest = s.largest, held = s.held, classes = s.classes, more = s.more, generation = node.generation, seq = gate.seq,
  }
  local reply, err, code
  repeat
    local address
    address, err, code = address_of(self, gate)
    if not address then break end
    gate.address = address
    reply, err, code = node.rpc:peer(address):call("dc.register", body, { timeout_ms = node.config.heartbeat_ms * 2 })
  until reply or not turn(gate)
  if reply then answered(gate, reply) else unanswered(self, gate, err, code) end
end

local REACHABLE = { up = true, half_open = true, closed = true }

--- Register with every gate at each heartbeat, in one loop a gate, so that a silent gate delays no other. A gate that does not
--- answer gets fewer heartbeats, and one at once when its connection comes up or its circuit becomes half-open.
---@param node table
---@param lead table
function dc.heart(node, lead)
  local self = setmetatable({ node = node, scope = task.scope("heart", node.scope), gates = {}, fences = {} }, heart)
  local interval_ms = node.config.heartbeat_ms
  for _, word in ipairs(node.config.gates) do
    local gate = {
      word = word, address = word, seq = 0, wake = task.channel(1),
      wait = backoff.new(node.world, { base_ms = 2 * interval_ms, cap_ms = 3 * interval_ms }),
      pause_ms = nil, -- Backoff while the gate does not answer, with jitter so that managers do not return in step.
    }
    self.gates[#self.gates + 1] = gate
    self.scope:loop("manager.heart", { gate = word, dc = node.dc }, {
      interval_ms = 0, backoff_ms = { interval_ms, 3 * interval_ms },
    }, function (cycle)
      if cycle > 1 then gate.wake:pop(gate.pause_ms or interval_ms) end -- TIMEOUT: nothing woke it, and the beat is due.
      beat(self, gate, lead)
    end)
  end
  self.stop_hearing = node.rpc:watch(function (peer, event)
    if not REACHABLE[event] then return end
    for _, gate in ipairs(self.gates) do
      if gate.address == peer:address() and gate.pause_ms then gate.wake:push(true) end -- FULL: it is awake already.
    end
  end)
  return self
end

--- A gate announces that it leads; the answer lists its parts in this datacenter.
function heart:lead(body, lead)
  local known = self.fences[body.tier]
  if known and body.fence < known.fence and body.node ~= known.node then
    return nil, ("%s leads with fence %d"):format(known.node, known.fence), "STALE"
  end
  self.fences[body.tier] = { node = body.node, fence = body.fence }
  return { cores = summary(lead.node, lead).cores, parts = lead:upstream_parts() }
end

function heart:close()
  self.stop_hearing()
  self.scope:close()
end

-- The gate's side ------------------------------------------------------------------------------------------------------

local registry = {}
registry.__index = registry

local RIVAL_BEATS = 3
local PAST_MAX = 8 -- Past generations of a manager, whose heartbeats may still be in flight.

--- `policy.admits(dc, manager)` decides whether an unknown datacenter may register; without it, every one may.
---@param node table
---@param lead table
---@param policy table
function dc.registry(node, lead, policy)
  local self = setmetatable({
    node = node, lead = lead, policy = policy, scope = task.scope("registry", node.scope),
    managers = {}, -- one entry a manager, by its name
    dcs = {},      -- by name: the manager that leads it, and that manager's last heartbeat
    roster = roster.new(node.journal),
    silence = silence.new(node.config.heartbeat_ms, task.now_ms()),
  }, registry)
  self.scope:loop("gate.silence", {}, { interval_ms = node.config.heartbeat_ms }, function () self:look() end)
  return self
end

--- How long a manager has been silent, not counting time in which this gate itself was stalled.
function registry:silent_ms(m) return self.silence:since(m.heard_ms, task.now_ms()) end

--- Declare managers gone after dc_silent_ms of silence, and forget them after dc_forget_ms. A look that runs late declares none
--- gone: the heartbeats sent meanwhile wait in our sockets, which are read after the timers.
function registry:look()
  local config = self.node.config
  if self.silence:look(task.now_ms()) then log.warning("gate.late", { what = "looking for silent datacenters" }) end
  for name, m in sorted(self.managers) do
    local d, silent_ms = self.dcs[m.dc], self:silent_ms(m)
    if d.leader == name and not d.gone and silent_ms >= config.dc_silent_ms then
      d.gone = true
      errors.report("gate.dc_silent", { dc = m.dc, manager = name, address = m.address },
        ("no heartbeat for %.0f ms"):format(silent_ms), "TIMEOUT")
      self.lead:gone(m.dc, ("datacenter %s has been silent for %.0f ms"):format(m.dc, silent_ms))
    end
    if silent_ms >= config.dc_forget_ms then self:forget(m, "it was silent for long") end
  end
  self.roster:look(self:members())
end

--- Forget a manager, and its datacenter if it was the last manager there.
function registry:forget(m, why)
  local d = self.dcs[m.dc]
  self.managers[m.name] = nil
  if d.leader == m.name then
    if not d.gone then self.lead:gone(m.dc, ("%s no longer leads datacenter %s: %s"):format(m.name, m.dc, why)) end
    d.leader, d.gone, d.members = nil, true, {}
  end
  for _, other in sorted(self.managers) do
    if other.dc == m.dc then return end
  end
  self.dcs[m.dc] = nil
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
  m.name, m.dc, m.address, m.generation, m.seq, m.heard_ms = body.node, body.dc, body.address, body.generation, body.seq, task.now_ms()
end

--- Whether a policy's `admits` gave a usable answer.
local function admission(admitted, why)
  if (admitted == nil or type(admitted) == "boolean") and (why == nil or type(why) == "string") then return true end
  return false, "neither true nor false, with a reason: " .. tostring(admitted)
end

--- Take a manager's heartbeat. Its age is measured by this gate's clock; the manager's clock is never compared.
function registry:register(body)
  if body.dc == "" then return nil, "dc: expected a datacenter's name, found none", "CONFIG" end
  local m = self.managers[body.node]
  if m and is_old(m, body, self:silent_ms(m) >= self.node.config.dc_silent_ms) then
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
  local d = self.dcs[m.dc] or { gone = true, members = {} }
  self.dcs[m.dc] = d
  if d.gone or d.leader == m.name then -- A datacenter has one leader at a time: another manager replaces it only once it is gone.
    d.leader, d.gone, d.members = m.name, false, body.members
    self.lead:hear(m.dc, m.address, body.cores, m.generation, {
      classes = body.classes, more = body.more, largest = body.largest, held = body.held,
    })
  end
  return { gate = self.node.name, fence = self.lead.fence }
end

--- The managers and workers that the gate knows, as rows for `shoal members`. Workers are as in their manager's last heartbeat.
function registry:members()
  local out = {}
  for name, m in sorted(self.managers) do
    local d, silent = self.dcs[m.dc], self:silent_ms(m) >= self.node.config.dc_silent_ms
    out[#out + 1] = {
      name = name, address = m.address, role = "manager", dc = m.dc, state = silent and "silent" or "alive", via = self.node.name,
    }
    for _, w in ipairs(d.leader == name and d.members or {}) do
      out[#out + 1] = { name = w.name, address = w.address, role = w.role, dc = w.dc, state = silent and "silent" or w.state, via = w.via,
        hold = w.hold }
    end
  end
  return out
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
    if reply or code ~= "NOT_FOUND" then return reply, err, code end
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
  if silent_ms < self.node.config.dc_silent_ms then
    return nil, ("%s sent a heartbeat %.1f s ago, from %s: end it first; a manager that is up returns at once"):format(name, silent_ms / 1000,
      m.address), "BUSY"
  end
  self:forget(m, "it was forgotten by request")
  return ("forgot manager %s of datacenter %s (silent for %.0f s, last at %s)"):format(name, m.dc, silent_ms / 1000, m.address)
end

function registry:close() self.scope:close() end

return dc
