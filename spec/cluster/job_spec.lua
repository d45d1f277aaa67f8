--- Jobs on real processes: outcomes, cancels, time limits, keys, and each role killed with signal 9 while a job runs.
local cjson = require "cjson"
local cluster = require "spec.support.cluster"
local uv = require "luv"

-- Finished jobs are forgotten soon here, so that specs can check that nothing names them any more.
local SET = "set = { retention_ms = 400, fence_ms = 400 }"
local ONE_DC = ("return { %s, datacenters = { a = { managers = { {} }, workers = { { cores = 2 }, { cores = 2 } } } } }"):format(SET)
local TWO_DCS = ([[return { %s, gates = { {} }, datacenters = {
  a = { managers = { {} }, workers = { { cores = 2 }, { cores = 2 } } },
  b = { managers = { {} }, workers = { { cores = 2 } } } } }]]):format(SET)

--- Lua for a node: every place, from `node` on, that holds the job's id, and whether cores are free.
local AT_REST = [[(function ()
  local job, seen, found = %q, {}, {}
  local function walk(value, path)
    if type(value) == "string" and value:find(job, 1, true) then found[#found + 1] = path end
    if type(value) ~= "table" or seen[value] or rawequal(value, _G) then return end
    seen[value] = true
    for k, v in next, value do
      local name = path .. "." .. tostring(k):sub(1, 60)
      if type(k) == "string" and k:find(job, 1, true) then found[#found + 1] = name end
      walk(v, name)
    end
  end
  local env = node.repl_env
  node.repl_env = nil
  walk(node, "node")
  node.repl_env = env
  local d = node.describe()
  if d.free and d.free ~= d.cores then found[#found + 1] = ("%%d of %%d cores free"):format(d.free, d.cores) end
  for _, e in ipairs(d.executors or {}) do
    if e.claimed ~= 0 then found[#found + 1] = ("%%s: %%d cores claimed"):format(e.name, e.claimed) end
  end
  table.sort(found)
  return table.concat(found, "\n")
end)()]]

local function job_of(workflows, more)
  return ("return { name = 'j', %s workflows = { %s } }"):format(more or "", workflows)
end

describe("a job", function ()
  local c

  before_each(function () c = cluster.new() end)
  after_each(function () c:close() end)

  --- F35, F53: at each address all cores are free and no table names the job; and only nodes and clients run.
  local function assert_at_rest(job, addresses)
    for name, address in pairs(addresses) do
      local last
      local line = AT_REST:format(job):gsub("%s*\n%s*", " ")
      cluster.wait(function () return name .. " at rest; it still has:\n" .. last end, function ()
        last = c:eval(address, line)
        return last == ""
      end, 4000)
    end
    cluster.wait("no child left", function ()
      for _, words in pairs((c:left())) do
        if not (words:find "bin/shoal run " or words:find "bin/shoal up " or words:find "bin/shoal guard %x+ $") then return false end
      end
      return true
    end)
  end

  local function addresses_of(up, ...)
    local out, skip = {}, {}
    for _, name in ipairs { ... } do skip[name] = true end
    for name, node in pairs(up.nodes) do
      if not skip[name] then out[name] = node.address end
    end
    return out
  end

  local function start_submit(connect, text, ...)
    local p = c:start { "submit", c:file("j.lua", text), "--connect", connect, "--output", "json", open_stdin = true, ... }
    p.job = p:wait_for "%f[%w]job (%S+)\n"
    return p
  end

  local function submit(connect, text, ...)
    local r = c:shoal { "submit", c:file("j.lua", text), "--connect", connect, "--output", "json", limit_ms = 40000, ... }
    if r.out ~= "" then r.result = cjson.decode(r.out) end
    return r
  end

  local function running(pattern)
    for pid, words in pairs((c:left())) do
      if words:find(pattern) then return pid end
    end
  end

  local function state_of(connect, job)
    return cjson.decode(c:shoal({ "status", job, "--connect", connect, "--output", "json" }).out).state
  end

  describe("on one datacenter without gates", function ()
    local up
    before_each(function () up = c:up(ONE_DC) end)

    it("runs its graph in order and leaves nothing", function ()
      local log = c.dir .. "/order"
      local function step(name, after) return ("%s = { after = { %s }, command = 'echo %s >> %s' },"):format(name, after, name, log) end
      local r = submit(up.connect, job_of(step("last", "'left', 'right'") .. step("right", "'first'") .. step("left", "'first'")
        .. step("first", "")))
      assert.equal(0, r.code, r.err)
      assert.equal("completed", r.result.state)
      local order = {}
      for line in io.lines(log) do order[#order + 1] = line end
      assert.equal(4, #order)
      assert.equal("first", order[1])
      assert.equal("last", order[4])
      assert_at_rest(r.result.job, addresses_of(up))
    end)

    it("runs a command in as many parts as it says, each once, over both workers", function ()
      local r = submit(up.connect, job_of "w = { command = 'echo $SHOAL_PART; sleep 0.2', parts = 4 }")
      assert.equal(0, r.code, r.err)
      local seen, count = {}, 0
      for _, attempt in ipairs(r.result.attempts) do
        seen[attempt.part] = (seen[attempt.part] or 0) + 1
        assert.equal(1, seen[attempt.part])
        count = count + 1
      end
      assert.equal(4, count)
      assert_at_rest(r.result.job, addresses_of(up))
    end)

    it("fails when a command fails, keeps its output, and what waited for it is skipped", function ()
      local r = submit(up.connect, job_of("w = { command = 'echo some words; echo and a complaint >&2; exit 3' }, "
        .. "v = { after = { 'w' }, command = 'true' }"))
      assert.equal(1, r.code, r.err)
      assert.equal("failed", r.result.state)
      assert.is_truthy(r.result.reason:find("status 3", 1, true), r.result.reason)
      local states = {}
      for _, w in ipairs(r.result.workflows) do states[w.workflow] = w.state end
      assert.same({ w = "failed", v = "skipped" }, states)
      assert.is_truthy(r.out:find("some words", 1, true) and r.out:find("and a complaint", 1, true), r.out)
      assert_at_rest(r.result.job, addresses_of(up))
    end)

    it("F62: is cancelled: who follows exits 5, the command and its children are gone, cores are free", function ()
      local p = start_submit(up.connect, job_of "w = { command = 'trap \"\" TERM; sleep 311 & wait; sleep 311' }")
      cluster.wait("the command runs", function () return running "^sleep 311" end)
      local r = c:shoal { "cancel", p.job, "--connect", up.connect, "--reason", "no need" }
      assert.equal(0, r.code, r.err)
      assert.is_truthy(r.out:find "cancelling", r.out)
      p:wait()
      assert.equal(5, p.code, p.err)
      local result = cjson.decode(p.out)
      assert.equal("cancelled", result.state)
      assert.equal("no need", result.reason)
      assert.is_nil(running "^sleep 311")
      assert_at_rest(p.job, addresses_of(up))
    end)

    it("F57: is ended by its time limit with 124", function ()
      local r = submit(up.connect, job_of("w = { command = 'sleep 312' }", "timeout_ms = 400,"))
      assert.equal(124, r.code, r.err)
      assert.equal("timed_out", r.result.state)
      assert.is_nil(running "^sleep 312")
      assert_at_rest(r.result.job, addresses_of(up))
    end)

    it("goes on without its client: --detach, jobs, status, and its answer until it is forgotten", function ()
      local r = c:shoal { "submit", c:file("j.lua", job_of(
        "w = { command = 'while [ ! -e " .. c.dir .. "/go ]; do sleep 0.05; done; echo late' }")), "--connect", up.connect, "--detach" }
      assert.equal(0, r.code, r.err)
      local id = r.out:match "^(%S+)\n$"
      assert.is_truthy(c:shoal({ "jobs", "--connect", up.connect }).out:find(id .. "%s+running"), r.out)
      local status = c:shoal { "status", id, "--connect", up.connect }
      assert.equal(0, status.code)
      assert.is_truthy(status.out:find("is running", 1, true), status.out)
      c:file("go", "")
      cluster.wait("its end", function ()
        status = c:shoal { "status", id, "--connect", up.connect }
        return status.out:find("completed", 1, true)
      end)
      assert.is_truthy(status.out:find("late", 1, true), status.out)
      assert_at_rest(id, addresses_of(up))
      assert.equal(4, c:shoal({ "status", id, "--connect", up.connect }).code)
    end)

    it("F31: is one job for one key, also from many at once", function ()
      local text = job_of("w = { command = 'echo ran >> " .. c.dir .. "/ran; sleep 2' }") -- Until the last has asked, on a slow machine too.
      local all, ids = {}, {}
      for i = 1, 5 do all[i] = start_submit(up.connect, text, "--key", "the same") end
      for i, p in ipairs(all) do
        p:wait()
        assert.equal(0, p.code, p.err)
        ids[i] = cjson.decode(p.out).job
        assert.equal(ids[1], ids[i])
      end
      assert.equal("ran\n", cluster.read(c.dir .. "/ran"))
      assert_at_rest(ids[1], addresses_of(up))
    end)

    it("F42: outlives a worker killed with signal 9; the lost attempt is listed apart", function ()
      local started = c.dir .. "/started"
      local p = start_submit(up.connect, job_of(
        ("w = { command = 'echo $SHOAL_PART >> %s; [ $SHOAL_ATTEMPT = 2 ] || sleep 3', parts = 2, retries = 1 }"):format(started)))
      cluster.wait("both parts run", function ()
        local f = io.open(started)
        local text = f and f:read "a" or ""
        if f then f:close() end
        return select(2, text:gsub("\n", "")) == 2
      end)
      uv.kill(up.nodes["w-a1"].pid, "sigkill")
      p:wait(30000)
      assert.equal(0, p.code, p.err)
      local result = cjson.decode(p.out)
      local lost, done = {}, {}
      for _, attempt in ipairs(result.attempts) do
        local list = attempt.state == "lost" and lost or done
        list[#list + 1] = attempt
      end
      assert.equal(1, #lost)
      assert.equal("w-a1", lost[1].executor)
      assert.equal(2, #done)
      local sites = {}
      for _, incident in ipairs(result.incidents) do sites[incident.site] = (sites[incident.site] or 0) + 1 end
      assert.equal(1, sites["lead.attempt_lost"])
      assert_at_rest(result.job, addresses_of(up, "w-a1"))
    end)

    it("B16, F42: outlives a child killed with signal 9 beside a worker that lives; the part is tried again", function ()
      c:file("user.lua", "return { vu = function (vu) vu:sleep(2500) end }")
      local p = start_submit(up.connect, job_of "w = { script = 'user.lua', vus = 1, iterations = 1, retries = 1 }")
      local pid
      cluster.wait("its child runs", function ()
        pid = running "bin/shoal exec"
        return pid
      end)
      uv.kill(pid, "sigkill")
      p:wait(30000)
      assert.equal(0, p.code, p.err)
      local result, states = cjson.decode(p.out), {}
      for i, attempt in ipairs(result.attempts) do states[i] = attempt.state end
      table.sort(states)
      assert.same({ "completed", "lost" }, states)
      assert.equal(1, result.stats.iterations)
      assert_at_rest(result.job, addresses_of(up))
    end)

    it("fails when its only attempt is lost and it may not be tried again", function ()
      local p = start_submit(up.connect, job_of "w = { command = 'sleep 313', retries = 0 }")
      cluster.wait("the command runs", function () return running "^sleep 313" end)
      uv.kill(up.nodes["w-a1"].pid, "sigkill")
      p:wait(30000)
      assert.equal(1, p.code, p.err)
      assert.is_truthy(cjson.decode(p.out).reason:find("w-a1", 1, true), p.out)
      assert_at_rest(p.job, addresses_of(up, "w-a1"))
    end)

    describe("and Ctrl-C on its client", function ()
      local LONG = job_of "w = { command = 'sleep 314' }"

      --- A client at a terminal of its own, where Ctrl-C is a byte that is typed.
      local function at_terminal()
        -- script runs a shell, which gets Ctrl-C's SIGINT too: one that waits for us instead of becoming us (dash) ends with 130.
        local command = ("exec %s submit %s --connect %s"):format(cluster.program, c:file("t.lua", LONG), up.connect)
        local p = c:spawn { "script", "-qefc", command, "/dev/null", env = { SHELL = "/bin/sh" } }
        p.job = p:wait_for("%f[%w]job (%S+)\r", "out")
        p:wait_for("w is running", "out")
        p:write "\3"
        p:wait_for("%[c%]ancel it, %[d%]etach and let it run, Ctrl%-C again: leave", "out")
        return p
      end

      it("asks; `c` cancels the job", function ()
        local p = at_terminal()
        assert.is_nil(p.code)
        p:write "c\n"
        p:wait()
        assert.equal(5, p.code, p.out)
        assert_at_rest(p.job, addresses_of(up))
      end)

      it("asks; another answer is told what was expected, and it goes on asking; `d` leaves it running and exits 0", function ()
        local p = at_terminal()
        p:write "x\n"
        p:wait_for([["x" is no answer: expected c or d]], "out")
        p:write "\n"
        p:wait_for("nothing is no answer: expected c or d", "out")
        assert.is_nil(p.code)
        p:write "Detach\n"
        p:wait()
        assert.equal(0, p.code, p.out)
        assert.is_truthy(p.out:find("goes on", 1, true), p.out)
        assert.equal("running", state_of(up.connect, p.job))
      end)

      it("asks; a second one leaves at once with 130, and SIGTERM with 143", function ()
        local p = at_terminal()
        p:write "\3"
        p:wait(3000)
        assert.equal(130, p.code, p.out)
        assert.equal("running", state_of(up.connect, p.job))
        p = start_submit(up.connect, LONG)
        p:kill "sigterm"
        p:wait(3000)
        assert.equal(143, p.code, p.err)
      end)

      it("asks nobody where stdin is no terminal, also when it stays open: it leaves with 130, and the job goes on", function ()
        local p = start_submit(up.connect, LONG)
        p:kill "sigint"
        p:wait(3000)
        assert.equal(130, p.code, p.err)
        assert.is_nil(p.err:find("ancel", 1, true), p.err)
        assert.equal("running", state_of(up.connect, p.job))
      end)
    end)
  end)

  describe("over a gate and two datacenters", function ()
    it("runs in both, and leaves nothing anywhere", function ()
      local up = c:up(TWO_DCS)
      local r = submit(up.connect, job_of "w = { command = 'echo $SHOAL_PART', parts = 4 }, v = { after = { 'w' }, command = 'true' }")
      assert.equal(0, r.code, r.err)
      local dcs = {}
      for _, attempt in ipairs(r.result.attempts) do dcs[attempt.dc] = true end
      assert.same({ a = true, b = true }, dcs)
      assert_at_rest(r.result.job, addresses_of(up))
    end)

    it("F62: a cancel at the gate reaches every worker", function ()
      local up = c:up(TWO_DCS)
      local p = start_submit(up.connect, job_of "w = { command = 'sleep 315', parts = 4 }")
      cluster.wait("all commands run", function ()
        local count = 0
        for _, words in pairs((c:left())) do count = count + (words:find "^sleep 315" and 1 or 0) end
        return count == 4
      end)
      assert.equal(0, c:shoal({ "cancel", p.job, "--connect", up.connect }).code)
      p:wait()
      assert.equal(5, p.code, p.err)
      assert_at_rest(p.job, addresses_of(up))
    end)

    it("is refused when it names a datacenter that nobody knows, with those that are known", function ()
      local up = c:up(TWO_DCS)
      local r = submit(up.connect, job_of("w = { command = 'true' }", "datacenters = { 'c' },"))
      assert.is_true(r.code == 2 or r.code == 4, r.err)
      assert.is_truthy(r.err:find("no datacenter \"c\" is known here; known: a, b", 1, true), r.err)
    end)
  end)

  describe("whose leader is killed with signal 9 and started again on its data", function ()
    local nodes

    --- A cluster of single nodes, each with an address that it keeps.
    local function start_node(role, name, ...)
      local address = nodes[name] and nodes[name].address or "127.0.0.1:" .. cluster.port()
      local words = { "--name", name, "--bind", address, "--data", c.dir .. "/" .. name, "--log", c.dir .. "/" .. name .. ".log",
        "--set", "retention_ms=3000", "--set", "fence_ms=400", ... }
      nodes[name] = c:node(role, words)
      nodes[name].again = function (self)
        self:kill "sigkill"
        self:wait()
        return start_node(role, name, table.unpack(words, 13))
      end
      assert.equal(address, nodes[name].address)
      return nodes[name]
    end

    local function addresses()
      local out = {}
      for name, node in pairs(nodes) do out[name] = node.address end
      return out
    end

    local function seen(address, count)
      cluster.wait(count .. " nodes seen", function ()
        local _, alive = c:shoal({ "members", "--connect", address }).out:gsub("alive", "")
        return alive >= count
      end)
    end

    before_each(function () nodes = {} end)

    it("F24: a manager: the running attempt is adopted and the job completes, followed by its first client", function ()
      local m = start_node("manager", "m", "--dc", "a")
      start_node("worker", "w", "--dc", "a", "--join", m.address)
      seen(m.address, 2)
      local ran = c.dir .. "/ran"
      local p = start_submit(m.address, job_of(
        ("w = { command = 'echo ran >> %s; sleep 3' }, v = { after = { 'w' }, command = 'true' }"):format(ran)))
      cluster.wait("the command runs", function () return running "^sleep 3" end)
      m = m:again()
      p:wait(40000)
      assert.equal(0, p.code, p.err)
      assert.equal("completed", cjson.decode(p.out).state)
      assert.equal("ran\n", cluster.read(ran))
      assert.equal("completed", state_of(m.address, p.job))
      assert_at_rest(p.job, addresses())
    end)

    it("F23: a gate: the job goes on below, and its client follows it again", function ()
      local g = start_node("gate", "g")
      local m = start_node("manager", "m", "--dc", "a", "--gates", g.address)
      start_node("worker", "w", "--dc", "a", "--join", m.address)
      seen(g.address, 3)
      local ran = c.dir .. "/ran"
      local p = start_submit(g.address, job_of(
        ("w = { command = 'echo ran >> %s; sleep 3' }, v = { after = { 'w' }, command = 'true' }"):format(ran)))
      cluster.wait("the command runs", function () return running "^sleep 3" end)
      g = g:again()
      p:wait(40000)
      assert.equal(0, p.code, p.err)
      assert.equal("completed", cjson.decode(p.out).state)
      assert.equal("ran\n", cluster.read(ran))
      assert.equal("completed", state_of(g.address, p.job))
      assert_at_rest(p.job, addresses())
    end)

    it("a manager below a gate: the gate hears the end from it", function ()
      local g = start_node("gate", "g")
      local m = start_node("manager", "m", "--dc", "a", "--gates", g.address)
      start_node("worker", "w", "--dc", "a", "--join", m.address)
      seen(g.address, 3)
      local p = start_submit(g.address, job_of "w = { command = 'sleep 2.5' }")
      cluster.wait("the command runs", function () return running "^sleep 2.5" end)
      m:again()
      p:wait(40000)
      assert.equal(0, p.code, p.err)
      assert_at_rest(p.job, addresses())
    end)

    it("a manager and its only worker: the job still ends", function ()
      local m = start_node("manager", "m", "--dc", "a")
      local w = start_node("worker", "w", "--dc", "a", "--join", m.address)
      seen(m.address, 2)
      local p = start_submit(m.address, job_of "w = { command = 'sleep 1.7', retries = 1 }")
      cluster.wait("the command runs", function () return running "^sleep 1.7" end)
      w:kill "sigkill"
      m:again()
      w:again()
      p:wait(40000)
      assert.equal(0, p.code, p.err)
      local attempts = cjson.decode(p.out).attempts
      assert.equal(2, #attempts)
      assert_at_rest(p.job, addresses())
    end)
  end)
end)
