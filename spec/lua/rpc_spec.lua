--- Remote calls over a fake transport: every answer, every failure, and the incident of each.
local disk = require "spec.support.disk"
local errors = require "shoal.errors"
local log = require "shoal.log"
local messages = require "shoal.messages"
local network = require "spec.support.network"
local task = require "shoal.task"

describe("rpc", function ()
  local world, wire, rpc, scope, gate, worker, peer

  local function in_task(fn)
    local t = scope:spawn("spec.run", { task = "spec" }, fn)
    task.flush()
    wire:run()
    return t
  end

  --- The incidents reported since the start, as "site: message".
  local function told()
    local list = {}
    for i, incident in ipairs(errors.incidents()) do list[i] = incident.site .. ": " .. tostring(incident.message) end
    return list
  end

  before_each(function ()
    errors.reset()
    task.reset()
    messages.reset()
    log.open(nil, function () end)
    messages.define { name = "note", id = 900, lane = "telemetry", from = { "gate", "worker" }, to = { "worker", "gate" },
      fields = { { "n", "integer" } } }
    messages.define { name = "ask", id = 901, lane = "dispatch", from = { "gate" }, to = { "worker" },
      fields = { { "n", "integer" } },
      reply = { { "n", "integer" } }, timeout_ms = 700 }
    messages.define { name = "empty", id = 902, lane = "data", from = { "gate" }, to = { "worker" }, fields = {},
      reply = {} }
    world = disk.new()
    errors.start(world, "spec")
    task.start(world)
    wire = network.install()
    rpc = require "shoal.rpc"
    scope = task.scope "spec"
    gate = assert(rpc.open { name = "g1", role = "gate", dc = "", world = world, scope = scope,
      config = { cluster = "c" } })
    worker = assert(rpc.open { name = "w1", role = "worker", dc = "a", world = world, scope = scope })
    gate:listen "127.0.0.1:1"
    worker:listen "127.0.0.1:2"
    peer = gate:peer "127.0.0.1:2"
  end)

  after_each(function ()
    gate:close()
    worker:close()
    task.stop()
    network.remove()
    messages.reset()
  end)

  it("opens the transport as the node, in its cluster", function ()
    assert.same({ node = "g1", role = "gate", dc = "", cluster = "c" }, wire.opened[1].options)
    assert.same({ node = "w1", role = "worker", dc = "a", cluster = "shoal" }, wire.opened[2].options)
  end)

  it("asks and is answered, on the message's lane, within its timeout", function ()
    worker:handle("ask", function (body, from)
      assert.equal("g1", from:name())
      return { n = body.n + 1 }
    end)
    local reply
    in_task(function ()
      reply = peer:call("ask", { n = 1 })
      peer:call("ask", { n = 2 }, { timeout_ms = 50 })
    end)
    assert.same({ n = 2 }, reply)
    local sent = wire.opened[1].log
    assert.same({ 901, "dispatch", 700 }, { sent[1].id, sent[1].lane, sent[1].timeout_ms })
    assert.equal(50, sent[2].timeout_ms)
    assert.same({}, told())
  end)

  it("lets a handler wait, and answers others meanwhile", function ()
    worker:handle("ask", function (body)
      if body.n == 1 then task.sleep(100) end
      return { n = body.n }
    end)
    local order = {}
    for n = 1, 2 do
      in_task(function ()
        local reply = peer:call("ask", { n = n })
        order[#order + 1] = reply.n
      end)
    end
    assert.same({ 2 }, order)
    world:advance(100)
    wire:run()
    assert.same({ 2, 1 }, order)
  end)

  it("gives a future of a reply, and one that fails when the call cannot be made", function ()
    worker:handle("ask", function (body) return { n = body.n * 2 } end)
    local results = {}
    in_task(function ()
      local first, second = peer:start("ask", { n = 1 }), peer:start("ask", { n = 2 })
      results[1], results[2] = second:await(), first:await()
      results[3] = { peer:start("ask", { n = "x" }):await() }
      wire.refuse_next = "FULL"
      results[4] = { peer:start("ask", { n = 1 }):await() }
    end)
    assert.same({ { n = 4 }, { n = 2 } }, { results[1], results[2] })
    assert.same({ nil, "ask: n: expected integer, found string", "MALFORMED" }, results[3])
    assert.same({ nil, "refused by the fake", "FULL" }, results[4])
  end)

  it("returns a handler's refusal as it was given", function ()
    worker:handle("ask", function () return nil, "not now", "OVERLOADED" end)
    worker:handle("empty", function () return nil, "no code" end)
    local first, second
    in_task(function ()
      first = { peer:call("ask", { n = 1 }) }
      second = { peer:call("empty", {}) }
    end)
    assert.same({ nil, "not now", "OVERLOADED" }, first)
    assert.same({ nil, "no code", "REFUSED" }, second)
    assert.same({}, told())
  end)

  it("F69: makes a handler's raise one incident with its ids, answers FAILED, and handles the next", function ()
    worker:handle("ask", function (body)
      if body.n == 1 then error "boom" end
      return { n = body.n }
    end)
    local first, second
    in_task(function ()
      first = { peer:call("ask", { n = 1 }) }
      second = peer:call("ask", { n = 2 })
    end)
    assert.equal("FAILED", first[3])
    assert.truthy(first[2]:find "ask: the handler failed: .*boom", first[2])
    assert.same({ n = 2 }, second)
    local incident = errors.incidents()[1]
    assert.equal("rpc.handler", incident.site)
    assert.same({ "ask", "g1", 1 }, { incident.ids.message, incident.ids.peer, incident.ids.request })
    assert.equal(1, #told())
    assert.is_true(errors.balance())
  end)

  it("F69: makes an unreadable body one incident, and answers MALFORMED", function ()
    worker:handle("ask", function () return { n = 1 } end)
    local code, text
    local core = wire.opened[1]:peer "127.0.0.1:2"
    core:call(901, "dispatch", "\xc1", 100, function (_, err, word) text, code = err, word end)
    wire:run()
    assert.equal("MALFORMED", code)
    assert.equal("ask: expected map, found a byte no value starts with", text)
    assert.same({ "rpc.decode: ask: expected map, found a byte no value starts with" }, told())
    assert.equal(1, errors.incidents()[1].ids.payload_bytes)
  end)

  it("F69: tells of a message it has no handler for, known or not, and answers UNHANDLED", function ()
    local codes = {}
    local core = wire.opened[1]:peer "127.0.0.1:2"
    core:call(901, "dispatch", "\x80", 100, function (_, _, word) codes[1] = word end)
    core:call(77, "dispatch", "\x80", 100, function (_, _, word) codes[2] = word end)
    wire:run()
    assert.same({ "UNHANDLED", "UNHANDLED" }, codes)
    assert.same({ "rpc.unhandled: no handler for ask", "rpc.unhandled: no handler for type 77" }, told())
  end)

  it("F07: refuses by name what the sender's role may not send, and runs no handler for it", function ()
    local ran, code, text = 0, nil, nil
    gate:handle("empty", function () ran = ran + 1 return true end)
    gate:raw("ask", function () ran = ran + 1 return "" end)
    in_task(function () text, code = select(2, worker:peer("127.0.0.1:1"):call("empty", {})) end)
    assert.same({ "REFUSED", "empty comes only from a gate, not from the worker w1" }, { code, text })
    in_task(function () code = select(3, worker:peer("127.0.0.1:1"):call("ask", { n = 1 })) end)
    assert.same({ "REFUSED", 0 }, { code, ran })
    assert.same({ message = "ask", peer = "w1", role = "worker" }, errors.incidents()[2].ids)
    assert.equal(2, errors.count("rpc.role").raised)
  end)

  it("F11: lets go of a peer that is gone and that nobody asks for, and makes it anew for who does", function ()
    local gone, up = gate:peer "127.0.0.1:8", gate:peer "127.0.0.1:9"
    up.core.info = function () return { address = "127.0.0.1:9", up = true } end
    gate:sweep()
    assert.is_true(gone == gate:peer "127.0.0.1:8") -- Asked for in time.
    gate:sweep()
    assert.is_nil(gone.core.closed)
    gate:sweep()
    assert.is_true(gone.core.closed)
    assert.is_nil(gate.by_address["127.0.0.1:8"])
    assert.is_true(up == gate:peer "127.0.0.1:9" and not up.core.closed)
  end)

  it("F70: a connection that ended by a fault is an incident with a name and an address; an everyday end is none", function ()
    local core = { info = function () return { address = "127.0.0.1:77", dialled = false } end } -- Before any greeting.
    local hear = wire.opened[1].handlers.on_peer
    for _, code in ipairs { "ECONNRESET", "DISCONNECTED", "MALFORMED", "REFUSED", "FULL", "TIMEOUT" } do hear(core, "down", "why", code) end
    assert.equal(4, errors.count("net.connection").raised)
    assert.same({ peer = "127.0.0.1:77", address = "127.0.0.1:77", role = "" }, errors.incidents()[1].ids)
  end)

  it("F70: forgets a peer's role when its connection drops: another process may answer there next", function ()
    local role, heard = "gate", {}
    local core = { info = function () return { node = "x", role = role, address = "127.0.0.1:77" } end }
    local of_worker = wire.opened[2].handlers
    local note, answered = messages.get "note", {}
    worker:handle("note", function (body) heard[#heard + 1] = body.n end)
    worker:handle("ask", function (body) return { n = body.n } end)
    local function ask(n)
      local request = { network = wire, done = function (_, _, code) answered[n] = code or "served" end }
      of_worker.on_request(core, messages.get("ask").id, "dispatch", request, assert(messages.encode("ask", { n = n })))
      wire:run()
    end
    of_worker.on_request(core, note.id, note.lane, nil, assert(messages.encode("note", { n = 1 })))
    ask(1)
    role = "worker" -- Which may not ask.
    ask(2) -- The connection is still the same, so its role is that of its greeting.
    of_worker.on_peer(core, "down", "gone", "DISCONNECTED")
    ask(3)
    assert.same({ "served", "served", "REFUSED" }, answered)
    assert.same({ 1 }, heard)
    assert.matches("ask comes only from a gate, not from the worker x", told()[1])
  end)

  describe("one-way messages under way", function ()
    local started

    --- A gate of its own that sends n notes, whose handlers wait.
    local function flood(name, n, lane)
      local core = { info = function () return { node = name, role = "gate", address = "127.0.0.1:99" } end,
        close = function (c) c.closed = true end }
      local id, bytes = messages.get("note").id, assert(messages.encode("note", { n = 1 }))
      for _ = 1, n do wire.opened[2].handlers.on_request(core, id, lane, nil, bytes) end
      return core
    end

    before_each(function ()
      started = 0
      worker:handle("note", function ()
        started = started + 1
        worker.gate_open = worker.gate_open or task.future "open"
        worker.gate_open:await()
      end)
    end)

    it("F05 F66: are 250 of one peer; one more is dropped, and an incident; when they end, there is room", function ()
      flood("x", 250, "telemetry")
      assert.equal(250, started)
      assert.same({}, told())
      local core = flood("x", 1, "telemetry")
      assert.equal(251, started) -- Another connection's: each has its own share.
      for _ = 1, 249 do
        wire.opened[2].handlers.on_request(core, 900, "telemetry", nil, assert(messages.encode("note", { n = 1 })))
      end
      assert.same({ 500, 0 }, { started, errors.count("rpc.shed").raised })
      wire.opened[2].handlers.on_request(core, 900, "telemetry", nil, assert(messages.encode("note", { n = 1 })))
      assert.same({ 500, 1 }, { started, errors.count("rpc.shed").raised })
      assert.matches("^rpc.shed: 500 one%-way messages are being handled, 250 of this peer's; this one is dropped$", told()[1])
      assert.same({ message = "note", peer = "x" }, errors.incidents()[1].ids)
      assert.is_nil(core.closed)
      worker.gate_open:set(true)
      task.flush()
      wire.opened[2].handlers.on_request(core, 900, "telemetry", nil, assert(messages.encode("note", { n = 1 })))
      assert.same({ 501, 1 }, { started, errors.count("rpc.shed").raised })
      assert.equal(0, worker.one_way)
    end)

    it("F05 F66: are 1000 of all peers; one more is dropped, whoever sent it", function ()
      for _, name in ipairs { "a", "b", "c", "d" } do flood(name, 250, "telemetry") end
      assert.same({ 1000, 0 }, { started, errors.count("rpc.shed").raised })
      flood("e", 1, "telemetry")
      assert.same({ 1000, 1 }, { started, errors.count("rpc.shed").raised })
      worker.gate_open:set(true)
      task.flush()
      assert.equal(0, worker.one_way)
    end)

    it("F63 F66: in the control lane pass what is full of others, and close their connection at 250", function ()
      messages.define { name = "order", id = 903, lane = "control", from = { "gate" }, to = { "worker" }, fields = {} }
      local orders, bytes = 0, assert(messages.encode("order", {}))
      worker:handle("order", function ()
        orders = orders + 1
        worker.gate_open:await()
      end)
      for _, name in ipairs { "a", "b", "c", "d" } do flood(name, 250, "telemetry") end
      local core = flood("e", 0, "control")
      for _ = 1, 250 do wire.opened[2].handlers.on_request(core, 903, "control", nil, bytes) end
      assert.same({ 250, 0 }, { orders, errors.count("rpc.shed").raised })
      assert.is_nil(core.closed)
      wire.opened[2].handlers.on_request(core, 903, "control", nil, bytes)
      assert.same({ 250, 1, true }, { orders, errors.count("rpc.shed").raised, core.closed })
      assert.matches("its connection is closed", told()[1])
      worker.gate_open:set(true)
      task.flush()
    end)
  end)

  it("F69: tells of a handler that returns nothing, or what its reply cannot hold", function ()
    worker:handle("ask", function (body) if body.n == 2 then return { n = "two" } end end)
    local codes = {}
    in_task(function ()
      codes[1] = select(3, peer:call("ask", { n = 1 }))
      codes[2] = select(3, peer:call("ask", { n = 2 }))
    end)
    assert.same({ "FAILED", "FAILED" }, codes)
    assert.same({
      "rpc.handler: the handler returned nothing where a reply is due",
      "rpc.reply: ask reply: n: expected integer, found string",
    }, told())
  end)

  it("F69: tells when an answer finds no way", function ()
    worker:handle("ask", function () return { n = 1 } end)
    wire.opened[2].reply_fails = true
    in_task(function () peer:call("ask", { n = 1 }) end)
    assert.same({ "rpc.reply: the connection is gone" }, told())
    local ids = errors.incidents()[1].ids
    assert.same({ "ask", "g1", 1 }, { ids.message, ids.peer, ids.request })
  end)

  it("takes true for an empty reply", function ()
    worker:handle("empty", function () return true end)
    local reply
    in_task(function () reply = peer:call("empty", {}) end)
    assert.same({}, reply)
  end)

  it("passes the transport's failures on, in words", function ()
    local results = {}
    in_task(function ()
      wire.opened[2].silent = true
      results[1] = { peer:call("ask", { n = 1 }) }
      results[2] = { gate:peer("127.0.0.1:77"):call("ask", { n = 1 }) }
      wire.refuse_next = "CIRCUIT"
      results[3] = { peer:call("ask", { n = 1 }) }
      results[4] = { peer:call("ask", {}) }
      results[5] = { gate:peer("no address"):call("ask", { n = 1 }) }
    end)
    assert.same({
      { nil, "no answer", "TIMEOUT" }, { nil, "nobody is there", "ECONNREFUSED" },
        { nil, "refused by the fake", "CIRCUIT" },
      { nil, "ask: n: missing", "MALFORMED" }, { nil, "no address is no address", "CONFIG" },
    }, results)
  end)

  it("hands a reply that cannot be read to the caller", function ()
    worker:raw("ask", function () return "\xc1" end)
    local result
    in_task(function () result = { peer:call("ask", { n = 1 }) } end)
    assert.same({ nil, "ask reply: expected map, found a byte no value starts with", "MALFORMED" }, result)
  end)

  describe("one way", function ()
    it("is heard, and its refusal is an incident for it has no asker", function ()
      local heard = {}
      worker:handle("note", function (body)
        heard[#heard + 1] = body.n
        if body.n == 2 then return nil, "too much", "FULL" end
      end)
      in_task(function ()
        peer:send("note", { n = 1 }, { on_fail = error })
        peer:send("note", { n = 2 }, { on_fail = error })
      end)
      assert.same({ 1, 2 }, heard)
      assert.same({ "rpc.handler: too much" }, told())
    end)

    it("needs on_fail, which every failed send reaches, in a task that may wait", function ()
      assert.error_matches(function () peer:send("note", { n = 1 }) end, "send of note needs { on_fail", 1, true)
      local failures = {}
      local function on_fail(err, code)
        task.sleep(1)
        failures[#failures + 1] = code .. " " .. err
      end
      in_task(function ()
        wire.refuse_next = "FULL"
        peer:send("note", { n = 1 }, { on_fail = on_fail })
        peer:send("note", {}, { on_fail = on_fail })
        gate:peer("127.0.0.1:77"):send("note", { n = 1 }, { on_fail = on_fail })
        gate:peer("nowhere"):send("note", { n = 1 }, { on_fail = on_fail })
      end)
      world:advance(5)
      table.sort(failures)
      assert.same({ "CONFIG nowhere is no address", "ECONNREFUSED nobody is there", "FULL refused by the fake",
        "MALFORMED note: n: missing" }, failures)
      assert.same({}, told())
    end)

    it("F69: makes an on_fail that raises an incident", function ()
      in_task(function () gate:peer("nowhere"):send("note", { n = 1 }, { on_fail = function () error "again" end }) end)
      world:advance(1)
      assert.equal("rpc.on_fail", errors.incidents()[1].site)
    end)
  end)

  it("raises where the caller is wrong", function ()
    assert.error_matches(function () peer:send("ask", { n = 1 }, { on_fail = error }) end,
      "ask has a reply, use call or start")
    assert.error_matches(function () peer:start("note", { n = 1 }) end, "note has no reply, use send")
    assert.error_matches(function () peer:start("asq", {}) end, "no message asq, did you mean ask?", 1, true)
  end)

  it("refuses a wrong handler by name", function ()
    local function err_of(...) return select(2, worker:handle(...)) end
    assert.is_true(worker:handle("ask", function () end))
    assert.equal("rpc: ask has a handler already", err_of("ask", function () end))
    assert.equal("rpc: there is no message aks, did you mean ask?", err_of("aks", function () end))
    assert.equal("rpc: empty: expected a function, found table", err_of("empty", {}))
    assert.equal("rpc: the handler of empty takes 3 arguments, it is given 2: body, peer",
      err_of("empty", function (_, _, _) end))
  end)

  it("checks what is handled and sent, and then holds the node to it", function ()
    messages.reset(true)
    messages.define { name = "ask", id = 901, lane = "data", from = { "gate" }, to = { "worker" }, fields = {}, reply = {} }
    messages.define { name = "tell", id = 902, lane = "data", from = { "worker", "gate" }, to = { "gate" }, fields = {},
      reply = {} }
    local _, err, code = worker:check()
    assert.same({ "worker does not handle ask, which gate may send", "CONFIG" }, { err, code })
    gate:sends { "ask" }
    gate:handle("tell", function () return true end)
    assert.is_true(gate:check())
    assert.error_matches(function () peer:start("tell", {}) end, "this node never declared that it sends tell")
  end)

  it("tells watchers of connections, each by itself", function ()
    local heard = {}
    gate:watch(function (_, event) error(event) end)
    local stop = gate:watch(function (from, event, _, why) heard[#heard + 1] = { from == peer, event, why } end)
    local core = wire.opened[1]:peer "127.0.0.1:2"
    wire.opened[1].handlers.on_peer(core, "up")
    wire.opened[1].handlers.on_peer(core, "down", "lost", "ECONNRESET")
    stop()
    wire.opened[1].handlers.on_circuit(core, "open")
    assert.same({ { true, "up" }, { true, "down", "ECONNRESET" } }, heard)
    assert.equal(3, #told())
    assert.equal("rpc.watcher", errors.incidents()[1].site)
  end)

  it("knows one peer by one object, also the one that dialled", function ()
    local from
    worker:handle("ask", function (_, asker) from = asker return { n = 1 } end)
    in_task(function () peer:call("ask", { n = 1 }) end)
    local first = from
    in_task(function () peer:call("ask", { n = 1 }) end)
    assert.equal(first, from)
    assert.equal(peer, gate:peer "127.0.0.1:2")
    assert.equal("g1", from:name())
    assert.is_true(from:is_loopback())
    peer:close()
    assert.equal("127.0.0.1:2", peer:address())
  end)

  it("ends its handlers with itself, from a handler too, and answers no more", function ()
    local after = false
    worker:handle("ask", function (body)
      if body.n == 2 then worker:close() end
      task.sleep(10)
      after = true
      return { n = 1 }
    end)
    in_task(function () peer:call("ask", { n = 1 }) end)
    in_task(function () peer:call("ask", { n = 2 }) end)
    world:advance(20)
    assert.is_false(after)
    worker:close()
  end)

  it("makes no closure and no task per call: callbacks and workers are used again", function ()
    worker:handle("ask", function () return { n = 1 } end)
    in_task(function () for _ = 1, 50 do peer:call("ask", { n = 1 }) end end)
    assert.same({ 1, 1 }, { #gate.free_slots, #worker.idle })
  end)

  it("keeps at most 64 workers idle, and each request's ids its own", function ()
    worker:handle("ask", function (body)
      task.sleep(1)
      if body.n % 50 == 0 then error("no " .. body.n) end
      return { n = body.n }
    end)
    local total, failed = 0, 0
    for n = 1, 100 do
      in_task(function ()
        local reply = peer:call("ask", { n = n })
        if reply then total = total + reply.n else failed = failed + 1 end
      end)
    end
    world:advance(2)
    wire:run()
    assert.same({ 5050 - 150, 2, 64 }, { total, failed, #worker.idle })
    local list = errors.incidents()
    assert.same({ 50, 100 }, { list[1].ids.request, list[2].ids.request })
    assert.equal(64, worker.scope:count())
  end)

  --- Our own code fails behind a handler: the transport's functions of these names raise.
  local function failing_behind(names)
    local ran, reply, err, code = 0, nil, nil, nil
    worker:handle("ask", function ()
      ran = ran + 1
      return { n = ran }
    end)
    local net = worker.net
    worker.net = setmetatable({}, { __index = function (_, name)
      if names[name] then return function () error("cannot " .. name) end end
      return function (_, ...) return net[name](net, ...) end
    end })
    in_task(function () reply, err, code = peer:call("ask", { n = 1 }) end)
    world:advance(130) -- The worker's task begins again.
    wire:run()
    local kept = ran
    world:advance(20000)
    wire:run()
    worker.net = net
    assert.equal(kept, ran)
    return ran, reply, err, code
  end

  it("F69: refuses a request whose answer our own code could not give; its handler does not run again", function ()
    local ran, reply, err, code = failing_behind { reply = true }
    assert.same({ 1, nil, "FAILED" }, { ran, reply, code })
    assert.truthy(err:find("ask: its answer could not be given", 1, true), err)
    assert.same({ 1, "rpc.handler" }, { #errors.incidents(), errors.incidents()[1].site })
    assert.equal(1, #worker.idle)
  end)

  it("F69: gives up a request that it can neither answer nor refuse; its handler does not run again", function ()
    local ran = failing_behind { reply = true, refuse = true }
    assert.equal(1, ran)
    assert.equal(2, #errors.incidents())
    assert.equal(1, #worker.idle)
  end)
end)
