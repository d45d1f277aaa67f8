--- shoal members: the nodes that one node knows, and how; or what happens to the members of its own group, without a gap; or why it
--- believes of one what it does.
local ask = require "shoal.cli.ask"
local common = require "shoal.cli.common"
local core = require "shoal.core.node"
local following = require "shoal.cli.follow"
local json = require "shoal.cli.json"
local line = require "shoal.base.log.line"
local out = require "shoal.cli.out"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"
local world = require "shoal.core.world"

local MOST = 256         -- Events in one answer.
local WAIT_MS = 10000    -- How long an answer waits for one; then it is asked again.
local CALL_MS = 15000
local LOOK_MS = 1000     -- Between two looks at a gate's table.
local NOBODYS = -1       -- No node's cursor: the answer is the table of now.

local function table_of(members)
  local rows = { { "NODE", "ROLE", "DC", "STATE", "ADDRESS", "SEEN BY" } }
  for _, m in ipairs(members) do
    local state = m.hold and m.state .. ", " .. m.hold or m.state
    rows[#rows + 1] = { m.name, m.role, m.dc ~= "" and m.dc or "-", state, m.address, m.via }
  end
  return common.columns(rows)
end

local plain = ask.command {
  example = "shoal members --connect 127.0.0.1:7000",
  query = function () return "node.members", {} end,
  text = function (reply) return table_of(reply.members) end,
}

local members = {}

function members.words(command)
  common.connect_words(command)
  command:option("--since", "print the member events behind this cursor, and the cursor to go on with; 0: all that are kept"):argname("CURSOR")
    :convert(common.integer("--since", "a cursor", 0))
  command:flag("--follow", "go on printing events as they come, until Ctrl-C; without --since: from the table of now")
  command:option("--why", "tell what speaks for and against a member, from where this node stands"):argname("NAME")
  command:epilog([[
Examples:
  shoal members --connect 127.0.0.1:7000
  shoal members --connect 127.0.0.1:7001 --since 0
  shoal members --connect 127.0.0.1:7001 --follow
  shoal members --connect 127.0.0.1:7001 --why w1
An event's first column is the cursor behind it. A cursor is one node's, from one of its lives. Where events behind it are no longer
kept, or it is of an earlier life, that is said and the table of now is printed instead; what follows has no gap.
A gate knows datacenters by probes of their leaders: there, --follow prints what changes in its table, without cursors.]])
end

members.clashes = {
  { "why", "since", "--why tells of one member now" },
  { "why", "follow", "--why tells of one member now" },
}

local WHY = {
  EPOCH = "the cursor is of another life of this node, or of another node; the members now:",
  TRUNCATED = "%d events behind the cursor are no longer kept; the members now:",
}

local function event_line(e)
  local told = e.told and ("  %q"):format(e.told):gsub("\\\n", "\\n") or ""
  return ("%d  %s  %-7s  %s  %s  %s  %s%s"):format(e.cursor, line.wall(e.wall_ns), e.kind, e.name, e.role ~= "" and e.role or "-",
    e.dc ~= "" and e.dc or "-", e.address, told)
end

--- One answer, for people.
local function show(reply, asked)
  if reply.code ~= "" then
    if asked ~= NOBODYS then common.talk("shoal: " .. WHY[reply.code], reply.lost) end
    common.data(table_of(reply.members))
  end
  for _, e in ipairs(reply.events) do common.data(event_line(e)) end
end

--- Answers from `cursor` on, each given to `take(reply, cursor)`; `wait_ms` 0: until there is no more.
---@return integer? cursor, string? err, string? code
local function read(client, cursor, wait_ms, take)
  while true do
    local reply, err, code = client:call("node.events", { cursor = cursor, most = MOST, wait_ms = wait_ms }, CALL_MS)
    if not reply then return nil, err, code end
    take(reply, cursor)
    cursor = reply.cursor
    if wait_ms == 0 and reply.code == "" and #reply.events < MOST then return cursor end
  end
end

--- All that there is, then the end. As JSON it is one value: what came last of everything, and all events.
local function since(client, args)
  local all
  local cursor, err, code = read(client, args.since, 0, function (reply, asked)
    if args.output ~= "json" then return show(reply, asked) end
    if not all or reply.code ~= "" then -- What a snapshot replaces is not told beside it.
      all = reply
      return
    end
    all.cursor = reply.cursor
    table.move(reply.events, 1, #reply.events, #all.events + 1, all.events)
  end)
  if not cursor then return common.refused("node.events", err, code) end
  common.data(all and json.encode(all) or ("cursor %d"):format(cursor))
  return 0
end

local function follow(made, args)
  local ended, cursor = task.future "interrupt", args.since or NOBODYS
  core.on_signal("HUP", function () ended:set(common.EXIT.hung_up) end)
  core.on_signal("INT", function () ended:set(common.EXIT.interrupted) end)
  core.on_signal("TERM", function () ended:set(common.EXIT.terminated) end)
  local reading = made.scope:spawn("cli.members", { command = "members" }, function ()
    local _, err, code = read(made.state.client, cursor, WAIT_MS, function (reply, asked)
      if args.output ~= "json" then
        show(reply, asked)
      elseif reply.code ~= "" or #reply.events > 0 then
        common.data(json.line(reply))
      end
      cursor = reply.cursor
      if out.lost then ended:set("lost") end
    end)
    ended:set("refused", err, code)
  end)
  local _ <close> = out.watch_reader(function () ended:set("lost") end)
  local how, err, code = ended:await()
  reading:cancel()
  if cursor ~= NOBODYS and how ~= "lost" then common.talk("go on with --since %d", cursor) end
  if how == "refused" then return common.refused("node.events", err, code) end
  return how == "lost" and 0 or how
end

-- At a gate -------------------------------------------------------------------------------------------------------------

--- The managers that know a datacenter's members best, as "m-a1 at 127.0.0.1:7001".
local function managers_of(list, dc)
  local words = {}
  for _, m in ipairs(list) do
    if m.role == "manager" and (not dc or m.dc == dc) and m.state == "alive" then words[#words + 1] = m.name .. " at " .. m.address end
  end
  return #words > 0 and table.concat(words, ", ") or "none that is alive"
end

--- The changes between two tables of members, in order of their names.
---@return table[] changes  { kind, name, role, dc, state, address, via }
local function changes_of(before, now)
  local list = {}
  local function put(m, kind)
    list[#list + 1] = { kind = kind, name = m.name, role = m.role, dc = m.dc, state = m.state, address = m.address, via = m.via }
  end
  for name, m in sorted(now) do
    local old = before[name]
    if not old then
      put(m, "join")
    elseif old.state ~= m.state then
      put(m, m.state)
    elseif old.address ~= m.address or old.hold ~= m.hold then
      put(m, "update")
    end
  end
  for name, m in sorted(before) do
    if not now[name] then put(m, "gone") end
  end
  return list
end

--- A gate knows datacenters by probes and has no numbered events of them: look at its table, and print what changes.
local function follow_gate(made, args)
  return following.until_signal(made, "cli.members", function (leave)
    local _ <close> = out.watch_reader(function () leave(0) end)
    local before, failed_ms
    while true do
      local reply, err, code = made.state.client:call("node.members", {})
      if reply then
        local now = {}
        for _, m in ipairs(reply.members) do now[m.name] = m end
        if not before then common.data(args.output == "json" and json.line(reply) or table_of(reply.members)) end
        for _, c in ipairs(before and changes_of(before, now) or {}) do
          c.wall_ns = world.current():wall_ns()
          common.data(args.output == "json" and json.line(c) or ("%s  %-7s  %s  %s  %s  %s  seen by %s"):format(line.wall(c.wall_ns), c.kind,
            c.name, c.role, c.dc ~= "" and c.dc or "-", c.address, c.via))
        end
        if out.lost then return 0 end
        before, failed_ms = now, nil
      else
        failed_ms = failed_ms or task.now_ms()
        if not before or task.now_ms() - failed_ms >= CALL_MS then return common.refused("node.members", err, code) end
      end
      task.sleep(LOOK_MS)
    end
  end)
end

--- Why a member is believed to be as it is: the node that is asked, or which one to ask instead.
local function tell_why(made, args)
  local client = made.state.client
  local reply, err, code = client:call("node.why", { name = args.why })
  if reply then
    common.data(args.output == "json" and json.encode(reply) or reply.text)
    return 0
  end
  if code == "NOT_FOUND" then
    local known = client:call("node.members", {})
    for _, m in ipairs(known and known.members or {}) do
      if m.name == args.why then err = ("%s; ask a manager of %s: %s"):format(err, m.dc, managers_of(known.members, m.dc)) end
    end
  end
  return common.refused("node.why", err, code)
end

function members.run(args)
  if not args.since and not args.follow and not args.why then return plain.run(args) end
  local made, exit = common.client(args)
  if not made then return exit end
  local client = made.state.client
  if args.why then
    exit = tell_why(made, args)
  else
    local info, err, code = client:call("node.info", {})
    if not info then
      exit = common.refused("node.info", err, code)
    elseif info.role == "gate" and args.follow and not args.since then
      exit = follow_gate(made, args)
    else
      exit = args.follow and follow(made, args) or not args.follow and since(client, args)
      if info.role == "gate" then
        local known = client:call("node.members", {})
        common.talk("shoal: %s is a gate, so these events are of gates alone; those of datacenters are at their managers: %s", info.node,
          managers_of(known and known.members or {}))
      end
    end
  end
  made:stop("done")
  return exit
end

return members
