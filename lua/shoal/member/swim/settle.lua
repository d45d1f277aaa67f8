--- swim.settle: one event for a burst of member events, once it has settled, with the net change.
---
---     local bursts = assert(swim.settle(world, { quiet_ms = 500, most_ms = 10000 }, function (burst)
---       print(#burst.joined .. " joined, " .. #burst.dead .. " died")
---     end))
---     local s = swim.open(world, config, function (event) bursts:feed(event) end)
---
---   idle ── an event ──> gathering ── no event for quiet_ms, or most_ms since the first ──> on_burst(burst) ──> idle
---
--- The net change: a *life* of a member is one generation of its incarnation. For each member, only the difference between the start
--- and the end of the burst counts:
---   - joined and ended within the burst: no change; counted in `passed`.
---   - ended, and returned in the same life (it was alive after all): no change; in `updated` if its payload or address differs.
---   - ended, and returned in another life (it restarted): in `dead` or `left` with its old incarnation, and in `joined` with the
---     new one. Process `dead` and `left` first, then `joined`.
---   - suspect and alive: never a change; `flaps[name]` counts its suspicions within the burst.
---   - an event `user` is not a change of membership, and is not counted.
--- A burst without a change is reported too, with `changes = 0`: a member flaps.
---
--- Time is the world's. Memory: a record for each member that is named in the burst, none between bursts.
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"

local settle = {}

local NS_PER_MS = 1000000

settle.config = schema.record({
  quiet_ms = schema.integer { default = 500, min = 1, max = 600000, doc = "a burst is over after this long without an event" },
  most_ms = schema.integer { default = 10000, min = 1, max = 3600000, doc = "or after this long in all" },
}, function (c)
  if c.most_ms < c.quiet_ms then return "most_ms must be at least quiet_ms" end
end)

---@class SwimBurst
---@field joined SwimMember[]   alive or suspect now, and not before, or in another life; lists are sorted by name
---@field dead SwimMember[]     alive before, and that life is over
---@field left SwimMember[]     alive before, and it announced that it left
---@field updated SwimMember[]  alive before and now, with another payload or address
---@field changes integer       how many entries these four lists have
---@field passed integer        lives that began and ended within the burst
---@field flaps table<string, integer>  how often each member was suspected
---@field events integer        how many events were fed
---@field from_ns integer       the world's time of the first event
---@field to_ns integer         and of the last

---@class SwimSettle
---@field config { quiet_ms: integer, most_ms: integer }
local Settle = {}
Settle.__index = Settle
Settle.__name = "shoal.swim.settle"

---@param world World
---@param config? { quiet_ms?: integer, most_ms?: integer }  default 500 and 10000
---@param on_burst fun(burst: SwimBurst)  must not wait; may call anything, including `feed` and `close`
---@return SwimSettle? settle
---@return string? err  every problem of the config at once
---@return string? code  "CONFIG"
function settle.open(world, config, on_burst)
  if type(on_burst) ~= "function" then error("swim.settle: on_burst: expected a function, found " .. type(on_burst), 2) end
  local checked, err = settle.config(config)
  if not checked then return nil, "swim.settle: " .. err, "CONFIG" end
  local self = setmetatable({ world = world, config = checked, on_burst = on_burst, entries = {}, events = 0, passed = 0 }, Settle)
  self.timer = world:timer(function () self:due() end)
  return self
end

--- A member's entry: its state before the burst, and now.
local function entry_of(self, event)
  local member = event.member
  local entry = self.entries[member.name]
  if not entry then
    local before = event.kind ~= "join" and member.incarnation.generation or nil
    entry = { before = before, life = before, flaps = 0 }
    self.entries[member.name] = entry
  end
  return entry
end

local function ended(self, entry, event)
  entry.life = nil
  if event.member.incarnation.generation == entry.before then
    entry.ended, entry.how = event.member, event.kind
    return
  end
  self.passed = self.passed + 1
  if not entry.before then self.entries[event.member.name] = nil end -- It joined and ended: no entry.
end

local function joined(entry, member)
  local generation, old = member.incarnation.generation, entry.ended
  if old and generation == entry.before then
    if old.payload_version ~= member.payload_version or old.address ~= member.address then entry.updated = true end
    entry.ended, entry.how = nil, nil
  end
  entry.life = generation
end

--- Process a member event. Raises after close.
---@param event SwimEvent  kept until the burst is reported: do not change it
function Settle:feed(event)
  if self.closed then error("swim.settle: fed after close", 2) end
  if event.kind == "user" or event.kind == "forgotten" then return end
  local now_ns = self.world:now_ns()
  if self.events == 0 then self.from_ns = now_ns end
  self.events, self.to_ns = self.events + 1, now_ns
  local entry, kind = entry_of(self, event), event.kind
  if kind == "join" then
    joined(entry, event.member)
  elseif kind == "dead" or kind == "left" then
    ended(self, entry, event)
  elseif kind == "suspect" then
    entry.flaps = entry.flaps + 1
  elseif kind == "update" then
    entry.updated = true
  end
  entry.member = event.member
  if self.events == 1 then self:arm(now_ns) end -- Later events only move the due time; the timer looks when it fires.
end

local function due_ns(self)
  return math.min(self.to_ns + self.config.quiet_ms * NS_PER_MS, self.from_ns + self.config.most_ms * NS_PER_MS)
end

function Settle:arm(now_ns) self.timer:start_at(math.max(due_ns(self), now_ns)) end

function Settle:due()
  if self.events == 0 then return end
  local now_ns = self.world:now_ns()
  if now_ns < due_ns(self) then return self:arm(now_ns) end
  self:flush()
end

local function burst_of(self)
  local burst = {
    joined = {}, dead = {}, left = {}, updated = {}, flaps = {}, passed = self.passed, events = self.events,
    from_ns = self.from_ns, to_ns = self.to_ns,
  }
  local function add(list, member) list[#list + 1] = member end
  for name, entry in sorted(self.entries) do
    if entry.flaps > 0 then burst.flaps[name] = entry.flaps end
    if entry.ended then add(burst[entry.how], entry.ended) end
    if entry.life and entry.life ~= entry.before then
      add(burst.joined, entry.member)
    elseif entry.life and entry.updated then
      add(burst.updated, entry.member)
    end
  end
  burst.changes = #burst.joined + #burst.dead + #burst.left + #burst.updated
  return burst
end

--- Report the open burst now, before this returns.
---@return boolean told  false: there was nothing
function Settle:flush()
  if self.events == 0 then return false end
  local burst = burst_of(self)
  self.entries, self.events, self.passed = {}, 0, 0 -- First, so that on_burst may raise, feed or close.
  self.timer:stop()
  self.on_burst(burst)
  return true
end

--- Close at once and drop the open burst; call `flush` first if it matters. Idempotent.
---@return integer dropped  events that no burst reported
function Settle:close()
  if self.closed then return 0 end
  local dropped = self.events
  self.closed = true
  self.entries, self.events, self.passed = {}, 0, 0
  self.timer:close()
  return dropped
end
Settle.__close = Settle.close

function Settle:__tostring()
  return ("swim.settle (%s)"):format(self.closed and "closed" or self.events .. " events gathered")
end

return settle
