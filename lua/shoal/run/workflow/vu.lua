--- workflow.vu: the virtual user, the object that a workflow's script gets.
---
---     vu.id, vu.iteration         numbers: the user within its part from 1, the iteration within the whole workflow from 1
---     vu.env, vu.data             the job's environment; the value that `setup` returned
---     vu.job, vu.workflow, vu.part, vu.attempt
---     vu.http:get(url, options)   also head, delete, options, post, put, patch, request{ method, url, headers, body, ... }
---     vu:check(name, passed)      counts it, and returns whether it passed
---     vu:count(name, n)           a whole number
---     vu:time(name, ms)           into a histogram
---     vu:sleep(ms)  vu:random(n)  vu:now_ms()  vu:log(text)
---
---     vu.http:clear_cookies()     with http = { cookies = true }: a user keeps its cookies over its iterations
---
--- Options of a request: headers, body, name, timeout_ms, expect, response_body, max_body_bytes, redirects, compressed (http/request.lua).
--- A script's `http = { ... }` sets them for all its requests, and besides `cookies = true` and `keep_alive = false`. A mistake in a
--- request raises at the line of the script. Options are never ignored: an unknown one is a mistake.
---
--- Every request has the headers X-Shoal-Job, X-Shoal-Part and X-Shoal-Attempt, so that a target's log can be compared with our
--- numbers. It is recorded under its `name`; by default under "METHOD /path" without the query. A status of 400 or more is an error of
--- kind "http", unless `expect` says which are right; a request without a response has a kind of http.kind. Redirects are responses; one that
--- is followed (`redirects = 5`) is recorded by itself, and the next request as one more, counted in `redirected`.
---
--- Requests of setup and teardown are recorded apart, and are in no rate or quantile of the load.
---
--- A name is text. A part records at most 200 names of each kind (requests, checks, counters, timers, kinds of errors), each of at most
--- 200 bytes; the others share the name "(other)", which is ours: no script can give it. A script that requests /item/1, /item/2, ...
--- should name its requests, or most of them appear there (job/stats/names.lua).
local blame = require "shoal.run.workflow.blame"
local errors = require "shoal.base.errors"
local http = require "shoal.run.http"
local names = require "shoal.job.stats.names"
local task = require "shoal.base.task"

local vu = {}

local URLS_MAX, URL_BYTES_MAX = 3200, 1000 -- Limits of the cache from url to name.
local NS_PER_MS = 1000000
local COUNT_MAX = 1 << 53

-- Requests -------------------------------------------------------------------------------------------------------------

local Http = {}
Http.__index = Http

--- The name under which a request is recorded.
local function name_of(part, method, url)
  local known = part.names[method]
  if not known then
    known = {}
    part.names[method] = known
  end
  local name = known[url]
  if name then return name end
  local path = url:match("^[^?#]*"):gsub("^%a+://[^/]*", "")
  name = method .. " " .. (path == "" and "/" or path)
  if part.urls_count < URLS_MAX and #url <= URL_BYTES_MAX then known[url], part.urls_count = name, part.urls_count + 1 end
  return name
end

--- What records the exchanges of a user. A redirect that is followed is one of its own, under "METHOD /path", or "NAME (redirect)".
local function recording(user, part)
  local recorder = part.recorder
  return function (r, hop, response, code, latency_ns, last)
    local kind, raised
    if not response then
      kind = http.kind(code)
    elseif last and r.expect ~= nil then
      local ok, fine = errors.handle("exec.vu", nil, http.expected, r.expect, response) -- It may be a function of the script.
      if not ok then raised = fine elseif not fine then kind = "http" end
    elseif last and response.status >= 400 then
      kind = "http"
    end
    local name = r.name
    if hop.count > 0 then
      local counts = recorder.counts
      counts.redirected = (counts.redirected or 0) + 1
      name = name and name .. names.REDIRECT
    end
    name = name or name_of(part, hop.method, hop.url)
    if user.phase then
      recorder:beside(user.phase, name, latency_ns, kind)
    elseif recorder.open_loop then -- The iteration waited for a free user: its first request is that much later than intended.
      recorder:request(name, latency_ns + user.late_ns, kind, response and response.body_bytes, latency_ns)
      user.late_ns = 0
    else
      recorder:request(name, latency_ns, kind, response and response.body_bytes)
    end
    if raised ~= nil then error(raised, 0) end
  end
end

--- Check a name that a script gives.
local function check_name(part, what, name)
  if type(name) ~= "string" then blame(part, what, "a name is text, found a " .. type(name)) end
  local why = names.reserved(name)
  if why then blame(part, what, why) end
end

--- The client of `vu.http`, when it is called as a method.
local function client_of(self, what)
  local client = type(self) == "table" and self.client
  if not client then error(("call it as %s(...), with a colon"):format(what), 3) end
  return client
end

--- Send a request, if it is one.
local function send(self, what, r, problem)
  if not r then blame(self.part, what, problem) end
  if r.name then check_name(self.part, what, r.name) end
  return self.client:send(r)
end

---@param options { url: string, method: string?, name: string?, headers: table?, body: string?, timeout_ms: number? }  and more: request.lua
---@return table? response, string? err, string? code
function Http:request(options)
  return send(self, "vu.http:request", client_of(self, "vu.http:request"):check(nil, nil, options))
end

local function short(method)
  local what = "vu.http:" .. method:lower()
  return function (self, url, options) return send(self, what, client_of(self, what):check(method, url, options)) end
end

Http.get, Http.head, Http.delete, Http.options = short "GET", short "HEAD", short "DELETE", short "OPTIONS"
Http.post, Http.put, Http.patch = short "POST", short "PUT", short "PATCH"

--- Forget this user's cookies.
function Http:clear_cookies()
  if self.client.jar then self.client.jar:clear() end
end

-- The user -------------------------------------------------------------------------------------------------------------

---@class VU
local User = {}
User.__index = User

function User:check(name, passed)
  check_name(self._part, "vu:check", name)
  self._part.recorder:check(name, passed)
  return passed and true or false
end

function User:count(name, n)
  check_name(self._part, "vu:count", name)
  if n == nil then n = 1 end
  local whole = type(n) == "number" and math.tointeger(n)
  if not whole then blame(self._part, "vu:count", "expected a whole number after the name, found " .. tostring(n)) end
  if whole > COUNT_MAX or whole < -COUNT_MAX then
    blame(self._part, "vu:count", ("%d is beyond 2^53, and sums of such numbers would not be exact"):format(whole))
  end
  local sum, would_be = self._part.recorder:count(name, whole)
  if not sum then blame(self._part, "vu:count", ("the sum of %q would be %d, beyond 2^53, and not exact"):format(name, would_be)) end
end

function User:time(name, ms)
  check_name(self._part, "vu:time", name)
  if type(ms) ~= "number" or not (ms >= 0 and ms < 1e12) then
    blame(self._part, "vu:time", "expected milliseconds after the name, found " .. tostring(ms))
  end
  self._part.recorder:time(name, math.floor(ms * NS_PER_MS))
end

function User:sleep(ms)
  if type(ms) ~= "number" or not (ms >= 0 and ms < 1e12) then blame(self._part, "vu:sleep", "expected milliseconds, found " .. tostring(ms)) end
  task.sleep(ms)
end

--- A random integer 1..n from this node's stream; without n, a fraction in [0, 1).
function User:random(n)
  if n ~= nil then
    local whole = type(n) == "number" and math.tointeger(n)
    if not whole or whole < 1 then blame(self._part, "vu:random", "expected a whole number from 1 on, or nothing") end
    return self._part.world:random(whole)
  end
  return self._part.world:unit()
end

function User:now_ms() return self._part.world:fresh_ns() / NS_PER_MS end -- luacheck: ignore self

function User:log(text) self._part.log(tostring(text)) end

--- Create one user of a part.
---@param part table  see workflow.lua
---@param id integer  0: the context of setup and teardown
---@param phase? "setup"|"teardown"
---@return VU user, table client  the caller closes the client
function vu.new(part, id, phase)
  local counts = part.recorder.counts
  local options = http.options(part.script and part.script.http)
  options.base_url, options.headers, options.reserved, options.timeout_ms = part.base_url, part.headers, "x-shoal-", part.request_timeout_ms
  function options.on_repeat() counts.repeated = (counts.repeated or 0) + 1 end -- A target may have received these twice.
  local user = setmetatable({
    id = id, iteration = 0, env = part.env, data = part.data, job = part.job, workflow = part.workflow, part = part.part,
    attempt = part.attempt, phase = phase, late_ns = 0, _part = part,
  }, User)
  options.on_exchange = recording(user, part)
  local client = http.client(part.world, options)
  user.http = setmetatable({ client = client, user = user, part = part }, Http)
  return user, client
end

return vu
