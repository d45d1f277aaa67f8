--- The section "half" of `scripts/bench jobs`: the memory that unfinished messages take at a gate.
---
--- 1,000 connections greet as clients and send frames without a last one. In the case "whole" each sends almost a message of the
--- greatest size in each of the four lanes, 12 MiB in all. In the case "one frame" each sends one frame, which no limit for a single
--- connection can refuse. The figure is the greatest growth of the gate's resident memory. The gate may close connections or stop
--- reading them, but a job that is submitted meanwhile must end.
local cluster = require "spec.support.cluster"
local pieces = require "spec.bench.jobs.pieces"
local systems = require "spec.bench.jobs.systems"

local CONNECTIONS = 1000
local LIMIT_KIB = 64 * 1024
local STOP_KIB = 1024 * 1024 -- The case ends there: a gate without a limit would fill the machine.
local HOLD_MS = 3000
local CASES = { { name = "whole", lanes = 4, frames = 47 }, { name = "one frame", lanes = 1, frames = 1 } }

local function run_case(c, case, report)
  local self = systems.shoal(c, {})
  systems.warm(self, 64)
  local before = pieces.status(self.gate, "VmRSS")
  local half = c:spawn { pieces.helper, "half", self.gate.address:match "%d+$", tostring(CONNECTIONS), tostring(case.lanes),
    tostring(case.frames) }
  local most, stopped = before, false
  local function look()
    most = math.max(most, pieces.status(self.gate, "VmRSS"))
    stopped = most - before > STOP_KIB
    return stopped
  end
  cluster.wait("the connections to come to rest", function () return look() or half.out:find "open" or half.code end, 60000)
  local ran = "no job was run"
  if not stopped then
    local over = false
    local timer = require("luv").new_timer()
    timer:start(HOLD_MS, 0, function () over = true end)
    ran = ("a job took %.0f ms meanwhile"):format(1e3 * systems.run(self, 1, 1))
    cluster.wait("the hold", function () return look() or over end, 60000)
    timer:close()
  end
  half:close_stdin()
  half:wait()
  local open, closed, bytes = half.out:match "open (%d+) (%d+) (%d+)"
  report.line("%-10s %12d %12s %8s %8s %14s  %s%s", case.name, most - before, bytes and ("%.1f"):format(bytes / 1048576) or "?",
    open or "?", closed or "?", ("%.1f"):format(most / 1024), ran, stopped and "; stopped there" or "")
  report.bar("half_" .. case.name:gsub(" ", "_") .. "_mib", (most - before) / 1024, "<=", LIMIT_KIB / 1024)
  pieces.stop(self.pieces)
end

return function (_, report)
  report.line("# half: %d connections with unfinished messages at a gate", CONNECTIONS)
  report.line("%-10s %12s %12s %8s %8s %14s", "each", "grown KiB", "sent MiB", "open", "closed", "gate MiB")
  for _, one in ipairs(CASES) do report.with_cluster(function (c) run_case(c, one, report) end) end
end
