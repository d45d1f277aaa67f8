--- The command line from a user's view: help, exit codes, the message for each mistake, and the stream of each output.
local cjson = require "cjson"
local cluster = require "spec.support.cluster"

local NOBODY = "127.0.0.1:1" -- Nothing listens below 1024 here.
local COMMANDS = { "run", "up", "submit", "status", "cancel", "jobs", "members", "incidents", "repl", "check" }

local function job_of(command, more)
  return ("return { name = 'j', %s workflows = { w = { command = %q } } }"):format(more or "", command)
end

describe("the command line", function ()
  local c

  before_each(function () c = cluster.new() end)
  after_each(function () c:close() end)

  --- Run, and expect the code, an empty stdout by default, and each pattern on stderr.
  local function expect(code, argv, ...)
    local r = c:shoal(argv)
    assert.equal(code, r.code, r.out .. r.err)
    if code ~= 0 then assert.equal("", r.out) end
    for _, plain in ipairs { ... } do
      assert.is_truthy(r.err:find(plain, 1, true), ("%s: expected %q in:\n%s"):format(r.words, plain, r.err))
    end
    assert.is_nil(r.err:find "stack traceback", r.err)
    return r
  end

  it("has help for itself and each command, on stdout, with examples", function ()
    local r = expect(0, { "--help" })
    for _, name in ipairs(COMMANDS) do assert.is_truthy(r.out:find("\n   " .. name, 1, true), name) end
    assert.is_truthy(r.out:find("Exit codes: 0 ok, 1 the job failed, 2 usage, 3 not reachable, 4 refused, 5 the job was cancelled"))
    for _, name in ipairs(COMMANDS) do
      r = expect(0, { name, "--help" })
      assert.is_truthy(r.out:find("^Usage: shoal " .. name), r.out)
      assert.is_truthy(r.out:find("Examples?:\n  shoal " .. name), r.out)
      assert.equal("", r.err)
    end
    assert.is_truthy(expect(0, { "--version" }).out:find "^shoal %d+%.%d+%.%d+\n$")
  end)

  describe("answers a mistake in its words with exit code 2:", function ()
    local cases = {
      { "no command at all", {}, "Usage: shoal", "Start here" },
      { "an unknown command", { "submti" }, "unknown command 'submti'", "Did you mean 'submit'?", "shoal --help" },
      { "an unknown option", { "submit", "x.lua", "--detatch" }, "unknown option '--detatch'", "'--detach'", "Usage: shoal submit" },
      { "a missing argument", { "submit" }, "missing argument 'file'", "Usage: shoal submit", "shoal submit --help" },
      { "an option without its value", { "members", "--connect" }, "option '--connect' requires an argument" },
      { "a bad address", { "jobs", "--connect", "here" }, [[--connect: expected HOST:PORT, such as 127.0.0.1:7000; found "here"]] },
      { "a port too great", { "jobs", "--connect", "127.0.0.1:65536" }, [[found "127.0.0.1:65536"]] },
      { "no host", { "jobs", "--connect", ":7000" }, [[expected HOST:PORT]] },
      { "a bad choice", { "jobs", "--output", "xml" }, "'--output' must be one of 'text', 'json'" },
      { "a bad number", { "incidents", "-n", "many" }, "--max: expected a whole number, from 1 to 512; found 'many'" },
      { "a number too small", { "run", "scripts/roles/worker.lua", "--cores", "0" }, "--cores: expected a whole number, at least 1" },
      { "a bad duration", { "submit", "examples/hello.lua", "--timeout", "soon" }, "--timeout: expected a number of seconds" },
      { "a bad --retention", { "run", "scripts/roles/gate.lua", "--retention", "1 day" }, "--retention: expected a time", "such as 24h,1GiB" },
      { "two times to --retention", { "run", "scripts/roles/gate.lua", "--retention", "1h,2d" }, "--retention: expected a time" },
      { "a --retention out of bounds", { "run", "scripts/roles/gate.lua", "--retention", "31d" }, "--retention: ", "2592000000" },
      { "a bad --env", { "submit", "examples/hello.lua", "--env", "x" }, [[--env: expected NAME=VALUE, found "x"]] },
      { "a bad --set", { "run", "scripts/roles/worker.lua", "--set", "x" }, [[--set: expected NAME=VALUE or GROUP.NAME=VALUE, found "x"]] },
      { "a bad --bind", { "run", "scripts/roles/worker.lua", "--bind", "x" }, [[--bind: expected HOST:PORT]] },
      { "a bad --join", { "run", "scripts/roles/worker.lua", "--join", "x" }, [[--join: expected HOST:PORT]] },
      { "an unknown setting", { "run", "scripts/roles/worker.lua", "--set", "corez=1" },
        [[--set corez: unknown option, did you mean "cores"?]] },
      { "a setting out of its range", { "run", "scripts/roles/worker.lua", "--set", "flush_ms=1" }, "--set flush_ms: 1 is below 5" },
      { "a missing job file", { "submit", "no.lua" }, "no.lua: cannot read the job file", "No such file" },
      { "a missing role script", { "run", "no.lua" }, "cannot read no.lua: No such file" },
      { "a missing topology", { "up", "no.lua" }, "cannot read no.lua: No such file" },
      { "a missing file to check", { "check", "no.lua" }, "cannot read no.lua: No such file" },
      { "a job where a role is wanted", { "run", "examples/hello.lua" }, "examples/hello.lua: start: expected a function, found nil" },
      { "a job where a topology is wanted", { "up", "examples/hello.lua" }, "examples/hello.lua:", "workflows: unknown option",
        "datacenters: missing" },
    }
    for _, case in ipairs(cases) do
      it(case[1], function () expect(2, case[2], table.unpack(case, 3)) end)
    end
  end)

  describe("answers a mistake in a file with the file, the line, what was found and what was expected:", function ()
    local cases = {
      { "syntax of a job", "submit", "j.lua", "return {\n name = 'x' workflows = {} }", "j.lua:2:", "'}' expected" },
      { "syntax of a JSON job", "submit", "j.json", '{ "name": "x",\n "workflows": tru }', "j.json:2: JSON:" },
      { "an unknown key", "submit", "j.lua", "return { name = 'x',\n workflows = {\n  a = { comand = 'true' } } }",
        "j.lua:3: workflows.a.comand: unknown option", [[did you mean "command"?]] },
      { "a cycle", "submit", "j.lua", "return { name = 'x', workflows = { a = { after = { 'b' }, command = 'true' },\n"
        .. "b = { after = { 'a' }, command = 'true' } } }", "j.lua:2: workflows.b.after: a cycle, each waits for the next: a -> b -> a" },
      { "an unknown `after`", "submit", "j.lua", "return { name = 'x', workflows = {\n warm = { command = 'true' },\n"
        .. " b = { after = { 'wram' }, command = 'true' } } }",
        [[j.lua:3: workflows.b.after: no workflow is named "wram"; did you mean "warm"?]] },
      { "a script that is not there", "submit", "j.lua", "return { name = 'x', workflows = {\n a = { script = 'no.lua' } } }",
        "j.lua:2: workflows.a.script", "no.lua" },
      { "a number out of its range", "submit", "j.lua", "return { name = 'x', timeout_ms = 0,\n workflows = { a = { command = 'true' } } }",
        "j.lua:1: timeout_ms" },
      { "a job that returns nothing", "submit", "j.lua", "local x = 1", "j.lua: returned nothing; expected a table" },
      { "a job that never ends", "submit", "j.lua", "while true do end", "j.lua: still running after 20000000 steps" },
      { "a job that raises", "submit", "j.lua", "\nerror 'out of cheese'", "j.lua:2: out of cheese" },
      { "syntax of a role", "run", "r.lua", "\nreturn { name = }", "r.lua:2: unexpected symbol near '}'" },
      { "a role that raises while loading", "run", "r.lua", "\nerror 'no such thing'", "r.lua:2: no such thing" },
      { "a role that is no table", "run", "r.lua", "return 3", "r.lua: expected the script to return a table, found number" },
      { "syntax of a topology", "up", "t.lua", "return {\n gates = { }", "t.lua:2: '}' expected" },
      { "a topology's unknown key", "up", "t.lua", "return {\n datacenters = { a = {\n  managerz = {} } } }",
        [[t.lua:3: datacenters.a.managerz: unknown option, did you mean "managers"?]], "t.lua:2: datacenters.a.managers: missing" },
      { "a topology's wrong type", "up", "t.lua", "return {\n gates = 3, datacenters = {} }", "t.lua:2: gates: expected an array, found 3" },
      { "syntax of a policy", "check", "retry.lua", "return {\n again = = 3 }", "retry.lua:2:" },
      { "a policy without its function", "check", "retry.lua", "return { agian = function () end }",
        "retry.lua: again: expected a function, found nil" },
      { "an errors policy's unknown site", "check", "errors.lua", "return { sites = { ['worker.progres.ack'] = { level = 'debug' } } }",
        "errors.lua", "worker.progress.ack" },
      { "a workflow script's unknown field", "check", "w.lua", "return { vus = 3, vu = function () end }",
        "w.lua:1: unknown field vus; known are" },
      { "a workflow script that raises while loading", "check", "w.lua", "local x = nil\nreturn { vu = x.y }", "w.lua:2: attempt to index" },
      { "a workflow script that never ends", "check", "w.lua", "while true do end\nreturn function (vu) end",
        "w.lua: still running after 20000000 steps" },
      { "syntax of a program", "check", "p.lua", "local luv = require 'luv'\nluv.run(", "p.lua:2: unexpected symbol near <eof>" },
      { "settings with an unknown key", "check", "s.lua", "return {\n clustr = 'x' }",
        [[s.lua:2: clustr: unknown option, did you mean "cluster"?]] },
    }
    for _, case in ipairs(cases) do
      it(case[1], function ()
        expect(2, { case[2], c:file(case[3], case[4]) }, table.unpack(case, 5))
      end)
    end

    it("a setting in --config", function ()
      local path = c:file("node.lua", "return {\n name = 'w',\n cores = 'many' }")
      expect(2, { "run", "scripts/roles/worker.lua", "--config", path }, path .. [[:3: cores: expected an integer, found "many"]])
    end)

    it("a policy that a node is to use", function ()
      os.execute("cp -r scripts/policies " .. c.dir)
      c:file("policies/retry.lua", "return {\n again = = 3 }")
      local r = c:shoal { "run", "scripts/roles/manager.lua", "--dc", "a", "--policies", c.dir .. "/policies", "--data", c.dir .. "/d" }
      assert.equal(2, r.code)
      assert.is_truthy(r.err:find("policies/retry.lua:2:", 1, true), r.err)
    end)
  end)

  it("checks every shipped script, policy and example, and several wrong files at once", function ()
    local r = expect(0, {
      "check", "scripts/roles/gate.lua", "scripts/roles/manager.lua", "scripts/roles/worker.lua", "scripts/roles/client.lua",
      "scripts/policies/errors.lua", "scripts/policies/placement.lua", "scripts/policies/retry.lua",
      "examples/hello.lua", "examples/checkout.lua", "examples/batch.json", "examples/topology.lua",
    })
    local _, lines = r.out:gsub("[^\n]+: ok %(", "")
    assert.equal(11, lines)
    for _, name in ipairs { "browse", "buy", "warm" } do
      local path = ("examples/workflows/%s.lua"):format(name)
      assert.equal(path .. ": ok (workflow script)\n", expect(0, { "check", path }).out)
    end
    local one, two = c:file("one.lua", "return {"), c:file("two.lua", "x = = 1")
    local both = c:shoal { "check", one, "examples/hello.lua", two }
    assert.equal(2, both.code)
    assert.is_truthy(both.err:find("one.lua:1:", 1, true) and both.err:find("two.lua:1:", 1, true), both.err)
    assert.equal("examples/hello.lua: ok (job hello)\n", both.out)
  end)

  it("D17: refuses a role that hooks what nothing fires, a wrong arity, and a message that is none, each by name", function ()
    local text = cluster.read "scripts/roles/worker.lua"
    for from, case in pairs { -- order-free: each by itself
      ['["swim.member"]'] = { '["lease.expiry"]', "no hook is named lease.expiry" },
      ['["swim.member"] '] = { '["lease.expired"] ', "a site of the gate and the manager, which a worker never fires" },
      ["function (event)"] = { "function (event, more)", "takes 2 arguments" },
      ['["lead"]'] = { '["leed"]', "answers: there is no message leed, did you mean lead?" },
      ['"lead.who" }'] = { '"lead.whom" }', "sends: there is no message lead.whom, did you mean lead.who?" },
    } do
      local at, stop = text:find(from, 1, true)
      local path = c:file("roles/worker.lua", text:sub(1, at - 1) .. case[1] .. text:sub(stop + 1))
      expect(2, { "check", path }, path, case[2])
    end
  end)

  it("checks a program by its syntax, and does not run it", function ()
    for _, name in ipairs { "membership", "simulation", "transport" } do
      local path = ("examples/%s.lua"):format(name)
      local r = expect(0, { "check", path })
      assert.equal(path .. ": ok (program: its syntax; it was not run)\n", r.out .. r.err)
    end
    local trace = c.dir .. "/ran"
    local program = c:file("p.lua", ("local luv = require 'luv'\nlocal f = io.open(%q, 'w')\nf:close()\nluv.run()"):format(trace))
    expect(0, { "check", program })
    assert.is_nil(io.open(trace))
  end)

  it("checks a role whose table is computed by loading it", function ()
    local role = c:file("r.lua", "return setmetatable({ name = 'x', start = function (node) return {} end, answers = {}, sends = {} }, {})")
    local r = c:shoal { "check", role }
    assert.is_truthy(r.out:find("role x", 1, true) or r.err:find("r.lua", 1, true), r.out .. r.err)
    assert.is_nil(r.out:find("program", 1, true))
  end)

  it("exits 3 when nobody is there, and says who was asked", function ()
    for _, argv in ipairs {
      { "jobs" }, { "members" }, { "incidents" }, { "status", "x" }, { "cancel", "x" }, { "repl", "--eval", "1" }, { "repl" },
      { "submit", "examples/hello.lua" },
    } do
      table.move({ "--connect", NOBODY }, 1, 2, #argv + 1, argv)
      expect(3, argv, NOBODY, "Connection refused", "ECONNREFUSED")
    end
    expect(3, { "jobs", "--connect", "no-such-host.invalid:7000" }, "no-such-host.invalid", "no address")
  end)

  it("takes the address from SHOAL_CONNECT", function ()
    expect(3, { "jobs", env = { SHOAL_CONNECT = "127.0.0.1:2" } }, "127.0.0.1:2:")
  end)

  describe("with a cluster", function ()
    local up

    before_each(function () up = c:up "return { datacenters = { a = { managers = { {} }, workers = { { cores = 2 } } } } }" end)

    local function submit(text, ...)
      return c:shoal { "submit", c:file("j.lua", text), "--connect", up.connect, ... }
    end

    it("exits by the job's outcome: 0, 1, 5, 124, and keeps a failed command's output", function ()
      local r = submit(job_of "echo fine")
      assert.equal(0, r.code, r.err)
      assert.is_truthy(r.out:find("fine", 1, true))

      r = submit(job_of "echo before it broke; exit 7")
      assert.equal(1, r.code)
      assert.is_truthy(r.out:find("failed", 1, true) and r.out:find("status 7", 1, true), r.out)
      assert.is_truthy(r.out:find("before it broke", 1, true), r.out)

      r = submit(job_of("sleep 60", "timeout_ms = 300,"))
      assert.equal(124, r.code, r.err)
      assert.is_truthy(r.out:find("timed_out", 1, true) and r.out:find("timeout_ms = 300", 1, true), r.out)

      r = submit(job_of "sleep 60", "--detach")
      assert.equal(0, r.code)
      local id = r.out:match "^(%S+)\n$"
      assert.equal(0, c:shoal { "cancel", id, "--connect", up.connect, "--reason", "enough" }.code)
      r = c:shoal { "submit", c.dir .. "/j.lua", "--connect", up.connect, "--key", "k", "--timeout", "0.3" }
      assert.equal(124, r.code)
      assert.is_truthy(r.err:find("goes on after --timeout", 1, true), r.err)
      cluster.wait("the cancelled job's end", function ()
        return c:shoal { "status", id, "--connect", up.connect }.code == 5
      end)
    end)

    it("D17: prints a job's events by number, from a number on, and how often each site raised", function ()
      local id = submit(job_of "sleep 60", "--detach").out:match "%S+"
      local r
      cluster.wait("the job's start", function ()
        r = c:shoal { "status", id, "--events", "--connect", up.connect }
        return r.out:find("is running", 1, true)
      end)
      assert.equal(0, r.code, r.err)
      local first, last = r.out:match "^(%d+)  status", nil
      for n in r.out:gmatch "(%d+)  %l+ +[^\n]*\n" do last = n end
      assert.is_truthy(first, r.out)
      r = c:shoal { "status", id, "--events", "--since", last, "--output", "json", "--connect", up.connect }
      local reply = cjson.decode(r.out)
      assert.is_true(#reply.events >= 1 and reply.last >= tonumber(last), r.out)
      for _, event in ipairs(reply.events) do assert.is_true(tonumber(event.seq) >= tonumber(last)) end
      expect(4, { "status", "nosuch", "--events", "--connect", up.connect }, "no events of job nosuch are kept here")
      assert.equal(0, c:shoal({ "cancel", id, "--connect", up.connect }).code)
      r = expect(0, { "incidents", "--counts", "--connect", up.connect })
      assert.is_truthy(r.out:find("raised = reported + suppressed + handled holds at every site", 1, true), r.out)
    end)

    it("says aloud that no request worked; with max_failed_share the job has then failed", function ()
      c:file("w.lua", ("return function (vu) vu.http:get('http://%s/') end"):format(NOBODY))
      local text = "return { name = 'x', workflows = { w = { script = 'w.lua', vus = 2, iterations = 20 %s } } }"
      local r = submit(text:format "")
      assert.equal(0, r.code, r.err)
      assert.is_truthy(r.out:find("WARNING: every request of w failed: ", 1, true), r.out)
      assert.is_truthy(r.out:find("errors by kind: %w+ 20 %(100 %%%)\n"), r.out)
      r = submit(text:format ", max_failed_share = 0.5")
      assert.equal(1, r.code, r.err)
      assert.is_truthy(r.out:find("failed (w: 20 of 20 requests failed (100.0 %), and max_failed_share allows 50 %)", 1, true), r.out)
      assert.is_nil(r.out:find("WARNING", 1, true))
    end)

    it("exits 4 when refused, and says why", function ()
      expect(4, { "status", "no-such-job", "--connect", up.connect }, "no job no-such-job here", "NOT_FOUND")
      expect(4, { "cancel", "no-such-job", "--connect", up.connect }, "no job no-such-job here")
      expect(4, { "jobs", "--connect", up.nodes["w-a1"].address }, "job.list")
    end)

    it("refuses a client of another cluster", function ()
      local r = c:shoal { "jobs", "--connect", up.connect, "--cluster", "elsewhere" }
      assert.is_true(r.code == 3 or r.code == 4, r.err)
      assert.is_truthy(r.err:find("cluster", 1, true), r.err)
    end)

    it("writes data to stdout and talk to stderr; --output json is one JSON value", function ()
      local r = submit(job_of "echo out", "--output", "json", "--result", c.dir .. "/result.json")
      assert.equal(0, r.code)
      local result = cjson.decode(r.out)
      assert.equal("completed", result.state)
      assert.same(result, cjson.decode(cluster.read(c.dir .. "/result.json")))
      assert.is_truthy(r.err:find("w is running", 1, true), r.err)
      assert.is_truthy(r.out:find('"incidents": []', 1, true), r.out)

      for _, argv in ipairs { { "jobs" }, { "members" }, { "incidents" }, { "status", result.job } } do
        for _, word in ipairs { "--connect", up.connect } do argv[#argv + 1] = word end
        local text = c:shoal { table.unpack(argv) }
        assert.equal(0, text.code)
        assert.is_not.equal("", text.out)
        assert.equal("", text.err)
        argv[#argv + 1], argv[#argv + 2] = "--output", "json"
        local json = c:shoal(argv)
        assert.equal(0, json.code)
        assert.equal("", json.err)
        assert.equal("table", type(cjson.decode(json.out)))
      end
      local members = cjson.decode(c:shoal({ "members", "--connect", up.connect, "-o", "json" }).out).members
      table.sort(members, function (a, b) return a.name < b.name end)
      assert.same({ "m-a1 manager a alive", "w-a1 worker a alive" }, {
        ("%s %s %s %s"):format(members[1].name, members[1].role, members[1].dc, members[1].state),
        ("%s %s %s %s"):format(members[2].name, members[2].role, members[2].dc, members[2].state),
      })
    end)

    it("writes no progress with --quiet, and submits nothing when --result cannot be opened", function ()
      local r = submit(job_of "true", "--quiet")
      assert.equal(0, r.code)
      assert.is_nil(r.err:find("running", 1, true), r.err)
      expect(2, { "submit", c.dir .. "/j.lua", "--connect", up.connect, "--result", c.dir .. "/no/folder/result.json" },
        "--result: cannot write " .. c.dir .. "/no/folder/result.json: no such file or directory (ENOENT)")
    end)

    it("talks Lua to a node: --eval, lines from a pipe, errors with their line", function ()
      local r = c:shoal { "repl", "--connect", up.connect, "--eval", "node.name, 1 + 1" }
      assert.equal(0, r.code)
      assert.equal('"m-a1"\t2\n', r.out)
      r = c:shoal { "repl", "--connect", up.connect, "--eval", "nope.x" }
      assert.equal(1, r.code)
      assert.equal("", r.out)
      assert.is_truthy(r.err:find("nil value (global 'nope')", 1, true), r.err)
      r = c:shoal { "repl", "--connect", up.connect, stdin = "x = 20\nx + 1\nerror 'no'\nx + 2" }
      assert.equal(1, r.code) -- A line raised.
      assert.equal("21\n22\n", r.out)
      assert.is_truthy(r.err:find("manager m-a1 at " .. up.connect, 1, true), r.err)
      local shown = c:shoal { "incidents", "--connect", up.connect }
      assert.is_truthy(shown.out:find("repl.eval", 1, true), shown.out)
    end)

    it("reads on in the REPL while a line is not complete; an empty line or the end sends it as it is", function ()
      local r = c:shoal { "repl", "--connect", up.connect, stdin = "for i = 1, 2 do\n\tprint(i)\nend\n1 +\n\n3\nif" }
      assert.equal("1\n2\n3\n", r.out)
      assert.is_truthy(r.err:find("repl:1: unexpected symbol near '1'", 1, true), r.err)
      assert.is_truthy(r.err:find("near <eof>", 1, true), r.err)
    end)

    it("ends a REPL line that computes without end, and one that would end the node; the node stays", function ()
      for line, says in pairs {
        ["while true do end"] = "still running after ",
        ["while true do pcall(function () while true do end end) end"] = "still running after ",
        ["local co = coroutine.create(function () while true do end end) return error(select(2, coroutine.resume(co)))"] =
          "still running after ",
        ["setmetatable({}, { __gc = function () while true do end end }) collectgarbage()"] = "a line has no finalizers",
        ["return ('a'):rep(30000):find '.-.-.-.-b'"] = "still running after ",
        ["local t = {} while true do t[#t + 1] = ('x'):rep(16e6) end"] = "not enough memory",
        ["os.exit(3)"] = "node:stop(",
      } do
        local r = c:shoal { "repl", "--connect", up.connect, "--eval", line }
        assert.equal(1, r.code, r.err)
        assert.is_truthy(r.err:find(says, 1, true), r.err)
      end
      local r = c:shoal { "repl", "--connect", up.connect, stdin = "for i = 1, 1e6 do end\nos.time() > 0, node.name\n" }
      assert.equal('true\t"m-a1"\n', r.out)
    end)

    it("says how much of a REPL answer it left out", function ()
      local r = c:shoal { "repl", "--connect", up.connect, "--eval", "('.'):rep(70000)" }
      assert.equal("..\n... and 4466 bytes more\n", r.out:sub(65535))
    end)

    it("overrides the job's env with --env", function ()
      local r = c:shoal {
        "submit", c:file("e.lua", "return { name = 'e', env = { WHO = 'file' }, workflows = { w = { command = 'echo $WHO' } } }"),
        "--connect", up.connect, "--env", "WHO=option",
      }
      assert.is_truthy(r.out:find("option", 1, true), r.out)
    end)
  end)
end)
