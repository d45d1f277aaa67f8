--- swim.partition on a fake world: many members lost at once, which, and their return.
local evenness = require "shoal.member.swim.evenness"
local fake_world = require "spec.support.fake_world"
local member_events = require "spec.support.member_events"
local sorted = require "shoal.sorted"
local swim = require "shoal.swim"

describe("swim.partition", function ()
  local world, event, watch, told

  local function dc_of(member) return member.payload end

  --- A watch of `count` members n01, n02, ..., whose datacenters are given out in turn (a, b, ...) when there are `dcs`.
  local function open(count, config, dcs, on_partition)
    if watch then watch:close() end
    told = {}
    event = member_events.new(function (name)
      if not dcs then return nil end
      local at = (tonumber(name:match "%d+") - 1) % #dcs + 1
      return dcs:sub(at, at)
    end)
    local given = { share = 0.3, least = 3, window_ms = 1000, heal_ms = 500, tell_ms = 100, give_up_ms = 60000 }
    if dcs then given.group_of = dc_of end
    for key, value in sorted(config or {}) do given[key] = value end
    watch = assert(swim.partition(world, given, on_partition or function (e) told[#told + 1] = e end))
    for i = 1, count do watch:feed(event("join", ("n%02d"):format(i))) end
  end

  before_each(function () world, watch = fake_world.new(), nil end)
  after_each(function ()
    watch:close()
    assert.equal(0, world.open)
  end)

  local function feed(kind, ...)
    for _, i in ipairs { ... } do watch:feed(event(kind, ("n%02d"):format(i))) end
  end

  local function kinds()
    local out = {}
    for i, e in ipairs(told) do out[i] = ("%s %d"):format(e.kind, #e.lost) end
    return table.concat(out, ", ")
  end

  --- Nothing is open, listed or waited for, and only the living are known.
  local function assert_calm(living)
    assert.is_nil(watch:now())
    assert.equal(0, watch.lost)
    assert.equal(0, watch.dead)
    assert.is_nil(watch.lost_first)
    assert.is_nil(watch.lost_last)
    assert.is_nil(world:next_ms())
    assert.equal(living, #sorted.keys(watch.members))
    assert.equal(living, watch.all)
  end

  it("is detected at the share of all members, and not with one fewer", function ()
    open(20)
    feed("suspect", 1, 2, 3, 4, 5)
    world:run(10)
    assert.equal("", kinds())
    feed("dead", 6)
    assert.equal("detected 6", kinds())
    local e = told[1]
    assert.equal("partition", e.cause)
    assert.equal("n01 n02 n03 n04 n05 n06", member_events.names(e.lost))
    assert.same({ name = "n06", state = "dead" }, e.lost[6])
    assert.same({ 5, 1, 14, 0.3, true, 10 }, { e.suspected, e.dead, e.kept, e.share, e.larger, e.lasted_ms })
    assert.same({}, e.by_group)
    assert.same({}, e.silent)
  end)

  it("wants `least`, however small the cluster; one death is none", function ()
    open(3)
    feed("dead", 1, 2)
    assert.equal("", kinds())
    feed("suspect", 3)
    assert.equal("detected 3", kinds())
    assert.equal(1, told[1].share)
    assert.is_false(told[1].larger) -- We are alone.
    open(1, { least = 2, share = 0.01 })
    feed("suspect", 1)
    feed("dead", 1)
    assert.equal("", kinds())
    local _, err = swim.partition(world, { least = 1 }, function () end)
    assert.equal("swim.partition: least: 1 is below 2", err)
  end)

  it("counts what came within window_ms, to the millisecond; a death counts anew", function ()
    open(10)
    feed("suspect", 1, 2)
    world:run(1001)
    feed("suspect", 3)
    assert.equal("", kinds())
    assert.equal(1, watch.lost)
    open(10)
    feed("suspect", 1, 2)
    world:run(1000)
    feed("suspect", 3)
    assert.equal("detected 3", kinds())
    open(10)
    feed("suspect", 1, 2, 3 - 2)
    world:run(900)
    feed("dead", 1, 2)
    world:run(900)
    feed("suspect", 3)
    assert.equal("detected 3", kinds())
  end)

  it("single deaths, far apart, are none, and leave nothing behind", function ()
    open(10, { least = 2, share = 0.1 })
    for i = 1, 9 do
      feed("suspect", i)
      world:run(700)
      feed("dead", i)
      world:run(1001)
      assert_calm(10 - i)
    end
    assert.equal("", kinds())
  end)

  it("what a member tells brings nobody back, and makes nobody a member", function ()
    open(10)
    feed("suspect", 1, 2)
    feed("user", 1, 2, 11)
    assert.equal(2, watch.lost)
    assert.equal(10, watch.all)
  end)

  it("a suspicion that is refuted, and a member that leaves, are not lost", function ()
    open(10)
    feed("suspect", 1, 2)
    feed("alive", 1)
    feed("suspect", 3)
    feed("left", 4, 5, 6, 7)
    assert.equal("", kinds())
    feed("left", 2, 3)
    world:run(2000)
    assert_calm(4)
  end)

  it("grows: told tell_ms later as it is then, also when more are known dead, and not what passed", function ()
    open(20)
    feed("suspect", 1, 2, 3, 4, 5, 6)
    feed("suspect", 7, 8)
    world:run(99)
    feed("suspect", 9)
    assert.equal("detected 6", kinds())
    world:run(1)
    assert.equal("detected 6, grew 9", kinds())
    world:run(400)
    assert.equal("detected 6, grew 9", kinds())
    feed("dead", 1, 2)
    world:run(100)
    assert.equal("detected 6, grew 9, grew 9", kinds())
    assert.equal(2, told[3].dead)
    assert.equal(7, told[3].suspected)
    feed("suspect", 10) -- Briefly, as when two sides meet again: neither reported nor listed as returned.
    feed("alive", 10, 9)
    world:run(1000)
    assert.equal("detected 6, grew 9, grew 9", kinds())
    assert.same({ "n09" }, watch:now().returned)
    assert.equal(8, #watch:now().lost)
  end)

  it("heals when they are back and heal_ms have passed: how long, who returned, who did not; then nothing is left", function ()
    open(20)
    feed("suspect", 1, 2, 3, 4, 5, 6, 7)
    world:run(200)
    feed("dead", 1, 2, 3, 4)
    world:run(3000)
    feed("join", 1, 2, 3)
    feed("alive", 5, 6)
    world:run(300)
    feed("alive", 7)
    world:run(499)
    assert.is_not.equal("healed", told[#told].kind)
    world:run(1)
    local e = told[#told]
    assert.equal("healed", e.kind)
    assert.equal("n01 n02 n03 n05 n06 n07", table.concat(e.returned, " "))
    assert.same({ { name = "n04", state = "dead" } }, e.lost)
    assert.equal(3500, e.lasted_ms) -- Until the last return, without the quiet time after it.
    assert.equal(19, e.kept)
    assert_calm(19)
    feed("dead", 8)
    world:run(1001)
    assert.equal(e, told[#told])
    assert_calm(18)
  end)

  it("does not heal while one side flips: each loss and return begins the quiet again", function ()
    open(10)
    feed("suspect", 1, 2, 3)
    for _ = 1, 10 do
      world:run(400)
      feed("alive", 1, 2, 3)
      world:run(400)
      feed("suspect", 1, 2, 3)
    end
    feed("alive", 1, 2, 3)
    for i, e in ipairs(told) do assert.equal(i == 1 and "detected" or "grew", e.kind) end
    assert.is_true(#told > 5) -- Each time that it grew again from less.
    world:run(500)
    assert.equal("healed", told[#told].kind)
    assert.equal(8000, told[#told].lasted_ms)
    assert_calm(10)
  end)

  it("does not heal by itself while as many are missing as made it one; give_up_ms ends it", function ()
    open(10)
    feed("dead", 1, 2, 3, 4)
    world:run(1000)
    feed("join", 1) -- 3 of 10 are still lost.
    for i = 21, 40 do feed("join", i) end -- New members; none of the lost ones is back.
    feed("dead", 1)
    world:run(58999)
    assert.is_truthy(watch:now())
    world:run(1)
    local e = told[#told]
    assert.equal("gave_up", e.kind)
    assert.equal("n01 n02 n03 n04", member_events.names(e.lost))
    assert.same({}, e.returned)
    assert_calm(26)
  end)

  it("ends when the missing have left by their own word", function ()
    open(10)
    feed("suspect", 1, 2, 3)
    feed("left", 1, 2, 3)
    world:run(500)
    assert.equal("healed", told[#told].kind)
    assert.same({}, told[#told].returned)
    assert_calm(7)
  end)

  it("a member that restarted is back; one that never dies but is suspected for good stays a member", function ()
    open(10)
    feed("suspect", 1, 2, 3)
    feed("dead", 1, 2)
    watch:feed(event("join", "n01", { generation = 2 }))
    watch:feed(event("join", "n02", { generation = 2 }))
    world:run(500)
    assert.equal("healed", told[#told].kind)
    assert.same({ "n01", "n02" }, told[#told].returned)
    assert.equal("n03", member_events.names(told[#told].lost))
    assert_calm(10)
    feed("dead", 3)
    world:run(1001)
    assert_calm(9)
  end)

  describe("with groups", function ()
    it("a datacenter that falls silent is a partition, known by name", function ()
      open(30, nil, "abc")
      feed("suspect", 2, 5, 8, 11, 14, 17, 20, 23, 26)
      assert.equal("partition", told[1].cause)
      assert.same({}, told[1].silent)
      feed("suspect", 29)
      world:run(100)
      local e = told[#told]
      assert.equal("partition", e.cause)
      assert.same({ "b" }, e.silent)
      assert.same({ a = { lost = 0, of = 10 }, b = { lost = 10, of = 10 }, c = { lost = 0, of = 10 } }, e.by_group)
      assert.equal("b", e.lost[1].group)
      feed("alive", 2, 5, 8, 11, 14, 17, 20, 23, 26, 29)
      world:run(500)
      assert.equal("partition", told[#told].cause)
      assert_calm(30)
    end)

    it("losses spread evenly are a storm", function ()
      open(30, nil, "abc")
      feed("dead", 1, 2, 3, 4, 5, 6, 7, 8, 9)
      assert.equal("detected 9", kinds())
      assert.equal("storm", told[1].cause)
      assert.same({}, told[1].silent)
      feed("join", 1, 2, 3, 4, 5, 6, 7, 8, 9)
      world:run(500)
      assert.equal("healed storm", told[#told].kind .. " " .. told[#told].cause)
    end)

    it("takes a group from a payload that comes after the join, and keeps it when a later event has none", function ()
      open(0, nil, "ab")
      local plain = member_events.new()
      for i = 1, 8 do watch:feed(plain("join", ("n%02d"):format(i))) end
      for i = 1, 8 do watch:feed(event("update", ("n%02d"):format(i))) end
      for i = 2, 8, 2 do watch:feed(plain("suspect", ("n%02d"):format(i))) end
      world:run(100)
      assert.same({ a = { lost = 0, of = 4 }, b = { lost = 4, of = 4 } }, told[#told].by_group)
    end)

    it("a group_of that raises costs the loss nothing: it is counted, and told with the next event", function ()
      local broken = false
      open(10, { group_of = function () if broken then error("on purpose", 0) end end })
      feed("suspect", 1, 2)
      broken = true
      assert.has_error(function () feed("suspect", 3) end, "on purpose")
      broken = false
      feed("update", 4)
      assert.equal("detected 3", kinds())
    end)
  end)

  it("goes on after a callback that raises: it still grows and heals", function ()
    local calls = {}
    open(10, nil, nil, function (e)
      calls[#calls + 1] = e.kind
      error("on purpose", 0)
    end)
    feed("suspect", 1, 2)
    assert.has_error(function () feed("suspect", 3) end, "on purpose")
    feed("suspect", 4)
    assert.has_error(function () world:run(100) end, "on purpose")
    feed("alive", 1, 2, 3, 4)
    assert.has_error(function () world:run(1000) end, "on purpose")
    assert.same({ "detected", "grew", "healed" }, calls)
    assert_calm(10)
    feed("dead", 1, 2)
    assert.has_error(function () feed("dead", 3) end, "on purpose")
    feed("dead", 4)
    assert.has_error(function () world:run(100) end, "on purpose")
    assert.has_error(function () world:run(60000) end, "on purpose") -- No event comes after the one that raised.
    assert.same({ "detected", "grew", "gave_up" }, { calls[4], calls[5], calls[6] })
    assert_calm(6)
  end)

  it("may be closed from its own callback, whichever it is", function ()
    for _, kind in ipairs { "detected", "grew", "healed" } do
      local last
      open(10, { heal_ms = 0, tell_ms = 0 }, nil, function (e)
        last = e.kind
        if e.kind == kind then watch:close() end
      end)
      feed("suspect", 1, 2, 3)
      if kind ~= "detected" then feed("suspect", 4) end
      if kind == "healed" then
        feed("alive", 1, 2)
      end
      assert.equal(kind, last)
      assert.has_error(function () feed("suspect", 5) end, "swim.partition: fed after close")
    end
    assert.equal("swim.partition (closed, 0 of 0 lost)", tostring(watch))
  end)

  it("begins with the members that it is given, and says what is wrong with a configuration", function ()
    open(0)
    local members = {}
    for i = 1, 9 do members[i] = event("join", "n0" .. i).member end
    members[10] = event("dead", "n10").member
    open(0, { members = members })
    feed("suspect", 1, 2, 3)
    assert.equal(6, told[1].kept)
    local none, err, code = swim.partition(world, { share = 2, windw_ms = 1 }, function () end)
    assert.is_nil(none)
    assert.equal("CONFIG", code)
    assert.is_truthy(err:find("share: 2 is above 1", 1, true) and err:find("did you mean", 1, true), err)
    assert.has_error(function () swim.partition(world, {}) end, "swim.partition: on_partition: expected a function, found nil")
  end)

  it("every rise has its fall, and what is kept is bounded by the members, over random events", function ()
    for seed = 1, 20 do
      world = fake_world.new { seed = seed }
      watch = nil
      open(0, { give_up_ms = 5000 }, "abc")
      local states, rises, falls = {}, 0, 0
      for _ = 1, 1500 do
        local i = world:random(30)
        local was = states[i]
        local to = not was and "join" or was == "suspect" and ({ "alive", "dead", "dead" })[world:random(3)]
          or ({ "suspect", "suspect", "update", "left" })[world:random(4)]
        states[i] = (to == "suspect" or to == "update" and was == "suspect") and "suspect"
          or (to ~= "dead" and to ~= "left") and "alive" or nil
        feed(to, i)
        world:run(world:random(60) - 1)
        local listed, m, back = 0, watch.lost_first, nil
        while m do
          if m.previous ~= back then error "the list is broken" end
          listed, back, m = listed + 1, m, m.following
        end
        if listed ~= watch.lost or watch.all > 30 then error(("%d listed, %d lost, %d in all"):format(listed, watch.lost, watch.all)) end
      end
      for i = 1, 30 do if states[i] == "suspect" then feed("alive", i) end end
      world:run(120000)
      local open_now = false
      for _, e in ipairs(told) do
        if e.kind == "detected" then
          assert.is_false(open_now)
          rises, open_now = rises + 1, true
        elseif e.kind ~= "grew" then
          assert.is_true(open_now)
          falls, open_now = falls + 1, false
        end
      end
      assert.is_true(rises > 0)
      assert.equal(rises, falls)
      assert_calm(#sorted.keys(states))
    end
  end)
end)

describe("evenness", function ()
  local function judge(...)
    local groups = {}
    for i, g in ipairs { ... } do groups[("%02d"):format(i)] = { lost = g[1], of = g[2] } end
    return evenness.judge(groups)
  end

  it("calls it a partition where groups tell nothing", function ()
    assert.equal("partition", judge())
    assert.equal("partition", judge { 3, 10 })
    assert.equal("partition", judge({ 5, 5 }, { 5, 5 }))
    assert.equal("partition", judge({ 3, 10 }, { 0, 0 }))
  end)

  it("sees whole groups lost, but for groups of one", function ()
    assert.equal("partition", judge({ 0, 2 }, { 2, 2 }))
    assert.equal("partition", judge({ 0, 2 }, { 2, 2 }, { 1, 1 }))
    assert.equal("storm", judge({ 0, 2 }, { 1, 1 }, { 1, 1 }))
    assert.equal("storm", judge({ 1, 2 }, { 1, 2 }))
  end)

  it("sees half a group lost and the others whole, before it is all lost", function ()
    assert.equal("partition", judge({ 0, 10 }, { 6, 10 }))
    assert.equal("partition", judge({ 0, 10 }, { 3, 10 }))
    assert.equal("storm", judge({ 1, 10 }, { 3, 10 }))
    assert.equal("partition", judge({ 1, 10 }, { 8, 10 }))
    assert.equal("storm", judge({ 1, 3 }, { 1, 3 }, { 1, 3 }, { 0, 3 }, { 0, 3 }, { 0, 3 }, { 0, 3 }, { 0, 3 }, { 0, 3 }, { 0, 3 }))
  end)

  it("calls random losses a storm in 95 of 100 draws, and a lost group among them a partition in 95", function ()
    local world = fake_world.new { seed = 11 }
    for _, shape in ipairs { { 2, 10, 7 }, { 4, 25, 30 }, { 10, 10, 30 }, { 3, 300, 200 } } do
      local count, size, lost = table.unpack(shape)
      local storms, partitions = 0, 0
      for _ = 1, 200 do
        local function draw(taken) -- `lost` of those that `taken` leaves, each as likely
          local groups, left = {}, {}
          for g = 1, count do
            groups[g] = { taken == g and size or 0, size }
            if taken ~= g then for _ = 1, size do left[#left + 1] = g end end
          end
          for _ = 1, taken and size // 5 or lost do
            local at = world:random(#left)
            local g = left[at]
            left[at] = left[#left]
            left[#left] = nil
            groups[g][1] = groups[g][1] + 1
          end
          return judge(table.unpack(groups))
        end
        storms = storms + (draw() == "storm" and 1 or 0)
        partitions = partitions + (draw(world:random(count)) == "partition" and 1 or 0)
      end
      assert.is_true(storms >= 190, ("%d x %d: %d storms of 200"):format(count, size, storms))
      assert.is_true(partitions >= 190, ("%d x %d: %d partitions of 200"):format(count, size, partitions))
    end
  end)
end)
