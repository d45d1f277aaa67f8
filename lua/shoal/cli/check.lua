--- shoal check: load and verify without starting.
---
--- A file's kind is decided by its text before any of it runs: a program (examples/membership.lua) opens sockets as soon as it is
--- loaded, and a check must not run it.
local common = require "shoal.cli.common"
local errors = require "shoal.base.errors"
local job = require "shoal.job.spec"
local located = require "shoal.cli.located"
local node = require "shoal.node.node"
local policies = require "shoal.node.policies"
local messages = require "shoal.wire.messages"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"
local source = require "shoal.job.source"
local workflow = require "shoal.run.workflow"
local world = require "shoal.core.world"

local check = {}

function check.words(command)
  command:argument("files", "role scripts, policies, job files, workflow scripts, topologies or settings of nodes"):args("+")
  command:epilog("Example:\n  shoal check scripts/roles/worker.lua scripts/policies/errors.lua examples/hello.lua")
end

--- Functions that a policy must have; nested names by a dot.
local function wants(names)
  return function (path, value)
    local problems = {}
    for _, name in ipairs(names) do
      local at = value
      for word in name:gmatch("[^.]+") do at = type(at) == "table" and at[word] or nil end
      if type(at) ~= "function" then
        problems[#problems + 1] = ("%s: %s: expected a function, found %s"):format(path, name, type(at))
      end
    end
    if #problems > 0 then return nil, table.concat(problems, "\n") end
    return "policy"
  end
end

local POLICIES = {
  errors = function (path)
    local ok, err = errors.load_policy(path)
    if not ok then return nil, err end
    return "errors policy"
  end,
  placement = wants {
    "workers.accepts", "workers.split", "workers.choose", "datacenters.accepts", "datacenters.split", "datacenters.choose",
  },
  retry = wants { "again" },
}

--- A file that returns nothing is a program; a computed value may be a role's, unless the file requires luv or the simulator, as
--- no role, policy or workflow does while it is loaded.
local function is_program(bytes, gives)
  if not gives then return true end
  return gives == "other" and (bytes:find("require%s*%(?%s*[\"']luv[\"']") or bytes:find("require%s*%(?%s*[\"']shoal%.sim[\"']")) ~= nil
end

--- A workflow's script returns its users' function, or a table that has it as `vu`; it can require nothing.
local function is_workflow(bytes, gives)
  if bytes:find("%f[%w_]require%f[^%w_]") then return false end
  return gives == "function" or bytes:find("%f[%w_]vu%s*=") ~= nil or bytes:find("function%s+[%w_]+[.:]vu%s*%(") ~= nil
end

--- Are the messages that a role answers and sends in the registry, and may it? A node says the same at its start.
local function check_messages(path, role)
  local problems, known = {}, {}
  for _, name in ipairs(messages.names()) do known[name] = true end
  local function look(key, name)
    if known[name] then return end
    local near = schema.did_you_mean(tostring(name), messages.names())
    problems[#problems + 1] = ("%s: %s: there is no message %s%s"):format(path, key, tostring(name),
      near and ", did you mean " .. near .. "?" or "")
  end
  for name in sorted(role.answers or {}) do look("answers", name) end
  for _, name in ipairs(role.sends or {}) do look("sends", name) end
  if #problems == 0 then return true end
  return nil, table.concat(problems, "\n")
end

--- A file's kind, by its name or by its value; or its problems.
local function verify(path)
  local bytes, err = world.current():read_file(path)
  if not bytes then return nil, "cannot " .. err end
  -- A job file has words of its own (minutes, getenv), so its kind is decided by its text, not by running it.
  if (path:find("%.json$") or bytes:find("^%s*{")) or bytes:find("%f[%w]workflows%s*=") and not bytes:find("%f[%w]require%f[%W]") then
    local spec, problems = job.load(world.current(), path, os.getenv)
    if not spec then return nil, problems end
    return "job " .. spec.name
  end
  local compiled, syntax = load(bytes, "@" .. path, "t")
  if not compiled then return nil, syntax end
  local gives = source.gives(bytes)
  if is_program(bytes, gives) then return "program: its syntax; it was not run" end
  if is_workflow(bytes, gives) then
    local ok, wrong = workflow.check(bytes, path, setmetatable({}, { __index = function (_, name) return os.getenv(name) end }))
    if not ok then return nil, wrong end
    return "workflow script"
  end
  local policy = POLICIES[path:match("([^/]*)%.lua$")]
  local value, problem = (policy and policies.load or node.load_script)(world.current(), path)
  if not value then return nil, problem end
  if type(value.start) == "function" then
    local ok, wrong = node.check_script(path, value)
    if ok then ok, wrong = node.check_role_hooks(path, value) end
    if ok then ok, wrong = check_messages(path, value) end
    if not ok then return nil, wrong end
    return "role " .. value.name
  end
  if policy then return policy(path, value) end
  if value.gates or value.datacenters then
    local topology, wrong = require("shoal.cli.up").check(value)
    if not topology then return nil, located.text(wrong, path) end
    return "topology"
  end
  local config
  config, problem = node.config(value)
  if config then return "settings of a node" end
  return nil, path .. ": no role (start), job (workflows), workflow script (vu), topology (datacenters) or policy; as settings of a node:\n"
    .. located.text(problem, path)
end

function check.run(args)
  local worst = 0
  for _, path in ipairs(args.files) do
    local what, err = verify(path)
    if what then
      common.data(("%s: ok (%s)"):format(path, what))
    else
      worst = common.EXIT.usage
      common.talk(err)
    end
  end
  return worst
end

return check
