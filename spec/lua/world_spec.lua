-- The binding of the world over the real one, on luv's loop. spec/c tests the world itself.
local door = require "shoal.core.door"
local uv = require "luv"
local world_module = require "shoal.core.world"
local world = world_module.current()

local LOOPBACK = "127.0.0.1:0"
local function ignore() end

--- Run the loop until it is empty, but not for ever; then nothing may be left open.
local function run()
  uv.update_time() -- The loop's clock may be far behind, and the guard would fire at once.
  local guard = uv.new_timer()
  guard:start(5000, 0, function () error "the loop did not run dry within 5 s" end)
  guard:unref()
  uv.run()
  guard:close()
  uv.run()
  assert.equal(0, world:telemetry().open_handles)
  assert.is_false(uv.loop_alive() or false)
end

--- A listener that hands each stream to `serve`, and its address.
local function serve(fn)
  local listener
  listener = assert(world:listen(LOOPBACK, function (stream) fn(stream, listener) end))
  return listener, listener:address()
end

describe("a world", function ()
  it("is the same one each time, and says what it is", function ()
    assert.equal(world, world_module.current())
    assert.is_false(world:simulated())
    assert.equal("integer", math.type(world:seed()))
  end)

  it("tells the time in integers of nanoseconds that do not run back", function ()
    local first = world:fresh_ns()
    assert.equal("integer", math.type(first))
    assert.truthy(world:fresh_ns() >= first)
    assert.truthy(world:wall_ns() > 1700000000 * 1000000000)
  end)

  it("draws 1..n and [0,1)", function ()
    for _ = 1, 1000 do
      local n, unit = world:random(3), world:unit()
      assert.truthy(n >= 1 and n <= 3 and unit >= 0 and unit < 1)
    end
    assert.equal(1, world:random(1))
    assert.equal("integer", math.type(world:random()))
    assert.has_error(function () world:random(0) end)
  end)

  it("raises on a self that is no world", function ()
    assert.has_error(function () world.now_ns({}) end)
    assert.has_error(function () world.now_ns(io.stdout) end)
  end)
end)

describe("a timer", function ()
  it("fires once, not early, with itself", function ()
    local started, fired_ns, self = world:now_ns(), nil, nil
    local t = world:timer(function (t)
      fired_ns, self = world:now_ns(), t
      t:close()
    end)
    t:start(2.5)
    run()
    assert.equal(t, self)
    assert.truthy(fired_ns - started >= 2500000)
  end)

  it("takes past and negative times as the next turn, and refuses nan", function ()
    local order = {}
    local a = world:timer(function (t) order[#order + 1] = "a" t:close() end)
    local b = world:timer(function (t) order[#order + 1] = "b" t:close() end)
    a:start(-5)
    b:start_at(0)
    assert.has_error(function () a:start(0 / 0) end)
    run()
    table.sort(order)
    assert.same({ "a", "b" }, order)
  end)

  it("is silent after stop, and can be started again", function ()
    local count = 0
    local t = world:timer(function (t) count = count + 1 t:close() end)
    t:start(0)
    t:stop()
    t:stop()
    local other = world:timer(function (o) o:close() t:start(0) end)
    other:start(1)
    run()
    assert.equal(1, count)
  end)

  it("closes twice without harm and refuses work afterwards", function ()
    local t = world:timer(ignore)
    assert.equal("open", tostring(t):match "%((.*)%)")
    t:close()
    assert.equal("closing", tostring(t):match "%((.*)%)")
    t:close()
    t:stop()
    assert.error.matches(function () t:start(1) end, "this timer is closed")
    run()
    assert.equal("closed", tostring(t):match "%((.*)%)")
  end)

  it("closes at the end of its block", function ()
    do
      local t <close> = world:timer(ignore)
      t:start(100000)
    end
    run()
  end)

  it("is collected once closed, with what it held", function ()
    local weak = setmetatable({}, { __mode = "k" })
    do
      local t = world:timer(ignore)
      weak[t] = true
      t:close()
    end
    run()
    collectgarbage()
    collectgarbage()
    assert.is_nil((next(weak)))
  end)

  it("lives on after its handler raised", function ()
    local told, count = {}, 0
    door.sink(function (site) told[#told + 1] = site end)
    local t = world:timer(function (t)
      count = count + 1
      if count == 2 then t:close() else t:start(0) end
      error "each time"
    end)
    t:start(0)
    run()
    door.sink(nil)
    assert.same({ "world.timer", "world.timer" }, told)
  end)
end)

describe("a stream", function ()
  it("carries bytes both ways, ends, and tells its closing", function ()
    local said = {}
    local function note(...) said[#said + 1] = table.concat({ ... }, " ") end
    local _, address = serve(function (stream, listener)
      note("peer", stream:peer():match "^[^:]+")
      stream:attach {
        on_read = function (s, bytes) assert(s:write { "re:", bytes, "!" }) end,
        on_end = function (s, err) note("server end", tostring(err)) s:close() listener:close() end,
      }
    end)
    assert(world:connect(address, {
      on_open = function (s, err) assert.is_nil(err) assert(s:write "ping") end,
      on_read = function (s, bytes) note("read", bytes) assert(s:shutdown()) end,
      on_end = function (s, err) note("client end", tostring(err)) s:close() end,
      on_closed = function () note "closed" end,
    }))
    run()
    assert.same({ "peer 127.0.0.1", "read re:ping!", "server end nil", "client end nil", "closed" }, said)
  end)

  it("tells a refused connect with its code, and is closed from there", function ()
    local listener, address = serve(ignore)
    listener:close()
    run()
    local got
    assert(world:connect(address, {
      on_open = function (s, err, code) got = { err, code } s:close() end,
      on_end = ignore,
    }))
    run()
    assert.equal("ECONNREFUSED", got[2])
    assert.equal("string", type(got[1]))
  end)

  it("refuses misspelt, missing and uncallable handlers before it opens", function ()
    assert.error.matches(function () world:connect(LOOPBACK, { on_end = ignore, on_raed = ignore }) end, "no such handler: on_raed")
    assert.error.matches(function () world:connect(LOOPBACK, {}) end, "on_end is missing")
    assert.error.matches(function () world:connect(LOOPBACK, { on_end = 1 }) end, "on_end is no function")
    assert.equal(0, world:telemetry().open_handles)
    local stream, err, code = world:connect("localhost:1", { on_end = ignore })
    assert.is_nil(stream)
    assert.truthy(err:find("localhost:1", 1, true))
    assert.equal("MALFORMED", code)
  end)

  it("refuses to write before it is open, and pieces that are no strings", function ()
    local listener, address = serve(function (s) s:close() end)
    local stream = assert(world:connect(address, { on_end = ignore }))
    local ok, _, code = stream:write "early"
    assert.is_nil(ok)
    assert.equal("ENOTCONN", code)
    assert.error.matches(function () stream:write { "a", 1 } end, "piece 2 is no string")
    stream:close()
    assert.error.matches(function () stream:write "x" end, "this stream is closed")
    local t = world:timer(function (t) t:close() listener:close() end)
    t:start(20)
    run()
  end)

  it("hears nothing but its closing once closed from its own handler", function ()
    local said = {}
    local _, address = serve(function (stream, listener)
      stream:attach {
        on_read = function (s) said[#said + 1] = "read" s:close() listener:close() end,
        on_end = function () said[#said + 1] = "end" end,
        on_closed = function () said[#said + 1] = "closed" end,
      }
    end)
    assert(world:connect(address, {
      on_open = function (s) s:write "x" end,
      on_end = function (s) s:close() end,
    }))
    run()
    assert.same({ "read", "closed" }, said)
  end)

  it("is closed for the handler that raised before attaching it", function ()
    local told, ended = {}, false
    door.sink(function (site, err) told[#told + 1] = { site, err } end)
    local _, address = serve(function (_, listener)
      listener:close()
      error("no thanks", 0)
    end)
    assert(world:connect(address, { on_end = function (s) ended = true s:close() end }))
    run()
    door.sink(nil)
    assert.same({ { "world.listener.connection", "no thanks" } }, told)
    assert.is_true(ended)
  end)

  it("is attached once", function ()
    local _, address = serve(function (stream, listener)
      stream:attach { on_end = ignore }
      assert.error.matches(function () stream:attach { on_end = ignore } end, "has its handlers already")
      stream:close()
      listener:close()
    end)
    assert(world:connect(address, { on_end = function (s) s:close() end }))
    run()
  end)

  it("can be closed without ever being attached", function ()
    local _, address = serve(function (stream, listener)
      stream:close()
      stream:close()
      listener:close()
    end)
    assert(world:connect(address, { on_end = function (s) s:close() end }))
    run()
  end)

  it("drains what the kernel did not take", function ()
    local size, got, drained = 4 * 1024 * 1024, 0, false
    local _, address = serve(function (stream, listener)
      stream:attach {
        on_read = function (_, bytes) got = got + #bytes end,
        on_end = function (s) s:close() listener:close() end,
      }
    end)
    assert(world:connect(address, {
      on_open = function (s)
        assert(s:write(("x"):rep(size)))
        assert.truthy(s:queued() > 0)
      end,
      on_drain = function (s) drained = true assert.equal(0, s:queued()) s:close() end,
      on_end = ignore,
    }))
    run()
    assert.is_true(drained)
    assert.equal(size, got)
  end)
end)

describe("a listener", function ()
  it("that cannot bind leaves nothing open, and names the address", function ()
    local listener, address = serve(ignore)
    local second, err, code = world:listen(address, ignore)
    assert.is_nil(second)
    assert.equal("EADDRINUSE", code)
    assert.truthy(err:find(address, 1, true))
    listener:close()
    assert.error.matches(function () listener:address() end, "this listener is closed")
    run()
  end)
end)

describe("a datagram socket", function ()
  it("sends and receives, and is closed from its own handler", function ()
    local got
    local a
    a = assert(world:udp(LOOPBACK, function (bytes, from)
      got = { bytes, from }
      a:close()
    end))
    local b = assert(world:udp(LOOPBACK, ignore))
    local from = b:address()
    assert(b:send(a:address(), "hello"))
    local ok, _, code = b:send(a:address(), ("x"):rep(65508))
    assert.is_nil(ok)
    assert.equal("TOO_LARGE", code)
    assert.equal("MALFORMED", (select(3, b:send("nowhere", "x"))))
    local t = world:timer(function (t) t:close() b:close() end)
    t:start(20)
    run()
    assert.same({ "hello", from }, got)
  end)

  it("that cannot bind leaves nothing open", function ()
    local a = assert(world:udp(LOOPBACK, ignore))
    local _, err, code = world:udp(a:address(), ignore)
    assert.equal("EADDRINUSE", code)
    assert.truthy(err:find("bind to 127.0.0.1", 1, true))
    a:close()
    run()
  end)
end)

describe("a lookup", function ()
  it("answers with addresses that carry the port", function ()
    local got
    assert(world:resolve("127.0.0.1", 99, function (addresses) got = addresses end))
    run()
    assert.same({ "127.0.0.1:99" }, got)
  end)

  it("closed early says nothing", function ()
    local lookup = assert(world:resolve("127.0.0.1", 1, function () error "it was cancelled" end))
    lookup:close()
    run()
  end)
end)

describe("files", function ()
  local folder = os.tmpname()
  os.remove(folder)
  teardown(function () os.execute("rm -rf " .. folder) end)

  it("are made, replaced, read, listed in order, renamed and removed", function ()
    assert(world:make_directory(folder .. "/a/b"))
    assert(world:make_directory(folder .. "/a/b"))
    assert(world:put_durable(folder .. "/z", "1\0\n"))
    assert(world:put_durable(folder .. "/z", "two"))
    assert(world:put_durable(folder .. "/m", ""))
    assert.equal("two", world:read_file(folder .. "/z"))
    assert.equal("", world:read_file(folder .. "/m"))
    assert(world:rename(folder .. "/z", folder .. "/c"))
    assert.same({ "a", "c", "m" }, world:list(folder))
    assert(world:unlink(folder .. "/c"))
    local bytes, err, code = world:read_file(folder .. "/c")
    assert.is_nil(bytes)
    assert.equal("ENOENT", code)
    assert.truthy(err:find(folder .. "/c", 1, true))
    assert.equal("ENOENT", (select(3, world:list(folder .. "/none"))))
  end)

  it("say their size, kind and time", function ()
    assert(world:make_directory(folder))
    assert(world:put_durable(folder .. "/five", "12345"))
    local about = assert(world:stat(folder .. "/five"))
    assert.equal(5, about.size)
    assert.is_false(about.directory)
    assert.truthy(math.abs(about.modified_ns - world:wall_ns()) < 60 * 1000000000)
    assert.is_true(world:stat(folder).directory)
    local none, err, code = world:stat(folder .. "/none")
    assert.is_nil(none)
    assert.equal("ENOENT", code)
    assert.truthy(err:find(folder .. "/none", 1, true))
  end)

  it("are put off the loop, with the result later, once, and the bytes kept until then", function ()
    assert(world:make_directory(folder))
    local answers = {}
    local function answer(...) answers[#answers + 1] = table.pack(...) end
    assert.is_true(world:put_later(folder .. "/later", ("x"):rep(100000) .. world:random(9), function (...)
      answer(...)
      assert.is_true(world:put_later(folder .. "/later", "two", answer))
    end))
    collectgarbage()
    collectgarbage()
    local refused, err, code = world:put_later(folder .. "/later", "y", answer)
    assert.is_nil(refused)
    assert.equal("BUSY", code)
    assert.truthy(err:find(folder .. "/later", 1, true))
    assert.equal("BUSY", (select(3, world:put_durable(folder .. "/later", "z"))))
    assert.equal(0, #answers)
    run()
    assert.same({ { true, n = 1 }, { true, n = 1 } }, answers)
    assert.equal("two", world:read_file(folder .. "/later"))
    answers = {}
    assert.is_true(world:put_later(folder .. "/nowhere/a", "x", answer))
    run()
    assert.is_nil(answers[1][1])
    assert.equal("write " .. folder .. "/nowhere/a: No such file or directory", answers[1][2])
    assert.equal("ENOENT", answers[1][3])
    assert.equal(1, #answers)
    assert.error.matches(function () world:put_later(folder .. "/a", "x") end, "function expected")
  end)

  it("that are put off the loop report what their function raises", function ()
    assert(world:make_directory(folder))
    local told = {}
    door.sink(function (site) told[#told + 1] = site end)
    assert.is_true(world:put_later(folder .. "/raises", "x", function () error "on purpose" end))
    run()
    door.sink(nil)
    assert.same({ "world.put.done" }, told)
  end)

  it("are locked for one process, and a refusal names it", function ()
    assert(world:make_directory(folder))
    local path = folder .. "/lock"
    local lock = assert(world:lock(path))
    collectgarbage()
    local again, err, code = world:lock(path)
    assert.is_nil(again)
    assert.equal("BUSY", code)
    assert.equal(("lock %s: held by process %d"):format(path, uv.os_getpid()), err)
    local status = select(3, os.execute(("flock -n %s true"):format(path)))
    assert.equal(1, status) -- Other processes are refused too.
    lock:close()
    lock:close()
    assert(world:lock(path)):close()
    run()
    assert.equal(0, (select(3, os.execute(("flock -n %s true"):format(path)))))
    assert.equal("ENOENT", (select(3, world:lock(folder .. "/none/lock"))))
    assert.equal(0, world:telemetry().open_handles)
  end)

  it("that were logs and have left their place say so at the next sync", function ()
    assert(world:make_directory(folder .. "/gone"))
    local answers, log = {}, nil
    log = assert(world:log(folder .. "/gone/log", function (...)
      answers[#answers + 1] = table.pack(...)
      if #answers == 1 then
        os.execute("rm -rf " .. folder .. "/gone")
        assert(log:append "two\n")
        assert(log:sync())
      else
        log:close()
      end
    end))
    assert(log:append "one\n")
    assert(log:sync())
    run()
    assert.equal(4, answers[1][1])
    assert.same({ nil, "sync: the file or its folder was removed or replaced", "GONE", n = 3 }, answers[2])
  end)

  it("grow as logs, and tell when they are durable", function ()
    assert(world:make_directory(folder))
    local synced
    local log
    log = assert(world:log(folder .. "/log", function (size)
      synced = size
      log:close()
    end))
    assert(log:append "one\n")
    assert(log:append "two\n")
    assert.equal(8, log:size())
    assert(log:sync())
    run()
    assert.equal(8, synced)
    assert.error.matches(function () log:append "x" end, "this log is closed")
    assert.equal("one\ntwo\n", world:read_file(folder .. "/log"))
  end)

  it("refuse a log in a folder that is not there, with nothing open", function ()
    local log, _, code = world:log(folder .. "/none/log", ignore)
    assert.is_nil(log)
    assert.equal("ENOENT", code)
    assert.equal(0, world:telemetry().open_handles)
  end)
end)

describe("a child process", function ()
  it("gets stdin, environment and directory, and gives stdout and its status", function ()
    local out, exit = "", nil
    local process
    process = assert(world:spawn {
      argv = { "sh", "-c", "read line; echo \"$line $A $B $(pwd)\"; exit 3" }, env = { B = "2", A = "1" }, cwd = "/",
      pipe = { stdin = true, stdout = true },
      on_exit = function (status, signal) exit = { status, signal } end,
    })
    local stdin = process:stream(0)
    stdin:attach { on_end = function (s) s:close() end }
    process:stream(1):attach {
      on_read = function (_, bytes) out = out .. bytes end,
      on_end = function (s) s:close() end,
    }
    assert.is_nil(process:stream(1)) -- Once each.
    assert.is_nil(process:stream(2)) -- Not asked for.
    assert(stdin:write "hello\n")
    local t
    t = world:timer(function ()
      if not exit then return t:start(2) end
      process:close()
      stdin:close()
      t:close()
    end)
    t:start(2)
    run()
    assert.equal("hello 1 2 /\n", out)
    assert.same({ 3, 0 }, exit)
  end)

  it("is killed with its group", function ()
    local process
    local got
    process = assert(world:spawn {
      argv = { "sleep", "60" }, group = true,
      on_exit = function (_, signal) got = signal process:close() end,
    })
    assert.truthy(process:pid() > 0)
    assert(process:kill "KILL")
    run()
    assert.equal(9, got)
  end)

  it("that does not exist is refused with nothing open", function ()
    local process, err, code = world:spawn { argv = { "/no/such/program" }, on_exit = ignore }
    assert.is_nil(process)
    assert.equal("ENOENT", code)
    assert.truthy(err:find("/no/such/program", 1, true))
    run()
  end)

  it("refuses wrong options by name", function ()
    assert.error.matches(function () world:spawn { argv = {}, on_exit = ignore } end, "argv is missing or empty")
    assert.error.matches(function () world:spawn { argv = { "x" } } end, "on_exit is missing")
    assert.error.matches(function () world:spawn { argv = { "x", 1 }, on_exit = ignore } end, "argv%[2%] is no string")
    assert.error.matches(function () world:spawn { argv = { "x" }, env = { 1 }, on_exit = ignore } end, "NAME = value")
    assert.equal(0, world:telemetry().open_handles)
  end)
end)
