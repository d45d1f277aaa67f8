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
---   open loop:    iteration k of the whole begins at start + k / rate, however long the answers take. A user that is late takes it
---                 when it is free, and the wait counts: latencies run from the intended start. More users mean less wait.
---
--- Each iteration number is taken by exactly one user of one part. An error in a user's function is one incident and one error of kind
--- "script"; the user continues with the next iteration after a short backoff that doubles at each consecutive error. If every
--- iteration of a part failed this way, the part has failed.
local environment = require "shoal.run.workflow.environment"
local errors = require "shoal.base.errors"
local http = require "shoal.run.http"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"
local vu = require "shoal.run.workflow.vu"

local workflow = {}

local NS_PER_MS = 1000000
local BACKOFF_MS, BACKOFF_MAX_MS = 10, 1000 -- After an error: long enough not to spin, short enough not to change the load.
local CHECK_INSTRUCTIONS = 20000000 -- About a second.
local BUSY_NS = 5 * NS_PER_MS -- A user that computes this long yields to the others, and to a cancel.

---@class WorkflowOptions
---@field world table
---@field scope table      the users' tasks live in it; closing it ends them
---@field recorder Recorder
---@field job string
---@field workflow string
---@field part string
---@field attempt integer
---@field work Workflow    script, vus, iterations or duration_ms, rate, phase, stride, env
---@field log fun(text: string)

local FIELDS = {
  vu = "function", setup = "function", teardown = "function", base_url = "string", request_timeout_ms = "number", http = "table",
}

-- The script -----------------------------------------------------------------------------------------------------------

--- An incident as text for a job's reason: the place and the message.
local function told(incident)
  return incident.where ~= "?" and ("%s: %s"):format(incident.where, incident.message) or incident.message
end

--- The value that a script returned, as a table with `vu`; or nil and the problem.
local function read_users(path, value)
  if type(value) == "function" then value = { vu = value } end
  if type(value) ~= "table" then
    return nil, ("%s returned %s; expected a function, or a table with vu = function (vu) ... end"):format(path,
      value == nil and "nothing" or "a " .. type(value))
  end
  for name, field in sorted(value) do
    if not FIELDS[name] then
      return nil, ("%s: unknown field %s; known are %s"):format(path, tostring(name), table.concat(sorted.keys(FIELDS), ", "))
    end
    if type(field) ~= FIELDS[name] then
      return nil, ("%s: %s is a %s; expected a %s"):format(path, name, type(field), FIELDS[name])
    end
  end
  local problem = value.http and http.problem(value.http)
  if problem then return nil, ("%s: http: %s"):format(path, problem) end
  if not value.vu then return nil, path .. ": has no vu = function (vu) ... end" end
  return value
end

--- Load the script and run its top level, which returns the users' function or a table with it.
local function open_script(part, script)
  local chunk, err = load(script.bytes, "@" .. script.path, "t", environment.new(part))
  if not chunk then return nil, "syntax: " .. err end
  local ok, value = errors.call("exec.workflow", part.ids("load"), chunk)
  if not ok then return nil, told(value) end
  return read_users(script.path, value)
end

--- Check that this text is a workflow's script. Its top level runs as for a part with `env`, for at most CHECK_INSTRUCTIONS. It sends
--- nothing, for only users can send.
---@param bytes string
---@param path string
---@param env table<string, string>  the script's `env`
---@return true? ok, string? err
function workflow.check(bytes, path, env)
  local part = { env = env, ids = function () return { path = path } end, log = function () end }
  local chunk, err = load(bytes, "@" .. path, "t", environment.new(part))
  if not chunk then return nil, err end
  local ok, value = errors.handle("script.load", { path = path }, function ()
    local before, mask, count = debug.gethook()
    local free <close> = setmetatable({}, { __close = function () debug.sethook(before, mask, count) end })
    debug.sethook(function ()
      error(("%s: still running after %d steps; a script's top level ends"):format(path, CHECK_INSTRUCTIONS), 0)
    end, "", CHECK_INSTRUCTIONS)
    return chunk()
  end)
  if not ok then return nil, tostring(value) end
  local found, problem = read_users(path, value)
  if not found then return nil, problem end
  return true
end

-- Iterations -----------------------------------------------------------------------------------------------------------

--- The number of the next iteration of this part (from 0), and its due time; nil when there is none.
local function next_iteration(part)
  local work, k = part.work, part.taken
  if work.iterations and k >= work.iterations then return nil end
  local due_ns
  if work.rate then
    due_ns = part.started_ns + math.floor((k * part.stride + part.phase) * 1000000000 / work.rate)
    if part.ends_ns and due_ns >= part.ends_ns then return nil end
  elseif part.ends_ns and part.world:now_ns() >= part.ends_ns then
    return nil
  end
  part.taken = k + 1
  return k, due_ns
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
    if due_ns then
      local wait_ns = due_ns - world:now_ns()
      if wait_ns > 0 then task.sleep(wait_ns / NS_PER_MS) end
    end
    user.iteration = k * part.stride + part.phase + 1
    local now_ns, began_ns = world:now_ns(), world:fresh_ns()
    user.late_ns = due_ns and began_ns - due_ns or nil
    local ok, incident = errors.call("exec.vu", ids, fn, user)
    recorder.counts.iterations = recorder.counts.iterations + 1
    local fresh_ns = world:fresh_ns()
    recorder:time("iteration", fresh_ns - (due_ns or began_ns))
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
  local user, client = vu.new(part, 0)
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
    log = o.log, simulated = o.world:simulated(),
    headers = {
      ["X-Shoal-Job"] = o.job, ["X-Shoal-Part"] = o.part, ["X-Shoal-Attempt"] = tostring(o.attempt), ["User-Agent"] = "shoal",
    },
  }
  function part.ids(step, id)
    return { job = o.job, workflow = o.workflow, part = o.part, attempt = o.attempt, vu = id, step = step }
  end
  return part
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
  part.started_ns = part.world:now_ns()
  part.ends_ns = part.work.duration_ms and part.started_ns + part.work.duration_ms * NS_PER_MS
  local users = {}
  for id = 1, part.work.vus do
    users[id] = assert(options.scope:spawn("exec.vu", part.ids("run", id), run_user, part, id))
  end
  local broken
  for _, user in ipairs(users) do
    local ended, problem = user:join()
    if not ended then broken = broken or problem end -- It failed outside of an iteration: a bug of ours, already an incident.
  end
  local down, problem = run_step(part, "teardown")
  if broken then return "failed", "a user ended early: " .. broken end
  if not part.succeeded and part.first_error then return "failed", "every iteration failed: " .. part.first_error end
  if not down then return "failed", problem end
  return "completed"
end

return workflow
