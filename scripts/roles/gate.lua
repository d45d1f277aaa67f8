--- gate: leads jobs over datacenters. Its executors are the datacenters whose managers register.
---
--- Hooks that it can wire: job.began, job.ended, job.failed, part.began, part.ended, part.failed, part.retried, each a task that gets
--- { id, job, name, state, reason, part, workflow, attempt, executor, at_ms } at least once: examples/roles/telling_gate.lua.
---
--- `detector.job_suspicion_expired` (node, job, incarnation): a datacenter gave no sign of one job for long, and is about to lose its parts.
---
--- `correlation.detected`, `correlation.healed` get { event, severity, datacenters, at_ns, wall_ns, lasted_ms, cause }: several datacenters
--- failed at once, so evictions are held (lua/shoal/job/eviction.lua); and that is over. They run after the fact and cannot change it.
---
--- It can also wire federation.state, called with { dc, from, to, leader, address, silent_ms, unanswered, own_errors, last } when a datacenter
--- becomes "reachable", "suspected" or "unreachable".
---
--- It answers `job.*` from clients, and `dc.register`, `part.progress`, `part.result` and `lease.renew` from managers. It probes the leader
--- of each datacenter (lua/shoal/member/federation.lua); one that is unreachable is evicted, and its parts start elsewhere.
local dc = require "shoal.dc"
local intake = require "shoal.intake"
local lead = require "shoal.lead"
local log = require "shoal.log"

local role = { name = "gate" }

role.sends = {
  "dc.probe", "part.dispatch", "part.cancel", "part.look", "part.look_for", "lead", "executor.hold", "job.status", "job.stats", "job.result",
  "job.push",
}

role.answers = intake.answers {
  ["dc.register"] = function (state, body) return state.registry:register(body) end,
  ["lead.who"] = function (state, body) return state.lead:who(body) end,
  ["part.look_for"] = function (state, body) return state.lead:look_for(body) end,
  ["lease.renew"] = function (state, body) return state.lead:renew(body) end,
  ["part.progress"] = function (state, body) return state.lead:progress(body) end,
  ["part.result"] = function (state, body) return state.lead:result(body) end,
}

function role.hooks(state)
  return {
    --- A datacenter lives and gives no sign of one job. This is must-deliver: it is retried while it raises.
    ["detector.job_death"] = function (name, job, _)
      state.lead:job_gone(name, job)
    end,
    --- A datacenter did not renew the lease of its part: the part starts elsewhere. This is must-deliver: it is retried while it raises.
    ["lease.expired"] = function (event) state.lead:lease_expired(event) end,
    ["correlation.detected"] = function (event)
      log.warning("gate.held", { event = event.event, severity = event.severity, datacenters = table.concat(event.datacenters, " ") })
    end,
    ["correlation.healed"] = function (event)
      log.info("gate.released", { event = event.event, severity = event.severity, datacenters = table.concat(event.datacenters, " "),
        cause = event.cause, lasted_ms = event.lasted_ms })
    end,
  }
end

function role.start(node)
  local policies, err, code = node:policies_of { "placement", "retry" }
  if not policies then return nil, err, code end
  local state = {}
  state.lead, err, code = lead.open(node, {
    tier = "gates", placement = policies.placement.datacenters, retry = policies.retry, claims = false,
    silent_ms = node.config.gate_silent_ms, gone_ms = node.config.dc_silent_ms,
    retention_ms = node.config.retention_ms, retention_bytes = node.config.retention_bytes,
    part_name = function (_, workflow, _, share) return ("%s/%s"):format(workflow, share.executor) end,
    keys = function (body) return { body.job } end,
    sign_of = function (name) return state.registry:sign_of(name) end,
  })
  if not state.lead then return nil, err, code end
  state.registry = dc.registry(node, state.lead, policies.placement.datacenters) -- it probes the datacenters
  node.known = function () return state.registry:members() end
  node.forget = function (name) return state.registry:erase(name) end
  node.describe = function ()
    local datacenters, held = state.registry.eviction:describe()
    return {
      executors = state.lead:all_executors(), jobs = state.lead:list(), leases = state.lead:lease_counts(), datacenters = datacenters,
      held = held,
    }
  end
  return state
end

function role.stop(state)
  state.registry:close()
  state.lead:close()
end

return role
