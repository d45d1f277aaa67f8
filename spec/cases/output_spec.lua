--- What a command writes is written, or the command says that it is not and does not succeed.
local cjson = require "cjson"
local cluster = require "spec.support.cluster"
local uv = require "luv"

local TRUE = "return { name = 'j', workflows = { w = { command = 'true' } } }"
local ROOT = uv.getuid() == 0

describe("data that cannot be written", function ()
  local c, up

  setup(function ()
    c = cluster.new()
    up = c:up "return { gates = { {} }, datacenters = { a = { managers = { {} }, workers = { { cores = 2 } } } } }"
    c:file("j.lua", TRUE)
    if ROOT then -- Devices of our own: a fault here must not harm those of the machine.
      assert(os.execute(("mknod %s/full c 1 7; mknod %s/null c 1 3"):format(c.dir, c.dir)))
    end
  end)
  teardown(function () c:close() end)

  --- Run a command by the shell, which can redirect. SHOAL is the program, D our folder.
  local function shell(line, limit_ms)
    return c:spawn({ "bash", "-c", line, stdin = "", env = { SHOAL = cluster.program, D = c.dir, SHOAL_CONNECT = up.connect } }):wait(limit_ms)
  end

  local function as_root(title, fn)
    it(title, function ()
      if not ROOT then pending "a device of our own needs root" else fn() end
    end)
  end

  as_root("is one line on stderr and exit code 74, whatever the command (case 28)", function ()
    for _, words in ipairs {
      "jobs", "jobs -o json", "members", "incidents", "--help", "submit --help", "--version", "check $D/j.lua", "repl --eval 1+1",
      "submit $D/j.lua -q", "submit $D/j.lua -q -o json", "submit $D/j.lua --detach", "status nosuch -o json", "up $D/j.lua",
    } do
      local r = shell("$SHOAL " .. words .. " > $D/full")
      local known = words:find "^status" and 4 or words:find "^up" and 2 or 74
      assert.equal(known, r.code, words .. "\n" .. r.err)
      if known == 74 then
        local _, lines = r.err:gsub("stdout: cannot write: [Nn]o space left on device %(ENOSPC%)\n", "")
        assert.equal(1, lines, words .. "\n" .. r.err)
      end
    end
    assert.equal("character special file\n", shell("stat -c %F $D/full").out)
  end)

  as_root("of a file that `shoal sim` and `shoal lua` run is told too", function ()
    c:file("p.lua", "local sim = require 'shoal.sim'\nprint(sim and ('x'):rep(100000))")
    for _, command in ipairs { "sim", "lua" } do
      local r = shell(("$SHOAL %s $D/p.lua > $D/full"):format(command))
      assert.same({ 74, "shoal: stdout: cannot write\n" }, { r.code, r.err })
      r = shell(("$SHOAL %s $D/p.lua | true; exit ${PIPESTATUS[0]}"):format(command))
      assert.same({ 141, "" }, { r.code, r.err })
    end
  end)

  as_root("ends a node whose address nobody could hear", function ()
    local r = shell "$SHOAL run scripts/roles/gate.lua --announce --data $D/announce > $D/full"
    assert.equal(74, r.code, r.err)
  end)

  it("is no news to `head`: a reader that has gone ends the command silently, with the code of SIGPIPE", function ()
    local r = shell "sleep 0.2; { $SHOAL jobs; echo code $? >&2; } | true"
    assert.equal("code 141\n", r.err)
    r = shell "{ $SHOAL members --follow; echo code $? >&2; } | head -1"
    assert.is_truthy(r.err:find("code 141", 1, true), r.err)
  end)

  it("of a stdout that another process made non-blocking waits for its reader", function ()
    local r = shell([[python3 -c 'import os, fcntl, subprocess, sys, time
r, w = os.pipe()
fcntl.fcntl(w, fcntl.F_SETFL, os.O_NONBLOCK)
fcntl.fcntl(w, 1031, 4096)
p = subprocess.Popen([sys.argv[1], "repl", "--eval", "(\"x\"):rep(60000)"], stdout=w)
os.close(w)
time.sleep(0.3)
n = 0
while True:
  b = os.read(r, 65536)
  if not b: break
  n += len(b)
print(n, p.wait())' $SHOAL]])
    assert.equal("60003 0\n", r.out, r.err)
  end)

  describe("--result", function ()
    local function submit(words) return shell("$SHOAL submit $D/j.lua -q -o json " .. words) end
    local function jobs() return #cjson.decode(shell("$SHOAL jobs -o json").out).jobs end

    as_root("is written into a device, which stays one (case 29)", function ()
      local r = submit "--result $D/null; stat -c '%F %t %T' $D/null"
      assert.is_truthy(r.out:find("character special file 1 3\n", 1, true), r.out .. r.err)
      r = submit "--result $D/full"
      assert.equal(74, r.code)
      assert.is_truthy(r.err:find("--result: cannot write " .. c.dir .. "/full: no space left on device (ENOSPC)", 1, true), r.err)
      assert.equal("completed", cjson.decode(r.out).state)
      assert.is_truthy(shell("stat -c %F $D/full").out:find "character")
    end)

    it("that cannot be opened is refused before the job is submitted", function ()
      local before = jobs()
      for path, says in pairs { -- order-free: each by itself
        ["$D/no/x.json"] = "no such file or directory", ["$D"] = "it is a folder", ["$D/j.lua/x"] = "not a directory",
        ["''"] = "the name is empty", ["$D/no/"] = "no such file or directory",
      } do
        local r = submit("--result " .. path)
        assert.equal(2, r.code, r.err)
        assert.is_truthy(r.err:find("--result: cannot write", 1, true) and r.err:find(says, 1, true), r.err)
        assert.equal("USAGE", cjson.decode(r.out).error.code)
      end
      assert.equal(before, jobs())
    end)

    it("keeps links, hard links, modes, and a FILE.tmp of somebody else; leaves nothing beside it", function ()
      assert(os.execute(("cd %s && mkdir -p r && cd r && echo old > plain && chmod 640 plain && ln -s plain link && ln -s nothing dangling "
        .. "&& echo theirs > plain.tmp && echo old > one && ln one two"):format(c.dir)))
      for _, name in ipairs { "link", "dangling", "one", "new" } do
        local r = submit("--result $D/r/" .. name)
        assert.equal(0, r.code, r.err)
      end
      local r = shell "cd $D/r; stat -c '%N %F %a %h' *; ls -A | wc -l; cat plain.tmp; umask"
      assert.is_truthy(r.out:find("'link' -> 'plain' symbolic link", 1, true), r.out)
      assert.is_truthy(r.out:find("'dangling' -> 'nothing' symbolic link", 1, true), r.out)
      assert.is_truthy(r.out:find("'plain' regular file 640 1\n", 1, true), r.out)
      assert.is_truthy(r.out:find("'two' regular file %d+ 2\n"), r.out)
      assert.is_truthy(r.out:find("\n8\ntheirs\n", 1, true), r.out)
      assert.equal(0x1b6 & ~tonumber(r.out:match "(%d+)\n$", 8), tonumber(r.out:match "'new' regular file (%d+)", 8))
      for _, name in ipairs { "plain", "nothing", "one", "two", "new" } do
        assert.equal("completed", cjson.decode(cluster.read(c.dir .. "/r/" .. name)).state, name)
      end
    end)

    it("goes to a pipe and to our own stdout", function ()
      local r = shell "mkfifo $D/pipe; cat $D/pipe > $D/piped & $SHOAL submit $D/j.lua -q --result $D/pipe; wait; stat -c %F $D/pipe"
      assert.equal(0, r.code, r.err)
      assert.is_truthy(r.out:find("\nfifo\n", 1, true), r.out)
      assert.equal("completed", cjson.decode(cluster.read(c.dir .. "/piped")).state)
      r = shell "$SHOAL submit $D/j.lua -q --result /dev/stdout > $D/both"
      assert.equal(0, r.code, r.err)
      local both = cluster.read(c.dir .. "/both")
      assert.is_truthy(both:find("^job j") and both:find('"state": "completed"', 1, true), both)
    end)

    it("is left as it is when the job goes on without us", function ()
      c:file("r2/old", "old")
      c:file("long.lua", "return { name = 'long', workflows = { w = { command = 'sleep 30' } } }")
      local r = shell "$SHOAL submit $D/long.lua -q --timeout 0.3 --result $D/r2/old; $SHOAL jobs -o json > $D/list"
      assert.is_truthy(r.err:find("goes on after --timeout", 1, true), r.err)
      assert.equal("old", cluster.read(c.dir .. "/r2/old"))
      assert.equal("old\n", shell("ls -A $D/r2").out)
      for _, j in ipairs(cjson.decode(cluster.read(c.dir .. "/list")).jobs) do
        if j.state == "running" then shell("$SHOAL cancel " .. j.job) end
      end
    end)
  end)

  describe("and words that cannot be meant", function ()
    for _, case in ipairs {
      { "submit $D/j.lua --detach --result $D/x", "--detach and --result contradict each other" },
      { "submit $D/j.lua --detach --timeout 5", "--detach and --timeout contradict each other" },
      { "members --since 1 --why x", "--why and --since contradict each other" },
      { "members --follow --why x", "--why and --follow contradict each other" },
      { "status x --since 3", "--since needs --events" },
      { "incidents --counts -n 3", "--counts and --max contradict each other" },
      { "submit $D/j.lua --timeout -1", "--timeout: expected a number of seconds, from 0.001 to 31536000; found '-1'" },
      { "submit $D/j.lua --timeout 0", "from 0.001 to 31536000; found '0'" },
      { "submit $D/j.lua --timeout 1e300", "from 0.001 to 31536000; found '1e300'" },
      { "incidents -n -1", "--max: expected a whole number, from 1 to 512; found '-1'" },
      { "submit $D/j.lua --key ''", "--key: expected a key, 1 to 256 bytes; found nothing" },
    } do
      it("are refused: " .. case[1], function ()
        local r = shell("$SHOAL " .. case[1])
        assert.equal(2, r.code, r.err)
        assert.is_truthy(r.err:find(case[2], 1, true), r.err)
        assert.equal("", r.out)
      end)
    end
  end)

  it("words at their limits are taken, and one past them are not", function ()
    local function refused(words, says)
      local r = shell("$SHOAL " .. words)
      assert.equal(2, r.code, words)
      return r.err:find(says, 1, true) ~= nil
    end
    local key, no = ("k"):rep(256), "submit $D/no.lua " -- A file that is not there is found missing after the words.
    assert.same({ false, true }, { refused(no .. "--key " .. key, "--key"), refused(no .. "--key k" .. key, "found 257 bytes") })
    assert.same({ false, true }, { refused(no .. "--timeout 0.001", "--timeout"), refused(no .. "--timeout 0.0009", "--timeout") })
    assert.same({ false, true }, { refused(no .. "--timeout 31536000", "--timeout"), refused(no .. "--timeout 31536001", "--timeout") })
    assert.is_true(refused("wait" .. (" j"):rep(101), "too many arguments"))
    assert.equal(4, shell("$SHOAL wait" .. (" j"):rep(100)).code)
  end)

  it("with --output json everything on stdout is JSON, mistakes and refusals included", function ()
    for words, code in pairs { -- order-free: each by itself
      ["submit -o json"] = 2, ["submit $D/no.lua --output json"] = 2, ["status nosuch --output=json"] = 4,
      ["cancel nosuch -ojson"] = 4,
      ["jobs -o json -c 127.0.0.1:1"] = 3,
      ["repl -o json --eval 'error(1)'"] = 1,
      ["repl -o json --eval '{a=1}'"] = 0, ["submit $D/j.lua --detach -o json"] = 0, ["jobs --wrong -o json"] = 2,
    } do
      local r = shell("$SHOAL " .. words)
      assert.equal(code, r.code, words .. r.err)
      local value = cjson.decode(r.out)
      if code > 1 then assert.equal(code, value.error.exit, words) end
    end
    local r = shell "printf '1\\nerror(2)\\nnode.name\\n' | $SHOAL repl -o json"
    local all = {}
    for line in r.out:gmatch "[^\n]+" do all[#all + 1] = cjson.decode(line) end
    assert.equal(3, #all)
    assert.same({ true, false, true }, { all[1].ok, all[2].ok, all[3].ok })
  end)

  it("a REPL that reads a file exits 1 when a line raised", function ()
    local r = shell "printf 'error(1)\\n1 + 1\\n' | $SHOAL repl"
    assert.equal(1, r.code, r.err)
    assert.equal("2\n", r.out)
    assert.equal(0, shell("printf '1 + 1\\n' | $SHOAL repl").code)
  end)

  it("control bytes of other people's output do not reach a terminal, and JSON has them all", function ()
    c:file("evil.lua", [[return { name = 'evil', workflows = {
      w = { command = 'printf "\\033]0;owned\\007\\302\\233 \\233 ok\\n"; exit 3' } } }]])
    local r = shell "$SHOAL submit $D/evil.lua"
    assert.equal(1, r.code, r.err)
    assert.is_nil((r.out .. r.err):find "[\1-\8\11-\31\127-\255]", r.out .. r.err)
    assert.is_truthy(r.out:find("\\x1b]0;owned\\x07\\x9b \\x9b ok", 1, true), r.out)
    r = shell "$SHOAL submit $D/evil.lua -o json 2> /dev/null"
    assert.is_nil(r.out:find "[\1-\8\11-\31\127]", r.out)
    assert.is_truthy(cjson.decode(r.out).workflows[1].stats.commands[1].head:find("\27]0;owned\7", 1, true), r.out)
  end)
end)
