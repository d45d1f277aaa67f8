--- Leases through the unmodified roles (F21, F22, F24, F25, F42, F26 in part) and finding 2.3: the right to run a part, and the leadership of a
--- job, each held for as long as it is renewed.
local followed = require "spec.support.followed"
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local submitted, ended = followed.submitted, followed.ended

local LEASE_MS = 6000 -- The leases of these specs: more than twice what the local profile takes to detect a death.

local function names(ids) return table.concat(sorted.keys(ids), " ") end

local function cluster(options)
  options = options or {}
  options.set = options.set or {}
  options.set.lease_ms = options.set.lease_ms or LEASE_MS
  options.set.restart_ms = options.set.restart_ms or 20000
  options.workers = options.workers or 2
  return simcluster.new(options)
end

--- A job of one part that runs for this long, and the worker that has it.
local function running(c, ms, fields)
  local w = { work = ("one %d"):format(ms) }
  for key, value in pairs(fields or {}) do w[key] = value end -- order-free: a copy
  local id = submitted(c, c:job { one = w })
  c:run(500)
  local name = c:on(c.managers[1], "local p = state.lead.ledger.runs[...].parts['one/1'] return p.executor, p.fence", id)
  for _, worker in ipairs(c.workers) do
    if worker.name == name then return id, worker end
  end
end

local function runs(c, worker)
  local look = c:ask(worker, "look")
  local n = 0
  for _, run in pairs(look.worker.runs) do -- order-free: a count
    if run.state == "running" or run.state == "cancelling" then n = n + 1 end
  end
  return n
end

local function attempts(final)
  local out = {}
  for _, a in ipairs(final.result.attempts) do out[#out + 1] = ("%s %s"):format(a.executor, a.state) end
  table.sort(out)
  return out
end

describe("the lease of a part:", function ()
  it("F25: is renewed by its worker with all others in one message, and released with the part", function ()
    local c <close> = cluster {}
    local m = c.managers[1]
    c:on(m, [[ local real = node.rpc.handlers["lease.renew"]
      node.spec_seen = {}
      node.rpc.handlers["lease.renew"] = function (body, peer)
        node.spec_seen[#node.spec_seen + 1] = { holder = body.holder, items = #body.items, at_ms = node.world:now_ns() // 1000000 }
        return real(body, peer)
      end ]])
    local id = submitted(c, c:job { one = { work = "one 15000", parts = 6 } })
    c:run(14000)
    local seen, at = c:on(m, "return node.spec_seen"), {}
    for _, each in ipairs(seen) do
      assert.equal(3, each.items)
      local last = at[each.holder]
      if last then -- A third, less up to a fifth.
        assert.is_true(each.at_ms - last >= 1600 and each.at_ms - last <= 2100, each.at_ms - last)
      end
      at[each.holder] = each.at_ms
    end
    assert.same({ "w-a1", "w-a2" }, sorted.keys(at))
    ended(c, id, "completed")
    assert.same({ "w-a1 completed", "w-a1 completed", "w-a1 completed", "w-a2 completed", "w-a2 completed", "w-a2 completed" },
      attempts(c:final(id)))
    c:rest()
  end)

  it("F25, F42: expires when its worker is cut off from its manager alone; the worker has stopped it by then, and it runs elsewhere, once",
    function ()
      local c <close> = cluster { workers = 3 }
      local m = c.managers[1]
      local id, w = running(c, 30000, { retries = 1 })
      local at = c.s:now_ms()
      c.s:cut(w, m) -- Not c:cut: the invariant "one live execution" stays in force.
      assert.truthy(c:until_true(function () return runs(c, w) == 0 end, 12000, 50), "it runs on")
      local stopped_ms = c.s:now_ms() - at
      assert.is_true(stopped_ms > LEASE_MS - LEASE_MS / 3 - 500 and stopped_ms <= LEASE_MS + 2000, stopped_ms)
      local told = c:incidents(w, "worker.orphan")
      assert.equal(1, #told)
      assert.equal("address attempt expired_for_ms fence grace_ms job leader part workflow", names(told[1].ids))
      assert.same({ id, "one/1", "m-a1", 0 }, { told[1].ids.job, told[1].ids.part, told[1].ids.leader, told[1].ids.grace_ms })
      assert.truthy(c:until_true(function ()
        return c:on(m, "local p = state.lead.ledger.runs[...].parts['one/1'] return p.attempt == 2 and p.state == 'dispatched'", id)
      end, 12000, 50), "it is not dispatched again")
      local lost = c:incidents(m, "lead.attempt_lost")
      assert.equal(1, #lost)
      assert.truthy(lost[1].message:find("its lease expired: " .. w.name, 1, true), lost[1].message)
      c.s:heal(w, m)
      assert.equal(2, #ended(c, id, "completed").result.attempts)
      assert.equal(2, c.ran.one)
      c:rest { ms = 40000 }
    end)

  it("F24: of a manager that is down is kept by its worker: a restart within the grace keeps the part", function ()
    local c <close> = cluster {}
    local m = c.managers[1]
    local id, w = running(c, 45000, { retries = 1 })
    c:crash(m)
    c:run(15000) -- More than two leases.
    assert.equal(1, runs(c, w))
    assert.equal("orphan", c:on(w, "return state.worker.leases:list()[1].state"))
    c:restart(m)
    assert.truthy(c:until_true(function () return c:on(w, "return state.worker.leases:list()[1].state") == "held" end, 20000, 100))
    assert.same({ w.name .. " completed" }, attempts(ended(c, id, "completed")))
    assert.equal(1, c.ran.one)
    assert.equal(0, c:counts(w, "worker.orphan").raised)
    c:rest()
  end)

  it("F24: whose manager does not come back within the grace: the part is ended, its cores are free, its result waits", function ()
    local c <close> = cluster { set = { restart_ms = 5000 } }
    local m = c.managers[1]
    local id, w = running(c, 60000, { retries = 1 })
    c:crash(m)
    c:run(LEASE_MS + 2000)
    assert.equal(1, runs(c, w))
    assert.truthy(c:until_true(function () return runs(c, w) == 0 end, 20000, 100))
    local told = c:incidents(w, "worker.orphan")
    assert.equal(1, #told)
    assert.is_true(told[1].ids.grace_ms >= 5000 + 1000 + 2600 and told[1].ids.expired_for_ms >= told[1].ids.grace_ms)
    assert.same({ 0, 1 }, c:on(w, "return { state.worker:claimed(), state.worker.reports:counts().results }"))
    c:run(5000)
    c:restart(m)
    local final = ended(c, id, "completed", 120000)
    local lost
    for _, a in ipairs(final.result.attempts) do lost = lost or a.state == "lost" and a end
    assert.truthy(lost.reason:find("it was an orphan for", 1, true), lost.reason)
    assert.equal(2, c.ran.one)
    c:rest()
  end)
end)
