--- The transport alone: peers, requests and their answers as bytes. Usable without the rest, also in stock lua5.4:
---
---     local net = require "shoal.wire.net"
---     local world = require "shoal.core.world".current()
---     local node = assert(net.open(world, { node = "a", cluster = "demo" }, {
---       on_request = function (node, peer, type, lane, request, bytes) node:reply(request, bytes:upper()) end }))
---     local address = assert(node:listen "127.0.0.1:0")
---     node:peer(address):call(1, "data", "hello", 1000, function (bytes, err, code) print(bytes or err, code) end)
---     require "luv".run()
---
--- Remote calls by name, as tasks, with checked bodies, are shoal.rpc's, over the same core. The promises and
--- every state of a peer stand in c/net/net.h, the limits in c/net/README.md, the bytes on the wire in c/net/frame.h.
---
--- Lanes, highest first: "control" (never shed), "dispatch", "data", "telemetry". A message is at most `net.message_max`
--- bytes. No function calls back before it returns; each callback runs exactly once, and may close anything.
--- There are no keys yet, so only loopback addresses are listened on.
local core = require "shoal.core.net"
local schema = require "shoal.base.schema"

local net = { message_max = core.message_max }

local function limit(default, doc)
  return schema.optional(schema.integer { min = 1, max = 2 ^ 31 - 1 | 0, doc = doc .. "; default " .. default })
end

--- By lane; `control` only where it says so.
local function by_lane(defaults, doc)
  local fields = {}
  for name, default in pairs(defaults) do fields[name] = limit(default, doc) end -- order-free: fields
  return schema.optional(schema.record(fields))
end

local NAME = { max = 255, default = "" }

--- Times are milliseconds. The core sets the options that are not given.
net.config = schema.record({
  node = schema.string { max = 255, doc = "this node's name" },
  cluster = schema.string { max = 255, default = "shoal", doc = "nodes of other clusters are refused, with a reason" },
  role = schema.string(NAME),
  dc = schema.string(NAME),
  advertise = schema.string(NAME), -- The address at which others may dial us: "ip:port".
  connect_timeout_ms = limit(5000, "from dialling to the other side's greeting"),
  keepalive_ms = limit(10000, "after so much silence, ask whether the other side is there"),
  idle_timeout_ms = limit(30000, "after so much silence the connection is lost. Spans two unanswered questions"),
  linger_ms = limit(2000, "how long a closing connection may take to send its queues"),
  in_flight_max = limit(1000, "requests to one peer without answer, control not counted"),
  unanswered_max = limit(1000, "requests of one peer that wait for our answer; more are refused OVERLOADED"),
  unanswered_all_max = limit(10000, "the same over all peers"),
  connections_max = limit(4096, "accepted connections; more are refused FULL"),
  assembly_bytes_max = schema.optional(schema.integer { min = 3 << 20, max = 2 ^ 31 - 1 | 0,
    doc = "bytes of unfinished messages over all connections; messages beyond it are refused FULL; default 32 MiB" }),
  queued_bytes_max = schema.optional(schema.integer { min = 6 << 20, max = 2 ^ 31 - 1 | 0,
    doc = "bytes that wait to be sent over all peers; messages beyond it are refused FULL, control never; default 64 MiB" }),
  lane_in_flight_max = by_lane({ dispatch = 500, data = 300, telemetry = 200 }, "requests to one peer without answer"),
  lane_queue_max = by_lane({ control = 4096, dispatch = 2048, data = 2048, telemetry = 1024 }, "messages waiting for one peer"),
  lane_queue_bytes_max = by_lane({ control = 4 << 20, dispatch = 4 << 20, data = 4 << 20, telemetry = 1 << 20 }, "and their bytes"),
  circuit = schema.optional(schema.record {
    failures = schema.optional(schema.integer { min = 1, max = 16, doc = "how many failures, with no success between, open it; default 3" }),
    window_ms = limit(30000, "the failures lie at most so far apart"),
    open_ms = limit(10000, "then one trial is let through"),
  }),
  backoff = schema.optional(schema.record({
    base_ms = limit(500, "ceiling of the first wait; the wait is drawn between a tenth of its ceiling and the ceiling"),
    cap_ms = limit(30000, "no wait is longer"),
    factor = limit(2, "from one ceiling to the next"),
  }, function (c)
    if (c.cap_ms or 30000) < (c.base_ms or 500) then return "cap_ms must not be below base_ms" end
  end)),
}, function (c)
  if c.node == "" or c.cluster == "" then return "node and cluster need a name" end
  if (c.idle_timeout_ms or 30000) <= (c.keepalive_ms or 10000) then return "idle_timeout_ms must exceed keepalive_ms" end
end)

---@alias Lane "control"|"dispatch"|"data"|"telemetry"
---@alias Outcome fun(bytes: string?, err: string?, code: string?)

---@class Request  a request of a peer's; to be answered once, now or later. Dropped unanswered, it is refused and an incident.

---@class Peer  the other end: one that we dial (one for each address) or one that dialled us. The same object while it lives.
---@field call fun(self: Peer, type: integer, lane: Lane, bytes: string, timeout_ms: number, fn: Outcome): true?, string?, string?
---  ask: fn gets the answer, or nil, why and a code: "TIMEOUT", "DISCONNECTED", "CLOSED", a connect's such as "ECONNREFUSED",
---  or what the other side refused with. When this returns nil (codes "FULL", "TOO_LARGE", "CIRCUIT", "CLOSED"), fn never runs.
---@field send fun(self: Peer, type: integer, lane: Lane, bytes: string, fn: Outcome): true?, string?, string?
---  send one way: fn gets true when the kernel has it (which says nothing about arrival), else nil, why, code
---@field info fun(self: Peer): PeerInfo?, string?, string?  nil once it is gone
---@field close fun(self: Peer)  sends the queues; calls end with "CLOSED"; idempotent

---@class PeerInfo
---@field address string  dialled, or where the connection came from
---@field node? string  as it greeted us; likewise role, dc, advertise
---@field role? string
---@field dc? string
---@field advertise? string
---@field up boolean
---@field dialled boolean
---@field circuit "closed"|"open"|"half_open"
---@field in_flight integer  calls without answer
---@field queued_bytes integer

---@class NetHandlers
---@field on_request? fun(net: Net, peer: Peer, type: integer, lane: Lane, request: Request?, bytes: string)
---  request is nil for what wants no answer. Without this handler, requests are refused "UNHANDLED". A raise: "FAILED".
---@field on_peer? fun(peer: Peer, event: "up"|"down", err: string?, code: string?)  down: a connection, or an attempt, ended
---@field on_circuit? fun(peer: Peer, status: "closed"|"open"|"half_open")

---@class Net
---@field listen fun(self: Net, address: string): string?, string?, string?  where it is bound; code "CONFIG" when not loopback
---@field peer fun(self: Net, address: string): Peer?, string?, string?  nothing is dialled before there is a message to send
---@field reply fun(self: Net, request: Request, bytes: string): true?, string?, string?  code "DISCONNECTED", "FULL", "TOO_LARGE"
---@field refuse fun(self: Net, request: Request, code: string, message?: string): true?, string?, string?
---@field counts fun(self: Net): table  messages, bytes, timeouts, late_replies, faults by name,
---  `refused` by reason, drops by lane and reason, ...; now: connections_open, assembly_bytes, queued_bytes, unanswered
---@field close fun(self: Net, on_closed?: fun())  as Peer.close for every peer; again without harm,
---  but a second on_closed raises, for it would never run

--- Open the transport of one node.
---@param world World
---@param config table  see `net.config`
---@param handlers NetHandlers  errors in them are incidents at sites net.request, net.peer, net.circuit, net.reply, net.sent
---@return Net? net
---@return string? err
---@return string? code  "CONFIG"
function net.open(world, config, handlers)
  local checked, problems = net.config(config)
  if not checked then return nil, "net: " .. problems, "CONFIG" end
  local opened, err, code
  local on_request = handlers.on_request
  opened, err, code = core.open(world, checked, {
    on_request = on_request and function (...) return on_request(opened, ...) end,
    on_peer = handlers.on_peer,
    on_circuit = handlers.on_circuit,
  })
  return opened, err, code
end

return net
