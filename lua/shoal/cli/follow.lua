--- follow: jobs followed to their ends, for submit, wait and status --follow.
local common = require "shoal.cli.common"
local core = require "shoal.core.node"
local render = require "shoal.cli.render"
local task = require "shoal.base.task"

local follow = {}

--- What to call as a job goes on: lines of progress, and that its leader does not answer.
---@param put fun(line: string)
---@param quiet? boolean  no progress
---@return table callbacks  of client:follow
function follow.lines(put, quiet)
  local before, shown_ms = nil, 0
  local callbacks = {
    gone = function (address, silent_ms, err, code)
      common.talk("shoal: %s does not answer since %.0f s, trying again: %s (%s)", address, silent_ms // 1000, err, code or "?")
    end,
    back = function (address) common.talk("shoal: %s answers again", address) end,
  }
  if quiet then return callbacks end
  function callbacks.status(s)
    if s.workflow then put(("          %s is %s%s"):format(s.workflow, s.workflow_state, s.reason and ": " .. s.reason or "")) end
  end
  function callbacks.stats(stats)
    if before and stats.at_ms // 1000 == shown_ms // 1000 then return end -- One line for each second begun.
    shown_ms = stats.at_ms
    local line
    line, before = render.progress(stats, before)
    put(line)
  end
  return callbacks
end

--- The exit code of a job that could not be followed to its end, after a line that says why.
---@return integer
function follow.unfinished(id, err, code)
  if code == "TIMEOUT" then return common.refused("job " .. id, "it goes on after --timeout", code, common.EXIT.timed_out) end
  if code == "OVERDUE" then
    return common.refused("job " .. id, ("%s; shoal status %s tells how it stands"):format(err, id), code, common.EXIT.timed_out)
  end
  return common.refused("job " .. id, err, code)
end

--- A final state as the result that stands for it: what `submit`, `status` and `wait` print.
function follow.result(id, final) return final.result or { job = id, state = final.state, reason = final.reason } end

--- Follow one job that may have ended long ago. Waits.
---@param limit_ms? number
---@return { state: string, reason: string?, result: table? }? final, string? err, string? code
function follow.known(client, id, callbacks, limit_ms)
  local began_ms = task.now_ms()
  local reply, err, code = client:call("job.get", { job = id })
  if not reply then return nil, err, code end
  local detail = reply.detail
  if common.BY_STATE[reply.state] then return { state = reply.state, reason = detail.reason, result = detail.result } end
  local job_ms = detail.limit_ms and math.max(0, detail.limit_ms - (detail.elapsed_ms or 0))
  return client:follow(id, callbacks, { limit_ms = limit_ms and math.max(1, limit_ms - (task.now_ms() - began_ms)), job_ms = job_ms })
end

--- Run fn(leave) as a task until it returns or a signal comes. Leaving cancels nothing: the jobs go on. Returns fn's exit code, or the
--- signal's.
---@param fn fun(leave: fun(exit: integer)): integer
---@return integer exit_code
function follow.until_signal(made, site, fn)
  local ended = task.future "interrupt"
  core.on_signal("HUP", function () ended:set(common.EXIT.hung_up) end)
  core.on_signal("INT", function () ended:set(common.EXIT.interrupted) end)
  core.on_signal("TERM", function () ended:set(common.EXIT.terminated) end)
  local running = made.scope:spawn(site, { command = site:match "[^.]+$" }, function ()
    ended:set(fn(function (exit) ended:set(exit) end))
  end)
  local exit, err, code = ended:await()
  running:cancel()
  return exit or common.refused(site, err, code)
end

return follow
