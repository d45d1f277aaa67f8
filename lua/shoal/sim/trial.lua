--- trial: start and stop a role script in a simulated world, and say what went wrong. `shoal check` and `shoal run` do so before anything
--- real is opened: in there the script's top level, its start, its wiring and its stop run, and no socket, file or process is touched.
---
--- What a simulated world does not have (luv, io, os.getenv, files of the operator) leaves the trial undecided: `untried` says why.
local sim = require "shoal.sim.sim"

local trial = {}

local LIMIT_MS = 60000
local ANSWER = "/answer"
local BARRED = { "not in a simulated node", "cannot open ", "passes settings as arguments", "cannot read " }

---@class Trial
---@field role? string       the role's name, where the script gave one
---@field problems string[]  each with the script's path, and its line where it is known
---@field untried? string    why the script could not be tried

--- Whether it is the simulated world's poverty, and not a mistake of the script.
local function is_barred(problem)
  for _, words in ipairs(BARRED) do
    if problem:find(words, 1, true) then return true end
  end
  return false
end

--- The lines of the node's answer: "role NAME", "problem TEXT".
local function read(answer, out)
  for kind, rest in answer:gmatch "(%l+) ([^\n]*)\n" do
    rest = rest:gsub("\\n", "\n"):gsub("\\\\", "\\")
    if kind == "role" then
      out.role = rest
    elseif is_barred(rest) then
      out.untried = rest
    else
      out.problems[#out.problems + 1] = rest
    end
  end
end

--- Try a role script.
---@param path string   as the user wrote it: messages name it so
---@param bytes string  its text
---@param files? table<string, string>  more files of the simulated disk, such as the operator's policies
---@param policies? string              folder of policies on that disk; default: the shipped ones
---@return Trial
function trial.role(path, bytes, files, policies)
  local s <close> = sim.new {}
  local disk = { [path] = bytes }
  for name, text in next, files or {} do disk[name] = text end -- order-free: a copy
  local node = s:node { name = "trial", entry = "shoal.sim.tried", argv = { path, policies or "" }, files = disk }
  local out = { problems = {} }
  local ended = s:run_until(function () return s:status(node) ~= "up" end, LIMIT_MS, 100)
  local answer = s:read(node, ANSWER)
  if answer then read(answer, out) end
  if not ended then
    out.problems[#out.problems + 1] = ("%s: still starting or stopping after %d s of simulated time"):format(path, LIMIT_MS // 1000)
  elseif not answer then
    out.untried = "the simulated node ended without an answer"
  end
  return out
end

return trial
