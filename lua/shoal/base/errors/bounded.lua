--- bounded: Lua's string and table libraries without calls that take long or allocate much at once. A call into C cannot be interrupted,
--- so code that has a budget gets these: results are bounded, patterns with repetitions are matched in Lua (errors/pattern.lua), and
--- `sort` compares in Lua.

local pattern = require "shoal.base.errors.pattern"
local sorted = require "shoal.base.sorted"

local bounded = {}

local VALUES_MAX = 200 -- That one call formats or unpacks.

---@class shoal.Bounds
---@field who string  for messages: "a policy"
---@field string_bytes integer  one string that a call makes
---@field moves integer  elements that a call moves

local function copy_of(library)
  local out = {}
  for name, value in sorted(library) do out[name] = value end
  return out
end
bounded.copy_of = copy_of

---@param bounds shoal.Bounds
function bounded.string(bounds)
  local rep, format = string.rep, string.format
  local function room(bytes)
    if bytes > bounds.string_bytes then
      error(("a string of %d bytes: %s may make one of %d"):format(bytes, bounds.who, bounds.string_bytes), 3)
    end
  end
  local out = copy_of(string)
  out.dump = nil
  out.find, out.match, out.gmatch, out.gsub = pattern.find, pattern.match, pattern.gmatch, pattern.gsub(room)
  function out.rep(text, count, separator)
    count = math.tointeger(count) or count -- 1e18 is a whole number too.
    if math.type(count) == "integer" and count > 0 then
      local unit = #tostring(text) + #tostring(separator or "")
      if unit == 0 then return "" end -- The C function would count to `count`.
      if count > bounds.string_bytes // unit then room(bounds.string_bytes + 1) end
    end
    return rep(text, count, separator)
  end
  function out.format(text, ...)
    local count, bytes = select("#", ...), #tostring(text)
    if count > VALUES_MAX then error(("format: %d values, %s may give %d"):format(count, bounds.who, VALUES_MAX), 2) end
    for i = 1, count do
      local value = select(i, ...)
      if type(value) == "string" then bytes = bytes + #value end
    end
    room(bytes)
    return format(text, ...)
  end
  return out, room
end

local function less(a, b) return a < b end

---@param bounds shoal.Bounds
function bounded.table(bounds)
  local concat, move, sort = table.concat, table.move, table.sort
  local _, room = bounded.string(bounds)
  local out = copy_of(table)
  function out.concat(list, separator, from, to)
    local bytes, between = 0, #tostring(separator or "")
    for i = from or 1, to or #list do
      bytes = bytes + between + #tostring(list[i])
      room(bytes)
    end
    return concat(list, separator, from, to)
  end
  function out.move(list, from, to, at, other)
    from, to = math.tointeger(from) or from, math.tointeger(to) or to
    if to - from >= bounds.moves then error(("move: %s may move %d elements at once"):format(bounds.who, bounds.moves), 2) end
    return move(list, from, to, at, other)
  end
  function out.unpack(list, from, to)
    if (to or #list) - (from or 1) >= VALUES_MAX then
      error(("unpack: %s may unpack %d values"):format(bounds.who, VALUES_MAX), 2)
    end
    return table.unpack(list, from, to)
  end
  function out.sort(list, before) return sort(list, before or less) end
  return out
end

return bounded
