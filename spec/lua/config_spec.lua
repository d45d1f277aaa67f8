--- A node's settings: defaults, bounds, and what must hold across them.
local config = require "shoal.node.config"
local sorted = require "shoal.sorted"

describe("a node's settings", function ()
  it("have defaults that hold together", function ()
    local c = assert(config {})
    assert.same({ 1000, 45000, 86400000, "local" }, { c.heartbeat_ms, c.dc_silent_ms, c.dc_forget_ms, c.profile })
  end)

  it("derive the probes of datacenters from dc_silent_ms, each unless it is given; and then dc_silent_ms from them", function ()
    local function values(given)
      local c = assert(config(given))
      local f = c.federation
      return { f.interval_ms, f.timeout_ms, f.timeout_max_ms, f.failures, f.suspicion_ms, c.dc_silent_ms }
    end
    assert.same({ 2000, 5000, 15000, 5, 30000, 45000 }, values {})
    assert.same({ 133, 333, 999, 5, 2002, 3000 }, values { dc_silent_ms = 3000 })
    assert.same({ 500, 4000, 4000, 5, 30000, 36500 }, values { federation = { interval_ms = 500, timeout_ms = 4000 } })
    for _, ms in ipairs { 200, 201, 999, 44999, 600000 } do
      assert.equal(ms, values({ heartbeat_ms = 50, dc_silent_ms = ms })[6])
    end
    local again = assert(config((assert(config { dc_silent_ms = 3001 })))) -- A topology is checked, and then each of its nodes.
    assert.same({ 133, 3001 }, { again.federation.interval_ms, again.dc_silent_ms })
    local none, err = config { federation = { interval_ms = 100 } }
    assert.is_nil(none)
    assert.truthy(err:find("federation: timeout_max_ms and timeout_ms must be at most 8 * interval_ms", 1, true), err)
    none, err = config { federation = { intervall_ms = 100 } }
    assert.is_nil(none)
    assert.truthy(err:find("federation.intervall_ms: unknown option", 1, true), err)
  end)

  it("refuse values of correlation that contradict each other before a node starts, and say which", function ()
    assert.is_table((config { correlation = { low = 5, medium = 6, high = 7 } }))
    local none, err = config { correlation = { low = 3 } }
    assert.is_nil(none)
    assert.equal("correlation: medium = 3 must be greater than low = 3", err)
    none, err = config { correlation = { down_ms = 30001 } }
    assert.is_nil(none)
    assert.equal("correlation: window_ms = 30000 must be at least down_ms = 30001", err)
  end)

  it("want more than two heartbeats before a silence counts", function ()
    assert.is_table((config { heartbeat_ms = 1000, dc_silent_ms = 2001 }))
    local none, err = config { heartbeat_ms = 1000, dc_silent_ms = 2000 }
    assert.is_nil(none)
    assert.truthy(err:find("dc_silent_ms must exceed 2 * heartbeat_ms", 1, true), err)
  end)

  it("have leases that are renewed, by heartbeats, at least twice before they end; a restart takes from no time to a day", function ()
    assert.equal(3000, (assert(config { heartbeat_ms = 1000, lease_ms = 3000 })).lease_ms)
    local none, err = config { heartbeat_ms = 1000, lease_ms = 2999 }
    assert.is_nil(none)
    assert.truthy(err:find("lease_ms must be at least 3 * heartbeat_ms", 1, true), err)
    for name, bounds in sorted { lease_ms = { 300, 1800000 }, restart_ms = { 0, 86400000 } } do
      for i, past in ipairs { -1, 1 } do
        assert.equal(bounds[i], (assert(config { heartbeat_ms = 50, [name] = bounds[i] }))[name])
        none, err = config { heartbeat_ms = 50, [name] = bounds[i] + past }
        assert.is_nil(none)
        assert.truthy(err:find(name, 1, true), err)
      end
    end
  end)

  it("have labels that are few and short; a number is its text", function ()
    assert.same({ gpu = "a100", zone = "3" }, (assert(config { labels = { gpu = "a100", zone = 3 } })).labels)
    for _, wrong in ipairs { { ["a b"] = "x" }, { a = true }, { a = ("x"):rep(65) }, "gpu=a100" } do
      local none, err = config { labels = wrong }
      assert.is_nil(none)
      assert.truthy(err:find("labels", 1, true), err)
    end
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
    local _, err = config { name = "bad name" }
    assert.equal([[name: expected letters, digits, '-', '_' and '.', such as w-a1, found "bad name"]], err)
  end)
end)

describe("a topology", function ()
  local up = require "shoal.cli.up"

  it("gives each node its name, and an address where the first of its group listens", function ()
    local t = assert(up.check { gates = { {} }, datacenters = { a = { managers = { { bind = "[::1]:7001" } }, workers = { {}, {} } } } })
    local d = t.datacenters.a
    assert.same({ "g1", "m-a1", "w-a1", "w-a2" }, { t.gates[1].name, d.managers[1].name, d.workers[1].name, d.workers[2].name })
    assert.same({ "127.0.0.1:0", "[::1]:0" }, { t.gates[1].bind, d.workers[2].bind })
  end)

  it("A3: is refused with two nodes of one name or one address, given or by default", function ()
    local t, err = up.check {
      gates = { { name = "x" }, { name = "x" }, { name = "w-b1", bind = "127.0.0.1:7002" } },
      datacenters = { a = { managers = { { name = "x" } } }, b = { managers = { { bind = "127.0.0.1:7002" } }, workers = { {} } } },
    }
    assert.is_nil(t)
    assert.equal(table.concat({
      'gates[2].name: "x" is the name of gates[1] too: each node has its own, and its own data folder',
      'datacenters.a.managers[1].name: "x" is the name of gates[1] too: each node has its own, and its own data folder',
      "datacenters.b.managers[1].bind: 127.0.0.1:7002 is the address of gates[3] too",
      'datacenters.b.workers[1].name: "w-b1" is the name of gates[3] too: each node has its own, and its own data folder',
    }, "; "), err)
    t, err = up.check { gates = { { name = "../g" } }, datacenters = {} }
    assert.is_nil(t)
    assert.truthy(err:find([[gates[1].name: expected letters, digits]], 1, true), err)
  end)

  it("C15: is refused where nodes of one group have addresses of two families, and says whose", function ()
    local t, err = up.check { datacenters = { a = { managers = { { bind = "[::1]:7001" } }, workers = { { bind = "127.0.0.1:0" } } } } }
    assert.is_nil(t)
    assert.equal("datacenters.a.workers[1].bind: 127.0.0.1:0 is IPv4, and m-a1 is bound to [::1]:7001: nodes of one datacenter reach each "
      .. "other by addresses of one family", err)
    assert(up.check { gates = { { bind = "[::1]:7000" } }, datacenters = { a = { managers = { { bind = "127.0.0.1:7001" } } } } })
  end)
end)

describe("addresses to connect to", function ()
  local common = require "shoal.cli.common"

  it("C16: are hosts with ports; a scheme, port 0 and an IPv6 address without brackets are told, and where they were given", function ()
    assert(common.check_addresses({ "127.0.0.1:1", "[::1]:65535", "name:70" }, "--connect"))
    for word, want in pairs {
      ["http://127.0.0.1:7000"] = "expected HOST:PORT without a scheme", ["127.0.0.1:0"] = "expected a port from 1 to 65535",
      ["::1:70"] = "expected brackets around the IPv6 address", [""] = "expected HOST:PORT", ["a:65536"] = "expected HOST:PORT",
      x = "expected HOST:PORT",
    } do
      local ok, err, code = common.check_addresses({ "127.0.0.1:1", word }, "SHOAL_CONNECT")
      assert.is_nil(ok)
      assert.equal("CONFIG", code)
      assert.truthy(err:find("SHOAL_CONNECT: " .. want, 1, true) and err:find(("found %q"):format(word), 1, true), err)
    end
  end)
end)
