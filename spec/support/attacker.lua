--- A malicious peer for specs: it greets as any role and then sends messages that none of our programs would send.
---
---     local evil = attacker.new { role = "client" }
---     local code = evil:ask(address, "part.result", body)     -- packed without a check against the registry
---     evil:raw(address, bytes)                                -- on a plain socket
---     evil:close()
local cluster = require "spec.support.cluster"
local messages = require "shoal.messages"
local msgpack = require "shoal.core.msgpack"
local net = require "shoal.net"
local sorted = require "shoal.sorted"
local uv = require "luv"

local attacker = {}
attacker.__index = attacker

local PATIENCE_MS = 8000

---@param who { role: string, node?: string, cluster?: string, dc?: string }
function attacker.new(who)
  local self = setmetatable({ sockets = {} }, attacker)
  self.net = assert(net.open(require("shoal.core.world").current(), {
    node = who.node or "evil", role = who.role, cluster = who.cluster or "shoal", dc = who.dc or "",
  }, {}))
  return self
end

--- Call with a body of bytes. Returns "OK" and the reply, or the refusal's code and text.
---@param bytes string
function attacker:ask_bytes(address, name, bytes, timeout_ms)
  local message = messages.get(name)
  local code, text
  local sent, err, word = assert(self.net:peer(address)):call(message.id, message.lane, bytes, timeout_ms or PATIENCE_MS,
    function (reply, why, what) code, text = reply and "OK" or what, reply or why end)
  if not sent then return word, err end
  cluster.wait("an answer to " .. name, function () return code end, PATIENCE_MS + 2000)
  return code, text
end

--- A body as bytes, unchecked; a string is written as bytes where the registry declares bytes.
function attacker.pack(message, body)
  local binary, out, count = {}, {}, 0
  for _, field in ipairs(message.fields) do binary[field[1]] = field[2]:find "^bytes" ~= nil end
  for name, value in sorted(body) do
    count = count + 1
    out[count] = msgpack.pack(name)
      .. (binary[name] and type(value) == "string" and "\xc6" .. string.pack(">s4", value)
        or msgpack.pack(value) or "\x81\xcb\x3f\xf8\0\0\0\0\0\0\2") -- A map with a fraction as a key, which our packer refuses.
  end
  return "\xde" .. string.pack(">I2", count) .. table.concat(out)
end

--- Call with a table, packed unchecked.
function attacker:ask(address, name, body, timeout_ms)
  return self:ask_bytes(address, name, attacker.pack(messages.get(name), body), timeout_ms)
end

--- Send these bytes over a plain connection. Returns the socket; `.over` is set at its end, `.heard` holds the received bytes.
function attacker:raw(address, bytes)
  local host, port = address:match "^(.*):(%d+)$"
  local socket, mine = uv.new_tcp(), { heard = "" }
  self.sockets[#self.sockets + 1] = socket
  mine.socket = socket
  socket:connect(host, tonumber(port), function (err)
    if err then
      mine.over = err
      return
    end
    mine.up = true
    socket:read_start(function (why, more)
      if more then mine.heard = mine.heard .. more else mine.over = why or "end" end
    end)
    if bytes ~= "" then socket:write(bytes, function () end) end -- A connection cut off half-way is noticed above.
  end)
  return mine
end

function attacker:close()
  for _, socket in ipairs(self.sockets) do
    if not socket:is_closing() then socket:close() end
  end
  local closed
  self.net:close(function () closed = true end)
  cluster.wait("the attacker's end", function () return closed end)
end

-- Bodies -----------------------------------------------------------------------------------------------------------------

local GOOD = { string = "x", integer = 1, number = 1.5, boolean = true, bytes = "x", any = "x" }

--- A body that the registry accepts.
function attacker.body(fields)
  local out = {}
  for _, field in ipairs(fields) do
    local name, kind = field[1], field[2]:gsub("%?$", "")
    local enum, of = kind:match "^enum:([^|]*)", kind:match "^map:(.*)"
    if enum then out[name] = enum
    elseif of then out[name] = { requests = GOOD[of] }
    else out[name] = GOOD[kind] or {} end
  end
  return out
end

local STRANGE = {
  0, -1, math.maxinteger, math.mininteger, 1e308, 0 / 0, 1 / 0, -1 / 0, true, false, "", "\0", "a|b/c d\n\27[31m", ("x"):rep(100000),
  {}, { 1, 2, 3 }, { a = { b = { c = { d = 1 } } } }, { [1.5] = 2 },
}

local function nested(depth)
  return depth == 0 and 1 or { nested(depth - 1) }
end

--- Bodies of a message that are malformed, or well-formed with absurd values: each field in turn.
---@return string[] packed
function attacker.bodies(message)
  local list, good = {}, attacker.body(message.fields)
  local function add(body) list[#list + 1] = attacker.pack(message, body) end
  for _, field in ipairs(message.fields) do
    for _, value in ipairs(STRANGE) do
      local body = {}
      for k, v in next, good do body[k] = v end -- order-free: a copy
      body[field[1]] = value
      add(body)
    end
    local without = {}
    for k, v in next, good do if k ~= field[1] then without[k] = v end end -- order-free: a copy
    add(without)
  end
  local deep = nested(15)
  good.deep = deep
  add(good)
  local whole = list[1] or msgpack.pack {}
  for _, bytes in ipairs {
    "", "\xc1", "\xdf\xff\xff\xff\xff", "\xdd\xff\xff\xff\xff", "\xdb\xff\xff\xff\xff", "\xc6\xff\xff\xff\xffx", "\x80",
    ("\x91"):rep(200000), whole:sub(1, -2), whole .. "x", ("\x81\xa1a"):rep(1000), "\x82\xa3job\xa1x\xa3job\xa1y",
  } do
    list[#list + 1] = bytes
  end
  return list
end

return attacker
