--- What `shoal submit` and `shoal status` show of a job's numbers.
local histogram = require "shoal.core.histogram"
local numbers = require "shoal.cli.numbers"
local render = require "shoal.cli.render"
local stats = require "shoal.job.stats"

--- A result of one workflow, whose recorder `fill` fills.
local function result(fill, more)
  local r = stats.recorder()
  r.load_from_us, r.load_to_us = 0, 10000000
  fill(r)
  local s = assert(stats.summary(r:export(12000)))
  local out = { job = "j-1", state = "completed", elapsed_ms = 12000, stats = s }
  out.workflows = { { workflow = "w", state = "completed", stats = s } }
  for key, value in pairs(more or {}) do out[key] = value end
  return out
end

local function lines_of(fn, value)
  local out = {}
  fn(value, function (format, ...) out[#out + 1] = format:format(...) end)
  return out
end
local function has(text, what) assert.truthy(text:find(what, 1, true), text) end

describe("the numbers of a job", function ()
  it("show rates of the load, iterations, timers, and failures apart from what worked", function ()
    local text = render.result(result(function (r)
      for i = 1, 90 do r:request("GET /a", i * 100000) end
      for _ = 1, 10 do r:request("GET /b", 2000000000, "timeout") end
      for _ = 1, 100 do
        r:measure("iteration", 5000000)
        r:time("db", 3000000)
      end
      r:beside("setup", "GET /login", 1000000)
      r.counts.iterations = 100
    end))
    assert.matches("w +completed  100 +100 +10 +10.0/s  4.%d%d ms", text)
    assert.matches("w: iterations +100 +[45].%d%d ms", text)
    assert.matches("w: timer db +100 +[23].%d%d ms", text)
    assert.matches("w: failed requests +10 +[12].%d%d s", text)
    assert.matches("w: %(setup%) GET /login +1 ", text)
    assert.matches("w: GET /a +90 ", text)
    has(text, "errors by kind: timeout 10 (10 %)\n")
    assert.is_nil(text:find("WARNING", 1, true))
  end)

  it("of a script without requests are no row of zeros", function ()
    local text = render.result(result(function (r)
      r.counts.iterations = 5
      r:time("db", 5000000)
    end))
    assert.matches("w +completed  5 +%-  +%-  +0.50 it/s +%- ", text)
    assert.matches("w: timer db +1 ", text)
  end)

  it("count script errors by iterations, never as shares of requests", function ()
    local text = render.result(result(function (r)
      r.counts.iterations = 40
      for _ = 1, 40 do r:failure("script") end
      for _ = 1, 4 do r:request("GET /", 1, "refused") end
      r:beside("teardown", "GET /", 1, "http")
    end))
    has(text, "errors by kind: refused 4 (100 %)\n")
    has(text, "(teardown) http 1; script errors: 40 in 40 iterations\n")
  end)

  it("warn of checks that never passed, and say which threshold fails the job", function ()
    local all = result(function (r) for _ = 1, 178 do r:check("ok", false) end end)
    assert.same({ 'WARNING: every check of w failed, 178 times: "ok"; with max_failed_checks_share in the job file that fails the job' },
      lines_of(numbers.warnings, all))
    all.workflows[1].state = "failed"
    assert.same({}, lines_of(numbers.warnings, all))
    local some = result(function (r)
      r:check("a", true)
      for i = 1, 7 do r:check("b" .. i, false) end
      r:check("c", true)
      r:check("c", false)
    end)
    assert.same({ 'WARNING: checks of w that never passed: "b1", "b2", "b3", "b4", "b5" and 2 more' }, lines_of(numbers.warnings, some))
    assert.same({}, lines_of(numbers.warnings, result(function (r) r:check("a", true) end)))
  end)

  it("warn of requests none of which worked", function ()
    local lines = lines_of(numbers.warnings, result(function (r) for _ = 1, 20 do r:request("GET /", 1, "http") end end))
    assert.same({ "WARNING: every request of w failed: http 20 (100 %); with max_failed_share in the job file that fails the job" }, lines)
  end)

  it("say when an open loop did not reach its rate, and what was dropped", function ()
    local function paced(iterations, more)
      return result(function (r)
        r.counts.iterations, r.wanted_milli = iterations, 100000
        for name, n in pairs(more) do r:tally(name, n) end
      end)
    end
    assert.same({ "WARNING: w: rate 19.0/s of 100/s wanted; 810 iterations dropped, 98 began late; more vus, or parts that run side by side, "
      .. "may reach it" }, lines_of(numbers.warnings, paced(190, { dropped = 810, late = 98 })))
    assert.equal(1, #lines_of(numbers.warnings, paced(940, { late = 98 })))
    assert.equal(1, #lines_of(numbers.warnings, paced(999, { dropped = 1 })))
    assert.same({}, lines_of(numbers.warnings, paced(960, { late = 98 })))
    assert.same({ "w: 3 iterations were interrupted: they had not ended when the load did (see graceful_ms)" },
      lines_of(numbers.warnings, paced(1000, { interrupted = 3 })))
  end)

  it("show equal incidents as one line with their count, and others apart", function ()
    local incidents = {}
    for part = 1, 4 do
      for n = 1, 5 do
        incidents[#incidents + 1] = { id = ("w/%d#1-%d"):format(part, n), node = ("w/%d#1"):format(part), level = "warning", site = "exec.vu",
          message = "attempt to index a nil value (local 'x')", where = "s.lua:2" }
      end
    end
    incidents[#incidents + 1] = { id = "m-1", node = "m", level = "error", site = "lead.dispatch", message = "refused", where = "?" }
    local text = render.result(result(function () end, { incidents = incidents }))
    has(text, "incidents: 21\n")
    has(text, "  w/1#1-1 and 19 like it on w/1#1, w/2#1, w/3#1, w/4#1: warning  exec.vu: attempt to index a nil value (local 'x') (s.lua:2)\n")
    has(text, "  m-1 on m: error    lead.dispatch: refused")
    assert.equal(1, select(2, text:gsub("attempt to index", "")))
  end)

  it("show at most 20 of a list's rows, the weighty ones, and how many more there are", function ()
    local text = render.result(result(function (r)
      for i = 1, 60 do
        for _ = 1, i do
          r:request(("GET /%02d"):format(i), 1000)
          r:check(("c%02d"):format(i), i ~= 33)
        end
      end
    end))
    has(text, "w: GET /60")
    assert.is_nil(text:find("w: GET /40", 1, true))
    has(text, "(40 more names; --output json has them)")
    has(text, 'check "c33": 0 passed, 33 failed\ncheck "c01"')
    has(text, "(40 more checks; --output json has them)")
  end)

  it("keep each name on its line", function ()
    local text = render.result(result(function (r)
      r:check('a\n"b\\', true)
      r:time("c\nd", 1)
      r:count("e\nf", 1)
    end))
    has(text, 'check "a\\n\\"b\\\\": 1 passed')
    has(text, "w: timer c\\nd")
    has(text, "counters: e\\nf 1\n")
  end)

  it("are grouped by thousands, and rates have three digits", function ()
    for want, n in pairs { ["0"] = 0, ["999"] = 999, ["1,000"] = 1000, ["12,345"] = 12345, ["123,456"] = 123456, ["1,234,567"] = 1234567 } do
      assert.equal(want, numbers.grouped(n))
    end
    for want, n in pairs { ["0.25/s"] = 0.25, ["19.8/s"] = 19.84, ["100/s"] = 99.95, ["1,235/s"] = 1234.6 } do
      assert.equal(want, numbers.rate(n))
    end
  end)
end)

describe("stretches of load", function ()
  local function union(list, max)
    local out = {}
    for _, span in ipairs(list) do stats.union(out, span[1], span[2]) end
    assert(#out <= (max or stats.SPANS_MAX))
    return out
  end

  it("unite where they overlap or touch, in any order", function ()
    assert.same({ { 0, 30 } }, union { { 0, 10 }, { 20, 30 }, { 10, 20 } })
    assert.same({ { 0, 10 }, { 15, 30 } }, union { { 20, 30 }, { 0, 10 }, { 15, 25 }, { 3, 4 } })
    assert.same({ { 5, 5 } }, union { { 5, 5 } })
    assert.equal(25, stats.total { { 0, 10 }, { 15, 30 } })
    assert.same({ { -5, 5 } }, stats.shifted({ { 0, 10 } }, -5))
  end)

  it("are SPANS_MAX at most; past that the smallest gap is closed", function ()
    local list = {}
    for i = 1, stats.SPANS_MAX do list[i] = { i * 100, i * 100 + 50 } end
    assert.equal(stats.SPANS_MAX, #union(list))
    list[#list + 1] = { 0, 98 } -- 2 before the first.
    local out = union(list)
    assert.equal(stats.SPANS_MAX, #out)
    assert.same({ 0, 150 }, out[1])
    assert.equal(50 * stats.SPANS_MAX + 98 + 2, stats.total(out))
  end)

  it("are checked in a record, and their sum is the merged one's", function ()
    local many = {}
    for i = 1, stats.SPANS_MAX + 1 do many[i] = { 2 * i, 2 * i } end
    for _, bad in ipairs { 5, { 5 }, { { 1 } }, { { 2, 1 } }, { { 0.5, 1 } }, { { 0, math.maxinteger } }, { x = { 1, 2 } }, many } do
      local good, err = stats.check { load = bad }
      assert.is_nil(good)
      assert.matches("load", err)
    end
    assert(stats.check { load = { { -5, 7 }, { 8, 8 } }, wanted_milli = 5 })
    local sum = stats.accumulator()
    sum:add({ load = { { 0, 1000000 } }, counts = { requests = 10 }, wanted_milli = 5000 }, 500000)
    sum:add({ load = { { 0, 1000000 } }, counts = { requests = 30 }, wanted_milli = 7000 }, 1000000)
    sum = assert(stats.of_bytes(sum:bytes()))
    local record = sum:record()
    assert.same({ { 500000, 2000000 } }, record.load)
    assert.equal(12000, record.wanted_milli)
    assert.equal(40 / 1.5, assert(stats.summary(record)).requests_per_second)
    assert.equal(1500, assert(stats.summary(record)).load_ms)
    assert.equal(20, assert(stats.summary { counts = { requests = 40 }, elapsed_ms = 2000 }).requests_per_second) -- Of an older node.
  end)

  it("leave names of setup their own room, and raw latencies theirs", function ()
    local r = stats.recorder()
    for i = 1, 300 do r:beside("setup", "POST /seed/" .. i, 5) end
    r:request("GET /a", 7, nil, nil, 3)
    local record = r:export(1)
    assert.same({ ["GET /a"] = { ok = 1, failed = 0 } }, record.requests)
    assert.equal(3, histogram.decode(record.raw["GET /a"]):max())
    assert.equal(100, record.outside[stats.OTHER].ok)
    assert.equal(300, record.counts.outside)
    assert(stats.check(record))
    local cut = stats.fit(record, stats.FIT_LEAST)
    local n = 0
    for _, entry in pairs(cut.outside) do n = n + entry.ok end
    assert.equal(300, n)
    assert(stats.check(cut))
  end)
end)
