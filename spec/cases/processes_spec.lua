--- Processes, as users met them: children, descriptors, signals, limits. One cluster: a manager and two workers.
local cjson = require "cjson"
local cluster = require "spec.support.cluster"

local TOPOLOGY = "return { datacenters = { a = { managers = { {} }, workers = { { cores = 4 }, { cores = 4 } } } } }"

local c, up

setup(function ()
  c = cluster.new()
  up = c:up(TOPOLOGY)
end)

teardown(function () c:close() end)

--- Run a job of these workflows to its end. Returns the process, with .result, .of (workflows by name) and .run (their first command).
local function ended(workflows)
  local p = c:shoal { "submit", c:file("j.lua", ("return { name = 'j', workflows = { %s } }"):format(workflows)), "--connect", up.connect,
    "--output", "json" }
  p.result, p.of, p.run = cjson.decode(p.out), {}, {}
  for _, w in ipairs(p.result.workflows) do
    p.of[w.workflow], p.run[w.workflow] = w, w.stats.commands and w.stats.commands[1]
  end
  return p
end

--- Why each workflow's last attempt ended, by the workflow's name.
local function reasons_of(result)
  local out = {}
  for _, a in ipairs(result.attempts) do out[a.part:match "^[^/]+"] = a.reason end
  return out
end

local function running(pattern)
  for pid, words in pairs((c:left())) do
    if words:find(pattern) then return pid end
  end
end

local function file(name, work) return c:file(name, ("return { name = 'j', workflows = { w = { %s } } }"):format(work)) end

--- Run a line of the shell in which $SHOAL is this build's program.
local function sh(line)
  return c:spawn { "sh", "-c", line, stdin = "", env = { SHOAL = cluster.program, AT = up.connect, DIR = c.dir } }:wait()
end

--- A job that runs for long, followed by its client.
local function follow()
  local p = c:start { "submit", file("long.lua", "command = 'sleep 321'"), "--connect", up.connect, open_stdin = true }
  p.job = p:wait_for "%f[%w]job (%S+)\n"
  p:wait_for "w is running"
  return p
end

local function state_of(job) return cjson.decode(c:shoal({ "status", job, "--connect", up.connect, "--output", "json" }).out).state end

local function cancel(job) assert.equal(0, c:shoal({ "cancel", job, "--connect", up.connect }).code) end

describe("a standard descriptor that is closed at the start", function ()
  it("ends no command, and fails none: nobody wanted what goes there", function ()
    local r = sh '"$SHOAL" jobs -c "$AT" >&-'
    assert.equal(0, r.code, r.err)
    assert.equal("", r.err)
    r = sh '"$SHOAL" jobs -c "$AT" <&- 2>&-'
    assert.equal(0, r.code, r.err)
    assert.matches("%S", r.out)
    r = sh '"$SHOAL" run "$DIR/none.lua" >&- 2>&- <&-'
    assert.equal(2, r.code)
  end)

  it("is the null device for a worker and for what it runs", function ()
    local m = c:node("manager", { "--name", "m-b1", "--dc", "b", "--data", c.dir .. "/m-b1" })
    local r = sh(([[
      "$SHOAL" run scripts/roles/worker.lua --name w-b1 --dc b --join %s --data "$DIR/w-b1" --log "$DIR/w-b1.log" 0<&- 1>&- 2>&- & W=$!
      printf 'return { name = "j", workflows = { c = { command = "echo hi; cat" }, s = { script = "u.lua" } } }' > "$DIR/closed.lua"
      echo 'return function () end' > "$DIR/u.lua"
      until "$SHOAL" members -c %s | grep -q w-b1; do sleep 0.05; done
      "$SHOAL" submit "$DIR/closed.lua" -c %s -q; echo "submit $?"; kill -TERM $W; wait $W; echo "worker $?"]]):format(m.address, m.address,
      m.address))
    assert.matches("submit 0", r.out, r.out .. r.err)
    assert.matches("worker 0", r.out, r.out .. r.err)
    m:kill "sigterm"
    m:wait()
  end)
end)

describe("SIGHUP", function ()
  it("makes every node of a cluster, and a node alone, begin a new log file", function ()
    local log = up.data .. "/w-a1.log"
    assert(os.rename(log, log .. ".1"))
    up:kill "sighup"
    cluster.wait("a new log", function ()
      local f = io.open(log)
      local text = f and f:read "a"
      if f then f:close() end
      return text and text:find("node.log", 1, true)
    end)
    assert.is_nil(cluster.read(log .. ".1"):find("node.log", 1, true))
    assert.is_nil(up.code)
  end)

  it("of a terminal that has gone stops its node in order", function ()
    local log = c.dir .. "/tty.log"
    local command = ("exec %s run scripts/roles/gate.lua --name tty --data %s/tty --log %s"):format(cluster.program, c.dir, log)
    local p = c:spawn { "script", "-qefc", command, "/dev/null", env = { SHELL = "/bin/sh" } }
    p:wait_for("gate tty is ready", "out")
    p:kill "sigkill"
    cluster.wait("its end", function () return not running "run scripts/roles/gate.lua %-%-name tty" end)
    assert.matches('"reason":"its terminal has gone"', cluster.read(log))
    assert.matches('"event":"node.end"', cluster.read(log))
  end)

  it("ends who follows a job, with 129 and a word about the job, which goes on", function ()
    local p = follow()
    p:kill "sighup"
    p:wait(3000)
    assert.equal(129, p.code, p.err)
    assert.matches("goes on; shoal status", p.err)
    assert.equal("running", state_of(p.job))
    cancel(p.job)
  end)

  it("ends any other client with 129 and a word", function ()
    local p = c:start { "repl", "--connect", up.connect, open_stdin = true }
    p:wait_for "Ctrl%-D leaves"
    p:kill "sighup"
    p:wait(3000)
    assert.equal(129, p.code, p.err)
    assert.matches("SIGHUP", p.err)
  end)
end)

describe("a command", function ()
  local p
  setup(function ()
    p = ended [=[
      pipes = { command = "echo one > /dev/stderr; echo two | tee /dev/stderr; echo three > /dev/stdout; echo four >> /proc/self/fd/1" },
      left = { command = "setsid sleep 331 & (sleep 332 &); sh -mc 'sleep 333 &'; sleep 0.2; echo said" },
      killed = { command = "[ $SHOAL_ATTEMPT = 1 ] && kill -9 $PPID; echo attempt $SHOAL_ATTEMPT", retries = 2 },
      shot = { command = "[ $SHOAL_ATTEMPT = 1 ] && kill -9 $$; echo attempt $SHOAL_ATTEMPT", retries = 2 },
      env = { command = "env", env = { MINE = "1" } },
      folder = { command = "stat -c '%a %n' \"$PWD\"; ls -A | wc -l; echo x > f; mkdir -p a/b; chmod 0 a/b; echo $SHOAL_RUN", parts = 2 },
      cpu = { command = "while :; do :; done", limits = { cpu_s = 1 }, retries = 0 },
      memory = { command = "head -c 64M /dev/zero | tail -c 64M | wc -c >&2; exit 3", limits = { memory = "16MiB" }, retries = 0 },
      files = { command = "ulimit -n", limits = { nofile = 40 } },
      late = { command = "timeout 60 sleep 334", timeout_ms = 400, retries = 0 },
    ]=]
  end)

  it("has pipes that it can open again by name", function ()
    local lines = {}
    for line in p.run.pipes.head:gmatch "[^\n]+" do lines[#lines + 1] = line end
    table.sort(lines)
    assert.same({ "four", "one", "three", "two", "two" }, lines)
    assert.equal(0, p.run.pipes.status)
  end)

  it("leaves nothing behind in any group or session, and its result says what was ended with it", function ()
    assert.equal("completed", p.of.left.state)
    assert.matches("^3 processes: sleep 33%d %(pid %d+%), sleep 33%d %(pid %d+%), sleep 33%d %(pid %d+%)$", p.run.left.left)
    assert.is_nil(running "^sleep 33[123]")
  end)

  it("that makes itself a group, as timeout does, ends at its limit like any other", function ()
    assert.equal("failed", p.of.late.state)
    assert.matches("not done after timeout_ms = 400", reasons_of(p.result).late)
    assert.is_nil(running "^timeout 60")
    assert.is_nil(running "^sleep 334")
  end)

  it("that was killed from outside, or its keeper, is a lost attempt and is tried again", function ()
    for _, name in ipairs { "killed", "shot" } do
      assert.equal("completed", p.of[name].state, name)
      assert.equal("attempt 2\n", p.run[name].head)
    end
    local lost = 0
    for _, a in ipairs(p.result.attempts) do lost = lost + (a.state == "lost" and 1 or 0) end
    assert.equal(2, lost)
  end)

  it("gets what is usual of the worker's environment, the job's, and ours", function ()
    local got = {}
    for name, value in p.run.env.head:gmatch "([%w_]+)=([^\n]*)" do got[name] = value end
    assert.equal("1", got.MINE)
    assert.equal(os.getenv "PATH", got.PATH)
    assert.equal("1", got.SHOAL_ATTEMPT)
    local strange = {}
    for name in pairs(got) do
      if not (name:find "^SHOAL_" or name:find "^LC_" or (" PATH HOME LANG LANGUAGE TZ TMPDIR USER LOGNAME SHELL MINE PWD OLDPWD SHLVL _ ")
        :find(" " .. name .. " ", 1, true)) then strange[#strange + 1] = name end
    end
    assert.same({}, strange)
  end)

  it("runs in a folder of its own, which nobody else may read and which goes with the attempt, whatever is in it", function ()
    local folders = {}
    for _, run in ipairs(p.of.folder.stats.commands) do
      local mode, path, count = run.head:match "^(%d+) (%S+)\n%s*(%d+)\n"
      assert.same({ "700", "0" }, { mode, count }, run.head)
      folders[#folders + 1] = path
    end
    assert.equal(2, #folders)
    assert.not_equal(folders[1], folders[2])
    cluster.wait("both are gone", function ()
      for _, path in ipairs(folders) do
        if os.rename(path, path) then return false end
      end
      return true
    end)
  end)

  it("that meets a limit says so in its reason", function ()
    local reasons = reasons_of(p.result)
    assert.equal("the command was ended by its cpu limit of 1 s", reasons.cpu)
    assert.matches("^the command exited with status 3 at its memory limit of 16 MiB: ", reasons.memory)
    assert.equal("40\n", p.run.files.head)
  end)

  it("that is cancelled takes its daemons with it", function ()
    local q = c:start { "submit", file("d.lua", [=[command = "setsid sh -c 'setsid sleep 335 & setsid sleep 336 & wait' & sleep 337"]=]),
      "--connect", up.connect, open_stdin = true }
    local id = q:wait_for "%f[%w]job (%S+)\n"
    cluster.wait("its daemons", function () return running "^sleep 335" and running "^sleep 336" and running "^sleep 337" end)
    cancel(id)
    q:wait()
    assert.equal(5, q.code, q.err)
    assert.is_nil(running "^sleep 33[567]")
  end)
end)

describe("a worker as process 1 of a container", function ()
  it("leaves no zombie: of commands, of what they left, nor of processes that enter the container", function ()
    if cluster.sanitized then
      pending "LeakSanitizer does not end in process 1 of a namespace"
      return
    end
    if c:spawn({ "unshare", "-pf", "--mount-proc", "true" }):wait().code ~= 0 then
      pending "a process namespace needs root (unshare -pf)"
      return
    end
    local manager = up.nodes["m-a1"].address
    local outer = c:spawn { "unshare", "-pf", "--mount-proc", "--kill-child", cluster.program, "run", "scripts/roles/worker.lua", "--name",
      "pid1", "--dc", "a", "--join", manager, "--cores", "8", "--label", "pid=1", "--data", c.dir .. "/pid1", "--announce" }
    outer:wait_for("({.*})\n", "out")
    local inner = cluster.wait("process 1", function ()
      for pid, words in pairs((c:left())) do
        if words:find "^%S*shoal run .*%-%-name pid1" then return pid end
      end
    end)
    local p = ended [[w = { command = "(setsid sleep 0.01 &); echo hi", parts = 20, where = { pid = "1" } },
      k = { command = "setsid sleep 338 & [ $SHOAL_ATTEMPT = 1 ] && kill -9 $PPID; true", retries = 1, where = { pid = "1" } }]]
    assert.equal("completed", p.result.state, p.out)
    c:spawn({ "nsenter", "-t", tostring(inner), "-p", "-m", "sh", "-c", "(sleep 0.01 &)" }):wait()
    cluster.wait("no zombie", function ()
      local zombies, count = io.popen(("ps -o stat= --ppid %d"):format(inner)):read "a", 0
      for _ in zombies:gmatch "Z" do count = count + 1 end
      return count == 0
    end, 5000)
    assert.is_nil(running "^sleep 338")
    outer:kill "sigkill" -- Its namespace goes with process 1.
    outer:wait()
  end)
end)

describe("a worker that was killed", function ()
  it("removes the folders of its commands when it starts again", function ()
    local data = c.dir .. "/again"
    local words = { "--name", "again", "--dc", "a", "--join", up.nodes["m-a1"].address, "--cores", "2", "--label", "again=1", "--data", data }
    local w = c:node("worker", words)
    local q = c:start { "submit", file("again.lua", [[command = "echo > f; sleep 339", retries = 0, where = { again = "1" }]]), "--connect",
      up.connect, open_stdin = true }
    cluster.wait("the command", function () return running "^sleep 339" end)
    local function count() return tonumber((io.popen(("find %s/work -mindepth 1 | wc -l"):format(data)):read "a")) end
    assert.equal(2, count())
    w:kill()
    w:wait()
    q:wait()
    assert.is_nil(running "^sleep 339")
    w = c:node("worker", words)
    cluster.wait("an empty folder", function () return count() == 0 end)
    w:close_stdin()
    w:wait()
  end)
end)

describe("a worker that is stopped in order", function ()
  it("hands its parts back, and they begin elsewhere at once", function ()
    -- The workers of earlier specs may still count as alive, so the attempt that sleeps need not be the first.
    local line = ("mkdir %s/first && sleep 341; echo again"):format(c.dir)
    local q = c:start { "submit", file("back.lua", ("command = %q, retries = 5"):format(line)),
      "--connect", up.connect, "--output", "json", open_stdin = true }
    local pid, name = cluster.wait("the command", function () return running "^sleep 341" end), nil
    while not name do -- Up from the command to its worker.
      pid = tonumber(io.open(("/proc/%d/stat"):format(pid)):read("a"):match "%) %a (%d+)")
      for each, node in pairs(up.nodes) do name = node.pid == pid and each or name end
    end
    require("luv").kill(pid, "sigterm")
    q:wait()
    local result, reasons = cjson.decode(q.out), {}
    for _, a in ipairs(result.attempts) do
      if a.state == "lost" then reasons[a.executor .. ": " .. a.reason] = true end
    end
    assert.equal("completed", result.state, q.out)
    assert.is_true(reasons[name .. ": the worker is stopping"], q.out)
  end)
end)
