--- placing: one task of a leader splits workflows into parts and gives parts to executors, in rounds. One command places all ready
--- parts, and the next round waits until it is applied. So no two decisions use the same free cores, and the cost of a round is
--- proportional to the parts that it places.
---
--- A workflow is *wanted* until it is split. A part is *fresh* until its first attempt; after that it is placed *again*. A refused
--- part waits for a backoff that doubles.
---
--- A policy chooses among executors that can run the part (fit.lua) and are not cordoned. While a workflow waits, its run knows why
--- (`driver:waits`): at once when no executor can run it, whatever becomes free.
local check = require "shoal.job.check"
local errors = require "shoal.base.errors"
local fit = require "shoal.job.fit"
local log = require "shoal.base.log"
local outcome = require "shoal.job.outcome"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local placing = {}
placing.__index = placing

local LOOK_MS = 1000      -- Executors may change without an event.
local HOLD_MS = { 100, 5000 } -- Backoff after a refusal: the first, and the longest.
local NO_MAX = 256        -- A round ends after so many parts without an executor; the next begins behind them.
local BATCH_MAX = 512     -- Placements in one command.
local SPLIT_MAX = 5000    -- Parts that one command cuts, or those of one workflow: a command has a limit of bytes.
local SPLIT_TRIES = 10    -- An operator may fix the policy between tries; after the last, the run fails.
local CHOOSE_TRIES = 10   -- Rounds in a row in which `choose` failed for a run; after the last, the run fails.
local RETRY_MS = { 200, 5000 }
local FAILED = {} -- Marks a policy call that failed.
local DECLINES_MAX = 16   -- Parts of a workflow that an executor declines one by one; then it is not offered the others.
local REASON_MAX = 200 -- Bytes of an attempt's reason in the reason for waiting.
local BEHIND = "it waits behind other jobs"
local NO_CHOICE = "placement.%s waits: it names none of the executors that can run it now"

log.event("lead.declined", { "job", "workflow", "executor", "reason" })

---@param lead table
function placing.open(lead, scope)
  local self = setmetatable({
    lead = lead, scope = scope, wake_up = task.channel(1), queue = {}, of = {}, declines = {},
  }, placing)
  scope:keep("lead.place", {}, function () self:work() end)
  return self
end

--- Something changed: run a round.
function placing:wake() self.wake_up:push(true) end -- dropped: full means awake

--- The queue of one run; a new one goes to the end of the order.
local function queue_of(self, key)
  local q = self.of[key]
  if not q then
    q = { run = key, wanted = {}, fresh = {}, again = {}, first = {}, tries = {}, waits = {} }
    self.of[key] = q
    self.queue[#self.queue + 1] = q
  end
  return q
end

--- A workflow is ready: split it.
function placing:want(key, workflow)
  local q = queue_of(self, key)
  for _, name in ipairs(q.wanted) do
    if name == workflow then return end
  end
  q.wanted[#q.wanted + 1] = workflow
  self:wake()
end

--- How long a part waits before it is placed again, and why: after a refusal, or after a failure as its workflow says.
local function hold_of(self, key, part)
  local last, run = part.history[#part.history], self.lead.runs[key]
  if part.refusals > 0 then return math.min(HOLD_MS[2], HOLD_MS[1] * 2 ^ math.min(part.refusals - 1, 16)), last end
  if not run or not last or last.state ~= "failed" then return 0 end
  local retry = run.spec.workflows[part.workflow].retry or check.RETRY
  return math.min(retry.max_ms, retry.backoff_ms * retry.factor ^ math.min(part.executions - 1, 1000)), last
end

--- An executor declined a part: it takes no work of this kind, which is no failure. Until its next life it is not offered that part
--- again, and other parts of the workflow only if every executor declined; after DECLINES_MAX parts, none of them. So a workflow
--- remembers at most so many parts an executor.
function placing:declined(key, part, executor, reason)
  local of_run = self.declines[key] or {}
  self.declines[key] = of_run
  local d = of_run[part.workflow] or { of = {}, parts = {} }
  of_run[part.workflow] = d
  local e = self.lead.executors:get(executor)
  local known = d.of[executor]
  if not known or not e or known.epoch ~= e.epoch then
    known = { epoch = e and e.epoch or 0, count = 0, reason = reason:sub(1, REASON_MAX) }
    d.of[executor] = known
    log.info("lead.declined", { job = self.lead.runs[key] and self.lead.runs[key].job or key, workflow = part.workflow, executor = executor,
      reason = known.reason })
  end
  known.count = known.count + 1
  d.parts[part.part] = d.parts[part.part] or {}
  d.parts[part.part][executor] = known
end

--- The executors of a list that may be offered a part. Also returns the reason when all of them declined.
local function willing(self, round, key, workflow, part, able)
  local d = self.declines[key] and self.declines[key][workflow]
  if not d then return able end
  local of_part, fresh, some, last = d.parts[part] or {}, {}, {}, nil
  for _, e in ipairs(able) do
    local known = d.of[e.name]
    if not known or known.epoch ~= round.byname[e.name].epoch then
      fresh[#fresh + 1] = e
    elseif known.count < DECLINES_MAX and of_part[e.name] ~= known then
      some[#some + 1] = e
    else
      last = ("%s: %s"):format(e.name, known.reason)
    end
  end
  local list = #fresh > 0 and fresh or some
  return list, #list == 0 and "every worker that can run it declined it; " .. last or nil
end

--- Place a part again; after a backoff if it was refused or failed.
---@param at_once? boolean  its last attempt was none
function placing:again(key, part, at_once)
  local hold_ms, last = 0, nil
  if not at_once then hold_ms, last = hold_of(self, key, part) end
  local name, run = part.part, self.lead.runs[key]
  if hold_ms > 0 and run then
    local how = last.state == "failed" and "failed on" or "was refused by"
    local why = (last.reason or ""):sub(1, REASON_MAX)
    run:holds(name, part.workflow, ("%s %s %s (%s); again after %.1f s"):format(name, how, last.executor, why, hold_ms / 1000))
  end
  local function put()
    if run then run:holds(name) end
    local q = queue_of(self, key)
    q.again[#q.again + 1] = name
    self:wake()
  end
  if hold_ms == 0 then return put() end
  self.scope:keep("lead.place", {}, function ()
    task.sleep(hold_ms * (0.8 + 0.4 * self.lead.node.world:unit()))
    if self.lead.runs[key] then put() end
  end)
end

--- Whether a part waits here for an executor.
function placing:has(key, part)
  local q = self.of[key]
  if not q then return false end
  for _, name in ipairs(q.again) do
    if name == part then return true end
  end
  for _, fresh in ipairs(q.fresh) do
    for i = fresh.at, #fresh.names do
      if fresh.names[i] == part then return true end
    end
  end
  return false
end

--- Stop placing this run.
function placing:forget(key)
  self.declines[key] = nil
  local q = self.of[key]
  if not q then return end
  self.of[key] = nil
  for i, other in ipairs(self.queue) do
    if other == q then
      table.remove(self.queue, i)
      return
    end
  end
end

-- A round --------------------------------------------------------------------------------------------------------------

local function entry_of(self, key)
  local run, entry = self.lead.runs[key], self.lead.ledger.runs[key]
  if run and entry and entry.state == "running" then return run, entry end
end

--- The executors of this round that can run a part, for a policy: copies.
local function able_of(round, cores, where)
  local all = round.copy()
  if not where and cores <= round.least then return all end
  local out = {}
  for _, e in ipairs(all) do
    if fit.able(e, cores, where) then out[#out + 1] = e end
  end
  return out
end

local function has_room(lead, able, cores)
  for _, e in ipairs(able) do
    if not lead.options.claims or e.free >= cores then return true end
  end
  return false
end

--- The reason that no executor can run a workflow, whatever becomes free; nil if one can.
local function why_not(self, round, run, workflow, cores)
  round.rows = round.rows or self.lead:all_executors()
  return fit.why(round.rows, cores, workflow.where, not self.lead.options.claims and run.spec.datacenters or nil)
end

--- Ask the policy for the split; returns the shares, or nil to wait. A wrong answer is an incident, and SPLIT_TRIES of them end the run.
local function shares_of(self, round, q, run, workflow_name)
  local lead, workflow = self.lead, run.spec.workflows[workflow_name]
  -- After a restart, wait for executors to register so that the split uses all of them.
  if run.again and lead:young() then return nil, "its leader has just begun, and waits for executors to register" end
  local able = able_of(round, workflow.cores or 1, workflow.where)
  if #able == 0 then return nil, why_not(self, round, run, workflow, workflow.cores or 1) end
  local silent
  able, silent = lead.suspects:usable(run.job, able)
  if #able == 0 then return nil, silent end
  local why = "placement.split failed; the incidents at policy.placement say how"
  local shares = errors.policy("placement", lead.options.placement.split, {
    ids = { job = run.job, workflow = workflow_name },
    check = function (answer)
      if answer == nil or type(answer) == "table" and next(answer) == nil then return true end
      local good, problem = outcome.shares(workflow, answer)
      if not good then why = ("placement.split of %s: %s"):format(workflow_name, problem) end
      return good, problem
    end,
    fallback = FAILED,
    failed = function (err) why = ("placement.split of %s failed: %s"):format(workflow_name, tostring(err)) end,
  }, run:view(workflow_name), able, run.spec_view)
  if shares ~= FAILED then
    if shares and next(shares) then return shares end
    return nil, why_not(self, round, run, workflow, workflow.cores or 1) or NO_CHOICE:format "split"
  end
  q.tries[workflow_name] = (q.tries[workflow_name] or 0) + 1
  round.failed = true
  if q.tries[workflow_name] >= SPLIT_TRIES then lead:give_up(q.run, why) end
  return nil, why
end

--- Ask the policy for this part's executor; returns one of the round's with room for it, or nil and the reason.
local function choice_of(self, round, q, run, workflow, view)
  local lead, where = self.lead, run.spec.workflows[workflow].where
  local home = view.share.executor
  if home and run.again and not round.byname[home] and lead:young() then return nil, ("it waits for %s to register"):format(home) end
  local cores = lead.options.claims and view.cores or run.spec.workflows[workflow].cores or 1
  local able = able_of(round, cores, where)
  if #able == 0 then return nil, why_not(self, round, run, run.spec.workflows[workflow], cores) end
  local nobody
  able, nobody = lead.suspects:usable(run.job, able)
  if #able == 0 then return nil, nobody end
  able, nobody = willing(self, round, q.run, workflow, view.part, able)
  if nobody then return nil, nobody end
  local why = "placement.choose failed; the incidents at policy.placement say how"
  local name = errors.policy("placement", lead.options.placement.choose, {
    ids = { job = run.job, workflow = view.workflow, part = view.part },
    check = function (answer)
      if answer == nil then return true end
      local executor = type(answer) == "string" and round.byname[answer]
      if not executor then return false, ("placement.choose for %s: there is no executor %s"):format(view.part, tostring(answer)) end
      return fit.able(executor, cores, where), ("placement.choose for %s: %s cannot run it"):format(view.part, answer)
    end,
    failed = function (err) why = ("placement.choose for %s failed: %s"):format(view.part, tostring(err)) end,
    fallback = FAILED,
  }, view, run:view(workflow), able, run.spec_view)
  if name == FAILED then
    -- The part waits: the operator's rule decides where it may run, and a guess could break it. After some tries the run fails.
    round.failed = true
    q.wrong = (q.wrong or 0) + (q.round ~= round and 1 or 0)
    q.round = round
    if q.wrong >= CHOOSE_TRIES then lead:give_up(q.run, why) end
    return nil, why
  end
  q.wrong = nil
  local executor = name and round.byname[name]
  if executor and not lead.suspects:may(run.job, name) then return nil, ("%s gave no sign of this job; it waits for an answer"):format(name) end
  if executor and executor.room == 0 then return nil, executor.wait end
  if executor and not (lead.options.claims and executor.free < view.cores) then return executor end
  return nil, not executor and has_room(lead, able, cores) and NO_CHOICE:format "choose" or fit.BUSY
end

--- A part as a policy sees it.
local function view_of(part)
  return { part = part.part, workflow = part.workflow, share = part.share, cores = part.cores, history = part.history, attempt = part.attempt }
end

local function put(round, key, view, executor)
  round.places[#round.places + 1] = { run = key, part = view.part, executor = executor.name, capacity = round.claims and executor.cores or nil }
  if round.claims then
    executor.free, round.free = executor.free - view.cores, round.free - view.cores
  end
  if executor.room then executor.room = executor.room - 1 end
  if round.took then round.took(executor.name) end
  round.dirty = true
end

local function full(round)
  if #round.places >= BATCH_MAX or round.no >= NO_MAX then return true end
  if not round.claims then return #round.list == 0 end
  return round.free <= 0
end

--- Split the wanted workflows; parts that fit now get their executors in the same command.
local function cut(self, round, q, run, entry)
  local left, lead = {}, self.lead
  for _, name in ipairs(q.wanted) do
    local workflow = run.spec.workflows[name]
    local shares, why
    if round.parts < SPLIT_MAX then shares, why = shares_of(self, round, q, run, name) end
    if not shares then
      left[#left + 1] = name
      q.waits[name] = why or BEHIND
    else
      local parts, placed = {}, true
      for i, share in ipairs(shares) do
        local part_name = lead.options.part_name(entry, name, i, share)
        local cores = lead.options.claims and (share.cores or workflow.cores or 1) or 0
        parts[i] = { part = part_name, share = share, cores = cores }
        local view = { part = part_name, workflow = name, share = share, cores = cores, history = {}, attempt = workflow.executions or 0 }
        local executor = placed and not full(round) and choice_of(self, round, q, run, name, view)
        if executor then put(round, q.run, view, executor) else placed = false end -- The other parts are fresh once the split is applied.
      end
      round.parts = round.parts + #parts
      round.splits[#round.splits + 1] = { run = q.run, workflow = name, retries = workflow.retries or 0, parts = parts,
        attempt = workflow.executions }
    end
  end
  q.wanted = left
end

--- Place parts again, each by itself, for their histories differ.
local function place_again(self, round, q, run, entry)
  local left = {}
  for i, name in ipairs(q.again) do
    local part = entry.parts[name]
    if full(round) then
      table.move(q.again, i, #q.again, #left + 1, left)
      break
    elseif part and part.state == "pending" then
      local view = view_of(part)
      local executor, why = choice_of(self, round, q, run, part.workflow, view)
      if executor then
        put(round, q.run, view, executor)
      else
        round.no = round.no + 1
        left[#left + 1] = name
        q.waits[part.workflow] = q.waits[part.workflow] or why
      end
    end
  end
  q.again = left
end

--- Place fresh parts in order. If one has no executor, the other fresh parts of its workflow have none either; at a gate they may, for
--- each part has a datacenter of its own, so there it is placed again by itself.
local function place_fresh(self, round, q, run, entry)
  local left = {}
  for _, batch in ipairs(q.fresh) do
    while batch.at <= #batch.names and not full(round) do
      local part = entry.parts[batch.names[batch.at]]
      if part and part.state == "pending" then
        local view = view_of(part)
        local executor, why = choice_of(self, round, q, run, batch.workflow, view)
        if not executor then
          round.no = round.no + 1
          q.waits[batch.workflow] = q.waits[batch.workflow] or why
          if round.claims then break end
          q.again[#q.again + 1] = part.part
        else
          put(round, q.run, view, executor)
        end
      end
      batch.at = batch.at + 1
    end
    if batch.at <= #batch.names then left[#left + 1] = batch end
  end
  q.fresh = left
end

local function begin_round(self)
  local lead = self.lead
  local round = {
    list = lead:up_executors(), byname = {}, places = {}, splits = {}, no = 0,
    claims = lead.options.claims, took = lead.took, dirty = true, free = 0, parts = 0, least = math.huge,
  }
  for _, e in ipairs(round.list) do
    round.byname[e.name], round.free = e, round.free + e.free
    round.least = math.min(round.least, e.largest or e.cores) -- A part of so many cores fits every executor.
  end
  --- A policy gets a copy of the executors, so that it cannot change ours.
  local copy
  function round.copy()
    if round.dirty then
      copy, round.dirty = {}, false
      for i, e in ipairs(round.list) do
        copy[i] = {
          name = e.name, address = e.address, cores = e.cores, free = e.free, labels = e.labels, classes = e.classes, more = e.more,
          largest = e.largest, health = e.health, level = e.level,
        }
      end
    end
    return copy
  end
  return round
end

--- Place the first parts of a run in the command that creates it; nil when other runs wait before it, or no executor has room now.
---@param entry table  the run as far as it is known: `job`, `upstream`
---@param spec table
---@return { splits: table[], places: table[] }?
function placing:plan(entry, spec)
  if #self.queue > 0 then return nil end
  local wanted = {}
  for name, workflow in sorted(spec.workflows) do
    if #workflow.after == 0 then wanted[#wanted + 1] = name end
  end
  local round = begin_round(self)
  local views = {}
  local run = {
    spec = spec, job = entry.job ~= "" and entry.job or spec.name, spec_view = errors.view(spec),
    view = function (_, name)
      views[name] = views[name] or errors.view(spec.workflows[name])
      return views[name]
    end,
  }
  cut(self, round, { run = "", wanted = wanted, tries = {}, waits = {} }, run, entry)
  if #round.splits == 0 then return nil end
  return { splits = round.splits, places = round.places }
end

--- The reasons that the workflows of a run wait that a round did not come to.
local function waits_unseen(self, round, q, run, entry)
  local waits = {}
  local function put_why(name, cores)
    local workflow = run.spec.workflows[name]
    waits[name] = waits[name] or why_not(self, round, run, workflow, cores or workflow.cores or 1) or fit.BUSY
  end
  for _, name in ipairs(q.wanted) do put_why(name) end
  for _, batch in ipairs(q.fresh) do put_why(batch.workflow) end
  for _, name in ipairs(q.again) do
    local part = entry.parts[name]
    if part then put_why(part.workflow) end
  end
  return waits
end

--- One round. True: run another now.
local function place(self)
  local round, lead = begin_round(self), self.lead
  local count = #self.queue
  for i = 1, count do
    local q = self.queue[i]
    local run, entry = entry_of(self, q.run)
    if run and not full(round) then
      q.waits = {}
      place_again(self, round, q, run, entry)
      place_fresh(self, round, q, run, entry)
      cut(self, round, q, run, entry)
      run:waits(q.waits)
    elseif run and q.looked ~= lead.executors.version then -- No room, or others come first.
      q.looked = lead.executors.version
      run:waits(waits_unseen(self, round, q, run, entry))
    end
    q.over = not run or #q.wanted == 0 and #q.again == 0 and #q.fresh == 0
    q.no = round.no
  end
  local kept, behind = {}, {}
  for _, q in ipairs(self.queue) do -- After a round that ended early, runs without an executor go behind the others.
    if q.over then
      self.of[q.run] = nil
    elseif round.no >= NO_MAX and (q.no or 0) > 0 and #behind < count // 2 then
      behind[#behind + 1] = q
    else
      kept[#kept + 1] = q
    end
  end
  self.queue = table.move(behind, 1, #behind, #kept + 1, kept)
  if #round.places == 0 and #round.splits == 0 then return false, round.failed end
  local facts, err, code = lead:propose { kind = "place", splits = round.splits, places = round.places }
  if not facts then
    errors.report("lead.place", {}, err, code)
    if code == "TOO_LARGE" then -- Again would be too large again.
      for _, each in ipairs(round.splits) do lead:give_up(each.run, each.workflow .. " could not be cut: " .. err) end
      return false, true
    end
    if code ~= "UNKNOWN" and code ~= "CLOSED" then self:put_back(round) end -- If it is UNKNOWN and applies, its facts settle it.
    return false, true
  end
  return true
end

--- The command was refused: its workflows and parts are ready as before.
function placing:put_back(round)
  local created = {}
  for _, each in ipairs(round.splits) do
    created[each.run .. " " .. each.workflow] = true
    for _, piece in ipairs(each.parts) do created[each.run .. " " .. piece.part] = true end
    self:want(each.run, each.workflow)
  end
  for _, each in ipairs(round.places) do
    if not created[each.run .. " " .. each.part] then
      local q = queue_of(self, each.run)
      q.again[#q.again + 1] = each.part
    end
  end
end

--- A workflow was split: its parts that got no executor are fresh. `except` lists parts that are placed again on their own.
---@param key string
---@param workflow string
---@param except table<string, boolean>
function placing:was_cut(key, workflow, except)
  local entry, names = self.lead.ledger.runs[key], {}
  for _, name in ipairs(entry.split[workflow]) do
    if entry.parts[name].state == "pending" and not except[name] then names[#names + 1] = name end
  end
  if #names == 0 then return end
  local q = queue_of(self, key)
  q.fresh[#q.fresh + 1] = { workflow = workflow, names = names, at = 1 }
  self:wake()
end

function placing:work()
  local wait_ms = RETRY_MS[1]
  while true do
    local _, err, code = self.wake_up:pop(#self.queue > 0 and LOOK_MS or nil)
    if err and code ~= "TIMEOUT" then return end
    local more, failed = true, false
    while more do
      local ok, again, bad = errors.call("lead.place", {}, place, self)
      more, failed = ok and again, not ok or bad
    end
    if failed then
      task.sleep(wait_ms)
      wait_ms = math.min(RETRY_MS[2], wait_ms * 2)
      self:wake()
    else
      wait_ms = RETRY_MS[1]
    end
  end
end

return placing
