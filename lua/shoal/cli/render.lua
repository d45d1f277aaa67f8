--- render: progress and results as people read them. Pure: tables in, text out.
local numbers = require "shoal.cli.numbers"
local views = require "shoal.cli.views"

local render = {}

local grouped = numbers.grouped
render.grouped = grouped

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

local function indent(text) return (("\n" .. text:gsub("\n+$", "")):gsub("\n", "\n    ")):sub(2) end

--- A whole result.
function render.result(result)
  local lines = { ("job %s %s%s after %.1f s"):format(result.job, result.state, result.reason and " (" .. result.reason .. ")" or "",
    (result.elapsed_ms or 0) / 1000), views.times(result) or "", numbers.workflows(result) }
  local function put(format, ...) lines[#lines + 1] = format:format(...) end
  put("")
  numbers.warnings(result, put)
  numbers.detail(result, put)
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
      if c.left then put("    left when it ended, and ended then: %s", c.left) end
    end
  end
  numbers.incidents(result, put)
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
