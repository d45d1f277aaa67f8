--- swim.journal: the last member events, numbered, for readers of any speed. A reader keeps a cursor, a plain integer that it may
--- store. A later read from the cursor has no gap; if events are missing, it returns an error and a snapshot to start over from.
---
---     local journal = assert(swim.journal(world, { kept = 1024 }))
---     local s = swim.open(world, config, function (event) journal:feed(event) end)
---
---     local events, err, code, snapshot = journal:read(cursor, 100)
---     if not events then                       -- "TRUNCATED": too slow; "EPOCH": a cursor from before this node's restart
---       mine = {}
---       for _, member in ipairs(snapshot.members) do mine[member.name] = member end
---       cursor = snapshot.cursor               -- a read from here misses nothing
---     else
---       cursor = err                           -- events[i] = { sequence, cursor, at_ns, kind, member }
---     end
---
--- The snapshot is the journal's own fold of all events so far, so exactly the later events are not in it; `swim:members()` may be
--- ahead of the events. It holds the living members (alive, suspect); a member that is not in it is gone. Neither the snapshot nor the
--- events contain this node itself.
---
--- A cursor is epoch << 36 | sequence, above 0. Each start draws a new epoch of 27 bits: one old cursor in 134 million passes for a
--- current one. 2^36 events last two years at a thousand a second; then `feed` raises.
---
--- Memory: `kept` events with their members, and one record for each living member.
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"

local journal = {}

local SEQUENCE_BITS = 36
local SEQUENCE_MAX = (1 << SEQUENCE_BITS) - 1
local EPOCH_MAX = (1 << 27) - 1
local MOST = 256

journal.config = schema.record {
  kept = schema.integer { default = 1024, min = 1, max = 1000000, doc = "events that can still be read" },
  epoch = schema.optional(schema.integer { min = 1, max = EPOCH_MAX, doc = "required without a world, which else draws it" }),
  members = schema.optional(schema.any { doc = "the living members at open, such as swim:members(); default: none" }),
}

---@class SwimRecord
---@field sequence integer  1, 2, 3, ... without a gap
---@field cursor integer    the cursor after it: a read from there gets the later events
---@field at_ns integer     the world's time, or the time given to `feed`
---@field kind "join"|"suspect"|"alive"|"dead"|"left"|"update"|"forgotten"|"user"; of a gate's datacenters (lua/shoal/job/roster.lua): "join"|
---  "update"|"silent"|"unreachable"|"gone"
---@field member SwimMember at that time; a copy
---@field told string?     of `user`, as in the event
---@field number integer?

---@class SwimSnapshot
---@field members SwimMember[]  the living, by name
---@field cursor integer  a read from here has no gap
---@field lost integer    missed events between the given cursor and the oldest kept one; 0 with "EPOCH": unknown

---@class SwimJournal
local Journal = {}
Journal.__index = Journal
Journal.__name = "shoal.swim.journal"

--- The world gives the epoch and the time. Without one, `config.epoch` is required, and `feed` takes the time.
---@param world? World
---@param config? { kept?: integer, epoch?: integer, members?: SwimMember[] }
---@return SwimJournal? journal
---@return string? err
---@return string? code  "CONFIG"
function journal.open(world, config)
  local checked, err = journal.config(config)
  if not checked then return nil, "swim.journal: " .. err, "CONFIG" end
  if not world and not checked.epoch then return nil, "swim.journal: epoch: missing, and there is no world to draw it", "CONFIG" end
  local self = setmetatable({
    world = world, kept = checked.kept, epoch = checked.epoch or world:random(EPOCH_MAX), sequence = 0, ring = {}, living = {},
  }, Journal)
  for _, member in ipairs(checked.members or {}) do
    if member.state == "alive" or member.state == "suspect" then self.living[member.name] = member end
  end
  return self
end

local function copy(member)
  local out = {}
  for key, value in next, member do out[key] = value end -- order-free: a copy
  return out
end

local GONE = { dead = true, left = true, forgotten = true, gone = true }

--- Append an event. Waiting readers wake after the current event of the loop.
---@param event SwimEvent
---@param now_ns? integer  default: the world's time; 0 without a world
---@return integer sequence
function Journal:feed(event, now_ns)
  if self.closed then error("swim.journal: fed after close", 2) end
  if self.sequence == SEQUENCE_MAX then error("swim.journal: no number is left for another event", 2) end
  local sequence, member = self.sequence + 1, copy(event.member)
  self.sequence = sequence
  self.ring[sequence % self.kept + 1] = {
    sequence = sequence, cursor = self.epoch << SEQUENCE_BITS | sequence,
    at_ns = now_ns or self.world and self.world:now_ns() or 0, kind = event.kind, member = member,
    told = event.told, number = event.number,
  }
  if event.kind ~= "user" then self.living[member.key or member.name] = not GONE[event.kind] and member or nil end
  local news = self.news
  if news then
    self.news = nil
    news:set(true)
  end
  return sequence
end

local function cursor_at(self, sequence) return self.epoch << SEQUENCE_BITS | sequence end

--- The cursor after the newest event: a read from here gets later events.
---@return integer
function Journal:cursor() return cursor_at(self, self.sequence) end

--- The living members now, and the cursor to read on from.
---@return SwimSnapshot
function Journal:snapshot()
  local members = {}
  for _, member in sorted(self.living) do members[#members + 1] = member end
  return { members = members, cursor = self:cursor(), lost = 0 }
end

local function whole(what, value)
  local integer = math.tointeger(value)
  if not integer then error(("swim.journal: %s: expected an integer, found %s"):format(what, tostring(value)), 3) end
  return integer
end

--- A cursor's sequence; nil if it is of another epoch. 0 is the beginning of this epoch.
local function sequence_of(self, cursor)
  if cursor == 0 then return 0 end
  local sequence = cursor & SEQUENCE_MAX
  if cursor >> SEQUENCE_BITS ~= self.epoch or sequence > self.sequence then return nil end
  return sequence
end

--- The events after a cursor, oldest first; an empty list if there are none. Read on from `next_cursor`.
---@param cursor integer  from an earlier answer, stored or not; 0: from the beginning of this journal
---@param most? integer   events at most; 256
---@return SwimRecord[]? events      not to be changed
---@return integer|string next_cursor  or the message
---@return string? code  "TRUNCATED": events after it are no longer kept; "EPOCH": it is from before a restart, or not ours
---@return SwimSnapshot? snapshot  with either code: the state to start over from
function Journal:read(cursor, most)
  most = whole("most", most or MOST)
  if most < 1 then error("swim.journal: most: expected at least 1, found " .. most, 2) end
  local from = sequence_of(self, whole("cursor", cursor))
  if not from then
    return nil, ("the cursor %d is not of this life of the journal"):format(cursor), "EPOCH", self:snapshot()
  end
  local oldest = math.max(1, self.sequence - self.kept + 1)
  if from + 1 < oldest then
    local snapshot = self:snapshot()
    snapshot.lost = oldest - from - 1
    return nil, ("%d events behind the cursor are no longer kept"):format(snapshot.lost), "TRUNCATED", snapshot
  end
  local events, last = {}, math.min(self.sequence, from + most)
  for sequence = from + 1, last do events[#events + 1] = self.ring[sequence % self.kept + 1] end
  return events, cursor_at(self, last)
end

--- In a task: wait until `read` of this cursor would return more than an empty list.
---@param cursor integer
---@param timeout_ms? number
---@return true? ready
---@return string? err
---@return string? code  "TIMEOUT", "CLOSED"
function Journal:wait(cursor, timeout_ms)
  if sequence_of(self, whole("cursor", cursor)) ~= self.sequence then return true end
  if self.closed then return nil, "the journal is closed", "CLOSED" end
  self.news = self.news or require("shoal.base.task").future "journal" -- Only a waiting reader needs tasks.
  local ok, err, code = self.news:await(timeout_ms)
  if not ok then return nil, err, code end
  if self.closed then return nil, "the journal is closed", "CLOSED" end
  return true
end

--- Close: waiting readers wake; kept events can still be read. Idempotent.
function Journal:close()
  if self.closed then return end
  self.closed = true
  local news = self.news
  self.news = nil
  if news then news:set(true) end
end
Journal.__close = Journal.close

function Journal:__tostring()
  return ("swim.journal (epoch %d, %d events, %d kept)"):format(self.epoch, self.sequence, math.min(self.sequence, self.kept))
end

return journal
