--- main: the program's entry, called with the command line's words. A command is a module of shoal.cli that adds its words to the
--- parser and runs as a task; what it returns is the exit code.
---
--- Data goes to stdout, talk to stderr (out.lua). With --output json, stdout holds one JSON value, the answer or the error.
local common = require "shoal.cli.common"
local core = require "shoal.core.node"
local errors = require "shoal.base.errors"
local options = require "shoal.cli.options"
local out = require "shoal.cli.out"
local task = require "shoal.base.task"
local world = require "shoal.core.world"

local COMMANDS = {
  { "run", "start a node from a role script" },
  { "up", "start a whole local cluster from a topology" },
  { "submit", "submit a job, follow it, and exit by its outcome" },
  { "status", "tell how a job stands" },
  { "wait", "follow jobs to their ends, and exit by their outcome" },
  { "output", "print what the commands and scripts of a job wrote" },
  { "cancel", "cancel a job" },
  { "jobs", "list the jobs of a gate or manager" },
  { "members", "list the nodes that one node knows, or what happens to them" },
  { "cordon", "give a worker no new parts" },
  { "uncordon", "give a worker parts again" },
  { "drain", "cordon a worker, let its parts end, and move those that take too long" },
  { "forget", "remove a member that is dead or silent from the lists" },
  { "incidents", "list what went wrong on the cluster, as any node can tell" },
  { "repl", "talk Lua to a node" },
  { "check", "load and verify scripts, jobs and policies without starting anything" },
  { "sim", "run a file that drives a simulated cluster" },
}

local HELP_END = [[
Start here:
  shoal up examples/topology.lua                          a gate, two datacenters, four workers
  shoal submit examples/hello.lua --connect 127.0.0.1:7000
  shoal repl --connect 127.0.0.1:7000

Exit codes: 0 ok, 1 the job failed, 2 usage, 3 not reachable, 4 refused, 5 the job was cancelled, 70 a fault of shoal, 74 data not written,
124 timed out, 128 + N ended by signal N (129 HUP, 130 Ctrl-C, 143 TERM, 141 nobody read stdout).
With --output json, stdout holds one JSON value: the answer, or {"error": {"message", "code", "exit"}}.
`shoal COMMAND --help` tells more.]]

--- Print help as data, and leave: it may be asked for in the middle of the words.
local function helps(parser)
  parser:add_help {
    action = function ()
      out.data(parser:get_help())
      os.exit(out.code(0))
    end,
  }
end

local function build()
  local argparse = require "argparse"
  local parser = argparse("shoal", "Run jobs over datacenters; nothing fails silently.", HELP_END)
  parser:command_target("command")
  parser:require_command(false)
  helps(parser)
  parser:flag("--version", "print the version")
  local modules, commands = {}, {}
  for _, c in ipairs(COMMANDS) do
    local command = parser:command(c[1], c[2])
    modules[c[1]] = require("shoal.cli." .. c[1])
    helps(command)
    modules[c[1]].words(command)
    commands[c[1]] = command
  end
  return parser, modules, commands
end

local function spawn(name, fn, ...)
  task.start(world.current())
  errors.start(world.current(), "shoal " .. name) -- Until a node has a name of its own.
  local scope, arguments = task.scope("main"), table.pack(...)
  local began, ok, code = false, false, 70
  scope:keep("cli." .. name, { command = name }, function ()
    if began then return core.exit(ok and (code or 0) or 70) end -- It failed after the command: that does not run twice.
    began = true
    ok, code = errors.call("cli." .. name, { command = name }, fn, table.unpack(arguments, 1, arguments.n))
    core.exit(common.ended(ok and (code or 0) or 70)) -- 70: our own fault (sysexits' EX_SOFTWARE); the incident says which.
  end)
end

--- A chunk, not a task: it returns an exit code, or nothing to live on.
local function run_file(path, ...)
  local chunk, err = loadfile(path, "t")
  if not chunk then return common.usage("%s", err) end
  return chunk(...)
end

--- A mistake in the words: how the command is used, and where more stands.
local function misused(words, message, usage, command)
  common.usage("%s", message)
  out.talk(("%s\nTry 'shoal %s--help'."):format(usage, command and words[1] .. " " or ""))
  return common.ended(2)
end

return function (...)
  local words = { ... }
  -- The child process of a worker, and a plain Lua file with our modules: not for people's daily use, so not among the commands.
  if words[1] == "--version" then
    common.data("shoal " .. core.version())
    return out.code(0)
  end
  if words[1] == "exec" then return require("shoal.run.exec").main(table.unpack(words, 2)) end
  if words[1] == "lua" and words[2] then return run_file(table.unpack(words, 2)) end
  local parser, modules, commands = build()
  local command = commands[words[1]]
  if command then words = options.with_values(words, command) end
  out.json = options.wants_json(words)
  local ok, parsed = parser:pparse(words)
  if not ok then return misused(words, parsed, (command or parser):get_usage(), command) end
  if not parsed.command then
    out.talk(parser:get_help())
    return 2
  end
  local module = modules[parsed.command]
  local clash = options.clash(parsed, module.clashes)
  if clash then return misused(words, clash, command:get_usage(), command) end
  if module.plain then return module.run(parsed) end
  spawn(parsed.command, module.run, parsed)
  return nil
end
