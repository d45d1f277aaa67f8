--- role: the shipped role scripts, to base one's own on, and what hooks often need:
---
---     local role = require "shoal.role"
---     return role.with_hooks(role.shipped "gate", function (state)
---       return { ["job.failed"] = function (event) return role.append("failed.log", event.job .. "\n") end }
---     end)
local core = require "shoal.core.node"
local node = require "shoal.node.node"
local task = require "shoal.base.task"
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

local SYNC_MS = 10000

--- Append to a file, and wait until it is on the disk. Call it in a task: a hook on jobs and parts is one. Nothing else is held meanwhile.
---@param path string
---@param text string
---@return true? ok, string? err, string? code
function role.append(path, text)
  local synced = task.future("append to " .. path)
  local file, err, code = world.current():log(path, function (size, why, word)
    if size then synced:set(true) else synced:fail(why, word) end
  end)
  if not file then
    synced:drop("it was not opened")
    return nil, err, code
  end
  local _ <close> = setmetatable({}, { __close = function () file:close() end })
  local ok
  ok, err, code = file:append(text)
  if ok then ok, err, code = file:sync() end
  if not ok then
    synced:drop("nothing was written")
    return nil, ("%s: %s"):format(path, err), code
  end
  ok, err, code = synced:await(SYNC_MS)
  if not ok then return nil, ("%s: %s"):format(path, err), code end
  return true
end

return role
