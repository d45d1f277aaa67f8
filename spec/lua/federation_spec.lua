--- member/federation on a fake world: finding 1.1 at the module, in virtual time. The core's own rules: spec/c/federation_spec.c.
local fake_world = require "spec.support.fake_world"
local core = require "shoal.core.federation"
local errors = require "shoal.errors"
local federation = require "shoal.federation"
local log = require "shoal.log"
local sorted = require "shoal.sorted"
local task = require "shoal.task"

local IDS = "consecutive cycle datacenters dc interval_ms next_delay_ms reachability timeout_ms"

describe("federation", function ()
  local world, f, seen, events, answers

  --- `answers[dc]`: what its probe does; without one it answers after 1 ms.
  local function probe(dc, address, seq, incarnation, timeout_ms)
    seen[#seen + 1] = { dc = dc, address = address, seq = seq, incarnation = incarnation, timeout_ms = timeout_ms, at_ms = task.now_ms() }
    if answers[dc] then return answers[dc](seq, incarnation, timeout_ms) end
    task.sleep(1)
    return { incarnation = incarnation, term = 1, cores = 8 }
  end
  local function open(config, hooks, options)
    f = assert(federation.open(world, config, hooks or {
      probe = probe, on_state = function (event) events[#events + 1] = event end,
    }, options))
    return f
  end
  local function incidents(site)
    local out = {}
    for _, each in ipairs(errors.incidents()) do
      if each.site == (site or "federation.probe") then out[#out + 1] = each end
    end
    return out
  end
  local function times(dc)
    local out = {}
    for _, p in ipairs(seen) do if p.dc == dc then out[#out + 1] = p.at_ms end end
    return out
  end
  local function names(ids) return table.concat(sorted.keys(ids), " ") end
  local function silent() task.sleep(1e6) end

  before_each(function ()
    world = fake_world.new()
    errors.reset()
    task.reset()
    assert(log.open(world, function () end))
    errors.start(world, "g1")
    task.start(world)
    seen, events, answers = {}, {}, {}
  end)
  after_each(function ()
    if f then f:close() end
    f = nil
    task.reset()
    assert(errors.balance())
    errors.reset()
    log.reset()
    assert.equal(0, world.open, "a timer stayed open")
  end)

  it("probes each interval, and makes an event of each change of state, at the bounds that its settings imply", function ()
    open()
    assert(f:know("eu", "m1", "10.0.0.1:1", 1))
    assert.equal("unreachable", f:state "eu")
    world:run(100)
    assert.equal("reachable", f:state "eu")
    assert.same({ "eu", "10.0.0.1:1", 1, 15000 }, { seen[1].dc, seen[1].address, seen[1].seq, seen[1].timeout_ms })
    world:run(20000)
    local at = times "eu"
    assert.equal(11, #at)
    for i = 2, #at do assert.is_true(math.abs(at[i] - at[i - 1] - 2000) < 0.001) end
    local last_ms = at[#at]
    answers.eu = silent
    local suspected_ms, unreachable_ms = federation.bounds()
    assert.same({ 15000, 45000 }, { suspected_ms, unreachable_ms })
    world:run(last_ms + suspected_ms - task.now_ms() - 0.01)
    assert.equal("reachable", f:state "eu")
    world:run(0.02)
    assert.equal("suspected", f:state "eu")
    world:run(unreachable_ms - suspected_ms)
    assert.equal("unreachable", f:state "eu")
    answers.eu = nil
    world:run(2002)
    assert.equal("reachable", f:state "eu")
    local moves = {}
    for i, e in ipairs(events) do moves[i] = e.from .. " " .. e.to .. " " .. e.unanswered end
    assert.same({ "unreachable reachable 0", "reachable suspected 5", "suspected unreachable 20", "unreachable reachable 0" }, moves)
    assert.equal(15000, events[2].silent_ms)
    assert.same({ "m1", "10.0.0.1:1" }, { events[2].leader, events[2].address })
    assert.equal(0, #errors.incidents()) -- No incident for lost packets.
  end)

  for what, fails in sorted {
    ["the hook raises"] = { function () error "no such upvalue" end, "no such upvalue" },
    ["the hook raises a table"] = { function () error { why = 1 } end, "" },
    ["the hook raises nil"] = { function () error(nil) end, "" },
    ["the send is refused"] = { function () return nil, "the queue is full", "FULL" end, "the queue is full" },
    ["the answer cannot be read"] = { function () return nil, "expected a map", "MALFORMED" end, "expected a map" },
    ["the answer is no table"] = { function () return "ok" end, "expected a table" },
    ["the answer lacks its term"] = { function (_, incarnation) return { incarnation = incarnation } end, "term = nil" },
    ["the hook returns nothing"] = { function () end, "returned nothing" },
  } do
    it("1.1, F14: " .. what .. ": one incident each time, backoff 2, 4, 8, 16, 30, 30 s, another dc on time, verdicts on time", function ()
      open()
      assert(f:know("bad", "m1", "10.0.0.1:1", 1))
      assert(f:know("good", "m2", "10.0.0.2:1", 1))
      world:run(100)
      local answered_ms = times("bad")[1]
      answers.bad = fails[1]
      local verdicts = {}
      for _ = 1, 1600 do
        world:run(100)
        local state = f:state "bad"
        verdicts[state] = verdicts[state] or task.now_ms() - answered_ms
      end
      assert.is_true(math.abs(verdicts.suspected - 15000) <= 100, verdicts.suspected)
      assert.is_true(math.abs(verdicts.unreachable - 45000) <= 100, verdicts.unreachable)
      local at, told = times "bad", incidents()
      assert.equal(#at - 1, errors.count("federation.probe").raised)
      for i, want in ipairs { 2, 4, 8, 16, 30, 30 } do
        local gap = (at[i + 2] - at[i + 1]) / 1000
        assert.is_true(gap >= 0.8 * want - 0.001 and gap <= 1.2 * want + 0.001, ("gap %d is %.3f s"):format(i, gap))
        local incident = told[i]
        if incident then -- The policy holds back the sixth and later ones.
          assert.equal(IDS, names(incident.ids))
          assert.is_nil(incident.missing)
          assert.same({ "bad", i, 2000, 5000 },
            { incident.ids.dc, incident.ids.consecutive, incident.ids.interval_ms, incident.ids.timeout_ms })
          assert.is_true(math.abs(incident.ids.next_delay_ms / 1000 - gap) < 0.002)
          assert.truthy(tostring(incident.message):find(fails[2], 1, true), incident.message)
          assert.truthy(incident.ids.datacenters:find("bad", 1, true))
        end
      end
      assert.same({ "reachable", "suspected" }, { told[1].ids.reachability, told[4].ids.reachability })
      local good = times "good"
      assert.is_true(#good >= 80)
      for i = 2, #good do assert.is_true(math.abs(good[i] - good[i - 1] - 2000) < 0.001, "another one was late") end
      assert.equal("reachable", f:state "good")
      answers.bad = nil
      world:run(37000)
      assert.equal("reachable", f:state "bad") -- One success:
      answers.bad = fails[1]
      local before = #times "bad"
      world:run(30000)
      at = times "bad"
      assert.is_true(at[before + 2] - at[before + 1] <= 2400, "one success resets the backoff")
    end)
  end

  it("1.1: an unanswered probe keeps the interval, whatever the transport calls it, and is no incident", function ()
    open()
    assert(f:know("eu", "m1", "10.0.0.1:1", 1))
    for _, code in ipairs { "TIMEOUT", "DISCONNECTED", "ECONNREFUSED", "REFUSED", "UNHANDLED", "FAILED" } do
      answers.eu = function () return nil, "none", code end
      world:run(2000)
    end
    world:run(10000)
    local at = times "eu"
    for i = 2, #at do assert.is_true(math.abs(at[i] - at[i - 1] - 2000) < 0.001) end
    assert.equal(0, #errors.incidents())
    assert.equal("none (FAILED)", f:get("eu").last)
    assert.equal(#at, f:counts().unanswered)
  end)

  it("1.1: what our own transport refuses is an error of ours, whatever it calls it: one incident each, and a backoff", function ()
    open()
    assert(f:know("eu", "m1", "10.0.0.1:1", 1))
    local told = 0
    for _, code in ipairs { "CIRCUIT", "CLOSED", "CONFIG", "FULL", "MALFORMED", "MEMORY", "TOO_LARGE", "UNSUPPORTED" } do
      answers.eu = function () return nil, "not sent", code end
      world:run(40000) -- The backoff ends at 36 s.
      local list = incidents()
      assert.is_true(#list > told, code)
      told = #list
      assert.equal(code, list[told].code)
    end
    assert.equal(0, f:counts().unanswered)
  end)

  it("F14: takes the same leader at another address at once; an answer from the old one is ignored", function ()
    open()
    assert(f:know("eu", "m1", "10.0.0.1:1", 1))
    answers.eu = function (_, incarnation)
      task.sleep(1500)
      return { incarnation = incarnation, term = 1 }
    end
    world:run(100)
    answers.eu = nil
    assert(f:know("eu", "m1", "10.0.0.9:1", 1))
    world:run(50)
    assert.same({ 2, "10.0.0.9:1" }, { #seen, seen[2].address })
    world:run(1800)
    assert.equal(1, f:counts().stale_incarnation)
    assert.equal("reachable", f:state "eu")
  end)

  it("F14: takes a new leader while a probe is under way; the old one's answer is ignored, and is no error", function ()
    open()
    assert(f:know("eu", "m1", "10.0.0.1:1", 7))
    answers.eu = function (_, incarnation)
      task.sleep(3000)
      return { incarnation = incarnation, term = 7 }
    end
    world:run(100)
    answers.eu = nil
    assert(f:know("eu", "m2", "10.0.0.2:1", 1)) -- Terms of different leaders are not compared.
    world:run(100)
    assert.same({ "10.0.0.2:1", 2 }, { seen[2].address, seen[2].seq })
    assert.is_true(seen[2].incarnation > seen[1].incarnation)
    world:run(5000)
    assert.same({ 1, 1, 0 }, { f:counts().stale_incarnation, f:counts().leaders, f:counts().own_errors })
    assert.equal(0, #errors.incidents())
    assert.same({ "m2", "reachable" }, { f:get("eu").leader, f:state "eu" })
  end)

  it("F14: ignores and counts answers with an old incarnation or term", function ()
    open()
    assert(f:know("eu", "m1", "10.0.0.1:1", 7))
    answers.eu = function (_, incarnation) return { incarnation = incarnation - 1, term = 7 } end
    world:run(1900)
    answers.eu = function (_, incarnation) return { incarnation = incarnation, term = 6 } end
    world:run(2000)
    assert.same({ 1, 1, 0 }, { f:counts().stale_incarnation, f:counts().stale_term, f:counts().acks })
    assert.equal("unreachable", f:state "eu")
    assert.equal(0, #errors.incidents())
    local ok, err, code = f:know("eu", "m1", "10.0.0.1:1", 6)
    assert.same({ nil, "m1 led eu with term 7, and now says 6", "STALE" }, { ok, err, code })
  end)

  it("a raising on_state is one incident; the state changed before, and the other datacenters' events come", function ()
    local calls = 0
    open(nil, { probe = probe, on_state = function (event) calls = calls + 1 error("boom " .. event.dc) end })
    assert(f:know("a", "m1", "10.0.0.1:1", 1))
    assert(f:know("b", "m2", "10.0.0.2:1", 1))
    world:run(1000)
    assert.same({ 2, "reachable", "reachable" }, { calls, f:state "a", f:state "b" })
    local told = incidents "federation.state"
    assert.equal(2, #told)
    assert.equal("dc from to", names(told[1].ids))
  end)

  it("a raising on_answer is one incident with all ids; the answer counts", function ()
    open(nil, { probe = probe, on_state = function () end, on_answer = function () error "bad aggregate" end })
    assert(f:know("a", "m1", "10.0.0.1:1", 1))
    world:run(100)
    assert.equal("reachable", f:state "a")
    assert.equal(1, #incidents())
    assert.equal(IDS, names(incidents()[1].ids))
    assert.equal(8, f:get("a").answer.cores)
  end)

  it("1.1: a failure of the loop itself is one incident with its ids, a backoff of 1 to 30 s, and the loop goes on", function ()
    open()
    assert(f:know("eu", "m1", "10.0.0.1:1", 1))
    world:run(100)
    local real = f.core
    f.core = setmetatable({ next = function () error "out of memory" end }, { __index = function (_, name)
      return function (_, ...) return real[name](real, ...) end
    end })
    world:run(120000)
    local told = incidents "federation.probe_loop"
    assert.equal("consecutive cycle datacenters interval_ms next_delay_ms", names(told[1].ids))
    assert.equal("eu", told[1].ids.datacenters)
    for i, want in ipairs { 1, 2, 4, 8, 16 } do
      local delay = told[i].ids.next_delay_ms / 1000
      assert.is_true(delay >= 0.8 * want - 0.001 and delay <= 1.2 * want, delay)
    end
    f.core = real
    world:run(40000)
    assert.equal("reachable", f:state "eu")
    local before = #seen
    world:run(20000)
    assert.is_true(#seen - before >= 10)
  end)

  it("1.1: a probe whose task cannot be started is an error of ours, of that datacenter alone", function ()
    open()
    assert(f:know("bad", "m1", "10.0.0.1:1", 1))
    assert(f:know("good", "m2", "10.0.0.2:1", 1))
    world:run(100)
    local real = f.scope.spawn
    f.scope.spawn = function (scope, site, ids, fn, self, d, ...)
      if d.name == "bad" then error "out of tasks" end
      return real(scope, site, ids, fn, self, d, ...)
    end
    world:run(13000)
    local told = incidents()
    assert.same({ 3, IDS, "bad", 3 }, { #told, names(told[3].ids), told[3].ids.dc, told[3].ids.consecutive })
    assert.equal(0, #incidents "federation.probe_loop")
    assert.equal(7, #times "good")
  end)

  it("a hook that waits for ever is ended, and does not pile up", function ()
    open()
    assert(f:know("eu", "m1", "10.0.0.1:1", 1))
    answers.eu = silent
    world:run(600000)
    assert.is_true(f.scope:count() <= core.IN_FLIGHT + 3, f.scope:count())
    assert.is_true(#seen >= 299)
  end)

  it("1.1: close interrupts the loop and a probe under way, from outside and from each hook", function ()
    local left = {}
    open()
    assert(f:know("eu", "m1", "10.0.0.1:1", 1))
    answers.eu = function ()
      local mark <close> = setmetatable({}, { __close = function () left[#left + 1] = "interrupted" end })
      task.sleep(1e6)
      return mark
    end
    world:run(3000)
    f:close()
    assert.same({ "interrupted", "interrupted" }, left)
    assert.equal(0, f.scope:count())
    local count = #seen
    world:run(60000)
    assert.equal(count, #seen)
    for _, name in ipairs { "probe", "on_state", "on_answer" } do
      local hooks = { on_state = function () end, on_answer = function () end }
      function hooks.probe(_, _, _, incarnation)
        if name == "probe" then f:close() end
        return { incarnation = incarnation, term = 1 }
      end
      if name ~= "probe" then hooks[name] = function () f:close() end end
      open(nil, hooks)
      assert(f:know("eu", "m1", "10.0.0.1:1", 1))
      assert(f:know("us", "m1", "10.0.0.1:1", 1))
      world:run(10000)
      assert.equal(0, f.scope:count(), name)
    end
    assert.equal(0, #errors.incidents())
  end)

  it("on_state may forget and know datacenters, its own too", function ()
    open(nil, { probe = probe, on_state = function (event)
      f:forget(event.dc)
      if event.dc == "a" then assert(f:know("b", "m", "10.0.0.2:1", 1)) end
    end })
    assert(f:know("a", "m", "10.0.0.1:1", 1))
    world:run(5000)
    assert.same({}, f:list())
    assert.equal(0, f:counts().dcs)
    assert.equal(0, #errors.incidents())
  end)

  it("a stall of this process accuses nobody", function ()
    open()
    assert(f:know("eu", "m1", "10.0.0.1:1", 1))
    world:run(5000)
    world.time_ns = world.time_ns + 3600 * 1000000000
    world:run(1000)
    assert.equal("reachable", f:state "eu")
    world:run(60000)
    assert.same({ 1, 1 }, { f:counts().stalls, #events })
  end)

  it("takes dcs_max datacenters, and refuses one more by name", function ()
    open { dcs_max = 3 }
    for i = 1, 3 do assert(f:know("d" .. i, "m", "10.0.0.1:1", 1)) end
    local ok, err, code = f:know("d4", "m", "10.0.0.1:1", 1)
    assert.same({ nil, "FULL" }, { ok, code })
    assert.truthy(err:find("datacenter d4: 3 are known already, that is dcs_max", 1, true), err)
    f:forget "d2"
    f:forget "unknown"
    assert(f:know("d4", "m", "10.0.0.1:1", 1))
    assert.same({ "d1", "d3", "d4" }, { f:list()[1].dc, f:list()[2].dc, f:list()[3].dc })
  end)

  it("refuses a configuration that cannot hold, and says what was expected", function ()
    for text, config in sorted {
      ["timeout_max_ms must be at least timeout_ms"] = { timeout_max_ms = 4999 },
      ["must be at most 8 * interval_ms"] = { interval_ms = 1000, timeout_ms = 8001 },
      ["retry_max_ms must be at least retry_ms"] = { retry_max_ms = 1999 },
      ["failures"] = { failures = 0 },
      ['did you mean "interval_ms"'] = { intervl_ms = 5 },
    } do
      local ok, err, code = federation.open(world, config, { probe = probe, on_state = function () end })
      assert.same({ nil, "CONFIG" }, { ok, code })
      assert.truthy(err:find(text, 1, true), err)
    end
    assert.has_error(function () federation.open(world, {}, { probe = probe }) end, "federation.open: on_state: expected a function, found nil")
    assert.same({ nil, "CONFIG" }, { federation.bounds { failures = 0 }, select(3, federation.bounds { failures = 0 }) })
    assert.same({ 5000, 20000 }, { federation.bounds({ interval_ms = 800, suspicion_ms = 15000, timeout_ms = 500 }, 1000) })
  end)

  it("the binding refuses misuse by raising in its caller, and nothing of it reaches an assertion", function ()
    local c = assert(core.new { now_ns = 1000, dcs_max = 2 })
    assert.has_error(function () c:know(999, 1) end, "bad argument #1 to 'know' (lies before the time of an earlier call)")
    assert.has_error(function () c:lead(1000, 5, 1) end, "bad argument #2 to 'lead' (no datacenter has this number)")
    assert.has_error(function () c:forget(-1) end, "bad argument #1 to 'forget' (no datacenter has this number)")
    assert.has_error(function () c:know(1000, -1) end, "bad argument #2 to 'know' (must not be negative)")
    assert.same({ nil, "NOT_FOUND" }, { (c:ack(1000, 1 << 40, 1, 1, 1)), select(3, c:ack(1000, 1 << 40, 1, 1, 1)) })
    assert.same({ nil, "NOT_FOUND" }, { (c:fail(1000, 0, 1 << 40, true)), select(3, c:fail(1000, 0, 1 << 40, true)) })
    assert.is_nil(c:view(1000, 0))
    assert.is_nil(c:deadline())
    c:know(1000, 1)
    assert.equal("federation: 1 datacenters, 0 reachable, 0 suspected", tostring(c))
    c:close()
    c:close()
    assert.has_error(function () c:counts() end, "calling 'counts' on bad self (it is closed)")
    assert.equal("federation: closed", tostring(c))
    assert.same({ nil, "federation: failures: expected 1 to 100", "CONFIG" }, { core.new { failures = 101 } })
    assert.has_error(function () core.new { failures = "many" } end)
  end)
end)
