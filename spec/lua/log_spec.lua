local fake_world = require "spec.support.fake_world"
local log = require "shoal.log"
local line = require "shoal.base.log.line"
local cjson = require "cjson"
local errors = require "shoal.errors" -- Gives the log its protected call.
local sorted = require "shoal.sorted"

describe("log", function ()
  local world
  before_each(function ()
    world = fake_world.new()
    world.stderr_lines = {}
    log.reset()
  end)
  after_each(function () log.reset() end)

  describe("a line", function ()
    it("says when by both clocks, how grave, who and what, then the fields", function ()
      local text = line.record { wall_ns = 1782907200123456789, at_ns = 5000000001, level = "info", node = "w1",
        event = "worker.joined", fields = { b = 1, a = "x" } }
      assert.equal('{"wall":"2026-07-01T12:00:00.123456Z","at_ns":"5000000001","level":"info","node":"w1",'
        .. '"event":"worker.joined","a":"x","b":1}', text)
    end)

    it("writes declared fields first, in their order, and the others sorted", function ()
      local text = line.encode({ a = 1, z = 2, m = 3, b = 4, [2] = "n" }, { "z", "none", "m" })
      assert.equal('{"z":2,"m":3,"2":"n","a":1,"b":4}', text)
    end)

    it("knows the calendar", function ()
      for text, second in sorted { ["1970-01-01T00:00:00"] = 0, ["1999-12-31T23:59:59"] = 946684799,
        ["2000-02-29T00:00:00"] = 951782400, ["2024-02-29T12:30:15"] = 1709209815, ["2100-03-01T00:00:00"] = 4107542400,
        ["1969-12-31T23:59:59"] = -1 } do
        assert.equal(text .. ".000001Z", line.wall(second * 1000000000 + 1999))
      end
    end)

    it("keeps numbers exact: whole ones in all their digits, floats that read back the same", function ()
      local function of(value) return line.encode(value) end
      assert.equal("9007199254740992", of(1 << 53))
      assert.equal("9007199254740993", of((1 << 53) + 1))
      assert.equal("-9007199254740993", of(-(1 << 53) - 1))
      assert.equal("-9223372036854775808", of(math.mininteger))
      assert.equal("0.1", of(0.1))
      assert.equal("3", of(3.0))
      for _, n in ipairs { 1 / 3, 1e300, 5e-324, 123456.789, 2 ^ 60, -0.5 } do assert.equal(n, tonumber(of(n))) end
      assert.equal('"nan"', of(0 / 0))
      assert.equal('"inf"', of(math.huge))
      assert.equal('"-inf"', of(-math.huge))
    end)

    it("is JSON whatever the bytes, and one line", function ()
      local all = {}
      for byte = 0, 255 do all[#all + 1] = string.char(byte) end
      all = table.concat(all)
      local text = line.encode(all)
      assert.is_nil(text:find "\n")
      assert.equal(256, utf8.len(cjson.decode("[" .. text .. "]")[1]))
      assert.equal('"Zürich ✓"', line.encode "Zürich ✓")
      assert.equal([["a\"b\\c\u0000\u001f\u007f"]], line.encode 'a"b\\c\0\31\127')
    end)

    it("cuts a text past 16 KiB and says how long it was, never inside a letter", function ()
      assert.equal(16 * 1024 + 2, #line.encode(("x"):rep(16 * 1024)))
      local cut = line.encode(("x"):rep(16 * 1024 - 1) .. "ü" .. "yy")
      assert.truthy(cut:find("xxx%.%.%. %(16387 bytes%)"))
      assert.truthy(utf8.len(cut))
    end)

    it("takes any value: circles, deep and wide tables, functions, strange keys, tables that raise", function ()
      local circle = {}
      circle.circle = circle
      assert.truthy(line.encode(circle):find("(deeper)", 1, true))
      local wide = {}
      for i = 1, 300 do wide[i] = i end
      assert.truthy(line.encode(wide):find("44 more", 1, true))
      local keyed = {}
      for i = 1, 300 do keyed["k" .. i] = i end
      assert.truthy(line.encode(keyed):find('"...":"44 more"', 1, true))
      assert.equal(256, select(2, line.encode(keyed):gsub('"k%d+":', "")))
      assert.equal(8, select(2, line.encode(circle):gsub('"circle":', "")))
      assert.equal('{"f":"(function)","t":"(thread)","u":"(FILE*)"}',
        line.encode { f = print, t = coroutine.create(print), u = io.stdout })
      assert.equal('{"...":"2 more"}', line.encode { [{}] = 1, [print] = 2 })
      local hostile = setmetatable({ a = 1 }, { __index = error, __pairs = error, __len = error, __tostring = error,
        __name = 7 })
      assert.equal('{"a":1}', line.encode(hostile))
      assert.equal("[1,2,3]", line.encode { 1, 2, 3 })
      assert.equal("{}", line.encode {})
      assert.equal('{"1":1,"3":3}', line.encode { 1, nil, 3 }:gsub("%[1,null,3%]", '{"1":1,"3":3}'))
    end)

    it("holds no address, so that two runs write the same", function ()
      assert.is_nil(line.encode { print, {}, io.stdout, coroutine.create(print), [print] = 1 }:find "0x")
    end)
  end)

  describe("levels", function ()
    it("write what is at or above the level, and count the rest", function ()
      local got = {}
      log.open(world, function (text) got[#got + 1] = cjson.decode(text).event end)
      log.level "warning"
      log.debug "a"
      log.info "b"
      log.warning "c"
      log.error "d"
      log.critical "e"
      assert.same({ "c", "d", "e" }, got)
      assert.equal(2, log.counts().filtered)
      assert.equal(3, log.counts().written)
      assert.equal("warning", log.level())
      assert.error_matches(function () log.level "silent" end, "no level silent")
    end)

    it("refuse an unknown one at open", function ()
      local ok, err, code = log.open(world, { path = "x", level = "loud" })
      assert.is_nil(ok)
      assert.truthy(err:find "loud is none of")
      assert.equal("CONFIG", code)
    end)
  end)

  describe("targets", function ()
    it("a file gets whole lines", function ()
      assert(log.open(world, { path = "node.log", node = "w1" }))
      log.event("a.b", { "z", "a" })
      log.info("a.b", { a = 1, z = 2 })
      log.info("c.d")
      local text = world.files["node.log"]
      assert.equal(2, select(2, text:gsub("\n", "")))
      assert.truthy(text:find('"node":"w1","event":"a.b","z":2,"a":1}\n', 1, true))
    end)

    it("a file is opened again by its path; on a refusal the old one stays", function ()
      assert.is_true(log.reopen()) -- No file: nothing to do.
      assert(log.open(world, { path = "node.log" }))
      log.info "old"
      world.files["node.log.1"], world.files["node.log"] = world.files["node.log"], nil
      world.log_refused = "permission denied"
      assert.same({ nil, "log: node.log: permission denied", "EACCES" }, { log.reopen() })
      world.log_refused = nil
      assert.is_true(log.reopen())
      log.info "new"
      assert.truthy(world.files["node.log.1"]:find "old" and not world.files["node.log.1"]:find "new")
      assert.truthy(world.files["node.log"]:find "new" and not world.files["node.log"]:find "old")
    end)

    it("that cannot be opened is told, and stderr takes the lines", function ()
      world.log_refused = "permission denied"
      local ok, err, code = log.open(world, { path = "node.log" })
      assert.is_nil(ok)
      assert.equal("log: node.log: permission denied", err)
      assert.equal("EACCES", code)
      log.error("x.y", { n = 1 })
      assert.truthy(world.stderr_lines[1]:find "x.y")
    end)

    it("fall back from a full disk, and from a file that raises, to stderr; from there to the crash file", function ()
      local crash = os.tmpname()
      finally(function () os.remove(crash) end)
      assert(log.open(world, { path = "node.log", crash_path = crash }))
      world.disk_full = true
      log.info "to.stderr"
      assert.truthy(world.stderr_lines[1]:find "to.stderr")
      world.append_raises = "the handle is gone"
      log.info "to.stderr.too"
      assert.truthy(world.stderr_lines[2]:find "to.stderr.too")
      assert.equal(2, log.counts().fell_back)
      world.stderr_broken = true
      log.info "to.crash"
      world.stderr_broken, world.stderr_queued = false, 2 * 1024 * 1024 -- Stderr has no reader, and nothing waits for it.
      log.info "to.crash.too"
      local file = assert(io.open(crash))
      local text = file:read "a"
      file:close()
      assert.truthy(text:find "to.crash\"}\n.*to.crash.too\"}\n")
      assert.equal(2, log.counts().crashed)
      world.disk_full, world.append_raises, world.stderr_queued = nil, nil, nil
      log.info "to.file"
      assert.truthy(world.files["node.log"]:find "to.file")
      assert.equal(1, log.counts().written)
    end)

    it("count what nobody took, and never raise", function ()
      world.stderr_broken = true
      assert(log.open(world, { crash_path = "/nonexistent/dir/crash" }))
      log.error "lost"
      log.last_resort "lost too"
      assert.equal(2, log.counts().lost)
      assert(log.open(world, function () error "writer" end))
      log.error("x", 5)
      log.error("x", setmetatable({}, { __index = error }))
      assert(log.open(world, function () coroutine.yield() end))
      local co = coroutine.create(function () log.error "from a task" return "went on" end)
      assert.same({ "done", "went on" }, { errors.resume("spec.a", nil, co) })
    end)

    it("before it is opened, warnings go to stderr with clocks at 0, and less is filtered", function ()
      local at_ns, wall_ns = log.clocks()
      assert.same({ 0, 0 }, { at_ns, wall_ns })
      log.info "filtered"
      assert.equal(1, log.counts().filtered)
    end)

    it("opening another closes the first", function ()
      assert(log.open(world, { path = "a.log" }))
      assert(log.open(world, { path = "b.log" }))
      log.info "x"
      assert.equal("", world.files["a.log"])
      assert.truthy(world.files["b.log"]:find "x")
    end)
  end)

  it("L6: 2e5 lines leave memory flat", function ()
    local bytes = 0
    log.open(world, function (text) bytes = bytes + #text end)
    local function round()
      for i = 1, 20000 do log.info("a.b", { i = i, text = "line " .. i }) end
      collectgarbage()
      collectgarbage()
      return collectgarbage "count"
    end
    round()
    local before = round()
    local after
    for _ = 1, (os.getenv "SHOAL_LONG" and 50 or 3) do after = round() end
    assert.is_true(after < before + 32)
    assert.is_true(bytes > 1e6)
  end)
end)

describe("sorted", function ()
  it("walks numbers, then strings, each ascending, then false and true", function ()
    local keys = {}
    for k, v in sorted { b = 1, a = 2, [3] = 3, [-1.5] = 4, [true] = 5, [false] = 6, [10] = 7 } do
      keys[#keys + 1] = tostring(k) .. "=" .. v
    end
    assert.same({ "-1.5=4", "3=3", "10=7", "a=2", "b=1", "false=6", "true=5" }, keys)
    assert.same({ 1, 2, "x" }, sorted.keys { x = 0, "a", "b" })
  end)

  it("allows changes on the way: added ones are not walked, removed ones are skipped", function ()
    local t = { a = 1, b = 2, c = 3 }
    local seen = {}
    for k in sorted(t) do
      seen[#seen + 1] = k
      t.b, t.d = nil, 4
    end
    assert.same({ "a", "c" }, seen)
  end)

  it("refuses keys without an order", function ()
    assert.error_matches(function () sorted { [{}] = 1 } end, "a table as a key has no order")
  end)
end)
