local cjson = require "cjson" -- Another reader, as an oracle.
local errors = require "shoal.base.errors"
local environment = require "shoal.run.workflow.environment"
local job = require "shoal.job.spec"
local json = require "shoal.base.json"
local line = require "shoal.base.log.line"
local sorted = require "shoal.base.sorted"

local function text(value) return assert(json.encode(value)) end
local function value(bytes, options)
  local v, err = json.decode(bytes, options)
  assert(v ~= nil, err)
  return v
end
local function problem(fn, ...)
  local v, err = fn(...)
  assert.is_nil(v)
  return err
end

describe("json", function ()
  describe("numbers", function ()
    it("keeps whole numbers exact to 64 bits, in and out, as integers", function ()
      for _, digits in ipairs { "0", "-1", "900719925474099", "9007199254740993", "-9007199254740993", "1234567890123456789",
        "1700000000123456", "9223372036854775807", "-9223372036854775808" } do
        local n = value(digits)
        assert.equal("integer", math.type(n))
        assert.equal(digits, tostring(n))
        assert.equal(digits, text(n))
        assert.equal('{"id":[' .. digits .. "]}", text(value('{ "id": [ ' .. digits .. " ] }")))
      end
      assert.equal("0", text(value "-0"))
    end)

    it("refuses a whole number beyond 64 bits, which a double would round, or gives its digits as text", function ()
      for _, digits in ipairs { "9223372036854775808", "-9223372036854775809", "18446744073709551615", ("9"):rep(100) } do
        local err = problem(json.decode, '{"a":' .. digits .. "}")
        assert.truthy(err:find("line 1, character 6: the whole number " .. digits:sub(1, 40), 1, true), err)
        assert.truthy(err:find("does not fit 64 bits", 1, true))
        assert.same({ a = digits }, value('{"a":' .. digits .. "}", { large = "text" }))
      end
    end)

    it("writes floats so that they read back the same, and whole ones without a fraction", function ()
      for shown, n in sorted { ["0.1"] = 0.1, ["5"] = 10 / 2, ["-3"] = -3.0, ["1e+300"] = 1e300, ["0.30000000000000004"] = 0.1 + 0.2,
        ["1000000000000000000"] = 1e18, ["1e+19"] = 1e19, ["4.94065645841247e-324"] = 5e-324,
        ["9007199254740992"] = 2 ^ 53, ["1.7976931348623157e+308"] = 1.7976931348623157e308,
        ["-0.0"] = -0.0 } do
        assert.equal(shown, text(n))
        assert.equal(n, cjson.decode("[" .. shown .. "]")[1])
      end
      local seed = 1
      for _ = 1, 2000 do
        seed = seed * 6364136223846793005 + 1442695040888963407
        local n = string.unpack("<d", string.pack("<i8", seed))
        if n == n and n ~= math.huge and n ~= -math.huge then
          assert.equal(n, value(text(n)) + 0.0)
          assert.equal(text(n), line.encode(n)) -- The log writes the same.
        end
      end
      assert.equal("float", math.type(value "1.0"))
      assert.equal("float", math.type(value "1e2"))
      assert.equal(100.0, value "1E+2")
    end)

    it("says where a number stands that JSON has no form for", function ()
      assert.equal("items[3].price: nan has no form in JSON", problem(json.encode, { items = { 1, 2, { price = 0 / 0 } } }))
      assert.equal("[1]: inf has no form in JSON", problem(json.encode, { math.huge }))
      assert.equal("-inf has no form in JSON", problem(json.encode, -math.huge))
      assert.equal("line 1, character 2: the number is larger than a double can be", problem(json.decode, "[1e400]"))
      assert.equal(0.0, value "1e-400")
    end)
  end)

  describe("text and tables", function ()
    it("reads and writes what another reader does", function ()
      for _, bytes in ipairs { '"a\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\u00e9\\u20ac\\ud83d\\ude00"', '""', '"\\u0000x"', "true", "false", "[]",
        "{}", '{"a":[1,2,{"b":null}],"":" "}', " [ 1 , 2 ] ", '["caf\xc3\xa9"]' } do
        local theirs = cjson.decode("[" .. bytes .. "]")[1]
        assert.same(theirs, value(bytes))
        assert.same(theirs, cjson.decode("[" .. text(value(bytes)) .. "]")[1])
      end
      assert.equal(json.null, cjson.null)
      assert.equal(json.null, value "null")
      assert.equal("[null]", text { json.null })
      assert.same({ 1 }, value "\xef\xbb\xbf[1]")
      assert.equal([["a\"b\\c\u0000\u001f\u007f/é"]], text 'a"b\\c\0\31\127/é')
    end)

    it("writes equal values as equal bytes: keys sorted", function ()
      local t = {}
      for i = 40, 1, -1 do t["k" .. i % 7 .. i] = i end
      local keys = {}
      for key in text(t):gmatch '"(k%d+)"' do keys[#keys + 1] = key end
      assert.equal(40, #keys)
      local want = { table.unpack(keys) }
      table.sort(want)
      assert.same(want, keys)
      assert.equal('{"-1":true,"1.5":2,"x":1}', text { x = 1, [1.5] = 2, [-1] = true })
    end)

    it("keeps an empty list a list", function ()
      assert.equal('{"a":[],"b":{}}', text(value '{ "b": {}, "a": [] }'))
      assert.equal("[]", text(json.array()))
      assert.equal("[1]", text(json.array { 1 }))
    end)

    it("writes few holes as null, and refuses a list that is mostly holes", function ()
      assert.equal("[1,null,3]", text { 1, nil, 3 })
      assert.equal("[null,null,null,null,null,null,null,null,null,1]", text { [10] = 1 })
      assert.equal("a: a list of 1 elements with indices up to 1000000000: most would be null",
        problem(json.encode, { a = { [1000000000] = 1 } }))
    end)

    it("says where a value stands that has no form", function ()
      assert.equal("a.b: a function has no form in JSON", problem(json.encode, { a = { b = print } }))
      assert.equal("a: a boolean cannot be a key", problem(json.encode, { a = { [true] = 1 } }))
      assert.equal("[2]: byte 3 of the string is no UTF-8", problem(json.encode, { 1, "ab\xff" }))
      for _, bytes in ipairs { "\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82", "\x80" } do
        assert.equal("byte 1 of the string is no UTF-8", problem(json.encode, bytes))
      end
      assert.equal('two keys are both written "1"', problem(json.encode, { ["1"] = 1, [1] = 1, x = 1 }))
      local loop = {}
      loop.loop = loop
      assert.equal("nested deeper than 1000: does a table contain itself?", problem(json.encode, loop))
    end)

    it("nests 1000 deep and not 1001", function ()
      local deep = ("["):rep(1000) .. ("]"):rep(1000)
      assert.equal(deep, text(value(deep)))
      assert.truthy(problem(json.decode, "[" .. deep .. "]"):find("nested deeper than 1000", 1, true))
      assert.truthy(problem(json.encode, { value(deep) }):find("nested deeper than 1000", 1, true))
      local wide = ('{"a":'):rep(1000) .. "1" .. ("}"):rep(1000)
      assert.equal(wide, text(value(wide)))
    end)
  end)

  it("says where a text is wrong, what was found and what was expected", function ()
    for bytes, want in sorted {
      [""] = "1, character 1: expected a value, found the end", ["[1,]"] = "1, character 4: expected a value, found ']'",
      ['{"a" 1}'] = "1, character 6: expected ':', found '1'",
      ['{\n  "a": 1,\n  b: 2 }'] = "3, character 3: expected a key in double quotes, found 'b'",
      ["[1 2]"] = "1, character 4: expected ',' or ']', found '2'", ['{"a":1 "b"}'] = "1, character 8: expected ',' or '}', found '\"'",
      ["01"] = "1, character 2: a number has no leading zero", ["1."] = "1, character 3: expected a digit, found the end",
      ["-"] = "1, character 2: expected a digit, found the end", ["1e"] = "1, character 3: expected a digit, found the end",
      ["nul"] = "1, character 1: expected a value, found 'n'", ["NaN"] = "1, character 1: expected a value, found 'N'",
      ["1 1"] = "1, character 3: expected the end, found '1'", ['"a'] = "1, character 3: expected the string's closing quote, found the end",
      ['"a\nb"'] = "1, character 3: expected no control character in a string, found the byte 0x0a",
      ['"\\x"'] = "1, character 3: expected one of \"\\/bfnrtu after a backslash, found 'x'",
      ['"\\u12g4"'] = "1, character 6: expected four hexadecimal digits after \\u, found 'g'",
      ['"\\ud800"'] = "1, character 2: half of a surrogate pair is no character",
      ['"\\ud800\\u0041"'] = "1, character 2: half of a surrogate pair is no character",
      ["[1]\0"] = "1, character 4: expected the end, found the byte 0x00", ['"a\0b"'] =
      "1, character 3: expected no control character in a string, found the byte 0x00",
    } do
      assert.equal("line " .. want, problem(json.decode, bytes))
    end
    assert.equal('line 2, character 2: the key "a" stands twice in one object', problem(json.decode, '{"a":1,\n "a":2}', { unique = true }))
    assert.same({ a = 2 }, value '{"a":1,"a":2}')
    for n = 1, #'{"a":[1,"\\u20ac",true,null]}' - 1 do assert.is_nil((json.decode(('{"a":[1,"\\u20ac",true,null]}'):sub(1, n)))) end
  end)

  it("gives a script its own `json`, whose mistakes are errors at the script's line", function ()
    local env = environment.new { env = {}, log = print, ids = function () return {} end }
    local function run(code) return errors.handle("script.load", { path = "s.lua" }, assert(load(code, "@s.lua", "t", env))) end
    local ok, said = run "return json.encode(json.decode('{\"id\":900719925474099,\"b\":[]}'))"
    assert(ok, said)
    assert.equal('{"b":[],"id":900719925474099}', said)
    for code, want in sorted {
      ["local a\na = json.encode({ a = { 0/0 } })"] = "s.lua:2: json.encode: a[1]: ",
      ["\n\njson.decode('{')"] = "s.lua:3: json.decode: line 1, character 2: expected a key",
      ["json.decode(nil)"] = "s.lua:1: json.decode: expected text, found a nil",
      ["json.decode('1', 2)"] = "s.lua:1: json.decode: options: expected a table, found a number",
    } do
      local good, err = run(code)
      assert.is_false(good)
      assert.truthy(tostring(err):find(want, 1, true), tostring(err))
    end
  end)

  it("of answers keeps whole numbers exact, and takes any value", function ()
    local answers = require "shoal.cli.json"
    assert.equal('{\n  "a": 9007199254740993,\n  "b": -9223372036854775808,\n  "c": 0.1,\n  "d": "nan",\n  "e": "-inf",\n  "f": 5\n}',
      answers.encode { a = (1 << 53) + 1, b = math.mininteger, c = 0.1, d = 0 / 0, e = -math.huge, f = 5.0 })
  end)

  it("reads a job file's numbers as they stand, and refuses a key that stands twice", function ()
    local spec = assert(job.parse('{"name":"j","env":{"ID":1234567890123456789},"workflows":{"w":{"command":"true"}}}', "j.json"))
    assert.equal("1234567890123456789", spec.env.ID)
    local _, err = job.parse('{"name":"j",\n"workflows":{"w":{"command":"true"},\n"w":{"command":"false"}}}', "j.json")
    assert.truthy(err:find("j.json:3: .*twice"), err)
  end)
end)
