--- sim: a cluster in one process: simulated machines that run the unmodified scripts, one virtual clock, one seeded network.
--- A run is determined by its seed: run twice, its log is the same to the byte.
---
---   local s = sim.new { seed = 7, latency_ms = 1, loss = 0.02 }
---   local gate = s:node { role = "gate" }
---   local web = s:http("shop", function (request) return { status = 200, body = "ok", delay_ms = 3 } end)
---   assert(s:run_until(function () return s:eval(gate, "return ...") end, 5000))
---   s:crash(gate) ; s:run(1000) ; s:restart(gate)
---   print(s:log()) ; s:close()
---
--- Time passes only in run, run_until, eval and task. Times are milliseconds of the simulation. A node is given by its name or by the
--- value that `node` returned. Values cross between this state and a node only as copies.

local core = require "shoal.core.sim"
local sorted = require "shoal.base.sorted"

local sim = {}

local NS_PER_MS = 1000000
local EVAL_LIMIT_MS = 60000
local EVERY_MS = 10        -- Between two checks of run_until.
local PORT = 7000          -- The default port of a role.
local HOME = "/shoal"      -- The installation on the node's own disk: scripts/.
local CODE = HOME .. "/program.lua"

---@class Sim
local Sim = {}
Sim.__index = Sim
Sim.__name = "shoal.Sim"

---@class SimNode
---@field name string
---@field role? string
---@field ip string
---@field address string  "ip:port" of a role's listener

local function name_of(node) return type(node) == "table" and node.name or node end

local function ns_of(ms) return math.floor((ms or 0) * NS_PER_MS + 0.5) end

--- The options of a link: times in ms here, in ns in the core.
local LINK_OPTIONS = {
  latency_ms = "latency_ns", jitter_ms = "jitter_ns", reorder_ms = "reorder_ns",
  loss = "loss", corrupt = "corrupt", duplicate = "duplicate", reorder = "reorder",
  bytes_per_s = "bytes_per_s", queue_bytes = "queue_bytes", size_max = "size_max",
}
local OPTIONS = { seed = true, home = true, trace = true }
for name in sorted(LINK_OPTIONS) do OPTIONS[name] = true end

local function link_of(options)
  local link = { loss = 0 }
  for name, below in sorted(LINK_OPTIONS) do
    local value = options[name]
    if value ~= nil and name ~= below then value = ns_of(value) end
    if value ~= nil then link[below] = value end
  end
  return link
end

local NODE_OPTIONS = {
  name = true, role = true, script = true, dc = true, address = true, config = true, args = true, entry = true, argv = true,
  files = true, start = true, code = true,
}

local function check_options(what, options, known)
  for key in sorted(options) do
    if not known[key] then error(("%s: unknown option %s"):format(what, tostring(key)), 3) end
  end
end

--- A simulation without nodes.
---@param options? { seed?: integer, trace?: boolean, home?: string }  and the options of the default link, as in `sim:link`:
---  latency_ms: default 0.2; jitter_ms: default 0.05; trace: log every event of the network; home: the folder with the lua/ and
---  scripts/ that the nodes run
---@return Sim
function sim.new(options)
  options = options or {}
  check_options("sim.new", options, OPTIONS)
  local link = link_of(options)
  link.latency_ns, link.jitter_ns = link.latency_ns or ns_of(0.2), link.jitter_ns or ns_of(0.05)
  link.seed, link.home = options.seed or 1, options.home
  local made = assert(core.new(link))
  made:trace(options.trace or false)
  return setmetatable({
    core = made, machines = 0, ips = {}, nodes = {}, hosts = {}, timed = {}, timed_count = 0, later_queue = {}, sequence = 0,
    failing = {},
  }, Sim)
end

local function fault(self, format, ...) self.core:note("fault", format:format(...)) end

-- ---- machines ----

--- A machine without a program. Returns its world, for code of this state (HTTP hosts, clients of a spec).
---@param name string
---@param address? string  an IP; default: the next of 10.0.0.0/16
---@return table world, string ip
function Sim:world(name, address)
  local host = self.hosts[name]
  if not host then
    host = { ip = self:add(name, address) }
    self.hosts[name] = host
  end
  return assert(self.core:world(name)), host.ip
end

--- A bare machine. Returns its IP.
function Sim:add(name, ip)
  self.machines = self.machines + 1
  ip = ip or ("10.0.%d.%d"):format(self.machines // 250, self.machines % 250 + 1)
  assert(self.core:add(name, ip .. ":0"))
  self.ips[name] = ip
  return ip
end

local LISTS = { join = "--join", gates = "--gates", connect = "--connect" }
local PLAIN = { name = true, dc = true, bind = true }

--- The command line of `shoal run` for a role.
local function words_of(options, node)
  local config = options.config or {}
  local words = { "run", options.script or ("%s/scripts/roles/%s.lua"):format(HOME, options.role), "--name", node.name }
  local function add(...)
    for _, word in ipairs { ... } do words[#words + 1] = tostring(word) end
  end
  add("--bind", config.bind or node.address)
  if options.dc or config.dc then add("--dc", options.dc or config.dc) end
  for key, value in sorted(config) do
    if LISTS[key] then
      for _, one in ipairs(value) do add(LISTS[key], type(one) == "table" and one.address or one) end
    elseif not PLAIN[key] then
      add("--set", ("%s=%s"):format(key, tostring(value)))
    end
  end
  add(table.unpack(options.args or {}))
  return words
end

--- A machine that runs shoal: `shoal run` of a role script, or any entry module with its arguments.
---@param options { name?: string, role?: string, script?: string, dc?: string, address?: string, config?: table, args?: string[],
---  entry?: string, argv?: string[], code?: string, files?: table<string, string>, start?: boolean }
---  code: a program as text, run with `args` as by `shoal lua`; script: a path on the node's disk, where /shoal/scripts is a copy of
---  ours; files: further files on its disk; config: as for `shoal run`, and lists may hold nodes; start = false: add the node only,
---  and start it later with `s:start(node)`
---@return SimNode
function Sim:node(options)
  check_options("sim:node", options, NODE_OPTIONS)
  if not (options.role or options.script or options.entry or options.code) then
    error("sim:node: role, script, code or entry is missing", 2)
  end
  local node = { name = options.name, role = options.role }
  if not node.name then
    local stem, n = options.role or "node", 1
    while self.nodes[stem .. n] do n = n + 1 end
    node.name = stem .. n
  end
  node.ip = self:add(node.name, options.address and options.address:match "^[^:]+")
  node.address = ("%s:%s"):format(node.ip, options.address and options.address:match ":(%d+)$" or PORT)
  node.entry = options.entry or "shoal.cli.main"
  if options.code then
    node.argv = { "lua", CODE, table.unpack(options.args or {}) }
  else
    if not options.argv and not options.entry then
      node.words = function () return words_of(options, node) end
    end
    node.argv = options.argv or node.words and node.words() or {}
  end
  self.nodes[node.name] = node
  assert(self.core:copy_folder(node.name, self.core:home() .. "/scripts", HOME .. "/scripts"))
  if options.code then assert(self:write(node, CODE, options.code)) end
  for path, bytes in sorted(options.files or {}) do assert(self:write(node, path, bytes)) end
  if options.start ~= false then self:start(node) end
  return node
end

--- Start the program of a node that is not running.
function Sim:start(node)
  node = self.nodes[name_of(node)]
  assert(self.core:start(node.name, node.entry, node.argv))
  local plan = self.failing[node.name]
  if plan then
    plan.seed = (plan.seed or 1) + 7919 -- Each life fails elsewhere.
    assert(self.core:call(node.name, "shoal.base.errors", "inject", plan))
  end
  return node
end

--- A client: a node of that role, configured with the addresses to connect to.
function Sim:client(options)
  options.role = options.role or "client"
  return self:node(options)
end

---@return "up"|"ended"|"down" state, integer? exit_code, integer children, integer? open_handles
function Sim:status(node) return self.core:status(name_of(node)) end

--- Read a file of the node's disk.
function Sim:read(node, path) return assert(self.core:world(name_of(node))):read_file(path) end
function Sim:write(node, path, bytes)
  local world = assert(self.core:world(name_of(node)))
  local folder = path:match "^(.*)/[^/]*$"
  if folder and folder ~= "" then
    local ok, err, code = world:make_directory(folder)
    if not ok then return nil, err, code end
  end
  return world:put_durable(path, bytes)
end

-- ---- the outside ----

--- An HTTP host that nodes reach by its name. The handler gets { method, target, path, query, headers, body, peer } and returns
--- { status, headers, body, delay_ms }. It runs in this state and must not wait.
---@param host string
---@param handler fun(request: table): table
---@param options? { address?: string, port?: integer }
---@return table server  of shoal.http
function Sim:http(host, handler, options)
  options = options or {}
  local world, ip = self:world(host, options.address)
  return assert(require("shoal.run.http").server(world, ("%s:%d"):format(ip, options.port or 80), handler))
end

--- Define a command that nodes can run: fn(argv, stdin) -> output?, status?, duration_ms?. For `sh -c LINE` the name is the line's
--- first word. An undefined command cannot be started (ENOENT).
function Sim:command(name, fn) self.core:command(name, fn) end

--- Run fn as a task of this state, on a machine of its own named "outside", until it ends. Returns its results.
---@param fn function
---@param limit_ms? number
function Sim:task(fn, limit_ms)
  local task = require "shoal.base.task"
  if not self.scope then
    task.start((self:world "outside"))
    self.scope = task.scope "sim"
  end
  local results
  local t = self.scope:spawn("sim.task", { host = "outside" }, function () results = table.pack(fn()) end)
  task.flush()
  local ended = function () return results or t:status() ~= "ready" and t:status() ~= "running" and t:status() ~= "waiting" end
  local ok, err, code = self:run_until(ended, limit_ms or EVAL_LIMIT_MS, 0)
  if not ok then
    t:cancel()
    return nil, err, code
  end
  if not results then return nil, "the task failed; its incident says why", "FAILED" end
  return table.unpack(results, 1, results.n)
end

-- ---- time ----

---@return number ms  true time since the start; no node sees it
function Sim:now_ms() return self.core:now_ns() / NS_PER_MS end

--- How many events have run so far; each is one callback into one node.
---@return integer
function Sim:events() return self.core:events() end

local function settle(self)
  while self.later_queue[1] do
    local queue = self.later_queue
    self.later_queue = {}
    for _, fn in ipairs(queue) do fn() end
  end
end

--- Run fn once no event is being handled, so that a host's handler or a command can act on the cluster itself (crash, restart).
function Sim:later(fn)
  if not self.core:stepping() then return fn() end
  self.later_queue[#self.later_queue + 1] = fn
  self.core:interrupt()
end

--- Run fn at this time of the simulation, between two events; if the time is past, before the next event.
function Sim:at(ms, fn)
  self.sequence = self.sequence + 1
  local entry = { at_ns = ns_of(ms), sequence = self.sequence, fn = fn }
  local place = #self.timed + 1
  while place > 1 and self.timed[place - 1].at_ns > entry.at_ns do place = place - 1 end
  table.insert(self.timed, place, entry)
  if self.core:stepping() then self.core:interrupt() end
end

local function advance(self, until_ns)
  while true do
    settle(self)
    local first = self.timed[1]
    local target = first and first.at_ns < until_ns and first.at_ns or until_ns
    if self.core:run(target) then
      if first and first.at_ns <= self.core:now_ns() and self.timed[1] == first then
        table.remove(self.timed, 1)
        first.fn()
      elseif self.core:now_ns() >= until_ns then
        return settle(self)
      end
    end
  end
end

--- Run one event; false when there is none left.
function Sim:step()
  settle(self)
  local first, next_ns = self.timed[1], self.core:next_ns()
  if first and (not next_ns or first.at_ns < next_ns) then
    advance(self, math.max(first.at_ns, self.core:now_ns()))
    return true
  end
  local ran = self.core:step()
  settle(self)
  return ran
end

--- Let this much time pass.
---@param ms number
function Sim:run(ms) advance(self, self.core:now_ns() + ns_of(ms)) end

--- Let time pass until fn() is true. It is called every `every_ms` (default 10; 0: after every event).
---@param fn fun(): any
---@param limit_ms number
---@param every_ms? number
---@return any result, string? err, string? code  fn's result, or nil, "...", "TIMEOUT"
function Sim:run_until(fn, limit_ms, every_ms)
  local limit_ns = self.core:now_ns() + ns_of(limit_ms)
  every_ms = every_ms or EVERY_MS
  while true do
    local result = fn()
    if result then return result end
    local now_ns, next_ns = self.core:now_ns(), self.core:next_ns()
    local timed = self.timed[1]
    if timed and (not next_ns or timed.at_ns < next_ns) then next_ns = timed.at_ns end
    if now_ns >= limit_ns or not next_ns and every_ms == 0 then
      return nil, ("not within %s ms"):format(tostring(limit_ms)), "TIMEOUT"
    end
    if every_ms > 0 then
      advance(self, math.min(limit_ns, now_ns + ns_of(every_ms)))
    elseif next_ns > limit_ns then
      advance(self, limit_ns)
    else
      self:step()
    end
  end
end

-- ---- code in a node ----

--- Run Lua code on a node, as a task there: it may wait, and then time passes here. `...` reaches the code as `...`.
---@param node SimNode|string
---@param code string
---@return any ...  the code's results, copied; or nil, message, code ("FAILED": it raised; "TIMEOUT"; "CLOSED": the node is not up)
function Sim:eval(node, code, ...)
  local name = name_of(node)
  local id, err, word = self.core:call(name, "shoal.sim.inside", "begin", name, code, ...)
  if not id then return nil, err, word end
  local limit_ns, answer = self.core:now_ns() + ns_of(EVAL_LIMIT_MS)
  while true do
    answer = table.pack(self.core:call(name, "shoal.sim.inside", "take", id))
    if answer[1] ~= false then break end
    if self.core:now_ns() >= limit_ns or not self:step() then
      return nil, ("%s: the code still waits after %d ms"):format(name, EVAL_LIMIT_MS), "TIMEOUT"
    end
  end
  if not answer[1] then return nil, answer[2], answer[3] end -- The node ended meanwhile.
  if not answer[2] then return nil, answer[3], "FAILED" end
  return table.unpack(answer, 3, answer.n)
end

-- ---- faults ----

--- The machine crashes: it stops at once.
function Sim:crash(node)
  local name = name_of(node)
  fault(self, "crash %s", name)
  self.core:crash(name)
  self.hosts[name] = nil
end

--- Restart it: a new process with the old disk, the same program and arguments.
function Sim:restart(node)
  local name = name_of(node)
  fault(self, "restart %s", name)
  self.core:restart(name)
  if self.nodes[name] then self:start(name) end
end

--- Send a signal to the process: "TERM", "INT" or "HUP".
function Sim:signal(node, signal)
  fault(self, "signal %s %s", name_of(node), signal)
  self.core:signal(name_of(node), signal)
end

--- Pause the machine: timers and input wait until it is resumed, and then arrive late.
function Sim:pause(node)
  fault(self, "pause %s", name_of(node))
  self.core:pause(name_of(node), true)
end
function Sim:resume(node)
  fault(self, "resume %s", name_of(node))
  self.core:pause(name_of(node), false)
end

--- Stall its first process for `ms`, as by SIGSTOP and SIGCONT, or in a blocking call. Then all events that became due arrive at once,
--- timers first. Its children and its kernel keep running, unlike under `pause`, which stops the machine.
---@param node SimNode|string
---@param ms number
function Sim:stall(node, ms)
  fault(self, "stall %s %g", name_of(node), ms)
  self.core:stall(name_of(node), ns_of(ms))
end

local DISK_OPTIONS = { full = true, fail = true, fail_sync = true, sync_ms = true }

--- Set the faults of its disk from now on, over restarts too. Faults that are not named end, so `sim:disk(node)` ends all.
---@param node SimNode|string
---@param faults? { full?: boolean, fail?: string, fail_sync?: string, sync_ms?: number }
---  full: operations that need space fail with ENOSPC; fail: each operation fails with this code ("EIO"); fail_sync: only syncs and
---  puts fail, with this code; sync_ms: each sync takes this long, and put_durable stalls the process for it
function Sim:disk(node, faults)
  faults = faults or {}
  check_options("sim:disk", faults, DISK_OPTIONS)
  local words = {}
  for name, value in sorted(faults) do words[#words + 1] = (" %s=%s"):format(name, tostring(value)) end
  fault(self, "disk %s%s", name_of(node), #words > 0 and table.concat(words) or " well")
  self.core:disk(name_of(node), { full = faults.full, fail = faults.fail, fail_sync = faults.fail_sync,
    sync_ns = ns_of(faults.sync_ms) })
end

local function text(node) return name_of(node) or "*" end

--- Cut the link from a to b (and back, unless `one_way`). nil is any node.
function Sim:cut(a, b, one_way)
  fault(self, "cut %s %s%s", text(a), text(b), one_way and " one way" or "")
  self.core:cut(name_of(a), name_of(b), true)
  if not one_way then self.core:cut(name_of(b), name_of(a), true) end
end
function Sim:heal(a, b, one_way)
  fault(self, "heal %s %s%s", text(a), text(b), one_way and " one way" or "")
  self.core:cut(name_of(a), name_of(b), false)
  if not one_way then self.core:cut(name_of(b), name_of(a), false) end
end

--- Clog the link from a to b (and back, unless `one_way`): traffic waits on the wire, up to a bound, and arrives at once, in order, at
--- unclog. nil is any node.
function Sim:clog(a, b, one_way)
  fault(self, "clog %s %s%s", text(a), text(b), one_way and " one way" or "")
  self.core:clog(name_of(a), name_of(b), true)
  if not one_way then self.core:clog(name_of(b), name_of(a), true) end
end
function Sim:unclog(a, b, one_way)
  fault(self, "unclog %s %s%s", text(a), text(b), one_way and " one way" or "")
  self.core:clog(name_of(a), name_of(b), false)
  if not one_way then self.core:clog(name_of(b), name_of(a), false) end
end

--- The options of a link besides latency, jitter and loss, for the log.
local function more_of(link)
  local out = {}
  for name in sorted(LINK_OPTIONS) do
    if link[name] and name ~= "latency_ms" and name ~= "jitter_ms" and name ~= "loss" then
      out[#out + 1] = (" %s=%s"):format(name, tostring(link[name]))
    end
  end
  return table.concat(out)
end

--- Set the link from a to b (nil: any node); a nil link restores the default. Without a and b: set the default.
---@param link? { latency_ms?: number, jitter_ms?: number, loss?: number, corrupt?: number, duplicate?: number, reorder?: number,
---  reorder_ms?: number, bytes_per_s?: integer, queue_bytes?: integer, size_max?: integer }
---  latency_ms: one way; jitter_ms: mean of the added delay. Shares 0..1 of datagrams: loss, corrupt (1 to 3 bits flip), duplicate,
---  reorder (delayed by up to reorder_ms more, default 10). bytes_per_s: the rate of the wire; queue_bytes (default 64 KiB) of
---  datagrams may wait for it or for the end of a clog; size_max: larger datagrams are dropped. 0 is off.
function Sim:link(a, b, link)
  if link then check_options("sim:link", link, LINK_OPTIONS) end
  fault(self, "link %s %s %s", text(a), text(b),
    link and ("%g %g %g%s"):format(link.latency_ms or 0, link.jitter_ms or 0, link.loss or 0, more_of(link)) or "default")
  self.core:link(name_of(a), name_of(b), link and link_of(link))
end

--- Let a share of a node's calls at sites fail, from now on and over restarts: code, hooks, tasks that begin (base/errors/injecting.lua).
--- Without a plan: no more.
---@param node SimNode|string
---@param plan? { share: number, site?: string, seed?: integer, kinds?: table<string, boolean>, times?: integer }
---  site: one, or a family as "lead.*"; nil: all. times: at most so many failures
function Sim:fail_sites(node, plan)
  local name = name_of(node)
  fault(self, "fail_sites %s %s %s", name, plan and ("%g"):format(plan.share) or "off", plan and plan.site or "")
  self.failing[name] = plan
  return self.core:call(name, "shoal.base.errors", "inject", plan)
end

--- Its monotonic clock runs fast by this many ppm (slow below 0), -200 to 200, from now on.
function Sim:drift(node, ppm)
  fault(self, "drift %s %s", name_of(node), tostring(ppm))
  self.core:drift(name_of(node), ppm)
end

--- Its wall clock jumps by this many milliseconds, forwards or back.
function Sim:step_wall(node, ms)
  fault(self, "step_wall %s %s", name_of(node), tostring(ms))
  self.core:step_wall(name_of(node), ns_of(ms))
end

--- It receives at most this many datagrams a second; `queue` (default 64) may wait, the rest is dropped. Without a number: no limit.
---@param node SimNode|string
---@param per_s? integer
---@param queue? integer
function Sim:slow(node, per_s, queue)
  fault(self, "slow %s %s", name_of(node), per_s and tostring(per_s) or "off")
  self.core:slow(name_of(node), per_s or 0, queue or 0)
end

--- Change the address of a machine that is down; a machine that is down and has that address gets this one's. If we wrote their command
--- lines, both programs start with the new addresses. Other nodes keep the addresses that they were given.
---@param node SimNode|string
---@param ip string
function Sim:readdress(node, ip)
  local name = name_of(node)
  fault(self, "readdress %s %s", name, ip)
  local ok, err = self.core:readdress(name, ip .. ":0")
  if not ok then error("sim:readdress: " .. err, 2) end -- It is up, or another machine that is up has the address, or it is not an address.
  local old = self.ips[name]
  for other, theirs in sorted(self.ips) do
    local now = other == name and ip or theirs == ip and old or theirs
    local known = self.nodes[other]
    self.ips[other] = now
    if known and now ~= theirs then
      known.ip, known.address = now, ("%s:%s"):format(now, known.address:match ":(%d+)$")
      if known.words then known.argv = known.words() end
    end
  end
end

--- Counts of datagrams by their fate so far: sent, delivered, lost, cut, too_large, overflowed, corrupted, duplicated, reordered,
--- throttled, clogged, clog_dropped, slowed, slow_dropped (world/sim.h).
---@return table<string, integer>
function Sim:counts() return self.core:counts() end

-- ---- the record ----

--- The whole log, as "MS NODE LINE" lines: the same bytes for the same seed, scripts and calls.
---@return string
function Sim:log() return self.core:log() end

--- Add a line to the log.
function Sim:note(format, ...) self.core:note("note", format:format(...)) end

--- Switch the logging of every network event on or off.
function Sim:trace(on) self.core:trace(on and true or false) end

--- End the simulation. Idempotent.
function Sim:close()
  if self.closed then return end
  self.closed = true
  if self.scope then require("shoal.base.task").stop() end
  self.core:close()
end
Sim.__close = Sim.close

return sim
