--- Numbers of load tests that were wrong for users of shoal, and of tools like it. Two simulated datacenters under a gate, and a
--- server that answers /slow after 200 ms and /fast at once.
local render = require "shoal.cli.render"
local simcluster = require "spec.support.simcluster"

local c

setup(function ()
  c = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 2, set_worker = { cores = 4 } }
  c.s:http("target", function (r) return { status = 200, body = "hello", delay_ms = r.path:find("slow", 1, true) and 200 or 1 } end)
end)
teardown(function () c:close() end)

--- Run one workflow. Returns its statistics, the result, and how it reads.
local function run(work)
  local final = c:complete(c:job({ w = work }, { timeout_ms = 60000 }))
  final.result.state = final.state
  return final.result.workflows[1].stats, final.result, render.result(final.result)
end
local function has(text, what) assert.truthy(text:find(what, 1, true), text) end

describe("a load test", function ()
  it("09: whose target is slow ends at its duration, and says how much of the load was dropped", function ()
    local s, result, text = run { code = 'return function (vu) vu.http:get("http://target/slow") end', rate = 50, duration_ms = 1000 }
    assert(result.elapsed_ms < 1600, result.elapsed_ms)
    assert.equal(50, s.iterations + s.pace.dropped)
    assert(s.iterations <= 6)
    has(text, "of 50.0/s wanted; " .. s.pace.dropped .. " iterations dropped")
  end)

  it("B9: with too few users for its rate says so, though every iteration is made", function ()
    local s, _, text = run { code = "return function (vu) vu:sleep(100) end", vus = 2, iterations = 100, rate = 100 }
    assert.equal(100, s.iterations)
    assert.near(20, s.iterations_per_second, 1)
    has(text, ("of 100/s wanted; 0 iterations dropped, %d began late; more vus"):format(s.pace.late))
    assert(s.pace.late > 90)
  end)

  it("10: has the rate of its load, whatever setup and teardown take", function ()
    local s, result = run { duration_ms = 1000, code = [[return {
      setup = function (ctx) ctx.http:get("http://target/fast") ctx:sleep(3000) end,
      vu = function (vu) vu.http:get("http://target/fast") vu:sleep(10) end,
      teardown = function (ctx) ctx:sleep(2000) end,
    }]] }
    assert(result.elapsed_ms > 6000)
    assert.near(s.requests, s.requests_per_second, s.requests * 0.03)
    assert.equal(1, s.outside[1].ok) -- The request of setup, apart.
  end)

  it("11: whose parts run in rounds has the rate of all the time that they took", function ()
    local hold = assert(c:submit(c:job { hold = { work = "hold 5000", parts = 1, cores = 4 } }))
    local s = run { code = 'return function (vu) vu.http:get("http://target/slow") end', vus = 8, parts = 8, cores = 4, duration_ms = 1000 }
    c:follow(hold)
    assert.near(s.requests / s.load_ms * 1000, s.requests_per_second, 0.01)
    assert(s.load_ms > 2500 and s.load_ms < 5000, s.load_ms) -- Four and three workers at a time: two to four rounds.
    assert(s.requests_per_second < 5 * 8 * 0.6, s.requests_per_second)
  end)

  it("12: is cut into as many parts as it says, in all datacenters together", function ()
    local _, result = run { code = 'return function (vu) vu.http:get("http://target/slow") end', vus = 4, parts = 4, duration_ms = 500 }
    local parts = {}
    for _, a in ipairs(result.attempts) do parts[#parts + 1] = a.part end
    table.sort(parts)
    assert.same({ "w/a/1", "w/a/2", "w/b/1", "w/b/2" }, parts)
  end)

  it("13: with a name that is a number fails at the script's line, and keeps what it measured", function ()
    local s, result, text = run { iterations = 5, code = [[return function (vu)
      vu.http:get("http://target/fast")
      vu.http:get("http://target/fast", { name = 42 })
    end]] }
    assert.equal("failed", result.state)
    assert.equal(5, s.requests)
    has(text, "w.lua:3: vu.http:get: name: expected a string, found a number")
    has(text, "script errors: 5 in 5 iterations")
    assert.equal(1, select(2, text:gsub("exec.vu: ", ""))) -- C23: five equal incidents are one line.
  end)

  it("15: with 60,000 names of checks keeps all numbers", function ()
    local s = run { iterations = 1, code = [[return function (vu)
      vu:count("done")
      for i = 1, 60000 do vu:check("item " .. i .. " has the right price and is shown", i % 2 == 0) end
    end]] }
    local passed, failed, other = 0, 0, nil
    for _, check in ipairs(s.checks) do
      passed, failed, other = passed + check.passed, failed + check.failed, other or check.name == "(other)"
    end
    assert.same({ 30000, 30000, true, 1 }, { passed, failed, other, s.counters.done })
  end)

  it("17: handles ids and times as whole numbers in JSON", function ()
    local s = run { iterations = 1, code = [[return function (vu)
      vu:check("decoded and encoded again", json.encode(json.decode('{"id":900719925474099}')) == '{"id":900719925474099}')
      vu:check("id", json.encode({ 1234567890123456789 }) == "[1234567890123456789]")
      vu:check("microseconds", json.encode({ 1700000000123456 }) == "[1700000000123456]")
      vu:check("beyond 64 bits", not pcall(json.decode, "[18446744073709551616]"))
      vu:check("as text", json.decode("[18446744073709551616]", { large = "text" })[1] == "18446744073709551616")
    end]] }
    for _, check in ipairs(s.checks) do assert.equal(1, check.passed, check.name) end
    assert.equal(5, #s.checks)
  end)

  it("38: does not wait for an iteration without end", function ()
    local s, result = run { code = "return function (vu) vu:sleep(55000) end", duration_ms = 1000, graceful_ms = 500 }
    assert.equal("completed", result.state)
    assert(result.elapsed_ms < 2500, result.elapsed_ms)
    assert.equal(1, s.interrupted)
  end)

  it("B10: of which every check failed warns, and fails with a threshold", function ()
    local code = 'return function (vu) vu:check("ok", false) vu:sleep(20) end'
    local _, result, text = run { code = code, iterations = 9 }
    assert.equal("completed", result.state)
    has(text, 'WARNING: every check of w failed, 9 times: "ok"; with max_failed_checks_share in the job file that fails the job')
    _, result, text = run { code = code, iterations = 9, max_failed_checks_share = 0.5 }
    assert.equal("failed", result.state)
    has(text, "9 of 9 checks failed (100.0 %), and max_failed_checks_share allows 50 %")
  end)

  it("C5: shows iterations and timers, and no row of zeros for requests that it did not make", function ()
    local _, _, text = run { code = 'return function (vu) vu:time("db", 5) vu:sleep(10) end', iterations = 7 }
    assert.matches("\nw +completed +7 +%- +%- +[%d.]+ it/s +%- ", text)
    assert.matches("\nw: iterations +7 +", text)
    assert.matches("\nw: timer db +7 +[45]%.%d%d ms", text)
  end)
end)
