--- Incidents of the whole cluster, asked of any node: who is asked, who did not answer, and what is left out.
local simcluster = require "spec.support.simcluster"

local function ask(c, node, body)
  body.max = body.max or 50
  return assert(c:on(c.client, [[ local address, body = ...
    return node.rpc:peer(address):call("node.incidents", body, { timeout_ms = 9000 }) ]], node.address, body))
end

local function raise(c, node, site, message)
  c:on(node, [[ local site, message = ...
    require("shoal.base.errors").report(site, { job = "j" }, message) ]], site, message)
end

local function messages(reply, site)
  local out = {}
  for _, i in ipairs(reply.incidents) do
    if i.site == site then out[#out + 1] = i.node .. " " .. i.message end
  end
  table.sort(out)
  return out
end

describe("incidents of a cluster", function ()
  it("C8: are told by a gate, a manager and a worker alike, with time and count; a node that is silent is named", function ()
    local c <close> = simcluster.new { gates = 2, dcs = { "a", "b" }, managers = 2, workers = 1 }
    local wanted = {}
    for i, node in ipairs(c.nodes) do
      if node ~= c.client then
        raise(c, node, "lead.run", "spec " .. i)
        wanted[#wanted + 1] = node.name .. " spec " .. i
      end
    end
    table.sort(wanted)
    assert.equal(8, #wanted)
    for _, node in ipairs { c.gates[1], c.gates[2], c.managers[1], c.managers[4], c.workers[1], c.workers[2] } do
      local reply = ask(c, node, { scope = "cluster" })
      assert.same(wanted, messages(reply, "lead.run"), node.name)
      assert.same({}, reply.silent)
      assert.equal(8, reply.asked, node.name)
      for i, each in ipairs(reply.incidents) do
        assert.is_true(each.wall_ns > 0 and each.count >= 1)
        assert.is_true(i == 1 or each.wall_ns >= reply.incidents[i - 1].wall_ns)
      end
    end
    -- One node alone; by node, site and family; the newest of many.
    assert.same({ c.gates[1].name .. " spec 1" }, messages(ask(c, c.gates[1], {}), "lead.run"))
    local reply = ask(c, c.workers[1], { scope = "cluster", node = c.managers[4].name, site = "lead" })
    assert.equal(1, #reply.incidents)
    assert.equal(c.managers[4].name, reply.incidents[1].node)
    assert.same({}, ask(c, c.gates[1], { scope = "cluster", site = "lea" }).incidents)
    reply = ask(c, c.gates[1], { scope = "cluster", site = "lead.*", max = 3 })
    assert.same({ 3, 5 }, { #reply.incidents, reply.more })
    c:run(5000)
    assert.same({}, ask(c, c.gates[1], { scope = "cluster", site = "lead", within_ms = 2000 }).incidents)
    -- A manager and a worker that do not answer, a moment before anybody knows that they are dead.
    c:cut(c.workers[2])
    reply = ask(c, c.gates[1], { scope = "cluster", site = "lead" })
    local names = {}
    for _, each in ipairs(reply.silent) do names[#names + 1] = each.node end
    assert.same({ c.workers[2].name }, names)
    assert.equal(7, #reply.incidents)
    c:cut(c.managers[1])
    c:cut(c.managers[2])
    reply = ask(c, c.gates[1], { scope = "cluster", site = "lead" })
    names = {}
    for _, each in ipairs(reply.silent) do names[each.node] = each.why end
    assert.truthy(names[c.managers[1].name], "the first manager of a")
    assert.truthy(names["datacenter a"], "that nobody could ask the workers of a")
    c:heal()
  end)

  it("C8: are told by a manager when no gate answers, and by a worker when no manager does, with their names", function ()
    local c <close> = simcluster.new { gates = 1, workers = 2 }
    for _, node in ipairs { c.managers[1], c.workers[1], c.workers[2] } do raise(c, node, "lead.run", "here") end
    c:crash(c.gates[1])
    local reply = ask(c, c.managers[1], { scope = "cluster", site = "lead.run" })
    assert.equal(3, #reply.incidents)
    assert.matches("^gate ", reply.silent[1].node)
    c:pause(c.managers[1])
    reply = ask(c, c.workers[1], { scope = "cluster", site = "lead.run" })
    assert.equal(2, #reply.incidents)
    assert.equal(c.managers[1].name, reply.silent[1].node)
    c:resume(c.managers[1])
    c:restart(c.gates[1])
    c:run(3000)
  end)
end)
