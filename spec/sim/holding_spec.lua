--- Cordon and drain of workers: by a manager and by a gate, over a leader's restart, and back.
local followed = require "spec.support.followed"
local simcluster = require "spec.support.simcluster"

local submitted, ended = followed.submitted, followed.ended

local function hold(c, worker, action, more)
  local body = { worker = worker, dc = "", action = action, timeout_ms = 0 }
  for key, value in pairs(more or {}) do body[key] = value end -- order-free: a copy
  return c:on(c.client, "return state.client:call('executor.hold', ...)", body)
end

local function on(final)
  local out = {}
  for _, a in ipairs(final.result.attempts) do
    local key = a.executor .. " " .. a.state
    out[key] = (out[key] or 0) + 1
  end
  return out
end

local function work(name, ms, more)
  local w = { work = ("%s %d"):format(name, ms) }
  for key, value in pairs(more or {}) do w[key] = value end -- order-free: a copy
  return { one = w }
end

describe("a worker that is cordoned", function ()
  it("gets no new parts and ends its own, through a gate, over a restart of its manager, until it is uncordoned", function ()
    local c <close> = simcluster.new { gates = 1, workers = 2, set_worker = { cores = 2 }, set = { retention_ms = 60000 } }
    local g, m = c.gates[1], c.managers[1]
    local id = submitted(c, c:job(work("one", 3000, { parts = 4 })))
    c:run(500)
    local reply = assert(hold(c, "w-a1", "cordon"))
    assert.same({ "a", "cordoned", 2 }, { reply.dc, reply.state, reply.parts })
    assert.same({ ["w-a1 completed"] = 2, ["w-a2 completed"] = 2 }, on(ended(c, id, "completed")))
    assert.same({ ["w-a2 completed"] = 4 }, on(c:complete(c:job(work("two", 20, { parts = 4 })))))
    c:run(1500)
    for _, node in ipairs { g, m } do
      local members = c:members(node)
      assert.same({ "cordoned", nil }, { members["w-a1"].hold, members["w-a2"].hold })
    end
    -- What only it could run waits, and says so, at the gate.
    assert(hold(c, "w-a2", "cordon"))
    c:run(1500)
    id = submitted(c, c:job(work("three", 20)))
    c:run(500)
    assert.equal("every worker that can run it is cordoned: 2 workers of a",
      c:on(g, "return state.lead:get(...).workflows[1].waiting", id))
    c:crash(m)
    c:run(300)
    c:restart(m)
    c:run(5000)
    assert.is_nil(c:final(id))
    assert.equal("cordoned", c:members(m)["w-a1"].hold)
    assert.equal("", assert(hold(c, "w-a1", "uncordon")).state)
    assert.same({ ["w-a1 completed"] = 1 }, on(ended(c, id, "completed")))
    assert(hold(c, "w-a2", "uncordon"))
    assert.same({}, c:on(m, "return state.lead.ledger.held"))
    c:run(3000)
    for _, name in ipairs { "w-a1", "w-a2" } do assert.is_nil(c:members(g)[name].hold) end
    -- Who asks for a worker that is not there hears which there are.
    local none, err, code = hold(c, "w-b1", "cordon")
    assert.same({ nil, "NOT_FOUND" }, { none, code })
    assert.truthy(err:find("known: w-a1, w-a2", 1, true), err)
  end)
end)

describe("a worker that is drained", function ()
  it("ends its parts up to the timeout, then they move, which counts against no retries", function ()
    local c <close> = simcluster.new { workers = 2, set_worker = { cores = 2 } }
    local m = c.managers[1]
    local short = submitted(c, c:job(work("short", 1500, { parts = 2 })))
    local long = submitted(c, c:job({ one = { work = "long 6000", parts = 2, retries = 1 } }, { name = "other" }))
    c:run(300)
    assert.same({ "draining", 2 }, { hold(c, "w-a1", "drain", { timeout_ms = 3000 }).state, hold(c, "w-a1", "look").parts })
    ended(c, short, "completed")
    assert.equal(0, c:counts(m, "lead.attempt_lost").raised)
    local final = ended(c, long, "completed")
    local ran = on(final)
    assert.equal(1, ran["w-a1 lost"])
    assert.equal(2, ran["w-a2 completed"])
    assert.equal(0, c:counts(m, "lead.attempt_lost").raised)
    local w = final.result.workflows[1]
    assert.same({ 3, 1 }, { w.executions, w.retried })
    for _, a in ipairs(final.result.attempts) do
      if a.state == "lost" then assert.equal("w-a1 is drained", a.reason) end
    end
    assert.same({ "draining", 0 }, { hold(c, "w-a1", "look").state, hold(c, "w-a1", "look").parts })
    assert.same({ ["w-a2 completed"] = 2 }, on(c:complete(c:job(work("three", 20, { parts = 2 })))))
    assert(hold(c, "w-a1", "uncordon"))
    c:rest()
  end)

  it("moves nothing that must not run twice: such a part fails and says why", function ()
    local c <close> = simcluster.new { workers = 2 }
    local id = submitted(c, c:job(work("one", 5000, { retries = 0 })))
    c:run(300)
    local name = c:on(c.managers[1], "return state.lead.ledger.runs[...].parts['one/1'].executor", id)
    assert(hold(c, name, "drain"))
    local final = ended(c, id, "failed")
    assert.truthy(final.reason:find(name .. " is drained", 1, true), final.reason)
    assert.equal(1, c.ran.one)
    assert(hold(c, name, "uncordon"))
    c:rest()
  end)
end)
