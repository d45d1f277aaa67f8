--- A worker's node without a worker: it answers the messages of the role and does nothing. Its CPU is the node's share of a worker's.
local core = require "shoal.core.node"

local role = dofile(core.home() .. "/scripts/roles/worker.lua")

for name in pairs(role.answers) do -- in any order: each is replaced
  role.answers[name] = function () return nil, "this node only rests", "REFUSED" end
end
-- A manager asks each new worker for its cores; this one offers none.
role.answers.lead = function () return { cores = 0, parts = {} } end
role.hooks = nil

function role.start() return {} end

function role.stop() end

return role
