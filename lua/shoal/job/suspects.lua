--- suspects: executors that give no sign of one job while their machine lives: layer two of the detector (member/detector.lua), as a
--- leader of jobs uses it, gate and manager alike.
---
--- Which mechanism covers what:
---   a machine dies                 SWIM; at gates, for a datacenter: probes and eviction.lua. All its parts are lost: lead:gone
---   an executor is silent for one job while its machine lives    this file. That job's parts there are lost, no others
---   an executor answers for a part that never moves              manager_silent_ms, gate_silent_ms: that part is lost (attempts.lua)
---   the right to run a part runs out                             leases
---   a child of a worker dies                                     the worker, which reports it as that part's result
---
--- A *pair* is (executor, job) with live attempts. A sign of it is progress of one of them, an accepted dispatch, or an answer about it.
---
---   heard ── ask_after_ms without a sign: ask the executor, every heartbeat [look] ──> asked
---     ^  <── it answers: this is a sign; a part that is not there is lost at once ─────  │
---     │                                                 suspect_after_ms, and no answer  v
---     ├── it moved: progress, or an answer that says so [moved] ─────────────────── suspected: other leaders of the tier are asked to ask
---     │       an answer without a move: the detector may extend (F59)                    │    it; one that gets no answer confirms
---     │                                                                                  v
---     └── it answers for the job: placement may use it for that job again ────── given up: detector.job_suspicion_expired, then
---                                                                                detector.job_death, until a hook took it
---
--- Only a machine that gives signs itself is suspected for a job: a member that membership shows as alive, a datacenter that answers probes.
---
--- A part that waits for its turn (at a datacenter) and one whose result is under way count as moved. While a pair is suspected or given
--- up, placement gives the executor nothing of that job. All of it is volatile, goes with its job, and belongs to one leadership.
local detector = require "shoal.member.detector"
local errors = require "shoal.base.errors"
local log = require "shoal.base.log"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local suspects = {}
suspects.__index = suspects

local HEARTBEATS = { ask = 2, suspect = 4, answer = 2 }
local CALM_MS = 27000     -- Parts that wait for their turn are asked about each 30 s at last.
local LEVEL_MS = 1000     -- What the highest level of backpressure adds to the flush interval.
local PROBE_MS = { ["local"] = 200, lan = 1000, wan = 5000 } -- Membership's probe interval: it has the first word.
local ANSWER_MS = 1000    -- The least time for an answer.
local WATCHED = { running = true, unheard = true }
local INERT = setmetatable({}, { __index = function () return function () end end }) -- In place of a detector that is closed.
local GIVES_UP = { running = true, unheard = true, sending = true }

log.event("detector.suspected", { "job", "executor", "silent_ms", "least_ms", "most_ms", "others" })
log.event("detector.cleared", { "job", "executor", "why", "suspected_ms", "confirmations" })
log.event("detector.expired", { "job", "executor", "incarnation", "suspected_ms", "timeout_ms", "confirmations" })
log.event("detector.answers", { "job", "executor" })

---@class SuspectPair
---@field executor string
---@field job string
---@field heard_ms number   the last sign
---@field calm_ms number    so much more time it has for a sign: its parts wait for their turn
---@field failed integer    questions without an answer since then
---@field ask_ms number     when to ask next
---@field looked_ms number  the last look that found a live attempt
---@field workflow string   of its attempts, the first by name
---@field suspected? boolean
---@field refused? boolean  the detector was full

---@class SuspectDeath  a pair that was given up
---@field executor string
---@field job string
---@field why string
---@field key string        of its delivery
---@field ask_ms number
---@field since_ms number

-- The state of each one ------------------------------------------------------------------------------------------------

--- Of a table of tables: the inner value, or nil.
local function at(of, a, b)
  local inner = of[a]
  return inner and inner[b]
end

local function put(of, a, b, value)
  local inner = of[a] or {}
  inner[b] = value
  of[a] = next(inner) ~= nil and inner or nil
end

---@return SuspectPair?
function suspects:pair(executor, job) return at(self.pairs, executor, job) end

--- The pair of a live attempt; made at its first look.
local function pair_of(self, a, now)
  local pair = at(self.pairs, a.executor, a.job)
  if not pair then
    pair = { executor = a.executor, job = a.job, heard_ms = a.seen_ms, calm_ms = 0, failed = 0, ask_ms = now }
    put(self.pairs, a.executor, a.job, pair)
  end
  return pair
end

--- Placement, the job's status and its waiting reasons know at once when a pair is suspected or given up, and when it is so no more.
local function shun(self, record)
  put(self.shunned, record.job, record.executor, record)
  self.count = self.count + 1
end

local function admit(self, record)
  if at(self.shunned, record.job, record.executor) ~= record then return end
  put(self.shunned, record.job, record.executor, nil)
  self.count = self.count - 1
  self.lead.placing:wake()
end

local function heard(pair, now)
  pair.heard_ms, pair.failed, pair.refused = math.max(pair.heard_ms, now), 0, nil
end

--- A pair that was given up is used again: the reason for its delivery is no longer true.
local function revive(self, death)
  put(self.dead, death.executor, death.job, nil)
  admit(self, death)
  errors.withdraw("detector.job_death", death.key)
end

--- All parts of a pair wait for their turn, perhaps for long, and thousands may: ask more and more rarely.
---@param waiting boolean
function suspects:calm(pair, waiting)
  pair.calm_ms = waiting and math.min(self.calm_max_ms, 2 * pair.calm_ms + self.ask_after_ms) or 0
end

--- An executor gave a sign of a job: an answer about it, or an answer to a cancel of one of its parts.
function suspects:answered(executor, job)
  local now, pair, death = task.now_ms(), at(self.pairs, executor, job), at(self.dead, executor, job)
  if pair then heard(pair, now) end
  if death then
    log.info("detector.answers", { job = job, executor = executor })
    revive(self, death)
  end
end

--- An attempt moved. Called for each progress record while anything is suspected or given up.
function suspects:moved(executor, job)
  if not at(self.shunned, job, executor) then return end
  self:answered(executor, job)
  self.detector:progress(job, executor)
end

--- A new life of an executor: what was held against the old one is no longer true.
function suspects:reborn(executor)
  for _, death in sorted(self.dead[executor] or {}) do revive(self, death) end
end

--- No live attempt of this pair is left.
local function drop(self, pair)
  put(self.pairs, pair.executor, pair.job, nil)
  admit(self, pair)
  self.detector:over(pair.job, pair.executor)
end

--- This leader was away for a while, and no sign could be read meanwhile.
function suspects:excuse(late_ms, now)
  for _, of in next, self.pairs do -- order-free: each by itself
    for _, pair in next, of do pair.heard_ms = math.min(now, pair.heard_ms + late_ms) end -- order-free: each by itself
  end
end

require "shoal.job.questions" (suspects)

-- Judging -------------------------------------------------------------------------------------------------------------

local function suspect(self, pair, now)
  local node = self.lead.node
  local changed, err, code = self.detector:suspect(pair.job, pair.executor, node.name)
  if changed then
    pair.suspected, pair.suspected_ms = true, now
    shun(self, pair)
    local why = self.detector:why(pair.job, pair.executor)
    local s = why and why.suspicion
    log.info("detector.suspected", {
      job = pair.job, executor = pair.executor, silent_ms = math.floor(now - pair.heard_ms), least_ms = s and s.least_ms,
      most_ms = s and s.most_ms, others = s and s.wanted,
    })
  elseif changed == nil and not pair.refused then -- Its limit of silence ends it.
    pair.refused = true
    errors.report("detector.refused", { job = pair.job, executor = pair.executor }, err, code)
  end
end

local function unsuspect(self, pair)
  if not pair or not pair.suspected then return end
  pair.suspected, pair.note = nil, nil
  admit(self, pair)
end

--- A suspicion is over: the executor is given up for this job. State first: the hooks find it, and may raise.
local function expired(self, event)
  local lead, now = self.lead, task.now_ms()
  local pair = at(self.pairs, event.node, event.job)
  if not pair then return end
  unsuspect(self, pair)
  local incarnation = event.incarnation
  local others = event.confirmations > 0 and ("; %d others got no answer about it, either"):format(event.confirmations) or ""
  local why = ("%s gave no sign of this job for %.1f s%s"):format(event.node, (now - pair.heard_ms) / 1000, others)
  local key = ("%s %s %s"):format(event.node, event.job, incarnation)
  local death = { executor = event.node, job = event.job, key = key, why = why, since_ms = now, ask_ms = now, failed = 1 }
  put(self.dead, event.node, event.job, death)
  shun(self, death)
  log.warning("detector.expired", {
    job = event.job, executor = event.node, incarnation = incarnation, suspected_ms = event.age_ms, timeout_ms = event.timeout_ms,
    confirmations = event.confirmations,
  })
  lead.node.hooks:fire("detector.job_suspicion_expired", {
    job = event.job, node = event.node, incarnation = incarnation, confirmations = event.confirmations, timeout_ms = event.timeout_ms,
    age_ms = event.age_ms,
  }, event.node, event.job, incarnation)
  lead.node.hooks:deliver("detector.job_death", {
    node = event.node, job = event.job, incarnation = incarnation, suspicion_age_ms = event.age_ms, confirmations = event.confirmations,
  }, key, event.node, event.job, incarnation)
end

local function on_event(self, event)
  if event.kind == "job_expired" then return expired(self, event) end
  if event.kind ~= "job_cleared" then return end
  log.info("detector.cleared", {
    job = event.job, executor = event.node, why = event.why, suspected_ms = event.age_ms, confirmations = event.confirmations,
  })
  unsuspect(self, at(self.pairs, event.node, event.job))
end

--- The hook on a job's death on a node, as the shipped roles wire it: its parts there are lost and start elsewhere, those of other jobs
--- stay.
function suspects:give_up(executor, job)
  local death = at(self.dead, executor, job)
  local why = death and death.why or executor .. " was given up for this job"
  for _, at_part in ipairs(self.lead.ledger:on(executor)) do
    local a = self.lead.attempts:get(at_part.run, at_part.part)
    if a and a.executor == executor and a.job == job and GIVES_UP[a.state] then self.lead.attempts:doom(a, "lost", why, true) end
  end
end

--- Note the last sign of each pair with live attempts.
local function gather(self, now)
  local lead, grace_ms = self.lead, self.lead:grace_ms()
  for _, of_run in next, lead.attempts.of do -- order-free: each by itself
    for _, a in next, of_run do -- order-free: a greatest
      local e = WATCHED[a.state] and lead.executors:get(a.executor)
      if e and e.state ~= "down" then
        local pair = pair_of(self, a, now)
        local sign_ms = a.state == "unheard" and a.seen_ms + grace_ms or a.seen_ms -- It may have to connect first.
        if sign_ms > pair.heard_ms then
          heard(pair, sign_ms)
          pair.calm_ms = 0
        end
        local first = pair.looked_ms ~= now or a.workflow < pair.workflow
        pair.looked_ms, pair.workflow = now, first and a.workflow or pair.workflow
      end
    end
  end
end

--- Whether it is this job alone: the machine gave a sign well after the job's last one. Until layer one has had its say, a machine that just
--- died looks like one that is silent for each of its jobs. Once the job is suspected, the machine goes on giving signs.
local function lives(self, pair, now)
  local silent_ms, period_ms = self:machine(pair.executor)
  local slack_ms = math.max(self.ask_after_ms, 1.5 * period_ms)
  return silent_ms <= slack_ms and (pair.suspected or silent_ms <= now - pair.heard_ms - slack_ms)
end

local function in_order(x, y) return x.executor < y.executor or x.executor == y.executor and x.job < y.job end

--- The pairs that are to be asked about, or suspected, in order; those without a live attempt are dropped.
local function due_of(self, now)
  local due, over = {}, {}
  for _, of in next, self.pairs do -- order-free: sorted below
    for _, pair in next, of do -- order-free: sorted below
      local silent_ms = now - pair.heard_ms - pair.calm_ms
      if pair.looked_ms ~= now then
        over[#over + 1] = pair
      elseif (silent_ms >= self.ask_after_ms or pair.suspected) and not at(self.dead, pair.executor, pair.job) then
        due[#due + 1] = pair
      end
    end
  end
  for executor, of in next, self.dead do -- order-free: sorted below
    for job, death in next, of do -- order-free: sorted below
      if self.lead:has_live(job) and self.lead.executors:get(executor) then due[#due + 1] = death else over[#over + 1] = death end
    end
  end
  table.sort(over, in_order)
  table.sort(due, in_order)
  return due, over
end

--- One look, each second, by the leader's step that compares attempts with reports (attempts.lua).
function suspects:look(now)
  gather(self, now)
  local due, over = due_of(self, now)
  for _, record in ipairs(over) do
    if record.key then revive(self, record) else drop(self, record) end
  end
  local of = {}
  for _, record in ipairs(due) do
    local pair = not record.key and record
    local silent = pair and pair.failed > 0 and now - pair.heard_ms - pair.calm_ms >= self.suspect_after_ms and lives(self, pair, now)
    if pair and pair.suspected and not lives(self, pair, now) then
      self.detector:over(pair.job, pair.executor) -- Its machine is silent, too.
    elseif silent and not pair.suspected then
      suspect(self, pair, now)
    end
    if now >= record.ask_ms then
      of[record.executor] = of[record.executor] or {}
      table.insert(of[record.executor], record)
    end
  end
  for executor, list in sorted(of) do self:ask(executor, list, now) end
end

-- Layer one -----------------------------------------------------------------------------------------------------------

--- What the detector made of a claim about a node. At its cap it refuses one that it does not know, whose silence it cannot judge. People
--- hear of the first; the detector counts the others.
local function claimed(self, name, _, err, code)
  if not code or self.nodes_refused then return end
  self.nodes_refused = true
  errors.report("detector.refused", { job = "none", executor = name }, err, code)
end

--- A gate's executors, datacenters, are no members of its group: their heartbeats and their silence are layer one. Each time that one
--- is asked for its parts anew is another life.
---@param state "alive"|"dead"
---@param epoch integer  of the executor
function suspects:executor(name, state, epoch)
  local life = self.lives[name]
  if self.members or life and life.state == state and life.epoch == epoch then return end
  if state == "alive" then
    self.generation = self.generation + 1
    self.lives[name] = { state = state, epoch = epoch, generation = self.generation }
    if life then self:reborn(name) end
  elseif life then
    life.state, life.epoch = state, epoch
  end
  claimed(self, name, self.detector:node(name, state, self.lives[name] and self.lives[name].generation or 0))
end

--- How long ago an executor's machine gave a sign of life, and how often it does. A member that membership does not show as alive gives
--- none.
---@return number silent_ms, number period_ms
function suspects:machine(executor)
  if self.lead.options.sign_of then return self.lead.options.sign_of(executor) end
  local m = self.lead.node.swim and self.lead.node.swim:member(executor)
  return m and m.state == "alive" and 0 or math.huge, 0
end

--- A question was not answered: membership may look at the machine now, instead of at its turn.
function suspects:hint(executor)
  if self.members and self.lead.node.swim then self.lead.node.swim:hint(executor) end
end

--- The reconcile pass asks about each node that the detector knows; a state that it missed is told again.
local function knows_node(self, name)
  if not self.members then
    if not self.lead.executors:get(name) then self.lives[name] = nil end
    return self.lives[name] ~= nil
  end
  local m = self.lead.node.swim and self.lead.node.swim:member(name)
  local seen = m and self.detector:why(nil, name)
  if seen and seen.state ~= m.state and not m.held then claimed(self, name, self.detector:node(name, m.state, m.incarnation)) end
  return m ~= nil
end

-- Asked by others -----------------------------------------------------------------------------------------------------

--- Those of a list of executors that may get parts of this job; when none may, the reason.
---@param job string
---@param list table[]
---@return table[] usable, string? why
function suspects:usable(job, list)
  local shunned = self.shunned[job]
  if not shunned then return list end
  local out, silent = {}, {}
  for _, e in ipairs(list) do
    if shunned[e.name] then silent[#silent + 1] = e.name else out[#out + 1] = e end
  end
  if #out > 0 then return out end
  local names = table.concat(silent, ", ", 1, math.min(#silent, 5))
  return out, #silent > 0 and ("%s gave no sign of this job; it waits for an answer"):format(names) or nil
end

--- Whether an executor may get parts of this job.
function suspects:may(job, executor) return not at(self.shunned, job, executor) end

--- A suspicion, or a pair that was given up, in short.
local function text_of(self, record)
  local now = task.now_ms()
  if record.key then return ("%s; given up there %.1f s ago"):format(record.why, (now - record.since_ms) / 1000) end
  local why = self.detector:why(record.job, record.executor)
  local s = why and why.suspicion
  return ("%s gave no sign of this job for %.1f s%s%s"):format(record.executor, (now - record.heard_ms) / 1000, s and
    (" (%d of %d confirmations); it has %.1f s more"):format(s.confirmations, s.wanted, s.ends_ms / 1000) or "",
    record.note and "; " .. record.note or "")
end

--- The suspicions of a job here, or of all jobs; of an executor, or of all: for people.
---@param job? string
---@param only? string  an executor
---@return { job: string, executor: string, state: "suspected"|"given up", text: string }[]
function suspects:list(job, only)
  local out = {}
  for name, of in sorted(self.shunned) do
    if not job or name == job then
      for executor, record in sorted(only and { [only] = of[only] } or of) do
        out[#out + 1] = { job = name, executor = executor, state = record.key and "given up" or "suspected", text = text_of(self, record) }
      end
    end
  end
  return out
end

--- Why a workflow waits, if its attempts are on an executor that gives no sign of the job.
---@return string?
function suspects:why_waiting(job, workflow, attempts)
  local shunned = self.shunned[job]
  if not shunned then return nil end
  for _, a in sorted(attempts) do
    local record = a.workflow == workflow and shunned[a.executor]
    if record then return text_of(self, record) end
  end
end

-- Beginning and end ---------------------------------------------------------------------------------------------------

---@param lead table
---@param scope table  of this leadership
function suspects.open(lead, scope)
  local node, config = lead.node, lead.node.config
  local beat_ms = config.heartbeat_ms
  local ask_after_ms = config.flush_ms + LEVEL_MS + HEARTBEATS.ask * beat_ms
  local self = setmetatable({
    lead = lead, scope = scope, pairs = {}, dead = {}, shunned = {}, count = 0, asking = {}, turn = 0, lives = {}, generation = 0,
    calm_max_ms = math.max(0, math.min(CALM_MS, lead.options.silent_ms / 3 - ask_after_ms)), -- An answer renews that limit, too.
    members = not lead.options.sign_of, -- Whether its executors are members of its own group.
    ask_after_ms = ask_after_ms, suspect_after_ms = ask_after_ms + HEARTBEATS.suspect * beat_ms + PROBE_MS[config.profile], every_ms = beat_ms,
    answer_ms = math.max(ANSWER_MS, HEARTBEATS.answer * beat_ms),
  }, suspects)
  self.detector = assert(detector.open(node.world, {
    watches = self.members and "workers" or "managers", profile = config.profile,
    members = function () return self:observers() end,
    health = function () return node.swim and node.swim:counts().health or 0 end,
    knows_node = function (name) return knows_node(self, name) end,
    knows_job = function (job) return lead:has_live(job) end,
  }, function (event) on_event(self, event) end))
  node.suspicions = function (executor) return self:list(nil, executor) end
  if self.members then
    node.layer_one = function (event)
      claimed(self, event.member.name, self.detector:feed(event))
      if event.kind == "join" then self:reborn(event.member.name) end
    end
    for _, m in ipairs(node:members()) do
      claimed(self, m.name, self.detector:node(m.name, m.held and "held" or m.state, m.incarnation))
    end
  end
  return self
end

function suspects:close()
  self.lead.node.layer_one, self.lead.node.suspicions = nil, nil
  for _, of in sorted(self.dead) do
    for _, death in sorted(of) do errors.withdraw("detector.job_death", death.key) end
  end
  self.detector:close()
  self.detector = INERT -- Handlers of messages may still come.
end

return suspects
