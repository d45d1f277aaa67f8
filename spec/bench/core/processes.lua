--- The part "processes" of `scripts/bench core`: leases between processes over loopback, beside etcd's in the same run.
---
--- Ours: one process grants, ten hold 10,000 leases of 10 s each and renew them through shoal's rpc, one message for what is due (at most
--- 1,024). A lease is renewed after a third of its ttl, as the holder's side does by itself. etcd: one member, and one Go process with ten
--- clients (clientv3, its own KeepAlive, a third of the ttl), 2,000 leases; it is the same protocol step, one stream message a lease.
---
--- CPU is the kernel's count of each process, all threads, over the same seconds; what etcd and its client use before their first lease is
--- subtracted. A renewal is one answered lease. Both ends: the grantor and all holders, the server and the client.
local uv = require "luv"

local BUILD = os.getenv "SHOAL_BUILD" or "build/release"
local quick = ... == "quick"
local HOLDERS, LEASES, TTL_MS = 10, quick and 1000 or 100000, 10000
local ETCD_LEASES = quick and 200 or 2000
local WARM_MS, WINDOW_MS = quick and 2000 or 8000, quick and 2000 or 20000
local GO = BUILD .. "/spec/core_bench_etcd"

local short = false
local function bar(name, figure, relation, bound)
  local ok = relation == "<=" and figure <= bound or relation == ">=" and figure >= bound
  if not ok then short = true end
  print(("bar %s %.4g want %s %.4g %s"):format(name, figure, relation, bound, ok and "ok" or "short"))
end

local function fail(text)
  io.stderr:write("bench core: processes: ", text, "\n")
  os.exit(2)
end

-- ---- processes ----

local all = {}

--- A process, whose lines of stdout are kept; it ends when its stdin closes. `quiet_ones`: nobody reads what it prints.
local function spawn(argv, quiet_ones)
  local self = { lines = {}, name = argv[#argv] }
  local stdin, stdout = uv.new_pipe(), uv.new_pipe()
  local stdio = quiet_ones and { stdin } or { stdin, stdout, 2 }
  local handle, pid = uv.spawn(argv[1], { args = { table.unpack(argv, 2) }, stdio = stdio }, function (code)
    self.code = code
    self.handle:close()
    if not stdin:is_closing() then stdin:close() end
  end)
  if not handle then fail(argv[1] .. ": " .. tostring(pid)) end
  self.handle, self.pid, self.stdin = handle, pid, stdin
  local rest = ""
  if quiet_ones then
    stdout:close()
  else
    stdout:read_start(function (err, bytes)
      if err or not bytes then return stdout:close() end
      rest = (rest .. bytes):gsub("([^\n]*)\n", function (line)
        self.lines[#self.lines + 1] = line
        return ""
      end)
    end)
  end
  all[#all + 1] = self
  return self
end

local function wait(ms)
  local timer, over = uv.new_timer(), false
  timer:start(ms, 0, function () over = true end)
  while not over do uv.run "once" end
  timer:close()
end

local function wait_for(what, fn, ms)
  local timer, over = uv.new_timer(), false
  timer:start(ms, ms, function () over = true end)
  local tick = uv.new_timer()
  tick:start(20, 20, function () end)
  while not over and not fn() do uv.run "once" end
  timer:close()
  tick:close()
  if not fn() then fail("no " .. what .. " within " .. ms // 1000 .. " s") end
end

local function stop_all()
  for _, one in ipairs(all) do
    if not one.stdin:is_closing() then one.stdin:close() end
    if one.kill and not one.code then one.handle:kill "sigterm" end
  end
  wait_for("end of all processes", function ()
    for _, one in ipairs(all) do if not one.code then return false end end
    return true
  end, 20000)
  all = {}
end

--- CPU of a process, all threads, in us: the sum of what the scheduler counted.
local function cpu_us(pid)
  local sum, request = 0, uv.fs_scandir(("/proc/%d/task"):format(pid))
  while request do
    local name = uv.fs_scandir_next(request)
    if not name then break end
    local file = io.open(("/proc/%d/task/%s/schedstat"):format(pid, name))
    if file then
      sum = sum + file:read "n" / 1000
      file:close()
    end
  end
  return sum
end

--- The last figure that a process printed after this word.
local function said(one, word)
  for i = #one.lines, 1, -1 do
    local number = one.lines[i]:match("^" .. word .. " (%S+)$")
    if number then return tonumber(number) or number end
  end
  return nil
end

-- ---- ours ----

local function ours()
  local base = { BUILD .. "/bin/shoal", "lua" }
  local grantor = spawn { base[1], base[2], "spec/bench/core/grantor.lua", tostring(TTL_MS), tostring(LEASES) }
  wait_for("grantor", function () return said(grantor, "listens") end, 10000)
  local holders = {}
  for i = 1, HOLDERS do
    holders[i] = spawn { base[1], base[2], "spec/bench/core/holder.lua", said(grantor, "listens"), "w" .. i, tostring(LEASES // HOLDERS) }
  end
  wait_for("leases", function ()
    for _, h in ipairs(holders) do if not said(h, "holds") then return false end end
    return true
  end, 60000)
  wait(WARM_MS)
  local function totals()
    local at = { ns = uv.hrtime(), grantor = cpu_us(grantor.pid), holders = 0, renewals = 0 }
    for _, h in ipairs(holders) do at.holders = at.holders + cpu_us(h.pid) end
    local before = #grantor.lines
    grantor.stdin:write "counts\n"
    wait_for("counts", function () return #grantor.lines > before + 2 end, 5000)
    at.renewals, at.expired, at.held = said(grantor, "renewals"), said(grantor, "expired"), said(grantor, "held")
    return at
  end
  local from = totals()
  wait(WINDOW_MS)
  local to = totals()
  stop_all()
  local seconds, renewals = (to.ns - from.ns) / 1e9, to.renewals - from.renewals
  return { renewals = renewals, seconds = seconds, share = (to.grantor - from.grantor) / 1e6 / seconds, expired = to.expired, held = to.held,
    server_us = (to.grantor - from.grantor) / renewals, clients_us = (to.holders - from.holders) / renewals }
end

-- ---- etcd ----

local function succeeds(command) return (os.execute(command .. " >/dev/null 2>&1")) == true end

local function etcd()
  if not succeeds "command -v etcd" then return nil, "etcd is not installed" end
  local source = "spec/bench/core/etcd.go"
  local go = ("GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$PWD/%s/go-cache go build -o %s %s"):format(BUILD, GO, source)
  if not succeeds(("test %s -nt %s"):format(GO, source)) and not (os.execute(go)) then return nil, "its client could not be built" end
  local pipe = assert(io.popen "mktemp -d")
  local folder = pipe:read "l"
  pipe:close()
  local probe = uv.new_tcp()
  probe:bind("127.0.0.1", 0)
  local port = probe:getsockname().port
  local other = uv.new_tcp()
  other:bind("127.0.0.1", 0)
  local peer_port = other:getsockname().port
  probe:close()
  other:close()
  uv.run "nowait"
  local url, peer_url = "http://127.0.0.1:" .. port, "http://127.0.0.1:" .. peer_port
  local server = spawn({ "etcd", "--data-dir", folder, "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls",
    peer_url, "--initial-advertise-peer-urls", peer_url, "--initial-cluster", "default=" .. peer_url, "--log-level", "error" }, true)
  server.kill = true
  local client = spawn { GO, "127.0.0.1:" .. port, tostring(HOLDERS), tostring(ETCD_LEASES), tostring(TTL_MS // 1000) }
  wait_for("connection to etcd", function () return said(client, "connected") end, 30000)
  wait(2000)
  local idle = { ns = uv.hrtime(), server = cpu_us(server.pid), client = cpu_us(client.pid) }
  wait(quick and 1000 or 5000)
  local idle_s = (uv.hrtime() - idle.ns) / 1e9
  local idle_server, idle_client = (cpu_us(server.pid) - idle.server) / idle_s, (cpu_us(client.pid) - idle.client) / idle_s
  client.stdin:write "begin\n"
  wait_for("leases of etcd", function () return said(client, "holds") end, 120000)
  wait(WARM_MS)
  local function totals()
    local at = { ns = uv.hrtime(), server = cpu_us(server.pid), client = cpu_us(client.pid) }
    local before = #client.lines
    client.stdin:write "counts\n"
    wait_for("counts of etcd's client", function () return #client.lines > before end, 5000)
    at.renewals = said(client, "renewals")
    return at
  end
  local from = totals()
  wait(WINDOW_MS)
  local to = totals()
  stop_all()
  os.execute("rm -rf " .. folder)
  local seconds, renewals = (to.ns - from.ns) / 1e9, to.renewals - from.renewals
  return { renewals = renewals, seconds = seconds, share = (to.server - from.server) / 1e6 / seconds,
    server_us = (to.server - from.server - idle_server * seconds) / renewals,
    clients_us = (to.client - from.client - idle_client * seconds) / renewals }
end

local function row(name, leases, r)
  print(("%-8s %8d %12.0f %14.1f %% %12.2f %12.2f %12.2f"):format(name, leases, r.renewals / r.seconds, 100 * r.share, r.server_us,
    r.clients_us, r.server_us + r.clients_us))
end

print(("%d holders, leases of %g s, %g s measured; us of CPU a renewal"):format(HOLDERS, TTL_MS / 1000, WINDOW_MS / 1000))
print(("%-8s %8s %12s %16s %12s %12s %12s"):format("", "leases", "renewals/s", "of one core", "grantor", "holders", "both"))
local mine = ours()
row("shoal", LEASES, mine)
local theirs, why = etcd()
if theirs then row("etcd", ETCD_LEASES, theirs)
else print(("MISSING etcd: %s; its bar is short. scripts/setup bench installs it."):format(why)) end
bar("lease_processes_held", mine.held, ">=", LEASES)
bar("lease_processes_expired", mine.expired, "<=", 0)
bar("lease_processes_grantor_core", mine.share, "<=", 0.1)
bar("lease_processes_of_etcd", theirs and (mine.server_us + mine.clients_us) / (theirs.server_us + theirs.clients_us) or 1 / 0, "<=", 0.2)
os.exit(short and 1 or 0)
