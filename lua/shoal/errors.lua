--- The door on Lua's side: the only pcall, xpcall, coroutine.resume and coroutine.close of the library.
---
--- Every call that may fail names a site of the catalogue (shoal.sites) and the ids its incidents must carry. One
--- failure is one incident; at every site and at all times
---
---     raised = reported + suppressed + handled + in_flight
---
--- reported: told, to the log at its level and to `errors.incidents()`; suppressed: held back by the policy's rate limit,
--- and announced as a number when the window passes; handled: the caller took the error as its value; in_flight: being
--- told right now. Policies (scripts/policies/errors.lua) decide how loud, never whether.
---
---   local ok, incident = errors.call("client.callback.on_done", { job = id }, user_function, result)
---   if not sent then errors.report("worker.progress.send", ids, err, code) end

local incidents = require "shoal.errors.incident"
local policies = require "shoal.errors.policy"
local agenda = require "shoal.errors.agenda"
local hooks = require "shoal.errors.hooks"
local deliver = require "shoal.errors.deliver"
local sorted = require "shoal.sorted"
local log = require "shoal.log"

local pcall, xpcall, rawequal = pcall, xpcall, rawequal
local resume, close, status, create = coroutine.resume, coroutine.close, coroutine.status, coroutine.create

local errors = {}

local RING = 512           -- Incidents kept for `errors.incidents()`.
local PRINTS_MAX = 64      -- Fingerprints of one site; later ones share one.
local MEMBERS_MAX = 256    -- Sites of one family, and undeclared names; later ones share the family's.
local DEPTH_MAX = 3        -- Failures while reporting failures; deeper is told by the last resort only.
local POLICY_CHECK_NS = 200 * 1000000
local POLICY_INSTRUCTIONS = 1000000
local NS_PER_MS = 1000000

local ROLES = { gate = true, manager = true, worker = true, client = true, any = true }
local DELIVERIES = { notify = true, must_deliver = true }

local state         -- All that this node's errors know; see reset().
local records       -- state.records, by name: the fast way in.
local fail          -- (record, ids, caught, code, extra) -> incident

-- ---- the catalogue ----

local function catching(record)
  return function (err)
    local where = err
    if type(err) == "string" then where = incidents.split(err) else where = nil end
    where = where or incidents.position(nil, 2)
    local trace
    if (record.traced[where] or 0) < record.traces then trace = debug.traceback(nil, 2) end
    return setmetatable({ error = err, where = where, traceback = trace }, incidents.caught)
  end
end

local function new_record(declared, name)
  local record = {
    name = name, role = declared.role, level = declared.level, ids = declared.ids, delivery = declared.delivery,
    hook = declared.hook, doc = declared.doc, family = name ~= declared.name and declared.name or nil,
    ids_meta = { __fields = declared.ids }, raised = 0, reported = 0, suppressed = 0, handled = 0, in_flight = 0,
    missing = 0, prints = {}, prints_count = 0, traced = {}, traces = 3,
  }
  record.handler = catching(record)
  return record
end

local function add_record(declared, name)
  local record = new_record(declared, name)
  records[name] = record
  state.names = nil
  return record
end

local function names()
  if not state.names then state.names = sorted.keys(records) end
  return state.names
end

--- The record of a member of a family, made on first use; nil when no family fits.
local function member(name)
  local prefix = name
  while true do
    prefix = prefix:match "^(.+)%.[^.]*$"
    if not prefix then return nil end
    local family = records[prefix .. ".*"]
    if family then
      if name == family.name then return family end
      family.members = (family.members or 0) + 1
      if family.members > MEMBERS_MAX then return family end
      return add_record({ name = family.name, role = family.role, level = family.level, ids = family.ids,
        delivery = family.delivery, hook = family.hook, doc = family.doc }, name)
    end
  end
end

local function unknown(name)
  local near = type(name) == "string" and incidents.nearest(name, names())
  return "errors: no site is named " .. tostring(name) .. (near and ", did you mean " .. near .. "?" or "")
    .. " (sites are declared in lua/shoal/sites.lua)"
end

--- The record of a site that is about to be used; a wrong name is the programmer's mistake.
local function site_of(name)
  local record = records[name] or type(name) == "string" and member(name)
  if not record then error(unknown(name), 3) end
  return record
end

--- Declare a site. shoal's own stand in lua/shoal/sites.lua; scripts may add theirs.
---@param declared shoal.Site  hook may be given as { arity = n } or { args = { names } }
function errors.site(declared)
  local function want(what, ok)
    if not ok then error("errors.site: " .. tostring(declared.name) .. ": " .. what, 3) end
  end
  want("name must be words joined by dots", type(declared.name) == "string" and declared.name:find "^[%w_]+%.[%w_.*]+$")
  want("it is declared already", not records[declared.name])
  want("role must be gate, manager, worker, client or any", ROLES[declared.role or "any"])
  want("level must be debug, info, warning, error or critical", log.levels[declared.level or "error"])
  want("delivery must be notify or must_deliver", DELIVERIES[declared.delivery or "notify"])
  want("ids must be a list of names", type(declared.ids or {}) == "table")
  local hook = declared.hook
  if hook then
    want("hook must have args (names) or arity", type(hook.args) == "table" or math.type(hook.arity) == "integer")
  end
  add_record({ name = declared.name, role = declared.role or "any", level = declared.level or "error",
    ids = declared.ids or {}, delivery = declared.delivery or "notify", hook = hook, doc = declared.doc or "" },
    declared.name)
end

--- Whether this name is a site, or belongs to a family.
function errors.is_site(name)
  if type(name) ~= "string" then return false end
  if records[name] then return true end
  local prefix = name
  while true do
    prefix = prefix:match "^(.+)%.[^.]*$"
    if not prefix then return false end
    if records[prefix .. ".*"] then return true end
  end
end

-- ---- code that must run to its end ----

local DONE = {} -- What a runner yields when its function returned; anything else is a function that tried to wait.

local function serve(fn, ...)
  return serve(coroutine.yield(DONE, fn(...)))
end

local runners, runners_count = {}, 0

local function budgeted(co)
  debug.sethook(co, function ()
    error("it ran " .. state.budget .. " instructions without waiting or ending", 2)
  end, "", state.budget)
end

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
local function run_apart(fn, ...)
  local co
  if runners_count > 0 then
    co = runners[runners_count]
    runners[runners_count] = nil
    runners_count = runners_count - 1
  else
    co = create(serve)
  end
  if state.budget then budgeted(co) end
  return ran(co, resume(co, fn, ...))
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
  if (record.traced[where] or 0) < record.traces then trace = debug.traceback(co) end
  local closed, second = close(co)
  if closed or rawequal(second, err) then second = nil end
  return setmetatable({ error = err, where = where, traceback = trace, hint = hint, second = second },
    incidents.caught)
end

local function quiet(done, ...)
  if done then return true, ... end
  local co, ok, err = ...
  if ok then err = WAITED end
  close(co) -- Its error, if any, is the one in hand: the last one of a chain.
  return false, err
end

--- For the log and for error values' own __tostring: protected, cannot wait, and nobody is told. -> true, values... | false, err
local function quietly(fn, ...)
  return quiet(run_apart(fn, ...))
end

local function tostringed(value)
  local ok, words = quietly(tostring, value)
  return ok and words or nil
end

-- ---- the policy ----

local function sandboxed(fn, ...)
  local co = create(fn)
  debug.sethook(co, function () error("it ran more than " .. POLICY_INSTRUCTIONS .. " instructions", 2) end, "",
    POLICY_INSTRUCTIONS)
  local ok, value = resume(co, ...)
  if ok and status(co) ~= "dead" then ok, value = false, "a policy cannot wait: it tried to yield" end
  close(co)
  return ok, value
end

local function read_whole(path)
  local world = state.world
  local err, code
  if world then
    local bytes
    bytes, err, code = world:read_file(path)
    if bytes then return bytes end
    if world:simulated() then return nil, err, code end
  end
  local file, why = io.open(path, "rb") -- A stock lua5.4 without a world, or a path that the world does not hold.
  if not file then return nil, err or why, code or "ENOENT" end
  local bytes = file:read "a"
  file:close()
  return bytes
end

local function clocks()
  local world = state.world
  if world then return world:now_ns(), world:wall_ns() end
  return log.clocks()
end

local function take_policy(text, path)
  state.policy_text = text
  local parsed, err = policies.parse(text, path, sandboxed, errors.is_site, names)
  if not parsed then return nil, err, "CONFIG" end
  state.policy = parsed
  for _, name in ipairs(names()) do records[name].merged = nil end
  return true
end

--- Read the policy file, and look at it again at later incidents (at most every 200 ms), so that an edit shows.
--- A file that is wrong changes nothing.
---@param path string
---@return true? ok
---@return string? err  every problem, one a line, each with file:line
---@return string? code "CONFIG", or why it could not be read
function errors.load_policy(path)
  local ok, text, err, code = quietly(read_whole, path)
  if not ok then return nil, path .. ": " .. tostring(text), "FAILED" end
  if not text then return nil, path .. ": " .. tostring(err), code end
  local taken
  taken, err, code = take_policy(text, path)
  if not taken then return nil, err, code end
  state.policy_path = path
  return true
end

--- The policy's file may have been edited since.
local function look_again(now_ns)
  local path = state.policy_path
  if not path or (state.world and now_ns < state.policy_check_ns) then return end
  state.policy_check_ns = now_ns + POLICY_CHECK_NS
  local ok, text = quietly(read_whole, path)
  if not ok or not text or text == state.policy_text then return end -- Half-way through an editor's rename: next time.
  local taken, err = take_policy(text, path)
  if taken then
    log.info("policy.loaded", { file = path })
  else
    fail(records["policy.load"], { file = path }, { error = err, where = err:match "^[^\n]-:%d+" or path })
  end
end

local function merged_for(record)
  local merged = record.merged
  if not merged then
    merged = policies.of(state.policy, record.name, record.family)
    record.merged, record.traces = merged, merged.traces
  end
  return merged
end

--- The level, burst and window for this incident; a policy that fails is replaced by the built-in one.
local function judge(record, incident)
  local merged = merged_for(record)
  local policy = state.policy
  if policy.decide and state.depth == 1 then
    local ok, value = sandboxed(policy.decide, incident, setmetatable({}, { __index = merged }))
    local level, burst, per_ms
    if ok then
      level, burst, per_ms = policies.verdict(value, merged)
      if level then return level ~= "" and level or record.level, burst, per_ms end
      value = burst
    end
    state.policy = policies.builtin
    for _, name in ipairs(names()) do records[name].merged = nil end
    fail(records["policy.decide"], { file = policy.path, incident = incident.id }, { error = value })
    merged = merged_for(record)
  end
  return merged.level or record.level, merged.burst, merged.per_ms
end

-- ---- the rate limit: `burst` at once, then one per `per_ms`, for each fingerprint ----

local function print_of(record, where, level)
  local key = where .. " " .. level
  local found = record.prints[key]
  if found then return found end
  if record.prints_count >= PRINTS_MAX then
    key, where = "(others) " .. level, "(others)"
    found = record.prints[key]
    if found then return found end
  end
  record.prints_count = record.prints_count + 1
  found = { site = record.name, where = where, level = level, count = 0, held = 0, tokens = false }
  record.prints[key] = found
  return found
end

--- Whether one more may be told now.
local function admit(print, burst, per_ms, now_ns)
  local per_ns = math.ceil(per_ms * NS_PER_MS)
  if not print.tokens then
    print.tokens, print.filled_ns = burst, now_ns
  else
    local earned = (now_ns - print.filled_ns) // per_ns
    if earned > 0 then
      print.tokens = math.min(burst, print.tokens + earned)
      print.filled_ns = print.filled_ns + earned * per_ns
    end
    if print.tokens > burst then print.tokens = burst end
  end
  if print.tokens == burst then print.filled_ns = now_ns end
  if print.tokens > 0 then
    print.tokens = print.tokens - 1
    return true
  end
  return false, print.filled_ns + per_ns
end

local function announce(print)
  if print.held == 0 then return end
  local held = print.held
  print.held = 0
  log.write(print.level, "incident.held_back",
    { site = print.site, where = print.where, held_back = held, count = print.count })
end

-- ---- telling ----

local function traced(record, where)
  local n = record.traced[where]
  if not n then
    record.traced_count = (record.traced_count or 0) + 1
    if record.traced_count > PRINTS_MAX then
      record.traced, record.traced_count = {}, 1
    end
    n = 0
  end
  record.traced[where] = n + 1
end

local function ids_of(record, ids, extra)
  if type(ids) == "function" then
    local done, value, ok, err = run_apart(ids)
    if done and (value == nil or type(value) == "table") then
      ids = value
    else
      ids = nil
      local caught = done and { error = "ids must be a table, not " .. type(value) }
        or autopsy(records["errors.ids"], value, ok, err)
      fail(records["errors.ids"], { of = record.name }, caught)
    end
  end
  if type(ids) ~= "table" then ids = nil end
  return incidents.ids(record, ids, extra)
end

local function listen(incident)
  for _, fn in ipairs(state.listeners) do
    local done, co, ok, err = run_apart(fn, incident)
    if not done then
      fail(records["errors.listener"], { incident = incident.id }, autopsy(records["errors.listener"], co, ok, err))
    end
  end
end

local function tell(record, ids, caught, code, extra)
  local now_ns, wall_ns = clocks()
  if state.depth == 1 then look_again(now_ns) end
  local message, where = incidents.describe(caught.error, tostringed)
  where = caught.where or where or "?"
  state.seq = state.seq + 1
  local incident = setmetatable({
    id = state.node .. "-" .. state.seq, site = record.name, error = caught.error, message = message, code = code,
    where = where, traceback = caught.traceback, hint = caught.hint, node = state.node, at_ns = now_ns,
    wall_ns = wall_ns, raised = not caught.value, escalated = extra and extra.escalated,
  }, incidents.meta)
  if extra and extra.escalated then extra.escalated = nil end
  incident.ids, incident.missing = ids_of(record, ids, extra)
  if incident.missing then record.missing = record.missing + 1 end
  if caught.traceback then traced(record, where) end

  incident.count = record.raised
  local level, burst, per_ms = judge(record, incident)
  if incident.escalated then level = "critical" end
  incident.level = level
  local print = print_of(record, where, level)
  print.count = print.count + 1
  incident.count = print.count
  local admitted, window_ns = admit(print, burst, per_ms, now_ns)
  if not admitted then
    record.suppressed, record.in_flight = record.suppressed + 1, record.in_flight - 1
    print.held = print.held + 1
    if print.held == 1 then state.agenda:add({ announce = print }, window_ns) end
    return incident
  end
  state.ring_count = state.ring_count + 1
  state.ring[(state.ring_count - 1) % RING + 1] = incident
  log.write(level, "incident", incidents.logged(incident), now_ns, wall_ns)
  record.reported, record.in_flight = record.reported + 1, record.in_flight - 1
  if state.depth == 1 then listen(incident) end
  return incident
end

--- When telling itself failed, or fails while failing: one line past everything, and the count.
local function bare(record, caught, why)
  record.reported, record.in_flight = record.reported + 1, record.in_flight - 1
  local message = type(caught.error) == "string" and caught.error or type(caught.error)
  log.last_resort("shoal: incident at " .. record.name .. ": " .. message .. (why and " (" .. why .. ")" or ""))
  return setmetatable({ id = state.node .. "-?", site = record.name, level = record.level, ids = {},
    error = caught.error, message = message, where = caught.where or "?", node = state.node, at_ns = 0, wall_ns = 0,
    count = record.raised }, incidents.meta)
end

function fail(record, ids, caught, code, extra)
  record.raised = record.raised + 1
  local err = caught.error
  if getmetatable(err) == incidents.meta then -- Told already, and raised again on its way up.
    record.handled = record.handled + 1
    return err
  end
  record.in_flight = record.in_flight + 1
  if state.depth >= DEPTH_MAX then return bare(record, caught, "while reporting another") end
  state.depth = state.depth + 1
  local before = record.in_flight
  local ok, incident = pcall(tell, record, ids, caught, code, extra)
  state.depth = state.depth - 1
  if not ok then
    if record.in_flight == before then
      incident = bare(record, caught, "reporting failed: " .. tostring(incident))
    else -- It was counted; what failed came after.
      log.last_resort("shoal: after the incident at " .. record.name .. ": " .. tostring(incident))
      incident = bare(record, { error = err }, nil)
    end
  end
  if caught.second ~= nil then
    fail(record, ids, { error = caught.second, where = caught.where }, nil, { closing = true })
  end
  return incident
end

local function caught_by(value)
  if getmetatable(value) == incidents.caught then return value end
  return { error = value } -- Out of memory, or the handler itself failed.
end

-- ---- the calls ----

local function finish(record, ids, ok, ...)
  if ok then return true, ... end
  return nil, fail(record, ids, caught_by((...)))
end

--- Call fn protected. One failure is one incident at `site`; the caller goes on. fn may wait, if the caller may.
---@param site string
---@param ids table | (fun(): table) | nil  read when it fails
---@param fn function
---@return true? ok
---@return any ... fn's results, or the incident
function errors.call(site, ids, fn, ...)
  local record = records[site] or site_of(site)
  return finish(record, ids, xpcall(fn, record.handler, ...))
end

local function finish_apart(record, ids, extra, done, ...)
  if done then return true, ... end
  local co, ok, err = ...
  return nil, fail(record, ids, autopsy(record, co, ok, err), nil, extra)
end

--- As `errors.call`, for hooks: fn runs to its end; trying to wait is the failure, and says to spawn a task.
---@param extra? table  ids of the caller's
function errors.run(site, ids, extra, fn, ...)
  local record = records[site] or site_of(site)
  return finish_apart(record, ids, extra, run_apart(fn, ...))
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
  return finish_handled(record, pcall(fn, ...))
end

--- Report a failure that is a value: `nil, err`, an acknowledgement that cannot be read, a send that did not go.
--- It never raises. A name outside the catalogue is reported under that name, and so is the mistake.
---@param err any
---@param code? string
---@return table incident
function errors.report(site, ids, err, code)
  local record = records[site] or type(site) == "string" and member(site)
  if not record then
    local name = type(site) == "string" and site or tostring(site)
    fail(records["errors.undeclared"], { name = name }, { error = unknown(site), where = incidents.position(nil, 2) })
    record = records["errors.undeclared"]
    if state.undeclared < MEMBERS_MAX then
      state.undeclared = state.undeclared + 1
      record = add_record({ name = name, role = "any", level = "error", ids = {}, delivery = "notify", doc = "undeclared" },
        name)
    end
  end
  return fail(record, ids, { error = err, where = incidents.position(nil, 2), value = true }, code)
end

local function after_resume(record, ids, co, ok, ...)
  if ok then
    if status(co) == "suspended" then return "suspended", ... end
    return "done", ...
  end
  return "failed", fail(record, ids, autopsy(record, co, false, (...)))
end

--- Resume a coroutine. A failure is an incident; its to-be-closed variables then run.
---@return "suspended"|"done"|"failed" outcome
---@return any ... what it yielded or returned, or the incident
function errors.resume(site, ids, co, ...)
  local record = records[site] or site_of(site)
  if state.budget then budgeted(co) end
  return after_resume(record, ids, co, resume(co, ...))
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

--- Cut whatever runs through errors.run or errors.resume after this many instructions without waiting; nil: do not.
--- It costs tight loops half their speed, so only simulated nodes and specs use it.
---@param instructions integer?
function errors.budget(instructions) state.budget = instructions end

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
  local co, ok, err = ...
  fail(record, ids, autopsy(record, co, ok, err), nil, { hook = handle.label, hook_index = index })
  return false
end

--- For errors/hooks.lua: one hook, once.
function errors.run_hook(site, ids, handle, index, ...)
  local record = records[site] or site_of(site)
  return finish_hook(record, ids, handle, index, run_apart(handle.fn, ...))
end

--- What was outstanding under this key is no longer true: do not deliver it again.
---@return integer withdrawn
function errors.withdraw(site, key)
  local record = records[site] or site_of(site)
  return deliver.withdraw(state.deliveries, record.name, key)
end

--- A set of hooks: operators' functions hung on sites by name. See errors/hooks.lua.
---@param catalogue? string[]  the sites one may wire; nil: all that have a hook
---@return shoal.Hooks
function errors.hooks(catalogue) return hooks.new(errors, catalogue) end

--- What the catalogue says of a site; nil when it has none of that name.
function errors.declared(name) return type(name) == "string" and (records[name] or member(name)) or nil end
--- All names, sorted.
function errors.names() return names() end
--- The declared name nearest to this one, or nil.
function errors.nearest(name, among) return incidents.nearest(name, among or names()) end

-- ---- asking ----

local function count_of(record)
  return { site = record.name, raised = record.raised, reported = record.reported, suppressed = record.suppressed,
    handled = record.handled, in_flight = record.in_flight, missing_ids = record.missing }
end

--- One site's counts, also when all are 0.
function errors.count(site) return count_of(records[site] or site_of(site)) end

--- The counts of every site where something was raised, sorted by name. What C had to tell by itself is at door.sink.
function errors.counts()
  local out = {}
  local by_c = state.door and state.door.incidents() - state.door_base or 0
  for _, name in ipairs(names()) do
    local record = records[name]
    local added = name == "door.sink" and by_c or 0
    if record.raised + added > 0 then
      local count = count_of(record)
      count.raised, count.reported = count.raised + added, count.reported + added
      out[#out + 1] = count
    end
  end
  return out
end

--- The last n incidents that were told, oldest first; at most 512.
---@param n? integer
function errors.incidents(n)
  local have = math.min(state.ring_count, RING)
  n = math.min(n or have, have)
  local out = {}
  for i = 1, n do out[i] = state.ring[(state.ring_count - n + i - 1) % RING + 1] end
  return out
end

--- Hear of each incident that is told. fn runs to its end. Returns what takes it away again.
---@param fn fun(incident: table)
function errors.listen(fn)
  local listeners = { table.unpack(state.listeners) }
  listeners[#listeners + 1] = fn
  state.listeners = listeners
  return function ()
    local kept = {}
    for _, other in ipairs(state.listeners) do
      if other ~= fn then kept[#kept + 1] = other end
    end
    state.listeners = kept
  end
end

--- Whether raised = reported + suppressed + handled holds at every site, with nothing in flight.
---@return true? ok
---@return string? err  each site where it does not
function errors.balance()
  local wrong = {}
  for _, c in ipairs(errors.counts()) do
    if c.raised ~= c.reported + c.suppressed + c.handled or c.in_flight ~= 0 then
      wrong[#wrong + 1] = string.format("%s: raised %d, reported %d, suppressed %d, handled %d, in flight %d", c.site,
        c.raised, c.reported, c.suppressed, c.handled, c.in_flight)
    end
  end
  if #wrong == 0 then return true end
  return nil, table.concat(wrong, "\n")
end

--- The line each node prints when it ends.
---@return string
function errors.summary()
  local raised, reported, suppressed, handled, sites = 0, 0, 0, 0, 0
  for _, c in ipairs(errors.counts()) do
    raised, reported, suppressed, handled = raised + c.raised, reported + c.reported, suppressed + c.suppressed,
      handled + c.handled
    sites = sites + 1
  end
  return string.format("errors: raised = reported + suppressed + handled: %d %s %d + %d + %d at %d sites", raised,
    raised == reported + suppressed + handled and "=" or "IS NOT", reported, suppressed, handled, sites)
end

-- ---- beginning and end ----

local function on_due(entry)
  if entry.announce then announce(entry.announce) else deliver.again(state.deliveries, entry) end
end

--- Give errors the node's world (clocks, timer, files) and name. Before this, clocks read 0 and nothing is retried.
---@param world table
---@param node string
function errors.start(world, node)
  local waiting = state.agenda:drain()
  state.agenda:close()
  state.world, state.node, state.policy_check_ns = world, node, 0
  state.agenda = agenda.new(world, on_due)
  local now_ns = world:now_ns()
  for _, entry in ipairs(waiting) do state.agenda:add(entry, now_ns) end
end

--- The end: announce what was held back; what is still undelivered is an incident. Then the balance.
---@return true? ok
---@return string? err
function errors.finish()
  for _, entry in ipairs(state.agenda:drain()) do
    if entry.announce then
      announce(entry.announce)
    else
      deliver.give_up(state.deliveries, entry)
      fail(records["errors.undelivered"], { of = entry.record.name, key = entry.key },
        { error = "not delivered before the end, after " .. entry.attempt .. " attempts", where = "?" })
    end
  end
  for _, entry in ipairs(state.agenda:drain()) do
    if entry.announce then announce(entry.announce) end
  end
  state.agenda:close()
  return errors.balance()
end

local function traced_place(trace)
  if type(trace) ~= "string" then return nil end
  for where in trace:gmatch "\n%s*([^\n]-:%d+): in " do return where end
end

--- What C calls with an error that reached it: fn(site, error, traceback).
local function from_c(site, err, trace)
  local record = records[site] or type(site) == "string" and member(site)
  if not record then
    errors.report(site, nil, err)
    return
  end
  local where = type(err) == "string" and incidents.split(err) or traced_place(trace) or "?"
  local hint = type(err) == "string" and err:find "attempt to yield" and WAITED or nil
  if (record.traced[where] or 0) >= record.traces then trace = nil end
  fail(record, nil, { error = err, where = where, traceback = trace, hint = hint })
end

--- Connect C's sink. Without the compiled module (a spec of plain Lua) there is nothing to connect.
local function connect()
  local ok, door = pcall(require, "shoal.core.door")
  if ok then
    state.door, state.door_base = door, door.incidents()
    door.sink(from_c)
  elseif not tostring(door):find("module 'shoal.core.door' not found", 1, true) then
    fail(records["door.sink"], nil, { error = door })
  end
end

--- Forget everything and begin anew, for specs: as if just loaded.
function errors.reset()
  if state then state.agenda:close() end
  state = {
    records = {}, listeners = {}, ring = {}, ring_count = 0, seq = 0, depth = 0, undeclared = 0, node = "?",
    policy = policies.builtin, policy_check_ns = 0,
  }
  records = state.records
  policies.builtin.merged = {}
  state.agenda = agenda.new(nil, on_due)
  state.deliveries = deliver.new({
    clock = clocks,
    later = function (entry, due_ns) state.agenda:add(entry, due_ns) end,
    cancel = function (entry) state.agenda:remove(entry) end,
    run = errors.run,
  })
  for _, declared in ipairs(require "shoal.sites") do errors.site(declared) end
  connect()
end

log.guarded_by(quietly)
log.event("incident", incidents.fields)
log.event("incident.held_back", { "site", "where", "held_back", "count" })
errors.reset()

return errors
