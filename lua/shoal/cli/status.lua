--- shoal status: how a job stands, or its events from a number on.
local ask = require "shoal.cli.ask"
local common = require "shoal.cli.common"
local json = require "shoal.cli.json"
local render = require "shoal.cli.render"

local MOST = 100 -- Events in one answer.

local plain = ask.command {
  example = "shoal status checkout-7-3fa2 --connect 127.0.0.1:7000",
  query = function (args) return "job.get", { job = args.job } end,
  text = function (reply) return render.status(reply.detail) end,
  exit = function (reply) return common.BY_STATE[reply.state] or 0 end,
}

local status = {}

function status.words(command)
  command:argument("job", "the job's id")
  command:flag("--events", "print the job's events as its leader numbered them, as far as they are kept")
  command:option("--since", "with --events: those from this number on"):argname("NUMBER")
    :convert(common.integer("--since", "a number of an event", 0))
  common.connect_words(command)
  command:epilog([[
Examples:
  shoal status checkout-7-3fa2 --connect 127.0.0.1:7000
  shoal status checkout-7-3fa2 --events]])
end

status.clashes = { { "since", needs = { "events" }, "it numbers events" } }

--- All events from `from` on, in as many answers as it takes.
---@return table? reply, string? err, string? code
local function read(client, job, from)
  local all
  repeat
    local reply, err, code = client:call("job.events", { job = job, from_seq = from, max = MOST })
    if not reply then return nil, err, code end
    if all then table.move(reply.events, 1, #reply.events, #all.events + 1, all.events) else all = reply end
    local last = reply.events[#reply.events]
    from = last and last.seq + 1 or reply.last + 1
    all.last = reply.last
  until from > reply.last
  return all
end

local function events(args)
  local made, exit = common.client(args)
  if not made then return exit end
  local reply, err, code = read(made.state.client, args.job, args.since or 0)
  made:stop("done")
  if not reply then return common.refused("job.events", err, code) end
  if args.output == "json" then
    common.data(json.encode(reply))
    return 0
  end
  if reply.truncated_from > 0 then common.talk("shoal: events before %d are no longer kept", reply.truncated_from) end
  for _, event in ipairs(reply.events) do common.data(render.event(event)) end
  return 0
end

function status.run(args)
  if args.events then return events(args) end
  return plain.run(args)
end

return status
