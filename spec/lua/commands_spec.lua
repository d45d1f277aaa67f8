--- A part whose work is a command, in virtual time: its starts, stops, output and messages. No process is started here.
local errors = require "shoal.errors"
local fake_process = require "spec.support.fake_process"
local fake_world = require "spec.support.fake_world"
local log = require "shoal.log"
local runner = require "shoal.runner"
local stats = require "shoal.job.stats"
local task = require "shoal.task"

local world, processes, results, progress, scope, run

before_each(function ()
  errors.reset()
  task.reset()
  world = fake_world.new { seed = 7 }
  task.start(world)
  log.open(world, function () end)
  processes, results, progress, scope = fake_process.into(world), {}, {}, task.scope("spec")
end)

after_each(function ()
  task.stop()
  log.reset()
end)

local function start(work, more)
  local d = { job = "j", workflow = "w", part = "w/1", attempt = 2, fence = 7, work = { command = { "x" }, parts = 1, env = {} } }
  for k, v in pairs(work or {}) do d.work[k] = v end
  for k, v in pairs(more or {}) do d[k] = v end
  run = assert(runner.start(world, scope, d, function (counts) progress[#progress + 1] = counts.iterations end,
    function (r) results[#results + 1] = r end, { progress_ms = 100 }))
  world:run(0)
end

local function exit(n, status, signal)
  processes[n]:exit(status, signal)
  world:run(0)
end

it("runs one after the other, each with its names in the environment", function ()
  start { command = { "x", "y" }, parts = 2, env = { A = "b", SHOAL_RUN = "mine", SHOAL_JOB = "forged" } }
  assert.equal(1, #processes)
  assert.same({ "x", "y" }, processes[1].options.argv)
  local env = processes[1].options.env
  assert.matches("^%x+$", env.SHOAL_GUARD)
  env.SHOAL_GUARD = nil
  assert.same({ SHOAL_JOB = "j", SHOAL_WORKFLOW = "w", SHOAL_PART = "w/1", SHOAL_ATTEMPT = "2", SHOAL_RUN = "1", A = "b" }, env)
  local inherited = " " .. table.concat(processes[1].options.inherit, " ") .. " "
  assert.is_truthy(inherited:find(" PATH ", 1, true) and inherited:find(" LC_* ", 1, true))
  assert.is_nil(inherited:find("SHOAL", 1, true))
  assert.is_true(processes[1].options.group)
  exit(1)
  assert.equal(2, #processes)
  assert.same({ "running", 101 }, { run:state(), run:pid() })
  assert.equal(0, #results)
  exit(2)
  assert.same({ "completed", 2 }, { results[1].state, results[1].summary.iterations })
  assert.same({ "w/1#1", "w/1#2" }, { results[1].stats.commands[1].run, results[1].stats.commands[2].run })
  assert.equal("ended", run:state())
  assert.is_nil(run:pid())
end)

it("whose keeper killed what it left says what that was, and is closed before anything else is started", function ()
  start { parts = 2 }
  processes[1].left = { { pid = 7, command = "sleep 57" }, { pid = 8, command = "x" } }
  exit(1)
  assert.same({}, processes[1].signals)
  assert.is_true(processes[1].closed)
  processes[2].left = { { pid = 9, command = "y" } }
  exit(2, 1)
  assert.equal("2 processes: sleep 57 (pid 7), x (pid 8)", results[1].stats.commands[1].left)
  assert.equal("the command exited with status 1; what it left was ended: 1 process: y (pid 9)", results[1].reason)
end)

it("that was ended from outside, and not by us, is a lost attempt: the machine was short of memory, or ends us too", function ()
  for signal, lost in pairs { [9] = true, [15] = true, [11] = false } do
    errors.reset()
    results = {}
    start { parts = 3 }
    exit(#processes, 0, signal)
    assert.same({ "failed", lost, signal }, { results[1].state, results[1].lost or false, results[1].stats.commands[1].signal })
    assert.equal(lost and 1 or 0, errors.count("exec.child").raised)
  end
end)

it("that met its cpu limit has failed and is not lost, though the kernel sent a KILL", function ()
  start { limits = { cpu_s = 2 } }
  assert.same({ cpu_s = 2 }, processes[1].options.limits)
  processes[1].cpu_ms = 2000
  exit(1, 0, 9)
  assert.same({ "failed", "the command was ended by its cpu limit of 2 s" }, { results[1].state, results[1].reason })
  assert.is_nil(results[1].lost)
  start { limits = { memory = 1 << 20 } }
  exit(2, 3)
  assert.equal("the command exited with status 3 (under its memory limit of 1 MiB)", results[2].reason)
end)

it("ends at the first run that fails, and says how", function ()
  start { parts = 3 }
  processes[1]:say(1, "fine\nno such item\n")
  exit(1, 3)
  assert.equal(1, #processes)
  assert.same({ "failed", "the command exited with status 3: no such item" }, { results[1].state, results[1].reason })
  assert.same({ command = 1 }, results[1].stats.errors)
  assert.is_nil(results[1].lost)
end)

it("that killed its keeper is a lost attempt, an incident, and its group is killed", function ()
  start { parts = 3 }
  assert.is_true(processes[1].options.keeper)
  processes[1]:say(1, "about to kill my parent\n")
  exit(1, -1, 9)
  assert.equal(1, #processes)
  assert.same({ "failed", true }, { results[1].state, results[1].lost })
  assert.matches("^the command's keeper was killed by signal 9, which shoal did not send", results[1].reason)
  assert.same({}, results[1].stats.commands) -- Nobody knows how it ended.
  assert.equal(9, processes[1].signals[1])
  assert.is_true(processes[1].closed)
  assert.equal(1, errors.count("exec.child").raised)
end)

it("whose keeper our own KILL reached first has ended as we asked, and is not lost", function ()
  start {}
  run:cancel("enough", 100)
  world:run(100)
  exit(1, -1, 9)
  assert.same({ "cancelled", "enough" }, { results[1].state, results[1].reason })
  assert.is_nil(results[1].lost)
  assert.same({ 0, 9 }, { results[1].stats.commands[1].status, results[1].stats.commands[1].signal })
  assert.equal(0, errors.count("exec.child").raised)
end)

it("that cannot be started has failed by its own fault, or is lost by the machine's", function ()
  for code, lost in pairs { ENOENT = false, EACCES = false, E2BIG = false, ENOMEM = true, EAGAIN = true, EMFILE = true } do
    errors.reset()
    processes.refuse, results = { "spawn x: why", code }, {}
    start()
    assert.equal("failed", results[1].state)
    assert.equal("the command cannot be started: spawn x: why (" .. code .. ")", results[1].reason)
    assert.equal(lost, results[1].lost or false, code)
    assert.equal(lost and 1 or 0, #errors.incidents(), code)
  end
end)

it("is told to end by its cancel: TERM, and KILL 2 s later", function ()
  start { parts = 5 }
  run:cancel("enough")
  run:cancel("again")
  assert.same({ 15 }, processes[1].signals)
  world:run(1999)
  assert.same({ 15 }, processes[1].signals)
  world:run(1)
  assert.same({ 15, 9 }, processes[1].signals)
  exit(1, 0, 9)
  assert.same({ "cancelled", "enough" }, { results[1].state, results[1].reason })
  assert.equal(1, #processes)
end)

it("is killed when its cancel's deadline has passed; a later cancel may only bring it nearer", function ()
  start()
  run:cancel("enough", 1500)
  run:cancel("enough", 1800)
  run:cancel("enough", 1000)
  world:run(999)
  assert.same({ 15 }, processes[1].signals)
  world:run(1)
  assert.same({ 15, 9 }, processes[1].signals)
  world:run(5000)
  assert.same({ 15, 9 }, processes[1].signals)
  exit(1, 0, 9)
  run:cancel("late", 1)
  assert.equal("cancelled", results[1].state)
end)

it("is ended at its time limit and not 1 ms sooner, and has failed then, however it exits", function ()
  start(nil, { timeout_ms = 1000 })
  world:run(999)
  assert.same({}, processes[1].signals)
  world:run(1)
  assert.same({ 15 }, processes[1].signals)
  exit(1, 0)
  assert.same({ "failed", "not done after timeout_ms = 1000" }, { results[1].state, results[1].reason })
  assert.equal(1, results[1].summary.iterations)
end)

it("that is still there long after a KILL is given up, and that is an incident", function ()
  start(nil, { timeout_ms = 1000 })
  world:run(1000 + 2000 + 9999)
  assert.equal(0, #results)
  world:run(1)
  world:run(1000) -- Its pipes.
  world:run(1)
  assert.equal("failed", results[1].state)
  assert.equal("exec.kill", errors.incidents()[1].site)
  assert.matches("still there 10000 ms after it was killed", errors.incidents()[1].message)
  assert.is_true(processes[1].closed)
end)

it("waits a second for output after the exit, and no longer", function ()
  start()
  processes[1].options.on_exit(0, 0)
  world:run(0)
  assert.same({}, processes[1].signals)
  world:run(500)
  processes[1]:say(1, "late")
  world:run(499)
  assert.equal(0, #results)
  world:run(1)
  assert.equal("late", results[1].stats.commands[1].head)
end)

it("keeps the beginning and the end of its output, whatever the pieces", function ()
  for _, size in ipairs { 1, 7, 1000, 65536 } do
    start()
    local all = {}
    for n = 1, 200000 // size do
      local piece = (tostring(n) .. ";"):rep(size):sub(1, size)
      all[n] = piece
      processes[#processes]:say(1 + n % 2, piece)
    end
    local text = table.concat(all)
    exit(#processes)
    local kept = results[#results].stats.commands[1]
    assert.equal(#text, kept.bytes)
    assert(kept.head == text:sub(1, 65536), size)
    assert(kept.tail == text:sub(-math.min(65536, #text - 65536)), size)
  end
end)

it("that floods its output is read within a ration, all commands of a worker together", function ()
  start()
  start()
  local taken = 0
  local function flood(p)
    local before = taken
    for _ = 1, 100 do
      if not p.streams[1].reading then break end
      p:say(1, ("x"):rep(65536))
      taken = taken + 1
    end
    return taken - before
  end
  assert.equal(26, flood(processes[1])) -- 2 MiB, of 64 KiB and the cost of a read each.
  assert.equal(1, flood(processes[2]))
  assert.is_false(processes[1].streams[2].reading)
  world:run(19)
  assert.is_false(processes[1].streams[1].reading)
  world:run(1)
  assert.is_true(processes[1].streams[1].reading and processes[2].streams[1].reading)
  assert.equal(26, flood(processes[2]))
  exit(1)
  exit(2)
  assert.same({ "completed", "completed" }, { results[1].state, results[2].state })
end)

it("of thousands of runs holds no more output than a result may have", function ()
  local most = 0
  processes.on_spawn = function (p)
    local gone = processes[#processes - 1]
    if gone then gone.options, gone.streams = nil, nil end -- Its memory is not measured here.
    world:timer(function ()
      p:say(1, ("x"):rep(60000))
      p:exit(0)
      if #processes % 50 == 0 then
        collectgarbage()
        most = math.max(most, collectgarbage "count")
      end
    end):start(1)
  end
  collectgarbage()
  local before = collectgarbage "count"
  start { parts = 1000 }
  world:run(10000)
  assert.equal("completed", results[1].state)
  assert.equal(1000, results[1].summary.iterations)
  assert(most - before < 8 * 1024, most - before) -- KiB; 60 MB were written.
  local total = 0
  for _, r in ipairs(results[1].stats.commands) do total = total + #r.head + #r.tail end
  assert(total <= stats.OUTPUT_MAX)
  assert(results[1].stats.cut.output_bytes > 50 * 1000 * 1000, results[1].stats.cut.output_bytes)
end)

it("tells its progress", function ()
  start { parts = 2 }
  world:run(250)
  exit(1)
  world:run(100)
  exit(2)
  world:run(1000)
  assert.same({ 0, 0, 1 }, progress)
end)

it("is lost and not run again when the part's own task fails after its end", function ()
  local fit, raised = stats.fit, 0
  stats.fit = function ()
    raised = raised + 1
    error "no memory for the record"
  end
  local _ <close> = setmetatable({}, { __close = function () stats.fit = fit end })
  start()
  exit(1)
  world:run(60000)
  assert.same({ 1, 1, 1 }, { #processes, raised, #results })
  assert.same({ "failed", true, "the part's own task failed" }, { results[1].state, results[1].lost, results[1].reason })
  assert.equal("ended", run:state())
  assert.equal(0, task.counts().tasks)
end)

it("leaves nothing open, and nobody is called, when its scope closes", function ()
  local before = world.open
  start(nil, { timeout_ms = 1000 })
  run:cancel("enough", 100)
  scope:close()
  world:run(0)
  assert.equal(9, processes[1].signals[#processes[1].signals])
  assert.is_true(processes[1].closed)
  assert.equal(before, world.open)
  world:run(10000)
  assert.same({}, results)
end)
