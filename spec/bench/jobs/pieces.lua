--- The processes of `scripts/bench jobs`: start each under a keeper, ask it, and count its CPU and that of its descendants.
---
--- spec/bench/jobs_bench.c describes the keeper. A piece is one program: the gate, a worker, Redis. Its CPU is the time of its own
--- process (`own`, exact to the nanosecond) and the time of all processes that it started (`rest`, exact to a tick of 10 ms).
--- The bench takes a snapshot when nothing is under way, so that no process ends while /proc is read.
local cluster = require "spec.support.cluster"
local uv = require "luv"

local pieces = {}

local TICK_NS = 1e9 / 100 -- USER_HZ, which is 100 on every Linux that Debian runs on.
local KEEPER = cluster.program:gsub("/bin/shoal$", "/spec/jobs_bench")

pieces.helper = KEEPER

local function read(path)
  local file = io.open(path)
  local text = file and file:read "a" -- The process may have ended: no text.
  if file then file:close() end
  return text
end

--- Start a program under a keeper.
---@param c table  a spec.support.cluster
---@param name string  its name in tables
---@param argv string[]  as spec.support.cluster's spawn takes it, with env and cwd
---@return table piece
function pieces.start(c, name, argv)
  local words = { KEEPER, "keep", env = argv.env, cwd = argv.cwd }
  table.move(argv, 1, #argv, #words + 1, words)
  local process = c:spawn(words)
  return { name = name, process = process, keeper = process.pid }
end

--- Wait until its stdout matches the pattern.
function pieces.expect(piece, pattern, limit_ms) return piece.process:wait_for(pattern, "out", limit_ms) end

--- Send a line, and wait for the answer.
function pieces.ask(piece, line, pattern, limit_ms)
  piece.process.out = ""
  piece.process:write(line .. "\n")
  return piece.process:wait_for(pattern, "out", limit_ms)
end

--- End pieces: close their stdin, then send SIGTERM. The cluster's close kills those that stay.
function pieces.stop(list)
  for _, piece in ipairs(list) do piece.process:close_stdin() end
  cluster.pause(200)
  for _, piece in ipairs(list) do
    if not piece.process.code then uv.kill(piece.process.pid, "sigterm") end
  end
  for _, piece in ipairs(list) do piece.process:wait(15000) end
end

-- CPU ------------------------------------------------------------------------------------------------------------------

--- The CPU time of all threads of a process. A thread that has ended is only in the counts of the process, which are ticks.
local function own_ns(pid, ticks)
  local sum, folder = 0, ("/proc/%d/task"):format(pid)
  local listing = uv.fs_scandir(folder)
  while listing do
    local thread = uv.fs_scandir_next(listing)
    if not thread then break end
    local text = read(("%s/%s/schedstat"):format(folder, thread))
    sum = sum + (text and tonumber(text:match "^%d+") or 0)
  end
  return math.max(sum, ticks * TICK_NS)
end

--- All processes: { [pid] = { parent, own_ns, reaped_ns } }, and the children of each.
local function processes()
  local all, children = {}, {}
  local listing = assert(uv.fs_scandir "/proc")
  while true do
    local name = uv.fs_scandir_next(listing)
    if not name then break end
    local pid = math.tointeger(tonumber(name))
    local text = pid and read("/proc/" .. name .. "/stat")
    local fields = {}
    for word in (text and text:match "%) (.*)$" or ""):gmatch "%S+" do fields[#fields + 1] = word end
    if fields[15] then
      local parent = math.tointeger(tonumber(fields[2]))
      -- utime and stime; cutime and cstime are those of the children it has waited for.
      all[pid] = { parent = parent, ticks = fields[12] + fields[13], reaped_ns = (fields[14] + fields[15]) * TICK_NS }
      children[parent] = children[parent] or {}
      table.insert(children[parent], pid)
    end
  end
  return all, children
end

--- The one program that a keeper keeps: its first child.
function pieces.pid(piece)
  local _, children = processes()
  return (assert((children[piece.keeper] or {})[1], piece.name .. " has ended"))
end

--- The CPU that each piece has used until now: { { own = ns, rest = ns }, ... }, in the order of the list.
function pieces.cpu(list)
  local all, children = processes()
  local out = {}
  for i, piece in ipairs(list) do
    piece.pid = piece.pid or assert((children[piece.keeper] or {})[1], piece.name .. " has ended")
    local own, rest = own_ns(piece.pid, all[piece.pid].ticks), 0
    local function add(pid)
      if pid ~= piece.pid and pid ~= piece.keeper then rest = rest + own_ns(pid, all[pid].ticks) end
      rest = rest + all[pid].reaped_ns
      for _, child in ipairs(children[pid] or {}) do add(child) end
    end
    add(piece.keeper)
    out[i] = { own = own, rest = rest }
  end
  return out
end

--- The CPU used between two snapshots, by the pieces' names; pieces of one name are added up.
---@return integer total_ns, table<string, { own: number, rest: number }> by_name
function pieces.used(list, before, after)
  local total, by_name = 0, {}
  for i, piece in ipairs(list) do
    local own, rest = after[i].own - before[i].own, after[i].rest - before[i].rest
    local sum = by_name[piece.name] or { own = 0, rest = 0 }
    by_name[piece.name] = { own = sum.own + own, rest = sum.rest + rest }
    total = total + own + rest
  end
  return total, by_name
end

--- A line of /proc/PID/status as a number: VmRSS in KiB, voluntary_ctxt_switches.
function pieces.status(piece, name)
  piece.pid = piece.pid or pieces.pid(piece)
  local text = assert(read(("/proc/%d/status"):format(piece.pid)), piece.name .. " has ended")
  return (assert(tonumber(text:match("\n" .. name .. ":%s*(%d+)")), name))
end

return pieces
