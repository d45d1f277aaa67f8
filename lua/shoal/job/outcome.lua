--- outcome: what a run amounts to, computed from its ledger entry and what is under way. Pure but for reading incidents.
---
--- Numbers of one attempt are a *summary*: a flat table of counts (requests, ok, errors, iterations, ...), which add up.
--- A finished part also has *detail* (histograms, checks, errors by kind), which stats.lua merges. Merged numbers come from attempts
--- that ended by their own word; an attempt that was lost is listed apart with its last progress, and counted in `lost`.
local errors = require "shoal.base.errors"
local msgpack = require "shoal.core.msgpack"
local sorted = require "shoal.base.sorted"
local stats = require "shoal.job.stats"
local task = require "shoal.base.task"

local outcome = {}

--- Workflow states that are not final.
outcome.OPEN = { waiting = true, ready = true, queued = true, running = true }

local OUTPUT_MAX = 512 * 1024 -- Of all workflows' commands in one answer, which must fit a message.
local INCIDENTS_MAX = 100

function outcome.encode(result) return msgpack.pack(result) end

function outcome.decode(bytes)
  local result, err = msgpack.unpack(bytes)
  if not result then error("outcome: a stored result is unreadable: " .. err) end
  return result
end

--- Does what a policy cut make up the whole? Requested users and iterations are all placed, and none twice.
---@return true? ok, string? why
function outcome.adds_up(workflow, shares)
  for _, field in ipairs { "vus", "iterations", "parts" } do
    local wanted, placed = workflow[field], 0
    if field == "parts" and not workflow.command then wanted = nil end
    for _, share in ipairs(shares) do placed = placed + (share[field] or 0) end
    if wanted and placed ~= wanted then return nil, ("%s: %d of %d are placed"):format(field, placed, wanted) end
  end
  return true
end

--- Why nobody takes a workflow now, for people.
---@param executors { state: string, cores: integer }[]  all that the leader knows
function outcome.why_queued(workflow, executors)
  local wanted, up, largest = workflow.cores or 1, 0, 0
  for _, e in ipairs(executors) do
    if e.state == "up" then up, largest = up + 1, math.max(largest, e.cores) end
  end
  if up == 0 then return "no executor is up" end
  if largest < wanted then
    return ("a part asks for %d cores, and the largest executor that is up offers %d"):format(wanted, largest)
  end
  return "it waits for executors"
end

--- What a workflow's ended parts asked for, and how much of that failed, by their own word.
---@return integer requests, integer failed
local function asked(entry, name)
  local requests, failed = 0, 0
  for _, part_name in ipairs(entry.split[name] or {}) do
    local history = entry.parts[part_name].history
    local last = history[#history]
    local counts = last and last.state == "completed" and last.progress or {}
    requests, failed = requests + (counts.requests or 0), failed + (counts.errors or 0)
  end
  return requests, failed
end

--- Why a workflow whose parts all completed has failed all the same, or nil. Only where its parts are all of it: a datacenter
--- that leads a share does not know how the others fare.
local function too_many_failed(entry, workflow, name)
  if entry.upstream or not workflow.max_failed_share then return nil end
  local requests, failed = asked(entry, name)
  if failed <= requests * workflow.max_failed_share then return nil end
  return ("%s: %d of %d requests failed (%.1f %%), and max_failed_share allows %g %%"):format(name, failed, requests,
    100 * failed / math.max(requests, 1), 100 * workflow.max_failed_share)
end

--- `states` holds those of the workflows before it in the graph's order.
function outcome.workflow_state(entry, workflow, name, states)
  local parts = entry.split[name]
  if not parts then
    for _, before in ipairs(workflow.after or {}) do
      local state = states[before]
      if state == "failed" or state == "cancelled" or state == "skipped" then return "skipped" end
      if state ~= "completed" then return entry.state == "running" and "waiting" or "cancelled" end
    end
    return entry.state == "running" and "ready" or "cancelled"
  end
  local worst = "completed"
  for _, part_name in ipairs(parts) do
    local state = entry.parts[part_name].state
    if state == "pending" or state == "dispatched" then return "running" end
    if state == "failed" or (state == "cancelled" and worst == "completed") then worst = state end
  end
  if worst == "completed" and too_many_failed(entry, workflow, name) then return "failed" end
  return worst
end

--- The job's final state and reason, by rule: one asked for (cancelled, timed_out) wins; else any failure fails it.
function outcome.run_state(run, states)
  local entry = run.entry
  if entry.state == "cancelling" then return entry.ends_as, entry.reason end
  for _, name in ipairs(run.order) do
    if states[name] == "failed" then
      for _, part_name in ipairs(entry.split[name]) do
        local part = entry.parts[part_name]
        if part.state == "failed" then return "failed", ("%s: %s"):format(part_name, part.reason or "no reason given") end
      end
      return "failed", too_many_failed(entry, run.spec.workflows[name], name)
    end
  end
  for _, name in ipairs(run.order) do
    if states[name] == "cancelled" then return "cancelled", name .. " was cancelled by its executor" end
  end
  return "completed", nil
end

local function add(into, summary)
  for key, value in sorted(summary) do
    if type(value) == "number" then into[key] = (into[key] or 0) + value end
  end
end

--- A part's counts over all its attempts, the lost ones included (so that they never go back), and how much was lost.
local function part_totals(run, part)
  local sum = {}
  for _, attempt in ipairs(part.history) do
    if attempt.progress then
      add(sum, attempt.progress)
      if attempt.state == "lost" then sum.lost = (sum.lost or 0) + (attempt.progress.requests or 0) end
    end
  end
  local live = run.progress[part.part]
  if live and part.state == "dispatched" then add(sum, live) end
  return sum
end

--- The run's counts so far, as one summary for the tier above.
function outcome.totals(run)
  local sum = {}
  for _, part in sorted(run.entry.parts) do add(sum, part_totals(run, part)) end
  return sum
end

--- The run's counts so far by part, for people who watch.
function outcome.by_part(run)
  local out = {}
  for _, name in ipairs(run.order) do
    for _, part_name in ipairs(run.entry.split[name] or {}) do
      local part = run.entry.parts[part_name]
      out[#out + 1] = {
        workflow = name, part = part_name, executor = part.executor or "", state = part.state, attempt = part.attempt,
        stats = part_totals(run, part),
      }
    end
  end
  return out
end

--- Detail, attempts and incidents of one workflow's parts.
local function gather(run, name)
  local details, attempts, incidents = {}, {}, {}
  for _, part_name in ipairs(run.entry.split[name] or {}) do
    local part = run.entry.parts[part_name]
    local inner = part.result and outcome.decode(part.result) or {}
    if inner.stats then details[#details + 1] = inner.stats end
    for _, incident in ipairs(inner.incidents or {}) do incidents[#incidents + 1] = incident end
    for i, attempt in ipairs(part.history) do
      -- An executor that is a tier itself lists the attempts within; only where it could not is its own entry the truth.
      local last = i == #part.history
      if last and inner.attempts then
        for _, within in ipairs(inner.attempts) do attempts[#attempts + 1] = within end
      else
        attempts[#attempts + 1] = {
          workflow = name, part = part_name, attempt = attempt.attempt, executor = attempt.executor, state = attempt.state,
          reason = attempt.reason, stats = attempt.progress,
        }
      end
    end
  end
  return details, attempts, incidents
end

--- Details were read before they became durable (see `readable`), so these cannot refuse.
local function merged(details) return assert(stats.merge(details)) end
local function summary(record) return assert(stats.summary(record)) end

--- The numbers of what never ran.
function outcome.nothing() return summary(merged({})) end

--- Can a part's result be read, all of it?
---@param bytes string
---@return true? ok, string? err, string? code
function outcome.readable(bytes)
  local inner, err = msgpack.unpack(bytes)
  if type(inner) ~= "table" then return nil, err or "the result is no table", "MALFORMED" end
  local record, problem = stats.merge({ type(inner.stats) == "table" and inner.stats or nil })
  if record then record, problem = stats.summary(record) end
  if not record then return nil, problem, "MALFORMED" end
  return true
end

--- One workflow's answer.
function outcome.workflow(run, name, state)
  return { workflow = name, state = state, stats = summary(merged((gather(run, name)))) }
end

--- Add an incident once: parts of one node bring the same ones.
local function note(incidents, known, incident)
  local key = ("%s %s"):format(incident.node, incident.id)
  if known[key] or #incidents >= INCIDENTS_MAX then return end
  known[key] = true
  incidents[#incidents + 1] = incident
end

local function own_incidents(run, incidents, known)
  for _, incident in ipairs(errors.incidents()) do
    if incident.ids.job == run.job then
      note(incidents, known, {
        id = incident.id, node = incident.node, site = incident.site, level = incident.level, message = incident.message,
        where = incident.where, count = incident.count,
      })
    end
  end
end

--- The whole run's answer.
---@param states table<string, string>  by workflow
---@param state string
---@param reason? string
function outcome.run(lead, run, states, state, reason)
  local result = {
    job = run.job, name = run.spec.name, state = state, reason = reason, node = lead.node.name, workflows = {}, attempts = {}, incidents = {},
    elapsed_ms = task.now_ms() - run.started_ms, totals = outcome.totals(run),
  }
  local all, known = {}, {}
  for _, name in ipairs(run.order) do
    local details, attempts, incidents = gather(run, name)
    for _, detail in ipairs(details) do all[#all + 1] = detail end
    for _, attempt in ipairs(attempts) do
      attempt.dc = attempt.dc or lead.node.dc
      result.attempts[#result.attempts + 1] = attempt
    end
    for _, incident in ipairs(incidents) do
      note(result.incidents, known, incident)
    end
    local record = stats.trim(merged(details), OUTPUT_MAX // #run.order)
    result.workflows[#result.workflows + 1] = { workflow = name, state = states[name], stats = summary(record) }
  end
  own_incidents(run, result.incidents, known)
  if run.entry.upstream then -- The tier above merges: it gets the record itself.
    result.stats, result.workflows = merged(all), nil
  else
    result.stats = summary(merged(all))
  end
  return result
end

--- One job as people ask for it.
function outcome.describe(entry, run)
  local out = { job = entry.run, name = entry.name, state = entry.state, reason = entry.reason or "", workflows = {} }
  if run and not run.over then
    for _, name in ipairs(run.order) do
      out.workflows[#out.workflows + 1] = { workflow = name, state = run.told[name] or "waiting" }
    end
    out.parts = outcome.by_part(run)
  end
  if entry.result then out.result = outcome.decode(entry.result) end
  return out
end

return outcome
