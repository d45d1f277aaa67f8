--- Scripts as a source of faults (SCENARIOS L2 to L6, F69) once with real processes: a manager and two workers whose role script and
--- errors policy are edited as an operator would. spec/sim/scripts_spec.lua has every case, in virtual time.
local cluster = require "spec.support.cluster"

local BADLY = [[
local errors, task = require "shoal.errors", require "shoal.task"
local node_of
local BAD = {
  raises = function () error "a bug of the script" end,
  never_ends = function () while true do end end,
  answers_a_number = function () return 42 end,
}
local hooks, start, list = role.hooks, role.start, role.answers["job.list"]
function role.start(node)
  node_of = node
  local state, err, code = start(node)
  if not state then return nil, err, code end
  --- Memory in KB after n more events through the hooks.
  function state.round(n)
    for i = 1, n do
      local name = "x" .. i % 50
      if i % 2 == 0 then
        node.hooks:deliver("detector.global_death", { node = name, job = "none", incarnation = "1.0", suspicion_age_ms = 1,
          confirmations = 0 }, name, name, "1.0")
      else
        local event = { key = "k", holder = "x", node = "m", job = "j", fence = i, expired_for_ms = 0, duration_ms = 1, remaining = 0 }
        node.hooks:deliver("lease.expired", event, "k", event)
      end
      if i % 500 == 0 then task.sleep(1) end
    end
    collectgarbage()
    collectgarbage()
    return collectgarbage "count"
  end
  return state
end
role.answers["job.list"] = function (state, body, peer)
  if state.bad then return BAD[state.bad]() end
  return list(state, body, peer)
end
function role.hooks(state)
  local all = hooks(state)
  local taken = all["swim.member"]
  all["swim.member"] = function (event)
    taken(event)
    if state.wire then state.wire() end
    if state.bad then BAD[state.bad]() end
  end
  --- Beside it, once: a hook that unwires itself and a later one, wires a third, and calls back in.
  function state.wire()
    local set, first, third, told = node_of.hooks, nil, nil, {}
    local function say(word) if #told < 3 then told[#told + 1] = word end end
    state.wire, state.told = nil, told
    first = set:wire("detector.global_death", function (name, _)
      say "first"
      set:unwire(first)
      set:unwire(third)
      set:wire("detector.global_death", function (_, _) say "late" end)
      node_of:members()
      state.lead:gone(name, "from within")
      errors.withdraw("detector.global_death", name)
    end)
    set:wire("detector.global_death", function (_, _) say "second" end)
    third = set:wire("detector.global_death", function (_, _) say "third" end)
  end
  return all
end
]]

local REQUIRED = {
  gate = { "detector.job_death", "lease.expired" }, manager = { "detector.global_death", "detector.job_death", "lease.expired" },
}

describe("scripts that fail in real nodes:", function ()
  local c
  before_each(function () c = cluster.new() end)
  after_each(function () c:close() end)

  local function edited(name, role, more)
    local text, n = cluster.read(("scripts/roles/%s.lua"):format(role)):gsub("\nreturn role%s*$", function ()
      return "\n" .. more .. "\nreturn role\n"
    end)
    assert.equal(1, n)
    return c:file(name .. ".lua", text)
  end

  it("L5: a role without a required hook is refused by `shoal check`, and by `shoal run` before anything starts, by name", function ()
    local paths, words = {}, { "check" }
    for role, sites in pairs(REQUIRED) do -- order-free: each by itself
      for _, site in ipairs(sites) do
        local path = edited(role .. "-" .. site, role, ([[
local hooks = role.hooks
function role.hooks(state)
  local all = hooks(state)
  all[%q] = nil
  return all
end]]):format(site))
        paths[path], words[#words + 1] = ("a %s must wire: %s"):format(role, site), path
      end
    end
    local r = c:shoal(words)
    assert.equal(2, r.code, r.out .. r.err)
    for path, says in pairs(paths) do -- order-free: each by itself
      local line
      for each in (r.out .. r.err):gmatch "[^\n]+" do line = line or each:find(path .. ":", 1, true) and each end
      assert.truthy(line and line:find(says, 1, true), says .. " in:\n" .. r.out .. r.err)
    end
    local path, says = next(paths)
    r = c:shoal { "run", path, "--dc", "z", "--data", c.dir .. "/none" }
    assert.equal(2, r.code, r.out .. r.err)
    assert.truthy(r.err:find(says, 1, true), r.err)
  end)

  it("L2, L3, L4, L6, F69: hooks and handlers that fail are told and counted, the policy follows its file, and the work goes on", function ()
    os.execute("cp -r scripts/policies " .. c.dir)
    local log = c.dir .. "/m.log"
    local m = c:node(edited("manager", "manager", BADLY), { "--dc", "a", "--name", "m", "--data", c.dir .. "/m", "--log", log,
      "--policies", c.dir .. "/policies", "--profile", "local", "--set", "hang_ms=2000" })
    local workers = {}
    for i = 1, 2 do
      workers[i] = c:node("worker", { "--dc", "a", "--name", "w" .. i, "--data", c.dir .. "/w" .. i, "--join", m.address,
        "--profile", "local", "--cores", "2" })
    end
    local function told(site)
      local out = {}
      for line in cluster.read(log):gmatch "[^\n]+" do
        if line:find('"event":"incident"', 1, true) and line:find(('"site":"%s"'):format(site), 1, true) then out[#out + 1] = line end
      end
      return out
    end
    local function bad(kind) c:eval(m.address, "rawset(node.state, 'bad', " .. (kind and ("%q"):format(kind) or "nil") .. ")") end
    local function raised(site)
      return tonumber(c:eval(m.address, ("require('shoal.errors').count(%q).raised"):format(site)))
    end
    local function jobs() return c:shoal { "jobs", "--connect", m.address } end
    local function policy(text)
      cluster.pause(250) -- A policy is looked at at most every 200 ms.
      c:file("policies/errors.lua", text)
    end
    -- A handler: each failure is an incident, its caller hears of it, and the next one is served.
    bad "raises"
    assert.not_equal(0, jobs().code)
    assert.truthy(told("rpc.handler")[1]:find("a bug of the script", 1, true))
    bad "answers_a_number"
    local r = jobs()
    assert.not_equal(0, r.code)
    assert.truthy(told("rpc.reply")[1]:find("expected table, found integer", 1, true))
    -- The policy: level, fields and limit; nothing that it says stops the count.
    bad "raises"
    policy "return { default = { burst = 1, per_ms = 60000 }, sites = { ['rpc.handler'] = { level = 'critical', fields = { 'message' } } } }"
    for _ = 1, 3 do jobs() end
    local lines = told "rpc.handler"
    assert.equal(2, #lines)
    assert.truthy(lines[2]:find('"level":"critical"', 1, true) and not lines[2]:find('"where":', 1, true), lines[2])
    assert.equal(4, raised "rpc.handler")
    policy "return { sites = { ['rpc.handler'] = { level = 'silent' } } }"
    jobs()
    assert.equal(1, #told "policy.load")
    assert.equal(5, raised "rpc.handler")
    policy "return { default = { burst = 100 } }"
    -- A handler that never ends is interrupted by the watchdog.
    bad "never_ends"
    assert.not_equal(0, jobs().code)
    bad(nil)
    cluster.wait("the interruption", function ()
      local all = told "rpc.handler"
      return all[#all]:find("without ending or waiting", 1, true)
    end)
    assert.equal(6, raised "rpc.handler")
    assert.equal(0, jobs().code)
    -- A hook that fails while a worker dies in the middle of a job; beside it one that unwires itself and another.
    local path = c:file("j.lua", "return { name = 'j', workflows = { w = { command = 'sleep 1.5', parts = 2, retries = 3 } } }")
    local job = c:start { "submit", path, "--connect", m.address }
    cluster.wait("both parts", function ()
      local n = 0
      for _, words in pairs((c:left())) do n = n + (words:find "^sleep 1.5" and 1 or 0) end
      return n >= 2
    end)
    bad "raises"
    workers[2]:kill "sigkill"
    cluster.wait("the hook's incident", function () return #told "swim.member" > 0 end)
    assert.truthy(told("swim.member")[1]:find('"member":"w2"', 1, true))
    job:wait()
    assert.equal(0, job.code, job.out .. job.err)
    bad(nil)
    assert.equal("first second", c:eval(m.address, "table.concat(node.state.told, ' ')"))
    assert.equal(0, #told "detector.global_death")
    -- Its memory, before and after more events.
    c:eval(m.address, "node.state.round(1500)")
    local before = tonumber(c:eval(m.address, "node.state.round(500)"))
    local after = tonumber(c:eval(m.address, "node.state.round(8000)"))
    assert.is_true(after < before + 64, ("it grew from %.0f to %.0f KB"):format(before, after))
    m:kill "sigterm"
    m:wait()
    assert.equal(0, m.code, m.err)
    local a, b, s, h = m.err:match "raised = reported %+ suppressed %+ handled: (%d+) = (%d+) %+ (%d+) %+ (%d+)"
    assert.is_true(a ~= nil and tonumber(a) == b + s + h and tonumber(a) >= 8, m.err)
  end)
end)
