--- policies: scripts/policies/placement.lua, retry.lua and such, loaded in the sandbox (shoal.base.errors.sandbox). The leader asks
--- their functions through errors.policy, which bounds each call, copies what goes in and checks what comes out.
local errors = require "shoal.base.errors"
local job = require "shoal.job.spec"
local sorted = require "shoal.base.sorted"

local policies = {}

local function environment()
  local math_kept = {}
  for name, value in sorted(math) do math_kept[name] = value end -- With random: it is the world's in a node's state.
  math_kept.randomseed = nil
  return {
    math = math_kept,
    require = function (name)
      if name == "shoal.job" then return errors.view(job) end
      error(("a policy can require shoal.job, and nothing else; not %s"):format(tostring(name)), 2)
    end,
  }
end

--- Load one policy.
---@param world table
---@param path string
---@return table? policy, string? err, string? code "CONFIG"
function policies.load(world, path)
  local text, err = world:read_file(path)
  if not text then return nil, "cannot " .. err, "CONFIG" end
  local value, problem, code = errors.policy_script(text, path, environment())
  if value == nil and problem then return nil, problem, code end
  if type(value) ~= "table" then return nil, ("%s: expected the policy to return a table, found %s"):format(path, type(value)), "CONFIG" end
  return value
end

return policies
