--- The ledger alone: a pure state machine, so every case is a few commands and a check of their facts.
local ledger = require "shoal.job.ledger"
local msgpack = require "shoal.core.msgpack"
local stats = require "shoal.job.stats"

local function kinds(facts)
  local out = {}
  for i, fact in ipairs(facts) do out[i] = fact.kind end
  return table.concat(out, " ")
end

local function bytes_of(make)
  local parts = {}
  for piece in make do parts[#parts + 1] = piece end
  return table.concat(parts)
end

describe("ledger", function ()
  local l, index, now_ms
  local function commit(command)
    index = index + 3 -- Indexes rise, and are not consecutive.
    command.at_ms = now_ms
    return l:apply(index, ledger.encode(command))
  end
  before_each(function ()
    l, index, now_ms = ledger.new(), 0, 1000
  end)

  local function job(key)
    local facts = commit { kind = "create", run = "", job = "", key = key or "k", name = "j", salt = "0001", spec = "spec" }
    return facts.answer.run, facts
  end
  local function cut(run, names, retries)
    local parts = {}
    for i, name in ipairs(names) do parts[i] = { part = name, share = { vus = 1 }, cores = 2 } end
    return commit { kind = "place", splits = { { run = run, workflow = "w", retries = retries or 2, parts = parts } } }
  end
  local function part(run, retries)
    cut(run, { "w/1" }, retries)
    return l.runs[run].parts["w/1"]
  end
  local function place(run, name, executor, capacity)
    return commit { kind = "place", places = { { run = run, part = name, executor = executor, capacity = capacity } } }
  end
  local function lose(run, name, fence, more)
    local loss = { run = run, part = name, fence = fence, state = "lost", reason = "died", retry = true }
    for key, value in pairs(more or {}) do loss[key] = value end
    return commit { kind = "lost", parts = { loss } }
  end
  local function result(record) return msgpack.pack { stats = record } end

  it("F31: gives one run to one key, however often it is submitted", function ()
    local run, first = job("same")
    local again, second = job("same")
    assert.is_false(first.answer.duplicate)
    assert.equal("run_created", kinds(first))
    assert.is_true(second.answer.duplicate)
    assert.equal("", kinds(second))
    assert.equal(run, again)
    assert.equal(1, #l:list())
  end)

  it("names a job after its index, so that two jobs of one name differ", function ()
    assert.not_equal((job("a")), (job("b")))
  end)

  it("F36: gives every dispatch a fence above the one before", function ()
    local run = job()
    local p = part(run)
    local one = place(run, "w/1", "x")[1]
    local lost = lose(run, "w/1", one.fence)
    assert.same({ "part_lost", true, "x" }, { lost[1].kind, lost[1].again, lost[1].executor })
    local two = place(run, "w/1", "y")[1]
    assert.is_true(two.fence > one.fence)
    assert.same({ 1, 2 }, { one.attempt, two.attempt })
    assert.equal("y", p.executor)
    assert.same({ "x", "lost" }, { p.history[1].executor, p.history[1].state })
  end)

  it("cuts a workflow once, and places its parts in the same command", function ()
    local run = job()
    local facts = commit { kind = "place",
      splits = { { run = run, workflow = "w", retries = 0, parts = {
        { part = "w/1", share = {}, cores = 1 }, { part = "w/2", share = {}, cores = 1 },
      } } },
      places = { { run = run, part = "w/1", executor = "x", capacity = 4 } } }
    assert.equal("run_split part_dispatched", kinds(facts))
    assert.equal("", kinds(cut(run, { "w/1", "w/2", "w/3" })))
    assert.is_nil(l.runs[run].parts["w/3"])
    assert.same({ "dispatched", "pending" }, { l.runs[run].parts["w/1"].state, l.runs[run].parts["w/2"].state })
  end)

  it("never dispatches a part that is already dispatched", function ()
    local run = job()
    part(run)
    place(run, "w/1", "x")
    local facts = place(run, "w/1", "y")
    assert.same({ "part_unplaced", "stale" }, { facts[1].kind, facts[1].why })
    assert.equal("x", l.runs[run].parts["w/1"].executor)
  end)

  it("F35: counts the cores of an executor from its attempts, and places none beyond what it offers", function ()
    local run = job()
    cut(run, { "w/1", "w/2", "w/3" })
    local one = place(run, "w/1", "x", 4)[1]
    place(run, "w/2", "x", 4)
    assert.equal(4, l:load "x")
    local facts = place(run, "w/3", "x", 5)
    assert.same({ "part_unplaced", "full" }, { facts[1].kind, facts[1].why })
    assert.equal("pending", l.runs[run].parts["w/3"].state)
    assert.equal(2, #l:on "x")
    lose(run, "w/1", one.fence)
    assert.equal(2, l:load "x")
    assert.equal(1, #kinds(place(run, "w/3", "x", 4)):gsub("part_dispatched", "") + 1)
    assert.equal(4, l:load "x")
    commit { kind = "finish", run = run, state = "failed", result = "", gave_up = true }
    assert.same({ 0, 0 }, { l:load "x", l:count_on "x" })
    assert.same({}, l.executors)
  end)

  it("F21: takes no result under an older fence, and the first under the newest", function ()
    local run = job()
    local p = part(run)
    local one = place(run, "w/1", "x")[1]
    lose(run, "w/1", one.fence)
    local two = place(run, "w/1", "y")[1]
    assert.is_true(commit { kind = "ended", run = run, part = "w/1", fence = one.fence, state = "completed", result = result {} }.stale)
    local ended = commit { kind = "ended", run = run, part = "w/1", fence = two.fence, state = "completed",
      result = result { counts = { requests = 7 } }, progress = { requests = 7 } }
    assert.equal("part_ended", kinds(ended))
    assert.is_true(commit { kind = "ended", run = run, part = "w/1", fence = two.fence, state = "failed", result = result {} }.stale)
    assert.equal("completed", p.state)
    local work = l.runs[run].work.w
    assert.same({ 0, 1, 0, 7 }, { work.open, work.completed, work.failed, work.detail:record().counts.requests })
  end)

  it("F21: loses no attempt for what is said of an older fence", function ()
    local run = job()
    local p = part(run)
    local one = place(run, "w/1", "x")[1]
    lose(run, "w/1", one.fence)
    local two = place(run, "w/1", "y")[1]
    assert.equal("", kinds(lose(run, "w/1", one.fence)))
    assert.same({ "dispatched", two.fence, 1 }, { p.state, p.fence, p.executions })
  end)

  it("F63: keeps the first of cancel and completion, whichever it is", function ()
    local run = job()
    assert.equal("cancelling", commit({ kind = "cancel", run = run, reason = "enough", state = "cancelled" }).answer.state)
    assert.is_true(commit { kind = "cancel", run = run, reason = "late", state = "timed_out" }.stale)
    assert.equal("run_finished", kinds(commit { kind = "finish", run = run, state = "cancelled", reason = "enough", result = "" }))
    assert.is_true(commit { kind = "finish", run = run, state = "completed", result = "" }.stale)
    assert.equal("cancelled", commit({ kind = "cancel", run = run, reason = "later", state = "cancelled" }).answer.state)
    assert.same({ "cancelled", "enough" }, { l:run(run).state, l:run(run).reason })
  end)

  it("a cancel ends what waits at once, and loses no retry into the run", function ()
    local run = job()
    cut(run, { "w/1", "w/2" })
    local d = place(run, "w/1", "x")[1]
    local facts = commit { kind = "cancel", run = run, reason = "enough", state = "cancelled" }
    assert.equal("run_cancelling", kinds(facts))
    assert.same({ "dispatched", "cancelled" }, { l.runs[run].parts["w/1"].state, l.runs[run].parts["w/2"].state })
    assert.is_false(lose(run, "w/1", d.fence)[1].again)
    assert.equal("cancelled", l.runs[run].parts["w/1"].state)
    assert.equal(0, l.runs[run].work.w.open)
  end)

  it("places nothing on an executor that is cordoned, at most HELD_MAX of them, over a snapshot too; what is moved is no execution", function ()
    local run = job()
    local p = part(run, 1)
    assert.equal("executor_held", kinds(commit { kind = "hold", executor = "x", mode = "cordoned" }))
    assert.equal("part_unplaced", kinds(place(run, "w/1", "x")))
    local restored = ledger.new()
    restored:restore(bytes_of(l:snapshot()))
    assert.same({ "cordoned", l.held }, { restored:hold_of "x", restored.held })
    assert.is_true(commit { kind = "hold", executor = "y", mode = "none" }.stale)
    for i = 2, ledger.HELD_MAX do l.held["x" .. i] = { mode = "cordoned" } end
    assert.same({ full = ledger.HELD_MAX }, commit { kind = "hold", executor = "one more", mode = "cordoned" }.answer)
    assert.equal("executor_held", kinds(commit { kind = "hold", executor = "x", mode = "draining", until_ms = 5 })) -- Known: no more.
    assert.equal("executor_held", kinds(commit { kind = "hold", executor = "x", mode = "none" }))
    assert.is_nil(l:hold_of "x")
    for _ = 1, 3 do
      assert.is_true(lose(run, "w/1", place(run, "w/1", "x")[1].fence, { moved = true, still_there = true })[1].again)
    end
    assert.same({ 0, 3, "pending" }, { p.executions, p.attempt, p.state })
  end)

  it("keeps events of hooked sites until they are told, over a snapshot too, each id once", function ()
    local outbox = require "shoal.job.outbox"
    local function hooked(command)
      command.tell = outbox.ALL
      return commit(command)
    end
    local run = hooked({ kind = "create", run = "", job = "", key = "k", name = "j", salt = "0001", spec = "spec" }).answer.run
    cut(run, { "w/1" }, 1)
    local fence = hooked({ kind = "place", places = { { run = run, part = "w/1", executor = "x" } } })[1].fence
    hooked { kind = "lost", parts = { { run = run, part = "w/1", fence = fence, state = "lost", reason = "died", retry = true } } }
    local function sites(of)
      local out = {}
      for i, event in ipairs(of.outbox:list()) do out[i] = event.site end
      return table.concat(out, " ")
    end
    assert.equal("job.began part.began part.retried", sites(l))
    hooked { kind = "told", seqs = { 1, 2 } }
    assert.is_true(hooked({ kind = "told", seqs = { 1 } }).stale)
    local restored = ledger.new()
    restored:restore(bytes_of(l:snapshot()))
    assert.same({ "part.retried", 3, 3, 1 }, { sites(restored), restored.outbox.first, restored.outbox.last, restored.outbox.count })
    assert.equal(run .. "#12.1", restored.outbox.events[3].id)
    -- A site that is not hooked leaves nothing; ids are the same whatever is hooked.
    local other = commit { kind = "create", run = "", job = "", key = "k2", name = "j", salt = "0002", spec = "spec", tell = 2 }
    assert.same({ "part.retried", false }, { sites(l), other.answer.duplicate })
    for _ = 1, outbox.EVENTS_MAX do l.outbox:record(l, 99, 1, { { kind = "run_created", run = run } }) end
    assert.same({ outbox.EVENTS_MAX, 1, 4 }, { l.outbox.count, l.outbox.dropped, l.outbox.first })
  end)

  it("F38: no policy makes a part run more often than retries + 1, its executions below included", function ()
    local run = job()
    local p = part(run, 2)
    for attempt = 1, 3 do
      local d = place(run, "w/1", "x")[1]
      assert.equal(attempt, d.attempt)
      assert.equal(attempt < 3, lose(run, "w/1", d.fence)[1].again)
    end
    assert.same({ "failed", 3 }, { p.state, p.executions })
    run = job("other")
    p = part(run, 2)
    local d = place(run, "w/1", "dc")[1] -- A datacenter that had reported two executions when it was lost: one is left.
    assert.is_true(lose(run, "w/1", d.fence, { progress = { executions = 2 } })[1].again)
    d = place(run, "w/1", "dc")[1]
    assert.is_false(lose(run, "w/1", d.fence)[1].again)
    assert.equal(3, p.executions)
  end)

  it("counts a refusal as no execution, and ends a part that is refused without end", function ()
    local run = job()
    local p = part(run, 0)
    for i = 1, 100 do
      local d = place(run, "w/1", "x")[1]
      assert.equal(i < 100, lose(run, "w/1", d.fence, { state = "refused" })[1].again)
    end
    assert.same({ "failed", 0 }, { p.state, p.executions })
  end)

  it("ends a part for refusals in a row only", function ()
    local run = job()
    part(run, 1)
    for i = 1, 198 do
      local d = place(run, "w/1", "x")[1]
      assert.is_true(lose(run, "w/1", d.fence, { state = i == 99 and "lost" or "refused" })[1].again)
    end
    assert.is_true(lose(run, "w/1", place(run, "w/1", "x")[1].fence, { state = "refused" })[1] ~= nil)
    assert.equal("failed", l.runs[run].parts["w/1"].state)
  end)

  it("takes an answer that comes with a part only once all its workflows were cut, and nothing is open", function ()
    local run = job()
    part(run)
    local function end_with(workflows)
      local d = place(run, "w/1", "x")[1]
      return commit { kind = "ended", run = run, part = "w/1", fence = d.fence, state = "completed", result = result {},
        finish = { state = "completed", result = "r", workflows = workflows } }
    end
    assert.equal("part_ended", kinds(end_with(2)))
    assert.equal("running", l:run(run).state)
    run = job("other")
    part(run)
    assert.equal("part_ended run_finished", kinds(end_with(1)))
    assert.same({ "completed", "r" }, { l:run(run).state, l:run(run).result })
    run = job("third")
    cut(run, { "w/1", "w/2" })
    assert.equal("part_ended", kinds(end_with(1)))
  end)

  it("previews a command for its proposer, and changes nothing by that", function ()
    local run = job()
    local p = part(run)
    lose(run, "w/1", place(run, "w/1", "x")[1].fence, { progress = { requests = 3, executions = 2 } })
    local d = place(run, "w/1", "x")[1]
    local before = bytes_of(l:snapshot())
    local command = { kind = "ended", run = run, part = "w/1", fence = d.fence, state = "completed", progress = { requests = 7 },
      result = msgpack.pack { stats = { counts = { requests = 7 } },
        incidents = { { id = "i", node = "n", site = "s", level = "error", message = "m" } } } }
    local after = l:preview(command)
    assert.same({ "completed", 10, 2 }, { after.parts["w/1"].state, after.parts["w/1"].counts.requests, #after.attempts })
    assert.equal(before, bytes_of(l:snapshot()))
    assert.same({ "dispatched", 3, 2 }, { p.state, p.counts.requests, l:load "x" })
    commit(command)
    assert.same(after.parts["w/1"].counts, p.counts)
    assert.same(#after.attempts, #l.runs[run].attempts)
  end)

  it("adds counts up, but for the most executions of one piece, and counts what was lost", function ()
    local run = job()
    local p = part(run, 9)
    lose(run, "w/1", place(run, "w/1", "x")[1].fence, { progress = { requests = 3, executions = 2 } })
    lose(run, "w/1", place(run, "w/1", "x")[1].fence, { progress = { requests = 4, executions = 1 } })
    assert.same({ requests = 7, executions = 2, lost = 7 }, p.counts)
    assert.same({ requests = 7, executions = 2, lost = 7 }, l.runs[run].work.w.counts)
  end)

  it("names the first part that failed in the order of the split, whichever failed first", function ()
    local run = job()
    cut(run, { "w/1", "w/2", "w/3" }, 0)
    for _, name in ipairs { "w/2", "w/1", "w/3" } do
      local d = place(run, name, "x")[1]
      commit { kind = "ended", run = run, part = name, fence = d.fence, state = "failed", reason = "of " .. name, result = result {} }
    end
    assert.equal("w/1: of w/1", l.runs[run].work.w.failed_why)
  end)

  it("keeps each incident once, whoever brings it", function ()
    local run = job()
    cut(run, { "w/1", "w/2", "w/3" }, 0)
    for i, node in ipairs { "n", "n", "other" } do
      local d = place(run, "w/" .. i, "x")[1]
      commit { kind = "ended", run = run, part = "w/" .. i, fence = d.fence, state = "completed",
        result = msgpack.pack { incidents = { { id = "i", node = node, site = "s", level = "error", message = "m" } } } }
    end
    assert.equal(2, #l.runs[run].incidents)
  end)

  it("is not finished while a part is open, unless its leader gives it up", function ()
    local run = job()
    part(run)
    assert.is_true(commit { kind = "finish", run = run, state = "completed", result = "" }.stale)
    assert.equal("running", l.runs[run].state)
    assert.equal("run_finished", kinds(commit { kind = "finish", run = run, state = "failed", result = "", gave_up = true }))
  end)

  it("F53: keeps nothing of a finished run but its answer, and nothing at all once it is forgotten", function ()
    local run = job()
    part(run)
    commit { kind = "finish", run = run, state = "failed", reason = "x", result = "r", gave_up = true }
    assert.is_nil(l.runs[run])
    local entry = l:run(run)
    for _, field in ipairs { "parts", "split", "work", "spec", "attempts", "incidents" } do assert.is_nil(entry[field], field) end
    assert.same({ 0, 0, 1 }, { l.live, l.live_bytes, l.result_bytes })
    assert.is_true(commit { kind = "forget", runs = { { run = run, index = entry.index + 1 } } }.stale)
    assert.equal("run_forgotten", kinds(commit { kind = "forget", runs = { { run = run, index = entry.index } } }))
    assert.same({ {}, {}, {}, {}, 0 }, { l.runs, l.past, l.keys, l.jobs, l.result_bytes })
  end)

  it("F31: forgets ended runs by the tier's clock, the oldest first, and none before its time", function ()
    local runs = {}
    for i = 1, 5 do
      now_ms = 1000 * i
      runs[i] = job("k" .. i)
      commit { kind = "finish", run = runs[i], state = "completed", result = "r" }
    end
    assert.equal("run_forgotten run_forgotten", kinds(commit { kind = "expire", before_ms = 3000, most = 10 }))
    assert.is_nil(l:run(runs[2]))
    assert.is_table(l:run(runs[3]))
    assert.is_nil(l:of_key "k2")
    assert.equal(runs[3], l:of_key("k3").run)
    assert.equal("run_forgotten", kinds(commit { kind = "expire", before_ms = 9000, most = 1 }))
    assert.equal(2, #l.ended)
  end)

  it("forgets by time nothing that a higher tier has not taken", function ()
    local up = commit({
      kind = "create", run = "j|p", job = "j", key = "", name = "j", salt = "", spec = "s", upstream = { fence = 1 },
    }).answer.run
    commit { kind = "finish", run = up, state = "completed", result = "r" }
    assert.same({ ["j|p"] = true }, l.handing)
    local own = job()
    commit { kind = "finish", run = own, state = "completed", result = "r" }
    assert.equal("run_forgotten", kinds(commit { kind = "expire", before_ms = 999999, most = 10 }))
    assert.is_table(l:run(up))
    assert.is_nil(l:run(own))
    commit { kind = "forget", runs = { { run = up, index = l:run(up).index } } }
    assert.same({}, l.handing)
  end)

  it("saves a run that came back after it was forgotten once", function ()
    for fence = 1, 2 do
      local up = commit({
        kind = "create", run = "j|p", job = "j", key = "", name = "j", salt = "", spec = "s", upstream = { fence = fence },
      }).answer.run
      commit { kind = "finish", run = up, state = "completed", result = "result" }
      if fence == 1 then commit { kind = "forget", runs = { { run = up, index = l:run(up).index } } } end
    end
    local other = ledger.new()
    other:restore(bytes_of(l:snapshot()))
    assert.same({ 6, 2 }, { other.result_bytes, other:run("j|p").upstream.fence })
  end)

  it("drops results to make room, and keeps how each run ended, and its key", function ()
    local run = job()
    commit { kind = "finish", run = run, state = "completed", file = { name = "f", bytes = 100, crc = 1 } }
    assert.equal(100, l.result_bytes)
    local facts = commit { kind = "drop", runs = { run } }
    assert.same({ "result_dropped", "f" }, { facts[1].kind, facts[1].file })
    assert.same({ 0, "completed", true }, { l.result_bytes, l:run(run).state, l:run(run).dropped })
    assert.equal(run, l:of_key("k").run)
  end)

  it("its clock never goes back, and runs begin and end by it", function ()
    now_ms = 5000
    local run = job()
    now_ms = 3000 -- A leader whose wall clock was set back.
    commit { kind = "finish", run = run, state = "completed", result = "" }
    assert.same({ 5000, 5000, 5000 }, { l.clock_ms, l:run(run).started_ms, l:run(run).ended_ms })
  end)

  it("lists attempts and incidents to a limit, and says how many it left out", function ()
    local run = job()
    local names = {}
    for i = 1, 600 do names[i] = "w/" .. i end
    cut(run, names, 0)
    for i = 1, 600 do
      local d = place(run, names[i], "x")[1]
      commit { kind = "ended", run = run, part = names[i], fence = d.fence, state = "completed",
        result = msgpack.pack { stats = {}, incidents = { { id = "i" .. i, node = "n", site = "s", level = "error", message = "m" } } } }
    end
    local entry = l.runs[run]
    assert.same({ 500, 100, 100 }, { #entry.attempts, entry.left_out, #entry.incidents })
    assert.is_nil(entry.parts["w/1"].history)
  end)

  --- A ledger with runs in every state.
  local function varied()
    local runs = {}
    for i = 1, 9 do
      now_ms = now_ms + 10
      local run = job("k" .. i)
      runs[i] = run
      cut(run, { "w/1", "w/2" })
      local d = place(run, "w/1", "x" .. i % 3)[1]
      if i % 3 == 0 then lose(run, "w/1", d.fence, { progress = { requests = 3 } }) end
      if i % 3 == 1 then
        local sum = stats.recorder()
        sum:check("c", true)
        commit { kind = "ended", run = run, part = "w/1", fence = d.fence, state = "completed", result = result(sum:export(5)) }
      end
      if i % 4 == 0 then commit { kind = "cancel", run = run, reason = "r", state = "cancelled" } end
      if i == 5 then commit { kind = "finish", run = run, state = "failed", result = "r", gave_up = true } end
    end
    return runs
  end

  it("F72: gives equal bytes for equal states, and the same state back", function ()
    varied()
    local bytes, other = bytes_of(l:snapshot()), ledger.new()
    other:restore(bytes)
    for _, field in ipairs { "past", "clock_ms", "ended", "keys", "jobs", "handing", "executors", "files", "inline_bytes",
      "result_bytes", "live", "live_bytes" } do
      assert.same(l[field], other[field], field)
    end
    assert.equal(bytes, bytes_of(other:snapshot()))
    assert.is_nil(l.saving)
  end)

  it("F72: a snapshot taken while commands go on holds the instant at which it began", function ()
    local runs, uncut = varied(), job "uncut"
    local whole = bytes_of(l:snapshot())
    local make, pieces = l:snapshot(), {}
    local at = index
    commit { kind = "cancel", run = runs[1], reason = "later", state = "cancelled" }
    commit { kind = "finish", run = runs[2], state = "failed", result = "later", gave_up = true }
    commit { kind = "finish", run = runs[1], state = "cancelled", result = "later", gave_up = true } -- Changed once more.
    commit { kind = "forget", runs = { { run = runs[5], index = l:run(runs[5]).index } } }
    commit { kind = "cancel", run = (job "new"), reason = "at once", state = "cancelled" }
    cut(uncut, { "w/1", "w/2" })
    place(uncut, "w/1", "x")
    for piece in make do pieces[#pieces + 1] = piece end
    local one, two = ledger.new(), ledger.new()
    one:restore(whole)
    two:restore(table.concat(pieces))
    assert.is_true(index > at)
    assert.equal(bytes_of(one:snapshot()), bytes_of(two:snapshot()))
    assert.same({ "running", {} }, { two.runs[runs[1]].state, two.runs[uncut].parts })
    assert.is_nil(two:of_key "new")
    assert.is_nil(l.saving)
  end)

  it("F72: a large run is packed in several pieces, and what changes between them is packed as it was", function ()
    local run, names = job(), {}
    for i = 1, 2500 do names[i] = "w/" .. i end
    cut(run, names)
    local whole = bytes_of(l:snapshot())
    local make, pieces = l:snapshot(), {}
    for step = 1, 3 do
      pieces[step] = make()
      local d = place(run, "w/" .. 900 * step, "x")[1] -- One that is packed already, and two that are not.
      commit { kind = "ended", run = run, part = d.part, fence = d.fence, state = "completed", result = result {}, progress = { requests = 1 } }
    end
    commit { kind = "place", splits = { { run = run, workflow = "v", retries = 0, parts = { { part = "v/1", share = {}, cores = 1 } } } } }
    commit { kind = "cancel", run = run, reason = "later", state = "cancelled" }
    for piece in make do pieces[#pieces + 1] = piece end
    assert.is_true(#pieces >= 4)
    local one, two = ledger.new(), ledger.new()
    one:restore(whole)
    two:restore(table.concat(pieces))
    assert.equal(bytes_of(one:snapshot()), bytes_of(two:snapshot()))
    assert.equal("pending", two.runs[run].parts["w/1800"].state)
    assert.is_nil(two.runs[run].parts["v/1"])
  end)

  it("packs a large state in several pieces", function ()
    for i = 1, 300 do job("k" .. i) end
    local count = 0
    for _ in l:snapshot() do count = count + 1 end
    assert.is_true(count >= 4, count .. " pieces")
  end)

  it("raises on a command that is not one of its own", function ()
    assert.error_matches(function () l:apply(1, ledger.encode { kind = "surprise" }) end, 'entry 1: unknown command "surprise"')
    assert.error_matches(function () l:apply(1, "\xc1") end, "entry 1")
    assert.error_matches(function () l:restore "" end, "it is empty")
  end)
end)
