--- Scenario families (SCENARIOS.md) F10, F11, F12, F61 and F68 through the unmodified roles in virtual time: true and false deaths, the
--- state kept of dead members, and the retries of nodes that wait for them.
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local GARBAGE = "collectgarbage() collectgarbage()" -- Once more for objects with a finalizer.

local function member(c, node, name)
  return c:on(node, [[ local m = node.swim:member(...)
    return m and { state = m.state, generation = m.incarnation.generation, version = m.incarnation.version } ]], name)
end

local function counts(c, node) return c:on(node, "return node.swim:counts()") end

local function above(a, b) return a.generation > b.generation end

local function begun(c, spec)
  local id = assert(c:submit(spec))
  c:watch(id)
  return id
end

local function ended(c, id, limit_ms)
  assert.truthy(c:until_true(function () return c:final(id) end, limit_ms or 60000, 100), "the job did not end")
  assert.equal("completed", c:final(id).state, c:final(id).reason)
  return c:final(id)
end

--- Without the wrappers of transport peers, which are held weakly, and the node's bounded journal.
local function alive(paths)
  local out = {}
  for _, path in ipairs(paths) do
    if not path:find "^rpc%.peers%[" and not path:find "^journal%.ring%[" then out[#out + 1] = path end
  end
  return out
end

--- Every table of every role but the client's that names one of these, by node.
local function named(c, words)
  local out = {}
  for _, node in ipairs(c.nodes) do
    if node ~= c.client and c:ask(node, "look") then
      c:on(node, GARBAGE)
      local found = alive(c:ask(node, "named", words))
      if #found > 0 then out[node.name] = found end
      for _, m in ipairs(c:on(node, "local o = {} for i, m in ipairs(node.swim:members()) do o[i] = m.name end return o")) do
        for _, word in ipairs(words) do
          if m == word then out[node.name .. " swim"] = m end
        end
      end
    end
  end
  return out
end

describe("a restarted node:", function ()
  for _, pause_ms in ipairs { 50, 400, 6000 } do
    it(("F10: is back strictly above its old incarnation everywhere, %d ms after its crash"):format(pause_ms), function ()
      local c <close> = simcluster.new { managers = 2, workers = 2 }
      for _, victim in ipairs { c.workers[1], c.managers[2] } do
        local before = {}
        for _, node in ipairs { c.managers[1], c.workers[2] } do before[node] = member(c, node, victim.name) end
        for _ = 1, pause_ms < 1000 and 3 or 1 do -- Also several times within one second of the wall clock.
          c:crash(victim)
          c:run(pause_ms)
          c:restart(victim)
          c:run(300)
          before[c.managers[1]] = above(member(c, c.managers[1], victim.name), before[c.managers[1]])
            and member(c, c.managers[1], victim.name) or before[c.managers[1]] -- Each known life is an old one then.
        end
        if c:on(victim, "return node.swim:self().incarnation.generation") == before[c.managers[1]].generation then
          c:crash(victim) -- That one is known already; the next must be above it, too.
          c:run(pause_ms)
          c:restart(victim)
        end
        assert.truthy(c:until_true(function ()
          for node, old in pairs(before) do -- order-free: all must hold
            local now = member(c, node, victim.name)
            if now.state ~= "alive" or not above(now, old) then return false end
          end
          return true
        end, 8000, 50), victim.name)
        local own = c:on(victim, "return node.swim:self().incarnation.generation")
        c:run(3000)
        for node in pairs(before) do -- order-free: all must hold
          local now = member(c, node, victim.name)
          assert.same({ "alive", own }, { now.state, now.generation })
        end
        assert.equal(own, c:on(victim, "return node.swim:self().incarnation.generation"))
      end
      c:complete(c:job { load = { vus = 4, iterations = 40 } })
    end)
  end

  --- Delay the last datagrams that `victim` sends to `observer` by this much.
  local function held(c, victim, observer, ms)
    c.s:link(victim, observer, { latency_ms = ms })
  end

  it("F10: the late datagrams of a crashed life change nothing of the new one", function ()
    local c <close> = simcluster.new { managers = 2, workers = 2 }
    local m, w = c.managers[1], c.workers[1]
    local old = member(c, m, "w-a1")
    held(c, w, m, 7000)
    c:run(500)
    c:crash(w)
    c.s:link(w, m, nil)
    c:restart(w)
    assert.truthy(c:until_true(function () return above(member(c, m, "w-a1"), old) end, 6000, 50))
    assert.truthy(c:until_true(function () local e = c:ask(m, "look").lead.executors["w-a1"] return e and e.state == "up" end, 500))
    c:hear(m)
    local now, at = member(c, m, "w-a1"), c.s:now_ms()
    local late = #c.s:log()
    c.s:trace(true)
    c:run(7000)
    c.s:trace(false)
    assert.truthy(c.s:log():sub(late):find "deliver w%-a1>m%-a1 udp", "nothing came late")
    assert.same(now, member(c, m, "w-a1"))
    assert.same({}, c:events(m))
    assert.equal(7000, math.floor(c.s:now_ms() - at + 0.5))
    c:complete(c:job { load = { vus = 4, iterations = 40 } })
  end)

  it("F10: the old life's farewell, come late, does not send the new life away", function ()
    local c <close> = simcluster.new { managers = 1, workers = 2 }
    local m, w = c.managers[1], c.workers[1]
    for _, other in ipairs { m, c.workers[2] } do held(c, w, other, 6000) end
    c.s:signal(w, "TERM") -- It leaves, and no member gets that yet.
    assert.truthy(c:until_true(function () return c.s:status(w) == "ended" end, 4000, 50))
    for _, other in ipairs { m, c.workers[2] } do c.s:link(w, other, nil) end
    assert.not_equal("left", member(c, m, "w-a1").state)
    local old = member(c, m, "w-a1")
    c:start(w)
    assert.truthy(c:until_true(function ()
      local now = member(c, m, "w-a1")
      return now.state == "alive" and above(now, old)
    end, 6000, 50))
    c:hear(m)
    c:run(7000)
    assert.equal("alive", member(c, m, "w-a1").state)
    assert.same({}, c:events(m))
    assert.equal("up", c:ask(m, "look").lead.executors["w-a1"].state)
    c:complete(c:job { load = { vus = 4, iterations = 40 } })
    c:rest()
  end)

  it("F10: a member given up behind a cut lives again when it heals, above what it was; what it ran meanwhile does not count", function ()
    local c <close> = simcluster.new { managers = 2, workers = 2 }
    local m, w = c.managers[1], c.workers[1]
    local id = begun(c, c:job { load = { vus = 2, iterations = 200 } })
    c:run(1000)
    local old = member(c, m, "w-a1")
    c:cut(w, nil)
    assert.truthy(c:until_true(function () return member(c, m, "w-a1").state == "dead" end, 10000))
    c:heal(w, nil)
    assert.truthy(c:until_true(function () return member(c, m, "w-a1").state == "alive" end, 10000))
    local now = member(c, m, "w-a1")
    assert.equal(old.generation, now.generation) -- It is the same life,
    assert.is_true(now.version > old.version)    -- which refuted.
    local final = ended(c, id)
    assert.equal(200, final.result.stats.requests)
    c:check_counts(id, final)
    c:rest { ms = 40000 }
  end)
end)

describe("the dead:", function ()
  local TOMBSTONE_MS = 15000

  --- Tombstones that a spec can outlive.
  local function mortal(c)
    for _, node in ipairs(c.nodes) do
      if node ~= c.client then c:on(node, "assert(node.swim:reconfigure { tombstone_ms = ... })", TOMBSTONE_MS) end
    end
  end

  it("F11: a dead worker is reaped after tombstone_ms with all state; no table of any role names it; it comes back as a new peer", function ()
    local c <close> = simcluster.new { gates = 3, managers = 2, workers = 3 }
    local m, w = c.managers[1], c.workers[2]
    mortal(c)
    local id = begun(c, c:job { load = { vus = 6, iterations = 300 } })
    c:run(1500)
    for _, node in ipairs(c.managers) do c:hear(node) end
    c:crash(w)
    assert.truthy(c:until_true(function () return member(c, m, "w-a2").state == "dead" end, 10000))
    local final = ended(c, id)
    c:check_counts(id, final)
    assert.is_true(#sorted.keys(named(c, { "w-a2", w.address })) > 0, "it was forgotten at once")
    c:run(TOMBSTONE_MS - 6000)
    assert.equal("dead", member(c, m, "w-a2").state)
    c:run(6000 + 3000 + 65000) -- And two sweeps of the transport's peers.
    assert.same({}, named(c, { "w-a2", w.address }))
    for _, node in ipairs(c.managers) do
      assert.is_nil(c:members(node)["w-a2"])
      assert.equal(4, counts(c, node).records)
      assert.same({ "suspect w-a2", "dead w-a2" }, c:events(node))
    end
    for _, gate in ipairs(c.gates) do assert.is_nil(c:members(gate)["w-a2"]) end
    c:restart(w)
    assert.truthy(c:until_true(function ()
      local e = c:ask(m, "look").lead.executors["w-a2"]
      return e and e.state == "up"
    end, 8000))
    assert.equal("join w-a2", c:events(m)[3])
    assert.equal(3, #c:complete(c:job { load = { vus = 6, iterations = 60 } }).result.attempts)
    c:rest()
  end)

  it("F11: who recovers before its tombstone is reaped is kept, and stays past that time", function ()
    local c <close> = simcluster.new { gates = 3, managers = 1, workers = 2 }
    mortal(c)
    for _, case in ipairs { { c.gates[1], c.gates[3] }, { c.managers[1], c.workers[1] } } do
      local observer, victim = table.unpack(case)
      c:hear(observer)
      c:crash(victim)
      assert.truthy(c:until_true(function () return member(c, observer, victim.name).state == "dead" end, 10000))
      c:run(TOMBSTONE_MS - 3000)
      assert.equal("dead", member(c, observer, victim.name).state)
      c:restart(victim)
      assert.truthy(c:until_true(function () return member(c, observer, victim.name).state == "alive" end, 2500, 50))
      c:run(2 * TOMBSTONE_MS)
      assert.equal("alive", member(c, observer, victim.name).state)
      assert.same({ "suspect " .. victim.name, "dead " .. victim.name, "join " .. victim.name }, c:events(observer))
    end
    c:complete(c:job { load = { vus = 4, iterations = 40 } })
    c:rest()
  end)

  it("F11: a gate that died is reaped at its peers, and one that comes back is new", function ()
    local c <close> = simcluster.new { gates = 3, workers = 1 }
    mortal(c)
    local g = c.gates[3]
    c:crash(g)
    c:run(10000 + TOMBSTONE_MS + 65000)
    for _, node in ipairs { c.gates[1], c.gates[2] } do
      assert.is_nil(c:members(node).g3)
      assert.same({}, alive(c:ask(node, "named", { "g3" })))
    end
    c:hear(c.gates[1])
    c:restart(g)
    assert.truthy(c:until_true(function () local m = c:members(c.gates[1]).g3 return m and m.state == "alive" end, 8000, 100))
    c:run(1000)
    assert.same({ "join g3" }, c:events(c.gates[1]))
  end)

  it("F11: a manager silent for dc_forget_ms is reaped at the gates with its datacenter and workers; heard before, it is kept", function ()
    local c <close> = simcluster.new { gates = 2, dcs = { "a", "b" }, workers = 1,
      set_gate = { dc_silent_ms = 3000, dc_forget_ms = 12000 } }
    local m = c.managers[2]
    c:crash(m)
    c:run(9000)
    for _, gate in ipairs(c.gates) do assert.equal("unreachable", c:members(gate)["m-b1"].state) end
    c:restart(m)
    c:run(15000)
    for _, gate in ipairs(c.gates) do assert.equal("alive", c:members(gate)["m-b1"].state) end
    c:crash(m)
    c:crash(c.workers[2])
    c:run(11000)
    for _, gate in ipairs(c.gates) do assert.equal("unreachable", c:members(gate)["m-b1"].state) end
    c:run(3000 + 65000)
    for _, gate in ipairs(c.gates) do
      assert.same({ "a" }, sorted.keys(c:on(gate, "return state.registry.dcs")))
      c:on(gate, GARBAGE)
      assert.same({}, alive(c:ask(gate, "named", { "m-b1", "w-b1", m.address })))
    end
    c:restart(m)
    c:restart(c.workers[2])
    assert.truthy(c:until_true(function () local b = c:members(c.gates[1])["m-b1"] return b and b.state == "alive" end, 8000, 100))
    c:run(5000)
    local final = c:complete(c:job({ load = { vus = 2, iterations = 20 } }, { datacenters = { "b" } }))
    assert.equal("b", final.result.attempts[1].dc)
    c:rest()
  end)
end)

describe("no false death:", function ()
  --- 3 managers, 20 workers and a job that uses all of them; `fault` runs meanwhile.
  local function weather(options, fault)
    local c <close> = simcluster.new { seed = options.seed, managers = 3, workers = 20 }
    local observers = { c.managers[1], c.managers[2], c.workers[7], c.workers[20] }
    local id = begun(c, c:job { load = { vus = 40, iterations = 1600, env = { PACE_MS = "250" } } })
    c:run(1000)
    fault(c)
    local final = ended(c, id, 90000)
    c:check_counts(id, final)
    assert.same({ 1600, 20 }, { final.result.stats.requests, #final.result.attempts }) -- None was done twice.
    for _, a in ipairs(final.result.attempts) do assert.same({ "completed", 1 }, { a.state, a.attempt }) end
    local suspicions = 0
    for _, node in ipairs(c.nodes) do
      if node ~= c.client then
        local n = counts(c, node)
        assert.same({ 0, 23 }, { n.deaths, n.live }, node.name)
        suspicions = suspicions + n.suspicions
      end
    end
    for _, m in ipairs(c.managers) do
      assert.equal(0, c:counts(m, "lead.attempt_lost").raised)
      assert.equal(0, c:counts(m, "detector.global_death").raised)
      for _, seen in sorted(c:members(m)) do assert.equal("alive", seen.state, seen.name) end
    end
    return c, suspicions, observers
  end

  for _, loss in ipairs { 0.01, 0.05, 0.20 } do
    it(("F12: %g %% loss: nobody is evicted, and the job that runs meanwhile is done once"):format(loss * 100), function ()
      weather({ seed = 3 }, function (c)
        c.s:link(nil, nil, { latency_ms = 1, jitter_ms = 0.3, loss = loss })
        c:run(12000)
        c.s:link(nil, nil, { latency_ms = 1, jitter_ms = 0.3 })
        c:run(3000)
      end)
    end)
  end

  it("F12: blackouts of 200 ms of all, pauses of some, and jitter: nobody is evicted, and the job is done once", function ()
    weather({ seed = 4 }, function (c)
      for round = 1, 4 do
        c:cut(nil, nil)
        c:run(200)
        c:heal(nil, nil)
        c:run(1300)
        for k = 1, 4 do c:pause(c.workers[(round * 5 + k) % 20 + 1]) end
        if round == 2 then c:pause(c.managers[2]) end
        c:run(500)
        for k = 1, 4 do c:resume(c.workers[(round * 5 + k) % 20 + 1]) end
        if round == 2 then c:resume(c.managers[2]) end
        c:run(1000)
      end
      c.s:link(nil, nil, { latency_ms = 5, jitter_ms = 40 })
      c:run(6000)
      c.s:link(nil, nil, { latency_ms = 1, jitter_ms = 0.3 })
      c:run(3000)
    end)
  end)

  it("F12: a node that is really gone among them is found, and it alone", function ()
    local c <close> = simcluster.new { seed = 5, managers = 3, workers = 20, loss = 0.05 }
    c:crash(c.workers[9])
    assert.truthy(c:until_true(function ()
      for _, m in ipairs(c.managers) do
        if member(c, m, "w-a9").state ~= "dead" then return false end
      end
      return true
    end, 15000, 100))
    c:run(5000)
    for _, m in ipairs(c.managers) do
      assert.same({ 22, 23 }, { counts(c, m).live, counts(c, m).records })
      assert.is_nil(c:ask(m, "look").lead.executors["w-a9"])
    end
  end)

  it("F12, F13: a worker that comes and goes is held dead from its second death on, gets no work, and is back once it is well", function ()
    local c <close> = simcluster.new { managers = 1, workers = 3 }
    local m, w = c.managers[1], c.workers[1]
    c:on(m, "assert(node.swim:reconfigure { flap_half_life_ms = 30000 })")
    c:hear(m)
    for _ = 1, 3 do
      c:cut(w, nil)
      c:run(12000)
      c:heal(w, nil)
      c:run(8000)
    end
    assert.equal("dead", member(c, m, "w-a1").state)
    local why = c:on(m, [[ local why = node.swim:why "w-a1" return { held = why.member.held, ms = why.held_for_ms,
      text = require "shoal.swim".explain(why) }]])
    assert.is_true(why.held and why.ms > 20000 and why.ms <= 90000)
    assert.is_truthy(why.text:find("held dead for flapping", 1, true), why.text)
    local _, said = c.s:log():gsub('"node":"m%-a1","event":"swim.held","member":"w%-a1"', "")
    assert.equal(1, said)
    assert.is_nil(c:ask(m, "look").lead.executors["w-a1"])
    local id = begun(c, c:job { load = { vus = 2, iterations = 40 } })
    for _, attempt in ipairs(ended(c, id).result.attempts) do assert.not_equal("w-a1", attempt.executor) end
    c:run(95000) -- Three half-lives after its last trouble.
    local told = {}
    for _, event in ipairs(c:events(m)) do
      if event:find "^dead" or event:find "^join" then told[#told + 1] = event end
    end
    assert.same({ "dead w-a1", "join w-a1", "dead w-a1", "join w-a1" }, told)
    assert.equal("alive", member(c, m, "w-a1").state)
    assert.equal("up", c:ask(m, "look").lead.executors["w-a1"].state)
    c:complete(c:job { load = { vus = 4, iterations = 40 } })
    c:rest()
  end)

  it("F12: probes go on at their pace, reach everybody within a round of two, and those of different nodes are not in step", function ()
    local c <close> = simcluster.new { seed = 6, managers = 3, workers = 20 }
    c:run(15000)
    local before, phases = {}, {}
    for _, node in ipairs(c.nodes) do
      if node ~= c.client then before[node.name] = counts(c, node).probes end
    end
    c:run(10000)
    for _, node in ipairs(c.nodes) do
      if node ~= c.client then
        local made = counts(c, node).probes - before[node.name]
        assert.is_true(made >= 45 and made <= 55, node.name .. ": " .. made) -- one each 200 ms
        local longest = c:on(node, [[ local most = 0
          for _, m in ipairs(node.swim:members()) do
            local why = m.name ~= node.name and node.swim:why(m.name)
            if why then most = math.max(most, why.heard_s or 1e9) end
          end
          return most ]])
        assert.is_true(longest <= 10, node.name .. ": " .. longest .. " s") -- 2 n - 1 periods
      end
    end
    -- When each next probes, within a period: by the millisecond in which its count grows.
    local last, at = {}, {}
    for _, node in ipairs(c.nodes) do
      if node ~= c.client then last[node.name] = counts(c, node).probes end
    end
    for ms = 0, 199, 5 do
      c:run(5)
      for _, node in ipairs(c.nodes) do
        local n = node ~= c.client and counts(c, node).probes
        if n and n > last[node.name] and not at[node.name] then at[node.name] = ms end
      end
    end
    for _, ms in sorted(at) do phases[ms] = (phases[ms] or 0) + 1 end
    local most = 0
    for _, n in sorted(phases) do most = math.max(most, n) end
    assert.is_true(#sorted.keys(at) >= 22)
    assert.is_true(most <= 6, most .. " of 23 probe within the same 5 ms")
  end)
end)

describe("trying again:", function ()
  it("F61: after an outage of their gate twelve managers register again within their cap, not in step", function ()
    local dcs = {}
    for i = 1, 12 do dcs[i] = ("d%02d"):format(i) end
    local c <close> = simcluster.new { gates = 1, dcs = dcs, workers = 0, set = { dc_silent_ms = 60000 } }
    local g = c.gates[1]
    c:crash(g)
    c:run(20000)
    local tries = 0
    for _, m in ipairs(c.managers) do tries = tries + c:counts(m, "manager.heart").raised end
    assert.is_true(tries >= 12 * 4 and tries <= 12 * 10, tries .. " tries of 12 in 20 s") -- 1, 2, 4, 5, 5 s and less by chance
    c:restart(g)
    assert.truthy(c:until_true(function () return c:ask(g, "look") end, 2000, 1))
    c:on(g, [[ node.spec_at = {}
      local real = node.rpc.handlers["dc.register"]
      node.rpc.handlers["dc.register"] = function (body, peer)
        node.spec_at[body.node] = node.spec_at[body.node] or node.world:now_ns() // 1000000
        return real(body, peer)
      end ]])
    assert.truthy(c:until_true(function () return #sorted.keys(c:on(g, "return node.spec_at")) == 12 end, 20000, 100))
    local at, most = {}, 0
    for _, ms in sorted(c:on(g, "return node.spec_at")) do at[#at + 1] = ms end
    table.sort(at)
    for i, first in ipairs(at) do
      local n = 0
      for k = i, #at do n = n + (at[k] - first <= 50 and 1 or 0) end
      most = math.max(most, n)
    end
    assert.is_true(most <= 5, most .. " of 12 within 50 ms")
    assert.is_true(at[12] - at[1] > 500 and at[12] - at[1] < 15000, at[12] - at[1])
  end)

  it("F68: circuits are one a peer: open after failures, one trial when half open, closed by success, gone with the peer", function ()
    local c <close> = simcluster.new { gates = 2, dcs = { "a" }, managers = 2, workers = 2 }
    local m, one, other = c.managers[1], c.gates[1], c.gates[2]
    c:on(m, [[ local seen = {} node.spec_circuits = seen
      node.rpc:watch(function (peer, event)
        if event == "open" or event == "half_open" or event == "closed" then seen[#seen + 1] = event .. " " .. peer:address() end
      end) ]])
    local function circuit(gate) return c:on(m, "return node.rpc:peer(...):info().circuit", gate.address) end
    assert.same({ "closed", "closed" }, { circuit(one), circuit(other) })
    c:cut(m, one)
    assert.truthy(c:until_true(function () return circuit(one) == "open" end, 20000, 50))
    assert.equal("closed", circuit(other))
    assert.equal("alive", c:members(other)["m-a1"].state)
    c:run(7000) -- Heartbeats are control: they pass the open circuit, and are not answered.
    local refused = c:incidents(m, "manager.heart")
    assert.same({ "TIMEOUT", one.address }, { refused[#refused].code, refused[#refused].ids.gate })
    c:run(40000) -- Half open each 10 s, and each trial fails.
    local tried, opened = 0, 0
    for _, event in ipairs(c:on(m, "return node.spec_circuits")) do
      assert.truthy(event:find(one.address, 1, true), event) -- The other's never moved.
      tried = tried + (event:find "^half_open" and 1 or 0)
      opened = opened + (event:find "^open" and 1 or 0)
    end
    assert.is_true(tried >= 2 and tried <= 5 and opened >= tried, ("%d trials, opened %d times"):format(tried, opened))
    c:heal(m, one)
    assert.truthy(c:until_true(function () return circuit(one) == "closed" end, 20000, 50))
    assert.truthy(c:until_true(function () return c:members(one)["m-a1"].state == "alive" end, 8000, 50))
    assert.equal("closed", circuit(other))
    -- A worker's circuit at its manager goes with the worker.
    local w = c.workers[1]
    local function kept()
      return c:on(m, GARBAGE .. " local p = node.rpc.by_address[...] return p and p:info().circuit or false", w.address)
    end
    assert.equal("closed", kept())
    c:crash(w)
    c:run(80000)
    assert.is_false(kept())
    c:restart(w)
    assert.truthy(c:until_true(function () local e = c:ask(m, "look").lead.executors["w-a1"] return e and e.state == "up" end, 8000))
    assert.equal("closed", kept())
    c:complete(c:job { load = { vus = 4, iterations = 40 } })
  end)
end)
