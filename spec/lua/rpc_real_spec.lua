--- Remote calls over real sockets on loopback: that rpc and the transport fit together.
local uv = require "luv"
local errors = require "shoal.errors"
local log = require "shoal.log"
local messages = require "shoal.messages"
local task = require "shoal.task"

describe("rpc over loopback", function ()
  local world, rpc, scope, gate, worker, peer

  --- Run fn as a task and the loop until it has ended.
  local function finish(fn)
    local t = scope:spawn("spec.run", { task = "spec" }, fn)
    while t:status() ~= "done" do
      assert.is_true(t:status() ~= "failed", "the task failed: " .. tostring((errors.incidents()[1] or {}).message))
      uv.run "once"
    end
  end

  before_each(function ()
    errors.reset()
    task.reset()
    messages.reset()
    package.loaded["shoal.rpc"], package.loaded["shoal.wire.rpc"] = nil, nil
    rpc = require "shoal.rpc"
    log.open(nil, function () end)
    world = require("shoal.core.world").current()
    errors.start(world, "spec")
    task.start(world)
    messages.define { name = "ask", id = 901, lane = "dispatch", from = { "gate", "worker" }, to = { "gate", "worker" },
      fields = { { "n", "integer" }, { "pad", "bytes?" } }, reply = { { "n", "integer" } }, timeout_ms = 2000 }
    messages.define { name = "note", id = 902, lane = "data", from = { "gate" }, to = { "worker" },
      fields = { { "n", "integer" } } }
    scope = task.scope "spec"
    gate = assert(rpc.open { name = "g1", role = "gate", dc = "", world = world, scope = scope })
    worker = assert(rpc.open { name = "w1", role = "worker", dc = "a", world = world, scope = scope })
    peer = gate:peer(assert(worker:listen "127.0.0.1:0"))
  end)

  after_each(function ()
    local open = 2
    for _, one in ipairs { gate, worker } do one:close(function () open = open - 1 end) end
    while open > 0 do uv.run "once" end
    task.stop()
    messages.reset()
    assert.is_true(errors.finish())
    errors.reset()
    uv.run() -- Nothing of it keeps the loop alive.
    assert.equal(0, world:telemetry().open_handles)
  end)

  it("asks both ways over one connection", function ()
    local back
    gate:handle("ask", function (body) return { n = body.n * 10 } end)
    worker:handle("ask", function (body, from)
      back = from:call("ask", { n = 7 })
      return { n = body.n + 1 }
    end)
    local reply
    finish(function () reply = peer:call("ask", { n = 1 }) end)
    assert.same({ { n = 2 }, { n = 70 } }, { reply, back })
    assert.same({ "w1", "a" }, { peer:name(), peer:info().dc })
  end)

  it("F69: carries refusals, raises and timeouts to the caller", function ()
    worker:handle("ask", function (body)
      if body.n == 1 then return nil, "full up", "FULL" end
      if body.n == 2 then error "boom" end
      task.sleep(500)
      return { n = 3 }
    end)
    local results = {}
    finish(function ()
      for n = 1, 3 do results[n] = { peer:call("ask", { n = n }, { timeout_ms = 60 }) } end
    end)
    assert.same({ nil, "full up", "FULL" }, results[1])
    assert.equal("FAILED", results[2][3])
    assert.truthy(results[2][2]:find "boom")
    assert.equal("TIMEOUT", results[3][3])
    assert.equal(1, #errors.incidents())
  end)

  it("F70: answers bytes that are no body, and lives on", function ()
    worker:handle("ask", function () return { n = 1 } end)
    local code, reply
    finish(function ()
      local future = task.future "raw"
      assert(peer.core:call(901, "dispatch", "\xc1\xc1", 1000, function (bytes, err, word)
        code = word
        future:settle(bytes or false, err, word)
      end))
      future:await()
      reply = peer:call("ask", { n = 1 })
    end)
    assert.equal("MALFORMED", code)
    assert.same({ n = 1 }, reply)
    assert.equal("rpc.decode", errors.incidents()[1].site)
  end)

  it("tells the sender what never left", function ()
    local codes = {}
    finish(function ()
      local done = task.future "on_fail"
      gate:peer("127.0.0.1:1"):send("note", { n = 1 }, { on_fail = function (_, code) done:set(code) end })
      codes[1] = done:await(3000)
      codes[2] = select(3, peer:call("ask", { n = 1, pad = ("x"):rep(4 << 20) }))
      codes[3] = select(3, gate:peer("127.0.0.1:1"):call("ask", { n = 1 }, { timeout_ms = 3000 }))
    end)
    assert.same({ "ECONNREFUSED", "TOO_LARGE", "ECONNREFUSED" }, codes)
  end)

  it("carries a megabyte, and four hundred calls at once", function ()
    worker:handle("ask", function (body) return { n = body.n + #(body.pad or "") } end)
    local big, total = nil, 0
    finish(function ()
      big = peer:call("ask", { n = 0, pad = ("x"):rep(1 << 20) })
      local futures = {}
      for i = 1, 400 do futures[i] = peer:start("ask", { n = i }) end
      for i = 1, 400 do total = total + futures[i]:await().n end
    end)
    assert.same({ n = 1 << 20 }, big)
    assert.equal(400 * 401 // 2, total)
    assert.is_true(#gate.free_slots <= 400)
  end)
end)
