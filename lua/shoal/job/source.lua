--- job.source: read a job file, Lua or JSON, as plain data, and find the line of each of its keys and what is wrong with its text.
local data_file = require "shoal.base.data_file"
local document = require "shoal.base.document"
local json = require "shoal.base.json"
local text = require "shoal.base.text"

local source = {}

local FILE_BYTES_MAX = 1024 * 1024
local TABLE = "expected a table: return { name = ..., workflows = { ... } }"

--- The line of each key: `lines["workflows.warm.script"] = 7`.
---@param bytes string
---@return table<string, integer>
function source.lines(bytes) return text.keys(bytes).lines end

local function without_nulls(value)
  if type(value) ~= "table" then return value end
  for k, v in next, value do -- order-free: each entry by itself
    if v == json.null then value[k] = nil else without_nulls(v) end
  end
  return value
end

local function load_json(bytes, name, what)
  local value, err, line = json.decode(bytes)
  if value == nil then
    local other = not bytes:find "^%s*{" and document.other(bytes, what)
    if other then return nil, ("%s: %s"):format(name, other) end
    return nil, ("%s:%d: JSON: %s"):format(name, line, (err:gsub("^line %d+, ", "")))
  end
  if type(value) == "table" and not bytes:find "^%s*%[" then return without_nulls(value) end
  local found = value == json.null and "null" or type(value) == "table" and "a list" or ("a %s"):format(type(value))
  return nil, ("%s: is the JSON value %s; expected an object with name and workflows"):format(name, found)
end

---@class JobSource
---@field lines table<string, integer>                          where keys stand
---@field problems { path?: string, line: integer, text: string }[]  of the text: keys that are given twice, variables that are missing

--- Read the text of a job file. It is JSON when its name ends so, or its first character is a brace or a bracket.
---@param bytes string
---@param name string  for messages
---@param getenv? fun(name: string): string?
---@return table? data, JobSource|string source_or_err
function source.read(bytes, name, getenv)
  if #bytes > FILE_BYTES_MAX then
    return nil, ("%s: %d bytes; a job file has at most %d"):format(name, #bytes, FILE_BYTES_MAX)
  end
  local what = { noun = "a job", file = "a job file", forms = "Lua or JSON", getenv = getenv }
  local opened, unfit = document.open(bytes, name, what)
  if not opened then return nil, unfit end
  local data, err, problems
  if name:find("%.json$") or opened:find("^%s*[{%[]") then
    data, err = load_json(opened, name, what)
  else
    data, err, problems = data_file.run(opened, name, what)
  end
  if err then return nil, err end
  if type(data) ~= "table" then
    return nil, ("%s: returned %s; %s"):format(name, data == nil and "nothing" or "a " .. type(data), TABLE)
  end
  local keys = text.keys(opened)
  problems = problems or {}
  for _, twice in ipairs(text.twice(opened)) do
    problems[#problems + 1] = { line = twice.line, text = ("%s:%d: %s: %s"):format(name, twice.line, twice.path, twice.text) }
  end
  return data, { lines = keys.lines, problems = problems }
end

return source
