--- manager: leads jobs in one datacenter. Its executors are the workers of its membership group.
---
--- `detector.job_suspicion_expired` (node, job, incarnation), a hook that it can wire: a worker gave no sign of one job for long, and is about
--- to lose its parts of it.
---
--- It answers `job.*` from clients (a cluster works without gates), `part.dispatch`, `part.cancel` and `lead` from gates, and
--- `part.progress`, `part.result` and `lease.renew` from workers. It registers with the gates every heartbeat_ms, answers their probes with
--- the numbers of its datacenter, and renews the leases of the shares that they gave it.
local dc = require "shoal.dc"
local intake = require "shoal.intake"
local lead = require "shoal.lead"
local leaders = require "shoal.leaders"
local leases = require "shoal.leases"
local reports = require "shoal.reports"

local role = { name = "manager" }

role.sends = {
  "part.dispatch", "part.cancel", "lead", "dc.register", "part.progress", "part.result", "lead.who", "lease.renew",
  "part.look", "part.look_for", "job.status", "job.stats", "job.result", "job.push",
}

role.answers = intake.answers {
  ["part.dispatch"] = function (state, body) return state.lead:take(body) end,
  ["part.cancel"] = function (state, body) return state.lead:end_part(body) end,
  ["part.look"] = function (state, body) return state.lead:look(body) end,
  ["part.look_for"] = function (state, body) return state.lead:look_for(body) end,
  ["dc.probe"] = function (state, body) return state.heart:probe(body, state.lead) end,
  ["lead"] = function (state, body)
    local reply, err, code = state.heart:lead(body, state.lead)
    if reply then state.lead:gate_leads(body) end
    return reply, err, code
  end,
  ["lead.who"] = function (state, body) return state.lead:who(body) end,
  ["lease.renew"] = function (state, body) return state.lead:renew(body) end,
  ["part.progress"] = function (state, body) return state.lead:progress(body) end,
  ["part.result"] = function (state, body) return state.lead:result(body) end,
}

function role.hooks(state)
  return {
    --- A worker joined or left: the leader asks it for its parts, or starts its parts elsewhere.
    ["swim.member"] = function (event)
      local m = event.member
      if m.role ~= "worker" then return end
      if event.kind == "left" then
        state.lead:gone(m.name, m.name .. " left")
      elseif event.kind ~= "suspect" and event.kind ~= "dead" then
        state.lead:hear(m.name, m.address, m.cores, m.incarnation.generation, { labels = m.labels })
      end
    end,
    --- A member died. This is must-deliver: it is retried while it raises.
    ["detector.global_death"] = function (name, incarnation)
      state.lead:gone(name, ("%s (%s) died"):format(name, incarnation))
    end,
    --- A worker lives and gives no sign of one job: that job's parts there start elsewhere. Must-deliver, too.
    ["detector.job_death"] = function (name, job, _)
      state.lead:job_gone(name, job)
    end,
    --- A worker did not renew the lease of a part: the part starts elsewhere. This is must-deliver, too.
    ["lease.expired"] = function (event) state.lead:lease_expired(event) end,
  }
end

--- Called with the living members every few seconds: add executors that a hook missed, and remove those that are not members.
function role.members(state, members)
  local workers = {}
  for _, m in ipairs(members) do
    if m.role == "worker" then
      workers[m.name] = true
      state.lead:hear(m.name, m.address, m.cores, m.incarnation.generation, { labels = m.labels })
    end
  end
  for _, e in ipairs(state.lead:all_executors()) do
    if not workers[e.name] and e.state ~= "down" then state.lead:gone(e.name, e.name .. " is no longer a member") end
  end
end

function role.start(node)
  local policies, err, code = node:policies_of { "placement", "retry" }
  if not policies then return nil, err, code end
  local state, led = {}, leaders.new() -- led: the gates' leaderships
  state.reports = reports.open(node, {
    owner = "manager", led = led, interval_ms = node.config.flush_ms, others = function () return node.config.gates end,
    unknown = function (record) state.lead:drop(record, "the gate does not know it") end,
  })
  state.held = leases.open(node, { -- the leases of shares that gates granted to this datacenter
    owner = "manager", holder = node.dc, led = led, reports = state.reports, leader = function () return "unknown", 0 end,
    refused = function (record) state.lead:drop(record, "the gate does not renew its lease") end,
    stop = function (record, reason) return state.lead:stop_share(record, reason) end,
  })
  state.lead, err, code = lead.open(node, {
    tier = "managers", placement = policies.placement.workers, retry = policies.retry, claims = true,
    reports = state.reports, held = state.held, silent_ms = node.config.manager_silent_ms, retention_ms = node.config.retention_ms,
    retention_bytes = node.config.retention_bytes,
    -- A gate's part "warm/a" is split into "warm/a/1", "warm/a/2", its second attempt into "warm/a/2.1", "warm/a/2.2", so that no two
    -- executions have the same name and attempt. A job of our own is split into "warm/1", "warm/2".
    part_name = function (entry, workflow, index)
      local up = entry.upstream
      if not up then return ("%s/%d"):format(workflow, index) end
      return up.attempt > 1 and ("%s/%d.%d"):format(up.part, up.attempt, index) or ("%s/%d"):format(up.part, index)
    end,
    keys = function (body) return { body.job .. "|" .. body.part:gsub("/[^/]*$", ""), body.job } end,
  })
  if not state.lead then return nil, err, code end
  state.heart = dc.heart(node, state.lead) -- its loops register with the gates
  node.hold_of = function (name) return state.lead.ledger:hold_of(name) end -- cordoned or draining, for `shoal members`
  node.describe = function ()
    return { executors = state.lead:all_executors(), jobs = state.lead:list(), leases = state.lead:lease_counts() }
  end
  return state
end

function role.stop(state)
  state.heart:close()
  state.reports:close(500)
  state.held:close()
  state.lead:close()
end

return role
