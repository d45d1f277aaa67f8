--- The node's log: one JSON line an event, in declared field order (see log/line.lua).
---
---   log.open(world, { path = "node.log", node = "w1" })
---   log.info("worker.joined", { worker = "w7", cores = 8 })
---
--- It never raises and never waits. A line that its target does not take goes to stderr, and if that fails too, to the
--- crash file; `log.counts()` says how many went where. Lines below `level` are filtered, and counted.
--- Before log.open, lines of level `warning` and above go to stderr.

local line = require "shoal.base.log.line"

local log = { levels = { debug = 1, info = 2, warning = 3, error = 4, critical = 5 } }

local QUEUE_MAX = 1024 * 1024 -- Bytes that may wait for a slow stderr; more goes to the crash file.
local levels = log.levels

local state

--- Calls that may raise go through here. shoal.errors puts its protected call in this place when it is loaded.
local guard = function (fn, ...) return true, fn(...) end
---@param fn fun(fn: function, ...): boolean, any
function log.guarded_by(fn) guard = fn end

--- Forget everything: as if just loaded. The declared events stay.
function log.reset()
  local declared = state and state.declared or {}
  state = {
    declared = declared,
    level = levels.warning,
    node = "?",
    written = 0, filtered = 0, fell_back = 0, crashed = 0, lost = 0,
  }
end
log.reset()

--- Say in which order an event's fields are written. Fields not named follow, sorted.
---@param event string
---@param fields string[]
function log.event(event, fields) state.declared[event] = fields end

-- ---- the targets, each `write(text) -> taken?` ----

--- Through the world, so that a reader who is slow or stopped makes nobody wait; else through Lua's io.
local function to_stderr(text)
  local stream, world = state.stderr, state.world
  if not stream and world and not state.stderr_tried then
    state.stderr_tried = true
    local ran, opened = guard(world.stdio, world, 2)
    if ran and opened then
      stream = opened
      state.stderr = stream
    end
  end
  if stream then
    if stream:queued() > QUEUE_MAX then return nil end
    return (stream:write(text))
  end
  return (io.stderr:write(text))
end

local function to_crash_file(text)
  local path = state.crash_path
  if not path then return nil end
  local file = io.open(path, "a")
  if not file then return nil end
  local ok = file:write(text)
  return file:close() and ok
end

local function to_file(text) return (state.file:append(text)) end
local function to_function(text)
  state.fn(text)
  return true
end

--- Write one whole line (with its newline), falling back as far as needed.
local function put(text)
  local target = state.target
  if target then
    local ran, taken = guard(target, text)
    if ran and taken then
      state.written = state.written + 1
      return
    end
    state.fell_back = state.fell_back + 1
  end
  if target ~= to_stderr then
    local ran, taken = guard(to_stderr, text)
    if ran and taken then
      if not target then state.written = state.written + 1 end
      return
    end
  end
  local ran, taken = guard(to_crash_file, text)
  if ran and taken then
    state.crashed = state.crashed + 1
    return
  end
  state.lost = state.lost + 1 -- Nobody is left to tell; the count is shown by log.counts().
end

--- A log file of our own: no other process writes there.
local function open_file(world, path)
  local ran, file, err, code = guard(world.log, world, path, function () end)
  if not ran then return nil, "log: " .. tostring(file), "FAILED" end
  if not file then return nil, "log: " .. path .. ": " .. tostring(err), code end
  local locked, why, word = file:lock()
  if locked then return file end
  file:close()
  return nil, path .. ": " .. why, word
end

--- Where lines go from now on.
---@param world table?  the node's world: clocks, files, stderr; nil: no clock, and stderr through Lua's io
---@param target { path?: string, stderr?: boolean, node?: string, level?: string, crash_path?: string } | fun(line: string)
---@return boolean? ok
---@return string? err   what could not be opened; the log then goes to stderr
---@return string? code
function log.open(world, target)
  local options = type(target) == "table" and target or {}
  if options.level and not levels[options.level] then
    return nil, "log: level " .. tostring(options.level) .. " is none of debug, info, warning, error, critical", "CONFIG"
  end
  log.close()
  state.world = world
  state.node = options.node or state.node
  state.level = levels[options.level or "info"]
  state.crash_path = options.crash_path or options.path and options.path .. ".crash"
  if type(target) == "function" then
    state.fn, state.target = target, to_function
    state.level = levels.debug
    return true
  end
  state.target = to_stderr
  if options.path then
    local file, err, code = open_file(world, options.path)
    if not file then return nil, err, code end
    state.file, state.target, state.path = file, to_file, options.path
  end
  return true
end

--- Open the log's path again, for a file that was moved away to be followed by a new one. A log that is no file stays as it is; on a
--- refusal the old file stays.
---@return boolean? ok, string? err, string? code
function log.reopen()
  if not state.file then return true end
  local file, err, code = open_file(state.world, state.path)
  if not file then return nil, err, code end
  local old = state.file
  state.file = file
  guard(old.close, old)
  return true
end

--- Close the file, if there is one; later lines go to stderr.
function log.close()
  local file, stream = state.file, state.stderr
  state.file, state.stderr, state.stderr_tried, state.target = nil, nil, nil, nil
  if file then guard(file.close, file) end
  if stream then guard(stream.close, stream) end
end

---@param name string  who writes: this node's name
function log.node(name) state.node = name end

--- Change, or ask for, the lowest level that is written.
---@param level? "debug"|"info"|"warning"|"error"|"critical"
function log.level(level)
  if level then
    if not levels[level] then error("log.level: no level " .. tostring(level), 2) end
    state.level = levels[level]
  end
  for name, rank in next, levels do -- order-free: one match
    if rank == state.level then return name end
  end
end

local function now(world) return world:now_ns(), world:wall_ns() end

--- Both clocks of the node: monotonic and wall; 0, 0 before there is a world.
---@return integer at_ns
---@return integer wall_ns
function log.clocks()
  local world = state.world
  if not world then return 0, 0 end
  local ran, at_ns, wall_ns = guard(now, world)
  if not ran then return 0, 0 end
  return at_ns, wall_ns
end

--- One event. `fields` is read now; it may change afterwards.
---@param level "debug"|"info"|"warning"|"error"|"critical"
---@param event string
---@param fields? table
---@param at_ns? integer  when it was, if that is known better
---@param wall_ns? integer
---@return boolean written  false: below the level that is written
function log.write(level, event, fields, at_ns, wall_ns)
  if levels[level] < state.level then
    state.filtered = state.filtered + 1
    return false
  end
  if not at_ns then at_ns, wall_ns = log.clocks() end
  put(line.record({ at_ns = at_ns, wall_ns = wall_ns, level = level, node = state.node, event = event, fields = fields },
    state.declared[event]) .. "\n")
  return true
end

function log.debug(event, fields) return log.write("debug", event, fields) end
function log.info(event, fields) return log.write("info", event, fields) end
function log.warning(event, fields) return log.write("warning", event, fields) end
function log.error(event, fields) return log.write("error", event, fields) end
function log.critical(event, fields) return log.write("critical", event, fields) end

--- A line past all levels and targets, for what failed while reporting: stderr, then the crash file.
---@param text string
function log.last_resort(text)
  text = text:gsub("\n", "|") .. "\n"
  local ran, taken = guard(to_stderr, text)
  if ran and taken then return end
  ran, taken = guard(to_crash_file, text)
  if ran and taken then state.crashed = state.crashed + 1 else state.lost = state.lost + 1 end
end

---@return { written: integer, filtered: integer, fell_back: integer, crashed: integer, lost: integer }
function log.counts()
  return { written = state.written, filtered = state.filtered, fell_back = state.fell_back, crashed = state.crashed,
    lost = state.lost }
end

--- The pure encoder, for tools: see log/line.lua.
log.line = line.record
log.encode = line.encode

return log
