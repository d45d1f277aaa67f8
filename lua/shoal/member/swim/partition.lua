--- swim.partition: one event when many members are lost at about the same time, with an estimate of which, and one when they return.
---
---     local watch = assert(swim.partition(world, { share = 0.25, group_of = function (member) return dc_of(member.payload) end },
---       function (event) print(event.kind, event.cause, #event.lost) end))
---     local s = swim.open(world, config, function (event) watch:feed(event) end)
---
---   calm ── max(least, share of all) lost within window_ms  [feed] ──────────────> open     "detected"
---   open ── more are lost, or more of them known dead, for tell_ms ──────────────> open     "grew"
---   open ── fewer than that many still lost, a member back (or none missing),
---           and no further loss or return for heal_ms ───────────────────────────> calm     "healed"
---   open ── give_up_ms after it was detected ────────────────────────────────────> calm     "gave_up": the missing are gone
---
--- A *lost* member became suspect or dead (the later of the two counts for the window). It is no longer lost when it refutes, joins
--- again or announces that it leaves. *All* members are the living and the lost, without this node. So a node that is cut off alone
--- sees all others lost: `share` 1, `larger` false. One death is not a partition: `least` is 2 or more. give_up_ms bounds the wait for
--- members that never return.
---
--- `cause`: with `group_of`, losses that are spread evenly over the groups are a "storm", others a "partition"; swim/evenness.lua has
--- the rule, and its answer without groups. The early verdict may be wrong, for there is little evidence at the threshold; each event
--- decides anew.
---
--- Time is the world's. Memory: a record for each living member, and for each lost one while its window or its event is open; the end
--- of an event frees its records.
local evenness = require "shoal.member.swim.evenness"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"

local partition = {}

local NS_PER_MS = 1000000

partition.config = schema.record({
  share = schema.number { default = 0.25, min = 0.01, max = 1, doc = "of all members, lost within window_ms" },
  least = schema.integer { default = 2, min = 2, max = 1000000, doc = "and at least so many" },
  window_ms = schema.integer { default = 10000, min = 1, max = 3600000, doc = "ten probe intervals: the suspicions take some" },
  heal_ms = schema.integer { default = 5000, min = 0, max = 3600000, doc = "without a loss or return before it counts as healed" },
  tell_ms = schema.integer { default = 1000, min = 0, max = 3600000, doc = "delay of a \"grew\" event, which then has the current state" },
  give_up_ms = schema.integer { default = 3600000, min = 1, max = 604800000, doc = "an event lasts no longer" },
  members = schema.optional(schema.any { doc = "the living members at open, such as swim:members() without ourselves" }),
  group_of = schema.optional(schema.func { doc = "a member's group, such as its datacenter; nil: none known" }),
})

---@class SwimLost
---@field name string
---@field state "suspect"|"dead"
---@field group string?

---@class SwimPartition
---@field kind "detected"|"grew"|"healed"|"gave_up"
---@field cause "partition"|"storm"
---@field lost SwimLost[]      lost members, by name; of "healed" and "gave_up": those that did not return
---@field suspected integer    how many of them may still refute
---@field dead integer         how many are known dead; dead / #lost is the certainty of the estimate
---@field kept integer         members that we still see
---@field share number         #lost / (#lost + kept)
---@field larger boolean       whether we and the kept are more than the lost
---@field by_group table<string, { lost: integer, of: integer }>  empty without `group_of`
---@field silent string[]      groups of which no member is seen
---@field returned string[]    members that were reported lost and are back, by name; without brief suspicions that were never reported
---@field from_ns integer      the world's time of its first loss
---@field at_ns integer        of this event; of "healed": of the last return
---@field lasted_ms integer    between the two

---@class SwimPartitionWatch
---@field config table
local Watch = {}
Watch.__index = Watch
Watch.__name = "shoal.swim.partition"

---@param world World
---@param config? table  see `partition.config`; times in milliseconds
---@param on_partition fun(event: SwimPartition)  must not wait; may call anything, including `close`. Called by `feed` and by the timer.
---@return SwimPartitionWatch? watch
---@return string? err  every problem of the config at once
---@return string? code  "CONFIG"
function partition.open(world, config, on_partition)
  if type(on_partition) ~= "function" then error("swim.partition: on_partition: expected a function, found " .. type(on_partition), 2) end
  local checked, err = partition.config(config)
  if not checked then return nil, "swim.partition: " .. err, "CONFIG" end
  local self = setmetatable({
    world = world, config = checked, on_partition = on_partition,
    members = {}, -- By name: { name, state, group, down_ns, previous, following }. Lost ones are linked in a list, oldest first.
    all = 0, lost = 0, dead = 0, lost_first = nil, lost_last = nil,
    episode = nil, -- The open event: { from_ns, detected_ns, changed_ns, cause, named, returned, told_lost, told_dead, grown_ns }
  }, Watch)
  for _, member in ipairs(checked.members or {}) do
    if member.state == "alive" or member.state == "suspect" then self:group(self:member(member), member) end
  end
  self.timer = world:timer(function () self:due() end)
  return self
end

-- ---- members, and lost members ----

--- The record of a member, created if missing.
function Watch:member(member)
  local m = self.members[member.name]
  if not m then
    m = { name = member.name, state = "alive" }
    self.members[m.name] = m
    self.all = self.all + 1
  end
  return m
end

--- Update its group to the last known one: the payload with the group may arrive after the member.
function Watch:group(m, member)
  local group = self.config.group_of and self.config.group_of(member)
  if group and group ~= "" then m.group = group end
end

local function forget(self, m)
  self.members[m.name] = nil
  self.all = self.all - 1
end

--- Take it off the list of the lost.
local function unlist(self, m)
  if not m.down_ns then return end
  local previous, following = m.previous, m.following
  if previous then previous.following = following else self.lost_first = following end
  if following then following.previous = previous else self.lost_last = previous end
  m.previous, m.following, m.down_ns = nil, nil, nil
  self.lost = self.lost - 1
  if m.state == "dead" then self.dead = self.dead - 1 end
end

--- It became suspect or dead now: append it to the list.
local function list(self, m, state, now_ns)
  unlist(self, m)
  m.state, m.down_ns = state, now_ns
  local last = self.lost_last
  m.previous = last
  if last then last.following = m else self.lost_first = m end
  self.lost_last = m
  self.lost = self.lost + 1
  if state == "dead" then self.dead = self.dead + 1 end
end

--- While no event is open, remove members from the list after the window; the dead ones are then no longer members.
local function expire(self, now_ns)
  local window_ns = self.config.window_ms * NS_PER_MS
  while self.lost_first and now_ns - self.lost_first.down_ns > window_ns do
    local m = self.lost_first
    unlist(self, m)
    if m.state == "dead" then forget(self, m) end
  end
end

--- How many must be lost for a partition.
local function threshold(self)
  return math.max(self.config.least, math.ceil(self.config.share * self.all - 1e-9))
end

-- ---- events ----

local function groups_of(self)
  local groups = {}
  if not self.config.group_of then return groups end
  for _, m in next, self.members do -- order-free: sums
    if m.group then
      local g = groups[m.group] or { lost = 0, of = 0 }
      groups[m.group] = g
      g.of = g.of + 1
      if m.down_ns then g.lost = g.lost + 1 end
    end
  end
  return groups
end

local function event_of(self, kind, at_ns)
  local e, groups = self.episode, groups_of(self)
  local event = {
    kind = kind, cause = evenness.judge(groups), lost = {}, suspected = self.lost - self.dead, dead = self.dead,
    kept = self.all - self.lost, share = self.all > 0 and self.lost / self.all or 0, by_group = groups, silent = {},
    returned = sorted.keys(e.returned), from_ns = e.from_ns, at_ns = at_ns, lasted_ms = (at_ns - e.from_ns) // NS_PER_MS,
  }
  event.larger = event.kept + 1 > self.lost
  local m = self.lost_first
  while m do
    event.lost[#event.lost + 1] = { name = m.name, state = m.state, group = m.group }
    m = m.following
  end
  table.sort(event.lost, function (a, b) return a.name < b.name end)
  for group, g in sorted(groups) do
    if g.lost == g.of then event.silent[#event.silent + 1] = group end
  end
  if kind == "healed" or kind == "gave_up" then event.cause = e.cause end -- The members that did not return are no evidence of the cause.
  return event
end

local function healing(self)
  return self.lost == 0 or next(self.episode.returned) ~= nil and self.lost < threshold(self)
end

--- The next step that is due in the open event, and when.
local function next_due(self)
  local e, c = self.episode, self.config
  local at_ns, what = e.detected_ns + c.give_up_ms * NS_PER_MS, "gave_up"
  local function sooner(ns, name)
    if ns < at_ns then at_ns, what = ns, name end
  end
  if healing(self) then sooner(e.changed_ns + c.heal_ms * NS_PER_MS, "healed") end
  if e.grown_ns then sooner(e.grown_ns + c.tell_ms * NS_PER_MS, "grew") end
  return at_ns, what
end

--- Set the timer to the next step, before any callback runs, for a callback may raise.
local function arm(self)
  if self.episode then
    self.timer:start_at((next_due(self)))
  elseif self.lost_first then
    self.timer:start_at(self.lost_first.down_ns + self.config.window_ms * NS_PER_MS + 1)
  else
    self.timer:stop()
  end
end

--- Report "detected" or "grew".
local function rise(self, kind, now_ns)
  self.episode = self.episode
    or { from_ns = self.lost_first.down_ns, detected_ns = now_ns, changed_ns = now_ns, named = {}, returned = {} }
  local e, event = self.episode, event_of(self, kind, now_ns)
  e.cause, e.told_lost, e.told_dead, e.grown_ns = event.cause, self.lost, self.dead, nil
  for _, m in ipairs(event.lost) do e.named[m.name] = true end
  arm(self)
  self.on_partition(event)
end

--- End the event: stop waiting for the members that are still lost.
local function fall(self, kind, at_ns)
  local event = event_of(self, kind, at_ns)
  self.episode = nil
  while self.lost_first do
    local m = self.lost_first
    unlist(self, m)
    if m.state == "dead" then forget(self, m) end
  end
  arm(self)
  self.on_partition(event)
end

--- Run the steps that are due.
local function look(self, now_ns)
  if not self.episode then
    expire(self, now_ns)
    if self.lost >= threshold(self) then rise(self, "detected", now_ns) end
  end
  while self.episode do -- close() ends it too.
    local at_ns, what = next_due(self)
    if at_ns > now_ns then break end
    if what == "grew" then rise(self, what, now_ns) else fall(self, what, what == "healed" and self.episode.changed_ns or now_ns) end
  end
  if not self.closed then arm(self) end
end

--- A member was lost or returned while an event is open.
local function changed(self, e, now_ns)
  e.changed_ns = now_ns
  e.told_lost, e.told_dead = math.min(e.told_lost, self.lost), math.min(e.told_dead, self.dead) -- From fewer it can grow again.
  local growing = self.lost > e.told_lost or self.dead > e.told_dead
  e.grown_ns = growing and (e.grown_ns or now_ns) or nil
end

--- Process a member event. Raises after close.
---@param event SwimEvent
function Watch:feed(event)
  if self.closed then error("swim.partition: fed after close", 2) end
  if event.kind == "user" or event.kind == "forgotten" then return end -- It does not concern losses.
  local now_ns, kind = self.world:now_ns(), event.kind
  if not self.episode then expire(self, now_ns) end
  local m, e = self:member(event.member), self.episode
  local was_lost = m.down_ns ~= nil
  if kind == "suspect" or kind == "dead" then
    list(self, m, kind, now_ns)
  elseif kind == "left" then
    unlist(self, m)
    forget(self, m)
  elseif kind == "join" or kind == "alive" then
    unlist(self, m)
    m.state = "alive"
  end
  if e and (m.down_ns ~= nil or was_lost) and kind ~= "update" then
    changed(self, e, now_ns)
    e.returned[m.name] = was_lost and m.state == "alive" and kind ~= "left" and e.named[m.name] or nil
  end
  self:group(m, event.member) -- Last, for it may raise.
  look(self, now_ns)
end

function Watch:due() look(self, self.world:now_ns()) end

--- The open event as it would be reported now (as "grew"); nil when none is open.
---@return SwimPartition?
function Watch:now()
  if not self.episode then return nil end
  return event_of(self, "grew", self.world:now_ns())
end

--- Close at once; an open event ends without a report. Idempotent.
function Watch:close()
  if self.closed then return end
  self.closed = true
  self.episode, self.members, self.lost_first, self.lost_last, self.all, self.lost, self.dead = nil, {}, nil, nil, 0, 0, 0
  self.timer:close()
end
Watch.__close = Watch.close

function Watch:__tostring()
  return ("swim.partition (%s, %d of %d lost)"):format(self.closed and "closed" or self.episode and "open" or "calm", self.lost, self.all)
end

return partition
