--- segments: the files of a tier of one: its log and snapshot, and the rotation of a long log without a long turn of the loop.
---
---     DIR/snapshot   the state at one index
---     DIR/log.old    records up to a snapshot that is being written (only while it is)
---     DIR/log        records since
---     DIR/log.next   the next log, empty, until it takes the place of `log`
---
---              log long enough                  log.next is durable            the state is packed and durable
---     RESTING -----------------> PREPARING --------------------------> SAVING ---------------------------------> RESTING
---                                   |  failed: again at rotate_bytes more    |  failed: again after RETRY_MS; log.old stays
---
--- A crash at any point leaves files with consecutive records: open() replays log.old, log, log.next in this order, each record once,
--- and restores the folder to one snapshot and one log.
local errors = require "shoal.base.errors"
local log = require "shoal.base.log"
local machine = require "shoal.base.machine"
local record = require "shoal.tier.record"
local task = require "shoal.base.task"

local segments = {}
segments.__index = segments

local RETRY_MS = 10000
segments.SNAPSHOT_MAX = 250 << 20 -- The world reads files of at most 256 MiB: a snapshot that could not be read is never written.

local STATES = machine.define {
  name = "segments", first = "resting",
  moves = { resting = { "preparing" }, preparing = { "resting", "prepared" }, prepared = { "saving" }, saving = { "resting" } },
}

log.event("tier.cut", { "tier", "path", "bytes" })
log.event("tier.new", { "tier", "path" })

--- `hands` are the tier's: replay(record), restore(index, state), on_synced(size, err, code), lose(why), sync(), ids(index).
function segments.new(tier, hands)
  local directory = tier.options.directory
  return STATES:enter(setmetatable({
    tier = tier, hands = hands, world = tier.world, scope = task.scope("segments " .. tier.name, tier.node.scope), directory = directory,
    snapshot = directory .. "/snapshot", log = directory .. "/log", old = directory .. "/log.old", next = directory .. "/log.next",
  }, segments))
end

local function move(self, to) assert(STATES:move(self, to, self.tier.name)) end

-- Opening --------------------------------------------------------------------------------------------------------------

--- What an operator can do about damage, for the message.
local function advice(path, err)
  local offset = err:match "^offset (%d+): "
  local cut = offset and offset ~= "0" and ("truncate -s %s %s"):format(offset, path) or ("mv %s %s.damaged"):format(path, path)
  return ("; nothing was changed. Restore this folder from a copy; or start without what the file holds from there on: %s"):format(cut)
end

--- Replay a file of records, if it exists. Returns its sound bytes and its length.
local function replay(self, path)
  local bytes, err, code = self.world:read_file(path)
  if not bytes then
    if code == "ENOENT" then return 0, 0 end
    return nil, err, code
  end
  if bytes == "" then return 0, 0 end -- Created, but not written before the crash.
  local size
  size, err, code = record.read_log(bytes, self.hands.replay)
  if not size then return nil, ("%s: %s%s"):format(path, err, code == "MALFORMED" and advice(path, err) or ""), code end
  if size < #bytes then -- A torn tail: the node crashed during the write.
    log.warning("tier.cut", { tier = self.tier.name, path = path, bytes = #bytes - size })
  end
  return size, #bytes
end

local function restore(self)
  local bytes, err, code = self.world:read_file(self.snapshot)
  if not bytes then
    if code == "ENOENT" then return true end
    return nil, err, code
  end
  local index, state, word = record.read_snapshot(bytes)
  if not index then return nil, ("%s: %s"):format(self.snapshot, state), word end
  local ok
  ok, err, code = self.hands.restore(index, state)
  if not ok then return nil, ("%s: %s"):format(self.snapshot, err), code end
  return true
end

--- The whole state at once: at open, before anything waits for the loop.
local function state_of(self)
  local ok, state = errors.run("tier.snapshot", self.hands.ids(), nil, self.tier.options.snapshot)
  if not ok then return nil, tostring(state.message), "FAILED" end
  if type(state) ~= "function" then return state end
  local pieces = {}
  for piece in state do pieces[#pieces + 1] = piece end
  return table.concat(pieces)
end

local function unlink(self, path)
  local ok, err, code = self.world:unlink(path)
  if ok or code == "ENOENT" then return true end
  return nil, err, code
end

--- Complete a rotation that a crash interrupted: write the state as the snapshot, followed by an empty log.
local function end_rotation(self)
  local state, err, code = state_of(self)
  if not state then return nil, err, code end
  local ok
  ok, err, code = self.world:put_durable(self.snapshot, record.encode_snapshot(self.tier.applied, state))
  if ok then ok, err, code = unlink(self, self.old) end
  if ok then ok, err, code = self.world:put_durable(self.log, record.LOG_HEADER) end
  if ok then ok, err, code = unlink(self, self.next) end
  return ok, err, code
end

local function open_log(self, size)
  local tier, opened = self.tier, nil
  local err, code
  opened, err, code = self.world:log(self.log, function (synced, why, word)
    if tier.log ~= opened then return end -- The callback is of a file that has been replaced.
    self.hands.on_synced(synced, why, word)
    task.flush() -- Run the tasks that waited for this sync now, not in the next turn.
  end)
  if not opened then return nil, err, code end
  tier.log = opened
  local held = opened:size()
  if size < held then
    local ok
    ok, err, code = opened:truncate(size)
    if not ok then return nil, err, code end
  end
  tier.size, tier.durable = size, size
  return true
end

--- Restore, replay, and open the log for appending.
---@return true? ok, string? err, string? code
function segments:open()
  local new = not self.world:stat(self.directory)
  local ok, err, code = self.world:make_directory(self.directory)
  if ok then ok, err, code = restore(self) end
  if not ok then return nil, err, code end
  local restored, sizes = self.tier.applied, {}
  for _, path in ipairs { self.old, self.log, self.next } do
    local size, length, word = replay(self, path)
    if not size then return nil, length, word end
    sizes[path] = { size = size, length = length }
  end
  local header = #record.LOG_HEADER
  if sizes[self.old].length > 0 or sizes[self.next].size > header then
    ok, err, code = end_rotation(self)
    if not ok then return nil, err, code end
    return open_log(self, header)
  end
  if sizes[self.log].length == 0 then
    if restored > 0 then
      return nil, ("%s: missing, though %s holds a snapshot of index %d: what came after it is gone. Restore the log from a copy; or start "
        .. "from the snapshot alone: printf 'shoal tier log 1' > %s"):format(self.log, self.directory, restored, self.log), "MALFORMED"
    end
    if not new then log.warning("tier.new", { tier = self.tier.name, path = self.directory }) end
    ok, err, code = self.world:put_durable(self.log, record.LOG_HEADER)
    if not ok then return nil, err, code end
    return open_log(self, header)
  end
  return open_log(self, sizes[self.log].size)
end

-- Rotating -------------------------------------------------------------------------------------------------------------

local function failed(self, err, code) errors.report("tier.snapshot", self.hands.ids(), err, code) end

--- The log is long: begin a rotation. Does nothing while one is in progress.
function segments:rotate()
  if self.state ~= "resting" then return end
  local tier = self.tier
  tier.rotate_at = tier.size + tier.options.rotate_bytes -- If this fails, the next try comes after rotate_bytes more.
  if self.stuck then return end -- log.old still waits for its snapshot.
  local ok, err, code = self.world:put_later(self.next, record.LOG_HEADER, function (done, why, word)
    if self.closed then return end
    if not done then
      failed(self, why, word)
      return move(self, "resting")
    end
    move(self, "prepared")
    self:turn()
  end)
  if not ok then return failed(self, err, code) end
  move(self, "preparing")
end

--- Append the records that are not yet synced to the new file too: none of them has been acknowledged.
local function append_again(self)
  local tier = self.tier
  for i = tier.queue_first, tier.queue_last do
    local entry = tier.queue[i]
    local bytes = record.encode(entry.index, tier.durable, entry.kind, entry.command)
    local ok, err, code = tier.log:append(bytes)
    if not ok then
      errors.report("tier.log", self.hands.ids(entry.index), err, code)
      self.hands.lose("the log cannot be written: " .. err)
      return nil
    end
    tier.size = tier.size + #bytes
    entry.stop = tier.size
  end
  return true
end

--- Switch to the new log, between two syncs. After a failure half-way there is no log to write to, so this node stops leading.
local function swap(self)
  local tier = self.tier
  tier.log:close()
  local ok, err, code = self.world:rename(self.log, self.old)
  if ok then ok, err, code = self.world:rename(self.next, self.log) end
  if ok then ok, err, code = open_log(self, #record.LOG_HEADER) end
  if not ok then
    errors.report("tier.log", self.hands.ids(), err, code)
    self.hands.lose("the log cannot be written: " .. tostring(err))
    return nil
  end
  tier.rotate_at = tier.options.rotate_bytes
  return append_again(self)
end

--- Write the state in pieces, one a turn of the loop.
local function pack(self)
  local ok, state = errors.run("tier.snapshot", self.hands.ids(), nil, self.tier.options.snapshot)
  if not ok then return nil end -- It has been reported.
  local index = self.tier.applied
  local pieces, length, crc = { "" }, 0, nil
  local function put(piece)
    pieces[#pieces + 1], length, crc = piece, length + #piece, record.sum(piece, crc)
  end
  if type(state) == "string" then
    put(state)
  elseif type(state) ~= "function" then
    failed(self, ("expected bytes or a function, found %s"):format(type(state)), "MALFORMED")
    return nil
  else
    while true do
      local going, piece = errors.run("tier.snapshot", self.hands.ids(), nil, state)
      if not going then return nil end
      if piece == nil then break end
      put(piece)
      if length > segments.SNAPSHOT_MAX then
        failed(self, ("a snapshot of more than %d bytes could not be read again"):format(segments.SNAPSHOT_MAX), "TOO_LARGE")
        return nil
      end
      task.yield()
    end
  end
  pieces[1] = record.snapshot_head(index, length, record.sum(pieces[1], crc))
  return table.concat(pieces)
end

--- Write a snapshot; true when it is durable and log.old is removed.
local function save(self)
  local bytes = pack(self)
  if not bytes then return false end
  local written = task.future "tier.snapshot"
  local ok, err, code = self.world:put_later(self.snapshot, bytes, function (done, why, word) written:settle(done, why, word) end)
  if ok then ok, err, code = written:await() else written:drop "the write was refused, which put_later returned" end
  if ok then ok, err, code = unlink(self, self.old) end
  if not ok then
    failed(self, err, code)
    return false
  end
  local o = self.tier.options
  self.tier.rotate_at = math.max(o.rotate_bytes, math.min(2 * #bytes, o.log_max // 2)) -- A large state is not written for a short log.
  return true
end

--- Between two syncs: continue a rotation that waited for this point.
function segments:turn()
  local tier = self.tier
  if self.state ~= "prepared" or tier.syncing or tier.state == "lost" or tier.state == "closed" then return end
  move(self, "saving")
  if not swap(self) then return end
  self.stuck = true
  self.scope:keep("tier.snapshot", self.hands.ids(), function ()
    while not save(self) do task.sleep(RETRY_MS) end
    self.stuck = nil
    move(self, "resting")
  end)
  if tier.queue_first <= tier.queue_last then self.hands.sync() end
end

function segments:close()
  self.closed = true
  self.scope:close()
end

return segments
