--- retry: whether a part that was lost, failed or refused is tried again. Operators edit this.
---
--- `again(part, workflow, how)`: `how` is "lost" (its executor died or was silent), "failed" (the executor reported a failure) or
--- "refused" (it never ran there). part.history lists the earlier attempts: { executor, state, reason }.
local retry = {}

local REFUSALS_MAX = 20 -- A refusal costs only time.

function retry.again(part, workflow, how)
  local executions, refusals = 1, 1 -- this one
  for _, attempt in ipairs(part.history) do
    if attempt.state == "refused" then refusals = refusals + 1 else executions = executions + 1 end
  end
  if how == "refused" then return refusals <= REFUSALS_MAX end
  if how == "failed" then return false end -- A part that failed would fail again.
  return executions <= workflow.retries -- Executions of a part lie in [1, retries + 1].
end

return retry
