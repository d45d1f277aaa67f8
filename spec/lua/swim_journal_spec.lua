--- swim.journal on a fake world: numbered events, cursors that can be stored, snapshots where they end.
local fake_world = require "spec.support.fake_world"
local member_events = require "spec.support.member_events"
local swim = require "shoal.swim"

describe("swim.journal", function ()
  local world, event, journal

  before_each(function ()
    world, event = fake_world.new(), member_events.new()
    journal = assert(swim.journal(world, { kept = 4 }))
  end)

  local function told(events)
    local out = {}
    for i, e in ipairs(events) do out[i] = ("%d %s %s"):format(e.sequence, e.kind, e.member.name) end
    return table.concat(out, ", ")
  end

  local function feed(...) return journal:feed(event(...)) end

  it("numbers events and reads on from a cursor, gaplessly, in pieces", function ()
    assert.equal(1, feed("join", "a"))
    world:run(5)
    assert.equal(2, feed("join", "b"))
    feed("suspect", "a")
    local events, cursor = journal:read(0, 2)
    assert.equal("1 join a, 2 join b", told(events))
    assert.equal(5 * 1000000, events[2].at_ns - events[1].at_ns)
    assert.equal("integer", math.type(cursor))
    assert.is_true(cursor > 0)
    events, cursor = journal:read(cursor, 2)
    assert.equal("3 suspect a", told(events))
    assert.equal(journal:cursor(), cursor)
    events, cursor = journal:read(cursor)
    assert.same({}, events)
    assert.equal(journal:cursor(), cursor)
    feed("alive", "a")
    assert.equal("4 alive a", told((journal:read(cursor))))
  end)

  it("keeps exactly `kept` events: one further back is TRUNCATED, and says how many are lost", function ()
    local start = journal:cursor()
    for i = 1, 4 do feed("join", "n" .. i) end
    assert.equal("1 join n1, 2 join n2, 3 join n3, 4 join n4", told((journal:read(start))))
    feed("dead", "n1")
    local events, err, code, snapshot = journal:read(start)
    assert.is_nil(events)
    assert.equal("TRUNCATED", code)
    assert.equal("1 events behind the cursor are no longer kept", err)
    assert.equal(1, snapshot.lost)
    assert.equal("n2 n3 n4", member_events.names(snapshot.members))
    assert.equal("TRUNCATED", select(3, journal:read(0)))
    assert.equal("2 join n2, 3 join n3, 4 join n4, 5 dead n1", told((journal:read(start + 1))))
    assert.equal(4, #journal.ring)
  end)

  it("answers a cursor of an earlier life, or of none, with EPOCH and a snapshot", function ()
    feed("join", "a")
    local later = assert(swim.journal(world, { kept = 4 }))
    assert.is_not.equal(journal.epoch, later.epoch)
    for _, cursor in ipairs { journal:cursor(), later:cursor() + 1, -1, math.maxinteger, math.mininteger, 1 } do
      local events, err, code, snapshot = later:read(cursor)
      assert.is_nil(events)
      assert.equal("EPOCH", code)
      assert.is_truthy(err:find(("%d"):format(cursor), 1, true), err)
      assert.same({}, snapshot.members)
      assert.same({}, later:read(snapshot.cursor))
    end
  end)

  it("gives a slow reader the same table as a fast one, over any events and any pauses", function ()
    for seed = 1, 40 do
      world = fake_world.new { seed = seed }
      journal = assert(swim.journal(world, { kept = 16 }))
      local states, cursor, mine, cuts = {}, 0, {}, 0
      for _ = 1, 400 do
        local name = "n" .. world:random(20)
        local kind
        if not states[name] then
          kind = "join"
        else
          kind = ({ "suspect", "alive", "update", "dead", "left" })[world:random(5)]
        end
        states[name] = kind ~= "dead" and kind ~= "left" and (kind == "suspect" and "suspect" or "alive") or nil
        feed(kind, name)
        if world:random(25) == 1 then
          repeat
            local events, next_cursor, code, snapshot = journal:read(cursor, world:random(8))
            if events then
              for _, e in ipairs(events) do
                local gone = e.kind == "dead" or e.kind == "left"
                mine[e.member.name] = not gone and e.member.state or nil
              end
              cursor = next_cursor
            else
              assert.equal("TRUNCATED", code)
              mine, cursor, cuts = {}, snapshot.cursor, cuts + 1
              for _, m in ipairs(snapshot.members) do mine[m.name] = m.state end
            end
          until cursor == journal:cursor()
          assert.same(states, mine)
        end
      end
      assert.is_true(cuts > 0)
      assert.equal(16, #journal.ring)
    end
  end)

  it("keeps copies: who changes an event after feeding it changes nothing", function ()
    local given = event("join", "a")
    journal:feed(given)
    given.member.name, given.kind = "x", "dead"
    assert.equal("1 join a", told((journal:read(0))))
    assert.equal("a", journal:snapshot().members[1].name)
  end)

  it("keeps what a member tells, which changes no table", function ()
    local given = event("user", "a")
    given.told, given.number = "hello", 3
    journal:feed(given)
    assert.same({ "user", "hello", 3 }, { journal:read(0)[1].kind, journal:read(0)[1].told, journal:read(0)[1].number })
    assert.same({}, journal:snapshot().members)
  end)

  it("begins with the members that it is given", function ()
    journal = assert(swim.journal(world, { members = { event("join", "a").member, event("suspect", "b").member, event("dead", "c").member } }))
    feed("dead", "b")
    assert.equal("a", member_events.names(journal:snapshot().members))
    assert.equal(1024, journal.kept)
  end)

  it("needs no world when it is told epoch and time", function ()
    local none, err, code = swim.journal(nil, {})
    assert.is_nil(none)
    assert.equal("CONFIG", code)
    assert.equal("swim.journal: epoch: missing, and there is no world to draw it", err)
    journal = assert(swim.journal(nil, { epoch = 7 }))
    journal:feed(event("join", "a"), 42)
    assert.equal(42, journal:read(0)[1].at_ns)
    assert.equal(7 << 36 | 1, journal:cursor())
    assert.equal("swim.journal (epoch 7, 1 events, 1 kept)", tostring(journal))
  end)

  it("refuses what is no cursor and no count, by name", function ()
    for _, bad in ipairs { "x", 1.5, {} } do
      assert.error_matches(function () journal:read(bad) end, "^swim.journal: cursor: expected an integer", nil, nil)
    end
    assert.has_error(function () journal:read(0, 0) end)
    assert.same({}, journal:read(0.0)) -- As JSON's readers give whole numbers.
    assert.is_truthy(select(2, swim.journal(world, { kept = 0 })):find("kept: 0 is below 1", 1, true))
  end)

  describe("wait", function ()
    local errors, task

    before_each(function ()
      errors, task = require "shoal.errors", require "shoal.task"
      errors.start(world, "spec")
      task.start(world)
    end)
    after_each(function ()
      task.stop()
      task.reset()
      errors.reset()
    end)

    it("ends with the next event for all who wait, at its timeout, or at once when there is more to read", function ()
      local seen = {}
      local scope = task.scope "spec"
      local cursor = journal:cursor()
      for i = 1, 2 do
        scope:spawn("spec.run", nil, function ()
          assert(journal:wait(cursor, 1000))
          seen[#seen + 1] = ("%d: %s"):format(i, told((journal:read(cursor))))
        end)
      end
      scope:spawn("spec.run", nil, function ()
        seen[#seen + 1] = select(3, journal:wait(cursor, 50))
      end)
      world:run(49)
      assert.same({}, seen)
      world:run(1)
      assert.same({ "TIMEOUT" }, seen)
      feed("join", "a")
      world:turn()
      assert.same({ "TIMEOUT", "1: 1 join a", "2: 1 join a" }, seen)
      scope:spawn("spec.run", nil, function ()
        assert(journal:wait(cursor, 1000)) -- There is more already.
        assert(journal:wait(cursor + 99, 1000)) -- An unknown cursor: read returns an error at once.
        seen[#seen + 1] = "at once"
      end)
      world:turn()
      assert.equal("at once", seen[4])
    end)

    it("is told when the journal closes; what is kept can still be read, and nothing more is fed", function ()
      local code
      feed("join", "a")
      task.scope("spec"):spawn("spec.run", nil, function () code = select(3, journal:wait(journal:cursor())) end)
      world:turn()
      journal:close()
      journal:close()
      world:turn()
      assert.equal("CLOSED", code)
      assert.equal("1 join a", told((journal:read(0))))
      assert.has_error(function () feed("join", "b") end, "swim.journal: fed after close")
    end)
  end)
end)
