--- A fake of shoal.core.net: nets that reach each other by address; the spec decides when each message is delivered.
---
---     local network = require("spec.support.network").install()   -- before shoal.rpc is required
---     network:run()                       -- deliver all messages in flight, replies too
---     network.refuse_next = "CIRCUIT"     -- the next call or send is refused with that code
local network = {}
network.__index = network

local Net, Peer = {}, {}
Net.__index, Peer.__index = Net, Peer

function network.new() return setmetatable({ nets = {}, queue = {}, opened = {} }, network) end

function network:open(_, options, handlers)
  local net = setmetatable({ network = self, options = options, handlers = handlers, peers = {}, log = {} }, Net)
  self.opened[#self.opened + 1] = net
  return net
end

function network:post(fn) self.queue[#self.queue + 1] = fn end

function network:run()
  while self.queue[1] do table.remove(self.queue, 1)() end
end

local function refused(self)
  local code = self.network.refuse_next
  self.network.refuse_next = nil
  return code
end

function Net:listen(address)
  self.address = address
  self.network.nets[address] = self
  return address
end

local function peer_of(net, other, address)
  local peer = net.peers[other or address]
  if not peer then
    peer = setmetatable({ net = net, network = net.network, other = other, at = address }, Peer)
    net.peers[other or address] = peer
  end
  return peer
end

function Net:peer(address)
  if not address:find "^[%d%.]+:%d+$" then return nil, address .. " is no address", "CONFIG" end
  return peer_of(self, self.network.nets[address], address)
end

local function answer(request, ...)
  assert(not request.answered, "a request is answered once")
  request.answered = true
  local done, results = request.done, table.pack(...)
  request.network:post(function () done(table.unpack(results, 1, results.n)) end)
  return true
end

function Net:reply(request, bytes)
  if self.reply_fails then return nil, "the connection is gone", "DISCONNECTED" end
  return answer(request, bytes)
end
function Net.refuse(_, request, code, text) return answer(request, nil, text, code) end
function Net.counts() return { opened = true } end
function Net:close(on_closed)
  self.closed = true
  if on_closed then self.network:post(on_closed) end
end

function Peer:call(id, lane, bytes, timeout_ms, fn)
  local code = refused(self)
  if code then return nil, "refused by the fake", code end
  self.net.log[#self.net.log + 1] = { id = id, lane = lane, timeout_ms = timeout_ms, bytes = bytes }
  local other = self.other
  self.network:post(function ()
    if not other or other.closed then return fn(nil, "nobody is there", "ECONNREFUSED") end
    if other.silent then return fn(nil, "no answer", "TIMEOUT") end
    other.handlers.on_request(peer_of(other, self.net, self.net.address or "127.0.0.1:999"), id, lane,
      { network = self.network, done = fn }, bytes)
  end)
  return true
end

function Peer:send(id, lane, bytes, fn)
  local code = refused(self)
  if code then return nil, "refused by the fake", code end
  local other = self.other
  self.network:post(function ()
    if not other or other.closed then return fn(nil, "nobody is there", "ECONNREFUSED") end
    fn(true)
    other.handlers.on_request(peer_of(other, self.net, self.net.address or "127.0.0.1:999"), id, lane, nil, bytes)
  end)
  return true
end

function Peer:info()
  if self.closed then return nil, "gone", "CLOSED" end
  local who = self.other and self.other.options or {}
  return { node = who.node or "", role = who.role or "", address = self.at }
end
function Peer:close() self.closed = true end

--- Replace shoal.core.net, and reload shoal.rpc.
function network.install()
  local made = network.new()
  package.loaded["shoal.core.net"] = { open = function (...) return made:open(...) end }
  package.loaded["shoal.rpc"], package.loaded["shoal.wire.rpc"] = nil, nil
  return made
end

function network.remove() package.loaded["shoal.core.net"], package.loaded["shoal.rpc"], package.loaded["shoal.wire.rpc"] = nil, nil, nil end

return network
