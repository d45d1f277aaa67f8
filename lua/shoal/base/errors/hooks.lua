--- Hooks: operators' functions, hung on sites by name and called isolated from each other.
---
---   local hooks = errors.hooks { "swim.member", "swim.partition" }
---   local handle = hooks:wire("swim.member", function (event) ... end)
---   hooks:fire("swim.member", { member = m.name, kind = e.kind }, e)      -- each runs; a failing one is one incident
---   hooks:unwire(handle)
---
--- All run over a snapshot: one that is wired during a firing waits for the next; one that is unwired during it does not
--- run any more. A hook runs to its end; one that tries to wait is an incident that says to spawn a task. A hook on a
--- must-deliver site is called again until it does not raise; the key is the ids, or given to `deliver`.

local incidents = require "shoal.base.errors.incident"
local line = require "shoal.base.log.line"

local hooks = {}

---@class shoal.Hooks
local Hooks = {}
Hooks.__index = Hooks

function hooks.new(errors, catalogue)
  local allowed
  if catalogue then
    allowed = {}
    for _, name in ipairs(catalogue) do
      local declared = errors.declared(name)
      if not declared or not declared.hook then
        local near = errors.nearest(tostring(name))
        error("errors.hooks: " .. tostring(name) .. (declared and " is a site without a hook"
          or " is no site" .. (near and ", did you mean " .. near .. "?" or "")), 3)
      end
      allowed[name] = true
    end
  end
  return setmetatable({ errors = errors, allowed = allowed, wired = {}, seq = 0 }, Hooks)
end

local function names_of(self)
  local out = {}
  for _, name in ipairs(self.errors.names()) do
    local declared = self.errors.declared(name)
    if declared.hook and (not self.allowed or self.allowed[name]) then out[#out + 1] = name end
  end
  return out
end

local function counted(n) return n == 1 and "1 argument" or n .. " arguments" end

--- How the site's arguments are written in a function's head.
local function head(hook) return hook.args and table.concat(hook.args, ", ") or counted(hook.arity) end

--- Hang fn on a site. An unknown name or a wrong arity raises, at the caller's line, by name.
---@param name string
---@param fn function    takes exactly the site's arguments, or `...`
---@param label? string  for people; else where fn was written
---@return table handle  for `unwire`
function Hooks:wire(name, fn, label)
  local declared = self.errors.declared(name)
  if not declared or not declared.hook or self.allowed and not self.allowed[name] then
    local near = incidents.nearest(tostring(name), names_of(self))
    error("hooks: no hook is named " .. tostring(name) .. (near and ", did you mean " .. near .. "?" or "")
      .. "; there are: " .. table.concat(names_of(self), ", "), 2)
  end
  if type(fn) ~= "function" then error("hooks: " .. name .. ": expected a function, found " .. type(fn), 2) end
  local info = debug.getinfo(fn, "uS")
  local arity = declared.hook.args and #declared.hook.args or declared.hook.arity
  if not info.isvararg and info.nparams ~= arity then
    error("hooks: " .. name .. ": the function at " .. info.short_src .. ":" .. info.linedefined .. " takes "
      .. counted(info.nparams) .. ", but the site gives " .. arity .. ": function (" .. head(declared.hook) .. ")", 2)
  end
  self.seq = self.seq + 1
  local handle = { name = name, fn = fn, id = self.seq, active = true,
    label = label or info.short_src .. ":" .. info.linedefined }
  local list = { table.unpack(self.wired[name] or {}) } -- Lists are replaced, never changed: a firing keeps its own.
  list[#list + 1] = handle
  self.wired[name] = list
  return handle
end

--- Take a hook away; twice is harmless.
function Hooks:unwire(handle)
  if not handle.active then return false end
  handle.active = false
  local list = {}
  for _, other in ipairs(self.wired[handle.name]) do
    if other ~= handle then list[#list + 1] = other end
  end
  self.wired[handle.name] = list
  return true
end

local function fire(self, name, ids, key, ...)
  local list = self.wired[name]
  if not list then return 0, 0 end
  local errors, ran, failed = self.errors, 0, 0
  for index = 1, #list do
    local handle = list[index]
    if handle.active then
      local ok
      if key then
        local arguments, fn = table.pack(...), handle.fn
        ok = errors.deliver_part(name, ids, key, handle.id, function ()
          if handle.active then fn(table.unpack(arguments, 1, arguments.n)) end
        end, { hook = handle.label, hook_index = index })
      else
        ok = errors.run_hook(name, ids, handle, index, ...)
      end
      if ok then ran = ran + 1 else failed = failed + 1 end
    end
  end
  return ran, failed
end

--- Call every function wired to the site.
---@param ids table
---@return integer ran
---@return integer failed
function Hooks:fire(name, ids, ...)
  local declared = self.errors.declared(name)
  if not declared or not declared.hook then error("hooks: " .. tostring(name) .. " is no site with a hook", 2) end
  local key
  if declared.delivery == "must_deliver" then key = line.encode(ids or {}, declared.ids) end
  return fire(self, name, ids, key, ...)
end

--- As `fire` on a must-deliver site, under a key of the caller's, for `errors.withdraw(name, key)`.
function Hooks:deliver(name, ids, key, ...)
  local declared = self.errors.declared(name)
  if not declared or declared.delivery ~= "must_deliver" then
    error("hooks: " .. tostring(name) .. " is no must-deliver site", 2)
  end
  return fire(self, name, ids, key, ...)
end

--- How many functions hang on a site.
function Hooks:count(name) return #(self.wired[name] or {}) end

--- Whether every hook that this role must have is wired.
---@param role "gate"|"manager"|"worker"|"client"
---@return true? ok
---@return string? err  every missing one, by name
function Hooks:check(role)
  local missing = {}
  for _, name in ipairs(names_of(self)) do
    local declared = self.errors.declared(name)
    local hook = declared.hook
    local wants = hook.required and self:count(name) == 0
    if wants and hook.roles then
      wants = false
      for _, other in ipairs(hook.roles) do wants = wants or other == role end
    elseif wants then
      wants = declared.role == "any" or declared.role == role
    end
    if wants then missing[#missing + 1] = name .. " (function (" .. head(hook) .. "))" end
  end
  if #missing == 0 then return true end
  return nil, "a " .. role .. " must wire: " .. table.concat(missing, ", "), "CONFIG"
end

return hooks
