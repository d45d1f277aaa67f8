local dial = require "shoal.wire.dial"
local errors = require "shoal.errors"
local fake_world = require "spec.support.fake_world"
local log = require "shoal.log"
local task = require "shoal.task"

describe("dial.split", function ()
  it("takes names, IPv4 and IPv6 in brackets", function ()
    assert.same({ "shop.example", 80 }, { dial.split "shop.example:80" })
    assert.same({ "127.0.0.1", 0 }, { dial.split "127.0.0.1:0" })
    assert.same({ "::1", 65535 }, { dial.split "[::1]:65535" })
  end)

  it("refuses what is neither, with what was expected", function ()
    for _, text in ipairs { "", "name", "name:", ":80", "name:65536", "name:99999999999999999999", "[::1:80", "::1]:80", "[::1]80" } do
      local host, err, code = dial.split(text)
      assert.same({ "nil", "CONFIG" }, { tostring(host), code })
      assert.matches("expected HOST:PORT", err)
    end
    assert.matches("expected brackets around the IPv6 address, as in %[::1%]:80", (select(2, dial.split "::1:80")))
  end)
end)

describe("dial.order", function ()
  it("lets the families take turns, the first one's first", function ()
    assert.same({}, dial.order {})
    assert.same({ "1.1.1.1:1" }, dial.order { "1.1.1.1:1" })
    assert.same({ "[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1" },
      dial.order { "[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1" })
    assert.same({ "1.1.1.1:1", "[::1]:1", "1.1.1.2:1" }, dial.order { "1.1.1.1:1", "1.1.1.2:1", "[::1]:1", "1.1.1.1:1" })
  end)

  it("keeps ADDRESSES_MAX, of both families", function ()
    local many = {}
    for i = 1, dial.ADDRESSES_MAX do many[i] = ("[::%x]:1"):format(i) end
    assert.equal(dial.ADDRESSES_MAX, #dial.order(many))
    many[#many + 1] = "1.1.1.1:1"
    local kept = dial.order(many)
    assert.equal(dial.ADDRESSES_MAX, #kept)
    assert.equal("1.1.1.1:1", kept[2])
  end)
end)

describe("dial", function ()
  local world, scope, log_of, settles

  before_each(function ()
    world = fake_world.new()
    errors.reset()
    task.reset()
    assert(log.open(world, function () end))
    errors.start(world, "n1")
    task.start(world)
    scope = task.scope "spec"
    log_of, settles = {}, {}
  end)
  after_each(function ()
    scope:close()
    task.reset()
    assert(errors.balance())
    assert.same({}, errors.incidents())
    errors.reset()
    log.reset()
    assert.equal(0, world.open, "a timer stayed open")
  end)

  local began_ns
  local function say(what) log_of[#log_of + 1] = ("%g %s"):format((world:now_ns() - began_ns) / 1e6, what) end

  --- Race these addresses; their results are given by settles[address]. Returns the task.
  local function race(addresses, options, refused)
    began_ns = world:now_ns()
    return scope:spawn("spec.run", { task = "race" }, function ()
      local value, address, failures = dial.race(world, addresses, function (address, settle)
        say("begin " .. address)
        settles[address] = settle
        if refused and refused[address] then return nil, "refused at once", "EINVAL" end
        return function () say("cancel " .. address) end
      end, options)
      say("end")
      return value, address, failures
    end)
  end
  local function events()
    local out = log_of
    log_of = {}
    return out
  end

  it("begins one attempt at a time, DELAY_MS apart", function ()
    local t = race({ "a", "b", "c" })
    world:turn()
    assert.same({ "0 begin a" }, events())
    world:run(dial.DELAY_MS - 1)
    assert.same({}, events())
    world:run(1)
    assert.same({ "250 begin b" }, events())
    world:run(dial.DELAY_MS)
    assert.same({ "500 begin c" }, events())
    world:run(3000)
    assert.same({}, events())
    settles.b "B"
    assert.same({ "3500 cancel a", "3500 cancel c", "3500 end" }, events())
    assert.same({ true, "B", "b", {} }, { t:join() })
    settles.a "A"          -- Late: nobody waits for it any more.
    settles.c(nil, "late")
    assert.same({}, events())
  end)

  it("begins the next at once when one fails, and returns who failed", function ()
    local t = race({ "a", "b", "c", "d" }, nil, { b = true })
    world:run(100)
    settles.a(nil, "connection refused", "ECONNREFUSED")
    world:turn()
    assert.same({ "0 begin a", "100 cancel a", "100 begin b", "100 begin c" }, events())
    world:run(dial.DELAY_MS)
    assert.same({ "350 begin d" }, events())
    settles.c(true)
    assert.same({ "350 cancel d", "350 end" }, events())
    assert.same({ true, true, "c", {
      { address = "a", err = "connection refused", code = "ECONNREFUSED" }, { address = "b", err = "refused at once", code = "EINVAL" },
    } }, { t:join() })
  end)

  it("that all lose names every address with its reason", function ()
    local t = race({ "[::1]:9", "127.0.0.1:9" }, { name = "both.test:9" })
    world:turn()
    settles["[::1]:9"](nil, "no route", "ENETUNREACH")
    settles["127.0.0.1:9"](nil, "connection refused", "ECONNREFUSED")
    assert.same({ true, nil, "both.test:9: [::1]:9: no route; 127.0.0.1:9: connection refused", "ECONNREFUSED" }, { t:join() })
    t = race({ "127.0.0.1:9" }, { name = "127.0.0.1:9" })
    world:turn()
    settles["127.0.0.1:9"](nil, "no route", "ENETUNREACH")
    assert.same({ true, nil, "127.0.0.1:9: no route", "ENETUNREACH" }, { t:join() })
  end)

  it("ends at timeout_ms, and not 1 ms sooner", function ()
    local t = race({ "a", "b", "c" }, { timeout_ms = 400, name = "n" })
    world:turn()
    settles.a(nil, "refused", "ECONNREFUSED")
    world:run(399)
    assert.same({ "0 begin a", "0 cancel a", "0 begin b", "250 begin c" }, events())
    world:run(1)
    assert.same({ "400 cancel b", "400 cancel c", "400 end" }, events())
    assert.same({ true, nil, "n: a: refused; b: no answer within 400 ms; c: no answer within 400 ms", "TIMEOUT" }, { t:join() })
  end)

  it("cancels its attempts when its task is cancelled", function ()
    local t = race({ "a", "b" })
    world:run(300)
    events()
    t:cancel()
    assert.same({ "300 cancel a", "300 cancel b" }, events())
    world:run(1000)
    assert.same({}, events())
  end)

  it("of one address needs no timer", function ()
    local t = race { "a" }
    world:turn()
    assert.is_nil(world:next_ms())
    settles.a "A"
    assert.same({ true, "A", "a", {} }, { t:join() })
  end)

  it("looks names up, and says when the name service is silent", function ()
    local closed, answer = 0, nil
    function world:resolve(_, port, fn) -- luacheck: ignore 212
      if port == 1 then return nil, "no name", "NO_NAME" end
      answer = fn
      return { close = function () closed = closed + 1 end }
    end
    local function look(port)
      local t = scope:spawn("spec.run", { task = "look" }, function () return dial.lookup(world, "both.test", port, 1000) end)
      world:turn()
      return t
    end
    local t = look(1)
    assert.same({ true, nil, "no name", "NO_NAME" }, { t:join() })
    t = look(2)
    answer { "[::1]:2", "[::2]:2", "127.0.0.1:2" }
    assert.same({ true, { "[::1]:2", "127.0.0.1:2", "[::2]:2" } }, { t:join() })
    t = look(2)
    answer(nil, "unknown", "NO_NAME")
    assert.same({ true, nil, "both.test: unknown", "NO_NAME" }, { t:join() })
    t = look(2)
    assert.equal(0, closed)
    world:run(1000)
    assert.same({ true, nil, "both.test: no answer from the name service within 1000 ms", "TIMEOUT" }, { t:join() })
    assert.equal(1, closed)
    look(2):cancel()
    assert.equal(2, closed)
  end)

  it("reaches the address that accepts a stream, and closes all streams", function ()
    local streams, handlers = {}, {}
    function world:connect(address, given) -- luacheck: ignore 212
      if address == "bad" then return nil, "no address", "EINVAL" end
      handlers[address] = given
      streams[address] = { close = function (stream) stream.closed = true end }
      return streams[address]
    end
    local t = scope:spawn("spec.run", { task = "reach" }, function () return dial.reach(world, { "bad", "a", "b", "c" }) end)
    world:run(300)
    handlers.a.on_end(streams.a, nil, nil)
    handlers.b.on_open(streams.b)
    local ok, address, failures = t:join()
    assert.same({ true, "b" }, { ok, address })
    assert.same({ "bad", "a" }, { failures[1].address, failures[2].address })
    assert.equal("closed the connection", failures[2].err)
    for _, stream in pairs(streams) do assert(stream.closed) end
    t = scope:spawn("spec.run", { task = "reach" }, function () return dial.reach(world, { "bad" }) end)
    world:turn()
    assert.same({ true, nil, "bad: no address", "EINVAL" }, { t:join() })
  end)
end)
