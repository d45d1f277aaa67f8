--- What the commands share: talk and data, a client node, exit codes by outcome.
local core = require "shoal.core.node"
local dial = require "shoal.wire.dial"
local node = require "shoal.node.node"
local writer = require "shoal.cli.out"
local world = require "shoal.core.world"

local common = {}

local LOOKUP_MS = 5000 -- For the name service.

common.EXIT = {
  ok = 0, failed = 1, usage = 2, unreachable = 3, refused = 4, cancelled = 5, lost = writer.LOST, timed_out = 124, hung_up = 129,
  interrupted = 130,
  terminated = 143,
}

local UNREACHABLE = {
  TIMEOUT = true, DISCONNECTED = true, CIRCUIT = true, ECONNREFUSED = true, ETIMEDOUT = true, ECONNRESET = true, NO_NAME = true,
  EHOSTUNREACH = true, ENETUNREACH = true, EPIPE = true, CLOSED = true,
  UNREACHABLE = true,
}

--- To people.
function common.talk(format, ...)
  local line = select("#", ...) > 0 and format:format(...) or format
  if core.simulated() and require("shoal.base.log").info("talk", { line = line }) then return end
  writer.talk(line) -- Or that log is not open yet.
end

--- To programs, and to people who read stdout. False: it could not be written, and that has been said.
---@return boolean ok
function common.data(text) return writer.data(text) end

--- Why this command fails, for `--output json`: see common.ended.
---@return integer exit_code
local function failed(message, code, exit)
  common.failure = common.failure or { message = message, code = code, exit = exit }
  return exit
end

function common.usage(format, ...)
  local message = format:format(...)
  common.talk("shoal: %s", message)
  return failed(message, "USAGE", common.EXIT.usage)
end

local function exit_of(code)
  if UNREACHABLE[code] then return common.EXIT.unreachable end
  return code == "CONFIG" and common.EXIT.usage or common.EXIT.refused
end

--- Print a refusal; its exit code.
---@param exit? integer  instead of that of the code
function common.refused(what, err, code, exit)
  if code == "UNHANDLED" then err = err .. "; this command asks a gate or a manager, and shoal members lists them" end
  common.talk("shoal: %s: %s (%s)", what, err, code or "?")
  return failed(("%s: %s"):format(what, err), code or "?", exit or exit_of(code))
end

--- The end of a command: with --output json, a failure is JSON too, on stdout, unless an answer stands there already. Returns the exit
--- code.
---@param code integer
---@return integer
function common.ended(code)
  if writer.json and not writer.wrote and code ~= 0 then
    local failure = common.failure or { message = "see stderr", code = "FAILED" }
    common.data(require("shoal.cli.json").encode { error = { message = failure.message, code = failure.code, exit = code } })
  end
  return writer.code(code)
end

--- SIGHUP: `gone` is called when the terminal that we were started on has gone, else `asked`, for a person or a tool sent it.
---@param asked fun()
---@param gone fun()
function common.on_hangup(asked, gone)
  local function terminal()
    local file = not core.simulated() and io.open("/dev/tty")
    return file and file:close() or false
  end
  local had_terminal = terminal()
  core.on_signal("HUP", function ()
    if had_terminal and not terminal() then gone() else asked() end
  end)
end

--- SIGINT and SIGTERM call fn("INT" | "TERM") once; a second one, of either, ends the process with what is open closed, and no more.
--- (The watchdog of core.watch does so when the loop cannot hear it.)
---@param fn fun(signal: string)
function common.on_stop_signals(fn)
  local asked = false
  for signal, number in require "shoal.base.sorted" { INT = 2, TERM = 15 } do
    core.on_signal(signal, function ()
      if asked then
        common.talk("shoal: a second signal: stopped at once")
        return core.exit(128 + number)
      end
      asked = true
      fn(signal)
    end)
  end
end

--- The default of --connect: the gate of examples/topology.lua.
common.CONNECT = "127.0.0.1:7000"

common.BY_STATE = { completed = 0, failed = 1, cancelled = 5, timed_out = 124 }

function common.connect_words(command)
  command:option("--connect -c", "a gate or manager; given again: the others are tried next; default: $SHOAL_CONNECT (one or more) or "
    .. common.CONNECT):count("*"):argname("HOST:PORT")
  command:option("--cluster", "the cluster's name; nodes of another refuse us"):default("shoal")
  command:option("--output -o", "text or json"):default("text"):choices { "text", "json" }
end

--- Converters for argparse: a number from `min` to `max`, or a message that names the option.
---@param option string
---@param what string  such as "a number of seconds"
---@param min number
---@param convert fun(text: string): number?
---@param max? number
function common.number(option, what, min, convert, max)
  return function (text)
    local value = convert(text)
    if value and value >= min and value <= (max or math.huge) then return value end
    local range = max and ("from %.14g to %.14g"):format(min, max) or ("at least %.14g"):format(min)
    return nil, ("%s: expected %s, %s; found '%s'"):format(option, what, range, text)
  end
end

--- A duration in seconds, for --timeout.
function common.seconds(option) return common.number(option, "a number of seconds", 0.001, tonumber, 31536000) end -- At most a year.

--- A word that must not be empty: an unset variable in a script gives such a one.
function common.word(option, what, max)
  return function (text)
    if text ~= "" and #text <= max then return text end
    return nil, ("%s: expected %s, 1 to %d bytes; found %s"):format(option, what, max, text == "" and "nothing" or #text .. " bytes")
  end
end

local function integer(text) return math.tointeger(tonumber(text)) end
function common.integer(option, what, min, max) return common.number(option, what, min, integer, max) end

local TIMES = { ms = 1, s = 1000, m = 60000, h = 3600000, d = 86400000 }
local SIZES = { B = 1, KiB = 1 << 10, MiB = 1 << 20, GiB = 1 << 30 }

--- "90s", "30m", "24h", "7d" as milliseconds.
function common.duration(option)
  return function (text)
    local count, unit = text:match "^(%d+)(%a+)$"
    if count and TIMES[unit] and #count <= 12 then return math.tointeger(count) * TIMES[unit] end
    return nil, ("%s: expected a time such as 90s, 30m, 24h or 7d; found '%s'"):format(option, text)
  end
end

--- "24h,1GiB": how long, how much, or both.
---@return { ms?: integer, bytes?: integer }? retention, string? err
function common.retention(text)
  local out = {}
  for word in (text .. ","):gmatch "([^,]*)," do
    local count, unit = word:match "^(%d+)(%a+)$"
    local key = TIMES[unit] and "ms" or SIZES[unit] and "bytes"
    if not key or out[key] or #count > 12 then
      return nil, ("--retention: expected a time (s, m, h, d), a size (KiB, MiB, GiB) or both, such as 24h,1GiB; found '%s'"):format(text)
    end
    out[key] = math.tointeger(count) * (TIMES[unit] or SIZES[unit])
  end
  return out
end

--- Check "host:port" words. `from` names where they were given: "--connect", "SHOAL_CONNECT".
---@param words string[]
---@param from string
---@return true? ok, string? err, string? code  "CONFIG"
function common.check_addresses(words, from)
  for _, word in ipairs(words) do
    local host, port = dial.split(word)
    local problem = not host and port
    if word:find("://", 1, true) then
      problem = ("expected HOST:PORT without a scheme, such as %s; found %q"):format(common.CONNECT, word)
    elseif port == 0 then
      problem = ("expected a port from 1 to 65535; found %q"):format(word)
    end
    if problem then return nil, ("%s: %s"):format(from, problem), "CONFIG" end
  end
  return true
end

--- "host:port" words as addresses, names looked up: all addresses of each, in the order to try. Waits.
---@param words string[]
---@param from string  for messages
---@return string[]? addresses, string? err, string? code
function common.resolve(words, from)
  local out = {}
  local fine, wrong, word = common.check_addresses(words, from)
  if not fine then return nil, wrong, word end
  for _, each in ipairs(words) do
    local host, port = dial.split(each)
    local addresses, err, code = dial.lookup(world.current(), host, port, LOOKUP_MS)
    if not addresses then return nil, ("%s: %s"):format(from, err), code end
    table.move(addresses, 1, #addresses, #out + 1, out)
  end
  return out
end

--- The words of --connect; else those of SHOAL_CONNECT, separated by blanks or commas; else the default.
---@return string[] words, string from
function common.connect_given(args)
  if args.connect and #args.connect > 0 then return args.connect, "--connect" end
  local words = {}
  for word in (os.getenv "SHOAL_CONNECT" or ""):gmatch "[^%s,]+" do words[#words + 1] = word end
  if #words > 0 then return words, "SHOAL_CONNECT" end
  return { common.CONNECT }, "the default of --connect"
end

--- A node of role client for one command; nil and the exit code after an error message.
---@return table? client_node, integer? exit_code
function common.client(args)
  local addresses, err, code = common.resolve(common.connect_given(args))
  if not addresses then
    common.talk("shoal: %s (%s)", err, code)
    return nil, code == "CONFIG" and common.EXIT.usage or common.EXIT.unreachable
  end
  local made
  made, err, code = node.start {
    world = world.current(), script = core.home() .. "/scripts/roles/client.lua",
    config = { name = ("cli-%04x"):format(world.current():random(65536) - 1), connect = addresses, log_level = "error",
      cluster = args.cluster },
  }
  if not made then return nil, common.refused("client", err, code) end
  return made
end

--- Rows as aligned columns, the first row being the head.
function common.columns(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, #tostring(cell)) end
  end
  local lines = {}
  for n, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      cells[i] = i == #row and tostring(cell) or tostring(cell) .. (" "):rep(widths[i] - #tostring(cell))
    end
    lines[n] = table.concat(cells, "  ")
  end
  return table.concat(lines, "\n")
end

return common
