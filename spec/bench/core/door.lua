--- bench core, the door: ns of a call without an error, from Lua and from C, and a flood of failures at one site beside a timer.
---
--- A call's figure is CPU time less that of the same call without the door, the least of several rounds. The flood: 10^6 failures a second
--- are offered, 1,000 in each millisecond, while a timer of 5 ms measures how late it rings.
local errors = require "shoal.errors"
local log = require "shoal.log"
local node = require "shoal.core.node"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

local BUILD = os.getenv "SHOAL_BUILD" or "build/release"
local quick = (...) == "quick"
local ROUNDS, COUNT, FLOOD_MS = quick and 2 or 9, quick and 20000 or 500000, quick and 300 or 3000

local short = false
local function bar(name, figure, bound)
  local ok = figure <= bound
  short = short or not ok
  print(("bar %s %.4g want <= %.4g %s"):format(name, figure, bound, ok and "ok" or "short"))
end

local function cpu_ns() return world:telemetry().cpu_ns end

local function least(fn)
  local best = math.huge
  for _ = 1, ROUNDS do
    local began = cpu_ns()
    for _ = 1, COUNT do fn() end
    best = math.min(best, (cpu_ns() - began) / COUNT)
  end
  return best
end

local lines = 0
assert(log.open(world, function () lines = lines + 1 end))
errors.start(world, "bench")
assert(errors.load_policy(node.home() .. "/scripts/policies/errors.lua"))

local function work(a) return a end
local constant = { job = "job-1", part = "one/a" }
local function made() return { job = "job-1", part = "one/a" } end

local bare = least(function () work(1) end)
local rows = {
  { "errors.call, ids a constant table", least(function () errors.call("lead.run", constant, work, 1) end) - bare },
  { "errors.call, ids made when it fails", least(function () errors.call("lead.run", made, work, 1) end) - bare },
}
local pipe = assert(io.popen(("%s/spec/sites spec/support/door_time.lua %d %d"):format(BUILD, ROUNDS, COUNT)))
rows[3] = { "door_call, from C", assert(tonumber(pipe:read "a"), "no figure of spec/sites") }
pipe:close()
for _, row in ipairs(rows) do print(("  %-40s %8.1f ns"):format(row[1], row[2])) end
bar("door_call_from_lua_ns", rows[1][2], 100)
bar("door_call_with_made_ids_ns", rows[2][2], 100)
bar("door_call_from_c_ns", rows[3][2], 100)

local function boom() error("boom", 0) end
local lags, offered, every_ms = {}, 0, 5
task.start(world)
local began_ns, memory_kb = world:now_ns(), nil
local due_ns = began_ns + every_ms * 1000000
local timer
timer = world:timer(function ()
  lags[#lags + 1] = (world:fresh_ns() - due_ns) / 1e6
  due_ns = world:fresh_ns() + every_ms * 1000000
  timer:start(every_ms)
end)
timer:start(every_ms)
local flood
flood = world:timer(function ()
  local owed = math.min(FLOOD_MS, (world:fresh_ns() - began_ns) // 1000000) * 1000
  local now = math.min(owed - offered, 1000) -- A turn of the loop stays short, whatever is owed.
  for _ = 1, now do errors.call("lead.run", constant, boom) end
  offered = offered + now
  if not memory_kb and offered >= FLOOD_MS * 200 then
    collectgarbage()
    memory_kb = collectgarbage "count"
  end
  if offered < FLOOD_MS * 1000 then return flood:start(1) end
  local took_ms = (world:fresh_ns() - began_ns) / 1e6
  timer:close()
  flood:close()
  table.sort(lags)
  collectgarbage()
  local grew_kb = collectgarbage "count" - memory_kb
  local c = errors.count "lead.run"
  print(("  flood: %d failures in %.0f ms (%.0f a second), %d reported, %d held back, timers late: p50 %.2f ms, p99 %.2f ms"):format(offered,
    took_ms, offered / took_ms * 1000, c.reported, c.suppressed, lags[#lags // 2], lags[math.ceil(#lags * 0.99)]))
  bar("flood_timer_lag_p99_ms", lags[math.ceil(#lags * 0.99)], 20)
  bar("flood_memory_growth_kb", grew_kb, 256)
  bar("flood_unaccounted", c.raised - c.reported - c.suppressed - c.handled + (c.raised ~= offered and 1 or 0), 0)
  task.stop()
  node.exit(short and 1 or 0)
end)
flood:start(1)
