--- The state and result of a run, as pure functions of tables.
local outcome = require "shoal.job.outcome"
local stats = require "shoal.job.stats"
local tally = require "shoal.job.tally"

describe("outcome", function ()
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

  it("F36: refuses shares that are no list of whole amounts, or too many", function ()
    local work = { vus = 2 }
    assert.is_true(outcome.shares(work, { { vus = 3 - 1 } }))
    local function refused(shares, what)
      local good, why = outcome.shares(work, shares)
      assert.is_nil(good)
      assert.truthy(why:find(what, 1, true), why)
    end
    refused("all", "expected a list of shares, found a string")
    refused({ 2 }, "share 1: expected a table")
    refused({ { vus = 2.5 } }, "share 1: vus: expected a whole number")
    refused({ { vus = 3 }, { vus = -1 } }, "share 2: vus: expected a whole number, found -1")
    local shares = {}
    for i = 1, 10000 do shares[i] = { vus = i <= 2 and 1 or 0 } end
    assert.is_true(outcome.shares(work, shares))
    shares[10001] = { vus = 0 }
    refused(shares, "10001 shares, 10000 are the limit")
  end)

  --- A run of one workflow that has one part left over for numbers.
  local function entry(more)
    local e = { run = "j-1", job = "j-1", name = "j", state = "running", parts = {}, split = {}, work = { w = tally.new(0) } }
    for key, value in pairs(more or {}) do e[key] = value end
    return e
  end

  it("F52: too many failed requests fail a workflow, beyond their share and not at it, and only where its parts are the whole", function ()
    local workflow = { after = {}, max_failed_share = 0.1 }
    local function state(requests, errors, more)
      local e = entry(more)
      e.work.w.requests, e.work.w.errors = requests, errors
      return outcome.workflow_state(e, workflow, "w", {})
    end
    assert.equal("completed", state(100, 10))
    assert.equal("failed", state(100, 11))
    assert.equal("completed", state(100, 11, { upstream = {} }))
  end)

  it("checks and quantiles beyond their thresholds fail a workflow, and at them not", function ()
    local r = stats.recorder()
    for i = 1, 100 do r:request("a", i * 1000000) end
    local function state(workflow, more)
      local e = entry(more)
      local work = e.work.w
      work.requests, work.errors, work.checks, work.checks_failed, work.detail = 100, 0, 50, 5, stats.accumulator()
      work.detail:add(r:export(1))
      workflow.after = {}
      local found = outcome.workflow_state(e, workflow, "w", {})
      return found, found == "failed" and select(2, outcome.run_state(e, { workflows = { w = workflow } }, { "w" }, { w = "failed" })) or nil
    end
    assert.equal("completed", state { max_failed_checks_share = 0.1 })
    assert.same({ "failed", "w: 5 of 50 checks failed (10.0 %), and max_failed_checks_share allows 9 %" },
      { state { max_failed_checks_share = 0.09 } })
    assert.equal("completed", state { max_p95_ms = 96, max_p99_ms = 100 })
    assert.same({ "failed", "w: the p95 of its requests is 94.9 ms, and max_p95_ms allows 90 ms" }, { state { max_p95_ms = 90 } })
    assert.matches("the p99 of its requests is 9[89].* ms, and max_p99_ms allows 97.5 ms", select(2, state { max_p99_ms = 97.5 }))
    assert.equal("completed", state({ max_p95_ms = 90 }, { upstream = {} }))
    r = stats.recorder()
    r:request("a", 5, "http")
    assert.matches("is unknown %(none worked", select(2, state { max_p95_ms = 90 }))
  end)

  it("F63: of a run that was to end and has failures, the end is the one asked for", function ()
    local e = entry { state = "cancelling", ends_as = "timed_out", reason = "over" }
    e.work.w.failed, e.work.w.failed_why = 1, "w/1: exit"
    assert.same({ "timed_out", "over" }, { outcome.run_state(e, {}, { "w" }, { w = "failed" }) })
    e.state = "running"
    assert.same({ "failed", "w/1: exit" }, { outcome.run_state(e, {}, { "w" }, { w = "failed" }) })
  end)

  --- So many workflows, each with long names, and a histogram for each where they are few: more than any budget.
  local function large(count, more)
    local names, states, work = {}, {}, {}
    for i = 1, count do
      local name, record = ("w%03d"):format(i), stats.recorder()
      record:count("requests", 1)
      for n = 1, count > 64 and 48 or 200 do
        record:check(("%s check %d %s"):format(name, n, ("x"):rep(150)), true)
        if count <= 64 then record:time(("%s timer %d %s"):format(name, n, ("x"):rep(150)), n * 1000) end
      end
      names[i], states[name], work[name] = name, "completed", tally.new(0)
      tally.measured(work[name], record:export(1), {})
    end
    return { entry = entry { work = work, upstream = more and more.upstream }, order = names, states = states, state = "completed", node = "n",
      dc = "a", elapsed_ms = 5, live = {} }
  end

  for _, count in ipairs { 1, 64, 256 } do
    it(("F54: keeps a result of %d workflows within its budget, detail first, and says so"):format(count), function ()
      local bytes = outcome.result(large(count))
      assert.is_true(#bytes <= outcome.RESULT_MAX, #bytes .. " bytes")
      local result = assert(outcome.decode(bytes))
      assert.equal(count, #result.workflows)
      if count > 1 then assert.truthy(result.cut:find("detail was left out", 1, true), result.cut) end
      for _, w in ipairs(result.workflows) do assert.same({ "completed", true }, { w.state, w.stats.requests >= 0 }) end
    end)
  end

  it("F54: keeps the result of a share within what a part's may have", function ()
    local bytes = outcome.result(large(64, { upstream = {} }))
    assert.is_true(#bytes <= stats.PART_MAX, #bytes .. " bytes")
    assert.is_table(stats.readable(bytes))
  end)

  it("names at most 256 parts in one event, and says how many more there are", function ()
    local e, changed = entry(), {}
    local function part(i)
      local name = ("w/%04d"):format(i)
      e.parts[name] = { part = name, workflow = "w", state = "pending", attempt = 0 }
      changed[name] = true
    end
    for i = 1, 256 do part(i) end
    local parts, more = outcome.by_part(e, {}, changed)
    assert.same({ 256, nil }, { #parts, more })
    part(257)
    parts, more = outcome.by_part(e, {}, changed)
    assert.same({ 256, 1 }, { #parts, more })
  end)
end)
