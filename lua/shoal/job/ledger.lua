--- ledger: the durable state of a tier's jobs, as a pure state machine fed by the tier's log.
---
--- One tier leads a *run*: a whole job that a client submitted, or one workflow's share that a higher tier dispatched. Its key is the
--- job's id; for a share, "|" and the higher tier's part follow ("checkout-7|warm/a").
---
---              create              cancel                    finish
---   (nothing) -------->  running ----------->  cancelling  ------------>  completed | failed | cancelled | timed_out
---                           |                                  ^
---                           +----------------------------------+          final states absorb
---
---   part:  split -> pending --place--> dispatched --ended--> completed | failed | cancelled
---                      ^                      |
---                      +-------- lost --------+        each dispatch has a new attempt and a greater fence
---
--- Commands are small packed tables. Time enters as `at_ms`, the tier's clock at the proposing leader (see lead.lua), randomness as
--- `salt`. `apply` returns *facts*: the changes that the command made, in order. The leader acts on facts, whichever call proposed the
--- command and however it returned. A command that no longer applies (a second create of one key, an end of an older attempt) changes
--- nothing and returns `stale`.
---
--- The same transitions maintain all derived state: the cores that each executor's attempts hold (`load`), the parts it has (`on`),
--- the open parts and merged numbers of each workflow (`work`). An ended part adds its numbers there and keeps nothing else, so that
--- a job of 10,000 parts stays small. An ended run is one string of bytes (past.lua).
local machine = require "shoal.base.machine"
local msgpack = require "shoal.core.msgpack"
local outbox = require "shoal.job.outbox"
local past = require "shoal.job.past"
local saving = require "shoal.job.saving"
local sorted = require "shoal.base.sorted"
local tally = require "shoal.job.tally"

local ledger = {}
ledger.__index = ledger

ledger.FINAL = { completed = true, failed = true, cancelled = true, timed_out = true }

ledger.HELD_MAX = 4096 -- Executors that are cordoned or draining.

local REFUSALS_MAX = 100 -- Refusals in a row of one part; a policy cannot raise it.

local RUN = machine.define {
  name = "run", first = "running",
  moves = {
    running = { "cancelling", "completed", "failed", "cancelled" },
    cancelling = { "completed", "failed", "cancelled", "timed_out" },
    completed = {}, failed = {}, cancelled = {}, timed_out = {},
  },
}

local PART = machine.define {
  name = "part", first = "pending",
  moves = {
    pending = { "dispatched", "cancelled" },
    dispatched = { "pending", "completed", "failed", "cancelled" },
    completed = {}, failed = {}, cancelled = {},
  },
}

function ledger.new()
  return setmetatable({
    runs = {}, past = {}, clock_ms = 0, ended = {}, held = {},
    outbox = outbox.new(), -- The rest is derived from these. `ended` lists keys in order of their end.
    keys = {}, jobs = {}, handing = {}, executors = {}, files = {}, result_bytes = 0, inline_bytes = 0, live = 0, live_bytes = 0,
  }, ledger)
end

---@param command table  with `kind`
---@return string bytes  for `apply`
function ledger.encode(command)
  return msgpack.pack(command)
end

-- Derived state --------------------------------------------------------------------------------------------------------

--- Index a run: by its submission's key, and by its job when it is a share of one.
local function index_run(self, run)
  if run.key ~= "" then self.keys[run.key] = run.run end
  if run.run == run.job then return end
  local of_job = self.jobs[run.job]
  if not of_job then
    of_job = {}
    self.jobs[run.job] = of_job
  end
  of_job[run.run] = true
end

local function unindex_run(self, run)
  if self.keys[run.key] == run.run then self.keys[run.key] = nil end
  local of_job = self.jobs[run.job]
  if not of_job then return end
  of_job[run.run] = nil
  if not next(of_job) then self.jobs[run.job] = nil end
end

--- Count a live run, and the bytes of its spec, which a snapshot contains.
local function count_live(self, run, sign)
  self.live, self.live_bytes = self.live + sign, self.live_bytes + sign * #run.spec
end

--- Count a result: its bytes, and the uses of its file.
local function count_result(self, run, sign)
  self.result_bytes = self.result_bytes + sign * run.bytes
  if run.result then self.inline_bytes = self.inline_bytes + sign * #run.result end
  local file = run.file and run.file.name
  if file then self.files[file] = (self.files[file] or 0) + sign end
end

--- Drop a run's result. Returns its file if no other run needs it.
local function release_result(self, run)
  count_result(self, run, -1)
  local file = run.file and run.file.name
  if not file or self.files[file] > 0 then return nil end
  self.files[file] = nil
  return file
end

--- Keep an ended run, packed.
local function keep(self, run)
  self.past[run.run] = past.pack(run)
  count_result(self, run, 1)
  if run.upstream then self.handing[run.run] = true end
end

--- Remove an ended run. Returns its file if no other run needs it.
local function remove(self, run)
  unindex_run(self, run)
  self.past[run.run], self.handing[run.run] = nil, nil
  return release_result(self, run)
end

--- Add the attempt's cores to its executor's load.
local function hold(self, run, part)
  local e = self.executors[part.executor]
  if not e then
    e = { cores = 0, count = 0, parts = {} }
    self.executors[part.executor] = e
  end
  e.cores, e.count = e.cores + part.cores, e.count + 1
  e.parts[run.run .. " " .. part.part] = { run = run.run, part = part.part }
end

local function let_off(self, run, part)
  local e = self.executors[part.executor]
  e.cores, e.count = e.cores - part.cores, e.count - 1
  e.parts[run.run .. " " .. part.part] = nil
  assert(e.cores >= 0 and e.count >= 0)
  if e.count == 0 then self.executors[part.executor] = nil end
end

--- How many cores of this executor our attempts hold.
---@param executor string
---@return integer
function ledger:load(executor)
  local e = self.executors[executor]
  return e and e.cores or 0
end

--- The parts that are dispatched to this executor, sorted.
---@param executor string
---@return { run: string, part: string }[]
function ledger:on(executor)
  local out = {}
  for _, at in sorted((self.executors[executor] or { parts = {} }).parts) do out[#out + 1] = at end
  return out
end

--- "cordoned" or "draining" if this executor gets no new parts.
---@param executor string
---@return string?
function ledger:hold_of(executor)
  local h = self.held[executor]
  return h and h.mode
end

--- How many attempts are dispatched to this executor.
function ledger:count_on(executor)
  local e = self.executors[executor]
  return e and e.count or 0
end

-- Changing -------------------------------------------------------------------------------------------------------------

--- Get a run in order to change it: a snapshot in progress saves its old state first.
local function changing(self, key)
  local run = self.runs[key]
  if run and self.saving then self.saving:before_change(run) end
  return run
end

local function part_of(self, key, name)
  local run = changing(self, key)
  local part = run and run.parts[name]
  if part and self.saving then self.saving:before_part(run, part) end
  return run, part
end

local apply = {}

local place_all

--- Whether a submission with a known key is of the same job. Jobs of an earlier version have no digest.
local function same_content(run, digest) return not run.digest or not digest or run.digest == digest end
ledger.same_content = same_content

--- create{ run, job, key, name, salt, spec, upstream?, timeout_ms?, place?, origin?, digest? }: a job without an id gets one from this
--- index. `place` places the run's first parts in the same step, as the command `place` does ("" is this run). `digest`: of the
--- content; the answer says `other` when the key is of a job with another one.
function apply.create(self, index, c)
  if c.job == "" then
    c.job = ("%s-%d-%s"):format(c.name, index, c.salt)
    c.run = c.job
  end
  local known = c.key ~= "" and self.keys[c.key] or (self.runs[c.run] or self.past[c.run]) and c.run
  if known then return { answer = { run = known, duplicate = true, other = not same_content(self:run(known), c.digest) } } end
  local run = RUN:enter {
    run = c.run, job = c.job, key = c.key, name = c.name, spec = c.spec, upstream = c.upstream, index = index, parts = {}, split = {},
    work = {}, started_ms = self.clock_ms, limit_ms = c.timeout_ms, origin = c.origin, digest = c.digest,
  }
  if self.saving then self.saving:skip(run) end
  self.runs[c.run] = run
  index_run(self, run)
  count_live(self, run, 1)
  local facts = { answer = { run = c.run, duplicate = false }, { kind = "run_created", run = c.run } }
  if c.place then place_all(self, facts, index, c.place, c.run) end
  return facts
end

local function split(self, facts, c, key)
  local run = changing(self, key)
  if not run or run.state ~= "running" or run.split[c.workflow] then return end
  local names = {}
  for i, piece in ipairs(c.parts) do
    names[i] = piece.part
    if self.saving then self.saving:new_part(run, piece.part) end
    run.parts[piece.part] = PART:enter {
      part = piece.part, workflow = c.workflow, n = i, share = piece.share, cores = piece.cores or 0, retries = c.retries or 0,
      attempt = c.attempt or 0, -- A higher tier's part goes on counting.
      fence = 0, executions = 0, refusals = 0, history = {},
    }
  end
  run.split[c.workflow] = names
  run.work[c.workflow] = tally.new(#names)
  facts[#facts + 1] = { kind = "run_split", run = key, workflow = c.workflow }
end

local function place(self, facts, index, c, key)
  local run, part = part_of(self, key, c.part)
  local why
  if not part or run.state ~= "running" or part.state ~= "pending" then
    why = "stale"
  elseif self.held[c.executor] then
    why = "held"
  elseif c.capacity and self:load(c.executor) + part.cores > c.capacity then
    why = "full"
  end
  if why then
    facts[#facts + 1] = { kind = "part_unplaced", run = key, part = c.part, executor = c.executor, why = why }
    return
  end
  assert(PART:step(part, "dispatched"))
  part.attempt, part.fence, part.executor = part.attempt + 1, index, c.executor
  run.began_ms = run.began_ms or self.clock_ms
  hold(self, run, part)
  facts[#facts + 1] = {
    kind = "part_dispatched", run = key, part = c.part, executor = c.executor, fence = index, attempt = part.attempt,
  }
end

--- place{ splits = { { run, workflow, retries, attempt?, parts = { { part, share, cores } } } },
--- places = { { run, part, executor, capacity? } } }: split workflows and give parts to executors, each by itself. The
--- index is the fence of each attempt. `capacity` is the executor's number of cores: an attempt that would exceed it is not placed.
function apply.place(self, index, c)
  local facts = {}
  place_all(self, facts, index, c)
  return facts
end

function place_all(self, facts, index, c, this)
  for _, each in ipairs(c.splits or {}) do split(self, facts, each, this or each.run) end
  for _, each in ipairs(c.places or {}) do place(self, facts, index, each, this or each.run) end
end

--- An attempt is over: add its numbers, free its cores.
--- `moved`: its executor is drained, so it does not count as an execution.
local function close_attempt(self, run, part, state, reason, progress, within, moved)
  let_off(self, run, part)
  local work = run.work[part.workflow]
  part.executions = part.executions + ((state == "refused" or moved) and 0 or math.max(1, progress and progress.executions or 1))
  work.executions = math.max(work.executions or 0, part.executions)
  part.refusals = state == "refused" and part.refusals + 1 or 0
  part.counts = tally.add(part.counts or {}, progress)
  if state == "lost" and progress then part.counts.lost = (part.counts.lost or 0) + (progress.requests or 0) end
  tally.attempt(run, work, {
    workflow = part.workflow, part = part.part, attempt = part.attempt, executor = part.executor, state = state, reason = reason,
    stats = progress,
  }, within)
  part.history[#part.history + 1] = {
    attempt = part.attempt, fence = part.fence, executor = part.executor, state = state, reason = reason,
  }
  part.executor = nil
end

--- Count the executions of an attempt that is over; `again`: its part is executed once more.
local function count_runs(work, state, progress, again)
  if state == "refused" or state == "declined" then return end
  local runs = progress and progress.runs or 1
  work.runs = (work.runs or 0) + runs
  work.retried = (work.retried or 0) + (again and runs or progress and progress.retried or 0)
end

local function end_part(run, part, state, reason)
  assert(PART:step(part, state))
  tally.ended(run.work[part.workflow], part, state, reason)
  part.reason, part.history, part.share, part.cores, part.n, part.refusals = reason ~= "" and reason or nil, nil, nil, nil, nil, nil
end

--- Whether the part may run once more. A policy can forbid a retry, but cannot allow one beyond this limit.
local function may_again(run, part, state)
  if run.state ~= "running" then return false end
  if state == "declined" then return true end
  if state == "refused" then return part.refusals < REFUSALS_MAX end
  return part.executions <= part.retries
end

local function lose(self, facts, c)
  local run, part = part_of(self, c.run, c.part)
  if not part or part.fence ~= c.fence or part.state ~= "dispatched" then return end
  local executor, attempt = part.executor, part.attempt
  if c.state == "declined" then -- It never was an attempt: its number is used again, and nothing of it is kept.
    let_off(self, run, part)
    part.attempt, part.executor = part.attempt - 1, nil
  else
    close_attempt(self, run, part, c.state, c.reason, c.state == "lost" and c.progress or nil, nil, c.moved)
  end
  local again = c.retry == true and may_again(run, part, c.state)
  count_runs(run.work[part.workflow], c.state, c.progress, again)
  if again then
    assert(PART:step(part, "pending"))
  else
    end_part(run, part, run.state == "cancelling" and "cancelled" or "failed", c.reason)
  end
  facts[#facts + 1] = {
    kind = "part_lost", run = c.run, part = c.part, fence = c.fence, executor = executor, state = c.state, reason = c.reason, again = again,
    still_there = c.still_there, moved = c.moved, attempt = attempt,
  }
end

--- lost{ parts = { { run, part, fence, state, reason, progress?, retry, still_there?, moved? } } }: attempts ended without a result: "lost", or
--- "refused" when they never ran, "declined" when the executor takes no such work. `retry` true requests another attempt.
--- `still_there`: it may still run, and must be cancelled. `moved`: see close_attempt.
function apply.lost(self, _, c)
  local facts = {}
  for _, each in ipairs(c.parts) do lose(self, facts, each) end
  return facts
end

local finish

--- ended{ run, part, fence, state, reason?, result?, progress?, retry?, offset_ms?, finish? }: the executor reported a result, whose
--- stretches of load are counted from offset_ms after the beginning of the run. `finish` { state, reason?, result, workflows } finishes
--- the run in the same step, if no part is open after it and all `workflows` were split.
function apply.ended(self, index, c)
  local run, part = part_of(self, c.run, c.part)
  if not part or part.fence ~= c.fence or part.state ~= "dispatched" then return { stale = true } end
  local executor, attempt = part.executor, part.attempt
  local inner = tally.read(c.result)
  close_attempt(self, run, part, c.state, c.reason, c.progress, inner.attempts)
  tally.incidents(run, inner.incidents)
  local again = c.state == "failed" and c.retry == true and may_again(run, part, "failed")
  count_runs(run.work[part.workflow], c.state, c.progress, again)
  if again then
    assert(PART:step(part, "pending"))
  else
    tally.measured(run.work[part.workflow], inner.stats, c.state == "completed" and c.progress, c.offset_ms)
    end_part(run, part, c.state, c.reason)
  end
  local facts = { { kind = "part_ended", run = c.run, part = c.part, fence = c.fence, executor = executor, state = c.state, again = again,
    attempt = attempt, reason = c.reason } }
  if c.finish and run.state == "running" then
    local cut = 0
    for _ in next, run.work do cut = cut + 1 end -- order-free: a count
    if cut == c.finish.workflows then finish(self, facts, run, c.finish, index) end
  end
  return facts
end

--- cancel{ run, reason, state }: stop the run; `state` is its final state (cancelled or timed_out). Pending parts will not run.
function apply.cancel(self, _, c)
  local run = changing(self, c.run)
  local ended = not run and self:ended_run(c.run)
  if not run then return { stale = true, answer = ended and { state = ended.state } or nil } end
  if run.state ~= "running" then return { stale = true, answer = { state = run.state } } end
  assert(RUN:step(run, "cancelling"))
  run.reason, run.ends_as = c.reason, c.state
  for _, names in sorted(run.split) do
    for _, name in ipairs(names) do
      if run.parts[name].state == "pending" then
        local _, part = part_of(self, c.run, name)
        end_part(run, part, "cancelled", c.reason)
      end
    end
  end
  return { answer = { state = run.state }, { kind = "run_cancelling", run = c.run, reason = c.reason } }
end

--- led{ run }: this node takes the leadership of a run once more; this index is its fence.
function apply.led(self, index, c)
  local run = changing(self, c.run)
  if not run then return { stale = true } end
  return { answer = { fence = index }, { kind = "run_led", run = c.run } }
end

--- finish{ run, state, reason?, result? | file? { name, bytes, crc }, gave_up? }: the run gets its final state and result. It is stale
--- while a part is open, for that part's numbers would be missing, unless the leader gives the run up (`gave_up`).
function apply.finish(self, index, c)
  local facts, run = {}, changing(self, c.run)
  if not run or not finish(self, facts, run, c, index) then return { stale = true } end
  return facts
end

--- False: the command does not apply.
function finish(self, facts, run, c, index)
  if not c.gave_up then
    for _, work in next, run.work do -- order-free: any open part refuses
      if work.open > 0 then return false end
    end
  end
  if not RUN:step(run, c.state) then return false end
  for _, part in next, run.parts do -- order-free: sums
    if part.state == "dispatched" then let_off(self, run, part) end
  end
  count_live(self, run, -1)
  run.reason, run.result, run.file, run.ended_ms = c.reason, c.result, c.file, self.clock_ms
  run.bytes = c.result and #c.result or c.file and c.file.bytes or 0
  self.runs[run.run] = nil
  keep(self, run) -- The result, not the work.
  self.ended[#self.ended + 1] = run.run
  facts[#facts + 1] = { kind = "run_finished", run = run.run, state = c.state, index = index }
  return true
end

--- hold{ executor, mode, until_ms? }: "cordoned" and "draining" (its parts may end until until_ms) give it no new parts; "none" ends it.
function apply.hold(self, _, c)
  local known, count = self.held[c.executor], 0
  if c.mode == "none" then
    self.held[c.executor] = nil
    if not known then return { stale = true } end
  else
    for _ in next, self.held do count = count + 1 end -- order-free: a count
    if not known and count >= ledger.HELD_MAX then return { stale = true, answer = { full = count } } end
    self.held[c.executor] = { mode = c.mode, until_ms = c.until_ms, since_ms = known and known.since_ms or self.clock_ms }
  end
  return { { kind = "executor_held", run = "", executor = c.executor, mode = c.mode } }
end

--- told{ seqs }: hooks took these events of the outbox.
function apply.told(self, _, c)
  return not self.outbox:told(c.seqs) and { stale = true } or {}
end

--- forget{ runs = { { run, index } } }: remove runs whose results the higher tier has.
function apply.forget(self, _, c)
  local facts = {}
  for _, each in ipairs(c.runs) do
    local run = self:ended_run(each.run)
    if run and each.index == run.index then
      local file = remove(self, run)
      facts[#facts + 1] = { kind = "run_forgotten", run = each.run, index = each.index, file = file }
    end
  end
  if #facts == 0 then facts.stale = true end
  return facts
end

--- expire{ before_ms, most }: remove runs that ended before this instant of the tier's clock, the oldest `most` of them. Runs whose
--- result a higher tier has not accepted stay.
function apply.expire(self, _, c)
  local facts, kept, last = {}, {}, 0
  for i, key in ipairs(self.ended) do
    local run = self:ended_run(key)
    if run and (run.ended_ms >= c.before_ms or #facts >= c.most) then break end
    last = i
    if run and run.upstream then
      kept[#kept + 1] = key
    elseif run then
      local file = remove(self, run)
      facts[#facts + 1] = { kind = "run_forgotten", run = key, index = run.index, file = file }
    end
  end
  if last > #kept then self.ended = table.move(self.ended, last + 1, #self.ended, #kept + 1, kept) end
  return facts
end

--- drop{ runs = { key, ... } }: drop results to make room; the run and its final state stay.
function apply.drop(self, _, c)
  local facts = {}
  for _, key in ipairs(c.runs) do
    local run = self:ended_run(key)
    if run and run.bytes > 0 then
      local file = release_result(self, run)
      run.result, run.file, run.bytes, run.dropped = nil, nil, 0, true
      self.past[key] = past.pack(run)
      facts[#facts + 1] = { kind = "result_dropped", run = key, index = run.index, file = file }
    end
  end
  return facts
end

--- move{ file, runs = { { run, at, crc } } }: results that were held here are now in a file, at these offsets.
function apply.move(self, _, c)
  local facts = { stale = true, { kind = "results_moved", run = "", file = c.file } }
  for _, each in ipairs(c.runs) do
    local run = self:ended_run(each.run)
    if run and run.result and #run.result == run.bytes then
      count_result(self, run, -1)
      run.file, run.result = { name = c.file, bytes = run.bytes, crc = each.crc, at = each.at }, nil
      count_result(self, run, 1)
      self.past[each.run], facts.stale = past.pack(run), nil
    end
  end
  return facts
end

--- The tier's `apply`. Raises on bytes that are no command of ours: the log is then not this program's.
---@param index integer
---@param bytes string
---@return table facts  in order; `stale`: it changed nothing; `answer`: for the proposer
function ledger:apply(index, bytes)
  local c, err = msgpack.unpack(bytes)
  if type(c) ~= "table" then error(("ledger: entry %d: %s"):format(index, err or "no command")) end
  local fn = apply[c.kind]
  if not fn then error(("ledger: entry %d: unknown command %q"):format(index, tostring(c.kind))) end
  if math.type(c.at_ms) == "integer" and c.at_ms > self.clock_ms then self.clock_ms = c.at_ms end
  local facts = fn(self, index, c)
  if c.tell then self.outbox:record(self, index, c.tell, facts) end
  return facts
end

-- Queries --------------------------------------------------------------------------------------------------------------

--- An ended run, unpacked: a copy.
---@param key string
---@return table?
function ledger:ended_run(key)
  local bytes = self.past[key]
  return bytes and past.unpack(bytes)
end

--- A run: live (the ledger's own table, to read only) or ended (a copy).
---@param key string
---@return table?
function ledger:run(key) return self.runs[key] or self:ended_run(key) end

--- The run that a submission's idempotency key created, while it is kept.
---@return table?
function ledger:of_key(key)
  local run = self.keys[key]
  return run and self:run(run)
end

--- The keys of the runs of this job, sorted.
---@return string[]
function ledger:of_job(job)
  if self.runs[job] or self.past[job] then return { job } end
  local of_job = self.jobs[job]
  return of_job and sorted.keys(of_job) or {}
end

--- Live runs in order of creation.
---@return table[]
function ledger:list()
  local out = {}
  for _, run in next, self.runs do out[#out + 1] = run end -- order-free: sorted below
  table.sort(out, function (a, b) return a.index < b.index end)
  return out
end

--- The run as it would be after this command: a copy, for its proposer. Only the fields that such a command reads are copied.
---@param command table  of the kind "ended"
---@return table run
function ledger:preview(command)
  local scratch, real = ledger.new(), self.runs[command.run]
  local run = {}
  for key, value in next, real do run[key] = value end
  local part = {}
  for key, value in next, real.parts[command.part] do part[key] = value end
  part.history = table.move(part.history, 1, #part.history, 1, {})
  part.counts = tally.add({}, part.counts)
  run.parts, run.work = { [command.part] = part }, {}
  for name, work in next, real.work do run.work[name] = work end
  run.work[part.workflow] = tally.copy(real.work[part.workflow])
  if real.attempts then
    run.attempts = table.move(real.attempts, 1, #real.attempts, 1, { completed = real.attempts.completed, others = real.attempts.others })
  end
  if real.incidents then run.incidents = table.move(real.incidents, 1, #real.incidents, 1, {}) end
  scratch.runs[run.run], scratch.clock_ms = run, self.clock_ms
  hold(scratch, run, part)
  apply.ended(scratch, part.fence + 1, command)
  return run
end

-- Snapshots ------------------------------------------------------------------------------------------------------------

--- A snapshot of this instant, in pieces, while commands go on: call the returned function until it returns nil.
---@return fun(): string?
function ledger:snapshot()
  self.saving = saving.new(self)
  return function () return self.saving and self.saving:next(function () self.saving = nil end) end
end

function ledger:restore(bytes)
  local head, runs, rows, events = saving.read(bytes)
  self.runs, self.past, self.clock_ms, self.ended, self.saving = {}, {}, head.clock_ms, head.ended, nil
  self.held, self.outbox = head.held or {}, outbox.restored(head.outbox, events)
  self.keys, self.jobs, self.handing, self.executors, self.files = {}, {}, {}, {}, {}
  self.result_bytes, self.inline_bytes, self.live, self.live_bytes = 0, 0, 0, 0
  for _, run in ipairs(runs) do
    self.runs[run.run] = run
    index_run(self, run)
    count_live(self, run, 1)
    for _, part in next, run.parts do -- order-free: sums
      if part.state == "dispatched" then hold(self, run, part) end
    end
  end
  for _, run in ipairs(rows) do
    index_run(self, run)
    keep(self, run)
  end
end

return ledger
