--- stats.recorder: the measurements of one running part. Names are bounded here, where the script gives them (stats/names.lua).
local histogram = require "shoal.core.histogram"
local names = require "shoal.job.stats.names"

local recorder = {}

local COUNTER_MAX = 1 << 53 -- A part's counter, from zero: exact as a double, and a thousand parts add up without wrapping.

---@class Recorder
---@field counts table<string, integer>  of fixed names: requests, ok, errors, iterations, bytes_in, bytes_out, repeated; dropped, late,
---  interrupted (iterations); checks_passed, checks_failed; outside, outside_failed (requests of setup and teardown)
---@field commands table[]
---@field under_way integer  iterations that have begun and not ended
---@field open_loop boolean   also record latencies from the requests' own start
---@field wanted_milli? integer  iterations that an open loop wants in 1000 s
---@field load_from_us? integer  when load began and ended, on the clock of `export`
---@field load_to_us? integer
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

local HISTOGRAMS = { histogram = "latency", failures = "failures", raw = "raw" } -- Of a request's entry, and their fields of a record.

local function sum_requests(into, entry)
  into = into or { ok = 0, failed = 0 }
  into.ok, into.failed = into.ok + entry.ok, into.failed + entry.failed
  for key in next, HISTOGRAMS do -- order-free: each by itself
    if entry[key] then into[key] = sum_histograms(into[key], entry[key]) end
  end
  return into
end

--- The maps by name, and how two entries join. Each map is created on first use, for a command needs none.
local MAPS = {
  errors = sum, requests = sum_requests, checks = sum_checks, counters = sum, timers = sum_histograms, own = sum_histograms,
  outside = sum_requests,
}

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
    counts = { requests = 0, ok = 0, errors = 0, iterations = 0, bytes_in = 0, bytes_out = 0 }, commands = {}, under_way = 0,
    open_loop = false,
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

local function new_request() return { ok = 0, failed = 0 } end
local function new_check() return { passed = 0, failed = 0 } end

--- Record a duration under a timer's name.
---@param name string
---@param ns integer
function Recorder:time(name, ns)
  local h = self.timers.map[name] or entry_of(self.timers, name, histogram.new)
  h:record(ns > 0 and ns or 0)
end

--- Record a duration of our own: "iteration", "start_delay".
---@param name string
---@param ns integer
function Recorder:measure(name, ns)
  local h = self.own.map[name] or entry_of(self.own, name, histogram.new)
  h:record(ns > 0 and ns or 0)
end

local function observe(entry, key, ns)
  local h = entry[key]
  if not h then
    h = histogram.new()
    entry[key] = h
  end
  h:record(ns > 0 and ns or 0)
end

--- Record one request. `kind` is the kind of error, or nil. Latencies of failures have a histogram of their own.
---@param name string
---@param latency_ns integer
---@param kind? string
---@param bytes_in? integer
---@param raw_ns? integer  in an open loop, where latency_ns runs from the intended start: from the request's own start
function Recorder:request(name, latency_ns, kind, bytes_in, raw_ns)
  local entry = self.requests.map[name] or entry_of(self.requests, name, new_request)
  local counts = self.counts
  counts.requests = counts.requests + 1
  if bytes_in then counts.bytes_in = counts.bytes_in + bytes_in end
  if kind then
    entry.failed, counts.errors = entry.failed + 1, counts.errors + 1
    self:failure(kind)
    return observe(entry, "failures", latency_ns)
  end
  entry.ok, counts.ok = entry.ok + 1, counts.ok + 1
  observe(entry, "histogram", latency_ns)
  if raw_ns then observe(entry, "raw", raw_ns) end
end

--- Record one request of setup or teardown: in no rate, share or quantile of the load, and its names leave those of the load their room.
---@param phase "setup"|"teardown"
---@param name string
---@param latency_ns integer
---@param kind? string
function Recorder:beside(phase, name, latency_ns, kind)
  local entry, counts = entry_of(self.outside, ("(%s) %s"):format(phase, name), new_request), self.counts
  counts.outside = (counts.outside or 0) + 1
  if kind then
    entry.failed, counts.outside_failed = entry.failed + 1, (counts.outside_failed or 0) + 1
    self:failure(("(%s) %s"):format(phase, kind))
  else
    entry.ok = entry.ok + 1
  end
  observe(entry, "histogram", latency_ns)
end

--- Add to a count that exists only when it is not 0.
---@param name "dropped"|"late"|"interrupted"
---@param n integer
function Recorder:tally(name, n)
  if n > 0 then self.counts[name] = (self.counts[name] or 0) + n end
end

--- The part ends here: what is under way is interrupted, and load that did not end ends now.
---@param now_us integer
function Recorder:stop(now_us)
  self:tally("interrupted", self.under_way)
  self.under_way = 0
  if self.load_from_us and not self.load_to_us then self.load_to_us = math.max(now_us, self.load_from_us) end
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
  local counts = self.counts
  if passed then
    entry.passed, counts.checks_passed = entry.passed + 1, (counts.checks_passed or 0) + 1
  else
    entry.failed, counts.checks_failed = entry.failed + 1, (counts.checks_failed or 0) + 1
  end
end

--- Add n to a counter, unless its sum would no longer be exact: then nothing is added.
---@param name string
---@param n integer  at most 2^53 from zero
---@return integer? sum, integer? would_be
function Recorder:count(name, n)
  local counters = self.counters
  local at = counters:at(names.short(name))
  local total = (counters.map[at] or 0) + n
  if total > COUNTER_MAX or total < -COUNTER_MAX then return nil, total end
  counters.map[at] = total
  return total
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
  local record = { counts = copied(self.counts), elapsed_ms = elapsed_ms, wanted_milli = self.wanted_milli }
  local from_us = self.load_from_us
  if from_us then record.load = { { from_us, self.load_to_us or math.max(from_us, elapsed_ms * 1000) } } end
  if light then return record end
  record.errors, record.counters, record.commands = copied(map_of(self, "errors")), copied(map_of(self, "counters")), copied(self.commands)
  record.requests, record.latency, record.failures, record.raw, record.timers, record.own, record.checks = {}, {}, {}, {}, {}, {}, {}
  for name, entry in next, map_of(self, "requests") do -- order-free: by name
    record.requests[name] = { ok = entry.ok, failed = entry.failed }
    for key, field in next, HISTOGRAMS do -- order-free: each by itself
      if entry[key] then record[field][name] = entry[key]:encode() end
    end
  end
  record.outside, record.outside_latency = {}, {}
  for name, entry in next, map_of(self, "outside") do -- order-free: by name
    record.outside[name], record.outside_latency[name] = { ok = entry.ok, failed = entry.failed }, entry.histogram:encode()
  end
  for name, h in next, map_of(self, "timers") do record.timers[name] = h:encode() end -- order-free: by name
  for name, h in next, map_of(self, "own") do record.own[name] = h:encode() end -- order-free: by name
  -- order-free: by name
  for name, entry in next, map_of(self, "checks") do record.checks[name] = { passed = entry.passed, failed = entry.failed } end
  return record
end

return recorder
