--- Effects follow apply: the effects of a command run because it was applied, however its proposer's call returned; and a finish always
--- ends. Each case is a fault of an earlier build.
local followed = require "spec.support.followed"
local simcluster = require "spec.support.simcluster"

local USERS = simcluster.SHOP

local submitted, ended = followed.submitted, followed.ended

local function attempts_of(final, part)
  local out = {}
  for _, a in ipairs(final.result.attempts) do
    if not part or a.part == part then out[#out + 1] = a.state end
  end
  return out
end

describe("a tier that is slow or full:", function ()
  it("F51: a sync of 5.5 s at the end of a job tells nobody that a completed job was cancelled", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    local id = submitted(c, c:job { load = { vus = 4, iterations = 20, env = { PACE_MS = "300" } } })
    c:run(1000)
    c.s:disk(m, { sync_ms = 5500 })
    local final = ended(c, id, "completed")
    c.s:disk(m)
    assert.same({ "completed", 20 }, { final.result.state, final.result.stats.requests })
    local said = c:on(m, "local got = state.lead:get(...) return { got.state, got.result.state, got.result.stats.requests }", id)
    assert.same({ "completed", "completed", 20 }, said)
    c:check_counts(id, final)
    c:rest { ms = 20000 }
  end)

  it("F42: a worker's death that meets a full tier is settled as soon as there is room, not after the silence limit", function ()
    local c <close> = simcluster.new { workers = 2, set_worker = { cores = 10 }, set_manager = { cores = 10 } }
    local m = c.managers[1]
    local id = submitted(c, c:job { load = { code = USERS, vus = 20, parts = 20, iterations = 400, retries = 2, env = { PACE_MS = "200" } } })
    c:run(1500)
    c:on(m, "state.lead.tier.options.outstanding_max = 1")
    -- Others fill the one place of the tier, always.
    c:on(m, [[ for i = 1, 4 do
      node.scope:spawn("spec.fill", {}, function ()
        local ledger = require "shoal.job.ledger"
        for _ = 1, 400 do
          state.lead.tier:propose(ledger.encode { kind = "forget", runs = {} }, 5000)
          require("shoal.task").sleep(2)
        end
      end)
    end ]])
    local began = c.s:now_ms()
    c:crash(c.workers[1])
    assert.truthy(c:until_true(function ()
      return c:on(m, "return state.lead.ledger:count_on 'w-a1'") == 0
    end, 20000, 50), "attempts are left on the dead worker")
    assert.is_true(c.s:now_ms() - began < 12000, "it took " .. c.s:now_ms() - began)
    c:on(m, "state.lead.tier.options.outstanding_max = 1024")
    local final = ended(c, id, "completed")
    c:check_counts(id, final)
    c:rest { except = { ["w-a1"] = true }, ms = 20000 }
  end)

  it("F35: an end whose commit is UNKNOWN and applies before the retry leaks no core, and counts once", function ()
    for seed = 1, 3 do
      local c <close> = simcluster.new { seed = seed, set_worker = { cores = 2 } }
      local m = c.managers[1]
      local id = submitted(c, c:job { one = { work = "one 400" } })
      c:run(250)
      c.s:disk(m, { sync_ms = 5060 })
      local final = ended(c, id, "completed")
      c.s:disk(m)
      assert.equal(1, c.ran.one)
      assert.same({ "completed" }, attempts_of(final))
      c:run(12000)
      assert.equal(0, c:on(m, "return state.lead.ledger:load 'w-a1'"))
      assert.equal("completed", (c:complete(c:job { two = { work = "two 20", cores = 2 } })).state)
      c:rest()
    end
  end)

  it("F28: a submission whose create is UNKNOWN makes one job, which its client finds by the key", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    c.s:disk(m, { sync_ms = 6000 })
    local spec = c:job { one = { work = "one 50" } }
    c:on(c.client, [[ local spec = ...
      node.scope:spawn("spec.submit", {}, function () node.spec_id = state.client:submit(spec, "the key", 30000) end) ]], spec)
    assert.truthy(c:until_true(function () return c:on(c.client, "return node.spec_id") end, 40000, 100))
    c.s:disk(m)
    local id = c:on(c.client, "return node.spec_id")
    c.jobs[id] = { follows = 0 }
    ended(c, (function () c:watch(id) return id end)(), "completed")
    assert.equal(1, c.ran.one)
    assert.equal(1, c:on(m, "return #state.lead:list()"))
    c:rest { ms = 20000 }
  end)

  it("F37, F38: a refusal says nothing of an earlier try whose answer was lost: the part runs once, and counts", function ()
    for _, code in ipairs { "FULL", "REFUSED", "CONFIG" } do
      local c <close> = simcluster.new {}
      local m, w = c.managers[1], c.workers[1]
      c:on(w, [[ local code = ...
        local real, tries = node.rpc.handlers["part.dispatch"], 0
        node.rpc.handlers["part.dispatch"] = function (body, peer)
          tries = tries + 1
          if tries == 2 then return nil, "no room for it", code end
          local reply, err, word = real(body, peer)
          if tries == 1 then require("shoal.task").sleep(3500) end -- Taken, and its sender has given up waiting.
          return reply, err, word
        end ]], code)
      local id = submitted(c, c:job { one = { work = "one 6000", retries = 0 } })
      local final = ended(c, id, "completed")
      assert.equal(1, c.ran.one)
      assert.same({ "completed" }, attempts_of(final))
      assert.is_true(c:counts(m, "lead.dispatch").raised >= 2)
      c:rest { ms = 20000 }
    end
  end)

  it("F31: a part is dispatched to nobody who went while the placement was written", function ()
    local c <close> = simcluster.new { workers = 2, set_worker = { cores = 1 } }
    local m, w = c.managers[1], c.workers[1]
    c:on(m, [[ local choose = state.lead.options.placement.choose
      state.lead.options.placement.choose = function (part)
        if #part.history == 0 then return "w-a1" end
        return "w-a2"
      end ]])
    c.s:disk(m, { sync_ms = 800 })
    c:on(c.client, [[ local spec = ...
      node.scope:spawn("spec.submit", {}, function () node.spec_id = state.client:submit(spec, "k") end) ]],
      c:job { one = { work = "one 50", retries = 0 } })
    c:run(100) -- The placement is on its way to the disk.
    assert.is_true(c:on(m, "return state.lead.tier.queue_first == state.lead.tier.queue_last"))
    c:on(m, "node.script.members = nil state.lead:gone('w-a1', 'it went')") -- Nothing finds it again.
    c.s:disk(m)
    assert.truthy(c:until_true(function () return c:on(c.client, "return node.spec_id") end, 5000, 10))
    local id = c:on(c.client, "return node.spec_id")
    c:watch(id)
    local final = ended(c, id, "completed")
    assert.same({ "refused", "completed" }, attempts_of(final, "one/1"))
    assert.equal(1, c.ran.one)
    assert.equal(0, c:ask(w, "look").worker.claimed)
  end)
end)

describe("what a part, a policy or a script said:", function ()
  it("B4, F51: a malformed result is refused before it is durable, and the true one ends the job", function ()
    for _, poison in ipairs { "{ incidents = { 5 } }", "{ stats = { commands = { { run = 'x', head = 5 } } } }", "{ attempts = 'all' }",
      "{ stats = { latency = { x = 'no histogram' } } }", "5" } do
      local c <close> = simcluster.new {}
      local m, w = c.managers[1], c.workers[1]
      local id = submitted(c, c:job { one = { work = "one 1500" } })
      c:run(800)
      local code = c:on(w, ([[ local job, leader = ...
        local run = state.worker.runs[job .. " one/1"]
        local _, _, code = node.rpc:peer(leader):call("part.result", {
          job = job, workflow = "one", part = "one/1", attempt = 1, fence = run.body.fence, state = "completed", stats = {},
          result = require("shoal.core.msgpack").pack(%s) })
        return code ]]):format(poison), id, m.address)
      assert.equal("MALFORMED", code)
      ended(c, id, "completed")
      assert.equal(1, c:counts(m, "lead.result").raised)
      c:rest()
    end
  end)

  it("B10, F38: a retry policy that answers no boolean is an incident, and no part runs more often than retries + 1", function ()
    for _, answer in ipairs { "'no'", "{}", "function () end", "42", "error 'broken'" } do
      local c <close> = simcluster.new {}
      local m = c.managers[1]
      c:on(m, ("state.lead.options.retry.again = function () return %s end"):format(answer))
      local id = submitted(c, c:job { one = { work = "one 20 1", retries = 2 } }) -- Exits with status 1.
      ended(c, id, "failed")
      assert.is_true(c.ran.one <= 3, c.ran.one .. " executions")
      assert.is_true(c:counts(m, "policy.retry").raised >= 1)
      c:rest()
    end
  end)

  it("F38: a retry policy that always says yes runs no part more often than retries + 1, over both tiers together", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 1 }
    for _, node in ipairs { c.gates[1], c.managers[1], c.managers[2] } do
      c:on(node, "state.lead.options.retry.again = function () return true end")
    end
    local id = submitted(c, c:job { one = { work = "one 20 1", retries = 2 } })
    ended(c, id, "failed")
    assert.equal(3, c.ran.one)
    c:rest()
  end)

  it("F38: the policy hears which tier asks", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a" }, workers = 1 }
    for _, node in ipairs { c.gates[1], c.managers[1] } do
      c:on(node, [[ state.lead.options.retry.again = function (_, _, how, tier)
        error(how .. " at the " .. tostring(tier))
      end ]])
    end
    local id = submitted(c, c:job { one = { work = "one 20 1", retries = 2 } })
    ended(c, id, "failed")
    for node, tier in pairs { [c.gates[1]] = "gates", [c.managers[1]] = "managers" } do
      assert.truthy(c:incidents(node, "policy.retry")[1].message:find("failed at the " .. tier, 1, true))
    end
  end)

  it("B3: a decide that touched an incident harms no job", function ()
    local c <close> = simcluster.new {}
    for _, node in ipairs { c.managers[1], c.workers[1] } do
      c:on(node, [[ local e = require "shoal.base.errors"
        e.report("spec.x", {}, "one") ]])
    end
    local id = submitted(c, c:job { one = { work = "one 20" } })
    ended(c, id, "completed")
  end)

  it("F52: a driver that cannot finish ends its run as failed, with what it can say, and the next job is none the worse", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    c:on(m, [[ local outcome = require "shoal.job.outcome"
      local real = outcome.result
      outcome.result = function (o)
        if o.entry.name == "job" then error "no result can be made of this" end
        return real(o)
      end ]])
    local id = submitted(c, c:job { one = { work = "one 20" } })
    local final = ended(c, id, "failed")
    assert.truthy(final.reason:find("no result can be made of this", 1, true), final.reason)
    assert.equal("failed", final.result.state)
    ended(c, submitted(c, c:job({ one = { work = "two 20" } }, { name = "other" })), "completed")
    c:rest()
  end)

  it("F52: a split policy that is always wrong fails its run after a while, and says why", function ()
    local c <close> = simcluster.new {}
    c:on(c.managers[1], "state.lead.options.placement.split = function () return { { vus = 1 }, { vus = 1 } } end")
    local id = submitted(c, c:job { load = { vus = 4, iterations = 8 } })
    local final = ended(c, id, "failed", 90000)
    assert.truthy(final.reason:find("vus: 2 of 4 are placed", 1, true), final.reason)
    c:rest()
  end)
end)

describe("a new leader:", function ()
  it("B16, F57: goes on with a job's time: its limit and its elapsed time are the job's, not the leadership's", function ()
    local c <close> = simcluster.new { set = { retention_ms = 30000 } }
    local m = c.managers[1]
    local began = c.s:now_ms()
    local id = submitted(c, c:job({ load = { code = USERS, vus = 2, iterations = 2000 } }, { timeout_ms = 6000 }))
    c:run(4000)
    c:crash(m)
    c:run(300)
    c:restart(m)
    local final = ended(c, id, "timed_out")
    assert.is_true(c.s:now_ms() - began < 8500, "it took " .. c.s:now_ms() - began)
    assert.is_true(final.result.elapsed_ms >= 5900, "it says " .. final.result.elapsed_ms)
  end)

  it("B16, F62: waits for an executor before it takes silence for an answer to its cancel", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a" }, workers = 1, set = { retention_ms = 30000 } }
    local g = c.gates[1]
    local id = submitted(c, c:job { load = { code = USERS, vus = 2, duration_ms = 60000 } })
    c:run(2500)
    c:crash(g)
    c:run(200)
    c:restart(g)
    assert.truthy(c:until_true(function ()
      local look = c:ask(g, "look")
      return look and look.lead and look.lead.fence > 0
    end, 3000, 1))
    c:on(g, "local id = ... node.scope:spawn('spec.cancel', {}, function () state.lead:cancel(id, 'enough') end)", id)
    local final = ended(c, id, "cancelled")
    for _, a in ipairs(final.result.attempts) do assert.equal("cancelled", a.state, a.reason) end
    assert.equal(1, #final.result.attempts)
    assert.equal("load/a/1", final.result.attempts[1].part)
  end)

  it("D19, F10: takes no answer of an executor's earlier life for the new one's", function ()
    local c <close> = simcluster.new { set_worker = { cores = 2 } }
    local m, w = c.managers[1], c.workers[1]
    local id = submitted(c, c:job { load = { code = USERS, vus = 1, duration_ms = 4000, retries = 2 } })
    c:run(800)
    -- An ask is under way, whose answer (with the part) belongs to the life before: then the executor is another.
    c:on(m, [[ local e = state.lead.executors:get "w-a1"
      local call = getmetatable(node.rpc:peer(e.address)).__index.call
      local Peer = getmetatable(node.rpc:peer(e.address)).__index
      Peer.call = function (self, name, body, options)
        local reply, err, code = call(self, name, body, options)
        if name == "lead" then node.spec_asks = (node.spec_asks or 0) + 1 end
        if node.spec_asks == 1 then
          require("shoal.task").sleep(300) -- The answer is on its way while the worker dies and is back.
        end
        return reply, err, code
      end
      state.lead:hear(e.name, e.address, e.cores, e.generation + 1) ]])
    c:run(50)
    local epoch = c:on(m, "return state.lead.executors:get('w-a1').epoch")
    c:on(m, "local e = state.lead.executors:get 'w-a1' state.lead:hear(e.name, e.address, e.cores, e.generation + 1)")
    assert.equal(epoch + 1, c:on(m, "return state.lead.executors:get('w-a1').epoch"))
    c:run(100)
    assert.equal("known", c:on(m, "return state.lead.executors:get('w-a1').state"))
    assert.truthy(c:until_true(function () return c:on(m, "return state.lead.executors:get('w-a1').state") == "up" end, 3000, 10))
    assert.equal(2, c:on(m, "return node.spec_asks")) -- The new life was asked itself.
    ended(c, id, "completed")
    assert.equal("up", c:on(m, "return state.lead.executors:get('w-a1').state"))
    assert.equal(0, c:ask(w, "look").worker.claimed)
  end)

  it("F10: an executor that moves is another answerer: what the old address says no longer counts", function ()
    local executors = require "shoal.job.executors"
    local all = executors.new()
    local e = all:hear("w", "10.0.0.1:1", 4, 1)
    all:up(e)
    assert.same({ "up", 1 }, { e.state, e.epoch })
    local _, ask = all:hear("w", "10.0.0.2:1", 4, 1)
    assert.same({ true, "known", 2, "10.0.0.2:1" }, { ask, e.state, e.epoch, e.address })
    all:up(e)
    _, ask = all:hear("w", "10.0.0.2:1", 4, 1)
    assert.same({ false, "up", 2 }, { ask, e.state, e.epoch })
    _, ask = all:hear("w", "10.0.0.2:1", 4, 2)
    assert.same({ true, "known", 3 }, { ask, e.state, e.epoch })
    all:up(e)
    all:ask_again() -- A new leadership.
    assert.same({ "known", 4 }, { e.state, e.epoch })
    all:remove "w"
    assert.equal(e, all:get "w")
    assert.is_table(all:down("w", "it died"))
    assert.is_nil(all:down("w", "again"))
    all:ask_again()
    assert.equal("down", e.state)
    all:remove "w"
    assert.is_nil(all:get "w")
  end)

  it("B5, F57: a leader that did not run for 40 s takes nobody for silent", function ()
    local c <close> = simcluster.new { set_manager = { manager_silent_ms = 15000 } }
    local m = c.managers[1]
    local id = submitted(c, c:job { load = { code = USERS, vus = 2, duration_ms = 60000, retries = 0 } })
    c:run(3000)
    c.parted = true
    c.s:stall(m, 40000)
    local final = ended(c, id, "completed", 120000)
    assert.same({ "completed" }, attempts_of(final))
  end)
end)

describe("limits of a leader:", function ()
  it("F05: takes so many jobs, refuses the next with a reason and when to try again, and takes it when one has ended", function ()
    local c <close> = simcluster.new { set = { retention_ms = 30000 } }
    local m = c.managers[1]
    c:on(m, "state.lead.limits.runs = 2")
    local one = submitted(c, c:job { one = { work = "one 1500" } })
    submitted(c, c:job { one = { work = "two 3000" } })
    local id, err, code = c:submit(c:job { one = { work = "three 10" } }, "third", 100)
    assert.same({ nil, "OVERLOADED" }, { id, code })
    assert.truthy(err:find("leads 2 jobs", 1, true) and err:find("try again in 1000 ms", 1, true), err)
    ended(c, one, "completed")
    assert.is_string((c:submit(c:job { one = { work = "three 10" } }, "third", 100)))
  end)

  it("F05: takes so many bytes of jobs, and so many ended ones that are kept", function ()
    local c <close> = simcluster.new { set = { retention_ms = 30000 } }
    local m = c.managers[1]
    local spec = c:job { one = { work = "one 700" } }
    c:on(m, "state.lead.limits.run_bytes = ...", 2 * #spec)
    submitted(c, spec)
    submitted(c, spec)
    assert.equal("OVERLOADED", select(3, c:submit(spec, "third", 100)))
    c:on(m, "state.lead.limits.run_bytes, state.lead.limits.ended = 1 << 30, 2")
    c:run(2500)
    assert.equal("OVERLOADED", select(3, c:submit(spec, "fourth", 100)))
    c:on(m, "state.lead.limits.ended = 3")
    assert.is_string((c:submit(spec, "fourth", 100)))
  end)

  it("F47: pushes to so many clients, and refuses the next with a reason", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    c:on(m, "state.lead.limits.watchers = 0")
    local id = assert(c:submit(c:job { one = { work = "one 2000" } }))
    local _, err, code = c:on(c.client, "return state.client:call('job.watch', { job = ..., from_seq = 1 })", id)
    assert.equal("OVERLOADED", code)
    assert.truthy(err:find("0 clients watch jobs here already", 1, true), err)
    c:on(m, "state.lead.limits.watchers = 1")
    ended(c, (function () c:watch(id) return id end)(), "completed")
  end)

  it("F31, F53: makes room for results by bytes, the oldest first; the key and the state stay", function ()
    local c <close> = simcluster.new { set = { retention_ms = 60000 } }
    local m = c.managers[1]
    local ids, keys = {}, {}
    for i = 1, 4 do
      keys[i] = "key " .. i
      ids[i] = submitted(c, c:job { one = { work = "one 20" } }, keys[i])
      ended(c, ids[i], "completed")
    end
    local bytes = c:on(m, "return state.lead.ledger.result_bytes")
    c:on(m, "state.lead.options.retention_bytes = ...", bytes // 2)
    c:run(3000)
    assert.is_true(c:on(m, "return state.lead.ledger.result_bytes") <= bytes // 2)
    local oldest, newest = c:on(m, "return state.lead:get(...)", ids[1]), c:on(m, "return state.lead:get(...)", ids[4])
    assert.same({ "completed", "completed" }, { oldest.state, newest.state })
    assert.truthy(oldest.result.cut:find("removed to make room", 1, true), oldest.result.cut)
    assert.is_nil(newest.result.cut)
    assert.equal(ids[1], (c:submit(c:job { one = { work = "one 20" } }, keys[1])))
    assert.equal("CONFLICT", select(3, c:submit(c:job { other = { work = "other 1" } }, keys[1])))
    assert.is_nil(c.ran.other)
  end)

  it("F72: a large result is a file of its own: it survives a restart, is read again, and goes with its job", function ()
    local c <close> = simcluster.new { set = { retention_ms = 8000 } }
    local m = c.managers[1]
    local id = submitted(c, c:job { load = { code = [[
      return { vu = function (vu)
        for i = 1, 150 do vu:check(("a check with a long name, number %d"):format(i), true) vu:count("counter " .. i) end
        vu:sleep(10)
      end } ]], vus = 1, iterations = 2 } })
    local final = ended(c, id, "completed")
    assert.equal(150, #final.result.stats.checks)
    local files = c:on(m, "return node.world:list(state.lead.results.directory)")
    assert.equal(1, #files)
    c:crash(m)
    c:restart(m)
    c:run(2000)
    local got = c:on(m, "return state.lead:get(...)", id)
    assert.same({ "completed", 150 }, { got.state, #got.result.stats.checks })
    c:run(10000)
    assert.same({}, c:on(m, "return node.world:list(state.lead.results.directory)"))
    assert.is_nil(c:on(m, "return state.lead:get(...)", id))
  end)

  it("F72: small results that are many go to one file: each is read from it, over a restart too, and the file goes with the last", function ()
    local c <close> = simcluster.new { set = { retention_ms = 12000 } }
    local m = c.managers[1]
    c:on(m, "state.lead.limits.inline = 1500")
    local ids = {}
    for i = 1, 8 do
      ids[i] = submitted(c, c:job { one = { work = ("w%d 20"):format(i) } })
      ended(c, ids[i], "completed")
    end
    c:run(3000)
    assert.is_true(c:on(m, "return state.lead.ledger.inline_bytes") <= 1500)
    local names = "return node.world:list(state.lead.results.directory)"
    assert.is_true(#c:on(m, names) >= 1)
    local function readable()
      for i, id in ipairs(ids) do
        local output = c:on(m, "local r = state.lead:get(...).result return r.state .. ' ' .. r.stats.commands[1].head", id)
        assert.equal(("completed w%d done\n"):format(i), output)
      end
    end
    readable()
    c:crash(m)
    c:restart(m)
    c:run(1500)
    readable()
    c:run(14000)
    assert.same({}, c:on(m, names))
    assert.same({}, c:on(m, "return state.lead.ledger.files"))
  end)

  it("F72: a full disk at the end of a job cuts its result, says so, and ends it", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    c:on(m, [[ state.lead.results.keep = function (self, run, bytes)
      if #bytes > 100 then return nil, "no space left on device", "ENOSPC" end
    end ]])
    local id = submitted(c, c:job { one = { work = "one 20" }, two = { work = "two 20" } })
    local final = ended(c, id, "completed")
    assert.truthy(final.result.cut:find("no space left on device", 1, true))
    assert.equal(1, c:counts(m, "lead.results").raised)
  end)

  it("F72: what no job names in the folder of results goes when a leadership begins", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    c:on(m, "assert(node.world:put_durable(state.lead.results.directory .. '/stray', 'x'))")
    c:crash(m)
    c:restart(m)
    c:run(2000)
    assert.same({}, c:on(m, "return node.world:list(state.lead.results.directory)"))
  end)
end)
