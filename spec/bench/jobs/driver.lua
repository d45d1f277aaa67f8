--- The client of `scripts/bench jobs`: a role script that submits jobs through shoal.client and waits for their final results.
---
---   shoal run spec/bench/jobs/driver.lua --connect HOST:PORT
---
--- It is the client role that the running build ships, with another start. It reads lines from stdin:
---
---   run COUNT OUTSTANDING PARTS     COUNT jobs in all, so many at a time, each one workflow of PARTS runs of `true`
---
--- and "done NS" answers each: from the first submission to the last result. The end of stdin ends it. A job that does not
--- complete ends the bench: its figures would mean nothing.
local core = require "shoal.core.node"
local job = require "shoal.job"
local task = require "shoal.task"

local role = dofile(core.home() .. "/scripts/roles/client.lua")
local open = role.start

local JOB = 'return { name = "bench", workflows = { w = { command = { "true" }, parts = %d } } }'
local PATIENCE_MS = 60000

local function give_up(text)
  io.stderr:write("bench jobs: the driver: ", text, "\n")
  core.exit(2)
end

local function say(line)
  io.stdout:write(line, "\n")
  io.stdout:flush()
end

--- One job from its submission to its final result.
local function one(client, bytes, key)
  local id, err, code = client:submit(bytes, key, PATIENCE_MS)
  if not id then return give_up(("submit: %s (%s)"):format(err, code)) end
  local final
  final, err, code = client:follow(id)
  if not final then return give_up(("follow: %s (%s)"):format(err, code)) end
  if final.state ~= "completed" then give_up(("job %s is %s: %s"):format(id, final.state, final.reason or "?")) end
end

local function run(node, client, count, flight, parts)
  local spec, err = job.parse(JOB:format(parts), "bench.lua", function () return nil, "no scripts" end)
  if not spec then return give_up(err) end
  local bytes, salt, left, callers = job.encode(spec), node.world:random(), count, {}
  local began_ns = node.world:now_ns()
  for i = 1, math.min(flight, count) do
    callers[i] = node.scope:spawn("spec.run", { task = "bench caller" }, function ()
      while left > 0 do
        left = left - 1
        one(client, bytes, ("bench-%x-%d"):format(salt, left))
      end
    end)
  end
  for _, caller in ipairs(callers) do
    local ok, why = caller:join()
    if not ok then return give_up(tostring(why)) end
  end
  say(("done %d"):format(node.world:now_ns() - began_ns))
end

local function serve(node, client)
  local lines, rest = task.channel(16), ""
  local stdin, err = node.world:stdio(0)
  if not stdin then return give_up("stdin: " .. err) end
  stdin:attach {
    on_read = function (_, bytes)
      rest = (rest .. bytes):gsub("([^\n]*)\n", function (line)
        lines:push(line)
        return ""
      end)
    end,
    on_end = function () core.exit(0) end,
  }
  while true do
    local line = lines:pop()
    local count, flight, parts = line:match "^run (%d+) (%d+) (%d+)$"
    if not count then return give_up("expected run COUNT OUTSTANDING PARTS, found " .. line) end
    run(node, client, math.tointeger(count), math.tointeger(flight), math.tointeger(parts))
  end
end

function role.start(node)
  local state, err, code = open(node)
  if not state then return nil, err, code end
  node.scope:spawn("spec.run", { task = "bench driver" }, serve, node, state.client)
  return state
end

function role.ready()
  say "ready"
  return true
end

return role
