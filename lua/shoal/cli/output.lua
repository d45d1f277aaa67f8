--- shoal output: what the commands of a job wrote, and what its scripts printed, as far as it is kept.
local common = require "shoal.cli.common"
local json = require "shoal.cli.json"
local out = require "shoal.cli.out"
local views = require "shoal.cli.views"

local output = {}

local NAMED_MAX = 20 -- Parts that a refusal names.

function output.words(command)
  command:argument("job", "the job's id")
  command:argument("part", "a workflow, a part or one run of it, such as warm, warm/a/1 or warm/a/1#2; without it: all"):args("?")
  common.connect_words(command)
  command:epilog([[
Examples:
  shoal output checkout-7-3fa2 --connect 127.0.0.1:7000
  shoal output checkout-7-3fa2 report/a/1#1 > report.txt
Of each run the first and last 64 KiB are kept at most, less when a job has many; "... N bytes cut ..." stands in the gap. One run alone
has no heading, and goes to a file or pipe byte by byte; at a terminal control bytes are shown as \x1b. While a job runs, the parts that
have ended have an output. A script's part has the lines of print and vu:log.]])
end

--- Everything that is kept, in order.
local function all_of(detail)
  local list = {}
  for _, each in ipairs(detail.outputs or {}) do list[#list + 1] = { workflow = each.workflow, run = each.output } end
  for _, w in ipairs(detail.result and detail.result.workflows or {}) do
    for _, run in ipairs(w.stats and w.stats.commands or {}) do list[#list + 1] = { workflow = w.workflow, run = run } end
  end
  return list
end

local function belongs(each, part)
  local name = each.run.run
  return not part or each.workflow == part or name == part or name:sub(1, #part + 1) == part .. "#" or name:sub(1, #part + 1) == part .. "/"
end

local function none(args, list, detail)
  if #list == 0 then
    local why = detail.result and "it has no output" or "none of its parts has ended with an output yet"
    return common.refused("job " .. args.job, why, "NOT_FOUND")
  end
  local names = {}
  for i = 1, math.min(#list, NAMED_MAX) do names[i] = list[i].run.run end
  return common.refused("job " .. args.job, ("no output of %q; there are: %s%s"):format(args.part, table.concat(names, ", "),
    #list > NAMED_MAX and (" and %d more"):format(#list - NAMED_MAX) or ""), "NOT_FOUND")
end

--- The outputs that were left out, besides the gaps in each.
local function left_out(detail)
  for _, w in ipairs(detail.result and detail.result.workflows or {}) do
    local cut = w.stats and w.stats.cut or {}
    if (cut.commands or 0) > 0 then common.talk("shoal: %s: the outputs of %d runs are not kept", w.workflow, cut.commands) end
  end
  if detail.outputs_cut then common.talk("shoal: more outputs than one answer holds; name a part") end
end

function output.run(args)
  local made, exit = common.client(args)
  if not made then return exit end
  local reply, err, code = made.state.client:call("job.get", { job = args.job, outputs = true })
  made:stop("done")
  if not reply then return common.refused("job.get", err, code) end
  local list, found = all_of(reply.detail), {}
  for _, each in ipairs(list) do
    if belongs(each, args.part) then found[#found + 1] = each end
  end
  if #found == 0 then return none(args, list, reply.detail) end
  left_out(reply.detail)
  if args.output == "json" then
    local rows = {}
    for i, each in ipairs(found) do
      rows[i] = { workflow = each.workflow }
      for key, value in next, each.run do rows[i][key] = value end -- order-free: a copy
    end
    common.data(json.encode { job = args.job, outputs = rows })
  elseif #found == 1 then
    out.raw(views.output(found[1].run))
  else
    for _, each in ipairs(found) do
      local text = views.output(each.run)
      if not common.data(views.heading(each.run) .. "\n" .. text) then break end
    end
  end
  return 0
end

return output
