--- admin: what every node answers to people: who it is, whom it sees, what went wrong, and a line of Lua.
local core = require "shoal.core.node"
local errors = require "shoal.errors"
local repl = require "shoal.repl"
local sorted = require "shoal.sorted"

local admin = {}

admin.answers = { "node.info", "node.members", "node.incidents", "node.counts", "repl.eval" }

---@param node table
function admin.open(node)
  local rpc = node.rpc
  rpc:handle("node.info", function ()
    local telemetry = node.world:telemetry()
    return {
      node = node.name, role = node.role, dc = node.dc, cluster = node.config.cluster, address = node.address, version = core.version(),
      detail = {
        up_ms = (node.world:now_ns() - node.started_ns) // 1000000, cpu_ms = telemetry.cpu_ns // 1000000,
        resident_bytes = telemetry.resident_bytes, open_handles = telemetry.open_handles, seed = node.world:seed(),
        state = node.describe and node.describe() or {},
      },
    }
  end)
  rpc:handle("node.members", function ()
    local members = {}
    for i, m in ipairs(node:members()) do
      members[i] = { name = m.name, address = m.address, state = m.state, role = m.role, dc = m.dc, via = node.name }
    end
    for _, m in ipairs(node.known and node.known() or {}) do members[#members + 1] = m end
    return { members = members }
  end)
  rpc:handle("node.incidents", function (body)
    local out = {}
    for _, incident in ipairs(errors.incidents(body.max)) do
      local ids = {}
      for key, value in sorted(incident.ids) do ids[key] = tostring(value) end
      out[#out + 1] = {
        id = incident.id, node = node.name, site = incident.site, level = incident.level, message = incident.message,
        where = incident.where or "", count = incident.count or 1, wall_ns = incident.wall_ns or 0, ids = ids,
      }
    end
    return { incidents = out }
  end)
  rpc:handle("node.counts", function ()
    local out = {}
    for i, c in ipairs(errors.counts()) do
      out[i] = { site = c.site, raised = c.raised, reported = c.reported, suppressed = c.suppressed, handled = c.handled,
        in_flight = c.in_flight }
    end
    return { node = node.name, balanced = errors.balance() ~= nil, counts = out }
  end)
  rpc:handle("repl.eval", function (body, peer)
    if not peer:is_loopback() then return nil, "the REPL answers on loopback only", "REFUSED" end
    return repl.eval(node, body.line)
  end)
end

return admin
