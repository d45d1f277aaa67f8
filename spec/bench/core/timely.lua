--- The part "timely" of `scripts/bench core`: how long after its deadline a lease's expiry is reported, on the real loop, for leases of
--- 50 ms to 5 s; beside a bare timer of the same loop. (From 50 ms to 1 h, and exactly: spec/c/lease_spec.c, in virtual time.)
local errors = require "shoal.errors"
local lease = require "shoal.lease"
local node = require "shoal.core.node"
local world = require("shoal.core.world").current()

local quick = ... == "quick"
local LEASES, LONGEST_MS = quick and 100 or 5000, quick and 500 or 5000
errors.start(world, "m1")

local deadlines, late, timers = {}, {}, {}
local grantor, finish

grantor = assert(lease.grantor(world, { node = "m1" }, function (event)
  late[#late + 1] = (world:fresh_ns() - deadlines[event.key]) / 1e6
  if #late == LEASES then finish() end
end))

for i = 1, LEASES do
  local ttl_ms = 50 + (i * 7919) % (LONGEST_MS - 49)
  deadlines["k" .. i] = world:fresh_ns() + ttl_ms * 1020000
  assert(grantor:grant("k" .. i, "w" .. i % 10, i, ttl_ms))
  -- The grantor read its clock a little later than we did: its deadline is later by less than a microsecond.
  if i % 10 == 0 then
    local at_ns, timer = deadlines["k" .. i], nil
    timer = world:timer(function ()
      timers[#timers + 1] = (world:fresh_ns() - at_ns) / 1e6
      timer:close()
    end)
    timer:start_at(at_ns)
  end
end

local short = false
local function bar(name, figure, relation, bound)
  local ok = relation == "<=" and figure <= bound or relation == ">=" and figure >= bound
  if not ok then short = true end
  print(("bar %s %.4g want %s %.4g %s"):format(name, figure, relation, bound, ok and "ok" or "short"))
end

local function row(name, values)
  table.sort(values)
  local function q(part) return values[math.max(1, math.ceil(part * #values))] end
  print(("%-18s %8d %10.3f %10.3f %10.3f %10.3f"):format(name, #values, values[1], q(0.5), q(0.99), values[#values]))
  return q(0.99)
end

function finish()
  print(("%-18s %8s %10s %10s %10s %10s"):format("ms after it was due", "count", "least", "median", "p99", "greatest"))
  local p99 = row("expiry of a lease", late)
  row("a bare timer", timers)
  bar("lease_expiry_least_ms", late[1], ">=", 0)
  bar("lease_expiry_p99_ms", p99, "<=", 10)
  grantor:close()
  node.exit(short and 1 or 0)
end
