--- F69: nothing escapes. A tenth of all calls at sites fails on every node of 3 gates, 2 datacenters and their client: code, hooks, loops,
--- tasks that begin, handlers. Each job ends as it should or says why not, every failure is accounted for, and at the end the loops live
--- and the tables are empty. `scripts/study escape` runs more and larger seeds.
local escaping = require "spec.support.escaping"

describe("nothing escapes:", function ()
  for from = 1, 20, 5 do
    it(("F69: a tenth of all site calls fails, seeds %d to %d"):format(from, from + 4), function ()
      for seed = from, from + 4 do
        local found = escaping.run(seed, { jobs = 2, first = 2 * seed, retention_ms = 10000 }) -- Every kind of job, not in each seed.
        assert.equal(2, found.jobs)
        assert.is_true(found.raised > 5, found.raised)
      end
    end)
  end
end)
