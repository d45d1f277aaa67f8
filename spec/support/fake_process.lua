--- Children and pipes for a fake world (spec/support/fake_world.lua), driven by the spec.
---
---   local processes = fake_process.into(world)       world:spawn now makes fake children, in this list
---   p.options                                        the options of the spawn
---   p:say(1, bytes)  p:finish(1)  p:exit(0, 0)       actions of the child; p.signals, p.written: signals and bytes that it got
---   local ends = fake_process.stdio(world)           world:stdio(0), (1): ends[0].handlers, ends[1].bytes, .waiting = bytes not taken
local fake_process = {}

local Stream = {}
Stream.__index = Stream
function Stream:attach(handlers) self.handlers = handlers end
function Stream:write(bytes)
  if self.broken then return nil, "broken pipe", "EPIPE" end
  self.bytes = self.bytes .. bytes
  return true
end
function Stream:queued() return self.waiting end
function Stream:read(on) self.reading = on end
function Stream:close()
  if self.closed then return end
  self.closed, self.world.open = true, self.world.open - 1
end

local function stream(world)
  world.open = world.open + 1
  return setmetatable({ world = world, bytes = "", waiting = 0, reading = true }, Stream)
end

local Process = {}
Process.__index = Process
function Process:stream(fd) return self.streams[fd] end
function Process:pid() return self.number end
function Process:kill(number)
  self.signals[#self.signals + 1] = number
  if self.on_signal then self:on_signal(number) end
  return true
end
function Process:ended() return self.cpu_ms or 0, #(self.left or {}), self.left end
function Process:close()
  if self.closed then return end
  self.closed, self.world.open = true, self.world.open - 1
end
function Process:say(fd, bytes) self.streams[fd].handlers.on_read(self.streams[fd], bytes) end
function Process:finish(fd)
  local s = self.streams[fd]
  if s and not s.closed then s.handlers.on_end(s) end
end
function Process:exit(status, signal)
  self:finish(1)
  self:finish(2)
  self.options.on_exit(status or 0, signal or 0)
end

--- Give the world fake children. `refuse = { message, code }` in the list refuses the next spawns.
function fake_process.into(world)
  local processes = {}
  function world.spawn(_, options)
    if processes.refuse then return nil, table.unpack(processes.refuse) end
    local p = setmetatable({ world = world, options = options, number = 100 + #processes, signals = {}, streams = {} }, Process)
    world.open = world.open + 1
    for fd, name in pairs { [0] = "stdin", "stdout", "stderr" } do
      if options.pipe[name] then p.streams[fd] = stream(world) end
    end
    processes[#processes + 1] = p
    if processes.on_spawn then processes.on_spawn(p) end
    return p
  end
  return processes
end

--- Give the world an own stdin and stdout.
function fake_process.stdio(world)
  local ends = { [0] = stream(world), stream(world) }
  function world.stdio(_, fd) return ends[fd] end
  return ends
end

return fake_process
