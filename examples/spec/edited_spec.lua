--- Specs of edited scripts: the policy and the worker of this folder's neighbours, in a simulated cluster. Run it with
---   busted examples/spec
local spec = require "shoal.spec"

describe("our placement policy", function ()
  local function cluster()
    return spec.cluster {
      policies = { placement = "examples/policies/placement.lua" },
      workers = { { name = "big", cores = 4 }, { name = "small", cores = 2 }, { name = "spot", cores = 4, labels = { spot = "yes" } } },
    }
  end

  it("fills the worker that is fullest", function ()
    local c <close> = cluster()
    c:command("work", function () return "done\n", 0, 500 end)
    local result = c:run_job { name = "j", workflows = { k = { command = { "work" }, parts = 6 } } }
    assert.equal("completed", result.state, result.reason)
    assert.same({ small = 2, big = 4 }, c:where(result))
    assert.same({}, c:incidents())
  end)

  it("keeps the jobs of the night on spot workers, also when they are killed", function ()
    local c <close> = cluster()
    c:command("work", function () return "done\n", 0, 500 end)
    local result = c:run_job { name = "n", labels = { team = "night" }, workflows = { k = { command = { "work" }, parts = 6 } } }
    assert.same({ spot = 6 }, c:where(result))
    local id = assert(c:submit { name = "m", labels = { team = "night" }, workflows = { k = { command = { "work" } } } })
    c.sim:crash "spot"
    c:run(10000)
    assert.equal("running", c:status(id).state)
    assert.truthy(c:status(id).workflows[1].waiting)
    c.sim:restart "spot"
    c:run(10000)
    assert.equal("completed", c:status(id).state)
  end)
end)

describe("our worker", function ()
  it("takes jobs of the shop only, and no other job fails by that", function ()
    local c <close> = spec.cluster { roles = { worker = "examples/roles/shop_worker.lua" }, workers = 1 }
    c:command("work", function () return "done\n", 0, 50 end)
    assert.equal("completed", c:run_job({ name = "s", labels = { team = "shop" }, workflows = { k = { command = { "work" } } } }).state)
    local id = assert(c:submit { name = "o", workflows = { k = { command = { "work" } } } })
    c:run(2000)
    assert.truthy(c:status(id).workflows[1].waiting:find("this worker runs jobs of the shop only", 1, true))
    assert.same({}, c:incidents())
  end)
end)
