--- bench truth: whether the numbers of a load test are true, in real processes on loopback.
---
---   scripts/bench truth [--runs=N] [--seconds=N] [--only=log,latency,stall]
---
---   log       at one fixed rate: shoal's counts and rates against nginx's access log, which knows when each request ended; beside hey
---             and h2load at the same rate, for comparison
---   latency   p50 and p99 of 1,000 requests a second against those of the server's own clock, in nanoseconds (truth_server.c), plus what
---             a bare loop in C measures beyond the server's clock at the same rate
---   stall     a server that stalls 1 s in each 10: latencies from the intended start and from the requests' own start against theory,
---             which is the exact model of arrivals, users and stalls, given the time that an answer takes without one
---
--- The load goes through a gate and two datacenters, so the figures passed all merges. Counts and rates are judged in each run; of
--- latencies the median of the runs is judged, and the table shows all. It takes four minutes. Other load of the machine is
--- measured too, so the figures of a busy one mean little.
package.path = "./?.lua;" .. package.path
local cjson = require "cjson"
local cluster = require "spec.support.cluster"

local RATE, LATENCY_RATE, STALL_RATE, STALL_VUS = 400, 1000, 200, 60
local STALL_EVERY_S, STALL_S, STALL_TOTAL_S = 10, 1, 20
local RATE_SHARE, SHARE, FLOOR_MS = 0.005, 0.02, 0.05 -- The bars: 0.5 %; 2 % or 50 us.

local options = { runs = "10", seconds = "4", only = "log,latency,stall" }
for _, word in ipairs { ... } do
  local name, value = word:match "^%-%-(%a+)=(.+)$"
  if not options[name] then
    io.stderr:write("bench truth: unknown option ", word, "; see the head of spec/bench/truth.lua\n")
    return 2
  end
  options[name] = value
end
local RUNS, SECONDS = math.tointeger(tonumber(options.runs)), math.tointeger(tonumber(options.seconds))
local SERVER = cluster.build .. "/spec/truth_server"

local short = 0

--- Print a bar: the figure is at most the bound.
local function bar(name, figure, bound)
  local ok = figure <= bound -- A figure that is no number is short.
  if not ok then short = short + 1 end
  print(("bar truth_%s %.4g want <= %.4g %s"):format(name, figure, bound, ok and "ok" or "short"))
  io.stdout:flush()
end

local function say(format, ...)
  print(format:format(...))
  io.stdout:flush()
end

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

local function ranked(sorted_values, q) return sorted_values[math.max(1, math.ceil(q * #sorted_values))] end

-- Processes ------------------------------------------------------------------------------------------------------------

local TOPOLOGY = [[return { gates = { { name = "g" } }, datacenters = {
  a = { managers = { {} }, workers = { { cores = 2 } } }, b = { managers = { {} }, workers = { { cores = 2 } } } } }]]

local NGINX = [[
worker_processes 1; daemon off; pid DIR/pid; error_log DIR/error.log;
events { worker_connections 1024; }
http {
  log_format truth '$msec $request_time $uri';
  access_log DIR/access.log truth; keepalive_requests 100000000; client_body_temp_path DIR/b; proxy_temp_path DIR/p;
  fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
  upstream server { server 127.0.0.1:SERVER; keepalive 64; }
  server { listen 127.0.0.1:PORT;
    location / { proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection ""; } } }
]]

--- Start the server with a clock of its own. Returns its port.
local function start_server(c, ...)
  local p = c:spawn { SERVER, "serve", ... }
  return tonumber((p:wait_for("^(%d+)\n", "out")))
end

local function start_nginx(c, server_port)
  local dir, port = c.dir .. "/nginx", cluster.port()
  os.execute("mkdir -p " .. dir)
  local file = assert(io.open(dir .. "/nginx.conf", "w"))
  file:write((NGINX:gsub("DIR", dir):gsub("PORT", port):gsub("SERVER", server_port)))
  file:close()
  local p = c:spawn { "nginx", "-e", dir .. "/error.log", "-p", dir, "-c", dir .. "/nginx.conf" }
  cluster.wait("nginx", function () return p.code or io.open(dir .. "/pid") end, 5000)
  assert(not p.code, p.err)
  return port, dir .. "/access.log"
end

local function run(c, argv)
  argv.stdin = ""
  local p = c:spawn(argv):wait(60000)
  assert(p.code == 0, p.words .. "\n" .. p.err)
  return p.out
end

--- Run a job of one script. Returns its statistics.
local function load_test(c, up, code, target, work)
  c:file("truth.lua", code)
  local words = {}
  for name, value in pairs(work) do words[#words + 1] = ("%s = %s"):format(name, value) end
  table.sort(words)
  local job = c:file("job.lua", ('return { name = "truth", env = { TARGET = %q }, workflows = { w = { script = "truth.lua", %s } } }'):format(
    target, table.concat(words, ", ")))
  local r = c:shoal { "submit", job, "--connect", up.connect, "-q", "-o", "json", limit_ms = 60000 }
  assert(r.code == 0, r.err .. r.out)
  return cjson.decode(r.out).stats
end

local function get(c, port, path) return run(c, { "curl", "-s", ("http://127.0.0.1:%d%s"):format(port, path) }) end

-- Sections -------------------------------------------------------------------------------------------------------------

--- The log's lines of one uri: their number, the rate of their ends, and their quantiles.
local function read_log(path, uri)
  local ends, times = {}, {}
  for line in io.lines(path) do
    local msec, took, where = line:match "^([%d.]+) ([%d.]+) (%S+)"
    if where == uri then ends[#ends + 1], times[#times + 1] = tonumber(msec), tonumber(took) * 1000 end
  end
  table.sort(ends)
  table.sort(times)
  local rate = #ends > 1 and (#ends - 1) / (ends[#ends] - ends[1]) or 0
  return { count = #ends, rate = rate, p50 = ranked(times, 0.5) or 0, p99 = ranked(times, 0.99) or 0 }
end

--- Each tool runs for SECONDS at RATE, against this uri. Returns its own count, rate, p50 and p99.
local TOOLS = {}

function TOOLS.shoal(c, up, target, uri)
  local s = load_test(c, up, ('return function (vu) vu.http:get("%s") end'):format(uri), target,
    { vus = 20, rate = RATE, duration_ms = SECONDS * 1000 })
  return s.requests, s.requests_per_second, s.latency.p50_ms, s.latency.p99_ms
end

function TOOLS.hey(c, _, target, uri)
  local text = run(c, { "hey", "-z", SECONDS .. "s", "-c", "10", "-q", tostring(RATE // 10), target .. uri })
  local count = 0
  for n in text:gmatch "%[%d+%]%s+(%d+) responses" do count = count + tonumber(n) end
  return count, tonumber(text:match "Requests/sec:%s+([%d.]+)"), (tonumber(text:match "50%%%%? in ([%d.]+)") or 0) * 1000,
    (tonumber(text:match "99%%%%? in ([%d.]+)") or 0) * 1000
end

function TOOLS.h2load(c, _, target, uri)
  local text = run(c, { "h2load", "--h1", "-c", "10", "--rps", tostring(RATE // 10), "-D", tostring(SECONDS), target .. uri })
  return tonumber(text:match "(%d+) done"), tonumber(text:match "([%d.]+) req/s"), 0, 0
end

local sections = {}

function sections.log(c, up)
  local port, log = start_nginx(c, start_server(c))
  local target = "http://127.0.0.1:" .. port
  say("%d/s for %d s; nginx's log beside each tool (times of the log in whole ms; h2load gives no quantiles)", RATE, SECONDS)
  say("%-7s %4s %10s %10s %10s %10s %9s %9s %9s %9s", "tool", "run", "requests", "log", "rate", "log", "p50 ms", "log", "p99 ms", "log")
  local worst = {}
  for n = 1, RUNS do
    for _, tool in ipairs { "shoal", "hey", "h2load" } do
      local uri = ("/%s/%d"):format(tool, n)
      local count, rate, p50, p99 = TOOLS[tool](c, up, target, uri)
      local l = read_log(log, uri)
      say("%-7s %4d %10d %10d %10.2f %10.2f %9.2f %9.0f %9.2f %9.0f", tool, n, count, l.count, rate, l.rate, p50, l.p50, p99, l.p99)
      local w = worst[tool] or { count = 0, rate = 0 }
      worst[tool] = w
      w.count, w.rate = math.max(w.count, math.abs(count - l.count)), math.max(w.rate, math.abs(rate - l.rate) / l.rate)
    end
  end
  for _, tool in ipairs { "hey", "h2load" } do
    say("%s, at worst: %d requests and %.2f %% of the rate from the log", tool, worst[tool].count, 100 * worst[tool].rate)
  end
  bar("log_requests_missing", worst.shoal.count, 0)
  bar("log_rate_error", worst.shoal.rate, RATE_SHARE)
end

--- What a bare loop measures beyond the server's clock: { p50 =, p99 = } in ms.
local function bare_overhead(c, port, rate, path)
  local p50, p99 = {}, {}
  for n = 1, 3 do
    get(c, port, "/report")
    local own = cjson.decode(run(c, { SERVER, "bare", tostring(port), tostring(rate), tostring(rate), "20", path }))
    local theirs = cjson.decode(get(c, port, "/report"))
    p50[n], p99[n] = (own.p50_ns - theirs.p50_ns) / 1e6, (own.p99_ns - theirs.p99_ns) / 1e6
  end
  return { p50 = median(p50), p99 = median(p99) }
end

function sections.latency(c, up)
  local port = start_server(c)
  local bare = bare_overhead(c, port, LATENCY_RATE, "/x")
  say("%d/s for %d s; a bare loop measures %.3f ms (p50) and %.3f ms (p99) more than the server", LATENCY_RATE, SECONDS, bare.p50, bare.p99)
  say("%4s %8s %8s %10s %12s %10s %12s %12s %14s", "run", "requests", "server", "p50 ms", "server+bare", "p99 ms", "server+bare", "late timers",
    "rate")
  local errors, missing = { p50 = {}, p99 = {} }, 0
  for n = 1, RUNS do
    get(c, port, "/report")
    local s = load_test(c, up, 'return function (vu) vu.http:get("/x") end', "http://127.0.0.1:" .. port,
      { vus = 60, rate = LATENCY_RATE, duration_ms = SECONDS * 1000 })
    local theirs = cjson.decode(get(c, port, "/report"))
    local want = { p50 = theirs.p50_ns / 1e6 + bare.p50, p99 = theirs.p99_ns / 1e6 + bare.p99 }
    for _, q in ipairs { "p50", "p99" } do
      errors[q][n] = math.abs(s.latency[q .. "_ms"] - want[q]) / math.max(SHARE * want[q], FLOOR_MS)
    end
    missing = math.max(missing, math.abs(s.requests - theirs.count))
    say("%4d %8d %8d %10.3f %12.3f %10.3f %12.3f %9.3f ms %12.2f/s", n, s.requests, theirs.count, s.latency.p50_ms, want.p50, s.latency.p99_ms,
      want.p99, s.pace.start_delay and s.pace.start_delay.p50_ms or 0, s.requests_per_second)
  end
  bar("latency_requests_missing", missing, 0)
  bar("latency_p50_error", median(errors.p50), 1) -- In parts of what is allowed: 2 % or 50 us.
  bar("latency_p99_error", median(errors.p99), 1)
end

--- The exact model: arrival k is due at k / rate; the user that is free first takes it; an answer takes service_s, or until the end of a
--- stall that it meets, and then as long as it takes. The cycle of stalls began offset_s before the first arrival.
local function theory(service_s, offset_s)
  local free, corrected, raw = {}, {}, {}
  for i = 1, STALL_VUS do free[i] = 0 end
  local function stalled_until(t)
    local into = (t + offset_s) % STALL_EVERY_S
    local from = STALL_EVERY_S / 2
    if into >= from and into < from + STALL_S then return t - into + from + STALL_S end
  end
  for k = 0, STALL_RATE * STALL_TOTAL_S - 1 do
    local due, user = k / STALL_RATE, 1
    for i = 2, STALL_VUS do
      if free[i] < free[user] then user = i end
    end
    local from = math.max(due, free[user])
    local read = stalled_until(from) or from
    local to = stalled_until(read + service_s) or read + service_s
    free[user] = to
    corrected[#corrected + 1], raw[#raw + 1] = (to - due) * 1000, (to - from) * 1000
  end
  table.sort(corrected)
  table.sort(raw)
  return corrected, raw
end

function sections.stall(c, up)
  local port = start_server(c, tostring(STALL_EVERY_S * 1000), tostring(STALL_S * 1000))
  local bare = bare_overhead(c, port, STALL_RATE, "/5ms")
  local s = load_test(c, up, [[return { setup = function (vu) vu.http:get("/stall") end, vu = function (vu) vu.http:get("/5ms") end }]],
    "http://127.0.0.1:" .. port, { vus = STALL_VUS, rate = STALL_RATE, duration_ms = STALL_TOTAL_S * 1000, parts = 1 })
  local theirs = cjson.decode(get(c, port, "/report"))
  local corrected, raw = theory(theirs.p50_ns / 1e9 + bare.p50 / 1000, theirs.first_ns / 1e9)
  say("%d/s by %d users for %d s, a stall of %d s in each %d: %d requests, %d began late", STALL_RATE, STALL_VUS, STALL_TOTAL_S, STALL_S,
    STALL_EVERY_S, s.requests, s.pace.late)
  say("%-10s %6s %12s %12s", "latency", "", "shoal ms", "theory ms")
  local rows = {
    { "intended", s.latency, corrected, { "p50", "p95", "p99", "p999" } }, { "own_start", s.raw_latency, raw, { "p50", "p99", "p999" } },
  }
  for _, row in ipairs(rows) do
    local name, found, want, quantiles = table.unpack(row)
    local worst = 0
    for _, q in ipairs(quantiles) do
      local exact, ours = ranked(want, tonumber("0." .. q:sub(2))), found[q .. "_ms"]
      say("%-10s %6s %12.3f %12.3f", name, q, ours, exact)
      worst = math.max(worst, math.abs(ours - exact) / math.max(SHARE * exact, FLOOR_MS))
    end
    bar("stall_" .. name .. "_error", worst, 1)
  end
  bar("stall_requests_missing", STALL_RATE * STALL_TOTAL_S - s.requests, 0)
end

local c = cluster.new()
local closing <close> = setmetatable({}, { __close = function () c:close() end })
local up = c:up(TOPOLOGY)
for section in options.only:gmatch "[^,]+" do
  if not sections[section] then error("bench truth: there is no section " .. section, 0) end
  sections[section](c, up)
end
return short == 0 and 0 or 1
