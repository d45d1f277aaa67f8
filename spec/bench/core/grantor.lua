--- The grantor of spec/bench/core/processes.lua: `shoal lua spec/bench/core/grantor.lua TTL_MS LEASES`. It prints where it listens; on
--- "counts" its counts; it ends with its stdin.
package.path = "./?.lua;" .. package.path
local errors = require "shoal.errors"
local lease = require "shoal.lease"
local messages = require "spec.bench.core.messages"
local node = require "shoal.core.node"
local rpc = require "shoal.rpc"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

local ttl_ms, leases = math.tointeger(tonumber((...))), math.tointeger(tonumber((select(2, ...))))
errors.start(world, "m1")
task.start(world)
messages.define()
local server = assert(rpc.open { name = "m1", role = "manager", dc = "a", world = world, scope = task.scope "bench" })
local grantor = assert(lease.grantor(world, { node = "m1", ttl_ms = ttl_ms, leases_max = leases }, function () end))

local fence = 0
server:handle("bench.take", function (body)
  local first = fence + 1
  for i = 1, body.count do
    fence = fence + 1
    assert(grantor:grant(body.prefix .. (body.from + i), body.holder, fence))
  end
  return { fence = first, ttl_ms = ttl_ms }
end)
server:handle("bench.renew", function (body)
  local _, refused = grantor:renew(body.holder, body.items)
  return { refused = refused }
end)
print("listens " .. assert(server:listen "127.0.0.1:0"))
io.stdout:flush()

messages.on_lines(world, function ()
  local counts = grantor:counts()
  print("renewals " .. counts.renewals)
  print("expired " .. counts.expired)
  print("held " .. counts.held)
  io.stdout:flush()
end, function () node.exit(0) end)
