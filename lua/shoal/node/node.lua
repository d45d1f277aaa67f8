--- node: one process of a cluster, put together from a role script.
---
--- A role script returns a table that says what the node does: which messages it answers and sends, which hooks it wires, which
--- policies it uses, and `start` and `stop`. node.start makes what the role asks for, in this order: log, error policy, transport, the
--- role's own things, the check that every message has a receiver and every hook its site, then listening and membership. A step
--- that fails undoes those before it and says which it was. Nothing answers before all of it stands.
local admin = require "shoal.node.admin"
local errors = require "shoal.base.errors"
local log = require "shoal.base.log"
local policies = require "shoal.node.policies"
local rpc = require "shoal.wire.rpc"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"
local swim = require "shoal.member.swim"
local task = require "shoal.base.task"
local msgpack = require "shoal.core.msgpack"
local core = require "shoal.core.node"

local node = {}
node.__index = node

local LEAVE_MS = 1000 -- Then we go, heard or not.
local WATCH_MS = 1000 -- How soon what was refused without a word is told.
local SWEEP_CYCLES = 30 -- Twice that long a peer that is gone is kept.
local JOURNAL_KEPT = 1024 -- Member events that can still be read.
-- In which so many members must be lost that it is called a partition: ten probe intervals of the profile.
local PARTITION_MS = { ["local"] = 2000, lan = 10000, wan = 50000 }
local NAME = "^[%w][%w%-_%.]*$"
local NAME_OR_NONE = "^[%w%-_%.]*$" -- Names become parts of keys ("warm/a", "job|part"), of file names and of lines of a log.

--- What `shoal run` takes, as options or in a config file. Every time is in milliseconds.
node.config = schema.record({
  name = schema.string { default = "", max = 64, pattern = NAME_OR_NONE, doc = "the node's name; default: role and port" },
  cluster = schema.string { default = "shoal", max = 64, pattern = NAME },
  dc = schema.string { default = "", max = 64, pattern = NAME_OR_NONE },
  bind = schema.string { default = "127.0.0.1:0", doc = "address for streams and datagrams; loopback only while there are no keys" },
  join = schema.array(schema.string { max = 128 }, { max = 64, default = {} }),
  gates = schema.array(schema.string { max = 128 }, { max = 64, default = {} }),
  connect = schema.array(schema.string { max = 128 }, { max = 64, default = {} }),
  data = schema.string { default = "", doc = "folder for what must survive a restart" },
  log = schema.string { default = "", doc = "JSON-lines file; empty: stderr" },
  log_level = schema.enum { "debug", "info", "warning", "error", "critical", default = "info" },
  policies = schema.string { default = "", doc = "folder of policy scripts; empty: the shipped ones" },
  profile = schema.enum { "local", "lan", "wan", default = "local" },
  membership = schema.record(swim.tunables, nil, { default = {}, doc = "values of lua/shoal/member/swim.lua other than the profile's" }),
  record = schema.string { default = "", max = 1024, doc = "file for all that membership is told, for swim.replay" },
  cores = schema.integer { default = 4, min = 1, max = 4096 },
  flush_ms = schema.integer { default = 50, min = 5, max = 60000 },
  push_ms = schema.integer { default = 250, min = 10, max = 60000 },
  heartbeat_ms = schema.integer { default = 1000, min = 50, max = 60000 },
  -- Ten heartbeats: a manager that restarts in that time is taken back with what it runs.
  dc_silent_ms = schema.integer { default = 10000, min = 200, max = 600000 },
  dc_forget_ms = schema.integer { default = 86400000, min = 1000, max = 864000000, doc = "how long a gate keeps a manager that is silent" },
  manager_silent_ms = schema.integer { default = 120000, min = 100, max = 86400000 },
  gate_silent_ms = schema.integer { default = 180000, min = 100, max = 86400000 },
  retention_ms = schema.integer { default = 300000, min = 0, max = 86400000 },
  -- Above the time that a leader tries to deliver one dispatch: a message of an attempt that ended comes no later.
  fence_ms = schema.integer { default = 60000, min = 0, max = 86400000, doc = "how long a worker remembers a part that ended" },
  progress_per_s = schema.integer { default = 20000, min = 1, max = 10000000, doc = "progress messages a leader takes a second" },
  stop_ms = schema.integer { default = 3000, min = 0, max = 600000 },
}, function (c)
  if c.dc_silent_ms <= 2 * c.heartbeat_ms then return "dc_silent_ms must exceed 2 * heartbeat_ms" end
  if c.dc_forget_ms < c.dc_silent_ms then return "dc_forget_ms must be at least dc_silent_ms" end
end)

--- Load a script as data the operator edits: text only, with its own name in messages.
---@return any? value, string? err, string? code
function node.load_script(world, path)
  local source, err = world:read_file(path)
  if not source then return nil, "cannot " .. err, "CONFIG" end
  local chunk, problem = load(source, "@" .. path, "t")
  if not chunk then return nil, problem, "CONFIG" end
  local ok, value = errors.handle("script.load", { path = path }, chunk)
  if not ok then return nil, tostring(value), "CONFIG" end
  if type(value) ~= "table" then return nil, ("%s: expected the script to return a table, found %s"):format(path, type(value)), "CONFIG" end
  return value
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

--- Is what a script returned a role? Every problem at once.
---@return true? ok, string? err, string? code
function node.check_script(path, role)
  local problems = {}
  local function need(key, kind)
    if type(role[key]) ~= kind then problems[#problems + 1] = ("%s: expected a %s, found %s"):format(key, kind, type(role[key])) end
  end
  need("name", "string")
  need("start", "function")
  for _, key in ipairs { "answers", "sends" } do
    if role[key] ~= nil then need(key, "table") end
  end
  if role.hooks ~= nil then need("hooks", "function") end
  if #problems > 0 then return nil, path .. ": " .. table.concat(problems, "; "), "CONFIG" end
  return true
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
  self.address, err, code = made:listen(self.config.bind)
  if not self.address then return nil, err, code end
  return true
end

--- What a member says of itself in its payload. It comes from outside: each field is taken only as what it should be.
---@return string role, string dc, integer cores
local function facts_of(member)
  local payload = member.payload
  if not payload or payload == "" then return "", "", 0 end
  local facts, err, code = msgpack.unpack(payload)
  if type(facts) == "table" and type(facts.role) == "string" and type(facts.dc) == "string"
    and math.type(facts.cores) == "integer" and facts.cores >= 0 then
    return facts.role, facts.dc, facts.cores
  end
  errors.report("swim.payload", { member = member.name }, err or "expected role, dc and cores", code or "MALFORMED")
  return "", "", 0
end

--- What the transport and membership refuse from strangers has no caller who would hear of it: each look reports what
--- became more since the last one.
local function watch(self)
  local told = {}
  local function look(site, prefix, counts)
    for what, total in sorted(counts) do
      local name = prefix .. what
      if type(total) == "number" and total > (told[name] or 0) then
        errors.report(site, { what = name, more = total - (told[name] or 0), total = total }, name, "REFUSED")
        told[name] = total
      end
    end
  end
  self.scope:loop("node.watch", {}, { interval_ms = WATCH_MS }, function (cycle)
    local c = self.rpc:counts()
    look("net.refused", "", {
      accept_errors = c.accept_errors, shed_requests = c.shed_requests, unsent_replies = c.unsent_replies,
      stray_replies = c.stray_replies, control_overflows = c.control_overflows,
    })
    look("net.refused", "fault.", c.faults)
    if self.swim then look("swim.refused", "", self.swim:counts().refused) end
    if cycle % SWEEP_CYCLES == 0 then self.rpc:sweep() end
  end)
  return true
end

log.event("swim.held", { "member", "role", "dc", "points", "for_ms" })

--- What membership says goes to the role's hooks.
local function on_member(self, event)
  local m = event.member
  m.role, m.dc, m.cores = facts_of(m)
  self.journal:feed(event)
  if event.kind == "dead" and m.held then -- It lives, and people will wonder.
    local why = self.swim:why(m.name)
    log.warning("swim.held", { member = m.name, role = m.role, dc = m.dc, points = ("%.1f"):format(why.flap_points), for_ms = why.held_for_ms })
  end
  if event.kind == "join" then errors.withdraw("detector.global_death", m.name) end -- Its death is no longer true.
  self.hooks:fire("swim.member", { member = m.name, kind = event.kind }, event)
  if event.kind == "dead" then
    local text = ("%d.%d"):format(m.incarnation.generation, m.incarnation.version)
    self.hooks:deliver("detector.global_death", {
      node = m.name, job = "none", incarnation = text, suspicion_age_ms = m.suspected_ms, confirmations = m.confirmations,
    }, m.name, m.name, text)
  end
  self.partition:feed(event)
end

log.event("swim.partition", { "kind", "cause", "lost", "suspected", "dead", "kept", "silent", "names", "returned", "lasted_ms" })

--- Many members lost at once, or back: a line in the log, and the role's hooks.
local function on_partition(self, event)
  local names = {}
  for i, m in ipairs(event.lost) do names[i] = m.name end
  local grave = event.kind == "detected" or event.kind == "gave_up"
  log[grave and "warning" or "info"]("swim.partition", {
    kind = event.kind, cause = event.cause, lost = #event.lost, suspected = event.suspected, dead = event.dead, kept = event.kept,
    silent = event.silent, names = table.concat(names, " ", 1, math.min(#names, 20)), returned = #event.returned,
    lasted_ms = event.lasted_ms,
  })
  self.hooks:fire("swim.partition", { kind = event.kind, cause = event.cause, lost = #event.lost, kept = event.kept }, event)
end

--- Membership: everyone but a client, among the nodes of its own tier's group.
local function open_swim(self)
  if self.role == "client" then return true end
  local window_ms = PARTITION_MS[self.config.profile]
  self.partition = assert(swim.partition(self.world, {
    window_ms = window_ms, heal_ms = window_ms // 2, tell_ms = window_ms // 4, group_of = function (member) return member.dc end,
  }, function (event) on_partition(self, event) end))
  local options = {
    node = self.name, bind = self.address, cluster = self.config.cluster .. "/" .. self.dc, profile = self.config.profile,
    leave_timeout_ms = LEAVE_MS, seeds = self.config.join, record = self.config.record,
    payload = msgpack.pack({ role = self.role, dc = self.dc, cores = self.config.cores }),
  }
  for name, value in sorted(self.config.membership) do options[name] = value end
  local opened, err, code = swim.open(self.world, options, function (event)
    errors.call("swim.event", { kind = event.kind, member = event.member.name }, on_member, self, event)
  end)
  if not opened then return nil, err, code end
  self.swim = opened
  return true
end

--- Members with what their payload says of them.
function node:members()
  local out = {}
  for i, m in ipairs(self.swim and self.swim:members() or {}) do
    m.role, m.dc, m.cores = facts_of(m)
    out[i] = m
  end
  return out
end

--- Hooks run to their end with the site's arguments; handlers are tasks and get the role's state, the body and the peer.
local function wire(self, script)
  self.hooks = errors.hooks()
  if script.hooks then
    for site, fn in sorted(script.hooks(self.state)) do self.hooks:wire(site, fn) end
  end
  for name, fn in sorted(script.answers or {}) do
    local info = debug.getinfo(fn, "uS")
    if info.nparams > 3 then
      return nil, ("answers[%q]: the function at %s:%d takes %d arguments, expected (state, body, peer)"):format(name,
        info.short_src, info.linedefined, info.nparams), "CONFIG"
    end
    local taken, problem, word = self.rpc:handle(name, function (body, peer) return fn(self.state, body, peer) end)
    if not taken then return nil, problem, word end
  end
  self.rpc:sends(script.sends or {})
  local ok, err, code = self.hooks:check(self.role)
  if not ok then return nil, err, code end
  return self.rpc:check()
end

--- Start a node. Waits; call it in a task.
---@param options { world: table, script: string, config: table }  `script` is the role script's path
---@return table? node, string? err, string? code
function node.start(options)
  local script, err, code = node.load_script(options.world, options.script)
  if not script then return nil, err, code end
  local fine
  fine, err, code = node.check_script(options.script, script)
  if not fine then return nil, err, code end
  local config
  config, err = node.config(options.config)
  if not config then return nil, "config: " .. err, "CONFIG" end
  local self = setmetatable({
    world = options.world, script = script, role = script.name, config = config, dc = config.dc, path = options.script,
    scope = task.scope("node"), started_ns = options.world:now_ns(),
    -- Two starts of one node differ in it; it is compared for equality only.
    generation = options.world:random() >> 1,
  }, node)
  self.journal = assert(swim.journal(self.world, { kept = JOURNAL_KEPT, epoch = self.generation % (1 << 26) + 1 }))
  self.name = config.name ~= "" and config.name or ("%s-%04x"):format(self.role, self.world:random(65536) - 1)
  self.config.data = config.data ~= "" and config.data or ".shoal/" .. self.name
  local steps = {
    { "log", open_log }, { "policies", open_policies }, { "transport", open_transport },
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
    end }, { "membership", open_swim }, { "watch", watch },
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
    ok, err, code = step[2](self)
    if not ok then
      self:stop(("start failed at %s"):format(step[1]))
      return nil, ("%s: %s"):format(step[1], err), code
    end
  end
  log.info("node.ready", { address = self.address, role = self.role, dc = self.dc })
  return self
end

--- Stop in the reverse order: the role lets go, membership leaves, connections close, tasks end. Idempotent; waits.
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
    local ok, err, code = left:await(2 * LEAVE_MS)
    if not ok then errors.report("node.leave", { node = self.name }, err, code) end
    self.swim:close()
  end
  if self.partition then self.partition:close() end
  self.journal:close()
  if self.rpc then self.rpc:close() end
  self.scope:close()
  local balanced, problem = errors.finish()
  self.summary = errors.summary()
  log.info("node.end", { errors = self.summary, balanced = balanced or false, problem = problem })
  log.close()
end

return node
