--- dc: datacenters and gates: the manager's side (heart.lua) and the gate's (registry.lua).
local heart = require "shoal.job.heart"
local registry = require "shoal.job.registry"

return { heart = heart.open, registry = registry.open }
