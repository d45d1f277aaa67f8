--- dc: datacenters as a gate sees them, by what their managers register. A first, plain form of the federated monitor.
local errors = require "shoal.errors"
local sorted = require "shoal.sorted"
local task = require "shoal.task"

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
    self.scope:loop("manager.heart", { gate = address, dc = node.dc }, {
      interval_ms = node.config.heartbeat_ms, backoff_ms = { node.config.heartbeat_ms, 5 * node.config.heartbeat_ms },
    }, function ()
      local cores, free, workers = 0, 0, {}
      for i, e in ipairs(lead.executors:list()) do
        cores, free = cores + e.cores, free + e.free
        workers[i] = { name = e.name, address = e.address, role = "worker", dc = node.dc, state = "alive", via = node.name }
      end
      local reply, err, code = node.rpc:peer(address):call("dc.register", {
        dc = node.dc, node = node.name, address = node.address, cores = cores, free = free, members = workers,
        generation = node.generation,
      }, { timeout_ms = node.config.heartbeat_ms * 2 })
      if not reply then errors.report("manager.heart", { gate = address, dc = node.dc }, err, code) end
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
  for _, e in ipairs(lead.executors:list()) do cores = cores + e.cores end
  return { cores = cores, parts = lead:upstream_parts() }
end

function heart:close() self.scope:close() end

-- The gate's side ------------------------------------------------------------------------------------------------------

local registry = {}
registry.__index = registry

function dc.registry(node, lead)
  local self = setmetatable({ node = node, lead = lead, scope = task.scope("registry", node.scope), dcs = {} }, registry)
  self.scope:loop("gate.silence", {}, { interval_ms = node.config.heartbeat_ms }, function ()
    local now = task.now_ms()
    for name, d in sorted(self.dcs) do
      if not d.gone and now - d.heard_ms >= node.config.dc_silent_ms then
        d.gone = true
        errors.report("gate.dc_silent", { dc = name, manager = d.node, address = d.address },
          ("no heartbeat for %.0f ms"):format(now - d.heard_ms), "TIMEOUT")
        lead:gone(name, ("datacenter %s has been silent for %.0f ms"):format(name, now - d.heard_ms))
      end
    end
  end)
  return self
end

--- A manager's heartbeat. Ages are this gate's own: the manager's clock is never compared.
function registry:register(body)
  if body.dc == "" then return nil, "dc: expected a datacenter's name, found none", "CONFIG" end
  local d = self.dcs[body.dc]
  if d and not d.gone and d.node ~= body.node then -- A datacenter has one leader at a time: the one we know still speaks.
    return { gate = self.node.name, fence = self.lead.fence }
  end
  d = d or {}
  self.dcs[body.dc] = d
  d.node, d.address, d.heard_ms, d.gone = body.node, body.address, task.now_ms(), false
  d.members, d.cores, d.free = body.members, body.cores, body.free
  self.lead:hear(body.dc, body.address, body.cores, body.generation)
  return { gate = self.node.name, fence = self.lead.fence }
end

--- Managers and workers the gate knows of, as rows for `shoal members`.
function registry:members()
  local out = {}
  for name, d in sorted(self.dcs) do
    out[#out + 1] = {
      name = d.node, address = d.address, role = "manager", dc = name, state = d.gone and "silent" or "alive", via = self.node.name,
    }
    for _, m in ipairs(d.members) do out[#out + 1] = m end
  end
  return out
end

function registry:close() self.scope:close() end

return dc
