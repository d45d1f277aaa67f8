--- globals: names that a Lua text uses and that nothing there defines: `jsn.encode`, `string.fromat`. A guess by the tokens, on the safe
--- side: a name that the text declares or assigns anywhere counts as defined everywhere in it. So what is found is a mistake.
local near = require "shoal.base.near"
local sorted = require "shoal.base.sorted"
local text = require "shoal.base.text"

local globals = {}

local KEYWORDS = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat return then true until while self _ENV _G")
  :gmatch "%S+" do
  KEYWORDS[word] = true
end

--- All tokens, by index.
local function tokens_of(bytes)
  local list = {}
  for kind, value, line in text.tokens(bytes) do list[#list + 1] = { kind = kind, value = value, line = line } end
  return list
end

local NOTHING = { kind = "other", value = "" }

--- Every name that the text declares or assigns: locals, parameters, variables of loops, functions, globals that it sets.
local function defined_in(list)
  local out = {}
  local function at(i) return list[i] or NOTHING end
  local function names(i, stop) -- a, b <const>, ... from i on
    while at(i).kind == "name" or at(i).value == "." do
      if at(i).kind == "name" then out[at(i).value] = true end
      i = i + 1
      if at(i).value == "<" then i = i + 3 end
      if at(i).value ~= "," then break end
      i = i + 1
    end
    return stop and i
  end
  for i, t in ipairs(list) do
    if t.kind == "name" then
      if t.value == "local" and at(i + 1).value ~= "function" or t.value == "for" then
        names(i + 1)
      elseif t.value == "function" then
        local j = i + 1
        if at(j).kind == "name" and at(j + 1).value == "(" then out[at(j).value] = true end
        while at(j).kind == "name" or at(j).value == "." or at(j).value == ":" do j = j + 1 end
        if at(j).value == "(" then names(j + 1) end
      elseif at(i + 1).value == "=" and at(i + 2).value ~= "=" then
        out[t.value] = true -- An assignment, or a key of a table: not told apart.
      elseif at(i + 1).value == "," and not KEYWORDS[t.value] and at(i - 1).value ~= "." then
        local j = i -- a, b = 1, 2
        while at(j).kind == "name" and at(j + 1).value == "," do j = j + 2 end
        if at(j).kind == "name" and at(j + 1).value == "=" and at(j + 2).value ~= "=" then out[t.value] = true end
      end
    end
  end
  return out
end

--- The names of the text that are neither defined in it nor in `env`; and fields that a library of `env` does not have.
---@param bytes string
---@param env table<string, any>  the globals that there are
---@return { line: integer, text: string }[]
function globals.unknown(bytes, env)
  local list, out, told = tokens_of(bytes), {}, {}
  local defined = defined_in(list)
  local function note(t, key, words)
    if told[key] then return end
    told[key] = true
    out[#out + 1] = { line = t.line, text = words }
  end
  for i, t in ipairs(list) do
    local before, after = list[i - 1] or NOTHING, list[i + 1] or NOTHING
    local free = t.kind == "name" and not KEYWORDS[t.value] and not defined[t.value]
    local label = before.value == ":" and (list[i - 2] or NOTHING).value == ":" and after.value == ":"
    local attribute = before.value == "<" and after.value == ">" and before.kind == "other"
    local asked = after.value == "or" or after.value == "and" or after.value == "then" -- `unpack or table.unpack`: it knows.
    local member = before.kind == "other" and (before.value == "." and (list[i - 2] or NOTHING).value ~= "." or before.value == ":")
    if free and not (member or label or attribute or asked) and before.value ~= "goto" then
      local value = env[t.value]
      if value == nil then
        local meant = near.of(t.value, sorted.keys(env))
        note(t, t.value, ("there is no global %s%s"):format(t.value, meant and ("; did you mean %q?"):format(meant) or ""))
      elseif type(value) == "table" and value == rawget(env, t.value) and after.value == "." and after.kind == "other" then
        local field = list[i + 2] or NOTHING
        local library = type(next(value)) == "string" and not getmetatable(value)
        if library and field.kind == "name" and value[field.value] == nil and (list[i + 3] or NOTHING).value ~= "=" then
          local meant = near.of(field.value, sorted.keys(value))
          note(field, t.value .. "." .. field.value, ("%s has no %s%s"):format(t.value, field.value,
            meant and ("; did you mean %q?"):format(t.value .. "." .. meant) or ""))
        end
      end
    end
  end
  return out
end

--- The same as lines of a message.
---@param name string  the file's
---@return string[]
function globals.unknown_lines(bytes, env, name)
  local out = {}
  for i, one in ipairs(globals.unknown(bytes, env)) do out[i] = ("%s:%d: %s"):format(name, one.line, one.text) end
  return out
end

return globals
