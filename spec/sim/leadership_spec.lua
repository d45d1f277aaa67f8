--- A leadership: what it takes up, what its end takes down, whose clock it goes by; and a tier that is full now and then.
local followed = require "spec.support.followed"
local simcluster = require "spec.support.simcluster"

local submitted, ended = followed.submitted, followed.ended

describe("a leadership:", function ()
  it("F72: that is lost takes down all that was volatile, and answers NOT_LEADER", function ()
    local c <close> = simcluster.new { workers = 2, set = { retention_ms = 60000 } }
    local m = c.managers[1]
    local idle = c:ask(m, "tasks")
    local done = submitted(c, c:job { one = { work = "done 20" } })
    ended(c, done, "completed")
    submitted(c, c:job { one = { work = "one 20000" }, two = { after = { "one" }, work = "two 20" } })
    c:run(500)
    assert.is_true(c:ask(m, "tasks") > idle)
    c.parted = true
    c.s:disk(m, { fail_sync = "EIO" })
    c:on(m, "node.scope:spawn('spec.propose', {}, function () state.lead:propose { kind = 'forget', runs = {} } end)")
    c:run(1000)
    local look = c:on(m, [[ local l, codes = state.lead, {}
      codes[1] = select(3, l:submit { key = "k", spec = ... })
      codes[2] = select(3, l:progress { parts = {} })
      codes[3] = select(3, l:result { job = "x", part = "y" })
      codes[4] = select(3, l:take { job = "x", part = "y", fence = 1 })
      codes[5] = select(3, l:propose { kind = "forget", runs = {} })
      return { codes = codes, fence = l.fence, runs = next(l.runs) == nil, feeds = #l.old_feeds, placing = l.placing, attempts = l.attempts,
        leads = l.tier:leads(), knows = l.ledger.live } ]], c:job { one = { work = "one 20" } })
    assert.same({ codes = { "NOT_LEADER", "NOT_LEADER", "NOT_LEADER", "NOT_LEADER", "NOT_LEADER" }, fence = 0, runs = true, feeds = 0,
      leads = false, knows = 1 }, look)
    assert.is_true(c:ask(m, "tasks") <= idle)
  end)

  it("F61, F68: that begins again after a long outage is followed by its clients within seconds", function ()
    for outage_ms = 5000, 15000, 5000 do
      local c <close> = simcluster.new { seed = outage_ms, set = { retention_ms = 60000 } }
      local m = c.managers[1]
      local id = submitted(c, c:job { one = { work = "one 60000" } })
      c:watch(id)
      c:run(300)
      c:crash(m)
      c:run(outage_ms)
      c:restart(m)
      c:run(300)
      assert.truthy(c:until_true(function ()
        return c:on(m, "local run = state and state.lead.runs[...] return run and next(run.feed.watchers) ~= nil", id)
      end, 5000, 50), "after " .. outage_ms)
    end
  end)

  it("F22, F44: that begins again tells of no workflow less than the one before: one that has begun and waits is not queued", function ()
    local c <close> = simcluster.new { set = { retention_ms = 60000 } }
    local m = c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 20000" } })
    c:watch(id)
    c:run(1000)
    c:crash(m)
    c:restart(m)
    c:run(1000)
    -- Its first word about the workflow is that a part is held back for a while.
    local told = c:on(m, [[ local run = state.lead.runs[...]
      run.told, run.said = {}, {}
      run:holds("one/1", "one", "a pause before it is tried again")
      return run.feed.events[run.feed.last].body ]], id)
    assert.same({ "one", "running", "a pause before it is tried again" }, { told.workflow, told.workflow_state, told.reason })
  end)

  it("F57: its clock goes on where the one before was, though the wall clock stands before that", function ()
    local c <close> = simcluster.new { set = { retention_ms = 600000 } }
    local m = c.managers[1]
    local id = submitted(c, c:job({ one = { work = "one 60000" } }, { timeout_ms = 15000 }))
    c:on(m, "state.lead.base_ms = state.lead.base_ms + 3600000") -- Its wall clock was an hour ahead when it began to lead,
    local clock = c:on(m, "return state.lead:propose { kind = 'forget', runs = {} } and state.lead:clock_ms()")
    c:run(100)
    c:crash(m)
    c:restart(m)
    c:run(1500)
    assert.is_true(c:on(m, "return state.lead:clock_ms()") >= clock) -- and is right now.
    assert.equal("timed_out", ended(c, id).state)
  end)

  it("F28: a key that is known is answered though there is no room for a job", function ()
    local c <close> = simcluster.new { set = { retention_ms = 30000 } }
    local m = c.managers[1]
    local id = submitted(c, c:job { one = { work = "one 500" } }, "the key")
    c:on(m, "state.lead.limits.runs, state.lead.limits.ended = 0, 0")
    local again, _, code = c:submit(c:job { one = { work = "one 500" } }, "the key", 100)
    assert.same({ id, "DUPLICATE" }, { again, code })
    ended(c, id, "completed")
    assert.equal(id, (c:submit(c:job { one = { work = "one 500" } }, "the key", 100)))
  end)

  it("F36: a part that a placement could not place at apply is placed later", function ()
    local c <close> = simcluster.new { workers = 2, set_worker = { cores = 1 } }
    local m = c.managers[1]
    c:on(m, [[ local real = getmetatable(state.lead).__index.propose
      state.lead.propose = function (self, command)
        local places = command.kind == "place" and command.places or command.place and command.place.places
        if places and places[1] and (node.spec_full or 0) < 3 then
          node.spec_full = (node.spec_full or 0) + 1
          places[1].capacity = 0 -- As if others had taken its cores meanwhile.
        end
        return real(self, command)
      end ]])
    local id = submitted(c, c:job { one = { work = "one 20", parts = 2 }, two = { after = { "one" }, work = "two 20" } })
    ended(c, id, "completed")
    assert.same({ 2, 1, 3 }, { c.ran.one, c.ran.two, c:on(m, "return node.spec_full") })
    c:rest()
  end)

  it("F51: a finish that a full tier refuses, for however long, ends the run as what it is", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    c:on(m, [[ local real = getmetatable(state.lead).__index.propose
      state.lead.propose = function (self, command)
        if command.kind == "finish" and (node.spec_full or 0) < 20 then
          node.spec_full = (node.spec_full or 0) + 1
          return nil, "many commands wait already", "FULL"
        end
        return real(self, command)
      end ]])
    local id = submitted(c, c:job { one = { work = "one 20" }, two = { after = { "one" }, work = "two 20" } })
    ended(c, id, "completed")
    assert.equal(20, c:on(m, "return node.spec_full"))
    c:rest()
  end)

  it("F10: a manager takes no older leader of the gates for the one that it knows", function ()
    local c <close> = simcluster.new { gates = 1 }
    local codes = c:on(c.managers[1], [[ local fence = state.heart.fences["gates/g1"].fence
      local function lead(name, n)
        return select(3, state.heart:lead({ tier = "gates", group = "gates/g1", node = name, address = "x", fence = n }, state.lead)) or "ok"
      end
      return { lead("g9", fence - 1), lead("g1", fence - 1), lead("g9", fence + 5), lead("g1", fence + 4), lead("g1", fence + 6) } ]])
    assert.same({ "STALE", "ok", "ok", "STALE", "ok" }, codes)
  end)

  it("F24, F42: compares what it finds in its ledger with what executors answer that they run", function ()
    local c <close> = simcluster.new { workers = 1, set = { retention_ms = 60000 } }
    local m, w = c.managers[1], c.workers[1]
    local id = submitted(c, c:job { one = { work = "one 20000", retries = 2 } })
    c:run(500)
    c:on(w, [[ local lead = node.rpc.handlers["lead"]
      node.rpc.handlers["lead"] = function (body, peer)
        local reply, err, code = lead(body, peer)
        if reply then reply.parts = {} end -- As if it had lost them.
        return reply, err, code
      end ]])
    c:crash(m)
    c:restart(m)
    c:run(1000)
    assert.truthy(c:until_true(function ()
      return c:on(m, [[ local entry = state.lead.ledger.runs[...]
        return entry and entry.parts["one/1"].attempt > 1 ]], id)
    end, 8000, 100), "the attempt that nobody runs is waited for")
    assert.truthy(c:incidents(m, "lead.attempt_lost")[1].message:find("w-a1 does not have it", 1, true))
  end)

  it("F42: what is being sent is not taken for missing by who is asked meanwhile", function ()
    local c <close> = simcluster.new {}
    local m, w = c.managers[1], c.workers[1]
    c:on(w, [[ local dispatch = node.rpc.handlers["part.dispatch"]
      node.rpc.handlers["part.dispatch"] = function (body, peer)
        require("shoal.task").sleep(800)
        return dispatch(body, peer)
      end ]])
    local id = submitted(c, c:job { one = { work = "one 100" } })
    c:run(300)
    local state = c:on(m, [[ local a = state.lead.attempts
      a:reconcile(state.lead.executors:get "w-a1", {})
      return a:get(..., "one/1").state ]], id)
    assert.equal("sending", state)
    assert.equal(1, #ended(c, id, "completed").result.attempts)
  end)
end)
