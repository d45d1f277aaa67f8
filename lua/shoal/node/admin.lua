--- admin: the answers of every node to people: its identity, its members, its incidents and counts, and a line of Lua.
local core = require "shoal.core.node"
local errors = require "shoal.base.errors"
local incidents = require "shoal.node.incidents"
local joining = require "shoal.node.joining"
local repl = require "shoal.node.repl"
local swim = require "shoal.member.swim"

local admin = { sends = { "node.incidents" } } -- It asks the others when it is asked for more than itself.

local EVENTS_MOST = 256  -- In one answer.
local WAIT_MS = 10000    -- An answer waits no longer for the first event; below the message's timeout.
local WAITERS_MAX = 64   -- So many answers wait at once.

--- Member events behind a cursor, as they cross the wire; a snapshot where they are no longer kept.
local function events_of(node, cursor, most)
  local events, next_cursor, code, snapshot = node.journal:read(cursor, most)
  local reply = { node = node.name, cursor = next_cursor, code = "", lost = 0, events = {}, members = {} }
  if not events then
    reply.cursor, reply.code, reply.lost = snapshot.cursor, code, snapshot.lost
    for i, m in ipairs(snapshot.members) do
      reply.members[i] = { name = m.name, address = m.address, state = m.state, role = m.role, dc = m.dc, via = node.name }
    end
    return reply
  end
  local began_ns = node.world:wall_ns() - node.world:now_ns()
  for i, e in ipairs(events) do
    local m = e.member
    reply.events[i] = {
      cursor = e.cursor, wall_ns = began_ns + e.at_ns, kind = e.kind, name = m.name, role = m.role, dc = m.dc, state = m.state,
      address = m.address, generation = m.incarnation.generation, version = m.incarnation.version,
      told = e.told,
    }
  end
  return reply
end

--- The handler of node.events: it may wait.
local function events_handler(node)
  local waiters = 0
  local slot = setmetatable({}, { __close = function () waiters = waiters - 1 end }) -- Also when the task is cancelled.
  local function wait(cursor, wait_ms)
    if waiters >= WAITERS_MAX then return nil, ("%d others wait for events already"):format(waiters), "OVERLOADED" end
    waiters = waiters + 1
    local _ <close> = slot
    return node.journal:wait(cursor, math.min(wait_ms, WAIT_MS))
  end
  return function (body)
    if body.most < 1 then return nil, ("most: expected at least 1, found %d"):format(body.most), "REFUSED" end
    if body.wait_ms > 0 then
      local ready, err, code = wait(body.cursor, body.wait_ms)
      if not ready and code ~= "TIMEOUT" then return nil, err, code end
    end
    return events_of(node, body.cursor, math.min(body.most, EVENTS_MOST))
  end
end

--- Remove a member that is gone: from this node's own group, and from what else its role knows (the managers of a gate).
---@return string? said, string? err, string? code  "BUSY": it lives; "NOT_FOUND"
local function membership_forget(node, name)
  if name == node.name then return nil, ("%s is this node itself, which is up"):format(name), "BUSY" end
  local said, err, code = nil, ("%s is known to nobody here"):format(name), "NOT_FOUND"
  local m = node.swim and node.swim:member(name)
  if m then
    local erased
    erased, err, code = node.swim:erase(name)
    if not erased then
      return nil, ("%s is %s at %s: end it first; a node that is up returns at once"):format(name, m.held and "flapping" or m.state,
        m.address), code
    end
    said = ("forgot %s (%s at %s); the others of this group forget it too"):format(name, m.state, m.address)
  end
  if not node.forget then
    if said then return said end
    return nil, err, code
  end
  local known, why, word = node.forget(name)
  if known then return said and said .. "; " .. known or known end
  if said and word == "NOT_FOUND" then return said end
  return nil, why, word
end

---@param node table
function admin.open(node)
  local rpc = node.rpc
  rpc:handle("node.info", function ()
    local telemetry = node.world:telemetry()
    return {
      node = node.name, role = node.role, dc = node.dc, cluster = node.config.cluster, address = node.address, version = core.version(),
      detail = {
        up_ms = (node.world:now_ns() - node.started_ns) // 1000000, cpu_ms = telemetry.cpu_ns // 1000000,
        resident_bytes = telemetry.resident_bytes, open_handles = telemetry.open_handles, seed = node.world:seed(),
        join = joining.state(node), state = node.describe and node.describe() or {},
      },
    }
  end)
  rpc:handle("node.members", function ()
    local members = {}
    for i, m in ipairs(node:members()) do
      members[i] = {
        name = m.name, address = m.address, state = m.state, role = m.role, dc = m.dc, via = node.name,
        hold = node.hold_of and node.hold_of(m.name),
      }
    end
    for _, m in ipairs(node.known and node.known() or {}) do members[#members + 1] = m end
    return { members = members }
  end)
  rpc:handle("node.events", events_handler(node))
  rpc:handle("node.why", function (body)
    local why = node.swim and node.swim:why(body.name)
    if not why then
      return nil, ("%s is not among the members that %s keeps; its own group is what it can tell of"):format(body.name, node.name), "NOT_FOUND"
    end
    why.member.payload = nil -- bytes, and no evidence
    local lines = { swim.explain(why) }
    why.jobs = node.suspicions and node.suspicions(body.name) or {}
    for _, s in ipairs(why.jobs) do lines[#lines + 1] = ("  %s for %s: %s"):format(s.state, s.job, s.text) end
    return { node = node.name, why = why, text = table.concat(lines, "\n") }
  end)
  rpc:handle("node.forget", function (body)
    local said, err, code = membership_forget(node, body.name)
    if not said then return nil, err, code end
    return { node = node.name, said = said }
  end)
  rpc:handle("node.incidents", incidents.handler(node))
  rpc:handle("node.counts", function ()
    local out = {}
    for i, c in ipairs(errors.counts()) do
      out[i] = { site = c.site, raised = c.raised, reported = c.reported, suppressed = c.suppressed, handled = c.handled,
        in_flight = c.in_flight }
    end
    return { node = node.name, balanced = errors.balance() ~= nil, counts = out }
  end)
  rpc:handle("repl.eval", function (body, peer)
    if not peer:is_loopback() then return nil, "the REPL answers on loopback only", "REFUSED" end
    return repl.eval(node, body.line)
  end)
end

return admin
