--- FAILURES 1.1, SCENARIOS F14 and F17 through the unmodified roles: gates probe the leaders of datacenters, whatever fails under them.
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local POLICY = "/shoal/scripts/policies/errors.lua"
local IDS = "consecutive cycle datacenters dc interval_ms next_delay_ms reachability timeout_ms"

local function names(ids) return table.concat(sorted.keys(ids), " ") end

--- One gate over datacenters a and b; `log(c)` is what it probed, when, and each change of state.
local function begin(options)
  options = options or {}
  options.gates, options.dcs, options.workers = options.gates or 1, options.dcs or { "a", "b" }, options.workers or 1
  options.set = options.set or { profile = "lan" }
  local c = simcluster.new(options)
  c:on(c.gates[1], [[
    local task, federation = require "shoal.task", state.registry.federation
    node.spec_probed, node.spec_states = { a = {}, b = {} }, {}
    node.spec_probe = federation.hooks.probe
    federation.hooks.probe = function (dc, ...)
      table.insert(node.spec_probed[dc], task.now_ms())
      return node.spec_probe(dc, ...)
    end
    local changed = federation.hooks.on_state
    federation.hooks.on_state = function (event)
      table.insert(node.spec_states, { dc = event.dc, to = event.to, at_ms = task.now_ms(), unanswered = event.unanswered })
      return changed(event)
    end ]])
  return c, c.gates[1]
end

local function log(c) return c:on(c.gates[1], "return { probed = node.spec_probed, states = node.spec_states }") end
--- Time in which nothing is to be checked on the way.
local function pass(c, ms) c.s:run(ms) end
local function view(c, dc, gate) return c:on(gate or c.gates[1], "return state.registry.federation:get(...)", dc) end
local function state(c, dc, gate) return c:on(gate or c.gates[1], "return state.registry.federation:state(...)", dc) end
local function now(c) return c:on(c.gates[1], "return require('shoal.task').now_ms()") end
local function counts(c) return c:on(c.gates[1], "return state.registry.federation:counts()") end

local function every_interval(at, interval_ms)
  for i = 2, #at do
    assert.is_true(math.abs(at[i] - at[i - 1] - interval_ms) < 1, ("probe %d came after %.1f ms"):format(i, at[i] - at[i - 1]))
  end
end

--- Ways in which probes of datacenter a fail here. `heal` undoes it.
local ways = {
  ["the hook raises"] = {
    break_it = function (c) c:on(c.gates[1], [[ node.spec_real = node.spec_probe
      node.spec_probe = function (dc, ...) if dc == "a" then error "a bug in the hook" end return node.spec_real(dc, ...) end ]]) end,
    heal = function (c) c:on(c.gates[1], "node.spec_probe = node.spec_real") end, says = "a bug in the hook",
  },
  ["the send is refused"] = {
    break_it = function (c) c:on(c.gates[1], [[ local peer = node.rpc:peer(...)
      local real = peer.core
      peer.core = setmetatable({ call = function (_, ...)
        if select(1, ...) == 27 then return nil, "the queue is full", "FULL" end
        return real:call(...)
      end }, { __index = function (_, name) return function (_, ...) return real[name](real, ...) end end })
      node.spec_core, node.spec_peer = real, peer ]], c.managers[1].address) end,
    heal = function (c) c:on(c.gates[1], "node.spec_peer.core = node.spec_core") end, says = "the queue is full",
  },
  ["the answer cannot be read"] = {
    break_it = function (c) c:on(c.managers[1], [[ local handlers = node.rpc.handlers
      node.spec_real, handlers["dc.probe"] = handlers["dc.probe"], nil
      assert(node.rpc:raw("dc.probe", function () return "\xc1\xc1" end)) ]]) end,
    heal = function (c) c:on(c.managers[1], [[ node.rpc.raw_handlers["dc.probe"] = nil
      node.rpc.handlers["dc.probe"] = node.spec_real ]]) end, says = "",
  },
}

describe("finding 1.1, a gate's probes of datacenters:", function ()
  for what, way in sorted(ways) do
    it("F14, F61, F69, 1.1: " .. what .. ": one incident each with all ids, backoff 2 to 30 s, verdicts and others on time", function ()
      local c <close>, g = begin()
      c:run(3000)
      local probed = log(c).probed.a
      local answered_ms = probed[#probed]
      way.break_it(c)
      pass(c, 125000)
      local seen, told, n = log(c), c:incidents(g, "federation.probe"), c:counts(g, "federation.probe")
      local one, two = seen.states[1], seen.states[2]
      assert.same({ "a suspected", "a unreachable", 2 }, { one.dc .. " " .. one.to, two.dc .. " " .. two.to, #seen.states })
      assert.is_true(math.abs(seen.states[1].at_ms - answered_ms - 15000) < 5, seen.states[1].at_ms - answered_ms)
      assert.is_true(math.abs(seen.states[2].at_ms - answered_ms - 45000) < 5, seen.states[2].at_ms - answered_ms)
      local at = {}
      for _, ms in ipairs(seen.probed.a) do if ms > answered_ms then at[#at + 1] = ms end end
      assert.same({ #at, #at, 0 }, { n.raised, n.reported + n.suppressed, n.in_flight }) -- One each, and they balance.
      for i, want in ipairs { 2, 4, 8, 16, 30, 30 } do
        local gap = (at[i + 1] - at[i]) / 1000
        assert.is_true(gap >= 0.8 * want - 0.01 and gap <= 1.2 * want + 0.01, ("gap %d is %.2f s"):format(i, gap))
        local incident = told[i]
        if incident then -- The sixth and later ones are counted, and announced.
          assert.equal(IDS, names(incident.ids))
          assert.is_nil(incident.missing)
          assert.same({ "error", "a", i, 2000, 5000 }, { incident.level, incident.ids.dc, incident.ids.consecutive, incident.ids.interval_ms,
            incident.ids.timeout_ms })
          assert.is_true(math.abs(incident.ids.next_delay_ms / 1000 - gap) < 0.02)
          assert.truthy(incident.message:find(way.says, 1, true), incident.message)
        end
      end
      every_interval(seen.probed.b, 2000)
      assert.equal("reachable", state(c, "b"))
      assert.equal(1, c:counts(g, "gate.dc_silent").raised) -- In words, once: not one for each probe.
      way.heal(c)
      assert.truthy(c:until_true(function () return state(c, "a") == "reachable" end, 37000, 50))
      local before = #log(c).probed.a
      c:run(6500)
      at = log(c).probed.a
      every_interval({ table.unpack(at, before) }, 2000)
      way.break_it(c)
      c:run(5000)
      at = log(c).probed.a
      assert.is_true(at[#at] - at[#at - 1] <= 2400, "one success resets the backoff")
      way.heal(c)
      c:run(10000)
      assert.equal("completed", c:complete(c:job({ load = { vus = 2, iterations = 20 } }, { datacenters = { "a" } })).state)
      c:rest()
    end)
  end

  it("F14, F69, L1, L3, 1.1: once, twice, under edited, broken and raising policies: exactly one incident each", function ()
    local c <close>, g = begin()
    local shipped, raised = assert(c.s:read(g, POLICY)), 0
    c:on(g, [[ local real = node.spec_probe
      node.spec_probe = function (dc, ...)
        if node.spec_boom and dc == "a" then node.spec_boom = nil error "a bug in the hook" end
        return real(dc, ...)
      end ]])
    local function strike(level, again)
      if not again then assert.truthy(c:until_true(function () return view(c, "a").own_errors == 0 end, 8000, 50)) end
      c:on(g, "node.spec_boom = true")
      assert.truthy(c:until_true(function () return c:counts(g, "federation.probe").raised > raised end, 8000, 20), "nothing was raised")
      raised = raised + 1
      local n, list = c:counts(g, "federation.probe"), c:incidents(g, "federation.probe")
      assert.same({ raised, raised, 0 }, { n.raised, n.reported + n.suppressed + n.handled, n.in_flight })
      assert.equal(raised, #list)
      assert.same({ level, IDS }, { list[raised].level, names(list[raised].ids) })
      assert.is_nil(list[raised].missing)
      return list[raised].ids.consecutive
    end
    local function policy(text)
      assert(c.s:write(g, POLICY, text))
      c:run(250)
    end
    assert.equal(1, strike "error")
    assert.equal(2, strike("error", true)) -- The next probe of a, twice in a row.
    policy "return { sites = { ['federation.probe'] = { level = 'warning', burst = 100 } } }"
    assert.equal(1, strike "warning") -- A success came between.
    policy "return { sites = { ["
    strike "warning"
    assert.equal(1, c:counts(g, "policy.load").raised)
    policy "return { default = { burst = 100 }, decide = function (incident) error('decide has a bug: ' .. incident.site) end }"
    strike "error"
    assert.equal(1, c:counts(g, "policy.decide").raised)
    policy(shipped)
    c:run(30000)
    assert.same({ "reachable", "reachable" }, { state(c, "a"), state(c, "b") })
    every_interval(log(c).probed.b, 2000)
    assert.equal(0, #log(c).states)
    c:rest()
  end)

  it("F14, F69, 1.1: the loop itself fails: one incident each with all ids, a backoff of 1 to 30 s, and it goes on", function ()
    local c <close>, g = begin()
    c:on(g, [[ local f = state.registry.federation
      node.spec_core = f.core
      f.core = setmetatable({ next = function () error "a bug in the loop" end }, { __index = function (_, name)
        return function (_, ...) return node.spec_core[name](node.spec_core, ...) end
      end }) ]])
    pass(c, 20000)
    local told = c:incidents(g, "federation.probe_loop")
    assert.is_true(#told >= 4)
    for i, incident in ipairs(told) do
      assert.same({ "consecutive cycle datacenters interval_ms next_delay_ms", "a,b", i }, { names(incident.ids), incident.ids.datacenters,
        incident.ids.consecutive })
      local want = math.min(30, 2 ^ (i - 1))
      assert.is_true(math.abs(incident.ids.next_delay_ms / 1000 - want) <= 0.2 * want + 0.01)
    end
    c:on(g, "state.registry.federation.core = node.spec_core")
    pass(c, 25000)
    assert.same({ "reachable", "reachable" }, { state(c, "a"), state(c, "b") })
    assert.equal("completed", c:complete(c:job { load = { vus = 2, iterations = 20 } }).state)
  end)

  it("F14, F73, 1.1: stopping the gate interrupts a probe under way and a loop that backs off", function ()
    local c <close>, g = begin()
    c:on(g, [[ node.spec_probe = function () require("shoal.task").sleep(1e6) end
      local f = state.registry.federation
      f.scope:spawn("federation.probe_loop", {}, function () require("shoal.task").sleep(1e6) end) ]])
    c:run(5000)
    assert.is_true(counts(c).tasks > 0)
    c.s:signal(g, "TERM")
    assert.truthy(c:until_true(function () return c.s:status(g) ~= "up" end, 4000, 20), "it does not stop")
    assert.truthy(c.s:log():find("g1 exit 0", 1, true))
    assert.is_nil(c.s:log():find('"node":"g1"[^\n]*"site":"federation'))
  end)
end)

describe("probes of datacenters:", function ()
  it("F14: a datacenter that is cut off is suspected and evicted at the bounds, and reachable within an interval of healing", function ()
    for _, way in ipairs { false, "to", "from" } do
      local c <close>, g = begin()
      local m = c.managers[1]
      c:run(1000)
      local d = view(c, "a")
      if way == "from" then c:cut(m, g, true) else c:cut(g, m, way == "to") end
      pass(c, d.unreachable_ms + 20100)
      local seen = log(c)
      assert.same({ "suspected", "unreachable" }, { seen.states[1].to, seen.states[2].to })
      local suspected_ms = seen.states[1].at_ms - (now(c) - d.unreachable_ms - 20100)
      assert.is_true(suspected_ms <= d.suspected_ms + 2 and suspected_ms >= d.suspected_ms - 2, suspected_ms)
      assert.equal("unreachable", c:members(g)["m-a1"].state)
      assert.equal(1, c:counts(g, "gate.dc_silent").raised)
      assert.equal(0, c:counts(g, "federation.probe").raised)
      every_interval(seen.probed.a, 2000)
      local healed_ms = now(c)
      c:heal(g, m)
      assert.truthy(c:until_true(function () return state(c, "a") == "reachable" end, 10000, 20))
      assert.is_true(now(c) - healed_ms <= 2050, ("reachable %.0f ms after healing"):format(now(c) - healed_ms))
      assert.equal("completed", c:complete(c:job({ load = { vus = 2, iterations = 20 } }, { datacenters = { "a" } })).state)
      c:rest()
    end
  end)

  it("F14: after a cut of any length it is reachable within an interval: probes wait for no backoff and no connection of before", function ()
    local c <close>, g = begin { dcs = { "a" } }
    local m, worst = c.managers[1], 0
    for i = 1, 12 do
      c:cut(g, m)
      pass(c, 16000 + 1370 * i)
      assert.is_true(state(c, "a") ~= "reachable")
      c:heal(g, m)
      local healed_ms = now(c)
      assert.truthy(c:until_true(function () return state(c, "a") == "reachable" end, 40000, 20))
      worst = math.max(worst, now(c) - healed_ms)
      pass(c, 2500)
    end
    assert.is_true(worst <= 2050, ("reachable %.0f ms after healing"):format(worst))
  end)

  it("F14: of two managers that cannot be reached each gets the time of a probe; the one that can be reached then leads", function ()
    local c <close> = begin { dcs = { "a" }, managers = 2 }
    pass(c, 10000)
    assert.same({ "m-a1", 0 }, { view(c, "a").leader, counts(c).leaders }) -- Both register; the one that leads goes on to lead.
    for _, m in ipairs(c.managers) do -- They can register, and do not answer probes.
      c:on(m, [[ node.spec_real = node.rpc.handlers["dc.probe"]
        node.rpc.handlers["dc.probe"] = function () return nil, "not now", "REFUSED" end ]])
    end
    pass(c, 46000)
    assert.equal("unreachable", state(c, "a"))
    local before = counts(c).leaders
    pass(c, 60000)
    local turns = counts(c).leaders - before
    assert.is_true(turns >= 4 and turns <= 9, turns .. " turns")
    c:on(c.managers[2], "node.rpc.handlers['dc.probe'] = node.spec_real")
    assert.truthy(c:until_true(function () return state(c, "a") == "reachable" end, 16000, 50))
    pass(c, 10000)
    assert.equal("m-a2", view(c, "a").leader)
    assert.equal("completed", c:complete(c:job { load = { vus = 2, iterations = 20 } }).state)
  end)

  it("a datacenter whose manager does not lead is reachable, and no executor", function ()
    local c <close>, g = begin { dcs = { "a" } }
    c:on(c.managers[1], [[ node.spec_real = node.rpc.handlers["dc.probe"]
      node.rpc.handlers["dc.probe"] = function (body)
        local reply = node.spec_real(body)
        reply.leads = false
        return reply
      end ]])
    c:restart(g)
    c:run(4000)
    assert.same({ "reachable", {} }, { state(c, "a"), c:ask(g, "look").lead.executors })
    c:on(c.managers[1], "node.rpc.handlers['dc.probe'] = node.spec_real")
    c:run(3000)
    assert.same({ "a" }, sorted.keys(c:ask(g, "look").lead.executors))
  end)

  it("F14: the timeout of a probe follows the round trip; a path of 3 s each way is no failure, and its bound is longer", function ()
    local c <close>, g = begin { set_gate = { ["federation.interval_ms"] = 4000, ["federation.timeout_max_ms"] = 30000 } }
    local m = c.managers[1]
    c:run(3000)
    assert.equal(5000, view(c, "a").timeout_ms)
    c.s:link(g, m, { latency_ms = 3000 })
    c.s:link(m, g, { latency_ms = 3000 })
    pass(c, 300000)
    local d = view(c, "a")
    assert.is_true(d.rtt_ms > 5900 and d.rtt_ms < 6300 and d.timeout_ms > 5900, d.rtt_ms .. " " .. d.timeout_ms)
    assert.same({}, log(c).states)
    assert.is_true(math.abs(d.silent_ms + d.suspected_ms - (20000 + d.timeout_ms)) < 1)
  end)

  it("F14: a new leader is taken while a probe of the old one is under way; what that one answers is ignored, and is no incident", function ()
    local c <close>, g = begin { dcs = { "a" }, managers = 2 }
    local leader = view(c, "a").leader
    assert.equal("m-a1", leader)
    c:on(c.managers[1], [[ local real = node.rpc.handlers["dc.probe"]
      node.rpc.handlers["dc.probe"] = function (body)
        local reply = real(body)
        reply.leads = false
        if node.spec_slow then require("shoal.task").sleep(4500) end
        return reply
      end ]])
    c:run(2500)
    assert.equal("reachable", state(c, "a"))
    c:on(c.managers[1], "node.spec_slow = true")
    assert.truthy(c:until_true(function () return view(c, "a").leader == "m-a2" end, 15000, 20))
    local before = counts(c)
    c:run(8000)
    local after = counts(c)
    assert.is_true(after.stale_incarnation > before.stale_incarnation) -- Answers that were under way.
    assert.same({ 0, 0, 1 }, { c:counts(g, "federation.probe").raised, after.own_errors, after.leaders })
    assert.same({}, log(c).states) -- The datacenter was reachable all the time.
    assert.equal(c.managers[2].address, view(c, "a").address)
    local final = c:complete(c:job { load = { vus = 2, iterations = 20 } })
    assert.equal("completed", final.state)
    assert.same({ 2, 2 }, c:on(g, "local f = state.registry:facts 'a' return { f.managers, f.managers_alive }"))
  end)

  it("F14: an answer with an old term or incarnation changes nothing, and is counted", function ()
    local c <close> = begin { dcs = { "a" } }
    for field, count in sorted { term = "stale_term", incarnation = "stale_incarnation" } do
      local before, seen = counts(c), view(c, "a").answer.free
      c:on(c.managers[1], [[ local field = ...
        node.spec_real = node.rpc.handlers["dc.probe"]
        node.rpc.handlers["dc.probe"] = function (body)
          local reply = node.spec_real(body)
          reply[field], reply.free = reply[field] - 1, 1
          return reply
        end ]], field)
      c:run(4100)
      c:on(c.managers[1], "node.rpc.handlers['dc.probe'] = node.spec_real")
      assert.equal(before[count] + 2, counts(c)[count])
      assert.equal(seen, view(c, "a").answer.free)
      c:run(2100)
    end
    assert.equal(0, c:counts(c.gates[1], "federation.probe").raised)
    assert.same({}, log(c).states)
  end)

  it("a manager that was not meant, or that stays out of its group, does not answer for its datacenter", function ()
    local c <close>, g = begin { dcs = { "a" } }
    local function ask(more)
      return c:on(g, [[ local address, more = ...
        local body = { dc = "a", node = "m-a1", gate = "g1", seq = 1, incarnation = 1, digest = "" }
        for name, value in next, more do body[name] = value end
        local reply, err, code = node.rpc:peer(address):call("dc.probe", body)
        return reply and "answered" or code, err ]], c.managers[1].address, more)
    end
    assert.equal("answered", (ask {}))
    local code, err = ask { node = "m-a9" }
    assert.same({ "REFUSED", "this is m-a1 of a, not m-a9 of a" }, { code, err })
    assert.equal("REFUSED", (ask { dc = "b" }))
    c:on(c.managers[1], "node.apart = true")
    assert.equal("REFUSED", (ask {}))
    pass(c, 50000)
    assert.equal("unreachable", state(c, "a"))
    assert.equal(0, c:counts(g, "federation.probe").raised) -- Refused is unanswered, and no error of the gate's.
  end)

  it("an answer whose numbers cannot be is an error here, names the number, and changes nothing", function ()
    local c <close>, g = begin { dcs = { "a" } }
    local before = view(c, "a").answer
    for field, value in sorted { free = 99, cores = -1, managers_alive = 2, largest = 5, load = -3 } do
      c:on(c.managers[1], [[ local field, value = ...
        node.spec_real = node.spec_real or node.rpc.handlers["dc.probe"]
        node.rpc.handlers["dc.probe"] = function (body)
          local reply = node.spec_real(body)
          reply[field] = value
          return reply
        end ]], field, value)
      local raised = c:counts(g, "federation.probe").raised
      assert.truthy(c:until_true(function () return c:counts(g, "federation.probe").raised > raised end, 37000, 50))
      local told = c:incidents(g, "federation.probe")
      assert.same({ "MALFORMED", true }, { told[#told].code, told[#told].message:find("dc.probe reply: ", 1, true) ~= nil })
      assert.same(before, view(c, "a").answer)
      c:on(c.managers[1], "node.rpc.handlers['dc.probe'] = node.spec_real")
      assert.truthy(c:until_true(function () return view(c, "a").own_errors == 0 end, 37000, 50))
    end
    assert.same({ nil, "CONFIG" }, { c:on(c.managers[1], [[ local reply, _, code = node.rpc:peer(...):call("dc.register", {
      dc = "a", node = "m-a1", address = "10.9.9.9:1", generation = node.generation, seq = 1 << 40, term = -1 }) return reply, code ]],
      g.address) })
  end)

  it("numbers come with each answer, lists only when they changed", function ()
    local c <close>, g = begin { dcs = { "a" }, workers = 2 }
    c:on(c.managers[1], [[ local real = node.rpc.handlers["dc.probe"]
      node.spec_lists, node.spec_answers = 0, 0
      node.rpc.handlers["dc.probe"] = function (body)
        local reply, err, code = real(body)
        node.spec_answers = node.spec_answers + 1
        if reply.members then node.spec_lists = node.spec_lists + 1 end
        return reply, err, code
      end ]])
    pass(c, 20000)
    assert.same({ 0, true }, c:on(c.managers[1], "return { node.spec_lists, node.spec_answers >= 10 }"))
    c:watch(assert(c:submit(c:job { one = { work = "one 15000" } })))
    c:run(4100)
    local facts = c:on(g, "return state.registry:facts 'a'")
    assert.same({ "reachable", "m-a1", true, false, 1, 1, 2, 8, 7, 12, "none" }, { facts.state, facts.leader, facts.reachable, facts.suspect,
      facts.managers, facts.managers_alive, facts.workers, facts.cores, facts.free, facts.load, facts.level })
    assert.equal(0, c:on(c.managers[1], "return node.spec_lists"))
    c:crash(c.workers[2])
    pass(c, 12000)
    assert.equal(1, c:on(c.managers[1], "return node.spec_lists"))
    assert.same({ 1, 4 }, c:on(g, "local f = state.registry:facts 'a' return { f.workers, f.cores }"))
    assert.is_nil(c:members(g)["w-a2"])
    c:restart(g) -- It has none: they cross again.
    c:run(4000)
    assert.equal(2, c:on(c.managers[1], "return node.spec_lists"))
    assert.equal("alive", c:members(g)["w-a1"].state)
  end)

  it("F14: a role's hook on federation.state gets each change; one that raises is one incident, and the eviction happens", function ()
    local c <close>, g = begin()
    c:on(g, [[ node.spec_heard = {}
      node.hooks:wire("federation.state", function (event) error("a bug on " .. event.to) end, "spec one")
      node.hooks:wire("federation.state", function (event) table.insert(node.spec_heard, event.dc .. " " .. event.to) end, "spec two") ]])
    c:crash(c.managers[1])
    pass(c, 47000)
    assert.same({ "a suspected", "a unreachable" }, c:on(g, "return node.spec_heard"))
    local told = c:incidents(g, "federation.state")
    assert.equal(2, #told)
    assert.equal("dc from hook hook_index to", names(told[1].ids))
    pass(c, 8000) -- Until the failure counts as that of one datacenter.
    assert.same({ "b" }, sorted.keys(c:ask(g, "look").lead.executors))
    c:restart(c.managers[1])
    assert.truthy(c:until_true(function () return c:ask(g, "look").lead.executors.a end, 8000, 50))
  end)

  it("one datacenter more than federation.dcs_max is refused by name, and the known ones stay", function ()
    local c <close>, g = begin { dcs = { "a", "b", "c" }, set_gate = { ["federation.dcs_max"] = 2 } }
    assert.equal(2, counts(c).dcs)
    local refused
    for _, m in ipairs(c.managers) do
      local told = c:incidents(m, "manager.heart")
      if #told > 0 then
        assert.is_nil(refused)
        refused = told[1]
      end
    end
    assert.same({ "FULL", true }, { refused.code, refused.message:find("2 are known already, that is dcs_max", 1, true) ~= nil })
    assert.is_true(counts(c).full > 0)
    assert.equal(2, #sorted.keys(c:on(g, "return state.registry.dcs")))
  end)
end)

describe("a wide-area network:", function ()
  it("F17: round trips of 200 ms with 50 to 200 ms of jitter, spikes of 500 ms and steps of clocks are no failures; work goes on", function ()
    local c <close>, g = begin { gates = 2, latency_ms = 1, set = { profile = "lan" } }
    local function wan(extra_ms)
      for _, gate in ipairs(c.gates) do
        for _, m in ipairs(c.managers) do
          c.s:link(gate, m, { latency_ms = 100 + extra_ms, jitter_ms = 50 })
          c.s:link(m, gate, { latency_ms = 100, jitter_ms = 50 })
        end
      end
    end
    wan(0)
    c:run(5000)
    local id = assert(c:submit(c:job { load = { code = "return { vu = function (vu) vu:sleep(100) end }", vus = 2, duration_ms = 100000 } }))
    c:watch(id)
    for i = 1, 12 do
      wan(500)
      c:run(700)
      wan(0)
      if i % 4 == 0 then c.s:step_wall(i % 8 == 0 and g or c.managers[1], i % 8 == 0 and -3600000 or 7200000) end
      c:run(9300)
    end
    for _, gate in ipairs(c.gates) do
      for _, dc in ipairs { "a", "b" } do
        local d = view(c, dc, gate)
        assert.equal("reachable", d.state)
        assert.is_true(d.rtt_ms > 200 and d.rtt_ms < 700, d.rtt_ms)
      end
      assert.equal(0, c:counts(gate, "gate.dc_silent").raised)
    end
    assert.same({}, log(c).states)
    assert.truthy(c:until_true(function () return c:final(id) end, 60000, 200))
    assert.equal("completed", c:final(id).state)
    c:rest { ms = 6000 }
  end)
end)
