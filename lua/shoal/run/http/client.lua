--- http.client: requests over kept-alive connections, for one virtual user (or any task).
---
---   request: a connection from the pool, or connect -> write -> read one whole response -> back into the pool, or close
---            -> again, for a redirect that is followed
---
--- If the server closed a kept connection just as we wrote, before any byte of an answer, the client retries once on a fresh one, for
--- idempotent methods only (RFC 9110, 9.2.2), and counts it (`repeated`). Any other loss is an error of the request. A server's
--- Keep-Alive hint ends the use of a connection in time.
---
--- A request is cheap: its bytes are one concatenation, addresses and heads are cached per host, and it allocates only the response
--- and the future that waits for it. request.lua has the fields of a request.
local connection = require "shoal.run.http.connection"
local content = require "shoal.run.http.content"
local cookies = require "shoal.run.http.cookies"
local core = require "shoal.core.http"
local redirect = require "shoal.run.http.redirect"
local request = require "shoal.run.http.request"

local client = {}

local NS_PER_MS = 1000000
local TIMEOUT_MS = 30000
local CONNECT_TIMEOUT_MS = 10000
local URLS_MAX = 4096 -- The cache of a client; a script that generates URLs must not fill memory.
local ONE_WRITE = 16 * 1024 -- A larger body is not copied to stand behind its head.
local MAY_REPEAT = { GET = true, HEAD = true, PUT = true, DELETE = true, OPTIONS = true, TRACE = true }
local PLAIN = { GET = true, DELETE = true, OPTIONS = true } -- Without a body they send no length, and their answers are read as they come.
local MORE = connection.MORE

-- The client -----------------------------------------------------------------------------------------------------------

---@class HttpClient
local Client = {}
Client.__index = Client

---@class HttpClientOptions
---@field base_url? string  "http://host:port": the host of targets that begin with "/"
---@field headers? table<string, string>  sent with every request that does not set them itself
---@field reserved? string  names that begin with this are refused in a request's headers; lower case
---@field timeout_ms? number  of a whole request; default 30 s
---@field connect_timeout_ms? number  of the connect; default 10 s
---@field body_bytes? integer  limit of a response's body; default 16 MiB
---@field on_repeat? fun()  a request was sent again over a fresh connection (see above)
---@field on_exchange? fun(r: table, hop: table, response: table?, code: string?, latency_ns: integer, last: boolean)  after each
---  exchange; `hop` has method and url; last: no redirect of it is followed
---@field keep_alive? boolean  false: one request a connection
---@field cookies? boolean  keep and send cookies, in `client.jar`
---@field defaults? table  request.DEFAULTS of its requests: expect, response_body, max_body_bytes, redirects, compressed

---@param world table
---@param options? HttpClientOptions
---@return HttpClient
function client.new(world, options)
  options = options or {}
  local fixed = {}
  for name, value in next, options.headers or {} do -- order-free: checked and sorted by request.lines
    local line, own = request.lines { [name] = value }
    if not line then error("http: " .. own, 2) end
    if own and own.host_line then error("http: a Host is set in each request that needs one", 2) end
    fixed[name:lower()] = line
  end
  if options.keep_alive == false then fixed.connection = fixed.connection or "Connection: close\r\n" end
  local self = setmetatable({
    world = world, timeout_ms = options.timeout_ms or TIMEOUT_MS, connect_timeout_ms = options.connect_timeout_ms or CONNECT_TIMEOUT_MS,
    limits = options.body_bytes and { body_bytes = options.body_bytes } or nil, keep_alive = options.keep_alive ~= false,
    fixed = fixed, reserved = options.reserved, defaults = options.defaults or {}, urls = {}, urls_count = 0, idle = {}, all = {},
    repeated = 0, redirected = 0, connected = 0, on_repeat = options.on_repeat or false, on_exchange = options.on_exchange or false,
    base_url = options.base_url and options.base_url:gsub("/+$", "") or nil,
    jar = options.cookies and cookies.new(function () return world:wall_ns() / 1e9 end) or false, closed = false,
  }, Client)
  self.simple = not self.jar and next(self.defaults) == nil
  self.fixed_text = self:fixed_lines()
  return self
end

--- The lines that every request has but those that `own` replaces.
function Client:fixed_lines(own)
  local lines = {}
  for lower, line in next, self.fixed do -- order-free: sorted below
    if not own or own[lower] == nil then lines[#lines + 1] = line end
  end
  table.sort(lines)
  return table.concat(lines)
end

local function is_address(host)
  if host:find(":", 1, true) then return true end
  local numbers = { host:match "^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$" }
  for _, digits in ipairs(numbers) do
    local n = tonumber(digits)
    if n > 255 or tostring(n) ~= digits then return false end -- "010" is 8 to some: the resolver decides.
  end
  return #numbers == 4
end

--- An address for people: without the password.
local function shown(url) return (url:gsub("^(%a[%w+.-]*://)[^/?#]*@", "%1")) end

local function unescaped(text)
  return (text:gsub("%%(%x%x)", function (digits) return string.char(tonumber(digits, 16)) end))
end

--- A URL as { host, port, key, target, path, url, tail }, cached; `tail` is the rest of the request's head after the target.
local function locate(self, url)
  local place = self.urls[url]
  if place then return place end
  local full = url
  if url:sub(1, 1) == "/" then
    if not self.base_url then return nil, ("url %s has no host, and the client no base_url"):format(url), "MALFORMED" end
    full = self.base_url .. url
  end
  local scheme, host, port, target, user = core.url(full)
  if not scheme then return nil, host, port end
  if scheme ~= "http" then
    return nil, ("url %s: %s is not supported yet, only http"):format(full, scheme), "UNSUPPORTED"
  end
  local bracketed = host:find(":", 1, true) and "[" .. host .. "]" or host
  local key = bracketed .. ":" .. port
  local host_line = "Host: " .. (port == 80 and bracketed or key) .. "\r\n"
  local user_line = user and "Authorization: Basic " .. content.base64(unescaped(user:find(":", 1, true) and user or user .. ":")) .. "\r\n"
  place = {
    host = host, port = port, key = key, target = target, path = target:match "^[^?]*", url = full, host_line = host_line,
    user_line = user_line, tail = " HTTP/1.1\r\n" .. host_line .. self.fixed_text .. (user_line or ""),
    numeric = is_address(host) and { key } or nil,
  }
  if self.urls_count >= URLS_MAX then self.urls, self.urls_count = {}, 0 end
  self.urls[url], self.urls_count = place, self.urls_count + 1
  return place
end

local function take(self, place, deadline_ns)
  local idle = self.idle[place.key]
  while idle do
    local c = table.remove(idle)
    if not c then break end
    if not c.until_ns or self.world:now_ns() < c.until_ns then
      c.reused = true
      return c
    end
    c:close()
  end
  return self:connect(place, deadline_ns)
end

function Client:connect(place, deadline_ns)
  return connection.open(self, place, function ()
    return math.max(0, math.min(self.connect_timeout_ms, (deadline_ns - self.world:now_ns()) / NS_PER_MS))
  end)
end

--- A connection closed: remove it from all lists.
function Client:forget(c)
  for _, list in ipairs { self.all, self.idle[c.key] } do
    for i = #list, 1, -1 do
      if list[i] == c then table.remove(list, i) end
    end
  end
end

-- One exchange ---------------------------------------------------------------------------------------------------------

--- Give the pieces of a body to its sink while they come. Returns the end of the response.
local function drain(c, sink, deadline_ns)
  while true do
    local response, err, code = c:wait(deadline_ns)
    if response ~= MORE then return response, err, code end
    if c.closed then return nil, "the client was closed", "CANCELLED" end
    local piece = c.parser:take()
    if piece ~= "" then
      local fine, problem, problem_code = sink:piece(piece, c.parser:head())
      if not fine then return nil, problem, problem_code end
    end
    if c.closed then return nil, "the client was closed", "CANCELLED" end
    if c.reading then c.stream:read(true) end
  end
end

--- One exchange on this connection. The last value is true if the request may not have reached the server.
local function exchange(self, c, bytes, q, deadline_ns)
  local _ <close> = c
  local sink = q and q.sink
  c.busy, c.reading, c.received, c.pieces = true, true, false, sink and true or false
  if q and q.special then c.parser:expect(q.is_head, sink and "pieces" or q.discard and "discard" or "keep", q.max_bytes) end
  local written, err, code = c.stream:write(bytes)
  local response
  if written then
    if sink then
      response, err, code = drain(c, sink, deadline_ns)
    else
      response, err, code = c:wait(deadline_ns)
    end
  end
  local ended_ns = c.ended_ns
  if not response then
    local stale = c.reused and not c.received and code ~= "TIMEOUT"
    c:close()
    return nil, err, code, stale
  end
  c.busy = false
  if c.broken or q and q.close or not self.keep_alive or self.closed then
    c:close()
  else
    if response.idle_s then c:hint(response.idle_s) end
    local idle = self.idle[c.key]
    if not idle then
      idle = {}
      self.idle[c.key] = idle
    end
    idle[#idle + 1] = c
  end
  return response, ended_ns
end

--- The host that cookies are for: the one that the request names.
local function cookie_host(place, own)
  return own and own.host and own.host:gsub(":%d*$", ""):lower() or place.host
end

--- The head of a request whose headers meet ours, or that has cookies.
local function head_lines(self, place, r, headers, own)
  own = own or {}
  local cookie = self.jar and own.cookie == nil and self.jar:header(cookie_host(place, own), place.path, false)
  return table.concat {
    " HTTP/1.1\r\n", own.host_line or place.host_line, self:fixed_lines(own), own.authorization == nil and place.user_line or "",
    r.compressed and own["accept-encoding"] == nil and "Accept-Encoding: gzip, deflate\r\n" or "",
    cookie and "Cookie: " .. cookie .. "\r\n" or "", headers,
  }
end

--- Connection: close of the script, and whether it asked to switch protocols.
local function said_of(q, own)
  local said = own and own.connection
  if said then q.close = (","  .. tostring(said):lower():gsub("[ \t]", "") .. ","):find(",close,", 1, true) ~= nil end
  q.upgrade = own and own.upgrade
end

--- The bytes to send, and how to read the answer.
local function prepare(self, r, place, hop)
  local method, body, lines, own = hop.method, hop.body, hop.lines, hop.own
  local tail = place.tail
  if own or self.jar or r.compressed then tail, lines = head_lines(self, place, r, lines, own), "" end
  local head = method .. " " .. place.target .. tail .. lines .. request.length_lines(method, body, own)
  local q = { is_head = method == "HEAD" }
  if own then said_of(q, own) end
  local want = r.response_body
  if want == "keep" then want = nil end
  if want or q.is_head or r.max_body_bytes then
    q.special, q.discard = true, want == "discard"
    if want and not q.discard then q.sink = content.sink(want, r) end
    q.max_bytes = r.max_body_bytes or want and 0 or nil
  end
  return not body and head or #body <= ONE_WRITE and head .. body or { head, body }, q
end

--- One request and its response: no redirects.
local function once(self, r, place, hop, deadline_ns)
  local method = hop.method
  local bytes, q
  if r.plain then
    bytes = method .. " " .. place.target .. place.tail .. hop.lines .. "\r\n"
  else
    bytes, q = prepare(self, r, place, hop)
  end
  local response, stale
  local c, err, code = take(self, place, deadline_ns)
  if c then
    response, err, code, stale = exchange(self, c, bytes, q, deadline_ns)
    if stale and MAY_REPEAT[method] then
      self.repeated = self.repeated + 1
      if self.on_repeat then self.on_repeat() end
      c, err, code = self:connect(place, deadline_ns)
      if c then response, err, code = exchange(self, c, bytes, q, deadline_ns) end
    elseif stale then
      err = ("%s; the kept connection may have ended before the request came, but a %s is not sent twice"):format(err, method)
    end
  end
  if not response then return nil, err, code end
  local ended_ns = err
  if response.status == 101 and not (q and q.upgrade) then
    return nil, "the server switched protocols (101), and the request had no Upgrade", "BAD_UPGRADE"
  end
  if not q then return response, ended_ns end
  if self.jar then self.jar:store(cookie_host(place, hop.own), place.path, response:values "set-cookie") end
  if q.sink then
    local fine, problem, problem_code = q.sink:finish(response)
    if not fine then return nil, problem, problem_code end
  elseif r.compressed and not q.discard and response.body ~= "" then
    local decoded, problem, problem_code = content.decode(response, r.max_body_bytes or self.limits and self.limits.body_bytes)
    if not decoded then return nil, problem, problem_code end
    response.body = decoded
  end
  return response, ended_ns
end

-- Requests -------------------------------------------------------------------------------------------------------------

--- Where a response leads: nil when it is the last one; false, the problem and its code when it cannot be followed.
local function next_url(r, place, response, hop)
  local most = r.redirects
  local location = most > 0 and redirect.location(response)
  if not location then return nil end
  if hop.count == most then
    return false, ("%s %s: more than %d redirects; the next leads to %q"):format(r.method, shown(r.url), most, location:sub(1, 200)),
      "REDIRECTS"
  end
  local url, err, code = redirect.resolve(place.url, location)
  return url or false, err, code
end

--- What to send there.
local function next_hop(self, place, response, hop, url)
  local method, keeps_body = redirect.method(response.status, hop.method)
  local to = locate(self, url) -- dropped: the next turn reports why it cannot be
  local same = to ~= nil and to.key == place.key
  local user = same and place.user_line and not to.user_line and place.url:match "^[^/]*//([^/?#]*)@"
  if user then url = url:gsub("^([^/]*//)", function (before) return before .. user .. "@" end) end
  local headers = redirect.headers(hop.headers, keeps_body, same)
  local lines, own = hop.lines, hop.own
  if headers ~= hop.headers then lines, own = request.lines(headers, self.fixed, self.reserved) end
  return { count = hop.count + 1, method = method, url = url, headers = headers, body = keeps_body and hop.body or nil, lines = lines,
    own = own }
end

--- Send a request that Client:check returned, with the redirects that it follows.
---@return table? response, string? err, string? code
function Client:send(r)
  local world = self.world
  local timeout_ms = r.timeout_ms or self.timeout_ms
  local deadline_ns
  local hop = r -- Of a redirect it is a table of its own, with the fields that it changes.
  local started_ns, raising
  local guard <close> = r.response_body and type(r.response_body) == "function" and self.on_exchange and setmetatable({}, {
    __close = function () -- The function of pieces raised: the request was made all the same.
      if raising then self.on_exchange(r, hop, nil, "CANCELLED", world:fresh_ns() - started_ns, true) end
    end,
  }) or nil
  while true do
    started_ns, raising = world:fresh_ns(), true
    deadline_ns = deadline_ns or started_ns + (timeout_ms * NS_PER_MS // 1 | 0)
    local place, err, code = self.urls[hop.url], nil, nil
    if not place then place, err, code = locate(self, hop.url) end
    local response, url
    if place then response, err, code = once(self, r, place, hop, deadline_ns) end
    local latency_ns = (response and err or world:fresh_ns()) - started_ns
    if response then
      response.latency_ns = latency_ns
      if r.redirects then
        url, err, code = next_url(r, place, response, hop)
        if url == false then response = nil end
      end
    elseif code == "TIMEOUT" then
      err = ("%s %s: no answer within %g ms"):format(hop.method, shown(hop.url), timeout_ms)
    end
    raising = false
    if self.on_exchange then self.on_exchange(r, hop, response, code, latency_ns, not url) end
    if not response then return nil, err, code end
    if not url then
      if hop.count > 0 then response.redirects, response.url = hop.count, shown(place.url) end
      return response
    end
    self.redirected = self.redirected + 1
    hop = next_hop(self, place, response, hop, url)
  end
end

--- Check a request, add the client's defaults, and make the lines of its headers.
---@param method? string
---@param url? string
---@param options? table  see request.lua; stays as it is
---@return table? r  what Client:send takes; or nil
---@return string? problem
function Client:check(method, url, options)
  if options == nil and self.simple and method and type(url) == "string" then -- Most requests.
    return { method = method, url = url, lines = "", count = 0, plain = PLAIN[method] or false }
  end
  local r, problem = request.new(method, url, options)
  if not r then return nil, problem end
  if r.headers then
    local lines, own = request.lines(r.headers, self.fixed, self.reserved)
    if not lines then return nil, own end
    r.lines, r.own = lines, own
  end
  local _, wrong = request.length_lines(r.method, r.body, r.own)
  if wrong then return nil, wrong end
  for field, value in next, self.defaults do -- order-free: by field
    if r[field] == nil then r[field] = value end
  end
  r.plain = not self.jar and not r.own and not r.body and PLAIN[r.method] and not r.response_body and not r.max_body_bytes and not r.compressed
  return r
end

--- Make a request and wait for its response. A request that cannot be one raises in the caller.
---@param r table  see request.lua
---@return table? response  { status, headers, body, body_bytes, keep_alive, latency_ns }; after redirects also redirects, url
---@return string? err
---@return string? code  of the world (ECONNREFUSED, NO_NAME, ...), of the parser (c/lua/http.c), or TIMEOUT, DISCONNECTED, UNSUPPORTED,
---  REDIRECTS, BAD_UPGRADE
function Client:request(r)
  local checked, problem = self:check(nil, nil, r)
  if not checked then error("http: " .. problem, 2) end
  return self:send(checked)
end

local function with(method)
  return function (self, url, options)
    local checked, problem = self:check(method, url, options)
    if not checked then error("http: " .. problem, 2) end
    return self:send(checked)
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
    connection.settle(c, nil, "the client was closed", "CANCELLED")
  end
end

Client.__close = Client.close

return client
