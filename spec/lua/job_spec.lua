--- Job files: the accepted ones, their canonical form, and the message for each mistake.
local job = require "shoal.job"
local check = require "shoal.job.check"
local source = require "shoal.job.source"

local SCRIPT = "return { vu = function (vu) end }\n"

--- Parse this text as a job file whose neighbours are `files`.
local function parse(text, files, getenv)
  files = files or { ["w.lua"] = SCRIPT }
  return job.parse(text, "job.lua", function (path)
    if files[path] then return files[path] end
    return nil, "no such file", "ENOENT"
  end, getenv)
end

--- Its problems, as an array.
local function problems(text, files)
  local spec, err, code = parse(text, files)
  assert.is_nil(spec)
  assert.equal("CONFIG", code)
  local out = {}
  for line in err:gmatch("[^\n]+") do out[#out + 1] = line end
  return out
end

local CHECKOUT = [[
return {
  name = "checkout", datacenters = { "b", "a" }, timeout_ms = 60000,
  env = { TARGET = "http://127.0.0.1:8081" },
  workflows = {
    warm = { script = "w.lua", vus = 4, iterations = 40 },
    browse = { after = { "warm" }, script = "w.lua", vus = 8, duration_ms = 10000 },
    buy = { after = { "warm" }, script = "w.lua", vus = 8, iterations = 400, rate = 100, retries = 0, env = { WHO = 7 } },
    summary = { after = { "buy", "browse" }, command = "echo done; date" },
  },
}
]]

describe("a job file", function ()
  it("retries the failures of a command whose file gives `retries`, and of what has `retry`; the leader reads it the same", function ()
    local spec = assert(parse [[return { name = "n", workflows = {
      a = { command = "true" }, b = { command = "true", retries = 3 }, c = { command = "true", retries = 3, retry = false },
      d = { command = "true", retry = { backoff_ms = 5, max_ms = 9, factor = 3 } }, e = { script = "w.lua", retries = 3 },
      f = { script = "w.lua", retry = true }, g = { command = "true", retry = { failed = false } }, h = { command = "true", retries = 0 } } }]])
    local default, got = { backoff_ms = 1000, factor = 2.0, max_ms = 60000 }, {}
    for name, w in pairs(spec.workflows) do got[name] = w.retry or false end -- order-free: a copy
    assert.same({
      a = false, b = default, c = false, d = { backoff_ms = 5, max_ms = 9, factor = 3.0 }, e = false, f = default, g = false, h = false,
    }, got)
    assert.same(spec, (assert(job.decode(job.encode(spec)))))
  end)

  it("says what is wrong with `retry`, and where", function ()
    assert.same({
      "job.lua:2: workflows.a.retry: found 2; expected true, false or a table such as { backoff_ms = 1000, factor = 2, "
        .. 'max_ms = 60000 }; did you mean "retries"?',
      "job.lua:3: workflows.b.retry.failed: found 2; expected true or false: how often stands in `retries`",
      'job.lua:4: workflows.c.retry.backof_ms: unknown option; did you mean "backoff_ms"?',
      "job.lua:5: workflows.d.retry.max_ms: 5 is below backoff_ms = 10",
      "job.lua:6: workflows.e.retry.factor: found 0.5; expected a number from 1 to 100",
    }, problems [[return { name = "n", workflows = {
      a = { command = "true", retry = 2 },
      b = { command = "true", retry = { failed = 2 } },
      c = { command = "true", retry = { backof_ms = 2 } },
      d = { command = "true", retry = { backoff_ms = 10, max_ms = 5 } },
      e = { command = "true", retry = { factor = 0.5 } } } }]])
  end)

  it("asks for workers by their labels: for all its workflows, and for one; numbers are text", function ()
    local spec = assert(parse [[return {
      name = "n", labels = { team = "shop", n = 3 }, where = { zone = { "x", 2 }, spot = false }, workflows = {
      a = { command = "true" }, b = { command = "true", where = { gpu = "a100", spot = true, zone = 7 } } } }]])
    assert.same({ team = "shop", n = "3" }, spec.labels)
    assert.same({ zone = { "x", "2" }, spot = false }, spec.workflows.a.where)
    assert.same({ zone = "7", spot = true, gpu = "a100" }, spec.workflows.b.where)
    assert.same(spec, (assert(job.decode(job.encode(spec)))))
    local dispatch = { workflow = "b", payload = job.payload(spec, "b"), share = job.pack { parts = 1 }, timeout_ms = 0 }
    assert.same({ { team = "shop", n = "3" }, "a100" }, { job.of_dispatch(dispatch).labels, job.of_dispatch(dispatch).workflows.b.where.gpu })
  end)

  it("says what is wrong with a constraint or a label, and where", function ()
    assert.same({
      'job.lua:2: labels.team: found "a,b"; expected text of at most 64 bytes, without control characters, commas and =',
      'job.lua:3: workflows.a.where: found "gpu=a100"; expected a table of labels, such as { gpu = "a100" }',
      "job.lua:4: workflows.b.where.gpu: found a table; expected text, a list of 1 to 16 texts, true or false",
      'job.lua:5: workflows.c.wher: unknown option; did you mean "where"?',
    }, problems [[return { name = "n",
      labels = { team = "a,b" }, workflows = {
      a = { command = "true", where = "gpu=a100" },
      b = { command = "true", where = { gpu = {} } },
      c = { command = "true", wher = { gpu = "x" } } } }]])
  end)

  it("in Lua becomes a canonical spec: defaults in, scripts inlined, lists sorted", function ()
    local spec = assert(parse(CHECKOUT))
    assert.same({ "a", "b" }, spec.datacenters)
    assert.equal(60000, spec.timeout_ms)
    local w = spec.workflows
    assert.same({
      after = {}, script = { path = "w.lua", bytes = SCRIPT }, vus = 4, iterations = 40, cores = 1, retries = check.RETRIES,
      env = { TARGET = "http://127.0.0.1:8081" },
    }, w.warm)
    assert.same({ "browse", "buy" }, w.summary.after)
    assert.same({ "sh", "-c", "echo done; date" }, w.summary.command)
    assert.equal(1, w.summary.parts)
    assert.same({ TARGET = "http://127.0.0.1:8081", WHO = "7" }, w.buy.env)
    assert.equal(0, w.buy.retries)
  end)

  it("in JSON becomes the same spec, its numbers whole", function ()
    local spec = assert(parse([[ { "name": "n", "timeout_ms": 5000, "datacenters": null, "workflows":
      { "w": { "script": "w.lua", "vus": 2, "iterations": 10, "env": { "N": 3 } } } } ]]))
    assert.equal("integer", math.type(spec.workflows.w.iterations))
    assert.equal("3", spec.workflows.w.env.N)
    assert.is_nil(spec.datacenters)
    local lua = assert(parse [[return { name = "n", timeout_ms = 5000, workflows =
      { w = { script = "w.lua", vus = 2, iterations = 10, env = { N = 3 } } } }]])
    assert.equal(job.encode(lua), job.encode(spec))
  end)

  it("has defaults: one user, once, an hour in all", function ()
    local spec = assert(parse [[return { name = "n", workflows = { w = { script = "w.lua" } } }]])
    assert.equal(1, spec.workflows.w.vus)
    assert.equal(1, spec.workflows.w.iterations)
    assert.equal(3600000, spec.timeout_ms)
  end)

  it("may compute, with a few helpers and nothing else", function ()
    local text = [[
      local workflows = {}
      for i = 1, 3 do workflows["w" .. i] = { command = { "true", getenv("X", "x") }, timeout_ms = seconds(2) } end
      return { name = "n", workflows = workflows, timeout_ms = minutes(1) } ]]
    local spec = assert(parse(text, {}, function (name) return name == "X" and "given" or nil end))
    assert.same({ "true", "given" }, spec.workflows.w2.command)
    assert.equal(2000, spec.workflows.w3.timeout_ms)
    assert.equal(60000, spec.timeout_ms)
    for _, name in ipairs { "io", "os", "require", "load", "debug", "setmetatable", "coroutine" } do
      assert.matches("job.lua:1: .*" .. name, problems(("return %s.x"):format(name))[1])
    end
  end)

  it("that never ends is cut, and says so", function ()
    assert.same({ "job.lua: still running after 20000000 steps; a job file returns data and ends" }, problems "while true do end")
  end)
end)

it("has limits, whose sizes are text with a unit or bytes; the canonical ones are bytes", function ()
  local function limits(text)
    local spec = assert(job.parse(("return { name = 'n', workflows = { w = { command = 'true', limits = %s } } }"):format(text), "f.lua"))
    assert.same(spec, job.decode(job.encode(spec)))
    return spec.workflows.w.limits
  end
  assert.same({ memory = 512 << 20, cpu_s = 604800, nofile = 1 << 20, disk = 1 << 20 },
    limits "{ memory = '512MiB', cpu_s = 604800, nofile = 1048576, disk = 1048576 }")
  assert.same({ memory = 1 << 50 }, limits "{ memory = '1048576GiB' }")
  assert.is_nil(limits "{}")
  assert.is_nil(limits "nil")
end)

describe("its mistakes", function ()
  it("come all at once, each with file and line, what was found and what was expected", function ()
    assert.same({
      'job.lua:2: name: found "a b"; the job\'s name has letters, digits, _ . - and at most 64 of them',
      "job.lua:3: timout_ms: unknown option; did you mean \"timeout_ms\"?",
      'job.lua:5: workflows.a: has both script and command; expected one of them',
      'job.lua:6: workflows.b: has neither script nor command; expected one of them',
      'job.lua:7: workflows.c.vus: 0 is below 1',
      'job.lua:8: workflows.c.cores: 1.5 is not a whole number; expected 1 to 1024',
      'job.lua:9: workflows.c.script: cannot read "gone.lua": no such file',
      'job.lua:11: workflows.d.after: no workflow is named "aa"; did you mean "a"?',
      'job.lua:12: workflows.d.script: syntax: bad.lua:1: unexpected symbol near <eof>',
      'job.lua:13: workflows.d.iterations: 3 for 8 vus; each user needs at least one',
    }, problems([[return {
  name = "a b",
  timout_ms = 5,
  workflows = {
    a = { script = "w.lua", command = "true" },
    b = { },
    c = { vus = 0,
      cores = 1.5,
      script = "gone.lua" },
    d = {
      after = { "aa" },
      script = "bad.lua", vus = 8,
      ["iterations"] = 3,
    },
  },
}]], { ["w.lua"] = SCRIPT, ["bad.lua"] = "return" .. " {" }))
  end)

  it("in JSON have lines too, and so has its syntax", function ()
    assert.same({ 'job.lua:3: workflows.w.vus: found "x"; expected 1 to 100000' },
      { (problems('{ "name": "n", "workflows": {\n "w": { "script": "w.lua",\n "vus": "x" } } }')[1]
        :gsub('"x" is not a whole number', 'found "x"')) })
    assert.matches("^job.lua:2: JSON: ", problems('{ "name":\n oops }')[1])
  end)

  it("in Lua's syntax or while running keep Lua's own line", function ()
    assert.matches("^job.lua:2: ", problems("return {\n name = = 1 }")[1])
    assert.matches("^job.lua:1: .*nil value", problems("return nothing.at_all")[1])
    assert.matches("^job.lua: returned nothing; expected a table", problems("local x")[1])
    assert.matches("^job.lua: returned a number", problems("return 1")[1])
    assert.matches("raised a table", problems("error({})")[1])
  end)

  it("a cycle is printed whole", function ()
    local text = [[return { name = "n", workflows = {
      a = { command = "true", after = { "c" } },
      b = { command = "true", after = { "a" } },
      c = { command = "true", after = { "b" } },
      d = { command = "true", after = { "d" } } } }]]
    assert.same({
      "job.lua:3: workflows.b.after: a cycle, each waits for the next: a -> c -> b -> a",
      "job.lua:5: workflows.d.after: a cycle, each waits for the next: d -> d",
    }, problems(text))
  end)

  for text, found in pairs {
    ["return { name = 'n' }"] = "workflows: missing",
    ["return { name = 'n', workflows = {} }"] = "workflows: empty",
    ["return { workflows = { w = { command = 'true' } } }"] = "name: missing; expected the job's name",
    ["return { name = 'n', [true] = 1, workflows = { w = { command = 'true' } } }"] = "a key is a boolean",
    ["return { name = 'n', datacenters = {}, workflows = { w = { command = 'true' } } }"] = "datacenters: is empty",
    ["return { name = 'n', datacenters = { x = 1 }, workflows = { w = { command = 'true' } } }"] = "plain list",
    ["return { name = 'n', workflows = { w = { command = 'true', limits = 5 } } }"] = "limits: found 5; expected a table such as",
    ["return { name = 'n', workflows = { w = { command = 'true', limits = { cpu = 5 } } } }"] = "cpu: unknown limit; known are cpu_s, disk",
    ["return { name = 'n', workflows = { w = { command = 'true', limits = { memory = '5 MB' } } } }"] = 'memory: found "5 MB"; expected a size',
    ["return { name = 'n', workflows = { w = { command = 'true', limits = { memory = '1023KiB' } } } }"] = "1047552 is below 1048576",
    ["return { name = 'n', workflows = { w = { command = 'true', limits = { cpu_s = 604801 } } } }"] = "cpu_s: 604801 is above 604800",
    ["return { name = 'n', workflows = { w = { command = 'true', limits = { nofile = 31 } } } }"] = "nofile: 31 is below 32",
    ["return { name = 'n', env = { SHOAL_JOB = 1 }, workflows = { w = { command = 'true' } } }"] = "env.SHOAL_JOB: names that begin",
    ["return { name = 'n', env = { ['a=b'] = 1 }, workflows = { w = { command = 'true' } } }"] = '"a=b" is not a variable name',
    ["return { name = 'n', env = { A = {} }, workflows = { w = { command = 'true' } } }"] = "env.A: found a table",
    ["return { name = 'n', workflows = { w = { command = {} } } }"] = "command: is empty",
    ["return { name = 'n', workflows = { w = { command = '' } } }"] = "command: is empty",
    ["return { name = 'n', workflows = { w = { command = { 'a', 1 } } } }"] = "argument 2 is 1",
    ["return { name = 'n', workflows = { w = { command = 'true', vus = 3 } } }"] = "vus: unknown option",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', phase = 3 } } }"] = "phase: unknown option",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', rate = 0 } } }"] = "rate: found 0",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', rate = 0/0 } } }"] = "rate: found ",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', max_failed_share = 1 } } }"] = "max_failed_share: found 1; expected a share",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', max_failed_share = -0.1 } } }"] = "max_failed_share: found %-0.1",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', max_failed_share = '5%' } } }"] = "max_failed_share: found \"5%%\"",
    ["return { name = 'n', workflows = { w = { command = 'true', max_failed_share = 0.5 } } }"] = "max_failed_share: unknown option",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', max_failed_checks_share = 1 } } }"] = "max_failed_checks_share: found 1; exp",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', max_p95_ms = 0 } } }"] = "max_p95_ms: found 0; expected milliseconds above 0",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', max_p99_ms = 0/0 } } }"] = "max_p99_ms: found %-?nan; expected milliseconds",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', graceful_ms = 5 } } }"] = "graceful_ms: is given without duration_ms",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', duration_ms = 5, graceful_ms = -1 } } }"] = "graceful_ms: %-1 is below 0",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', vus = 2, parts = 3 } } }"] = "parts: 3 for 2 vus",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', iterations = 1, duration_ms = 1 } } }"] = "together with iterations",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', vus = 3, iterations = 2 } } }"] = "iterations: 2 for 3 vus",
    ["return { name = 'n', workflows = { w = { command = { 'a', nil, 'b' } } } }"] = "command: has a hole",
    ["return { name = 'n', workflows = { w = { command = 'true', retries = 101 } } }"] = "101 is above 100",
    ["return { name = 'n', workflows = { w = { command = 'true', parts = 10001 } } }"] = "10001 is above 10000",
    ["return { name = 'n', workflows = { w = { command = 'true', cores = 1025 } } }"] = "1025 is above 1024",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', timeout_ms = 5, duration_ms = 5 } } }"] = "ends the workflow before",
    ["return { name = 'n', workflows = { w = { script = 'w.lua', vus = 100001 } } }"] = "100001 is above 100000",
    ["return { name = 'n', workflows = { w = { script = '\\27Lua' } } }"] = "cannot read",
    ["return { name = 'n', workflows = { w = function () end } }"] = "found a function",
    ["return { name = 'n', workflows = { ['-x'] = { command = 'true' } } }"] = "found \"%-x\"",
  } do
    it("are told: " .. found, function ()
      local list = problems(text)
      assert.equal(1, #list, table.concat(list, "\n"))
      assert.matches(found, list[1])
    end)
  end

  it("scripts are limited, each and together", function ()
    local function script(bytes) return "return {} --" .. ("x"):rep(bytes - 12) end
    local function job_of(count)
      local workflows = {}
      for i = 1, count do workflows[i] = ("w%d = { script = 'w.lua' }"):format(i) end
      return ("return { name = 'n', workflows = { %s } }"):format(table.concat(workflows, ", "))
    end
    local limit = 1024 * 1024
    assert.is_table(parse(job_of(2), { ["w.lua"] = script(limit) }))
    assert.matches("w.lua has 1048577 bytes; at most 1048576", problems(job_of(1), { ["w.lua"] = script(limit + 1) })[1])
    assert.matches("their scripts have 3145728 bytes together; at most 2097152", problems(job_of(3), { ["w.lua"] = script(limit) })[1])
  end)

  it("bytecode is no script", function ()
    local list = problems("return { name = 'n', workflows = { w = { script = 'w.lua' } } }", { ["w.lua"] = string.dump(function () end) })
    assert.matches("w.lua: this is compiled Lua %(bytecode%); expected its source", list[1])
  end)
end)

describe("lines", function ()
  it("are found through comments, long strings and nested tables", function ()
    local lines = source.lines('--[[ x = { ]]\nreturn {\n a = [==[\n]]} ]==], -- }\n b = { c = "}",\n ["d e"] = { f = 1 } },\n g = 2 }')
    assert.same({ a = 3, b = 5, ["b.c"] = 5, ["b.d e"] = 6, ["b.d e.f"] = 6, g = 7 }, lines)
  end)
end)

describe("a spec's bytes", function ()
  it("are the same for the same job and come back the same", function ()
    local spec = assert(parse(CHECKOUT))
    assert.equal(job.encode(spec), job.encode(assert(parse(CHECKOUT))))
    local again = assert(job.decode(job.encode(spec)))
    assert.same(spec, again)
    assert.equal(job.encode(spec), job.encode(again))
  end)

  it("are checked again by who takes them", function ()
    local spec = assert(parse(CHECKOUT))
    spec.workflows.warm.after = { "summary" }
    local _, err, code = job.decode(job.encode(spec))
    assert.matches("cycle", err)
    assert.equal("CONFIG", code)
    spec = assert(parse(CHECKOUT))
    spec.workflows.warm.script = "/etc/passwd" -- A leader reads no files for others.
    assert.matches("expected { path, bytes }", (select(2, job.decode(job.encode(spec)))))
    for _, bytes in ipairs { "", "\193", "\1", "garbage" } do
      local none, problem = job.decode(bytes)
      assert.is_nil(none)
      assert.is_string(problem)
    end
  end)

  it("give an order in which each comes after what it waits for", function ()
    assert.same({ "warm", "browse", "buy", "summary" }, job.order(assert(parse(CHECKOUT))))
  end)
end)

describe("a share", function ()
  local function sum(shares, field)
    local total = 0
    for _, s in ipairs(shares) do total = total + s[field] end
    return total
  end

  it("adds up exactly, whatever is cut into whatever", function ()
    for vus = 1, 9 do
      for iterations = vus, 23 do
        for n = 1, 12 do
          local shares = job.share({ vus = vus, iterations = iterations }, n)
          assert.equal(math.min(n, vus), #shares)
          assert.equal(vus, sum(shares, "vus"))
          assert.equal(iterations, sum(shares, "iterations"))
          for _, s in ipairs(shares) do assert(s.vus >= 1 and s.iterations >= s.vus) end
        end
      end
    end
  end)

  it("of a share is a share: two hops place each iteration of a rate once", function ()
    local seen, count = {}, 0
    for _, dc in ipairs(job.share({ vus = 7, iterations = 23, rate = 10.0 }, 3)) do
      for _, part in ipairs(job.share(dc, 2)) do
        for k = 0, part.iterations - 1 do
          local number = part.phase + k * part.stride
          assert.is_nil(seen[number])
          seen[number], count = true, count + 1
        end
      end
    end
    assert.equal(23, count)
    for number = 0, 22 do assert(seen[number], number) end
  end)

  it("of a command counts its runs", function ()
    assert.same({ { parts = 2 }, { parts = 1 } }, job.share({ command = { "true" }, parts = 3 }, 2))
    assert.same({ { parts = 1 } }, job.share({ command = { "true" }, parts = 1 }, 4))
  end)

  it("travels in a dispatch and comes out as a spec of one workflow", function ()
    local spec = assert(parse(CHECKOUT))
    local shares = job.share(spec.workflows.buy, 2)
    local dispatch = { workflow = "buy", payload = job.payload(spec, "buy"), share = job.pack(shares[2]), timeout_ms = 500 }
    assert.equal(job.payload(spec, "buy"), dispatch.payload)
    local one = assert(job.of_dispatch(dispatch))
    local w = one.workflows.buy
    assert.same({ 4, 200, 1, 2, 100.0 }, { w.vus, w.iterations, w.phase, w.stride, w.rate })
    assert.equal(500, one.timeout_ms)
    assert.same({}, w.after)
    assert.same(one, assert(job.decode(job.encode(one))))

    dispatch.job, dispatch.part, dispatch.attempt, dispatch.fence = "j", "p", 1, 9
    local ready = assert(job.read_dispatch(dispatch))
    assert.same({ "j", "p", 1, 9 }, { ready.job, ready.part, ready.attempt, ready.fence })
    assert.same({ 1, 500, 4 }, { ready.cores, ready.timeout_ms, ready.work.vus })
    dispatch.timeout_ms = 0
    assert.is_nil(job.read_dispatch(dispatch).timeout_ms)

    assert.equal(0, ready.work.retries) -- As the job says.
    shares[2].retries = 1 -- What a tier above has left of the executions.
    dispatch.share = job.pack(shares[2])
    assert.equal(1, job.read_dispatch(dispatch).work.retries)

    dispatch.workflow = "warm"
    assert.matches("the dispatch is of warm, its payload of buy", (select(2, job.of_dispatch(dispatch))))
    dispatch.share = "\193"
    assert.equal("MALFORMED", (select(3, job.of_dispatch(dispatch))))
  end)

  describe("that was checked", function ()
    local function dispatch_of(name, share, more)
      local spec = assert(check.job({ name = name, workflows = { w = { command = { "true" }, parts = 9, env = more } } }))
      return { job = "j", workflow = "w", part = "p", attempt = 1, fence = 9, timeout_ms = 0, payload = job.payload(spec, "w"),
        share = job.pack(share or { parts = 1 }) }
    end
    local function work_of(dispatch) return assert(job.read_dispatch(dispatch)).work end

    it("is not checked again, for exactly the same bytes, name and limit", function ()
      local one = dispatch_of "one"
      local work = work_of(one)
      assert.equal(work, work_of(dispatch_of "one"))
      local other = dispatch_of("one", { parts = 3 })
      assert.equal(3, work_of(other).parts)
      assert.equal(1, work_of(one).parts)
      one.timeout_ms = 700
      assert.equal(700, job.read_dispatch(one).timeout_ms)
      one.timeout_ms = 0
      assert.is_nil(job.read_dispatch(one).timeout_ms)
      for _ = 1, 2 do
        one.workflow = "v"
        assert.equal("MALFORMED", (select(3, job.read_dispatch(one))))
        one.workflow = "w"
        assert(job.read_dispatch(one))
        one.share = job.pack { parts = 0 }
        local none, err, code = job.read_dispatch(one)
        assert.same({ nil, "workflows.w.parts: 0 is below 1", "MALFORMED" }, { none, err, code })
        one.share = job.pack { parts = 1 }
      end
      for _, bad in ipairs { "", "x", "\193" } do
        one.payload = bad
        assert.is_nil((job.read_dispatch(one)))
      end
    end)

    it("is remembered up to REMEMBERED_BYTES_MAX, and not one byte past it", function ()
      local least = dispatch_of("least", nil, { A = "" })
      local room = job.REMEMBERED_BYTES_MAX - #least.payload - #least.share
      local fits, past = nil, nil
      for n = room - 8, room + 8 do -- A longer text has a longer head.
        local d = dispatch_of("least", nil, { A = ("x"):rep(n) })
        if #d.payload + #d.share == job.REMEMBERED_BYTES_MAX then fits = d end
        if #d.payload + #d.share == job.REMEMBERED_BYTES_MAX + 1 then past = d end
      end
      assert.equal(work_of(fits), work_of(fits))
      assert.not_equal(work_of(past), work_of(past))
      assert.same(work_of(past), work_of(past))
    end)

    it("is forgotten after so many others that two generations are full", function ()
      local first = dispatch_of "first"
      local work = work_of(first)
      for i = 1, job.REMEMBERED_MAX - 1 do work_of(dispatch_of("n" .. i)) end
      assert.equal(work, work_of(first))
      for i = 1, 2 * job.REMEMBERED_MAX do work_of(dispatch_of("m" .. i)) end
      assert.not_equal(work, work_of(first))
    end)
  end)

  it("reads a file as JSON when its name says so", function ()
    local none, err = job.parse("[1", "list.json", function () end)
    assert.is_nil(none)
    assert.is_truthy(err:find("list.json:1: JSON", 1, true), err)
  end)
end)
