local fake_world = require "spec.support.fake_world"
local errors = require "shoal.errors"
local log = require "shoal.log"
local sites = require "shoal.base.sites"
local uncollected = require "spec.support.uncollected"
local cjson = require "cjson"

describe("errors", function ()
  local world, lines

  local function start(options)
    world = fake_world.new(options)
    errors.reset()
    log.reset()
    lines = {}
    assert(log.open(world, function (text) lines[#lines + 1] = cjson.decode(text) end))
    errors.start(world, "node")
    errors.site { name = "spec.part", level = "warning", ids = { "job", "workflow", "part", "attempt" } }
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
  local function policy(text)
    world.files["errors.lua"] = text
    return errors.load_policy "errors.lua"
  end

  before_each(start)
  after_each(function ()
    assert(errors.balance())
    errors.reset()
    log.reset()
    assert.equal(0, world.open, "a timer stayed open")
  end)

  describe("the catalogue", function ()
    it("F69: holds the sites that the mission names, as far as something raises at them, each with its ids", function ()
      local by_name = {}
      for _, site in ipairs(sites) do by_name[site.name] = site end
      for name, ids in pairs { -- order-free: each is checked by itself
        ["worker.progress.send"] = { "job", "workflow", "part", "manager", "address", "attempt", "consecutive", "status",
          "counts", "backpressure", "put_back" },
        ["worker.progress.flush_loop"] = { "consecutive", "next_delay_ms" },
        ["worker.progress.ack"] = { "workflow", "job", "manager", "payload_bytes", "first_byte", "class" },
        ["client.push.job_status"] = { "handler", "sender", "payload_bytes", "job", "workflow", "sequence", "stage" },
        ["client.push.stats"] = { "handler", "sender", "payload_bytes", "job", "workflow", "sequence", "stage" },
        ["client.push.result"] = { "handler", "sender", "payload_bytes", "job", "workflow", "sequence", "stage" },
        ["client.callback.*"] = { "handler", "job" },
        ["detector.global_death"] = { "node", "job", "incarnation", "suspicion_age_ms", "confirmations" },
      } do
        local site = assert(by_name[name], name .. " is missing")
        local has = {}
        for _, id in ipairs(site.ids) do has[id] = true end
        for _, id in ipairs(ids) do assert(has[id], name .. " carries no " .. id) end
      end
      assert.equal("must_deliver", by_name["detector.global_death"].delivery)
      assert.equal("debug", by_name["worker.progress.ack"].level)
    end)

    it("refuses wrong declarations, by name", function ()
      local function refused(site, words) assert.error_matches(function () errors.site(site) end, words) end
      refused({ name = "spec" }, "spec: name must be words joined by dots")
      refused({ name = "rpc.handler" }, "rpc.handler: it is declared already")
      refused({ name = "spec.a", role = "boss" }, "spec.a: role must be")
      refused({ name = "spec.a", level = "silent" }, "spec.a: level must be")
      refused({ name = "spec.a", delivery = "maybe" }, "spec.a: delivery must be")
      refused({ name = "spec.a", hook = {} }, "spec.a: hook must have")
      errors.site { name = "spec.a", ids = { "x" }, hook = { arity = 2 } }
      assert.is_true(errors.is_site "spec.a")
    end)

    it("makes the members of a family on first use, each with its own counts, up to a bound", function ()
      errors.report("client.callback.on_done", {}, "a")
      errors.report("client.callback.on_stats", {}, "b")
      assert.equal("1 = 1 + 0 + 0", counts "client.callback.on_done")
      for i = 1, 300 do errors.report("client.callback.n" .. i, {}, "c") end
      assert.equal(256, (function ()
        local n = 0
        for _, name in ipairs(errors.names()) do if name:find "^client%.callback%.[^*]" then n = n + 1 end end
        return n
      end)())
      assert.equal(46, errors.count("client.callback.*").raised)
    end)

    it("takes no family's member that is a declared site misspelt", function ()
      assert.is_true(errors.is_site "rpc.something_new")
      assert.is_false(errors.is_site "rpc.handlr")
      assert.error_matches(function () errors.call("rpc.hander", {}, print) end, "did you mean rpc.handler%?")
    end)

    it("refuses calls at an unknown site, with a hint, before the function runs", function ()
      local ran = false
      assert.error_matches(function () errors.call("worker.progres.send", {}, function () ran = true end) end,
        "no site is named worker.progres.send, did you mean worker.progress.send%?")
      assert.is_false(ran)
      assert.error_matches(function () errors.handle(nil, {}, print) end, "no site is named nil")
    end)
  end)

  describe("call", function ()
    it("gives the results through, nils included", function ()
      local got = table.pack(errors.call("spec.a", nil, function (...) return ... end, 1, nil, 3, nil))
      assert.same({ true, 1, nil, 3, nil, n = 5 }, got)
    end)

    it("F69: makes of one failure one incident, with its ids, place, trace, clocks and node", function ()
      world:run(1234)
      local line = debug.getinfo(1, "l").currentline + 1
      local ok, incident = errors.call("spec.part", { job = "j1", target = "w1" }, function () error "boom" end)
      assert.is_nil(ok)
      assert.equal("node-1", incident.id)
      assert.equal("spec.part", incident.site)
      assert.equal("warning", incident.level)
      assert.equal("boom", incident.message)
      assert.equal("spec/lua/errors_spec.lua:" .. line, incident.where)
      assert.truthy(incident.traceback:find("errors_spec.lua:" .. line, 1, true))
      assert.equal("j1", incident.ids.job)
      assert.equal(world:now_ns(), incident.at_ns)
      assert.equal(world:wall_ns(), incident.wall_ns)
      assert.equal("node", incident.node)
      assert.equal(1, incident.count)
      assert.equal("1 = 1 + 0 + 0", counts "spec.part")
      assert.equal(1, #logged())
      assert.equal("j1", logged()[1].ids.job)
    end)

    it("F69: shows a missing declared id as ?, names it and counts it", function ()
      local _, incident = errors.call("spec.part", { job = "j1", workflow = "w", more = 7 }, error, "x")
      assert.same({ "part", "attempt" }, incident.missing)
      assert.equal("?", incident.ids.part)
      assert.equal(7, incident.ids.more)
      assert.equal(1, errors.count("spec.part").missing_ids)
    end)

    it("reads the ids when it fails, and copies them", function ()
      local ids = { job = "before", datacenters = { "a" } }
      local _, incident = errors.call("spec.a", ids, function () ids.job = "at failure" error "x" end)
      ids.job, ids.datacenters[1] = "later", "changed"
      assert.equal("at failure", incident.ids.job)
      assert.same({ "a" }, incident.ids.datacenters)
      _, incident = errors.call("spec.a", function () return { job = "told" } end, error, "x")
      assert.equal("told", incident.ids.job)
    end)

    it("keeps an error value of any kind, and finds words without addresses for it", function ()
      local function raised(value)
        local _, incident = errors.call("spec.a", nil, function () error(value) end)
        return incident
      end
      local t = { code = 7, list = { 1, 2 } }
      assert.equal(t, raised(t).error)
      assert.equal('{"code":7,"list":[1,2]}', raised(t).message)
      assert.equal("its words", raised(setmetatable({}, { __tostring = function () return "its words" end })).message)
      assert.equal("{}", raised(setmetatable({}, { __tostring = function () error "in tostring" end })).message)
      assert.equal("a field", raised({ message = "a field" }).message)
      assert.is_nil(raised(nil).error)
      assert.equal("nil: an error without a value", raised(nil).message)
      assert.equal(io.stdout, raised(io.stdout).error)
      assert.equal("42", raised(42).message)
      assert.equal("false", raised(false).message)
      assert.equal("(function)", raised(print).message)
      assert.equal("(thread)", raised(coroutine.create(print)).message)
      for _, each in ipairs(logged()) do assert.is_nil(each.message:find "0x") end
      local co = coroutine.create(function () error(nil) end)
      local outcome, incident = errors.resume("spec.a", nil, co)
      assert.equal("failed", outcome)
      assert.is_nil(incident.error)
    end)

    it("survives a stack overflow, running out of memory, and a failing message handler", function ()
      local _ <close> = uncollected()
      local function deep() return 1 + deep() end
      local _, incident = errors.call("spec.a", nil, deep)
      assert.truthy(incident.message:find "stack overflow")
      _, incident = errors.call("spec.b", nil, function () return ("x"):rep(1 << 40) end)
      assert.truthy(incident.message:find "not enough memory" or incident.message:find "too large")
      errors.call("spec.c", nil, function () local function f() errors.call("spec.d", nil, f) error "unwinding" end f() end)
      assert(errors.balance())
    end)

    it("tells an incident that is raised again only once", function ()
      local _, outer = errors.call("spec.outer", nil, function ()
        local _, inner = errors.call("spec.inner", nil, error, "once")
        error(inner)
      end)
      assert.equal("spec.inner", outer.site)
      assert.equal(1, #logged())
      assert.equal("1 = 0 + 0 + 1", counts "spec.outer")
      assert.equal("1 = 1 + 0 + 0", counts "spec.inner")
    end)

    it("lets the function wait when the caller may", function ()
      local co = coroutine.create(function ()
        return errors.call("spec.a", nil, function () return coroutine.yield "waiting" end)
      end)
      assert.same({ "suspended", "waiting" }, { errors.resume("spec.b", nil, co) })
      assert.same({ "done", true, "answer" }, { errors.resume("spec.b", nil, co, "answer") })
    end)
  end)

  it("handle counts raised and handled, and tells nobody", function ()
    assert.same({ true, 5 }, { errors.handle("spec.a", nil, function () return 5 end) })
    local t = {}
    local ok, err = errors.handle("spec.a", nil, error, t)
    assert.is_false(ok)
    assert.equal(t, err)
    assert.same({}, lines)
    assert.equal("1 = 0 + 0 + 1", counts "spec.a")
  end)

  it("report tells a failure that is a value, with its code and the caller's place", function ()
    local line = debug.getinfo(1, "l").currentline + 1
    local incident = errors.report("worker.progress.send", { job = "j" }, "queue is full", "FULL")
    assert.same({ "queue is full", "FULL", "spec/lua/errors_spec.lua:" .. line, "warning" },
      { incident.message, incident.code, incident.where, incident.level })
    assert.is_nil(incident.traceback)
  end)

  it("report at a name outside the catalogue tells both: the failure, and the mistake", function ()
    errors.report("worker.progress.sned", {}, "lost?")
    assert.equal("1 = 1 + 0 + 0", counts "worker.progress.sned")
    assert.equal("1 = 1 + 0 + 0", counts "errors.undeclared")
    assert.truthy(logged()[1].message:find "did you mean worker.progress.send")
    assert.equal("lost?", logged()[2].message)
    for i = 1, 300 do errors.report("stray.name" .. i, {}, "x") end
    errors.report(nil, {}, "x")
    errors.report({}, {}, "x")
    assert(errors.balance())
  end)

  describe("resume and close", function ()
    it("tell suspended, done and failed apart", function ()
      local co = coroutine.create(function (a) local b = coroutine.yield(a + 1) return b, nil end)
      assert.same({ "suspended", 2 }, { errors.resume("spec.a", nil, co, 1) })
      assert.same({ "done", "x", nil }, { errors.resume("spec.a", nil, co, "x") })
      local outcome, incident = errors.resume("spec.a", nil, co)
      assert.equal("failed", outcome)
      assert.truthy(incident.message:find "dead coroutine")
    end)

    it("keep the stack of the failure, and run its to-be-closed variables; their error is a second incident", function ()
      local closed
      local co = coroutine.create(function ()
        local _ <close> = setmetatable({}, { __close = function (_, err) closed = err error "in close" end })
        local function inner() error "first" end
        inner()
      end)
      local _, incident = errors.resume("spec.a", { x = 1 }, co)
      assert.equal("first", incident.message)
      assert.truthy(incident.traceback:find "in [%w ]*'inner'")
      assert.truthy(closed:find "first")
      assert.equal("in close", errors.incidents()[2].message)
      assert.is_true(errors.incidents()[2].ids.closing)
    end)

    it("close runs what is to be closed", function ()
      local function suspended(fn)
        local co = coroutine.create(function ()
          local _ <close> = setmetatable({}, { __close = fn })
          coroutine.yield()
        end)
        errors.resume("spec.a", nil, co)
        return co
      end
      local closed = false
      assert.is_true(errors.close("spec.a", nil, suspended(function () closed = true end)))
      assert.is_true(closed)
      local ok, incident = errors.close("spec.a", { job = 1 }, suspended(function () error "bad close" end))
      assert.is_nil(ok)
      assert.equal("bad close", incident.message)
      incident = select(2, errors.close("spec.a", nil, suspended(function () coroutine.yield() end)))
      assert.truthy(incident.hint:find "spawn a task")
    end)

    it("L2: cut what runs past the instruction budget", function ()
      errors.budget(100000)
      local outcome, incident = errors.resume("spec.a", nil, coroutine.create(function () while true do end end))
      assert.equal("failed", outcome)
      assert.truthy(incident.message:find "ran 100000 instructions")
      local ok = errors.run("spec.a", nil, nil, function () while true do end end)
      assert.is_nil(ok)
      -- Spread over several resumes it is no overrun.
      local co = coroutine.create(function () for _ = 1, 50 do for _ = 1, 10000 do end coroutine.yield() end end)
      for _ = 1, 50 do assert.equal("suspended", (errors.resume("spec.a", nil, co))) end
    end)
  end)

  describe("the rate limit", function ()
    local function fail(n)
      for _ = 1, n do errors.call("spec.a", nil, error, "again", 0) end
    end

    it("tells the first 5, then 1 per 10 s, and announces what it held back, at the same level", function ()
      fail(8)
      assert.equal(5, #logged())
      assert.equal("8 = 5 + 3 + 0", counts "spec.a")
      world:run(9999)
      assert.equal(0, #logged "incident.held_back")
      world:run(1)
      assert.equal(1, #logged "incident.held_back")
      local note = logged("incident.held_back")[1]
      assert.same({ 3, 8, "spec.a", "error" }, { note.held_back, note.count, note.site, note.level })
      fail(3)
      assert.equal(6, #logged())
      assert.equal("11 = 6 + 5 + 0", counts "spec.a")
      world:run(10000)
      assert.equal(2, logged("incident.held_back")[2].held_back)
      world:run(100000)
      assert.equal(2, #logged "incident.held_back")
      fail(6)
      assert.equal(11, #logged())
    end)

    it("announces at the end what is still held back", function ()
      fail(7)
      assert(errors.finish())
      assert.equal(2, logged("incident.held_back")[1].held_back)
    end)

    it("announces a debug incident's at debug", function ()
      for _ = 1, 6 do errors.report("worker.progress.ack", {}, "garbage") end
      world:run(10000)
      assert.equal("debug", logged("incident.held_back")[1].level)
    end)

    it("F69: a flood at one site is counted and announced without being judged; 100 ms later the next failure is judged", function ()
      assert(policy "return { decide = function (incident) if incident.message == 'rare' then return 'critical' end end }")
      for _ = 1, 1000 do
        local ok, incident = errors.call("spec.a", { job = 1 }, error, "again", 0)
        assert.same({ nil, "spec.a", "again" }, { ok, incident.site, incident.message })
      end
      assert.equal("held", errors.report("spec.a", {}, "rare").id)
      assert.equal("1001 = 5 + 996 + 0", counts "spec.a")
      world:run(100)
      assert.equal("critical", errors.report("spec.a", {}, "rare").level)
      world:run(20000)
      local held = 0
      for _, note in ipairs(logged "incident.held_back") do held = held + note.held_back end
      assert.equal(996, held)
    end)

    it("is for each place apart, up to a bound, past which places share one", function ()
      for i = 1, 200 do
        errors.call("spec.a", nil, load("error 'x'", "@place" .. i .. ".lua"))
      end
      assert.equal(64 + 5, #logged())
      assert.equal("200 = 69 + 131 + 0", counts "spec.a")
    end)

    it("keeps tracebacks for the first 3 of a fingerprint", function ()
      fail(5)
      local traces = 0
      for _, each in ipairs(errors.incidents()) do if each.traceback then traces = traces + 1 end end
      assert.equal(3, traces)
    end)

    it("holds, and announces nothing twice, when clocks read 0 before there is a world", function ()
      errors.reset()
      fail(7)
      assert.equal("7 = 5 + 2 + 0", counts "spec.a")
      errors.start(world, "late")
      world:turn()
      assert.equal(1, #logged "incident.held_back")
    end)
  end)

  describe("the policy", function ()
    it("L3: that ships is valid, and its own function raises the tenth unreadable ack in a row to a warning", function ()
      errors.reset()
      assert(errors.load_policy "scripts/policies/errors.lua")
      for i = 1, 12 do errors.report("worker.progress.ack", { consecutive = i }, "garbage") end
      local levels = {}
      for _, each in ipairs(errors.incidents()) do levels[#levels + 1] = each.level end
      assert.same({ "debug", "debug", "debug", "debug", "debug", "warning" }, levels)
      assert.equal("12 = 6 + 6 + 0", counts "worker.progress.ack")
    end)

    it("L3: an edited level, limit and field list show at the next incident, at most 200 ms later", function ()
      assert(policy 'return { sites = { ["spec.*"] = { level = "info", burst = 1 } } }')
      assert.equal("info", errors.report("spec.a", {}, "x").level)
      world.files["errors.lua"] = 'return { sites = { ["spec.*"] = { level = "critical", fields = { "message" } } } }'
      world:run(200)
      assert.equal("critical", errors.report("spec.a", { job = 1 }, "x").level)
      local last = logged()[#logged()]
      assert.equal("x", last.message)
      assert.is_nil(last.ids)
      assert.is_nil(last.where)
      assert.equal(1, #logged "policy.loaded")
    end)

    it("L1: an edit that is wrong leaves the last good one, and is an incident once", function ()
      assert(policy 'return { default = { level = "info" } }')
      world.files["errors.lua"] = "return {"
      world:run(200)
      assert.equal("info", errors.report("spec.a", {}, "x").level)
      assert.equal("1 = 1 + 0 + 0", counts "policy.load")
      assert.truthy(logged()[1].message:find "expected near <eof>" or logged()[1].message:find "unexpected symbol")
      world:run(200)
      errors.report("spec.a", {}, "x")
      assert.equal("1 = 1 + 0 + 0", counts "policy.load")
      world.files["errors.lua"] = nil
      world:run(200)
      assert.equal("info", errors.report("spec.a", {}, "x").level)
    end)

    it("refuses what it cannot mean, each with file:line", function ()
      local function refused(text, ...)
        local ok, err, code = policy(text)
        assert.is_nil(ok)
        assert.equal("CONFIG", code)
        for _, words in ipairs { ... } do assert(err:find(words, 1, true), err .. "\n  lacks: " .. words) end
      end
      refused('return {\n sites = {\n  ["spec.run"] = {\n   level = "silent" } } }', "errors.lua:4: spec.run: level",
        '"silent" is none of debug, info, warning, error, critical', "no level is silent")
      refused('return {\n default = {\n  burst = -1 } }', "errors.lua:3: default: burst must be from 1", "not -1")
      refused("return { default = { burst = 1.5 } }", "burst must be a whole number, not 1.5")
      refused("return { default = { per_ms = 0 } }", "per_ms must be from 1", "not 0")
      refused("return { default = { per_ms = 0/0 } }", "per_ms must be from 1")
      refused("return { default = { brust = 1 } }", "unknown field brust, did you mean burst?")
      refused('return { sites = { ["rpc.handlr"] = {} } }', "no site is named rpc.handlr, did you mean rpc.handler?")
      refused("return { desite = 1 }", "unknown field desite")
      refused("return { decide = 1 }", "decide must be a function")
      refused("return { default = { fields = { 'massage' } } }", "an incident has no field massage")
      refused("return 5", "must return a table, not number")
      refused("return {\n default = { level = 'a', burst = 0 } }", "level", "burst") -- every problem at once
      refused("error 'at load'", "errors.lua:1: at load")
      refused("while true do end", "ran more than 1000000 instructions")
      refused("coroutine.yield()", "errors.lua:1:")
      refused("os.exit()", "errors.lua:1:")
    end)

    it("that is not there is refused with its code", function ()
      local ok, err, code = errors.load_policy "none.lua"
      assert.is_nil(ok)
      assert.truthy(err:find "none.lua")
      assert.equal("ENOENT", code)
    end)

    it("L2: whose decide raises, waits, loops or answers nonsense is replaced, and is one incident", function ()
      for _, body in ipairs { "error 'decide failed'", "while true do end", "return 'silent'", "return 5",
        "return { level = 1 }", "return { burst = 0 }", "return { per_ms = -1 }", "return nil + 1",
        "local t = setmetatable({}, {}) return t.x.y" } do
        start()
        assert(policy("return { default = { level = 'info' }, decide = function (incident) " .. body .. " end }"))
        local incident = errors.report("spec.a", { job = 1 }, "the failure")
        assert.equal("error", incident.level, body)
        assert.equal("1 = 1 + 0 + 0", counts "spec.a")
        assert.equal("1 = 1 + 0 + 0", counts "policy.decide")
        assert.equal("the failure", logged()[2].message)
        errors.report("spec.a", {}, "again")
        assert.equal("1 = 1 + 0 + 0", counts "policy.decide")
        world.files["errors.lua"] = "return { default = { level = 'info' } }"
        world:run(200)
        assert.equal("info", errors.report("spec.a", {}, "mended").level)
      end
    end)

    it("that tries to wait is refused the same way", function ()
      errors.reset()
      errors.start(world, "node")
      assert(policy "return { decide = function () return {} end }")
      errors.report("spec.a", {}, "fine")
      assert.equal("0 = 0 + 0 + 0", counts "policy.decide")
    end)

    it("answers with a level, a table, or nothing", function ()
      assert(policy [[return { decide = function (incident, policy)
        if incident.message == "a" then return "critical" end
        if incident.message == "b" then return { burst = policy.burst + 1, per_ms = 1 } end
      end }]])
      assert.equal("critical", errors.report("spec.a", {}, "a").level)
      assert.equal("error", errors.report("spec.a", {}, "b").level)
      assert.equal("error", errors.report("spec.a", {}, "c").level)
    end)
  end)

  describe("while telling", function ()
    it("an ids function that fails or answers nonsense is an incident of its own", function ()
      for _, ids in ipairs { function () error "no ids" end, function () return 5 end, coroutine.yield } do
        start()
        local _, incident = errors.call("spec.part", ids, error, "the failure")
        assert.equal("the failure", incident.message)
        assert.equal("?", incident.ids.job)
        assert.equal("1 = 1 + 0 + 0", counts "errors.ids")
      end
    end)

    it("L4: a failure at every stage never recurses for ever, and the counts hold", function ()
      errors.listen(function () error "the listener failed" end)
      errors.listen(function () errors.report("spec.b", {}, "reported by a listener") end)
      local function ids()
        errors.call("spec.c", ids, error, "inside ids")
        error "ids failed"
      end
      world.stderr_lines = {}
      assert(log.open(world, function () error "the writer failed" end))
      errors.call("spec.a", ids, error, "outer")
      assert.equal("1 = 1 + 0 + 0", counts "spec.a")
      assert(errors.balance())
      assert.is_true(#errors.incidents() < 20)
      assert(log.open(world, function () end))
      errors.listen(function (incident) errors.report("spec.loop", {}, incident.message) end)
      errors.report("spec.a", {}, "x")
      assert(errors.balance())
    end)

    it("a writer that fails costs no incident: it goes to stderr", function ()
      world.stderr_lines = {}
      assert(log.open(world, {}))
      errors.report("spec.a", {}, "to stderr")
      assert.truthy(world.stderr_lines[1]:find "to stderr")
    end)

    it("listeners hear each told incident until they are taken away", function ()
      local heard = {}
      local stop = errors.listen(function (incident) heard[#heard + 1] = incident.id end)
      for _ = 1, 7 do errors.report("spec.a", {}, "x") end
      stop()
      errors.report("spec.b", {}, "x")
      assert.same({ "node-1", "node-2", "node-3", "node-4", "node-5" }, heard)
    end)
  end)

  describe("asking", function ()
    it("gives the counts sorted by site, the last incidents, and the closing line", function ()
      errors.report("spec.b", {}, "x")
      errors.report("spec.a", {}, "x")
      errors.handle("spec.a", nil, error, "x")
      local names = {}
      for _, c in ipairs(errors.counts()) do names[#names + 1] = c.site .. " " .. c.raised end
      assert.same({ "spec.a 2", "spec.b 1" }, names)
      assert.equal("errors: raised = reported + suppressed + handled: 3 = 2 + 0 + 1 at 2 sites", errors.summary())
      assert.equal("node-2", errors.incidents(1)[1].id)
      assert.same({}, errors.incidents(0))
    end)

    it("keeps the last 512 incidents", function ()
      for i = 1, 600 do
        world:run(10000)
        errors.report("spec.a", { n = i }, "x")
      end
      assert.equal(512, #errors.incidents())
      assert.equal(600, errors.incidents()[512].ids.n)
      assert.equal(89, errors.incidents()[1].ids.n)
      assert.equal(600, errors.incidents(1)[1].ids.n)
    end)

    it("says where the balance is broken", function ()
      errors.report("spec.a", {}, "x")
      errors.declared("spec.a").reported = 0
      local ok, err = errors.balance()
      assert.is_nil(ok)
      assert.equal("spec.a: raised 1, reported 0, suppressed 0, handled 0, in flight 0", err)
      assert.truthy(errors.summary():find "IS NOT")
      errors.declared("spec.a").reported = 1
      errors.declared("spec.a").in_flight = 1 -- Begun, and never ended.
      assert.is_nil((errors.balance()))
      errors.declared("spec.a").in_flight = 0
    end)

    it("keeps the ids as they were, however deep the caller's tables are", function ()
      local ids = { part = { list = { 1, { 2 } } } }
      errors.report("spec.part", ids, "x")
      ids.part.list[2][1] = 3
      assert.same({ list = "[1,[2]]" }, errors.incidents(1)[1].ids.part)
    end)
  end)

  it("L6: 40,000 failures of all kinds (1e6 with SHOAL_LONG=1) leave memory flat", function ()
    assert(log.open(world, function () end))
    local kinds = {
      function () errors.call("spec.a", { job = "j" }, error, "x", 0) end,
      function () errors.report("worker.progress.ack", { job = "j" }, "garbage") end,
      function () errors.handle("spec.b", nil, error, "x") end,
      function (i) errors.report("client.callback.n" .. i % 1000, {}, "x") end,
      function (i) errors.call("spec.c", nil, load("error 'x'", "@p" .. i % 500 .. ".lua")) end,
    }
    local function round(n)
      for i = 1, n do kinds[i % #kinds + 1](i) end
      world:run(10000) -- So that each round reports a full window, and the ring is full after the first two.
    end
    for _ = 1, 2 do round(10000) end
    collectgarbage()
    collectgarbage()
    local before = collectgarbage "count"
    for _ = 1, (os.getenv "SHOAL_LONG" and 100 or 4) do round(10000) end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage "count" < before + 64, "grew by " .. collectgarbage "count" - before .. " KB")
  end)

  it("is the same log each time", function ()
    local function run()
      errors.reset()
      log.reset()
      world = fake_world.new()
      local out = {}
      assert(log.open(world, function (text) out[#out + 1] = text end))
      errors.start(world, "n")
      for i = 1, 50 do
        errors.call("spec." .. i % 7, { b = i, a = { z = 1, y = { 2, 3 } }, c = print }, error, { x = i, y = { 1 } })
        world:run(777)
      end
      assert(errors.finish())
      return table.concat(out)
    end
    assert.equal(run(), run())
  end)
end)

describe("errors and C's door", function ()
  local found = package.searchpath("shoal", package.cpath)
  if not found then return pending "the compiled module is not built: cmake --build --preset release" end

  it("takes what reaches C as an incident at C's site", function ()
    errors.reset()
    local world = require "shoal.core.world".current()
    local lines = {}
    assert(log.open(nil, function (text) lines[#lines + 1] = text end))
    local timer = world:timer(function () error "in a timer" end)
    timer:start(0)
    require "luv".run()
    assert.equal(1, #errors.incidents())
    local one = errors.incidents()[1]
    assert.equal("world.timer", one.site)
    assert.equal("in a timer", one.message)
    assert.truthy(one.where:find "errors_spec.lua:%d+")
    assert.truthy(one.traceback:find "errors_spec.lua")
    assert(errors.balance())
    timer:close()
    require "luv".run()
    log.reset()
    errors.reset()
  end)

  it("takes luv's callbacks too once that was asked for", function ()
    errors.reset()
    assert(log.open(nil, function () end))
    local uv = require "luv"
    errors.adopt_luv()
    -- By default the spec helper takes errors of luv.
    require "shoal.core.door".sink(function (site, err) errors.report(site, {}, err) end, true)
    local timer = uv.new_timer()
    timer:start(0, 0, function () timer:close() error { any = "value" } end)
    uv.run()
    assert.equal(1, errors.count("luv.callback").raised)
    assert.equal('{"any":"value"}', errors.incidents()[1].message)
    log.reset()
    errors.reset()
  end)
end)
