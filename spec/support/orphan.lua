--- A worker to be killed: runs one command in a child and waits. `shoal lua spec/support/orphan.lua PROGRAM LINE`
local program, line = ...
local runner = require "shoal.runner"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

task.start(world)
assert(runner.start(world, task.scope("orphan"), {
  job = "orphan", workflow = "w", part = "w/1", attempt = 1, fence = 1, work = { command = { "sh", "-c", line }, parts = 1, env = {} },
}, nil, function (result) io.stderr:write("the orphan's result: ", tostring(result.reason), "\n") end, { argv = { program, "exec" } }))
