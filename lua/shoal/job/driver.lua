--- driver: the volatile state of one run, and the task that advances it. Facts wake the task; it reads the ledger, does the work that
--- is due, and waits. It holds the run's key, never the ledger's tables.
---
--- A finish always ends: a driver that failed FAILURES_MAX times in a row ends its run as failed, with the numbers it can give.
local errors = require "shoal.base.errors"
local feed = require "shoal.job.feed"
local fit = require "shoal.job.fit"
local job = require "shoal.job.spec"
local outcome = require "shoal.job.outcome"
local results = require "shoal.job.results"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local driver = {}
driver.__index = driver

local LOOK_MS = 1000 -- A driver looks at its deadlines at least this often.
local BACKOFF_MS = { 100, 5000 }
local FAILURES_MAX = 8
local SMALL_PARTS = 8
local SAY_MS = 1000     -- Between two events that give a reason for waiting.
local BUSY_MS = 2000    -- A wait for a busy cluster is reported to the tier above after this.
local GOING_ON = { NOT_LEADER = true, UNKNOWN = true, FULL = true, CLOSED = true } -- Codes of the tier after which the driver runs again.

---@param lead table
---@param entry table  the ledger's
---@param again boolean  the run began under an earlier leadership
---@param spec? table  the entry's spec, if it is decoded already
function driver.start(lead, entry, again, spec)
  local err
  if not spec then spec, err = job.decode(entry.spec) end
  if not spec then error("the stored job is unreadable: " .. tostring(err)) end
  local self = setmetatable({
    lead = lead, key = entry.run, job = entry.job, index = entry.index, again = again, spec = spec, order = job.order(spec),
    upstream = entry.upstream, scope = task.scope("run " .. entry.run, lead.term), wake_up = task.channel(1), told = {}, wanted = {},
    payloads = {}, views = {}, waiting = {}, said = {}, held = {},
    spec_view = errors.view(spec), changed = {}, stats_ms = task.now_ms(), due = true,
  }, driver)
  self.feed = feed.new(entry.job, self.scope, lead.fence, again, lead.watching)
  self.feed:push("status", { state = entry.state, at_ms = self:elapsed_ms() })
  self.scope:keep("lead.run", { job = self.job }, function () self:work() end)
  return self
end

function driver:entry()
  local entry = self.lead.ledger.runs[self.key]
  return entry and entry.index == self.index and entry or nil
end

--- Time since the run was created, by the tier's clock, so that it continues under a new leader.
function driver:elapsed_ms()
  local entry = self:entry()
  return entry and math.max(0, self.lead:clock_ms() - entry.started_ms) or 0
end

--- Time left until the run's limit; nil without a limit.
function driver:left_ms()
  local entry = self:entry()
  return entry and entry.limit_ms and entry.limit_ms - self:elapsed_ms() or nil
end

--- A workflow of the job, as a copy for policies, so that they cannot change ours.
function driver:view(workflow)
  local view = self.views[workflow]
  if not view then
    view = errors.view(self.spec.workflows[workflow])
    self.views[workflow] = view
  end
  return view
end

--- The payload bytes, the same for each attempt of this workflow.
function driver:payload(workflow)
  local bytes = self.payloads[workflow]
  if not bytes then
    bytes = job.payload(self.spec, workflow)
    self.payloads[workflow] = bytes
  end
  return bytes
end

--- Make the driver look now: a state may have changed.
function driver:wake()
  self.due = true
  self.wake_up:push(true) -- dropped: full means awake
end

--- A part's numbers changed: push them at the next interval.
function driver:stats_changed(part)
  self.changed[part] = true
  if not self.has_changed then
    self.has_changed = true
    self.wake_up:push(true) -- dropped: full means awake
  end
end

function driver:wait_ms()
  local wait = LOOK_MS
  if self.has_changed then wait = math.min(wait, self.stats_ms + self.lead.node.config.push_ms - task.now_ms()) end
  local left_ms = self:left_ms()
  if left_ms then wait = math.min(wait, left_ms) end
  return math.max(wait, 1)
end

function driver:work()
  local failures = 0
  while not self.over do
    local ok, incident = errors.call("lead.run", { job = self.job }, self.advance, self)
    failures = ok and 0 or failures + 1
    if failures >= FAILURES_MAX then return self.lead:give_up(self.key, incident.message) end
    if not ok then
      self.due = true -- Try the failed step again, up to FAILURES_MAX times.
      task.sleep(math.min(BACKOFF_MS[2], BACKOFF_MS[1] * 2 ^ (failures - 1)))
    elseif not self.over then
      local _, err, code = self.wake_up:pop(self:wait_ms())
      if err and code ~= "TIMEOUT" then return end
    end
  end
end

--- What a run that is out of time waited for, as the end of its reason.
local function waited(self)
  for _, name in ipairs(self.order) do
    local why = self:why_waiting(name)
    if why then return ("; %s waits: %s"):format(name, why) end
  end
  return ""
end

--- Do everything that is due for this run now.
function driver:advance()
  local entry, now = self:entry(), task.now_ms()
  if not entry then
    self.over = true
    return
  end
  if entry.state == "running" and entry.limit_ms and self:elapsed_ms() >= entry.limit_ms then
    local reason = ("not done after timeout_ms = %d%s"):format(entry.limit_ms, waited(self))
    local state, err, code = self.lead:stop_run(self.key, reason, "timed_out")
    if not state then errors.report("lead.run", { job = self.job }, "the time limit: " .. err, code) end
    return
  end
  if self.due then
    self.due = false
    if self:look(entry) then return self:finish(entry) end
  end
  if self.upstream and (self.reported or next(self.waiting) or next(self.held)) then self:report_waiting(now) end
  if self.has_changed and now - self.stats_ms >= self.lead.node.config.push_ms then self:tell_stats(entry) end
end

--- Compute each workflow's state, and ask placing to split those that are ready. True when none is open.
function driver:look(entry)
  local states, open = {}, false
  for _, name in ipairs(self.order) do
    local state = outcome.workflow_state(entry, self.spec.workflows[name], name, states)
    if state == "ready" then
      if not self.wanted[name] then
        self.wanted[name] = true
        self.lead.placing:want(self.key, name)
      end
      state = self.told[name] == "queued" and "queued" or "ready"
    end
    states[name] = state
    open = open or outcome.OPEN[state] or false
    if state ~= "ready" then self:tell_workflow(entry, name, state) end
  end
  self.states = states
  return not open
end

--- The reasons that workflows wait, by name; those not named do not wait. Volatile: `lead:get` gives them to people, and clients get
--- an event when a reason changes, at most one a second. A busy cluster is no news to a workflow that has begun.
---@param reasons table<string, string>
function driver:waits(reasons)
  local entry, now = self:entry(), task.now_ms()
  if not entry or entry.state ~= "running" then return end
  for name in next, self.waiting do -- order-free: each by itself
    if not reasons[name] then
      self.waiting[name] = nil
      if self.said[name] then self.said[name].reason = nil end
    end
  end
  for name, reason in sorted(reasons) do
    self.waiting[name] = reason
    if self.told[name] ~= "queued" and not entry.work[name] then
      self.said[name] = { reason = reason, at_ms = now }
      self:tell_workflow(entry, name, "queued")
    else
      self:tell_waiting(entry, name, reason)
    end
  end
  self:report_waiting(now)
end

--- A part is held back for a while before it is placed again; without a reason: no more.
function driver:holds(part, workflow, reason)
  local entry = self:entry()
  self.held[part] = reason and { workflow = workflow, reason = reason }
  if reason and entry then self:tell_waiting(entry, workflow, reason) end
  self:report_waiting(task.now_ms())
end

--- Push a changed reason.
function driver:tell_waiting(entry, name, reason)
  local said, now = self.said[name], task.now_ms()
  if said and (said.reason == reason or now - said.at_ms < SAY_MS) then return end
  if entry.work[name] and reason == fit.BUSY then return end
  self.said[name] = { reason = reason, at_ms = now }
  -- A leadership that has told nothing yet must not tell less than the one before it: a workflow that was cut has begun.
  local state = self.told[name] or entry.work[name] and "running" or "queued"
  self.feed:push("status", {
    state = entry.state, workflow = name, workflow_state = state, at_ms = self:elapsed_ms(), reason = reason,
  })
end

--- The first reason that work of this run waits here.
local function own_reason(self)
  local _, reason = sorted(self.waiting)()
  if reason then return reason end
  local _, held = sorted(self.held)()
  return held and held.reason
end

--- A share that waits reports the reason to the tier above: at once if nothing can run it, else after BUSY_MS, for most jobs of a busy
--- cluster wait for a moment only.
function driver:report_waiting(now)
  if not self.upstream then return end
  local reason = own_reason(self)
  if reason ~= fit.BUSY then
    self.busy_ms = nil
  else
    self.busy_ms = self.busy_ms or now
    if now - self.busy_ms < BUSY_MS then reason = nil end
  end
  if reason == self.reported then return end
  self.reported = reason
  self.has_changed = true
  self.wake_up:push(true) -- dropped: full means awake
end

--- An executor that is a tier reported why its part waits, or (nil) that it does so no more.
function driver:waits_below(attempt, reason)
  attempt.waiting = reason
  local entry = self:entry()
  if reason and entry then self:tell_waiting(entry, attempt.workflow, ("%s: %s"):format(attempt.executor, reason)) end
end

--- The reason that a workflow waits, for people.
---@return string?
function driver:why_waiting(name)
  if self.waiting[name] then return self.waiting[name] end
  for _, held in sorted(self.held) do
    if held.workflow == name then return held.reason end
  end
  for _, a in sorted(self.lead.attempts:of_run(self.key)) do
    if a.workflow == name and a.waiting then return ("%s: %s"):format(a.executor, a.waiting) end
  end
  return self.lead.suspects:why_waiting(self.job, name, self.lead.attempts:of_run(self.key))
end

-- Events to clients ----------------------------------------------------------------------------------------------------

function driver:tell_workflow(entry, name, state)
  if self.told[name] == state then return end
  self.told[name] = state
  self.feed:push("status", {
    state = entry.state, workflow = name, workflow_state = state, at_ms = self:elapsed_ms(),
    reason = state == "queued" and self.waiting[name] or nil,
  })
  if not outcome.OPEN[state] and not entry.upstream and #self.order > 1 then
    self.feed:push("result", { workflow = name, result = outcome.workflow(entry, name, state) })
  end
end

function driver:tell_stats(entry)
  local live, up = self.lead.attempts:of_run(self.key), entry.upstream
  self.stats_ms = task.now_ms()
  if up then
    self.lead.options.reports:progress({
      job = self.job, workflow = up.workflow, part = up.part, attempt = up.attempt, fence = up.fence, leader = up.address,
      leader_name = up.name, since = self.lead.fence << 20, stats = outcome.totals(entry, live), waiting = self.reported,
      began_ms = task.now_ms() - self:elapsed_ms(),
    })
  else
    local parts, more = outcome.by_part(entry, live, self.changed)
    self.feed:push("stats", { at_ms = self:elapsed_ms(), parts = parts, more = more })
  end
  self.changed, self.has_changed = {}, false
end

-- The end --------------------------------------------------------------------------------------------------------------

--- The result of a small run, to travel in the command that ends its last part; this saves a separate finish and its sync. Nil when the
--- run needs more than that: then the driver finishes it.
---@param command table  "ended"
---@return table? finish
function driver:finish_with(entry, command)
  if #self.order > 1 or entry.state ~= "running" or command.retry then return nil end
  local work = entry.work[self.order[1]]
  if not work or work.open ~= 1 or work.completed + work.failed + work.cancelled > SMALL_PARTS then return nil end
  local after = self.lead.ledger:preview(command)
  local name = self.order[1]
  local states = { [name] = outcome.workflow_state(after, self.spec.workflows[name], name, {}) }
  if outcome.OPEN[states[name]] then return nil end
  local state, reason = outcome.run_state(after, self.spec, self.order, states)
  local bytes = outcome.result {
    entry = after, order = self.order, states = states, state = state, reason = reason, node = self.lead.node.name, dc = self.lead.node.dc,
    elapsed_ms = self:elapsed_ms(), live = {},
  }
  if #bytes > results.INLINE_MAX then return nil end
  return { state = state, reason = reason, result = bytes, workflows = 1 }
end

--- Compute the result, make it durable, and propose the finish. The fact run_finished then leads to lead:close_run.
function driver:finish(entry)
  if self.has_changed then self:tell_stats(entry) end
  local lead = self.lead
  local state, reason = outcome.run_state(entry, self.spec, self.order, self.states)
  local bytes = outcome.result {
    entry = entry, order = self.order, states = self.states, state = state, reason = reason, node = lead.node.name,
    dc = lead.node.dc, elapsed_ms = self:elapsed_ms(), live = lead.attempts:of_run(self.key), pause = #self.order > 1 and task.yield or nil,
  }
  local kept, err, code = lead.results:keep(entry, bytes)
  if not kept then -- The disk may be full: the end must not wait for space, so store a short result in the log.
    errors.report("lead.results", { path = lead.results.directory }, err, code)
    kept = { result = outcome.small(entry, state, reason, lead.node.name, self:elapsed_ms(), "its result could not be stored: " .. err) }
  end
  local facts
  facts, err, code = lead:propose {
    kind = "finish", run = self.key, state = state, reason = reason, result = kept.result, file = kept.file,
  }
  if facts then
    if facts.stale then self.due = true end -- A part was reopened, or the run has ended: look again.
    return
  end
  if kept.file then lead.results:remove(kept.file.name) end
  self.due = true
  if GOING_ON[code] then
    errors.report("lead.run", { job = self.job }, "finish: " .. err, code)
    task.sleep(BACKOFF_MS[1])
  else
    error(("finish: %s (%s)"):format(err, code))
  end
end

return driver
