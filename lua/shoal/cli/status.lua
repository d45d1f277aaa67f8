--- shoal status: how a job stands.
local ask = require "shoal.cli.ask"
local common = require "shoal.cli.common"
local render = require "shoal.cli.render"

return ask.command {
  example = "shoal status checkout-7-3fa2 --connect 127.0.0.1:7000",
  words = function (command) command:argument("job", "the job's id") end,
  query = function (args) return "job.get", { job = args.job } end,
  text = function (reply) return render.status(reply.detail) end,
  exit = function (reply) return common.BY_STATE[reply.state] or 0 end,
}
