--- policies: scripts/policies/placement.lua, retry.lua and such, loaded in the sandbox (shoal.base.errors.sandbox). The leader asks
--- their functions through errors.policy, which bounds each call, copies what goes in and checks what comes out.
local document = require "shoal.base.document"
local errors = require "shoal.base.errors"
local globals = require "shoal.base.globals"
local job = require "shoal.job.spec"
local near = require "shoal.base.near"
local sorted = require "shoal.base.sorted"
local text = require "shoal.base.text"

local policies = {}

local OPTIONAL = { optional = true }
local LEADER = {
  accepts = { "spec", "executors" }, split = { "workflow", "executors", "spec" }, choose = { "part", "workflow", "executors", "spec" },
}

--- The shipped policies' functions and the arguments that each gets. A policy of another name may have any.
policies.SHAPES = {
  placement = {
    workers = LEADER,
    datacenters = { accepts = LEADER.accepts, split = LEADER.split, choose = LEADER.choose, admits = { "dc", "manager", [OPTIONAL] = true } },
  },
  retry = { again = { "part", "workflow", "how", "tier" } },
}
local POLICY = { noun = "a policy", forms = "Lua" }

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

--- A problem of a policy, with its line.
local function note(problems, path, line, format, ...)
  problems[#problems + 1] = ("%s:%s %s"):format(path, line and line .. ":" or "", format:format(...))
end

--- One function of a policy: is it there, and does it take no more than it gets?
local function check_function(problems, path, name, fn, shape)
  if fn == nil and shape[OPTIONAL] then return end
  if type(fn) ~= "function" then return note(problems, path, nil, "%s: expected a function, found %s", name, type(fn)) end
  local info = debug.getinfo(fn, "uS")
  if not info.isvararg and info.nparams > #shape then
    note(problems, path, info.linedefined, "%s: the function takes %d arguments, expected (%s)", name, info.nparams, table.concat(shape, ", "))
  end
end

--- The functions of one table of a policy.
local function check_table(problems, path, bytes, prefix, value, shape)
  for key in sorted(value) do
    if not shape[key] then
      local meant = near.of(key, sorted.keys(shape))
      note(problems, path, text.line_of(bytes, tostring(key)), "%s%s: a policy has no such function here%s; it has %s", prefix, tostring(key),
        meant and (", did you mean %s?"):format(meant) or "", table.concat(sorted.keys(shape), ", "))
    end
  end
  for key, inner in sorted(shape) do
    local name, found = prefix .. key, value[key]
    if inner[1] then
      check_function(problems, path, name, found, inner)
    elseif type(found) ~= "table" then
      note(problems, path, nil, "%s: expected a table, found %s", name, type(found))
      for function_name, of in sorted(inner) do check_function(problems, path, name .. "." .. function_name, nil, of) end
    else
      check_table(problems, path, bytes, name .. ".", found, inner)
    end
  end
end

--- Globals that a policy's text uses and that it will not find, as problems: for `shoal check` and `shoal run`. At run time each is an
--- incident when it is met.
---@param opened string  the text
---@param path string
---@return string[]
function policies.unknown_globals(opened, path)
  return globals.unknown_lines(opened, errors.policy_globals(path:find "errors%.lua$" and {} or environment()), path)
end

--- Load one policy and check it: its functions by its file's name, keys that are given twice.
---@param world table
---@param path string
---@return table? policy, string? err, string? code "CONFIG"
function policies.load(world, path)
  local bytes, err, code = world:read_file(path)
  if not bytes then return nil, document.unreadable(path, err, code), "CONFIG" end
  local opened, unfit = document.open(bytes, path, POLICY)
  if not opened then return nil, unfit, "CONFIG" end
  local value, problem = errors.policy_script(opened, path, environment())
  if value == nil and problem then
    local other = not load(opened, "=", "t", {}) and document.other(opened, POLICY)
    return nil, other and ("%s: %s"):format(path, other) or problem, "CONFIG"
  end
  if type(value) ~= "table" then return nil, ("%s: expected the policy to return a table, found %s"):format(path, type(value)), "CONFIG" end
  local problems = text.twice_lines(opened, path)
  local shape = policies.SHAPES[path:match "([^/]*)%.lua$"]
  if shape then check_table(problems, path, opened, "", value, shape) end
  if #problems > 0 then return nil, table.concat(problems, "\n"), "CONFIG" end
  return value
end

return policies
