--- shoal check: load and verify without starting.
local common = require "shoal.cli.common"
local errors = require "shoal.errors"
local job = require "shoal.job"
local node = require "shoal.node"
local world = require "shoal.core.world"

local check = {}

function check.words(command)
  command:argument("files", "role scripts, policies, job files or topologies"):args("+")
  command:epilog("Example:\n  shoal check scripts/roles/worker.lua scripts/policies/errors.lua examples/hello.lua")
end

--- What a Lua file is, by what it returns.
local function verify(path)
  if path:match("%.json$") then
    local spec, err = job.load(world.current(), path)
    if not spec then return nil, err end
    return "job " .. spec.name
  end
  local value, err = node.load_script(world.current(), path)
  if not value then return nil, err end
  if type(value.workflows) == "table" then
    local spec, problems = job.load(world.current(), path)
    if not spec then return nil, problems end
    return "job " .. spec.name
  end
  if type(value.start) == "function" then
    local ok, problem = node.check_script(path, value)
    if not ok then return nil, problem end
    return "role " .. value.name
  end
  if value.gates or value.datacenters then
    local topology, problem = require("shoal.cli.up").check(value)
    if not topology then return nil, path .. ": " .. problem end
    return "topology"
  end
  if path:match("errors%.lua$") then
    local ok, problem = errors.load_policy(path)
    if not ok then return nil, problem end
    return "errors policy"
  end
  return "policy"
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
