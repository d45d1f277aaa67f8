--- F69: what failed is made good: failures at one site of the unmodified roles (`sim:fail_sites`), one after the other, and the job ends.
local simcluster = require "spec.support.simcluster"

local function done(c, spec)
  local final = c:complete(spec, nil, 30000)
  assert.equal("completed", final.state, final.reason)
  c:rest()
end

describe("made good:", function ()
  it("F69: the first effects of applied commands fail, however many: driver, parts, end and feed are put right", function ()
    for times = 1, 9, 2 do
      local c <close> = simcluster.new { seed = times, workers = 2 }
      local m = c.managers[1]
      c.s:fail_sites(m, { share = 1, site = "lead.fact", times = times, kinds = { call = true }, seed = times })
      done(c, c:job { one = { work = ("one%d 50"):format(times) }, two = { after = { "one" }, work = ("two%d 20"):format(times) } })
      assert.equal(times, c:counts(m, "lead.fact").raised)
    end
  end)

  it("F69: tasks of a leader that raise at their beginning begin again", function ()
    for _, site in ipairs { "lead.run", "lead.place", "lead.dispatch", "lead.watch", "rpc.handler" } do
      local c <close> = simcluster.new {}
      local m = c.managers[1]
      c.s:fail_sites(m, { share = 1, site = site, times = 2, kinds = { task = true } })
      done(c, c:job { one = { work = ("one.%s 50"):format(site) } })
    end
  end)

  it("F69: a result that its worker could not take over is given again, and its cores come free", function ()
    local c <close> = simcluster.new {}
    local w = c.workers[1]
    c.s:fail_sites(w, { share = 1, site = "exec.result", times = 2, kinds = { hook = true } })
    done(c, c:job { one = { work = "one.result 50" } })
    assert.equal(2, c:counts(w, "exec.result").raised)
    local told = c:incidents(w, "exec.result")
    assert.same({ "one", 1, 500 }, { told[1].ids.workflow, told[1].ids.attempt, told[1].ids.next_retry_ms })
  end)

  it("F69: a callback of C that raised at its end was answered for: its handler runs once, and its task is free again", function ()
    for seed = 1, 3 do
      local c <close> = simcluster.new { seed = seed }
      local m = c.managers[1]
      local id = c:submit(c:job { one = { work = ("one%d 50"):format(seed), retries = 3 } })
      c.s:fail_sites(m, { share = 1, site = "net.request", times = 3, kinds = { callback = true }, seed = seed })
      local final = c:follow(id, 30000)
      assert.equal("completed", final.state, final.reason)
      c:rest()
      assert.equal(3, c:counts(m, "net.request").raised)
      assert.equal(0, c:counts(m, "rpc.handler").raised)
    end
  end)

  it("F69: a probe of a datacenter that raised at its beginning is asked again, and leaves nothing behind", function ()
    local c <close> = simcluster.new { gates = 1 }
    local g = c.gates[1]
    c.s:fail_sites(g, { share = 1, site = "federation.probe", times = 2, kinds = { task = true } })
    c:run(3000)
    assert.equal(2, c:counts(g, "federation.probe").raised)
    assert.same({ 0, 0 }, { c:on(g, "local n = state.registry.federation:counts() return n.unanswered, n.tasks") })
  end)

  it("F69: a job that is cancelled while the effects of its dispatch failed ends all the same", function ()
    for times = 2, 6 do
      local c <close> = simcluster.new { seed = times }
      local m = c.managers[1]
      c.s:fail_sites(m, { share = 1, site = "lead.fact", times = times, kinds = { call = true }, seed = times })
      local id = c:submit(c:job { one = { work = ("one%d 60000"):format(times) } })
      c:on(c.client, "return state.client:cancel(...)", id)
      assert.equal("cancelled", c:follow(id, 30000).state)
      c:rest()
    end
  end)
end)
