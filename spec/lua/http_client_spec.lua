--- The HTTP client's rules about requests, bodies, redirects, cookies and codings, against our own server on loopback.
local errors = require "shoal.errors"
local http = require "shoal.http"
local inflate_fixture = require "spec.support.gzip"
local real = require "spec.support.real"
local task = require "shoal.task"

--- Run fn(client, server, world, scope) with a server of this handler.
local function with(handler, fn, options)
  return real.run(function (world, scope)
    local server <close> = assert(http.server(world, "127.0.0.1:0", handler))
    options = options or {}
    options.base_url = "http://" .. server:address()
    local client <close> = http.client(world, options)
    return fn(client, server, world, scope)
  end)
end

--- What a request raises, without its place; nil when it does not.
local function raised(fn, ...)
  local ok, err = errors.handle("spec.task", { task = "call" }, fn, ...)
  return not ok and tostring(err):gsub("^[^:]*:%d+: ", "") or nil
end

local function fails(client, url, options)
  local r, err, code = client:get(url, options)
  assert.is_nil(r)
  return code, err
end

describe("a header of the script", function ()
  local function lines(request)
    local out = {}
    for name in pairs(request.headers) do
      for _, value in ipairs(request:values(name)) do out[#out + 1] = name .. ": " .. value end
    end
    table.sort(out)
    return { body = table.concat(out, "\n") .. "\n" }
  end

  it("replaces ours, in any case", function ()
    with(lines, function (client, server)
      local function sent(headers, options)
        options = options or {}
        options.headers = headers
        return client:get("/", options).body
      end
      assert.equal(("host: %s\nuser-agent: shoal\nx-ours: 1\n"):format(server:address()), sent())
      assert.equal("host: shop.example\nuser-agent: mine/1\nx-ours: 2\n", sent { HOST = "shop.example", ["user-AGENT"] = "mine/1",
        ["X-ours"] = 2 })
      assert.equal(("host: %s\nx-ours: 1\n"):format(server:address()), sent { ["User-Agent"] = false })
      assert.equal(("accept: */*\nhost: %s\nuser-agent: shoal\nx-ours: 1\n"):format(server:address()), sent { Accept = "*/*", X = false })
      assert.matches("\naccept%-encoding: br\n", "\n" .. sent({ ["Accept-Encoding"] = "br" }, { compressed = true }))
      assert.matches("\naccept%-encoding: gzip, deflate\n", "\n" .. sent({}, { compressed = true }))
    end, { headers = { ["User-Agent"] = "shoal", ["X-Ours"] = "1" } })
  end)

  it("with several values is several lines", function ()
    with(lines, function (client)
      local body = client:get("/", { headers = { ["X-A"] = { "1", 2, "3, 4" }, ["x-a"] = "5", Cookie = { "a=1", "b=2" }, E = {} } }).body
      assert.matches("cookie: a=1\ncookie: b=2\n", body)
      local values = {}
      for value in body:gmatch "x%-a: ([^\n]*)" do values[#values + 1] = value end
      assert.same({ "1", "2", "3, 4", "5" }, values)
      assert.is_nil(body:find("table:", 1, true))
    end)
  end)

  it("that would break the framing, or is none, is refused at the call", function ()
    with(lines, function (client)
      for headers, want in pairs { -- order-free: each by itself
        [{ ["Transfer-Encoding"] = "chunked" }] = "Transfer%-Encoding: the framing of a request is the client's",
        [{ ["content-length"] = 5 }] = "Content%-Length: 5 was given and the body has 0 bytes",
        [{ Host = { "a", "b" } }] = "header Host: expected one value, found 2", [{ Host = "a", host = "b" }] = "given twice, in two cases",
        [{ Host = "a b" }] = "expected a host", [{ Host = false }] = "expected a host", [{ Host = "a/b" }] = "expected a host",
        [{ ["X A"] = "1" }] = '"X A" is not a header name', [{ ["X:"] = "1" }] = "not a header name", [{ [""] = "1" }] = "not a header name",
        [{ "X: 1" }] = "not a header name", [{ X = "1\r\nY: 2" }] = "line break", [{ X = "\0" }] = "control character",
        [{ X = { "1", "2\n" } }] = "line break", [{ X = { {} } }] = "expected a string, a number, a list", [{ X = print }] = "found a function",
        [{ X = true }] = "found a boolean", [{ X = { true } }] = "found a boolean",
      } do
        assert.matches(want, raised(client.get, client, "/", { headers = headers }))
      end
      assert.equal(200, client:post("/", { body = "12345", headers = { ["Content-Length"] = "5" } }).status)
      assert.matches("content%-length: 0", client:get("/", { headers = { ["content-length"] = 0 } }).body)
    end)
  end)

  it("Connection: close ends the connection after its request", function ()
    with(lines, function (client, server)
      for _, value in ipairs { "close", "Close", "te, close", "keep-alive" } do
        local before = server.connections
        assert.matches("connection: " .. value:gsub("-", "%%-"), client:get("/", { headers = { connection = value } }).body)
        assert.equal(value == "keep-alive" and 1 or 0, #client.all, before)
      end
    end)
  end)
end)

describe("a method", function ()
  it("is a token; the standard ones are sent in upper case, all others as they are", function ()
    with(function (r) return { body = r.method .. (r.headers["content-length"] or "-") } end, function (client)
      for given, want in pairs { get = "GET-", Post = "POST0", patch = "PATCH0", MKCOL = "MKCOL-", PurGe = "PurGe-",
        ["X!#$%&'*+-.^_`|~"] = "X!#$%&'*+-.^_`|~-" } do
        assert.equal(want, client:request { method = given, url = "/" }.body)
      end
    end)
  end)

  it("that is none is refused at the call", function ()
    with(function () return {} end, function (client, server)
      for _, method in ipairs { "GET /echo HTTP/1.1\r\nX-Injected: 1\r\nX:", "", "G T", "GET\n", "GÉT", ("x"):rep(65) } do
        assert.matches("method: expected a token", raised(client.request, client, { method = method, url = "/" }))
      end
      assert.matches("CONNECT is not possible", raised(client.request, client, { method = "connect", url = "/" }))
      assert.matches("a TRACE has none", raised(client.request, client, { method = "TRACE", url = "/", body = "x" }))
      assert(client:request { method = ("x"):rep(64), url = "/" })
      assert.equal(1, server.requests)
    end)
  end)

  it("is checked with all other options, which are never ignored", function ()
    with(function () return {} end, function (client)
      for options, want in pairs { -- order-free: each by itself
        [{ timeout = 5 }] = "timeout: no such option; there are body, compressed, expect", [{ body = {} }] = "json.encode makes one",
        [{ timeout_ms = 0 }] = "more than 0", [{ timeout_ms = "1" }] = "milliseconds", [{ expect = 99 }] = "expect: expected a status",
        [{ expect = {} }] = "expect:", [{ expect = { 200, "404" } }] = "expect:", [{ response_body = "drop" }] = 'expected "keep", "discard"',
        [{ max_body_bytes = 0 }] = "whole number from 1", [{ max_body_bytes = 1.5 }] = "whole number", [{ redirects = 51 }] = "from 0 to 50",
        [{ redirects = true }] = "from 0 to 50", [{ compressed = 1 }] = "true or false", [{ headers = "X: 1" }] = "headers: expected a table",
        [{ name = 1 }] = "name: expected a string",
      } do
        assert.matches(want, raised(client.get, client, "/", options))
      end
      assert.matches("options: expected a table", raised(client.get, client, "/", 5))
      assert.matches("url: expected a string, found a nil", raised(client.request, client, {}))
    end)
  end)
end)

describe("an address", function ()
  it("may have its scheme and host in any case, a user, and a fragment that is not sent", function ()
    with(function (r) return { body = r.target .. " " .. r.headers.host .. " " .. (r.headers.authorization or "-") } end, function (client,
      server)
      local host = server:address()
      assert.equal("/A?B " .. host .. " -", client:get("HTTP://" .. host .. "/A?B#c").body)
      assert.equal("/ " .. host .. " Basic bWU6cEBzcw==", client:get("http://me:p%40ss@" .. host).body)
      assert.equal("/ " .. host .. " Basic bWU6", client:get("http://me@" .. host).body)
      assert.equal("/ " .. host .. " mine", client:get("http://me:pw@" .. host, { headers = { authorization = "mine" } }).body)
      assert.equal("/?q " .. host .. " -", client:get("http://" .. host .. "?q").body)
      local port = host:match "%d+$"
      assert.equal("/ localhost:" .. port .. " -", client:get("http://LocalHost:" .. port).body)
      assert.equal("/ 127.1:" .. port .. " -", client:get("http://127.1:" .. port).body) -- As the resolver reads it.
      local _, err = fails(client, "http://me:secret@127.0.0.1:1/", { timeout_ms = 1000 }), nil
      assert.is_nil((err or ""):find "secret")
    end)
  end)
end)

describe("a body", function ()
  local large = ("0123456789"):rep(30000)
  local function serve(r)
    if r.path == "/chunked" then return { chunked = { large, "end" } } end
    if r.path == "/eof" then return { raw = "HTTP/1.0 200 OK\r\n\r\n" .. large, close = true } end
    if r.path == "/moved" then return { status = 302, headers = { Location = "/chunked" }, body = "gone" } end
    if r.path == "/cut" then return { raw = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", close = true } end
    return { body = large }
  end

  it("is limited by max_body_bytes, with a kind of its own", function ()
    with(serve, function (client)
      for _, path in ipairs { "/", "/chunked", "/eof" } do
        local size = #large + (path == "/chunked" and 3 or 0)
        assert.equal(size, #assert(client:get(path, { max_body_bytes = size })).body)
        local code = fails(client, path, { max_body_bytes = size - 1 })
        assert.same({ "TOO_LARGE", "too_large" }, { code, http.kind(code) })
        assert.equal("TOO_LARGE", (fails(client, path, { max_body_bytes = size - 1, response_body = "discard" })))
      end
      assert.equal(#large, #client:get("/", { max_body_bytes = #large }).body)
      assert.equal(#large + 3, #client:get("/chunked").body) -- The limit was that of its request, not of the connection.
      assert.equal(1, #client.all)
    end)
  end)

  it("can be discarded: its bytes count, also past the default limit", function ()
    with(serve, function (client)
      for _, path in ipairs { "/", "/chunked", "/eof" } do
        local r = assert(client:get(path, { response_body = "discard" }))
        assert.same({ "", #large + (path == "/chunked" and 3 or 0) }, { r.body, r.body_bytes })
      end
      assert.equal("TOO_LARGE", (fails(client, "/")))
    end, { body_bytes = 1000 })
  end)

  it("can be given to a function piece by piece, which may wait", function ()
    with(serve, function (client)
      for _, path in ipairs { "/", "/chunked", "/eof", "/moved" } do
        local pieces = {}
        local r = assert(client:get(path, { redirects = 1, response_body = function (piece, response)
          if #pieces == 0 then task.sleep(5) end
          assert.equal(200, response.status)
          pieces[#pieces + 1] = piece
        end }))
        assert.equal(large .. (path:find "[dm]" and "end" or ""), table.concat(pieces), path)
        assert.equal("", r.body)
        assert(#pieces > 1)
      end
      local seen = ""
      assert.equal("TRUNCATED", (fails(client, "/cut", { response_body = function (piece) seen = seen .. piece end })))
      assert.equal("abc", seen)
      assert.matches("not now", raised(client.get, client, "/", { response_body = function () error "not now" end }))
      assert.equal(200, client:get("/").status)
    end)
  end)
end)

describe("a response", function ()
  it("that breaks a rule has a kind of its own for each", function ()
    local OK = "HTTP/1.1 200 OK\r\n"
    local cases = {
      truncated = OK .. "Content-Length: 5\r\n\r\nabc", bad_length = OK .. "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
      bad_chunk = OK .. "Transfer-Encoding: chunked\r\n\r\nx\r\n", bad_coding = OK .. "Transfer-Encoding: gzip\r\n\r\nx",
      head_too_large = OK .. "A: " .. ("x"):rep(300 * 1024) .. "\r\n\r\n", malformed = "SSH-2.0-OpenSSH_9.2\r\n",
      unsupported = "HTTP/2.0 200 OK\r\n\r\n", bad_upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
      too_large = OK .. "Content-Length: 16777217\r\n\r\n", reset = "",
    }
    with(function (r) return { raw = cases[r.path:sub(2)], close = true } end, function (client)
      for kind in pairs(cases) do -- order-free: each by itself
        local code = fails(client, "/" .. kind, { timeout_ms = 5000 })
        assert.equal(kind, http.kind(code))
      end
    end)
  end)

  it("of status 204 or 304 has no body whatever its headers say; interim ones are skipped; an asked-for 101 is one", function ()
    with(function (r)
      if r.path == "/304" then return { raw = 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 500\r\n\r\n' } end
      if r.path == "/204" then return { raw = "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n" } end
      if r.path == "/103" then return { raw = ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"):rep(3)
        .. "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" } end
      return { raw = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" }
    end, function (client, server)
      for path, status in pairs { ["/304"] = 304, ["/204"] = 204, ["/103"] = 200 } do
        assert.same({ status, "" }, { client:get(path, { timeout_ms = 2000 }).status, client:get(path).body })
      end
      assert.equal(1, server.accepted)
      local r = client:get("/ws", { headers = { Upgrade = "x", Connection = "upgrade" } })
      assert.same({ 101, 0 }, { r.status, #client.all })
    end)
  end)
end)

describe("a kept connection", function ()
  it("is not used past the hint of its server", function ()
    local hint
    with(function () return { headers = { ["Keep-Alive"] = hint } } end, function (client, server, world)
      hint = "timeout=60"
      client:get("/")
      assert(client.all[1].until_ns - world:now_ns() > 58e9)
      hint = "timeout=0"
      client:get("/")
      assert.equal(1, server.accepted)
      client:get("/")
      hint = "max=0"
      client:get("/")
      client:get("/")
      assert.same({ 4, 0 }, { server.accepted, client.repeated })
    end)
  end)

  it("that its server closes as we send is replaced for what may be repeated, and said for what may not", function ()
    local counts = { repeated = 0 }
    with(function (r) return r.path == "/die" and { reset = true } or {} end, function (client, server)
      for _, method in ipairs { "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "POST", "PATCH", "MKCOL" } do
        client:get("/")
        local requests, repeated = server.requests, counts.repeated
        local r, err, code = client:request { method = method, url = "/die" }
        assert.same({ nil, "reset" }, { r, http.kind(code) })
        local safe = method ~= "POST" and method ~= "PATCH" and method ~= "MKCOL"
        assert.same({ safe and 2 or 1, safe and 1 or 0 }, { server.requests - requests, counts.repeated - repeated }, method)
        if not safe then assert.matches(method .. " is not sent twice", err) end
      end
    end, { on_repeat = function () counts.repeated = counts.repeated + 1 end })
  end)
end)

describe("redirects", function ()
  local function serve(r)
    local status, to = r.path:match "^/(3%d%d)/(.*)$"
    if r.query ~= "" and to == "" then to = r.query end
    if status then return { status = tonumber(status), headers = { Location = to ~= "-" and (to:find "^%.%." and to or "/" .. to) or nil },
      body = "see there" } end
    return { body = table.concat({ r.method, r.target, r.body, r.headers["content-type"] or "-", r.headers.authorization or "-" }, "|") }
  end

  it("are followed when asked, with the method that RFC 9110 says", function ()
    with(serve, function (client, server)
      assert.equal(302, client:get("/302/end").status)
      local post = { body = "b", headers = { ["Content-Type"] = "x/y", Authorization = "me" }, redirects = 1 }
      for status, want in pairs { [301] = "GET", [302] = "GET", [303] = "GET", [307] = "POST", [308] = "POST" } do
        local r = assert(client:post(("/%d/../end?x#y"):format(status), post))
        assert.equal(want == "GET" and "GET|/end|||me" or "POST|/end|b|x/y|me", (r.body:gsub("|%-|", "||")), status)
        assert.same({ 1, "http://" .. server:address() .. "/end" }, { r.redirects, r.url })
      end
      assert.equal("PUT|/end|b|-|-", client:put("/301/end", { body = "b", redirects = 1 }).body)
      assert.equal("", client:head("/303/end", { redirects = 1 }).body)
      for _, status in ipairs { 300, 304, 305, 306 } do assert.equal(status, client:get(("/%d/end"):format(status),
        { redirects = 5 }).status) end
      assert.equal(302, client:get("/302/-", { redirects = 5 }).status) -- No Location.
      assert(client.redirected > 5)
    end)
  end)

  it("end at their limit, each by an error that names the next", function ()
    with(function (r) return { status = 302, headers = { Location = "/a" .. r.path } } end, function (client, server)
      local code, err = fails(client, "/x", { redirects = 3 })
      assert.same({ "REDIRECTS", "redirects", 4 }, { code, http.kind(code), server.requests })
      assert.matches('more than 3 redirects; the next leads to "/a/a/a/a/x"', err)
    end)
    with(function () return { status = 302, headers = { Location = "https://127.0.0.1/" } } end, function (client)
      assert.equal("UNSUPPORTED", (fails(client, "/x", { redirects = 3 })))
    end)
    with(function () return { status = 302, headers = { Location = "http://a b:x/" } } end, function (client)
      local code, err = fails(client, "/x", { redirects = 3 })
      assert.equal("MALFORMED", code)
      assert.matches('the redirect to "http://a%%20b:x/"', err)
    end)
  end)

  it("to another origin do not carry secrets, nor the Host", function ()
    with(function (r)
      return { body = ("%s|%s|%s"):format(r.headers.authorization or "-", r.headers.cookie or "-", r.headers.host) }
    end, function (_, other, world)
      local server <close> = assert(http.server(world, "127.0.0.1:0", function (r)
        return { status = 307, headers = { Location = r.path == "/same" and "/there" or "http://" .. other:address() .. "/there" } }
      end))
      local client <close> = http.client(world, {})
      local headers = { Authorization = "me", COOKIE = "a=1", Host = "shop.example", X = "1" }
      local r = assert(client:get("http://u:p@" .. server:address() .. "/", { redirects = 1, headers = headers }))
      assert.equal("-|-|" .. other:address(), r.body)
      assert.equal("me", headers.Authorization) -- The script's table stays as it is.
    end)
  end)

  it("resolve addresses as RFC 3986 does", function ()
    local redirect = require "shoal.run.http.redirect"
    local base = "http://a/b/c/d;p?q"
    for location, want in pairs { -- RFC 3986, 5.4. order-free: each by itself
      ["g"] = "http://a/b/c/g", ["./g"] = "http://a/b/c/g", ["g/"] = "http://a/b/c/g/", ["/g"] = "http://a/g", ["//g"] = "http://g",
      ["?y"] = "http://a/b/c/d;p?y", ["g?y"] = "http://a/b/c/g?y", ["#s"] = "http://a/b/c/d;p?q", ["g#s"] = "http://a/b/c/g",
      [";x"] = "http://a/b/c/;x", ["g;x?y#s"] = "http://a/b/c/g;x?y", ["."] = "http://a/b/c/", ["./"] = "http://a/b/c/",
      [".."] = "http://a/b/", ["../"] = "http://a/b/", ["../g"] = "http://a/b/g", ["../.."] = "http://a/", ["../../g"] = "http://a/g",
      ["../../../g"] = "http://a/g", ["/./g"] = "http://a/g", ["/../g"] = "http://a/g", ["g."] = "http://a/b/c/g.",
        ["..g"] = "http://a/b/c/..g",
      ["./../g"] = "http://a/b/g", ["g/./h"] = "http://a/b/c/g/h", ["g/../h"] = "http://a/b/c/h", ["g?y/../x"] = "http://a/b/c/g?y/../x",
      ["http://x/y#z"] = "http://x/y", ["a b"] = "http://a/b/c/a%20b",
    } do
      assert.equal(want, redirect.resolve(base, location), location)
    end
    assert.equal("http://h/g", redirect.resolve("http://h", "g"))
    assert.equal("http://h/?x", redirect.resolve("http://h?q", "?x"))
    assert.is_nil(redirect.resolve(base, "mailto:me"))
  end)
end)

describe("a compressed body", function ()
  local text = inflate_fixture.text
  local function serve(r)
    local coding, how = r.path:match "^/([^/]*)/?(.*)$"
    local body = inflate_fixture[coding] or text
    if how == "cut" then body = body:sub(1, -6) elseif how == "more" then body = body .. "garbage" end
    return { headers = { ["Content-Encoding"] = r.query ~= "" and r.query or coding, ["X-Asked"] = r.headers["accept-encoding"] or "-" },
      body = body }
  end

  it("is decoded when asked, and left as it is when not", function ()
    with(serve, function (client)
      for _, coding in ipairs { "gzip", "deflate", "identity" } do
        local r = assert(client:get("/" .. coding, { compressed = true }))
        assert.same({ text, "gzip, deflate" }, { r.body, r.headers["x-asked"] })
        if coding ~= "identity" then
          assert(r.body_bytes < #text / 2)
          r = assert(client:get("/" .. coding))
          assert.same({ inflate_fixture[coding], "-" }, { r.body, r.headers["x-asked"] })
        end
        local pieces = {}
        assert(client:get("/" .. coding, { compressed = true, response_body = function (piece) pieces[#pieces + 1] = piece end }))
        assert.equal(text, table.concat(pieces))
      end
      assert.equal(text, client:get("/raw?deflate", { compressed = true }).body) -- Without the zlib header, as some servers send it.
      assert.equal(text .. text, client:get("/twice?gzip", { compressed = true }).body)
      assert.equal(text, client:get("/double?gzip,x-gzip", { compressed = true }).body)
      assert.equal(text, client:get("/double?identity,GZIP,gzip", { compressed = true,
        response_body = function (piece) assert(#piece > 0) end }) and text)
      assert.equal("", client:head("/gzip", { compressed = true }).body)
      local r = client:get("/gzip", { compressed = true, response_body = "discard" })
      assert.same({ "", #inflate_fixture.gzip }, { r.body, r.body_bytes })
    end)
  end)

  it("that is cut, wrong, unknown or a bomb is refused", function ()
    with(serve, function (client)
      for path, want in pairs { -- order-free: each by itself
        ["/gzip/cut"] = "its end is missing", ["/deflate/cut"] = "its end is missing", ["/gzip/more"] = "bytes after its end",
        ["/plain?gzip"] = "not valid gzip", ["/plain?deflate"] = "not valid deflate", ["/plain?br"] = '"br" was not asked for',
        ["/gzip?gzip,gzip,gzip,gzip,gzip,gzip"] = "more than 5",
      } do
        local code, err = fails(client, path, { compressed = true })
        assert.same({ "BAD_CODING", "bad_coding" }, { code, http.kind(code) }, path)
        assert.matches(want, err)
        assert.equal("BAD_CODING", (fails(client, path, { compressed = true, response_body = function () end })), path)
      end
      assert.equal("TOO_LARGE", (fails(client, "/gzip", { compressed = true, max_body_bytes = #text - 1 })))
      assert(client:get("/gzip", { compressed = true, max_body_bytes = #text }))
      assert.equal("TOO_LARGE", (fails(client, "/bomb?gzip", { compressed = true }))) -- 17 MB from 17 kB.
      local most = 0
      assert(client:get("/bomb?gzip", { compressed = true, response_body = function (piece) most = math.max(most, #piece) end }))
      assert(most > 0 and most <= 4096 * 1032 + 32768)
    end)
  end)
end)
