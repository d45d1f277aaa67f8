--- bench rpc: what `peer:call` of shoal.rpc costs, beside luv doing the same in the same run.
---
--- The same: both ends in one process, over loopback; a caller is a coroutine that waits for its answer; requests have ids and
--- a deadline; a handler runs in a coroutine, protected; the body is a table on both ends; answers to one chunk are written
--- at once. luv packs with string.pack and resumes bare coroutines; it has no lanes, no bounded queues, no schemas, no timers
--- behind its deadlines, no circuits, no counts, no scopes. The figure is the CPU of both ends for one call.
local core_node = require "shoal.core.node"
local errors = require "shoal.errors"
local messages = require "shoal.messages"
local rpc = require "shoal.rpc"
local task = require "shoal.task"
local uv = require "luv"
local world = require("shoal.core.world").current()

local WANT = 0.5
local CALLS = tonumber((...)) or 100000
local ROUNDS = 3
local TIMEOUT_MS = 5000

-- luv ------------------------------------------------------------------------------------------------------------------

--- Frames (length, id, body) over a stream of luv's. What is written while a chunk is read goes out at once after it.
local function framed(stream, on_frame)
  local rest, staged, reading = "", {}, false
  stream:nodelay(true)
  stream:read_start(function (err, chunk)
    assert(not err, err)
    if not chunk then return end
    rest, reading = rest .. chunk, true
    local at = 1
    while #rest - at + 1 >= 12 do
      local length, id = string.unpack("<I4I8", rest, at)
      if #rest - at + 1 < 12 + length then break end
      on_frame(id, rest:sub(at + 12, at + 11 + length))
      at = at + 12 + length
    end
    rest, reading = rest:sub(at), false
    if not staged[1] then return end
    stream:write(staged)
    staged = {}
  end)
  return function (id, body)
    local frame = string.pack("<I4I8", #body, id) .. body
    if reading then staged[#staged + 1] = frame else stream:write(frame) end
  end
end

local function luv_echo(on_ready)
  local streams, server = {}, uv.new_tcp()
  server:bind("127.0.0.1", 0)
  local function handler(body) return { p = body.p } end
  server:listen(16, function ()
    local stream = uv.new_tcp()
    streams[#streams + 1] = stream
    server:accept(stream)
    local write
    local function serve(id, bytes)
      local reply = handler { p = string.unpack("<s4", bytes) }
      write(id, string.pack("<s4", reply.p))
    end
    write = framed(stream, function (id, bytes) errors.resume("task.run", nil, coroutine.create(serve), id, bytes) end)
  end)
  local stream = uv.new_tcp()
  streams[#streams + 1] = stream
  stream:connect("127.0.0.1", server:getsockname().port, function (err)
    assert(not err, err)
    local pending, last = {}, 0
    local write = framed(stream, function (id, bytes)
      local waiter = pending[id]
      pending[id] = nil
      errors.resume("task.run", nil, waiter.co, { p = string.unpack("<s4", bytes) })
    end)
    on_ready(function (body)
      last = last + 1
      pending[last] = { co = coroutine.running(), due_ms = uv.now() + TIMEOUT_MS }
      write(last, string.pack("<s4", body.p))
      return coroutine.yield()
    end, function (fn) errors.resume("task.run", nil, coroutine.create(fn)) end, function ()
      for _, one in ipairs(streams) do one:close() end
      server:close()
    end)
  end)
end

-- rpc ------------------------------------------------------------------------------------------------------------------

local function rpc_echo(on_ready)
  local client = assert(rpc.open { name = "bench-client", role = "gate", world = world })
  local server = assert(rpc.open { name = "bench-server", role = "worker", world = world })
  assert(server:handle("bench.echo", function (body) return { p = body.p } end))
  local peer = client:peer(assert(server:listen "127.0.0.1:0"))
  on_ready(function (body) return peer:call("bench.echo", body) end, function (fn)
    task.root():spawn("cli.bench", { command = "bench rpc" }, fn)
  end, function ()
    client:close()
    server:close()
  end)
end

-- Rounds ---------------------------------------------------------------------------------------------------------------

--- CPU ns a call, and calls a second. `spawn` starts a caller, which may wait in `call`.
local function measure(call, spawn, in_flight, body)
  local done = task.future "done"
  local left, alive, cpu_ns, begun_ns = CALLS, in_flight, nil, nil
  local function caller()
    while left > 0 do
      left = left - 1
      assert(#assert(call(body)).p == #body.p)
    end
    alive = alive - 1
    if alive == 0 then done:settle(true) end
  end
  spawn(function ()
    assert(call(body)) -- The connection, before the clock starts.
    cpu_ns, begun_ns = world:telemetry().cpu_ns, world:fresh_ns()
    for _ = 1, in_flight do spawn(caller) end
  end)
  done:await()
  return (world:telemetry().cpu_ns - cpu_ns) / CALLS, CALLS / (world:fresh_ns() - begun_ns) * 1e9
end

local function main()
  messages.define { name = "bench.echo", id = 65000, lane = "dispatch", from = { "gate" }, to = { "worker" },
    fields = { { "p", "bytes" } }, reply = { { "p", "bytes" } }, timeout_ms = TIMEOUT_MS }
  print(("%-6s %8s %10s %6s %16s %14s"):format("", "bytes", "in flight", "round", "CPU ns a call", "calls a s"))
  local short = false
  for _, case in ipairs { { 64, 1 }, { 64, 64 }, { 1400, 1 }, { 1400, 64 } } do
    local best = {}
    for round = 1, ROUNDS do
      for _, side in ipairs { { "luv", luv_echo }, { "shoal", rpc_echo } } do
        local ready = task.future "ready"
        side[2](function (...) ready:set(...) end)
        local call, spawn, close = ready:await()
        collectgarbage()
        local ns, rate = measure(call, spawn, case[2], { p = ("x"):rep(case[1]) })
        print(("%-6s %8d %10d %6d %16.0f %14.0f"):format(side[1], case[1], case[2], round, ns, rate))
        best[side[1]] = math.min(best[side[1]] or ns, ns)
        close()
      end
    end
    local figure = best.luv / best.shoal
    short = short or figure < WANT
    print(("bar rpc_%d_bytes_%d_in_flight %.2f want %.2f %s"):format(case[1], case[2], figure, WANT,
      figure < WANT and "short" or "ok"))
  end
  return short and 1 or 0
end

errors.start(world, "bench")
task.start(world)
task.root():spawn("cli.bench", { command = "bench rpc" }, function ()
  local ok, code = errors.call("cli.bench", { command = "bench rpc" }, main)
  core_node.exit(ok and code or 1)
end)
