--- Failures on purpose, for simulated nodes: a share of the calls at sites fails, in place of the code that stands there or after it, so
--- that what is built around a site can be proved (`sim:fail_sites`). Off, it costs nothing: errors.lua's own calls are exchanged.
---
---   call, hook   an error is raised instead of the call ("before"), or once it is through ("after": what it did is done)
---   task         an error is raised at the first step of its code
---   handle       as call; the caller takes the error
---   callback     an error is raised at the end of a callback that C made (door_call): what it did is done
---   send         a message is not sent: the transport's own `nil, err, code`, without an incident
---   decode       a message that arrived cannot be read
---
--- The values are strings, tables and nil in turn. Sites of the door itself never fail, for they carry the telling, nor those of the simulator
--- and of specs, through which one looks at the node.

local injecting = {}

local DOOR = { ["errors.describe"] = true, ["errors.ids"] = true, ["errors.listener"] = true, ["task.drain"] = true }
local KINDS = { call = true, hook = true, task = true, handle = true, callback = true, send = true, decode = true }

local function value(n, site)
  if n % 3 == 0 then return { code = "INJECTED", message = "injected at " .. site } end
  if n % 3 == 1 then return "injected at " .. site end
  return nil
end

--- A stream of chance of its own: the node's other draws stay as they are.
local function stream(seed)
  local state = seed * 0x9E3779B97F4A7C15 | 1
  return function ()
    state = state ~ (state >> 12)
    state = state ~ (state << 25)
    state = state ~ (state >> 27)
    return ((state * 0x2545F4914F6CDD1D) >> 11) / (1 << 53)
  end
end

--- Which sites a plan is about: all, one name, or a family ("lead.*").
local function matcher(site)
  if not site then return function () return true end end
  local family = site:match "^(.*%.)%*$"
  if family then return function (name) return name:sub(1, #family) == family end end
  return function (name) return name == site end
end

---@param plan { share: number, seed?: integer, site?: string, kinds?: table<string, boolean>, times?: integer,
---  rare?: table<string, number> }
---  rare: the share of single sites; kinds: nil: all; times: at most so many failures
---@return table drawer
function injecting.new(plan)
  local unit, fits, n = stream(plan.seed or 1), matcher(plan.site), 0
  local counts, rare = {}, plan.rare or {}
  local kinds = plan.kinds or KINDS
  for kind in next, kinds do -- order-free: each is checked by itself
    if not KINDS[kind] then error("inject: no kind is named " .. tostring(kind), 3) end
  end
  local drawer = { counts = counts }

  --- nil, or how this call fails: "before" or "after".
  local function draw(kind, site)
    if not kinds[kind] or DOOR[site] or site:find "^sim%." or site:find "^spec%." or not fits(site) then return nil end
    if plan.times and n >= plan.times or unit() >= (rare[site] or plan.share) then return nil end
    n = n + 1
    counts[site] = (counts[site] or 0) + 1
    return unit() < 0.5 and "before" or "after"
  end
  drawer.draw = draw

  local function raise(site) error(value(n, site), 0) end

  --- fn, or a function that fails in its place.
  function drawer.function_at(kind, site, fn)
    local how = draw(kind, site)
    if not how then return fn end
    if how == "before" then return function () raise(site) end end
    return function (...)
      fn(...)
      raise(site)
    end
  end

  --- A coroutine that has not begun fails at its first step.
  function drawer.coroutine_at(site, co)
    if debug.getinfo(co, 0) or not draw("task", site) then return end
    debug.sethook(co, function ()
      debug.sethook()
      raise(site)
    end, "", 1)
  end

  --- After a callback that C made (c/lua/door.c).
  function drawer.callback(site)
    if draw("callback", site) then raise(site) end
  end

  --- For failures that are values: what is wrong with this message, or nil.
  function drawer.message(kind, site, name)
    if draw(kind, site) then return ("injected at %s: %s"):format(site, name) end
  end
  return drawer
end

return injecting
