--- Failures around a node: each gives a clear message, a node that lives or stops cleanly, and no leftover process.
local cluster = require "spec.support.cluster"
local uv = require "luv"

--- The balance line that a node ends with, as numbers.
local function balance(text)
  local raised, reported, suppressed, handled = text:match("raised = reported %+ suppressed %+ handled: (%d+) = (%d+) %+ (%d+) %+ (%d+)")
  assert.is_truthy(raised, text)
  return math.tointeger(raised), math.tointeger(reported), math.tointeger(suppressed), math.tointeger(handled)
end

local function assert_balanced(text)
  local raised, reported, suppressed, handled = balance(text)
  assert.equal(raised, reported + suppressed + handled)
  return raised
end

local ONE_DC = "return { datacenters = { a = { managers = { {} }, workers = { { cores = 2 } } } } }"

describe("a node", function ()
  local c, sockets

  before_each(function ()
    c, sockets = cluster.new(), {}
  end)
  after_each(function ()
    for _, socket in ipairs(sockets) do
      if not socket:is_closing() then socket:close() end
    end
    uv.run("nowait")
    c:close()
  end)

  --- A TCP listener that accepts connections and never sends. Returns its address.
  local function silent_peer()
    local server = uv.new_tcp()
    sockets[#sockets + 1] = server
    assert(server:bind("127.0.0.1", 0))
    assert(server:listen(16, function ()
      local stream = uv.new_tcp()
      sockets[#sockets + 1] = stream
      server:accept(stream)
      stream:read_start(function () end)
    end))
    return "127.0.0.1:" .. server:getsockname().port
  end

  local function role(name, ...)
    return { "run", "scripts/roles/" .. name .. ".lua", "--data", c.dir .. "/" .. name, ... }
  end

  describe("that cannot start says why, and ends:", function ()
    it("its port is taken", function ()
      local address = silent_peer()
      local r = c:shoal(role("gate", "--bind", address))
      assert.equal(1, r.code, r.err)
      assert.is_truthy(r.err:find(address, 1, true) and r.err:find("EADDRINUSE", 1, true), r.err)
      assert.equal(0, assert_balanced(r.err))
    end)

    it("it is to listen where everybody could reach it, and has no keys", function ()
      for _, address in ipairs { "0.0.0.0:0", "[::]:0", "10.1.2.3:7000" } do
        local r = c:shoal(role("gate", "--bind", address))
        assert.equal(2, r.code, r.err)
        assert.is_truthy(r.err:find("no keys", 1, true) and r.err:find("127.0.0.1", 1, true), r.err)
      end
    end)

    it("its role raises at start, with file and line", function ()
      local path = c:file("role.lua", "return { name = 'worker',\n start = function ()\n error 'no luck today' end }")
      local r = c:shoal { "run", path, "--join", "127.0.0.1:1", "--data", c.dir .. "/d" }
      assert.equal(2, r.code, r.err) -- As `shoal check` says it: the role was started in a simulated world.
      assert.is_truthy(r.err:find(path .. ":3: start: no luck today", 1, true), r.err)
      assert.is_truthy(r.err:find("does not handle part.dispatch", 1, true), r.err)
    end)

    it("its role answers a message that nobody defined, or wires an unknown hook", function ()
      local path = c:file("role.lua", [[return { name = 'worker', answers = { ["part.dispatsh"] = function () end },
        start = function () return {} end }]])
      local r = c:shoal { "run", path, "--join", "127.0.0.1:1", "--data", c.dir .. "/d" }
      assert.equal(2, r.code, r.err)
      assert.is_truthy(r.err:find("part.dispatsh", 1, true), r.err)
      assert.is_truthy(r.err:find("did you mean part.dispatch", 1, true), r.err)
      path = c:file("role2.lua", [[return { name = 'worker', hooks = function () return { ["swim.membre"] = function () end } end,
        start = function () return {} end }]])
      r = c:shoal { "run", path, "--data", c.dir .. "/d" }
      assert.equal(2, r.code, r.err)
      assert.is_truthy(r.err:find("swim.membre", 1, true), r.err)
    end)

    it("its folder cannot be made, its log cannot be opened", function ()
      local file = c:file("plain", "")
      local r = c:shoal { "run", "scripts/roles/manager.lua", "--dc", "a", "--data", file .. "/x" }
      assert.equal(1, r.code, r.err)
      assert.is_truthy(r.err:find(file .. "/x", 1, true), r.err)
      r = c:shoal(role("worker", "--dc", "a", "--join", "127.0.0.1:1", "--log", file .. "/x.log"))
      assert.equal(1, r.code, r.err)
      assert.is_truthy(r.err:find(file .. "/x.log", 1, true), r.err)
    end)
  end)

  describe("in a cluster that cannot start takes the others with it:", function ()
    local function fails(text, ...)
      local r = c:shoal { "up", c:file("t.lua", text), "--data", c.dir .. "/data", limit_ms = 30000 }
      assert.equal(1, r.code, r.err)
      assert.equal("", r.out)
      for _, plain in ipairs { ... } do assert.is_truthy(r.err:find(plain, 1, true), plain .. " in:\n" .. r.err) end
      c:assert_nothing_left()
    end

    --- Before any child is started.
    local function refuses(text, plain)
      local r = c:shoal { "up", c:file("t.lua", text), "--data", c.dir .. "/data" }
      assert.equal(2, r.code, r.err)
      assert.is_truthy(r.err:find(plain, 1, true), plain .. " in:\n" .. r.err)
    end

    it("a port taken", function ()
      local address = silent_peer()
      fails(([[return { gates = { {} }, datacenters = { a = { managers = { {} }, workers = { {}, { bind = %q } } } } }]])
        :format(address), "w-a2", address, "EADDRINUSE")
    end)

    it("a role script that raises, and one that is not there", function ()
      local path = c:file("role.lua", "return { name = 'worker',\n start = function () error 'boo' end }")
      refuses(([[return { datacenters = { a = { managers = { {} }, workers = { { script = %q } } } } }]]):format(path),
        "datacenters.a.workers[1].script: " .. path .. ":2: start: boo")
      refuses([[return { datacenters = { a = { managers = { { script = "no.lua" } } } } }]],
        "datacenters.a.managers[1].script: cannot read no.lua")
    end)

    it("a child that ends at once, without a word", function ()
      local path = c:file("role.lua", "os.exit(9)")
      fails(([[return { datacenters = { a = { managers = { {} }, workers = { { script = %q } } } } }]]):format(path),
        "w-a1 ended with status 9 before it was ready")
    end)
  end)

  describe("stops cleanly, with its books balanced,", function ()
    local function stops(process, reason)
      process:wait()
      assert.equal(0, process.code, process.err)
      assert.equal(0, process.signal)
      assert.is_truthy(process.err:find("stopped (" .. reason .. ")", 1, true), process.err)
      assert_balanced(process.err)
      c:assert_nothing_left(2000)
    end

    for _, name in ipairs { "gate", "manager", "worker" } do
      local words = { "--name", name, "--dc", "a" }
      it("at the end of stdin with --until-eof: a " .. name, function ()
        local p = c:node(name, { "--data", c.dir .. "/d", table.unpack(words) })
        p:close_stdin()
        stops(p, "stdin ended")
      end)

      it("at SIGTERM and SIGINT: a " .. name, function ()
        local p = c:node(name, { "--data", c.dir .. "/d", table.unpack(words) })
        p:kill "sigterm"
        stops(p, "signal TERM")
        p = c:node(name, { "--data", c.dir .. "/d", table.unpack(words) })
        p:kill "sigint"
        stops(p, "signal INT")
      end)
    end

    it("without --until-eof the end of stdin means nothing", function ()
      local p = c:start(role("worker", "--dc", "a"))
      p:wait_for "is ready at"
      cluster.pause(200)
      assert.is_nil(p.code)
      p:kill "sigterm"
      stops(p, "signal TERM")
    end)

    it("as a whole cluster, each node with its own line", function ()
      local up = c:up [[return { gates = { {} }, datacenters = { a = { managers = { {} }, workers = { {}, {} } } } }]]
      assert.equal(1, c:shoal({ "repl", "--connect", up.connect, "--eval", "error 'x'" }).code)
      up:kill "sigterm"
      up:wait()
      assert.equal(0, up.code, up.err)
      local lines = 0
      for line in up.err:gmatch("[^\n]*stopped %([^\n]*") do
        lines = lines + 1
        local name = line:match "^([^:]+):"
        assert.equal(name == "g1" and 1 or 0, assert_balanced(line), cluster.read(up.data .. "/" .. name .. ".log"))
      end
      assert.equal(4, lines, up.err)
      c:assert_nothing_left(2000)
    end)
  end)

  it("is not left behind by a killed `shoal up`, nor is what a job of it runs", function ()
    local up = c:up(ONE_DC)
    local job = c:file("j.lua", "return { name = 'j', workflows = { w = { command = 'trap \"\" TERM HUP; sleep 300' } } }")
    assert.equal(0, c:shoal({ "submit", job, "--connect", up.connect, "--detach" }).code)
    cluster.wait("the command runs", function ()
      for _, words in pairs((c:left())) do
        if words:find "^sleep 300" then return true end
      end
    end)
    up:kill "sigkill"
    c:assert_nothing_left()
  end)

  it("F69: tells each failure once, with its ids, holds a flood back aloud, and the numbers add up", function ()
    local p = c:node("manager", { "--dc", "a", "--name", "m", "--data", c.dir .. "/d", "--log", c.dir .. "/m.log" })
    for i = 1, 12 do assert.equal(1, c:shoal({ "repl", "--connect", p.address, "--eval", ("error 'number %d'"):format(i) }).code) end
    p:kill "sigterm"
    p:wait()
    local raised, reported, suppressed, handled = balance(p.err)
    assert.equal(12, raised)
    assert.equal(raised, reported + suppressed + handled)
    assert.is_true(suppressed > 0, p.err)
    local log = cluster.read(c.dir .. "/m.log")
    assert.is_truthy(log:find("number 1", 1, true), log)
    assert.is_truthy(log:find('"balanced":true', 1, true), log)
  end)

  it("L3: shows an edited level at the next incident, keeps the last good policy, and counts in any case", function ()
    os.execute("cp -r scripts/policies " .. c.dir)
    local p = c:node("manager", { "--dc", "a", "--data", c.dir .. "/d", "--policies", c.dir .. "/policies", "--log", c.dir .. "/m.log" })
    local function incident(text)
      c:shoal { "repl", "--connect", p.address, "--eval", ("error %q"):format(text) }
      return c:shoal({ "incidents", "--connect", p.address }).out:match("Z%s+(%a+)%s+%S+%s+%S+%s+repl%.eval%s+[^\n]*" .. text)
    end
    local function policy(text)
      cluster.pause(250) -- A policy is looked at at most every 200 ms.
      c:file("policies/errors.lua", text)
    end
    local first = incident "one"
    assert.is_truthy(first)
    assert.is_not.equal("critical", first)
    policy "return { default = { burst = 5, per_ms = 10000 }, sites = { ['repl.eval'] = { level = 'critical' } } }"
    assert.equal("critical", incident "two")
    policy "return { sites = = }"
    assert.equal("critical", incident "three")
    assert.is_truthy(cluster.read(c.dir .. "/m.log"):find("policy.load", 1, true))
    policy "return { sites = { ['repl.eval'] = { level = 'debug' } } }"
    assert.equal("debug", incident "four")
    p:close_stdin()
    p:wait()
    assert.is_true(assert_balanced(p.err) >= 4)
  end)

  it("L1: an errors.lua that is broken, removed or raises leaves a good one in use, says so once, and is taken when it is whole", function ()
    os.execute("cp -r scripts/policies " .. c.dir)
    local path = c.dir .. "/policies/errors.lua"
    local p = c:node("manager", { "--dc", "a", "--data", c.dir .. "/d", "--policies", c.dir .. "/policies", "--log", c.dir .. "/m.log" })
    local function policy(text)
      cluster.pause(250) -- A policy is looked at at most every 200 ms.
      if text then c:file("policies/errors.lua", text) else os.remove(path) end
    end
    --- Levels of incidents, one a word; then all that the policy's own sites say.
    local function levels(...)
      local out = {}
      for i, word in ipairs { ... } do
        if i > 1 then cluster.pause(250) end
        c:shoal { "repl", "--connect", p.address, "--eval", ("error %q"):format(word) }
        out[i] = cluster.read(c.dir .. "/m.log"):match('"level":"(%a+)"[^\n]*"site":"repl%.eval","message":"[^"\n]*' .. word)
      end
      return table.concat(out, " ")
    end
    local function said(site)
      local list = {}
      for line in cluster.read(c.dir .. "/m.log"):gmatch "[^\n]+" do
        if line:find('"site":"' .. site .. '"', 1, true) then list[#list + 1] = line end
      end
      return list
    end
    policy "return { default = { burst = 100 }, sites = { ['repl.eval'] = { level = 'critical' } } }"
    assert.equal("critical", levels "one")
    policy "return { sites = {"
    assert.equal("critical critical", levels("two", "three"))
    assert.equal(1, #said "policy.load")
    assert.is_truthy(said("policy.load")[1]:find(path .. ":1", 1, true))
    policy "return { default = { burst = 100 }, sites = { ['repl.eval'] = { level = 'info' } } }"
    assert.equal("info", levels "four")
    policy(nil)
    assert.equal("info info info", levels("five", "six", "seven"))
    assert.equal(2, #said "policy.load")
    assert.is_truthy(said("policy.load")[2]:find("No such file", 1, true))
    policy "return { decide = function () local x = nil; return x.level end }"
    assert.equal("warning warning", levels("eight", "nine")) -- The site's own, by the built-in policy.
    assert.equal(1, #said "policy.decide")
    assert.is_truthy(said("policy.decide")[1]:find(path .. ":1", 1, true))
    policy "return { sites = { ['repl.eval'] = { level = 'error' } } }"
    assert.equal("error", levels "ten")
    assert.equal(2, #said "policy.load")
    p:close_stdin()
    p:wait()
    assert.is_true(assert_balanced(p.err) >= 13)
  end)

  it("lives on beside a peer that never answers, and says so; a command gives up with exit code 3", function ()
    local address = silent_peer()
    local p = c:node("manager", { "--dc", "a", "--name", "m", "--data", c.dir .. "/d", "--gates", address, "--join", address })
    local r = c:shoal { "jobs", "--connect", address }
    assert.equal(3, r.code, r.err)
    assert.is_truthy(r.err:find(address, 1, true) or r.err:find("deadline", 1, true), r.err)
    cluster.wait("an incident that names the peer", function ()
      return c:shoal({ "incidents", "--connect", p.address }).out:find(address, 1, true)
    end, 10000)
    assert.equal("m", c:eval(p.address, "node.name"))
    p:close_stdin()
    p:wait()
    assert.equal(0, p.code, p.err)
    assert.is_true(assert_balanced(p.err) > 0)
  end)

  it("F70: refuses garbage on its sockets and goes on", function ()
    local p = c:node("manager", { "--dc", "a", "--name", "m", "--data", c.dir .. "/d" })
    local port = math.tointeger(tonumber(p.address:match ":(%d+)$"))
    local seed = 7
    local function bytes(count)
      local out = {}
      for i = 1, count do
        seed = (seed * 1103515245 + 12345) % 2147483648
        out[i] = string.char(seed >> 16 & 255)
      end
      return table.concat(out)
    end
    local udp = uv.new_udp()
    sockets[#sockets + 1] = udp
    for i = 1, 50 do udp:send(bytes(i * 20), "127.0.0.1", port, function () end) end
    local closed = 0
    for _, text in ipairs { bytes(100), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", ("\0"):rep(70000), ("\255"):rep(70000), bytes(3) } do
      local tcp = uv.new_tcp()
      sockets[#sockets + 1] = tcp
      tcp:connect("127.0.0.1", port, function (err)
        assert(not err, err)
        tcp:read_start(function (_, chunk)
          if not chunk and not tcp:is_closing() then
            closed = closed + 1
            tcp:close()
          end
        end)
        tcp:write(text)
      end)
    end
    cluster.wait("four connections to be closed", function () return closed >= 4 end) -- Three bytes are no frame yet.
    assert.equal("m", c:eval(p.address, "node.name"))
    p:close_stdin()
    p:wait()
    assert.equal(0, p.code, p.err)
    assert_balanced(p.err)
  end)

  describe("with a job that misbehaves", function ()
    local up
    before_each(function () up = c:up(ONE_DC) end)

    local function submit(name, text, files)
      for file, bytes in pairs(files or {}) do c:file(file, bytes) end
      return c:shoal { "submit", c:file(name, text), "--connect", up.connect }
    end

    local function assert_at_rest()
      cluster.wait("all cores free", function ()
        return c:eval(up.nodes["w-a1"].address, "node.describe().free == node.describe().cores and #node.describe().parts == 0") == "true"
      end)
    end

    it("names a workflow script's syntax error before anything runs", function ()
      local r = submit("j.lua", "return { name = 'j', workflows = { w = { script = 's.lua' } } }", { ["s.lua"] = "return {\n vu = = 3 }" })
      assert.equal(2, r.code)
      assert.is_truthy(r.err:find("s.lua:2:", 1, true), r.err)
    end)

    it("fails a part whose child ends at once, and says how it went", function ()
      local r = submit("j.lua", "return { name = 'j', workflows = { w = { command = 'kill -9 $PPID', retries = 0 } } }")
      assert.equal(1, r.code, r.out .. r.err)
      assert.is_truthy(r.out:find("killed by signal 9", 1, true), r.out)
      assert_at_rest()
    end)

    it("does not submit a script that raises while loading, and says its file and line", function ()
      local r = submit("j.lua", "return { name = 'j', workflows = { w = { script = 's.lua', vus = 1 } } }",
        { ["s.lua"] = "\nerror 'not today'" })
      assert.equal(2, r.code, r.out .. r.err)
      assert.is_truthy(r.err:find("s.lua:2: not today", 1, true), r.err)
      assert_at_rest()
    end)

    it("fails a command that cannot be started", function ()
      local r = submit("j.lua", "return { name = 'j', workflows = { w = { command = { '/no/such/program' } } } }")
      assert.equal(1, r.code, r.out .. r.err)
      assert.is_truthy(r.out:find("/no/such/program", 1, true), r.out)
      assert_at_rest()
    end)

    it("outlives a script that never yields: its time limit, then a kill", function ()
      local r = submit("j.lua", "return { name = 'j', timeout_ms = 500, workflows = { w = { script = 's.lua', vus = 1 } } }",
        { ["s.lua"] = "return function () while true do end end" })
      assert.equal(124, r.code, r.out .. r.err)
      assert_at_rest()
    end)
  end)
end)
