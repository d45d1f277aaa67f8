--- shoal.dc_health on a fake world: states of several datacenters, their changes, levels, limits; the core's rules are in spec/c.
local dc_health = require "shoal.dc_health"
local errors = require "shoal.errors"
local fake_world = require "spec.support.fake_world"
local log = require "shoal.log"

describe("shoal.dc_health", function ()
  local world, h, told

  local function facts(more)
    local f = { reachable = true, managers = 3, managers_alive = 3, workers = 4, cores = 32, free = 32 }
    for key, value in pairs(more or {}) do f[key] = value end
    return f
  end

  local function open(config, on_change)
    told = {}
    h = assert(dc_health.open(world, config, on_change or function (e) told[#told + 1] = ("%s %s %s"):format(e.dc, e.from, e.to) end))
  end

  before_each(function ()
    errors.reset()
    world = fake_world.new()
    log.reset()
    assert(log.open(nil, function () end))
  end)
  after_each(function ()
    if h then h:close() end
    h = nil
    assert(errors.balance())
    errors.reset()
    log.reset()
    assert.equal(0, world.open)
  end)

  it("tells each change once, by its own timer, and leaves no timer behind", function ()
    open()
    assert.equal("unhealthy", h:state "a")
    assert.equal("healthy", h:judge("a", facts()))
    assert.equal("busy", h:judge("b", facts { free = 0 }))
    h:judge("a", facts { managers_alive = 1 })
    world:run(2999)
    assert.same({}, told)
    world:run(1)
    assert.same({ "a healthy degraded" }, told)
    assert.is_nil(world:next_ms())
    h:judge("a", facts())
    h:judge("b", facts { reachable = false })
    assert.same({ "a healthy degraded", "b busy unhealthy" }, told)
    world:run(10000)
    assert.same({ "a healthy degraded", "b busy unhealthy", "a degraded healthy" }, told)
    assert.same({ { name = "a", state = "healthy", level = "none" }, { name = "b", state = "unhealthy", level = "none" } }, h:list())
    assert.is_nil(world:next_ms())
    h:forget "a"
    h:forget "a"
    assert.equal(1, #h:list())
    assert.equal("unhealthy", h:state "a")
  end)

  it("F64: the worst manager sets the level; it clears with the signals, and by itself when they stop", function ()
    open()
    h:judge("a", facts())
    assert(h:press("a", "m1", "throttle"))
    assert(h:press("a", "m2", "reject"))
    assert.equal("reject", h:worst "a")
    assert.equal("none", h:worst "b")
    world:run(3000)
    assert.same({ "a healthy busy" }, told) -- Full or pressed is busy, not worse.
    assert(h:press("a", "m2", "none"))
    assert.equal("throttle", h:worst "a")
    h:drop("a", "m1")
    assert.equal("none", h:worst "a")
    world:run(10000)
    assert.same({ "a healthy busy", "a busy healthy" }, told)
    assert(h:press("a", "m1", "batch"))
    world:run(9999)
    assert.equal("batch", h:worst "a")
    world:run(1)
    assert.equal("none", h:worst "a")
    world:run(10000)
    assert.equal(0, h:counts().pressing)
    assert.is_nil(world:next_ms())
  end)

  it("a function that raises is one incident, and may do anything, close included", function ()
    open(nil, function () error "no" end)
    h:judge("a", facts())
    assert.equal("unhealthy", h:judge("a", facts { reachable = false }))
    local incident = errors.incidents()[1]
    assert.equal("dc_health.changed", incident.site)
    assert.same({ dc = "a", from = "healthy", to = "unhealthy" }, incident.ids)
    h:close()
    local order = {}
    open(nil, function (e)
      order[#order + 1] = e.dc .. " " .. e.to
      if e.dc == "a" then
        h:judge("b", facts { reachable = false })
        h:forget "a"
      else
        h:close()
      end
    end)
    h:judge("a", facts())
    h:judge("b", facts())
    h:judge("a", facts { reachable = false })
    assert.same({ "a unhealthy", "b unhealthy" }, order)
    assert.has_error(function () h:judge("c", facts()) end)
    assert.equal("unhealthy", h:state "b")
  end)

  it("F16: the shipped placement prefers healthy, then busy, then degraded, and never chooses an unhealthy one", function ()
    local placement = assert(loadfile "scripts/policies/placement.lua")().datacenters
    local function dc(name, state, free, level) return { name = name, cores = 8, free = free or 8, health = state, level = level or "none" } end
    local function split(workflow, executors, named)
      local out = {}
      for _, share in ipairs(placement.split(workflow, executors, { datacenters = named }) or { { executor = "wait" } }) do
        out[#out + 1] = share.executor
      end
      return table.concat(out, " ")
    end
    local load, one = { vus = 8, iterations = 8, parts = nil }, { command = { "true" }, parts = 1 }
    local all = { dc("a", "unhealthy"), dc("b", "degraded"), dc("c", "busy", 0), dc("d", "healthy", 1), dc("e", "healthy", 2) }
    assert.equal("c d e", split(load, all))
    assert.equal("e", split(one, all))
    assert.equal("c", split(one, { all[1], all[2], all[3] }))
    assert.equal("b", split(one, { all[1], all[2] }))
    assert.equal("b", split(load, { all[1], all[2] }))
    assert.equal("wait", split(load, { all[1] }))
    assert.equal("b c", split(load, all, { "b", "c" }))
    assert.equal("wait", split(load, all, { "a", "c" })) -- It waits for one that it names.
    assert.equal("d", split(one, { dc("c", "healthy", 8, "reject"), dc("d", "busy", 0, "batch") }))
    assert.equal("c d", split(load, { dc("c"), dc("d") })) -- A gate that knows no health.
    local function choose(home, executors)
      return placement.choose({ part = "p", share = { executor = home }, history = {} }, {}, executors, {}) or "wait"
    end
    assert.equal("b", choose("b", all)) -- At home, while that can be reached.
    assert.equal("e", choose("a", all))
    assert.equal("d", choose("x", { all[2], all[3], all[4] }))
    assert.equal("wait", choose("a", { all[1] }))
  end)

  it("refuses a wrong config by name, impossible facts, and one past its limits", function ()
    local opened, err, code = dc_health.open(world, { busy_percent = 80 })
    assert.is_nil(opened)
    assert.equal("CONFIG", code)
    assert.truthy(err:find("idle_percent must be less than busy_percent", 1, true))
    opened, err = dc_health.open(world, { level = 3 })
    assert.is_nil(opened)
    assert.truthy(err:find("level", 1, true))
    open()
    assert.has_error(function () h:judge("a", facts { managers_alive = 4 }) end)
    assert.has_error(function () h:judge("a", facts { free = 33 }) end)
    assert.has_error(function () h:press("a", "m", "loud") end)
    for i = 2, dc_health.DCS_MAX do assert(h:judge("dc" .. i, facts())) end
    local state
    state, err, code = h:judge("one more", facts())
    assert.is_nil(state)
    assert.equal("FULL", code)
    assert.truthy(err:find("at most 256", 1, true))
    assert.equal(1, h:counts().full)
    for i = 1, dc_health.MANAGERS_MAX do assert(h:press("a", "m" .. i, "throttle")) end
    local ok
    ok, err, code = h:press("a", "one more", "throttle")
    assert.is_nil(ok)
    assert.equal("FULL", code)
    assert.truthy(err:find("at most 32", 1, true))
    assert.equal(1, h:counts().refused)
  end)
end)
