--- FAILURES 1.2, 1.3 with 2.2, and 1.4: each failure injected in every way, through the role scripts: once, twice in a row, while the
--- policy file is edited to another level, while that file is broken (L1), and while the policy itself raises. Each time it is exactly
--- one incident with all its ids, the counts balance, and the work goes on. What each finding promises besides: findings_spec.lua.
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local POLICY = "/shoal/scripts/policies/errors.lua"
local USERS = [[return { vu = function (vu) vu:sleep(100) end }]]
local STEPS = 60

local function names(ids) return table.concat(sorted.keys(ids), " ") end

--- Three managers, one worker, one client; a load that runs on, beside a long chain of short commands, so that progress, stats, status
--- and results flow all the time.
local function begin()
  local c = simcluster.new { managers = 3, workers = 1 }
  local workflows = { load = { code = USERS, vus = 2, duration_ms = 200 * STEPS } }
  for i = 1, STEPS do
    workflows[("s%02d"):format(i)] = { work = ("s%02d 200"):format(i), after = i > 1 and { ("s%02d"):format(i - 1) } or nil }
  end
  local id = assert(c:submit(c:job(workflows)))
  c:on(c.client, [[
    local id = ...
    node.spec_boom, node.spec_calls = {}, {}
    local function calls(kind)
      return function ()
        node.spec_calls[kind] = (node.spec_calls[kind] or 0) + 1
        if node.spec_boom[kind] then
          node.spec_boom[kind] = nil
          error("the user's own " .. kind)
        end
      end
    end
    local callbacks = {}
    for _, kind in ipairs { "status", "stats", "result", "gone", "back" } do callbacks[kind] = calls(kind) end
    node.scope:spawn("spec.follow", {}, function () node.spec_final = state.client:follow(id, callbacks) end)
  ]], id)
  c:run(500)
  return c, id
end

local function finish(c, id)
  local final
  assert.truthy(c:until_true(function ()
    final = c:on(c.client, "return node.spec_final")
    return final
  end, 60000), "the job did not end")
  assert.equal("completed", final.state, final.reason)
  assert.equal(STEPS, (function () -- Nothing was lost and nothing ran twice, whatever failed.
    local n = 0
    for _, runs in sorted(c.ran) do n = n + runs end
    return n
  end)())
  c:rest()
  assert.equal(id, final.result.job)
end

--- Put code before a handler of the manager's; `refuse` counts how often it acts.
local function tap(c, node, message, code)
  c:on(node, ([[
    local message = ...
    if not node.spec_taps then node.spec_taps = {} end
    if node.spec_taps[message] then return end
    local real = node.rpc.handlers[message]
    node.spec_taps[message] = true
    node.rpc.handlers[message] = function (body, peer) %s return real(body, peer) end
  ]]):format(code), message)
end

--- Push bytes from the leader over the client's own connection; the answer.
local function push(c, message, bytes)
  return c:on(c.managers[1], [[
    local message, bytes = ...
    local messages, task = require "shoal.messages", require "shoal.task"
    local peer
    for core, known in next, node.rpc.peers do
      local info = core:info()
      if info and info.role == "client" then peer = known end
    end
    local m = messages.get(message)
    local answer = task.future "spec push"
    assert(peer.core:call(m.id, m.lane, bytes, 2000, function (reply, err, code) answer:settle(reply, err, code) end))
    return answer:await(3000)
  ]], message, bytes)
end

local SEND_IDS = "address attempt backpressure consecutive counts job manager part parts put_back status workflow"
local PUSH_IDS = "handler job payload_bytes sender sequence stage workflow"

--- One row a failure. `cause` makes it once; time then passes until it was raised. `at` is the node.
local rows = {
  { site = "worker.progress.send", at = "worker", level = "warning", ids = SEND_IDS, fits = { status = "OVERLOADED", put_back = true },
    consecutive = true, cause = function (c)
      tap(c, c.managers[1], "part.progress", "if node.spec_refuse then node.spec_refuse = nil return nil, 'not now', 'OVERLOADED' end")
      c:on(c.managers[1], "node.spec_refuse = true")
    end },
  { site = "worker.progress.send", at = "worker", level = "warning", ids = SEND_IDS, fits = { status = "FAILED" }, consecutive = true,
    title = "worker.progress.send, for the handler raised", cause = function (c)
      tap(c, c.managers[1], "part.progress", "if node.spec_refuse then node.spec_refuse = nil error 'a bug' end")
      c:on(c.managers[1], "node.spec_refuse = true")
    end },
  { site = "worker.progress.flush_loop", at = "worker", level = "error", ids = "buffered consecutive cycle next_delay_ms",
    consecutive = true, cause = function (c)
      c:on(c.workers[1], [[ local reports = state.worker.reports
        reports.flush = function () reports.flush = nil error "a bug in the flush" end ]])
    end },
  { site = "worker.progress.ack", at = "worker", level = "debug", ids = "class consecutive first_byte job manager payload_bytes workflow",
    fits = { class = "not_a_map", first_byte = 0xc1, payload_bytes = 2, manager = "m-a1" }, consecutive = true, cause = function (c)
      c:on(c.managers[1], [[
        node.spec_bad_ack = true
        if node.spec_raw then return end
        node.spec_raw = true
        local real, messages = node.rpc.handlers["part.progress"], require "shoal.messages"
        node.rpc.handlers["part.progress"] = nil
        assert(node.rpc:raw("part.progress", function (bytes, peer)
          if node.spec_bad_ack then node.spec_bad_ack = nil return "\xc1\xc1" end
          return real(messages.decode("part.progress", bytes), peer)
        end)) ]])
    end },
}
for message, site in sorted { ["job.status"] = "client.push.job_status", ["job.stats"] = "client.push.stats",
  ["job.result"] = "client.push.result", ["job.push"] = "client.push.job_status" } do
  rows[#rows + 1] = { site = site, title = site .. " (" .. message .. ")", at = "client", level = "error", ids = PUSH_IDS,
    fits = { handler = message, sender = "m-a1", payload_bytes = 3, stage = "parse" }, cause = function (c)
      assert.equal("error", (push(c, message, "\xc1\xff\x00")))
    end }
end
for _, kind in ipairs { "status", "stats", "result" } do
  rows[#rows + 1] = { site = "client.callback." .. kind, at = "client", level = "error", ids = PUSH_IDS,
    fits = { sender = "m-a1", stage = "callback" }, cause = function (c) c:on(c.client, "node.spec_boom[...] = true", kind) end }
end

describe("a failure that is injected,", function ()
  for _, row in ipairs(rows) do
    it("F45, F46, F48, F51, F69, L1, L3: " .. (row.title or row.site) .. ": once, twice, under edited, broken and raising policies", function ()
      local c <close> = begin()
      local id = c:on(c.client, "return (next(state.client.jobs))")
      local node = row.at == "worker" and c.workers[1] or c.client
      local shipped = assert(c.s:read(node, POLICY))
      local told, raised = #c:incidents(node, row.site), c:counts(node, row.site).raised

      --- The failure, once: it is one incident, at this level.
      local function strike(level, consecutive)
        row.cause(c)
        assert.truthy(c:until_true(function () return c:counts(node, row.site).raised > raised end, 8000, 5), "nothing was raised")
        raised, told = raised + 1, told + 1
        local counts, list = c:counts(node, row.site), c:incidents(node, row.site)
        assert.same({ raised, raised, 0 }, { counts.raised, counts.reported + counts.suppressed + counts.handled, counts.in_flight })
        assert.equal(told, #list)
        local incident = list[told]
        assert.equal(level, incident.level)
        assert.is_nil(incident.missing)
        assert.equal(row.ids, names(incident.ids))
        for name, value in sorted(row.fits or {}) do assert.equal(value, incident.ids[name], name) end
        if row.consecutive and consecutive then assert.equal(consecutive, incident.ids.consecutive) end
      end

      --- Edit the policy; it is looked at again 200 ms later.
      local function policy(text)
        assert(c.s:write(node, POLICY, text))
        c:run(250)
      end

      strike(row.level, 1)
      strike(row.level) -- At once again: a row of two, or, if a good one came between, a second first.
      assert.equal(0, c:counts(node, "policy.load").raised)
      policy(("return { sites = { [%q] = { level = 'critical', burst = 100 } } }"):format(row.site))
      strike "critical"
      strike "critical"
      policy "return { sites = { [" -- Broken: the last good one stays, and that is said once.
      strike "critical"
      c:run(300)
      strike "critical"
      assert.equal(1, c:counts(node, "policy.load").raised)
      local broken = c:incidents(node, "policy.load")[1]
      assert.same({ POLICY, "error" }, { broken.ids.file, broken.level })
      assert.truthy(broken.message:find("near <eof>", 1, true), broken.message)
      policy "return { default = { burst = 100 }, decide = function (incident) error('decide has a bug: ' .. incident.site) end }"
      strike(row.level)
      assert.equal(1, c:counts(node, "policy.decide").raised)
      local decide = c:incidents(node, "policy.decide")[1]
      local list = c:incidents(node, row.site)
      assert.same({ POLICY, list[#list].id }, { decide.ids.file, decide.ids.incident })
      assert.truthy(decide.message:find(row.site, 1, true))
      strike(row.level)
      assert.equal(1, c:counts(node, "policy.decide").raised) -- The built-in one answers until the file changes.
      policy(shipped)
      strike(row.level)
      for _, site in ipairs { "policy.load", "policy.decide" } do
        local n = c:counts(node, site)
        assert.same({ 1, 1 }, { n.raised, n.reported + n.suppressed + n.handled })
      end
      finish(c, id)
    end)
  end
end)

--- A job of one load part on the one worker, of three managers; followed.
local function simple(c, ms)
  local id = assert(c:submit(c:job { load = { code = USERS, vus = 2, duration_ms = ms } }))
  c:watch(id)
  return id
end

local function completes(c, id)
  local final
  assert.truthy(c:until_true(function () final = c:final(id) return final end, 120000, 200), "the job did not end")
  assert.equal("completed", final.state, final.reason)
end

describe("finding 1.2 below the worker:", function ()
  it("F45, F61, F69: who leads is asked at most once a second a job, not in step, though who is asked raises", function ()
    local c <close> = simcluster.new { managers = 3, workers = 1 }
    local w, m = c.workers[1], c.managers[1]
    local ids = { simple(c, 40000), simple(c, 40000) }
    c:run(1000)
    c:on(c.managers[2], [[
      node.spec_asked = {}
      node.rpc.handlers["lead.who"] = function (body)
        local list = node.spec_asked[body.job] or {}
        node.spec_asked[body.job] = list
        list[#list + 1] = node.world:now_ns() // 1000000
        error "a bug in who leads"
      end ]])
    c:on(w, [[ -- Each round asks the role for its managers, right after it has set when the job may be asked for next.
      local reports, task = state.worker.reports, require "shoal.task"
      local others = reports.options.others
      node.spec_next = {}
      reports.options.others = function ()
        local due_ms = 0
        for _, known in pairs(reports.jobs) do due_ms = math.max(due_ms, known.asked_ms - task.now_ms()) end
        table.insert(node.spec_next, due_ms)
        return others()
      end ]])
    c:cut(w, m)
    c:run(16000)
    local due = c:on(w, "return node.spec_next")
    table.sort(due)
    assert.is_true(due[1] >= 1000 and due[#due] <= 1200 and due[#due] - due[1] > 20, "in step")
    local told = c:incidents(w, "worker.progress.redirect")
    assert.is_true(#told >= 2)
    local of = {}
    for _, incident in ipairs(told) do
      assert.is_nil(incident.missing)
      assert.same({ "address job part workflow", "warning" }, { names(incident.ids), incident.level })
      of[incident.ids.address] = true
    end
    assert.is_true(of[c.managers[2].address])
    assert.is_true(c:counts(c.managers[2], "rpc.handler").raised > 0) -- It says so there, too.
    for _, id in ipairs(ids) do
      local at = c:on(c.managers[2], "return node.spec_asked[...]", id)
      assert.is_true(#at >= 3, #at .. " asked")
      for i = 2, #at do assert.is_true(at[i] - at[i - 1] >= 1000, "asked again too soon") end
    end
    -- The role's own list of managers raises.
    local before = c:counts(w, "worker.progress.redirect").raised
    c:on(w, "state.worker.reports.options.others = function () error 'a bug in the role' end")
    assert.truthy(c:until_true(function () return c:counts(w, "worker.progress.redirect").raised > before end, 10000))
    c:heal(w, m)
    for _, id in ipairs(ids) do completes(c, id) end
    assert.equal(50, c:on(w, "return state.worker.reports:interval_ms()"))
    c:rest()
  end)

  it("F45, F54: a final result whose handler raises twice is sent again, with one incident each, and taken once", function ()
    local c <close> = simcluster.new { managers = 3, workers = 1 }
    local w, m = c.workers[1], c.managers[1]
    tap(c, m, "part.result", [[ node.spec_results = (node.spec_results or 0) + 1
      if node.spec_results <= 2 then error "a bug in the result" end ]])
    local id = simple(c, 1000)
    completes(c, id)
    assert.equal(3, c:on(m, "return node.spec_results"))
    local told = c:incidents(w, "worker.result.send")
    assert.equal(2, #told)
    for _, incident in ipairs(told) do
      assert.is_nil(incident.missing)
      assert.same({ "FAILED", id, "load/1" }, { incident.ids.status, incident.ids.job, incident.ids.part })
    end
    assert.equal(2, c:counts(m, "rpc.handler").raised)
    assert.equal(1, #c:final(id).result.attempts)
    c:rest()
  end)
end)

describe("finding 1.3, an ack that is applied,", function ()
  it("F46, F69: is applied whole though ending one unknown attempt raises: its level, and the next attempt's end", function ()
    local c <close> = simcluster.new { managers = 3, workers = 1 }
    local w, m = c.workers[1], c.managers[1]
    local ids = { simple(c, 10000), simple(c, 10000) }
    c:run(1000)
    c:on(w, [[ node.spec_unknown = {}
      state.worker.reports.options.unknown = function (record)
        node.spec_unknown[#node.spec_unknown + 1] = record.job
        error("a bug in ending " .. record.part)
      end ]])
    c:on(m, [[ local real, ack = node.rpc.handlers["part.progress"], require "shoal.wire.ack"
      node.rpc.handlers["part.progress"] = function (body, peer)
        if #body.parts == 2 and not node.spec_done then
          node.spec_done = true
          return ack.encode { level = "throttle", unknown = { 1, 2 } }
        end
        return real(body, peer)
      end ]])
    assert.truthy(c:until_true(function () return c:on(m, "return node.spec_done") end, 5000, 1))
    c:run(20)
    assert.equal("throttle", c:on(w, "return state.worker.reports:counts().level"))
    local heard = c:on(w, "return node.spec_unknown")
    table.sort(heard)
    table.sort(ids)
    assert.same(ids, heard)
    local told = c:incidents(w, "worker.progress.unknown")
    assert.equal(2, #told)
    for _, incident in ipairs(told) do
      assert.is_nil(incident.missing)
      assert.same({ "attempt job manager part workflow", "error", "m-a1" }, { names(incident.ids), incident.level, incident.ids.manager })
    end
    assert.equal(0, c:counts(w, "worker.progress.flush_loop").raised)
    for _, id in ipairs(ids) do completes(c, id) end
    c:rest()
  end)
end)

describe("finding 1.4, beside the pushes that cannot be read:", function ()
  it("F48, F69: an event that skips one is an incident at stage `state`, answered error; the watch begins anew and nothing is lost", function ()
    local c <close> = begin()
    local id = c:on(c.client, "return (next(state.client.jobs))")
    local messages = require "shoal.messages"
    local seq = c:on(c.client, "return state.client.jobs[...].seq", id)
    local body = { job = id, seq = seq + 50, body = { workflow = "load", parts = {} } }
    assert.equal("error", (push(c, "job.stats", assert(messages.encode("job.stats", body)))))
    local told = c:incidents(c.client, "client.push.stats")
    assert.equal(1, #told)
    assert.is_nil(told[1].missing)
    assert.same({ "job.stats", "m-a1", id, "load", seq + 50, "state" }, { told[1].ids.handler, told[1].ids.sender, told[1].ids.job,
      told[1].ids.workflow, told[1].ids.sequence, told[1].ids.stage })
    finish(c, id)
  end)

  it("F48, F69: `gone` and `back` that raise are one incident each; the client finds its leader again and the end arrives", function ()
    local c <close> = begin()
    local id = c:on(c.client, "return (next(state.client.jobs))")
    c:on(c.client, "node.spec_boom.gone, node.spec_boom.back = true, true")
    for _, m in ipairs(c.managers) do c:cut(c.client, m) end
    c:run(8000)
    for _, m in ipairs(c.managers) do c:heal(c.client, m) end
    finish(c, id)
    for _, kind in ipairs { "gone", "back" } do
      local told = c:incidents(c.client, "client.callback." .. kind)
      assert.equal(1, #told)
      assert.is_nil(told[1].missing)
      assert.same({ kind, id, "callback", "error" }, { told[1].ids.handler, told[1].ids.job, told[1].ids.stage, told[1].level })
      assert.equal(1, c:on(c.client, "return node.spec_calls[...]", kind))
    end
  end)

  it("F48, L4: callbacks that cancel their own job and end their own client are safe; the books balance", function ()
    local c <close> = simcluster.new {}
    local id = assert(c:submit(c:job { load = { code = USERS, vus = 2, duration_ms = 20000 } }))
    c:on(c.client, [[
      local id = ...
      node.scope:spawn("spec.follow", {}, function ()
        local final = state.client:follow(id, {
          stats = function ()
            if node.spec_cancelled then return end
            node.spec_cancelled = true
            assert(state.client:cancel(id, "from its own callback")) -- It waits, in the middle of a push.
          end,
          result = function () state.client:close() end,
        })
        node.spec_final = final
      end) ]], id)
    assert.truthy(c:until_true(function () return c:on(c.client, "return node.spec_final") end, 20000))
    assert.equal("cancelled", c:on(c.client, "return node.spec_final.state"))
    assert.is_true(c:on(c.client, "return (require('shoal.errors').balance())"))
    c:rest { except = { c1 = true } } -- Its tasks ended with it.
  end)
end)

describe("finding 1.5, a worker that no manager reaches while others see it:", function ()
  it("F09: each manager that is asked for it says in time that it gets no answer: it confirms, and is not accused itself", function ()
    local c <close> = simcluster.new { managers = 3, workers = 2, set = { retention_ms = 60000 } }
    local m = c.managers[1]
    local id = assert(c:submit(c:job { load = { code = USERS, vus = 2, duration_ms = 30000, parts = 2 } }))
    c:watch(id)
    c:run(2000)
    for _, each in ipairs(c.managers) do c:cut(each, c.workers[1]) end
    local function event(name)
      local log = c.s:log()
      local from = log:find('"node":"m-a1","event":"detector.' .. name, 1, true)
      return from and log:match("[^\n]*", from)
    end
    assert.truthy(c:until_true(function () return event "suspected" end, 15000, 200))
    local suspected_ms = c.s:now_ms()
    assert.truthy(c:until_true(function () return event "expired" end, 15000, 200))
    assert.is_true(c.s:now_ms() - suspected_ms < 5000, "expired after " .. c.s:now_ms() - suspected_ms) -- 10 s without them.
    assert.truthy(event "expired":find('"confirmations":2', 1, true))
    for _, incident in ipairs(c:incidents(m, "detector.look")) do assert.equal("w-a1", incident.ids.asked) end
    assert.equal("alive", c:members(m)["w-a1"].state)
    for _, each in ipairs(c.managers) do c:heal(each, c.workers[1]) end
    completes(c, id)
    c:rest { ms = 62500 }
  end)
end)

describe("the errors policy's file", function ()
  it("L1: that cannot be read any more leaves the last good one in use, and that is said once; back, it is looked at again", function ()
    local c <close> = simcluster.new { managers = 3, workers = 1 }
    local w, m = c.workers[1], c.managers[1]
    local id = simple(c, 30000)
    c:run(1000)
    tap(c, m, "part.progress", "if node.spec_refuse then node.spec_refuse = nil return nil, 'not now', 'OVERLOADED' end")
    local function level()
      local raised = c:counts(w, "worker.progress.send").raised
      c:on(m, "node.spec_refuse = true")
      assert.truthy(c:until_true(function () return c:counts(w, "worker.progress.send").raised > raised end, 4000, 5))
      c:run(250)
      local told = c:incidents(w, "worker.progress.send")
      return told[#told].level
    end
    local loads = function () return c:counts(w, "policy.load").raised end
    assert(c.s:write(w, POLICY, "return { default = { burst = 100 }, sites = { ['worker.progress.send'] = { level = 'critical' } } }"))
    c:run(250)
    assert.equal("critical", level())
    local function remove() c:on(w, "assert(node.world:unlink(...))", POLICY) end
    remove() -- Half of an editor's rename: nothing is said.
    assert.equal("critical", level())
    assert(c.s:write(w, POLICY, "return { default = { burst = 100 }, sites = { ['worker.progress.send'] = { level = 'info' } } }"))
    assert.equal("info", level())
    assert.equal(0, loads())
    remove()
    for _ = 1, 4 do assert.equal("info", level()) end
    assert.equal(1, loads())
    local told = c:incidents(w, "policy.load")[1]
    assert.same({ POLICY, "error" }, { told.ids.file, told.level })
    assert.truthy(told.message:find("the last good policy stays in use", 1, true))
    assert(c.s:write(w, POLICY, "return { sites = { ['worker.progress.send'] = { level = 'error' } } }"))
    assert.equal("error", level())
    remove()
    for _ = 1, 3 do assert.equal("error", level()) end
    assert.equal(2, loads()) -- A second time is said again.
    completes(c, id)
    c:rest()
  end)
end)
