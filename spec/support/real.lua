--- Real sockets and real time, for specs about them: luv's loop, our world on it, and tasks.
---
---   real.run(function (world, scope) ... end)       fn as a task; returns its results after everything is closed
local errors = require "shoal.errors"
local log = require "shoal.log"
local task = require "shoal.task"
local uv = require "luv"
local world_module = require "shoal.core.world"

local real = {}

local LIMIT_MS = 20000

--- Run fn as a task on the real world and wait for it. Raises its error. Raises too if it leaves a handle open.
---@param fn fun(world: table, scope: table): any
---@param limit_ms? integer
function real.run(fn, limit_ms)
  local world = world_module.current()
  errors.reset()
  task.reset()
  task.start(world)
  log.open(world, function () end) -- Specs read incidents from errors.incidents(), so do not print them.
  local before = world:telemetry().open_handles
  local scope = task.scope("spec")
  local main = scope:spawn("spec.run", { task = "spec" }, fn, world, scope)
  local watchdog = uv.new_timer()
  local late = false
  uv.update_time() -- The loop's clock is behind after specs that wait without it, and the watchdog would fire at once.
  watchdog:start(limit_ms or LIMIT_MS, 0, function ()
    late = true
    uv.stop()
  end)
  while not main.state and not late do uv.run("once") end
  watchdog:close()
  local state, results, failure = main.state, main.results, main.failed_as
  scope:close()
  for _ = 1, 1000 do
    if world:telemetry().open_handles <= before then break end
    uv.run("nowait")
  end
  local left = world:telemetry().open_handles - before
  task.stop()
  log.reset()
  uv.run("nowait")
  if late then error("the spec's task was not done in time", 2) end
  if state ~= "done" then error(failure or ("the spec's task was " .. tostring(state)), 2) end
  if left > 0 then error(left .. " handles of the world were left open", 2) end
  if results then return table.unpack(results, 1, results.n) end
end

--- A port on which no process listens now.
function real.free_port()
  local socket = uv.new_tcp()
  socket:bind("127.0.0.1", 0)
  local port = socket:getsockname().port
  socket:close()
  uv.run("nowait")
  return port
end

return real
