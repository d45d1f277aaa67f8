--- shoal up: a whole cluster on this machine, a process a node, from one topology file.
---
--- Each node is a `shoal run` child that announces its address on stdout and stops when its stdin ends, so that a killed `up`
--- leaves none behind. Gates start first, then managers, then workers: each gets the addresses of those before it.
local common = require "shoal.cli.common"
local core = require "shoal.core.node"
local fit = require "shoal.job.fit"
local json = require "shoal.base.json"
local output = require "shoal.cli.json"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"
local verify = require "shoal.cli.verify"
local world = require "shoal.core.world"

local up = {}

local READY_MS = 15000
local STOP_MS = 6000
local TOLD = "stopped before all was ready"

local NAME = { default = "", max = 64, pattern = "^[%w%-_%.]*$", doc = "letters, digits, '-', '_' and '.', such as w-a1" }

local member = schema.record({
  name = schema.string(NAME), bind = schema.string { default = "" },
  cores = schema.integer { default = 4, min = 1, max = 4096 }, script = schema.string { default = "" },
  labels = schema.map(schema.any(), { default = {} }), set = schema.optional(schema.map(schema.any())),
}, function (m)
  for name, value in sorted(m.labels) do m.labels[name] = math.type(value) and tostring(value) or value end
  return fit.problem(m.labels)
end)

--- Each node of a topology that was checked: fn(member, path, role, dc?, default name), managers of a datacenter before its workers.
local function each(t, fn)
  for i, m in ipairs(t.gates) do fn(m, ("gates[%d]"):format(i), "gate", nil, "g" .. i) end
  for dc, d in sorted(t.datacenters) do
    for i, m in ipairs(d.managers) do fn(m, ("datacenters.%s.managers[%d]"):format(dc, i), "manager", dc, ("m-%s%d"):format(dc, i)) end
    for i, m in ipairs(d.workers) do fn(m, ("datacenters.%s.workers[%d]"):format(dc, i), "worker", dc, ("w-%s%d"):format(dc, i)) end
  end
end

local function host_of(bind) return bind:match "^(.*):%d+$" end
local function family(host) return host and host:find(":", 1, true) and "IPv6" or "IPv4" end

--- Give every node its name and address, and find what two nodes cannot share. A node without an address takes a free port at the host of
--- the first node of its group: nodes of one group (the gates, or one datacenter) must reach each other.
---@return string? problem
local function complete(t)
  local names, binds, first, problems = {}, {}, {}, {}
  local function note(path, ...) problems[#problems + 1] = path .. ": " .. string.format(...) end
  each(t, function (m, path, _, dc, name)
    if m.name == "" then m.name = name end
    local group = dc or ""
    if m.bind == "" then m.bind = (first[group] and host_of(first[group].bind) or "127.0.0.1") .. ":0" end
    if names[m.name] then
      note(path .. ".name", "%q is the name of %s too: each node has its own, and its own data folder", m.name, names[m.name])
    end
    names[m.name] = names[m.name] or path
    local host, port = host_of(m.bind), m.bind:match ":(%d+)$"
    if not host or tonumber(port) > 65535 then return note(path .. ".bind", "expected HOST:PORT, such as 127.0.0.1:7001; found %q", m.bind) end
    if port ~= "0" and binds[m.bind] then note(path .. ".bind", "%s is the address of %s too", m.bind, binds[m.bind]) end
    binds[m.bind] = binds[m.bind] or path
    first[group] = first[group] or { bind = m.bind, name = m.name }
    local other = first[group]
    if family(host) ~= family(host_of(other.bind)) then
      note(path .. ".bind", "%s is %s, and %s is bound to %s: nodes of one %s reach each other by addresses of one family", m.bind,
        family(host), other.name, other.bind, dc and "datacenter" or "tier")
    end
  end)
  return #problems > 0 and table.concat(problems, "; ") or nil
end

up.topology = schema.record({
  cluster = schema.string { default = "shoal" },
  gates = schema.array(member, { max = 100, default = {} }),
  datacenters = schema.map(schema.record({
    managers = schema.array(member, { min = 1, max = 100 }), workers = schema.array(member, { max = 1000, default = {} }),
  })),
  set = schema.optional(schema.map(schema.any())),
})
up.complete = complete

--- A topology that was read, complete; or every problem.
---@return table? topology, string? err, string? code
function up.check(value)
  local topology, err, code = up.topology(value)
  if not topology then return nil, err, code end
  local problem = complete(topology)
  if problem then return nil, problem, "CONFIG" end
  return topology
end

function up.words(command)
  command:argument("topology", "a Lua file that returns gates and datacenters; see examples/topology.lua")
  command:option("--data", "folder for logs and state; default: .shoal"):default(".shoal")
  command:epilog([[
Example:
  shoal up examples/topology.lua
It stays in the foreground; Ctrl-C stops the cluster. SIGHUP goes to every node, which opens its log file again.]])
end

--- One child, until it announced its address. Waits.
local function start(self, role, m, dc, extra)
  if self.told_to_stop then return nil, TOLD, "INTERRUPTED" end
  local w, name = world.current(), m.name
  local argv = {
    core.program(), "run", m.script ~= "" and m.script or core.home() .. "/scripts/roles/" .. role .. ".lua", "--name", name,
    "--cluster", self.topology.cluster, "--bind", m.bind, "--data", self.data .. "/" .. name,
    "--log", self.data .. "/" .. name .. ".log", "--announce", "--until-eof",
  }
  if dc then table.move({ "--dc", dc }, 1, 2, #argv + 1, argv) end
  if role == "worker" then table.move({ "--cores", tostring(m.cores) }, 1, 2, #argv + 1, argv) end
  for label, value in sorted(m.labels) do table.move({ "--label", label .. "=" .. value }, 1, 2, #argv + 1, argv) end
  for _, set in ipairs { self.topology.set or {}, m.set or {} } do
    for key, value in sorted(set) do
      for inner, one in sorted(type(value) == "table" and value or { [""] = value }) do
        local full = inner ~= "" and key .. "." .. inner or key
        table.move({ "--set", full .. "=" .. tostring(one) }, 1, 2, #argv + 1, argv)
      end
    end
  end
  table.move(extra, 1, #extra, #argv + 1, argv)
  local child = { name = name, role = role, ready = task.future(name .. " ready"), ended = task.future(name .. " ended"), said = "" }
  local err, code
  child.process, err, code = w:spawn {
    argv = argv, pipe = { stdin = true, stdout = true, stderr = true },
    on_exit = function (status, signal)
      child.ended:set(signal ~= 0 and "signal " .. signal or "status " .. status)
      child.ready:fail(("%s ended with status %d before it was ready%s"):format(name, status,
        child.said ~= "" and ": " .. child.said:gsub("%s+$", "") or ""), "FAILED")
      if not self.stopping then common.talk("%s ended: %s", name, signal ~= 0 and "signal " .. signal or "status " .. status) end
    end,
  }
  if not child.process then return nil, ("%s: %s"):format(name, err), code end
  self.children[#self.children + 1] = child
  child.stdin = child.process:stream(0)
  child.stdin:attach { on_end = function () end }
  local announced = ""
  child.process:stream(1):attach {
    on_read = function (_, bytes)
      announced = announced .. bytes
      local line = announced:match("^([^\n]*)\n")
      local facts = line and json.decode(line)
      if facts then child.ready:set(facts.address) end
    end,
    on_end = function (stream) stream:close() end,
  }
  child.process:stream(2):attach {
    on_read = function (_, bytes)
      child.said = (child.said .. bytes):sub(-2000)
      if child.address then bytes:gsub("[^\n]+", function (line) common.talk("%s: %s", name, line) end) end
    end,
    on_end = function (stream) stream:close() end,
  }
  child.address, err, code = child.ready:await(READY_MS)
  if not child.address then
    child.ready:drop("up gives up, and says why")
    return nil, err, code
  end
  common.talk("%-8s %-8s %s  pid %d", role, name, child.address, child.process:pid())
  return child
end

local function flags(name, addresses)
  local out = {}
  for _, address in ipairs(addresses) do
    out[#out + 1] = name
    out[#out + 1] = address
  end
  return out
end

local function start_all(self)
  local gates = {}
  for i, m in ipairs(self.topology.gates) do
    local child, err, code = start(self, "gate", m, nil, flags("--join", gates))
    if not child then return nil, err, code end
    gates[i] = child.address
  end
  for dc, d in sorted(self.topology.datacenters) do
    local managers = {}
    for i, m in ipairs(d.managers) do
      local extra = flags("--gates", gates)
      table.move(flags("--join", managers), 1, 2 * #managers, #extra + 1, extra)
      local child, err, code = start(self, "manager", m, dc, extra)
      if not child then return nil, err, code end
      managers[i] = child.address
    end
    for _, m in ipairs(d.workers) do
      local child, err, code = start(self, "worker", m, dc, flags("--join", managers))
      if not child then return nil, err, code end
    end
    self.front = self.front or managers[1]
  end
  self.front = gates[1] or self.front
  return true
end

--- The nodes, gates aside, that the front door does not list as alive; each with its own last words about that.
---@return string[] missing
local function missing_of(self, members)
  local alive, out = {}, {}
  for _, m in ipairs(members) do
    if m.role ~= "gate" and m.state == "alive" then alive[m.name] = true end
  end
  for _, child in ipairs(self.children) do
    if child.role ~= "gate" and not alive[child.name] then
      local words = child.said:match "([^\n]+)\n*$"
      out[#out + 1] = child.name .. (words and (" (%s)"):format(words) or "")
    end
  end
  return out
end

--- Ask the front door until it sees every node that was started, so that a job submitted next finds them. Waits.
local function wait_seen(self)
  local made, exit = common.client { connect = { self.front }, cluster = self.topology.cluster }
  if not made then return nil, "no client: " .. exit, "FAILED" end
  local missing
  local deadline_ms = task.now_ms() + READY_MS
  repeat
    local reply = made.state.client:call("node.members", {})
    missing = missing_of(self, reply and reply.members or {})
    if #missing == 0 then break end
    task.sleep(50)
  until self.told_to_stop or task.now_ms() >= deadline_ms
  made:stop("seen")
  if self.told_to_stop then return nil, TOLD, "INTERRUPTED" end
  if #missing > 0 then
    return nil, ("%s does not see %d of %d nodes: %s"):format(self.front, #missing, #self.children, table.concat(missing, ", ")), "TIMEOUT"
  end
  return true
end

--- End all children: their stdin first, a signal for those who stay, and none is left. Waits.
local function stop_all(self)
  self.stopping = true
  for i = #self.children, 1, -1 do self.children[i].stdin:close() end
  local deadline_ms = task.now_ms() + STOP_MS
  for i = #self.children, 1, -1 do
    local child = self.children[i]
    local how = child.ended:await(math.max(1, deadline_ms - task.now_ms()))
    if not how then
      common.talk("%s did not stop in %d ms: killed", child.name, STOP_MS)
      local ok, err, code = child.process:kill(9)
      if not ok and code ~= "ESRCH" then common.talk("%s: %s", child.name, err) end
      child.ended:await(1000) -- dropped: it was killed; one that is still there ends with the pipe
    end
    child.process:close()
  end
end

function up.run(args)
  local topology, err = verify.topology(args.topology)
  if not topology then return common.usage("%s", err) end
  local self = { topology = topology, data = args.data, children = {} }
  local made, code
  made, err, code = world.current():make_directory(args.data)
  if not made then return common.refused("--data " .. args.data, err, code) end
  local lock
  lock, err, code = world.current():lock(args.data .. "/lock")
  if not lock then return common.refused(("--data %s is another cluster's"):format(args.data), err, code) end
  local stopped = task.future("stop")
  local function stop(how)
    stopped:set(how)
    self.told_to_stop = true
    for _, child in ipairs(self.children) do child.ready:fail(TOLD, "INTERRUPTED") end
  end
  common.on_stop_signals(function (signal) stop(signal == "INT" and "interrupted" or "terminated") end)
  common.on_hangup(function ()
    for _, child in ipairs(self.children) do
      local sent, problem, name = child.process:kill "HUP"
      if not sent and name ~= "ESRCH" then common.talk("shoal: up: SIGHUP to %s: %s", child.name, problem) end
    end
  end, function () stop "its terminal has gone" end)
  local watched, why, word = core.watch { node = "up" }
  if not watched then common.talk("shoal: %s (%s)", why, word) end
  local ok
  ok, err, code = start_all(self)
  if ok then ok, err, code = wait_seen(self) end
  if not ok then
    stop_all(self)
    common.talk("shoal: up: %s", err)
    return code == "INTERRUPTED" and common.EXIT.interrupted or common.EXIT.failed
  end
  if common.data(output.line { connect = self.front, nodes = #self.children, data = args.data }) then
    common.talk("ready: shoal submit JOB --connect %s; logs in %s; Ctrl-C stops", self.front, args.data)
    stopped:await() -- dropped: it is only ever set
  end
  stop_all(self)
  return 0
end

return up
