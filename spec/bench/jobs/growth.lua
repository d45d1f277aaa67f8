--- The section "growth" of `scripts/bench jobs`: costs that must stay flat as the numbers of parts and of kept jobs grow.
---
--- Parts: the manager's CPU for one more part of a job, in jobs of 10 to 10,000 parts on 16 cores. The job itself has a cost too.
--- A job of 10 parts spreads it over 10 and a job of 10,000 over 10,000, so CPU / parts would fall as parts grow and could hide a
--- cost that rises. The bench therefore subtracts a job of one part: (CPU of a job of N - CPU of a job of 1) / (N - 1).
--- Several small jobs run at a time, so that all cores are busy at every size and the manager's cost at rest is shared alike.
---
--- Kept jobs: the CPU of a job at the gate, and the gate's memory, as it keeps more jobs that have ended.
local cluster = require "spec.support.cluster"
local errors = require "shoal.errors"
local pieces = require "spec.bench.jobs.pieces"
local systems = require "spec.bench.jobs.systems"

local PARTS_EACH = 2000 -- At least this many, for a figure.
local REST_MS = 1500

--- The CPU of one piece while fn runs.
local function cpu_ns(self, piece, fn)
  local before = pieces.cpu { piece }
  fn(self)
  return pieces.cpu({ piece })[1].own - before[1].own
end

--- The manager's CPU for a job with this many parts.
local function job_ns(self, parts, wanted)
  local count = math.max(1, wanted // parts)
  local flight = math.max(1, 64 // parts)
  return cpu_ns(self, self.manager, function () systems.run(self, count, flight, parts) end) / count, count
end

local function parts_of(options, report)
  local sizes, wanted = {}, options.quick and 200 or PARTS_EACH
  for size in options.parts:gmatch "%d+" do sizes[#sizes + 1] = math.tointeger(tonumber(size)) end
  report.line("# growth: CPU at the manager, one job after the other on 16 cores")
  report.line("%8s %8s %16s %20s", "parts", "jobs", "CPU us a part", "us one more part")
  local marginal = {}
  for _, size in ipairs(sizes) do -- A new cluster for each size, so that jobs of another size do not count.
    local ok = errors.call("cli.bench", { command = "bench jobs" }, report.with_cluster, function (c)
      local self = systems.shoal(c, {})
      systems.warm(self, 64)
      local one = job_ns(self, 1, wanted // 4)
      local job, count = job_ns(self, size, wanted)
      marginal[size] = (job - one) / (size - 1) / 1e3
      report.line("%8d %8d %16.1f %20.1f", size, count, job / size / 1e3, marginal[size])
      pieces.stop(self.pieces)
    end)
    if not ok then report.line("FAILED a job of %d parts", size) end
  end
  local least, most = sizes[1], sizes[#sizes]
  report.bar(("part_cpu_%d_by_%d"):format(most, least), (marginal[most] or 0 / 0) / (marginal[least] or 0 / 0), "<=", 1.3)
end

local function kept(options, report)
  local few, many, window = 20, options.quick and 400 or 5000, options.quick and 120 or 200
  local flight, ended = 16, 0
  report.line("# growth: jobs of one part that have ended and are kept; CPU at gate and manager over the next %d jobs", window)
  report.line("%8s %16s %20s %12s", "kept", "gate us a job", "manager us a job", "gate KiB")
  local gate, memory = {}, {}
  report.with_cluster(function (c)
    local self = systems.shoal(c, {})
    local function run_until(count)
      if count > ended then systems.run(self, count - ended, flight) end
      ended = count
    end
    local function resident()
      cluster.pause(REST_MS)
      return pieces.status(self.gate, "VmRSS")
    end
    local function row(at)
      run_until(at)
      local first, both = resident(), { self.gate, self.manager }
      local before = pieces.cpu(both)
      run_until(at + 80)
      local later = resident()
      run_until(at + window)
      local after = pieces.cpu(both)
      memory[at] = at == few and later or first -- After 100 jobs in the first row; in the others after as many as the row has kept.
      gate[at] = (after[1].own - before[1].own) / window / 1e3
      report.line("%8d %16.1f %20.1f %12d", at, gate[at], (after[2].own - before[2].own) / window / 1e3, memory[at])
    end
    for _, at in ipairs(options.quick and { few, many } or { few, 1000, many }) do row(at) end
    pieces.stop(self.pieces)
  end)
  report.bar(("gate_cpu_%d_by_%d_kept"):format(many, few), gate[many] / gate[few], "<=", 1.25)
  report.bar(("gate_memory_%d_by_100_jobs"):format(many), memory[many] / memory[few], "<=", 1.5)
end

return function (options, report)
  parts_of(options, report)
  kept(options, report)
end
