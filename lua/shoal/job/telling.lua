--- telling: a leader hands the events of its outbox to the role's hooks, each in a task of its own, so that no hook holds the leader.
---
---   recorded (durable) --> in hand --every hook took it--> told (durable)
---        ^                    |raises, returns nil and a problem, or takes longer than HOOK_MS: an incident
---        |                    v
---        |                 waits 1, 2, 4 ... 300 s and is told again, TRIES_MAX times in all; then it is given up, with an incident
---        +-- a restart, or another leader: an event that was not told is told again, with the same id
local errors = require "shoal.base.errors"
local outbox = require "shoal.job.outbox"
local task = require "shoal.base.task"

local telling = {}
telling.__index = telling

telling.IN_HAND_MAX = 16 -- Events of one site at once; the others wait in the outbox.
telling.HOOK_MS = 30000
telling.TRIES_MAX = 20   -- About an hour.
local BACKOFF_MS = { 1000, 300000 }
local TOLD_MS, TOLD_MOST = 200, 500 -- Events that were told within this time are removed by one command.
local WIRED_MS = 50

--- Which sites of a node are hooked, as bits; all of them as long as the node has not wired its hooks.
---@param node table
---@return integer
function telling.mask(node)
  local hooks, mask = node.hooks, 0
  if not hooks then return outbox.ALL end
  for i, site in ipairs(outbox.SITES) do
    if hooks.wired[site] and hooks.wired[site][1] then mask = mask | 1 << (i - 1) end
  end
  return mask
end

---@param lead table
---@param scope table  of the leadership
function telling.open(lead, scope)
  local self = setmetatable({
    lead = lead, scope = scope, seen = lead.ledger.outbox.first - 1, queues = {}, in_hand = {}, told = {}, dropped = lead.ledger.outbox.dropped,
  }, telling)
  for _, site in ipairs(outbox.SITES) do self.queues[site], self.in_hand[site] = { at = 1, to = 0 }, 0 end
  self:look()
  return self
end

--- Call one hook once, bounded. True: it took the event.
local function call(self, site, ids, handle, event)
  local took = false
  local t, err, code = self.scope:spawn(site, ids, function ()
    local copy = {}
    for key, value in next, event do copy[key] = value end -- order-free: a copy
    local answer, problem, word = handle.fn(copy)
    if answer == nil and problem ~= nil then
      errors.report(site, ids, problem, word)
    else
      took = true
    end
  end)
  if not t then
    errors.report(site, ids, err, code)
    return false
  end
  local ended
  ended, err, code = t:join(telling.HOOK_MS)
  if not ended and code == "TIMEOUT" then
    t:cancel()
    errors.report(site, ids, ("the hook did not end within %d ms"):format(telling.HOOK_MS), code)
  elseif not ended and code ~= "FAILED" then -- A raise is an incident already.
    errors.report(site, ids, err, code)
  end
  return took
end

--- Tell an event to every hook of its site that has not taken it.
local function try(self, site, event, taken, attempt)
  local all = true
  for _, handle in ipairs(self.lead.node.hooks.wired[site] or {}) do
    if handle.active and not taken[handle] then
      local ids = { job = event.job, part = event.part or "", event = event.id, hook = handle.label, attempt = attempt }
      taken[handle] = call(self, site, ids, handle, event) or nil
      all = all and taken[handle] ~= nil
    end
  end
  return all
end

--- Remove what was told from the outbox; in batches, for a command costs a sync.
local function forget(self, seq)
  self.told[#self.told + 1] = seq
  if self.forgetting then return end
  local mine = {}
  self.forgetting = mine
  self.scope:keep("lead.tell", { job = "any" }, function ()
    if self.forgetting and self.forgetting ~= mine then return end -- It failed, and another one has its work since.
    self.forgetting = mine
    local free <close> = setmetatable({}, { __close = function () self.forgetting = false end })
    while self.told[1] do
      task.sleep(TOLD_MS)
      local seqs = table.move(self.told, 1, math.min(TOLD_MOST, #self.told), 1, {})
      local facts, err, code = self.lead:propose { kind = "told", seqs = seqs }
      if facts then
        self.told = table.move(self.told, #seqs + 1, #self.told, 1, {})
      elseif code == "NOT_LEADER" or code == "CLOSED" then
        return -- The next leader tells them again.
      else
        errors.report("lead.tell", { job = "any" }, err, code)
      end
    end
  end)
end

--- Tell one event until it is taken or given up.
function telling:fire(site, event)
  local node = self.lead.node
  local told = { tier = self.lead.options.tier, node = node.name, dc = node.dc }
  for key, value in next, event do told[key] = value end -- order-free: a copy
  told.id, told.seq, told.site = ("%s/%s"):format(node.dc ~= "" and node.dc or told.tier, event.id), nil, nil
  local taken, attempt = {}, 1
  while not try(self, site, told, taken, attempt) do
    if attempt == telling.TRIES_MAX then
      errors.report(site, { job = event.job, part = event.part or "", event = told.id, hook = "any", attempt = attempt },
        ("given up after %d tries: no hook hears of this event any more"):format(attempt), "GAVE_UP")
      break
    end
    task.sleep(math.min(BACKOFF_MS[2], BACKOFF_MS[1] * 2 ^ (attempt - 1)) * (0.9 + 0.2 * node.world:unit()))
    attempt = attempt + 1
  end
  forget(self, event.seq)
end

local FIRE = {
  ["job.began"] = function (self, event) self:fire("job.began", event) end,
  ["job.ended"] = function (self, event) self:fire("job.ended", event) end,
  ["job.failed"] = function (self, event) self:fire("job.failed", event) end,
  ["part.began"] = function (self, event) self:fire("part.began", event) end,
  ["part.ended"] = function (self, event) self:fire("part.ended", event) end,
  ["part.failed"] = function (self, event) self:fire("part.failed", event) end,
  ["part.retried"] = function (self, event) self:fire("part.retried", event) end,
}

local begin

--- Begin with the next events of a site, as many as may be in hand.
function begin(self, site)
  local queue, events = self.queues[site], self.lead.ledger.outbox.events
  while queue.at <= queue.to and self.in_hand[site] < telling.IN_HAND_MAX do
    local event = events[queue[queue.at]]
    queue[queue.at] = nil
    queue.at = queue.at + 1
    if event then -- Not dropped meanwhile.
      self.in_hand[site] = self.in_hand[site] + 1
      local counted = true
      self.scope:keep("lead.tell", { job = event.job }, function ()
        if not counted then self.in_hand[site], counted = self.in_hand[site] + 1, true end -- It failed, and begins again.
        local free <close> = setmetatable({}, { __close = function ()
          self.in_hand[site], counted = self.in_hand[site] - 1, false
          begin(self, site)
        end })
        while not self.lead.node.hooks do task.sleep(WIRED_MS) end -- The node is starting.
        FIRE[site](self, event)
      end)
    end
  end
end

--- Events may have been recorded.
function telling:look()
  local box = self.lead.ledger.outbox
  if box.dropped > self.dropped then
    errors.report("lead.tell", { job = "any" },
      ("%d events of jobs were dropped: hooks take too long, and %d wait"):format(box.dropped - self.dropped, box.count), "FULL")
    self.dropped = box.dropped
  end
  for seq = math.max(self.seen + 1, box.first), box.last do
    local event = box.events[seq]
    if event then
      local queue = self.queues[event.site]
      queue.to = queue.to + 1
      queue[queue.to] = seq
      begin(self, event.site) -- In the order of the events, as far as sites have room.
    end
  end
  self.seen = box.last
end

return telling
