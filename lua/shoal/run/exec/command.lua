--- exec.command: run a command line to its end, keep the beginning and the end of its output, and leave nothing of it behind.
---
---   start -> running --exit, and its keeper has killed what it left--> ended
---               |  stop(): TERM to all of it, after KILL_AFTER_MS KILL
---               |  kill(): KILL at once
---               +--- it is still there STUCK_MS after a KILL: give it up, an incident
---
--- Its parent is a keeper (`keeper` in c/world/world.h), so that `kill $PPID` ends that one attempt and not the worker with all others. All
--- that the command starts stays below the keeper, whatever its group or session, and ends with the command; the result names it (`left`).
--- All of it goes when this process does: the guard (exec/guard.lua) sees to that.
---
--- Its output is read here, in the worker's own loop, so reading is rationed: all commands together may use SLOT_BYTES in SLOT_MS. One that
--- writes faster waits for its pipe, and the worker stays able to answer.
local errors = require "shoal.base.errors"
local task = require "shoal.base.task"

local command = {}

command.KEEP_BYTES = 64 * 1024 -- Of the output's beginning, and of its end.
local KILL_AFTER_MS = 2000
local STUCK_MS = 10000   -- From a KILL to the exit. Only a process that hangs in the kernel needs longer.
local PIPES_MS = 1000    -- From the exit to the end of its output, which something that escaped its keeper may hold.
local PIECES_MAX = 256   -- Of output that waits to be joined.
local SLOT_MS, SLOT_BYTES = 20, 2 * 1024 * 1024 -- 100 MB/s, about 5 % of a CPU.
local READ_COST_BYTES = 16 * 1024 -- A read of one byte takes about as long as one of this many.

---@class Command
local Command = {}
Command.__index = Command

-- Output ---------------------------------------------------------------------------------------------------------------

local function push(pieces, bytes)
  pieces.bytes = pieces.bytes + #bytes
  pieces[#pieces + 1] = bytes
  if #pieces <= PIECES_MAX then return end
  local text = table.concat(pieces):sub(-command.KEEP_BYTES)
  for i = #pieces, 2, -1 do pieces[i] = nil end
  pieces[1], pieces.bytes = text, #text
end

local function text_of(pieces) return table.concat(pieces):sub(-command.KEEP_BYTES) end

local function keep(self, bytes)
  self.bytes = self.bytes + #bytes
  local head = self.head
  local room = command.KEEP_BYTES - head.bytes
  if room > 0 then
    push(head, bytes:sub(1, room))
    bytes = bytes:sub(room + 1)
  end
  if bytes ~= "" then push(self.tail, bytes) end
  local tail = self.tail
  while tail[2] and tail.bytes - #tail[1] >= command.KEEP_BYTES do tail.bytes = tail.bytes - #table.remove(tail, 1) end
end

local rations = setmetatable({}, { __mode = "k" }) -- By world: what is left of this slot.

--- Take a read off the ration. False when that is used up.
local function afford(world, bytes)
  local ration, now_ns = rations[world], world:now_ns()
  if not ration then
    ration = { until_ns = 0 }
    rations[world] = ration
  end
  if now_ns >= ration.until_ns then ration.left, ration.until_ns = SLOT_BYTES, now_ns + SLOT_MS * 1000000 end
  ration.left = ration.left - bytes - READ_COST_BYTES
  return ration.left > 0
end

local function pause(self)
  if self.paused then return end
  self.paused = true
  for _, stream in ipairs(self.streams) do stream:read(false) end
  self.pauser = self.pauser or self.world:timer(function ()
    self.paused = false
    for _, stream in ipairs(self.streams) do stream:read(true) end
  end)
  self.pauser:start(SLOT_MS)
end

local function look(self)
  if self.status and self.open_pipes == 0 then self.output_ended:settle(true) end
end

local function listen(self, fd)
  local stream = self.process:stream(fd)
  self.open_pipes = self.open_pipes + 1
  self.streams[#self.streams + 1] = stream
  stream:attach {
    on_read = function (_, bytes)
      keep(self, bytes)
      if not afford(self.world, #bytes) then pause(self) end
    end,
    on_end = function ()
      self.open_pipes = self.open_pipes - 1
      look(self)
    end,
  }
end

-- Its end ----------------------------------------------------------------------------------------------------------------

--- What it left behind, for people: "2 processes: sleep 57 (pid 411), sleep 58 (pid 412)".
local function left_of(count, some)
  local names = {}
  for i, p in ipairs(some or {}) do names[i] = ("%s (pid %d)"):format(p.command, p.pid) end
  if count > #names and #names > 0 then names[#names + 1] = "..." end
  return ("%d process%s%s%s"):format(count, count == 1 and "" or "es", #names > 0 and ": " or "", table.concat(names, ", "))
end

local function ended(self, status, signal)
  if self.status then return end
  self.status, self.signal = status, signal
  local cpu_ms, count, some = self.process:ended()
  self.cpu_ms, self.left = cpu_ms, count > 0 and left_of(count, some) or nil
  if self.killer then self.killer:stop() end
  self.exited:settle(true)
  look(self)
end

--- Without a keeper, or after one that was killed, the group; else all of it.
local function signal_all(self, number)
  local ok, err, code = self.process:kill(number)
  if not ok and code ~= "ESRCH" then errors.report("exec.kill", { pid = self.process:pid(), signal = number }, err, code) end
end

--- KILL all of it. Its exit follows; if it does not, it is given up.
function Command:kill()
  if self.killed or self.status or self.closed then return end
  self.killed = true
  signal_all(self, 9)
  self.killer = self.killer or self.world:timer(function () self.on_late() end)
  self.on_late = function ()
    errors.report("exec.kill", { pid = self.process:pid() }, ("it is still there %d ms after it was killed"):format(STUCK_MS))
    self.stuck = true
    ended(self, 0, 9)
  end
  self.killer:start(STUCK_MS)
end

--- End the command from outside: TERM to all of it, and KILL KILL_AFTER_MS later. Idempotent.
function Command:stop()
  if self.stopping or self.status or self.closed then return end
  self.stopping = true
  signal_all(self, 15)
  self.killer = self.killer or self.world:timer(function () self.on_late() end)
  if self.killed then return end
  self.on_late = function () self:kill() end
  self.killer:start(KILL_AFTER_MS)
end

--- Leave nothing of it, at once.
function Command:close()
  if self.closed then return end
  self.closed = true
  if not self.status or self.status == -1 or self.stuck then
    signal_all(self, 9) -- Its leader is there until the close below, if only as a zombie: the group is its own.
  end
  self.guard:ended(self.process:pid())
  for _, timer in ipairs { self.killer or false, self.pauser or false } do
    if timer then timer:close() end
  end
  for _, stream in ipairs(self.streams) do stream:close() end
  self.process:close()
end

Command.__close = Command.close

--- Wait for its end.
---@return { status: integer, signal: integer, head: string, tail: string, bytes: integer, left?: string }
---  status -1: its keeper was killed by `signal`; left: what was ended with it, for people
function Command:wait()
  self.exited:await() -- dropped: it is only ever set
  if self.status == -1 then signal_all(self, 9) end -- Nobody kept it.
  local done = self.output_ended:await(PIPES_MS)
  if not done then self.output_ended:await(0) end -- dropped: we may have been paused; what came by now is its output
  return { status = self.status, signal = self.signal, head = text_of(self.head), tail = text_of(self.tail), bytes = self.bytes,
    left = self.left }
end

--- The process id of the command's keeper, which is its group's.
function Command:pid() return self.process:pid() end

--- Start a command. The caller holds it in a to-be-closed variable.
---@param world table
---@param guard Guard
---@param options { argv: string[], env: table<string, string>, inherit: string[], cwd?: string, limits?: table }  see world:spawn
---@return Command? command, string? err, string? code
function command.start(world, guard, options)
  local self = setmetatable({
    world = world, guard = guard, head = { bytes = 0 }, tail = { bytes = 0 }, bytes = 0, open_pipes = 0, streams = {},
    exited = task.future("command.exit"), output_ended = task.future("command.output"),
  }, Command)
  local err, code
  self.process, err, code = guard:spawn {
    argv = options.argv, env = options.env, inherit = options.inherit, cwd = options.cwd, limits = options.limits,
    pipe = { stdout = true, stderr = true }, keeper = true,
    on_exit = function (status, signal) ended(self, status, signal) end,
  }
  if not self.process then return nil, err, code end
  listen(self, 1)
  listen(self, 2)
  return self
end

return command
