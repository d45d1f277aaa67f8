--- checking: what can be said of a workflow's script from its text and from one run of its top level, before a part runs it.
local data_file = require "shoal.base.data_file"
local document = require "shoal.base.document"
local globals = require "shoal.base.globals"
local near = require "shoal.base.near"
local sorted = require "shoal.base.sorted"
local text = require "shoal.base.text"

local checking = {}

local SCRIPT = { noun = "a workflow script", forms = "Lua" }

--- Run the top level once; the problems of the text, and the value. A script that does not compile or raises is one problem.
---@param bytes string
---@param path string
---@param env table  its globals
---@return string[]? problems, any value_or_err
function checking.text(bytes, path, env)
  local opened, unfit = document.open(bytes, path, SCRIPT)
  if not opened then return nil, unfit end
  local chunk, err = load(opened, "@" .. path, "t", env)
  if not chunk then
    local other = document.other(opened, SCRIPT)
    return nil, other and ("%s: %s"):format(path, other) or err
  end
  local problems = text.twice_lines(opened, path)
  local unknown = globals.unknown_lines(opened, env, path) -- Before it runs: it may set some.
  table.move(unknown, 1, #unknown, #problems + 1, problems)
  local limits = data_file.limits "a script"
  env.string, env.table = limits.strings, limits.tables
  local ok, value = data_file.bounded(limits, "script.load", { path = path }, chunk, path, "a script's top level ends")
  if ok then return problems, value end
  problems[#problems + 1] = tostring(value)
  return nil, table.concat(problems, "\n")
end

--- The fields of the table that a script returned.
---@param path string
---@param bytes? string  its text, for lines
---@param value table
---@param known table<string, string>  the type of each field
---@return string[] problems
function checking.fields(path, bytes, value, known)
  local problems = {}
  local function place(name)
    local line = bytes and text.line_of(bytes, tostring(name))
    return line and ("%s:%d"):format(path, line) or path
  end
  for name, field in sorted(value) do
    local wanted = known[name]
    if not wanted then
      local meant = near.of(name, sorted.keys(known))
      problems[#problems + 1] = ("%s: unknown field %s; known are %s%s"):format(place(name), tostring(name),
        table.concat(sorted.keys(known), ", "), meant and ("; did you mean %q?"):format(meant) or "")
    elseif type(field) ~= wanted then
      problems[#problems + 1] = ("%s: %s is a %s; expected a %s"):format(place(name), name, type(field), wanted)
    end
  end
  return problems
end

return checking
