--- workflow.environment: the globals of a workflow's script: Lua without access past the world.
---
--- The library runs in the same state, so a script gets copies of `string`, `table`, `math` and `utf8`: a script that replaces
--- `string.pack` or empties `table` changes only its own copy. Methods of a string ("x"):upper() are the library's, and `getmetatable`
--- does not expose them. There is no `io`, `os`, `require`, `load`, `debug` or `coroutine`. `pcall` is the library's, so that caught
--- errors are counted.
local blame = require "shoal.run.workflow.blame"
local errors = require "shoal.base.errors"
local json = require "shoal.base.json"

local environment = {}

local COPIED = { string = string, table = table, math = math, utf8 = utf8 }
local GIVEN = {
  assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, rawequal = rawequal, rawget = rawget, rawlen = rawlen,
  rawset = rawset, select = select, tonumber = tonumber, tostring = tostring, type = type,
  _VERSION = _VERSION,
}

local function copied(map)
  local out = {}
  for name, value in next, map do out[name] = value end -- order-free: a copy
  return out
end

--- `json` of a script: its mistakes are errors at the script's line.
local function new_json(part)
  return {
    null = json.null,
    array = function (list)
      if list ~= nil and (type(list) ~= "table" or getmetatable(list)) then blame(part, "json.array", "expected a plain table, or nothing") end
      return json.array(list)
    end,
    encode = function (value)
      local text, err = json.encode(value)
      return text or blame(part, "json.encode", err)
    end,
    decode = function (text, options)
      if type(text) ~= "string" then blame(part, "json.decode", "expected text, found a " .. type(text)) end
      if options ~= nil and type(options) ~= "table" then
        blame(part, "json.decode", "options: expected a table, found a " .. type(options))
      end
      local value, err = json.decode(text, options)
      if value == nil then blame(part, "json.decode", err) end
      return value
    end,
  }
end

---@param part table  with env, log(text), ids(step), work.script.path?
---@return table env
function environment.new(part)
  local env = copied(GIVEN)
  for name, library in next, COPIED do env[name] = copied(library) end -- order-free: by name
  local own_string = env.string
  function env.getmetatable(value)
    if type(value) == "string" then return { __index = own_string } end
    return getmetatable(value)
  end
  env.json = new_json(part)
  env.env = part.env
  function env.print(...)
    local words = table.pack(...)
    for i = 1, words.n do words[i] = tostring(words[i]) end
    part.log(table.concat(words, "\t"))
  end
  env.pcall = function (fn, ...) return errors.handle("exec.vu", part.ids("pcall"), fn, ...) end
  --- No finalizers: nothing can interrupt one.
  function env.setmetatable(t, meta)
    if type(meta) == "table" and rawget(meta, "__gc") ~= nil then error("a script has no finalizers (__gc); __close is free", 2) end
    return setmetatable(t, meta)
  end
  env._G = env
  return env
end

return environment
