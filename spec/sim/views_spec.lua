--- What a leader answers about its jobs: times that go on over restarts, filters of a list, and whose job a key is.
local followed = require "spec.support.followed"
local simcluster = require "spec.support.simcluster"

local submitted, ended = followed.submitted, followed.ended

local function ask(c, name, body)
  local reply, err, code
  for _ = 1, 3 do -- Its connection may have been to a life of the leader that ended.
    reply, err, code = c:on(c.client, "return state.client:call(...)", name, body)
    if reply or code == "CONFLICT" then break end
    c:run(500)
  end
  return reply, err, code
end

describe("views:", function ()
  it("A15: times of a job go on when its gate is killed and comes back; C4: while it runs, status has them and its executions", function ()
    local c <close> = simcluster.new { gates = 1, set = { retention_ms = 60000 } }
    local g = c.gates[1]
    local id = submitted(c, c:job({ one = { work = "one 9000" } }, { timeout_ms = 30000 }))
    c:run(3000)
    local before = ask(c, "job.get", { job = id }).detail
    assert.is_true(before.elapsed_ms >= 3000 and before.elapsed_ms < 3500, before.elapsed_ms)
    assert.is_true(before.started_ms - before.submitted_ms < 500)
    assert.same({ 30000, 1, 0 }, { before.limit_ms, before.executions, before.retries })
    assert.equal("running", before.parts[1].state)
    c:crash(g)
    c:run(2000)
    c:restart(g)
    c:run(1000)
    local after = ask(c, "job.get", { job = id }).detail
    assert.is_true(after.elapsed_ms >= 5900, after.elapsed_ms)
    assert.same({ before.submitted_ms, before.started_ms }, { after.submitted_ms, after.started_ms })
    local final = ended(c, id, "completed")
    assert.is_true(final.result.elapsed_ms >= 9000 and final.result.elapsed_ms < 12000, final.result.elapsed_ms)
    local result = ask(c, "job.get", { job = id }).detail.result
    assert.is_true(result.ended_ms - result.submitted_ms >= 9000)
    assert.equal(before.submitted_ms, result.submitted_ms)
  end)

  it("A15: a time limit counts from the submission, over a restart of the leader", function ()
    local c <close> = simcluster.new { set = { retention_ms = 60000 } }
    local m = c.managers[1]
    local id = submitted(c, c:job({ one = { work = "one 60000" } }, { timeout_ms = 8000 }))
    c:run(5000)
    c:crash(m)
    c:restart(m)
    local from = c.s:now_ms()
    ended(c, id, "timed_out")
    assert.is_true(c.s:now_ms() - from < 6000, c.s:now_ms() - from)
  end)

  it("B11: a key that is known is of one content: the same follows, another is refused, before and after a restart and its end", function ()
    local c <close> = simcluster.new { set = { retention_ms = 600000 } }
    local m = c.managers[1]
    local one, other = c:job { one = { work = "one 100" } }, c:job { one = { work = "one 101" } }
    local id = assert(c:submit(one, "k"))
    local function check()
      assert.equal(id, ask(c, "job.submit", { key = "k", spec = one }).job)
      local reply, err, code = ask(c, "job.submit", { key = "k", spec = other })
      assert.same({ nil, "CONFLICT" }, { reply, code })
      assert.matches(('the key "k" is of %s, which is another job'):format(id:gsub("%-", "%%-")), err)
    end
    check()
    c:watch(id)
    ended(c, id, "completed")
    check()
    c:crash(m)
    c:restart(m)
    c:run(3000)
    check()
    c:on(m, "state.lead.ledger:restore(...)", c:on(m, [[ local pieces = {}
      for piece in state.lead.ledger:snapshot() do pieces[#pieces + 1] = piece end
      return table.concat(pieces) ]]))
    check()
  end)

  it("C4: lists jobs with their times and submitters, by state, name and age, and says how many it left out", function ()
    local c <close> = simcluster.new { set = { retention_ms = 600000 } }
    local function job(name, work) return c:job({ one = { work = work } }, { name = name }) end
    local first = assert(ask(c, "job.submit", { key = "1", spec = job("red", "one 10"), origin = ("u"):rep(200) })).job
    c:run(5000)
    local second = assert(ask(c, "job.submit", { key = "2", spec = job("blue", "one 10"), origin = "you@here" })).job
    c:run(2000)
    local third = assert(ask(c, "job.submit", { key = "3", spec = job("reddish", "one 90000") })).job
    c:run(1000)
    local function ids(filter)
      local reply, out = assert(ask(c, "job.list", filter)), {}
      for i, j in ipairs(reply.jobs) do out[i] = j.job end
      return out, reply
    end
    local all, reply = ids {}
    assert.same({ first, second, third }, all)
    assert.same({ ("u"):rep(128), "you@here" }, { reply.jobs[1].origin, reply.jobs[2].origin })
    for _, j in ipairs { reply.jobs[1], reply.jobs[2] } do
      assert.is_true(j.submitted_ms <= j.started_ms and j.started_ms < j.ended_ms and j.ended_ms <= reply.now_ms)
    end
    assert.same({ "running" }, { reply.jobs[3].state, reply.jobs[3].ended_ms })
    assert.same({ third }, (ids { state = "running" }))
    assert.same({ first, third }, (ids { name = "red" }))
    assert.same({ first }, (ids { name = "red", state = "completed" }))
    assert.same({ second, third }, (ids { within_ms = 4000 }))
    all, reply = ids { limit = 1 }
    assert.same({ { third }, 2 }, { all, reply.more })
    all, reply = ids { name = "red", limit = 1 }
    assert.same({ { third }, 1 }, { all, reply.more })
    assert.same({}, (ids { limit = 0 }))
    ask(c, "job.cancel", { job = third })
  end)
end)
