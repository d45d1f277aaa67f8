--- repl: one line of Lua, run on a node as a task, through the door.
---
--- The line sees the node's own globals and `node`, `members()`, `incidents(n)`, `counts()`, `jobs()`; what it prints and returns
--- is the answer. A line that raises is an incident at `repl.eval` and its message is the answer. Names it sets stay for the next
--- line, in the REPL's own table: a role's globals are not touched.
local errors = require "shoal.errors"
local sorted = require "shoal.sorted"

local repl = {}

local OUTPUT_MAX = 64 * 1024
local DEPTH_MAX = 4
local ITEMS_MAX = 200

--- A value as one would write it, tables to a few levels, keys in order.
local function show(value, depth)
  if type(value) == "string" then return depth > 0 and ("%q"):format(value) or value end
  if type(value) ~= "table" then return tostring(value) end
  if depth >= DEPTH_MAX then return "{...}" end
  local parts, count = {}, 0
  for key, item in sorted(value) do
    count = count + 1
    if count > ITEMS_MAX then
      parts[#parts + 1] = "..."
      break
    end
    local name = math.type(key) == "integer" and "" or (type(key) == "string" and key or "[" .. tostring(key) .. "]") .. " = "
    parts[#parts + 1] = name .. show(item, depth + 1)
  end
  if #parts == 0 then return "{}" end
  local line = "{ " .. table.concat(parts, ", ") .. " }"
  if #line <= 100 then return line end
  local pad = ("  "):rep(depth + 1)
  return "{\n" .. pad .. table.concat(parts, ",\n" .. pad) .. "\n" .. ("  "):rep(depth) .. "}"
end

repl.show = function (value) return show(value, 0) end

local function environment(node)
  if node.repl_env then return node.repl_env end
  local env = setmetatable({
    node = node,
    members = function () return node:members() end,
    incidents = function (n) return errors.incidents(n or 10) end,
    counts = function () return errors.counts() end,
    jobs = function () return node.state and node.state.lead and node.state.lead:list() or {} end,
  }, { __index = _G })
  node.repl_env = env
  return env
end

--- Run one line. Runs in the caller's task, so it may wait.
---@return { ok: boolean, output: string }
function repl.eval(node, line)
  local out, size = {}, 0
  local function put(text)
    if size >= OUTPUT_MAX then return end
    out[#out + 1], size = text, size + #text
  end
  local env = environment(node)
  env.print = function (...)
    local words = table.pack(...)
    for i = 1, words.n do words[i] = show(words[i], 0) end
    put(table.concat(words, "\t") .. "\n")
  end
  local chunk, err = load("return " .. line, "=repl", "t", env)
  if not chunk then chunk, err = load(line, "=repl", "t", env) end
  if not chunk then return { ok = false, output = err } end
  local results = table.pack(errors.call("repl.eval", { line = line:sub(1, 200) }, chunk))
  if not results[1] then
    local incident = results[2]
    put(tostring(incident.message))
    return { ok = false, output = table.concat(out) }
  end
  for i = 2, results.n do put(show(results[i], 0) .. (i < results.n and "\t" or "")) end
  return { ok = true, output = table.concat(out):sub(1, OUTPUT_MAX) }
end

return repl
