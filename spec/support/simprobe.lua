--- simprobe: inspects a simulated node for simcluster's checks. Its source runs there, as the module "spec.probe": it returns plain
--- copies, changes nothing, and takes no time.
local core = require "shoal.core.node"
local errors = require "shoal.errors"
local sorted = require "shoal.sorted"
local task = require "shoal.task"

local probe = {}

--- Tables that do not belong to the role: the transport's counts, and the log.
local OUTSIDE = { world = true, hooks = true, script = true, repl_env = true, net = true, config = true }

local function worker_of(w)
  local out = { cores = w.cores, claimed = w:claimed(), runs = {}, leases = w.leases.count }
  for key, run in sorted(w.runs) do
    out.runs[key] = { fence = run.body.fence, state = run.state, cores = run.cores, released = run.state == "reporting" }
  end
  return out
end

local function lead_of(l)
  local out, sums = { fence = l.fence, parts = {}, executors = {}, states = {}, led = {}, leases = 0 }, {}
  if l.leases then
    out.leases = l.leases:count() + (l.options.held and l.options.held.count or 0)
    for run, known in sorted(l.leases.runs) do out.led[run] = known.fence end
  end
  for run_key in sorted(l.ledger.past) do
    local run = l.ledger:ended_run(run_key)
    out.states[("%s #%d"):format(run.run, run.index)] = run.state
  end
  for _, run in sorted(l.ledger.runs) do
    local key = ("%s #%d"):format(run.run, run.index) -- A higher tier's part may return as another run.
    out.states[key] = run.state
    for _, part in sorted(run.parts or {}) do
      if part.state == "dispatched" then sums[part.executor] = (sums[part.executor] or 0) + part.cores end
      out.parts[key .. " " .. part.part] = {
        fence = part.fence, state = part.state, executor = part.executor, attempt = part.attempt, executed = part.executions,
        retries = part.retries,
      }
    end
  end
  local d = l.suspects and l.suspects.detector:counts()
  out.suspicions, out.extensions = d and d.suspicions or 0, d and d.extensions or 0
  for name, e in sorted(l.executors.byname) do
    out.executors[name] = { cores = e.cores, claimed = l.ledger:load(name), sum = sums[name] or 0, state = e.state }
  end
  return out
end

--- The state from which simcluster checks the invariants.
function probe.look()
  local node = core.running
  if not node then return nil end
  local balanced, problem = errors.balance()
  return {
    role = node.role, name = node.name, balanced = balanced or false, problem = problem, generation = tostring(node.generation),
    worker = node.state.worker and worker_of(node.state.worker), lead = node.state.lead and lead_of(node.state.lead),
    stopping = node.stopping or false,
  }
end

--- The paths of all tables and strings in the node that name one of these jobs.
function probe.named(jobs)
  local found, seen = {}, {}
  local function names(text)
    for _, id in ipairs(jobs) do
      if text:find(id, 1, true) then return true end
    end
  end
  local function walk(value, path, depth)
    if type(value) == "string" then
      if names(value) then found[#found + 1] = path .. " = " .. value:sub(1, 80) end
      return
    end
    if type(value) ~= "table" or seen[value] or depth > 12 then return end
    seen[value] = true
    for key, item in next, value do -- order-free: sorted below
      if type(key) == "string" then
        if names(key) and (depth > 1 or key:sub(1, 5) ~= "spec_") then found[#found + 1] = path .. "[" .. key .. "]" end
        if depth > 1 or not OUTSIDE[key] and key:sub(1, 5) ~= "spec_" then walk(item, (path == "" and "" or path .. ".") .. key, depth + 1) end
      else
        walk(key, path .. ".(key)", depth + 1)
        walk(item, path .. "[]", depth + 1)
      end
    end
  end
  walk(core.running, "", 1)
  table.sort(found)
  return found
end

--- Counts of live objects, without the transport's handlers that wait for the next request, and probes of datacenters under way.
function probe.tasks()
  local registry = core.running.state and core.running.state.registry
  return task.root():count() - #core.running.rpc.idle - (registry and registry.federation:counts().tasks or 0)
end

function probe.incidents(site)
  local out = {}
  for _, i in ipairs(errors.incidents()) do
    if not site or i.site == site then
      local ids = {}
      for key, value in sorted(i.ids) do ids[key] = value end
      out[#out + 1] = {
        id = i.id, site = i.site, level = i.level, message = i.message, code = i.code, ids = ids, count = i.count,
        missing = i.missing, at_ms = i.at_ns // 1000000,
      }
    end
  end
  return out
end

function probe.counts(site)
  for _, c in ipairs(errors.counts()) do
    if c.site == site then
      return { raised = c.raised, reported = c.reported, suppressed = c.suppressed, handled = c.handled, in_flight = c.in_flight }
    end
  end
  return { raised = 0, reported = 0, suppressed = 0, handled = 0, in_flight = 0 }
end

-- A client that records ------------------------------------------------------------------------------------------------

--- Record every push that this client gets, in order.
function probe.record()
  local node = core.running
  if node.spec_record then return end
  local client, record = node.state.client, { pushes = {}, follows = {} }
  node.spec_record = record
  local event = client.event
  client.event = function (self, name, kind, body, peer, bytes)
    local known = self.jobs[body.job]
    local before = known and known.seq
    local answer = event(self, name, kind, body, peer, bytes)
    if known and known.seq ~= before then
      local list = record.pushes[body.job] or {}
      record.pushes[body.job] = list
      list[#list + 1] = {
        kind = kind.kind, seq = body.seq, truncated_from = body.truncated_from, before = before, state = body.body.state,
        workflow = body.body.workflow, workflow_state = body.body.workflow_state, parts = kind.kind == "stats" and #body.body.parts,
        result_state = kind.kind == "result" and body.body.result.state, thinned = body.body.thinned,
        requests = kind.kind == "result" and body.body.result.stats and body.body.result.stats.requests,
      }
    end
    return answer
  end
end

function probe.pushes(job) return core.running.spec_record.pushes[job] or {} end

return probe
