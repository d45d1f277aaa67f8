--- Retries of what fails: how often in total, over both tiers, after which pauses, and what policies may do.
local followed = require "spec.support.followed"
local simcluster = require "spec.support.simcluster"

local submitted, ended = followed.submitted, followed.ended

--- A command `flaky NAME FAILURES`: fails so often by its name, then succeeds. Returns its runs: { name, at_ms, attempt }.
local function flaky(c)
  local runs, count = {}, {}
  c.s:command("flaky", function (argv)
    local name, failures = argv[2], tonumber(argv[3])
    count[name] = (count[name] or 0) + 1
    runs[#runs + 1] = { name = name, at_ms = c.s:now_ms() }
    return "run " .. count[name] .. "\n", count[name] <= failures and 3 or 0, 20
  end)
  return runs
end

local function pauses(runs)
  local out = {}
  for i = 2, #runs do out[i - 1] = runs[i].at_ms - runs[i - 1].at_ms end
  return out
end

local function between(least, most, value)
  assert.is_true(value >= least and value <= most, ("%.0f is not in %d..%d"):format(value, least, most))
end

describe("a command that fails", function ()
  it("C7: is executed `retries` times more, in total over both tiers, with pauses that grow; its result counts all of them", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, workers = 2 }
    local runs = flaky(c)
    local id = submitted(c, c:job { one = { command = { "flaky", "always", "99" }, retries = 2 } })
    c:run(700)
    local waiting = c:on(c.gates[1], "return state.lead:get(...).workflows[1].waiting", id)
    assert.truthy(waiting and waiting:find("^a: one/a/1 failed on w%-a%d .*; again after 1.0 s$"), waiting)
    local final = ended(c, id, "failed")
    assert.equal(3, #runs)
    local gaps = pauses(runs)
    between(1000, 1900, gaps[1])
    between(1800, 3200, gaps[2])
    local w = final.result.workflows[1]
    assert.same({ 3, 2 }, { w.executions, w.retried })
    local rows = {}
    for i, a in ipairs(final.result.attempts) do rows[i] = ("%s %d %s"):format(a.part, a.attempt, a.state) end
    assert.same({ "one/a/1 1 failed", "one/a/1 2 failed", "one/a/1 3 failed" }, rows)
    -- It succeeds at the third time.
    final = ended(c, submitted(c, c:job { one = { command = { "flaky", "twice", "2" }, retries = 2 } }), "completed")
    assert.same({ 3, 2 }, { final.result.workflows[1].executions, final.result.workflows[1].retried })
    c:rest()
  end)

  it("runs once when its file does not ask for more, or says retry = false", function ()
    local c <close> = simcluster.new {}
    local runs = flaky(c)
    ended(c, submitted(c, c:job { one = { command = { "flaky", "a", "9" } } }), "failed")
    ended(c, submitted(c, c:job { one = { command = { "flaky", "b", "9" }, retries = 2, retry = false } }), "failed")
    ended(c, submitted(c, c:job { one = { command = { "flaky", "c", "9" }, retries = 0, retry = {} } }), "failed")
    assert.equal(3, #runs)
    c:rest()
  end)

  it("waits as `retry` says, up to max_ms; a script with `retry` is executed again too", function ()
    local c <close> = simcluster.new {}
    local runs = flaky(c)
    ended(c, submitted(c, c:job {
      one = { command = { "flaky", "a", "9" }, retries = 3, retry = { backoff_ms = 200, factor = 10, max_ms = 500 } },
    }), "failed")
    assert.equal(4, #runs)
    local gaps = pauses(runs)
    between(160, 300, gaps[1])
    between(400, 700, gaps[2])
    between(400, 700, gaps[3])
    local code = [[return { setup = function (vu) error "not today" end, vu = function () end }]]
    local final = ended(c, submitted(c, c:job { one = { code = code, retries = 1, retry = { backoff_ms = 10 } } }), "failed")
    assert.equal(2, final.result.workflows[1].executions)
    final = ended(c, submitted(c, c:job { one = { code = code, retries = 1 } }), "failed")
    assert.is_nil(final.result.workflows[1].executions)
    c:rest()
  end)
end)

describe("an operator's retry policy", function ()
  local TWICE = "if how == 'failed' then return workflow.command ~= nil and part.executions <= 2 end return true"

  it("that retries failing commands twice runs them three times, not nine; at the gate it hears that three were run", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" } }
    local runs = flaky(c)
    for _, node in ipairs { c.gates[1], c.managers[1], c.managers[2] } do
      c:on(node, ([[ node.spec_heard = {}
        local heard = node.spec_heard
        state.lead.options.retry.again = function (part, workflow, how, tier)
          heard[#heard + 1] = ("%%s %%s %%d of %%d"):format(tier, how, part.executions, part.retries)
          %s
        end ]]):format(TWICE))
    end
    local final = ended(c, submitted(c, c:job { one = { command = { "flaky", "a", "99" } } }), "failed")
    assert.equal(3, #runs)
    assert.equal(3, final.result.workflows[1].executions)
    assert.same({ "gates failed 3 of 2" }, c:on(c.gates[1], "return node.spec_heard"))
    assert.same({ "managers failed 1 of 2", "managers failed 2 of 2", "managers failed 3 of 2" }, c:on(c.managers[1], "return node.spec_heard"))
    between(800, 2000, pauses(runs)[1])
  end)

  it("A4: that is wrong is an incident each time, and its job ends; A7: one that says yes for ever has a cap and pauses", function ()
    for _, wrong in ipairs { "local executions, refusals = 1, nil + 1 return executions", "return 'yes'", "return true" } do
      local c <close> = simcluster.new {}
      local runs = flaky(c)
      c:on(c.managers[1], ("state.lead.options.retry.again = function (part, workflow, how) %s end"):format(wrong))
      local began = c.s:now_ms()
      ended(c, submitted(c, c:job({ one = { command = { "flaky", "a", "99" } } }, { timeout_ms = 20000 })), "failed")
      assert.equal(wrong == "return true" and 3 or 1, #runs)
      assert.is_true(c.s:now_ms() - began < 8000)
      c:rest()
    end
  end)
end)

describe("a part that a higher tier tries again", function ()
  it("goes on counting: its attempts follow those of the datacenter that was lost", function ()
    local c <close> = simcluster.new { gates = 1, dcs = { "a", "b" }, set_gate = { dc_silent_ms = 2500 } }
    local id = submitted(c, c:job { one = { work = "one 8000" } })
    c:run(1500)
    local first = c.ran.one
    assert.equal(1, first)
    local dc = c:on(c.gates[1], "for _, p in pairs(state.lead.ledger.runs[...].parts) do return p.executor end", id)
    c:crash(c.managers[dc == "a" and 1 or 2])
    c:crash(c.workers[dc == "a" and 1 or 2])
    local final = ended(c, id, "completed")
    local rows = {}
    for i, a in ipairs(final.result.attempts) do rows[i] = ("%s %d %s"):format(a.part:gsub(dc, "DC"), a.attempt, a.state) end
    assert.same({ "one/DC 1 lost", "one/DC/2.1 2 completed" }, rows)
  end)
end)
