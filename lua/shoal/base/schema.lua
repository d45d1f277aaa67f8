--- Checks of what people write: configuration, job files, options of a call.
---
---     local config = schema.record({
---       interval_ms = schema.integer { default = 200, min = 10, max = 60000, doc = "between two heartbeats" },
---       seeds = schema.array(schema.string { pattern = "^[^:]+:%d+$" }, { max = 64 }),
---     }, function (c) if c.interval_ms > c.timeout_ms then return "interval_ms must not exceed timeout_ms" end end)
---     local checked, err = config(value) -- a copy with defaults filled in; or every problem at once, "; " between
---
--- A checker is a table that can be called. `checker(value)` returns the checked value, or nil and the problems as one
--- text; `checker:problems(value)` returns them as an array of { path, message }. The value given is never changed.
--- A record's field is required unless it has a default or is `optional`. Keys that a record does not know are problems.
--- Bodies of messages are not checked here but by shoal.messages.
local near = require "shoal.base.near"

local schema = {}

---@class Checker
---@field kind string
---@field doc? string
---@field default any
---@field check fun(self: Checker, value: any, path: string, problems: table): any
local Checker = {}
Checker.__index = Checker

local ABSENT = {} -- what a failed check yields: its problem is noted already

--- Names of fields for messages: `a.b[3].c`.
local function join(path, key)
  if math.type(key) == "integer" then return ("%s[%d]"):format(path, key) end
  key = tostring(key)
  if path == "" then return key end
  return path .. "." .. key
end

--- A value as people would write it, short.
local function show(value)
  if type(value) == "string" then
    local text = #value > 60 and value:sub(1, 57) .. "..." or value
    return (("%q"):format(text):gsub("\\\n", "\\n"))
  end
  if type(value) == "table" then return "a table" end
  if type(value) == "function" or type(value) == "userdata" or type(value) == "thread" then return "a " .. type(value) end
  return tostring(value)
end

local function note(problems, path, message)
  problems[#problems + 1] = { path = path, message = message }
  return ABSENT
end

local function expected(problems, path, what, value)
  return note(problems, path, ("expected %s, found %s"):format(what, show(value)))
end

--- Sorted keys, so that problems come in the same order in every run: numbers, then the rest by their text.
local function sorted_keys(map)
  local keys = {}
  for key in next, map do keys[#keys + 1] = key end
  table.sort(keys, function (a, b)
    local x, y = type(a) == "number", type(b) == "number"
    if x ~= y then return x end
    if x then return a < b end
    return tostring(a) < tostring(b)
  end)
  return keys
end

--- The name somebody probably meant, or nil. `names` in any order; ties go to the first bytewise.
---@param word any
---@param names string[]
---@return string?
function schema.did_you_mean(word, names) return near.of(word, names) end

local function hint(word, names)
  local meant = schema.did_you_mean(word, names)
  return meant and (", did you mean %s?"):format(show(meant)) or ""
end

local function make(kind, options, known, check)
  options = options or {}
  if type(options) ~= "table" then
    error(("schema.%s: options must be a table, found %s"):format(kind, show(options)), 3)
  end
  known[#known + 1], known[#known + 2] = "default", "doc"
  local checker = setmetatable({ kind = kind, check = check }, Checker)
  for _, key in ipairs(sorted_keys(options)) do
    local ok = false
    for _, name in ipairs(known) do ok = ok or name == key end
    if not ok then error(("schema.%s: unknown option %s%s"):format(kind, show(key), hint(key, known)), 3) end
    checker[key] = options[key]
  end
  if checker.default ~= nil then
    local problems = {}
    check(checker, checker.default, "default", problems)
    if problems[1] then error(("schema.%s: %s: %s"):format(kind, problems[1].path, problems[1].message), 3) end
  end
  return checker
end

local function bounds(self, value, path, problems)
  if self.min and value < self.min then
    return note(problems, path, ("%s is below %s"):format(show(value), show(self.min)))
  end
  if self.max and value > self.max then
    return note(problems, path, ("%s is above %s"):format(show(value), show(self.max)))
  end
  return value
end

--- A whole number; a float that is one is taken (JSON's readers make such) and becomes an integer.
---@param options? { default?: integer, min?: integer, max?: integer, doc?: string }
---@return Checker
function schema.integer(options)
  return make("integer", options, { "min", "max" }, function (self, value, path, problems)
    local whole = type(value) == "number" and math.tointeger(value)
    if not whole then return expected(problems, path, "an integer", value) end
    return bounds(self, whole, path, problems)
  end)
end

---@param options? { default?: number, min?: number, max?: number, doc?: string }
---@return Checker
function schema.number(options)
  return make("number", options, { "min", "max" }, function (self, value, path, problems)
    if type(value) ~= "number" or value ~= value then return expected(problems, path, "a number", value) end
    return bounds(self, value, path, problems)
  end)
end

local function text(kind, what)
  return function (options)
    return make(kind, options, { "max", "pattern" }, function (self, value, path, problems)
      if type(value) ~= "string" then return expected(problems, path, what, value) end
      if self.max and #value > self.max then
        return note(problems, path, ("%d bytes are more than %d"):format(#value, self.max))
      end
      if self.pattern and not value:find(self.pattern) then
        return expected(problems, path, self.doc or "the form " .. self.pattern, value)
      end
      return value
    end)
  end
end

--- `max` in bytes; `pattern` is Lua's. A `doc` beside a pattern is what a refusal shows.
---@type fun(options?: { default?: string, max?: integer, pattern?: string, doc?: string }): Checker
schema.string = text("string", "a string")
---@type fun(options?: { default?: string, max?: integer, pattern?: string, doc?: string }): Checker
schema.bytes = text("bytes", "bytes")

---@param options? { default?: boolean, doc?: string }
---@return Checker
function schema.boolean(options)
  return make("boolean", options, {}, function (_, value, path, problems)
    if type(value) ~= "boolean" then return expected(problems, path, "true or false", value) end
    return value
  end)
end

---@param options? { default?: any, doc?: string }
---@return Checker
function schema.any(options)
  return make("any", options, {}, function (_, value) return value end)
end

---@param options? { default?: function, doc?: string }
---@return Checker
function schema.func(options)
  return make("func", options, {}, function (_, value, path, problems)
    if type(value) ~= "function" then return expected(problems, path, "a function", value) end
    return value
  end)
end

--- One of these words: `schema.enum { "lan", "wan", default = "lan" }`.
---@param options string[]|{ default?: string, doc?: string }
---@return Checker
function schema.enum(options)
  local words, rest = {}, {}
  for _, key in ipairs(sorted_keys(options)) do
    if math.type(key) == "integer" then words[#words + 1] = options[key] else rest[key] = options[key] end
  end
  if #words == 0 then error("schema.enum: at least one word", 2) end
  local checker = make("enum", rest, {}, function (_, value, path, problems)
    for _, word in ipairs(words) do if word == value then return value end end
    return note(problems, path, ("expected one of %s, found %s%s"):format(table.concat(words, ", "), show(value),
      hint(value, words)))
  end)
  checker.words = words
  return checker
end

local function is_checker(value) return getmetatable(value) == Checker end

--- Elements 1..n, `max` of them at most, `min` at least. Without a default an absent array is a problem.
---@param of Checker
---@param options? { min?: integer, max?: integer, default?: table, doc?: string }
---@return Checker
function schema.array(of, options)
  if not is_checker(of) then error("schema.array: a checker expected, found " .. show(of), 2) end
  local checker = make("array", options, { "min", "max" }, function (self, value, path, problems)
    if type(value) ~= "table" then return expected(problems, path, "an array", value) end
    local keys, result = sorted_keys(value), {}
    if #keys ~= #value then
      for index, key in ipairs(keys) do
        if key ~= index then return note(problems, path, ("expected an array, found the key %s"):format(show(key))) end
      end
    end
    if self.max and #keys > self.max then
      return note(problems, path, ("%d elements are more than %d"):format(#keys, self.max))
    end
    if self.min and #keys < self.min then
      return note(problems, path, ("%d elements are fewer than %d"):format(#keys, self.min))
    end
    for index in ipairs(keys) do result[index] = of:check(value[index], join(path, index), problems) end
    return result
  end)
  checker.of = of
  return checker
end

--- Strings to values.
---@param of Checker
---@param options? { max?: integer, default?: table, doc?: string }
---@return Checker
function schema.map(of, options)
  if not is_checker(of) then error("schema.map: a checker expected, found " .. show(of), 2) end
  local checker = make("map", options, { "max" }, function (self, value, path, problems)
    if type(value) ~= "table" then return expected(problems, path, "a table of names", value) end
    local keys, result = sorted_keys(value), {}
    if self.max and #keys > self.max then
      return note(problems, path, ("%d entries are more than %d"):format(#keys, self.max))
    end
    for _, key in ipairs(keys) do
      if type(key) ~= "string" then
        note(problems, path, ("expected names as keys, found %s"):format(show(key)))
      else
        result[key] = of:check(value[key], join(path, key), problems)
      end
    end
    return result
  end)
  checker.of = of
  return checker
end

--- The field may be absent, with no default.
---@param of Checker
---@return Checker
function schema.optional(of)
  if not is_checker(of) then error("schema.optional: a checker expected, found " .. show(of), 2) end
  local checker = make("optional", nil, {}, function (_, value, path, problems)
    if value == nil then return nil end
    return of:check(value, path, problems)
  end)
  checker.of, checker.doc = of, of.doc
  return checker
end

local function copy(value)
  if type(value) ~= "table" then return value end
  local result = {}
  for key, inner in next, value do result[key] = copy(inner) end -- order-free: a copy
  return result
end

--- Named fields. `cross_check(checked)` runs only when every field was right; it returns a problem's text, or nil.
---@param fields table<string, Checker>
---@param cross_check? fun(value: table): string?
---@param options? { default?: table, doc?: string }  `default = {}` makes a nested record optional, its own defaults filled in
---@return Checker
function schema.record(fields, cross_check, options)
  local names = sorted_keys(fields)
  for _, name in ipairs(names) do
    if type(name) ~= "string" or not is_checker(fields[name]) then
      error(("schema.record: %s must be a checker, found %s"):format(tostring(name), show(fields[name])), 2)
    end
  end
  local checker = make("record", options, {}, function (_, value, path, problems)
    if type(value) ~= "table" then return expected(problems, path, "a table", value) end
    local before, result = #problems, {}
    for _, key in ipairs(sorted_keys(value)) do
      if fields[key] == nil then note(problems, join(path, key), "unknown option" .. hint(key, names)) end
    end
    for _, name in ipairs(names) do
      local field, found = fields[name], value[name]
      if found == nil then found = copy(field.default) end
      if found ~= nil then
        result[name] = field:check(found, join(path, name), problems)
      elseif field.kind ~= "optional" then
        note(problems, join(path, name), "missing")
      end
    end
    if #problems > before then return ABSENT end
    local problem = cross_check and cross_check(result)
    if problem then return note(problems, path, problem) end
    return result
  end)
  checker.fields, checker.names = fields, names
  return checker
end

--- Every problem as { path =, message = }, in a fixed order; empty when there is none. The checked value comes second.
---@param value any
---@return { path: string, message: string }[] problems
---@return any checked
function Checker:problems(value)
  local problems = {}
  if value == nil then value = copy(self.default) end
  if value == nil and self.kind == "record" then value = {} end -- no configuration at all: the defaults
  local checked = self:check(value, "", problems)
  if problems[1] then checked = nil end
  return problems, checked
end

function Checker:__call(value)
  local problems, checked = self:problems(value)
  if not problems[1] then return checked end
  local lines = {}
  for i, problem in ipairs(problems) do
    lines[i] = problem.path == "" and problem.message or problem.path .. ": " .. problem.message
  end
  return nil, table.concat(lines, "; "), "CONFIG"
end

return schema
