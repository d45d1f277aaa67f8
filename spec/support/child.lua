--- Shared by the specs of exec and runner: attempts in real child processes, and checks of the process table.
local real = require "spec.support.real"
local runner = require "shoal.runner"
local task = require "shoal.task"
local uv = require "luv"

local child = {}

child.PROGRAM = (os.getenv "SHOAL_BUILD" or "build/release") .. "/bin/shoal"

--- Keep this lua5.4's preloaded sanitizer from the commands that are started here (the program links its own). Call it in `setup`; it
--- returns the function to call in `teardown`.
function child.without_preload()
  local preload = os.getenv "LD_PRELOAD"
  uv.os_unsetenv "LD_PRELOAD"
  return function () if preload then uv.os_setenv("LD_PRELOAD", preload) end end
end

--- Whether this process exists and is not a zombie.
function child.alive(pid)
  local file = io.open("/proc/" .. pid .. "/stat")
  if not file then return false end
  local text = file:read("a")
  file:close()
  local state = text:match("^%d+ %b() (%a)")
  return state ~= "Z" and state ~= "X"
end

--- Whether it ends within 5 s.
function child.gone(pid)
  local deadline = uv.hrtime() + 5000000000
  while child.alive(pid) do
    if uv.hrtime() > deadline then return false end
    if task.current() then task.sleep(5) else uv.sleep(5) end
  end
  return true
end

--- Process ids of a process's children, as text.
function child.children_of(pid)
  local file = assert(io.open(("/proc/%d/task/%d/children"):format(pid, pid)))
  local text = file:read("a")
  file:close()
  return text
end

function child.dispatch(work, more)
  local d = { job = "job-1", workflow = "w", part = "w/1", attempt = 1, fence = 7, work = work }
  for k, v in pairs(more or {}) do d[k] = v end
  return d
end

function child.script(text, more)
  local work = { script = { path = "w.lua", bytes = text }, vus = 1, iterations = 1, env = {} }
  for k, v in pairs(more or {}) do work[k] = v end
  return work
end

function child.command(line, more)
  local work = { command = { "sh", "-c", line }, parts = 1, env = {} }
  for k, v in pairs(more or {}) do work[k] = v end
  return work
end

--- Start an attempt. Returns the run and a future of its result.
function child.start(world, scope, d, on_progress, argv)
  local future, count = task.future("result"), 0
  local run = assert(runner.start(world, scope, d, on_progress, function (result)
    count = count + 1
    assert(count == 1, "two results")
    future:settle(result)
  end, { argv = argv or { child.PROGRAM, "exec" }, progress_ms = 20 }))
  return run, future
end

--- Run one attempt to its end.
function child.attempt(d, on_progress, argv)
  return real.run(function (world, scope)
    local _, future = child.start(world, scope, d, on_progress, argv)
    return future:await(15000)
  end)
end

return child
