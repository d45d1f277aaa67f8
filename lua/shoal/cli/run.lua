--- shoal run: one node from a role script.
local common = require "shoal.cli.common"
local core = require "shoal.core.node"
local dial = require "shoal.wire.dial"
local errors = require "shoal.base.errors"
local json = require "shoal.cli.json"
local located = require "shoal.cli.located"
local log = require "shoal.base.log"
local node = require "shoal.node.node"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"
local verify = require "shoal.cli.verify"
local world = require "shoal.core.world"

local run = {}

local INSTRUCTIONS = 50000000 -- That a callback of a simulated node may run, for there no time passes in it: about half a second.

function run.words(command)
  command:argument("script", "the role script, such as scripts/roles/worker.lua")
  command:option("--name", "the node's name; default: role and port")
  command:option("--cluster", "the cluster's name; nodes of another are refused")
  command:option("--dc", "the datacenter")
  command:option("--bind", "address for streams and datagrams, HOST:PORT"):argname("HOST:PORT")
  command:option("--join", "a node of the same tier or datacenter; can be given again"):count("*"):argname("HOST:PORT")
  command:option("--gates", "a gate, for managers; can be given again"):count("*"):argname("HOST:PORT")
  command:option("--connect", "for clients; can be given again"):count("*"):argname("HOST:PORT")
  command:option("--data", "folder for what must survive a restart, for this node alone; default: .shoal/NAME")
  command:option("--retention", "how long, and how many bytes of, finished jobs a gate or manager keeps; default: 7d,256MiB")
    :argname("TIME,SIZE"):convert(common.retention)
  command:option("--log", "JSON-lines log file; without it: stderr")
  command:option("--policies", "folder of policy scripts")
  command:option("--cores", "slots a worker offers"):argname("COUNT")
    :convert(common.integer("--cores", "a whole number", 1))
  command:option("--label", "what a worker says of itself; jobs ask for it with `where`; can be given again"):count("*"):argname("NAME=VALUE")
  command:option("--pass-env", "for workers: more names of its environment that commands get, besides PATH, HOME, LANG, LC_*, TZ, TMPDIR, "
    .. "USER, LOGNAME, SHELL"):argname("NAME,...")
  command:option("--profile", "membership timing"):choices { "local", "lan", "wan" }
  command:option("--config", "a Lua file that returns a table of any of these and more"):argname("FILE")
  command:option("--set", "one setting, such as cores=8 or membership.gossip_fanout=4; can be given again"):count("*"):argname("NAME=VALUE")
  command:flag("--announce", "print one JSON line with the address on stdout when ready")
  command:flag("--until-eof", "stop when stdin ends, for a supervisor")
  command:epilog([[
Examples:
  shoal run scripts/roles/gate.lua --name g1 --bind 127.0.0.1:7000 --retention 48h,1GiB
  shoal run scripts/roles/manager.lua --dc a --bind 127.0.0.1:7001 --gates 127.0.0.1:7000
  shoal run scripts/roles/worker.lua --dc a --join 127.0.0.1:7001 --cores 8 --label gpu=a100
SIGTERM and Ctrl-C stop it; SIGHUP opens the file of --log again, for log rotation (mv, then SIGHUP).]])
end

local LISTS = { join = true, gates = true, connect = true }
local PLAIN = { "name", "cluster", "dc", "bind", "data", "log", "policies", "cores", "pass_env", "profile" }

--- Options over file over defaults; and which keys came as options, for messages about them.
---@return table? config, string? err, table<string, string>? origin
local function settings(args)
  local config, origin = {}, {}
  if args.config then
    local loaded, err = verify.read_settings(args.config)
    if not loaded then return nil, err end
    config = loaded
  end
  for _, pair in ipairs(args.set or {}) do
    local outer, key, value = pair:match("^([%w_]-)%.?([%w_]+)=(.*)$")
    if not key then return nil, ("--set: expected NAME=VALUE or GROUP.NAME=VALUE, found %q"):format(pair) end
    local group = config
    if outer ~= "" then
      if type(config[outer]) ~= "table" then config[outer] = {} end
      group = config[outer]
    end
    group[key] = math.tointeger(tonumber(value)) or tonumber(value) or value
    origin[outer ~= "" and outer or key] = "--set " .. pair:match "^[^=]+"
  end
  for _, pair in ipairs(args.label or {}) do
    local name, value = pair:match "^([^=]+)=(.+)$"
    if not name then return nil, ("--label: expected NAME=VALUE, such as gpu=a100; found %q"):format(pair) end
    if type(config.labels) ~= "table" then config.labels = {} end
    config.labels[name], origin.labels = value, "--label"
  end
  for _, key in ipairs(PLAIN) do
    if args[key] ~= nil then config[key], origin[key] = args[key], "--" .. key end
  end
  for key, value in sorted(args.retention or {}) do
    config["retention_" .. key], origin["retention_" .. key] = value, "--retention"
  end
  for key in sorted(LISTS) do
    if args[key] and #args[key] > 0 then -- Names stay names: a node looks them up, again and again while they have no address.
      local fine, err = common.check_addresses(args[key], "--" .. key)
      if not fine then return nil, err end
      config[key], origin[key] = args[key], "--" .. key
    end
  end
  if args.connect and #args.connect > 0 then
    local addresses, err = common.resolve(args.connect, "--connect")
    if not addresses then return nil, err end
    config.connect = addresses
  end
  if args.bind then
    local host, port = dial.split(args.bind)
    if not host then return nil, "--bind: " .. port end
    local addresses, err = dial.lookup(world.current(), host, port, 5000)
    if not addresses then return nil, "--bind: " .. err end
    config.bind = addresses[1]
  end
  return config, nil, origin
end

local function until_eof(stopped)
  local stdin, err, code = world.current():stdio(0)
  if not stdin then return common.talk("shoal: --until-eof: %s (%s)", err, code) end
  stdin:attach({
    on_read = function () end, -- Only its end says something.
    on_end = function (stream)
      stopped:set("stdin ended", 0)
      stream:close()
    end,
  })
  return stdin
end

--- After `mv node.log node.log.1`: the next line begins a new file.
local function reopen_log()
  local ok, err, code = log.reopen()
  if not ok then return errors.report("node.log", {}, err, code) end
  log.info("node.log", { reopened_by = "SIGHUP" })
end

local NO_CONNECT = "--connect: missing; expected the address of a gate or manager, such as --connect " .. common.CONNECT
local NO_JOIN = "shoal: --join: missing: this worker has no parts to run until a manager joins it; expected the address of a manager of its"
  .. " datacenter, such as --join 127.0.0.1:7001"

--- What `shoal check` says of the script, the settings and the policies; nil when nothing is wrong. In a simulated node the start
--- itself says it.
local function problems_of(args, config, origin)
  local lines = {}
  local fine, wrong = node.config(config)
  if not fine then lines[1] = located.text(wrong, args.config, origin) end
  if not core.simulated() then
    local folder = type(config.policies) == "string" and config.policies ~= "" and config.policies or nil
    local what, err, role = verify.role(args.script, folder)
    if not what then lines[#lines + 1] = err end
    local ok = true
    if folder then ok, err = verify.policies(folder, role) end
    if not ok then lines[#lines + 1] = err end
    if role == "client" and fine and #fine.connect == 0 then lines[#lines + 1] = NO_CONNECT end -- It would reach nobody for ever.
    if role == "worker" and fine and #fine.join == 0 and #lines == 0 then common.talk("%s", NO_JOIN) end
  end
  return #lines > 0 and table.concat(lines, "\n") or nil
end

function run.run(args)
  local config, err, origin = settings(args)
  if not config then return common.usage("%s", err) end
  local problems = problems_of(args, config, origin)
  if problems then return common.usage("%s", problems) end
  local stopped = task.future("stop")
  common.on_stop_signals(function (signal) stopped:set("signal " .. signal, 0) end)
  common.on_hangup(reopen_log, function () stopped:set("its terminal has gone", 0) end)
  local function watch(name, hang_ms)
    if core.simulated() then return errors.budget(hang_ms > 0 and INSTRUCTIONS or nil) end
    local ok, why, word = core.watch { node = name, log = config.log, hang_ms = hang_ms }
    if not ok then common.talk("shoal: %s (%s)", why, word) end
  end
  watch(config.name or args.script, 0) -- A start may take its time: a long log is replayed within it.
  local made, problem, code = node.start { world = world.current(), script = args.script, config = config,
    tell = function (line) common.talk("%s", line) end }
  if not made then
    common.talk("shoal: %s (%s)", problem, code or "FAILED")
    return code == "CONFIG" and common.EXIT.usage or code == "BUSY" and common.EXIT.refused or common.EXIT.failed
  end
  watch(made.name, made.config.hang_ms)
  local stdin = args.until_eof and until_eof(stopped)
  if args.announce then
    local said = common.data(json.line { node = made.name, role = made.role, dc = made.dc, address = made.address })
    if not said then stopped:set("its address could not be announced") end -- Its supervisor would wait for ever.
  else
    common.talk("%s %s is ready at %s%s", made.role, made.name, made.address, made.dc ~= "" and " in dc " .. made.dc or "")
  end
  core.running = made
  local reason = stopped:await()
  made:stop(reason)
  if stdin then stdin:close() end
  common.talk("%s %s stopped (%s); %s", made.role, made.name, reason, made.summary)
  return 0
end

return run
