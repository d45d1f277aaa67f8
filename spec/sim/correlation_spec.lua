--- Datacenters that fail alone and together, through the unmodified roles (SCENARIOS F15, F18; FAILURES 2.4): one is evicted and its parts
--- move; several at once are held, and when they return nothing was lost.
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local USERS = [[return { vu = function (vu) vu:sleep(1000) end }]]

-- Unreachable 4.5 s after a cut; confirmed after 0.5 s; up again after 3 s; counted together within 3 s. Held for 15 s here.
local SETTINGS = { dc_silent_ms = 4500, ["correlation.hold_ms"] = 15000 }

local function dcs(count, options)
  local names = { "a", "b", "c", "d" }
  local set = {}
  for key, value in sorted(SETTINGS) do set[key] = value end
  for key, value in sorted(options and options.set or {}) do set[key] = value end
  return simcluster.new { gates = options and options.gates or 1, dcs = table.move(names, 1, count, 1, {}), workers = 1, set = set,
    seed = options and options.seed }
end

--- A job with a part in each datacenter, begun.
local function begun(c, ms, more)
  local load = { code = USERS, vus = 4, duration_ms = ms or 60000 }
  for key, value in sorted(more or {}) do load[key] = value end
  local id = assert(c:submit(c:job { load = load }))
  c:watch(id)
  c:run(1500)
  return id
end

local function cut(c, g, ...) for _, i in ipairs { ... } do c:cut(g, c.managers[i]) end end
local function heal(c, g, ...) for _, i in ipairs { ... } do c:heal(g, c.managers[i]) end end

local function ended(c, id, state, limit_ms)
  assert.truthy(c:until_true(function () return c:final(id) end, limit_ms or 120000, 200), "the job did not end")
  assert.equal(state or "completed", c:final(id).state, c:final(id).reason)
  return c:final(id)
end

--- The attempts of a final result: "load/a completed, load/b lost".
local function attempts(final)
  local out = {}
  for _, a in ipairs(final.result.attempts) do out[#out + 1] = (a.part:gsub("/1$", "")) .. " " .. a.state end
  table.sort(out)
  return table.concat(out, ", ")
end

local function holds(c, g) return c:on(g, "return state.registry.eviction.correlation:holds()") end
local function counts(c, g) return c:on(g, "return state.registry.eviction.correlation:counts()") end
local function lost(c, g) return c:counts(g, "lead.attempt_lost").raised end
local function until_held(c, g) assert.truthy(c:until_true(function () return holds(c, g) end, 10000, 20), "not detected") end
local function until_free(c, g, ms) assert.truthy(c:until_true(function () return not holds(c, g) end, ms or 30000, 20), "not healed") end
local function waiting(c, g, id) return c:on(g, "return state.lead:get(...).workflows[1].waiting", id) or "" end

describe("one datacenter down:", function ()
  it("F15: it alone is evicted, once it cannot be the first of several; its parts move, and it gets parts again when it is back", function ()
    local c <close> = dcs(3)
    local g = c.gates[1]
    local id = begun(c, 20000)
    cut(c, g, 1)
    c:run(5200) -- Unreachable, and not yet evicted.
    assert.same({ 0, 0 }, { lost(c, g), counts(c, g).alone })
    assert.equal("unreachable, held", c:members(g)["m-a1"].state .. ", " .. c:members(g)["m-a1"].hold)
    c:run(800)
    assert.same({ 1, 1, 0 }, { lost(c, g), counts(c, g).alone, counts(c, g).detected })
    local told = c:incidents(g, "lead.attempt_lost")[1]
    assert.truthy(told.message:find("^datacenter a is unreachable: no answer to probes for %d+ ms; no other datacenter failed at the time$"),
      told.message)
    assert.is_nil(c:members(g)["m-a1"].hold)
    local other = ended(c, id)
    assert.equal("load/a lost, load/a/2.1 completed, load/b completed, load/c completed", attempts(other))
    heal(c, g, 1)
    c:run(12000)
    assert.equal("load/a completed, load/b completed, load/c completed", attempts((c:complete(c:job { load = { vus = 3, iterations = 6 } }))))
    c:rest()
  end)

  it("F15: one that returns before its verdict has lost nothing", function ()
    local c <close> = dcs(3)
    local g = c.gates[1]
    local id = begun(c, 20000)
    cut(c, g, 1)
    c:run(5000)
    heal(c, g, 1)
    assert.equal("load/a completed, load/b completed, load/c completed", attempts(ended(c, id)))
    assert.same({ 0, 0 }, { lost(c, g), counts(c, g).alone })
    c:rest()
  end)
end)

describe("several datacenters down at once:", function ()
  for _, case in ipairs { { "two of four", 4, { 2, 4 }, "low" }, { "three of four", 4, { 1, 2, 3 }, "medium" } } do
    it(("F15, F18: %s are held: no part is lost, they get no new part, and all is as before when they return"):format(case[1]), function ()
      local c <close> = dcs(case[2])
      local g, gone = c.gates[1], case[3]
      local id = begun(c, 25000)
      cut(c, g, table.unpack(gone))
      until_held(c, g)
      c:run(600) -- They are noticed within some probes of each other.
      assert.equal(case[4], c:on(g, "return state.registry.eviction.correlation:severity()"))
      local said = c:incidents(g, "gate.held")
      assert.equal(case[4], said[#said].ids.severity)
      assert.truthy(said[#said].message:find(("of %d known datacenters "):format(case[2]), 1, true), said[#said].message)
      c:run(5000) -- Longer than one alone would have.
      local first = c.managers[gone[1]].name
      assert.same({ 0, "unreachable", "held" }, { lost(c, g), c:members(g)[first].state, c:members(g)[first].hold })
      local dc = first:match "^m%-(%l)"
      local next_id = assert(c:submit(c:job({ load = { work = "far 20", parts = 1 } }, { datacenters = { dc } })))
      c:watch(next_id)
      c:run(1500)
      local why = ("^datacenter %s is unreachable, one of %d that failed at once; it has up to %%d+ s to return$"):format(dc, #gone)
      assert.truthy(waiting(c, g, next_id):find(why), waiting(c, g, next_id))
      heal(c, g, table.unpack(gone))
      until_free(c, g)
      assert.same({ 1, 1, 0, 0 }, { counts(c, g).detected, counts(c, g).returned, counts(c, g).alone, counts(c, g).vain })
      local final = ended(c, id)
      assert.equal(case[2], #final.result.attempts, attempts(final))
      assert.equal(0, lost(c, g))
      c:check_counts(id, final)
      ended(c, next_id)
      c:rest()
    end)
  end

  it("F15, F18: when the hold ends in vain they are evicted, and their parts move; a later return cancels what still runs there", function ()
    local c <close> = dcs(4)
    local g = c.gates[1]
    local id = begun(c, 30000)
    cut(c, g, 1, 2, 3)
    until_held(c, g)
    c:run(14000)
    assert.same({ true, 0 }, { holds(c, g), lost(c, g) })
    c:run(2000)
    assert.same({ false, 3, 3 }, { holds(c, g), lost(c, g), counts(c, g).vain })
    local told = c:incidents(g, "lead.attempt_lost")[1].message
    assert.truthy(told:find("; it did not come back while evictions were held", 1, true), told)
    heal(c, g, 1, 2, 3)
    local final = ended(c, id)
    assert.equal(7, #final.result.attempts, attempts(final))
    c:rest { ms = 15000 }
  end)

  it("F15: a datacenter that is held gets no part, whatever the policy prefers", function ()
    local c <close> = dcs(3)
    local g = c.gates[1]
    cut(c, g, 1, 2)
    until_held(c, g)
    c:on(g, [[ local real = state.lead.options.placement
      state.lead.options.placement = { accepts = real.accepts, split = real.split, choose = function (_, _, executors)
        for _, e in ipairs(executors) do
          if e.name == "a" then return "a" end
        end
      end } ]])
    local id = assert(c:submit(c:job { load = { work = "far 20", parts = 1 } }))
    c:watch(id)
    c:run(2500)
    assert.equal("pending at nil", c:states(id)[("g1 %s #1 load/c"):format(id)] or "pending at nil")
    assert.equal(0, c:counts(g, "lead.dispatch").raised)
    heal(c, g, 1, 2)
    assert.equal("load/c completed", attempts(ended(c, id)))
  end)

  it("F15: held for longer than leases and the limit of silence last: neither takes a part away meanwhile", function ()
    local c <close> = dcs(3, { set = { ["correlation.hold_ms"] = 90000, gate_silent_ms = 20000 } })
    local g = c.gates[1]
    local id = begun(c, 76000)
    cut(c, g, 1, 2)
    until_held(c, g)
    c:run(65000) -- Leases of gates last 60 s.
    heal(c, g, 1, 2)
    until_free(c, g)
    assert.equal("load/a completed, load/b completed, load/c completed", attempts(ended(c, id, nil, 200000)))
    assert.equal(0, lost(c, g))
  end)

  it("F15: a held job still has its time limit, and can be cancelled", function ()
    local c <close> = dcs(2)
    local g = c.gates[1]
    local limited = assert(c:submit(c:job({ load = { code = USERS, vus = 2, iterations = 200 } }, { timeout_ms = 12000 })))
    c:watch(limited)
    local unwanted = begun(c, 90000)
    cut(c, g, 1, 2)
    until_held(c, g)
    assert(c:on(c.client, "return state.client:cancel(...)", unwanted, "enough"))
    ended(c, limited, "timed_out", 60000)
    ended(c, unwanted, "cancelled", 60000)
    heal(c, g, 1, 2)
    c:rest { ms = 20000 }
  end)

  it("F18: one-way cuts are cuts: held from either side, and nothing is lost or doubled when they end", function ()
    local c <close> = dcs(3)
    local g = c.gates[1]
    local id = begun(c, 25000)
    c:cut(g, c.managers[1], true)
    c:cut(c.managers[2], g, true)
    until_held(c, g)
    c:run(6000)
    heal(c, g, 1)
    c:heal(c.managers[2], g)
    local final = ended(c, id)
    assert.equal("load/a completed, load/b completed, load/c completed", attempts(final))
    assert.equal(0, lost(c, g))
    c:check_counts(id, final)
    c:rest()
  end)

  it("F18: a continental partition: each gate holds what it cannot see, jobs of both go on, and none is lost or doubled", function ()
    local c <close> = dcs(4, { gates = 3 })
    local west, east = c.gates[1], c.gates[3]
    local function submit(g)
      local client = c:add { name = "c-" .. g.name, role = "client", config = { connect = { g } } }
      c:run(500)
      return assert(c:on(client, "return state.client:submit(...)", c:job { load = { code = USERS, vus = 4, duration_ms = 25000 } }, g.name))
    end
    local one, other = submit(west), submit(east)
    c:run(2000)
    for _, g in ipairs { west, c.gates[2] } do cut(c, g, 3, 4) end
    cut(c, east, 1, 2)
    for _, g in ipairs { west, east } do
      c:cut(g, c.gates[2])
      until_held(c, g)
    end
    c:run(5000)
    for _, g in ipairs { west, east } do assert.equal(0, lost(c, g)) end
    for _, g in ipairs { west, c.gates[2] } do heal(c, g, 3, 4) end
    heal(c, east, 1, 2)
    for _, g in ipairs { west, east } do c:heal(g, c.gates[2]) end
    for i, id in ipairs { one, other } do
      local g = i == 1 and west or east
      local result
      assert.truthy(c:until_true(function ()
        result = c:on(g, "local entry = state.lead:get(...) return entry and entry.state", id)
        return result == "completed"
      end, 60000, 500), tostring(result))
      until_free(c, g)
      assert.same({ 0, 1, 1 }, { lost(c, g), counts(c, g).detected, counts(c, g).returned })
    end
    c:rest { ms = 8000, except = { ["c-" .. west.name] = true, ["c-" .. east.name] = true } }
  end)
end)

-- Finding 2.4 -----------------------------------------------------------------------------------------------------------

local function names(ids) return table.concat(sorted.keys(ids), " ") end
local IDS = "at_ns datacenters event hook hook_index severity wall_ns"

--- Wire hooks of the spec's own beside the shipped ones; each run is noted.
local function wire(c, g, ...)
  c:on(g, [[ node.spec_heard = {}
    local function note(text) node.spec_heard[#node.spec_heard + 1] = text end
    local codes = { ... }
    local env = setmetatable({ node = node, state = state, note = note }, { __index = _G })
    for _, site in ipairs { "correlation.detected", "correlation.healed" } do
      local held = site == "correlation.detected"
      node.hooks:wire(site, function (event)
        note(("before %s %s"):format(site, table.concat(event.datacenters, "")))
        if state.registry.eviction.correlation:holds() ~= held then note("the flag is wrong") end
      end, "first")
      for i, code in ipairs(codes) do
        node.hooks:wire(site, assert(load("local event = ... " .. code, "=hook", "t", env)), "failing " .. i)
      end
      node.hooks:wire(site, function (event) note("after " .. site) end, "last")
    end ]], ...)
end
local function heard(c, g) return table.concat(c:on(g, "return node.spec_heard"), ", ") end

local ONCE = "before correlation.detected ab, after correlation.detected, before correlation.healed ab, after correlation.healed"

--- One event from its beginning to its end by return.
local function event(c, g)
  cut(c, g, 1, 2)
  until_held(c, g)
  c:run(1000)
  heal(c, g, 1, 2)
  until_free(c, g)
end

describe("finding 2.4:", function ()
  it("F15, 2.4: hooks that raise or try to wait are one incident each with all ids; others run, evictions are held and released", function ()
    local c <close> = dcs(3)
    local g = c.gates[1]
    local id = begun(c, 15000)
    wire(c, g, "error 'the pager is off'", "error({})", "error(nil)", "require('shoal.task').sleep(10)")
    event(c, g)
    assert.equal(ONCE, heard(c, g))
    for _, site in ipairs { "correlation.detected", "correlation.healed" } do
      local told = c:incidents(g, site)
      assert.equal(4, #told)
      for i, incident in ipairs(told) do
        assert.equal(IDS, names(incident.ids))
        local ids = incident.ids
        assert.same({ 1, "a b", "low", "failing " .. i, 2 + i }, { ids.event, ids.datacenters, ids.severity, ids.hook, ids.hook_index })
        assert.equal(ids.at_ns // 1000000, incident.at_ms)
        assert.is_true(ids.wall_ns > 1600000000000000000)
      end
    end
    assert.equal(0, lost(c, g))
    ended(c, id)
    c:rest()
  end)

  it("F15, 2.4, L3: twice in a row, with the level edited between them, and an error policy that raises: each is told and counted", function ()
    local c <close> = dcs(3)
    local g = c.gates[1]
    wire(c, g, "error 'no'")
    local path = "/shoal/scripts/policies/errors.lua"
    local text = assert(c.s:read(g, path))
    cut(c, g, 1, 2)
    until_held(c, g)
    local edited = text:gsub("  sites = {", '  sites = {\n    ["correlation.healed"] = { level = "warning" },', 1)
    assert.is_true(edited ~= text)
    assert(c.s:write(g, path, edited))
    heal(c, g, 1, 2)
    until_free(c, g)
    assert(c.s:write(g, path, (text:gsub("decide = function %b()", "%0 error 'no rule for this'", 1))))
    c:run(12000) -- Not flapping: their moves are out of the window by then.
    event(c, g)
    local function levels(site)
      local out = {}
      for i, incident in ipairs(c:incidents(g, site)) do out[i] = incident.level end
      return table.concat(out, " ")
    end
    assert.same({ "error error", "warning error" }, { levels "correlation.detected", levels "correlation.healed" })
    for _, site in ipairs { "correlation.detected", "correlation.healed" } do
      assert.same({ raised = 2, reported = 2, suppressed = 0, handled = 0, in_flight = 0 }, c:counts(g, site))
    end
    assert.is_true(c:counts(g, "policy.decide").raised >= 1)
    assert.same({ 2, 2, 0 }, { counts(c, g).detected, counts(c, g).returned, counts(c, g).vain })
    c:rest()
  end)

  it("F15, 2.4: a hook that calls back into correlation is safe; evictions go on as they should", function ()
    local c <close> = dcs(4)
    local g = c.gates[1]
    wire(c, g, [[
      local correlation = state.registry.eviction.correlation
      assert(correlation:holds() == (event.cause == nil))
      assert(correlation:down "a")
      assert(correlation:up "b")
      assert(correlation:know "another" and correlation:forget "another")
      note(event.cause or "held") ]])
    cut(c, g, 1, 2, 3)
    until_held(c, g)
    c:run(19000)
    assert.same({ false, 1, 1, 0 }, { holds(c, g), counts(c, g).detected, counts(c, g).expired, c:counts(g, "correlation.detected").raised })
    assert.truthy(heard(c, g):find("^before correlation.detected %l+, held, after correlation.detected, "
      .. "before correlation.healed abc, expired, after correlation.healed$"), heard(c, g))
    assert.is_true(counts(c, g).vain >= 1, "nobody was evicted")
    heal(c, g, 1, 2, 3)
    c:rest { ms = 15000 }
  end)

  it("F15: the shipped gate's hooks write both to the log; the REPL shows what is held, and `shoal incidents` has it", function ()
    local c <close> = dcs(3)
    local g = c.gates[1]
    cut(c, g, 1, 2)
    until_held(c, g)
    local shown = c:on(g, [[ return require("shoal.node.repl").eval(node, "datacenters()") ]]).output
    assert.truthy(shown:find('{ health = "unhealthy", held = true, level = "none", name = "a", reach = "unreachable" }', 1, true), shown)
    assert.truthy(shown:find('{ datacenters = { "a", "b" }, event = 1', 1, true), shown)
    heal(c, g, 1, 2)
    until_free(c, g)
    shown = c:on(g, [[ return require("shoal.node.repl").eval(node, "datacenters()") ]]).output
    assert.falsy(shown:find("held = true", 1, true), shown)
    local log = c.s:log()
    assert.truthy(log:find('"event":"gate.held"[^\n]*"datacenters":"a b"'))
    assert.truthy(log:find('"event":"gate.released"[^\n]*"cause":"returned"'))
    c:rest()
  end)
end)
