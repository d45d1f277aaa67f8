--- followed: a spec's job on a simulated cluster, submitted and followed to its end.
---
---     local followed = require "spec.support.followed"
---     local final = followed.ended(c, followed.submitted(c, spec), "completed")
local assert = require "luassert"

local followed = {}

local LIMIT_MS = 60000
local LOOK_MS = 20

--- Submit a job, and begin to follow it.
---@return string id
function followed.submitted(c, spec, key)
  local id = assert(c:submit(spec, key))
  c:watch(id)
  return id
end

--- Let time pass until the job has ended, as `state` where one is given.
---@return table final
function followed.ended(c, id, state, limit_ms)
  local final
  assert.truthy(c:until_true(function () final = c:final(id) return final end, limit_ms or LIMIT_MS, LOOK_MS), "the job did not end")
  if state then assert.equal(state, final.state, final.reason) end
  return final
end

return followed
