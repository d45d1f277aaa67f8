--- Of the part "detector" of `scripts/bench core`: how long after its deadline a suspicion's expiry is reported, on the real loop, for least
--- timeouts of 50 ms to 5 s, while accusers confirm all of them again and again. The two first bring the deadline to the least; were any
--- later one to move it, expiry would be late. (From 50 ms to 1 h, and exactly: spec/c/detector_spec.c, in virtual time.)
local detector = require "shoal.detector"
local errors = require "shoal.errors"
local node = require "shoal.core.node"
local world = require("shoal.core.world").current()

local quick = ... == "quick"
local DETECTORS, EACH, LONGEST_MS, EVERY_MS = 50, quick and 4 or 100, quick and 500 or 5000, 20
errors.start(world, "m1")

local late, due, detectors, stream, finish = {}, {}, {}, nil, nil

local function open(i)
  local least_ms = 50 + (i * 7919) % (LONGEST_MS - 49)
  detectors[i] = assert(detector.open(world, { job_min_ms = least_ms, job_max_ms = 2 * least_ms }, function (event)
    if event.kind ~= "job_expired" then return end
    late[#late + 1] = (world:fresh_ns() - due[i][event.node]) / 1e6
    due[i][event.node] = nil
    if #late == DETECTORS * EACH then finish() end
  end))
  due[i] = {}
  for k = 1, EACH do
    assert(detectors[i]:suspect("job", "w" .. k, "m1"))
    due[i]["w" .. k] = world:now_ns() + least_ms * 1000000
  end
end
for i = 1, DETECTORS do open(i) end

local round = 0
stream = world:timer(function ()
  round = round + 1
  for i, d in ipairs(detectors) do
    for name in next, due[i] do d:confirm("job", name, "m" .. round) end -- order-free: each by itself
  end
  stream:start(EVERY_MS)
end)
stream:start(EVERY_MS)

local short = false
local function bar(name, figure, relation, bound)
  local ok = relation == "<=" and figure <= bound or relation == ">=" and figure >= bound
  if not ok then short = true end
  print(("bar %s %.4g want %s %.4g %s"):format(name, figure, relation, bound, ok and "ok" or "short"))
end

function finish()
  table.sort(late)
  local function q(part) return late[math.max(1, math.ceil(part * #late))] end
  print(("%d suspicions, %d rounds of confirmations: expired %.3f ms after the deadline at least, median %.3f, p99 %.3f, at most %.3f"):format(
    #late, round, late[1], q(0.5), q(0.99), late[#late]))
  bar("detector_expiry_least_ms", late[1], ">=", 0)
  bar("detector_expiry_p99_ms", q(0.99), "<=", 10)
  stream:close()
  for _, d in ipairs(detectors) do d:close() end
  node.exit(short and 1 or 0)
end
