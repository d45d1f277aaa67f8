--- http.server: a small HTTP/1.1 server with one handler function. For specs, benches and simulated hosts; no router, no files.
---
---   per connection:  READ a request -> handler -> (delay) -> WRITE -> READ ...   one at a time, in order, pipelined ones too
---
--- The handler gets { method, target, path, query, headers, body, peer } and returns { status = 200, headers = {}, body = "",
--- delay_ms = 0, close = false }. It runs to its end; `delay_ms` delays the answer. For specs of clients a handler can misbehave:
--- `raw = bytes` is written unchanged, `chunked = { pieces }` in chunks, `hang = true` never answers, `reset = true` closes at once. A
--- failed handler is an incident at site http.handler and a 500.
local core = require "shoal.core.http"
local errors = require "shoal.base.errors"
local sorted = require "shoal.base.sorted"

local server = {}

local CONNECTIONS_MAX = 10000
local HEAD_BYTES, HEADERS = 32 * 1024, 128 -- Of a request.
local REASON_UNKNOWN = "Status"

---@class HttpServer
local Server = {}
Server.__index = Server

local function head_of(reply, length, keep_alive)
  local lines = { ("HTTP/1.1 %d %s\r\n"):format(reply.status or 200, core.reason(reply.status or 200) or REASON_UNKNOWN) }
  local has_type = false
  for name, value in sorted(reply.headers or {}) do
    for _, each in ipairs(type(value) == "table" and value or { value }) do -- A list is several lines.
      lines[#lines + 1] = name .. ": " .. tostring(each):gsub("[%z\r\n]", " ") .. "\r\n"
    end
    has_type = has_type or name:lower() == "content-type"
  end
  if length then lines[#lines + 1] = "Content-Length: " .. length .. "\r\n" end
  if not has_type and length and length > 0 then lines[#lines + 1] = "Content-Type: text/plain\r\n" end
  if not keep_alive then lines[#lines + 1] = "Connection: close\r\n" end
  return table.concat(lines)
end

--- The bytes of a reply.
local function encode(request, reply, keep_alive)
  if reply.raw then return reply.raw end
  local status, body = reply.status or 200, reply.body or ""
  local bodyless = status == 204 or status == 304 or status < 200
  if reply.chunked and not bodyless then
    local parts = { head_of(reply, nil, keep_alive), "Transfer-Encoding: chunked\r\n\r\n" }
    for _, piece in ipairs(request.method == "HEAD" and {} or reply.chunked) do
      if piece ~= "" then parts[#parts + 1] = ("%x\r\n%s\r\n"):format(#piece, piece) end
    end
    if request.method ~= "HEAD" then parts[#parts + 1] = "0\r\n\r\n" end
    return table.concat(parts)
  end
  local head = head_of(reply, not bodyless and #body or nil, keep_alive)
  if bodyless or request.method == "HEAD" then return head .. "\r\n" end
  return head .. "\r\n" .. body
end

-- A connection ---------------------------------------------------------------------------------------------------------

local Exchange = {}
Exchange.__index = Exchange

function Exchange:close()
  if self.closed then return end
  self.closed = true
  self.server.open[self.number] = nil
  self.server.connections = self.server.connections - 1
  if self.timer then self.timer:close() end
  self.stream:close()
end

--- Close after the reply is written, so that the other side can read all of it.
function Exchange:finish()
  self.ending = true
  local ok = self.stream:shutdown()
  if not ok then self:close() end -- The stream has ended already.
end

function Exchange:write(bytes, keep_alive)
  local ok = self.stream:write(bytes)
  if not ok then return self:close() end -- The client closed; no further request will come.
  if not keep_alive then return self:finish() end
  self.answering = false
end

function Exchange:answer(request)
  local count = self.server
  count.requests = count.requests + 1
  request.path, request.query = request.target:match("^([^?]*)%??(.*)$")
  request.peer = self.peer
  self.answering = true
  local ok, reply = errors.call("http.handler", self.server.ids, self.server.handler, request)
  if self.closed then return end
  if not ok then reply = { status = 500, body = "the handler failed\n" } end
  if type(reply) ~= "table" then reply = { status = 200, body = tostring(reply or "") } end
  if reply.hang then return end
  if reply.reset then return self:close() end
  local keep_alive = request.keep_alive and not reply.close
  local bytes = encode(request, reply, keep_alive)
  if reply.delay_ms and reply.delay_ms > 0 then
    self.timer = self.timer or self.server.world:timer(function ()
      local late, kept = self.late, self.late_kept
      self.late = nil
      self:write(late, kept)
      self:read ""
    end)
    self.late, self.late_kept = bytes, keep_alive
    self.timer:start(reply.delay_ms)
  else
    self:write(bytes, keep_alive)
  end
end

local REFUSALS = { TOO_LARGE = 413, HEAD_TOO_LARGE = 431, UNSUPPORTED = 505 } -- Else 400.

--- Answer the first complete request; keep later bytes until it is answered.
function Exchange:read(bytes)
  bytes = (self.rest or "") .. bytes
  self.rest = nil
  local at = 1
  while at <= #bytes and not self.closed and not self.ending do
    if self.answering then
      self.rest = bytes:sub(at)
      self.stream:read(#self.rest < self.server.rest_max) -- Bounds the buffer of a client that only sends.
      return
    end
    local request, next_or_err, code = self.parser:feed(bytes, at)
    if request == false then break end
    if not request then
      self.server.refused = self.server.refused + 1
      return self:write(encode({ method = "GET" }, { status = REFUSALS[code] or 400, body = next_or_err .. "\n" }, false), false)
    end
    at = next_or_err
    self:answer(request)
  end
  if not self.closed and not self.ending then self.stream:read(true) end
end

-- The server -----------------------------------------------------------------------------------------------------------

local function accept(self, stream)
  if self.connections >= (self.connections_max or CONNECTIONS_MAX) then
    self.refused = self.refused + 1
    return stream:close()
  end
  local e = setmetatable({
    server = self, number = self.accepted, stream = stream, parser = core.parser("request", self.limits), peer = stream:peer(),
    closed = false, answering = false,
  }, Exchange)
  self.connections, self.accepted = self.connections + 1, self.accepted + 1
  self.open[e.number] = e
  stream:attach {
    on_read = function (_, bytes) if not e.ending then e:read(bytes) end end,
    on_end = function () e:close() end, -- Half-closed clients are not served; our client never half-closes.
  }
end

---@class HttpServerOptions
---@field body_bytes? integer  of a request, at most (16 MiB)
---@field connections_max? integer

--- Listen and answer.
---@param world table
---@param address string  "ip:port"; port 0 asks for a free one
---@param handler fun(request: table): table
---@param options? HttpServerOptions
---@return HttpServer? server, string? err, string? code
function server.open(world, address, handler, options)
  options = options or {}
  local self = setmetatable({
    world = world, handler = handler, open = {},
    limits = { head_bytes = HEAD_BYTES, headers = HEADERS, body_bytes = options.body_bytes },
    connections = 0, accepted = 0, requests = 0, refused = 0, connections_max = options.connections_max, rest_max = 64 * 1024,
    ids = { host = address },
  }, Server)
  local err, code
  self.listener, err, code = world:listen(address, function (stream) accept(self, stream) end)
  if not self.listener then return nil, err, code end
  self.ids = { host = self:address() }
  return self
end

--- The bound address, "ip:port".
function Server:address() return self.listener:address() end

--- Stop listening and close every connection. Idempotent.
function Server:close()
  self.listener:close()
  for _, e in sorted(self.open) do e:close() end
end

Server.__close = Server.close

return server
