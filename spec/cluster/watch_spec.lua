--- A loop that does not turn (fault B7): it is reported while it is stuck, with the place; a script's callback is interrupted; signals
--- still work. These are real processes and real seconds, so each is stuck no longer than it must be.
local cjson = require "cjson"
local cluster = require "spec.support.cluster"

describe("a loop that does not turn", function ()
  local c
  before_each(function () c = cluster.new() end)
  after_each(function () c:close() end)

  --- A worker that runs `body` in a task of its own, soon after it is ready; the process, and its script.
  local function worker(body, ...)
    local script = c:file("role.lua", ([[
local role = assert(loadfile "scripts/roles/worker.lua")()
local start = role.start
role.start = function (node) node.scope:spawn("spec.run", { task = "spec" }, function () require "shoal.task".sleep(300)
    %s
  end)
  return start(node)
end
return role]]):format(body))
    return c:node(script, { "--name", "w", "--data", c.dir .. "/w", "--log", c.dir .. "/w.log", ... }), script
  end

  --- The lines of its log with this event, and incidents at this site.
  local function logged(event)
    local out = {}
    for line in cluster.read(c.dir .. "/w.log"):gmatch "[^\n]+" do
      local record = cjson.decode(line)
      if record.event == event or record.event == "incident" and record.site == event then out[#out + 1] = record end
    end
    return out
  end

  local function wait_logged(event, count, limit_ms)
    cluster.wait(event .. " in the log", function () return #logged(event) >= (count or 1) end, limit_ms)
    return logged(event)[count or 1]
  end

  it("is reported with its line, to the log and to stderr; the callback is interrupted, and the node goes on", function ()
    local p, script = worker("local n = 0 while true do n = n + 1 end", "--set", "hang_ms=2500")
    local stuck = wait_logged "node.stuck"
    assert.equal("critical", stuck.level)
    assert.equal("w", stuck.node)
    assert.truthy(stuck.for_ms >= 2000 and stuck.for_ms < 3500 * (cluster.sanitized and 4 or 1), stuck.for_ms)
    assert.equal(script .. ":4", stuck.at)
    assert.equal("spec.run", stuck.site)
    assert.is_nil(stuck["function"])
    assert.truthy(p.err:find('"event":"node.stuck"', 1, true), p.err)
    local incident = wait_logged "spec.run"
    assert.equal(script .. ":4", incident.where)
    assert.truthy(incident.message:find "^it ran for %d+ s without ending or waiting$", incident.message)
    assert.equal("spec", incident.ids.task)
    local told = wait_logged("node.stuck", 2)
    assert.truthy(told.message:find("the loop did not turn for ", 1, true) and told.message:find(script .. ":4", 1, true), told.message)
    assert.equal("2", c:eval(p.address, "1 + 1"))
    p:kill "sigterm"
    assert.equal(0, p:wait().code, p.err)
    assert.truthy(p.err:find("2 = 2 + 0 + 0", 1, true), p.err)
  end)

  it("in an answer of a script: its caller hears of the failure, and the next one is answered", function ()
    local script = c:file("gate.lua", [[
local role = assert(loadfile "scripts/roles/gate.lua")()
local list, times = role.answers["job.list"], 0
role.answers["job.list"] = function (...)
  times = times + 1
  while times == 1 do end
  return list(...)
end
return role]])
    local p = c:node(script, { "--name", "g", "--data", c.dir .. "/g", "--log", c.dir .. "/w.log", "--set", "hang_ms=2000" })
    local first = c:shoal { "jobs", "--connect", p.address }
    assert.not_equal(0, first.code, first.out)
    local stuck = wait_logged "node.stuck"
    assert.equal(script .. ":5", stuck.at)
    assert.equal("rpc.handler", stuck.site)
    local second = c:shoal { "jobs", "--connect", p.address }
    assert.equal(0, second.code, second.err)
  end)

  it("is interrupted though the script catches the error again and again, in coroutines too", function ()
    worker([[local function spin() while true do end end
    while true do pcall(coroutine.wrap(function () pcall(spin) while true do end end)) end]], "--set", "hang_ms=2000")
    local incident = wait_logged "spec.run"
    assert.truthy(incident.message:find("without ending or waiting", 1, true), incident.message)
  end)

  it("in a C function: the report names it and the line of the call", function ()
    local p, script = worker('os.execute "sleep 3.8"', "--set", "hang_ms=0")
    local stuck = wait_logged "node.stuck"
    assert.equal("execute", stuck["function"])
    assert.equal(script .. ":4", stuck.at)
    assert.equal("spec.run", stuck.site)
    local told = wait_logged("node.stuck", 2)
    assert.equal("error", told.level)
    assert.truthy(told.message:find("in the C function execute", 1, true), told.message)
    assert.equal("2", c:eval(p.address, "1 + 1"))
  end)

  it("in a pattern that does not end: SIGTERM is heard, a second one ends the process", function ()
    local p, script = worker('local _ = ("a"):rep(40000):find ".-.-.-.-b"', "--set", "hang_ms=2000")
    local stuck = wait_logged "node.stuck"
    assert.equal("find", stuck["function"])
    assert.equal(script .. ":4", stuck.at)
    p:kill "sigterm"
    p:wait_for('"event":"node.signal","signal":"TERM"', "err", 4000)
    assert.is_nil(p.code)
    p:kill "sigterm"
    assert.equal(143, p:wait(4000).code, p.err)
    assert.equal("TERM", wait_logged("node.exit").signal)
  end)

  it("is left alone where only the library's own code runs, and two SIGINTs at once end the process", function ()
    local p = worker([[local timer = require "shoal.core.world".current():timer(load("while true do end", "@lua/shoal/own.lua"))
    timer:start(0)]], "--set", "hang_ms=1000")
    local stuck = wait_logged "node.stuck"
    assert.equal("lua/shoal/own.lua:1", stuck.at)
    assert.equal("world.timer", stuck.site)
    cluster.pause(1500)
    assert.equal(1, #logged "node.stuck") -- It is still stuck, and nothing raised.
    p:kill "sigint"
    p:kill "sigint"
    cluster.pause(100)
    p:kill "sigint"
    assert.equal(130, p:wait(4000).code, p.err)
  end)

  it("names the script's line where library code runs for it, and the innermost site", function ()
    local _, script = worker('require "shoal.errors".call("node.stop", nil, load("while true do end", "@lua/shoal/own.lua"))',
      "--set", "hang_ms=0")
    local stuck = wait_logged "node.stuck"
    assert.equal("lua/shoal/own.lua:1", stuck.at)
    assert.equal(script .. ":4", stuck.within)
    assert.equal("node.stop", stuck.site)
  end)

  it("because the machine was suspended is no fault", function ()
    local p = worker ""
    p:kill "sigstop"
    cluster.pause(3500)
    p:kill "sigcont"
    cluster.pause(1500)
    assert.same({}, logged "node.stuck")
    assert.equal("2", c:eval(p.address, "1 + 1"))
    assert.falsy(p.err:find("node.stuck", 1, true))
  end)
end)

describe("a second signal", function ()
  local c
  before_each(function () c = cluster.new() end)
  after_each(function () c:close() end)

  it("ends a node whose stop takes too long, with what is open closed", function ()
    local script = c:file("role.lua", [[
local role = assert(loadfile "scripts/roles/worker.lua")()
role.stop = function () require("shoal.task").sleep(60000) end
return role]])
    local p = c:node(script, { "--name", "w", "--data", c.dir .. "/w", "--set", "stop_ms=60000" })
    p:kill "sigterm"
    cluster.pause(500)
    assert.is_nil(p.code)
    p:kill "sigterm"
    assert.equal(143, p:wait(4000).code, p.err)
    assert.truthy(p.err:find("a second signal", 1, true), p.err)
  end)
end)
