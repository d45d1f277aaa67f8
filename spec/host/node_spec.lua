-- The shoal program and the node that it runs, from outside: exit codes, the stream of each output, signals.
local BUILD = os.getenv "SHOAL_BUILD" or "build/release"
local SHOAL = BUILD .. "/bin/shoal"

local folder = os.tmpname()
os.remove(folder)

local function write(name, text)
  assert(os.execute("mkdir -p " .. folder))
  local path = folder .. "/" .. name
  local file = assert(io.open(path, "w"))
  assert(file:write(text))
  assert(file:close())
  return path
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "a"
  file:close()
  return text
end

--- Run a command line: its exit status, stdout, stderr.
local function run(line)
  local out, err = folder .. "/out", folder .. "/err"
  assert(os.execute("mkdir -p " .. folder))
  local _, kind, status = os.execute(("timeout 20 %s >%s 2>%s"):format(line, out, err))
  return kind == "exit" and status or kind, read(out), read(err)
end

--- Run a script under `shoal lua`.
local function script(text, ...)
  return run(table.concat({ SHOAL, "lua", write("script.lua", text), ... }, " "))
end

local function clean() os.execute("rm -rf " .. folder) end

describe("the shoal program", function ()
  teardown(clean)

  it("says its version and exits 0", function ()
    local status, out, err = run(SHOAL .. " --version")
    assert.equal(0, status)
    assert.truthy(out:match "^shoal %d+%.%d+%.%d+\n$")
    assert.equal("", err)
  end)

  it("exits 2 with usage on stderr for words it does not know", function ()
    local status, out, err = run(SHOAL .. " no-such-command")
    assert.equal(2, status)
    assert.equal("", out)
    assert.truthy(#err > 0)
  end)

  it("names file and line of a syntax error and exits 2", function ()
    local status, _, err = script "local x = = 1"
    assert.equal(2, status)
    assert.truthy(err:find("script.lua:1: unexpected symbol near '='", 1, true))
  end)

  it("exits 1 when the script raises at its start, and says where", function ()
    local status, _, err = script "\nerror 'boo'"
    assert.equal(1, status)
    assert.truthy(err:find("node.entry", 1, true))
    assert.truthy(err:find("script.lua:2", 1, true) and err:find("boo", 1, true))
  end)

  it("hands the words to the script, and takes an integer as the exit code", function ()
    local status, out = script("print(...) return 7", "a", "'b c'")
    assert.equal(7, status)
    assert.equal("a\tb c\n", out)
  end)

  it("exits 0 when nothing is left to wait for", function ()
    local status, out = script [[
      local t; t = require "shoal.core.world".current():timer(function () print "fired" t:close() end)
      t:start(1)]]
    assert.equal(0, status)
    assert.equal("fired\n", out)
  end)

  it("ends on exit(code) with everything closed, whatever was open", function ()
    local status, _, err = script [[
      local world, node = require "shoal.core.world".current(), require "shoal.core.node"
      local l = world:listen("127.0.0.1:0", print)
      world:udp("127.0.0.1:0", print)
      world:connect(l:address(), { on_end = print })
      world:timer(print):start(100000)
      world:resolve("localhost", 1, function () end)
      world:spawn { argv = { "sleep", "0.1" }, pipe = { stdout = true }, on_exit = print }
      world:log(os.tmpname(), print):sync()
      local uv = require "luv"
      uv.new_timer():start(100000, 0, print)
      node.exit(9)
      node.exit(10) -- The first reason stands.]]
    assert.equal(9, status)
    assert.equal("", err)
  end)

  it("says after 2 s what does not close, and ends with the code all the same", function ()
    local fifo = folder .. "/fifo"
    assert(os.execute(("mkdir -p %s && mkfifo %s"):format(folder, fifo)))
    local status, _, err = script(([[
      local uv, node = require "luv", require "shoal.core.node"
      uv.fs_open(%q, "r", 0, function () end) -- It never gets a writer.
      node.exit(6)]]):format(fifo))
    assert.equal(6, status)
    assert.truthy(err:find("still open 2000 ms after the end", 1, true))
  end)

  it("goes on after a handler raised, and after luv's did", function ()
    local status, out, err = script [[
      local world, node, uv = require "shoal.core.world".current(), require "shoal.core.node", require "luv"
      world:timer(function () error "mine" end):start(0)
      local t = uv.new_timer()
      t:start(1, 0, function () t:close() error "luv's" end)
      world:timer(function () print "alive" node.exit(0) end):start(20)]]
    assert.equal(0, status)
    assert.equal("alive\n", out)
    assert.truthy(err:find("world.timer", 1, true) and err:find("mine", 1, true))
    assert.truthy(err:find("luv.callback", 1, true) and err:find("luv's", 1, true))
  end)

  it("survives uv.walk over its own handles, and uv.stop", function ()
    local status, out = script [[
      local world, node, uv = require "shoal.core.world".current(), require "shoal.core.node", require "luv"
      local l = world:listen("127.0.0.1:0", print)
      uv.walk(function () end)
      world:timer(function () uv.stop() end):start(1)
      world:timer(function () print "still here" node.exit(0) end):start(10)]]
    assert.equal(0, status)
    assert.equal("still here\n", out)
  end)

  it("tells of a finalizer that failed", function ()
    local status, _, err = script [[
      local world, node = require "shoal.core.world".current(), require "shoal.core.node"
      setmetatable({}, { __gc = function () error "in gc" end })
      collectgarbage() collectgarbage()
      world:timer(function () node.exit(0) end):start(5)]]
    assert.equal(0, status)
    assert.truthy(err:find("lua.warning", 1, true) and err:find("in gc", 1, true))
  end)

  if not BUILD:find "sanitize" then -- Whose shadow memory fits under no limit.
    it("goes on after a callback that took all memory", function ()
      local status, out, err = run(("sh -c 'ulimit -v 400000; exec %s lua %s'"):format(SHOAL, write("hungry.lua", [[
        local world, node = require "shoal.core.world".current(), require "shoal.core.node"
        local kept = {}
        world:timer(function () while true do kept[#kept + 1] = {} end end):start(0)
        world:timer(function () kept = nil collectgarbage() print "alive" node.exit(0) end):start(30)]])))
      assert.equal(0, status, err)
      assert.equal("alive\n", out)
      assert.truthy(err:find("not enough memory", 1, true))
    end)
  end

  it("refuses an exit code that no system has", function ()
    local status, _, err = script "require 'shoal.core.node'.exit(256)"
    assert.equal(1, status)
    assert.truthy(err:find("expected 0 to 255", 1, true))
  end)
end)

describe("signals", function ()
  teardown(clean)

  local KILL = [[
    local world, node, uv = require "shoal.core.world".current(), require "shoal.core.node", require "luv"
    local keep = world:timer(print)
    keep:start(100000)
    local function kill(name) uv.kill(uv.os_getpid(), name) end
  ]]

  it("end a node without a handler: 130, 143, 129", function ()
    assert.equal(130, (script(KILL .. "kill 'sigint'")))
    assert.equal(143, (script(KILL .. "kill 'sigterm'")))
    assert.equal(129, (script(KILL .. "kill 'sighup'")))
  end)

  it("go to the handler, which may end the node or not", function ()
    local status, out = script(KILL .. [[
      local count = 0
      assert(node.on_signal("TERM", function ()
        count = count + 1
        print("term", count)
        if count == 2 then node.exit(5) else kill 'sigterm' end
      end))
      kill 'sigterm']])
    assert.equal(5, status)
    assert.equal("term\t1\nterm\t2\n", out)
  end)

  it("go back to the default when the handler is taken away", function ()
    assert.equal(143, (script(KILL .. [[
      node.on_signal("TERM", function () end)
      node.on_signal("TERM", nil)
      kill 'sigterm']])))
  end)

  it("whose handler raises are handled, and told", function ()
    local status, _, err = script(KILL .. [[
      node.on_signal("INT", function () error "in handler" end)
      kill 'sigint'
      world:timer(function () node.exit(0) end):start(20)]])
    assert.equal(0, status)
    assert.truthy(err:find("node.signal", 1, true) and err:find("in handler", 1, true))
  end)

  it("reach a node whose loop is watched, as they reach others", function ()
    local status, out, err = script(KILL .. [[
      assert(node.watch { node = "n" })
      assert(node.watch { node = "m", hang_ms = 5 })
      print(pcall(node.watch, { hang_ms = -1 }))
      node.on_signal("TERM", function () print "term" node.exit(6) end)
      kill 'sigterm']])
    assert.equal(6, status, err)
    assert.truthy(out:find("hang_ms: expected 0 to 2147483647", 1, true) and out:find("term\n$"), out)
  end)

  it("that no node can handle are refused by name", function ()
    local status, _, err = script "require 'shoal.core.node'.on_signal('KILL', print)"
    assert.equal(1, status)
    assert.truthy(err:find("invalid option 'KILL'", 1, true))
  end)

  it("do not kill by a broken pipe", function ()
    local status = run(("sh -c '%s lua %s | true; exit ${PIPESTATUS:-0}'"):format(SHOAL,
      write("pipe.lua", "for i = 1, 100000 do io.write(i, '\\n') end return 0")))
    assert.equal(0, status)
  end)
end)

describe("a node's state", function ()
  teardown(clean)

  it("takes time and chance from its world", function ()
    local status, out, err = script [[
      local world = require "shoal.core.world".current()
      assert(math.abs(os.time() - world:wall_ns() // 1000000000) <= 1)
      assert(math.abs(os.clock() - world:now_ns() / 1e9) < 0.1)
      assert(os.date("!%Y", 0) == "1970")
      assert(os.time { year = 2020, month = 1, day = 1, hour = 12 } > 1.5e9)
      for _ = 1, 1000 do
        local x, n, m = math.random(), math.random(3), math.random(-1, 1)
        assert(x >= 0 and x < 1 and n >= 1 and n <= 3 and m >= -1 and m <= 1)
      end
      assert(math.type(math.random(0)) == "integer")
      assert(math.random(math.mininteger, math.maxinteger))
      print "ok"
      math.randomseed(1)]]
    assert.equal("ok\n", out)
    assert.equal(1, status)
    assert.truthy(err:find("chance is the world's", 1, true))
  end)

  it("finds its library at home, and nothing in the folder it was started in", function ()
    write("stray.lua", "return 'stray'")
    local status, out = run(("sh -c 'cd %s && %s/%s lua %s'"):format(folder, assert(os.getenv "PWD"), SHOAL,
      write("where.lua", [[
        local function found(name) return package.searchpath(name, package.path) ~= nil end
        print(found "stray", found "shoal.errors")
        return 0]])))
    assert.equal(0, status)
    assert.equal("false\ttrue\n", out)
  end)
end)

describe("stock lua5.4", function ()
  teardown(clean)

  local function stock(text)
    return run(("lua5.4 -e 'package.path = \"lua/?.lua;\" .. package.path package.cpath = \"%s/lib/?.so;\" .. package.cpath' %s"):format(
      BUILD, write("stock.lua", text)))
  end

  it("runs a world on luv's loop, and leaves at the end of the script", function ()
    local status, out, err = stock [[
      local world = require "shoal.core.world".current()
      local t; t = world:timer(function () print "fired" t:close() end)
      t:start(1)
      require "luv".run()]]
    assert.equal(0, status)
    assert.equal("fired\n", out)
    assert.equal("", err)
  end)

  it("keeps luv's own policy for errors in its callbacks until errors.adopt_luv()", function ()
    local raising = [[
      local uv = require "luv"
      local t = uv.new_timer()
      t:start(0, 0, function () t:close() error "in luv" end)
      uv.run()
      print "alive"]]
    local status, out = stock('require "shoal.core.world".current()' .. raising)
    assert.same({ 255, "" }, { status, out })
    local err
    status, out, err = stock('require "shoal.errors".adopt_luv()' .. raising)
    assert.same({ 0, "alive\n" }, { status, out })
    assert.truthy(err:find("luv.callback", 1, true) and err:find("in luv", 1, true))
  end)

  it("is told what a script left open, and still ends well", function ()
    local status, _, err = stock [[
      local world = require "shoal.core.world".current()
      local l = assert(world:listen("127.0.0.1:0", print))
      local s = assert(world:connect(l:address(), { on_end = print }))
      require "luv".walk(function () end)
      require "luv".run "nowait"]]
    assert.equal(0, status)
    assert.truthy(err:find("listener#1 (open) was never closed", 1, true))
    assert.truthy(err:find("stream#2 (open) was never closed", 1, true))
  end)

  it("opens its world from within a coroutine that ends before the loop", function ()
    local status, out, err = stock [[
      local co = coroutine.wrap(function ()
        local world = require "shoal.core.world".current()
        local t; t = world:timer(function () print "fired" t:close() end)
        t:start(1)
      end)
      co()
      co = nil
      collectgarbage()
      require "luv".run()]]
    assert.equal(0, status)
    assert.equal("fired\n", out)
    assert.equal("", err)
  end)

  it("is no node: exit raises, home and version answer", function ()
    local status, out, err = stock [[
      local node = require "shoal.core.node"
      print(node.home() ~= "", node.version() ~= "", node.simulated(), #node.argv, node.log_sink)
      node.exit(1)]]
    assert.equal(1, status)
    assert.equal("true\ttrue\tfalse\t0\tnil\n", out)
    assert.truthy(err:find("this state is no node", 1, true))
  end)
end)
