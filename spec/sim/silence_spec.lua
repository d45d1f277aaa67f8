--- Silence, judged by nodes that were stalled themselves, and by waiting clients.
local simcluster = require "spec.support.simcluster"

describe("silence, simulated:", function ()
  for stopped_ms, silent_ms in pairs { [2500] = 2100, [11000] = 10000 } do -- order-free: each by itself
    it(("B5: a gate that was paused for %d ms declares no datacenter silent, and its job runs once"):format(stopped_ms), function ()
      local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 2, set = { dc_silent_ms = silent_ms } }
      local g = c.gates[1]
      local id = assert(c:submit(c:job { x = { work = "x 8000", parts = 4, retries = 0 } }))
      c:watch(id)
      c:run(1000)
      c:pause(g)
      c:run(stopped_ms)
      c:resume(g)
      local final
      assert(c:until_true(function ()
        final = c:final(id)
        return final
      end, 60000, 100))
      assert.equal("completed", final.state, final.reason)
      assert.equal(4, c.ran.x)
      assert.equal(0, c:counts(g, "gate.dc_silent").raised)
      assert.equal(1, c:on(g, "return state.registry.silence.late"))
    end)
  end

  it("B5: a datacenter that stays silent after the gate's pause is given up one limit later", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 1, set = { dc_silent_ms = 7000 } }
    local g = c.gates[1]
    c:pause(g)
    c:run(8000)
    c:crash(c.managers[1])
    c:run(5000)
    c:resume(g)
    c:run(6500)
    assert.equal(0, c:counts(g, "gate.dc_silent").raised)
    c:run(2000)
    assert.equal(1, c:counts(g, "gate.dc_silent").raised)
    assert.equal("m-a1", c:incidents(g, "gate.dc_silent")[1].ids.manager)
  end)

  it("B13: a gate that comes back after 12 s knows its datacenters in less than a heartbeat: managers try when it is up", function ()
    for seed = 1, 8 do
      local c <close> = simcluster.new { seed = seed, gates = 1, dcs = { "a", "b" }, workers = 1, set = { heartbeat_ms = 4000 } }
      c:crash(c.gates[1])
      c:run(12000)
      c:restart(c.gates[1])
      c:run(100)
      local function known() return #c:on(c.gates[1], "return node.describe().executors") == 2 end
      assert(c:until_true(known, 3400), ("seed %d: not known after 3.5 s"):format(seed))
      assert.equal("completed", c:complete(c:job { x = { work = "x 10" } }).state)
    end
  end)

  describe("B9: whoever follows a job", function ()
    --- Follow with callbacks that note their events; `limits` as for client:follow.
    local function follow(c, id, limits)
      c:on(c.client, [[ local id, limits = ...
        local heard = { gone = {}, back = {} }
        node.spec_heard = heard
        node.scope:spawn("spec.follow", { job = id }, function ()
          local final, err, code = state.client:follow(id, {
            gone = function (address, silent_ms, _, code)
              heard.gone[#heard.gone + 1] = { address = address, silent_ms = silent_ms, at_ms = require("shoal.task").now_ms(), code = code }
            end,
            back = function (address) heard.back[#heard.back + 1] = address end,
          }, limits)
          heard.ended = { final = final and final.state, err = err, code = code }
        end) ]], id, limits)
    end
    local function heard(c) return c:on(c.client, "return node.spec_heard") end

    it("hears within 5 s that a leader does not answer, also of one that is frozen, or of two", function ()
      local c <close> = simcluster.new { gates = 2, workers = 1 }
      local id = assert(c:submit(c:job({ x = { work = "x 30000" } }, { timeout_ms = 60000 })))
      follow(c, id, { job_ms = 60000 })
      c:run(3000)
      c:pause(c.gates[1])
      c:pause(c.gates[2])
      c:run(2400)
      assert.same({}, heard(c).gone)
      c:run(2600)
      assert.equal(1, #heard(c).gone)
      c:resume(c.gates[1])
      c:resume(c.gates[2])
      c:run(8000)
      assert.equal(1, #heard(c).back)
      assert(c:on(c.client, "return state.client:cancel(...)", id, "enough"))
      c:run(5000)
    end)

    it("hears once that the leader is gone, 4.5 s after its last word, and once that it is back", function ()
      local c <close> = simcluster.new { workers = 1, set = { retention_ms = 60000 } }
      local m = c.managers[1]
      local id = assert(c:submit(c:job({ x = { work = "x 20000", retries = 2 } }, { timeout_ms = 60000 })))
      follow(c, id, { job_ms = 60000 })
      c:run(2000)
      c:crash(m)
      c:run(2400)
      assert.same({}, heard(c).gone)
      c:run(2600)
      assert.equal(1, #heard(c).gone)
      c:run(5000)
      local h = heard(c)
      assert.equal(1, #h.gone)
      assert.equal(m.address, h.gone[1].address)
      assert.is_true(h.gone[1].silent_ms >= 4500 and h.gone[1].silent_ms <= 5000, h.gone[1].silent_ms)
      assert.same({}, h.back)
      c:restart(m)
      assert(c:until_true(function () return heard(c).ended end, 60000, 500))
      h = heard(c)
      assert.equal("completed", h.ended.final, h.ended.err)
      assert.same({ 1, { m.address } }, { #h.gone, h.back })
    end)

    it("ends as UNREACHABLE 15 s after the job's own limit when no leader answers, not before it", function ()
      local c <close> = simcluster.new { workers = 1 }
      local id = assert(c:submit(c:job({ x = { work = "x 2000" } }, { timeout_ms = 10000 })))
      follow(c, id, { job_ms = 10000 })
      c:run(1000)
      c:crash(c.managers[1])
      c:run(23500)
      assert.is_nil(heard(c).ended)
      c:run(6000)
      local h = heard(c)
      assert.equal("UNREACHABLE", h.ended.code)
      assert.equal(1, #h.gone)
    end)

    it("ends as OVERDUE 120 s after the job's own limit when a leader answers and the job does not end", function ()
      local c <close> = simcluster.new { workers = 1 }
      local id = assert(c:submit(c:job { x = { work = "x 400000" } }))
      follow(c, id, { job_ms = 10000 }) -- The follower's limit, not the job's.
      c:run(129000)
      assert.is_nil(heard(c).ended)
      c:run(3000)
      assert.equal("OVERDUE", heard(c).ended.code)
      assert.same({}, heard(c).gone)
      assert(c:on(c.client, "return state.client:cancel(...)", id, "enough"))
      c:run(5000)
    end)

    it("ends as TIMEOUT after a limit of its own", function ()
      local c <close> = simcluster.new { workers = 1 }
      local id = assert(c:submit(c:job { x = { work = "x 8000" } }))
      follow(c, id, { limit_ms = 2000 })
      c:run(2050) -- Not at the end of a longer wait.
      assert.equal("TIMEOUT", heard(c).ended.code)
    end)
  end)
end)
