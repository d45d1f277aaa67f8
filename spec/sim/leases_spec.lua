--- Leases through the unmodified roles (F21, F22, F24, F25, F42, F26 in part) and finding 2.3: the right to run a part, and the leadership of a
--- job, each held for as long as it is renewed.
local followed = require "spec.support.followed"
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local submitted, ended = followed.submitted, followed.ended

local POLICY = "/shoal/scripts/policies/errors.lua"
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
  it("whose renewal raises is renewed by the next one that is due, and tasks that failed do not gather", function ()
    local c <close> = cluster { set = { lease_ms = 3000 } }
    local id, w = running(c, 30000)
    c:on(w, [[ local leases = state.worker.leases
      node.spec_real, node.spec_raised = leases.options.led, 0
      leases.options.led = setmetatable({}, { __index = node.spec_real }) -- Acks are compared with it, too.
      function leases.options.led.check()
        node.spec_raised = node.spec_raised + 1
        error "an answer that cannot be read"
      end ]])
    c:run(20000)
    assert.is_true(c:on(w, "return state.worker.leases.scope.tasks") <= 2)
    assert.is_true(c:on(w, "return node.spec_raised") <= 60)
    c:on(w, "state.worker.leases.options.led = node.spec_real")
    ended(c, id)
    c:rest()
  end)

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

  it("F24: whose manager was restarted before the lease ended is kept, though the connection to it takes longer to come back", function ()
    local c <close> = cluster {}
    local m = c.managers[1]
    local id, w = running(c, 60000, { retries = 1 })
    c:crash(m)
    c:run(3500)
    c:restart(m)
    c:cut(w, m) -- They see each other by way of the other worker.
    c:run(20000)
    c:heal(w, m)
    assert.same({ w.name .. " completed" }, attempts(ended(c, id, "completed", 120000)))
    assert.equal(1, c.ran.one)
    assert.same({ 0, 0 }, { c:counts(w, "worker.orphan").raised, c:counts(m, "lead.attempt_lost").raised })
    c:rest { ms = 30000 }
  end)

  it("F24: whose manager is back and does not answer is ended before that one gives it to another", function ()
    local c <close> = cluster { set = { restart_ms = 600000 } }
    local m = c.managers[1]
    local id, w = running(c, 200000, { retries = 1 })
    c:crash(m)
    c:run(3500)
    c:restart(m)
    c.parted = false -- No two may run, though nobody reaches anybody:
    c.s:cut(w, m)
    assert.truthy(c:until_true(function () return runs(c, w) == 0 end, 60000, 100), "it runs on")
    assert.truthy(c:incidents(w, "worker.orphan")[1].message:find("m-a1 has been back for", 1, true))
    assert.truthy(c:until_true(function ()
      local part = c:on(m, "local p = state.lead.ledger.runs[...].parts['one/1'] return { p.attempt, p.state }", id)
      return part[1] == 2 and part[2] == "dispatched"
    end, 30000, 100), "it is not dispatched again")
    c.s:heal(w, m)
    assert.equal(2, #ended(c, id, "completed", 300000).result.attempts)
  end)

  it("F26: is lost by no jitter, loss or backlog; a renewal that is sent twice counts once", function ()
    local c <close> = cluster { workers = 2, seed = 5, set = { retention_ms = 60000 } }
    local m = c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 25000", parts = 6, retries = 0 } })
    c:run(500)
    c.s:link(nil, nil, { latency_ms = 20, jitter_ms = 300, loss = 0.05 })
    c:on(m, [[ local real = node.rpc.handlers["lease.renew"]
      node.rpc.handlers["lease.renew"] = function (body, peer)
        require("shoal.task").sleep(600) -- A backlog.
        real(body, peer)
        return real(body, peer)
      end ]])
    c:run(12000)
    local left = c:on(m, [[ local most = 0
      for key, a in pairs(state.lead.leases.of) do most = math.max(most, state.lead.leases.grantor:get(key).left_ms) end
      return most ]])
    assert.is_true(left <= LEASE_MS * 1.02 + 1, left)
    c.s:link(nil, nil, { latency_ms = 1, jitter_ms = 0.3 })
    assert.equal(6, #ended(c, id, "completed").result.attempts)
    assert.equal(0, c:counts(m, "lead.attempt_lost").raised)
    c:rest()
  end)

  it("F25: is not revoked by a manager that was stopped for longer than it lasts, and then woke", function ()
    local c <close> = cluster {}
    local m = c.managers[1]
    local id, w = running(c, 40000, { retries = 1 })
    c:pause(m)
    c:run(2.5 * LEASE_MS)
    c:resume(m)
    c:run(LEASE_MS)
    assert.equal(0, c:counts(m, "lead.attempt_lost").raised)
    assert.equal("held", c:on(w, "return state.worker.leases:list()[1].state"))
    assert.equal(1, #ended(c, id, "completed").result.attempts)
    c:rest()
  end)

  it("F25: is lost by no node that was stopped with all others, and woke", function ()
    local c <close> = cluster {}
    local id = submitted(c, c:job { one = { work = "one 30000", parts = 4, retries = 0 } })
    c:run(500)
    local nodes = { c.managers[1], c.workers[1], c.workers[2] }
    for _, node in ipairs(nodes) do c:pause(node) end
    c:run(3 * LEASE_MS)
    for _, node in ipairs(nodes) do c:resume(node) end
    assert.equal(4, #ended(c, id, "completed", 100000).result.attempts)
    assert.equal(4, c.ran.one)
    c:rest()
  end)

  it("F21: a renewal with an earlier fence, or of what is not held, is refused, counted, and ends the part", function ()
    local c <close> = cluster {}
    local m = c.managers[1]
    local id, w = running(c, 20000)
    local answer = c:on(m, [[ local id, holder = ...
      local a = state.lead.attempts:get(id, "one/1")
      local r = state.lead:renew { holder = holder, items = { { key = a.lease, fence = a.fence - 1 }, { key = "x y", fence = 1 },
        { key = a.lease, fence = a.fence } } }
      local out = {}
      for i, each in ipairs(r.refused) do out[i] = each.key .. " " .. each.code end
      local other = state.lead:renew { holder = "w-zz", items = { { key = a.lease, fence = a.fence } } }
      return { out, r.ttl_ms, state.lead:lease_counts().stale_refused, other.refused[1].code } ]], id, w.name)
    assert.same({ { id .. " one/1 STALE", "x y NOT_FOUND" }, LEASE_MS, 1, "HELD" }, answer)
    c:on(m, [[ local real = node.rpc.handlers["lease.renew"]
      node.rpc.handlers["lease.renew"] = function (body, peer)
        local reply = real(body, peer)
        for i, item in ipairs(body.items) do reply.refused[i] = { key = item.key, fence = item.fence, code = "STALE" } end
        return reply
      end ]])
    assert.truthy(c:until_true(function () return runs(c, w) == 0 end, 4500, 50))
    ended(c, id)
  end)

  it("F25: that its leader has no room for is refused: the dispatch ends with the reason, and is made again until there is room", function ()
    local c <close> = cluster { set_worker = { cores = 3 } }
    local m = c.managers[1]
    c:on(m, [[ local leases = state.lead.leases
      leases.grantor:close()
      leases.grantor = assert(require "shoal.lease".grantor(node.world, {
        node = node.name, ttl_ms = leases.ttl_ms, leases_max = 3, past_ms = 0,
      }, function (event) leases:expired(event) end)) ]])
    local id = submitted(c, c:job { one = { work = "one 5000", parts = 3, retries = 0 } }) -- Two have room beside the job's leadership.
    c:run(3000)
    local told = c:incidents(m, "lease.grant")
    assert.same({ id, "FULL" }, { told[1].ids.job, told[1].code })
    assert.is_nil(told[1].missing)
    assert.equal("fence holder job part", names(told[1].ids))
    assert.equal(2, runs(c, c.workers[1]) + runs(c, c.workers[2]))
    local final = ended(c, id, "completed")
    assert.equal(3, c.ran.one)
    local refused
    for _, a in ipairs(final.result.attempts) do refused = refused or a.state == "refused" and a end
    assert.truthy(refused.reason:find("its lease: ", 1, true), refused.reason)
    assert.is_true(c:counts(m, "lease.grant").raised <= 8) -- Not in a hot loop.
    c:rest()
  end)

  it("F25: at most 1000 are in one message; with one more there are two", function ()
    local c <close> = cluster { workers = 1 }
    local m, w = c.managers[1], c.workers[1]
    c:on(m, [[ node.spec_items = {}
      node.rpc.handlers["lease.renew"] = function (body)
        node.spec_items[#node.spec_items + 1] = #body.items
        return { ttl_ms = state.lead.leases.ttl_ms, fence = state.lead.fence, refused = {} }
      end ]])
    local function take(from, to)
      c:on(w, [[ local from, to, address, name = ...
        for i = from, to do
          local record = { job = "j", workflow = "w", part = "w/" .. i, attempt = 1, fence = i, leader = address, leader_name = name }
          state.worker.leases:take(record, 6000)
        end ]], from, to, m.address, m.name)
    end
    take(1, 1000)
    c:run(2500)
    assert.same({ 1000 }, c:on(m, "return node.spec_items"))
    take(1001, 1001)
    c:run(2000)
    assert.same({ 1000, 1000, 1 }, c:on(m, "return node.spec_items"))
    assert.equal(0, c:counts(w, "worker.lease.renew").raised)
    c:on(w, "state.worker.leases:drop_all()")
  end)

  for _, cancel_ms in ipairs { 2500, 1000000 } do
    it(("F42: a part that is given up runs elsewhere only when its worker has ended it; its cancel takes %d ms"):format(cancel_ms), function ()
      local c <close> = cluster { set = { lease_ms = 8000, manager_silent_ms = 4000 } }
      local m = c.managers[1]
      local id, w = running(c, 20000, { retries = 1 })
      c:on(w, "node.spec_cancel_ms = ...", cancel_ms)
      c:on(w, [[ local real = state.worker.reports.progress -- It runs and says nothing of it.
        state.worker.reports.progress = function () end
        local cancel = node.rpc.handlers["part.cancel"]
        node.rpc.handlers["part.cancel"] = function (body, peer)
          require("shoal.task").sleep(node.spec_cancel_ms)
          return cancel(body, peer)
        end ]])
      assert.truthy(c:until_true(function ()
        return c:on(m, "return state.lead.attempts:get(..., 'one/1').given_up or false", id)
      end, 20000, 20))
      c:run(500)
      assert.same({ 1, 1 }, { runs(c, w), c:on(m, "return state.lead.ledger.runs[...].parts['one/1'].attempt", id) })
      local final = ended(c, id)
      local lost
      for _, a in ipairs(final.result.attempts) do lost = lost or a.state == "lost" and a end
      assert.truthy(lost and lost.executor == w.name)
      assert.is_nil(lost.reason:find("given up: ", 1, true))
      assert.equal("completed", final.state)
    end)
  end

  it("F37, F42: a dispatch whose answer is lost may have been taken: its worker is asked before another gets the part", function ()
    local c <close> = cluster { workers = 3 }
    local m = c.managers[1]
    for _, w in ipairs(c.workers) do
      c:on(w, [[ local real = node.rpc.handlers["part.dispatch"]
        node.rpc.handlers["part.dispatch"] = function (body, peer)
          real(body, peer)
          require("shoal.task").sleep(1000000)
        end ]])
    end
    local id = submitted(c, c:job { one = { work = "one 60000", retries = 1 } })
    c:run(2000) -- By then one has taken it. The first renewal says so to the leader.
    c:run(3000)
    assert.equal("running", c:on(m, "return state.lead.attempts:get(..., 'one/1').state", id))
    c:run(30000)
    assert.equal(1, c.ran.one)
    assert(c:on(c.client, "return state.client:cancel(...)", id, "enough"))
    ended(c, id, "cancelled")
  end)
end)

describe("finding 2.3, leases that expire:", function ()
  local IDS = { "key", "job", "holder", "node", "fence", "expired_for_ms", "duration_ms", "remaining" }

  --- Three parts on a worker that its manager no longer reaches; both live. The worker's parts end by themselves.
  local function expiring(c)
    local m, w = c.managers[1], c.workers[1]
    for _, other in ipairs(c.workers) do
      if other ~= w then c:on(m, "assert(state.lead:hold { worker = ..., action = 'cordon', timeout_ms = 0 })", other.name) end
    end
    local id = submitted(c, c:job { one = { work = "one 90000", parts = 3, retries = 1 } })
    c:run(2500) -- Renewed once, together.
    assert.equal(3, runs(c, w))
    c:on(m, "state.lead.suspects.look = function () end") -- The detector finds such a worker, too, a few seconds later.
    return id, m, w
  end

  local function cluster_of_three() return cluster { workers = 3, set_worker = { cores = 3 } } end

  --- Replace the hook of a manager: `code` sees `event` and `n`, the number of the call.
  local function hooked(c, m, code)
    c:on(m, ([[ node.spec_calls = {}
      for _, handle in ipairs(node.hooks.wired["lease.expired"]) do
        local real = handle.fn
        handle.fn = function (event)
          local calls = node.spec_calls
          calls[#calls + 1] = { key = event.key, at_ms = node.world:now_ns() // 1000000 }
          local n = #calls
          %s
          return real(event)
        end
      end ]]):format(code))
  end

  local function balanced(c, m)
    local n = c:counts(m, "lease.expired")
    assert.equal(n.raised, n.reported + n.suppressed + n.handled)
    assert.equal(0, n.in_flight)
    return n
  end

  local function check_ids(m, id, w, incident)
    for _, name in ipairs(IDS) do assert.is_not_nil(incident.ids[name], name) end
    assert.is_nil(incident.missing)
    local ids = incident.ids
    assert.same({ id, w.name, m.name, LEASE_MS }, { ids.job, ids.holder, ids.node, ids.duration_ms })
    assert.equal("integer", math.type(ids.expired_for_ms))
    assert.is_true(ids.key:find(id .. " one/", 1, true) == 1 and ids.fence > 0 and ids.expired_for_ms >= 0 and ids.expired_for_ms < 20)
  end

  it("F25, F69: a hook that raises for one is one incident with all its ids; the others of the sweep are lost at once, it a moment later",
    function ()
      local c <close> = cluster_of_three()
      local id, m, w = expiring(c)
      hooked(c, m, [[ if n == 1 then error "no" end ]])
      c.s:cut(w, m)
      c:run(LEASE_MS + 1000)
      local told = c:incidents(m, "lease.expired")
      assert.equal(1, #told)
      check_ids(m, id, w, told[1])
      assert.equal(2, told[1].ids.remaining)
      assert.equal(500, told[1].ids.next_retry_ms)
      assert.equal(1, balanced(c, m).raised)
      local calls = c:on(m, "return node.spec_calls")
      assert.equal(4, #calls) -- Three leases, and the first once more.
      assert.equal(calls[1].key, calls[4].key)
      assert.is_true(calls[4].at_ms - calls[1].at_ms >= 500 and calls[4].at_ms - calls[1].at_ms <= 510)
      assert.equal(3, c:on(m, "return state.lead:lease_counts().expired"))
      assert.truthy(c:until_true(function () return c:counts(m, "lead.attempt_lost").raised == 3 end, 6000, 50))
      c.s:heal(w, m)
    end)

  it("F25, F69: a hook that always raises is called after 0.5, 1, 2, 4, 8 s, then escalated; EXPIRED stays, the part is lost all the same",
    function ()
      local c <close> = cluster_of_three()
      local id, m, w = expiring(c)
      hooked(c, m, [[ if event.part == "one/2" then error { "a table" } end ]])
      c.s:cut(w, m)
      c:run(LEASE_MS + 2000)
      local key = id .. " one/2"
      assert.equal("past", c:on(m, "return state.lead.leases.grantor:get(...).state", key)) -- Committed.
      c:run(15000)
      local at = {}
      for _, call in ipairs(c:on(m, "return node.spec_calls")) do
        if call.key == key then at[#at + 1] = call.at_ms end
      end
      assert.equal(6, #at)
      for i, wait_ms in ipairs { 500, 1000, 2000, 4000, 8000 } do
        assert.is_true(math.abs(at[i + 1] - at[i] - wait_ms) <= 10, ("%d: %d"):format(i, at[i + 1] - at[i]))
      end
      local told = c:incidents(m, "lease.expired")
      local last = told[#told]
      assert.same({ "critical", 6 }, { last.level, last.ids.attempt })
      assert.equal(6, balanced(c, m).raised)
      assert.equal("past", c:on(m, "return state.lead.leases.grantor:get(...).state", key))
      assert.truthy(c:until_true(function ()
        for _, lost in ipairs(c:incidents(m, "lead.attempt_lost")) do
          if lost.ids.part == "one/2" then return true end
        end
      end, 25000, 100), "it is waited for")
      c.s:heal(w, m)
    end)

  it("F25, L3: the level of its incidents follows the policy file, edited while it runs; the counts stay", function ()
    local c <close> = cluster_of_three()
    local _, m, w = expiring(c)
    local function policy(text)
      assert(c.s:write(m, POLICY, text))
      c:run(250) -- The node looks at the file every 200 ms.
    end
    hooked(c, m, [[ if event.part ~= "one/1" then error "no" end ]])
    policy "return { sites = { ['lease.expired'] = { level = 'debug' } } }"
    c.s:cut(w, m)
    assert.truthy(c:until_true(function () return #c:incidents(m, "lease.expired") >= 1 end, 2 * LEASE_MS, 5))
    local told = c:incidents(m, "lease.expired")
    for _, each in ipairs(told) do assert.equal("debug", each.level) end
    policy "return { default = { burst = 100 }, sites = { ['lease.expired'] = { level = 'critical' } } }"
    c:run(1000) -- Called again after 0.5, 1 and 2 s.
    told = c:incidents(m, "lease.expired")
    local before = #told
    assert.equal("critical", told[before].level)
    policy "return { sites = { [" -- Broken: the last good one stays.
    c:run(2500)
    told = c:incidents(m, "lease.expired")
    assert.is_true(#told > before)
    assert.equal("critical", told[#told].level)
    assert.equal(1, c:counts(m, "policy.load").raised)
    balanced(c, m)
    c.s:heal(w, m)
  end)

  it("F25, F69: an errors policy that raises itself changes nothing of the expiry, and is an incident of its own", function ()
    local c <close> = cluster_of_three()
    local id, m, w = expiring(c)
    hooked(c, m, [[ if n == 1 then error "no" end ]])
    assert(c.s:write(m, POLICY, "return { decide = function () error 'the policy' end }"))
    c:run(250)
    c.s:cut(w, m)
    c:run(LEASE_MS + 1000)
    local told = c:incidents(m, "lease.expired")
    assert.equal(1, #told)
    check_ids(m, id, w, told[1])
    assert.equal("error", told[1].level) -- The built-in policy's.
    assert.is_true(c:counts(m, "policy.decide").raised >= 1)
    assert.truthy(c:until_true(function () return c:counts(m, "lead.attempt_lost").raised == 3 end, 6000, 50))
    balanced(c, m)
    c.s:heal(w, m)
  end)

  it("F25, F69: when the losses cannot be made durable, twice in a row, each is one incident, and then they are", function ()
    local c <close> = cluster_of_three()
    local id, m, w = expiring(c)
    c:on(m, [[ local real = getmetatable(state.lead).__index.propose
      state.lead.propose = function (self, command)
        if command.kind == "lost" and (node.spec_refused or 0) < 2 then
          node.spec_refused = (node.spec_refused or 0) + 1
          return nil, "the disk is slow", "UNKNOWN"
        end
        return real(self, command)
      end ]])
    c.s:cut(w, m)
    assert.truthy(c:until_true(function () return c:counts(m, "lead.attempt_lost").raised == 3 end, 3 * LEASE_MS, 50))
    local told = c:incidents(m, "lead.lost")
    assert.equal(2, #told)
    for _, each in ipairs(told) do assert.same({ id, w.name }, { each.ids.job, each.ids.executor }) end
    c.s:heal(w, m)
  end)

  it("F25, F46: renewals that cannot be read, or are refused for a while, are incidents of both ends, and no lease is lost", function ()
    local c <close> = cluster_of_three()
    local _, m, w = expiring(c)
    c:on(m, [[ local real = node.rpc.handlers["lease.renew"]
      node.rpc.handlers["lease.renew"] = function (body, peer)
        node.spec_n = (node.spec_n or 0) + 1
        if node.spec_n == 1 then error "not today" end
        if node.spec_n == 2 then return nil, "not now", "OVERLOADED" end
        return real(body, peer)
      end ]])
    c:run(3 * LEASE_MS)
    local told = c:incidents(w, "worker.lease.renew")
    assert.equal(2, #told)
    assert.same({ "FAILED", "OVERLOADED" }, { told[1].ids.status, told[2].ids.status })
    for i, each in ipairs(told) do
      assert.equal("consecutive leader leases left_ms status", names(each.ids))
      assert.same({ i, 3, m.address }, { each.ids.consecutive, each.ids.leases, each.ids.leader })
      assert.is_true(each.ids.left_ms > 0 and each.ids.left_ms < LEASE_MS)
    end
    assert.equal(1, c:counts(m, "rpc.handler").raised)
    assert.equal(0, c:on(m, "return state.lead:lease_counts().expired"))
    assert.equal(3, runs(c, w))
  end)

  it("F25, F69: failures in the renewing loops of a worker and of a manager are incidents with their ids, and no lease is lost", function ()
    local c <close> = cluster { gates = 1, workers = 1 }
    local g, m, w = c.gates[1], c.managers[1], c.workers[1]
    local id = submitted(c, c:job { one = { work = "one 30000", retries = 0 } })
    c:run(500)
    for node, held in sorted { [m.name] = "state.held", [w.name] = "state.worker.leases" } do
      c:on(node == m.name and m or w, ([[ local held = %s
        local n = 0
        held.wake_up.pop = function (...)
          n = n + 1
          if n == 2 or n == 3 then error "the loop" end
          return getmetatable(held.wake_up).__index.pop(...)
        end
        held.held.renewed = function ()
          held.held.renewed = nil
          error "the answer"
        end ]]):format(held))
    end
    assert.equal("completed", ended(c, id).state)
    for _, row in ipairs { { m, "manager" }, { w, "worker" } } do
      local node, owner = table.unpack(row)
      local loops, renewals = c:incidents(node, owner .. ".lease.loop"), c:incidents(node, owner .. ".lease.renew")
      assert.same({ 2, 1 }, { #loops, #renewals })
      assert.equal("consecutive cycle leases next_delay_ms", names(loops[1].ids))
      assert.equal("consecutive leader leases left_ms status", names(renewals[1].ids))
      for _, told in ipairs { loops[1], loops[2], renewals[1] } do
        assert.is_nil(told.missing)
        assert.equal(1, told.ids.leases)
      end
      assert.truthy(loops[1].message:find("the loop", 1, true))
      assert.truthy(renewals[1].message:find("the answer", 1, true))
    end
    assert.same({ 0, 0, 1 }, { c:counts(g, "lead.attempt_lost").raised, c:counts(m, "lead.attempt_lost").raised, c.ran.one })
    c:rest()
  end)
end)

describe("the lease of a datacenter's share:", function ()
  local function shares(c, m) return c:on(m, "return state.held:list()") end
  local function fence_of(c, node, id) return c:on(node, "return state.lead.leases:fence_of(...)", id) end

  it("F22, F23, F25: outlives a restart of its gate, which takes the job up with a greater fence", function ()
    local c <close> = cluster { gates = 1, workers = 1 }
    local g, m = c.gates[1], c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 70000", retries = 1 } })
    c:run(500)
    assert.same({ "held", id, "one/a" }, { shares(c, m)[1].state, shares(c, m)[1].job, shares(c, m)[1].part })
    local before = fence_of(c, g, id)
    c:crash(g)
    c:run(2 * LEASE_MS + 3000) -- A gate's leases last twice as long.
    assert.equal("orphan", shares(c, m)[1].state)
    c:restart(g)
    assert.truthy(c:until_true(function () return shares(c, m)[1].state == "held" end, 25000, 100))
    assert.is_true(fence_of(c, g, id) > before)
    assert.equal(1, #ended(c, id, "completed", 100000).result.attempts)
    assert.same({ 1, 0 }, { c.ran.one, c:counts(m, "manager.orphan").raised })
    c:rest()
  end)

  it("F23, F24: whose gate does not come back within the grace is ended: cores are free, and its result waits for the gate", function ()
    local c <close> = cluster { gates = 1, workers = 1, set = { restart_ms = 4000 } }
    local g, m, w = c.gates[1], c.managers[1], c.workers[1]
    local id = submitted(c, c:job { one = { work = "one 60000", retries = 0 } })
    c:run(500)
    c:crash(g)
    assert.truthy(c:until_true(function () return runs(c, w) == 0 end, 2 * LEASE_MS + 12000, 100), "it runs on")
    local told = c:incidents(m, "manager.orphan")
    assert.equal(1, #told)
    assert.same({ id, "one/a" }, { told[1].ids.job, told[1].ids.part })
    assert.equal(1, c:on(m, "return state.reports:counts().results"))
    c:run(3000)
    c:restart(g)
    local final = ended(c, id, "failed", 60000) -- It must not run twice.
    assert.truthy(final.reason:find("it was an orphan for", 1, true), final.reason)
    assert.equal(1, c.ran.one)
    c:rest()
  end)
end)

describe("the lease of a share that was cut off from its gate:", function ()
  it("F14, F25: is renewed within a third of it after the heal, and not when the next redial is due; the part goes on", function ()
    local c <close> = cluster { gates = 1, workers = 1, set = { lease_ms = 5200 } }
    local g, m = c.gates[1], c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 60000", retries = 0 } })
    c:run(500)
    c:on(m, [[ node.spec_hurried = {}
      local Peer = getmetatable(node.rpc:peer("127.0.0.1:1"))
      local call = Peer.call
      Peer.call = function (peer, name, body, options)
        local hurried = node.spec_hurried
        if name == "lease.renew" then hurried[#hurried + 1] = options.hurry or false end
        return call(peer, name, body, options)
      end ]])
    c:run(8000)
    local before = c:on(m, "return node.spec_hurried")
    assert.is_true(#before >= 2)
    for _, hurried in ipairs(before) do assert.is_false(hurried) end
    c:cut(g, m)
    c:run(17000) -- More than its 10.4 s.
    local hurried = c:on(m, "return node.spec_hurried")
    assert.is_true(#hurried - #before >= 3)
    for i = #before + 2, #hurried do assert.is_true(hurried[i]) end -- The first one under the cut could not know of it.
    assert.equal("orphan", c:on(m, "return state.held:list()[1].state"))
    c:heal(g, m)
    assert.truthy(c:until_true(function () return c:on(m, "return state.held:list()[1].state") == "held" end, 5200, 50), "not held by now")
    assert.equal(1, #ended(c, id, "completed", 100000).result.attempts)
    assert.same({ 1, 0 }, { c.ran.one, c:counts(g, "lead.attempt_lost").raised })
    c:rest()
  end)
end)

describe("the leadership of a job:", function ()
  it("F21: is compared within its own tier: a manager with small fences leads beside one that was restarted often", function ()
    local c <close> = cluster { managers = 2, workers = 1 }
    local often, other, w = c.managers[1], c.managers[2], c.workers[1]
    for _ = 1, 3 do
      c:crash(often)
      c:restart(often)
      c:run(1500)
    end
    local function state(m)
      local e = c:ask(m, "look").lead.executors["w-a1"]
      return e and e.state
    end
    assert.truthy(c:until_true(function () return state(often) == "up" end, 20000, 100))
    assert.is_true(c:ask(often, "look").lead.fence > c:ask(other, "look").lead.fence)
    c:crash(w)
    assert.truthy(c:until_true(function () return state(other) ~= "up" end, 20000, 100))
    c:cut(w, other)
    c:restart(w)
    for _, m in ipairs { often, other } do -- In this order.
      assert.truthy(c:until_true(function () return state(m) == "up" end, 40000, 100), m.name)
      c:heal(w, other)
    end
  end)

  it("F21, F22: messages of an earlier one are refused as STALE by workers, managers and clients, and counted", function ()
    local c <close> = cluster { gates = 1, workers = 1 }
    local g, m, w = c.gates[1], c.managers[1], c.workers[1]
    local id = submitted(c, c:job { one = { work = "one 8000" } })
    c:run(500)
    local function cancelled(from, to, part)
      return c:on(from, [[ local to, job, part, fence = ...
        local reply, err, code = node.rpc:peer(to):call("part.cancel", {
          job = job, part = part, fence = fence, reason = "late", deadline_ms = 100, led = state.lead.fence - 1,
        })
        return { reply and reply.state or false, code, err } ]], to.address, id, part, 1 << 40)
    end
    for _, case in ipairs { { m, w, "one/a/1" }, { g, m, "one/a" } } do
      local answer = cancelled(table.unpack(case))
      assert.same({ false, "STALE" }, { answer[1], answer[2] })
      assert.truthy(answer[3]:find("leads with fence", 1, true), answer[3])
    end
    assert.equal(1, c:on(w, "return state.worker:describe().stale_refused"))
    assert.equal(1, c:on(m, "return node.describe().leases.stale_refused"))
    local dispatched = c:on(m, [[ local to, job = ...
      return select(3, node.rpc:peer(to):call("part.dispatch", { job = job, workflow = "one", part = "one/a/2", attempt = 1, fence = 1 << 40,
        leader = node.address, leader_name = node.name, timeout_ms = 0, share = "", payload = "", led = state.lead.fence - 1 })) ]],
      w.address, id)
    assert.equal("STALE", dispatched)
    local pushed = c:on(g, [[ local id = ...
      local feed = state.lead.runs[id].feed
      return feed.watchers[1].peer:call("job.status", { job = id, seq = feed.last + 1, body = { state = "failed", reason = "late", at_ms = 1 },
        fence = state.lead.fence - 1 }) ]], id)
    assert.equal("stale", pushed)
    assert.equal(1, c:on(c.client, "return state.client.stale"))
    local told = c:incidents(c.client, "client.push.job_status")
    assert.same({ "STALE", id }, { told[1].code, told[1].ids.job })
    assert.equal(1, #ended(c, id, "completed").result.attempts)
    c:rest()
  end)

  it("F21: an ack of an earlier one is refused by its worker, and by a manager of its gate: nothing of it is applied", function ()
    local c <close> = cluster { gates = 1, workers = 1 }
    local g, m, w = c.gates[1], c.managers[1], c.workers[1]
    local id = submitted(c, c:job { one = { work = "one 8000", retries = 0 } })
    c:run(500)
    for _, from in ipairs { g, m } do
      c:on(from, [[ local ack, real = require "shoal.wire.ack", node.rpc.handlers["part.progress"]
        local n = 0
        node.rpc.handlers["part.progress"] = function (body, peer)
          local answer = real(body, peer)
          n = n + 1
          if n ~= 3 then return answer end
          return ack.encode { level = "reject", leader = node.name, leader_address = node.address, fence = state.lead.fence - 1, stop = { 1 } }
        end ]])
    end
    c:run(3000)
    assert.equal(1, c:on(w, "return state.worker:describe().stale_refused"))
    assert.equal(1, c:on(m, "return node.describe().leases.stale_refused"))
    for _, row in ipairs { { m, "manager", g }, { w, "worker", m } } do
      local node, owner, leader = table.unpack(row)
      local told = c:incidents(node, owner .. ".progress.ack")
      assert.equal(1, #told)
      assert.same({ "STALE", "STALE", leader.name }, { told[1].code, told[1].ids.class, told[1].ids.manager })
      assert.truthy(told[1].message:find("leads with fence", 1, true), told[1].message)
      assert.equal("none", c:on(node, ("return state.%sreports:counts().level"):format(owner == "worker" and "worker." or "")))
    end
    assert.equal(1, #ended(c, id, "completed").result.attempts)
    assert.equal(1, c.ran.one)
    c:rest()
  end)

  it("F22: is renewed by its node; when that fails for a whole lease, it is taken again with a greater fence, and the job goes on", function ()
    local c <close> = cluster {}
    local m = c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 30000" } })
    c:run(2 * LEASE_MS)
    local function lease()
      return c:on(m, [[ local key = ... local l = state.lead.leases.grantor:get(key) return { l.holder, l.fence, l.state, l.left_ms } ]], id)
    end
    local before = lease()
    assert.same({ "m-a1", "held" }, { before[1], before[3] })
    assert.is_true(before[4] > LEASE_MS / 2)
    local text = table.concat(require "shoal.cli.views".running(c:on(m, "return state.lead:get(...)", id)), "\n")
    assert.truthy(text:find("led by m%-a1 %(fence %d+%); leases: one/1 at w%-a%d %(fence %d+, %d%.%d s left%)"), text)
    c:on(m, "state.lead.leases.renew_own = function () error 'no' end")
    assert.truthy(c:until_true(function () return lease()[2] > before[2] end, 2 * LEASE_MS, 50))
    assert.is_true(c:counts(m, "lead.lease_renew").raised >= 1)
    assert.equal("held", lease()[3])
    c:on(m, "state.lead.leases.renew_own = nil")
    ended(c, id, "completed")
    assert.equal(1, c.ran.one)
    c:rest()
  end)
end)
