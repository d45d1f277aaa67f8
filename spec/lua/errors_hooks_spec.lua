local fake_world = require "spec.support.fake_world"
local errors = require "shoal.errors"
local log = require "shoal.log"
local cjson = require "cjson"

describe("errors: hooks and must-deliver", function ()
  local world, lines

  local function start(options)
    world = fake_world.new(options)
    errors.reset()
    log.reset()
    lines = {}
    assert(log.open(world, function (text) lines[#lines + 1] = cjson.decode(text) end))
    errors.start(world, "node")
    errors.site { name = "spec.part", level = "warning", ids = { "job", "workflow", "part", "attempt" } }
    errors.site { name = "spec.expired", delivery = "must_deliver", hook = { args = { "key", "holder", "fence" } },
      ids = { "job", "key", "holder", "node", "fence", "expired_ms", "duration_ms", "remaining" } }
    errors.site { name = "spec.needed", ids = { "key" }, delivery = "must_deliver",
      hook = { args = { "key", "holder", "fence" }, required = true, roles = { "gate", "manager" } } }
  end
  local function logged(event)
    local out = {}
    for _, each in ipairs(lines) do
      if each.event == (event or "incident") then out[#out + 1] = each end
    end
    return out
  end
  --- The counts without the zeros: "2 = 1 + 1 + 0".
  local function counts(site)
    local c = errors.count(site)
    return string.format("%d = %d + %d + %d", c.raised, c.reported, c.suppressed, c.handled)
  end
  before_each(start)
  after_each(function ()
    assert(errors.balance())
    errors.reset()
    log.reset()
    assert.equal(0, world.open, "a timer stayed open")
  end)
  describe("must-deliver", function ()
    local tries
    local function failing(times)
      tries = {}
      return function ()
        tries[#tries + 1] = (world:now_ns() - 5000000000) // 1000000
        if #tries <= times then error("try " .. #tries) end
      end
    end

    it("F09: retries after 0.5, 1, 2, 4, 8 s until accepted", function ()
      assert.is_false(errors.deliver("spec.expired", { key = "k", fence = 7 }, "k/7", failing(3)))
      world:run(60000)
      assert.same({ 0, 500, 1500, 3500 }, tries)
      assert.equal("3 = 3 + 0 + 0", counts "spec.expired")
      local first = errors.incidents()[1]
      assert.same({ "k", 7, 1, 500, "k/7" },
        { first.ids.key, first.ids.fence, first.ids.attempt, first.ids.next_retry_ms, first.ids.delivery })
    end)

    it("delivers at once when nothing fails", function ()
      assert.is_true(errors.deliver("spec.expired", {}, "k", failing(0)))
      world:run(60000)
      assert.same({ 0 }, tries)
    end)

    it("escalates after the last try: a critical incident that says so", function ()
      errors.deliver("spec.expired", {}, "k", failing(99))
      world:run(60000)
      assert.same({ 0, 500, 1500, 3500, 7500, 15500 }, tries)
      local last = errors.incidents()[#errors.incidents()]
      assert.equal("critical", last.level)
      assert.is_true(last.escalated)
      assert.is_true(logged()[#logged()].escalated)
    end)

    it("is withdrawn by its key, and replaced by the same key", function ()
      errors.deliver("spec.expired", {}, "a", failing(99))
      assert.equal(1, errors.withdraw("spec.expired", "a"))
      assert.equal(0, errors.withdraw("spec.expired", "a"))
      world:run(60000)
      assert.same({ 0 }, tries)
      local old = 0
      errors.deliver("spec.expired", {}, "b", function () old = old + 1 error "old" end)
      assert.is_true(errors.deliver("spec.expired", {}, "b", function () end))
      world:run(60000)
      assert.equal(1, old)
    end)

    it("can be withdrawn, and replaced, from within itself", function ()
      errors.deliver("spec.expired", {}, "k", function ()
        errors.withdraw("spec.expired", "k")
        error "and fails"
      end)
      world:run(60000)
      assert.equal("1 = 1 + 0 + 0", counts "spec.expired")
      local inner = 0
      errors.deliver("spec.expired", {}, "k", function ()
        errors.deliver("spec.expired", {}, "k", function () inner = inner + 1 if inner < 3 then error "inner" end end)
        error "outer"
      end)
      world:run(60000)
      assert.equal(3, inner)
    end)

    it("not accepted by the end is a critical incident", function ()
      errors.deliver("spec.expired", {}, "k", failing(99))
      assert(errors.finish())
      assert.equal("1 = 1 + 0 + 0", counts "errors.undelivered")
      assert.equal("k", errors.incidents()[2].ids.key)
    end)

    it("that tries to wait is a failure that says to spawn a task", function ()
      errors.deliver("spec.expired", {}, "k", function () coroutine.yield() end)
      assert.truthy(errors.incidents()[1].hint:find "spawn a task")
      errors.withdraw("spec.expired", "k")
    end)
  end)

  describe("hooks", function ()
    local hooks, said
    before_each(function ()
      errors.site { name = "spec.event", ids = { "event" }, hook = { args = { "event", "count" } } }
      errors.site { name = "spec.other", hook = { arity = 0 } }
      hooks, said = errors.hooks(), {}
    end)
    local function say(words) said[#said + 1] = words end

    it("L5: refuse an unknown name, with a hint, and list what there is", function ()
      assert.error_matches(function () hooks:wire("swim.partitoin", function () end) end,
        "no hook is named swim.partitoin, did you mean swim.partition%?; there are: .*swim.member")
      assert.error_matches(function () hooks:wire("spec.run", function () end) end, "no hook is named spec.run")
      assert.error_matches(function () hooks:wire(nil, function () end) end, "no hook is named nil")
      assert.error_matches(function () errors.hooks { "spec.run" } end, "spec.run is a site without a hook")
      assert.error_matches(function () errors.hooks { "spec.evnt" } end, "spec.evnt")
      assert.error_matches(function () errors.hooks { "spec.other" }:wire("spec.event", function () end) end,
        "no hook is named spec.event")
    end)

    it("L5: refuse a wrong arity by name; a vararg fits", function ()
      assert.error_matches(function () hooks:wire("spec.event", function (_) end) end,
        "spec.event: the function at spec/lua/errors_hooks_spec.lua:%d+ takes 1 argument, but the site gives 2: "
        .. "function %(event, count%)")
      assert.error_matches(function () hooks:wire("spec.event", function (_, _, _) end) end, "takes 3 arguments")
      assert.error_matches(function () hooks:wire("spec.event", 5) end, "expected a function, found number")
      hooks:wire("spec.event", function (_, _) end)
      hooks:wire("spec.event", function (...) return ... end)
      hooks:wire("spec.event", print)
      hooks:wire("spec.other", function () end)
    end)

    it("L5: name each required one that a role lacks", function ()
      hooks = errors.hooks { "detector.global_death", "spec.needed", "swim.partition" }
      local ok, err, code = hooks:check "manager"
      assert.is_nil(ok)
      assert.equal("a manager must wire: detector.global_death (function (node, incarnation)), "
        .. "spec.needed (function (key, holder, fence))", err)
      assert.equal("CONFIG", code)
      hooks:wire("detector.global_death", function (_, _) end)
      hooks:wire("spec.needed", function (_, _, _) end)
      assert.is_true(hooks:check "manager")
      assert.is_true(errors.hooks({ "spec.needed" }):check "worker")
    end)

    it("F15: run isolated from each other, each failure with the hook's name and index", function ()
      hooks:wire("spec.event", function (event, count) say(event .. count) end)
      hooks:wire("spec.event", function (_, _) error "second fails" end, "the second")
      hooks:wire("spec.event", function (_, _) say "third" end)
      assert.same({ 2, 1 }, { hooks:fire("spec.event", { event = "e" }, "x", 2) })
      assert.same({ "x2", "third" }, said)
      local one = errors.incidents()[1]
      assert.same({ "e", "the second", 2, "spec.event" }, { one.ids.event, one.ids.hook, one.ids.hook_index, one.site })
      assert.equal(1, #errors.incidents())
    end)

    it("L4: one that unwires itself or another, or wires another, or fires again, is safe", function ()
      local first, third
      first = hooks:wire("spec.event", function (_, _)
        say "first"
        assert.is_true(hooks:unwire(first))
        assert.is_false(hooks:unwire(first))
        hooks:unwire(third)
        hooks:wire("spec.event", function (_, _) say "wired later" end)
      end)
      hooks:wire("spec.event", function (event, _)
        say "second"
        if event == "outer" then hooks:fire("spec.event", {}, "inner", 0) end
      end)
      third = hooks:wire("spec.event", function (_, _) say "third" end)
      hooks:fire("spec.event", {}, "outer", 0)
      assert.same({ "first", "second", "second", "wired later" }, said)
      assert.same({}, errors.incidents())
    end)

    it("F78: one that fires itself for ever ends as an incident, not as a crash", function ()
      hooks:wire("spec.other", function () hooks:fire("spec.other", {}) end)
      hooks:fire("spec.other", {})
      assert.is_true(errors.count("spec.other").raised >= 1)
      assert(errors.balance())
    end)

    it("L2: one that tries to wait is an incident that says to spawn a task, in a coroutine too", function ()
      hooks:wire("spec.other", function () coroutine.yield() say "never" end)
      hooks:fire("spec.other", {})
      local co = coroutine.create(function () hooks:fire("spec.other", {}) say "went on" end)
      assert.equal("done", (errors.resume("spec.a", nil, co)))
      assert.same({ "went on" }, said)
      assert.equal(2, #errors.incidents())
      assert.truthy(errors.incidents()[2].hint:find "spawn a task")
      assert.truthy(errors.incidents()[2].where:find "errors_hooks_spec.lua:%d+")
    end)

    it("F09: on a must-deliver site run until accepted, each for itself, until withdrawn", function ()
      local a, b = 0, 0
      hooks:wire("detector.global_death", function (node, incarnation)
        a = a + 1
        assert.same({ "w1", 3 }, { node, incarnation })
        if a < 3 then error "not yet" end
      end)
      hooks:wire("detector.global_death", function (_, _) b = b + 1 end)
      hooks:deliver("detector.global_death", { node = "w1" }, "w1/3", "w1", 3)
      assert.same({ 1, 1 }, { a, b })
      world:run(60000)
      assert.same({ 3, 1 }, { a, b })
      a = -100
      hooks:deliver("detector.global_death", { node = "w1" }, "w1/3", "w1", 3)
      world:run(700)
      assert.equal(-98, a)
      assert.equal(1, errors.withdraw("detector.global_death", "w1/3"))
      world:run(60000)
      assert.equal(-98, a)
      a = 0
      hooks:fire("detector.global_death", { node = "w1", incarnation = 3 }, "w1", 3)
      world:run(60000)
      assert.equal(3, a)
      assert.error_matches(function () hooks:deliver("spec.other", {}, "k") end, "no must%-deliver site")
    end)

    it("unwired while its delivery is outstanding is not called again", function ()
      local n = 0
      local handle = hooks:wire("detector.global_death", function (_, _) n = n + 1 error "no" end)
      hooks:deliver("detector.global_death", {}, "k", "w1", 1)
      hooks:unwire(handle)
      world:run(60000)
      assert.equal(1, n)
    end)
  end)

  it("what is put off comes in the order of its time, and among equals in that in which it was put off", function ()
    local agenda, came = require "shoal.base.errors.agenda", {}
    local a = agenda.new(world, function (entry) came[#came + 1] = entry.name end)
    local at = world:now_ns()
    for name, ms in pairs { late = 30, early = 10 } do a:add({ name = name }, at + ms * 1000000) end -- order-free: that is the point
    for _, name in ipairs { "one", "two" } do a:add({ name = name }, at + 20000000) end
    world:run(9)
    assert.same({}, came)
    world:run(1)
    assert.same({ "early" }, came)
    world:run(20)
    assert.same({ "early", "one", "two", "late" }, came)
    a:close()
  end)
end)
