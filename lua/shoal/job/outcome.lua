--- outcome: the state and result of a run, computed from its ledger entry and the progress of live attempts. Pure, except that it
--- reads this node's incidents.
---
--- A result has a budget of bytes, so that a stored result fits one message. A larger one is cut by rule, detail first, and its field
--- `cut` says so.
local errors = require "shoal.base.errors"
local msgpack = require "shoal.core.msgpack"
local sorted = require "shoal.base.sorted"
local stats = require "shoal.job.stats"
local tally = require "shoal.job.tally"

local outcome = {}

--- Workflow states that are not final.
outcome.OPEN = { waiting = true, ready = true, queued = true, running = true }

outcome.RESULT_MAX = 2 << 20 -- A message has at most 3 MiB, and holds more than the result.
local COMPACT_MAX = 8192      -- Bytes of records: beyond it, summarizing them at each read costs more than it saves.
local PARTS_MAX = 256        -- Parts named in one event or answer.
local INCIDENTS_MAX = 100
local REASON_MAX = 2000

function outcome.encode(result) return msgpack.pack(result) end

local COUNTS = { "requests", "ok", "errors", "iterations", "bytes_in", "bytes_out" }

--- Counts as people read them: those that are 0 are not stored.
local function counted(counts)
  if type(counts) ~= "table" then return end
  for _, name in ipairs(COUNTS) do counts[name] = counts[name] or 0 end
end

--- A stored result, as people read it. A small one holds the records themselves, which are smaller than their summaries.
---@param bytes string
---@return table? result, string? err, string? code
function outcome.decode(bytes)
  local result, err = msgpack.unpack(bytes)
  if type(result) ~= "table" then return nil, "the stored result is unreadable: " .. tostring(err), "MALFORMED" end
  if result.workflows and not result.stats then
    local all = stats.accumulator()
    for _, w in ipairs(result.workflows) do
      all:add(w.record)
      w.stats, w.record = stats.summary(w.record), nil
    end
    result.stats = #result.workflows == 1 and result.workflows[1].stats or stats.summary(all:record())
  end
  counted(result.totals)
  for _, attempt in ipairs(result.attempts or {}) do
    if attempt.state ~= "refused" then
      attempt.stats = attempt.stats or {}
      counted(attempt.stats)
    end
  end
  return result
end

--- Check that a policy's shares add up to the workflow: every requested user and iteration exactly once.
---@return true? ok, string? why
function outcome.adds_up(workflow, shares)
  for _, field in ipairs { "vus", "iterations", "parts" } do
    local wanted, placed = workflow[field], 0
    local given = field ~= "parts" or workflow.command ~= nil
    for _, share in ipairs(shares) do
      placed, given = placed + (share[field] or 0), given or share[field] ~= nil
    end
    if not given then wanted = nil end -- A policy need not say into how many parts a tier below cuts a script's share.
    if wanted and placed ~= wanted then return nil, ("%s: %s of %d are placed"):format(field, placed, wanted) end
  end
  return true
end

local SHARES_MAX = 10000

--- Check that a policy's answer is a list of shares that add up to the workflow.
---@return true? ok, string? why
function outcome.shares(workflow, shares)
  if type(shares) ~= "table" then return nil, "expected a list of shares, found a " .. type(shares) end
  if #shares > SHARES_MAX then return nil, ("%d shares, %d are the limit"):format(#shares, SHARES_MAX) end
  for i, share in ipairs(shares) do
    if type(share) ~= "table" then return nil, ("share %d: expected a table, found a %s"):format(i, type(share)) end
    for _, field in ipairs { "vus", "iterations", "parts", "cores" } do
      local value = share[field]
      if value ~= nil and (math.type(value) ~= "integer" or value < 0) then
        return nil, ("share %d: %s: expected a whole number, found %s"):format(i, field, tostring(value))
      end
    end
  end
  return outcome.adds_up(workflow, shares)
end

-- States ---------------------------------------------------------------------------------------------------------------

local function over_share(what, share, failed, all, field)
  if not share or failed <= all * share then return nil end
  return ("%d of %d %s failed (%.1f %%), and %s allows %g %%"):format(failed, all, what, 100 * failed / math.max(all, 1), field, 100 * share)
end

local function over_quantile(work, bound_ms, q, field)
  if not bound_ms or work.requests == 0 then return nil end
  local found_ms = stats.quantile_ms(work.detail and work.detail:record() or {}, q)
  if found_ms and found_ms <= bound_ms then return nil end
  return ("the p%g of its requests is %s, and %s allows %g ms"):format(100 * q, found_ms and ("%.4g ms"):format(found_ms) or
    "unknown (none worked, or detail was cut)", field, bound_ms)
end

--- The reason that a workflow failed although all its parts completed: a threshold of the job file; or nil. Only the leader of the whole
--- workflow can decide this: a datacenter that leads a share does not know the other shares.
local function beyond(entry, workflow, name)
  local work = entry.work[name]
  if entry.upstream or not work then return nil end
  local why = over_share("requests", workflow.max_failed_share, work.errors, work.requests, "max_failed_share")
    or over_share("checks", workflow.max_failed_checks_share, work.checks_failed or 0, work.checks or 0, "max_failed_checks_share")
    or over_quantile(work, workflow.max_p95_ms, 0.95, "max_p95_ms") or over_quantile(work, workflow.max_p99_ms, 0.99, "max_p99_ms")
  return why and name .. ": " .. why
end

--- `states` holds the states of the workflows before it in the graph's order.
function outcome.workflow_state(entry, workflow, name, states)
  local work = entry.work[name]
  if not work then
    for _, before in ipairs(workflow.after or {}) do
      local state = states[before]
      if state == "failed" or state == "cancelled" or state == "skipped" then return "skipped" end
      if state ~= "completed" then return entry.state == "running" and "waiting" or "cancelled" end
    end
    return entry.state == "running" and "ready" or "cancelled"
  end
  if work.open > 0 then return "running" end
  if work.failed > 0 then return "failed" end
  if work.cancelled > 0 then return "cancelled" end
  return beyond(entry, workflow, name) and "failed" or "completed"
end

--- The job's final state and reason: a requested one (cancelled, timed_out) wins; else any failed workflow fails the job.
function outcome.run_state(entry, spec, order, states)
  if entry.state == "cancelling" then return entry.ends_as, entry.reason end
  for _, name in ipairs(order) do
    if states[name] == "failed" then
      return "failed", (entry.work[name].failed_why or beyond(entry, spec.workflows[name], name)):sub(1, REASON_MAX)
    end
  end
  for _, name in ipairs(order) do
    if states[name] == "cancelled" then return "cancelled", name .. " was cancelled by its executor" end
  end
  return "completed", nil
end

-- Numbers so far -------------------------------------------------------------------------------------------------------

--- The run's counts so far, as one summary for the tier above.
---@param entry table
---@param live table<string, table>  live attempts, by part
function outcome.totals(entry, live)
  local sum, executions, runs, retried = {}, 0, 0, 0
  for _, work in next, entry.work do -- order-free: integer sums
    tally.add(sum, work.counts)
    runs, retried = runs + (work.runs or 0), retried + (work.retried or 0)
    executions = math.max(executions, work.executions or 0)
  end
  for name, attempt in next, live do -- order-free: integer sums
    tally.add(sum, attempt.progress)
    local part = entry.parts[name]
    runs = runs + (attempt.progress and attempt.progress.runs or 1)
    retried = retried + (attempt.progress and attempt.progress.retried or 0)
    if part then executions = math.max(executions, part.executions + math.max(1, attempt.progress and attempt.progress.executions or 1)) end
  end
  sum.executions = executions
  if entry.upstream then sum.runs = runs end
  if retried > 0 then sum.retried = retried end
  return sum
end

--- Counts by part, for clients that watch: live parts and changed parts, at most PARTS_MAX; `more` is how many are left out.
---@param entry table
---@param live table<string, table>
---@param changed table<string, boolean>
---@return table[] parts, integer? more
function outcome.by_part(entry, live, changed)
  local out, named, more = {}, {}, 0
  local function put(name)
    local part = entry.parts[name]
    if named[name] or not part then return end
    named[name] = true
    if #out >= PARTS_MAX then
      more = more + 1
      return
    end
    local attempt = live[name]
    out[#out + 1] = {
      workflow = part.workflow, part = name, executor = part.executor or "", attempt = part.attempt,
      state = attempt and attempt.state == "running" and "running" or part.state, -- Its executor took it.
      stats = tally.add(tally.add({}, part.counts), attempt and attempt.progress),
    }
  end
  for name in sorted(live) do put(name) end
  for name in sorted(changed) do put(name) end
  table.sort(out, function (a, b) return a.part < b.part end)
  return out, more > 0 and more or nil
end

-- Results --------------------------------------------------------------------------------------------------------------

local function record_of(work)
  return work and work.detail and work.detail:record() or stats.accumulator():record()
end

--- Records are checked before they become durable, and merging keeps them valid, so this cannot fail.
local function summary(record) return assert(stats.summary(record)) end

--- The numbers of a run about which nothing is known.
function outcome.nothing() return summary(record_of(nil)) end

--- The executions of a workflow's parts in all, and how many of them were followed by another; nil where each part was executed once.
---@return integer? executions, integer? retried
local function counts_of(entry, name)
  local work = entry.work[name]
  if not work or (work.retried or 0) == 0 then return nil, nil end
  return work.runs, work.retried
end

--- One workflow's result.
function outcome.workflow(entry, name, state)
  local executions, retried = counts_of(entry, name)
  return { workflow = name, state = state, executions = executions, retried = retried, stats = summary(record_of(entry.work[name])) }
end

local function own_incidents(job, incidents)
  local known = {}
  for _, incident in ipairs(incidents) do known[("%s %s"):format(incident.node, incident.id)] = true end
  for _, row in ipairs(errors.incidents_of { job = job }) do
    if #incidents >= INCIDENTS_MAX then return end
    if not known[("%s %s"):format(row.node, row.id)] then incidents[#incidents + 1] = row end
  end
end

--- Counts without those that are 0, and nil when none is left: thousands of small results are kept.
local function lean(counts)
  local out
  for key, value in next, counts or {} do -- order-free: a copy
    if value ~= 0 then
      out = out or {}
      out[key] = value
    end
  end
  return out
end

--- A record without what is empty in it.
local function lean_record(record)
  local out = {}
  for key, value in next, record do -- order-free: a copy
    if key == "counts" then
      out.counts = lean(value)
    elseif type(value) ~= "table" or next(value) ~= nil then
      out[key] = value
    end
  end
  return out
end

local function attempts_of(entry, dc)
  local out = {}
  for i, row in ipairs(entry.attempts or {}) do
    local copy = {}
    for key, value in next, row do copy[key] = value end
    copy.dc = copy.dc or dc
    if type(copy.reason) == "string" then copy.reason = copy.reason ~= "" and copy.reason:sub(1, REASON_MAX) or nil end
    copy.stats = lean(copy.stats)
    out[i] = copy
  end
  return out
end

--- The result with the records of its workflows; nil when that is too large.
local function compact(entry, order, states, head)
  local result = {}
  for key, value in next, head do result[key] = value end
  for i, name in ipairs(order) do
    local executions, retried = counts_of(entry, name)
    result.workflows[i] = {
      workflow = name, state = states[name], executions = executions, retried = retried, record = lean_record(record_of(entry.work[name])),
    }
  end
  return result
end

--- A record cut to `share` bytes (nil: uncut); if there is no room for detail, only its counts.
local function cut_to(record, bytes)
  if not bytes then return record end
  return bytes >= stats.FIT_LEAST and stats.fit(record, bytes) or stats.least(record)
end

local function no_pause() end

--- The workflows' records in the graph's order, the whole run's record, and an upper bound of their bytes.
local function records_of(o)
  local records, all, bytes = {}, stats.accumulator(), 0
  for i, name in ipairs(o.order) do
    records[i] = record_of(o.entry.work[name])
    bytes = bytes + stats.size(records[i])
    if #o.order > 1 then all:add(records[i]) end
    o.pause()
  end
  local whole = #o.order == 1 and records[1] or all:record()
  return records, whole, bytes + stats.size(whole)
end

--- The whole result, with `share` bytes for each workflow's record and `room` for the run's (nil: uncut).
local function build(o, head, records, whole, share, room)
  local result = {}
  for key, value in next, head do result[key] = value end
  if o.entry.upstream then -- The tier above merges: it gets the record itself.
    result.stats, result.workflows = cut_to(whole, room), nil
    return outcome.encode(result)
  end
  result.workflows = {}
  for i, name in ipairs(o.order) do
    local executions, retried = counts_of(o.entry, name)
    result.workflows[i] = {
      workflow = name, state = o.states[name], executions = executions, retried = retried, stats = summary(cut_to(records[i], share)),
    }
    o.pause()
  end
  result.stats = summary(cut_to(whole, room))
  return outcome.encode(result)
end

--- The whole run's result as bytes, within the budget.
---@param o { entry: table, order: string[], states: table<string, string>, state: string, reason: string?, node: string,
---  dc: string, elapsed_ms: number, live: table, pause: fun()? }  `pause` is called between workflows: it may wait, for a large answer
---  takes seconds
---@return string bytes
function outcome.result(o)
  o.pause = o.pause or no_pause
  local entry = o.entry
  local budget = entry.upstream and stats.PART_MAX or outcome.RESULT_MAX
  local head = {
    job = entry.job, name = entry.name, state = o.state, reason = o.reason and o.reason:sub(1, REASON_MAX), node = o.node, workflows = {},
    attempts = attempts_of(entry, o.dc), left_out = entry.left_out, incidents = {}, elapsed_ms = math.floor(o.elapsed_ms),
    totals = lean(outcome.totals(entry, o.live)) or {},
  }
  for i, incident in ipairs(entry.incidents or {}) do head.incidents[i] = incident end
  own_incidents(entry.job, head.incidents)
  local bytes
  if not entry.upstream then
    bytes = outcome.encode(compact(entry, o.order, o.states, head))
    if #bytes <= COMPACT_MAX then return bytes end
  end
  local records, whole, most = records_of(o)
  if most <= 2 * budget then bytes = build(o, head, records, whole) end -- Do not build a result that is far too large.
  local share, room = budget // (2 * math.max(1, #o.order)), budget // 4
  while (not bytes or #bytes > budget) and share > 0 do
    if share < stats.FIT_LEAST then share = 0 end -- The last try: counts for each workflow, detail for the whole run.
    head.cut = not entry.upstream and ("the whole had %d bytes, %d are the limit; detail was left out"):format(bytes and #bytes or most, budget)
      or nil -- A share's record has its own `cut`.
    while #head.attempts > 100 do
      head.attempts[#head.attempts] = nil
      head.left_out = (head.left_out or 0) + 1
    end
    bytes = build(o, head, records, whole, share, room)
    share = share // 2
  end
  if #bytes > budget then return outcome.small(entry, o.state, o.reason, o.node, o.elapsed_ms, "its result was too large") end
  return bytes
end

--- The result of a run that has no other: its state, and the reason that there are no numbers.
---@return string bytes
function outcome.small(entry, state, reason, node, elapsed_ms, why)
  return outcome.encode {
    job = entry.job, name = entry.name, state = state, reason = (reason or why):sub(1, REASON_MAX), node = node,
    cut = not entry.upstream and why or nil,
    elapsed_ms = math.floor(elapsed_ms), totals = {}, attempts = {}, incidents = {}, workflows = not entry.upstream and {} or nil,
    stats = entry.upstream and stats.accumulator():record() or outcome.nothing(),
  }
end

return outcome
