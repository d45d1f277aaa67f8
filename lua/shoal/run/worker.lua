--- worker: runs parts for the leaders of jobs, one child process each, and reports what they do.
---
---              child started        its verdict         result accepted
---   CLAIMED --------------> RUNNING -----------> REPORTING -------------> OVER
---      |                      |                      ^
---      | refused or raised    +--cancel--> CANCELLING+
---      +--> OVER
---
--- Each part has a lease of its leader (leases.lua): while that counts, the part may run. Where it ended and another worker may have the
--- part, the part is stopped here, and its result says `lost`.
---
--- A part holds its cores until its child is gone; how many are claimed is the sum over the parts, counted nowhere else. A part's
--- greatest fence is remembered while the part is known, and for fence_ms after that; a lower one is refused and counted.
---
--- Results that an earlier life of this worker left on disk stand here as parts that are reporting, without cores.
local commands = require "shoal.run.exec.commands"
local folders = require "shoal.run.exec.folders"
local incidents = require "shoal.run.incidents"
local job = require "shoal.job.spec"
local leaders = require "shoal.run.leaders"
local leases = require "shoal.run.leases"
local log = require "shoal.base.log"
local machine = require "shoal.base.machine"
local reports = require "shoal.run.reports"
local runner = require "shoal.run.runner"
local sorted = require "shoal.base.sorted"
local stats = require "shoal.job.stats"
local task = require "shoal.base.task"
local tenure = require "shoal.tier.tenure"

local worker = {}
worker.__index = worker

worker.FENCES_MAX = 4096 -- Parts that ended, whose fence is remembered against late messages; for fence_ms at most.

local FORGET_MS = 50     -- Between two looks at what is to be forgotten, at least.
local HOLDS = { claimed = true, running = true, cancelling = true } -- States in which a part holds its cores.

local part = machine.define {
  name = "worker.part", first = "claimed",
  moves = {
    claimed = { "running", "reporting", "over" }, running = { "cancelling", "reporting" }, cancelling = { "reporting" },
    reporting = { "over" }, over = {},
  },
}

local function key_of(body) return body.job .. " " .. body.part end

--- A part with its first state, and the name that its moves are logged with.
local function enter(body, cores)
  return part:enter { body = body, cores = cores, name = ("%s attempt %d"):format(key_of(body), body.attempt) }
end

local function move(run, to) return part:move(run, to, run.name) end

--- A dispatch without its payload, which is large, and of no use once the child has it.
local function slim(body)
  return {
    job = body.job, workflow = body.workflow, part = body.part, attempt = body.attempt, fence = body.fence, leader = body.leader,
    leader_name = body.leader_name,
  }
end

--- The names of our environment that commands get: the usual ones, and those that the operator allows.
local function inherited(pass_env)
  local out = table.move(commands.INHERITED, 1, #commands.INHERITED, 1, {})
  for name in (pass_env or ""):gmatch "[^,]+" do out[#out + 1] = name end
  return out
end

---@param node table
---@param options { flush_ms: number, others: fun(): string[] }
---@return table? worker, string? err, string? code
function worker.open(node, options)
  local self = setmetatable({
    node = node, scope = task.scope("worker", node.scope), cores = node.config.cores, runs = {}, fences = {}, ended = {}, leaders = {},
    led = leaders.new(), stale = 0, inherit = inherited(node.config.pass_env),
  }, worker)
  local function end_attempt(reason)
    return function (record)
      self:cancel { job = record.job, part = record.part, fence = record.fence, reason = reason, deadline_ms = 5000 }
    end
  end
  local refuse = end_attempt "its leader does not renew its lease"
  local data = node.config.data
  self.reports = reports.open(node, {
    owner = "worker", interval_ms = options.flush_ms, others = options.others, led = self.led,
    unknown = end_attempt "its leader does not know it",
    stop = end_attempt "its leader does not count it any more", folder = data and data ~= "" and data .. "/results-waiting" or nil,
    restored = function (record) return self:restored(record) end,
  })
  self.leases = leases.open(node, {
    owner = "worker", led = self.led, holder = node.name, reports = self.reports, refused = refuse,
    leader = function (name) return worker.leader(node, name) end,
    stop = function (record, reason) return self:stop_part(record, reason) end,
  })
  if data and data ~= "" and not node.world:simulated() then
    local err, code
    self.folders, err, code = folders.open(node.world, self.scope, data)
    if not self.folders then return nil, "the working folders of commands: " .. err, code end
  end
  return self
end

--- Cores that parts hold now.
---@return integer
function worker:claimed()
  local sum = 0
  for _, run in next, self.runs do -- order-free: a sum
    if HOLDS[run.state] then sum = sum + run.cores end
  end
  return sum
end

local function forget_oldest(self)
  local oldest = table.remove(self.ended, 1)
  if self.fences[oldest.key] == oldest.fence and not self.runs[oldest.key] then self.fences[oldest.key] = nil end
end

--- Forget fences when their time is over. The task exists only while one is remembered.
local function start_forgetting(self)
  if self.forgetting then return end
  self.forgetting = self.scope:keep("worker.forget", {}, function ()
    local free <close> = setmetatable({}, { __close = function () self.forgetting = nil end })
    while self.ended[1] do
      task.sleep(math.max(FORGET_MS, self.ended[1].until_ms - task.now_ms()))
      self:forget_old()
    end
  end)
end

--- Remember the fence of a part that ended: for a bounded number of parts, and no longer than a late message may take. It never
--- goes back.
local function remember(self, key, fence)
  fence = math.max(fence, self.fences[key] or 0)
  self.fences[key] = fence
  self.ended[#self.ended + 1] = { key = key, fence = fence, until_ms = task.now_ms() + self.node.config.fence_ms }
  if #self.ended > worker.FENCES_MAX then forget_oldest(self) end
  start_forgetting(self)
end

--- Fences whose time is over.
function worker:forget_old()
  while self.ended[1] and self.ended[1].until_ms <= task.now_ms() do forget_oldest(self) end
end

--- Its result was accepted.
local function accepted(self, run)
  move(run, "over")
  self.leases:drop(run.body)
  local key = key_of(run.body)
  if self.runs[key] == run then self.runs[key] = nil end
  remember(self, key, run.body.fence)
end

--- A result that an earlier life of this node left behind: its part is known until its leader has it.
function worker:restored(record)
  local key = key_of(record)
  local run = enter(slim(record), 0)
  move(run, "reporting")
  if not self.runs[key] or self.runs[key].body.fence < record.fence then self.runs[key] = run end
  self.fences[key] = math.max(record.fence, self.fences[key] or 0)
  return function () accepted(self, run) end
end

--- The child's verdict, as a result for its leader. One whose child was gone before its result is a lost attempt.
local function on_result(self, run, verdict)
  if run.given then return end -- It is given again, because the first time it failed behind this.
  local body = run.body
  if HOLDS[run.state] then move(run, "reporting") end
  for _, line in ipairs(verdict.log or {}) do -- Printed by the script.
    log.info("part.log", { job = body.job, part = body.part, attempt = body.attempt, text = line })
  end
  local lost = verdict.lost and verdict.state == "failed" or run.stopped and verdict.state == "cancelled"
  self.reports:result({
    job = body.job, workflow = body.workflow, part = body.part, attempt = body.attempt, fence = body.fence, leader = body.leader,
    leader_name = body.leader_name, began_ms = run.began_ms, state = lost and "lost" or verdict.state, reason = verdict.reason,
    stats = stats.small(verdict.summary or {}),
    result = stats.pack { stats = verdict.stats, incidents = incidents.of(body, verdict.incidents) },
  }, function () accepted(self, run) end)
  run.given = true
end

local function on_progress(self, run, summary)
  if not HOLDS[run.state] then return end
  local body = run.body
  self.reports:progress({
    job = body.job, workflow = body.workflow, part = body.part, attempt = body.attempt, fence = body.fence, leader = body.leader,
    leader_name = body.leader_name, began_ms = run.began_ms, stats = stats.small(summary),
  })
end

--- Can this dispatch be taken? The same one again is answered as the first was.
---@return table? answer, string? err, string? code  all nil: yes
local function judge(self, body)
  if self.closing then return nil, self.node.name .. " is stopping", "REFUSED" end
  local key = key_of(body)
  local greatest, known = self.fences[key] or 0, self.runs[key]
  if known and known.body.fence == body.fence then return { state = "accepted" } end
  if body.fence <= greatest then
    self.stale = self.stale + 1
    return nil, ("fence %d is not above %d"):format(body.fence, greatest), "STALE"
  end
  if known then -- A newer attempt came back to us: the older must end first, and its cores with it.
    self.fences[key] = body.fence - 1
    if known.handle then known.handle:cancel("a newer attempt was dispatched", 1000) end
    return nil, "an earlier attempt of this part is still being ended here", "OVERLOADED"
  end
end

--- A leader's dispatch.
function worker:dispatch(body)
  local answer, err, code = self.led:check(body.leader_name, body.led)
  if not answer then return nil, err, code end
  answer, err, code = judge(self, body)
  if answer or err then return answer, err, code end
  local dispatch
  dispatch, err = job.read_dispatch(body)
  if not dispatch then return nil, err, "MALFORMED" end
  local key, cores, claimed = key_of(body), dispatch.cores or 1, self:claimed()
  if self.cores - claimed < cores then
    return nil, ("%d of %d cores are free, %d were asked for"):format(self.cores - claimed, self.cores, cores), "FULL"
  end
  local run, fence_before = enter(slim(body), cores), self.fences[key]
  self.fences[key], self.runs[key], run.began_ms = body.fence, run, task.now_ms()
  local free <close> = setmetatable({}, { __close = function () -- Refused or raised: nothing of it stays, so that it can be sent again.
    if run.handle then return end
    move(run, "over")
    self.runs[key], self.fences[key] = nil, fence_before
  end })
  run.handle, err, code = runner.start(self.node, self.scope, dispatch, function (summary) on_progress(self, run, summary) end,
    function (verdict) on_result(self, run, verdict) end, {
      inherit = self.inherit, folders = self.folders,
    })
  if not run.handle then return nil, err, code end
  if run.state == "claimed" then move(run, "running") end
  if HOLDS[run.state] then self.leases:take(run.body, body.lease_ms) end
  return { state = "accepted" }
end

--- Its lease ended: end a part, and report it as lost.
---@return boolean found  false: it does not run
function worker:stop_part(record, reason)
  local run = self.runs[key_of(record)]
  if not run or run.body.fence ~= record.fence or not HOLDS[run.state] then return false end
  run.stopped = true
  self:cancel { job = record.job, part = record.part, fence = record.fence, reason = reason, deadline_ms = tenure.STOP_MS }
  return true
end

--- A leader as membership sees it, how many other members live, and the leader's generation.
---@return "up"|"down"|"unknown" state, integer living, integer? generation
function worker.leader(node, name)
  if not node.swim then return "unknown", 0 end
  local state, living, generation = "down", 0, nil
  for _, m in ipairs(node.swim:members()) do
    if m.name ~= node.name and (m.state == "alive" or m.state == "suspect") then
      living = living + 1
      if m.name == name then state, generation = "up", m.incarnation.generation end
    end
  end
  return state, living, generation
end

--- The job's name, env and labels, the workflow's env, cores and command or script of a dispatch: see shoal.job.about.
worker.about = job.about

--- End one attempt. Its result follows as of any other; "unknown" when it is not here.
function worker:cancel(body)
  local run = self.runs[key_of(body)]
  if not run or run.body.fence > body.fence then return { state = "unknown" } end
  local counts, err, code = self.led:check(run.body.leader_name, body.led)
  if not counts then return nil, err, code end
  if run.state == "running" then move(run, "cancelling") end
  if run.state == "cancelling" then run.handle:cancel(body.reason, body.deadline_ms) end
  return { state = "cancelling" }
end

--- A leader says that it leads, and asks what runs here.
function worker:lead(body)
  local group = body.group or body.tier
  local known = self.leaders[group]
  if known and body.fence < known.fence and body.node ~= known.node then
    return nil, ("%s leads with fence %d"):format(known.node, known.fence), "STALE"
  end
  self.leaders[group] = { node = body.node, address = body.address, fence = body.fence }
  self.led:leads(body.node, body.fence)
  self.reports:heard(body.address)
  self.leases:heard(body.address)
  local parts = {}
  for _, run in sorted(self.runs) do
    parts[#parts + 1] = { job = run.body.job, part = run.body.part, fence = run.body.fence, attempt = run.body.attempt }
  end
  return { cores = self.cores, parts = parts }
end

--- A leader asks how the parts of these jobs are.
---@param body { jobs: string[] }
function worker:look(body)
  local of, parts = {}, {}
  for _, name in ipairs(body.jobs) do of[name] = true end
  for _, run in sorted(self.runs) do
    local b = run.body
    if of[b.job] then
      parts[#parts + 1] = {
        job = b.job, part = b.part, fence = b.fence, state = HOLDS[run.state] and "running" or "reporting", seq = self.reports:seq_of(b),
      }
    end
  end
  return { jobs = body.jobs, parts = parts }
end

--- The values of a table of addresses, in the order of their names.
---@param byname table<string, string>
---@return string[]
function worker.addresses(byname)
  local out = {}
  for _, address in sorted(byname) do out[#out + 1] = address end
  return out
end

--- For people.
function worker:describe()
  local parts = {}
  for _, run in sorted(self.runs) do
    parts[#parts + 1] = { job = run.body.job, part = run.body.part, attempt = run.body.attempt, fence = run.body.fence, state = run.state }
  end
  return {
    cores = self.cores, free = self.cores - self:claimed(), parts = parts, stale_refused = self.stale + self.led.stale,
    reports = self.reports:counts(), leases = self.leases:list(),
  }
end

--- End every run, report how it ended as far as there is time, and stop. Waits.
function worker:close(timeout_ms)
  self.closing = true
  for _, run in sorted(self.runs) do
    if run.state == "running" or run.state == "cancelling" then run.handle:cancel("the worker is stopping", timeout_ms / 2) end
  end
  local deadline_ms = task.now_ms() + timeout_ms
  while next(self.runs) and task.now_ms() < deadline_ms do task.sleep(10) end -- A run is here until its result is accepted.
  self.reports:close(math.max(0, deadline_ms - task.now_ms()))
  self.leases:close()
  self.scope:close()
end

return worker
