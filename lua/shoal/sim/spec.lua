--- spec: a small simulated cluster for an operator's own specs of edited roles and policies. examples/spec/ has one that runs.
---
---     local spec = require "shoal.spec"
---     local c <close> = spec.cluster {
---       roles = { worker = "my/worker.lua" },           -- files of this machine; what is not named is as shipped
---       policies = { placement = "my/placement.lua" },
---       workers = { { name = "w1", cores = 4, labels = { gpu = "a100" } }, { name = "w2" } },
---     }
---     c:command("echo", function (argv) return "hi\n", 0, 20 end)   -- output, status, milliseconds
---     local result = c:run_job { name = "j", workflows = { k = { command = "echo hi", parts = 4 } } }
---     assert.equal("completed", result.state, result.reason)
---     assert.same({ w1 = 4 }, c:where(result))
---     assert.same({}, c:incidents())
---
--- Time is virtual, and a run is its seed: a spec of minutes takes milliseconds, and fails the same way each time. `c.sim` is the
--- simulation itself (shoal.sim), for crashes, cuts and slow disks.
local job = require "shoal.job.spec"
local json = require "shoal.base.json"
local sim = require "shoal.sim.sim"
local sorted = require "shoal.base.sorted"

local spec = {}

---@class SpecCluster
---@field sim Sim
local Cluster = {}
Cluster.__index = Cluster

local WARM_MS = 3000
local STEP_MS = 20
local OPTIONS = { gates = true, workers = true, roles = true, policies = true, seed = true, home = true, set = true, loss = true }
local POLICIES = "/shoal/scripts/policies/"

local function read(path)
  local file, err = io.open(path, "rb")
  if not file then error("spec: cannot read " .. tostring(err), 3) end
  local text = file:read "a"
  file:close()
  return text
end

--- Add one node.
local function add(self, role, name, dc, options)
  local script = self.roles[role]
  local files = {}
  for policy, text in sorted(self.policies) do files[POLICIES .. policy .. ".lua"] = text end
  if script then files["/roles/" .. role .. ".lua"] = script end
  local config = options.config or {}
  for key, value in sorted(self.options.set or {}) do
    if config[key] == nil then config[key] = value end
  end
  for label, value in sorted(options.labels or {}) do config["labels." .. label] = value end
  config.cores = options.cores
  local node = self.sim:node {
    name = name, role = role, dc = dc, script = script and "/roles/" .. role .. ".lua" or nil, files = files, config = config,
  }
  self.nodes[#self.nodes + 1] = node
  return node
end

--- A cluster that runs, of one datacenter "a": `gates` (default 0), one manager, and the workers, with the shipped scripts but for
--- those that are named. Raises when a node does not start: its log says why.
---@param options? { gates?: integer, workers?: { name?: string, cores?: integer, labels?: table }[]|integer, roles?: table<string, string>,
---  policies?: table<string, string>, seed?: integer, set?: table, loss?: number, home?: string }
---@return SpecCluster
function spec.cluster(options)
  options = options or {}
  for key in sorted(options) do
    if not OPTIONS[key] then error("spec.cluster: unknown option " .. key, 2) end
  end
  local self = setmetatable({
    sim = sim.new { seed = options.seed or 1, loss = options.loss, home = options.home }, options = options, nodes = {}, roles = {},
    policies = {}, jobs = 0,
  }, Cluster)
  for role, path in sorted(options.roles or {}) do self.roles[role] = read(path) end
  for policy, path in sorted(options.policies or {}) do self.policies[policy] = read(path) end
  local gates = {}
  for i = 1, options.gates or 0 do gates[i] = add(self, "gate", "g" .. i, nil, { config = { join = { table.unpack(gates) } } }) end
  self.manager = add(self, "manager", "m1", "a", { config = { gates = gates[1] and gates or nil } })
  local workers = options.workers or 2
  for i = 1, type(workers) == "table" and #workers or workers do
    local w = type(workers) == "table" and workers[i] or {}
    add(self, "worker", w.name or "w" .. i, "a", { config = { join = { self.manager } }, cores = w.cores, labels = w.labels })
  end
  self.front = gates[1] or self.manager
  self.client = add(self, "client", "client", nil, { config = { connect = { self.front } } })
  self.sim:run(WARM_MS)
  for _, node in ipairs(self.nodes) do
    if self.sim:status(node) ~= "up" then
      local log = self.sim:log()
      self.sim:close()
      error(("spec.cluster: %s did not start:\n%s"):format(node.name, log), 2)
    end
  end
  return self
end

--- Run code on a node; it has `node`, `state` and `...`. Values cross as copies.
function Cluster:on(node, code, ...)
  local results = table.pack(self.sim:eval(node, "local node = require 'shoal.core.node'.running; local state = node.state; " .. code, ...))
  if results[1] == nil and results[3] == "FAILED" then error(results[2], 2) end
  return table.unpack(results, 1, results.n)
end

--- Define a command that jobs can run: see Sim:command.
function Cluster:command(name, fn) self.sim:command(name, fn) end

--- Let time pass.
function Cluster:run(ms) self.sim:run(ms) end

--- Submit a job: the path of a job file, or the table that such a file returns.
---@return string? id, string? err, string? code
function Cluster:submit(given)
  local is_file = type(given) == "string"
  local folder = is_file and given:match "^(.*/)[^/]*$" or ""
  local text, name = is_file and read(given) or assert(json.encode(given)), is_file and given or "the job"
  local parsed, err = job.parse(text, name, function (path)
    local file, why = io.open(path:sub(1, 1) == "/" and path or folder .. path, "rb")
    if not file then return nil, why end
    local bytes = file:read "a"
    file:close()
    return bytes
  end)
  if not parsed then error("spec: " .. tostring(err), 2) end
  self.jobs = self.jobs + 1
  return self:on(self.client, "return state.client:submit(...)", job.encode(parsed), "spec " .. self.jobs)
end

--- Submit a job and follow it to its end. Raises when it is refused, or does not end in `limit_ms`.
---@param limit_ms? number  of virtual time; default 10 minutes
---@return table result  { state, reason, workflows, attempts, stats, totals, ... }
function Cluster:run_job(given, limit_ms)
  local id, err, code = self:submit(given)
  if not id then error(("spec: the job was refused: %s (%s)"):format(err, code), 2) end
  local until_ms = self.sim:now_ms() + (limit_ms or 600000)
  repeat
    self.sim:run(STEP_MS)
    local found = self:status(id)
    if found and found.result then return found.result end
  until self.sim:now_ms() >= until_ms
  error(("spec: job %s has not ended"):format(id), 2)
end

--- A job as `shoal status` shows it: { state, reason, workflows = { { workflow, state, waiting } }, result }.
function Cluster:status(id) return self:on(self.front, "return state.lead:get(...)", id) end

--- How many attempts of a result ended on each executor.
---@return table<string, integer>
function Cluster:where(result)
  local out = {}
  for _, attempt in ipairs(result.attempts) do out[attempt.executor] = (out[attempt.executor] or 0) + 1 end
  return out
end

--- The incidents of all nodes that are up: { node, site, message, code, level }.
function Cluster:incidents()
  local out = {}
  for _, node in ipairs(self.nodes) do
    if self.sim:status(node) == "up" then
      for _, i in ipairs(self:on(node, [[ local out = {}
        for n, i in ipairs(require("shoal.base.errors").incidents()) do
          out[n] = { site = i.site, message = i.message, code = i.code, level = i.level }
        end
        return out ]])) do
        i.node = node.name
        out[#out + 1] = i
      end
    end
  end
  return out
end

--- End the simulation.
function Cluster:close() self.sim:close() end
Cluster.__close = Cluster.close

return spec
