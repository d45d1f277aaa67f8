--- Working folders of commands, and limits, in virtual time: no process is started and no file is written here.
local errors = require "shoal.errors"
local fake_process = require "spec.support.fake_process"
local fake_world = require "spec.support.fake_world"
local folders = require "shoal.run.exec.folders"
local limits = require "shoal.run.exec.limits"
local log = require "shoal.log"
local task = require "shoal.task"

local world, processes, scope, there, refused

before_each(function ()
  errors.reset()
  task.reset()
  world = fake_world.new { seed = 7 }
  task.start(world)
  log.open(world, function () end)
  processes, scope, there, refused = fake_process.into(world), task.scope("spec"), {}, {}
  function world.make_directory() return true end
  function world.make_private(_, path)
    if refused[path:match "[^/]+$"] then return nil, "no", refused[path:match "[^/]+$"] end
    there[path] = {}
    return true
  end
  function world.check_private(_, path)
    if refused[path] then return nil, "no", refused[path] end
    return true
  end
  function world.remove_directory(_, path)
    if refused[path] then return nil, "no", refused[path] end
    there[path] = nil
    return true
  end
  function world.list() return refused.list or {} end
end)

after_each(function ()
  task.stop()
  log.reset()
end)

local function open() return assert(folders.open(world, scope, "d")) end

it("are new ones below the data folder; an empty one waits 50 ms for the next attempt, and goes then", function ()
  local f = open()
  local one, two = f:make(1, error), f:make(1, error)
  assert.matches("^d/work/%x+%-1$", one)
  assert.matches("^d/work/%x+%-2$", two)
  f:remove(one)
  world:run(30)
  assert.equal(one, f:make(1, error))
  f:remove(one)
  world:run(49)
  assert.is_table(there[one])
  world:run(51) -- It was looked at while it was too young.
  assert.is_nil(there[one])
  assert.equal(0, #processes)
  refused[two] = "ENOENT" -- The command itself removed it.
  f:remove(two)
  assert.same({}, errors.incidents())
end)

it("that hold anything are removed beside the loop, many at once; what stays is an incident", function ()
  local f, paths = open(), {}
  for i = 1, 3 do
    paths[i] = f:make(1, error)
    refused[paths[i]] = "ENOTEMPTY"
    f:remove(paths[i])
  end
  world:run(0)
  local argv = processes[1].options.argv
  assert.same({ "sh", "-c" }, { argv[1], argv[2] })
  assert.same(paths, { table.unpack(argv, 5) })
  processes[1]:exit(1, 0)
  world:run(0)
  assert.equal("exec.folder", errors.incidents()[1].site)
  assert.is_true(processes[1].closed)
  local last = f:make(1, error)
  f:remove(last)
  refused[last] = "EACCES"
  world:run(100)
  assert.equal(2, errors.count("exec.folder").raised)
end)

it("of an earlier life go at the start; a base that cannot be made is a refusal", function ()
  refused.list = { "old-1", "old-2" }
  open()
  world:run(0)
  assert.same({ "d/work/old-1", "d/work/old-2" }, { table.unpack(processes[1].options.argv, 5) })
  processes[1]:exit(0, 0)
  world:run(0)
  refused.work = "EROFS"
  local none, _, code = folders.open(world, scope, "d")
  assert.same({ nil, "EROFS" }, { none, code })
end)

it("are looked at when they are 2 s old; one with more bytes than it may hold is told, one with as many is not", function ()
  local f, over, before = open(), {}, world.open
  local one = f:make(8 << 10, function (bytes) over.one = bytes end)
  world:run(1000)
  local two = f:make(9 << 10, function (bytes) over.two = bytes end)
  world:run(999)
  assert.equal(0, #processes)
  world:run(1)
  assert.same({ "du", "-skx", "--", one }, processes[1].options.argv)
  processes[1]:say(1, "8\t" .. one .. "\n")
  processes[1]:exit(0, 0)
  world:run(2000)
  assert.same({}, over)
  processes[2]:say(1, ("9\t%s\n9\t%s\n"):format(one, two))
  processes[2]:exit(1, 0) -- A file went while it looked.
  world:run(0)
  assert.same({ one = 9 << 10 }, over)
  f:remove(one)
  f:remove(two)
  world:run(2000)
  assert.equal(2, #processes)
  assert.equal(before, world.open)
end)

describe("a limit", function ()
  local function ended(status, signal, output) return { status = status, signal = signal, head = output or "", tail = "" } end

  it("of CPU time was met by its signal, by a shell that tells of it, or by a KILL at that time", function ()
    for _, run in ipairs { ended(0, 24), ended(152, 0), ended(0, 9), ended(137, 0) } do
      assert.equal("was ended by its cpu limit of 2 s", limits.met({ cpu_s = 2 }, run, 2000))
    end
    assert.is_nil(limits.met({ cpu_s = 2 }, ended(0, 9), 1999))
    assert.is_nil(limits.met({ cpu_s = 2 }, ended(1, 0), 2000))
    assert.is_nil(limits.met({ cpu_s = 2 }, ended(0, 0), 2000))
    assert.is_nil(limits.met(nil, ended(0, 9), 2000))
  end)

  it("of memory or files was met when the program says so", function ()
    assert.equal("%s at its memory limit of 1.5 GiB", limits.met({ memory = 3 << 29 }, ended(1, 0, "x: Cannot allocate memory"), 0))
    assert.equal("%s at its limit of 32 open files", limits.met({ nofile = 32 }, ended(1, 0, "x: Too many open files\n"), 0))
    assert.is_nil(limits.met({ memory = 1 << 30, nofile = 32 }, ended(1, 0, "x"), 0))
  end)

  it("that may have been met is named", function ()
    assert.equal(" (under its cpu limit of 2 s, memory limit of 16 MiB, limit of 32 open files)",
      limits.note { cpu_s = 2, memory = 16 << 20, nofile = 32, disk = 1 })
    assert.equal("", limits.note(nil))
    assert.equal("", limits.note { disk = 1 })
    assert.same({ "1 KiB", "1023 B", "1.2 MiB" }, { limits.size(1024), limits.size(1023), limits.size(1258291) })
  end)
end)
