--- shoal submit: a job from a file, followed to its end.
local common = require "shoal.cli.common"
local core = require "shoal.core.node"
local file = require "shoal.cli.file"
local follow = require "shoal.cli.follow"
local job = require "shoal.job.spec"
local json = require "shoal.cli.json"
local render = require "shoal.cli.render"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"
local verify = require "shoal.cli.verify"
local world = require "shoal.core.world"

local submit = {}

local PATIENCE_MS = 3000 -- For a gate that is just being started again; then it is not reachable.

function submit.words(command)
  command:argument("file", "the job, a Lua or JSON file")
  common.connect_words(command)
  command:option("--key", "idempotency key: the same key never makes a second job, and with another job it is refused")
    :convert(common.word("--key", "a key", 256))
  command:option("--env -e", "NAME=VALUE for the job's env; can be given again"):count("*"):argname("NAME=VALUE")
  command:option("--result", "write the result as JSON to this file; it is opened before the job is submitted"):argname("FILE")
  command:option("--timeout", "stop following after so many seconds (the job goes on)"):argname("SECONDS")
    :convert(common.seconds("--timeout"))
  command:flag("--detach", "print the job's id and leave")
  command:flag("--quiet -q", "no progress lines")
  command:epilog([[
Examples:
  shoal submit examples/hello.lua --connect 127.0.0.1:7000
  shoal submit job.json --connect 127.0.0.1:7000 --output json > result.json
The exit code tells the job's outcome. Requests that fail are counted, and fail no job by themselves: with
max_failed_share = 0.05 in a workflow of the job file, that workflow and its job fail when more than 5 % of its requests did.
Ctrl-C at a terminal asks whether to cancel the job or leave it running; a second one leaves at once. Without a terminal on stdin, it
leaves at once, the job goes on, and the exit code is 130. SIGTERM (143) and SIGHUP (129) leave so too.]])
end

submit.clashes = {
  { "detach", "result", "a detached job has no result yet; shoal wait JOB --result FILE writes it" },
  { "detach", "timeout", "a detached job is not followed; its own limit is timeout_ms in the job file" },
}

--- The job file as bytes, with --env put over its own, and its time limit.
---@return string? bytes, string? err, number? timeout_ms
local function read(args)
  local over = {}
  for _, pair in ipairs(args.env or {}) do
    local name, value = pair:match("^([%w_]+)=(.*)$")
    if not name then return nil, ("--env: expected NAME=VALUE, found %q"):format(pair) end
    over[name] = value
  end
  local spec, err = verify.job(args.file, os.getenv, over)
  if not spec then return nil, err end
  for name, value in sorted(over) do
    spec.env[name] = value
    for _, workflow in sorted(spec.workflows) do
      if workflow.env then workflow.env[name] = value end
    end
  end
  return job.encode(spec), nil, spec.timeout_ms
end

local ANSWERS = { c = "cancel", cancel = "cancel", d = "detach", detach = "detach" }

--- Whether a question can be answered: stdin is a terminal, and we are in its foreground. A read in the background would stop us.
local function can_ask()
  if core.simulated() or require("luv").guess_handle(0) ~= "tty" then return false end
  local stat = io.open "/proc/self/stat"
  local text = stat and stat:read "a" or ""
  if stat then stat:close() end
  local group, foreground = text:match "%) %a %d+ (%d+) %d+ %d+ (%-?%d+)"
  return group == foreground
end

--- Ctrl-C: ask on the terminal; the second leaves. `decide` gets "cancel", "detach", or the exit code to leave with.
local function on_interrupt(id, decide)
  local asked = false
  core.on_signal("INT", function ()
    local stdin = not asked and can_ask() and world.current():stdio(0)
    if not stdin then return decide(common.EXIT.interrupted) end
    asked = true
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
        if asked then decide(common.EXIT.interrupted) end -- Nobody is there who could answer.
      end,
    })
  end)
  core.on_signal("TERM", function () decide(common.EXIT.terminated) end)
  core.on_signal("HUP", function () decide(common.EXIT.hung_up) end)
end

local function to_its_end(args, made, id, job_ms, result_file)
  local client, decided = made.state.client, task.future("interrupt")
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
    local limits = { limit_ms = args.timeout and args.timeout * 1000, job_ms = job_ms }
    decided:set("final", client:follow(id, follow.lines(common.talk, args.quiet), limits))
  end)
  local what, final, err, code = decided:await()
  if what ~= "final" then
    following:cancel()
    common.talk("job %s goes on; shoal status %s tells how it stands", id, id)
    return what == "detach" and 0 or what
  end
  if not final then return follow.unfinished(id, err, code) end
  local result = follow.result(id, final)
  common.data(args.output == "json" and json.encode(result) or render.result(result))
  return file.put(result_file, args.result, json.encode(result) .. "\n", common.BY_STATE[final.state] or common.EXIT.failed)
end

--- Who submits, as user@host.
local function origin()
  if core.simulated() then return nil end
  local uv = require "luv"
  local user = uv.os_get_passwd() -- nil of a user id that has no name.
  return ("%s@%s"):format(user and user.username or uv.getuid(), uv.os_gethostname() or "?"):sub(1, 128)
end

--- What a detached client should know of its job.
local function told_detached(args, id, reply)
  local days = (reply.retention_ms or 0) / 86400000
  if reply.retention_ms and not args.quiet then
    common.talk("its result is kept for %s after its end, or until results take more than %d MiB; shoal wait %s",
      days >= 1 and ("%.3g days"):format(days) or ("%.3g s"):format(reply.retention_ms / 1000), (reply.retention_bytes or 0) >> 20, id)
  end
  common.data(args.output == "json" and json.encode { job = id } or id)
end

function submit.run(args)
  local bytes, err, job_ms = read(args)
  if not bytes then
    return common.usage("%s", err)
  end
  local result_file <close>, problem = file.asked(args.result)
  if problem then return common.usage("--result: cannot write %s: %s", args.result, problem) end
  local made, exit = common.client(args)
  if not made then return exit end
  local key = args.key or ("cli-%016x"):format(world.current():random())
  local id, refusal, code, reply = made.state.client:submit(bytes, key, PATIENCE_MS, origin())
  if not id then
    made:stop("refused")
    return common.refused(args.file, refusal, code)
  end
  if code == "DUPLICATE" then common.talk("key %s is known: following its job", key) end
  common.talk("job %s", id)
  if args.detach then
    told_detached(args, id, reply)
    exit = 0
  else
    exit = to_its_end(args, made, id, job_ms, result_file)
  end
  made:stop("done")
  return exit
end

return submit
