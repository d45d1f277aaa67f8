--- A role's hooks are on sites that its role has.
local errors = require "shoal.errors"
local wiring = require "shoal.node.wiring"

describe("a role's hooks", function ()
  before_each(function ()
    errors.reset()
    errors.site { name = "spec.of_gates", role = "gate", hook = { args = { "event" } } }
    errors.site { name = "spec.of_any", role = "any", hook = { args = { "event" } } }
  end)
  after_each(errors.reset)

  local function f(_) end

  it("are taken where the role has the site", function ()
    assert.is_true(wiring.check_hooks("gate.lua", "gate", { ["spec.of_gates"] = f, ["spec.of_any"] = f }))
    assert.is_true(wiring.check_hooks("worker.lua", "worker", { ["spec.of_any"] = f }))
  end)

  it("D17: are refused on another role's site, an unknown one, or with a wrong arity: all at once, by name", function ()
    local ok, err, code = wiring.check_hooks("worker.lua", "worker", { ["spec.of_gates"] = f, ["lease.expird"] = f,
      ["spec.of_any"] = function () end })
    assert.is_nil(ok)
    assert.equal("CONFIG", code)
    assert.truthy(err:find('worker.lua: hooks["spec.of_gates"]: a site of the gate, which a worker never fires', 1, true), err)
    assert.truthy(err:find("no hook is named lease.expird", 1, true), err)
    assert.truthy(err:find("takes 0 arguments", 1, true), err)
  end)

  it("B3: of jobs and parts are for gates and managers; each that a role of scripts/roles may wire is fired by something", function ()
    for _, role in ipairs { "gate", "manager" } do
      assert.is_true(wiring.check_hooks("r.lua", role, { ["job.failed"] = f, ["part.retried"] = f }))
    end
    local ok, err = wiring.check_hooks("w.lua", "worker", { ["job.failed"] = f })
    assert.is_nil(ok)
    assert.equal('w.lua: hooks["job.failed"]: a site of the gate and the manager, which a worker never fires', err)
    local hooks = {}
    for _, name in ipairs(errors.names()) do
      local site = errors.declared(name)
      if site.hook and not name:find "^spec%." then hooks[#hooks + 1] = name end
    end
    -- scripts/lint refuses a hook that nothing fires, and spec/sim/hooks_spec.lua fires those of jobs and parts.
    assert.same({ "correlation.detected", "correlation.healed", "detector.global_death", "detector.job_death",
      "detector.job_suspicion_expired", "federation.state", "job.began", "job.ended", "job.failed", "lease.expired", "part.began",
      "part.ended", "part.failed", "part.retried", "swim.member", "swim.partition" }, hooks)
  end)

  it("of a script that is not started are read without its state", function ()
    local role = { name = "worker", hooks = function (state)
      return { ["spec.of_any"] = function (event) state.lead:gone(event) end, ["spec.of_gates"] = state.lead.hook and f }
    end }
    assert.is_nil(wiring.check_role_hooks("w.lua", role))
    role.hooks = function () error "no" end
    assert.truthy(select(2, wiring.check_role_hooks("w.lua", role)):find "w.lua: hooks: .*no")
    role.hooks = function () return 5 end
    assert.truthy(select(2, wiring.check_role_hooks("w.lua", role)):find "expected a table, found number")
    role.hooks = nil
    assert.is_true(wiring.check_role_hooks("w.lua", role))
  end)
end)
