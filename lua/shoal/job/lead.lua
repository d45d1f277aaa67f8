--- lead: one leader of jobs, for a gate and a manager alike.
---
--- A gate is a leader whose executors are datacenters, a manager one whose executors are workers; the messages are the same on
--- both hops. What must not be lost stands in the ledger (ledger.lua), fed by the tier. What may be lost stands in objects that a
--- leadership makes and its end takes down: drivers of runs (driver.lua), placing (placing.lua), attempts (attempts.lua).
---
--- Effects follow apply: whatever a command brings about happens because it was applied (`effects` below), whoever proposed it and
--- whatever became of that call. A proposer learns the facts of its own command, or why it was refused; UNKNOWN means that it may
--- yet apply, and then the facts come all the same.
---
--- The tier's clock: milliseconds that never go back over leaderships. A leadership reads the wall clock once and counts on with
--- its monotonic one; commands carry it, so that time limits and retention go on under a new leader.
local attempts = require "shoal.job.attempts"
local driver = require "shoal.job.driver"
local errors = require "shoal.base.errors"
local executors = require "shoal.job.executors"
local feed = require "shoal.job.feed"
local job = require "shoal.job.spec"
local ledger = require "shoal.job.ledger"
local log = require "shoal.base.log"
local outcome = require "shoal.job.outcome"
local placing = require "shoal.job.placing"
local results = require "shoal.job.results"
local sorted = require "shoal.base.sorted"
local stats = require "shoal.job.stats"
local tally = require "shoal.job.tally"
local task = require "shoal.base.task"
local tier = require "shoal.tier.single"
local backoff = require "shoal.base.backoff"

local lead = {}
lead.__index = lead
lead.FINAL = ledger.FINAL

local PROPOSE_MS = 5000
local LOOK_MS = 1000
local YOUNG_HEARTBEATS = 3
local REDIAL_MS = 30000         -- The longest wait of the transport between two tries to connect.
local FORGET_MS = 200           -- Runs that a higher tier has taken are forgotten together.
local FORGET_MOST = 500
local EXPIRE_MOST = 500         -- Runs that one command forgets.
local KEY_MS = 300000           -- An idempotency key is kept at least this long after the answer, whatever the room.
local FEEDS_MAX = 64            -- Feeds of ended runs that are kept for clients that come back a moment later.
local REPLAY_FROM = 1 << 19     -- A replayed answer has numbers above all that a live feed of this leadership has given.
local AGAIN_MS = 1000           -- When to try again after a refusal for room.
local LIST_MAX = 2000           -- Jobs in one answer, the newest.

--- Limits of a leader (job/README.md has them in one table); each leader has its own copy.
lead.limits = {
  runs = 10000,          -- Runs that are not over.
  run_bytes = 128 << 20, -- Their specs: a snapshot holds them all.
  ended_kept = 20000,    -- Ended runs that are kept once they are older than KEY_MS ...
  ended = 100000,        -- ... and at all: no more are taken in.
  watchers = 4096,       -- Clients that events are pushed to, over all jobs.
}

---@class LeadOptions
---@field tier "gates"|"managers"
---@field part_name fun(entry: table, workflow: string, index: integer, share: table): string
---@field keys fun(body: table): string[]  the keys of runs that a message may be about
---@field placement table  scripts/policies/placement.lua's half for this role: `accepts`, `split` and `choose`
---@field retry table      scripts/policies/retry.lua
---@field claims boolean whether parts take cores of an executor (a datacenter queues by itself)
---@field reports? table   shoal.reports: where progress and results of dispatched runs go
---@field silent_ms integer  a part without a word for this long is lost
---@field retention_ms integer  how long a finished job can be asked for
---@field retention_bytes? integer  how many bytes of results are kept

--- Open the leader: replay the tier's log, and take up what was under way. Waits; call it in a task.
---@param node table
---@param options LeadOptions
---@return table? lead, string? err, string? code
function lead.open(node, options)
  local directory = node.config.data .. "/" .. options.tier
  local self = setmetatable({
    node = node, options = options, scope = task.scope("lead", node.scope), ledger = ledger.new(), runs = {}, executors = executors.new(),
    fence = 0, progress_seen = 0, progress_level = "none", old_feeds = {}, decoded = {}, forgetting = {}, watching = { count = 0 },
    limits = {},
  }, lead)
  for name, value in sorted(lead.limits) do self.limits[name] = value end
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
  end)
  self.scope:loop("lead.level_loop", {}, { interval_ms = LOOK_MS }, function () self:measure() end)
  return self
end

-- Leadership -----------------------------------------------------------------------------------------------------------

--- Milliseconds of the tier's clock.
---@return integer
function lead:clock_ms() return self.base_ms + math.floor(task.now_ms() - self.led_ms) end

--- This node leads, under a fence above that of every leadership before: take up what was under way.
function lead:on_lead(index)
  self.fence, self.led_ms = index, task.now_ms()
  self.base_ms = math.max(self.ledger.clock_ms, self.node.world:wall_ns() // 1000000)
  self.term = task.scope("term", self.scope)
  self.placing, self.attempts = placing.open(self, self.term), attempts.open(self, self.term)
  self.executors:ask_again()
  for _, entry in ipairs(self.ledger:list()) do -- Each by itself: one that cannot be taken up again must not keep the others.
    local ok, incident = errors.call("lead.run", { job = entry.job }, self.start, self, entry, true)
    if not ok then self:give_up(entry.run, "it could not be taken up again: " .. incident.message) end
  end
  local named = {}
  for key in sorted(self.ledger.past) do
    local entry = self.ledger:ended_run(key)
    if entry.file then named[entry.file.name] = true end
    if entry.upstream then self:hand_over(entry) end
  end
  self.results:sweep(named)
  self.term:loop("lead.forget", { job = "any" }, { interval_ms = LOOK_MS }, function () self:keep_house() end)
  for _, e in sorted(self.executors.byname) do self:ask(e) end
end

--- Another leads now, or nobody: all that is volatile goes. The ledger stays; executors work on for the next leader.
function lead:on_lose()
  self.fence = 0
  self.term:close()
  self.runs, self.old_feeds, self.forgetting, self.watching = {}, {}, {}, { count = 0 }
  self.placing, self.attempts = nil, nil
end

--- Put a command through the tier.
---@param command table
---@return table? facts  what it brought about (`stale`: nothing; `answer`: for its proposer)
---@return string? err
---@return string? code  "UNKNOWN": it may yet apply
function lead:propose(command)
  if self.fence == 0 then return self:not_leading() end
  command.at_ms = self:clock_ms()
  local index, facts, code = self.tier:propose(ledger.encode(command), PROPOSE_MS)
  if not index then return nil, facts, code end
  return facts
end

function lead:not_leading()
  return nil, self.node.name .. " does not lead " .. self.options.tier .. " (yet)", "NOT_LEADER"
end

--- Has it only just begun to lead? Then executors that are missing may not have had the time to say that they are there.
function lead:young()
  return task.now_ms() - self.led_ms < YOUNG_HEARTBEATS * self.node.config.heartbeat_ms
end

--- How long an executor that has parts may stay unheard of after a leadership began: it is judged as any silent one, and before
--- that it may wait for its next try to connect.
function lead:grace_ms() return REDIAL_MS + self.node.config.dc_silent_ms + 2 * self.node.config.heartbeat_ms end

local function is_boolean(answer) return type(answer) == "boolean", ("a %s; expected true or false"):format(type(answer)) end

--- May this attempt be made again, says the policy? The ledger has its own limit.
---@param how "lost"|"failed"|"refused"
---@return boolean
function lead:again(run, part, how)
  if not run or not part then return false end
  return errors.policy("retry", self.options.retry.again, {
    ids = { job = run.job, part = part.part }, check = is_boolean, fallback = how ~= "failed",
  }, {
    part = part.part, workflow = part.workflow, share = part.share, history = part.history, executions = part.executions,
  }, run:view(part.workflow), how, self.options.tier)
end

-- Effects of what was applied ------------------------------------------------------------------------------------------

local effects = {}

function effects.run_created(self, fact)
  self:start(self.ledger.runs[fact.run], false)
end

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

--- An attempt is over: its cores are free, its part ready again, or its workflow a step nearer to its end.
local function attempt_over(self, fact)
  local run, entry = self.runs[fact.run], self.ledger.runs[fact.run]
  self.attempts:over(fact.run, fact.part, fact.fence)
  self.placing:wake()
  if not run or not entry then return end -- Ended with this very command.
  run:stats_changed(fact.part)
  local part = entry.parts[fact.part]
  if fact.again then
    self.placing:again(fact.run, part)
  elseif entry.work[part.workflow].open == 0 then
    run:wake()
  end
end

function effects.part_lost(self, fact)
  local entry = self.ledger.runs[fact.run]
  local part = entry.parts[fact.part]
  local executor = self.executors:get(fact.executor)
  errors.report("lead.attempt_lost", {
    job = entry.job, workflow = part.workflow, part = fact.part, attempt = part.attempt, executor = fact.executor, fence = fact.fence,
    requests = part.counts and part.counts.lost or 0, retry = fact.again,
  }, fact.reason, fact.state == "lost" and "LOST" or "REFUSED")
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

function effects.run_forgotten(self, fact)
  self.results:remove(fact.file)
  self:drop_feed(fact.run)
end

function effects.result_dropped(self, fact) self.results:remove(fact.file) end

--- What was applied has its effects, each by itself.
function lead:act(facts)
  for _, fact in ipairs(facts) do
    errors.call("lead.fact", function () return { job = fact.run, fact = fact.kind } end, effects[fact.kind], self, fact, facts)
  end
end

-- Intake ---------------------------------------------------------------------------------------------------------------

--- Is there room for one more run? Then nothing; else why not.
local function no_room(self, bytes)
  local limits = self.limits
  if #self.ledger.ended >= limits.ended then
    return ("%s keeps the answers of %d jobs that ended in the last minutes, as many as it can; try again in %d ms"):format(self.node.name,
      #self.ledger.ended, AGAIN_MS)
  end
  if self.ledger.live >= limits.runs or self.ledger.live_bytes + bytes > limits.run_bytes then
    return ("%s leads %d jobs of %d bytes already, at most %d of %d are taken; try again in %d ms"):format(self.node.name, self.ledger.live,
      self.ledger.live_bytes, limits.runs, limits.run_bytes, AGAIN_MS)
  end
end

--- A client's job. Answers { job, duplicate }, or a refusal.
function lead:submit(body)
  if self.fence == 0 then return self:not_leading() end
  local spec, problems, class = job.decode(body.spec)
  if not spec then return nil, problems, class end
  local asked = self.ledger:of_key(body.key)
  if asked then return { job = asked.job, duplicate = true } end
  local full = no_room(self, #body.spec)
  if full then return nil, full, "OVERLOADED" end
  local reachable, why, code = self.options.placement.accepts(spec, self:all_executors())
  if not reachable then return nil, why, code or self:young() and "NOT_READY" or "CONFIG" end
  local facts, err
  facts, err, code = self:create({
    kind = "create", run = "", job = "", key = body.key, name = spec.name, salt = ("%04x"):format(self.node.world:random(65536) - 1),
    spec = body.spec, timeout_ms = spec.timeout_ms,
  }, spec)
  if not facts then return nil, err, code end
  return { job = facts.answer.run, duplicate = facts.answer.duplicate }
end

--- Create a run; its first parts are placed with the same command where nobody waits before them.
function lead:create(command, spec)
  command.place = self.placing:plan(command, spec)
  self.decoded[command.spec] = spec -- Its driver need not read it again.
  local facts, err, code = self:propose(command)
  self.decoded[command.spec] = nil
  return facts, err, code
end

--- A higher tier's dispatch of one workflow's share: a run of one workflow. The same dispatch again gives the same answer.
function lead:take(body)
  if self.fence == 0 then return self:not_leading() end
  local key = body.job .. "|" .. body.part
  local known = self.ledger:run(key)
  if known then
    if body.fence == known.upstream.fence then return { state = "accepted" } end
    if body.fence < known.upstream.fence then
      return nil, ("fence %d is older than %d"):format(body.fence, known.upstream.fence), "STALE"
    end
    if not ledger.FINAL[known.state] then
      local _, err, code = self:cancel(key, "a newer attempt was dispatched")
      return nil, "an earlier attempt of this part is still being ended here" .. (err and ": " .. err or ""), code or "OVERLOADED"
    end
    -- It has ended, and the higher tier has given it up: its result counts nowhere any more.
    local gone, err, code = self:propose { kind = "forget", runs = { { run = key, index = known.index } } }
    if not gone then return nil, err, code end
  end
  local full = no_room(self, #body.payload)
  if full then return nil, full, "OVERLOADED" end
  local spec, err = job.of_dispatch(body)
  if not spec then return nil, err, "MALFORMED" end
  local facts, problem, code = self:create({
    kind = "create", run = key, job = body.job, key = "", name = spec.name, salt = "", spec = job.encode(spec), timeout_ms = spec.timeout_ms,
    upstream = {
      address = body.leader, name = body.leader_name, part = body.part, workflow = body.workflow, attempt = body.attempt, fence = body.fence,
    },
  }, spec)
  if not facts then return nil, problem, code end
  return { state = "accepted" }
end

---@param entry table
---@param again boolean  it was begun under an earlier leadership
function lead:start(entry, again)
  if self.runs[entry.run] then return end
  local run = driver.start(self, entry, again, self.decoded[entry.spec])
  self.runs[entry.run] = run
  for name in sorted(entry.split) do run.wanted[name] = true end
  if not again then return end -- What was placed with it has facts of its own.
  for name, names in sorted(entry.split) do
    for _, part_name in ipairs(names) do
      local part = entry.parts[part_name]
      if part.state == "dispatched" then
        self.attempts:find(run, entry, part)
      elseif part.state == "pending" and part.attempt > 0 then
        self.placing:again(entry.run, part)
      end
    end
    local except = {}
    for _, part_name in ipairs(names) do except[part_name] = entry.parts[part_name].attempt > 0 or nil end
    self.placing:was_cut(entry.run, name, except)
  end
  if entry.state == "cancelling" then
    for _, a in sorted(self.attempts:of_run(entry.run)) do self.attempts:cancel(a, entry.reason) end
  end
end

--- Begin to end a run before its work is done. Idempotent.
---@param state "cancelled"|"timed_out"
---@return string? state  the run's now
function lead:stop_run(key, reason, state)
  local facts, err, code = self:propose { kind = "cancel", run = key, reason = reason, state = state }
  if not facts then return nil, err, code end
  if facts.answer then return facts.answer.state end
  local entry = self.ledger:run(key)
  return entry and entry.state or "unknown"
end

--- A client's or a higher tier's cancel. Answers the state now; a job that has ended keeps its answer.
function lead:cancel(key, reason)
  local entry = self.ledger:run(key)
  if not entry then return nil, "no job " .. key .. " here", "NOT_FOUND" end
  if ledger.FINAL[entry.state] then return { state = entry.state } end
  local state, err, code = self:stop_run(key, reason, "cancelled")
  if not state then return nil, err, code end
  return { state = state }
end

--- A higher tier ends one attempt that it dispatched here.
function lead:end_part(body)
  local key = body.job .. "|" .. body.part
  local entry = self.ledger:run(key)
  if not entry or entry.upstream.fence > body.fence then return { state = "unknown" } end
  local done, err, code = self:cancel(key, body.reason)
  if not done then return nil, err, code end
  return { state = "cancelling" } -- Its result follows, also when it had ended just before.
end

--- The higher tier does not know this attempt of ours, or it counts no more: end it.
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
  local all = self.ledger:list()
  for key in sorted(self.ledger.handing) do all[#all + 1] = self.ledger:ended_run(key) end
  for _, entry in ipairs(all) do
    local up = entry.upstream
    if up then parts[#parts + 1] = { job = entry.job, part = up.part, fence = up.fence, attempt = up.attempt } end
  end
  return parts
end

--- The leader of this job, as far as this node knows.
function lead:who(body)
  if self.fence > 0 then
    for _, key in ipairs(self.ledger:of_job(body.job)) do
      if self.ledger.runs[key] then return { node = self.node.name, address = self.node.address } end
    end
  end
  return { node = "", address = "" }
end

--- A run that nobody can drive ends all the same, as failed.
function lead:give_up(key, reason)
  self.term:spawn("lead.run", { job = key }, function ()
    local wait = backoff.new(self.node.world, { base_ms = 500, cap_ms = 5000 })
    while true do
      local entry, run = self.ledger.runs[key], self.runs[key]
      if not entry then return end
      local state = entry.state == "cancelling" and entry.ends_as or "failed"
      local facts, err, code = self:propose {
        kind = "finish", run = key, state = state, reason = reason, gave_up = true,
        result = outcome.small(entry, state, reason, self.node.name, run and run:elapsed_ms() or 0, reason),
      }
      if facts then return end
      errors.report("lead.run", { job = entry.job }, "the run is given up: " .. err, code)
      task.sleep(wait:next())
    end
  end)
end

-- What executors say ---------------------------------------------------------------------------------------------------

--- The run that a message of an executor is about.
---@return string? key, table? entry
function lead:find_run(body)
  for _, key in ipairs(self.options.keys(body)) do
    local entry = self.ledger.runs[key]
    if entry and entry.parts[body.part] then return key, entry end
  end
  for _, key in ipairs(self.options.keys(body)) do
    local entry = self.ledger:run(key)
    if entry then return key, entry end
  end
end

--- Progress of attempts: newest per attempt wins. Answers the ack, which names those that this node does not know, and those
--- that count no more.
function lead:progress(body)
  if self.fence == 0 then return self:not_leading() end
  local unknown, stop, now = {}, {}, task.now_ms()
  self.progress_seen = self.progress_seen + #body.parts
  for i, item in ipairs(body.parts) do
    local key, entry = self:find_run(item)
    if not key then
      unknown[#unknown + 1] = i
    elseif not entry.parts or not self.attempts:hear(key, item) then
      stop[#stop + 1] = i
    else
      local run = self.runs[key]
      run:stats_changed(item.part)
    end
  end
  self.heard_ms = now
  return attempts.ack(self, self.progress_level, unknown, stop)
end

--- A part's result. Answered only when it is durable; one that no longer counts is answered too, so that it is dropped there.
function lead:result(body)
  if self.fence == 0 then return self:not_leading() end
  local key, entry = self:find_run(body)
  if not key then return { accepted = false, stale = true } end
  local part = entry.parts and entry.parts[body.part]
  if not part or part.fence ~= body.fence or part.state ~= "dispatched" then return { accepted = true, stale = true } end
  local readable, problem, word = stats.readable(body.result)
  if not readable then
    errors.report("lead.result", { job = body.job, workflow = body.workflow, part = body.part, payload_bytes = #body.result }, problem, word)
    return nil, problem, word
  end
  local run = self.runs[key]
  local command
  local free <close> = setmetatable({}, { __close = function () tally.judged(body.result, nil) end })
  tally.judged(body.result, readable)
  if body.state == "lost" or body.state == "cancelled" and entry.state == "running" then
    -- Its child was killed, or (we did not request a cancel) its executor is shutting down: the attempt is lost, not failed by its own word.
    command = { kind = "lost", parts = { {
      run = key, part = body.part, fence = body.fence, state = "lost", reason = body.reason or "", progress = body.stats,
      retry = self:again(run, part, "lost"),
    } } }
  else
    command = {
      kind = "ended", run = key, part = body.part, fence = body.fence, state = body.state, reason = body.reason, result = body.result,
      progress = body.stats, retry = body.state == "failed" and self:again(run, part, "failed"),
    }
    if run then -- Where no answer can be made of it now, the driver has its own tries.
      local ok, finish = errors.call("lead.run", { job = run.job }, run.finish_with, run, entry, command)
      command.finish = ok and finish or nil
    end
  end
  local facts, err, code = self:propose(command)
  if not facts then return nil, err, code end
  return { accepted = true, stale = facts.stale or false }
end

--- Heard of an executor: ask it what it runs, adopt what counts, end what does not; then it is up.
function lead:hear(name, address, cores, generation)
  local e, ask = self.executors:hear(name, address, cores, generation)
  if ask then self:ask(e) end
  return e
end

--- Tell an executor who leads, and hear what it runs; up when it answered. As long as it is not down somebody hears it, so it is
--- asked for as long.
local function ask(self, e)
  local wait = backoff.new(self.node.world, { base_ms = 100, cap_ms = 5000 })
  while self.fence > 0 and e.state == "known" do
    local epoch = e.epoch
    local reply, err, code = self.node.rpc:peer(e.address):call("lead", {
      tier = self.options.tier, fence = self.fence, node = self.node.name, address = self.node.address,
    }, { timeout_ms = 3000 })
    if e.state ~= "known" then return end
    if reply and e.epoch == epoch then
      e.cores = reply.cores
      self.attempts:reconcile(e, reply.parts)
      self.executors:up(e)
      self.placing:wake()
      return
    end
    if not reply then errors.report("lead.ask", { executor = e.name, address = e.address }, err, code) end
    if e.epoch == epoch then task.sleep(wait:next()) end -- An answer of an earlier life: ask the new one now.
  end
end

function lead:ask(e)
  if e.asking or self.fence == 0 or e.state ~= "known" then return end
  e.asking = true
  self.term:spawn("lead.ask", { executor = e.name, address = e.address }, function ()
    local free <close> = setmetatable({}, { __close = function () e.asking = false end })
    ask(self, e)
  end)
end

--- An executor is dead, left or silent: the reconcile step loses each of its attempts, for as long as that takes.
function lead:gone(name, reason)
  if not self.executors:down(name, reason) then return end
  if self.attempts then self.attempts:gone() else self.executors:remove(name) end
end

--- The level that acks carry: how full this second was of progress, against what a leader takes. It falls by itself.
function lead:measure()
  local fill = self.progress_seen / self.node.config.progress_per_s
  self.progress_seen = 0
  self.progress_level = fill >= 0.95 and "reject" or fill >= 0.85 and "batch" or fill >= 0.70 and "throttle" or "none"
end

-- The end --------------------------------------------------------------------------------------------------------------

--- The run has its final state: tell it, as it was stored, and let go of what was volatile.
function lead:close_run(entry)
  local run = self.runs[entry.run]
  self.placing:forget(entry.run)
  self.attempts:forget(entry.run)
  if run then
    run.over = true
    run.wake_up:push(true) -- dropped: full means awake
    self.runs[entry.run] = nil
    if entry.upstream then
      run.feed:drop()
    else
      self:tell_end(run, entry)
    end
  end
  if entry.upstream then self:hand_over(entry) end
end

--- The answer as people get it; also where it cannot be read any more.
function lead:answer_of(entry)
  local bytes, err = self.results:read(entry)
  local result
  if bytes then result, err = outcome.decode(bytes) end
  return result or outcome.decode(outcome.small(entry, entry.state, entry.reason, self.node.name, 0, err))
end

function lead:tell_end(run, entry)
  local at_ms, answer = math.max(0, entry.ended_ms - entry.started_ms), self:answer_of(entry)
  for _, w in ipairs(answer.workflows or {}) do -- Where the run ended with its last part, nothing has told this yet.
    if run.told[w.workflow] ~= w.state then
      local state = entry.state == "timed_out" and "cancelling" or "running"
      run.feed:push("status", { state = state, workflow = w.workflow, workflow_state = w.state, at_ms = at_ms })
    end
  end
  run.feed:push("result", { workflow = "", result = answer }, entry.result ~= nil)
  run.feed:push("status", { state = entry.state, reason = entry.reason, at_ms = at_ms })
  run.feed:close()
  self.old_feeds[#self.old_feeds + 1] = run
  if #self.old_feeds > FEEDS_MAX then self:drop_feed(self.old_feeds[1].key) end
end

--- Clients that were slow ask again, and get the answer from what is stored.
function lead:drop_feed(key)
  for i, run in ipairs(self.old_feeds) do
    if run.key == key then
      table.remove(self.old_feeds, i)
      run.feed:drop()
      return
    end
  end
end

--- The higher tier gets the result until it has accepted it; then nothing of the run is kept here.
function lead:hand_over(entry)
  local up, index = entry.upstream, entry.index
  local bytes, err = self.results:read(entry)
  local result = bytes and outcome.decode(bytes)
  if not result then
    bytes = outcome.small(entry, "failed", nil, self.node.name, 0, "its result could not be read again: " .. tostring(err))
    result = outcome.decode(bytes)
  end
  self.options.reports:result({
    job = entry.job, workflow = up.workflow, part = up.part, attempt = up.attempt, fence = up.fence, leader = up.address,
    state = entry.state == "timed_out" and "failed" or entry.state, reason = entry.reason, result = bytes, stats = result.totals,
  }, function () self:forget(entry.run, index) end)
end

--- The same part's next attempt may be here already, so the run is named by its index too. Nobody waits for it, so it goes with others
--- soon: a sync for each would cost more than the run did.
function lead:forget(key, index)
  if not self.term or self.fence == 0 then return end
  local list = self.forgetting
  list[#list + 1] = { run = key, index = index }
  if #list > 1 then return end
  self.term:spawn("lead.forget", { job = key }, function ()
    local wait = backoff.new(self.node.world, { base_ms = 500, cap_ms = 30000 })
    task.sleep(FORGET_MS)
    while self.forgetting[1] do
      local runs = table.move(self.forgetting, 1, math.min(FORGET_MOST, #self.forgetting), 1, {})
      local facts, err, code = self:propose { kind = "forget", runs = runs }
      if facts then
        self.forgetting = table.move(self.forgetting, #runs + 1, #self.forgetting, 1, {})
      elseif code == "NOT_LEADER" then
        return -- The next leader hands it over again.
      else
        errors.report("lead.forget", { job = runs[1].run }, err, code)
        task.sleep(wait:next())
      end
    end
  end)
end

--- Forget runs that ended before this instant, the oldest first.
function lead:expire(before_ms, most)
  local facts, err, code = self:propose { kind = "expire", before_ms = before_ms, most = most }
  if not facts then errors.report("lead.forget", { job = self.ledger.ended[1] }, err, code) end
end

--- Let go of what was kept for long enough, and of results for which there is no room.
function lead:keep_house()
  local clock_ms = self:clock_ms()
  local oldest, run
  for _, key in ipairs(self.ledger.ended) do -- The first that does not wait for a higher tier.
    oldest = key
    if not self.ledger.handing[key] then break end
  end
  run = oldest and self.ledger:ended_run(oldest)
  if oldest and (not run or not run.upstream and run.ended_ms + self.options.retention_ms < clock_ms) then
    self:expire(clock_ms - self.options.retention_ms, EXPIRE_MOST)
  elseif #self.ledger.ended > self.limits.ended_kept then
    self:expire(clock_ms - KEY_MS, math.min(EXPIRE_MOST, #self.ledger.ended - self.limits.ended_kept))
  end
  local limit = self.options.retention_bytes
  if not limit or self.ledger.result_bytes <= limit then return end
  local over = self.ledger.result_bytes - limit
  local list = {}
  for _, key in ipairs(self.ledger.ended) do
    local entry = self.ledger:ended_run(key)
    if over <= 0 or #list >= EXPIRE_MOST then break end
    if entry and not entry.upstream and entry.bytes > 0 then list[#list + 1], over = key, over - entry.bytes end
  end
  if #list == 0 then return end
  local facts, err, code = self:propose { kind = "drop", runs = list }
  if not facts then errors.report("lead.forget", { job = list[1] }, err, code) end
end

-- Questions ------------------------------------------------------------------------------------------------------------

--- Those that are up, with what is free: plain copies.
function lead:up_executors()
  return self.executors:list(function (name) return self.ledger:load(name) end)
end

--- All executors, for people.
function lead:all_executors()
  return self.executors:all(function (name) return self.ledger:load(name) end)
end

--- One job as people ask for it; nil when there is none here.
function lead:get(key)
  local entry, run = self.ledger:run(key), self.runs[key]
  if not entry then return nil end
  local out = { job = entry.run, name = entry.name, state = entry.state, reason = entry.reason or "", workflows = {} }
  if run then
    for _, name in ipairs(run.order) do
      out.workflows[#out.workflows + 1] = { workflow = name, state = run.told[name] or "waiting" }
    end
    out.elapsed_ms = run:elapsed_ms()
    local all = {}
    for name in next, entry.parts do all[name] = true end -- order-free: a set
    out.parts, out.more = outcome.by_part(entry, self.attempts:of_run(key), all)
  elseif ledger.FINAL[entry.state] then
    out.result = self:answer_of(entry)
  end
  return out
end

--- Jobs of this tier, at most LIST_MAX, the newest.
function lead:list()
  local all, out, ended = self.ledger:list(), {}, self.ledger.ended
  for i = #ended, math.max(1, #ended - LIST_MAX), -1 do all[#all + 1] = self.ledger:ended_run(ended[i]) end
  table.sort(all, function (a, b) return a.index < b.index end)
  for i = math.max(1, #all - LIST_MAX + 1), #all do
    local entry = all[i]
    out[#out + 1] = { job = entry.run, name = entry.name, state = entry.state, reason = (entry.reason or ""):sub(1, 300) }
  end
  return out
end

--- The feed of a run, live or ended a moment ago; else one with the stored answer alone.
local function feed_of(self, entry)
  local run = self.runs[entry.run]
  if run then return run.feed end
  for _, old in ipairs(self.old_feeds) do
    if old.key == entry.run then return old.feed end
  end
  local replay = { key = entry.run, job = entry.job, scope = task.scope("replay " .. entry.run, self.term) }
  replay.feed = feed.new(entry.job, replay.scope, self.fence, true, self.watching)
  replay.feed:go_on((self.fence << 20) + REPLAY_FROM)
  replay.feed:push("result", { workflow = "", result = self:answer_of(entry) }, entry.result ~= nil)
  replay.feed:push("status", { state = entry.state, reason = entry.reason, at_ms = math.max(0, entry.ended_ms - entry.started_ms) })
  replay.feed:close()
  self.old_feeds[#self.old_feeds + 1] = replay
  if #self.old_feeds > FEEDS_MAX then self:drop_feed(self.old_feeds[1].key) end
  return replay.feed
end

--- Events of a job for `peer`, pushed from a number on. A job that ended before has its answer replayed.
function lead:watch(key, peer, from)
  local entry = self.ledger:run(key)
  if not entry then return nil, "no job " .. key .. " here", "NOT_FOUND" end
  if self.fence == 0 or not self.runs[key] and not ledger.FINAL[entry.state] then
    return nil, self.node.name .. " does not lead job " .. key .. " now", "NOT_LEADER"
  end
  if self.watching.count >= self.limits.watchers then
    return nil, ("%d clients watch jobs here already; try again in %d ms"):format(self.limits.watchers, AGAIN_MS), "OVERLOADED"
  end
  local found = feed_of(self, entry)
  found:watch(peer, from)
  return { seq = found.last, state = entry.state }
end

function lead:stop_watching(run, peer)
  if run and run.feed:leave(peer) then log.info("lead.watcher_left", { job = run.job, watcher = peer:name() }) end
end

--- This peer follows the job no longer. One that never did, or a job that is gone: then there is nothing to do.
function lead:unwatch(key, peer) self:stop_watching(self.runs[key], peer) end

--- Events by poll.
function lead:events(key, from, max)
  local entry = self.ledger:run(key)
  if not entry or self.fence == 0 or not self.runs[key] and not ledger.FINAL[entry.state] then
    return nil, "no events of job " .. key .. " are kept here", "NOT_FOUND"
  end
  local found = feed_of(self, entry)
  local list, truncated = found:since(from, max)
  return { events = list, truncated_from = truncated or 0, last = found.last }
end

function lead:close()
  self.stop_hearing()
  self.scope:close()
  self.tier:close()
end

return lead
