--- Scenario families (SCENARIOS.md) through the unmodified roles in virtual time: intake, dispatch, execution, progress, results.
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local USERS = [[return { vu = function (vu) vu:sleep(100) end }]]

local function executors(c, leader)
  local look = assert(c:ask(leader, "look"))
  return look.lead.executors
end

local function submitted(c, spec, key)
  local id = assert(c:submit(spec, key))
  c:watch(id)
  return id
end

local function ended(c, id, state, limit_ms)
  local final
  if not c:until_true(function () final = c:final(id) return final end, limit_ms or 120000, 100) then
    error("the job did not end: " .. require("cjson").encode(c:states(id)), 2)
  end
  assert.equal(state or "completed", final.state, final.reason)
  return final
end

local function attempts(final, state)
  local out = {}
  for _, a in ipairs(final.result.attempts) do
    if not state or a.state == state then out[#out + 1] = a end
  end
  return out
end

--- Two datacenters under one gate.
local function t3(options)
  options = options or {}
  options.gates, options.dcs, options.workers = 1, options.dcs or { "a", "b" }, options.workers or 2
  return simcluster.new(options)
end

describe("workers come and go:", function ()
  it("F04: cores are recorded; leaving or dying empties the leader's tables of a worker; it can come back", function ()
    local c <close> = simcluster.new { workers = 3, set_worker = { cores = 6 } }
    local m = c.managers[1]
    local found = executors(c, m)
    assert.same({ "w-a1", "w-a2", "w-a3" }, sorted.keys(found))
    for _, e in sorted(found) do assert.same({ 6, 0, "up" }, { e.cores, e.claimed, e.state }) end
    c.s:signal(c.workers[1], "TERM")
    assert.truthy(c:until_true(function () return not executors(c, m)["w-a1"] end, 3000), "left")
    c:crash(c.workers[2])
    assert.truthy(c:until_true(function () return not executors(c, m)["w-a2"] end, 20000), "died")
    assert.same({ "w-a3" }, sorted.keys(executors(c, m)))
    c:restart(c.workers[2])
    assert.truthy(c:until_true(function () local e = executors(c, m)["w-a2"] return e and e.state == "up" end, 5000))
    c:complete(c:job { load = { vus = 4, iterations = 40 } })
    c:rest()
  end)

  it("F04, F61: a worker that does not answer who asks it is asked again with growing waits, not in step", function ()
    local c <close> = simcluster.new { workers = 0 }
    local m = c.managers[1]
    -- A member without a transport: it is known, but no call to it succeeds.
    c:on(m, [[ node.script.members = nil state.lead:hear("w-a9", "10.0.9.9:7000", 4, 1) ]])
    c:run(20000)
    local asked, raised = c:incidents(m, "lead.ask"), c:counts(m, "lead.ask").raised
    assert.is_true(raised >= 3 and raised <= 20, raised .. " in 20 s")
    assert.equal("address executor", table.concat(sorted.keys(asked[1].ids), " "))
    assert.equal("known", executors(c, m)["w-a9"].state) -- It gets no work.
  end)

  it("F11, F42: a dead worker's attempt is lost by name and runs elsewhere once; nothing of the worker stays with the leader", function ()
    local c <close> = simcluster.new { workers = 3 }
    local id = submitted(c, c:job { load = { code = USERS, vus = 6, duration_ms = 4000 } })
    c:run(1500)
    c:crash(c.workers[2])
    local final = ended(c, id)
    local lost = attempts(final, "lost")
    assert.equal(1, #lost)
    assert.equal("w-a2", lost[1].executor)
    assert.truthy(lost[1].reason:find("w-a2", 1, true))
    assert.is_true(lost[1].stats.iterations > 0)
    for _, a in ipairs(attempts(final, "completed")) do
      if a.part == lost[1].part then assert.same({ 2, true }, { a.attempt, a.executor ~= "w-a2" }) end
    end
    assert.equal(4, #final.result.attempts)
    c:rest()
    local named = c:on(c.managers[1], [[
      local out = {}
      for _, t in ipairs { state.lead.executors.byname, state.lead.runs, state.reports.leaders } do
        for key in next, t do if tostring(key):find "w%-a2" then out[#out + 1] = key end end
      end
      return out
    ]])
    assert.same({}, named)
  end)

  it("F42: without a retry left the job fails, with the dead worker's name in its reason, up to the client over a gate", function ()
    local c <close> = t3 { workers = 1 }
    local id = submitted(c, c:job { load = { code = USERS, vus = 2, duration_ms = 5000, retries = 0 } })
    c:run(1500)
    c:crash(c.workers[1])
    local final = ended(c, id, "failed")
    assert.truthy(final.reason:find("w-a1", 1, true), final.reason)
    c:rest()
  end)
end)

describe("intake and dispatch:", function ()
  it("F28: a job goes to the datacenters it names, to all when it names none, and is told per datacenter", function ()
    local c <close> = t3()
    local one = c:complete(c:job({ load = { vus = 4, iterations = 40 } }, { datacenters = { "b" } }))
    for _, a in ipairs(one.result.attempts) do assert.equal("b", a.dc) end
    local both, id = c:complete(c:job { load = { vus = 4, iterations = 41 } })
    local by_dc = {}
    for _, a in ipairs(both.result.attempts) do by_dc[a.dc] = (by_dc[a.dc] or 0) + a.stats.requests end
    assert.same({ a = 21, b = 20 }, by_dc)
    c:check_counts(id, both)
    local refused, _, code = c:submit(c:job({ load = { vus = 1, iterations = 1 } }, { datacenters = { "nowhere" } }))
    assert.same({ nil, "CONFIG" }, { refused, code })
    c:rest()
  end)

  it("F28, F74: a gate that restarts waits for its datacenters: each keeps its share of what comes next", function ()
    local c <close> = t3 { workers = 1, set = { retention_ms = 30000 } }
    local id = submitted(c, c:job { first = { code = USERS, vus = 2, duration_ms = 6000 },
      second = { after = { "first" }, vus = 2, iterations = 20 } })
    c:run(3500)
    c:crash(c.gates[1])
    c:run(2600) -- `first` is about to end, or has.
    c:restart(c.gates[1])
    local final = ended(c, id)
    local by_dc = {}
    for _, a in ipairs(final.result.attempts) do
      assert.equal(1, a.attempt)
      by_dc[a.workflow .. " " .. a.dc] = (by_dc[a.workflow .. " " .. a.dc] or 0) + 1
    end
    assert.same({ ["first a"] = 1, ["first b"] = 1, ["second a"] = 1, ["second b"] = 1 }, by_dc)
    c:rest()
  end)

  it("F28, F74: a gate that restarts splits nothing among those that were the first to come back", function ()
    local c <close> = t3 { workers = 1, set = { retention_ms = 30000 } }
    local id = submitted(c, c:job { first = { work = "first 3000" }, second = { after = { "first" }, vus = 2, iterations = 20 } })
    c:run(2900)
    c:crash(c.gates[1])
    c:cut(c.gates[1], c.managers[2])
    c:run(300) -- `first` has ended.
    c:restart(c.gates[1])
    c:run(1200)
    c:heal(c.gates[1], c.managers[2])
    local final, dcs = ended(c, id), {}
    for _, a in ipairs(final.result.attempts) do
      if a.workflow == "second" then dcs[#dcs + 1] = a.dc end
    end
    table.sort(dcs)
    assert.same({ "a", "b" }, dcs)
    c:rest()
  end)

  it("F28, F31: a job submitted the moment a gate is back is not refused for datacenters that had no time to register", function ()
    local c <close> = t3 { workers = 1 }
    c:crash(c.gates[1])
    c:run(500)
    c:restart(c.gates[1])
    local id = submitted(c, c:job({ load = { vus = 2, iterations = 20 } }, { datacenters = { "a", "b" } }))
    assert.equal(20, ended(c, id).result.stats.requests)
    c:rest()
  end)

  it("F29, F42: a part that comes back to its datacenter after a cut goes by a name of its own: the target's log tells them apart", function ()
    local c <close> = t3 { dcs = { "a" }, workers = 1, set = { fence_ms = 10000, dc_silent_ms = 10000 } }
    local id = submitted(c, c:job { load = { vus = 2, iterations = 300 } })
    c:run(1500)
    c:cut(c.gates[1], c.managers[1])
    c:run(14000) -- The gate has given the datacenter up, and its worker works on.
    c:heal(c.gates[1], c.managers[1])
    local final = ended(c, id)
    local done = attempts(final, "completed")
    assert.equal(1, #done)
    assert.truthy(done[1].part:find "^load/a/%d+%.1$", done[1].part)
    assert.equal("load/a", attempts(final, "lost")[1].part)
    assert.equal(300, final.result.stats.requests)
    assert.same({ 300, true }, { c.hits[id][("%s %d"):format(done[1].part, done[1].attempt)], c.hits[id]["load/a/1 1"] > 0 })
    c:rest { ms = 60000 }
  end)

  it("F29: a manager that refuses: the part runs elsewhere, once", function ()
    local c <close> = t3 { workers = 1 }
    c:on(c.managers[1], [[ node.rpc.handlers["part.dispatch"] = function () return nil, "closed today", "REFUSED" end ]])
    local final = c:complete(c:job { one = { work = "one 50" } })
    assert.equal("completed", final.state, final.reason)
    assert.equal(1, c.ran.one)
    assert.equal("b", attempts(final, "completed")[1].dc)
    c:rest()
  end)

  it("F29: all managers refuse: an explicit error after patient tries, not a hang and not a storm", function ()
    local c <close> = t3 { workers = 1 }
    for _, m in ipairs(c.managers) do
      c:on(m, [[ node.rpc.handlers["part.dispatch"] = function () node.spec_refused = (node.spec_refused or 0) + 1
        return nil, "closed today", "REFUSED" end ]])
    end
    local began = c.s:now_ms()
    local final = c:complete(c:job { one = { work = "one 50" } }, nil, 200000)
    assert.equal("failed", final.state)
    assert.truthy(final.reason:find("closed today", 1, true), final.reason)
    assert.is_nil(c.ran.one)
    local tries = 0
    for _, m in ipairs(c.managers) do tries = tries + (c:on(m, "return node.spec_refused") or 0) end
    assert.is_true(tries >= 10 and tries <= 25, tries .. " tries")
    assert.is_true(c.s:now_ms() - began > 10000) -- They were spread.
    c:rest()
  end)

  it("F29: a dead manager: its part runs in the other datacenter, and none runs twice", function ()
    local c <close> = t3 { workers = 1, set = { dc_silent_ms = 10000 } }
    c:crash(c.managers[1])
    local final = c:complete(c:job { one = { work = "one 50" }, two = { work = "two 50" } })
    assert.equal("completed", final.state, final.reason)
    assert.same({ 1, 1 }, { c.ran.one, c.ran.two })
    c:rest { ms = 10000 } -- The cancels of what it may run have a deadline.
  end)

  it("F29: a silent manager: its part runs elsewhere; what it took meanwhile does not count and is ended when it is heard", function ()
    local c <close> = t3 { workers = 1 }
    c:cut(c.gates[1], c.managers[1], true) -- It can send and does not receive.
    local id = submitted(c, c:job({ load = { vus = 2, iterations = 20 } }))
    c:run(25000)
    c:heal(c.gates[1], c.managers[1], true)
    local final = ended(c, id)
    assert.equal(20, final.result.stats.requests)
    c:check_counts(id, final)
    c:rest { ms = 40000 }
  end)

  it("F31: a thousand submissions of one key at once: one run, one answer", function ()
    local c <close> = simcluster.new { gates = 1, workers = 1 }
    local spec = c:job { one = { work = "one 500" } }
    c:on(c.client, [[
      local spec = ...
      node.spec_ids, node.spec_answers = {}, 0
      for _ = 1, 1000 do
        node.scope:spawn("spec.submit", {}, function ()
          local id, err, code = state.client:submit(spec, "the key", 30000)
          node.spec_answers = node.spec_answers + 1
          local said = id or tostring(code)
          node.spec_ids[said] = (node.spec_ids[said] or 0) + 1
        end)
      end
    ]], spec)
    assert.truthy(c:until_true(function () return c:on(c.client, "return node.spec_answers") == 1000 end, 60000))
    local ids = c:on(c.client, "return node.spec_ids")
    assert.equal(1, #sorted.keys(ids), table.concat(sorted.keys(ids), " "))
    local id = sorted.keys(ids)[1]
    assert.equal(1000, ids[id])
    c.jobs[id] = {}
    c:watch(id)
    ended(c, id)
    assert.equal(1, c.ran.one)
    c:rest()
  end)

  it("F31: the same over a crash and restart of the gate in their midst", function ()
    local c <close> = simcluster.new { gates = 1, workers = 1, set = { retention_ms = 60000 } }
    local spec = c:job { one = { work = "one 500" } }
    c:on(c.client, [[
      local spec = ...
      local task = require "shoal.task"
      node.spec_ids, node.spec_answers = {}, 0
      for i = 1, 1000 do
        node.scope:spawn("spec.submit", {}, function ()
          task.sleep(i)
          local id, err, code = state.client:submit(spec, "the key", 60000)
          node.spec_answers = node.spec_answers + 1
          local said = id or tostring(code)
          node.spec_ids[said] = (node.spec_ids[said] or 0) + 1
        end)
      end
    ]], spec)
    c:run(300)
    c:crash(c.gates[1])
    c:run(2000)
    c:restart(c.gates[1])
    assert.truthy(c:until_true(function () return c:on(c.client, "return node.spec_answers") == 1000 end, 100000, 200))
    local ids = c:on(c.client, "return node.spec_ids")
    assert.equal(1, #sorted.keys(ids), table.concat(sorted.keys(ids), " "))
    local id = sorted.keys(ids)[1]
    c.jobs[id] = {}
    c:watch(id)
    ended(c, id)
    assert.equal(1, c.ran.one)
    c:rest()
  end)
end)

describe("dispatch and execution at workers:", function ()
  it("F35: cores are claimed whole, never over; who waits runs when they are free; at rest all are free", function ()
    local c <close> = simcluster.new { workers = 2 } -- 4 cores each
    local ids = {}
    for i, cores in ipairs { 3, 3, 4, 1, 2, 1, 4 } do
      ids[i] = submitted(c, c:job { [("j%d"):format(i)] = { work = ("j%d 300"):format(i), cores = cores } })
    end
    local most = 0
    assert.truthy(c:until_true(function ()
      c:check()
      local sum, all = 0, true
      for _, w in ipairs(c.workers) do sum = sum + c:ask(w, "look").worker.claimed end
      most = math.max(most, sum)
      for _, id in ipairs(ids) do all = all and c:final(id) ~= nil end
      return all
    end, 20000, 10))
    assert.is_true(most >= 6 and most <= 8, "at most " .. most)
    for i, id in ipairs(ids) do
      assert.equal("completed", c:final(id).state, c:final(id).reason)
      assert.equal(1, c.ran["j" .. i])
    end
    c:rest()
  end)

  it("F35: two leaders share a worker: it refuses what it has no cores for, and that waits for its turn", function ()
    local c <close> = simcluster.new { managers = 2, workers = 1 }
    local id = submitted(c, c:job { long = { work = "long 3000", cores = 3 } })
    c:run(500)
    local other = c:on(c.client, "return node.rpc:peer(...):call('job.submit', { key = 'other', spec = (select(2, ...)) }).job",
      c.managers[2].address, c:job { short = { work = "short 200", cores = 3 } })
    c.jobs[other] = {}
    c:run(1000)
    assert.equal(3, c:ask(c.workers[1], "look").worker.claimed)
    assert.is_nil(c.ran.short)
    local refused = c:incidents(c.managers[2], "lead.dispatch")
    assert.equal("FULL", refused[1].code)
    ended(c, id)
    assert.truthy(c:until_true(function () return c.ran.short end, 20000))
    c:run(2000)
    assert.same({ 1, 1 }, { c.ran.long, c.ran.short })
    c:rest()
  end)

  it("F36: the worker with the most free cores is chosen, a full one never; each dispatch has a greater fence", function ()
    local c <close> = simcluster.new { workers = 4 }
    for _, w in ipairs(c.workers) do
      c:on(w, [[ local real = node.rpc.handlers["part.dispatch"]
        node.spec_fences = {}
        node.rpc.handlers["part.dispatch"] = function (body, peer)
          local f = node.spec_fences
          local answer, err, code = real(body, peer)
          f[#f + 1] = { fence = body.fence, part = body.part, ok = answer ~= nil, code = code }
          return answer, err, code
        end ]])
    end
    local ids = {}
    for i = 1, 20 do
      ids[i] = submitted(c, c:job { one = { work = "one 1000" } })
      c:run(10)
      local least, greatest = math.huge, 0
      for _, w in ipairs(c.workers) do
        local claimed = c:ask(w, "look").worker.claimed
        least, greatest = math.min(least, claimed), math.max(greatest, claimed)
      end
      assert.is_true(greatest - least <= 1, "uneven after " .. i)
    end
    for _, id in ipairs(ids) do ended(c, id) end
    local all = {}
    for _, w in ipairs(c.workers) do
      local last = 0
      for _, d in ipairs(c:on(w, "return node.spec_fences")) do
        assert.is_true(d.ok, d.code) -- No executor without a free core was called.
        assert.is_true(d.fence > last)
        last = d.fence
        assert.is_nil(all[d.fence])
        all[d.fence] = true
      end
    end
    assert.equal(20, #sorted.keys(all))
    c:rest()
  end)

  for _, case in ipairs {
    { "the answer to a dispatch is late, and comes after the completion",
      'local a, b, d = real(body, peer) require("shoal.task").sleep(4000) return a, b, d' },
    { "a dispatch comes twice", "local first = real(body, peer) assert(real(body, peer)) return first" },
    { "a dispatch comes again after the part has ended", [[
      local first = real(body, peer)
      node.scope:spawn("spec.again", {}, function ()
        require("shoal.task").sleep(3000)
        local again, err, code = real(body, peer)
        node.spec_again = { taken = again ~= nil, code = code }
      end)
      return first]] },
  } do
    it(("F37: %s: one run, right cores"):format(case[1]), function ()
      local c <close> = simcluster.new { set = { fence_ms = 5000 } }
      local w = c.workers[1]
      c:on(w, ([[ local real = node.rpc.handlers["part.dispatch"]
        node.rpc.handlers["part.dispatch"] = function (body, peer) %s end ]]):format(case[2]))
      local final = c:complete(c:job { one = { work = "one 700" } })
      assert.equal("completed", final.state, final.reason)
      assert.equal(1, #final.result.attempts)
      assert.equal(1, c.ran.one)
      c:run(5000)
      local again = c:on(w, "return node.spec_again")
      if again then assert.same({ taken = false, code = "STALE" }, again) end
      assert.equal(1, c.ran.one)
      c:rest { ms = 8000 }
    end)
  end

  it("F37: the answer to a dispatch never comes: it is sent again with the same fence, and there is one run", function ()
    local c <close> = simcluster.new { workers = 1, managers = 3 }
    local m, w = c.managers[1], c.workers[1]
    local id = submitted(c, c:job { one = { work = "one 9000" } })
    assert.truthy(c:until_true(function () return next(c:ask(w, "look").worker.runs) end, 5000, 1))
    c:cut(w, m, true) -- The dispatch has arrived, its answer does not.
    c:run(4000)
    c:heal(w, m, true)
    local final = ended(c, id)
    assert.equal(1, #final.result.attempts)
    assert.equal(1, c.ran.one)
    c:rest { ms = 15000 }
  end)

  it("F40: a command that fails fails its workflow and job with a reason; what waited for it is skipped; cores come back", function ()
    local c <close> = simcluster.new {}
    local final = c:complete(c:job { first = { work = "first 50" }, bad = { after = { "first" }, work = "bad 50 7" },
      never = { after = { "bad" }, work = "never 50" } })
    assert.equal("failed", final.state)
    assert.truthy(final.reason:find("bad/1", 1, true) and final.reason:find("status 7", 1, true), final.reason)
    assert.same({ 1, 1, nil }, { c.ran.first, c.ran.bad, c.ran.never })
    local states = {}
    for _, w in ipairs(final.result.workflows) do states[w.workflow] = w.state end
    assert.same({ first = "completed", bad = "failed", never = "skipped" }, states)
    c:rest()
  end)

  --- 40 users, of which `bad` call a shop that always fails, in two datacenters under a gate.
  local function mixed(c, bad, more)
    local code = ([[return { vu = function (vu)
      vu.http:get(vu.iteration %% 20 < %d and "http://broken/x" or "http://shop/x")
    end }]]):format(bad)
    local load = { code = code, vus = 40, iterations = 400, max_failed_share = more }
    return c:complete(c:job { load = load, after_it = { after = { "load" }, work = "after_it 50" } })
  end

  for _, gates in ipairs { 0, 1 } do
    it(("F40: requests that fail are counted and fail no job; with max_failed_share they do beyond it%s"):format(
      gates > 0 and ", over a gate" or ""), function ()
      local c <close> = gates > 0 and t3() or simcluster.new { workers = 2 }
      c.s:http("broken", function () return { status = 503 } end)
      assert.equal("completed", mixed(c, 20).state) -- All of them.
      assert.equal("completed", mixed(c, 5, 0.25).state) -- Exactly the share: not beyond it.
      local final = mixed(c, 6, 0.25)
      assert.equal("failed", final.state)
      assert.equal("load: 120 of 400 requests failed (30.0 %), and max_failed_share allows 25 %", final.reason)
      local states = {}
      for _, w in ipairs(final.result.workflows) do states[w.workflow] = w.state end
      assert.same({ load = "failed", after_it = "skipped" }, states)
      assert.equal("completed", mixed(c, 0, 0).state)
      c:rest()
    end)
  end

  it("F40: a final state absorbs: cancel and late words of a job that has ended change nothing", function ()
    local c <close> = simcluster.new { set = { retention_ms = 5000 } }
    local final, id = c:complete(c:job { one = { work = "one 50" } })
    assert.equal("completed", final.state)
    local reply = c:on(c.client, "return state.client:cancel(..., 'too late')", id)
    assert.equal("completed", reply.state)
    local late = c:on(c.workers[1], [[
      local job, leader = ...
      local peer = node.rpc:peer(leader)
      local p = { job = job, workflow = "one", part = "one/1", attempt = 1, fence = 4, seq = 999, stats = { requests = 7 } }
      assert(peer:call("part.progress", { parts = { p } }))
      p.seq, p.state, p.result = nil, "failed", require("shoal.core.msgpack").pack({})
      return peer:call("part.result", p)
    ]], id, c.managers[1].address)
    assert.is_true(late.stale)
    assert.equal("completed", c:on(c.client, "return state.client:call('job.get', { job = ... }).state", id))
    c:rest()
  end)
end)

describe("progress and results:", function ()
  it("F44: what a client sees of a part's counts never goes back, over loss and a dead worker", function ()
    local c <close> = t3 { loss = 0.05, seed = 5 }
    local id = assert(c:submit(c:job { load = { vus = 12, iterations = 800 } }))
    c:on(c.client, [[
      local id = ...
      node.spec_totals, node.spec_back, node.spec_updates = {}, {}, 0
      node.scope:spawn("spec.follow", {}, function ()
        node.spec_end = state.client:follow(id, { stats = function (body)
          node.spec_updates = node.spec_updates + 1
          for _, part in ipairs(body.parts) do
            local now, before = part.stats.requests or 0, node.spec_totals[part.part] or 0
            if now < before then node.spec_back[#node.spec_back + 1] = ("%s: %d after %d"):format(part.part, now, before) end
            node.spec_totals[part.part] = now
          end
        end })
      end)
    ]], id)
    c:run(1500)
    c:crash(c.workers[1])
    assert.truthy(c:until_true(function () return c:on(c.client, "return node.spec_end") end, 60000, 200))
    assert.same({}, c:on(c.client, "return node.spec_back"))
    assert.is_true(c:on(c.client, "return node.spec_updates") >= 8)
    c:rest()
  end)

  it("F44: progress that is old, doubled, of another fence or of no job changes no count and raises nothing", function ()
    local c <close> = simcluster.new {}
    local m, w = c.managers[1], c.workers[1]
    local id = submitted(c, c:job { load = { vus = 2, iterations = 200 } })
    c:run(2000)
    local answers = c:on(w, [[
      local job, leader = ...
      local ack = require "shoal.wire.ack"
      local run = state.worker.runs[job .. " load/1"]
      local out = {}
      for i, given in ipairs {
        { seq = 1, fence = run.body.fence, job = job }, { seq = 1, fence = run.body.fence, job = job },
        { seq = 99999, fence = run.body.fence - 1, job = job }, { seq = 1, fence = 1, job = "no such job" },
      } do
        local bytes, err, code = node.rpc:peer(leader):call("part.progress", { parts = { {
          job = given.job, workflow = "load", part = "load/1", attempt = 1, fence = given.fence, seq = given.seq,
          stats = { requests = 1000000 },
        } } })
        local parsed = bytes and ack.parse(bytes)
        out[i] = parsed and (parsed.unknown and "unknown" or parsed.stop and "stop" or "counts") or code
      end
      return out
    ]], id, m.address)
    assert.same({ "counts", "counts", "stop", "unknown" }, answers)
    local seen = c:on(m, "local a = state.lead.attempts:get(..., 'load/1') return { a.progress.requests, a.seq }", id)
    assert.is_true(seen[1] < 1000000 and seen[2] < 1000, "it counted")
    local final = ended(c, id)
    assert.equal(200, final.result.totals.requests)
    c:check_counts(id, final)
    assert.equal(0, c:counts(m, "rpc.handler").raised)
    c:rest()
  end)

  it("F44, F57: after a manager's restart its progress still counts at the gate, which does not take it for silent", function ()
    local c <close> = t3 { dcs = { "a" }, workers = 1, set_gate = { gate_silent_ms = 6000 } }
    local id = submitted(c, c:job { load = { code = USERS, vus = 2, duration_ms = 25000 } })
    c:run(9000) -- Numbers from 1 again would take as long to count.
    c:crash(c.managers[1])
    c:run(1000)
    c:restart(c.managers[1])
    local final = ended(c, id)
    assert.equal(1, #final.result.attempts, final.result.attempts[1].reason)
    c:rest()
  end)

  it("F51: results that come twice, of an older attempt, or of a cancelled job are applied once and not resent", function ()
    local c <close> = simcluster.new { workers = 2 }
    local m = c.managers[1]
    c:on(m, [[ local real = node.rpc.handlers["part.result"]
      node.rpc.handlers["part.result"] = function (body, peer)
        assert(real(body, peer))
        local again = assert(real(body, peer)) -- as if it had come twice
        node.spec_stale = (node.spec_stale or 0) + (again.stale and 1 or 0)
        body.fence = body.fence - 1
        assert(assert(real(body, peer)).stale)
        return again
      end ]])
    local final, id = c:complete(c:job { load = { vus = 4, iterations = 60 } })
    assert.equal("completed", final.state)
    assert.equal(60, final.result.stats.requests)
    c:check_counts(id, final)
    assert.equal(2, c:on(m, "return node.spec_stale"))
    c:rest()
  end)

  it("F51, F54: a result whose acceptance is lost is sent again; it is applied once", function ()
    local c <close> = simcluster.new { managers = 3 }
    local m, w = c.managers[1], c.workers[1]
    c:on(m, [[ local real, n = node.rpc.handlers["part.result"], 0
      node.rpc.handlers["part.result"] = function (body, peer)
        n = n + 1
        local answer, err, code = real(body, peer)
        if n <= 2 then return nil, "the answer was lost", "LOST" end
        return answer, err, code
      end ]])
    local final = c:complete(c:job { load = { vus = 2, iterations = 20 } })
    assert.equal(20, final.result.stats.requests)
    c:rest { ms = 6000 }
    assert.equal(2, c:counts(w, "worker.result.send").raised)
  end)

  it("F52: one global result; a failure in one datacenter fails the job by rule, the others' numbers are kept", function ()
    local c <close> = t3 { workers = 1 }
    local bad = [[return { vu = function (vu)
      vu.http:get("http://shop/x")
      if vu.part:find("/a/") then error("only here") end
    end }]]
    local final, id = c:complete(c:job { load = { code = bad, vus = 2, iterations = 20 } })
    assert.equal("failed", final.state)
    assert.truthy(final.reason:find("load/a", 1, true), final.reason)
    local states = {}
    for _, a in ipairs(final.result.attempts) do states[a.dc] = a.state end
    assert.same({ a = "failed", b = "completed" }, states)
    local finals = 0
    for _, p in ipairs(c:ask(c.client, "pushes", id)) do
      if p.kind == "result" and p.workflow == "" then finals = finals + 1 end
    end
    assert.equal(1, finals)
    c:rest()
  end)

  it("F52, F57: a datacenter that never answers is caught by the job's time; the rest of the result is told", function ()
    local c <close> = t3 { workers = 1, set = { dc_silent_ms = 60000 } }
    local id = submitted(c, c:job({ load = { vus = 2, iterations = 20 } }, { timeout_ms = 8000 }))
    c:run(300)
    c:cut(c.gates[1], c.managers[1])
    local final = ended(c, id, "timed_out")
    assert.is_true(final.result.stats.requests > 0)
    c:heal(c.gates[1], c.managers[1])
    c:rest { ms = 90000 }
  end)

  it("F53: after jobs that completed, failed, were cancelled and timed out no table of any node names them", function ()
    local c <close> = t3()
    local ids = {
      submitted(c, c:job { load = { vus = 4, iterations = 40 } }),
      submitted(c, c:job { bad = { work = "bad 100 1" } }),
      submitted(c, c:job { long = { code = USERS, vus = 2, duration_ms = 60000 } }),
      submitted(c, c:job({ slow = { code = USERS, vus = 2, iterations = 2000 } }, { timeout_ms = 1500 })),
    }
    c:run(1000)
    c:on(c.client, "return state.client:cancel(..., 'enough')", ids[3])
    for i, state in ipairs { "completed", "failed", "cancelled", "timed_out" } do ended(c, ids[i], state) end
    c:rest()
    assert.same({}, c:on(c.client, "local out = {} for id in next, state.client.jobs do out[#out + 1] = id end return out"))
  end)
end)
