--- repl: one line of Lua, run on a node as a task, through the door.
---
--- The line sees the node's own globals and `node`, `members()`, `incidents(n)`, `counts()`, `jobs()`, `suspicions()`, and at a gate
--- `datacenters()`; its output and its results are the answer. A line that raises is an incident at `repl.eval` and its message is the
--- answer. Names it sets stay for the next line, in the REPL's own table: a role's globals are not touched.
---
--- A line shares the node's one thread and its memory, so it has a budget (base/budget.lua), and its tasks and coroutines share it.
--- Between two waits it is ended after STEPS_MAX steps or TIME_MS; it may make the node larger by BYTES_MAX.
local budget = require "shoal.base.budget"
local errors = require "shoal.base.errors"

local repl = {}

local OUTPUT_MAX = 64 * 1024
local DEPTH_MAX = 4
local ITEMS_MAX = 200
local STEPS_MAX = 20000000 -- A fifth of a second or so: no other node suspects this one in that time.
local TIME_MS = 1000       -- Steps can be calls into C, so time has a bound of its own.
local BYTES_MAX = 64 * 1024 * 1024
local LINE_BYTES = 100     -- A table that fits is shown in one line.

-- ---- values, as one would write them ----

local KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true until while]])
  :gmatch "%a+" do KEYWORDS[word] = true end

local NAMED = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\", ['"'] = '\\"' }

local function quoted(text)
  return '"' .. text:gsub('[%c"\\]', function (c) return NAMED[c] or ("\\x%02x"):format(c:byte()) end) .. '"'
end

local function number(value)
  if math.type(value) == "integer" then return tostring(value) end
  if value ~= value then return "0/0" end
  if value == math.huge or value == -math.huge then return value > 0 and "math.huge" or "-math.huge" end
  for digits = 14, 17 do
    local text = ("%." .. digits .. "g"):format(value)
    if tonumber(text) == value then return text:find "[.eE]" and text or text .. ".0" end
  end
end

local RANK = { number = 1, string = 2, boolean = 3 }

--- All keys have a place, so that any value can be shown: what has no order comes last, by its text.
local function keys_of(t)
  local keys = {}
  for key in next, t do keys[#keys + 1] = key end -- order-free: sorted below
  table.sort(keys, function (a, b)
    local ra, rb = RANK[type(a)] or 4, RANK[type(b)] or 4
    if ra ~= rb then return ra < rb end
    if ra <= 2 then return a < b end
    return tostring(a) < tostring(b)
  end)
  return keys
end

local show

local function show_key(key, depth)
  if type(key) == "string" and key:find "^[%a_][%w_]*$" and not KEYWORDS[key] then return key .. " = " end
  return "[" .. (type(key) == "table" and "{...}" or show(key, depth)) .. "] = "
end

--- A value as one would write it, tables to a few levels, keys in order.
function show(value, depth)
  local of = type(value)
  if of == "string" then return quoted(value) end
  if of == "number" then return number(value) end
  if of ~= "table" then return tostring(value) end
  if depth >= DEPTH_MAX then return "{...}" end
  local parts = {}
  for i, key in ipairs(keys_of(value)) do
    if i > ITEMS_MAX then
      parts[#parts + 1] = "..."
      break
    end
    local name = math.type(key) == "integer" and key == i and "" or show_key(key, depth + 1)
    parts[#parts + 1] = name .. show(value[key], depth + 1)
  end
  if #parts == 0 then return "{}" end
  local line = "{ " .. table.concat(parts, ", ") .. " }"
  if #line <= LINE_BYTES then return line end
  local pad = ("  "):rep(depth + 1)
  return "{\n" .. pad .. table.concat(parts, ",\n" .. pad) .. "\n" .. ("  "):rep(depth) .. "}"
end

repl.show = function (value) return show(value, 0) end

-- ---- a line ----

local function environment(node)
  if node.repl_env then return node.repl_env, node.repl_limits:again() end
  local limits = budget.new(node.world, { who = "a line", steps = STEPS_MAX, ms = TIME_MS, bytes = BYTES_MAX,
    instead_of_exit = '; node:stop("why") stops it' })
  local env = limits:environment {
    node = node,
    members = function () return node:members() end,
    incidents = function (n) return errors.incidents(n or 10) end,
    counts = function () return errors.counts() end,
    suspicions = function (executor) return node.suspicions and node.suspicions(executor) or {} end,
    datacenters = function ()
      local state = node.describe and node.describe() or {}
      return state.datacenters or {}, state.held
    end,
    jobs = function () return node.state and node.state.lead and node.state.lead:list() or {} end,
  }
  node.repl_env, node.repl_limits = env, limits
  return env, limits:again()
end

local ENDED = {
  steps = "a line may run " .. STEPS_MAX .. " steps between two waits", ms = "a line may run " .. TIME_MS .. " ms between two waits",
  bytes = "a line may make the node larger by " .. BYTES_MAX .. " bytes",
}

--- Run one line. Runs in the caller's task, so it may wait.
---@return { ok: boolean, output: string }
function repl.eval(node, line)
  local out, size = {}, 0
  local function put(text)
    if size < OUTPUT_MAX then out[#out + 1] = text:sub(1, OUTPUT_MAX - size) end
    size = size + #text
  end
  local function output()
    if size > OUTPUT_MAX then out[#out + 1] = ("\n... and %d bytes more"):format(size - OUTPUT_MAX) end
    return table.concat(out)
  end
  local env, limits = environment(node)
  env.print = function (...)
    local words = table.pack(...)
    for i = 1, words.n do words[i] = type(words[i]) == "string" and words[i] or show(words[i], 0) end
    put(table.concat(words, "\t") .. "\n")
  end
  local chunk, err = load("return " .. line, "=repl", "t", env)
  if not chunk then chunk, err = load(line, "=repl", "t", env) end
  if not chunk then return { ok = false, output = err } end
  local over
  local function measured(...)
    over = limits:over()
    return ...
  end
  local results = table.pack(measured(errors.call("repl.eval", { line = line:sub(1, 200) }, limits.run, limits, chunk)))
  if not results[1] then
    local incident = results[2]
    put(tostring(incident.message) .. (over and "\n" .. ENDED[over] or ""))
    return { ok = false, output = output() }
  end
  for i = 2, results.n do put(show(results[i], 0) .. (i < results.n and "\t" or "")) end
  return { ok = true, output = output() }
end

return repl
