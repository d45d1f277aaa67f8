--- bench transport: ours against the bare loop, from C and from Lua, in one run.
---
---   scripts/bench transport [--seconds N] [--pairs N]      seconds of a run (0.3), pairs of runs for each row (7)
---
--- From C it is spec/bench/transport_bench.c. From Lua: echo of a body between two ends in this process,
---   luv      sockets of luv, frames by string.pack, ids, a coroutine for each caller and each request, writes coalesced once per
---            read; bodies are bytes;
---   net      shoal.core.net with the callers' coroutines: the same;
---   luv+map  as luv, with the other parts of a call: the body is a table on both ends (the same MessagePack schema), and each request
---            has a deadline that a sweep checks;
---   call     peer:call of shoal.rpc, as roles use it: the same, and tasks that end with their scope, checked schemas, an account of
---            every error, lanes, bounds, circuits.
--- Runs alternate; a figure is the median over the pairs of luv's CPU per request by ours: net against luv, call against luv+map.
local core = require "shoal.core.net"
local errors = require "shoal.errors"
local luv = require "luv"
local messages = require "shoal.messages"
local node = require "shoal.core.node"
local rpc = require "shoal.rpc"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

local options = { seconds = 0.3, pairs = 7 }
local words = { ... }
for i = 1, #words, 2 do
  local name = words[i]:match "^%-%-(%a+)$"
  if not options[name] or not tonumber(words[i + 1]) then
    io.stderr:write "usage: scripts/bench transport [--seconds N] [--pairs N]\n"
    return 2
  end
  options[name] = tonumber(words[i + 1])
end

local WANT = 0.5
local HEADER = ">I4I2BBI8"
local pack, unpack = string.pack, string.unpack
local create, yield, running = coroutine.create, coroutine.yield, coroutine.running -- As a bench of luv alone would.

local function must(value, err, code)
  if value == nil or value == false then error(tostring(err) .. " [" .. tostring(code) .. "]", 2) end
  return value
end

--- Errors are not accounted for, as in luv alone: a failure ends the bench.
local function resume(co, ...)
  local ok, err = coroutine.resume(co, ...)
  if not ok then error(err, 0) end
end

--- Callers share `left` requests; done when all have ended. call(body) -> reply.
local function drive(start, flight, count, body, call, done)
  local left, ended, began_ns = count, 0, world:telemetry().cpu_ns
  local function caller()
    while left > 0 do
      left = left - 1
      if #call(body) ~= #body then error "another body came back" end
    end
    ended = ended + 1
    if ended == flight then done((world:telemetry().cpu_ns - began_ns) / count) end
  end
  for _ = 1, flight do start(caller) end
end

-- luv -------------------------------------------------------------------------------------------------------------------

--- One end: stage(type, flags, id, body) puts a frame behind those of this turn, flush writes them.
local function luv_end(socket, on_frame)
  local parts, count, rest = {}, 0, ""
  local self = {}
  function self.stage(flags, id, body)
    parts[count + 1], parts[count + 2] = pack(HEADER, #body, 7, 2, flags, id), body
    count = count + 2
  end
  function self.flush()
    if count == 0 then return end
    local bytes = table.concat(parts, "", 1, count)
    count = 0
    local written = must(socket:try_write(bytes))
    if written < #bytes then must(socket:write(bytes:sub(written + 1))) end
  end
  must(socket:read_start(function (err, bytes)
    if err then error(err) end
    if not bytes then return end
    if rest ~= "" then bytes = rest .. bytes end
    local at, length = 1, #bytes
    while length - at >= 15 do
      local size, _, _, flags, id, next_at = unpack(HEADER, bytes, at)
      if length - next_at + 1 < size then break end
      at = next_at + size
      on_frame(flags, id, bytes:sub(next_at, at - 1))
    end
    rest = at > length and "" or bytes:sub(at)
    self.flush()
  end))
  return self
end

--- @param bodies? { encode: function, decode: function }  bodies are tables; else bytes
local function run_luv(flight, count, body, done, bodies)
  local listener, client, server = luv.new_tcp(), luv.new_tcp(), luv.new_tcp()
  must(listener:bind("127.0.0.1", 0))
  must(listener:listen(8, function (err)
    if err then error(err) end
    must(listener:accept(server))
    must(server:nodelay(true))
    local far
    local function serve(id, bytes)
      if bodies then bytes = bodies.encode({ payload = bodies.decode(bytes).payload }) end
      far.stage(5, id, bytes)
    end
    far = luv_end(server, function (_, id, bytes) resume(create(serve), id, bytes) end) -- In a coroutine, for handlers may wait.
  end))
  must(client:nodelay(true))
  must(client:connect("127.0.0.1", listener:getsockname().port, function (err)
    if err then error(err) end
    local waiting, free, slots, due, sweep = {}, {}, 0, {}, nil
    if bodies then
      sweep = luv.new_timer()
      must(sweep:start(100, 100, function ()
        local now_ms = luv.now()
        for slot = 1, slots do
          if waiting[slot] and due[slot] < now_ms then error "a request is late" end
        end
      end))
    end
    local near = luv_end(client, function (_, id, bytes)
      local slot = id & 0xffffffff
      local co = waiting[slot]
      if not co or free[slot] ~= id then error "an answer to nobody" end
      waiting[slot] = nil
      resume(co, bytes)
    end)
    local idle = {}
    local function call(bytes)
      local slot = table.remove(idle)
      if not slot then
        slots = slots + 1
        slot = slots
        free[slot] = slot
      end
      local id = free[slot] + (1 << 32)
      free[slot] = id
      waiting[slot] = running()
      if bodies then
        due[slot] = luv.now() + 5000
        bytes = bodies.encode({ payload = bytes })
      end
      near.stage(3, id, bytes)
      local reply = yield()
      idle[#idle + 1] = slot
      return bodies and bodies.decode(reply).payload or reply
    end
    drive(function (fn) resume(create(fn)) end, flight, count, body, call, function (ns)
      if sweep then sweep:close() end
      client:close()
      server:close()
      listener:close()
      done(ns)
    end)
    near.flush()
  end))
end

-- net -------------------------------------------------------------------------------------------------------------------

local function run_net(flight, count, body, done)
  local near, far
  far = must(core.open(world, { node = "far", cluster = "bench" }, {
    on_request = function (_, _, _, request, bytes) must(far:reply(request, bytes)) end,
  }))
  near = must(core.open(world, { node = "near", cluster = "bench" }, {}))
  local peer = must(near:peer(must(far:listen "127.0.0.1:0")))
  local function call(bytes)
    local co = running()
    must(peer:call(7, "data", bytes, 5000, function (...) resume(co, ...) end))
    return must(yield())
  end
  must(peer:call(7, "data", "", 5000, function () -- Connect first, as for luv.
    drive(function (fn) resume(create(fn)) end, flight, count, body, call, function (ns)
      near:close()
      far:close(function () done(ns) end)
    end)
  end))
end

-- call ------------------------------------------------------------------------------------------------------------------

messages.define { name = "bench.echo", id = 60001, lane = "data", from = { "gate" }, to = { "worker" },
  fields = { { "payload", "bytes" } }, reply = { { "payload", "bytes" } }, timeout_ms = 5000 }

local map = {
  encode = function (body) return messages.encode("bench.echo", body) end,
  decode = function (bytes) return messages.decode("bench.echo", bytes) end,
}
local function run_luv_map(flight, count, body, done) return run_luv(flight, count, body, done, map) end

local function run_call(flight, count, body, done)
  local scope = task.scope "bench"
  local near = must(rpc.open { name = "near", role = "gate", dc = "", world = world, scope = scope })
  local far = must(rpc.open { name = "far", role = "worker", dc = "", world = world, scope = scope })
  must(far:handle("bench.echo", function (request) return { payload = request.payload } end))
  local peer = must(near:peer(must(far:listen "127.0.0.1:0")))
  local function call(bytes) return must(peer:call("bench.echo", { payload = bytes })).payload end
  local function start(fn) must(scope:spawn("spec.run", { task = "caller" }, fn)) end
  start(function ()
    call ""
    drive(start, flight, count, body, call, function (ns)
      near:close()
      far:close(function ()
        scope:close()
        done(ns)
      end)
    end)
  end)
end

-- the table ---------------------------------------------------------------------------------------------------------------

local function median(values)
  table.sort(values)
  local n = #values
  return n % 2 == 1 and values[n // 2 + 1] or (values[n // 2] + values[n // 2 + 1]) / 2
end

--- In a task: run one of the above and wait for its figure.
local function measure(run, flight, count, body)
  local future = task.future "bench"
  run(flight, count, body, function (ns) future:set(ns) end)
  return must(future:await(120000))
end

local function compare(bytes, flight)
  local body = ("x"):rep(bytes)
  local runs = { { "luv", run_luv }, { "net", run_net }, { "luv+map", run_luv_map }, { "call", run_call } }
  local costs, counts, net_ratios, call_ratios = {}, {}, {}, {}
  for i, run in ipairs(runs) do
    measure(run[2], flight, 2000, body) -- Warms up.
    counts[i], costs[i] = options.seconds * 1e9 // measure(run[2], flight, 5000, body) | 0, {}
  end
  for pair = 1, options.pairs do
    for k = 1, #runs do -- The order alternates.
      local i = pair % 2 == 0 and k or #runs + 1 - k
      collectgarbage()
      costs[i][pair] = measure(runs[i][2], flight, counts[i], body)
    end
    net_ratios[pair], call_ratios[pair] = costs[1][pair] / costs[2][pair], costs[3][pair] / costs[4][pair]
  end
  local net, call = median(net_ratios), median(call_ratios)
  print(("%6d %9d %9.0f %9.0f %9.0f %9.0f %8.3f %8.3f"):format(bytes, flight, median(costs[1]), median(costs[2]),
    median(costs[3]), median(costs[4]), net, call))
  local short = 0
  for _, bar in ipairs { { "net", net }, { "call", call } } do
    local ok = bar[2] >= WANT
    if not ok then short = short + 1 end
    print(("bar transport_lua_%s_%d_%d %.3f want %.3f %s"):format(bar[1], bytes, flight, bar[2], WANT, ok and "ok" or "short"))
  end
  return short
end

local function main()
  local program = (os.getenv "SHOAL_BUILD" or "build/release") .. "/spec/transport_bench"
  io.stdout:flush()
  local ok, _, status = os.execute(("%s %g %d"):format(program, options.seconds, options.pairs))
  if not ok and status ~= 1 then error(program .. " ended with " .. tostring(status)) end
  print "# from Lua, CPU ns per request, both ends"
  print(("%6s %9s %9s %9s %9s %9s %8s %8s"):format("bytes", "in flight", "luv", "net", "luv+map", "call", "net/luv", "call/map"))
  local short = ok and 0 or 1
  for _, bytes in ipairs { 64, 1400 } do
    for _, flight in ipairs { 1, 64 } do short = short + compare(bytes, flight) end
  end
  return short == 0 and 0 or 1
end

task.start(world)
task.root():spawn("cli.bench", { command = "bench transport" }, function ()
  local ok, code = errors.call("cli.bench", { command = "bench transport" }, main)
  node.exit(ok and code or 1)
end)
