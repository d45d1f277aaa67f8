--- Members and the role: an event that a hook missed does no lasting harm; and a node whose datagrams are not sent reports it.
local simcluster = require "spec.support.simcluster"

describe("members, simulated:", function ()
  --- A worker returns while the manager's member hook is broken: `code` is the body of a function that runs before the real hook.
  local function returns_with(code, without_members)
    local c = simcluster.new { workers = 2 }
    local m, w = c.managers[1], c.workers[2]
    c:crash(w)
    c:run(8000)
    assert.equal(1, #c:on(m, "return state.lead:up_executors()"))
    c:on(m, ([[ local handle = node.hooks.wired["swim.member"][1]
      local real = handle.fn
      node.spec_calls = 0
      handle.fn = function (event)
        if event.member.name == "w-a2" then
          node.spec_calls = node.spec_calls + 1
          local n = node.spec_calls
          %s
        end
        return real(event)
      end ]]):format(code))
    if without_members then c:on(m, "node.script.members = nil") end
    c:restart(w)
    return c, m
  end
  local function up(c, m) return #c:on(m, "return state.lead:up_executors()") == 2 end

  it("B14: a hook that raised at a join is called again until it takes it", function ()
    local c <close>, m = returns_with("if n <= 3 then error 'not now' end", true)
    assert(c:until_true(function () return up(c, m) end, 20000, 100))
    assert.is_true(c:on(m, "return node.spec_calls") >= 4)
    assert.is_true(c:counts(m, "swim.member").raised >= 3)
    assert.same({}, c:on(m, "return node.untaken"))
    local calls = c:on(m, "return node.spec_calls")
    c:run(10000)
    assert.equal(calls, c:on(m, "return node.spec_calls")) -- Taken: not again.
    assert.equal("completed", c:complete(c:job { x = { work = "x 10" } }).state)
  end)

  it("B14: a later event of the member replaces one that was not taken", function ()
    local c <close>, m = returns_with("if event.kind == 'join' or event.kind == 'alive' then error 'never' end", true)
    c:run(5000)
    assert.equal("join", c:on(m, "return node.untaken['w-a2'].kind"))
    c:crash(c.workers[2])
    c:run(10000)
    assert.is_nil(c:on(m, "return node.untaken['w-a2']"))
    assert.equal(1, #c:on(m, "return state.lead:up_executors()"))
  end)

  it("B14: a hook that raises for one member keeps no other member's event", function ()
    local c <close>, m = returns_with("error 'never'", true)
    c:run(4000)
    c:crash(c.workers[1])
    c:run(8000)
    assert.equal(0, #c:on(m, "return state.lead:up_executors()"))
    c:restart(c.workers[1])
    assert(c:until_true(function () return #c:on(m, "return state.lead:up_executors()") == 1 end, 10000, 100))
  end)

  it("B14: a join that the hook lost without raising is found by the comparison", function ()
    local c <close>, m = returns_with("do return end")
    assert(c:until_true(function () return up(c, m) end, 15000, 100))
    assert.equal("completed", c:complete(c:job { x = { work = "x 10", parts = 8 } }).state)
  end)

  it("B14: an executor that is no member any more goes by the comparison, a living one stays", function ()
    local c <close> = simcluster.new { workers = 2 }
    local m = c.managers[1]
    c:on(m, [[ node.hooks.wired["swim.member"][1].fn = function () end
      node.hooks.wired["detector.global_death"][1].fn = function () end ]])
    c:crash(c.workers[2])
    assert(c:until_true(function () return #c:on(m, "return state.lead:up_executors()") == 1 end, 20000, 100))
    c:run(10000)
    assert.equal("w-a1", c:on(m, "return state.lead:up_executors()")[1].name)
  end)

  it("D16: datagrams of membership that do not leave are an incident, and how many since the last look; so are events of users", function ()
    local c <close> = simcluster.new { workers = 1 }
    local m = c.managers[1]
    c:on(m, [[ local failed, core = 0, node.swim
      node.swim = setmetatable({}, { __index = function (_, name)
        if name == "counts" then
          return function ()
            local counts = core:counts()
            failed = failed + 5
            counts.send_failed, counts.send_errors = failed, nil
            counts.user_missed = failed
            return counts
          end
        end
        return function (_, ...) return core[name](core, ...) end
      end }) ]])
    c:run(2500)
    local told = c:incidents(m, "swim.unsent")
    assert.equal("send_failed", told[1].ids.what)
    assert.same({ 5, 10 }, { told[2].ids.more, told[2].ids.total })
    told = c:incidents(m, "swim.missed")
    assert.same({ "user_missed", 5, 10 }, { told[2].ids.what, told[2].ids.more, told[2].ids.total })
  end)

  it("reports a payload that cannot be read once, however often members are looked at", function ()
    local c <close> = simcluster.new { workers = 1 }
    local m, w = c.managers[1], c.workers[1]
    c:on(w, "assert(node.swim:payload 'no map')")
    c:run(12000)
    assert.equal(1, c:counts(m, "swim.payload").raised)
  end)

  it("a policy's admits that raises, waits, loops or answers nonsense admits, and is an incident", function ()
    for _, body in ipairs { "error 'no'", "return 5", "return {}", "while true do end", "return false, 7" } do
      local c <close> = simcluster.new { gates = 1, workers = 1 }
      local g, m = c.gates[1], c.managers[1]
      c:crash(m)
      c:on(g, "state.registry:forget(state.registry.managers['m-a1'], 'a spec')")
      c:on(g, ("state.registry.policy.admits = function () %s end"):format(body))
      c:restart(m)
      c:run(6000)
      assert.equal(1, #c:on(g, "return node.describe().executors"), body)
      assert.is_true(c:counts(g, "policy.placement").raised >= 1, body)
    end
  end)

  it("of two managers of a datacenter one leads it at the gate for as long as it is heard; then the other does", function ()
    local c <close> = simcluster.new { gates = 1, managers = 2, workers = 1, set = { dc_silent_ms = 3000 } }
    local g = c.gates[1]
    local function leader() return c:on(g, "return state.registry.dcs.a.leader") end
    local first = leader()
    for _ = 1, 30 do
      c:run(200)
      assert.equal(first, leader())
    end
    local at = c.managers[1].name == first and 1 or 2
    c:crash(c.managers[at])
    assert(c:until_true(function () return leader() == c.managers[3 - at].name end, 8000, 100))
  end)

  it("a client takes each event of a job once, and none from before", function ()
    local c <close> = simcluster.new { workers = 1 }
    local heard = c:on(c.client, [[ local messages, heard = require "shoal.messages", {}
      node.scope:spawn("spec.follow", { job = "j1" }, function ()
        state.client:follow("j1", { status = function (body) heard[#heard + 1] = body.state end }, 1000)
      end)
      require("shoal.task").yield()
      local peer = node.rpc:peer(...)
      local answers = {}
      for _, seq in ipairs { 5, 5, 4, 6, 6, 5 } do
        local bytes = assert(messages.encode("job.status", { job = "j1", seq = seq, body = { state = "s" .. seq } }))
        answers[#answers + 1] = node.rpc.raw_handlers["job.status"](bytes, peer)
      end
      return { heard = heard, answers = answers } ]], c.managers[1].address)
    assert.same({ "s5", "s6" }, heard.heard)
    assert.same({ "ok", "ok", "ok", "ok", "ok", "ok" }, heard.answers)
  end)
end)
