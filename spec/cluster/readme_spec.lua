--- Run every command of README.md, unchanged except for its ports and the build's folder.
local cluster = require "spec.support.cluster"
local uv = require "luv"

-- Commands that other specs, or this run itself, cover.
local ELSEWHERE = { ["scripts/demo"] = "spec/cluster/demo_spec.lua", ["scripts/test"] = "the run of all specs" }

--- The code blocks of one language, in order.
local function blocks(language)
  local out = {}
  for block in cluster.read("README.md"):gmatch("\n```" .. language .. "\n(.-)```") do out[#out + 1] = block end
  return out
end

--- Commands, a line each, without comments.
local function commands()
  local out = {}
  for _, block in ipairs(blocks "sh") do
    for line in block:gmatch("[^\n]+") do
      local command = line:gsub("%s+#.*$", "")
      if command ~= "" then out[#out + 1] = command end
    end
  end
  return out
end

describe("README.md", function ()
  local c

  before_each(function () c = cluster.new() end)
  after_each(function () c:close() end)

  it("says commands that all run, in the order in which they stand", function ()
    local ports = { ["7000"] = cluster.port(), ["7001"] = cluster.port(), ["7002"] = cluster.port() }
    local function here(text) return (text:gsub("127%.0%.0%.1:(700%d)", function (port) return "127.0.0.1:" .. ports[port] end)) end
    local topology = c:file("topology.lua", here(cluster.read "examples/topology.lua"))
    local exports, ran, started = "", 0, 0

    local function spawn(command)
      local text = here(command):gsub("build/release", (cluster.build:gsub("%%", "%%%%"))):gsub("examples/topology%.lua", topology)
      if text:find "^shoal run" or text:find "^shoal up" then
        text = ("%s --data '%s/%d'"):format(text:gsub("^shoal", "exec shoal"), c.dir, started)
      end
      return c:spawn { "sh", "-c", exports .. text, preload = text:find "^lua5%.4" ~= nil, stdin = "" }
    end

    for _, command in ipairs(commands()) do
      if ELSEWHERE[command] then
        ran = ran + 1
      elseif command:find "^export " then
        exports = exports .. command:gsub("build/release", cluster.build) .. "\n"
      elseif command:find "^shoal up" or command:find "^shoal run" then
        local p = spawn(command)
        p:wait_for(command:find "^shoal up" and "ready: " or "is ready at", "err", 30000)
        started = started + 1
      elseif command:find "^scripts/setup build && scripts/build$" then
        assert.equal(0, c:spawn({ "scripts/setup", "build" }):wait().code) -- The build is what we run.
      else
        local p = spawn(command):wait(30000)
        assert.equal(0, p.code, command .. "\n" .. p.out .. p.err)
        assert.is_not.equal("", p.out, command)
      end
      ran = ran + 1
    end
    assert.is_true(ran >= 12, ran .. " commands")
    assert.equal(2, started)
    local members = c:shoal({ "members", "--connect", "127.0.0.1:" .. ports["7001"] }).out
    assert.is_truthy(members:find("worker%-%x+%s+worker%s+a%s+alive"), members) -- The worker that was run by hand.
  end)

  it("shows a job and a script that run", function ()
    local lua = blocks "lua"
    assert.equal(2, #lua)
    local job = c:file("shop.lua", (lua[1]:gsub("seconds%(10%)", "seconds(1)")))
    c:file("warm.lua", lua[2])
    c:file("browse.lua", lua[2])
    local server, answered = uv.new_tcp(), 0
    assert(server:bind("127.0.0.1", 0))
    assert(server:listen(64, function ()
      local stream, rest = uv.new_tcp(), ""
      server:accept(stream)
      stream:read_start(function (_, bytes)
        if not bytes then return stream:close() end
        rest = (rest .. bytes):gsub("GET /cart HTTP/1%.1\r\n.-\r\n\r\n", function ()
          answered = answered + 1
          stream:write "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
          return ""
        end)
      end)
    end))
    local up = c:up "return { datacenters = { a = { managers = { {} }, workers = { {}, {} } } } }"
    local r = c:shoal { "submit", job, "--connect", up.connect, env = { TARGET = "http://127.0.0.1:" .. server:getsockname().port } }
    server:close()
    uv.run("nowait")
    assert.equal(0, r.code, r.out .. r.err)
    local passed = math.tointeger(tonumber((r.out:match('check "status 200": ([%d,]+) passed, 0 failed'):gsub(",", ""))))
    assert.equal(answered, passed)
    assert.is_true(passed > 40)
  end)

  it("names files, commands and options that exist", function ()
    local text = cluster.read "README.md"
    for path in text:gmatch "%]%(([%w_/%.]+)%)" do assert(io.open(path), path):close() end
    for path in text:gmatch "`([%w_]+/[%w_/]+%.%w+)`" do assert(io.open(path), path):close() end
    for words in text:gmatch "`scripts/([%w%-]+)" do assert(io.open("scripts/" .. words), words):close() end
    local help = c:shoal({ "--help" }).out
    for command in text:gmatch "`shoal (%l+)" do assert.is_truthy(help:find("\n   " .. command .. " ", 1, true), command) end
    assert.equal(0, c:spawn({ "scripts/setup", "--list", "build", "demo", "test" }):wait().code)
    -- The table of exit codes is the help's.
    local codes = text:match "| exit code ([^\n]+)\n" .. text:match "| means ([^\n]+)\n"
    for code in help:match("Exit codes: ([^\n]+)"):gmatch "(%d+) " do assert.is_truthy(codes:find("| " .. code .. " |", 1, true), code) end
  end)
end)
