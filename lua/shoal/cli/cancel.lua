--- shoal cancel: end a job. Answers at once; `shoal status` tells when it has ended.
local ask = require "shoal.cli.ask"

return ask.command {
  example = "shoal cancel checkout-7-3fa2 --reason 'wrong target'",
  words = function (command)
    command:argument("job", "the job's id")
    command:option("--reason", "why; it stands in the job's result"):default("cancelled from the command line")
  end,
  query = function (args) return "job.cancel", { job = args.job, reason = args.reason } end,
  text = function (reply, args) return ("%s is %s"):format(args.job, reply.state) end,
}
