--- shoal incidents: what went wrong on the whole cluster or on one node, newest last, each with its ids; or how often, by site.
local ask = require "shoal.cli.ask"
local common = require "shoal.cli.common"
local follow = require "shoal.cli.follow"
local json = require "shoal.cli.json"
local out = require "shoal.cli.out"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"
local views = require "shoal.cli.views"

local CLIENT_MS = 9000   -- A node that asks others waits for them.
local AGAIN_MS = 2000    -- Between two looks of --follow ...
local WITHIN_MS = 60000  -- ... each at this last time, so that a node that was silent for a while is heard.
local KNOWN_MAX = 20000  -- Incidents that --follow remembers as printed, in two generations.

local function counted(reply)
  local rows = { { "SITE", "RAISED", "REPORTED", "SUPPRESSED", "HANDLED", "IN FLIGHT" } }
  for i, c in ipairs(reply.counts) do rows[i + 1] = { c.site, c.raised, c.reported, c.suppressed, c.handled, c.in_flight } end
  return (#reply.counts > 0 and common.columns(rows) .. "\n" or "")
    .. (reply.balanced and "raised = reported + suppressed + handled holds at every site" or "NOT balanced: a bug of shoal")
end

--- An incident on two lines: when, how bad, where; then its ids. `count`: how often this failure had been raised there by then.
local function text_of(i)
  local ids = {}
  for key, value in sorted(i.ids) do ids[#ids + 1] = key .. "=" .. value end
  return ("%s  %-8s %s  %s  %s  %s\n    %s%s%s"):format(views.clock(i.wall_ns // 1000000), i.level, i.node, i.id, i.site, i.message,
    table.concat(ids, " "), i.where ~= "" and "  at " .. i.where or "", i.count > 1 and ("  (%d times by then)"):format(i.count) or "")
end

--- Which nodes are missing in an answer.
local function say_silent(reply)
  for _, each in ipairs(reply.silent or {}) do
    common.talk("shoal: %s%s did not answer: %s", each.node, each.address ~= "" and " at " .. each.address or "", each.why)
  end
end

local function body_of(args)
  return {
    max = args.max or 50, site = args.site, within_ms = args.since, node = args.node, scope = args["local"] and "node" or "cluster",
  }
end

local incidents = {}

function incidents.words(command)
  command:option("-n --max", "how many at most, the newest; default: 50"):argname("COUNT")
    :convert(common.integer("--max", "a whole number", 1, 512))
  command:option("--node", "only those of this node"):argname("NAME"):convert(common.word("--node", "a node's name", 64))
  command:option("--site", "only those of this site or family, such as lead.attempt_lost or lead"):argname("SITE")
    :convert(common.word("--site", "a site", 128))
  command:option("--since", "only those of this last time, such as 90s, 30m, 24h"):argname("TIME"):convert(common.duration("--since"))
  command:flag("--local", "ask this node alone, and not the whole cluster")
  command:flag("--follow", "go on printing as they come, until Ctrl-C")
  command:flag("--counts", "print how often each site of this node raised, and whether the counts balance")
  common.connect_words(command)
  command:epilog([[
Examples:
  shoal incidents --connect 127.0.0.1:7000 -n 20
  shoal incidents --site lead --since 1h --follow
Any node can be asked: it asks the others, and stderr names those that did not answer. A node keeps its last 512 incidents; its log has all.]])
end

incidents.clashes = {
  { "counts", "max", "counts are of every site" }, { "counts", "site", "counts are of every site" },
  { "counts", "since", "counts are since the node's start" }, { "counts", "node", "counts are of the node that is asked" },
  { "counts", "follow", "counts are of now" }, { "local", "node", "--local is the node that is asked" },
}

local counts = ask.command {
  example = "", query = function () return "node.counts", {} end, text = counted,
}

--- Whether an incident was not printed before; remembers it.
local function new_memory()
  local young, old, count = {}, {}, 0
  return function (i)
    local key = ("%s %s %d"):format(i.node, i.id, i.wall_ns)
    if young[key] or old[key] then return false end
    if count >= KNOWN_MAX // 2 then young, old, count = {}, young, 0 end
    young[key], count = true, count + 1
    return true
  end
end

local function follow_them(made, args)
  return follow.until_signal(made, "cli.incidents", function (leave)
    local is_new, body, said = new_memory(), body_of(args), {}
    local _ <close> = out.watch_reader(function () leave(0) end)
    while true do
      local reply, err, code = made.state.client:call("node.incidents", body, CLIENT_MS)
      if not reply then return common.refused("node.incidents", err, code) end
      for _, i in ipairs(reply.incidents) do
        if is_new(i) and not common.data(args.output == "json" and json.line(i) or text_of(i)) then return 0 end
      end
      local silent = {}
      for _, each in ipairs(reply.silent or {}) do
        silent[each.node] = true
        if not said[each.node] then say_silent { silent = { each } } end
      end
      said, body.within_ms, body.max = silent, WITHIN_MS, 512
      task.sleep(AGAIN_MS)
    end
  end)
end

function incidents.run(args)
  if args.counts then return counts.run(args) end
  local made, exit = common.client(args)
  if not made then return exit end
  if args.follow then
    exit = follow_them(made, args)
    made:stop("done")
    return exit
  end
  local reply, err, code = made.state.client:call("node.incidents", body_of(args), CLIENT_MS)
  made:stop("done")
  if not reply then return common.refused("node.incidents", err, code) end
  if args.output == "json" then
    common.data(json.encode(reply))
    return 0
  end
  say_silent(reply)
  local lines = {}
  for i, incident in ipairs(reply.incidents) do lines[i] = text_of(incident) end
  if (reply.more or 0) > 0 then table.insert(lines, 1, ("... and %d older ones; -n, --node, --site and --since select"):format(reply.more)) end
  common.data(#lines > 0 and table.concat(lines, "\n") or "no incidents")
  return 0
end

return incidents
