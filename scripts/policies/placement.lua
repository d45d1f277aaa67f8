--- placement: where work goes. Operators edit this. Each function gets copies, runs within a budget of instructions, time and
--- memory, and its answer is checked; when it fails, the leader's own rule answers and the failure is an incident.
---
--- `accepts(spec, executors)`  may this job come in at all?  -> true | nil, why, code ("NOT_READY": the client tries again)
--- `split(workflow, executors, spec)`  into which parts?  -> shares whose numbers add up to the workflow's, or nil to wait
--- `choose(part, workflow, executors, spec)`  who runs this part now?  -> an executor's name, or nil to wait
--- `datacenters.admits(dc, manager)`  may a datacenter that this gate does not know register?  -> true | nil, why
--- executors: { name, address, cores, free }, sorted by name, only those that are up.
local job = require "shoal.job"

local function tried(part, name)
  for _, attempt in ipairs(part.history) do
    if attempt.executor == name and attempt.state ~= "refused" then return true end
  end
  return false
end

--- How often it said no to this part, so that the others are asked first.
local function refusals(part, name)
  local count = 0
  for _, attempt in ipairs(part.history) do
    if attempt.executor == name and attempt.state == "refused" then count = count + 1 end
  end
  return count
end

local workers = {}

function workers.accepts() return true end

--- A load workflow is spread over all workers that could hold a part; a command runs as many parts as it asks for.
function workers.split(workflow, executors)
  local able = 0
  for _, e in ipairs(executors) do
    if e.cores >= (workflow.cores or 1) then able = able + 1 end
  end
  if able == 0 then return nil end
  return job.share(workflow, workflow.parts or workflow.command and 1 or able)
end

--- Fewest refusals, then most free cores first; one that failed this part only when no other could ever hold it.
function workers.choose(part, workflow, executors)
  local cores, best, again, busy, least = workflow.cores or 1, nil, nil, false, 0
  for _, e in ipairs(executors) do
    local failed_here = tried(part, e.name)
    if e.free >= cores and not failed_here then
      local said_no = refusals(part, e.name)
      if not best or said_no < least or said_no == least and e.free > best.free then best, least = e, said_no end
    elseif e.free >= cores then
      again = again or e
    elseif e.cores >= cores and not failed_here then
      busy = true -- worth waiting for
    end
  end
  if best then return best.name end
  return not busy and again and again.name or nil
end

local datacenters = {}

--- Any may. `return dc == "eu" or dc == "us"` would keep a misspelt one out.
function datacenters.admits() return true end

--- Every datacenter a job names must be known here.
function datacenters.accepts(spec, executors)
  local known, names = {}, {}
  for i, e in ipairs(executors) do known[e.name], names[i] = true, e.name end
  if #names == 0 then return nil, "no datacenter is registered with this gate; try again shortly", "NOT_READY" end
  for _, name in ipairs(spec.datacenters or {}) do
    if not known[name] then
      return nil, ("datacenters: no datacenter %q is known here; known: %s"):format(name, table.concat(names, ", "))
    end
  end
  return true
end

local function wanted(spec, name)
  if not spec.datacenters or #spec.datacenters == 0 then return true end
  for _, target in ipairs(spec.datacenters) do
    if target == name then return true end
  end
  return false
end

--- One part for each datacenter the job names (all, when it names none); a command goes where most is free.
function datacenters.split(workflow, executors, spec)
  local targets = {}
  for _, e in ipairs(executors) do
    if wanted(spec, e.name) and e.cores >= (workflow.cores or 1) then targets[#targets + 1] = e end
  end
  if #targets == 0 or #targets < #(spec.datacenters or {}) then return nil end -- A named one is away: wait for it.
  local count = #targets
  if workflow.command then
    table.sort(targets, function (a, b) return a.free > b.free or a.free == b.free and a.name < b.name end)
    count = math.min(count, workflow.parts or 1)
  end
  local shares = job.share(workflow, count)
  for i, share in ipairs(shares) do share.executor = targets[i].name end
  return shares
end

--- The datacenter it was cut for; another that the job names, the freest first, when that one has lost it or says no more often.
function datacenters.choose(part, _, executors, spec)
  local home, home_up, best, least = part.share.executor, false, nil, 0
  for _, e in ipairs(executors) do
    home_up = home_up or e.name == home
    if wanted(spec, e.name) and not tried(part, e.name) then
      local said_no = refusals(part, e.name)
      local better = best and (e.name == home or best.name ~= home and e.free > best.free)
      if not best or said_no < least or said_no == least and better then best, least = e, said_no end
    end
  end
  if best then return best.name end
  return home_up and home or nil -- It had it before, and there is no other.
end

return { workers = workers, datacenters = datacenters }
