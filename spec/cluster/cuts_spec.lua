--- The findings of FAILURES.md and their families with real processes, each node on a machine of its own that a packet filter cuts from
--- others (spec/support/cutcluster.lua). One cluster serves all specs here: each leaves it healed. Long delays and clocks are simulated
--- only: spec/sim.
local cjson = require "cjson"
local cluster = require "spec.support.cluster"
local cutcluster = require "spec.support.cutcluster"
local netns = require "spec.support.netns"
local sorted = require "shoal.sorted"
local uv = require "luv"

local function names(ids) return table.concat(sorted.keys(ids), " ") end

--- Hooks that raise as often as the spec says: `node.state.boom = { ["detector.global_death"] = 2 }`.
local BOOM = [[
    local boom = state.boom
    if boom and (boom[%q] or 0) > 0 then
      boom[%q] = boom[%q] - 1
      error "the hook is broken"
    end]]

local function raising(text, site, head)
  return cutcluster.replace(text, head, head .. "\n" .. BOOM:format(site, site, site))
end

local edit = {}
edit["m-a1"] = function (text)
  text = raising(text, "detector.global_death", '["detector.global_death"] = function (name, incarnation)')
  return raising(text, "detector.job_death", '["detector.job_death"] = function (name, job, _)')
end

edit["m-c1"] = function (text)
  text = cutcluster.replace(text, '["lease.expired"] = function (event) state.lead:lease_expired(event) end,',
    '["lease.expired"] = function (event)\n      state.lead:lease_expired(event)\n    end,')
  return raising(text, "lease.expired", '["lease.expired"] = function (event)')
end
edit.g1 = function (text)
  for _, site in ipairs { "correlation.detected", "correlation.healed" } do
    text = raising(text, site, ('["%s"] = function (event)'):format(site))
  end
  return cutcluster.replace(text, "    --- A datacenter lives and gives no sign", '    ["federation.state"] = function (event)' .. "\n"
    .. BOOM:format("federation.state", "federation.state", "federation.state") .. "\n    end,\n    --- A datacenter lives and gives no sign")
end

describe("real nodes that a packet filter cuts from each other:", function ()
  local missing = netns.missing()
  local k, c

  --- A spec that needs the cluster, or is pending with the reason.
  local function net_it(title, fn)
    it(title, function ()
      if missing then return pending(missing) end
      fn()
    end)
  end

  setup(function ()
    if missing then return end
    k = cutcluster.open { gates = 1, edit = edit, set = { heartbeat_ms = 200, dc_silent_ms = 3000, ["federation.retry_ms"] = 300 },
      set_gate = { ["correlation.hold_ms"] = 15000 }, set_dc = { a = { lease_ms = 8000 }, c = { lease_ms = 2000 } },
      dcs = { a = { managers = 2, workers = 2 }, b = { managers = 1, workers = 1 }, c = { managers = 2, workers = 2 } } }
    c = k.c
  end)
  after_each(function ()
    if not k then return end
    k.net:heal()
    for n = 1, k.jobs or 0 do c:file("go" .. n, "") end -- Jobs of a spec that failed.
  end)
  teardown(function () if k then k:close() end end)

  local function read(path)
    local f = io.open(path)
    local text = f and f:read "a" or ""
    if f then f:close() end
    return text
  end

  --- A job of so many parts, each of which runs until the spec lets it end; `ran` is the file with "PART ATTEMPT" lines.
  local function gated(at, parts, more)
    local n = (k.jobs or 0) + 1
    local ran, go = ("%s/ran%d"):format(c.dir, n), ("%s/go%d"):format(c.dir, n)
    local p = k:submit(at, ([[return { name = 'gated', workflows = { w = { parts = %d, retries = 3, %s
      command = 'echo $SHOAL_PART $SHOAL_ATTEMPT >> %s; while [ ! -e %s ]; do sleep 0.05; done; echo done' } } }]])
      :format(parts, more or "", ran, go))
    cluster.wait("its parts run", function () return select(2, read(ran):gsub("\n", "")) >= parts end)
    p.ran = function () return read(ran) end
    p.let_end = function ()
      c:file("go" .. n, "")
      p:wait(40000)
      assert.equal(0, p.code, p.err)
      return cjson.decode(p.out)
    end
    return p
  end

  --- The one worker of m-a1 that runs something.
  local function executor()
    return k:eval("m-a1", "(function () for _, e in ipairs(node.describe().executors) do if e.claimed > 0 then return e.name end end end)()")
  end

  local function others(name)
    local out = {}
    for other, machine in sorted(k.at) do
      if other ~= name then out[#out + 1] = machine end
    end
    return out
  end

  it("the namespaces and every process in them, stopped ones too, end with a spec that is killed", function ()
    if missing then return pending(missing) end
    local own = cluster.new()
    local p = own:spawn { "lua5.4", "-e", [[
      local cluster, netns = require "spec.support.cluster", require "spec.support.netns"
      local c = cluster.new()
      netns.open(c, { "127.0.1.1" })
      local stopped = c:spawn { "sh", "-c", "kill -STOP $$; sleep 1000", at = "127.0.1.1" }
      print("made " .. c.dir .. " " .. stopped.pid)
      cluster.pause(60000)]], preload = true }
    local dir, pid = p:wait_for("made (%S+) (%d+)\n", "out")
    cluster.wait("it is stopped", function () return read("/proc/" .. pid .. "/stat"):find("^%d+ %b() T") end)
    p:kill "sigkill"
    p:wait()
    own:assert_nothing_left()
    own:close()
    os.execute("rm -r " .. dir)
  end)

  net_it("F09, F42: 1.5: a cut worker dies once; a hook that raises is retried with all ids; its parts move, and it rejoins", function ()
    local job = gated("m-a1", 2)
    local m, other = k:mark "m-a1", k:mark "m-a2"
    k:run("m-a1", "node.state.boom = { ['detector.global_death'] = 2 }")
    k.net:cut(k.at["w-a1"], others "w-a1")
    k:wait_incident("m-a1", "detector.global_death", m, 2)
    local part = k:wait_incident("m-a1", "lead.attempt_lost", m).ids.part
    cluster.wait("the part runs elsewhere", function () return job.ran():find(part .. " 2\n", 1, true) end)
    local told = k:incidents("m-a1", "detector.global_death", m)
    assert.equal(2, #told)
    for i, incident in ipairs(told) do
      assert.is_nil(incident.missing)
      assert.equal("error", incident.level)
      local ids = incident.ids
      assert.same({ "w-a1", "none", 0, i, 500 * 2 ^ (i - 1) }, { ids.node, ids.job, ids.confirmations // 100, ids.attempt, ids.next_retry_ms })
      assert.is_true(ids.suspicion_age_ms > 0 and ids.incarnation:find "^%d+%.%d+$" ~= nil)
      assert.truthy(incident.message:find("the hook is broken", 1, true))
    end
    local lost = k:incidents("m-a1", "lead.attempt_lost", m)
    assert.equal(1, #lost)
    assert.same({ job.job, "w", part, 1, "w-a1" },
      { lost[1].ids.job, lost[1].ids.workflow, lost[1].ids.part, lost[1].ids.attempt, lost[1].ids.executor })
    assert.equal(0, #k:incidents("m-a2", "detector.global_death", other))
    k.net:heal()
    k:wait_alive("m-a1", "w-a1")
    k:wait_eval("w-a1", "#node.describe().parts", "0") -- The lost attempt is ended there.
    local states = {}
    for i, attempt in ipairs(job.let_end().attempts) do states[i] = attempt.state .. " " .. attempt.executor end
    table.sort(states)
    assert.same({ "completed w-a2", "completed w-a2", "lost w-a1" }, states)
  end)

  net_it("F09, F11: 1.5: a death that a hook never took is withdrawn when the node is back", function ()
    local m = k:mark "m-a1"
    k:run("m-a1", "node.state.boom = { ['detector.global_death'] = 1000 }")
    k.net:cut(k.at["w-a2"], others "w-a2")
    assert.equal("w-a2", k:wait_incident("m-a1", "detector.global_death", m, 2).ids.node) -- The third would come 1 s later.
    k.net:heal()
    k:wait_alive("m-a1", "w-a2")
    local before = #k:incidents("m-a1", "detector.global_death", m)
    cluster.pause(1200)
    assert.equal(before, #k:incidents("m-a1", "detector.global_death", m))
    k:run("m-a1", "node.state.boom = nil")
  end)

  --- 1.2: sends that do not reach the manager, and the manager that would know who leads.
  local function assert_unsent(jobs, from)
    local _, told = k:wait_incident("w-a1", "worker.progress.send", from, 2)
    for i = 1, 2 do
      local ids = told[i].ids
      assert.is_nil(told[i].missing)
      assert.equal("address attempt backpressure consecutive counts job manager part parts put_back status workflow", names(ids))
      assert.is_truthy(jobs[ids.job])
      assert.same({ "w", "m-a1", k.addresses["m-a1"], 1, i, "TIMEOUT" },
        { ids.workflow, ids.manager, ids.address, ids.attempt, ids.consecutive, ids.status })
    end
    local asked = k:wait_incident("w-a1", "worker.progress.redirect", from)
    assert.is_nil(asked.missing)
    assert.equal(k.addresses["m-a2"], asked.ids.address)
    assert.equal(0, #k:incidents("w-a1", "worker.progress.flush_loop", from))
  end

  net_it("F09, F45: 1.2, 1.5: a worker that others see, cut from both managers: its progress waits aloud, and it loses its jobs", function ()
    local one, two = gated("m-a1", 2), gated("m-a1", 2) -- Each has a part on each worker.
    local failures = ("node.state.worker.reports.leaders[%q].failures"):format(k.addresses["m-a1"])
    k:wait_eval("w-a1", failures, "0") -- From a cut before.
    local m, w = k:mark "m-a1", k:mark "w-a1"
    k:run("m-a1", "node.state.boom = { ['detector.job_death'] = 2 }")
    k.net:cut(k.at["w-a1"], { k.at["m-a1"], k.at["m-a2"] }) -- The other worker sees that it lives.
    local _, told = k:wait_incident("m-a1", "detector.job_death", m, 2, 25000)
    assert.equal("alive", k:state_of("w-a1", "m-a1"))
    local jobs = { [one.job] = 0, [two.job] = 0 }
    for _, incident in ipairs(told) do
      assert.is_nil(incident.missing)
      local ids = incident.ids
      assert.equal("attempt confirmations delivery hook hook_index incarnation job next_retry_ms node suspicion_age_ms", names(ids))
      assert.same({ "error", "w-a1" }, { incident.level, ids.node })
      assert.is_true(ids.suspicion_age_ms > 0 and ids.incarnation:find "^%d+%.%d+$" ~= nil)
      jobs[ids.job] = jobs[ids.job] + 1
      assert.same({ jobs[ids.job], 500 * 2 ^ (jobs[ids.job] - 1) }, { ids.attempt, ids.next_retry_ms })
    end
    assert.equal(2, jobs[one.job] + jobs[two.job])
    assert_unsent(jobs, w)
    for _, job in ipairs { one, two } do
      cluster.wait("its lost part runs elsewhere", function () return job.ran():find " 2\n" end)
    end
    local lost = k:incidents("m-a1", "lead.attempt_lost", m)
    assert.equal(2, #lost)
    for _, incident in ipairs(lost) do assert.equal("w-a1", incident.ids.executor) end
    assert.equal(0, #k:incidents("m-a1", "detector.global_death", m))
    k.net:heal()
    k:wait_event("m-a1", "detector.answers", m)
    for _, job in ipairs { one, two } do assert.equal("completed", job.let_end().state) end
    k:wait_eval("w-a1", "#node.describe().parts", "0")
  end)

  net_it("F46: 1.3, 2.2: acks that cannot be read: debug level, the tenth in a row a warning, an edited level at the next, nothing applied",
    function ()
      local job = gated("m-a1", 1, "cores = 4,")
      local w_name = executor()
      local w = k:mark(w_name)
      k:run("m-a1", [[
        local real, messages = node.rpc.handlers["part.progress"], require "shoal.messages"
        node.rpc.handlers["part.progress"] = nil
        node.spec_ack = "\xc1\xff\xfe"
        assert(node.rpc:raw("part.progress", function (bytes, peer)
          return node.spec_ack or real(messages.decode("part.progress", bytes), peer)
        end)) ]])
      local warning
      cluster.wait("the tenth", function ()
        local told = k:incidents(w_name, "worker.progress.ack", w)
        warning = told[#told]
        return warning and warning.ids.consecutive >= 10
      end)
      local told = k:incidents(w_name, "worker.progress.ack", w)
      assert.equal("class consecutive first_byte job manager payload_bytes workflow", names(told[1].ids))
      assert.same({ "debug", job.job, "w", "m-a1", 3, 0xc1, "not_a_map" }, { told[1].level, told[1].ids.job, told[1].ids.workflow,
        told[1].ids.manager, told[1].ids.payload_bytes, told[1].ids.first_byte, told[1].ids.class })
      local warnings = 0
      for _, incident in ipairs(told) do warnings = warnings + (incident.level == "warning" and 1 or 0) end
      assert.equal(1, warnings)
      assert.equal(10, warning.ids.consecutive)
      assert.equal("none", k:eval(w_name, "node.state.worker.reports:counts().level"))
      k:run("m-a1", "node.spec_ack = 'ok'") -- The legacy ack ends the row.
      k:wait_eval(w_name, ("node.state.worker.reports.leaders[%q].unreadable"):format(k.addresses["m-a1"]), "0")
      local policy = k.shipped
      local from = k:mark(w_name)
      k:policy(cutcluster.replace(policy, '["worker.progress.ack"] = { level = "debug" }', '["worker.progress.ack"] = { level = "critical" }'))
      k:run("m-a1", "node.spec_ack = ''")
      local edited = k:wait_incident(w_name, "worker.progress.ack", from)
      assert.same({ "critical", 0, -1, "empty" }, { edited.level, edited.ids.payload_bytes, edited.ids.first_byte, edited.ids.class })
      k:run("m-a1", "node.spec_ack = nil")
      k:policy(policy)
      assert.equal("completed", job.let_end().state)
    end)

  net_it("F48, F51, F69: 1.4: callbacks of a client that raise, and unreadable pushes: answered, accounted for, and the job's end arrives",
    function ()
      c:file("user.lua", "return { vu = function (vu) vu:sleep(100) end }")
      local job = k:submit("m-a1", "return { name = 'load', workflows = { w = { script = 'user.lua', vus = 2, duration_ms = 2500 } } }")
      local script = c:file("roles/client.lua", cutcluster.replace(cluster.read "scripts/roles/client.lua", "  return { client = opened }", ([[
        local function raising(kind) return function () error("the user's own " .. kind) end end
        node.scope:spawn("role.follow", { role = "client" }, function ()
          local final = opened:follow(%q, { status = raising "status", stats = raising "stats", result = raising "result" })
          io.stderr:write("final: ", final.state, " of ", final.result.job, "\n")
        end)
        return { client = opened }]]):format(job.job)))
      local log = c.dir .. "/c1.log"
      local p = c:node(script, { "--name", "c1", "--connect", k.addresses["m-a1"], "--log", log, "--policies", c.dir .. "/policies",
        "--data", c.dir .. "/c1" })
      k.logs.c1 = { path = log, lines = {}, rest = "" }
      k:wait_incident("c1", "client.callback.status")
      local m = k:mark "m-a1"
      for message, site in sorted { ["job.status"] = "client.push.job_status", ["job.stats"] = "client.push.stats",
        ["job.result"] = "client.push.result" } do
        local answer = k:run("m-a1", ([[
          local messages, task = require "shoal.messages", require "shoal.task"
          local answer, m = task.future "push", messages.get %q
          for core, known in next, node.rpc.peers do
            local info = core:info()
            if info and info.role == "client" and known:name() == "c1" then
              assert(core:call(m.id, m.lane, "\xc1\xff garbage", 2000, function (reply, err) answer:settle(reply or err) end))
            end
          end
          print(answer:await(3000)) ]]):format(message))
        assert.equal("error", answer)
        local told = k:incidents("c1", site)
        assert.equal(1, #told)
        assert.is_nil(told[1].missing)
        assert.same({ message, "m-a1", 10, "?", "?", "?", "parse" }, { told[1].ids.handler, told[1].ids.sender, told[1].ids.payload_bytes,
          told[1].ids.job, told[1].ids.workflow, told[1].ids.sequence, told[1].ids.stage })
      end
      job:wait()
      assert.equal(0, job.code, job.err)
      p:wait_for("final: completed of " .. job.job:gsub("%-", "%%-"))
      for _, kind in ipairs { "status", "stats", "result" } do
        local told = k:incidents("c1", "client.callback." .. kind)
        assert.is_true(#told >= 1, kind)
        assert.same({ job.job, "m-a1", "callback" }, { told[1].ids.job, told[1].ids.sender, told[1].ids.stage })
        assert.is_nil(told[1].missing)
      end
      assert.equal(0, #k:incidents("m-a1", "lead.push", m)) -- Each push was answered ok.
      p:close_stdin()
      p:wait()
      assert.equal(0, p.code, p.err)
      local raised, reported, suppressed, handled = p.err:match "handled: (%d+) = (%d+) %+ (%d+) %+ (%d+)"
      assert.equal(tonumber(raised), reported + suppressed + handled)
    end)

  --- Wait for a change of a datacenter's reachability at the gate.
  local function becomes(dc, to, from)
    return k:wait_event("g1", "gate.dc", from, function (line) return line.dc == dc and line.to == to end)
  end

  local function changes(dc, from)
    local out = {}
    for i, line in ipairs(k:events("g1", "gate.dc", from)) do out[i] = line.dc == dc and line.to or line.dc .. " " .. line.to end
    return table.concat(out, " ")
  end

  net_it("F15, F18: 2.4: two of three datacenters cut at once: evictions are held though the hooks raise, and nothing is lost when they return",
    function ()
      local job = gated("g1", 3)
      local g = k:mark "g1"
      k:run("g1", "node.state.boom = { ['correlation.detected'] = 2, ['correlation.healed'] = 2 }")
      k.net:cut(k.at.g1, { k.at["m-a1"], k.at["m-c1"] })
      becomes("a", "unreachable", g)
      becomes("c", "unreachable", g)
      local detected = k:wait_incident("g1", "correlation.detected", g)
      cluster.pause(1000)
      assert.equal(0, #k:events("g1", "gate.dc_evicted", g))
      assert.equal("alive", k:state_of("m-b1", "g1"))
      k.net:heal()
      becomes("a", "reachable", g)
      becomes("c", "reachable", g)
      local healed = k:wait_incident("g1", "correlation.healed", g)
      for i, incident in ipairs { detected, healed } do
        local ids = incident.ids
        assert.is_nil(incident.missing)
        assert.same({ "error", "a,c" }, { incident.level, (tostring(ids.datacenters):gsub("[ ,]+", ",")) }, i)
        assert.truthy(ids.event and ids.severity and ids.at_ns and ids.wall_ns and ids.hook and ids.hook_index)
      end
      for _, site in ipairs { "correlation.detected", "correlation.healed" } do assert.equal(1, #k:incidents("g1", site, g)) end
      assert.equal(0, #k:incidents("g1", "lead.attempt_lost", g))
      local final = job.let_end()
      assert.equal(3, #final.attempts)
      for _, attempt in ipairs(final.attempts) do assert.equal("completed", attempt.state) end
      assert.equal(3, select(2, job.ran():gsub("\n", "")))
      k:run("g1", "node.state.boom = nil")
    end)

  net_it("F14: 1.1: a datacenter cut from its gate is suspected, then unreachable, and back after the cut, though the hook on it raises",
    function ()
      local g = k:mark "g1"
      k:run("g1", "node.state.boom = { ['federation.state'] = 1000 }")
      local at = uv.hrtime()
      k.net:cut(k.at.g1, k.at["m-b1"])
      becomes("b", "suspected", g)
      becomes("b", "unreachable", g)
      assert.is_true((uv.hrtime() - at) / 1e6 < 3000 + (cluster.sanitized and 9000 or 3000)) -- Its bound, and a slow machine.
      assert.equal("unreachable", k:state_of("m-b1", "g1"))
      assert.equal("alive", k:state_of("m-a1", "g1"))
      k.net:heal()
      becomes("b", "reachable", g)
      assert.equal("suspected unreachable reachable", changes("b", g))
      local told = k:incidents("g1", "federation.state", g)
      assert.equal(3, #told)
      for i, to in ipairs { "suspected", "unreachable", "reachable" } do
        assert.is_nil(told[i].missing)
        assert.same({ "error", "b", to }, { told[i].level, told[i].ids.dc, told[i].ids.to })
      end
      assert.equal(1, #k:incidents("g1", "gate.dc_silent", g))
      assert.equal(0, #k:incidents("g1", "federation.probe", g)) -- Silence is no error of ours.
      k:run("g1", "node.state.boom = nil")
    end)

  net_it("F14: 1.1: a probe of one datacenter that raises: one incident each with all ids, a backoff of its own, and no other is late",
    function ()
      local g = k:mark "g1"
      k:run("g1", [[ local hooks, n = node.state.registry.federation.hooks, 0
        local real = hooks.probe
        node.spec_probed = { a = 0, b = 0, c = 0 }
        hooks.probe = function (dc, ...)
          node.spec_probed[dc] = node.spec_probed[dc] + 1
          if dc == "c" and n < 3 then n = n + 1 error "the probe is broken" end
          return real(dc, ...)
        end ]])
      k:wait_incident("g1", "federation.probe", g, 3)
      local told = k:incidents("g1", "federation.probe", g)
      assert.equal(3, #told)
      for i, incident in ipairs(told) do
        assert.is_nil(incident.missing)
        local ids, due_ms = incident.ids, 300 * 2 ^ (i - 1)
        assert.equal("consecutive cycle datacenters dc interval_ms next_delay_ms reachability timeout_ms", names(ids))
        assert.same({ "error", "c", i }, { incident.level, ids.dc, ids.consecutive })
        assert.is_true(ids.next_delay_ms >= 0.8 * due_ms - 1 and ids.next_delay_ms <= 1.2 * due_ms, ids.next_delay_ms .. " ms")
      end
      k:wait_eval("g1", "node.spec_probed.c > 4 and node.state.registry.federation:state 'c'", "reachable")
      local a, c_probes = k:eval("g1", "node.spec_probed.a .. ' ' .. node.spec_probed.c"):match "(%d+) (%d+)"
      assert.is_true(tonumber(a) > tonumber(c_probes) + 5, a .. " probes of a, " .. c_probes .. " of c")
    end)

  -- Each of another datacenter: one that fails often counts as flapping, and is evicted late.
  for dc, title in sorted { b = "its words do not arrive at the gate", c = "the gate's words do not arrive" } do
    net_it("F18, F29: one-way cut, " .. title .. ": its part runs elsewhere, once, and after the heal all is one", function ()
      local job = gated("g1", 3)
      local g, m, w = k:mark "g1", k.at["m-" .. dc .. "1"], "w-" .. dc .. "1"
      if dc == "c" then k.net:cut_one_way(k.at.g1, m) else k.net:cut_one_way(m, k.at.g1) end
      becomes(dc, "unreachable", g)
      cluster.wait("its part runs elsewhere", function () return select(2, job.ran():gsub("\n", "")) == 4 end)
      local lost = k:incidents("g1", "lead.attempt_lost", g)
      assert.equal(1, #lost)
      assert.equal(dc, lost[1].ids.executor)
      assert.equal("1", k:eval(w, "#node.describe().parts")) -- It goes on where nobody can stop it, ...
      k.net:heal()
      becomes(dc, "reachable", g)
      k:wait_eval(w, "#node.describe().parts", "0") -- ... and is ended when somebody can.
      local states = {}
      for i, attempt in ipairs(job.let_end().attempts) do
        states[i] = attempt.state .. (attempt.state == "lost" and " " .. attempt.executor or "")
      end
      table.sort(states)
      assert.same({ "completed", "completed", "completed", "lost " .. dc }, states)
      assert.equal(4, select(2, job.ran():gsub("\n", "")))
    end)
  end

  net_it("F16, F64: a full datacenter is busy; one whose manager presses back gets no part from the gate until that is over", function ()
    local g = k:mark "g1"
    local function health(to)
      return k:wait_event("g1", "gate.dc_health", g, function (line) return line.dc == "b" and line.to == to end)
    end
    local full = gated("m-b1", 1, "cores = 4,")
    health "busy"
    g = k:mark "g1"
    full.let_end()
    health "healthy"
    c:file("user.lua", "return { vu = function (vu) vu:sleep(100) end }")
    k:run("m-b1", "node.config.progress_per_s = 5")
    local load = k:submit("m-b1", "return { name = 'load', workflows = { w = { script = 'user.lua', vus = 2, duration_ms = 4000 } } }")
    local level = "(function () for _, d in ipairs(node.describe().datacenters) do if d.name == 'b' then return d.level end end end)()"
    k:wait_eval("g1", level, "reject")
    local ran = c.dir .. "/pressed"
    local waits = k:submit("g1", ([[return { name = 'waits', datacenters = { 'b' },
      workflows = { w = { command = 'echo ran >> %s' } } }]]):format(ran))
    local status = c:shoal { "status", waits.job, "--connect", k.front }
    assert.truthy(status.out:find("datacenter b presses back: its managers are at level reject", 1, true), status.out)
    assert.equal("", read(ran))
    assert.is_nil(load.code)
    k:run("m-b1", "node.config.progress_per_s = 20000")
    waits:wait(20000)
    assert.equal(0, waits.code, waits.err)
    assert.equal("ran\n", read(ran))
    k:wait_eval("g1", level, "none")
    load:wait()
    assert.equal(0, load.code, load.err)
  end)

  net_it("F25, F42: 2.3: a worker cut from its leader for longer than its leases: it stops its parts, and a raising hook holds back no other",
    function ()
      local job = gated("m-c1", 4) -- Two on each worker.
      local m, w = k:mark "m-c1", k:mark "w-c1"
      k:run("m-c1", "node.state.boom = { ['lease.expired'] = 1 }")
      k.net:cut(k.at["w-c1"], k.at["m-c1"]) -- The others of its datacenter see that it lives.
      k:wait_event("m-c1", "lease.expired", m)
      cluster.wait("both its parts run elsewhere", function () return select(2, job.ran():gsub(" 2\n", "")) == 2 end)
      local told = k:incidents("m-c1", "lease.expired", m)
      assert.equal(1, #told)
      assert.is_nil(told[1].missing)
      local ids = told[1].ids
      assert.same({ "error", "w-c1", "m-c1", 1, 500 }, { told[1].level, ids.holder, ids.node, ids.attempt, ids.next_retry_ms })
      assert.is_true(ids.key:find(job.job, 1, true) ~= nil and ids.fence > 0 and ids.duration_ms >= 2000, require("cjson").encode(ids))
      assert.equal(1, ids.remaining)
      assert.equal(2, #k:events("m-c1", "lease.expired", m))
      assert.equal(0, #k:incidents("m-c1", "detector.global_death", m))
      assert.equal(2, #k:incidents("w-c1", "worker.orphan", w)) -- It stopped them by itself.
      for _, incident in ipairs(k:incidents("w-c1", "worker.orphan", w)) do assert.is_nil(incident.missing) end
      assert.equal("0", k:eval("w-c1", "node.describe().cores - node.describe().free"))
      k.net:heal()
      local states = {}
      for i, attempt in ipairs(job.let_end().attempts) do
        states[i] = attempt.state .. (attempt.state == "lost" and " " .. attempt.executor or "")
      end
      table.sort(states)
      assert.same({ "completed", "completed", "completed", "completed", "lost w-c1", "lost w-c1" }, states)
      k:wait_eval("w-c1", "#node.describe().parts", "0")
    end)

  net_it("F69: at the end the books of every node balance, and nothing is left", function ()
    local raised = k:stop()
    assert.is_true(raised["m-a1"] > 0 and raised["w-a1"] + raised["w-a2"] > 0)
    for name in sorted(raised) do
      assert.is_true(k:wait_event(name, "node.end").balanced, name)
    end
    k.net:close()
    c:assert_nothing_left()
  end)
end)
