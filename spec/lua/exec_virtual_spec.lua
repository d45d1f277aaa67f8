--- A child's end, a worker's deadlines and a part's commands, in virtual time: no process is started here.
local errors = require "shoal.errors"
local exec = require "shoal.run.exec"
local fake_process = require "spec.support.fake_process"
local fake_world = require "spec.support.fake_world"
local frames = require "shoal.run.exec.frames"
local log = require "shoal.log"
local runner = require "shoal.runner"
local stats = require "shoal.job.stats"
local task = require "shoal.task"

local world

before_each(function ()
  errors.reset()
  task.reset()
  world = fake_world.new { seed = 7 }
  task.start(world)
  log.open(world, function () end)
end)

after_each(function ()
  task.stop()
  log.reset()
end)

local function sites()
  local out = {}
  for _, incident in ipairs(errors.incidents()) do out[#out + 1] = incident.site end
  return out
end

local function dispatch(work, more)
  local d = { job = "j", workflow = "w", part = "w/1", attempt = 2, fence = 7, work = work }
  for k, v in pairs(more or {}) do d[k] = v end
  return d
end

local SCRIPT = { script = { path = "w.lua", bytes = "return function (vu) vu:count('x') end" }, vus = 1, iterations = 1, env = {} }

describe("a child that has its result", function ()
  local ends, exits

  --- Run a script to its end with a worker that takes nothing.
  local function finish(script)
    ends, exits = fake_process.stdio(world), {}
    exec.serve { world = world, exit = function (status) exits[#exits + 1] = status end }
    local work = script and { script = { path = "w.lua", bytes = script }, vus = 1, iterations = 1, env = {} } or SCRIPT
    ends[1].waiting = 1
    ends[0].handlers.on_read(ends[0], frames.encode {
      type = "start", job = "j", workflow = "w", part = "w/1", attempt = 1, fence = 1, work = work, progress_ms = 100,
    })
    world:run(1000)
  end

  --- The messages it wrote, by type.
  local function written()
    local out = {}
    assert(frames.reader(function (m) out[m.type] = m end)(ends[1].bytes))
    return out
  end

  it("keeps it as long as the worker's end is open, and leaves when it was taken", function ()
    finish()
    world:run(3600000)
    assert.same({}, exits)
    assert.equal("completed", written().result.state)
    ends[1].waiting = 0
    ends[1].handlers.on_drain(ends[1])
    world:run(1)
    assert.same({ 0 }, exits)
  end)

  it("leaves with a status of its own when the worker goes before it was taken", function ()
    finish()
    ends[0].handlers.on_end(ends[0])
    assert.same({ 3 }, exits)
    finish()
    ends[1].handlers.on_end(ends[1])
    assert.same({ 3 }, exits)
  end)

  it("leaves with 0 when it was taken, though the worker closes its end first", function ()
    finish()
    ends[1].waiting = 0
    ends[1].handlers.on_drain(ends[1])
    ends[0].handlers.on_end(ends[0])
    world:run(1)
    assert.same({ 0 }, exits)
  end)

  it("says no more progress while the worker does not read", function ()
    finish "return function (vu) vu:sleep(100000) end"
    assert.is_nil(written().progress)
    ends[1].waiting = 0
    world:run(101)
    assert.is_table(written().progress)
  end)

  it("cuts a reason and incidents to what can be handed on", function ()
    finish "return function (vu) error(('x'):rep(100000), 0) end"
    local result = written().result
    assert.equal("failed", result.state)
    assert.equal(2000, #result.reason)
    assert.matches("%.%.%.$", result.reason)
    assert.equal(2000, #result.incidents[1].message)
    assert(#ends[1].bytes < 10000)
  end)

  it("hands on at most a part's result, and says what was cut", function ()
    finish [[return function (vu)
      for i = 1, 200 do
        local name = ("name %03d "):format(i) .. ("n"):rep(150)
        for v = 1, 5000 do vu:time(name, 1e-6 * 1.008 ^ v) end
        vu:check(("check %03d "):format(i) .. ("n"):rep(150), true)
      end
    end]]
    local result = written().result
    assert.equal("completed", result.state)
    assert(#ends[1].bytes <= stats.PART_MAX + 4096)
    assert(result.record.timers["(other)"])
    assert(result.record.cut.names > 0)
  end)
end)

describe("a worker that was not run", function ()
  local processes, results, run

  local function start(more, work)
    processes, results = fake_process.into(world), {}
    run = assert(runner.start(world, task.scope("spec"), dispatch(work or SCRIPT, more), nil, function (r) results[#results + 1] = r end))
    world:run(0)
  end

  --- The world's time passes, and none of our code runs.
  local function pause(ms) world.time_ns = world.time_ns + ms * 1000000 end

  local RESULT = frames.encode { type = "result", state = "completed", record = { counts = { iterations = 1 } }, incidents = {} }

  it("lets what came meanwhile be read before it kills for its time", function ()
    start { timeout_ms = 1000 }
    pause(20000)
    world:run(1) -- Timers come first.
    assert.same({}, processes[1].signals)
    processes[1]:say(1, RESULT)
    processes[1]:exit(0)
    world:run(10000)
    assert.same({ 1, "completed" }, { #results, results[1].state })
    assert.same({}, sites())
  end)

  it("kills what is not done then", function ()
    start { timeout_ms = 1000 }
    pause(20000)
    world:run(2001)
    assert.equal(9, processes[1].signals[1])
    processes[1]:exit(0, 9)
    world:run(1)
    assert.equal("failed", results[1].state)
    assert.matches("^killed: not done 5000 ms after its timeout_ms = 1000", results[1].reason)
    assert.is_nil(results[1].lost) -- Another attempt would hang as well.
  end)

  it("kills on time when it was run: not 1 ms sooner", function ()
    start { timeout_ms = 1000 }
    world:run(5999)
    assert.same({}, processes[1].signals)
    world:run(1)
    assert.same({ 9 }, processes[1].signals)
  end)

  it("lets a command that ended in time have ended well", function ()
    start({ timeout_ms = 1000 }, { command = { "true" }, parts = 1, env = {} })
    pause(20000)
    world:run(1)
    assert.same({}, processes[1].signals)
    processes[1]:exit(0)
    world:run(10000)
    assert.same({ 1, "completed" }, { #results, results[1].state })
  end)

  it("loses an attempt whose child went without a result, unless it killed it", function ()
    start()
    processes[1]:exit(3)
    world:run(1)
    assert.same({ "failed", true }, { results[1].state, results[1].lost })
    assert.equal("the child exited with status 3 before its result", results[1].reason)
    start()
    processes[1]:exit(0, 9)
    world:run(1)
    assert.same({ "failed", true }, { results[1].state, results[1].lost })
    start()
    run:cancel("enough", 100)
    processes[1]:exit(0, 9)
    world:run(1)
    assert.same({ "cancelled" }, { results[1].state, results[1].lost })
    start()
    processes[1]:say(1, "this is no frame at all")
    processes[1]:exit(0, 9)
    world:run(1)
    assert.same({ "failed" }, { results[1].state, results[1].lost })
    assert.matches("garbage", results[1].reason)
  end)

  it("F62: kills at the deadline of its cancel; a later cancel brings that nearer, and never puts it off", function ()
    start()
    run:cancel("a", 5000)
    world:run(1000)
    run:cancel("b", 1000) -- At 2000.
    run:cancel("c", 60000)
    run:cancel "d"
    world:run(999)
    assert.same({}, processes[1].signals)
    world:run(1)
    assert.same({ 9 }, processes[1].signals)
    processes[1]:exit(0, 9)
    world:run(1)
    assert.same({ "cancelled", true }, { results[1].state, results[1].reason:find("^a ") ~= nil })
  end)

  it("F62: the same of a command, and no run of it begins after that", function ()
    start(nil, { command = { "true" }, parts = 3, env = {} })
    run:cancel("a", 1500)
    assert.same({ 15 }, processes[1].signals)
    world:run(100)
    run:cancel("b", 400) -- At 500.
    run:cancel("c", 60000)
    world:run(399)
    assert.same({ 15 }, processes[1].signals)
    world:run(1)
    assert.same({ 15, 9 }, processes[1].signals)
    start(nil, { command = { "true" }, parts = 3, env = {} })
    run:cancel("a", 1500)
    processes[1]:exit(0)
    world:run(3000)
    assert.same({ 1, "cancelled" }, { #processes, results[1].state })
  end)

  it("closes all of an attempt when it has ended", function ()
    local before = world.open
    start { timeout_ms = 1000 }
    run:cancel("a", 5000)
    run:cancel("b", 100)
    processes[1]:say(1, RESULT)
    processes[1]:exit(0)
    world:run(10000)
    assert.equal(before, world.open)
    assert.equal("ended", run:state())
  end)

  it("gives up a child that holds its pipes open after its exit", function ()
    start()
    processes[1]:say(1, RESULT)
    processes[1].options.on_exit(0, 0)
    world:run(999)
    assert.equal(0, #results)
    world:run(1)
    assert.equal("completed", results[1].state)
  end)
end)

describe("what a child says", function ()
  local function verdict(message)
    local processes, results = fake_process.into(world), {}
    assert(runner.start(world, task.scope("spec"), dispatch(SCRIPT), nil, function (r) results[#results + 1] = r end))
    processes[1]:say(1, frames.encode(message))
    processes[1]:exit(0, 9)
    world:run(1)
    assert.equal(1, #results)
    return results[1]
  end

  local function result(more)
    local m = { type = "result", state = "completed", record = { counts = {} }, incidents = {} }
    for k, v in pairs(more) do m[k] = v end
    return m
  end

  local INCIDENT = { id = "n-1", node = "n", site = "s", level = "error", message = "m" }
  local function incident(more)
    local i = {}
    for k, v in pairs(INCIDENT) do i[k] = v end
    for k, v in pairs(more) do i[k] = v end
    return { i }
  end

  it("is taken when all of it is as it should be", function ()
    local r = verdict(result { incidents = incident { where = "w.lua:1", count = 2 }, reason = ("r"):rep(4096) })
    assert.equal("completed", r.state)
    assert.equal("n-1", r.incidents[1].id)
    assert.equal("completed", verdict(result { incidents = incident { id = 5 } }).state)
  end)

  it("is its first result, whatever follows", function ()
    local processes, results = fake_process.into(world), {}
    assert(runner.start(world, task.scope("spec"), dispatch(SCRIPT), nil, function (r) results[#results + 1] = r end))
    processes[1]:say(1, frames.encode(result {}))
    processes[1]:say(1, frames.encode(result { state = "failed", reason = "after all" }))
    processes[1]:exit(0)
    world:run(1)
    assert.same({ 1, "completed" }, { #results, results[1].state })
  end)

  it("is garbage when anything of it is not", function ()
    local many = {}
    for n = 1, stats.INCIDENTS_MAX + 1 do many[n] = INCIDENT end
    for name, more in pairs {
      state = { state = "done" }, reason = { reason = 5 }, ["long reason"] = { reason = ("r"):rep(4097) }, record = { record = 5 },
      ["no counts"] = { record = {} }, counts = { record = { counts = { requests = "5" } } },
      histogram = { record = { counts = {}, latency = { a = "no histogram" } } },
      command = { record = { counts = {}, commands = { { run = "x", head = 5 } } } }, incidents = { incidents = { 5 } },
      hole = { incidents = { a = INCIDENT } }, message = { incidents = incident { message = 5 } }, id = { incidents = incident { id = {} } },
      where = { incidents = incident { where = 5 } }, count = { incidents = incident { count = -1 } }, many = { incidents = many },
    } do
      local r = verdict(result(more))
      assert.equal("failed", r.state, name)
      assert.matches("garbage: a \"result\"", r.reason, name)
    end
    assert.matches("garbage", verdict({ type = "log", text = 5 }).reason)
    assert.matches("garbage", verdict({ type = "progress", record = { counts = { a = {} } } }).reason)
    assert.matches("garbage", verdict({ type = "start" }).reason)
  end)

  it("as lines is kept from the last on, and what is not is counted", function ()
    local processes, results = fake_process.into(world), {}
    assert(runner.start(world, task.scope("spec"), dispatch(SCRIPT), nil, function (r) results[#results + 1] = r end))
    for n = 1, 203 do processes[1]:say(1, frames.encode { type = "log", text = "line " .. n }) end
    processes[1]:say(1, frames.encode(result { log_lines_dropped = 7 }))
    processes[1]:exit(0)
    world:run(1)
    local kept = results[1].stats.commands[1] -- C6: what it prints is in its result too.
    assert.equal("w/1", kept.run)
    assert.is_nil(kept.status)
    assert.matches("^line 1\nline 2\n", kept.head)
    assert.matches("line 203\n%(7 later lines were not sent by the child%)\n$", kept.head)
    assert.equal(#kept.head, kept.bytes)
    local lines = results[1].log
    assert.equal("(3 earlier lines are not kept)", lines[1])
    assert.equal("line 4", lines[2])
    assert.equal("(7 later lines were not sent by the child)", lines[#lines])
  end)
end)

describe("frames", function ()
  it("of FRAME_MAX are taken, and one byte more is refused before it came", function ()
    local body = frames.FRAME_MAX - #require("shoal.core.msgpack").pack { type = "log", text = ("x"):rep(70000) } + 70000
    local bytes = frames.encode { type = "log", text = ("x"):rep(body) }
    assert.equal(frames.FRAME_MAX + 4, #bytes)
    local got
    local feed = frames.reader(function (m) got = m end)
    for at = 1, #bytes, 65536 do assert(feed(bytes:sub(at, at + 65535))) end
    assert.equal(body, #got.text)
    local ok, err, code = frames.reader(error)(string.pack(">I4", frames.FRAME_MAX + 1))
    assert.is_nil(ok)
    assert.equal("MALFORMED", code)
    assert.matches("a frame of 4194305 bytes; at most 4194304", err)
  end)

  it("are joined once: the bytes copied grow as the frame does", function ()
    local count, concat = 0, table.concat
    local bytes = frames.encode { type = "log", text = ("x"):rep(1000000) }
    table.concat = function (list, ...) -- luacheck: ignore
      count = count + #list
      return concat(list, ...)
    end
    local free <close> = setmetatable({}, { __close = function () table.concat = concat end }) -- luacheck: ignore
    local got = 0
    local feed = frames.reader(function () got = got + 1 end)
    for at = 1, #bytes, 1000 do assert(feed(bytes:sub(at, at + 999))) end
    assert.equal(1, got)
    assert(count <= 1001 + 10, count)
  end)
end)
