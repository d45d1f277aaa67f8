--- bench membership: our members on real sockets, in one run beside Debian's memberlist and Tarantool's swim, and beside a bare libuv
--- loop that pings and answers without any membership.
---
---   scripts/bench membership [--n=16,32,64] [--interval=1000,200] [--form=one,each] [--only=ours,memberlist,tarantool,bare]
---                            [--kills=60] [--kills-ours=240] [--thousand=1000] [--quick]
---
--- The peer is memberlist and not serf, which is built on it: serf's agent takes only the times of its profiles, and runs once in a
--- process. All systems run as shipped, except for the two times of the cell; ours and memberlist's other durations scale with the
--- interval (by 5 for 200 ms; ours: the profile "lan"), and Tarantool has no others.
---
--- A cell is an interval between probes (the timeout is half of it), a size, and a form: all members in one process, or one process
--- each. In a cell each system has clusters of its own, each in its own network and process namespace, so its loopback device counts
--- only this cluster's traffic, and no process survives its end. All clusters of a batch start together, idle together (CPU, traffic
--- and memory are of that time), and then lose one member at a time: by SIGKILL, or in one process by closing its socket without
--- leaving. The bench waits until all others know, restarts the member, and repeats; several clusters share the kills of a cell. The
--- observers write instants of this machine's CLOCK_MONOTONIC.
---
--- Our members are killed more often than the peers', for their first suspicion must match theory within 10 %, and the mean of 60
--- exponential waits is off by more than that one time in ten. The theory (n = N - 1): the first ping that stays unanswered is sent
--- n/(n+1) periods after the kill, and the suspicion comes when the probe ends, one period later.
---
--- CPU is the scheduler's count for all threads of the members' processes; memory is the growth of a process's resident size since
--- before its first member. --quick runs one small cell with few kills, to check that all works; its figures mean nothing.
local errors = require "shoal.errors"
local node = require "shoal.core.node"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

local BUILD = os.getenv "SHOAL_BUILD" or "build/release"
local MEMBERLIST = BUILD .. "/spec/membership_memberlist"
local SYSTEMS = { "ours", "memberlist", "tarantool", "bare" }
local STARTING = 6 -- Clusters at a time.
-- The news of a thousand joins, some 16 datagrams for each at each member, takes ours minutes within its budget of bytes a second.
local LATE_SETTLE_MS = 270000
local SAID_MAX = 3 -- How many error lines of a cluster are shown.
local PEERS = { "memberlist", "tarantool" }
local PROGRAMS = {
  ours = BUILD .. "/spec/membership_bench ours", bare = BUILD .. "/spec/membership_bench bare",
  memberlist = MEMBERLIST, tarantool = "tarantool spec/bench/membership/tarantool.lua",
}

local function fail(text)
  io.stderr:write("bench membership: ", text, "\n")
  os.exit(2)
end

local function list(text) -- "16,32" -> { "16", "32" }
  local words = {}
  for word in text:gmatch "[^,]+" do words[#words + 1] = math.tointeger(tonumber(word)) or word end
  return words
end

local options = { n = "16,32,64", interval = "1000,200", form = "one,each", only = "", kills = "60", ["kills-ours"] = "240",
  thousand = "1000", quick = false }
for _, word in ipairs { ... } do
  local name, value = word:match "^%-%-([%a-]+)=?(.*)$"
  if not name or options[name] == nil then fail("unknown option " .. word .. "; see the head of spec/bench/membership.lua") end
  options[name] = value
end
if options.quick then
  options.n, options.interval, options.kills, options["kills-ours"], options.thousand = "16", "200", "4", "8", "0"
end
local chosen = {}
for _, system in ipairs(options.only == "" and SYSTEMS or list(options.only)) do
  if not PROGRAMS[system] then fail("no system is named " .. system) end
  chosen[system] = true
end

local missing = {}

local function succeeds(command) return (os.execute(command .. " >/dev/null 2>&1")) == true end

local function prepare()
  if not succeeds "unshare -n -p --fork --kill-child --mount-proc ip link set lo up" then
    fail "namespaces of network and processes are needed (as root, or where users may make them): unshare refused"
  end
  if not succeeds "command -v tarantool" then missing.tarantool = "tarantool is not installed" end
  local source = "spec/bench/membership/memberlist.go"
  local go = ("GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$PWD/%s/go-cache go build -o %s %s"):format(BUILD, MEMBERLIST, source)
  if not succeeds(("test %s -nt %s"):format(MEMBERLIST, source)) and not (os.execute(go)) then
    missing.memberlist = "it could not be built"
  end
  for _, peer in ipairs(PEERS) do
    if missing[peer] then
      print(("MISSING %s: %s; the bars against it are short. scripts/setup bench installs it."):format(peer, missing[peer]))
    end
  end
end

-- ---- clusters ----

--- The results of a system in a cell, over all of its clusters.
local function result()
  return { suspect = {}, dead = {}, agree = {}, cpu_ns = 0, packets = 0, bytes = 0, member_ns = 0, rss = 0, pss = 0, clusters = 0,
    false_suspicions = 0, false_deaths = 0, failures = {}, anew = {} }
end

local function take(cluster, line)
  local r, words = cluster.result, {}
  for word in line:gmatch "%S+" do words[#words + 1] = tonumber(word) or word end
  local what = words[1]
  if what == "together" then cluster.together:set(true)
  elseif what == "ready" then cluster.ready:set(true)
  elseif what == "idle" then
    r.cpu_ns, r.packets, r.bytes = r.cpu_ns + words[2], r.packets + words[3], r.bytes + words[4]
    r.member_ns = r.member_ns + words[5] * cluster.n
  elseif what == "memory" then
    r.rss, r.pss, r.clusters = r.rss + words[2], r.pss + words[3], r.clusters + 1
  elseif what == "kill" then
    for i, name in ipairs { "suspect", "dead", "agree" } do table.insert(r[name], tonumber(words[i + 1]) or math.huge) end
  elseif what == "false" then
    r.false_suspicions, r.false_deaths = r.false_suspicions + words[2], r.false_deaths + words[3]
    cluster.finished = true
  elseif what == "anew" then table.insert(r.anew, line)
  elseif what == "fail" then table.insert(r.failures, line)
  end
end

local function lines_of(stream, on_line)
  local rest = ""
  stream:attach {
    on_read = function (_, bytes)
      rest = (rest .. bytes):gsub("([^\n]*)\n", function (line)
        on_line(line)
        return ""
      end)
    end,
    on_end = function () end,
  }
end

local function launch(cluster)
  local argv = { "unshare", "-n", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c", 'ip link set lo up; exec "$@"', "sh",
    BUILD .. "/bin/shoal", "lua", "spec/bench/membership/cluster.lua", "--port=20000", "--program=" .. PROGRAMS[cluster.system] }
  for _, name in ipairs { "form", "n", "interval", "timeout", "kills", "idle", "join", "settle" } do
    argv[#argv + 1] = ("--%s=%s"):format(name, cluster[name])
  end
  cluster.together, cluster.ready, cluster.done = task.future "together", task.future "ready", task.future "done"
  local process, err = world:spawn { argv = argv, pipe = { stdin = true, stdout = true, stderr = true }, on_exit = function (status)
    if status ~= 0 or not cluster.finished then
      table.insert(cluster.result.failures, ("its driver ended with %s"):format(status))
    end
    cluster.together:set(false)
    cluster.ready:set(false)
    cluster.done:set(true)
  end }
  if not process then error(err) end
  cluster.process, cluster.stdin = process, process:stream(0)
  cluster.stdin:attach { on_end = function () end } -- Its exit is handled elsewhere.
  lines_of(process:stream(1), function (line) take(cluster, line) end)
  lines_of(process:stream(2), function (line)
    if line == "entering the event loop" then return end -- Tarantool's greeting.
    cluster.said = (cluster.said or 0) + 1
    if cluster.said <= SAID_MAX then io.stderr:write(cluster.title, ": ", line, "\n") end
  end)
end

local results = {} -- By cell's title and system.

--- The clusters of a cell. Enough of them share the kills that the batch ends within minutes, for a whole kill takes the peers 12
--- periods and ours 7. Returns the title.
local function cell(clusters, interval, n, form, kills)
  local title = ("%s_%s_%s"):format(interval, form, n)
  results[title] = { interval = interval, n = n, form = form, title = title }
  for _, system in ipairs(SYSTEMS) do
    if chosen[system] and not missing[system] and (kills or system == "ours" or system == "bare") then
      local r, ours = result(), system == "ours"
      results[title][system] = r
      local count = (system == "bare" or not kills) and 1 or (interval >= 1000 and 2 or 1) * (ours and 2 or 1)
      local all = not kills and 0 or system == "bare" and 0 or math.tointeger(options[ours and "kills-ours" or "kills"]) or 60
      for i = 1, count do
        clusters[#clusters + 1] = { system = system, result = r, title = title .. " " .. system, interval = interval,
          timeout = interval // 2, n = n, late = not kills, settle = kills and 3000 + 5 * interval or LATE_SETTLE_MS,
          form = form, kills = (all + count - i) // count, join = system == "bare" and "none" or "seed",
          idle = options.quick and 3000 or interval >= 1000 and 20000 or 10000 }
      end
    end
  end
  return title
end

-- ---- figures ----

local function quantile(values, q)
  if #values == 0 then return 0 / 0 end
  table.sort(values)
  return values[math.max(1, math.ceil(q * #values))]
end

local function mean(values)
  local sum = 0
  for _, value in ipairs(values) do sum = sum + value end
  return sum / #values
end

local figures = {
  death = function (r) return quantile(r.dead, 0.5) end,
  agree = function (r) return quantile(r.agree, 0.5) end,
  cpu = function (r) return r.cpu_ns / r.member_ns * 1e6 end, -- us a second
  bytes = function (r) return r.bytes / r.member_ns * 1e9 end,
  memory = function (r) return r.rss / r.clusters end,
}

local HEAD = "%-14s %-10s %5s | %7s %7s %7s %7s | %7s %7s | %7s %7s | %8s %7s %7s | %8s %8s | %s"
local ROW = "%-14s %-10s %5d | %7.0f %7.0f %7.0f %7.0f | %7.0f %7.0f | %7.0f %7.0f | %8.1f %7.1f %7.2f | %8.1f %8.1f | %d, %d"

local function theory_ms(c) return c.interval * ((c.n - 1) / c.n + 1) end

local function print_cell(c)
  for _, system in ipairs(SYSTEMS) do
    local r = c[system]
    if r then
      print((ROW:format(c.title, system, #r.dead, mean(r.suspect), system == "ours" and theory_ms(c) or 0 / 0, quantile(r.suspect, 0.5),
        quantile(r.suspect, 0.99), quantile(r.dead, 0.5), quantile(r.dead, 0.99), quantile(r.agree, 0.5), quantile(r.agree, 0.99),
        figures.cpu(r), figures.bytes(r), r.packets / r.member_ns * 1e9, r.rss / r.clusters / 1024, r.pss / r.clusters / 1024,
        r.false_suspicions, r.false_deaths):gsub("%-?nan", "  -")))
      for _, text in ipairs(r.anew) do print(("# %s %s: begun %s"):format(c.title, system, text)) end
      for _, text in ipairs(r.failures) do print(("FAILED %s %s: %s"):format(c.title, system, text)) end
    end
  end
end

local function run_batch(name, titles, clusters)
  if #clusters == 0 then return end
  local began_ms, members = task.now_ms(), 0
  for i, c in ipairs(clusters) do -- A few at a time: a thousand processes that start at once do not join as a cluster.
    if i > STARTING then clusters[i - STARTING].together:await() end
    launch(c)
    members = members + c.n
  end
  io.stderr:write(("# %s: %d clusters, %d members\n"):format(name, #clusters, members))
  for _, c in ipairs(clusters) do if not c.late then c.ready:await() end end
  io.stderr:write(("# %s: at rest after %d s\n"):format(name, (task.now_ms() - began_ms) // 1000))
  for _, c in ipairs(clusters) do if not c.late then c.stdin:write "go\n" end end
  for _, c in ipairs(clusters) do if c.late then c.ready:await() end end
  for _, c in ipairs(clusters) do if c.late then c.stdin:write "go\n" end end
  for _, c in ipairs(clusters) do
    c.done:await()
    if (c.said or 0) > SAID_MAX then io.stderr:write(("%s: and %d more lines\n"):format(c.title, c.said - SAID_MAX)) end
  end
  for _, title in ipairs(titles) do print_cell(results[title]) end
  io.stdout:flush()
  io.stderr:write(("# %s: ended after %d s\n"):format(name, (task.now_ms() - began_ms) // 1000))
end

local short = 0

--- A figure that is not a number misses the bar: a result is absent.
local function bar(name, figure, relation, bound)
  local ok = relation == "<=" and figure <= bound or relation == "<" and figure < bound
  if not ok then short = short + 1 end
  print(("bar membership_%s %.3f want %s %.3f %s"):format(name, figure, relation, bound, ok and "ok" or "short"))
end

--- The least of the peers' figures, or not a number if a requested peer has none.
local function best(c, figure)
  local least = math.huge
  for _, peer in ipairs(PEERS) do
    if chosen[peer] then
      local value = c[peer] and #c[peer].failures == 0 and figure(c[peer]) or 0 / 0
      if value ~= value then return value end
      least = math.min(least, value)
    end
  end
  return least
end

local function bars(c)
  local ours = c.ours
  if not ours then return end
  local whole = #ours.failures == 0 and 1 or 0 / 0
  if #ours.dead > 0 or whole ~= whole then
    bar("suspicion_off_theory_" .. c.title, whole * math.abs(mean(ours.suspect) / theory_ms(c) - 1), "<=", 0.1)
  end
  if (chosen.memberlist or chosen.tarantool) and c.n < 1000 then
    bar("death_by_peer_" .. c.title, whole * figures.death(ours) / best(c, figures.death), "<=", 1.1)
    bar("agree_by_peer_" .. c.title, whole * figures.agree(ours) / best(c, figures.agree), "<=", 0.7)
    bar("cpu_by_peer_" .. c.title, whole * figures.cpu(ours) / best(c, figures.cpu), "<", 1)
    bar("bytes_by_peer_" .. c.title, whole * figures.bytes(ours) / best(c, figures.bytes), "<", 1)
  end
  if chosen.bare then
    bar("cpu_by_bare_" .. c.title, whole * figures.cpu(ours) / (c.bare and figures.cpu(c.bare) or 0 / 0), "<=", c.n < 1000 and 1.25 or 1.5)
  end
  if chosen.memberlist and c.n < 1000 then
    local r = c.memberlist
    bar("memory_by_memberlist_" .. c.title, whole * figures.memory(ours) / (r and figures.memory(r) or 0 / 0), "<=", 0.1)
  end
end

local function main()
  prepare()
  local titles, sizes, forms = {}, list(options.n), list(options.form)
  print "# times in ms from the kill, CPU us and IP bytes and packets a member and second at rest, KB a member; false suspicions, deaths"
  print(HEAD:format("cell", "system", "kills", "suspect", "theory", "median", "p99", "death", "p99", "agree", "p99", "CPU us/s", "B/s",
    "pkt/s", "RSS KB", "PSS KB", "false"))
  table.sort(sizes)
  for _, interval in ipairs(list(options.interval)) do
    -- At five times the speed, all cells together would keep two cores busy and distort the results: run the largest separately.
    local largest = interval < 1000 and #sizes > 1 and table.remove(sizes) or nil
    for _, some in ipairs(largest and { sizes, { largest } } or { sizes }) do
      local clusters, added = {}, {}
      local function add(ms, n, form, kills)
        added[#added + 1] = cell(clusters, ms, n, form, kills)
      end
      for _, n in ipairs(some) do
        for _, form in ipairs(forms) do add(interval, n, form, true) end
      end
      if #titles == 0 and options.thousand ~= "0" then add(1000, math.tointeger(options.thousand), "one", false) end
      run_batch(("%d ms, N = %s"):format(interval, table.concat(some, ", ")), added, clusters)
      table.move(added, 1, #added, #titles + 1, titles)
    end
    sizes[#sizes + 1] = largest
  end
  for _, title in ipairs(titles) do bars(results[title]) end
  for _, peer in ipairs(PEERS) do
    if missing[peer] and chosen[peer] then print(("MISSING %s: %s"):format(peer, missing[peer])) end
  end
  return short == 0 and 0 or 1
end

task.start(world)
task.root():spawn("cli.bench", { command = "bench membership" }, function ()
  local ok, code = errors.call("cli.bench", { command = "bench membership" }, main)
  node.exit(ok and code or 1)
end)
