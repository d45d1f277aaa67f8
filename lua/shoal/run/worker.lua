--- worker: runs parts for whoever leads, one child process each, and reports what they do.
---
--- The cores are counted here: a dispatch claims its cores before anything starts and the end of the run releases them, on
--- every path, so that claimed + free = cores at each instant. A part's greatest fence is remembered while the part is known; a lower
--- one is refused and counted.
local errors = require "shoal.base.errors"
local job = require "shoal.job.spec"
local log = require "shoal.base.log"
local reports = require "shoal.run.reports"
local runner = require "shoal.run.runner"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local worker = {}
worker.__index = worker

local FENCES_MAX = 4096 -- Parts that ended, whose fence is remembered against late messages; for fence_ms at most.

---@param node table
---@param options { flush_ms: number, others: fun(): string[] }
function worker.open(node, options)
  local self = setmetatable({
    node = node, scope = task.scope("worker", node.scope), cores = node.config.cores, claimed = 0, runs = {}, fences = {},
    ended = {}, leaders = {}, stale = 0,
  }, worker)
  self.reports = reports.open(node, {
    owner = "worker", interval_ms = options.flush_ms, others = options.others,
    unknown = function (record)
      self:cancel { job = record.job, part = record.part, fence = record.fence, reason = "its leader knows nothing of it", deadline_ms = 5000 }
    end,
  })
  self.scope:loop("worker.forget", {}, { interval_ms = math.max(50, math.min(1000, node.config.fence_ms)) }, function ()
    self:forget_old()
  end)
  return self
end

local function key_of(body) return body.job .. " " .. body.part end

local function release(self, run)
  if run.released then return end
  run.released = true
  self.claimed = self.claimed - run.cores
  assert(self.claimed >= 0)
end

local function forget_oldest(self)
  local oldest = table.remove(self.ended, 1)
  if self.fences[oldest.key] == oldest.fence and not self.runs[oldest.key] then self.fences[oldest.key] = nil end
end

--- Remember the fence of a part that ended: for a bounded number of parts, and no longer than a late message may take. It never
--- goes back.
local function remember(self, key, fence)
  fence = math.max(fence, self.fences[key] or 0)
  self.fences[key] = fence
  self.ended[#self.ended + 1] = { key = key, fence = fence, until_ms = task.now_ms() + self.node.config.fence_ms }
  if #self.ended > FENCES_MAX then forget_oldest(self) end
end

--- Fences whose time is over.
function worker:forget_old()
  while self.ended[1] and self.ended[1].until_ms <= task.now_ms() do forget_oldest(self) end
end

local function on_result(self, run, result)
  local body = run.body
  release(self, run)
  run.state = "reporting"
  local incidents = {}
  for _, incident in ipairs(errors.incidents()) do
    if incident.ids.job == body.job and incident.ids.part == body.part then
      incidents[#incidents + 1] = {
        id = incident.id, node = incident.node, site = incident.site, level = incident.level, message = incident.message,
        where = incident.where, count = incident.count,
      }
    end
  end
  for _, incident in ipairs(result.incidents or {}) do incidents[#incidents + 1] = incident end
  for _, line in ipairs(result.log or {}) do -- What the script printed.
    log.info("part.log", { job = body.job, part = body.part, attempt = body.attempt, text = line })
  end
  self.reports:result({
    job = body.job, workflow = body.workflow, part = body.part, attempt = body.attempt, fence = body.fence, leader = body.leader,
    state = result.state, reason = result.reason, stats = result.summary or {},
    result = job.pack({ stats = result.stats, incidents = incidents }),
  }, function ()
    local key = key_of(body)
    if self.runs[key] == run then self.runs[key] = nil end
    remember(self, key, body.fence)
  end)
end

--- A leader's dispatch. The same one again is answered as the first was.
function worker:dispatch(body)
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
    known.handle:cancel("a newer attempt was dispatched", 1000)
    return nil, "an earlier attempt of this part is still being ended here", "OVERLOADED"
  end
  local dispatch, err = job.read_dispatch(body)
  if not dispatch then return nil, err, "MALFORMED" end
  local cores = dispatch.cores or 1
  if self.cores - self.claimed < cores then
    return nil, ("%d of %d cores are free, %d were asked for"):format(self.cores - self.claimed, self.cores, cores), "FULL"
  end
  local run = { body = body, cores = cores, state = "running" }
  self.claimed = self.claimed + cores
  self.fences[key], self.runs[key] = body.fence, run
  local free <close> = setmetatable({}, { __close = function () -- Refused or raised: nothing of it stays, so that it can be sent again.
    if run.handle then return end
    release(self, run)
    self.runs[key], self.fences[key] = nil, greatest > 0 and greatest or nil
  end })
  local problem, code
  run.handle, problem, code = runner.start(self.node, self.scope, dispatch, function (summary)
    if run.state ~= "running" then return end
    self.reports:progress({
      job = body.job, workflow = body.workflow, part = body.part, attempt = body.attempt, fence = body.fence,
      leader = body.leader, leader_name = body.leader_name, stats = summary,
    })
  end, function (result) on_result(self, run, result) end)
  if not run.handle then return nil, problem, code end
  return { state = "accepted" }
end

--- End one attempt. Its result follows as of any other; "unknown" when it is not here.
function worker:cancel(body)
  local run = self.runs[key_of(body)]
  if not run or run.body.fence > body.fence then return { state = "unknown" } end
  if run.state == "running" then run.handle:cancel(body.reason, body.deadline_ms) end
  return { state = "cancelling" }
end

--- A leader says that it leads, and hears what runs here.
function worker:lead(body)
  local known = self.leaders[body.tier]
  if known and body.fence < known.fence and body.node ~= known.node then
    return nil, ("%s leads with fence %d"):format(known.node, known.fence), "STALE"
  end
  self.leaders[body.tier] = { node = body.node, address = body.address, fence = body.fence }
  local parts = {}
  for _, run in sorted(self.runs) do
    parts[#parts + 1] = { job = run.body.job, part = run.body.part, fence = run.body.fence, attempt = run.body.attempt }
  end
  return { cores = self.cores, parts = parts }
end

--- The values of a table of addresses, in the order of their names.
---@param byname table<string, string>
---@return string[]
function worker.addresses(byname)
  local out = {}
  for _, address in sorted(byname) do out[#out + 1] = address end
  return out
end

--- What a person asks for.
function worker:describe()
  local parts = {}
  for _, run in sorted(self.runs) do
    parts[#parts + 1] = { job = run.body.job, part = run.body.part, attempt = run.body.attempt, fence = run.body.fence, state = run.state }
  end
  return { cores = self.cores, free = self.cores - self.claimed, parts = parts, stale_refused = self.stale, reports = self.reports:counts() }
end

--- End every run, report how it ended as far as there is time, and stop. Waits.
function worker:close(timeout_ms)
  self.closing = true
  for _, run in sorted(self.runs) do
    if run.state == "running" then run.handle:cancel("the worker is stopping", timeout_ms / 2) end
  end
  local deadline_ms = task.now_ms() + timeout_ms
  while next(self.runs) and task.now_ms() < deadline_ms do task.sleep(10) end -- A run is here until its result is accepted.
  self.reports:close(math.max(0, deadline_ms - task.now_ms()))
  self.scope:close()
end

return worker
