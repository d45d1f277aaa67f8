--- job: what a client submits: a graph of workflows, from a file in Lua or JSON.
---
---     return {
---       name = "checkout",
---       datacenters = { "a", "b" },                -- all, when left out
---       timeout_ms = 60000,                        -- of the whole job; an hour when left out
---       env = { TARGET = "http://127.0.0.1:8081" },
---       workflows = {
---         warm    = { script = "workflows/warm.lua", vus = 4, iterations = 40 },
---         browse  = { after = { "warm" }, script = "workflows/browse.lua", vus = 8, duration_ms = 10000 },
---         buy     = { after = { "warm" }, script = "workflows/buy.lua", vus = 8, iterations = 400, rate = 100, retries = 2 },
---         summary = { after = { "browse", "buy" }, command = "echo done; date" },
---       },
---     }
---
--- A workflow is a script or a command. A script has users (`vus`), and `iterations` in all or a `duration_ms`; with `rate`, that many
--- iterations begin each second, however long the answers take. A command is a line for `sh -c`, or a list, and runs `parts` times
--- (default 1). Both take `after`, `cores` (that one part occupies), `parts` (how many to split it into), `retries`, `timeout_ms`, `env`.
---
--- `retries` (default 2) is how often a part may be executed again, in total: after its worker was lost, and, for a command whose file
--- gives `retries`, after it failed. `retry = { backoff_ms = 1000, factor = 2, max_ms = 60000 }` sets the pauses after a failure, and
--- makes a script retry its failures too; `retry = false` retries losses only. `retries = 0`: the part never runs twice.
---
--- `where = { gpu = "a100" }` lets a workflow (or, at the top, every workflow) run only on workers with that label; fit.lua has its
--- forms. `labels = { team = "shop" }` is what the job says of itself to policies and workers.
---
--- With `duration_ms`, iterations that are under way at its end get `graceful_ms` more (30 s when left out), then they are ended. With
--- `parts`, a script is cut into so many parts in all: a gate gives each datacenter its share of them, and where there are fewer parts than
--- datacenters, those with the most free cores get one each.
---
--- A job measures, so failed requests do not fail it: it completes, and its result says how many failed and why. Thresholds fail a
--- script, over all datacenters, and the workflows after it are then skipped: `max_failed_share` (from 0 to below 1) of its requests,
--- `max_failed_checks_share` of its checks, `max_p95_ms` and `max_p99_ms` for the latency of requests that work.
---
--- `limits = { memory = "512MiB", cpu_s = 10, nofile = 256 }` hold for each process of a part, and `disk = "1GiB"` (the default) for the
--- working folder of a command, which is its own and goes with it. A part that met a limit says so in its reason.
---
--- Every node works with the *canonical spec*: known keys only, defaults filled in, scripts as { path, bytes }, so that equal jobs are
--- equal bytes. A *share* is a workflow with less work; shares of a share are shares, so both hops use one function.
local check = require "shoal.job.check"
local msgpack = require "shoal.core.msgpack"
local sorted = require "shoal.base.sorted"
local source = require "shoal.job.source"

local job = {}

---@class Workflow  canonical
---@field after string[]
---@field script? { path: string, bytes: string }
---@field command? string[]
---@field vus? integer          scripts: how many users
---@field iterations? integer   scripts: how many in all, or
---@field duration_ms? integer  for how long
---@field rate? number          iterations a second, all parts together
---@field graceful_ms? integer  scripts: how much longer than duration_ms an iteration may take
---@field max_failed_share? number  scripts: the workflow fails when a greater share of its requests has failed
---@field max_failed_checks_share? number  the same of its checks
---@field max_p95_ms? number    scripts: the workflow fails when the quantile of the requests that worked is greater
---@field max_p99_ms? number
---@field phase? integer        shares: this part begins the iterations phase, phase + stride, ... of the whole
---@field stride? integer
---@field parts? integer        commands: how many times it runs; scripts: into how many parts to split it
---@field cores integer
---@field retries integer      how often a part is executed again, over both tiers together
---@field retry? { backoff_ms: integer, factor: number, max_ms: integer }  failures are retried too, after these pauses
---@field executions? integer  shares: how often the part was executed before, so that attempts go on counting
---@field timeout_ms? integer
---@field limits? { memory: integer?, cpu_s: integer?, nofile: integer?, disk: integer? }  bytes, seconds, files
---@field env table<string, string>
---@field where? table<string, string|string[]|boolean>  the labels that a worker must have, the job's own included

---@class JobSpec  canonical
---@field name string
---@field labels? table<string, string>
---@field datacenters? string[]
---@field timeout_ms integer
---@field env table<string, string>
---@field workflows table<string, Workflow>

local function failed(problems)
  return nil, table.concat(problems, "\n"), "CONFIG"
end

--- The text of a job file as a spec. Problems come all at once, a line each, with file and line where they are known.
---@param bytes string
---@param name string  the file's, for messages
---@param read fun(path: string): string?, string?  gives a script's bytes; relative paths are the job file's neighbours
---@param getenv? fun(name: string): string?  the file's `getenv` calls it
---@param script? fun(path: string, bytes: string, env: table): string?  a further check of each script: its problems
---@return JobSpec? spec, string? err, string? code
function job.parse(bytes, name, read, getenv, script)
  local data, from = source.read(bytes, name, getenv)
  if not data then return nil, from, "CONFIG" end
  local spec, problems = check.job(data, {
    name = name, lines = from.lines, problems = from.problems, read = read, check_script = script,
  })
  if not spec then return failed(problems) end
  return spec
end

--- Load a job file and the scripts it names.
---@param world table
---@param path string
---@param getenv? fun(name: string): string?
---@param script? fun(path: string, bytes: string, env: table): string?  see job.parse
---@return JobSpec? spec, string? err, string? code
function job.load(world, path, getenv, script)
  local bytes, err = world:read_file(path)
  if not bytes then return nil, ("%s: cannot read the job file: %s"):format(path, err), "CONFIG" end
  local folder = path:match("^(.*/)[^/]*$") or ""
  return job.parse(bytes, path, function (name)
    return world:read_file(name:sub(1, 1) == "/" and name or folder .. name)
  end, getenv, script)
end

--- A spec's bytes; equal specs give equal bytes.
---@param spec JobSpec
---@return string bytes
function job.encode(spec)
  return msgpack.pack(spec)
end

--- A spec from received bytes: decoded, and checked whole like a file.
---@param bytes string
---@return JobSpec? spec, string? err, string? code
function job.decode(bytes)
  local value, err = msgpack.unpack(bytes)
  if not value then return nil, "the job is unreadable: " .. tostring(err), "MALFORMED" end
  local spec, problems = check.job(value, { share = true }) -- A tier below keeps a share as a spec of its own.
  if not spec then return failed(problems) end
  return spec
end

--- The workflows' names in topological order, ties by name.
---@param spec JobSpec
---@return string[] names
function job.order(spec)
  local out, done = {}, {}
  local function visit(name)
    if done[name] then return end
    done[name] = true
    for _, other in ipairs(spec.workflows[name].after) do visit(other) end
    out[#out + 1] = name
  end
  for name in sorted(spec.workflows) do visit(name) end
  return out
end

-- Shares ---------------------------------------------------------------------------------------------------------------

--- The greatest number of parts into which a workflow (or share) can be split.
---@param workflow table
---@return integer
function job.divisible(workflow)
  return workflow.command and workflow.parts or math.min(workflow.vus, workflow.parts or workflow.vus)
end

--- The i-th of n nearly equal pieces of a total, i from 0; earlier ones are greater by at most one, and they add up to the total.
local function piece(total, i, n)
  return total // n + (i < total % n and 1 or 0)
end

--- Split a workflow, or a share of one, into n parts that add up to it exactly. It returns fewer than n when there is less work (see
--- `divisible`), so that no part is empty.
---@param workflow table
---@param n integer
---@return table[] shares  scripts: { vus, iterations?, duration_ms?, rate?, phase, stride, parts? }; commands: { parts }
function job.share(workflow, n)
  assert(math.type(n) == "integer" and n >= 1, "share: n must be a positive integer")
  n = math.min(n, job.divisible(workflow))
  local shares = {}
  for i = 0, n - 1 do
    if workflow.command then
      shares[i + 1] = { parts = piece(workflow.parts, i, n) }
    else
      local phase, stride = workflow.phase or 0, workflow.stride or 1
      shares[i + 1] = {
        vus = piece(workflow.vus, i, n), iterations = workflow.iterations and piece(workflow.iterations, i, n),
        duration_ms = workflow.duration_ms, rate = workflow.rate, phase = phase + i * stride, stride = stride * n,
        parts = workflow.parts and piece(workflow.parts, i, n),
      }
    end
  end
  return shares
end

--- The workflow with a share's amounts in place of its own.
---@param workflow Workflow
---@param share table
---@return Workflow
function job.with_share(workflow, share)
  local out = {}
  for k, v in next, workflow do out[k] = v end
  for _, k in ipairs { "vus", "iterations", "duration_ms", "rate", "phase", "stride", "parts" } do out[k] = share[k] end
  out.executions = share.executions
  out.retries = share.retries or out.retries -- A tier below may use only the remaining executions.
  return out
end

-- Dispatch -------------------------------------------------------------------------------------------------------------

--- A share as bytes.
---@param share table
---@return string bytes
function job.pack(share)
  return msgpack.pack(share)
end

--- The bytes that a dispatch carries besides its share: everything an executor needs of one workflow. A retry sends the same bytes.
---@param spec JobSpec
---@param name string  the workflow's
---@return string payload
function job.payload(spec, name)
  local work = job.with_share(spec.workflows[name], spec.workflows[name])
  work.after = nil
  return msgpack.pack { name = spec.name, workflow = name, work = work, labels = spec.labels }
end

local function unreadable(what, err)
  return nil, ("the dispatch's %s is unreadable: %s"):format(what, tostring(err)), "MALFORMED"
end

--- The spec in a dispatch message: the one workflow with the share's amounts, without `after`, and with the dispatch's time limit.
---@param dispatch { workflow: string, payload: string, share: string, timeout_ms: integer }  timeout_ms 0: none
---@return JobSpec? spec, string? err, string? code
function job.of_dispatch(dispatch)
  local value, err = msgpack.unpack(dispatch.payload)
  if type(value) ~= "table" or type(value.work) ~= "table" then return unreadable("payload", err or "no table") end
  local share
  share, err = msgpack.unpack(dispatch.share)
  if type(share) ~= "table" then return unreadable("share", err or "no table") end
  if value.workflow ~= dispatch.workflow then
    return nil, ("the dispatch is of %s, its payload of %s"):format(tostring(dispatch.workflow), tostring(value.workflow)), "MALFORMED"
  end
  local limit_ms = dispatch.timeout_ms and dispatch.timeout_ms > 0 and dispatch.timeout_ms or nil
  local spec, problems = check.job({
    name = value.name, labels = value.labels, timeout_ms = limit_ms, workflows = { [value.workflow] = job.with_share(value.work, share) },
  }, { share = true })
  if not spec then return nil, table.concat(problems, "\n"), "MALFORMED" end
  return spec
end

-- The parts of a workflow, and often consecutive jobs, have the same payload and share. A check depends only on these bytes, the
-- workflow's name and the limit, so a passed check is cached under them. The cache has two generations; the older is dropped whole.
job.REMEMBERED_MAX = 64                -- Checks in a generation.
job.REMEMBERED_BYTES_MAX = 16 * 1024   -- Of a payload and share together; larger ones are checked each time.
local young, old, remembered = {}, {}, 0

local function same_check(known, dispatch)
  return known and known.share == dispatch.share and known.workflow == dispatch.workflow and known.timeout_ms == dispatch.timeout_ms
end

--- As of_dispatch. The spec is shared between calls: read only.
local function checked(dispatch)
  local payload, share = dispatch.payload, dispatch.share
  local known = young[payload] or old[payload]
  if same_check(known, dispatch) then return known.spec end
  local spec, err, code = job.of_dispatch(dispatch)
  if not spec then return nil, err, code end
  if #payload + #share > job.REMEMBERED_BYTES_MAX then return spec end
  if not young[payload] then
    if remembered == job.REMEMBERED_MAX then young, old, remembered = {}, young, 0 end
    remembered = remembered + 1
  end
  young[payload] = { share = share, workflow = dispatch.workflow, timeout_ms = dispatch.timeout_ms, spec = spec }
  return spec
end

--- The same for a worker, in the form that shoal.runner takes. Its `work` is read only: it is shared between parts.
---@param dispatch table  a dispatch message
---@return RunnerDispatch? dispatch, string? err, string? code
function job.read_dispatch(dispatch)
  local spec, err, code = checked(dispatch)
  if not spec then return nil, err, code end
  local work = spec.workflows[dispatch.workflow]
  local limit_ms = work.timeout_ms
  if dispatch.timeout_ms and dispatch.timeout_ms > 0 then limit_ms = math.min(limit_ms or dispatch.timeout_ms, dispatch.timeout_ms) end
  return {
    job = dispatch.job, workflow = dispatch.workflow, part = dispatch.part, attempt = dispatch.attempt, fence = dispatch.fence,
    cores = work.cores, work = work, timeout_ms = limit_ms,
  }
end

--- What a dispatch is of, for a role that decides whether to take it: `if worker.about(body).env.POOL ~= "gpu" then`. Checking the
--- dispatch afterwards costs nothing more.
---@param dispatch table  the body of part.dispatch
---@return { job: string, workflow: string, env: table<string, string>, labels: table<string, string>, where: table, cores: integer,
---  command: string[]?, script: string? }? about, string? err, string? code  job: its name, where body.job is its id
function job.about(dispatch)
  local spec, err, code = checked(dispatch)
  if not spec then return nil, err, code end
  local work = spec.workflows[dispatch.workflow]
  local function copy(t)
    local out = {}
    for key, value in next, t or {} do out[key] = value end -- order-free: a copy
    return out
  end
  return {
    job = spec.name, workflow = dispatch.workflow, env = copy(work.env), labels = copy(spec.labels), where = copy(work.where),
    cores = work.cores, command = work.command and copy(work.command), script = work.script and work.script.path,
  }
end

return job
