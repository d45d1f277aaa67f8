--- located: a schema's problems as lines that say where: `file:line: gates[1].nme: unknown option, did you mean "name"?`
local source = require "shoal.job.source"
local world = require "shoal.core.world"

local located = {}

--- The problems of one text, "; " between; a quoted "; " that a path does not follow stays within its problem.
local function split(text)
  local out = {}
  for piece in (text .. "; "):gmatch("(.-); ") do
    if #out == 0 or piece:match("^[%w_][^:\"]*: ") then out[#out + 1] = piece else out[#out] = out[#out] .. "; " .. piece end
  end
  return out
end

--- The line of a path's key, or of the nearest key around it.
local function line_of(lines, path)
  while path ~= "" do
    if lines[path] then return lines[path] end
    path = path:match("^(.*)%[%d+%]$") or path:match("^(.*)%.[^.]*$") or ""
  end
end

--- Each problem on a line of its own, with the place where the key was given.
---@param err string       a schema's message
---@param file? string     the file that was checked
---@param options? table<string, string>  keys that came as options: "cores" -> "--cores"
---@return string
function located.text(err, file, options)
  local bytes = file and world.current():read_file(file) -- It was read a moment ago; without it there are no lines, no more.
  local lines, out = bytes and source.lines(bytes) or {}, {}
  for i, problem in ipairs(split(err)) do
    local path, rest = problem:match("^([%w_][^:\"]*): (.*)$")
    local option = path and options and options[path]
    if option then
      out[i] = option .. ": " .. rest
    else
      local line = path and line_of(lines, path)
      out[i] = (file and file .. (line and ":" .. line or "") .. ": " or "") .. problem
    end
  end
  return table.concat(out, "\n")
end

return located
