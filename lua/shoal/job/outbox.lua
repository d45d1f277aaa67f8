--- outbox: events of jobs and parts that operators' hooks have not taken yet, as part of the ledger's state. Pure.
---
--- A leader whose role wires such hooks says so in its commands (`tell`, a bit for each site), and the ledger then keeps an event for
--- each change that they cause, until a `told` command removes it. So an event outlives a restart, and a hook hears of it at least once.
--- Past EVENTS_MAX the oldest is dropped and counted.
local outbox = {}
outbox.__index = outbox

outbox.EVENTS_MAX = 10000
local REASON_MAX = 1000

--- Sites, in the order of their bits.
outbox.SITES = { "job.began", "job.ended", "job.failed", "part.began", "part.ended", "part.failed", "part.retried" }
outbox.ALL = (1 << #outbox.SITES) - 1

local BIT = {}
for i, site in ipairs(outbox.SITES) do BIT[site] = 1 << (i - 1) end

function outbox.new() return setmetatable({ first = 1, last = 0, count = 0, dropped = 0, events = {} }, outbox) end

--- Move `first` to the oldest event that is left.
local function settle(self)
  while self.first <= self.last and not self.events[self.first] do self.first = self.first + 1 end
end

local function add(self, event)
  self.last, self.count = self.last + 1, self.count + 1
  event.seq = self.last
  self.events[self.last] = event
  if self.count > outbox.EVENTS_MAX then
    self.events[self.first] = nil
    self.count, self.dropped = self.count - 1, self.dropped + 1
    settle(self)
  end
end

local events_of = {}

function events_of.run_created(fact, run, put)
  if not run.upstream then put("job.began", { state = "running" }, fact) end
end

function events_of.run_finished(fact, run, put)
  if run.upstream then return end -- The job is the higher tier's.
  local more = { state = run.state, reason = run.reason, started_ms = run.started_ms, ended_ms = run.ended_ms }
  put("job.ended", more, fact)
  if run.state == "failed" or run.state == "timed_out" then put("job.failed", more, fact) end
end

function events_of.part_dispatched(fact, _, put) put("part.began", { state = "dispatched" }, fact) end

local function over(fact, state, put)
  local more = { state = state, reason = fact.reason }
  if fact.again then return put("part.retried", more, fact) end
  put("part.ended", more, fact)
  if state == "failed" then put("part.failed", more, fact) end
end

function events_of.part_ended(fact, _, put) over(fact, fact.state, put) end

function events_of.part_lost(fact, run, put)
  if fact.again and fact.state ~= "lost" then return end -- It never ran: nothing is repeated.
  local part = run.parts and run.parts[fact.part]
  over(fact, fact.again and "lost" or part and part.state or "failed", put)
end

--- Keep the events of a command's facts.
---@param ledger table
---@param index integer  the command's
---@param mask integer   the sites that are hooked
---@param facts table[]
function outbox:record(ledger, index, mask, facts)
  local n = 0
  for _, fact in ipairs(facts) do
    local make = events_of[fact.kind]
    local run = make and ledger:run(fact.run)
    if run then
      make(fact, run, function (site, more, of)
        n = n + 1 -- Also for those not hooked, so that an event has one id whoever hooks what.
        if mask & BIT[site] == 0 then return end
        add(self, {
          site = site, id = ("%s#%d.%d"):format(run.job, index, n), job = run.job, name = run.name, at_ms = ledger.clock_ms,
          state = more.state, reason = more.reason and more.reason ~= "" and more.reason:sub(1, REASON_MAX) or nil,
          started_ms = more.started_ms, ended_ms = more.ended_ms, part = of.part, workflow = of.part and of.part:match "^[^/]+",
          attempt = of.attempt, executor = of.executor,
        })
      end)
    end
  end
end

--- Events that hooks took, or that were given up.
---@param seqs integer[]
---@return boolean changed
function outbox:told(seqs)
  local before = self.count
  for _, seq in ipairs(seqs) do
    if self.events[seq] then self.events[seq], self.count = nil, self.count - 1 end
  end
  settle(self)
  return self.count < before
end

--- The events in order, for a snapshot.
function outbox:list()
  local out = {}
  for seq = self.first, self.last do out[#out + 1] = self.events[seq] end
  return out
end

---@param head? { last: integer, dropped: integer }
---@param events table[]
function outbox.restored(head, events)
  local self = outbox.new()
  if not head then return self end
  self.last, self.dropped, self.count = head.last, head.dropped, #events
  for _, event in ipairs(events) do self.events[event.seq] = event end
  self.first = events[1] and events[1].seq or head.last + 1
  return self
end

return outbox
