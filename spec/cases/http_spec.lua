--- Faults of HTTP that users met, each with its right verdict: a part of a workflow runs here as in a worker's child.
local errors = require "shoal.errors"
local fake_world = require "spec.support.fake_world"
local http = require "shoal.http"
local log = require "shoal.log"
local numbers = require "shoal.cli.numbers"
local real = require "spec.support.real"
local stats = require "shoal.job.stats"
local task = require "shoal.task"
local workflow = require "shoal.run.workflow"

--- Run a script for one iteration in this world. Waits. Returns its record, its state and reason.
local function run_in(world, scope, target, text)
  local recorder = stats.recorder()
  local state, reason = workflow.run {
    world = world, scope = scope, recorder = recorder, job = "bug", workflow = "w", part = "w/1", attempt = 1, log = function () end,
    work = { script = { path = "vu.lua", bytes = text }, env = { TARGET = target }, vus = 1, iterations = 1 },
  }
  return recorder:export(0), state, reason
end

--- The same against a server with this handler. The last result is its requests, as messages.
local function run(handler, text)
  return real.run(function (world, scope)
    local seen = {}
    local server <close> = assert(http.server(world, "127.0.0.1:0", function (r)
      seen[#seen + 1] = r
      return handler(r)
    end))
    local record, state, reason = run_in(world, scope, "http://" .. server:address(), text)
    return record, state, reason, seen
  end)
end

--- Every check of the record passed, and these are their names.
local function passed(record, ...)
  for _, name in ipairs { ... } do assert.same({ passed = 1, failed = 0 }, record.checks[name], name) end
end

local function echo(r)
  local lines = { r.method .. " " .. r.target }
  for name in pairs(r.headers) do -- order-free: sorted below
    for _, value in ipairs(r:values(name)) do lines[#lines + 1] = name .. ": " .. value end
  end
  table.sort(lines)
  return { body = table.concat(lines, "\n") .. "\n" }
end

describe("a workflow's request", function ()
  it("01: a 304 with a Content-Length has no body, nor has a 204 or an interim response", function ()
    local raw = {
      ["/304"] = 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 500\r\n\r\n',
      ["/304chunked"] = "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
      ["/204chunked"] = "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
      ["/204cl"] = "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
      ["/103"] = "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    }
    local record = run(function (r) return { raw = raw[r.path] } end, [[
      return function (vu)
        for path, status in pairs { ["/304"] = 304, ["/304chunked"] = 304, ["/204chunked"] = 204, ["/204cl"] = 204, ["/103"] = 200 } do
          local r = vu.http:get(path, { timeout_ms = 2000, headers = { ["If-None-Match"] = '"x"' } })
          vu:check(path, r and r.status == status and r.body == (status == 200 and "ok" or ""))
        end
      end]])
    passed(record, "/304", "/304chunked", "/204chunked", "/204cl", "/103")
    assert.same({}, record.errors)
  end)

  it("03: a Host and a User-Agent of the script replace ours", function ()
    local record, _, _, seen = run(echo, [[
      return function (vu)
        local r = vu.http:get("/echo", { headers = { Host = "shop.example", ["user-agent"] = "mine/1" } })
        vu:check("one Host", select(2, ("\n" .. r.body):gsub("\nhost: ", "")) == 1)
        vu:check("one User-Agent", select(2, r.body:gsub("\nuser%-agent: ", "")) == 1)
      end]])
    passed(record, "one Host", "one User-Agent")
    assert.same({ { "shop.example" }, { "mine/1" }, { "bug" } }, { seen[1]:values "host", seen[1]:values "user-agent",
      seen[1]:values "x-shoal-job" })
    local state, reason
    record, state, reason = run(echo, "return function (vu)\n vu.http:get('/', { headers = { ['x-shoal-PART'] = 'mine' } }) end")
    assert.same({ "failed", {} }, { state, record.requests })
    assert.equal("every iteration failed: vu.lua:2: vu.http:get: header x-shoal-PART: names that begin with x-shoal- are the client's", reason)
  end)

  it("05: a header with several values is several lines, and a table that is no list of values is refused", function ()
    local record, _, _, seen = run(echo, [[
      return function (vu)
        local ok, r = pcall(vu.http.get, vu.http, "/echo", { headers = { ["X-A"] = { "1", "2" } } })
        vu:check("no address of a Lua table on the wire", ok and not r.body:find("table: 0x"))
        ok, r = pcall(vu.http.get, vu.http, "/echo", { headers = { ["X-A"] = { {} } } })
        vu:check("refused", not ok)
        vu:check("at its line", r:find("^vu.lua:4: vu.http:get: header X%-A: expected a string"))
      end]])
    passed(record, "no address of a Lua table on the wire", "refused", "at its line")
    assert.same({ "1", "2" }, seen[1]:values "x-a")
    assert.equal(1, #seen)
  end)

  it("06: a method that is no token is refused, at the script's line, and nothing is sent", function ()
    local record, _, _, seen = run(echo, [[
      return function (vu)
        local ok, problem = pcall(vu.http.request, vu.http, { method = "GET /echo HTTP/1.1\r\nX-Injected: 1\r\nX:", url = "/echo" })
        vu:check("refused", not ok)
        vu:check("at its line", problem:find("^vu.lua:2: vu.http:request: method: expected a token"))
        local function tail() return vu.http:request { method = "a b", url = "/" } end
        ok, problem = pcall(tail)
        vu:check("tail call", not ok and problem:find("^vu.lua:"))
        ok, problem = pcall(vu.http.get, vu.http, "/echo", { heders = {} })
        vu:check("unknown option", not ok and problem:find("heders: no such option"))
        local r = vu.http:request { method = "post", url = "/echo" }
        vu:check("post", r.body:find("^POST /echo\n") and r.body:find("\ncontent%-length: 0\n"))
      end]])
    passed(record, "refused", "at its line", "tail call", "unknown option", "post")
    assert.equal(1, #seen)
    assert(record.requests["POST /echo"])
  end)

  it("08: a name with two addresses is tried at both, and the one that answered is tried first after that", function ()
    local world, dialled = fake_world.new { seed = 1 }, {}
    function world:resolve(host, port, fn) -- luacheck: ignore 212
      assert.same({ "both.test", 8081 }, { host, port })
      local timer
      timer = world:timer(function ()
        timer:close()
        fn { "[::1]:8081", "127.0.0.1:8081" }
      end)
      timer:start(1)
      return { close = function () end }
    end
    function world:connect(address, handlers)
      dialled[#dialled + 1] = address
      local stream, closed = {}, false
      local function later(fn)
        local timer
        timer = world:timer(function ()
          timer:close()
          if not closed then fn() end
        end)
        timer:start(1)
      end
      function stream.write()
        later(function () handlers.on_read(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1") end)
        return true
      end
      function stream.close() closed = true end
      local refused = address:sub(1, 1) == "["
      later(function ()
        if refused then handlers.on_open(stream, "connection refused", "ECONNREFUSED") else handlers.on_open(stream) end
      end)
      return stream
    end
    errors.reset()
    task.reset()
    task.start(world)
    log.open(world, function () end)
    local record
    task.root():spawn("spec.run", { task = "case" }, function ()
      record = run_in(world, task.scope "case", nil, [[
        return function (vu) for _ = 1, 2 do vu:check("200", vu.http:get("http://both.test:8081/conn")) end end]])
    end)
    world:run(1000)
    task.stop()
    log.reset()
    assert.same({ passed = 2, failed = 0 }, record.checks["200"])
    assert.same({}, record.errors)
    assert.same({ "[::1]:8081", "127.0.0.1:8081", "127.0.0.1:8081" }, dialled)
  end)

  it("33: a body over the limit is an error of its own kind; the script can raise the limit, or discard bodies", function ()
    local big = ("x"):rep(20000000)
    local record = run(function () return { body = big } end, [[
      return function (vu)
        local r, err, code = vu.http:get("/big")
        vu:check("by default", code == "TOO_LARGE" and err:find("limit of 16777216 bytes"))
        r = vu.http:get("/big", { max_body_bytes = 20000000 })
        vu:check("raised", r and #r.body == 20000000)
        r = vu.http:get("/big", { response_body = "discard" })
        vu:check("discarded", r and r.body == "" and r.body_bytes == 20000000)
        local n = 0
        r = vu.http:get("/big", { response_body = function (piece) n = n + #piece end })
        vu:check("by pieces", r and n == 20000000)
      end]])
    passed(record, "by default", "raised", "discarded", "by pieces")
    assert.same({ too_large = 1 }, record.errors)
  end)
end)

--- What the text of a result says about a record.
local function detail(record)
  local lines = {}
  numbers.detail({ stats = assert(stats.summary(record)) }, function (format, ...) lines[#lines + 1] = format:format(...) .. "\n" end)
  return table.concat(lines)
end

describe("kin of these", function ()
  it("a kept connection that its server closes as we send hides no request: it is sent again, and counted", function ()
    local record, _, _, seen = run(function (r) return r.path == "/die" and { reset = true } or {} end, [[
      return function (vu)
        vu.http:get("/")
        vu.http:get("/die")
        vu.http:get("/")
        vu.http:post("/die")
      end]])
    assert.same({ reset = 2 }, record.errors)
    assert.same({ 4, 1, 5 }, { record.counts.requests, record.counts.repeated, #seen }) -- /die twice by GET, once by POST.
    assert.matches("sent again, over a fresh connection, for the kept one had ended: 1\n", detail(record))
  end)

  it("an expected status is no failure, and an unexpected one is, also of 2xx", function ()
    local record = run(function (r) return { status = tonumber(r.path:sub(2)) } end, [[
      return function (vu)
        vu.http:get("/404", { name = "expected", expect = 404 })
        vu.http:get("/200", { name = "missing", expect = { 404, 410 } })
        vu.http:get("/302", { name = "asked", expect = function (r) return r.status == 302 end })
        vu.http:get("/500", { name = "default" })
        vu.http:get("/302", { name = "default of 3xx" })
      end]])
    assert.same({ http = 2 }, record.errors)
  end)

  it("redirects, cookies and codings are the script's choice for all its requests, and each request is recorded", function ()
    local record, state, reason, seen = run(function (r)
      if r.path == "/login" then return { status = 302, headers = { Location = "/home", ["Set-Cookie"] = { "sid=1; Path=/",
        "x=2; Path=/other" } } } end
      return { body = r.headers.cookie or "-" }
    end, [[
      return {
        http = { redirects = 5, cookies = true, compressed = true, expect = 200 },
        vu = function (vu)
          local r = vu.http:get("/login")
          vu:check("followed", r.status == 200 and r.body == "sid=1" and r.redirects == 1 and r.url:find("/home$"))
          vu:check("case", r.headers["Content-LENGTH"] == "5")
          vu:check("the script's Cookie", vu.http:get("/home", { headers = { Cookie = "mine" } }).body == "mine")
          vu.http:clear_cookies()
          vu:check("cleared", vu.http:get("/home").body == "-")
          r = vu.http:get("/login", { redirects = 0, expect = 302, name = "login" })
          vu:check("a list", r.headers["set-cookie"][2] == "x=2; Path=/other")
        end,
      }]])
    assert.same({ "completed" }, { state, reason })
    passed(record, "followed", "case", "the script's Cookie", "cleared", "a list")
    assert.same({}, record.errors)
    assert.equal(5, record.counts.requests)
    assert.equal(5, #seen)
    assert.equal(1, record.counts.redirected)
    assert.matches("redirects followed: 1\n", detail(record))
    assert.equal("gzip, deflate", seen[2].headers["accept-encoding"])
    for _, text in ipairs { "http = { redirect = 5 }", "http = { cookies = 1 }", "http = { redirects = -1 }", "http = 5" } do
      local ok, problem = workflow.check("return { vu = function () end, " .. text .. " }", "vu.lua", {})
      assert.is_nil(ok)
      assert.matches("^vu.lua:?%d*: http", problem)
    end
  end)

  it("https is refused by name at the call, as is each redirect to it", function ()
    local record = run(function () return { status = 301, headers = { Location = "https://127.0.0.1/" } } end, [[
      return function (vu)
        for i, url in ipairs { "https://127.0.0.1/", "HTTPS://127.0.0.1/", "/moved" } do
          local r, err, code = vu.http:get(url, { redirects = 1 })
          vu:check("refused " .. i, not r and code == "UNSUPPORTED" and err:find("https is not supported yet, only http"))
        end
      end]])
    passed(record, "refused 1", "refused 2", "refused 3")
    assert.same({ unsupported = 3 }, record.errors)
  end)

  it("a request whose function of the script raises is counted all the same", function ()
    local record, state = run(function () return { body = ("x"):rep(100000) } end, [[
      return function (vu)
        pcall(vu.http.get, vu.http, "/expect", { expect = function () error "no" end })
        pcall(vu.http.get, vu.http, "/piece", { response_body = function () error "no" end })
        vu.http:get("/after")
      end]])
    assert.equal("completed", state)
    assert.equal(3, record.counts.requests)
    assert.same({ cancelled = 1 }, record.errors)
  end)

  it("a call with a dot, or with what contradicts it, says so at its line", function ()
    local record, _, _, seen = run(echo, [[
      return function (vu)
        for text, call in pairs {
          ["^vu.lua:3: call it as vu.http:get%(...%), with a colon"] = function () vu.http.get("/x") end,
          ["^vu.lua:4: vu.http:get: method: it is \"GET\" in this call"] = function () vu.http:get("/", { method = "POST" }) end,
          ["^vu.lua:5: vu.http:get: url: it is \"/\" in this call"] = function () vu.http:get("/", { url = "/other" }) end,
        } do
          local ok, problem = pcall(call)
          vu:check(text, not ok and problem:find(text))
        end
      end]])
    for name, check in pairs(record.checks) do assert.same({ passed = 1, failed = 0 }, check, name) end -- order-free: each by itself
    assert.equal(0, #seen)
  end)
end)
