--- json: JSON in and out, the only reader and writer of it for scripts, job files, commands and logs (c/lua/json.h).
---
---     json.encode(value)            text, or nil and where it cannot be said: `items[3].price: nan has no form in JSON`
---     json.decode(text, options?)   value, or nil and where it is wrong: `line 2, character 5: expected ':', found '}'`
---     json.null                     what null is, for nil cannot stand in a table
---     json.array(t?)                marks a table as a list, so that an empty one is [] and not {}; decoded lists are marked
---
--- Numbers: a whole number is an integer, exact from -2^63 to 2^63 - 1 in both directions. One beyond that is an error, for it would be
--- rounded; with { large = "text" } it is read as its digits. Any other number is a float, and written with all the digits that tell it
--- from its neighbours. A float that is a whole number is written as one: 10 / 2 as 5. nan and the infinities are errors.
---
--- Tables: 1..n is a list (few holes are null), any other an object, whose keys are sorted, so that equal values give equal text. Text is
--- UTF-8. Of a key that stands twice the last value counts; with { unique = true } it is an error. Containers nest at most 1000 deep.
local core = require "shoal.core.json"

local json = { null = core.null, number = core.number }

--- "line 2, character 5" of an offset.
local function place(text, offset)
  local before = text:sub(1, offset - 1)
  local _, breaks = before:gsub("\n", "")
  return ("line %d, character %d"):format(breaks + 1, #before:match("[^\n]*$") + 1), breaks + 1
end

---@param text string
---@param options? { unique: boolean?, large: "text"? }
---@return any? value, string? err, integer? line
function json.decode(text, options)
  local value, err, offset = core.decode(text, options and options.unique, options and options.large == "text")
  if value ~= nil then return value end -- Also of false: nil alone is a refusal, for null is not nil.
  local at, line = place(text, offset)
  return nil, at .. ": " .. err, line
end

---@param value any
---@return string? text, string? err
function json.encode(value) return core.encode(value) end

--- Mark a table as a list.
---@param list? table
---@return table list
function json.array(list) return setmetatable(list or {}, core.array) end

return json
