--- shoal wait: follow jobs that were submitted before to their ends, and exit by their outcome.
local common = require "shoal.cli.common"
local file = require "shoal.cli.file"
local follow = require "shoal.cli.follow"
local json = require "shoal.cli.json"
local render = require "shoal.cli.render"

local wait = {}

function wait.words(command)
  command:argument("jobs", "the ids of jobs"):args("1-100")
  common.connect_words(command)
  command:option("--timeout", "stop waiting after so many seconds (the jobs go on)"):argname("SECONDS")
    :convert(common.seconds("--timeout"))
  command:option("--result", "write the result of the job as JSON to this file"):argname("FILE")
  command:flag("--quiet -q", "no progress lines")
  command:epilog([[
Examples:
  shoal wait checkout-7-3fa2 --connect 127.0.0.1:7000
  shoal wait checkout-7-3fa2 checkout-9-01b4 --timeout 600
One job: its result, as `shoal submit` prints it. Several: a line each, and with --output json {"jobs": [result, ...]}. The exit code is
that of the first job, in the order given, that did not complete. Ctrl-C leaves at once; the jobs go on.]])
end

local function line_of(result)
  return ("%s %s%s after %.1f s"):format(result.job, result.state, result.reason and " (" .. result.reason .. ")" or "",
    (result.elapsed_ms or 0) / 1000)
end

--- Wait for all, each in a task of its own. Returns their results in order, and the worst exit code.
local function all(made, args, one)
  local tasks, results, exit = {}, {}, 0
  local callbacks = function () return follow.lines(common.talk, args.quiet or #args.jobs > 1) end
  for i, id in ipairs(args.jobs) do
    tasks[i] = made.scope:spawn("cli.wait", { command = "wait" }, function ()
      return follow.known(made.state.client, id, callbacks(), args.timeout and args.timeout * 1000)
    end)
  end
  for i, id in ipairs(args.jobs) do
    local ok, final, err, code = tasks[i]:join()
    local mine
    if not ok then
      mine = common.refused("job " .. id, tostring(final), "FAILED", common.EXIT.failed)
    elseif not final then
      mine = follow.unfinished(id, err, code)
    else
      results[#results + 1] = follow.result(id, final)
      mine = common.BY_STATE[final.state] or common.EXIT.failed
      if not one and args.output ~= "json" then common.data(line_of(results[#results])) end
    end
    if exit == 0 then exit = mine end
  end
  return results, exit
end

--- Each id once.
local function distinct(ids)
  local out, known = {}, {}
  for _, id in ipairs(ids) do
    if not known[id] then out[#out + 1] = id end
    known[id] = true
  end
  return out
end

function wait.run(args)
  args.jobs = distinct(args.jobs)
  local one = #args.jobs == 1
  if args.result and not one then return common.usage("--result: expected one job, found %d", #args.jobs) end
  local result_file <close>, problem = file.asked(args.result)
  if problem then return common.usage("--result: cannot write %s: %s", args.result, problem) end
  local made, exit = common.client(args)
  if not made then return exit end
  exit = follow.until_signal(made, "cli.wait", function ()
    local results, worst = all(made, args, one)
    if one and results[1] then
      common.data(args.output == "json" and json.encode(results[1]) or render.result(results[1]))
      return file.put(result_file, args.result, json.encode(results[1]) .. "\n", worst)
    end
    if args.output == "json" and #results > 0 then common.data(json.encode { jobs = results }) end
    return worst
  end)
  made:stop("done")
  return exit
end

return wait
