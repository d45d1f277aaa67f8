--- sim.inside: the half of `sim:eval` that runs in the simulated node.
local errors = require "shoal.base.errors"
local task = require "shoal.base.task"
local world = require "shoal.core.world"

local inside = {}

local answers, last, scope = {}, 0, nil

--- Start code as a task; `take` returns its result.
---@return integer? id, string? err, string? code
function inside.begin(host, code, ...)
  local chunk, err = load(code, "=eval", "t")
  if not chunk then return nil, err, "CONFIG" end
  if not task.started() then task.start(world.current()) end
  scope = scope or task.scope "sim.eval"
  last = last + 1
  local id, arguments, ids = last, table.pack(...), { host = host }
  scope:spawn("sim.eval", ids, function ()
    answers[id] = table.pack(errors.handle("sim.eval", ids, chunk, table.unpack(arguments, 1, arguments.n)))
  end)
  task.flush()
  return id
end

--- false while it runs; else true, whether it succeeded, and its results or the error's text.
function inside.take(id)
  local answer = answers[id]
  if not answer then return false end
  answers[id] = nil
  if not answer[1] then return true, false, tostring(answer[2]) end
  return true, table.unpack(answer, 1, answer.n)
end

return inside
