--- worker: parts as objects, with children that the spec plays, a fake of the transport and virtual time.
local ack = require "shoal.wire.ack"
local check = require "shoal.job.check"
local errors = require "shoal.base.errors"
local fake_world = require "spec.support.fake_world"
local incidents = require "shoal.run.incidents"
local job = require "shoal.job.spec"
local log = require "shoal.base.log"
local messages = require "shoal.wire.messages"
local runner = require "shoal.run.runner"
local stats = require "shoal.job.stats"
local task = require "shoal.base.task"
local worker = require "shoal.run.worker"

local real_start = runner.start
local s

local function spec_of(cores)
  return { name = "x", workflows = { one = { command = { "true" }, parts = 9, cores = cores } } }
end

local function dispatch(part, fence, fields)
  local checked = assert(check.job(spec_of(fields and fields.cores or 1), {}))
  local body = {
    job = "j", workflow = "one", part = part, attempt = 1, fence = fence, leader = "m1:1", leader_name = "m1", timeout_ms = 0,
    share = job.pack { parts = 1 }, payload = job.payload(checked, "one"),
  }
  for k, v in pairs(fields or {}) do body[k] = v end
  return body
end

local function open(world)
  s = { world = world or fake_world.new { seed = 3 }, children = {}, calls = {}, silent = false }
  function s.world.list() return nil, "none", "ENOENT" end
  task.reset()
  errors.reset()
  log.open(nil, function () end)
  task.start(s.world)
  errors.start(s.world, "w1")
  local node = { name = "w1", world = s.world, scope = task.scope "spec", config = { cores = 4, fence_ms = 1000, data = "data" } }
  node.rpc = { peer = function ()
    return { call = function (_, name, body, o)
      assert(messages.encode(name, body))
      s.calls[#s.calls + 1] = { name = name, body = body }
      task.sleep(s.silent and o.timeout_ms or 1)
      if s.silent then return nil, "no answer", "TIMEOUT" end
      if name == "part.progress" then return s.ack or ack.encode { level = "none" } end
      return name == "part.result" and { accepted = true, stale = false } or { node = "", address = "" }
    end }
  end }
  runner.start = function (_, _, given, on_progress, on_result)
    if s.refuse then return nil, "no process today", "EAGAIN" end
    local child = { given = given, progress = on_progress, result = on_result, cancels = {} }
    child.cancel = function (_, reason, deadline_ms) child.cancels[#child.cancels + 1] = { reason, deadline_ms } end
    s.children[#s.children + 1] = child
    return child
  end
  s.worker = worker.open(node, { flush_ms = 50, others = function () return {} end })
  s.node = node
end

local function verdict(fields)
  local out = { state = "completed", stats = { counts = { requests = 3 } }, summary = { requests = 3 }, incidents = {}, log = {} }
  for k, v in pairs(fields or {}) do out[k] = v end
  return out
end

local function results()
  local out = {}
  for _, call in ipairs(s.calls) do if call.name == "part.result" then out[#out + 1] = call.body end end
  return out
end

before_each(function () open() end)
after_each(function ()
  runner.start = real_start
  task.reset()
  errors.reset()
  log.reset()
end)

describe("a worker's part", function ()
  it("holds its cores until its child is gone, and they are the sum over the parts", function ()
    assert(s.worker:dispatch(dispatch("one/1", 5, { cores = 3 })))
    assert.equal(3, s.worker:claimed())
    local none, _, code = s.worker:dispatch(dispatch("one/2", 5, { cores = 2 }))
    assert.same({ nil, "FULL" }, { none, code })
    assert(s.worker:dispatch(dispatch("one/3", 5)))
    assert.equal(4, s.worker:claimed())
    s.silent = true
    s.children[1].result(verdict())
    assert.equal(1, s.worker:claimed())
    assert.equal("reporting", s.worker.runs["j one/1"].state)
    s.worker:cancel { job = "j", part = "one/3", fence = 5, reason = "x", deadline_ms = 100 }
    assert.equal(1, s.worker:claimed())
    s.children[2].result(verdict { state = "cancelled" })
    assert.equal(0, s.worker:claimed())
    assert.equal(0, errors.count("machine.refused").raised)
  end)

  it("leaves nothing when its start is refused or raises", function ()
    s.refuse = true
    local none, _, code = s.worker:dispatch(dispatch("one/1", 5))
    assert.same({ nil, "EAGAIN" }, { none, code })
    runner.start = function () error "no process today" end
    assert.has_error(function () s.worker:dispatch(dispatch("one/1", 5)) end)
    assert.same({ 0, {}, {} }, { s.worker:claimed(), s.worker.runs, s.worker.fences })
  end)

  it("answers the same dispatch the same, and refuses a fence that is not above the greatest", function ()
    assert.same({ state = "accepted" }, s.worker:dispatch(dispatch("one/1", 5)))
    assert.same({ state = "accepted" }, s.worker:dispatch(dispatch("one/1", 5)))
    assert.equal(1, #s.children)
    local _, _, code = s.worker:dispatch(dispatch("one/1", 4))
    assert.equal("STALE", code)
    _, _, code = s.worker:dispatch(dispatch("one/1", 6)) -- A newer attempt waits for the older to end.
    assert.equal("OVERLOADED", code)
    assert.equal(1, #s.children[1].cancels)
    s.children[1].result(verdict { state = "cancelled" })
    s.world:run(100)
    _, _, code = s.worker:dispatch(dispatch("one/1", 5))
    assert.equal("STALE", code)
    assert.same({ state = "accepted" }, s.worker:dispatch(dispatch("one/1", 6)))
  end)

  it("is remembered by its fence for fence_ms, and then by no task", function ()
    assert(s.worker:dispatch(dispatch("one/1", 5)))
    s.children[1].result(verdict())
    s.world:run(500)
    assert.equal(5, s.worker.fences["j one/1"])
    s.world:run(1000)
    assert.same({ {}, {}, 0 }, { s.worker.fences, s.worker.ended, task.counts().tasks })
  end)

  it("is remembered among FENCES_MAX, and the oldest goes for one past it", function ()
    s.node.config.fence_ms = 3600000
    for i = 1, worker.FENCES_MAX + 1 do
      assert(s.worker:dispatch(dispatch("one/" .. i, 5)))
      s.children[i].result(verdict())
      s.world:run(10)
      if i == worker.FENCES_MAX then assert.equal(5, s.worker.fences["j one/1"]) end
    end
    assert.is_nil(s.worker.fences["j one/1"])
    assert.same({ 5, worker.FENCES_MAX }, { s.worker.fences["j one/2"], #s.worker.ended })
  end)

  it("takes a second cancel, which may bring the kill nearer, and reports until it ended", function ()
    assert(s.worker:dispatch(dispatch("one/1", 5)))
    local body = { job = "j", part = "one/1", fence = 5, reason = "x", deadline_ms = 5000 }
    assert.same({ state = "cancelling" }, s.worker:cancel(body))
    body.deadline_ms = 10
    assert.same({ state = "cancelling" }, s.worker:cancel(body))
    assert.same({ { "x", 5000 }, { "x", 10 } }, s.children[1].cancels)
    s.children[1].progress { requests = 1 }
    s.world:run(100)
    assert.equal("part.progress", s.calls[1].name)
    body.fence = 4
    assert.same({ state = "unknown" }, s.worker:cancel(body))
  end)

  it("keeps nothing of its dispatch's payload", function ()
    assert(s.worker:dispatch(dispatch("one/1", 5)))
    assert.is_nil(s.worker.runs["j one/1"].body.payload)
  end)

  it("that its leader does not know or count any more is ended", function ()
    assert(s.worker:dispatch(dispatch("one/1", 5)))
    assert(s.worker:dispatch(dispatch("one/2", 5)))
    s.ack = ack.encode { level = "none", unknown = { 1 }, stop = { 2 } }
    s.children[1].progress { requests = 1 }
    s.children[2].progress { requests = 1 }
    s.world:run(100)
    assert.same({ { "its leader does not know it", 5000 } }, s.children[1].cancels)
    assert.same({ { "its leader does not count it any more", 5000 } }, s.children[2].cancels)
  end)
end)

describe("a worker's result", function ()
  local function sent(given)
    assert(s.worker:dispatch(dispatch("one/1", 5)))
    s.children[1].result(given)
    s.world:run(100)
    return results()[1], assert(stats.readable(results()[1].result))
  end

  it("of a child that was gone before its result is a lost attempt; of one that we cancelled it is not", function ()
    local body = sent(verdict { state = "failed", reason = "killed by signal 9", lost = true })
    assert.same({ "lost", "killed by signal 9" }, { body.state, body.reason })
    open()
    assert.equal("cancelled", (sent(verdict { state = "cancelled", reason = "x", lost = true })).state)
    open()
    assert.equal("failed", (sent(verdict { state = "failed", reason = "exit 1" })).state)
  end)

  it("is at most PART_MAX bytes and readable, whatever its child says", function ()
    local commands, summary = {}, {}
    for i = 1, 2000 do commands[i] = { run = "p#" .. i, head = ("x"):rep(2000) } end
    for i = 1, 200 do summary[("n%03d"):format(i)] = i end
    local body, inner = sent(verdict {
      stats = { commands = commands }, summary = summary,
      incidents = { 5, false, { id = {} }, { id = 7, site = "exec.vu", message = {}, level = 3, node = "n", where = 5, count = "x" } },
    })
    assert.is_true(#body.result <= stats.PART_MAX)
    assert.is_true(inner.stats.cut.output_bytes > 0)
    assert.same({ { id = "7", node = "n", site = "exec.vu", level = "3", message = "?", where = "5" } }, inner.incidents)
    local n = 0
    for _ in pairs(body.stats) do n = n + 1 end
    assert.equal(32, n)
  end)

  it("has incidents of at most TEXT_MAX bytes of text each", function ()
    local function with(n) return { id = "c#" .. n, site = "exec.vu", message = ("m"):rep(n), where = ("w"):rep(n) } end
    local _, inner = sent(verdict { incidents = { with(incidents.TEXT_MAX), with(incidents.TEXT_MAX + 1) } })
    for _, field in ipairs { "message", "where" } do
      local letter = field:sub(1, 1)
      assert.equal(letter:rep(incidents.TEXT_MAX), inner.incidents[1][field])
      assert.equal(letter:rep(incidents.TEXT_MAX - 3) .. "...", inner.incidents[2][field])
    end
  end)

  it("brings this node's incidents of its part, and its child's", function ()
    errors.report("exec.child", { job = "j", workflow = "one", part = "one/1", attempt = 1, pid = 1 }, "first")
    errors.report("exec.child", { job = "j", workflow = "one", part = "one/2", attempt = 1, pid = 1 }, "another part's")
    local _, inner = sent(verdict { incidents = { { id = "c#1", site = "exec.vu", message = "second", node = "c", level = "warning" } } })
    assert.same({ "first", "second" }, { inner.incidents[1].message, inner.incidents[2].message })
    assert.equal(2, #inner.incidents)
  end)
end)
