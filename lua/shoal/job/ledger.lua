--- ledger: what a tier must not forget about its jobs, as a pure state machine fed by the tier's log.
---
--- A *run* is what one tier leads: a whole job that a client submitted, or one workflow's share that a higher tier
--- dispatched. Its key is the job's id, and behind a "|" the part of the higher tier ("checkout-7|warm/a").
---
---              create              cancel                    finish
---   (nothing) -------->  running ----------->  cancelling  ------------>  completed | failed | cancelled | timed_out
---                           |                                  ^
---                           +----------------------------------+          final states absorb
---
---   part:  split -> pending --dispatch--> dispatched --ended--> completed | failed | cancelled
---                      ^                      |
---                      +-------- lost --------+        each dispatch has a new attempt and a greater fence
---
--- Commands are small tables, packed; a fence is the log index of the dispatch command. A command that no longer applies
--- (a second create of one key, an end of an older attempt) changes nothing; `outcome` tells its proposer.
local msgpack = require "shoal.core.msgpack"
local sorted = require "shoal.base.sorted"

local ledger = {}
ledger.__index = ledger

ledger.FINAL = { completed = true, failed = true, cancelled = true, timed_out = true }

--- An answered key is kept this many finished runs long: by count, for apply() takes no clock.
local FINISHED_MAX = 1000
--- Outcomes wait in a ring: a proposer that gave up, or a replay, does not come for them.
local OUTCOMES_MAX = 4096

function ledger.new()
  return setmetatable({ runs = {}, keys = {}, finished = {}, outcomes = {} }, ledger)
end

---@param command table  with `kind`
---@return string bytes  what `apply` takes
function ledger.encode(command)
  return msgpack.pack(command)
end

local apply = {}

--- create{ run, job, key, name, salt, spec, upstream? }: a job without an id gets one from this index.
function apply.create(self, index, c)
  if c.job == "" then
    c.job = ("%s-%d-%s"):format(c.name, index, c.salt)
    c.run = c.job
  end
  local known = c.key ~= "" and self.keys[c.key] or self.runs[c.run] and c.run
  if known then return { run = known, duplicate = true } end
  self.runs[c.run] = {
    run = c.run, job = c.job, key = c.key, name = c.name, spec = c.spec, upstream = c.upstream,
    index = index, state = "running", parts = {}, split = {},
  }
  if c.key ~= "" then self.keys[c.key] = c.run end
  return { run = c.run, duplicate = false }
end

--- split{ run, workflow, parts = { { part, share } } }
function apply.split(self, _, c)
  local run = self.runs[c.run]
  if not run or ledger.FINAL[run.state] or run.split[c.workflow] then return { stale = true } end
  local names = {}
  for i, piece in ipairs(c.parts) do
    names[i] = piece.part
    run.parts[piece.part] = {
      part = piece.part, workflow = c.workflow, share = piece.share, state = "pending", attempt = 0, fence = 0, history = {},
    }
  end
  run.split[c.workflow] = names
  return {}
end

--- dispatch{ run, part, executor }: a new attempt; the index is its fence.
function apply.dispatch(self, index, c)
  local run = self.runs[c.run]
  local part = run and run.parts[c.part]
  if not part or run.state ~= "running" or part.state ~= "pending" then return { stale = true } end
  part.state, part.attempt, part.fence, part.executor = "dispatched", part.attempt + 1, index, c.executor
  return { attempt = part.attempt, fence = index }
end

local function close_attempt(part, state, reason, executed)
  part.history[#part.history + 1] = {
    attempt = part.attempt, fence = part.fence, executor = part.executor, state = state, reason = reason, progress = executed,
  }
end

--- lost{ run, part, fence, state, reason, progress?, retry }: the attempt is over without a result: "lost", or "refused"
--- when it never ran. `retry` false ends the part.
function apply.lost(self, _, c)
  local run = self.runs[c.run]
  local part = run and run.parts[c.part]
  if not part or part.fence ~= c.fence or part.state ~= "dispatched" then return { stale = true } end
  close_attempt(part, c.state, c.reason, c.progress)
  part.executor = nil
  if c.retry and run.state == "running" then
    part.state = "pending"
  else
    part.state, part.reason = run.state == "cancelling" and "cancelled" or "failed", c.reason
  end
  return {}
end

--- ended{ run, part, fence, state, reason?, result?, retry? }: the executor's own word.
function apply.ended(self, _, c)
  local run = self.runs[c.run]
  local part = run and run.parts[c.part]
  if not part or part.fence ~= c.fence or part.state ~= "dispatched" then return { stale = true } end
  close_attempt(part, c.state, c.reason, c.progress)
  if c.state == "failed" and c.retry and run.state == "running" then
    part.state = "pending"
  else
    part.state, part.reason, part.result = c.state, c.reason, c.result
  end
  return {}
end

--- abandon{ run, part, reason }: a part that was never dispatched will not be.
function apply.abandon(self, _, c)
  local run = self.runs[c.run]
  local part = run and run.parts[c.part]
  if not part or part.state ~= "pending" then return { stale = true } end
  part.state, part.reason = c.state or "cancelled", c.reason
  return {}
end

--- cancel{ run, reason, state }: stop; `state` is the final state to reach (cancelled or timed_out).
function apply.cancel(self, _, c)
  local run = self.runs[c.run]
  if not run then return { missing = true } end
  if run.state ~= "running" then return { state = run.state } end
  run.state, run.reason, run.ends_as = "cancelling", c.reason, c.state
  return { state = run.state }
end

--- finish{ run, state, reason?, result }
function apply.finish(self, _, c)
  local run = self.runs[c.run]
  if not run or ledger.FINAL[run.state] then return { stale = true, state = run and run.state } end
  run.state, run.reason, run.result = c.state, c.reason, c.result
  run.parts, run.split, run.spec = {}, {}, nil -- Nothing of the work outlives it but the answer.
  self.finished[#self.finished + 1] = c.run
  if #self.finished > FINISHED_MAX then
    local oldest = table.remove(self.finished, 1)
    self.keys[self.runs[oldest].key] = nil
    self.runs[oldest] = nil
  end
  return { state = c.state }
end

--- forget{ run, index }: the higher tier has its answer; keep nothing.
function apply.forget(self, _, c)
  local run = self.runs[c.run]
  if not run or not ledger.FINAL[run.state] or c.index and c.index ~= run.index then return { stale = true } end
  self.runs[c.run], self.keys[run.key] = nil, nil
  for i, key in ipairs(self.finished) do
    if key == c.run then
      table.remove(self.finished, i)
      break
    end
  end
  return {}
end

--- The tier's `apply`. Raises on bytes that are no command of ours: the log is then not this program's.
---@param index integer
---@param bytes string
function ledger:apply(index, bytes)
  local c, err = msgpack.unpack(bytes)
  if not c then error("ledger: entry " .. index .. ": " .. err) end
  local fn = apply[c.kind]
  if not fn then error(("ledger: entry %d: unknown command %q"):format(index, tostring(c.kind))) end
  local outcome = fn(self, index, c)
  outcome.index = index
  self.outcomes[index % OUTCOMES_MAX] = outcome
end

--- What the command at this index did, once, for its proposer.
---@param index integer
---@return table
function ledger:outcome(index)
  local slot = index % OUTCOMES_MAX
  local o = self.outcomes[slot]
  if not o or o.index ~= index then return { stale = true } end
  self.outcomes[slot] = nil
  return o
end

--- The run that a submission's key made, while it is remembered.
function ledger:of_key(key) return self.runs[self.keys[key] or ""] end

--- Nobody waits for what was done so far.
function ledger:forget_outcomes() self.outcomes = {} end

--- All of it as bytes, in sorted order, so that equal states give equal bytes.
function ledger:snapshot()
  return msgpack.pack({ runs = self.runs, keys = self.keys, finished = self.finished })
end

function ledger:restore(bytes)
  local s, err = msgpack.unpack(bytes)
  if not s then error("ledger: snapshot: " .. err) end
  self.runs, self.keys, self.finished, self.outcomes = s.runs, s.keys, s.finished, {}
end

--- Runs in the order they were created.
---@return table[]
function ledger:list()
  local out = {}
  for _, run in sorted(self.runs) do out[#out + 1] = run end
  table.sort(out, function (a, b) return a.index < b.index end)
  return out
end

return ledger
