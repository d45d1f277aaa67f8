--- tally: the sums over the parts of a workflow, updated as each part ends. Pure, and part of the ledger's state: it alone holds the
--- numbers of ended parts.
---
--- The numbers of one attempt are *counts*: a flat table of integers (requests, ok, errors, iterations, ...). They are summed, except
--- `executions` (the most times that one piece of the work was executed), of which the greatest is kept. An accumulator of stats.lua
--- merges the detail (histograms, checks, outputs) of attempts that reported a result. A lost attempt is listed with its last
--- progress, and counted in `lost`.
local stats = require "shoal.job.stats"

local tally = {}

local ATTEMPTS_MAX = 500 -- Rows of completed attempts, and as many of others; the rest is only counted.
local INCIDENTS_MAX = 100

---@class Tally
---@field open integer       parts that are pending or dispatched
---@field completed integer
---@field failed integer
---@field cancelled integer
---@field requests integer   of parts that completed
---@field errors integer
---@field checks? integer    the same of checks
---@field checks_failed? integer
---@field counts table       over all closed attempts
---@field runs? integer       executions of its parts, in all; those of a tier below included
---@field retried? integer    executions that were followed by another of the same part
---@field detail? table      an accumulator of stats.lua
---@field failed_n? integer  the first part (in order of the split) that failed, and why
---@field failed_why? string

---@param parts integer
---@return Tally
function tally.new(parts)
  return { open = parts, completed = 0, failed = 0, cancelled = 0, requests = 0, errors = 0, counts = {} }
end

--- Add counts to counts.
---@param into table
---@param counts? table
---@return table into
function tally.add(into, counts)
  for key, value in next, counts or {} do -- order-free: integer sums by name
    if math.type(value) == "integer" and value ~= 0 and key ~= "runs" and key ~= "retried" then
      if key == "executions" then
        into[key] = math.max(into[key] or 0, value)
      else
        into[key] = (into[key] or 0) + value
      end
    end
  end
  return into
end

local judged = {}

--- Cache a result that the leader has checked while its command is in flight, so that `read` need not decode it again.
---@param bytes string
---@param inner table?  nil: drop it
function tally.judged(bytes, inner) judged[bytes] = inner end

--- A part's decoded result; never nil, for a result is checked before it enters the log.
---@param bytes? string
---@return { stats?: table, incidents?: table[], attempts?: table[] }
function tally.read(bytes)
  if not bytes or bytes == "" then return {} end
  return judged[bytes] or stats.readable(bytes) or {}
end

--- List one attempt that is over. An executor that is a tier reports its own attempts (`within`); then those are listed instead.
---@param run table
---@param work Tally
---@param row table
---@param within? table[]
function tally.attempt(run, work, row, within)
  tally.add(work.counts, row.stats)
  if row.state == "lost" and row.stats then work.counts.lost = (work.counts.lost or 0) + (row.stats.requests or 0) end
  run.attempts = run.attempts or { completed = 0, others = 0 }
  local list = run.attempts
  for _, each in ipairs(within and #within > 0 and within or { row }) do
    local kind = each.state == "completed" and "completed" or "others"
    if list[kind] < ATTEMPTS_MAX then
      list[kind] = list[kind] + 1
      list[#list + 1] = each
    else
      run.left_out = (run.left_out or 0) + 1
    end
  end
end

--- Keep the incidents of parts, each once, for parts of one node report the same ones.
---@param run table
---@param incidents? table[]
function tally.incidents(run, incidents)
  for _, incident in ipairs(incidents or {}) do
    run.incidents = run.incidents or {}
    if #run.incidents >= INCIDENTS_MAX then return end
    local known = false
    for _, other in ipairs(run.incidents) do known = known or other.id == incident.id and other.node == incident.node end
    if not known then run.incidents[#run.incidents + 1] = incident end
  end
end

--- Merge the detail of an attempt that reported a result.
---@param work Tally
---@param record? table
---@param completed table|false|nil  its counts, if it completed
---@param offset_ms? integer  from the beginning of the run to that of the record's clock
function tally.measured(work, record, completed, offset_ms)
  if completed then
    work.requests, work.errors = work.requests + (completed.requests or 0), work.errors + (completed.errors or 0)
    local failed = completed.checks_failed or 0
    work.checks = (work.checks or 0) + failed + (completed.checks_passed or 0)
    work.checks_failed = (work.checks_failed or 0) + failed
  end
  if not record then return end
  work.detail = work.detail or stats.accumulator()
  work.detail:add(record, (offset_ms or 0) * 1000)
end

--- A part has its final state.
---@param work Tally
---@param part table
---@param state "completed"|"failed"|"cancelled"
---@param reason? string
function tally.ended(work, part, state, reason)
  work.open = work.open - 1
  assert(work.open >= 0)
  work[state] = work[state] + 1
  if state == "failed" and (not work.failed_n or part.n < work.failed_n) then
    work.failed_n, work.failed_why = part.n, ("%s: %s"):format(part.part, reason or "no reason was given")
  end
end

--- A copy that may be changed.
function tally.copy(work)
  local copy = {}
  for key, value in next, work do copy[key] = value end
  copy.counts = tally.add({}, work.counts)
  copy.detail = work.detail and stats.of_bytes(work.detail:bytes())
  return copy
end

--- The same without live objects, for a snapshot.
function tally.packed(work)
  local copy = {}
  for key, value in next, work do copy[key] = value end
  copy.detail = work.detail and work.detail:bytes()
  return copy
end

function tally.unpacked(packed)
  if packed.detail then packed.detail = stats.of_bytes(packed.detail) end
  return packed
end

return tally
