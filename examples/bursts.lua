--- Modules on top of member events: one event for a burst, one for a partition and its healing, and a cursor for a slow reader.
---
--- An observer and eight members of two sites, all in one process on loopback. They start at once: one burst. Then the four of site b
--- are closed without leaving, as if its link were cut, and started again. At the end a slow reader reads all events.
---
---     lua5.4 examples/bursts.lua      from the project's root; SHOAL_BUILD names another build than build/release
local build = os.getenv "SHOAL_BUILD" or "build/release"
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
package.cpath = build .. "/lib/?.so;" .. package.cpath

local luv = require "luv"
local swim = require "shoal.swim"
local world = require "shoal.core.world".current()

local began_ns = world:now_ns()
local function say(format, ...) print(("%5.2f s  "):format((world:now_ns() - began_ns) / 1e9) .. format:format(...)) end

local function names(list)
  local out = {}
  for i, member in ipairs(list) do out[i] = member.name or member end
  return table.concat(out, " ")
end

local members, stage, taken = {}, 1, nil
local bursts, watch, journal, observer

--- Start a member; its payload is its site. Times are short, so that the example takes seconds.
local function start(name, site, seeds, on_event)
  members[name] = assert(swim.open(world, {
    node = name, bind = "127.0.0.1:0", cluster = "example", profile = "local", payload = site, seeds = seeds,
    probe_interval_ms = 60, probe_timeout_ms = 25, gossip_interval_ms = 15, suspicion_multiplier = 3, suspicion_max = 1,
  }, on_event or function () end))
  return members[name]
end

local function start_site(site)
  for i = 1, 4 do start(site .. i, site, { observer:address() }) end
end

--- Each stage begins when the observer has seen the end of the one before.
local stages = {
  function ()
    say "site b is cut off"
    for i = 1, 4 do members["b" .. i]:close() end
  end,
  function ()
    say "site b comes back"
    start_site "b"
  end,
  function ()
    local _, err, code, snapshot = journal:read(0) -- A reader without any event yet.
    say("a slow reader: %s (%s)", code, err)
    say("  so it takes the living members: %s", names(snapshot.members))
    taken = snapshot.cursor
    members.a1:leave()
  end,
  function ()
    local events = assert(journal:read(taken))
    local last = events[#events]
    say("  and reads on without a gap, up to event %d: %s %s", last.sequence, last.kind, last.member.name)
    for _, member in pairs(members) do member:close() end -- order-free: all of them
    bursts:close()
    watch:close()
  end,
}

local function on_stage()
  local step = stages[stage]
  stage = stage + 1
  if step then step() end
end

bursts = assert(swim.settle(world, { quiet_ms = 500, most_ms = 5000 }, function (burst)
  say("one burst of %d events: joined %d, dead %d, left %d, updated %d", burst.events, #burst.joined, #burst.dead, #burst.left,
    #burst.updated)
  if stage == 1 and observer:counts().live == 9 then on_stage() end
end))

watch = assert(swim.partition(world, {
  share = 0.3, window_ms = 1000, tell_ms = 400, heal_ms = 400, group_of = function (member) return member.payload end,
}, function (event)
  say("%s %s: lost %s; silent %s; %d kept, %d known dead; returned %s", event.cause, event.kind, names(event.lost),
    names(event.silent), event.kept, event.dead, names(event.returned))
  if stage == 2 and event.dead == 4 or stage == 3 and event.kind == "healed" then on_stage() end
end))

journal = assert(swim.journal(world, { kept = 10 }))

observer = start("observer", "here", nil, function (event)
  journal:feed(event)
  bursts:feed(event)
  watch:feed(event)
  if stage == 4 and event.kind == "left" then on_stage() end
end)
say("the observer listens on %s", observer:address())
start_site "a"
start_site "b"
luv.run()
print "done"
