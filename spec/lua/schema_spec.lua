--- Configuration: every problem at once, each with its path, what was found and what was expected.
local schema = require "shoal.schema"

local function problem(checker, value)
  local checked, err, code = checker(value)
  assert.is_nil(checked)
  assert.equal("CONFIG", code)
  return err
end

describe("schema", function ()
  local config = schema.record({
    interval_ms = schema.integer { default = 200, min = 10, max = 60000 },
    timeout_ms = schema.integer { default = 1000, min = 20, max = 600000 },
    name = schema.string { max = 8, pattern = "^%a+$", default = "w" },
  }, function (c)
    if c.timeout_ms <= 2 * c.interval_ms then return "timeout_ms must exceed 2 * interval_ms" end
  end)

  it("fills in defaults and leaves what it was given alone", function ()
    local given = { timeout_ms = 500 }
    assert.same({ interval_ms = 200, timeout_ms = 500, name = "w" }, config(given))
    assert.same({ timeout_ms = 500 }, given)
    assert.same({ interval_ms = 200, timeout_ms = 1000, name = "w" }, config(nil))
  end)

  it("holds numbers to both bounds, each side", function ()
    assert.truthy(config { interval_ms = 10 })
    assert.equal("interval_ms: 9 is below 10", problem(config, { interval_ms = 9 }))
    assert.truthy(config { interval_ms = 60000, timeout_ms = 600000 })
    assert.equal("interval_ms: 60001 is above 60000", problem(config, { interval_ms = 60001 }))
  end)

  it("tells every problem at once, in one order", function ()
    assert.equal("intervall_ms: unknown option, did you mean \"interval_ms\"?; zzz: unknown option; "
      .. "name: 9 bytes are more than 8; timeout_ms: 3 is below 20",
      problem(config, { zzz = 1, intervall_ms = 5, timeout_ms = 3, name = "abcdefghi" }))
  end)

  it("checks across fields only when each is right by itself", function ()
    assert.equal("timeout_ms must exceed 2 * interval_ms", problem(config, { timeout_ms = 400 }))
    assert.truthy(config { timeout_ms = 401 })
    assert.equal("timeout_ms: expected an integer, found \"x\"", problem(config, { timeout_ms = "x" }))
  end)

  it("makes integers of whole floats, and refuses others", function ()
    local whole = schema.record { n = schema.integer() }
    assert.equal("integer", math.type(whole { n = 3.0 }.n))
    assert.equal("n: expected an integer, found 3.5", problem(whole, { n = 3.5 }))
    assert.equal("n: expected an integer, found \"3\"", problem(whole, { n = "3" }))
    assert.equal("n: missing", problem(whole, {}))
  end)

  it("names the path through records, arrays and maps", function ()
    local nested = schema.record {
      dcs = schema.map(schema.record { workers = schema.array(schema.record { cores = schema.integer { min = 1 } },
        { max = 2 }) }),
    }
    assert.truthy(nested { dcs = { a = { workers = { { cores = 1 } } } } })
    assert.equal("dcs.a.workers[2].cores: 0 is below 1",
      problem(nested, { dcs = { a = { workers = { { cores = 1 }, { cores = 0 } } } } }))
    assert.equal("dcs.a.workers: 3 elements are more than 2",
      problem(nested, { dcs = { a = { workers = { { cores = 1 }, { cores = 1 }, { cores = 1 } } } } }))
    assert.equal("dcs.a.workers: expected an array, found the key \"x\"",
      problem(nested, { dcs = { a = { workers = { x = 1 } } } }))
    assert.equal("dcs: expected names as keys, found 1", problem(nested, { dcs = { 5 } }))
    assert.equal("dcs: expected a table of names, found 7", problem(nested, { dcs = 7 }))
  end)

  it("offers the word that was meant", function ()
    local profile = schema.record { profile = schema.enum { "lan", "wan", "local", default = "lan" } }
    assert.equal('profile: expected one of lan, wan, local, found "locla", did you mean "local"?',
      problem(profile, { profile = "locla" }))
    assert.equal('profile: expected one of lan, wan, local, found "zzz"', problem(profile, { profile = "zzz" }))
    assert.equal("timeout_ms", schema.did_you_mean("timeoutms", { "timeout_ms", "interval_ms" }))
    assert.equal("timeout_ms", schema.did_you_mean("TIMEOUT_MS", { "timeout_ms" }))
    assert.is_nil(schema.did_you_mean("x", { "timeout_ms" }))
    assert.is_nil(schema.did_you_mean(5, { "timeout_ms" }))
  end)

  it("takes optional fields, booleans, any, functions, bytes, numbers", function ()
    local all = schema.record {
      o = schema.optional(schema.integer { min = 1 }), b = schema.boolean(), a = schema.any(), f = schema.func(),
      y = schema.bytes { max = 3 }, n = schema.number { max = 1.5 },
    }
    assert.truthy(all { b = false, a = {}, f = print, y = "abc", n = 1.5 })
    assert.equal("a: missing; b: expected true or false, found 0; f: expected a function, found \"x\"; "
      .. "n: expected a number, found nan; o: 0 is below 1; y: 4 bytes are more than 3",
      (problem(all, { o = 0, b = 0, f = "x", y = "abcd", n = 0 / 0 }):gsub("%-nan", "nan")))
  end)

  it("does not share a default's table between two uses", function ()
    local list = schema.record { l = schema.array(schema.integer(), { default = { 1 } }),
      r = schema.record({ x = schema.integer { default = 5 } }, nil, { default = {} }) }
    local first, second = list {}, list {}
    first.l[1] = 9
    assert.same({ l = { 1 }, r = { x = 5 } }, second)
  end)

  it("raises when the schema itself is wrong", function ()
    assert.error_matches(function () schema.integer { mni = 1 } end,
      'schema.integer: unknown option "mni", did you mean "min"?', 1, true)
    assert.error_matches(function () schema.integer { default = 1, min = 2 } end, "default: 1 is below 2")
    assert.error_matches(function () schema.record { a = 5 } end, "a must be a checker, found 5")
    assert.error_matches(function () schema.array(5) end, "a checker expected, found 5")
    assert.error_matches(function () schema.enum {} end, "at least one word")
  end)

  it("keeps problems apart for programs", function ()
    local problems = config:problems { timeout_ms = 1 }
    assert.same({ { path = "timeout_ms", message = "1 is below 20" } }, problems)
  end)
end)
