--- F46: progress acks are read by one parser, whole or not at all.
local ack = require "shoal.wire.ack"
local msgpack = require "shoal.core.msgpack"

describe("ack", function ()
  it("F46: takes the legacy two bytes `ok` exactly, as level none", function ()
    assert.same({ level = "none", legacy = true }, ack.parse "ok")
    for _, near in ipairs { "OK", "ok ", " ok", "ok\n", "o", "okok", "k" } do
      local value, _, class = ack.parse(near)
      assert.is_nil(value)
      assert.truthy(class == "trailing" or class == "truncated" or class == "not_a_map", class)
    end
  end)

  it("F46: reads every level, none included, with the leader", function ()
    for _, level in ipairs(ack.levels) do
      assert.same({ level = level, legacy = false }, ack.parse(ack.encode { level = level }))
    end
    local value = {
      level = "none", leader = "m2", leader_address = "127.0.0.1:9", fence = 7, delay_ms = 100, unknown = { 1, 500 }, stop = { 2 },
    }
    local parsed = ack.parse(ack.encode(value))
    value.legacy = false
    assert.same(value, parsed)
  end)

  it("F46: says what is wrong by size, first byte and class, and never shows the payload", function ()
    local function refused(bytes, class)
      local value, err, found = ack.parse(bytes)
      assert.is_nil(value)
      assert.equal(class, found)
      assert.truthy(err:find(("ack: %d bytes"):format(#bytes), 1, true), err)
      assert.is_nil(err:find("secret", 1, true))
    end
    local good = ack.encode { level = "batch", leader = "m", leader_address = "a" }
    refused("", "empty")
    refused(("x"):rep(4097), "too_large")
    refused(good:sub(1, -2), "truncated")
    refused(good .. "\0", "trailing")
    refused(assert(msgpack.pack { "secret" }), "not_a_map")
    refused(assert(msgpack.pack { level = "secret" }), "field")
    refused(assert(msgpack.pack { leader = "secret" }), "field")
    refused(assert(msgpack.pack { level = 3 }), "field")
    refused(assert(msgpack.pack { level = "none", leader = "secret" }), "field")
    refused(assert(msgpack.pack { level = "none", delay_ms = -1 }), "field")
    refused("error", "not_a_map")
    refused("{\"secret\":1}", "not_a_map")
    refused("\xc1secret", "not_a_map")
  end)

  it("F46: ignores fields it does not know", function ()
    assert.same({ level = "reject", legacy = false }, ack.parse(assert(msgpack.pack { level = "reject", newer = { 1 } })))
  end)

  it("raises when this program writes a wrong one", function ()
    assert.error_matches(function () ack.encode { level = "loud" } end,
      'ack: level: expected none|throttle|batch|reject, found "loud"', 1, true)
  end)
end)
