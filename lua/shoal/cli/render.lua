--- render: progress and results as people read them. Pure: tables in, text out.
local common = require "shoal.cli.common"
local sorted = require "shoal.base.sorted"
local views = require "shoal.cli.views"

local render = {}

--- 1234567 as "1,234,567".
local function grouped(n)
  local text = ("%d"):format(n // 1)
  local from = #text % 3
  return text:sub(1, from) .. text:sub(from + 1):gsub("%d%d%d", function (three) return "," .. three end):gsub("^,", from == 0 and "" or ",")
end
render.grouped = grouped

local function ms(value)
  if not value then return "-" end
  return value < 10 and ("%.2f ms"):format(value) or value < 1000 and ("%.1f ms"):format(value) or ("%.2f s"):format(value / 1000)
end

--- One line of progress: by datacenter (or worker) and workflow, with rates since the line before.
---@param stats { at_ms: number, parts: table[] }
---@param before? { at_ms: number, requests: table<string, integer> }  what the last call returned; nil for the first
---@return string line, table now
function render.progress(stats, before)
  local now, cells = { at_ms = stats.at_ms, requests = {} }, {}
  for _, part in ipairs(stats.parts) do
    local key, counts = part.part, part.stats
    local requests = counts.requests or 0
    now.requests[key] = requests
    local cell = ("%s@%s"):format(part.workflow, part.executor ~= "" and part.executor or "-")
    if part.state == "completed" or part.state == "failed" or part.state == "cancelled" then
      cell = cell .. " " .. (part.state == "completed" and "done" or part.state)
    elseif requests > 0 then
      local span_ms = before and stats.at_ms - before.at_ms or 0
      local rate = span_ms > 0 and (requests - (before.requests[key] or 0)) * 1000 / span_ms or 0
      cell = ("%s %s req %s/s"):format(cell, grouped(requests), grouped(rate))
    elseif (counts.iterations or 0) > 0 then
      cell = ("%s %s iterations"):format(cell, grouped(counts.iterations))
    else
      cell = cell .. " " .. part.state
    end
    if (counts.errors or 0) > 0 then cell = ("%s %s failed"):format(cell, grouped(counts.errors)) end
    if (counts.lost or 0) > 0 then cell = ("%s %d lost"):format(cell, counts.lost) end
    if part.attempt > 1 then cell = cell .. (" (attempt %d)"):format(part.attempt) end
    cells[#cells + 1] = cell
  end
  return ("%6.1f s  %s"):format(stats.at_ms / 1000, table.concat(cells, "  |  ")), now
end

local function pairs_text(map)
  local words = {}
  for name, count in sorted(map or {}) do words[#words + 1] = ("%s %s"):format(name, grouped(count)) end
  return #words > 0 and table.concat(words, ", ") or "none"
end

--- Errors by kind; with what share of all requests each is, where there were any.
local function errors_text(stats)
  local words, requests = {}, stats.requests or 0
  for kind, count in sorted(stats.errors or {}) do
    words[#words + 1] = ("%s %s"):format(kind, grouped(count)) .. (requests > 0 and (" (%.3g %%)"):format(100 * count / requests) or "")
  end
  return #words > 0 and table.concat(words, ", ") or "none"
end

--- A job of which every request failed has completed all the same, for a load test counts failed requests. So a warning stands
--- on top of the result.
local function nothing_worked(result, put)
  for _, w in ipairs(result.workflows or {}) do
    local s = w.stats or {}
    if w.state == "completed" and (s.requests or 0) > 0 and (s.failed or 0) >= s.requests then
      put("WARNING: every request of %s failed: %s; with max_failed_share in the job file that fails the job", w.workflow, errors_text(s))
    end
  end
end

local function workflow_rows(result)
  local rows = { { "WORKFLOW", "STATE", "REQUESTS", "FAILED", "RATE", "p50", "p95", "p99", "MAX" } }
  for _, w in ipairs(result.workflows or {}) do
    local s = w.stats or {}
    local l = s.latency or {}
    local measured = (s.requests or 0) > 0
    rows[#rows + 1] = {
      w.workflow, w.state, grouped(s.requests or 0), grouped(s.failed or 0),
      measured and ("%.0f/s"):format(s.requests_per_second or 0) or "-", ms(measured and l.p50_ms), ms(measured and l.p95_ms),
      ms(measured and l.p99_ms), ms(measured and l.max_ms),
    }
  end
  return common.columns(rows)
end

local function indent(text) return (("\n" .. text:gsub("\n+$", "")):gsub("\n", "\n    ")):sub(2) end

--- A whole result.
function render.result(result)
  local lines = { ("job %s %s%s after %.1f s"):format(result.job, result.state, result.reason and " (" .. result.reason .. ")" or "",
    (result.elapsed_ms or 0) / 1000), views.times(result) or "", workflow_rows(result) }
  local function put(format, ...) lines[#lines + 1] = format:format(...) end
  put("")
  local stats = result.stats or {}
  nothing_worked(result, put)
  put("errors by kind: %s", errors_text(stats))
  for _, c in ipairs(stats.checks or {}) do put("check %q: %s passed, %s failed", c.name, grouped(c.passed), grouped(c.failed)) end
  if next(stats.counters or {}) ~= nil then put("counters: %s", pairs_text(stats.counters)) end
  local lost, retried = {}, 0
  for _, a in ipairs(result.attempts or {}) do
    if a.state == "lost" then lost[#lost + 1] = a end
    if (a.state == "failed" or a.state == "cancelled") and a.reason and a.reason ~= "" then
      put("%s attempt %d on %s %s: %s", a.part, a.attempt, a.executor or "?", a.state, a.reason)
    end
    if a.attempt > 1 then retried = retried + 1 end
  end
  put("lost: %d attempts, retried: %d", #lost, retried)
  for _, a in ipairs(lost) do
    put("  %s attempt %d on %s: %s; last progress %s requests, in none of the numbers above", a.part, a.attempt, a.executor,
      a.reason or "?", grouped(a.stats and a.stats.requests or 0))
  end
  for _, w in ipairs(result.workflows or {}) do
    for _, c in ipairs(w.stats and w.stats.commands or {}) do
      put("%s", views.heading(c))
      local text = views.output(c)
      if text ~= "" then put("%s", indent(text)) end
    end
  end
  put("incidents: %d", #(result.incidents or {}))
  for _, i in ipairs(result.incidents or {}) do
    put("  %s on %s: %-8s %s: %s%s", i.id, i.node, i.level, i.site, i.message, (i.where or "?") ~= "?" and " (" .. i.where .. ")" or "")
  end
  return table.concat(lines, "\n")
end

--- One event of a job, on a line.
---@param event { seq: integer, kind: string, body: table }
function render.event(event)
  local body = event.body
  local text
  if event.kind == "stats" then
    text = (render.progress({ at_ms = body.at_ms or 0, parts = body.parts or {} }))
  elseif event.kind == "result" then
    local result = type(body.result) == "table" and body.result or {}
    text = ("%s %s"):format(body.workflow ~= "" and body.workflow or "the job", result.state or "?")
  else
    text = ("%s is %s%s"):format(body.workflow or "the job", body.workflow_state or body.state or "?",
      body.reason and ": " .. body.reason or "")
  end
  return ("%d  %-6s  %s"):format(event.seq, event.kind, text)
end

--- How a job stands: the result when it has one.
function render.status(detail)
  if detail.result then return render.result(detail.result) end
  local lines = views.running(detail)
  if detail.parts and #detail.parts > 0 then
    lines[#lines + 1] = (render.progress({ at_ms = detail.elapsed_ms or 0, parts = detail.parts }))
  end
  return table.concat(lines, "\n")
end

return render
