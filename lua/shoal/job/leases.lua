--- leases: the leases that a leader grants. run/leases.lua is the holder's side, tier/lease.lua the tables, tier/tenure.lua has the times.
---
---   a part   The executor of a dispatched attempt holds it: the right to the part's cores. The dispatch is the grant, so the log has it, and
---            its index is the fence. The executor renews; a renewal is in no log. The end of the attempt releases it.
---   a run    This node holds it: the leadership of the run. Its fence is the index of the run's creation, or of this leadership where that is
---            later: so a takeover or restart transfers it with a greater fence. It renews itself while the tier stands.
---
---          dispatch applied            the attempt is over
---   (none) ----------------> HELD -----------------------------> (none)
---                             | not renewed                  ^
---                             v      tenure.STOPPED_MS       |
---                          EXPIRED -------------------> doomed: lost, and reassigned or failed
---
--- Expiry is committed before anyone hears of it, and never taken back. The site `lease.expired` hears of it, which the role script wires to
--- `lead:lease_expired`; it is must-deliver, keyed (key, fence): a hook that raises is called again. A look each SWEEP_MS takes up what nobody
--- took after that, so that no part waits for ever.
---
--- Which mechanism finds what:
---   an executor that died                        membership (a gate: eviction.lua): its attempts are lost at once; leases are not awaited
---   a datacenter that answers no probe           eviction.lua, for all of its parts; until it has decided, its gate renews their leases itself
---   one that lives and does not reach us         its leases expire; it has stopped its parts by then, so two executions never overlap
---   one that reaches us, but a part is stuck     silence of that part (attempts.lua): the part is cancelled there, then lost
---   one that nobody has heard of since a restart its leases, which a leadership grants when it hears of them, or after tenure.return_ms
---   this node was stopped, and woke              nothing expires before executors had time to renew (catch_up)
local errors = require "shoal.base.errors"
local lease = require "shoal.tier.lease"
local log = require "shoal.base.log"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"
local tenure = require "shoal.tier.tenure"

local leases = {}
leases.__index = leases

local SWEEP_MS = 10000
local ESCALATED_MS = 20000 -- After so long no hook is called again for an expiry (base/errors/deliver.lua): 0.5 + 1 + 2 + 4 + 8 s.
local SHOWN_MAX = 50       -- Leases in an answer to people.

log.event("lease.expired", { "job", "part", "holder", "fence", "duration_ms" })

---@param lead table
---@param scope table  of the leadership
function leases.open(lead, scope)
  local self = setmetatable({
    lead = lead, node = lead.node, ttl_ms = tenure.ttl_ms(lead.node.config, lead.options.tier), of = {}, runs = {}, untaken = {}, found = {},
    stale = 0,
    found_ms = task.now_ms() + math.max(0, lead:grace_ms() - tenure.ttl_ms(lead.node.config, lead.options.tier)),
  }, leases)
  local err
  self.grantor, err = lease.grantor(lead.node.world, { node = lead.node.name, ttl_ms = self.ttl_ms }, function (event) self:expired(event) end)
  if not self.grantor then error("leases: " .. tostring(err)) end
  scope:loop("lead.lease_sweep", function () return { leases = self:count() } end, { interval_ms = SWEEP_MS, first_ms = SWEEP_MS },
    function () self:sweep() end)
  scope:loop("lead.lease_renew", function () return { runs = self:count_runs() } end, { interval_ms = self.ttl_ms // 3 },
    function () self:renew_own() end)
  return self
end

function leases:close() self.grantor:close() end

--- Nothing expires before a whole ttl from now.
function leases:catch_up() self.grantor:catch_up() end

local function size(set)
  local n = 0
  for _ in next, set do n = n + 1 end -- order-free: a count
  return n
end

function leases:count() return size(self.of) end
function leases:count_runs() return size(self.runs) end

-- Parts ----------------------------------------------------------------------------------------------------------------

local function grant(self, a)
  self.found[a] = nil
  local granted, err, code = self.grantor:grant(a.lease, a.executor, a.fence)
  if granted then return true end
  errors.report("lease.grant", { job = a.job, part = a.part, holder = a.executor, fence = a.fence }, err, code)
  return nil, err
end

--- Grant the lease of an attempt that is dispatched.
---@return true? ok, string? err
function leases:grant(a)
  a.lease = a.job .. " " .. a.part
  self.of[a.lease] = a
  return grant(self, a)
end

--- An earlier leadership dispatched this attempt: its lease counts. It runs from the executor's first renewal, or from the end of the wait for
--- that. That the executor answers our `lead` starts nothing: its own connection to us may need longer to come back.
function leases:find(a)
  a.lease = a.job .. " " .. a.part
  self.of[a.lease], self.found[a] = a, true
end

--- The executor of this attempt answered just now that it has it.
function leases:heard(a)
  if self.found[a] then return end
  self.grantor:renew(a.executor, { { key = a.lease, fence = a.fence } })
end

--- Whether the executor may still run this attempt.
function leases:live(a)
  if self.found[a] then return true end
  local held = self.grantor:get(a.lease)
  return held ~= nil and held.fence == a.fence and held.state == "held"
end

--- The ledger ended this attempt.
function leases:over(a)
  if self.of[a.lease] ~= a then return end
  self.of[a.lease], self.found[a] = nil, nil
  self.grantor:release(a.lease, a.fence)
  local key = ("%s %d"):format(a.lease, a.fence)
  self.untaken[key] = nil
  errors.withdraw("lease.expired", key)
end

--- An executor renews.
---@param body { holder: string, items: { key: string, fence: integer }[] }
function leases:renew(body)
  local items, out = {}, {}
  for _, item in ipairs(body.items) do
    local a = self.of[item.key]
    if a and a.fence == item.fence and (a.given_up or a.state == "doomed") then -- It is being cancelled, or is lost.
      out[#out + 1] = { key = item.key, fence = item.fence, code = "GIVEN_UP" }
    else
      items[#items + 1] = item
      if a and self.found[a] and a.fence == item.fence and a.executor == body.holder then grant(self, a) end
    end
  end
  local _, refused = self.grantor:renew(body.holder, items)
  local no = {}
  for _, each in ipairs(refused) do
    no[each.key] = true
    if each.code == "STALE" then self.stale = self.stale + 1 end
    out[#out + 1] = { key = each.key, fence = each.fence, code = each.code }
  end
  for _, item in ipairs(items) do
    local a = self.of[item.key]
    if a and not no[item.key] then self.lead.attempts:renewed(a) end
  end
  return { ttl_ms = self.ttl_ms, fence = self.lead.fence, refused = out }
end

-- Expiry ---------------------------------------------------------------------------------------------------------------

--- A lease has expired: tell the role's hook, until it takes it.
function leases:expired(e)
  local a, key = self.of[e.key], ("%s %d"):format(e.key, e.fence)
  local entry = not a and self.runs[e.key]
  if not entry and not (a and a.fence == e.fence) then return end -- Its attempt ended meanwhile.
  local job = a and a.job or entry.job
  log.warning("lease.expired", { job = job, part = a and a.part, holder = e.holder, fence = e.fence, duration_ms = e.duration_ms })
  local event = {
    key = e.key, job = job, part = a and a.part, holder = e.holder, fence = e.fence, expired_for_ms = e.expired_for_ms,
    duration_ms = e.duration_ms, remaining = e.remaining,
  }
  self.untaken[key] = { event = event, since_ms = task.now_ms() }
  self.node.hooks:deliver("lease.expired", {
    key = e.key, job = job, holder = e.holder, node = self.node.name, fence = e.fence, expired_for_ms = e.expired_for_ms,
    duration_ms = e.duration_ms, remaining = e.remaining,
  }, key, event)
end

--- Start orphan handling. Idempotent.
---@param event { key: string, holder: string, fence: integer, duration_ms: integer }
function leases:orphaned(event)
  local a, entry = self.of[event.key], self.runs[event.key]
  if a and a.fence == event.fence then
    self.lead.attempts:orphan(a, ("its lease expired: %s did not renew it"):format(event.holder), tenure.STOPPED_MS)
  elseif entry then
    self:lead_again(entry)
  end
  self.untaken[("%s %d"):format(event.key, event.fence)] = nil
end

--- The backstop: what no hook took, and attempts whose lease is missing.
function leases:sweep()
  local now = task.now_ms()
  if now >= self.found_ms then
    for _, a in sorted(self.of) do
      if self.found[a] then grant(self, a) end
    end
  end
  for _, each in sorted(self.untaken) do
    if now - each.since_ms >= ESCALATED_MS then self:orphaned(each.event) end
  end
  for key, a in sorted(self.of) do
    if not a.orphan and not self.untaken[("%s %d"):format(key, a.fence)] and not self:live(a) then
      self:orphaned { key = key, holder = a.executor, fence = a.fence }
    end
  end
end

-- Runs -----------------------------------------------------------------------------------------------------------------

--- This node leads a run.
---@param entry table  the ledger's
function leases:lead_run(entry)
  local fence = math.max(entry.index, self.lead.fence)
  self.runs[entry.run] = { run = entry.run, job = entry.job, fence = fence }
  local granted, err, code = self.grantor:grant(entry.run, self.node.name, fence)
  if not granted then errors.report("lease.grant", { job = entry.job, part = "", holder = self.node.name, fence = fence }, err, code) end
end

--- The fence of the leadership of a run; nil when it is not led here.
---@return integer?
function leases:fence_of(run)
  local known = self.runs[run]
  return known and known.fence
end

function leases:end_run(run)
  local known = self.runs[run]
  if not known then return end
  self.runs[run] = nil
  self.grantor:release(run, known.fence)
  local key = ("%s %d"):format(run, known.fence)
  self.untaken[key] = nil
  errors.withdraw("lease.expired", key)
end

--- Renew the leadership of each run, while the tier stands.
function leases:renew_own()
  if not self.lead.tier:leads() then return end
  local items = {}
  for run, known in sorted(self.runs) do items[#items + 1] = { key = run, fence = known.fence } end
  if #items > 0 then self.grantor:renew(self.node.name, items) end
end

--- The leadership of a run expired, though this node leads its tier (renew_own failed for long): take it again, with a fence of its own.
function leases:lead_again(known)
  local lead = self.lead
  lead.term:keep("lead.run", { job = known.job }, function ()
    local facts, err, code = lead:propose { kind = "led", run = known.run }
    if not facts then return errors.report("lead.run", { job = known.job }, "its leadership expired: " .. err, code) end
    if facts.answer and self.runs[known.run] == known then
      known.fence = facts.answer.fence
      self.grantor:grant(known.run, self.node.name, known.fence)
    end
  end)
end

-- For people -----------------------------------------------------------------------------------------------------------

local function row_of(self, key, holder, fence, part)
  local held = self.grantor:get(key)
  return { part = part, holder = holder, fence = fence, left_ms = held and held.left_ms and math.floor(held.left_ms) or 0 }
end

--- The leases of one run: its leadership, and those of its parts, at most SHOWN_MAX.
---@param run string
---@return table? leadership, table[] parts, integer more
function leases:of_run(run)
  local known, parts, more = self.runs[run], {}, 0
  for part, a in sorted(self.lead.attempts:of_run(run)) do
    if #parts < SHOWN_MAX then parts[#parts + 1] = row_of(self, a.lease, a.executor, a.fence, part) else more = more + 1 end
  end
  return known and row_of(self, run, self.node.name, known.fence), parts, more
end

--- How many there are, for people.
function leases:counts()
  local c, held = self.grantor:counts(), self.lead.options.held
  return {
    parts = self:count(), runs = self:count_runs(), ttl_ms = self.ttl_ms, stale_refused = self.stale + (held and held.options.led.stale or 0),
    expired = c.expired, shares = held and held:list() or nil,
  }
end

return leases
