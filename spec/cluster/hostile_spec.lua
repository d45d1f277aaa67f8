--- F70: any process that reaches a node's port can send anything. A cluster of real processes gets garbage, lies and floods. After each
--- attack it has reported the refusals, holds nothing more than before, and runs a job.
local attacker = require "spec.support.attacker"
local cluster = require "spec.support.cluster"
local cjson = require "cjson"
local messages = require "shoal.messages"
local msgpack = require "shoal.core.msgpack"
local uv = require "luv"

local NODES = { "g1", "m1", "w1" }
local TOPOLOGY = [[return { gates = { { name = "g1" } },
  datacenters = { a = { managers = { { name = "m1" } }, workers = { { name = "w1", cores = 2 } } } } }]]
local ENDING = "raised = reported %+ suppressed %+ handled: (%d+) = (%d+) %+ (%d+) %+ (%d+)"

describe("F70: a cluster under attack", function ()
  local c, up, evils, seed

  setup(function ()
    require("shoal.log").open(nil, function () end)
    c = cluster.new()
    up = c:up(TOPOLOGY)
  end)
  before_each(function () evils, seed = {}, 1 end)
  after_each(function ()
    for _, evil in ipairs(evils) do evil:close() end
  end)
  teardown(function ()
    up:kill "sigterm"
    up:wait(20000)
    local logs = {}
    for _, name in ipairs(NODES) do logs[name] = cluster.read(up.data .. "/" .. name .. ".log") end
    local out = up.err
    c:close()
    assert.equal(0, up.code, out)
    for name, text in pairs(logs) do
      local raised, reported, suppressed, handled = text:match(ENDING)
      assert(raised, name .. " did not end in order:\n" .. text:sub(-2000))
      assert.equal(tonumber(raised), reported + suppressed + handled)
      local missing = text:match '[^\n]*"missing":[^\n]*'
      assert.is_nil(missing, name)
    end
  end)

  local function as(role, name)
    local evil = attacker.new { role = role, node = name, dc = "a" }
    evils[#evils + 1] = evil
    return evil
  end

  local function at(name) return up.nodes[name].address end
  local function descriptors(name)
    local count = 0
    for _ in uv.fs_scandir_next, assert(uv.fs_scandir("/proc/" .. up.nodes[name].pid .. "/fd")) do count = count + 1 end
    return count
  end

  local function random(n) -- Equal in every run.
    seed = (seed * 6364136223846793005 + 1442695040888963407) & math.maxinteger
    return (seed >> 33) % n
  end
  local function noise(length)
    local out = {}
    for i = 1, length do out[i] = string.char(random(256)) end
    return table.concat(out)
  end

  --- How often a node raised at a site.
  local function raised(name, site)
    local r = c:shoal { "repl", "--connect", at(name), "--eval",
      ("require('shoal.errors').count('%s').raised"):format(site) }
    assert.equal(0, r.code, r.err)
    return math.tointeger(r.out)
  end

  --- Wait until the node has raised this many more incidents at the site.
  local function told(name, site, before, least)
    cluster.wait(("%s tells %d at %s"):format(name, least, site), function () return raised(name, site) - before >= least end, 10000)
  end

  --- Check that all nodes live, and that a job runs through every role.
  local function calm()
    local r = c:shoal { "submit", c:file("calm.lua", 'return { name = "calm", workflows = { w = { command = "echo still here" } } }'),
      "--connect", up.connect, "--output", "json", "--quiet" }
    assert.equal(0, r.code, r.err)
    assert.equal("completed", cjson.decode(r.out).state)
    assert.is_nil(up.err:match "ended:", up.err)
  end

  it("takes bytes that are no frames for a fault, says so, and closes", function ()
    for _, name in ipairs(NODES) do
      local evil, before, sockets = as "client", raised(name, "net.connection"), {}
      local openings = {
        ("\xff"):rep(64), ("\0"):rep(64), "GET / HTTP/1.1\r\nHost: shoal\r\n\r\n", noise(4096),
        string.pack(">I4I2BBI8", 0xffffffff, 1, 0, 0x11, 0), -- A length beyond all.
        string.pack(">I4I2BBI8", 0, 10, 9, 3, 1),            -- No such lane.
        string.pack(">I4I2BBI8", 8, 1, 0, 0x11, 0) .. "shol\255\255\0\0", -- Another protocol.
        string.pack(">I4I2BBI8", 9, 1, 0, 0x11, 0) .. "shol\0\1\0\0\255", -- A greeting that ends inside a name.
        string.pack(">I4I2BBI8", 0, 33, 0, 3, 1),            -- A request before the greeting.
      }
      for i, bytes in ipairs(openings) do sockets[i] = evil:raw(at(name), bytes) end
      cluster.wait("the end of every such connection", function ()
        for _, socket in ipairs(sockets) do if not socket.over then return false end end
        return true
      end, 10000)
      told(name, "net.connection", before, #openings)
    end
    calm()
  end)

  it("lets go of who connects and says nothing, or half a word", function ()
    local evil, before, sockets = as "client", raised("g1", "net.connection"), {}
    for i = 1, 20 do sockets[i] = evil:raw(at "g1", i % 2 == 0 and "" or string.pack(">I4I2BB", 40, 1, 0, 0x11)) end
    cluster.wait("the node's patience", function ()
      for _, socket in ipairs(sockets) do if not socket.over then return false end end
      return true
    end, 12000)
    told("g1", "net.connection", before, 20)
  end)

  it("forgets a thousand connections that came and went", function ()
    local evil = as "client"
    local count = "(function () collectgarbage() local n = 0 for _ in next, node.rpc.peers do n = n + 1 end return n end)()"
    local function peers() return tonumber(c:eval(at "m1", count)) end
    local before, known = descriptors "m1", peers()
    for round = 1, 10 do
      local sockets, open = {}, 0
      for i = 1, 100 do
        sockets[i] = evil:raw(at "m1", round % 2 == 0 and "\0\0" or "")
      end
      cluster.wait("a hundred connections", function ()
        open = 0
        for _, socket in ipairs(sockets) do if socket.up or socket.over then open = open + 1 end end
        return open == 100
      end)
      for _, socket in ipairs(sockets) do
        if round % 3 == 0 then socket.socket:close_reset() else socket.socket:close() end
      end
      evil.sockets = {}
    end
    cluster.wait("their descriptors to go", function () return descriptors "m1" <= before + 2 end)
    assert(peers() <= known + 3)
    calm()
  end)

  it("refuses by name what a role may not send, whatever its fence", function ()
    local by = { client = as "client", worker = as("worker", "w1"), manager = as("manager", "m9"), gate = as("gate", "g9") }
    for _, role in ipairs(messages.roles) do
      for _, target in ipairs { { "g1", "gate" }, { "m1", "manager" }, { "w1", "worker" } } do
        for _, name in ipairs(messages.names()) do
          local message = messages.get(name)
          local to = {}
          for _, one in ipairs(message.to) do to[one] = true end
          if to[target[2]] and not message.may_send[role] then
            local body = attacker.body(message.fields)
            if body.fence then body.fence = math.maxinteger end
            local code, text = by[role]:ask(at(target[1]), name, body)
            assert.same({ "REFUSED", true }, { code, text:find("comes only from", 1, true) ~= nil }, name .. " from a " .. role)
          end
        end
      end
    end
    for _, name in ipairs(NODES) do assert(raised(name, "rpc.role") > 0) end
    calm()
  end)

  for _, role in ipairs(messages.roles) do
    it("answers every message of a " .. role .. " whose body is wrong or absurd", function ()
      local evil = as(role)
      for _, node in ipairs(NODES) do
        for _, name in ipairs(messages.names()) do
          for i, bytes in ipairs(attacker.bodies(messages.get(name))) do
            local code, text = evil:ask_bytes(at(node), name, bytes)
            local fine = code ~= "TIMEOUT" and code ~= "DISCONNECTED" and code ~= "FAILED" and code ~= "CIRCUIT"
            assert(fine, ("%s to %s, body %d of %s: %s %s"):format(role, node, i, name, code, tostring(text)))
          end
        end
      end
      calm()
    end)
  end

  it("reads past datagrams that are none of membership's", function ()
    for _, name in ipairs { "m1", "w1", "g1" } do
      local before = raised(name, "swim.refused")
      local udp, sent = uv.new_udp(), 0
      local port = tonumber(at(name):match ":(%d+)$")
      for i = 1, 500 do
        udp:send(noise(i % 7 == 0 and 1400 or i % 90), "127.0.0.1", port, function () sent = sent + 1 end)
      end
      cluster.wait("the datagrams to leave", function () return sent == 500 end)
      udp:close()
      told(name, "swim.refused", before, 1)
    end
    calm()
  end)

  describe("refuses a job, each problem by its place:", function ()
    local function job(changes)
      local spec = { name = "bad", workflows = { w = { command = { "true" } } } }
      for k, v in pairs(changes) do spec[k] = v end
      return spec
    end
    local function load(changes)
      local w = { script = { path = "x.lua", bytes = "return function () end" }, vus = 1 }
      for k, v in pairs(changes) do w[k] = v end
      return job { workflows = { w = w } }
    end
    local cases = {
      { "a newline in its name", job { name = "a\nb" }, "name:" },
      { "a control character", job { name = "a\27[2Jb" }, "name:" },
      { "'|' and '/', which part keys", job { name = "a|b/c" }, "name:" },
      { "a name of a megabyte", job { name = ("n"):rep(1 << 20) }, "name:" },
      { "a workflow named with '/'", job { workflows = { ["a/b"] = { command = { "true" } } } }, "workflows" },
      { "a million users", load { vus = 1000000 }, "vus: 1000000 is above" },
      { "fewer iterations than users", load { vus = 10, iterations = 3 }, "iterations: 3 for 10 vus" },
      { "NaN iterations", load { iterations = 0 / 0 }, "iterations" },
      { "an endless duration", load { duration_ms = 1 / 0 }, "duration_ms" },
      { "negative users", load { vus = -1 }, "vus: -1 is below 1" },
      { "a rate of NaN", load { rate = 0 / 0 }, "rate" },
      { "a script of two megabytes", load { script = { path = "x", bytes = ("-"):rep(2 << 20) } }, "script: x has 2097152 bytes" },
      { "a script that is bytecode", load { script = { path = "x", bytes = string.dump(function () end) } }, "compiled Lua (bytecode)" },
      { "a cycle", job { workflows = {
        a = { command = { "true" }, after = { "b" } }, b = { command = { "true" }, after = { "a" } },
      } }, "cycle" },
      { "ten thousand workflows", nil, "workflows: 10000 of them" },
      { "workflows that are a number", job { workflows = 7 }, "workflows: found 7" },
      { "a field nobody knows", job { sudo = true }, "sudo: unknown option" },
    }
    for _, case in ipairs(cases) do
      it(case[1], function ()
        local spec = case[2]
        if not spec then
          spec = job { workflows = {} }
          for i = 1, 10000 do spec.workflows["w" .. i] = { command = { "true" } } end
        end
        for _, node in ipairs { "g1", "m1" } do
          local code, text = as "client":ask(at(node), "job.submit", { key = case[1], spec = msgpack.pack(spec) })
          assert.equal("CONFIG", code, tostring(text))
          assert(text:find(case[3], 1, true), text)
        end
      end)
    end

    it("bytes nested deeper than any job", function ()
      for _, bytes in ipairs { ("\x91"):rep(100000), "\xdf\xff\xff\xff\xff", "", "\xc1", ("\x81\xa1a"):rep(20) .. "\xc0" } do
        local code, text = as "client":ask(at "g1", "job.submit", { key = "deep", spec = bytes })
        assert(code == "MALFORMED" and text:find("unreadable", 1, true), ("%s: %s"):format(code, text))
      end
    end)

    it("and three megabytes do not pass at all", function ()
      local code = as "client":ask(at "g1", "job.submit", { key = "big", spec = ("x"):rep(3 << 20) })
      assert.equal("TOO_LARGE", code)
      calm()
    end)
  end)

  it("holds in the end what it held before", function ()
    for _, evil in ipairs(evils) do evil:close() end
    evils = {}
    calm()
    cluster.wait("the worker's cores to be free", function () return c:eval(at "w1", "node.state.worker:claimed()") == "0" end)
    for _, name in ipairs(NODES) do
      cluster.wait(name .. " to hold few descriptors", function () return descriptors(name) < 30 end)
      assert.equal("true", c:eval(at(name), "require('shoal.errors').balance() == true"))
    end
  end)
end)
