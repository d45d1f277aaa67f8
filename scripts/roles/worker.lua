--- worker: runs parts, each in a child process of its own, and reports progress and results to the leader.
---
--- To take certain jobs only, decline the others in `part.dispatch`: `return nil, "only jobs of the shop", "DECLINED"`. The leader then
--- asks other workers; it is no failure. `worker.about(body)` has the job's name, labels and env: examples/roles/shop_worker.lua.
---
--- It answers `part.dispatch`, `part.cancel`, `part.look` and `lead`. It sends `part.progress` every flush_ms, and `part.result` until
--- accepted. It renews the leases of its parts with `lease.renew`, and sends `lead.who` to another manager when its leader does not answer.
local worker = require "shoal.worker"

local role = { name = "worker" }

role.sends = { "part.progress", "part.result", "lease.renew", "lead.who" }

role.answers = {
  ["part.dispatch"] = function (state, body) return state.worker:dispatch(body) end,
  ["part.cancel"] = function (state, body) return state.worker:cancel(body) end,
  ["part.look"] = function (state, body) return state.worker:look(body) end,
  ["lead"] = function (state, body) return state.worker:lead(body) end,
}

function role.hooks(state)
  return {
    --- A manager joined or left: update the list of nodes to ask for the leader.
    ["swim.member"] = function (event)
      local m = event.member
      if m.role ~= "manager" then return end
      local gone = event.kind == "dead" or event.kind == "left"
      state.managers[m.name] = not gone and m.address or nil
    end,
  }
end

--- Called with the living members every few seconds: add managers that a hook missed.
function role.members(state, members)
  state.managers = {}
  for _, m in ipairs(members) do
    if m.role == "manager" then state.managers[m.name] = m.address end
  end
end

function role.start(node)
  local state = { managers = {} }
  local err, code
  state.worker, err, code = worker.open(node, {
    flush_ms = node.config.flush_ms,
    others = function () return worker.addresses(state.managers) end,
  })
  if not state.worker then return nil, err, code end
  node.describe = function () return state.worker:describe() end
  return state
end

function role.stop(state)
  state.worker:close(2000)
end

return role
