--- evenness: do losses follow the borders of groups, as when a link is cut, or do they fall anywhere, as in a storm?
---
--- Of N members in G groups L are lost. If each had been as likely to be lost as any other, group g of n members would have lost
--- about n L/N, and X2 = (N - 1)/N * sum over groups of (lost - n p)^2 / (n p (1 - p)), p = L/N, would be G - 1 in the mean
--- (Pearson's test of homogeneity, for draws without putting back). It is a partition when X2 is more than three of its standard
--- deviations above that, X2 > G - 1 + 3 sqrt(2 (G - 1)), or when exactly whole groups are lost, one of them with at least two
--- members, or when only one group has losses: in a small cluster, or early, that is all there is to see, and no X2 reaches so far.
--- Else it is a storm.
---
--- Where groups tell nothing it is called a partition, for that is the careful answer (who evicts on a storm keeps still on a
--- partition): fewer than two groups, or all members lost.
local sorted = require "shoal.base.sorted"

local evenness = {}

---@param groups table<string, { lost: integer, of: integer }>  those without a member do not count
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
