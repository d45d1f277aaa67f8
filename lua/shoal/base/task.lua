--- Tasks: waiting code, written top to bottom. A task is a coroutine that belongs to a scope and has a site: it ends with its scope, and
--- its error goes to its site. No task is orphaned. No task runs before the call that starts it has returned: spawned tasks and woken
--- waiters run after the current event, in the order in which they became ready.
---
---   local scope = task.scope "worker"
---   scope:spawn("role.greet", { role = "manager" }, function ()
---     local reply, err, code = future:await(5000)
---     task.sleep(200)
---   end)
---
---   spawn, keep --> ready --> running --> done | failed            (by itself)
---               ^          |
---               |          v        cancelled                (t:cancel, scope:close: to-be-closed variables run)
---             woken <-- waiting     sleep, await, join, pop, yield
---
--- One timer of the world serves all sleepers. Equal deadlines wake in the order in which the tasks went to sleep.

local errors = require "shoal.base.errors"
local heap = require "shoal.base.task.heap"

local create, running, yield = coroutine.create, coroutine.running, coroutine.yield
local unpack, pack = table.unpack, table.pack
local resume = errors.resume

local task = {}

local NS_PER_MS = 1000000
local TURN_MAX = 10000     -- Resumes in one turn; then the world runs, so that tasks cannot starve it.
local JITTER = 0.2         -- Jitter of a loop's backoff: +-20 %, so that many loops do not retry in step.
local KEPT_MS = { 100, 5000 } -- Before a kept task begins again: the first pause, and the longest.
local NEVER = math.maxinteger

---@class shoal.Task
local Task = {}
Task.__index = Task
Task.__name = "shoal.task"
---@class shoal.Scope
local Scope = {}
Scope.__index = Scope
Scope.__name = "shoal.scope"

-- The scheduler's state, in locals for speed; all of it is set by task.reset().
local world, timer
local ready, ready_head, ready_tail        -- The queue of tasks and continuations that can run now.
local later, later_count                   -- Tasks that yielded until the next turn.
local sleepers                             -- A heap.
local sleep_seq, task_seq, scope_seq
local current                              -- The running task.
local turning                              -- A turn is in progress: newly ready tasks run in it.
local armed_ns                             -- The timer fires no later than this.
local root
local collected, collected_count           -- Failed futures that the collector found.

-- ---- ready, and the turn ----

local function arm(at_ns)
  if at_ns >= armed_ns then return end
  if not timer then error("task: call task.start(world) first", 3) end
  armed_ns = at_ns
  timer:start_at(at_ns)
end

local function make_ready(item)
  ready_tail = ready_tail + 1
  ready[ready_tail] = item
  if not turning and armed_ns > 0 then arm(0) end
end

local function unlink(t)
  local scope, previous, following = t.scope, t.previous, t.following
  if previous then previous.following = following else scope.first = following end
  if following then following.previous = previous else scope.last = previous end
  t.previous, t.following = nil, nil
  scope.tasks = scope.tasks - 1
end

--- The tasks that wait for one thing form a list in order of arrival, linked through the tasks themselves: `waiter` is the
--- first, `waiter_last` the last when there is more than one.
local function wake_all(what)
  local t = what.waiter
  if not t then return end
  what.waiter, what.waiter_last = false, nil
  while t do
    local following = t.waits_after
    t.waits_for, t.waits_before, t.waits_after = nil, nil, nil
    if t.due_at then heap.remove(sleepers, t) end
    make_ready(t)
    t = following
  end
end

--- Take t out of the list it waits in: it was cancelled, or its time is over.
local function leave(t)
  local what = t.waits_for
  if not what then return end
  local before, after = t.waits_before, t.waits_after
  t.waits_for, t.waits_before, t.waits_after = nil, nil, nil
  if before then before.waits_after = after else what.waiter = after or false end
  if after then after.waits_before = before end
  if not after then what.waiter_last = before end
end

local function settle(t, status)
  t.state = status
  t.co = nil
  unlink(t)
  wake_all(t)
end

local function due(ms)
  return world:now_ns() + math.floor(ms * NS_PER_MS + 0.5)
end

local function sleep_until(t, at_ns)
  sleep_seq = sleep_seq + 1
  t.due_ns, t.due_seq = at_ns, sleep_seq
  heap.push(sleepers, t)
end

--- A kept task failed: its code runs from its beginning, after a pause.
local function begin_again(t)
  local kept = t.kept
  kept.failures = kept.failures + 1
  local pause_ms = math.min(KEPT_MS[2], KEPT_MS[1] * 2 ^ math.min(kept.failures - 1, 16)) * (1 - JITTER + 2 * JITTER * world:unit())
  t.co, t.started, t.arguments, t.parked, t.timed_out = create(kept.fn), false, kept.arguments, true, nil
  sleep_until(t, due(pause_ms))
end

local YIELDED = "coroutine.yield in a task: use task.yield(), task.sleep() or a future"

local resumed

local function after_throw(t, outcome, ...)
  if outcome then return resumed(t, outcome, ...) end
  return resumed(t, "suspended") -- It could not be thrown.
end

--- The outcome of one resume.
function resumed(t, outcome, ...)
  current = nil
  if t.budget then t.budget:leave() end -- base/budget.lua: in force while the task's code runs.
  if outcome == "suspended" then
    if t.cancelling then
      t.cancelling = nil
      t:cancel()
    elseif not t.parked then -- It called coroutine.yield itself: nothing would ever resume it.
      if not t.thrown and not t.budget then -- An error where it stands: a loop goes on, a handler's caller is answered.
        t.thrown, current = true, t
        return after_throw(t, errors.throw(t.site, t.ids, t.co, YIELDED))
      end
      errors.report(t.site, t.ids, YIELDED)
      t.failed_as = "it yielded outside of task's own waits"
      errors.close(t.site, t.ids, t.co)
      settle(t, "failed")
    end
    return
  end
  if outcome == "done" then
    local count = select("#", ...)
    if count > 0 then t.results = count == 1 and { n = 1, (...) } or pack(...) end
    settle(t, "done")
  elseif t.kept and not t.scope.closed and not t.cancelling then
    begin_again(t)
  else
    t.failed_as = (...).message
    settle(t, "failed")
  end
end

local function run_one(item)
  local co = item.co
  if not co then
    local continue = item.continue -- A continuation (future:take); else a task that ended while it was ready.
    if continue then continue(item) end
    return
  end
  current = item
  item.parked, item.thrown = false, nil
  if item.budget then item.budget:enter() end
  if item.started then
    resumed(item, resume(item.site, item.ids, co))
  else
    item.started = true
    local arguments = item.arguments
    item.arguments = nil
    if arguments then
      resumed(item, resume(item.site, item.ids, co, unpack(arguments, 1, arguments.n)))
    else
      resumed(item, resume(item.site, item.ids, co))
    end
  end
end

local report_collected

local function turn_body()
  local budget = TURN_MAX
  while ready_head < ready_tail and budget > 0 do
    ready_head = ready_head + 1
    local item = ready[ready_head]
    ready[ready_head] = nil
    budget = budget - 1
    if item then run_one(item) end
  end
  if ready_head == ready_tail then ready_head, ready_tail = 0, 0 end
  if collected_count > 0 then report_collected() end
end

local function next_deadline()
  if ready_head < ready_tail or later_count > 0 then return 0 end
  local first = sleepers[1]
  return first and first.due_ns or NEVER
end

--- Run the ready tasks. Errors inside go to their sites; an error of the scheduler itself must not leave it stuck.
local function turn()
  turning = true
  errors.call("task.drain", nil, turn_body)
  turning, current = false, nil
  arm(next_deadline())
end

local function on_timer()
  armed_ns = NEVER
  local now_ns = world:now_ns()
  turning = true
  while true do
    local first = sleepers[1]
    if not first or first.due_ns > now_ns then break end
    heap.remove(sleepers, first)
    leave(first) -- Now, because the awaited event may still come in this turn.
    first.timed_out = true
    ready_tail = ready_tail + 1
    ready[ready_tail] = first
  end
  for i = 1, later_count do
    ready_tail = ready_tail + 1
    ready[ready_tail] = later[i]
    later[i] = nil
  end
  later_count = 0
  turn()
end

--- Run the ready tasks now instead of in the next turn of the loop: for the end of a callback from the world. In a task,
--- or inside a turn, it does nothing.
function task.flush()
  if turning or not timer then return end
  turn()
end

-- ---- waiting ----

--- The running task; outside of one, raise in the caller.
local function waiting_task(what, level)
  local t = current
  if not t or running() ~= t.co then
    error(what .. ": only a task can wait, and this code runs to its end: spawn a task (scope:spawn)", level + 1)
  end
  return t
end


local function check_ms(what, ms, level)
  if type(ms) ~= "number" or not (ms >= 0 and ms <= 1e12) then
    error(what .. ": expected milliseconds from 0 to 1e12, found " .. tostring(ms), level + 1)
  end
end


--- Wait until `what` wakes its waiters. -> false when timeout_ms passed first.
local function wait(t, what, timeout_ms)
  local first = what.waiter
  if not first then
    what.waiter = t
  else
    local last = what.waiter_last or first
    last.waits_after, t.waits_before = t, last
    what.waiter_last = t
  end
  t.waits_for = what
  t.parked = true
  if timeout_ms then
    sleep_until(t, due(timeout_ms))
    yield()
    if t.timed_out then
      t.timed_out = nil
      return false
    end
    return true
  end
  yield()
  return true
end

--- Wake the task that has waited longest.
local function wake_first(what)
  local t = what.waiter
  if not t then return end
  leave(t)
  if t.due_at then heap.remove(sleepers, t) end
  t.woken_by = what
  make_ready(t)
end

--- Wait at least this long.
---@param ms number  fractions allowed
function task.sleep(ms)
  check_ms("task.sleep", ms, 2)
  local t = waiting_task("task.sleep", 2)
  sleep_until(t, due(ms))
  t.parked = true
  yield()
  t.timed_out = nil
end

--- Yield: all other ready tasks, and the world, run first.
function task.yield()
  local t = waiting_task("task.yield", 2)
  later_count = later_count + 1
  later[later_count] = t
  t.parked = true
  yield()
end

--- This node's monotonic clock in milliseconds, with a fraction.
function task.now_ms() return world:now_ns() / NS_PER_MS end

--- The running task, or nil.
---@return shoal.Task?
function task.current() return current end

-- ---- tasks ----

--- Wait for a task's end.
---@param timeout_ms? number
---@return true? ok
---@return any ... its results; or the message and code: "FAILED", "CANCELLED", "TIMEOUT"
function Task:join(timeout_ms)
  if timeout_ms then check_ms("join", timeout_ms, 2) end
  if not self.state then
    local t = waiting_task("join", 2)
    if t == self then error("join: a task cannot wait for its own end", 2) end
    if not wait(t, self, timeout_ms) then
      return nil, tostring(self) .. " did not end within " .. timeout_ms .. " ms", "TIMEOUT"
    end
  end
  if self.state == "done" then
    local results = self.results
    if results then return true, unpack(results, 1, results.n) end
    return true
  end
  if self.state == "cancelled" then return nil, tostring(self) .. " was cancelled", "CANCELLED" end
  return nil, self.failed_as, "FAILED"
end

--- Cancel the task: only its to-be-closed variables still run. A task that cancels itself ends at its next wait.
---@return boolean cancelled  false: it had ended already
function Task:cancel()
  if self.state then return false end
  if self == current then
    self.cancelling = true
    return true
  end
  local co = self.co
  leave(self)
  if self.due_at then heap.remove(sleepers, self) end
  local channel = self.woken_by
  self.woken_by = nil
  settle(self, "cancelled") -- First, so that its closing code finds it ended.
  if channel and channel.count > 0 then wake_first(channel) end -- Wake the next waiter in its place.
  errors.close(self.site, self.ids, co)
  return true
end

---@return "ready"|"running"|"waiting"|"done"|"failed"|"cancelled"
function Task:status()
  if self.state then return self.state end
  if self == current then return "running" end
  return self.parked and (self.waits_for or self.due_at) and "waiting" or "ready"
end

function Task:__tostring() return "task " .. self.number .. " at " .. self.site end

-- ---- scopes ----

local function new_scope(name, parent)
  scope_seq = scope_seq + 1
  local scope = setmetatable({ name = name, parent = parent, number = scope_seq, tasks = 0, children = {},
    child_count = 0 }, Scope)
  if parent and not parent.closed then
    parent.children[scope] = true
    parent.child_count = parent.child_count + 1
  end
  return scope
end

--- A scope: tasks that are spawned in it end with it. Without a parent it ends with the node (task.stop). It is to-be-closed:
--- `local scope <close> = task.scope "probe"`.
---@param name string  for people
---@param parent? shoal.Scope
---@return shoal.Scope
function task.scope(name, parent)
  parent = parent or root
  local scope = new_scope(name, parent)
  if parent.closed then scope.closed = true end
  return scope
end

local function spawn(scope, site, ids, co, arguments)
  task_seq = task_seq + 1
  local t = setmetatable({ co = co, site = site, ids = ids, scope = scope, number = task_seq, arguments = arguments,
    parked = false, started = false, budget = current and current.budget }, Task)
  local last = scope.last
  t.previous = last
  if last then last.following = t else scope.first = t end
  scope.last = t
  scope.tasks = scope.tasks + 1
  make_ready(t)
  return t
end

--- Start fn(...) as a task; it runs after the current event. A failure is one incident at `site`.
---@param site string
---@param ids table | (fun(): table) | nil
---@param fn function
---@return shoal.Task? task
---@return string? err
---@return string? code  "CLOSED"
function Scope:spawn(site, ids, fn, ...)
  if type(fn) ~= "function" then error("spawn: expected a function, found " .. type(fn), 2) end
  if not errors.is_site(site) then
    local near = errors.nearest(tostring(site))
    error("spawn: no site is named " .. tostring(site) .. (near and ", did you mean " .. near .. "?" or ""), 2)
  end
  if not timer then error("spawn: call task.start(world) first", 2) end
  if self.closed then return nil, "the scope " .. self.name .. " is closed", "CLOSED" end
  local arguments
  if select("#", ...) > 0 then arguments = pack(...) end
  local budget = current and current.budget
  return spawn(self, site, ids, create(budget and budget:body(fn) or fn), arguments)
end

--- As spawn, for work that must not be lost with a failure: when fn raises, that is an incident, and after a pause (100 ms to 5 s) fn
--- begins again with the same arguments. It ends when fn returns, with its scope, or when it is cancelled.
---@return shoal.Task? task
---@return string? err
---@return string? code  "CLOSED"
function Scope:keep(site, ids, fn, ...)
  local t, err, code = self:spawn(site, ids, fn, ...)
  if t then t.kept = { fn = fn, arguments = t.arguments, failures = 0 } end
  return t, err, code
end

--- How long a loop waits after its nth failure in a row.
local function backoff_of(options, failures)
  local first, max = options.first, options.max
  local ms = first
  for _ = 2, failures do
    ms = ms * 2
    if ms >= max then break end
  end
  return math.min(ms, max) * (1 - JITTER + 2 * JITTER * world:unit())
end

local function loop_body(loop)
  if loop.first_ms then task.sleep(loop.first_ms) end
  local site, fn, interval_ms = loop.site, loop.fn, loop.interval_ms
  while true do
    loop.cycle = loop.cycle + 1
    local ok = errors.call(site, loop.tell, fn, loop.cycle)
    local wait_ms
    if ok then
      wait_ms = interval_ms
      if type(interval_ms) == "function" then ok, wait_ms = errors.call(site, loop.tell, loop.ask) end
    end
    if ok then
      loop.failures, loop.told = 0, 0
    else
      if loop.told <= loop.failures then -- The incident could not call `tell`: the last resort reported it.
        loop.told = loop.failures + 1
        loop.next_delay_ms = backoff_of(loop.range, loop.told)
      end
      loop.failures = loop.told
      wait_ms = loop.next_delay_ms
    end
    task.sleep(wait_ms)
  end
end

--- Run fn(cycle) repeatedly, `interval_ms` after its last end. The loop never ends by itself: a failure is an incident at `site`
--- (with cycle, consecutive and next_delay_ms among its ids), then a backoff that doubles from first to max, +-20 %; one success
--- resets it.
---@param options { interval_ms: number | (fun(): number), backoff_ms?: { first: number, max: number }, first_ms?: number }
---  first_ms: wait before the first run
---@return shoal.Task?
---@return string? err
---@return string? code
function Scope:loop(site, ids, options, fn)
  local interval_ms, backoff = options.interval_ms, options.backoff_ms or {}
  if type(interval_ms) ~= "function" then check_ms("loop: interval_ms", interval_ms, 2) end
  local first = backoff.first or backoff[1] or (type(interval_ms) == "number" and math.max(interval_ms, 10) or 1000)
  local max = backoff.max or backoff[2] or math.max(first, 30000)
  check_ms("loop: backoff_ms.first", first, 2)
  check_ms("loop: backoff_ms.max", max, 2)
  if options.first_ms then check_ms("loop: first_ms", options.first_ms, 2) end
  local loop = { site = site, fn = fn, interval_ms = interval_ms, cycle = 0, failures = 0, told = 0,
    first_ms = options.first_ms, range = { first = first, max = max } }
  --- The ids of a failure. This also draws the next delay.
  function loop.tell()
    loop.told = loop.failures + 1
    loop.next_delay_ms = backoff_of(loop.range, loop.told)
    local out = { cycle = loop.cycle, consecutive = loop.told, next_delay_ms = math.floor(loop.next_delay_ms) }
    local given = ids
    if type(ids) == "function" then given = ids() end
    for key, value in next, given or {} do out[key] = value end -- order-free: a copy
    return out
  end
  function loop.ask()
    local ms = interval_ms()
    check_ms("loop: interval_ms()", ms, 1)
    return ms
  end
  return self:keep(site, loop.tell, loop_body, loop)
end

--- How many tasks live in this scope and its child scopes.
---@return integer
function Scope:count()
  local n = self.tasks
  for child in next, self.children do n = n + child:count() end -- order-free: a sum
  return n
end

local report_untaken

--- End all its tasks and child scopes, the youngest first. Idempotent. A task of the scope that calls this ends at its next wait, or
--- when it returns.
function Scope:close()
  if self.closed then return end
  self.closed = true
  local children = {}
  for child in next, self.children do children[#children + 1] = child end -- order-free: sorted below
  table.sort(children, function (a, b) return a.number > b.number end)
  for _, child in ipairs(children) do child:close() end
  local tasks, t = {}, self.last
  while t do
    tasks[#tasks + 1] = t
    t = t.previous
  end
  for _, each in ipairs(tasks) do each:cancel() end
  if self.parent then
    if self.parent.children[self] then
      self.parent.children[self] = nil
      self.parent.child_count = self.parent.child_count - 1
    end
  end
  if self.untaken then report_untaken(self) end
end

Scope.__close = Scope.close
function Scope:__tostring() return "scope " .. self.name .. " (" .. self:count() .. " tasks)" end

-- ---- futures and channels ----

local inner = {
  current = function () return current end,
  waiting_task = waiting_task,
  wait = wait,
  wake_all = wake_all,
  wake_first = wake_first,
  make_ready = make_ready,
  check_ms = check_ms,
  now_ns = function () return world:now_ns() end,
  --- For a callback from the world: run fn, then run the tasks that it made ready, unless a turn is in progress.
  turn_with = function (fn, ...)
    if turning or not timer then return fn(...) end
    turning = true
    fn(...)
    turn()
  end,
  collect = function (sentinel)
    collected_count = collected_count + 1
    collected[collected_count] = sentinel
  end,
}

local futures = require "shoal.base.task.future"
local future_of = futures.new(inner)
local channel_of = require "shoal.base.task.channel".new(inner)

function report_untaken(scope)
  for _, sentinel in ipairs(futures.untaken(scope)) do futures.report(sentinel, scope.name) end
end

function report_collected()
  local list = collected
  collected, collected_count = {}, 0
  table.sort(list, function (a, b) return a.number < b.number end)
  for _, sentinel in ipairs(list) do futures.report(sentinel, sentinel.scope_name) end
end

--- A value that arrives later, once: see task/future.lua. It belongs to the scope of the task that creates it, or to the given scope. A
--- failure that is not taken by the end of that scope is an incident.
---@param label string
---@param scope? shoal.Scope
---@return shoal.Future
function task.future(label, scope) return future_of(label, scope or current and current.scope or root) end

--- A bounded queue between tasks: see task/channel.lua.
---@param capacity integer
---@return shoal.Channel
function task.channel(capacity) return channel_of(capacity) end

-- ---- beginning and end ----

--- Give tasks their world. Once per Lua state.
function task.start(given)
  if timer then error("task.start: it was started already (task.stop ends it)", 2) end
  world = given
  timer = world:timer(on_timer)
  if ready_head < ready_tail then arm(0) end
end

---@return boolean  whether tasks have a world
function task.started() return timer ~= nil end

--- The root scope, the parent of each scope without another.
function task.root() return root end

--- Counts of live objects, for checks that nothing is left behind.
---@return { tasks: integer, sleepers: integer, ready: integer, scopes: integer }
function task.counts()
  return { tasks = root:count(), sleepers = sleepers.count, ready = ready_tail - ready_head + later_count,
    scopes = root.child_count }
end

local function clear()
  timer, current, turning, armed_ns = nil, nil, false, NEVER
  ready, ready_head, ready_tail, later, later_count = {}, 0, 0, {}, 0
  sleepers, sleep_seq, task_seq, scope_seq = { count = 0 }, 0, 0, 0
  collected, collected_count = {}, 0
  root = new_scope("root")
end

--- End every task and release the timer. Failed futures that were not taken are reported.
function task.stop()
  if not timer then return end
  root:close()
  if collected_count > 0 then report_collected() end
  timer:close()
  clear()
end

--- For specs: reset the module to its state after loading.
function task.reset()
  if timer then task.stop() end
  world = nil
  clear()
end

clear()
return task
