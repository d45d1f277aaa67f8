--- Real processes for specs: start them, talk to them, kill them, and check that none is left.
---
---     local c = cluster.new()
---     local up = c:up "return { datacenters = { a = { managers = { {} }, workers = { {} } } } }"
---     local r = c:shoal { "submit", c:file("job.lua", text), "--connect", up.connect }
---     assert.equal(0, r.code)
---     c:close()                     -- in after_each: kills leftover processes, and fails when there were unexpected ones
---
--- Every process gets a marker in its environment, which its children inherit. `c:left()` looks for it in /proc, so it finds an escaped
--- process whatever its parent is now. Every wait has a deadline, so no spec hangs.
local cjson = require "cjson"
local uv = require "luv"

local cluster = {}
cluster.__index = cluster

local Process = {}
Process.__index = Process

cluster.build = os.getenv "SHOAL_BUILD" or "build/release"
cluster.sanitized = (os.getenv "SHOAL_PRELOAD" or "") ~= ""
-- Sanitized programs on a busy machine with two cores are slow. This does not lengthen a wait that succeeds.
local PATIENCE = cluster.sanitized and 4 or 2
local RUN_MS = 15000
local KEPT = 200000

local root = uv.cwd()
local shoal = (cluster.build:sub(1, 1) == "/" and "" or root .. "/") .. cluster.build .. "/bin/shoal"
cluster.program, cluster.root = shoal, root
local made = 0

--- Run the loop until fn() is true; raises after limit_ms.
---@param what string | fun(): string  for the message
---@param fn fun(): any
---@param limit_ms? number
function cluster.wait(what, fn, limit_ms)
  local late, result = false, fn()
  if result then return result end
  uv.update_time() -- Its clock may be a minute old, from the specs of another file.
  local limit = uv.new_timer()
  limit:start(math.floor((limit_ms or RUN_MS) * PATIENCE), 0, function () late = true end)
  local tick = uv.new_timer() -- For conditions that no event announces.
  tick:start(10, 10, function () end)
  repeat
    uv.run("once")
    result = fn()
  until result or late
  limit:close()
  tick:close()
  uv.run("nowait")
  if not result then
    error(("waited %d ms in vain: %s"):format((limit_ms or RUN_MS) * PATIENCE, type(what) == "function" and what() or what), 2)
  end
  return result
end

--- Let time pass, for specs in which nothing must happen, or in which a signal must arrive half-way.
function cluster.pause(ms)
  local over = false
  uv.update_time()
  local timer = uv.new_timer()
  timer:start(ms, 0, function () over = true end)
  while not over do uv.run("once") end
  timer:close()
end

--- A port below the ephemeral range on which no process listens now.
function cluster.port()
  local first = 20000 + math.tointeger((uv.os_getpid() * 7 + made * 131) % 9000)
  for port = first, first + 2000 do
    local socket, udp = uv.new_tcp(), uv.new_udp()
    local free = socket:bind("127.0.0.1", port) and socket:listen(1, function () end) and udp:bind("127.0.0.1", port)
    socket:close()
    udp:close()
    uv.run("nowait")
    if free then
      made = made + 1
      return port
    end
  end
  error("no free port")
end

function cluster.new()
  made = made + 1
  local dir = uv.fs_mkdtemp("/tmp/shoal-spec-XXXXXX")
  return setmetatable({ dir = dir, mark = ("%d-%d-%d"):format(uv.os_getpid(), uv.hrtime(), made), processes = {} }, cluster)
end

--- Write a file in this cluster's folder; its path.
function cluster:file(name, text)
  local path = self.dir .. "/" .. name
  local folder = name:match("^(.*)/[^/]*$")
  if folder then os.execute(("mkdir -p '%s/%s'"):format(self.dir, folder)) end
  local f = assert(io.open(path, "w"))
  f:write(text)
  assert(f:close())
  return path
end

function cluster.read(path)
  local f = assert(io.open(path))
  local text = f:read("a")
  f:close()
  return text
end

--- Our environment with changes. LD_PRELOAD is only for stock programs that load an instrumented module.
local function environment(self, changes, preload)
  local out = {}
  for name, value in pairs(uv.os_environ()) do
    if name ~= "LD_PRELOAD" and name ~= "SHOAL_CONNECT" and changes[name] == nil then out[#out + 1] = name .. "=" .. value end
  end
  for name, value in pairs(changes) do
    if value then out[#out + 1] = name .. "=" .. value end
  end
  if preload and cluster.sanitized then out[#out + 1] = "LD_PRELOAD=" .. os.getenv "SHOAL_PRELOAD" end
  -- A worker's commands get little of its environment, but all of its locale.
  out[#out + 1] = "LC_SHOAL_SPEC_MARK=" .. self.mark
  return out
end

local function on_machine(net, argv)
  local words = net:inside(argv.at)
  table.move(argv, 1, #argv, #words + 1, words)
  for name, value in pairs(argv) do
    if type(name) == "string" then words[name] = value end
  end
  return words
end

--- Start a program. argv[1] is looked up in PATH; argv also has options: env, cwd, stdin (bytes, then its end), preload; and `at`, a
--- machine's address, if this cluster has a network of its own (netns.lua).
---@return table process  { out =, err =, code =, signal =, pid = }
function cluster:spawn(argv)
  if self.net then argv = on_machine(self.net, argv) end
  local p = setmetatable({ out = "", err = "", cluster = self, words = table.concat(argv, " ") }, Process)
  local stdin, stdout, stderr = uv.new_pipe(), uv.new_pipe(), uv.new_pipe()
  p.stdin = stdin
  local open = 2
  p.handle, p.pid = uv.spawn(argv[1], {
    args = { table.unpack(argv, 2) }, stdio = { stdin, stdout, stderr }, cwd = argv.cwd,
    env = environment(self, argv.env or {}, argv.preload), detached = true, -- A process group of its own, as in a terminal.
  }, function (code, signal)
    p.exited, p.exit_code, p.signal = true, code, signal
    if p.handle and not p.handle:is_closing() then p.handle:close() end
    if open == 0 then p.code = code end
  end)
  if not p.handle then error(argv[1] .. ": " .. tostring(p.pid), 2) end
  for _, stream in ipairs { { stdout, "out" }, { stderr, "err" } } do
    stream[1]:read_start(function (_, bytes)
      if bytes then
        p[stream[2]] = (p[stream[2]] .. bytes):sub(-KEPT)
        return
      end
      stream[1]:close()
      open = open - 1
      if open == 0 and p.exited then p.code = p.exit_code end
    end)
  end
  if argv.stdin then p:write(argv.stdin, true) end
  self.processes[#self.processes + 1] = p
  return p
end

--- Write to its stdin; `close` ends the stdin.
function Process:write(bytes, close)
  if bytes ~= "" then self.stdin:write(bytes) end
  if close then self.stdin:shutdown(function () if not self.stdin:is_closing() then self.stdin:close() end end) end
end

function Process:close_stdin()
  if not self.stdin:is_closing() then self.stdin:close() end
end

--- Wait until the pattern matches a stream ("out" or "err"). Returns the captures.
function Process:wait_for(pattern, stream, limit_ms)
  stream = stream or "err"
  local function what() return ("%q on %s of: %s; it said:\n%s%s"):format(pattern, stream, self.words, self.out, self.err) end
  cluster.wait(what, function ()
    return self[stream]:match(pattern) or self.code and error(("%s ended with %s before it said %q:\n%s%s"):format(self.words,
      self.code, pattern, self.out, self.err), 0)
  end, limit_ms)
  return self[stream]:match(pattern)
end

--- Wait for its end and the end of its pipes. This also finds a child that holds a pipe open.
function Process:wait(limit_ms)
  local function what() return "the end of: " .. self.words .. "; it said:\n" .. self.out .. self.err end
  cluster.wait(what, function () return self.code end, limit_ms)
  return self
end

function Process:kill(signal)
  uv.kill(self.pid, signal or "sigkill")
end

--- Run this build's program to its end.
function cluster:shoal(argv) return self:start(argv):wait(argv.limit_ms) end

--- Start this build's program.
function cluster:start(argv)
  table.insert(argv, 1, shoal)
  if not argv.stdin and not argv.open_stdin then argv.stdin = "" end
  return self:spawn(argv)
end

--- Start `shoal up` of a topology (its text), until ready. Returns the process, with .connect, .nodes by name { role, address, pid }, .data.
function cluster:up(text, options)
  options = options or {}
  made = made + 1
  local path = self:file("topology" .. made .. ".lua", text)
  local data = self.dir .. "/data" .. made
  local argv = { "up", path, "--data", data, open_stdin = true, env = options.env }
  for _, word in ipairs(options) do argv[#argv + 1] = word end
  local p = self:start(argv)
  p:wait_for("ready: ", "err", 30000)
  p.connect, p.data, p.nodes = cjson.decode((p:wait_for("({.*})\n", "out"))).connect, data, {}
  for role, name, address, pid in p.err:gmatch("(%w+)%s+(%S+)%s+(%d[%d%.:]+)%s+pid (%d+)") do
    p.nodes[name] = { role = role, address = address, pid = math.tointeger(pid) }
  end
  return p
end

--- Start one node from a shipped role (or a script's path), until ready. Returns the process, with .address.
function cluster:node(role, words)
  local script = role:find("/", 1, true) and role or "scripts/roles/" .. role .. ".lua"
  local argv = { "run", script, "--announce", "--until-eof", open_stdin = true, at = words.at }
  for _, word in ipairs(words) do argv[#argv + 1] = word end
  local p = self:start(argv)
  p.address = cjson.decode((p:wait_for("({.*})\n", "out"))).address
  return p
end

--- Evaluate an expression on a node through the REPL. Returns its value as text, a string as it is.
function cluster:eval(address, expression)
  local r = self:shoal { "repl", "--connect", address, "--eval", "print((" .. expression .. "))" }
  assert(r.code == 0, r.err)
  return (r.out:gsub("\n$", ""))
end

--- Processes with this cluster's marker, whatever their parents: { pid = command line }, without those that have just ended.
function cluster:left()
  local out, count, wanted = {}, 0, "LC_SHOAL_SPEC_MARK=" .. self.mark
  local own = uv.os_getpid()
  for pid in io.popen("ls /proc"):read("a"):gmatch("%f[%d](%d+)%f[%D]") do
    local f = tonumber(pid) ~= own and io.open("/proc/" .. pid .. "/environ")
    local text = f and f:read("a")
    if f then f:close() end
    local cmdline = text and io.open("/proc/" .. pid .. "/cmdline")
    local words = cmdline and cmdline:read("a") or ""
    if cmdline then cmdline:close() end
    -- nginx writes its title over its environment, but names its folder there.
    if text and (text:find(wanted, 1, true) or words:find(self.dir, 1, true)) then
      if words ~= "" then
        out[math.tointeger(tonumber(pid))] = (words:gsub("%z", " "))
        count = count + 1
      end
    end
  end
  return out, count
end

--- Check that no process of this cluster runs, within a moment for processes that are ending.
function cluster:assert_nothing_left(limit_ms)
  local words = function ()
    local lines = {}
    for pid, line in pairs((self:left())) do lines[#lines + 1] = pid .. ": " .. line end
    return table.concat(lines, "\n")
  end
  uv.update_time()
  local over = uv.now() + (limit_ms or 8000) * PATIENCE
  while select(2, self:left()) > 0 do
    uv.run("nowait")
    uv.sleep(20)
    uv.update_time()
    if uv.now() > over then error("these processes are left:\n" .. words(), 2) end
  end
end

--- Kill leftover processes, close all handles, and remove the folder. Raises when a sanitizer of any process reported an error, or when
--- any node wrote an incident without an id that its site requires.
function cluster:close()
  for _ = 1, 50 do
    local left, count = self:left()
    if count == 0 then break end
    for pid in pairs(left) do uv.kill(pid, "sigkill") end
    for _ = 1, 5 do uv.run("nowait") end
    uv.sleep(10)
  end
  local complaint
  for _, p in ipairs(self.processes) do
    p:close_stdin()
    for _ = 1, 200 do
      if p.code then break end
      uv.run("nowait")
      uv.sleep(5)
    end
    for line in (p.err .. p.out):gmatch("[^\n]+") do -- By plain finds: a pattern takes minutes on a line of 64 KB.
      if line:find("Sanitizer:", 1, true) or line:find(": runtime error: ", 1, true) then complaint = complaint or p.err .. p.out end
    end
  end
  for _ = 1, 5 do uv.run("nowait") end
  local missing = io.popen(("grep -rhs --include='*.log' '\"missing\":' '%s' | head -3"):format(self.dir)):read "a"
  if missing ~= "" then complaint = complaint or "incidents without their ids:\n" .. missing end
  os.execute("rm -rf '" .. self.dir .. "'")
  if complaint then error("a process complained:\n" .. complaint, 2) end
end

return cluster
