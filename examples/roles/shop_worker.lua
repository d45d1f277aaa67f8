--- A worker for jobs of one team: it declines all others, and their leader asks other workers. Run it with
---   shoal run examples/roles/shop_worker.lua --dc a --join 127.0.0.1:7001
--- A job of the team has `labels = { team = "shop" }` in its file.
local role = require("shoal.role").shipped "worker"
local worker = require "shoal.worker"

local dispatch = role.answers["part.dispatch"]

role.answers["part.dispatch"] = function (state, body)
  local about, err, code = worker.about(body)
  if not about then return nil, err, code end
  if about.labels.team ~= "shop" then return nil, "this worker runs jobs of the shop only", "DECLINED" end
  return dispatch(state, body)
end

return role
