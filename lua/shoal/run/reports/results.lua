--- reports.results: final results, each sent until its leader has accepted it.
---
---              next in line           accepted
---   READY ----------------> SENDING ------------> OVER
---     ^  ^     no answer     |   |
---     |  +-------------------+   |  an answer that does not accept it
---     +--------- LATER <---------+  (some quick tries, then 5 s * 2^n up to 60 s)
---
--- Each leader has a queue, oldest first, of which SENDS_MAX results are under way at once. A leader that does not answer is tried with
--- one result at a time, after a backoff that ends when anything is heard of it. A result that can never arrive (too large for
--- a message, or unreadable there) is sent as a lost attempt whose reason says so.
---
--- In memory wait at most ENTRIES_MAX results of MEMORY_MAX bytes. Those that come after go to disk, if the owner has a folder: a full
--- disk is an incident, and they stay in memory.
local errors = require "shoal.base.errors"
local job = require "shoal.job.spec"
local sorted = require "shoal.base.sorted"
local spill = require "shoal.run.reports.spill"
local task = require "shoal.base.task"

local results = {}
results.__index = results

results.ENTRIES_MAX = 1000
results.MEMORY_MAX = 16 * 1024 * 1024
results.SENDS_MAX = 64
results.SENDING_MAX = 8 * 1024 * 1024 -- Bytes under way to one leader; one result may be larger.

local RESULT_MS = 5000
local ASK_AFTER = 2
local TRIES_MAX = 4                    -- Quick ones.
local QUICK_MS, QUICK_CAP_MS = 200, 2000
local SLOW_MS, SLOW_CAP_MS = 5000, 60000
local WAKE_MS = 20                     -- Between two looks at what is due, at least.
local NOTHING = job.pack({})

--- Codes with which a leader refuses this very result. Every other means that the leader was not reached, or is too busy.
local REFUSED = {
  FAILED = true, MALFORMED = true, TOO_LARGE = true, REFUSED = true, STALE = true, NOT_LEADER = true, NOT_FOUND = true,
  UNHANDLED = true,
}

---@class ResultEntry
---@field key string
---@field record table
---@field result? string    its bytes, while they are in memory
---@field read? fun(): string?, string?  how the owner reads them
---@field file? string      where they are on disk
---@field bytes integer
---@field state "ready"|"sending"|"later"|"over"
---@field leader ReportLeader
---@field order integer
---@field tries integer

--- A leader's results: `ready` holds those in line, from `first` to `last`, with gaps where one went elsewhere.
function results.queue()
  return { ready = {}, first = 1, last = 0, later = {}, sending = 0, sending_bytes = 0, failures = 0, trial_ms = 0, silent = false }
end

---@param reports Reports
function results.open(reports)
  local options = reports.options
  local self = setmetatable({
    reports = reports, node = reports.node, scope = reports.scope, site = reports.site, entries = {}, by_job = {}, count = 0,
    spilled = 0, orders = 0, held = 0, held_bytes = 0,
  }, results)
  if options.folder then
    self.spill = spill.open(self.node.world, self.site.spill, options.folder)
    for _, found in ipairs(self.spill:found()) do
      reports:live(found.record)
      local on_accepted = options.restored and options.restored(found.record) or function () end
      self:enter(found.record, on_accepted, { file = found.file, bytes = found.bytes })
    end
  end
  return self
end

-- The queue of a leader ------------------------------------------------------------------------------------------------

local pump, send

local function delay_ms(self, tries)
  local full
  if tries < TRIES_MAX then
    full = math.min(QUICK_CAP_MS, QUICK_MS * 2 ^ (tries - 1))
  else
    full = math.min(SLOW_CAP_MS, SLOW_MS * 2 ^ math.min(tries - TRIES_MAX, 16))
  end
  return full * (0.1 + 0.9 * self.node.world:unit())
end

--- Put a result in line for its leader of now: at the end, or in front of all.
local function line_up(self, entry, in_front)
  entry.leader = self.reports:leader_of(entry.record)
  local queue = entry.leader.queue
  entry.state = "ready"
  if in_front then
    queue.first = queue.first - 1
    entry.at = queue.first
  else
    queue.last = queue.last + 1
    entry.at = queue.last
  end
  queue.ready[entry.at] = entry
  pump(self, entry.leader)
end

local function leave_line(entry)
  local queue = entry.leader.queue
  if entry.state == "ready" then queue.ready[entry.at] = nil end
  queue.later[entry.key] = nil
end

--- The next in line, or nil.
local function next_in_line(queue)
  while queue.first <= queue.last do
    local entry = queue.ready[queue.first]
    if entry then return entry end
    queue.first = queue.first + 1
  end
  queue.first, queue.last = 1, 0
end

local wake

--- Look at a queue again at this time, or earlier. A queue that waits for nothing has no task.
local function wake_at(self, leader, due_ms)
  local queue = leader.queue
  if queue.waker then
    if queue.wake_ms <= due_ms then return end
    queue.waker:cancel()
  end
  queue.wake_ms = due_ms
  local ids = { job = "any", workflow = "any", part = "any", address = leader.address, attempt = 0, status = "waiting" }
  queue.waker = self.scope:keep(self.site.result, ids, function () -- nil: the scope is closed, and all of this ends.
    task.sleep(math.max(WAKE_MS, due_ms - task.now_ms()))
    queue.waker = nil
    wake(self, leader)
  end)
end

--- Results whose time has come get in line.
function wake(self, leader)
  local queue, now, next_ms = leader.queue, task.now_ms(), nil
  for key, entry in sorted(queue.later) do
    if entry.due_ms <= now then
      queue.later[key] = nil
      line_up(self, entry)
    else
      next_ms = math.min(next_ms or entry.due_ms, entry.due_ms)
    end
  end
  if next_ms then wake_at(self, leader, next_ms) end
  pump(self, leader)
end

--- Send this result again after a while; those behind it go on.
local function send_later(self, entry)
  entry.leader = self.reports:leader_of(entry.record)
  entry.state, entry.due_ms = "later", task.now_ms() + delay_ms(self, entry.tries)
  entry.leader.queue.later[entry.key] = entry
  wake_at(self, entry.leader, entry.due_ms)
end

--- How many may be under way to this leader now.
local function sends_max(queue)
  if queue.failures == 0 then return results.SENDS_MAX end
  return task.now_ms() >= queue.trial_ms and 1 or 0
end

--- Send what is next in line, as much at once as may be.
function pump(self, leader)
  local queue = leader.queue
  while true do
    local entry = next_in_line(queue)
    if not entry then return end
    local fits = queue.sending == 0 or queue.sending_bytes + entry.bytes <= results.SENDING_MAX
    if queue.sending >= sends_max(queue) or not fits then break end
    local record = entry.record
    local function ids()
      return { job = record.job, workflow = record.workflow, part = record.part, address = leader.address, attempt = entry.tries,
        status = record.state }
    end
    local turn = (entry.turn or 0) + 1
    local spawned = self.scope:keep(self.site.result, ids, send, self, entry, turn)
    if not spawned then return end -- The scope is closed.
    leave_line(entry)
    entry.state, entry.turn = "sending", turn
    queue.sending, queue.sending_bytes = queue.sending + 1, queue.sending_bytes + entry.bytes
  end
  if queue.failures > 0 and queue.sending == 0 then wake_at(self, leader, queue.trial_ms) end
end

-- One result -----------------------------------------------------------------------------------------------------------

--- Its bytes leave the memory, or come into it.
local function hold(self, entry, result)
  if entry.result then self.held, self.held_bytes = self.held - 1, self.held_bytes - #entry.result end
  if result then self.held, self.held_bytes = self.held + 1, self.held_bytes + #result end
  entry.result = result
end

local function remove_file(self, entry)
  if not entry.file then return end
  self.spill:remove(entry.record, entry.file)
  entry.file, self.spilled = nil, self.spilled - 1
end

--- A result that its leader can never take: the attempt is lost, for the part must end all the same, and another attempt may bring one.
local function cut_down(self, entry, err)
  local record = entry.record
  if entry.result == NOTHING then record.stats = {} end -- Not even so.
  remove_file(self, entry)
  entry.read = nil
  if record.state ~= "cancelled" then record.state = "lost" end
  hold(self, entry, NOTHING)
  record.reason = ("the part ended, but its result could not be handed over: %s"):format(err)
end

--- The bytes to send. A result that cannot be read is a lost attempt.
local function bytes_of(self, entry)
  if entry.result then return entry.result end
  local bytes, err, code
  if entry.file then bytes, err, code = self.spill:read(entry.file) else bytes, err, code = entry.read() end
  if bytes then return bytes end
  errors.report(self.site.spill, { job = entry.record.job, part = entry.record.part, file = entry.file or "?" }, err, code)
  cut_down(self, entry, err)
  return NOTHING
end

local function over(self, entry, stale)
  entry.state = "over"
  self.entries[entry.key], self.count = nil, self.count - 1
  local siblings = self.by_job[entry.record.job]
  siblings[entry.key] = nil
  if not next(siblings) then self.by_job[entry.record.job] = nil end
  hold(self, entry, nil)
  remove_file(self, entry)
  self.reports:forget(entry.record)
  entry.on_accepted(stale)
end

--- The leader was not reached, or has no room now: this result is the first of the next try.
local function unanswered(self, entry, leader, code)
  local queue, now = leader.queue, task.now_ms()
  queue.silent = code ~= "FULL" and code ~= "OVERLOADED"
  if queue.failures == 0 or now >= queue.trial_ms then -- Those that were under way together fail together: that counts once.
    queue.failures = queue.failures + 1
    queue.trial_ms = now + delay_ms(self, queue.failures)
  end
  line_up(self, entry, true)
  if queue.silent and entry.tries >= ASK_AFTER then self.reports:ask_who_leads(leader) end
end

local function answered(self, entry, leader, reply, err, code)
  local record = entry.record
  if reply and (reply.accepted or reply.stale and leader.address == record.leader) then
    leader.queue.failures = 0
    return over(self, entry, reply.stale)
  end
  errors.report(self.site.result, {
    job = record.job, workflow = record.workflow, part = record.part, address = leader.address, attempt = entry.tries,
    status = code or "UNKNOWN",
  }, err or "it knows nothing of the part", code or "UNKNOWN")
  if not reply and not REFUSED[code] then return unanswered(self, entry, leader, code) end
  leader.queue.failures = 0
  if code == "TOO_LARGE" or code == "MALFORMED" then cut_down(self, entry, err) end
  send_later(self, entry)
  if reply then
    self.reports:redirect(record.job, nil)
  elseif entry.tries >= ASK_AFTER then
    self.reports:ask_who_leads(leader)
  end
end

--- Whether this try still stands for the entry: its state may have moved on, and another try be under way.
local function is_sending(entry, turn) return entry.state == "sending" and entry.turn == turn end

--- One try in progress.
local Try = {
  __close = function (try)
    local queue = try.leader.queue
    queue.sending, queue.sending_bytes = queue.sending - 1, queue.sending_bytes - try.bytes
    if is_sending(try.entry, try.turn) then send_later(try.results, try.entry) end -- It raised, or its task was cancelled.
    pump(try.results, try.leader)
  end,
}

--- A task: one try. It is kept for a failure before its Try stands; after that the entry waits for its next turn, and this does nothing.
function send(self, entry, turn)
  if not is_sending(entry, turn) then return end
  local leader, record = entry.leader, entry.record
  local _ <close> = setmetatable({ results = self, entry = entry, leader = leader, bytes = entry.bytes, turn = turn }, Try)
  entry.tries = entry.tries + 1
  local result = bytes_of(self, entry)
  local reply, err, code = self.node.rpc:peer(leader.address):call("part.result", {
    job = record.job, workflow = record.workflow, part = record.part, attempt = record.attempt, fence = record.fence,
    state = record.state, reason = record.reason or "", result = result, stats = record.stats,
    age_ms = record.began_ms and math.floor(task.now_ms() - record.began_ms),
  }, { timeout_ms = RESULT_MS })
  answered(self, entry, leader, reply, err, code)
end

-- Waiting results ------------------------------------------------------------------------------------------------------

--- More waits in memory than may: write this one to disk.
local function to_disk(self, entry)
  entry.writing = self.spill:put(entry.record, entry.result, function (file)
    entry.writing = nil
    if not file then return end -- It has been reported; the result stays in memory.
    if entry.state == "over" or not entry.result or entry.result == NOTHING then return self.spill:remove(entry.record, file) end
    entry.file, self.spilled = file, self.spilled + 1
    hold(self, entry, nil)
  end)
end

function results:enter(record, on_accepted, given)
  local key = ("%s %s %d"):format(record.job, record.part, record.fence)
  if self.entries[key] then -- The same twice: a file that was written while its result was being accepted.
    if given.file then self.spill:remove(record, given.file) end
    return
  end
  self.orders = self.orders + 1
  local entry = {
    key = key, record = record, on_accepted = on_accepted, file = given.file, read = given.read, bytes = given.bytes, order = self.orders,
    tries = 0,
  }
  self.entries[key], self.count = entry, self.count + 1
  self.by_job[record.job] = self.by_job[record.job] or {}
  self.by_job[record.job][key] = entry
  if given.file then self.spilled = self.spilled + 1 end
  if given.result then
    hold(self, entry, given.result)
    local full = self.held > results.ENTRIES_MAX or self.held_bytes > results.MEMORY_MAX
    if full and self.spill then to_disk(self, entry) end
  end
  line_up(self, entry)
end

---@param record table  see reports:result
---@param on_accepted fun(stale: boolean)
function results:add(record, on_accepted)
  local result = record.result
  record.result = nil -- The entry has it, in memory or not.
  if type(result) == "function" then
    self:enter(record, on_accepted, { read = result, bytes = 0 })
  else
    self:enter(record, on_accepted, { result = result, bytes = #result })
  end
end

--- A job's leader is another now.
function results:redirected(of)
  for _, entry in sorted(self.by_job[of] or {}) do
    if entry.state ~= "sending" and self.reports:leader_of(entry.record) ~= entry.leader then
      leave_line(entry)
      line_up(self, entry)
    end
  end
end

--- Something was heard of a leader: if it was silent, its next trial is now.
function results:heard(leader)
  local queue = leader.queue
  if queue.failures == 0 or not queue.silent then return end
  queue.trial_ms = math.min(queue.trial_ms, task.now_ms())
  pump(self, leader)
end

--- A record of each job that has a result for this leader.
---@return table[]
function results:waiting_for(leader)
  local out = {}
  for _, entries in sorted(self.by_job) do
    for _, entry in sorted(entries) do
      if entry.leader == leader then
        out[#out + 1] = entry.record
        break
      end
    end
  end
  return out
end

--- The node ends: what is in memory goes to disk, oldest first. A write under way may not come to its end, so it counts for nothing.
function results:keep()
  if not self.spill then return end
  local list = {}
  for _, entry in sorted(self.entries) do
    if entry.result and not entry.file then list[#list + 1] = entry end
  end
  table.sort(list, function (a, b) return a.order < b.order end)
  for _, entry in ipairs(list) do
    entry.file = self.spill:put_now(entry.record, entry.result)
    if entry.file then self.spilled = self.spilled + 1 end
  end
end

return results
