--- A leader of jobs, rule by rule: what it answers to executors and to the tier above, whom it cancels and when, what it keeps.
local followed = require "spec.support.followed"
local simcluster = require "spec.support.simcluster"

local submitted, ended = followed.submitted, followed.ended

local function states(final)
  local out = {}
  for i, a in ipairs(final.result.attempts) do out[i] = a.state end
  return out
end

describe("what a leader answers:", function ()
  it("F51: the result of no job is not accepted, and stale; progress of no job is unknown, of an older attempt to be stopped", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 1000" } })
    c:run(500)
    local result = c:on(m, [[ return state.lead:result { job = "none-1", workflow = "one", part = "one/1", attempt = 1, fence = 5,
      state = "completed", stats = {}, result = require("shoal.core.msgpack").pack {} } ]])
    assert.same({ accepted = false, stale = true }, result)
    local ack = c:on(m, [[ local id = ...
      local fence = state.lead.ledger.runs[id].parts["one/1"].fence
      local function item(job, fence)
        return { job = job, workflow = "one", part = "one/1", attempt = 1, fence = fence, seq = 1, stats = {} }
      end
      local parts = { item("none-1", 5), item(id, fence - 1), item(id, fence) }
      return require("shoal.wire.ack").parse(state.lead:progress { parts = parts }) ]], id)
    assert.same({ { 1 }, { 2 } }, { ack.unknown, ack.stop })
    ended(c, id, "completed")
    c:rest()
  end)

  it("F37: the same dispatch again is accepted as before, an older one is stale; an older attempt's cancel ends nothing", function ()
    local c <close> = simcluster.new { gates = 1 }
    local m = c.managers[1]
    c:on(m, [[ local real = node.rpc.handlers["part.dispatch"]
      node.rpc.handlers["part.dispatch"] = function (body, peer)
        node.spec_body = body
        return real(body, peer)
      end ]])
    local id = submitted(c, c:job { one = { work = "one 2000" } })
    assert.truthy(c:until_true(function () return c:on(m, "return node.spec_body ~= nil") end, 5000))
    c:run(300)
    local again, older, code, cancelled = c:on(m, [[ local body = {}
      for key, value in pairs(node.spec_body) do body[key] = value end
      local again = state.lead:take(body)
      body.fence = body.fence - 1
      local older, _, code = state.lead:take(body)
      local cancelled = state.lead:end_part { job = body.job, part = body.part, fence = body.fence, reason = "an older one" }
      return again and again.state, older, code, cancelled.state ]])
    assert.same({ "accepted", nil, "STALE", "unknown" }, { again, older, code, cancelled })
    local final = ended(c, id, "completed")
    assert.same({ 1, { "completed" } }, { c.ran.one, states(final) })
    c:rest()
  end)

  it("F51: a job that ended before has its answer replayed, under numbers above all that were given", function ()
    local c <close> = simcluster.new { set = { retention_ms = 60000 } }
    local m = c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 20" } })
    ended(c, id, "completed")
    c:run(500)
    local kinds, state = c:on(m, [[ local id = ...
      local last = state.lead:events(id, 1, 1).last
      state.lead:drop_feed(id)
      local events, kinds = state.lead:events(id, last + 1, 100).events, {}
      for i, event in ipairs(events) do kinds[i] = event.kind end
      return kinds, events[#events] and events[#events].body.state ]], id)
    assert.same({ { "result", "status" }, "completed" }, { kinds, state })
  end)

  it("F28: a job that a policy does not accept is refused; by a young leader, which may not know all executors yet, for now only", function ()
    local c <close> = simcluster.new {}
    local codes = c:on(c.managers[1], [[ local spec = ...
      local lead, task = state.lead, require "shoal.task"
      lead.options.placement.accepts = function () return nil, "nobody can run this" end
      local codes = {}
      for i, age_ms in ipairs { 0, 3 * node.config.heartbeat_ms - 1, 3 * node.config.heartbeat_ms } do
        lead.led_ms = task.now_ms() - age_ms
        codes[i] = select(3, lead:submit { key = "k", spec = spec })
      end
      return codes ]], c:job { one = { work = "one 20" } })
    assert.same({ "NOT_READY", "NOT_READY", "CONFIG" }, codes)
  end)

  it("F65: levels of progress by how full the second was, each from its bound on", function ()
    local c <close> = simcluster.new { set_manager = { progress_per_s = 100 } }
    local levels = c:on(c.managers[1], [[ local levels = {}
      for i, seen in ipairs { 69, 70, 84, 85, 94, 95, 1000, 0 } do
        state.lead.progress_seen = seen
        state.lead:measure()
        levels[i] = state.lead.progress_level
      end
      return levels ]])
    assert.same({ "none", "throttle", "throttle", "batch", "batch", "reject", "reject", "none" }, levels)
  end)

  it("F48: a gap in a job's events is an incident at the client, and taken for no event", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 3000" } })
    c:run(1130) -- Between two pushes of numbers: none is under way.
    local before = c:on(c.client, "return state.client.jobs[...].seq", id)
    assert.is_true(before > 0)
    c:on(m, [[ local f = state.lead.runs[...].feed
      f.last = f.last + 3
      f.first = f.last + 1
      f.watchers[1].next = f.last + 1
      f:push("status", { state = "running", at_ms = 1 }) ]], id)
    c:run(100)
    assert.equal(before, c:on(c.client, "return state.client.jobs[...].seq", id))
    assert.truthy(c:incidents(c.client, "client.push.job_status")[1].message:find(("follows event %d"):format(before), 1, true))
  end)

  it("F48: are heard from the first to the last by each of several calls of one client that follow it, whichever ends first", function ()
    local c <close> = simcluster.new {}
    local id = submitted(c, c:job { one = { work = "one 12000" } })
    c:on(c.client, [[ node.spec_heard = {}
      node.spec_follow = function (name, id, limit_ms)
        local heard = { status = 0, stats = 0, states = {} }
        node.spec_heard[name] = heard
        node.scope:spawn("spec.follow", {}, function ()
          local final, _, code = state.client:follow(id, {
            status = function (body)
              heard.status = heard.status + 1
              if not body.workflow then heard.states[#heard.states + 1] = body.state end
            end,
            stats = function () heard.stats = heard.stats + 1 end,
          }, limit_ms)
          heard.ended = final and final.state or code
        end)
      end
      node.spec_follow("first", ...) ]], id)
    c:run(4000)
    c:on(c.client, "node.spec_follow('second', ...)", id)
    c:on(c.client, "node.spec_follow('brief', ..., 2000)", id)
    ended(c, id, "completed")
    c:run(200)
    local heard = c:on(c.client, "return node.spec_heard")
    assert.same({ "completed", "completed", "TIMEOUT" }, { heard.first.ended, heard.second.ended, heard.brief.ended })
    assert.same(heard.first, heard.second)
    assert.is_true(heard.first.stats > 5 and heard.brief.stats > 0 and heard.brief.stats < heard.first.stats)
    assert.equal(0, c:counts(c.client, "client.push.job_status").raised + c:counts(c.client, "client.push.stats").raised)
    c:rest()
  end)
end)

describe("whom a leader cancels:", function ()
  it("F62: a cancel goes behind the dispatch that is under way", function ()
    local c <close> = simcluster.new {}
    local w = c.workers[1]
    c:on(w, [[ local task = require "shoal.task"
      local dispatch, cancel = node.rpc.handlers["part.dispatch"], node.rpc.handlers["part.cancel"]
      node.spec_order = {}
      node.rpc.handlers["part.dispatch"] = function (body, peer)
        task.sleep(1000)
        node.spec_order[#node.spec_order + 1] = "dispatch"
        return dispatch(body, peer)
      end
      node.rpc.handlers["part.cancel"] = function (body, peer)
        node.spec_order[#node.spec_order + 1] = "cancel"
        return cancel(body, peer)
      end ]])
    local id = submitted(c, c:job { one = { work = "one 5000" } })
    c:run(200)
    c:on(c.client, "return state.client:cancel(...)", id)
    local final = ended(c, id, "cancelled")
    assert.same({ "dispatch", "cancel" }, c:on(w, "return node.spec_order"))
    assert.same({ "cancelled" }, states(final))
    c:rest()
  end)

  it("F62: an attempt that is not running where it is cancelled is lost at once", function ()
    local c <close> = simcluster.new {}
    local m, w = c.managers[1], c.workers[1]
    local id = submitted(c, c:job { one = { work = "one 20000" } })
    c:run(500)
    c:on(w, [[ node.rpc.handlers["part.cancel"] = function () return { state = "unknown" } end ]])
    c:on(c.client, "return state.client:cancel(...)", id)
    assert.same({ "lost" }, states(ended(c, id, "cancelled", 5000)))
    assert.equal(0, c:on(m, "return state.lead.ledger:load 'w-a1'"))
  end)

  it("F62: an attempt whose cancel was answered, and that has no end, is lost half a minute later", function ()
    local c <close> = simcluster.new {}
    local id = submitted(c, c:job { one = { work = "one 200000" } })
    c:run(500)
    c:on(c.workers[1], [[ node.rpc.handlers["part.cancel"] = function () return { state = "cancelling" } end ]])
    local began = c.s:now_ms()
    c:on(c.client, "return state.client:cancel(...)", id)
    assert.same({ "lost" }, states(ended(c, id, "cancelled", 40000)))
    assert.is_true(c.s:now_ms() - began >= 30000)
  end)

  --- Have the leader compare what it believes with these parts of w-a1; the fences it cancels there, and the states of the job's attempts.
  local function compared(c, id, parts)
    return c:on(c.managers[1], [[ local id, parts = ...
      local a = state.lead.attempts
      a:reconcile(state.lead.executors:get "w-a1", parts)
      local fences, found = {}, {}
      for _, cancel in pairs(a.cancels) do fences[#fences + 1] = cancel.fence end
      for _, one in pairs(a:of_run(id)) do found[#found + 1] = one.state end
      table.sort(fences)
      return fences, found ]], id, parts)
  end

  it("F24, F42: strays: an attempt that a newer one followed, or whose job has ended, is cancelled; one that is not there is lost", function ()
    local c <close> = simcluster.new { set = { retention_ms = 30000 } }
    local m = c.managers[1]
    local old = submitted(c, c:job { one = { work = "old 20" } })
    ended(c, old, "completed")
    local id = submitted(c, c:job { one = { work = "one 1500", retries = 1 } })
    c:run(500)
    local fence = c:on(m, "return state.lead.ledger.runs[...].parts['one/1'].fence", id)
    local mine = { job = id, part = "one/1", fence = fence }
    local fences, found = compared(c, id, { mine })
    assert.same({ {}, { "running" } }, { fences, found })
    fences, found = compared(c, id, { mine, { job = id, part = "one/1", fence = fence - 1 } })
    assert.same({ { fence - 1 }, { "running" } }, { fences, found })
    fences, found = compared(c, id, { mine, { job = id, part = "one/1", fence = fence - 1 }, { job = old, part = "one/1", fence = 2 } })
    assert.same({ { 2, fence - 1 }, { "running" } }, { fences, found })
    c.parted = true -- What we say of its executor from here on is not so.
    assert.same({ "doomed" }, (select(2, compared(c, id, {}))))
    assert.same({ "lost", "completed" }, states(ended(c, id, "completed")))
  end)
end)

describe("where a leader places:", function ()
  it("F36: parts that fit are placed at once, evenly, each with what the others of the round took in mind", function ()
    local c <close> = simcluster.new { workers = 2, set_worker = { cores = 4 } }
    local m = c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 1500", parts = 6 } })
    c:run(400)
    local fences, loads = c:on(m, [[ local fences = {}
      for _, part in pairs(state.lead.ledger.runs[...].parts) do fences[part.fence] = true end
      local count = 0
      for _ in pairs(fences) do count = count + 1 end
      return count, { state.lead.ledger:load "w-a1", state.lead.ledger:load "w-a2" } ]], id)
    assert.same({ 1, { 3, 3 } }, { fences, loads })
    ended(c, id, "completed")
    c:rest()
  end)

  it("F31: nothing is sent to one that just went, though its parts are not settled yet", function ()
    local c <close> = simcluster.new { set_worker = { cores = 2 } }
    local m, w = c.managers[1], c.workers[1]
    local held = submitted(c, c:job { one = { work = "held 60000", retries = 0 } })
    c:run(500)
    c:on(w, [[ local real = node.rpc.handlers["part.dispatch"]
      node.rpc.handlers["part.dispatch"] = function (body, peer)
        node.spec_dispatched = (node.spec_dispatched or 0) + 1
        return real(body, peer)
      end ]])
    c.s:disk(m, { sync_ms = 800 })
    c:on(c.client, [[ local spec = ...
      node.scope:spawn("spec.submit", {}, function () state.client:submit(spec, "k") end) ]], c:job { two = { work = "two 50" } })
    c:run(100) -- The placement is on its way to the disk.
    c:on(m, "node.script.members = nil state.lead:gone('w-a1', 'it went')")
    c:run(2500)
    assert.is_nil(c:on(w, "return node.spec_dispatched"))
    c.s:disk(m)
    ended(c, held, "failed")
  end)

  it("F38: a tier below may use the executions that are left, no more", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" } }
    local g = c.gates[1]
    c:on(g, "state.lead.options.retry.again = function () return true end")
    for _, m in ipairs(c.managers) do
      c:on(m, [[ local real = node.rpc.handlers["part.dispatch"]
        node.rpc.handlers["part.dispatch"] = function (body, peer)
          node.spec_bodies = node.spec_bodies or {}
          node.spec_bodies[#node.spec_bodies + 1] = body
          return real(body, peer)
        end ]])
    end
    local id = submitted(c, c:job { one = { work = "one 3000", retries = 2 } })
    c:run(1000)
    local function retries()
      local out = {}
      for _, m in ipairs(c.managers) do
        for _, n in ipairs(c:on(m, [[ local out = {}
          for i, body in ipairs(node.spec_bodies or {}) do out[i] = require("shoal.core.msgpack").unpack(body.share).retries end
          return out ]])) do out[#out + 1] = n end
      end
      table.sort(out)
      return out
    end
    assert.same({ 2 }, retries())
    c.parted = true
    c:on(g, [[ local id = ...
      local part
      for name, p in pairs(state.lead.ledger.runs[id].parts) do if p.state == "dispatched" then part = p end end
      assert(state.lead:result { job = id, workflow = "one", part = part.part, attempt = part.attempt, fence = part.fence, state = "failed",
        reason = "twice", stats = { executions = 2 }, result = require("shoal.core.msgpack").pack {} }) ]], id)
    c:run(4000) -- What failed waits before it runs again.
    assert.same({ 0, 2 }, retries())
  end)

  it("F35: a policy that chooses one that is full is waited with, and the tier hears nothing of it", function ()
    local c <close> = simcluster.new { workers = 2, set_worker = { cores = 1 } }
    local m = c.managers[1]
    c:on(m, [[ state.lead.options.placement.choose = function () return "w-a1" end ]])
    local one = submitted(c, c:job { one = { work = "one 2000" } })
    local two = submitted(c, c:job { one = { work = "two 20" } })
    c:run(300)
    local before = c:on(m, "return state.lead.tier.index")
    c:run(1000)
    assert.is_true(c:on(m, "return state.lead.tier.index") - before <= 2)
    ended(c, one, "completed")
    ended(c, two, "completed")
    c:rest()
  end)

  it("F42: what was in a placement that a full tier refuses is placed when there is room", function ()
    local c <close> = simcluster.new { set_worker = { cores = 1 } }
    local m = c.managers[1]
    local one = submitted(c, c:job { one = { work = "one 600" } })
    local two = submitted(c, c:job { one = { work = "two 20" } }) -- Cut with its job, and waiting.
    local three = submitted(c, c:job { a = { work = "three 20" }, b = { after = { "a" }, work = "four 20" } })
    c:on(m, [[ local real = getmetatable(state.lead).__index.propose
      state.lead.propose = function (self, command)
        if command.kind == "place" and (node.spec_full or 0) < 4 then
          node.spec_full = (node.spec_full or 0) + 1
          return nil, "many commands wait already", "FULL"
        end
        return real(self, command)
      end ]])
    for _, id in ipairs { one, two, three } do ended(c, id, "completed") end
    assert.equal(4, c:on(m, "return node.spec_full"))
    assert.same({ 1, 1, 1, 1 }, { c.ran.one, c.ran.two, c.ran.three, c.ran.four })
    c:rest()
  end)
end)

describe("what a leader keeps:", function ()
  it("F31: an idempotency key for its time after the answer, whatever room is wanted; then the oldest go", function ()
    local c <close> = simcluster.new { set = { retention_ms = 3600000 } }
    local m = c.managers[1]
    c:on(m, "state.lead.limits.ended_kept = 1")
    local ids = {}
    for i = 1, 3 do
      ids[i] = submitted(c, c:job { one = { work = "one 20" } }, "the key " .. i)
      ended(c, ids[i], "completed")
    end
    c:run(3000)
    assert.equal(3, c:on(m, "return #state.lead.ledger.ended"))
    local _, refusal, code = c:submit(c:job { other = { work = "other 1" } }, "the key 1")
    assert.equal("CONFLICT", code)
    assert.truthy(refusal:find(ids[1], 1, true), refusal)
    c:on(m, "state.lead.base_ms = state.lead.base_ms + 300000") -- Its clock, five minutes on.
    c:run(3000)
    assert.same({ ids[3] }, c:on(m, "return state.lead.ledger.ended"))
  end)

  it("F51, F54: a result that the tier above had not taken is handed over by the next leader", function ()
    local c <close> = simcluster.new { gates = 1 }
    local g, m = c.gates[1], c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 1000" } })
    c:run(700)
    c:cut(g, m)
    c:run(1500)
    assert.equal("completed", c:on(m, "return state.lead.ledger:ended_run(... .. '|one/a').state", id))
    c:crash(m)
    c:heal(g, m)
    c:restart(m)
    assert.same({ "completed" }, states(ended(c, id, "completed", 15000)))
    assert.equal(1, c.ran.one)
  end)
end)
