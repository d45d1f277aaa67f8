--- escaping: one seed of work while a tenth of all calls at sites fails on every node. Nothing may escape: each job ends, or says why it
--- did not; every failure is accounted for; and when the failures are over, loops live and tables are empty.
local chance = require "spec.support.chance"
local json = require "cjson"
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local escaping = {}

--- A command that cannot be applied ends its node's leadership until the node is restarted, for its state may be wrong: rarely.
local RARE = { ["tier.apply"] = 0.001, ["tier.restore"] = 0.001, ["tier.on_lead"] = 0.001 }
local FENCE_MS = 20000
local FINAL = { completed = true, failed = true, cancelled = true, timed_out = true }

local function wrong(c, format, ...)
  local path = os.getenv "SHOAL_LOG"
  if path then
    local file = assert(io.open(path, "w"))
    file:write(c.s:log())
    file:close()
  end
  error(("at %.0f ms: "):format(c.s:now_ms()) .. format:format(...), 0)
end

--- A job by its number: most are small commands; some are users of the shop, chains, failures, and jobs that are cancelled.
local function job(c, seed, n)
  if n % 10 == 3 then return c:job({ load = { vus = 2, iterations = 6, retries = 3 } }, { timeout_ms = 60000 }) end
  if n % 10 == 7 then
    return c:job({ bad = { command = { "work", ("s%d.%d.bad"):format(seed, n), "30", "1" }, retries = 1 } }, { timeout_ms = 60000 })
  end
  if n % 5 == 4 then
    return c:job({ one = { work = ("s%d.%d.one 40"):format(seed, n), retries = 3 },
      two = { after = { "one" }, work = ("s%d.%d.two 20"):format(seed, n), retries = 3 } }, { timeout_ms = 60000 })
  end
  return c:job({ one = { work = ("s%d.%d.one %d"):format(seed, n, 20 + n % 7 * 30), retries = 3 } }, { timeout_ms = 60000 })
end

---@param seed integer
---@param options? { jobs?: integer, first?: integer, share?: number, kinds?: table, retention_ms?: integer }
---@return { jobs: integer, states: table<string, integer>, injected: table<string, integer>, raised: integer }
function escaping.run(seed, options)
  options = options or {}
  local random, retention_ms = chance(seed), options.retention_ms or 120000
  local c <close> = simcluster.new {
    seed = seed, gates = 3, dcs = { "a", "b" }, workers = 2, set = { retention_ms = retention_ms, fence_ms = FENCE_MS },
  }
  local check, looks = c.check, 0
  function c:check() -- Once a second: ten nodes are many.
    looks = looks + 1
    if looks % 10 == 0 then return check(self) end
    self.checked_ms = self.s:now_ms()
  end
  local share = options.share or 0.1
  for i, node in ipairs(c.nodes) do
    c.s:fail_sites(node, { share = share, seed = seed * 100 + i, kinds = options.kinds, rare = RARE })
  end
  local ids, n = {}, options.jobs or 50
  for i = 1, n do
    local id, err, code
    for _ = 1, 10 do -- A handler that failed answers so; the same key again makes no second job.
      id, err, code = c.s:eval(c.client, "return require 'shoal.core.node'.running.state.client:submit(...)",
        job(c, seed, i + (options.first or 0)), ("key %d %d"):format(seed, i), 20000)
      if id then break end
      c:run(200)
    end
    if id then
      c.jobs[id] = { follows = 0 }
      ids[#ids + 1] = id
      c:watch(id)
    elseif not (err and code) then
      wrong(c, "job %d was refused without a reason: %s %s", i, tostring(err), tostring(code))
    end
    c:run(random(100))
  end
  local finals = {}
  local function all()
    local every = true
    for _, id in ipairs(ids) do
      finals[id] = finals[id] or c:final(id)
      every = every and finals[id] ~= nil
    end
    return every
  end
  local function restarted() -- As a supervisor does.
    for _, list in ipairs { c.gates, c.managers } do
      for _, node in ipairs(list) do
        local lost = c.s:status(node) == "up" and c.s:eval(node, [[ local node = require "shoal.core.node".running
          return node and node.state and node.state.lead and node.state.lead.tier.state == "lost" ]])
        if lost then c:crash(node) end
        if c.s:status(node) ~= "up" then c:restart(node) end
      end
    end
    return all()
  end
  c:until_true(restarted, 150000, 500)
  local injected = {}
  for _, node in ipairs(c.nodes) do c.s:fail_sites(node, nil) end
  -- The client's own tasks failed too: a follower that ended so asks again.
  for _, id in ipairs(ids) do
    if not finals[id] or not FINAL[finals[id].state] then
      finals[id] = nil
      c:watch(id)
    end
  end
  c:until_true(restarted, 60000, 500)
  local states = {}
  for _, id in ipairs(ids) do
    local final = finals[id]
    if not final then wrong(c, "%s has no final state: %s", id, json.encode(c:states(id))) end
    if not FINAL[final.state] then wrong(c, "%s: %s, %s: %s", id, final.state, tostring(final.reason), json.encode(c:states(id))) end
    if final.state ~= "completed" and (final.reason or "") == "" then wrong(c, "%s is %s, and nothing says why", id, final.state) end
    states[final.state] = (states[final.state] or 0) + 1
  end
  -- The loops live: new work is done as ever.
  local spec = c:job { probe = { vus = 2, iterations = 6 }, last = { after = { "probe" }, work = ("last%d 20"):format(seed) } }
  local probe = c:complete(spec, nil, 60000)
  if probe.state ~= "completed" then wrong(c, "a probe at the end is %s: %s", probe.state, tostring(probe.reason)) end
  local raised = 0
  for _, node in ipairs(c.nodes) do
    if c.s:status(node) ~= "up" then wrong(c, "%s has ended", node.name) end
    local counts = c:on(node, "local out = {} for _, e in ipairs(require('shoal.errors').counts()) do out[e.site] = e.raised end return out")
    for site, count in sorted(counts) do
      raised = raised + count
      injected[site] = (injected[site] or 0) + count
    end
  end
  c:rest { ms = math.max(retention_ms, FENCE_MS) + 10000 }
  local log = c.s:log()
  local line = log:match "[^\n]*shoal: incident at[^\n]*" or log:match "[^\n]*%.crash[^\n]*"
  if line then wrong(c, "a line past the door: %s", line) end
  return { jobs = #ids, states = states, injected = injected, raised = raised, ms = c.s:now_ms() }
end

return escaping
