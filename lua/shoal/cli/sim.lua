--- shoal sim: run a file that drives a simulated cluster.
local sim = { plain = true } -- Not a task: the file's own tasks run on the simulation's time.

function sim.words(command)
  command:argument("file", "a Lua file that uses require \"shoal.sim\"")
  command:argument("arguments", "what the file gets as ..."):args("*")
  command:epilog("Example:\n  shoal sim examples/simulation.lua 7")
end

function sim.run(args)
  local common = require "shoal.cli.common"
  local file = io.open(args.file, "rb")
  local bytes = file and file:read "a"
  if file then file:close() end
  local chunk, err = loadfile(args.file, "t")
  if not chunk then return common.usage("%s", err) end
  if bytes and not bytes:find "shoal%.sim" then
    return common.usage("%s: is no simulation; expected a file that drives one: local sim = require \"shoal.sim\"", args.file)
  end
  return chunk(table.unpack(args.arguments)) or 0
end

return sim
