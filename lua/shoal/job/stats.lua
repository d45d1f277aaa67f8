--- stats: what parts measured, and how it is put together. Pure functions; merging is associative and order-free, so that
--- workers, managers and gates may merge in any order and say the same.
---
--- A *record* is what travels, all fields optional:
---     { counts   = { requests =, ok =, errors =, iterations =, bytes_in =, ... },  summed
---       errors   = { timeout = 3, refused = 1 },                                   summed, by kind
---       requests = { ["GET /cart"] = { ok =, failed = } },                         summed, by request name
---       checks   = { ["status 200"] = { passed =, failed = } },                    summed
---       counters = { bought = 12 },                                                summed; the script's own
---       latency  = { ["GET /cart"] = bytes },        histograms of nanoseconds (shoal.core.histogram), merged; of requests
---       timers   = { iteration = bytes },            the same; of whole iterations, and what scripts time themselves
---       commands = { { run =, status =, signal =, head =, tail =, bytes = } },     gathered, sorted by `run`
---       elapsed_ms = }                               the greatest: parts run side by side
---
--- A merged record keeps at most OUTPUT_MAX bytes of commands' output, cut evenly, so that it always fits a message.
---
--- Never averages of percentiles: quantiles are read from the merged histogram.
local histogram = require "shoal.core.histogram"
local sorted = require "shoal.base.sorted"

local stats = {}

local SUMMED = { "counts", "errors", "counters" }
local HISTOGRAMS = { "latency", "timers" }
local SUMMED_PAIRS = { requests = { "ok", "failed" }, checks = { "passed", "failed" } }
local NS_PER_MS = 1000000
local OUTPUT_MAX = 256 * 1024 -- A message has at most 3 MiB, and a result has more in it than this.

-- Recording ------------------------------------------------------------------------------------------------------------

---@class Recorder
local Recorder = {}
Recorder.__index = Recorder

--- Where one part records what happens; `export` makes a record of it at any time.
---@return Recorder
function stats.recorder()
  return setmetatable({
    counts = { requests = 0, ok = 0, errors = 0, iterations = 0, bytes_in = 0, bytes_out = 0 }, errors = {}, names = {},
    checks = {}, counters = {}, commands = {}, timers = {},
  }, Recorder)
end

--- How long something else took.
---@param name string
---@param ns integer
function Recorder:time(name, ns)
  local h = self.timers[name]
  if not h then
    h = histogram.new()
    self.timers[name] = h
  end
  h:record(ns > 0 and ns or 0)
end

--- One request ended. `kind` is what went wrong, or nil.
---@param name string
---@param latency_ns integer
---@param kind? string
---@param bytes_in? integer
function Recorder:request(name, latency_ns, kind, bytes_in)
  local entry = self.names[name]
  if not entry then
    entry = { ok = 0, failed = 0, histogram = histogram.new() }
    self.names[name] = entry
  end
  local counts = self.counts
  counts.requests = counts.requests + 1
  if kind then
    entry.failed, counts.errors = entry.failed + 1, counts.errors + 1
    self.errors[kind] = (self.errors[kind] or 0) + 1
  else
    entry.ok, counts.ok = entry.ok + 1, counts.ok + 1
  end
  if bytes_in then counts.bytes_in = counts.bytes_in + bytes_in end
  entry.histogram:record(latency_ns > 0 and latency_ns or 0)
end

--- A failure that is no request's: a script's error.
function Recorder:failure(kind)
  self.errors[kind] = (self.errors[kind] or 0) + 1
end

---@param name string
---@param passed any
function Recorder:check(name, passed)
  local entry = self.checks[name]
  if not entry then
    entry = { passed = 0, failed = 0 }
    self.checks[name] = entry
  end
  if passed then entry.passed = entry.passed + 1 else entry.failed = entry.failed + 1 end
end

---@param name string
---@param n integer
function Recorder:count(name, n)
  self.counters[name] = (self.counters[name] or 0) + n
end

local function copied(map)
  local out = {}
  for k, v in next, map do out[k] = v end
  return out
end

--- What stands here as a record. `light` leaves out the histograms: progress travels often.
---@param elapsed_ms integer
---@param light? boolean
---@return table record
function Recorder:export(elapsed_ms, light)
  local record = {
    counts = copied(self.counts), errors = copied(self.errors), counters = copied(self.counters), elapsed_ms = elapsed_ms,
  }
  if light then return record end
  record.requests, record.latency, record.timers, record.checks, record.commands = {}, {}, {}, {}, copied(self.commands)
  for name, entry in next, self.names do -- order-free: by name
    record.requests[name] = { ok = entry.ok, failed = entry.failed }
    record.latency[name] = entry.histogram:encode()
  end
  for name, h in next, self.timers do record.timers[name] = h:encode() end -- order-free: by name
  -- order-free: by name
  for name, entry in next, self.checks do record.checks[name] = { passed = entry.passed, failed = entry.failed } end
  return record
end

-- Merging --------------------------------------------------------------------------------------------------------------

local function sum_into(into, map)
  for name, n in next, map do into[name] = (into[name] or 0) + n end
end

local function sum_pairs_into(into, map, fields)
  for name, entry in next, map do -- order-free: integer sums by name
    local sum = into[name]
    if not sum then
      sum = {}
      into[name] = sum
    end
    for _, field in ipairs(fields) do sum[field] = (sum[field] or 0) + (entry[field] or 0) end
  end
end

local function by_run(a, b)
  if a.run ~= b.run then return a.run < b.run end
  return (a.status or 0) < (b.status or 0)
end

local function wrong(what)
  return nil, "stats: " .. what .. " is not as a record has it", "MALFORMED"
end

--- Does this table, from wherever, have a record's shape? (Histograms are judged when they are merged.)
---@return boolean? ok, string? err, string? code
function stats.check(record)
  if type(record) ~= "table" then return wrong "the record" end
  if record.elapsed_ms ~= nil and math.type(record.elapsed_ms) ~= "integer" then return wrong "elapsed_ms" end
  local function each(field, fits)
    local map = record[field]
    if map == nil then return true end
    if type(map) ~= "table" then return false end
    for name, value in next, map do -- order-free: one answer for all
      if type(name) ~= "string" or not fits(value) then return false end
    end
    return true
  end
  for _, field in ipairs(SUMMED) do
    if not each(field, function (v) return math.type(v) == "integer" end) then return wrong(field) end
  end
  for _, field in ipairs(HISTOGRAMS) do
    if not each(field, function (v) return type(v) == "string" end) then return wrong(field) end
  end
  for field, names in sorted(SUMMED_PAIRS) do
    local function fits(v)
      if type(v) ~= "table" then return false end
      for _, name in ipairs(names) do
        if v[name] ~= nil and math.type(v[name]) ~= "integer" then return false end
      end
      return true
    end
    if not each(field, fits) then return wrong(field) end
  end
  if record.commands ~= nil and type(record.commands) ~= "table" then return wrong "commands" end
  for _, run in ipairs(record.commands or {}) do
    if type(run) ~= "table" or type(run.run) ~= "string" then return wrong "commands" end
  end
  return true
end

--- Merge records into one. One that is malformed is a refusal of it all, not a hole in the sum.
---@param records table[]
---@return table? record, string? err, string? code
function stats.merge(records)
  local out = { commands = {}, elapsed_ms = 0 }
  for _, field in ipairs(SUMMED) do out[field] = {} end
  for field in next, SUMMED_PAIRS do out[field] = {} end
  for _, field in ipairs(HISTOGRAMS) do out[field] = {} end
  for _, record in ipairs(records) do
    local good, err, code = stats.check(record)
    if not good then return nil, err, code end
    for _, field in ipairs(SUMMED) do sum_into(out[field], record[field] or {}) end
    for field, names in sorted(SUMMED_PAIRS) do sum_pairs_into(out[field], record[field] or {}, names) end
    for _, field in ipairs(HISTOGRAMS) do
      for name, bytes in sorted(record[field] or {}) do
        local h = out[field][name] or histogram.new()
        out[field][name] = h
        good, err, code = h:merge(bytes)
        if not good then return nil, ("stats: %s of %s: %s"):format(field, name, err), code end
      end
    end
    for _, run in ipairs(record.commands or {}) do out.commands[#out.commands + 1] = run end
    out.elapsed_ms = math.max(out.elapsed_ms, record.elapsed_ms or 0)
  end
  for _, field in ipairs(HISTOGRAMS) do
    for name, h in next, out[field] do out[field][name] = h:encode() end -- order-free: by name
  end
  table.sort(out.commands, by_run)
  return stats.trim(out, OUTPUT_MAX)
end

--- The record with its commands' output cut, evenly, so that all of it has at most so many bytes.
---@param record table
---@param max_bytes integer
---@return table record
function stats.trim(record, max_bytes)
  local runs = record.commands or {}
  local total = 0
  for _, run in ipairs(runs) do total = total + #(run.head or "") + #(run.tail or "") end
  if total <= max_bytes then return record end
  local each = max_bytes // (2 * #runs)
  local out = copied(record)
  out.commands = {}
  for i, run in ipairs(runs) do
    local cut = copied(run)
    cut.head = (run.head or ""):sub(1, each)
    cut.tail = each > 0 and (run.tail or ""):sub(-each) or ""
    out.commands[i] = cut
  end
  return out
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
    checks = {}, by_name = {}, timers = {}, commands = record.commands or {},
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
