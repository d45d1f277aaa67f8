--- The one catalogue of sites: every place where the host calls code that may fail, or learns that something failed.
---
--- Each has a role that owns it, the ids that its incidents must carry, how it is delivered (`notify`: once;
--- `must_deliver`: retried until accepted or withdrawn), its default level, and, if operators can hang code on it, its
--- hook: the arguments' names, so that a wrong arity is refused when it is wired.
--- A name that ends in ".*" is a family: `client.callback.on_done` is a site of `client.callback.*`.
---
--- To add one: a line here, next to its kin; `errors.call(NAME, ids, fn, ...)` or `errors.report(NAME, ids, err)` there.

local sites = {}

---@class shoal.Site
---@field name string
---@field role "gate"|"manager"|"worker"|"client"|"any"
---@field ids string[]       in the order in which they are written
---@field delivery "notify"|"must_deliver"
---@field level "debug"|"info"|"warning"|"error"|"critical"
---@field hook? { args: string[], required?: boolean, roles?: string[], fires?: string[] }  fires: only nodes of these roles do
---@field doc string

local function site(name, role, level, ids, doc, more)
  local declared = { name = name, role = role, level = level, ids = ids, doc = doc, delivery = "notify" }
  if more then
    declared.delivery = more.delivery or "notify"
    declared.hook = more.hook
  end
  sites[#sites + 1] = declared
end

-- ---- worker: progress to whoever leads the job (1.2, 1.3, 2.2) ----
site("worker.progress.send", "worker", "warning",
  { "job", "workflow", "part", "parts", "manager", "address", "attempt", "consecutive", "status", "counts", "backpressure",
    "put_back" },
  "a progress record could not be sent; the newest goes back and is sent again")
site("worker.progress.redirect", "worker", "warning", { "job", "workflow", "part", "address" },
  "a job's leader does not answer, and no other manager could be asked who leads it")
site("worker.result.send", "worker", "warning", { "job", "workflow", "part", "address", "attempt", "status" },
  "a final result was not accepted; it is sent again until it is")
site("worker.result.spill", "worker", "error", { "job", "part", "file" },
  "a result that waits for its leader could not be written to disk, read back or removed")
site("worker.progress.flush_loop", "worker", "error", { "buffered", "cycle", "consecutive", "next_delay_ms" },
  "the loop that flushes progress failed; it goes on after a backoff")
site("worker.progress.ack", "worker", "debug", { "workflow", "job", "manager", "payload_bytes", "first_byte", "class" },
  "an acknowledgement of progress could not be read; nothing of it was applied")
site("worker.progress.unknown", "worker", "error", { "job", "workflow", "part", "manager", "attempt" },
  "an attempt that its leader does not count any more could not be ended; the rest of the acknowledgement was applied")
site("worker.forget", "worker", "warning", {}, "the memory of parts that ended could not be cleared")

-- ---- manager: the same towards the gates ----
site("manager.progress.send", "manager", "warning",
  { "job", "workflow", "part", "parts", "manager", "address", "attempt", "consecutive", "status", "counts", "backpressure",
    "put_back" },
  "a datacenter's progress could not be sent to the gate; the newest goes back and is sent again")
site("manager.progress.flush_loop", "manager", "error", { "buffered", "cycle", "consecutive", "next_delay_ms" },
  "the loop that flushes a datacenter's progress failed; it goes on after a backoff")
site("manager.progress.ack", "manager", "debug", { "workflow", "job", "manager", "payload_bytes", "first_byte", "class" },
  "a gate's acknowledgement could not be read; nothing of it was applied")
site("manager.progress.redirect", "manager", "warning", { "job", "workflow", "part", "address" },
  "a job's gate does not answer, and no other gate could be asked who leads it")
site("manager.progress.unknown", "manager", "error", { "job", "workflow", "part", "manager", "attempt" },
  "a part that its gate does not count any more could not be dropped; the rest of the acknowledgement was applied")
site("manager.result.send", "manager", "warning", { "job", "workflow", "part", "address", "attempt", "status" },
  "a datacenter's result was not accepted by the gate; it is sent again until it is")
site("manager.result.spill", "manager", "error", { "job", "part", "file" },
  "a result that waits for its leader could not be written to disk, read back or removed")
local renew_ids, orphan_ids = { "leader", "leases", "consecutive", "left_ms", "status" },
  { "job", "workflow", "part", "attempt", "fence", "leader", "address", "expired_for_ms", "grace_ms" }
for _, owner in ipairs { "worker", "manager" } do
  site(owner .. ".lease.renew", owner, "warning", renew_ids, "the leases of parts could not be renewed; it is tried again, before they end")
  site(owner .. ".lease.loop", owner, "error", { "leases", "cycle" }, "the loop that renews leases failed; it goes on after a backoff")
  site(owner .. ".orphan", owner, "error", orphan_ids,
    "a part was stopped, for its lease ended: its leader did not answer, or was down for longer than it may be")
end
site("manager.heart", "manager", "warning", { "gate", "dc" }, "a heartbeat to a gate failed; the next comes after a backoff")

-- ---- gate: datacenters by their heartbeats ----
site("gate.silence", "gate", "error", { "cycle" }, "the loop that notices silent managers failed; it goes on")
site("gate.namesake", "gate", "error", { "dc", "manager", "stays", "out" },
  "two managers of one name send heartbeats: the later one is refused")
site("gate.dc_silent", "gate", "warning", { "dc", "manager", "address" },
  "a datacenter does not answer probes; it gets no parts, and is evicted unless others failed with it")

-- ---- gate: probes of datacenters (1.1) ----
site("federation.probe_loop", "gate", "error", { "datacenters", "cycle", "interval_ms", "consecutive", "next_delay_ms" },
  "the loop that probes datacenters failed; it goes on after a backoff of 1 to 30 s")
site("federation.probe", "gate", "error",
  { "dc", "datacenters", "interval_ms", "timeout_ms", "cycle", "consecutive", "next_delay_ms", "reachability" },
  "a probe of one datacenter failed here: a raise, a send that was refused, an answer that cannot be read; its next one comes after a backoff")
site("federation.state", "gate", "error", { "dc", "from", "to" },
  "a hook on a datacenter's reachability failed; the state had changed before, and the others still run",
  { hook = { args = { "event" }, fires = { "gate" } } })

-- ---- client: what is pushed to it, and the user's own callbacks (1.4) ----
local push_ids = { "handler", "sender", "payload_bytes", "job", "workflow", "sequence", "stage" }
site("client.push.job_status", "client", "error", push_ids, "a pushed job status was not handled")
site("client.push.stats", "client", "error", push_ids, "pushed windowed statistics were not handled")
site("client.push.result", "client", "error", push_ids, "a pushed workflow result was not handled")
site("client.watch", "client", "warning", { "job", "address" }, "a job could not be watched; it is tried again, elsewhere too")
site("client.callback.*", "client", "error", push_ids,
  "the user's own callback failed; the state was taken, and the push is answered ok")

-- ---- detector: deaths of nodes (1.5) ----
local death_ids = { "node", "job", "incarnation", "suspicion_age_ms", "confirmations" }
site("detector.global_death", "any", "error", death_ids, "a hook on the death of a node failed",
  { delivery = "must_deliver", hook = { args = { "node", "incarnation" }, required = true, roles = { "manager" } } })

site("detector.job_death", "any", "error", death_ids, "a hook on the death of a node for one job failed; its parts stay there",
  { delivery = "must_deliver", hook = { args = { "node", "job", "incarnation" }, required = true, roles = { "gate", "manager" },
    fires = { "gate", "manager" } } })
site("detector.event", "any", "error", { "kind", "job", "node" }, "the owner's function on an event of the detector failed")
site("detector.job_suspicion_expired", "any", "error", { "job", "node", "incarnation", "confirmations", "timeout_ms", "age_ms" },
  "the owner's function, or a hook, on a node that is dead for a job failed; the suspicion is over all the same",
  { hook = { args = { "node", "job", "incarnation" }, fires = { "gate", "manager" } } })
site("detector.getter", "any", "error", { "getter", "job", "node", "last_good" },
  "the function that gives the number of members, or this node's health, failed; its last good answer stands")
site("detector.reconcile", "any", "error",
  { "node", "job", "cycle", "looked", "forgotten", "ended", "failed", "mended", "dropped_nodes", "dropped_grants" },
  "the owner could not say whether it knows a node or a job; the pass goes on with the next one")
site("detector.refused", "any", "warning", { "job", "executor" },
  "a suspicion, or a node (job: none; said once), was refused at a cap; the limit of silence of its parts ends them")
site("detector.look", "any", "warning", { "executor", "asked", "jobs", "job" },
  "an executor that gives no sign of some jobs could not be asked about them, or its answer could not be read; it is asked again")

-- ---- correlation: several datacenters at once (2.4); their health ----
local correlation_ids = { "event", "datacenters", "severity", "at_ns", "wall_ns" }
site("correlation.detected", "gate", "error", correlation_ids,
  "a hook on failures of several datacenters at once failed; evictions are held all the same",
  { hook = { args = { "event" } } })
site("correlation.raised", "gate", "error", correlation_ids,
  "a function on more failed datacenters, while evictions are held, failed")
site("correlation.healed", "gate", "error", correlation_ids,
  "a hook on the end of such an event failed; evictions are released all the same",
  { hook = { args = { "event" } } })
site("correlation.evict", "gate", "error", { "dc", "cause", "event" }, "the eviction of a datacenter failed; it is tried again",
  { delivery = "must_deliver" })
site("gate.held", "gate", "warning", { "event", "datacenters", "severity", "known" },
  "several datacenters failed at once: evictions are held until enough of them return, or for hold_ms")
site("correlation.refused", "gate", "error", { "dc" }, "a datacenter is one too many for correlation: its failures are taken for its own")
site("dc_health.refused", "gate", "error", { "dc" }, "a datacenter is one too many to judge its health, or too many of its managers press back")
site("dc_health.changed", "gate", "error", { "dc", "from", "to" }, "a function on a datacenter's state failed; the state has changed")

-- ---- leases: those that a node grants, and those that it holds (2.3) ----
site("lease.expired", "any", "error", { "key", "holder", "node", "fence", "expired_for_ms", "duration_ms", "remaining" },
  "what follows from the expiry of a lease failed; it is delivered again, and the other leases' expiries follow",
  { delivery = "must_deliver", hook = { args = { "event" }, required = true, roles = { "gate", "manager" }, fires = { "gate", "manager" } } })
site("lease.sweep_loop", "any", "error", { "node", "cycle", "held", "lost", "next_delay_ms" },
  "a turn of the loop over leases failed, and is tried again; or the sweep found expired leases that the deadlines had lost")
site("lease.lost", "any", "error", { "key", "node", "fence", "left_ms", "refused" },
  "what follows from the end of a lease that this node held failed; it is delivered again", { delivery = "must_deliver" })
site("lease.jeopardy", "any", "error", { "key", "node", "fence", "left_ms", "refused" },
  "the function that is called before a lease of this node ends failed")
site("lease.grant", "any", "error", { "job", "part", "holder", "fence" }, "a lease could not be granted: the attempt is refused")
site("lead.lease_sweep", "any", "error", { "leases", "cycle" }, "a leader's look at its leases failed; the next one comes")
site("lead.lease_renew", "any", "error", { "runs", "cycle" }, "a leader could not renew its own leadership of jobs; it tries again")

-- ---- jobs: their leader, on gates and managers alike ----
site("lead.run", "any", "error", { "job" }, "a step of leading a job failed; its driver goes on after a backoff")
site("lead.fact", "any", "error", { "job", "fact" }, "what follows from a command that was applied failed; the other effects follow")
site("lead.place", "any", "error", {}, "a round of placing parts failed; the next comes after a backoff")
site("lead.reconcile", "any", "error", {}, "a step of comparing attempts with what is there failed; the next comes in a second")
site("lead.results", "any", "error", { "path" }, "the file of a result could not be written, read or removed")
site("lead.ask", "any", "warning", { "executor", "address" }, "an executor could not be asked what it runs; it is asked again")
site("lead.dispatch", "any", "warning", { "job", "workflow", "part", "executor", "fence", "attempt" },
  "a part could not be handed to an executor; it is tried again, and then elsewhere")
site("lead.attempt_lost", "any", "warning", { "job", "workflow", "part", "attempt", "executor", "fence", "requests", "retry" },
  "an attempt ended without a result: its executor died, fell silent or never took it")
site("lead.lost", "any", "error", { "job", "part", "executor" }, "the loss of an attempt could not be made durable")
site("lead.result", "any", "warning", { "job", "workflow", "part", "payload_bytes" }, "a result from below could not be read; it was refused")
site("lead.push", "any", "warning", { "job", "sequence", "watcher", "attempt" }, "an event could not be pushed to a client")
site("lead.watch", "any", "error", { "job", "watcher" }, "pushing events to one client failed; its watch ended")
site("lead.cancel", "any", "warning", { "job", "part", "executor" }, "a cancel was not answered; it is sent again")
site("lead.forget", "any", "warning", { "job" }, "a finished job could not be forgotten yet")
site("lead.level_loop", "any", "error", { "cycle" }, "measuring the load failed; the level stays")
site("lead.*", "any", "error", { "job" }, "another step of leading a job failed")
-- Hooks of jobs and parts run in tasks of their own: they may wait. An event is told until a hook takes it (job/telling.lua).
local event_ids = { "job", "part", "event", "hook", "attempt" }
local function event_site(name, what)
  site(name, "any", "error", event_ids, "a role's hook on " .. what .. " failed; it is told again after a pause",
    { hook = { args = { "event" }, fires = { "gate", "manager" } } })
end
event_site("job.began", "a job that began")
event_site("job.ended", "a job that ended, whatever its state")
event_site("job.failed", "a job that failed or timed out")
event_site("part.began", "a part that was dispatched")
event_site("part.ended", "a part that ended, whatever its state")
event_site("part.failed", "a part that failed")
event_site("part.retried", "a part that is executed again")

-- ---- tiers: the replicated log ----
site("tier.apply", "any", "critical", { "tier", "index" }, "a committed command could not be applied")
site("tier.snapshot", "any", "error", { "tier", "index" }, "the state could not be written as a snapshot")
site("tier.restore", "any", "critical", { "tier", "index" }, "a snapshot could not be read")
site("tier.log", "any", "critical", { "tier", "index" }, "the tier's log could not be written or synced")
site("tier.on_lead", "any", "error", { "tier", "index" },
  "the owner's function on gaining leadership failed")
site("tier.on_lose", "any", "error", { "tier", "index" },
  "the owner's function on losing leadership failed")

-- ---- workers: parts in child processes ----
site("exec.spawn", "worker", "error", { "job", "workflow", "part", "attempt" }, "a child could not be started")
site("exec.child", "worker", "warning", { "job", "workflow", "part", "attempt", "pid" },
  "a child ended in a way that was not requested")
site("exec.protocol", "any", "error", { "part", "payload_bytes" },
  "a frame between a child and its worker could not be read")
site("exec.workflow", "any", "error", { "job", "workflow", "part", "attempt" }, "a workflow's own code failed")
site("exec.vu", "any", "warning", { "workflow", "part", "vu", "step" },
  "a step of one virtual user failed; the user goes on")
site("exec.command", "worker", "error", { "job", "workflow", "part", "attempt" },
  "our own code that runs a command failed")
site("exec.guard", "worker", "error", { "pid" },
  "the process that kills a worker's children when the worker dies has ended; another one is started")
site("exec.folder", "worker", "error", { "path" },
  "a command's working folder could not be made, looked at or removed")
site("exec.kill", "worker", "error", { "job", "part", "pid" }, "a child could not be killed")
site("exec.result", "any", "error", { "job", "workflow", "part", "attempt" },
  "the result of an attempt could not be taken over; it is given again, for until then it holds its cores", { delivery = "must_deliver" })
site("exec.*", "any", "error", { "part" }, "another step of executing a part failed")
site("http.*", "any", "warning", { "host" }, "an HTTP exchange or server handler failed")

-- ---- the library ----
site("machine.refused", "any", "error", { "machine", "from", "to", "of" },
  "a state machine was asked for a move that it does not hold; it stayed as it was")
site("task.drain", "any", "critical", {}, "the scheduler of tasks itself failed")
site("task.take", "any", "error", { "future" }, "a continuation of a future failed")
site("future.untaken", "any", "warning", { "future", "code", "scope" },
  "a future failed and was never awaited, taken or dropped")
site("rpc.handler", "any", "error", { "message", "peer", "request" },
  "a message's handler raised; the sender is answered FAILED")
site("rpc.decode", "any", "warning", { "message", "peer", "payload_bytes" }, "a message's body could not be read")
site("rpc.role", "any", "warning", { "message", "peer", "role" }, "a message arrived from a role that may not send it; it was refused")
site("rpc.unhandled", "any", "warning", { "message", "peer" }, "a message without a handler arrived; it was refused")
site("rpc.shed", "any", "warning", { "message", "peer" },
  "a one-way message was dropped, for too many are being handled; one in the control lane closed its connection")
site("rpc.reply", "any", "warning", { "message", "peer", "request" }, "a reply could not be sent")
site("rpc.send", "any", "warning", { "message", "peer" }, "a one-way message was not sent")
site("rpc.on_fail", "any", "error", { "message", "peer" }, "the sender's own on_fail failed")
site("rpc.*", "any", "error", { "message", "peer" }, "another step of a remote call failed")
site("net.connection", "any", "warning", { "peer", "address", "role" },
  "a connection ended by a fault: bytes that are no frames, a greeting that was refused or never came, a full control queue")
site("net.refused", "any", "warning", { "what", "more", "total" },
  "the transport could not take connections, requests or answers; how many since the last look")
site("net.*", "any", "error", {}, "a callback of the transport failed; C called it, and knows no ids")
site("swim.refused", "any", "warning", { "what", "more", "total", "from" },
  "membership could not read datagrams, or refused them; how many since the last look")
site("swim.unsent", "any", "warning", { "what", "more", "total", "to", "bytes" },
  "the network did not take datagrams of membership, so other nodes may declare this one dead; how many since the last look, and the last one")
site("swim.join", "any", "error", { "seed", "tries", "silent_ms" },
  "a node has joined nobody: its seeds do not answer, or are not of its group")
site("swim.seed", "any", "warning", { "seed", "tries", "silent_ms" }, "a seed does not answer, or is not of this group; others are")
site("swim.namesake", "any", "error", { "member", "stays", "out" }, "two nodes have one name: one is a member, the other stays out")
site("swim.foreign", "any", "warning", { "address", "member", "cluster" }, "a node of another cluster or datacenter wants to join this one")
site("swim.missed", "any", "warning", { "what", "more", "total" },
  "events that other members told were over before they reached this node (user_missed), or found no memory (user_dropped)")
site("swim.payload", "any", "warning", { "member" }, "a member's payload could not be read; the member counts as without a role")
site("swim.member", "any", "error", { "member", "kind" }, "a role's hook on a membership event failed; the others still run",
  { hook = { args = { "event" } } })
site("swim.partition", "any", "error", { "kind", "cause", "lost", "kept" },
  "a role's hook on many members lost at once, or back, failed; the others still run", { hook = { args = { "event" } } })
site("swim.event", "any", "error", { "kind", "member" }, "the handler of a membership event failed")
site("swim.record", "any", "error", {}, "a member's recording could not be written on; it ends there, membership goes on")
site("swim.*", "any", "error", {}, "a callback of membership failed, or its socket; C knows no ids")
site("world.*", "any", "error", {}, "a callback of a timer, stream, process or file failed")
site("luv.callback", "any", "error", {}, "a callback of luv failed (only what never runs simulated uses luv)")
site("lua.warning", "any", "warning", {}, "Lua warned: a finalizer (__gc) failed")
site("handle.leaked", "any", "error", {}, "a handle of the world was still open when the Lua state closed")
site("spec.*", "any", "error", {}, "for specs")
site("sim.*", "any", "error", {}, "a simulated host or command failed")
site("node.data", "any", "critical", { "data" },
  "a node's data folder was removed or replaced while the node runs: a restart will not find what it writes")
site("node.start", "any", "critical", { "role" }, "the node could not start")
site("node.stop", "any", "error", {}, "a step of stopping the node failed")
site("node.signal", "any", "error", {}, "acting on a signal failed")
site("node.stuck", "any", "error", {},
  "the loop did not turn for 2 s or longer, because a callback ran or a call waited; it turns again")
site("node.*", "any", "error", {}, "another step of running the node failed")
site("script.load", "any", "error", { "path" }, "a script raised while it was loaded")
site("role.*", "any", "error", { "role" }, "a role script's own hook failed")
site("cli.*", "any", "error", { "command" }, "a command of the shoal program failed")
site("repl.eval", "any", "warning", { "line" }, "a line typed into the REPL failed; its error message was the answer")
site("config.*", "any", "error", { "file" }, "a configuration could not be loaded; the last good one stays")
site("policy.load", "any", "error", { "file" }, "a policy file could not be loaded; the last good one stays")
site("policy.decide", "any", "error", { "file", "incident" },
  "the errors policy failed; the built-in one replaces it until the file changes")
site("policy.*", "any", "error", { "file" }, "another policy's function failed")

-- ---- the door itself ----
site("errors.ids", "any", "error", { "of" }, "the function that gives a failure's ids failed")
site("errors.listener", "any", "error", { "incident" }, "a listener to incidents failed")
site("errors.undeclared", "any", "error", { "name" }, "a failure came from a site that the catalogue does not hold")
site("errors.undelivered", "any", "critical", { "of", "key" },
  "the node ended before a must-deliver event was accepted")
site("door.sink", "any", "error", {}, "an error that C reported without Lua")

return sites
