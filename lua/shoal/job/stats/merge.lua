--- stats.merge: an accumulator of records. Its content depends on the added records, never on their order: sums saturate at COUNT_MAX
--- (counters, which may be negative, wrap), maps keep the names that sort first, commands have a total order.
---
---   names      the NAMES_MAX that sort first in each map; the others are "(other)" (stats/names.lua)
---   commands   the COMMANDS_MAX first: failed ones, then by `run`, status, signal and the rest; `cut.commands` counts the others
---   output     once the added output exceeds OUTPUT_MAX bytes, each command keeps OUTPUT_MAX / (2 * commands) bytes of its
---              beginning and of its end; `cut.output_bytes` counts the rest
---
---   load       the union of the records' stretches of load (stats/spans.lua), all on one clock
---
--- Merging merged records (as a gate does) gives the same as merging all at once, except for output that was cut before, and for gaps
--- between more stretches of load than a list holds.
local check = require "shoal.job.stats.check"
local histogram = require "shoal.core.histogram"
local msgpack = require "shoal.core.msgpack"
local names = require "shoal.job.stats.names"
local spans = require "shoal.job.stats.spans"

local merge = {}

merge.COMMANDS_MAX = 1000
merge.OUTPUT_MAX = 256 * 1024

local COUNT_MAX = check.COUNT_MAX
local MAPS = { "counts", "errors", "counters", "requests", "checks", "latency", "failures", "raw", "timers", "own", "outside",
  "outside_latency" }

---@class Accumulator
---@field commands table[]      at most 2 * COMMANDS_MAX; sorted and cut when there are more, and by `record`
---@field commands_added integer
---@field output_added integer  bytes of output of all added commands
---@field output_held integer
---@field cut Names  amounts that the added records left out
local Accumulator = {}
Accumulator.__index = Accumulator

local function plus(a, b)
  local sum = (a or 0) + b
  return sum > COUNT_MAX and COUNT_MAX or sum
end

local function plus_wrapping(a, b) return (a or 0) + b end

local function plus_requests(into, entry)
  return { ok = plus(into and into.ok, entry.ok or 0), failed = plus(into and into.failed, entry.failed or 0) }
end

local function plus_checks(into, entry)
  return { passed = plus(into and into.passed, entry.passed or 0), failed = plus(into and into.failed, entry.failed or 0) }
end

--- Histograms are kept encoded, at a tenth of the size, for many names occur in one part only. A histogram takes no value beyond
--- COUNT_MAX.
local function plus_histogram(into, bytes)
  if not into then return bytes end
  local sum, more = assert(histogram.decode(into)), assert(histogram.decode(bytes))
  if sum:count() + more:count() > COUNT_MAX then return into end
  assert(sum:merge(more))
  return sum:encode()
end

local JOINS = {
  counts = plus, errors = plus, counters = plus_wrapping, requests = plus_requests, checks = plus_checks, latency = plus_histogram,
  failures = plus_histogram, raw = plus_histogram, timers = plus_histogram, own = plus_histogram, outside = plus_requests,
  outside_latency = plus_histogram,
}
merge.joins = JOINS

---@return Accumulator
function merge.new()
  local self = setmetatable({
    commands = {}, commands_added = 0, output_added = 0, output_held = 0, elapsed_ms = 0, maps = {},
    load = {}, wanted_milli = 0,
    cut = names.new(plus, check.CUT_MAX - 1),
  }, Accumulator)
  for _, field in ipairs(MAPS) do self.maps[field] = names.new(JOINS[field]) end
  return self
end

-- Commands -------------------------------------------------------------------------------------------------------------

local function failed(run) return (run.status or 0) ~= 0 or (run.signal or 0) ~= 0 end

--- A total order of commands: failed ones first, so that they are kept.
local function before(a, b)
  local a_failed, b_failed = failed(a), failed(b)
  if a_failed ~= b_failed then return a_failed end
  if a.run ~= b.run then return a.run < b.run end
  for _, field in ipairs { "status", "signal", "bytes", "elapsed_ms" } do
    local x, y = a[field] or -1, b[field] or -1
    if x ~= y then return x < y end
  end
  local x, y = a.head or "", b.head or ""
  if x ~= y then return x < y end
  x, y = a.tail or "", b.tail or ""
  if x ~= y then return x < y end
  return (a.left or "") < (b.left or "")
end

--- The order for display.
local function by_run(a, b)
  if a.run ~= b.run then return a.run < b.run end
  return before(a, b)
end

--- Bytes of output that a command has here.
function merge.output_of(run) return #(run.head or "") + #(run.tail or "") end

--- A command with at most `each` bytes of its beginning, and as many of its end.
function merge.with_output(run, each)
  return {
    run = run.run, status = run.status, signal = run.signal, bytes = run.bytes, elapsed_ms = run.elapsed_ms, left = run.left,
    head = run.head and run.head:sub(1, each), tail = run.tail and (each > 0 and run.tail:sub(-each) or ""),
  }
end

--- How many bytes of its beginning, and of its end, each command keeps when `count` of them keep max_bytes in all.
function merge.share(max_bytes, count) return max_bytes // (2 * math.max(count, 1)) end

--- Cut early. The bounds only get tighter, so an early cut loses nothing that a cut at the end would keep: whether output is cut depends
--- on the total added, and the bytes that each command keeps depend on the number of commands kept.
local function tighten(self)
  if #self.commands > merge.COMMANDS_MAX then
    table.sort(self.commands, before)
    for i = #self.commands, merge.COMMANDS_MAX + 1, -1 do self.commands[i] = nil end
  end
  local each = self.output_added > merge.OUTPUT_MAX and merge.share(merge.OUTPUT_MAX, #self.commands) or nil
  self.output_held = 0
  for i, run in ipairs(self.commands) do
    if each then self.commands[i] = merge.with_output(run, each) end
    self.output_held = self.output_held + merge.output_of(self.commands[i])
  end
end

local function add_command(self, run)
  local bytes = merge.output_of(run)
  self.commands[#self.commands + 1] = merge.with_output(run, bytes)
  self.commands_added, self.output_added = self.commands_added + 1, self.output_added + bytes
  self.output_held = self.output_held + bytes
  if #self.commands >= 2 * merge.COMMANDS_MAX or self.output_held > 2 * merge.OUTPUT_MAX then tighten(self) end
end

--- The first `max` commands of a list, failed ones first.
---@return table[]
function merge.first_commands(list, max)
  local ordered = table.move(list, 1, #list, 1, {})
  table.sort(ordered, before)
  local out = table.move(ordered, 1, math.min(max, #ordered), 1, {})
  table.sort(out, by_run)
  return out
end

-- Adding and reading ---------------------------------------------------------------------------------------------------

--- Add a record that passed `stats.check`. Cannot fail.
---@param record table
---@param offset_us? integer  the zero of the record's clock, on the sum's
function Accumulator:add(record, offset_us)
  for _, field in ipairs(MAPS) do
    local map = record[field]
    if map then
      local into = self.maps[field]
      for name, value in next, map do into:add(name, value) end -- order-free: sums by name
    end
  end
  for _, run in ipairs(record.commands or {}) do add_command(self, run) end
  for what, n in next, record.cut or {} do self.cut:add(what, n) end -- order-free: sums by name
  self.elapsed_ms = math.max(self.elapsed_ms, record.elapsed_ms or 0)
  for _, span in ipairs(spans.shifted(record.load, offset_us or 0) or {}) do spans.add(self.load, span[1], span[2]) end
  self.wanted_milli = plus(self.wanted_milli, record.wanted_milli or 0)
end

local function cut_of(self)
  local cut = {}
  for what, n in next, self.cut.map do cut[what] = n end -- order-free: a copy
  local left_out = self.commands_added - #self.commands
  if left_out > 0 then cut.commands = plus(cut.commands, left_out) end
  if self.output_added > self.output_held then cut.output_bytes = plus(cut.output_bytes, self.output_added - self.output_held) end
  return next(cut) and cut or nil
end

--- The sum as one new record. It has `cut` when something was left out.
---@return table record
function Accumulator:record()
  tighten(self)
  local out = { commands = table.move(self.commands, 1, #self.commands, 1, {}), elapsed_ms = self.elapsed_ms, cut = cut_of(self) }
  table.sort(out.commands, by_run)
  if self.load[1] then out.load = spans.shifted(self.load, 0) end
  if self.wanted_milli > 0 then out.wanted_milli = self.wanted_milli end
  for _, field in ipairs(MAPS) do
    local copy = {}
    for name, value in next, self.maps[field].map do copy[name] = value end -- order-free: a copy
    out[field] = copy
  end
  return out
end

--- The accumulator as bytes for a snapshot; `merge.of_bytes` continues from them. The same additions give the same bytes.
---@return string bytes
function Accumulator:bytes()
  local record = self:record()
  record.cut = self.cut.map
  return assert(msgpack.pack { record = record, commands_added = self.commands_added, output_added = self.output_added })
end

---@param bytes string  of `bytes`
---@return Accumulator? accumulator, string? err, string? code "MALFORMED"
function merge.of_bytes(bytes)
  local value, err = msgpack.unpack(bytes)
  if type(value) ~= "table" then return nil, "stats: an accumulator is unreadable: " .. (err or "no table"), "MALFORMED" end
  local good, problem, code = check.record(value.record)
  if not good then return nil, problem, code end
  local commands, output = value.commands_added, value.output_added
  if math.type(commands) ~= "integer" or math.type(output) ~= "integer" or commands < 0 or output < 0 then
    return nil, "stats: an accumulator is unreadable: its counts are no counts", "MALFORMED"
  end
  local self = merge.new()
  self:add(value.record)
  self.commands_added, self.output_added = commands, output
  return self
end

return merge
