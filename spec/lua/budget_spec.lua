--- Budgets: an operator's code in a living process is bounded in steps, time and memory, in coroutines and C calls too.
local budget = require "shoal.base.budget"
local errors = require "shoal.errors"
local real = require "spec.support.real"
local repl = require "shoal.node.repl"
local task = require "shoal.task"
local world_module = require "shoal.core.world"

local STEPS, BYTES = 200000, 8 * 1024 * 1024

describe("a budget", function ()
  before_each(function ()
    errors.reset()
    task.reset()
  end)

  local function limits(changes)
    local of = { who = "a line", steps = STEPS, ms = 60000, bytes = BYTES, string_bytes = 1000000, moves = 1000 }
    for name, value in pairs(changes or {}) do of[name] = value end
    return budget.new(world_module.current(), of)
  end

  --- Run text within it. -> ok, value or message; which limit was passed
  local function run(text, b, env)
    b = b or limits()
    local chunk = assert(load(text, "=line", "t", env or b:environment()))
    local ok, value = errors.handle("repl.eval", nil, b.run, b, chunk)
    return ok, value, b:over()
  end

  local function ends(text, limit, b, env)
    local ok, message, over = run(text, b, env)
    assert.is_false(ok, text)
    assert.equal(limit, over, text .. ": " .. tostring(message))
    return message
  end

  it("lets code run that stays within it, with all its steps in each run", function ()
    local b = limits()
    for _ = 1, 3 do
      assert.same({ true, 30000 }, { run("local n = 0 for i = 1, 30000 do n = n + 1 end return n", b) })
    end
    assert.is_nil(debug.gethook())
  end)

  it("ends code that computes without end, and says where and after how much", function ()
    assert.equal("line:1: still running after 200000 steps, and this process has other things to do", ends("while true do end", "steps"))
    ends("local function f() return f() end return f()", "steps")
    ends("while true do pcall(function () while true do end end) end", "steps")
    ends("goto a ::a:: pcall(error, 1) goto a", "steps")
    ends("return (('x'):gsub('x', function () while true do end end))", "steps")
    ends("table.sort({ 1, 2, 3 }, function () while true do end end)", "steps")
    ends("load 'while true do end' ()", "steps")
    ends("for _ in function () return 1 end do end", "steps")
    ends("local t = setmetatable({}, { __close = function () while true do end end }) do local x <close> = t end", "steps")
  end)

  it("reaches coroutines: created, wrapped, nested, kept from an earlier line, and made before by other code", function ()
    ends("coroutine.wrap(function () while true do end end)()", "steps")
    ends("local co = coroutine.create(function () while true do end end) return error(select(2, coroutine.resume(co)))", "steps")
    ends("coroutine.wrap(function () coroutine.wrap(function () while true do end end)() end)()", "steps")
    ends("while true do pcall(coroutine.wrap(function () while true do end end)) end", "steps")
    local b = limits()
    local env = b:environment()
    assert.is_true(run("kept = coroutine.wrap(function () coroutine.yield() while true do end end) kept()", b, env))
    ends("kept()", "steps", b:again(), env)
    assert.is_true(run("return 1", b:again(), env))
    local of_before = coroutine.create(function () for _ = 1, 10000000 do end end) -- Made outside: it inherits no hook.
    function env.resume() return errors.resume("repl.eval", nil, of_before) end
    ends("resume()", "steps", b:again(), env)
  end)

  -- Lua runs no hook in what an error out of a hook calls. Unbounded, each of these held a manager for ever.
  local LOOP = "function () while true do end end"

  it("reaches the handler of an xpcall, which does not see the budget's own error", function ()
    ends("error(select(2, xpcall(" .. LOOP .. ", " .. LOOP .. ")))", "steps")
    ends("error(select(2, xpcall(error, " .. LOOP .. ", 1)))", "steps")
    ends("return coroutine.wrap(function () xpcall(" .. LOOP .. ", " .. LOOP .. ") end)()", "steps")
    assert.same({ true, "1 2 seen: x true" }, { run [[
      local _, a, b = xpcall(function (...) coroutine.isyieldable() return ... end, print, 1, 2)
      local ok, message = xpcall(error, function (e) return "seen: " .. e end, "x")
      return a .. " " .. b .. " " .. message .. " " .. tostring(not ok)]] })
    assert.same({ true, "3 4" }, { run [[
      local co = coroutine.wrap(function () return xpcall(function (a) return a, coroutine.yield(a) end, error, 3) end)
      co()
      local _, a, b = co(4)
      return a .. " " .. b]] })
    local ok, message = run "xpcall(1)"
    assert.is_false(ok)
    assert.truthy(message:find("function expected", 1, true), message)
  end)

  it("reaches what a coroutine closes that the budget ended", function ()
    local held = "local x <close> = setmetatable({}, { __close = " .. LOOP .. " }) while true do end"
    ends("coroutine.wrap(function () " .. held .. " end)()", "steps")
    ends("local co = coroutine.create(function () " .. held .. " end) coroutine.resume(co) coroutine.close(co) error 'closed'", "steps")
    assert.same({ true, "closed x" }, { run [[
      local seen
      local co = coroutine.create(function () local x <close> = setmetatable({}, { __close = function () seen = "closed" end }) error "x" end)
      local _, message = coroutine.resume(co)
      return seen .. " " .. message:match "x$"]] })
  end)

  it("bounds what one C call does: patterns, plain searches, repetitions, sorts, moves", function ()
    for _, text in ipairs {
      "return (('a'):rep(30000)):find('.-.-.-.-b')", "return (('a'):rep(100000)):match('.-.-.-b')",
      "return (('a'):rep(100000)):gsub('.-.-.-b', '')", "for _ in (('a'):rep(100000)):gmatch('.-.-.-b') do end",
      "return string.find(('a'):rep(30000), '.-.-.-.-b')", "return require 'string'.find(('a'):rep(30000), '.-.-.-.-b')",
      "return _G.string.find(('a'):rep(30000), '.-.-.-.-b')",
    } do ends(text, "steps") end
    ends("return (('a'):rep(1000000)):find(('a'):rep(500000) .. 'b', 1, true)", "ms", limits { ms = 50, bytes = 1000000000 })
    assert.same({ true, "" }, { run "return ('').rep('', 1e15)" })
    local _, says = run "return ('x'):rep(1e9)"
    assert.truthy(says:find("a string of 1000001 bytes: a line may make one of 1000000", 1, true), says)
    _, says = run "return table.move({}, 1, 1e15, 2)"
    assert.truthy(says:find("move: a line may move 1000 elements at once", 1, true), says)
    assert.same({ true, "a,b,c" }, { run "local t = { 'c', 'a', 'b' } table.sort(t) return table.concat(t, ',')" })
  end)

  it("bounds memory, what is kept and what one call asks for, and lets garbage go", function ()
    ends("local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end", "bytes")
    ends("local s = 'x' while true do s = s .. s end", "bytes")
    ends("local t = {} for i = 1, 1e9 do t[i] = i end", "bytes", limits { steps = 1000000000 })
    ends("kept = {} while true do pcall(function () kept[#kept + 1] = ('x'):rep(100000) .. #kept end) end", "bytes")
    assert.same({ true, 2000 }, { run "local n = 0 for i = 1, 2000 do n = n + #(('x'):rep(100000) .. i) // 100000 end return n" })
  end)

  it("gives no finalizers, and none of what holds or ends the process", function ()
    for text, says in pairs {
      ["setmetatable({}, { __gc = function () end })"] = "a line has no finalizers",
      ["os.execute 'true'"] = "os.execute: the process would stand still",
      ["io.popen 'true'"] = "io.popen: the process would stand still",
      ["io.read()"] = "it would wait for the process's stdin", ["io.lines()"] = "it would wait for the process's stdin",
      ["collectgarbage 'stop'"] = "a line may use count, collect and step",
      ["debug.sethook()"] = "attempt to call a nil value", ["load(string.dump(print))"] = "attempt to call a nil value",
    } do
      local ok, message = run(text)
      assert.is_false(ok, text)
      assert.truthy(tostring(message):find(says, 1, true), text .. ": " .. tostring(message))
    end
    assert.is_true(run "local t = setmetatable({}, { __close = function () end }) do local x <close> = t end return os.time(), #_G.tostring(1)")
  end)

  it("gives libraries that its code may change, and the process keeps its own", function ()
    local b = limits()
    local env = b:environment()
    assert.is_true(run("string.format, string.rep, table.concat, math.floor, utf8.len = nil", b, env))
    assert.same({ true, "nil xx 1,2" }, { run("return tostring(math.floor) .. ' ' .. ('x'):rep(2) .. ' ' .. ('%d,%d'):format(1, 2)", b, env) })
    assert.equal("function", type(math.floor))
    assert.same({ true, "a,b" }, { run("return table.concat({ 'a', 'b' }, ',')", b:again(), b:environment()) })
  end)

  it("gives strings their own methods back, whatever happened", function ()
    local find = ("").find
    run "return 1"
    run "error 'x'"
    run "while true do end"
    assert.equal(find, ("").find)
    assert.equal(string.rep, ("").rep)
  end)

  it("ends with the line: a coroutine that its code made runs without bounds in other code", function ()
    local b = limits()
    local ok, co = run("return coroutine.create(function () local n = 0 for i = 1, 1000000 do n = n + 1 end return n end)", b)
    assert.is_true(ok)
    assert.same({ "done", 1000000 }, { errors.resume("repl.eval", nil, co) }) -- The spec is the other code.
  end)
end)

describe("a line of the REPL", function ()
  local function eval(...)
    local lines = { ... }
    collectgarbage() -- A line has 500 ms of real time, and its memory is looked at by collecting.
    return real.run(function (world, scope)
      local node = { world = world, name = "n", scope = scope }
      local answers = {}
      for i, line in ipairs(lines) do answers[i] = repl.eval(node, line) end
      return answers
    end)
  end

  it("is bounded between two waits, keeps what it set, and says which limit it passed", function ()
    local a = eval("x = 1", "while true do end", "x", "local t = {} while true do t[#t + 1] = ('x'):rep(16e6) end", "x + 1")
    assert.same({ ok = true, output = "" }, a[1])
    assert.truthy(a[2].output:find "^repl:1: still running after %d+ %l+, and this process has other things to do\na line may run", a[2].output)
    assert.equal("1", a[3].output)
    assert.equal("not enough memory\na line may make the node larger by 67108864 bytes", a[4].output)
    assert.equal("2", a[5].output)
  end)

  it("may wait, and then has its steps anew; a task that it starts has its budget", function ()
    local a = eval([[local task = require "shoal.base.task" for i = 1, 3 do for j = 1, 4e6 do end task.sleep(1) end return "done"]],
      [[local t = node.scope:spawn("repl.eval", nil, function () while true do end end) return t:join()]])
    assert.same({ ok = true, output = '"done"' }, a[1])
    assert.truthy(a[2].output:find("still running after ", 1, true), a[2].output)
    a = eval [[local t = node.scope:spawn("repl.eval", nil, function ()
      local x <close> = setmetatable({}, { __close = function () while true do end end })
      while true do end
    end) return t:join()]]
    assert.truthy(a[1].output:find("still running after ", 1, true), a[1].output)
  end)

  it("that yields by itself is answered, and may yield in a coroutine of its own", function ()
    local a = eval("coroutine.yield() return 5", "local c = coroutine.wrap(function (x) return coroutine.yield(x + 1) end) return c(1), c(7)")
    assert.equal("repl:1: coroutine.yield in a task: use task.yield(), task.sleep() or a future", a[1].output)
    assert.same({ ok = true, output = "2\t7" }, a[2])
  end)

  it("shows values as one would write them", function ()
    local a = eval("'a\\nb\\0\\27[2J\"'", "2^53, 1, 0.1, -1/0, 1e100, 3.0", "{ ['w-a1'] = 1, ['end'] = 2, x = 'y', [7] = 8, 9 }",
      "{ [{}] = 1, [true] = 2, [2.5] = 3 }", "{ nil, 2 }", "print('raw', { 1 }, nil)", "node.rpc, false, nil",
      "setmetatable({}, { __index = function () error 'no' end })")
    assert.equal([["a\nb\x00\x1b[2J\""]], a[1].output)
    assert.equal("9007199254740992.0\t1\t0.1\t-math.huge\t1e+100\t3.0", a[2].output)
    assert.equal([[{ 9, [7] = 8, ["end"] = 2, ["w-a1"] = 1, x = "y" }]], a[3].output)
    assert.equal("{ [2.5] = 3, [true] = 2, [{...}] = 1 }", a[4].output)
    assert.equal("{ [2] = 2 }", a[5].output)
    assert.equal("raw\t{ 1 }\tnil\n", a[6].output)
    assert.equal("nil\tfalse\tnil", a[7].output)
    assert.equal("{}", a[8].output)
  end)

  it("shows any table of the node, whatever its keys are", function ()
    local a = eval("node", "{ [print] = 1, [node] = 2, [io.stdout] = 3 }")
    assert.is_true(a[1].ok, a[1].output)
    assert.truthy(a[1].output:find('name = "n"', 1, true), a[1].output)
    assert.is_true(a[2].ok, a[2].output)
  end)
end)

describe("a file that is read or checked", function ()
  local source = require "shoal.job.source"
  local workflow = require "shoal.run.workflow"

  before_each(function ()
    errors.reset()
    task.reset()
  end)

  local function job(text) return select(2, source.read("local x = " .. text .. " return { name = x }", "j.lua")) end
  local function script(text) return select(2, workflow.check("local x = " .. text .. " return function (vu) end", "s.lua", {})) end

  it("is bounded in what one C call does and in memory, as a job file and as a workflow's script", function ()
    for what, read in pairs { ["a job file"] = job, ["a script"] = script } do
      assert.truthy(read("(('a'):rep(30000)):find '.-.-.-.-b'"):find("still running after 20000000 steps", 1, true))
      assert.truthy(read("string.gsub(('a'):rep(30000), '.-.-.-.-b', '')"):find("still running after 20000000 steps", 1, true))
      assert.truthy(read("('x'):rep(1e12)"):find(what .. " may make one of 16777216", 1, true))
      assert.truthy(read("(function () local t = {} while true do t[#t + 1] = ('x'):rep(16e6) end end)()")
        :find("takes more than 67108864 bytes of memory", 1, true))
    end
    assert.equal("x", ("x"):rep(1))
  end)

  it("has no finalizers: a script that sets one is refused at its line", function ()
    assert.truthy(script("setmetatable({}, { __gc = function () end })"):find("s.lua:1: a script has no finalizers (__gc)", 1, true))
    assert.is_nil(script "setmetatable({}, { __index = {} })")
  end)
end)
