--- Scenario families (SCENARIOS.md) through the unmodified roles in virtual time: time limits, cancel, load, shutdown, faulty scripts.
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local USERS = [[return { vu = function (vu) vu:sleep(100) end }]]

local function submitted(c, spec, key)
  local id = assert(c:submit(spec, key))
  c:watch(id)
  return id
end

local function ended(c, id, state, limit_ms)
  local final
  if not c:until_true(function () final = c:final(id) return final end, limit_ms or 120000, 50) then
    error("the job did not end: " .. require("cjson").encode(c:states(id)), 2)
  end
  if state then assert.equal(state, final.state, final.reason) end
  return final
end

local function t3(options)
  options = options or {}
  options.gates, options.dcs, options.workers = 1, options.dcs or { "a", "b" }, options.workers or 2
  return simcluster.new(options)
end

local function running(c)
  local n = 0
  for _, w in ipairs(c.workers) do
    local look = c:ask(w, "look")
    for _, run in sorted(look and look.worker.runs or {}) do n = n + (run.state == "running" and 1 or 0) end
  end
  return n
end

describe("time limits:", function ()
  it("F57: a job's time is kept: it is timed out once, work stops everywhere, what was measured is told", function ()
    local c <close> = t3()
    local id = submitted(c, c:job({ load = { vus = 8, iterations = 8000 } }, { timeout_ms = 4000 }))
    local began = c.s:now_ms()
    local final = ended(c, id, "timed_out")
    local took = c.s:now_ms() - began
    assert.is_true(took >= 4000 and took < 5500, "took " .. took)
    assert.truthy(final.reason:find("timeout_ms = 4000", 1, true), final.reason)
    assert.is_true(final.result.stats.requests > 100)
    c:check_counts(id, final)
    assert.equal(0, running(c))
    local asked = c.hit_log.load.last_ms
    c:run(2000)
    assert.equal(asked, c.hit_log.load.last_ms)
    c:rest()
  end)

  it("F57: a job that ends 1 ms before its time is complete; time that is over later changes nothing", function ()
    local c <close> = simcluster.new {}
    local _, took
    do
      local id = submitted(c, c:job { one = { work = "one 1000" } })
      local began = c.s:now_ms()
      ended(c, id, "completed")
      took = c.s:now_ms() - began
    end
    local id = submitted(c, c:job({ one = { work = "one 1000" } }, { timeout_ms = math.ceil(took) + 200 }))
    _ = ended(c, id, "completed")
    c:rest { ms = 10000 }
    local finals = 0
    for _, p in ipairs(c:ask(c.client, "pushes", id)) do
      if p.kind == "status" and not p.workflow and p.state ~= "running" then finals = finals + 1 end
    end
    assert.equal(1, finals)
  end)

  it("F57: a worker that is stuck is given up by its silence; when it goes on, what it says does not count", function ()
    local c <close> = simcluster.new { workers = 3 }
    local id = submitted(c, c:job { load = { code = USERS, vus = 3, duration_ms = 4000 } })
    c:run(1500)
    c:pause(c.workers[1])
    local final = ended(c, id, "completed", 60000)
    local lost = {}
    for _, a in ipairs(final.result.attempts) do
      if a.state == "lost" then lost[#lost + 1] = a.executor end
    end
    assert.same({ "w-a1" }, lost)
    c:resume(c.workers[1])
    c:rest { ms = 15000 }
  end)

  it("F57: a worker that lives but says nothing of a part loses it after the manager's patience, by the manager's clock", function ()
    local c <close> = simcluster.new { workers = 2, set_manager = { manager_silent_ms = 5000 } }
    local id = submitted(c, c:job { load = { code = USERS, vus = 2, duration_ms = 20000 } })
    c:run(1000)
    c:on(c.workers[1], "state.worker.reports.flush = function () end")
    local began = c.s:now_ms()
    assert.truthy(c:until_true(function () return c:counts(c.managers[1], "lead.attempt_lost").raised == 1 end, 20000))
    local took = c.s:now_ms() - began
    assert.is_true(took > 4700 and took < 6500, "after " .. took)
    local told = c:incidents(c.managers[1], "lead.attempt_lost")[1]
    assert.equal("w-a1", told.ids.executor)
    assert.truthy(told.message:find("no progress", 1, true))
    -- The attempt was cancelled there: its cores are free although it would have run on.
    assert.truthy(c:until_true(function () return c:ask(c.workers[1], "look").worker.claimed == 0 end, 3000))
    c:on(c.workers[1], "state.worker.reports.flush = nil")
    ended(c, id, "completed")
    c:rest()
  end)
end)

describe("backoff:", function ()
  it("F61: after an outage of their manager twenty workers do not come back in step", function ()
    local c <close> = simcluster.new { workers = 20, set = { retention_ms = 30000 } }
    local m = c.managers[1]
    local id = submitted(c, c:job { load = { code = USERS, vus = 20, duration_ms = 30000 } }) -- It outlasts the circuits.
    c:run(1500)
    c:crash(m)
    c:run(8000)
    c:restart(m)
    assert.truthy(c:until_true(function () return c.s:status(m) == "up" and c:ask(m, "look") end, 2000, 1))
    c:on(m, [[ node.spec_first = {}
      local real = node.rpc.handlers["part.progress"]
      node.rpc.handlers["part.progress"] = function (body, peer)
        for _, p in ipairs(body.parts) do
          node.spec_first[p.part] = node.spec_first[p.part] or node.world:now_ns() // 1000000
        end
        return real(body, peer)
      end ]])
    assert.truthy(c:until_true(function ()
      return c:on(m, "local n = 0 for _ in next, node.spec_first do n = n + 1 end return n") == 20
    end, 30000, 100))
    local times = {}
    for _, at in sorted(c:on(m, "return node.spec_first")) do times[#times + 1] = at end
    table.sort(times)
    local most = 0
    for i, at in ipairs(times) do
      local n = 0
      for k = i, #times do n = n + (times[k] - at <= 50 and 1 or 0) end
      most = math.max(most, n)
    end
    assert.is_true(most <= 8, most .. " of 20 within 50 ms")
    assert.is_true(times[20] - times[1] > 300)
    ended(c, id, "completed")
    c:rest()
  end)

  it("F61: what no retry can mend fails at once", function ()
    local c <close> = simcluster.new { gates = 1 }
    c:run(5000)
    local began = c.s:now_ms()
    local id, err, code = c:submit(c:job({ load = { vus = 1, iterations = 1 } }, { datacenters = { "zz" } }))
    assert.same({ nil, "CONFIG" }, { id, code })
    assert.truthy(err:find("zz", 1, true))
    assert.is_true(c.s:now_ms() - began < 100)
    local none
    none, err, code = c:on(c.client, "return state.client:call('job.submit', { key = 'k', spec = 'garbage' })")
    assert.same({ nil, "MALFORMED" }, { none, code }, err)
  end)
end)

describe("cancel:", function ()
  it("F62: it reaches all datacenters and workers, work stops, cores are free, and it is told once", function ()
    local c <close> = t3()
    local id = submitted(c, c:job { load = { vus = 8, duration_ms = 60000 }, after = { after = { "load" }, work = "after 50" } })
    c:run(2000)
    assert.equal(4, running(c))
    local began = c.s:now_ms()
    assert.equal("cancelling", c:on(c.client, "return state.client:cancel(..., 'enough').state", id))
    local final = ended(c, id, "cancelled")
    assert.is_true(c.s:now_ms() - began < 1500)
    assert.equal("enough", final.reason)
    assert.is_nil(c.ran.after)
    assert.equal(0, running(c))
    for _, w in ipairs(c.workers) do assert.equal(0, c:ask(w, "look").worker.claimed) end
    c:check_counts(id, final)
    local asked = c.hit_log.load.last_ms
    c:run(3000)
    assert.equal(asked, c.hit_log.load.last_ms)
    c:rest()
  end)

  it("F62, F63: a worker that cannot be reached does not keep the cancel from ending; its work is ended when it is heard again", function ()
    local c <close> = t3()
    local id = submitted(c, c:job { load = { vus = 8, duration_ms = 90000 } })
    c:run(2000)
    local w, m = c.workers[1], c.managers[1]
    c:cut(w, nil)
    assert(c:on(c.client, "return state.client:cancel(..., 'enough')", id))
    ended(c, id, "cancelled", 60000)
    c:heal(w, nil)
    assert.truthy(c:until_true(function () return c:ask(w, "look").worker.claimed == 0 end, 60000))
    c:rest { ms = 90000 }
    assert.equal(0, c:counts(m, "rpc.handler").raised)
  end)

  it("F62: a cancel that races the completion gives one answer, the same everywhere", function ()
    local c <close> = t3 { workers = 1, set = { retention_ms = 4000 } }
    local seen = {}
    for i = 0, 13 do
      local id = submitted(c, c:job { one = { work = "one 300" } })
      c:run(280 + i * 9)
      local reply = c:on(c.client, "return state.client:cancel(..., 'a race')", id)
      local final = ended(c, id)
      seen[final.state] = (seen[final.state] or 0) + 1
      assert.is_true(final.state == "cancelled" or final.state == "completed", final.state)
      if reply.state ~= "cancelling" then assert.equal(final.state, reply.state) end
      assert.equal(final.state, final.result.state)
      assert.equal(final.state, c:on(c.client, "return state.client:call('job.get', { job = ... }).state", id))
    end
    assert.is_true((seen.cancelled or 0) > 0 and (seen.completed or 0) > 0, "no race was seen")
    c:rest()
  end)
end)

describe("load control:", function ()
  it("F65: a manager under load slows its workers' progress by levels, which fall again; cancel is untouched", function ()
    local c <close> = simcluster.new { workers = 4, set_manager = { progress_per_s = 22 } }
    local id = submitted(c, c:job { load = { code = USERS, vus = 4, duration_ms = 60000 } })
    local levels = {}
    for _ = 1, 60 do
      c:run(100)
      for _, w in ipairs(c.workers) do
        local level = c:on(w, "return state.worker.reports:counts().level")
        levels[level] = (levels[level] or 0) + 1
        local interval = c:on(w, "return state.worker.reports:interval_ms()")
        assert.is_true(interval == 50 and level == "none" or interval > 50 and level ~= "none")
      end
    end
    assert.is_true((levels.throttle or 0) + (levels.batch or 0) + (levels.reject or 0) > 0, "no level ever rose")
    assert.is_true((levels.none or 0) > 0, "no level ever fell")
    c:on(c.managers[1], "state.lead.measure = function (self) self.progress_level = 'reject' end state.lead.progress_level = 'reject'")
    c:run(3000)
    for _, w in ipairs(c.workers) do assert.equal("reject", c:on(w, "return state.worker.reports:counts().level")) end
    local began = c.s:now_ms()
    assert(c:on(c.client, "return state.client:cancel(..., 'now')", id))
    ended(c, id, "cancelled")
    assert.is_true(c.s:now_ms() - began < 1000)
    c:on(c.managers[1], "state.lead.measure = nil")
    c:run(12000)
    assert.equal("none", c:on(c.managers[1], "return state.lead.progress_level"))
    for _, w in ipairs(c.workers) do
      c:on(w, "return state.worker.reports:interval_ms()")
      assert.equal("none", c:on(w, "return state.worker.reports:counts().level"))
    end
    c:rest()
  end)
end)

describe("shutdown:", function ()
  --- The last lines of a node that was stopped: it reported its end, in balance, and left nothing.
  local function gone(c, node)
    assert.truthy(c:until_true(function () return c.s:status(node) == "ended" end, 15000), node.name .. " did not stop")
    local _, code, children = c.s:status(node)
    assert.same({ 0, 0 }, { code, children })
    local last
    for line in c.s:log():gmatch "[^\n]+" do
      if line:find('"node":"' .. node.name .. '"', 1, true) and line:find('"event":"node.end"', 1, true) then last = line end
    end
    assert.truthy(last, node.name .. " said no end")
    assert.truthy(last:find('"balanced":true', 1, true), last)
    assert.is_nil(c.s:log():find("handle.leaked", 1, true))
  end

  it("F73: a worker that is told to stop gives its work back: it runs elsewhere, and every loop of it ends", function ()
    local c <close> = simcluster.new { workers = 2 }
    local id = submitted(c, c:job { load = { vus = 4, iterations = 400 } })
    c:run(2000)
    c.s:signal(c.workers[1], "TERM")
    gone(c, c.workers[1])
    local final = ended(c, id, "completed")
    local lost = 0
    for _, a in ipairs(final.result.attempts) do
      if a.state == "lost" then
        lost = lost + 1
        assert.equal("w-a1", a.executor)
        assert.equal(c.hits[id][("%s %d"):format(a.part, a.attempt)], a.stats.requests) -- Its last counts were flushed.
      end
    end
    assert.equal(1, lost)
    c:check_counts(id, final)
    c:rest()
  end)

  it("F73: a manager that is told to stop leaves its workers at work; started again it takes them up, and nothing is done twice", function ()
    local c <close> = simcluster.new { gates = 1, workers = 2, set = { retention_ms = 20000 } }
    local id = submitted(c, c:job { load = { vus = 4, iterations = 400 }, last = { after = { "load" }, work = "last 50" } })
    c:run(2000)
    c.s:signal(c.managers[1], "TERM")
    gone(c, c.managers[1])
    c:start(c.managers[1])
    local final = ended(c, id, "completed")
    for _, a in ipairs(final.result.attempts) do assert.same({ 1, "completed" }, { a.attempt, a.state }) end
    c:check_counts(id, final)
    assert.equal(1, c.ran.last)
    c:rest()
  end)

  it("F73: all nodes told to stop at rest end with code 0, in balance, with nothing open", function ()
    local c <close> = t3()
    c:complete(c:job { load = { vus = 4, iterations = 40 } })
    for _, node in ipairs(c.nodes) do
      c.s:signal(node, "TERM")
      gone(c, node)
    end
  end)
end)

describe("scripts as a source of faults:", function ()
  local PLACEMENT = "/shoal/scripts/policies/placement.lua"

  it("L2: a placement policy that raises or answers nonsense is an incident each, the node lives, and mended it places", function ()
    for _, wrong in ipairs { "error('no idea')", "return 42", "return 'nobody'", "return {}" } do
      local c <close> = simcluster.new {}
      local m = c.managers[1]
      c:on(m, ([[ state.spec_choose = state.lead.options.placement.choose
        state.lead.options.placement.choose = function () %s end ]]):format(wrong))
      local id = submitted(c, c:job { one = { work = "one 50" } })
      c:run(3000)
      assert.is_nil(c:final(id))
      if wrong:find "^error" then
        local told = c:incidents(m, "policy.placement")
        assert.is_true(#told >= 2)
        assert.equal(id, told[2].ids.job) -- The first came before the job had its id.
        assert.truthy(told[1].message:find "no idea")
      end
      c:on(m, "state.lead.options.placement.choose, state.spec_choose = state.spec_choose, nil")
      ended(c, id, "completed")
      assert.equal(1, c.ran.one)
      c:rest()
    end
  end)

  it("L1: a policy script that does not load keeps the node from starting, with file and line", function ()
    local c <close> = simcluster.new { workers = 0 }
    local bad = c.s:node { name = "m-bad", role = "manager", dc = "b", files = { [PLACEMENT] = "return {\n  oops oops\n}" } }
    c:run(1000)
    local state, code = c.s:status(bad)
    assert.same({ "ended", true }, { state, code ~= 0 })
    assert.truthy(c.s:log():find("placement.lua:2:", 1, true))
  end)

  it("L5: a required hook left unwired, an unknown one, a wrong arity, an unknown message: refused at start, by name", function ()
    local text
    do
      local c <close> = simcluster.new { workers = 0 }
      text = assert(c.s:read(c.managers[1], "/shoal/scripts/roles/manager.lua"))
    end
    local function edited(pattern, with)
      local out, n = text:gsub(pattern, with)
      assert(n == 1, pattern)
      return out
    end
    for i, case in ipairs {
      { edited('%["detector%.global_death"%]', '["swim.event_"]'), "swim.event_" },
      { edited('%["detector%.global_death"%] = function %b()(.-)\n    end,', ""), "detector.global_death" },
      { edited('%["detector%.global_death"%] = function %b()', '["detector.global_death"] = function (a, b, c, d)'), "detector.global_death" },
      { edited('%["lead%.who"%]', '["lead.whom"]'), "lead.whom" },
      { edited('"part%.dispatch", "part%.cancel", "lead", "dc%.register"', '"part.despatch", "lead"'), "part.despatch" },
    } do
      local c <close> = simcluster.new { workers = 0 }
      local bad = c.s:node {
        name = "m-bad", script = "/shoal/scripts/roles/bad.lua", dc = "b", files = { ["/shoal/scripts/roles/bad.lua"] = case[1] },
      }
      c:run(3000)
      local state, code = c.s:status(bad)
      assert.same({ "ended", true }, { state, code ~= 0 and code ~= nil }, "case " .. i)
      local said = false
      for line in c.s:log():gmatch "[^\n]+" do
        said = said or line:find("m-bad", 1, true) and line:find('"talk"', 1, true) and line:find(case[2], 1, true)
      end
      assert.truthy(said, case[2])
    end
  end)

  it("L4: a callback that unhooks itself, cancels its job, and submits another from within is safe", function ()
    local c <close> = simcluster.new {}
    local id = assert(c:submit(c:job { load = { code = USERS, vus = 1, duration_ms = 30000 } }))
    local other = c:job { one = { work = "one 50" } }
    c:on(c.client, [[
      local id, other = ...
      node.spec_calls = 0
      local callbacks = {}
      callbacks.stats = function ()
        callbacks.stats = nil
        node.spec_calls = node.spec_calls + 1
        node.spec_other = state.client:submit(other, "from within")
        node.spec_cancel = state.client:cancel(id, "from within").state
        node.spec_second = state.client:follow(node.spec_other, {}).state
      end
      node.scope:spawn("spec.follow", {}, function () node.spec_final = state.client:follow(id, callbacks).state end)
    ]], id, other)
    assert.truthy(c:until_true(function () return c:on(c.client, "return node.spec_final and node.spec_second") end, 30000))
    assert.same({ 1, "cancelling", "cancelled", "completed" },
      { c:on(c.client, "return node.spec_calls, node.spec_cancel, node.spec_final, node.spec_second") })
    c.jobs[c:on(c.client, "return node.spec_other")] = {}
    c:rest()
  end)

  it("F69: a hook on a member's death that raises is told with node and incarnation, tried again, and the work goes on", function ()
    local c <close> = simcluster.new { workers = 2 }
    local m = c.managers[1]
    c:on(m, [[ local gone, n = state.lead.gone, 0
      state.lead.gone = function (...)
        n = n + 1
        node.spec_gone = n
        if n <= 2 then error("the hook is broken") end
        state.lead.gone = nil
        return gone(...)
      end ]])
    local id = submitted(c, c:job { load = { code = USERS, vus = 2, duration_ms = 3000 } })
    c:run(1000)
    c:crash(c.workers[1])
    ended(c, id, "completed")
    assert.equal(3, c:on(m, "return node.spec_gone"))
    local told = c:incidents(m, "detector.global_death")
    assert.equal(2, c:counts(m, "detector.global_death").raised)
    assert.equal("w-a1", told[1].ids.node)
    assert.truthy(told[1].ids.incarnation)
    assert.truthy(told[1].ids.suspicion_age_ms > 0 and told[1].ids.confirmations >= 0)
    assert.equal("none", told[1].ids.job)
    c:rest()
  end)

  it("F11: a death whose hook fails is no longer told once the member is back, which stays in use", function ()
    local c <close> = simcluster.new { workers = 2 }
    local m = c.managers[1]
    c:on(m, [[ state.lead.gone = function () node.spec_gone = (node.spec_gone or 0) + 1 error "the hook is broken" end ]])
    c:crash(c.workers[1])
    assert.truthy(c:until_true(function () return (c:on(m, "return node.spec_gone") or 0) >= 3 end, 20000))
    c:restart(c.workers[1])
    assert.truthy(c:until_true(function ()
      return c:on(m, "local m = node.swim:member('w-a1') return m and m.state") == "alive"
    end, 20000))
    c:run(200)
    local tries = c:on(m, "state.lead.gone = nil return node.spec_gone")
    c:run(20000)
    assert.equal(tries, c:on(m, "return node.spec_gone"))
    for _, e in ipairs(c:on(m, "return state.lead:all_executors()")) do assert.equal("up", e.state, e.name) end
  end)
end)
