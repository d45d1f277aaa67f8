--- intake: a leader's answers to clients, the same on a gate and on a manager.
local sorted = require "shoal.base.sorted"

local intake = {}

local EVENTS_MAX = 100

local clients = {
  ["job.submit"] = function (state, body) return state.lead:submit(body) end,
  ["job.cancel"] = function (state, body) return state.lead:cancel(body.job, body.reason ~= "" and body.reason or "cancelled by a client") end,
  ["job.get"] = function (state, body)
    local found = state.lead:get(body.job, body.outputs)
    if not found then return nil, "no job " .. body.job .. " here", "NOT_FOUND" end
    return { job = body.job, state = found.state, detail = found }
  end,
  ["job.list"] = function (state, body)
    local jobs, more = state.lead:list(body)
    return { jobs = jobs, now_ms = state.lead.node.world:wall_ns() // 1000000, more = more > 0 and more or nil }
  end,
  ["job.watch"] = function (state, body, peer) return state.lead:watch(body.job, peer, body.from_seq) end,
  ["job.unwatch"] = function (state, body, peer) state.lead:unwatch(body.job, peer) end,
  ["executor.hold"] = function (state, body) return (state.registry or state.lead):hold(body) end,
  ["job.events"] = function (state, body)
    return state.lead:events(body.job, body.from_seq, math.min(body.max, EVENTS_MAX))
  end,
}

--- The clients' messages and a role's own, as one table for the role script.
---@param own table<string, function>
function intake.answers(own)
  local all = {}
  for name, fn in sorted(clients) do all[name] = fn end
  for name, fn in sorted(own) do
    if all[name] then error("intake: " .. name .. " is answered already", 2) end
    all[name] = fn
  end
  return all
end

return intake
