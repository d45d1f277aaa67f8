--- Hand-made member events in swim's form, for specs of the modules on top of them.
---
---   local event = member_events.new()          -- or new(function (name) return payload end)
---   watch:feed(event("join", "a"))             -- in a's generation, default 1
---   watch:feed(event("join", "a", { generation = 2 }))
local member_events = {}

local STATE = { join = "alive", alive = "alive", update = "alive", user = "alive", suspect = "suspect", dead = "dead", left = "left" }

---@param payload_of? fun(name: string): string
function member_events.new(payload_of)
  local generations = {}
  return function (kind, name, more)
    more = more or {}
    generations[name] = more.generation or generations[name] or 1
    return {
      kind = kind,
      member = {
        name = name, state = more.state or STATE[kind], address = more.address or "10.0.0.1:7000",
        incarnation = { generation = generations[name], version = more.version or 0 },
        payload = payload_of and payload_of(name), payload_version = more.payload_version or 1, suspected_ms = 0, confirmations = 0,
      },
    }
  end
end

--- The names of a list of members, as one text.
function member_events.names(list)
  local out = {}
  for i, member in ipairs(list) do out[i] = member.name end
  return table.concat(out, " ")
end

return member_events
