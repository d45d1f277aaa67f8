--- The program's entry: called with the command line's words, returns an exit code or lives on.
local node = require "shoal.core.node"

local function run_file(path, ...)
  local chunk, err = loadfile(path)
  if not chunk then
    io.stderr:write("shoal: ", err, "\n")
    return 2
  end
  return chunk(...)
end

return function (command, ...)
  if command == "--version" then
    print("shoal " .. node.version())
    return 0
  elseif command == "lua" and ... then
    return run_file(...)
  end
  io.stderr:write("usage: shoal --version | shoal lua FILE [ARGUMENT...]\n")
  return 2
end
