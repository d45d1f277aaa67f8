--- The systems that `scripts/bench jobs` compares. The bench starts each anew, lets it come to rest, has it run jobs, and ends it.
---
--- Each has a client, four workers that run four jobs at a time, and the same child for each job: `true`, with stdout and stderr in
--- pipes. Each keeps its state in a folder of the same disk.
local cluster = require "spec.support.cluster"
local pieces = require "spec.bench.jobs.pieces"

local systems = {}

local WORKERS, SLOTS = 4, 4
local READY_MS = 30000
local RUN_MS = 600000
local SETTLE_MS = 1000 -- Joins are gossiped for a while.

local function path_of(build) return build:sub(1, 1) == "/" and build or cluster.root .. "/" .. build end

--- A shoal node under a keeper, announced. The piece, with its address.
---@param home string  the checkout
---@param options { role: string, name: string, kind: string?, words: string[]?, script: string? }
function systems.node(c, home, options)
  local argv = {
    home .. "/build/release/bin/shoal", "run", options.script or ("%s/scripts/roles/%s.lua"):format(home, options.role),
    "--name", options.name, "--announce", "--until-eof", "--data", c.dir .. "/" .. options.name,
    "--log", ("%s/%s.log"):format(c.dir, options.name), cwd = home, env = { SHOAL_HOME = home },
  }
  table.move(options.words or {}, 1, #(options.words or {}), #argv + 1, argv)
  local piece = pieces.start(c, options.kind or options.role, argv)
  piece.address = pieces.expect(piece, '"address":"([^"]+)"', READY_MS)
  return piece
end

--- Start a gate, a manager and workers, and wait until the gate knows them all.
---@param options { home: string?, cores: integer?, workers: integer?, set: string[]? }
---@return table  { pieces =, gate =, manager =, workers = }
function systems.nodes(c, options)
  local home = path_of(options.home or ".")
  local function words(...)
    local out = { ... }
    for _, set in ipairs(options.set or {}) do table.move({ "--set", set }, 1, 2, #out + 1, out) end
    return out
  end
  local self = { workers = {} }
  self.gate = systems.node(c, home, { role = "gate", name = "g1", words = words() })
  self.manager = systems.node(c, home, { role = "manager", name = "m1", words = words("--dc", "a", "--gates", self.gate.address) })
  self.pieces = { self.gate, self.manager }
  for i = 1, options.workers or WORKERS do
    local worker = systems.node(c, home, { role = "worker", name = "w" .. i,
      words = words("--dc", "a", "--join", self.manager.address, "--cores", tostring(options.cores or SLOTS)) })
    self.workers[i], self.pieces[#self.pieces + 1] = worker, worker
  end
  local said = ""
  cluster.wait(function () return "the gate knows all workers; it said:\n" .. said end, function ()
    local argv = { home .. "/build/release/bin/shoal", "members", "--connect", self.gate.address, env = { SHOAL_HOME = home }, stdin = "" }
    local r = c:spawn(argv):wait()
    said = r.out .. r.err
    for i = 1, #self.workers do
      if not r.out:find(("w%d "):format(i), 1, true) then return false end
    end
    return true
  end, READY_MS)
  return self
end

--- The nodes, and a client that submits.
function systems.shoal(c, options)
  local self = systems.nodes(c, options)
  local home = path_of(options.home or ".")
  self.driver = pieces.start(c, "client", {
    home .. "/build/release/bin/shoal", "run", cluster.root .. "/spec/bench/jobs/driver.lua", "--connect", self.gate.address,
    "--set", "log_level=error", cwd = home, env = { SHOAL_HOME = home },
  })
  pieces.expect(self.driver, "ready", READY_MS)
  table.insert(self.pieces, 1, self.driver)
  return self
end

--- beanstalkd, which syncs each change to its log (-f 0).
function systems.beanstalkd(c)
  local port, self = tostring(cluster.port()), {}
  local server = pieces.start(c, "server", { "beanstalkd", "-l", "127.0.0.1", "-p", port, "-b", c.dir, "-f", "0" })
  cluster.pause(300)
  self.driver = pieces.start(c, "client", { pieces.helper, "beanstalk-drive", port })
  pieces.expect(self.driver, "ready", READY_MS)
  self.pieces = { self.driver, server }
  for _ = 1, WORKERS do
    table.insert(self.pieces, pieces.start(c, "worker", { pieces.helper, "beanstalk-work", port, tostring(SLOTS), "true" }))
  end
  return self
end

--- BullMQ on Redis. `persistence` is "everysec" or "always" (of its append-only file), or "none".
---@param options { modules: string, persistence: string }
function systems.bullmq(c, options)
  local port, self = tostring(cluster.port()), {}
  local append = options.persistence ~= "none"
  local server = pieces.start(c, "server", {
    "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", c.dir, "--save", "", "--maxmemory-policy", "noeviction",
    "--appendonly", append and "yes" or "no", "--appendfsync", append and options.persistence or "no",
  })
  pieces.expect(server, "Ready to accept connections", READY_MS)
  local script, env = cluster.root .. "/spec/bench/jobs/bullmq.js", { NODE_PATH = options.modules }
  self.pieces = { server }
  for _ = 1, WORKERS do
    table.insert(self.pieces, pieces.start(c, "worker", { "node", script, "work", port, tostring(SLOTS), "true", env = env }))
  end
  self.driver = pieces.start(c, "client", { "node", script, "drive", port, env = env })
  table.insert(self.pieces, 1, self.driver)
  pieces.expect(self.driver, "ready", READY_MS)
  for i = 3, #self.pieces do pieces.expect(self.pieces[i], "ready", READY_MS) end
  return self
end

--- Run `count` jobs to their ends, `flight` at a time.
---@return number seconds
function systems.run(self, count, flight, parts)
  local line = ("run %d %d"):format(count, flight)
  if self.gate then line = ("%s %d"):format(line, parts or 1) end
  return pieces.ask(self.driver, line, "done (%d+)", RUN_MS) / 1e9
end

--- Warm it up after its start: run some jobs, and wait.
function systems.warm(self, count)
  systems.run(self, count, 64)
  cluster.pause(SETTLE_MS)
end

--- Run jobs and count.
---@return { rate: number, cpu_us: number, by: table<string, { own: number, rest: number }>, seconds: number }
function systems.measure(self, count, flight, parts)
  local before = pieces.cpu(self.pieces)
  local seconds = systems.run(self, count, flight, parts)
  local used, by = pieces.used(self.pieces, before, pieces.cpu(self.pieces))
  return { rate = count / seconds, cpu_us = used / count / 1e3, by = by, seconds = seconds }
end

return systems
