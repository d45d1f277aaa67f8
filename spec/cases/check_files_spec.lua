--- Files that `shoal check` refuses, and run, up and submit with it: jobs and their scripts, policies, topologies, settings, and what is
--- none of these. In process where it can be; check_spec.lua has the role scripts.
local check = require "shoal.cli.check"
local cluster = require "spec.support.cluster"
local common = require "shoal.cli.common"
local json = require "cjson"
local problems = require "shoal.cli.problems"
local verify = require "shoal.cli.verify"

describe("shoal check", function ()
  local c

  before_each(function () c = cluster.new() end)
  after_each(function () c:close() end)

  --- The lines that a check of this text says, without the folder; "" where it is right. And what it is.
  local function said(name, text, files)
    for other, bytes in pairs(files or {}) do c:file(other, bytes) end -- order-free: files
    local what, err = verify.file(c:file(name, text))
    return what and "" or (err:gsub(c.dir:gsub("%p", "%%%0") .. "/", "")), what
  end

  --- A check of this text says each of these.
  local function refuses(name, text, words, files)
    local lines = said(name, text, files)
    assert.is_not.equal("", lines, "nothing was said of:\n" .. text)
    for _, one in ipairs(type(words) == "table" and words or { words }) do
      assert.is_truthy(lines:find(one, 1, true), ("expected %q in:\n%s"):format(one, lines))
    end
  end

  local function job(workflow, more) return ("return { name = 'j', %s\n workflows = {\n  w = { %s } } }"):format(more or "", workflow) end

  local JOBS = {
    { "a key twice", "j.lua", "return {\n name = 'j', workflows = {\n  load = { command = 'true' },\n  load = { command = 'false' } } }",
      "j.lua:4: workflows.load: given twice, first on line 3" },
    { "a key twice in JSON", "j.json", '{ "name": "d", "workflows": {\n "a": { "command": "true" },\n "\\u0061": { "command": "false" } } }',
      "j.json:3: workflows.a: given twice, first on line 2" },
    { "a key twice deep within", "j.lua", job("command = 'true', env = { A = 1, B = 2,\n ['A'] = 3 }"),
      "j.lua:4: workflows.w.env.A: given twice, first on line 3" },
    { "a key twice in a table that is no part of the job", "j.lua", "local t = { { a = 1,\n a = 2 } }\n" .. job "command = 'true'",
      "a: given twice, first on line 1" },
    { "a duration beyond the default timeout", "j.lua", job("script = 's.lua', vus = 1, duration_ms = minutes(300)"),
      "j.lua:3: workflows.w.duration_ms: duration_ms 18000000 is not shorter than the job's timeout_ms 3600000 (the default)" },
    { "a duration beyond its own timeout", "j.lua", job("script = 's.lua', duration_ms = 5000", "timeout_ms = 4000,"),
      "j.lua:3: workflows.w.duration_ms: duration_ms 5000 is not shorter than the job's timeout_ms 4000; expected" },
    { "a rate that needs longer than the timeout", "j.lua", job("script = 's.lua', iterations = 1001, rate = 10", "timeout_ms = 60000,"),
      "workflows.w.rate: 1001 iterations at a rate of 10 a second, which take 100000 ms, is not shorter than the job's timeout_ms 60000" },
    { "durations that are too long one after the other", "j.lua", "return { name = 'j', timeout_ms = 9000, workflows = {\n"
      .. "a = { script = 's.lua', duration_ms = 5000 },\nb = { after = { 'a' }, script = 's.lua', duration_ms = 5000 } } }",
      "j.lua:3: workflows.b.after: a, b take 10000 ms one after the other, not less than the job's timeout_ms 9000" },
    { "a datacenter twice", "j.lua", job("command = 'true'", "datacenters = { 'b', 'b' },"), 'j.lua:1: datacenters: "b" is given twice' },
    { "a name in after twice", "j.lua", job "command = 'true' }, v = { command = 'true', after = { 'w', 'w' }",
      'workflows.v.after: "w" is given twice' },
    { "a variable that is not set", "j.lua", job "command = getenv('SHOAL_SPEC_UNSET')",
      'j.lua:3: getenv("SHOAL_SPEC_UNSET"): the variable is not set' },
    { "os.getenv", "j.lua", job "command = os.getenv 'HOME'",
      'j.lua:3: os.getenv: a job is data and has no os; write getenv("NAME", "default")' },
    { "a misspelt word of its own", "j.lua", job "script = 's.lua', duration_ms = minuts(1)", "(global 'minuts'); did you mean \"minutes\"?" },
    { "an endless loop", "j.lua", "while true do end return { workflows = 1 }", "j.lua: still running after 20000000 steps" },
    { "memory without end", "j.lua", "local t = {} while true do t[#t + 1] = ('x'):rep(1000000) end return { workflows = t }",
      "j.lua: takes more than " },
    { "memory at once", "j.lua", "local t = string.rep('x', 1 << 40) return { workflows = t }", "j.lua:1: " },
  }
  describe("tells of a job", function ()
    for _, row in ipairs(JOBS) do
      it(row[1], function () refuses(row[2], row[3], row[4], { ["s.lua"] = "return function () end" }) end)
    end

    local OTHER_WORDS = {
      timeout = "timeout_ms", users = "vus", needs = "after", depends_on = "after", scirpt = "script", duration = "duration_ms",
      environment = "env", replicas = "parts", count = "iterations", cpus = "cores",
    }
    for word, meant in pairs(OTHER_WORDS) do -- order-free: each a spec of its own
      it(("the word %s, and that it is %s here"):format(word, meant), function ()
        refuses("j.lua", job("script = 's.lua', " .. word .. " = 5"),
          ('workflows.w.%s: unknown option; did you mean "%s"?'):format(word, meant))
      end)
    end

    it("a number as retry, and that it is retries", function ()
      refuses("j.lua", job "command = 'true', retry = 3", 'workflows.w.retry: found 3; expected true, false or a table')
      refuses("j.lua", job "command = 'true', retry = 3", 'did you mean "retries"?')
    end)

    it("cmd, and that it is command", function ()
      refuses("j.lua", job "cmd = 'true'", { 'workflows.w.cmd: unknown option; did you mean "command"?', "has neither script nor command" })
    end)

    it("no missing variable where the file deals with it", function ()
      assert.equal("", said("j.lua", job "command = getenv('SHOAL_SPEC_UNSET') or 'true'"))
      assert.equal("", said("j.lua", job "command = getenv('SHOAL_SPEC_UNSET', 'true')"))
      assert.equal("", said("j.lua", "local x = 'a' if getenv 'SHOAL_SPEC_UNSET' then x = 'b' end\n" .. job "command = x"))
    end)

    it("nothing of equal keys in different tables, of comparisons and of functions", function ()
      assert.equal("", said("j.lua", [[
        local function pick(t) local x = 1; x = 2; if t == x then x = 3 end; return { x = x } end
        local all = { { a = 1 }, { a = 2 }, b = pick(1), [1 + 1] = (3 == 3), ["c"] = function () local c = 1; c = 2; return c end }
        return { name = "j", workflows = { w = { command = tostring(all.b.x) }, v = { command = "true" } } }]]))
    end)
  end)

  local SCRIPTS = {
    { "a field that is none", "return { vu = function () end, stages = {} }", "s.lua:1: unknown field stages; known are" },
    { "a misspelt field", "return { vu = function () end,\n set_up = function () end }", "s.lua:2: unknown field set_up",
      'did you mean "setup"?' },
    { "a field of the wrong type", "return { vu = function () end, base_url = 5 }", "s.lua:1: base_url is a number; expected a string" },
    { "a value that is no script", "return 5", "s.lua returned a number; expected a function" },
    { "no value", "local x", "s.lua returned nothing" },
    { "a top level that raises", "\nlocal x; return x.y", "s.lua:2: attempt to index" },
    { "an endless top level", "while true do end", "s.lua: still running after 20000000 steps" },
    { "memory without end", "local t = {} while true do t[#t + 1] = ('x'):rep(1000000) end", "s.lua: takes more than " },
    { "a finalizer", "setmetatable({}, { __gc = function () while true do end end })\nreturn function () end",
      "s.lua:1: a script has no finalizers" },
    { "a global that is none", "return function (vu)\n vu:log(jsn.encode {}) end", 's.lua:2: there is no global jsn; did you mean "json"?' },
    { "a function that a library does not have", "return function (vu)\n vu:log(string.fromat('x')) end",
      's.lua:2: string has no fromat; did you mean "string.format"?' },
    { "a key twice", "return { vu = function () end,\n vu = function () end }", "s.lua:2: vu: given twice, first on line 1" },
    { "an empty file", "", "s.lua: is empty; expected a workflow script" },
    { "YAML", "vu:\n  - get: /\n", "this is YAML; a workflow script is Lua" },
  }
  describe("tells of a job's script, as of the script alone:", function ()
    for _, row in ipairs(SCRIPTS) do
      it(row[1], function ()
        refuses("j.lua", job "script = 's.lua'", { "j.lua:3: workflows.w.script: ", row[3], row[4] }, { ["s.lua"] = row[2] })
      end)
    end

    it("its own environment is the workflow's", function ()
      local files = { ["s.lua"] = "local n = tonumber(env.N) + 1\nreturn function (vu) vu:log(n) end" }
      assert.equal("", said("j.lua", job "script = 's.lua', env = { N = 5 }", files))
      refuses("j.lua", job "script = 's.lua'", "s.lua:1: attempt to perform arithmetic on a nil value", files)
      assert(verify.job(c.dir .. "/j.lua", os.getenv, { N = "7" })) -- As with submit --env N=7.
    end)
  end)

  local NO_JOBS = {
    { "an empty file", "j.lua", "", "j.lua: is empty; expected a job" },
    { "an empty JSON file", "j.json", " \n", "j.json: is empty; expected a job" },
    { "YAML", "j.lua", "name: x\nworkflows:\n  a:\n    command: true\n", "j.lua: this is YAML; a job" },
    { "YAML with dashes", "j.yaml", "---\njobs:\n  - name: a\n", "this is YAML" },
    { "YAML named JSON", "j.json", "name: x\n", "j.json: this is YAML; a job is Lua or JSON" },
    { "TOML", "j.toml", "[job]\nname = \"x\"\n", "this is TOML or an ini file" },
    { "HTML", "j.lua", "<!DOCTYPE html>\n<html></html>\n", "this is XML or HTML" },
    { "null", "j.json", "null", "j.json: is the JSON value null; expected an object with name and workflows" },
    { "null without a name for it", "b.lua", "null\n", "this is the JSON value null" },
    { "a JSON list", "j.json", "[1,2]", "j.json: is the JSON value a list; expected an object" },
    { "a JSON list without a name for it", "j.txt", "[1,2]", "is the JSON value a list" },
    { "a file that sets a global", "x.lua", "x = 1", "x.lua: returns nothing; expected a job, role, policy, topology" },
    { "a shell script", "j.sh", "#!/bin/sh\necho hi\n", "j.sh:1: this is a script for /bin/sh (#!); a job" },
    { "binary data", "j.lua", "\0\1\2\3", "j.lua: this is binary data" },
    { "compiled Lua", "j.lua", string.dump(function () end), "this is compiled Lua (bytecode); expected its source" },
    { "a program", "j.lua", "\127ELF\2\1", "this is a program (ELF)" },
    { "a compressed file", "j.json", "\31\139\8\0", "this is compressed (gzip)" },
    { "UTF-16", "j.lua", "\255\254r\0e\0", "this is UTF-16 text; expected UTF-8" },
    { "a job without its return", "j.lua", "local job = { name = 'j', workflows = { a = { command = 'true' } } }",
      "j.lua: returned nothing; expected a table" },
    { "a job that returns its name", "j.lua", "local job = { workflows = {} }\nreturn 'job'", "j.lua: returned a string" },
  }
  describe("says what a file is that is no job:", function ()
    for _, row in ipairs(NO_JOBS) do
      it(row[1], function () refuses(row[2], row[3], row[4]) end)
    end

    it("a folder, a device, a file that is not there", function ()
      local function of(path) return (select(2, verify.file(path))) end
      assert.matches("it is a folder; expected a file", of(c.dir))
      assert.matches("^/dev/null: is empty; expected a job", of "/dev/null")
      assert.matches("^cannot read " .. c.dir:gsub("%p", "%%%0") .. "/no.lua: .*", of(c.dir .. "/no.lua"))
    end)
  end)

  it("takes a byte order mark, CRLF and a first line for lua, in every kind of file", function ()
    local mark = "\239\187\191"
    assert.equal("", said("j.lua", mark .. job("script = 's.lua'"), { ["s.lua"] = mark .. "return function () end" }))
    assert.equal("", said("j.json", mark .. '{ "name": "j", "workflows": { "a": { "command": "true" } } }'))
    assert.equal("", said("j2.lua", (job("command = 'true'"):gsub("\n", "\r\n"))))
    assert.equal("", said("j3.lua", "#!/usr/bin/env lua\n" .. job "command = 'true'"))
    assert.equal("", said("w.lua", mark .. cluster.read "scripts/roles/worker.lua"))
    for _, name in ipairs { "errors", "placement", "retry" } do
      assert.equal("", said(name .. ".lua", (mark .. cluster.read("scripts/policies/" .. name .. ".lua"):gsub("\n", "\r\n"))))
    end
    assert.equal("", said("t.lua", mark .. cluster.read "examples/topology.lua"))
    assert.equal("", said("s.lua", mark .. "return { cluster = 'x' }"))
  end)

  local POLICIES = {
    { "a site misspelt in its family", "errors.lua", "return { sites = {\n ['repl.evl'] = { level = 'info' } } }",
      "errors.lua:2: no site is named repl.evl, did you mean repl.eval?" },
    { "a short site misspelt in its family", "errors.lua", "return { sites = { ['exec.vuu'] = { level = 'info' } } }",
      "did you mean exec.vu?" },
    { "letters swapped", "errors.lua", "return { sites = { ['lead.rnu'] = { level = 'info' } } }", "did you mean lead.run?" },
    { "a site twice", "errors.lua", "return { sites = { ['exec.vu'] = { burst = 2 },\n ['exec.vu'] = { burst = 3 } } }",
      "errors.lua:2: sites.exec.vu: given twice, first on line 1" },
    { "a misspelt table of functions", "placement.lua", { "return { workers", "return { wokers" },
      { "placement.lua:", "wokers: a policy has no such function here, did you mean workers?", "workers: expected a table, found nil",
        "placement.lua: workers.choose: expected a function, found nil" } },
    { "too many arguments", "placement.lua", { "function workers.choose(part, workflow, executors",
      "function workers.choose(part, workflow, executors, spec, more" },
      "workers.choose: the function takes 5 arguments, expected (part, workflow, executors, spec)" },
    { "a function without its name", "retry.lua", { "function retry.again", "function retry.agian" },
      { "retry.lua: again: expected a function, found nil", "agian: a policy has no such function here, did you mean again?" } },
    { "a global that is none", "retry.lua", { "local count = 1", "local count = tonumbr '1'" },
      'there is no global tonumbr; did you mean "tonumber"?' },
    { "what it cannot require", "retry.lua", "local x = require 'luv'\nreturn { again = function () end }",
      "retry.lua:1: a policy can require shoal.job" },
    { "an endless load", "retry.lua", "while true do end return { again = function () end }", "it ran more than 1000000 instructions" },
  }
  describe("tells of a policy", function ()
    for _, row in ipairs(POLICIES) do
      it(row[1], function ()
        local text = row[3]
        if type(text) == "table" then
          local shipped = cluster.read("scripts/policies/" .. row[2])
          local at, stop = shipped:find(text[1], 1, true)
          text = shipped:sub(1, assert(at, text[1]) - 1) .. text[2] .. shipped:sub(stop + 1)
        end
        refuses(row[2], text, row[4])
      end)
    end
  end)

  local function topology(member, more)
    return ("return { %s\n datacenters = { a = { managers = {\n { %s } } } } }"):format(more or "", member)
  end
  local TOPOLOGIES = {
    { "three nodes of one name",
      'return { gates = { { name = "x" },\n { name = "x" } }, datacenters = { a = { managers = {\n { name = "x" } } } } }',
      { 't.lua:2: gates[2].name: "x" is the name of gates[1] too',
      't.lua:3: datacenters.a.managers[1].name: "x" is the name of gates[1] too' } },
    { "a name that is another's default", "return { gates = { {}, { name = 'g1' } }, datacenters = {} }",
      'gates[2].name: "g1" is the name of gates[1] too' },
    { "two nodes on one port", "return { gates = { { bind = '127.0.0.1:7000' },\n { bind = '127.0.0.1:7000' } }, datacenters = {} }",
      't.lua:2: gates[2].bind: 127.0.0.1:7000 is the address of gates[1] too' },
    { "an address that is none", topology "bind = '127.0.0.1'",
      't.lua:3: datacenters.a.managers[1].bind: expected HOST:PORT, such as 127.0.0.1:7001; found "127.0.0.1"' },
    { "a port that is none", topology "bind = '127.0.0.1:70000'", 'found "127.0.0.1:70000"' },
    { "a setting that is none", topology "set = { cors = 3 }",
      't.lua:3: datacenters.a.managers[1].set.cors: unknown option, did you mean "cores"?' },
    { "a setting of all that is none", topology("", "set = { retension_ms = 3 },"),
      't.lua:1: set.retension_ms: unknown option, did you mean "retention_ms"?' },
    { "a setting out of its range", topology "set = { flush_ms = 1 }", "set.flush_ms: 1 is below 5" },
    { "a setting of a group", topology "set = { membership = { gosip_fanout = 3 } }",
      'set.membership.gosip_fanout: unknown option, did you mean "gossip_fanout"?' },
    { "a setting that up gives itself", topology "set = { name = 'x' }", "set.name: is no setting here" },
    { "cores where they have no effect", "return { datacenters = { a = { managers = { {} }, workers = {\n { set = { cores = 8 } } } } } }",
      "t.lua:2: datacenters.a.workers[1].set.cores: is without effect on a worker; write cores beside `set`" },
    { "a folder of policies that is not there", topology "set = { policies = '/nowhere' }", "set.policies: cannot read /nowhere/errors.lua" },
    { "a script that is not there", topology "script = '/nowhere.lua'", "t.lua:3: datacenters.a.managers[1].script: cannot read /nowhere.lua" },
    { "a script of another role", topology "script = 'scripts/roles/worker.lua'",
      'scripts/roles/worker.lua is a role "worker"; expected a manager' },
    { "a datacenter's name", "return { datacenters = { ['a b'] = { managers = { {} } } } }", 'found "a b"; a datacenter\'s name has letters' },
    { "a cluster's name", topology("", "cluster = 'a/b',"), 't.lua:1: cluster: found "a/b"' },
    { "a node's name", topology "name = 'bad name'", 'managers[1].name: expected letters, digits,' },
    { "cores", "return { datacenters = { a = { managers = { {} }, workers = { { cores = 0 } } } } }",
      "datacenters.a.workers[1].cores: 0 is below 1" },
    { "a key that is none", topology "nme = 'x'", 't.lua:3: datacenters.a.managers[1].nme: unknown option, did you mean "name"?' },
    { "a datacenter twice", "return { datacenters = {\n a = { managers = { {} } },\n a = { managers = { {} } } } }",
      "t.lua:3: datacenters.a: given twice, first on line 2" },
    { "no nodes", "return { gates = {}, datacenters = {} }", "names no node; expected gates, or datacenters with managers" },
    { "a variable that is not set", topology "name = getenv 'SHOAL_SPEC_UNSET'", 'getenv("SHOAL_SPEC_UNSET"): the variable is not set' },
    { "an endless loop", "local datacenters = { a = { managers = 3 } } while true do end return { datacenters = datacenters }",
      "still running after" },
  }
  describe("tells of a topology", function ()
    for _, row in ipairs(TOPOLOGIES) do
      it(row[1], function () refuses("t.lua", row[2], row[3]) end)
    end
  end)

  it("tells whether a job fits a topology", function ()
    local value = assert(verify.topology "examples/topology.lua") -- Workers of 4 cores in a and b.
    local function fits(text)
      local what, err = verify.file(c:file("j.lua", text), value)
      return what or err:gsub(c.dir:gsub("%p", "%%%0") .. "/", "")
    end
    assert.equal("job j", fits(job "command = 'true', cores = 4"))
    assert.equal("j.lua:3: workflows.w.cores: a part asks for 5, and the largest worker of the topology, in datacenter a, has 4",
      (fits(job "command = 'true', cores = 5")))
    assert.equal("j.lua:3: workflows.w.cores: a part asks for 6, and the largest worker of datacenter b has 4",
      (fits(job("command = 'true', cores = 6", "datacenters = { 'b' },"))))
    assert.equal('j.lua:1: datacenters: the topology has no datacenter "eu"; it has a, b',
      (fits(job("command = 'true'", "datacenters = { 'eu' },"))))
  end)

  local SETTINGS = {
    { "a key twice", "return {\n cores = 3,\n cores = 4 }", "s.lua:3: cores: given twice, first on line 2" },
    { "two that contradict", "return { heartbeat_ms = 1000, dc_silent_ms = 1500 }", "dc_silent_ms must exceed 2 * heartbeat_ms" },
    { "another tool's word", "return { listen = '127.0.0.1:0' }", 's.lua:1: listen: unknown option, did you mean "bind"?' },
    { "policies that are not there", "return { policies = '/nowhere' }", "cannot read /nowhere/errors.lua" },
  }
  describe("tells of settings", function ()
    for _, row in ipairs(SETTINGS) do
      it(row[1], function () refuses("s.lua", row[2], row[3]) end)
    end
  end)

  it("prints with --output json an array of fields", function ()
    local printed
    local data = common.data
    common.data = function (text) printed = text end
    local path = c:file("j.lua", "return {\n name = 'a b', timout_ms = 5,\n workflows = { a = { command = 'true', cores = 1.5 } } }")
    local code = check.run { files = { path, "examples/hello.lua" }, output = "json" }
    common.data = data
    assert.equal(2, code)
    local list = json.decode(printed)
    assert.equal(3, #list)
    assert.same({ path, 2, "timout_ms", "timeout_ms" }, { list[1].file, list[1].line, list[1].at, list[1].hint })
    assert.same({ file = path, line = 2, at = "name", problem = list[2].problem, found = '"a b"' }, list[2])
    assert.same({ file = path, line = 3, at = "workflows.a.cores", problem = "1.5 is not a whole number; expected 1 to 1024",
      expected = "1 to 1024" }, list[3])
    assert.same({ file = "t.lua", problem = "is empty; expected a job", expected = "a job" },
      problems.of("t.lua: is empty; expected a job", "t.lua"))
    printed = nil
    common.data = function (text) printed = text end
    code = check.run { files = { "examples/hello.lua" }, output = "json" }
    common.data = data
    assert.same({ 0, "[]" }, { code, printed })
  end)

  it("says the same as run, up, submit and sim, which exit with 2", function ()
    local twice = c:file("j.lua", JOBS[1][3])
    local script = c:file("k.lua", job "script = 's.lua'")
    c:file("s.lua", SCRIPTS[1][2])
    local names, set = c:file("t.lua", TOPOLOGIES[1][2]), c:file("u.lua", TOPOLOGIES[6][2])
    for _, row in ipairs { { "submit", twice }, { "submit", script }, { "up", names }, { "up", set } } do
      local checked, started = c:shoal { "check", row[2] }, c:shoal { row[1], row[2] }
      assert.same({ 2, 2 }, { checked.code, started.code }, started.err)
      assert.equal("shoal: " .. checked.err, started.err)
    end
    os.execute("cp -r scripts/policies " .. c.dir)
    c:file("policies/placement.lua", cluster.read("scripts/policies/placement.lua"):gsub("return { workers", "return { wokers"))
    local r = c:shoal { "run", "scripts/roles/manager.lua", "--dc", "a", "--policies", c.dir .. "/policies", "--data", c.dir .. "/d" }
    assert.equal(2, r.code)
    assert.matches("placement.lua:%d+: wokers: a policy has no such function here", r.err)
    r = c:shoal { "run", "scripts/roles/worker.lua", "--dc", "a", "--until-eof", "--data", c.dir .. "/w",
      "--log", c.dir .. "/w.log", stdin = "" }
    assert.matches("--join: missing: this worker has no parts to run until a manager joins it", r.err, 1, true)
    r = c:shoal { "run", "scripts/roles/client.lua" }
    assert.equal(2, r.code)
    assert.matches("--connect: missing; expected the address of a gate or manager", r.err, 1, true)
    r = c:shoal { "sim", "examples/hello.lua" }
    assert.equal(2, r.code)
    assert.matches("examples/hello.lua: is no simulation; expected a file that drives one", r.err)
  end)
end)
