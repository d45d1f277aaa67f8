--- membership: member events go to the role's hooks; every few seconds the role compares its table with the members.
---
--- An event is delivered until every hook took it: one that raised is called again every RECONCILE_MS, unless a later event of
--- that member replaced it. A role that keeps a table of members (`members = function (state, members)` in its script) is
--- given the living ones as often, so that an event its hooks missed does no lasting harm.
local errors = require "shoal.base.errors"
local joining = require "shoal.node.joining"
local fit = require "shoal.job.fit"
local log = require "shoal.base.log"
local msgpack = require "shoal.core.msgpack"
local sorted = require "shoal.base.sorted"
local swim = require "shoal.member.swim"

local membership = {}

local LEAVE_MS = 1000 -- A leave waits this long for another member to acknowledge it.
local RECONCILE_MS = 3000
-- In which so many members must be lost that it is called a partition: ten probe intervals of the profile.
local PARTITION_MS = { ["local"] = 2000, lan = 10000, wan = 50000 }

membership.LEAVE_MS = LEAVE_MS

local NO_LABELS = {}

--- Labels as a member gave them: a table of a few short texts, or none.
local function labels_of(value)
  if type(value) ~= "table" then return NO_LABELS end
  return not fit.problem(value) and value or NO_LABELS
end

--- The role, datacenter, cores and labels in a member's payload. It comes from outside, so each field's type is checked.
---@return string role, string dc, integer cores, table<string, string> labels
local function facts_of(self, member)
  local payload = member.payload
  if not payload or payload == "" then return "", "", 0, NO_LABELS end
  local facts, err, code = msgpack.unpack(payload)
  if type(facts) == "table" and type(facts.role) == "string" and type(facts.dc) == "string"
    and math.type(facts.cores) == "integer" and facts.cores >= 0 then
    return facts.role, facts.dc, facts.cores, labels_of(facts.labels)
  end
  if self.payloads[member.name] ~= member.payload_version then -- Each payload is reported once, however often it is looked at.
    self.payloads[member.name] = member.payload_version
    errors.report("swim.payload", { member = member.name }, err or "expected role, dc and cores", code or "MALFORMED")
  end
  return "", "", 0, NO_LABELS
end

log.event("swim.held", { "member", "role", "dc", "points", "for_ms" })

--- Fire the role's hooks for an event; one that failed is remembered for the next comparison.
local function fire(self, event)
  local name = event.member.name
  local _, failed = self.hooks:fire("swim.member", { member = name, kind = event.kind }, event)
  self.untaken[name] = failed > 0 and event or nil
end

--- Hand one member event to the journal, the role's hooks and the partition detector.
local function on_member(self, event)
  local m = event.member
  m.role, m.dc, m.cores, m.labels = facts_of(self, m)
  self.journal:feed(event)
  if self.layer_one then errors.call("swim.event", { kind = event.kind, member = m.name }, self.layer_one, event) end
  if event.kind == "forgotten" then return end -- Its end was an event before.
  if event.kind == "dead" and m.held then -- It lives, and people will wonder.
    local why = self.swim:why(m.name)
    log.warning("swim.held", { member = m.name, role = m.role, dc = m.dc, points = ("%.1f"):format(why.flap_points), for_ms = why.held_for_ms })
  end
  if event.kind == "join" then errors.withdraw("detector.global_death", m.name) end -- Its death is no longer true.
  if event.kind == "dead" or event.kind == "left" then self.payloads[m.name] = nil end
  fire(self, event)
  if event.kind == "dead" then
    local text = ("%d.%d"):format(m.incarnation.generation, m.incarnation.version)
    self.hooks:deliver("detector.global_death", {
      node = m.name, job = "none", incarnation = text, suspicion_age_ms = m.suspected_ms, confirmations = m.confirmations,
    }, m.name, m.name, text)
  end
  self.partition:feed(event)
end

log.event("swim.partition", { "kind", "cause", "lost", "suspected", "dead", "kept", "silent", "names", "returned", "lasted_ms" })

--- Many members lost at once, or back: a line in the log, and the role's hooks.
local function on_partition(self, event)
  local names = {}
  for i, m in ipairs(event.lost) do names[i] = m.name end
  local grave = event.kind == "detected" or event.kind == "gave_up"
  log[grave and "warning" or "info"]("swim.partition", {
    kind = event.kind, cause = event.cause, lost = #event.lost, suspected = event.suspected, dead = event.dead, kept = event.kept,
    silent = event.silent, names = table.concat(names, " ", 1, math.min(#names, 20)), returned = #event.returned,
    lasted_ms = event.lasted_ms,
  })
  self.hooks:fire("swim.partition", { kind = event.kind, cause = event.cause, lost = #event.lost, kept = event.kept }, event)
end

local LIVES = { alive = true, suspect = true }

--- Fire again each event that a hook did not take, with the member as it is now; then let the role compare. A hook that raises
--- for one member does not hold back another member's event.
function membership.reconcile(self)
  for name, event in sorted(self.untaken) do
    local m = self.swim:member(name)
    if m then
      m.role, m.dc, m.cores, m.labels = facts_of(self, m)
      event.member = m
    end
    fire(self, event)
  end
  if not self.script.members then return end
  local living = {}
  for _, m in ipairs(membership.list(self)) do
    if LIVES[m.state] and m.name ~= self.name then living[#living + 1] = m end
  end
  errors.run("role.members", { role = self.role }, nil, self.script.members, self.state, living)
end

--- Membership: everyone but a client, among the nodes of its own tier's group.
function membership.open(self)
  if self.role == "client" then return true end
  local window_ms = PARTITION_MS[self.config.profile]
  self.partition = assert(swim.partition(self.world, {
    window_ms = window_ms, heal_ms = window_ms // 2, tell_ms = window_ms // 4, group_of = function (member) return member.dc end,
  }, function (event) on_partition(self, event) end))
  self.group = self.config.cluster .. "/" .. self.dc
  local seeds, problem, word = joining.open(self)
  if not seeds then return nil, problem, word end
  local options = {
    node = self.name, bind = self.address, cluster = self.group, profile = self.config.profile,
    leave_timeout_ms = LEAVE_MS, seeds = seeds, record = self.config.record,
    payload = msgpack.pack({ role = self.role, dc = self.dc, cores = self.config.cores, labels = self.config.labels }),
  }
  for name, value in sorted(self.config.membership) do options[name] = value end
  local opened, err, code = swim.open(self.world, options, function (event)
    errors.call("swim.event", { kind = event.kind, member = event.member.name }, on_member, self, event)
  end, function (notice)
    errors.call("swim.event", { kind = notice.kind, member = notice.name }, joining.notice, self, notice)
  end)
  if not opened then return nil, err, code end
  self.swim = opened
  joining.watch(self)
  self.scope:loop("node.reconcile", {}, { interval_ms = RECONCILE_MS, first_ms = RECONCILE_MS }, function () membership.reconcile(self) end)
  return true
end

--- All members, with role, dc, cores and labels from their payloads.
function membership.list(self)
  local out = {}
  for i, m in ipairs(self.swim and self.swim:members() or {}) do
    m.role, m.dc, m.cores, m.labels = facts_of(self, m)
    out[i] = m
  end
  return out
end

return membership
