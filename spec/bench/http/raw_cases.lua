--- Responses as bytes, each with the right verdict: cases of `scripts/bench http_corpus`, and of spec/lua/http_corpus_spec.lua.
---
--- A case: name, the bytes (a list: pieces, sent 5 ms apart), `want`: { status, body } or the code of the refusal. `after`: "keep" (the
--- default) or "close" or "hang". `method`, `headers`, `options`: of the request. `differs`: why curl's verdict is another one.
local cases = {}

local function case(name, bytes, want, more)
  local c = { name = name, bytes = type(bytes) == "table" and bytes or { bytes }, want = want }
  for field, value in pairs(more or {}) do c[field] = value end -- order-free: a copy
  cases[#cases + 1] = c
end

local OK = "HTTP/1.1 200 OK\r\n"
local LEN3 = OK .. "Content-Length: 3\r\n\r\n"
local CHUNKED = OK .. "Transfer-Encoding: chunked\r\n\r\n"
local CLOSE, HANG = { after = "close" }, { after = "hang" }
local function head(more) return { method = "HEAD", after = more } end
local function close_with(why) return { after = "close", differs = why } end
local function differs(why) return { differs = why } end

-- Plain framing
case("length", LEN3 .. "abc", { 200, "abc" })
case("length-zero", OK .. "Content-Length: 0\r\n\r\n", { 200, "" })
case("length-in-pieces", { "HTT", "P/1.1 200 O", "K\r", "\nContent-Le", "ngth: 3\r\n\r", "\na", "bc" }, { 200, "abc" })
case("length-leading-zeros", OK .. "Content-Length: 0003\r\n\r\nabc", { 200, "abc" })
case("length-blanks-around", OK .. "Content-Length: \t 3 \t\r\n\r\nabc", { 200, "abc" })
case("length-twice-the-same", OK .. "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })
case("length-list-the-same", OK .. "Content-Length: 3, 3\r\n\r\nabc", { 200, "abc" })
case("length-two-differ", OK .. "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "BAD_LENGTH",
  differs "RFC 9112, 6.3: two different lengths are an error that cannot be recovered; curl takes the last")
case("length-list-differs", OK .. "Content-Length: 3, 4\r\n\r\nabcd", "BAD_LENGTH",
  differs "RFC 9112, 6.3: two different lengths are an error that cannot be recovered; curl takes the first")
case("length-negative", OK .. "Content-Length: -3\r\n\r\nabc", "BAD_LENGTH", CLOSE)
case("length-plus", OK .. "Content-Length: +3\r\n\r\nabc", "BAD_LENGTH",
  close_with "RFC 9110, 8.6: Content-Length = 1*DIGIT; curl takes a sign")
case("length-hexadecimal", OK .. "Content-Length: 0x3\r\n\r\nabc", "BAD_LENGTH",
  close_with "RFC 9110, 8.6: Content-Length = 1*DIGIT; curl reads the digits before the x")
case("length-text", OK .. "Content-Length: three\r\n\r\nabc", "BAD_LENGTH", CLOSE)
case("length-empty", OK .. "Content-Length:\r\n\r\nabc", "BAD_LENGTH", CLOSE)
case("length-two-numbers", OK .. "Content-Length: 3 4\r\n\r\nabc", "BAD_LENGTH",
  close_with "RFC 9110, 8.6: Content-Length = 1*DIGIT; curl reads the first number")
case("length-too-large-for-64-bits", OK .. "Content-Length: 99999999999999999999\r\n\r\nabc", "BAD_LENGTH",
  close_with "RFC 9112, 6.3: an invalid length is an error; curl reads until the end")
case("length-short-body", OK .. "Content-Length: 5\r\n\r\nabc", "TRUNCATED", CLOSE)
case("length-no-body-at-all", OK .. "Content-Length: 5\r\n\r\n", "TRUNCATED", CLOSE)
case("length-long-body", OK .. "Content-Length: 3\r\n\r\nabcdef", { 200, "abc" }, CLOSE)
case("length-then-silence", OK .. "Content-Length: 5\r\n\r\nabc", "TIMEOUT", HANG)
case("until-end", OK .. "\r\nabc", { 200, "abc" }, CLOSE)
case("until-end-empty", OK .. "\r\n", { 200, "" }, CLOSE)
case("until-end-http-1.0", "HTTP/1.0 200 OK\r\n\r\nabc", { 200, "abc" }, CLOSE)
case("until-end-with-keep-alive", OK .. "Connection: keep-alive\r\n\r\nabc", { 200, "abc" }, CLOSE)
case("until-end-large", OK .. "\r\n" .. ("0123456789"):rep(20000), { 200, ("0123456789"):rep(20000) }, CLOSE)
case("http-1.0-length", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" }, CLOSE)
case("http-1.0-keep-alive", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })
case("connection-close", OK .. "Connection: close\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" }, CLOSE)
case("connection-list", OK .. "Connection: foo, Close\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" }, CLOSE)
case("keep-alive-hint", OK .. "Keep-Alive: timeout=5, max=100\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })

-- Chunks
case("chunked", CHUNKED .. "3\r\nabc\r\n0\r\n\r\n", { 200, "abc" })
case("chunked-empty", CHUNKED .. "0\r\n\r\n", { 200, "" })
case("chunked-in-pieces", { CHUNKED, "3", "\r", "\nab", "c\r", "\n", "0", "\r\n", "\r\n" }, { 200, "abc" })
case("chunked-many", CHUNKED .. ("5\r\nabcde\r\n"):rep(500) .. "0\r\n\r\n", { 200, ("abcde"):rep(500) })
case("chunked-upper-case", OK .. "Transfer-Encoding: CHUNKED\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", { 200, "0123456789" })
case("chunked-lower-case-hex", CHUNKED .. "a\r\n0123456789\r\n0\r\n\r\n", { 200, "0123456789" })
case("chunked-extension", CHUNKED .. "3;name=value\r\nabc\r\n0;x\r\n\r\n", { 200, "abc" })
case("chunked-extension-quoted", CHUNKED .. '3;name="a;b"\r\nabc\r\n0\r\n\r\n', { 200, "abc" })
case("chunked-blank-before-extension", CHUNKED .. "3 ;x=y\r\nabc\r\n0\r\n\r\n", { 200, "abc" })
case("chunked-blank-after-size", CHUNKED .. "3 \r\nabc\r\n0\r\n\r\n", { 200, "abc" })
case("chunked-trailer", CHUNKED .. "3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", { 200, "abc" })
case("chunked-leading-zeros", CHUNKED .. "0003\r\nabc\r\n0000\r\n\r\n", { 200, "abc" })
case("chunked-16-digits", CHUNKED .. "0000000000000003\r\nabc\r\n0\r\n\r\n", { 200, "abc" })
case("chunked-17-digits", CHUNKED .. "00000000000000003\r\nabc\r\n0\r\n\r\n", "BAD_CHUNK", CLOSE)
case("chunked-line-feeds", CHUNKED .. "3\nabc\n0\n\n", { 200, "abc" })
case("chunked-no-size", CHUNKED .. "\r\nabc\r\n0\r\n\r\n", "BAD_CHUNK", CLOSE)
case("chunked-text-for-a-size", CHUNKED .. "xyz\r\nabc\r\n0\r\n\r\n", "BAD_CHUNK", CLOSE)
case("chunked-negative", CHUNKED .. "-3\r\nabc\r\n0\r\n\r\n", "BAD_CHUNK", CLOSE)
case("chunked-0x", CHUNKED .. "0x3\r\nabc\r\n0\r\n\r\n", "BAD_CHUNK", CLOSE)
case("chunked-junk-after-size", CHUNKED .. "3xyz\r\nabc\r\n0\r\n\r\n", "BAD_CHUNK",
  close_with "RFC 9112, 7.1: chunk-size = 1*HEXDIG; curl skips the rest of the line")
case("chunked-larger-than-63-bits", CHUNKED .. "8000000000000000\r\nabc", "BAD_CHUNK", CLOSE)
case("chunked-data-too-long", CHUNKED .. "3\r\nabcd\r\n0\r\n\r\n", "BAD_CHUNK", CLOSE)
case("chunked-data-takes-the-cr", CHUNKED .. "4\r\nabc\r\n0\r\n\r\n", { 200, "abc\r" }) -- A line may end with LF alone.
case("chunked-data-too-short", CHUNKED .. "5\r\nabc\r\n0\r\n\r\n", "BAD_CHUNK", CLOSE)
case("chunked-cut-in-data", CHUNKED .. "5\r\nabc", "TRUNCATED", CLOSE)
case("chunked-cut-after-data", CHUNKED .. "3\r\nabc\r\n", "TRUNCATED", CLOSE)
case("chunked-cut-in-size", CHUNKED .. "3\r\nabc\r\n1", "TRUNCATED", CLOSE)
case("chunked-cut-in-last", CHUNKED .. "3\r\nabc\r\n0\r\n", "TRUNCATED", CLOSE)
case("chunked-cut-in-trailer", CHUNKED .. "3\r\nabc\r\n0\r\nX-Sum: 1\r\n", "TRUNCATED", CLOSE)
case("chunked-cut-at-once", CHUNKED, "TRUNCATED", CLOSE)
case("chunked-then-silence", CHUNKED .. "3\r\nabc\r\n", "TIMEOUT", HANG)
case("chunked-and-length", OK .. "Transfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n3\r\nabc\r\n0\r\n\r\n", { 200, "abc" }, CLOSE)
case("length-and-chunked", OK .. "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", { 200, "abc" }, CLOSE)
case("chunked-and-bad-length", OK .. "Transfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "BAD_LENGTH", CLOSE)
case("chunked-http-1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", { 200, "abc" }, CLOSE)
case("chunked-identity", OK .. "Transfer-Encoding: identity, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", { 200, "abc" })
case("coding-identity", OK .. "Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" }, CLOSE)
case("coding-identity-kept-open", OK .. "Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", "TIMEOUT", HANG)
case("coding-unknown", OK .. "Transfer-Encoding: rot13\r\n\r\nnop", "BAD_CODING", CLOSE)
case("coding-unknown-before-chunked", OK .. "Transfer-Encoding: rot13, chunked\r\n\r\n3\r\nnop\r\n0\r\n\r\n", "BAD_CODING", CLOSE)
case("chunked-two-lines", OK .. "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "BAD_CODING",
  close_with "RFC 9112, 6.1: chunked must not be applied twice; curl takes it once")

-- No body
for _, status in ipairs { 204, 304 } do
  local line = ("HTTP/1.1 %d X\r\n"):format(status)
  case(status .. "", line .. "\r\n", { status, "" })
  case(status .. "-length", line .. "Content-Length: 500\r\n\r\n", { status, "" })
  case(status .. "-chunked", line .. "Transfer-Encoding: chunked\r\n\r\n", { status, "" })
  case(status .. "-etag", line .. 'ETag: "x"\r\n\r\n', { status, "" })
end
case("head-length", OK .. "Content-Length: 500\r\n\r\n", { 200, "" }, head())
case("head-chunked", OK .. "Transfer-Encoding: chunked\r\n\r\n", { 200, "" }, head())
case("head-neither", OK .. "X: 1\r\n\r\n", { 200, "" }, head "close")
case("head-404", "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n", { 404, "" }, head())
case("head-bad-length", OK .. "Content-Length: x\r\n\r\n", { 200, "" }, { method = "HEAD", after = "close",
  differs = "RFC 9112, 6.3: a response to a HEAD ends with its head, whatever its framing headers say; curl refuses the length" })
case("205-length", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", { 205, "" })

-- Interim responses
local function interim(status, more) return ("HTTP/1.1 %d Wait\r\n%s\r\n"):format(status, more or "") end
case("100", interim(100) .. LEN3 .. "abc", { 200, "abc" })
case("102", interim(102) .. LEN3 .. "abc", { 200, "abc" })
case("103", interim(103, "Link: </a>; rel=preload\r\n") .. LEN3 .. "abc", { 200, "abc" })
case("199", interim(199) .. LEN3 .. "abc", { 200, "abc" })
case("100-103-103", interim(100) .. interim(103):rep(2) .. LEN3 .. "abc", { 200, "abc" })
case("103-in-pieces", { "HTTP/1.1 103 E\r\n", "Link: x\r\n\r", "\nHTTP/1.1 2", "00 OK\r\nContent-Length: 3\r\n\r\nabc" }, { 200, "abc" })
case("100-length", interim(100, "Content-Length: 5\r\n") .. LEN3 .. "abc", { 200, "abc" })
case("100-then-204", interim(100) .. "HTTP/1.1 204 No\r\n\r\n", { 204, "" })
case("103-then-head", interim(103) .. OK .. "Content-Length: 3\r\n\r\n", { 200, "" }, head())
case("100-then-end", interim(100), "TRUNCATED", CLOSE)
case("101-unasked", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "BAD_UPGRADE", CLOSE)

-- First lines
case("no-reason", "HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })
case("no-reason-no-blank", "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })
case("long-reason", "HTTP/1.1 200 " .. ("x"):rep(5000) .. "\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })
case("reason-not-ascii", "HTTP/1.1 200 \xe9t\xe9\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })
case("status-299", "HTTP/1.1 299 X\r\nContent-Length: 3\r\n\r\nabc", { 299, "abc" })
case("status-599", "HTTP/1.1 599 X\r\nContent-Length: 3\r\n\r\nabc", { 599, "abc" })
case("status-999", "HTTP/1.1 999 X\r\nContent-Length: 3\r\n\r\nabc", { 999, "abc" })
case("status-2-digits", "HTTP/1.1 20 OK\r\nContent-Length: 3\r\n\r\nabc", "MALFORMED", CLOSE)
case("status-4-digits", "HTTP/1.1 2000 OK\r\nContent-Length: 3\r\n\r\nabc", "MALFORMED", CLOSE)
case("status-text", "HTTP/1.1 abc OK\r\nContent-Length: 3\r\n\r\nabc", "MALFORMED", CLOSE)
case("version-2", "HTTP/2.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", "UNSUPPORTED",
  close_with "RFC 9112, 2.3: this form is that of HTTP/1 messages, and its minor version tells how to read them; curl takes any")
case("version-lower-case", "http/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "MALFORMED",
  close_with "RFC 9112, 2.3: HTTP-name is case-sensitive; curl takes it")
case("icy", "ICY 200 OK\r\nContent-Length: 3\r\n\r\nabc", "MALFORMED", CLOSE)
case("http-0.9", "<html>hello</html>\n", "MALFORMED", CLOSE)
case("ssh", "SSH-2.0-OpenSSH_9.2\r\n", "MALFORMED", CLOSE)
case("empty-line-first", "\r\n" .. LEN3 .. "abc", "MALFORMED", CLOSE)
case("nothing", "", "DISCONNECTED", CLOSE)
case("first-line-cut", "HTTP/1.1 2", "TRUNCATED", CLOSE)

-- Headers
case("header-empty", OK .. "X-Empty:\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })
case("header-twice", OK .. "X-A: 1\r\nx-a: 2\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })
case("header-cookies", OK .. "Set-Cookie: a=1, x\r\nSet-Cookie: b=2\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })
case("header-not-ascii", OK .. "X-A: caf\xe9\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })
case("header-many", OK .. ("X-A: b\r\n"):rep(200) .. "Content-Length: 3\r\n\r\nabc", { 200, "abc" })
case("header-60-KB", OK .. "X-A: " .. ("x"):rep(60000) .. "\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })
case("header-400-KB", OK .. "X-A: " .. ("x"):rep(400000) .. "\r\nContent-Length: 3\r\n\r\nabc", "HEAD_TOO_LARGE", CLOSE)
case("header-many-lines-of-400-KB", OK .. ("X-A: " .. ("x"):rep(4000) .. "\r\n"):rep(100) .. "Content-Length: 3\r\n\r\nabc", "HEAD_TOO_LARGE",
  CLOSE)
case("header-no-colon", OK .. "no colon\r\nContent-Length: 3\r\n\r\nabc", "MALFORMED", CLOSE)
case("header-no-name", OK .. ": 1\r\nContent-Length: 3\r\n\r\nabc", "MALFORMED",
  close_with "RFC 9112, 5: field-name = token; curl takes an empty one")
case("header-blank-before-colon", OK .. "X-A : 1\r\nContent-Length: 3\r\n\r\nabc", "MALFORMED",
  close_with "RFC 9112, 5.1: no blank stands between name and colon; curl takes it")
case("header-blank-in-name", OK .. "X A: 1\r\nContent-Length: 3\r\n\r\nabc", "MALFORMED",
  close_with "RFC 9112, 5: field-name = token; curl takes any byte")
case("header-nul", OK .. "X-A: a\0b\r\nContent-Length: 3\r\n\r\nabc", "MALFORMED", CLOSE)
case("header-bare-cr", OK .. "X-A: a\rb\r\nContent-Length: 3\r\n\r\nabc", "MALFORMED",
  close_with "RFC 9112, 2.2: a bare CR makes the element invalid; curl takes it")
case("header-folded", OK .. "X-A: a\r\n  b\r\n\tc\r\nContent-Length: 3\r\n\r\nabc", { 200, "abc" })
case("header-fold-first", OK .. " X-A: a\r\nContent-Length: 3\r\n\r\nabc", "MALFORMED", CLOSE)
case("header-line-feeds", "HTTP/1.1 200 OK\nX-A: b\nContent-Length: 3\n\nabc", { 200, "abc" })
case("head-cut", OK .. "X-A: b\r\n", "TRUNCATED", close_with "RFC 9112, 8: a head that is cut is incomplete; curl takes it as a whole one")
case("head-cut-in-line", OK .. "X-A", "TRUNCATED", close_with "RFC 9112, 8: a head that is cut is incomplete; curl takes it as a whole one")

return cases
