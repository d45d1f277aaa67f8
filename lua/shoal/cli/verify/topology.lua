--- verify.topology: does a topology start? Names, addresses, scripts, settings and policies of every node, as `shoal up` gives them to
--- `shoal run`; and does a job fit it?
local located = require "shoal.cli.located"
local node = require "shoal.node.node"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"

local topology = {}

local NAME = "^%w[%w_.-]*$"
local NAME_MAX = 64
local HOSTS_ALL = { ["0.0.0.0"] = true, ["[::]"] = true }
local GIVEN = { "bind", "cluster", "connect", "data", "dc", "gates", "join", "log", "name" } -- What `up` itself gives each node.

local Checker = {}
Checker.__index = Checker

function Checker:problem(path, format, ...)
  self.problems[#self.problems + 1] = located.line(self.file, self.lines, path, format:format(...))
end

function Checker:name(path, value, what)
  if #value <= NAME_MAX and value:find(NAME) then return end
  self:problem(path, "found %q; %s has letters, digits, - _ . and at most %d of them", value, what, NAME_MAX)
end

--- Every node: where it stands in the file, its role and datacenter.
local function nodes_of(value)
  local out = {}
  local function add(list, path, role, dc)
    for i, m in ipairs(list) do out[#out + 1] = { path = ("%s[%d]"):format(path, i), role = role, dc = dc, of = m, name = m.name } end
  end
  add(value.gates, "gates", "gate")
  for dc, d in sorted(value.datacenters) do
    add(d.managers, ("datacenters.%s.managers"):format(dc), "manager", dc)
    add(d.workers, ("datacenters.%s.workers"):format(dc), "worker", dc)
  end
  return out
end

--- A name is a folder's and a part of keys. That no two nodes have one, up.complete has checked.
function Checker:names(nodes)
  for _, n in ipairs(nodes) do self:name(n.path .. ".name", n.name, "a node's name") end
end

--- One address may hold another: 0.0.0.0 is every one of IPv4.
function Checker:addresses(nodes)
  local first = {}
  for _, n in ipairs(nodes) do
    local host, port = n.of.bind:match "^(.+):(%d+)$"
    local taken = port and port ~= "0" and first[port] or {}
    for other, path in sorted(taken) do
      if other ~= host and (HOSTS_ALL[other] or HOSTS_ALL[host]) then
        self:problem(n.path .. ".bind", "port %s is taken by %s, at %s:%s", port, path, other, port)
        break
      end
    end
    if port then
      taken[host] = taken[host] or n.path
      first[port] = taken
    end
  end
end

--- The scripts that nodes name: each is there, is a role, and the role of its place.
function Checker:scripts(nodes, verify)
  local known = {}
  for _, n in ipairs(nodes) do
    local path = n.of.script
    if path ~= "" then
      local seen = known[path]
      if not seen then
        local what, err, role = verify.role(path)
        seen = { role = role }
        known[path] = seen
        for problem in (what and "" or err):gmatch "[^\n]+" do self:problem(n.path .. ".script", "%s", problem) end
      end
      if seen.role and seen.role ~= n.role then
        self:problem(n.path .. ".script", "%s is a role %q; expected a %s", path, seen.role, n.role)
      end
    end
  end
end

--- The settings that a node gets: those of all, then its own. A table's values become settings of that group.
local function settings_of(value, n)
  local config, from = { name = n.name, cluster = value.cluster, bind = n.of.bind, dc = n.dc, cores = n.of.cores }, {}
  for _, source in ipairs { { "set", value.set }, { n.path .. ".set", n.of.set } } do
    for key, inner in sorted(source[2] or {}) do
      if type(inner) == "table" then
        local group = type(config[key]) == "table" and config[key] or {}
        for name, one in sorted(inner) do group[name] = one end
        config[key] = group
      else
        config[key] = inner
      end
      from[key] = source[1] .. "." .. key
    end
  end
  return config, from
end

--- Keys of `set` that `up` gives by itself would be without effect.
function Checker:given(path, set, workers)
  for key in sorted(set or {}) do
    for _, name in ipairs(GIVEN) do
      if key == name then self:problem(path .. "." .. key, "is no setting here: shoal up gives each node its own; write it beside `set`") end
    end
    if key == "cores" and workers then self:problem(path .. ".cores", "is without effect on a worker; write cores beside `set`") end
  end
end

function Checker:settings(value, nodes, verify)
  local told = {}
  self:given("set", value.set, false)
  for _, n in ipairs(nodes) do
    self:given(n.path .. ".set", n.of.set, n.role == "worker")
    local config, from = settings_of(value, n)
    for _, problem in ipairs((node.config:problems(config))) do
      local key = problem.path:match "^[^.%[]+" or ""
      local path = from[key] and from[key] .. problem.path:sub(#key + 1) or (problem.path == "" and n.path .. ".set")
      local line = path and path .. problem.message
      if path and not told[line] then -- The rest is of what `up` gives, and was checked above.
        told[line] = true
        self:problem(path, "%s", problem.message)
      end
    end
    local folder = config.policies
    if type(folder) == "string" and folder ~= "" and not told[folder .. n.role] then
      told[folder .. n.role] = true
      local ok, err = verify.policies(folder, n.role)
      for problem in (ok and "" or err):gmatch "[^\n]+" do
        if not told[problem] then
          told[problem] = true
          self:problem(from.policies or "set.policies", "%s", problem)
        end
      end
    end
  end
end

--- A topology that was read, or every problem, one a line.
---@param value table
---@param file string
---@param lines table<string, integer>  where its keys stand
---@param verify table
---@return table? topology, string? err
function topology.check(value, file, lines, verify)
  local up = require "shoal.cli.up"
  local problems, checked = up.topology:problems(value)
  local self = setmetatable({ file = file, lines = lines, problems = {} }, Checker)
  for _, problem in ipairs(problems) do self:problem(problem.path, "%s", problem.message) end
  if checked then
    local shared = up.complete(checked)
    for _, problem in ipairs(shared and located.split(shared) or {}) do self:problem(problem.path, "%s", problem.message) end
    if #checked.cluster > NAME_MAX or not checked.cluster:find(NAME) then self:name("cluster", checked.cluster, "a cluster's name") end
    for dc in sorted(checked.datacenters) do self:name("datacenters." .. dc, dc, "a datacenter's name") end
    local nodes = nodes_of(checked)
    if #nodes == 0 then self:problem("", "names no node; expected gates, or datacenters with managers") end
    self:names(nodes)
    self:addresses(nodes)
    self:scripts(nodes, verify)
    self:settings(checked, nodes, verify)
  end
  if #self.problems > 0 then return nil, table.concat(self.problems, "\n") end
  return checked
end

-- Jobs -----------------------------------------------------------------------------------------------------------------

--- The cores of the largest worker of each datacenter.
local function largest(value)
  local out = {}
  for dc, d in sorted(value.datacenters) do
    out[dc] = 0
    for _, w in ipairs(d.workers) do out[dc] = math.max(out[dc], w.cores) end
  end
  return out
end

--- Does a job fit a topology: does it know its datacenters, and has a worker room for each part? Nil when it does.
---@param spec table
---@param value table  a topology that was checked
---@return string? problems
function topology.fits(spec, value, file, lines)
  local problems, cores = {}, largest(value)
  local function problem(path, format, ...) problems[#problems + 1] = located.line(file, lines, path, format:format(...)) end
  local named = {}
  for _, dc in ipairs(spec.datacenters or {}) do
    if cores[dc] then
      named[#named + 1] = dc
    else
      local meant = schema.did_you_mean(dc, sorted.keys(cores))
      problem("datacenters", "the topology has no datacenter %q%s; it has %s", dc, meant and ("; did you mean %q?"):format(meant) or "",
        table.concat(sorted.keys(cores), ", "))
    end
  end
  for name, w in sorted(spec.workflows) do
    local at = ("workflows.%s.cores"):format(name)
    local best, best_dc = -1, nil
    for dc, most in sorted(cores) do
      if most > best then best, best_dc = most, dc end
    end
    for _, dc in ipairs(named) do
      if w.cores > cores[dc] then problem(at, "a part asks for %d, and the largest worker of datacenter %s has %d", w.cores, dc, cores[dc]) end
    end
    if not spec.datacenters and w.cores > best then
      problem(at, "a part asks for %d, and the largest worker of the topology%s has %d", w.cores,
        best_dc and (", in datacenter %s,"):format(best_dc) or "", math.max(best, 0))
    end
  end
  return #problems > 0 and table.concat(problems, "\n") or nil
end

return topology
