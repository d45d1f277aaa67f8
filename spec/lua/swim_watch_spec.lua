--- A node's reports of its members: the journal and its cursors, the partition detector and its hook; in the simulator, and from the
--- command line on real processes.
local cjson = require "cjson"
local exact = require "shoal.base.json"
local cluster = require "spec.support.cluster"
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local function manager_events(c, cursor, wait_ms, most)
  return c:on(c.client, [[local address, cursor, most, wait_ms = ...
    local reply, err, code
    repeat -- The connection to a node that started again breaks at its first use.
      reply, err, code = node.rpc:peer(address):call("node.events", { cursor = cursor, most = most, wait_ms = wait_ms })
    until code ~= "DISCONNECTED"
    return reply, err, code]],
    c.managers[1].address, cursor, most or 256, wait_ms or 0)
end

--- A reader that keeps a table of its own: name -> state.
local function reader(c)
  local self = { table = {}, cursor = 0, codes = {}, events = 0 }
  self.read = function (_, most)
    repeat
      local reply, err, code = manager_events(c, self.cursor, 0, most)
      assert(reply, tostring(err) .. " " .. tostring(code))
      if reply.code ~= "" then
        self.codes[#self.codes + 1], self.table = reply.code, {}
        for _, m in ipairs(reply.members) do self.table[m.name] = m.state end
      end
      for _, e in ipairs(reply.events) do
        self.table[e.name] = e.kind ~= "dead" and e.kind ~= "left" and e.state or nil
        self.events = self.events + 1
      end
      self.cursor = reply.cursor
    until reply.code == "" and #reply.events == 0
  end
  return self
end

--- The manager's own table of living members, without itself; and the cursor of that moment.
local function living(c)
  return c:on(c.managers[1], [[local out = {}
    for _, m in ipairs(node.swim:members()) do
      if m.name ~= node.name and (m.state == "alive" or m.state == "suspect") then out[m.name] = m.state end
    end
    return out, node.journal:cursor()]])
end

--- Read on until nothing came between reading and looking; then both must be the same.
local function assert_same_table(c, mine, most)
  local theirs, cursor
  for _ = 1, 100 do
    mine:read(most)
    theirs, cursor = living(c)
    if cursor == mine.cursor then break end
  end
  assert.equal(cursor, mine.cursor)
  assert.same(theirs, mine.table)
end

local function part(c, workers, cut)
  local here = { c.managers[1], table.unpack(c.workers, workers + 1) }
  for i = 1, workers do
    for _, node in ipairs(here) do
      if cut then c:cut(c.workers[i], node) else c:heal(c.workers[i], node) end
    end
  end
end

local function lines(c, node, kind)
  local out = {}
  for line in c.s:log():gmatch "[^\n]+" do
    if line:find(('"node":"%s","event":"swim.partition","kind":"%s"'):format(node.name, kind), 1, true) then out[#out + 1] = line end
  end
  return out
end

local WIRE = [[state.spec_seen = {}
  node.hooks:wire("swim.partition", function (event)
    local names = {}
    for i, m in ipairs(event.lost) do names[i] = m.name end
    table.insert(state.spec_seen, { kind = event.kind, lost = table.concat(names, " "), returned = table.concat(event.returned, " "),
      larger = event.larger })
  end)]]

local function seen(c, node) return c:on(node, "return state.spec_seen") end

describe("nodes watch their members:", function ()
  it("F12: a cut is detected and its healing told, on both sides: in the log, to the role's hook; nothing is left", function ()
    local c <close> = simcluster.new { seed = 21, workers = 7 }
    local m, w = c.managers[1], c.workers[1]
    c:on(m, WIRE)
    c:on(w, WIRE)
    part(c, 3, true)
    c:run(20000)
    assert.equal("detected", seen(c, m)[1].kind)
    local last = seen(c, m)[#seen(c, m)]
    assert.equal("w-a1 w-a2 w-a3", last.lost)
    assert.is_true(last.larger)
    last = seen(c, w)[#seen(c, w)]
    assert.equal("m-a1 w-a4 w-a5 w-a6 w-a7", last.lost)
    assert.is_false(last.larger)
    part(c, 3, false)
    local function healed(node) return seen(c, node)[#seen(c, node)].kind == "healed" end
    assert.truthy(c:until_true(function () return healed(m) and healed(w) end, 60000))
    assert.equal("w-a1 w-a2 w-a3", seen(c, m)[#seen(c, m)].returned)
    assert.equal("", seen(c, m)[#seen(c, m)].lost)
    assert.equal(1, #lines(c, m, "detected"))
    assert.is_truthy(lines(c, m, "detected")[1]:find('"level":"warning"', 1, true))
    assert.equal(1, #lines(c, m, "healed"))
    assert.is_truthy(lines(c, m, "healed")[1]:find('"level":"info"', 1, true))
    c:run(10000)
    for _, node in ipairs { m, w } do
      assert.same({ false, 0, 7 }, c:on(node, "return { node.partition:now() ~= nil, node.partition.lost, node.partition.all }"))
    end
    c:rest()
  end)

  it("one death is told as a death, and is no partition", function ()
    local c <close> = simcluster.new { seed = 22, workers = 7 }
    c:on(c.managers[1], WIRE)
    c:crash(c.workers[1])
    c:run(20000)
    assert.same({}, seen(c, c.managers[1]))
    assert.is_nil(living(c)["w-a1"])
    assert.equal(6, #sorted.keys(living(c)))
    assert.equal(6, c:on(c.managers[1], "return node.partition.all"))
  end)

  it("a hook on a partition that raises is one incident with its ids; the other hooks run, and membership goes on", function ()
    local c <close> = simcluster.new { seed = 23, workers = 5 }
    local m = c.managers[1]
    c:on(m, "node.hooks:wire('swim.partition', function (event) error('on purpose: ' .. event.kind, 0) end)")
    c:on(m, WIRE)
    part(c, 2, true)
    c:run(15000)
    local told = c:incidents(m, "swim.partition")
    assert.is_true(#told >= 1)
    assert.equal("on purpose: detected", told[1].message)
    assert.equal("detected partition 2 3", ("%s %s %s %s"):format(told[1].ids.kind, told[1].ids.cause, told[1].ids.lost, told[1].ids.kept))
    assert.equal("detected", seen(c, m)[1].kind)
    assert.equal(3, #sorted.keys(living(c)))
    local _, err = c.s:eval(m, "local node = require 'shoal.core.node'.running; node.hooks:wire('swim.partition', function () end)")
    assert.is_truthy(tostring(err):find("function (event)", 1, true), tostring(err))
  end)

  it("a reader of the events has the node's own table, at any pace, through cuts, crashes and the end of what is kept", function ()
    local c <close> = simcluster.new { seed = 24, workers = 6 }
    c:on(c.managers[1], "node.journal = require('shoal.swim').journal(node.world, { kept = 24 })") -- Empty: the joins are behind it.
    local fast, slow = reader(c), reader(c)
    fast.table = (living(c))
    for round = 1, 6 do
      part(c, 2, true)
      c:run(12000)
      if round % 2 == 1 then c:crash(c.workers[6]) else c:restart(c.workers[6]) end
      assert_same_table(c, fast, 3)
      part(c, 2, false)
      c:run(20000)
      assert_same_table(c, fast)
    end
    assert.same({}, fast.codes)
    assert.is_true(fast.events > 24)
    assert_same_table(c, slow, 5)
    assert.same({ "TRUNCATED" }, slow.codes)
  end)

  it("a node that starts again answers an old cursor with EPOCH and who lives now; reading on from there has no gap", function ()
    local c <close> = simcluster.new { seed = 25, workers = 3 }
    local mine = reader(c)
    mine:read()
    assert.same({}, mine.codes)
    assert.equal(3, mine.events)
    c:crash(c.managers[1])
    c:run(1000)
    c:restart(c.managers[1])
    c:run(5000)
    mine:read()
    assert.same({ "EPOCH" }, mine.codes)
    c:crash(c.workers[1])
    c:run(15000)
    mine:read()
    assert.same({ "EPOCH" }, mine.codes)
    assert.same({ ["w-a2"] = "alive", ["w-a3"] = "alive" }, mine.table)
    assert.same((living(c)), mine.table)
  end)

  it("an answer waits for the next event, and no longer than it is told; too many that wait are refused", function ()
    local c <close> = simcluster.new { seed = 26, workers = 2 }
    local cursor = manager_events(c, 0).cursor
    local began = c.s:now_ms()
    assert.same({}, manager_events(c, cursor, 300).events)
    assert.is_true(c.s:now_ms() - began >= 300 and c.s:now_ms() - began < 400, "waited " .. c.s:now_ms() - began)
    c:crash(c.workers[1])
    local reply = manager_events(c, cursor, 60000)
    assert.equal("suspect w-a1", reply.events[1].kind .. " " .. reply.events[1].name)
    assert.equal("worker a", reply.events[1].role .. " " .. reply.events[1].dc)
    assert.equal(reply.cursor, reply.events[#reply.events].cursor)
    c:run(15000)
    cursor = manager_events(c, 0).cursor
    local codes = c:on(c.client, [[local address, cursor = ...
      local peer, codes, futures = node.rpc:peer(address), {}, {}
      for i = 1, 70 do futures[i] = peer:start("node.events", { cursor = cursor, most = 1, wait_ms = 500 }) end
      for i = 1, 70 do
        local reply, _, code = futures[i]:await()
        local word = reply and "ok" or code
        codes[word] = (codes[word] or 0) + 1
      end
      return codes]], c.managers[1].address, cursor)
    assert.same({ ok = 64, OVERLOADED = 6 }, codes)
    assert.same({}, manager_events(c, cursor, 10).events) -- All of them have gone.
    local _, err, code = manager_events(c, cursor, 0, 0)
    assert.equal("REFUSED", code)
    assert.equal("most: expected at least 1, found 0", err)
  end)
end)

describe("examples/bursts.lua", function ()
  it("shows a burst, a partition and its healing, and a slow reader, and ends by itself", function ()
    local build = os.getenv "SHOAL_BUILD" or "build/release"
    local pipe = assert(io.popen("SHOAL_BUILD=" .. build .. " timeout 20 lua5.4 examples/bursts.lua 2>&1"))
    local output = pipe:read "a"
    assert(pipe:close(), output)
    local at = 1
    for _, line in ipairs { "joined 8, dead 0", "partition detected: lost b", "silent b; 4 kept, 4 known dead", "partition healed: lost ;",
                            "returned b1 b2 b3 b4", "TRUNCATED", "a1 a2 a3 a4 b1 b2 b3 b4", "without a gap", ": left a1", "done" } do
      local _, last = output:find(line, at, true)
      assert(last, line .. " is missing, or out of order, in:\n" .. output)
      at = last
    end
  end)
end)

describe("shoal members", function ()
  local c

  before_each(function () c = cluster.new() end)
  after_each(function () c:close() end)

  it("--since prints events with the cursor to go on with; --follow prints them as they come; JSON too", function ()
    local m = c:node("manager", { "--dc", "a", "--name", "m1", "--data", c.dir .. "/m1", "--set", "membership.probe_interval_ms=150" })
    local w = c:node("worker", { "--dc", "a", "--name", "w1", "--join", m.address, "--data", c.dir .. "/w1" })
    local follower = c:start { "members", "--follow", "--connect", m.address }
    follower:wait_for("w1%s+worker%s+a", "out")
    local r = c:shoal { "members", "--connect", m.address, "--since", "0" }
    assert.equal(0, r.code, r.err)
    local cursor = r.out:match "^(%d+)  %d+%-%d+%-%d+T[%d:%.]+Z  join     w1  worker  a  127.0.0.1:%d+\n"
    assert.is_truthy(cursor, r.out)
    local next_cursor = r.out:match "\ncursor (%d+)\n$"
    assert.is_truthy(next_cursor, r.out)
    local json = exact.decode(c:shoal({ "members", "--connect", m.address, "--since", "0", "-o", "json" }).out)
    assert.equal("join", json.events[1].kind)
    assert.equal(math.tointeger(cursor), json.events[1].cursor)
    assert.equal(math.tointeger(next_cursor), json.cursor)
    assert.same({ "m1", "" }, { json.node, json.code })

    c:eval(w.address, "node.swim:tell 'two\\nlines'")
    assert.equal('"two\\nlines"', (follower:wait_for('user     w1  worker  a  [%d:%.]+  (%b"")\n', "out")))
    next_cursor = c:shoal({ "members", "--connect", m.address, "--since", next_cursor }).out:match "cursor (%d+)\n$"

    r = c:shoal { "members", "--connect", m.address, "--why", "w1" }
    assert.equal(0, r.code, r.err)
    assert.is_truthy(r.out:find "^w1 at 127.0.0.1:%d+ is alive, incarnation %d+%.%d+\n", r.out)
    assert.equal("alive", cjson.decode(c:shoal({ "members", "--connect", m.address, "--why", "w1", "-o", "json" }).out).why.member.state)
    assert.equal("150", c:eval(m.address, "node.config.membership.probe_interval_ms"))
    r = c:shoal { "members", "--connect", m.address, "--why", "w9" }
    assert.equal(4, r.code)
    assert.is_truthy(r.err:find("w9 is not among the members that m1 keeps", 1, true), r.err)

    w:kill "sigterm"
    follower:wait_for("left     w1", "out")
    r = c:shoal { "members", "--connect", m.address, "--since", next_cursor }
    assert.is_truthy(r.out:find "^%d+  %S+  left     w1  worker  a  [%d:%.]+\ncursor %d+\n$", r.out)
    follower:kill "sigint"
    local ended = follower:wait()
    assert.equal(130, ended.code)
    assert.is_truthy(ended.err:find("go on with --since " .. r.out:match "cursor (%d+)", 1, true), ended.err)

    r = c:shoal { "members", "--connect", m.address, "--since", "7" }
    assert.equal(0, r.code)
    assert.is_truthy(r.err:find("the cursor is of another life of this node, or of another node", 1, true), r.err)
    assert.is_truthy(r.out:find "^NODE .*\ncursor %d+\n$", r.out)
    r = c:shoal { "members", "--connect", "127.0.0.1:1", "--since", "0" }
    assert.equal(3, r.code)
    r = c:shoal { "members", "--since", "soon" }
    assert.equal(2, r.code)
    assert.is_truthy(r.err:find("--since: expected a cursor, at least 0; found 'soon'", 1, true), r.err)
  end)
end)
