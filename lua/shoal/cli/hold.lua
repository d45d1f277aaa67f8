--- hold: what the commands cordon, uncordon and drain share.
local ask = require "shoal.cli.ask"
local common = require "shoal.cli.common"

local hold = {}

function hold.words(command)
  command:argument("worker", "the worker's name; `shoal members` lists them")
  command:option("--dc", "its datacenter, where two have a worker of that name"):default("")
end

function hold.body(args, action, timeout_ms)
  return { worker = args.worker, dc = args.dc, action = action, timeout_ms = timeout_ms or 0 }
end

--- A reply in words.
function hold.text(reply)
  local parts = reply.parts == 1 and "1 part runs there" or ("%d parts run there"):format(reply.parts)
  return ("%s of %s is %s; %s"):format(reply.worker, reply.dc, reply.state == "" and "not cordoned" or reply.state, parts)
end

--- The command for one action that is answered at once.
function hold.command(action)
  return ask.command {
    example = ("shoal %s w-a1 --connect %s"):format(action, common.CONNECT),
    words = hold.words,
    query = function (args) return "executor.hold", hold.body(args, action) end,
    text = hold.text,
  }
end

return hold
