--- scripts/demo itself: a whole cluster, a third-party web server, a worker killed half-way; and the ways in which it ends.
local cjson = require "cjson"
local cluster = require "spec.support.cluster"
local uv = require "luv"

describe("scripts/demo", function ()
  local c, data, port, gate_port

  before_each(function ()
    c = cluster.new()
    data, port, gate_port = c.dir .. "/demo", cluster.port(), cluster.port()
  end)
  after_each(function () c:close() end)

  local function demo(...)
    return c:spawn {
      "scripts/demo", "--data", data, "--port", tostring(port), "--gate-port", tostring(gate_port), ...,
      env = { SHOAL_BUILD = cluster.build }, stdin = "",
    }
  end

  --- Check that no process is left and no port listens: an nginx worker without its master has no name by which to find it.
  local function assert_all_gone(limit_ms)
    c:assert_nothing_left(limit_ms)
    for _, number in ipairs { port, gate_port } do
      local socket = uv.new_tcp()
      local free = socket:bind("127.0.0.1", number) and socket:listen(1, function () end)
      socket:close()
      uv.run("nowait")
      assert.is_truthy(free, "somebody still listens on port " .. number)
    end
  end

  --- The web server's own count: requests by "part attempt", and the workflows in the order of their first and last line.
  local function access_log()
    local counts, first, last, line_number = {}, {}, {}, 0
    for line in io.lines(data .. "/access.log") do
      line_number = line_number + 1
      local job, part, attempt = line:match "(%S+) (%S+) (%d+)$"
      assert.is_truthy(job, "a request without its part and attempt: " .. line)
      local key, workflow = part .. " " .. attempt, part:match "^[^/]+"
      counts[key] = (counts[key] or 0) + 1
      first[workflow], last[workflow] = first[workflow] or line_number, line_number
    end
    return counts, first, last
  end

  local function place(text, plain)
    local at = text:find(plain, 1, true)
    assert.is_truthy(at, ("%q is not in:\n%s"):format(plain, text))
    return at
  end

  it("F42: keeps the graph's order, agrees with the web server exactly, and lists the killed attempts apart", function ()
    local began_ms = uv.now()
    local p = demo()
    p:wait(90000)
    uv.update_time()
    local took_ms = uv.now() - began_ms
    assert.equal(0, p.code, p.out .. p.err)
    assert.is_true(took_ms < 60000, ("it took %d ms"):format(took_ms))
    assert_all_gone(2000)

    local result = cjson.decode(cluster.read(data .. "/result.json"))
    assert.equal("completed", result.state)
    local counts, first, last = access_log()

    -- The graph, as the web server saw it and as the client was told.
    assert.is_true(last.warm < first.browse and last.warm < first.buy)
    assert.is_true(first.buy < last.browse and first.browse < last.buy, "browse and buy run side by side")
    local talk = p.err
    assert.is_true(place(talk, "warm is completed") < place(talk, "browse is running"))
    assert.is_true(place(talk, "warm is completed") < place(talk, "buy is running"))
    assert.is_true(place(talk, "browse is completed") < place(talk, "summary is running"))
    assert.is_true(place(talk, "buy is completed") < place(talk, "summary is running"))
    assert.is_true(place(talk, "kill -9") < place(talk, "summary is running"))

    -- Finished attempts: exactly. Lost ones: at least their last progress.
    local merged, lost = {}, 0
    for _, a in ipairs(result.attempts) do
      local key = ("%s %d"):format(a.part, a.attempt)
      if a.state == "lost" then
        lost = lost + 1
        assert.equal("w-a1", a.executor)
        assert.is_true(a.stats.requests > 0 and (counts[key] or 0) >= a.stats.requests, key)
      else
        assert.equal("completed", a.state, key)
        assert.equal(counts[key] or 0, a.stats.requests + (a.stats.outside or 0), key) -- Those of setup are counted apart.
        merged[a.workflow] = (merged[a.workflow] or 0) + a.stats.requests
      end
      counts[key] = nil
    end
    assert.same({}, counts, "every request belongs to an attempt of the result")
    assert.equal(2, lost, "browse and buy ran on the killed worker")
    local total = 0
    for _, w in ipairs(result.workflows) do
      assert.equal(merged[w.workflow] or 0, w.stats.requests, w.workflow)
      total = total + w.stats.requests
    end
    assert.equal(total, result.stats.requests)
    assert.equal(400, result.stats.counters.purchases, "an iteration that is due is made, also by a second attempt")

    -- The output for people.
    for _, plain in ipairs {
      "WORKFLOW", "p50", "p95", "p99", "errors by kind: none", "lost: 2 attempts, retried: 2", "in none of the numbers above",
      "the shop has closed", "lead.attempt_lost", "result.json",
    } do place(p.out, plain) end
    local _, lines = talk:gsub("\n%s+%d+%.%d s  ", "")
    assert.is_true(lines >= math.floor(result.elapsed_ms / 1000) - 1, lines .. " progress lines")
    assert.is_truthy(talk:find("browse@a %d[%d,]* req [%d,]+/s") and talk:find("buy@b %d[%d,]* req [%d,]+/s"), talk)

    -- Each node that was not killed ends with balanced books.
    local ended = 0
    for name in io.popen("ls " .. data .. "/cluster/*.log"):read("a"):gmatch("[^\n]+") do
      local log = cluster.read(name)
      if name:find("w-a1.log", 1, true) then
        assert.is_nil(log:find('"node.end"', 1, true))
      else
        ended = ended + 1
        assert.is_truthy(log:find('"event":"node.end","balanced":true', 1, true), name)
      end
    end
    assert.equal(6, ended)
  end)

  it("says which port is taken, and leaves nothing", function ()
    for _, taken in ipairs { port, gate_port } do
      local server = uv.new_tcp()
      assert(server:bind("127.0.0.1", taken))
      assert(server:listen(1, function () end))
      local p = demo()
      p:wait(40000)
      server:close()
      uv.run("nowait")
      assert.equal(1, p.code, p.out .. p.err)
      place(p.err, "127.0.0.1:" .. taken)
      place(p.err, taken == port and "--port N" or "--gate-port N")
      assert_all_gone(3000)
    end
  end)

  for _, signal in ipairs { "sigint", "sigterm" } do
    it("leaves nothing on " .. signal .. " in the middle, and exits 130", function ()
      local p = demo()
      p:wait_for("browse is running", "err", 40000)
      if signal == "sigint" then uv.kill(-p.pid, "sigint") else p:kill(signal) end -- A terminal signals the whole group.
      p:wait(15000)
      assert.equal(130, p.code, p.out .. p.err)
      place(p.err, "interrupted; cleaning up")
      assert_all_gone(3000)
    end)
  end

  it("leaves the cluster up with --keep, says how to look around, and how to stop it", function ()
    local p = demo("--keep", "--no-kill", "--job", "examples/hello.lua")
    cluster.wait("the demo's end", function () return p.exited end, 30000)
    assert.equal(0, p.exit_code, p.out .. p.err)
    local ran = 0
    for line in p.out:gmatch("\n  (%S*shoal [^\n]+)") do
      if not line:find " repl " then
        local words = {}
        for word in line:gmatch("%S+") do words[#words + 1] = word end
        local r = c:spawn(words):wait()
        assert.equal(0, r.code, line .. "\n" .. r.err)
        ran = ran + 1
      end
    end
    assert.equal(3, ran)
    local pids = p.out:match("Stop all of it: kill ([%d ]+)\n")
    for pid in pids:gmatch("%d+") do uv.kill(math.tointeger(tonumber(pid)), "sigterm") end
    assert_all_gone()
  end)

  it("answers a wrong option with the option, and 2", function ()
    for _, case in ipairs {
      { "--bogus", "unknown option '--bogus'" }, { "--port", "--port wants a value" },
    } do
      local r = c:spawn({ "scripts/demo", case[1] }):wait()
      assert.equal(2, r.code)
      place(r.err, case[2])
    end
    for _, value in ipairs { "x", "0", "65536", "" } do
      local r = c:spawn({ "scripts/demo", "--gate-port", value }):wait()
      assert.equal(2, r.code)
      place(r.err, "--gate-port: expected a port from 1 to 65535, found '" .. value .. "'")
    end
    local r = c:spawn({ "scripts/demo", "--help" }):wait()
    assert.equal(0, r.code)
    place(r.out, "--keep")
  end)
end)
