--- Failures half-way between a leader and its executors: no core stays claimed, nothing waits for ever, and fences never go back. In
--- virtual time, through the unmodified roles.
local simcluster = require "spec.support.simcluster"

local USERS = [[return { vu = function (vu) vu:sleep(100) end }]]

local function submitted(c, spec)
  local id = assert(c:submit(spec))
  c:watch(id)
  return id
end

local function ended(c, id, state, limit_ms)
  local final
  assert.truthy(c:until_true(function () final = c:final(id) return final end, limit_ms or 60000, 50))
  assert.equal(state, final.state, final.reason)
  return final
end

describe("rough edges:", function ()
  it("F21, F36: the fence of a part never goes back at a worker, also when an older attempt ends after a newer was heard of", function ()
    local c <close> = simcluster.new { set_worker = { fence_ms = 20000 } }
    local w = c.workers[1]
    c:on(w, [[ local real = node.rpc.handlers["part.dispatch"]
      node.rpc.handlers["part.dispatch"] = function (body, peer)
        local copy = {}
        for k, v in next, body do copy[k] = v end
        node.spec_body = copy
        return real(body, peer)
      end ]])
    local function dispatch(above)
      return c:on(w, [[ local body, above = {}, ...
        for k, v in next, node.spec_body do body[k] = v end
        body.fence = body.fence + above
        return select(3, state.worker:dispatch(body)) or "taken" ]], above)
    end
    local id = submitted(c, c:job { load = { code = USERS, vus = 1, duration_ms = 2000 } })
    c:run(500)
    assert.equal("OVERLOADED", dispatch(10)) -- The older one gets a cancel.
    c:run(3000)
    assert.same({}, c:on(w, "local n = {} for key in next, state.worker.runs do n[#n + 1] = key end return n"))
    assert.equal("STALE", dispatch(5))
    ended(c, id, "failed")
  end)

  for _, case in ipairs { { "is refused", [[return nil, "no process today", "EAGAIN"]] }, { "raises", [[error "no process today"]] } } do
    it("F35: a part whose start " .. case[1] .. " leaves no core claimed and no fence, and says why", function ()
      local c <close> = simcluster.new {}
      local w = c.workers[1]
      c:on(w, ([[ require("shoal.runner").start = function () %s end ]]):format(case[2]))
      local final = ended(c, submitted(c, c:job { one = { work = "one 100", retries = 0 } }), "failed")
      assert.truthy(final.reason:find("no process today", 1, true), final.reason)
      local left = c:on(w, "return { claimed = state.worker:claimed(), run = next(state.worker.runs), fence = next(state.worker.fences) }")
      assert.same({ claimed = 0 }, left)
    end)
  end

  it("F54: a result too large for any message ends its part as failed, at once and with that reason", function ()
    local c <close> = simcluster.new {}
    c:on(c.workers[1], [[ local real = state.worker.reports.result
      state.worker.reports.result = function (self, record, done)
        record.result = ("x"):rep(4 << 20)
        return real(self, record, done)
      end ]])
    local began = c.s:now_ms()
    local final = ended(c, submitted(c, c:job { one = { work = "one 100", retries = 0 } }), "failed")
    assert.truthy(final.reason:find("could not be handed over", 1, true), final.reason)
    assert.is_true(c.s:now_ms() - began < 5000)
  end)

  it("F22: one run that cannot be taken up again fails by name, and keeps no other from going on", function ()
    local c <close> = simcluster.new { workers = 2 }
    local m = c.managers[1]
    local broken = submitted(c, c:job { load = { code = USERS, vus = 1, duration_ms = 4000 } })
    local sound = submitted(c, c:job { load = { code = USERS, vus = 1, duration_ms = 4000 } })
    c:run(500)
    c.parted = true -- The broken leader's attempt is an orphan until its worker learns of it.
    c:on(m, [[ local lead, id = state.lead, ...
      lead.ledger.runs[id].spec = "\xc1"
      local fence = lead.fence
      lead:on_lose()
      lead:on_lead(fence + 1) ]], broken)
    assert.truthy(c:until_true(function () return c:on(m, "return state.lead.ledger:run(...).state", broken) == "failed" end, 5000))
    assert.truthy(c:on(m, "return state.lead.ledger:run(...).reason", broken):find("could not be taken up again", 1, true))
    ended(c, sound, "completed")
  end)

  it("F24: an executor whose asking fails is asked again, and is up when it answers", function ()
    local c <close> = simcluster.new {}
    local m, w = c.managers[1], c.workers[1]
    c:on(w, [[ local real = node.rpc.handlers.lead
      local until_ns = node.world:now_ns() + 240 * 1000000000
      node.rpc.handlers.lead = function (...)
        if node.world:now_ns() < until_ns then return nil, "not today", "OVERLOADED" end
        return real(...)
      end ]])
    c:on(m, [[ local e = state.lead.executors:get "w-a1"
      e.state = "known"
      state.lead:hear(e.name, e.address, e.cores, e.generation) ]])
    c:run(200000)
    assert.equal("known", c:on(m, "return state.lead.executors:get('w-a1').state"))
    c:run(60000)
    assert.equal("up", c:on(m, "return state.lead.executors:get('w-a1').state"))
  end)

  it("F69: what raises at a membership event, or is no payload of ours, is told with the member's name", function ()
    local c <close> = simcluster.new { workers = 2 }
    local m = c.managers[1]
    c:on(m, [[ local fire = node.hooks.fire
      node.hooks.fire = function () node.hooks.fire = nil error "not now" end ]])
    c:on(c.workers[1], "node.swim:payload('\\x93\\1\\2\\3')")
    c:run(3000)
    assert.same({ kind = "update", member = "w-a1" }, c:incidents(m, "swim.event")[1].ids)
    assert.equal("w-a1", c:incidents(m, "swim.payload")[1].ids.member)
    assert.truthy(#c:on(m, "return node:members()") >= 3)
    c:on(c.workers[1], "node.swim:payload('\\xc1')")
    c:run(3000)
    assert.truthy(#c:on(m, "return node:members()") >= 3)
  end)

  it("F53: a watcher whose connection ended is let go, though its job has nothing to say", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 400000" } })
    c:run(3000)
    local watchers = "local run = state.lead.runs[...] return #run.feed.watchers"
    assert.equal(1, c:on(m, watchers, id))
    c:crash(c.client)
    assert.truthy(c:until_true(function () return c:on(m, watchers, id) == 0 end, 60000, 500))
    local told = c:counts(m, "lead.push").raised
    c:run(20000)
    assert.equal(told, c:counts(m, "lead.push").raised) -- There is no watcher, and no push.
  end)

  for _, gates in ipairs { 0, 1 } do
    it(("a client that leaves a job tells its leader%s: it is pushed nothing more, and nothing fails"):format(gates > 0 and ", a gate" or ""),
      function ()
        local c <close> = simcluster.new { gates = gates, workers = 2, set = { push_ms = 50, flush_ms = 50 } }
        local leader = c.gates[1] or c.managers[1]
        local id = assert(c:submit(c:job { load = { vus = 8, duration_ms = 60000 } }))
        local watchers = "return #state.lead.runs[...].feed.watchers"
        for i = 1, 5 do -- Each leaves while pushes are under way.
          c:watch(id, 1000 + 7 * i)
          c:run(900)
          assert.equal(1, c:on(leader, watchers, id))
          c:run(2000)
          assert.equal("TIMEOUT", c:final(id).code)
          assert.equal(0, c:on(leader, watchers, id))
        end
        c:watch(id)
        c:run(1500)
        c.s:signal(c.client, "TERM") -- Like a program that detaches: it stops, and its connection ends.
        c:run(3000)
        assert.equal(0, c:on(leader, watchers, id))
        assert.equal(0, c:counts(leader, "lead.push").raised)
      end)
  end
end)
