--- json: answers for programs, indented. Keys sorted, so that equal answers are equal bytes; numbers as base/json.lua writes them: whole
--- ones exact. It takes any value: nan and the infinities are words.
local numbers = require "shoal.base.json"
local sorted = require "shoal.base.sorted"

local json = {}

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\b"] = "\\b", ["\f"] = "\\f" }

-- Our answers' lists: one without elements is [], as its reader expects.
local LISTS = {
  jobs = true, members = true, incidents = true, workflows = true, attempts = true, parts = true, checks = true, commands = true,
  events = true, log = true,
}

local function text(value)
  if not utf8.len(value) then
    value = value:gsub("[\x80-\xff]", function (c) return utf8.char(c:byte()) end) -- Bytes, each as the character of its number.
  end
  return '"' .. value:gsub('[%c"\\\127]', function (c) return ESCAPES[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end

local function encode(value, indent)
  local kind = type(value)
  if kind == "string" then return text(value) end
  if kind == "boolean" or kind == "nil" then return tostring(value == nil and "null" or value) end
  if kind == "number" then return numbers.number(value) or (value ~= value and '"nan"' or value > 0 and '"inf"' or '"-inf"') end
  if kind ~= "table" then return text(tostring(value)) end
  local inner, parts = indent .. "  ", {}
  if #value > 0 then
    for i, item in ipairs(value) do parts[i] = encode(item, inner) end
    return "[\n" .. inner .. table.concat(parts, ",\n" .. inner) .. "\n" .. indent .. "]"
  end
  for key, item in sorted(value) do
    local empty_list = LISTS[key] and type(item) == "table" and next(item) == nil
    parts[#parts + 1] = text(tostring(key)) .. ": " .. (empty_list and "[]" or encode(item, inner))
  end
  if #parts == 0 then return "{}" end
  return "{\n" .. inner .. table.concat(parts, ",\n" .. inner) .. "\n" .. indent .. "}"
end

--- Any plain value as JSON text. An empty table is {}, but for the names that always hold lists.
---@param value any
---@return string
function json.encode(value) return encode(value, "") end

return json
