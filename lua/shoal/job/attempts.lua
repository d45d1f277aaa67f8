--- attempts: the dispatched attempts of a leader. Each is one object, and this file alone changes it.
---
---   sending -taken, or reported--> running --the run is cancelled--> cancelling --.
---      |                               |                                           |
---      '-------------------------------+-------------------------------------------+--> doomed: lost; the loss must become durable
---   An executor that is silent for a whole job loses its parts sooner: suspects.lua, whose header says which mechanism covers what.
---   unheard: found in the ledger when a leadership begins; its executor has the time of its lease to report it
---
--- Only the ledger ends an attempt. An event (a death, a refusal, silence) dooms it, and the reconcile step proposes the loss until
--- it is applied. The reconcile step is one task that compares this leader's attempts with the executors' reports:
---
---   - it dooms the attempts of executors that are gone, and those whose lease expired, once the executor has stopped them (leases.lua)
---   - it dooms attempts without progress for silent_ms
---   - it proposes all doomed attempts as lost, with one command
---   - it sends each cancel until the executor answers
---
--- A part is dispatched again only when its attempt cannot run any more. So an attempt that its executor may still run is not doomed but
--- *given up*: it is cancelled there, its renewals are refused, and it is lost when the executor says that it ended, or at the latest
--- when its lease is over. There is one exception: the attempts of an executor that is held for dead are lost at once. If it is not dead, but
--- cut off from everybody, they may run on there for a while; fences then decide which result counts. The same holds for a gate: its
--- executors keep a share though its lease ended (run/leases.lua), so it waits for nothing.
---
--- A step that runs late extends every silence deadline by its own delay, and every lease to a whole one.
local ack = require "shoal.wire.ack"
local backoff = require "shoal.base.backoff"
local errors = require "shoal.base.errors"
local job = require "shoal.job.spec"
local machine = require "shoal.base.machine"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local attempts = {}
attempts.__index = attempts

local LOOK_MS = 1000
local TRIES_MAX = 5
local CALL_MS = 3000
local LIMIT_SLACK_MS = 1000
local CANCEL_DEADLINE_MS = 30000
local CANCEL_MS = 5000      -- An executor kills a cancelled attempt that has not ended after this.
local LOST_MAX = 256        -- Losses in one command.
local SIGNS = 3             -- Periods of probes in which a datacenter gave no sign: a lost answer is nothing.
local RETRY_MS = 250        -- Retry delay after a loss could not be made durable.
local END_SLACK_MS = 5000   -- Of the last instant at which a given-up attempt can run.

local STATES = machine.define {
  name = "attempt", first = "sending",
  moves = {
    sending = { "running", "cancelling", "doomed" }, unheard = { "running", "cancelling", "doomed" }, running = { "cancelling", "doomed" },
    cancelling = { "doomed" }, doomed = {},
  },
}

---@param lead table
function attempts.open(lead, scope)
  local self = setmetatable({
    lead = lead, scope = scope, of = {}, doomed = {}, cancels = {}, orphans = {}, wake_up = task.channel(1),
    looked_ms = task.now_ms() - LOOK_MS,
    count = 0,
  }, attempts)
  scope:keep("lead.reconcile", {}, function () self:work() end)
  return self
end

--- An executor is down: doom its attempts at the next step, which runs now.
function attempts:gone()
  self.someone_gone = true
  self:wake()
end

function attempts:wake() self.wake_up:push(true) end -- dropped: full means awake

local function name_of(a) return ("%s %s attempt %d"):format(a.job, a.part, a.attempt) end

local function move(a, to) return STATES:move(a, to, name_of(a)) end

---@return table?  the live attempt of this part
function attempts:get(key, part)
  local of_run = self.of[key]
  return of_run and of_run[part]
end

--- The live attempts of a run, by part.
function attempts:of_run(key) return self.of[key] or {} end

local function is_live(self, a) return self:get(a.run, a.part) == a and a.state ~= "doomed" end

local function add(self, run, entry, part, state)
  local a = STATES:enter {
    run = run.key, job = run.job, part = part.part, workflow = part.workflow, attempt = part.attempt, fence = part.fence,
    executor = part.executor, seq = 0, seen_ms = task.now_ms(),
  }
  a.state = state
  local of_run = self.of[entry.run] or {}
  self.of[entry.run] = of_run
  assert(not of_run[part.part], "an attempt of this part is live already")
  of_run[part.part] = a
  self.count = self.count + 1
  return a
end

--- The executor took this attempt `age_ms` ago, by a message that was on its way for a while: the earliest such instant is the best
--- guess, on the tier's clock.
---@param age_ms? integer
function attempts:taken(a, age_ms)
  if not age_ms or age_ms < 0 then return end
  local at_ms = self.lead:clock_ms() - age_ms
  a.from_ms = math.min(a.from_ms or at_ms, at_ms)
end

--- From the beginning of the run until its executor took this attempt: 0 when nothing is known of it.
---@param entry table  the ledger's run
---@param body { part: string, fence: integer, age_ms: integer? }  its result
---@return integer ms
function attempts:offset_ms(key, entry, body)
  local a = self:get(key, body.part)
  if not a or a.fence ~= body.fence then return 0 end
  self:taken(a, body.age_ms)
  return a.from_ms and math.max(0, a.from_ms - entry.started_ms) or 0
end

--- The ledger ended this attempt: forget it. A newer attempt of the same part may already be here.
function attempts:over(key, part, fence)
  local of_run = self.of[key]
  local a = of_run and of_run[part]
  if not a or a.fence ~= fence then return end
  of_run[part] = nil
  self.count = self.count - 1
  if not next(of_run) then self.of[key] = nil end
  self.doomed[a], self.orphans[a] = nil, nil
  self.lead.leases:over(a)
  local cancel = self.cancels[("%s %s %d"):format(a.job, a.part, a.fence)]
  if cancel and cancel.of == a then self.cancels[("%s %s %d"):format(a.job, a.part, a.fence)] = nil end
end

function attempts:forget(key)
  for name, a in sorted(self.of[key] or {}) do self:over(key, name, a.fence) end
end

-- Losing ---------------------------------------------------------------------------------------------------------------

local cancel

--- Its executor may run it still: cancel it there first. Its end there settles it, or the end of its lease.
local function give_up(self, a, reason)
  if a.given_up then return end
  a.given_up = reason
  if a.state ~= "cancelling" then move(a, "cancelling") end
  cancel(self, a, a, a.executor, nil, "the attempt was given up: " .. reason)
end

--- Whether to wait for its executor: it is a worker that lives, and the lease counts.
local function may_run(self, a)
  local executor = self.lead.executors:get(a.executor)
  return self.lead.options.claims and not (executor and executor.state == "down") and self.lead.leases:live(a)
end

--- This attempt will bring no result: it counts as lost once the loss is durable.
---@param state "lost"|"refused"|"declined"
---@param still_there boolean  it may still run there, so it is ended there first
function attempts:doom(a, state, reason, still_there)
  if not is_live(self, a) then return end
  if still_there and may_run(self, a) then return give_up(self, a, reason) end
  move(a, "doomed")
  a.end_state, a.reason, a.still_there = state, reason, still_there or false
  self.doomed[a] = true
  self:wake()
end

--- Whether a drained attempt goes on elsewhere: not if it must not run twice.
local function may_move(a, part) return a.moved and part.retries > 0 end

--- The entry for this attempt in a `lost` command.
---@param said? { reason: string?, stats: table }  what its executor says of its end
function attempts:loss(a, said)
  local lead = self.lead
  local run, entry = lead.runs[a.run], lead.ledger.runs[a.run]
  local part = entry.parts[a.part]
  local state, progress = said and "lost" or a.end_state, said and said.stats or a.progress
  if state ~= "lost" then progress = nil end
  return {
    run = a.run, part = a.part, fence = a.fence, state = state, reason = a.given_up or said and (said.reason or "") or a.reason,
    progress = progress, moved = a.moved, still_there = not said and a.still_there or nil,
    retry = may_move(a, part) or not a.moved and (state == "declined" or lead:again(run, part, state, progress)),
  }
end

--- The lease of this attempt expired: it is lost once its executor must have stopped it.
---@param after_ms integer
function attempts:orphan(a, reason, after_ms)
  if not is_live(self, a) or a.orphan then return end
  a.orphan = { reason = a.given_up or reason, due_ms = task.now_ms() + after_ms }
  self.orphans[a] = true
  self:wake()
end

--- Its executor renewed its lease, so it took it.
function attempts:renewed(a)
  if a.state == "sending" or a.state == "unheard" then move(a, "running") end
end

--- Propose the doomed attempts as lost. False: some must be tried again.
local function bury(self)
  local list, where = {}, nil
  for a in next, self.doomed do list[#list + 1] = a end -- order-free: sorted below
  table.sort(list, function (x, y)
    if x.run ~= y.run then return x.run < y.run end
    return x.part < y.part
  end)
  local ok = true
  for first = 1, #list, LOST_MAX do
    local parts = {}
    for i = first, math.min(#list, first + LOST_MAX - 1) do
      local a = list[i]
      where = a
      if self:get(a.run, a.part) == a and self.lead.runs[a.run] then parts[#parts + 1] = self:loss(a) else self.doomed[a] = nil end
    end
    if #parts > 0 then
      local facts, err, code = self.lead:propose { kind = "lost", parts = parts }
      if not facts then
        ok = false
        errors.report("lead.lost", { job = where.job, part = where.part, executor = where.executor }, err, code)
        break
      end
    end
  end
  return ok
end

-- Sending --------------------------------------------------------------------------------------------------------------

-- See attempts.lua's head: a dispatch whose answer was lost may have been taken.
local NEVER_TAKEN = { FULL = true, CONFIG = true, REFUSED = true, TOO_LARGE = true, DECLINED = true }
local FINAL_REFUSAL = { FULL = true, STALE = true, MALFORMED = true, REFUSED = true, CONFIG = true, TOO_LARGE = true, DECLINED = true }

local function body_of(self, run, a, part)
  local share, node = part.share, self.lead.node
  if not self.lead.options.claims then -- The tier below may use the remaining executions, this one included.
    share = {}
    for key, value in next, part.share do share[key] = value end
    share.retries = math.max(0, part.retries - part.executions)
    share.executions = part.executions > 0 and part.executions or nil -- Its attempts go on counting there.
  end
  local limit_ms = run:left_ms()
  return {
    job = run.job, workflow = part.workflow, part = part.part, attempt = a.attempt, fence = a.fence, leader = node.address,
    leader_name = node.name, payload = run:payload(part.workflow), share = job.pack(share),
    timeout_ms = limit_ms and math.ceil(math.max(0, limit_ms)) + LIMIT_SLACK_MS or 0, -- Our limit fires first; theirs is a backstop.
    led = self.lead.fence, lease_ms = self.lead.leases.ttl_ms,
  }
end

--- Send one attempt until its executor takes or refuses it, or it no longer counts. Each try has the same fence and bytes, so the
--- executor gives a repeated dispatch the same answer.
local function send(self, run, a)
  if not is_live(self, a) then return end
  local lead = self.lead
  local part = lead.ledger.runs[a.run].parts[a.part]
  local body = body_of(self, run, a, part)
  local wait = backoff.new(lead.node.world, { base_ms = 200, cap_ms = 3000 })
  local err, code, unsure -- unsure: a try may have arrived and its answer been lost.
  for try = 1, TRIES_MAX do
    local executor = lead.executors:get(a.executor)
    local reply
    if executor and executor.state ~= "down" then
      reply, err, code = lead.node.rpc:peer(executor.address):call("part.dispatch", body, { timeout_ms = CALL_MS })
    else
      err, code = a.executor .. " went away", "REFUSED"
    end
    if not is_live(self, a) then return end
    if reply then
      a.seen_ms = task.now_ms()
      self:taken(a, 0)
      lead.suspects:answered(a.executor, a.job)
      lead.leases:heard(a)
      if a.state == "sending" then move(a, "running") else self:wake() end -- A cancel waits for the dispatch to be answered.
      return
    end
    if code == "DECLINED" and not unsure then return self:doom(a, "declined", err, false) end -- Its right, and no failure.
    errors.report("lead.dispatch", {
      job = a.job, workflow = a.workflow, part = a.part, executor = a.executor, fence = a.fence, attempt = try,
    }, err, code)
    -- A refusal settles this try, but not an earlier one whose answer was lost.
    if FINAL_REFUSAL[code] and not (unsure and NEVER_TAKEN[code]) then break end
    unsure = unsure or code ~= "OVERLOADED" and not NEVER_TAKEN[code]
    if a.state == "cancelling" then break end
    task.sleep(wait:next())
    if not is_live(self, a) then return end
  end
  if a.state == "cancelling" and unsure then return self:wake() end -- The answer to its cancel settles it.
  if a.state == "running" and not FINAL_REFUSAL[code] then return end -- It reported or renewed meanwhile: only the answers were lost.
  local never_ran = not unsure and (NEVER_TAKEN[code] or code == "OVERLOADED")
  if not never_ran then lead.leases:heard(a) end -- It may have been taken just now, and its lease counted from there.
  self:doom(a, never_ran and "refused" or "lost", ("dispatch to %s: %s"):format(a.executor, err), not never_ran)
end

--- The ledger has dispatched a part: send it.
function attempts:begin(run, entry, part)
  local a = add(self, run, entry, part, "sending")
  local granted, err = self.lead.leases:grant(a)
  if not granted then return self:doom(a, "refused", "its lease: " .. err, false) end
  a.sender = run.scope:keep("lead.dispatch", {
    job = a.job, workflow = a.workflow, part = a.part, executor = a.executor, fence = a.fence, attempt = a.attempt,
  }, function ()
    local free <close> = setmetatable({}, { __close = function () a.sender = nil end })
    send(self, run, a)
  end)
end

--- Adopt an attempt that was already dispatched when this leadership began.
function attempts:find(run, entry, part)
  self.lead.leases:find(add(self, run, entry, part, "unheard"))
end

-- Reports of executors -------------------------------------------------------------------------------------------------

--- Progress of one attempt; the newest wins. False: the attempt does not count.
---@param item { fence: integer, seq: integer, stats: table<string, integer>, age_ms: integer? }
function attempts:hear(key, item)
  local a = self:get(key, item.part)
  if not a or a.fence ~= item.fence then return false end
  self:taken(a, item.age_ms)
  if item.seq <= a.seq then return true end
  a.seq, a.seen_ms, a.progress = item.seq, task.now_ms(), item.stats
  if self.lead.suspects.count > 0 then self.lead.suspects:moved(a.executor, a.job) end
  if a.state == "sending" or a.state == "unheard" then move(a, "running") end
  return true
end

--- Its executor answered that it runs an attempt that this leadership had not heard of yet.
function attempts:found(a) move(a, "running") end

--- An executor lists its parts: adopt the attempts that count, doom those it does not have, cancel there those that no longer count.
---@param executor table
---@param parts { job: string, part: string, fence: integer }[]
function attempts:reconcile(executor, parts)
  local lead, reported = self.lead, {}
  for _, report in ipairs(parts) do
    reported[("%s %s %d"):format(report.job, report.part, report.fence)] = report
  end
  for _, at in ipairs(lead.ledger:on(executor.name)) do
    local a = self:get(at.run, at.part)
    if a then
      local id = ("%s %s %d"):format(a.job, a.part, a.fence)
      if reported[id] then
        a.seen_ms = task.now_ms()
        lead.leases:heard(a)
        if a.state == "unheard" then move(a, "running") end
      elseif a.state ~= "sending" then
        self:doom(a, "lost", executor.name .. " does not have it", false)
      end
      reported[id] = nil
    end
  end
  for _, report in sorted(reported) do
    local key, entry = lead:find_run(report)
    local part = entry and entry.parts and entry.parts[report.part]
    if part and part.fence > report.fence then
      self:cancel_stray(report, executor.name, executor.address, "this attempt no longer counts")
    end
    if key and not part and lead.FINAL[entry.state] then
      self:cancel_stray(report, executor.name, executor.address, "the job has ended")
    end
  end
end

-- Cancelling -----------------------------------------------------------------------------------------------------------

function cancel(self, of, what, executor, address, reason)
  local id = ("%s %s %d"):format(what.job, what.part, what.fence)
  if self.cancels[id] then return end
  self.cancels[id] = {
    id = id, of = of, job = what.job, part = what.part, fence = what.fence, executor = executor, address = address, reason = reason,
    known = self.lead.executors:get(executor) ~= nil,
    begun_ms = task.now_ms(), due_ms = task.now_ms(),
    until_ms = task.now_ms() + (of and of.given_up and self.lead.leases.ttl_ms + END_SLACK_MS or CANCEL_DEADLINE_MS),
    wait = backoff.new(self.lead.node.world, { base_ms = 200, cap_ms = 3000 }),
  }
  self:wake()
end

--- Cancel an attempt of a run that is ending. Its result settles it, or its executor's death, or the deadline.
function attempts:cancel(a, reason)
  if not is_live(self, a) or a.state == "cancelling" then return end
  move(a, "cancelling")
  cancel(self, a, a, a.executor, nil, reason)
end

--- Cancel an attempt that does not count here but may still run on its executor.
---@param what { job: string, part: string, fence: integer }
function attempts:cancel_stray(what, executor, address, reason)
  cancel(self, nil, what, executor, address, reason)
end

local function where_to(self, c)
  local executor = self.lead.executors:get(c.executor)
  c.known = c.known or executor ~= nil
  if executor and executor.state == "down" or not executor and c.known then return nil, "gone" end
  return executor and executor.address or c.address
end

local function answered(self, c, state)
  self.lead.suspects:answered(c.executor, c.job)
  if not c.of then
    self.cancels[c.id] = nil
  elseif state == "unknown" then
    self.cancels[c.id] = nil
    self:doom(c.of, "lost", c.of.given_up or "it was not running there", false)
  else
    c.answered, c.until_ms = true, task.now_ms() + CANCEL_DEADLINE_MS
  end
end

local function call_cancel(self, c, address)
  c.busy = true
  local over = false
  self.scope:keep("lead.cancel", { job = c.job, part = c.part, executor = c.executor }, function ()
    if over then return end -- It failed: the reconcile step sends it again while it is due.
    local free <close> = setmetatable({}, { __close = function () c.busy, over = false, true end })
    local reply, err, code = self.lead.node.rpc:peer(address):call("part.cancel", {
      job = c.job, part = c.part, fence = c.fence, reason = c.reason, deadline_ms = CANCEL_MS, led = self.lead.fence,
    }, { timeout_ms = CALL_MS })
    if self.cancels[c.id] ~= c then return end
    if reply then return answered(self, c, reply.state) end
    errors.report("lead.cancel", { job = c.job, part = c.part, executor = c.executor }, err, code)
    c.due_ms = task.now_ms() + c.wait:next()
    self:wake()
  end)
end

--- Send each cancel that is due. Returns when the next one is due.
local function drive_cancels(self, now)
  local next_ms = math.huge
  for id, c in sorted(self.cancels) do
    local live = not c.of or is_live(self, c.of)
    local address, gone = where_to(self, c)
    if not live or gone and not c.of then
      self.cancels[id] = nil
    elseif now >= c.until_ms then
      self.cancels[id] = nil
      if c.of then self:doom(c.of, "lost", c.of.given_up or "no answer to the cancel", false) end
    elseif c.of and c.of.sender and now < c.begun_ms + CALL_MS then
      next_ms = math.min(next_ms, c.begun_ms + CALL_MS) -- Its dispatch is still in flight, and the cancel must not overtake it.
    elseif not c.answered and not c.busy and address then
      if now >= c.due_ms then call_cancel(self, c, address) else next_ms = math.min(next_ms, c.due_ms) end
    end
    next_ms = math.min(next_ms, c.until_ms)
  end
  return next_ms
end

-- The reconcile step ---------------------------------------------------------------------------------------------------

--- Doom attempts on executors that are gone.
local function look_at_executors(self)
  local lead = self.lead
  for name in sorted(lead.ledger.executors) do
    local e = lead.executors:get(name)
    if e and e.state == "down" then
      for _, at in ipairs(lead.ledger:on(name)) do
        local a = self:get(at.run, at.part)
        if a and a.executor == name then self:doom(a, "lost", e.why, false) end
      end
    end
  end
  for name, e in sorted(lead.executors.byname) do
    if e.state == "down" and lead.ledger:count_on(name) == 0 then lead.executors:remove(name) end
  end
end

--- Move the parts that have not ended on workers that are drained. One with retries = 0 must not run twice, so it fails.
local function look_at_drained(self)
  local lead = self.lead
  for name, h in sorted(lead.ledger.held) do
    if h.mode == "draining" and lead:clock_ms() >= h.until_ms then
      for _, at in ipairs(lead.ledger:on(name)) do
        local a = self:get(at.run, at.part)
        if a and a.executor == name and a.state ~= "cancelling" and a.state ~= "doomed" then
          a.moved = true
          self:doom(a, "lost", ("%s is drained"):format(name), true)
        end
      end
    end
  end
end

--- Doom attempts whose lease expired, once their executors must have stopped them. Returns when the next one is due.
local function look_at_orphans(self, now)
  local next_ms, due = math.huge, {}
  for a in next, self.orphans do -- order-free: sorted below
    if now >= a.orphan.due_ms then due[#due + 1] = a else next_ms = math.min(next_ms, a.orphan.due_ms) end
  end
  table.sort(due, function (x, y) return x.fence < y.fence or x.fence == y.fence and x.lease < y.lease end)
  for _, a in ipairs(due) do
    self.orphans[a] = nil
    self:doom(a, "lost", a.orphan.reason, true)
  end
  return next_ms
end

--- While a datacenter does not answer, whether it is lost is for eviction.lua to decide, for all of its parts: neither silence nor leases that
--- could not be renewed decide it for one of them.
local function spare(lead, a, now)
  local e = lead.executors:get(a.executor)
  if not e or e.state == "down" then return end -- Never heard of by this leadership, or evicted.
  local silent_ms, period_ms = lead.options.sign_of(a.executor)
  if silent_ms <= SIGNS * period_ms then return end
  a.seen_ms = now
  lead.leases:heard(a)
end

local function look_at_silence(self, now)
  local silent_ms = self.lead.options.silent_ms
  for _, of_run in sorted(self.of) do
    for _, a in sorted(of_run) do
      if self.lead.options.sign_of then spare(self.lead, a, now) end
      if a.state == "running" and now - a.seen_ms >= silent_ms then
        self:doom(a, "lost", ("no progress for %.0f ms"):format(now - a.seen_ms), true)
      end
    end
  end
end

--- This step ran late, and no report could be read meanwhile: move every silence deadline by the delay.
local function excuse(self, now)
  local late_ms = now - self.looked_ms - 2 * LOOK_MS
  self.looked_ms = now
  if late_ms <= 0 then return end
  for _, of_run in next, self.of do -- order-free: each by itself
    for _, a in next, of_run do a.seen_ms = math.min(now, a.seen_ms + late_ms) end -- order-free: each by itself
  end
  self.lead.suspects:excuse(late_ms, now)
  self.lead.leases:catch_up()
end

--- A full step every LOOK_MS; between two of them, only the work that was requested.
local function step(self)
  local now = task.now_ms()
  if now - self.looked_ms >= LOOK_MS then
    excuse(self, now)
    look_at_executors(self)
    if next(self.lead.ledger.held) then look_at_drained(self) end
    if self.count > 0 then look_at_silence(self, now) end
    self.lead.suspects:look(now)
  elseif self.someone_gone then
    look_at_executors(self)
  end
  self.someone_gone = false
  local due_ms = look_at_orphans(self, now)
  if next(self.cancels) then due_ms = math.min(due_ms, drive_cancels(self, now)) end
  if next(self.doomed) and not bury(self) then due_ms = now + RETRY_MS end
  now = task.now_ms()
  return math.max(1, math.min(self.looked_ms + LOOK_MS, due_ms) - now)
end

function attempts:work()
  while true do
    local ok, wait_ms = errors.call("lead.reconcile", {}, step, self)
    local _, err, code = self.wake_up:pop(ok and wait_ms or LOOK_MS)
    if err and code ~= "TIMEOUT" then return end
  end
end

--- The ack of one progress message.
---@param level string
---@param unknown integer[]
---@param stop integer[]
---@return string bytes
function attempts.ack(lead, level, unknown, stop)
  return ack.encode {
    level = level, leader = lead.node.name, leader_address = lead.node.address, fence = lead.fence, unknown = #unknown > 0 and unknown or nil,
    stop = #stop > 0 and stop or nil,
  }
end

return attempts
