--- The numbers of a job over workers, datacenters and time: rates of the load itself, on the clock of the job's leader.
local simcluster = require "spec.support.simcluster"

local STEADY = [[return {
  setup = function (vu) vu:sleep(700) end, vu = function (vu) vu:sleep(100) end, teardown = function (vu) vu:sleep(400) end,
}]]

--- The statistics of the one workflow, and the names of its completed parts.
local function ran(c, workflow, more)
  local final = c:complete(c:job({ load = workflow }, more), nil, 120000)
  assert.equal("completed", final.state, final.reason)
  local parts = {}
  for _, a in ipairs(final.result.attempts) do
    if a.state == "completed" and a.workflow == "load" then parts[#parts + 1] = a.part end
  end
  table.sort(parts)
  return final.result.workflows[1].stats, parts, final
end

local function near(want, found, share) assert.near(want, found, want * share) end

describe("a rate", function ()
  it("is that of the load: not of setup and teardown, and of rounds of parts not as if they ran side by side", function ()
    local c <close> = simcluster.new { workers = 2, set_worker = { cores = 2 } }
    local s, parts = ran(c, { code = STEADY, vus = 4, parts = 4, cores = 2, duration_ms = 1000 })
    assert.equal(4, #parts)
    assert.equal(40, s.iterations)
    near(2000, s.load_ms, 0.02) -- Two rounds of 1 s, between them 1.1 s without load.
    near(20, s.iterations_per_second, 0.02)
    s = ran(c, { code = STEADY, vus = 4, parts = 2, cores = 2, duration_ms = 1000 }) -- Side by side.
    near(1000, s.load_ms, 0.02)
    near(40, s.iterations_per_second, 0.02)
    c:rest()
  end)

  it("holds over datacenters that begin late, over two hops and four clocks", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 1, set_worker = { cores = 2 }, latency_ms = 10 }
    local busy = assert(c:submit(c:job({ busy = { work = "busy 3000", cores = 2 } }, { datacenters = { "b" } })))
    c:run(400)
    local s, parts, final = ran(c, { code = STEADY, vus = 2, cores = 2, duration_ms = 1000 })
    assert.same({ "load/a/1", "load/b/1" }, parts)
    assert(final.result.elapsed_ms > 3500)
    near(2000, s.load_ms, 0.03)
    near(10, s.iterations_per_second, 0.03)
    c:follow(busy)
    c:rest()
  end)

  it("leaves out an attempt that was lost, and the wait for the next one", function ()
    local c <close> = simcluster.new { workers = 2, set_worker = { cores = 1 } }
    local id = assert(c:submit(c:job { load = { code = STEADY, vus = 2, parts = 2, duration_ms = 4000 } }))
    c:run(2000)
    c:crash(c.workers[1])
    local s = c:follow(id, 120000).result.workflows[1].stats
    assert.equal(80, s.iterations)
    near(8000, s.load_ms, 0.02)
    near(10, s.iterations_per_second, 0.02)
  end)

  it("holds when the leader was started again under way", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 1 }
    local id = assert(c:submit(c:job { load = { code = STEADY, vus = 2, duration_ms = 8000 } }))
    c:run(3000)
    c:crash(c.gates[1])
    c:run(500)
    c:restart(c.gates[1])
    c:run(1000)
    local s = c:follow(id, 120000).result.workflows[1].stats
    assert.equal(160, s.iterations)
    near(8000, s.load_ms, 0.05)
  end)
end)

describe("parts of a script", function ()
  it("are as many as the job says, in all, by a manager and by a gate", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 2, set_worker = { cores = 4 } }
    for parts, want in pairs {
      [1] = { "load/a/1" }, [3] = { "load/a/1", "load/a/2", "load/b/1" },
      [5] = { "load/a/1", "load/a/2", "load/a/3", "load/b/1", "load/b/2" },
    } do
      local s, found = ran(c, { code = "return function (vu) vu:sleep(20) end", vus = 7, parts = parts, iterations = 21 })
      assert.same(want, found)
      assert.equal(21, s.iterations)
    end
    local _, found = ran(c, { code = "return function (vu) vu:sleep(20) end", vus = 7, iterations = 21 })
    assert.equal(4, #found) -- Left out: one on each worker.
    c:rest()
  end)
end)

describe("an open loop over a gate", function ()
  it("sums the rate that its parts want, and what they dropped", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 2 }
    local s = ran(c, { code = STEADY, vus = 20, rate = 100, duration_ms = 3000 })
    assert.equal(300, s.iterations)
    near(100, s.pace.wanted_per_second, 0.001)
    near(100, s.pace.begun_per_second, 0.02)
    assert.same({ 0, 0 }, { s.pace.dropped, s.pace.late })
    s = ran(c, { code = STEADY, vus = 4, rate = 100, duration_ms = 3000 })
    assert.equal(300, s.iterations + s.pace.dropped)
    near(40, s.pace.begun_per_second, 0.05)
    assert(s.pace.late > 100)
    c:rest()
  end)
end)
