--- FAILURES 1.2, 1.3 with 2.2, and 1.4, each through the unmodified roles: the failure is injected, one incident reports it with its
--- ids, the loop goes on, and raised levels fall again.
local ack = require "shoal.wire.ack"
local messages = require "shoal.messages"
local simcluster = require "spec.support.simcluster"
local sorted = require "shoal.sorted"

local USERS = [[return { vu = function (vu) vu:sleep(100) end }]]

local function names(ids) return table.concat(sorted.keys(ids), " ") end

--- Three managers in one datacenter: a worker that cannot reach one is still alive to the others, and has others to ask.
local function t2(options)
  options = options or {}
  options.managers, options.workers = 3, options.workers or 1
  return simcluster.new(options)
end

--- A job with one part that runs for this long on the one worker.
local function long(c, ms)
  local id = assert(c:submit(c:job { load = { code = USERS, vus = 2, duration_ms = ms or 30000 } }))
  c:watch(id)
  c:run(1000)
  return id
end

--- Put code between a node's message and its handler; it has body, peer and `real`, and returns the answer.
local function tap(c, node, message, code)
  c:on(node, ([[
    local handlers, message = node.rpc.handlers, ...
    local real = handlers[message]
    node.spec_tap = { real = real, seen = {} }
    local tap = node.spec_tap
    handlers[message] = function (body, peer) tap.seen[#tap.seen + 1] = body %s end
  ]]):format(code), message)
end

local function untap(c, node, message)
  c:on(node, "node.rpc.handlers[...] = node.spec_tap.real", message)
end

local function ended(c, id, state)
  local final
  assert.truthy(c:until_true(function () final = c:final(id) return final end, 120000, 200), "the job did not end")
  assert.equal(state or "completed", final.state, final.reason)
  return final
end

describe("finding 1.2, a worker's progress:", function ()
  local IDS = "address attempt backpressure consecutive counts job manager part parts put_back status workflow"

  it("F45, F69: each failed send is one incident with its ids, and the newest record goes back", function ()
    local c <close> = t2()
    local id, w, m = long(c), c.workers[1], c.managers[1]
    tap(c, m, "part.progress", [[ if #tap.seen <= 3 then return nil, "not now", "OVERLOADED" end return real(body, peer) ]])
    c:run(3000)
    local told, counts = c:incidents(w, "worker.progress.send"), c:counts(w, "worker.progress.send")
    assert.equal(3, counts.raised)
    assert.equal(3, #told)
    for i, incident in ipairs(told) do
      assert.equal(IDS, names(incident.ids))
      assert.is_nil(incident.missing)
      assert.equal("warning", incident.level)
      local ids = incident.ids
      assert.same({ id, "load", "load/1", "m-a1", m.address, 1, i, "OVERLOADED", "none", true },
        { ids.job, ids.workflow, ids.part, ids.manager, ids.address, ids.attempt, ids.consecutive, ids.status, ids.backpressure,
          ids.put_back })
    end
    -- Refused records were sent again: a number is missing only if a newer one replaced it, and none comes twice after it was taken.
    local seqs = c:on(m, "local out = {} for i, b in ipairs(node.spec_tap.seen) do out[i] = b.parts[1].seq end return out")
    assert.is_true(#seqs > 8)
    assert.equal(seqs[1], seqs[2])
    for i = 2, #seqs do
      assert.is_true(seqs[i] > seqs[i - 1] or i <= 4 and seqs[i] == seqs[i - 1], "record " .. i)
    end
    assert.equal(0, c:on(w, "return state.worker.reports.leaders[...].failures", m.address))
    ended(c, id)
    c:rest()
  end)

  it("F45: a record that cannot reach a cut manager does not displace a newer one; a final result is never dropped", function ()
    local c <close> = t2()
    local id, w, m = long(c, 4000), c.workers[1], c.managers[1]
    c:cut(w, m)
    c:run(6000) -- The part ends meanwhile.
    local newer = 0
    for _, incident in ipairs(c:incidents(w, "worker.progress.send")) do
      assert.equal(IDS, names(incident.ids))
      if not incident.ids.put_back then newer = newer + 1 end
      if incident.ids.status == "TIMEOUT" then assert.is_false(incident.ids.put_back) end -- 2 s: a newer one is there.
    end
    assert.is_true(newer > 0)
    c:run(10000)
    assert.equal(1, c:on(w, "return state.worker.reports:counts().results"))
    assert.equal(0, c:on(w, "return state.worker.reports:counts().waiting")) -- The part is over.
    local kept = c:incidents(w, "worker.result.send")
    assert.is_true(#kept > 1)
    assert.equal("address attempt job part status workflow", names(kept[1].ids))
    assert.is_nil(c:final(id))
    c:heal(w, m)
    ended(c, id)
    c:rest()
  end)

  it("F45, F51: a final result goes on to who is said to lead, and back when that one knows nothing of the part", function ()
    local c <close> = t2()
    local id, w, m, third = long(c, 4000), c.workers[1], c.managers[1], c.managers[3]
    tap(c, third, "part.result", "return real(body, peer)")
    c:on(c.managers[2], [[ local address = ... node.rpc.handlers["lead.who"] = function () return { node = "m-a3", address = address } end ]],
      third.address)
    c:cut(w, m)
    assert.truthy(c:until_true(function () return c:on(third, "return #node.spec_tap.seen > 0") end, 30000))
    c:run(1000)
    assert.equal(1, c:on(w, "return state.worker.reports:counts().results"))
    c:heal(w, m)
    local final = ended(c, id)
    assert.equal(1, #final.result.attempts) -- The only result.
    c:rest { ms = 60000 } -- The answer to it may have been late, and then it is offered once more.
  end)

  it("F45, F61: a crashed manager: the sends fail aloud, the loop backs off to 2 s and comes back, and the job completes", function ()
    local c <close> = t2 { set = { retention_ms = 30000 } } -- The client needs a while to come back.
    local id, w, m = long(c, 25000), c.workers[1], c.managers[1]
    assert.equal(50, c:on(w, "return state.worker.reports:interval_ms()"))
    c:crash(m)
    c:run(12000)
    local told = c:incidents(w, "worker.progress.send")
    local codes = {}
    for _, incident in ipairs(told) do codes[incident.ids.status] = (codes[incident.ids.status] or 0) + 1 end
    assert.truthy(codes.DISCONNECTED or codes.ECONNREFUSED or codes.TIMEOUT or codes.ECONNRESET)
    local raised = c:counts(w, "worker.progress.send").raised
    assert.is_true(raised >= 4 and raised <= 20, "sends in 12 s: " .. raised) -- Backed off: not one every 50 ms.
    local interval = c:on(w, "return state.worker.reports:interval_ms()")
    assert.is_true(interval >= 1600 and interval <= 2400, "interval " .. interval)
    c:restart(m)
    assert.truthy(c:until_true(function () return c:on(w, "return state.worker.reports:interval_ms()") == 50 end, 15000))
    ended(c, id)
    c:rest()
  end)

  it("F45, F68: three failures in 30 s open that manager's circuit, and one success after 10 s closes it", function ()
    local c <close> = t2()
    local id, w, m = long(c), c.workers[1], c.managers[1]
    local circuit = function () return c:on(w, "return node.rpc:peer(...):info().circuit", m.address) end
    assert.equal("closed", circuit())
    c:cut(w, m)
    assert.truthy(c:until_true(function () return circuit() == "open" end, 12000))
    local failures = c:on(w, "return state.worker.reports.leaders[...].failures", m.address)
    assert.is_true(failures >= 3, failures .. " failures")
    c:run(3000)
    local last = c:incidents(w, "worker.progress.send")
    assert.equal("CIRCUIT", last[#last].ids.status)
    c:heal(w, m)
    assert.truthy(c:until_true(function () return circuit() == "closed" end, 15000))
    ended(c, id)
    c:rest()
  end)

  it("F45: two failures ask another manager who leads, at most once a second, and its answer is followed", function ()
    local c <close> = t2()
    local id, w, m, other, third = long(c, 60000), c.workers[1], c.managers[1], c.managers[2], c.managers[3]
    tap(c, other, "lead.who", "tap.at = tap.at or {} tap.at[#tap.at + 1] = node.world:now_ns() return real(body, peer)")
    tap(c, third, "part.progress", "return real(body, peer)")
    c:cut(w, m)
    assert.truthy(c:until_true(function () return c:on(other, "return #node.spec_tap.seen > 0") end, 10000))
    assert.is_true(c:on(w, "return state.worker.reports.leaders[...].failures", m.address) >= 2)
    c:run(8000)
    local at = c:on(other, "return node.spec_tap.at")
    assert.is_true(#at >= 2)
    for i = 2, #at do assert.is_true(at[i] - at[i - 1] >= 990000000, "asked again too soon") end
    assert.equal(id, c:on(other, "return node.spec_tap.seen[1].job"))
    -- Now one answers that the third leads: progress goes there.
    c:on(other, [[ local address = ... node.rpc.handlers["lead.who"] = function () return { node = "m-a3", address = address } end ]],
      third.address)
    assert.truthy(c:until_true(function () return c:on(third, "return #node.spec_tap.seen > 0") end, 10000))
    c:heal(w, m)
    c:run(3000)
    ended(c, id) -- The third leads nothing of it and ended the attempt; the first makes another.
    c:rest()
  end)

  it("F45, F69: a flush that raises is one incident, and the loop goes on after a backoff", function ()
    local c <close> = t2()
    local id, w = long(c), c.workers[1]
    local before = c:counts(w, "worker.progress.flush_loop").raised
    c:on(w, [[ local n = 0; state.worker.reports.flush = function () n = n + 1; error("boom " .. n) end ]])
    c:run(300) -- The loop begins with the next record, which comes every 200 ms.
    assert.is_true(c:counts(w, "worker.progress.flush_loop").raised > before)
    c:run(8000)
    local told = c:incidents(w, "worker.progress.flush_loop")
    assert.equal("buffered consecutive cycle next_delay_ms", names(told[1].ids))
    assert.is_nil(told[1].missing)
    assert.equal("error", told[1].level)
    local raised = c:counts(w, "worker.progress.flush_loop").raised - before
    assert.is_true(raised >= 6 and raised <= 14, raised .. " in 8 s") -- 50 ms doubling to 2 s
    for i, incident in ipairs(told) do
      assert.equal(i, incident.ids.consecutive)
      assert.is_true(incident.ids.next_delay_ms <= 2400)
    end
    assert.equal(1, c:on(w, "return state.worker.reports:counts().waiting")) -- the newest of the one part
    c:on(w, "state.worker.reports.flush = nil")
    assert.truthy(c:until_true(function () return c:on(w, "return state.worker.reports:counts().waiting") == 0 end, 4000))
    ended(c, id)
    c:rest()
  end)
end)

describe("findings 1.3 and 2.2, progress acks:", function ()
  local GARBAGE = { -- bytes, class
    { "", "empty" },
    { "\xc1", "not_a_map" },
    { "OK", "not_a_map" },
    { "ok ", "not_a_map" },
    { ack.encode({ level = "none" }):sub(1, -2), "truncated" },
    { "\x93\1\2\3", "not_a_map" },
    { (ack.encode({ level = "none" }):gsub("none", "loud")), "field" },
    { ack.encode({ level = "none" }) .. "\0", "trailing" },
    { ("x"):rep(5000), "too_large" },
  }

  --- The manager answers each progress with the spec's `node.spec_ack`.
  local function answering(c, m)
    c:on(m, [[
      local real = node.rpc.handlers["part.progress"]
      node.rpc.handlers["part.progress"] = nil
      assert(node.rpc:raw("part.progress", function (bytes, peer)
        node.spec_acked = (node.spec_acked or 0) + 1
        return node.spec_ack or real(require("shoal.messages").decode("part.progress", bytes), peer)
      end))
    ]])
  end
  local function answer(c, m, bytes) c:on(m, "node.spec_ack = ...", bytes) end
  local function level(c, w) return c:on(w, "return state.worker.reports:counts().level") end

  it("F46: unreadable ones are told at debug level with size, first byte and class, never the bytes, and change nothing", function ()
    local c <close> = t2()
    local id, w, m = long(c, 110000), c.workers[1], c.managers[1]
    answering(c, m)
    answer(c, m, ack.encode { level = "throttle" })
    c:run(500)
    assert.equal("throttle", level(c, w))
    for _, case in ipairs(GARBAGE) do
      local bytes, class = case[1], case[2]
      answer(c, m, ack.encode { level = "throttle" }) -- Good ones: no row of ten, no old level, and no rate limit.
      c:run(10500)
      local before = c:counts(w, "worker.progress.ack").raised
      answer(c, m, bytes)
      assert.truthy(c:until_true(function () return c:counts(w, "worker.progress.ack").raised > before end, 2000, 5))
      local told = c:incidents(w, "worker.progress.ack")
      local last = told[#told]
      assert.equal("class consecutive first_byte job manager payload_bytes workflow", names(last.ids))
      assert.same({ "debug", id, "load", "m-a1", #bytes, bytes:byte(1) or -1, class },
        { last.level, last.ids.job, last.ids.workflow, last.ids.manager, last.ids.payload_bytes, last.ids.first_byte, last.ids.class })
      assert.is_nil(last.message:find(#bytes > 3 and bytes or "\0", 1, true))
      assert.equal("throttle", level(c, w), class)
      assert.is_nil(c:on(w, "local j = state.worker.reports.jobs[...] return j and j.redirect", id))
    end
    answer(c, m, nil)
    ended(c, id)
    c:rest()
  end)

  it("F46: the legacy two bytes are an ack", function ()
    local c <close> = t2()
    local id, w, m = long(c, 5000), c.workers[1], c.managers[1]
    answering(c, m)
    answer(c, m, "ok")
    c:run(2000)
    assert.is_true(c:on(m, "return node.spec_acked") > 5)
    assert.equal(0, c:counts(w, "worker.progress.ack").raised)
    assert.equal(0, c:counts(w, "worker.progress.send").raised)
    answer(c, m, nil)
    ended(c, id)
  end)

  it("F46, F65: a good ack raises the level and lowers it, none too; the leader it names is applied; an old level expires", function ()
    local c <close> = t2()
    local id, w, m = long(c, 60000), c.workers[1], c.managers[1]
    answering(c, m)
    for _, step in ipairs { { "reject", 1050 }, { "batch", 550 }, { "throttle", 150 }, { "none", 50 } } do
      answer(c, m, ack.encode { level = step[1], leader = "m-a1", leader_address = m.address })
      assert.truthy(c:until_true(function () return level(c, w) == step[1] end, 4000), step[1])
      assert.equal(step[2], c:on(w, "return state.worker.reports:interval_ms()"))
    end
    answer(c, m, ack.encode { level = "reject", leader = "m-a3", leader_address = c.managers[3].address })
    assert.truthy(c:until_true(function () return level(c, w) == "reject" end, 4000))
    assert.equal(c.managers[3].address, c:on(w, "return state.worker.reports.jobs[...].redirect", id))
    -- Nothing but garbage from here on: the level is not refreshed.
    c:on(w, "state.worker.reports.jobs[...].redirect = nil", id)
    answer(c, m, "\xc1")
    local risen = c:on(w, "return state.worker.reports.level_ms, node.world:now_ns() // 1000000")
    c:run(risen + 9900 - c:on(w, "return node.world:now_ns() // 1000000"))
    c:on(w, "return state.worker.reports:interval_ms()")
    assert.equal("reject", level(c, w))
    c:run(1500)
    assert.equal("none", level(c, w))
    answer(c, m, nil)
    ended(c, id)
    c:rest()
  end)

  it("F46: the tenth unreadable one in a row is one warning, and a good one ends the row", function ()
    local c <close> = t2()
    local id, w, m = long(c, 60000), c.workers[1], c.managers[1]
    local function warnings()
      local n = 0
      for _, i in ipairs(c:incidents(w, "worker.progress.ack")) do
        if i.level == "warning" then
          n = n + 1
          assert.equal(10, i.ids.consecutive)
        else
          assert.equal("debug", i.level)
        end
      end
      return n
    end
    local raised = function () return c:counts(w, "worker.progress.ack").raised end
    answering(c, m)
    answer(c, m, "\xc1")
    assert.truthy(c:until_true(function () return raised() == 9 end, 5000, 5))
    assert.equal(0, warnings())
    assert.truthy(c:until_true(function () return raised() == 10 end, 5000, 5))
    assert.equal(1, warnings())
    assert.truthy(c:until_true(function () return raised() >= 25 end, 9000, 5))
    assert.equal(1, warnings())
    local _, in_log = c.s:log():gsub('"level":"warning"[^\n]*worker%.progress%.ack', "")
    assert.equal(1, in_log)
    answer(c, m, "ok")
    c:run(600)
    answer(c, m, "\xc1")
    local before = raised()
    assert.truthy(c:until_true(function () return raised() == before + 10 end, 5000, 5))
    assert.equal(2, warnings())
    answer(c, m, nil)
    ended(c, id)
    c:rest()
  end)
end)

describe("finding 1.4, the client's pushes:", function ()
  local SITES = { ["job.status"] = "client.push.job_status", ["job.stats"] = "client.push.stats", ["job.result"] = "client.push.result" }
  local IDS = "handler job payload_bytes sender sequence stage workflow"

  --- Push bytes from the leader over the client's own connection; returns the answer, and how many incidents the client had made
  --- by the time it came.
  local function push(c, leader, message, bytes)
    return c:on(leader, [[
      local message, bytes = ...
      local messages, task = require "shoal.messages", require "shoal.task"
      local peer
      for core, known in next, node.rpc.peers do
        local info = core:info()
        if info and info.role == "client" then peer = known end
      end
      local m = messages.get(message)
      local answer = task.future("spec push")
      assert(peer.core:call(m.id, m.lane, bytes, 2000, function (reply, err, code) answer:settle(reply, err, code) end))
      return answer:await(3000)
    ]], message, bytes)
  end

  for message, site in sorted(SITES) do
    for _, wrong in ipairs {
      { "unreadable bytes", function () return "\xc1\xff garbage" end, "?", "?", "?" },
      { "a field of the wrong type", function (id)
        return (messages.encode(message, { job = id, seq = 7, body = { workflow = "load" } }):gsub("\xa3seq\x07", "\xa3seq\xa17"))
      end, true, "load", "?" },
      { "a body that is no map", function (id)
        return (messages.encode(message, { job = id, seq = 7, body = {} }):gsub("\xa4body\x80", "\xa4body\x05"))
      end, true, "?", 7 },
    } do
      local title = "F48, F51, F69: %s: %s is one incident before the answer `error`, and the next push is handled"
      it(title:format(message, wrong[1]), function ()
        local c <close> = simcluster.new {}
        local m = c.managers[1]
        local id = long(c, 3000)
        local bytes = wrong[2](id)
        local before = c:counts(c.client, site).raised
        -- When the answer is sent, the incident exists already: the client's send function reads the count.
        c:on(c.client, [[
          local site = ...
          local net = node.rpc.net
          local reply = net.reply
          node.rpc.net = setmetatable({}, { __index = function (_, key)
            if key == "reply" then
              return function (_, request, bytes)
                if bytes == "error" then
                  for _, n in ipairs(require("shoal.errors").counts()) do if n.site == site then node.spec_at_reply = n.raised end end
                end
                return reply(net, request, bytes)
              end
            end
            local value = net[key]
            return type(value) == "function" and function (_, ...) return value(net, ...) end or value
          end })
        ]], site)
        assert.equal("error", (push(c, m, message, bytes)))
        assert.equal(before + 1, c:on(c.client, "return node.spec_at_reply"))
        assert.equal(before + 1, c:counts(c.client, site).raised)
        local told = c:incidents(c.client, site)
        local ids = told[#told].ids
        assert.equal(IDS, names(ids))
        assert.is_nil(told[#told].missing)
        assert.same({ message, "m-a1", #bytes, wrong[3] == true and id or "?", wrong[4], wrong[5], "parse" },
          { ids.handler, ids.sender, ids.payload_bytes, ids.job, ids.workflow, ids.sequence, ids.stage })
        ended(c, id)
        c:rest()
      end)
    end
  end

  it("F48, F51, F69: a callback that raises is one incident; the push is answered ok, its state taken, the next one handled", function ()
    local c <close> = simcluster.new {}
    local m = c.managers[1]
    local id = assert(c:submit(c:job { load = { code = USERS, vus = 2, duration_ms = 1500 } }))
    c:on(c.client, [[
      local id = ...
      node.spec_calls = { status = 0, stats = 0, result = 0 }
      local function raising(kind)
        return function () node.spec_calls[kind] = node.spec_calls[kind] + 1 error("the user's own " .. kind) end
      end
      node.scope:spawn("spec.follow", {}, function ()
        node.spec_final = state.client:follow(id, { status = raising "status", stats = raising "stats", result = raising "result" })
      end)
    ]], id)
    assert.truthy(c:until_true(function () return c:on(c.client, "return node.spec_final") end, 20000))
    local final, calls = c:on(c.client, "return node.spec_final, node.spec_calls")
    assert.equal("completed", final.state)
    assert.equal(id, final.result.job)
    for kind, count in sorted(calls) do
      assert.is_true(count > 0)
      local site = "client.callback." .. kind
      assert.equal(count, c:counts(c.client, site).raised)
      local told = c:incidents(c.client, site)
      assert.equal(IDS, names(told[1].ids))
      assert.same({ id, "callback", "m-a1" }, { told[1].ids.job, told[1].ids.stage, told[1].ids.sender })
      assert.is_true(math.type(told[1].ids.sequence) == "integer")
      assert.truthy(told[1].message:find("the user's own " .. kind, 1, true))
    end
    for _, site in sorted(SITES) do assert.equal(0, c:counts(c.client, site).raised) end
    assert.equal(0, c:counts(m, "lead.push").raised) -- Every push was answered ok.
    c:rest()
  end)

  it("F51: who waits for the end is woken before the user's code of the last event is through", function ()
    local c <close> = simcluster.new {}
    local id = assert(c:submit(c:job { one = { work = "one 100" } }))
    c:on(c.client, [[
      local id = ...
      local task = require "shoal.task"
      node.scope:spawn("spec.follow", {}, function ()
        local final = state.client:follow(id, { status = function (body)
          if body.workflow or body.state ~= "completed" then return end
          node.spec_in_callback = task.now_ms()
          task.sleep(5000)
          node.spec_after_callback = task.now_ms()
          error("and then it fails")
        end })
        node.spec_woken = task.now_ms()
        node.spec_final = final
      end)
    ]], id)
    assert.truthy(c:until_true(function () return c:on(c.client, "return node.spec_woken") end, 20000))
    local began, woken, after = c:on(c.client, "return node.spec_in_callback, node.spec_woken, node.spec_after_callback")
    assert.equal(began, woken)
    assert.is_nil(after)
    c:run(6000)
    assert.equal(1, c:counts(c.client, "client.callback.status").raised)
    c:rest()
  end)
end)

describe("the errors policy:", function ()
  it("L3, F69: editing a level on a node's disk shows at the next incident; the count goes on", function ()
    local c <close> = t2()
    local id, w, m = long(c, 30000), c.workers[1], c.managers[1]
    local function last()
      local told = c:incidents(w, "worker.progress.send")
      return told[#told], c:counts(w, "worker.progress.send").raised
    end
    tap(c, m, "part.progress", [[ if tap.refuse then tap.refuse = nil return nil, "no", "OVERLOADED" end return real(body, peer) ]])
    c:on(m, "node.spec_tap.refuse = true")
    c:run(500)
    local incident, raised = last()
    assert.same({ "warning", 1 }, { incident.level, raised })
    local path = "/shoal/scripts/policies/errors.lua"
    local text = assert(c.s:read(w, path))
    local edited = text:gsub('%["worker%.progress%.ack"%]', '["worker.progress.send"] = { level = "critical" },\n    %0', 1)
    assert.is_true(edited ~= text)
    assert(c.s:write(w, path, edited))
    c:on(m, "node.spec_tap.refuse = true")
    c:run(500)
    incident, raised = last()
    assert.same({ "critical", 2 }, { incident.level, raised })
    assert(c.s:write(w, path, "return { sites = ")) -- A mistake is reported, and the last good one stays.
    c:on(m, "node.spec_tap.refuse = true")
    c:run(500)
    incident, raised = last()
    assert.same({ "critical", 3 }, { incident.level, raised })
    assert.equal(1, c:counts(w, "policy.load").raised)
    assert(c.s:write(w, path, text))
    c:on(m, "node.spec_tap.refuse = true")
    c:run(500)
    incident, raised = last()
    assert.same({ "warning", 4 }, { incident.level, raised })
    untap(c, m, "part.progress")
    ended(c, id)
    c:rest()
  end)
end)
