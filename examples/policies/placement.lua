--- An edited placement policy: parts go to the worker that is fullest and still has room, so that others can be drained; jobs of the team
--- "night" use spot workers only. Use it with `shoal run ... --policies DIR`, where DIR also has errors.lua and retry.lua.
local job = require "shoal.job"

local workers = {}

function workers.accepts() return true end

function workers.split(workflow, executors)
  return job.share(workflow, workflow.parts or workflow.command and 1 or #executors)
end

function workers.choose(part, _, executors, spec)
  local best
  for _, e in ipairs(executors) do
    local allowed = not (spec.labels and spec.labels.team == "night") or e.labels.spot == "yes"
    if allowed and e.free >= part.cores and (not best or e.free < best.free) then best = e end
  end
  return best and best.name or nil
end

--- Datacenters: the one with the most free cores.
local datacenters = { accepts = workers.accepts }

function datacenters.split(workflow) return job.share(workflow, 1) end

function datacenters.choose(_, _, executors)
  local best
  for _, e in ipairs(executors) do
    if not best or e.free > best.free then best = e end
  end
  return best and best.name or nil
end

return { workers = workers, datacenters = datacenters }
