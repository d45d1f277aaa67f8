--- located: a schema's problems as lines that say where: `file:line: gates[1].nme: unknown option, did you mean "name"?`
local text = require "shoal.base.text"
local world = require "shoal.core.world"

local located = {}

--- The problems of one text, "; " between; a quoted "; " that a path does not follow stays within its problem.
local function split(err)
  local out = {}
  for piece in (err .. "; "):gmatch("(.-); ") do
    if #out == 0 or piece:match("^[%w_][^:\"]*: ") then out[#out + 1] = piece else out[#out] = out[#out] .. "; " .. piece end
  end
  return out
end

--- The problems of a schema's message, each with its place, if it has one.
---@param err string
---@return { path: string, message: string }[]
function located.split(err)
  local out = {}
  for i, problem in ipairs(split(err)) do
    local path, rest = problem:match("^([%w_][^:\"]*): (.*)$")
    out[i] = { path = path or "", message = path and rest or problem }
  end
  return out
end

--- The line of a path's key, or of the nearest key around it.
---@param lines table<string, integer>
---@param path string
---@return integer?
function located.line_of(lines, path)
  while path ~= "" do
    if lines[path] then return lines[path] end
    path = path:match("^(.*)%[%d+%]$") or path:match("^(.*)%.[^.]*$") or ""
  end
end

--- A problem at a path of a file, as a line.
---@param lines table<string, integer>
---@return string
function located.line(file, lines, path, message)
  local line = located.line_of(lines, path)
  return ("%s:%s %s%s"):format(file, line and line .. ":" or "", path ~= "" and path .. ": " or "", message)
end

--- Each problem on a line of its own, with the place where the key was given.
---@param err string       a schema's message
---@param file? string     the file that was checked
---@param options? table<string, string>  keys that came as options: "cores" -> "--cores"
---@return string
function located.text(err, file, options)
  local bytes = file and world.current():read_file(file) -- It was read a moment ago; without it there are no lines, no more.
  local lines, out = bytes and text.keys(bytes).lines or {}, {}
  for i, problem in ipairs(located.split(err)) do
    local option = options and options[problem.path]
    if option then
      out[i] = option .. ": " .. problem.message
    elseif file then
      out[i] = located.line(file, lines, problem.path, problem.message)
    else
      out[i] = (problem.path ~= "" and problem.path .. ": " or "") .. problem.message
    end
  end
  return table.concat(out, "\n")
end

return located
