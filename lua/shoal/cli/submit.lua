--- shoal submit: a job from a file, followed to its end.
local common = require "shoal.cli.common"
local core = require "shoal.core.node"
local job = require "shoal.job.spec"
local json = require "shoal.cli.json"
local render = require "shoal.cli.render"
local task = require "shoal.base.task"
local world = require "shoal.core.world"

local submit = {}

local PATIENCE_MS = 3000 -- For a gate that is just being started again; then it is not reachable.

function submit.words(command)
  command:argument("file", "the job, a Lua or JSON file")
  common.connect_words(command)
  command:option("--key", "idempotency key: the same key never makes a second job")
  command:option("--env -e", "NAME=VALUE for the job's env; can be given again"):count("*"):argname("NAME=VALUE")
  command:option("--result", "write the result as JSON to this file"):argname("FILE")
  command:option("--timeout", "stop following after so many seconds (the job goes on)"):argname("SECONDS")
    :convert(common.number("--timeout", "a number of seconds", 0, tonumber))
  command:flag("--detach", "print the job's id and leave")
  command:flag("--quiet -q", "no progress lines")
  command:epilog([[
Examples:
  shoal submit examples/hello.lua --connect 127.0.0.1:7000
  shoal submit job.json --connect 127.0.0.1:7000 --output json > result.json
The exit code tells the job's outcome. Requests that fail are counted, and fail no job by themselves: with
max_failed_share = 0.05 in a workflow of the job file, that workflow and its job fail when more than 5 % of its requests did.
Ctrl-C asks whether to cancel the job or leave it running; a second one leaves at once.]])
end

--- The job file as bytes, with --env put over its own, and its time limit.
---@return string? bytes, string? err, number? timeout_ms
local function read(args)
  local spec, err = job.load(world.current(), args.file, os.getenv)
  if not spec then return nil, err end
  for _, pair in ipairs(args.env or {}) do
    local name, value = pair:match("^([%w_]+)=(.*)$")
    if not name then return nil, ("--env: expected NAME=VALUE, found %q"):format(pair) end
    spec.env[name] = value
    for _, workflow in require "shoal.base.sorted" (spec.workflows) do
      if workflow.env then workflow.env[name] = value end
    end
  end
  return job.encode(spec), nil, spec.timeout_ms
end

local ANSWERS = { c = "cancel", cancel = "cancel", d = "detach", detach = "detach" }

--- Ctrl-C: ask on the terminal; the second leaves. `decide` gets "cancel", "detach" or "leave".
local function on_interrupt(id, decide)
  local asked = false
  core.on_signal("INT", function ()
    if asked then return decide("leave") end
    asked = true
    local stdin = world.current():stdio(0)
    if not stdin then return decide("leave") end
    common.talk("\ncancel job %s? [c]ancel it, [d]etach and let it run, Ctrl-C again: leave", id)
    stdin:attach({
      on_read = function (stream, bytes)
        local answer = bytes:match("^%s*(.-)%s*$")
        local what = ANSWERS[answer:lower()]
        if not what then
          common.talk("%s is no answer: expected c or d, and Enter; Ctrl-C again: leave", answer == "" and "nothing" or ("%q"):format(answer))
          return
        end
        stream:close()
        asked = false
        decide(what)
      end,
      on_end = function (stream)
        stream:close()
        if asked then decide("leave") end -- Nobody is there who could answer.
      end,
    })
  end)
  core.on_signal("TERM", function () decide("leave") end)
end

local function follow(args, made, id, job_ms)
  local client, before, shown_ms = made.state.client, nil, 0
  local function show(stats)
    if before and stats.at_ms // 1000 == shown_ms // 1000 then return end -- One line for each second begun.
    shown_ms = stats.at_ms
    local line
    line, before = render.progress(stats, before)
    common.talk(line)
  end
  local decided = task.future("interrupt")
  on_interrupt(id, function (what)
    if what == "cancel" then
      made.scope:spawn("cli.submit", { command = "submit" }, function ()
        local ok, err, code = client:cancel(id, "cancelled with Ctrl-C")
        if ok then common.talk("cancelling %s", id) else common.refused("cancel", err, code) end
      end)
    else
      decided:set(what)
    end
  end)
  local following = made.scope:spawn("cli.submit", { command = "submit" }, function ()
    local final, err, code = client:follow(id, {
      status = function (s)
        if s.workflow and not args.quiet then
          common.talk("          %s is %s%s", s.workflow, s.workflow_state, s.reason and ": " .. s.reason or "")
        end
      end,
      stats = not args.quiet and show or nil,
      gone = function (address, silent_ms, err, code)
        common.talk("shoal: %s does not answer since %.0f s, trying again: %s (%s)", address, silent_ms // 1000, err, code or "?")
      end,
      back = function (address) common.talk("shoal: %s answers again", address) end,
    }, { limit_ms = args.timeout and args.timeout * 1000, job_ms = job_ms })
    decided:set("final", final, err, code)
  end)
  local what, final, err, code = decided:await()
  if what ~= "final" then
    following:cancel()
    common.talk("job %s goes on; shoal status %s tells how it stands", id, id)
    return what == "detach" and 0 or common.EXIT.interrupted
  end
  if not final then
    if code == "TIMEOUT" then
      common.talk("shoal: job %s goes on after --timeout", id)
      return common.EXIT.timed_out
    end
    if code == "OVERDUE" then
      common.talk("shoal: job %s: %s; shoal status %s tells how it stands", id, err, id)
      return common.EXIT.timed_out
    end
    return common.refused("job " .. id, err, code)
  end
  local result = final.result or { job = id, state = final.state, reason = final.reason }
  common.data(args.output == "json" and json.encode(result) or render.result(result))
  if args.result then
    local ok, problem = world.current():put_durable(args.result, json.encode(result) .. "\n")
    if not ok then return common.usage("--result: cannot write %s: %s", args.result, problem) end
  end
  return common.BY_STATE[final.state] or common.EXIT.failed
end

function submit.run(args)
  local bytes, err, job_ms = read(args)
  if not bytes then
    return common.usage("%s", err)
  end
  local made, exit = common.client(args)
  if not made then return exit end
  local key = args.key or ("cli-%016x"):format(world.current():random())
  local id, problem, code = made.state.client:submit(bytes, key, PATIENCE_MS)
  if not id then
    made:stop("refused")
    return common.refused(args.file, problem, code)
  end
  if code == "DUPLICATE" then common.talk("key %s is known: following its job", key) end
  common.talk("job %s", id)
  if args.detach then
    common.data(id)
    exit = 0
  else
    exit = follow(args, made, id, job_ms)
  end
  made:stop("done")
  return exit
end

return submit
