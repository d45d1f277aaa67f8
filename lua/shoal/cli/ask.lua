--- ask: one question to one node, one answer. The commands status, cancel, jobs, members and incidents are made of it.
local common = require "shoal.cli.common"
local json = require "shoal.cli.json"

local ask = {}

---@class AskCommand
---@field words? fun(command: table)  its own words, beside --connect and --output
---@field example string
---@field query fun(args: table): string, table  the message and its body
---@field text fun(reply: table, args: table): string  for people
---@field value? fun(reply: table): table  what stands for the reply as JSON
---@field exit? fun(reply: table): integer
---@field clashes? table[]  options.clash's rules

--- Make a command: `query` gives the message and body, `text` renders the reply for people.
---@param c AskCommand
function ask.command(c)
  return {
    clashes = c.clashes,
    words = function (command)
      if c.words then c.words(command) end
      common.connect_words(command)
      command:epilog("Example:\n  " .. c.example)
    end,
    run = function (args)
      local made, exit = common.client(args)
      if not made then return exit end
      local name, body = c.query(args)
      local reply, err, code = made.state.client:call(name, body)
      made:stop("done")
      if not reply then return common.refused(name, err, code) end
      common.data(args.output == "json" and json.encode(c.value and c.value(reply) or reply) or c.text(reply, args))
      return c.exit and c.exit(reply) or 0
    end,
  }
end

return ask
