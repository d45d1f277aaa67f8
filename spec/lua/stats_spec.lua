--- Statistics: recorded in parts, merged in any order, read by people.
local stats = require "shoal.job.stats"
local histogram = require "shoal.core.histogram"
local msgpack = require "shoal.core.msgpack"

local function part(seed, requests)
  local r = stats.recorder()
  for i = 1, requests do
    local name = i % 3 == 0 and "POST /buy" or "GET /cart"
    r:request(name, (i * 7919 * seed) % 50000000, i % 10 == 0 and (i % 20 == 0 and "timeout" or "http") or nil, 100)
    r:check("status 200", i % 10 ~= 0)
    r:time("iteration", i * 1000)
  end
  r:count("bought", requests // 3)
  r.counts.iterations = requests
  r.commands[1] = { run = "part-" .. seed, status = 0, head = "h" .. seed, tail = "", bytes = 2 }
  return r:export(1000 * seed)
end

describe("a recorder", function ()
  it("counts each request once, as ok or by its kind of error", function ()
    local record = part(1, 100)
    assert.same({
      requests = 100, ok = 90, errors = 10, iterations = 100, bytes_in = 10000, bytes_out = 0, checks_passed = 90, checks_failed = 10,
    }, record.counts)
    assert.same({ timeout = 5, http = 5 }, record.errors)
    assert.same({ passed = 90, failed = 10 }, record.checks["status 200"])
    assert.same({ bought = 33 }, record.counters)
    local all = 0
    for name, bytes in pairs(record.latency) do
      local r = record.requests[name]
      assert.equal(r.ok, histogram.decode(bytes):count())
      assert.equal(r.failed, histogram.decode(record.failures[name]):count()) -- Of failures, apart.
      all = all + r.ok + r.failed
    end
    assert.equal(100, all)
  end)

  it("exports a copy, light without histograms", function ()
    local r = stats.recorder()
    local light = r:export(5, true)
    r:request("a", 1)
    assert.equal(0, light.counts.requests)
    assert.is_nil(light.latency)
    assert.equal(5, light.elapsed_ms)
  end)

  it("never records a negative latency", function ()
    local r = stats.recorder()
    r:request("a", -5)
    assert.equal(0, histogram.decode(r:export(1).latency.a):max())
  end)
end)

describe("merging", function ()
  local parts = { part(1, 100), part(2, 57), part(3, 1), part(4, 0), {} }

  it("is order-free and associative, down to the bytes", function ()
    local want = msgpack.pack(assert(stats.merge(parts)))
    for i = 1, #parts do
      for j = 1, #parts do
        local shuffled = table.move(parts, 1, #parts, 1, {})
        shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
        assert.equal(want, msgpack.pack(assert(stats.merge(shuffled))))
        local head = assert(stats.merge(table.move(shuffled, 1, 3, 1, {})))
        local tail = assert(stats.merge(table.move(shuffled, 4, #shuffled, 1, {})))
        assert.equal(want, msgpack.pack(assert(stats.merge { tail, head })))
      end
    end
  end)

  it("sums counts, keeps the longest time, loses nothing", function ()
    local all = assert(stats.merge(parts))
    assert.equal(158, all.counts.requests)
    assert.equal(4000, all.elapsed_ms)
    assert.equal(33 + 19, all.counters.bought)
    local n = 0
    for _, field in ipairs { "latency", "failures" } do
      for _, bytes in pairs(all[field]) do n = n + histogram.decode(bytes):count() end
    end
    assert.equal(158, n)
    assert.equal(4, #all.commands)
  end)

  it("of nothing is nothing", function ()
    local summary = assert(stats.summary(assert(stats.merge {})))
    assert.equal(0, summary.requests)
    assert.equal(0, summary.requests_per_second)
    assert.is_nil(summary.latency.p99_ms)
  end)

  it("of much output keeps what fits a message", function ()
    local records = {}
    for i = 1, 20 do records[i] = { commands = { { run = ("p%02d"):format(i), head = ("x"):rep(60000), tail = ("y"):rep(60000) } } } end
    local all, total = assert(stats.merge(records)), 0
    for _, run in ipairs(all.commands) do total = total + #run.head + #run.tail end
    assert.equal(20, #all.commands)
    assert(total <= 256 * 1024 and total > 200 * 1024)
  end)

  it("refuses what is no record, by name", function ()
    for text, bad in pairs {
      ["the record"] = 5, ["counts"] = { counts = { requests = "many" } }, ["errors"] = { errors = { [1] = 2 } },
      ["counters"] = { counters = { a = 0.5 } }, ["checks"] = { checks = { a = 3 } }, ["requests"] = { requests = { a = { ok = {} } } },
      ["latency"] = { latency = { a = 3 } }, ["timers of a"] = { timers = { a = "garbage" } }, ["commands"] = { commands = { {} } },
      ["elapsed_ms"] = { elapsed_ms = "long" },
    } do
      local none, err, code = stats.merge { part(1, 3), bad }
      assert.is_nil(none)
      assert.matches(text, err)
      assert.equal("MALFORMED", code)
    end
  end)
end)

describe("a summary", function ()
  it("reads quantiles from the merged histogram, within its 1 %", function ()
    local r = stats.recorder()
    for i = 1, 1000 do r:request("a", i * 1000000) end
    local s = assert(stats.summary(r:export(2000)))
    assert.equal(500, s.requests_per_second)
    for q, field in pairs { [500] = "p50_ms", [950] = "p95_ms", [990] = "p99_ms" } do
      assert.near(q, s.latency[field], q * 0.01 + 1)
      assert.near(q, s.by_name[1][field], q * 0.01 + 1)
    end
    assert.equal(1, s.latency.min_ms)
    assert.equal(1000, s.latency.max_ms)
  end)
end)

describe("trimming", function ()
  it("cuts output evenly to a bound and leaves what fits alone", function ()
    local record = { commands = {
      { run = "a", head = ("x"):rep(100), tail = ("y"):rep(100) }, { run = "b", head = ("z"):rep(100), tail = "" },
    } }
    assert.equal(record, stats.trim(record, 300))
    local cut = stats.trim(record, 100)
    assert.same({ run = "a", head = ("x"):rep(25), tail = ("y"):rep(25) }, cut.commands[1])
    assert.same({ run = "b", head = ("z"):rep(25), tail = "" }, cut.commands[2])
    assert.equal(100, #record.commands[1].head)
    assert.equal("", stats.trim(record, 1).commands[1].tail)
  end)
end)
