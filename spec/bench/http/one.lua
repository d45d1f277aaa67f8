--- One round of `scripts/bench http`, run by the program of either build: a part with users against a URL.
---
---   shoal lua spec/bench/http/one.lua URL SECONDS VUS      prints the requests and the CPU seconds of this process and its child
local node = require "shoal.core.node"
local runner = require "shoal.runner"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

local url, seconds, vus = ...

local SCRIPT = [[return function (vu) vu.http:get("/") end]]

--- CPU seconds of this process and of the children it has waited for.
local function cpu_seconds()
  local file = assert(io.open("/proc/self/stat"))
  local fields, i = {}, 0
  for word in file:read("a"):match("%) (.*)$"):gmatch("%S+") do
    i = i + 1
    fields[i] = tonumber(word)
  end
  file:close()
  return (fields[12] + fields[13] + fields[14] + fields[15]) / 100 -- utime, stime, cutime, cstime in ticks
end

task.start(world)
task.root():spawn("cli.bench", { command = "bench http" }, function ()
  local done = task.future("result")
  local before = cpu_seconds()
  assert(runner.start(world, task.scope("bench"), {
    job = "bench", workflow = "get", part = "get/1", attempt = 1, fence = 1, work = {
      script = { path = "get.lua", bytes = SCRIPT }, vus = tonumber(vus), duration_ms = math.tointeger(tonumber(seconds) * 1000),
      env = { TARGET = url },
    },
  }, nil, function (result) done:settle(result) end))
  local result = done:await()
  assert(result.state == "completed", result.reason)
  assert(result.summary.errors == 0, "errors against nginx")
  print(("requests %d cpu %.2f"):format(result.summary.requests, cpu_seconds() - before))
  node.exit(0)
end)
