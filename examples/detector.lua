--- Two layers of failure detection, explained by what they print: nodes that do not respond for one job, and machines that die.
--- Three workers, two managers that accuse them, two jobs; a timeout for a job is 0.2 to 1 s here, 1 to 10 s by default.
---
---     lua5.4 examples/detector.lua        from the project's root; SHOAL_BUILD names another build than build/release
local build = os.getenv "SHOAL_BUILD" or "build/release"
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
package.cpath = build .. "/lib/?.so;" .. package.cpath

local luv = require "luv"
local detector = require "shoal.detector"
local world = require "shoal.core.world".current()

local began_ns = world:now_ns()
local function say(...) print(("%5.2f s  "):format((world:now_ns() - began_ns) / 1e9) .. string.format(...)) end

local SAYS = {
  job_suspected = function (e) say("%s is suspected for %s: it has %d ms to show progress", e.node, e.job, e.timeout_ms) end,
  job_cleared = function (e) say("%s is cleared for %s: %s", e.node, e.job, e.why) end,
  job_expired = function (e)
    say("%s is dead for %s: %d accusers confirmed, %d ms passed; its other jobs stay there", e.node, e.job, e.confirmations, e.age_ms)
  end,
  node_suspected = function (e) say("the machine %s is suspected: it has %d ms to refute", e.node, e.timeout_ms) end,
  node_expired = function (e) say("the machine %s is dead", e.node) end,
  node_cleared = function (e) say("the machine %s is cleared: %s", e.node, e.why) end,
}

local d = assert(detector.open(world, {
  profile = "local",                    -- A suspected machine has 0.2 to 1.2 s.
  job_min_ms = 200, job_max_ms = 1000,
  members = function () return 5 end,   -- In larger groups everybody gets more time.
}, function (event) SAYS[event.kind](event) end))

--- Run each step at its time.
local function play(steps)
  for _, step in ipairs(steps) do
    local timer
    timer = world:timer(function ()
      timer:close()
      step.run()
    end)
    timer:start(step.at_ms)
  end
end

play {
  { at_ms = 0, run = function ()
    print "-- A node is silent for one job. Nobody else accuses it, and it shows progress in time."
    for i = 1, 3 do d:node("w" .. i, "alive", 1) end
    d:suspect("job-1", "w1", "m1")
  end },
  { at_ms = 100, run = function () d:progress("job-1", "w1") end },

  { at_ms = 150, run = function ()
    print "-- Two more accuse another one: each confirmation brings its deadline nearer."
    d:suspect("job-1", "w2", "m1")
    d:suspect("job-2", "w3", "m1")
    print(detector.explain(d:why("job-1", "w2")))
    d:confirm("job-1", "w2", "m2")
    d:confirm("job-1", "w2", "m1") -- It accused already: this changes nothing.
    print(detector.explain(d:why("job-1", "w2")))
    d:confirm("job-1", "w2", "w3")
  end },

  { at_ms = 500, run = function ()
    print "-- The one that is silent for job-2 knows that it is slow, and asks for time. It gets less each time, and only with progress."
    for _, done in ipairs { 10, 10, 20, 30, 40, 50, 60, 70 } do
      local granted_ms, why, code = d:extend("job-2", "w3", "load", done)
      if granted_ms then say("w3 has done %d units, and gets %d ms more", done, granted_ms)
      else say("w3 has done %d units, and gets nothing (%s): %s", done, code, why) end
    end
  end },

  { at_ms = 700, run = function ()
    print "-- The machine w3 is suspected and refutes with a greater version. Its suspicion for job-2 stands: a version proves no progress."
    d:suspect(nil, "w3", "m1")
    d:node("w3", "alive", "1.1")
  end },
  { at_ms = 800, run = function ()
    print "-- Then it falls silent. Its death clears what it was suspected of, in the same step."
    d:suspect("job-1", "w3", "m1")
    d:suspect(nil, "w3", "m1")
    d:confirm(nil, "w3", "m2")
    d:confirm(nil, "w3", "w1")
  end },
  { at_ms = 1300, run = function ()
    print "-- It starts again: a new life. What is said about the old one is stale."
    d:node("w3", "alive", 2)
    d:suspect("job-1", "w3", "m1")
    say("an accusation of its old life changes something: %s", d:suspect("job-1", "w3", "m2", 1))
    d:node("w3", "dead", "1.1")
    d:over "job-1"
    local counts = d:counts()
    say("stale claims: %d; suspicions left: %d", counts.stale, counts.suspicions)
    d:close()
  end },
}
luv.run()
print "done"
