--- shoal check: what `run`, `up` and `submit` check before they start, without starting. See shoal.cli.verify.
local common = require "shoal.cli.common"
local json = require "shoal.cli.json"
local problems = require "shoal.cli.problems"
local verify = require "shoal.cli.verify"

local check = {}

function check.words(command)
  command:argument("files", "role scripts, policies, job files, workflow scripts, topologies or settings of nodes"):args("+")
  command:option("--topology", "a topology file; each job must fit its datacenters and workers"):argname("FILE")
  command:option("--output -o", "text or json; json: an array of { file, line, at, problem, found, expected, hint }"):default("text")
    :choices { "text", "json" }
  command:epilog([[
Examples:
  shoal check scripts/roles/worker.lua scripts/policies/errors.lua examples/hello.lua
  shoal check examples/checkout.lua --topology examples/topology.lua
run, up and submit make the same checks and refuse what check refuses, with the same lines and exit code 2. A job is checked with all
its scripts, a topology with its scripts, settings and policies. Nothing real is opened: data and policies run in a sandbox, a role
script is loaded, started and stopped in a simulated world, and a program (a file that returns nothing) does not run.]])
end

--- Check one file; its problems as lines, none when it is right.
local function lines_of(path, topology, as_json)
  local what, err = verify.file(path, topology)
  local out = {}
  for line in (what and "" or err):gmatch "[^\n]+" do out[#out + 1] = line end
  if what and not as_json then common.data(("%s: ok (%s)"):format(path, what)) end
  return out
end

function check.run(args)
  local as_json, found, topology = args.output == "json", {}, nil
  local function note(path, lines)
    for _, line in ipairs(lines) do
      if as_json then found[#found + 1] = problems.of(line, path) else common.talk("%s", line) end
    end
    return #lines > 0
  end
  local wrong = false
  if args.topology then
    local value, err = verify.topology(args.topology)
    local lines = {}
    for line in (value and "" or err):gmatch "[^\n]+" do lines[#lines + 1] = line end
    wrong = note(args.topology, lines)
    topology = value
  end
  for _, path in ipairs(args.files) do wrong = note(path, lines_of(path, topology, as_json)) or wrong end
  if as_json then common.data(#found == 0 and "[]" or json.encode(found)) end
  return wrong and common.EXIT.usage or 0
end

return check
