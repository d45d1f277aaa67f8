-- The simulator's driver: Lua states on simulated machines. spec/c tests the simulated world itself.
local sim = require "shoal.sim"
local task = require "shoal.task"

local s
local function new(options) s = sim.new(options or { seed = 1 }) return s end

--- The log's lines of one node, without their times.
local function said(name)
  local out = {}
  for line in s:log():gmatch "[^\n]+" do
    local who, text = line:match "^%S+ (%S+) (.*)$"
    if who == name then out[#out + 1] = text end
  end
  return out
end

--- Run this code on a node. Returns its output when it has ended or `ms` have passed.
local function run(code, options)
  options = options or {}
  local node = s:node { name = options.name or "a", code = code, args = options.args, files = options.files }
  s:run(options.ms or 100)
  return said(node.name), node
end

after_each(function ()
  if s then s:close() end
  s = nil
  task.reset()
end)

describe("a simulated node", function ()
  before_each(function () new() end)

  it("runs a program with its words, and ends with its code", function ()
    local lines, node = run("print(...) return 7", { args = { "x", "y" } })
    assert.same({ "x\ty", "exit 7" }, lines)
    assert.same({ "ended", 7, 0, 0 }, { s:status(node) })
  end)

  it("lives on while it returns nothing", function ()
    local _, node = run "print 'up'"
    assert.equal("up", (s:status(node)))
  end)

  it("that raises at its start ends with 1, and tells where", function ()
    local lines, node = run "\nerror 'boo'"
    assert.equal(1, select(2, s:status(node)))
    assert.truthy(lines[1]:find("/shoal/program.lua:2", 1, true) and lines[1]:find("boo", 1, true))
    assert.equal("exit 1", lines[2])
  end)

  it("with a syntax error says its line, and ends with 2", function ()
    local lines = run "local x = = 1"
    assert.truthy(lines[1]:find("/shoal/program.lua:1: unexpected symbol", 1, true), lines[1])
    assert.equal("exit 2", lines[2])
  end)

  it("walks tables in one order: numbers, strings, booleans, objects as first seen", function ()
    local lines = run [[
      local object, other = {}, print
      for k in pairs { b = 1, a = 1, [2] = 1, [1.5] = 1, [-1] = 1, [true] = 1, [false] = 1, [""] = 1, aa = 1 } do print(k) end
      local t, seen = { x = 1, y = 2, z = 3 }, {}
      for k in pairs(t) do seen[#seen + 1] = k t[k] = nil end
      print(table.concat(seen), next(t))
      t = { x = 1, y = 2, z = 3 }
      for k in pairs(t) do t.y = nil print(k) end
      local k, keys = nil, {}
      repeat k = next({ q = 1, p = 2, [3] = 1 }, k) keys[#keys + 1] = tostring(k) until k == nil
      print(table.concat(keys, " "))
      print(next({}), rawlen { 1, 2 }, select("#", pairs {}))
      local function own(_, key) if not key then return "own", 1 end end
      for k, v in pairs(setmetatable({}, { __pairs = function (self) return own, self, nil end })) do print(k, v) end
      return 0]]
    assert.same({ "-1", "1.5", "2", "", "a", "aa", "b", "false", "true", "xyz\tnil", "x", "z", "3 p q nil", "nil\t2\t3", "own\t1",
      "exit 0" }, lines)
  end)

  it("shows no addresses", function ()
    local lines = run "local t = {} print(t, t, {}, print, coroutine.create(print)) return 0"
    assert.equal("table: #1\ttable: #1\ttable: #2\tfunction: #3\tthread: #4", lines[1])
  end)

  it("is barred from the ways around its world, with the world's means named", function ()
    local lines = run [[
      local function try(what, code)
        local ok, err = require("shoal.errors").handle("sim.eval", { host = "a" }, load(code))
        print(what, ok, (tostring(err):gsub("^.-: ", "", 1)))
      end
      try("open", "io.open('/etc/passwd')")
      try("popen", "io.popen 'ls'")
      try("execute", "os.execute 'ls'")
      try("exit", "os.exit(1)")
      try("getenv", "os.getenv 'HOME'")
      try("luv", "require 'luv'")
      try("seed", "math.randomseed(1)")
      return 0]]
    for i, word in ipairs { "world:read_file", "world:read_file", "world:spawn", "shoal.core.node.exit", "arguments", "shoal.core.world",
      "world:seed" } do
      assert.truthy(lines[i]:find("\tfalse\t", 1, true), lines[i])
      assert.truthy(lines[i]:find(word, 1, true), lines[i])
    end
    assert.equal("exit 0", lines[8])
  end)

  it("takes time and chance from its world, and output to its log", function ()
    local lines = run [[
      local world = require "shoal.core.world".current()
      assert(world:simulated() and require "shoal.core.node".simulated())
      assert(os.time() == world:wall_ns() // 1000000000)
      print(os.date("%d", 0))
      io.write("one\n", "two\n")
      io.stderr:write("three ", "four\n")
      return 0]]
    assert.same({ "01", "one", "two", "three four", "exit 0" }, lines)
  end)

  it("has a disk of its own, with a copy of our scripts, that outlives a crash", function ()
    local code = [[
      local world = require "shoal.core.world".current()
      local home = require "shoal.core.node".home()
      print(home, #assert(world:read_file(home .. "/scripts/policies/errors.lua")) > 0, (world:read_file "count"))
      assert(world:put_durable("count", (world:read_file "count" or "") .. "x"))
      print(dofile "/extra.lua", select(2, loadfile "/none.lua"))]]
    local lines, node = run(code, { files = { ["/extra.lua"] = "return 'extra'" } })
    assert.same({ "/shoal\ttrue\tnil", "extra\tcannot open /none.lua: No such file or directory" }, lines)
    s:crash(node)
    assert.equal("down", (s:status(node)))
    s:restart(node)
    s:run(10)
    assert.equal("/shoal\ttrue\tx", said("a")[3])
    assert.equal("xx", s:read(node, "count"))
    assert(s:write(node, "/deep/down/file", "text"))
    assert.equal("text", s:read(node, "/deep/down/file"))
  end)

  it("has no loop that could be watched, which is no failure", function ()
    assert.same({ "true", "exit 0" }, (run [[print(require "shoal.core.node".watch { hang_ms = 1 }) return 0]]))
  end)

  it("gets signals, or ends by them", function ()
    local _, node = run [[require "shoal.core.node".on_signal("TERM", function () print "term" end)]]
    s:signal(node, "TERM")
    s:run(10)
    assert.same({ "term" }, said "a")
    s:signal(node, "INT")
    s:run(10)
    assert.equal(130, select(2, s:status(node)))
  end)

  it("closes what it had open when it exits, and tells its peers", function ()
    local _, a = run([[
      local world = require "shoal.core.world".current()
      world:listen("0.0.0.0:80", function (stream) stream:attach { on_end = function () end } end)
      world:timer(function () require "shoal.core.node".exit(3) end):start(50)]], { ms = 10 })
    local lines = run([[
      local world = require "shoal.core.world".current()
      world:timer(function () end):start(1000000)
      require "shoal.core.world".current():connect(..., { on_open = function (s, err) print("open", err) end,
        on_end = function (s, err, code) print("end", code) s:close() end })]], { name = "b", args = { a.ip .. ":80" }, ms = 200 })
    assert.same({ "ended", 3, 0, 0 }, { s:status(a) })
    assert.same({ "open\tnil", "end\tnil" }, lines)
  end)
end)

describe("reaching into a node", function ()
  local node
  before_each(function ()
    new()
    node = s:node { name = "a", code = "value = 5 function give(...) return ... end" }
    s:run(1)
  end)

  it("copies values both ways, and keeps their kinds", function ()
    local t = { 1, 2.0, "three\0", true, { deep = { er = math.mininteger } }, [-1] = 1.5, [false] = "f" }
    assert.same(t, s:eval(node, "return ...", t))
    assert.equal("integer", math.type(s:eval(node, "return 1")))
    assert.equal("float", math.type(s:eval(node, "return 1.0")))
    assert.same({ n = 3, nil, 5, nil }, table.pack(s:eval(node, "return nil, value, nil")))
    assert.equal(0, select("#", s:eval(node, "local x = 1")))
  end)

  it("refuses what cannot be copied, either way", function ()
    assert.error.matches(function () s:eval(node, "return ...", print) end, "cannot be copied")
    assert.error.matches(function () s:eval(node, "return print") end, "cannot be copied")
    local loop = {}
    loop.loop = loop
    assert.error.matches(function () s:eval(node, "return ...", loop) end, "deeper than 32")
  end)

  it("passes no time for code that does not wait, and the time it waits", function ()
    local before = s:now_ms()
    assert.equal(5, s:eval(node, "return value"))
    assert.equal(before, s:now_ms())
    assert.equal("late", s:eval("a", "require 'shoal.task'.sleep(250) return 'late'"))
    assert.truthy(s:now_ms() - before >= 250 and s:now_ms() - before < 251)
  end)

  it("gives an error as a value with its words", function ()
    local result, err, code = s:eval(node, "error 'boo'")
    assert.is_nil(result)
    assert.truthy(err:find("eval:1: boo", 1, true))
    assert.equal("FAILED", code)
    assert.equal("CONFIG", (select(3, s:eval(node, "x = "))))
  end)

  it("says so when the node is not up, or goes away meanwhile", function ()
    s:later(function () end)
    s:at(s:now_ms() + 100, function () s:crash(node) end)
    local result, _, code = s:eval(node, "require 'shoal.task'.sleep(1000)")
    assert.is_nil(result)
    assert.equal("CLOSED", code)
    assert.equal("CLOSED", (select(3, s:eval(node, "return 1"))))
    assert.error.matches(function () s:eval("nobody", "return 1") end, "there is no node 'nobody'")
  end)

  it("ends waiting at its limit", function ()
    local result, _, code = s:eval(node, "require 'shoal.task'.future('never'):await()")
    assert.is_nil(result)
    assert.equal("TIMEOUT", code)
  end)
end)

describe("children", function ()
  before_each(function () new() end)

  local SPAWN = [[
    local world, node = require "shoal.core.world".current(), require "shoal.core.node"
    function start(argv, input, keep)
      local process, err, code
      process, err, code = world:spawn { argv = argv, pipe = { stdin = input ~= nil, stdout = true }, on_exit = function (status, signal)
        print("exit", status, signal)
        process:close()
      end }
      if not process then return nil, err, code end
      process:stream(1):attach { on_read = function (_, bytes) print("out", bytes) end, on_end = function (stream) stream:close() end }
      if input then
        local stdin = process:stream(0)
        stdin:attach { on_end = function (stream) stream:close() end }
        stdin:write(input)
        if not keep then stdin:shutdown() end
      end
      last = process
      return true
    end]]

  it("are functions of ours, by name and by a line's first word, with stdin, status and duration", function ()
    local calls = {}
    s:command("date", function (argv, input)
      calls[#calls + 1] = { argv, input }
      return "today", 4, 30
    end)
    local _, node = run(SPAWN)
    local before = s:now_ms()
    assert.is_true(s:eval(node, "return start { '/usr/bin/date', '-u' }"))
    assert.is_true(s:eval(node, "return start({ 'sh', '-c', ' date; echo x' }, 'input')"))
    assert(s:run_until(function () return #said "a" == 4 end, 1000, 0))
    assert.same({ { { "/usr/bin/date", "-u" }, "" }, { { "sh", "-c", " date; echo x" }, "input" } }, calls)
    assert.same({ "out\ttoday", "exit\t4\t0" }, { said("a")[1], said("a")[#said "a"] })
    assert.truthy(s:now_ms() - before >= 30)
  end)

  it("without a function cannot be started", function ()
    local _, node = run(SPAWN)
    local ok, err, code = s:eval(node, "return start { 'nope' }")
    assert.is_nil(ok)
    assert.truthy(err:find("nope", 1, true))
    assert.equal("ENOENT", code)
  end)

  it("whose function raises end with 127, and the driver lives", function ()
    local door = require "shoal.core.door"
    local told = {}
    door.sink(function (site) told[#told + 1] = site end)
    s:command("bad", function () error "broken" end)
    local _, node = run(SPAWN)
    assert.is_true(s:eval(node, "return start { 'bad' }"))
    s:run(100)
    door.sink(nil)
    assert.same({ "sim.command" }, told)
    assert.same({ "exit\t127\t0" }, said "a")
  end)

  it("can be killed while they run, and go with their machine", function ()
    s:command("sleep", function () return nil, 0, 1000000 end)
    local _, node = run(SPAWN)
    assert.is_true(s:eval(node, "return start { 'sleep' }"))
    s:run(10)
    s:eval(node, "last:kill 'KILL'")
    s:run(10)
    assert.same({ "exit\t0\t9" }, said "a")
    assert.is_true(s:eval(node, "return start({ 'sleep' }, 'input never ends')"))
    s:crash(node)
    s:run(10)
  end)

  it("that are shoal exec run as programs of their own, and are freed by a kill", function ()
    local _, node = run(SPAWN)
    assert.is_true(s:eval(node, "return start({ '/any/bin/shoal', 'exec' }, '', true)"))
    assert.equal(1, select(3, s:status(node)))
    s:run(10)
    s:eval(node, "last:kill 'KILL'")
    s:run(10)
    assert.equal(0, select(3, s:status(node)))
    assert.equal("exit\t0\t9", said("a")[#said "a"])
  end)

  it("that are shoal exec end with their machine", function ()
    local _, node = run(SPAWN)
    for _ = 1, 3 do assert.is_true(s:eval(node, "return start({ 'shoal', 'exec' }, '', true)")) end
    s:run(5)
    s:crash(node)
    assert.equal(0, select(3, s:status(node)))
    s:restart(node)
    s:run(5)
    assert.equal("up", (s:status(node)))
  end)

  it("that are shoal exec may still run when all is closed", function ()
    local _, node = run(SPAWN)
    assert.is_true(s:eval(node, "return start({ 'shoal', 'exec' }, '', true)"))
    s:run(5)
  end)
end)

describe("the outside", function ()
  before_each(function () new() end)

  it("answers HTTP under a name", function ()
    s:http("shop", function (request) return { status = 201, body = request.method .. " " .. request.path, delay_ms = 40 } end)
    local _, node = run ""
    local before = s:now_ms()
    local status, body = s:eval(node, [[
      local http, world = require "shoal.http", require "shoal.core.world".current()
      local client = http.client(world, {})
      local response, err = client:request { method = "GET", url = "http://shop/cart", timeout_ms = 1000 }
      client:close()
      return response and response.status, response and response.body or err]])
    assert.same({ 201, "GET /cart" }, { status, body })
    assert.truthy(s:now_ms() - before >= 40)
  end)

  it("runs tasks of this state on virtual time", function ()
    local before = s:now_ms()
    assert.same({ 1, "two" }, { s:task(function ()
      task.sleep(5000)
      return 1, "two"
    end) })
    assert.truthy(s:now_ms() - before >= 5000)
    local result, _, code = s:task(function () task.sleep(1e6) end, 100)
    assert.is_nil(result)
    assert.equal("TIMEOUT", code)
  end)

  it("has worlds whose things go with them", function ()
    local world, ip = s:world "spec"
    assert.is_true(world:simulated())
    assert(world:listen(ip .. ":9", function () end))
    local timer = world:timer(function () error "it is gone" end)
    timer:start(10)
    s:crash "spec"
    s:run(100)
    assert.error.matches(function () world:now_ns() end, "this world has ended")
    assert.error.matches(function () timer:start(1) end, "closed")
  end)

  it("may do to the cluster from a handler what waits for the step's end", function ()
    local _, node = run ""
    local refused
    s:http("chaos", function ()
      refused = select(2, require("shoal.errors").handle("sim.eval", { host = "spec" }, s.core.crash, s.core, "a"))
      s:later(function () s:crash(node) end)
      return { status = 200 }
    end)
    local result, _, code = s:eval(node, [[
      local client = require "shoal.http".client(require "shoal.core.world".current(), {})
      return client:request { method = "GET", url = "http://chaos/", timeout_ms = 1000 }.status]])
    assert.is_nil(result)
    assert.equal("CLOSED", code)
    assert.truthy(tostring(refused):find("not from within a step", 1, true))
  end)
end)

describe("time", function ()
  it("stops at instants that were asked for, in order", function ()
    new()
    local order = {}
    for _, ms in ipairs { 30, 10, 20, 10 } do s:at(ms, function () order[#order + 1] = ms .. "@" .. s:now_ms() end) end
    s:run(25)
    assert.same({ "10@10.0", "10@10.0", "20@20.0" }, order)
    assert.equal(25.0, s:now_ms())
    s:run(5)
    assert.equal(4, #order)
  end)

  it("runs until something holds, or says that it did not", function ()
    new()
    local node = s:node { name = "a", code = "local w = require 'shoal.core.world'.current() w:timer(function () done = true end):start(33)" }
    assert.is_true(s:run_until(function () return s:eval(node, "return done") end, 100))
    assert.equal(40.0, s:now_ms())
    local ok, _, code = s:run_until(function () return false end, 15)
    assert.is_nil(ok)
    assert.equal("TIMEOUT", code)
    assert.equal(55.0, s:now_ms())
  end)
end)

describe("a run", function ()
  local CODE = [[
    local world, task = require "shoal.core.world".current(), require "shoal.task"
    local peer = ...
    local socket = world:udp("0.0.0.0:7", function (bytes, from) print("got", bytes, from) end)
    task.start(world)
    task.scope("noise"):spawn("spec.run", { task = "noise" }, function ()
      while true do
        task.sleep(math.random(20))
        socket:send(peer .. ":7", tostring(math.random(1000)))
        for k, v in pairs { [tostring(math.random(100))] = 1, [tostring(math.random(100))] = 2 } do print(k, v, os.clock()) end
      end
    end)]]

  local function log_of(seed)
    new { seed = seed, loss = 0.1, jitter_ms = 2, trace = true }
    local a = s:node { name = "a", code = CODE, args = { "10.0.0.3" } }
    s:node { name = "b", code = CODE, args = { a.ip } }
    s:run(300)
    s:cut("a", "b", true)
    s:run(100)
    s:heal("a", "b", true)
    s:pause "b"
    s:crash "a"
    s:run(50)
    s:restart "a"
    s:resume "b"
    s:link("a", "b", { latency_ms = 5, loss = 0.5 })
    s:run(300)
    local log = s:log()
    s:close()
    return log
  end

  it("is its seed: the same to the byte, and another seed another run", function ()
    for seed = 1, 5 do
      local log = log_of(seed)
      assert.truthy(#log > 5000)
      assert.equal(log, log_of(seed))
    end
    assert.not_equal(log_of(1), log_of(2))
  end)

  it("shows its faults in the log", function ()
    local log = log_of(1)
    for _, line in ipairs { "fault cut a b one way", "fault heal a b one way", "fault pause b", "fault crash a", "fault restart a",
      "fault resume b", "fault link a b 5 0 0.5" } do
      assert.truthy(log:find(line, 1, true), line)
    end
  end)
end)

describe("faults of links and machines", function ()
  --- a sends 1, 2, ... `count` to b, one each ms; b prints what it gets.
  local SENDER = [[
    local world = require "shoal.core.world".current()
    local socket, timer, n = world:udp("0.0.0.0:7", function () end), nil, 0
    local to, count = ...
    timer = world:timer(function ()
      n = n + 1
      assert(socket:send(to .. ":7", ("%04d"):format(n)))
      if n < tonumber(count) then timer:start(1) end
    end)
    timer:start(1)]]
  local RECEIVER = [[
    local world = require "shoal.core.world".current()
    world:udp("0.0.0.0:7", function (bytes) print((bytes:gsub("[^0-9]", "?"))) end)]]

  it("flip bits, come twice, overtake, and are counted", function ()
    local function one(link)
      new { seed = 3, latency_ms = 1, jitter_ms = 0 }
      local b = s:node { name = "b", code = RECEIVER }
      s:node { name = "a", code = SENDER, args = { b.ip, "200" }, start = false }
      s:link("a", "b", link)
      s:start "a"
      s:run(400)
      local got, counts = said "b", s:counts()
      s:close()
      return got, counts
    end
    local got, counts = one { latency_ms = 1, corrupt = 0.5 }
    local whole = 0
    for i, text in ipairs(got) do whole = whole + (text == ("%04d"):format(i) and 1 or 0) end
    assert.equal(200, #got)
    assert.truthy(counts.corrupted > 70 and counts.corrupted == 200 - whole)
    got, counts = one { latency_ms = 1, duplicate = 0.5 }
    assert.truthy(counts.duplicated > 70 and #got == 200 + counts.duplicated)
    got, counts = one { latency_ms = 1, reorder = 0.5, reorder_ms = 20 }
    local ordered = { table.unpack(got) }
    table.sort(ordered)
    assert.equal(200, #got)
    assert.truthy(counts.reordered > 70)
    assert.not_same(ordered, got)
    got, counts = one { latency_ms = 1, size_max = 3 }
    assert.same({ 0, 200 }, { #got, counts.too_large })
    got, counts = one { latency_ms = 1, bytes_per_s = 2000, queue_bytes = 40 }
    assert.truthy(counts.overflowed > 50 and #got == 200 - counts.overflowed)
    got, counts = one { latency_ms = 1 }
    assert.equal(200, #got)
    assert.same({ 0, 0, 0, 0, 0 }, { counts.corrupted, counts.duplicated, counts.reordered, counts.too_large, counts.overflowed })
  end)

  it("clog and flush, at a link or a node", function ()
    new { seed = 3 }
    local b = s:node { name = "b", code = RECEIVER }
    local a = s:node { name = "a", code = SENDER, args = { b.ip, "50" } }
    s:clog(a, b, true)
    s:run(200)
    assert.same({}, said "b")
    s:unclog(a, b, true)
    s:run(0)
    assert.equal(50, #said "b")
    assert.equal(50, s:counts().clogged)
    s:crash(a)
    s:clog(nil, b)
    s:restart(a)
    s:run(200)
    assert.equal(50, #said "b")
    s:unclog(nil, b)
    s:run(0)
    assert.equal(100, #said "b")
    assert.truthy(s:log():find("fault clog a b one way", 1, true) and s:log():find("fault unclog * b", 1, true))
  end)

  it("make a slow consumer", function ()
    new { seed = 3 }
    local b = s:node { name = "b", code = RECEIVER }
    s:slow(b, 20, 5)
    s:node { name = "a", code = SENDER, args = { b.ip, "50" } }
    s:run(100)
    assert.truthy(#said "b" <= 3)
    assert.truthy(s:counts().slow_dropped > 30)
    s:slow(b)
    s:run(1)
    assert.equal(50 - s:counts().slow_dropped, #said "b")
  end)

  it("let clocks drift and jump", function ()
    new { seed = 3 }
    local node = s:node { name = "a", code = [[
      local world = require "shoal.core.world".current()
      function clocks() return world:now_ns(), world:wall_ns() end]] }
    s:run(1)
    local now, wall = s:eval(node, "return clocks()")
    s:drift(node, 200)
    s:run(10000)
    local later, later_wall = s:eval(node, "return clocks()")
    assert.equal(10000 * 1000000 + 2000000, later - now)
    assert.equal(10000 * 1000000, later_wall - wall)
    s:step_wall(node, -3600000)
    assert.equal(later_wall - 3600000 * 1000000, (select(2, s:eval(node, "return clocks()"))))
  end)

  it("stall a process, which then runs its timers first, and no child of it", function ()
    new { seed = 5, latency_ms = 1, jitter_ms = 0 }
    local b = s:node { name = "b", code = [[
      local world = require "shoal.core.world".current()
      world:udp("0.0.0.0:7", function (bytes) print("got " .. bytes) end)
      local timer = world:timer(function () print "timer" end)
      timer:start(60)]] }
    s:node { name = "a", code = SENDER, args = { b.ip, "3" } }
    s:stall(b, 200)
    s:run(199)
    assert.same({}, said "b")
    s:run(1)
    assert.same({ "timer", "got 0001", "got 0002", "got 0003" }, said "b")
    s:stall(b, 50)
    s:crash(b)
    s:stall(b, 50)
    s:restart(b)
    s:run(60)
    assert.equal("timer", said("b")[5]) -- Its successor does not stand.
    assert.truthy(s:log():find("fault stall b 200", 1, true))
  end)

  it("fill, break and slow a disk", function ()
    new()
    local node = s:node { name = "a", code = [[
      local world = require "shoal.core.world".current()
      local log = assert(world:log("log", function (size, err, code) print("synced", size, code) end))
      function append() -- luacheck: ignore
        local ok, _, code = log:append "x"
        log:sync()
        world:put_later("file", "new", function (done, _, word) print("put", done, word) end)
        return ok, code, (select(3, world:put_durable("other", "y"))), (select(3, world:stat "log"))
      end]] }
    local function go(faults, ms)
      s:disk(node, faults)
      local before = #said "a"
      local answer = table.pack(s:eval(node, "return append()"))
      s:run(ms or 10)
      return answer, { table.unpack(said "a", before + 1) }
    end
    local answer, lines = go { full = true }
    assert.same({ nil, "ENOSPC", "ENOSPC", nil, n = 4 }, answer)
    table.sort(lines)
    assert.same({ "put\tnil\tENOSPC", "synced\t0\tnil" }, lines)
    answer, lines = go { sync_ms = 5000 }
    assert.same({ true, nil, nil, nil, n = 4 }, answer)
    assert.same({}, lines)
    s:run(4980)
    assert.equal(2, #said "a")
    s:run(20)
    assert.equal(4, #said "a")
    answer, lines = go { fail_sync = "EIO" }
    assert.same({ true, nil, "EIO", nil, n = 4 }, answer)
    table.sort(lines)
    assert.same({ "put\tnil\tEIO", "synced\tnil\tEIO" }, lines)
    answer = go { fail = "EROFS" }
    assert.same({ nil, "EIO", "EROFS", "EROFS", n = 4 }, answer) -- The log's first failure stands.
    assert.same({ nil, "EIO", nil, nil, n = 4 }, (go()))
    assert.truthy(s:log():find("fault disk a full=true", 1, true))
    assert.truthy(s:log():find("fault disk a well", 1, true))
    assert.equal("new", s:read(node, "/home/node/file"))
  end)

  it("know a node's role", function ()
    new()
    assert.equal("worker", s:node({ role = "worker", start = false }).role)
    assert.is_nil(s:node({ name = "a", code = "" }).role)
  end)

  it("change addresses of machines that are down, and what their programs are told", function ()
    new { seed = 3 }
    local a = s:node { name = "a", role = "worker", dc = "x", start = false }
    local b = s:node { name = "b", code = RECEIVER }
    local a_ip, b_ip = a.ip, b.ip
    s:crash(a)
    assert.error.matches(function () s:readdress(a, b.ip) end, "sim:readdress: a: .*exists already")
    assert.error.matches(function () s:readdress(b, "10.0.9.9") end, "sim:readdress: b: Device or resource busy")
    assert.error.matches(function () s:readdress(a, "nowhere") end, "is not an address")
    s:crash(b)
    s:readdress(a, b_ip)
    assert.same({ b_ip, a_ip, b_ip .. ":7000" }, { a.ip, b.ip, a.address })
    assert.truthy(table.concat(a.argv, " "):find("--bind " .. b_ip .. ":7000", 1, true))
    s:restart(b)
    s:node { name = "c", code = SENDER, args = { a_ip, "5" } }
    s:run(50)
    assert.equal(5, #said "b")
  end)

  it("refuse what they cannot be", function ()
    new()
    s:node { name = "a", code = "" }
    for _, name in ipairs { "loss", "corrupt", "duplicate", "reorder" } do
      for _, bad in ipairs { -0.1, 1.1, 0 / 0 } do
        assert.error.matches(function () s:link("a", nil, { [name] = bad }) end, name .. ": expected 0 to 1")
        assert.error.matches(function () sim.new { [name] = bad } end, name .. ": expected 0 to 1")
      end
    end
    for _, name in ipairs { "bytes_per_s", "queue_bytes", "size_max" } do
      assert.error.matches(function () s:link("a", nil, { [name] = -1 }) end, name .. ": expected 0 or more, got %-1")
    end
    assert.error.matches(function () s:link("a", nil, { size_max = 1 << 32 }) end, "size_max: expected at most")
    assert.error.matches(function () s:link("a", nil, { corupt = 1 }) end, "sim:link: unknown option corupt")
    assert.error.matches(function () s:drift("a", 201) end, "drift: expected %-200 to 200 ppm")
    assert.error.matches(function () s:slow("a", -1) end, "slow: expected 0 to 10%^9 datagrams a second")
    assert.error.matches(function () s:slow("a", 1, -1) end, "slow: expected a queue")
    assert.error.matches(function () s:stall("a", -1) end, "stall: expected 0 or more")
    assert.error.matches(function () s:stall("nobody", 1) end, "there is no node 'nobody'")
    assert.error.matches(function () s:disk("a", { fail = "EOOPS" }) end, "fail: there is no code 'EOOPS'")
    assert.error.matches(function () s:disk("a", { fil = "EIO" }) end, "sim:disk: unknown option fil")
    assert.error.matches(function () s:disk("a", { sync_ms = -1 }) end, "sync_ns: expected 0 or more")
    assert.error.matches(function () s:clog("a", "nobody") end, "there is no node 'nobody'")
    assert.error.matches(function () s:step_wall("nobody", 1) end, "there is no node 'nobody'")
  end)
end)

describe("mistakes", function ()
  it("are named", function ()
    assert.error.matches(function () sim.new { sead = 1 } end, "unknown option sead")
    assert.error.matches(function () sim.new { loss = 2 } end, "loss: expected 0 to 1")
    new()
    assert.error.matches(function () s:node { name = "a" } end, "role, script, code or entry is missing")
    assert.error.matches(function () s:node { name = "a", code = "", rolle = 1 } end, "unknown option rolle")
    assert.error.matches(function () s:world("x", "nowhere") end, "is not an address")
    s:node { name = "a", code = "" }
    assert.error.matches(function () s:node { name = "a", code = "" } end, "exists already")
    assert.error.matches(function () s:start "a" end, "exists already")
    s:close()
    s:close()
    assert.error.matches(function () s:run(1) end, "this simulation is closed")
  end)
end)

describe("shoal sim", function ()
  local SHOAL = (os.getenv "SHOAL_BUILD" or "build/release") .. "/bin/shoal"

  local function shoal(words)
    local pipe = assert(io.popen(SHOAL .. " sim " .. words .. " 2>&1"))
    local out = pipe:read "a"
    local _, _, status = pipe:close()
    return status, out
  end

  it("runs the example: the job outlives a worker, the same for the same seed", function ()
    local status, out = shoal "examples/simulation.lua 3"
    assert.equal(0, status, out)
    assert.truthy(out:find("job shopping%S* completed"), out)
    assert.truthy(out:find("browse +completed +600 "), out)
    assert.truthy(out:find("lost: 1 attempts", 1, true), out)
    assert.equal(out, (select(2, shoal "examples/simulation.lua 3")))
  end)

  it("says what is wrong with the file", function ()
    local status, out = shoal "no-such-file.lua"
    assert.equal(2, status)
    assert.truthy(out:find("no-such-file.lua", 1, true))
  end)
end)
