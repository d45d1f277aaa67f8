--- tally: what the parts of a workflow come to, added up as they end. Pure, and a part of the ledger's state: the numbers of an ended
--- part are here and nowhere else.
---
--- Numbers of one attempt are *counts*: a flat table of whole numbers (requests, ok, errors, iterations, ...), which add up; only
--- `executions` (how often one piece of the work has been executed at most) is the greatest. Detail (histograms, checks, outputs)
--- is merged by an accumulator of stats.lua. Merged detail comes from attempts that ended by their own word; an attempt that was
--- lost is listed with its last progress, and counted in `lost`.
local stats = require "shoal.job.stats"

local tally = {}

local ATTEMPTS_MAX = 500 -- Rows of attempts that completed, and as many of others; how many more there were is counted.
local INCIDENTS_MAX = 100

---@class Tally
---@field open integer       parts that are pending or dispatched
---@field completed integer
---@field failed integer
---@field cancelled integer
---@field requests integer   of parts that completed
---@field errors integer
---@field counts table       over all closed attempts
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
    if math.type(value) == "integer" and value ~= 0 then
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

--- Keep what a leader has judged for the time in which its command is under way: `read` then need not read it again.
---@param bytes string
---@param inner table?  nil: no longer
function tally.judged(bytes, inner) judged[bytes] = inner end

--- A part's result, read: never nil, for what is in the log was judged before.
---@param bytes? string
---@return { stats?: table, incidents?: table[], attempts?: table[] }
function tally.read(bytes)
  if not bytes or bytes == "" then return {} end
  return judged[bytes] or stats.readable(bytes) or {}
end

--- List one attempt that is over. An executor that is a tier itself lists the attempts `within`; then those are the truth.
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

--- Keep what went wrong below, each incident once: parts of one node bring the same ones.
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

--- Merge the detail of an attempt that ended by its own word.
---@param work Tally
---@param record? table
---@param completed table|false|nil  its counts, when it completed
function tally.measured(work, record, completed)
  if completed then
    work.requests, work.errors = work.requests + (completed.requests or 0), work.errors + (completed.errors or 0)
  end
  if not record then return end
  work.detail = work.detail or stats.accumulator()
  work.detail:add(record)
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

--- A copy that can be changed.
function tally.copy(work)
  local copy = {}
  for key, value in next, work do copy[key] = value end
  copy.counts = tally.add({}, work.counts)
  copy.detail = work.detail and stats.of_bytes(work.detail:bytes())
  return copy
end

--- For a snapshot: the same without live objects.
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
