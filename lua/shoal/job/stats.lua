--- stats: the measurements of parts, and how they are merged. Pure functions. The result of merging does not depend on the order of the
--- records, so workers, managers and gates may merge in any order.
---
--- Measurements travel as *records*, in which each field is optional:
---     { counts   = { requests =, ok =, errors =, iterations =, bytes_in =, dropped =, ... },  summed (stats/recorder.lua)
---       errors   = { timeout = 3, refused = 1 },                                   summed, by kind
---       requests = { ["GET /cart"] = { ok =, failed = } },                         summed, by request name
---       checks   = { ["status 200"] = { passed =, failed = } },                    summed
---       counters = { bought = 12 },                                                summed; of the script's own names
---       latency  = { ["GET /cart"] = bytes },        histograms of nanoseconds (shoal.core.histogram), merged; of requests that worked
---       failures = { ["GET /cart"] = bytes },        the same, of requests that failed
---       raw      = { ["GET /cart"] = bytes },        the same as latency, from each request's own start; in open loops
---       timers   = { db = bytes },                   of the script's own timers
---       own      = { iteration =, start_delay = },   ours: whole iterations; in open loops, how late our timers fired
---       outside  = { ["(setup) GET /login"] = { ok =, failed = } }, outside_latency = { the same names = bytes },
---                                                    requests of setup and teardown, which count nowhere else
---       commands = { { run =, status =, signal =, head =, tail =, bytes =, elapsed_ms =, left =? } },     gathered, sorted by `run`; without a
---                                                    status: what a script printed
---       load     = { { from_us, to_us }, ... },      united: when load was generated, from the beginning of the run
---       wanted_milli =,                              summed: iterations that open loops want in 1000 s
---       elapsed_ms =,                                the greatest: of a part, from its start to its end
---       cut      = { output_bytes =, names =, histograms =, commands = } }          summed: amounts left out; absent when none
---
--- A *rate* is a count divided by the time under load: the union of the stretches in which the parts generated load, on the clock of the
--- leader of the run. So setup and teardown, gaps between rounds of parts, waiting and retried attempts (whose numbers do not count) are
--- in no rate, and parts side by side share their time. A part's load begins with its first iteration. It ends with the last one;
--- in an open loop that kept up, with the end of its schedule, for the rate of an open loop is that of its beginnings.
---
--- *Latencies* of an open loop run from the intended start of an iteration, for its first request, when no user was free in time:
--- a slow server is charged for the requests that it kept waiting. Our own lateness (a timer that fires late) is not charged
--- to the server; `own.start_delay` shows it. `raw` leaves the waiting out.
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
local spans = require "shoal.job.stats.spans"

local stats = {
  NAMES_MAX = names.NAMES_MAX, NAME_BYTES_MAX = names.NAME_BYTES_MAX, OTHER = names.OTHER,
  COMMANDS_MAX = merge.COMMANDS_MAX, OUTPUT_MAX = merge.OUTPUT_MAX, PART_MAX = fit.PART_MAX, FIT_LEAST = fit.LEAST,
  INCIDENTS_MAX = check.INCIDENTS_MAX, ATTEMPTS_MAX = check.ATTEMPTS_MAX, RESULT_MAX = check.RESULT_MAX,
  recorder = recorder.new, check = check.record, readable = check.result, accumulator = merge.new, of_bytes = merge.of_bytes,
  fit = fit.record, least = fit.least, size = fit.bytes, pack = fit.pack, trim = fit.trim, short = names.short,
  SPANS_MAX = spans.SPANS_MAX, REACH_US = spans.REACH_US, shifted = spans.shifted, union = spans.add, total = spans.total,
}

local NS_PER_MS = 1000000

local function copied(map)
  local out = {}
  for k, v in next, map do out[k] = v end -- order-free: a copy
  return out
end

local COUNTS_MAX = 32 -- Ours have fourteen.

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
    count = h:count(), min_ms = ms(h:min()), mean_ms = ms(h:mean()), p50_ms = ms(h:quantile(0.5)), p90_ms = ms(h:quantile(0.9)),
    p95_ms = ms(h:quantile(0.95)), p99_ms = ms(h:quantile(0.99)), p999_ms = ms(h:quantile(0.999)), max_ms = ms(h:max()),
  }
end

--- Rows by name, of the histograms of one field.
local function rows_of(map, what)
  local rows = {}
  for name, bytes in sorted(map or {}) do
    local h, err, code = histogram.decode(bytes)
    if not h then return nil, ("stats: %s %s: %s"):format(what, name, err), code end
    local row = latency_of(h)
    row.name = name
    rows[#rows + 1] = row
  end
  return rows
end

--- The histograms of one field, by name, and all of them together.
local function histograms_of(record, field)
  local byname, all = {}, histogram.new()
  for name, bytes in sorted(record[field] or {}) do
    local h, err, code = histogram.decode(bytes)
    if not h then return nil, ("stats: %s of %s: %s"):format(field, name, err), code end
    byname[name] = h
    assert(all:merge(h))
  end
  return byname, all
end

--- A quantile of all requests that worked; nil without one.
---@param record table
---@param q number
---@return number?
function stats.quantile_ms(record, q)
  local byname, all = histograms_of(record, "latency")
  return byname and all:count() > 0 and ms(all:quantile(q)) or nil
end

--- The pace of an open loop: what was wanted, and what came of it.
local function pace_of(record, summary)
  if (record.wanted_milli or 0) == 0 then return nil end
  local counts, delay = record.counts or {}, record.own and record.own.start_delay
  local h = delay and histogram.decode(delay)
  return {
    wanted_per_second = record.wanted_milli / 1000, begun_per_second = summary.iterations_per_second, late = counts.late or 0,
    dropped = counts.dropped or 0, start_delay = h and latency_of(h) or nil,
  }
end

--- A record as people read it: rates, quantiles in milliseconds, requests as a list by name.
---@param record table
---@return table? summary, string? err, string? code
function stats.summary(record)
  local counts, load_us = record.counts or {}, spans.total(record.load)
  local load_s = record.load and load_us / 1000000 or (record.elapsed_ms or 0) / 1000
  local function rate(n) return load_s > 0 and (n or 0) / load_s or 0 end
  local out = {
    requests = counts.requests or 0, ok = counts.ok or 0, failed = counts.errors or 0, iterations = counts.iterations or 0,
    interrupted = counts.interrupted or 0, bytes_in = counts.bytes_in or 0, elapsed_ms = record.elapsed_ms or 0, load_ms = load_s * 1000,
    requests_per_second = rate(counts.requests), iterations_per_second = rate(counts.iterations), errors = copied(record.errors or {}),
    counters = copied(record.counters or {}), checks = {}, by_name = {}, commands = record.commands or {}, cut = record.cut,
  }
  out.repeated, out.redirected = counts.repeated, counts.redirected -- Requests that were sent again; redirects that were followed.
  local latency, all, code = histograms_of(record, "latency")
  if not latency then return nil, all, code end
  local failures, all_failures, raw, all_raw, outside
  failures, all_failures, code = histograms_of(record, "failures")
  if not failures then return nil, all_failures, code end
  raw, all_raw, code = histograms_of(record, "raw")
  if not raw then return nil, all_raw, code end
  out.latency = latency_of(all)
  out.failure_latency = all_failures:count() > 0 and latency_of(all_failures) or nil
  out.raw_latency = all_raw:count() > 0 and latency_of(all_raw) or nil
  local named = copied(record.requests or {})
  for _, map in ipairs { latency, failures } do
    for name in next, map do named[name] = named[name] or {} end -- order-free: a set
  end
  for name, own in sorted(named) do
    local row = latency[name] and latency_of(latency[name]) or {}
    row.name, row.ok, row.failed = name, own.ok or 0, own.failed or 0
    row.per_second = rate(row.ok + row.failed)
    row.failures, row.raw = failures[name] and latency_of(failures[name]), raw[name] and latency_of(raw[name])
    out.by_name[#out.by_name + 1] = row
  end
  local problem
  out.timers, problem, code = rows_of(record.timers, "timer")
  if not out.timers then return nil, problem, code end
  outside, problem, code = rows_of(record.outside_latency, "outside_latency")
  if not outside then return nil, problem, code end
  for _, row in ipairs(outside) do
    local own = record.outside and record.outside[row.name] or {}
    row.ok, row.failed = own.ok or 0, own.failed or 0
  end
  out.outside = outside[1] and outside or nil
  local iteration = record.own and record.own.iteration
  if iteration then
    local h, err, why = histogram.decode(iteration)
    if not h then return nil, "stats: own iteration: " .. err, why end
    out.iteration = latency_of(h)
  end
  out.pace = pace_of(record, out)
  for name, entry in sorted(record.checks or {}) do
    out.checks[#out.checks + 1] = { name = name, passed = entry.passed or 0, failed = entry.failed or 0 }
  end
  return out
end

return stats
