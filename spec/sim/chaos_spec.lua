--- F74: seeded crashes and restarts of every role, loss and cuts, while jobs run. No job is lost or done twice, each ends in a final
--- state that its client sees, and when the faults are over a probe job completes and everything comes to rest.
---
--- SHOAL_SEEDS=FROM-TO runs those seeds instead of the few of every day.
local chance = require "spec.support.chance"
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local FROM, TO = 1, (os.getenv "SHOAL_BUILD" or ""):find "sanitize" and 2 or 15
if os.getenv "SHOAL_SEEDS" then
  local from, to = os.getenv("SHOAL_SEEDS"):match "^(%d+)%-(%d+)$"
  FROM, TO = assert(tonumber(from), "SHOAL_SEEDS is FROM-TO"), assert(tonumber(to))
end

local FAULTS_MS = 10000

--- Some time of faults: each ends again within it.
local function faults(c, random)
  local all = { c.gates[1] }
  for _, list in ipairs { c.managers, c.workers } do
    for _, node in ipairs(list) do all[#all + 1] = node end
  end
  local down, cut = {}, {}
  local until_ms = c.s:now_ms() + FAULTS_MS
  while c.s:now_ms() < until_ms do
    c:run(100 + random(700))
    local node, kind = all[random(#all)], random(5)
    if kind <= 2 and not down[node.name] then
      c:crash(node)
      down[node.name] = { node = node, at_ms = c.s:now_ms() + 200 + random(3000) }
    elseif kind == 3 then
      local other = all[random(#all)]
      if other ~= node then
        c:cut(node, other)
        cut[#cut + 1] = { a = node, b = other, at_ms = c.s:now_ms() + 200 + random(4000) }
      end
    elseif kind == 4 and not down[node.name] and node.role == "worker" then
      c:pause(node)
      down[node.name] = { node = node, at_ms = c.s:now_ms() + 200 + random(2500), paused = true }
    end
    local over = c.s:now_ms() >= until_ms
    for name, d in sorted(down) do
      if over or c.s:now_ms() >= d.at_ms then
        if d.paused then c:resume(d.node) else c:restart(d.node) end
        down[name] = nil
      end
    end
    for i = #cut, 1, -1 do
      if over or c.s:now_ms() >= cut[i].at_ms then
        c:heal(cut[i].a, cut[i].b)
        table.remove(cut, i)
      end
    end
  end
end

local function one_seed(seed)
  local random = chance(seed)
  local c <close> = simcluster.new {
    seed = seed, loss = 0.02, gates = 1, dcs = { "a", "b" }, workers = 2,
    set = { retention_ms = 60000, fence_ms = 20000 }, set_manager = { manager_silent_ms = 15000 }, set_gate = { gate_silent_ms = 25000 },
  }
  local ids = {}
  for i = 1, 4 do
    local spec = i % 2 == 1
      and c:job { first = { vus = 4, iterations = 80, retries = 8 },
        second = { after = { "first" }, work = "second" .. i .. " 300", retries = 8 } }
      or c:job { long = { vus = 4, duration_ms = 3000, retries = 8, env = { PACE_MS = "200" } } }
    ids[i] = assert(c:submit(spec, "key " .. seed .. " " .. i))
    c:watch(ids[i])
  end
  faults(c, random)
  local finals = {}
  local all = c:until_true(function ()
    for _, id in ipairs(ids) do
      finals[id] = finals[id] or c:final(id)
      if not finals[id] then return false end
    end
    return true
  end, 180000, 200)
  for i, id in ipairs(ids) do
    if not all and not finals[id] then error(("job %d, %s, has no final state: %s"):format(i, id, require("cjson").encode(c:states(id)))) end
    local final = finals[id]
    assert.truthy(({ completed = true, failed = true })[final.state], tostring(final.state) .. " " .. tostring(final.reason))
    if final.state == "completed" then
      c:check_counts(id, final)
      if i % 2 == 1 then assert.equal(80, final.result.stats.requests) end
    else
      assert.is_true(#final.reason > 0)
    end
    -- The same key is the same job still, so it is none with other content.
    local _, refusal, code = c:submit(c:job { other = { work = "other 1" } }, "key " .. seed .. " " .. i)
    assert.equal("CONFLICT", code)
    assert.truthy(refusal:find(id, 1, true), refusal)
    c:check_pushes(id)
  end
  assert.is_nil(c.ran.other)
  local probe = c:complete(c:job { probe = { vus = 4, iterations = 20 }, last = { after = { "probe" }, work = "last 20" } })
  assert.equal("completed", probe.state, probe.reason)
  assert.equal(20, probe.result.stats.requests)
  c:rest { ms = 80000 }
  local states = {}
  for i, id in ipairs(ids) do states[i] = finals[id].state end
  return states
end

describe("chaos:", function ()
  for seed = FROM, TO do
    it(("F74: seed %d: crashes, restarts, cuts, pauses and loss: no job is lost or doubled"):format(seed), function ()
      one_seed(seed)
    end)
  end
end)
