--- Message bodies: exact, ordered, bounded, and refused by the name of the field that is wrong.
local msgpack = require "shoal.core.msgpack"

local function hex(text) return (text:gsub("%s", ""):gsub("%x%x", function (h) return string.char(tonumber(h, 16)) end)) end

local types = {
  Share = { { "vus", "integer" }, { "first", "integer?" } },
  Tree = { { "name", "string" }, { "children", "array:Tree?" } },
}
local function schema(fields) return msgpack.compile(fields, types, "part.dispatch") end
local function one(of) return schema { { "v", of } } end

local function round(of, value)
  local s = one(of)
  local bytes = assert(s:encode { v = value })
  return assert(s:decode(bytes)).v, bytes
end

local function refused(expected, value, err, code)
  assert.is_nil(value)
  assert.equal(expected, err)
  assert.equal("MALFORMED", code)
end

describe("msgpack", function ()
  describe("values", function ()
    it("keeps integers exact at every width's edge", function ()
      for _, edge in ipairs { 0, 1, 31, 32, 127, 128, 255, 256, 65535, 65536, 2 ^ 31 | 0, 2 ^ 32 | 0, 2 ^ 53 | 0,
        math.maxinteger } do
        for _, value in ipairs { edge - 1, edge, -edge, -edge - 1 } do
          local back = round("integer", value)
          assert.equal("integer", math.type(back))
          assert.equal(value, back)
        end
      end
      assert.equal(math.mininteger, (round("integer", math.mininteger)))
    end)

    it("takes a float that is a whole number for an integer, and no other", function ()
      assert.equal("integer", math.type((round("integer", 3.0))))
      refused("part.dispatch: v: expected integer, found float", one "integer":encode { v = 3.5 })
      refused("part.dispatch: v: expected integer, found float", one "integer":encode { v = 2.0 ^ 63 })
      refused("part.dispatch: v: expected integer, found string", one "integer":encode { v = "3" })
    end)

    it("reads every form of integer, and refuses one above 2^63-1", function ()
      local s = one "integer"
      for form, value in pairs {
        ["cc ff"] = 255, ["cd 0100"] = 256, ["ce ffffffff"] = 0xffffffff, ["cf 7fffffffffffffff"] = math.maxinteger,
        ["d0 80"] = -128, ["d1 8000"] = -32768, ["d2 80000000"] = -2147483648, ["d3 8000000000000000"] = math.mininteger,
        ["7f"] = 127, ["e0"] = -32, ["ff"] = -1,
      } do assert.equal(value, assert(s:decode(hex("81 a1 76" .. form))).v) end
      refused("part.dispatch: v: expected integer, found integer above 2^63-1",
        s:decode(hex "81 a1 76 cf 8000000000000000"))
    end)

    it("keeps numbers, strings of any bytes, booleans", function ()
      assert.equal(0.1, (round("number", 0.1)))
      assert.equal("integer", math.type((round("number", 7))))
      assert.equal(1 / 0, (round("number", 1 / 0)))
      assert.equal(1.5, assert(one "number":decode(hex "81 a1 76 ca 3fc00000")).v)
      for _, length in ipairs { 0, 31, 32, 255, 256, 65535, 65536 } do
        local text = ("\0\xff"):rep(length):sub(1, length)
        assert.equal(text, (round("string", text)))
        assert.equal(text, (round("bytes", text)))
      end
      assert.is_true((round("boolean", true)))
      assert.is_false((round("boolean", false)))
    end)

    it("tells bytes from strings on the wire", function ()
      refused("part.dispatch: v: expected bytes, found string", one "bytes":decode(hex "81 a1 76 a1 61"))
      refused("part.dispatch: v: expected string, found bytes", one "string":decode(hex "81 a1 76 c4 01 61"))
    end)

    it("holds an enum to its words, both ways", function ()
      local s = one "enum:none|throttle|batch|reject"
      assert.equal("batch", assert(s:decode(assert(s:encode { v = "batch" }))).v)
      refused('part.dispatch: v: expected none|throttle|batch|reject, found "slow"', s:encode { v = "slow" })
      refused('part.dispatch: v: expected none|throttle|batch|reject, found "non"', s:decode(hex "81 a1 76 a3 6e6f6e"))
    end)
  end)

  describe("arrays and maps", function ()
    it("lets the schema decide which of them an empty table is", function ()
      local _, array = round("array:integer", {})
      local _, map = round("map:integer", {})
      assert.equal(hex "81 a1 76 90", array)
      assert.equal(hex "81 a1 76 80", map)
    end)

    it("writes a map's keys sorted bytewise, the same bytes for the same value", function ()
      local value, keys = {}, {}
      for i = 1, 200 do keys[i] = ("k%03d"):format((i * 77) % 200); value[keys[i]] = i end
      local back, bytes = round("map:integer", value)
      assert.same(value, back)
      table.sort(keys)
      local at = 1
      for _, key in ipairs(keys) do at = assert(bytes:find(key, at, true)) end
    end)

    it("refuses a table with holes or names where an array belongs", function ()
      refused("part.dispatch: v: expected array, found a table whose keys are not 1..1",
        one "array:integer":encode { v = { 1, x = 2 } })
      refused("part.dispatch: v[2]: expected integer, found string", one "array:integer":encode { v = { 1, "2" } })
      refused("part.dispatch: v: expected keys that are strings, found integer", one "map:integer":encode { v = { 1 } })
    end)

    it("nests types, and a type may hold itself", function ()
      local tree = { name = "a", children = { { name = "b" }, { name = "c", children = {} } } }
      assert.same(tree, (round("Tree", tree)))
      local value = { a = { { vus = 1 }, { vus = 2, first = 3 } } }
      assert.same(value, (round("map:array:Share", value)))
    end)

    it("refuses a key that stands there twice", function ()
      refused("part.dispatch: v.a: this key stands there twice",
        one "map:integer":decode(hex "81 a1 76 82 a1 61 01 a1 61 02"))
      refused("part.dispatch: v: this field stands there twice", one "integer":decode(hex "82 a1 76 01 a1 76 01"))
    end)

    it("refuses nil inside an array or a map", function ()
      refused("part.dispatch: v[1]: expected integer, found nil", one "array:integer":decode(hex "81 a1 76 91 c0"))
      refused("part.dispatch: v[1]: nil inside an array", one "array:any":decode(hex "81 a1 76 91 c0"))
      refused("part.dispatch: v.a: nil inside a map", one "map:any":decode(hex "81 a1 76 81 a1 61 c0"))
    end)
  end)

  describe("records", function ()
    it("stand on the wire in the schema's order", function ()
      local s = schema { { "zebra", "integer" }, { "ant", "string?" }, { "bee", "boolean" } }
      assert.equal(hex "83 a5 7a65627261 01 a3 616e74 a1 78 a3 626565 c3", s:encode { ant = "x", bee = true, zebra = 1 })
      assert.equal(hex "82 a5 7a65627261 01 a3 626565 c3", s:encode { bee = true, zebra = 1 })
    end)

    it("are read in any order, unknown fields walked over", function ()
      local s = schema { { "a", "integer" }, { "b", "integer" } }
      assert.same({ a = 1, b = 2 }, s:decode(hex "83 a1 62 02 a1 78 92 81 c0 c3 c7 02 05 0102 a1 61 01"))
    end)

    it("miss no required field, and take nil for absent", function ()
      local s = schema { { "share", "Share" }, { "note", "string?" } }
      refused("part.dispatch: share: missing", s:encode {})
      refused("part.dispatch: share.vus: missing", s:encode { share = {} })
      refused("part.dispatch: share: missing", s:decode(hex "80"))
      refused("part.dispatch: share.vus: missing", s:decode(hex "81 a5 7368617265 80"))
      refused("part.dispatch: share: expected a value, found nil", s:decode(hex "81 a5 7368617265 c0"))
      assert.same({ share = { vus = 1 } }, s:decode(hex "82 a4 6e6f7465 c0 a5 7368617265 81 a3 767573 01"))
    end)

    it("name the path of what is wrong", function ()
      local s = schema { { "share", "Share" }, { "parts", "array:Share?" } }
      refused("part.dispatch: share.vus: expected integer, found string",
        s:decode(hex "81 a5 7368617265 81 a3 767573 a1 31"))
      refused("part.dispatch: parts[2].vus: expected integer, found boolean",
        s:encode { share = { vus = 1 }, parts = { { vus = 1 }, { vus = true } } })
      refused("part.dispatch: expected table, found nil", s:encode(nil))
      refused("part.dispatch: expected map, found array", s:decode(hex "90"))
    end)

    it("refuse to write a field they do not know, for it would be lost", function ()
      local s = schema { { "share", "Share" } }
      refused("part.dispatch: share.vsu: there is no such field", s:encode { share = { vus = 1, vsu = 2 } })
      refused("part.dispatch: expected keys that are field names, found integer", s:encode { share = { vus = 1 }, 5 })
    end)

    it("refuse bytes after the end, and an end that comes early", function ()
      local s = one "integer"
      refused("part.dispatch: 1 bytes after the end", s:decode(hex "81 a1 76 01 00"))
      local whole = hex "81 a1 76 cd 0100"
      for length = 0, #whole - 1 do
        local value, err, code = s:decode(whole:sub(1, length))
        assert.is_nil(value)
        assert.equal("MALFORMED", code)
        assert.truthy(err:find("^part.dispatch: "), err)
      end
    end)
  end)

  describe("limits", function ()
    local function nested(depth) -- the body itself is the first level
      local value = {}
      for _ = 3, depth do value = { value } end
      return value
    end

    it("nest 16 deep and not 17, both ways, walked-over values too", function ()
      local s = one "any"
      local bytes = assert(s:encode { v = nested(16) })
      assert.same(nested(16), assert(s:decode(bytes)).v)
      local _, err = s:encode { v = nested(17) }
      assert.truthy(err:find "nested deeper than 16$", err)
      local deeper = hex "81 a1 76" .. ("\x91"):rep(15) .. "\x90"
      _, err = s:decode(deeper)
      assert.truthy(err:find "nested deeper than 16$", err)
      _, err = one "integer?":decode((deeper:gsub("v", "w")))
      assert.truthy(err:find "nested deeper than 16$", err)
    end)

    it("end a table that holds itself by its depth", function ()
      local loop = {}
      loop.loop = loop
      local value, err = msgpack.pack(loop)
      assert.is_nil(value)
      assert.truthy(err:find "nested deeper than 16$", err)
    end)

    it("hold a count against the remaining bytes before making room for it", function ()
      collectgarbage(); collectgarbage "stop"
      local before = collectgarbage "count"
      for _, form in ipairs { "dd ffffffff", "df ffffffff", "dc ffff", "de ffff", "db ffffffff", "c6 ffffffff",
        "c9 ffffffff 01" } do
        local value, err = one "any":decode(hex("81 a1 76" .. form))
        assert.is_nil(value)
        assert.truthy(err:find "needs more than the %d+ bytes that remain", err)
      end
      -- Each claims all the bytes that follow it; together they may not.
      local n = 100000
      local body = hex "81 a1 76" .. ("\xdd" .. string.pack(">I4", n)):rep(12) .. ("\x01"):rep(n + 50)
      assert.is_nil((one "any":decode(body)))
      assert.is_true(collectgarbage "count" - before < 5 * n * 16 / 1024)
      collectgarbage "restart"
    end)

    it("take an array as long as its bytes and not one longer", function ()
      assert.same({ v = { 1, 2 } }, one "array:integer":decode(hex "81 a1 76 92 01 02"))
      local _, err = one "array:integer":decode(hex "81 a1 76 93 01 02")
      assert.equal("part.dispatch: v: array of 3 needs more than the 2 bytes that remain", err)
    end)

    it("have 64 fields and not 65", function ()
      local fields, body = {}, {}
      for i = 1, 64 do fields[i] = { "f" .. i, "integer" }; body["f" .. i] = i end
      local s = schema(fields)
      assert.same(body, s:decode(assert(s:encode(body))))
      fields[65] = { "f65", "integer" }
      assert.error_matches(function () schema(fields) end, "has 65 fields, 64 is the limit")
    end)
  end)

  describe("compile", function ()
    it("raises on a mistake, naming the field", function ()
      assert.error_matches(function () schema { { "a", "intger" } } end, "a: there is no type 'intger'")
      assert.error_matches(function () schema { { "a", "array:Nope" } } end, "a: there is no type 'Nope'")
      assert.error_matches(function () schema { { "a", "integer" }, { "a", "string" } } end, "field 'a' is declared twice")
      assert.error_matches(function () schema { { "a" } } end, 'field 1 must be { "name", "type" }', 1, true)
      assert.error_matches(function () schema { { ("n"):rep(65), "integer" } } end, "a name of 1 to 64 bytes")
      assert.has_error(function () msgpack.compile(7) end)
    end)

    it("says what it is", function ()
      assert.equal("shoal.msgpack.schema: part.dispatch of 1 fields", tostring(one "integer"))
      assert.equal("part.dispatch", one "integer":name())
    end)
  end)

  describe("pack and unpack", function ()
    it("let the value decide", function ()
      for _, value in ipairs { 1, -5, 0.5, "text", true, false, {}, { 1, 2, 3 }, { a = 1, b = { c = "d" } },
        { [1] = "x", [3] = "y", z = 1 } } do
        assert.same(value, msgpack.unpack(assert(msgpack.pack(value))))
      end
      assert.equal("\xc0", msgpack.pack(nil))
      assert.equal(nil, (msgpack.unpack "\xc0"))
    end)

    it("sort keys: those of `order` first, integers, then strings", function ()
      assert.equal(hex "85 a1 7a 01 a1 61 02 03 04 05 06 a1 62 07",
        msgpack.pack({ b = 7, [5] = 6, [3] = 4, a = 2, z = 1 }, { "z", "a", "absent" }))
    end)

    it("refuse what cannot be sent", function ()
      refused("a.b: expected nil, boolean, number, string or table, found function", msgpack.pack { a = { b = print } })
      refused("expected keys that are strings or integers, found boolean", msgpack.pack { [true] = 1 })
      refused("expected keys that are strings or integers, found float", msgpack.pack { [0.5] = 1 })
      refused("expected a value, found extension", msgpack.unpack(hex "d4 01 02"))
      refused("expected a value, found a byte no value starts with", msgpack.unpack "\xc1")
      refused("1 bytes after the end", msgpack.unpack "\x01\x02")
    end)
  end)

  it("F70: 100,000 mutated bodies are read or refused, and leave nothing behind", function ()
    local s = schema {
      { "job", "string" }, { "fence", "integer" }, { "rate", "number?" }, { "payload", "bytes" }, { "tags", "map:string" },
      { "share", "Share" }, { "parts", "array:Share" }, { "level", "enum:none|throttle" }, { "tree", "Tree?" },
        { "extra", "any?" },
    }
    local seed = assert(s:encode {
      job = "j-17", fence = 1 << 40, rate = 0.25, payload = ("\0x"):rep(40), tags = { a = "1", b = "2" },
        share = { vus = 3 },
      parts = { { vus = 1 }, { vus = 2, first = 9 } }, level = "throttle",
        tree = { name = "r", children = { { name = "l" } } },
      extra = { 1, { deep = { true } }, "x" },
    })
    local state = 88172645463325252 -- xorshift: the same bodies in every run
    local function random(n)
      state = state ~ (state << 13); state = state ~ (state >> 7); state = state ~ (state << 17)
      return math.ult(state, 0) and 1 or (state >> 1) % n + 1
    end
    local read, refusals = 0, 0
    collectgarbage(); collectgarbage()
    local before = collectgarbage "count"
    for _ = 1, 100000 do
      local body = seed
      for _ = 1, random(4) do
        local at, kind = random(#body + 1), random(4)
        if kind == 1 then body = body:sub(1, at - 1) .. string.char(random(256) - 1) .. body:sub(at + 1)
        elseif kind == 2 then body = body:sub(1, at - 1) .. string.char(random(256) - 1) .. body:sub(at)
        elseif kind == 3 then body = body:sub(1, at - 1) .. body:sub(at + random(8))
        else body = body:sub(1, at - 1) .. ("\xdd\xde\xc6\xcf\x91\x81"):sub(random(6)) .. body:sub(at) end
      end
      local value, err, code = s:decode(body)
      if value then
        read = read + 1
        assert(s:encode(value))
      else
        refusals = refusals + 1
        if code ~= "MALFORMED" or not err:find "^part.dispatch: " then error("unexpected refusal: " .. tostring(err)) end
      end
      local any = msgpack.unpack(body)
      if any ~= nil then assert(msgpack.pack(any)) end
    end
    assert.equal(100000, read + refusals)
    assert.is_true(read > 1000 and refusals > 10000, ("%d read, %d refused"):format(read, refusals))
    collectgarbage(); collectgarbage()
    assert.is_true(collectgarbage "count" - before < 200)
  end)
end)
