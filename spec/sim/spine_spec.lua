--- The spine in virtual time: the unmodified role scripts on 3 datacenters and 20 workers, 2,000 requests, 2 % loss, and a worker
--- that dies in the middle. Every invariant of simcluster holds every 100 ms; a run is its seed.
local spine = require "spec.support.spine"

-- Under the sanitizers a run costs five times as much; a few seeds are enough for their checks.
local SEEDS = (os.getenv "SHOAL_BUILD" or ""):find "sanitize" and 2 or 12

local logs = {}

local function right(c, id, final)
  assert.truthy(final, "the job has no final state")
  assert.equal("completed", final.state, final.reason)
  c:check_counts(id, final)
  assert.equal(spine.REQUESTS, final.result.stats.requests)
  assert.same({}, final.result.stats.errors)
  assert.equal(1, c.ran.summary)
  -- The graph's order, as the outside world saw it.
  local log = c.hit_log
  assert.is_true(log.warm.last_ms < log.browse.first_ms and log.warm.last_ms < log.buy.first_ms)
  assert.is_true(log.summary.first_ms > log.browse.last_ms and log.summary.first_ms > log.buy.last_ms)
  assert.is_true(log.browse.first_ms < log.buy.last_ms and log.buy.first_ms < log.browse.last_ms) -- side by side
  -- Lost attempts are listed by name, separately, and every loss is an incident.
  local lost = 0
  for _, a in ipairs(final.result.attempts) do
    if a.state == "lost" then
      lost = lost + 1
      assert.equal(c.victim.name, a.executor)
    else
      assert.equal("completed", a.state, a.part)
    end
  end
  assert.is_true(lost > 0, "the crash hit nothing")
  local told = 0
  for _, i in ipairs(final.result.incidents) do told = told + (i.site == "lead.attempt_lost" and 1 or 0) end
  assert.equal(lost, told)
end

describe("the spine, simulated:", function ()
  for seed = 1, SEEDS do
    it(("F28, F40, F42: seed %d: exact counts, the lost attempts apart, the graph's order kept"):format(seed), function ()
      local c <close>, id, final = spine.run { seed = seed }
      right(c, id, final)
      c:rest()
      logs[seed] = c.s:log()
    end)
  end

  it("F74: a run is its seed: the same event log to the byte, and another seed's is another", function ()
    local c <close>, id, final = spine.run { seed = 1 }
    right(c, id, final)
    c:rest()
    assert.is_true(#c.s:log() > 10000)
    assert.is_true(logs[1] == c.s:log(), "seed 1 gave two logs")
    assert.is_false(logs[1] == logs[2], "seeds 1 and 2 gave one log")
  end)
end)
