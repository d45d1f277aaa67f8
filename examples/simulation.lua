--- A whole cluster in this process, on a network that loses one packet in fifty: a job runs, one of its workers dies, and the job
--- completes all the same. Two runs with one seed are the same to the byte.
---   shoal sim examples/simulation.lua 7
local sim = require "shoal.sim"

local s <close> = sim.new { seed = tonumber((...)) or 1, latency_ms = 1, jitter_ms = 0.2, loss = 0.02 }

-- The outside: a host that answers HTTP, and a command.
local requests = 0
s:http("shop", function ()
  requests = requests + 1
  return { status = 200, body = "welcome", delay_ms = 5 }
end)
s:command("echo", function () return "the shop has closed\n", 0, 10 end)

-- The inside: the role scripts of scripts/roles, unchanged.
local gate = s:node { role = "gate", name = "g1" }
local workers = {}
for _, dc in ipairs { "a", "b" } do
  local manager = s:node { role = "manager", name = "m-" .. dc, dc = dc, config = { gates = { gate } } }
  for i = 1, 3 do
    workers[#workers + 1] = s:node { role = "worker", name = "w-" .. dc .. i, dc = dc, config = { join = { manager }, cores = 2 } }
  end
end
s:run(2000)

local client = s:node {
  name = "client", argv = { "submit", "/job.lua", "--connect", gate.address }, entry = "shoal.cli.main",
  files = {
    ["/job.lua"] = [[
      return { name = "shopping", workflows = {
        browse = { script = "browse.lua", vus = 12, iterations = 600, retries = 2 },
        close = { after = { "browse" }, command = "echo the shop has closed" },
      } }]],
    ["/browse.lua"] = [[return function (vu) vu.http:get("http://shop/") vu:sleep(30) end]],
  },
}
s:at(s:now_ms() + 700, function () s:crash(workers[2]) end)

assert(s:run_until(function () return s:status(client) ~= "up" end, 60000))
for line in s:log():gmatch "[^\n]+" do
  local text = line:match "^%S+ client ([^{].*)"
  if text then print(text) end
end
local _, code = s:status(client)
print(("%.1f s of the cluster's time, %d requests reached the shop"):format(s:now_ms() / 1000, requests))
return code
