--- Scenario families (SCENARIOS.md) F01 to F04 through the unmodified roles in virtual time: the members that nodes know, from which
--- node, and how old that knowledge may be. Checked as a user would: `shoal members`, `shoal status`, the REPL.
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local USERS = [[return { vu = function (vu) vu:sleep(100) end }]]
local NOBODY = "10.0.77.7:7000" -- An address of this network where no machine is.

local function names(c)
  local out = {}
  for _, node in ipairs(c.nodes) do
    if node.role ~= "client" and node ~= c.client then out[#out + 1] = node.name end
  end
  return out
end

--- Every node of each group sees the whole group alive, and nothing else; no member was ever suspected or died.
local function whole(c)
  for _, group in ipairs { c.gates, { table.unpack(c.managers) } } do
    if group == c.gates then assert.is_true(#group > 0) else table.move(c.workers, 1, #c.workers, #group + 1, group) end
    for _, node in ipairs(group) do
      local seen = c:on(node, [[ local out = {} for _, m in ipairs(node.swim:members()) do out[m.name] = m.state end return out ]])
      local want = {}
      for _, other in ipairs(group) do want[other.name] = "alive" end
      assert.same(want, seen, node.name)
      local counts = c:on(node, "return node.swim:counts()")
      assert.same({ 0, 0, 0, #group }, { counts.suspicions, counts.deaths, counts.conflicts, counts.records }, node.name)
    end
  end
end

local function counts(c, node) return c:on(node, "return node.swim:counts()") end

describe("boot:", function ()
  for _, order in ipairs { "reversed", "shuffled" } do
    for seed = 1, order == "shuffled" and 4 or 1 do
      it(("F01: nodes may start in any order (%s %d): all find each other, nobody is suspected, work is done"):format(order, seed), function ()
        local c <close> = simcluster.new { seed = seed, order = order, gates = 3, managers = 3, workers = 3, warm_ms = 6000,
          join = { NOBODY } }
        assert.equal(9, #names(c))
        whole(c)
        local seen = c:members(c.gates[1])
        for _, name in ipairs { "g1", "g2", "g3", "m-a1", "m-a2", "m-a3", "w-a1", "w-a2", "w-a3" } do
          assert.equal("alive", seen[name] and seen[name].state, name)
        end
        c:complete(c:job { load = { vus = 3, iterations = 30 } })
        c:rest()
      end)
    end
  end

  it("F01: a seed where nobody is: tried with backoff, told to nobody, never suspected; struck off, it is gone without a death", function ()
    local c <close> = simcluster.new { managers = 3, workers = 1 }
    local m = c.managers[1]
    for _, node in ipairs(c.managers) do c:hear(node) end
    c:on(m, "assert(node.swim:join { ... })", NOBODY)
    local function tries(ms) -- Datagrams of m that no member can receive.
      local at = #c.s:log()
      c.s:trace(true)
      c:run(ms)
      c.s:trace(false)
      local n = {}
      for from in c.s:log():sub(at):gmatch "drop ([%w-]+)>nowhere udp" do n[from] = (n[from] or 0) + 1 end
      return n
    end
    local first, later = tries(1000), tries(10000)
    assert.is_true((first["m-a1"] or 0) >= 3, "it was tried " .. (first["m-a1"] or 0)) -- After 0.1, 0.2, 0.4 s ...
    assert.is_true(later["m-a1"] >= 5 and later["m-a1"] <= 30, later["m-a1"] .. " tries in 10 s") -- ... and each second.
    assert.same({ "m-a1" }, sorted.keys(later)) -- The others never learned of it.
    for _, node in ipairs(c.managers) do
      for _, member in sorted(c:members(node)) do assert.not_equal(NOBODY, member.address) end
      assert.equal(4, counts(c, node).records)
    end
    assert.is_true(c:on(m, "return node.swim:forget(...)", NOBODY))
    assert.is_false(c:on(m, "return node.swim:forget(...)", NOBODY))
    c:run(2000)
    assert.same({}, tries(5000))
    for _, node in ipairs(c.managers) do
      assert.same({}, c:events(node))
      assert.same({ 0, 0, 0 }, { counts(c, node).suspicions, counts(c, node).deaths, c:counts(node, "detector.global_death").raised })
    end
  end)

  it("F01: seeds are bounded: the 33rd is refused by name, and changes nothing", function ()
    local c <close> = simcluster.new {}
    local taken, code = c:on(c.managers[1], [[
      for i = 1, 40 do
        local ok, _, code = node.swim:join { ("10.0.78.%d:7000"):format(i) }
        if not ok then return i - 1, code end
      end ]])
    assert.equal("FULL", code)
    assert.is_true(taken >= 30 and taken <= 32, taken)
    c:run(20000)
    assert.equal(2, counts(c, c.managers[1]).records)
    c:complete(c:job { load = { vus = 2, iterations = 20 } })
  end)
end)

describe("registration at gates:", function ()
  local function rows(c, gate, role)
    local out = {}
    for name, m in sorted(c:members(gate)) do
      if m.role == role then out[name] = ("%s %s"):format(m.dc, m.state) end
    end
    return out
  end

  it("F02: one entry a manager at every gate, also where a datacenter has several; its workers by who leads it", function ()
    local c <close> = simcluster.new { gates = 2, dcs = { "a", "b" }, managers = 2, workers = 1 }
    c:run(5000) -- Many heartbeats later.
    for _, gate in ipairs(c.gates) do
      assert.same({ ["m-a1"] = "a alive", ["m-a2"] = "a alive", ["m-b1"] = "b alive", ["m-b2"] = "b alive" }, rows(c, gate, "manager"))
      assert.same({ ["w-a1"] = "a alive", ["w-b1"] = "b alive" }, rows(c, gate, "worker"))
      local described = c:on(gate, "return node.describe().executors")
      assert.same({ "a", "b" }, { described[1].name, described[2].name })
      assert.equal(2, #described)
    end
  end)

  it("F02: a manager that registers again after a restart has one entry, and what was stale of it is gone", function ()
    local c <close> = simcluster.new { gates = 2, dcs = { "a", "b" }, workers = 2 }
    local m, w = c.managers[1], c.workers[1]
    local function generation(gate) return c:on(gate, "return state.registry.managers['m-a1'].generation") end
    local before = generation(c.gates[1])
    c:crash(m)
    c:crash(w) -- No node is left to report it.
    c:run(1000)
    assert.truthy(rows(c, c.gates[1], "worker")["w-a1"])
    c:restart(m)
    c:run(5000)
    for _, gate in ipairs(c.gates) do
      assert.same({ ["m-a1"] = "a alive", ["m-b1"] = "b alive" }, rows(c, gate, "manager"))
      assert.same({ ["w-a2"] = "a alive", ["w-b1"] = "b alive", ["w-b2"] = "b alive" }, rows(c, gate, "worker"))
      assert.not_equal(before, generation(gate))
      assert.equal(4, c:on(gate, "return state.lead.executors:get('a').cores"))
    end
    local final = c:complete(c:job { load = { vus = 4, iterations = 40 } })
    assert.equal(3, #sorted.keys(rows(c, c.gates[1], "worker")))
    assert.equal("completed", final.state)
    c:rest()
  end)

  it("F02: a manager that comes back in another datacenter leaves nothing in the first", function ()
    local c <close> = simcluster.new { gates = 2, dcs = { "a", "b" }, workers = 1 }
    c:on(c.managers[2], "node.dc = 'c'") -- As when it was started with another --dc.
    c:run(2500)
    for _, gate in ipairs(c.gates) do
      assert.same({ ["m-a1"] = "a alive", ["m-b1"] = "c alive" }, rows(c, gate, "manager"))
      assert.same({ "a", "c" }, sorted.keys(c:on(gate, "return state.registry.dcs")))
      local described = c:on(gate, "return node.describe().executors")
      assert.same({ 2, "a", "c" }, { #described, described[1].name, described[2].name })
    end
    local refused, why, code = c:submit(c:job({ load = { vus = 1, iterations = 1 } }, { datacenters = { "b" } }))
    assert.same({ nil, "CONFIG" }, { refused, code }, why)
  end)

  it("F02: an unknown datacenter comes in or not as the policy says, which says why; a known one is not asked about", function ()
    local c <close> = simcluster.new { gates = 2, dcs = { "a" }, workers = 1 }
    for _, gate in ipairs(c.gates) do
      c:on(gate, [[ state.registry.policy.admits = function (dc, manager)
        return nil, ("%s of %s: only eu and us are ours"):format(manager, dc) end ]])
    end
    local stranger = c:add { name = "m-zz", role = "manager", dc = "zz", config = { gates = c.gates } }
    c:run(8000)
    assert.same({ ["m-a1"] = "a alive" }, rows(c, c.gates[1], "manager"))
    assert.same({ "a" }, sorted.keys(c:on(c.gates[2], "return state.registry.dcs")))
    local told = c:incidents(stranger, "manager.heart")
    assert.same({ "REFUSED", "dc gate" }, { told[1].code, table.concat(sorted.keys(told[1].ids), " ") })
    assert.truthy(told[1].message:find("m-zz of zz: only eu and us are ours", 1, true))
    assert.is_true(c:counts(stranger, "manager.heart").raised <= 2 * 8)
    for _, gate in ipairs(c.gates) do c:on(gate, "state.registry.policy.admits = function () return true end") end
    c:run(1500)
    assert.same({ ["m-a1"] = "a alive", ["m-zz"] = "zz alive" }, rows(c, c.gates[1], "manager"))
  end)

  it("F02: gates learn of each other's coming, death and return, and of a manager's, each by itself", function ()
    local c <close> = simcluster.new { gates = 3, dcs = { "a" }, workers = 1, set = { dc_silent_ms = 3000 } }
    local function states(gate)
      local out = {}
      for name, m in sorted(rows(c, gate, "gate")) do out[#out + 1] = name .. m end
      return table.concat(out, ",")
    end
    for _, gate in ipairs(c.gates) do assert.equal("g1 alive,g2 alive,g3 alive", states(gate)) end
    c:hear(c.gates[1])
    c:crash(c.gates[3])
    assert.truthy(c:until_true(function () return states(c.gates[1]):find("g3 dead", 1, true) end, 10000, 100))
    assert.truthy(c:until_true(function () return states(c.gates[2]):find("g3 dead", 1, true) end, 10000, 100))
    c:restart(c.gates[3])
    assert.truthy(c:until_true(function ()
      return c:ask(c.gates[3], "look") and states(c.gates[3]) == "g1 alive,g2 alive,g3 alive" end, 5000, 100))
    c:run(1000)
    for _, gate in ipairs(c.gates) do assert.equal("g1 alive,g2 alive,g3 alive", states(gate)) end
    assert.same({ "suspect g3", "dead g3", "join g3" }, c:events(c.gates[1]))
    assert.truthy(c:until_true(function () return rows(c, c.gates[3], "manager")["m-a1"] end, 8000, 100))
    c:crash(c.managers[1])
    c:run(4500)
    for _, gate in ipairs(c.gates) do
      assert.same({ ["m-a1"] = "a unreachable" }, rows(c, gate, "manager"))
      assert.equal("m-a1", c:incidents(gate, "gate.dc_silent")[1].ids.manager)
    end
    c:restart(c.managers[1])
    c:run(4000)
    for _, gate in ipairs(c.gates) do assert.same({ ["m-a1"] = "a alive" }, rows(c, gate, "manager")) end
  end)
end)

describe("heartbeats:", function ()
  it("F03: a manager's that is older, or of an earlier life, is refused as stale and changes nothing", function ()
    local c <close> = simcluster.new { gates = 1, workers = 1 }
    local g, m = c.gates[1], c.managers[1]
    local function beat(more)
      return c:on(m, [[ local gate, more = ...
        local body = { dc = "a", node = "m-a1", address = "10.9.9.9:1", term = 1, generation = more.generation or node.generation,
          seq = more.seq }
        local reply, _, code = node.rpc:peer(gate):call("dc.register", body)
        return reply and "taken" or code ]], g.address, more)
    end
    local function known()
      return c:on(g, "return { state.registry.managers['m-a1'].address, state.lead.executors:get('a').cores }")
    end
    local before, first = known(), c:on(m, "return node.generation")
    assert.same({ m.address, 4 }, before)
    assert.equal("STALE", beat { seq = 1 })
    assert.same(before, known())
    c:crash(m)
    c:run(300)
    c:restart(m)
    assert.truthy(c:until_true(function () return c:ask(m, "look") and known()[2] == 4 end, 10000, 100))
    assert.not_equal(first, c:on(m, "return node.generation"))
    assert.equal("STALE", beat { seq = 1 << 40, generation = first }) -- However many it had counted.
    assert.same(before, known())
    assert.equal(0, c:counts(m, "manager.heart").raised)
    c:complete(c:job { load = { vus = 2, iterations = 20 } })
    c:rest()
  end)

  --- A registration in the name of m-a1, sent by another manager from another address.
  local FORGED = [[ local reply, err, code = node.rpc:peer(...):call("dc.register", { dc = "a", node = "m-a1", address = "10.9.9.9:1",
      term = 1, generation = 12345, seq = 1 }) return reply and "taken" or code, err ]]

  it("F03: a second manager of a living one's name is refused, with one incident that has both addresses; no work is disturbed", function ()
    local c <close> = simcluster.new { gates = 1, managers = 2, workers = 1 }
    local g, m = c.gates[1], c.managers[1]
    local code, err = c:on(c.managers[2], FORGED, g.address)
    assert.equal("EXISTS", code)
    assert.truthy(err:find("m-a1 is known at " .. m.address, 1, true), err)
    c:run(2000)
    local told = c:incidents(g, "gate.namesake")
    assert.equal(1, #told)
    assert.same({ m.address, "10.9.9.9:1", "m-a1" }, { told[1].ids.stays, told[1].ids.out, told[1].ids.manager })
    assert.equal(m.address, c:on(g, "return state.registry.managers['m-a1'].address"))
    assert.equal(0, c:counts(m, "manager.heart").raised)
    assert.equal("completed", c:complete(c:job { load = { vus = 2, iterations = 20 } }).state)
  end)

  it("F03: a datacenter that was registered in its silent manager's name is the manager's again once the other falls silent", function ()
    local c <close> = simcluster.new { gates = 1, managers = 2, workers = 1 }
    local g, m = c.gates[1], c.managers[1]
    local function address() return c:on(g, "return state.registry.managers['m-a1'].address") end
    c:pause(m)
    c:run(4000)
    assert.equal("taken", (c:on(c.managers[2], FORGED, g.address)))
    assert.equal("10.9.9.9:1", address())
    c:resume(m)
    c:run(5000) -- The other one counts while it may yet speak.
    assert.equal("10.9.9.9:1", address())
    assert.is_true(c:counts(m, "manager.heart").raised > 0)
    assert.truthy(c:until_true(function () return address() == m.address end, 60000, 100))
    assert.equal("completed", c:complete(c:job { load = { vus = 2, iterations = 20 } }).state)
    -- A heartbeat that the forger sent before is old now.
    assert.equal("STALE", (c:on(c.managers[2], FORGED, g.address)))
    assert.equal(m.address, address())
  end)

  it("F03: what a worker says of itself: an older version that comes late does not undo a newer one", function ()
    local c <close> = simcluster.new { workers = 1 }
    local m, w = c.managers[1], c.workers[1]
    local function says(cores)
      c:on(w, "node.swim:payload(require('shoal.core.msgpack').pack { role = 'worker', dc = 'a', cores = ... })", cores)
    end
    local function cores() return c:on(m, "return state.lead.executors:get('w-a1').cores") end
    c.s:link(w, m, { latency_ms = 3000 })
    says(2)
    c:run(150) -- The news is in flight, and will be for long.
    c.s:link(w, m, nil)
    says(6)
    assert.truthy(c:until_true(function () return cores() == 6 end, 1000))
    c:hear(m)
    local heard = counts(c, m).received.gossip
    local version = c:on(m, "return node.swim:member('w-a1').payload_version")
    c:run(4000)
    assert.is_true(counts(c, m).received.gossip > heard, "nothing came late")
    assert.equal(6, cores())
    assert.equal(version, c:on(m, "return node.swim:member('w-a1').payload_version"))
    assert.same({}, c:events(m))
  end)

  it("F03: silence past the bound marks a manager's datacenter unhealthy, at the bound and not before; slow but live stays", function ()
    local c <close> = simcluster.new { gates = 1, workers = 1,
      set = { ["federation.interval_ms"] = 500, ["federation.timeout_ms"] = 1000, ["federation.suspicion_ms"] = 1500 } }
    local g, m = c.gates[1], c.managers[1]
    local function state() return c:members(g)["m-a1"].state end
    c.s:link(m, g, { latency_ms = 1500, jitter_ms = 200 }) -- Answers come later than a probe's timeout was.
    for _ = 1, 40 do
      c:run(500)
      assert.equal("alive", state())
    end
    assert.equal(0, c:counts(g, "gate.dc_silent").raised)
    c.s:link(m, g, nil)
    c:run(30000)
    c:cut(m, g)
    local d = c:on(g, "return state.registry.federation:get 'a'")
    c:run(d.suspected_ms - 20)
    assert.equal("alive", state())
    c:run(40)
    assert.equal("suspect", state())
    c:run(d.unreachable_ms - d.suspected_ms - 40)
    assert.equal("suspect", state())
    c:run(40)
    assert.equal("unreachable", state())
    assert.equal("unreachable", c:members(g)["w-a1"].state) -- No other node reports it.
    assert.equal(1, c:counts(g, "gate.dc_silent").raised)
    assert.equal("datacenter a is unreachable", c:on(g, "return node.describe().executors[1].away")) -- It gets no part, and has a moment ...
    c:run(2 * c:on(g, "return node.config.correlation.down_ms") + 20)
    assert.same({}, c:on(g, "return node.describe().executors")) -- ... in which it could be one of several.
    local none, why = c:submit(c:job { load = { vus = 1, iterations = 1 } }, nil, 500)
    assert.is_nil(none)
    assert.truthy(why)
    c:heal(m, g)
    assert.truthy(c:until_true(function () return state() == "alive" end, 8000))
    c:complete(c:job { load = { vus = 2, iterations = 20 } })
  end)

  it("F03: a worker that falls silent is suspected, then dead; one that is only slow stays, and works", function ()
    local c <close> = simcluster.new { workers = 2, set = { profile = "lan" } }
    local m, slow = c.managers[1], c.workers[2]
    c:hear(m)
    c.s:link(slow, nil, { latency_ms = 200, jitter_ms = 40 })
    c.s:link(nil, slow, { latency_ms = 200, jitter_ms = 40 })
    local id = assert(c:submit(c:job { load = { code = USERS, vus = 4, duration_ms = 20000 } }))
    c:watch(id)
    assert.truthy(c:until_true(function () return c:final(id) end, 40000, 200))
    assert.same({ "completed", 2 }, { c:final(id).state, #c:final(id).result.attempts })
    assert.same({}, c:events(m)) -- Not even suspected.
    c:cut(c.workers[1], nil)
    assert.truthy(c:until_true(function () return c:members(m)["w-a1"].state == "suspect" end, 8000))
    assert.truthy(c:until_true(function () return c:members(m)["w-a1"].state == "dead" end, 15000))
    assert.equal("alive", c:members(m)["w-a2"].state)
    c:rest()
  end)
end)

describe("workers:", function ()
  it("F04: a worker without a manager tries again with growing waits, and is taken in when one comes", function ()
    local c <close> = simcluster.new { workers = 1 }
    local m, w = c.managers[1], c.workers[1]
    c:crash(m)
    c:crash(w)
    c:run(500)
    c:restart(w)
    local before, sent = 0, {}
    for second = 1, 12 do
      c:run(1000)
      local now = counts(c, w).sent
      local all = now.sync + now.ping
      sent[second], before = all - before, all
    end
    assert.is_true(sent[1] >= 3, table.concat(sent, " "))
    assert.is_true(sent[1] > sent[12] and sent[12] >= 1 and sent[12] <= 2, table.concat(sent, " ")) -- It goes on for ever.
    c:restart(m)
    assert.truthy(c:until_true(function ()
      local look = c:ask(m, "look")
      local e = look and look.lead.executors["w-a1"]
      return e and e.state == "up"
    end, 4000))
    c:complete(c:job { load = { vus = 2, iterations = 20 } })
  end)
end)
