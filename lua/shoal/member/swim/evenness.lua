--- evenness: decide whether losses follow the borders of groups, as when a link is cut, or fall anywhere, as in a storm.
---
--- L of N members in G groups are lost. If each is equally likely to be lost, a group of n members loses about n L/N, and
--- X2 = (N - 1)/N * sum over groups of (lost - n p)^2 / (n p (1 - p)), p = L/N, has the mean G - 1 (Pearson's test of homogeneity,
--- for draws without replacement). It is a partition in three cases. X2 is more than three standard deviations above its mean:
--- X2 > G - 1 + 3 sqrt(2 (G - 1)). Or the lost members are exactly whole groups, one of them with at least two members. Or only one
--- group has losses: in a small cluster, or early, there is no more evidence, and X2 cannot get that large. Else it is a storm.
---
--- Without evidence from groups (fewer than two groups, or all members lost) the answer is a partition. That is the cautious answer,
--- for a user may evict members in a storm but waits in a partition.
local sorted = require "shoal.base.sorted"

local evenness = {}

---@param groups table<string, { lost: integer, of: integer }>  empty groups do not count
---@return "partition"|"storm"
function evenness.judge(groups)
  local count, hit, lost, all, whole, large = 0, 0, 0, 0, true, false
  for _, g in sorted(groups) do
    if g.of > 0 then
      count, lost, all = count + 1, lost + g.lost, all + g.of
      if g.lost > 0 then hit = hit + 1 end
      if g.lost > 0 and g.lost < g.of then whole = false end
      if g.lost == g.of and g.of > 1 then large = true end
    end
  end
  if count < 2 or hit < 2 or lost == all or whole and large then return "partition" end
  local p, x2 = lost / all, 0
  for _, g in sorted(groups) do
    if g.of > 0 then x2 = x2 + (g.lost - g.of * p) ^ 2 / (g.of * p * (1 - p)) end
  end
  return x2 * (all - 1) / all > count - 1 + 3 * math.sqrt(2 * (count - 1)) and "partition" or "storm"
end

return evenness
