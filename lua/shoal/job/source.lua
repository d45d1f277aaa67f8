--- job.source: read a job file, Lua or JSON, as plain data, and find the line of each of its keys.
---
--- A Lua job file runs in a sandbox (no io, os, require, load), for at most INSTRUCTIONS_MAX steps, and returns data. A table does not
--- know its lines, so a second pass over the text finds them, token by token. A computed key has no line; problems with it name only
--- the file.
local errors = require "shoal.base.errors"
local json = require "shoal.base.json"
local sorted = require "shoal.base.sorted"

local source = {}

local INSTRUCTIONS_MAX = 20000000 -- About a second; a job file that takes longer is in an endless loop.
local FILE_BYTES_MAX = 1024 * 1024

local function copy(library, names)
  local out = {}
  for name in names:gmatch("%S+") do out[name] = library[name] end
  return out
end

--- The environment of a Lua job file.
local function sandbox(getenv)
  return {
    string = copy(string, "byte char find format gmatch gsub len lower match rep reverse sub upper"),
    table = copy(table, "concat insert remove sort unpack pack"),
    math = copy(math, "abs ceil floor max min huge pi tointeger"),
    pairs = sorted, ipairs = ipairs, select = select, tonumber = tonumber, tostring = tostring, type = type,
    assert = assert, error = error,
    getenv = function (name, default)
      local value = getenv and getenv(name)
      if value == nil then return default end
      return value
    end,
    seconds = function (n) return n * 1000 end,
    minutes = function (n) return n * 60000 end,
  }
end

-- Lines ----------------------------------------------------------------------------------------------------------------

local PLAIN_ESCAPE = { n = "\n", t = "\t", r = "\r", ['"'] = '"', ["'"] = "'", ["\\"] = "\\", ["/"] = "/" }

--- Tokens of Lua or JSON text, enough to follow tables and their keys: kind ("name", "string", "other"), text, line.
local function tokens(text)
  local at, line = 1, 1
  local function advance(to)
    for _ in text:sub(at, to):gmatch("\n") do line = line + 1 end
    at = to + 1
  end
  return function ()
    while true do
      local _, blank = text:find("^%s+", at)
      if blank then advance(blank) end
      local level = text:match("^%-%-%[(=*)%[", at)
      if level then
        local _, close = text:find("]" .. level .. "]", at, true)
        advance(close or #text)
      elseif text:find("^%-%-", at) then
        advance((text:find("\n", at, true) or #text + 1) - 1)
      elseif not blank then
        break
      end
    end
    if at > #text then return nil end
    local here = line
    local name = text:match("^[%a_][%w_]*", at)
    if name then
      at = at + #name
      return "name", name, here
    end
    local level = text:match("^%[(=*)%[", at)
    if level then
      local from, close = at + #level + 2, select(2, text:find("]" .. level .. "]", at, true)) or #text
      local body = text:sub(from, close - #level - 2)
      advance(close)
      return "string", body, here
    end
    local quote = text:match("^[\"']", at)
    if quote then
      local stop = at + 1
      while stop <= #text and text:sub(stop, stop) ~= quote and text:sub(stop, stop) ~= "\n" do
        stop = stop + (text:sub(stop, stop) == "\\" and 2 or 1)
      end
      local body = text:sub(at + 1, stop - 1):gsub("\\(.)", PLAIN_ESCAPE)
      advance(math.min(stop, #text))
      return "string", body, here
    end
    local char = text:sub(at, at)
    at = at + 1
    return "other", char, here
  end
end

--- The line of each key: `lines["workflows.warm.script"] = 7`. Elements of lists have no entry.
---@param text string
---@return table<string, integer>
function source.lines(text)
  local lines, stack, path = {}, {}, nil
  local pending, pending_line -- A name or string that is a key if `=` or `:` follows.
  local key
  for kind, value, line in tokens(text) do
    if kind == "other" and value == "{" then
      stack[#stack + 1] = path or false
      if #stack == 1 then
        path = ""
      else
        path = path and key and (path == "" and key or path .. "." .. key) or nil
      end
      key, pending = nil, nil
    elseif kind == "other" and value == "}" then
      path = table.remove(stack) or nil
      key, pending = nil, nil
    elseif kind == "other" and (value == "=" or value == ":") and pending and #stack > 0 then
      key = pending
      local full = path and (path == "" and key or path .. "." .. key)
      if full and not lines[full] then lines[full] = pending_line end
      pending = nil
    elseif kind == "other" and (value == "[" or value == "]") then
      if value == "[" then pending = nil end
    elseif kind == "other" and (value == "," or value == ";") then
      key, pending = nil, nil
    elseif kind == "other" then
      pending = nil
    else
      pending, pending_line = value, line
    end
  end
  return lines
end

local OPENS = { ["function"] = true, ["do"] = true, ["if"] = true, ["repeat"] = true }
local CLOSES = { ["end"] = true, ["until"] = true }

--- The kind of value that a Lua file returns, found from its text: "table" or "function" when its last statement returns a literal one
--- or a variable of the file that holds one; "other" for any other value (a call's result, a number); nil when it returns nothing. A
--- file that returns nothing is a program.
---@param text string
---@return "table"|"function"|"other"|nil
function source.gives(text)
  local depth, before, last, name = 0, nil, nil, nil
  local holds, returned = {}, nil -- Top-level variables; the two words after the top-level `return`.
  for kind, value in tokens(text) do
    local word = kind == "name" and value
    if depth == 0 and before == "function" and word then holds[word] = "function" end
    if depth == 0 and before == "=" and name and (value == "{" or word == "function") then
      holds[name] = value == "{" and "table" or "function"
    end
    if returned and #returned < 2 then returned[#returned + 1] = kind == "string" and "" or value end
    if depth == 0 and word == "return" then returned = {} end
    if word and OPENS[word] or value == "{" and kind == "other" then depth = depth + 1 end
    if word and CLOSES[word] or value == "}" and kind == "other" then depth = depth - 1 end
    if value == "=" then name = before else name = nil end
    before, last = kind == "string" and "" or value, value
  end
  if not returned or not last then return nil end
  local first, second = returned[1], returned[2]
  if first == "{" then return "table" end
  if first == "function" then return "function" end
  return (second == nil or second == ";") and holds[first] or "other"
end

-- Data -----------------------------------------------------------------------------------------------------------------

local function load_lua(bytes, name, getenv)
  local chunk, err = load(bytes, "@" .. name, "t", sandbox(getenv))
  if not chunk then return nil, err end
  local hooked = not debug.gethook() -- The simulator may have a hook of its own, which then bounds the file.
  local function bounded()
    if hooked then
      debug.sethook(function ()
        debug.sethook()
        error(name .. ": still running after " .. INSTRUCTIONS_MAX .. " steps; a job file returns data and ends", 0)
      end, "", INSTRUCTIONS_MAX)
    end
    return chunk()
  end
  local ok, value = errors.handle("config.job", { file = name }, bounded)
  if hooked then debug.sethook() end
  if not ok then return nil, type(value) == "string" and value or name .. ": raised a " .. type(value) end
  return value
end

local function without_nulls(value)
  if type(value) ~= "table" then return value end
  for k, v in next, value do -- order-free: each entry by itself
    if v == json.null then value[k] = nil else without_nulls(v) end
  end
  return value
end

local function load_json(bytes, name)
  local value, err, line = json.decode(bytes, { unique = true })
  if value ~= nil then return without_nulls(value) end
  return nil, ("%s:%d: JSON: %s"):format(name, line, (err:gsub("^line %d+, ", "")))
end

--- Read the text of a job file. It is JSON when its name ends so, or its first character is a brace.
---@param bytes string
---@param name string  for messages
---@param getenv? fun(name: string): string?
---@return table? data, table<string, integer>|string lines_or_err
function source.read(bytes, name, getenv)
  if #bytes > FILE_BYTES_MAX then
    return nil, ("%s: %d bytes; a job file has at most %d"):format(name, #bytes, FILE_BYTES_MAX)
  end
  local is_json = name:find("%.json$") ~= nil or bytes:find("^%s*{") ~= nil
  local data, err
  if is_json then data, err = load_json(bytes, name) else data, err = load_lua(bytes, name, getenv) end
  if data == nil and err then return nil, err end
  if type(data) ~= "table" then
    return nil, ("%s: returned %s; expected a table: return { name = ..., workflows = { ... } }"):format(name,
      data == nil and "nothing" or "a " .. type(data))
  end
  return data, source.lines(bytes)
end

return source
