local cookies = require "shoal.run.http.cookies"

describe("a cookie jar", function ()
  local now, jar
  before_each(function ()
    now = 1000000000
    jar = cookies.new(function () return now end)
  end)

  --- Store these lines from this host and path; what is sent then to each { host, path, secure }.
  local function sent(host, path, lines, ...)
    jar:store(host, path, lines)
    local out = {}
    for i, to in ipairs { ... } do out[i] = jar:header(to[1], to[2] or "/", to[3] or false) or "-" end
    return out
  end

  it("sends a cookie to the host that set it, and with Domain to those below", function ()
    assert.same({ "a=1", "-", "-", "-" },
      sent("shop.example", "/", { "a=1" }, { "shop.example" }, { "www.shop.example" }, { "example" }, { "other.example" }))
    assert.same({ "a=1; b=2", "b=2", "b=2", "-", "-" }, sent("shop.example", "/", { "b=2; Domain=.Shop.Example" },
      { "shop.example" }, { "www.shop.example" }, { "a.b.shop.example" }, { "badshop.example" }, { "example" }))
    assert.same({ "b=2; c=3", "a=1; b=2; c=3" }, sent("shop.example", "/", { "c=3; domain=shop.example; Domain=" },
      { "x.shop.example" , "/x" }, { "shop.example" }))
  end)

  it("refuses the domains of others, single words, and parts of numeric addresses", function ()
    for host, domain in pairs {
      ["shop.example"] = "other.example", ["www.shop.example"] = "example", ["a.shop.example"] = "b.shop.example", ["127.0.0.1"] = "0.0.1",
      ["x.shop.example"] = "y.x.shop.example",
    } do
      assert.same({ "-" }, sent(host, "/", { "a=1; Domain=" .. domain }, { host }))
    end
    assert.equal(5, jar.refused)
    assert.same({ "a=1", "-" }, sent("127.0.0.1", "/", { "a=1; Domain=127.0.0.1" }, { "127.0.0.1" }, { "x.127.0.0.1" }))
    assert.same({ "a=1" }, sent("localhost", "/", { "a=1; Domain=localhost" }, { "localhost" }))
  end)

  it("sends a cookie below its path, longer paths first, then older ones", function ()
    assert.same({ "a=1", "a=1", "-", "-", "-" }, sent("h.test", "/cart/add", { "a=1" },
      { "h.test", "/cart" }, { "h.test", "/cart/x/y" }, { "h.test", "/cartoon" }, { "h.test", "/" }, { "h.test", "/x" }))
    assert.same({ "d=4; e=5; a=1; b=2; f=6", "b=2; f=6" }, sent("h.test", "/x",
      { "b=2; Path=/", "d=4; Path=/cart/x", "e=5; Path=/cart/", "f=6; Path=rel" }, { "h.test", "/cart/x" }, { "h.test", "/y" }))
  end)

  it("replaces a cookie of the same name, domain and path, in its place, and no other", function ()
    assert.same({ "a=3; b=2" }, sent("h.test", "/", { "a=1", "b=2", "a=3" }, { "h.test" }))
    assert.same({ "a=4; a=3; b=2" }, sent("h.test", "/", { "a=4; Path=/x" }, { "h.test", "/x" }))
  end)

  it("forgets a cookie when it expires, and at once when that is past", function ()
    assert.same({ "a=1; b=2; c=3" }, sent("h.test", "/", { "a=1; Max-Age=10", "b=2; Expires=Sun, 09 Sep 2001 01:46:45 GMT", "c=3",
      "d=4; Max-Age=0", "e=5; max-age=-1", "f=6; Expires=Thu, 01 Jan 1970 00:00:00 GMT" }, { "h.test" }))
    now = now + 5
    assert.same({ "a=1; c=3" }, sent("h.test", "/", {}, { "h.test" }))
    now = now + 5
    assert.same({ "c=3" }, sent("h.test", "/", {}, { "h.test" }))
    assert.same({ "-" }, sent("h.test", "/", { "c=; Max-Age=0" }, { "h.test" }))
    assert.same({ "g=7" }, sent("h.test", "/", { "g=7; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=5" }, { "h.test" })) -- Max-Age wins.
    assert.same({ "g=7; i=9" }, sent("h.test", "/", { "i=9; Expires=soon; Max-Age=x" }, { "h.test" })) -- Nonsense is ignored.
  end)

  it("sends Secure cookies over https, or to this machine, only", function ()
    assert.same({ "-", "a=1" }, sent("h.test", "/", { "a=1; Secure; HttpOnly; SameSite=Lax" }, { "h.test" }, { "h.test", "/", true }))
    for _, host in ipairs { "localhost", "127.0.0.1", "::1" } do assert.same({ "a=1" }, sent(host, "/", { "a=1; Secure" }, { host })) end
  end)

  it("reads values as they are, and ignores what is no cookie", function ()
    assert.same({ 'a="x y"; b=; c=1=2' }, sent("h.test", "/", { 'a = "x y" ;Path=/', "b=", "c=1=2", "novalue", "=x", "", "d=\1" },
      { "h.test" }))
    assert.equal(4, jar.refused)
  end)

  it("reads dates in the forms that servers write", function ()
    for text, want in pairs {
      ["Sun, 09 Sep 2001 01:46:40 GMT"] = 1000000000, ["Sunday, 09-Sep-01 01:46:40 GMT"] = 1000000000,
        ["Sun Sep  9 01:46:40 2001"] = 1000000000,
      ["1 Jan 1970 00:00:00"] = 0, ["29 Feb 2000 00:00:00"] = 951782400, ["01 Jan 69 0:0:0"] = 3124224000, ["1 Jan 70 0:0:0"] = 0,
      ["31 Dec 9999 23:59:59"] = 253402300799, [""] = false, ["1 Jan 1970"] = false, ["32 Jan 1970 00:00:00"] = false,
      ["1 Jan 1600 00:00:00"] = false, ["1 Jan 1970 24:00:00"] = false, ["1 Foo 1970 00:00:00"] = false,
    } do
      assert.equal(want, cookies.date(text) or false, text)
    end
  end)

  it("keeps its limits: HOST_MAX of a domain, JAR_MAX of all, COOKIE_BYTES_MAX of each", function ()
    local many = {}
    for i = 1, cookies.HOST_MAX do many[i] = ("n%d=1"):format(i) end
    jar:store("h.test", "/", many)
    assert.equal(cookies.HOST_MAX, #jar.list)
    jar:store("h.test", "/", { "one=more" })
    assert.equal(cookies.HOST_MAX, #jar.list)
    local line = jar:header("h.test", "/", false)
    assert(line:find("one=more", 1, true) and not line:find("n1=1", 1, true))
    for i = 1, cookies.JAR_MAX - cookies.HOST_MAX do jar:store(("h%d.test"):format(i), "/", { "a=1" }) end
    assert.equal(cookies.JAR_MAX, #jar.list)
    jar:store("last.test", "/", { "a=1" })
    assert.equal(cookies.JAR_MAX, #jar.list)
    assert.equal("a=1", jar:header("last.test", "/", false))
    local value = ("x"):rep(cookies.COOKIE_BYTES_MAX - 1)
    assert.same({ "a=" .. value }, sent("big.test", "/", { "a=" .. value, "b=x" .. value }, { "big.test" }))
    jar:clear()
    assert.is_nil(jar:header("big.test", "/", false))
  end)
end)
