--- data_file: read a Lua file that returns data: a job, a topology, the settings of a node. It runs in a sandbox (no io, os, require,
--- load, setmetatable), for at most STEPS_MAX steps and BYTES_MAX of memory, and has a few words of its own: getenv, seconds,
--- minutes. What is no such file is refused by what it is; keys that are given twice and variables that are missing are problems.
local budget = require "shoal.base.budget"
local document = require "shoal.base.document"
local errors = require "shoal.base.errors"
local near = require "shoal.base.near"
local sorted = require "shoal.base.sorted"
local text = require "shoal.base.text"
local world = require "shoal.core.world"

local data_file = {}

local STEPS_MAX = 20000000 -- About a second; a file that takes longer is in an endless loop.
local BYTES_MAX = 64 * 1024 * 1024
local TIME_MS = 10000 -- Calls into C; what Lua does is bounded by the steps.

local function copy(library, names)
  local out = {}
  for name in names:gmatch("%S+") do out[name] = library[name] end
  return out
end

--- `os` is not there; the one use of it that data has is given by another name.
local function no_os(what)
  return setmetatable({}, {
    __index = function (_, name)
      local instead = name == "getenv" and '; write getenv("NAME", "default")' or ""
      error(("os.%s: %s is data and has no os%s"):format(tostring(name), what.noun, instead), 2)
    end,
    __metatable = false,
  })
end

--- The globals of the file. `unset` gets the variables that it asked for in vain: { name =, line = }.
local function globals(what, unset, limits)
  local env = {
    string = copy(limits.strings, "byte char find format gmatch gsub len lower match rep reverse sub upper"),
    table = copy(limits.tables, "concat insert remove sort unpack pack"),
    math = copy(math, "abs ceil floor max min huge pi tointeger"),
    pairs = sorted, ipairs = ipairs, next = next, select = select, tonumber = tonumber, tostring = tostring, type = type,
    assert = assert, error = error, os = no_os(what),
    seconds = function (n) return n * 1000 end,
    minutes = function (n) return n * 60000 end,
    hours = function (n) return n * 3600000 end,
  }
  function env.getenv(name, ...)
    local value = what.getenv and what.getenv(name)
    if value ~= nil then return value end
    if select("#", ...) == 0 then unset[#unset + 1] = { name = tostring(name), line = math.max(1, debug.getinfo(2, "l").currentline) } end
    return (...)
  end
  return env
end

--- Whether the file deals with this variable's absence itself: `getenv("X") or "y"`, `if getenv "X" then`.
local function answered(bytes, name)
  local before, last = {}, nil
  for kind, value in text.tokens(bytes) do
    if last and not (kind == "other" and value == ")") then
      return kind == "name" and (value == "or" or value == "and" or value == "then") or kind == "other" and (value == "=" or value == "~")
    end
    if kind == "string" and value == name and (before[1] == "getenv" or before[2] == "getenv") then last = true end
    before = { value, before[1] }
  end
  return false
end

local function unset_problems(bytes, name, unset)
  local out, told = {}, {}
  for _, one in ipairs(unset) do
    if not told[one.name] and not answered(bytes, one.name) then
      told[one.name] = true
      out[#out + 1] = { line = one.line,
        text = ("%s:%d: getenv(%q): the variable is not set; expected it in the environment, or a default: getenv(%q, \"...\")"):format(
          name, one.line, one.name, one.name) }
    end
  end
  return out
end

--- The limits of a file that is only read: `strings` and `tables` are the libraries that it gets.
---@param who string  "a job file", for messages
function data_file.limits(who)
  return budget.new(world.current(), { who = who, steps = STEPS_MAX, ms = TIME_MS, bytes = BYTES_MAX })
end

--- fn() within these limits.
---@param limits table
---@param site string  of errors.handle
---@param ids table
---@param fn function
---@param name string  the file's
---@param ends string  what such a file does: "a job file returns data and ends"
---@return boolean ok, any value_or_err
function data_file.bounded(limits, site, ids, fn, name, ends)
  local ok, value = errors.handle(site, ids, limits.run, limits, fn)
  local over = limits:over()
  if not over then return ok, value end
  if over == "bytes" then return false, ("%s: takes more than %d bytes of memory; %s"):format(name, BYTES_MAX, ends) end
  return false, ("%s: still running after %d %s; %s"):format(name, over == "ms" and TIME_MS or STEPS_MAX, over, ends)
end

--- "attempt to call a nil value (global 'minuts')" with the name that was meant.
local function hinted(err, env)
  local name = err:match "%(global '([%w_]+)'%)"
  local meant = name and near.of(name, sorted.keys(env))
  return meant and ("%s; did you mean %q?"):format(err, meant) or err
end

---@class DataFile  what is read
---@field noun string   "a job", for messages
---@field file string   "a job file"
---@field forms string  "Lua or JSON"
---@field getenv? fun(name: string): string?

--- Run the text of a Lua file that was opened (see document.open).
---@param bytes string
---@param name string  the file's, for messages
---@param what DataFile
---@return any value
---@return string? err                                  when it could not be read
---@return { line: integer, text: string }[]? problems  variables that are missing
function data_file.run(bytes, name, what)
  local unset = {}
  local limits = data_file.limits(what.file)
  local env = globals(what, unset, limits)
  local chunk, err = load(bytes, "@" .. name, "t", env)
  if not chunk then
    local other = document.other(bytes, what)
    return nil, other and ("%s: %s"):format(name, other) or err
  end
  local ok, value = data_file.bounded(limits, "config.file", { file = name }, chunk, name, what.file .. " returns data and ends")
  if not ok then return nil, type(value) == "string" and hinted(value, env) or name .. ": raised a " .. type(value) end
  return value, nil, unset_problems(bytes, name, unset)
end

--- Read a Lua file whole: its value, which is a table, and where its keys stand.
---@param bytes string
---@param name string
---@param what DataFile
---@return table? value, string? err  every problem of the text, one a line
function data_file.read(bytes, name, what)
  local opened, err = document.open(bytes, name, what)
  if not opened then return nil, err end
  local value, wrong, problems = data_file.run(opened, name, what)
  if wrong then return nil, wrong end
  if type(value) ~= "table" then
    return nil, ("%s: returned %s; expected a table: return { ... }"):format(name, value == nil and "nothing" or "a " .. type(value))
  end
  local lines = text.twice_lines(opened, name)
  for _, problem in ipairs(problems) do lines[#lines + 1] = problem.text end
  if #lines > 0 then return nil, table.concat(lines, "\n") end
  return value
end

return data_file
