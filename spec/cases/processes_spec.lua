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
  it("ends no command: what had data to write says that it could not, and the others do as always", function ()
    local r = sh '"$SHOAL" jobs -c "$AT" >&-'
    assert.equal(74, r.code, r.err)
    assert.matches("stdout", r.err)
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
