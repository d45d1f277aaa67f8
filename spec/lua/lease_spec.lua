--- shoal.lease in virtual time: both sides over a world, their functions through the door. The cores' own specs are spec/core/lease_spec.lua.
local core = require "shoal.core.lease"
local errors = require "shoal.errors"
local fake_world = require "spec.support.fake_world"
local lease = require "shoal.lease"

local function sites()
  local found = {}
  for _, incident in ipairs(errors.incidents()) do found[#found + 1] = incident.site end
  return found
end

describe("shoal.lease", function ()
  local world, expired, events, open

  before_each(function ()
    errors.reset()
    world = fake_world.new()
    errors.start(world, "m1")
    expired, events, open = {}, {}, {}
  end)
  after_each(function ()
    for _, one in ipairs(open) do one:close() end
    assert(errors.balance())
    errors.reset()
    assert.equal(0, world.open) -- No timer is left.
  end)

  local function grantor(config, on_expired)
    local g = assert(lease.grantor(world, config, on_expired or function (event) expired[#expired + 1] = event end))
    open[#open + 1] = g
    return g
  end
  local function holder(config, on_event)
    local h = assert(lease.holder(world, config, on_event or function (event)
      events[#events + 1] = ("%s %s %d"):format(event.kind, event.key, event.fence)
    end))
    open[#open + 1] = h
    return h
  end

  --- What a renewal of all that is due does, with `lag_ms` from here to there and back.
  local function renew(h, g, name, lag_ms)
    local items, token = h:due()
    world:run(lag_ms or 0)
    local _, refused = g:renew(name, items)
    world:run(lag_ms or 0)
    return h:renewed(token, items, refused), items
  end

  it("grants, renews, transfers, releases and expires, with the documented codes", function ()
    local g = grantor { ttl_ms = 1000 }
    local granted = assert(g:grant("job", "w1", 10))
    assert.same({ "job", "w1", 10, 1000 }, { granted.key, granted.holder, granted.fence, granted.ttl_ms })
    local _, err, code = g:grant("job", "w2", 11)
    assert.same({ "lease job: w1 holds it with fence 10, and it has not expired", "HELD" }, { err, code })
    _, err, code = g:grant("job", "w1", 10)
    assert.same({ "lease job: fence 10 is not above the last one, 10", "STALE" }, { err, code })
    assert.same({ 2, {} }, { g:renew("w1", { { key = "job", fence = 10 }, { handle = granted.handle, fence = 10 } }) })
    assert.same({ 0, { { key = "job", fence = 9, code = "STALE" }, { key = "no", fence = 1, code = "NOT_FOUND" } } },
      { g:renew("w1", { { key = "job", fence = 9 }, { key = "no", fence = 1 } }) })
    assert.same({ 0, { { key = "job", fence = 10, code = "HELD" } } }, { g:renew("w2", { { key = "job", fence = 10 } }) })
    assert(g:transfer("job", 10, "w2", 12))
    assert.same({ "w2", 12, "held" }, { g:get("job").holder, g:get("job").fence, g:get("job").state })
    _, err, code = g:transfer("job", 12, "w1", 12)
    assert.same({ "lease job: fence 12 is not above the last one, 12", "STALE" }, { err, code })
    _, err, code = g:release("job", 10)
    assert.same({ "lease job: fence 10 is not above the last one, 12", "STALE" }, { err, code })
    assert(g:release("job", 12))
    assert.equal("past", g:get("job").state)
    _, err, code = g:release("job", 12)
    assert.same({ "lease job: fence 12 has expired, or was released", "EXPIRED" }, { err, code })
    _, err, code = g:release("job", 13)
    assert.same({ "lease job: there is none with fence 13", "NOT_FOUND" }, { err, code })
    assert(g:grant("job", "w3", 13))
    world:run(1020)
    assert.same({}, expired)
    world:run(10)
    assert.equal(1, #expired)
    local event = expired[1]
    assert.same({ "job", "w3", 13, 1000, 0 }, { event.key, event.holder, event.fence, event.duration_ms, event.remaining })
    assert.is_true(event.expired_for_ms >= 0 and event.expired_for_ms <= 10)
    local counts = g:counts()
    assert.same({ 2, 2, 1, 1, 1, 0, 0 },
      { counts.grants, counts.renewals, counts.transfers, counts.releases, counts.expired, counts.held, counts.lost })
  end)

  it("grants many at once, and says which were refused", function ()
    local tries = 0
    local g = grantor({ ttl_ms = 500, leases_max = 200 }, function () tries = tries + 1; error "not now" end)
    assert(g:grant("k1", "w1", 1))
    world:run(530)
    assert.equal(1, g:counts().undelivered)
    local items = {}
    for i = 1, 203 do items[i] = { key = "k" .. i, holder = "w" .. i % 3, fence = 10 + i } end
    items[7].key, items[9].holder = "k6", ("h"):rep(lease.HOLDER_MAX + 1)
    local granted, refused = g:grant_all(items, 60000)
    assert.same({ 200, {
      { key = "k6", fence = 17, code = "HELD" }, { key = "k9", fence = 19, code = "TOO_LARGE" },
      { key = "k203", fence = 213, code = "FULL" },
    } }, { granted, refused })
    assert.equal("w2", g:get("k200").holder)
    assert.same({ 1, 0 }, { g:counts().superseded, g:counts().undelivered }) -- k1 was granted again.
    assert.same({ 0, {} }, { g:grant_all {} })
    assert.has_error(function () g:grant_all { { key = "k", fence = 1 } } end, "lease: item 1: holder: expected a string, found nil")
  end)

  it("expires everything of one instant, and says how many remain", function ()
    local g = grantor { ttl_ms = 500 }
    for i = 1, 1000 do assert(g:grant("k" .. i, "w", i)) end
    world:run(520)
    assert.equal(1000, #expired)
    for i, event in ipairs(expired) do assert.equal(1000 - i, event.remaining) end
  end)

  it("2.3: processes the rest of a sweep when a hook raises; EXPIRED stays; delivers it again up to five times, then escalates", function ()
    local at = {}
    local g = grantor({ ttl_ms = 500, node = "m1" }, function (event)
      if event.key == "bad" then
        at[#at + 1] = world:now_ns() / 1e6
        error "orphan handling failed"
      end
      expired[#expired + 1] = event.key
    end)
    for i = 1, 3 do assert(g:grant("good" .. i, "w", i)) end
    assert(g:grant("bad", "w", 4))
    for i = 5, 7 do assert(g:grant("good" .. i, "w", i)) end
    world:run(530)
    assert.equal(6, #expired)
    assert.equal("past", g:get("bad").state)
    local incident = errors.incidents()[1]
    assert.same({ "lease.expired", "bad", "w", "m1", 4, 500 }, { incident.site, incident.ids.key, incident.ids.holder, incident.ids.node,
      incident.ids.fence, incident.ids.duration_ms })
    assert.is_number(incident.ids.remaining)
    assert.equal(1, g:counts().undelivered)
    world:run(20000)
    assert.equal(6, #at)
    for i, wait in ipairs { 500, 1000, 2000, 4000, 8000 } do assert.equal(wait, at[i + 1] - at[i]) end
    assert.is_true(errors.incidents()[6].escalated)
    assert.equal(0, g:counts().undelivered)
  end)

  it("2.3: gives up an expiry that was not accepted when its key is granted again", function ()
    local tries = 0
    local g = grantor({ ttl_ms = 500 }, function ()
      tries = tries + 1
      error "not now"
    end)
    assert(g:grant("k", "w", 1))
    world:run(530)
    assert.equal(1, tries)
    assert(g:grant("k", "x", 2, 60000))
    world:run(20000)
    assert.equal(1, tries)
    assert.same({ 1, 0 }, { g:counts().superseded, g:counts().undelivered })
  end)

  it("2.3: may be closed by its own hook; what was not accepted is reported, and nothing is called any more", function ()
    local calls, g = 0, nil
    g = grantor({ ttl_ms = 500 }, function (event)
      calls = calls + 1
      if event.key == "a" then error "refused" end
      g:close()
    end)
    assert(g:grant("a", "w", 1))
    world:run(100)
    for i = 2, 9 do assert(g:grant("k" .. i, "w", i)) end
    world:run(30000)
    assert.equal(2, calls)
    assert.same({ "lease.expired", "lease.expired" }, sites())
    assert.equal("CLOSED", errors.incidents()[2].code)
    assert.has_error(function () g:grant("k", "w", 100) end, "lease: used after close")
    g:close()
  end)

  it("goes on after a turn of its loop failed, and reports it at lease.sweep_loop", function ()
    local g = grantor { ttl_ms = 500, node = "m1" }
    assert(g:grant("k", "w", 1))
    local real = g.core
    g.core = setmetatable({ tick = function () error "out of memory" end },
      { __index = function (_, name) return function (_, ...) return real[name](real, ...) end end })
    world:run(300)
    assert.is_true(#sites() >= 1)
    assert.same({ "lease.sweep_loop", "m1", 1000 },
      { sites()[1], errors.incidents()[1].ids.node, errors.incidents()[1].ids.next_delay_ms })
    g.core = real
    world:run(3000)
    assert.equal(1, #expired)
  end)

  it("2.3: reports leases that the deadlines lost, when a sweep finds them", function ()
    local g = grantor { ttl_ms = 500, node = "m1" }
    assert(g:grant("k", "w", 1))
    local real = g.core
    local lost = 0
    g.core = setmetatable({ counts = function ()
      local counts = real:counts()
      counts.lost = lost
      return counts
    end }, { __index = function (_, name) return function (_, ...) return real[name](real, ...) end end })
    world:run(200)
    lost = 3
    world:run(3000)
    assert.same({ "lease.sweep_loop" }, sites())
    assert.equal("the sweep found 3 expired leases that the deadlines had lost; they are expired now", errors.incidents()[1].message)
    g.core = real
  end)

  it("grants and renews by a fresh clock: a turn may have begun before the message was sent", function ()
    local g = grantor { ttl_ms = 1000 }
    local turn_ns = world:now_ns()
    function world:now_ns() return turn_ns end -- A long turn of the loop.
    world:run(300)
    assert(g:grant("k", "w", 1))
    assert.equal(1020, g:get("k").left_ms)
    world.time_ns = world.time_ns + 50000000
    g:renew("w", { { key = "k", fence = 1 } })
    assert.equal(1020, g:get("k").left_ms)
    world.now_ns = nil
  end)

  it("revokes nothing straight after a pause, and nothing for a whole ttl after catch_up", function ()
    local g = grantor { ttl_ms = 1000 }
    assert(g:grant("k", "w", 1))
    world:run(500)
    world.time_ns = world.time_ns + 60000000000 -- The process does not run.
    world:turn()
    assert.same({}, expired)
    world:run(900)
    assert.same({ 1, {} }, { g:renew("w", { { key = "k", fence = 1 } }) })
    assert.equal(1, g:counts().late)
    world:run(900)
    g:catch_up()
    world:run(1000)
    assert.same({}, expired)
    world:run(30)
    assert.equal(1, #expired)
  end)

  it("holds from the instant of sending; the grantor's lease ends later, whatever the lag", function ()
    local g, h = grantor { ttl_ms = 1000 }, holder {}
    for lag = 0, 450, 50 do
      local sent_ns, fence = world:now_ns(), lag + 1
      world:run(lag)
      assert(g:grant("k", "w", fence))
      world:run(lag)
      assert(h:add("k", fence, 1000, sent_ns))
      assert.is_true(h:holds "k")
      world.time_ns = sent_ns + 980000000 - 1
      assert.is_true(h:holds "k")
      world.time_ns = sent_ns + 980000000
      assert.is_false(h:holds "k")
      assert.equal("held", g:get("k").state)
      world:run(lag + 60)
      assert.equal("expired k " .. fence, events[#events])
    end
    local _, err, code = h:add("k", 1000, 1000, world:now_ns() - 980000000)
    assert.same({ "lease k: the answer with fence 1000 came after the lease's end", "EXPIRED" }, { err, code })
    assert(h:add("k", 1000, 1000, world:now_ns() - 980000000 + 1))
  end)

  it("renews at a third of the ttl, warns at two thirds, and ends", function ()
    local g, h = grantor { ttl_ms = 3000 }, holder {}
    assert(g:grant("k", "w", 7))
    assert(h:add("k", 7, 3000, world:now_ns()))
    assert.same({}, (h:due()))
    for _ = 1, 20 do
      world:run(980)
      assert.equal(1, (renew(h, g, "w", 10)))
      assert.same({}, (h:due()))
    end
    local renewed_ns = world:now_ns() - 20000000
    assert.same({}, events)
    world.time_ns = renewed_ns
    world:run(1950)
    assert.same({}, events)
    world:run(20)
    assert.same({ "jeopardy k 7" }, events)
    assert.equal("jeopardy", h:get("k").state)
    assert.is_true(h:holds "k")
    world:run(970)
    assert.same({ "jeopardy k 7", "expired k 7" }, events)
    assert.is_nil(h:get "k")
    assert.same({}, expired)
    world:run(200)
    assert.equal(1, #expired)
  end)

  it("asks for a renewal again each twelfth, and jeopardy ends with an answer", function ()
    local h = holder {}
    assert(h:add("k", 7, 12000, world:now_ns()))
    world:run(8000)
    local items, token = h:due()
    assert.same({ { key = "k", fence = 7 } }, items)
    assert.same({}, (h:due()))
    world:run(979)
    assert.same({}, (h:due()))
    world:run(1)
    assert.equal(1, #h:due())
    assert.same({ "jeopardy k 7" }, events)
    assert.equal(1, h:renewed(token, items))
    assert.equal("held", h:get("k").state)
    assert.equal(token, world:now_ns() - 980000000)
  end)

  it("takes late, doubled and reordered answers as they were meant", function ()
    local h = holder {}
    assert(h:add("k", 7, 3000, world:now_ns()))
    world:run(1000)
    local first, first_token = h:due()
    world:run(500)
    local second, second_token = h:due()
    assert.same(first, second)
    assert.equal(1, h:renewed(second_token, second))
    local left = h:get("k").left_ms
    assert.equal(0, h:renewed(first_token, first)) -- Sent earlier: it does not count.
    assert.equal(0, h:renewed(second_token, second))
    assert.equal(left, h:get("k").left_ms)
    assert.equal(2, h:counts().late_answers)
    assert.equal(0, h:renewed(second_token, first, { { key = "k", fence = 6 } })) -- An earlier fence was refused: not ours.
    assert.is_true(h:holds "k")
    assert.equal(0, h:renewed(second_token, second, { { key = "k", fence = 7, code = "STALE" } }))
    world:turn()
    assert.same({ "expired k 7" }, events)
    assert.is_false(h:holds "k")
    assert.equal(0, h:renewed(second_token, second)) -- It is over: nothing brings it back.
    assert.is_false(h:holds "k")
  end)

  it("does not act on a lease that it did not request before a renewal was answered", function ()
    local g, h = grantor {}, holder {}
    assert(g:grant("part", "w", 3))
    assert(h:add("part", 3, 30000))
    assert.is_false(h:holds "part")
    assert.equal("pending", h:get("part").state)
    assert.equal(1, (renew(h, g, "w")))
    assert.is_true(h:holds "part")
    assert(h:add("other", 4, 30000))
    world:run(30000)
    assert.same({ "jeopardy part 3", "expired part 3", "expired other 4" }, events)
  end)

  it("renews with each grantor its own", function ()
    local h, now = holder {}, world:now_ns()
    assert(h:add("a", 1, 3000, now, "m1"))
    assert(h:add("b", 2, 3000, now, "m2"))
    assert(h:add("c", 3, 3000, now, "m1"))
    world:run(1000)
    assert.same({ "m1", "m2" }, h:due_grantors())
    assert.same({ { key = "a", fence = 1 } }, (h:due("m1", 1)))
    assert.same({ { key = "c", fence = 3 } }, (h:due "m1"))
    assert.same({ "m2" }, h:due_grantors())
    assert.same({}, (h:due "m3"))
    assert.equal("m2", h:get("b").grantor)
    assert.is_true(h:drop "b")
    assert.is_false(h:drop "b")
    assert.same({}, h:due_grantors())
  end)

  it("delivers an end again until its function accepts it, and jeopardy once", function ()
    local seen = {}
    local h = holder({ node = "w1" }, function (event)
      seen[#seen + 1] = event.kind
      if #seen < 4 then error "not stopped yet" end
    end)
    assert(h:add("k", 7, 3000, world:now_ns()))
    world:run(10000)
    assert.same({ "jeopardy", "expired", "expired", "expired" }, seen)
    assert.same({ "lease.jeopardy", "lease.lost", "lease.lost" }, sites())
    assert.same({ "k", "w1", 7 }, { errors.incidents()[2].ids.key, errors.incidents()[2].ids.node, errors.incidents()[2].ids.fence })
  end)

  it("may be closed by the holder's own function", function ()
    local calls, h = 0, nil
    h = holder({}, function () calls = calls + 1; h:close() end)
    for i = 1, 5 do assert(h:add("k" .. i, i, 3000, world:now_ns())) end
    world:run(10000)
    assert.equal(1, calls)
    assert.has_error(function () h:holds "k1" end, "lease: used after close")
  end)

  it("refuses a configuration by naming its mistakes, and opens nothing", function ()
    local before = world.open
    local function refused(make, config, text)
      local it_is, err, code = make(world, config, print)
      assert.is_nil(it_is)
      assert.equal("CONFIG", code)
      assert.matches(text, err, 1, true)
      assert.equal(before, world.open)
    end
    for _, row in ipairs {
      { "ttl_ms", core.TTL_MIN_MS, core.TTL_MAX_MS }, { "drift_ppm", 0, core.DRIFT_MAX_PPM }, { "leases_max", 1, core.TABLE_MAX },
      { "late_ms", 1, 60000 }, { "catch_up_ms", 0, 60000 }, { "past_ms", 0, core.TTL_MAX_MS }, { "sweep_ms", 10, 600000 },
    } do
      local name, min, max = table.unpack(row)
      grantor { [name] = min }:close()
      grantor { [name] = max }:close()
      refused(lease.grantor, { [name] = min - 1 }, ("%s: %d is below %d"):format(name, min - 1, min))
      refused(lease.grantor, { [name] = max + 1 }, ("%s: %d is above %d"):format(name, max + 1, max))
    end
    refused(lease.grantor, { tll_ms = 5 }, "tll_ms: unknown option, did you mean \"ttl_ms\"?")
    for _, row in ipairs { { "drift_ppm", 0, core.DRIFT_MAX_PPM }, { "leases_max", 1, core.HELD_MAX } } do
      local name, min, max = table.unpack(row)
      holder { [name] = min }:close()
      holder { [name] = max }:close()
      refused(lease.holder, { [name] = min - 1 }, ("%s: %d is below %d"):format(name, min - 1, min))
      refused(lease.holder, { [name] = max + 1 }, ("%s: %d is above %d"):format(name, max + 1, max))
    end
    assert.has_error(function () lease.grantor(world, {}) end, "lease.grantor: expected a function, found nil")
    assert.has_error(function () lease.holder(world, {}, 5) end, "lease.holder: expected a function, found number")
  end)

  it("holds each limit at its maximum and one past", function ()
    local g, h, now = grantor { leases_max = 2 }, holder { leases_max = 2 }, world:now_ns()
    local key, name = ("k"):rep(lease.KEY_MAX), ("h"):rep(lease.HOLDER_MAX)
    assert(g:grant(key, name, 1))
    local _, err, code = g:grant(key .. "k", "w", 2)
    assert.same({ "lease: a key has 1 to 255 bytes, a holder's name 1 to 64", "TOO_LARGE" }, { err, code })
    assert.equal("TOO_LARGE", select(3, g:grant("k", name .. "h", 2)))
    for _, bad in ipairs {
      { "", "w", 2 }, { "k", "", 2 }, { "k", "w", 0 }, { "k", "w", 2, 49 }, { "k", "w", 2, 3600001 }, { "k", "w", 2, 1 << 40 },
    } do
      assert.equal("CONFIG", select(3, g:grant(table.unpack(bad))))
    end
    assert(g:grant("k", "w", math.maxinteger))
    _, err, code = g:grant("l", "w", math.maxinteger)
    assert.same({ "lease l: 2 leases are held, of at most 2", "FULL" }, { err, code })
    assert(h:add(key, 1, 30000, now))
    assert.equal("TOO_LARGE", select(3, h:add(key .. "k", 1, 30000, now)))
    assert(h:add("k", 1, 30000, now))
    _, err, code = h:add("l", 1, 30000, now)
    assert.same({ "lease l: this node holds 2 leases, its limit", "FULL" }, { err, code })
    assert.equal("STALE", select(3, (function () assert(h:add("k", 5, 30000, now)) return h:add("k", 4, 30000, now) end)()))
    assert.equal("CONFIG", select(3, h:add("k", 6, 30000, now + 1000000000)))
    local many = holder {}
    for i = 1, core.GRANTORS_MAX - 1 do
      assert(many:add("k", i, 30000, now, "m" .. i)) -- One lease: each grantor but the last has none left.
    end
    assert(many:add("l", 1, 30000, now, "one more")) -- In the place of one without leases.
    local full = holder {}
    for i = 1, core.GRANTORS_MAX - 1 do assert(full:add("k" .. i, i, 30000, now, "m" .. i)) end
    assert.equal("FULL", select(3, full:add("l", 1, 30000, now, "one more")))
  end)

  it("raises for what is no lease, key, fence or item, and names it", function ()
    local g = grantor {}
    assert.has_error(function () g:renew("w", { { key = "k", fence = 1 }, { key = "k" } }) end,
      "lease: item 2: fence: expected an integer, found nil")
    assert.has_error(function () g:renew("w", { 5 }) end, "lease: item 1: expected a table, found number")
    assert.has_error(function () g:renew("w", { { fence = 5 } }) end, "lease: item 1: key: expected a string, found nil")
    assert.has_error(function () g:renew("w", { { key = "k", fence = -1 } }) end)
    assert.has_error(function () g:grant("k", "w", -1) end)
    assert.has_error(function () g:grant("k", nil, 1) end)
  end)

  it("is closed with its state, and says what it is", function ()
    local g, h = grantor {}, holder {}
    assert.equal("lease.grantor: 0 held", tostring(g.core))
    assert.equal("lease.holder: 0 held", tostring(h.core))
    g:close()
    h:close()
    assert.equal("lease.grantor: closed", tostring(g.core))
    assert.equal("lease.holder: closed", tostring(h.core))
    assert.has_error(function () g.core:deadline() end)
  end)
end)

describe("examples/lease.lua", function ()
  it("shows a grant, renewals, jeopardy, an expiry, a hand-over and a refused lower fence", function ()
    local build = os.getenv "SHOAL_BUILD" or "build/release"
    local pipe = assert(io.popen("SHOAL_BUILD=" .. build .. " timeout 20 lua5.4 examples/lease.lua 2>&1"))
    local output = pipe:read "a"
    assert(pipe:close(), output)
    local at = 1
    for _, line in ipairs { "grantor  grants db/writer to w1 with fence 101", "grantor  refuses w2: .* %[HELD%]",
      "w1       has renewed it [1-9]",
      "w1       is in jeopardy", "w1       stops", "grantor  w1's lease expired %(fence 101", "grants db/writer to w2 with fence 103",
      'disk     writes "third" from w2, fence 103', 'disk     refuses "a late one" from w1: fence 101 is lower than 103',
      'w1       does not write "another"', "%[STALE%]", "w2       releases it", "1 expiry, 1 lower fence refused\ndone\n$" } do
      local _, last = output:find(line, at)
      assert(last, line .. " is missing, or out of order, in:\n" .. output)
      at = last
    end
  end)
end)
