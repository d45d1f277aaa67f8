--- Check that results never contradict, over seeds of work and faults (spec/support/agree.lua): stalls up to 8 s, kills, full tiers, slow
--- and full disks, cuts. At every check a job's status, its result and the events pushed to its client agree; no claim of cores leaks;
--- no part runs more often than its retries allow.
--
-- `scripts/study results [--seeds=1000] [--from=1]`. A failed seed is printed with its problems; --from=N --seeds=1 runs it alone.
dofile "spec/helper.lua"
local agree = require "spec.support.agree"
local errors = require "shoal.errors"
local sorted = require "shoal.sorted"

local options = { seeds = 1000, from = 1 }
for _, word in ipairs(arg) do
  local name, value = word:match "^%-%-(%a+)=(%d+)$"
  if not options[name] then
    io.stderr:write(("results: expected --seeds=N or --from=N, found %s\n"):format(word))
    os.exit(2)
  end
  options[name] = math.tointeger(value)
end

local failed, jobs, faults, states = 0, 0, 0, {}
for seed = options.from, options.from + options.seeds - 1 do
  local ok, found = errors.handle("spec.study", {}, agree.run, seed)
  if ok then
    jobs, faults = jobs + found.jobs, faults + found.faults
    for state, count in sorted(found.states) do states[state] = (states[state] or 0) + count end
  else
    failed = failed + 1
    print(("seed %d: %s"):format(seed, tostring(found)))
  end
  collectgarbage()
end
print(("%d seeds, %d jobs, %d faults"):format(options.seeds, jobs, faults))
for state, count in sorted(states) do print(("  %-10s %6d"):format(state, count)) end
print(("bar results_contradict %d want 0 %s"):format(failed, failed == 0 and "ok" or "short"))
os.exit(failed == 0 and 0 or 1)
