--- A worker for a spec to kill: it runs one command, or one script, and waits. `shoal lua spec/support/orphan.lua command|script TEXT`
local kind, text = ...
local runner = require "shoal.runner"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

local work = kind == "command" and { command = { "sh", "-c", text }, parts = 1, env = {} }
  or { script = { path = "w.lua", bytes = text }, vus = 1, iterations = 1, env = {} }
task.start(world)
assert(runner.start(world, task.scope("orphan"), {
  job = "orphan", workflow = "w", part = "w/1", attempt = 1, fence = 1, work = work,
}, nil, function (result) io.stderr:write("the orphan's result: ", tostring(result.reason), "\n") end))
