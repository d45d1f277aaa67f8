--- A part's users in virtual time: the iterations, their times, and the counts. The network is a table here.
local errors = require "shoal.errors"
local fake_world = require "spec.support.fake_world"
local log = require "shoal.log"
local stats = require "shoal.job.stats"
local task = require "shoal.task"
local workflow = require "shoal.run.workflow"
local histogram = require "shoal.core.histogram"

local world, requests

--- A world whose every connection answers 200 after 5 ms.
local function with_network(w)
  function w.connect(_, _, handlers)
    local stream, closed = {}, false
    local function later(ms, fn)
      local timer
      timer = w:timer(function ()
        timer:close()
        if not closed then fn() end
      end)
      timer:start(ms)
    end
    function stream.write(_, bytes)
      requests[#requests + 1] = bytes
      later(5, function () handlers.on_read(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") end)
      return true
    end
    function stream.close() closed = true end
    later(1, function () handlers.on_open(stream) end)
    return stream
  end
  return w
end

before_each(function ()
  errors.reset()
  task.reset()
  requests = {}
  world = with_network(fake_world.new { seed = 7 })
  task.start(world)
  log.open(world, function () end)
end)

after_each(function ()
  task.stop()
  log.reset()
end)

--- Run a script to its end, or for a limit. Returns state, reason, record, lines.
local function run(text, work, limit_ms)
  work.script = { path = "w.lua", bytes = text }
  work.env = work.env or { TARGET = "http://127.0.0.1:80" }
  work.vus = work.vus or 1
  local recorder, scope, lines, out = stats.recorder(), task.scope("part"), {}, {}
  local began_ns = world:now_ns()
  task.scope("main"):spawn("exec.workflow", {}, function ()
    out.state, out.reason = workflow.run {
      world = world, scope = scope, recorder = recorder, job = "j", workflow = "w", part = "p", attempt = 2, work = work,
      log = function (line) lines[#lines + 1] = line end, zero_ns = began_ns, limit_ns = work.limit_ms and began_ns + work.limit_ms * 1000000,
    }
    out.took_ms = (world:now_ns() - began_ns) / 1000000
  end)
  world:run(limit_ms or 60000)
  if out.state then assert.equal(0, scope:count()) end -- No user is left.
  return out.state, out.reason, recorder:export(0), lines, out.took_ms
end

describe("iterations", function ()
  it("are shared by the users exactly, and numbered within the whole", function ()
    local state, reason, record, lines = run("return function (vu) vu:log(vu.iteration) vu:sleep(vu.id) end", { vus = 3, iterations = 20 })
    assert.equal("completed", state, reason)
    assert.equal(20, record.counts.iterations)
    local seen = {}
    for _, line in ipairs(lines) do seen[tonumber(line)] = (seen[tonumber(line)] or 0) + 1 end
    for n = 1, 20 do assert.equal(1, seen[n]) end
  end)

  it("of a share have the numbers that the share was given", function ()
    local _, _, _, lines = run("return function (vu) vu:log(vu.iteration) end", { iterations = 3, phase = 1, stride = 4 })
    assert.same({ "2", "6", "10" }, lines)
  end)

  it("go on until a duration has passed, and end what they began", function ()
    local _, _, record, _, took_ms = run("return function (vu) vu:sleep(30) end", { vus = 2, duration_ms = 100 })
    assert.equal(8, record.counts.iterations) -- Begun at 0, 30, 60, 90 ms by each of two.
    assert.equal(120, took_ms)
  end)

  it("that wait for nothing still let time pass", function ()
    local state, _, record = run("return function () end", { duration_ms = 50 })
    assert.equal("completed", state)
    assert.equal(50, record.counts.iterations)
  end)
end)

describe("an open loop", function ()
  it("begins each iteration when it is due, over all parts together", function ()
    local text = "local t; return function (vu) t = t or vu:now_ms(); vu:log(math.floor(vu:now_ms() - t + 0.5)) end"
    local _, _, _, lines = run(text, { vus = 2, iterations = 4, rate = 10.0, phase = 0, stride = 2 })
    assert.same({ "0", "200", "400", "600" }, lines)
  end)

  it("counts the wait for a free user, from when the iteration was due", function ()
    -- 100 a second for one user that needs 20 ms: the k-th is 10 ms * k late.
    local _, _, record = run("return function (vu) vu:sleep(20) end", { vus = 1, iterations = 10, rate = 100.0 })
    local h = assert(histogram.decode(record.own.iteration))
    assert.equal(20000000, h:min())
    assert.equal(20000000 + 9 * 10000000, h:max())
  end)

  it("adds it to the first request of the iteration only", function ()
    local text = [[return function (vu) vu.http:get("/a") vu.http:get("/b") vu:sleep(100) end]]
    local _, _, record = run(text, { iterations = 2, rate = 100.0 })
    local a, b = histogram.decode(record.latency["GET /a"]), histogram.decode(record.latency["GET /b"])
    assert.equal(111000000 - 10000000 + 5000000, a:max()) -- 1 connect + 2 * 5 + 100, due at 10.
    assert.equal(5000000, b:max())
  end)

  it("with a duration begins what is due before its end", function ()
    local _, _, record = run("return function (vu) end", { duration_ms = 100, rate = 100.0 })
    assert.equal(10, record.counts.iterations)
    assert.is_nil(record.counts.dropped)
  end)

  it("ends at its duration, and counts as dropped what was due and had not begun", function ()
    local text = "return function (vu) vu:sleep(200) end"
    local state, _, record, _, took_ms = run(text, { duration_ms = 1000, rate = 50.0 })
    assert.equal("completed", state)
    assert.equal(1000, took_ms) -- Begun at 0, 200, ... 800 ms: never the backlog.
    assert.equal(5, record.counts.iterations)
    assert.equal(45, record.counts.dropped)
    assert.equal(4, record.counts.late)
    for phase = 0, 2 do -- Each part accounts for its own share of the schedule: 17, 17 and 16 of 50.
      _, _, record = run(text, { duration_ms = 1000, rate = 50.0, phase = phase, stride = 3 })
      assert.equal(phase < 2 and 12 or 11, record.counts.dropped)
      assert.equal(17, record.counts.iterations + record.counts.dropped + (phase == 2 and 1 or 0))
    end
  end)

  it("charges a wait for a free user to the latency, and never to the raw one", function ()
    local text = [[return function (vu) vu.http:get("/a") vu:sleep(95) end]] -- 1 ms to connect once, 5 ms an answer.
    local _, _, record = run(text, { iterations = 10, rate = 20.0, vus = 1 })
    local latency, raw = histogram.decode(record.latency["GET /a"]), histogram.decode(record.raw["GET /a"])
    assert.equal(10, raw:count())
    assert.near(5000000, raw:quantile(0.5), 50000)
    assert.equal(5000000 + 9 * 50000000 + 1000000, latency:max())
    assert.equal(9, record.counts.late)
    assert.equal(20000, record.wanted_milli)
    local summary = assert(stats.summary(record))
    assert.near(10, summary.iterations_per_second, 0.2)
    assert.equal(20, summary.pace.wanted_per_second)
    assert.near(5, summary.raw_latency.p50_ms, 0.05)
    assert.is_nil(summary.pace.start_delay) -- No user was free in time.
  end)

  it("does not charge our own timer's delay to the server, and shows it", function ()
    local sleep = task.sleep
    local _ <close> = setmetatable({}, { __close = function () task.sleep = sleep end })
    function task.sleep(ms) -- A timer that fires up to 3 ms late.
      return sleep(ms > 50 and ms + 3 or ms)
    end
    local _, _, record = run([[return function (vu) vu.http:get("/a") end]], { iterations = 20, rate = 10.0 })
    local latency = histogram.decode(record.latency["GET /a"])
    assert.near(5000000, latency:quantile(0.9), 50000)
    assert.equal(3000000, histogram.decode(record.own.start_delay):max())
    assert.is_nil(record.counts.late)
  end)
end)

describe("the end of a duration", function ()
  local SLOW = "return function (vu) vu:sleep(15000) end"

  it("leaves an iteration that is under way graceful_ms, then ends it and counts it as interrupted", function ()
    local state, _, record, _, took_ms = run(SLOW, { duration_ms = 1000, graceful_ms = 2000, vus = 3 })
    assert.equal("completed", state)
    assert.equal(3000, took_ms)
    assert.equal(3, record.counts.interrupted)
    assert.equal(0, record.counts.iterations)
    _, _, record, _, took_ms = run(SLOW, { duration_ms = 1000, graceful_ms = 0 })
    assert.same({ 1000, 1 }, { took_ms, record.counts.interrupted })
  end)

  it("leaves it 30 s without graceful_ms, and less where the time limit comes before", function ()
    local _, _, record, _, took_ms = run(SLOW, { duration_ms = 1000 })
    assert.same({ 15000, 1 }, { took_ms, record.counts.iterations })
    _, _, record, _, took_ms = run("return function (vu) vu:sleep(45000) end", { duration_ms = 1000 })
    assert.same({ 31000, 1 }, { took_ms, record.counts.interrupted })
    local state
    state, _, record, _, took_ms = run(SLOW, { duration_ms = 1000, limit_ms = 8000 })
    assert.same({ "completed", 6000, 1 }, { state, took_ms, record.counts.interrupted })
    _, _, _, _, took_ms = run(SLOW, { duration_ms = 1000, limit_ms = 1500 }) -- No room: at the end of the duration.
    assert.equal(1000, took_ms)
  end)

  it("still runs teardown after an interrupted iteration", function ()
    local _, _, _, lines = run([[return { vu = function (vu) vu:sleep(99999) end, teardown = function (vu) vu:log("down") end }]],
      { duration_ms = 10, graceful_ms = 10 })
    assert.same({ "down" }, lines)
  end)
end)

describe("load", function ()
  it("begins after setup and ends before teardown, and their requests count apart", function ()
    local _, _, record, _, took_ms = run([[return {
      setup = function (vu) vu.http:get("/login") vu:sleep(2994) end,
      vu = function (vu) vu.http:get("/a") vu:sleep(5) end,
      teardown = function (vu) vu:sleep(2000) vu.http:get("http://127.0.0.1:80/logout") end,
    }]], { duration_ms = 1000 })
    assert.equal(3000 + 1001 + 2006, took_ms)
    assert.same({ { 3000000, 4001000 } }, record.load)
    assert.equal(100, record.counts.requests)
    assert.equal(2, record.counts.outside)
    assert.same({ ["(setup) GET /login"] = { ok = 1, failed = 0 }, ["(teardown) GET /logout"] = { ok = 1, failed = 0 } }, record.outside)
    assert.is_nil(record.requests["GET /login"])
    local summary = assert(stats.summary(record))
    assert.near(100, summary.requests_per_second, 0.2)
    assert.near(1001, summary.load_ms, 0.001)
    assert.equal(100, summary.latency.count)
    assert.equal("(setup) GET /login", summary.outside[1].name)
    assert.equal(6, summary.outside[1].max_ms)
  end)

  it("of an open loop that keeps up ends with its schedule", function ()
    local _, _, record = run("return function (vu) vu:sleep(300) end", { vus = 40, duration_ms = 1000, rate = 100.0 })
    assert.same({ { 0, 1000000 } }, record.load)
    _, _, record = run("return function (vu) vu:sleep(300) end", { vus = 40, iterations = 50, rate = 100.0, stride = 2, phase = 1 })
    assert.same({ { 0, 1000000 } }, record.load)
    assert.equal(50, assert(stats.summary(record)).iterations_per_second)
  end)

  it("of an open loop that falls behind ends with its last iteration", function ()
    local _, _, record = run("return function (vu) vu:sleep(100) end", { vus = 2, iterations = 100, rate = 100.0 })
    assert.same({ { 0, 5010000 } }, record.load) -- The second user began at 10 ms.
    assert.near(20, assert(stats.summary(record)).iterations_per_second, 0.05)
    assert.equal(98, record.counts.late)
  end)

  it("that a part never reached is none", function ()
    local state, _, record = run("return { setup = function () error('no') end, vu = function () end }", { duration_ms = 10 })
    assert.equal("failed", state)
    assert.is_nil(record.load)
    assert.equal(0, assert(stats.summary(record)).requests_per_second)
  end)
end)

describe("a name", function ()
  it("that is no text, or ours, is the script's error at its line, of whatever kind it is", function ()
    for call, want in pairs {
      ['vu.http:get("/", { name = 42 })'] = "vu.http:get: name: expected a string, found a number",
      ['vu.http:request { url = "/", name = {} }'] = "vu.http:request: name: expected a string, found a table",
      ['vu.http:get("/", { name = "GET / (redirect)" })'] = 'vu.http:get: the name "GET / (redirect)" ends as those of followed redirects',
      ['vu:check(42, true)'] = "vu:check: a name is text, found a number", ["vu:count(true)"] = "vu:count: a name is text, found a boolean",
      ["vu:time(nil, 4)"] = "vu:time: a name is text, found a nil", ['vu:check("(other)", true)'] = 'vu:check: the name "(other)" is ours',
      ['vu.http:get("/", { name = "(other)" })'] = 'vu.http:get: the name "(other)" is ours',
      ['vu:count("a", "b")'] = "vu:count: expected a whole number after the name, found b",
      ['vu:count("a", (1 << 53) + 1)'] = "vu:count: 9007199254740993 is beyond 2^53",
      ['json.encode { a = { 0/0 } }'] = "json.encode: a[1]: ", ["json.decode '{'"] = "json.decode: line 1, character 2: ",
      ['pcall(function () end) vu:check({}, true)'] = "vu:check: a name is text, found a table",
      ['vu:time("a", -1)'] = "vu:time: expected milliseconds after the name, found -1",
    } do
      local state, reason, record = run("return function (vu)\n  " .. call .. " vu:sleep(0) end", { iterations = 1 })
      assert.equal("failed", state)
      assert.equal("every iteration failed: w.lua:2: " .. want, (reason:gsub(":2:.*:2: ", ":2: "):sub(1, #want + 33)))
      assert.equal(0, record.counts.requests)
    end
  end)

  it("that is wrong in a tail call is told with the script's name, and the greatest count is taken", function ()
    local _, reason = run("return function (vu) return vu:check({}, true) end", { iterations = 1 })
    assert.equal("every iteration failed: w.lua: vu:check: a name is text, found a table", (reason:gsub("failed: .-: w", "failed: w")))
    local _, _, record = run("return function (vu) vu:count('a', 1 << 53) vu:count('b', -(1 << 53)) end", { iterations = 1 })
    assert.same({ a = 1 << 53, b = -(1 << 53) }, record.counters)
  end)

  it("of a counter has a sum of at most 2^53; past it the script hears so, and the sum stays what it was", function ()
    local text = [[return function (vu)
      vu:count("up", 1 << 53) vu:count("down", -(1 << 53))
      local up, why = pcall(vu.count, vu, "up", 1)
      local down, why_not = pcall(vu.count, vu, "down", -1)
      vu:count("down", 1)
      if up or down then error "taken" end
      vu:log(why) vu:log(why_not)
      vu:count("up", 1 << 53)
    end]]
    local state, reason, record = run(text, { iterations = 1 })
    assert.equal("failed", state)
    assert.matches('w.lua:8: vu:count: the sum of "up" would be 18014398509481984, beyond 2^53, and not exact', reason, 1, true)
    assert.same({ up = 1 << 53, down = 1 - (1 << 53) }, record.counters)
  end)

  it("of a script never meets one of ours", function ()
    local _, _, record = run([[return function (vu)
      vu:time("iteration", 7) vu:time("start_delay", 8) vu:count("requests", 5) vu:count("dropped", 3) vu:check("checks_failed", true)
      vu.http:get("/", { name = "(setup) GET /" })
    end]], { iterations = 1 })
    assert.equal(1, record.counts.requests)
    assert.is_nil(record.counts.dropped)
    assert.is_nil(record.counts.outside)
    assert.equal(7000000, histogram.decode(record.timers.iteration):max())
    assert.equal(6000000, histogram.decode(record.own.iteration):max())
    assert.is_nil(record.own.start_delay)
  end)
end)

describe("a request", function ()
  it("bears job, part and attempt, and is counted under its name", function ()
    local text = [[return function (vu)
      vu.http:get("/item/" .. vu.iteration, { name = "GET /item" })
      vu.http:post("/buy?x=" .. vu.iteration, { body = "b" })
      vu.http:get("http://127.0.0.1:80")
    end]]
    local _, _, record = run(text, { iterations = 3 })
    assert.equal(9, #requests)
    for _, bytes in ipairs(requests) do
      assert.matches("\r\nX%-Shoal%-Job: j\r\n", bytes)
      assert.matches("\r\nX%-Shoal%-Part: p\r\n", bytes)
      assert.matches("\r\nX%-Shoal%-Attempt: 2\r\n", bytes)
    end
    assert.same({ ["GET /item"] = { ok = 3, failed = 0 }, ["POST /buy"] = { ok = 3, failed = 0 }, ["GET /"] = { ok = 3, failed = 0 } },
      record.requests)
    assert.equal(18, record.counts.bytes_in)
  end)

  it("with names made up without end is counted under a last one", function ()
    local _, _, record = run([[return function (vu) for i = 1, 300 do vu.http:get("/" .. i) end end]], { iterations = 1 })
    assert.equal(100, record.requests["(other)"].ok)
    assert.equal(300, record.counts.requests)
  end)

  it("is counted under its name with more urls than are remembered, and longer ones", function ()
    local _, _, record = run([[return function (vu)
      for i = 1, 3201 do vu.http:get("/a?" .. i) end
      for i = 1, 2 do vu.http:get("/b?" .. ("x"):rep(998 + i)) end
    end]], { iterations = 1 })
    assert.same({ ["GET /a"] = { ok = 3201, failed = 0 }, ["GET /b"] = { ok = 2, failed = 0 } }, record.requests)
  end)

  it("may use any names, however many and long: 200 are kept, and no number is lost", function ()
    local state, _, record = run([[return function (vu)
      for i = 1, 1000 do
        local name = "\0\xff" .. ("n"):rep(300) .. i
        vu:check(name, i % 2 == 0)
        vu:count(name, 2)
        vu:time(name, 1)
        vu.http:get("/", { name = name })
      end
    end]], { iterations = 1 })
    assert.equal("completed", state)
    assert(stats.check(record))
    local names, n = 0, 0
    for _, entry in pairs(record.checks) do names, n = names + 1, n + entry.passed + entry.failed end
    assert.same({ 201, 1000 }, { names, n })
    assert.equal(1000, record.counts.requests)
  end)

  it("with the wrong arguments is the script's error, told where it stands", function ()
    local state, reason = run("return function (vu)\n vu.http:get(5) end", { iterations = 1 })
    assert.equal("failed", state)
    assert.matches("vu.http:get: url: expected a string, found a number", reason)
    assert.equal("w.lua:2", errors.incidents()[1].where)
    for _, text in ipairs {
      "vu:check()", "vu:count('a', 0.5)", "vu:count('a', '1')", "vu:count('a', false)", "vu:time('a')", "vu:time(1, 1)", "vu:sleep(-1)",
      "vu:random(0)", "vu:random(0.5)", "vu:random('x')", "vu.http:get('/', 3)", "vu.http:get()", "vu.http:get('/', { name = 5 })",
      "vu.http:request('/')", "vu.http:request({})", "vu.http:request({ url = '/', method = 1 })",
    } do
      local state_of_it, why = run("return function (vu) " .. text .. " end", { iterations = 1 })
      assert.equal("failed", state_of_it)
      assert.matches("^every iteration failed: w.lua:1: ", why, text)
    end
  end)
end)

describe("a user", function ()
  it("goes on after an error, a little later each time, and one that is well again starts over", function ()
    local text = [[local n = 0
      return function (vu) n = n + 1; vu:log(n); if n ~= 4 then error("no " .. n) end end]]
    local state, _, record, _, took_ms = run(text, { iterations = 6 })
    assert.equal("completed", state)
    assert.same({ script = 5 }, record.errors)
    assert.equal(6, record.counts.iterations)
    assert.equal(10 + 20 + 40 + 1 + 10 + 20, took_ms)
  end)

  it("has data from setup, env, chance of the node, and pcall that counts", function ()
    local text = [[
      return {
        setup = function (ctx) return { token = "t" .. ctx.id } end,
        vu = function (vu)
          local ok, err = pcall(error, "mine", 0)
          vu:log(vu.data.token .. " " .. vu.env.X .. " " .. env.X .. " " .. vu:random(1) .. " " .. tostring(ok) .. " " .. err)
          vu:time("thinking", 2.5)
        end,
        teardown = function (ctx) ctx:log("down") end,
      }]]
    local state, reason, record, lines = run(text, { iterations = 1, env = { X = "x" } })
    assert.equal("completed", state, reason)
    assert.same({ "t0 x x 1 false mine", "down" }, lines)
    assert.equal(2500000, histogram.decode(record.timers.thinking):max())
    assert.equal(0, #errors.incidents())
  end)

  it("has no way around the world", function ()
    local state, _, _, lines = run([[
      for _, name in ipairs { "io", "os", "require", "load", "loadfile", "dofile", "debug", "coroutine", "package" } do
        if _G[name] then print(name) end
      end
      return function () end]], { iterations = 1 })
    assert.equal("completed", state)
    assert.same({}, lines)
  end)
end)

describe("a script and the library", function ()
  it("have tables of their own: what a script does to its own harms nobody", function ()
    local text = [[
      string.pack, string.format, math.floor, utf8.char = nil, nil, nil, nil
      for name in pairs(table) do table[name] = nil end
      getmetatable("").__index.rep = nil
      _G.pairs, assert, error = nil, nil, nil
      return function (vu) vu:check("empty", next(table) == nil) vu:log(("x"):rep(3)) end]]
    local state, reason, record, lines = run(text, { iterations = 2 })
    assert.equal("completed", state, reason)
    assert.same({ empty = { passed = 2, failed = 0 } }, record.checks)
    assert.same({ "xxx", "xxx" }, lines)
    assert(string.pack and string.format and math.floor and utf8.char and table.concat and string.rep and pairs)
  end)

  it("two of one state do not see each other's", function ()
    run("string.mine = true; return function () end", { iterations = 1 })
    local _, _, _, lines = run("print(string.mine) return function () end", { iterations = 1 })
    assert.same({ "nil" }, lines)
  end)

  it("share the methods of strings, which a script can read and not change", function ()
    local _, _, _, lines = run([[
      getmetatable("").__index = {}
      print(("abc"):upper(), getmetatable("").__index == string, getmetatable({}), getmetatable(setmetatable({}, { __metatable = 5 })))
      return function () end]], { iterations = 1 })
    assert.same({ "ABC\ttrue\tnil\t5" }, lines)
  end)

  it("speak JSON, null included", function ()
    local _, _, _, lines = run([[
      print(json.encode({ a = json.null }), json.decode("[1, null]")[2] == json.null, json.other)
      return function () end]], { iterations = 1 })
    assert.same({ '{"a":null}\ttrue\tnil' }, lines)
  end)
end)

describe("a part", function ()
  it("closes its connections and ends its users with its scope", function ()
    local scope = task.scope("part")
    local ended
    task.scope("main"):spawn("exec.workflow", {}, function ()
      workflow.run {
        world = world, scope = scope, recorder = stats.recorder(), job = "j", workflow = "w", part = "p", attempt = 1, log = print,
        work = { vus = 5, duration_ms = 100000, env = { TARGET = "http://127.0.0.1:80" },
          script = { path = "w.lua", bytes = "return function (vu) vu.http:get('/') end" } },
      }
      ended = true
    end)
    world:run(50)
    assert.equal(5, scope:count())
    scope:close()
    world:run(1)
    assert.equal(0, scope:count())
    assert.is_true(ended) -- It still reports that users ended early.
  end)
end)

describe("the examples", function ()
  it("load, each of them", function ()
    local job = require "shoal.job"
    local disk = { read_file = function (_, path)
      local file = io.open(path, "rb")
      if not file then return nil, "no such file" end
      local text = file:read("a")
      file:close()
      return text
    end }
    for _, name in ipairs { "checkout.lua", "hello.lua", "batch.json" } do assert(job.load(disk, "examples/" .. name)) end
    local spec = assert(job.load(disk, "examples/checkout.lua", function () return "http://10.0.0.1" end))
    assert.equal("http://10.0.0.1", spec.workflows.buy.env.TARGET)
    assert.same({ "warm", "browse", "buy", "summary" }, job.order(spec))
    for _, name in ipairs { "warm", "browse", "buy" } do
      local w = spec.workflows[name]
      local state, reason = run(w.script.bytes, { vus = 2, iterations = 2 })
      assert.equal("completed", state, reason)
    end
  end)
end)
