--- stats.recorder: the measurements of one running part. Names are bounded here, where the script gives them (stats/names.lua).
local histogram = require "shoal.core.histogram"
local names = require "shoal.job.stats.names"

local recorder = {}

---@class Recorder
---@field counts table<string, integer>  of fixed names: requests, ok, errors, iterations, bytes_in, bytes_out, repeated
---@field commands table[]
local Recorder = {}

local function sum(into, n) return (into or 0) + n end

local function sum_checks(into, entry)
  into = into or { passed = 0, failed = 0 }
  into.passed, into.failed = into.passed + entry.passed, into.failed + entry.failed
  return into
end

local function sum_histograms(into, h)
  into = into or histogram.new()
  assert(into:merge(h)) -- One process cannot make HISTOGRAM_COUNT_MAX calls.
  return into
end

local function sum_requests(into, entry)
  into = into or { ok = 0, failed = 0, histogram = histogram.new() }
  into.ok, into.failed = into.ok + entry.ok, into.failed + entry.failed
  sum_histograms(into.histogram, entry.histogram)
  return into
end

--- The maps by name, and how two entries join. Each map is created on first use, for a command needs none.
local MAPS = { errors = sum, requests = sum_requests, checks = sum_checks, counters = sum, timers = sum_histograms }

function Recorder.__index(self, key)
  local join = MAPS[key]
  if not join then return Recorder[key] end
  local bounded = names.new(join)
  rawset(self, key, bounded)
  return bounded
end

--- `export` makes a record of it at any time.
---@return Recorder
function recorder.new()
  return setmetatable({
    counts = { requests = 0, ok = 0, errors = 0, iterations = 0, bytes_in = 0, bytes_out = 0 }, commands = {},
  }, Recorder)
end

--- The entry of a name, created if missing.
local function entry_of(bounded, name, fresh)
  local at = bounded:at(names.short(name))
  local entry = bounded.map[at]
  if entry == nil then
    entry = fresh()
    bounded.map[at] = entry
  end
  return entry
end

local function new_request() return { ok = 0, failed = 0, histogram = histogram.new() } end
local function new_check() return { passed = 0, failed = 0 } end

--- Record a duration under a timer's name.
---@param name string
---@param ns integer
function Recorder:time(name, ns)
  local h = self.timers.map[name] or entry_of(self.timers, name, histogram.new)
  h:record(ns > 0 and ns or 0)
end

--- Record one request. `kind` is the kind of error, or nil.
---@param name string
---@param latency_ns integer
---@param kind? string
---@param bytes_in? integer
function Recorder:request(name, latency_ns, kind, bytes_in)
  local entry = self.requests.map[name] or entry_of(self.requests, name, new_request)
  local counts = self.counts
  counts.requests = counts.requests + 1
  if kind then
    entry.failed, counts.errors = entry.failed + 1, counts.errors + 1
    self:failure(kind)
  else
    entry.ok, counts.ok = entry.ok + 1, counts.ok + 1
  end
  if bytes_in then counts.bytes_in = counts.bytes_in + bytes_in end
  entry.histogram:record(latency_ns > 0 and latency_ns or 0)
end

--- Record a failure outside a request: a script's error.
---@param kind string
function Recorder:failure(kind)
  self.errors:add(names.short(kind), 1)
end

---@param name string
---@param passed any
function Recorder:check(name, passed)
  local entry = self.checks.map[name] or entry_of(self.checks, name, new_check)
  if passed then entry.passed = entry.passed + 1 else entry.failed = entry.failed + 1 end
end

---@param name string
---@param n integer
function Recorder:count(name, n)
  self.counters:add(names.short(name), n)
end

local NONE = {}

--- A map of the recorder, or an empty one.
local function map_of(self, key)
  local bounded = rawget(self, key)
  return bounded and bounded.map or NONE
end

local function copied(map)
  local out = {}
  for k, v in next, map do out[k] = v end
  return out
end

--- The numbers so far, as a record. `light`: only the counts, for progress, which is frequent.
---@param elapsed_ms integer
---@param light? boolean
---@return table record
function Recorder:export(elapsed_ms, light)
  local record = { counts = copied(self.counts), elapsed_ms = elapsed_ms }
  if light then return record end
  record.errors, record.counters, record.commands = copied(map_of(self, "errors")), copied(map_of(self, "counters")), copied(self.commands)
  record.requests, record.latency, record.timers, record.checks = {}, {}, {}, {}
  for name, entry in next, map_of(self, "requests") do -- order-free: by name
    record.requests[name] = { ok = entry.ok, failed = entry.failed }
    record.latency[name] = entry.histogram:encode()
  end
  for name, h in next, map_of(self, "timers") do record.timers[name] = h:encode() end -- order-free: by name
  -- order-free: by name
  for name, entry in next, map_of(self, "checks") do record.checks[name] = { passed = entry.passed, failed = entry.failed } end
  return record
end

return recorder
