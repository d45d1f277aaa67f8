--- Data folders, log files and names that two processes want: one has them, and the other is refused with the first one's process id.
local cluster = require "spec.support.cluster"

describe("data folders and names", function ()
  local c, port, m

  setup(function ()
    c, port = cluster.new(), cluster.port()
    m = c:node("manager", { "--name", "m", "--dc", "x", "--bind", "127.0.0.1:" .. port, "--data", c.dir .. "/m", "--log", c.dir .. "/m.log" })
  end)
  teardown(function () c:close() end)

  --- Run a second manager, which must be refused.
  local function refused(words, ...)
    local r = c:shoal { "run", "scripts/roles/manager.lua", "--dc", "x", table.unpack(words) }
    assert.equal(4, r.code, r.err)
    for _, want in ipairs { ... } do assert.truthy(r.err:find(want, 1, true), r.err) end
  end

  it("case 25: a data folder in use is refused on another port, by path and process, and its jobs are whole afterwards", function ()
    local job = c:file("j.json", '{"name":"j","workflows":{"w":{"command":"echo hi"}}}')
    local before = c:shoal({ "submit", job, "-c", m.address, "--detach" }).out:match "%S+"
    refused({ "--name", "m", "--data", c.dir .. "/m", "--log", c.dir .. "/2.log" }, c.dir .. "/m", "process " .. m.pid, "BUSY")
    local after = c:shoal({ "submit", job, "-c", m.address, "--detach" }).out:match "%S+"
    m:kill()
    m:wait()
    m = c:node("manager", { "--name", "m", "--dc", "x", "--bind", "127.0.0.1:" .. port, "--data", c.dir .. "/m", "--log", c.dir .. "/m.log" })
    local jobs = c:shoal({ "jobs", "-c", m.address }).out
    assert.truthy(jobs:find(before, 1, true) and jobs:find(after, 1, true), jobs)
  end)

  it("a log file in use is refused by path and process", function ()
    refused({ "--name", "n", "--data", c.dir .. "/n", "--log", c.dir .. "/m.log" }, c.dir .. "/m.log", "process " .. m.pid, "BUSY")
  end)

  it("A1: two topologies in one folder: the second `up` is refused before it starts a node", function ()
    local up = c:up "return { datacenters = { a = { managers = { {} } } } }"
    local r = c:shoal { "up", c:file("two.lua", "return { datacenters = { b = { managers = { {} } } } }"), "--data", up.data }
    assert.equal(4, r.code, r.err)
    assert.truthy(r.err:find(up.data, 1, true) and r.err:find("process " .. up.pid, 1, true), r.err)
    assert.is_nil(io.open(up.data .. "/m-b1.log"))
    up:kill "sigterm"
    up:wait()
    assert.equal(0, up.code, up.err)
  end)

  it("a log's tail that no record of ours can have been is cut and told; damage before whole records says where and what to do", function ()
    local words = { "--name", "t", "--dc", "x", "--data", c.dir .. "/t", "--log", c.dir .. "/t.log" }
    local log = c.dir .. "/t/managers/log"
    local t = c:node("manager", words)
    c:shoal { "submit", c:file("j.json", '{"name":"j","workflows":{"w":{"command":"echo hi"}}}'), "-c", t.address, "--detach" }
    t:kill()
    t:wait()
    assert(os.execute(("head -c 300 /dev/urandom >> %s"):format(log)))
    t = c:node("manager", words)
    assert.truthy(cluster.read(c.dir .. "/t.log"):find('"level":"warning"[^\n]*"event":"tier.cut"[^\n]*"bytes":300'))
    t:kill()
    t:wait()
    local bytes = cluster.read(log)
    c:file("t/managers/log", bytes:sub(1, 40) .. string.char(bytes:byte(41) ~ 1) .. bytes:sub(42))
    local r = c:shoal { "run", "scripts/roles/manager.lua", table.unpack(words) }
    assert.equal(1, r.code, r.err)
    assert.truthy(r.err:find(log .. ": offset 16: a damaged record", 1, true), r.err)
    assert.truthy(r.err:find("truncate -s 16 " .. log, 1, true), r.err)
  end)

  it("a folder that was replaced under a running node is one incident, of a worker too, that names it", function ()
    local w = c:node("worker", { "--name", "w", "--dc", "x", "--join", m.address, "--data", c.dir .. "/w", "--log", c.dir .. "/w.log" })
    assert(os.execute(("mv %s/w %s/w.away && mkdir %s/w"):format(c.dir, c.dir, c.dir)))
    cluster.wait("the incident", function () return cluster.read(c.dir .. "/w.log"):find('"site":"node.data"', 1, true) end)
    local r = c:shoal { "incidents", "-c", w.address }
    assert.truthy(r.out:find(("node.data  %s/w was removed or replaced under this node"):format(c.dir), 1, true), r.out)
    w:close_stdin()
    w:wait()
    assert.equal(0, w.code)
  end)
end)
