--- Joining, and nodes of one name, with real processes: one manager for all of it. What needs no process is in spec/sim/joins_spec.lua.
--- The nodes start together, and a node that is killed in one spec is looked at in the next, so that the file takes a few seconds only.
local cluster = require "spec.support.cluster"

describe("joining", function ()
  local c, m, lone, wrong, wb, wb_words

  --- A node with a folder and a log of its own.
  local function node(role, name, ...)
    return c:node(role, { "--name", name, "--dc", "x", "--data", c.dir .. "/" .. name, "--log", c.dir .. "/" .. name .. ".log", ... })
  end
  local function incidents(at) return c:shoal({ "incidents", "-c", at }).out end
  local function members(at) return c:shoal({ "members", "-c", at }).out end
  local function job(seconds)
    return c:file("job.json", ('{"name":"j","workflows":{"w":{"command":"echo begun; sleep %s"}}}'):format(seconds))
  end

  setup(function ()
    c = cluster.new()
    m = node("manager", "mx")
    lone = node("worker", "lone", "--join", "127.0.0.1:1", "--cores", "1")
    wrong = c:node("worker", { "--name", "wrong", "--dc", "X", "--data", c.dir .. "/wrong", "--join", m.address })
    wb_words = { "--bind", "127.0.0.1:" .. cluster.port(), "--join", m.address }
    wb = node("worker", "wb", table.unpack(wb_words))
  end)
  teardown(function () c:close() end)

  it("B2: by a wrong datacenter is told on both sides, with who is where and of which", function ()
    wrong:wait_for("joined nobody yet: [%d%.:]+ %(mx%) is of datacenter x, and this node is of datacenter X", "err")
    local told = incidents(m.address)
    local want = ("%s (wrong) wants to join, but is of datacenter X, and this node is of datacenter x"):format(wrong.address)
    assert.truthy(told:find(want, 1, true), told)
    assert.is_nil(told:find("swim.refused", 1, true), told)
  end)

  it("case 26, A14: of two nodes of one name the newcomer stays out, three nodes say so, and a job is run once", function ()
    cluster.wait("wb as a member", function () return members(m.address):find "wb +worker +x +alive" end)
    wb:kill()
    local w, folder = node("worker", "wx", "--join", m.address), c.dir .. "/twin"
    local s = c:start { "submit", job(2), "-c", m.address, "--timeout", "30", "--quiet" }
    s:wait_for "job j"
    local twin = c:node("worker", { "--name", "wx", "--dc", "x", "--data", folder, "--log", folder .. ".log", "--join", m.address })
    local both = ("the one at %s stays, the one at %s stays out"):format(w.address, twin.address)
    cluster.wait("the incident", function () return cluster.read(c.dir .. "/mx.log"):find(both, 1, true) end)
    assert.truthy(incidents(w.address):find(("this one, at %s, stays; the one at %s stays out"):format(w.address, twin.address), 1, true))
    assert.truthy(incidents(twin.address):find(("it is a member, at %s. This one, at %s, stays out"):format(w.address, twin.address), 1, true))
    s:wait(30000)
    assert.equal(0, s.code, s.err)
    local _, begun = s.out:gsub("begun", "")
    assert.equal(1, begun, s.out)
    assert.is_nil(s.out:find("wx died", 1, true), s.out)
    w:kill() -- The name is free: the other one joins by itself, and says so.
    twin:wait_for("the other wx, at .* has ended: this one joins", "err", 10000)
    cluster.wait("the twin as a member", function ()
      return members(m.address):find("wx +worker +x +alive +" .. twin.address:gsub("%.", "%%."))
    end)
    twin:kill()
  end)

  it("case 31: a worker that was killed and came back at its address is used as soon as it is a member", function ()
    wb = node("worker", "wb", table.unpack(wb_words))
    cluster.wait("it as a member", function () return members(m.address):find "wb +worker +x +alive" end)
    local r = c:shoal { "submit", job(0), "-c", m.address, "--quiet" }
    assert.equal(0, r.code)
    assert.is_true(tonumber(r.out:match "completed after ([%d%.]+) s") < 2, r.out)
    wb:kill()
  end)

  it("case 08: by a name, whose addresses are all tried; where all are of the other family, that is refused", function ()
    local port = m.address:match ":(%d+)$"
    local w = node("worker", "named", "--join", "localhost:" .. port)
    cluster.wait("it as a member", function () return members("localhost:" .. port):find "named +worker +x +alive" end)
    assert.is_nil(w.err:find("joined nobody", 1, true), w.err)
    local none = c:shoal { "run", "scripts/roles/worker.lua", "--dc", "x", "--data", c.dir .. "/six", "--join", "[::1]:" .. port }
    assert.equal(2, none.code, none.err)
    assert.truthy(none.err:find(("join: [::1]:%s is an IPv6 address, and this node is bound to 127.0.0.1:"):format(port), 1, true), none.err)
  end)

  it("case 34, B1: of a seed that does not answer is told on stderr and as an incident, with its address", function ()
    lone:wait_for("joined nobody yet: 127.0.0.1:1 does not answer %(%d+ tries in 3 s%)", "err")
    local told = incidents(lone.address)
    assert.truthy(told:find("swim.join  joined nobody yet: 127.0.0.1:1 does not answer", 1, true), told)
    lone:close_stdin()
    lone:wait()
    assert.truthy(lone.err:find("reported + suppressed + handled: 1 = 1 + 0 + 0", 1, true), lone.err)
  end)

  it("C27: a ghost is removed for good, and one that is up is refused", function ()
    cluster.wait("its death", function () return members(m.address):find "wb +worker +x +dead" end)
    local r = c:shoal { "forget", "wb", "-c", m.address }
    assert.equal(0, r.code, r.err)
    assert.truthy(r.out:find("mx: forgot wb (dead at " .. wb.address, 1, true), r.out)
    assert.is_nil(members(m.address):find("wb", 1, true))
    assert.equal(4, c:shoal({ "forget", "mx", "-c", m.address }).code)
  end)
end)
