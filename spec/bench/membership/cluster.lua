--- One cluster of `scripts/bench membership`, in a network namespace of its own: bring it up, measure it at rest, kill members.
---
---   cluster.lua --program=WORDS --form=one|each --n=16 --interval=1000 --timeout=500 --kills=20 --idle=20000 --settle=8000 --port=20000
---
--- The members are in one process, or one process each; spec/bench/membership_bench.c describes their protocol. This prints on stdout
---   together                               each member knows all
---   ready                                  and the gossip of that has ended
---   idle CPU_NS PACKETS BYTES NS           of all members together, between "go" on stdin and NS later; of the loopback device
---   memory ABOVE_EMPTY_RSS PSS             bytes a member
---   kill SUSPECT_MS DEAD_MS AGREE_MS       from the kill to the first suspicion, the first death, the last member's
---   false SUSPICIONS DEATHS                of members that lived
---   anew TEXT                              it did not agree, and was restarted; the times of such a kill are inf
---   fail TEXT                              the last line
--- and ends at the end of its stdin, as its members do.
local errors = require "shoal.errors"
local node = require "shoal.core.node"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

local options = {}
for _, word in ipairs { ... } do
  local name, value = word:match "^%-%-(%w+)=(.*)$"
  options[name] = tonumber(value) or value
end
local N, PERIOD_MS = options.n, options.interval
local LIMIT_MS = 30000 + 30 * PERIOD_MS

local function must(value, err) return value or error(tostring(err), 2) end

local function tell(...)
  io.write(table.concat({ ... }, " "), "\n")
  io.flush()
end

-- ---- processes ----

local hosts, host_of, up = {}, {}, {}           -- Members by index.
local known, known_count, false_suspicions, false_deaths = {}, {}, 0, 0
local holds = {}                                -- The members' tables, as they report them.
local kill                                      -- The kill in progress.
local waiter
local news_ms = 0                               -- The time of the last change of any member's view.
local go = task.future("go", nil)

-- The offset of our clock to theirs: the least over all lines, which includes the least delay of a line.
local ahead_ns = math.huge

local function see(ns, at, what, about)
  ahead_ns = math.min(ahead_ns, world:fresh_ns() - ns)
  if what == "up" then
    up[at] = true
    return
  elseif what == "holds" then
    holds[at] = (holds[at] or "") .. " " .. about
    return
  elseif what == "killed" then
    if kill and kill.victim == at then kill.at_ns = ns end
    return
  end
  if at == about or not up[at] then return end -- Some report about themselves; some after they were killed.
  news_ms = task.now_ms()
  local of = known[at]
  if what == "join" or what == "alive" then
    if not of[about] then of[about], known_count[at] = true, known_count[at] + 1 end
  elseif what == "suspect" then
    if not kill or about ~= kill.victim then false_suspicions = false_suspicions + 1
    elseif not kill.suspect_ns or ns < kill.suspect_ns then kill.suspect_ns = ns end
  elseif what == "dead" and of[about] then
    of[about], known_count[at] = nil, known_count[at] - 1
    if not kill or about ~= kill.victim then
      false_deaths = false_deaths + 1
      return
    end
    kill.heard = kill.heard + 1
    if not kill.dead_ns or ns < kill.dead_ns then kill.dead_ns = ns end
    if not kill.agree_ns or ns > kill.agree_ns then kill.agree_ns = ns end
  end
end

local function hear(host, bytes)
  if host.forgotten then return end
  host.rest = host.rest .. bytes
  local from = 1
  while true do
    local to = host.rest:find("\n", from, true)
    if not to then break end
    local ns, at, what, about = host.rest:match("^(%d+) (%S+) (%a+) (%S+)", from)
    if what == "ready" then host.ready = true
    elseif what then see(math.tointeger(tonumber(ns)), math.tointeger(tonumber(at)), what, math.tointeger(tonumber(about))) end
    from = to + 1
  end
  host.rest = host.rest:sub(from)
  if waiter then waiter:set(true) end
end

--- A process without members.
local function spawn()
  local argv, host = {}, { rest = "" }
  for word in options.program:gmatch "%S+" do argv[#argv + 1] = word end
  for _, name in ipairs { "port", "interval", "timeout", "n" } do
    argv[#argv + 1] = ("--%s=%d"):format(name, options[name])
  end
  host.process = must(world:spawn { argv = argv, pipe = { stdin = true, stdout = true }, on_exit = function (status, signal)
    if host.killed then return end
    tell("fail", ("%s ended by itself: status %s, signal %s"):format(argv[1], status, signal))
    node.exit(1)
  end })
  host.pid = host.process:pid()
  host.stdin = host.process:stream(0)
  host.stdin:attach { on_end = function () end } -- Its exit is handled elsewhere.
  host.process:stream(1):attach { on_read = function (_, bytes) hear(host, bytes) end, on_end = function () end }
  return host
end

--- True once held() is true; false after limit_ms.
local function wait(held, limit_ms)
  local ends_ms = task.now_ms() + limit_ms
  while not held() do
    local left_ms = ends_ms - task.now_ms()
    if left_ms <= 0 then return false end
    waiter = task.future "news"
    local _ = waiter:await(math.min(left_ms, 1000)) -- dropped: held() decides
    waiter = nil
  end
  return true
end

local function agreed()
  for at = 0, N - 1 do
    if not up[at] or known_count[at] ~= N - 1 then return false end
  end
  return true
end

--- Random living members, without `but`.
local function seeds(count, but)
  local words = {}
  for _ = 1, count do
    local at = world:random(N) - 1
    if at ~= but and up[at] then words[#words + 1] = at end
  end
  return table.concat(words, " ")
end

--- Wait until each member knows all: true, or false and the members that do not. A lonely member gets its seeds again.
local function converge()
  local began_ms = task.now_ms()
  while not wait(agreed, 10000 + 5 * PERIOD_MS) do
    if task.now_ms() - began_ms > LIMIT_MS then
      local lonely = {}
      for at = 0, N - 1 do
        if known_count[at] ~= N - 1 then
          if options.program:find "ours" then host_of[at].stdin:write(("table %d\n"):format(at)) end
          task.sleep(500)
          lonely[#lonely + 1] = ("%d: told %d, holds%s;"):format(at, known_count[at], holds[at] or "?")
        end
      end
      local said = table.concat(lonely, " ")
      return false, ("no agreement within %d s; who knows how many: %s"):format(LIMIT_MS // 1000, said:sub(1, 300))
    end
    for at = 0, N - 1 do
      if up[at] and known_count[at] ~= N - 1 then host_of[at].stdin:write(("join %d %s\n"):format(at, seeds(2, at))) end
    end
  end
  return true
end

local function start(at, friends)
  known[at], known_count[at] = {}, 0
  host_of[at].stdin:write(("start %d %s\n"):format(at, friends))
end

-- ---- the kernel's counts ----

local function text_of(path)
  local file = must(io.open(path))
  local text = file:read "a"
  file:close()
  return text
end

--- CPU ns of all threads of all members' processes.
local function cpu_ns()
  local sum = 0
  for _, host in ipairs(hosts) do
    for _, thread in ipairs(must(world:list(("/proc/%d/task"):format(host.pid)))) do
      sum = sum + tonumber(text_of(("/proc/%d/task/%s/schedstat"):format(host.pid, thread)):match "^%d+")
    end
  end
  return sum
end

--- The loopback device's sent IP bytes and packets.
local function traffic()
  local fields = {}
  for word in text_of("/proc/self/net/dev"):match("lo:([^\n]*)"):gmatch "%d+" do fields[#fields + 1] = tonumber(word) end
  return fields[1], fields[2]
end

--- Resident and proportional bytes of all members' processes.
local function memory()
  local rss, pss = 0, 0
  for _, host in ipairs(hosts) do
    local text = text_of(("/proc/%d/smaps_rollup"):format(host.pid))
    rss = rss + 1024 * tonumber(text:match "Rss:%s*(%d+)")
    pss = pss + 1024 * tonumber(text:match "Pss:%s*(%d+)")
  end
  return rss, pss
end

-- ---- the course ----

local function rest(empty_rss)
  local cpu, at_ns, bytes, packets = cpu_ns(), world:fresh_ns(), traffic()
  task.sleep(options.idle)
  local later_bytes, later_packets = traffic()
  tell("idle", cpu_ns() - cpu, later_packets - packets, later_bytes - bytes, world:fresh_ns() - at_ns)
  local rss, pss = memory()
  tell("memory", (rss - empty_rss) // N, pss // N)
end

--- Kill a member. True when all others know, else false and how many do.
local function put_to_death(victim)
  kill = { victim = victim, heard = 0 }
  up[victim] = nil
  local host = host_of[victim]
  if options.form == "one" then
    host.stdin:write(("kill %d\n"):format(victim))
  else
    kill.at_ns, host.killed = world:fresh_ns() - ahead_ns, true
    must(host.process:kill "KILL")
    host.stdin:close()
  end
  local all = wait(function () return kill.heard == N - 1 end, LIMIT_MS)
  local function since(ns) return ns and ("%.3f"):format((ns - kill.at_ns) / 1e6) or "inf" end
  tell("kill", since(kill.suspect_ns), since(kill.dead_ns), all and since(kill.agree_ns) or "inf")
  return all, ("member %d was killed, and %d of %d know after %d s"):format(victim, kill.heard, N - 1, LIMIT_MS // 1000)
end

local function bring_back(victim)
  if options.form == "each" then
    local host = spawn()
    for i, old in ipairs(hosts) do if old == host_of[victim] then hosts[i] = host end end
    host_of[victim] = host
  end
  start(victim, seeds(4, victim))
  local ok, why = converge()
  kill = nil
  return ok, why
end

--- Start processes and members, and wait for agreement. Returns the processes' resident bytes before their first members.
local function begin()
  for i = 1, options.form == "one" and 1 or N do hosts[i] = spawn() end
  for at = 0, N - 1 do host_of[at] = hosts[options.form == "one" and 1 or at + 1] end
  if not wait(function ()
    for _, host in ipairs(hosts) do if not host.ready then return false end end
    return true
  end, LIMIT_MS) then error("its processes do not start", 0) end
  task.sleep(200)
  local empty_rss = memory()
  for at = 0, N - 1 do
    start(at, at > 0 and options.join ~= "none" and "0" or "")
    if at == 0 then wait(function () return up[0] end, LIMIT_MS) end
    task.sleep(PERIOD_MS / N) -- Some systems keep their initial phase: started together, they would wake up together for ever.
  end
  if options.join ~= "none" then
    local ok, why = converge()
    if not ok then error(why, 0) end
  end
  return empty_rss
end

local function begin_anew(why)
  tell("anew", why)
  for _, host in ipairs(hosts) do
    host.killed, host.forgotten = true, true
    local _ = host.process:kill "KILL" -- dropped: it may be the killed one
  end
  kill, up, known, known_count = nil, {}, {}, {}
  task.sleep(500)
  begin()
end

--- Lose one member and restart it.
local function lose_one()
  local ok, why = converge() -- A member may have been suspected falsely meanwhile.
  if not ok then return begin_anew(why) end
  local victim = world:random(N) - 1
  ok, why = put_to_death(victim)
  if ok then ok, why = bring_back(victim) end
  if not ok then begin_anew(why) end
  return true
end

local function main()
  local empty_rss = begin()
  tell "together"
  local quiet_ms = options.settle
  news_ms = task.now_ms()
  if not wait(function () return task.now_ms() - news_ms >= quiet_ms and (options.join == "none" or agreed()) end, quiet_ms + 2 * LIMIT_MS) then
    error("its members go on changing their minds", 0)
  end
  false_suspicions, false_deaths = 0, 0
  tell "ready"
  go:await()
  rest(empty_rss)
  local lost = 0
  while lost < options.kills do
    task.sleep(1.5 * PERIOD_MS + world:random(PERIOD_MS))
    if lose_one() then lost = lost + 1 end
  end
  tell("false", false_suspicions, false_deaths)
end

task.start(world)
must(world:stdio(0)):attach {
  on_read = function (_, bytes) if bytes:find "go" then go:set(true) end end,
  on_end = function () node.exit(3) end,
}
task.root():spawn("cli.bench", { command = "bench membership" }, function ()
  local ok, incident = errors.call("cli.bench", { command = "bench membership" }, main)
  if not ok then tell("fail", (tostring(incident.error or incident):gsub("\n.*", ""))) end
  node.exit(ok and 0 or 1)
end)
