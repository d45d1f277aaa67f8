--- incidents: what went wrong on this node, on its group, or on the whole cluster, asked of any node.
---
---     scope    a gate                             a manager                        a worker
---     node     its own                            its own                          its own
---     group    its own and the other gates'       its own and its datacenter's     the same
---     cluster  group, and each datacenter's       the first gate's answer for      the first manager's answer for
---              by a manager's answer for group    cluster; without gates: group    cluster
---
--- Every node that is asked has a deadline, and one that does not answer is named in `silent`, so that an answer never looks whole when
--- it is not. Only the newest incidents travel.
local errors = require "shoal.base.errors"
local line = require "shoal.base.log.line"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local incidents = {}

local TEXT_MAX = 1000  -- Bytes of one text of an incident.
local MOST = 512       -- Incidents in one answer: so many, of such texts, fit a message.
local AT_ONCE = 1024   -- Nodes that are asked at the same time.
local SILENT_MAX = 200 -- Silent nodes that an answer names.
-- Each hop waits longer than the one that it causes: a node, a group, the second manager or gate after a silent first one, the relay of a
-- worker, and the client (9 s).
local NODE_MS, GROUP_MS, FIRST_MS, CLUSTER_MS, RELAY_MS = 1500, 2500, 5000, 5500, 7500
local LEAST_MS = 100

--- A text of an incident as it crosses the wire.
local function cut(text)
  if #text <= TEXT_MAX then return text end
  return text:sub(1, TEXT_MAX) .. ("... and %d bytes more"):format(#text - TEXT_MAX)
end

--- Whether a site is the wanted one, or of the wanted family: "lead", "lead." and "lead.*" are lead.run and its kin.
local function of_site(site, wanted)
  wanted = wanted:gsub("%.?%*?$", "")
  return site == wanted or site:sub(1, #wanted + 1) == wanted .. "."
end

--- This node's last incidents, oldest first, as they cross the wire, whatever their ids hold.
---@param name string  this node's
---@param max integer
---@param filter? { site?: string, since_ns?: integer, node?: string }
function incidents.own(name, max, filter)
  filter = filter or {}
  if filter.node and filter.node ~= name then return {} end
  local out = {}
  for _, incident in ipairs(errors.incidents((filter.site or filter.since_ns) and MOST or max)) do
    local wanted = (not filter.site or of_site(incident.site, filter.site))
      and (not filter.since_ns or (incident.wall_ns or 0) >= filter.since_ns)
    if wanted then
      local ids = {}
      for key, value in sorted(incident.ids) do ids[key] = cut(type(value) == "table" and line.encode(value) or tostring(value)) end
      out[#out + 1] = {
        id = incident.id, node = name, site = incident.site, level = incident.level, message = cut(incident.message),
        where = incident.where or "", count = incident.count or 1, wall_ns = incident.wall_ns or 0, ids = ids,
      }
    end
  end
  return table.move(out, math.max(1, #out - max + 1), #out, 1, {})
end

-- Asking others --------------------------------------------------------------------------------------------------------

local function new_answer(rows) return { incidents = rows, silent = {}, asked = 1 } end

local function silent(answer, name, address, why)
  if #answer.silent < SILENT_MAX then answer.silent[#answer.silent + 1] = { node = name, address = address, why = why } end
end

local function add(answer, reply)
  table.move(reply.incidents, 1, #reply.incidents, #answer.incidents + 1, answer.incidents)
  for _, each in ipairs(reply.silent or {}) do silent(answer, each.node, each.address, each.why) end
  answer.asked = answer.asked + (reply.asked or 1)
end

--- The body for the next hop.
local function body_for(body, scope)
  return { max = body.max, site = body.site, within_ms = body.within_ms, node = body.node, scope = scope }
end

--- Ask every target, AT_ONCE at a time. One that does not answer is silent.
local function ask_all(node, answer, targets, body, scope, timeout_ms)
  for first = 1, #targets, AT_ONCE do
    local futures = {}
    for i = first, math.min(first + AT_ONCE - 1, #targets) do
      futures[i] = node.rpc:peer(targets[i].address):start("node.incidents", body_for(body, scope), { timeout_ms = timeout_ms })
    end
    for i, future in sorted(futures) do
      local reply, err, code = future:await()
      if reply then add(answer, reply) else silent(answer, targets[i].name, targets[i].address, ("%s (%s)"):format(err, code)) end
    end
  end
end

--- The first of these that answers, as the whole answer; those before it are silent. All together have limit_ms.
local function ask_first(node, answer, targets, body, scope, timeout_ms, limit_ms)
  local deadline_ms = task.now_ms() + limit_ms
  for _, target in ipairs(targets) do
    local left_ms = deadline_ms - task.now_ms()
    if left_ms < LEAST_MS then return end
    local reply, err, code = node.rpc:peer(target.address):call("node.incidents", body_for(body, scope),
      { timeout_ms = math.floor(math.min(timeout_ms, left_ms)) })
    if reply then return reply end
    silent(answer, target.name, target.address, ("%s (%s)"):format(err, code))
  end
end

local GONE = { left = true }

--- The other members of this node's own group: those to ask, and those that are known to be dead.
local function others(node, answer, role)
  local out = {}
  for _, m in ipairs(node:members()) do
    if m.name ~= node.name and not GONE[m.state] and (not role or m.role == role) then
      if m.state == "dead" then silent(answer, m.name, m.address, "it is dead") else out[#out + 1] = m end
    end
  end
  return out
end

--- The managers that a gate knows, by datacenter, living ones first.
local function managers_of(node)
  local dcs = {}
  for _, m in ipairs(node.known and node.known() or {}) do
    if m.role == "manager" then
      local list = dcs[m.dc] or {}
      dcs[m.dc] = list
      table.insert(list, m.state == "alive" and 1 or #list + 1, m)
    end
  end
  return dcs
end

--- A gate asks its group, and one manager of each datacenter for all of it, all at the same time.
local function of_cluster(node, answer, body)
  local tasks = {}
  local function spawn(fn) tasks[#tasks + 1] = node.rpc.scope:spawn("node.ask", { message = "node.incidents" }, fn) end
  spawn(function () ask_all(node, answer, others(node, answer), body, "node", NODE_MS) end)
  for dc, managers in sorted(managers_of(node)) do
    spawn(function ()
      local reply = ask_first(node, answer, managers, body, "group", GROUP_MS, FIRST_MS)
      if reply then return add(answer, reply) end
      silent(answer, "datacenter " .. dc, "", "no manager of it answers, so its workers were not asked")
    end)
  end
  for _, each in ipairs(tasks) do
    local ok, err = each:join(CLUSTER_MS)
    if not ok then silent(answer, node.name, node.address, tostring(err)) end
  end
end

local function gates_of(node)
  local out = {}
  for i, address in ipairs(node.config.gates) do out[i] = { name = "gate " .. address, address = address } end
  return out
end

local function gather(node, body)
  local since_ns = body.within_ms and node.world:wall_ns() - body.within_ms * 1000000
  local answer = new_answer(incidents.own(node.name, body.max, { site = body.site, since_ns = since_ns, node = body.node }))
  if body.scope == "cluster" and node.role == "gate" then
    of_cluster(node, answer, body)
  elseif body.scope == "cluster" then
    local relay = node.role == "worker" and RELAY_MS
    local up = relay and others(node, answer, "manager") or gates_of(node)
    local reply = ask_first(node, answer, up, body, "cluster", relay or CLUSTER_MS, relay or CLUSTER_MS)
    if reply then -- It asked us too, if it knows us.
      reply.silent = reply.silent or {}
      add(reply, { incidents = answer.incidents, silent = answer.silent, asked = 0 })
      return reply
    end
    ask_all(node, answer, others(node, answer), body, "node", NODE_MS)
  elseif body.scope == "group" then
    ask_all(node, answer, others(node, answer), body, "node", NODE_MS)
  end
  return answer
end

--- Each once: two nodes may have asked the same third one, or name it as silent.
local function distinct(list, key_of)
  local out, known = {}, {}
  for _, each in ipairs(list) do
    local key = key_of(each)
    if not known[key] then out[#out + 1] = each end
    known[key] = true
  end
  return out
end

local function by_node(each) return each.node end
local function by_id(each) return ("%s %s %d"):format(each.node, each.id, each.wall_ns) end

--- The handler of node.incidents: it may wait.
---@param node table
function incidents.handler(node)
  return function (body)
    local max = math.max(0, math.min(body.max, MOST))
    body.max = max
    local answer = gather(node, body)
    table.sort(answer.incidents, function (a, b)
      if a.wall_ns ~= b.wall_ns then return a.wall_ns < b.wall_ns end
      return a.id < b.id
    end)
    local rows = distinct(answer.incidents, by_id)
    answer.more = math.max(0, #rows - max)
    answer.incidents = table.move(rows, math.max(1, #rows - max + 1), #rows, 1, {})
    answer.silent = distinct(answer.silent, by_node)
    return answer
  end
end

return incidents
