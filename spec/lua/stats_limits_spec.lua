--- Statistics at their limits: names, counts, output, bytes; merging in any order; and invalid records.
local histogram = require "shoal.core.histogram"
local msgpack = require "shoal.core.msgpack"
local stats = require "shoal.job.stats"

--- Whole numbers from 1 to n, the same in every run.
local function chance(seed)
  local state = seed
  return function (n)
    state = (state * 6364136223846793005 + 1442695040888963407)
    return ((state >> 33) % n) + 1
  end
end

local function shuffled(list, random)
  local out = table.move(list, 1, #list, 1, {})
  for i = #out, 2, -1 do
    local j = random(i)
    out[i], out[j] = out[j], out[i]
  end
  return out
end

local function accumulate(records)
  local acc = stats.accumulator()
  for _, record in ipairs(records) do
    assert(stats.check(record))
    acc:add(record)
  end
  return acc
end

local function packed(record) return assert(msgpack.pack(record)) end

local function bytes_of(...)
  local h = histogram.new()
  for _, value in ipairs { ... } do h:record(value) end
  return h:encode()
end

--- A record of random names out of `pool`.
local function random_record(random, pool, number, output)
  local r = stats.recorder()
  for _ = 1, random(40) do
    local name = "n" .. random(pool)
    r:request(name, random(1 << 30), random(4) == 1 and "kind" .. random(pool) or nil, random(1000))
    r:check("check " .. random(pool), random(2) == 1)
    r:count("counter " .. random(pool), random(100) - 50)
    r:time("timer " .. random(pool), random(1 << 40))
  end
  for i = 1, random(3) do
    r.commands[i] = {
      run = ("part/%d#%d"):format(number, i), status = random(3) - 1, head = ("h"):rep(random(output)), tail = ("t"):rep(random(output)),
      bytes = random(100000),
    }
  end
  return r:export(random(100000))
end

describe("an accumulator", function ()
  it("gives the same in every order and grouping, with more names than a map keeps", function ()
    for seed = 1, 6 do
      local random, records = chance(seed), {}
      for i = 1, 30 do records[i] = random_record(random, 700, i, 50) end
      local want = packed(accumulate(records):record())
      for _ = 1, 3 do
        local order = shuffled(records, random)
        assert.equal(want, packed(accumulate(order):record()))
        local groups, at = {}, 1
        while at <= #order do
          local size = random(12)
          groups[#groups + 1] = accumulate(table.move(order, at, math.min(at + size - 1, #order), 1, {})):record()
          at = at + size
        end
        assert.equal(want, packed(accumulate(groups):record()))
      end
    end
  end)

  it("cuts output the same in every order", function ()
    for seed = 1, 5 do
      local random, records = chance(seed), {}
      for i = 1, 60 do records[i] = random_record(random, 5, i, 20000) end
      local all = accumulate(records):record()
      local total = 0
      for _, run in ipairs(all.commands) do total = total + #run.head + #run.tail end
      assert(total <= stats.OUTPUT_MAX)
      assert(all.cut.output_bytes > 0)
      for _ = 1, 4 do assert.equal(packed(all), packed(accumulate(shuffled(records, random)):record())) end
    end
    local big, small = ("x"):rep(65536), "y" -- An early cut leaves room that no other order has.
    local records, turned = {}, {}
    for i = 1, 5 do records[i] = { commands = { { run = "big" .. i, head = big, tail = big } } } end
    for i = 6, 7 do records[i] = { commands = { { run = "small" .. i, head = small } } } end
    for i = 1, 7 do turned[i] = records[8 - i] end
    assert.equal(packed(accumulate(records):record()), packed(accumulate(turned):record()))
  end)

  it("keeps COMMANDS_MAX runs, failed ones first, and counts the others", function ()
    local random, records = chance(3), {}
    for i = 1, stats.COMMANDS_MAX do records[i] = { commands = { { run = ("p/%05d"):format(i), status = 0, head = "ok" } } } end
    local all = accumulate(records):record()
    assert.equal(stats.COMMANDS_MAX, #all.commands)
    assert.is_nil(all.cut)
    for i = 1, 2 * stats.COMMANDS_MAX do
      records[#records + 1] = { commands = { { run = ("q/%05d"):format(i), status = i % 100 == 0 and 1 or 0 } } }
    end
    all = accumulate(records):record()
    assert.equal(stats.COMMANDS_MAX, #all.commands)
    assert.equal(2 * stats.COMMANDS_MAX, all.cut.commands)
    local failed = 0
    for _, run in ipairs(all.commands) do failed = failed + run.status end
    assert.equal(20, failed)
    assert.equal(packed(all), packed(accumulate(shuffled(records, random)):record()))
    local half = accumulate(table.move(records, 1, 1500, 1, {})):record()
    local rest = accumulate(table.move(records, 1501, #records, 1, {})):record()
    assert.equal(packed(all), packed(accumulate({ rest, half }):record()))
  end)

  it("goes on from its bytes as if it had never stopped", function ()
    for seed = 1, 5 do
      local random, records = chance(seed), {}
      for i = 1, 60 do records[i] = random_record(random, 300, i, 9000) end
      records[61] = { cut = { names = 3 } }
      local want = packed(accumulate(records):record())
      local acc = stats.accumulator()
      for i, record in ipairs(records) do
        acc:add(record)
        if i % 7 == 0 then
          local bytes = acc:bytes()
          acc = assert(stats.of_bytes(bytes))
          assert.equal(bytes, acc:bytes())
        end
      end
      assert.equal(want, packed(acc:record()))
    end
  end)

  it("refuses bytes that are none of its own", function ()
    for _, bad in ipairs { "", "\xc1", msgpack.pack(5), msgpack.pack {}, msgpack.pack { record = 5 },
      msgpack.pack { record = {}, commands_added = "x", output_added = 0 }, msgpack.pack { record = {}, commands_added = 0, output_added = -1 },
    } do
      local none, err, code = stats.of_bytes(bad)
      assert.is_nil(none)
      assert.is_string(err)
      assert.equal("MALFORMED", code)
    end
  end)

  it("saturates counts and wraps counters, in any order", function ()
    local max = 1 << 53
    local records = {
      { counts = { requests = max }, errors = { a = max - 1 }, counters = { c = math.maxinteger } },
      { counts = { requests = 1 }, errors = { a = 1 }, counters = { c = 1 } },
      { counts = { requests = max }, errors = { a = 5 }, counters = { c = -7 } },
    }
    local all = accumulate(records):record()
    assert.same({ requests = max }, all.counts)
    assert.same({ a = max }, all.errors)
    assert.same({ c = math.mininteger - 7 }, all.counters)
    assert(stats.check(all))
    assert.equal(packed(all), packed(accumulate({ records[3], records[2], records[1] }):record()))
  end)
end)

describe("names", function ()
  local function recorded(count, names)
    local r = stats.recorder()
    for i = 1, names do
      local name = ("name %05d"):format((i * 7919) % names)
      for _ = 1, count do
        r:check(name, true)
        r:count(name, 2)
        r:time(name, 5)
        r:request(name, 5, "kind of " .. name)
      end
    end
    return r:export(1)
  end

  it("are kept at NAMES_MAX, and one past it shares an entry with others", function ()
    local full = recorded(1, stats.NAMES_MAX)
    for _, field in ipairs { "checks", "counters", "timers", "requests", "latency", "errors" } do assert.is_nil(full[field][stats.OTHER]) end
    local past = recorded(1, stats.NAMES_MAX + 1)
    assert.same({ passed = 1, failed = 0 }, past.checks[stats.OTHER])
    assert.equal(2, past.counters[stats.OTHER])
    assert.equal(1, histogram.decode(past.timers[stats.OTHER]):count())
    assert.equal(1, past.errors[stats.OTHER])
    assert(stats.check(past))
  end)

  it("lose no number, however many there are", function ()
    local record = recorded(3, 60000)
    local n = { checks = 0, counters = 0, requests = 0, errors = 0 }
    for _, entry in pairs(record.checks) do n.checks = n.checks + entry.passed end
    for _, count in pairs(record.counters) do n.counters = n.counters + count end
    for _, entry in pairs(record.requests) do n.requests = n.requests + entry.failed end
    for _, count in pairs(record.errors) do n.errors = n.errors + count end
    assert.same({ checks = 180000, counters = 360000, requests = 180000, errors = 180000 }, n)
    assert(#packed(record) < 64 * 1024)
    assert(stats.check(record))
  end)

  it("that are kept have all their numbers, wherever they were recorded and whatever pushed others out", function ()
    local parts = {}
    for p = 1, 5 do
      local r = stats.recorder()
      for i = 1, 3000 do r:count(("c%04d"):format((i * (2 * p + 1)) % 3001), 1) end
      parts[p] = r:export(1)
    end
    local all = accumulate(parts):record()
    assert.equal(5, all.counters.c0001)
    assert.equal(5, all.counters.c0200 or all.counters.c0199)
    local sum = 0
    for _, n in pairs(all.counters) do sum = sum + n end
    assert.equal(15000, sum)
  end)

  it("leave our own timer apart, whatever a script calls its own", function ()
    local r = stats.recorder()
    for i = 1, 1000 do
      r:time(("a%04d"):format(i), 1)
      r:time("iteration", 2)
      r:measure("iteration", 3)
    end
    local record = r:export(1)
    assert.equal(1000, histogram.decode(record.own.iteration):count())
    assert.equal(3, histogram.decode(record.own.iteration):min())
    assert.equal(1800, histogram.decode(record.timers[stats.OTHER]):count())
    assert(stats.check(record))
  end)

  it("are at most NAME_BYTES_MAX long, and apart all the same", function ()
    local long = ("x"):rep(stats.NAME_BYTES_MAX)
    assert.equal(long, stats.short(long))
    local one, two = stats.short(long .. "1"), stats.short(long .. "2")
    assert.equal(stats.NAME_BYTES_MAX, #one)
    assert.equal(stats.NAME_BYTES_MAX, #two)
    assert.not_equal(one, two)
    local r = stats.recorder()
    r:check(long .. "1", true)
    r:count("\0\xff" .. long, 1)
    r:time(long .. "1", 1)
    r:request(long .. "1", 1, long .. "2")
    local record = r:export(1)
    assert(stats.check(record))
    assert.same({ passed = 1, failed = 0 }, record.checks[one])
    assert.equal(1, record.errors[two])
  end)
end)

describe("what is no record", function ()
  local h = bytes_of(1, 2, 3)

  it("is refused, whatever part of it is not right", function ()
    local names = {}
    for i = 1, stats.NAMES_MAX + 1 do names[("n%d"):format(i)] = 1 end
    for text, bad in pairs {
      ["a name in counts"] = { counts = { [("x"):rep(201)] = 1 } }, ["number of names in counters"] = { counters = names },
      ["counts of a"] = { counts = { a = -1 } }, ["errors of a"] = { errors = { a = (1 << 53) + 1 } },
      ["latency of a"] = { latency = { a = h .. "x" } }, ["timers of a"] = { timers = { a = "" } },
      ["checks of a"] = { checks = { a = { passed = -1 } } }, ["requests of a"] = { requests = { a = { failed = 0.5 } } },
      ["elapsed_ms"] = { elapsed_ms = -1 }, ["cut"] = { cut = { a = "b" } },
      ["commands"] = { commands = { { run = "x", head = 5 } } },
    } do
      local ok, err, code = stats.check(bad)
      assert.is_nil(ok)
      assert.matches(text, err)
      assert.equal("MALFORMED", code)
    end
    for _, command in ipairs {
      { run = 5 }, { run = ("x"):rep(401) }, { run = "x", tail = {} }, { run = "x", status = "1" }, { run = "x", signal = 0.5 },
      { run = "x", bytes = -1 }, { run = "x", elapsed_ms = "long" }, "x",
    } do
      assert.is_nil((stats.check { commands = { command } }))
    end
    for _, list in ipairs { { [2] = { run = "x" } }, { a = { run = "x" } }, { { run = "x" }, nil, { run = "y" } } } do
      assert.is_nil((stats.check { commands = list }))
    end
  end)

  it("is not what lies exactly at the limits", function ()
    local names, cut = { [stats.OTHER] = 1 }, {}
    for i = 1, stats.NAMES_MAX do names[("n%03d"):format(i) .. ("x"):rep(196)] = 1 << 53 end
    for i = 1, 16 do cut["c" .. i] = 1 end
    assert(stats.check {
      counts = names, errors = names, counters = { a = math.mininteger }, cut = cut, elapsed_ms = 1 << 53,
      commands = { { run = ("x"):rep(400), status = math.mininteger, signal = math.maxinteger, head = "\0", tail = "" } },
    })
    cut.c17 = 1
    assert.is_nil((stats.check { cut = cut }))
  end)

  it("never makes a reader fail when it is taken: random shapes", function ()
    local random, taken = chance(99), 0
    local function value(depth)
      local kind = random(depth > 3 and 6 or 8)
      if kind == 1 then return random(100) end
      if kind == 2 then return "s" .. random(5) end
      if kind == 3 then return random(3) / 2 end
      if kind == 4 then return random(2) == 1 end
      if kind == 5 then return h end
      if kind == 6 then return ({ math.maxinteger, math.mininteger, -1, 1 << 53 })[random(4)] end
      local out = {}
      for i = 1, random(4) do
        local key = ({ i, "ok", "failed", "run", "head", "passed", "status", "a", "signal", stats.OTHER })[random(10)]
        out[key] = value(depth + 1)
      end
      return out
    end
    local good = {
      counts = { a = 1 << 53 }, errors = { a = 1, [stats.OTHER] = 2 }, counters = { a = math.mininteger },
      requests = { a = { ok = 5 }, b = {} },
      checks = { a = { failed = 1 << 53 } }, latency = { a = h }, timers = { a = h, b = bytes_of() }, elapsed_ms = 5, cut = { names = 1 },
      commands = { { run = "x", status = -1, head = "h" }, { run = "x" }, { run = "x", signal = math.mininteger, tail = "t" } },
    }
    local fields = { "counts", "errors", "counters", "requests", "checks", "latency", "timers", "commands", "elapsed_ms", "cut" }
    for _ = 1, 5000 do
      local record = {}
      for _ = 1, random(4) do
        local field = fields[random(#fields)]
        record[field] = random(4) == 1 and value(1) or good[field]
      end
      if stats.check(record) then
        taken = taken + 1
        local acc = accumulate { record, record }
        local sum = acc:record()
        assert(stats.check(sum))
        assert(stats.of_bytes(acc:bytes()))
        assert(stats.summary(sum))
        assert(stats.summary(stats.fit(record, stats.FIT_LEAST)))
      end
    end
    assert(taken > 500 and taken < 4500)
  end)
end)

describe("a part's result", function ()
  local incident = { id = "n#1", node = "n", site = "exec.vu", level = "warning", message = "m", where = "x.lua:1", count = 2 }
  local attempt = {
    workflow = "w", part = "w/1", attempt = 1, executor = "e", state = "lost", reason = "died", stats = { requests = 5 }, dc = "a",
  }

  it("is read whole, with the known fields only", function ()
    local inner = assert(stats.readable(msgpack.pack {
      stats = { counts = { requests = 1 } }, incidents = { incident }, attempts = { attempt }, other = 5, cut = { incidents = 3 },
    }))
    assert.same({ stats = { counts = { requests = 1 } }, incidents = { incident }, attempts = { attempt }, cut = { incidents = 3 } }, inner)
    assert.same({ stats = {}, incidents = {} }, assert(stats.readable(msgpack.pack {})))
  end)

  local function but(of, field, value)
    local out = {}
    for k, v in pairs(of) do out[k] = v end
    out[field] = value
    return out
  end

  it("is refused for anything in it that a reader could fail at", function ()
    local bad = {
      { stats = 5 }, { stats = { commands = { { run = "x", head = 5 } } } }, { stats = false }, { incidents = { 5 } }, { incidents = "x" },
      { incidents = { a = incident } }, { attempts = { 5 } }, { attempts = 7 }, { cut = { a = -1 } },
    }
    for field, value in pairs { id = {}, node = 5, site = false, level = 1, message = {}, where = 5, count = "x" } do
      bad[#bad + 1] = { incidents = { but(incident, field, value) } }
    end
    for field, value in pairs {
      workflow = 5, part = 5, attempt = "1", executor = {}, state = 5, reason = {}, stats = { requests = "x" }, dc = 5,
    } do
      bad[#bad + 1] = { attempts = { but(attempt, field, value) } }
    end
    for i, inner in ipairs(bad) do
      local none, err, code = stats.readable(msgpack.pack(inner))
      assert.is_nil(none, tostring(i))
      assert.is_string(err)
      assert.equal("MALFORMED", code)
    end
    for _, bytes in ipairs { "", "\xc1", msgpack.pack "x", ("\x91"):rep(100), 5 } do assert.is_nil((stats.readable(bytes))) end
  end)

  it("has at most INCIDENTS_MAX incidents, ATTEMPTS_MAX attempts and RESULT_MAX bytes", function ()
    local function many(one, n)
      local out = {}
      for i = 1, n do out[i] = one end
      return out
    end
    local small = { part = "p", attempt = 1, state = "lost" }
    assert(stats.readable(msgpack.pack { incidents = many(incident, stats.INCIDENTS_MAX) }))
    assert.is_nil((stats.readable(msgpack.pack { incidents = many(incident, stats.INCIDENTS_MAX + 1) })))
    assert(stats.readable(msgpack.pack { attempts = many(small, stats.ATTEMPTS_MAX) }))
    assert.is_nil((stats.readable(msgpack.pack { attempts = many(small, stats.ATTEMPTS_MAX + 1) })))
    local around = #msgpack.pack { other = ("x"):rep(100000) } - 100000
    assert(stats.readable(msgpack.pack { other = ("x"):rep(stats.RESULT_MAX - around) }))
    assert.is_nil((stats.readable(msgpack.pack { other = ("x"):rep(stats.RESULT_MAX - around + 1) })))
  end)
end)

--- A record that is large in every field that a script can fill.
local function heavy(names, commands, output)
  local r, random = stats.recorder(), chance(5)
  for i = 1, names do
    local name = ("%04d "):format(i) .. ("x"):rep(150)
    for _ = 1, i do
      r:request(name, random(1 << 50))
      r:check(name, true)
      r:time(name, random(1 << 50))
    end
    r:count(name, i)
    r:failure(name)
  end
  for i = 1, commands do
    r.commands[i] = { run = "p#" .. i, status = i % 10, signal = 0, head = ("h"):rep(output), tail = ("t"):rep(output), bytes = 3 * output }
  end
  return r:export(1000)
end

describe("fitting", function ()
  it("cuts any record to any size, and neither it nor its summary is larger", function ()
    local light = stats.recorder() -- Its summary is several times as large.
    for i = 1, stats.NAMES_MAX do light:request("n" .. i, 1) end
    for _, record in ipairs { light:export(1), heavy(200, 0, 0), heavy(10, 2000, 500), heavy(200, 30, 60000), heavy(0, 20000, 0) } do
      for _, max in ipairs { stats.FIT_LEAST, 32 * 1024, 100 * 1024, 512 * 1024, 1024 * 1024 } do
        local cut = stats.fit(record, max)
        assert(stats.check(cut))
        assert(#packed(cut) <= max)
        assert(#packed(assert(stats.summary(cut))) <= max)
        assert.same(record.counts, cut.counts)
        assert(cut == record or next(cut.cut) ~= nil)
      end
    end
    assert.has_error(function () stats.fit({}, stats.FIT_LEAST - 1) end)
  end)

  it("drops output first, then the lightest names, then histograms, then commands", function ()
    local record = heavy(200, 30, 60000)
    local cut = stats.fit(record, 1024 * 1024)
    assert(cut.cut.output_bytes > 0)
    assert.is_nil(cut.cut.histograms)
    assert.equal(30, #cut.commands)
    cut = stats.fit(heavy(200, 0, 0), 64 * 1024)
    assert(cut.cut.names > 0)
    assert(cut.requests[("%04d "):format(200) .. ("x"):rep(150)]) -- The heaviest.
    assert.is_nil(cut.requests[("%04d "):format(1) .. ("x"):rep(150)])
    local sum = 0
    for _, entry in pairs(cut.requests) do sum = sum + entry.ok end
    assert.equal(200 * 201 // 2, sum)
    for name in pairs(cut.latency) do assert(cut.requests[name]) end
  end)

  it("says the same again: what was cut before is added up", function ()
    local record = heavy(50, 3, 30000)
    record.cut = { names = 7, output_bytes = 5 }
    local cut = stats.fit(record, 32 * 1024)
    assert(cut.cut.names > 7)
    assert(cut.cut.output_bytes > 5)
    assert.same({ names = 7, output_bytes = 5 }, record.cut)
  end)
end)

describe("packing a part's result", function ()
  it("has at most PART_MAX bytes and is readable, whatever is in it", function ()
    local incidents, attempts = {}, {}
    for i = 1, 300 do
      incidents[i] = { id = "n#" .. i, node = "n", site = "s", level = "error", message = ("m"):rep(5000), where = ("w"):rep(5000) }
    end
    for i = 1, 12000 do
      attempts[i] = { part = "p/" .. i, attempt = 1, state = "lost", reason = ("r"):rep(100), stats = { requests = i, ok = i } }
    end
    local bytes = stats.pack { stats = heavy(200, 30, 60000), incidents = incidents, attempts = attempts }
    assert(#bytes <= stats.PART_MAX)
    local inner = assert(stats.readable(bytes))
    assert(#inner.incidents <= stats.INCIDENTS_MAX and #inner.incidents > 10)
    assert.equal(300, #inner.incidents + inner.cut.incidents)
    assert.equal(12000, #inner.attempts + inner.cut.attempts)
    assert.equal(200 * 201 // 2, inner.stats.counts.requests)
    assert(#stats.pack({ stats = heavy(200, 30, 60000) }, 2 * 1024 * 1024) <= 2 * 1024 * 1024)
  end)

  it("leaves a small one as it is, and says nothing of cuts", function ()
    local record = heavy(3, 1, 10)
    local inner = assert(stats.readable(stats.pack { stats = record, incidents = {} }))
    assert.is_nil(inner.cut)
    assert.is_nil(inner.attempts)
    assert.same(record, inner.stats)
  end)
end)

describe("what is certainly small", function ()
  local function command(fields)
    local run = { run = "w/1#1", status = 0, signal = 0, head = "a", tail = "b", bytes = 2, elapsed_ms = 1 }
    for k, v in pairs(fields or {}) do run[k] = v end
    return run
  end
  local LARGE = ("x"):rep(20000)

  it("is not packed to see it; what might be large is, each field of it", function ()
    local counts = {}
    for i = 1, 200 do counts[("count %03d "):format(i) .. ("y"):rep(190)] = 1 end
    local runs = {}
    for i = 1, 300 do runs[i] = command { run = ("w/%d#1 "):format(i) .. ("z"):rep(100) } end
    for what, record in pairs {
      counts = { counts = counts }, commands = { commands = runs }, head = { commands = { command { head = LARGE } } },
      ["a run's name"] = { commands = { command { run = LARGE } } }, ["an unknown field"] = { more = { LARGE } },
      ["an unknown text"] = { more = LARGE }, ["a run's unknown field"] = { commands = { command { more = LARGE } } },
    } do
      assert.not_equal(record, stats.fit(record, stats.FIT_LEAST), what)
    end
    for _, record in ipairs { {}, { counts = { ok = 1 }, elapsed_ms = 3, commands = { command(), command() }, checks = {}, errors = {} } } do
      assert.equal(record, stats.fit(record, stats.FIT_LEAST))
      assert.equal(record, stats.trim(record, stats.OUTPUT_MAX))
    end
  end)

  it("packs to the same bytes as what is measured part by part", function ()
    local r = stats.recorder()
    r:request("GET /", 1000, nil, 5)
    r:time("t", 7)
    r:check("c", true)
    local incident = { id = "w1-1", node = "w1", site = "s", level = "error", message = ("m"):rep(300), where = "x:1", count = 2 }
    local attempt = { part = "w/1", attempt = 1, state = "completed" }
    for _, inner in ipairs {
      { stats = r:export(5), incidents = { incident } }, { stats = r:export(5), incidents = { incident }, attempts = { attempt } }, {},
      { stats = { commands = { command() }, counts = { iterations = 1 } }, incidents = {} },
    } do
      local least = 4 * stats.FIT_LEAST -- An eighth of it is 8 KiB.
      local many = {}
      for i = 1, 40 do many[i] = incident end
      local bytes = stats.pack(inner, least)
      local whole = stats.readable(bytes)
      assert.equal(bytes, stats.pack(inner))
      assert.is_nil(whole.cut)
      inner.incidents = many -- Past the eighth: measured part by part, and cut.
      local cut = assert(stats.readable(stats.pack(inner, least)))
      assert(#cut.incidents < 40 and cut.cut.incidents == 40 - #cut.incidents)
      assert.same(whole.stats, cut.stats)
    end
  end)
end)
