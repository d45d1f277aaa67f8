--- http.client: requests over kept-alive connections, for one virtual user (or any task).
---
---   request: a connection from the pool, or connect -> write -> read one whole response -> back into the pool, or close
---
--- A connection serves one request at a time; a task that ends half-way closes its connection. If the server closed a kept connection
--- just as we wrote, before any byte of an answer, the client retries once on a fresh one, for idempotent methods only (RFC 9110,
--- 9.2.2). Any other loss is an error of the request.
---
--- A request is cheap: its bytes are one concatenation, addresses and heads are cached per host, and it allocates only the response
--- and the future that waits for it.
local core = require "shoal.core.http"
local task = require "shoal.base.task"

local client = {}

local TIMEOUT_MS = 30000
local CONNECT_TIMEOUT_MS = 10000
local RESOLVED_NS = 60 * 1000000000 -- A name is looked up again after a minute.
local URLS_MAX = 4096 -- The cache of a client; a script that generates URLs must not fill memory.
local MAY_REPEAT = { GET = true, HEAD = true, PUT = true, DELETE = true, OPTIONS = true }
local HAS_BODY = { POST = true, PUT = true, PATCH = true }

-- Connections ----------------------------------------------------------------------------------------------------------

local Connection = {}
Connection.__index = Connection

--- The task ended in the middle of a request: the connection cannot be reused.
Connection.__close = function (self)
  if self.busy then self:close() end
end

--- Complete the future. Its waiter runs before this returns, so do not touch the connection afterwards.
local function settle(self, value, err, code)
  local waiting = self.waiting
  self.waiting = nil
  if waiting then waiting:settle(value, err, code) end
end

function Connection:close()
  if self.closed then return end
  self.closed, self.busy = true, false
  self.owner:forget(self)
  self.stream:close()
end

function Connection:on_open(err, code)
  if err then self.broken = true end
  settle(self, not err or nil, err, code)
end

function Connection:on_read(bytes)
  if not self.reading then -- No request is in flight: a connection with unexpected bytes cannot be trusted with the next one.
    self:close()
    return
  end
  self.received = true
  local message, next_or_err, code = self.parser:feed(bytes)
  if message == false then return end
  self.reading = false
  if message then
    self.ended_ns = self.world:fresh_ns()
    if not message.keep_alive or next_or_err <= #bytes then self.broken = true end
    settle(self, message)
  else
    self.broken = true
    settle(self, nil, next_or_err, code)
  end
end

function Connection:on_end(err, code)
  self.broken = true
  if self.reading then
    self.reading = false
    local message, problem, problem_code
    if not err then message, problem, problem_code = self.parser:finish() end
    if message then
      self.ended_ns = self.world:fresh_ns()
      settle(self, message)
    elseif self.received and problem then
      settle(self, nil, problem, problem_code)
    else
      settle(self, nil, err or "the server closed the connection without an answer", code or "DISCONNECTED")
    end
  elseif self.waiting then
    settle(self, nil, err or "the connection ended", code or "DISCONNECTED")
  elseif not self.busy then
    self:close()
  end
end

--- Wait for an event handler to complete the future. A timeout makes the connection unusable.
local function wait(self, timeout_ms)
  local future = task.future("http")
  self.waiting = future
  return future:await(timeout_ms)
end

-- The client -----------------------------------------------------------------------------------------------------------

---@class HttpClient
local Client = {}
Client.__index = Client

--- A header's name and value, as a script gives them; a line break would start a second header or a second request.
local function header_line(name, value)
  value = tostring(value)
  if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+.^_`|~-]+$") then
    error(("http: %q is not a header name"):format(tostring(name)), 4)
  end
  if value:find("[%z\r\n]") then error(("http: the value of header %s has a line break or zero byte"):format(name), 4) end
  return name .. ": " .. value .. "\r\n"
end

local function header_lines(headers)
  if not headers then return "" end
  local lines = {}
  for name, value in next, headers do lines[#lines + 1] = header_line(name, value) end -- order-free: sorted below
  table.sort(lines)
  return table.concat(lines)
end

---@class HttpClientOptions
---@field base_url? string  "http://host:port": the host of targets that begin with "/"
---@field headers? table<string, string>  sent with every request
---@field timeout_ms? number  of a whole request; default 30 s
---@field connect_timeout_ms? number  of the connect; default 10 s
---@field body_bytes? integer  limit of a response's body; default 16 MiB
---@field on_repeat? fun()  a request was sent again over a fresh connection (see above)
---@field keep_alive? boolean  false: one request a connection

---@param world table
---@param options? HttpClientOptions
---@return HttpClient
function client.new(world, options)
  options = options or {}
  local self = setmetatable({
    world = world, timeout_ms = options.timeout_ms or TIMEOUT_MS, connect_timeout_ms = options.connect_timeout_ms or CONNECT_TIMEOUT_MS,
    limits = options.body_bytes and { body_bytes = options.body_bytes } or nil, keep_alive = options.keep_alive ~= false,
    fixed = header_lines(options.headers), urls = {}, urls_count = 0, idle = {}, all = {}, repeated = 0, connected = 0,
    on_repeat = options.on_repeat, base_url = options.base_url and options.base_url:gsub("/+$", "") or nil,
  }, Client)
  if not self.keep_alive then self.fixed = self.fixed .. "Connection: close\r\n" end
  return self
end

--- A URL as { host, port, key, target, tail }, cached; `tail` is the rest of the request's head after the target.
local function locate(self, url)
  local place = self.urls[url]
  if place then return place end
  local full = url
  if url:sub(1, 1) == "/" then
    if not self.base_url then return nil, ("url %s has no host, and the client no base_url"):format(url), "MALFORMED" end
    full = self.base_url .. url
  end
  local scheme, host, port, target = core.url(full)
  if not scheme then return nil, host, port end
  if scheme ~= "http" then
    return nil, ("url %s: %s is not supported yet, only http"):format(full, scheme), "UNSUPPORTED"
  end
  local shown = host:find(":", 1, true) and "[" .. host .. "]" or host
  local key = shown .. ":" .. port
  place = {
    host = host, port = port, key = key, target = target,
    tail = " HTTP/1.1\r\nHost: " .. (port == 80 and shown or key) .. "\r\n" .. self.fixed,
    numeric = (host:find("^[%d.]+$") or host:find(":", 1, true)) and key or nil,
  }
  if self.urls_count >= URLS_MAX then self.urls, self.urls_count = {}, 0 end
  self.urls[url], self.urls_count = place, self.urls_count + 1
  return place
end

local resolved = setmetatable({}, { __mode = "k" }) -- By world: names and their addresses.

local function address_of(self, place, timeout_ms)
  if place.numeric then return place.numeric end
  local world = self.world
  local names = resolved[world]
  if not names then
    names = {}
    resolved[world] = names
  end
  local known = names[place.key]
  if known and world:now_ns() < known.until_ns then return known.address end
  local future = task.future("http.resolve")
  local started, err, code = world:resolve(place.host, place.port, function (addresses, problem, problem_code)
    future:settle(addresses, problem, problem_code)
  end)
  if started == nil and err then
    future:drop("the lookup did not begin")
    return nil, err, code
  end
  local addresses
  addresses, err, code = future:await(timeout_ms)
  if not addresses then return nil, err, code end
  names[place.key] = { address = addresses[1], until_ns = world:now_ns() + RESOLVED_NS }
  return addresses[1]
end

--- A fresh open connection, or the error.
local function connect(self, place, deadline_ms)
  local function left() return math.max(0, math.min(self.connect_timeout_ms, deadline_ms - task.now_ms())) end
  local address, err, code = address_of(self, place, left())
  if not address then return nil, err, code end
  local c = setmetatable({
    owner = self, world = self.world, key = place.key, parser = core.parser("response", self.limits), busy = true, reused = false,
  }, Connection)
  c.stream, err, code = self.world:connect(address, {
    on_open = function (_, problem, problem_code) c:on_open(problem, problem_code) end,
    on_read = function (_, bytes) c:on_read(bytes) end,
    on_end = function (_, problem, problem_code) c:on_end(problem, problem_code) end,
  })
  if not c.stream then return nil, err, code end
  self.all[#self.all + 1] = c
  local _ <close> = c
  local open
  open, err, code = wait(c, left())
  if not open then
    c:close()
    return nil, ("connect to %s: %s"):format(place.key, err), code
  end
  self.connected = self.connected + 1
  c.busy = false -- It is claimed again below, so the guard has nothing to close.
  return c
end

local function take(self, place, deadline_ms)
  local idle = self.idle[place.key]
  local c = idle and table.remove(idle)
  if c then
    c.reused = true
    return c
  end
  return connect(self, place, deadline_ms)
end

--- A connection closed: remove it from all lists.
function Client:forget(c)
  for _, list in ipairs { self.all, self.idle[c.key] } do
    for i = #list, 1, -1 do
      if list[i] == c then table.remove(list, i) end
    end
  end
end

--- One exchange on this connection. The last value is true if the request may not have reached the server.
local function exchange(self, c, bytes, is_head, deadline_ms)
  local _ <close> = c
  c.busy, c.reading, c.received = true, true, false
  if is_head then c.parser:expect_no_body() end
  local written, err, code = c.stream:write(bytes)
  local response
  if written then response, err, code = wait(c, math.max(0, deadline_ms - task.now_ms())) end
  local ended_ns = c.ended_ns
  if not response then
    local stale = c.reused and not c.received and code ~= "TIMEOUT"
    c:close()
    return nil, err, code, stale
  end
  c.busy = false
  if c.broken or not self.keep_alive or self.closed then
    c:close()
  else
    local idle = self.idle[c.key]
    if not idle then
      idle = {}
      self.idle[c.key] = idle
    end
    idle[#idle + 1] = c
  end
  return response, ended_ns
end

--- Make a request and wait for its response.
---@param r { method: string?, url: string, headers: table<string, string>?, body: string?, timeout_ms: number? }
---@return table? response  { status, headers, body, keep_alive, latency_ns }
---@return string? err
---@return string? code  of the world (ECONNREFUSED, NO_NAME, ...), or TIMEOUT, DISCONNECTED, MALFORMED, TOO_LARGE, UNSUPPORTED
function Client:request(r)
  local world = self.world
  local started_ns = world:fresh_ns()
  local method, body = r.method or "GET", r.body
  local place, err, code = locate(self, r.url)
  if not place then return nil, err, code end
  local bytes = method .. " " .. place.target .. place.tail
  if r.headers then bytes = bytes .. header_lines(r.headers) end
  if body then
    bytes = bytes .. "Content-Length: " .. #body .. "\r\n\r\n" .. body
  elseif HAS_BODY[method] then
    bytes = bytes .. "Content-Length: 0\r\n\r\n"
  else
    bytes = bytes .. "\r\n"
  end
  local timeout_ms = r.timeout_ms or self.timeout_ms
  local deadline_ms = task.now_ms() + timeout_ms
  local c, response, stale
  c, err, code = take(self, place, deadline_ms)
  if c then
    response, err, code, stale = exchange(self, c, bytes, method == "HEAD", deadline_ms)
    if stale and MAY_REPEAT[method] then
      self.repeated = self.repeated + 1
      if self.on_repeat then self.on_repeat() end
      c, err, code = connect(self, place, deadline_ms)
      if c then response, err, code = exchange(self, c, bytes, method == "HEAD", deadline_ms) end
    end
  end
  if not response then
    if code == "TIMEOUT" then err = ("%s %s: no answer within %g ms"):format(method, r.url, timeout_ms) end
    return nil, err, code
  end
  response.latency_ns = err - started_ns -- exchange returned the instant as its second value.
  return response
end

local function with(method)
  return function (self, url, options)
    local r = options or {}
    return self:request { method = method, url = url, headers = r.headers, body = r.body, timeout_ms = r.timeout_ms }
  end
end

--- The short forms: client:get(url, { headers, timeout_ms }), and those with a body.
Client.get, Client.head, Client.delete, Client.options = with "GET", with "HEAD", with "DELETE", with "OPTIONS"
Client.post, Client.put, Client.patch = with "POST", with "PUT", with "PATCH"

--- Close every connection; the requests under way fail. Idempotent.
function Client:close()
  self.closed = true
  for _, c in ipairs(table.move(self.all, 1, #self.all, 1, {})) do
    c:close()
    settle(c, nil, "the client was closed", "CANCELLED")
  end
end

Client.__close = Client.close

return client
