--- registry: a gate's view of the datacenters, built from their managers' registrations. A simple form of the federated monitor.
local errors = require "shoal.base.errors"
local log = require "shoal.base.log"
local roster = require "shoal.job.roster"
local silence = require "shoal.base.silence"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

log.event("gate.late", { "what" })

local registry = {}
registry.__index = registry

local RIVAL_BEATS = 3
local PAST_MAX = 8 -- Past generations of a manager, whose heartbeats may still be in flight.

--- `policy.admits(dc, manager)` decides whether an unknown datacenter may register; without it, every one may.
---@param node table
---@param lead table
---@param policy table
function registry.open(node, lead, policy)
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
      errors.report("gate.dc_silent", { dc = m.dc, manager = name, address = m.address },
        ("no heartbeat for %.0f ms"):format(silent_ms), "TIMEOUT")
      self:evict(m.dc, ("datacenter %s has been silent for %.0f ms"):format(m.dc, silent_ms))
    end
    if silent_ms >= config.dc_forget_ms then self:forget(m, "it was silent for long") end
  end
  self.roster:look(self:members())
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
  if d.leader == m.name then
    self:evict(m.dc, ("%s no longer leads datacenter %s: %s"):format(m.name, m.dc, why))
    d.leader, d.members = nil, {}
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

return registry
