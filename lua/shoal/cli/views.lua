--- views: times, the state of a job, and outputs as people read them. Pure: tables in, text out. render.lua has the numbers.
local line = require "shoal.base.log.line"

local views = {}

--- A duration: "0.4 s", "12.3 s", "4 m 10 s", "3 h 20 m", "2 d 4 h".
---@param ms number
function views.span(ms)
  local s = ms / 1000
  if s < 100 then return ("%.1f s"):format(s) end
  s = math.floor(s)
  if s < 3600 then return ("%d m %d s"):format(s // 60, s % 60) end
  if s < 86400 then return ("%d h %d m"):format(s // 3600, s // 60 % 60) end
  return ("%d d %d h"):format(s // 86400, s // 3600 % 24)
end

--- An instant: "2026-11-29 13:20:01Z".
---@param wall_ms integer
function views.clock(wall_ms) return (line.wall(wall_ms * 1000000):gsub("T", " "):gsub("%.%d+Z", "Z")) end

--- How long ago an instant was, by the clock of the leader that tells it.
function views.ago(wall_ms, now_ms)
  if not wall_ms or not now_ms then return "-" end
  return views.span(math.max(0, now_ms - wall_ms)) .. " ago"
end

--- When a job was submitted, by whom, when it started and ended.
---@param job { submitted_ms?: integer, started_ms?: integer, ended_ms?: integer, origin?: string }
---@return string? text
function views.times(job)
  if not job.submitted_ms then return nil end
  local words = { "submitted " .. views.clock(job.submitted_ms) .. (job.origin and " by " .. job.origin or "") }
  words[2] = job.started_ms and "started " .. views.span(math.max(0, job.started_ms - job.submitted_ms)) .. " later" or "not started"
  if job.ended_ms then words[3] = "ended " .. views.clock(job.ended_ms) end
  return table.concat(words, ", ")
end

local ORDER = { "running", "dispatched", "pending", "completed", "failed", "cancelled" }
local WORDS = { dispatched = "being sent", pending = "waiting for an executor" }

--- "4 parts: 3 running, 1 waiting for an executor; 2 retried".
local function parts_text(parts)
  local counts, retried = {}, 0
  for _, part in ipairs(parts) do
    counts[part.state] = (counts[part.state] or 0) + 1
    retried = retried + math.max(0, part.attempt - 1)
  end
  local words = {}
  for _, state in ipairs(ORDER) do
    if counts[state] then words[#words + 1] = ("%d %s"):format(counts[state], WORDS[state] or state) end
  end
  return ("%d parts: %s%s"):format(#parts, table.concat(words, ", "), retried > 0 and ("; %d retried"):format(retried) or "")
end

local LEASES_SHOWN = 3

--- "led by m-a1 (fence 12); leases: one/1 at w-a1 (fence 14, 21.3 s left)".
local function leases_text(detail)
  local words = {}
  for i, each in ipairs(detail.leases or {}) do
    if i > LEASES_SHOWN then break end
    words[i] = ("%s at %s (fence %d, %s left)"):format(each.part, each.holder, each.fence, views.span(math.max(0, each.left_ms)))
  end
  local more = #(detail.leases or {}) - #words + (detail.more_leases or 0)
  local leases = #words > 0 and "; leases: " .. table.concat(words, ", ") .. (more > 0 and (" and %d more"):format(more) or "") or ""
  return ("  led by %s (fence %d)%s"):format(detail.lease.holder, detail.lease.fence, leases)
end

--- A job that has not ended, without its progress line.
---@param detail table  of job.get
---@return string[] lines
function views.running(detail)
  local lines = { ("job %s is %s%s"):format(detail.job, detail.state, (detail.reason or "") ~= "" and ": " .. detail.reason or "") }
  local times = views.times(detail)
  if times then
    local limit = detail.limit_ms and (" of at most %s"):format(views.span(detail.limit_ms)) or ""
    lines[2] = ("%s; %s so far%s"):format(times, views.span(detail.elapsed_ms or 0), limit)
  end
  local of = {}
  for _, part in ipairs(detail.parts or {}) do
    of[part.workflow] = of[part.workflow] or {}
    table.insert(of[part.workflow], part)
  end
  for _, w in ipairs(detail.workflows or {}) do
    local words = { ("  %s: %s"):format(w.workflow, w.state) }
    if w.waiting then words[#words + 1] = "waits: " .. w.waiting end
    if of[w.workflow] then words[#words + 1] = parts_text(of[w.workflow]) end
    lines[#lines + 1] = table.concat(words, "; ")
  end
  for _, s in ipairs(detail.suspicions or {}) do lines[#lines + 1] = ("  %s at %s: %s"):format(s.state, s.executor, s.text) end
  if detail.lease then lines[#lines + 1] = leases_text(detail) end
  if (detail.executions or 0) > 0 then
    lines[#lines + 1] = ("  %d executions, %d of them retries"):format(detail.executions, detail.retries or 0)
  end
  return lines
end

local function grouped(n)
  local text = ("%d"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (text:gsub("^,", ""))
end

--- The kept output of a run, and between its beginning and end how much is missing.
---@param run { head?: string, tail?: string, bytes?: integer }
---@return string
function views.output(run)
  local head, tail = run.head or "", run.tail or ""
  local cut = (run.bytes or 0) - #head - #tail
  if cut <= 0 then return head .. tail end
  return ("%s\n... %s bytes cut ...\n%s"):format(head, grouped(cut), tail)
end

--- "output of crunch/a/1#3 (status 0):" or, of the lines that a script printed, "lines of browse/a/1:".
function views.heading(run)
  if not run.status then return ("lines of %s:"):format(run.run) end
  local how = (run.signal or 0) ~= 0 and "killed by signal " .. run.signal or "status " .. tostring(run.status)
  return ("output of %s (%s):"):format(run.run, how)
end

return views
