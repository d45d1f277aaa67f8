--- The worker's side of a child process: every child gives one result, and no death leaves a process behind.
local child = require "spec.support.child"
local errors = require "shoal.errors"
local real = require "spec.support.real"
local runner = require "shoal.runner"
local task = require "shoal.task"
local uv = require "luv"

local alive, attempt, children_of, command = child.alive, child.attempt, child.children_of, child.command
local dispatch, gone, script, start, PROGRAM = child.dispatch, child.gone, child.script, child.start, child.PROGRAM

--- For children that are not ours: their work does not matter.
local any = function () return dispatch(script("return function () end")) end

local restore
setup(function () restore = child.without_preload() end)
teardown(function () restore() end)

describe("a child that misbehaves", function ()
  local function fake(line) return attempt(any(), nil, { "sh", "-c", line }) end

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
      local run, err, code = runner.start(world, scope, any(), nil, function () called = true end,
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
      local run, future = start(world, scope, any(), nil, { "sh", "-c", "trap '' TERM; sleep 300" })
      run:cancel("enough", 100)
      return future:await(5000)
    end)
    assert.equal("cancelled", result.state)
    assert.matches("^enough %(", result.reason)
  end)
end)

describe("nothing is left behind", function ()
  --- The process ids that the child's command wrote.
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

  --- A process that runs one command or script, as a worker does. With on_text, that gets what it writes on stderr.
  local function worker(kind, text, on_text)
    local stderr = on_text and uv.new_pipe()
    local handle = assert(uv.spawn(PROGRAM, {
      args = { "lua", "spec/support/orphan.lua", kind, text }, stdio = { nil, nil, stderr or 2 },
    }, function () end))
    if stderr then
      stderr:read_start(function (_, bytes)
        if bytes then on_text(bytes) else stderr:close() end
      end)
    end
    return handle
  end

  --- The child of a process whose command line has this word; waits for it.
  local function child_of(parent, word)
    local deadline = uv.hrtime() + 5000000000
    while uv.hrtime() < deadline do
      for pid in children_of(parent):gmatch("%d+") do
        local file = io.open("/proc/" .. pid .. "/cmdline")
        local text = file and file:read("a") or ""
        if file then file:close() end
        if text:find("\0" .. word .. "\0", 1, true) then return tonumber(pid) end
      end
      if task.current() then task.sleep(5) else uv.sleep(5) end
    end
    error("there is no child " .. word)
  end

  local function end_of(parent)
    parent:kill("sigkill")
    parent:close()
    uv.run("nowait")
  end

  it("F42: when the worker is killed: command, its background and the guard end", function ()
    local path = os.tmpname()
    local parent = worker("command", (LINE:gsub("FILE", path)))
    local pids = pids_of(path)
    for _, each in ipairs(pids) do assert.is_true(alive(each)) end
    local guard = child_of(parent:get_pid(), "guard")
    end_of(parent)
    assert(gone(guard), "the guard lives on")
    for _, each in ipairs(pids) do assert(gone(each), "the command lives on") end
    os.remove(path)
  end)

  it("when the worker is killed: a script that never waits ends", function ()
    local parent = worker("script", "return function () while true do end end")
    local pid = child_of(parent:get_pid(), "exec")
    end_of(parent)
    assert(gone(pid), "the script runs on")
  end)

  it("when the guard was killed before the worker: there is another, and it knows what runs", function ()
    local path = os.tmpname()
    local text = ""
    local parent = worker("command", (LINE:gsub("FILE", path)), function (bytes) text = text .. bytes end)
    local pids = pids_of(path)
    local first = child_of(parent:get_pid(), "guard")
    uv.kill(first, "sigkill")
    local deadline = uv.hrtime() + 10000000000
    while not text:find "exec.guard" do -- Reported when another one runs.
      assert(uv.hrtime() < deadline, "the loss of the guard was not reported")
      uv.run "nowait"
      uv.sleep(5)
    end
    local second = child_of(parent:get_pid(), "guard")
    assert.is_true(alive(pids[1]) and alive(pids[2]))
    end_of(parent)
    for _, each in ipairs(pids) do assert(gone(each), "the command lives on") end
    assert(gone(second), "the guard lives on")
    os.remove(path)
  end)

  it("when the guard is killed: that is an incident, and what ran and what comes next runs well", function ()
    local state, last = real.run(function (world, scope)
      local _, future = start(world, scope, dispatch(command("sleep 0.3")))
      uv.kill(child_of(uv.os_getpid(), "guard"), "sigkill")
      local first = future:await(5000)
      local _, next_one = start(world, scope, dispatch(command("true")))
      return first.state, next_one:await(5000).state
    end)
    assert.same({ "completed", "completed" }, { state, last })
    assert.equal("exec.guard", errors.incidents()[1].site)
    assert.matches("the guard ended with status 0, signal 9", errors.incidents()[1].message)
    assert.equal(1, #errors.incidents())
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
      assert(runner.start(world, inner, dispatch(command((LINE:gsub("FILE", path)))), nil, function () error("told") end))
      local found = pids_of(path)
      inner:close()
      return found
    end)
    for _, pid in ipairs(pids) do assert(gone(pid), "the command lives on") end
    os.remove(path)
  end)
end)
