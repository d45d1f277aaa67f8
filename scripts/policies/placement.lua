--- placement: the placement of jobs and parts. Operators edit this. Each function gets copies and runs within a budget of instructions,
--- time and memory, and the leader checks its answer. If one fails, that is an incident; `shoal status` then says why the job waits, and
--- after ten wrong answers the job fails. This file is read when a node starts.
---
--- `accepts(spec, executors)`  whether to accept this job  -> true | nil, why, code ("NOT_READY": the client retries)
--- `split(workflow, executors, spec)`  the parts of a workflow  -> shares that add up to the workflow, or nil to wait
--- `choose(part, workflow, executors, spec)`  the executor of this part  -> an executor's name, or nil to wait
--- `datacenters.admits(dc, manager)`  whether an unknown datacenter may register with this gate  -> true | nil, why
--- executors: { name, address, cores, free, labels }, sorted by name. They are up, not cordoned, large enough, and meet the workflow's
--- `where`. A worker has `labels` ({ gpu = "a100" }); a datacenter has `classes`, its workers by their labels: { labels, count, cores (of
--- the largest) }. Part and workflow have `cores`, `env`, `where`; the spec has the job's `name`, `env`, `labels`.
---
--- A datacenter also has `health` and `level`, both damped, so that a part is not sent to and fro. health: "healthy"; "busy": its cores are
--- taken or its managers press back, so that work waits there; "degraded": it is suspected, has just returned, or has lost half of its
--- managers; "unhealthy": nothing can be sent there. level is the worst of its managers' back-pressure: "none", "throttle", "batch" or
--- "reject". Whatever is chosen, the gate sends at most 10 parts a second to one that throttles, 2 at "batch" and none at "reject". The rules
--- below prefer healthy, then busy, then degraded, and never choose an unhealthy one.
local job = require "shoal.job"

--- How the part's last attempt on this executor ended: "lost", "failed", or nil if there was none.
local function tried(part, name)
  local state
  for _, attempt in ipairs(part.history) do
    if attempt.executor == name and attempt.state ~= "refused" then state = attempt.state end
  end
  return state
end

--- How often this executor refused the part, so that others are tried first.
local function refusals(part, name)
  local count = 0
  for _, attempt in ipairs(part.history) do
    if attempt.executor == name and attempt.state == "refused" then count = count + 1 end
  end
  return count
end

local workers = {}

function workers.accepts() return true end

--- Spread a load workflow over all workers with enough cores for a part; split a command into its number of parts.
function workers.split(workflow, executors)
  local able = 0
  for _, e in ipairs(executors) do
    if e.cores >= (workflow.cores or 1) then able = able + 1 end
  end
  if able == 0 then return nil end
  return job.share(workflow, workflow.parts or workflow.command and 1 or able)
end

--- Choose by fewest refusals, then most free cores. One that lost this part gets it again only if no other has enough cores; one where
--- it failed gets it again if no other is free.
function workers.choose(part, workflow, executors)
  local cores, best, again, failed, busy, least = workflow.cores or 1, nil, nil, nil, false, 0
  for _, e in ipairs(executors) do
    local failed_here = tried(part, e.name)
    if e.free >= cores and not failed_here then
      local said_no = refusals(part, e.name)
      if not best or said_no < least or said_no == least and e.free > best.free then best, least = e, said_no end
    elseif e.free >= cores then
      again = again or e
      if failed_here == "failed" then failed = failed or e end
    elseif e.cores >= cores and not failed_here then
      busy = true -- worth waiting for
    end
  end
  if not best then best = failed or not busy and again end
  return best and best.name or nil
end

local datacenters = {}

--- Admit every datacenter. `return dc == "eu" or dc == "us"` would refuse a misspelt one.
function datacenters.admits() return true end

--- Accept a job only if every datacenter that it names is known here.
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

local RANK = { healthy = 1, busy = 2, degraded = 3, unhealthy = 4 }

--- The less the better. One that takes nothing now is as bad as a degraded one.
local function rank(e)
  local of = RANK[e.health] or 1
  return e.level == "reject" and math.max(of, 3) or of
end

local function wanted(spec, name)
  if not spec.datacenters or #spec.datacenters == 0 then return true end
  for _, target in ipairs(spec.datacenters) do
    if target == name then return true end
  end
  return false
end

--- One part for each datacenter that the job names. Without names: for each that is healthy or busy, and if none is, for each that is
--- degraded. A command, and a script with fewer `parts` than there are datacenters, goes to the best, then those with the most free cores.
function datacenters.split(workflow, executors, spec)
  local targets, named = {}, #(spec.datacenters or {})
  for _, e in ipairs(executors) do
    if wanted(spec, e.name) and e.cores >= (workflow.cores or 1) and rank(e) < RANK.unhealthy then targets[#targets + 1] = e end
  end
  if #targets == 0 or #targets < named then return nil end -- Wait for a named one that is down or unhealthy.
  if named == 0 then
    local good = {}
    for _, e in ipairs(targets) do
      if rank(e) <= RANK.busy then good[#good + 1] = e end
    end
    if #good > 0 then targets = good end
  end
  local count = #targets
  if workflow.command or (workflow.parts or count) < count then
    table.sort(targets, function (a, b)
      if rank(a) ~= rank(b) then return rank(a) < rank(b) end
      return a.free > b.free or a.free == b.free and a.name < b.name
    end)
    count = math.min(count, workflow.parts or 1)
  end
  local shares = job.share(workflow, count)
  for i, share in ipairs(shares) do share.executor = targets[i].name end
  return shares
end

--- Whether `a` is to be preferred to `b`: the part's home, or the better one.
local function better_than(a, b, home)
  if a.name == home or b.name == home then return a.name == home end
  if rank(a) ~= rank(b) then return rank(a) < rank(b) end
  return a.free > b.free
end

--- The datacenter of the split, unless it is unhealthy. If it lost the part or refused it more often, another that the job names.
function datacenters.choose(part, _, executors, spec)
  local home, home_up, best, least = part.share.executor, false, nil, 0
  for _, e in ipairs(executors) do
    local well = rank(e) < RANK.unhealthy
    home_up = home_up or e.name == home and well
    if well and wanted(spec, e.name) and not tried(part, e.name) then
      local said_no = refusals(part, e.name)
      local better = best and better_than(e, best, home)
      if not best or said_no < least or said_no == least and better then best, least = e, said_no end
    end
  end
  if best then return best.name end
  return home_up and home or nil -- It lost the part before, but there is no other.
end

return { workers = workers, datacenters = datacenters }
