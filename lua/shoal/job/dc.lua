--- dc: datacenters as a gate sees them, by what their managers register. A first, plain form of the federated monitor.
local backoff = require "shoal.base.backoff"
local errors = require "shoal.base.errors"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local dc = {}

-- The manager's side ---------------------------------------------------------------------------------------------------

local heart = {}
heart.__index = heart

--- Register with every gate each heartbeat: one loop a gate, so that a silent gate delays no other.
---@param node table
---@param lead table
function dc.heart(node, lead)
  local self = setmetatable({ node = node, scope = task.scope("heart", node.scope), gates = {}, fences = {} }, heart)
  for _, address in ipairs(node.config.gates) do
    local seq, interval_ms = 0, node.config.heartbeat_ms
    local wait = backoff.new(node.world, { base_ms = 2 * interval_ms, cap_ms = 5 * interval_ms })
    local pause_ms -- While the gate does not answer: drawn, so that managers do not come back in step.
    self.scope:loop("manager.heart", { gate = address, dc = node.dc }, {
      interval_ms = function () return pause_ms or interval_ms end, backoff_ms = { interval_ms, 5 * interval_ms },
    }, function ()
      local cores, free, workers = 0, 0, {}
      for i, e in ipairs(lead:up_executors()) do
        cores, free = cores + e.cores, free + e.free
        workers[i] = { name = e.name, address = e.address, role = "worker", dc = node.dc, state = "alive", via = node.name }
      end
      seq = seq + 1
      local reply, err, code = node.rpc:peer(address):call("dc.register", {
        dc = node.dc, node = node.name, address = node.address, cores = cores, free = free, members = workers,
        generation = node.generation, seq = seq,
      }, { timeout_ms = node.config.heartbeat_ms * 2 })
      if reply then
        pause_ms = nil
        wait:reset()
      else
        pause_ms = wait:next()
        errors.report("manager.heart", { gate = address, dc = node.dc }, err, code)
      end
    end)
  end
  return self
end

--- A gate says that it leads, and hears which of its parts this datacenter has.
function heart:lead(body, lead)
  local known = self.fences[body.tier]
  if known and body.fence < known.fence and body.node ~= known.node then
    return nil, ("%s leads with fence %d"):format(known.node, known.fence), "STALE"
  end
  self.fences[body.tier] = { node = body.node, fence = body.fence }
  local cores = 0
  for _, e in ipairs(lead:up_executors()) do cores = cores + e.cores end
  return { cores = cores, parts = lead:upstream_parts() }
end

function heart:close() self.scope:close() end

-- The gate's side ------------------------------------------------------------------------------------------------------

local registry = {}
registry.__index = registry

local PAST_MAX = 8 -- Lives of a manager that ended, whose heartbeats may still be under way.

--- `policy.admits(dc, manager)` says whether a datacenter that is not known yet may come in; without it each may.
---@param node table
---@param lead table
---@param policy table
function dc.registry(node, lead, policy)
  local self = setmetatable({
    node = node, lead = lead, policy = policy, scope = task.scope("registry", node.scope),
    managers = {}, -- one entry a manager, by its name
    dcs = {},      -- by name: the manager that leads it, and what that one last told
  }, registry)
  self.scope:loop("gate.silence", {}, { interval_ms = node.config.heartbeat_ms }, function () self:look() end)
  return self
end

--- Who has been silent for dc_silent_ms, and who for so long that nothing is kept of it.
function registry:look()
  local now, config = task.now_ms(), self.node.config
  for name, m in sorted(self.managers) do
    local d, silent_ms = self.dcs[m.dc], now - m.heard_ms
    if d.leader == name and not d.gone and silent_ms >= config.dc_silent_ms then
      d.gone = true
      errors.report("gate.dc_silent", { dc = m.dc, manager = name, address = m.address },
        ("no heartbeat for %.0f ms"):format(silent_ms), "TIMEOUT")
      self.lead:gone(m.dc, ("datacenter %s has been silent for %.0f ms"):format(m.dc, silent_ms))
    end
    if silent_ms >= config.dc_forget_ms then self:forget(m, "it was silent for long") end
  end
end

--- Nothing is kept of a manager, nor of its datacenter when it was the last one there.
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

--- A heartbeat of a life that another has followed, or one that a later one has overtaken.
local function is_old(m, body)
  if m.generation == body.generation then return body.seq < m.seq end
  for _, generation in ipairs(m.past) do
    if generation == body.generation then return true end
  end
  return false
end

local function note(m, body)
  if m.generation and m.generation ~= body.generation then
    table.insert(m.past, 1, m.generation)
    m.past[PAST_MAX + 1] = nil
  end
  m.name, m.dc, m.address, m.generation, m.seq, m.heard_ms = body.node, body.dc, body.address, body.generation, body.seq, task.now_ms()
end

--- A manager's heartbeat. Ages are this gate's own: the manager's clock is never compared.
function registry:register(body)
  if body.dc == "" then return nil, "dc: expected a datacenter's name, found none", "CONFIG" end
  local m = self.managers[body.node]
  if m and is_old(m, body) then
    return nil, ("heartbeat %d of %s is older than what is known of it"):format(body.seq, body.node), "STALE"
  end
  if not self.dcs[body.dc] and self.policy.admits then
    local admitted, why = self.policy.admits(body.dc, body.node)
    if not admitted then return nil, why or ("datacenter %s is not admitted here"):format(body.dc), "REFUSED" end
  end
  if m and m.dc ~= body.dc then self:forget(m, "it is in " .. body.dc .. " now") end
  m = m or { past = {} }
  note(m, body)
  self.managers[m.name] = m
  local d = self.dcs[m.dc] or { gone = true, members = {} }
  self.dcs[m.dc] = d
  if d.gone or d.leader == m.name then -- A datacenter has one leader at a time, as long as the one we know speaks.
    d.leader, d.gone, d.members = m.name, false, body.members
    self.lead:hear(m.dc, m.address, body.cores, m.generation)
  end
  return { gate = self.node.name, fence = self.lead.fence }
end

--- Managers and workers the gate knows of, as rows for `shoal members`. Of workers it knows what their leader last said.
function registry:members()
  local out, now = {}, task.now_ms()
  for name, m in sorted(self.managers) do
    local d, silent = self.dcs[m.dc], now - m.heard_ms >= self.node.config.dc_silent_ms
    out[#out + 1] = {
      name = name, address = m.address, role = "manager", dc = m.dc, state = silent and "silent" or "alive", via = self.node.name,
    }
    for _, w in ipairs(d.leader == name and d.members or {}) do
      out[#out + 1] = { name = w.name, address = w.address, role = w.role, dc = w.dc, state = silent and "silent" or w.state, via = w.via }
    end
  end
  return out
end

function registry:close() self.scope:close() end

return dc
