--- retry: whether a part that was lost, failed or refused is tried again. Operators edit this; it is read when a node starts.
---
--- `again(part, workflow, how, tier)`: `how` is "lost" (its executor died or was silent), "failed" (the executor reported a failure) or
--- "refused" (it never ran there). `tier` is "managers" (a part of workers) or "gates" (a datacenter's share, which its manager has
--- tried already). part.executions counts this one and all before it, on both tiers; a part never runs more often than
--- part.retries + 1 times, whatever this says. part.history lists the earlier attempts here: { executor, state, reason }.
---
--- After a failure a part waits as `workflow.retry` says (backoff_ms, factor, max_ms), or a second, doubling up to a minute.
local retry = {}

local REFUSALS_MAX = 20 -- A refusal costs only time.

local function refusals(part)
  local count = 1 -- this one
  for _, attempt in ipairs(part.history) do
    if attempt.state == "refused" then count = count + 1 end
  end
  return count
end

function retry.again(part, workflow, how)
  if how == "refused" then return refusals(part) <= REFUSALS_MAX end
  if how == "failed" and not workflow.retry then return false end -- The job does not ask for it: most that fail would fail again.
  return part.executions <= part.retries
end

return retry
