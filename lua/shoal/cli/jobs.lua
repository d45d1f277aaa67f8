--- shoal jobs: the jobs that a gate or manager knows, oldest first.
local ask = require "shoal.cli.ask"
local common = require "shoal.cli.common"

return ask.command {
  example = "shoal jobs --connect 127.0.0.1:7000",
  query = function () return "job.list", {} end,
  text = function (reply)
    local rows = { { "JOB", "STATE", "REASON" } }
    for _, j in ipairs(reply.jobs) do rows[#rows + 1] = { j.job, j.state, j.reason or "" } end
    return common.columns(rows)
  end,
}
