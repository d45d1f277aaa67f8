--- Four changes that operators want, each by a file of theirs or a line: prefer workers with a label, retry a failing command twice,
--- tell a file and a webhook when a job fails, restrict a worker to certain jobs. And a worker that is emptied.
local cjson = require "cjson"
local cluster = require "spec.support.cluster"
local uv = require "luv"

describe("an operator's changes:", function ()
  local c, up, hook, heard

  setup(function ()
    c, heard = cluster.new(), {}
    hook = uv.new_tcp() -- Answers 503 to the first request, and 200 to the others.
    hook:bind("127.0.0.1", 0)
    hook:listen(16, function ()
      local peer, text = uv.new_tcp(), ""
      hook:accept(peer)
      peer:read_start(function (_, bytes)
        if not bytes then return peer:close() end
        text = text .. bytes
        local head, body = text:match "^(.-\r\n\r\n)(.*)$"
        if not head or #body < tonumber(head:lower():match "content%-length: (%d+)") then return end
        heard[#heard + 1], text = { id = head:match "X%-Event: ([^\r]+)", body = body }, ""
        peer:write(("HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n"):format(#heard == 1 and "503 Later" or "200 OK"))
      end)
    end)
    local gate = cluster.read "examples/roles/telling_gate.lua":gsub("127.0.0.1:8080", "127.0.0.1:" .. hook:getsockname().port)
      :gsub('"failed%-jobs.log"', ("%q"):format(c.dir .. "/failed-jobs.log"))
    up = c:up(([[ return {
      gates = { { script = %q } },
      datacenters = { a = { managers = { {} }, workers = {
        { name = "plain", cores = 2 }, { name = "gpu", cores = 2, labels = { gpu = "a100" } }, { name = "shop", cores = 2, script = %q },
      } } } } ]]):format(c:file("gate.lua", gate), cluster.root .. "/examples/roles/shop_worker.lua"))
  end)
  teardown(function ()
    hook:close()
    c:close()
  end)

  local function shoal(...)
    local argv = { ... }
    argv[#argv + 1], argv[#argv + 2] = "--connect", up.connect
    return c:shoal(argv)
  end
  local function run(text)
    local r = c:shoal { "submit", c:file("job.lua", text), "-o", "json", "--connect", up.connect }
    local answer, on = cjson.decode(r.out), {}
    for _, a in ipairs(answer.attempts or {}) do on[a.executor] = (on[a.executor] or 0) + 1 end
    return answer, on, r
  end

  it("a job runs where a label is; one whose label nobody has says so while it waits", function ()
    local answer, on = run "return { name = 'j', workflows = { k = { command = 'true', parts = 5, where = { gpu = 'a100' } } } }"
    assert.same({ "completed", { gpu = 5 } }, { answer.state, on })
    local _, _, r = run "return { name = 'j', timeout_ms = 1000, workflows = { k = { command = 'true', where = { gpu = 'h100' } } } }"
    assert.equal(124, r.code)
    assert.truthy(r.err:find("k is queued: no worker has gpu=h100", 1, true), r.err)
  end)

  it("a failing command runs three times with retries = 2, and SHOAL_ATTEMPT counts; its end is told to the file and the webhook", function ()
    local answer = run [[return { name = "j", workflows = {
      k = { command = "echo this is $SHOAL_ATTEMPT; exit 3", retries = 2, retry = { backoff_ms = 50 } } } }]]
    local states = {}
    for i, a in ipairs(answer.attempts) do states[i] = ("%d %s %s"):format(a.attempt, a.state, a.reason:match "this is %d") end
    assert.same({ "1 failed this is 1", "2 failed this is 2", "3 failed this is 3" }, states)
    assert.same({ 3, 2 }, { answer.workflows[1].executions, answer.workflows[1].retried })
    cluster.wait("the webhook", function () -- The job before timed out, which is a failure too.
      for _, h in ipairs(heard) do
        if h.body:find(answer.job, 1, true) then return true end
      end
    end)
    assert.equal(heard[1].id, cluster.wait("the first once more", function ()
      for i = 2, #heard do
        if heard[i].id == heard[1].id then return heard[i].id end
      end
    end))
    assert.truthy(cluster.read(c.dir .. "/failed-jobs.log"):find(answer.job .. " failed: k", 1, true))
  end)

  it("a worker takes certain jobs only, and that is no failure", function ()
    local answer, on = run "return { name = 'j', workflows = { k = { command = 'sleep 0.1', parts = 8, retries = 0 } } }"
    assert.same({ "completed", 8, nil }, { answer.state, (on.plain or 0) + (on.gpu or 0), on.shop })
    answer, on = run "return { name = 'j', labels = { team = 'shop' }, workflows = { k = { command = 'sleep 0.3', parts = 6 } } }"
    assert.same({ "completed", 2 }, { answer.state, on.shop })
    assert.is_nil(shoal("incidents").out:find "DECLINED")
  end)

  it("a worker is drained: its part moves after the timeout, and no new one comes until it is uncordoned", function ()
    local job = c:file("long.lua", "return { name = 'long', workflows = { "
      .. "k = { command = 'sleep 1.5', where = { gpu = false }, parts = 2 } } }")
    local long = c:start { "submit", job, "-o", "json", "--connect", up.connect }
    cluster.wait("its parts", function () return shoal("members").code == 0 and long.err:find "is running" end)
    local r = shoal("drain", "plain", "--timeout", "0.2")
    assert.equal(0, r.code, r.err)
    assert.equal("plain of a is draining; 0 parts run there\n", r.out)
    assert.truthy(shoal("members").out:find "plain +worker +a +alive, draining")
    r = shoal("uncordon", "plain")
    assert.equal("plain of a is not cordoned; 0 parts run there\n", r.out)
    assert.equal(0, long:wait().code, long.err)
    r = shoal("cordon", "nobody")
    assert.equal(4, r.code)
    assert.truthy(r.err:find("known: gpu, plain, shop", 1, true), r.err)
  end)
end)
