--- verify: one function for each kind of file that people write. `shoal check`, `run`, `up` and `submit` call the same ones, so that what
--- one of them refuses, all refuse, with the same lines.
---
---     local what, err = verify.role("worker.lua")     -- "role worker"; or nil and every problem, a line each
---
--- A file's kind is decided by its text before any of it runs. Data (jobs, topologies, settings) and policies run in their sandboxes; a
--- role runs in a simulated world, where it can open nothing (shoal.sim.trial); a program does not run.
local data_file = require "shoal.base.data_file"
local document = require "shoal.base.document"
local errors = require "shoal.base.errors"
local globals = require "shoal.base.globals"
local job = require "shoal.job.spec"
local located = require "shoal.cli.located"
local node = require "shoal.node.node"
local policies = require "shoal.node.policies"
local sorted = require "shoal.base.sorted"
local text = require "shoal.base.text"
local trial = require "shoal.sim.trial"
local workflow = require "shoal.run.workflow"
local world = require "shoal.core.world"

local verify = {}

local ROLE = { noun = "a role script", forms = "Lua" }
local SETTINGS = { noun = "the settings of a node", file = "a settings file", forms = "Lua" }
local TOPOLOGY = { noun = "a topology", file = "a topology file", forms = "Lua" }
local ANY = { noun = "a job, role, policy, topology, workflow script or settings", forms = "Lua, or JSON for a job" }
local POLICIES = { "errors", "placement", "retry" }
local LEADERS = { gate = true, manager = true }

--- A file's text without what readers skip.
local function open(path, what)
  local bytes, err, code = world.current():read_file(path)
  if not bytes then return nil, document.unreadable(path, err, code) end
  return document.open(bytes, path, what)
end

local function append(out, lines) return table.move(lines, 1, #lines, #out + 1, out) end

-- Roles and policies ---------------------------------------------------------------------------------------------------

--- A role script: its text, its wiring, and its start and stop in a simulated world.
---@param path string
---@param policies_folder? string  with `--policies`
---@return string? what, string? err, string? name  of the role
function verify.role(path, policies_folder)
  local bytes, err = open(path, ROLE)
  if not bytes then return nil, err end
  local chunk, syntax = load(bytes, "@" .. path, "t")
  if not chunk then
    local other = document.other(bytes, ROLE)
    return nil, other and ("%s: %s"):format(path, other) or syntax
  end
  local problems = append(text.twice_lines(bytes, path), globals.unknown_lines(bytes, _G, path))
  local files = {}
  for _, name in ipairs(policies_folder and POLICIES or {}) do
    local file = ("%s/%s.lua"):format(policies_folder, name)
    files[file] = world.current():read_file(file) -- One that is missing is a problem of the policies.
  end
  local tried = trial.role(path, bytes, files, policies_folder)
  append(problems, tried.problems)
  if #problems > 0 then return nil, table.concat(problems, "\n"), tried.role end
  if tried.untried then return ("role %s; it was not tried: %s"):format(tried.role or "?", tried.untried), nil, tried.role end
  return "role " .. tried.role, nil, tried.role
end

--- A policy script.
---@return string? what, string? err
function verify.policy(path)
  local bytes, err = open(path, { noun = "a policy", forms = "Lua" })
  if not bytes then return nil, err end
  local problems = policies.unknown_globals(bytes, path)
  local ok
  local name = path:match "([^/]*)%.lua$"
  if name == "errors" then ok, err = errors.check_policy(bytes, path) else ok, err = policies.load(world.current(), path) end
  if not ok then table.insert(problems, 1, err) end
  if #problems > 0 then return nil, table.concat(problems, "\n") end
  return name == "errors" and "errors policy" or "policy"
end

--- The folder of policies that a node of this role uses.
---@param folder string
---@param role? string
---@return true? ok, string? err
function verify.policies(folder, role)
  local problems = {}
  for _, name in ipairs(POLICIES) do
    local path = ("%s/%s.lua"):format(folder, name)
    if name == "errors" or LEADERS[role or "gate"] then
      local ok, err = verify.policy(path)
      if not ok then problems[#problems + 1] = err end
    end
  end
  if #problems > 0 then return nil, table.concat(problems, "\n") end
  return true
end

-- Jobs and their scripts -----------------------------------------------------------------------------------------------

--- A workflow's script, run as for a part with this environment.
---@return string? what, string? err
function verify.script(path, bytes, env)
  local ok, err = workflow.check(bytes, path, env)
  if not ok then return nil, err end
  return "workflow script"
end

--- A job file with all its scripts.
---@param path string
---@param getenv fun(name: string): string?
---@param over? table<string, string>  goes over the environment of every script: `submit --env`
---@return table? spec, string? err
function verify.job(path, getenv, over)
  return job.load(world.current(), path, getenv, function (script, bytes, env)
    local given = {}
    for _, from in ipairs { env, over or {} } do
      for name, value in sorted(from) do given[name] = value end
    end
    local _, err = verify.script(script, bytes, given)
    return err
  end)
end

-- Settings and topologies ----------------------------------------------------------------------------------------------

--- A settings file as a table; not yet the settings, for options come over it.
---@return table? settings, string? err
function verify.read_settings(path)
  local bytes, err = open(path, SETTINGS)
  if not bytes then return nil, err end
  SETTINGS.getenv = os.getenv
  return data_file.read(bytes, path, SETTINGS)
end

--- A settings file by itself.
---@return string? what, string? err
function verify.settings(path)
  local value, err = verify.read_settings(path)
  if not value then return nil, err end
  local config, wrong = node.config(value)
  if not config then return nil, located.text(wrong, path) end
  if config.policies ~= "" then
    local ok, problem = verify.policies(config.policies)
    if not ok then return nil, problem end
  end
  return "settings of a node"
end

--- A topology with the scripts and policies of its nodes.
---@return table? topology, string? err
function verify.topology(path)
  local bytes, err = open(path, TOPOLOGY)
  if not bytes then return nil, err end
  TOPOLOGY.getenv = os.getenv
  local value
  value, err = data_file.read(bytes, path, TOPOLOGY)
  if not value then return nil, err end
  return require("shoal.cli.verify.topology").check(value, path, text.keys(bytes).lines, verify)
end

-- Any file -------------------------------------------------------------------------------------------------------------

--- A file that returns nothing: a program, which opens sockets as soon as it runs, or a file whose `return` is missing.
local function no_value(path, bytes)
  if bytes:find "%f[%w_]function%s+[%w_]+%.start%s*%(" or bytes:find "%f[%w_]answers%s*=" and bytes:find "%f[%w_]sends%s*=" then
    return nil, path .. ": expected the script to return a table, found nil; a role's last line is `return role`"
  end
  if bytes:find "require%s*%(?%s*[\"']luv[\"']" or bytes:find "require%s*%(?%s*[\"']shoal[%w_.]*[\"']" then
    return "program: its syntax; it was not run"
  end
  return nil, path .. ": returns nothing; expected " .. ANY.noun .. ": return { ... }"
end

--- A computed value may be a role's, unless the file requires luv or the simulator, as no role, policy or workflow does at its load.
local function is_program(bytes)
  return bytes:find "require%s*%(?%s*[\"']luv[\"']" or bytes:find "require%s*%(?%s*[\"']shoal%.sim[\"']"
end

--- A workflow's script returns its users' function, or a table that has it as `vu`; it can require nothing.
local function is_workflow(bytes, gives)
  if bytes:find("%f[%w_]require%f[^%w_]") then return false end
  return gives == "function" or bytes:find("%f[%w_]vu%s*=") ~= nil or bytes:find("function%s+[%w_]+[.:]vu%s*%(") ~= nil
end

local function is_role(bytes)
  return bytes:find "%f[%w_]start%s*=" or bytes:find "function%s+[%w_]+[.:]start%s*%(" or bytes:find "%f[%w_]answers%s*="
    or bytes:find "%f[%w_]sends%s*=" or bytes:find "[%w_]+%.answer%s*=" or bytes:find "require%s*%(?%s*[\"']shoal%.%l+[\"']"
end

--- Whether its data is a topology: settings have neither datacenters nor tables as gates.
local function is_topology(lines)
  return lines.datacenters or lines["gates[1]"]
end

--- Any file: its kind, or its problems.
---@param path string
---@param topology? table  one that was verified: jobs must fit it
---@return string? what, string? err
function verify.file(path, topology)
  local bytes, err = open(path, ANY)
  if not bytes then return nil, err end
  -- A job file has words of its own (minutes, getenv), so its kind is decided by its text, not by running it.
  if path:find "%.json$" or bytes:find "^%s*[{%[]" or bytes:find "%f[%w]workflows%s*=" and not bytes:find "%f[%w]require%f[%W]" then
    local spec, problems = verify.job(path, os.getenv)
    if not spec then return nil, problems end
    if topology then
      problems = require("shoal.cli.verify.topology").fits(spec, topology, path, text.keys(bytes).lines)
      if problems then return nil, problems end
    end
    return "job " .. spec.name
  end
  local compiled, syntax = load(bytes, "@" .. path, "t")
  if not compiled then
    local other = document.other(bytes, ANY)
    return nil, other and ("%s: %s"):format(path, other) or syntax
  end
  local gives, name = text.gives(bytes), path:match "([^/]*)%.lua$"
  if not gives then return no_value(path, bytes) end
  if gives == "other" and is_program(bytes) then return "program: its syntax; it was not run" end
  for _, policy in ipairs(POLICIES) do
    if policy == name then return verify.policy(path) end
  end
  if is_workflow(bytes, gives) then
    return verify.script(path, bytes, setmetatable({}, { __index = function (_, variable) return os.getenv(variable) end }))
  end
  if is_role(bytes) then
    local what, wrong = verify.role(path)
    return what, wrong
  end
  local lines = text.keys(bytes).lines
  if is_topology(lines) then
    local value, wrong = verify.topology(path)
    return value and "topology", wrong
  end
  local what, wrong = verify.settings(path)
  if what then return what end
  local problem = ("%s: no role (start), job (workflows), workflow script (vu), topology (datacenters) or policy; as settings of a node:\n%s")
  return nil, problem:format(path, wrong)
end

return verify
