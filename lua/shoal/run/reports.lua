--- reports: progress and results, from whoever runs parts to whoever leads them. A worker reports to its managers with it, a
--- manager to its gates.
---
--- Progress: the newest record of each part waits, so the buffer is as large as the work. The flush loop sends what waits; a
--- failed send goes back unless a newer record is there, and is one incident (FAILURES 1.2). The ack carries the level of
--- backpressure and who leads; it is parsed whole, then applied whole, *none* included (FAILURES 1.3).
---
--- Results: each is sent until its leader has accepted it. After TRIES_MAX quick tries it waits 5 s * 2^n up to 60 s. One that
--- can never arrive (too large for a message, or unreadable there) is sent as a failure that says so.
---
--- What is known of a job (its live parts, where its leader is) goes with its last part; nothing here outlives the work.
local ack = require "shoal.wire.ack"
local backoff = require "shoal.base.backoff"
local errors = require "shoal.base.errors"
local job = require "shoal.job.spec"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local reports = {}
reports.__index = reports

local FLUSH_CAP_MS = 2000      -- The loop's own backoff ends here.
local SEND_MS = 2000
local LEVEL_MS = 10000         -- A level that no ack refreshed for so long has expired.
local DELAY_MS = { none = 0, throttle = 100, batch = 500, reject = 1000 }
local ASK_AFTER = 2            -- Failures to one leader before another is asked who leads.
local ASK_EVERY_MS = 1000      -- ... at most so often a job, jittered.
local TRIES_MAX = 4
local RESULT_MS = 5000
local NOTHING = job.pack({})

---@param node table
---@param options { owner: "worker"|"manager", interval_ms: number, others: fun(): string[], unknown: fun(record: table) }
--- `owner` names the sites ("worker.progress.send"); `others` lists addresses that may know who leads; `unknown` hears of an attempt
--- that the leader it came from knows nothing of any more.
function reports.open(node, options)
  local self = setmetatable({
    node = node, options = options, scope = task.scope("reports", node.scope), waiting = {}, seqs = {}, jobs = {},
    leaders = {}, results = {}, level = "none", level_ms = 0, fruitless = 0,
    site = {
      send = options.owner .. ".progress.send", ack = options.owner .. ".progress.ack",
      loop = options.owner .. ".progress.flush_loop", result = options.owner .. ".result.send",
      redirect = options.owner .. ".progress.redirect",
    },
  }, reports)
  self.scope:loop(self.site.loop, function () return { buffered = self:counts().waiting } end, {
    interval_ms = function () return self:interval_ms() end,
    backoff_ms = { options.interval_ms, FLUSH_CAP_MS },
  }, function () self:flush() end)
  return self
end

--- The flush interval now: the set one, and what the leader's level adds while it is fresh. While nothing at all goes out it
--- doubles up to FLUSH_CAP_MS, +-20 %, and one send that succeeds ends that.
function reports:interval_ms()
  if self.level ~= "none" and task.now_ms() - self.level_ms >= LEVEL_MS then self.level = "none" end
  local interval_ms = self.options.interval_ms + DELAY_MS[self.level]
  if self.fruitless == 0 then return interval_ms end
  return math.min(FLUSH_CAP_MS, interval_ms * 2 ^ math.min(self.fruitless, 16)) * (0.8 + 0.4 * self.node.world:unit())
end

local function key_of(record) return record.job .. " " .. record.part end

--- This part is live, and so is what is known of its job.
local function live(self, record)
  local known = self.jobs[record.job]
  if not known then
    known = { parts = {}, count = 0, asked_ms = 0 }
    self.jobs[record.job] = known
  end
  local key = key_of(record)
  if not known.parts[key] then known.parts[key], known.count = true, known.count + 1 end
end

--- Newest wins. `record`: job, workflow, part, attempt, fence, leader (address), leader_name, stats (a flat summary), and
--- `since`: above all numbers that an earlier life of this node gave to the same attempt.
function reports:progress(record)
  live(self, record)
  local key = key_of(record)
  local seq = (self.seqs[key] or record.since or 0) + 1
  self.seqs[key] = seq
  record.seq = seq
  self.waiting[key] = record
end

--- The leader to tell of this job: where the dispatch came from, until an ack or an answer named another.
local function leader_of(self, record)
  local known = self.jobs[record.job]
  return known and known.redirect or record.leader
end

--- Where a job's leader is now (nil: where its dispatch came from). A word that comes after its last part left is of no use.
local function redirect(self, record, address)
  local known = self.jobs[record.job]
  if known then known.redirect = address end
end

local function leader_state(self, record, address)
  local l = self.leaders[address]
  if not l then
    l = { failures = 0, unreadable = 0, name = address == record.leader and record.leader_name or "?" }
    self.leaders[address] = l
  end
  return l
end

-- Acks -----------------------------------------------------------------------------------------------------------------

local function apply_ack(self, record, address, bytes)
  local leader = leader_state(self, record, address)
  local parsed, err, class = ack.parse(bytes)
  if not parsed then
    leader.unreadable = leader.unreadable + 1
    errors.report(self.site.ack, {
      workflow = record.workflow, job = record.job, manager = leader.name, payload_bytes = #bytes, first_byte = bytes:byte(1) or -1,
      class = class, consecutive = leader.unreadable, -- The policy makes the tenth a warning.
    }, err, class)
    return
  end
  leader.unreadable = 0
  self.level, self.level_ms = parsed.level, task.now_ms()
  if parsed.leader and parsed.leader ~= "" then leader.name = parsed.leader end
  local named = parsed.leader_address
  if parsed.stop then
    self.options.unknown(record)
  elseif parsed.unknown or parsed.known == false then
    if address == record.leader then self.options.unknown(record) else redirect(self, record, nil) end
  elseif named and named ~= "" and named ~= address then
    redirect(self, record, named)
  end
end

-- Progress -------------------------------------------------------------------------------------------------------------

--- Ask another who leads this job. Answers come as a redirect; no answer is one more incident.
local function ask_who_leads(self, record, failed_address)
  local now, known = task.now_ms(), self.jobs[record.job]
  if not known or now < known.asked_ms then return end
  known.asked_ms = now + ASK_EVERY_MS * (1 + 0.2 * self.node.world:unit())
  self.scope:spawn(self.site.redirect, { job = record.job, workflow = record.workflow, part = record.part }, function ()
    for _, address in ipairs(self.options.others()) do
      if address ~= failed_address then
        local reply, err, code = self.node.rpc:peer(address):call("lead.who", { job = record.job }, { timeout_ms = SEND_MS })
        if reply and reply.address ~= "" then
          return redirect(self, record, reply.address)
        elseif not reply then
          errors.report(self.site.redirect, {
            job = record.job, workflow = record.workflow, part = record.part, address = address,
          }, err, code)
        end
      end
    end
    redirect(self, record, nil) -- Nobody knows: where the dispatch came from is the best guess.
  end)
end

local function failed(self, record, address, err, code)
  local key, leader = key_of(record), leader_state(self, record, address)
  leader.failures = leader.failures + 1
  local put_back = not self.waiting[key] and self.seqs[key] ~= nil -- Neither a newer one there, nor the part over.
  if put_back then self.waiting[key] = record end
  errors.report(self.site.send, {
    job = record.job, workflow = record.workflow, part = record.part, manager = leader.name, address = address,
    attempt = record.attempt, consecutive = leader.failures, status = code, counts = record.stats.requests or 0,
    backpressure = self.level, put_back = put_back,
  }, err, code)
  if leader.failures >= ASK_AFTER then ask_who_leads(self, record, address) end
end

--- Send all that waits, each part by itself.
function reports:flush()
  local batch, sent, tried = {}, 0, 0
  for _, record in sorted(self.waiting) do batch[#batch + 1] = record end
  self.waiting = {}
  local calls = {}
  for i, record in ipairs(batch) do
    local address = leader_of(self, record)
    calls[i] = { record = record, address = address, future = self.node.rpc:peer(address):start("part.progress", { parts = { {
      job = record.job, workflow = record.workflow, part = record.part, attempt = record.attempt, fence = record.fence,
      seq = record.seq, stats = record.stats,
    } } }, { timeout_ms = SEND_MS }) }
  end
  for _, c in ipairs(calls) do
    local bytes, err, code = c.future:await()
    tried = tried + 1
    if bytes then
      sent = sent + 1
      leader_state(self, c.record, c.address).failures = 0
      apply_ack(self, c.record, c.address, bytes)
    else
      failed(self, c.record, c.address, err, code)
    end
  end
  if sent > 0 then self.fruitless = 0 elseif tried > 0 then self.fruitless = self.fruitless + 1 end
end

--- A result has gone: what was known for its part's sake goes, and with the last part what was known of the job.
local function forget(self, record)
  local key, known = key_of(record), self.jobs[record.job]
  if not known or not known.parts[key] then return end
  known.parts[key], known.count = nil, known.count - 1
  if known.count > 0 then return end
  self.jobs[record.job] = nil
  if next(self.jobs) then return end
  for address, leader in sorted(self.leaders) do -- Only what goes wrong in a row is remembered from job to job.
    if leader.failures == 0 and leader.unreadable == 0 then self.leaders[address] = nil end
  end
end

-- Results --------------------------------------------------------------------------------------------------------------

--- A result that its leader can never take becomes a failure that says why, for the part must end all the same.
local function cut_down(record, err)
  if record.result == NOTHING then record.stats = {} end -- Not even so.
  record.state, record.result = "failed", NOTHING
  record.reason = ("the part ended, but its result could not be handed over: %s"):format(err)
end

--- A final result: sent until accepted, or until the leader it came from says that it counts no more; a leader that was only
--- named by somebody has no say in that. No progress of the part is sent from here on. `on_accepted(stale)` runs once then.
---@param record table  as progress, with state, reason?, result (bytes)
---@param on_accepted fun(stale: boolean)
function reports:result(record, on_accepted)
  local key = ("%s %s %d"):format(record.job, record.part, record.fence)
  live(self, record)
  self.waiting[key_of(record)], self.seqs[key_of(record)] = nil, nil
  self.results[key] = record
  self.scope:spawn(self.site.result, { job = record.job, workflow = record.workflow, part = record.part }, function ()
    local quick = backoff.new(self.node.world, { base_ms = 200, cap_ms = 2000 })
    local slow = backoff.new(self.node.world, { base_ms = 5000, cap_ms = 60000 })
    local try = 0
    while true do
      try = try + 1
      local address = leader_of(self, record)
      local reply, err, code = self.node.rpc:peer(address):call("part.result", {
        job = record.job, workflow = record.workflow, part = record.part, attempt = record.attempt, fence = record.fence,
        state = record.state, reason = record.reason or "", result = record.result, stats = record.stats,
      }, { timeout_ms = RESULT_MS })
      if reply and (reply.accepted or reply.stale and address == record.leader) then
        self.results[key] = nil
        forget(self, record)
        on_accepted(reply.stale)
        return
      end
      errors.report(self.site.result, {
        job = record.job, workflow = record.workflow, part = record.part, address = address, attempt = try, status = code or "UNKNOWN",
      }, err or "it knows nothing of the part", code or "UNKNOWN")
      if code == "TOO_LARGE" or code == "MALFORMED" then cut_down(record, err) end
      if reply then redirect(self, record, nil) elseif try >= ASK_AFTER then ask_who_leads(self, record, address) end
      task.sleep(try < TRIES_MAX and quick:next() or slow:next())
    end
  end)
end

--- How much waits, for people and specs.
function reports:counts()
  local waiting, results = 0, 0
  for _ in sorted(self.waiting) do waiting = waiting + 1 end
  for _ in sorted(self.results) do results = results + 1 end
  return { waiting = waiting, results = results, level = self.level }
end

--- Send what waits once more, then end. Waits.
function reports:close(timeout_ms)
  local deadline_ms = task.now_ms() + timeout_ms
  while task.now_ms() < deadline_ms do
    local c = self:counts()
    if c.waiting == 0 and c.results == 0 then break end
    if c.waiting > 0 then self:flush() end
    task.sleep(20)
  end
  self.scope:close()
end

return reports
