--- workflow: run one part of a workflow's script: its virtual users, as tasks of one scope.
---
---     -- workflows/buy.lua
---     return {
---       setup = function (ctx) return { token = ctx.http:get("/login").body } end,       -- once a part; its result is vu.data
---       vu = function (vu)                                                               -- one iteration of one user
---         local r = vu.http:post("/buy", { body = "item=1" })
---         if vu:check("status 200", r and r.status == 200) then vu:count("bought") end
---         vu:sleep(50)
---       end,
---       teardown = function (ctx) end,
---       base_url = "http://...",        -- for urls that begin with "/"; default: the environment's TARGET
---       request_timeout_ms = 30000,
---       http = { redirects = 5, cookies = true },                             -- for all requests; see workflow/vu.lua
---     }
---
--- A script may also return just the function `vu`.
---
---   closed loop:  each user takes the next iteration as soon as it has finished one
---   open loop:    iteration k of the whole is due at start + k / rate, however long the answers take. If no user is free then, it begins
---                 when one is: it is `late`, and the wait counts, for latencies run from the intended start. A user that was free in
---                 time began as soon as its timer fired: that delay is ours, and is recorded apart, as "start_delay".
---
--- With `duration_ms`, no iteration begins after it. Iterations that were due and have not begun are `dropped`; those under way get
--- graceful_ms more (30 s, if the time limit allows), then they are ended, and counted as `interrupted`. A request
--- under way in one is then in no number of ours, though its target may have seen it.
---
--- Each iteration number is taken by exactly one user of one part. An error in a user's function is one incident and one error of kind
--- "script"; the user continues with the next iteration after a short backoff that doubles at each consecutive error. If every
--- iteration of a part failed this way, the part has failed.
local checking = require "shoal.run.workflow.checking"
local environment = require "shoal.run.workflow.environment"
local errors = require "shoal.base.errors"
local http = require "shoal.run.http"
local task = require "shoal.base.task"
local vu = require "shoal.run.workflow.vu"

local workflow = {}

local NS_PER_MS = 1000000
local BACKOFF_MS, BACKOFF_MAX_MS = 10, 1000 -- After an error: long enough not to spin, short enough not to change the load.
local GRACEFUL_MS = 30000
local LIMIT_ROOM_MS = 2000 -- From the last iteration's end to the time limit: for teardown and the result.
local LATE_NS = NS_PER_MS  -- An iteration that waited longer than this for a free user is late.
local BUSY_NS = 5 * NS_PER_MS -- A user that computes this long yields to the others, and to a cancel.

---@class WorkflowOptions
---@field world table
---@field scope table      the users' tasks live in it; closing it ends them
---@field recorder Recorder
---@field job string
---@field workflow string
---@field part string
---@field attempt integer
---@field work Workflow    script, vus, iterations or duration_ms, rate, phase, stride, graceful_ms, env
---@field zero_ns? integer  where the recorder's clock began; now, if it is left out
---@field limit_ns? integer  when the part is stopped
---@field log fun(text: string)

local FIELDS = {
  vu = "function", setup = "function", teardown = "function", base_url = "string", request_timeout_ms = "number", http = "table",
}

-- The script -----------------------------------------------------------------------------------------------------------

--- An incident as text for a job's reason: the place and the message.
local function told(incident)
  return incident.where ~= "?" and ("%s: %s"):format(incident.where, incident.message) or incident.message
end

--- The value that a script returned, as a table with `vu`; or nil and every problem. `bytes`: its text, for lines.
local function read_users(path, value, bytes)
  if type(value) == "function" then value = { vu = value } end
  if type(value) ~= "table" then
    return nil, ("%s returned %s; expected a function, or a table with vu = function (vu) ... end"):format(path,
      value == nil and "nothing" or "a " .. type(value))
  end
  local problems = checking.fields(path, bytes, value, FIELDS)
  local problem = type(value.http) == "table" and http.problem(value.http)
  if problem then problems[#problems + 1] = ("%s: http: %s"):format(path, problem) end
  if not value.vu then problems[#problems + 1] = path .. ": has no vu = function (vu) ... end" end
  if #problems > 0 then return nil, table.concat(problems, "\n") end
  return value
end

--- Load the script and run its top level, which returns the users' function or a table with it.
local function open_script(part, script)
  local chunk, err = load(script.bytes, "@" .. script.path, "t", environment.new(part))
  if not chunk then return nil, "syntax: " .. err end
  local ok, value = errors.call("exec.workflow", part.ids("load"), chunk)
  if not ok then return nil, told(value) end
  return read_users(script.path, value, script.bytes)
end

--- Check that this text is a workflow's script. Its top level runs as for a part with `env`, within the bounds of checked files
--- (base/data_file.lua). It sends nothing, for only users can send.
---@param bytes string
---@param path string
---@param env table<string, string>  the script's `env`
---@return true? ok, string? err  every problem, one a line
function workflow.check(bytes, path, env)
  local part = { env = env, ids = function () return { path = path } end, log = function () end }
  local problems, value = checking.text(bytes, path, environment.new(part))
  if not problems then return nil, value end
  local found, err = read_users(path, value, bytes)
  if not found then problems[#problems + 1] = err end
  if #problems > 0 then return nil, table.concat(problems, "\n") end
  return true
end

-- Iterations -----------------------------------------------------------------------------------------------------------

--- When iteration k of this part is due.
local function due_of(part, k)
  return part.started_ns + math.floor((k * part.stride + part.phase) * 1000000000 / part.work.rate)
end

--- The number of the next iteration of this part (from 0), and its due time; nil when there is none.
local function next_iteration(part)
  local work, k = part.work, part.taken
  if work.iterations and k >= work.iterations then return nil end
  if part.ends_ns and part.world:now_ns() >= part.ends_ns then return nil end
  local due_ns = work.rate and due_of(part, k)
  if due_ns and part.ends_ns and due_ns >= part.ends_ns then return nil end
  part.taken = k + 1
  return k, due_ns
end

--- Wait until an iteration is due. Returns for how long it waited for this user, which came too late; 0: the user was free.
local function wait_for(part, due_ns)
  local wait_ns = due_ns - part.world:now_ns()
  if wait_ns > 0 then task.sleep(wait_ns / NS_PER_MS) end
  local delay_ns = part.world:fresh_ns() - due_ns
  if wait_ns > 0 then
    part.recorder:measure("start_delay", delay_ns)
    return 0
  end
  if delay_ns > LATE_NS then part.recorder:tally("late", 1) end
  return math.max(0, delay_ns)
end

--- One user: run iterations until there are none left.
local function run_user(part, id)
  local world, recorder = part.world, part.recorder
  local user, client = vu.new(part, id)
  local _ <close> = client
  local fn, backoff_ms, ids = part.script.vu, BACKOFF_MS, part.ids("vu", id)
  while true do
    local k, due_ns = next_iteration(part)
    if not k then break end
    local late_ns = due_ns and wait_for(part, due_ns) or 0
    user.iteration = k * part.stride + part.phase + 1
    user.late_ns = late_ns
    local now_ns, began_ns = world:now_ns(), world:fresh_ns()
    recorder.under_way = recorder.under_way + 1
    local ok, incident = errors.call("exec.vu", ids, fn, user)
    recorder.under_way = recorder.under_way - 1
    recorder.counts.iterations = recorder.counts.iterations + 1
    local fresh_ns = world:fresh_ns()
    recorder:measure("iteration", fresh_ns - began_ns + late_ns)
    part.last_ns, part.behind = fresh_ns, late_ns > LATE_NS
    if ok then
      part.succeeded, backoff_ms = true, BACKOFF_MS
      if world:now_ns() == now_ns then -- It did not wait: let other tasks and the clock advance.
        if part.simulated then task.sleep(1) elseif fresh_ns - now_ns > BUSY_NS then task.yield() end
      end
    else
      recorder:failure("script")
      part.first_error = part.first_error or told(incident)
      task.sleep(backoff_ms)
      backoff_ms = math.min(backoff_ms * 2, BACKOFF_MAX_MS)
    end
  end
end

--- A step that belongs to no user: setup or teardown.
local function run_step(part, step, ...)
  local fn = part.script[step]
  if not fn then return true end
  local user, client = vu.new(part, 0, step)
  local _ <close> = client
  local ok, value = errors.call("exec.vu", part.ids(step, 0), fn, user, ...)
  if ok then return true, value end
  part.recorder:failure("script")
  return false, ("%s: %s"):format(step, told(value))
end

-- The part -------------------------------------------------------------------------------------------------------------

local function new_part(o)
  local work = o.work
  local part = {
    world = o.world, recorder = o.recorder, work = work, env = work.env or {}, job = o.job, workflow = o.workflow, part = o.part,
    attempt = o.attempt, phase = work.phase or 0, stride = work.stride or 1, taken = 0, names = {}, urls_count = 0,
    log = o.log, simulated = o.world:simulated(), zero_ns = o.zero_ns or o.world:fresh_ns(), limit_ns = o.limit_ns,
    headers = {
      ["X-Shoal-Job"] = o.job, ["X-Shoal-Part"] = o.part, ["X-Shoal-Attempt"] = tostring(o.attempt), ["User-Agent"] = "shoal",
    },
  }
  function part.ids(step, id)
    return { job = o.job, workflow = o.workflow, part = o.part, attempt = o.attempt, vu = id, step = step }
  end
  return part
end

-- Load -----------------------------------------------------------------------------------------------------------------

--- When iterations that are under way at the end of the duration are ended; nil without a duration.
local function grace_ends_ns(part)
  if not part.ends_ns then return nil end
  local at_ns = part.ends_ns + (part.work.graceful_ms or GRACEFUL_MS) * NS_PER_MS
  if part.limit_ns then at_ns = math.max(part.ends_ns, math.min(at_ns, part.limit_ns - LIMIT_ROOM_MS * NS_PER_MS)) end
  return at_ns
end

--- Wait for all users, and end those that take longer than they may. Returns a bug of ours, if one ended otherwise.
local function join(part, users, scope)
  local until_ns, broken = grace_ends_ns(part), nil
  for _, user in ipairs(users) do
    local ended, problem, code = user:join(until_ns and math.max(0, until_ns - part.world:now_ns()) / NS_PER_MS)
    if code == "TIMEOUT" then
      scope:close()
      part.interrupted = true
    elseif not ended and not (code == "CANCELLED" and part.interrupted) then
      broken = broken or problem -- It failed outside of an iteration, and is already an incident.
    end
  end
  return broken
end

--- Account for an open loop's schedule: the iterations that were due and never began, and when the schedule ended.
local function close_schedule(part)
  local work = part.work
  if not work.rate then return nil end
  if work.iterations then return part.started_ns + math.floor(work.iterations * part.stride * 1000000000 / work.rate) end
  local due = math.max(0, math.ceil((work.duration_ms * work.rate / 1000 - part.phase) / part.stride))
  while due > part.taken and due_of(part, due - 1) >= part.ends_ns do due = due - 1 end -- The division rounds, the schedule decides.
  part.recorder:tally("dropped", due - part.taken)
  part.behind = part.behind or due > part.taken
  return part.ends_ns
end

--- Generate the load. Returns a bug of ours.
local function load_phase(part, options)
  local recorder, work, users = part.recorder, part.work, {}
  part.started_ns = part.world:fresh_ns()
  part.ends_ns = work.duration_ms and part.started_ns + work.duration_ms * NS_PER_MS
  recorder.open_loop = work.rate ~= nil
  recorder.wanted_milli = work.rate and math.floor(work.rate / part.stride * 1000 + 0.5)
  recorder.load_from_us = (part.started_ns - part.zero_ns) // 1000
  local scope = task.scope("load", options.scope)
  for id = 1, work.vus do
    users[id] = assert(scope:spawn("exec.vu", part.ids("run", id), run_user, part, id))
  end
  local broken = join(part, users, scope)
  local schedule_ns = close_schedule(part)
  local ended_ns = math.max(part.started_ns, part.last_ns or part.started_ns)
  if part.interrupted then ended_ns = part.world:fresh_ns() elseif schedule_ns and not part.behind then ended_ns = schedule_ns end
  recorder:stop((ended_ns - part.zero_ns) // 1000)
  return broken
end

--- Run a part to its end. Waits; in a task.
---@param options WorkflowOptions
---@return "completed"|"failed" state
---@return string? reason
function workflow.run(options)
  local part = new_part(options)
  local script, err = open_script(part, part.work.script)
  if not script then return "failed", err end
  part.script, part.base_url, part.request_timeout_ms = script, script.base_url or part.env.TARGET, script.request_timeout_ms
  local ok, data = run_step(part, "setup")
  if not ok then return "failed", data end
  part.data = data
  local broken = load_phase(part, options)
  local down, problem = run_step(part, "teardown")
  if broken then return "failed", "a user ended early: " .. broken end
  if not part.succeeded and part.first_error then return "failed", "every iteration failed: " .. part.first_error end
  if not down then return "failed", problem end
  return "completed"
end

return workflow
