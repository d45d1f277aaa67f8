--- The HTTP client against our own server, over real loopback sockets.
local errors = require "shoal.errors"
local http = require "shoal.http"
local real = require "spec.support.real"
local task = require "shoal.task"

--- Run fn(client, server, world, scope) with a server of this handler.
local function with(handler, fn, options, server_options)
  return real.run(function (world, scope)
    local server <close> = assert(http.server(world, "127.0.0.1:0", handler, server_options))
    options = options or {}
    options.base_url = "http://" .. server:address()
    local client <close> = http.client(world, options)
    return fn(client, server, world, scope)
  end)
end

local function echo(r)
  return { body = table.concat({ r.method, r.target, r.path, r.query, r.body, r.headers["x-a"] or "-" }, "|") }
end

describe("the client", function ()
  it("gets and posts, with headers, queries and bodies", function ()
    with(echo, function (client, server)
      local r = assert(client:get("/a/b?c=d", { headers = { ["X-A"] = "1" } }))
      assert.same({ 200, "GET|/a/b?c=d|/a/b|c=d||1" }, { r.status, r.body })
      assert.equal("text/plain", r.headers["content-type"])
      assert(r.latency_ns > 0)
      assert.equal("POST|/p|/p||hello|-", assert(client:post("/p", { body = "hello" })).body)
      assert.equal("PUT|/p|/p|||-", assert(client:put("/p")).body)
      assert.equal("DELETE|/|/|||-", assert(client:delete("http://" .. server:address())).body)
      assert.equal("", assert(client:head("/h")).body)
      assert.equal("PATCH|/|/||x|-", assert(client:request { method = "PATCH", url = "/", body = "x" }).body)
      assert.equal(1, client.connected)
      assert.equal(6, server.requests)
    end)
  end)

  it("keeps its connection, unless the server or it says close", function ()
    local close = false
    with(function () return { close = close } end, function (client, server)
      for _ = 1, 5 do assert(client:get("/")) end
      assert.equal(1, server.accepted)
      close = true
      for _ = 1, 3 do assert(client:get("/")) end
      close = false
      assert(client:get("/"))
      assert.same({ 4, 0 }, { server.accepted, client.repeated }) -- None was tried that had ended.
    end)
    with(echo, function (client, server)
      for _ = 1, 3 do assert(client:get("/")) end
      assert.equal(3, server.accepted)
    end, { keep_alive = false })
  end)

  it("reads chunked bodies, empty answers and large bodies", function ()
    local large = ("0123456789abcdef"):rep(200000)
    with(function (r)
      if r.path == "/chunked" then return { chunked = { "a", "", "bcd", ("e"):rep(70000) } } end
      if r.path == "/204" then return { status = 204, body = "not sent" } end
      if r.path == "/304" then return { status = 304 } end
      if r.path == "/eof" then return { raw = "HTTP/1.0 200 OK\r\n\r\nuntil the end", close = true } end
      return { body = #r.body > 0 and r.body or large }
    end, function (client, server)
      assert.equal("abcd" .. ("e"):rep(70000), assert(client:get("/chunked")).body)
      assert.same({ 204, "" }, { client:get("/204").status, client:get("/204").body })
      assert.equal(304, client:get("/304").status)
      assert.equal("", assert(client:head("/chunked")).body)
      assert.equal(large, assert(client:get("/large")).body)
      assert.equal(large, assert(client:post("/large", { body = large })).body)
      assert.equal(1, server.accepted)
      assert.equal("until the end", assert(client:get("/eof")).body)
      assert.equal(204, assert(client:get("/204")).status)
      assert.equal(2, server.accepted)
    end)
  end)

  it("gives responses of any status as responses, redirects too", function ()
    with(function (r) return { status = tonumber(r.path:sub(2)), headers = { Location = "/elsewhere" } } end, function (client, server)
      for _, status in ipairs { 200, 301, 302, 404, 418, 500, 503 } do assert.equal(status, assert(client:get("/" .. status)).status) end
      assert.equal(7, server.requests)
    end)
  end)

  it("names each way to fail", function ()
    local free = real.free_port()
    with(function (r)
      if r.path == "/hang" then return { hang = true } end
      if r.path == "/reset" then return { reset = true } end
      if r.path == "/garbage" then return { raw = "this is no http\r\n\r\n" } end
      if r.path == "/short" then return { raw = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", close = true } end
      if r.path == "/large" then return { body = ("x"):rep(2000) } end
      return { delay_ms = 40 }
    end, function (client)
      local function fails(url, options)
        local r, err, code = client:get(url, options)
        assert.is_nil(r)
        assert.is_string(err)
        return code, http.kind(code), err
      end
      local refused, how = fails("http://127.0.0.1:" .. free .. "/")
      assert.same({ "ECONNREFUSED", "refused" }, { refused, how })
      local code, kind, err = fails("/hang", { timeout_ms = 30 })
      assert.same({ "TIMEOUT", "timeout" }, { code, kind })
      assert.matches("GET /hang: no answer within 30 ms", err)
      assert.equal("timeout", (select(2, fails("/slow", { timeout_ms = 10 }))))
      assert.equal("reset", (select(2, fails("/reset"))))
      assert.equal("malformed", (select(2, fails("/garbage"))))
      assert.equal("truncated", (select(2, fails("/short"))))
      code, kind, err = fails("/large")
      assert.same({ "TOO_LARGE", "too_large" }, { code, kind })
      assert.matches("larger than its limit of 1000 bytes", err)
      code, kind, err = fails("https://127.0.0.1/")
      assert.same({ "UNSUPPORTED", "unsupported" }, { code, kind })
      assert.matches("https is not supported yet", err)
      assert.equal("dns", (select(2, fails("http://no-such-host.invalid/"))))
      assert.equal("malformed", (select(2, fails("nonsense"))))
      assert.equal(200, assert(client:get("/slow", { timeout_ms = 5000 })).status) -- And it lives on.
    end, { body_bytes = 1000 })
  end)

  it("replaces a kept connection that the server closed, and counts it", function ()
    with(echo, function (client, server, world)
      assert(client:get("/"))
      for _, e in pairs(server.open) do e:close() end
      assert(client:get("/")) -- The end may have been seen before, or may come while we ask.
      assert.equal(2, server.accepted)
      local before = client.repeated
      local closing <close> = assert(http.server(world, "127.0.0.1:0", function (r) return r.path == "/die" and { reset = true } or {} end))
      local url = "http://" .. closing:address()
      assert(client:get(url .. "/"))
      local r, _, code = client:get(url .. "/die")
      assert.is_nil(r)
      assert.equal("reset", http.kind(code))
      assert.equal(before + 1, client.repeated)
      assert.equal(3, closing.requests)
      assert(client:get(url .. "/"))
      r = client:post(url .. "/die", { body = "once" })
      assert.is_nil(r)
      assert.equal(before + 1, client.repeated) -- A POST is not sent twice.
      assert.equal(5, closing.requests)
    end)
  end)

  it("refuses bytes that would be a second header or request", function ()
    with(echo, function (client)
      for _, url in ipairs { "/a b", "/a\r\nX: y", "/\0" } do
        local r, _, code = client:get(url)
        assert.is_nil(r)
        assert.equal("MALFORMED", code)
      end
      assert.has_error(function () http.client(nil, { headers = { ["X-A"] = "a\r\nb" } }) end)
      assert.has_error(function () http.client(nil, { headers = { ["X A"] = "a" } }) end)
    end)
  end)

  it("of a cancelled task closes the connection it used, and no other", function ()
    with(function (r) return r.path == "/hang" and { hang = true } or {} end, function (client, server, _, scope)
      assert(client:get("/"))
      local other = scope:spawn("spec.run", { task = "hang" }, function () client:get("/hang") end)
      task.sleep(20)
      assert.equal(1, #client.all)
      other:cancel()
      assert.equal(0, #client.all)
      assert(client:get("/"))
      assert.equal(2, server.accepted)
    end)
  end)

  it("closed with a request under way says so", function ()
    with(function () return { hang = true } end, function (client, _, _, scope)
      local t = scope:spawn("spec.run", { task = "hang" }, function () return select(3, client:get("/")) end)
      task.sleep(20)
      client:close()
      assert.same({ true, "CANCELLED" }, { t:join() })
    end)
  end)

  it("serves many users at once", function ()
    with(function () return { body = "ok", delay_ms = 1 } end, function (client, server, world, scope)
      local users = {}
      for i = 1, 50 do
        users[i] = scope:spawn("spec.run", { task = "user" }, function ()
          local own <close> = http.client(world, { base_url = client.base_url })
          for _ = 1, 20 do assert.equal("ok", assert(own:get("/x")).body) end
        end)
      end
      for _, user in ipairs(users) do assert(user:join()) end
      assert.equal(1000, server.requests)
      assert.equal(50, server.accepted)
    end)
  end)
end)

describe("the server", function ()
  --- Send these bytes to it. Returns its answer until it closed or was silent.
  local function say(world, server, bytes, wait_ms)
    local got, done = {}, task.future("say")
    local stream
    stream = assert(world:connect(server:address(), {
      on_open = function () stream:write(bytes) end, on_read = function (_, b) got[#got + 1] = b end,
      on_end = function () done:settle(true) end,
    }))
    done:await(wait_ms or 50)
    stream:close()
    return table.concat(got)
  end

  it("answers pipelined requests in order, slow ones first", function ()
    with(function (r) return { body = r.path, delay_ms = r.path == "/slow" and 20 or 0 } end, function (_, server, world)
      local text = say(world, server, "GET /slow HTTP/1.1\r\n\r\nGET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nConnection: close\r\n\r\n", 1000)
      assert.matches("/slow.*/a.*/b$", text)
    end)
  end)

  it("refuses what is no request, and what is too large", function ()
    with(echo, function (_, server, world)
      assert.matches("^HTTP/1.1 400 ", say(world, server, "nonsense\r\n\r\n", 1000))
      assert.matches("^HTTP/1.1 413 ", say(world, server, "POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n", 1000))
      assert.matches("^HTTP/1.1 431 ", say(world, server, "GET / HTTP/1.1\r\nA: " .. ("x"):rep(40000) .. "\r\n\r\n", 1000))
      assert.equal(3, server.refused)
      assert.equal(0, server.requests)
    end, nil, { body_bytes = 100 })
  end)

  it("answers 500 for a handler that fails, with an incident, and lives", function ()
    with(function (r) if r.path == "/bad" then error("oops") end return {} end, function (client)
      assert.equal(500, client:get("/bad").status)
      assert.equal(200, client:get("/good").status)
      local incidents = errors.incidents()
      assert.equal(1, #incidents)
      assert.equal("http.handler", incidents[1].site)
      assert.matches("oops", incidents[1].message)
    end)
  end)

  it("closes above its connections", function ()
    with(echo, function (client, server, world)
      assert(client:get("/"))
      assert.equal("", say(world, server, "GET / HTTP/1.1\r\n\r\n", 1000))
      assert.equal(1, server.refused)
    end, nil, { connections_max = 1 })
  end)

  it("on a taken port is a refusal", function ()
    with(echo, function (_, server, world)
      local none, err, code = http.server(world, server:address(), echo)
      assert.is_nil(none)
      assert.is_string(err)
      assert.equal("EADDRINUSE", code)
    end)
  end)
end)

describe("the client against nginx", function ()
  local nginx = io.open("/usr/sbin/nginx") and "/usr/sbin/nginx"

  local CONF = [[
daemon off; worker_processes 1; pid DIR/pid; error_log DIR/error.log;
events { worker_connections 64; }
http {
  log_format who '$request_method $request_uri $status $http_x_shoal_part'; access_log DIR/access.log who;
  client_body_temp_path DIR/b; proxy_temp_path DIR/p; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
  keepalive_requests 10; gzip off; chunked_transfer_encoding on;
  server {
    listen 127.0.0.1:PORT;
    location /ok { return 200 "0123456789"; }
    location /empty { return 204; }
    location /missing { return 404 "no\n"; }
    location /moved { return 301 /ok; }
    location /file { root DIR; }
    location /cut { return 444; }
  }
}]]

  it("keeps connections, reads files, and agrees with its access log to the request", function ()
    if not nginx then pending("nginx is not installed") return end
    local preload = os.getenv "LD_PRELOAD"
    local uv = require "luv"
    uv.os_unsetenv "LD_PRELOAD"
    local dir = assert(uv.fs_mkdtemp("/tmp/shoal-nginx-XXXXXX"))
    uv.fs_chmod(dir, 493) -- nginx reads as another user when it is started by root.
    local large = ("x"):rep(300000)
    local function write(name, text)
      local file = assert(io.open(dir .. "/" .. name, "w"))
      file:write(text)
      file:close()
    end
    local port = real.free_port()
    write("nginx.conf", (CONF:gsub("DIR", dir):gsub("PORT", tostring(port))))
    write("file", large)
    real.run(function (world, scope)
      local exited = task.future("exit")
      local process = assert(world:spawn {
        argv = { nginx, "-e", dir .. "/error.log", "-p", dir, "-c", dir .. "/nginx.conf" }, group = true,
        on_exit = function () exited:settle(true) end,
      })
      local guard <close> = setmetatable({}, { __close = function () -- luacheck: ignore 211
        process:kill(9)
        process:close()
      end })
      local client <close> = http.client(world, { base_url = "http://127.0.0.1:" .. port, headers = { ["X-Shoal-Part"] = "p1" } })
      local sent = 0
      local function get(url, method)
        sent = sent + 1
        return client:request { method = method or "GET", url = url }
      end
      for _ = 1, 250 do -- Until it listens; a refused connection is in no log.
        if get("/ok") then break end
        sent = sent - 1
        task.sleep(20)
      end
      for _ = 1, 30 do assert.equal("0123456789", assert(get("/ok")).body) end
      assert.equal(4, client.connected) -- keepalive_requests 10
      assert.equal(204, assert(get("/empty")).status)
      assert.equal(404, assert(get("/missing")).status)
      assert.equal(301, assert(get("/moved")).status)
      assert.equal(large, assert(get("/file")).body)
      assert.equal("", assert(get("/file", "HEAD")).body)
      assert.equal(405, assert(get("/file", "POST")).status)
      local before = client.repeated
      local r, _, code = get("/cut")
      assert.is_nil(r)
      assert.equal("reset", http.kind(code))
      sent = sent + client.repeated - before
      local users = {}
      for i = 1, 8 do
        users[i] = scope:spawn("spec.run", { task = "user" }, function ()
          local own <close> = http.client(world, { base_url = client.base_url, headers = { ["X-Shoal-Part"] = "p2" } })
          for _ = 1, 25 do assert.equal(200, assert(own:get("/ok")).status) end
        end)
      end
      for _, user in ipairs(users) do assert(user:join()) end
      client:close()
      process:kill(3) -- QUIT: it ends what it has, and writes its log.
      exited:await(5000)
      local counts = { p1 = 0, p2 = 0 }
      for line in io.lines(dir .. "/access.log") do
        local part = line:match("%S+$")
        counts[part] = counts[part] + 1
      end
      assert.same({ p1 = sent, p2 = 200 }, counts)
    end)
    os.execute("rm -rf " .. dir)
    if preload then uv.os_setenv("LD_PRELOAD", preload) end
  end)
end)
