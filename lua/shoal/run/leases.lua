--- leases: the leases that an executor holds: its right to run each of its parts. A worker holds those of its managers with it, a manager
--- those of its gates. job/leases.lua is the other side, tier/tenure.lua has the times.
---
---            dispatch taken         renewed: measured from the instant at which the renewal was sent
---   (none) -----------------> HELD <--------------------------------------.
---                              | two thirds are gone: jeopardy            |
---                              |   (another node is asked who leads)      | the leader returned, or another one took over
---                              v deadline                                 |
---              the leader      |      the leader is down                  |
---              acts            |                                          |
---                  .-----------+------------------> ORPHAN ---------------'
---                  v                                  |
---               STOPPED <-----------------------------' grace over, or refused
---
--- One message renews all leases of one leader. A leader that does not answer delays no other. A refused lease ends its part, as a `stop` in
--- an ack of progress does.
---
--- When a lease has ended, may the part run on? Only while nobody can have granted it elsewhere:
---
---   - The leader acts, so it grants the part again once the lease has ended on its side, too. The part is stopped at once, which is before
---     that (tenure.STOPPED_MS). A leader acts if it is a living member: other members reach it, only we do not. It also acts if no member at
---     all answers us while several did before: then we are the one that is cut off.
---   - The leader is down, or answers that it does not lead. It is a tier of one, so nobody grants the part before its restart, but a gate
---     above it: that one gives up the datacenter and starts the share elsewhere, and fences decide whose result counts. The part
---     runs on as an orphan, for the grace, so a reboot of a manager ends nothing. Once the leader lives again, which its new generation
---     shows, it waits for us (tenure.return_ms): an orphan that it does not answer meanwhile is stopped before that (tenure.back_ms).
---   - A gate is no member of our group, so a manager cannot tell whether it acts. It keeps the share: a gate gives up a silent datacenter long
---     before the lease ends, and fences decide which result counts. Stopping would gain nothing, and a gate's reboot would end hours of work.
---
--- An executor that was stopped itself (SIGSTOP, a frozen machine) hears of the end late. It asks before it stops anything: if the leader still
--- counts the lease, nobody else had it meanwhile.
---
--- The exception to "no two run" is the same as in job/attempts.lua: a leader that holds an executor for dead does not wait for its leases.
---
--- The result of a part that was stopped waits, as any other, for whichever node leads; its state is `lost`.
local errors = require "shoal.base.errors"
local lease = require "shoal.tier.lease"
local log = require "shoal.base.log"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"
local tenure = require "shoal.tier.tenure"

local leases = {}
leases.__index = leases

leases.ITEMS_MAX = 1000 -- Leases in one message; more are several messages.

local CALL_MS = 5000             -- At most; the time between two renewals, where that is less.
local RETRY_MS, LEAST_MS = 500, 50
local LOOK_MS = 1000            -- Between two looks at orphans.
local LATE_MS, ASK_MS = 1000, 3000 -- An end that is noticed so late was slept through; the answer may then take so long.
local ASK_AFTER = 2             -- Failures in a row before others are asked who leads.
local THIRD = 1 / 3

log.event("lease.orphan", { "job", "part", "fence", "leader", "grace_ms" })
log.event("lease.back", { "job", "part", "fence", "leader", "orphan_ms" })

---@class HeldLease
---@field key string         as its leader knows it
---@field held_key? string   as our own table knows it: a lease that ended and was granted again is another one there
---@field record table       job, workflow, part, attempt, fence, leader (address), leader_name
---@field ttl_ms integer
---@field state "held"|"orphan"|"stopped"
---@field ended_ms? number   when it ended
---@field until_ms? number   of an orphan: the end of its grace
---@field up_ms? number      of an orphan: since when its leader lives again
---@field peers integer      other members that lived when it was renewed last

---@class LeasesOptions
---@field owner "worker"|"manager"  names the sites
---@field holder string             as the leaders know this executor
---@field reports Reports           knows which node leads a job
---@field led table                 run/leaders.lua: an answer of an earlier leadership renews nothing
---@field stop fun(record: table, reason: string): boolean  end the part, within tenure.STOP_MS; false: it does not run
---@field refused fun(record: table, code: string)  the leader that dispatched the part does not count it any more
---@field leader fun(name: string): "up"|"down"|"unknown", integer, integer?  as membership sees it; how many other members live; the
---  generation of this one

---@param node table
---@param options LeasesOptions
function leases.open(node, options)
  return setmetatable({
    node = node, options = options, scope = task.scope("leases", node.scope), entries = {}, by_held = {}, turns = 0, count = 0,
    leaders = {}, wake_up = task.channel(1), stopped = 0, refused = 0,
    site = { renew = options.owner .. ".lease.renew", loop = options.owner .. ".lease.loop", orphan = options.owner .. ".orphan" },
  }, leases)
end

local function key_of(record) return record.job .. " " .. record.part end

local function jitter(self, ms) return ms * (0.8 + 0.2 * self.node.world:unit()) end

local function leader_at(self, address)
  local leader = self.leaders[address]
  if not leader then
    leader = { address = address, failures = 0, due_ms = 0, items = 0 }
    self.leaders[address] = leader
  end
  return leader
end

--- The leader that a lease is renewed at: the one that dispatched the part, until another was named.
local function address_of(self, entry) return self.options.reports:leader_of(entry.record).address end

-- The end of a lease ---------------------------------------------------------------------------------------------------

local function stop(self, entry, why, grace_ms)
  entry.state, entry.until_ms = "stopped", nil
  local r, now = entry.record, task.now_ms()
  if not self.options.stop(r, why) then return end -- It had ended; only its result waits.
  self.stopped = self.stopped + 1
  errors.report(self.site.orphan, {
    job = r.job, workflow = r.workflow, part = r.part, attempt = r.attempt, fence = r.fence, leader = r.leader_name or "?",
    address = address_of(self, entry),
    expired_for_ms = math.floor(now - (entry.ended_ms or now)), grace_ms = math.floor(grace_ms),
  }, why, "EXPIRED")
end

local function orphan(self, entry, found)
  local grace_ms = tenure.grace_ms(self.node.config) * (1 + 0.1 * self.node.world:unit())
  entry.state, entry.ended_ms, entry.grace_ms = "orphan", task.now_ms(), grace_ms
  entry.until_ms = entry.ended_ms + grace_ms
  local r = entry.record
  if found then return end -- It may be an orphan no longer than until its first renewal.
  log.warning("lease.orphan", { job = r.job, part = r.part, fence = r.fence, leader = r.leader_name, grace_ms = math.floor(grace_ms) })
  self.wake_up:push(true) -- dropped: full means awake
end

--- Note when a leader that does not answer began a new life.
local function look_at_life(self, leader, name)
  local state, _, generation = self.options.leader(name)
  if state ~= "up" then return end
  if not leader.generation then
    leader.generation = generation
  elseif leader.generation ~= generation and not leader.back_ms then
    leader.back_ms = task.now_ms()
  end
end

local function expired(self, entry, late_ms)
  local r = entry.record
  local name = r.leader_name or "?"
  local state, peers = self.options.leader(name)
  entry.ended_ms = task.now_ms()
  local leader = leader_at(self, address_of(self, entry))
  look_at_life(self, leader, name)
  if late_ms > LATE_MS then
    orphan(self, entry, true)
    entry.until_ms, entry.slept_ms = entry.ended_ms + ASK_MS, late_ms
    leader.due_ms = entry.ended_ms
    return self.wake_up:push(true) -- dropped: full means awake
  end
  if state == "up" and leader.code ~= "NOT_LEADER" and not leader.back_ms then
    return stop(self, entry, ("its lease ended: %s lives and does not answer here (%s)"):format(name, leader.code or "no renewal"), 0)
  end
  if state == "down" and peers == 0 and entry.peers > 1 then
    return stop(self, entry, ("its lease ended: none of the %d other members answers here"):format(entry.peers), 0)
  end
  orphan(self, entry)
end

local function on_event(self, event)
  local entry = self.by_held[event.key]
  if not entry then return end
  if event.kind == "expired" then
    self.by_held[event.key], entry.held_key = nil, nil
    return expired(self, entry, -event.left_ms)
  end
  entry.jeopardy = true -- Renew at once; if that fails, ask others who leads.
  local leader = leader_at(self, address_of(self, entry))
  leader.due_ms = math.min(leader.due_ms, task.now_ms())
  self.wake_up:push(true) -- dropped: full means awake
end

--- The holder's side of tier/lease.lua: opened with the first lease, for a node without parts needs no timer.
local function holder(self)
  if not self.held then
    local err
    self.held, err = lease.holder(self.node.world, { node = self.node.name }, function (event) on_event(self, event) end)
    if not self.held then error("leases: " .. tostring(err)) end
  end
  return self.held
end

--- Our table knows this lease no more.
local function let_go(self, entry)
  if not entry.held_key then return end
  holder(self):drop(entry.held_key)
  self.by_held[entry.held_key], entry.held_key = nil, nil
end

--- Count a lease from this instant. False: it is over already.
local function hold(self, entry, sent_ns)
  let_go(self, entry)
  self.turns = self.turns + 1
  local held_key = ("%s#%d"):format(entry.key, self.turns)
  local held, err, code = holder(self):add(held_key, entry.record.fence, entry.ttl_ms, sent_ns)
  if held then
    entry.held_key, self.by_held[held_key] = held_key, entry
  elseif code ~= "EXPIRED" then
    errors.report(self.site.loop, { leases = self.count, cycle = self.turns }, err, code)
  end
  return held ~= nil
end

-- Renewing -------------------------------------------------------------------------------------------------------------

--- The leader counts this lease: it is held from the instant at which the renewal was sent.
local function renewed(self, entry, ttl_ms, sent_ns, peers)
  local r = entry.record
  if entry.state == "stopped" then return end -- The part has ended; its result follows.
  entry.jeopardy, entry.peers = false, peers
  if entry.state == "held" and entry.ttl_ms == ttl_ms then return end -- In the batch of holder:renewed.
  entry.ttl_ms = ttl_ms
  if not hold(self, entry, sent_ns) then return end
  if entry.state == "orphan" then
    local orphan_ms = math.floor(task.now_ms() - entry.ended_ms)
    log.info("lease.back", { job = r.job, part = r.part, fence = r.fence, leader = r.leader_name, orphan_ms = orphan_ms })
  end
  entry.state, entry.until_ms, entry.ended_ms, entry.up_ms, entry.slept_ms = "held", nil, nil, nil, nil
end

local function refused(self, entry, code, leader)
  local r = entry.record
  if code == "NOT_FOUND" and leader.address ~= r.leader then -- It was only named as the leader, and is not: the lease runs on.
    return self.options.reports:redirect(r.job, nil)
  end
  self.refused = self.refused + 1
  entry.state, entry.until_ms = "stopped", nil
  let_go(self, entry)
  self.options.refused(r, code)
end

local function failed(self, leader, records, err, code)
  leader.failures, leader.code = leader.failures + 1, code
  local left_ms = math.huge
  for _, entry in ipairs(records) do left_ms = math.min(left_ms, self:left_ms(entry) or 0) end
  errors.report(self.site.renew, {
    leader = leader.address, leases = #records, consecutive = leader.failures, left_ms = math.floor(left_ms), status = code or "?",
  }, err, code)
  local jeopardy = false
  local list = {}
  for i, entry in ipairs(records) do
    jeopardy = jeopardy or entry.jeopardy or entry.state == "orphan"
    list[i] = entry.record
  end
  if jeopardy or leader.failures >= ASK_AFTER then
    self.options.reports:ask_who_leads(self.options.reports:leader_at(leader.address), list)
  end
end

local function apply_reply(self, leader, batch, reply, sent_ns)
  local no, kept = {}, {}
  local first = self.entries[batch[1].key]
  if first and leader.address == first.record.leader then
    local fine, err, code = self.options.led:check(first.record.leader_name, reply.fence)
    if not fine then return failed(self, leader, { first }, err, code) end
  end
  for _, each in ipairs(reply.refused) do no[each.key] = each end
  local _, peers = self.options.leader("")
  for _, item in ipairs(batch) do
    local entry = self.entries[item.key]
    if entry and entry.record.fence == item.fence then
      local refusal = no[item.key]
      if refusal and refusal.fence == item.fence then
        refused(self, entry, refusal.code, leader)
      else
        if entry.held_key then kept[#kept + 1] = { key = entry.held_key, fence = item.fence } end
        renewed(self, entry, reply.ttl_ms, sent_ns, peers)
      end
    end
  end
  if self.held then self.held:renewed(sent_ns, kept, {}) end
end

--- Whether a renewal must not wait for what a cut left behind, such as a redial backoff of 30 s: a lease is shorter. While all is well it may.
local function pressing(leader, entries)
  if leader.failures > 0 then return true end
  for _, entry in ipairs(entries) do
    if entry.jeopardy or entry.state == "orphan" then return true end
  end
  return false
end

--- A task: renew all leases of this leader.
local function renew(self, leader, entries)
  for first = 1, #entries, leases.ITEMS_MAX do
    local batch = {}
    for i = first, math.min(#entries, first + leases.ITEMS_MAX - 1) do
      batch[#batch + 1] = { key = entries[i].key, fence = entries[i].record.fence }
    end
    local sent_ns = self.node.world:now_ns()
    local reply, err, code = self.node.rpc:peer(leader.address):call("lease.renew", { holder = self.options.holder, items = batch }, {
      timeout_ms = math.floor(math.max(LEAST_MS, math.min(CALL_MS, leader.ttl_ms * THIRD))), hurry = pressing(leader, entries),
    })
    if not reply then return failed(self, leader, entries, err, code) end
    leader.failures, leader.code, leader.generation, leader.back_ms = 0, nil, nil, nil
    look_at_life(self, leader, entries[1].record.leader_name or "?")
    apply_reply(self, leader, batch, reply, sent_ns)
  end
end

local function send(self, leader, entries)
  leader.busy = true
  local over = false
  local spawned = self.scope:keep(self.site.renew, {
    leader = leader.address, leases = #entries, consecutive = leader.failures, left_ms = 0, status = "sending",
  }, function ()
    if over then return end -- It failed: the next renewal is due by itself, and has the leases of then.
    local free <close> = setmetatable({}, { __close = function ()
      over = true
      local third = leader.ttl_ms * THIRD
      local wait_ms = leader.failures == 0 and third or math.min(third, RETRY_MS * 2 ^ math.min(leader.failures - 1, 10))
      leader.busy, leader.due_ms = false, task.now_ms() + jitter(self, wait_ms)
      self.wake_up:push(true) -- dropped: full means awake
    end })
    renew(self, leader, entries)
  end)
  if not spawned then leader.busy = false end -- The scope is closed.
end

--- Leases by the leader that each is renewed at, in the order of their keys.
local function by_leader(self)
  local out = {}
  for _, entry in sorted(self.entries) do
    local address = address_of(self, entry)
    local list = out[address] or {}
    out[address], list[#list + 1] = list, entry
  end
  return out
end

--- Whether an orphan must be stopped now, and why.
---@return string?
local function overdue(self, entry, now)
  if now >= entry.until_ms and entry.slept_ms then
    return ("this node noticed the end of its lease %.1f s late, and its leader did not answer then"):format(entry.slept_ms / 1000)
  end
  if now >= entry.until_ms then return ("it was an orphan for %.0f s, and no leader came back"):format((now - entry.ended_ms) / 1000) end
  local name = entry.record.leader_name or "?"
  local leader = leader_at(self, address_of(self, entry))
  if self.options.leader(name) ~= "up" or leader.code == "NOT_LEADER" then
    entry.up_ms = nil
    return
  end
  entry.up_ms = entry.up_ms or leader.back_ms or now
  if now - entry.up_ms >= tenure.back_ms(self.node.config) then
    return ("%s has been back for %.0f s, and does not answer here"):format(name, (now - entry.up_ms) / 1000)
  end
end

--- Do what is due. Returns how long to wait then.
local function look(self)
  local now, next_ms = task.now_ms(), math.huge
  for _, entry in sorted(self.entries) do
    if entry.state == "orphan" then
      local why = overdue(self, entry, now)
      if why then stop(self, entry, why, entry.grace_ms) else next_ms = math.min(next_ms, entry.until_ms, now + LOOK_MS) end
    end
  end
  local groups = by_leader(self)
  for address, entries in sorted(groups) do
    local leader = leader_at(self, address)
    leader.ttl_ms = math.huge
    for _, entry in ipairs(entries) do leader.ttl_ms = math.min(leader.ttl_ms, entry.ttl_ms) end
    if leader.due_ms == 0 then leader.due_ms = now + jitter(self, leader.ttl_ms * THIRD) end
    if not leader.busy and now >= leader.due_ms then send(self, leader, entries) end
    if not leader.busy then next_ms = math.min(next_ms, leader.due_ms) end
    if leader.failures > 0 or not leader.generation then
      look_at_life(self, leader, entries[1].record.leader_name or "?")
      if leader.failures > 0 then next_ms = math.min(next_ms, now + LOOK_MS) end
    end
  end
  for address, leader in sorted(self.leaders) do
    if not groups[address] and not leader.busy then self.leaders[address] = nil end
  end
  return math.max(1, math.min(next_ms - now, 60000))
end

local function start_loop(self)
  if self.loop then return end
  self.loop = self.scope:loop(self.site.loop, function () return { leases = self.count } end, {
    interval_ms = 0, backoff_ms = { RETRY_MS, 5000 },
  }, function ()
    local wait_ms = look(self)
    if self.count > 0 then
      self.wake_up:pop(wait_ms) -- TIMEOUT: something is due.
      return
    end
    local own = self.loop
    self.loop = nil
    own:cancel() -- Ends at its next wait, which comes now.
  end)
end

-- Called by owners ------------------------------------------------------------------------------------------------------

--- This executor took a part, just now. `found`: an earlier life of this node did, so whether the lease still counts is unknown until it is
--- renewed.
---@param record table  job, workflow, part, attempt, fence, leader, leader_name
---@param ttl_ms integer?  nil: the leader grants no leases
---@param found? boolean
function leases:take(record, ttl_ms, found)
  if not ttl_ms or ttl_ms <= 0 then return end
  local key = key_of(record)
  local before = self.entries[key]
  if before then let_go(self, before) else self.count = self.count + 1 end
  local entry = { key = key, record = record, ttl_ms = ttl_ms, state = "held", peers = 0 }
  self.entries[key] = entry
  self.options.reports:live(record)
  if found then
    orphan(self, entry, true)
    leader_at(self, address_of(self, entry)).due_ms = task.now_ms()
  else
    local _, peers = self.options.leader("")
    entry.peers = peers
    if not hold(self, entry, self.node.world:now_ns()) then orphan(self, entry, true) end
  end
  start_loop(self)
end

--- A part is over, and its result accepted.
function leases:drop(record)
  local key = key_of(record)
  local entry = self.entries[key]
  if not entry or entry.record.fence ~= record.fence then return end
  self.entries[key], self.count = nil, self.count - 1
  let_go(self, entry)
  if self.count == 0 then self.wake_up:push(true) end -- dropped: full means awake
end

--- This node answers for none of them any more.
function leases:drop_all()
  for _, entry in sorted(self.entries) do self:drop(entry.record) end
end

--- A leader was heard of: renew what it granted.
---@param address string
function leases:heard(address)
  local leader = self.leaders[address]
  if not leader then return end
  leader.due_ms = task.now_ms()
  self.wake_up:push(true) -- dropped: full means awake
end

--- Milliseconds that a lease has left; nil for none that counts.
---@return integer?
function leases:left_ms(entry)
  local found = entry.held_key and self.held:get(entry.held_key)
  return found and math.floor(found.left_ms)
end

--- For people.
---@return { job: string, part: string, fence: integer, leader: string, state: string, left_ms: integer }[]
function leases:list()
  local out, now = {}, task.now_ms()
  for _, entry in sorted(self.entries) do
    local r = entry.record
    local left_ms = entry.until_ms and math.floor(entry.until_ms - now) or self:left_ms(entry) or 0
    out[#out + 1] = { job = r.job, part = r.part, fence = r.fence, leader = address_of(self, entry), state = entry.state, left_ms = left_ms }
  end
  return out
end

function leases:close()
  self.scope:close()
  if self.held then self.held:close() end
end

return leases
