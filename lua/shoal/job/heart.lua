--- heart: a manager's side of its datacenter's gates: it registers with each of them at each heartbeat, so that they know where it is, and
--- answers their probes with the numbers of its datacenter.
local backoff = require "shoal.base.backoff"
local dial = require "shoal.wire.dial"
local errors = require "shoal.base.errors"
local fit = require "shoal.job.fit"
local log = require "shoal.base.log"
local msgpack = require "shoal.core.msgpack"
local task = require "shoal.base.task"

log.event("manager.gate", { "gate", "address", "name" })

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
  gate.seq = gate.seq + 1
  local body = {
    dc = node.dc, node = node.name, address = node.address, generation = node.generation, seq = gate.seq, term = lead.fence,
    level = lead.progress_level,
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
function heart.open(node, lead)
  local self = setmetatable({ node = node, scope = task.scope("heart", node.scope), gates = {}, fences = {}, version = 0 }, heart)
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

--- Managers of the membership group, this one included: known, and of them alive. Counted once a heartbeat, however many gates ask.
local function managers_of(self)
  local now_ms = task.now_ms()
  if self.counted_ms and now_ms - self.counted_ms < self.node.config.heartbeat_ms then return self.known, self.alive end
  local known, alive = 0, 0
  for _, m in ipairs(self.node:members()) do
    if m.role == "manager" and m.state ~= "left" then
      known = known + 1
      if m.state == "alive" or m.state == "suspect" then alive = alive + 1 end
    end
  end
  self.counted_ms, self.known, self.alive = now_ms, known, alive
  return known, alive
end

--- The lists of a summary get a digest, so that they cross the wire only to gates that have others. It is of this process's life.
local function digest_of(self, s)
  local packed = assert(msgpack.pack { s.members, s.classes, s.more or 0 })
  if packed ~= self.packed then self.packed, self.version = packed, self.version + 1 end
  return ("%d.%d"):format(self.node.generation, self.version)
end

--- A gate's probe. A manager that stays out of its group, or is not the one that was meant, does not answer for its datacenter.
function heart:probe(body, lead)
  local node = self.node
  if node.apart then return nil, node.name .. " stays out of its group, for another node has its name", "REFUSED" end
  if body.dc ~= node.dc or body.node ~= node.name then
    return nil, ("this is %s of %s, not %s of %s"):format(node.name, node.dc, body.node, body.dc), "REFUSED"
  end
  local s = summary(node, lead)
  local digest, known, alive = digest_of(self, s), managers_of(self)
  local reply = {
    incarnation = body.incarnation, node = node.name, generation = node.generation, term = lead.fence, leads = lead.fence > 0,
    managers = known, managers_alive = alive, workers = #s.members, held = s.held, cores = s.cores, free = s.free, largest = s.largest,
    load = s.cores > 0 and (s.cores - s.free) * 100 // s.cores or 0, level = lead.progress_level, digest = digest,
  }
  if body.digest ~= digest then reply.members, reply.classes, reply.more = s.members, s.classes, s.more end
  return reply
end

--- A gate announces that it leads; the answer lists its parts in this datacenter.
function heart:lead(body, lead)
  local group = body.group or body.tier
  local known = self.fences[group]
  if known and body.fence < known.fence and body.node ~= known.node then
    return nil, ("%s leads with fence %d"):format(known.node, known.fence), "STALE"
  end
  self.fences[group] = { node = body.node, fence = body.fence }
  return { cores = summary(lead.node, lead).cores, parts = lead:upstream_parts() }
end

function heart:close()
  self.stop_hearing()
  self.scope:close()
end

return heart
