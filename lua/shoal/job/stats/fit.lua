--- stats.fit: cut a record, or a part's whole result, to a number of bytes, by rule, and count what is left out.
---
--- In this order, until it fits:
---   1. commands' output, evenly, to a quarter of the bytes
---   2. names: in each map the 100, 50, 25, 12, 6 heaviest stay (most requests, values, ...; then by name), the others join "(other)"
---   3. histograms
---   4. commands, to 100, 10, none (failed ones stay longest), without output
---   5. all names; only the counts remain
--- `cut` counts the removed output_bytes, names, histograms and commands; in a result also incidents and attempts.
local check = require "shoal.job.stats.check"
local histogram = require "shoal.core.histogram"
local merge = require "shoal.job.stats.merge"
local msgpack = require "shoal.core.msgpack"
local names = require "shoal.job.stats.names"
local sorted = require "shoal.base.sorted"

local fit = {}

fit.PART_MAX = 1024 * 1024 -- A part's packed result, cut at its source.
fit.LEAST = 16 * 1024      -- Any record can be cut to this.

local TEXT_MAX = 1000      -- Bytes of an incident's message in a result that is cut.
local COUNTS_MAX = 32      -- In a record of counts alone; ours have fourteen.
local HISTOGRAMS = { "latency", "failures", "raw", "timers", "own", "outside_latency" }
local ROW_BYTES, CHECK_BYTES, SUMMARY_BYTES = 256, 16, 1024 -- How much larger a summary is than its record: see `bytes`.

local function copied(map)
  local out = {}
  for k, v in next, map do out[k] = v end -- order-free: a copy
  return out
end

local function entries(map)
  local n = 0
  for _ in next, map or {} do n = n + 1 end -- order-free: a count
  return n
end

--- The greatest difference between the size of a record's summary and of the record.
local function summary_room(record)
  local rows = entries(record.requests) + entries(record.outside)
  for _, field in ipairs(HISTOGRAMS) do rows = rows + entries(record[field]) end
  return SUMMARY_BYTES + ROW_BYTES * rows + CHECK_BYTES * entries(record.checks)
end

--- An upper bound of the bytes of a record, packed, and of its summary. A summary has a row of quantiles for each histogram.
---@param record table
---@return integer
function fit.bytes(record)
  return #assert(msgpack.pack(record)) + summary_room(record)
end

local function add_cut(record, what, n)
  if n <= 0 then return end
  record.cut = copied(record.cut or {})
  record.cut[what] = math.min(check.COUNT_MAX, (record.cut[what] or 0) + n)
end

local SMALL_RUNS, SMALL_BYTES = 4, 4096
local SMALL_FIELDS = { -- The other fields are empty.
  counts = true, elapsed_ms = true, load = true, wanted_milli = true, commands = true, cut = true,
}
local RUN_FIELDS = { run = true, status = true, signal = true, head = true, tail = true, bytes = true, elapsed_ms = true, left = true }

--- Whether a record has certainly fewer than LEAST bytes, without packing it: true for a few commands with little output.
local function small(record)
  for field, value in next, record do -- order-free: one answer for all
    if not SMALL_FIELDS[field] and (type(value) ~= "table" or next(value) ~= nil) then return false end
  end
  local runs, bytes = record.commands or {}, 0
  if #runs > SMALL_RUNS or entries(record.counts) > COUNTS_MAX then return false end
  for _, run in ipairs(runs) do
    for field in next, run do -- order-free: one answer for all
      if not RUN_FIELDS[field] then return false end
    end
    bytes = bytes + #run.run + #(run.left or "") + merge.output_of(run)
  end
  return bytes <= SMALL_BYTES
end

-- The steps: each changes `out`, a shallow copy, and none of its tables ----------------------------------------------------

--- Cut the commands' output evenly, to max_bytes in all.
local function cut_output(out, max_bytes)
  local runs, total, left = out.commands or {}, 0, 0
  for _, run in ipairs(runs) do total = total + merge.output_of(run) end
  if total <= max_bytes then return end
  local each = merge.share(max_bytes, #runs)
  out.commands = {}
  for i, run in ipairs(runs) do
    out.commands[i] = merge.with_output(run, each)
    left = left + merge.output_of(out.commands[i])
  end
  add_cut(out, "output_bytes", total - left)
end

local function cut_commands(out, max)
  local runs = out.commands or {}
  if #runs <= max then return end
  out.commands = merge.first_commands(runs, max)
  add_cut(out, "commands", #runs - max)
end

local function weight_of_histogram(bytes) return assert(histogram.decode(bytes)):count() end
local function weight_of_pair(entry) return (entry.ok or entry.passed or 0) + (entry.failed or 0) end

--- The histograms of requests go with `requests`: all keep the same names.
local WEIGHED = {
  { "errors", function (n) return n end }, { "counters", function (n) return n == math.mininteger and math.maxinteger or math.abs(n) end },
  { "checks", weight_of_pair }, { "requests", weight_of_pair, { "latency", "failures", "raw" } }, { "latency", weight_of_histogram },
  { "failures", weight_of_histogram }, { "raw", weight_of_histogram }, { "timers", weight_of_histogram }, { "own", weight_of_histogram },
  { "outside", weight_of_pair, { "outside_latency" } }, { "outside_latency", weight_of_histogram },
}

--- The names of a map, the heaviest first.
local function by_weight(map, weigh)
  local list, weights = {}, {}
  for name, entry in sorted(map) do
    if name ~= names.OTHER then
      list[#list + 1] = name
      weights[name] = weigh(entry)
    end
  end
  table.sort(list, function (a, b)
    if weights[a] ~= weights[b] then return weights[a] > weights[b] end
    return a < b
  end)
  return list
end

--- Keep these names of a map; merge all others into OTHER. Returns how many were merged.
local function keep_names(out, field, kept)
  local join, map, moved = merge.joins[field], {}, 0
  for name, entry in sorted(out[field] or {}) do
    if kept[name] then
      map[name] = entry
    else
      map[names.OTHER] = join(map[names.OTHER], entry)
      if name ~= names.OTHER then moved = moved + 1 end
    end
  end
  out[field] = map
  return moved
end

local function cut_names(out, max)
  local moved, done = 0, {}
  for _, rule in ipairs(WEIGHED) do
    local field, weigh, with = table.unpack(rule)
    if out[field] and not done[field] and entries(out[field]) > max then
      local kept = {}
      for i, name in ipairs(by_weight(out[field], weigh)) do
        if i > max then break end
        kept[name] = true
      end
      moved = moved + keep_names(out, field, kept)
      for _, other in ipairs(with or {}) do
        if out[other] then
          keep_names(out, other, kept)
          done[other] = true
        end
      end
    end
  end
  add_cut(out, "names", moved)
end

local function cut_histograms(out)
  local n = 0
  for _, field in ipairs(HISTOGRAMS) do
    n = n + entries(out[field])
    out[field] = {}
  end
  add_cut(out, "histograms", n)
end

local function only_counts(out)
  local counts = {}
  for name, n in sorted(out.counts or {}) do
    if entries(counts) < COUNTS_MAX then counts[name] = n end
  end
  return { counts = counts, elapsed_ms = out.elapsed_ms, load = out.load, wanted_milli = out.wanted_milli, cut = out.cut }
end

local STEPS = { function (out, max_bytes) cut_output(out, max_bytes // 4) end }
for _, max in ipairs { 100, 50, 25, 12, 6 } do STEPS[#STEPS + 1] = function (out) cut_names(out, max) end end
STEPS[#STEPS + 1] = cut_histograms
for _, max in ipairs { 100, 10, 0 } do
  STEPS[#STEPS + 1] = function (out)
    cut_output(out, 0)
    cut_commands(out, max)
  end
end
STEPS[#STEPS + 1] = function (out) cut_names(out, 0) end

--- The record, cut so that both its packed form and its summary have at most max_bytes. A record that fits is returned unchanged.
---@param record table       one that passed `stats.check`
---@param max_bytes integer  at least LEAST
---@return table record
function fit.record(record, max_bytes)
  if max_bytes < fit.LEAST then error(("stats.fit: %d bytes; at least %d are needed"):format(max_bytes, fit.LEAST), 2) end
  if small(record) or fit.bytes(record) <= max_bytes then return record end
  local out = copied(record)
  for _, step in ipairs(STEPS) do
    step(out, max_bytes)
    if fit.bytes(out) <= max_bytes then return out end
  end
  return only_counts(out)
end

--- Only the record's counts, and how much was cut: at most LEAST bytes.
---@param record table
---@return table record
function fit.least(record)
  local out, named = copied(record), 0
  cut_output(out, 0)
  cut_commands(out, 0)
  for _, field in ipairs { "errors", "counters", "checks", "requests" } do
    local map = out[field] or {}
    named = named + entries(map) - (map[names.OTHER] ~= nil and 1 or 0)
  end
  add_cut(out, "names", named)
  cut_histograms(out)
  return only_counts(out)
end

--- The record with its commands' output cut evenly, to max_bytes in all.
---@param record table
---@param max_bytes integer
---@return table record
function fit.trim(record, max_bytes)
  if small(record) and max_bytes >= SMALL_BYTES then return record end
  local out = copied(record)
  cut_output(out, max_bytes)
  return out.cut == record.cut and record or out
end

-- A part's result ------------------------------------------------------------------------------------------------------

--- The first `max` of a list, and how many were left out.
local function first(list, max)
  if #list <= max then return list, 0 end
  return table.move(list, 1, max, 1, {}), #list - max
end

local function short_text(text, max) return #text <= max and text or text:sub(1, max - 3) .. "..." end

--- Incidents, with the fields that a result holds.
local function told(incidents)
  local out = {}
  for i, incident in ipairs(incidents) do
    out[i] = copied(incident)
    out[i].message, out[i].where = short_text(incident.message, TEXT_MAX), incident.where and short_text(incident.where, TEXT_MAX)
  end
  return out
end

--- A part's result as at most max_bytes, which `stats.readable` accepts. Incidents get at most an eighth of the bytes, attempts at most
--- half, numbers the rest.
---@param inner { stats: table?, incidents: table[]?, attempts: table[]? }  valid as for `stats.readable`, except for the lists' lengths
---@param max_bytes? integer  PART_MAX without; at least 4 * LEAST
---@return string bytes
function fit.pack(inner, max_bytes)
  max_bytes = max_bytes or fit.PART_MAX
  if max_bytes < 4 * fit.LEAST then error(("stats.pack: %d bytes; at least %d are needed"):format(max_bytes, 4 * fit.LEAST), 2) end
  local whole = { stats = inner.stats or {}, incidents = told(inner.incidents or {}), attempts = inner.attempts }
  local room = max_bytes // 8 -- A result within this, with all its parts, is within each part's share.
  if #whole.incidents <= check.INCIDENTS_MAX and #(inner.attempts or {}) <= check.ATTEMPTS_MAX then
    local bytes = assert(msgpack.pack(whole))
    if #bytes + summary_room(whole.stats) <= room then return bytes end
  end
  local out = { cut = {} }
  local function bounded(list, what, limit, share)
    local kept, left = first(list, limit)
    local bytes = #assert(msgpack.pack(kept))
    while bytes > share do
      local fewer, more = first(kept, #kept // 2)
      kept, left = fewer, left + more
      bytes = #assert(msgpack.pack(kept))
    end
    out[what], out.cut[what] = kept, left > 0 and left or nil
    return bytes
  end
  local used = bounded(whole.incidents, "incidents", check.INCIDENTS_MAX, max_bytes // 8)
  if inner.attempts then used = used + bounded(inner.attempts, "attempts", check.ATTEMPTS_MAX, max_bytes // 2) end
  out.stats = fit.record(inner.stats or {}, max_bytes - used - 256)
  if next(out.cut) == nil then out.cut = nil end
  return assert(msgpack.pack(out))
end

return fit
