--- A process that opens a tier in a folder and proposes until it is killed: `tier_child.lua FOLDER write RUN AFTER_MS`, or prints the
--- replayed commands: `tier_child.lua FOLDER read`. Each line that it prints is one acknowledged (or replayed) command.
local folder, mode, run, after_ms = arg[1], arg[2], arg[3], tonumber(arg[4])
dofile "spec/helper.lua"
local uv = require "luv"
local errors = require "shoal.errors"
local task = require "shoal.task"
local tier = require "shoal.tier"
local world = require("shoal.core.world").current()

errors.start(world, "m1")
task.start(world)
local scope = task.scope "child"

local function say(...) io.stdout:write(string.format(...), "\n"):flush() end

local applied = {}
local opened, err = tier.open({ world = world, name = "m1" }, {
  name = "managers", directory = folder, rotate_bytes = 16384,
  apply = function (index, command)
    applied[#applied + 1] = { index, command }
    if mode == "read" then say("applied %d %s", index, command) end
  end,
  snapshot = function ()
    local lines = {}
    for i, entry in ipairs(applied) do lines[i] = entry[1] .. " " .. entry[2] end
    return table.concat(lines, "\n")
  end,
  restore = function (bytes)
    for index, command in bytes:gmatch "(%d+) ([^\n]*)" do
      applied[#applied + 1] = { math.tointeger(index), command }
      if mode == "read" then say("applied %d %s", math.tointeger(index), command) end
    end
  end,
  on_lead = function (index) say("lead %d", index) end,
})
if not opened then
  say("refused %s", err)
  os.exit(1)
end

if mode == "read" then
  uv.run "nowait"
  opened:close()
  os.exit(0)
end

--- Several writers at once, so that a kill hits appended, synced and acknowledged commands.
for writer = 1, 8 do
  scope:spawn("spec.run", { task = "writer" }, function ()
    while not opened:leads() do task.sleep(1) end
    for i = 1, math.maxinteger do
      local command = ("run %s writer %d number %d"):format(run, writer, i)
      local index, problem, code = opened:propose(command, 5000)
      if not index then
        say("failed %s %s", code, problem)
        return
      end
      say("acknowledged %d %s", index, command)
    end
  end)
end

local killer = uv.new_timer()
killer:start(after_ms, 0, function () uv.kill(uv.os_getpid(), "sigkill") end)
uv.run()
