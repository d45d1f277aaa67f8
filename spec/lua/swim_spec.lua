local door = require "shoal.core.door"
local luv = require "luv"
local real = require "spec.support.real"
local swim = require "shoal.swim"
local world = require "shoal.core.world".current()

local build = os.getenv "SHOAL_BUILD" or "build/release"
local LIMIT_MS = 10000

--- Run the loop until `done()` holds; after the limit it fails, with the events seen.
local function run_until(done, seen)
  local began_ns = world:fresh_ns()
  local heartbeat
  heartbeat = world:timer(function () if not done() then heartbeat:start(5) end end)
  heartbeat:start(0)
  do
    local _ <close> = setmetatable({}, { __close = function () heartbeat:close() end }) -- Also where the loop raises: else it beats for ever.
    while not done() and world:fresh_ns() - began_ns < LIMIT_MS * 1000000 do luv.run "once" end
  end
  luv.run "nowait"
  assert(done(), "not within the limit; seen: " .. table.concat(seen or {}, ", "))
end

local opened = {}

--- A member on loopback; its events are noted as "kind name".
local function open(name, options, on_event)
  local seen = {}
  local config = { node = name, bind = "127.0.0.1:0", profile = "local", cluster = "spec", generation = 5 }
  for key, value in pairs(options or {}) do config[key] = value end
  local self = assert(swim.open(world, config, function (event)
    seen[#seen + 1] = event.kind .. " " .. event.member.name
    if on_event then on_event(event) end
  end))
  opened[#opened + 1] = self
  return self, seen
end

local function saw(seen, what)
  return function ()
    for _, line in ipairs(seen) do if line == what then return true end end
    return false
  end
end

after_each(function ()
  for _, self in ipairs(opened) do self:close() end
  opened = {}
  luv.run() -- nothing of it keeps the loop alive
  assert.equal(0, world:telemetry().open_handles)
end)

describe("shoal.swim", function ()
  it("members meet through a seed, and know each other's address and payload", function ()
    local a, seen_a = open("a", { payload = "\0alpha" })
    local b, seen_b = open("b", { payload = "beta", seeds = { a:address() } })
    run_until(saw(seen_a, "join b"), seen_a)
    run_until(saw(seen_b, "join a"), seen_b)
    run_until(function () return b:member "a".payload == "\0alpha" and a:member "b".payload == "beta" end)
    assert.equal(a:address(), b:member "a".address)
    assert.equal("alive", b:member "a".state)
    local names = {}
    for _, member in ipairs(a:members()) do names[#names + 1] = member.name end
    assert.same({ "a", "b" }, names)
    assert.equal("a", a:self().name)
    assert.is_nil(a:member "nobody")
    assert.equal(2, a:counts().live)
  end)

  it("tells a new payload, and refuses one that is too large", function ()
    local a = open "a"
    local _, seen_b = open("b", { seeds = { a:address() } })
    run_until(saw(seen_b, "join a"), seen_b)
    assert.is_true(a:payload(("x"):rep(512)))
    run_until(saw(seen_b, "update a"), seen_b)
    local ok, message, code = a:payload(("x"):rep(513))
    assert.is_nil(ok)
    assert.equal("TOO_LARGE", code)
    assert.is_string(message)
    assert.equal(2, a:self().payload_version)
  end)

  it("tells what a user tells, once, with whose it is; and refuses too much", function ()
    local a, seen_a = open "a"
    local told = {}
    local _, seen_b = open("b", { seeds = { a:address() } }, function (event)
      if event.kind == "user" then told[#told + 1] = event.member.name .. event.number .. event.told end
    end)
    run_until(saw(seen_b, "join a"), seen_b)
    assert.is_true(a:tell "hello")
    assert.is_true(a:tell(("x"):rep(256)))
    run_until(function () return #told == 2 end)
    table.sort(told)
    assert.same({ "a1hello", "a2" .. ("x"):rep(256) }, told)
    assert.is_false(saw(seen_a, "user a")()) -- not to oneself
    for _, bytes in ipairs { "", ("x"):rep(257) } do
      local ok, message, code = a:tell(bytes)
      assert.is_nil(ok)
      assert.is_string(message)
      assert.equal("TOO_LARGE", code)
    end
    assert.equal(2, a:counts().user_sent)
  end)

  it("refuses an event more than its window, with the time of another try, and drops none that it took", function ()
    local a = open "a"
    for i = 1, 1024 do assert.is_true(a:tell("event " .. i)) end
    local ok, message, code, wait_ms = a:tell "one more"
    assert.is_nil(ok)
    assert.equal("FULL", code)
    assert.is_true(math.type(wait_ms) == "integer" and wait_ms > 0)
    local text = "swim: tell: 1024 events of this member, or 4096 of all, are not over yet; tell it again in %d ms, or tell less"
    assert.equal(text:format(wait_ms), message)
    local counts = a:counts()
    assert.same({ 1024, 1 }, { counts.user_sent, counts.user_full })
    local told, last = 0, 0
    local _, seen_b = open("b", { seeds = { a:address() } }, function (event)
      if event.kind == "user" then told, last = told + 1, math.max(last, event.number) end
    end)
    run_until(function () return told == 1024 end, seen_b) -- It joined late, and they are not over.
    assert.equal(1024, last)
  end)

  it("says why it believes what it does, also as text", function ()
    local a, seen_a = open "a"
    local b = open("b", { seeds = { a:address() } })
    run_until(saw(seen_a, "join b"), seen_a)
    run_until(function () return a:why "b".heard_s ~= nil end)
    assert.is_true(a:why "b".member.rtt_ns > 0)
    assert.is_nil(a:why "nobody")
    b:close()
    run_until(saw(seen_a, "suspect b"), seen_a)
    local why = a:why "b"
    assert.same({ "a" }, why.suspicion.accusers)
    assert.is_true(why.suspicion.ends_ms > 0 and why.suspicion.since_ms >= 0)
    assert.equal("SUSPECTED", why.facts[1].kind)
    assert.equal("a", why.facts[1].by)
    local text = swim.explain(why)
    assert.is_truthy(text:find("b at 127.0.0.1:%d+ is suspect, incarnation %d+.0\n"), text)
    assert.is_truthy(text:find("suspected for %d+ ms by a %(0 of 0 confirmations%); dead in %d+ ms unless it refutes"), text)
    run_until(saw(seen_a, "dead b"), seen_a)
    assert.equal("TIMED_OUT", a:why "b".facts[1].kind)
  end)

  it("takes other times while it runs, and refuses what cannot be", function ()
    local a = open "a"
    assert.is_true(a:reconfigure { probe_interval_ms = 100, probe_timeout_ms = 40 })
    assert.is_true(a:reconfigure { profile = "lan" })
    for _, bad in ipairs { { probe_timeout_ms = 5000 }, { node = "z" }, { gossip_fanuot = 2 }, { profile = "moon" } } do
      local ok, message, code = a:reconfigure(bad)
      assert.is_nil(ok)
      assert.is_string(message)
      assert.equal("CONFIG", code)
    end
    assert.is_nil(a:distance_ns("a", "nobody"))
  end)

  it("records what it is told, and a replay offline decides the same and can be asked why", function ()
    local path = os.tmpname()
    os.remove(path)
    local a, seen_a = open("a", { record = path })
    local b = open("b", { seeds = { a:address() } })
    run_until(saw(seen_a, "join b"), seen_a)
    a:tell "hello"
    b:close()
    run_until(saw(seen_a, "suspect b"), seen_a)
    run_until(saw(seen_a, "dead b"), seen_a)
    a:close()
    luv.run()
    local replayed = assert(swim.replay(world, path, { why = { "b" } }))
    assert.is_true(replayed.same)
    assert.is_nil(replayed.cut_at)
    local seen = {}
    for _, event in ipairs(replayed.events) do seen[#seen + 1] = event.kind .. " " .. event.name end
    assert.same(seen_a, seen)
    assert.equal("dead", replayed.members[2].state)
    assert.equal("TIMED_OUT", replayed.why.b.facts[1].kind)
    local at_ms
    for _, event in ipairs(replayed.events) do if event.kind == "suspect" then at_ms = event.at_ms end end
    local earlier = assert(swim.replay(world, path, { until_ms = at_ms, why = { "b" } }))
    assert.equal("suspect", earlier.why.b.member.state)
    assert.is_true(earlier.steps < replayed.steps)
    local again = open("a", { record = path }) -- the one before is kept beside it
    again:close()
    luv.run()
    assert.equal(replayed.steps, assert(swim.replay(world, path .. ".1")).steps)
    for _, case in ipairs { { "no such file", "ENOENT" }, { "README.md", "MALFORMED" } } do
      local none, message, code = swim.replay(world, case[1])
      assert.is_nil(none)
      assert.is_string(message)
      assert.equal(case[2], code)
    end
    os.remove(path)
    os.remove(path .. ".1")
  end)

  it("predicts what a configuration will do, the same each time it is asked", function ()
    local question = { n = 50, crashes = 10, rest_s = 20 }
    local p = assert(swim.predict(question))
    assert.is_true(p.bytes_per_s > 50 and p.bytes_per_s < 62 and p.datagrams_per_s > 1.9 and p.datagrams_per_s < 2.1)
    assert.equal(0, p.false_deaths)
    assert.equal(0, p.undecided)
    assert.is_true(p.suspected_s.p50 > 1 and p.suspected_s.p50 <= p.first_dead_s.p50 and p.first_dead_s.p50 <= p.all_dead_s.p50)
    assert.is_true(p.all_dead_s.p99 <= p.all_dead_s.max and p.all_dead_s.max < 15)
    assert.same(p, swim.predict(question))
    local slow = assert(swim.predict { n = 50, crashes = 10, rest_s = 20, config = { probe_interval_ms = 3000 } })
    assert.is_true(slow.suspected_s.p50 > 2 * p.suspected_s.p50 and slow.bytes_per_s < p.bytes_per_s / 2)
    local lossy = assert(swim.predict { n = 50, crashes = 2, rest_s = 60, loss = 0.4, config = { ping_repeats = 0 } })
    assert.is_true(lossy.false_suspicions_per_hour > 0)
    for _, bad in ipairs { {}, { n = 2 }, { n = 10, crashes = 5 }, { n = 10, los = 1 }, { n = 10, crashes = 1, config = { node = "x" } },
      { n = 10, crashes = 1, config = { probe_timeout_ms = 5000 } } } do
      local none, message, code = swim.predict(bad)
      assert.is_nil(none)
      assert.is_string(message)
      assert.equal("CONFIG", code)
    end
  end)

  it("fetches a table that is long over a stream, also where its own port is taken for streams; strangers on it are cut off", function ()
    local taken = luv.new_tcp()
    assert(taken:bind("127.0.0.1", 0))
    assert(taken:listen(1, function () end))
    local a = open("a", { stream_bytes = 0, bind = "127.0.0.1:" .. taken:getsockname().port })
    local path = os.tmpname()
    local b, seen_b = open("b", { stream_bytes = 0, seeds = { a:address() }, record = path })
    run_until(function () return b:counts().streams > 0 and b:member "a" ~= nil end, seen_b)
    assert.equal(0, b:counts().stream_failures)
    b:close()
    luv.run "nowait"
    taken:close()
    -- Its streams use the port of its datagrams, if no other process has it: other specs run beside this one.
    local c = open("c", { stream_bytes = 0, seeds = { a:address() }, bind = "127.0.0.1:" .. real.free_port() })
    run_until(function () return c:counts().streams > 0 end)
    local ended
    local stranger = luv.new_tcp()
    stranger:connect("127.0.0.1", tonumber(c:address():match ":(%d+)$"), function (err)
      assert(not err, err)
      stranger:write "GET / HTTP/1.1\r\n\r\n"
      stranger:read_start(function (_, bytes) ended = bytes == nil end)
    end)
    run_until(function () return ended end)
    stranger:close()
    assert.equal(1, c:counts().refused.SHORT)
    a:close()
    c:close()
    luv.run()
    local replayed = assert(swim.replay(world, path)) -- streams are recorded too
    assert.is_true(replayed.same)
    assert.equal(1, replayed.counts.streams)
    os.remove(path)
    os.remove(path .. ".1")
  end)

  it("leaves, and says who heard it; a second time is refused", function ()
    local a, seen_a = open "a"
    local b = open("b", { seeds = { a:address() } })
    run_until(saw(seen_a, "join b"), seen_a)
    local heard
    assert.is_true(b:leave(function (count) heard = count end))
    assert.is_nil(heard) -- it does not call back before it returns
    assert.equal("EXISTS", select(3, b:leave(function () end)))
    run_until(function () return heard end)
    assert.equal(1, heard)
    run_until(saw(seen_a, "left b"), seen_a)
    assert.equal("left", a:member "b".state)
  end)

  it("leaves alone without waiting", function ()
    local a, heard = open "a", nil
    a:leave(function (count) heard = count end)
    run_until(function () return heard == 0 end)
  end)

  it("may be closed from its own handler, and hears nothing more", function ()
    local a = open "a"
    local calls, b = 0, nil
    b = open("b", { seeds = { a:address() } }, function ()
      calls = calls + 1
      b:close()
    end)
    run_until(function () return calls > 0 end)
    assert.equal(1, calls)
    b:close() -- twice without harm
    assert.has_error(function () b:members() end)
    assert.has_error(function () b:leave() end)
  end)

  it("goes on after a handler that raises, which is one incident", function ()
    local incidents = {}
    door.sink(function (site, err) incidents[#incidents + 1] = site .. ": " .. tostring(err) end)
    finally(function () door.sink(nil) end)
    local a = open "a"
    local _, seen = open("b", { seeds = { a:address() } }, function (event)
      if event.kind == "join" then error("on purpose", 0) end
    end)
    run_until(saw(seen, "join a"), seen)
    assert.is_true(a:payload "more")
    run_until(saw(seen, "update a"), seen)
    assert.same({ "swim.callback: on purpose" }, incidents)
  end)

  it("may be driven from its own handler: join, payload, leave", function ()
    local a = open "a"
    local left, b = nil, nil
    b = open("b", { seeds = { a:address() } }, function (event)
      if event.kind ~= "join" then return end
      assert(b:payload "from within")
      assert(b:join { a:address() })
      assert(b:leave(function (count) left = count end))
    end)
    run_until(function () return left == 1 end)
    run_until(function () return a:member "b" and a:member "b".payload == "from within" end)
  end)

  it("counts garbage by reason and lives", function ()
    local a = open "a"
    local socket = assert(world:udp("127.0.0.1:0", function () end))
    assert(socket:send(a:address(), "x"))
    assert(socket:send(a:address(), ("\0"):rep(100)))
    assert(socket:send(a:address(), "Sw" .. ("\255"):rep(100)))
    run_until(function () return a:counts().refused.VERSION == 1 end)
    assert.equal(1, a:counts().refused.SHORT)
    assert.equal(1, a:counts().refused.MAGIC)
    socket:close()
  end)

  it("keeps clusters apart", function ()
    local a = open("a", { cluster = "one" })
    open("b", { cluster = "two", seeds = { a:address() } })
    run_until(function () return a:counts().refused.CLUSTER > 0 end)
    assert.equal(1, a:counts().live)
  end)

  it("works over IPv6", function ()
    local a, seen = open("a", { bind = "[::1]:0" })
    open("b", { bind = "[::1]:0", seeds = { a:address() } })
    run_until(saw(seen, "join b"), seen)
    assert.equal("[::1]:", a:member "b".address:sub(1, 6))
  end)

  it("counts datagrams that the network refuses, in all and by the error's name", function ()
    local a = open("a")
    assert.equal(0, a:counts().send_failed)
    assert.same({}, a:counts().send_errors)
    assert(a:join { "[::1]:7" }) -- A socket of IPv4 cannot send there.
    run_until(function () return a:counts().send_failed > 0 end)
    local counts = a:counts()
    assert.same({ EAFNOSUPPORT = counts.send_failed }, counts.send_errors)
  end)

  it("refuses, by name, to bind beyond loopback without keys", function ()
    for _, bind in ipairs { "0.0.0.0:0", "192.0.2.7:7000", "[::]:0" } do
      local self, message, code = swim.open(world, { node = "a", bind = bind }, function () end)
      assert.is_nil(self)
      assert.equal("CONFIG", code)
      assert.is_truthy(message:find("without keys", 1, true), message)
      assert.is_truthy(message:find(bind, 1, true), message)
    end
  end)

  it("says what is wrong with a configuration, all of it", function ()
    local function problem(config)
      local self, message, code = swim.open(world, config, function () end)
      assert.is_nil(self)
      assert.equal("CONFIG", code)
      return message
    end
    local message = problem { node = 7, bind = "nowhere", profle = "lan", seeds = { "x" } }
    for _, part in ipairs { "node", "bind", "profle", "profile", "seeds[1]" } do
      assert.is_truthy(message:find(part, 1, true), part .. " is missing in: " .. message)
    end
    local base = { node = "a", bind = "127.0.0.1:0" }
    local function with(key, value)
      local config = { node = base.node, bind = base.bind }
      config[key] = value
      return problem(config)
    end
    assert.is_truthy(with("node", ""):find "node")
    assert.is_truthy(with("node", ("n"):rep(65)):find "node")
    assert.is_truthy(with("payload", ("p"):rep(513)):find "payload")
    assert.is_truthy(with("probe_timeout_ms", 1000):find "probe_timeout_ms must")
    assert.is_truthy(with("bind", "127.0.0.1:99999"):find "bind")
    assert.is_truthy(with("seeds", { "127.0.0.1:0" }):find("seeds[1]", 1, true))
    assert.is_truthy(with("advertise", "127.0.0.1:0"):find "advertise")
    assert.has_error(function () swim.open(world, base, nil) end)
    assert.has_error(function () swim.open(nil, base, function () end) end)
  end)

  it("takes the longest name and the greatest payload", function ()
    local a = open(("n"):rep(64), { payload = ("p"):rep(512) })
    local b, seen = open("b", { seeds = { a:address() } })
    run_until(saw(seen, "join " .. ("n"):rep(64)), seen)
    run_until(function () return b:member(("n"):rep(64)).payload == ("p"):rep(512) end)
  end)

  it("reports a taken port, with nothing left open", function ()
    local a = open "a"
    local self, message, code = swim.open(world, { node = "b", bind = a:address() }, function () end)
    assert.is_nil(self)
    assert.equal("EADDRINUSE", code)
    assert.is_truthy(message:find(a:address(), 1, true), message)
  end)

  it("says what it is and in what state", function ()
    local a = open "a"
    assert.is_truthy(tostring(a):find "^swim#%d+ %(open%)$")
    a:close()
    assert.is_truthy(tostring(a):find "clos")
  end)
end)

describe("examples/membership.lua", function ()
  it("shows a join, a leaving and a death, and ends by itself", function ()
    local pipe = assert(io.popen("SHOAL_BUILD=" .. build .. " timeout 20 lua5.4 examples/membership.lua 2>&1"))
    local output = pipe:read "a"
    assert(pipe:close(), output)
    local at = 1
    for _, line in ipairs { "ada%s+sees grace join", "grace%s+left; 2 heard it", "ada%s+sees bob suspect", "ada%s+sees bob dead",
                            "ada alive, bob dead, grace left", "done" } do
      local _, last = output:find(line, at)
      assert(last, line .. " is missing, or out of order, in:\n" .. output)
      at = last
    end
  end)
end)

describe("examples of foresight and evidence", function ()
  local function run(example)
    local pipe = assert(io.popen("SHOAL_BUILD=" .. build .. " timeout 60 lua5.4 examples/" .. example .. " 2>&1"))
    local output = pipe:read "a"
    assert(pipe:close(), output)
    return output
  end

  it("predict.lua compares configurations before they are deployed", function ()
    local output = run "predict.lua 30"
    assert.is_truthy(output:find("\nlan +%d+%.%d+ s +%d+%.%d+ s, +%d+%.%d+ s +%d+%.%d +0\n"), output)
    assert.is_truthy(output:find "\nlocal ", output)
  end)

  it("evidence.lua asks a live member why, and then its recording", function ()
    local output = run "evidence.lua"
    assert.is_truthy(output:find("is suspect.*suspected by ada.*replayed to the same decisions.*is dead.*suspicion timed out"), output)
  end)
end)
