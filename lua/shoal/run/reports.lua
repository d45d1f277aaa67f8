--- reports: progress and results, from an executor to the leaders of its parts. A worker reports to its managers with it, a
--- manager to its gates.
---
---   progress   the newest record of each part waits, so the buffer is as large as the work. Each leader has a flush loop of its
---              own while something waits for it (reports/progress.lua), so one that does not answer delays no other.
---   results    each is sent until its leader has accepted it (reports/results.lua). Results past the limits of memory wait on
---              disk (reports/spill.lua).
---
--- A job's record (its live parts, the address of its leader) goes with its last part. While nothing waits, no task, timer
--- or loop of this module exists.
local errors = require "shoal.base.errors"
local progress = require "shoal.run.reports.progress"
local results = require "shoal.run.reports.results"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local reports = {}
reports.__index = reports

local SEND_MS = 2000
local ASK_EVERY_MS = 1000 -- A job's leader is asked for at most so often, jittered.
local FAULT = { FAILED = true, MALFORMED = true, REFUSED = true, NOT_FOUND = true } -- An answer, though one of no use.

---@class Reports
---@field jobs table<string, { parts: table<string, ReportPart>, count: integer, asked_ms: number, redirect: string? }>
---@field leaders table<string, ReportLeader>  by address

---@class ReportPart   a live part
---@field key string
---@field job string
---@field seq integer
---@field fence integer         of its newest attempt
---@field over integer          the greatest fence of a result: of that attempt and earlier ones no progress is sent
---@field record? table         the newest, while it waits
---@field order? integer        of the first record that waits; the least goes first
---@field leader? ReportLeader  to which it waits to be sent

---@class ReportLeader
---@field address string
---@field name string
---@field waiting table<string, ReportPart>
---@field count integer      of those
---@field failures integer   of progress, in a row
---@field unreadable integer acks that were of no use, in a row
---@field fruitless integer  flushes in a row with which nothing arrived

---@class ReportsOptions
---@field owner "worker"|"manager"  names the sites: "worker.progress.send"
---@field interval_ms number        between two flushes
---@field others fun(): string[]    addresses that may know who leads
---@field unknown fun(record: table)  hears of an attempt of which the leader that dispatched it knows nothing any more
---@field stop? fun(record: table)  hears of an attempt that its leader does not count any more; `unknown` without
---@field led? table               run/leaders.lua: an ack of an earlier leadership is refused
---@field folder? string            where results wait that do not fit the memory; without, all of them wait in memory
---@field restored? fun(record: table): fun(stale: boolean)  hears of each result that an earlier life of this node left in
---  `folder`, and returns what is called when it is accepted

---@param node table
---@param options ReportsOptions
function reports.open(node, options)
  local self = setmetatable({
    node = node, options = options, scope = task.scope("reports", node.scope), jobs = {}, leaders = {}, orders = 0, level_ms = 0,
    site = {
      send = options.owner .. ".progress.send", ack = options.owner .. ".progress.ack",
      loop = options.owner .. ".progress.flush_loop", result = options.owner .. ".result.send",
      spill = options.owner .. ".result.spill", redirect = options.owner .. ".progress.redirect",
      unknown = options.owner .. ".progress.unknown",
    },
  }, reports)
  self.results = results.open(self)
  return self
end

-- Jobs, and the leaders of them ----------------------------------------------------------------------------------------

--- A part's name over all jobs.
function reports.key_of(record) return record.job .. " " .. record.part end

--- This part is live, and so is what is known of its job.
---@return ReportPart
function reports:live(record)
  local known = self.jobs[record.job]
  if not known then
    known = { parts = {}, count = 0, asked_ms = 0 }
    self.jobs[record.job] = known
  end
  local key = reports.key_of(record)
  local part = known.parts[key]
  if not part then
    part = { key = key, job = record.job, seq = 0, fence = record.fence, over = 0 }
    known.parts[key], known.count = part, known.count + 1
  end
  part.fence = math.max(part.fence, record.fence)
  return part
end

--- The leader at an address. `record` names it if its dispatch came from there.
---@return ReportLeader
function reports:leader_at(address, record)
  local leader = self.leaders[address]
  if not leader then
    leader = {
      address = address, name = "?", waiting = {}, count = 0, failures = 0, unreadable = 0, fruitless = 0, full = 0, level = "none",
      level_ms = 0, queue = results.queue(),
    }
    self.leaders[address] = leader
  end
  if leader.name == "?" and record and address == record.leader then leader.name = record.leader_name or "?" end
  return leader
end

--- The leader to report to: the one that dispatched the part, until an ack or an answer named another.
---@return ReportLeader
function reports:leader_of(record)
  local known = self.jobs[record.job]
  return self:leader_at(known and known.redirect or record.leader, record)
end

--- A job's leader is at `address` now (nil: where its dispatch came from). Its waiting records and results go there.
function reports:redirect(job, address)
  local known = self.jobs[job]
  if not known or known.redirect == address then return end
  known.redirect = address
  for _, part in sorted(known.parts) do
    if part.record then progress.place(self, part) end
  end
  self.results:redirected(job)
end

--- A leader was heard of: what waited for it to come back is tried at once.
---@param address string
function reports:heard(address)
  local leader = self.leaders[address]
  if leader then self.results:heard(leader) end
end

--- Forget a part, and with its last part the job.
function reports:forget(record)
  local key, known = reports.key_of(record), self.jobs[record.job]
  local part = known and known.parts[key]
  if not part or part.fence > record.fence then return end -- A newer attempt is live.
  progress.withdraw(part)
  known.parts[key], known.count = nil, known.count - 1
  if known.count > 0 then return end
  self.jobs[record.job] = nil
  if next(self.jobs) then return end
  for address, leader in sorted(self.leaders) do -- Only what goes wrong in a row is remembered from job to job.
    if leader.failures == 0 and leader.unreadable == 0 and leader.count == 0 then self.leaders[address] = nil end
  end
end

-- Asking who leads -----------------------------------------------------------------------------------------------------

--- A record of each job that has something to report to this leader, and of whose leader it is time to ask.
local function jobs_to_ask(self, leader, records)
  local now, out = task.now_ms(), {}
  local function add(record)
    local known = self.jobs[record.job]
    if known and now >= known.asked_ms then out[record.job] = out[record.job] or record end
  end
  for _, part in sorted(leader.waiting) do add(part.record) end
  for _, record in ipairs(self.results:waiting_for(leader)) do add(record) end
  for _, record in ipairs(records or {}) do add(record) end
  return out
end

--- Ask others who leads this job. An answer is a redirect; each that gives none is one incident, and a silent one is not asked again by
--- this round.
local function ask(self, record, silent)
  local known = self.jobs[record.job]
  if not known then return end
  known.asked_ms = task.now_ms() + ASK_EVERY_MS * (1 + 0.2 * self.node.world:unit())
  for _, address in ipairs(self.options.others()) do
    if not silent[address] then
      local reply, err, code = self.node.rpc:peer(address):call("lead.who", { job = record.job }, { timeout_ms = SEND_MS })
      if reply and reply.address ~= "" then return self:redirect(record.job, reply.address) end
      if not reply then
        silent[address] = not FAULT[code] or nil -- One that answers with a fault may know who leads the next job.
        errors.report(self.site.redirect, {
          job = record.job, workflow = record.workflow, part = record.part, address = address,
        }, err, code)
      end
    end
  end
  self:redirect(record.job, nil) -- Nobody knows: where the dispatch came from is the best guess.
end

--- A leader does not answer: ask others who leads the jobs for which something waits to be sent to it.
---@param records? table[]  of parts whose jobs are asked for, too
function reports:ask_who_leads(leader, records)
  if leader.asking then return end
  local jobs = jobs_to_ask(self, leader, records)
  local _, first = next(jobs) -- order-free: for the ids of the task only
  if not first then return end
  local ids = { job = first.job, workflow = first.workflow, part = first.part, address = leader.address } -- Each asked one has its own.
  leader.asking = self.scope:keep(self.site.redirect, ids, function ()
    local free <close> = setmetatable({}, { __close = function () leader.asking = nil end })
    local silent = { [leader.address] = true }
    for _, record in sorted(jobs) do ask(self, record, silent) end
  end)
end

-- Called by owners ------------------------------------------------------------------------------------------------------

--- Newest wins. `record`: job, workflow, part, attempt, fence, leader (address), leader_name, stats (a flat summary),
--- `began_ms` (when the attempt was taken, by task.now_ms), and `since`: above all numbers that an earlier life of this node gave to the
--- same attempt.
function reports:progress(record)
  local part = self:live(record)
  if record.fence <= part.over then return end
  part.seq = math.max(part.seq, record.since or 0) + 1
  record.seq = part.seq
  part.record = record
  progress.place(self, part)
end

--- How often this part has moved so far: the number of its newest progress record.
---@return integer
function reports:seq_of(record)
  local known = self.jobs[record.job]
  local part = known and known.parts[reports.key_of(record)]
  return part and part.seq or 0
end

--- Send all that waits for a leader. Waits.
---@param leader ReportLeader
function reports:flush(leader) progress.flush(self, leader) end

--- A final result: sent until it is accepted, or until the leader that dispatched the part says that it counts no more; a leader
--- that was only named by another has no say in that. No progress of the part is sent from here on. `on_accepted(stale)` runs once then.
---@param record table  as progress, with state, reason?, and result: bytes, or fun(): bytes?, err? that reads them when they are sent
---@param on_accepted fun(stale: boolean)
function reports:result(record, on_accepted)
  local part = self:live(record)
  part.over = math.max(part.over, record.fence)
  if part.record and part.record.fence <= part.over then progress.withdraw(part) end
  self.results:add(record, on_accepted)
end

--- The flush interval now, of one leader or of the slowest: the set one, and what that leader's level adds while it is fresh. While
--- nothing at all goes out it doubles up to FLUSH_CAP_MS, +-20 %, and one send that succeeds ends that.
---@param leader? ReportLeader
function reports:interval_ms(leader)
  if leader then return progress.interval_ms(self, leader) end
  local longest = self.options.interval_ms
  for _, each in sorted(self.leaders) do longest = math.max(longest, progress.interval_ms(self, each, not each.loop)) end
  return longest
end

--- How much waits, for people and specs. `level` is the highest of all leaders.
function reports:counts()
  local waiting, level = 0, "none"
  for _, leader in sorted(self.leaders) do
    waiting, level = waiting + leader.count, progress.higher(level, progress.level(leader))
  end
  return { waiting = waiting, results = self.results.count, spilled = self.results.spilled, level = level }
end

--- Send what waits once more, then end; results that were not accepted in time go to disk. Waits.
function reports:close(timeout_ms)
  local deadline_ms = task.now_ms() + timeout_ms
  for _, leader in sorted(self.leaders) do progress.hurry(self, leader) end
  while task.now_ms() < deadline_ms do
    local c = self:counts()
    if c.waiting == 0 and c.results == 0 then break end
    task.sleep(20)
  end
  self.results:keep()
  self.scope:close()
end

return reports
