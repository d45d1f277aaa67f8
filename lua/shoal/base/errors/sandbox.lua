--- The sandbox of policies: what their code may use, and the budget of one call. Nothing here resumes anything: shoal.errors
--- does, with the hook that `sandbox.budget` gives.
---
--- A policy is somebody's edit on a running cluster, so its mistakes must cost an incident and nothing else. It is bounded
--- in instructions, time and memory. A call into C cannot be interrupted, so no function here can take long or allocate
--- much in one call: results are bounded, and patterns with repetitions are matched in Lua (errors/pattern.lua).
--- Missing on purpose: coroutine, pcall, setmetatable, load, io, os, debug.

local bounded = require "shoal.base.errors.bounded"
local sorted = require "shoal.base.sorted"

local sandbox = {}

sandbox.INSTRUCTIONS = 1000000     -- Within 5 %.
sandbox.TIME_MS = 1000
sandbox.ALLOCATION_BYTES = 8 * 1024 * 1024
sandbox.STRING_BYTES = 1024 * 1024 -- One string that a policy makes.
sandbox.MOVE_MAX = 100000          -- Elements that one call moves.

local LOOK = 16          -- Instructions of the policy between two looks: `s = s .. s` doubles three times in that.
local HOOK = 24          -- What a look itself takes: Lua counts it with the rest.
local LOOKS_PER_TIME = 64
local NS_PER_MS = 1000000
local VALUES_MAX = 400000
local DEPTH_MAX = 16
local GLIMPSE_VALUES, GLIMPSE_DEPTH = 256, 4

-- ---- the libraries of a policy ----

local BOUNDS = { who = "a policy", string_bytes = sandbox.STRING_BYTES, moves = sandbox.MOVE_MAX }

local strings = bounded.string(BOUNDS) -- The method table of strings while a policy runs: ("x"):rep is bounded too.

-- ---- views: tables that can be read and not changed, without a copy ----

local viewed = setmetatable({}, { __mode = "k" }) -- From a view to its table.
local view_of = {}

local function view(value)
  if type(value) ~= "table" or viewed[value] then return value end
  local proxy = setmetatable({}, view_of)
  viewed[proxy] = value
  return proxy
end
sandbox.view = view

function view_of.__index(self, key) return view(viewed[self][key]) end
function view_of.__newindex(_, key) error("this table cannot be changed by a policy: " .. tostring(key), 2) end
function view_of.__len(self) return #viewed[self] end
view_of.__metatable = false

--- `pairs` in a policy's order: sorted, through views too.
local function walk(t)
  local inner = viewed[t]
  if not inner then return sorted(t) end
  local following = sorted(inner)
  return function ()
    local key, value = following()
    return key, view(value)
  end
end

--- The globals of a policy's chunk.
---@param more? table<string, any>
function sandbox.environment(more)
  local copy_of = bounded.copy_of
  local math_kept = copy_of(math)
  math_kept.random, math_kept.randomseed = nil, nil
  local env = {
    assert = assert, error = error, ipairs = ipairs, pairs = walk, select = select, tonumber = tonumber, tostring = tostring,
    type = type, math = math_kept, string = bounded.string(BOUNDS), table = bounded.table(BOUNDS), utf8 = copy_of(utf8),
  }
  for name, value in sorted(more or {}) do env[name] = value end
  return env
end

-- ---- copies: neither side can change what the other holds ----

local function copied(value, how, depth)
  if type(value) ~= "table" then
    local of = type(value)
    if of == "function" or of == "thread" or of == "userdata" then return nil end
    return value
  end
  local inner_of = viewed[value]
  if inner_of and how.keep_views then return value end
  if depth > how.depth then return how.beyond("nested deeper than " .. how.depth) end
  local out = {}
  for key, inner in next, inner_of or value do -- order-free: a copy
    how.left = how.left - 1
    if how.left < 0 then
      how.beyond("more than " .. VALUES_MAX .. " values")
      break
    end
    if type(key) == "string" or type(key) == "number" or type(key) == "boolean" then
      out[key] = copied(inner, how, depth + 1)
    end
  end
  return out
end

local function refuse(words) error(words, 0) end
local function leave_out() return nil end

--- Plain data as it is now: no functions, no metatables. Raises when it is too much or too deep.
---@param keep_views? boolean  a view stays one, instead of becoming a copy of its table
function sandbox.copy(value, keep_views)
  return copied(value, { left = VALUES_MAX, depth = DEPTH_MAX, keep_views = keep_views, beyond = refuse }, 1)
end

--- A copy for reading only: it never raises, and leaves out values that are too many or too deep.
function sandbox.glimpse(value)
  return copied(value, { left = GLIMPSE_VALUES, depth = GLIMPSE_DEPTH, beyond = leave_out }, 1)
end

-- ---- the budget of one call ----

--- -> a count hook, its count, and a table whose `over` says which limit was passed. Once it is set, the hook raises at each
--- further look, so that nothing in the policy goes on.
---@param clock fun(): integer  nanoseconds
function sandbox.budget(clock)
  local count, looks, budget = collectgarbage, 0, {}
  local least_kb, began_ns = count "count", clock()
  local most_looks = sandbox.INSTRUCTIONS // LOOK
  local most_kb = sandbox.ALLOCATION_BYTES / 1024
  return function ()
    looks = looks + 1
    local kb = count "count"
    if kb < least_kb then least_kb = kb end -- The collector ran: what is allocated from here on counts.
    if not budget.over then
      if looks >= most_looks then
        budget.over = "it ran more than " .. sandbox.INSTRUCTIONS .. " instructions"
      elseif kb - least_kb > most_kb then
        budget.over = "it allocated more than " .. sandbox.ALLOCATION_BYTES .. " bytes"
      elseif looks % LOOKS_PER_TIME == 0 and clock() - began_ns > sandbox.TIME_MS * NS_PER_MS then
        budget.over = "it ran longer than " .. sandbox.TIME_MS .. " ms"
      end
    end
    if budget.over then error(budget.over, 2) end
  end, LOOK + HOOK, budget
end

--- Give strings the bounded methods; the answer undoes it.
function sandbox.enter()
  local meta = debug.getmetatable ""
  local before = meta.__index
  meta.__index = strings
  return function () meta.__index = before end
end

return sandbox
