--- Results never contradict: a job's status, its result and the events pushed to its client agree at every instant, under stalls, kills,
--- full tiers, slow and full disks, and cuts. `scripts/study results` runs a thousand seeds.
---
--- SHOAL_SEEDS=FROM-TO runs those seeds instead of the few of every day.
local agree = require "spec.support.agree"

local FROM, TO = 1, (os.getenv "SHOAL_BUILD" or ""):find "sanitize" and 2 or 15
if os.getenv "SHOAL_SEEDS" then
  local from, to = os.getenv("SHOAL_SEEDS"):match "^(%d+)%-(%d+)$"
  FROM, TO = assert(tonumber(from), "SHOAL_SEEDS is FROM-TO"), assert(tonumber(to))
end

describe("results:", function ()
  for seed = FROM, TO do
    it(("F51, F52, F38: seed %d: status, result and pushes agree, no claim leaks, no part runs too often"):format(seed), function ()
      agree.run(seed)
    end)
  end
end)
