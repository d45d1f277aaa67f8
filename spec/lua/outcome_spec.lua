--- The state and result of a run, as pure functions of tables.
local outcome = require "shoal.job.outcome"

describe("outcome", function ()
  it("says why a workflow is queued", function ()
    assert.equal("no executor is up", outcome.why_queued({ cores = 1 }, {}))
    assert.equal("no executor is up", outcome.why_queued({ cores = 1 }, { { state = "down", cores = 8 } }))
    local executors = { { state = "up", cores = 8 }, { state = "down", cores = 64 } }
    assert.equal("a part asks for 9 cores, and the largest executor that is up offers 8",
      outcome.why_queued({ cores = 9 }, executors))
    assert.equal("it waits for executors", outcome.why_queued({ cores = 8 }, executors))
  end)

  it("F36: refuses shares that are not the whole", function ()
    local work = { vus = 5, iterations = 10 }
    assert.is_true(outcome.adds_up(work, { { vus = 3, iterations = 6 }, { vus = 2, iterations = 4 } }))
    local none, why = outcome.adds_up(work, { { vus = 3, iterations = 6 }, { vus = 1, iterations = 4 } })
    assert.same({ nil, "vus: 4 of 5 are placed" }, { none, why })
    none, why = outcome.adds_up(work, { { vus = 5, iterations = 11 } })
    assert.same({ nil, "iterations: 11 of 10 are placed" }, { none, why })
  end)
end)
