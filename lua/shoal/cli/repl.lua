--- shoal repl: lines of Lua to a live node, one answer each. Plain lines, so that it works in a pipe too. A line that is not
--- complete waits for the next ones; an empty line sends it as it is.
local common = require "shoal.cli.common"
local json = require "shoal.cli.json"
local out = require "shoal.cli.out"
local task = require "shoal.base.task"
local world = require "shoal.core.world"

local repl = {}

function repl.words(command)
  common.connect_words(command)
  command:option("--eval", "run this one line and leave"):argname("LINE")
  command:epilog([[
With --output json each line's answer is one line of JSON: {"ok": true, "output": "..."}, or {"ok": false, "error": "..."}.
The exit code is 1 when a line raised, and 3 when the node stopped to answer.
Each line runs on the node as a task. A line sees `node`, `members()`, `incidents(n)`, `counts()`, `jobs()`, `suspicions()`;
at a gate `datacenters()`.
A line that is not complete waits for the next ones; an empty line sends it as it is.
Examples:
  shoal repl --connect 127.0.0.1:7000
  shoal repl --connect 127.0.0.1:7001 --eval 'members()'
  echo 'node.name' | shoal repl --connect 127.0.0.1:7001]])
end

--- Lines of stdin, one at a time; nil at its end.
local function lines()
  local queue, rest = task.channel(1000000), ""
  local stdin, err, code = world.current():stdio(0)
  if not stdin then return nil, err, code end
  stdin:attach({
    on_read = function (_, bytes)
      rest = rest .. bytes
      rest = rest:gsub("([^\n]*)\n", function (line)
        if not queue:push(line) then common.talk("shoal: a line was dropped: too many wait") end
        return ""
      end)
    end,
    on_end = function (stream)
      if rest ~= "" then queue:push(rest) end
      queue:close()
      stream:close()
    end,
  })
  return function () return queue:pop() end
end

--- Whether Lua would read on: the mistake is where the text ends.
local function incomplete(text)
  if load("return " .. text, "=repl", "t", {}) then return false end
  local chunk, err = load(text, "=repl", "t", {})
  return not chunk and err:find("<eof>", -5, true) ~= nil
end

local function eval(client, line, as_json)
  local reply, err, code = client:call("repl.eval", { line = line }, 30000)
  if not reply then return common.refused("repl", err, code) end
  if as_json then
    common.data(json.line(reply.ok and { ok = true, output = reply.output } or { ok = false, error = reply.output }))
  elseif reply.ok then
    if reply.output ~= "" then common.data(reply.output) end
  else
    common.talk("error: %s", reply.output)
  end
  return reply.ok and 0 or common.EXIT.failed
end

function repl.run(args)
  local made, exit = common.client(args)
  if not made then return exit end
  local client = made.state.client
  if args.eval then
    exit = eval(client, args.eval, args.output == "json")
    made:stop("done")
    return exit
  end
  local info, err, code = client:call("node.info", {})
  if not info then
    made:stop("unreachable")
    return common.refused("repl", err, code)
  end
  common.talk("%s %s at %s, shoal %s; Ctrl-D leaves", info.role, info.node, info.address, info.version)
  local next_line, problem, word = lines()
  if not next_line then return common.refused("stdin", problem, word) end
  out.ask(info.node .. "> ")
  local worst, held = 0, nil
  local function run(text)
    if text:match("%S") then worst = math.max(worst, eval(client, text, args.output == "json")) end
  end
  for line in next_line do
    local text = held and held .. "\n" .. line or line
    held = line:match("%S") and incomplete(text) and text or nil
    if not held then run(text) end
    if out.lost then break end
    out.ask((held and (" "):rep(#info.node - 1) .. ".." or info.node) .. "> ")
  end
  if held then run(held) end
  out.ask "\n"
  made:stop("done")
  return worst
end

return repl
