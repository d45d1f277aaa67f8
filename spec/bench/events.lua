--- bench events: storms of events that one member tells all others, beside Debian's memberlist in the same run.
---
---   scripts/bench events [--n=32] [--interval=1000] [--sizes=100,1000] [--rounds=5] [--quick]
---
--- Both systems run as shipped on loopback, all members in one process (spec/bench/membership_bench.c and
--- spec/bench/membership/memberlist.go), each in a network and process namespace of its own. memberlist's events are broadcasts, as serf
--- makes them of its user events. A round is one storm: member r tells SIZE events of 64 bytes in one go. Its time is from then
--- until the last event that comes has come to the last member. A round ends when all have all, or after LIMIT_MS, and what is missing
--- then is lost. The systems take turns, and rest between the rounds until nothing of the last storm is being sent (memberlist goes on
--- for a while).
---
--- Columns: the time until the median member had all events, and until the last event came anywhere (median and worst of the rounds);
--- events delivered of those due, over all and in the worst round; bytes and packets a member and round, with IP's headers, from the storm
--- to the next one.
local errors = require "shoal.errors"
local node = require "shoal.core.node"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

local BUILD = os.getenv "SHOAL_BUILD" or "build/release"
local MEMBERLIST = BUILD .. "/spec/membership_memberlist"
local SYSTEMS = { "ours", "memberlist" }
local PROGRAMS = { ours = BUILD .. "/spec/membership_bench ours", memberlist = MEMBERLIST .. " --events" }
local LIMIT_MS, JOIN_MS = 60000, 60000

local function fail(text)
  io.stderr:write("bench events: ", text, "\n")
  os.exit(2)
end

local options = { n = "32", interval = "1000", sizes = "100,1000", rounds = "5", quick = false }
for _, word in ipairs { ... } do
  local name, value = word:match "^%-%-(%a+)=?(.*)$"
  if not name or options[name] == nil then fail("unknown option " .. word .. "; see the head of spec/bench/events.lua") end
  options[name] = value
end
if options.quick then options.sizes, options.rounds = "100", "2" end
local N, INTERVAL_MS, ROUNDS = math.tointeger(options.n), math.tointeger(options.interval), math.tointeger(options.rounds)
local sizes = {}
for word in options.sizes:gmatch "%d+" do sizes[#sizes + 1] = math.tointeger(word) end

local function succeeds(command) return (os.execute(command .. " >/dev/null 2>&1")) == true end

local function prepare()
  if not succeeds "unshare -n -p --fork --kill-child --mount-proc ip link set lo up" then
    fail "namespaces of network and processes are needed (as root, or where users may make them): unshare refused"
  end
  local source = "spec/bench/membership/memberlist.go"
  local go = ("GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$PWD/%s/go-cache go build -o %s %s"):format(BUILD, MEMBERLIST, source)
  if succeeds(("test %s -nt %s"):format(MEMBERLIST, source)) or (os.execute(go)) then return SYSTEMS end
  print "MISSING memberlist: it could not be built; the bars against it are short. scripts/setup bench installs it."
  return { "ours" }
end

-- ---- a cluster ----

local function wait(predicate, limit_ms)
  local end_ms = task.now_ms() + limit_ms
  while not predicate() do
    if task.now_ms() >= end_ms then return false end
    task.sleep(5)
  end
  return true
end

local function take(c, line)
  local at_ns, at, what, about = line:match "^(%d+) (%S+) (%a+) (%S+)$"
  if not at_ns then return end
  if what == "ready" then c.ready = true
  elseif what == "up" then c.up = c.up + 1
  elseif what == "join" then c.joined = c.joined + 1
  elseif what == "dead" then c.joined = c.joined - 1
  elseif what == "tells" then c.began_ns = tonumber(at_ns)
  elseif what == "whole" and tonumber(about) == c.round then table.insert(c.whole_ns, tonumber(at_ns))
  elseif what == "last" then c.last_ns = math.max(c.last_ns, tonumber(about))
  elseif what == "heard" then c.reports, c.heard = c.reports + 1, c.heard + tonumber(about) - (at == c.teller and c.size or 0) end
end

--- What the loopback device of the cluster's namespace has sent: bytes, packets.
local function traffic(c)
  local file = io.open(("/proc/%d/net/dev"):format(c.inner))
  if not file then return 0, 0 end
  local bytes, packets = file:read("a"):match "lo:%s*(%d+)%s+(%d+)"
  file:close()
  return tonumber(bytes), tonumber(packets)
end

local function launch(system)
  local c = { system = system, up = 0, joined = 0, whole_ns = {}, reports = 0, heard = 0, rows = {} }
  local argv = { "unshare", "-n", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c", 'ip link set lo up; exec "$@"', "sh" }
  for word in PROGRAMS[system]:gmatch "%S+" do argv[#argv + 1] = word end
  argv[#argv + 1], argv[#argv + 2] = "--n=" .. N, "--interval=" .. INTERVAL_MS
  argv[#argv + 1] = "--timeout=" .. INTERVAL_MS // 2
  local process, err = world:spawn { argv = argv, pipe = { stdin = true, stdout = true, stderr = true },
    on_exit = function (status) c.ended = status end }
  if not process then error(err) end
  c.process, c.stdin = process, process:stream(0)
  c.stdin:attach { on_end = function () end } -- Its exit is handled elsewhere.
  local rest = ""
  process:stream(1):attach { on_end = function () end, on_read = function (_, bytes)
    rest = (rest .. bytes):gsub("([^\n]*)\n", function (line)
      take(c, line)
      return ""
    end)
  end }
  process:stream(2):attach { on_end = function () end, on_read = function (_, bytes) io.stderr:write(system, ": ", bytes) end }
  if not wait(function () return c.ready or c.ended end, JOIN_MS) or c.ended then error(system .. " does not start", 0) end
  local children = io.open(("/proc/%d/task/%d/children"):format(process:pid(), process:pid()))
  c.inner = children and tonumber(children:read("a"):match "%d+") or 0
  if children then children:close() end
  for at = 0, N - 1 do
    c.stdin:write(("start %d%s\n"):format(at, at > 0 and " 0" or ""))
    if at == 0 then wait(function () return c.up > 0 end, JOIN_MS) end
    task.sleep(INTERVAL_MS / N)
  end
  -- memberlist announces a member's own name to itself.
  local due = N * (N - 1) + (system == "memberlist" and N or 0)
  if not wait(function () return c.joined >= due end, JOIN_MS) then error(("%s: %d of %d joins"):format(system, c.joined, due), 0) end
  return c
end

-- ---- rounds ----

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

local function storm(c, round, size)
  c.round, c.size, c.teller, c.whole_ns, c.reports, c.heard, c.last_ns = round, size, tostring(round % N), {}, 0, 0, 0
  c.bytes, c.packets = traffic(c)
  c.stdin:write(("tell %s %d %d\n"):format(c.teller, round, size))
  wait(function () return #c.whole_ns == N or c.ended end, LIMIT_MS)
  if c.ended then error(c.system .. " ended", 0) end
  for at = 0, N - 1 do c.stdin:write(("heard %d %d\n"):format(at, round)) end
  wait(function () return c.reports == N end, LIMIT_MS)
  local times = {}
  for i, ns in ipairs(c.whole_ns) do times[i] = (ns - c.began_ns) / 1e6 end
  local row = { size = size, delivered = c.heard / (size * (N - 1)), last_ms = (c.last_ns - c.began_ns) / 1e6,
    median_ms = #times > N // 2 and times[N // 2 + 1] or math.huge }
  c.rows[#c.rows + 1] = row
  return row
end

local short = 0

local function bar(name, figure, relation, bound)
  local ok = relation == "<=" and figure <= bound or relation == ">=" and figure >= bound
  if not ok then short = short + 1 end
  print(("bar events_%s %.3f want %s %.3f %s"):format(name, figure, relation, bound, ok and "ok" or "short"))
end

local function summary(c, size)
  local s = { last = {}, median = {}, bytes = {}, packets = {}, worst = 1, all = 0, count = 0 }
  for _, row in ipairs(c.rows) do
    if row.size == size then
      for _, name in ipairs { "last", "median" } do table.insert(s[name], row[name .. "_ms"]) end
      table.insert(s.bytes, row.bytes / N)
      table.insert(s.packets, row.packets / N)
      s.worst, s.all, s.count = math.min(s.worst, row.delivered), s.all + row.delivered, s.count + 1
    end
  end
  return s
end

local function main()
  local clusters = {}
  for i, system in ipairs(prepare()) do clusters[i] = launch(system) end
  task.sleep(15 * INTERVAL_MS)
  local round = 0
  for _ = 1, ROUNDS do
    for _, size in ipairs(sizes) do
      round = round + 1
      for _, c in ipairs(clusters) do
        local row = storm(c, round, size)
        io.stderr:write(("# round %d, %d events, %s: %.3f %% in %.0f ms\n"):format(round, size, c.system, 100 * row.delivered, row.last_ms))
      end
      task.sleep(INTERVAL_MS * (5 + size // 25)) -- memberlist: 8 times each event, 270 a second and member.
      for _, c in ipairs(clusters) do
        local row, bytes, packets = c.rows[#c.rows], traffic(c)
        row.bytes, row.packets = bytes - c.bytes, packets - c.packets
      end
    end
  end
  print "# ms until the median member had all, and until the last came; % delivered; bytes and packets a member and round"
  local format = "%-10s %6s %7s | %8s %8s | %8s %8s | %9s %9s | %9s %9s"
  print(format:format("system", "events", "rounds", "median", "worst", "last", "worst", "delivered", "worst", "bytes", "packets"))
  local of = {}
  for _, c in ipairs(clusters) do
    of[c.system] = {}
    for _, size in ipairs(sizes) do
      local s = summary(c, size)
      of[c.system][size] = s
      local last, middle = median(s.last), median(s.median)
      print(format:format(c.system, size, s.count, ("%.0f"):format(middle), ("%.0f"):format(s.median[#s.median]), ("%.0f"):format(last),
        ("%.0f"):format(s.last[#s.last]), ("%.3f"):format(100 * s.all / s.count), ("%.3f"):format(100 * s.worst),
        ("%.0f"):format(median(s.bytes)), ("%.0f"):format(median(s.packets))))
    end
  end
  for _, size in ipairs(sizes) do
    local ours, theirs = of.ours[size], of.memberlist and of.memberlist[size]
    bar(("delivered_%d"):format(size), ours.worst, ">=", 1)
    bar(("time_by_memberlist_%d"):format(size), theirs and median(ours.last) / median(theirs.last) or 0 / 0, "<=", 0.5)
  end
  for _, c in ipairs(clusters) do c.stdin:close() end
  return short == 0 and 0 or 1
end

task.start(world)
task.root():spawn("cli.bench", { command = "bench events" }, function ()
  local ok, code = errors.call("cli.bench", { command = "bench events" }, main)
  node.exit(ok and code or 1)
end)
