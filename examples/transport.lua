--- Two peers in one process, on loopback: requests both ways on one connection, a late reply, a refusal, and a circuit that opens,
--- tries once, and closes. It ends in about three seconds.
---
---     lua5.4 examples/transport.lua       from the project's root; SHOAL_BUILD names another build than build/release
local build = os.getenv "SHOAL_BUILD" or "build/release"
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
package.cpath = build .. "/lib/?.so;" .. package.cpath

local luv = require "luv"
local net = require "shoal.net"
local world = require "shoal.core.world".current()

local began_ns = world:now_ns()
local function say(who, ...)
  print(("%4.1f s  %-6s"):format((world:now_ns() - began_ns) / 1e9, who), table.concat({ ... }, " "))
end

local function later(ms, fn)
  local timer
  timer = world:timer(function ()
    timer:close()
    fn()
  end)
  timer:start(ms)
end

-- Message names belong to the application; on the wire messages have numbers.
local UPPER, SLOW, RIDDLE, GREETING = 1, 2, 3, 4

local server, client
local steps = {}

local function start_server(bind)
  server = assert(net.open(world, { node = "server", cluster = "example" }, {
    on_request = function (self, peer, type, lane, request, bytes)
      say("server", ("got type %d on lane %s from %s: %q"):format(type, lane, peer:info().node, bytes))
      if type == UPPER then
        assert(self:reply(request, bytes:upper()))
        -- The client has no listener: the server calls it on the connection that the client opened.
        assert(peer:call(GREETING, "dispatch", "are you well?", 1000, function (answer) say("server", "client says", answer) end))
      elseif type == SLOW then
        later(600, function () assert(self:reply(request, "at last")) end)
      elseif type == RIDDLE then
        assert(self:refuse(request, "STALE", "that riddle is an old one"))
      end
    end,
  }))
  return assert(server:listen(bind))
end

client = assert(net.open(world, {
  node = "client", cluster = "example",
  circuit = { open_ms = 1000 }, -- default 10 s, too long for an example
  backoff = { base_ms = 100, cap_ms = 200 },
}, {
  on_request = function (self, _, _, _, request) assert(self:reply(request, "quite well")) end,
  on_peer = function (_, event, err) say("client", "connection is", event, err and "(" .. err .. ")" or "") end,
  on_circuit = function (_, status)
    say("client", "circuit is", status)
    if status == "half_open" then steps.trial() end
  end,
}))

local address = start_server "127.0.0.1:0"
local peer = assert(client:peer(address))

local function call(type, bytes, timeout_ms, next_step)
  local ok, err, code = peer:call(type, "data", bytes, timeout_ms, function (answer, why, word)
    say("client", answer and ("answer %q"):format(answer) or ("no answer: %s [%s]"):format(why, word))
    if next_step then next_step() end
  end)
  if not ok then say("client", ("refused at once: %s [%s]"):format(err, code)) end
  return ok
end

function steps.first()
  call(UPPER, "hello", 1000, steps.late)
end

--- The answer comes after 600 ms, but the call timed out after 300: the reply is counted and dropped, and completes no other call.
function steps.late()
  call(SLOW, "take your time", 300, function ()
    call(RIDDLE, "what walks on four legs?", 1000)
    later(500, function ()
      say("client", "late replies so far:", tostring(client:counts().late_replies))
      steps.failing()
    end)
  end)
end

--- The server closes. Three attempts to reach it fail, and the circuit opens: calls are then refused without an attempt.
function steps.failing()
  server:close(function ()
    local function try()
      if call(UPPER, "anybody there?", 1000, try) then return end
      start_server(address) -- It is back, but no call is sent before the circuit is half-open and allows one trial.
      say("server", "is back on", address)
    end
    try()
  end)
end

function steps.trial()
  call(UPPER, "a trial", 1000, function ()
    call(UPPER, "and on it goes", 1000, function ()
      client:close(function ()
        say("client", "closed")
        server:close()
      end)
    end)
  end)
end

steps.first()
luv.run()
print "done"
