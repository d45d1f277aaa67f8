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

local OK = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nx-a:  2 \r\nSet-Cookie: a=1\r\nSet-Cookie: b=2, c\r\nEmpty:\r\n\r\nhello"

describe("the parser", function ()
  it("reads a response whole and in pieces of every size", function ()
    for size = 1, #OK do
      local messages, err = read("response", OK, size)
      assert.is_nil(err)
      assert.equal(1, #messages)
      local m = messages[1]
      assert.same({ 200, "hello", true, 1 }, { m.status, m.body, m.keep_alive, m.minor })
      assert.same({ ["content-length"] = "5", ["x-a"] = "1, 2", ["set-cookie"] = "a=1\nb=2, c", empty = "" }, m.headers)
      assert.equal(m.headers, m.headers)
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
    local messages = read("response", head .. head, 1000, nil, function (p) p:expect_no_body() end)
    assert.equal(2, #messages)
    assert.equal("", messages[1].body)
    for _, status in ipairs { 204, 304 } do
      messages = read("response", ("HTTP/1.1 %d X\r\n\r\n"):format(status):rep(2), 1000)
      assert.equal(2, #messages)
    end
  end)

  it("reads over interim responses", function ()
    local messages = read("response", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n" .. OK, 1)
    assert.equal(1, #messages)
    assert.is_nil(messages[1].headers.link)
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

  it("an end within a message is malformed, between messages it is nothing", function ()
    assert.is_false(http.parser "response":finish())
    for cut = 1, #OK - 1 do
      local parser = http.parser "response"
      assert.is_false(parser:feed(OK:sub(1, cut)))
      assert.is_true(parser:begun())
      local m, err, code = parser:finish()
      assert.is_nil(m)
      assert.is_string(err)
      assert.equal("MALFORMED", code)
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
    for _, text in ipairs {
      "hello\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nBad Header: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
      "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    } do
      local parser = http.parser "response"
      local m, err, code = parser:feed(text)
      assert.is_nil(m, text)
      assert.equal("MALFORMED", code)
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
      [headers(4)] = "", [headers(5)] = "TOO_LARGE",
      ["HTTP/1.1 200 OK\r\nName: " .. ("v"):rep(200) .. "\r\n\r\n"] = "TOO_LARGE",
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
        for name, value in pairs(m.headers) do assert(type(name) == "string" and type(value) == "string") end
      end
      if err then
        assert(code == "MALFORMED" or code == "TOO_LARGE", code)
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
    assert.same({ "http", "127.0.0.1", 8081, "/a/b?c=d" }, { http.url "http://127.0.0.1:8081/a/b?c=d#e" })
    assert.same({ "http", "h", 80, "/" }, { http.url "http://h" })
    assert.same({ "https", "h", 443, "/?q" }, { http.url "https://h?q" })
    assert.same({ "http", "::1", 80, "/" }, { http.url "http://[::1]/" })
  end)

  it("that is none is refused", function ()
    for _, text in ipairs {
      "", "/path", "h:80", "http://", "http://u:p@h/", "http://h:99999/", "http://h/a b", "http://h/\r\nX: y", "http://" .. ("h"):rep(9000),
    } do
      local none, err, code = http.url(text)
      assert.is_nil(none, text)
      assert.is_string(err)
      assert.equal("MALFORMED", code)
    end
  end)
end)
