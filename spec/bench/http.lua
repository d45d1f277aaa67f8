--- bench http: the CPU cost of a request in our worker and its children, beside wrk's, against nginx, in the same run.
---
---   scripts/bench http [--seconds N] [--vus N] [--rounds N]
---
--- A rate depends on the load of the machine; CPU seconds measure the cost of a request whatever else runs. Our cost includes this
--- process (the worker) and the child with the users, as counted by the kernel; wrk's is that of its process. Rounds alternate.
local node = require "shoal.core.node"
local runner = require "shoal.runner"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

local options = { seconds = 4, vus = 16, rounds = 2 }
local words = { ... }
for i = 1, #words, 2 do
  local name = words[i]:match("^%-%-(%a+)$")
  if not options[name] or not tonumber(words[i + 1]) then
    io.stderr:write("usage: scripts/bench http [--seconds N] [--vus N] [--rounds N]\n")
    return 2
  end
  options[name] = math.tointeger(tonumber(words[i + 1]))
end

local SCRIPT = [[return function (vu) vu.http:get("/") end]]

local NGINX = [[
worker_processes 1; daemon off; pid DIR/pid; error_log DIR/error.log;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 100000000; client_body_temp_path DIR/b; proxy_temp_path DIR/p; fastcgi_temp_path DIR/f;
  uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
  server { listen 127.0.0.1:PORT; location / { return 200 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"; } } }
]]

local function shell(line)
  local pipe = assert(io.popen(line))
  local text = pipe:read("a")
  pipe:close()
  return text
end

--- CPU seconds of this process and of the children it has waited for.
local function cpu_seconds()
  local file = assert(io.open("/proc/self/stat"))
  local fields, i = {}, 0
  for word in file:read("a"):match("%) (.*)$"):gmatch("%S+") do
    i = i + 1
    fields[i] = tonumber(word)
  end
  file:close()
  return (fields[12] + fields[13] + fields[14] + fields[15]) / 100 -- utime, stime, cutime, cstime in ticks
end

local function start_nginx(dir, stopping)
  local probe = assert(world:listen("127.0.0.1:0", function () end))
  local port = probe:address():match("%d+$")
  probe:close()
  local file = assert(io.open(dir .. "/nginx.conf", "w"))
  file:write((NGINX:gsub("DIR", dir):gsub("PORT", port)))
  file:close()
  local process = assert(world:spawn {
    argv = { "nginx", "-e", dir .. "/error.log", "-p", dir, "-c", dir .. "/nginx.conf" }, group = true, on_exit = function () end,
  })
  stopping.process = process
  for _ = 1, 100 do
    task.sleep(20)
    local open = task.future("probe")
    local stream = world:connect("127.0.0.1:" .. port, {
      on_open = function (_, err) open:settle(not err) end, on_end = function () end,
    })
    local up = stream and open:await(1000)
    if stream then stream:close() end
    if up then return "http://127.0.0.1:" .. port end
  end
  error("nginx did not start; see " .. dir .. "/error.log")
end

--- Run wrk for the given seconds. Returns requests and CPU seconds.
local function run_wrk(url)
  local text = shell(("bash -c 'TIMEFORMAT=\"cpu %%U %%S\"; time wrk -t1 -c%d -d%ds %s/' 2>&1"):format(options.vus, options.seconds, url))
  local requests = tonumber(text:match("(%d+) requests in"))
  local user, system = text:match("cpu ([%d.]+) ([%d.]+)")
  assert(requests and user, "wrk said: " .. text)
  return requests, user + system
end

local function run_shoal(url)
  local done = task.future("result")
  local before = cpu_seconds()
  assert(runner.start(world, task.scope("bench"), {
    job = "bench", workflow = "get", part = "get/1", attempt = 1, fence = 1, work = {
      script = { path = "get.lua", bytes = SCRIPT }, vus = options.vus, duration_ms = options.seconds * 1000, env = { TARGET = url },
    },
  }, nil, function (result) done:settle(result) end))
  local result = done:await()
  assert(result.state == "completed", result.reason)
  assert(result.summary.errors == 0, "errors against nginx")
  return result.summary.requests, cpu_seconds() - before
end

local function main()
  local dir = shell("mktemp -d"):gsub("%s+$", "")
  local stopping <close> = setmetatable({}, { __close = function (self)
    if self.process then self.process:kill(15) end
    shell("rm -rf " .. dir)
  end })
  local url = start_nginx(dir, stopping)
  print(("GET of 64 bytes from nginx on loopback, %d connections, %d s a round"):format(options.vus, options.seconds))
  print(("%-8s %6s %12s %12s %16s %14s"):format("tool", "round", "requests", "CPU s", "per CPU second", "us a request"))
  local totals = { wrk = { 0, 0 }, shoal = { 0, 0 } }
  local function row(tool, round, requests, cpu)
    print(("%-8s %6s %12d %12.2f %16.0f %14.2f"):format(tool, round, requests, cpu, requests / cpu, cpu / requests * 1e6))
  end
  for round = 1, options.rounds do
    for _, tool in ipairs { "wrk", "shoal" } do
      local requests, cpu = (tool == "wrk" and run_wrk or run_shoal)(url)
      row(tool, round, requests, cpu)
      totals[tool][1], totals[tool][2] = totals[tool][1] + requests, totals[tool][2] + cpu
    end
  end
  row("wrk", "all", totals.wrk[1], totals.wrk[2])
  row("shoal", "all", totals.shoal[1], totals.shoal[2])
  local ratio = (totals.shoal[1] / totals.shoal[2]) / (totals.wrk[1] / totals.wrk[2])
  print(("shoal makes %.2f of wrk's requests per CPU second"):format(ratio))
  return 0
end

task.start(world)
task.root():spawn("cli.bench", { command = "bench http" }, function ()
  local errors = require "shoal.errors"
  local ok, code = errors.call("cli.bench", { command = "bench http" }, main)
  node.exit(ok and code or 1)
end)
