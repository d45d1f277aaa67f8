--- Scripts as a source of faults (SCENARIOS L2 to L6, F69): role scripts and policies, edited as an operator would, in simulated nodes.
--- Each edited script has a field `state.bad` that a spec sets while the node runs: the code there runs inside the callback.
local followed = require "spec.support.followed"
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local submitted, ended = followed.submitted, followed.ended

local USERS = [[return { vu = function (vu) vu:sleep(100) end }]]
local ROLE, POLICY = "/shoal/scripts/roles/%s.lua", "/shoal/scripts/policies/%s.lua"

local function shipped(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

--- The shipped role script with more code before its last line.
local function role_with(name, more)
  local text = shipped("scripts/roles/" .. name .. ".lua")
  local out, n = text:gsub("\nreturn role%s*$", function () return "\n" .. more .. "\nreturn role\n" end)
  assert(n == 1, name)
  return { [ROLE:format(name)] = out }
end

--- Each hook and some handlers first do what a role does, then what `bad` says.
local BADLY = [[
local task = require "shoal.task"
local BAD = {
  raises = function () error "a bug of the script" end,
  raises_a_table = function () error { code = "ODD" } end,
  waits = function () task.sleep(1000) end,
  never_ends = function () while true do end end,
  recurses = function () local function f() return 1 + f() end return f() end,
  answers_nothing = function () end,
  answers_a_number = function () return 42 end,
  answers_too_much = function () return { jobs = "many" } end,
}
local function badly(state, ...)
  state.calls = (state.calls or 0) + 1
  local fn = BAD[state.bad]
  if fn then return fn(...) end
  return ...
end
local hooks = role.hooks
function role.hooks(state)
  local all = hooks(state)
  local taken = all["swim.member"]
  all["swim.member"] = function (event)
    taken(event)
    badly(state)
  end
  return all
end
for _, name in ipairs { "job.list", "lead.who" } do
  local answer = role.answers[name]
  role.answers[name] = function (state, body, peer)
    local reply, err, code = answer(state, body, peer)
    if state.bad then return badly(state) end
    return reply, err, code
  end
end
]]

local function balanced(c, node, site)
  local n = c:counts(node, site)
  assert.equal(n.raised, n.reported + n.suppressed + n.handled)
  assert.equal(0, n.in_flight)
  return n.raised
end

--- Ask a node for its jobs as the client; nil, err, code when it fails.
local function list(c, node, timeout_ms)
  return c:on(c.client, [[ local address, timeout_ms = ...
    local reply, err, code = node.rpc:peer(address):call("job.list", {}, { timeout_ms = timeout_ms })
    return { reply and #reply.jobs, err, code } ]], node.address, timeout_ms or 2000)
end

describe("a callback that fails:", function ()
  local SAYS = {
    raises = "a bug of the script", raises_a_table = "ODD", waits = "spawn a task", never_ends = "instructions without waiting or ending",
    recurses = "stack overflow",
  }

  it("L2, F69: a role's hook is isolated, told with its ids, counted and called again; other hooks, handlers and loops go on", function ()
    local c <close> = simcluster.new { workers = 3, files_manager = role_with("manager", BADLY) }
    local m, w = c.managers[1], c.workers[2]
    c:on(m, [[ require("shoal.errors").budget(5000000)
      local heard = {}
      node.spec_heard = heard
      node.hooks:wire("swim.member", function (event) heard[#heard + 1] = event.kind end)
      node.hooks:wire("detector.global_death", function (name, _) heard[#heard + 1] = "death of " .. name end) ]])
    for bad, says in sorted(SAYS) do
      c:on(m, "for i in ipairs(node.spec_heard) do node.spec_heard[i] = nil end")
      local before, told = c:counts(m, "swim.member").raised, #c:incidents(m, "swim.member")
      c:on(m, "state.bad = ...", bad)
      local id = submitted(c, c:job { load = { code = USERS, vus = 3, iterations = 60 } })
      c:run(500)
      c:crash(w)
      ended(c, id, "completed") -- Its part on the worker that died began elsewhere: detector.global_death was heard.
      local raised = balanced(c, m, "swim.member") - before
      assert.is_true(raised >= 1, bad)
      assert.equal("suspect dead death of w-a2", table.concat(c:on(m, "return node.spec_heard"), " ", 1, 3), bad)
      assert.equal(0, c:counts(m, "swim.event").raised)
      local incident = c:incidents(m, "swim.member")[told + 1]
      if incident then -- A policy may hold later ones of one line back.
        assert.is_nil(incident.missing)
        assert.same({ w.name, 1 }, { incident.ids.member, incident.ids.hook_index })
        assert.truthy(incident.message:find(says, 1, true), incident.message)
      end
      -- Mended, it takes the event that it had not taken, within a look of membership.
      c:on(m, "state.bad = nil")
      c:run(3500)
      local calls = c:on(m, "return state.calls")
      c:run(4000)
      assert.same({ calls, raised }, { c:on(m, "return state.calls"), c:counts(m, "swim.member").raised - before })
      c:restart(w)
      assert.truthy(c:until_true(function () return c:ask(m, "look").lead.executors[w.name] end, 20000, 100))
      c:run(1000)
    end
    assert.equal(0, c:counts(m, "detector.global_death").raised)
    c:rest()
  end)

  it("L2, F69: a message's handler that fails or answers nonsense is told, its caller gets a code, and the others are served", function ()
    local c <close> = simcluster.new { workers = 1, files_manager = role_with("manager", BADLY) }
    local m = c.managers[1]
    assert.equal(0, list(c, m)[1])
    for bad, site in sorted { raises = "rpc.handler", raises_a_table = "rpc.handler", never_ends = "rpc.handler", recurses = "rpc.handler",
      answers_nothing = "rpc.handler", answers_a_number = "rpc.reply", answers_too_much = "rpc.reply" } do
      local before = c:counts(m, site).raised
      c:on(m, "state.bad = ...", bad)
      local answer = list(c, m)
      assert.is_nil(answer[1], bad)
      assert.equal("FAILED", answer[3], bad)
      assert.truthy(answer[2] and answer[2] ~= "", bad)
      assert.equal(1, balanced(c, m, site) - before, bad)
      local told = c:incidents(m, site)
      local incident = told[#told]
      assert.is_nil(incident.missing)
      assert.same({ "job.list", "c1" }, { incident.ids.message, incident.ids.peer }, bad)
      ended(c, submitted(c, c:job { one = { work = "one 20" } }), "completed")
    end
    c:on(m, "state.bad = nil")
    assert.equal(7, list(c, m)[1])
    c:rest()
  end)

  it("L2, F69: a policy from its file that fails, answers nonsense or overruns its budget is an incident, and the built-in answer stands",
    function ()
      local retry = shipped "scripts/policies/retry.lua"
      local edited, n = retry:gsub("\nreturn retry%s*$", function () return [[

local again = retry.again
local held
local BAD = {
  raises = function () error "a bug of the policy" end,
  answers_a_word = function () return "maybe" end,
  never_ends = function () while true do end end,
  hoards = function () held = {} for i = 1, 1e7 do held[i] = { i } end end,
  waits = function () return coroutine.yield() end,
  recurses = function () local function f() return 1 + f() end return f() end,
}
function retry.again(part, workflow, how, tier)
  local bad = BAD[workflow.env and workflow.env.BAD or ""]
  if bad then return bad() end
  return again(part, workflow, how, tier)
end
return retry
]] end)
      assert.equal(1, n)
      local c <close> = simcluster.new { workers = 2, files_manager = { [POLICY:format "retry"] = edited } }
      local m = c.managers[1]
      local says = {
        raises = "a bug of the policy", answers_a_word = "it answered",
        never_ends = "instructions", hoards = "allocated", waits = "global 'coroutine'",
        recurses = "allocated",
      }
      for bad, words in sorted(says) do
        local before, told = c:counts(m, "policy.retry").raised, #c:incidents(m, "policy.retry")
        local other = submitted(c, c:job { other = { work = "other 20" } })
        local spec = c:job { one = { work = "one 20 1", retries = 2, retry = { backoff_ms = 10 }, env = { BAD = bad } } }
        local final = ended(c, submitted(c, spec))
        ended(c, other, "completed")
        assert.equal("failed", final.state)
        local raised = balanced(c, m, "policy.retry") - before
        assert.equal(1, #final.result.attempts)
        local incident = c:incidents(m, "policy.retry")[told + 1]
        if incident then -- The sixth of one kind is held back.
          assert.is_nil(incident.missing)
          assert.truthy(incident.message:find(words, 1, true), incident.message)
          assert.equal("one/1", incident.ids.part)
        end
        assert.is_true(raised >= 1, bad)
        c:run(10000) -- A function that broke its budget is not asked for 10 s.
      end
      assert.equal("completed", c:complete(c:job { load = { code = USERS, vus = 2, iterations = 20 } }).state)
      c:rest()
    end)

  it("L2, F69: a client's callbacks that fail are told by kind; the events are taken, and the job's end arrives", function ()
    local c <close> = simcluster.new { workers = 1 }
    for i, bad in ipairs { "error 'a bug of the callback'", "error {}", "while true do end", "local function f() return 1 + f() end f()" } do
      local id = assert(c:submit(c:job { load = { code = USERS, vus = 2, iterations = 40 } }))
      c:on(c.client, ([[ require("shoal.errors").budget(5000000)
        local id = ...
        local once = {}
        local function bad(kind)
          return function () node.spec_calls = (node.spec_calls or 0) + 1 if not once[kind] then once[kind] = true %s end return 42 end
        end
        node.spec_final = nil
        node.scope:spawn("spec.follow", {}, function ()
          node.spec_final = state.client:follow(id, { status = bad "status", stats = bad "stats", result = bad "result" }).state
        end) ]]):format(bad), id)
      assert.truthy(c:until_true(function () return c:on(c.client, "return node.spec_final") end, 30000, 50), bad)
      assert.equal("completed", c:on(c.client, "return node.spec_final"))
      for _, kind in ipairs { "status", "stats", "result" } do
        local site = "client.callback." .. kind
        assert.equal(i, balanced(c, c.client, site), kind .. ": " .. bad)
        local told = c:incidents(c.client, site)
        assert.is_nil(told[#told].missing)
        assert.same({ id, "callback" }, { told[#told].ids.job, told[#told].ids.stage })
      end
    end
    assert.is_true(c:on(c.client, "return node.spec_calls") > 20) -- It was called again after it failed.
    c:rest()
  end)

  it("L2: a simulated node's callback that never ends is cut by the count of its instructions", function ()
    local c <close> = simcluster.new { workers = 0, files_manager = role_with("manager", BADLY) }
    local m = c.managers[1]
    c:on(m, "state.bad = 'never_ends'")
    local answer = list(c, m)
    assert.truthy(answer[2]:find("it ran 50000000 instructions without waiting or ending", 1, true), answer[2])
    assert.equal(1, balanced(c, m, "rpc.handler"))
  end)
end)

describe("the errors policy, edited while a node runs:", function ()
  it("L3: level, fields, traces and limit show at the next incident; no edit stops the count, and what is held back is announced", function ()
    local c <close> = simcluster.new { workers = 0, files_manager = role_with("manager", BADLY) }
    local m, raised = c.managers[1], 0
    c:on(m, "state.bad = 'raises'")
    local function policy(text)
      assert(c.s:write(m, POLICY:format "errors", text))
      c:run(250)
    end
    local function lines() -- What the node's log has of these incidents.
      local out = {}
      for line in c.s:log():gmatch "[^\n]+" do
        if line:find('"node":"m-a1"', 1, true) and line:find('"site":"rpc.handler"', 1, true) then out[#out + 1] = line end
      end
      return out
    end
    local function fails(times)
      for _ = 1, times or 1 do
        assert.is_nil(list(c, m)[1])
        raised = raised + 1
        assert.equal(raised, balanced(c, m, "rpc.handler"))
      end
      local all = lines()
      return all[#all], #all
    end
    local line = fails()
    assert.truthy(line:find('"level":"error"', 1, true) and line:find('"where":', 1, true) and line:find('"traceback":', 1, true), line)
    policy "return { default = { burst = 100 }, sites = { ['rpc.handler'] = { level = 'critical', fields = { 'message', 'count' } } } }"
    line = fails()
    assert.truthy(line:find('"level":"critical"', 1, true) and line:find('"message":', 1, true) and line:find('"count":', 1, true), line)
    for _, field in ipairs { "where", "traceback", "ids", "error" } do assert.falsy(line:find(('"%s":'):format(field), 1, true), line) end
    policy "return { default = { burst = 100 }, sites = { ['rpc.handler'] = { level = 'warning', traces = 0 } } }"
    line = fails(2) -- A traceback is made before the policy is looked at.
    assert.truthy(line:find('"level":"warning"', 1, true) and line:find('"where":', 1, true), line)
    assert.falsy(line:find('"traceback":', 1, true), line)
    -- A tighter limit: the rest is counted, and announced at the same level.
    policy "return { default = { burst = 1, per_ms = 3000 }, sites = { ['rpc.handler'] = { level = 'warning' } } }"
    local _, before = fails(12)
    local counted = c:counts(m, "rpc.handler")
    assert.is_true(counted.suppressed >= 9, counted.suppressed)
    c:run(4000)
    local after = lines()
    assert.is_true(#after > before and after[#after]:find('"level":"warning"', 1, true) ~= nil, after[#after])
    -- What would silence it is refused: the last good policy stays, the count goes on.
    local refused = c:counts(m, "policy.load").raised
    for _, silent in ipairs { "level = 'silent'", "burst = 0", "per_ms = 1e12", "level = 'off'", "silent = true", "fields = { 'nothing' }" } do
      policy(("return { sites = { ['rpc.handler'] = { %s } } }"):format(silent))
      fails()
      refused = refused + 1
      assert.equal(refused, c:counts(m, "policy.load").raised, silent)
    end
    for _, silent in ipairs { "'silent'", "{ burst = 0 }", "{ per_ms = 1e12 }", "false", "nil" } do
      policy(("return { decide = function (incident) incident.count = 0 return %s end }"):format(silent))
      fails()
    end
    -- The lowest level that there is: not in a log that begins at info, and counted, listed and announced all the same.
    policy "return { default = { burst = 100 }, sites = { ['rpc.handler'] = { level = 'debug' } } }"
    fails(3)
    local told = c:incidents(m, "rpc.handler")
    assert.equal("debug", told[#told].level)
    assert.is_true(c:on(m, "return (require('shoal.errors').balance())"))
  end)
end)

describe("a required hook that is not wired:", function ()
  it("L5: is refused at start, by name, for each role that must have it, and all of them at once", function ()
    local c <close> = simcluster.new { workers = 0 }
    local cases = {}
    for role, sites in sorted { gate = { "detector.job_death", "lease.expired" },
      manager = { "detector.global_death", "detector.job_death", "lease.expired" } } do
      for i = 0, #sites do
        local gone = i == 0 and sites or { sites[i] }
        local more = { "local hooks = role.hooks", "function role.hooks(state)", "local all = hooks(state)" }
        for _, site in ipairs(gone) do more[#more + 1] = ("all[%q] = nil"):format(site) end
        more[#more + 1] = "return all end"
        local name = ("%s-bad%d"):format(role, i)
        c.s:node { name = name, role = role, dc = role == "manager" and "z" or nil, files = role_with(role, table.concat(more, "\n")) }
        cases[name] = { role = role, gone = gone }
      end
    end
    c:run(2000)
    for name, case in sorted(cases) do
      local state, code = c.s:status(name)
      assert.same({ "ended", 2 }, { state, code }, name)
      local said
      for line in c.s:log():gmatch "[^\n]+" do
        said = said or line:find(('"node":"%s"'):format(name), 1, true) and line:find("must wire", 1, true) and line
      end
      assert.truthy(said, name)
      assert.truthy(said:find(("a %s must wire: %s"):format(case.role, case.gone[1]), 1, true), said)
      for _, site in ipairs(case.gone) do assert.truthy(said:find(site, 1, true), said) end
    end
  end)
end)

describe("a hook that changes what is under it:", function ()
  --- Beside the shipped hooks of a site: one that unwires itself and a later one, wires another and calls `inside`; one that counts.
  local function wire(c, node, site, inside)
    c:on(node, ([[ local site, hooks = ..., node.hooks
      local spec = { first = 0, second = 0, third = 0, late = 0, inside = 0 }
      node["spec_" .. site] = spec
      local first, third
      first = hooks:wire(site, function (...)
        spec.first = spec.first + 1
        assert(hooks:unwire(first) and not hooks:unwire(first) and hooks:unwire(third))
        hooks:wire(site, function (...) spec.late = spec.late + 1 end)
        %s
        spec.inside = spec.inside + 1
      end, "first")
      hooks:wire(site, function (...) spec.second = spec.second + 1 end, "second")
      third = hooks:wire(site, function (...) spec.third = spec.third + 1 end, "third") ]]):format(inside), site)
  end
  local function fired(c, node, site) return c:on(node, "return node[...].second", "spec_" .. site) end
  local function check(c, node, site)
    local spec = c:on(node, "return node[...]", "spec_" .. site)
    local why = c:incidents(node, site)[1]
    assert.same({ 1, 1, 0, 0 }, { spec.first, spec.inside, spec.third, c:counts(node, site).raised },
      site .. ": " .. (why and why.message or ""))
    assert.equal(spec.second - 1, spec.late, site)
  end

  it("L4: unwires itself and another, wires a third and calls membership, detector, leases and the leader from within is safe", function ()
    local c <close> = simcluster.new { workers = 3, set = { retention_ms = 3000, lease_ms = 6000 } }
    local m = c.managers[1]
    wire(c, m, "swim.member", [[
      local event = ...
      assert(#node:members() == 4 and node.swim:member(event.member.name))
      node.swim:why(event.member.name)
      node.hooks:fire("swim.member", { member = "spec", kind = "spec" }, { kind = "spec", member = { name = "spec", role = "spec" } })
      require("shoal.node.membership").reconcile(node) ]])
    wire(c, m, "detector.global_death", [[
      local name, incarnation = ...
      state.lead:gone(name, "from within")
      node.hooks:deliver("detector.global_death", { node = "spec", job = "none", incarnation = "0.0", suspicion_age_ms = 0,
        confirmations = 0 }, "spec", "spec", "0.0")
      require("shoal.errors").withdraw("detector.global_death", name) ]])
    wire(c, m, "detector.job_death", [[
      local name, job, incarnation = ...
      local d = state.lead.suspects.detector
      d:suspect(job, name, "spec")
      d:confirm(job, name, "spec")
      d:progress(job, name)
      d:over(job)
      state.lead:job_gone(name, job)
      state.lead.suspects:look(require('shoal.task').now_ms())
      require("shoal.errors").withdraw("detector.job_death", name) ]])
    wire(c, m, "lease.expired", [[
      local event = ...
      local g = state.lead.leases.grantor
      assert(g:grant("spec", "spec", event.fence + 1000, 1000))
      assert(g:renew("spec", { { key = "spec", fence = event.fence + 1000 } }) == 1)
      g:release("spec", event.fence + 1000)
      g:catch_up()
      state.lead.leases:sweep()
      state.lead:lease_expired(event) ]])
    -- A worker dies; another is no longer heard by its manager for its parts, which renew no lease.
    local id = submitted(c, c:job { load = { code = USERS, vus = 3, duration_ms = 30000, retries = 4 } })
    c:run(2000)
    c:crash(c.workers[3])
    assert.truthy(c:until_true(function () return fired(c, m, "detector.global_death") > 0 end, 20000, 50))
    c:on(m, "state.lead.suspects.look = function () end") -- The detector would find that worker first.
    c:cut(m, c.workers[2]) -- Both live: others of the group reach both.
    assert.truthy(c:until_true(function () return fired(c, m, "lease.expired") > 0 end, 40000, 50), "no lease expired")
    c:heal(m, c.workers[2])
    c:on(m, "state.lead.suspects.look = nil")
    c:run(500)
    c:on(m, [[ local job = ...
      state.lead.node.hooks:deliver("detector.job_death", { node = "w-a1", job = job, incarnation = "1.0", suspicion_age_ms = 1,
        confirmations = 0 }, "spec/w-a1", "w-a1", job, "1.0") ]], id)
    ended(c, id, "completed", 120000)
    for _, site in ipairs { "swim.member", "detector.global_death", "lease.expired", "detector.job_death" } do check(c, m, site) end
    assert.is_true(c:on(m, "return (require('shoal.errors').balance())"))
    c:restart(c.workers[3])
    c:run(8000)
    assert.equal("completed", c:complete(c:job { load = { code = USERS, vus = 3, iterations = 30 } }).state)
    c:rest { ms = 10000 }
  end)

  it("L4: unwires itself and another, and calls federation and correlation from within is safe; evictions go on as they should", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b", "c", "d" }, workers = 1,
      set = { dc_silent_ms = 4500, ["correlation.hold_ms"] = 15000 } }
    local g = c.gates[1]
    wire(c, g, "federation.state", [[
      local event = ...
      local f = state.registry.federation
      assert(f:state(event.dc) and f:get(event.dc) and #f:list() == 4)
      assert(f:know("spec", "m-spec", "10.0.9.9:7000", 1))
      f:wake()
      f:forget "spec"
      state.registry:look()
      node.hooks:fire("federation.state", { dc = "spec", from = "reachable", to = "suspected" }, event) ]])
    for _, site in ipairs { "correlation.detected", "correlation.healed" } do
      wire(c, g, site, [[
        local event = ...
        local k = state.registry.eviction.correlation
        assert(k:holds() == (event.cause == nil))
        k:look()
        assert(k:know "spec" and k:down "spec" and k:up "spec" and k:forget "spec")
        k:severity()
        k:counts() ]])
    end
    c:cut(g, c.managers[1])
    c:cut(g, c.managers[2])
    assert.truthy(c:until_true(function () return fired(c, g, "correlation.detected") > 0 end, 15000, 50))
    c:heal(g, c.managers[1])
    c:heal(g, c.managers[2])
    assert.truthy(c:until_true(function () return fired(c, g, "correlation.healed") > 0 end, 30000, 50))
    c:run(1000)
    for _, site in ipairs { "federation.state", "correlation.detected", "correlation.healed" } do check(c, g, site) end
    assert.equal("completed", c:complete(c:job { load = { vus = 4, iterations = 20 } }).state)
    assert.is_true(c:on(g, "return (require('shoal.errors').balance())"))
    c:rest { ms = 8000 }
  end)
end)

describe("a node's Lua state", function ()
  it("L6: is as large after 1e5 events through a role's hooks, handlers and policies (1e6 with SHOAL_LONG=1) as before", function ()
    local c <close> = simcluster.new { workers = 1, files_manager = role_with("manager", BADLY) }
    local m = c.managers[1]
    c:on(m, [[ local errors, task = require "shoal.errors", require "shoal.task"
      local lead, hooks, answers = state.lead, node.hooks, node.script.answers
      local function member(kind, i)
        return { kind = kind, member = { name = "x" .. i % 97, role = "worker", address = "10.9.9.9:7000", cores = 2, labels = {},
          incarnation = { generation = i, version = 0 }, state = kind } }
      end
      local kinds = {
        function (i) hooks:fire("swim.member", { member = "x", kind = "suspect" }, member("suspect", i)) end,
        function (i)
          state.bad = "raises"
          hooks:fire("swim.member", { member = "x" .. i % 97, kind = "dead" }, member("dead", i))
          state.bad = nil
        end,
        function (i)
          local name = "x" .. i % 97
          hooks:deliver("detector.global_death", { node = name, job = "none", incarnation = i .. ".0", suspicion_age_ms = 1,
            confirmations = 0 }, name, name, i .. ".0")
        end,
        function (i)
          hooks:deliver("detector.job_death", { node = "x", job = "job-" .. i, incarnation = "1.0", suspicion_age_ms = 1,
            confirmations = 0 }, "x/" .. i, "x", "job-" .. i, "1.0")
        end,
        function (i)
          hooks:deliver("lease.expired", { key = "k" .. i, job = "job-" .. i, holder = "x", node = "m-a1", fence = i, expired_for_ms = 0,
            duration_ms = 1, remaining = 0 }, "k" .. i, { key = "k" .. i, holder = "x", fence = i, expired_for_ms = 0, duration_ms = 1,
            remaining = 0 })
        end,
        function (i) -- One whose hook fails, and that is withdrawn.
          local handle = hooks:wire("detector.global_death", function (_, _) error("no " .. i % 50) end)
          hooks:deliver("detector.global_death", { node = "y", job = "none", incarnation = i .. ".0", suspicion_age_ms = 1,
            confirmations = 0 }, "y" .. i, "y", i .. ".0")
          hooks:unwire(handle)
          errors.withdraw("detector.global_death", "y" .. i)
        end,
        function (i) answers["job.get"](state, { job = "job-" .. i }) end,
        function (i)
          errors.policy("placement", i % 2 == 0 and lead.options.placement.accepts or nil, { ids = { job = "job-" .. i }, fallback = true },
            {}, {})
        end,
        function (i) errors.call("rpc.handler", { message = "job.list", peer = "x", request = i }, error, "no") end,
      }
      function node.spec_round(n)
        for i = 1, n do
          kinds[i % #kinds + 1](i)
          if i % 500 == 0 then task.sleep(20) end
        end
      end
      function node.spec_used()
        collectgarbage()
        collectgarbage()
        return collectgarbage "count"
      end ]])
    local rounds, n = os.getenv "SHOAL_LONG" and 50 or 4, 20000
    c:on(m, "node.spec_round(...)", n)
    c:run(30000)
    local before = c:on(m, "return node.spec_used()")
    for _ = 1, rounds do c:on(m, "node.spec_round(...)", n) end
    c:run(30000)
    local after = c:on(m, "return node.spec_used()")
    assert.is_true(after < before + 64, ("it grew from %.0f to %.0f KB"):format(before, after))
    assert.is_true(c:on(m, "return (require('shoal.errors').balance())"))
    assert.equal("completed", c:complete(c:job { load = { vus = 1, iterations = 10 } }).state)
    c:rest()
  end)
end)
