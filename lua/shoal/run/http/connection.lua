--- http.connection: one connection of a client, and how one is made: its stream, its parser, and the request under way.
---
---   opening -> idle in the pool <-> busy with one request -> closed
---
--- A connection serves one request at a time; a task that ends half-way closes its connection. One that gets bytes while it is idle is
--- closed: it cannot be trusted with the next request.
local core = require "shoal.core.http"
local dial = require "shoal.wire.dial"
local task = require "shoal.base.task"

local connection = {}

local RESOLVED_NS = 60 * 1000000000 -- A name is looked up again after a minute.
local NS_PER_S = 1000000000
local NEVER = math.maxinteger
local HINT_MARGIN_NS = NS_PER_S -- A server that hints at 5 s closes after 5 s by its own clock: do not send in the last second.

--- What `wait` returns while the body comes in pieces.
connection.MORE = {}

---@class HttpConnection
local Connection = {}
Connection.__index = Connection

--- The task ended in the middle of a request: the connection cannot be reused.
Connection.__close = function (self)
  if self.busy then self:close() end
end

--- Complete the future, or keep the result for the next wait. The waiter runs before this returns, so do not touch the connection
--- afterwards.
local function settle(self, value, err, code)
  local waiting = self.waiting
  self.waiting = false
  if waiting then
    waiting:settle(value, err, code)
  elseif self.busy and self.pieces then
    self.result = { value, err, code }
  end
end
connection.settle = settle

function Connection:close()
  if self.closed then return end
  self.closed, self.busy = true, false
  self.owner:forget(self)
  self.stream:close()
  if self.timer then self.timer:close() end
end

function Connection:on_read(bytes)
  if not self.reading then
    self:close()
    return
  end
  self.received = true
  local message, next_or_err, code = self.parser:feed(bytes)
  if message == false then
    if self.pieces then
      self.stream:read(false) -- Until the piece was taken.
      settle(self, connection.MORE)
    end
    return
  end
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

local function on_timer(self)
  local deadline_ns = self.deadline_ns
  self.armed_ns = NEVER
  if not self.waiting then return end -- The next request arms it.
  if self.world:now_ns() < deadline_ns then
    self.armed_ns = deadline_ns
    self.timer:start_at(deadline_ns)
  else
    settle(self, nil, "nothing came in time", "TIMEOUT")
  end
end

--- Wait for the next event of the request under way, until its deadline. One timer serves all requests of a connection: it was armed for
--- an older one, and when it fires it waits for the newest, so that a request whose answer comes costs no timer.
---@param deadline_ns integer
function Connection:wait(deadline_ns)
  local result = self.result
  if result then
    self.result = false
    return result[1], result[2], result[3]
  end
  self.deadline_ns = deadline_ns
  if deadline_ns < self.armed_ns then
    self.timer = self.timer or self.world:timer(function () on_timer(self) end)
    self.armed_ns = deadline_ns
    self.timer:start_at(deadline_ns)
  end
  local future = task.future("http")
  self.waiting = future
  return future:await()
end

--- The server said for how long it keeps an idle connection: do not use it after that.
function Connection:hint(idle_s)
  local idle_ns = idle_s * NS_PER_S
  self.until_ns = self.world:now_ns() + idle_ns - math.min(HINT_MARGIN_NS, idle_ns // 2)
end

-- Opening --------------------------------------------------------------------------------------------------------------

local resolved = setmetatable({}, { __mode = "k" }) -- By world: names and their addresses.

local function names_of(world)
  local names = resolved[world]
  if not names then
    names = {}
    resolved[world] = names
  end
  return names
end

local function addresses_of(world, place, timeout_ms)
  if place.numeric then return place.numeric end
  local names = names_of(world)
  local known = names[place.key]
  if known and world:now_ns() < known.until_ns then return known.addresses end
  local addresses, err, code = dial.lookup(world, place.host, place.port, timeout_ms)
  if not addresses then return nil, err, code end
  names[place.key] = { addresses = addresses, until_ns = world:now_ns() + RESOLVED_NS }
  return addresses
end

--- The next connection to this name begins with the address that worked; after a failure the name is looked up again.
local function remember(world, place, address)
  local names = names_of(world)
  local known = names[place.key]
  if not known then return end
  if not address then
    names[place.key] = nil
  elseif known.addresses[1] ~= address then
    local list = { address }
    for _, each in ipairs(known.addresses) do
      if each ~= address then list[#list + 1] = each end
    end
    known.addresses = list
  end
end

--- A new connection for a client: a fresh one, busy, or the error.
---@param owner HttpClient
---@param place table  { host, port, key, numeric }
---@param left fun(): number  milliseconds until the deadline
---@return HttpConnection? connection, string? err, string? code
function connection.open(owner, place, left)
  local world = owner.world
  local addresses, err, code = addresses_of(world, place, left())
  if not addresses then return nil, err, code end
  local c, address, failures = dial.race(world, addresses, function (to, opened)
    local fresh = setmetatable({
      owner = owner, world = world, key = place.key, busy = true, reused = false, opening = true, closed = false, broken = false,
      reading = false, received = false, pieces = false, result = false, waiting = false, until_ns = false, ended_ns = 0,
      stream = false, parser = false, timer = false, armed_ns = NEVER, deadline_ns = 0,
    }, Connection)
    local stream, problem, problem_code = world:connect(to, {
      on_open = function (_, why, why_code)
        fresh.opening = false
        if why then opened(nil, why, why_code) else opened(fresh) end
      end,
      on_read = function (_, bytes) fresh:on_read(bytes) end,
      on_end = function (_, why, why_code)
        if fresh.opening then opened(nil, why or "the connection ended", why_code or "DISCONNECTED") else fresh:on_end(why, why_code) end
      end,
    })
    if not stream then return nil, problem, problem_code end
    fresh.stream = stream
    owner.all[#owner.all + 1] = fresh
    return function () fresh:close() end
  end, { name = place.key, timeout_ms = left() })
  if not place.numeric then remember(world, place, c and address) end
  if not c then return nil, "connect to " .. address, failures end
  if owner.closed then
    c:close()
    return nil, "the client was closed", "CANCELLED"
  end
  c.parser = core.parser("response", owner.limits)
  owner.connected = owner.connected + 1
  return c
end

return connection
