--- exec.command: run a command line to its end, keep what it says, and leave nothing of it behind.
---
---   start -> running --exit--> (sweep) -> ended
---               |  stop(): TERM to the group, after 2 s KILL
---
--- The command runs in a process group of its own. Beside it, in the same group, stands a guard: a small sh that waits on a
--- pipe of which we hold the other end. When that end closes (we are done with the command, or we died by whatever means,
--- SIGKILL included), the guard kills the group. So what the command started and forgot goes too; only what made itself a session of
--- its own escapes.
local task = require "shoal.base.task"

local command = {}

local KEEP_BYTES = 64 * 1024 -- Of the output's beginning, and of its end.
local KILL_AFTER_MS = 2000
local PIPES_MS = 1000 -- After the exit, for what escaped the group and holds our pipes.

local GUARD = [[
exec 3<&0 </dev/null
( trap '' TERM INT HUP; exec >/dev/null 2>&1; read -r _ <&3; kill -KILL 0 ) &
exec 3<&-
exec "$@"]]

---@class Command
local Command = {}
Command.__index = Command

local function keep(self, bytes)
  self.bytes = self.bytes + #bytes
  local room = KEEP_BYTES - #self.head
  if room > 0 then
    self.head = self.head .. bytes:sub(1, room)
    bytes = bytes:sub(room + 1)
  end
  if bytes ~= "" then
    self.tail = #bytes >= KEEP_BYTES and bytes:sub(-KEEP_BYTES) or (self.tail .. bytes):sub(-KEEP_BYTES)
  end
end

local function look(self)
  if self.status and self.open_pipes == 0 then self.ended:settle(true) end
end

local function listen(self, fd)
  local stream = self.process:stream(fd)
  if not stream then return end
  self.open_pipes = self.open_pipes + 1
  self.streams[#self.streams + 1] = stream
  stream:attach {
    on_read = function (_, bytes) keep(self, bytes) end,
    on_end = function ()
      self.open_pipes = self.open_pipes - 1
      stream:close()
      look(self)
    end,
  }
end

--- End the command from outside: TERM, and after 2 s KILL, to the whole group. Idempotent.
function Command:stop()
  if self.stopping or self.status then return end
  self.stopping = true
  self.process:kill(15) -- A refusal means that it has ended, and then its exit is on the way.
  self.killer = self.world:timer(function () self.process:kill(9) end)
  self.killer:start(KILL_AFTER_MS)
end

--- Let go of everything at once. The guard's pipe closes with it, and so the group dies.
function Command:close()
  if self.closed then return end
  self.closed = true
  if not self.status then self.process:kill(9) end
  if self.killer then self.killer:close() end
  if self.guard then self.guard:close() end
  for _, stream in ipairs(self.streams) do stream:close() end
  self.process:close()
end

Command.__close = Command.close

--- Wait for its end.
---@return { status: integer, signal: integer, head: string, tail: string, bytes: integer }
function Command:wait()
  self.exited:await() -- dropped: it is only ever set
  if self.killer then self.killer:stop() end
  if self.guard then self.guard:close() end -- What it left running in its group ends here.
  self.guard = nil
  self.ended:await(PIPES_MS) -- dropped: what came by then is its output
  return { status = self.status, signal = self.signal, head = self.head, tail = self.tail, bytes = self.bytes }
end

--- Start a command. The caller holds it in a to-be-closed variable.
---@param world table
---@param options { argv: string[], env: table<string, string> }
---@return Command? command, string? err, string? code
function command.start(world, options)
  local guarded = not world:simulated() -- A simulated command is a function: it has no processes to lose.
  local argv = options.argv
  if guarded then argv = { "sh", "-c", GUARD, "sh", table.unpack(argv) } end
  local self = setmetatable({
    world = world, head = "", tail = "", bytes = 0, open_pipes = 0, streams = {}, exited = task.future("command.exit"),
    ended = task.future("command.output"),
  }, Command)
  local err, code
  self.process, err, code = world:spawn {
    argv = argv, env = options.env, pipe = { stdin = guarded, stdout = true, stderr = true }, group = true,
    on_exit = function (status, signal)
      self.status, self.signal = status, signal
      self.exited:settle(true)
      look(self)
    end,
  }
  if not self.process then return nil, ("cannot start %s: %s"):format(options.argv[1], err), code end
  if guarded then
    self.guard = self.process:stream(0)
    self.guard:attach { on_end = function () end } -- Nothing is read from it; its closing is what speaks.
  end
  listen(self, 1)
  listen(self, 2)
  return self
end

return command
