--- bench jobs: the cost of a job from its submission to its result, in real processes on loopback.
---
---   scripts/bench jobs [--only=speed,growth,idle,half] [--rounds=N] [--jobs=N] [--old=DIR] [--persistence=everysec|always|none]
---                      [--systems=shoal,old,beanstalkd,bullmq] [--parts=10,100,1000,10000] [--quick]
---
---   speed    tiny commands, 1 and 64 outstanding: shoal (a gate, a manager, 4 workers of 4 cores), beside beanstalkd with a sync of
---            each change, BullMQ on Redis, and a build of the last commit before the job layer was rebuilt (--old names a built
---            checkout; without it the bench builds one from the history into build/)
---   growth   the CPU of a part at the manager and of a job at the gate, and the gate's memory, as their number grows
---   idle     a worker at rest beside a program of stock lua5.4 that only runs shoal.swim in the same group
---   half     the memory that a gate holds for 1,000 connections that never finish their messages
---
--- A round starts each system anew and measures it; rounds alternate the order, and figures are medians. CPU is that of all
--- processes as the kernel counted it, the client and every child included (spec/bench/jobs/pieces.lua).
---
--- It takes about 8 minutes; --quick takes two and only shows that everything works: its figures mean nothing.
package.path = "./?.lua;" .. package.path
local cluster = require "spec.support.cluster"
local errors = require "shoal.errors"

local SECTIONS = { speed = true, growth = true, idle = true, half = true }

local options = { only = "speed,growth,idle,half", rounds = "5", jobs = "400", old = "", persistence = "everysec",
  systems = "shoal,old,beanstalkd,bullmq", parts = "10,100,1000,10000", quick = false }

local function usage(text)
  io.stderr:write("bench jobs: ", text, "; see the head of spec/bench/jobs.lua\n")
  os.exit(2)
end

for _, word in ipairs { ... } do
  local name, value = word:match "^%-%-(%a+)=?(.*)$"
  if not name or options[name] == nil then usage("unknown option " .. word) end
  options[name] = value
end
options.quick = options.quick ~= false
if options.quick then options.rounds, options.jobs, options.parts = "1", "60", "10,100" end
for _, name in ipairs { "rounds", "jobs" } do
  options[name] = math.tointeger(tonumber(options[name])) or usage("--" .. name .. ": expected a whole number")
end

local report = { short = 0 }

--- Print a bar. A figure that is not a number is short: something is missing.
function report.bar(name, figure, relation, bound)
  local ok
  if relation == "<=" then ok = figure <= bound else ok = figure >= bound end
  if not ok then report.short = report.short + 1 end
  local line = ("bar jobs_%s %.3f want %s %.3f %s"):format(name, figure, relation, bound, ok and "ok" or "short")
  print((line:gsub("%-nan", "nan")))
  io.stdout:flush()
end

function report.line(format, ...)
  print(format:format(...))
  io.stdout:flush()
end

function report.median(values)
  if #values == 0 then return 0 / 0 end
  table.sort(values)
  local n = #values
  return n % 2 == 1 and values[n // 2 + 1] or (values[n // 2] + values[n // 2 + 1]) / 2
end

--- Run something with a cluster of its own, which ends with it.
function report.with_cluster(fn)
  local c = cluster.new()
  local closing <close> = setmetatable({}, { __close = function () c:close() end })
  return fn(c)
end

for section in options.only:gmatch "[^,]+" do
  if not SECTIONS[section] then usage("there is no section " .. section) end
end
for section in options.only:gmatch "[^,]+" do
  if not errors.call("cli.bench", { command = "bench jobs " .. section }, require("spec.bench.jobs." .. section), options, report) then
    report.short = report.short + 1
    report.line("FAILED %s: it did not come to its end", section)
  end
end
return report.short == 0 and 0 or 1
