--- Hooks of jobs and parts: which fire where, at least once over restarts, and what one that fails or hangs harms.
local followed = require "spec.support.followed"
local simcluster = require "spec.support.simcluster"

local submitted, ended = followed.submitted, followed.ended

local ALL = [[
  local told = {}
  node.spec_told = told
  for _, site in ipairs(require("shoal.job.outbox").SITES) do
    node.hooks:wire(site, function (event)
      told[#told + 1] = { site = site, id = event.id, job = event.job, name = event.name, part = event.part, workflow = event.workflow,
        state = event.state, attempt = event.attempt, executor = event.executor, reason = event.reason, tier = event.tier }
    end)
  end ]]

local function told(c, node) return c:on(node, "return node.spec_told") end

--- As "SITE PART ATTEMPT STATE", in the order told.
local function lines(c, node)
  local out = {}
  for i, e in ipairs(told(c, node)) do
    out[i] = table.concat({ e.site, e.part or e.name, e.attempt or "-", e.state }, " ")
  end
  return out
end

local function left(c, node) return c:on(node, "return state.lead.ledger.outbox.count") end

describe("hooks of jobs and parts", function ()
  it("fire at gates and managers for what begins, ends, fails and is retried, once each, and leave nothing", function ()
    local c <close> = simcluster.new { gates = 1, set = { retention_ms = 30000 } }
    local g, m = c.gates[1], c.managers[1]
    c:on(g, ALL)
    c:on(m, ALL)
    ended(c, submitted(c, c:job { one = { work = "one 20 3", retries = 1, retry = { backoff_ms = 10 } } }), "failed")
    c:run(1000)
    assert.same({ "job.began job - running", "part.began one/a 1 dispatched", "part.ended one/a 1 failed", "part.failed one/a 1 failed",
      "job.ended job - failed", "job.failed job - failed" }, lines(c, g))
    assert.same({ "part.began one/a/1 1 dispatched", "part.retried one/a/1 1 failed", "part.began one/a/1 2 dispatched",
      "part.ended one/a/1 2 failed", "part.failed one/a/1 2 failed" }, lines(c, m))
    local at_gate, ids = told(c, g), {}
    for _, e in ipairs(at_gate) do
      assert.is_nil(ids[e.id])
      ids[e.id] = true
    end
    assert.same({ "gates", "one", "a" }, { at_gate[3].tier, at_gate[3].workflow, at_gate[3].executor })
    assert.truthy(at_gate[5].reason:find("exited with status 3", 1, true))
    assert.truthy(at_gate[1].id:find("^gates/job%-%d+%-%x+#%d+%.1$"), at_gate[1].id)
    assert.truthy(told(c, m)[1].id:find("^a/job%-%d+%-%x+#%d+%.1$"), told(c, m)[1].id)
    -- A job that a worker's death does not stop, and one that is cancelled.
    ended(c, submitted(c, c:job { two = { work = "two 20" } }), "completed")
    local id = submitted(c, c:job { three = { work = "three 5000" } })
    c:run(500)
    c:on(g, "state.lead:cancel(...)", id)
    ended(c, id, "cancelled")
    c:run(1000)
    local all = lines(c, g)
    assert.same({ "job.ended job - completed", "job.ended job - cancelled" }, { all[10], all[#all] })
    assert.same({ 0, 0 }, { left(c, g), left(c, m) })
    c:rest { ms = 33000 }
  end)

  it("record nothing and cost nothing where none is wired", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    local before = c:on(m, "return state.lead.tier.index")
    ended(c, submitted(c, c:job { one = { work = "one 20" } }), "completed")
    c:run(1000)
    assert.equal(2, c:on(m, "return state.lead.tier.index") - before) -- Its creation, and its end.
    assert.equal(0, c:on(m, "return state.lead.ledger.outbox.last"))
  end)
end)

describe("a hook that fails", function ()
  it("is called again after a pause, with the same id, until it takes the event; the leader and other hooks go on", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    c:on(m, [[ node.spec_calls, node.spec_other = {}, 0
      node.hooks:wire("job.failed", function (event)
        node.spec_calls[#node.spec_calls + 1] = { id = event.id, at_ms = require("shoal.task").now_ms() }
        if #node.spec_calls == 1 then error "no" end
        if #node.spec_calls == 2 then return nil, "the receiver answered 503", "REFUSED" end
        if #node.spec_calls == 3 then require("shoal.task").sleep(1e9) end
      end)
      node.hooks:wire("job.failed", function (_) node.spec_other = node.spec_other + 1 end) ]])
    ended(c, submitted(c, c:job { one = { work = "one 20 1" } }), "failed")
    ended(c, submitted(c, c:job { one = { work = "two 20" } }), "completed")
    c:run(60000)
    local calls = c:on(m, "return node.spec_calls")
    assert.equal(4, #calls)
    assert.equal(calls[1].id, calls[4].id)
    local gaps = {}
    for i = 2, 4 do gaps[i - 1] = math.floor((calls[i].at_ms - calls[i - 1].at_ms) / 100 + 0.5) / 10 end
    assert.is_true(gaps[1] >= 0.9 and gaps[1] <= 1.1 and gaps[2] >= 1.8 and gaps[2] <= 2.2, gaps[1] .. " " .. gaps[2])
    assert.is_true(gaps[3] >= 33 and gaps[3] <= 35, gaps[3]) -- It was ended after 30 s.
    assert.equal(1, c:on(m, "return node.spec_other"))
    assert.same({ 3, 0 }, { c:counts(m, "job.failed").raised, left(c, m) })
    c:rest()
  end)

  it("whose telling raises is told again, and counts once among those in hand; what was told leaves the outbox once", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    c:on(m, [[ local lead = state.lead
      local fire, propose, failures, lost = lead.telling.fire, lead.propose, 0, 0
      function lead.telling.fire(self, site, event)
        failures = failures + 1
        if failures <= 6 then error "before any hook" end
        return fire(self, site, event)
      end
      function lead.propose(self, command)
        if command.kind == "told" and lost < 3 then
          lost = lost + 1
          error "before the log"
        end
        return propose(self, command)
      end
      node.spec_calls = 0
      node.hooks:wire("job.ended", function (_) node.spec_calls = node.spec_calls + 1 end) ]])
    for i = 1, 3 do ended(c, submitted(c, c:job { one = { work = ("one %d"):format(20 * i) } }), "completed") end
    c:run(60000)
    assert.same({ 3, 0, 0 }, c:on(m, [[ local t = state.lead.telling
      return { node.spec_calls, t.in_hand["job.ended"], #t.told } ]]))
    assert.equal(0, left(c, m))
    c:rest()
  end)

  it("is given up after TRIES_MAX, with an incident; of a site at most IN_HAND_MAX events are in hand, of all EVENTS_MAX wait", function ()
    local c <close> = simcluster.new { set_worker = { cores = 64 } }
    local m = c.managers[1]
    c:on(m, [[ local telling, outbox = require "shoal.job.telling", require "shoal.job.outbox"
      telling.TRIES_MAX, outbox.EVENTS_MAX, node.spec_most, node.spec_now = 3, 40, 0, 0
      node.hooks:wire("part.began", function (_)
        node.spec_now = node.spec_now + 1
        node.spec_most = math.max(node.spec_most, node.spec_now)
        require("shoal.task").sleep(100)
        node.spec_now = node.spec_now - 1
        error "never"
      end) ]])
    ended(c, submitted(c, c:job { one = { work = "one 20", parts = 40 } }), "completed")
    assert.same({ 16, 40 }, { c:on(m, "return node.spec_most"), left(c, m) })
    assert.equal(0, c:counts(m, "lead.tell").raised)
    ended(c, submitted(c, c:job { one = { work = "two 20", parts = 1 } }), "completed")
    c:run(100)
    assert.same({ 1, "FULL" }, { c:counts(m, "lead.tell").raised, c:incidents(m, "lead.tell")[1].code })
    c:run(30000)
    assert.equal(0, left(c, m))
    assert.equal(41 * (3 + 1), c:counts(m, "part.began").raised) -- The one that was dropped was in hand already.
    c:rest()
  end)
end)

describe("an event that was recorded", function ()
  it("is told after a restart of the gate, once more if it was told before, with the same id", function ()
    local file = assert(io.open "examples/roles/telling_gate.lua")
    local script = file:read "a"
    file:close()
    local c <close> = simcluster.new { set = { retention_ms = 60000 } }
    local hooks, down = {}, true
    c.s:http("127.0.0.2", function (request)
      hooks[#hooks + 1] = request.headers["x-event"]
      return { status = down and 503 or 200, body = "ok" }
    end, { address = "127.0.0.2", port = 8080 })
    local config = c:config "gate"
    local g = c:add {
      name = "g1", role = "gate", config = config, script = "/roles/gate.lua",
      files = { ["/roles/gate.lua"] = script:gsub("http://127.0.0.1:8080/hook", "http://127.0.0.2:8080/hook"), ["/w/x"] = "" },
    }
    c:run(500)
    c:on(g, [[ local node, task = node, require "shoal.task"
      local job = require "shoal.job"
      local spec = job.encode(assert(job.parse('{"name":"f","timeout_ms":200,"workflows":{"a":{"command":"x"}}}', "f.json")))
      state.lead.options.placement.accepts = function () return true end
      node.spec_job = assert(state.lead:submit { key = "k", spec = spec }).job ]])
    c:run(2000)
    assert.is_true(#hooks >= 1)
    local id = hooks[1]
    c:crash(g)
    c:run(500)
    down = false
    c:restart(g)
    c:run(3000)
    assert.equal(id, hooks[#hooks])
    local count = #hooks
    c:run(20000)
    assert.equal(count, #hooks)
    local text = assert(c.s:read(g, "failed-jobs.log"))
    assert.truthy(text:find(id .. " ", 1, true) and text:find("timed_out", 1, true), text)
    assert.equal(0, left(c, g))
  end)
end)
