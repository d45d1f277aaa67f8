--- shoal forget: remove a member that will not return (dead, left, or a silent manager) from the lists of every node.
local ask = require "shoal.cli.ask"

return ask.command {
  example = "shoal forget w-a1 --connect 127.0.0.1:7001",
  words = function (command) command:argument("node", "its name, as `shoal members` shows it") end,
  query = function (args) return "node.forget", { name = args.node } end,
  text = function (reply) return ("%s: %s"):format(reply.node, reply.said) end,
}
