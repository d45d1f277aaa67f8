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
--- Every request has the headers X-Shoal-Job, X-Shoal-Part and X-Shoal-Attempt, so that a target's log can be compared with our
--- numbers. It is recorded under its `name`; by default under "METHOD /path" without the query. A status of 400 or more is an error of
--- kind "http"; a request without a response has a kind of http.kind. Redirects are responses.
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

--- Check a request's types before it is sent, so that a mistake is reported at the script's line.
local function check_request(r, level)
  if type(r) ~= "table" then error("vu.http: expected a table such as { url = ... }, found a " .. type(r), level + 1) end
  if type(r.url) ~= "string" then error("vu.http: url: expected a string, found a " .. type(r.url), level + 1) end
  for _, field in ipairs { "name", "method" } do
    local value = r[field]
    if value ~= nil and type(value) ~= "string" then
      error(("vu.http: %s: expected a string, found a %s"):format(field, type(value)), level + 1)
    end
  end
end

--- Send a request, and record it.
local function request(self, r)
  local user, part = self.user, self.part
  local method = r.method or "GET"
  local started_ns = part.world:fresh_ns()
  local response, err, code = self.client:request(r)
  local latency_ns, kind, bytes_in
  if response then
    latency_ns, bytes_in = response.latency_ns, #response.body
    if response.status >= 400 then kind = "http" end
  else
    latency_ns, kind = part.world:fresh_ns() - started_ns, http.kind(code)
  end
  local late_ns = user.late_ns
  if late_ns then -- Open loop: the latency of an iteration's first request runs from the iteration's due time.
    latency_ns, user.late_ns = latency_ns + late_ns, nil
  end
  part.recorder:request(r.name or name_of(part, method, r.url), latency_ns, kind, bytes_in)
  return response, err, code
end

---@param r { method: string?, url: string, name: string?, headers: table?, body: string?, timeout_ms: number? }
---@return table? response, string? err, string? code
function Http:request(r)
  check_request(r, 2)
  return request(self, r)
end

local function short(method)
  return function (self, url, options)
    if type(url) ~= "string" then error(("vu.http:%s: expected a url, found a %s"):format(method:lower(), type(url)), 2) end
    local r = { method = method, url = url }
    if options then
      if type(options) ~= "table" then
        error(("vu.http:%s: options must be a table such as { body = ... }, found a %s"):format(method:lower(), type(options)), 2)
      end
      for k, v in next, options do r[k] = v end
    end
    check_request(r, 2)
    return request(self, r)
  end
end

Http.get, Http.head, Http.delete, Http.options = short "GET", short "HEAD", short "DELETE", short "OPTIONS"
Http.post, Http.put, Http.patch = short "POST", short "PUT", short "PATCH"

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
  local client = http.client(part.world, {
    base_url = part.base_url, headers = part.headers, timeout_ms = part.request_timeout_ms,
    on_repeat = function () counts.repeated = (counts.repeated or 0) + 1 end, -- A target may have received these twice.
  })
  local user = setmetatable({
    id = id, iteration = 0, env = part.env, data = part.data, job = part.job, workflow = part.workflow, part = part.part,
    attempt = part.attempt, _part = part,
  }, User)
  user.http = setmetatable({ client = client, user = user, part = part }, Http)
  return user, client
end

return vu
