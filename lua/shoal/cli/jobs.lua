--- shoal jobs: the jobs that a gate or manager knows, oldest first.
local ask = require "shoal.cli.ask"
local common = require "shoal.cli.common"
local views = require "shoal.cli.views"

local FINAL = { "completed", "failed", "cancelled", "timed_out" }

--- Begin to end of an ended job, of a live one to now.
local function took(j, now_ms)
  return views.span(math.max(0, (j.ended_ms or now_ms or 0) - (j.submitted_ms or 0)))
end

return ask.command {
  example = "shoal jobs --connect 127.0.0.1:7000\n  shoal jobs --state failed --since 24h --name checkout",
  words = function (command)
    command:option("--state", "only those in this state"):choices { "running", "cancelling", table.unpack(FINAL) }
    command:option("--name", "only those with this text in their name"):argname("TEXT"):convert(common.word("--name", "a text", 64))
    command:option("--since", "only those submitted in this last time, such as 90s, 30m, 24h, 7d"):argname("TIME")
      :convert(common.duration("--since"))
    command:option("--limit -n", "how many at most, the newest; default: 200"):argname("COUNT")
      :convert(common.integer("--limit", "a whole number", 1, 2000))
  end,
  query = function (args)
    return "job.list", { state = args.state, name = args.name, within_ms = args.since, limit = args.limit or 200 }
  end,
  text = function (reply)
    local rows = { { "JOB", "STATE", "SUBMITTED", "STARTED", "ENDED", "TOOK", "FROM", "REASON" } }
    for _, j in ipairs(reply.jobs) do
      rows[#rows + 1] = {
        j.job, j.state, views.ago(j.submitted_ms, reply.now_ms), j.started_ms and views.clock(j.started_ms) or "-",
        j.ended_ms and views.clock(j.ended_ms) or "-", took(j, reply.now_ms), j.origin or "-", j.reason or "",
      }
    end
    local more = reply.more and ("\n... and %d older ones; --limit, --state, --name and --since select"):format(reply.more)
    return common.columns(rows) .. (more or "")
  end,
}
