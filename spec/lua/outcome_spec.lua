--- What a run amounts to, as pure functions of tables.
local outcome = require "shoal.job.outcome"
local stats = require "shoal.job.stats"

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

  --- A run of workflows that have `names` checks and timers each; what outcome.result is given.
  local function run_of(workflows, names)
    local o = {
      entry = { job = "j", name = "j", work = {}, attempts = {}, incidents = {}, parts = {}, state = "running" }, order = {}, states = {},
      state = "completed", node = "m", dc = "a", elapsed_ms = 1000, live = {}, pauses = 0,
    }
    function o.pause() o.pauses = o.pauses + 1 end
    for i = 1, workflows do
      local name, r, detail = ("flow%03d"):format(i), stats.recorder(), stats.accumulator()
      for k = 1, names do
        local long = ("/shop/%d/category/item-%d"):format(i, k)
        r:check(long, true)
        r:time(long, k * 1000000)
        r:count(long, k)
        r:request(long, k * 1000000)
      end
      r.counts.iterations = 1
      detail:add(r:export(1000))
      o.entry.work[name] = { open = 0, failed = 0, cancelled = 0, counts = {}, detail = detail, executions = 1 }
      o.order[i], o.states[name] = name, "completed"
    end
    return o
  end

  local function passed(result)
    local sum = 0
    for _, check in ipairs(result.stats.checks) do sum = sum + check.passed end
    return sum
  end

  it("F54: a result past the budget has less detail of each workflow, and all sums", function ()
    local o = run_of(64, 200)
    local bytes = outcome.result(o)
    assert.is_true(#bytes <= outcome.RESULT_MAX and #bytes > 64 * 1024, #bytes)
    local result = outcome.decode(bytes)
    assert.truthy(result.cut:find("2097152 are the limit", 1, true), result.cut)
    assert.equal(64 * 200, passed(result))
    for _, w in ipairs(result.workflows) do assert.is_true(#w.stats.checks > 1 and #w.stats.checks < 200, #w.stats.checks) end
    assert.is_true(o.pauses >= 128, o.pauses) -- The loop turns between workflows.
  end)

  it("F54: where workflows have no room for detail each has its counts, and the whole run its detail", function ()
    local o = run_of(256, 60)
    local bytes = outcome.result(o)
    assert.is_true(#bytes <= outcome.RESULT_MAX, #bytes)
    local result = outcome.decode(bytes)
    assert.equal(256, #result.workflows)
    assert.equal(256 * 60, passed(result))
    for _, w in ipairs(result.workflows) do
      assert.same({ "completed", 1, 0, 180, 120 }, { w.state, w.stats.iterations, #w.stats.checks, w.stats.cut.names, w.stats.cut.histograms })
    end
  end)

  it("F54: a result that fits is whole and says nothing of cuts", function ()
    local result = outcome.decode(outcome.result(run_of(4, 200)))
    assert.is_nil(result.cut)
    for _, w in ipairs(result.workflows) do assert.equal(200, #w.stats.checks) end
  end)

  it("keeps the records of a small run, and summaries past COMPACT_MAX", function ()
    local msgpack = require "shoal.core.msgpack"
    local function kept(names)
      local bytes = outcome.result(run_of(1, names))
      local workflow = msgpack.unpack(bytes).workflows[1]
      assert.is_true(workflow.record and #bytes <= 8192 or #bytes > 8192)
      assert.equal(names, #outcome.decode(bytes).workflows[1].stats.checks) -- Read, it is the same.
      return workflow.record and "record" or "summary"
    end
    local found = {}
    for names = 10, 60, 5 do found[kept(names)] = true end
    assert.same({ record = true, summary = true }, found)
  end)

  it("has 2000 bytes of a reason", function ()
    for n, want in pairs { [2000] = 2000, [2001] = 2000 } do
      local o = run_of(1, 1)
      o.reason = ("r"):rep(n)
      assert.equal(want, #outcome.decode(outcome.result(o)).reason)
    end
  end)
end)
