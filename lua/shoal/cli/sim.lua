--- shoal sim: run a file that drives a simulated cluster.
local sim = { plain = true } -- Not a task: the file's own tasks run on the simulation's time.

function sim.words(command)
  command:argument("file", "a Lua file that uses require \"shoal.sim\"")
  command:argument("arguments", "what the file gets as ..."):args("*")
  command:epilog("Example:\n  shoal sim examples/simulation.lua 7")
end

function sim.run(args)
  local chunk, err = loadfile(args.file, "t")
  if not chunk then
    return require("shoal.cli.common").usage("%s", err)
  end
  return chunk(table.unpack(args.arguments)) or 0
end

return sim
