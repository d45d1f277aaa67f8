--- cutcluster: one cluster of real nodes on machines that can be cut from each other (netns.lua), and what they write in their logs.
---
---     local k = cutcluster.open { gates = 1, dcs = { a = { managers = 2, workers = 2 }, b = { managers = 1, workers = 1 } } }
---     k.net:cut(k.at["w-a1"], k.at["m-a1"])
---     local i = k:wait_incident("m-a1", "detector.global_death", k:mark "m-a1")
---     k:stop()                -- every node stops, and its numbers add up
---     k:close()               -- nothing is left, whatever happened
---
--- Nodes are called as in `shoal up`: g1, m-a1, w-a1. k.at has their machines, k.addresses their addresses. `edit` changes a node's role
--- script before it starts: edit = { ["m-a1"] = function (text) return text end }.
local cjson = require "cjson"
local cluster = require "spec.support.cluster"
local netns = require "spec.support.netns"
local sorted = require "shoal.sorted"

local cutcluster = {}
local K = {}
K.__index = K

local PORT = 7000

-- Logs -----------------------------------------------------------------------------------------------------------------

--- Read what a node has written since the last look. Its lines that are events stay in order.
local function look(self, name)
  local l = self.logs[name]
  l.file = l.file or io.open(l.path)
  if not l.file then return l end
  l.file:seek "cur" -- At its end a file that grew is readable again only after a seek.
  for piece in function () return l.file:read "L" end do
    l.rest = l.rest .. piece
    if piece:sub(-1) == "\n" then
      l.lines[#l.lines + 1] = cjson.decode(l.rest)
      l.rest = ""
    end
  end
  return l
end

--- A place in a node's log: what was written before it does not count.
function K:mark(name) return #look(self, name).lines end

--- The incidents of a site in a node's log, from a place on.
function K:incidents(name, site, from)
  local out, lines = {}, look(self, name).lines
  for i = (from or 0) + 1, #lines do
    if lines[i].event == "incident" and lines[i].site == site then out[#out + 1] = lines[i] end
  end
  return out
end

--- The lines of an event in a node's log, from a place on.
function K:events(name, event, from)
  local out, lines = {}, look(self, name).lines
  for i = (from or 0) + 1, #lines do
    if lines[i].event == event then out[#out + 1] = lines[i] end
  end
  return out
end

--- Wait until `count` incidents of a site are in a node's log; the last of them.
function K:wait_incident(name, site, from, count, limit_ms)
  local found
  cluster.wait(function () return ("%d of %s at %s; its log ends with:\n%s"):format(count or 1, site, name, self:tail(name)) end, function ()
    found = self:incidents(name, site, from)
    return #found >= (count or 1)
  end, limit_ms)
  return found[count or 1], found
end

function K:wait_event(name, event, from, fits, limit_ms)
  local found
  cluster.wait(function () return ("%s at %s; its log ends with:\n%s"):format(event, name, self:tail(name)) end, function ()
    for _, line in ipairs(self:events(name, event, from)) do
      if not fits or fits(line) then
        found = line
        return true
      end
    end
  end, limit_ms)
  return found
end

function K:tail(name) return self.c:spawn({ "tail", "-n", "15", self.logs[name].path }):wait().out end

-- Nodes ----------------------------------------------------------------------------------------------------------------

--- Start a node, or start it again on its data.
function K:start(name)
  local n = self.made[name]
  local words = { at = self.at[name], table.unpack(n.words) }
  self.nodes[name] = self.c:node(n.script or n.role, words)
  return self.nodes[name]
end

local function add(self, name, role, machine, more, dc)
  local c, options = self.c, self.options
  local words = { "--name", name, "--bind", machine .. ":" .. PORT, "--data", c.dir .. "/" .. name, "--log", c.dir .. "/" .. name .. ".log",
    "--policies", c.dir .. "/policies" }
  for _, of in ipairs { { log_level = "debug", retention_ms = 2000, fence_ms = 400 }, options.set or {}, options["set_" .. role] or {},
    (options.set_dc or {})[dc] or {} } do
    for key, value in sorted(of) do table.move({ "--set", key .. "=" .. tostring(value) }, 1, 2, #words + 1, words) end
  end
  table.move(more, 1, #more, #words + 1, words)
  local edit = options.edit and options.edit[name]
  local script = edit and c:file(("roles/%s.lua"):format(name), assert(edit(cluster.read("scripts/roles/" .. role .. ".lua"))))
  self.made[name] = { role = role, words = words, script = script }
  self.addresses[name] = machine .. ":" .. PORT
  self.logs[name] = { path = c.dir .. "/" .. name .. ".log", lines = {}, rest = "" }
  self.order[#self.order + 1] = name
end

--- Replace text in a role script, as an operator would. It raises when the text is not there.
function cutcluster.replace(text, plain, with)
  local from, to = text:find(plain, 1, true)
  if not from then error("the role script has no such text: " .. plain, 2) end
  return text:sub(1, from - 1) .. with .. text:sub(to + 1)
end

--- Every node's gates and seeds are those started before it. Returns when the front door lists all nodes as alive.
---@param options { gates?: integer, dcs: table<string, { managers: integer, workers: integer }>, set?: table, set_gate?: table,
---  set_manager?: table, set_worker?: table, set_dc?: table<string, table>, edit?: table<string, fun(text: string): string> }
function cutcluster.open(options)
  local self = setmetatable({
    options = options, c = cluster.new(), at = {}, addresses = {}, nodes = {}, made = {}, logs = {}, order = {},
  }, K)
  local machines, gates = {}, {}
  local function machine(name, last)
    self.at[name] = "127.0.1." .. last
    machines[#machines + 1] = self.at[name]
    return self.at[name]
  end
  os.execute(("mkdir -p '%s/roles' && cp -r scripts/policies '%s/'"):format(self.c.dir, self.c.dir))
  -- One cluster serves many specs, and each counts the incidents in the logs: none is held back.
  self.shipped = cutcluster.replace(cluster.read "scripts/policies/errors.lua", "burst = 5,", "burst = 1000000,")
  self.c:file("policies/errors.lua", self.shipped)
  for i = 1, options.gates or 0 do
    local more = {}
    for _, gate in ipairs(gates) do table.move({ "--join", gate }, 1, 2, #more + 1, more) end
    add(self, "g" .. i, "gate", machine("g" .. i, i), more)
    gates[i] = self.addresses["g" .. i]
  end
  local at = 0
  for dc, of in sorted(options.dcs) do
    at = at + 20
    local managers = {}
    local function joining(more)
      for _, manager in ipairs(managers) do table.move({ "--join", manager }, 1, 2, #more + 1, more) end
      return more
    end
    for i = 1, of.managers do
      local name, more = ("m-%s%d"):format(dc, i), joining { "--dc", dc }
      if i == 1 then -- The others are there for the workers: a datacenter has one leader.
        for _, gate in ipairs(gates) do table.move({ "--gates", gate }, 1, 2, #more + 1, more) end
      end
      add(self, name, "manager", machine(name, at + i), more, dc)
      managers[i] = self.addresses[name]
    end
    for i = 1, of.workers do
      local name = ("w-%s%d"):format(dc, i)
      add(self, name, "worker", machine(name, at + 10 + i), joining { "--dc", dc, "--cores", "4" }, dc)
    end
  end
  local whole
  local free <close> = setmetatable({}, { __close = function () if not whole then self.c:close() end end })
  self.net = netns.open(self.c, machines)
  for _, name in ipairs(self.order) do self:start(name) end
  self.front = gates[1] or self.addresses[self.order[1]]
  self:wait_alive(self.front)
  whole = true
  return self
end

--- How a node lists another: "alive", "suspect", "dead", "silent"; nil when it does not.
function K:state_of(name, at)
  return self.c:shoal({ "members", "--connect", self.addresses[at] or at or self.front }).out:match(
    ("%%f[%%w]%s%%s+%%S+%%s+%%S*%%s+(%%l+)"):format(name:gsub("%-", "%%-")))
end

--- Wait until a node lists these as alive; without names, all that it can know.
function K:wait_alive(at, ...)
  local wanted = { ... }
  if #wanted == 0 then
    for _, name in ipairs(self.order) do
      if not name:find "^g" and not name:find "^m%-.[2-9]" then wanted[#wanted + 1] = name end
    end
  end
  local out
  cluster.wait(function () return table.concat(wanted, " ") .. " alive; listed are:\n" .. tostring(out) end, function ()
    if out then cluster.pause(150) end
    out = self.c:shoal({ "members", "--connect", self.addresses[at] or at }).out
    for _, name in ipairs(wanted) do
      if not (" " .. out):find(("%%f[%%w]%s%%s+%%S+%%s+%%S*%%s+alive"):format(name:gsub("%-", "%%-"))) then return false end
    end
    return true
  end)
end

--- Wait until an expression on a node gives this text. Each look is a process, so there are few.
function K:wait_eval(name, expression, wanted, limit_ms)
  local got
  cluster.wait(function () return ("%s at %s to be %s; it is %s"):format(expression, name, wanted, tostring(got)) end, function ()
    if got then cluster.pause(150) end
    got = self:eval(name, expression)
    return got == wanted
  end, limit_ms)
end

function K:eval(name, expression) return self.c:eval(self.addresses[name], expression) end

--- Run lines of Lua on a node through the REPL.
function K:run(name, code)
  local r = self.c:shoal { "repl", "--connect", self.addresses[name], "--eval", code }
  if r.code ~= 0 then error(r.err, 2) end
  return (r.out:gsub("\n$", ""))
end

--- Submit a job to a node, and follow it. Returns the process with .job.
function K:submit(at, text, ...)
  self.jobs = (self.jobs or 0) + 1
  local path = self.c:file(("job%d.lua"):format(self.jobs), text)
  local p = self.c:start { "submit", path, "--connect", self.addresses[at], "--output", "json", open_stdin = true, ... }
  p.job = p:wait_for "%f[%w]job (%S+)\n"
  return p
end

--- Edit the errors policy that all nodes share; k.shipped is the shipped one, which reports every incident here. A node looks at it at most
--- every 200 ms.
function K:policy(text)
  cluster.pause(250)
  self.c:file("policies/errors.lua", text)
  cluster.pause(10)
end

--- Stop nodes in turn (without names: all); the balance of each must hold.
---@return table<string, integer> raised  by node
function K:stop(...)
  local names, raised = { ... }, {}
  if #names == 0 then names = self.order end
  for i = #names, 1, -1 do
    local p = self.nodes[names[i]]
    if p and not p.code then
      p:close_stdin()
      p:wait()
      local all, reported, suppressed, handled =
        p.err:match "raised = reported %+ suppressed %+ handled: (%d+) = (%d+) %+ (%d+) %+ (%d+)"
      if p.code ~= 0 or not all or tonumber(all) ~= reported + suppressed + handled then
        error(("%s ended with %s:\n%s"):format(names[i], p.code, p.err), 2)
      end
      raised[names[i]] = math.tointeger(tonumber(all))
    end
  end
  return raised
end

function K:close()
  for _, l in sorted(self.logs) do
    if l.file then l.file:close() end
  end
  self.net:close()
  self.c:close()
end

return cutcluster
