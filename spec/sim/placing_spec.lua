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
    ended(c, id, "timed_out")
    assert.same({ "one queued: needs 6 cores, the largest worker of a has 4" }, reasons(c, id))
    c.idle["w-gpu"], c.idle["w-h"] = c:ask("w-gpu", "tasks"), c:ask("w-h", "tasks")
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
