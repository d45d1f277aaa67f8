--- What a run amounts to, as pure functions of tables.
local outcome = require "shoal.job.outcome"
local stats = require "shoal.job.stats"
local tally = require "shoal.job.tally"

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
