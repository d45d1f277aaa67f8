--- roster: member events of a gate about what it knows by probes only. Managers and workers are in no membership group of a gate, so
--- each look compares their rows with those of the look before, and what changed goes into the gate's journal (`shoal members --follow`).
---
---     (unknown) --- listed, back ---> join     no longer listed ---> gone
---     alive --- no answers to probes ---> suspect ---> unreachable     alive --- no registration of one that does not lead ---> silent
local sorted = require "shoal.base.sorted"

local roster = {}
roster.__index = roster

---@param journal SwimJournal
function roster.new(journal) return setmetatable({ journal = journal, known = {} }, roster) end

local function tell(self, kind, row)
  self.journal:feed {
    kind = kind, member = {
      key = row.dc .. "/" .. row.name, name = row.name, address = row.address, role = row.role, dc = row.dc, state = row.state,
      incarnation = { generation = 0, version = 0 }, -- Only membership has them.
    },
  }
end

local KINDS = { alive = "join", silent = "silent" }

---@param rows table[]  of registry:members
function roster:look(rows)
  local now = {}
  for _, row in ipairs(rows) do
    local key = row.dc .. "/" .. row.name
    local before = self.known[key]
    now[key] = row
    if not before or before.state ~= row.state then
      tell(self, KINDS[row.state] or row.state, row)
    elseif before.address ~= row.address then
      tell(self, "update", row)
    end
  end
  for key, row in sorted(self.known) do
    if not now[key] then
      row.state = "gone"
      tell(self, "gone", row)
    end
  end
  self.known = now
end

return roster
