--- stats.spans: stretches of time, as a sorted list of { from, to } in microseconds that neither overlap nor touch.
---
--- Parts run side by side, or in rounds, or begin late. The time during which a workflow was under load is the union of its parts'
--- stretches, all on one clock. A list has at most SPANS_MAX stretches: past that, the two with the smallest gap between them become one,
--- so the union can only be too long, by the smallest gaps.
local spans = {}

spans.SPANS_MAX = 128
spans.REACH_US = 1 << 53 -- No instant is further from zero.

local function is_instant(v) return math.type(v) == "integer" and v >= -spans.REACH_US and v <= spans.REACH_US end

--- Whether an untrusted value is such a list; in any order.
---@param v any
---@return boolean
function spans.valid(v)
  if type(v) ~= "table" or #v > spans.SPANS_MAX then return false end
  local n = 0
  for _, span in next, v do -- order-free: one answer for all
    n = n + 1
    if type(span) ~= "table" or not is_instant(span[1]) or not is_instant(span[2]) or span[1] > span[2] then return false end
  end
  return n == #v
end

local function close_smallest_gap(list)
  local at, least = 1, math.huge
  for i = 1, #list - 1 do
    local gap = list[i + 1][1] - list[i][2]
    if gap < least then at, least = i, gap end
  end
  list[at] = { list[at][1], list[at + 1][2] }
  table.remove(list, at + 1)
end

--- Add one stretch.
---@param list integer[][]  changed
---@param from integer
---@param to integer
function spans.add(list, from, to)
  local first = 1
  while list[first] and list[first][2] < from do first = first + 1 end
  local after = first
  while list[after] and list[after][1] <= to do
    from, to = math.min(from, list[after][1]), math.max(to, list[after][2])
    after = after + 1
  end
  table.move(list, after, #list + (after - first), first + 1)
  list[first] = { from, to }
  if #list > spans.SPANS_MAX then close_smallest_gap(list) end
end

--- The same stretches on a clock whose zero was `by_us` earlier.
---@param list? integer[][]
---@param by_us integer
---@return integer[][]?
function spans.shifted(list, by_us)
  if not list then return nil end
  local out = {}
  local function moved(us) return math.max(-spans.REACH_US, math.min(spans.REACH_US, us + by_us)) end
  for i, span in ipairs(list) do out[i] = { moved(span[1]), moved(span[2]) } end
  return out
end

--- Their length together, in microseconds.
---@param list? integer[][]
---@return integer
function spans.total(list)
  local sum = 0
  for _, span in ipairs(list or {}) do sum = sum + span[2] - span[1] end
  return sum
end

return spans
