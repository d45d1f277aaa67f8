--- The work that errors put off (announcing held-back incidents, delivering again), on one timer of the world.
--- Entries are few: bounded by the fingerprints and the deliveries outstanding.

local agenda = {}
agenda.__index = agenda

---@param world table?
---@param on_due fun(entry: table)
function agenda.new(world, on_due)
  local self = setmetatable({ entries = {}, seq = 0, on_due = on_due, world = world }, agenda)
  if world then
    self.timer = world:timer(function () self:fire() end)
  end
  return self
end

local function before(a, b)
  if a.due_ns ~= b.due_ns then return a.due_ns < b.due_ns end
  return a.due_seq < b.due_seq
end

function agenda:arm()
  local first = self.entries[1]
  if self.timer and first and first.due_ns ~= self.armed_ns then
    self.armed_ns = first.due_ns
    self.timer:start_at(first.due_ns)
  end
end

--- Put `entry` (a table of the caller's) on the list; it is handed back when due.
function agenda:add(entry, due_ns)
  self.seq = self.seq + 1
  entry.due_ns, entry.due_seq = due_ns, self.seq
  local entries = self.entries
  local at = #entries + 1
  while at > 1 and before(entry, entries[at - 1]) do at = at - 1 end
  table.insert(entries, at, entry)
  self:arm()
end

function agenda:remove(entry)
  for i, other in ipairs(self.entries) do
    if other == entry then
      table.remove(self.entries, i)
      return true
    end
  end
  return false
end

function agenda:fire()
  self.armed_ns = nil
  local now_ns = self.world:now_ns()
  while true do
    local first = self.entries[1]
    if not first or first.due_ns > now_ns then break end
    table.remove(self.entries, 1)
    self.on_due(first)
  end
  self:arm()
end

--- Take everything, due or not, in order: for the end.
function agenda:drain()
  local entries = self.entries
  self.entries = {}
  return entries
end

function agenda:close()
  if self.timer then self.timer:close() end
  self.timer, self.entries = nil, {}
end

return agenda
