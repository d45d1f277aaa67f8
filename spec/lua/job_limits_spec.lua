--- Limits of the job room that need no cluster: of a job file, of what one message names, of what a feed keeps. Each at its size, and one
--- past it. Those of a leader stand in spec/sim/effects_spec.lua, those of numbers in stats_limits_spec.lua.
local feed = require "shoal.job.feed"
local intake = require "shoal.job.intake"
local job = require "shoal.job"
local json = require "cjson"
local outcome = require "shoal.job.outcome"

--- The problems of a job, "" where there are none. `files`: its scripts by name.
local function problems(spec, files)
  local parsed, err = job.parse(json.encode(spec), "job.json", function (path) return (files or {})[path] end)
  return parsed and "" or (type(err) == "table" and table.concat(err, "\n") or err)
end

local function of(workflow, more)
  local spec = { name = "n", workflows = { w = workflow } }
  for key, value in pairs(more or {}) do spec[key] = value end
  return spec
end

--- So many entries: a list of `value(i)`, or a map by `key(i)`.
local function many(n, value, key)
  local out = {}
  for i = 1, n do out[key and key(i) or i] = value(i) end
  return out
end
local function name_of(i) return "n" .. i end
local function small() return { command = "true" } end
local function share_of_one() return { parts = 1 } end

describe("a job file", function ()
  local WEEK_MS = 7 * 24 * 3600 * 1000
  local numbers = {
    { "vus", 100000, "script" }, { "iterations", 1000000000000, "script" }, { "rate", 1000000, "script" }, { "duration_ms", WEEK_MS, "script" },
    { "timeout_ms", WEEK_MS, "command" }, { "cores", 1024, "command" }, { "parts", 10000, "command" }, { "retries", 100, "command" },
  }
  for _, row in ipairs(numbers) do
    local field, max, kind = table.unpack(row)
    it(("takes %s = %d, and refuses one more"):format(field, max), function ()
      local function with(n)
        local w = { [kind] = kind == "script" and "s.lua" or "true", [field] = n }
        if field == "rate" then w.duration_ms = 1000 end
        return problems(of(w, { timeout_ms = WEEK_MS }), { ["s.lua"] = "return {}" })
      end
      if field == "duration_ms" then -- The longest job ends no later.
        assert.equal("", with(max - 1))
        assert.matches("is not shorter than the job's timeout_ms", with(max))
      else
        assert.equal("", with(max))
      end
      assert.matches(field, with(max + 1))
    end)
  end

  local counted = {
    { "workflows", 256, function (n) return problems { name = "n", workflows = many(n, small, name_of) } end },
    { "datacenters", 64, function (n) return problems(of({ command = "true" }, { datacenters = many(n, name_of) })) end },
    { "env", 256, function (n) return problems(of({ command = "true" }, { env = many(n, name_of, function (i) return "V" .. i end) })) end },
    { "command", 256, function (n) return problems(of { command = many(n, name_of) }) end },
    { "retry.factor", 100, function (n) return problems(of { command = "true", retry = { factor = n } }) end },
    { "retry.max_ms", 24 * 3600 * 1000, function (n) return problems(of { command = "true", retry = { max_ms = n } }) end },
    { "where", 16, function (n) return problems(of { command = "true", where = many(n, name_of, name_of) }) end },
    { "where.a", 16, function (n) return problems(of { command = "true", where = { a = many(n, name_of) } }) end },
    { "where.a", 64, function (n) return problems(of { command = "true", where = { a = ("x"):rep(n) } }) end },
    { "labels", 16, function (n) return problems(of({ command = "true" }, { labels = many(n, name_of, name_of) })) end },
    { "env.A", 64 * 1024, function (n) return problems(of({ command = "true" }, { env = { A = ("x"):rep(n) } })) end },
    { "argument 1", 64 * 1024, function (n) return problems(of { command = { ("x"):rep(n) } }) end },
    { "script", 1024 * 1024, function (n) return problems(of { script = "s.lua" }, { ["s.lua"] = "--" .. ("x"):rep(n - 2) }) end },
  }
  for _, row in ipairs(counted) do
    local what, max, with = table.unpack(row)
    it(("takes %d (entries, or bytes) of %s, and refuses one more"):format(max, what), function ()
      assert.equal("", with(max))
      local found = with(max + 1)
      assert.matches(what:gsub("%.", "%%."), found)
      assert.matches(tostring(max), found)
    end)
  end

  it("takes 2 MiB of scripts together, and refuses one byte more", function ()
    local function with(extra)
      local text = "--" .. ("x"):rep(1024 * 1024 - 2)
      local workflows = { a = { script = "a.lua" }, b = { script = "b.lua" }, c = extra and { script = "c.lua" } or nil }
      return problems({ name = "n", workflows = workflows },
        { ["a.lua"] = text, ["b.lua"] = text, ["c.lua"] = "--" })
    end
    assert.equal("", with(false))
    assert.matches("2097154 bytes together; at most 2097152", with(true))
  end)
end)

describe("one message", function ()
  it("names 256 parts of a run, and says how many more there are", function ()
    local function named(n)
      local entry, all = { parts = {} }, {}
      for i = 1, n do
        local part = ("w/%05d"):format(i)
        entry.parts[part], all[part] = { part = part, workflow = "w", state = "pending", attempt = 0 }, true
      end
      local list, more = outcome.by_part(entry, {}, all)
      return { #list, more }
    end
    assert.same({ 256 }, named(256))
    assert.same({ 256, 1 }, named(257))
  end)

  it("has at most 100 events of a job that is asked for", function ()
    local asked
    local state = { lead = { events = function (_, _, _, max) asked = max return {} end } }
    for max, want in pairs { [100] = 100, [101] = 100 } do
      intake.answers({})["job.events"](state, { job = "j", from_seq = 1, max = max })
      assert.equal(want, asked)
    end
  end)

  it("has at most 10,000 shares of a workflow", function ()
    local function shares(n) return select(2, outcome.shares({ command = { "true" }, parts = n }, many(n, share_of_one))) end
    assert.is_nil(shares(10000))
    assert.matches("10001 shares, 10000 are the limit", shares(10001))
  end)
end)

describe("a feed", function ()
  it("keeps its last 512 events; from an older one it says where they begin", function ()
    local f = feed.new("j", nil, 1, false)
    for _ = 1, 512 do f:push("status", {}) end
    local first = f.first
    local list, truncated = f:since(first, 1000)
    assert.same({ 512 }, { #list, truncated })
    f:push("status", {})
    list, truncated = f:since(first, 1000)
    assert.same({ 512, first + 1 }, { #list, truncated })
  end)
end)
