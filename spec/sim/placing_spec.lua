--- Where parts run, as operators and jobs ask for it: labels, constraints, the reason for waiting.
local followed = require "spec.support.followed"
local simcluster = require "spec.support.simcluster"

local submitted, ended = followed.submitted, followed.ended

--- The reasons that the client has been given, in order: "WORKFLOW STATE: REASON".
local function reasons(c, id)
  local out = {}
  local got = c:on(c.client, "return state.client:call('job.events', { job = ..., from_seq = 0, max = 100 })", id)
  for _, p in ipairs(got and got.events or {}) do
    if p.kind == "status" and p.body.workflow and p.body.reason then
      out[#out + 1] = ("%s %s: %s"):format(p.body.workflow, p.body.workflow_state, p.body.reason)
    end
  end
  return out
end

local function waiting(c, id, node)
  local got = c:on(node, "local got = state.lead:get(...) return got and got.workflows", id)
  return got and got[1].waiting
end

describe("labels of workers:", function ()
  it("a part runs only where its constraint holds, through a gate too, and a policy sees the labels", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 2, set_worker = { cores = 4 } }
    local g = c.gates[1]
    local function worker(name, dc, gpu, cores)
      local config = c:config "worker"
      config.join, config["labels.gpu"], config.cores = { c.managers[dc == "a" and 1 or 2] }, gpu, cores
      return c:add { name = name, role = "worker", dc = dc, config = config }
    end
    worker("w-gpu", "b", "a100", 2)
    c:run(4000)
    local seen = c:on(c.managers[2], [[ local out = {}
      for i, e in ipairs(state.lead:up_executors()) do out[i] = e.name .. " " .. tostring(e.labels.gpu) end return out ]])
    assert.same({ "w-b1 nil", "w-b2 nil", "w-gpu a100" }, seen)
    local final = c:complete(c:job { one = { work = "one 20", parts = 6, where = { gpu = { "h100", "a100" } } }, two = { work = "two 20" } })
    assert.equal("completed", final.state, final.reason)
    local on = {}
    for _, a in ipairs(final.result.attempts) do
      if a.workflow == "one" then on[a.executor] = (on[a.executor] or 0) + 1 end
    end
    assert.same({ ["w-gpu"] = 6 }, on)

    -- A constraint that nothing meets: the reason is there at once, at the gate, and goes when its cause goes.
    local id = submitted(c, c:job { one = { work = "three 20", where = { gpu = "h100" } } })
    c:run(300)
    assert.equal("no worker has gpu=h100", waiting(c, id, g))
    worker("w-h", "a", "h100", 2)
    assert.equal("w-h", ended(c, id, "completed").result.attempts[1].executor)
    assert.same({ "one queued: no worker has gpu=h100" }, reasons(c, id))

    -- A13: a part that fits the sum of a datacenter and none of its workers.
    id = submitted(c, c:job({ one = { work = "four 20", cores = 6 } }, { timeout_ms = 4000 }))
    c:run(300)
    assert.equal("needs 6 cores, the largest worker of a has 4", waiting(c, id, g))
    assert.equal("not done after timeout_ms = 4000; one waits: needs 6 cores, the largest worker of a has 4", ended(c, id, "timed_out").reason)
    assert.same({ "one queued: needs 6 cores, the largest worker of a has 4" }, reasons(c, id))
    c.idle["w-gpu"], c.idle["w-h"] = c:ask("w-gpu", "tasks"), c:ask("w-h", "tasks")
    c:rest()
  end)
end)

describe("a worker that declines", function ()
  local file = assert(io.open "examples/roles/shop_worker.lua")
  local SCRIPT = file:read "a"
  file:close()

  --- A cluster with `shops` workers that run examples/roles/shop_worker.lua, and `others` shipped ones, all of 2 cores.
  local function cluster(shops, others)
    local c = simcluster.new { workers = others, set_worker = { cores = 2 } }
    for i = 1, shops do
      local config = c:config "worker"
      config.join = { c.managers[1] }
      local shop = c:add {
        name = "shop-" .. i, role = "worker", dc = "a", config = config, script = "/roles/shop.lua", files = { ["/roles/shop.lua"] = SCRIPT },
      }
      c.workers[#c.workers + 1] = shop
      -- Counts what it is offered.
      c:run(100)
      c:on(shop, [[ local real = node.rpc.handlers["part.dispatch"]
        node.spec_offers = 0
        node.rpc.handlers["part.dispatch"] = function (body, peer) node.spec_offers = node.spec_offers + 1 return real(body, peer) end ]])
    end
    c:run(3500)
    for _, w in ipairs(c.workers) do c.idle[w.name] = c:ask(w, "tasks") end
    return c
  end
  local function offers(c, node) return c:on(node, "return node.spec_offers") end

  it("fails nothing: no attempt, no warning; a part is offered to it once, and a workflow a few times", function ()
    local c <close> = cluster(1, 1)
    local m, shop = c.managers[1], c.workers[2]
    local final = c:complete(c:job { one = { work = "one 20", parts = 40, retries = 0 } })
    assert.equal("completed", final.state, final.reason)
    assert.equal(40, c.ran.one)
    for _, a in ipairs(final.result.attempts) do assert.same({ "w-a1", 1, "completed" }, { a.executor, a.attempt, a.state }) end
    assert.equal(0, c:counts(m, "lead.dispatch").raised + c:counts(m, "lead.attempt_lost").raised)
    assert.is_true(offers(c, shop) >= 1 and offers(c, shop) <= 16, offers(c, shop))
    -- A job of its team runs there too.
    final = c:complete(c:job({ one = { work = "two 300", parts = 4 } }, { labels = { team = "shop" } }))
    local on = {}
    for _, a in ipairs(final.result.attempts) do on[a.executor] = (on[a.executor] or 0) + 1 end
    assert.same({ ["shop-1"] = 2, ["w-a1"] = 2 }, on)
    assert.same({}, c:on(m, "return state.lead.placing.declines"))
    c:rest()
  end)

  it("leaves a reason when all decline; a worker that joins is asked, and one that comes back", function ()
    local c <close> = cluster(2, 0)
    local m = c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 20", retries = 0 } })
    c:run(3000)
    local why = "every worker that can run it declined it; shop-2: this worker runs jobs of the shop only"
    assert.equal(why, waiting(c, id, m))
    assert.same({ "one running: " .. why }, reasons(c, id))
    assert.same({ 1, 1 }, { offers(c, c.workers[1]), offers(c, c.workers[2]) })
    c:restart(c.workers[1])
    c:run(6000)
    assert.equal(1, c:on(m, "return state.lead.placing.declines[...].one.of['shop-1'].count", id)) -- Of its new life.
    local config = c:config "worker"
    config.join = { m }
    c:add { name = "plain", role = "worker", dc = "a", config = config }
    local final = ended(c, id, "completed")
    assert.same({ "plain", 1 }, { final.result.attempts[1].executor, final.result.attempts[1].attempt })
    assert.equal(1, #final.result.attempts)
    c:run(4000)
    c.idle["shop-1"], c.idle.plain = c:ask("shop-1", "tasks"), c:ask("plain", "tasks")
    c:rest()
  end)

  it("of one workflow remembers 16 parts an executor at most, then it is offered none of them", function ()
    local c <close> = cluster(1, 1)
    local m, shop = c.managers[1], c.workers[2]
    -- The other worker declines too, at first: so the shop is offered part after part.
    c:on(c.workers[1], [[ local real = node.rpc.handlers["part.dispatch"]
      node.rpc.handlers["part.dispatch"] = function (body, peer)
        if not node.spec_open then return nil, "closed yet", "DECLINED" end
        return real(body, peer)
      end ]])
    local id = submitted(c, c:job { one = { work = "one 20", parts = 40, retries = 0 } })
    c:run(20000)
    assert.is_true(offers(c, shop) >= 16 and offers(c, shop) <= 17, offers(c, shop)) -- The last two were offered at once.
    local parts = c:on(m, [[ local count = 0
      for _, of in pairs(state.lead.placing.declines[...].one.parts) do for _ in pairs(of) do count = count + 1 end end
      return count ]], id)
    assert.is_true(parts <= 34, parts)
    assert.equal("running", c:on(m, "return state.lead:get(...).state", id))
    c:on(m, "state.lead:cancel(...)", id)
    ended(c, id, "cancelled")
    assert.same({}, c:on(m, "return state.lead.placing.declines"))
    c:rest()
  end)
end)

describe("a reason for waiting", function ()
  it("A6: names the policy that is wrong; after some tries the job fails and says so", function ()
    for _, wrong in ipairs { "error 'no idea'", "return 'nobody'" } do
      local c <close> = simcluster.new {}
      local m = c.managers[1]
      c:on(m, ("state.lead.options.placement.choose = function () %s end"):format(wrong))
      local id = submitted(c, c:job { one = { work = "one 50" } })
      c:run(1000)
      local why = wrong:find "^error" and "no idea" or "there is no executor nobody"
      assert.truthy(waiting(c, id, m):find(why, 1, true), waiting(c, id, m))
      assert.truthy(reasons(c, id)[1]:find(why, 1, true))
      local final = ended(c, id, "failed", 90000)
      assert.truthy(final.reason:find(why, 1, true), final.reason)
      assert.is_true(#reasons(c, id) <= 2)
      c:rest()
    end
  end)

  it("A5: names a policy that does not end, whose manager answers all the while; it is one incident each 10 s", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    c:on(m, "state.lead.options.placement.choose = function () while true do end end")
    local id = submitted(c, c:job { one = { work = "one 50" } })
    c:run(2000)
    assert.truthy(waiting(c, id, m):find "eval:1: it ran more than %d+ instructions$")
    c:on(m, "state.spec_state = state.lead:get(...).state", id)
    local final = ended(c, id, "failed", 90000)
    assert.truthy(final.reason:find("it ran more than", 1, true), final.reason)
    assert.is_true(c:counts(m, "policy.placement").raised <= 5)
    assert.equal(1, #reasons(c, id))
    c:rest()
  end)

  it("a policy that does not end, raises or answers nonsense when a job is submitted is an incident, and the job is taken", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    for i, wrong in ipairs { "while true do end", "error 'no idea'", "return 'yes'", "return nil, 5" } do
      c:on(m, ("state.lead.options.placement.accepts = function () %s end"):format(wrong))
      ended(c, submitted(c, c:job { one = { work = "one 20" } }), "completed")
      assert.equal(i, c:counts(m, "policy.placement").raised)
    end
    c:on(m, "state.lead.options.placement.accepts = function () end")
    local id, err, code = c:submit(c:job { one = { work = "one 20" } })
    assert.same({ nil, "placement.accepts refused the job and gave no reason", "CONFIG" }, { id, err, code })
    c:rest()
  end)

  it("of a share is told by its manager to the gate: a busy datacenter, not for a moment's wait", function ()
    local c <close> = simcluster.new { gates = 1, set_worker = { cores = 1 } }
    local g = c.gates[1]
    local one = submitted(c, c:job { one = { work = "one 8000" } })
    c:run(500)
    local two = submitted(c, c:job { one = { work = "two 20" } })
    c:run(1000)
    assert.is_nil(waiting(c, two, g))
    c:run(3000)
    assert.equal("a: every worker that can run it is busy", waiting(c, two, g))
    ended(c, one, "completed")
    ended(c, two, "completed")
    assert.same({ "one running: a: every worker that can run it is busy" }, reasons(c, two))
    c:rest()
  end)
end)
