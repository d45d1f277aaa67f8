--- The section "idle" of `scripts/bench jobs`: a worker at rest beside its membership alone, in one group.
---
--- Each row is a process with one feature more than the row above it; the difference is the cost of that feature:
---   member     stock lua5.4 that only runs shoal.swim
---   node       a node of role worker that does nothing: the transport, the log, the loops of every node
---   no flush   a worker that flushes its reports once a minute
---   worker     a worker as shipped
local cluster = require "spec.support.cluster"
local pieces = require "spec.bench.jobs.pieces"
local systems = require "spec.bench.jobs.systems"

local EACH = 3
local SETTLE_MS = 8000 -- Until no member has gossip.
local REST_MS = 30000

return function (options, report)
  local rest_ms = options.quick and 5000 or REST_MS
  report.with_cluster(function (c)
    local home = cluster.root
    local self = systems.nodes(c, { workers = EACH })
    local kinds, all = { "member", "node", "no flush", "worker" }, {}
    for i = 1, EACH do
      local member = pieces.start(c, "member", { "lua5.4", "spec/bench/jobs/member.lua", "m" .. i .. "-only", self.manager.address,
        env = { LUA_PATH = home .. "/lua/?.lua;;", LUA_CPATH = ("%s/%s/lib/?.so;;"):format(home, cluster.build) } })
      pieces.expect(member, "ready")
      all[#all + 1] = member
    end
    local words = { "--dc", "a", "--join", self.manager.address }
    for i = 1, EACH do
      all[#all + 1] = systems.node(c, home, { role = "worker", kind = "node", name = "node" .. i, words = words,
        script = home .. "/spec/bench/jobs/resting.lua" })
    end
    words = { "--dc", "a", "--join", self.manager.address, "--set", "flush_ms=60000" }
    for i = 1, EACH do
      all[#all + 1] = systems.node(c, home, { role = "worker", kind = "no flush", name = "still" .. i, words = words })
    end
    table.move(self.workers, 1, EACH, #all + 1, all)
    cluster.pause(SETTLE_MS)

    local before, waits = pieces.cpu(all), {}
    for i, piece in ipairs(all) do waits[i] = pieces.status(piece, "voluntary_ctxt_switches") end
    cluster.pause(rest_ms)
    local after, cpu, wakes = pieces.cpu(all), {}, {}
    for i, piece in ipairs(all) do
      local kind = piece.name
      cpu[kind], wakes[kind] = cpu[kind] or {}, wakes[kind] or {}
      local used = after[i].own - before[i].own + after[i].rest - before[i].rest
      table.insert(cpu[kind], used / rest_ms) -- ns per ms is us per s
      table.insert(wakes[kind], (pieces.status(piece, "voluntary_ctxt_switches") - waits[i]) / rest_ms * 1e3)
    end
    report.line("# idle: %d of each in one group with their manager, profile local, %d s", EACH, rest_ms // 1000)
    report.line("%-10s %10s %12s %12s", "process", "us a s", "by member's", "wakes a s")
    local last, alone = 0, report.median(cpu.member)
    for _, kind in ipairs(kinds) do
      local us = report.median(cpu[kind])
      report.line("%-10s %10.0f %12.2f %12.1f", kind, us, us / alone, report.median(wakes[kind]))
      report.line("#   %s: %.0f us a s", kind == "member" and "membership takes" or kind .. " takes above that", us - last)
      last = us
    end
    report.bar("idle_worker_by_member", report.median(cpu.worker) / alone, "<=", 1.5)
    for i = 1, 3 * EACH do table.insert(self.pieces, all[i]) end
    pieces.stop(self.pieces)
  end)
end
