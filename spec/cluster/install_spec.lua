--- The tree of `cmake --install` runs by itself: no path in it leads back to the build.
local cluster = require "spec.support.cluster"

describe("an installed tree", function ()
  local c, prefix

  before_each(function ()
    c = cluster.new()
    local r = c:spawn({ "cmake", "--install", cluster.build, "--prefix", c.dir .. "/first" }):wait(30000)
    assert.equal(0, r.code, r.out .. r.err)
    prefix = c.dir .. "/moved" -- It may be moved, too.
    assert(os.rename(c.dir .. "/first", prefix))
  end)
  after_each(function () c:close() end)

  --- Run a program of the tree from a folder without any of our files.
  local function installed(argv)
    local p = { prefix .. "/bin/shoal", cwd = c.dir, stdin = argv.open_stdin == nil and "" or nil }
    for _, word in ipairs(argv) do p[#p + 1] = word end
    return c:spawn(p)
  end

  it("holds the program, its Lua, roles, policies and examples, and they are in order", function ()
    local share = prefix .. "/share/shoal/"
    local r = installed({
      "check", share .. "scripts/roles/gate.lua", share .. "scripts/roles/manager.lua", share .. "scripts/roles/worker.lua",
      share .. "scripts/roles/client.lua", share .. "scripts/policies/errors.lua", share .. "scripts/policies/placement.lua",
      share .. "scripts/policies/retry.lua", share .. "examples/hello.lua", share .. "examples/checkout.lua",
      share .. "examples/batch.json", share .. "examples/topology.lua",
    }):wait()
    assert.equal(0, r.code, r.out .. r.err)
  end)

  it("runs a cluster and a job, all of it from itself", function ()
    c:file("topology.lua", "return { datacenters = { a = { managers = { {} }, workers = { {} } } } }")
    local up = installed { "up", "topology.lua", open_stdin = true }
    up:wait_for('"connect"', "out", 30000)
    local connect = up.out:match '"connect":"([^"]+)"'
    local r = installed({ "submit", prefix .. "/share/shoal/examples/batch.json", "--connect", connect }):wait()
    assert.equal(0, r.code, r.out .. r.err)
    assert.is_truthy(r.out:find("shoal prepares", 1, true), r.out)
    r = installed({ "repl", "--connect", connect, stdin = "", "--eval",
      "require('shoal.core.node').home(), require('shoal.core.node').program(), node.policies, node.path" }):wait()
    local share = prefix .. "/share/shoal"
    local shown = '"%s"\t"%s/bin/shoal"\t"%s/scripts/policies"\t"%s/scripts/roles/manager.lua"\n'
    assert.equal(shown:format(share, prefix, share, share), r.out)
    up:kill "sigterm"
    up:wait()
    assert.equal(0, up.code, up.err)
    c:assert_nothing_left()
  end)

  it("gives its modules to stock lua5.4", function ()
    for _, example in ipairs { "membership", "transport" } do
      local r = c:spawn({
        "lua5.4", prefix .. "/share/shoal/examples/" .. example .. ".lua", cwd = c.dir, preload = true, stdin = "",
        env = { LUA_PATH = prefix .. "/share/shoal/lua/?.lua;;", LUA_CPATH = prefix .. "/lib/lua/5.4/?.so;;", SHOAL_BUILD = "/nowhere" },
      }):wait()
      assert.equal(0, r.code, r.out .. r.err)
      assert.is_truthy(r.out:find "\ndone\n$", r.out)
    end
  end)
end)
