--- leaders: the leaderships that an executor knows, by the node that leads: the greatest fence of each, so that a message of an earlier
--- leadership is refused.
---
--- A node whose log was removed begins again with small fences. Its `lead` replaces what was known of it: nobody else has its name.
local leaders = {}
leaders.__index = leaders

function leaders.new() return setmetatable({ fences = {}, stale = 0 }, leaders) end

--- The node said `lead`, and was taken.
---@param node string
---@param fence integer
function leaders:leads(node, fence) self.fences[node] = fence end

--- A message of this leadership: is it of the greatest one? A greater one is remembered; one of a lower fence is refused and counted.
---@param node string
---@param fence integer?  nil: an older program, which does not say
---@return true? ok, string? err, string? code "STALE"
function leaders:check(node, fence)
  local known = self.fences[node]
  if not fence then return true end
  if known and fence < known then
    self.stale = self.stale + 1
    return nil, ("%s leads with fence %d by now; this is of its leadership with fence %d"):format(node, known, fence), "STALE"
  end
  self.fences[node] = fence
  return true
end

return leaders
