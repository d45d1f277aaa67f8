--- The registry: every message has a receiver, a lane and fields; a role is held to what it handles and sends.
local messages = require "shoal.messages"

local function minimal(extra)
  local message = { name = "x.y", id = 900, lane = "data", from = { "gate" }, to = { "worker" },
    fields = { { "n", "integer" } } }
  for key, value in pairs(extra or {}) do message[key] = value end
  return message
end

describe("messages", function ()
  after_each(function () messages.reset() end)

  it("compile, all of the project's", function ()
    messages.compile()
    assert.equal(31, #messages.names())
    assert.equal("part.dispatch", messages.by_id(20).name)
    assert.is_nil(messages.by_id(999))
  end)

  it("keep their ids: each is part of the protocol", function ()
    local ids = {}
    for _, name in ipairs(messages.names()) do ids[name] = messages.get(name).id end
    assert.same({
      ["executor.hold"] = 60, ["job.submit"] = 10, ["job.cancel"] = 11, ["job.get"] = 12, ["job.list"] = 13, ["job.watch"] = 14,
        ["job.status"] = 15,
      ["job.stats"] = 16, ["job.result"] = 17, ["job.events"] = 18, ["job.unwatch"] = 19,
      ["part.dispatch"] = 20, ["part.progress"] = 21,
      ["part.result"] = 22, ["part.cancel"] = 23, ["lead"] = 24, ["dc.register"] = 25, ["lead.who"] = 26, ["dc.probe"] = 27,
        ["lease.renew"] = 28, ["node.info"] = 30,
        ["node.members"] = 31,
      ["node.incidents"] = 32, ["node.counts"] = 33, ["repl.eval"] = 34, ["node.events"] = 35, ["node.why"] = 36, ["node.forget"] = 37,
      ["job.push"] = 40, ["part.look"] = 52, ["part.look_for"] = 53,
    }, ids)
  end)

  it("encode and decode bodies and replies by name", function ()
    local body = { job = "j1", part = "p1", fence = 1 << 50, deadline_ms = 5 }
    assert.same(body, messages.decode("part.cancel", assert(messages.encode("part.cancel", body))))
    assert.same({ state = "unknown" }, messages.decode_reply("part.cancel",
      assert(messages.encode_reply("part.cancel", { state = "unknown" }))))
    local none, err, code = messages.encode("part.cancel", { job = "j1", part = "p1" })
    assert.same({ nil, "part.cancel: fence: missing", "MALFORMED" }, { none, err, code })
    none, err, code = messages.decode_reply("part.cancel", "\x80")
    assert.same({ nil, "part.cancel reply: state: missing", "MALFORMED" }, { none, err, code })
  end)

  it("pass a reply of bytes through as it is", function ()
    assert.equal("ok", messages.encode_reply("part.progress", "ok"))
    assert.equal("\xc1", messages.decode_reply("part.progress", "\xc1"))
    local none, err, code = messages.encode_reply("part.progress", { 1 })
    assert.same({ nil, "part.progress reply: expected bytes, found table", "MALFORMED" }, { none, err, code })
  end)

  it("raise on a name nobody declared, or a reply to one way", function ()
    assert.error_matches(function () messages.encode("part.dispath", {}) end,
      "no message part.dispath, did you mean part.dispatch?", 1, true)
    messages.define(minimal())
    assert.error_matches(function () messages.encode_reply("x.y", {}) end, "x.y has no reply")
  end)

  it("refuse a wrong definition by name", function ()
    assert.error_matches(function () messages.define(minimal { lane = "fast" }) end,
      "x.y: lane: expected one of control, dispatch")
    assert.error_matches(function () messages.define(minimal { id = 65536 }) end, "id: 65536 is above 65535")
    assert.error_matches(function () messages.define(minimal { id = 20 }) end, "x.y has the id 20 of part.dispatch")
    assert.error_matches(function () messages.define(minimal { name = "lead" }) end, "lead is defined twice")
    assert.error_matches(function () messages.define(minimal { form = { "gate" } }) end,
      'form: unknown option, did you mean "from"?', 1, true)
    assert.error_matches(function () messages.type("RunningPart", {}) end, "the type RunningPart is defined twice")
    messages.define(minimal { fields = { { "n", "Nope" } } })
    assert.error_matches(function () messages.compile() end, "n: there is no type 'Nope'")
  end)

  describe("check", function ()
    before_each(function ()
      messages.reset(true)
      messages.define(minimal { name = "work", id = 1 })
      messages.define(minimal { name = "ask", id = 2, from = { "client" }, to = { "gate", "worker" } })
      messages.define(minimal { name = "push", id = 3, from = { "gate" }, to = { "client" }, asked_by = { "ask" } })
    end)

    it("passes a role that handles all that is addressed to it", function ()
      assert.is_true(messages.check("gate", { "ask" }, { "work", "push" }))
      assert.is_true(messages.check("worker", { "ask", "work" }, {}))
      assert.is_true(messages.check({ "gate", "worker" }, { "ask", "work" }, { "work", "push" }))
    end)

    it("wants a push handled only where it was asked for", function ()
      assert.is_true(messages.check("client", {}, {}))
      assert.is_true(messages.check("client", { "push" }, { "ask" }))
      local ok, err = messages.check("client", {}, { "ask" })
      assert.is_nil(ok)
      assert.equal("client does not handle push, which gate may send", err)
    end)

    it("tells every problem at once", function ()
      local ok, err, code = messages.check("worker", { "push", "wrk" }, { "work", "nothing" })
      assert.is_nil(ok)
      assert.equal("CONFIG", code)
      assert.equal("worker handles push, which goes only to client; worker handles wrk, which is no message, "
        .. "did you mean work?; worker sends work, which comes only from gate; worker sends nothing, which is no message; "
        .. "worker does not handle ask, which client may send; worker does not handle work, which gate may send", err)
    end)
  end)
end)
