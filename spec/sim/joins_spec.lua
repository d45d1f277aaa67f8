--- Joining, in virtual time: a seed that does not answer, nodes of another datacenter, two nodes of one name, ghosts that people remove.
local simcluster = require "spec.support.simcluster"

local function texts(c, node, site)
  local out = {}
  for i, incident in ipairs(c:incidents(node, site)) do out[i] = incident.message end
  return out
end

local function has(list, text)
  for _, line in ipairs(list) do
    if line:find(text, 1, true) then return true end
  end
  error(("%q is not in:\n%s"):format(text, table.concat(list, "\n")), 2)
end

describe("a node that joins", function ()
  it("says once that it joined nobody, with the seed, less often while it lasts, and one line when it has", function ()
    local c <close> = simcluster.new { workers = 1 }
    local late = c:add { name = "late", role = "worker", dc = "a", config = { join = { "10.0.0.99:7000" } } }
    c:run(2500)
    assert.same({}, texts(c, late, "swim.join"))
    c:run(2000)
    has(texts(c, late, "swim.join"), "joined nobody yet: 10.0.0.99:7000 does not answer")
    assert.equal("nobody", c:on(c.client, "return node.rpc:peer(...):call('node.info', {}).detail.join", late.address))
    c:run(100000)
    assert.equal(3, #texts(c, late, "swim.join")) -- At 3, 33 and 93 s.
    local manager = c:add { name = "m9", role = "manager", dc = "a", address = "10.0.0.99:7000", config = {} }
    assert.truthy(c:until_true(function () return c.s:log():find('"event":"swim.joined"[^\n]*10.0.0.99') end, 30000, 200))
    assert.equal("joined", c:on(c.client, "return node.rpc:peer(...):call('node.info', {}).detail.join", late.address))
    local _, lines = c.s:log():gsub('"event":"swim.joined"[^\n]*10.0.0.99', "")
    assert.equal(1, lines)
    c:run(120000)
    assert.equal(3, #texts(c, late, "swim.join"))
    assert.same({}, texts(c, manager, "swim.join"))
  end)

  it("says that one of several seeds is missing only after a while, as a warning", function ()
    local c <close> = simcluster.new { workers = 1 }
    local w = c:add { name = "w9", role = "worker", dc = "a", config = { join = { c.managers[1], "10.0.0.99:7000" } } }
    c:run(9000)
    assert.same({}, texts(c, w, "swim.seed"))
    c:run(4000)
    has(texts(c, w, "swim.seed"), "a seed is missing: 10.0.0.99:7000 does not answer")
    assert.same({}, texts(c, w, "swim.join"))
  end)

  it("of another datacenter is told on both sides who is of which, and nothing is only counted", function ()
    local c <close> = simcluster.new { workers = 1 }
    local m = c.managers[1]
    local w = c:add { name = "wrong", role = "worker", dc = "A", config = { join = { m } } }
    c:run(60000)
    has(texts(c, w, "swim.join"), m.address .. " (m-a1) is of datacenter a, and this node is of datacenter A")
    has(texts(c, m, "swim.foreign"), w.address .. " (wrong) wants to join, but is of datacenter A, and this node is of datacenter a")
    assert.same({}, texts(c, m, "swim.refused"))
    assert.is_true(#texts(c, m, "swim.foreign") <= 2 and #texts(c, w, "swim.join") <= 2)
  end)

  it("by a gate's address, or itself, or with only addresses of the other family, is told so", function ()
    local c <close> = simcluster.new { gates = 1, workers = 1 }
    local w = c:add { name = "w9", role = "worker", dc = "a", config = { join = { c.gates[1] } } }
    local own = c:add { name = "own", role = "worker", dc = "a", address = "10.0.0.77:7000", config = { join = { "10.0.0.77:7000" } } }
    c:run(5000)
    has(texts(c, w, "swim.join"), c.gates[1].address .. " (g1) is of no datacenter, as gates are, and this node is of datacenter a")
    has(texts(c, own, "swim.join"), "joined nobody yet: 10.0.0.77:7000 is this node itself")
    local six = c:add { name = "six", role = "worker", dc = "a", config = { join = { "[fd00::1]:7000" } } }
    c:run(500)
    local state, exit = c.s:status(six)
    assert.same({ "ended", 2 }, { state, exit })
    assert.truthy(c.s:log():find("join: [fd00::1]:7000 is an IPv6 address, and this node is bound to " .. six.address .. " (IPv4)", 1, true))
  end)
end)

describe("two nodes of one name", function ()
  local function namesake(c, of)
    return c:add { name = "twin", role = "worker", dc = "a", config = { join = { c.managers[1] } }, args = { "--name", of } }
  end

  it("case 26, A14: the newcomer stays out, all three say so with both addresses, and the other's job is run once", function ()
    local c <close> = simcluster.new { workers = 1 }
    local m, w = c.managers[1], c.workers[1]
    c:hear(m)
    local life = c:on(w, "return node.swim:self().incarnation.generation")
    local id = assert(c:submit(c:job { five = { work = "five 5000" } }))
    c:run(500)
    local twin = namesake(c, "w-a1")
    local final = c:follow(id)
    assert.same({ "completed", 1 }, { final.state, c.ran.five })
    assert.same({}, c:events(m))
    has(texts(c, m, "swim.namesake"),
      ("two nodes are called w-a1: the one at %s stays, the one at %s stays out"):format(w.address, twin.address))
    has(texts(c, w, "swim.namesake"), ("this one, at %s, stays; the one at %s stays out"):format(w.address, twin.address))
    has(texts(c, twin, "swim.namesake"), ("it is a member, at %s. This one, at %s, stays out"):format(w.address, twin.address))
    c:run(100000)
    for _, node in ipairs { m, w, twin } do assert.is_true(#texts(c, node, "swim.namesake") <= 3) end
    assert.equal(w.address, c:members(m)["w-a1"].address)
    assert.equal(life, c:on(w, "return node.swim:self().incarnation.generation")) -- Nothing was outbid.
    c:crash(w) -- Now the name is free.
    assert.truthy(c:until_true(function () return (c:members(m)["w-a1"] or {}).address == twin.address end, 20000, 200))
    assert.truthy(c.s:log():find('"event":"swim.namesake_gone"', 1, true))
    assert.equal("completed", c:complete(c:job { again = { work = "again 50" } }).state)
    c:rest { except = { twin = true } }
  end)

  it("is no namesake: killed and started again at another address within a second, it is back at once", function ()
    local c <close> = simcluster.new { workers = 1 }
    local m, w = c.managers[1], c.workers[1]
    c:crash(w)
    local again = namesake(c, "w-a1")
    assert.truthy(c:until_true(function () return (c:members(m)["w-a1"] or {}).address == again.address end, 3000, 50))
    assert.same({}, texts(c, m, "swim.namesake"))
    assert.equal("completed", c:complete(c:job { q = { work = "q 50" } }).state)
  end)
end)

describe("shoal forget", function ()
  local function forget(c, node, name)
    return c:on(c.client, [[ local reply, err, code = node.rpc:peer((...)):call("node.forget", { name = select(2, ...) })
      return reply and reply.said, err, code ]], node.address, name)
  end

  it("removes a dead worker from every list, refuses a living one, and a new life is a member again", function ()
    local c <close> = simcluster.new { workers = 2 }
    local m, w = c.managers[1], c.workers[2]
    local none, err, code = forget(c, m, "w-a2")
    assert.same({ nil, "BUSY" }, { none, code })
    assert.truthy(err:find("w-a2 is alive at " .. w.address, 1, true), err)
    assert.equal("NOT_FOUND", select(3, forget(c, m, "nobody")))
    assert.equal("BUSY", select(3, forget(c, m, "m-a1")))
    c:crash(w)
    assert.truthy(c:until_true(function () return c:members(m)["w-a2"].state == "dead" end, 10000))
    local said = assert(forget(c, m, "w-a2"))
    assert.truthy(said:find(("forgot w-a2 (dead at %s)"):format(w.address), 1, true), said)
    c:run(3000)
    for _, node in ipairs { m, c.workers[1] } do assert.is_nil(c:members(node)["w-a2"]) end
    assert.equal("NOT_FOUND", select(3, forget(c, c.workers[1], "w-a2")))
    c:restart(w)
    assert.truthy(c:until_true(function () return (c:members(m)["w-a2"] or {}).state == "alive" end, 10000))
  end)

  it("C27: removes a silent manager from a gate's list; about a worker a gate names the manager to ask", function ()
    local c <close> = simcluster.new { gates = 1, managers = 2, workers = 1, set = { dc_silent_ms = 3000 } }
    local g, m2 = c.gates[1], c.managers[2]
    local _, err, code = forget(c, g, "m-a2")
    assert.equal("BUSY", code, err)
    c:crash(m2)
    assert.truthy(c:until_true(function () return c:members(g)["m-a2"].state == "silent" end, 10000))
    local said = assert(forget(c, g, "m-a2"))
    assert.truthy(said:find("forgot manager m-a2 of datacenter a", 1, true), said)
    assert.is_nil(c:members(g)["m-a2"])
    _, err, code = forget(c, g, "w-a1")
    assert.equal("NOT_FOUND", code)
    assert.truthy(err:find(("ask a manager: %s (datacenter a)"):format(c.managers[1].address), 1, true), err)
  end)
end)

describe("a manager with a name for its gate", function ()
  it("tries each address of the name, and says which gate it has", function ()
    local c <close> = simcluster.new { gates = 1, workers = 1 }
    local m = c.managers[1]
    assert.truthy(c.s:log():find('"event":"manager.gate"[^\n]*"name":"g1"'))
    assert.equal(0, c:counts(m, "manager.heart").raised)
  end)
end)

describe("a gate's member events", function ()
  local function read(c, g, cursor)
    local reply = assert(c:on(c.client, [[ local address, cursor = ...
      return node.rpc:peer(address):call("node.events", { cursor = cursor, most = 256, wait_ms = 0 }) ]], g.address, cursor))
    local out = {}
    for i, e in ipairs(reply.events) do out[i] = ("%s %s %s"):format(e.kind, e.name, e.dc) end
    return out, reply
  end

  it("C9: tell of the managers and workers of its datacenters, as it knows them by probes", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 1, set = { dc_silent_ms = 3000 } }
    local g = c.gates[1]
    local events, reply = read(c, g, 0)
    table.sort(events)
    assert.same({ "join m-a1 a", "join m-b1 b", "join w-a1 a", "join w-b1 b" }, events)
    local _, now = read(c, g, -1)
    assert.equal(4, #now.members)
    c:crash(c.workers[1])
    assert.truthy(c:until_true(function () return read(c, g, reply.cursor)[1] == "gone w-a1 a" end, 10000, 200))
    events, reply = read(c, g, reply.cursor)
    assert.same({ "gone w-a1 a" }, events)
    c:crash(c.managers[2])
    c:run(6000)
    events, reply = read(c, g, reply.cursor)
    assert.same({ "suspect m-b1 b", "suspect w-b1 b", "unreachable m-b1 b", "unreachable w-b1 b" }, events)
    c:restart(c.managers[2])
    c:run(8000)
    events = read(c, g, reply.cursor)
    assert.equal("join m-b1 b", events[1])
  end)
end)

describe("a client that goes while a node answers it", function ()
  it("C10: is no incident", function ()
    local c <close> = simcluster.new { workers = 1 }
    local m = c.managers[1]
    c:on(c.client, [[ local address = ...
      node.scope:spawn("spec.follow", {}, function ()
        node.rpc:peer(address):call("node.events", { cursor = -1, most = 1, wait_ms = 0 })
        local reply = node.rpc:peer(address):call("node.events", { cursor = -1, most = 1, wait_ms = 0 })
        node.rpc:peer(address):call("node.events", { cursor = reply.cursor, most = 1, wait_ms = 10000 })
      end) ]], m.address)
    c:run(500)
    c:on(c.client, "node.rpc:peer(...):close()", m.address)
    c:run(12000)
    assert.same({ {}, {} }, { texts(c, m, "rpc.reply"), texts(c, m, "net.refused") })
    assert.truthy(c:on(m, "return node.rpc.unread_replies") > 0)
  end)
end)
