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
--- A part records at most 200 names of each kind (requests, checks, counters, timers, kinds of errors), each of at most 200 bytes; a
--- script that requests /item/1, /item/2, ... should name its requests, or most of them appear under "(other)" (job/stats/names.lua).
local http = require "shoal.run.http"
local task = require "shoal.base.task"

local vu = {}

local URLS_MAX, URL_BYTES_MAX = 3200, 1000 -- Limits of the cache from url to name.
local NS_PER_MS = 1000000

-- Requests -------------------------------------------------------------------------------------------------------------

local Http = {}
Http.__index = Http

--- The name under which a request is recorded.
local function name_of(part, method, url)
  local names = part.names[method]
  if not names then
    names = {}
    part.names[method] = names
  end
  local name = names[url]
  if name then return name end
  local path = url:match("^[^?#]*"):gsub("^%a+://[^/]*", "")
  name = method .. " " .. (path == "" and "/" or path)
  if part.urls_count < URLS_MAX and #url <= URL_BYTES_MAX then names[url], part.urls_count = name, part.urls_count + 1 end
  return name
end

--- Record one exchange. A redirect that is followed is one of its own, under "METHOD /path", or "NAME (redirect)".
local function record(user, part, r, hop, response, code, latency_ns, last)
  local kind
  if not response then kind = http.kind(code) elseif last and not http.expected(r.expect, response) then kind = "http" end
  local late_ns = user.late_ns
  if late_ns then -- Open loop: the latency of an iteration's first request runs from the iteration's due time.
    latency_ns, user.late_ns = latency_ns + late_ns, nil
  end
  local name = r.name
  if hop.count > 0 then
    local counts = part.recorder.counts
    counts.redirected = (counts.redirected or 0) + 1
    name = name and name .. " (redirect)"
  end
  part.recorder:request(name or name_of(part, hop.method, hop.url), latency_ns, kind, response and response.body_bytes)
end

--- Raise a problem at the line of the script that made the call, also through pcall or a tail call, which leaves none.
local function blame(part, what, problem)
  local path = part.work.script.path
  local level = 3
  while true do
    local frame = debug.getinfo(level, "Sl")
    if not frame then error(("%s: %s: %s"):format(path, what, problem), 0) end
    if frame.source == "@" .. path then error(("%s:%d: %s: %s"):format(path, frame.currentline, what, problem), 0) end
    level = level + 1
  end
end

---@param options { url: string, method: string?, name: string?, headers: table?, body: string?, timeout_ms: number? }  and more: request.lua
---@return table? response, string? err, string? code
function Http:request(options)
  local r, problem = self.client:check(nil, nil, options)
  if not r then blame(self.part, "vu.http:request", problem) end
  return self.client:send(r)
end

local function short(method)
  local what = "vu.http:" .. method:lower()
  return function (self, url, options)
    local r, problem = self.client:check(method, url, options)
    if not r then blame(self.part, what, problem) end
    return self.client:send(r)
  end
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
  if type(name) ~= "string" then error("vu:check: expected a name and whether it passed", 2) end
  self._part.recorder:check(name, passed)
  return passed and true or false
end

function User:count(name, n)
  if n == nil then n = 1 end
  n = type(n) == "number" and math.tointeger(n)
  if type(name) ~= "string" or not n then error("vu:count: expected a name and a whole number", 2) end
  self._part.recorder:count(name, n)
end

function User:time(name, ms)
  if type(name) ~= "string" or type(ms) ~= "number" or not (ms >= 0 and ms < 1e12) then
    error("vu:time: expected a name and milliseconds", 2)
  end
  self._part.recorder:time(name, math.floor(ms * NS_PER_MS))
end

function User:sleep(ms) -- luacheck: ignore self
  if type(ms) ~= "number" or not (ms >= 0 and ms < 1e12) then error("vu:sleep: expected milliseconds", 2) end
  task.sleep(ms)
end

--- A random integer 1..n from this node's stream; without n, a fraction in [0, 1).
function User:random(n)
  if n ~= nil then
    local whole = type(n) == "number" and math.tointeger(n)
    if not whole or whole < 1 then error("vu:random: expected a whole number from 1 on, or nothing", 2) end
    return self._part.world:random(whole)
  end
  return self._part.world:unit()
end

function User:now_ms() return self._part.world:fresh_ns() / NS_PER_MS end -- luacheck: ignore self

function User:log(text) self._part.log(tostring(text)) end

--- Create one user of a part.
---@param part table  see workflow.lua
---@param id integer  0: the context of setup and teardown
---@return VU user, table client  the caller closes the client
function vu.new(part, id)
  local counts = part.recorder.counts
  local options, user = http.options(part.script and part.script.http), nil
  options.base_url, options.headers, options.reserved, options.timeout_ms = part.base_url, part.headers, "x-shoal-", part.request_timeout_ms
  function options.on_repeat() counts.repeated = (counts.repeated or 0) + 1 end -- A target may have received these twice.
  function options.on_exchange(...) record(user, part, ...) end
  local client = http.client(part.world, options)
  user = setmetatable({
    id = id, iteration = 0, env = part.env, data = part.data, job = part.job, workflow = part.workflow, part = part.part,
    attempt = part.attempt, _part = part,
  }, User)
  user.http = setmetatable({ client = client, user = user, part = part }, Http)
  return user, client
end

return vu
