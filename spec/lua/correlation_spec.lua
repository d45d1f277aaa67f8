--- shoal.correlation on a fake world: what its owner's functions hear, and what they may do.
local core = require "shoal.core.correlation"
local correlation = require "shoal.correlation"
local errors = require "shoal.errors"
local fake_world = require "spec.support.fake_world"
local log = require "shoal.log"

describe("shoal.correlation", function ()
  local world, c, told

  local function open(config, handlers)
    told = {}
    local all = {}
    for _, name in ipairs { "on_detected", "on_raised", "on_healed" } do
      all[name] = function (e)
        local dcs = table.concat(e.datacenters, "")
        told[#told + 1] = ("%s %s %s%s"):format(name:sub(4), e.severity, dcs, e.cause and " " .. e.cause or "")
      end
    end
    function all.on_evict(v) told[#told + 1] = ("evict %s %s"):format(v.dc, v.cause) end
    for name, fn in pairs(handlers or {}) do all[name] = fn end
    c = assert(correlation.open(world, config, all))
    for _, dc in ipairs { "a", "b", "c", "d" } do assert(c:know(dc)) end
  end

  before_each(function ()
    errors.reset()
    world = fake_world.new()
    log.reset()
    assert(log.open(nil, function () end))
    errors.start(world, "spec")
  end)
  after_each(function ()
    if c then c:close() end
    c = nil
    assert(errors.balance())
    errors.finish()
    errors.reset()
    log.reset()
    assert.equal(0, world.open)
  end)

  local function down(names) for dc in names:gmatch "." do assert(c:down(dc)) end end
  local function up(names) for dc in names:gmatch "." do assert(c:up(dc)) end end
  local function heard()
    local text = table.concat(told, ", ")
    told = {}
    return text
  end

  it("evicts one that fails alone, when its time has come and by its own timer", function ()
    open()
    down "a"
    world:run(9999)
    assert.equal("", heard())
    world:run(1)
    assert.equal("evict a alone", heard())
    assert.is_nil(world:next_ms())
  end)

  it("holds several that fail at once, tells who and when by both clocks, and heals by time alone", function ()
    local events = {}
    open(nil, {
      on_detected = function (e) events[1] = e assert(c:holds()) end,
      on_healed = function (e) events[2] = e assert(not c:holds()) end,
    })
    down "cab"
    world:run(5000)
    assert.is_true(c:holds())
    assert.equal("medium", c:severity())
    assert.same({ event = 1, severity = "medium", datacenters = { "a", "b", "c" }, at_ns = world:now_ns(), wall_ns = world:wall_ns(),
      lasted_ms = 0 }, events[1])
    assert.same({ event = 1, severity = "medium", datacenters = { "a", "b", "c" }, lasted_ms = 0, left_ms = 60000 }, c:event())
    world:run(60000)
    assert.equal("none", c:severity())
    assert.equal("expired", events[2].cause)
    assert.equal(60000, events[2].lasted_ms)
    assert.equal(0, errors.count("correlation.healed").raised)
    assert.equal("evict a vain, evict b vain, evict c vain", heard())
    assert.is_nil(c:event())
  end)

  it("evicts none of those that return, and tells a rise once", function ()
    open()
    down "ab"
    world:run(10000)
    down "cd"
    world:run(5000)
    assert.equal("detected low ab, raised high abcd", heard())
    up "abcd"
    world:run(29999)
    assert.equal("", heard())
    world:run(1)
    assert.equal("healed high abcd returned", heard())
    world:run(1000000)
    assert.equal("", heard())
    assert.is_nil(world:next_ms())
  end)

  it("2.4: a function that raises is one incident with event, datacenters, severity and both clocks; the flag moves regardless", function ()
    open(nil, { on_detected = function () error "no" end, on_healed = function () error({}) end })
    down "ab"
    world:run(5000)
    local at_ns, wall_ns = world:now_ns(), world:wall_ns()
    assert.is_true(c:holds())
    world:run(60000)
    assert.is_false(c:holds())
    assert.equal("evict a vain, evict b vain", heard())
    local incidents = errors.incidents()
    assert.equal(2, #incidents)
    assert.equal("correlation.detected", incidents[1].site)
    assert.same({ event = 1, datacenters = "a b", severity = "low", at_ns = at_ns, wall_ns = wall_ns }, incidents[1].ids)
    assert.equal("correlation.healed", incidents[2].site)
    assert.equal("a b", incidents[2].ids.datacenters)
  end)

  it("an eviction that raises is tried again until it is taken, and not when its datacenter has returned", function ()
    local fails, calls = 2, 0
    open(nil, { on_evict = function ()
      calls = calls + 1
      if calls <= fails then error "not now" end
    end })
    down "a"
    world:run(10000)
    assert.equal(1, calls)
    world:run(500)
    assert.equal(2, calls)
    world:run(1000)
    assert.equal(3, calls)
    world:run(100000)
    assert.equal(3, calls)
    up "a"
    world:run(31000)
    fails, calls = 9, 0
    down "a"
    world:run(10000)
    assert.equal(1, calls)
    up "a"
    world:run(100000)
    assert.equal(1, calls)
    assert.equal(3, #errors.incidents())
  end)

  it("an eviction that was not taken when it is closed is withdrawn", function ()
    local calls = 0
    open(nil, { on_evict = function ()
      calls = calls + 1
      error "not now"
    end })
    down "a"
    world:run(10000)
    c:close()
    assert(errors.finish()) -- At once, as when a node stops.
    assert.equal(1, calls)
    assert.equal(0, errors.count("errors.undelivered").raised)
  end)

  it("takes reports from its own functions after them, in order", function ()
    local order = {}
    open(nil, {
      on_detected = function (e)
        order[#order + 1] = "detected " .. #e.datacenters
        assert(c:up "a")
        assert(c:down "c")
        assert(c:know "e")
        assert(c:forget "d")
        assert(c:holds() and c:severity() == "low" and #c:dcs() == 4 and c:event().event == 1)
        order[#order + 1] = "end of detected"
      end,
      on_raised = function () order[#order + 1] = "raised" end,
    })
    down "ab"
    world:run(10000)
    assert.same({ "detected 2", "end of detected", "raised" }, order)
    assert.equal("rising", c:dc("a").status)
    c:close()
    order = {}
    open(nil, {
      on_detected = function ()
        assert(c:forget "a") -- This ends the event at once.
        order[#order + 1] = "end of detected"
      end,
      on_healed = function () order[#order + 1] = "healed" end,
    })
    down "ab"
    world:run(5000)
    assert.same({ "end of detected", "healed" }, order)
  end)

  it("may be closed by each of its functions; nothing follows", function ()
    for _, name in ipairs { "on_detected", "on_healed", "on_evict", "on_raised" } do
      local called = 0
      open(nil, { [name] = function ()
        called = called + 1
        c:close()
      end })
      down "ab"
      world:run(6000)
      if not c.closed then down "c" end
      world:run(200000)
      assert.equal(1, called, name)
      assert.has_error(function () c:down "a" end, "correlation: used after close")
    end
  end)

  it("refuses a wrong config by name, unknown datacenters, one past the limit, and functions that are none", function ()
    local before = world.open
    local function refused(config)
      local opened, err, code = correlation.open(world, config, {})
      assert.is_nil(opened)
      assert.equal("CONFIG", code)
      return err
    end
    assert.equal("correlation: hold: unknown field, did you mean \"hold_ms\"?", (refused { hold = 3 }:gsub("unknown [^,]*", "unknown field")))
    assert.truthy(refused { medium = 5 }:find("high = 4 must be greater than medium = 5", 1, true))
    assert.truthy(refused { low = 3 }:find("medium = 3 must be greater than low = 3", 1, true))
    assert.truthy(refused { window_ms = 4999 }:find("window_ms = 4999 must be at least down_ms = 5000", 1, true))
    assert.truthy(refused { flap_moves = 1 }:find("flap_moves must be 0, or 2 to 8", 1, true))
    assert.equal(before, world.open)
    open()
    local ok, err, code = c:down "nowhere"
    assert.same({ nil, "correlation: datacenter nowhere is not known", "NOT_FOUND" }, { ok, err, code })
    for i = 5, correlation.DCS_MAX do assert(c:know("dc" .. i)) end
    ok, err, code = c:know "one more"
    assert.is_nil(ok)
    assert.equal("correlation: datacenter one more: at most 256 are known", err)
    assert.equal("FULL", code)
    assert.equal(1, c:counts().full)
    assert(c:forget "dc9")
    assert(c:know "one more")
    ok, err, code = c:know(("x"):rep(correlation.NAME_MAX + 1))
    assert.is_nil(ok)
    assert.truthy(err)
    assert.equal("TOO_LARGE", code)
    assert.has_error(function () correlation.open(world, nil, { on_evict = 3 }) end)
  end)

  -- The model: the rules of core/correlation.h over whole seconds, by runs of seconds instead of instants.
  local function model(names, now)
    local m = { dcs = {}, held = false, event = 0, out = {} }
    for i, name in ipairs(names) do
      m.dcs[i] = { name = name, run = 0, clear = 1000, moves = {}, damped = 0, fell = -1000 }
    end
    local function damped(d) return now() < d.damped end
    local function evidence(d) return not damped(d) and not d.spent end
    local function move(d)
      d.moves[#d.moves + 1] = now()
      local third = d.moves[#d.moves - 2]
      if damped(d) or third and now() - third <= 120 then d.damped, d.spent = now() + 300, true end
    end
    function m.report(d, what)
      if what == "suspect" then
        if not d.down then d.suspect, d.clear = true, -1 end
      elseif what == "down" and not d.down then
        if not d.counted then d.fell, d.spent = now(), damped(d) end
        d.down, d.suspect, d.run = true, false, 0
        move(d)
      elseif what == "down" then
        d.suspect = false
      else
        if d.down then move(d) end
        if d.down or d.suspect then d.clear = 0 end
        if d.down then d.evicted, d.judged = false, nil end
        d.down, d.suspect = false, false
      end
    end
    local function steady()
      local n = 0
      for _, d in ipairs(m.dcs) do n = n + (damped(d) and 0 or 1) end
      return n
    end
    local function severity(n) return n >= 4 and 3 or n >= 3 and 2 or n >= 2 and 1 or 0 end
    local function say(...) m.out[#m.out + 1] = table.concat({ now(), ... }, " ") end
    local function alone(d)
      if not d.down or not d.counted or d.evicted or d.run < 10 then return false end
      if not evidence(d) then return true end
      local failed, feared = 0, 0
      for _, o in ipairs(m.dcs) do
        if o.counted and evidence(o) and math.abs(o.fell - d.fell) <= 30 then failed = failed + 1 end
        if not o.counted and o.down and evidence(o) and math.abs(o.fell - d.fell) <= 30 then feared = feared + 1 end
        if not o.counted and not o.down and o.suspect and not damped(o) and now() - d.fell <= 30 then feared = feared + 1 end
      end
      return feared == 0 or severity(failed + feared) == 0 or 2 * (failed + feared) < steady()
    end
    --- A second passes for the runs; then what is due at this second.
    function m.second()
      for _, d in ipairs(m.dcs) do
        d.run = d.run + 1
        if not d.suspect then d.clear = d.clear + 1 end
      end
    end
    function m.judge()
      local new = false
      for _, d in ipairs(m.dcs) do
        if d.down and not d.counted and d.run >= 5 then
          d.counted = true
          if evidence(d) then
            new = true
            if m.held then m.members[d], d.event = true, m.event end
          end
        elseif not d.down and d.counted and d.clear >= 30 then
          d.counted, d.spent = false, false
        end
      end
      if m.held then
        local still, all = 0, 0
        for d in pairs(m.members) do still, all = still + (d.counted and 1 or 0), all + 1 end
        local cause
        if still < 2 or 2 * still < all then cause = "returned"
        elseif severity(still) > m.severity then m.severity, m.until_s = severity(still), now() + 60 say("raised", m.severity)
        elseif now() >= m.until_s then cause = "expired" end
        if not cause then return end
        m.held = false
        say("healed", cause)
        for _, d in ipairs(m.dcs) do
          if m.members[d] and d.counted then
            d.spent = true
            if d.down and not d.evicted then d.judged = cause == "expired" and "vain" or "left" end
          end
        end
      elseif new then
        local newest, group = -1000, {}
        for _, d in ipairs(m.dcs) do if d.counted and evidence(d) then newest = math.max(newest, d.fell) end end
        for _, d in ipairs(m.dcs) do
          if d.counted and evidence(d) and newest - d.fell <= 30 then group[#group + 1] = d end
        end
        if severity(#group) > 0 and 2 * #group >= steady() then
          m.held, m.event, m.severity, m.until_s, m.members = true, m.event + 1, severity(#group), now() + 60, {}
          for _, d in ipairs(group) do m.members[d] = true end
          say("detected", m.severity)
          return
        end
      end
      for _, d in ipairs(m.dcs) do
        if d.judged or alone(d) then
          say("evict", d.name, d.judged or "alone")
          d.evicted, d.judged = true, nil
        end
      end
    end
    return m
  end

  it("does what a model does, over random reports", function ()
    local RANK = { low = 1, medium = 2, high = 3 }
    local kinds = {}
    for seed = 1, 100 do
      local chance, now = fake_world.new { seed = seed }, 0
      local names, out = {}, {}
      for i = 1, 2 + chance:random(6) do names[i] = "dc" .. i end
      local m, real = model(names, function () return now end), assert(core.new(0))
      for _, name in ipairs(names) do assert(real:know(0, name)) end
      local many, calm = chance:random(3), chance:random(25)
      for second = 0, 600 do
        now = second
        local now_ns = second * 1000000000
        if second > 0 then m.second() end
        local burst = chance:random(60) == 1
        for i, name in ipairs(names) do
          if burst and chance:random(3) <= many or chance:random(20 * calm) == 1 then
            local what = ({ "down", "up", "suspect", "down", "up" })[chance:random(5)]
            if burst and chance:random(2) == 1 then what = m.dcs[i].down and "up" or "down" end
            m.report(m.dcs[i], what)
            assert(real[what](real, now_ns, name))
          end
        end
        m.judge()
        for action in function () return real:next(now_ns) end do
          kinds[action.kind .. (action.cause or "")] = (kinds[action.kind .. (action.cause or "")] or 0) + 1
          if action.kind == "evict" then out[#out + 1] = table.concat({ second, "evict", action.dc, action.cause }, " ")
          else out[#out + 1] = table.concat({ second, action.kind, action.cause or RANK[action.severity] }, " ") end
        end
        assert.equal(table.concat(m.out, "\n"), table.concat(out, "\n"), "seed " .. seed)
        assert.equal(m.held, real:holds())
      end
    end
    for _, kind in ipairs { "detected", "raised", "healedreturned", "healedexpired", "evictalone", "evictleft", "evictvain" } do
      assert.is_true((kinds[kind] or 0) >= 20, kind .. " " .. tostring(kinds[kind]))
    end
  end)
end)
