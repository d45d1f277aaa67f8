--- Leases: the right of one holder to a key, until a deadline that it moves by renewing; with a fence, by which all others refuse a former
--- holder. c/core/lease.h and c/core/lease_holder.h are the manuals; usable alone:
---
---     local lease = require "shoal.lease"
---     local world = require "shoal.core.world".current()
---     local g = assert(lease.grantor(world, { ttl_ms = 1000 }, function (event) print(event.key, "expired", event.fence) end))
---     assert(g:grant("db/primary", "w1", 7))
---     require "luv".run()
---
--- The grantor's side runs where the leases are granted, the holder's side where they are used; between them is whatever carries messages.
--- Nothing here sends: `h:due()` gives the leases to renew now, their owner sends them and gives the answer to `h:renewed()`.
---
--- Two clocks: a holder counts from the instant at which it SENT, less the drift bound; a grantor from the one at which it received, plus
--- the drift bound. So a holder's lease ends before its grantor's. (Received means `world:fresh_ns()`: `now_ns()` is that of the loop's
--- turn, which may have begun before the message was sent.) Fences come from the caller, from one log: each grant has a greater one.
---
--- The owner's functions are called through the door: a failing one is an incident (`lease.expired`, `lease.lost`, `lease.jeopardy`), those
--- of the other leases still run, and an expiry is delivered again until it is accepted, or its key was granted again.
local core = require "shoal.core.lease"
local errors = require "shoal.base.errors"
local schema = require "shoal.base.schema"

local lease = {}

lease.KEY_MAX, lease.HOLDER_MAX = core.KEY_MAX, core.HOLDER_MAX

local BATCH = 256        -- Expiries, or events, that are delivered in one turn of the loop.
local ENTRIES = 8192     -- Entries that one turn looks at: about a millisecond.
local RESTART_MS = 1000  -- A failed turn is tried again after this.
local DELIVERIES = 6     -- The door delivers so often; then it escalates.
local RENEWALS_MAX = 1024 -- In one message, by default.

--- A holder renews after a third of the ttl, so 30 s survive two lost renewals and a leader's restart.
local function ttl(default) return schema.integer { default = default, min = core.TTL_MIN_MS, max = core.TTL_MAX_MS, doc = "milliseconds" } end
--- Crystals drift by 0.01 %; clocks of virtual machines that are being corrected by some 0.1 %. 2 % leaves room, and costs 0.6 s of 30.
local function drift()
  return schema.integer { default = 20000, min = 0, max = core.DRIFT_MAX_PPM, doc = "the bound of a clock's drift, in millionths" }
end

lease.grantor_config = schema.record {
  node = schema.string { max = 64, default = "", doc = "this node's name, for incidents" },
  ttl_ms = ttl(30000),
  drift_ppm = drift(),
  leases_max = schema.integer { default = 1000000, min = 1, max = core.TABLE_MAX, doc = "leases held, and past ones that are remembered" },
  late_ms = schema.optional(schema.integer { min = 1, max = 60000,
    doc = "a tick that comes later than this was paused; default 100, or a quarter of a shorter ttl_ms" }),
  catch_up_ms = schema.integer { default = 1000, min = 0, max = 60000,
    doc = "after a pause nothing expires for as long as the tick was late, but no longer than this" },
  past_ms = schema.integer { default = 300000, min = 0, max = core.TTL_MAX_MS, doc = "a past lease's key and fence are remembered one by one" },
  sweep_ms = schema.integer { default = 10000, min = 10, max = 600000, doc = "between two sweeps for leases that the deadlines lost" },
}

lease.holder_config = schema.record {
  node = schema.string { max = 64, default = "", doc = "this node's name, for incidents" },
  drift_ppm = drift(),
  leases_max = schema.integer { default = 100000, min = 1, max = core.HELD_MAX },
}

--- Whatever a caller gives as a function must be one.
local function check_function(fn, what)
  if type(fn) ~= "function" then error(("lease.%s: expected a function, found %s"):format(what, type(fn)), 3) end
end

--- A timer that runs `turn` through the door, again and again, at the instants that `turn` returns.
local function loop(self, turn)
  self.timer = self.world:timer(function ()
    self.armed_ns = nil
    local ok = errors.call("lease.sweep_loop", function ()
      return { node = self.node, cycle = self.cycle, held = not self.closed and self.core:counts().held or nil,
        lost = 0, next_delay_ms = RESTART_MS }
    end, turn, self)
    if self.closed then return end
    if ok then self:arm() else self:arm(self.world:now_ns() + RESTART_MS * 1000000) end
  end)
end

--- Set the timer to the core's deadline, or `at_ns`.
local function arm(self, at_ns)
  at_ns = at_ns or self.core:deadline()
  if at_ns == self.armed_ns then return end
  self.armed_ns = at_ns
  if at_ns then self.timer:start_at(at_ns) else self.timer:stop() end
end

local function check_open(self)
  if self.closed then error("lease: used after close", 3) end
  return self.core
end

-- The grantor ----------------------------------------------------------------------------------------------------------

---@class LeaseGrantor
local Grantor = { arm = arm }
Grantor.__index = Grantor

---@class LeaseExpiry
---@field key string
---@field holder string
---@field fence integer
---@field expired_for_ms integer  since its deadline
---@field duration_ms integer    its ttl
---@field remaining integer      expired leases that are still to be reported after this one

--- Its key was granted again, or it was accepted: do not deliver it again.
local function settle(self, key)
  local waiting = self.undelivered[key]
  if not waiting then return false end
  self.undelivered[key] = nil
  errors.withdraw("lease.expired", waiting.delivery)
  return waiting
end

local function report_expiry(self, event)
  local delivery, attempt = event.key .. "#" .. event.fence, 0
  local ids = { key = event.key, holder = event.holder, node = self.node, fence = event.fence, expired_for_ms = event.expired_for_ms,
    duration_ms = event.duration_ms, remaining = event.remaining }
  local delivered = errors.deliver("lease.expired", ids, delivery, function ()
    if self.closed then return end -- By on_expired, of an earlier one.
    attempt = attempt + 1
    if attempt == DELIVERIES then self.undelivered[event.key] = nil end
    self.on_expired(event)
    self.undelivered[event.key] = nil
  end)
  if not delivered and not self.closed then self.undelivered[event.key] = { delivery = delivery, ids = ids } end
end

local function grantor_turn(self)
  self.cycle = self.cycle + 1
  self.core:tick(self.world:fresh_ns(), ENTRIES)
  local lost = self.core:counts().lost
  if lost > self.lost then
    errors.report("lease.sweep_loop", { node = self.node, cycle = self.cycle, lost = lost - self.lost },
      ("the sweep found %d expired leases that the deadlines had lost; they are expired now"):format(lost - self.lost))
    self.lost = lost
  end
  for _, event in ipairs(self.core:expired(BATCH)) do
    event.expired_for_ms = math.floor(event.expired_for_ms)
    report_expiry(self, event)
  end
end

--- Grant `key` to `holder`, who holds nothing of another's; its own it may be granted again.
---@param key string      1 to 255 bytes
---@param holder string   1 to 64 bytes
---@param fence integer   at least 1; above every fence of this key so far
---@param ttl_ms integer? default `ttl_ms` of the configuration
---@return { key: string, holder: string, fence: integer, ttl_ms: integer, handle: integer }? lease  `handle` makes renewals cheaper
---@return string? err
---@return string? code  "STALE": the fence is not above the key's last one; "HELD": by another; "FULL", "TOO_LARGE", "CONFIG", "MEMORY"
function Grantor:grant(key, holder, fence, ttl_ms)
  local handle, err, code = check_open(self):grant(self.world:fresh_ns(), key, holder, fence, ttl_ms or self.ttl_ms)
  if not handle then return nil, err, code end
  if settle(self, key) then self.superseded = self.superseded + 1 end
  self:arm()
  return { key = key, holder = holder, fence = fence, ttl_ms = ttl_ms or self.ttl_ms, handle = handle }
end

--- Grant many at once, in order: what a sync of the log brought, or what a new leader found in it. Cheaper than one by one.
---@param items { key: string, holder: string, fence: integer }[]
---@param ttl_ms integer?
---@return integer granted
---@return { key: string, fence: integer, code: string }[] refused  codes as of `grant`
function Grantor:grant_all(items, ttl_ms)
  local granted, refused = check_open(self):grant_all(self.world:fresh_ns(), items, ttl_ms or self.ttl_ms)
  local no = {}
  for _, each in ipairs(refused) do no[each.key] = each.fence end
  for _, item in ipairs(next(self.undelivered) and items or {}) do
    if no[item.key] ~= item.fence and settle(self, item.key) then self.superseded = self.superseded + 1 end
  end
  self:arm()
  return granted, refused
end

--- Renew what this holder holds. An item that is refused changes nothing.
---@param holder string
---@param items { key: string?, fence: integer, handle: integer? }[]  `handle` instead of `key`, as `grant` gave it
---@return integer renewed
---@return { key: string?, handle: integer?, fence: integer, code: string }[] refused  codes "STALE": the key has a greater fence; "EXPIRED":
---  this fence is over; "HELD": this fence is another holder's; "NOT_FOUND"
function Grantor:renew(holder, items) return check_open(self):renew(self.world:fresh_ns(), holder, items) end

--- Move a lease to another holder, which must not act on it before its first renewal was answered. Its holder has given it up.
---@return true? ok
---@return string? err
---@return string? code  "STALE": `fence` is not the current one, or new_fence not above it; "EXPIRED", "NOT_FOUND", "FULL", "TOO_LARGE"
function Grantor:transfer(key, fence, holder, new_fence)
  local ok, err, code = check_open(self):transfer(self.world:fresh_ns(), key, fence, holder, new_fence)
  if ok then self:arm() end
  return ok, err, code
end

--- End a lease at its holder's wish. No expiry is reported.
---@return true? ok
---@return string? err
---@return string? code  "STALE", "EXPIRED", "NOT_FOUND"
function Grantor:release(key, fence)
  local ok, err, code = check_open(self):release(self.world:fresh_ns(), key, fence)
  if ok then self:arm() end
  return ok, err, code
end

--- The state of a key: `state` is "held", "due" (expired, and not reported yet) or "past" (released or expired, its fence remembered).
---@return { key: string, holder: string, fence: integer, state: string, ttl_ms: integer, left_ms: number, handle: integer }?
function Grantor:get(key) return check_open(self):get(self.world:fresh_ns(), key) end

--- A leadership begins, or this node's table may be old: nothing expires before a whole ttl (and drift) from now.
function Grantor:catch_up()
  check_open(self):catch_up(self.world:fresh_ns())
  self:arm()
end

--- grants, renewals, transfers, releases, expired; refused: stale, held_refused, full, renewals_refused (of them stale_renewals); late and
--- late_ms (pauses), catch_ups, sweeps, lost (found by a sweep; always 0, or there is a fault); held, due, past, floor, holders, bytes;
--- undelivered (expiries that on_expired has not accepted), superseded (given up, for their keys were granted again).
---@return table
function Grantor:counts()
  local counts = check_open(self):counts()
  counts.undelivered, counts.superseded = 0, self.superseded
  for _ in next, self.undelivered do counts.undelivered = counts.undelivered + 1 end -- order-free: a count
  return counts
end

--- Close at once. Expiries that on_expired has not accepted are reported as incidents. Idempotent; other methods then raise.
function Grantor:close()
  if self.closed then return end
  self.closed = true
  self.timer:close()
  local keys = {}
  for key in next, self.undelivered do keys[#keys + 1] = key end -- order-free: sorted below
  table.sort(keys)
  for _, key in ipairs(keys) do
    errors.report("lease.expired", settle(self, key).ids, "the grantor was closed before this expiry was accepted", "CLOSED")
  end
  self.core:free()
end

---@param world table
---@param config? table  see `lease.grantor_config`; times in milliseconds
---@param on_expired fun(event: LeaseExpiry)  runs to its end; called again while it raises; may call anything, `close` too
---@return LeaseGrantor? grantor
---@return string? err
---@return string? code  "CONFIG"
function lease.grantor(world, config, on_expired)
  check_function(on_expired, "grantor")
  local checked, problem = lease.grantor_config(config)
  if not checked then return nil, "lease: " .. problem, "CONFIG" end
  checked.late_ms = checked.late_ms or math.min(100, checked.ttl_ms // 4)
  checked.seed = world:random()
  local self = setmetatable({ world = world, node = checked.node, ttl_ms = checked.ttl_ms, on_expired = on_expired, undelivered = {},
    cycle = 0, lost = 0, superseded = 0 }, Grantor)
  local err, code
  self.core, err, code = core.grantor(world:now_ns(), checked)
  if not self.core then return nil, err, code end
  loop(self, grantor_turn)
  return self
end

-- The holder -----------------------------------------------------------------------------------------------------------

---@class LeaseHolder
local Holder = { arm = arm }
Holder.__index = Holder

---@class LeaseEvent
---@field kind "jeopardy"|"expired"  jeopardy: renewals have failed until only a third of the ttl is left; expired: stop acting on the key
---@field key string
---@field fence integer
---@field left_ms integer   to the deadline; negative when it has passed
---@field refused boolean   expired: the grantor refused it, so it may end before its deadline

local function report_event(self, event)
  local ids = { key = event.key, node = self.node, fence = event.fence, left_ms = event.left_ms, refused = event.refused }
  if event.kind == "jeopardy" then return errors.run("lease.jeopardy", ids, nil, self.on_event, event) end
  return errors.deliver("lease.lost", ids, event.key .. "#" .. event.fence, function ()
    if not self.closed then self.on_event(event) end
  end)
end

local function report_events(self)
  for _, event in ipairs(self.core:events(BATCH)) do
    if self.closed then return end -- By on_event, of an earlier one.
    event.group, event.left_ms = nil, math.floor(event.left_ms)
    report_event(self, event)
  end
end

local function holder_turn(self)
  self.cycle = self.cycle + 1
  self.core:tick(self.world:now_ns())
  report_events(self)
end

--- The number of a grantor's group; 0 is for leases without a name of one. A group without leases may be used again.
local function group_of(self, grantor)
  if not grantor then return 0 end
  local number = self.groups[grantor]
  if number then return number end
  number = #self.grantors + 1
  if number == core.GRANTORS_MAX then
    number = nil
    for i, name in ipairs(self.grantors) do
      if self.core:group(i) == 0 then
        self.groups[name], number = nil, i
        break
      end
    end
    if not number then return nil end
  end
  self.groups[grantor], self.grantors[number] = number, grantor
  return number
end

--- A lease was granted to this node.
---@param key string
---@param fence integer
---@param ttl_ms integer
---@param sent_ns integer?  this node's clock when it SENT the request. Nil: it did not request it, as when a leader hands it out: it may
---  not act on it before a renewal was answered (`holds` is false), and one is due at once.
---@param grantor string?   whom to renew it with, for `due`
---@return true? ok
---@return string? err
---@return string? code  "EXPIRED": the answer came after the lease's end; "STALE": we hold it with a greater fence; "FULL", "TOO_LARGE",
---  "CONFIG"
function Holder:add(key, fence, ttl_ms, sent_ns, grantor)
  local handle = check_open(self)
  local group = group_of(self, grantor)
  if not group then return nil, ("lease %s: leases of %d grantors are held, the limit"):format(key, core.GRANTORS_MAX - 1), "FULL" end
  local ok, err, code = handle:add(self.world:now_ns(), key, fence, ttl_ms, sent_ns, group)
  if ok then self:arm() end
  return ok, err, code
end

--- The leases to renew now; each is due again a twelfth of its ttl later, until an answer comes.
---@param grantor string?  those of this grantor; nil: those that were added without one
---@param max integer?     at most so many; default 1024
---@return { key: string, fence: integer }[] items
---@return integer token   the instant of sending: send now, and give it to `renewed` with the answer
function Holder:due(grantor, max)
  local handle, now_ns = check_open(self), self.world:fresh_ns()
  local group = grantor and self.groups[grantor] or not grantor and 0
  if not group then return {}, now_ns end
  local items = handle:due(now_ns, group, max or RENEWALS_MAX)
  self:arm()
  return items, now_ns
end

--- The grantors with leases that are due, in the order in which they were first seen.
---@return string[]
function Holder:due_grantors()
  local handle, found = check_open(self), {}
  handle:tick(self.world:now_ns())
  for number, name in ipairs(self.grantors) do
    local _, due = handle:group(number)
    if due > 0 then found[#found + 1] = name end
  end
  self:arm()
  return found
end

--- A renewal was answered. Late, doubled and reordered answers change nothing.
---@param token integer  as `due` returned it
---@param items { key: string, fence: integer }[]  all that were sent
---@param refused? { key: string, fence: integer }[]  those that the grantor refused: they are over, and reported so
---@return integer renewed
function Holder:renewed(token, items, refused)
  local renewed = check_open(self):renewed(self.world:now_ns(), token, items, refused)
  self:arm()
  return renewed
end

--- Whether this node may act on the key now. Ask before each action; from the deadline on it is false.
---@return boolean
function Holder:holds(key) return check_open(self):holds(self.world:fresh_ns(), key) end

--- `state`: "pending", "held" or "jeopardy".
---@return { key: string, fence: integer, state: string, ttl_ms: integer, left_ms: number, grantor: string? }?
function Holder:get(key)
  local found = check_open(self):get(self.world:now_ns(), key)
  if not found then return nil end
  found.grantor, found.group = self.grantors[found.group], nil
  return found
end

--- Give a lease up here, without an event. Its grantor does not know: release it there.
---@return boolean held
function Holder:drop(key)
  local held = check_open(self):drop(self.world:fresh_ns(), key)
  self:arm()
  return held
end

--- added, renewed, late_answers, refused, jeopardies, expired, dropped; held, due, bytes.
---@return table
function Holder:counts() return check_open(self):counts() end

--- Close at once, without events. Idempotent; other methods then raise.
function Holder:close()
  if self.closed then return end
  self.closed = true
  self.timer:close()
  self.core:free()
end

---@param world table
---@param config? table  see `lease.holder_config`
---@param on_event fun(event: LeaseEvent)  runs to its end; `expired` is delivered again while it raises; may call anything, `close` too
---@return LeaseHolder? holder
---@return string? err
---@return string? code  "CONFIG"
function lease.holder(world, config, on_event)
  check_function(on_event, "holder")
  local checked, problem = lease.holder_config(config)
  if not checked then return nil, "lease: " .. problem, "CONFIG" end
  checked.seed = world:random()
  local self = setmetatable({ world = world, node = checked.node, on_event = on_event, groups = {}, grantors = {}, cycle = 0 }, Holder)
  local err, code
  self.core, err, code = core.holder(world:now_ns(), checked)
  if not self.core then return nil, err, code end
  loop(self, holder_turn)
  return self
end

return lease
