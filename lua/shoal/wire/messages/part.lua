--- Messages between the leader of a job and its executors. The same on both hops: gate to manager, manager to worker.
local leaders, workers = { "gate", "manager" }, { "manager", "worker" }

return {
  types = {
    PartProgress = {
      { "job", "string" },
      { "workflow", "string" },
      { "part", "string" },
      { "attempt", "integer" },
      { "fence", "integer" },
      { "seq", "integer" },
      { "stats", "map:integer" }, -- flat counts: requests, ok, errors, ...
      { "waiting", "string?" },   -- the reason that it does not run, where its executor is a tier
      { "age_ms", "integer?" }, -- since the attempt was taken, on the sender's clock
    },
    RunningPart = { { "job", "string" }, { "part", "string" }, { "fence", "integer" }, { "attempt", "integer" } },
    LookedPart = {
      { "job", "string" }, { "part", "string" }, { "fence", "integer" }, { "state", "enum:running|waiting|reporting" },
      { "seq", "integer" }, -- grows while the part moves, as in PartProgress
    },
    KnownMember = {
      { "name", "string" }, { "address", "string" }, { "role", "string" }, { "dc", "string" }, { "state", "string" }, { "via", "string" },
      { "hold", "string?" }, -- "cordoned" or "draining": it gets no new parts
    },
    LeaseItem = { { "key", "string" }, { "fence", "integer" } }, -- key: the job's id, a space, the part
    LeaseRefusal = { { "key", "string" }, { "fence", "integer" }, { "code", "string" } },
    WorkerClass = { { "labels", "map:string" }, { "count", "integer" }, { "cores", "integer" } }, -- cores: of the largest
  },
  messages = {
    {
      name = "part.dispatch", id = 20, lane = "dispatch", from = leaders, to = workers, timeout_ms = 5000, retry = "idempotent",
      doc = "repeated with the same fence, it gets the same answer; a retry elsewhere has the same payload and a greater fence",
      fields = {
        { "job", "string" },
        { "workflow", "string" },
        { "part", "string" },
        { "attempt", "integer" },
        { "fence", "integer" },
        { "leader", "string" },      -- "ip:port" for progress and result
        { "leader_name", "string" },
        { "timeout_ms", "integer" }, -- time left to the job; 0: no limit
        { "share", "bytes" },        -- this part's numbers: shoal.job.share, packed
        { "payload", "bytes" },      -- script and context: the same bytes as in the first attempt
        { "led", "integer?" },       -- the fence of the leadership that sends this; one below the greatest known is STALE
        { "lease_ms", "integer?" },  -- its lease ends so long after this was taken or a renewal was sent; absent: it has none
      },
      reply = { { "state", "enum:accepted" } },
    },
    {
      name = "part.progress", id = 21, lane = "data", from = workers, to = leaders, timeout_ms = 5000,
      doc = "the newest records of all parts of one leader; the newest of each attempt wins; the reply is an ack (wire/ack.lua)",
      fields = { { "parts", "array:PartProgress" } }, -- the sender splits at 500 parts and at 256 KiB
      reply = "bytes",
    },
    {
      name = "part.result", id = 22, lane = "dispatch", from = workers, to = leaders, timeout_ms = 10000, retry = "idempotent",
      doc = "sent until accepted; accepted means durable; stale and not accepted: the job is not known here",
      fields = {
        { "job", "string" },
        { "workflow", "string" },
        { "part", "string" },
        { "attempt", "integer" },
        { "fence", "integer" },
        { "state", "enum:completed|failed|cancelled|lost" }, -- lost: the child ended before its result
        { "reason", "string?" },
        { "stats", "map:integer" },
        { "result", "bytes" }, -- packed detail: stats with histograms, outputs, attempts, incidents
        { "age_ms", "integer?" }, -- as in PartProgress; absent when the sender restarted since
      },
      reply = { { "accepted", "boolean" }, { "stale", "boolean" } },
    },
    {
      name = "part.cancel", id = 23, lane = "control", from = leaders, to = workers, retry = "idempotent",
      fields = {
        { "job", "string" }, { "part", "string" }, { "fence", "integer" }, { "reason", "string?" }, { "deadline_ms", "integer" },
        { "led", "integer?" }, -- as in part.dispatch
      },
      reply = { { "state", "enum:cancelling|unknown" } }, -- cancelling: its result follows
    },
    {
      name = "lease.renew", id = 28, lane = "control", from = workers, to = leaders, asked_by = { "part.dispatch" }, retry = "idempotent",
      doc = "renews leases of one leader, counted from when this was sent; those that it refuses count no more, and their parts are ended",
      fields = { { "holder", "string" }, { "items", "array:LeaseItem" } }, -- holder: the worker, or a manager's datacenter; at most 1000 items
      reply = { { "ttl_ms", "integer" }, { "fence", "integer" }, { "refused", "array:LeaseRefusal" } }, -- fence: of this leadership
    },
    {
      name = "lead", id = 24, lane = "control", from = leaders, to = workers, retry = "idempotent",
      doc = "the sender leads this tier since this fence; the reply lists the parts that run here",
      fields = {
        { "tier", "string" }, { "fence", "integer" }, { "node", "string" }, { "address", "string" },
        { "group", "string?" }, -- the log that the fence is of; only fences of one log are compared
      },
      reply = { { "cores", "integer" }, { "parts", "array:RunningPart" } },
    },
    {
      name = "dc.register", id = 25, lane = "control", from = { "manager" }, to = { "gate" }, retry = "idempotent",
      doc = "a manager says where it is, at each heartbeat; gates learn of managers by it, and of their datacenter's state by dc.probe",
      fields = {
        { "dc", "string" },
        { "node", "string" },
        { "address", "string" },
        { "generation", "integer" }, -- changes at a restart
        { "seq", "integer" },        -- grows within a generation; an older heartbeat is refused
        { "term", "integer" },       -- its fence as a leader; 0: it does not lead now
        { "level", "string?" },      -- its backpressure: none, throttle, batch, reject
      },
      reply = { { "gate", "string" }, { "fence", "integer" } },
    },
    {
      name = "dc.probe", id = 27, lane = "control", from = { "gate" }, to = { "manager" }, timeout_ms = 15000, retry = "idempotent",
      doc = "a gate's probe of a datacenter's leader (member/federation.lua); the answer carries the datacenter's numbers, and its lists "
        .. "when their digest is not the gate's",
      fields = {
        { "dc", "string" },
        { "node", "string" },         -- who is meant; another one refuses
        { "gate", "string" },
        { "seq", "integer" },
        { "incarnation", "integer" }, -- the gate's own, for this datacenter and leader
        { "digest", "string" },       -- of the lists that the gate has; "": none
      },
      reply = {
        { "incarnation", "integer" }, -- as asked
        { "node", "string" },
        { "generation", "integer" },
        { "term", "integer" },        -- its fence
        { "leads", "boolean" },
        { "managers", "integer" },    -- of its membership group, itself included, ...
        { "managers_alive", "integer" }, -- ... and of them alive
        { "workers", "integer" },     -- that are up
        { "held", "integer" },        -- of them cordoned or draining: these offer nothing
        { "cores", "integer" },
        { "free", "integer" },
        { "largest", "integer" },     -- cores of the largest worker
        { "load", "integer" },        -- percent of the cores that are taken
        { "level", "string" },        -- its backpressure: none, throttle, batch, reject
        { "digest", "string" },
        { "members", "array:KnownMember?" },
        { "classes", "array:WorkerClass?" }, -- the workers by their labels (job/fit.lua)
        { "more", "integer?" },       -- workers in none of these classes
      },
    },
    {
      name = "executor.hold", id = 60, lane = "control", from = { "client", "gate" }, to = leaders, retry = "idempotent",
      doc = "cordon, uncordon or drain a worker; a gate hands it on. dc: \"\" for any. state: \"cordoned\", \"draining\" or \"\"",
      fields = {
        { "worker", "string" }, { "dc", "string" }, { "action", "enum:cordon|uncordon|drain|look" }, { "timeout_ms", "integer" },
      },
      reply = { { "worker", "string" }, { "dc", "string" }, { "state", "string" }, { "parts", "integer" } },
    },
    {
      name = "lead.who", id = 26, lane = "control", from = workers, to = leaders, retry = "idempotent",
      doc = "asks for the leader of a job; an empty address: not known here",
      fields = { { "job", "string" } },
      reply = { { "node", "string" }, { "address", "string" } },
    },
    {
      name = "part.look", id = 52, lane = "control", from = leaders, to = workers, retry = "idempotent",
      doc = "asks how the parts of these jobs are (job/suspects.lua); the reply names the jobs that it answers for: a part of one of these "
        .. "that it does not list is not there",
      fields = { { "jobs", "array:string" } },
      reply = { { "jobs", "array:string" }, { "parts", "array:LookedPart" } },
    },
    {
      name = "part.look_for", id = 53, lane = "control", from = leaders, to = leaders, retry = "idempotent",
      doc = "asks another leader of the same tier to send part.look to an executor; code NOT_FOUND: it does not know the executor; without "
        .. "`answered`, the executor gave it no answer either",
      fields = { { "executor", "string" }, { "jobs", "array:string" } },
      reply = { { "answered", "boolean" }, { "jobs", "array:string" }, { "parts", "array:LookedPart" } },
    },
  },
}
