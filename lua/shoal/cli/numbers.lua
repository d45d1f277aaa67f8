--- numbers: the measurements of a job as people read them, beside the row of each workflow: what to beware of, errors, times, checks.
--- Pure: tables in, lines out.
local common = require "shoal.cli.common"
local sorted = require "shoal.base.sorted"

local numbers = {}

local ROWS_MAX = 20   -- Of times, for each workflow, and of checks; `--output json` has all.
local NAMES_MAX = 5   -- Of checks in warnings, and of nodes beside an incident.
local HELD = 0.95     -- An open loop that reached this share of its rate is not warned of.

--- 1234567 as "1,234,567".
function numbers.grouped(n)
  local text = ("%d"):format(n // 1)
  local from = #text % 3
  return text:sub(1, from) .. text:sub(from + 1):gsub("%d%d%d", function (three) return "," .. three end):gsub("^,", from == 0 and "" or ",")
end
local grouped = numbers.grouped

---@param value? number  milliseconds
function numbers.ms(value)
  if not value then return "-" end
  return value < 10 and ("%.2f ms"):format(value) or value < 1000 and ("%.1f ms"):format(value) or ("%.2f s"):format(value / 1000)
end
local ms = numbers.ms

--- A name on one line; out.lua makes the other control bytes harmless.
local function on_a_line(name) return (name:gsub("\n", "\\n")) end
local function quoted(name) return '"' .. on_a_line(name:gsub('["\\]', "\\%0")) .. '"' end

---@param value number  a second
function numbers.rate(value)
  return value < 9.995 and ("%.2f/s"):format(value) or value < 99.95 and ("%.1f/s"):format(value) or grouped(value + 0.5) .. "/s"
end
local rate = numbers.rate

--- Errors by kind: of requests, with the share of all requests; of a command or script, and of setup and teardown, without.
---@return string requests, string others  "none" and "" when there are none
local function errors_of(stats)
  local words, others, requests = {}, {}, stats.requests or 0
  for kind, count in sorted(stats.errors or {}) do
    if kind == "script" then
      others[#others + 1] = ("script errors: %s in %s iterations"):format(grouped(count), grouped(stats.iterations or 0))
    elseif kind:sub(1, 1) == "(" then
      others[#others + 1] = ("%s %s"):format(kind, grouped(count))
    else
      words[#words + 1] = ("%s %s"):format(kind, grouped(count)) .. (requests > 0 and (" (%.3g %%)"):format(100 * count / requests) or "")
    end
  end
  return #words > 0 and table.concat(words, ", ") or "none", table.concat(others, "; ")
end

-- Warnings -------------------------------------------------------------------------------------------------------------

--- A load test counts failures, so a job of which nothing worked has completed all the same.
local function warn_failures(w, s, put)
  if w.state == "completed" and (s.requests or 0) > 0 and (s.failed or 0) >= s.requests then
    put("WARNING: every request of %s failed: %s; with max_failed_share in the job file that fails the job", w.workflow, (errors_of(s)))
  end
end

local function warn_checks(w, s, put)
  local never, failed, passed = {}, 0, 0
  for _, c in ipairs(s.checks or {}) do
    failed, passed = failed + c.failed, passed + c.passed
    if c.passed == 0 and c.failed > 0 then never[#never + 1] = quoted(c.name) end
  end
  if w.state ~= "completed" or #never == 0 then return end
  local which = table.concat(never, ", ", 1, math.min(#never, NAMES_MAX))
  if #never > NAMES_MAX then which = ("%s and %d more"):format(which, #never - NAMES_MAX) end
  if passed == 0 then
    put("WARNING: every check of %s failed, %s times: %s; with max_failed_checks_share in the job file that fails the job", w.workflow,
      grouped(failed), which)
  else
    put("WARNING: checks of %s that never passed: %s", w.workflow, which)
  end
end

local function warn_pace(w, s, put)
  local pace = s.pace
  if not pace then return end
  local reached, wanted = pace.begun_per_second, pace.wanted_per_second
  if pace.dropped == 0 and reached >= HELD * wanted then return end
  put("WARNING: %s: rate %s of %s wanted; %s iterations dropped, %s began late; more vus, or parts that run side by side, may reach it",
    w.workflow, rate(reached), rate(wanted), grouped(pace.dropped), grouped(pace.late))
end

local function warn_interrupted(w, s, put)
  if (s.interrupted or 0) == 0 then return end
  put("%s: %s iterations were interrupted: they had not ended when the load did (see graceful_ms)", w.workflow, grouped(s.interrupted))
end

--- The lines that a reader must not miss.
---@param result table
---@param put fun(format: string, ...)
function numbers.warnings(result, put)
  for _, w in ipairs(result.workflows or {}) do
    for _, warn in ipairs { warn_failures, warn_checks, warn_pace, warn_interrupted } do warn(w, w.stats or {}, put) end
  end
end

-- Times ----------------------------------------------------------------------------------------------------------------

local function row(what, l)
  if l and (l.count or 0) > 0 then return { on_a_line(what), grouped(l.count), ms(l.p50_ms), ms(l.p95_ms), ms(l.p99_ms), ms(l.max_ms) } end
end

--- Rows of one workflow; the heaviest names first.
local function rows_of(w, s)
  local rows, names, left = {}, {}, 0
  local function put(what, l)
    if #rows < ROWS_MAX then
      rows[#rows + 1] = row(("%s: %s"):format(w.workflow, what), l)
    elseif row("", l) then
      left = left + 1
    end
  end
  put("iterations", s.iteration)
  put("failed requests", s.failure_latency)
  put("requests, from their own start", s.raw_latency)
  if s.pace then put("delay of our own timers", s.pace.start_delay) end
  for _, l in ipairs(s.outside or {}) do put(l.name, l) end
  for _, l in ipairs(s.timers or {}) do put("timer " .. l.name, l) end
  for i, l in ipairs(s.by_name or {}) do names[i] = l end
  table.sort(names, function (a, b)
    local x, y = a.count or 0, b.count or 0
    if x ~= y then return x > y end
    return a.name < b.name
  end)
  if #names > 1 then
    for _, l in ipairs(names) do put(l.name, l) end
  end
  return rows, left
end

local function put_times(result, put)
  local rows, more = { { "TIMES", "COUNT", "p50", "p95", "p99", "MAX" } }, 0
  for _, w in ipairs(result.workflows or {}) do
    local own, left = rows_of(w, w.stats or {})
    table.move(own, 1, #own, #rows + 1, rows)
    more = more + left
  end
  if #rows == 1 then return end
  put("%s", common.columns(rows))
  if more > 0 then put("(%s more names; --output json has them)", grouped(more)) end
  put("")
end

local function pairs_text(map)
  local words = {}
  for name, count in sorted(map) do words[#words + 1] = ("%s %s"):format(on_a_line(name), grouped(count)) end
  return table.concat(words, ", ")
end

--- Checks; where there are many, those that failed most.
local function put_checks(stats, put)
  local checks = table.move(stats.checks or {}, 1, #(stats.checks or {}), 1, {})
  if #checks > ROWS_MAX then
    table.sort(checks, function (a, b)
      if a.failed ~= b.failed then return a.failed > b.failed end
      return a.name < b.name
    end)
  end
  for i = 1, math.min(#checks, ROWS_MAX) do
    put("check %s: %s passed, %s failed", quoted(checks[i].name), grouped(checks[i].passed), grouped(checks[i].failed))
  end
  if #checks > ROWS_MAX then put("(%s more checks; --output json has them)", grouped(#checks - ROWS_MAX)) end
end

--- Everything that the table of workflows does not show.
---@param result table
---@param put fun(format: string, ...)
function numbers.detail(result, put)
  local stats = result.stats or {}
  put_times(result, put)
  local kinds, others = errors_of(stats)
  put("errors by kind: %s", kinds)
  if others ~= "" then put("%s", others) end
  if stats.repeated then put("sent again, over a fresh connection, for the kept one had ended: %s", grouped(stats.repeated)) end
  if stats.redirected then put("redirects followed: %s", grouped(stats.redirected)) end
  put_checks(stats, put)
  if next(stats.counters or {}) ~= nil then put("counters: %s", pairs_text(stats.counters)) end
end

-- Workflows ------------------------------------------------------------------------------------------------------------

--- The row of each workflow. What a workflow has not, a command's requests for example, is "-"; without requests, the rate is that of
--- its iterations.
function numbers.workflows(result)
  local rows = { { "WORKFLOW", "STATE", "ITERATIONS", "REQUESTS", "FAILED", "RATE", "p50", "p95", "p99", "MAX" } }
  for _, w in ipairs(result.workflows or {}) do
    local s = w.stats or {}
    local l, measured, iterated = s.latency or {}, (s.requests or 0) > 0, (s.iterations or 0) > 0
    rows[#rows + 1] = {
      w.workflow, w.state, iterated and grouped(s.iterations) or "-", measured and grouped(s.requests) or "-",
      measured and grouped(s.failed or 0) or "-",
      measured and rate(s.requests_per_second or 0) or iterated and rate(s.iterations_per_second or 0):gsub("/s", " it/s") or "-",
      ms(l.p50_ms), ms(l.p95_ms), ms(l.p99_ms), ms(l.max_ms),
    }
  end
  return common.columns(rows)
end

-- Incidents ------------------------------------------------------------------------------------------------------------

--- A job's incidents, equal ones as one line: parts of one script report the same mistake.
---@param result table
---@param put fun(format: string, ...)
function numbers.incidents(result, put)
  local groups, order = {}, {}
  for _, i in ipairs(result.incidents or {}) do
    local key = table.concat({ i.level, i.site, i.message, i.where or "?" }, "\0")
    local group = groups[key]
    if not group then
      group = { first = i, count = 0, nodes = {}, seen = {} }
      groups[key], order[#order + 1] = group, group
    end
    group.count = group.count + 1
    if not group.seen[i.node] then
      group.seen[i.node] = true
      group.nodes[#group.nodes + 1] = i.node
    end
  end
  put("incidents: %d", #(result.incidents or {}))
  for _, group in ipairs(order) do
    local i, nodes = group.first, group.nodes
    local who = #nodes <= NAMES_MAX and table.concat(nodes, ", ")
      or ("%s and %d more"):format(table.concat(nodes, ", ", 1, NAMES_MAX), #nodes - NAMES_MAX)
    put("  %s%s on %s: %-8s %s: %s%s", i.id, group.count > 1 and (" and %d like it"):format(group.count - 1) or "", who, i.level, i.site,
      i.message, (i.where or "?") ~= "?" and " (" .. i.where .. ")" or "")
  end
end

return numbers
