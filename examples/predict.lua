--- Predict detection times and the cost of membership, before anything is deployed.
---
---     lua5.4 examples/predict.lua [members] [loss]      from the project's root; SHOAL_BUILD names another build than build/release
local build = os.getenv "SHOAL_BUILD" or "build/release"
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
package.cpath = build .. "/lib/?.so;" .. package.cpath

local swim = require "shoal.swim"

local n, loss = math.tointeger(tonumber(arg[1] or 100)), tonumber(arg[2] or 0.02)

print(("%d members, %g %% of datagrams lost"):format(n, loss * 100))
print "configuration          suspected p50   dead at all p50, p99   bytes/s a member   false deaths"
local function row(what, config)
  local p, err = swim.predict { n = n, loss = loss, crashes = math.min(20, (n - 1) // 2), config = config }
  if not p then error(err) end
  print(("%-22s %10.2f s %13.2f s, %6.2f s %18.1f %14d"):format(what, p.suspected_s.p50, p.all_dead_s.p50, p.all_dead_s.p99,
    p.bytes_per_s, p.false_deaths))
end
row("lan", {})
row("lan, probes each 3 s", { probe_interval_ms = 3000 })
row("local", { profile = "local" })
