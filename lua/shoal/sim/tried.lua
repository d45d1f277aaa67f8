--- tried: the half of shoal.sim.trial that runs in the simulated node: its entry. It writes its findings to a file of the node's disk.
local budget = require "shoal.base.budget"
local door = require "shoal.core.door"
local core = require "shoal.core.node"
local errors = require "shoal.base.errors"
local messages = require "shoal.wire.messages"
local node = require "shoal.node.node"
local task = require "shoal.base.task"
local text = require "shoal.base.text"
local wiring = require "shoal.node.wiring"
local world = require "shoal.core.world"

-- A second or two: what does not wait or end in these is an endless loop. A start of ours takes 9 million, most of them to read policies.
local INSTRUCTIONS = 50000000
local TIME_MS, BYTES = 10000, 64 * 1024 * 1024
local ALIVE_MS = 50
local ANSWER = "/answer"
local SETTINGS = { name = "trial", cluster = "trial", dc = "trial", data = "/data", connect = { "10.255.0.1:7000" } }

--- An incident of the script's own code: at a site of roles, or raised in the script.
local function is_scripts(incident, path)
  return incident.site:find "^role%." ~= nil or (incident.where or ""):sub(1, #path + 1) == path .. ":"
end

local function told(incident, path)
  local where = incident.where or "?"
  return where:sub(1, #path) == path and ("%s: %s"):format(where, incident.message) or ("%s: %s: %s"):format(path, where, incident.message)
end

local function is_role(name)
  for _, one in ipairs(messages.roles) do
    if one == name then return true end
  end
  return false
end

--- The script's findings, in order.
local function try(path, policies, note)
  local role, err, _, bytes = node.load_script(world.current(), path)
  if not role then return note("problem", err) end
  note("role", tostring(role.name))
  local fine, wrong = wiring.check(path, role, bytes)
  for problem in (fine and "" or wrong):gmatch "[^\n]+" do note("problem", problem) end
  if not fine and not (type(role.start) == "function" and is_role(role.name)) then return end
  task.yield() -- The checks read the script's text, which takes instructions too: its start has all of them.
  local config = { policies = policies ~= "" and policies or nil, cores = 4 }
  for key, value in next, SETTINGS do config[key] = value end -- order-free: a copy
  if role.name ~= "client" then config.connect = nil end
  local made, code
  made, err, code = node.start { world = world.current(), script = path, config = config, only_start = not fine }
  if not made then
    if code == "TRIED" then return end
    local step, rest = err:match "^(%l+): (.*)$"
    if rest and rest:sub(1, #path + 1) == path .. ":" then
      err = rest:gsub("^(.-:%d+): ", "%1: " .. (step == "role" and "start" or step) .. ": ")
    elseif not err:find(path, 1, true) then
      local line = err:find "^role: " and text.line_of(bytes, "start") or err:find "^ready: " and text.line_of(bytes, "ready")
      err = ("%s:%s %s"):format(path, line and line .. ":" or "", err)
    end
    return note("problem", err)
  end
  task.sleep(ALIVE_MS)
  made:stop "tried"
  for _, incident in ipairs(errors.incidents()) do
    if is_scripts(incident, path) then note("problem", told(incident, path)) end
  end
end

return function (path, policies)
  task.start(world.current())
  errors.start(world.current(), "trial")
  errors.budget(INSTRUCTIONS)
  _G.xpcall = door.caught -- A role's handler would run within the hook that ends it, where nothing could end the handler.
  local lines = {}
  local function note(kind, words)
    lines[#lines + 1] = ("%s %s\n"):format(kind, (words:gsub("\\", "\\\\"):gsub("\n", "\\n")))
  end
  local scope = task.scope "trial"
  scope:spawn("sim.trial", { host = "trial" }, function ()
    local limits = budget.new(world.current(), { who = "a role", steps = INSTRUCTIONS, ms = TIME_MS, bytes = BYTES })
    local ok, incident = errors.call("sim.trial", { host = "trial" }, limits.run, limits, try, path, policies, note)
    if limits:over() == "bytes" then
      lines = {}
      note("problem", ("%s: it takes more than %d bytes of memory before it waits or ends"):format(path, BYTES))
    elseif not ok then
      note("problem", told(incident, path))
    end
    assert(world.current():put_durable(ANSWER, table.concat(lines)))
    core.exit(0)
  end)
  task.flush()
end
