--- tier: a replicated log of commands. Its users propose commands; each committed one reaches `apply` on every member, in rising order
--- of its index.
---
---     local index, err, code = tier:propose(command, 5000)   -- in a task; waits until it is committed and applied here
---
--- This is a tier of one: a log on this node's own disk. A command is committed when the log is synced, and only then applied and
--- acknowledged. Proposals that arrive during a sync share the next one. A Raft group will replace this file; users must rely only on
--- the following, which holds for both:
---
---   - `apply(index, command)` gets rising, not consecutive, indexes; it has no clock, cannot wait, and must not propose.
---     If it raises, the members' states would diverge: it is a critical incident, and this node stops leading.
---   - An index is a fence: strictly rising over commands, leaderships and restarts.
---   - NOT_LEADER, FULL: the command was not taken. UNKNOWN: it may still apply, or have applied; give commands a key to find out.
---   - Restart: `restore(bytes)` with the newest snapshot, then `apply` for each later command, then `on_lead(index)`.
---
---        open             the sync of its leadership record            sync failed, apply raised
---   ---------> REPLAYED ----------------------------------> LEADING ---------------------------> LOST
---      (or refused: damage)              close: from any state, CLOSED
---
--- `propose` returns to the command's proposer, as its second result, the value that `apply` returned.
---
--- When the log exceeds rotate_bytes, it continues in a new file while a snapshot of the state is written piece by piece; then the old
--- file is removed (tier/segments.lua). Open cuts off a torn tail with a warning, for none of it was acknowledged. Any other damage
--- makes open fail, with file and offset.
local errors = require "shoal.base.errors"
local record = require "shoal.tier.record"
local schema = require "shoal.base.schema"
local segments = require "shoal.tier.segments"
local task = require "shoal.base.task"

local tier = {}

---@class Tier
local Tier = {}
Tier.__index = Tier

tier.config = schema.record {
  name = schema.string { pattern = "^[%w_%-]+$", max = 64 },
  directory = schema.string(),
  apply = schema.func(),
  snapshot = schema.func(), -- The state as bytes, or a function that gives it in pieces, a call each, and nil at the end.
  restore = schema.func(),
  on_lead = schema.optional(schema.func()),
  on_lose = schema.optional(schema.func()),
  -- A restart replays this much (or twice the snapshot, where that is more), at some 40 MB a second of small commands.
  rotate_bytes = schema.integer { default = 16 << 20, min = 1024, max = 128 << 20 },
  outstanding_max = schema.integer { default = 1024, min = 1, max = 1 << 20 },
  outstanding_bytes_max = schema.integer { default = 16 << 20, min = 1024, max = 1 << 30 },
  log_max = schema.integer { default = 128 << 20, min = 4096, max = 200 << 20, doc = "bytes of a log that cannot be cut; then FULL" },
  command_max = schema.integer { default = 4 << 20, min = 1, max = 64 << 20, doc = "bytes of one command" },
}

local function ids(self, index) return { tier = self.name, index = index or self.applied } end

-- Losing --------------------------------------------------------------------------------------------------------------

--- Fail every waiting proposal with UNKNOWN.
local function release(self, why)
  local queue, first, last = self.queue, self.queue_first, self.queue_last
  self.queue, self.queue_first, self.queue_last, self.queue_bytes = {}, 1, 0, 0
  for i = first, last do
    local entry = queue[i]
    if entry.future then entry.future:fail(("tier %s: %s: it may still apply"):format(self.name, why), "UNKNOWN") end
  end
end

--- Stop leading for good: this node's answers could be wrong from now on. The caller has reported the incident.
local function lose(self, why)
  if self.state == "lost" or self.state == "closed" then return end
  local led = self.state == "leading"
  self.state, self.why = "lost", why
  release(self, why)
  if led and self.options.on_lose then errors.run("tier.on_lose", ids(self), nil, self.options.on_lose, self.applied) end
end

-- Committing ----------------------------------------------------------------------------------------------------------

--- Append one record to the log and start a sync. `future` (may be nil) gets its index once it is applied.
local function append(self, kind, command, future)
  local index = self.index + 1
  local bytes = record.encode(index, self.durable, kind, command)
  local ok, err, code = self.log:append(bytes)
  if not ok then return nil, err, code end
  self.index, self.size = index, self.size + #bytes
  self.queue_last, self.queue_bytes = self.queue_last + 1, self.queue_bytes + #bytes
  self.queue[self.queue_last] = { index = index, kind = kind, command = command, stop = self.size, bytes = #bytes,
    future = future }
  return index
end

local function sync(self)
  if self.syncing then return true end -- The next sync begins when this one ends.
  local ok, err, code = self.log:sync()
  if not ok then
    errors.report("tier.log", ids(self, self.index), err, code)
    lose(self, "the log cannot be synced: " .. err)
    return nil
  end
  self.syncing = true
  return true
end

--- Apply one committed entry. False: that failed, and this node no longer leads.
local function commit(self, entry)
  if entry.kind == record.COMMAND then
    self.applying = true
    local ok, answer = errors.run("tier.apply", ids(self, entry.index), nil, self.options.apply, entry.index,
      entry.command)
    self.applying = false
    if ok then
      entry.answer = answer
    else
      if entry.future then
        entry.future:fail(("tier %s: index %d is committed and could not be applied"):format(self.name, entry.index),
          "UNKNOWN")
      end
      lose(self, "a command could not be applied: " .. tostring(answer.message))
      return false
    end
  end
  self.applied = entry.index
  if entry.future then entry.future:set(entry) end
  if entry.kind == record.LEADS and self.state == "replayed" then
    self.state = "leading"
    if self.options.on_lead then
      errors.run("tier.on_lead", ids(self, entry.index), nil, self.options.on_lead, entry.index)
    end
  end
  return true
end

local function on_synced(self, size, err, code)
  if self.state == "closed" or self.state == "lost" then return end
  self.syncing = false
  if not size then -- The state on disk is unknown, and a second fsync would not show it: the kernel may have dropped the pages.
    errors.report("tier.log", ids(self, self.index), err, code)
    return lose(self, "the log could not be synced: " .. tostring(err))
  end
  self.durable = size
  while self.queue_first <= self.queue_last and self.queue[self.queue_first].stop <= size do
    local entry = self.queue[self.queue_first]
    self.queue[self.queue_first] = nil
    self.queue_first, self.queue_bytes = self.queue_first + 1, self.queue_bytes - entry.bytes
    if not commit(self, entry) or self.state == "closed" then return end -- A hook may have closed us.
  end
  if self.size >= self.rotate_at then self.segments:rotate() end
  self.segments:turn()
  if self.state ~= "lost" and self.queue_first <= self.queue_last then sync(self) end
end

-- For its users --------------------------------------------------------------------------------------------------------

--- Commit a command and apply it here. Waits; call it in a task.
---@param command string  bytes; callers encode
---@param timeout_ms number
---@return integer? index
---@return any err  the value that `apply` returned; or the error's message
---@return string? code  "NOT_LEADER", "FULL", "TOO_LARGE": not taken; "UNKNOWN": it may still apply; or the disk's
---@return string? leader  with NOT_LEADER, when it is known
function Tier:propose(command, timeout_ms)
  if self.applying then error("tier: apply must not propose", 2) end
  if type(command) ~= "string" then error(("tier: a command is a string of bytes, found %s"):format(type(command)), 2) end
  if type(timeout_ms) ~= "number" then error("tier: propose(command, timeout_ms) needs the timeout", 2) end
  if self.state ~= "leading" then
    return nil, ("tier %s: this node does not lead%s"):format(self.name, self.why and ": " .. self.why or ""),
      "NOT_LEADER", nil
  end
  if #command > self.options.command_max then
    return nil, ("tier %s: a command of %d bytes, %d is the limit"):format(self.name, #command, self.options.command_max),
      "TOO_LARGE"
  end
  local waiting = self.queue_last - self.queue_first + 1
  if self.size > self.options.log_max then
    return nil, ("tier %s: the log has %d bytes and cannot be cut, for no snapshot can be written"):format(self.name, self.size), "FULL"
  end
  if waiting >= self.options.outstanding_max or (waiting > 0
    and self.queue_bytes + #command > self.options.outstanding_bytes_max) then
    return nil, ("tier %s: %d commands of %d bytes wait already"):format(self.name, waiting, self.queue_bytes), "FULL"
  end
  local future = task.future("tier.propose")
  local index, err, code = append(self, record.COMMAND, command, future)
  if not index then
    future:drop "the command was not taken, which propose returns"
    errors.report("tier.log", ids(self, self.index), err, code)
    return nil, err, code
  end
  sync(self) -- On failure it has reported, and failed the future.
  local committed
  committed, err, code = future:await(timeout_ms)
  if committed then return committed.index, committed.answer end
  if code ~= "TIMEOUT" then return nil, err, code end
  future:drop "its proposer got UNKNOWN"
  return nil, ("tier %s: not committed within %g ms: it may still apply"):format(self.name, timeout_ms), "UNKNOWN"
end

--- Whether this node leads the tier now.
---@return boolean
function Tier:leads() return self.state == "leading" end

--- The name of the log: only fences of one log can be compared. Each tier of one has its own.
---@return string
function Tier:group() return self.name .. "/" .. self.node.name end

--- The leader's node name, as far as this node knows.
---@return string?
function Tier:leader() return self.state == "leading" and self.node.name or nil end

--- Close the log. Waiting proposals fail with UNKNOWN. on_lose is not called, for the owner closes the tier itself. Idempotent.
function Tier:close()
  if self.state == "closed" then return end
  self.state, self.why = "closed", "the tier is closed"
  release(self, "closed")
  self.segments:close()
  if self.log then self.log:close() end
end

-- Opening --------------------------------------------------------------------------------------------------------------

--- Apply one record of the log, unless the snapshot contains it.
local function replay(self, found)
  if found.index <= self.applied then return true end
  if found.index ~= self.applied + 1 then
    return nil, ("records %d to %d are missing"):format(self.applied + 1, found.index - 1), "MALFORMED"
  end
  if found.kind == record.COMMAND then
    self.applying = true
    local ok, incident = errors.run("tier.apply", ids(self, found.index), nil, self.options.apply, found.index, found.command)
    self.applying = false
    if not ok then
      return nil, ("record %d could not be applied: %s"):format(found.index, tostring(incident.message)), "FAILED"
    end
  end
  self.index, self.applied = found.index, found.index
  return true
end

local function restore(self, index, state)
  local ok, incident = errors.run("tier.restore", ids(self, index), nil, self.options.restore, state)
  if not ok then return nil, ("it could not be restored: %s"):format(tostring(incident.message)), "FAILED" end
  self.index, self.applied = index, index
  return true
end

--- Open the tier: restore, replay, and seek leadership. `on_lead(index)` announces it; until then propose returns NOT_LEADER.
---@param node { world: table, name: string }
---@param options table  see `tier.config`
---@return Tier? tier
---@return string? err   a damaged file is named, with the offset
---@return string? code  "CONFIG", "MALFORMED" (damage), "FAILED" (apply or restore raised), or the disk's
function tier.open(node, options)
  local checked, problem = tier.config(options)
  if not checked then return nil, "tier: " .. problem, "CONFIG" end
  local self = setmetatable({
    node = node, world = node.world, options = checked, name = checked.name, state = "replayed", index = 0, applied = 0,
    queue = {}, queue_first = 1, queue_last = 0, queue_bytes = 0, size = 0, durable = 0, syncing = false, applying = false,
    rotate_at = checked.rotate_bytes,
  }, Tier)
  self.segments = segments.new(self, {
    replay = function (found) return replay(self, found) end,
    restore = function (index, state) return restore(self, index, state) end,
    on_synced = function (...) on_synced(self, ...) end,
    lose = function (why) lose(self, why) end,
    sync = function () return sync(self) end,
    ids = function (index) return ids(self, index) end,
  })
  local ok, err, code = self.segments:open()
  -- Each leadership begins with a record of its own, so its index is new after every restart and serves as a fence.
  if ok then ok, err, code = append(self, record.LEADS, node.name or "", nil) end
  if not ok then
    self:close()
    return nil, ("tier %s: %s"):format(self.name, err), code
  end
  if not sync(self) then
    self:close()
    return nil, ("tier %s: the log cannot be synced"):format(self.name), "FAILED"
  end
  return self
end

return tier
