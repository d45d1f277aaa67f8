--- bench sim: how much faster than real time the spine runs in the simulator: 3 datacenters, 20 workers, 2,000 requests, 2 % loss, one
--- worker's crash, on one core.
---
---   scripts/bench sim [--seeds N] [--pace MS]
---
--- The pace is the mean time that each of the 120 users sleeps between two requests; it makes virtual time pass. CPU is this process's,
--- from the first node's start to the job's end; the specs' invariants are not checked here.
package.path = "./?.lua;" .. package.path

local spine = require "spec.support.spine"
local world = require("shoal.core.world").current()

local options = { seeds = 5, pace = 1000 }
local words = { ... }
for i = 1, #words, 2 do
  local name = words[i]:match("^%-%-(%a+)$")
  local value = math.tointeger(tonumber(words[i + 1] or ""))
  if not options[name] or not value or value < 1 then
    io.stderr:write("usage: scripts/bench sim [--seeds N] [--pace MS]\n")
    return 2
  end
  options[name] = value
end

local WANT = 10 -- Times real time.

local function cpu_s() return world:telemetry().cpu_ns / 1e9 end

print(("3 datacenters, 20 workers, %d requests of 120 users who rest %d ms on average between two, 2 %% loss, one worker dies"):format(
  spine.REQUESTS, options.pace))
print(("%-6s %12s %10s %10s %10s %12s %10s"):format("seed", "virtual s", "CPU s", "ratio", "events", "us an event", "requests"))

local function row(name, virtual_s, cpu, events, requests)
  print(("%-6s %12.2f %10.2f %10.1f %10d %12.1f %10d"):format(name, virtual_s, cpu, virtual_s / cpu, events, cpu / events * 1e6, requests))
end

local virtual_s, cpu, events, requests = 0, 0, 0, 0
for seed = 1, options.seeds do
  local began = cpu_s()
  local c <close>, _, final = spine.run { seed = seed, pace_ms = options.pace, checked = false }
  local took = cpu_s() - began
  assert(final and final.state == "completed", "seed " .. seed .. " did not complete")
  local of_seed = c.ended_ms / 1000
  row(tostring(seed), of_seed, took, c.s:events(), final.result.stats.requests)
  virtual_s, cpu, events, requests = virtual_s + of_seed, cpu + took, events + c.s:events(), requests + final.result.stats.requests
end
row("all", virtual_s, cpu, events, requests)

local ratio = virtual_s / cpu
print(("bar sim_speed %.1f want >=%d %s"):format(ratio, WANT, ratio >= WANT and "ok" or "short"))
return ratio >= WANT and 0 or 1
