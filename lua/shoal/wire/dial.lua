--- dial: from a name to the first of its addresses that answers, as RFC 8305 ("Happy Eyeballs") orders and tries them.
---
---     -- all in a task; "[::1]:80", "127.0.0.1:80" and "name:80" are hosts and ports
---     local host, port = dial.split "shop.example:80"                      -- or nil, message, "CONFIG"
---     local addresses, err, code = dial.lookup(world, host, port, 5000)    -- { "[2001:db8::1]:80", "192.0.2.1:80" }, in the order to try
---     local address, err, code = dial.reach(world, addresses, { name = "shop.example:80", timeout_ms = 5000 }) -- who accepts a stream
---
---     -- or with attempts of your own: the value of the first that succeeds, its address, and who failed before it
---     local value, address, failures = dial.race(world, addresses, function (address, settle)
---       begin(address, function (value, err, code) settle(value, err, code) end)   -- settle may be called at any time, once
---       return function () cancel() end                                    -- called unless this attempt won; or nil, err, code
---     end, { name = "shop.example:80", timeout_ms = 5000 })
---     if not value then local err, code = address, failures end            -- err names every address that was tried, with its reason
---
--- The system orders the addresses of a name (RFC 6724); `dial.order` alternates between the families, starting with the first one's,
--- and keeps the first ADDRESSES_MAX. One attempt begins at a time: the next begins DELAY_MS after the last one began, or as soon as
--- one fails. The first success wins, and the others are cancelled. A task that ends while it waits here cancels them all.
local task = require "shoal.base.task"

local dial = {}

dial.ADDRESSES_MAX = 16 -- At DELAY_MS the last of them begins after 3.75 s, within any connect timeout of ours.
dial.DELAY_MS = 250     -- RFC 8305, section 8: "Connection Attempt Delay ... recommended 250 milliseconds".

local NS_PER_MS = 1000000

--- Split "host:port"; the brackets of an IPv6 address are removed.
---@param text string
---@return string? host
---@return integer|string port  or the message
---@return string? code  "CONFIG"
function dial.split(text)
  local host, digits = text:match "^(.+):(%d+)$"
  local port = math.tointeger(tonumber(digits))
  local inner = host and host:match "^%[(.*)%]$"
  if not host or not port or port > 65535 or not inner and host:find "[%[%]]" then
    return nil, ("expected HOST:PORT, such as 127.0.0.1:7000; found %q"):format(text), "CONFIG"
  end
  if not inner and host:find(":", 1, true) then
    return nil, ("expected brackets around the IPv6 address, as in [%s]:%d; found %q"):format(host, port, text), "CONFIG"
  end
  return inner or host, port
end

local function is_v6(address) return address:sub(1, 1) == "[" end

--- The order in which to try addresses: the families take turns (RFC 8305, section 4), duplicates removed, at most ADDRESSES_MAX.
---@param addresses string[]  "ip:port", in the order of preference within each family
---@return string[]
function dial.order(addresses)
  local own, other, seen, out = {}, {}, {}, {}
  for _, address in ipairs(addresses) do
    if not seen[address] then
      seen[address] = true
      local list = is_v6(address) == is_v6(addresses[1]) and own or other
      list[#list + 1] = address
    end
  end
  for i = 1, math.max(#own, #other) do
    if own[i] and #out < dial.ADDRESSES_MAX then out[#out + 1] = own[i] end
    if other[i] and #out < dial.ADDRESSES_MAX then out[#out + 1] = other[i] end
  end
  return out
end

--- Look up a name. Waits.
---@param world table
---@param host string  a name or a numeric address
---@param port integer
---@param timeout_ms number
---@return string[]? addresses  at least one, ordered as by dial.order
---@return string? err
---@return string? code  NO_NAME, TIMEOUT, or the resolver's
function dial.lookup(world, host, port, timeout_ms)
  local future = task.future("lookup of " .. host)
  local lookup, err, code = world:resolve(host, port, function (addresses, problem, problem_code)
    future:settle(addresses, problem, problem_code)
  end)
  if not lookup then
    future:drop "the lookup did not begin"
    return nil, err, code
  end
  local guard <close> = setmetatable({}, { __close = function () -- luacheck: ignore 211
    if not future:state() then
      future:drop "its task stopped waiting"
      lookup:close()
    end
  end })
  local addresses
  addresses, err, code = future:await(timeout_ms)
  if addresses then return dial.order(addresses) end
  if code == "TIMEOUT" then return nil, ("%s: no answer from the name service within %g ms"):format(host, timeout_ms), code end
  return nil, ("%s: %s"):format(host, err), code
end

-- The race -------------------------------------------------------------------------------------------------------------

local UNROUTED = { EHOSTUNREACH = true, ENETUNREACH = true, EADDRNOTAVAIL = true, EAFNOSUPPORT = true, UNREACHABLE = true }

--- One code for several failures: the first that says more than "no route", for a machine without IPv6 has no route to every other
--- name; else the first.
local function code_of(failures)
  for _, each in ipairs(failures) do
    if not UNROUTED[each.code] then return each.code end
  end
  return failures[1].code
end

local function told(name, failures)
  if #failures == 1 and (not name or failures[1].address == name) then return ("%s: %s"):format(failures[1].address, failures[1].err) end
  local words = {}
  for i, each in ipairs(failures) do words[i] = ("%s: %s"):format(each.address, each.err) end
  return (name and name .. ": " or "") .. table.concat(words, "; ")
end

local Race = {}
Race.__index = Race

local function cancel(attempt)
  local fn = attempt.cancel
  attempt.cancel = nil
  if fn then fn() end
end

--- Cancel every attempt but the winner.
Race.__close = function (self)
  self.over = true
  if self.news then self.news:drop "the race is over" end
  for _, attempt in ipairs(self.attempts) do
    if attempt ~= self.winner then cancel(attempt) end
  end
end

function Race:fail(attempt, err, code)
  attempt.settled = true
  cancel(attempt)
  self.live = self.live - 1
  self.failures[#self.failures + 1] = { address = attempt.address, err = err or "failed", code = code or "FAILED" }
end

--- Take the result of an attempt, and wake the task that waits for news.
function Race:settle(attempt, value, err, code)
  if attempt.settled or self.over then return end
  if value ~= nil then
    attempt.settled = true
    if not self.winner then self.winner, self.value = attempt, value end
  else
    self:fail(attempt, err, code)
  end
  local news = self.news
  self.news = nil
  if news then news:settle(true) end -- The task may run before this returns.
end

function Race:begin(address, start)
  local attempt = { address = address }
  self.attempts[#self.attempts + 1] = attempt
  self.live = self.live + 1
  local stop, err, code = start(address, function (value, problem, problem_code) self:settle(attempt, value, problem, problem_code) end)
  if stop then
    attempt.cancel = stop
  elseif not attempt.settled then
    self:fail(attempt, err, code)
  end
end

--- Wait for a result, until `until_ns` at most.
function Race:wait(now_ns, until_ns)
  local news = task.future "dial"
  self.news = news
  news:await(until_ns and (until_ns - now_ns) / NS_PER_MS) -- dropped: settle left the results in the race
  if self.news == news then -- Nothing came.
    self.news = nil
    news:drop "the next attempt begins"
  end
end

--- Try addresses in turn with staggered attempts until one succeeds. Waits; see above.
---@param world table
---@param addresses string[]  at least one
---@param start fun(address: string, settle: fun(value: any, err: string?, code: string?)): (fun()?), string?, string?
---@param options? { name?: string, timeout_ms?: number, delay_ms?: number }  name: for the message, "host:port" as a person wrote it
---@return any value  of the first success; or nil
---@return string address  of the success; or the message
---@return table|string failures  { address, err, code } of those that failed before; or the code
function dial.race(world, addresses, start, options)
  options = options or {}
  local race <close> = setmetatable({ attempts = {}, failures = {}, live = 0, over = false }, Race)
  local delay_ns = math.floor((options.delay_ms or dial.DELAY_MS) * NS_PER_MS)
  local now_ns, next_ns, begun, failed = world:now_ns(), 0, 0, 0
  local ends_ns = options.timeout_ms and now_ns + math.floor(options.timeout_ms * NS_PER_MS)
  while not race.winner do
    if begun < #addresses and (now_ns >= next_ns or #race.failures > failed) then
      begun, failed, next_ns = begun + 1, #race.failures, now_ns + delay_ns
      race:begin(addresses[begun], start)
    elseif race.live == 0 and begun == #addresses then
      return nil, told(options.name, race.failures), code_of(race.failures)
    elseif ends_ns and now_ns >= ends_ns then
      for _, attempt in ipairs(race.attempts) do
        if not attempt.settled then race:fail(attempt, ("no answer within %g ms"):format(options.timeout_ms), "TIMEOUT") end
      end
      return nil, told(options.name, race.failures), "TIMEOUT"
    else
      local until_ns = begun < #addresses and next_ns or ends_ns
      if until_ns and ends_ns and ends_ns < until_ns then until_ns = ends_ns end
      race:wait(now_ns, until_ns)
    end
    now_ns = world:now_ns()
  end
  return race.value, race.winner.address, race.failures
end

--- Which address accepts a stream. The stream is closed again. Waits.
---@param world table
---@param addresses string[]
---@param options? table  as of dial.race
---@return string? address, string|table err_or_failures, string? code
function dial.reach(world, addresses, options)
  local stream, address, rest = dial.race(world, addresses, function (to, settle)
    local opening, err, code = world:connect(to, {
      on_open = function (opened, problem, problem_code) settle(not problem and opened or nil, problem, problem_code) end,
      on_end = function (_, problem, problem_code) settle(nil, problem or "closed the connection", problem_code or "DISCONNECTED") end,
    })
    if not opening then return nil, err, code end
    return function () opening:close() end
  end, options)
  if not stream then return nil, address, rest end
  stream:close()
  return address, rest
end

return dial
