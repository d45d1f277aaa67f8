--- swim.settle on a fake world: one event for a burst.
local fake_world = require "spec.support.fake_world"
local member_events = require "spec.support.member_events"
local swim = require "shoal.swim"

local names = member_events.names

describe("swim.settle", function ()
  local world, event, bursts, settle

  local function open(config, on_burst)
    bursts = {}
    settle = assert(swim.settle(world, config, on_burst or function (burst) bursts[#bursts + 1] = burst end))
    return settle
  end

  before_each(function ()
    world, event = fake_world.new(), member_events.new()
    open { quiet_ms = 100, most_ms = 1000 }
  end)
  after_each(function ()
    settle:close()
    assert.equal(0, world.open)
  end)

  local function feed(...) settle:feed(event(...)) end

  it("makes one event of a burst of 2,000 joins, and arms its timer a few times only", function ()
    for i = 1, 2000 do
      feed("join", ("n%04d"):format(i))
      if i % 20 == 0 then world:run(1) end
    end
    world:run(98)
    assert.equal(0, #bursts)
    world:run(1)
    assert.equal(1, #bursts)
    local burst = bursts[1]
    assert.equal(2000, #burst.joined)
    assert.equal("n0001", burst.joined[1].name)
    assert.equal("n2000", burst.joined[2000].name)
    assert.equal(2000, burst.events)
    assert.equal(2000, burst.changes)
    assert.equal(99 * 1000000, burst.to_ns - burst.from_ns)
    assert.is_true(world.fired <= 3, world.fired .. " timers")
    assert.same({}, settle.entries)
    world:run(10000)
    assert.equal(1, #bursts)
  end)

  it("tells at quiet_ms after the last event, and not 1 ms sooner", function ()
    feed("join", "a")
    world:run(99)
    feed("join", "b")
    world:run(99)
    assert.equal(0, #bursts)
    world:run(1)
    assert.equal("a b", names(bursts[1].joined))
  end)

  it("tells at most_ms after the first event although more comes, and the rest in the next burst", function ()
    for i = 0, 79 do
      feed("join", ("n%02d"):format(i))
      world:run(20)
    end
    assert.equal(1, #bursts)
    assert.equal(50, bursts[1].events)
    assert.equal(980 * 1000000, bursts[1].to_ns - bursts[1].from_ns)
    world:run(100)
    assert.equal(2, #bursts)
    assert.equal(30, bursts[2].events)
    assert.equal("n50", bursts[2].joined[1].name)
  end)

  it("nets a join and a death of one life out, but counts them", function ()
    feed("join", "a")
    feed("suspect", "a")
    feed("dead", "a")
    feed("join", "b")
    world:run(100)
    assert.same({ "b", "", "", "" }, {
      names(bursts[1].joined), names(bursts[1].dead), names(bursts[1].left), names(bursts[1].updated),
    })
    assert.equal(4, bursts[1].events)
    assert.equal(1, bursts[1].passed)
    assert.equal(1, bursts[1].changes)
  end)

  it("tells deaths, leavings and updates of those who lived before, each once", function ()
    feed("suspect", "a")
    feed("dead", "a")
    feed("left", "b")
    feed("update", "c")
    feed("update", "c")
    feed("update", "d")
    feed("dead", "d")
    world:run(100)
    local burst = bursts[1]
    assert.same({ "", "a d", "b", "c" }, { names(burst.joined), names(burst.dead), names(burst.left), names(burst.updated) })
    assert.equal(4, burst.changes)
    assert.equal(0, burst.passed)
  end)

  it("counts flapping by member and calls it no change; the burst is told all the same", function ()
    for _ = 1, 3 do
      feed("suspect", "a")
      feed("alive", "a")
    end
    feed("suspect", "b")
    world:run(100)
    assert.equal(0, bursts[1].changes)
    assert.same({ a = 3, b = 1 }, bursts[1].flaps)
    assert.equal(7, bursts[1].events)
  end)

  it("takes a death that was none for no change, or for an update when the payload or address differs", function ()
    for _, name in ipairs { "a", "b", "c" } do feed("dead", name) end
    feed("join", "a", { version = 1 })
    feed("join", "b", { version = 1, payload_version = 2 })
    feed("join", "c", { version = 1, address = "10.0.0.2:7000" })
    world:run(100)
    assert.equal("", names(bursts[1].joined))
    assert.equal("", names(bursts[1].dead))
    assert.equal("b c", names(bursts[1].updated))
  end)

  it("tells a restart as the death of the old life and the join of the new", function ()
    feed("update", "a", { generation = 5 })
    feed("dead", "a")
    feed("join", "a", { generation = 6 })
    feed("dead", "a")
    feed("join", "a", { generation = 7 })
    world:run(100)
    assert.equal(5, bursts[1].dead[1].incarnation.generation)
    assert.equal(7, bursts[1].joined[1].incarnation.generation)
    assert.same({ "a", "a", "" }, { names(bursts[1].dead), names(bursts[1].joined), names(bursts[1].updated) })
    assert.equal(1, bursts[1].passed)
  end)

  it("what a member tells is no change and no event of a burst", function ()
    feed("user", "a")
    assert.is_false(settle:flush())
    assert.same({}, settle.entries)
  end)

  it("keeps nothing of lives that came and went, however many", function ()
    for i = 1, 500 do
      feed("join", "n" .. i)
      feed("dead", "n" .. i)
    end
    assert.is_nil(next(settle.entries))
    world:run(100)
    assert.equal(500, bursts[1].passed)
    assert.equal(0, bursts[1].changes)
  end)

  it("may be fed, flushed and closed from its own callback", function ()
    settle:close()
    local calls = {}
    open({ quiet_ms = 100 }, function (burst)
      calls[#calls + 1] = names(burst.joined)
      if #calls == 1 then
        settle:feed(event("join", "b"))
        settle:flush()
        settle:feed(event("join", "c"))
      elseif #calls == 3 then
        assert.equal(0, settle:close())
      end
    end)
    settle:feed(event("join", "a"))
    world:run(200)
    assert.same({ "a", "b", "c" }, calls)
    assert.has_error(function () settle:feed(event("join", "d")) end, "swim.settle: fed after close")
  end)

  it("goes on with an empty state after a callback that raises", function ()
    settle:close()
    local calls = 0
    open({ quiet_ms = 100 }, function (burst)
      calls = calls + 1
      if calls == 1 then error("on purpose", 0) end
      assert.equal(1, burst.events)
    end)
    settle:feed(event("join", "a"))
    assert.has_error(function () world:run(100) end, "on purpose")
    settle:feed(event("join", "b"))
    world:run(100)
    assert.equal(2, calls)
  end)

  it("flushes at once when told, and close drops what is left and says how much", function ()
    assert.is_false(settle:flush())
    feed("join", "a")
    assert.is_true(settle:flush())
    assert.equal("a", names(bursts[1].joined))
    assert.is_nil(world:next_ms())
    feed("join", "b")
    feed("join", "c")
    assert.equal(2, settle:close())
    assert.equal(0, settle:close())
    world:run(1000)
    assert.equal(1, #bursts)
    assert.equal("swim.settle (closed)", tostring(settle))
  end)

  it("says what is wrong with a configuration, all of it, and wants a function", function ()
    local none, err, code = swim.settle(world, { quiet_ms = 0, most = 7 }, function () end)
    assert.is_nil(none)
    assert.equal("CONFIG", code)
    assert.is_truthy(err:find("quiet_ms: 0 is below 1", 1, true) and err:find("most: unknown option", 1, true), err)
    err = select(2, swim.settle(world, { quiet_ms = 200, most_ms = 199 }, function () end))
    assert.equal("swim.settle: most_ms must be at least quiet_ms", err)
    assert.has_error(function () swim.settle(world, {}) end, "swim.settle: on_burst: expected a function, found nil")
    assert(swim.settle(world, nil, function () end)):close()
  end)
end)
