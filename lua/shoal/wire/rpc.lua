--- Remote calls: the messages of shoal.messages over the transport, in direct style.
---
---     local ack, err, code = rpc:peer(address):call("job.submit", spec, { timeout_ms = 5000 })   -- in a task
---     rpc:handle("job.submit", function (body, peer) return { job = "j1", duplicate = false } end)
---
--- Handlers run as tasks of the rpc's scope and may wait. What a handler returns goes back: a reply, or nil, err, code as a
--- refusal that the caller gets as its own nil, err, code. A raise is one incident at `rpc.handler`, and the caller gets
--- FAILED. A body that cannot be read is one at `rpc.decode`, and the caller gets MALFORMED; a message from a role that may
--- not send it is one at `rpc.role`, and REFUSED by name. Every failure to send has a taker: a call returns it, a future
--- carries it, a one-way send calls its `on_fail`.
local errors = require "shoal.base.errors"
local handling = require "shoal.wire.rpc.handling"
local log = require "shoal.base.log"
local messages = require "shoal.wire.messages"
local net = require "shoal.core.net"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local rpc = {}

---@class Rpc
local Rpc = {}
Rpc.__index = Rpc

---@class RpcPeer
local Peer = {}
Peer.__index = Peer

-- Peers ----------------------------------------------------------------------------------------------------------------

--- One wrapper for each peer of the transport, so that `==` tells whether two are the same connection's.
local function wrap(self, core)
  local peer = self.peers[core]
  if not peer then
    peer = setmetatable({ rpc = self, core = core }, Peer)
    self.peers[core] = peer
  end
  return peer
end

--- The peer at "ip:port"; made once for each address, dialled when there is something to send. Never nil: for an address
--- that the transport refuses, every call of the peer returns that refusal.
---@param address string
---@return RpcPeer
function Rpc:peer(address)
  local known = self.by_address[address]
  if known then
    known.unused = nil
    return known
  end
  local core, err, code = self.net:peer(address)
  if not core then return setmetatable({ rpc = self, refusal = err, code = code, given = tostring(address) }, Peer) end
  local peer = wrap(self, core)
  peer.given = address
  self.by_address[address] = peer
  return peer
end

--- Close the peers that cannot be reached and that no code asked for since the last sweep: otherwise nodes that are gone would be
--- dialled for ever. `Rpc:peer` makes such a peer again.
function Rpc:sweep()
  for _, peer in sorted(self.by_address) do
    local info = peer:info()
    if peer.unused and not info.up and (info.in_flight or 0) == 0 and (info.queued_bytes or 0) == 0 then peer:close() end
    peer.unused = true
  end
end

--- Facts of now: node, role, dc, address, circuit, in_flight, queued_bytes.
---@return table
function Peer:info()
  local info = self.core and self.core:info() -- nil of a peer that is gone
  return info or { address = self.given or "gone", node = self.node or "" }
end

---@return string address "ip:port"
function Peer:address()
  if not self.given then self.given = self:info().address end
  return self.given
end

--- The node's name after its greeting, its address before.
---@return string
function Peer:name()
  if self.node then return self.node end
  local info = self:info()
  if not info.node or info.node == "" then return self.given or info.address end
  self.node = info.node -- Until the connection goes down: another process may then answer there.
  return info.node
end

--- Whether it is on this machine (in a simulated world: always, for that has no outside).
---@return boolean
function Peer:is_loopback()
  local address = self:address()
  return address:find("^127%.") ~= nil or address:find("^%[::1%]") ~= nil or self.rpc.node.world:simulated()
end

--- Send the queues, then close the connection.
function Peer:close()
  if not self.core then return end
  if self.rpc.by_address[self.given or false] == self then self.rpc.by_address[self.given] = nil end
  self.core:close()
end

-- Sending --------------------------------------------------------------------------------------------------------------

--- A callback of the transport that hands its result to a future. Slots are reused, so that a call makes no closure. The transport
--- runs each callback exactly once for each accepted call, so a slot is free as soon as its callback ran.
local function new_slot(free)
  local slot = { future = nil }
  slot.done = function (bytes, err, code)
    local future = slot.future
    slot.future = nil
    free[#free + 1] = slot
    future:settle(bytes, err, code) -- The waiting task runs now, not a turn later.
  end
  return slot
end

local function allowed(self, name, level)
  local sent = self.rpc.checked_sends
  if sent and not sent[name] then error(("rpc: this node never declared that it sends %s"):format(name), level + 1) end
end

--- Send a request. Returns the future of its reply's bytes.
local function begin(self, message, body, options)
  if not message.reply then error(("rpc: %s has no reply, use send"):format(message.name), 3) end
  allowed(self, message.name, 3)
  if not self.core then return nil, self.refusal, self.code end
  local why = errors.injected and errors.injected("send", "rpc.send", message.name)
  if why then return nil, why, "DISCONNECTED" end
  local bytes, err, code = messages.encode(message.name, body)
  if not bytes then return nil, err, code end
  local free = self.rpc.free_slots
  local count = #free
  local slot = free[count]
  if slot then free[count] = nil else slot = new_slot(free) end
  local future = task.future(message.name)
  slot.future = future
  local ok
  ok, err, code = self.core:call(message.id, message.lane, bytes, options and options.timeout_ms or message.timeout_ms,
    slot.done, options and options.hurry)
  if ok then return future end
  slot.future = nil
  free[#free + 1] = slot
  return nil, err, code
end

local function reply_of(name, bytes)
  local injected = errors.injected and errors.injected("decode", "rpc.reply", name)
  if injected then return nil, injected, "MALFORMED" end
  return messages.decode_reply(name, bytes)
end

--- Send a request and wait for its reply. In a task.
---@param name string
---@param body table
---@param options? { timeout_ms?: number, hurry?: boolean }  hurry: it is a probe, and waits for no redial backoff and no connection that
---  leads nowhere (net_hurry in c/net/net.h)
---@return table|string? reply  a string where the message's reply is "bytes"
---@return string? err
---@return string? code  the transport's ("TIMEOUT", "DISCONNECTED", "CIRCUIT", ...), or what the other side refused with
function Peer:call(name, body, options)
  local future, err, code = begin(self, messages.get(name), body, options)
  if not future then return nil, err, code end
  local bytes
  bytes, err, code = future:await() -- Without a timeout of its own: the transport's deadline ends it.
  if not bytes then return nil, err, code end
  return reply_of(name, bytes)
end

--- Send a request; the future of its reply must be awaited, taken or dropped.
---@param name string
---@param body table
---@param options? { timeout_ms?: number }
---@return table future
function Peer:start(name, body, options)
  local result = task.future(name)
  local future, err, code = begin(self, messages.get(name), body, options)
  if not future then
    result:fail(err, code)
    return result
  end
  future:take(function (bytes, why, word)
    local reply = bytes
    if bytes then reply, why, word = reply_of(name, bytes) end
    if reply == nil then result:fail(why, word) else result:set(reply) end
  end)
  return result
end

--- Send one way. If the message does not reach the kernel, on_fail runs in a task of its own.
---@param name string
---@param body table
---@param options { on_fail: fun(err: string, code: string) }
function Peer:send(name, body, options)
  local message = messages.get(name)
  local on_fail = type(options) == "table" and options.on_fail
  if type(on_fail) ~= "function" then
    error(("rpc: send of %s needs { on_fail = function (err, code) ... end }"):format(name), 2)
  end
  if message.reply then error(("rpc: %s has a reply, use call or start"):format(name), 2) end
  allowed(self, name, 2)
  local function failed(err, code)
    local ids = { message = name, peer = self:name() }
    local spawned = self.rpc.scope:spawn("rpc.on_fail", ids, on_fail, err, code)
    if not spawned then errors.report("rpc.send", ids, err, code) end -- The rpc has closed: its owner is gone.
  end
  if not self.core then return failed(self.refusal, self.code) end
  local injected = errors.injected and errors.injected("send", "rpc.send", name)
  if injected then return failed(injected, "DISCONNECTED") end
  local bytes, err, code = messages.encode(name, body)
  if not bytes then return failed(err, code) end
  local ok
  ok, err, code = self.core:send(message.id, message.lane, bytes, function (sent, why, word)
    if not sent then failed(why, word) end
  end)
  if not ok then failed(err, code) end
end

-- Receiving ------------------------------------------------------------------------------------------------------------

local function unhandled(self, name, peer, request)
  local ids = { message = name, peer = peer:name(), request = 0 }
  errors.report("rpc.unhandled", ids, "no handler for " .. name, "UNHANDLED")
  handling.refuse(self, ids, request, "UNHANDLED", ("%s has no handler for %s"):format(self.node.name, name))
end

--- The role that it greeted with. Cached until the connection goes down, because every request reads it.
local function role_of(peer)
  local role = peer.role
  if not role then
    role = peer:info().role or ""
    if role ~= "" then peer.role = role end
  end
  return role
end

--- A role sent a message that the registry does not allow it: refuse the message and report it.
local function misplaced(self, message, peer, request)
  local role = role_of(peer)
  local text = ("%s comes only from a %s, not from the %s %s"):format(message.name, table.concat(message.from, " or "),
    role ~= "" and role or "nameless", peer:name())
  errors.report("rpc.role", { message = message.name, peer = peer:name(), role = role }, text, "REFUSED")
  handling.refuse(self, { message = message.name, peer = peer:name(), request = 0 }, request, "REFUSED", text)
end

local function on_request(self, core, id, request, bytes)
  local peer, message = wrap(self, core), messages.by_id(id)
  if not message then return unhandled(self, ("type %d"):format(id), peer, request) end
  local name = message.name
  if not message.may_send[peer.role or role_of(peer)] then return misplaced(self, message, peer, request) end
  local raw = self.raw_handlers[name]
  if raw then return handling.dispatch(self, message, request, raw, bytes, peer) end
  local handler = self.handlers[name]
  if not handler then return unhandled(self, name, peer, request) end
  local body, err, code = messages.decode(name, bytes)
  local injected = errors.injected and errors.injected("decode", "rpc.decode", name)
  if injected then body, err, code = nil, injected, "MALFORMED" end
  if body then return handling.dispatch(self, message, request, handler, body, peer) end
  local ids = { message = name, peer = peer:name(), payload_bytes = #bytes, request = 0 }
  errors.report("rpc.decode", ids, err, code)
  handling.refuse(self, ids, request, code, err)
end

local function handler_problem(self, name, fn)
  for _, known in ipairs(messages.names()) do
    if known == name then
      if type(fn) ~= "function" then return ("rpc: %s: expected a function, found %s"):format(name, type(fn)) end
      if self.handlers[name] or self.raw_handlers[name] then return ("rpc: %s has a handler already"):format(name) end
      local info = debug.getinfo(fn, "u")
      if not info.isvararg and info.nparams > 2 then
        return ("rpc: the handler of %s takes %d arguments, it is given 2: body, peer"):format(name, info.nparams)
      end
      return nil
    end
  end
  local meant = schema.did_you_mean(name, messages.names())
  return ("rpc: there is no message %s%s"):format(tostring(name), meant and (", did you mean %s?"):format(meant) or "")
end

--- Answer a message. fn(body, peer) runs as a task: reply table (true for an empty one, a string where the reply is
--- "bytes"), or nil, err, code.
---@param name string
---@param fn fun(body: table, peer: RpcPeer): any, string?, string?
---@return true? ok, string? err, string? code "CONFIG"
function Rpc:handle(name, fn)
  local problem = handler_problem(self, name, fn)
  if problem then return nil, problem, "CONFIG" end
  self.handlers[name] = fn
  return true
end

--- As handle, but body and reply are the bytes on the wire: for specs that send bytes which no encoder makes.
function Rpc:raw(name, fn)
  local problem = handler_problem(self, name, fn)
  if problem then return nil, problem, "CONFIG" end
  self.raw_handlers[name] = fn
  return true
end

--- Declare the messages that this node sends. May be called again; names add up.
---@param names string[]
function Rpc:sends(names)
  for _, name in ipairs(names) do
    if not self.sent[name] then
      self.sent[name] = true
      self.sent_names[#self.sent_names + 1] = name
    end
  end
end

--- Check that every message that may come has a handler, and that this node sends only messages of its role. From then on, sending
--- an undeclared message raises.
---@return true? ok, string? err, string? code "CONFIG"
function Rpc:check()
  local handled = {}
  for _, name in ipairs(messages.names()) do
    if self.handlers[name] or self.raw_handlers[name] then handled[#handled + 1] = name end
  end
  local ok, err, code = messages.check(self.node.role, handled, self.sent_names)
  if not ok then return nil, err, code end
  self.checked_sends = self.sent
  return true
end

--- Watch connections: fn(peer, event, err, code), event "up", "down", or a circuit's "open", "half_open", "closed".
--- Each watcher is called by itself; one that raises is an incident at `rpc.watcher`.
---@param fn fun(peer: RpcPeer, event: string, err?: string, code?: string)
---@return fun() stop
function Rpc:watch(fn)
  local watcher = { fn = fn }
  self.watchers[#self.watchers + 1] = watcher
  return function ()
    for i, known in ipairs(self.watchers) do
      if known == watcher then
        table.remove(self.watchers, i)
        return
      end
    end
  end
end

--- Codes of connections that ended by a fault. The others are everyday ends; calls that waited for an answer return them.
local FAULTS = { MALFORMED = true, REFUSED = true, FULL = true, MEMORY = true }

--- A connection ended, or could not be made. A fault is an incident, also when no call waited for an answer.
local function note_down(peer, err, code)
  local info = peer:info()
  local ids = { peer = peer:name(), address = info.address or "?", role = info.role or "" }
  if FAULTS[code] or code == "TIMEOUT" and not info.dialled then
    errors.report("net.connection", ids, err, code)
  else
    log.debug("net.down", { peer = ids.peer, address = ids.address, code = code, message = err })
  end
end

local function tell(self, core, event, err, code)
  local peer = wrap(self, core)
  if event == "down" then
    note_down(peer, err, code)
    peer.node, peer.role = nil, nil -- Another process may answer there next.
  elseif event ~= "up" then
    log.info("net.circuit", { peer = peer:name(), status = event })
  end
  local watchers = table.move(self.watchers, 1, #self.watchers, 1, {})
  for _, watcher in ipairs(watchers) do -- One that raises is an incident; the others still run.
    errors.run("rpc.watcher", { message = event, peer = peer:name() }, nil, watcher.fn, peer, event, err, code)
  end
end

--- Listen at "ip:port" (port 0: any). Returns where.
---@param bind string
---@return string? address, string? err, string? code "CONFIG" where keys would be needed
function Rpc:listen(bind) return self.net:listen(bind) end

--- The transport's counts.
---@return table
function Rpc:counts() return self.net:counts() end

--- End the handlers and close all connections. Idempotent.
---@param on_closed? fun()
function Rpc:close(on_closed)
  if self.closed then return end
  self.closed = true
  self.net:close(on_closed)
  self.scope:close()
end

--- Open it for a node. `node` has world, name, role, dc, config.cluster, scope.
---@param node table
---@return Rpc? rpc, string? err, string? code
--- A client has few addresses and somebody waits at it: it tries them again sooner than a node may, of which there are many. So it finds a
--- leader that was restarted within seconds (job/client.lua hurries, too).
local FOR_CLIENTS = { circuit = { open_ms = 2000 }, backoff = { cap_ms = 2000 } }

function rpc.open(node)
  local config = node.config or {}
  local self = setmetatable({
    node = node, handlers = {}, raw_handlers = {}, sent = {}, sent_names = {}, watchers = {}, by_address = {},
    free_slots = {}, idle = {}, requests = 0, unread_replies = 0, one_way = 0, peers = setmetatable({}, { __mode = "k" }),
  }, Rpc)
  local patience = node.role == "client" and FOR_CLIENTS or {}
  local opened, err, code = net.open(node.world, {
    node = node.name, role = node.role, dc = node.dc, cluster = config.cluster or "shoal", advertise = config.advertise,
    circuit = patience.circuit, backoff = patience.backoff,
  }, {
    on_request = function (core, id, _, request, bytes) on_request(self, core, id, request, bytes) end,
    on_peer = function (core, event, why, word) tell(self, core, event, why, word) end,
    on_circuit = function (core, status) tell(self, core, status) end,
  })
  if not opened then return nil, err, code end
  self.net = opened
  self.scope = task.scope("rpc", node.scope)
  return self
end

return rpc
