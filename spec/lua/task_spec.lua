local fake_world = require "spec.support.fake_world"
local errors = require "shoal.errors"
local task = require "shoal.task"
local log = require "shoal.log"

describe("task", function ()
  local world, scope, said, lines

  local function say(words) said[#said + 1] = words end
  local function spawn(fn, ...) return scope:spawn("spec.task", { task = "t" }, fn, ...) end
  local function incidents(site)
    local out = {}
    for _, each in ipairs(errors.incidents()) do
      if not site or each.site == site then out[#out + 1] = each end
    end
    return out
  end

  before_each(function ()
    world = fake_world.new()
    errors.reset()
    task.reset()
    lines = {}
    assert(log.open(world, function (text) lines[#lines + 1] = text end))
    errors.start(world, "n1")
    task.start(world)
    scope = task.scope "spec"
    said = {}
  end)
  after_each(function ()
    task.reset()
    assert(errors.balance())
    errors.reset()
    log.reset()
    assert.equal(0, world.open, "a timer stayed open")
  end)

  describe("spawning", function ()
    it("runs after the call that spawned it returned, in order, with its arguments", function ()
      spawn(function (a, b) say(a .. b) end, "1", "a")
      spawn(function () say "2" end)
      assert.same({}, said)
      world:turn()
      assert.same({ "1a", "2" }, said)
      assert.equal(0, scope:count())
    end)

    it("runs at once on flush, and flush inside a task does nothing", function ()
      spawn(function ()
        spawn(function () say "inner" end)
        task.flush()
        say "outer"
      end)
      task.flush()
      assert.same({ "outer", "inner" }, said)
    end)

    it("passes nil arguments and many", function ()
      spawn(function (...) say(select("#", ...) .. tostring((select(2, ...))) .. (select(4, ...))) end, 1, nil, 3, "x")
      world:turn()
      assert.same({ "4nilx" }, said)
    end)

    it("refuses an unknown site by name, a thing that is no function, and use before start", function ()
      assert.has_error(function () scope:spawn("spce.task", {}, say) end, "spawn: no site is named spce.task")
      assert.error_matches(function () scope:spawn("spec.runn", {}, 3) end, "expected a function, found number")
      assert.error_matches(function () scope:spawn("future.untakn", {}, say) end, "did you mean future.untaken%?")
      task.reset()
      local orphan = task.scope "orphan"
      assert.error_matches(function () orphan:spawn("spec.task", {}, say) end, "call task.start%(world%) first")
    end)

    it("in a closed scope is refused with CLOSED", function ()
      scope:close()
      local t, err, code = spawn(say)
      assert.is_nil(t)
      assert.equal("the scope spec is closed", err)
      assert.equal("CLOSED", code)
    end)
  end)

  describe("sleeping", function ()
    it("wakes at its time and not 1 ns sooner", function ()
      spawn(function () task.sleep(100) say(task.now_ms()) end)
      world:turn()
      world:run(99.999999)
      assert.same({}, said)
      world:run(0.000001)
      assert.same({ 5100.0 }, said)
    end)

    it("wakes equal deadlines in the order in which they went to sleep, and earlier ones first", function ()
      for i = 1, 50 do
        spawn(function () task.sleep(i % 5 == 0 and 5 or 10) say(i) end)
      end
      world:run(20)
      local want = {}
      for i = 5, 50, 5 do want[#want + 1] = i end
      for i = 1, 50 do if i % 5 ~= 0 then want[#want + 1] = i end end
      assert.same(want, said)
    end)

    it("uses one timer however many sleep, and takes sleepers out when they are cancelled", function ()
      local tasks = {}
      for i = 1, 1000 do tasks[i] = spawn(function () task.sleep(1000 + world:random(1000)) say(i) end) end
      world:turn()
      assert.equal(1000, task.counts().sleepers)
      for i = 1, 1000 do if i % 10 ~= 0 then tasks[i]:cancel() end end
      assert.equal(100, task.counts().sleepers)
      world:run(3000)
      assert.equal(100, #said)
      for _, i in ipairs(said) do assert.equal(0, i % 10) end
    end)

    it("lets others and the world go first on yield", function ()
      spawn(function () task.yield() say "a" end)
      spawn(function () say "b" end)
      world:turn()
      assert.same({ "b", "a" }, said)
    end)

    it("refuses what is no time", function ()
      spawn(function () task.sleep(-1) end)
      spawn(function () task.sleep(0 / 0) end)
      spawn(function () task.sleep("1") end)
      world:turn()
      assert.equal(3, #incidents "spec.task")
      assert.truthy(incidents()[1].message:find("expected milliseconds from 0 to 1e12", 1, true))
    end)

    it("outside of a task raises and says to spawn one", function ()
      assert.error_matches(function () task.sleep(1) end, "only a task can wait.*spawn a task")
      assert.error_matches(function () task.future("f"):await() end, "only a task can wait")
      assert.error_matches(function () task.channel(1):pop() end, "only a task can wait")
    end)

    it("in a coroutine of the task's own making raises too", function ()
      spawn(function ()
        local outcome, incident = errors.resume("spec.inner", nil, coroutine.create(function () task.sleep(1) end))
        say(outcome)
        say(incident.message:match "only a task can wait")
      end)
      world:turn()
      assert.same({ "failed", "only a task can wait" }, said)
    end)

    it("does not starve the world: two tasks that wake each other for ever give it its turn", function ()
      local ticks = 0
      local a, b = task.channel(1), task.channel(1)
      spawn(function () while ticks < 3 do assert(a:pop()) assert(b:push(1)) end end)
      spawn(function () assert(a:push(1)) while ticks < 3 do assert(b:pop()) assert(a:push(1)) end end)
      local timer
      timer = world:timer(function () ticks = ticks + 1 timer:start(0) if ticks == 3 then timer:close() end end)
      timer:start(0)
      world:turn()
      assert.equal(3, ticks)
    end)
  end)

  describe("failing", function ()
    it("is one incident at the task's site with its ids, and others go on", function ()
      local t = spawn(function () task.sleep(1) error "boom" end)
      spawn(function () task.sleep(2) say "fine" end)
      world:run(5)
      assert.same({ "fine" }, said)
      assert.equal(1, #incidents())
      local one = incidents()[1]
      assert.equal("spec.task", one.site)
      assert.equal("boom", one.message)
      assert.equal("t", one.ids.task)
      assert.truthy(one.where:find("task_spec.lua:%d+"))
      assert.truthy(one.traceback:find("task_spec.lua", 1, true))
      assert.equal("failed", t:status())
    end)

    it("by yielding past the task's own waits is an incident, and the task is over", function ()
      local t = spawn(function ()
        local _ <close> = setmetatable({}, { __close = function () say "closed" end })
        coroutine.yield(1)
        say "never"
      end)
      world:turn()
      assert.same({ "closed" }, said)
      assert.equal("failed", t:status())
      assert.truthy(incidents()[1].message:find("use task.yield()", 1, true))
    end)
  end)

  describe("join", function ()
    it("gives the results, also late and to several", function ()
      local t = spawn(function () task.sleep(5) return 1, nil, 3 end)
      spawn(function () say(table.concat({ tostring(t:join()), select("#", t:join()) }, " ")) end)
      spawn(function () local _, a, _, c = t:join() say(a + c) end)
      world:run(5)
      spawn(function () local ok, a, b, c = t:join() say(tostring(ok) .. a .. tostring(b) .. c) end)
      world:turn()
      assert.same({ "true 4", 4, "true1nil3" }, said)
    end)

    it("tells a failure, a cancel and a timeout apart", function ()
      local failing = spawn(function () error "no" end)
      local long = spawn(function () task.sleep(1000) end)
      local cancelled = spawn(function () task.sleep(1000) end)
      local function codes(t, ms)
        spawn(function () local _, err, code = t:join(ms) say(code .. ": " .. err) end)
      end
      codes(failing)
      codes(long, 10)
      codes(cancelled)
      world:turn()
      cancelled:cancel()
      world:run(10)
      assert.equal("FAILED: no", said[1])
      assert.truthy(said[2]:find "^CANCELLED: task %d+ at spec.task was cancelled")
      assert.truthy(said[3]:find "^TIMEOUT: .* did not end within 10 ms")
    end)

    it("of itself raises", function ()
      local t
      t = spawn(function () t:join() end)
      world:turn()
      assert.truthy(incidents()[1].message:find "cannot wait for its own end")
    end)
  end)

  describe("cancel and close", function ()
    local function closing(words) return setmetatable({}, { __close = function () say(words) end }) end

    it("runs to-be-closed variables and nothing else", function ()
      local t = spawn(function ()
        local _ <close> = closing "closed"
        task.sleep(10)
        say "never"
      end)
      world:turn()
      assert.is_true(t:cancel())
      assert.is_false(t:cancel())
      world:run(20)
      assert.same({ "closed" }, said)
      assert.equal("cancelled", t:status())
      assert.equal(0, scope:count())
      assert.same({}, incidents())
    end)

    it("before it ran is the end of it", function ()
      local t = spawn(function () say "never" end)
      t:cancel()
      world:turn()
      assert.same({}, said)
    end)

    it("makes an error of a to-be-closed variable an incident at the task's site", function ()
      local t = spawn(function ()
        local _ <close> = setmetatable({}, { __close = function () error "closing failed" end })
        task.sleep(10)
      end)
      world:turn()
      t:cancel()
      assert.equal("spec.task", incidents()[1].site)
      assert.equal("closing failed", incidents()[1].message)
    end)

    it("names an attempt to wait while closing", function ()
      local t = spawn(function ()
        local _ <close> = setmetatable({}, { __close = function () task.sleep(1) end })
        task.sleep(10)
      end)
      world:turn()
      t:cancel()
      assert.truthy(incidents()[1].message:find "only a task can wait")
    end)

    it("of oneself ends at the next wait", function ()
      local t
      t = spawn(function ()
        local _ <close> = closing "closed"
        t:cancel()
        say "still here"
        task.sleep(1)
        say "never"
      end)
      world:run(10)
      assert.same({ "still here", "closed" }, said)
      assert.equal("cancelled", t:status())
      assert.equal(0, task.counts().sleepers)
    end)

    it("of a scope ends its tasks and its child scopes, youngest first, twice without harm", function ()
      local child = task.scope("child", scope)
      for i = 1, 2 do
        spawn(function () local _ <close> = closing("task " .. i) task.sleep(100) end)
        child:spawn("spec.task", {}, function () local _ <close> = closing("child " .. i) task.sleep(100) end)
      end
      world:turn()
      assert.equal(4, scope:count())
      scope:close()
      scope:close()
      assert.same({ "child 2", "child 1", "task 2", "task 1" }, said)
      assert.equal(0, scope:count())
      assert.equal("CLOSED", (select(3, child:spawn("spec.task", {}, say))))
      assert.equal("CLOSED", (select(3, task.scope("late", scope):spawn("spec.task", {}, say))))
    end)

    it("of a scope from one of its own tasks is safe", function ()
      spawn(function ()
        local _ <close> = closing "self closed"
        scope:close()
        say "after close"
        task.sleep(1)
        say "never"
      end)
      spawn(function () local _ <close> = closing "other closed" task.sleep(100) end)
      world:run(200)
      assert.same({ "after close", "self closed" }, said) -- The other had not begun.
      assert.equal(0, scope:count())
    end)

    it("is safe from closing code that closes the scope again, cancels others and spawns", function ()
      local other
      spawn(function ()
        local _ <close> = setmetatable({}, { __close = function ()
          say "first"
          scope:close()
          other:cancel()
          local t, _, code = scope:spawn("spec.task", {}, say)
          say(tostring(t) .. code)
        end })
        task.sleep(100)
      end)
      other = spawn(function () local _ <close> = closing "second" task.sleep(100) end)
      world:turn()
      scope:close()
      assert.same({ "second", "first", "nilCLOSED" }, said)
    end)

    it("leaves what it waited for: a future set later wakes nobody", function ()
      local f = task.future "f"
      local waiting = {}
      for i = 1, 3 do waiting[i] = spawn(function () say(i .. f:await()) end) end
      world:turn()
      waiting[1]:cancel()
      f:set "!"
      world:turn()
      assert.same({ "2!", "3!" }, said)
    end)

    it("D12: 8,000 waits that timed out beside two that stay leave nothing, in time that grows with their number", function ()
      local function steps(rounds)
        local f, count = task.future "f", 0
        local stay = { spawn(function () say("first " .. f:await()) end), spawn(function () say("second " .. f:await()) end) }
        world:turn()
        for _ = 1, rounds // 8 do
          for _ = 1, 8 do spawn(function () f:await(1) end) end
          world:turn()
          debug.sethook(function () count = count + 1 end, "", 100) -- Counts code outside of tasks: the timer's callbacks.
          world:run(1)
          debug.sethook()
        end
        local slots = 0
        for _, value in pairs(f) do slots = slots + (type(value) == "table" and value ~= f.scope and value ~= f.waiter and 1 or 0) end
        assert.equal(1, slots) -- The last of the list.
        assert.equal(stay[1], f.waiter)
        assert.equal(stay[2], f.waiter_last)
        assert.same({ 2, 0 }, { scope:count(), task.counts().sleepers })
        spawn(function () say("third " .. f:await()) end)
        world:turn()
        f:set "x"
        world:turn()
        return count
      end
      local few, many = steps(2000), steps(8000)
      assert.same({ "first x", "second x", "third x", "first x", "second x", "third x" }, said)
      assert.is_true(many < 4.4 * few, ("%d steps for 2,000, %d for 8,000"):format(few, many))
    end)

    it("in the middle, at the front and at the end of those who wait keeps the order of the others", function ()
      local f, waiting = task.future "f", {}
      for i = 1, 6 do waiting[i] = spawn(function () say(i .. f:await()) end) end
      world:turn()
      for _, i in ipairs { 3, 1, 6 } do waiting[i]:cancel() end
      waiting[7] = spawn(function () say(7 .. f:await()) end)
      world:turn()
      waiting[4]:cancel()
      f:set "!"
      world:turn()
      assert.same({ "2!", "5!", "7!" }, said)
      assert.is_false(f.waiter)
      assert.is_nil(f.waiter_last)
    end)

    it("works on a to-be-closed scope", function ()
      spawn(function ()
        do
          local inner <close> = task.scope "inner"
          inner:spawn("spec.task", {}, function () local _ <close> = closing "ended" task.sleep(1000) end)
          task.sleep(1)
        end
        say "out"
      end)
      world:run(2)
      assert.same({ "ended", "out" }, said)
    end)
  end)

  describe("a future", function ()
    it("gives what was set, before and after, and the first wins", function ()
      local f = task.future "f"
      spawn(function () say(table.pack(f:await())) end)
      world:turn()
      assert.is_true(f:set("a", nil, "c", "d"))
      assert.is_false(f:set "b")
      assert.is_false(f:fail "late")
      world:turn()
      spawn(function () say(table.pack(f:await())) end)
      world:turn()
      local want = { "a", nil, "c", "d", n = 4 }
      assert.same({ want, want }, said)
      assert.same({}, incidents())
    end)

    it("that fails gives nil, message and code", function ()
      local f = task.future "f"
      spawn(function () say(table.pack(f:await())) end)
      world:turn()
      f:fail("refused", "REFUSED")
      world:turn()
      assert.same({ { nil, "refused", "REFUSED", n = 3 } }, said)
      assert.same({}, incidents())
    end)

    it("times out at its time; what comes at that instant still counts; a later value stays for the next", function ()
      local f = task.future "the answer"
      spawn(function () say(table.pack(f:await(10))) say((f:await())) end)
      world:run(9.999)
      assert.same({}, said)
      world:run(0.001)
      assert.same({ { nil, "the answer: nothing came within 10 ms", "TIMEOUT", n = 3 } }, said)
      f:set "late"
      world:turn()
      assert.equal("late", said[2])
    end)

    it("is continued with take, isolated, after the event", function ()
      local f, g = task.future "f", task.future "g"
      f:take(function (v) say(v) end)
      g:take(function (_, err, code) say(err .. code) error "in take" end)
      f:set(1)
      g:fail("e", "C")
      assert.same({}, said)
      world:turn()
      assert.same({ 1, "eC" }, said)
      assert.equal("task.take", incidents()[1].site)
      assert.equal("g", incidents()[1].ids.future)
      assert.equal(1, #incidents())
      local h = task.future "h"
      h:set "already"
      h:take(say)
      world:turn()
      assert.equal("already", said[3])
      assert.error_matches(function () h:take(say) h:take(say) end, "was taken already")
    end)

    it("taken by a function that waits is an incident that says to spawn a task", function ()
      local f = task.future "f"
      f:take(function () task.sleep(1) end)
      f:set(1)
      world:turn()
      assert.truthy(incidents()[1].message:find "spawn a task")
    end)

    it("settled from a callback wakes its waiter before settle returns", function ()
      local f, g = task.future "f", task.future "g"
      spawn(function () say((f:await())) say((select(3, g:await()))) end)
      world:turn()
      f:settle "now"
      assert.same({ "now" }, said)
      g:settle(nil, "e", "CODE")
      assert.same({ "now", "CODE" }, said)
    end)

    it("F69: that failed and nobody took is an incident at the end of its scope", function ()
      local inner = task.scope("inner", scope)
      local futures = {}
      inner:spawn("spec.task", {}, function ()
        for i = 1, 3 do futures[i] = task.future("send " .. i) end
        futures[1]:fail("not sent", "FULL")
        futures[2]:fail("dropped", "X")
        futures[2]:drop "the peer is gone anyway"
        futures[3]:set "fine"
      end)
      world:turn()
      assert.same({}, incidents())
      inner:close()
      assert.equal(1, #incidents "future.untaken")
      local one = incidents()[1]
      assert.same({ "send 1", "FULL", "inner", "not sent", "FULL" },
        { one.ids.future, one.ids.code, one.ids.scope, one.message, one.code })
      local late = task.future("late", inner)
      late:fail("after the end", "LATE")
      assert.equal(2, #incidents "future.untaken")
    end)

    it("F69: that failed and was collected is an incident at the next turn", function ()
      local f = task.future "lost"
      f:fail("nobody looks", "LOST")
      f = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      spawn(function () end)
      world:turn()
      assert.equal(1, #incidents "future.untaken")
      assert.equal("lost", incidents()[1].ids.future)
    end)

    it("that was awaited too early must be taken again", function ()
      spawn(function ()
        local f = task.future "f"
        say((select(3, f:await(1))))
        f:fail("late failure", "LATE")
      end)
      world:run(2)
      scope:close()
      collectgarbage()
      collectgarbage()
      task.scope("x"):spawn("spec.task", {}, function () end)
      world:turn()
      assert.equal(1, #incidents "future.untaken")
    end)

    it("dropped without a reason raises", function ()
      assert.error_matches(function () task.future("f"):drop() end, "say why")
    end)
  end)

  describe("a channel", function ()
    it("keeps order, says FULL at its capacity, and takes again after a pop", function ()
      local c = task.channel(3)
      for i = 1, 3 do assert(c:push(i)) end
      local ok, err, code = c:push(4)
      assert.is_nil(ok)
      assert.equal("the channel holds its 3 values", err)
      assert.equal("FULL", code)
      spawn(function () for _ = 1, 2 do say((c:pop())) end end)
      world:turn()
      assert(c:push(4))
      spawn(function () for _ = 1, 2 do say((c:pop())) end end)
      world:turn()
      assert.same({ 1, 2, 3, 4 }, said)
    end)

    it("serves who waits in order; one that is cancelled in between loses nothing", function ()
      local c = task.channel(10)
      local tasks = {}
      for i = 1, 4 do tasks[i] = spawn(function () local v = c:pop() say(i .. v) end) end
      world:turn()
      assert(c:push "a")
      assert(c:push "b")
      tasks[1]:cancel() -- Woken for "a", and ended before it ran.
      world:turn()
      assert.same({ "2a", "3b" }, { said[1], said[2] })
      assert(c:push "c")
      world:turn()
      assert.equal("4c", said[3])
    end)

    it("closed: what is in it can be popped, then CLOSED; who waits is told", function ()
      local c = task.channel(2)
      assert(c:push "last")
      c:close()
      assert.equal("CLOSED", (select(3, c:push "x")))
      spawn(function () say((c:pop())) say((select(3, c:pop()))) end)
      local d = task.channel(1)
      spawn(function () say((select(3, d:pop()))) end)
      world:turn()
      d:close()
      world:turn()
      assert.same({ "last", "CLOSED", "CLOSED" }, said)
    end)

    it("pops with a timeout that is not lengthened by others taking its value", function ()
      local c = task.channel(1)
      spawn(function () say((select(3, c:pop(10))) .. task.now_ms()) end)
      world:turn()
      world:run(5)
      assert(c:push "x")
      local stolen
      -- The woken one has not run yet; another takes the value first.
      stolen = c[c.head + 1]
      c[c.head + 1], c.count = nil, 0
      world:run(10)
      assert.equal("x", stolen)
      assert.same({ "TIMEOUT5010.0" }, said)
    end)

    it("refuses nil and a capacity of 0", function ()
      assert.error_matches(function () task.channel(1):push(nil) end, "nil cannot be pushed")
      assert.error_matches(function () task.channel(0) end, "capacity of at least 1")
    end)
  end)

  describe("a loop", function ()
    it("runs at once and then every interval", function ()
      scope:loop("spec.loop", {}, { interval_ms = 100 }, function (cycle) say(cycle) end)
      world:run(350)
      assert.same({ 1, 2, 3, 4 }, said)
      scope:close()
      world:run(1000)
      assert.equal(4, #said)
    end)

    it("F69: a kept task begins again after each failure, with its arguments, until it returns", function ()
      local n, got = 0, nil
      local t = scope:keep("spec.a", nil, function (word)
        n = n + 1
        if n < 3 then error "not yet" end
        got = word
        return "done"
      end, "word")
      world:run(1000)
      assert.same({ 3, "word", "done" }, { n, got, t:status() })
      assert.equal(2, errors.count("spec.a").raised)
      local ended = task.scope "ended"
      ended:keep("spec.b", nil, error, "each time")
      world:run(150)
      ended:close()
      local raised = errors.count("spec.b").raised
      world:run(10000)
      assert.equal(raised, errors.count("spec.b").raised)
    end)

    it("F69: never dies: each failure is an incident, then a backoff that doubles with +-20 %, and falls again", function ()
      local failing = true
      scope:loop("spec.loop", { loop = "sweep" }, { interval_ms = 10, backoff_ms = { first = 100, max = 400 } },
        function ()
          say(task.now_ms())
          if failing then error "sweep failed" end
        end)
      world:run(2000)
      local function gap(i) return said[i + 1] - said[i] end
      for i, base in ipairs { 100, 200, 400, 400 } do
        assert.is_true(gap(i) >= base * 0.8 and gap(i) <= base * 1.2, "gap " .. i .. " is " .. gap(i))
      end
      local first = incidents()[1]
      assert.same({ "sweep", 1, 1 }, { first.ids.loop, first.ids.cycle, first.ids.consecutive })
      assert.is_true(first.ids.next_delay_ms >= 80 and first.ids.next_delay_ms <= 120)
      assert.equal(2, incidents()[2].ids.consecutive)
      failing = false
      world:run(1000)
      assert.equal(10, gap(#said - 1))
      failing = true
      local before = #incidents()
      world:run(15)
      assert.is_true(errors.count("spec.loop").raised > before)
      assert.equal(#said - 1 > 0 and 1, 1)
    end)

    it("starts its backoff anew after one success", function ()
      local n = 0
      local consecutive = {}
      errors.listen(function (incident) consecutive[#consecutive + 1] = incident.ids.consecutive end)
      scope:loop("spec.loop", { loop = "x" }, { interval_ms = 10, backoff_ms = { first = 10, max = 80 } }, function ()
        n = n + 1
        if n % 3 ~= 0 then error "two of three" end
      end)
      world:run(60000 - 1)
      assert.same({ 1, 2, 1, 2 }, { table.unpack(consecutive, 1, 4) })
    end)

    it("may wait inside, and takes its interval from a function; a bad one is a failure, not the end", function ()
      local interval = 50
      scope:loop("spec.loop", {}, { interval_ms = function () return interval end, backoff_ms = { first = 10, max = 10 } },
        function () task.sleep(5) say(task.now_ms() - 5000) end)
      world:run(60)
      assert.same({ 5.0, 60.0 }, said)
      interval = "soon"
      world:run(100)
      assert.equal("spec.loop", incidents()[1].site)
      assert.truthy(incidents()[1].message:find "milliseconds")
      assert.is_true(#said > 4)
    end)

    it("whose ids fail goes on all the same", function ()
      scope:loop("spec.loop", function () error "no ids" end, { interval_ms = 10, backoff_ms = { first = 10, max = 10 } },
        function () say(1) error "loop failed" end)
      world:run(100)
      assert.is_true(#said > 5)
      assert.is_true(#incidents "errors.ids" > 0)
      assert.is_true(#incidents "spec.loop" > 0)
    end)
  end)

  it("L6: 30,000 tasks (120,000 with SHOAL_LONG=1) and eight waits each leave nothing behind", function ()
    local function round(n)
      for _ = 1, n do
        spawn(function ()
          local f = task.future "f"
          spawn(function () f:set(1) end)
          f:await(1000)
          for _ = 1, 6 do task.sleep(1) end
        end)
      end
      world:run(20)
    end
    round(1000)
    collectgarbage()
    collectgarbage()
    local before = collectgarbage "count"
    for _ = 1, (os.getenv "SHOAL_LONG" and 60 or 15) do round(2000) end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage "count" < before + 64, "grew by " .. collectgarbage "count" - before .. " KB")
    assert.same({ tasks = 0, sleepers = 0, ready = 0, scopes = 1 }, task.counts())
  end)

  it("is the same run each time", function ()
    local function run()
      task.reset()
      world = fake_world.new { seed = 7 }
      task.start(world)
      scope = task.scope "again"
      said = {}
      for i = 1, 20 do
        spawn(function ()
          for k = 1, 10 do
            task.sleep(world:random(20))
            say(i .. ":" .. k .. "@" .. task.now_ms())
          end
        end)
      end
      world:run(1000)
      return table.concat(said, " ")
    end
    assert.equal(run(), run())
  end)
end)
