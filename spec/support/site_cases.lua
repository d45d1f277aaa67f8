--- site_cases: every site of the catalogue, through every entry of the door, with every kind of failure. It runs in the program
--- build/.../spec/sites, which has `memory` and `door` (spec/binding/sites.c), and prints one line for each entry that held, or raises
--- with the first case that did not. A case: one failure is one accounted incident at its site; what stands beside the failing function
--- runs; timers and loops go on.
local memory, door = memory, door -- luacheck: globals memory door
local errors = require "shoal.base.errors"
local fake_world = require "spec.support.fake_world"
local log = require "shoal.base.log"
local sites = require "shoal.base.sites"
local task = require "shoal.base.task"

local LARGE = 1 << 24

-- Failures -------------------------------------------------------------------------------------------------------------

local VALUE = { code = "X" }
local UNSPEAKABLE = setmetatable({}, { __tostring = function () error "in __tostring" end })

--- A Lua function that calls nothing: its error reaches the message handler with the hook still set, which raises in the handler.
local function fail_in_handler()
  debug.sethook(function ()
    debug.sethook()
    error "in the handler"
  end, "c")
  local _ = nil + 1
end

local function deep() return 1 + deep() end
local deep_in_c
function deep_in_c() return (("x"):gsub("x", deep_in_c)) end

--- `fn(close)` fails; `close` closes whatever called it. value: the error that the incident keeps.
local KINDS = {
  { name = "a string", fn = function () error("words", 0) end, value = "words" },
  { name = "a table", fn = function () error(VALUE) end, value = VALUE },
  { name = "nil", fn = function () error(nil) end },
  { name = "a userdata", fn = function () error(io.stdout) end, value = io.stdout },
  { name = "a value without words", fn = function () error(UNSPEAKABLE) end, value = UNSPEAKABLE },
  { name = "an error in the handler", fn = fail_in_handler, handler = true },
  { name = "a stack overflow", fn = deep, slow = true },
  { name = "an overflow of C's stack", fn = deep_in_c },
  { name = "out of memory", fn = function ()
    memory.fails_from(LARGE)
    return ("x"):rep(LARGE)
  end, memory = true },
  { name = "a yield", fn = function () coroutine.yield() end, waits = true },
  { name = "closing its caller", fn = function (close)
    close()
    error("closed it", 0)
  end, value = "closed it" },
}

-- Entries: fail(site, kind, beside) calls kind.fn at the site, and then beside() as its sibling ------------------------------

local entries, order = {}, {}
local function entry(name, needs, fail)
  entries[name] = { needs = needs, fail = fail }
  order[#order + 1] = name
end
local world
local function all() return true end
local function nobody() end

--- What a declared site's ids are made of.
local function ids_of(site)
  local ids = {}
  for _, id in ipairs(site.ids) do ids[id] = id end
  return ids
end

entry("errors.call", all, function (site, kind, beside)
  local ids = ids_of(site)
  if kind.waits then -- In a task it may wait.
    errors.call(site.at, ids, kind.fn, nobody)
    errors.call(site.at, ids, beside)
    return
  end
  local scope = task.scope "caller"
  scope:spawn("spec.caller", nil, function ()
    local ok, incident = errors.call(site.at, ids, kind.fn, function () scope:close() end)
    memory.heals()
    assert(ok == nil and incident.site == site.at, "no incident of the site")
    if kind.value ~= nil then assert(rawequal(incident.error, kind.value), "another error than the one that was raised") end
    assert(not incident.missing, "ids are missing")
    errors.call(site.at, ids, beside)
  end)
  world:run(1)
  scope:close()
end)

entry("errors.run", all, function (site, kind, beside)
  errors.run(site.at, ids_of(site), nil, kind.fn, nobody)
  memory.heals()
  errors.run(site.at, ids_of(site), nil, beside)
end)

entry("a task", all, function (site, kind, beside)
  local scope = task.scope "task"
  scope:spawn(site.at, ids_of(site), kind.fn, function () scope:close() end)
  local other = task.scope "other"
  other:spawn(site.at, ids_of(site), function ()
    memory.heals()
    beside()
  end)
  world:run(1)
  assert(scope:count() == 0 and other:count() == 0, "a task is left")
  scope:close()
  other:close()
end)

entry("a loop", all, function (site, kind, beside)
  local scope, other, n = task.scope "loop", task.scope "other", 0
  local options = { interval_ms = 10, backoff_ms = { first = 10, max = 20 } }
  local closed = false
  scope:loop(site.at, ids_of(site), options, function (cycle)
    n = cycle
    if cycle == 1 then
      kind.fn(function ()
        closed = true
        scope:close()
      end)
    end
    memory.heals()
  end)
  other:loop(site.at, ids_of(site), options, function ()
    memory.heals()
    beside()
  end)
  world:run(50)
  assert(closed or n >= 2, "the loop ended")
  scope:close()
  other:close()
end)

entry("errors.close", all, function (site, kind, beside)
  for _, fn in ipairs { kind.fn, beside } do
    local co = coroutine.create(function ()
      local _ <close> = setmetatable({}, { __close = function () fn(nobody) end })
      coroutine.yield()
    end)
    errors.resume("spec.suspended", nil, co)
    errors.close(site.at, ids_of(site), co)
    memory.heals()
  end
end)

entry("errors.report", all, function (site, kind, beside)
  errors.report(site.at, ids_of(site), kind.value)
  beside()
end)

entry("door_call", all, function (site, kind, beside)
  assert(not door.call(site.at, function () kind.fn(nobody) end), "it did not fail")
  memory.heals()
  assert(door.call(site.at, beside))
end)

entry("door_report", all, function (site, _, beside)
  door.report(site.at, "C found it")
  beside()
end)

entry("a hook", function (site) return site.hook and site.delivery == "notify" end, function (site, kind, beside)
  local hooks, handle = errors.hooks(), nil
  handle = hooks:wire(site.at, function (...)
    assert(select("#", ...) == #site.hook.args)
    kind.fn(function () hooks:unwire(handle) end)
  end)
  hooks:wire(site.at, function (...)
    memory.heals()
    return beside(...)
  end)
  hooks:fire(site.at, ids_of(site), table.unpack(site.hook.args))
end)

entry("a must-deliver hook", function (site) return site.hook and site.delivery == "must_deliver" end, function (site, kind, beside)
  local hooks, tries = errors.hooks(), 0
  hooks:wire(site.at, function (...)
    tries = tries + 1
    if tries == 1 then kind.fn(function () errors.withdraw(site.at, "key") end) end
    return ...
  end)
  hooks:wire(site.at, function (...)
    memory.heals()
    return beside(...)
  end)
  hooks:deliver(site.at, ids_of(site), "key", table.unpack(site.hook.args))
  world:run(600)
  assert(tries == (kind.name == "closing its caller" and 1 or 2), "it was called " .. tries .. " times")
end)

entry("errors.deliver", function (site) return site.delivery == "must_deliver" end, function (site, kind, beside)
  local tries = 0
  errors.deliver(site.at, ids_of(site), "key", function ()
    tries = tries + 1
    if tries == 1 then kind.fn(function () errors.withdraw(site.at, "key") end) end
  end)
  memory.heals()
  errors.deliver(site.at, ids_of(site), "another", beside)
  world:run(600)
  assert(tries == (kind.name == "closing its caller" and 1 or 2), "it was called " .. tries .. " times")
end)

entry("errors.policy", function (site) return site.at:find "^policy%." end, function (site, kind, beside)
  local name = site.at:match "^policy%.(.*)"
  local answer = errors.policy(name, function () kind.fn(nobody) end, { fallback = "the fallback", ids = ids_of(site) })
  memory.heals()
  assert(answer == "the fallback")
  assert(errors.policy(name, function () return 1 end, { fallback = 2 }) == 1)
  beside()
end)

entry("errors.handle", all, function (site, kind, beside)
  local ok, err = errors.handle(site.at, nil, kind.fn, nobody)
  memory.heals()
  assert(ok == false)
  if kind.value ~= nil then assert(rawequal(err, kind.value)) end
  errors.handle(site.at, nil, beside)
end)

-- The walk ---------------------------------------------------------------------------------------------------------------

local function total()
  local raised = 0
  for _, c in ipairs(errors.counts()) do raised = raised + c.raised end
  return raised
end

local timer, ticks, loops, where

local function begin()
  world = fake_world.new()
  world.stderr_lines = {}
  errors.reset()
  log.reset()
  assert(log.open(world, function () end))
  errors.start(world, "node")
  task.start(world)
  ticks, loops = 0, 0
  timer = world:timer(function () ticks = ticks + 1 end)
  task.root():loop("spec.beside", nil, { interval_ms = 10 }, function () loops = loops + 1 end)
end

local function finish()
  timer:close()
  task.reset()
  for _, line in ipairs(world.stderr_lines) do error("a line past the log: " .. line, 0) end
  assert(errors.finish())
  errors.reset()
  assert(world.open == 0, "a timer stayed open")
end

local function one(site, name, kind)
  local before, all_before, ran = errors.count(site.at), total(), 0
  where = ("%s, %s, %s"):format(site.at, name, kind.name)
  if kind.slow then -- Finalizers on a full stack move it twice, each.
    collectgarbage()
    collectgarbage "stop"
  end
  entries[name].fail(site, kind, function () ran = ran + 1 end)
  collectgarbage "restart"
  memory.heals()
  local c = errors.count(site.at)
  local handled = name == "errors.handle" and 1 or 0
  local problem = c.raised ~= before.raised + 1 and ("%d incidents at the site"):format(c.raised - before.raised)
    or total() ~= all_before + 1 and ("%d failures in all"):format(total() - all_before)
    or c.handled ~= before.handled + handled and "not told"
    or select(2, errors.balance())
    or ran == 0 and "what stands beside it did not run"
  if problem then error(("%s, %s, %s: %s"):format(site.at, name, kind.name, problem), 0) end
  local ticked, looped = ticks, loops
  timer:start(1)
  world:run(10)
  if ticks == ticked or loops == looped then error(("%s, %s, %s: the loop stands still"):format(site.at, name, kind.name), 0) end
end

local function member(site)
  local name = site.name:gsub("%*$", "of_the_catalogue")
  return setmetatable({ at = name }, { __index = site })
end

--- What one case says: the words of an entry that holds no function.
local VALUES = { ["errors.report"] = 5, door_report = 1 }

local function walk()
  local cases, of, slow = 0, {}, {}
  for _, declared in ipairs(sites) do
    begin()
    local site = member(declared)
    for _, name in ipairs(order) do
      if entries[name].needs(site) then
        for k, kind in ipairs(KINDS) do
          local left_out = VALUES[name] and k > VALUES[name] -- No function is called there.
            or name == "errors.handle" and kind.handler      -- It has none.
            or kind.slow and slow[name]                      -- It takes 100 ms: once at each entry.
          if not left_out then
            slow[name] = slow[name] or kind.slow
            one(site, name, kind)
            cases, of[name] = cases + 1, (of[name] or 0) + 1
          end
        end
      end
    end
    finish()
  end
  for _, name in ipairs(order) do print(("ok %s: %d cases"):format(name, of[name])) end
  print(("%d sites, %d cases"):format(#sites, cases))
end

-- Telling without memory -------------------------------------------------------------------------------------------------

--- The nth allocation after the error fails, and all or some after it. Whatever could still be told: it is counted, at the site or by C.
local function starved()
  local done, failures = 0, 0
  for _, few in ipairs { 1, 2, 5, 1 << 30 } do
    for n = 0, 400 do
      begin()
      local before = total()
      local ok = door.call("spec.outer", function ()
        errors.call("lead.dispatch", { job = "j", part = "p" }, function ()
          memory.fails_after(n, few)
          error({ "without memory" })
        end)
      end)
      local failed = memory.heals()
      local balanced, problem = errors.balance()
      if not balanced then error(("the %dth allocation of a telling fails, and %d more: %s"):format(n, few, problem), 0) end
      if total() == before then error(("the %dth allocation of a telling fails, and %d more: nobody counted it"):format(n, few), 0) end
      local c = errors.count "lead.dispatch"
      if not ok or c.raised ~= 1 or c.reported ~= 1 then
        error(("the %dth allocation of a telling fails, and %d more: it got out"):format(n, few), 0)
      end
      done, failures = done + 1, failures + (failed > 0 and 1 or 0)
      timer:close()
      task.reset()
      errors.finish()
      errors.reset()
      if failed == 0 then break end
    end
  end
  assert(failures > 50, failures .. " only")
  print(("ok telling without memory: %d points"):format(failures))
end

local ok, problem = errors.handle("spec.cases", nil, arg[1] == "starved" and starved or walk)
memory.heals()
if not ok then
  print(where, tostring(problem))
  os.exit(1)
end
