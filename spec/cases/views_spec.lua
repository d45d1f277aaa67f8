--- What people are shown of jobs, nodes and failures, from the command line of one cluster.
local cjson = require "cjson"
local cluster = require "spec.support.cluster"

describe("what people are shown:", function ()
  local c, up

  setup(function ()
    c = cluster.new()
    up = c:up "return { gates = { {} }, datacenters = { a = { managers = { {} }, workers = { { cores = 2 } } } } }"
    c:file("quick.lua", "return { name = 'quick', workflows = { w = { command = 'echo quick' } } }")
    c:file("bad.lua", "return { name = 'bad', workflows = { w = { command = 'exit 3' } } }")
    c:file("slow.lua", ("return { name = 'slow', timeout_ms = 60000, workflows = { "
      .. "w = { command = 'until [ -e %s/go ]; do sleep 0.1; done' }, v = { after = { 'w' }, command = 'true' } } }"):format(c.dir))
  end)
  teardown(function () c:close() end)

  local function shell(line)
    return c:spawn({ "bash", "-c", line, stdin = "", env = { SHOAL = cluster.program, D = c.dir, SHOAL_CONNECT = up.connect } }):wait(20000)
  end
  local function has(text, ...)
    for _, plain in ipairs { ... } do assert.is_truthy(text:find(plain, 1, true), ("expected %q in:\n%s"):format(plain, text)) end
  end

  it("C4: status of a running job has its times, its parts and its executions; --follow and wait end with its outcome", function ()
    local r = shell "$SHOAL submit $D/slow.lua --detach"
    has(r.err, "its result is kept for 7 days after its end, or until results take more than 256 MiB")
    local id = r.out:match "%S+"
    cluster.pause(300)
    local followed = c:start { "status", id, "--follow", "--connect", up.connect }
    local lines = c:start { "status", id, "--follow", "-o", "json", "--connect", up.connect }
    local text = shell("$SHOAL status " .. id).out
    has(text, "is running", "submitted 20", "@", " so far of at most 60.0 s", "w: running; 1 parts: 1 running", "v: waiting", "1 executions, 0")
    assert.is_true(tonumber(text:match "; ([%d.]+) s so far") > 0.2, text)
    local running = cjson.decode(shell("$SHOAL status -o json " .. id).out)
    assert.same({ id, "running", 60000 }, { running.job, running.state, running.limit_ms })
    r = shell("$SHOAL wait --timeout 0.1 " .. id)
    assert.equal(124, r.code, r.err)
    c:file("go", "")
    r = shell(("$SHOAL wait -o json --result $D/w.json %s"):format(id))
    assert.equal(0, r.code, r.err)
    local result = cjson.decode(r.out)
    assert.same({ "completed", id }, { result.state, result.job })
    assert.is_true(result.ended_ms - result.submitted_ms >= 400) -- It ran while its states were read.
    assert.same(result, cjson.decode(cluster.read(c.dir .. "/w.json")))
    assert.same(result, cjson.decode(shell("$SHOAL status -o json " .. id).out)) -- One shape for one job.
    assert.equal(0, followed:wait().code, followed.err)
    has(followed.out, "v is completed", "job " .. id .. " completed after")
    assert.equal(0, lines:wait().code)
    local last
    for line in lines.out:gmatch "[^\n]+" do last = cjson.decode(line) end
    assert.same({ "result", result }, { last.kind, last.body })
  end)

  it("wait: several jobs, a line each; the exit code is the first that is not 0; a job that nobody knows is refused", function ()
    local good = shell("$SHOAL submit $D/quick.lua --detach").out:match "%S+"
    local bad = shell("$SHOAL submit $D/bad.lua --detach").out:match "%S+"
    local r = shell(("$SHOAL wait %s %s %s"):format(good, bad, good))
    assert.equal(1, r.code, r.err)
    has(r.out, good .. " completed after", bad .. " failed (w/a: w/a/1: the command exited with status 3")
    assert.equal(2, select(2, r.out:gsub("\n", "")))
    r = shell(("$SHOAL wait -o json %s %s"):format(good, bad))
    assert.same({ "completed", "failed" }, { cjson.decode(r.out).jobs[1].state, cjson.decode(r.out).jobs[2].state })
    assert.equal(4, shell("$SHOAL wait nosuch").code)
    assert.equal(4, shell(("$SHOAL wait %s nosuch"):format(good)).code)
    assert.equal(2, shell(("$SHOAL wait --result $D/x %s %s"):format(good, bad)).code)
  end)

  it("jobs: when, how long, from whom; --state, --name, --since, --limit", function ()
    shell "$SHOAL submit $D/quick.lua -q; $SHOAL submit $D/bad.lua -q"
    local text = shell("$SHOAL jobs").out
    has(text, "JOB", "STATE", "SUBMITTED", "STARTED", "ENDED", "TOOK", "FROM", " s ago", "@")
    local function names(words)
      local out = {}
      for i, j in ipairs(cjson.decode(shell("$SHOAL jobs -o json " .. words).out).jobs) do out[i] = j.name end
      return out
    end
    for _, name in ipairs(names "--state failed") do assert.equal("bad", name) end
    assert.is_true(#names "--name quick" > 0 and #names "--name nothing" == 0)
    assert.same({ "bad" }, names "--limit 1")
    assert.same({}, names "--since 0s")
    has(shell("$SHOAL jobs --limit 1").out, "older ones")
    local origin = cjson.decode(shell("$SHOAL jobs -o json").out).jobs[1].origin
    assert.equal(shell("echo $(id -un)@$(hostname)").out, origin .. "\n")
    for words, says in pairs { -- order-free: each by itself
      ["--state lost"] = "must be one of", ["--since yesterday"] = "--since: expected a time such as 90s", ["--limit 0"] = "from 1 to 2000",
      ["--name ''"] = "--name: expected a text",
    } do
      local r = shell("$SHOAL jobs " .. words)
      assert.equal(2, r.code, words)
      has(r.err, says)
    end
  end)

  it("C24, C6: output of parts by name, with what was cut; lines that a script prints are in the result", function ()
    c:file("many.lua", "return { name = 'many', workflows = { crunch = { command = 'seq 1 100000; echo $SHOAL_RUN', parts = 2 }, "
      .. "talk = { script = 'talk.lua', vus = 1, iterations = 2 }, slow = { after = { 'crunch', 'talk' }, command = 'sleep 0.7' } } }")
    c:file("talk.lua", "return function (vu) vu:log('at ' .. vu:now_ms()) print('hello', 7) end")
    local id = shell("$SHOAL submit $D/many.lua --detach").out:match "%S+"
    local early = shell(("sleep 0.4; $SHOAL output %s talk"):format(id))
    has(early.out, "hello\t7\n")
    local r = shell(("$SHOAL wait %s > $D/waited"):format(id))
    assert.equal(0, r.code, r.err)
    local waited = cluster.read(c.dir .. "/waited")
    has(waited, "output of crunch/a/1#1 (status 0):", "lines of talk/a/1:", "hello\t7")
    local cut = tonumber((waited:match "%.%.%. ([%d,]+) bytes cut %.%.%.":gsub(",", "")))
    shell(("$SHOAL output -o json %s crunch > $D/all.json"):format(id))
    local all = cjson.decode(cluster.read(c.dir .. "/all.json")).outputs
    assert.same({ 2, "crunch", 588897 }, { #all, all[1].workflow, all[1].bytes }) -- seq's, and a number.
    assert.equal(588897, #all[1].head + cut + #all[1].tail)
    r = shell(("$SHOAL output %s '%s'"):format(id, all[2].run))
    assert.matches("^1\n2\n3\n", r.out, r.err)
    assert.matches("\n99999\n100000\n%d\n$", r.out)
    assert.is_nil(r.out:find("output of", 1, true))
    r = shell(("$SHOAL output %s | grep -a ' of '"):format(id))
    has(r.out, ("output of %s (status 0):"):format(all[1].run), ("output of %s (status 0):"):format(all[2].run), "lines of talk/a/1:")
    r = shell(("$SHOAL output %s nope"):format(id))
    assert.equal(4, r.code)
    has(r.err, ('no output of "nope"; there are: %s, %s'):format(all[1].run, all[2].run))
    assert.equal(4, shell("$SHOAL output nosuch").code)
  end)

  it("C8: incidents of the whole cluster from any node, with time, node and count; --node, --site, --since, --local, --follow", function ()
    local manager, worker = up.nodes["m-a1"].address, up.nodes["w-a1"].address
    local follower = c:start { "incidents", "--follow", "--site", "repl", "--connect", up.connect }
    shell(("for i in 1 2 3; do $SHOAL repl -c %s --eval 'error [[at the manager]]'; done"):format(manager))
    shell(("$SHOAL repl -c %s --eval 'error [[at the worker]]'"):format(worker))
    for _, address in ipairs { up.connect, manager, worker } do
      local r = shell("$SHOAL incidents --site repl.eval -c " .. address)
      has(r.out, "m-a1  m-a1-", "w-a1  w-a1-", "repl.eval", "at the manager", "at the worker", "(3 times by then)")
      assert.matches("\n%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%dZ  ", "\n" .. r.out)
      assert.equal("", r.err)
    end
    local function count(words) return #cjson.decode(shell("$SHOAL incidents -o json " .. words).out).incidents end
    assert.equal(1, count "--site repl --node w-a1")
    assert.equal(0, count "--site repl --local")
    assert.equal(0, count "--site repl --since 0s")
    assert.equal(2, count "--site repl -n 2")
    follower:wait_for("at the worker", "out")
    follower:kill "sigint"
    assert.equal(130, follower:wait().code)
    assert.equal(4, select(2, follower.out:gsub("  repl.eval  ", "")), follower.out) -- Each once.
    for words, says in pairs { -- order-free: each by itself
      ["--counts --site lead"] = "contradict each other", ["--node ''"] = "--node: expected a node's name", ["-n 513"] = "from 1 to 512",
    } do
      local r = shell("$SHOAL incidents " .. words)
      assert.equal(2, r.code, words)
      has(r.err, says)
    end
  end)

  it("C9: at a gate, members --follow prints what happens in its datacenters; --since and --why name the managers to ask", function ()
    local follower = c:start { "members", "--follow", "--connect", up.connect }
    follower:wait_for("w%-a1%s+worker", "out")
    local w = c:node("worker", { "--name", "w-new", "--dc", "a", "--join", up.nodes["m-a1"].address, "--data", c.dir .. "/w-new" })
    follower:wait_for("Z  join     w%-new  worker  a", "out")
    w:close_stdin()
    w:wait()
    follower:wait_for("gone     w%-new", "out")
    follower:kill "sigint"
    assert.equal(130, follower:wait().code)
    has(shell("$SHOAL members --since 0").err, "g1 is a gate", "m-a1 at " .. up.nodes["m-a1"].address)
    local r = shell "$SHOAL members --why w-a1"
    assert.equal(4, r.code)
    has(r.err, "ask a manager of a: m-a1 at " .. up.nodes["m-a1"].address)
    assert.equal(0, shell("$SHOAL members --why w-a1 -c " .. up.nodes["m-a1"].address).code)
  end)

  it("names who to ask when a worker is asked for jobs; a client without an address is refused", function ()
    local r = shell("$SHOAL submit $D/quick.lua -c " .. up.nodes["w-a1"].address)
    assert.equal(4, r.code)
    has(r.err, "this command asks a gate or a manager")
    r = shell "$SHOAL run scripts/roles/client.lua"
    assert.equal(2, r.code, r.err)
    has(r.err, "--connect: missing; expected the address of a gate or manager")
  end)

  it("B11: --key with another job is refused with exit code 4", function ()
    assert.equal(0, shell("$SHOAL submit $D/quick.lua --key k1 --detach").code)
    local r = shell "$SHOAL submit $D/quick.lua --key k1"
    assert.equal(0, r.code)
    has(r.err, "key k1 is known: following its job")
    r = shell "$SHOAL submit $D/bad.lua --key k1"
    assert.equal(4, r.code)
    has(r.err, 'the key "k1" is of quick-', "which is another job")
    assert.equal(4, shell("$SHOAL submit $D/quick.lua --key k1 --env A=b").code)
  end)
end)
