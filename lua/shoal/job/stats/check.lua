--- stats.check: check that an untrusted table is a record, or that untrusted bytes are a part's result. The check is complete, so that
--- code that reads a checked one cannot fail. Unknown fields are allowed and ignored.
local histogram = require "shoal.core.histogram"
local msgpack = require "shoal.core.msgpack"
local names = require "shoal.job.stats.names"
local spans = require "shoal.job.stats.spans"

local check = {}

check.COUNT_MAX = 1 << 53 -- Of a count: exact as a double, and a thousand of them add up without wrapping.
check.RUN_BYTES_MAX = 400 -- Of a command's `run`: the part's name and a number.
check.LEFT_BYTES_MAX = 512 -- What a command left behind, for people.
check.INCIDENTS_MAX = 100
check.ATTEMPTS_MAX = 10000
check.CUT_MAX = 16
check.RESULT_MAX = 2 * 1024 * 1024 -- A part's packed result: a datacenter's is a whole run's.

local function wrong(what)
  return nil, "stats: " .. what .. " is not valid in a record", "MALFORMED"
end

local function is_integer(v) return math.type(v) == "integer" end
local function is_count(v) return math.type(v) == "integer" and v >= 0 and v <= check.COUNT_MAX end
local function is_count_or_nil(v) return v == nil or is_count(v) end
local function is_integer_or_nil(v) return v == nil or is_integer(v) end
local function is_string_or_nil(v) return v == nil or type(v) == "string" end
local function is_name(v) return type(v) == "string" and #v <= names.NAME_BYTES_MAX end

local function is_request(v) return type(v) == "table" and is_count_or_nil(v.ok) and is_count_or_nil(v.failed) end
local function is_check(v) return type(v) == "table" and is_count_or_nil(v.passed) and is_count_or_nil(v.failed) end

local function is_histogram(v)
  if type(v) ~= "string" then return false, "no string" end
  local h, err = histogram.decode(v)
  if not h then return false, err end
  return is_count(h:count()), "more values than a count may have"
end

local MAPS = {
  { "counts", is_count }, { "errors", is_count }, { "counters", is_integer }, { "requests", is_request }, { "checks", is_check },
  { "latency", is_histogram }, { "failures", is_histogram }, { "raw", is_histogram }, { "timers", is_histogram }, { "own", is_histogram },
  { "outside", is_request }, { "outside_latency", is_histogram },
}

--- A list: its keys are 1..n, without a hole.
local function is_list(v)
  if type(v) ~= "table" then return false end
  local n, greatest = 0, 0
  for key in next, v do -- order-free: one answer for all
    if math.type(key) ~= "integer" or key < 1 then return false end
    n, greatest = n + 1, math.max(greatest, key)
  end
  return n == greatest
end

local function is_command(v)
  return type(v) == "table" and type(v.run) == "string" and #v.run <= check.RUN_BYTES_MAX and is_integer_or_nil(v.status)
    and is_integer_or_nil(v.signal) and is_count_or_nil(v.bytes) and is_count_or_nil(v.elapsed_ms) and is_string_or_nil(v.head)
    and is_string_or_nil(v.tail) and (v.left == nil or type(v.left) == "string" and #v.left <= check.LEFT_BYTES_MAX)
end

local function is_cut(v)
  if type(v) ~= "table" then return false end
  local n = 0
  for name, count in next, v do -- order-free: one answer for all
    n = n + 1
    if n > check.CUT_MAX or not is_name(name) or not is_count(count) then return false end
  end
  return true
end

--- Check a record's shape, its histograms included.
---@param record any
---@return true? ok, string? err, string? code "MALFORMED"
function check.record(record)
  if type(record) ~= "table" then return wrong "the record" end
  if not is_count_or_nil(record.elapsed_ms) then return wrong "elapsed_ms" end
  if not is_count_or_nil(record.wanted_milli) then return wrong "wanted_milli" end
  if record.load ~= nil and not spans.valid(record.load) then return wrong "load" end
  for _, field in ipairs(MAPS) do
    local what, fits = field[1], field[2]
    local map = record[what]
    if map ~= nil then
      if type(map) ~= "table" then return wrong(what) end
      local room = names.NAMES_MAX
      for name, value in next, map do -- order-free: one answer for all
        if not is_name(name) then return wrong("a name in " .. what) end
        if not names.FIXED[name] then room = room - 1 end
        if room < 0 then return wrong(("the number of names in %s"):format(what)) end
        local good, why = fits(value)
        if not good then return wrong(("%s of %s%s"):format(what, name, why and " (" .. why .. ")" or "")) end
      end
    end
  end
  if record.commands ~= nil then
    if not is_list(record.commands) then return wrong "commands" end
    for _, run in ipairs(record.commands) do
      if not is_command(run) then return wrong "commands" end
    end
  end
  if record.cut ~= nil and not is_cut(record.cut) then return wrong "cut" end
  return true
end

-- A part's result ------------------------------------------------------------------------------------------------------

local function is_summary(v)
  if type(v) ~= "table" then return false end
  for name, n in next, v do -- order-free: one answer for all
    if not is_name(name) or not is_integer(n) then return false end
  end
  return true
end

--- The known fields of an incident, or nil.
local function incident_of(v)
  if type(v) ~= "table" or not (type(v.id) == "string" or is_integer(v.id)) or type(v.node) ~= "string" or type(v.site) ~= "string"
    or type(v.level) ~= "string" or type(v.message) ~= "string" or not is_string_or_nil(v.where) or not is_count_or_nil(v.count) then
    return nil
  end
  return { id = v.id, node = v.node, site = v.site, level = v.level, message = v.message, where = v.where, count = v.count }
end

--- The known fields of an attempt, or nil.
local function attempt_of(v)
  if type(v) ~= "table" or type(v.part) ~= "string" or not is_count(v.attempt) or type(v.state) ~= "string"
    or not is_string_or_nil(v.workflow) or not is_string_or_nil(v.executor) or not is_string_or_nil(v.reason)
    or not is_string_or_nil(v.dc) or v.stats ~= nil and not is_summary(v.stats) then
    return nil
  end
  return {
    workflow = v.workflow, part = v.part, attempt = v.attempt, executor = v.executor, state = v.state, reason = v.reason,
    stats = v.stats, dc = v.dc,
  }
end

local function list_of(list, max, of)
  if not is_list(list) or #list > max then return nil end
  local out = {}
  for i, value in ipairs(list) do
    out[i] = of(value)
    if not out[i] then return nil end
  end
  return out
end

--- Read and check a part's whole packed result. The returned table has the known fields only: `stats` (a record, {} if it was absent),
--- `incidents` (a list), `attempts` (a list, or nil: the executor is no tier), `cut` (amounts left out of the result, or nil).
---@param bytes any
---@return { stats: table, incidents: table[], attempts: table[]?, cut: table? }? inner
---@return string? err, string? code "MALFORMED"
function check.result(bytes)
  if type(bytes) ~= "string" then return wrong "the result" end
  if #bytes > check.RESULT_MAX then
    return nil, ("stats: the result has %d bytes; at most %d are taken"):format(#bytes, check.RESULT_MAX), "MALFORMED"
  end
  local value, err = msgpack.unpack(bytes)
  if type(value) ~= "table" then return nil, "stats: the result is unreadable: " .. (err or "no table"), "MALFORMED" end
  local inner = { stats = value.stats == nil and {} or value.stats }
  local good, problem, code = check.record(inner.stats)
  if not good then return nil, problem, code end
  inner.incidents = list_of(value.incidents == nil and {} or value.incidents, check.INCIDENTS_MAX, incident_of)
  if not inner.incidents then return wrong "incidents" end
  if value.attempts ~= nil then
    inner.attempts = list_of(value.attempts, check.ATTEMPTS_MAX, attempt_of)
    if not inner.attempts then return wrong "attempts" end
  end
  if value.cut ~= nil and not is_cut(value.cut) then return wrong "cut" end
  inner.cut = value.cut
  return inner
end

return check
