--- Check that nothing escapes (spec/support/escaping.lua): a tenth of all site calls fails on each node of 3 gates (each a tier of one),
--- 2 datacenters and a client, while 50 jobs run. Each job ends as it should or says why not; every failure is accounted for; loops live.
--
-- `scripts/study escape [--seeds=100] [--from=1] [--jobs=50] [--percent=10]`. A failed seed is printed with its problem; --from=N --seeds=1
-- runs it alone, and SHOAL_LOG=FILE then keeps its log.
dofile "spec/helper.lua"
local errors = require "shoal.errors"
local escaping = require "spec.support.escaping"
local sorted = require "shoal.sorted"

local options = { seeds = 100, from = 1, jobs = 50, percent = 10 }
for _, word in ipairs(arg) do
  local name, value = word:match "^%-%-(%a+)=(%d+)$"
  if not options[name] then
    io.stderr:write(("escape: expected --seeds=N, --from=N, --jobs=N or --percent=N, found %s\n"):format(word))
    os.exit(2)
  end
  options[name] = math.tointeger(value)
end

local failed, jobs, raised, states, at = 0, 0, 0, {}, {}
for seed = options.from, options.from + options.seeds - 1 do
  local ok, found = errors.handle("spec.study", {}, escaping.run, seed, { jobs = options.jobs, share = options.percent / 100 })
  if ok then
    jobs, raised = jobs + found.jobs, raised + found.raised
    for state, count in sorted(found.states) do states[state] = (states[state] or 0) + count end
    for site, count in sorted(found.injected) do at[site] = (at[site] or 0) + count end
  else
    failed = failed + 1
    print(("seed %d: %s"):format(seed, tostring(found)))
  end
  collectgarbage()
end
print(("%d seeds, %d jobs, %d failures at"):format(options.seeds, jobs, raised))
local sites = 0
for site, count in sorted(at) do
  sites = sites + 1
  print(("  %-28s %8d"):format(site, count))
end
for state, count in sorted(states) do print(("  jobs %-23s %8d"):format(state, count)) end
print(("bar seeds_where_something_escaped %d want 0 %s"):format(failed, failed == 0 and "ok" or "short"))
print(("bar sites_that_failed %d want >=25 %s"):format(sites, sites >= 25 and "ok" or "short"))
os.exit(failed == 0 and sites >= 25 and 0 or 1)
