--- swim.journal: the last member events, numbered, for readers of any pace. A reader keeps a cursor, a plain integer that can be
--- stored; whatever happened meanwhile, reading on from it is gapless, or says that it is not and begins anew from a snapshot.
---
---     local journal = assert(swim.journal(world, { kept = 1024 }))
---     local s = swim.open(world, config, function (event) journal:feed(event) end)
---
---     local events, err, code, snapshot = journal:read(cursor, 100)
---     if not events then                       -- "TRUNCATED": too slow; "EPOCH": a cursor of an earlier life of this node
---       mine = {}
---       for _, member in ipairs(snapshot.members) do mine[member.name] = member end
---       cursor = snapshot.cursor               -- reading on from here misses nothing
---     else
---       cursor = err                           -- events[i] = { sequence, cursor, at_ns, kind, member }
---     end
---
--- The snapshot is the journal's own fold of all events so far: after it come exactly the events that are not in it, whereas
--- `swim:members()` may already know what no event has told. It holds the living (alive, suspect); who is not in it is gone.
--- We ourselves are in neither, for no event tells of us.
---
--- A cursor is epoch << 36 | sequence, above 0. The epoch is drawn anew at each start, 27 bits: a cursor of another life is taken for
--- one of this life once in 134 million. 2^36 events last for two years at a thousand a second; then feeding raises.
---
--- Memory: `kept` events with the members they tell of, and one record for each living member.
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"

local journal = {}

local SEQUENCE_BITS = 36
local SEQUENCE_MAX = (1 << SEQUENCE_BITS) - 1
local EPOCH_MAX = (1 << 27) - 1
local MOST = 256

journal.config = schema.record {
  kept = schema.integer { default = 1024, min = 1, max = 1000000, doc = "events that can still be read" },
  epoch = schema.optional(schema.integer { min = 1, max = EPOCH_MAX, doc = "for who has no world to draw one" }),
  members = schema.optional(schema.any { doc = "the living when it opens, such as swim:members(); none unless told" }),
}

---@class SwimRecord
---@field sequence integer  1, 2, 3, ... without a gap
---@field cursor integer    the one behind it: who reads from there gets what came after
---@field at_ns integer     the world's time, or what `feed` was given
---@field kind "join"|"suspect"|"alive"|"dead"|"left"|"update"|"user"
---@field member SwimMember as it was then; a copy
---@field told string?     of `user`, as the event had it
---@field number integer?

---@class SwimSnapshot
---@field members SwimMember[]  the living, by name
---@field cursor integer  reading on from here is gapless
---@field lost integer    events between the given cursor and the oldest that is kept; 0 with "EPOCH": nobody knows

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

local GONE = { dead = true, left = true }

--- Take an event in; readers that wait are woken after the current event.
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
  if event.kind ~= "user" then self.living[member.name] = not GONE[event.kind] and member or nil end
  local news = self.news
  if news then
    self.news = nil
    news:set(true)
  end
  return sequence
end

local function cursor_at(self, sequence) return self.epoch << SEQUENCE_BITS | sequence end

--- The cursor behind the newest event: who reads from here gets what comes.
---@return integer
function Journal:cursor() return cursor_at(self, self.sequence) end

--- All as of now, and where to read on.
---@return SwimSnapshot
function Journal:snapshot()
  local members = {}
  for _, member in sorted(self.living) do members[#members + 1] = member end
  return { members = members, cursor = self:cursor(), lost = 0 }
end

local function whole(what, value)
  local integer = math.tointeger(value)
  if not integer then error(("swim.journal: %s: an integer is wanted, not %s"):format(what, tostring(value)), 3) end
  return integer
end

--- A cursor's sequence; nil when it is none of this life's. 0 is the beginning of this life.
local function sequence_of(self, cursor)
  if cursor == 0 then return 0 end
  local sequence = cursor & SEQUENCE_MAX
  if cursor >> SEQUENCE_BITS ~= self.epoch or sequence > self.sequence then return nil end
  return sequence
end

--- The events behind a cursor, oldest first; none is an empty list. `next_cursor` is the one to go on with.
---@param cursor integer  of an earlier answer, stored or not; 0: from the beginning of this journal
---@param most? integer   events at most; 256
---@return SwimRecord[]? events      not to be changed
---@return integer|string next_cursor  or the message
---@return string? code  "TRUNCATED": events behind it are no longer kept; "EPOCH": it is of an earlier life, or none of ours
---@return SwimSnapshot? snapshot  with either code: what to go on from
function Journal:read(cursor, most)
  most = whole("most", most or MOST)
  if most < 1 then error("swim.journal: most: at least 1 is wanted, not " .. most, 2) end
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

--- In a task: wait until `read` has more to say to this cursor than an empty list.
---@param cursor integer
---@param timeout_ms? number
---@return true? ready
---@return string? err
---@return string? code  "TIMEOUT", "CLOSED"
function Journal:wait(cursor, timeout_ms)
  if sequence_of(self, whole("cursor", cursor)) ~= self.sequence then return true end
  if self.closed then return nil, "the journal is closed", "CLOSED" end
  self.news = self.news or require("shoal.base.task").future "journal" -- Only who waits needs tasks.
  local ok, err, code = self.news:await(timeout_ms)
  if not ok then return nil, err, code end
  if self.closed then return nil, "the journal is closed", "CLOSED" end
  return true
end

--- Who waits is told; what is kept can still be read. More than once without harm.
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
