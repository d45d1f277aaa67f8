--- A holder of spec/bench/core/processes.lua: `shoal lua spec/bench/core/holder.lua ADDRESS NAME LEASES`. It takes its leases over one
--- renewal interval, so that they are not all due at once, prints that it holds them, renews what is due, and ends with its stdin.
package.path = "./?.lua;" .. package.path
local errors = require "shoal.errors"
local lease = require "shoal.lease"
local messages = require "spec.bench.core.messages"
local node = require "shoal.core.node"
local rpc = require "shoal.rpc"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

local address, name, leases = ...
leases = math.tointeger(tonumber(leases))
errors.start(world, name)
task.start(world)
messages.define()
local scope = task.scope "bench"
local client = assert(rpc.open { name = name, role = "worker", dc = "a", world = world, scope = scope })
local peer = client:peer(address)
local TAKE, RENEW_MS = 500, 50

local holder = assert(lease.holder(world, { node = name }, function (event)
  io.stderr:write(("%s: %s of %s\n"):format(name, event.kind, event.key))
end))

local function must(value, err, code)
  if value == nil then error(("%s [%s]"):format(tostring(err), tostring(code)), 2) end
  return value
end

scope:spawn("cli.bench", { command = "holder" }, function ()
  local prefix = "job-" .. name .. "/"
  for from = 0, leases - 1, TAKE do
    local sent_ns, count = world:fresh_ns(), math.min(TAKE, leases - from)
    local answer = must(peer:call("bench.take", { holder = name, prefix = prefix, from = from, count = count }))
    for i = 1, count do must(holder:add(prefix .. (from + i), answer.fence + i - 1, answer.ttl_ms, sent_ns)) end
    task.sleep(3000 * TAKE // leases)
  end
  print "holds all"
  io.stdout:flush()
end)

scope:spawn("cli.bench", { command = "holder" }, function ()
  while true do
    local items, token = holder:due()
    if items[1] then
      local answer, err, code = peer:call("bench.renew", { holder = name, items = items })
      if code == "CLOSED" then return end -- The bench is over.
      answer = must(answer, err, code)
      holder:renewed(token, items, answer.refused)
    else
      task.sleep(RENEW_MS)
    end
  end
end)

messages.on_lines(world, function () end, function () node.exit(0) end)
