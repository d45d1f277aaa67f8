--- client: submit jobs, follow them, ask about them.
---
---     local c = client.open(node, { "127.0.0.1:7000" })
---     local id = assert(c:submit(spec_bytes, "a key of mine"))
---     local final = c:follow(id, { stats = function (s) print(#s.parts) end })
---     print(final.state, final.result.stats.requests)
---
--- A push (job.status, job.stats, job.result, or job.push with several of these) is handled in three steps, and FAILURES 1.4 holds at
--- each: an unreadable push is one incident and is answered `error`; the state changes, and its waiters wake, before the user's
--- code runs; a callback that raises is one incident, and the push is still answered `ok`. A push of an earlier leadership than one that has
--- pushed already is refused with `stale`, which is one incident.
local backoff = require "shoal.base.backoff"
local errors = require "shoal.base.errors"
local feed = require "shoal.job.feed"
local messages = require "shoal.wire.messages"
local msgpack = require "shoal.core.msgpack"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local client = {}
client.__index = client

local FINAL = { completed = true, failed = true, cancelled = true, timed_out = true }
local CALL_MS = 5000
local QUIET_MS = 2000 -- After so long without a push, ask for the watch again, wherever a leader answers.
local WATCH_MS = 2500 -- The longest timeout of that request, ...
local WATCH_LEAST_MS = 250 -- ... and the shortest, when `gone` is due.
local READY_MS = 10000 -- A gate that has just started learns of its datacenters within this time.
local GONE_MS = 4500  -- After so long without an answer from any leader, call the follower's `gone`: people hear of it within 5 s.
-- How long after the job's own limit a follower gives up: when no leader answers, and when one answers but the job has not ended.
local GONE_SLACK_MS, OVERDUE_SLACK_MS = 15000, 120000

local PUSHES = {
  ["job.status"] = { kind = "status", site = "client.push.job_status", callback = "client.callback.status" },
  ["job.stats"] = { kind = "stats", site = "client.push.stats", callback = "client.callback.stats" },
  ["job.result"] = { kind = "result", site = "client.push.result", callback = "client.callback.result" },
}

---@param node table
---@param addresses string[]  gates or managers, "ip:port", tried in order
---@return table? client, string? err, string? code  "CONFIG" without an address
function client.open(node, addresses)
  if #addresses == 0 then return nil, "connect: a client needs the address of a gate or manager, such as 127.0.0.1:7000", "CONFIG" end
  local self = setmetatable({
    node = node, addresses = addresses, at = 1, jobs = {}, stale = 0, scope = task.scope("client", node.scope),
  }, client)
  for name, push in sorted(PUSHES) do
    node.rpc:raw(name, function (bytes, peer) return self:push(name, push, bytes, peer) end)
  end
  node.rpc:raw("job.push", function (bytes, peer) return self:push_all(bytes, peer) end)
  -- Pushes came over this connection: each follower asks again now instead of after QUIET_MS.
  self.unwatch = node.rpc:watch(function (_, event)
    if event ~= "down" then return end
    for _, known in sorted(self.jobs) do
      for _, j in ipairs(known.followers) do j.heard_ms = -QUIET_MS end
    end
  end)
  return self
end

-- Pushes ---------------------------------------------------------------------------------------------------------------

--- Call the follower's `gone` or `back`, if it gave one.
local function call_back(j, kind, address, ...)
  local fn = j.callbacks[kind]
  if not fn then return end
  local ids = { handler = kind, sender = address, payload_bytes = 0, job = j.job, workflow = "", sequence = j.seq, stage = "callback" }
  errors.call(kind == "gone" and "client.callback.gone" or "client.callback.back", ids, fn, address, ...)
end

--- A leader of this job pushed or answered.
local function answered(self, j)
  j.answered_ms, j.err = task.now_ms(), nil
  if not j.gone then return end
  j.gone = false
  call_back(j, "back", self.addresses[self.at])
end

--- Whether this event is the next one of this follower. One that began to follow later waits for those that are pushed again for it.
local function is_next(known, j, body)
  if body.seq <= j.seq then return false end
  if body.seq == j.seq + 1 or body.truncated_from == body.seq then return true end
  return j.seq == 0 and (known.seq == 0 or feed.is_first(body.seq))
end

--- Apply an event to the state of one follower.
local function apply(self, j, kind, body)
  j.seq, j.heard_ms = body.seq, task.now_ms()
  answered(self, j)
  if kind == "result" and body.body.workflow == "" then j.result = body.body.result end
  if kind == "status" and FINAL[body.body.state] and not body.body.workflow then
    j.state, j.reason = body.body.state, body.body.reason
    j.done:set(true)
  elseif kind == "status" then
    j.state = body.body.state
  end
end

--- Apply an event to the state of the job's followers. Returns those that had not had it.
local function take(self, kind, body)
  local known, fresh = self.jobs[body.job], {}
  if not known then return fresh end
  if known.seq > 0 and body.seq > known.seq + 1 and body.truncated_from ~= body.seq then
    error(("event %d follows event %d"):format(body.seq, known.seq))
  end
  for _, j in ipairs(known.followers) do
    if is_next(known, j, body) then fresh[#fresh + 1] = j end
  end
  known.seq = math.max(known.seq, body.seq)
  for _, j in ipairs(fresh) do apply(self, j, kind, body) end
  return fresh
end

--- The ids of a push that cannot be decoded: its job, workflow and sequence, each "?" unless it has the right type.
local function glimpse(bytes)
  local map = msgpack.unpack(bytes)
  map = type(map) == "table" and map or {}
  local body = type(map.body) == "table" and map.body or {}
  return type(map.job) == "string" and map.job or "?", type(body.workflow) == "string" and body.workflow or "?",
    math.type(map.seq) == "integer" and map.seq or "?"
end

--- Whether a push comes from an earlier leadership of its job than the greatest that has pushed.
local function is_stale(self, body)
  local known, fence = self.jobs[body.job], body.fence
  if not known or not fence then return false end
  known.fence = math.max(known.fence or 0, fence)
  return fence < known.fence
end

local function refuse_stale(self, name, site, body, bytes, peer)
  self.stale = self.stale + 1
  errors.report(site, {
    handler = name, sender = peer:name(), payload_bytes = bytes, job = body.job, workflow = "", sequence = body.seq, stage = "state",
  }, ("a push of the leadership with fence %d, and one with %d has pushed"):format(body.fence, self.jobs[body.job].fence), "STALE")
  return "stale"
end

--- Handle a push of any kind. Returns the answer's bytes.
function client:push(name, push, bytes, peer)
  local body, err, code = messages.decode(name, bytes)
  if not body then
    local job, workflow, sequence = glimpse(bytes)
    errors.report(push.site, {
      handler = name, sender = peer:name(), payload_bytes = #bytes, job = job, workflow = workflow, sequence = sequence, stage = "parse",
    }, err, code)
    return "error"
  end
  if is_stale(self, body) then return refuse_stale(self, name, push.site, body, #bytes, peer) end
  return self:event(name, push, body, peer, #bytes)
end

local BY_KIND = { status = "job.status", stats = "job.stats", result = "job.result" }

--- Several events in one message; each is handled as if it had come alone.
function client:push_all(bytes, peer)
  local body, err, code = messages.decode("job.push", bytes)
  if not body then
    local job, _, sequence = glimpse(bytes)
    errors.report("client.push.job_status", {
      handler = "job.push", sender = peer:name(), payload_bytes = #bytes, job = job, workflow = "?", sequence = sequence, stage = "parse",
    }, err, code)
    return "error"
  end
  if is_stale(self, body) then return refuse_stale(self, "job.push", "client.push.job_status", body, #bytes, peer) end
  local answer = "ok"
  for i, event in ipairs(body.events) do
    local name = BY_KIND[event.kind]
    local one = { job = body.job, seq = event.seq, truncated_from = i == 1 and body.truncated_from or nil, body = event.body }
    if self:event(name, PUSHES[name], one, peer, #bytes) ~= "ok" then answer = "error" end
  end
  return answer
end

--- Handle one event: first the state, then the user's code. Returns the answer's bytes.
---@param bytes integer  of the message that it came with
function client:event(name, push, body, peer, bytes)
  if type(body.body) ~= "table" then
    errors.report(push.site, {
      handler = name, sender = peer:name(), payload_bytes = bytes, job = body.job, workflow = "?", sequence = body.seq, stage = "parse",
    }, "the event's body is no table", "MALFORMED")
    return "error"
  end
  local ids = {
    handler = name, sender = peer:name(), payload_bytes = bytes, job = body.job, workflow = body.body.workflow or "",
    sequence = body.seq, stage = "state",
  }
  local ok, fresh = errors.call(push.site, ids, take, self, push.kind, body)
  if not ok then return "error" end
  ids.stage = "callback"
  for _, j in ipairs(fresh) do
    local callback = j.callbacks[push.kind]
    if callback and not j.left then errors.call(push.callback, ids, callback, body.body) end
  end
  return "ok"
end

-- Calls ----------------------------------------------------------------------------------------------------------------

local AGAIN = { TIMEOUT = true, DISCONNECTED = true, CIRCUIT = true, ECONNREFUSED = true, ETIMEDOUT = true, ECONNRESET = true,
  NOT_LEADER = true, CLOSED = true, UNKNOWN = true, OVERLOADED = true, FULL = true, NOT_READY = true, EHOSTUNREACH = true, EPIPE = true }

--- Call the addresses in turn, the last that answered first. A refusal is an answer; silence moves on to the next address, and so does
--- "NOT_FOUND": another one may lead the job. It is the answer only if all of them gave it.
---@return table? reply, string? err, string? code
function client:call(name, body, timeout_ms)
  local err, code
  local first, count = self.at, #self.addresses -- Other calls move on meanwhile: this one asks each address once.
  for i = 0, count - 1 do
    local at = (first + i - 1) % count + 1
    local reply, why, word = self.node.rpc:peer(self.addresses[at]):call(name, body, {
      timeout_ms = timeout_ms or CALL_MS, hurry = name == "job.watch", -- It asks who is there, again and again.
    })
    if reply or not AGAIN[word] and word ~= "NOT_FOUND" then
      self.at = at
      return reply, why, word
    end
    if not code or code == "NOT_FOUND" then err, code = why, word end
    self.at = at % count + 1
  end
  return nil, err, code
end

--- Submit a job. Retries use the same idempotency key, so they create one job. They go on for patience_ms while no leader answers,
--- and for at least READY_MS while a leader answers that it is not ready.
---@param spec string   job.encode's bytes
---@param key string    the idempotency key
---@param patience_ms? number
---@param origin? string  the submitter, as user@host
---@return string? job, string? err, string? code  "DUPLICATE" with a job: the key was known
---@return table? reply
function client:submit(spec, key, patience_ms, origin)
  local first_err, first_code
  local wait = backoff.new(self.node.world, { base_ms = 200, cap_ms = 2000 })
  local began_ms = task.now_ms()
  while true do
    local reply, err, code = self:call("job.submit", { key = key, spec = spec, origin = origin })
    if reply then return reply.job, nil, reply.duplicate and "DUPLICATE" or nil, reply end
    if not AGAIN[code] then return nil, err, code end
    if code ~= "CIRCUIT" then first_err, first_code = err, code end -- Prefer the error that opened the circuit to CIRCUIT itself.
    local patience = patience_ms or READY_MS
    if code == "NOT_READY" then patience = math.max(patience, READY_MS) end
    if task.now_ms() - began_ms >= patience then return nil, first_err or err, first_code or code end
    task.sleep(wait:next())
  end
end

--- The job goes on and we leave: tell its leader, so that it stops pushing before it sees the connection end.
local function unwatch(self, id, address)
  self.node.rpc:peer(address):send("job.unwatch", { job = id }, { on_fail = function (err, code)
    errors.report("client.watch", { job = id, address = address }, err, code)
  end })
end

--- A call follows the job, until what this returns is closed.
local function joined(self, id, j)
  local known = self.jobs[id]
  if not known then
    known = { followers = {}, seq = 0 } -- seq: of the last event that one of them had; watching: the leader that pushes to us.
    self.jobs[id] = known
  end
  table.insert(known.followers, j)
  return setmetatable({}, { __close = function ()
    j.left = true
    for i, other in ipairs(known.followers) do
      if other == j then table.remove(known.followers, i) end
    end
    if #known.followers > 0 then return end
    self.jobs[id] = nil
    if known.watching and not j.done:state() then unwatch(self, id, known.watching) end
  end })
end

--- How long until `gone` is due.
local function until_gone_ms(j)
  return j.gone and math.huge or math.max(1, j.answered_ms + GONE_MS - task.now_ms())
end

--- No leader answered: after GONE_MS of that, call the follower's `gone` once.
local function unanswered(j, address, err, code)
  j.err, j.code = err, code
  local silent_ms = task.now_ms() - j.answered_ms
  if j.gone or silent_ms < GONE_MS then return end
  j.gone = true
  call_back(j, "gone", address, silent_ms, err, code)
end

--- The reason to stop following, if there is one: the caller's limit, or the job's own limit plus slack.
---@return string? err, string? code
local function given_up(j, limits)
  local ran_ms = task.now_ms() - j.began_ms
  if limits.limit_ms and ran_ms >= limits.limit_ms then return "the job goes on", "TIMEOUT" end
  if not limits.job_ms then return nil end
  if j.gone and ran_ms >= limits.job_ms + GONE_SLACK_MS then
    return ("no leader has answered for %.0f s, and the job's own limit is over"):format((task.now_ms() - j.answered_ms) / 1000), "UNREACHABLE"
  end
  if ran_ms >= limits.job_ms + OVERDUE_SLACK_MS then
    return ("the job has not ended %.0f s after its own limit"):format((ran_ms - limits.job_ms) / 1000), "OVERDUE"
  end
end

--- Ask a leader to push the events behind the last one. False: try again.
---@return string|false|nil address, string? err, string? code  nil: no leader knows the job
local function watch(self, id, j)
  local known, last = self.jobs[id], j.seq
  for _, other in ipairs(known.followers) do last = math.min(last, other.seq) end -- One watch serves all.
  local timeout_ms = math.max(WATCH_LEAST_MS, math.min(WATCH_MS, until_gone_ms(j) // #self.addresses))
  local reply, err, code = self:call("job.watch", { job = id, from_seq = last + 1 }, math.floor(timeout_ms))
  if reply then
    j.heard_ms = task.now_ms()
    answered(self, j)
    known.watching = self.addresses[self.at]
    return known.watching
  end
  if code == "NOT_FOUND" then return nil, err, code end
  errors.report("client.watch", { job = id, address = self.addresses[self.at] }, err, code)
  return false, err, code
end

--- Follow a job to its end. Several calls may follow one job: each hears all of it. Callbacks get each event's body once, in order, over
--- reconnects too; `gone(address, silent_ms, err, code)` is called once when no leader has answered for 4.5 s, `back(address)` when one answers
--- again. The client keeps retrying. It ends with "TIMEOUT" after limit_ms, with "UNREACHABLE" 15 s after the job's own limit if no leader
--- answers, and with "OVERDUE" 120 s after the limit if one does.
---@param id string
---@param callbacks? { status?: fun(body: table), stats?: fun(body: table), result?: fun(body: table), gone?: fun(address: string,
---  silent_ms: number, err: string, code: string), back?: fun(address: string) }
---@param limits? number | { limit_ms?: number, job_ms?: number }  a number: limit_ms; job_ms: the job's timeout_ms
---@return { state: string, reason: string?, result: table? }? final, string? err, string? code
function client:follow(id, callbacks, limits)
  limits = type(limits) == "table" and limits or { limit_ms = limits }
  local now_ms = task.now_ms()
  local j = { job = id, seq = 0, callbacks = callbacks or {}, done = task.future("job " .. id), heard_ms = now_ms, answered_ms = now_ms,
    began_ms = now_ms, gone = false, state = "submitted" }
  local free <close> = joined(self, id, j) -- luacheck: ignore free
  local watching -- The address of the leader that pushes to us.
  local wait = backoff.new(self.node.world, { base_ms = 200, cap_ms = QUIET_MS })
  while true do
    if j.err then unanswered(j, self.addresses[self.at], j.err, j.code) end
    if not watching or task.now_ms() - j.heard_ms >= QUIET_MS then
      local before, address, err, code = watching, watch(self, id, j)
      watching = address
      if watching == nil then return nil, err, code end
      if watching then
        wait:reset()
      else
        unanswered(j, before or self.addresses[self.at], err, code)
        task.sleep(math.min(wait:next(), until_gone_ms(j)))
      end
    end
    local left_ms = limits.limit_ms and math.max(1, limits.limit_ms - (task.now_ms() - j.began_ms)) or math.huge
    local done = j.done:await(math.min(500, until_gone_ms(j), left_ms))
    if done then return { state = j.state, reason = j.reason, result = j.result } end
    local err, code = given_up(j, limits)
    if err then return nil, err, code end
  end
end

function client:cancel(id, reason) return self:call("job.cancel", { job = id, reason = reason }) end

function client:close()
  self.unwatch()
  self.scope:close()
end

return client
