--- The members of Debian's tarantool (its module `swim`) for `scripts/bench membership`; run by tarantool, not by shoal. It
--- follows the protocol of spec/bench/membership_bench.c. It keeps the defaults except for the two durations: by default it waits 30 s
--- for an ack.
local swim = require "swim"
local clock = require "clock"
local ffi = require "ffi"
local fiber = require "fiber"
local socket = require "socket"
ffi.cdef "ssize_t read(int fd, void *bytes, size_t count);"

local options = { port = 20000, interval = 1000, timeout = 500, n = 64 }
for _, word in ipairs(arg) do
  local name, value = word:match "^%-%-(%w+)=(%d+)$"
  options[name] = tonumber(value)
end

local members = {}

local function say(at, what, about)
  io.write(tostring(clock.monotonic64()):gsub("ULL$", ""), " ", at, " ", what, " ", about, "\n")
  io.flush()
end

local function uri(index) return ("127.0.0.1:%d"):format(options.port + index) end
local function uuid(index) return ("00000000-0000-1000-8000-%012x"):format(index) end

local function start(index)
  local s = assert(swim.new { heartbeat_rate = options.interval / 1000, ack_timeout = options.timeout / 1000,
    uri = uri(index), uuid = uuid(index) })
  s:on_member_event(function (member, event)
    local about = tonumber(tostring(member:uuid()):sub(-12), 16)
    if event:is_drop() then return say(index, "dead", about) end
    if not event:is_new() and not event:is_new_status() then return end
    local status = member:status()
    say(index, ({ alive = event:is_new() and "join" or "alive", suspected = "suspect", dead = "dead", left = "dead" })[status], about)
  end)
  members[index] = s
  say(index, "up", index)
end

local function obey(line)
  local verb, index, seeds = line:match "^(%w+) (%d+)%s*(.*)$"
  index = tonumber(index)
  if verb == "kill" then
    members[index]:delete()
    members[index] = nil
    return say(index, "killed", index)
  end
  if verb == "start" then start(index) end
  for seed in seeds:gmatch "%d+" do assert(members[index]:probe_member(uri(tonumber(seed)))) end
end

fiber.create(function ()
  local buffer, rest = ffi.new "char[4096]", ""
  say("-", "ready", "-")
  while true do
    socket.iowait(0, "R")
    local n = tonumber(ffi.C.read(0, buffer, 4096))
    if n == 0 then os.exit(0) end
    if n > 0 then
      rest = rest .. ffi.string(buffer, n)
      rest = rest:gsub("([^\n]*)\n", function (line)
        obey(line)
        return ""
      end)
    end
  end
end)
