--- main: the program's entry, called with the command line's words. A command is a module of shoal.cli that adds its words to the
--- parser and runs as a task; what it returns is the exit code.
---
--- Exit codes: 0 ok, 1 the job failed, 2 usage, 3 not reachable, 4 refused, 5 the job was cancelled, 124 timed out,
--- 130 interrupted. Data goes to stdout, talk to stderr.
local core = require "shoal.core.node"
local errors = require "shoal.base.errors"
local task = require "shoal.base.task"
local world = require "shoal.core.world"

local COMMANDS = {
  { "run", "start a node from a role script" },
  { "up", "start a whole local cluster from a topology" },
  { "submit", "submit a job, follow it, and exit by its outcome" },
  { "status", "tell how a job stands" },
  { "cancel", "cancel a job" },
  { "jobs", "list the jobs of a gate or manager" },
  { "members", "list the nodes that one node knows, or what happens to them" },
  { "incidents", "list what went wrong on a node" },
  { "repl", "talk Lua to a node" },
  { "check", "load and verify scripts, jobs and policies without starting anything" },
  { "sim", "run a file that drives a simulated cluster" },
}

local HELP_END = [[
Start here:
  shoal up examples/topology.lua                          a gate, two datacenters, four workers
  shoal submit examples/hello.lua --connect 127.0.0.1:7000
  shoal repl --connect 127.0.0.1:7000

Exit codes: 0 ok, 1 the job failed, 2 usage, 3 not reachable, 4 refused, 5 the job was cancelled, 124 timed out, 130 interrupted.
`shoal COMMAND --help` tells more.]]

local function build()
  local argparse = require "argparse"
  local parser = argparse("shoal", "Run jobs over datacenters; nothing fails silently.", HELP_END)
  parser:command_target("command")
  parser:require_command(false)
  parser:flag("--version", "print the version")
  local modules, commands = {}, {}
  for _, c in ipairs(COMMANDS) do
    local command = parser:command(c[1], c[2])
    modules[c[1]] = require("shoal.cli." .. c[1])
    modules[c[1]].words(command)
    commands[c[1]] = command
  end
  return parser, modules, commands
end

local function spawn(name, fn, ...)
  task.start(world.current())
  errors.start(world.current(), "shoal " .. name) -- Until a node has a name of its own.
  local scope, arguments = task.scope("main"), table.pack(...)
  scope:spawn("cli." .. name, { command = name }, function ()
    local ok, code = errors.call("cli." .. name, { command = name }, fn, table.unpack(arguments, 1, arguments.n))
    core.exit(ok and (code or 0) or 70) -- 70: our own fault (sysexits' EX_SOFTWARE); the incident says which.
  end)
end

--- A chunk, not a task: it returns an exit code, or nothing to live on.
local function run_file(path, ...)
  local chunk, err = loadfile(path, "t")
  if not chunk then
    io.stderr:write("shoal: ", err, "\n")
    return 2
  end
  return chunk(...)
end

return function (...)
  local words = { ... }
  -- The child process of a worker, and a plain Lua file with our modules: not for people's daily use, so not among the commands.
  if words[1] == "--version" then
    print("shoal " .. core.version())
    return 0
  end
  if words[1] == "exec" then return require("shoal.run.exec").main(table.unpack(words, 2)) end
  if words[1] == "lua" and words[2] then return run_file(table.unpack(words, 2)) end
  local parser, modules, commands = build()
  local ok, parsed = parser:pparse(words)
  if not ok then
    local command = commands[words[1]]
    io.stderr:write("shoal: ", parsed, "\n", (command or parser):get_usage(), "\nTry 'shoal ", command and words[1] .. " " or "",
      "--help'.\n")
    return 2
  end
  if not parsed.command then
    io.stderr:write(parser:get_help(), "\n")
    return 2
  end
  if modules[parsed.command].plain then return modules[parsed.command].run(parsed) end
  spawn(parsed.command, modules[parsed.command].run, parsed)
  return nil
end
