--- Limits of the job layer, at their size: many workflows, many names, large results, many parts, many jobs. Each job ends, a client can
--- read its answer, and reads the same after a restart of the leader.
---
--- SHOAL_LONG=1 makes the large cases as large as the limit; without it they are a fifth of that.
local simcluster = require "spec.support.simcluster"
local stats = require "shoal.job.stats"

local LONG = os.getenv "SHOAL_LONG" ~= nil
local PARTS, JOBS = LONG and 10000 or 2000, LONG and 10000 or 2000
local MIB = 1 << 20

--- A cluster that is not judged every 100 ms: that costs a look at each part and each ended job.
local function quiet(options)
  local c = simcluster.new(options)
  function c:check() self.checked_ms = self.s:now_ms() end
  return c
end

--- What a client hears. Its connection may have been to a life of the leader that ended.
local function ask(c, name, body)
  local reply, err
  for _ = 1, 3 do
    reply, err = c:on(c.client, "return state.client:call(...)", name, body)
    if reply then return reply end
    c:run(500)
  end
  error(err, 2)
end

local function get(c, id) return ask(c, "job.get", { job = id }).detail end

--- The answer as a client reads it; the same before and after a restart of the leader.
local function read_twice(c, id, state)
  local m = c.managers[1]
  local before = get(c, id)
  assert.same({ state, state }, { before.state, before.result.state })
  c:crash(m)
  c:restart(m)
  c:run(3000)
  assert.same(before, get(c, id))
  return before.result
end

local function completed(c, spec, limit_ms)
  local id = assert(c:submit(spec))
  local final = c:follow(id, limit_ms)
  assert.equal("completed", final.state, final.reason)
  return read_twice(c, id, "completed"), id
end

describe("limits:", function ()
  it("F51, F54: 64 workflows of 200 names each end in one answer that fits a message", function ()
    local c <close> = quiet { set = { retention_ms = 600000 }, set_worker = { cores = 64 } }
    local workflows = {}
    for i = 1, 64 do
      workflows[("flow%03d"):format(i)] = { vus = 1, iterations = 1, env = { FLOW = tostring(i) }, code = [[
        return { vu = function (vu)
          for i = 1, 200 do
            local name = ("/shop/%s/a/category/with/a/long/name/and/many/more/words/item-%d"):format(vu.env.FLOW, i)
            vu:check(name, true)
            vu:time(name, i)
            vu:count(name, i)
          end
          vu:sleep(10)
        end }]] }
    end
    local result = completed(c, c:job(workflows))
    assert.equal(64, #result.workflows)
    assert.truthy(result.cut and result.cut:find("detail was left out", 1, true), result.cut)
    for _, w in ipairs(result.workflows) do
      assert.same({ "completed", 1 }, { w.state, w.stats.iterations })
    end
    -- The cut removes detail only: the sums are whole.
    local sum = 0
    for _, check in ipairs(result.stats.checks) do sum = sum + check.passed end
    assert.equal(64 * 200, sum)
  end)

  it("F54: a script with 60,000 names keeps 200 of each kind and the sum of the others", function ()
    local c <close> = quiet { set = { retention_ms = 600000 } }
    local result = completed(c, c:job { load = { vus = 1, iterations = 1, code = [[
      return { vu = function (vu)
        for i = 1, 60000 do
          vu:check(("item %d"):format(i), true)
          vu:count(("item %d"):format(i))
        end
      end }]] } })
    local passed, counted = 0, 0
    assert.equal(stats.NAMES_MAX + 1, #result.stats.checks)
    for _, check in ipairs(result.stats.checks) do passed = passed + check.passed end
    for _, n in pairs(result.stats.counters) do counted = counted + n end
    assert.same({ 60000, 60000 }, { passed, counted })
  end)

  for name, bytes in pairs { ["3 MiB - 1"] = 3 * MIB - 1, ["3 MiB"] = 3 * MIB, ["4 MiB + 1"] = 4 * MIB + 1 } do
    it(("F54: a command with %s of output has its beginning and end in the answer, and how much there was"):format(name), function ()
      local c <close> = quiet { set = { retention_ms = 600000 } }
      c.s:command("chatty", function () return ("x"):rep(bytes), 0, 20 end)
      local result = completed(c, c:job { talk = { command = { "chatty" } } })
      local run = result.stats.commands[1]
      assert.equal(0, run.status)
      assert.equal(bytes, run.bytes)
      assert.is_true(#run.head > 0 and #run.head + #run.tail <= stats.OUTPUT_MAX)
    end)

    it(("F54: a part's result of %s is refused at once, and its job ends"):format(name), function ()
      local c <close> = quiet { set = { retention_ms = 600000 } }
      c:on(c.workers[1], [[
        local bytes, real = ..., state.worker.reports.result
        state.worker.reports.result = function (self, record, done)
          record.result = ("x"):rep(bytes)
          return real(self, record, done)
        end ]], bytes)
      local began = c.s:now_ms()
      local id = assert(c:submit(c:job { one = { work = "one 100", retries = 0 } }))
      local final = c:follow(id)
      assert.equal("failed", final.state)
      assert.truthy(final.reason:find("could not be handed over", 1, true), final.reason)
      assert.is_true(c.s:now_ms() - began < 5000)
      read_twice(c, id, "failed")
    end)
  end

  local codes = {
    [stats.RESULT_MAX] = "", [stats.RESULT_MAX + 1] = "MALFORMED", [3 * MIB - 300] = "MALFORMED", [3 * MIB - 1] = "TOO_LARGE",
    [3 * MIB] = "TOO_LARGE", [4 * MIB + 1] = "TOO_LARGE",
  }
  for bytes, code in pairs(codes) do
    it(("F54: a forged result of %d bytes is %s, and its job ends"):format(bytes, code == "" and "taken" or code), function ()
      local c <close> = quiet { set = { retention_ms = 600000 } }
      local id = assert(c:submit(c:job { one = { work = "one 2000" } }))
      c:run(500)
      local answer, why = c:on(c.workers[1], [[
        local bytes = ...
        local msgpack, stats = require "shoal.core.msgpack", require "shoal.job.stats"
        local _, run = next(state.worker.runs)
        local body = run.body
        local function forged(n)
          local run = { run = "x", status = 0, head = ("x"):rep(n) }
          return assert(msgpack.pack { stats = { counts = {}, commands = { run } }, incidents = {} })
        end
        local result = forged(bytes - #forged(1 << 20) + (1 << 20))
        assert(#result == bytes)
        local reply, err, code = node.rpc:peer(body.leader):call("part.result", {
          job = body.job, workflow = body.workflow, part = body.part, attempt = body.attempt, fence = body.fence, state = "completed",
          reason = "", result = result, stats = {},
        })
        return reply and "" or code, err ]], bytes)
      assert.equal(code, answer, why)
      local final = c:follow(id)
      assert.equal("completed", final.state, final.reason)
      local result = read_twice(c, id, "completed")
      assert.is_true(#(result.stats.commands[1].head or "") <= stats.OUTPUT_MAX)
    end)
  end

  it(("F31, F51: a job of %d parts runs each once"):format(PARTS), function ()
    local c <close> = quiet { workers = 2, set = { retention_ms = 600000 }, set_worker = { cores = 128 } }
    local result = completed(c, c:job { many = { work = "many 200", parts = PARTS } }, 600000)
    assert.same({ PARTS, PARTS }, { c.ran.many, result.stats.iterations })
    assert.equal(PARTS, #result.attempts + (result.left_out or 0))
  end)

  for _, level in ipairs { "none", "throttle", "batch", "reject" } do
    it(("F45, F65: of 320 live parts each is heard of at level %s, and none is taken for silent"):format(level), function ()
      local c <close> = quiet { set = { retention_ms = 600000 }, set_worker = { cores = 320 }, set_manager = { manager_silent_ms = 8000 } }
      local m = c.managers[1]
      c:on(m, "local level = ... state.lead.measure = function (self) self.progress_level = level end state.lead:measure()", level)
      c:on(m, [[ local real = state.lead.progress
        node.spec_heard = {}
        state.lead.progress = function (self, body)
          for _, item in ipairs(body.parts) do node.spec_heard[item.part] = (node.spec_heard[item.part] or 0) + 1 end
          return real(self, body)
        end ]])
      local id = assert(c:submit(c:job { many = { work = "many 20000", parts = 320 } }))
      c:run(10000)
      assert.equal(level, c:on(c.workers[1], "return state.worker.reports:counts().level"))
      local heard, least = c:on(m, [[ local parts, least = 0, math.huge
        for _, n in pairs(node.spec_heard) do parts, least = parts + 1, math.min(least, n) end
        return parts, least ]])
      assert.equal(320, heard)
      assert.is_true(least >= 4, least)
      local final = c:follow(id)
      assert.equal("completed", final.state, final.reason)
      assert.same({ 320, 0, 0 }, { c.ran.many, final.result.totals.lost or 0, c:counts(m, "lead.attempt_lost").raised })
    end)
  end

  it(("F22, F53: %d finished jobs are listed and read after a restart, and the next one runs"):format(JOBS), function ()
    local c <close> = quiet { set = { retention_ms = 3600000 }, set_worker = { cores = 64 } }
    local m = c.managers[1]
    local spec = c:job { one = { work = "one 20" } }
    c:on(c.client, [[
      local spec, count = ...
      node.spec_ids = {}
      for lane = 1, 50 do
        node.scope:spawn("spec.submit", {}, function ()
          for i = lane, count, 50 do node.spec_ids[i] = assert(state.client:submit(spec, "limits " .. i)) end
        end)
      end ]], spec, JOBS)
    local function ended() return c:on(m, "return #state.lead.ledger.ended") end
    assert.truthy(c:until_true(function () return ended() == JOBS end, 600000, 500), "not all have ended")
    assert.equal(JOBS, c.ran.one)
    assert.equal(64, c:on(m, "return #state.lead.old_feeds")) -- Those of the newest that ended, for clients that come back.
    local ids = c:on(c.client, "return node.spec_ids")
    c:crash(m)
    c:restart(m)
    c:run(5000)
    assert.equal(JOBS, ended())
    local list = ask(c, "job.list", {}).jobs
    assert.equal(math.min(JOBS, 2000), #list)
    for _, i in ipairs { 1, JOBS // 2, JOBS } do
      local got = get(c, ids[i])
      assert.same({ "completed", "completed", 1 }, { got.state, got.result.state, #got.result.stats.commands })
    end
    -- A key is still the same job; a new one runs.
    assert.equal(ids[1], (c:submit(spec, "limits 1")))
    assert.equal("completed", c:complete(spec, "new").state)
    assert.equal(JOBS + 1, c.ran.one)
    list = ask(c, "job.list", {}).jobs -- The newest 2000.
    assert.equal(2000, #list)
    for _, each in ipairs(list) do assert.not_equal(ids[1], each.job) end
  end)

  it("F31: ended jobs past the room are forgotten when a key's time is over, the oldest first, and not before", function ()
    local c <close> = quiet { set = { retention_ms = 3600000 } }
    local m = c.managers[1]
    c:on(m, "state.lead.limits.ended_kept = 2")
    local ids = {}
    for i = 1, 4 do
      local _, id = c:complete(c:job { one = { work = "one 20" } })
      ids[i] = id
    end
    c:run(290000)
    assert.equal(4, c:on(m, "return #state.lead.ledger.ended"))
    c:run(15000)
    assert.equal(2, c:on(m, "return #state.lead.ledger.ended"))
    assert.equal("completed", get(c, ids[3]).state)
    assert.is_nil(c:on(m, "return state.lead:get(...)", ids[2]))
  end)
end)
