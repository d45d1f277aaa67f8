--- budget: bounds for an operator's code in a living process: a line of the REPL, a file that is read or checked. Steps, time and memory
--- are bounded by c/lua/budget.h, in coroutines too; what that cannot reach is not given: see Budget:environment.
---
---   local limits = budget.new(world, { who = "a line", steps = 20000000, ms = 500, bytes = 64 * 1024 * 1024 })
---   local ok, value = errors.handle("config.job", ids, limits.run, limits, chunk)
---
--- Code that waits (in a task) gets all its steps and time anew after each wait, for others ran meanwhile. Tasks that it spawns have the
--- same budget, and so has a `run` within another one's. Callbacks from the world that it sets up have none: the watchdog's `hang_ms`
--- reaches those.

local bounded = require "shoal.base.errors.bounded"
local core = require "shoal.core.budget"
local door = require "shoal.core.door"
local task = require "shoal.base.task"

local copy_of = bounded.copy_of

local budget = {}

---@class shoal.Budget
local Budget = {}
Budget.__index = Budget

---@class shoal.BudgetLimits
---@field who string  "a line": the bounded one, in messages
---@field steps integer  instructions of Lua, since the last wait
---@field ms integer  since the last wait
---@field bytes integer  by which the process may become larger
---@field string_bytes? integer  one string
---@field instead_of_exit? string  goes on the refusal of os.exit
---@field moves? integer  elements that one call moves

local STRING_BYTES = 16 * 1024 * 1024
local MOVES = 1000000

local function make(world, limits, strings, tables)
  return setmetatable({ core = core.new(world, limits), world = world, limits = limits, strings = strings, tables = tables,
    inside = false }, Budget)
end

---@param world shoal.World
---@param limits shoal.BudgetLimits
---@return shoal.Budget
function budget.new(world, limits)
  local bounds = { who = limits.who, string_bytes = limits.string_bytes or STRING_BYTES, moves = limits.moves or MOVES }
  return make(world, limits, bounded.string(bounds), bounded.table(bounds))
end

--- fn, as the function of a coroutine that is bounded: also what it has to close is.
function Budget:body(fn) return door.body(fn) end -- luacheck: ignore self

--- The same limits for other code with the same environment: memory counts from now.
function Budget:again() return make(self.world, self.limits, self.strings, self.tables) end

--- Its code runs from here to `leave`. Methods of strings are the bounded ones meanwhile.
function Budget:enter()
  local meta = debug.getmetatable ""
  self.before, meta.__index = meta.__index, self.strings
  self.inside = true
  self.core:enter()
end

function Budget:leave()
  if not self.inside then return end -- The task was cancelled at a wait.
  self.core:leave()
  self.inside = false
  debug.getmetatable("").__index = self.before
end

--- Which limit the code passed in this stay: "steps", "ms", "bytes"; nil: none.
function Budget:over() return self.core:over() end

--- fn(...) within the budget; an error passes through. It may wait when a task runs.
function Budget:run(fn, ...)
  local t = task.current()
  if t and t.budget then return fn(...) end -- That one bounds it.
  local watched = self.core:watch() -- The simulator may have a hook of its own; that one then bounds us.
  local co = coroutine.running()
  local free <close> = setmetatable({}, { __close = function ()
    if watched then self.core:unwatch(co) end
    if t then t.budget = nil end
    self:leave()
  end })
  if t then t.budget = self end
  self:enter()
  return fn(...)
end

local function refuse(what, instead)
  return function () error(what .. ": " .. instead, 2) end
end

--- Globals for bounded code: Lua's own without what one call could hold for long, and without finalizers, in which nothing could
--- interrupt it. `_G`, `load` and `require` give these too.
---@param more? table<string, any>
---@return table
function Budget:environment(more)
  local env = {}
  local who = self.limits.who
  local given = {
    _G = env, package = false,
    -- Copies: the code may change them, and the process has its own.
    string = copy_of(self.strings), table = copy_of(self.tables), utf8 = copy_of(utf8), math = copy_of(math),
    debug = { traceback = debug.traceback },
    os = setmetatable({ exit = refuse("os.exit", "it would end the process without its goodbye" .. (self.limits.instead_of_exit or "")),
      execute = refuse("os.execute", "the process would stand still meanwhile"), }, { __index = os }),
    io = setmetatable({
      popen = refuse("io.popen", "the process would stand still meanwhile"), read = refuse("io.read", "it would wait for the process's stdin"),
      lines = function (path, ...)
        if path == nil then error("io.lines: it would wait for the process's stdin; name a file", 2) end
        return io.lines(path, ...)
      end,
      stdin = false,
    }, { __index = io }),
  }
  given.xpcall = door.caught -- What an error out of the hook calls is beyond the hook's reach.
  given.coroutine = door.threads()
  function given.coroutine.yield(...)
    local t = task.current()
    if t and t.co == coroutine.running() then -- Nothing would resume the task, and whoever waits for its answer would wait on.
      error("coroutine.yield in a task: use task.yield(), task.sleep() or a future", 2)
    end
    return coroutine.yield(...)
  end
  function given.setmetatable(t, meta)
    if type(meta) == "table" and rawget(meta, "__gc") ~= nil then
      error(who .. " has no finalizers (__gc): nothing can interrupt one; __close is free", 2)
    end
    return setmetatable(t, meta)
  end
  function given.collectgarbage(option, ...)
    if option ~= nil and option ~= "count" and option ~= "collect" and option ~= "step" then
      error(("collectgarbage %q: %s may use count, collect and step"):format(tostring(option), who), 2)
    end
    return collectgarbage(option or "collect", ...)
  end
  function given.load(chunk, name, mode, ...)
    if mode ~= nil and mode ~= "t" then error("load: expected the mode 't', found " .. tostring(mode), 2) end
    if select("#", ...) > 0 then return load(chunk, name, "t", (...)) end
    return load(chunk, name, "t", env)
  end
  function given.loadfile(path) return loadfile(path, "t", env) end
  function given.dofile(path)
    local chunk, err = loadfile(path, "t", env)
    if not chunk then error(err, 2) end
    return chunk()
  end
  function given.require(name)
    local library = given[name]
    if type(library) == "table" and name ~= "_G" then return library end
    return require(name)
  end
  for name, value in next, more or {} do given[name] = value end -- order-free: by name
  given.package = nil
  local hidden = { package = true }
  return setmetatable(env, { __index = function (_, name)
    local value = given[name]
    if value ~= nil or hidden[name] then return value end
    return _G[name]
  end })
end

return budget
