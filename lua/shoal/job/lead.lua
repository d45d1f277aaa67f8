--- lead: one leader of jobs, for a gate and a manager alike.
---
--- A gate is a leader whose executors are datacenters, a manager one whose executors are workers; the messages are the same on
--- both hops. What must not be lost stands in the ledger (lead/ledger.lua), fed by the tier; what may be lost (progress,
--- feeds, calls under way) stands here, and is built again from the ledger and from what executors report.
---
--- Every run has one task, its driver: woken by whatever happens to the run, it looks at the ledger, does what is due, and
--- waits. Nobody else moves a run, so there is nothing to lock.
local ack = require "shoal.wire.ack"
local backoff = require "shoal.base.backoff"
local dispatching = require "shoal.job.dispatching"
local errors = require "shoal.base.errors"
local executors = require "shoal.job.executors"
local feed = require "shoal.job.feed"
local job = require "shoal.job.spec"
local ledger = require "shoal.job.ledger"
local log = require "shoal.base.log"
local outcome = require "shoal.job.outcome"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"
local tier = require "shoal.tier.single"

local lead = {}
lead.__index = lead

local PROPOSE_MS = 5000
local LOOK_MS = 1000 -- A driver looks at its deadlines at least this often.
local RUN_BACKOFF_MS = { 100, 5000 }
local YOUNG_HEARTBEATS = 3

---@class LeadOptions
---@field tier "gates"|"managers"
---@field part_name fun(run: table, workflow: string, index: integer, share: table): string
---@field placement table  scripts/policies/placement.lua's half for this role: `split` and `choose`
---@field retry table      scripts/policies/retry.lua
---@field claims boolean whether parts take cores of an executor (a datacenter queues by itself)
---@field reports? table   shoal.reports: where progress and results of dispatched runs go
---@field silent_ms integer  a part without a word for this long is lost
---@field retention_ms integer  how long a finished job can be asked for

--- Open the leader: replay the tier's log, and take up what was under way. Waits; call it in a task.
---@param node table
---@param options LeadOptions
---@return table? lead, string? err, string? code
function lead.open(node, options)
  local self = setmetatable({
    node = node, options = options, scope = task.scope("lead", node.scope), ledger = ledger.new(), runs = {},
    executors = executors.new(), fence = 0, progress_seen = 0, progress_level = "none", strays = {},
  }, lead)
  local opened, err, code = tier.open(node, {
    name = options.tier,
    directory = node.config.data .. "/" .. options.tier,
    apply = function (index, command) self.ledger:apply(index, command) end,
    snapshot = function () return self.ledger:snapshot() end,
    restore = function (bytes) self.ledger:restore(bytes) end,
    on_lead = function (index) self:on_lead(index) end,
    on_lose = function () self:on_lose() end,
  })
  if not opened then return nil, err, code end
  self.tier = opened
  self.stop_hearing = node.rpc:watch(function (peer, event)
    if event ~= "down" then return end
    for _, run in sorted(self.runs) do
      if run.feed:leave(peer) then log.info("lead.watcher_left", { job = run.job, watcher = peer:name() }) end
    end
  end)
  self.scope:loop("lead.level_loop", {}, { interval_ms = LOOK_MS }, function () self:measure() end)
  return self
end

--- This node leads, under a fence above that of every leadership before: take up what was under way.
function lead:on_lead(index)
  self.fence, self.led_ms = index, task.now_ms()
  self.ledger:forget_outcomes() -- Those of a replay have no proposer.
  for _, entry in ipairs(self.ledger:list()) do
    if ledger.FINAL[entry.state] then
      self:hand_over(entry)
    else -- Each by itself: one that cannot be taken up again must not keep the others.
      local ok, incident = errors.call("lead.run", { job = entry.job }, self.start, self, entry, true)
      if not ok then self:give_up(entry, "it could not be taken up again: " .. incident.message) end
    end
  end
end

--- A run that nobody can drive ends all the same, as failed.
function lead:give_up(entry, reason)
  self.scope:spawn("lead.run", { job = entry.job }, function ()
    self:commit_or_raise({
      kind = "finish", run = entry.run, state = "failed", reason = reason, result = outcome.encode({
        job = entry.job, name = entry.name, state = "failed", reason = reason, node = self.node.name, elapsed_ms = 0, totals = {},
        attempts = {}, incidents = {}, workflows = not entry.upstream and {} or nil, stats = not entry.upstream and outcome.nothing() or nil,
      }),
    })
    self:hand_over(entry)
  end)
end

--- Another leads now, or nobody: stop driving. The ledger stays; executors keep working for whoever leads next.
function lead:on_lose()
  self.fence = 0
  for _, run in sorted(self.runs) do run.scope:close() end
  self.runs = {}
end

--- Put a command through the tier and give what it did.
---@return table? outcome, string? err, string? code
function lead:commit(command)
  local index, err, code = self.tier:propose(ledger.encode(command), PROPOSE_MS)
  if not index then return nil, err, code end
  return self.ledger:outcome(index)
end

--- The same for what must be done for the driver to go on: its failure is the driver's.
function lead:commit_or_raise(command)
  local done, err, code = self:commit(command)
  if not done then error(("%s: %s (%s)"):format(command.kind, err, code)) end
  return done
end

--- Has it only just begun to lead? Then who is missing may not have had the time to say that it is there.
function lead:young()
  return task.now_ms() - self.led_ms < YOUNG_HEARTBEATS * self.node.config.heartbeat_ms
end

function lead:wake_all()
  for _, run in sorted(self.runs) do run.wake:push(true) end
end

-- Intake ---------------------------------------------------------------------------------------------------------------

--- A client's job. Answers { job, duplicate }, or a refusal.
function lead:submit(body)
  if self.fence == 0 then return nil, self.node.name .. " does not lead " .. self.options.tier .. " (yet)", "NOT_LEADER" end
  local spec, problems, class = job.decode(body.spec)
  if not spec then return nil, problems, class end
  local asked = self.ledger:of_key(body.key)
  if asked then return { job = asked.job, duplicate = true } end
  local reachable, why = self.options.placement.accepts(spec, self.executors:all())
  if not reachable then
    return nil, why, self:young() and "NOT_READY" or "CONFIG"
  end
  local made, err, code = self:commit({
    kind = "create", run = "", job = "", key = body.key, name = spec.name,
    salt = ("%04x"):format(self.node.world:random(65536) - 1), spec = body.spec,
  })
  if not made then return nil, err, code end
  if made.stale then return nil, "this node lost the lead while taking the job; submit it again with the same key", "UNKNOWN" end
  local entry = self.ledger.runs[made.run]
  if not made.duplicate then self:start(entry) end
  return { job = entry.job, duplicate = made.duplicate }
end

--- A higher tier's dispatch of one workflow's share: a run of one workflow. The same dispatch again gives the same answer.
function lead:take(body)
  if self.fence == 0 then return nil, self.node.name .. " does not lead " .. self.options.tier .. " (yet)", "NOT_LEADER" end
  local key = body.job .. "|" .. body.part
  local upstream = {
    address = body.leader, name = body.leader_name, part = body.part, workflow = body.workflow, attempt = body.attempt, fence = body.fence,
  }
  local known = self.ledger.runs[key]
  if known then
    if body.fence == known.upstream.fence then return { state = "accepted" } end
    if body.fence < known.upstream.fence then
      return nil, ("fence %d is older than %d"):format(body.fence, known.upstream.fence), "STALE"
    end
    if not ledger.FINAL[known.state] then
      local _, err, code = self:cancel(key, "a newer attempt was dispatched")
      return nil, "an earlier attempt of this part is still being ended here" .. (err and ": " .. err or ""), code or "OVERLOADED"
    end
    -- It has ended, and who dispatched it has given it up: its result counts nowhere any more.
    local gone, err, code = self:let_go(known)
    if not gone then return nil, err, code end
  end
  local spec, err = job.of_dispatch(body)
  if not spec then return nil, err, "MALFORMED" end
  local made, problem, code = self:commit({
    kind = "create", run = key, job = body.job, key = "", name = spec.name, salt = "",
    spec = job.encode(spec), upstream = upstream,
  })
  if not made then return nil, problem, code end
  if not made.stale and not made.duplicate then self:start(self.ledger.runs[key]) end
  return { state = "accepted" }
end

-- The driver of one run ------------------------------------------------------------------------------------------------

---@param entry table
---@param again? boolean  it was begun under an earlier leadership
function lead:start(entry, again)
  if self.runs[entry.run] then return end
  local scope = task.scope("run " .. entry.run, self.scope)
  local spec = assert(job.decode(entry.spec))
  local run = {
    key = entry.run, job = entry.job, entry = entry, again = again, spec = spec, order = job.order(spec), scope = scope,
    wake = task.channel(1), feed = feed.new(entry.job, scope, self.fence, again), started_ms = task.now_ms(), progress = {}, seen = {},
    busy = {}, held = {}, told = {}, cancels = {}, stats_ms = 0, changed = false,
  }
  run.deadline_ms = spec.timeout_ms and run.started_ms + spec.timeout_ms
  self.runs[entry.run] = run
  run.feed:push("status", { state = entry.state, at_ms = 0 })
  scope:spawn("lead.run", { job = run.job }, function () self:drive(run) end)
end

function lead:drive(run)
  local backoff_ms = 0
  while not run.over do
    local ok = errors.call("lead.run", { job = run.job }, self.advance, self, run)
    backoff_ms = ok and 0 or math.min(RUN_BACKOFF_MS[2], math.max(RUN_BACKOFF_MS[1], backoff_ms * 2))
    if backoff_ms > 0 then task.sleep(backoff_ms) end
    if not run.over then run.wake:pop(self:wait_ms(run)) end
  end
end

function lead:wait_ms(run)
  local wait = run.changed and self.node.config.push_ms or LOOK_MS
  if run.deadline_ms then wait = math.min(wait, run.deadline_ms - task.now_ms()) end
  return math.max(wait, 1)
end

--- Do all that is due for this run now. Waits for the tier at most.
function lead:advance(run)
  local entry, now = run.entry, task.now_ms()
  if entry.state == "running" and run.deadline_ms and now >= run.deadline_ms then
    local state, err, code = self:stop_run(run, ("not done after timeout_ms = %d"):format(run.spec.timeout_ms), "timed_out")
    if not state then error(("the time limit: %s (%s)"):format(err, code)) end
  end
  local states, open = {}, false
  for _, name in ipairs(run.order) do
    states[name] = self:advance_workflow(run, name, states)
    open = open or outcome.OPEN[states[name]]
    self:tell_workflow(run, name, states[name])
  end
  if run.changed and now - run.stats_ms >= self.node.config.push_ms then self:tell_stats(run, now) end
  if not open then self:finish(run, states) end
end

--- Move one workflow on as far as it goes, and name its state.
function lead:advance_workflow(run, name, states)
  local entry, workflow = run.entry, run.spec.workflows[name]
  local state = outcome.workflow_state(entry, workflow, name, states)
  if state == "ready" then
    if entry.state ~= "running" then return "cancelled" end
    if not self:split(run, name, workflow) then return "queued" end
    state = "running"
  end
  if state == "running" then
    for _, part_name in ipairs(entry.split[name]) do
      dispatching.advance(self, run, entry.parts[part_name], workflow)
    end
    state = outcome.workflow_state(entry, workflow, name, states)
  end
  return state
end

--- Cut a workflow into parts, once; false while nobody could run it.
function lead:split(run, name, workflow)
  if run.again and self:young() then return false end -- Everybody there was before the restart shall have a share.
  local shares = self.options.placement.split(workflow, self.executors:list(), run.spec)
  if not shares or #shares == 0 then return false end
  local whole, why = outcome.adds_up(workflow, shares)
  if not whole then error(("placement.split of %s: %s"):format(name, why)) end
  local parts = {}
  for i, share in ipairs(shares) do
    parts[i] = { part = self.options.part_name(run, name, i, share), share = share }
  end
  self:commit_or_raise({ kind = "split", run = run.key, workflow = name, parts = parts })
  return run.entry.split[name] ~= nil
end

--- Begin to end a run before its work is done. Idempotent.
---@param state "cancelled"|"timed_out"
function lead:stop_run(run, reason, state)
  local done, err, code = self:commit({ kind = "cancel", run = run.key, reason = reason, state = state })
  if not done then return nil, err, code end
  if run.entry.state == "cancelling" then run.feed:push("status", { state = "cancelling", reason = reason }) end
  run.wake:push(true)
  return run.entry.state
end

--- A client's or a higher tier's cancel. Answers the state now; a job that has ended keeps its answer.
function lead:cancel(key, reason)
  local entry = self.ledger.runs[key]
  if not entry then return nil, "no job " .. key .. " here", "NOT_FOUND" end
  local run = self.runs[key]
  if not run or ledger.FINAL[entry.state] then return { state = entry.state } end
  local state, err, code = self:stop_run(run, reason, "cancelled")
  if not state then return nil, err, code end
  return { state = state }
end

--- A higher tier ends one attempt that it dispatched here.
function lead:end_part(body)
  local key = body.job .. "|" .. body.part
  local entry = self.ledger.runs[key]
  if not entry or entry.upstream.fence > body.fence then return { state = "unknown" } end
  local done, err, code = self:cancel(key, body.reason)
  if not done then return nil, err, code end
  return { state = "cancelling" } -- Its result follows, also when it had ended just before.
end

--- The higher tier knows nothing of this attempt of ours: end it.
---@param record { job: string, part: string, fence: integer }
function lead:drop(record, reason)
  self.scope:spawn("lead.cancel", { job = record.job, part = record.part, executor = self.node.name }, function ()
    local done, err, code = self:end_part { job = record.job, part = record.part, fence = record.fence, reason = reason }
    if not done then errors.report("lead.cancel", { job = record.job, part = record.part, executor = self.node.name }, err, code) end
  end)
end

--- The higher tier's parts that this node has, for its reconciling.
function lead:upstream_parts()
  local parts = {}
  for _, entry in ipairs(self.ledger:list()) do
    local up = entry.upstream
    if up then parts[#parts + 1] = { job = entry.job, part = up.part, fence = up.fence, attempt = up.attempt } end
  end
  return parts
end

--- Who leads this job, as far as this node knows.
function lead:who(body)
  for _, entry in ipairs(self.ledger:list()) do
    if entry.job == body.job and not ledger.FINAL[entry.state] and self.fence > 0 then
      return { node = self.node.name, address = self.node.address }
    end
  end
  return { node = "", address = "" }
end

-- What executors say ---------------------------------------------------------------------------------------------------

--- The run and part that a message of an executor is about, when its fence is the one that counts.
local function find(self, body)
  for _, key in ipairs(self.options.keys(body)) do
    local run = self.runs[key]
    local part = run and run.entry.parts[body.part]
    if part then return run, part end
  end
end

--- Does this tier know the job at all, be it that it has ended?
local function known(self, body)
  for _, key in ipairs(self.options.keys(body)) do
    if self.ledger.runs[key] then return true end
  end
  return false
end

--- Progress: newest per part wins. Answers the ack; a sender whose attempt no longer counts is told to stop.
function lead:progress(body, peer)
  if self.fence == 0 then return nil, self.node.name .. " does not lead " .. self.options.tier .. " (yet)", "NOT_LEADER" end
  self.progress_seen = self.progress_seen + 1
  if not known(self, body) then return ack.encode({ level = self.progress_level, known = false }) end
  local run, part = find(self, body)
  if not run or part.fence ~= body.fence or part.state ~= "dispatched" then
    dispatching.cancel_stray(self, body, peer)
  elseif body.seq > (run.seen[body.part] and run.seen[body.part].seq or 0) then
    run.seen[body.part] = { seq = body.seq, at_ms = task.now_ms() }
    run.progress[body.part] = body.stats
    run.changed = true
    if task.now_ms() - run.stats_ms >= self.node.config.push_ms then run.wake:push(true) end
  end
  return ack.encode({ level = self.progress_level, leader = self.node.name, leader_address = self.node.address })
end

--- A part's result. Answered only when it is durable; one that no longer counts is answered too, so that it is dropped there.
function lead:result(body)
  if self.fence == 0 then return nil, self.node.name .. " does not lead " .. self.options.tier .. " (yet)", "NOT_LEADER" end
  if not known(self, body) then return { accepted = false, stale = true } end
  local run, part = find(self, body)
  if not run or part.fence ~= body.fence or part.state ~= "dispatched" then return { accepted = true, stale = true } end
  local readable, problem, word = outcome.readable(body.result)
  if not readable then
    errors.report("lead.result", {
      job = body.job, workflow = body.workflow, part = body.part, payload_bytes = #body.result,
    }, problem, word)
    return nil, problem, word
  end
  if body.state == "cancelled" and run.entry.state == "running" then -- Nobody here asked: its executor is going away.
    local settled, unsettled, why = dispatching.lose(self, run, part, body.fence, "lost", body.reason, body.stats)
    if not settled then return nil, unsettled, why end
    return { accepted = true, stale = false }
  end
  local retry = body.state == "failed" and self.options.retry.again(part, run.spec.workflows[part.workflow], "failed")
  local executor = part.executor
  local done, err, code = self:commit({
    kind = "ended", run = run.key, part = body.part, fence = body.fence, state = body.state, reason = body.reason,
    result = body.result, progress = body.stats, retry = retry,
  })
  if not done then return nil, err, code end
  dispatching.release(self, run, part, executor)
  run.wake:push(true)
  return { accepted = true, stale = done.stale or false }
end

-- What clients hear ----------------------------------------------------------------------------------------------------

function lead:tell_workflow(run, name, state)
  if run.told[name] == state then return end
  run.told[name] = state
  run.feed:push("status", {
    state = run.entry.state, workflow = name, workflow_state = state, at_ms = task.now_ms() - run.started_ms,
    reason = state == "queued" and outcome.why_queued(run.spec.workflows[name], self.executors:all()) or nil,
  })
  if not outcome.OPEN[state] and not run.entry.upstream then
    run.feed:push("result", { workflow = name, result = outcome.workflow(run, name, state) })
  end
end

function lead:tell_stats(run, now)
  run.changed, run.stats_ms = false, now
  local up = run.entry.upstream
  if up then
    self.options.reports:progress({
      job = run.job, workflow = up.workflow, part = up.part, attempt = up.attempt, fence = up.fence, leader = up.address,
      leader_name = up.name, since = self.fence << 20, stats = outcome.totals(run),
    })
  else
    run.feed:push("stats", { at_ms = now - run.started_ms, parts = outcome.by_part(run) })
  end
end

-- The end --------------------------------------------------------------------------------------------------------------

function lead:finish(run, states)
  local state, reason = outcome.run_state(run, states)
  self:tell_stats(run, task.now_ms())
  local result = outcome.run(self, run, states, state, reason)
  self:commit_or_raise({ kind = "finish", run = run.key, state = state, reason = reason, result = outcome.encode(result) })
  self:close_run(run, result)
end

--- The run has its final state: tell it.
function lead:close_run(run, result)
  local entry = run.entry
  run.over = true
  run.progress, run.seen, run.busy, run.held, run.cancels = {}, {}, {}, {}, {}
  if not entry.upstream then
    run.feed:push("result", { workflow = "", result = result })
    run.feed:push("status", { state = entry.state, reason = entry.reason, at_ms = task.now_ms() - run.started_ms })
    run.feed:close()
  end
  self:hand_over(entry)
end

--- A finished run is let go when the higher tier has its result, or when clients had time to ask. After a restart too.
function lead:hand_over(entry)
  local up = entry.upstream
  if not up then
    self.scope:spawn("lead.forget", { job = entry.job }, function ()
      task.sleep(self.options.retention_ms)
      self:forget(entry)
    end)
    return
  end
  self.options.reports:result({
    job = entry.job, workflow = up.workflow, part = up.part, attempt = up.attempt, fence = up.fence, leader = up.address,
    state = entry.state == "timed_out" and "failed" or entry.state, reason = entry.reason, result = entry.result,
    stats = outcome.decode(entry.result).totals,
  }, function () self:forget(entry) end)
end

--- Nothing of a finished run is kept. It is named by its index too: the same part's next attempt may be here already.
---@return true? ok, string? err, string? code
function lead:let_go(entry)
  local done, err, code = self:commit({ kind = "forget", run = entry.run, index = entry.index })
  if not done then return nil, err, code end
  local run = self.runs[entry.run]
  if run and run.entry == entry then
    self.runs[entry.run] = nil
    run.scope:close()
  end
  return true
end

function lead:forget(entry)
  self.scope:spawn("lead.forget", { job = entry.job }, function ()
    local wait = backoff.new(self.node.world, { base_ms = 500, cap_ms = 30000 })
    while true do
      local done, err, code = self:let_go(entry)
      if done or code == "NOT_LEADER" then return end -- Whoever leads next hands it over again.
      errors.report("lead.forget", { job = entry.job }, err, code)
      task.sleep(wait:next())
    end
  end)
end

-- Executors come and go ------------------------------------------------------------------------------------------------

--- Heard of an executor: ask it what it runs, adopt what counts, end what does not; then it is up.
function lead:hear(name, address, cores, generation)
  local e, ask = self.executors:hear(name, address, cores)
  if e.generation ~= generation then
    ask = true
    if e.state == "up" then e.state = "known" end
    e.generation = generation
  end
  if ask and not e.asking then
    e.asking = true
    self.scope:spawn("lead.ask", { executor = name, address = address }, function ()
      local free <close> = setmetatable({}, { __close = function () e.asking = false end })
      dispatching.ask(self, e)
    end)
  end
  return e
end

--- An executor is dead, left or silent: each of its attempts is lost.
function lead:gone(name, reason)
  local e = self.executors:down(name)
  if not e then return end
  for _, run in sorted(self.runs) do
    for _, part in sorted(run.entry.parts) do
      if part.executor == name and part.state == "dispatched" then
        self.scope:spawn("lead.lost", { job = run.job, part = part.part, executor = name }, function ()
          dispatching.lose(self, run, part, part.fence, "lost", reason)
        end)
      end
    end
  end
  self.executors:remove(name)
end

--- The level that acks carry: how full this second was of progress, against what a leader takes. It falls by itself.
function lead:measure()
  local fill = self.progress_seen / self.node.config.progress_per_s
  self.progress_seen = 0
  self.progress_level = fill >= 0.95 and "reject" or fill >= 0.85 and "batch" or fill >= 0.70 and "throttle" or "none"
end

-- Questions ------------------------------------------------------------------------------------------------------------

--- One job as people ask for it; nil when there is none here.
function lead:get(key)
  local entry = self.ledger.runs[key]
  if not entry then return nil end
  return outcome.describe(entry, self.runs[key])
end

function lead:list()
  local out = {}
  for i, entry in ipairs(self.ledger:list()) do
    out[i] = { job = entry.run, name = entry.name, state = entry.state, reason = entry.reason or "" }
  end
  return out
end

--- Events of a job for `peer`, pushed from a number on. A job that ended before this process began has its answer replayed.
function lead:watch(key, peer, from)
  local run, entry = self.runs[key], self.ledger.runs[key]
  if not entry then return nil, "no job " .. key .. " here", "NOT_FOUND" end
  local on_end
  if not run and not entry.result then return nil, self.node.name .. " does not lead job " .. key .. " now", "NOT_LEADER" end
  if not run then
    run = { scope = task.scope("replay " .. key, self.scope) }
    on_end = function () run.scope:close() end
    run.feed = feed.new(entry.job, run.scope, self.fence, true)
    run.feed:push("result", { workflow = "", result = outcome.decode(entry.result) })
    run.feed:push("status", { state = entry.state, reason = entry.reason, at_ms = 0 })
    run.feed:close()
  end
  run.feed:watch(peer, from, on_end)
  return { seq = run.feed.last, state = entry.state }
end

--- This peer follows the job no longer. One that never did, or a job that is gone: then there is nothing to do.
function lead:unwatch(key, peer)
  local run = self.runs[key]
  if run and run.feed:leave(peer) then log.info("lead.watcher_left", { job = run.job, watcher = peer:name() }) end
end

--- Events by poll.
function lead:events(key, from, max)
  local run = self.runs[key]
  if not run then return nil, "no events of job " .. key .. " are kept here", "NOT_FOUND" end
  local list, truncated = run.feed:since(from, max)
  return { events = list, truncated_from = truncated or 0, last = run.feed.last }
end

function lead:close()
  self.stop_hearing()
  self.scope:close()
  self.tier:close()
end

return lead
