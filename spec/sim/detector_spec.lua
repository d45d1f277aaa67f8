--- The detector's job layer through the unmodified roles (SCENARIOS F09, F59; FAILURES 1.5, 2.1): an executor that gives no sign of one job
--- while its machine lives loses that job's parts, and those alone.
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local USERS = [[return { vu = function (vu) vu:sleep(1000) end }]]

local function names(ids) return table.concat(sorted.keys(ids), " ") end

local function begun(c, spec)
  local id = assert(c:submit(spec))
  c:watch(id)
  return id
end

local function ended(c, id, limit_ms)
  assert.truthy(c:until_true(function () return c:final(id) end, limit_ms or 60000, 100), "the job did not end")
  assert.equal("completed", c:final(id).state, c:final(id).reason)
  return c:final(id)
end

--- On a manager or gate: nothing of this job is heard of its executors any more, progress and answers, until `hush(c, m, nil)`; `from`: of
--- this executor only.
local function hush(c, node, job, from)
  c:on(node, [[ local job, from = ...
    node.spec_hushed = job and { job = job, from = from }
    if node.spec_hush then return end
    node.spec_hush = true
    local hushed = function (id) return node.spec_hushed and node.spec_hushed.job == id end
    local progress = node.rpc.handlers["part.progress"]
    node.rpc.handlers["part.progress"] = function (body, peer)
      if node.spec_hushed and (not node.spec_hushed.from or node.spec_hushed.from == peer:name()) then
        local kept = {}
        for _, p in ipairs(body.parts) do if not hushed(p.job) then kept[#kept + 1] = p end end
        body.parts = kept
      end
      return progress(body, peer)
    end
    local Peer = getmetatable(node.rpc:peer("127.0.0.1:1"))
    local call = Peer.call
    Peer.call = function (peer, name, body, options)
      local reply, err, code = call(peer, name, body, options)
      node.spec_looks = (node.spec_looks or 0) + (name == "part.look" and 1 or 0)
      if name == "part.look" and reply and node.spec_hushed and not (node.spec_hushed.some and node.spec_looks % 2 == 0)
        and (not node.spec_hushed.from or peer:name() == node.spec_hushed.from) then
        node.spec_asked = (node.spec_asked or 0) + 1
        local kept = {}
        for _, id in ipairs(reply.jobs) do if not hushed(id) then kept[#kept + 1] = id end end
        reply.jobs = kept
      elseif name == "part.cancel" and hushed(body.job) and (not node.spec_hushed.from or peer:name() == node.spec_hushed.from) then
        return nil, "hushed", "TIMEOUT"
      end
      return reply, err, code
    end ]], job, from)
end

local function executors_of(c, m, id)
  local out = {}
  for key, part in sorted(c:ask(m, "look").lead.parts) do
    if key:find(id, 1, true) and part.state == "dispatched" then out[#out + 1] = part.executor end
  end
  table.sort(out)
  return table.concat(out, " ")
end


--- A part of a job of its own on each worker; returns the jobs.
local function two_jobs(c, ms)
  local function one() return begun(c, c:job { load = { code = USERS, vus = 2, duration_ms = ms or 30000 } }) end
  local a, b = one(), one()
  c:run(1000)
  return a, b
end

local function losses(c, m) return c:counts(m, "lead.attempt_lost").raised end
local function counters(c, m) return c:on(m, "return state.lead.suspects.detector:counts()") end
local function configure(c, m, values) c:on(m, ("state.lead.suspects.detector.core:reconfigure { watches = 'workers', %s }"):format(values)) end
local function listed(c, m) return c:on(m, "return state.lead.suspects:list()") end
local function until_lost(c, m, limit_ms)
  local began = c.s:now_ms()
  assert.truthy(c:until_true(function () return losses(c, m) > 0 end, limit_ms or 30000, 20), "never given up")
  return c.s:now_ms() - began
end

--- The seq of parts stands still on a worker, as when a child hangs; its answers go on.
local function freeze(c, w) c:on(w, "state.worker.reports.progress = function () end") end
local function thaw(c, w) c:on(w, "state.worker.reports.progress = nil") end

-- Asked after 3.05 s without a sign, every second; suspected at 7.05 s; a lone manager gives a worker 1 s then. Looks come each second.
local ALONE_MS = { 8000, 10200 }

describe("an executor that gives no sign of one job:", function ()
  it("F09: loses that job's parts within the bound, and no other's; it is used for the job again once it answers", function ()
    local c <close> = simcluster.new { workers = 2 }
    local m = c.managers[1]
    local one, other = two_jobs(c)
    assert.equal("w-a1 w-a2", executors_of(c, m, one))
    hush(c, m, one, "w-a1")
    c:run(7900)
    local s = listed(c, m)
    assert.same({ 1, one, "w-a1", "suspected" }, { #s, s[1].job, s[1].executor, s[1].state })
    local detail = c:on(c.client, [[ return assert(node.rpc:peer(...):call("job.get", { job = select(2, ...) })) ]], m.address, one).detail
    local waits = detail.workflows[1].waiting
    assert.truthy(waits:find "^w%-a1 gave no sign of this job for [78]%.%d s %(0 of 0 confirmations%); it has [%d.]+ s more", waits)
    local shown = require("shoal.cli.render").status(detail)
    assert.truthy(shown:find("suspected at w-a1: w-a1 gave no sign of this job", 1, true), shown)
    assert.truthy(c:on(m, [[ return require("shoal.node.repl").eval(node, "suspicions()") ]]).output:find("w%-a1 gave no sign of this job"))
    local why = c:on(c.client, [[ return assert(node.rpc:peer(...):call("node.why", { name = "w-a1" })) ]], m.address)
    assert.truthy(why.text:find("\n  suspected for " .. one .. ": w-a1 gave no sign of this job", 1, true), why.text)
    assert.equal(one, why.why.jobs[1].job)
    local took = 7900 + until_lost(c, m)
    assert.is_true(took >= ALONE_MS[1] and took <= ALONE_MS[2], "after " .. took)
    local told = c:incidents(m, "lead.attempt_lost")[1]
    assert.same({ one, "w-a1" }, { told.ids.job, told.ids.executor })
    assert.truthy(told.message:find "^w%-a1 gave no sign of this job for [%d.]+ s$", told.message)
    c:run(2000)
    assert.equal("w-a2 w-a2", executors_of(c, m, one))
    assert.equal("w-a1 w-a2", executors_of(c, m, other))
    assert.equal("given up", listed(c, m)[1].state)
    -- Its stray attempt is cancelled once it answers, and the job may go there again.
    hush(c, m, nil)
    assert.truthy(c:until_true(function () return #listed(c, m) == 0 end, 8000, 50))
    c:crash(c.workers[2])
    assert.truthy(c:until_true(function () return executors_of(c, m, one) == "w-a1 w-a1" end, 8000, 50), executors_of(c, m, one))
    local final = ended(c, one)
    c:check_counts(one, final)
    ended(c, other)
    assert.equal(0, counters(c, m).suspicions)
    c:rest()
  end)

  it("F09: gets no part of that job while it is suspected or given up, whatever the policy prefers; its workflows go elsewhere", function ()
    local c <close> = simcluster.new { workers = 2 }
    local m = c.managers[1]
    local id = begun(c, c:job { first = { work = "first 12000" }, second = { work = "second 20", after = { "first" } } })
    c:run(1000)
    assert.equal("w-a1", executors_of(c, m, id))
    hush(c, m, id, "w-a1")
    c:on(m, "state.lead.options.placement = { choose = function () return 'w-a1' end, split = state.lead.options.placement.split }")
    assert.truthy(c:until_true(function () return losses(c, m) == 1 end, 12000, 20))
    c:run(2000)
    assert.equal("w-a1 gave no sign of this job; it waits for an answer", c:on(m, "return state.lead:get(...).workflows[1].waiting", id))
    c:on(m, "state.lead.options.placement = assert(node:policies_of { 'placement' }).placement.workers")
    local final = ended(c, id)
    local where = {}
    for i, a in ipairs(final.result.attempts) do where[i] = ("%s %s %s"):format(a.workflow, a.executor, a.state) end
    assert.same({ "first w-a1 lost", "first w-a2 completed", "second w-a2 completed" }, where)
    hush(c, m, nil)
    c:rest()
  end)

  it("F09: slow is not silent: one that answers for a job keeps it, moving or not, until the limit of parts that do not move", function ()
    local c <close> = simcluster.new { workers = 1, set_manager = { manager_silent_ms = 20000 } }
    local m, w = c.managers[1], c.workers[1]
    local id = begun(c, c:job { load = { code = USERS, vus = 2, duration_ms = 60000, retries = 1 } })
    c:run(1000)
    hush(c, m, id)
    c:on(m, "node.spec_hushed.some = true") -- Each second answer comes.
    c:run(9000)
    freeze(c, w)
    c:run(8000)
    assert.is_true(c:on(m, "return node.spec_looks") >= 6)
    assert.same({ 0, 0 }, { losses(c, m), counters(c, m).jobs_suspected })
    local took = until_lost(c, m, 10000)
    assert.is_true(took >= 1800 and took <= 4200, "after " .. took) -- 20 s after its last progress.
    assert.truthy(c:incidents(m, "lead.attempt_lost")[1].message:find("no progress for 20", 1, true))
    assert.equal(0, counters(c, m).jobs_suspected)
    thaw(c, w)
    hush(c, m, nil)
    assert(c:on(c.client, "return state.client:cancel(...)", id, "enough"))
    c:run(5000)
    c:rest()
  end)

  it("F09: a command that prints nothing is never suspected; a share that waits for its turn is not taken for silent", function ()
    local c <close> = simcluster.new { gates = 1, workers = 1, set_worker = { cores = 1 }, set_gate = { gate_silent_ms = 35000 } }
    local first = begun(c, c:job { quiet = { work = "quiet 40000" } })
    c:run(500)
    local behind = begun(c, c:job { late = { work = "late 1000" } })
    c:on(c.managers[1], [[ local real = node.rpc.handlers["part.look"]
      node.spec_looks = 0
      node.rpc.handlers["part.look"] = function (...) node.spec_looks = node.spec_looks + 1 return real(...) end ]])
    ended(c, first)
    ended(c, behind)
    local looks = c:on(c.managers[1], "return node.spec_looks")
    assert.is_true(looks >= 2 and looks <= 5, looks .. " questions in 40 s") -- More and more rarely, for thousands may wait.
    assert.same({ 1, 1 }, { c.ran.quiet, c.ran.late })
    for _, node in ipairs { c.gates[1], c.managers[1] } do
      assert.same({ 0, 0, 0 }, { losses(c, node), counters(c, node).jobs_suspected, c:counts(node, "detector.look").raised })
    end
    c:rest()
  end)

  it("F09: a machine that dies while it is suspected for a job: the suspicion goes in the same step, and each part is lost once", function ()
    local c <close> = simcluster.new { workers = 2 }
    local m = c.managers[1]
    local one, other = two_jobs(c)
    c:on(m, [[ local fire, deliver = getmetatable(node.hooks).__index.fire, getmetatable(node.hooks).__index.deliver
      node.hooks.deliver = function (self, site, ...)
        if site == "detector.global_death" then node.spec_left = state.lead.suspects.detector:counts().suspicions end
        return deliver(self, site, ...)
      end ]])
    configure(c, m, "job_min_ms = 9000, job_max_ms = 9000")
    hush(c, m, one, "w-a1")
    assert.truthy(c:until_true(function () return #listed(c, m) == 1 end, 12000, 20))
    c:crash(c.workers[1])
    assert.truthy(c:until_true(function () return c:on(m, "return node.spec_left") end, 8000, 20))
    assert.equal(0, c:on(m, "return node.spec_left")) -- Before the hook on its death ran.
    assert.equal(1, counters(c, m).cleared["node dead"])
    c:run(12000)
    assert.equal(0, counters(c, m).jobs_expired)
    assert.equal(2, losses(c, m)) -- One part of each job.
    ended(c, one)
    ended(c, other)
    hush(c, m, nil)
    c:rest()
  end)

  it("F09: others of the tier are asked to ask: an answer to one ends it, those that get none confirm, and expiry is nearer", function ()
    local c <close> = simcluster.new { managers = 3, workers = 2 }
    local m = c.managers[1]
    local one, other = two_jobs(c, 60000)
    -- Only our own questions are lost: the others' answers are signs.
    hush(c, m, one, "w-a1")
    c:run(15000)
    assert.same({ 0, 0 }, { losses(c, m), counters(c, m).jobs_suspected })
    -- The others get none either.
    hush(c, c.managers[2], one, "w-a1")
    hush(c, c.managers[3], one, "w-a1")
    local began = c.s:now_ms()
    assert.truthy(c:until_true(function () return #listed(c, m) == 1 end, 15000, 10))
    local suspected = c.s:now_ms()
    assert.is_true(suspected - began >= 6000 and suspected - began <= 9300, "suspected after " .. suspected - began)
    until_lost(c, m)
    local told = c.s:log():match '[^\n]*"event":"detector.expired"[^\n]*'
    assert.truthy(told:find('"confirmations":2', 1, true), told)
    assert.truthy(c:incidents(m, "lead.attempt_lost")[1].message:find("s; 2 others got no answer about it, either", 1, true))
    assert.is_true(c.s:now_ms() - suspected < 3000, "expired after " .. c.s:now_ms() - suspected) -- 10 s without them.
    for _, node in ipairs(c.managers) do hush(c, node, nil) end
    ended(c, one, 90000)
    ended(c, other, 90000)
    c:rest()
  end)

  it("F09: confirmations that come again and again do not put off expiry", function ()
    local c <close> = simcluster.new { managers = 3, workers = 2 }
    local m = c.managers[1]
    local one, other = two_jobs(c, 60000)
    hush(c, m, one, "w-a1") -- Only one other confirms, as often as it can: 10 s with none, some 4 s with one of two.
    hush(c, c.managers[2], one, "w-a1")
    c:on(c.managers[3], "state.lead.suspects.look_for = function () return nil, 'unknown here', 'NOT_FOUND' end")
    assert.truthy(c:until_true(function () return #listed(c, m) == 1 end, 15000, 10))
    local suspected = c.s:now_ms()
    c:on(m, [[ local d, job = state.lead.suspects.detector, ...
      node.scope:loop("spec.confirm", {}, { interval_ms = 50 }, function ()
        d:confirm(job, "w-a1", "m-a2")
        if d:counts().suspicions > 0 then d:suspect(job, "w-a1", "m-a1") end
      end) ]], one)
    until_lost(c, m)
    local took = c.s:now_ms() - suspected
    assert.is_true(took > 2000 and took < 6000, "expired after " .. took)
    assert.is_true(counters(c, m).repeated > 50)
    for _, node in ipairs(c.managers) do hush(c, node, nil) end
    ended(c, one, 90000)
    ended(c, other, 90000)
  end)

  it("F09: one suspicion past the cap is refused, counted and an incident; the job ends all the same", function ()
    local c <close> = simcluster.new { workers = 2, set_manager = { manager_silent_ms = 14000 } }
    local m = c.managers[1]
    local one, other = two_jobs(c)
    configure(c, m, "job_suspicions_max = 1, job_min_ms = 9000, job_max_ms = 9000")
    hush(c, m, one)
    c:run(9500)
    assert.equal(1, counters(c, m).suspicions)
    assert.is_true(counters(c, m).full_job >= 1)
    local told = c:incidents(m, "detector.refused")
    assert.same({ 1, "FULL", one }, { #told, told[1].code, told[1].ids.job })
    c:run(7000)
    assert.equal(2, losses(c, m)) -- By the limit of parts that do not move.
    hush(c, m, nil)
    ended(c, one, 90000)
    ended(c, other)
    c:rest()
  end)

  it("F09: a node past the detector's cap of nodes is an incident, once, and gets parts all the same", function ()
    local c <close> = simcluster.new { workers = 1 }
    local m = c.managers[1]
    configure(c, m, "nodes_max = 2") -- The manager and its worker.
    for i = 2, 4 do
      local config = c:config "worker"
      config.join = { m }
      c.workers[i] = c:add { name = "w-a" .. i, role = "worker", dc = "a", config = config }
      c:run(2000)
    end
    local told = c:incidents(m, "detector.refused")
    assert.same({ 1, "FULL", "none", "w-a2" }, { #told, told[1].code, told[1].ids.job, told[1].ids.executor })
    assert.is_nil(told[1].missing)
    local id = begun(c, c:job { one = { work = "one 3000", parts = 8 } })
    c:run(1500)
    assert.equal("w-a1 w-a1 w-a2 w-a2 w-a3 w-a3 w-a4 w-a4", executors_of(c, m, id))
    ended(c, id)
  end)

  it("F09: a gate gives up a datacenter for one job, which goes on elsewhere; its other jobs stay there", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 1 }
    local g = c.gates[1]
    local one, other = two_jobs(c)
    assert.equal("a b", executors_of(c, g, one))
    c:on(g, [[ node.hooks:wire("detector.job_death", function (_, _, _)
      node.spec_raised = (node.spec_raised or 0) + 1
      if node.spec_raised == 1 then error "the hook is broken" end
    end) ]])
    hush(c, g, one, "m-a1")
    local took = until_lost(c, g)
    assert.is_true(took >= 9000 and took <= 11500, "after " .. took) -- A lone gate gives a manager 2 s.
    assert.equal("a", c:incidents(g, "lead.attempt_lost")[1].ids.executor)
    c:run(2000)
    assert.equal("b b", executors_of(c, g, one))
    local told = c:incidents(g, "detector.job_death")
    assert.same({ 1, "a", one, "1.0", 2 }, { #told, told[1].ids.node, told[1].ids.job, told[1].ids.incarnation,
      c:on(g, "return node.spec_raised") })
    assert.equal("a b", executors_of(c, g, other))
    hush(c, g, nil)
    ended(c, one, 90000)
    ended(c, other)
    c:rest()
  end)

  it("F09: a datacenter that is silent as a whole is not given up job by job: probes decide", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 1 }
    local g, m = c.gates[1], c.managers[1]
    local one = two_jobs(c, 50000)
    c:crash(m)
    c:run(28000)
    assert.same({ 0, 0, {} }, { counters(c, g).jobs_suspected, losses(c, g), listed(c, g) })
    c:restart(m)
    local final = ended(c, one, 120000)
    assert.equal(2, #final.result.attempts)
    c:check_counts(one, final)
  end)

  it("F09: a machine that membership is slow to declare dead is not given up job by job", function ()
    local c <close> = simcluster.new { workers = 2, set = { profile = "wan" } }
    local m, w = c.managers[1], c.workers[1]
    local one, other = two_jobs(c, 60000)
    c:crash(w)
    local seen = {}
    assert.truthy(c:until_true(function ()
      local state = c:on(m, "return node.swim:member('w-a1').state")
      seen[state] = true
      return state == "dead"
    end, 60000, 100))
    assert.is_true(seen.suspect and c.s:now_ms() > 15000)
    assert.is_true(c:counts(m, "detector.look").raised > 3)
    assert.equal(0, counters(c, m).jobs_suspected)
    c:run(1000)
    assert.equal(2, losses(c, m))
    ended(c, one, 120000)
    ended(c, other, 120000)
  end)

  it("F09: a datacenter that falls silent while it is suspected for one job is suspected for it no more", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 1 }
    local g, m = c.gates[1], c.managers[1]
    local one = two_jobs(c, 50000)
    c:on(g, "state.lead.suspects.detector.core:reconfigure { watches = 'managers', job_min_ms = 12000, job_max_ms = 12000 }")
    hush(c, g, one, "m-a1")
    assert.truthy(c:until_true(function () return #listed(c, g) == 1 end, 12000, 20))
    c:crash(m)
    c:run(14000)
    assert.same({ 0, 0, {} }, { losses(c, g), counters(c, g).jobs_expired, listed(c, g) })
    hush(c, g, nil)
    c:restart(m)
    ended(c, one, 120000)
  end)

  it("F09: the death of a machine is told once at each manager, one that refutes never; no job is suspected meanwhile", function ()
    local c <close> = simcluster.new { managers = 3, workers = 3 }
    local one, other = two_jobs(c, 15000)
    for _, m in ipairs(c.managers) do
      c:hear(m)
      c:on(m, [[ node.spec_deaths = {}
        node.hooks:wire("detector.global_death", function (name, incarnation)
          node.spec_deaths[#node.spec_deaths + 1] = name .. " " .. incarnation
        end) ]])
    end
    c:pause(c.workers[2])
    c:run(700)
    c:resume(c.workers[2])
    c:run(4000)
    c:crash(c.workers[1])
    c:run(9000)
    local suspected = false
    for _, m in ipairs(c.managers) do
      local life = c:on(m, "return node.swim:member('w-a1').incarnation")
      assert.same({ ("w-a1 %d.%d"):format(life.generation, life.version) }, c:on(m, "return node.spec_deaths"))
      for _, event in ipairs(c:events(m)) do suspected = suspected or event == "suspect w-a2" end
      assert.equal(0, counters(c, m).jobs_suspected)
    end
    assert.is_true(suspected)
    ended(c, one)
    ended(c, other)
    c:rest()
  end)

  it("F08: a worker of an older build, which does not know the question, answers it for all that", function ()
    local c <close> = simcluster.new { workers = 1 }
    local m = c.managers[1]
    local id = begun(c, c:job { load = { code = USERS, vus = 2, duration_ms = 20000 } })
    c:on(c.workers[1], "node.rpc.handlers['part.look'] = nil")
    hush(c, m, id)
    ended(c, id)
    assert.is_true(c:counts(m, "detector.look").raised >= 3)
    assert.same({ 0, 0 }, { counters(c, m).jobs_suspected, losses(c, m) })
  end)

  it("F59: an answer without a move buys time only after progress, less each time; a move ends the suspicion", function ()
    local c <close> = simcluster.new { workers = 1 }
    local m, w = c.managers[1], c.workers[1]
    local id = begun(c, c:job { load = { code = USERS, vus = 2, duration_ms = 120000, retries = 1 } })
    c:run(1000)
    configure(c, m, "job_min_ms = 5000")
    local granted = {}
    for round = 1, 2 do
      freeze(c, w)
      hush(c, m, id)
      assert.truthy(c:until_true(function () return #listed(c, m) == 1 end, 12000, 20))
      hush(c, m, nil)
      assert.truthy(c:until_true(function () return counters(c, m).extended == round end, 3000, 20))
      granted[round] = counters(c, m).extended_ms
      if round == 1 then
        c:run(5000)
        assert.is_true(counters(c, m).no_progress >= 2) -- It was asked again, and got nothing.
        assert.truthy(listed(c, m)[1].text:find("it answers, and does not move", 1, true), listed(c, m)[1].text)
        thaw(c, w)
        assert.truthy(c:until_true(function () return #listed(c, m) == 0 end, 3000, 20))
        c:run(1000)
      end
    end
    assert.same({ 15000, 22500 }, granted)
    local took = until_lost(c, m) -- It does not move in the time that it got.
    assert.is_true(took > 11000 and took < 14000, "after " .. took)
    thaw(c, w)
    assert(c:on(c.client, "return state.client:cancel(...)", id, "enough"))
    c:run(5000)
    assert.equal(0, counters(c, m).extensions)
    c:rest()
  end)
end)

describe("an executor that asks for time:", function ()
  it("F59: so many grants of a workflow, then a last grace; the next workflow begins anew", function ()
    local c <close> = simcluster.new { workers = 1 }
    local m, w = c.managers[1], c.workers[1]
    local id = begun(c, c:job {
      first = { code = USERS, vus = 2, duration_ms = 26000 }, second = { code = USERS, vus = 2, duration_ms = 60000, after = { "first" } },
    })
    c:run(1000)
    configure(c, m, "job_min_ms = 3000, job_max_ms = 3000, extension_base_ms = 6000, extensions_max = 1, grace_ms = 2000")
    --- Suspected, then asked again.
    local function stall()
      freeze(c, w)
      hush(c, m, id)
      assert.truthy(c:until_true(function () return #listed(c, m) == 1 end, 12000, 20))
      hush(c, m, nil)
      c:run(1300)
    end
    local function move()
      thaw(c, w)
      assert.truthy(c:until_true(function () return #listed(c, m) == 0 end, 3000, 20))
    end
    stall()
    assert.same({ 1, 3000, 0 }, { counters(c, m).extended, counters(c, m).extended_ms, counters(c, m).exhausted })
    assert.truthy(listed(c, m)[1].text:find("it answers, and", 1, true), listed(c, m)[1].text)
    move()
    assert.truthy(c:until_true(function () return executors_of(c, m, id):find "w%-a1" and c:on(m, [[
      for _, a in pairs(state.lead.attempts:of_run(...)) do if a.workflow == "second" then return true end end ]], id) end, 30000, 50))
    c:run(1500)
    stall()
    assert.same({ 2, 0 }, { counters(c, m).extended, counters(c, m).exhausted })
    move()
    c:run(1000)
    stall()
    assert.same({ 2, 1 }, { counters(c, m).extended, counters(c, m).graces })
    assert.truthy(listed(c, m)[1].text:find("its extensions are used up", 1, true), listed(c, m)[1].text)
    local took = until_lost(c, m)
    assert.is_true(took > 2000 and took < 4500, "after " .. took) -- 3 s and the grace of 2 s, less the 1.3 s.
    thaw(c, w)
    assert(c:on(c.client, "return state.client:cancel(...)", id, "enough"))
    c:run(5000)
    c:rest()
  end)
end)

--- A worker that is silent for one of two jobs, at the moment when its suspicion is about to expire; `code` runs on the manager first.
local function silent(options, code)
  local c = simcluster.new(options)
  local m = c.managers[1]
  local one, other = two_jobs(c, 40000)
  if code then c:on(m, code) end
  hush(c, m, one, "w-a1")
  assert.truthy(c:until_true(function () return #listed(c, m) == 1 end, 12000, 20))
  return c, m, one, other
end

local BREAK = [[ local real, n, limit = state.lead.job_gone, 0, %s
  node.spec_at = {}
  state.lead.job_gone = function (...)
    n = n + 1
    node.spec_at[n] = node.world:now_ns() // 1000000
    if n <= limit then error("the hook is broken") end
    return real(...)
  end ]]

local function waits(c, m)
  local at, out = c:on(m, "return node.spec_at"), {}
  for i = 2, #at do out[i - 1] = at[i] - at[i - 1] end
  return out
end

local function finish(c, m, ids)
  hush(c, m, nil)
  for _, id in ipairs(ids) do ended(c, id, 120000) end
  for _, node in ipairs(c.nodes) do
    if node ~= c.client then assert.is_true(c:on(node, "return (require('shoal.errors').balance())")) end
  end
end

describe("finding 1.5, the death of a machine:", function ()
  it("F09, 1.5: a hook that always raises: 0.5, 1, 2, 4, 8 s, then one critical incident; the role's own ran once, work goes on", function ()
    local c <close> = simcluster.new { workers = 2 }
    local m = c.managers[1]
    local one, other = two_jobs(c, 12000)
    c:on(m, [[ node.spec_at = {}
      node.hooks:wire("detector.global_death", function (_, _)
        node.spec_at[#node.spec_at + 1] = node.world:now_ns() // 1000000
        error { code = 7 }
      end, "mine")
      local real = state.lead.gone
      node.spec_gone = 0
      state.lead.gone = function (...) node.spec_gone = node.spec_gone + 1 return real(...) end ]])
    c:crash(c.workers[1])
    ended(c, one)
    ended(c, other)
    c:run(10000)
    assert.same({ 500, 1000, 2000, 4000, 8000 }, waits(c, m))
    local told, counts = c:incidents(m, "detector.global_death"), c:counts(m, "detector.global_death")
    assert.same({ 6, 6 }, { counts.raised, counts.reported + counts.suppressed })
    assert.equal("attempt confirmations delivery hook hook_index incarnation job next_retry_ms node suspicion_age_ms", names(told[1].ids))
    assert.same({ "w-a1", "none", "mine" }, { told[1].ids.node, told[1].ids.job, told[1].ids.hook })
    assert.equal("critical", told[#told].level)
    assert.equal(1, c:on(m, "return node.spec_gone"))
    c:rest()
  end)
end)

describe("finding 1.5, the death of a node for one job:", function ()
  local IDS = "attempt confirmations delivery hook hook_index incarnation job next_retry_ms node suspicion_age_ms"

  for times, expected in ipairs { { 500 }, { 500, 1000 } } do
    it(("F09, 1.5: a hook that raises %d times is one incident each, and is called again until it takes it; other hooks run"):format(times),
      function ()
        local c <close>, m, one, other = silent({ workers = 2 }, BREAK:format(times))
        c:on(m, [[ node.spec_others = 0
          node.hooks:wire("detector.job_death", function (name, job, incarnation)
            node.spec_others, node.spec_args = node.spec_others + 1, { name, job, incarnation }
          end) ]])
        c:run(8000)
        assert.same(expected, waits(c, m))
        local told, counts = c:incidents(m, "detector.job_death"), c:counts(m, "detector.job_death")
        assert.same({ times, times, 0, 0 }, { counts.raised, counts.reported, counts.suppressed, counts.handled })
        for i, incident in ipairs(told) do
          assert.equal(IDS, names(incident.ids))
          assert.is_nil(incident.missing)
          assert.same({ "error", "w-a1", one, i, expected[i] },
            { incident.level, incident.ids.node, incident.ids.job, incident.ids.attempt, incident.ids.next_retry_ms })
          assert.truthy(incident.ids.incarnation:find "^%d+%.%d+$")
          assert.is_true(incident.ids.suspicion_age_ms >= 1000 and incident.ids.confirmations == 0)
        end
        assert.same({ 1, { "w-a1", one, told[1].ids.incarnation } }, { c:on(m, "return node.spec_others, node.spec_args") })
        assert.equal(1, losses(c, m))
        finish(c, m, { one, other })
        c:rest()
      end)
  end

  it("F09, 1.5: one that always raises: 0.5, 1, 2, 4, 8 s, then one critical incident; the job does not hang", function ()
    local c <close>, m, one, other = silent({ workers = 2, set_manager = { manager_silent_ms = 30000 } }, BREAK:format "math.huge")
    c:run(18000)
    assert.same({ 500, 1000, 2000, 4000, 8000 }, waits(c, m))
    local told = c:incidents(m, "detector.job_death")
    assert.equal(6, c:counts(m, "detector.job_death").raised)
    local last = told[#told]
    assert.same({ "critical", 6 }, { last.level, last.ids.attempt })
    local _, escalated = c.s:log():gsub('"site":"detector.job_death"[^\n]*"escalated":true', "")
    assert.equal(1, escalated)
    assert.equal(0, losses(c, m))
    assert.same({ 0, 1 }, { counters(c, m).suspicions, counters(c, m).jobs_expired }) -- No second suspicion meanwhile.
    assert.equal("w-a1 w-a2", executors_of(c, m, one))
    c:run(12000)
    assert.equal(1, losses(c, m))
    assert.truthy(c:incidents(m, "lead.attempt_lost")[1].message:find("no progress for", 1, true))
    assert.equal(6, c:counts(m, "detector.job_death").raised)
    finish(c, m, { one, other })
    c:rest()
  end)

  it("F09, 1.5: it is withdrawn when the node answers for the job, when it rejoins, and when the job ends", function ()
    local c <close>, m, one, other = silent({ workers = 2 }, BREAK:format "math.huge")
    local function raised() return c:counts(m, "detector.job_death").raised end
    local function stays(n)
      c:run(9000)
      assert.equal(n, raised())
    end
    assert.truthy(c:until_true(function () return raised() == 2 end, 6000, 20))
    hush(c, m, nil)
    c:run(1500)
    stays(raised())
    assert.same({ 0, {} }, { losses(c, m), listed(c, m) })
    -- The same again, and the worker restarts; its death is another matter, and its hook works.
    local before = raised()
    hush(c, m, one, "w-a1")
    assert.truthy(c:until_true(function () return raised() == before + 3 end, 20000, 20))
    c:on(m, "state.lead.gone = function () error 'this hook is broken, too' end")
    c:crash(c.workers[1])
    c:restart(c.workers[1])
    assert.truthy(c:until_true(function () return #listed(c, m) == 0 end, 12000, 50))
    stays(raised())
    c:on(m, "state.lead.gone = nil")
    -- And once more, and the job is cancelled.
    before = raised()
    hush(c, m, other)
    assert.truthy(c:until_true(function () return raised() >= before + 2 end, 20000, 20))
    assert(c:on(c.client, "return state.client:cancel(...)", other, "enough"))
    c:on(m, "state.lead:give_up(..., 'enough')", other)
    c:run(1500)
    stays(raised())
    assert.same({}, listed(c, m))
    finish(c, m, { one })
  end)

  it("F09, 1.5, L3: an edited level shows at the next failure; an error policy that raises is an incident itself, and ours is told", function ()
    local c <close>, m, one, other = silent({ workers = 2 }, BREAK:format "3")
    local path = "/shoal/scripts/policies/errors.lua"
    local text = assert(c.s:read(m, path))
    local function put(with)
      local edited = text:gsub("  sites = {", with, 1)
      assert.is_true(edited ~= text)
      assert(c.s:write(m, path, edited))
    end
    local function levels()
      local out = {}
      for i, incident in ipairs(c:incidents(m, "detector.job_death")) do out[i] = incident.level end
      return table.concat(out, " ")
    end
    assert.truthy(c:until_true(function () return levels() == "error" end, 6000, 20))
    put '  sites = {\n    ["detector.job_death"] = { level = "warning" },'
    assert.truthy(c:until_true(function () return levels() == "error warning" end, 1000, 20))
    assert(c.s:write(m, path, (text:gsub("decide = function %b()", "%0 error 'no rule for this'", 1))))
    c:run(8000)
    assert.equal("error warning error", levels()) -- The built-in policy's.
    assert.same({ 3, 3, 1 }, {
      c:counts(m, "detector.job_death").raised, c:counts(m, "detector.job_death").reported, c:counts(m, "policy.decide").raised,
    })
    assert.equal(1, losses(c, m))
    assert(c.s:write(m, path, text))
    finish(c, m, { one, other })
    c:rest()
  end)

  it("F09, 1.5: a question that cannot be sent, and an answer that cannot be read, are incidents, and no answers", function ()
    for _, case in ipairs {
      { "FULL", [[ local Peer = getmetatable(node.rpc:peer("127.0.0.1:1"))
        local call = Peer.call
        Peer.call = function (peer, name, ...)
          if name == "part.look" then return nil, "no room", "FULL" end
          return call(peer, name, ...)
        end ]] },
      { "MALFORMED", [[ local messages = require "shoal.wire.messages"
        local decode = messages.decode_reply
        messages.decode_reply = function (name, bytes) return decode(name, name == "part.look" and "\xc1" or bytes) end ]] },
    } do
      local c <close> = simcluster.new { workers = 2 }
      local m = c.managers[1]
      local one, other = two_jobs(c)
      c:on(m, case[2])
      hush(c, m, one, "w-a1")
      local took = until_lost(c, m)
      assert.is_true(took >= ALONE_MS[1] and took <= ALONE_MS[2], "after " .. took)
      local told = c:incidents(m, "detector.look")
      assert.equal("asked executor job jobs", names(told[1].ids))
      assert.same({ case[1], "w-a1", "w-a1", one, 1, "warning" },
        { told[1].code, told[1].ids.executor, told[1].ids.asked, told[1].ids.job, told[1].ids.jobs, told[1].level })
      hush(c, m, nil)
      ended(c, one)
      ended(c, other)
    end
  end)
end)

describe("finding 1.5, the reconcile pass:", function ()
  it("F09, 1.5: one node that fails is an incident with every counter, and the pass goes on with the next; then it heals", function ()
    local c <close> = simcluster.new { workers = 3 }
    local m = c.managers[1]
    c:on(m, [[ local swim = node.swim
      node.spec_swim, node.spec_asked = swim, {}
      node.swim = setmetatable({ member = function (_, name)
        node.spec_asked[name] = (node.spec_asked[name] or 0) + 1
        if name == "w-a2" then error "no such table" end
        return swim:member(name)
      end }, { __index = function (_, key) return function (_, ...) return swim[key](swim, ...) end end }) ]])
    c:run(11000)
    c:on(m, "node.swim = node.spec_swim")
    local asked = c:on(m, "return node.spec_asked")
    local least = math.min(asked["w-a1"], asked["w-a2"], asked["w-a3"])
    assert.is_true(least >= 2)
    local told, counts = c:incidents(m, "detector.reconcile"), c:counts(m, "detector.reconcile")
    assert.equal(asked["w-a2"], counts.raised)
    assert.equal("cycle dropped_grants dropped_nodes ended failed forgotten job looked mended node", names(told[1].ids))
    assert.is_nil(told[1].missing)
    assert.same({ "w-a2", "none", 1 }, { told[1].ids.node, told[1].ids.job, told[2].ids.cycle - told[1].ids.cycle })
    c:run(6000)
    assert.equal(counts.raised, c:counts(m, "detector.reconcile").raised)
  end)

  it("F09: it tells the detector the state that an event should have, and ends what no job or node is behind", function ()
    local c <close> = simcluster.new { workers = 2 }
    local m = c.managers[1]
    c:on(m, "node.spec_layer, node.layer_one = node.layer_one, function () error 'it is broken' end")
    c:crash(c.workers[1])
    assert.truthy(c:until_true(function () return c:on(m, "return node.swim:member('w-a1').state") == "dead" end, 8000, 10))
    local function state() return c:on(m, "local w = state.lead.suspects.detector:why(nil, 'w-a1') return w and w.state") end
    assert.equal("alive", state())
    assert.is_true(c:counts(m, "swim.event").raised > 0)
    c:run(6000)
    assert.equal("dead", state())
    assert.is_nil(c:ask(m, "look").lead.executors["w-a1"]) -- The role's hooks got its death.
    c:on(m, "state.lead.suspects.detector:suspect('job-of-yesterday', 'w-a2', 'm-a1') node.layer_one = node.spec_layer")
    c:on(m, "state.lead.suspects.detector:suspect(nil, 'nobody', 'm-a1')")
    c:run(6000)
    assert.same({ 0, 0 }, { counters(c, m).suspicions, counters(c, m).machines })
  end)
end)

describe("finding 2.1, a suspicion for one job that expires:", function ()
  it("F09, 2.1: a hook that raises is one incident with its ids; the suspicion is gone, the other hooks run, the parts move", function ()
    local c <close>, m, one, other = silent({ workers = 2 }, [[ node.spec_args = {}
      node.hooks:wire("detector.job_suspicion_expired", function (...) error "the hook is broken" end, "mine")
      node.hooks:wire("detector.job_suspicion_expired", function (...) node.spec_args[#node.spec_args + 1] = { ... } end) ]])
    until_lost(c, m)
    c:run(3000)
    local told, counts = c:incidents(m, "detector.job_suspicion_expired"), c:counts(m, "detector.job_suspicion_expired")
    assert.same({ 1, 1 }, { #told, counts.raised })
    local ids = told[1].ids
    assert.equal("age_ms confirmations hook hook_index incarnation job node timeout_ms", names(ids))
    assert.is_nil(told[1].missing)
    assert.same({ one, "w-a1", 0, "mine", 1 }, { ids.job, ids.node, ids.confirmations, ids.hook, ids.hook_index })
    assert.is_true(ids.timeout_ms >= 1000 and ids.age_ms >= ids.timeout_ms and ids.age_ms < ids.timeout_ms + 50)
    assert.same({ { "w-a1", one, ids.incarnation } }, c:on(m, "return node.spec_args"))
    assert.same({ 0, 1 }, { counters(c, m).suspicions, losses(c, m) })
    finish(c, m, { one, other })
    c:rest()
  end)

  for getter, code in pairs { -- order-free: each by itself
    members = "state.lead.suspects.observers = function () error 'no members' end",
    health = [[ local swim = node.swim
      node.swim = setmetatable({ counts = function () return { health = "well" } end },
        { __index = function (_, key) return function (_, ...) return swim[key](swim, ...) end end }) ]],
  } do
    it(("F09, 2.1: the getter of %s fails: its last good value stands, an incident tells it, and the suspicion expires in time"):format(getter),
      function ()
        local c <close>, m, one, other = silent({ workers = 2, managers = 1 }, code)
        until_lost(c, m)
        local told, counts = c:incidents(m, "detector.getter"), c:counts(m, "detector.getter")
        assert.equal(1, counts.raised)
        assert.equal("getter job last_good node", names(told[1].ids))
        assert.same({ getter, one, "w-a1", 0 }, { told[1].ids.getter, told[1].ids.job, told[1].ids.node, told[1].ids.last_good })
        assert.equal(1, counters(c, m).getter_failures)
        finish(c, m, { one, other })
      end)
  end
end)
