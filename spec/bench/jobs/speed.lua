--- The section "speed" of `scripts/bench jobs`: jobs a second and CPU a job, beside other systems.
local old = require "spec.bench.jobs.old"
local pieces = require "spec.bench.jobs.pieces"
local systems = require "spec.bench.jobs.systems"

local OLD = old.COMMIT
local BULLMQ, IOREDIS = "bullmq@6.7.0", "ioredis@5.8.2"
local FLIGHTS = { 1, 64 }
-- Jobs before the first measurement. Each Node.js worker compiles its code further during the first hundreds of jobs.
local WARM = { shoal = 200, old = 200, beanstalkd = 200, bullmq = 2000 }
local NAMES = { "shoal", "old", "beanstalkd", "bullmq" }

local function shell(line)
  local pipe = assert(io.popen(line))
  local text = pipe:read "a"
  return pipe:close() and text or nil, text
end

--- Install BullMQ of the pinned version into a folder that is removed when the section ends.
local function install_bullmq()
  local folder = assert(shell "mktemp -d /tmp/shoal-bullmq-XXXXXX"):gsub("%s+$", "")
  local ok, said = shell(("cd %s && npm install --no-audit --no-fund --ignore-scripts --loglevel=error %s %s 2>&1"):format(folder, BULLMQ,
    IOREDIS))
  return folder, not ok and said or nil
end

local function has(program) return shell(("command -v %s"):format(program)) ~= nil end

--- Find out which systems can be started here; report the others.
---@return table<string, function> starts, table<string, true> wanted, table free  `free` removes temporary files when closed
local function prepare(options, report)
  local wanted, starts = {}, {}
  for name in options.systems:gmatch "[^,]+" do wanted[name] = true end
  local function missing(name, why) report.line("MISSING %s: %s", name, why) end
  local free = { folder = nil }
  setmetatable(free, { __close = function (self) if self.folder then os.execute("rm -rf " .. self.folder) end end })
  starts.shoal = wanted.shoal and function (c) return systems.shoal(c, {}) end
  if wanted.old then
    local home, why = old.build(options.old)
    if home then
      starts.old = function (c) return systems.shoal(c, { home = home }) end
    else
      report.line("SKIPPED old: no build of %s: %s; the bar against it is not judged", OLD, why)
      wanted.old = nil
    end
  end
  if wanted.beanstalkd then
    if has "beanstalkd" then starts.beanstalkd = systems.beanstalkd else missing("beanstalkd", "scripts/setup bench installs it") end
  end
  if wanted.bullmq then
    local problem = not (has "redis-server" and has "node" and has "npm") and "scripts/setup bench installs Redis, Node.js and npm" or nil
    if not problem then free.folder, problem = install_bullmq() end
    if problem then
      missing("bullmq", problem)
    else
      local modules = free.folder .. "/node_modules"
      starts.bullmq = function (c) return systems.bullmq(c, { modules = modules, persistence = options.persistence }) end
    end
  end
  return starts, wanted, free
end

local function print_breakdown(report, name, flight, samples, list)
  local words, seen = {}, {}
  for _, piece in ipairs(list) do
    if not seen[piece.name] then
      seen[piece.name] = true
      local own, rest = {}, {}
      for i, s in ipairs(samples) do own[i], rest[i] = s.by[piece.name].own / s.count / 1e3, s.by[piece.name].rest / s.count / 1e3 end
      words[#words + 1] = ("%s %.0f"):format(piece.name, report.median(own))
      if report.median(rest) >= 1 then words[#words + 1] = ("its children %.0f"):format(report.median(rest)) end
    end
  end
  report.line("#   %s, %d outstanding, CPU us a job: %s", name, flight, table.concat(words, ", "))
end

--- The median over the rounds of one system's figure by another's.
local function ratio(report, results, figure, flight, a, b)
  local values, of_a, of_b = {}, results[a] and results[a][flight] or {}, results[b] and results[b][flight] or {}
  for i = 1, math.min(#of_a, #of_b) do values[i] = of_a[i][figure] / of_b[i][figure] end
  return report.median(values)
end

return function (options, report)
  local starts, wanted, free_modules = prepare(options, report)
  local free <close> = free_modules
  report.line("# speed: jobs of one `true`, end to end; %d workers of %d; Redis: appendonly %s; beanstalkd: -f 0; %s, %s; %d rounds",
    4, 4, options.persistence, BULLMQ, IOREDIS, options.rounds)
  local results, lists = {}, {}
  for round = 1, options.rounds do
    for k = 1, #NAMES do
      local name = NAMES[round % 2 == 1 and k or #NAMES + 1 - k]
      if starts[name] then
        results[name] = results[name] or { [1] = {}, [64] = {} }
        report.with_cluster(function (c)
          local system = starts[name](c)
          lists[name] = system.pieces
          systems.warm(system, options.quick and 32 or WARM[name])
          for _, flight in ipairs(FLIGHTS) do
            local count = flight == 1 and options.jobs // 2 or options.jobs
            local sample = systems.measure(system, count, flight)
            sample.count = count
            table.insert(results[name][flight], sample)
            io.stderr:write(("# round %d %-10s %2d outstanding: %6.0f jobs/s, CPU %6.2f ms a job\n"):format(round, name, flight, sample.rate,
              sample.cpu_us / 1e3))
          end
          pieces.stop(system.pieces)
        end)
      end
    end
  end
  report.line("%-12s %12s %12s %14s", "system", "outstanding", "jobs/s", "CPU ms a job")
  for _, name in ipairs(NAMES) do
    for _, flight in ipairs(results[name] and FLIGHTS or {}) do
      local rates, cpu = {}, {}
      for i, sample in ipairs(results[name][flight]) do rates[i], cpu[i] = sample.rate, sample.cpu_us / 1e3 end
      report.line("%-12s %12d %12.0f %14.2f", name, flight, report.median(rates), report.median(cpu))
    end
  end
  for _, name in ipairs(NAMES) do
    for _, flight in ipairs(results[name] and FLIGHTS or {}) do print_breakdown(report, name, flight, results[name][flight], lists[name]) end
  end
  if not wanted.shoal then return end
  for _, flight in ipairs(FLIGHTS) do
    if wanted.bullmq then
      report.bar("rate_by_bullmq_" .. flight, ratio(report, results, "rate", flight, "shoal", "bullmq"), ">=", 1)
      report.bar("cpu_by_bullmq_" .. flight, ratio(report, results, "cpu_us", flight, "shoal", "bullmq"), "<=", 1)
    end
    if wanted.old then
      report.bar("cpu_by_old_" .. flight, ratio(report, results, "cpu_us", flight, "shoal", "old"), "<=", 0.2)
    end
  end
end
