--- shoal.core.http: bytes in, messages out, from hostile peers.
local http = require "shoal.core.http"

--- Feed in pieces of this size. Returns all messages, and the result of the last feed.
local function read(kind, text, size, limits, each)
  local parser, messages = http.parser(kind, limits), {}
  local from = 1
  while from <= #text do
    local piece, at = text:sub(from, from + size - 1), 1
    while at <= #piece do
      if each then each(parser) end
      local message, next_or_err, code = parser:feed(piece, at)
      if message == nil then return messages, next_or_err, code, parser end
      if not message then break end
      messages[#messages + 1] = message
      at = next_or_err
    end
    from = from + size
  end
  return messages, nil, nil, parser
end

local CODES = "MALFORMED UNSUPPORTED HEAD_TOO_LARGE TOO_LARGE BAD_LENGTH BAD_CODING BAD_CHUNK TRUNCATED"
local OK = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nx-a:  2 \r\nSet-Cookie: a=1\r\nSet-Cookie: b=2, c\r\nEmpty:\r\n\r\nhello"

describe("the parser", function ()
  it("reads a response whole and in pieces of every size", function ()
    for size = 1, #OK do
      local messages, err = read("response", OK, size)
      assert.is_nil(err)
      assert.equal(1, #messages)
      local m = messages[1]
      assert.same({ 200, "hello", true, 1 }, { m.status, m.body, m.keep_alive, m.minor })
      assert.same({ ["content-length"] = "5", ["x-a"] = "1, 2", ["set-cookie"] = { "a=1", "b=2, c" }, empty = "" }, m.headers)
      assert.equal(m.headers, m.headers)
      assert.same({ "5", "1, 2" }, { m.headers["content-LENGTH"], m.headers["X-A"] })
      assert.same({ { "1", "2" }, { "a=1", "b=2, c" }, {} }, { m:values "X-a", m:values "Set-Cookie", m:values "none" })
      assert.equal(5, m.body_bytes)
    end
  end)

  it("reads pipelined messages one by one and says where the next begins", function ()
    for _, size in ipairs { 1, 7, 1000 } do
      local messages, err = read("response", OK:rep(3), size)
      assert.is_nil(err)
      assert.equal(3, #messages)
    end
    local _, next = http.parser("response"):feed(OK .. OK)
    assert.equal(#OK + 1, next)
  end)

  it("reads chunked bodies, and passes over their trailers", function ()
    local text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrail: er\r\n\r\n"
    for size = 1, #text do
      local messages, err = read("response", text, size)
      assert.is_nil(err)
      assert.equal("abc0123456789", messages[1].body)
      assert.is_nil(messages[1].headers.trail)
    end
  end)

  it("knows the answers that have no body", function ()
    local head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    local messages = read("response", head .. head, 1000, nil, function (p) p:expect(true) end)
    assert.equal(2, #messages)
    assert.equal("", messages[1].body)
    for _, status in ipairs { 204, 304 } do
      for _, line in ipairs { "", "Content-Length: 500\r\n", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip\r\n" } do
        messages = read("response", ("HTTP/1.1 %d X\r\n%s\r\n"):format(status, line):rep(2), 1000)
        assert.same({ 2, "", true }, { #messages, messages[1].body, messages[2].keep_alive })
      end
    end
    local switched = http.parser "response":feed "HTTP/1.1 101 S\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\n"
    assert.same({ 101, "", false }, { switched.status, switched.body, switched.keep_alive })
  end)

  it("reads over interim responses, whatever their headers say, but not over more than 100", function ()
    local interim = "HTTP/1.1 100 Continue\r\nContent-Length: 10\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n"
    for _, size in ipairs { 1, 7, 1000 } do
      local messages = read("response", interim .. OK, size)
      assert.equal(1, #messages)
      assert.is_nil(messages[1].headers.link)
    end
    assert.equal(1, #read("response", interim:rep(50) .. OK, 1000))
    assert.equal("MALFORMED", (select(3, read("response", interim:rep(50) .. "HTTP/1.1 102 P\r\n\r\n" .. OK, 1000))))
    local parser = http.parser "response"
    parser:expect(true) -- A HEAD: its interim responses end at their heads too.
    assert.equal(200, (parser:feed(interim .. "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")).status)
  end)

  it("looks at both framings as RFC 9112 says", function ()
    local function response(lines, rest)
      return http.parser "response":feed("HTTP/1.1 200 OK\r\n" .. lines:gsub("\n", "\r\n") .. "\r\n" .. rest)
    end
    local chunks = "3\r\nabc\r\n0\r\n\r\n"
    for lines, want in pairs { -- order-free: each by itself
      ["Content-Length: 3\nTransfer-Encoding: chunked\n"] = { "abc", false },
      ["Transfer-Encoding: chunked\nContent-Length: 99\n"] = { "abc", false },
      ["Transfer-Encoding: Chunked\n"] = { "abc", true }, ["Transfer-Encoding: identity, chunked\n"] = { "abc", true },
      ["Transfer-Encoding: gzip, chunked\n"] = "BAD_CODING", ["Transfer-Encoding: gzip\n"] = "BAD_CODING",
      ["Transfer-Encoding: chunked, chunked\n"] = "BAD_CODING",
      ["Content-Length: 3\nContent-Length: 3\n"] = { "3\r\n", true }, ["Content-Length: 3, 3\n"] = { "3\r\n", true },
      ["Content-Length: 3\nContent-Length: 4\n"] = "BAD_LENGTH", ["Content-Length: 3, 4\n"] = "BAD_LENGTH",
      ["Content-Length: \n"] = "BAD_LENGTH", ["Content-Length: +3\n"] = "BAD_LENGTH", ["Content-Length: 0x3\n"] = "BAD_LENGTH",
      ["Content-Length: 3 4\n"] = "BAD_LENGTH", ["Content-Length: 9223372036854775808\n"] = "BAD_LENGTH",
    } do
      local message, _, code = response(lines, chunks)
      if type(want) == "string" then assert.equal(want, code, lines)
      else assert.same(want, { message.body, message.keep_alive }, lines) end
    end
    local parser = http.parser "response" -- RFC 9112, 6.3: a coding that is not chunked ends with the connection.
    assert.is_false(parser:feed "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabcd")
    assert.same({ "abcd", false }, (function (m) return { m.body, m.keep_alive } end)(parser:finish()))
    local old = http.parser "response":feed("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" .. chunks)
    assert.same({ "abc", false }, { old.body, old.keep_alive })
    for lines, want in pairs { -- order-free: each by itself
      ["Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"] = "BAD_LENGTH", ["Transfer-Encoding: gzip\r\n"] = "BAD_CODING",
    } do
      assert.equal(want, (select(3, http.parser "request":feed("POST / HTTP/1.1\r\n" .. lines .. "\r\n" .. chunks))))
    end
  end)

  it("refuses bad chunks as such, and reads the odd ones", function ()
    local head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for text, want in pairs { -- order-free: each by itself
      ["3\r\nabc\r\n0\r\n\r\n"] = "abc", ["0003 ; a=b\r\nabc\r\n000\r\n\r\n"] = "abc", ["3\nabc\n0\n\n"] = "abc",
      ["0\r\nA: b\r\n\r\n"] = "", ["a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n"] = "01234567890123456789a",
      ["\r\nabc\r\n"] = "BAD_CHUNK", ["-3\r\nabc\r\n"] = "BAD_CHUNK", [" 3\r\nabc\r\n"] = "BAD_CHUNK", ["3x\r\nabc"] = "BAD_CHUNK",
      ["0x3\r\nabc\r\n"] = "BAD_CHUNK", ["3\r\nabcd\r\n"] = "BAD_CHUNK", ["3\r\nabc\r\r\n"] = "BAD_CHUNK",
      ["7fffffffffffffff\r\n"] = "TOO_LARGE", ["8000000000000000\r\n"] = "BAD_CHUNK", ["00000000000000003\r\n"] = "BAD_CHUNK",
      ["3;" .. ("x"):rep(16000) .. "\r\nabc\r\n0\r\n\r\n"] = "abc", ["3;" .. ("x"):rep(16400) .. "\r\n"] = "BAD_CHUNK",
      ["0\r\nA: " .. ("x"):rep(256 * 1024) .. "\r\n\r\n"] = "HEAD_TOO_LARGE",
    } do
      for _, size in ipairs { 1, 5, 1000000 } do
        local messages, _, code = read("response", head .. text .. (want == "TOO_LARGE" and ("x"):rep(20) or ""), size, { body_bytes = 21 })
        if want == "TOO_LARGE" then assert(not messages[1])
        else assert.equal(want, code or messages[1] and messages[1].body, text:sub(1, 40)) end
      end
    end
  end)

  it("joins folded values with one blank, and takes lines that end with LF alone", function ()
    local m = http.parser "response":feed "HTTP/1.1 200\nA: b\n  c \n\td\nB:\n e\nC: \n \nContent-Length: 0\n\n"
    assert.same({ a = "b c d", b = "e", c = "", ["content-length"] = "0" }, m.headers)
    assert.equal("MALFORMED", (select(3, http.parser "response":feed "HTTP/1.1 200 OK\r\n A: b\r\n\r\n")))
  end)

  it("keeps, discards or hands out a body in pieces", function ()
    local text = "HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
    for size = 1, #text do
      local parser, got = http.parser("response", { body_bytes = 4 }), {}
      parser:expect(false, "discard", 0)
      local m
      for at = 1, #text, size do m = parser:feed(text:sub(at, at + size - 1)) end
      assert.same({ "", 6, "b" }, { m.body, m.body_bytes, m.headers["x-a"] })
      parser:expect(false, "pieces", 0)
      for at = 1, #text, size do
        m = parser:feed(text:sub(at, at + size - 1))
        local head = parser:head()
        assert(m or not head or head.headers["x-a"] == "b")
        got[#got + 1] = m and m.body or parser:take()
      end
      assert.same({ "abcdef", 6 }, { table.concat(got), m.body_bytes })
      for at = 1, #text, size do -- The settings were for one message.
        local _, code
        m, _, code = parser:feed(text:sub(at, at + size - 1))
        if m == nil then assert.equal("TOO_LARGE", code) break end
      end
      assert.is_nil(m)
    end
    assert.is_nil(http.parser "response":head())
    assert.has_error(function () http.parser "response":expect(false, "burn") end)
  end)

  it("reads the hints of Keep-Alive", function ()
    local function hints(value)
      local m = http.parser "response":feed("HTTP/1.1 204 No\r\nKeep-Alive: " .. value .. "\r\n\r\n")
      return { m.idle_s or false, m.keep_alive }
    end
    assert.same({ 5, true }, hints "timeout=5, max=100")
    assert.same({ 0, true }, hints "max=3,Timeout=0")
    assert.same({ 1000000, false }, hints "max=0, timeout=99999999999999999999")
    assert.same({ false, true }, hints "timeout=, timeout")
  end)

  it("takes the end of the connection for the end of a body that has no other", function ()
    local parser = http.parser "response"
    assert.is_false(parser:feed "HTTP/1.0 200 OK\r\n\r\nall of")
    assert.is_false(parser:feed " it")
    local m = assert(parser:finish())
    assert.equal("all of it", m.body)
    assert.is_false(m.keep_alive)
  end)

  it("says whether the connection lives on", function ()
    for text, lives in pairs {
      ["HTTP/1.1 204 X\r\n\r\n"] = true, ["HTTP/1.1 204 X\r\nConnection: close\r\n\r\n"] = false,
      ["HTTP/1.0 204 X\r\n\r\n"] = false, ["HTTP/1.0 204 X\r\nConnection: keep-alive\r\n\r\n"] = true,
      ["HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"] = false,
    } do
      assert.equal(lives, (http.parser "response":feed(text)).keep_alive, text)
    end
  end)

  it("an end within a message is TRUNCATED, between messages it is nothing", function ()
    assert.is_false(http.parser "response":finish())
    for cut = 1, #OK - 1 do
      local parser = http.parser "response"
      assert.is_false(parser:feed(OK:sub(1, cut)))
      assert.is_true(parser:begun())
      local m, err, code = parser:finish()
      assert.is_nil(m)
      assert.is_string(err)
      assert.equal("TRUNCATED", code)
    end
    local parser = http.parser "response"
    assert(parser:feed(OK))
    assert.is_false(parser:begun())
    assert.is_false(parser:finish())
  end)

  it("reads requests", function ()
    local text = "POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for size = 1, #text do
      local messages, err = read("request", text, size)
      assert.is_nil(err)
      assert.same({ "POST", "/a?b=c", "abc", "x" }, { messages[1].method, messages[1].target, messages[1].body, messages[1].headers.host })
      assert.same({ "GET", "/", "" }, { messages[2].method, messages[2].target, messages[2].body })
    end
  end)

  it("refuses what is no HTTP, and goes on refusing", function ()
    for text, want in pairs { -- order-free: each by itself
      ["hello\r\n\r\n"] = "MALFORMED", ["hello"] = "MALFORMED", ["\r\nHTTP/1.1 200 OK\r\n\r\n"] = "MALFORMED",
      ["HTTP/1.1 2x0 OK\r\n\r\n"] = "MALFORMED", ["HTTP/1.1 20 OK\r\n\r\n"] = "MALFORMED", ["HTTP/1.1 099 A\r\n\r\n"] = "MALFORMED",
      ["HTTP/1.1 2000 OK\r\n\r\n"] = "MALFORMED", ["http/1.1 200 OK\r\n\r\n"] = "MALFORMED", ["ICY 200 OK\r\n\r\n"] = "MALFORMED",
      ["HTTP/2.0 200 OK\r\n\r\n"] = "UNSUPPORTED", ["HTTP/2 200\r\n\r\n"] = "UNSUPPORTED", ["HTTP/0.9 200\r\n\r\n"] = "UNSUPPORTED",
      ["HTTP/1.1 200 OK\r\nBad Header: 1\r\n\r\n"] = "MALFORMED", ["HTTP/1.1 200 OK\r\nA : 1\r\n\r\n"] = "MALFORMED",
      ["HTTP/1.1 200 OK\r\nno colon\r\n\r\n"] = "MALFORMED", ["HTTP/1.1 200 OK\r\n: 1\r\n\r\n"] = "MALFORMED",
      ["HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n"] = "MALFORMED", ["HTTP/1.1 200 OK\r\nA: \0\r\n\r\n"] = "MALFORMED",
      ["HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"] = "BAD_LENGTH",
      ["HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"] = "BAD_LENGTH",
      ["HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"] = "BAD_LENGTH",
      ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"] = "BAD_CHUNK",
    } do
      local parser = http.parser "response"
      local m, err, code = parser:feed(text)
      assert.is_nil(m, text)
      assert.equal(want, code, text)
      assert.same({ nil, err, code }, { parser:feed(OK) })
      assert.same({ nil, err, code }, { parser:finish() })
    end
  end)

  it("keeps its limits: at them it reads, one past them it is TOO_LARGE", function ()
    local function body(n) return ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(n, ("x"):rep(n)) end
    local function chunked(n) return ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"):format(n, ("x"):rep(n)) end
    local function headers(n) return "HTTP/1.1 200 OK\r\n" .. ("a: b\r\n"):rep(n) .. "Content-Length: 0\r\n\r\n" end
    for text, code in pairs {
      [body(10)] = "", [body(11)] = "TOO_LARGE", [chunked(10)] = "", [chunked(11)] = "TOO_LARGE",
      [headers(4)] = "", [headers(5)] = "HEAD_TOO_LARGE",
      ["HTTP/1.1 200 OK\r\nName: " .. ("v"):rep(92) .. "\r\nContent-Length: 0\r\n\r\n"] = "HEAD_TOO_LARGE",
      ["HTTP/1.1 204 No\r\nName: " .. ("v"):rep(89) .. "\r\n\r\n"] = "", ["HTTP/1.1 204 No\r\nName: " .. ("v"):rep(93)
        .. "\r\n\r\n"] = "HEAD_TOO_LARGE",
    } do
      local messages, _, found = read("response", text, 16, { body_bytes = 10, headers = 5, head_bytes = 100 })
      assert.equal(code, found or "", text)
      assert.equal(code == "" and 1 or 0, #messages)
    end
    assert.has_error(function () http.parser("response", { headers = 0 }) end)
    assert.has_error(function () http.parser("sideways") end)
  end)

  it("F70: stands 10^5 mutated messages: a message, a refusal, or a wish for more, never a crash", function ()
    local seeds = {
      response = {
        OK, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: e\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nto the end", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\nConnection: close\r\n\r\n",
      },
      request = { "POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        "GET http://h:1/ HTTP/1.1\r\nUpgrade: h\r\nConnection: upgrade\r\n\r\n" },
    }
    local state = 20240607
    local function random(n) -- Our own, so that a failed run can be repeated.
      state = (state * 6364136223846793005 + 1442695040888963407) & 0xffffffffffffffff
      return (state >> 33) % n + 1
    end
    local function mutate(text)
      for _ = 1, random(4) do
        local at, what = random(#text + 1), random(5)
        local byte = string.char(random(256) - 1)
        if what == 1 then text = text:sub(1, at - 1) .. byte .. text:sub(at + 1)
        elseif what == 2 then text = text:sub(1, at - 1) .. byte .. text:sub(at)
        elseif what == 3 then text = text:sub(1, at - 1) .. text:sub(at + random(8))
        elseif what == 4 then text = text .. text:sub(at, at + random(40))
        else text = text:sub(1, at - 1) .. "\r\n" .. text:sub(at) end
        if text == "" then text = byte end
      end
      return text
    end
    local counts = { message = 0, refused = 0, more = 0 }
    local limits = { body_bytes = 4096, head_bytes = 512, headers = 16 }
    for i = 1, 100000 do
      local kind = i % 3 == 0 and "request" or "response"
      local text = mutate(seeds[kind][random(#seeds[kind])])
      local messages, err, code, parser = read(kind, text, random(#text), limits)
      for _, m in ipairs(messages) do
        for name, value in pairs(m.headers) do
          assert(type(name) == "string" and type(value) == (name == "set-cookie" and "table" or "string"))
        end
      end
      if err then
        assert(CODES:find(code, 1, true), code)
        counts.refused = counts.refused + 1
      elseif #messages > 0 then
        counts.message = counts.message + 1
      else
        counts.more = counts.more + 1
      end
      local last, problem = parser:finish()
      assert(last ~= nil or type(problem) == "string")
    end
    for what, count in pairs(counts) do assert(count > 5000, what .. " " .. count) end -- The mutations reach every outcome.
    assert.equal(100000, counts.message + counts.refused + counts.more)
  end)
end)

describe("url", function ()
  it("is taken apart", function ()
    for text, want in pairs { -- order-free: each by itself
      ["http://127.0.0.1:8081/a/b?c=d#e"] = { "http", "127.0.0.1", 8081, "/a/b?c=d" }, ["http://h"] = { "http", "h", 80, "/" },
      ["https://h?q"] = { "https", "h", 443, "/?q" }, ["http://[::1]/"] = { "http", "::1", 80, "/" },
      ["http://[2001:DB8::1]:8080#f"] = { "http", "2001:db8::1", 8080, "/" }, ["http://h#/a"] = { "http", "h", 80, "/" },
      ["HTTP://Shop.Example/A%20b?X=Y"] = { "http", "shop.example", 80, "/A%20b?X=Y" }, ["hTTps://H/"] = { "https", "h", 443, "/" },
      ["http://h:/a"] = { "http", "h", 80, "/a" }, ["http://h:80/a"] = { "http", "h", 80, "/a" }, ["http://h:65535"] = { "http", "h", 65535,
        "/" },
      ["http://h:0080/"] = { "http", "h", 80, "/" }, ["http://h?a#b?c"] = { "http", "h", 80, "/?a" },
      ["http://me:pa%40ss@h/"] = { "http", "h", 80, "/", "me:pa%40ss" }, ["http://a@b@h:1/"] = { "http", "h", 1, "/", "a@b" },
      ["http://@h/"] = { "http", "h", 80, "/", "" }, ["http://h/@a:b"] = { "http", "h", 80, "/@a:b" }, ["ftp://h/x"] = { "ftp", "h", 80, "/x" },
      ["http://h//a/../b"] = { "http", "h", 80, "//a/../b" }, ["http://h/\u{e9}"] = { "http", "h", 80, "/\u{e9}" },
    } do
      assert.same(want, { http.url(text) }, text)
    end
    assert(http.url("http://h/" .. ("x"):rep(8192 - 9)))
  end)

  it("that is none is refused", function ()
    for _, text in ipairs {
      "", "/path", "h:80", "http://", "http:///a", "http://:80/", "http://h:99999/", "http://h:65536/", "http://h:0/", "http://h:8a/",
        "http://h/a b",
      "http://h/\r\nX: y", "http://h/\0", "http://h\127/", "http://" .. ("h"):rep(9000), "http://h/" .. ("x"):rep(8192 - 8), "http:/h/",
        "http:h",
      "://h/", "1http://h/", "http://[::1/", "http://[]/", "http://[::1%25eth0]/", "http://[::1]x/", "http://[h]/", "http://h%41/",
        "http://h\\a/",
      "http://caf\u{e9}.example/", "http://a b@h/", "http://me@/", "http://h<x>/", 'http://h"/',
    } do
      local none, err, code = http.url(text)
      assert.is_nil(none, text)
      assert.is_string(err)
      assert.equal("MALFORMED", code)
    end
  end)
end)

describe("a token", function ()
  it("is what RFC 9110 says", function ()
    for _, text in ipairs { "GET", "X-A", "!#$%&'*+-.^_`|~09azAZ" } do assert.is_true(http.token(text), text) end
    for _, text in ipairs { "", "A B", "A:", "A\r\n", "A\0", "(a)", "a/b", "\u{e9}", "a\127", "a\t" } do assert.is_false(http.token(text),
      text) end
  end)
end)
