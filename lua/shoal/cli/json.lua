--- json: answers for programs, indented. Keys sorted, so that equal answers are equal bytes; numbers as base/json.lua writes them: whole
--- ones exact. It takes any value: nan and the infinities are words.
local numbers = require "shoal.base.json"
local sorted = require "shoal.base.sorted"

local json = {}

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\b"] = "\\b", ["\f"] = "\\f" }

-- Our answers' lists: one without elements is [], as its reader expects.
local LISTS = {
  jobs = true, members = true, incidents = true, workflows = true, attempts = true, parts = true, checks = true, commands = true,
  events = true, log = true, outputs = true, silent = true,
}

local function text(value)
  if not utf8.len(value) then
    value = value:gsub("[\x80-\xff]", function (c) return utf8.char(c:byte()) end) -- Bytes, each as the character of its number.
  end
  value = value:gsub('[%c"\\\127]', function (c) return ESCAPES[c] or ("\\u%04x"):format(c:byte()) end)
  return '"' .. value:gsub("\xc2([\x80-\x9f])", function (c) return ("\\u%04x"):format(c:byte()) end) .. '"' -- Controls of terminals too.
end

local encode

--- A list's or map's pieces between its brackets: a line each, or all on one (`indent` nil).
local function join(open, pieces, close, indent)
  if not indent then return open .. table.concat(pieces, ",") .. close end
  local inner = indent .. "  "
  return open .. "\n" .. inner .. table.concat(pieces, ",\n" .. inner) .. "\n" .. indent .. close
end

function encode(value, indent)
  local kind = type(value)
  if kind == "string" then return text(value) end
  if kind == "boolean" or kind == "nil" then return tostring(value == nil and "null" or value) end
  if kind == "number" then return numbers.number(value) or (value ~= value and '"nan"' or value > 0 and '"inf"' or '"-inf"') end
  if kind ~= "table" then return text(tostring(value)) end
  local inner, pieces = indent and indent .. "  ", {}
  if #value > 0 then
    for i, item in ipairs(value) do pieces[i] = encode(item, inner) end
    return join("[", pieces, "]", indent)
  end
  for key, item in sorted(value) do
    local empty_list = LISTS[key] and type(item) == "table" and next(item) == nil
    pieces[#pieces + 1] = text(tostring(key)) .. (indent and ": " or ":") .. (empty_list and "[]" or encode(item, inner))
  end
  if #pieces == 0 then return "{}" end
  return join("{", pieces, "}", indent)
end

--- Any plain value as JSON text. An empty table is {}, but for the names that always hold lists.
---@param value any
---@return string
function json.encode(value) return encode(value, "") end

--- The same on one line, for an answer in many values.
---@param value any
---@return string
function json.line(value) return encode(value, nil) end

return json
