--- node: one process of a cluster, put together from a role script.
---
--- A role script returns a table that describes the node: which messages it answers and sends, which hooks it wires, which
--- policies it uses, and `start` and `stop`. node.start makes what the role asks for, in this order: log, the lock of the data folder,
--- error policy, transport, the role's own things, the check that every message has a receiver and every hook its site, then listening
--- and membership. A step that fails undoes those before it and says which it was. Nothing answers before all of it stands.
local admin = require "shoal.node.admin"
local core = require "shoal.core.node"
local data = require "shoal.node.data"
local document = require "shoal.base.document"
local errors = require "shoal.base.errors"
local log = require "shoal.base.log"
local membership = require "shoal.node.membership"
local policies = require "shoal.node.policies"
local rpc = require "shoal.wire.rpc"
local sorted = require "shoal.base.sorted"
local swim = require "shoal.member.swim"
local task = require "shoal.base.task"
local watch = require "shoal.node.watch"
local wiring = require "shoal.node.wiring"

local node = {}
node.__index = node

local JOURNAL_KEPT = 1024 -- Member events that can still be read.

node.config = require "shoal.node.config"

local SCRIPT = { noun = "a role script", forms = "Lua" }

--- Load a script as data the operator edits: text only, with its own name in messages.
---@return any? value, string? err, string? code, string? bytes
function node.load_script(world, path)
  local bytes, err, code = world:read_file(path)
  if not bytes then return nil, document.unreadable(path, err, code), "CONFIG" end
  local opened, unfit = document.open(bytes, path, SCRIPT)
  if not opened then return nil, unfit, "CONFIG" end
  local chunk, problem = load(opened, "@" .. path, "t")
  if not chunk then
    local other = document.other(opened, SCRIPT)
    return nil, other and ("%s: %s"):format(path, other) or problem, "CONFIG"
  end
  local ok, value = errors.handle("script.load", { path = path }, chunk)
  if not ok then return nil, tostring(value), "CONFIG" end
  if type(value) ~= "table" then
    return nil, ("%s: expected the script to return a table, found %s%s"):format(path, type(value),
      value == nil and "; a role's last line is `return role`" or ""), "CONFIG"
  end
  return value, nil, nil, opened
end

--- A policy script by name, from the node's folder of policies.
function node:policy(name)
  return policies.load(self.world, ("%s/%s.lua"):format(self.policies, name))
end

--- Several policies at once, by name, or the first that is wrong.
---@param names string[]
---@return table<string, table>? policies, string? err, string? code
function node:policies_of(names)
  local out = {}
  for _, name in ipairs(names) do
    local policy, err, code = self:policy(name)
    if not policy then return nil, err, code end
    out[name] = policy
  end
  return out
end

-- Steps of the start; each returns true, or nil, err, code -------------------------------------------------------------

local function open_log(self)
  local target = { path = self.config.log ~= "" and self.config.log or nil, node = self.name, level = self.config.log_level }
  if not target.path and core.log_sink then target = core.log_sink end
  local opened, err, code = log.open(self.world, target)
  if not opened then return nil, err, code end
  log.node(self.name)
  errors.start(self.world, self.name)
  log.info("node.start", { role = self.role, dc = self.dc, seed = ("%016x"):format(self.world:seed()), version = core.version() })
  return true
end

local function open_policies(self)
  self.policies = self.config.policies ~= "" and self.config.policies or core.home() .. "/scripts/policies"
  return errors.load_policy(self.policies .. "/errors.lua")
end

local function open_transport(self)
  local made, err, code = rpc.open(self)
  if not made then return nil, err, code end
  self.rpc = made
  if self.role == "client" then -- It listens nowhere, so nobody could ask it anything.
    self.address = ""
    return true
  end
  admin.open(self)
  made:sends(admin.sends)
  self.address, err, code = made:listen(self.config.bind)
  if not self.address then return nil, err, code end
  return true
end

--- All members, with role, dc and cores from their payloads.
function node:members() return membership.list(self) end

--- Hooks run to their end with the site's arguments; handlers are tasks and get the role's state, the body and the peer.
local function wire(self, script)
  self.hooks = errors.hooks()
  if script.hooks then
    local hooks = script.hooks(self.state)
    local fine, wrong, word = wiring.check_hooks(self.path, self.role, hooks)
    if not fine then return nil, wrong, word end
    for site, fn in sorted(hooks) do self.hooks:wire(site, fn) end
  end
  for name, fn in sorted(script.answers or {}) do
    local taken, problem, word = self.rpc:handle(name, function (body, peer) return fn(self.state, body, peer) end)
    if not taken then return nil, problem, word end
  end
  self.rpc:sends(script.sends or {})
  local ok, err, code = self.hooks:check(self.role)
  if not ok then return nil, err, code end
  return self.rpc:check()
end

--- Start a node. Waits; call it in a task.
---@param options { world: table, script: string, config: table, tell?: fun(line: string) }  `script` is the role script's path; `tell` gets
---  a line for people when the node finds nobody to join, or must not join; `only_start`: for shoal.sim.trial, whatever is wrong with the
---  wiring, to the end of the role's start, and then TRIED
---@return table? node, string? err, string? code
function node.start(options)
  local script, err, code, bytes = node.load_script(options.world, options.script)
  if not script then return nil, err, code end
  local fine, wrong, why = wiring.check(options.script, script, bytes)
  local config
  config, err = node.config(options.config)
  if not config then return nil, "config: " .. err, "CONFIG" end
  local self = setmetatable({
    world = options.world, tell = options.tell, script = script, role = (fine or options.only_start) and script.name or "node", config = config,
    dc = config.dc, path = options.script,
    scope = task.scope("node"), started_ns = options.world:now_ns(),
    -- Two starts of one node differ in it; it is compared for equality only.
    generation = options.world:random() >> 1,
    untaken = {},  -- Member events that a hook did not take, by name.
    payloads = {}, -- Payloads that could not be read and were reported: their version, by name.
  }, node)
  self.journal = assert(swim.journal(self.world, { kept = JOURNAL_KEPT, epoch = self.generation % (1 << 26) + 1 }))
  self.name = data.name(config, self.role, self.world)
  self.config.data = data.folder(config, self.name)
  local steps = {
    { "log", open_log }, { "script", function () return fine or options.only_start, wrong, why end }, { "data", data.lock },
    { "policies", open_policies }, { "transport", open_transport },
    { "role", function ()
      local ok, state, problem, word = errors.handle("role.start", { role = self.role, script = self.path }, script.start, self)
      if not ok then return nil, tostring(state), "FAILED" end
      if not state then return nil, problem or "start returned nothing: expected the role's state", word or "CONFIG" end
      self.state = state
      return true
    end },
    { "wiring", function ()
      local ok, wired, problem, word = errors.handle("role.start", { role = self.role }, wire, self, script)
      if not ok then return nil, tostring(wired), "CONFIG" end
      return wired, problem, word
    end }, { "membership", membership.open }, { "watch", watch }, { "data", data.watch },
    { "ready", function ()
      if not script.ready then return true end
      local ok, done, problem, word = errors.handle("role.start", { role = self.role, script = self.path }, script.ready, self.state)
      if not ok then return nil, tostring(done), "FAILED" end
      if done == nil and problem then return nil, problem, word end
      return true
    end },
  }
  for _, step in ipairs(steps) do
    local ok
    if options.only_start and step[1] == "wiring" then ok, err, code = nil, "tried", "TRIED" else ok, err, code = step[2](self) end
    if not ok then
      self:stop(("start failed at %s"):format(step[1]))
      return nil, step[1] == "script" and err or ("%s: %s"):format(step[1], err), code -- A script's problems have their file and line.
    end
  end
  log.info("node.ready", { address = self.address, role = self.role, dc = self.dc })
  return self
end

--- Stop in the reverse order: the role stops, membership leaves, connections close, tasks end. Idempotent; waits.
function node:stop(reason)
  if self.stopping then return end
  self.stopping = true
  log.info("node.stop", { reason = reason })
  if self.state and self.script.stop then
    errors.call("role.stop", { role = self.role, script = self.path }, self.script.stop, self.state)
  end
  if self.swim then
    local left = task.future("swim leave")
    self.swim:leave(function () left:set(true) end)
    local ok, err, code = left:await(2 * membership.LEAVE_MS)
    if not ok then errors.report("node.leave", { node = self.name }, err, code) end
    self.swim:close()
  end
  if self.partition then self.partition:close() end
  self.journal:close()
  if self.rpc then self.rpc:close() end
  self.scope:close()
  data.unlock(self)
  local balanced, problem = errors.finish()
  self.summary = errors.summary()
  log.info("node.end", { errors = self.summary, balanced = balanced or false, problem = problem })
  log.close()
end

return node
