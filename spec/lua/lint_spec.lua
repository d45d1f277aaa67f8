local lint = require "shoal.lint.lint"
local scan = require "shoal.lint.scan"
local tree = require "shoal.lint.tree"

--- Plant a fault: lint this text as that file.
local function found(path, text)
  local out = {}
  for _, finding in ipairs(lint.file(path, text)) do out[#out + 1] = finding.line .. " " .. finding.rule end
  return out
end
local function message(path, text) return lint.format(lint.file(path, text)[1]) end

describe("lint", function ()
  describe("scanning", function ()
    it("tells Lua's code from its strings and comments, at the same offsets", function ()
      local text = 'local a = "pcall -- no" -- pcall\n--[[ pcall\n]] b = [==[ pcall ]] ]==] .. \'it\\\'s\' x - y\n'
      local source = scan.lua("a.lua", text)
      assert.equal(#text, #source.code)
      assert.equal('local a = "           "         \n          \n   b = [                ] .. \'     \' x - y\n', source.code)
      assert.equal(2, select(2, source.comments:gsub("pcall", "")))
      assert.equal(2, select(2, source.uncommented:gsub("pcall", "")))
      assert.equal(3, source.lines)
      assert.equal(3, scan.line_of(source, (text:find("b = ", 1, true))))
      assert.equal("#!/usr/bin/lua", scan.line(scan.lua("a", "#!/usr/bin/lua\nx = 1"), "comments", 1))
      assert.equal("x = a[b[1]]", scan.lua("a", "x = a[b[1]]").code)
    end)

    it("tells C's too", function ()
      local source = scan.c("a.c", 'x = "a//b\\"c"; // time(\n/* rand( */ y = \'"\' / 2;\n')
      assert.equal('x = "       ";         \n            y = \' \' / 2;\n', source.code)
    end)

    it("comes to an end on broken sources", function ()
      for _, text in ipairs { '"open', "--[[ open", "[==[ open", "'a\nb", '"\\', "", "[", "-", "--" } do
        assert.equal(#text, #scan.lua("a.lua", text).code)
        assert.equal(#text, #scan.c("a.c", text).code)
      end
    end)
  end)

  describe("in Lua", function ()
    it("refuses protected calls outside the door, in specs and scripts too", function ()
      for _, path in ipairs { "lua/shoal/x.lua", "scripts/roles/x.lua", "spec/x_spec.lua", "examples/x.lua" } do
        assert.same({ "2 door", "3 door" }, found(path, "local a\nlocal ok = pcall(f)\nlocal p = xpcall\n"))
      end
      assert.same({ "1 door" }, found("lua/shoal/x.lua", "local r = _G.pcall"))
      assert.same({ "1 door", "2 door", "3 door" },
        found("lua/shoal/x.lua", "coroutine.resume(co)\ncoroutine . wrap(f)\ncoroutine.close(co)"))
      assert.same({ "1 door" }, found("lua/shoal/x.lua", "local c = coroutine"))
      assert.same({ "1 door" }, found("lua/shoal/x.lua", 'coroutine["resume"](co)'))
      assert.same({}, found("lua/shoal/base/errors.lua", "pcall(f) coroutine.resume(co)"))
      assert.same({}, found("lua/shoal/x.lua", "coroutine.yield() coroutine.create(f) coroutine.running()"))
      assert.same({}, found("lua/shoal/x.lua", '-- pcall(f)\nlocal s = "pcall(f)" my_pcall(f) -- coroutine.resume'))
      assert.same({}, found("lua/shoal/x.lua", "local env = { pcall = function (f) return f end }"))
      assert.equal("lua/shoal/x.lua:1: [door] pcall outside lua/shoal/base/errors.lua: use errors.call(site, ids, fn, ...), "
        .. "or errors.handle to take the error", message("lua/shoal/x.lua", "pcall(f)"))
    end)

    it("refuses to print outside of the command line's one writer", function ()
      assert.same({ "1 printing", "2 printing", "3 printing" },
        found("lua/shoal/cli/x.lua", "print(1)\nio.stdout:write(2)\nio.write '3'\n"))
      assert.same({}, found("lua/shoal/cli/x.lua", "function env.print(...) end self:print(1) io.stderr:write(1) -- print(2)"))
      assert.same({}, found("lua/shoal/cli/out.lua", "io.stdout:write(1)"))
      assert.same({}, found("examples/x.lua", "print(1)"))
    end)

    it("refuses clocks and chance outside the world, but in specs", function ()
      local text = "a = os.time()\nb = os.clock()\nc = os.date('%c')\nd = math.random(3)\nmath.randomseed(1)\n"
      local want = { "1 world", "2 world", "3 world", "4 world", "5 world" }
      assert.same(want, found("lua/shoal/x.lua", text))
      assert.same(want, found("scripts/policies/x.lua", text))
      assert.same({}, found("spec/x_spec.lua", text))
      assert.same({}, found("lua/shoal/x.lua", "a = math.floor(os.getenv 'x') -- os.time"))
      assert.truthy(message("lua/shoal/x.lua", "a = os.time()"):find("use world:wall_ns()", 1, true))
    end)

    it("refuses luv in the library and in roles, but in the command line and the REPL", function ()
      local text = 'local uv = require "luv"\n'
      for _, path in ipairs { "lua/shoal/x.lua", "lua/shoal/lead/x.lua", "scripts/roles/worker.lua" } do
        assert.same({ "1 luv" }, found(path, text))
      end
      for _, path in ipairs { "lua/shoal/cli/up.lua", "lua/shoal/node/repl.lua", "lua/shoal/node/repl/x.lua", "spec/x_spec.lua",
        "examples/membership.lua" } do
        assert.same({}, found(path, text))
      end
      assert.same({ "1 luv" }, found("lua/shoal/x.lua", "require('luv').run()"))
      assert.same({}, found("lua/shoal/x.lua", '-- require "luv"'))
    end)

    it("refuses another reader of JSON than ours, but in specs", function ()
      assert.same({ "1 json", "2 json", "3 json" },
        found("lua/shoal/x.lua", 'local a = require "cjson"\nlocal b = require("cjson.safe")\nlocal c = require "shoal.core.json"'))
      assert.same({ "1 json" }, found("examples/x.lua", "local a = require 'json'"))
      assert.same({}, found("spec/x_spec.lua", 'local a = require "cjson"'))
      assert.same({}, found("lua/shoal/base/json.lua", 'local a = require "shoal.core.json"'))
      assert.same({}, found("lua/shoal/cli/x.lua", 'local json = require "shoal.cli.json"\nlocal b = require "shoal.base.json"'))
    end)

    it("refuses a room that names a higher one, or a short name", function ()
      assert.same({}, found("lua/shoal/job/x.lua", 'require "shoal.base.task"\nrequire("shoal.job.ledger")\nrequire "shoal.core.net"'))
      assert.same({ "1 rooms", "2 rooms", "3 rooms" }, found("lua/shoal/job/x.lua",
        'require "shoal.run.exec"\nrequire "shoal.task"\nrequire("shoal.attic.task")'))
      assert.same({}, found("lua/shoal/x.lua", 'return require "shoal.run.exec"'))
      assert.same({}, found("scripts/roles/x.lua", 'local task = require "shoal.task"'))
      assert.truthy(message("lua/shoal/base/x.lua", 'require "shoal.cli.main"'):find("which is above it", 1, true))
    end)

    it("refuses the order of pairs that nobody vouched for", function ()
      assert.same({ "1 order", "2 order" },
        found("lua/shoal/x.lua", "for k in pairs(t) do send(k) end\nfor k in next, t do send(k) end"))
      assert.same({}, found("lua/shoal/x.lua", "for k in pairs(t) do n = n + 1 end -- order-free: a count"))
      assert.same({}, found("lua/shoal/x.lua", "-- order-free: a count\nfor k in next, t do\n  n = n + 1\nend"))
      assert.same({ "1 order" }, found("lua/shoal/x.lua", "for k in pairs(t) do send(k) end -- order-free"))
      assert.same({ "1 order" }, found("lua/shoal/x.lua", "for k in pairs(t) do send(k) end -- order-free: x"))
      assert.same({}, found("lua/shoal/x.lua", "for i, v in ipairs(t) do send(v) end\nfor k, v in sorted(t) do send(k) end"))
      assert.same({}, found("spec/x_spec.lua", "for k in pairs(t) do send(k) end"))
      assert.same({}, found("lua/shoal/x.lua", "if next(t) == nil then return end"))
    end)

    it("sees by its shape that a copy, a sum by key, or a list sorted at once has no order", function ()
      for _, text in ipairs { "for k, v in next, a do b[k] = v end", "for k, v in pairs(a) do r.b[k] = (r.b[k] or 0) + v end",
        "for name in next, a do list[#list + 1] = name end\ntable.sort(list)",
        "for k in next, a do out.names[#out.names + 1] = k end\n\ntable.sort(out.names, f)" } do
        assert.same({}, found("lua/shoal/x.lua", text))
      end
      for _, text in ipairs { "for k, v in next, a do b[v] = k end", "for k, v in next, a do b[k] = draw() end",
        "for k in next, a do list[#list + 1] = k end\nsend(list)", "for k, v in next, a do last = v end",
        "for name in next, a do list[#list + 1] = name end\ntable.sort(other)" } do
        assert.same({ "1 order" }, found("lua/shoal/x.lua", text))
      end
    end)

    it("refuses a dropped refusal", function ()
      assert.same({ "1 taken", "2 taken", "3 taken", "4 taken" }, found("lua/shoal/x.lua",
        'f:await()\npeer:call("a.b", {})\nself.tier:propose(c)\nerrors.handle("spec.run", {}, f)\n'))
      assert.same({}, found("lua/shoal/x.lua", "local v, err = f:await()\nreturn peer:call(x)\nif f:await() then end"))
      assert.same({}, found("lua/shoal/x.lua", "f:await() -- dropped: it is only ever set"))
      assert.same({}, found("lua/shoal/x.lua", 'errors.call("spec.run", {}, f)')) -- Its failure was told.
      assert.same({}, found("lua/shoal/x.lua", "local a = take(\n  f:await())\nlocal b =\n  f:await()\nx = a and\n  f:await()"))
      assert.same({}, found("spec/x_spec.lua", "f:await()"))
    end)

    it("refuses a site that the catalogue does not hold", function ()
      assert.same({ "1 sites", "2 sites", "3 sites" }, found("lua/shoal/x.lua",
        'errors.report("worker.progress.sned", ids, err)\nscope:spawn("tsak.run", {}, f)\nscope:loop("x.y", {}, o, f)\n'))
      assert.same({}, found("lua/shoal/x.lua",
        'errors.report("worker.progress.send", ids, err)\nscope:spawn("rpc.anything", {}, f)\n-- errors.call("no.such", 1)'))
      assert.truthy(message("lua/shoal/x.lua", 'errors.report("worker.progress.sned", ids, err)')
        :find("did you mean worker.progress.send?: declare it in lua/shoal/base/sites.lua", 1, true))
    end)
  end)

  describe("in C", function ()
    it("refuses a lower room that names a higher one", function ()
      assert.same({ "1 floors" }, found("c/core/x.c", '#include "world/world.h"\n'))
      assert.same({ "1 floors" }, found("c/world/x.c", '#include "net/net.h"\n'))
      assert.same({ "1 floors" }, found("c/net/x.c", '#  include "lua/door.h"\n'))
      assert.same({ "1 floors" }, found("c/net/x.c", '#include "drive/fleet.h"\n'))
      assert.same({ "1 floors" }, found("c/drive/x.c", '#include "lua/door.h"\n'))
      assert.same({}, found("c/drive/x.c", '#include "net/net.h"\n#include "world/sim.h"\n#include "core/swim.h"\n'))
      assert.same({ "1 floors" }, found("c/lua/x.c", '#include "host/node.h"\n'))
      assert.same({}, found("c/net/x.c", '#include "net/net.h"\n#include "world/world.h"\n#include "core/rng.h"\n'))
      assert.same({}, found("c/host/x.c", '#include "lua/door.h"\n// #include "x/y.h"\n'))
      assert.truthy(message("c/core/x.c", '#include "world/world.h"\n'):find "c/core names c/world, which is above it")
    end)

    it("refuses libuv outside the real world and the host, luv outside the host, and Lua below the bindings", function ()
      assert.same({}, found("c/world/uv_stream.c", "#include <uv.h>\n"))
      assert.same({}, found("c/host/x.c", "#include <uv.h>\n#include <luv/luv.h>\n"))
      assert.same({ "1 floors" }, found("c/world/sim.c", "#include <uv.h>\n"))
      assert.same({ "1 floors" }, found("c/net/x.c", "#include <uv.h>\n"))
      assert.same({ "1 floors" }, found("c/drive/x.c", "#include <uv.h>\n"))
      assert.same({ "1 floors", "2 floors" }, found("c/lua/x.c", "#include <uv.h>\n#include <luv/luv.h>\n"))
      for _, room in ipairs { "core", "world", "net", "drive" } do
        assert.same({ "1 floors", "2 floors" }, found("c/" .. room .. "/x.h", "#include <lua.h>\n#include <lauxlib.h>\n"))
      end
      assert.same({}, found("c/lua/x.c", "#include <lua.h>\n"))
    end)

    it("refuses protected calls outside the door", function ()
      assert.same({ "1 door", "2 door" }, found("c/lua/x.c", "lua_pcall(L, 0, 0, 0);\nrc = lua_resume(co, L, 0, &n);\n"))
      assert.same({ "1 door" }, found("c/host/x.c", "if (luaL_dofile(L, path)) fail();\n"))
      assert.same({}, found("c/lua/door.c", "lua_pcall(L, 0, 0, 0);\n"))
      assert.same({}, found("c/lua/x.c", '/* lua_pcall */ "lua_pcall"; my_lua_pcall();\n'))
    end)

    it("refuses clocks and chance below the host and beside the world", function ()
      for _, call in ipairs { "uv_now(loop)", "clock_gettime(a, &b)", "rand()", "time(NULL)", "getrandom(p, 1, 0)" } do
        assert.same({ "2 world" }, found("c/core/x.c", "int f(void) {\n  return " .. call .. ";\n}\n"))
        assert.same({ "1 world" }, found("c/net/x.c", "x = " .. call .. ";\n"))
        assert.same({}, found("c/world/uv.c", "x = " .. call .. ";\n"))
      end
      assert.same({}, found("c/core/x.c", "uint64_t time = e.time; x.time(1); y->random(2); uint64_t rand(void);\n"))
    end)

    it("refuses a dropped result without its reason", function ()
      assert.same({ "1 taken" }, found("c/net/x.c", "(void)send_it(a);\n"))
      assert.same({}, found("c/net/x.c", "(void)send_it(a); /* It is retried. */\n"))
      assert.same({}, found("c/net/x.c", "// It is retried.\n(void)send_it(a);\n"))
      assert.same({}, found("c/net/x.c", "/* (void): packing into our own buffer cannot fail */\nf();\n(void)pack(a);\n"))
      assert.same({}, found("c/net/x.c", "(void)argument;\n(void)fprintf(stderr, x);\n"))
    end)

    it("refuses a site that the catalogue does not hold", function ()
      assert.same({ "1 sites" }, found("c/lua/x.c", 'door_call(L, "wrold.timer", push, 0, NULL, t);\n'))
      assert.same({}, found("c/lua/x.c", 'door_call(L, "world.timer", push, 0, NULL, t);\n'))
    end)
  end)

  it("refuses a file past 800 lines, whatever it is", function ()
    assert.same({}, found("c/core/x.c", ("x\n"):rep(800)))
    assert.same({ "1 size" }, found("c/core/x.c", ("x\n"):rep(801)))
    assert.same({ "1 size" }, found("scripts/x", ("x\n"):rep(801)))
  end)

  it("knows Lua by name and by its first line", function ()
    assert.equal("lua", lint.kind("scripts/lint", "#!/usr/bin/env lua5.4\n"))
    assert.equal("lua", lint.kind("a.lua", ""))
    assert.equal("c", lint.kind("a.h", ""))
    assert.is_nil(lint.kind("scripts/demo", "#!/bin/bash\n"))
  end)

  it("runs as scripts/lint: names the planted fault, exits 1; and exits 0 on clean files", function ()
    local function run(arguments)
      local pipe = assert(io.popen("scripts/lint " .. arguments .. " 2>&1"))
      local text = pipe:read "a"
      local _, _, status = pipe:close()
      return text, status
    end
    local text, status = run "lua/shoal/base/errors.lua lua/shoal/base/sorted.lua"
    assert.equal(0, status, text)
    assert.truthy(text:find "2 files, 0 findings")
    local path = "spec/support/planted_fault.lua"
    local file = assert(io.open(path, "w"))
    assert(file:write("local unused = 1\nreturn pcall(print)\n"))
    file:close()
    finally(function () os.remove(path) end)
    text, status = run(path)
    assert.equal(1, status)
    assert.truthy(text:find("spec/support/planted_fault.lua:2: [door] pcall", 1, true))
    assert.truthy(text:find "unused variable 'unused'")
    assert.truthy(text:find "2 findings")
  end)

  describe("of the whole tree", function ()
    local SITES = {
      { name = "a.raised", role = "any" }, { name = "a.fired", role = "gate", hook = { arity = 0 } }, { name = "b.*", role = "any" },
      { name = "worker.progress.send", role = "any" },
    }
    --- A tree in which everything is used.
    local function whole()
      return {
        { path = "lua/shoal/base/sites.lua", kind = "lua",
          text = 'site("a.raised")\nsite("a.fired")\nsite("b.*")\nsite("worker.progress.send")\n' },
        { path = "lua/shoal/x.lua", kind = "lua", text = 'errors.call("a.raised", f)\nhooks:fire("a.fired", {})\nspawn("b.anything")\n'
          .. 'report(owner .. ".progress.send")\npeer:call("job.ask", {})\n' },
        { path = "lua/shoal/wire/messages/job.lua", kind = "lua", text = 'return { { name = "job.ask", from = { "client" } } }' },
        { path = "scripts/roles/gate.lua", kind = "lua",
          text = 'local role = { name = "gate" }\nrole.answers = { ["job.ask"] = f }\nrole.hooks = { ["a.fired"] = f }\n' },
      }
    end
    local function told(files, sites)
      local out = {}
      for i, f in ipairs(tree.check(files, sites or SITES)) do out[i] = ("%s:%d %s: %s"):format(f.path, f.line, f.rule, f.message) end
      return out
    end
    --- The findings after `from` is replaced by `to` in one file.
    local function planted(path, from, to, sites)
      local files, done = whole(), false
      for _, file in ipairs(files) do
        if file.path == path then
          local at, stop = file.text:find(from, 1, true)
          file.text, done = file.text:sub(1, at - 1) .. to .. file.text:sub(stop + 1), true
        end
      end
      assert(done)
      return told(files, sites)
    end

    it("finds nothing where all is used", function () assert.same({}, told(whole())) end)

    it("D17: refuses a site that nothing raises at: a key, a comment and a policy are no raising", function ()
      local none = { "lua/shoal/base/sites.lua:1 site: nothing raises at a.raised: it comes back with what does" }
      for _, to in ipairs { "", 't = { ["a.raised"] = 1 }', '-- errors.call("a.raised")' } do
        assert.same(none, planted("lua/shoal/x.lua", 'errors.call("a.raised", f)', to))
      end
      assert.same({ "lua/shoal/base/sites.lua:3 site: nothing raises at b.*: it comes back with what does" },
        planted("lua/shoal/x.lua", 'spawn("b.anything")', ""))
      assert.same({ "lua/shoal/base/sites.lua:4 site: nothing raises at worker.progress.send: it comes back with what does" },
        planted("lua/shoal/x.lua", "owner .. ", ""))
      assert.same({}, planted("lua/shoal/x.lua", 'errors.call("a.raised", f)', "f('a.raised')"))
      local files = whole()
      files[2].text = files[2].text:gsub('errors.call%("a.raised", f%)', "")
      files[5] = { path = "c/lua/x.c", kind = "c", text = 'door_call(L, "a.raised", f);' }
      assert.same({}, told(files))
    end)

    it("D17: refuses a hook that nothing fires, though it is wired and its site is named", function ()
      assert.same({ "lua/shoal/base/sites.lua:2 site: nothing fires the hook of a.fired: it comes back with what does" },
        planted("lua/shoal/x.lua", 'hooks:fire("a.fired", {})', 'errors.run("a.fired", f)'))
      assert.same({}, planted("lua/shoal/x.lua", 'hooks:fire("a.fired", {})', 'hooks:deliver("a.fired", {}, key)'))
    end)

    it("D17: refuses a message that nobody sends, though a role says so, and one that nobody handles", function ()
      local none = { "lua/shoal/wire/messages/job.lua:1 message: nobody sends job.ask: a command or a loop of the library must" }
      assert.same(none, planted("lua/shoal/x.lua", 'peer:call("job.ask", {})', ""))
      assert.same(none, planted("lua/shoal/x.lua", 'peer:call("job.ask", {})', 'rpc:handle("job.ask", f)'))
      local files = whole()
      files[2].text = files[2].text:gsub('peer:call%("job.ask", {}%)', "")
      files[4].text = files[4].text .. 'role.sends = { "job.ask" }'
      assert.same(none, told(files))
      assert.same({ "lua/shoal/wire/messages/job.lua:1 message: nobody handles job.ask" },
        planted("scripts/roles/gate.lua", '["job.ask"] = f', ""))
    end)

    it("D17: refuses a role that hooks a site of another role, or one without a hook", function ()
      assert.same({ "scripts/roles/gate.lua:3 hook: a.fired is a site of the gate: a worker never fires it" },
        planted("scripts/roles/gate.lua", 'name = "gate"', 'name = "worker"'))
      assert.same({ "scripts/roles/gate.lua:3 hook: a.raised is a site without a hook" },
        planted("scripts/roles/gate.lua", '["a.fired"] = f', '["a.raised"] = f'))
    end)
  end)
end)
