--- reports: progress and results to their leaders, with a fake of the transport and virtual time.
local ack = require "shoal.wire.ack"
local errors = require "shoal.base.errors"
local fake_world = require "spec.support.fake_world"
local log = require "shoal.base.log"
local messages = require "shoal.wire.messages"
local msgpack = require "shoal.core.msgpack"
local progress = require "shoal.run.reports.progress"
local reports = require "shoal.run.reports"
local results = require "shoal.run.reports.results"
local task = require "shoal.base.task"

local INTERVAL_MS = 50

--- A disk for the fake world: `later` puts are done when the spec turns it.
local function with_disk(world)
  world.directories, world.pending = {}, {}
  function world:make_directory(path)
    if self.disk_full then return nil, "no space left", "ENOSPC" end
    self.directories[path] = true
    return true
  end
  function world:put_later(path, bytes, fn)
    self.pending[#self.pending + 1] = function ()
      if self.disk_full then return fn(nil, "no space left", "ENOSPC") end
      self.files[path] = bytes
      fn(true)
    end
    return true
  end
  function world:put_durable(path, bytes)
    if self.disk_full then return nil, "no space left", "ENOSPC" end
    self.files[path] = bytes
    return true
  end
  function world:write_out()
    local pending = self.pending
    self.pending = {}
    for _, fn in ipairs(pending) do fn() end
  end
  function world:unlink(path)
    if not self.files[path] then return nil, "no such file", "ENOENT" end
    self.files[path] = nil
    return true
  end
  function world:list(folder)
    local out = {}
    for path in pairs(self.files) do
      local name = path:match("^" .. folder:gsub("%-", "%%-") .. "/(.*)$")
      if name then out[#out + 1] = name end
    end
    if not out[1] and not self.directories[folder] then return nil, "no such folder", "ENOENT" end
    table.sort(out)
    return out
  end
  function world:stored()
    local n = 0
    for _ in pairs(self.files) do n = n + 1 end
    return n
  end
end

--- `answer[name](body, address)` gives the reply, or nil, err, code; or "silent", and then nothing comes for its timeout.
local function opened(options)
  options = options or {}
  local self = { world = options.world or fake_world.new { seed = 7 }, calls = {}, answer = {}, latency_ms = 1, live = {}, most = {} }
  if not self.world.directories then with_disk(self.world) end
  task.reset()
  errors.reset()
  log.open(nil, function () end)
  task.start(self.world)
  errors.start(self.world, "w1")
  self.scope = task.scope "spec"
  self.ended = { unknown = {}, stop = {} }
  local node = { name = "w1", world = self.world, scope = self.scope, config = {} }
  node.rpc = {
    peer = function (_, address)
      return {
        call = function (_, name, body, o)
          assert(messages.encode(name, body))
          self.calls[#self.calls + 1] = { name = name, body = body, address = address, at_ms = task.now_ms() }
          self.live[address] = (self.live[address] or 0) + 1
          self.most[address] = math.max(self.most[address] or 0, self.live[address])
          local free <close> = setmetatable({}, { __close = function () self.live[address] = self.live[address] - 1 end })
          local reply, err, code = self.answer[name](body, address)
          if code == "FULL" then return nil, err, code end -- Our own transport: at once.
          task.sleep(reply == "silent" and o.timeout_ms or self.latency_ms)
          if reply == "silent" then return nil, "no answer", "TIMEOUT" end
          return reply, err, code
        end,
      }
    end,
  }
  function self.raised(site) return errors.count("worker." .. site).raised end
  self.others = {}
  self.answer["part.progress"] = function () return ack.encode { level = "none" } end
  self.answer["part.result"] = function () return { accepted = true, stale = false } end
  self.answer["lead.who"] = function () return { node = "", address = "" } end
  self.reports = reports.open(node, {
    owner = "worker", interval_ms = options.interval_ms or INTERVAL_MS, others = function () return self.others end,
    unknown = function (record) self.ended.unknown[#self.ended.unknown + 1] = record.part end,
    stop = function (record) self.ended.stop[#self.ended.stop + 1] = record.part end,
    folder = options.folder, restored = options.restored,
  })
  function self.run(_, ms) self.world:run(ms) end
  function self.named(_, name)
    local out = {}
    for _, call in ipairs(self.calls) do if call.name == name then out[#out + 1] = call end end
    return out
  end
  return self
end

local function record(i, fields)
  local out = {
    job = "j", workflow = "w", part = ("w/%04d"):format(i), attempt = 1, fence = 5, leader = "m1:1", leader_name = "m1",
    stats = { requests = i },
  }
  for k, v in pairs(fields or {}) do out[k] = v end
  return out
end

local function result(i, fields)
  local out = record(i, { state = "completed", result = msgpack.pack { n = i } })
  for k, v in pairs(fields or {}) do out[k] = v end
  return out
end

local nothing = function () end

after_each(function ()
  task.reset()
  errors.reset()
  log.reset()
end)

describe("progress", function ()
  it("of all parts is one message to each leader at each flush, with the newest record of each", function ()
    local s = opened()
    for round = 1, 2 do
      for i = 1, 40 do s.reports:progress(record(i, { stats = { requests = round }, leader = i > 30 and "m2:1" or "m1:1" })) end
    end
    s:run(INTERVAL_MS + 5)
    local sent = s:named "part.progress"
    assert.equal(2, #sent)
    table.sort(sent, function (a, b) return a.address < b.address end)
    assert.same({ 30, 10 }, { #sent[1].body.parts, #sent[2].body.parts })
    for _, part in ipairs(sent[1].body.parts) do assert.same({ 2, 2 }, { part.seq, part.stats.requests }) end
    assert.equal(0, s.reports:counts().waiting)
  end)

  it("is split at PARTS_MAX parts, and one past it is two messages", function ()
    local s = opened()
    for i = 1, progress.PARTS_MAX do s.reports:progress(record(i)) end
    s:run(INTERVAL_MS + 20)
    assert.equal(1, #s:named "part.progress")
    for i = 1, progress.PARTS_MAX + 1 do s.reports:progress(record(i)) end
    s:run(INTERVAL_MS + 20)
    local sent = s:named "part.progress"
    assert.same({ 3, progress.PARTS_MAX, 1 }, { #sent, #sent[2].body.parts, #sent[3].body.parts })
  end)

  it("is split at BYTES_MAX bytes", function ()
    local s, stats = opened(), {}
    for i = 1, 32 do stats[("x"):rep(196) .. ("%04d"):format(i)] = i end
    for i = 1, 200 do s.reports:progress(record(i, { stats = stats })) end
    s:run(INTERVAL_MS + 200)
    local sent, all = s:named "part.progress", 0
    assert.is_true(#sent > 4)
    for _, call in ipairs(sent) do
      all = all + #call.body.parts
      assert.is_true(#messages.encode("part.progress", call.body) <= progress.BYTES_MAX)
    end
    assert.equal(200, all)
  end)

  it("of 320 live parts is reported, each of them, at every level of backpressure", function ()
    for _, level in ipairs(ack.levels) do
      local s, last, gap = opened { interval_ms = 50 }, {}, 0
      s.answer["part.progress"] = function (body)
        for _, part in ipairs(body.parts) do
          gap = math.max(gap, task.now_ms() - (last[part.part] or task.now_ms()))
          last[part.part] = task.now_ms()
        end
        return ack.encode { level = level }
      end
      for _ = 1, 100 do
        for i = 1, 320 do s.reports:progress(record(i)) end
        s:run(200)
      end
      local n = 0
      for _ in pairs(last) do n = n + 1 end
      assert.equal(320, n)
      assert.is_true(gap <= 1300, level .. ": " .. gap)
      assert.equal(0, s.raised "progress.send")
    end
  end)

  it("that our own transport refuses as FULL is no failure of the leader, and none starves behind it", function ()
    local s, refuse, seen = opened(), true, {}
    s.others = { "m2:1" }
    s.answer["part.progress"] = function (body)
      if refuse then return nil, "300 are in flight", "FULL" end
      for _, part in ipairs(body.parts) do seen[#seen + 1] = part.part end
      return ack.encode { level = "none" }
    end
    for i = 400, 1, -1 do s.reports:progress(record(i)) end
    s:run(3000)
    for i = 1, 700 do s.reports:progress(record(i)) end -- 300 more, and newer ones of those that wait.
    assert.equal(0, #s:named "lead.who")
    assert.equal(0, s.reports.leaders["m1:1"].failures)
    assert.equal(1, s.raised "progress.send")
    refuse = false
    s:run(3000)
    assert.equal(700, #seen)
    assert.equal("w/0400", seen[1]) -- It waited longest.
    assert.equal("w/0001", seen[400])
    assert.equal("w/0401", seen[401])
  end)

  it("goes back when its send failed, keeps its place, and does not displace a newer record", function ()
    local s, fail = opened(), true
    s.answer["part.progress"] = function () if fail then return "silent" end return ack.encode { level = "none" } end
    s.reports:progress(record(1))
    s:run(INTERVAL_MS + 10)
    s.reports:progress(record(0))
    s.reports:progress(record(1, { stats = { requests = 99 } })) -- It takes the place of the one that is under way.
    s:run(2000)
    fail = false
    s:run(3000)
    local sent = s:named "part.progress"
    local parts = sent[#sent].body.parts
    assert.same({ "w/0001", 99, "w/0000" }, { parts[1].part, parts[1].stats.requests, parts[2].part })
    local told = errors.incidents()
    assert.is_false(told[#told].ids.put_back)
    assert.equal(1, told[#told].ids.parts)
  end)

  it("to a leader that does not answer delays no other", function ()
    local s = opened()
    s.answer["part.progress"] = function (_, address)
      if address == "m1:1" then return "silent" end
      return ack.encode { level = "none" }
    end
    for _ = 1, 100 do
      s.reports:progress(record(1))
      s.reports:progress(record(2, { job = "k", leader = "m2:1" }))
      s:run(100)
    end
    local n = 0
    for _, call in ipairs(s:named "part.progress") do n = n + (call.address == "m2:1" and 1 or 0) end
    assert.is_true(n >= 95, n .. " flushes in 10 s")
  end)

  it("follows the leader that another names, after two failures, for all jobs of the leader that is silent", function ()
    local s = opened()
    s.others = { "m1:1", "m2:1" }
    s.answer["part.progress"] = function (_, address)
      if address == "m1:1" then return nil, "gone", "DISCONNECTED" end
      return ack.encode { level = "none" }
    end
    s.answer["lead.who"] = function () return { node = "m3", address = "m3:1" } end
    for j = 1, 20 do s.reports:progress(record(j, { job = "job" .. j })) end
    s:run(1500)
    local asked = {}
    for _, call in ipairs(s:named "lead.who") do
      assert.equal("m2:1", call.address)
      asked[call.body.job] = (asked[call.body.job] or 0) + 1
    end
    for j = 1, 20 do assert.equal(1, asked["job" .. j]) end
    local sent = s:named "part.progress"
    assert.same({ "m3:1", 20 }, { sent[#sent].address, #sent[#sent].body.parts })
    assert.equal(0, s.reports:counts().waiting)
  end)

  it("of which one can never be sent loses that one alone", function ()
    local s, seen = opened(), {}
    s.answer["part.progress"] = function (body)
      for _, part in ipairs(body.parts) do if part.part == "w/0007" then return nil, "bad", "MALFORMED" end end
      for _, part in ipairs(body.parts) do seen[part.part] = true end
      return ack.encode { level = "none" }
    end
    for i = 1, 20 do s.reports:progress(record(i)) end
    s:run(30000)
    local n = 0
    for _ in pairs(seen) do n = n + 1 end
    assert.equal(19, n)
    assert.equal(0, s.reports:counts().waiting)
  end)

  it("stops when its part is over, and a late failure brings nothing back", function ()
    local s = opened()
    s.answer["part.progress"] = function () return "silent" end
    s.answer["part.result"] = function () return "silent" end
    s.reports:progress(record(1))
    s:run(INTERVAL_MS + 10)
    s.reports:result(result(1), nothing)
    s.reports:progress(record(1))
    s:run(3000)
    assert.equal(1, #s:named "part.progress")
    assert.equal(0, s.reports:counts().waiting)
  end)

  it("of a newer attempt goes on when the older one's result is accepted", function ()
    local s = opened()
    s.reports:result(result(1), nothing)
    s.reports:progress(record(1, { fence = 6, attempt = 2 }))
    s:run(20) -- The result is accepted; the record of the newer attempt waits.
    assert.equal(0, s.reports:counts().results)
    s:run(INTERVAL_MS)
    s.reports:progress(record(1, { fence = 6, attempt = 2 }))
    s:run(INTERVAL_MS + 10)
    local sent = s:named "part.progress"
    assert.same({ 2, 6, 1, 2 }, { #sent, sent[1].body.parts[1].fence, sent[1].body.parts[1].seq, sent[2].body.parts[1].seq })
  end)

  it("ends attempts that its leader does not know or count, by their positions", function ()
    local s = opened()
    s.answer["part.progress"] = function () return ack.encode { level = "none", unknown = { 2 }, stop = { 3, 1 } } end
    for i = 1, 3 do s.reports:progress(record(i)) end
    s:run(INTERVAL_MS + 10)
    assert.same({ unknown = { "w/0002" }, stop = { "w/0003", "w/0001" } }, s.ended)
  end)

  it("does not take the word of a leader that was only named by another: it goes back to where the dispatch came from", function ()
    local s, first = opened(), true
    s.answer["part.progress"] = function (_, address)
      if address == "m2:1" then return ack.encode { level = "none", unknown = { 1 } } end
      local named = first and "m2:1" or "m1:1"
      first = false
      return ack.encode { level = "none", leader = "x", leader_address = named }
    end
    for _ = 1, 3 do
      s.reports:progress(record(1))
      s:run(200)
    end
    local to = {}
    for i, call in ipairs(s:named "part.progress") do to[i] = call.address end
    assert.same({ "m1:1", "m2:1", "m1:1" }, to)
    assert.same({}, s.ended.unknown)
  end)

  it("takes an ack that names a position past its message as unreadable, and applies nothing of it", function ()
    local s = opened()
    s.answer["part.progress"] = function () return ack.encode { level = "reject", unknown = { 2 } } end
    s.reports:progress(record(1))
    s:run(INTERVAL_MS + 10)
    assert.equal(1, s.raised "progress.ack")
    assert.same({}, s.ended.unknown)
    assert.equal("none", s.reports:counts().level)
  end)

  it("has no task, timer or loop while nothing waits", function ()
    local s = opened()
    assert.same({ tasks = 0, sleepers = 0 }, { tasks = task.counts().tasks, sleepers = task.counts().sleepers })
    s.reports:progress(record(1))
    s.reports:result(result(2), nothing)
    s:run(1000)
    assert.same({ tasks = 0, sleepers = 0 }, { tasks = task.counts().tasks, sleepers = task.counts().sleepers })
    local fired = s.world.fired
    s:run(600000)
    assert.equal(fired, s.world.fired)
  end)
end)

describe("results", function ()
  it("are sent until accepted, at most SENDS_MAX at once to one leader, oldest first", function ()
    local s, order, done = opened(), {}, 0
    s.answer["part.result"] = function (body)
      order[#order + 1] = body.part
      return { accepted = true, stale = false }
    end
    for i = 1, 500 do s.reports:result(result(i), function () done = done + 1 end) end
    s:run(100)
    assert.equal(results.SENDS_MAX, s.most["m1:1"])
    assert.equal(500, done)
    for i, part in ipairs(order) do assert.equal(("w/%04d"):format(i), part) end
    assert.same({}, s.reports.jobs)
  end)

  it("are at most SENDING_MAX bytes at once", function ()
    local s, big = opened(), ("x"):rep(1 << 20)
    for i = 1, 30 do s.reports:result(result(i, { result = big }), nothing) end
    s:run(200)
    assert.equal(results.SENDING_MAX >> 20, s.most["m1:1"])
    assert.equal(0, s.reports:counts().results)
  end)

  it("wait for a leader that is silent with one trial at a time, and go on at once when it is heard of", function ()
    local s, silent, done = opened(), true, 0
    s.answer["part.result"] = function () if silent then return "silent" end return { accepted = true, stale = false } end
    for i = 1, 200 do s.reports:result(result(i), function () done = done + 1 end) end
    s:run(120000)
    local calls = #s:named "part.result"
    assert.is_true(calls >= results.SENDS_MAX + 3 and calls < results.SENDS_MAX + 20, calls .. " calls")
    assert.equal(0, done)
    silent = false
    s:run(6000) -- A trial that is under way ends.
    s.reports:heard "m1:1"
    s:run(200)
    assert.equal(200, done)
  end)

  it("that one leader refuses hold up no other, and come again after a while", function ()
    local s, done = opened(), {}
    s.answer["part.result"] = function (body)
      if body.part == "w/0001" and #s:named "part.result" < 20 then return nil, "the handler failed", "FAILED" end
      return { accepted = true, stale = false }
    end
    for i = 1, 30 do s.reports:result(result(i), function () done[#done + 1] = i end) end
    s:run(50)
    assert.equal(29, #done)
    s:run(5000)
    assert.equal(30, #done)
  end)

  it("whose try raised, before or after the answer, have one next try at a time, and the counts of the queue hold", function ()
    local s, broken, done, accepted = opened(), 6, 0, 0
    s.answer["part.result"] = function ()
      broken = broken - 1
      if broken >= 0 then error "the try failed" end
      return { accepted = true, stale = false }
    end
    s.reports:result(result(1), function () done = done + 1 end)
    s:run(60000)
    assert.same({ 7, 1, 1 }, { #s:named "part.result", done, s.most["m1:1"] })
    s.reports:result(result(2), function ()
      accepted = accepted + 1
      error "its owner failed"
    end)
    s:run(60000)
    assert.same({ 8, 1, 0 }, { #s:named "part.result", accepted, s.reports:counts().results })
    local queue = s.reports:leader_at("m1:1").queue
    assert.same({ 0, 0, 0 }, { queue.sending, queue.sending_bytes, task.counts().tasks })
  end)

  it("that can never arrive are lost attempts that say why", function ()
    local s = opened()
    s.answer["part.result"] = function (body)
      if #body.result > 10 then return nil, "larger than a message", "TOO_LARGE" end
      return { accepted = true, stale = false }
    end
    s.reports:result(result(1, { result = ("x"):rep(100) }), nothing)
    s:run(1000)
    local sent = s:named "part.result"
    assert.same({ 2, "lost" }, { #sent, sent[2].body.state })
    assert.matches("could not be handed over: larger", sent[2].body.reason)
  end)

  it("are dropped when the leader that dispatched the part says that they are stale, not when another does", function ()
    local s, stale = opened(), nil
    s.answer["part.result"] = function (_, address)
      if address == "m2:1" then return { accepted = false, stale = true } end
      return nil, "no", "FAILED"
    end
    s.reports:result(result(1), function (word) stale = word end)
    s:run(10)
    s.reports:redirect("j", "m2:1")
    s:run(3000)
    assert.is_nil(stale)
    assert.is_nil(s.reports.jobs.j.redirect)
    s.answer["part.result"] = function () return { accepted = false, stale = true } end
    s:run(60000)
    assert.is_true(stale)
  end)

  it("of a job whose leader is another now go there, those that wait for a silent one too", function ()
    local s, to = opened(), {}
    s.answer["part.result"] = function (body, address)
      if address == "m1:1" then return "silent" end
      to[#to + 1] = body.part
      return { accepted = true, stale = false }
    end
    for i = 1, 100 do s.reports:result(result(i), nothing) end
    s:run(100)
    s.reports:redirect("j", "m3:1")
    s:run(6000)
    assert.equal(100, #to)
    assert.equal(0, s.reports:counts().results)
  end)

  it("may be read by their owner when their turn comes", function ()
    local s, reads = opened(), 0
    s.reports:result(result(1, { result = function ()
      reads = reads + 1
      return "bytes"
    end }), nothing)
    s.reports:result(result(2, { result = function () return nil, "no such file", "ENOENT" end }), nothing)
    s:run(100)
    local sent = s:named "part.result"
    assert.same({ 1, "bytes" }, { reads, sent[1].body.result })
    assert.same({ "lost", true }, { sent[2].body.state, sent[2].body.reason:find("no such file", 1, true) ~= nil })
    assert.equal(1, s.raised "result.spill")
  end)
end)

describe("results that wait", function ()
  local FOLDER = "data/results-waiting"

  local function silent(s)
    s.answer["part.result"] = function () if s.heard then return { accepted = true, stale = false } end return "silent" end
  end

  it("stay in memory up to ENTRIES_MAX; one past it goes to disk, and from there to its leader", function ()
    local s, done = opened { folder = FOLDER }, 0
    silent(s)
    for i = 1, results.ENTRIES_MAX do s.reports:result(result(i), function () done = done + 1 end) end
    s:run(100)
    assert.equal(0, #s.world.pending)
    for i = 1, 5 do s.reports:result(result(results.ENTRIES_MAX + i), function () done = done + 1 end) end
    s.world:write_out()
    assert.same({ 5, 5 }, { s.world:stored(), s.reports:counts().spilled })
    assert.equal(results.ENTRIES_MAX, s.reports.results.held)
    s.heard = true
    s:run(120000)
    assert.equal(results.ENTRIES_MAX + 5, done)
    local sent = s:named "part.result"
    local last = sent[#sent].body
    assert.equal(msgpack.pack { n = results.ENTRIES_MAX + 5 }, last.result)
    assert.same({ 0, 0, 0 }, { s.world:stored(), s.reports:counts().spilled, s.reports.results.held_bytes })
  end)

  it("stay in memory up to MEMORY_MAX bytes", function ()
    local s, big = opened { folder = FOLDER }, ("x"):rep(1 << 20)
    silent(s)
    for i = 1, results.MEMORY_MAX >> 20 do s.reports:result(result(i, { result = big }), nothing) end
    assert.equal(0, #s.world.pending)
    s.reports:result(result(999, { result = "x" }), nothing)
    assert.equal(1, #s.world.pending)
  end)

  it("stay in memory when the disk is full, which is an incident", function ()
    local s, done = opened { folder = FOLDER }, 0
    silent(s)
    s.world.directories[FOLDER] = true
    for i = 1, results.ENTRIES_MAX + 3 do s.reports:result(result(i), function () done = done + 1 end) end
    s.world.disk_full = true
    s.world:write_out()
    assert.equal(3, s.raised "result.spill")
    s.heard = true
    s:run(120000)
    assert.equal(results.ENTRIES_MAX + 3, done)
  end)

  it("are found after a restart, known to their owner, and handed over once", function ()
    local s = opened { folder = FOLDER }
    silent(s)
    for i = 1, 3 do s.reports:result(result(i), nothing) end
    s.scope:spawn("spec.close", {}, function () s.reports:close(500) end)
    s:run(2000)
    assert.equal(3, s.world:stored())
    local found, done = {}, 0
    local again = opened { folder = FOLDER, world = s.world, restored = function (r)
      found[#found + 1] = r.part
      return function () done = done + 1 end
    end }
    assert.same({ "w/0001", "w/0002", "w/0003" }, found)
    assert.equal(0, again.reports.results.held)
    again:run(100)
    assert.equal(3, done)
    local sent = again:named "part.result"
    assert.same({ 3, "completed", 5, msgpack.pack { n = 1 } }, { #sent, sent[1].body.state, sent[1].body.fence, sent[1].body.result })
    assert.equal(0, again.world:stored())
  end)

  it("and are unreadable on disk are one incident each, and go; the others are handed over", function ()
    local s = opened { folder = FOLDER }
    silent(s)
    for i = 1, 4 do s.reports:result(result(i), nothing) end
    s.scope:spawn("spec.close", {}, function () s.reports:close(0) end)
    s:run(100)
    local files = s.world.files
    files[FOLDER .. "/r1"] = files[FOLDER .. "/r1"]:sub(1, -2)
    files[FOLDER .. "/r2"] = "x"
    files[FOLDER .. "/r3"] = files[FOLDER .. "/r3"]:gsub("completed", "Completed")
    files[FOLDER .. "/notes"] = "somebody's"
    local again = opened { folder = FOLDER, world = s.world }
    assert.equal(3, again.raised "result.spill")
    again:run(100)
    assert.equal(1, #again:named "part.result")
    assert.same({ [FOLDER .. "/notes"] = "somebody's" }, again.world.files)
  end)

  it("and were accepted while they were being written leave no file", function ()
    local s = opened { folder = FOLDER }
    for i = 1, results.ENTRIES_MAX + 1 do s.reports:result(result(i), nothing) end
    assert.equal(1, #s.world.pending)
    s:run(1000)
    assert.equal(0, s.reports:counts().results)
    s.world:write_out()
    assert.equal(0, s.world:stored())
  end)

  it("without a folder stay in memory, however many", function ()
    local s, done = opened(), 0
    for i = 1, results.ENTRIES_MAX + 10 do s.reports:result(result(i), function () done = done + 1 end) end
    s:run(1000)
    assert.equal(results.ENTRIES_MAX + 10, done)
  end)
end)

describe("results on a real disk", function ()
  it("are written, found by the next life, read, and gone when they were accepted", function ()
    local real, spill = require "spec.support.real", require "shoal.run.reports.spill"
    local folder = os.tmpname()
    os.remove(folder)
    local site, big = "worker.result.spill", ("\0\xff"):rep(500000)
    real.run(function (world)
      local one = spill.open(world, site, folder .. "/deeper/results-waiting")
      assert.same({}, one:found())
      local written = task.future "spec"
      assert.is_true(one:put(record(1, { state = "completed" }), big, function (file) written:settle(file) end))
      local file = assert(written:await(5000))
      local other = assert(one:put_now(record(2, { state = "failed", reason = "because" }), "small"))
      local again = spill.open(world, site, folder .. "/deeper/results-waiting")
      local found = again:found()
      assert.equal(2, #found)
      assert.same({ file, 1000000, "w/0001", 5, "completed" },
        { found[1].file, found[1].bytes, found[1].record.part, found[1].record.fence, found[1].record.state })
      assert.same({ other, "because" }, { found[2].file, found[2].record.reason })
      assert.is_true(again:read(file) == big)
      assert.matches("/r3$", again:put_now(record(3, { state = "failed" }), "x")) -- It never writes over what it found.
      for i = 1, 3 do again:remove({}, folder .. "/deeper/results-waiting/r" .. i) end
      assert.same({}, again:found())
      again:remove({}, file) -- Gone already: no incident.
      assert.equal(0, errors.count(site).raised)
      assert.is_nil((again:read(file)))
    end)
    for _, path in ipairs { "/deeper/results-waiting", "/deeper", "" } do assert(os.remove(folder .. path)) end
  end)
end)
