--- The child process, with real processes: commands and scripts run by `shoal exec`.
local child = require "spec.support.child"
local frames = require "shoal.run.exec.frames"
local http = require "shoal.http"
local real = require "spec.support.real"
local stats = require "shoal.job.stats"
local task = require "shoal.task"
local uv = require "luv"

local attempt, command, dispatch, gone = child.attempt, child.command, child.dispatch, child.gone
local script, start = child.script, child.start

local restore
setup(function () restore = child.without_preload() end)
teardown(function () restore() end)

describe("a command", function ()
  it("runs, and its output and status come back", function ()
    local result = attempt(dispatch(command("echo out; echo err >&2; echo $SHOAL_JOB $SHOAL_PART $SHOAL_ATTEMPT $X", { env = { X = "x y" } })))
    assert.equal("completed", result.state)
    local run = result.stats.commands[1]
    assert.same({ 0, 0, "w/1#1" }, { run.status, run.signal, run.run })
    assert.matches("out\n", run.head)
    assert.matches("err\n", run.head)
    assert.matches("job%-1 w/1 1 x y\n", run.head)
    assert.equal(#run.head, run.bytes)
    assert.equal(1, result.summary.iterations)
  end)

  it("that exits with another status than 0 has failed, and says its last line", function ()
    local result = attempt(dispatch(command("echo fine; echo 'no such item' >&2; exit 3")))
    assert.equal("failed", result.state)
    assert.matches("the command exited with status 3: ", result.reason)
    assert.same({ command = 1 }, result.stats.errors)
    result = attempt(dispatch(command("kill -9 $$")))
    assert.matches("was killed by signal 9", result.reason)
    result = attempt(dispatch({ command = { "/no/such/program" }, parts = 1, env = {} }))
    assert.equal("failed", result.state)
    assert.matches("cannot be started: .*/no/such/program: No such file or directory %(ENOENT%)", result.reason)
    assert.is_nil(result.lost) -- Another worker would not find it either.
  end)

  it("that kills its parent does not kill the worker: the attempt is lost, and its group is killed", function ()
    local result = attempt(dispatch(command("kill -9 $PPID; exec sleep 300")))
    assert.equal("failed", result.state)
    assert.is_true(result.lost)
    assert.matches("was killed by signal 9, which shoal did not send", result.reason)
    result = attempt(dispatch(command("kill -TERM $PPID; kill -SEGV $PPID; exit 3"))) -- Only KILL ends its parent.
    assert.equal("the command exited with status 3", result.reason)
  end)

  it("runs as often as its share says, and stops at the first failure", function ()
    local result = attempt(dispatch(command("echo $SHOAL_RUN", { parts = 3 })))
    assert.equal(3, #result.stats.commands)
    assert.equal("3\n", result.stats.commands[3].head)
    result = attempt(dispatch(command("test $SHOAL_RUN -lt 2", { parts = 3 })))
    assert.equal("failed", result.state)
    assert.equal(2, #result.stats.commands)
  end)

  it("keeps the beginning and the end of much output, and counts all of it", function ()
    local result = attempt(dispatch(command("i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); done")))
    local run = result.stats.commands[1]
    assert.equal(64 * 1024, #run.head)
    assert.equal(64 * 1024, #run.tail)
    assert.matches("^line 0\n", run.head)
    assert.matches("line 39999\n$", run.tail)
    assert.equal(10 * 7 + 90 * 8 + 900 * 9 + 9000 * 10 + 30000 * 11, run.bytes)
  end)

  it("that lasts too long is ended at its limit, TERM first", function ()
    local endless = command("trap 'echo ending; exit 0' TERM; echo begun; while :; do sleep 0.05; done")
    local result = attempt(dispatch(endless, { timeout_ms = 1000 })) -- Enough to begin in.
    assert.equal("failed", result.state)
    assert.equal("not done after timeout_ms = 1000", result.reason)
    assert.matches("begun\n.*ending\n", result.stats.commands[1].head)
  end)

  it("that ignores TERM is killed 2 s later", function ()
    local began = uv.hrtime()
    local result = attempt(dispatch(command("trap '' TERM; while :; do sleep 0.05; done"), { timeout_ms = 1000 }))
    assert.equal("failed", result.state)
    assert.equal(9, result.stats.commands[1].signal)
    local took_ms = (uv.hrtime() - began) / 1000000
    assert(took_ms >= 3000 and took_ms < 8000, took_ms)
  end)

  it("leaves nothing of what it started in the background", function ()
    local result = attempt(dispatch(command("sleep 300 & echo $!; sh -c 'trap \"\" TERM HUP; sleep 301' & echo $!; exit 0")))
    assert.equal("completed", result.state)
    local pids = {}
    for pid in result.stats.commands[1].head:gmatch("%d+") do pids[#pids + 1] = pid end
    assert.equal(2, #pids)
    for _, pid in ipairs(pids) do assert(gone(pid), pid) end
  end)

  it("is cancelled: a result that says so, and no process", function ()
    local begun = os.tmpname()
    local result, pid = real.run(function (world, scope)
      local run, future = start(world, scope, dispatch(command("echo $$; echo begun > " .. begun .. "; sleep 300")))
      repeat task.sleep(20) until assert(world:read_file(begun)) ~= ""
      run:cancel("enough", 5000)
      run:cancel("enough", 5000)
      local r = future:await(10000)
      return r, r.stats.commands[1].head:match("%d+")
    end)
    os.remove(begun)
    assert.same({ "cancelled", "enough" }, { result.state, result.reason })
    assert(gone(pid))
  end)
end)

describe("a script", function ()
  it("F40: runs its iterations in a child, and its numbers agree with the server's", function ()
    local seen, progress = {}, 0
    local result = real.run(function (world, scope)
      local server <close> = assert(http.server(world, "127.0.0.1:0", function (r)
        seen[#seen + 1] = { r.headers["x-shoal-job"], r.headers["x-shoal-part"], r.headers["x-shoal-attempt"] }
        return { status = #seen % 10 == 0 and 500 or 200, delay_ms = 2 }
      end))
      local _, future = start(world, scope, dispatch(script([[
        return { vu = function (vu)
          local r = vu.http:get("/cart?x=" .. vu.iteration)
          vu:check("status 200", r and r.status == 200)
          vu:count("bought", 2)
        end }
      ]], { vus = 4, iterations = 100, env = { TARGET = "http://" .. server:address() } })), function () progress = progress + 1 end)
      return future:await(15000)
    end)
    assert.equal("completed", result.state, result.reason)
    assert.same({
      requests = 100, ok = 90, errors = 10, iterations = 100, bytes_in = 0, bytes_out = 0, checks_passed = 90, checks_failed = 10,
    }, result.summary)
    assert.equal(100, #seen)
    assert.same({ "job-1", "w/1", "1" }, seen[1])
    local summary = assert(stats.summary(result.stats))
    assert.equal("GET /cart", summary.by_name[1].name)
    assert.same({ { name = "status 200", passed = 90, failed = 10 } }, summary.checks)
    assert.same({ bought = 200 }, summary.counters)
    assert(summary.latency.p50_ms >= 2)
    assert(progress >= 1)
  end)

  it("that raises counts its errors, tells its incidents, and has failed when nothing went well", function ()
    local text = "local n = 0; return function (vu) n = n + 1; if n < 3 then error('oops ' .. n) end end"
    local result = attempt(dispatch(script(text, { iterations = 4 })))
    assert.equal("completed", result.state)
    assert.same({ script = 2 }, result.stats.errors)
    assert.equal(4, result.summary.iterations)
    assert.equal("exec.vu", result.incidents[1].site)
    assert.matches("^w.lua:1$", result.incidents[1].where)
    result = attempt(dispatch(script("return function (vu) local x = nil; x.y = 1 end", { iterations = 3 })))
    assert.equal("failed", result.state)
    assert.matches("every iteration failed: .*x", result.reason)
  end)

  it("that is no script has failed, and says where", function ()
    for text, reason in pairs {
      ["return {"] = "syntax: w.lua:1:", ["error('at load')"] = "at load", ["return 5"] = "returned a number",
      ["return { vu = 3 }"] = "vu is a number; expected a function", ["return { vus = 3 }"] = "unknown field vus",
      ["return { setup = function () error('no login') end, vu = function () end }"] = "setup: .*no login",
    } do
      local result = attempt(dispatch(script(text)))
      assert.equal("failed", result.state)
      assert.matches(reason, result.reason)
    end
  end)

  it("that never waits is killed when its time is up, and the worker says so", function ()
    local began = uv.hrtime()
    local result = attempt(dispatch(script("return function () while true do end end"), { timeout_ms = 100 }))
    assert.equal("failed", result.state)
    assert.matches("killed: not done 5000 ms after its timeout_ms = 100", result.reason)
    assert((uv.hrtime() - began) / 1000000 < 8000)
  end)

  it("that takes its own library apart does not take its child's", function ()
    local result = attempt(dispatch(script([[
      string.pack = nil
      for name in pairs(table) do table[name] = nil end
      for name in pairs(getmetatable("").__index) do getmetatable("").__index[name] = nil end
      return function (vu) vu:count("done") end]])))
    assert.equal("completed", result.state, result.reason)
    assert.same({ done = 1 }, result.stats.counters)
  end)

  it("is cancelled with what it has measured so far", function ()
    local result = real.run(function (world, scope)
      local ready = task.future("ready")
      local run, future = start(world, scope, dispatch(script("return function (vu) vu:sleep(1) end", { iterations = 1000000 })),
        function (summary) if summary.iterations > 5 then ready:settle(true) end end)
      ready:await(10000)
      run:cancel("enough")
      return future:await(10000)
    end)
    assert.same({ "cancelled", "enough" }, { result.state, result.reason })
    assert(result.summary.iterations > 5)
  end)

  it("speaks: print and vu:log come back as lines", function ()
    local result = attempt(dispatch(script("print('top', 1) return function (vu) vu:log('in ' .. vu.id) end")))
    assert.same({ "top\t1", "in 1" }, result.log)
  end)
end)

describe("frames", function ()
  local messages = { { type = "log", text = "hello" }, { type = "progress", record = { counts = { requests = 3 } } }, { type = "x" } }
  local bytes = ""
  for _, m in ipairs(messages) do bytes = bytes .. frames.encode(m) end

  it("arrive whole, in whatever pieces they come", function ()
    for size = 1, #bytes do
      local got = {}
      local feed = frames.reader(function (m) got[#got + 1] = m end)
      for at = 1, #bytes, size do assert(feed(bytes:sub(at, at + size - 1))) end
      assert.same(messages, got)
    end
  end)

  it("F70: mutated 10^4 times are messages, refused, or waited for", function ()
    local state, refused = 99, 0
    local function random(n)
      state = (state * 6364136223846793005 + 1442695040888963407) & 0xffffffffffffffff
      return (state >> 33) % n + 1
    end
    for _ = 1, 10000 do
      local at = random(#bytes)
      local text = bytes:sub(1, at - 1) .. string.char(random(256) - 1) .. bytes:sub(at + random(2))
      local feed = frames.reader(function (m) assert(type(m.type) == "string") end)
      local ok, err, code = feed(text)
      if not ok then
        refused = refused + 1
        assert.is_string(err)
        assert.equal("MALFORMED", code)
        assert.is_nil(feed(bytes)) -- Nothing after it is believed.
      end
    end
    assert(refused > 1000, refused)
  end)
end)
