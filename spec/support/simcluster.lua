--- simcluster: simulated clusters for specs, made of the unmodified role scripts, with the invariants of SCENARIOS.md checked
--- while they run and after.
---
---     local c <close> = simcluster.new { seed = 3, managers = 1, workers = 2 }
---     local id = c:submit(c:job { load = { vus = 4, iterations = 100 } })
---     local final = c:follow(id)
---     c:rest()                        -- every table and task is back at its idle level
---
--- Time passes in c:run, c:follow and the like; meanwhile c:check() checks all nodes every 100 ms. A broken invariant raises.
local job = require "shoal.job"
local json = require "cjson"
local sim = require "shoal.sim"
local sorted = require "shoal.sorted"

local simcluster = {}

---@class SimCluster
local Cluster = {}
Cluster.__index = Cluster

local CHECK_MS = 100
local STEP_MS = 20
local WARM_MS = 2500
local RETENTION_MS = 1500
local IN_FLIGHT = 16 -- Requests of one part at most, in the specs that cancel.

local FINAL = { completed = true, failed = true, cancelled = true, timed_out = true }
local RANK = { running = 1, cancelling = 2, completed = 3, failed = 3, cancelled = 3, timed_out = 3 }
local WORKFLOW_RANK = { waiting = 1, ready = 2, queued = 2, running = 3, completed = 4, failed = 4, cancelled = 4, skipped = 4 }

local probe_source
do
  local file = assert(io.open "spec/support/simprobe.lua")
  probe_source = file:read "a"
  file:close()
end

--- The default user of workflows: it requests a page of the shop, checks the response, and sleeps.
simcluster.SHOP = [[
return { vu = function (vu)
  local r = vu.http:get("http://shop/x")
  vu:check("200", r and r.status == 200)
  vu:sleep(tonumber(vu.env.PACE_MS or 100) * (0.5 + vu:random()))
end }
]]

-- Setup ----------------------------------------------------------------------------------------------------------------

--- `gates`, and for each of `dcs` (names) `managers` and `workers` a dc; without gates the client connects to the first manager.
--- `set`: config of every node, `set_worker` and the like of one role. `join`: more seeds for managers and workers. `order`: start nodes
--- one by one, 150 ms apart, "reversed" (workers and client first) or "shuffled" by the seed; else all at once. `files_manager` and the
--- like: files of the disks of one role's nodes, such as an edited role script.
---@param options { seed?: integer, loss?: number, latency_ms?: number, gates?: integer, dcs?: string[], managers?: integer,
---  workers?: integer|integer[], set?: table, set_worker?: table, set_manager?: table, set_gate?: table, warm_ms?: number,
---  join?: string[], order?: "reversed"|"shuffled" }
function simcluster.new(options)
  options = options or {}
  local s = sim.new {
    seed = options.seed or 1, latency_ms = options.latency_ms or 1, jitter_ms = options.jitter_ms or 0.3, loss = options.loss or 0,
  }
  local self = setmetatable({
    s = s, options = options, gates = {}, managers = {}, workers = {}, nodes = {}, hits = {}, hit_log = {}, commands = {}, ran = {},
    probed = {}, last = {}, jobs = {}, idle = {}, parted = false, checked_ms = 0, delay_ms = 3,
  }, Cluster)
  self:outside()
  local dcs = options.dcs or { "a" }
  for i = 1, options.gates or 0 do
    local config = self:config "gate"
    config.join = { table.unpack(self.gates) }
    self.gates[i] = self:add { name = "g" .. i, role = "gate", config = config }
  end
  for d, dc in ipairs(dcs) do
    local seeds = {}
    for i = 1, options.managers or 1 do
      local config = self:config "manager"
      config.gates, config.join = #self.gates > 0 and self.gates or nil, self:seeds(seeds)
      local m = self:add { name = ("m-%s%d"):format(dc, i), role = "manager", dc = dc, config = config }
      self.managers[#self.managers + 1], seeds[#seeds + 1] = m, m
    end
    local count = options.workers or 1
    for i = 1, type(count) == "table" and count[d] or count do
      local config = self:config "worker"
      config.join = self:seeds(seeds)
      self.workers[#self.workers + 1] = self:add { name = ("w-%s%d"):format(dc, i), role = "worker", dc = dc, config = config }
    end
  end
  self.client = self:add {
    name = "c1", role = "client", config = { connect = #self.gates > 0 and self.gates or { self.managers[1] } },
  }
  if options.order then self:start_each() end
  self:run(options.warm_ms or WARM_MS)
  for _, node in ipairs(self.nodes) do self.idle[node.name] = self:ask(node, "tasks") end
  self:ask(self.client, "record")
  return self
end

function Cluster:config(role)
  local config = { retention_ms = RETENTION_MS, fence_ms = RETENTION_MS }
  for _, from in ipairs { self.options.set or {}, self.options["set_" .. role] or {} } do
    for key, value in sorted(from) do config[key] = value end
  end
  return config
end

function Cluster:seeds(managers)
  local seeds = { table.unpack(managers) }
  return table.move(self.options.join or {}, 1, #(self.options.join or {}), #seeds + 1, seeds)
end

function Cluster:start_each()
  local order, draw = {}, self.options.seed or 1
  for i, node in ipairs(self.nodes) do
    draw = (draw * 1103515245 + 12345) % (1 << 31)
    table.insert(order, self.options.order == "shuffled" and draw // 65536 % i + 1 or 1, node)
  end
  for _, node in ipairs(order) do
    self:start(node)
    self:run(150)
  end
end

function Cluster:add(options)
  options.start = not self.options.order
  options.files = options.files or self.options["files_" .. options.role]
  local node = self.s:node(options)
  self.nodes[#self.nodes + 1] = node
  return node
end

--- The outside world: a shop that counts requests by part and attempt, and commands.
function Cluster:outside()
  local s = self.s
  s:http("shop", function (request)
    local h = request.headers
    local key = ("%s %s"):format(h["x-shoal-part"], h["x-shoal-attempt"])
    local of = self.hits[h["x-shoal-job"]] or {}
    self.hits[h["x-shoal-job"]] = of
    of[key] = (of[key] or 0) + 1
    local workflow = h["x-shoal-part"]:match "^[^/]+"
    local log = self.hit_log[workflow] or { first_ms = s:now_ms() }
    self.hit_log[workflow], log.last_ms = log, s:now_ms()
    return { status = 200, body = "ok", delay_ms = self.delay_ms }
  end)
  --- `work NAME MS`: takes MS, and is counted by name.
  s:command("work", function (argv)
    local name, ms = argv[2], tonumber(argv[3]) or 20
    self.ran[name] = (self.ran[name] or 0) + 1
    local log = self.hit_log[name] or { first_ms = s:now_ms() }
    self.hit_log[name], log.last_ms = log, s:now_ms()
    return name .. " done\n", tonumber(argv[4]) or 0, ms
  end)
end

-- Inspection -----------------------------------------------------------------------------------------------------------

--- Call a function of the probe on a node; nil when the node is not up.
function Cluster:ask(node, fn, ...)
  local name = type(node) == "table" and node.name or node
  if self.s:status(name) ~= "up" then return nil end
  if not self.probed[name] then
    assert(self.s:eval(name, "package.loaded['spec.probe'] = assert(load((...), '=spec.probe'))() return true", probe_source))
    self.probed[name] = true
  end
  return self.s.core:call(name, "spec.probe", fn, ...)
end

--- Run code on a node; it has `node`, `state` and `...`. Raises when the code does.
function Cluster:on(node, code, ...)
  local results = table.pack(self.s:eval(node, "local node = require 'shoal.core.node'.running; local state = node.state; " .. code, ...))
  if results[1] == nil and results[3] == "FAILED" then error(results[2], 2) end
  return table.unpack(results, 1, results.n)
end

--- The rows of `shoal members` of a node, by name; raises if a name is listed twice.
function Cluster:members(node)
  local out = {}
  local ask = [[ local peer, tries = node.rpc:peer(...), 0
    repeat -- The connection may have been to a process that ended.
      local reply, err = peer:call("node.members", {})
      tries = tries + 1
      if reply or tries == 3 then return reply, err end
      require("shoal.task").sleep(500)
    until false ]]
  local reply = assert(self:on(self.client, ask, node.address))
  for _, m in ipairs(reply.members) do
    if out[m.name] then error(m.name .. " is listed twice by " .. node.name, 2) end
    out[m.name] = m
  end
  return out
end

--- Record a node's member events from here on, as "kind name", for `c:events(node)`.
function Cluster:hear(node)
  self:on(node, [[ local fire, heard = getmetatable(node.hooks).__index.fire, {}
    node.spec_events = heard
    node.hooks.fire = function (self, site, ids, event)
      if site == "swim.member" then heard[#heard + 1] = event.kind .. " " .. event.member.name end
      return fire(self, site, ids, event)
    end ]])
end
function Cluster:events(node) return self:on(node, "return node.spec_events") end

function Cluster:incidents(node, site) return self:ask(node, "incidents", site) end
function Cluster:counts(node, site) return self:ask(node, "counts", site) end

-- Jobs -----------------------------------------------------------------------------------------------------------------

--- A job's bytes. A workflow without script or command gets the shop's user; `work = "NAME MS"` is short for that command.
---@param workflows table<string, table>
---@param more? table  further fields of the job
function Cluster:job(workflows, more)
  local spec, files = { name = "job", workflows = {} }, { ["shop.lua"] = simcluster.SHOP }
  for key, value in sorted(more or {}) do spec[key] = value end
  for name, given in sorted(workflows) do
    local w = {}
    for key, value in sorted(given) do w[key] = value end
    if w.work then
      w.command, w.work = { "work" }, nil
      for word in given.work:gmatch "%S+" do w.command[#w.command + 1] = word end
    elseif w.code then
      w.script, files[name .. ".lua"], w.code = name .. ".lua", w.code, nil
    elseif not w.command and not w.script then
      w.script = "shop.lua"
    end
    spec.workflows[name] = w
  end
  return job.encode(assert(job.parse(json.encode(spec), "job.json", function (path) return files[path] end)))
end

---@return string? id, string? err, string? code
function Cluster:submit(spec, key, patience_ms)
  self.keys = (self.keys or 0) + 1
  local id, err, code = self:on(self.client, "return state.client:submit(...)", spec, key or "key " .. self.keys, patience_ms)
  if id then self.jobs[id] = self.jobs[id] or { follows = 0 } end
  return id, err, code
end

--- Start to follow a job on the client; c:final(id) returns the final state once it has come.
function Cluster:watch(id, limit_ms)
  self:on(self.client, [[
    local id, limit_ms = ...
    local follows = node.spec_record.follows
    follows[id] = {}
    node.scope:spawn("spec.follow", { job = id }, function ()
      local final, err, code = state.client:follow(id, {}, limit_ms)
      follows[id] = { done = true, final = final, err = err, code = code }
    end)
  ]], id, limit_ms)
end

function Cluster:final(id)
  local found = self:on(self.client, "return node.spec_record.follows[...]", id)
  if not found or not found.done then return nil end
  return found.final or { state = "?", reason = found.err, code = found.code }
end

--- Follow a job to its end, while time passes. Raises if there is none within limit_ms.
function Cluster:follow(id, limit_ms)
  limit_ms = limit_ms or 60000
  self:watch(id)
  local final
  if not self:until_true(function ()
    final = self:final(id)
    return final
  end, limit_ms, 100) then
    error(("job %s has no final state after %d ms: %s"):format(id, limit_ms, json.encode(self:states(id))), 2)
  end
  return final
end

function Cluster:complete(spec, key, limit_ms)
  local id = assert(self:submit(spec, key))
  return self:follow(id, limit_ms), id
end

function Cluster:states(id)
  local out = {}
  for _, node in ipairs(self.nodes) do
    local look = self:ask(node, "look")
    if look and look.lead then
      for key, state in sorted(look.lead.states) do
        if key:find(id, 1, true) then out[node.name .. " " .. key] = state end
      end
      for key, part in sorted(look.lead.parts) do
        if key:find(id, 1, true) then out[node.name .. " " .. key] = ("%s at %s"):format(part.state, tostring(part.executor)) end
      end
    end
  end
  return out
end

-- Time and faults ------------------------------------------------------------------------------------------------------

function Cluster:run(ms)
  local s, until_ms = self.s, self.s:now_ms() + ms
  while until_ms - s:now_ms() > 1e-5 do -- Times are whole nanoseconds.
    s:run(math.min(until_ms - s:now_ms(), math.max(1, self.checked_ms + CHECK_MS - s:now_ms())))
    if s:now_ms() >= self.checked_ms + CHECK_MS then self:check() end
  end
end

--- Let time pass until fn() is true; it is called every `every_ms`.
function Cluster:until_true(fn, limit_ms, every_ms)
  local until_ms = self.s:now_ms() + limit_ms
  while true do
    local result = fn()
    if result then return result end
    if self.s:now_ms() >= until_ms then return nil end
    self:run(every_ms or STEP_MS)
  end
end

--- Cut a link. From here on an attempt that its leader gave up may still run where the leader cannot reach it.
function Cluster:cut(...)
  self.parted = true
  self.s:cut(...)
end
function Cluster:heal(...) self.s:heal(...) end
function Cluster:pause(node)
  self.parted = true
  self.s:pause(node)
end
function Cluster:resume(node) self.s:resume(node) end
function Cluster:crash(node)
  self.s:crash(node)
  if node.role ~= "worker" then self.parted = true end
end
function Cluster:restart(node)
  self.probed[node.name] = nil
  self.s:restart(node)
end
--- Restart a node that ended.
function Cluster:start(node)
  self.probed[node.name] = nil
  self.s:start(node)
end

-- Invariants -----------------------------------------------------------------------------------------------------------

local USERS_MAX = 8 -- Of one part, in the specs that end one early.

local function broken(self, format, ...)
  error(("at %.3f ms, seed %d: "):format(self.s:now_ms(), self.options.seed or 1) .. format:format(...), 0)
end

local function check_worker(self, look, live)
  local w, sum = look.worker, 0
  for key, run in sorted(w.runs) do
    if not run.released then sum = sum + run.cores end
    if run.state == "running" or run.state == "cancelling" then
      local fences = live[key] or {}
      live[key] = fences
      if fences[run.fence] then broken(self, "%s runs on %s and %s under one fence", key, fences[run.fence], look.name) end
      if next(fences) and not self.parted then broken(self, "%s runs twice, on %s too", key, look.name) end
      fences[run.fence] = look.name
    end
  end
  if w.claimed ~= sum then broken(self, "%s: %d cores claimed, its runs hold %d", look.name, w.claimed, sum) end
  if w.claimed > w.cores then broken(self, "%s: %d of %d cores claimed", look.name, w.claimed, w.cores) end
end

local function check_lead(self, look)
  local l, last = look.lead, self.last[look.name] or { parts = {}, states = {}, led = {}, fence = 0 }
  if l.fence < last.fence and l.fence ~= 0 then broken(self, "%s: leads with fence %d after %d", look.name, l.fence, last.fence) end
  for name, e in sorted(l.executors) do
    if e.claimed ~= e.sum then broken(self, "%s: %s has %d claimed, the claims hold %d", look.name, name, e.claimed, e.sum) end
  end
  for key, part in sorted(l.parts) do
    local before = last.parts[key]
    if part.executed > part.retries + 1 then
      broken(self, "%s: %s was executed %d times, %d retries are allowed", look.name, key, part.executed, part.retries)
    end
    if before and part.fence < before.fence then
      broken(self, "%s: the fence of %s went from %d to %d", look.name, key, before.fence, part.fence)
    end
    if before and FINAL[before.state] and before.state ~= part.state then
      broken(self, "%s: %s went from %s to %s", look.name, key, before.state, part.state)
    end
  end
  for run, fence in sorted(l.led) do
    if fence < (last.led[run] or 0) then broken(self, "%s: leads %s with fence %d after %d", look.name, run, fence, last.led[run]) end
    if fence < l.fence then broken(self, "%s: leads %s with fence %d, and its tier with %d", look.name, run, fence, l.fence) end
  end
  for key, state in sorted(l.states) do
    local before = last.states[key]
    if before and RANK[state] < RANK[before] then broken(self, "%s: job %s went from %s to %s", look.name, key, before, state) end
  end
  self.last[look.name] = { parts = l.parts, states = l.states, led = l.led, fence = math.max(l.fence, last.fence) }
end

--- Check the invariants of every node that is up, at this instant.
function Cluster:check()
  self.checked_ms = self.s:now_ms()
  local live = {}
  for _, node in ipairs(self.nodes) do
    local look = self:ask(node, "look")
    if look then
      if not look.balanced then broken(self, "%s: %s", node.name, look.problem) end
      if look.worker then check_worker(self, look, live) end
      if look.lead then check_lead(self, look) end
    end
  end
end

--- Check the events that the client got of a job: no gap, no state goes back, and none follows the final state.
function Cluster:check_pushes(id)
  local rank, ended, workflows, answer = 0, nil, {}, nil
  for _, p in ipairs(self:ask(self.client, "pushes", id)) do
    if p.before > 0 and p.seq ~= p.before + 1 and p.truncated_from ~= p.seq then
      broken(self, "%s: event %d follows %d", id, p.seq, p.before)
    end
    if p.kind == "result" and p.workflow == "" then
      if answer and answer ~= p.result_state then broken(self, "%s: its result is %s after %s", id, p.result_state, answer) end
      answer = p.result_state
    elseif p.kind == "result" and workflows[p.workflow] ~= p.result_state then
      broken(self, "%s: the result of %s is %s, its status %s", id, p.workflow, p.result_state, tostring(workflows[p.workflow]))
    end
    if p.kind == "status" then
      if ended then broken(self, "%s: %s after %s", id, p.state, ended) end
      if RANK[p.state] < rank then broken(self, "%s: status went back to %s", id, p.state) end
      rank = RANK[p.state]
      if p.workflow then
        local before = workflows[p.workflow] or "waiting"
        if WORKFLOW_RANK[p.workflow_state] < WORKFLOW_RANK[before] then
          broken(self, "%s: %s went from %s to %s", id, p.workflow, before, p.workflow_state)
        end
        workflows[p.workflow] = p.workflow_state
      elseif FINAL[p.state] then
        ended = p.state
        if answer ~= ended then broken(self, "%s: its status is %s, its result %s", id, ended, tostring(answer)) end
      end
    end
  end
end

--- The shop's count for an attempt: its own requests, or those of the parts into which a datacenter split it.
local function seen_of(hits, a)
  local own, within = hits[("%s %d"):format(a.part, a.attempt)], 0
  if own then return own end
  for key, count in sorted(hits) do
    local part, rest = key:match "^(.*)/([^/ ]+) %d+$"
    local attempt = rest and (tonumber(rest:match "^(%d+)%.") or 1)
    if part == a.part and attempt == a.attempt then within = within + count end
  end
  return within
end

--- Compare the shop's counts with ours. An attempt that ended must have the shop's count exactly. For a lost one the shop must have at
--- least its last progress, and the merged numbers must exclude it. A cancelled attempt may have had one request of each user in
--- flight, which the shop counted and no user awaited.
function Cluster:check_counts(id, final)
  local result, sum, lost = final.result, 0, 0
  local cut_short = final.state == "timed_out" or final.state == "cancelled"
  local seen = {}
  for _, a in ipairs(result.attempts) do
    local key = ("%s %d"):format(a.part, a.attempt)
    if seen[key] then broken(self, "%s: attempt %s is listed twice", id, key) end
    seen[key] = true
    local asked, said = seen_of(self.hits[id] or {}, a), a.stats and a.stats.requests or 0
    if a.state == "lost" then
      if asked < said then broken(self, "%s: %s was lost with %d requests told, the shop saw %d", id, key, said, asked) end
      lost = lost + said
    elseif a.state == "cancelled" then -- Requests in flight at the cancel are in no result.
      if asked < said or asked > said + IN_FLIGHT then broken(self, "%s: %s told %d requests, the shop saw %d", id, key, said, asked) end
      sum = sum + said
    elseif a.state ~= "refused" then
      local under_way = (cut_short or a.state == "cancelled") and USERS_MAX or 0
      if asked < said or asked > said + under_way then broken(self, "%s: %s told %d requests, the shop saw %d", id, key, said, asked) end
      sum = sum + said
    end
  end
  for key, count in sorted(self.hits[id] or {}) do
    if not seen[key] and not self.parted then broken(self, "%s: %d requests of %s, which no list has", id, count, key) end
  end
  if result.stats.requests ~= sum then
    broken(self, "%s: merged are %d requests, its attempts made %d", id, result.stats.requests, sum)
  end
  if (result.totals.lost or 0) ~= lost then broken(self, "%s: %d lost, listed are %d", id, result.totals.lost or 0, lost) end
end

--- After all work, check that every table and task is back at its idle level. Lets the retention time pass first.
---@param options? { except?: table<string, boolean>, ms?: number }  except: nodes that are not checked
function Cluster:rest(options)
  options = options or {}
  local set = self.options.set or {}
  self:run(options.ms or (set.retention_ms or RETENTION_MS) + 2500)
  local jobs = sorted.keys(self.jobs)
  for _, id in ipairs(jobs) do self:check_pushes(id) end
  for _, node in ipairs(self.nodes) do
    local look = self:ask(node, "look")
    if look and not (options.except and options.except[node.name]) then
      local worker, lead = look.worker, look.lead
      if worker and (worker.claimed ~= 0 or next(worker.runs)) then
        broken(self, "%s: at rest %d cores are claimed by %s", node.name, worker.claimed, next(worker.runs) or "nobody")
      end
      local leases = worker and worker.leases or lead and lead.leases or 0
      if leases ~= 0 then broken(self, "%s: at rest it has %d leases", node.name, leases) end
      for name, e in sorted(lead and lead.executors or {}) do
        if e.claimed ~= 0 then broken(self, "%s: at rest %s has %d cores claimed", node.name, name, e.claimed) end
      end
      if lead and lead.suspicions + lead.extensions > 0 then
        broken(self, "%s: at rest it has %d suspicions for jobs, and extensions of %d", node.name, lead.suspicions, lead.extensions)
      end
      local named = self:ask(node, "named", jobs)
      if #named > 0 then
        local some = table.concat(named, "; ", 1, math.min(5, #named))
        broken(self, "%s: at rest it still names ended jobs: %s", node.name, some)
      end
      local tasks = self:ask(node, "tasks")
      if tasks ~= self.idle[node.name] then
        broken(self, "%s: %d tasks at rest, %d when idle", node.name, tasks, self.idle[node.name] or -1)
      end
    end
  end
end

--- End the simulation; raises when any node wrote an incident without an id that its site requires.
function Cluster:close(already)
  local missing = not already and self.s:log():match '[^\n]*"missing":[^\n]*'
  self.s:close()
  if missing then error("an incident without its ids: " .. missing, 2) end
end
Cluster.__close = Cluster.close

return simcluster
