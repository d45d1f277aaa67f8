--- exec.verdicts: an attempt's result goes to its owner until the owner took it: until then the attempt holds its cores.
local errors = require "shoal.base.errors"

local verdicts = {}

---@param ids { job: string, workflow: string, part: string, attempt: integer }
---@param on_result fun(result: table)  runs to its end; it is called again when it raised, and must know the second from the first
function verdicts.give(ids, on_result, result)
  errors.deliver("exec.result", ids, ("%s %s %d"):format(ids.job, ids.part, ids.attempt), function () on_result(result) end)
end

return verdicts
