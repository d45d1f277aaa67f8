--- A node's data folder: locked while its process lives, and found again by role and port; and clients that follow a job whose leader died.
local cluster = require "spec.support.cluster"

describe("a node's data folder", function ()
  local c

  before_each(function () c = cluster.new() end)
  after_each(function () c:close() end)

  local function job(command, more)
    return c:file("job.lua", ("return { name = 'j', %s workflows = { w = { command = %q } } }"):format(more or "", command))
  end

  it("B8: is refused to a second process with the first one's pid and exit code 4, free once that is killed, and whole", function ()
    local data = c.dir .. "/m"
    local m = c:node("manager", { "--name", "m", "--dc", "a", "--data", data, "--log", c.dir .. "/m.log" })
    local w = c:node("worker", { "--name", "w", "--dc", "a", "--join", m.address, "--data", c.dir .. "/w", "--log", c.dir .. "/w.log" })
    local r = c:shoal { "run", "scripts/roles/manager.lua", "--name", "m2", "--dc", "a", "--data", data, "--log", c.dir .. "/m2.log" }
    assert.equal(4, r.code, r.err)
    assert.is_truthy(r.err:find(("data: %s is another node's"):format(data), 1, true), r.err)
    assert.is_truthy(r.err:find(("process %d"):format(m.pid), 1, true), r.err)
    assert.is_truthy(r.err:find("(BUSY)", 1, true), r.err)
    r = c:shoal { "run", "scripts/roles/worker.lua", "--name", "m3", "--join", m.address, "--data", data, "--log", c.dir .. "/m3.log" }
    assert.equal(4, r.code, r.err)
    assert.equal(0, c:shoal({ "submit", job "true", "--connect", m.address, "--quiet" }).code)
    m:kill()
    m:wait()
    local again = c:node("manager", { "--name", "m", "--dc", "a", "--data", data, "--log", c.dir .. "/m.log" })
    assert.is_truthy(c:shoal({ "jobs", "--connect", again.address }).out:find "completed")
    w:close_stdin()
    w:wait()
  end)

  it("B11: that is removed under a running manager costs it the lead, aloud; no job is taken that nothing keeps", function ()
    local data = c.dir .. "/m"
    local m = c:node("manager", { "--name", "m", "--dc", "a", "--data", data, "--log", c.dir .. "/m.log" })
    c:node("worker", { "--name", "w", "--dc", "a", "--join", m.address, "--data", c.dir .. "/w", "--log", c.dir .. "/w.log" })
    assert.equal(0, c:shoal({ "submit", job "true", "--connect", m.address, "--quiet" }).code)
    assert(os.execute("rm -r " .. data))
    local r = c:shoal { "submit", job "true", "--connect", m.address, "--quiet" }
    assert.equal(4, r.code, r.err)
    local why = "m does not lead managers: the log could not be synced: sync: the file or its folder was removed or replaced"
    assert.is_truthy(r.err:find(why, 1, true), r.err)
    local logged = cluster.read(c.dir .. "/m.log")
    local level, code = logged:match('"level":"(%a+)"[^\n]*"site":"tier.log"[^\n]*"code":"(%u+)"')
    assert.same({ "critical", "GONE" }, { level, code }, logged)
    m:close_stdin()
    m:wait()
    assert.equal(0, m.code)
    c:node("manager", { "--name", "m", "--dc", "a", "--data", data, "--log", c.dir .. "/m.log" }) -- It starts anew, without a past.
  end)

  it("D9: without --name a node is named by role and port, and has its jobs again after a restart", function ()
    local port, path = cluster.port(), c:file("where/here.txt", "")
    local cwd = path:match "^(.*)/"
    local script = cluster.root .. "/scripts/roles/manager.lua"
    local function start()
      local p = c:start { "run", script, "--dc", "a", "--bind", "127.0.0.1:" .. port, "--announce", "--until-eof", "--log", c.dir .. "/m.log",
        open_stdin = true, cwd = cwd }
      assert.equal("manager-" .. port, (p:wait_for('"node":"([^"]+)"', "out")))
      return p
    end
    local m = start()
    local id = c:shoal({ "submit", job "true", "--connect", "127.0.0.1:" .. port, "--detach" }).out:match "%S+"
    m:kill()
    m:wait()
    m = start()
    assert.is_truthy(c:shoal({ "jobs", "--connect", "127.0.0.1:" .. port }).out:find(id, 1, true))
    m:close_stdin()
    m:wait()
    assert.is_nil(cluster.read(c.dir .. "/m.log"):find("node.new_data", 1, true))
    -- Another port is another node: one line says that a folder of its role stands there.
    port = cluster.port()
    start()
    assert.is_truthy(cluster.read(c.dir .. "/m.log"):find('"level":"warning"[^\n]*"event":"node.new_data"[^\n]*"siblings":"manager%-%d+"'))
  end)

  it("of port 0 has a new name each time, and says so of its folder only", function ()
    local path = c:file("where/here.txt", "")
    local names = {}
    for i = 1, 2 do
      local p = c:start { "run", cluster.root .. "/scripts/roles/worker.lua", "--announce", "--until-eof",
        "--log", c.dir .. "/w.log", "--join", "127.0.0.1:1",
        open_stdin = true, cwd = path:match "^(.*)/" }
      names[i] = p:wait_for('"node":"(worker%-%x%x%x%x)"', "out")
      p:close_stdin()
      p:wait()
    end
    assert.not_equal(names[1], names[2])
  end)

  it("takes --retention as times and sizes", function ()
    for text, want in pairs { ["48h,1GiB"] = "172800000 1073741824", ["10m"] = "600000 268435456", ["2MiB,90s"] = "90000 2097152" } do
      local m = c:node("manager", { "--name", "m", "--data", c.dir .. "/m", "--log", c.dir .. "/m.log", "--retention", text })
      assert.equal(want, c:eval(m.address, "node.config.retention_ms .. ' ' .. node.config.retention_bytes"))
      m:close_stdin()
      m:wait()
    end
  end)

  it("B9: submit says once that its leader does not answer, and again when it does; it exits by the job", function ()
    local port = cluster.port()
    local function manager()
      local words = { "--name", "m", "--dc", "a", "--bind", "127.0.0.1:" .. port, "--data", c.dir .. "/m", "--log", c.dir .. "/m.log" }
      return c:node("manager", words)
    end
    local m = manager()
    c:node("worker", { "--name", "w", "--dc", "a", "--join", m.address, "--data", c.dir .. "/w", "--log", c.dir .. "/w.log" })
    local s = c:start { "submit", job("sleep 9", "timeout_ms = 60000,"), "--connect", m.address, "--quiet" }
    s:wait_for "job j"
    m:kill()
    m:wait()
    s:wait_for(("127.0.0.1:%d does not answer since %%d+ s, trying again"):format(port), "err", 12000)
    manager()
    s:wait_for(("127.0.0.1:%d answers again"):format(port), "err", 20000)
    s:wait(40000)
    assert.equal(0, s.code, s.out .. s.err)
    local _, said = s.err:gsub("does not answer", "")
    assert.equal(1, said)
  end)

  it("B9: submit ends with 3 after the job's own limit when no leader answers", function ()
    local m = c:node("manager", { "--name", "m", "--dc", "a", "--data", c.dir .. "/m", "--log", c.dir .. "/m.log" })
    c:node("worker", { "--name", "w", "--dc", "a", "--join", m.address, "--data", c.dir .. "/w", "--log", c.dir .. "/w.log" })
    local s = c:start { "submit", job("sleep 1", "timeout_ms = 1000,"), "--connect", m.address, "--quiet" }
    s:wait_for "job j"
    m:kill()
    s:wait(30000)
    assert.equal(3, s.code, s.err)
    assert.is_truthy(s.err:find("no leader has answered for %d+ s, and the job's own limit is over"), s.err)
  end)
end)
