--- role: the shipped role scripts, to base one's own on:
---
---     local role = require("shoal.role").shipped "worker"
---     role.answers["part.dispatch"] = ...
---     return role
local core = require "shoal.core.node"
local node = require "shoal.node.node"
local world = require "shoal.core.world"

local role = {}

--- The table of scripts/roles/NAME.lua, a new one at each call. Raises when there is none.
---@param name "gate"|"manager"|"worker"|"client"
---@return table
function role.shipped(name)
  local value, err = node.load_script(world.current(), ("%s/scripts/roles/%s.lua"):format(core.home(), name))
  if not value then error("role.shipped: " .. err, 2) end
  return value
end

--- The same role with further hooks, beside its own.
---@param base table  such as role.shipped "gate"
---@param hooks fun(state: table): table<string, function>
---@return table base
function role.with_hooks(base, hooks)
  local own = base.hooks
  function base.hooks(state)
    local all = own and own(state) or {}
    for site, fn in next, hooks(state) do -- order-free: each by its site
      if all[site] then error(("role.with_hooks: %s is wired already"):format(site), 0) end
      all[site] = fn
    end
    return all
  end
  return base
end

return role
