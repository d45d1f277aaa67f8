--- Reporting one failure: the incident is made, judged, counted, and written or held back. An error raised in here is the
--- caller's to catch (shoal.errors); each count moves in one step, so that the caller can see how far this came.

local incidents = require "shoal.base.errors.incident"
local limit = require "shoal.base.errors.limit"
local log = require "shoal.base.log"

local telling = {}

local FLOOD_SAID_NS = 10000 * 1000000 -- A flood is announced every 10 s.
local NO_IDS = {}
local RING = 512 -- Incidents kept for `errors.incidents()`.

--- means: run_apart, autopsy, quietly, fail(name, ids, caught), clocks, later(entry, due_ns), judge, world()
function telling.new(means)
  return { means = means, ring = {}, ring_count = 0, listeners = {}, seq = 0, node = "?" }
end

local function ids_of(self, record, ids, extra)
  if type(ids) == "function" then
    local means = self.means
    local done, value, ok, err = means.run_apart("errors.ids", ids)
    if done and (value == nil or type(value) == "table") then
      ids = value
    else
      ids = nil
      local caught = done and { error = "ids must be a table, not " .. type(value) }
        or means.autopsy("errors.ids", value, ok, err)
      means.fail("errors.ids", { of = record.name }, caught)
    end
  end
  if type(ids) ~= "table" then ids = nil end
  return incidents.ids(record, ids, extra)
end

local function listened(self, incident)
  local means = self.means
  for _, fn in ipairs(self.listeners) do
    local done, co, ok, err = means.run_apart("errors.listener", fn, incident)
    if not done then
      means.fail("errors.listener", { incident = incident.id }, means.autopsy("errors.listener", co, ok, err))
    end
  end
end

local function shallow(t)
  local out = {}
  for key, value in next, t do out[key] = value end -- order-free: a copy
  return out
end

--- A copy of one incident and its ids. The error value is not copied: the code that raised it may hold it too.
local function copied(incident)
  local out, ids = shallow(incident), setmetatable(shallow(incident.ids), getmetatable(incident.ids))
  for key, value in next, ids do -- order-free: each by itself
    if type(value) == "table" then ids[key] = shallow(value) end
  end
  out.ids, out.missing = ids, incident.missing and shallow(incident.missing)
  return setmetatable(out, incidents.meta)
end

--- The ring keeps a copy of its own, so that no caller, listener or policy can change it.
local function keep(self, incident)
  self.ring_count = self.ring_count + 1
  self.ring[(self.ring_count - 1) % RING + 1] = copied(incident)
end

--- Say how many were held back, at the level at which they would have been told.
function telling.announce(print)
  if print.held == 0 then return end
  local held = print.held
  print.held = 0
  log.write(print.level, "incident.held_back",
    { site = print.site, where = print.where, held_back = held, count = print.count })
end

--- `outermost`: this is no failure of telling another one.
function telling.tell(self, record, ids, caught, code, extra, outermost)
  local means = self.means
  local now_ns, wall_ns = means.clocks()
  if outermost then means.judge:look(means.world(), now_ns) end
  local message, where = incidents.describe(caught.error, means.quietly)
  where = caught.where or where or "?"
  local escalated = extra and extra.escalated
  if escalated then extra.escalated = nil end
  self.seq = self.seq + 1
  local incident = setmetatable({
    id = self.node .. "-" .. self.seq, site = record.name, error = caught.error, message = message, code = code,
    where = where, traceback = caught.traceback, hint = caught.hint, node = self.node, at_ns = now_ns,
    wall_ns = wall_ns, raised = not caught.value, escalated = escalated, count = record.raised,
  }, incidents.meta)
  incident.ids, incident.missing = ids_of(self, record, ids, extra)
  if incident.missing then record.missing = record.missing + 1 end
  if caught.traceback then limit.traced(record, where) end

  local level, burst, per_ms, fields = means.judge:of(record, incident, outermost)
  if escalated then level = "critical" end
  incident.level = level
  local print = limit.print_of(record, where, level)
  print.count = print.count + 1
  incident.count = print.count
  local admitted, window_ns = limit.admit(print, burst, per_ms, now_ns)
  if not admitted then
    if print.held == 0 then means.later({ announce = print }, window_ns) end
    print.held = print.held + 1
    record.suppressed, record.in_flight = record.suppressed + 1, record.in_flight - 1
    return incident
  end
  keep(self, incident)
  log.write(level, "incident", incidents.logged(incident, fields), now_ns, wall_ns)
  record.reported, record.in_flight = record.reported + 1, record.in_flight - 1
  if outermost then listened(self, incident) end
  return incident
end

--- One of a flood: counted, and announced as a number with the others of its site.
function telling.held(self, record, err)
  local print = record.flood_print
  if not print then
    print = limit.print_of(record, "(flood)", record.level)
    record.flood_print = print
  end
  if print.held == 0 then self.means.later({ announce = print }, self.means.clocks() + FLOOD_SAID_NS) end
  local incident = setmetatable({ id = "held", site = record.name, level = record.level, ids = NO_IDS, error = err, where = "?",
    message = type(err) == "string" and err or type(err), count = print.count + 1 }, incidents.meta)
  print.held, print.count = print.held + 1, print.count + 1
  return incident
end

--- When telling itself failed, or fails while failing: one line past everything, and the count, unless that was moved.
function telling.bare(self, record, caught, why, counted)
  if not counted then record.reported, record.in_flight = record.reported + 1, record.in_flight - 1 end
  local message = type(caught.error) == "string" and caught.error or type(caught.error)
  log.last_resort("shoal: incident at " .. record.name .. ": " .. message .. (why and " (" .. why .. ")" or ""))
  local incident = setmetatable({ id = self.node .. "-?", site = record.name, level = record.level, ids = {},
    error = caught.error, message = message, where = caught.where or "?", node = self.node, at_ns = 0, wall_ns = 0,
    count = record.raised }, incidents.meta)
  keep(self, incident)
  return incident
end

local function oldest(self, n) return self.ring[(self.ring_count - n) % RING + 1] end

--- The last n, oldest first, as copies.
function telling.recent(self, n)
  local have = math.min(self.ring_count, RING)
  n = math.max(0, math.min(n or have, have))
  local out = {}
  for i = 1, n do out[i] = copied(oldest(self, n - i + 1)) end
  return out
end

--- Those whose ids hold all of `ids`, oldest first, as rows.
function telling.about(self, ids)
  local out, have = {}, math.min(self.ring_count, RING)
  for i = have, 1, -1 do
    local incident, all = oldest(self, i), true
    for key, value in next, ids do all = all and incident.ids[key] == value end -- order-free: every one must hold
    if all then
      out[#out + 1] = { id = incident.id, node = incident.node, site = incident.site, level = incident.level,
        message = incident.message, where = incident.where, count = incident.count }
    end
  end
  return out
end

--- Hear of each incident; returns what ends it.
function telling.listen(self, fn)
  local listeners = { table.unpack(self.listeners) } -- Replaced, never changed: a telling that runs keeps its own.
  listeners[#listeners + 1] = fn
  self.listeners = listeners
  return function ()
    local kept = {}
    for _, other in ipairs(self.listeners) do
      if other ~= fn then kept[#kept + 1] = other end
    end
    self.listeners = kept
  end
end

return telling
