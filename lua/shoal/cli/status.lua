--- shoal status: how a job stands, or its events from a number on.
local ask = require "shoal.cli.ask"
local common = require "shoal.cli.common"
local follow = require "shoal.cli.follow"
local json = require "shoal.cli.json"
local out = require "shoal.cli.out"
local render = require "shoal.cli.render"

local MOST = 100 -- Events in one answer.

local plain = ask.command {
  example = "shoal status checkout-7-3fa2 --connect 127.0.0.1:7000",
  query = function (args) return "job.get", { job = args.job } end,
  value = function (reply) return reply.detail.result or reply.detail end, -- An ended job: what `submit` prints.
  text = function (reply) return render.status(reply.detail) end,
  exit = function (reply) return common.BY_STATE[reply.state] or 0 end,
}

local status = {}

function status.words(command)
  command:argument("job", "the job's id")
  command:flag("--follow", "go on with progress lines until the job ends, then print its result; Ctrl-C leaves, the job goes on")
  command:flag("--events", "print the job's events as its leader numbered them, as far as they are kept")
  command:option("--since", "with --events: those from this number on"):argname("NUMBER")
    :convert(common.integer("--since", "a number of an event", 0))
  common.connect_words(command)
  command:epilog([[
Examples:
  shoal status checkout-7-3fa2 --connect 127.0.0.1:7000
  shoal status checkout-7-3fa2 --events
With --output json, a job that has ended is its result, as `shoal submit` prints it; with --follow, each line is one event
{"kind", "body"}, the last of kind "result".]])
end

status.clashes = {
  { "since", needs = { "events" }, "it numbers events" },
  { "events", "follow", "--events prints those that are kept, --follow what comes" },
}

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

--- Progress as data, until the job ends.
local function follow_it(args)
  local made, exit = common.client(args)
  if not made then return exit end
  local as_json = args.output == "json"
  exit = follow.until_signal(made, "cli.status", function (leave)
    local function put(text) if not common.data(text) then leave(0) end end
    local callbacks = follow.lines(put)
    if as_json then
      for _, kind in ipairs { "status", "stats" } do
        callbacks[kind] = function (body) put(json.line { kind = kind, body = body }) end
      end
    end
    local _ <close> = out.watch_reader(function () leave(0) end)
    local final, err, code = follow.known(made.state.client, args.job, callbacks)
    if not final then return follow.unfinished(args.job, err, code) end
    local result = follow.result(args.job, final)
    put(as_json and json.line { kind = "result", body = result } or render.result(result))
    return common.BY_STATE[final.state] or common.EXIT.failed
  end)
  made:stop("done")
  return exit
end

function status.run(args)
  if args.follow then return follow_it(args) end
  if args.events then return events(args) end
  return plain.run(args)
end

return status
