--- lead: one leader of jobs, for a gate and a manager alike.
---
--- A gate's executors are datacenters, a manager's are workers; the messages are the same on both hops. Durable state is in the
--- ledger (ledger.lua), fed by the tier. Volatile state is in objects that each leadership creates and its end destroys: drivers of
--- runs (driver.lua), placing (placing.lua), attempts (attempts.lua), leases (leases.lua). The leader's other methods are grouped by subject:
--- taking.lua (submit, cancel), hearing.lua (reports of executors), ending.lua (results), asking.lua (queries), holding.lua
--- (cordon and drain).
---
--- Effects follow apply: the effects of a command (`effects` below) run when it is applied, whichever call proposed it and however
--- that call returned. A proposer gets the facts of its own command, or the reason for a refusal. UNKNOWN means that the command may
--- still apply; if it does, its effects run all the same.
---
--- The tier's clock counts milliseconds and never goes back, not even over leaderships. A leadership reads the wall clock once and
--- then adds monotonic time. Commands carry this clock, so that time limits and retention continue under a new leader.
local attempts = require "shoal.job.attempts"
local errors = require "shoal.base.errors"
local executors = require "shoal.job.executors"
local leases = require "shoal.job.leases"
local ledger = require "shoal.job.ledger"
local log = require "shoal.base.log"
local placing = require "shoal.job.placing"
local results = require "shoal.job.results"
local sorted = require "shoal.base.sorted"
local suspects = require "shoal.job.suspects"
local task = require "shoal.base.task"
local telling = require "shoal.job.telling"
local tenure = require "shoal.tier.tenure"
local tier = require "shoal.tier.single"

log.event("lead.moved", { "job", "part", "executor", "attempt", "again" })

local lead = {}
lead.__index = lead
lead.FINAL = ledger.FINAL

local PROPOSE_MS = 5000
local LOOK_MS = 1000
local YOUNG_HEARTBEATS = 3

--- Limits of a leader (job/README.md has them in one table); each leader has its own copy.
lead.limits = {
  runs = 10000,          -- Runs that are not over.
  run_bytes = 128 << 20, -- Bytes of their specs: a snapshot holds them all.
  ended_kept = 20000,    -- Ended runs older than KEY_MS that are kept ...
  ended = 100000,        -- ... and ended runs in all: at this number, submissions are refused.
  inline = 256 << 10,    -- Bytes of small results in memory; beyond it, older ones move to one file.
  watchers = 4096,       -- Watching clients, over all jobs.
}

---@class LeadOptions
---@field tier "gates"|"managers"
---@field part_name fun(entry: table, workflow: string, index: integer, share: table): string
---@field keys fun(body: table): string[]  the keys of runs that a message may be about
---@field placement table  scripts/policies/placement.lua's half for this role: `accepts`, `split` and `choose`
---@field retry table      scripts/policies/retry.lua
---@field claims boolean whether parts hold cores of an executor (false: a datacenter queues by itself)
---@field reports? table   shoal.reports: where progress and results of dispatched runs go
---@field sign_of? fun(executor: string): number, number  how many ms ago its machine gave a sign of life, and how often it does; without it,
---  executors are members of this node's group
---@field held? table      run/leases.lua: the leases of dispatched runs, which a higher tier granted
---@field silent_ms integer  a part without progress for this long is lost
---@field gone_ms? integer  in which a lost executor is noticed, where that is not membership's to do
---@field retention_ms integer  how long a finished job is kept
---@field retention_bytes? integer  how many bytes of results are kept

--- Open the leader: replay the tier's log, and resume the runs in it. Waits; call it in a task.
---@param node table
---@param options LeadOptions
---@return table? lead, string? err, string? code
function lead.open(node, options)
  local directory = node.config.data .. "/" .. options.tier
  local self = setmetatable({
    node = node, options = options, scope = task.scope("lead", node.scope), ledger = ledger.new(), runs = {}, executors = executors.new(),
    fence = 0, progress_seen = 0, progress_level = "none", old_feeds = {}, decoded = {}, forgetting = {}, watching = { count = 0 },
    moved_to = 1,
    limits = {},
  }, lead)
  for name, value in sorted(lead.limits) do self.limits[name] = value end
  function self.load_of(name) return self.ledger:load(name) end
  function self.hold_of(name) return self.ledger:hold_of(name) end
  self.standing_of, self.took = nil, nil -- A gate sets these: how a datacenter stands, and that it got a part (eviction.lua).
  local err, code
  self.results, err, code = results.open(node, directory .. "/results")
  if not self.results then return nil, err, code end
  self.tier, err, code = tier.open(node, {
    name = options.tier, directory = directory,
    apply = function (index, command)
      local facts = self.ledger:apply(index, command)
      if self.fence > 0 then self:act(facts) end
      return facts
    end,
    snapshot = function () return self.ledger:snapshot() end,
    restore = function (bytes) self.ledger:restore(bytes) end,
    on_lead = function (index) self:on_lead(index) end,
    on_lose = function () self:on_lose() end,
  })
  if not self.tier then return nil, err, code end
  self.stop_hearing = node.rpc:watch(function (peer, event)
    if event ~= "down" then return end
    for _, run in sorted(self.runs) do self:stop_watching(run, peer) end
    for _, run in ipairs(self.old_feeds) do self:stop_watching(run, peer) end
  end)
  self.scope:loop("lead.level_loop", {}, { interval_ms = LOOK_MS }, function () self:measure() end)
  return self
end
-- Leadership -----------------------------------------------------------------------------------------------------------

--- Milliseconds of the tier's clock.
---@return integer
function lead:clock_ms() return self.base_ms + math.floor(task.now_ms() - self.led_ms) end

--- This node leads now, with a fence above that of every earlier leadership: resume the live runs.
function lead:on_lead(index)
  self.fence, self.led_ms = index, task.now_ms()
  self.base_ms = math.max(self.ledger.clock_ms, self.node.world:wall_ns() // 1000000)
  self.term = task.scope("term", self.scope)
  self.suspects = suspects.open(self, self.term)
  self.leases = leases.open(self, self.term)
  self.placing, self.attempts = placing.open(self, self.term), attempts.open(self, self.term)
  self.telling = telling.open(self, self.term)
  self:keep_mending()
  self.executors:ask_again()
  for _, entry in ipairs(self.ledger:list()) do -- Each by itself: a run that cannot be resumed must not block the others.
    local ok, incident = errors.call("lead.run", { job = entry.job }, self.start, self, entry, true)
    if not ok then self:give_up(entry.run, "it could not be taken up again: " .. incident.message) end
  end
  local named = {}
  for key in sorted(self.ledger.past) do
    local entry = self.ledger:ended_run(key)
    if entry.file then named[entry.file.name] = true end
    if entry.upstream then
      self:hold_share(entry, true)
      self:hand_over(entry)
    end
  end
  self.results:sweep(named)
  self.term:loop("lead.forget", { job = "any" }, { interval_ms = LOOK_MS }, function () self:keep_house() end)
  for _, e in sorted(self.executors.byname) do self:ask(e) end
end

--- This node no longer leads: destroy the volatile state. The ledger stays; executors keep working for the next leader.
function lead:on_lose()
  self.fence = 0
  self.suspects:close()
  self.term:close()
  self.leases:close()
  if self.options.held then self.options.held:drop_all() end -- The higher tier gives them to one that leads.
  self.runs, self.old_feeds, self.forgetting, self.watching = {}, {}, {}, { count = 0 }
  self.placing, self.attempts, self.telling, self.leases, self.suspects = nil, nil, nil, nil, nil
end

--- Put a command through the tier.
---@param command table
---@return table? facts  the facts of applying it (`stale`: it changed nothing; `answer`: for its proposer)
---@return string? err
---@return string? code  "UNKNOWN": it may still apply
function lead:propose(command)
  if self.fence == 0 then return self:not_leading() end
  command.at_ms = self:clock_ms()
  local hooked = telling.mask(self.node)
  if hooked ~= 0 then command.tell = hooked end
  local index, facts, code = self.tier:propose(ledger.encode(command), PROPOSE_MS)
  if not index then return nil, facts, code end
  return facts
end

function lead:not_leading()
  local why = self.tier.why
  return nil, ("%s does not lead %s%s"):format(self.node.name, self.options.tier, why and ": " .. why or " (yet)"), "NOT_LEADER"
end

--- Whether this leadership has just begun, so that executors may not have had time to register.
function lead:young()
  return task.now_ms() - self.led_ms < YOUNG_HEARTBEATS * self.node.config.heartbeat_ms
end

--- Whether this job has a run here that is not over.
function lead:has_live(job)
  for _, key in ipairs(self.ledger:of_job(job)) do
    if self.ledger.runs[key] then return true end
  end
  return false
end

--- How long after the start of a leadership an executor with parts may stay silent.
function lead:grace_ms() return tenure.return_ms(self.node.config, self.options.gone_ms) end

local function is_boolean(answer) return type(answer) == "boolean", ("a %s; expected true or false"):format(type(answer)) end

--- Ask the retry policy whether this part may run again. The ledger has its own limit.
---@param how "lost"|"failed"|"refused"
---@param progress? table  of this attempt: a tier below counts its executions in it
---@return boolean
function lead:again(run, part, how, progress)
  if not run or not part then return false end
  local executions = part.executions + (how == "refused" and 0 or math.max(1, progress and progress.executions or 1))
  return errors.policy("retry", self.options.retry.again, {
    ids = { job = run.job, part = part.part }, check = is_boolean, fallback = how ~= "failed",
  }, {
    part = part.part, workflow = part.workflow, share = part.share, history = part.history, executions = executions,
    retries = part.retries,
  }, run:view(part.workflow), how, self.options.tier)
end

-- Effects of applied commands ------------------------------------------------------------------------------------------

local effects = {}

function effects.run_created(self, fact)
  self:start(self.ledger.runs[fact.run], false)
end

function effects.run_led() end -- leases.lua acts on it, whichever way it came.

function effects.run_split(self, fact, facts)
  local except = {}
  for _, other in ipairs(facts) do
    if other.kind == "part_unplaced" and other.run == fact.run then except[other.part] = true end
  end
  self.placing:was_cut(fact.run, fact.workflow, except)
  local run = self.runs[fact.run]
  if run then run:wake() end
end

function effects.part_dispatched(self, fact)
  local run, entry = self.runs[fact.run], self.ledger.runs[fact.run]
  if not run then return end
  self.attempts:begin(run, entry, entry.parts[fact.part])
  run:stats_changed(fact.part)
end

function effects.part_unplaced(self, fact)
  local entry = self.ledger.runs[fact.run]
  local part = entry and entry.parts[fact.part]
  if self.runs[fact.run] and part and part.state == "pending" then self.placing:again(fact.run, part) end
end

--- An attempt is over: its cores are free, and its part is ready again or ended.
local function attempt_over(self, fact)
  local run, entry = self.runs[fact.run], self.ledger.runs[fact.run]
  self.attempts:over(fact.run, fact.part, fact.fence)
  self.placing:wake()
  if not run or not entry then return end -- This command ended the run too.
  run:stats_changed(fact.part)
  local part = entry.parts[fact.part]
  if fact.again then
    self.placing:again(fact.run, part, fact.state == "declined")
  elseif entry.work[part.workflow].open == 0 then
    run:wake()
  end
end

function effects.part_lost(self, fact)
  local entry = self.ledger.runs[fact.run]
  local part = entry.parts[fact.part]
  local executor = self.executors:get(fact.executor)
  if fact.state == "declined" then
    self.placing:declined(fact.run, part, fact.executor, fact.reason)
    return attempt_over(self, fact)
  end
  if fact.moved then -- As an operator asked.
    log.info("lead.moved", { job = entry.job, part = fact.part, executor = fact.executor, attempt = part.attempt, again = fact.again })
  else
    errors.report("lead.attempt_lost", {
      job = entry.job, workflow = part.workflow, part = fact.part, attempt = part.attempt, executor = fact.executor, fence = fact.fence,
      requests = part.counts and part.counts.lost or 0, retry = fact.again,
    }, fact.reason, fact.state == "lost" and "LOST" or "REFUSED")
  end
  if fact.still_there and executor and executor.state ~= "down" then
    self.attempts:cancel_stray({ job = entry.job, part = fact.part, fence = fact.fence }, fact.executor, executor.address,
      "the attempt was given up: " .. fact.reason)
  end
  attempt_over(self, fact)
  if executor and executor.state == "down" then self.attempts:gone() end
end

function effects.part_ended(self, fact) attempt_over(self, fact) end

function effects.run_cancelling(self, fact)
  local run = self.runs[fact.run]
  self.placing:forget(fact.run)
  if not run then return end
  run.feed:push("status", { state = "cancelling", reason = fact.reason, at_ms = run:elapsed_ms() })
  for _, a in sorted(self.attempts:of_run(fact.run)) do self.attempts:cancel(a, fact.reason) end
  run:wake()
end

function effects.run_finished(self, fact) self:close_run(self.ledger:ended_run(fact.run)) end

--- An executor may get parts again, or none any more.
function effects.executor_held(self)
  self.executors.version = self.executors.version + 1
  self.placing:wake()
  self.attempts:gone()
end

function effects.run_forgotten(self, fact)
  self.results:remove(fact.file)
  self:drop_feed(fact.run)
end

function effects.result_dropped(self, fact) self.results:remove(fact.file) end

--- A result file that no run needs any more.
function effects.results_moved(self, fact)
  if not self.ledger.files[fact.file] then self.results:remove(fact.file) end
end

--- Run the effects of the facts, each by itself: an error in one does not stop the others, and its run is put right (mending.lua).
function lead:act(facts)
  for _, fact in ipairs(facts) do
    local ok = errors.call("lead.fact", function () return { job = fact.run, fact = fact.kind } end, effects[fact.kind], self, fact, facts)
    if not ok then self:doubt(fact.run) end
  end
  if self.ledger.outbox.last > self.telling.seen then
    errors.call("lead.fact", { job = "any", fact = "told" }, self.telling.look, self.telling)
  end
end

--- The executors that are up and not held, with their free cores: plain copies.
function lead:up_executors()
  return self.executors:list(self.load_of, self.hold_of, self.standing_of)
end

--- All executors, for display.
function lead:all_executors()
  return self.executors:all(self.load_of, self.hold_of, self.standing_of)
end

--- What executors can get is not what it was: their reachability, health or level changed.
function lead:standing_changed()
  self.executors.version = self.executors.version + 1
  if self.placing then self.placing:wake() end
end

require "shoal.job.taking" (lead)
require "shoal.job.hearing" (lead)
require "shoal.job.ending" (lead)
require "shoal.job.asking" (lead)
require "shoal.job.holding" (lead)
require "shoal.job.mending" (lead)

function lead:close()
  self.stop_hearing()
  if self.suspects then self.suspects:close() end
  self.scope:close()
  if self.leases then self.leases:close() end
  self.tier:close()
end

return lead
