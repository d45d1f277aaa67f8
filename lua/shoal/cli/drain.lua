--- shoal drain: a worker gets no new parts; those that run there may end, and move when the timeout is over. Waits until it is empty.
local common = require "shoal.cli.common"
local hold = require "shoal.cli.hold"
local json = require "shoal.cli.json"
local task = require "shoal.base.task"

local drain = {}

local LOOK_MS = 500
local SLACK_MS = 30000 -- After the timeout, for the parts to be cancelled and to be seen gone.

function drain.words(command)
  hold.words(command)
  command:option("--timeout", "seconds that its parts may still take; default: 60"):default("60"):convert(
    common.number("--timeout", "a number of seconds", 0, tonumber, 604800))
  common.connect_words(command)
  command:epilog([[
A part that is moved is lost there and runs elsewhere; that does not count against its retries. One with retries = 0 must not run
twice, so it fails. The worker stays drained, over restarts too, until `shoal uncordon`.
Example:
  shoal drain w-a1 --timeout 300 --connect 127.0.0.1:7000]])
end

function drain.run(args)
  local made, exit = common.client(args)
  if not made then return exit end
  local client, timeout_ms = made.state.client, math.floor(args.timeout * 1000)
  local reply, err, code = client:call("executor.hold", hold.body(args, "drain", timeout_ms))
  local deadline_ms, said = task.now_ms() + timeout_ms + SLACK_MS, nil
  while reply and reply.state == "draining" and reply.parts > 0 and task.now_ms() < deadline_ms do
    if reply.parts ~= said then common.talk("%s", hold.text(reply)) end
    said = reply.parts
    task.sleep(LOOK_MS)
    reply, err, code = client:call("executor.hold", hold.body(args, "look"))
  end
  made:stop("done")
  if not reply then return common.refused("executor.hold", err, code) end
  common.data(args.output == "json" and json.encode(reply) or hold.text(reply))
  if reply.parts == 0 and reply.state == "draining" then return 0 end
  return reply.state == "draining" and common.EXIT.timed_out or common.EXIT.refused
end

return drain
