--- A node's settings: defaults, bounds, and what must hold across them.
local config = require "shoal.node.config"

describe("a node's settings", function ()
  it("have defaults that hold together", function ()
    local c = assert(config {})
    assert.same({ 1000, 10000, 86400000, "local" }, { c.heartbeat_ms, c.dc_silent_ms, c.dc_forget_ms, c.profile })
  end)

  it("want more than two heartbeats before a silence counts", function ()
    assert.is_table((config { heartbeat_ms = 1000, dc_silent_ms = 2001 }))
    local none, err = config { heartbeat_ms = 1000, dc_silent_ms = 2000 }
    assert.is_nil(none)
    assert.truthy(err:find("dc_silent_ms must exceed 2 * heartbeat_ms", 1, true), err)
  end)

  it("forget no datacenter before it is silent", function ()
    assert.is_table((config { dc_silent_ms = 10000, dc_forget_ms = 10000 }))
    local none, err = config { dc_silent_ms = 10000, dc_forget_ms = 9999 }
    assert.is_nil(none)
    assert.truthy(err:find("dc_forget_ms must be at least dc_silent_ms", 1, true), err)
  end)

  it("take no name that is no part of a key, a file's name or a line", function ()
    assert.is_table((config { name = "m-1.a_b", dc = "eu" }))
    for _, wrong in ipairs { "a/b", "a b", "a|b", ("x"):rep(65) } do
      assert.is_nil((config { name = wrong }), wrong)
      assert.is_nil((config { dc = wrong }), wrong)
    end
  end)
end)
