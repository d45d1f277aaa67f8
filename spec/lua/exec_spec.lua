--- The child process and the worker's side of it, with real processes: `shoal exec` run by the runner.
local errors = require "shoal.errors"
local http = require "shoal.http"
local real = require "spec.support.real"
local runner = require "shoal.runner"
local stats = require "shoal.stats"
local task = require "shoal.task"
local uv = require "luv"

local PROGRAM = (os.getenv "SHOAL_BUILD" or "build/release") .. "/bin/shoal"

--- Is this process there? A zombie is not.
local function alive(pid)
  local file = io.open("/proc/" .. pid .. "/stat")
  if not file then return false end
  local text = file:read("a")
  file:close()
  local state = text:match("^%d+ %b() (%a)")
  return state ~= "Z" and state ~= "X"
end

local function gone(pid, limit_ms)
  local deadline = uv.hrtime() + (limit_ms or 5000) * 1000000
  while alive(pid) do
    if uv.hrtime() > deadline then return false end
    if task.current() then task.sleep(5) else uv.sleep(5) end
  end
  return true
end

local function children_of(pid)
  local file = assert(io.open(("/proc/%d/task/%d/children"):format(pid, pid)))
  local text = file:read("a")
  file:close()
  return text
end

-- A sanitizer that this lua5.4 was preloaded with is nothing for the commands that are started here (the program brings its own).
local preload = os.getenv "LD_PRELOAD"
setup(function () uv.os_unsetenv "LD_PRELOAD" end)
teardown(function () if preload then uv.os_setenv("LD_PRELOAD", preload) end end)

local function dispatch(work, more)
  local d = { job = "job-1", workflow = "w", part = "w/1", attempt = 1, fence = 7, work = work }
  for k, v in pairs(more or {}) do d[k] = v end
  return d
end

local function script(text, more)
  local work = { script = { path = "w.lua", bytes = text }, vus = 1, iterations = 1, env = {} }
  for k, v in pairs(more or {}) do work[k] = v end
  return work
end

local function command(line, more)
  local work = { command = { "sh", "-c", line }, parts = 1, env = {} }
  for k, v in pairs(more or {}) do work[k] = v end
  return work
end

--- Start an attempt; gives the run and a future of its result, which comes once.
local function start(world, scope, d, on_progress, argv)
  local future, count = task.future("result"), 0
  local run = assert(runner.start(world, scope, d, on_progress, function (result)
    count = count + 1
    assert(count == 1, "two results")
    future:settle(result)
  end, { argv = argv or { PROGRAM, "exec" }, progress_ms = 20 }))
  return run, future
end

--- One attempt to its end.
local function attempt(d, on_progress, argv)
  return real.run(function (world, scope)
    local _, future = start(world, scope, d, on_progress, argv)
    return future:await(15000)
  end)
end

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
    assert.matches("not found", result.reason)
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
    local result = attempt(dispatch(command("trap 'echo ending; exit 0' TERM; echo begun; while :; do sleep 0.05; done"), { timeout_ms = 300 }))
    assert.equal("failed", result.state)
    assert.equal("not done after timeout_ms = 300", result.reason)
    assert.matches("begun\n.*ending\n", result.stats.commands[1].head)
  end)

  it("that ignores TERM is killed 2 s later", function ()
    local began = uv.hrtime()
    local result = attempt(dispatch(command("trap '' TERM; while :; do sleep 0.05; done"), { timeout_ms = 100 }))
    assert.equal("failed", result.state)
    assert.equal(9, result.stats.commands[1].signal)
    local took_ms = (uv.hrtime() - began) / 1000000
    assert(took_ms >= 2000 and took_ms < 6000, took_ms)
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
    local result, pid = real.run(function (world, scope)
      local run, future = start(world, scope, dispatch(command("echo $$; sleep 300")))
      task.sleep(150)
      run:cancel("enough", 5000)
      run:cancel("enough", 5000)
      local r = future:await(10000)
      return r, r.stats.commands[1].head:match("%d+")
    end)
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
    assert.same({ requests = 100, ok = 90, errors = 10, iterations = 100, bytes_in = 0, bytes_out = 0 }, result.summary)
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

describe("a child that misbehaves", function ()
  local function fake(line) return attempt(dispatch(command("true")), nil, { "sh", "-c", line }) end

  it("by exiting at once is a failed result with its status and the end of stderr", function ()
    local result = fake("echo 'cannot load: libx' >&2; exit 7")
    assert.equal("failed", result.state)
    assert.equal("the child exited with status 7 before its result; its stderr ends: cannot load: libx", result.reason)
    assert.matches("before its result", fake("exit 0").reason)
  end)

  it("by dying of a signal says which", function ()
    assert.matches("the child was killed by signal 11", fake("kill -SEGV $$").reason)
  end)

  it("by writing garbage is killed and named", function ()
    for _, line in ipairs {
      "echo this is no frame, and it goes on; sleep 300", [[printf '\0\0\0\2\377\377'; sleep 300]], [[printf '\0\0\0\1\5'; sleep 300]],
      [[printf '\377\377\377\377'; sleep 300]], [[printf '\0\0\0\013\201\244type\244oops'; sleep 300]],
      [[printf '\0\0\0\015\201\244type\246result'; sleep 300]],
    } do
      local began = uv.hrtime()
      local result = fake(line)
      assert.equal("failed", result.state)
      assert.matches("the child wrote garbage: ", result.reason)
      assert((uv.hrtime() - began) / 1000000 < 3000)
    end
  end)

  it("that cannot be started is a refusal, and nobody is called", function ()
    real.run(function (world, scope)
      local called = false
      local run, err, code = runner.start(world, scope, dispatch(command("true")), nil, function () called = true end,
        { argv = { "/no/such" } })
      assert.is_nil(run)
      assert.is_string(err)
      assert.equal("ENOENT", code)
      task.sleep(10)
      assert.is_false(called)
      assert.equal("exec.spawn", errors.incidents()[1].site)
    end)
  end)

  it("that does not heed a cancel is killed at its deadline", function ()
    local result = real.run(function (world, scope)
      local run, future = start(world, scope, dispatch(command("true")), nil, { "sh", "-c", "trap '' TERM; sleep 300" })
      run:cancel("enough", 100)
      return future:await(5000)
    end)
    assert.equal("cancelled", result.state)
    assert.matches("^enough %(", result.reason)
  end)
end)

describe("nothing is left behind", function ()
  --- What the child's command wrote as its process ids.
  local function pids_of(path)
    local deadline = uv.hrtime() + 5000000000
    while uv.hrtime() < deadline do
      local file = io.open(path)
      local text = file and file:read("a") or ""
      if file then file:close() end
      local pids = {}
      for pid in text:gmatch("%d+") do pids[#pids + 1] = pid end
      if #pids >= 2 then return pids end
      if task.current() then task.sleep(5) else uv.sleep(5) end
    end
    error("the command did not begin")
  end

  local LINE = "echo $$ > FILE; sleep 300 & echo $! >> FILE; trap '' TERM HUP; while :; do sleep 0.1; done"

  it("F42: when the worker is killed: child, command and its background end", function ()
    local path = os.tmpname()
    local parent = assert(uv.spawn(PROGRAM, {
      args = { "lua", "spec/support/orphan.lua", PROGRAM, (LINE:gsub("FILE", path)) }, stdio = { nil, nil, 2 },
    }, function () end))
    local pids = pids_of(path)
    for _, pid in ipairs(pids) do assert.is_true(alive(pid)) end
    local child = assert(children_of(parent:get_pid()):match("%d+"), "the worker has no child")
    parent:kill("sigkill")
    assert(gone(child), "the child lives on")
    for _, pid in ipairs(pids) do assert(gone(pid), "the command lives on") end
    parent:close()
    uv.run("nowait")
    os.remove(path)
  end)

  it("when the child itself is killed", function ()
    local path = os.tmpname()
    local result, pids = real.run(function (world, scope)
      local run, future = start(world, scope, dispatch(command((LINE:gsub("FILE", path)))))
      local found = pids_of(path)
      uv.kill(run:pid(), "sigkill")
      return future:await(5000), found
    end)
    assert.equal("failed", result.state)
    assert.matches("killed by signal 9", result.reason)
    for _, pid in ipairs(pids) do assert(gone(pid), "the command lives on") end
    os.remove(path)
  end)

  it("when the worker's scope closes", function ()
    local path = os.tmpname()
    local pids = real.run(function (world, scope)
      local inner = task.scope("inner", scope)
      assert(runner.start(world, inner, dispatch(command((LINE:gsub("FILE", path)))), nil, function () error("told") end,
        { argv = { PROGRAM, "exec" } }))
      local found = pids_of(path)
      inner:close()
      return found
    end)
    for _, pid in ipairs(pids) do assert(gone(pid), "the command lives on") end
    os.remove(path)
  end)
end)
