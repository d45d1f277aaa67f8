--- reports.progress: the flush of one leader. All records that wait for it go as one message, oldest first, split at PARTS_MAX
--- parts and BYTES_MAX bytes. The next message goes when the one before is answered, so at most one is under way to each leader.
---
--- A failed send goes back unless a newer record is there, and is one incident (FAILURES 1.2). A record that goes back keeps its place in the
--- order, so that none starves behind others. The ack carries the level of backpressure and the leader; it is parsed whole, then
--- applied whole, *none* included (FAILURES 1.3).
local ack = require "shoal.wire.ack"
local errors = require "shoal.base.errors"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local progress = {}

progress.PARTS_MAX = ack.PARTS_MAX
progress.BYTES_MAX = 256 * 1024

local FLUSH_CAP_MS = 2000      -- The loop's own backoff ends here.
local SEND_MS = 2000
local LEVEL_MS = 10000         -- A level that no ack refreshed for so long has expired.
local DELAY_MS = { none = 0, throttle = 100, batch = 500, reject = 1000 }
local ASK_AFTER = 2            -- Failures to one leader before others are asked who leads.

-- Levels ---------------------------------------------------------------------------------------------------------------

--- A leader's level now.
function progress.level(leader)
  if leader.level ~= "none" and task.now_ms() - leader.level_ms >= LEVEL_MS then leader.level = "none" end
  return leader.level
end

--- The higher of two levels.
function progress.higher(a, b) return DELAY_MS[a] >= DELAY_MS[b] and a or b end

--- Between two flushes of a leader. `idle`: as if nothing had failed.
function progress.interval_ms(self, leader, idle)
  local interval_ms = self.options.interval_ms + DELAY_MS[progress.level(leader)] + (leader.delay_ms or 0)
  if leader.fruitless == 0 or idle then return interval_ms end
  return math.min(FLUSH_CAP_MS, interval_ms * 2 ^ math.min(leader.fruitless, 16)) * (0.8 + 0.4 * self.node.world:unit())
end

-- Waiting records ------------------------------------------------------------------------------------------------------

--- The loop of a leader: begun by the first record that waits, and ended when none does.
local function start_loop(self, leader, first_ms)
  local loop, err, code = self.scope:loop(self.site.loop, function () return { buffered = leader.count } end, {
    first_ms = first_ms, interval_ms = function () return progress.interval_ms(self, leader) end,
    backoff_ms = { self.options.interval_ms, FLUSH_CAP_MS },
  }, function ()
    self:flush(leader)
    if leader.count > 0 then return end
    local own = leader.loop
    leader.loop = nil
    own:cancel() -- Ends at its next wait, which comes now.
  end)
  if not loop and code ~= "CLOSED" then errors.report(self.site.loop, { buffered = leader.count }, err, code) end
  leader.loop = loop
end

--- A part's record waits no longer.
---@param part ReportPart
function progress.withdraw(part)
  local leader = part.leader
  if leader then leader.waiting[part.key], leader.count = nil, leader.count - 1 end
  part.leader, part.record, part.order = nil, nil, nil
end

--- A part's record waits for its leader of now.
---@param part ReportPart
function progress.place(self, part)
  local leader, before = self:leader_of(part.record), part.leader
  if before ~= leader then
    if before then before.waiting[part.key], before.count = nil, before.count - 1 end
    part.leader = leader
    leader.waiting[part.key], leader.count = part, leader.count + 1
  end
  if not part.order then
    self.orders = self.orders + 1
    part.order = self.orders
  end
  if not leader.loop then start_loop(self, leader, progress.interval_ms(self, leader)) end
end

--- Flush now: the loop, if one waits for its interval, begins anew.
function progress.hurry(self, leader)
  if leader.count == 0 or not leader.loop or leader.flushing then return end
  leader.loop:cancel()
  start_loop(self, leader, 0)
end

-- One message ----------------------------------------------------------------------------------------------------------

--- The bytes of a record in a message, at most.
local function bytes_of(record)
  local bytes = 160 + #record.job + #record.workflow + #record.part
  for name in next, record.stats do bytes = bytes + #name + 16 end -- order-free: a sum
  return bytes
end

--- Take the oldest records that fit a message.
---@return { part: ReportPart, record: table, order: integer }[] taken
local function take(self, leader, parts, from)
  local taken, bytes, at = {}, 0, from
  local max = leader.parts_max or progress.PARTS_MAX
  while at <= #parts and #taken < max do
    local part = parts[at]
    local record = part.record
    if record and part.leader == leader then
      if self:leader_of(record) ~= leader then
        progress.place(self, part)
      else
        bytes = bytes + bytes_of(record)
        if bytes > progress.BYTES_MAX and #taken > 0 then break end
        taken[#taken + 1] = { part = part, record = record, order = part.order }
        progress.withdraw(part)
      end
    end
    at = at + 1
  end
  return taken, at
end

--- A record could not be sent. It waits again, unless a newer one is there, which then waits in its place; not if the part is over.
---@return boolean put_back
local function put_back(self, one)
  local part, known = one.part, self.jobs[one.record.job]
  if not known or known.parts[part.key] ~= part or one.record.fence <= part.over then return false end
  if part.record then
    part.order = one.order
    return false
  end
  part.record, part.order = one.record, one.order
  progress.place(self, part)
  return true
end

local function failed(self, leader, taken, err, code)
  local back = 0
  for _, one in ipairs(taken) do
    if put_back(self, one) then back = back + 1 end
  end
  if code == "FULL" then -- The queue of our own transport: no fault of the leader, and said once until it has room again.
    leader.full = leader.full + 1
    if leader.full > 1 then return end
  else
    leader.failures = leader.failures + 1
    leader.full = 0
  end
  local record = taken[1].record
  errors.report(self.site.send, {
    job = record.job, workflow = record.workflow, part = record.part, parts = #taken, manager = leader.name, address = leader.address,
    attempt = record.attempt, consecutive = leader.failures, status = code, counts = record.stats.requests or 0,
    backpressure = progress.level(leader), put_back = back == #taken,
  }, err, code)
  if code == "MALFORMED" or code == "TOO_LARGE" then -- One of them can never be sent: find it, and leave it out.
    leader.parts_max = #taken // 2
    if #taken == 1 then progress.withdraw(taken[1].part) end
    if leader.parts_max == 0 then leader.parts_max = nil end
  end
  if leader.failures >= ASK_AFTER then self:ask_who_leads(leader) end
end

--- Hand an attempt that the leader does not count to the owner. When that raises, the rest of the ack is applied all the same.
local function hand(self, leader, fn, record)
  errors.call(self.site.unknown, {
    job = record.job, workflow = record.workflow, part = record.part, manager = leader.name, attempt = record.attempt,
  }, fn, record)
end

--- Nothing of this ack is applied: it cannot be read, or is of an earlier leadership ("STALE").
local function useless(self, leader, taken, bytes, err, class)
  leader.unreadable = leader.unreadable + 1
  errors.report(self.site.ack, {
    workflow = taken[1].record.workflow, job = taken[1].record.job, manager = leader.name, payload_bytes = #bytes,
    first_byte = bytes:byte(1) or -1, class = class, consecutive = leader.unreadable, -- The policy makes the tenth a warning.
  }, err, class)
end

local function apply_ack(self, leader, taken, bytes)
  local parsed, err, class = ack.parse(bytes, #taken)
  if not parsed then return useless(self, leader, taken, bytes, err, class) end
  if parsed.fence and parsed.leader_address == leader.address and self.options.led then -- Its own, not one that it names.
    local counts, why, code = self.options.led:check(parsed.leader, parsed.fence)
    if not counts then return useless(self, leader, taken, bytes, why, code) end
  end
  leader.unreadable = 0
  leader.level, leader.level_ms, leader.delay_ms = parsed.level, task.now_ms(), parsed.delay_ms
  self.level_ms = leader.level_ms
  local jobs, named = {}, parsed.leader_address
  for _, one in ipairs(taken) do jobs[one.record.job] = true end
  for _, position in ipairs(parsed.unknown or {}) do
    local record = taken[position].record
    jobs[record.job] = nil
    if leader.address == record.leader then hand(self, leader, self.options.unknown, record) else self:redirect(record.job, nil) end
  end
  for _, position in ipairs(parsed.stop or {}) do
    hand(self, leader, self.options.stop or self.options.unknown, taken[position].record)
  end
  if not named or named == "" then return end
  if named == leader.address then
    leader.name = parsed.leader ~= "" and parsed.leader or leader.name
  else
    for job in sorted(jobs) do self:redirect(job, named) end
  end
end

--- Send all that waits for this leader now. Records that come meanwhile wait for the next flush.
function progress.flush(self, leader)
  local parts, tried, arrived = {}, false, false
  for _, part in next, leader.waiting do parts[#parts + 1] = part end -- order-free: sorted below
  table.sort(parts, function (a, b) return a.order < b.order end)
  leader.flushing = true
  local free <close> = setmetatable({}, { __close = function () leader.flushing = nil end })
  local taken, at = take(self, leader, parts, 1)
  while taken[1] do
    local message = {}
    for i, one in ipairs(taken) do
      local r = one.record
      message[i] = {
        job = r.job, workflow = r.workflow, part = r.part, attempt = r.attempt, fence = r.fence, seq = r.seq, stats = r.stats,
        waiting = r.waiting,
        age_ms = r.began_ms and math.floor(task.now_ms() - r.began_ms),
      }
    end
    tried = true
    local bytes, err, code = self.node.rpc:peer(leader.address):call("part.progress", { parts = message }, { timeout_ms = SEND_MS })
    if not bytes then
      failed(self, leader, taken, err, code)
      break
    end
    arrived, leader.failures, leader.full, leader.parts_max = true, 0, 0, nil
    apply_ack(self, leader, taken, bytes)
    self.results:heard(leader)
    taken, at = take(self, leader, parts, at)
  end
  if arrived then leader.fruitless = 0 elseif tried then leader.fruitless = leader.fruitless + 1 end
end

return progress
