--- agree: run one seed of work and faults. At each instant a job's status, its result and the events pushed to its client must agree; no
--- claim of cores may leak; no part may run more often than allowed. spec/sim/results_spec.lua runs a few seeds, `scripts/study
--- results` a thousand.
local chance = require "spec.support.chance"
local json = require "cjson"
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local agree = {}

local FAULTS_MS = 15000
local FINAL = { completed = true, failed = true, cancelled = true, timed_out = true }

local function wrong(c, format, ...) error(("at %.0f ms: "):format(c.s:now_ms()) .. format:format(...), 0) end

--- Compare every leader's answers about a job with each other and with its earlier answers.
local function look(c, jobs)
  for _, node in ipairs(c.leaders) do
    local up = c:ask(node, "look")
    if up and up.lead then
      local seen = c:on(node, [[
        local out = {}
        local lead = state.lead
        if not lead or lead.fence == 0 then return out end
        for _, id in ipairs { ... } do
          local found = lead:get(id)
          if found then
            local r = found.result
            out[id] = {
              state = found.state, result = r and r.state, requests = r and r.stats and r.stats.requests, reason = found.reason,
              result_reason = r and (r.reason or ""),
            }
          end
        end
        return out ]], table.unpack(jobs)) or {}
      for id, now in sorted(seen) do
        local before = c.said[id]
        if before and FINAL[before.state] and before.state ~= now.state then
          wrong(c, "%s: %s was %s, and is %s", node.name, id, before.state, now.state)
        end
        if FINAL[now.state] and now.result ~= now.state then
          wrong(c, "%s: %s is %s, its result says %s", node.name, id, now.state, tostring(now.result))
        end
        if before and before.requests and now.requests ~= before.requests then
          wrong(c, "%s: the result of %s had %d requests, and has %s", node.name, id, before.requests, tostring(now.requests))
        end
        if FINAL[now.state] and now.reason ~= now.result_reason then
          wrong(c, "%s: %s ended for %q, its result says %q", node.name, id, now.reason, tostring(now.result_reason))
        end
        c.said[id] = now
      end
    end
  end
end

--- Begin a fault; returns the function that ends it.
local function fault(c, random, node)
  local kind = random(6)
  if kind == 1 then
    c.parted = true
    c.s:stall(node, 500 + random(7500))
    return 8000, function () end
  elseif kind == 2 then
    c:crash(node)
    return 300 + random(3000), function () c:restart(node) end
  elseif (kind == 3 or kind == 5) and node.role ~= "worker" and random(2) == 1 then
    c.s:disk(node, { sync_ms = 1000 + random(5500) })
    return 2000 + random(6000), function () c.s:disk(node) end
  elseif kind == 4 and node.role ~= "worker" then
    local function limit(most)
      local up = c:ask(node, "look")
      if up and up.lead then c:on(node, "state.lead.tier.options.outstanding_max = ...", most) end
    end
    limit(3)
    return 2000 + random(6000), function () limit(1024) end
  elseif kind == 5 then
    local other = c.faulty[random(#c.faulty)]
    if other == node then return 0, function () end end
    c:cut(node, other)
    return 200 + random(6000), function () c:heal(node, other) end
  elseif kind == 6 and node.role ~= "worker" then
    c.s:disk(node, { full = true })
    return 200 + random(3000), function () c.s:disk(node) end
  end
  return 0, function () end
end

---@param seed integer
---@return { jobs: integer, states: table<string, integer>, faults: integer }
function agree.run(seed)
  local random = chance(seed)
  local gates = random(3) - 1 > 0 and 1 or 0
  local retries = random(3) - 1
  local c <close> = simcluster.new {
    seed = seed, loss = 0.01, gates = gates, dcs = gates == 1 and random(2) == 1 and { "a", "b" } or { "a" }, workers = 2,
    set = { retention_ms = 600000, fence_ms = 20000 }, set_manager = { manager_silent_ms = 15000 }, set_gate = { gate_silent_ms = 25000 },
  }
  c.said, c.leaders, c.faulty = {}, {}, {}
  for _, list in ipairs { c.gates, c.managers, c.workers } do
    for _, node in ipairs(list) do c.faulty[#c.faulty + 1] = node end
  end
  c.leaders[1] = c.gates[1] or c.managers[1]
  local jobs, faults, under_way = {}, 0, {}
  local until_ms = c.s:now_ms() + FAULTS_MS
  local submitted = 0
  local function submit()
    submitted = submitted + 1
    local n = submitted
    local spec
    if n % 3 == 0 then
      spec = c:job { load = { vus = 3, iterations = 30, retries = retries } }
    else
      spec = c:job({ one = { work = ("s%d.%d.one %d"):format(seed, n, 20 + random(1500)), retries = retries },
        two = { after = { "one" }, work = ("s%d.%d.two 30"):format(seed, n), retries = retries } },
        { timeout_ms = n % 4 == 0 and 2000 + random(8000) or nil })
    end
    local id = c:submit(spec, ("key %d %d"):format(seed, n), 100)
    if not id then return end
    jobs[#jobs + 1] = id
    c:watch(id)
    if n % 5 == 0 then c.cancel_id, c.cancel_ms = id, c.s:now_ms() + random(2000) end
  end
  while c.s:now_ms() < until_ms do
    if submitted < 10 then submit() end
    c:run(100 + random(600))
    look(c, jobs)
    if c.cancel_id and c.s:now_ms() >= c.cancel_ms then
      local id = c.cancel_id
      c.cancel_id = nil
      c:on(c.client, "local id = ... node.scope:spawn('spec.follow', {}, function () state.client:cancel(id, 'enough') end)", id)
    end
    do
      local node = c.faulty[random(#c.faulty)]
      if c.s:status(node) == "up" and not under_way[node.name] then
        local ms, undo = fault(c, random, node)
        if ms > 0 then
          faults = faults + 1
          under_way[node.name] = { at_ms = c.s:now_ms() + ms, undo = undo }
        end
      end
    end
    for name, f in sorted(under_way) do
      if c.s:now_ms() >= f.at_ms then
        f.undo()
        under_way[name] = nil
      end
    end
  end
  for _, f in sorted(under_way) do f.undo() end
  for _, node in ipairs(c.faulty) do -- After a full disk a node may have ended, or may no longer lead.
    local look_at = c.s:status(node) == "up" and node.role ~= "worker" and c:ask(node, "look")
    local leads = not look_at or not look_at.lead or c:on(node, "return state.lead.tier.state ~= 'lost'")
    if not leads then c:crash(node) end
    if c.s:status(node) ~= "up" then c:restart(node) end
  end
  local finals, states = {}, {}
  local all = c:until_true(function ()
    look(c, jobs)
    for _, id in ipairs(jobs) do
      finals[id] = finals[id] or c:final(id)
      if not finals[id] then return false end
    end
    return true
  end, 240000, 200)
  for _, id in ipairs(jobs) do
    local final = finals[id]
    if not all and not final then wrong(c, "%s has no final state: %s", id, json.encode(c:states(id))) end
    states[final.state] = (states[final.state] or 0) + 1
    local said = c.said[id]
    if not said or said.state ~= final.state or final.result.state ~= final.state then
      wrong(c, "%s: its client has %s and a result %s, its leader %s", id, final.state, tostring(final.result and final.result.state),
        said and said.state or "nothing")
    end
    c:check_pushes(id)
    if final.state == "completed" then c:check_counts(id, final) end
  end
  for name, count in sorted(c.ran) do
    if count > retries + 1 then wrong(c, "%s ran %d times, %d retries are allowed", name, count, retries) end
  end
  c:run(65000) -- Late cancels, orphans.
  for _, node in ipairs(c.nodes) do
    local seen = c:ask(node, "look")
    for name, e in sorted(seen and seen.lead and seen.lead.executors or {}) do
      if e.claimed ~= 0 then wrong(c, "%s: at rest %s has %d cores claimed", node.name, name, e.claimed) end
    end
    if seen and seen.worker and (seen.worker.claimed ~= 0 or next(seen.worker.runs)) then
      wrong(c, "%s: at rest %d cores are claimed, by %s", node.name, seen.worker.claimed, tostring(next(seen.worker.runs)))
    end
    if seen and seen.lead then
      local left = c:on(node, [[ local l = state.lead
        return { runs = next(l.runs) or "", attempts = l.attempts and l.attempts.count or 0,
          cancels = l.attempts and next(l.attempts.cancels) or "", queue = l.placing and #l.placing.queue or 0 } ]])
      if left.runs ~= "" or left.attempts ~= 0 or left.cancels ~= "" or left.queue ~= 0 then
        wrong(c, "%s: at rest it holds %s", node.name, json.encode(left))
      end
    end
  end
  look(c, jobs)
  return { jobs = #jobs, states = states, faults = faults }
end

return agree
