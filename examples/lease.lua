--- Leases alone, in stock Lua: one grantor and two holders in one process. A database has one writer at a time, w1 or w2, and a disk that
--- refuses a former one. w1 is granted the lease, renews it, is paused, and ends; w2 takes over; w1's last write is refused by its fence.
--- It explains itself, and ends in about five seconds.
---
---     lua5.4 examples/lease.lua      from the project's root; SHOAL_BUILD names another build than build/release
local build = os.getenv "SHOAL_BUILD" or "build/release"
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
package.cpath = build .. "/lib/?.so;" .. package.cpath

local luv = require "luv"
local lease = require "shoal.lease"
local world = require "shoal.core.world".current()

local KEY, TTL_MS, LAG_MS = "db/writer", 1500, 20

local began_ns = world:now_ns()
local function say(who, text, ...)
  print(("%4.1f s  %-7s  %s"):format((world:fresh_ns() - began_ns) / 1e9, who, text:format(...)))
end

local function later(ms, fn)
  local timer
  timer = world:timer(function ()
    timer:close()
    fn()
  end)
  timer:start(ms)
end

-- The disk: what a lease protects. It knows no clock and no lease; it keeps the greatest fence that it has seen.
local disk = { fence = 0 }
function disk.write(who, fence, text)
  if fence < disk.fence then
    return say("disk", "refuses %q from %s: fence %d is lower than %d", text, who, fence, disk.fence)
  end
  disk.fence = fence
  say("disk", "writes %q from %s, fence %d", text, who, fence)
end

-- The grantor. Fences come from a log that only grows, so that each owner's is greater than all before it; here it is a number.
local log_index = 100
local holders, waiting = {}, {}
local grantor

local function grant(to, sent_ns)
  log_index = log_index + 1
  local granted, err, code = grantor:grant(KEY, to, log_index)
  if not granted then
    say("grantor", "refuses %s: %s [%s]", to, err, code)
    waiting[#waiting + 1] = to
    return
  end
  say("grantor", "grants %s to %s with fence %d, for %g s", KEY, to, granted.fence, TTL_MS / 1000)
  later(LAG_MS, function () holders[to].granted(granted.fence, sent_ns) end)
end

grantor = assert(lease.grantor(world, { ttl_ms = TTL_MS }, function (event)
  say("grantor", "%s's lease expired (fence %d, %.0f ms after its deadline); in a tier this is in the log before the next grant",
    event.holder, event.fence, event.expired_for_ms)
  local next_one = table.remove(waiting, 1)
  if next_one then grant(next_one, nil) end -- It did not just ask: it acts when its first renewal was answered.
end))

-- A holder. It counts from the instant at which it sent a request, so that its lease ends before the grantor's.
local function start(name, on_start)
  local self = { name = name, stalled = false, renewals = 0 }
  holders[name] = self
  self.leases = assert(lease.holder(world, { node = name }, function (event)
    if event.kind == "jeopardy" then
      say(name, "is in jeopardy: no renewal was answered, %.1f s are left", event.left_ms / 1000)
    else
      say(name, "stops: its lease is over (its own clock, less 2 %% for drift)")
    end
  end))

  function self.request()
    local sent_ns = world:fresh_ns()
    later(LAG_MS, function () grant(name, sent_ns) end)
  end

  function self.granted(fence, sent_ns)
    assert(self.leases:add(KEY, fence, TTL_MS, sent_ns))
    self.fence = fence
    if sent_ns then say(name, "holds it") else say(name, "hears of it, and renews before it acts") end
    on_start(self)
  end

  function self.write(text)
    if self.leases:holds(KEY) then disk.write(name, self.fence, text) else say(name, "does not write %q: it holds no lease", text) end
  end

  --- Every 100 ms: renew what is due, in one message.
  local timer
  timer = world:timer(function ()
    timer:start(100)
    local items, token = self.leases:due()
    if #items == 0 or self.stalled then return end -- Stalled: the network to the grantor is down.
    later(LAG_MS, function ()
      local renewed, refused = grantor:renew(name, items)
      self.renewals = self.renewals + renewed
      later(LAG_MS, function ()
        if self.closed then return end
        self.leases:renewed(token, items, refused)
        for _, item in ipairs(refused) do say(name, "hears that fence %d is refused [%s]", item.fence, item.code) end
        if self.on_renewed then self.on_renewed() end
      end)
    end)
  end)
  timer:start(100)

  function self.close()
    self.closed = true
    timer:close()
    self.leases:close()
  end
  return self
end

local w1, w2

local function finish()
  say("w2", "releases it, which ends it at once")
  w2.leases:drop(KEY)
  assert(grantor:release(KEY, w2.fence))
  local counts = grantor:counts()
  say("grantor", "%d grants, %d renewals, %d expiry, %d lower fence refused", counts.grants, counts.renewals, counts.expired, counts.stale)
  w1.close()
  w2.close()
  grantor:close()
end

w1 = start("w1", function (self)
  self.write "first"
  w2.request()
  later(1700, function ()
    say("w1", "has renewed it %d times; now its network is down", self.renewals)
    self.write "second"
    self.stalled = true
  end)
end)

w2 = start("w2", function (self)
  self.on_renewed = function ()
    self.on_renewed = nil
    self.write "third"
    say("w1", "had a write under way when its lease ended; it arrives now")
    disk.write("w1", w1.fence, "a late one")
    w1.write "another"
    local _, err, code = grantor:grant(KEY, "w1", w1.fence)
    say("grantor", "w1 cannot use its old fence either: %s [%s]", err, code)
    later(300, finish)
  end
end)

w1.request()
luv.run()
print "done"
