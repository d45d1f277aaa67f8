--- bench http: the CPU cost of a request in our worker and its children, beside a build of an older commit and wrk, against nginx.
---
---   scripts/bench http [--seconds N] [--vus N] [--rounds N] [--old FOLDER]
---
--- A rate depends on the load of the machine; CPU seconds measure the cost of a request whatever else runs. Our cost includes the
--- worker and the child with the users, as counted by the kernel; wrk's is that of its process. Rounds alternate, and the bar is the median
--- of their ratios. --old is a checkout of the older commit that is built; by default one is built from the history.
package.path = "./?.lua;" .. package.path

local node = require "shoal.core.node"
local old = require "spec.bench.jobs.old"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

local BAR = 0.97 -- Of the older commit's requests per CPU second.

local options = { seconds = 2, vus = 16, rounds = 9, old = "" }
local words = { ... }
for i = 1, #words, 2 do
  local name, value = words[i]:match("^%-%-(%a+)$"), words[i + 1]
  if not options[name] or not value or name ~= "old" and not tonumber(value) then
    io.stderr:write("usage: scripts/bench http [--seconds N] [--vus N] [--rounds N] [--old FOLDER]\n")
    return 2
  end
  options[name] = name == "old" and value or math.tointeger(tonumber(value))
end

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

--- Run one round of this build, or of the one in `home`. Returns requests and CPU seconds.
local function run_shoal(url, home)
  local text = shell(("%s/build/release/bin/shoal lua spec/bench/http/one.lua %s %d %d 2>&1"):format(home, url, options.seconds, options.vus))
  local requests, cpu = text:match("requests (%d+) cpu ([%d.]+)")
  assert(requests, home .. " said: " .. text)
  return tonumber(requests), tonumber(cpu)
end

local function median(list)
  table.sort(list)
  return list[#list // 2 + 1]
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
  local home, why = old.build(options.old)
  if not home then print(("SKIPPED old: no build of %s: %s; the bar against it is not judged"):format(old.COMMIT, why)) end
  local tools = home and { "wrk", "shoal", "old" } or { "wrk", "shoal" }
  local totals, ratios = { wrk = { 0, 0 }, shoal = { 0, 0 }, old = { 0, 0 } }, { wrk = {}, old = {} }
  local function row(tool, round, requests, cpu)
    print(("%-8s %6s %12d %12.2f %16.0f %14.2f"):format(tool, round, requests, cpu, requests / cpu, cpu / requests * 1e6))
  end
  for round = 1, options.rounds do
    local rate = {}
    for i = 1, #tools do
      local tool = tools[(round + i) % #tools + 1] -- Each goes first in its turn.
      local requests, cpu
      if tool == "wrk" then requests, cpu = run_wrk(url) else requests, cpu = run_shoal(url, tool == "old" and home or ".") end
      row(tool, round, requests, cpu)
      totals[tool][1], totals[tool][2] = totals[tool][1] + requests, totals[tool][2] + cpu
      rate[tool] = requests / cpu
    end
    for name, list in pairs(ratios) do -- order-free: each by itself
      if rate[name] then list[round] = rate.shoal / rate[name] end
    end
  end
  task.sleep(1) -- The rounds held the loop and its clock: without a turn the program's own end would come too late.
  for _, tool in ipairs(tools) do row(tool, "all", totals[tool][1], totals[tool][2]) end
  print(("shoal makes %.2f of wrk's requests per CPU second (median of %d rounds)"):format(median(ratios.wrk), options.rounds))
  if not home then return 0 end
  local figure = median(ratios.old)
  print(("bar http_per_cpu_second_of_%s %.3f want >= %.2f %s"):format(old.COMMIT, figure, BAR, figure >= BAR and "ok" or "short"))
  return figure >= BAR and 0 or 1
end

task.start(world)
task.root():spawn("cli.bench", { command = "bench http" }, function ()
  local errors = require "shoal.errors"
  local ok, code = errors.call("cli.bench", { command = "bench http" }, main)
  node.exit(ok and code or 1)
end)
