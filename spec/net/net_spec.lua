--- The transport's face in Lua, over real sockets: shapes of arguments and results, ownership, errors in handlers.
local errors = require "shoal.errors"
local net = require "shoal.net"
local real = require "spec.support.real"
local task = require "shoal.task"

--- Two nets, b listening, and a's peer for it; everything closed afterwards.
local function pair(of_a, of_b, fn, config)
  real.run(function (world)
    local made = { node = "a", cluster = "spec", role = "gate", dc = "x" }
    for key, value in next, config or {} do made[key] = value end
    local a = assert(net.open(world, made, of_a))
    local b = assert(net.open(world, { node = "b", cluster = "spec", role = "worker" }, of_b))
    local address = assert(b:listen "127.0.0.1:0")
    local peer = assert(a:peer(address))
    fn(a, b, peer, address)
    a:close()
    b:close()
  end)
end

local function echo(self, _, _, _, request, bytes) assert(self:reply(request, bytes)) end

--- Wait for a callback's arguments.
local function ask(peer, kind, lane, bytes, timeout_ms)
  local answer = task.future "answer"
  local ok, err, code = peer:call(kind, lane, bytes, timeout_ms, function (...) answer:set(...) end)
  if not ok then
    answer:drop "it was refused"
    return nil, err, code
  end
  return answer:await(5000)
end

local function incidents_at(site)
  local found = {}
  for _, incident in ipairs(errors.incidents()) do
    if incident.site == site then found[#found + 1] = incident end
  end
  return found
end

describe("shoal.net", function ()
  it("asks, both ways on one connection, and knows who the other is", function ()
    local seen, back
    pair({ on_request = function (self, peer, kind, lane, request, bytes)
      back = { peer:info().node, kind, lane, bytes }
      self:reply(request, "from a")
    end }, { on_request = function (self, peer, kind, lane, request, bytes)
      seen = { peer, kind, lane, bytes }
      self:reply(request, "from b")
    end }, function (a, b, peer, address)
      assert.equal("from b", (ask(peer, 65535, "telemetry", "to b", 1000)))
      assert.same({ 65535, "telemetry", "to b" }, { seen[2], seen[3], seen[4] })
      assert.equal("from a", (ask(seen[1], 0, "control", "to\0a", 1000)))
      assert.same({ "b", 0, "control", "to\0a" }, back)
      assert.equal(peer, (a:peer(address)))
      local info = peer:info()
      assert.same({ "b", "worker", nil, true, true, "closed", 0, address },
        { info.node, info.role, info.dc, info.up, info.dialled, info.circuit, info.in_flight, info.address })
      info = seen[1]:info()
      assert.same({ "a", "gate", "x", true, false }, { info.node, info.role, info.dc, info.up, info.dialled })
      assert.equal("peer " .. address .. " b (up)", tostring(peer))
      assert.equal(1, a:counts().dials)
      assert.equal(1, b:counts().accepted)
      assert.equal(1, a:counts().replies)
      assert.equal(0, a:counts().drops.control.full)
      assert.equal(0, a:counts().faults.length)
    end)
  end)

  it("carries the largest message, and refuses a larger one by name", function ()
    pair({}, { on_request = echo }, function (_, b, peer)
      local most = ("m"):rep(net.message_max)
      assert.equal(most, (ask(peer, 1, "data", most, 5000)))
      assert.equal("", (ask(peer, 1, "data", "", 5000)))
      local ok, err, code = ask(peer, 1, "data", most .. "m", 5000)
      assert.same({ nil, "TOO_LARGE" }, { ok, code })
      assert.matches("^call to 127%.0%.0%.1:%d+: larger than the limit$", err)
      assert.equal(2, b:counts().messages_received)
    end)
  end)

  it("refuses with the word and the text that the other side gave, its own words included", function ()
    pair({}, { on_request = function (self, _, kind, _, request)
      if kind == 1 then self:refuse(request, "NOT_LEADER", "ask 10.0.0.2:7000") else self:refuse(request, "SULKING") end
    end }, function (_, _, peer)
      assert.same({ nil, "ask 10.0.0.2:7000", "NOT_LEADER" }, table.pack(ask(peer, 1, "data", "", 1000), nil) and
        { ask(peer, 1, "data", "", 1000) })
      assert.same({ nil, "", "SULKING" }, { ask(peer, 2, "data", "", 1000) })
    end)
  end)

  it("answers UNHANDLED where nobody handles requests, and TIMEOUT where nobody answers", function ()
    local held
    pair({}, { on_request = function (_, _, _, _, request) held = request end }, function (a, b, peer)
      local ok, err, code = ask(peer, 1, "data", "", 20)
      assert.same({ nil, "no answer within the deadline", "TIMEOUT" }, { ok, err, code })
      assert.is_true(b:reply(held, "late"))
      task.sleep(20)
      assert.equal(1, a:counts().late_replies)
      assert.equal(1, a:counts().timeouts)
    end)
    pair({}, {}, function (_, _, peer)
      local _, _, code = ask(peer, 1, "data", "", 1000)
      assert.equal("UNHANDLED", code)
    end)
  end)

  it("tells one way, and says when the kernel has it or why not", function ()
    local got = {}
    pair({}, { on_request = function (_, _, kind, lane, request, bytes) got[#got + 1] = { kind, lane, request, bytes } end },
      function (a, _, peer, address)
        local sent = task.future "sent"
        assert.is_true(peer:send(9, "data", "note", function (...) sent:set(...) end))
        assert.is_true((sent:await(1000)))
        assert.is_true(peer:send(9, "control", "state", function () end))
        task.sleep(20)
        assert.same({ { 9, "data", nil, "note" }, { 9, "control", nil, "state" } }, got)
        local nobody = assert(a:peer("127.0.0.1:" .. real.free_port()))
        local failed = task.future "failed"
        assert.is_true(nobody:send(9, "data", "note", function (...) failed:set(...) end))
        local ok, err, code = failed:await(1000)
        assert.same({ nil, "ECONNREFUSED" }, { ok, code })
        assert.matches("cannot connect: Connection refused", err)
        assert.not_equal(address, nobody:info().address)
      end)
  end)

  it("refuses to listen where others could reach it, and an address that is none", function ()
    pair({}, {}, function (a, _, _, address)
      local bound, err, code = a:listen "0.0.0.0:0"
      assert.same({ nil, "CONFIG" }, { bound, code })
      assert.matches("listen on 0%.0%.0%.0:0: this node has no keys.*bind to 127%.0%.0%.1 or ::1", err)
      bound, err, code = a:listen(address)
      assert.same({ nil, "EADDRINUSE" }, { bound, code })
      assert.matches("^listen on 127", err)
      bound, err, code = a:listen "nowhere"
      assert.same({ nil, "MALFORMED" }, { bound, code })
      assert.matches("'nowhere' is not an address", err)
      local peer
      peer, _, code = a:peer "b:7000"
      assert.same({ nil, "MALFORMED" }, { peer, code })
      assert.equal("[::1]:", (assert(a:listen "[::1]:0"):match "^%[::1%]:"))
    end)
  end)

  it("names every problem of a configuration at once", function ()
    local world = require("shoal.core.world").current()
    local opened, err, code = net.open(world, { node = 7, conect_timeout_ms = 3, keepalive_ms = 0 }, {})
    assert.same({ nil, "CONFIG" }, { opened, code })
    assert.matches("node", err)
    assert.matches('did you mean "connect_timeout_ms"', err)
    assert.matches("keepalive_ms", err)
    opened, err = net.open(world, { node = "a", keepalive_ms = 30000 }, {})
    assert.is_nil(opened)
    assert.matches("idle_timeout_ms must exceed keepalive_ms", err)
    assert.is_nil((net.open(world, { node = "" }, {})))
    assert.is_nil((net.open(world, { node = ("n"):rep(256) }, {})))
    local most = assert(net.open(world, { node = ("n"):rep(255) }, {}))
    most:close()
    require("luv").run()
    assert.equal(0, world:telemetry().open_handles)
  end)

  it("raises on what can only be a mistake of the caller's", function ()
    pair({}, { on_request = echo }, function (a, b, peer)
      local function fn() end
      assert.has_error(function () peer:call(65536, "data", "", 1, fn) end)
      assert.has_error(function () peer:call(-1, "data", "", 1, fn) end)
      assert.has_error(function () peer:call(1, "date", "", 1, fn) end)
      assert.has_error(function () peer:call(1, "data", {}, 1, fn) end)
      assert.has_error(function () peer:call(1, "data", "", 0, fn) end)
      assert.has_error(function () peer:call(1, "data", "", 1) end)
      assert.has_error(function () peer:send(1, "data", "") end)
      assert.has_error(function () b:reply({}, "") end)
      assert.has_error(function () net.open(nil, { node = "x" }, {}) end)
      assert.has_error(function () net.open(require("shoal.core.world").current(), { node = "x" }, { on_peer = 5 }) end)
      a:close()
      a:close()
      assert.has_error(function () a:listen "127.0.0.1:0" end)
    end)
  end)

  it("makes an error in a handler an incident, answers FAILED, and goes on", function ()
    local calls = 0
    pair({ on_peer = function () error "in on_peer" end }, { on_request = function (self, _, _, _, request, bytes)
      calls = calls + 1
      if bytes == "raise" then error { what = "kept" } end
      self:reply(request, "fine")
      if bytes == "both" then error "after the answer" end
    end }, function (_, _, peer)
      local _, err, code = ask(peer, 1, "data", "raise", 1000)
      assert.same({ "the request's handler failed", "FAILED" }, { err, code })
      assert.equal("fine", (ask(peer, 1, "data", "both", 1000)))
      assert.equal("fine", (ask(peer, 1, "data", "", 1000)))
      assert.is_true(peer:call(1, "data", "", 1000, function () error "in the answer" end))
      task.sleep(20)
      assert.equal(4, calls)
      assert.equal(2, #incidents_at "net.request")
      assert.equal("kept", incidents_at("net.request")[1].error.what)
      assert.equal(1, #incidents_at "net.peer")
      assert.equal(1, #incidents_at "net.reply")
    end)
  end)

  it("refuses a request that was dropped without an answer, and says so; one answered twice raises", function ()
    local kept
    pair({}, { on_request = function (self, _, kind, _, request)
      if kind == 2 then
        self:reply(request, "once")
        kept = request
      end
    end }, function (a, b, peer)
      assert.equal("once", (ask(peer, 2, "data", "", 1000)))
      assert.has_error(function () b:reply(kept, "twice") end)
      assert.has_error(function () b:refuse(kept, "NO") end)
      local answer = task.future "answer"
      assert.is_true(peer:call(1, "data", "", 5000, function (...) answer:set(...) end))
      task.sleep(20)
      collectgarbage()
      collectgarbage()
      local _, err, code = answer:await(1000)
      assert.same({ "the request was dropped without an answer", "FAILED" }, { err, code })
      assert.equal(1, #incidents_at "net.request.dropped")
      assert.equal(0, a:counts().late_replies)
    end)
  end)

  it("may be closed from any handler; what was outstanding ends, each once", function ()
    for _, way in ipairs { "answer", "request", "peer", "sent", "circuit" } do
      local ended, closed = 0, false
      local a, b
      real.run(function (world)
        local asked = {}
        local function close(self)
          self:close(not asked[self] and function () closed = true end or nil)
          asked[self] = true
        end
        a = assert(net.open(world, { node = "a", circuit = { failures = 1 } }, {
          on_peer = function () if way == "peer" then close(a) end end,
          on_circuit = function () if way == "circuit" then close(a) end end,
        }))
        b = assert(net.open(world, { node = "b" }, { on_request = function (self, peer, _, _, request, bytes)
          if way == "request" then close(self) end
          if request and way ~= "circuit" then self:reply(request, bytes) end -- Closing, it may still answer.
          return peer
        end }))
        local address = way == "circuit" and "127.0.0.1:" .. real.free_port() or assert(b:listen "127.0.0.1:0")
        local peer = assert(a:peer(address))
        for i = 1, 5 do
          assert(peer:call(1, "data", "x", 200, function ()
            ended = ended + 1
            if way == "answer" and i == 1 then close(a) end
          end))
        end
        assert(peer:send(2, "data", "x", function () if way == "sent" then close(a) end end))
        local waited = 0
        while not (closed and ended == 5) and waited < 200 do
          task.sleep(10)
          waited = waited + 1
        end
        assert.same({ 5, true }, { ended, closed }, way)
        a:close()
        b:close()
        local ok, _, code = peer:call(1, "data", "x", 200, function () end)
        if way ~= "request" then assert.same({ nil, "CLOSED" }, { ok, code }) end
        assert.same({}, errors.incidents(), way)
      end)
    end
  end)

  it("tells of connections and circuits, and a peer that is gone says so", function ()
    local told, inbound = {}, nil
    pair({
      on_peer = function (_, event, _, code) told[#told + 1] = code and event .. " " .. code or event end,
      on_circuit = function (_, status) told[#told + 1] = status end,
    }, { on_request = echo, on_peer = function (peer) inbound = peer end }, function (_, b, peer)
      assert.equal("x", (ask(peer, 1, "data", "x", 1000)))
      b:close()
      task.sleep(30)
      for _ = 1, 2 do assert.is_nil((ask(peer, 1, "data", "x", 1000))) end
      local ok, err, code = ask(peer, 1, "data", "x", 1000)
      assert.same({ nil, "CIRCUIT" }, { ok, code })
      assert.matches("the circuit to this peer is open", err)
      task.sleep(5)
      assert.same({ "up", "down DISCONNECTED", "down ECONNREFUSED", "down ECONNREFUSED", "open" }, told)
      assert.equal("open", peer:info().circuit)
      assert.same({ nil, "CLOSED" }, { (inbound:info()), select(3, inbound:info()) })
      assert.equal("peer (gone)", tostring(inbound))
      inbound:close()
    end, { backoff = { base_ms = 20, cap_ms = 20 }, circuit = { failures = 2 } })
  end)

  it("F05: refuses what is beyond its limits by name, and counts it", function ()
    real.run(function (world)
      local a = assert(net.open(world, { node = "a", cluster = "spec" }, {}))
      local b = assert(net.open(world, { node = "b", cluster = "spec", connections_max = 1, unanswered_all_max = 2 },
        { on_request = function (self, _, kind, _, request) if kind == 1 then self:reply(request, "b") end end }))
      local c = assert(net.open(world, { node = "c", cluster = "spec" }, {}))
      local address = assert(b:listen "127.0.0.1:0")
      assert.equal("b", (ask(assert(a:peer(address)), 1, "data", "", 1000)))
      local answer, err, code = ask(assert(c:peer(address)), 1, "data", "", 1000)
      assert.same({ nil, "FULL" }, { answer, code })
      assert.matches("1 connections are open here, the limit; try again in 1000 ms", err)
      local codes = {}
      for i = 1, 3 do assert(a:peer(address)):call(2, "data", "", 300, function (_, _, word) codes[i] = word end) end
      task.sleep(50)
      assert.same({ nil, nil, "OVERLOADED" }, { codes[1], codes[2], codes[3] })
      local counts = b:counts()
      assert.same({ connections = 1, greeting = 0, requests = 1, assembly = 0, stuck = 0, memory = 0 }, counts.refused)
      assert.same({ 1, 2, 0, 0 }, { counts.connections_open, counts.unanswered, counts.assembly_bytes, counts.queued_bytes })
      for _, one in ipairs { a, b, c } do one:close() end
      task.sleep(350)
    end)
    local world = require("shoal.core.world").current()
    local opened, err, code = net.open(world, { node = "a", assembly_bytes_max = (3 << 20) - 1, queued_bytes_max = (6 << 20) - 1 }, {})
    assert.same({ nil, "CONFIG" }, { opened, code })
    assert.matches("assembly_bytes_max.*queued_bytes_max", err)
  end)

  it("keeps nothing of a million requests", function ()
    pair({}, { on_request = echo }, function (a, _, peer)
      local function burst(n)
        local left, done = n, task.future "done"
        local function one(bytes)
          if not bytes then return done:fail("no answer", "FAILED") end
          left = left - 1
          if left == 0 then return done:set(true) end
          if left >= 50 then assert(peer:call(1, "data", "x", 5000, one)) end
        end
        for _ = 1, 50 do assert(peer:call(1, "data", "x", 5000, one)) end
        assert(done:await(15000))
        collectgarbage()
        collectgarbage()
        return collectgarbage "count"
      end
      burst(1000)
      local before = burst(1000)
      local after = burst(100000)
      assert.is_true(after - before < 64, ("grew by %d KiB"):format(after - before))
      assert.equal(102000, a:counts().replies)
    end)
  end)
end)

describe("examples/transport.lua", function ()
  it("runs as it is: a late answer, a refusal, a circuit that opens, tries and closes", function ()
    local build = os.getenv "SHOAL_BUILD" or "build/release"
    local pipe = assert(io.popen("SHOAL_BUILD=" .. build .. " timeout 20 lua5.4 examples/transport.lua 2>&1"))
    local output = pipe:read "a"
    assert(pipe:close(), output)
    for _, line in ipairs { 'answer "HELLO"', "client says quite well", "%[TIMEOUT%]", "%[STALE%]", "late replies so far: 1",
      "%[ECONNREFUSED%]", "%[CIRCUIT%]", "circuit is open", "circuit is half_open", 'answer "A TRIAL"', "circuit is closed",
      "done\n$" } do
      assert.matches(line, output)
    end
  end)
end)
