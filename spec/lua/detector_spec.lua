local core = require "shoal.core.detector"
local detector = require "shoal.detector"
local errors = require "shoal.errors"
local fake_world = require "spec.support.fake_world"
local log = require "shoal.log"

local TICK_MS = 10

describe("detector", function ()
  local world, events, began_ns, opened, raised

  before_each(function ()
    world = fake_world.new()
    errors.reset()
    assert(log.open(world, function () end))
    errors.start(world, "n1")
    events, began_ns, opened, raised = {}, world:now_ns(), {}, nil
  end)
  after_each(function ()
    for _, d in ipairs(opened) do d:close() end
    assert(errors.finish())
    if not raised then assert.same({}, errors.incidents()) end
    errors.reset()
    log.reset()
    assert.equal(0, world.open, "a timer stayed open")
  end)

  local function note(event) events[#events + 1] = event end
  local function open(config, on_event)
    local d = assert(detector.open(world, config, on_event or note))
    opened[#opened + 1] = d
    return d
  end
  --- The events so far, as short text; then none.
  local function said()
    local out = {}
    for i, e in ipairs(events) do out[i] = ("%s %s %s: %s"):format(e.kind, e.job or "-", e.node, e.why) end
    events = {}
    return out
  end
  local function incidents(site)
    raised = true
    local out = {}
    for _, incident in ipairs(errors.incidents()) do
      if incident.site == site then out[#out + 1] = incident end
    end
    return out
  end
  local function now_ms() return (world:now_ns() - began_ns) / 1e6 end

  it("expires a suspicion at its deadline, within a tick of 10 ms, and not before", function ()
    local at_ms
    local d = open({}, function (event)
      note(event)
      if event.kind == "job_expired" then at_ms = now_ms() end
    end)
    assert.is_true(d:suspect("j", "w1", "m1"))
    world:run(9999)
    assert.same({ "job_suspected j w1: suspected" }, said())
    world:run(1 + TICK_MS)
    assert.is_true(at_ms >= 10000 and at_ms <= 10000 + TICK_MS)
    assert.same({ kind = "job_expired", job = "j", node = "w1", incarnation = "0.0", confirmations = 0, timeout_ms = 10000,
      age_ms = math.floor(at_ms), why = "timeout" }, events[1])
  end)

  it("lets a stream of confirmations bring expiry nearer, and never delay it", function ()
    local d = open {}
    d:suspect("j", "w1", "m0")
    local ends_ms, at_ms = 10000, nil
    for i = 1, 2000 do
      if #events == 2 then
        at_ms = now_ms()
        break
      end
      d:confirm("j", "w1", "m" .. i % 50)
      d:suspect("j", "w1", "m0")
      local why = d:why("j", "w1")
      assert.is_true(now_ms() + why.suspicion.ends_ms <= ends_ms + 1) -- ends_ms is whole.
      ends_ms = math.min(ends_ms, now_ms() + why.suspicion.ends_ms)
      world:run(1)
    end
    assert.is_true(at_ms >= 1000 and at_ms <= 1000 + TICK_MS + 1)
    assert.same({ "job_suspected j w1: suspected", "job_expired j w1: timeout" }, said())
  end)

  it("is refuted by progress, cleared with the job there or everywhere, and leaves nothing", function ()
    local d = open {}
    d:suspect("j", "w1", "m1")
    d:suspect("j", "w2", "m1")
    d:suspect("j", "w3", "m1")
    assert.is_true(d:progress("j", "w1"))
    assert.is_false(d:progress("j", "w1"))
    assert.is_false(d:progress("k", "w1"))
    assert.equal(1, d:over("j", "w2"))
    assert.equal(1, d:over "j")
    assert.same({ "job_suspected j w1: suspected", "job_suspected j w2: suspected", "job_suspected j w3: suspected",
      "job_cleared j w1: progress", "job_cleared j w2: job over", "job_cleared j w3: job over" }, said())
    local counts = d:counts()
    assert.same({ 0, 0, 0 }, { counts.suspicions, counts.jobs, counts.nodes })
    world:run(60000)
    assert.same({}, said())
  end)

  it("clears every job suspicion of a node with its death, and leaves other nodes alone", function ()
    local d = open {}
    d:feed { kind = "join", member = { name = "w1", incarnation = { generation = 7, version = 1 } } }
    d:suspect("j", "w1", "m1")
    d:suspect("k", "w1", "m1")
    d:suspect("j", "w2", "m1")
    said()
    d:feed { kind = "dead", member = { name = "w1", incarnation = { generation = 7, version = 1 } } }
    assert.same({ "job_cleared k w1: node dead", "job_cleared j w1: node dead" }, said())
    assert.is_false(d:suspect("j", "w1", "m1"))
    assert.equal("dead", d:why(nil, "w1").state)
    d:feed { kind = "alive", member = { name = "w1", incarnation = { generation = 7, version = 1 } } }
    assert.equal(1, d:counts().stale)
    d:feed { kind = "join", member = { name = "w1", incarnation = { generation = 8, version = 0 } } }
    assert.is_true(d:suspect("j", "w1", "m1"))
    d:feed { kind = "update", member = { name = "w1" } }
    d:feed { kind = "forgotten", member = { name = "w1" } }
    assert.same({ "job_suspected j w1: suspected", "job_cleared j w1: node forgotten" }, said())
    assert.is_nil(d:why(nil, "w1"))
  end)

  it("brings a held member back in the same incarnation, and no dead one", function ()
    local d, member = open {}, { name = "w1", incarnation = { generation = 1, version = 5 }, held = true }
    d:feed { kind = "join", member = member }
    d:suspect("j", "w1", "m1")
    d:feed { kind = "dead", member = member }
    assert.equal("held", d:why(nil, "w1").state)
    d:feed { kind = "join", member = member }
    assert.equal("alive", d:why(nil, "w1").state)
    member.held = nil
    d:feed { kind = "dead", member = member }
    d:feed { kind = "join", member = member }
    assert.equal("dead", d:why(nil, "w1").state)
  end)

  it("detects machines alone: suspected, confirmed, refuted by a greater incarnation, dead in time with their jobs", function ()
    local d = open { profile = "local" }
    d:node("w1", "alive", 1)
    d:suspect(nil, "w1", "a")
    d:suspect("j", "w1", "a")
    world:run(1000)
    d:node("w1", "alive", "1.1")
    assert.same({ "node_suspected - w1: suspected", "job_suspected j w1: suspected", "node_cleared - w1: refuted" }, said())
    d:suspect(nil, "w1", "a")
    d:confirm(nil, "w1", "b")
    d:confirm(nil, "w1", "c")
    world:run(200 + TICK_MS)
    assert.same({ "node_suspected - w1: suspected", "node_expired - w1: timeout", "job_cleared j w1: node dead" }, said())
    assert.equal("1.1", d:why(nil, "w1").incarnation)
  end)

  it("grants shrinking extensions with progress only, up to five a workflow, and one last grace", function ()
    local d, granted = open {}, {}
    for i = 1, 5 do
      granted[i] = d:extend("j", "w1", "build", i)
      local ms, why, code, grace_ms = d:extend("j", "w1", "build", i)
      assert.same({ "nil", i < 5 and "REFUSED" or "FULL", i < 5 and 0 or 10000 }, { tostring(ms), code, grace_ms })
      assert.matches(i < 5 and "no progress" or "used up; a last grace of 10000 ms", why)
    end
    assert.same({ 15000, 7500, 3750, 1875, 1000 }, granted)
    assert.same({ "FULL", 0 }, { select(3, d:extend("j", "w1", "build", 9)) })
    assert.equal(15000, d:extend("j", "w1", "test"))
    assert.equal("REFUSED", (select(3, d:extend("j", "w1", "test"))))
    d:progress("j", "w1")
    assert.equal(7500, d:extend("j", "w1", "test"))
    d:suspect("j", "w1", "m1")
    local total_ms = 15000 + 7500 + 3750 + 1875 + 1000 + 10000 + 15000 + 7500
    world:run(total_ms + 9999)
    assert.same({ "job_suspected j w1: suspected" }, said())
    world:run(1 + TICK_MS)
    assert.same({ "job_expired j w1: timeout" }, said())
  end)

  it("scales by members and health, within the bounds", function ()
    local members, health = 100, 0
    local d = open { members = function () return members end, health = function () return health end }
    d:suspect("j", "w1", "m1")
    assert.equal(2000, d:why("j", "w1").suspicion.least_ms)
    health = 8
    d:suspect("j", "w2", "m1")
    assert.equal(10000, d:why("j", "w2").suspicion.least_ms)
    members, health = 3, 0
    d:suspect("j", "w3", "m1")
    assert.equal(1, d:why("j", "w3").suspicion.wanted)
    events = {}
  end)

  it("2.1: a failing getter falls back to its last good value, so that expiry goes on", function ()
    local answer = function () return 1000 end
    local d = open { members = function () return answer() end }
    d:suspect("j", "w1", "m1")
    local wrongs = {
      function () error "no table" end, function () return nil end, function () return -1 end, function () return 1000001 end,
      function () return 2.5 end, function () return 0 / 0 end, function () return "many" end, function () coroutine.yield() end,
    }
    for i, wrong in ipairs(wrongs) do
      answer = wrong
      d:suspect("j", "v" .. i, "m1")
      assert.equal(3000, d:why("j", "v" .. i).suspicion.least_ms)
      assert.equal(i, errors.count "detector.getter".raised)
    end
    local found = incidents "detector.getter" -- Those of one kind are held back after five.
    for i, at in ipairs { 1, 2, 3 } do
      assert.same({ "members", "j", "v" .. at, 1000 }, { found[i].ids.getter, found[i].ids.job, found[i].ids.node, found[i].ids.last_good })
    end
    assert.equal(#wrongs, d:counts().getter_failures)
    answer = function () return 1000000 end
    d:suspect("j", "w9", "m1")
    assert.equal(6000, d:why("j", "w9").suspicion.least_ms)
    said()
    world:run(10000 + TICK_MS)
    assert.equal(#wrongs + 2, #said())
  end)

  it("2.1: a handler that raises is one incident with its ids; the suspicion is over, and the next event comes", function ()
    local d = open({}, function (event)
      note(event)
      if event.kind == "job_expired" and event.node == "w1" then error "no such part" end
      if event.kind == "job_suspected" and event.node == "w3" then error {} end
    end)
    d:node("w1", "alive", "12.3")
    for i = 1, 3 do d:suspect("j", "w" .. i, "m1") end
    d:confirm("j", "w1", "m2")
    world:run(10000 + TICK_MS)
    assert.equal(6, #said())
    local found = incidents "detector.job_suspicion_expired"
    assert.equal(1, #found)
    local ids = found[1].ids
    assert.same({ "j", "w1", "12.3", 1, 4321 }, { ids.job, ids.node, ids.incarnation, ids.confirmations, ids.timeout_ms })
    assert.is_true(ids.age_ms >= 4321 and ids.age_ms <= 4321 + TICK_MS)
    assert.same({ "job_suspected", "j", "w3" }, { incidents "detector.event"[1].ids.kind, incidents "detector.event"[1].ids.job,
      incidents "detector.event"[1].ids.node })
    assert.equal(0, d:counts().suspicions)
  end)

  it("1.5: reconciles every 5 s; a question that fails for one node does not stop the next", function ()
    local known, asked = { w2 = false, w3 = true }, {}
    local d = open {
      knows_node = function (name)
        asked[#asked + 1] = name
        if name == "w1" then error "not now" end
        if name == "w4" then return 1 end
        return known[name]
      end,
      knows_job = function (job) return job ~= "j" end,
    }
    for i = 1, 4 do d:node("w" .. i, "alive", 1) end
    d:suspect("k", "w2", "m1")
    d:suspect("j", "w3", "m1")
    said()
    world:run(4999)
    assert.same({}, asked)
    world:run(1)
    assert.same({ "w1", "w2", "w3", "w4" }, asked)
    assert.same({ "job_cleared k w2: node forgotten", "job_cleared j w3: job over" }, said())
    local found = incidents "detector.reconcile"
    assert.equal(2, #found)
    assert.same({ node = "w1", job = "none", cycle = 0, looked = 1, forgotten = 0, ended = 0, failed = 0, mended = 0, dropped_nodes = 0,
      dropped_grants = 0 }, found[1].ids)
    assert.equal("w4", found[2].ids.node)
    local counts = d:counts()
    assert.same({ 1, 1, 1, 2 }, { counts.cycles, counts.forgotten, counts.ended, counts.failed })
    world:run(5000)
    assert.equal(2, d:counts().cycles)
  end)

  it("looks at many nodes in several turns of the loop", function ()
    local asked = 0
    local d = open { knows_node = function ()
      asked = asked + 1
      return true
    end }
    for i = 1, 1000 do d:node("w" .. i, "alive", 1) end
    world:run(5000)
    assert.same({ 1000, 1 }, { asked, d:counts().cycles })
  end)

  it("may be closed and re-entered from a handler, a getter and a question", function ()
    local d
    d = open({}, function (event)
      note(event)
      if event.node == "w1" and event.kind == "job_suspected" then
        d:suspect("j", "w2", "m1")   -- Its event follows this one.
        d:progress("j", "w1")
        d:over "j"
        d:suspect("k", "w3", "m1")
        d:suspect("k", "w4", "m1")   -- Never told: the event before it closes.
      end
      if event.node == "w3" then d:close() end
    end)
    d:suspect("j", "w1", "m1")
    assert.same({ "job_suspected j w1: suspected", "job_cleared j w1: progress", "job_suspected k w3: suspected" }, said())
    assert.has_error(function () d:suspect("j", "w1", "m1") end, "detector: this detector is closed")
    d:close()
    world:run(60000)

    local e
    e = open { members = function ()
      e:close()
      return 3
    end }
    local ok, _, code = e:suspect("j", "w1", "m1")
    assert.same({ "nil", "CLOSED" }, { tostring(ok), code })

    local f
    f = open { knows_node = function () f:close() return true end }
    f:node("w1", "alive", 1)
    world:run(5000)
    assert.is_true(f.closed)
  end)

  it("refuses a wrong config with every problem, and a world without timers, and leaves nothing open", function ()
    local d, err, code = detector.open(world, { job_min_ms = 9, colour = "red", members = 5 }, note)
    assert.same({ "nil", "CONFIG" }, { tostring(d), code })
    for _, word in ipairs { "job_min_ms", "colour", "members" } do assert.matches(word, err) end
    d, err, code = detector.open(world, { job_min_ms = 2000, job_max_ms = 1999 }, note)
    assert.same({ "nil", "detector: job_max_ms must lie within job_min_ms .. 3600000", "CONFIG" }, { tostring(d), err, code })
    assert.has_error(function () detector.open(world, {}) end, "detector: on_event: expected a function, found nil")
    local full = setmetatable({ timer = function () return nil, "timer: no memory", "MEMORY" end }, { __index = world })
    d, err, code = detector.open(full, {}, note)
    assert.same({ "nil", "timer: no memory", "MEMORY" }, { tostring(d), err, code })
  end)

  it("takes each limit of its config at its least and most, and refuses one past", function ()
    local limits = {
      node_min_ms = { 10, 3600000 }, node_max_ms = { 1000, 3600000 }, job_min_ms = { 10, 10000 }, job_max_ms = { 1000, 3600000 },
      confirmations = { 0, 7 }, nodes_max = { 1, 10000000 }, job_suspicions_max = { 1, 50000 }, suspicions_max = { 1000, 10000000 },
      extension_base_ms = { 1000, 3600000 }, extension_min_ms = { 1, 30000 }, extensions_max = { 0, 20 }, grace_ms = { 0, 3600000 },
      beat_ms = { 10, 60000 }, stall_ms = { 10, 60000 }, dead_kept_ms = { 1000, 86400000 }, reconcile_ms = { 100, 3600000 },
    }
    for name, range in pairs(limits) do -- order-free: each by itself
      local with = name == "node_min_ms" and { node_max_ms = 3600000 } or {}
      for _, value in ipairs(range) do
        with[name] = value
        local d, err = detector.open(world, with, note)
        assert(d, name .. ": " .. tostring(err))
        d:close()
      end
      for _, value in ipairs { range[1] - 1, range[2] + 1 } do
        with[name] = value
        assert.is_nil((detector.open(world, with, note)), name .. " = " .. value)
      end
    end
  end)

  it("refuses at each cap with a sentence and a code, and evicts nobody", function ()
    local d = open { nodes_max = 3, job_suspicions_max = 2, suspicions_max = 3 }
    assert(d:suspect("j", "a", "m"))
    assert(d:suspect("j", "b", "m"))
    local function refused(what, ok, err, code)
      assert.same({ "nil", "FULL" }, { tostring(ok), code })
      assert.matches(what, err)
    end
    refused("job_suspicions_max", d:suspect("j", "c", "m"))
    assert(d:suspect("k", "c", "m"))
    refused("suspicions_max suspicions", d:suspect("k", "a", "m"))
    refused("nodes_max", d:node("e", "alive", 1))
    assert.equal(1, d:over("k"))
    assert.is_true(d:node("c", "alive", 1))
    refused("nodes_max", d:node("e", "alive", 1))
    local counts = d:counts()
    assert.same({ 1, 1, 2, 2 }, { counts.full_job, counts.full_all, counts.full_nodes, counts.suspicions })
    said()
  end)

  it("says why: accusers by name, how long it has, its extensions; explain makes it text", function ()
    local d = open {}
    d:node("m2", "alive", 1)
    d:suspect("j", "w1", "m1")
    d:extend("j", "w1", "build")
    world:run(2000)
    d:confirm("j", "w1", "m2")
    local why = d:why("j", "w1")
    assert.same({ "m1", "m2" }, why.suspicion.accusers)
    assert.same({ 2000, 15000, 1, 2 }, { why.suspicion.since_ms, why.suspicion.extended_ms, why.suspicion.confirmations, why.suspicion.wanted })
    assert.same({ grants = 1, for_ms = 13000 }, why.extension)
    local text = detector.explain(why)
    assert.matches("suspected for j for 2.0 s by m1, m2 %(1 of 2 confirmations%)", text)
    assert.matches("1 extensions were granted", text)
    assert.matches("not suspected for k", detector.explain(d:why("k", "w1")))
    assert.is_nil(d:why("j", "nobody"))
    assert.matches("1 %(node, job%) suspected", tostring(d))
    d:close()
    assert.equal("detector: closed", tostring(d))
    said()
  end)

  it("raises for what only a program can get wrong", function ()
    local d = open {}
    for _, wrong in ipairs {
      function () d:node("w", "well", 1) end, function () d:node("w", "alive") end, function () d:node("w", "alive", "1") end,
      function () d:node("", "alive", 1) end, function () d:node(("x"):rep(256), "alive", 1) end, function () d:node("w", "alive", -1) end,
      function () d:suspect("j", nil, "m") end, function () d:suspect("j", "w") end, function () d:suspect("", "w", "m") end,
      function () d:progress(nil, "w") end, function () d:over() end, function () d:extend("j", "w", nil) end,
      function () d:extend("j", "w", "f", -1) end,
    } do
      assert.has_error(wrong)
    end
    assert.is_true(d:node(("x"):rep(255), "alive", { generation = 4294967295, version = 4294967295 }))
    assert.equal(1, d:counts().nodes)
  end)

  it("sleeps while nothing is suspected, but for the reconcile pass", function ()
    local d = open {}
    d:node("w1", "alive", 1)
    assert.equal(5000, world:next_ms())
    d:suspect("j", "w1", "m1")
    assert.equal(100, world:next_ms())
    d:progress("j", "w1")
    world:run(100)
    assert.equal(4900, world:next_ms())
    said()
  end)

  it("is the core's binding in virtual time, without a world", function ()
    local d = assert(core.new({ profile = "lan", watches = "workers" }, 0))
    assert.is_true(d:suspect(0, "j", "w", "m", nil, 0, 0))
    assert.equal("job_suspected", d:next().kind)
    assert.is_nil(d:next())
    local now_ns = 0
    while not events[1] do
      now_ns = d:deadline()
      d:tick(now_ns)
      events[1] = d:next()
    end
    assert.is_true(now_ns >= 10e9 and now_ns <= 10e9 + 10e6)
    assert.is_nil(d:deadline())
    assert.same({ "nil", "detector: reconfigure: a stated limit is reached", "FULL" }, (function ()
      d:node(now_ns, "a", "alive", 1, 1)
      d:node(now_ns, "b", "alive", 1, 1)
      local ok, err, code = d:reconfigure { profile = "lan", watches = "workers", nodes_max = 1 }
      return { tostring(ok), err, code }
    end)())
    assert.has_error(function () core.new({ profile = "moon", watches = "workers" }, 0) end)
  end)
end)

describe("examples/detector.lua", function ()
  it("runs on stock Lua, and says what happens and why", function ()
    local build = os.getenv "SHOAL_BUILD" or "build/release"
    local pipe = assert(io.popen("SHOAL_BUILD=" .. build .. " timeout 20 lua5.4 examples/detector.lua 2>&1"))
    local output = pipe:read "a"
    assert(pipe:close(), output)
    for _, line in ipairs {
      "w1 is cleared for job%-1: progress", "by m1, m2 %(1 of 2 confirmations%)", "w2 is dead for job%-1: 2 accusers confirmed",
      "w3 has done 10 units, and gets 15000 ms more", "gets nothing %(REFUSED%)", "a last grace of 10000 ms",
      "the machine w3 is cleared: refuted",
      "the machine w3 is dead\n[^\n]*w3 is cleared for job%-1: node dead\n[^\n]*w3 is cleared for job%-2: node dead",
      "changes something: false", "stale claims: 2; suspicions left: 0\ndone\n$",
    } do
      assert.matches(line, output)
    end
  end)
end)
