--- dispatching: the exchange with executors about one part: dispatch, cancel, ask, lose. The other half of lead.lua.
---
--- A dispatch is sent again to the same executor, with the same fence and bytes, while its fate is unknown; the executor answers
--- the second as it answered the first. Only a refusal, a death or the end of patience makes a new attempt elsewhere,
--- with a greater fence, and the old one is cancelled until its executor answers.
local backoff = require "shoal.base.backoff"
local errors = require "shoal.base.errors"
local job = require "shoal.job.spec"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local dispatching = {}

local TRIES_MAX = 5
local CALL_MS = 3000
local HOLD_MS = { 100, 5000 } -- From a refusal of a part to its next offer, and the longest.
local LIMIT_SLACK_MS = 1000
local CANCEL_DEADLINE_MS = 30000

local function claim_key(run, part) return run.key .. " " .. part.part end

local function current(run, part, fence)
  return not run.over and part.state == "dispatched" and part.fence == fence
end

--- A refusal costs nothing but time, so time it costs: the part is offered again after a while that doubles.
local function hold(self, run, part)
  local refusals = 0
  for _, attempt in ipairs(part.history) do refusals = attempt.state == "refused" and refusals + 1 or 0 end
  local name, hold_ms = part.part, math.min(HOLD_MS[2], HOLD_MS[1] * 2 ^ math.min(refusals - 1, 16))
  run.held[name] = true
  run.scope:spawn("lead.dispatch", { job = run.job, workflow = part.workflow, part = name }, function ()
    task.sleep(hold_ms * (0.8 + 0.4 * self.node.world:unit()))
    run.held[name] = nil
    run.wake:push(true)
  end)
end

--- What a lost or refused attempt means is durable before anything else follows from it.
---@param last? table  the attempt's last counts, when they are better known than by its progress
---@return true? ok, string? err, string? code
function dispatching.lose(self, run, part, fence, state, reason, last)
  if not current(run, part, fence) then return true end
  local executor, progress = part.executor, last or run.progress[part.part]
  local retry = self.options.retry.again(part, run.spec.workflows[part.workflow], state)
  errors.report("lead.attempt_lost", {
    job = run.job, workflow = part.workflow, part = part.part, attempt = part.attempt, executor = executor, fence = fence,
    requests = progress and progress.requests or 0, retry = retry,
  }, reason, state == "lost" and "LOST" or "REFUSED")
  local done, err, code = self:commit({
    kind = "lost", run = run.key, part = part.part, fence = fence, state = state, reason = reason, retry = retry,
    progress = state == "lost" and progress or nil,
  })
  if not done then
    errors.report("lead.lost", { job = run.job, part = part.part, executor = executor }, err, code)
    return nil, err, code
  end
  run.progress[part.part] = nil
  dispatching.release(self, run, part, executor)
  if state == "refused" and part.state == "pending" then hold(self, run, part) end
  run.changed = true
  run.wake:push(true)
  return true
end

--- The attempt is over: its cores are free for any run.
function dispatching.release(self, run, part, executor)
  run.seen[part.part], run.progress[part.part] = nil, nil
  if executor and self.executors:release(executor, claim_key(run, part)) then self:wake_all() end
end

--- It may run there still: it is told to end, beside the attempt that takes its place.
local function end_given_up(self, run, part, fence, executor, why)
  run.scope:spawn("lead.cancel", { job = run.job, part = part.part, executor = executor.name }, function ()
    dispatching.cancel_until_answered(self, run, part.part, fence, executor.address, why)
  end)
end

-- Dispatch -------------------------------------------------------------------------------------------------------------

--- Send one attempt until it is taken, refused, or no longer counts.
local function send(self, run, part, fence, executor)
  local body = {
    job = run.job, workflow = part.workflow, part = part.part, attempt = part.attempt, fence = fence,
    leader = self.node.address, leader_name = self.node.name, payload = job.payload(run.spec, part.workflow),
    share = job.pack(part.share), timeout_ms = 0,
  }
  if run.deadline_ms then -- Ours acts first, theirs should we be gone.
    body.timeout_ms = math.ceil(math.max(0, run.deadline_ms - task.now_ms())) + LIMIT_SLACK_MS
  end
  local wait = backoff.new(self.node.world, { base_ms = 200, cap_ms = 3000 })
  local err, code, unsure -- unsure: a try may have been heard, and its answer lost.
  for try = 1, TRIES_MAX do
    local peer = self.node.rpc:peer(executor.address)
    local reply
    reply, err, code = peer:call("part.dispatch", body, { timeout_ms = CALL_MS })
    if not current(run, part, fence) then return end
    if reply then
      run.seen[part.part] = run.seen[part.part] or { seq = 0, at_ms = task.now_ms() }
      run.changed = true
      return
    end
    errors.report("lead.dispatch", {
      job = run.job, workflow = part.workflow, part = part.part, executor = executor.name, fence = fence, attempt = try,
    }, err, code)
    if code == "FULL" or code == "STALE" or code == "MALFORMED" or code == "REFUSED" or code == "CONFIG" then break end
    unsure = unsure or code ~= "OVERLOADED"
    task.sleep(wait:next())
    if not current(run, part, fence) then return end
  end
  local never_ran = code == "FULL" or code == "CONFIG" or code == "REFUSED" or code == "TOO_LARGE"
    or code == "OVERLOADED" and not unsure
  dispatching.lose(self, run, part, fence, never_ran and "refused" or "lost", ("dispatch to %s: %s"):format(executor.name, err))
  if not never_ran then end_given_up(self, run, part, fence, executor, "the attempt was given up") end
end

local function dispatch(self, run, part, executor)
  local done, err, code = self:commit({ kind = "dispatch", run = run.key, part = part.part, executor = executor.name })
  if not done or done.stale then
    dispatching.release(self, run, part, executor.name)
    if not done then
      errors.report("lead.dispatch", {
        job = run.job, workflow = part.workflow, part = part.part, executor = executor.name, fence = 0, attempt = part.attempt,
      }, err, code)
      task.sleep(200)
    end
    return
  end
  if executor.state ~= "up" then -- It went while the log was written: its death may have looked before the attempt was there.
    return dispatching.lose(self, run, part, done.fence, "refused", executor.name .. " went away")
  end
  send(self, run, part, done.fence, executor)
end

--- Do what is due for one part.
function dispatching.advance(self, run, part, workflow)
  local name = part.part
  if part.state == "pending" and run.entry.state == "cancelling" then
    self:commit_or_raise({ kind = "abandon", run = run.key, part = name, reason = run.entry.reason })
  elseif part.state == "dispatched" and run.entry.state == "cancelling" then
    dispatching.cancel(self, run, part)
  elseif part.state == "pending" and not run.busy[name] and not run.held[name] then
    local home = part.share.executor and self.executors:get(part.share.executor)
    if run.again and part.share.executor and not (home and home.state == "up") and self:young() then return end
    local choice = self.options.placement.choose(part, workflow, self.executors:list(), run.spec)
    if not choice then return end
    if not self.executors:get(choice) then
      error(("placement.choose for %s: there is no executor %s"):format(name, tostring(choice)))
    end
    local cores = self.options.claims and (part.share.cores or workflow.cores or 1) or 0
    if not self.executors:claim(choice, claim_key(run, part), cores) then return end
    run.busy[name] = true
    run.scope:spawn("lead.dispatch", { job = run.job, workflow = part.workflow, part = name, executor = choice }, function ()
      local free <close> = setmetatable({}, { __close = function ()
        run.busy[name] = nil
        if part.state ~= "dispatched" then dispatching.release(self, run, part, choice) end -- Also when this failed half way.
      end })
      dispatch(self, run, part, self.executors:get(choice))
      run.wake:push(true)
    end)
  elseif part.state == "dispatched" and not run.busy[name] then
    dispatching.watch_silence(self, run, part)
  end
end

--- A part without a word for too long is given up, though its executor lives.
function dispatching.watch_silence(self, run, part)
  local seen = run.seen[part.part]
  if not seen then -- Found in the ledger at start: its executor has as long to report it.
    run.seen[part.part] = { seq = 0, at_ms = task.now_ms() }
    return
  end
  local silent_ms = task.now_ms() - seen.at_ms
  if silent_ms < self.options.silent_ms then return end
  local executor, fence = self.executors:get(part.executor), part.fence
  dispatching.lose(self, run, part, fence, "lost", ("no progress for %.0f ms"):format(silent_ms))
  if executor then end_given_up(self, run, part, fence, executor, "no progress") end
end

-- Cancel ---------------------------------------------------------------------------------------------------------------

--- Ask an executor to end one attempt, again and again until it answers or the deadline passes.
---@return "cancelling"|"unknown"|nil state  nil when nobody answered
function dispatching.cancel_until_answered(self, run, part_name, fence, address, reason)
  local wait = backoff.new(self.node.world, { base_ms = 200, cap_ms = 3000 })
  local deadline_ms = task.now_ms() + CANCEL_DEADLINE_MS
  repeat
    local reply, err, code = self.node.rpc:peer(address):call("part.cancel", {
      job = run.job, part = part_name, fence = fence, reason = reason, deadline_ms = 5000,
    }, { timeout_ms = CALL_MS })
    if reply then return reply.state end
    errors.report("lead.cancel", { job = run.job, part = part_name, executor = address }, err, code)
    task.sleep(wait:next())
  until task.now_ms() >= deadline_ms
end

--- Cancel a live attempt of a run that is ending. Its own result settles it, or its executor's death, or the deadline.
function dispatching.cancel(self, run, part)
  if run.cancels[part.part] == part.fence then return end
  run.cancels[part.part] = part.fence
  local executor, fence = self.executors:get(part.executor), part.fence
  run.scope:spawn("lead.cancel", { job = run.job, part = part.part, executor = part.executor }, function ()
    local state = executor and dispatching.cancel_until_answered(self, run, part.part, fence, executor.address, run.entry.reason)
    if state == "cancelling" then task.sleep(CANCEL_DEADLINE_MS) end
    run.cancels[part.part] = nil -- Should the loss not become durable now, the driver cancels again.
    dispatching.lose(self, run, part, fence, "lost", state == "unknown" and "it was not running there" or "no answer to the cancel")
  end)
end

--- A message about an attempt that does not count: its sender is told to end it, once at a time.
function dispatching.cancel_stray(self, body, peer)
  local key = ("%s %s %d"):format(body.job, body.part, body.fence)
  if self.strays[key] then return end
  self.strays[key] = true
  self.scope:spawn("lead.cancel", { job = body.job, part = body.part, executor = peer:name() }, function ()
    local free <close> = setmetatable({}, { __close = function () self.strays[key] = nil end })
    local reply, err, code = peer:call("part.cancel", {
      job = body.job, part = body.part, fence = body.fence, reason = "this attempt no longer counts", deadline_ms = 5000,
    }, { timeout_ms = CALL_MS })
    if not reply then
      errors.report("lead.cancel", { job = body.job, part = body.part, executor = peer:name() }, err, code)
      task.sleep(1000)
    end
  end)
end

-- Ask ------------------------------------------------------------------------------------------------------------------

--- Which of an executor's attempts count, and which of ours it does not have.
local function reconcile(self, executor, reply)
  local reported = {}
  for _, report in ipairs(reply.parts) do
    reported[("%s %s %d"):format(report.job, report.part, report.fence)] = true
  end
  for _, run in sorted(self.runs) do
    for _, part in sorted(run.entry.parts) do
      if part.executor == executor.name and part.state == "dispatched" and not run.busy[part.part] then
        if reported[("%s %s %d"):format(run.job, part.part, part.fence)] then
          if self.options.claims then
            local cores = part.share.cores or run.spec.workflows[part.workflow].cores or 1
            self.executors:adopt(executor.name, claim_key(run, part), cores)
          end
        else
          dispatching.lose(self, run, part, part.fence, "lost", executor.name .. " does not have it")
        end
      end
    end
  end
end

--- Tell an executor who leads, and hear what it runs; up when it answered. As long as it is not down somebody hears it, so it is
--- asked for as long.
function dispatching.ask(self, executor)
  local wait = backoff.new(self.node.world, { base_ms = 100, cap_ms = 5000 })
  while executor.state ~= "down" do
    local epoch = executor.epoch
    local reply, err, code = self.node.rpc:peer(executor.address):call("lead", {
      tier = self.options.tier, fence = self.fence, node = self.node.name, address = self.node.address,
    }, { timeout_ms = CALL_MS })
    if executor.state == "down" then return end
    if reply and executor.epoch == epoch then
      executor.cores = reply.cores
      reconcile(self, executor, reply)
      self.executors:up(executor.name)
      self:wake_all()
      return
    end
    if not reply then errors.report("lead.ask", { executor = executor.name, address = executor.address }, err, code) end
    task.sleep(wait:next())
  end
end

return dispatching
