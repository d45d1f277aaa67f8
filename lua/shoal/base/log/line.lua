--- One JSON line from Lua values, the same bytes everywhere: declared fields first and in their order, others sorted.
---
--- Pure and total: it takes any value and raises on none. What JSON cannot say is said in words that hold no address,
--- so that two runs of one seed write the same log:
--- A table whose metatable has `__fields` (names) is written in that order.
---   numbers as base/json.lua writes them, whole ones exact; nan and infinities are strings;
---   bytes that are no UTF-8 are written as \u00NN; functions and userdata are "(function)", "(shoal.stream)".

local line = {}

local DEPTH_MAX = 8       -- Deeper, and in circles, "(deeper)" is written.
local ENTRIES_MAX = 256   -- Of one table; then how many are left out.
local TEXT_MAX = 16 * 1024

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\127"] = "\\u007f" }
for byte = 0, 31 do
  local c = string.char(byte)
  escapes[c] = escapes[c] or string.format("\\u%04x", byte)
end

local function high_byte(c) return string.format("\\u%04x", c:byte()) end

local function text(s)
  if #s > TEXT_MAX then
    local cut = TEXT_MAX
    while cut > 0 and (s:byte(cut + 1) & 0xC0) == 0x80 and cut > TEXT_MAX - 4 do cut = cut - 1 end
    s = s:sub(1, cut) .. "... (" .. #s .. " bytes)"
  end
  s = s:gsub('[%c"\\]', escapes)
  if not utf8.len(s) then s = s:gsub("[\128-\255]", high_byte) end
  return '"' .. s .. '"'
end

--- As base/json.lua, but in plain Lua: the lint runs without our C.
local function number(n)
  if math.type(n) == "integer" then return string.format("%d", n) end
  if n ~= n then return '"nan"' end
  if n == math.huge then return '"inf"' end
  if n == -math.huge then return '"-inf"' end
  local whole = math.tointeger(n)
  if whole then return 1 / n == -math.huge and "-0.0" or string.format("%d", whole) end
  for digits = 15, 16 do
    local short = string.format("%." .. digits .. "g", n)
    if tonumber(short) == n then return short end
  end
  return string.format("%.17g", n)
end

--- How a value that JSON has no form for is called: its kind, never its address.
local function kind(value)
  if type(value) == "userdata" then
    local meta = debug.getmetatable(value)
    local name = type(meta) == "table" and rawget(meta, "__name")
    if type(name) == "string" then return "(" .. name .. ")" end
  end
  return "(" .. type(value) .. ")"
end

local encode

local order = { number = 1, string = 2 }
local function before(a, b)
  local ra, rb = order[type(a)], order[type(b)]
  if ra ~= rb then return ra < rb end
  return a < b
end

-- The keys are sorted before anything is written. Raw access throughout: a metamethod may raise.
local function object(t, depth, declared)
  local out, n, seen = {}, 0, nil
  if declared then
    seen = {}
    for i = 1, #declared do
      local key = declared[i]
      local value = rawget(t, key)
      seen[key] = true
      if value ~= nil then
        n = n + 1
        out[n] = text(tostring(key)) .. ":" .. encode(value, depth + 1)
      end
    end
  end
  local keys, count, strange = {}, 0, 0
  for key in next, t do -- order-free: sorted below
    if order[type(key)] then
      if not (seen and seen[key]) then
        count = count + 1
        keys[count] = key
      end
    else
      strange = strange + 1
    end
  end
  table.sort(keys, before)
  for i = 1, math.min(count, ENTRIES_MAX) do
    n = n + 1
    out[n] = text(tostring(keys[i])) .. ":" .. encode(rawget(t, keys[i]), depth + 1)
  end
  local left = strange + math.max(0, count - ENTRIES_MAX)
  if left > 0 then
    n = n + 1
    out[n] = '"...":"' .. left .. ' more"'
  end
  return "{" .. table.concat(out, ",") .. "}"
end

local function array(t, length, depth)
  local out = {}
  for i = 1, math.min(length, ENTRIES_MAX) do out[i] = encode(rawget(t, i), depth + 1) end
  if length > ENTRIES_MAX then out[ENTRIES_MAX + 1] = '"... ' .. (length - ENTRIES_MAX) .. ' more"' end
  return "[" .. table.concat(out, ",") .. "]"
end

--- An array is a table with 1..n and nothing else; an empty one is an object.
local function length_of(t)
  local n = rawlen(t)
  if n == 0 then return nil end
  local count = 0
  for _ in next, t do -- order-free: a count
    count = count + 1
    if count > n then return nil end
  end
  return count == n and n or nil
end

function encode(value, depth, declared)
  local of = type(value)
  if of == "string" then return text(value) end
  if of == "number" then return number(value) end
  if of == "boolean" then return value and "true" or "false" end
  if of == "nil" then return "null" end
  if of ~= "table" then return text(kind(value)) end
  if depth >= DEPTH_MAX then return '"(deeper)"' end
  local length = length_of(value)
  if length then return array(value, length, depth) end
  local meta = not declared and debug.getmetatable(value)
  return object(value, depth, declared or meta and rawget(meta, "__fields"))
end

--- JSON of any value.
---@param value any
---@param declared? string[]  the keys that come first, in this order, when `value` is a table of fields
---@return string
function line.encode(value, declared) return encode(value, 0, declared) end

line.kind = kind

--- Days since 1970-01-01 to a date of the Gregorian calendar (H. Hinnant's civil_from_days).
local function civil(days)
  local z = days + 719468
  local era = z // 146097
  local doe = z - era * 146097
  local yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
  local doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
  local mp = (5 * doy + 2) // 153
  local day = doy - (153 * mp + 2) // 5 + 1
  local month = mp < 10 and mp + 3 or mp - 9
  return yoe + era * 400 + (month <= 2 and 1 or 0), month, day
end

local second_cached, second_text
--- 2026-07-01T12:00:00.123456Z
---@param wall_ns integer  Unix time in nanoseconds
---@return string
function line.wall(wall_ns)
  local second = wall_ns // 1000000000
  if second ~= second_cached then
    local in_day = second % 86400
    local year, month, day = civil(second // 86400)
    second_text = string.format("%04d-%02d-%02dT%02d:%02d:%02d", year, month, day, in_day // 3600,
      in_day // 60 % 60, in_day % 60)
    second_cached = second
  end
  return string.format("%s.%06dZ", second_text, wall_ns % 1000000000 // 1000)
end

--- One line of the log, without its newline: when, how grave, who, what, and then the fields.
---@param record { at_ns: integer, wall_ns: integer, level: string, node: string, event: string, fields?: table }
---@param declared? string[]  the order of the event's own fields
---@return string
function line.record(record, declared)
  local head = string.format('{"wall":"%s","at_ns":"%d","level":"%s","node":%s,"event":%s', line.wall(record.wall_ns),
    record.at_ns, record.level, text(record.node), text(record.event))
  local fields = record.fields
  if fields ~= nil and type(fields) ~= "table" then fields = { value = fields } end
  if not fields or next(fields) == nil then return head .. "}" end
  return head .. "," .. object(fields, 0, declared):sub(2)
end

return line
