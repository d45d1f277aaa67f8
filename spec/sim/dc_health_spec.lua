--- The health of datacenters at gates, and what their managers' back-pressure leaves them, through the unmodified roles (F16, F64).
local simcluster = require "spec.support.simcluster"

local USERS = [[return { vu = function (vu) vu:sleep(1000) end }]]

-- Probed every 200 ms; unreachable 4.5 s after a cut; a worse state counts after 0.3 s, a better one after 1 s.
local SETTINGS = { dc_silent_ms = 4500, dc_forget_ms = 3600000 }

local function cluster(options)
  options.set, options.dcs = SETTINGS, options.dcs or { "a", "b" }
  options.gates, options.workers = options.gates or 1, 1
  return simcluster.new(options)
end

local function health(c, g, dc) return c:on(g, "return state.registry.eviction.health:state(...)", dc) end
local function changes(c, g) return c:on(g, "return state.registry.eviction.health:counts().changes") end
local function level(c, g, dc) return c:on(g, "return state.registry.eviction.health:worst(...)", dc) end
local function until_health(c, g, dc, state, ms)
  assert.truthy(c:until_true(function () return health(c, g, dc) == state end, ms or 8000, 20), dc .. " is " .. health(c, g, dc))
end
local function waiting(c, g, id) return c:on(g, "return state.lead:get(...).workflows[1].waiting", id) or "" end

--- The datacenters that a job without names ran in.
local function where(c, workflow)
  local final, seen = c:complete(c:job { load = workflow or { code = USERS, vus = 2, iterations = 2 } }), {}
  for _, a in ipairs(final.result.attempts) do seen[#seen + 1] = a.part:match "^[^/]+/([^/]+)" end
  table.sort(seen)
  return table.concat(seen, " ")
end

--- A manager tells this level from now on.
local function press(c, m, value) c:on(m, "state.lead.measure = function () end state.lead.progress_level = ...", value) end

describe("the health of a datacenter:", function ()
  it("F16: follows the mix of its managers and changes routing, the same at both gates; reaped managers leave the count", function ()
    local c <close> = cluster { gates = 2, managers = 3 }
    for _, g in ipairs(c.gates) do assert.same({ "healthy", "healthy" }, { health(c, g, "a"), health(c, g, "b") }) end
    assert.equal("a b", where(c))
    local leader = c:on(c.gates[1], "return state.registry.dcs.a.leader")
    local gone = {}
    for i = 1, 3 do
      if c.managers[i].name ~= leader and c.managers[i].name ~= c:on(c.gates[2], "return state.registry.dcs.a.leader") then
        gone[#gone + 1] = c.managers[i]
      end
    end
    c:crash(gone[1]) -- One of three: a majority lives.
    c:run(8000)
    for _, g in ipairs(c.gates) do assert.equal("healthy", health(c, g, "a")) end
    assert.equal("a b", where(c))
    c:crash(gone[2])
    for _, g in ipairs(c.gates) do until_health(c, g, "a", "degraded") end
    assert.equal("b", where(c))
    local facts = c:on(c.gates[1], "return state.registry:facts 'a'")
    assert.same({ 3, 1, true }, { facts.managers, facts.managers_alive, facts.reachable })
    c:restart(gone[1]) -- Two of three: healthy once that has lasted.
    for _, g in ipairs(c.gates) do until_health(c, g, "a", "healthy") end
    assert.equal("a b", where(c))
    c:crash(gone[1])
    for _, g in ipairs(c.gates) do
      until_health(c, g, "a", "degraded")
      for _, m in ipairs(gone) do assert(c:on(g, "return state.registry:erase(...)", m.name)) end
    end
    for _, g in ipairs(c.gates) do until_health(c, g, "a", "healthy") end -- One of one.
    assert.equal("a b", where(c))
  end)

  it("F16: a full one is busy and never worse; work goes elsewhere while there is room, and there when nowhere else is", function ()
    local c <close> = cluster {}
    local g = c.gates[1]
    local function fill(dc)
      local load = { code = USERS, vus = 4, cores = 4, parts = 1, duration_ms = 12000 }
      local id = assert(c:submit(c:job({ load = load }, { datacenters = { dc } })))
      c:watch(id)
      return id
    end
    local one = fill "a"
    until_health(c, g, "a", "busy")
    assert.equal("b", where(c, { work = "small 20" }))
    local other = fill "b"
    until_health(c, g, "b", "busy")
    local id = assert(c:submit(c:job { load = { work = "queued 20" } }))
    c:watch(id)
    for _ = 1, 20 do
      c:run(200)
      assert.same({ "busy", "busy" }, { health(c, g, "a"), health(c, g, "b") })
    end
    for _, each in ipairs { one, other, id } do
      assert.truthy(c:until_true(function () return c:final(each) end, 60000, 100))
      assert.equal("completed", c:final(each).state)
    end
    until_health(c, g, "a", "healthy")
    c:rest()
  end)

  it("F16: is damped: short cuts change nothing, and one that has just returned is degraded before it is healthy", function ()
    local c <close> = cluster {}
    local g, m = c.gates[1], c.managers[1]
    local before = changes(c, g)
    for _ = 1, 6 do
      c:cut(g, m)
      c:run(900)
      c:heal(g, m)
      c:run(700)
      assert.equal("healthy", health(c, g, "a"))
    end
    assert.equal(before, changes(c, g))
    c:cut(g, m)
    until_health(c, g, "a", "degraded") -- Suspected.
    assert.equal("b", where(c))
    until_health(c, g, "a", "unhealthy")
    local id = assert(c:submit(c:job({ load = { work = "far 20" } }, { datacenters = { "a" } })))
    c:watch(id)
    c:run(3000)
    assert.equal("datacenter a is not up", waiting(c, g, id)) -- It was evicted meanwhile.
    c:heal(g, m)
    until_health(c, g, "a", "degraded")
    until_health(c, g, "a", "healthy", 3000)
    assert.truthy(c:until_true(function () return c:final(id) end, 20000, 100))
    c:rest()
  end)
end)

describe("back-pressure of managers:", function ()
  it("F64: each level lowers what a gate sends, and it clears when the signals clear", function ()
    local c <close> = cluster {}
    local g, m = c.gates[1], c.managers[1]
    press(c, m, "reject")
    c:run(500)
    assert.equal("reject", level(c, g, "a"))
    until_health(c, g, "a", "busy")
    assert.equal("b", where(c, { work = "small 20" }))
    local id = assert(c:submit(c:job({ load = { work = "far 20" } }, { datacenters = { "a" } })))
    c:watch(id)
    c:run(3000)
    assert.equal("datacenter a presses back: its managers are at level reject", waiting(c, g, id))
    press(c, m, "none")
    assert.truthy(c:until_true(function () return c:final(id) end, 3000, 20))
    assert.equal("none", level(c, g, "a"))
    until_health(c, g, "a", "healthy")
    c:rest()
  end)

  it("F64: a part whose datacenter takes nothing holds back no other of its workflow", function ()
    local c <close> = cluster {}
    local m = c.managers[1]
    press(c, m, "reject")
    c:run(500)
    local id = assert(c:submit(c:job({ load = { code = USERS, vus = 2, iterations = 12 } }, { datacenters = { "a", "b" } })))
    c:watch(id)
    c:run(2500)
    local parts = {}
    for key, state in pairs(c:states(id)) do
      local part = key:match "^g1 .* (load/%l)$"
      if part then parts[part] = state end
    end
    assert.same({ ["load/a"] = "pending at nil", ["load/b"] = "dispatched at b" }, parts)
    press(c, m, "none")
    assert.truthy(c:until_true(function () return c:final(id) end, 10000, 20))
    assert.equal("completed", c:final(id).state)
    c:rest()
  end)

  it("F64: throttle leaves 10 parts a second, batch 2; control traffic is not touched", function ()
    local c <close> = cluster { dcs = { "a" } }
    local g, m = c.gates[1], c.managers[1]
    local function sent() return c:on(g, "return state.spec_sent") end
    c:on(g, [[ local took = state.lead.took
      state.spec_sent = 0
      function state.lead.took(name) state.spec_sent = state.spec_sent + 1 took(name) end ]])
    for _, case in ipairs { { "throttle", 10, 30 }, { "batch", 2, 8 } } do
      press(c, m, case[1])
      c:run(1500)
      local ids, before = {}, sent()
      for i = 1, case[3] do ids[i] = assert(c:submit(c:job { load = { work = "w 10" } })) end
      local from = sent()
      c:run(2000)
      local rate = (sent() - from) / 2
      assert.is_true(rate <= case[2] + 1 and rate >= case[2] / 2, case[1] .. " " .. rate)
      assert(c:on(c.client, "return state.client:cancel(...)", ids[#ids], "not wanted")) -- It waits its turn, and ends at once.
      press(c, m, "none")
      assert.truthy(c:until_true(function () return sent() - before >= case[3] - 1 end, 6000, 20), "it does not clear")
      c:run(3000)
    end
    c:rest()
  end)

  it("F64: the worst manager sets the datacenter's level; one that dies under load blocks nothing for longer than 10 s", function ()
    local c <close> = cluster { managers = 2 }
    local g = c.gates[1]
    local leader = c:on(g, "return state.registry.dcs.a.leader")
    local other = c.managers[1].name == leader and c.managers[2] or c.managers[1]
    press(c, other, "reject")
    c:run(1500)
    assert.equal("reject", level(c, g, "a"))
    press(c, other, "batch")
    c:run(1500)
    assert.equal("batch", level(c, g, "a"))
    press(c, other, "none")
    c:run(1500)
    assert.equal("none", level(c, g, "a"))
    press(c, other, "reject")
    c:run(1500)
    c:crash(other)
    c:run(8500)
    assert.equal("reject", level(c, g, "a"))
    c:run(1600)
    assert.equal("none", level(c, g, "a"))
  end)
end)
