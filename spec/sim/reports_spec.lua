--- Results that wait, through the unmodified roles in virtual time.
local simcluster = require "spec.support.simcluster"

local function submitted(c, spec)
  local id = assert(c:submit(spec))
  c:watch(id)
  return id
end

describe("a worker's results:", function ()
  it("F45: what no leader had accepted when the worker stopped is handed over by its next life, and not done again", function ()
    local c <close> = simcluster.new { workers = 1, set = { retention_ms = 30000 } } -- The client needs a while to come back.
    local w, m = c.workers[1], c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 1000", retries = 0 } })
    c:run(500)
    c:crash(m)
    c:run(3000)
    assert.same({ 1, 0 }, c:on(w, "local n = state.worker.reports:counts() return { n.results, state.worker:claimed() }"))
    local folder = c:on(w, "return node.config.data") .. "/results-waiting"
    c.s:signal(w, "TERM")
    assert.truthy(c:until_true(function () return c.s:status(w) == "ended" end, 10000), c.s:status(w))
    assert.truthy(c.s:read(w, folder .. "/r1"))
    c:start(w)
    c:run(500)
    c:restart(m)
    local final
    assert.truthy(c:until_true(function () final = c:final(id) return final end, 60000), "the job did not end")
    assert.equal("completed", final.state, final.reason)
    assert.equal(1, #final.result.attempts)
    assert.equal(1, c.ran.one)
    c:run(1000)
    assert.is_nil((c.s:read(w, folder .. "/r1")))
  end)
end)
