--- repl: one line of Lua, run on a node as a task, through the door.
---
--- The line sees the node's own globals and `node`, `members()`, `incidents(n)`, `counts()`, `jobs()`; its output and its results
--- are the answer. A line that raises is an incident at `repl.eval` and its message is the answer. Names it sets stay for the next
--- line, in the REPL's own table: a role's globals are not touched.
---
--- A line shares the node's one thread: one that computes without end would take the node with it, so it is ended after
--- STEPS_MAX steps, and `os.exit`, which would skip the node's goodbye, says what to call instead.
local errors = require "shoal.base.errors"
local sorted = require "shoal.base.sorted"

local repl = {}

local OUTPUT_MAX = 64 * 1024
local DEPTH_MAX = 4
local ITEMS_MAX = 200
local STEPS_MAX = 20000000 -- A fifth of a second or so: no other node suspects this one in that time.

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

local function no_exit()
  error('os.exit would end the node without its goodbye; node:stop("why") stops it', 2)
end

--- chunk with a bound. Once it is over, each further step of the line's own code raises too, so that its pcall cannot go on.
local function bounded(chunk)
  local over = false
  local function check()
    if over and debug.getinfo(2, "S").source ~= "=repl" then return end
    over = true
    debug.sethook(check, "", 1)
    error("still running after " .. STEPS_MAX .. " steps without an end, and the node has other things to do", 0)
  end
  if not debug.gethook() then debug.sethook(check, "", STEPS_MAX) end -- The simulator may have its own; that one then bounds us.
  return chunk()
end

local function environment(node)
  if node.repl_env then return node.repl_env end
  local env = setmetatable({
    node = node,
    os = setmetatable({ exit = no_exit }, { __index = os }),
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
    if size < OUTPUT_MAX then out[#out + 1] = text:sub(1, OUTPUT_MAX - size) end
    size = size + #text
  end
  local function output()
    if size > OUTPUT_MAX then out[#out + 1] = ("\n... and %d bytes more"):format(size - OUTPUT_MAX) end
    return table.concat(out)
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
  local theirs = debug.gethook()
  local results = table.pack(errors.call("repl.eval", { line = line:sub(1, 200) }, bounded, chunk))
  if not theirs then debug.sethook() end
  if not results[1] then
    local incident = results[2]
    put(tostring(incident.message))
    return { ok = false, output = output() }
  end
  for i = 2, results.n do put(show(results[i], 0) .. (i < results.n and "\t" or "")) end
  return { ok = true, output = output() }
end

return repl
