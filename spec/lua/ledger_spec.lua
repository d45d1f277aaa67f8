--- The ledger alone: a pure state machine, so every case is a few commands and a look.
local ledger = require "shoal.job.ledger"

describe("ledger", function ()
  local l, index
  local function commit(command)
    index = index + 3 -- Indexes rise, and are not consecutive.
    l:apply(index, ledger.encode(command))
    return l:outcome(index)
  end
  before_each(function ()
    l, index = ledger.new(), 0
  end)

  local function job(key)
    local made = commit { kind = "create", run = "", job = "", prefix = "", key = key or "k", name = "j", salt = "0001", spec = "spec" }
    return made.run, made
  end
  local function part(run)
    commit { kind = "split", run = run, workflow = "w", parts = { { part = "w/1", share = { vus = 1 } } } }
    return l.runs[run].parts["w/1"]
  end

  it("F31: gives one run to one key, however often it is submitted", function ()
    local run, first = job("same")
    local again, second = job("same")
    assert.is_false(first.duplicate)
    assert.is_true(second.duplicate)
    assert.equal(run, again)
    assert.equal(1, #l:list())
  end)

  it("names a job after its index, so that two jobs of one name differ", function ()
    assert.not_equal((job("a")), (job("b")))
  end)

  it("F36: gives every dispatch a fence above the one before", function ()
    local run = job()
    local p = part(run)
    local one = commit { kind = "dispatch", run = run, part = "w/1", executor = "x" }
    commit { kind = "lost", run = run, part = "w/1", fence = one.fence, state = "lost", reason = "died", retry = true }
    local two = commit { kind = "dispatch", run = run, part = "w/1", executor = "y" }
    assert.is_true(two.fence > one.fence)
    assert.same({ 1, 2 }, { one.attempt, two.attempt })
    assert.equal("y", p.executor)
    assert.same({ "x", "lost" }, { p.history[1].executor, p.history[1].state })
  end)

  it("never dispatches a part that is already dispatched", function ()
    local run = job()
    part(run)
    commit { kind = "dispatch", run = run, part = "w/1", executor = "x" }
    assert.is_true(commit { kind = "dispatch", run = run, part = "w/1", executor = "y" }.stale)
  end)

  it("F21: takes no result under an older fence", function ()
    local run = job()
    local p = part(run)
    local one = commit { kind = "dispatch", run = run, part = "w/1", executor = "x" }
    commit { kind = "lost", run = run, part = "w/1", fence = one.fence, state = "lost", reason = "died", retry = true }
    local two = commit { kind = "dispatch", run = run, part = "w/1", executor = "y" }
    assert.is_true(commit { kind = "ended", run = run, part = "w/1", fence = one.fence, state = "completed", result = "old" }.stale)
    assert.is_nil(commit { kind = "ended", run = run, part = "w/1", fence = two.fence, state = "completed", result = "new" }.stale)
    assert.equal("new", p.result)
    assert.is_true(commit { kind = "ended", run = run, part = "w/1", fence = two.fence, state = "failed", result = "again" }.stale)
    assert.equal("completed", p.state)
  end)

  it("F63: keeps the first of cancel and completion, whichever it is", function ()
    local run = job()
    commit { kind = "cancel", run = run, reason = "enough", state = "cancelled" }
    assert.equal("cancelling", commit { kind = "cancel", run = run, reason = "late", state = "timed_out" }.state)
    commit { kind = "finish", run = run, state = "cancelled", reason = "enough", result = "" }
    assert.is_true(commit { kind = "finish", run = run, state = "completed", result = "" }.stale)
    assert.equal("cancelled", commit { kind = "cancel", run = run, reason = "later", state = "cancelled" }.state)
    assert.equal("cancelled", l.runs[run].state)
  end)

  it("loses no retry into a run that is being cancelled", function ()
    local run = job()
    local p = part(run)
    local d = commit { kind = "dispatch", run = run, part = "w/1", executor = "x" }
    commit { kind = "cancel", run = run, reason = "enough", state = "cancelled" }
    commit { kind = "lost", run = run, part = "w/1", fence = d.fence, state = "lost", reason = "died", retry = true }
    assert.equal("cancelled", p.state)
  end)

  it("F53: keeps nothing of a finished run but its answer, and nothing at all once it is forgotten", function ()
    local run = job()
    part(run)
    commit { kind = "finish", run = run, state = "failed", reason = "x", result = "r" }
    assert.same({}, l.runs[run].parts)
    assert.is_nil(l.runs[run].spec)
    commit { kind = "forget", run = run }
    assert.same({ runs = {}, keys = {}, finished = {} }, { runs = l.runs, keys = l.keys, finished = l.finished })
  end)

  it("keeps at most 1,000 finished runs, the newest", function ()
    local first = job("first")
    commit { kind = "finish", run = first, state = "completed", result = "" }
    for i = 1, 1000 do
      local run = job("k" .. i)
      commit { kind = "finish", run = run, state = "completed", result = "" }
      if i == 999 then assert.is_table(l.runs[first]) end
    end
    assert.is_nil(l.runs[first])
    assert.is_nil(l.keys.first)
    assert.equal(1000, #l:list())
  end)

  it("F72: gives equal bytes for equal states, and the same state back", function ()
    local run = job()
    part(run)
    commit { kind = "dispatch", run = run, part = "w/1", executor = "x" }
    local bytes, other = l:snapshot(), ledger.new()
    other:restore(bytes)
    assert.same(l.runs, other.runs)
    assert.equal(bytes, other:snapshot())
  end)

  it("raises on a command that is not one of its own", function ()
    assert.error_matches(function () l:apply(1, ledger.encode { kind = "surprise" }) end, 'entry 1: unknown command "surprise"')
    assert.error_matches(function () l:apply(1, "\xc1") end, "entry 1")
  end)
end)
