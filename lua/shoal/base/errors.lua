--- The door on Lua's side: the only pcall, xpcall, coroutine.resume and coroutine.close of the library.
---
--- Every call that may fail names a site of the catalogue (shoal.sites) and the ids its incidents must carry. One
--- failure is one incident; at every site and at all times
---
---     raised = reported + suppressed + handled + in_flight
---
--- reported: written to the log at its level, and kept for `errors.incidents()`; suppressed: held back by the policy's rate limit,
--- and announced as a number when the window passes; handled: the caller took the error as its value; in_flight: being
--- reported right now. Policies (scripts/policies/errors.lua) decide how loud, never whether.
---
---   local ok, incident = errors.call("client.callback.on_done", { job = id }, user_function, result)
---   if not sent then errors.report("worker.progress.send", ids, err, code) end

local incidents = require "shoal.base.errors.incident"
local catalogue = require "shoal.base.errors.catalogue"
local limit = require "shoal.base.errors.limit"
local telling = require "shoal.base.errors.telling"
local judge = require "shoal.base.errors.judge"
local agenda = require "shoal.base.errors.agenda"
local hooks = require "shoal.base.errors.hooks"
local deliver = require "shoal.base.errors.deliver"
local policies = require "shoal.base.errors.policy"
local sandbox = require "shoal.base.errors.sandbox"
local asking = require "shoal.base.errors.asking"
local totals = require "shoal.base.errors.totals"
local injecting = require "shoal.base.errors.injecting"
local log = require "shoal.base.log"

local held = telling.held
local pcall, xpcall, rawequal = pcall, xpcall, rawequal
local resume, close, status, create = coroutine.resume, coroutine.close, coroutine.status, coroutine.create

local errors = {}

-- The compiled door's calls note the site, for the watchdog. Without the compiled module (a spec of plain Lua) Lua's own do.
local found_door, door = pcall(require, "shoal.core.door")
local xpcall_at = found_door and door.xpcall or function (_, ...) return xpcall(...) end
local resume_at = found_door and door.resume or function (_, ...) return resume(...) end
local plain = { xpcall_at, resume_at, resume_at, function (_, fn, ...) return pcall(fn, ...) end }
local run_at, handle_at = plain[3], plain[4] -- Of hooks and of errors.handle: errors.inject exchanges all four.
if found_door then incidents.traceback = door.trace end
local last_line = found_door and door.line or function () end

local WORDLESS = "not enough memory"
local FLOOD, FLOOD_NS = 200, 100 * 1000000
local DEPTH_MAX = 3                  -- Failures while reporting failures; deeper ones go to the last resort only.

local state     -- All that this node's errors know; see reset().
local records   -- The sites by name, state.catalogue.records: the fast way in.
local fail      -- (record, ids, caught, code, extra) -> incident

-- ---- the catalogue ----

--- The message handler of one site's protected calls: it runs where the error was raised, with the stack still there.
local function handler_of(record)
  return function (err)
    if record.flood > FLOOD then return err end
    local where = type(err) == "string" and incidents.split(err) or incidents.position(nil, 2)
    local trace = limit.wants_trace(record, where) and incidents.trace(nil, 2) or nil
    return setmetatable({ error = err, where = where, traceback = trace }, incidents.caught)
  end
end

--- The record of a site that is about to be used; a wrong name is the programmer's mistake.
local function site_of(name)
  local record = state.catalogue:find(name)
  if not record then error("errors: " .. state.catalogue:unknown(name), 3) end
  return record
end

--- Declare a site. shoal's own stand in lua/shoal/base/sites.lua; scripts may add theirs.
---@param declared shoal.Site  hook may be given as { arity = n } or { args = { names } }
function errors.site(declared) state.catalogue:declare(declared, 2) end

--- Whether this name is a site, or belongs to a family.
function errors.is_site(name) return records[name] ~= nil or state.catalogue:find(name) ~= nil end

-- ---- code that must run to its end ----

local DONE = {} -- What a runner yields when its function returned; anything else is a function that tried to wait.

local function serve(fn, ...)
  return serve(coroutine.yield(DONE, fn(...)))
end

local runners, runners_count = {}, 0

local function cut() error("it ran " .. state.budget .. " instructions without waiting or ending", 2) end

local function budgeted(co) debug.sethook(co, cut, "", state.budget) end

local function ran(co, ok, mark, ...)
  if ok and rawequal(mark, DONE) then
    runners_count = runners_count + 1
    runners[runners_count] = co
    return true, ...
  end
  return false, co, ok, mark
end

--- Call fn in a coroutine of its own, kept for the next call, so that a yield inside is seen and stopped here.
--- -> true, results... | false, co, ok, error
local function run_apart(site, fn, ...)
  local co
  if runners_count > 0 then
    co = runners[runners_count]
    runners[runners_count] = nil
    runners_count = runners_count - 1
  else
    co = create(serve)
  end
  if state.budget then budgeted(co) end
  return ran(co, run_at(site, co, fn, ...))
end

local WAITED = "this runs to its end and cannot wait: spawn a task for that (scope:spawn)"

--- After run_apart: what went wrong, with the stack it left; its to-be-closed variables run.
local function autopsy(record, co, ok, err)
  local where, trace, hint
  if ok then -- It yielded.
    err, hint = "it tried to wait", WAITED
    where = incidents.position(co, 1)
  elseif type(err) == "string" then
    where = incidents.split(err)
    if err:find "attempt to yield" then hint = WAITED end
  end
  where = where or incidents.position(co, 0)
  if limit.wants_trace(record, where) then trace = incidents.trace(co) end
  local closed, second = close(co)
  if closed or rawequal(second, err) then second = nil end
  return setmetatable({ error = err, where = where, traceback = trace, hint = hint, second = second,
    closing = second ~= nil and { error = second, where = where } or nil }, incidents.caught)
end

local function quiet(done, ...)
  if done then return true, ... end
  local co, ok, err = ...
  if ok then err = WAITED end
  close(co) -- Its error, if any, is the one in hand: the last one of a chain.
  return false, err
end

--- For the log and for error values' own __tostring: protected, cannot wait, and reports nothing. -> true, values... | false, err
local function quietly(fn, ...)
  return quiet(run_apart("errors.describe", fn, ...))
end

-- ---- the policy ----

local function clocks()
  local world = state.world
  if world then return world:now_ns(), world:wall_ns() end
  return log.clocks()
end

local function policy_clock()
  local world = state.world
  return world and world:fresh_ns() or 0
end

--- Call fn as a policy: within its budget (errors/sandbox.lua), to its end. -> true, values... | false, error, over budget?
local function sandboxed(fn, ...)
  local co = create(fn)
  local hook, count, budget = sandbox.budget(policy_clock)
  debug.sethook(co, hook, "", count)
  local leave = sandbox.enter()
  local results = table.pack(resume_at("policy.decide", co, ...))
  leave()
  if results[1] and status(co) ~= "dead" then results = { false, "a policy cannot wait: it tried to yield", n = 2 } end
  close(co)
  if results[1] then return table.unpack(results, 1, results.n) end
  return false, results[2], budget.over ~= nil
end

--- Ask a policy's function. It gets copies of the arguments (tables made by errors.view as they are), runs within its
--- budget, and its answer is copied and checked. If anything of that fails, it is one incident at `policy.NAME`, and the
--- fallback answers. A function that broke its budget rests: for 10 s the fallback answers at once.
---
---   local again = errors.policy("retry", policies.retry.again, {
---     ids = { job = run.job, part = part.part },
---     check = function (answer) return type(answer) == "boolean", "no boolean: " .. tostring(answer) end,
---     fallback = function (part, workflow, how) return how ~= "failed" end,
---   }, part, workflow, how)
---
---@param name string  such as "placement" or "retry"
---@param fn function?  the operator's; something else is a failure like any other
---@param options { check?: (fun(...): any, string?), fallback: any, ids?: table, failed?: fun(err: any) }
---  fallback: the answer, or a function of the arguments that gives it; check: true, or what the policy "answered", in words;
---  failed: hears why the fallback answers
---@return any ... what the policy answered, or the fallback
function errors.policy(name, fn, options, ...)
  local record = site_of("policy." .. name)
  return asking.ask(state.asking, record, fn, options, ...)
end

--- A table that a policy can read and not change, without a copy of it: for what is large and the same at each call.
--- `pairs`, `ipairs`, `#` and indexing work on it; two views of one table are not equal.
function errors.view(value) return sandbox.view(value) end

--- Load a policy's text in the sandbox: what it returns, its functions bound to the sandbox's globals.
---@param text string
---@param path string
---@param more? table<string, any>  globals beside the sandbox's own
---@return any? value, string? err, string? code "CONFIG"
function errors.policy_script(text, path, more)
  local chunk, err = load(text, "@" .. path, "t", sandbox.environment(more))
  if not chunk then return nil, err, "CONFIG" end
  local ok, value = sandboxed(chunk)
  if not ok then return nil, type(value) == "string" and value or path .. ": it raised a " .. type(value), "CONFIG" end
  return value
end

--- The globals of a policy's text, for checks of it.
---@param more? table<string, any>
function errors.policy_globals(more) return sandbox.environment(more) end

--- The problems of an errors policy's text, without taking it.
---@param text string
---@param path string
---@return true? ok, string? err  every problem, one a line, each with file:line
function errors.check_policy(text, path)
  local policy, err = policies.parse(text, path, sandboxed, state.catalogue)
  if not policy then return nil, err end
  return true
end

--- Read the policy file, and look at it again at later incidents (at most every 200 ms), so that an edit shows.
--- A file that is wrong changes nothing.
---@param path string
---@return true? ok
---@return string? err  every problem, one a line, each with file:line
---@return string? code "CONFIG", or why it could not be read
function errors.load_policy(path) return state.judge:load(state.world, path) end

-- ---- telling ----

local DEEP, CLOSING = { message = "while telling another" }, { closing = true }

local function barely(record, caught, why, counted)
  local words = why == DEEP and why.message or "telling failed: " .. incidents.describe(why, quietly)
  return telling.bare(state.telling, record, caught, words, counted)
end

--- The memory that telling needs is not there, not even for the last resort: the count, one line of C's, and an incident that was made
--- before.
local function wordless(record, err)
  local incident = state.wordless
  incident.site, incident.level, incident.count = record.name, record.level, record.raised
  last_line(record.name, type(err) == "string" and err or "a failure, and no memory or stack left to tell of it")
  return incident
end

--- More failures at one site than FLOOD in a tenth of a second: from there on they are counted and announced as a number, without being
--- judged, so that a million a second hold up nothing. -> the incident; nil: it is no flood any more
local function in_flood(record, err)
  local world = state.world
  local now_ns = world and world:now_ns() or 0
  if now_ns - record.flood_ns >= FLOOD_NS or now_ns < record.flood_ns then
    record.flood_ns, record.flood = now_ns, 0
    return nil
  end
  if getmetatable(err) == incidents.meta then return nil end
  local ok, incident = pcall(held, state.telling, record, err)
  if not ok then return nil end
  record.raised, record.suppressed = record.raised + 1, record.suppressed + 1
  return incident
end

function fail(record, ids, caught, code, extra)
  record.flood = record.flood + 1
  if record.flood > FLOOD and not (extra and extra.escalated) then
    local incident = in_flood(record, caught.error)
    if incident then return incident end
  end
  record.raised = record.raised + 1
  local err = caught.error
  if getmetatable(err) == incidents.meta then -- Told already, and raised again on its way up.
    record.handled = record.handled + 1
    return err
  end
  record.in_flight = record.in_flight + 1
  local before = record.in_flight
  local ok, incident = false, DEEP
  if state.depth < DEPTH_MAX then
    state.depth = state.depth + 1
    ok, incident = pcall(telling.tell, state.telling, record, ids, caught, code, extra, state.depth == 1)
    state.depth = state.depth - 1
  end
  if not ok then
    ok, incident = pcall(barely, record, caught, incident, record.in_flight ~= before)
    if not ok then
      if record.in_flight == before then record.reported, record.in_flight = record.reported + 1, record.in_flight - 1 end
      incident = wordless(record, caught.error)
    end
  end
  if caught.second ~= nil then fail(record, ids, caught.closing, nil, CLOSING) end
  return incident
end

local function boxed(value) return { error = value } end -- Out of memory, or the handler itself failed.

--- As fail, for an error that is not caught yet: `make` makes what fail takes. Nothing of it raises when there is no memory.
local function fail_with(record, ids, extra, make, ...)
  local made, caught = pcall(make, ...)
  if made then return fail(record, ids, caught, nil, extra) end
  record.raised, record.reported = record.raised + 1, record.reported + 1
  local value, co, _, err = ...
  if co then close(co) end -- Its error, if any, is one more than there is memory for.
  return wordless(record, co and err or value)
end

-- ---- the calls ----

local function failed_call(record, ids, value)
  if record.flood > FLOOD then
    local incident = in_flood(record, value)
    if incident then return incident end
  end
  if getmetatable(value) == incidents.caught then return fail(record, ids, value) end
  return fail_with(record, ids, nil, boxed, value)
end

local function finish(record, ids, ok, ...)
  if ok then return true, ... end
  return nil, failed_call(record, ids, (...))
end

--- Call fn protected. One failure is one incident at `site`; the caller goes on. fn may wait, if the caller may.
---@param site string
---@param ids table | (fun(): table) | nil  read when it fails
---@param fn function
---@return true? ok
---@return any ... fn's results, or the incident
function errors.call(site, ids, fn, ...)
  local record = records[site] or site_of(site)
  return finish(record, ids, xpcall_at(site, fn, record.handler, ...))
end

local call_in_lua = errors.call

--- The same in one step of C's, where it is compiled.
local function quicken() errors.call = found_door and door.caller(records, site_of, failed_call) or call_in_lua end

local function finish_apart(record, ids, extra, done, ...)
  if done then return true, ... end
  return nil, fail_with(record, ids, extra, autopsy, record, ...)
end

--- As `errors.call`, for hooks: fn runs to its end; trying to wait is the failure, and says to spawn a task.
---@param extra? table  ids of the caller's
function errors.run(site, ids, extra, fn, ...)
  local record = records[site] or site_of(site)
  return finish_apart(record, ids, extra, run_apart(site, fn, ...))
end

local function finish_handled(record, ok, ...)
  if ok then return true, ... end
  record.raised, record.handled = record.raised + 1, record.handled + 1
  return false, ...
end

--- Call fn protected, and take its error as a value: counted raised and handled, no incident. The caller must act on it.
---@return boolean ok
---@return any ... fn's results, or the error
function errors.handle(site, _, fn, ...)
  local record = records[site] or site_of(site)
  return finish_handled(record, handle_at(site, fn, ...))
end

--- Report a failure that is a value: `nil, err`, an acknowledgement that cannot be read, a send that did not go.
--- It never raises. A name outside the catalogue is reported under that name, and so is the mistake.
---@param err any
---@param code? string
---@return table incident
function errors.report(site, ids, err, code)
  local record = state.catalogue:find(site)
  if not record then
    local name = type(site) == "string" and site or tostring(site)
    fail(records["errors.undeclared"], { name = name },
      { error = state.catalogue:unknown(site), where = incidents.position(nil, 2), value = true })
    record = state.catalogue:stray(name)
  end
  local incident = record.flood > FLOOD and in_flood(record, err)
  return incident or fail(record, ids, { error = err, where = incidents.position(nil, 2), value = true }, code)
end

local function after_resume(record, ids, co, ok, ...)
  if ok then
    if status(co) == "suspended" then return "suspended", ... end
    return "done", ...
  end
  return "failed", fail_with(record, ids, nil, autopsy, record, co, false, (...))
end

--- Resume a coroutine. A failure is an incident; its to-be-closed variables then run.
---@return "suspended"|"done"|"failed" outcome
---@return any ... what it yielded or returned, or the incident
function errors.resume(site, ids, co, ...)
  local record = records[site] or site_of(site)
  if state.budget then budgeted(co) end
  return after_resume(record, ids, co, resume_at(site, co, ...))
end

local function thrown(record, ids, co, told, ...)
  told() -- Nothing of it ran: it returned.
  return after_resume(record, ids, co, ...)
end

--- Resume a suspended coroutine with an error that is raised where it stands: what it runs there may catch it. If none of its own code
--- is left to run there, the error is reported and the coroutine goes on.
---@return "suspended"|"done"|"failed"|nil outcome  nil: C has a hook on it, and nothing was done
---@return any ... as errors.resume
function errors.throw(site, ids, co, message)
  local record = records[site] or site_of(site)
  local hook, mask, count = debug.gethook(co)
  if hook == "external hook" then return nil end
  local told = false
  debug.sethook(co, function ()
    told = true
    debug.sethook(hook, mask, count)
    if not incidents.is_door(debug.getinfo(2, "S").source) then error(message, 2) end
    errors.report(site, ids, message)
  end, "", 1)
  return thrown(record, ids, co, function () return told or errors.report(site, ids, message) end, resume_at(site, co))
end

--- End a suspended coroutine: its to-be-closed variables run, nothing else.
---@return true? ok
---@return table? incident
function errors.close(site, ids, co)
  local record = records[site] or site_of(site)
  local ok, err = close(co)
  if ok then return true end
  local where = type(err) == "string" and incidents.split(err) or nil
  local hint = type(err) == "string" and err:find "attempt to yield" and WAITED or nil
  return nil, fail(record, ids, { error = err, where = where or "?", hint = hint })
end

--- Interrupt code that runs through errors.run or errors.resume after this many instructions without waiting; nil: never.
--- It costs tight loops half their speed, so only simulated nodes and specs use it.
---@param instructions integer?
function errors.budget(instructions) state.budget = instructions end

--- For simulated nodes: let a share of the calls at sites fail (errors/injecting.lua). nil: no more.
---@param plan? table
--- Meanwhile errors.injected(kind, site, name) tells whether a message is not sent ("send") or cannot be read ("decode"): why, or nil.
---@return table<string, integer>? counts  the failures by site, as they come
function errors.inject(plan)
  xpcall_at, resume_at, run_at, handle_at = table.unpack(plain)
  errors.injected = nil
  if found_door then door.failing(nil) end
  if not plan then
    quicken()
    return nil
  end
  if not state.world or not state.world:simulated() then error("errors.inject: only a simulated node fails on purpose", 2) end
  local drawer = injecting.new(plan)
  local function_at = drawer.function_at
  errors.call, errors.injected = call_in_lua, drawer.message
  if found_door then door.failing(drawer.callback) end
  function xpcall_at(site, fn, ...) return plain[1](site, function_at("call", site, fn), ...) end
  function run_at(site, co, fn, ...) return plain[3](site, co, function_at("hook", site, fn), ...) end
  function handle_at(site, fn, ...) return plain[4](site, function_at("handle", site, fn), ...) end
  function resume_at(site, co, ...)
    drawer.coroutine_at(site, co)
    return plain[2](site, co, ...)
  end
  return drawer.counts
end

-- ---- must-deliver, hooks ----

--- Deliver until accepted: fn is called now, and again after 0.5, 1, 2, 4 and 8 s as long as it raises; then its last
--- incident is critical and says `escalated`. The same key again replaces what was outstanding under it.
---@param site string
---@param key string
---@param fn function  runs to its end, cannot wait
---@return boolean delivered  at the first try
function errors.deliver(site, ids, key, fn)
  local record = records[site] or site_of(site)
  return deliver.start(state.deliveries, record, ids, key, nil, fn)
end

--- For errors/hooks.lua: one hook's share of an event under `key`.
function errors.deliver_part(site, ids, key, part, fn, extra)
  return deliver.start(state.deliveries, records[site] or site_of(site), ids, key, part, fn, extra)
end

local function finish_hook(record, ids, handle, index, done, ...)
  if done then return true end
  fail_with(record, ids, { hook = handle.label, hook_index = index }, autopsy, record, ...)
  return false
end

--- For errors/hooks.lua: one hook, once.
function errors.run_hook(site, ids, handle, index, ...)
  local record = records[site] or site_of(site)
  return finish_hook(record, ids, handle, index, run_apart(record.name, handle.fn, ...))
end

--- The event under this key is no longer true: do not deliver it again.
---@return integer withdrawn
function errors.withdraw(site, key)
  local record = records[site] or site_of(site)
  return deliver.withdraw(state.deliveries, record.name, key)
end

--- A set of hooks: operators' functions hung on sites by name. See errors/hooks.lua.
---@param names? string[]  the sites one may wire; nil: all that have a hook
---@return shoal.Hooks
function errors.hooks(names) return hooks.new(errors, names) end

--- What the catalogue says of a site; nil when it has none of that name.
function errors.declared(name) return state.catalogue:find(name) end
--- All names, sorted.
function errors.names() return state.catalogue:names() end
--- The declared name nearest to this one, or nil.
function errors.nearest(name, among) return incidents.nearest(name, among or state.catalogue:names()) end

-- ---- asking ----

local function by_c() return state.door and state.door.incidents() - state.door_base or 0 end

--- One site's counts, also when all are 0.
function errors.count(site) return totals.of(records[site] or site_of(site)) end

--- The counts of every site with a failure, sorted by name. Errors that C reported by itself count at door.sink.
function errors.counts() return totals.all(state.catalogue, by_c()) end

--- The last n incidents that were reported, oldest first; at most 512. They are the reader's own copies.
---@param n? integer
function errors.incidents(n) return telling.recent(state.telling, n) end

--- Of the last 512 incidents those whose ids hold all of these, oldest first, as rows of plain values.
---@param ids table<string, any>  such as { job = "j1", part = "a/1" }
---@return { id: string, node: string, site: string, level: string, message: string, where: string, count: integer }[]
function errors.incidents_of(ids) return telling.about(state.telling, ids) end

--- Call fn for each incident that is reported. fn runs to its end. Returns a function that removes it.
---@param fn fun(incident: table)
function errors.listen(fn) return telling.listen(state.telling, fn) end

--- Whether raised = reported + suppressed + handled holds at every site, with nothing in flight.
---@return true? ok
---@return string? err  each site where it does not
function errors.balance() return totals.balance(errors.counts()) end

--- The line each node prints when it ends.
---@return string
function errors.summary() return totals.summary(errors.counts()) end

-- ---- beginning and end ----

local function on_due(entry)
  if entry.announce then telling.announce(entry.announce) else deliver.again(state.deliveries, entry) end
end

--- Give errors the node's world (clocks, timer, files) and name. Before this, clocks read 0 and nothing is retried.
---@param world table
---@param node string
function errors.start(world, node)
  local waiting = state.agenda:drain()
  state.agenda:close()
  state.world, state.telling.node, state.judge.look_ns = world, node, 0
  state.agenda = agenda.new(world, on_due)
  local now_ns = world:now_ns()
  for _, entry in ipairs(waiting) do state.agenda:add(entry, now_ns) end
end

--- The end: announce held-back incidents, report undelivered events as incidents, and give the balance.
---@return true? ok
---@return string? err
function errors.finish()
  for _, entry in ipairs(state.agenda:drain()) do
    if entry.announce then
      telling.announce(entry.announce)
    else
      deliver.give_up(state.deliveries, entry)
      fail(records["errors.undelivered"], { of = entry.record.name, key = entry.key },
        { error = "not delivered before the end, after " .. entry.attempt .. " attempts", where = "?" })
    end
  end
  for _, entry in ipairs(state.agenda:drain()) do
    if entry.announce then telling.announce(entry.announce) end
  end
  state.agenda:close()
  return errors.balance()
end

local function traced_place(trace)
  if type(trace) ~= "string" then return nil end
  return trace:match "\n%s*([^\n]-:%d+): in "
end

--- What C calls with an error that reached it: fn(site, error, traceback).
local function from_c(site, err, trace)
  local record = state.catalogue:find(site)
  if not record then
    errors.report(site, nil, err)
    return
  end
  local where = type(err) == "string" and incidents.split(err) or traced_place(trace) or "?"
  local hint = type(err) == "string" and err:find "attempt to yield" and WAITED or nil
  trace = limit.wants_trace(record, where) and trace and incidents.one_name(trace) or nil
  fail(record, nil, { error = err, where = where, traceback = trace, hint = hint })
end

--- In stock lua5.4: from now on an error in a callback of luv is an incident at site luv.callback, and the loop goes on; luv's
--- own policy is to print and exit. The shoal program does this by itself.
function errors.adopt_luv() require("shoal.core.luv").adopt() end

--- Connect C's sink.
local function connect()
  if found_door then
    state.door, state.door_base = door, door.incidents()
    door.sink(from_c)
  elseif not tostring(door):find("module 'shoal.core.door' not found", 1, true) then
    fail(records["door.sink"], nil, { error = door })
  end
end

--- Forget everything and begin anew, for specs: as if just loaded.
function errors.reset()
  if state then state.agenda:close() end
  state = { depth = 0, catalogue = catalogue.new(handler_of), agenda = agenda.new(nil, on_due) }
  state.wordless = setmetatable({ id = "?", site = "?", level = "error", ids = {}, error = WORDLESS, message = WORDLESS, where = "?",
    node = "?", at_ns = 0, wall_ns = 0, count = 0 }, incidents.meta)
  records = state.catalogue.records
  quicken()
  local function fail_at(name, ids, caught) return fail(records[name], ids, caught) end
  local function later(entry, due_ns) state.agenda:add(entry, due_ns) end
  state.judge = judge.new { catalogue = state.catalogue, quietly = quietly, sandboxed = sandboxed, fail = fail_at }
  state.asking = asking.new { sandboxed = sandboxed, protected = pcall, fail = fail, clocks = clocks }
  state.telling = telling.new {
    run_apart = run_apart, quietly = quietly, fail = fail_at, clocks = clocks, later = later, judge = state.judge,
    autopsy = function (name, ...) return autopsy(records[name], ...) end,
    world = function () return state.world end,
  }
  state.deliveries = deliver.new {
    clock = clocks, later = later, run = errors.run,
    cancel = function (entry) state.agenda:remove(entry) end,
  }
  for _, declared in ipairs(require "shoal.base.sites") do errors.site(declared) end
  connect()
end

log.guarded_by(quietly)
log.event("incident", incidents.fields)
log.event("incident.held_back", { "site", "where", "held_back", "count" })
errors.reset()

return errors
