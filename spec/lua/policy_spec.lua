--- Policies: bounded in instructions, time and memory, called with copies, and replaced by the fallback when they fail.
local errors = require "shoal.errors"
local fake_world = require "spec.support.fake_world"
local log = require "shoal.log"
local sandbox = require "shoal.base.errors.sandbox"

describe("a policy", function ()
  local world

  before_each(function ()
    errors.reset()
    log.reset()
    world = fake_world.new()
    assert(log.open(world, function () end))
    errors.start(world, "node")
  end)
  after_each(function ()
    assert(errors.balance())
    errors.reset()
    log.reset()
  end)

  local function script(text) return assert(errors.policy_script(text, "p.lua")) end
  local function ask(text, options, ...)
    options = options or {}
    if options.fallback == nil then options.fallback = "the fallback" end
    return errors.policy("retry", script("return function (...) local a, b = ... " .. text .. " end"), options, ...)
  end
  local function raised() return errors.count("policy.retry").raised end
  local function last() return errors.incidents(1)[1].message end

  it("answers with what it returns, false and nil and several values too", function ()
    assert.equal("x", ask "return 'x'")
    assert.is_false(ask "return false")
    assert.same({ n = 2, nil, "why" }, table.pack(ask "return nil, 'why'"))
    assert.equal(7, ask("return a + b", nil, 3, 4))
    assert.equal(0, raised())
  end)

  it("is replaced by the fallback, and is one incident, when it raises, waits, or is no function", function ()
    assert.equal("the fallback", ask "error 'no'")
    assert.equal("no", last())
    assert.equal("p.lua:1", errors.incidents(1)[1].where)
    assert.equal("the fallback", errors.policy("retry", function () coroutine.yield() end, { fallback = "the fallback" }))
    assert.truthy(last():find "cannot wait")
    assert.equal("the fallback", errors.policy("retry", nil, { fallback = "the fallback" }))
    assert.equal("expected a function, found nil", last())
    assert.equal(3, raised())
    assert.equal("policy.retry", errors.incidents(1)[1].site)
  end)

  it("B10: has its answer checked, by type too; the check's own failure counts the same", function ()
    local check = function (answer) return type(answer) == "boolean", "no boolean: " .. tostring(answer) end
    assert.is_true(ask("return true", { check = check }))
    assert.equal("the fallback", ask("return 'no'", { check = check }))
    assert.equal("it answered no boolean: no", last())
    assert.equal("the fallback", ask("return {}", { check = check }))
    assert.equal("the fallback", ask("return 1", { check = function (answer) return #answer > 0 end }))
    assert.equal(3, raised())
  end)

  it("has a fallback that is a value, or a function of the arguments", function ()
    assert.equal("lost!", ask("error 'no'", { fallback = function (how) return how .. "!" end }, "lost"))
    assert.is_false(ask("error 'no'", { fallback = false }))
  end)

  it("gets copies: what it does to them, or keeps of them, is its own", function ()
    local part = { name = "a/1", history = { { state = "lost" } }, fn = print }
    assert.equal(2, ask("a.history[1].state, a.name, a.history[2] = 'x', nil, {} return #a.history", nil, part))
    assert.same({ name = "a/1", history = { { state = "lost" } }, fn = print }, part)
    local answer = ask("kept = { 1 } return kept")
    assert.same({ 1 }, answer)
    assert.is_nil(getmetatable(answer))
    assert.is_nil(ask("return { fn = tostring }").fn)
  end)

  it("reads a view as the table, and cannot change it", function ()
    local spec = { workflows = { b = { cores = 2 }, a = { cores = 1 } }, list = { 10, 20 } }
    local names = "local t = {} for name, w in pairs(a.workflows) do t[#t + 1] = name .. w.cores end "
    assert.equal("a1 b2 2 20", ask(names .. "return table.concat(t, ' ') .. ' ' .. #a.list .. ' ' .. a.list[2]", nil, errors.view(spec)))
    assert.equal("the fallback", ask("a.workflows.a.cores = 5", nil, errors.view(spec)))
    assert.equal("the fallback", ask("table.sort(a.list, function (x, y) return x > y end)", nil, errors.view(spec)))
    assert.same({ 10, 20 }, ask("return a.list", nil, errors.view(spec)))
    assert.equal(1, spec.workflows.a.cores)
  end)

  it("L2: is ended at its limit of instructions", function ()
    assert.equal("the fallback", ask "while true do end")
    assert.truthy(last():find("more than " .. sandbox.INSTRUCTIONS .. " instructions", 1, true))
    assert.equal("done", ask(("for i = 1, %d do end return 'done'"):format(sandbox.INSTRUCTIONS * 95 // 100)))
    assert.equal("the fallback", ask(("for i = 1, %d do end return 'done'"):format(sandbox.INSTRUCTIONS * 105 // 100)))
  end)

  it("B7: is ended at its limit of memory, whatever way it allocates", function ()
    for _, text in ipairs {
      "local t = {} while true do t[#t + 1] = {} end", "local s = 'x' while true do s = s .. s end",
      "local t = {} while true do t[#t + 1] = ('x'):rep(100000) end",
    } do
      collectgarbage() -- What earlier specs left, if collected meanwhile, would hide what this allocates.
      local before_kb = collectgarbage "count"
      assert.equal("the fallback", ask(text))
      assert.truthy(last():find("allocated more than " .. sandbox.ALLOCATION_BYTES .. " bytes", 1, true), last())
      assert.is_true(collectgarbage "count" - before_kb < 16 * sandbox.ALLOCATION_BYTES / 1024, text)
      collectgarbage()
    end
  end)

  it("B7: cannot make one call of the library that takes long or allocates much", function ()
    for text, words in pairs { -- order-free: each by itself
      ["('a'):rep(100000000)"] = "a policy may make one of",
      ["return ('ab'):rep(math.maxinteger)"] = "a policy may make one of",
      ["local t = {} for i = 1, 100 do t[i] = ('x'):rep(20000) end return table.concat(t)"] = "a policy may make one of",
      ["return table.move({}, 1, 1e9 // 1 | 0, 2)"] = "a policy may move",
      ["return table.unpack({}, 1, 1000000)"] = "a policy may unpack",
      ["local s = ('x'):rep(600000) return ('%s%s'):format(s, s)"] = "a policy may make one of",
      ["return (('x'):rep(1000):gsub('x', ('y'):rep(2000)))"] = "a policy may make one of",
      ["return ('a'):rep(40):find(('a?'):rep(40) .. 'b')"] = "instructions",
      ["return (('a'):rep(60000)):match('.-.-.-.-b')"] = "instructions",
    } do
      errors.reset()
      errors.start(world, "node")
      assert.equal("the fallback", ask(text), text)
      assert.truthy(last():find(words, 1, true), text .. ": " .. last())
    end
    assert.equal(sandbox.STRING_BYTES, #ask(("return ('a'):rep(%d)"):format(sandbox.STRING_BYTES)))
    assert.equal("the fallback", ask(("return ('a'):rep(%d)"):format(sandbox.STRING_BYTES + 1)))
  end)

  it("is ended at its limit of time", function ()
    local real = world.fresh_ns
    local steps = 0
    world.fresh_ns = function (self)
      steps = steps + 1
      return real(self) + steps * (sandbox.TIME_MS // 4) * 1000000
    end
    assert.equal("the fallback", ask "while true do end")
    assert.truthy(last():find("longer than " .. sandbox.TIME_MS .. " ms", 1, true))
  end)

  it("rests for 10 s once it broke its budget: the fallback answers at once; then it is asked again", function ()
    local fn = script "local n = 0 return function () n = n + 1 if n == 1 then while true do end end return n end"
    assert.equal("f", errors.policy("retry", fn, { fallback = "f" }))
    world:run(9999)
    assert.equal("f", errors.policy("retry", fn, { fallback = "f" }))
    assert.equal(1, raised())
    world:run(1)
    assert.equal(2, errors.policy("retry", fn, { fallback = "f" }))
    assert.equal(1, raised())
  end)

  it("leaves strings as they were, also when it failed", function ()
    ask "error 'no'"
    ask "while true do end"
    assert.equal(string, getmetatable("").__index)
    assert.equal(2 * sandbox.STRING_BYTES, #("x"):rep(2 * sandbox.STRING_BYTES))
  end)

  it("has no coroutine, pcall, setmetatable, load, io or os", function ()
    for _, name in ipairs { "coroutine", "pcall", "xpcall", "setmetatable", "getmetatable", "load", "io", "os", "debug", "require", "_G" } do
      assert.is_nil(ask("return " .. name), name)
    end
    assert.is_nil(ask "return string.dump")
    assert.is_nil(ask "return math.random")
  end)

  it("B3: decide gets a copy of the incident: what it does to it harms no reader", function ()
    for _, body in ipairs { "incident.ids = nil", "incident.ids.job = {}", "incident.message = {}", "incident.id = nil incident.node = nil",
      "for k in pairs(incident) do incident[k] = false end" } do
      errors.reset()
      errors.start(world, "node")
      world.files["errors.lua"] = "return { decide = function (incident) " .. body .. " end }"
      assert(errors.load_policy "errors.lua")
      local incident = errors.report("spec.a", { job = "j1", part = "a/1", list = { 1 } }, { message = "m", deep = { x = 1 } })
      assert.equal("j1", incident.ids.job, body)
      assert.equal(0, errors.count("policy.decide").raised, body)
      assert.same({ { id = "node-1", node = "node", site = "spec.a", level = "error", message = "m", where = incident.where, count = 1 } },
        errors.incidents_of { job = "j1", part = "a/1" })
    end
  end)

  it("B3: what a reader or the raiser does to an incident harms no other reader", function ()
    local _, incident = errors.call("spec.a", { job = "j1" }, error, "x")
    incident.ids = nil
    errors.incidents(1)[1].ids = nil
    errors.incidents(1)[1].message = nil
    assert.equal("j1", errors.incidents(1)[1].ids.job)
    assert.equal("x", errors.incidents(1)[1].message)
    assert.equal(1, #errors.incidents_of { job = "j1" })
    assert.same({}, errors.incidents_of { job = "j1", part = "a" })
  end)

  it("loads as text with its line where it is wrong, and bounded", function ()
    local function refused(text)
      local value, err, code = errors.policy_script(text, "p.lua")
      assert.is_nil(value)
      assert.equal("CONFIG", code)
      return err
    end
    assert.truthy(refused("return {\n = 1 }"):find "p.lua:2:")
    assert.truthy(refused("while true do end"):find "instructions")
    assert.truthy(refused("require 'luv'"):find "p.lua:1:")
    assert.equal("shoal", errors.policy_script("return name", "p.lua", { name = "shoal" }))
  end)
end)
