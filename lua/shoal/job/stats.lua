--- stats: the measurements of parts, and how they are merged. Pure functions. The result of merging does not depend on the order of the
--- records, so workers, managers and gates may merge in any order.
---
--- Measurements travel as *records*, in which each field is optional:
---     { counts   = { requests =, ok =, errors =, iterations =, bytes_in =, ... },  summed
---       errors   = { timeout = 3, refused = 1 },                                   summed, by kind
---       requests = { ["GET /cart"] = { ok =, failed = } },                         summed, by request name
---       checks   = { ["status 200"] = { passed =, failed = } },                    summed
---       counters = { bought = 12 },                                                summed; of the script's own names
---       latency  = { ["GET /cart"] = bytes },        histograms of nanoseconds (shoal.core.histogram), merged; of requests
---       timers   = { iteration = bytes },            the same; of whole iterations, and of the script's own timers
---       commands = { { run =, status =, signal =, head =, tail =, bytes =, elapsed_ms = } },     gathered, sorted by `run`
---       elapsed_ms =,                                the greatest: parts run side by side
---       cut      = { output_bytes =, names =, histograms =, commands = } }          summed: amounts left out; absent when none
---
--- Every map has at most NAMES_MAX names and "(other)". Quantiles are read from the merged histogram, never averaged.
---
---     stats.recorder()               where a part records                              stats/recorder.lua
---     stats.check(record)            whether an untrusted table is a record            stats/check.lua
---     stats.readable(bytes)          whether untrusted bytes are a part's result
---     stats.accumulator()            adds records up                                   stats/merge.lua
---     stats.fit(record, max_bytes)   cuts by rule, and counts what it cut              stats/fit.lua
---     stats.pack(inner)              a part's result, at most PART_MAX bytes
---     stats.summary(record)          as people read it
local check = require "shoal.job.stats.check"
local fit = require "shoal.job.stats.fit"
local histogram = require "shoal.core.histogram"
local merge = require "shoal.job.stats.merge"
local names = require "shoal.job.stats.names"
local recorder = require "shoal.job.stats.recorder"
local sorted = require "shoal.base.sorted"

local stats = {
  NAMES_MAX = names.NAMES_MAX, NAME_BYTES_MAX = names.NAME_BYTES_MAX, OTHER = names.OTHER,
  COMMANDS_MAX = merge.COMMANDS_MAX, OUTPUT_MAX = merge.OUTPUT_MAX, PART_MAX = fit.PART_MAX, FIT_LEAST = fit.LEAST,
  INCIDENTS_MAX = check.INCIDENTS_MAX, ATTEMPTS_MAX = check.ATTEMPTS_MAX, RESULT_MAX = check.RESULT_MAX,
  recorder = recorder.new, check = check.record, readable = check.result, accumulator = merge.new, of_bytes = merge.of_bytes,
  fit = fit.record, least = fit.least, size = fit.bytes, pack = fit.pack, trim = fit.trim, short = names.short,
}

local NS_PER_MS = 1000000

local function copied(map)
  local out = {}
  for k, v in next, map do out[k] = v end -- order-free: a copy
  return out
end

local COUNTS_MAX = 32 -- Ours have seven.

--- The counts that progress and results carry beside a record: at most COUNTS_MAX, those whose names sort first.
---@param counts table<string, integer>
---@return table<string, integer>
function stats.small(counts)
  local n = 0
  for _ in next, counts do n = n + 1 end -- order-free: a count
  if n <= COUNTS_MAX then return counts end
  local out, left = {}, COUNTS_MAX
  for name, count in sorted(counts) do
    if left == 0 then break end
    out[name], left = count, left - 1
  end
  return out
end

--- Merge records into one. One malformed record makes the whole merge fail, so that no sum has a gap.
---@param records table[]
---@return table? record, string? err, string? code
function stats.merge(records)
  local sum = merge.new()
  for _, record in ipairs(records) do
    local good, err, code = check.record(record)
    if not good then return nil, err, code end
    sum:add(record)
  end
  return sum:record()
end

-- Reading --------------------------------------------------------------------------------------------------------------

local function ms(ns) return ns and ns / NS_PER_MS end

local function latency_of(h)
  return {
    count = h:count(), min_ms = ms(h:min()), mean_ms = ms(h:mean()), p50_ms = ms(h:quantile(0.5)), p95_ms = ms(h:quantile(0.95)),
    p99_ms = ms(h:quantile(0.99)), max_ms = ms(h:max()),
  }
end

--- A record as people read it: rates, quantiles in milliseconds, requests as a list by name.
---@param record table
---@return table? summary, string? err, string? code
function stats.summary(record)
  local counts, elapsed_s = record.counts or {}, (record.elapsed_ms or 0) / 1000
  local function rate(n) return elapsed_s > 0 and (n or 0) / elapsed_s or 0 end
  local out = {
    requests = counts.requests or 0, ok = counts.ok or 0, failed = counts.errors or 0, iterations = counts.iterations or 0,
    bytes_in = counts.bytes_in or 0, elapsed_ms = record.elapsed_ms or 0, requests_per_second = rate(counts.requests),
    iterations_per_second = rate(counts.iterations), errors = copied(record.errors or {}), counters = copied(record.counters or {}),
    checks = {}, by_name = {}, timers = {}, commands = record.commands or {}, cut = record.cut,
  }
  local all = histogram.new()
  for name, bytes in sorted(record.latency or {}) do
    local h, err, code = histogram.decode(bytes)
    if not h then return nil, ("stats: latency of %s: %s"):format(name, err), code end
    local own = record.requests and record.requests[name] or {}
    local row = latency_of(h)
    row.name, row.ok, row.failed, row.per_second = name, own.ok or 0, own.failed or 0, rate(h:count())
    out.by_name[#out.by_name + 1] = row
    assert(all:merge(h))
  end
  out.latency = latency_of(all)
  for name, bytes in sorted(record.timers or {}) do
    local h, err, code = histogram.decode(bytes)
    if not h then return nil, ("stats: timer %s: %s"):format(name, err), code end
    local row = latency_of(h)
    row.name = name
    out.timers[#out.timers + 1] = row
  end
  for name, entry in sorted(record.checks or {}) do
    out.checks[#out.checks + 1] = { name = name, passed = entry.passed or 0, failed = entry.failed or 0 }
  end
  return out
end

return stats
