--- What clients see of a job: numbered events, kept to a limit, pushed one message at a time.
local errors = require "shoal.errors"
local fake_world = require "spec.support.fake_world"
local feed = require "shoal.job.feed"
local intake = require "shoal.job.intake"
local log = require "shoal.log"
local task = require "shoal.task"

local FENCE = 7
local BASE = FENCE << 20

describe("feed", function ()
  local world, scope

  before_each(function ()
    errors.reset()
    log.open(nil, function () end)
    task.reset()
    world = fake_world.new()
    errors.start(world, "m1")
    task.start(world)
    scope = task.scope "spec"
  end)
  after_each(function ()
    scope:close()
    task.stop()
    assert.is_true(errors.balance())
  end)

  --- A client: `answer(body)` gives its reply, err, code.
  local function client(answer)
    local peer = { got = {} }
    function peer.name() return "c1" end
    function peer.call(_, name, body)
      peer.got[#peer.got + 1] = { name = name, body = body, at_ms = task.now_ms() }
      return answer(body)
    end
    return peer
  end
  local function ok() return "ok" end
  --- The numbers in each message that came, without the base.
  local function numbers(peer)
    local out = {}
    for i, m in ipairs(peer.got) do
      local seqs = {}
      for j, event in ipairs(m.body.events or { m.body }) do seqs[j] = event.seq - BASE end
      out[i] = seqs
    end
    return out
  end
  local function statuses(f, count)
    for i = 1, count do f:push("status", { state = "running", at_ms = i }) end
  end

  it("numbers of a leadership begin at its fence, and its first events miss nothing", function ()
    local f = feed.new("j", scope, FENCE)
    statuses(f, 2)
    local list, truncated = f:since(1, 10)
    assert.same({ BASE + 1, BASE + 2, nil }, { list[1].seq, list[2].seq, truncated })
    local again = feed.new("j", scope, FENCE, true) -- The events of the leadership before are gone.
    statuses(again, 1)
    assert.same({ BASE + 1, nil }, { select(2, again:since(1, 10)), (select(2, again:since(BASE + 1, 10))) })
  end)

  it("keeps its last 512 events, and says where they begin to who asks for older ones", function ()
    local f = feed.new("j", scope, FENCE)
    statuses(f, 512)
    local list, truncated = f:since(BASE + 1, 1000)
    assert.same({ 512, nil }, { #list, truncated })
    statuses(f, 1)
    list, truncated = f:since(BASE + 1, 1000)
    assert.same({ 512, BASE + 2, BASE + 2 }, { #list, truncated, list[1].seq })
    assert.is_nil((select(2, f:since(BASE + 2, 1000))))
    local peer = client(ok)
    f:watch(peer, BASE + 1)
    world:turn()
    assert.equal(BASE + 2, peer.got[1].body.truncated_from)
    assert.is_nil(peer.got[2].body.truncated_from)
  end)

  it("continues behind this number when it is told to", function ()
    local f = feed.new("j", scope, FENCE, true)
    f:go_on(BASE + 500)
    statuses(f, 1)
    assert.same({ BASE + 501, BASE + 501 }, { f:since(BASE + 501, 9)[1].seq, (select(2, f:since(BASE + 3, 9))) })
  end)

  it("keeps the newest few events with numbers whole, and the place of those before", function ()
    local f = feed.new("j", scope, FENCE)
    for i = 1, 6 do f:push("stats", { at_ms = i, parts = { { part = "w/1" } } }) end
    local thinned = {}
    for i, event in ipairs(f:since(BASE + 1, 10)) do thinned[i] = event.body.thinned or #event.body.parts end
    assert.same({ true, true, 1, 1, 1, 1 }, thinned)
  end)

  it("small events that wait travel together, 16 at most; large ones alone", function ()
    local f = feed.new("j", scope, FENCE)
    statuses(f, 17)
    f:push("result", { workflow = "" })
    f:push("result", { workflow = "" }, true)
    statuses(f, 1)
    f:push("stats", { at_ms = 1, parts = {} })
    local peer = client(ok)
    f:watch(peer, BASE + 1)
    world:turn()
    assert.same({ { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 }, { 17 }, { 18 }, { 19, 20 }, { 21 } }, numbers(peer))
    assert.same({ "job.push", "job.status", "job.result", "job.push", "job.stats" },
      { peer.got[1].name, peer.got[2].name, peer.got[3].name, peer.got[4].name, peer.got[5].name })
  end)

  it("pushes one message at a time: the next when that one is answered", function ()
    local f, answered = feed.new("j", scope, FENCE), task.channel(9)
    local peer = client(function () return answered:pop() end)
    f:watch(peer, 1)
    statuses(f, 1)
    world:turn()
    statuses(f, 1)
    world:turn()
    assert.same({ { 1 } }, numbers(peer))
    answered:push "ok"
    world:turn()
    assert.same({ { 1 }, { 2 } }, numbers(peer))
  end)

  it("does not push again what a client read and refuses", function ()
    local f = feed.new("j", scope, FENCE)
    local peer = client(function (body) return body.seq == BASE + 1 and "error" or "ok" end)
    f:watch(peer, 1)
    statuses(f, 1)
    world:turn()
    statuses(f, 1)
    world:run(60000)
    assert.same({ { 1 }, { 2 } }, numbers(peer))
    assert.equal("lead.push", errors.incidents()[1].site)
  end)

  it("lets a watcher go that never answers, after five tries, each an incident", function ()
    local f = feed.new("j", scope, FENCE)
    local peer = client(function () return nil, "no answer", "TIMEOUT" end)
    f:watch(peer, 1)
    statuses(f, 1)
    world:run(100000)
    assert.equal(5, #peer.got)
    assert.same({}, f.watchers)
    for _, c in ipairs(errors.counts()) do
      if c.site == "lead.push" then assert.equal(5, c.raised) end
    end
  end)

  it("a second watch of one peer replaces the first, and one that left hears no more", function ()
    local f = feed.new("j", scope, FENCE)
    local peer = client(ok)
    f:watch(peer, 1)
    f:watch(peer, 1)
    statuses(f, 1)
    world:turn()
    assert.same({ { 1 } }, numbers(peer))
    assert.same({ 1, 1 }, { #f.watchers, f.watching.count })
    assert.is_true(f:leave(peer))
    assert.equal(0, f.watching.count)
    assert.is_false(f:leave(peer))
    statuses(f, 1)
    f:close()
    world:turn()
    assert.same({ { 1 } }, numbers(peer))
    assert.equal(0, scope:count())
  end)

  it("ends its watchers when they have had the last event", function ()
    local f = feed.new("j", scope, FENCE)
    local peer = client(ok)
    f:watch(peer, 1)
    statuses(f, 1)
    f:close()
    world:turn()
    assert.same({ { 1 } }, numbers(peer))
    assert.same({ 0, 0 }, { #f.watchers, scope:count() })
  end)

  it("counts the watchers of all feeds together, and none of a feed that was dropped", function ()
    local watching = { count = 0 }
    local one, two = feed.new("j", scope, FENCE, false, watching), feed.new("k", task.scope("other", scope), FENCE, false, watching)
    one:watch(client(ok), 1)
    two:watch(client(ok), 1)
    two:watch(client(ok), 1)
    assert.equal(3, watching.count)
    two:drop()
    assert.equal(1, watching.count)
  end)

  it("gives at most 100 events by poll, whatever a client asks for", function ()
    local asked
    local state = { lead = { events = function (_, key, from, max) asked = { key, from, max } return {} end } }
    local answers = intake.answers {}
    assert(answers["job.events"](state, { job = "j", from_seq = 3, max = 100000 }))
    assert.same({ "j", 3, 100 }, asked)
    assert(answers["job.events"](state, { job = "j", from_seq = 3, max = 7 }))
    assert.same({ "j", 3, 7 }, asked)
  end)

  it("a role that answers what is answered already is a mistake", function ()
    assert.error_matches(function () intake.answers { ["job.get"] = function () end } end, "job.get is answered already")
    assert.is_function(intake.answers({ ["dc.register"] = function () end })["dc.register"])
  end)
end)
