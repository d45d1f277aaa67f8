--- A world of files that a spec controls: it decides when a sync completes or fails, and a crash keeps only the synced bytes (plus as
--- many more as the spec chooses). It has a clock and timers, so that tasks run in it.
local disk = {}
disk.__index = disk

local function missing(path) return nil, path .. ": no such file", "ENOENT" end

--- `files` survive from one world to the next, as a disk survives a restart.
function disk.new(files)
  return setmetatable({ files = files or {}, directories = {}, later = {}, logs = {}, timers = {}, time_ns = 0, puts = 0 }, disk)
end

-- Clock and randomness: virtual, as far as tasks need them.
function disk:now_ns() return self.time_ns end
function disk:fresh_ns() return self.time_ns end
function disk:wall_ns() return self.time_ns end
function disk.random(_, n) return n and 1 or 4 end
function disk.unit(_) return 0.5 end
function disk.seed(_) return 1 end
function disk.simulated(_) return true end

function disk:timer(fn)
  local timer, world = { fn = fn }, self
  function timer.start(_, ms) timer.at_ns = world.time_ns + math.floor(ms * 1000000) end
  function timer.start_at(_, ns) timer.at_ns = ns end
  function timer.stop() timer.at_ns = nil end
  function timer.close() timer.at_ns, timer.closed = nil, true end
  self.timers[#self.timers + 1] = timer
  return timer
end

--- Let ms pass, firing timers in order.
function disk:advance(ms)
  local stop_ns = self.time_ns + math.floor(ms * 1000000)
  while true do
    local first
    for _, timer in ipairs(self.timers) do
      if timer.at_ns and timer.at_ns <= stop_ns and (not first or timer.at_ns < first.at_ns) then first = timer end
    end
    if not first then break end
    self.time_ns = math.max(self.time_ns, first.at_ns)
    first.at_ns = nil
    first.fn()
  end
  self.time_ns = stop_ns
end

-- Files.
function disk:make_directory(path) self.directories[path] = true return true end
function disk:stat(path)
  if not self.directories[path] then return missing(path) end
  return { size = 0, directory = true }
end
function disk:unlink(path)
  if not self.files[path] then return missing(path) end
  self.files[path] = nil
  return true
end
function disk:rename(from, to)
  if not self.files[from] then return missing(from) end
  self.files[to], self.files[from] = self.files[from], nil
  return true
end
--- A put that completes at disk:put_all().
function disk:put_later(path, bytes, fn)
  if self.put_refused then return nil, "too many puts", "FULL" end
  self.later[#self.later + 1] = { path = path, bytes = bytes, fn = fn }
  return true
end
--- Complete or fail all pending puts, including those that a completion begins.
function disk:put_all()
  while self.later[1] do
    local put = table.remove(self.later, 1)
    put.fn(self:put_durable(put.path, put.bytes))
  end
end
function disk:read_file(path)
  local file = self.files[path]
  if not file then return missing(path) end
  return file.bytes
end
function disk:put_durable(path, bytes)
  if self.put_fails then return nil, "no space left on device", "ENOSPC" end
  self.puts = self.puts + 1
  self.files[path] = { bytes = bytes, synced = #bytes }
  return true
end

function disk:log(path, on_synced)
  local world = self
  local file = self.files[path] or { bytes = "", synced = 0 }
  self.files[path] = file
  local log = { path = path, syncs = 0 }
  function log.append(_, bytes)
    if world.append_fails then return nil, "no space left on device", "ENOSPC" end
    file.bytes = file.bytes .. bytes
    return true
  end
  function log.sync()
    assert(not log.closed and not log.syncing, "the tier runs one sync at a time")
    log.syncing, log.syncs = #file.bytes, log.syncs + 1
    return true
  end
  function log.truncate(_, size)
    assert(not log.syncing, "the tier cuts only when no sync runs")
    file.bytes, file.synced = file.bytes:sub(1, size), math.min(file.synced, size)
    return true
  end
  function log.size() return #file.bytes end
  function log.close() log.closed, log.syncing = true, nil end
  --- Complete the pending sync. False: there was none.
  function log.complete(_, err, code)
    local size = log.syncing
    if not size then return false end
    log.syncing = nil
    if err then on_synced(nil, err, code) return true end
    file.synced = size
    on_synced(size)
    return true
  end
  world.logs[#world.logs + 1] = log
  return log
end

--- The newest log.
function disk:last_log() return self.logs[#self.logs] end

--- Complete syncs and puts until none is pending.
function disk:settle()
  repeat
    local log, again = self:last_log(), false
    while not log.closed and log:complete() do self.settled = (self.settled or 0) + 1 end
    if self.later[1] then
      again = true
      self:put_all()
    end
    self:advance(0) -- Runs tasks that yielded.
  until not again and (self:last_log().closed or not self:last_log().syncing)
end

--- The files after a crash: the synced bytes, and `keep` bytes more of the written ones.
function disk:crash(keep)
  local left = {}
  for path, file in next, self.files do
    local bytes = file.bytes:sub(1, file.synced + (keep or 0))
    left[path] = { bytes = bytes, synced = #bytes }
  end
  return disk.new(left)
end

return disk
