--- Messages between clients and who leads their jobs: a gate, or a manager where there is no gate.
local leaders = { "gate", "manager" }

return {
  types = {
    JobStatus = {
      { "job", "string" },
      { "name", "string" },
      { "state", "enum:submitted|queued|running|cancelling|completed|failed|cancelled|timed_out" },
      { "seq", "integer" }, -- of the newest event this status includes
      { "reason", "string?" },
      { "submitted_wall_ns", "integer?" }, -- for people: the leader's wall clock
      { "ended_wall_ns", "integer?" },
      { "workflows", "array:WorkflowStatus?" },
    },
    WorkflowStatus = {
      { "workflow", "string" },
      { "state", "string" },
      { "parts", "integer" },
      { "done", "integer" },
      { "failed", "integer?" },
      { "lost", "integer?" },
      { "reason", "string?" },
    },
    StatsRow = { -- one datacenter's window of one workflow
      { "dc", "string" },
      { "workflow", "string" },
      { "counts", "map:integer" },
      { "errors", "map:integer?" },
      { "latency", "bytes?" }, -- shoal.core.histogram
      { "vus", "integer?" },
    },
    JobEvent = {
      { "seq", "integer" },
      { "kind", "enum:status|stats|result" },
      { "body", "any" },
    },
  },
  messages = {
    {
      name = "job.submit", id = 10, lane = "dispatch", from = { "client" }, to = leaders, timeout_ms = 10000,
        retry = "idempotent",
      doc = "the same key again answers the same job",
      fields = {
        { "key", "string" },
        { "name", "string" },
        { "spec", "bytes" }, -- the canonical job spec
        { "callback", "string?" }, -- "ip:port" to push events to, when not this connection
      },
      reply = { { "job", "string" }, { "duplicate", "boolean" } },
    },
    {
      name = "job.cancel", id = 11, lane = "control", from = { "client" }, to = leaders, retry = "idempotent",
      fields = { { "job", "string" }, { "reason", "string?" } },
      reply = { { "state", "string" } },
    },
    {
      name = "job.get", id = 12, lane = "data", from = { "client" }, to = leaders, retry = "idempotent",
      fields = { { "job", "string" } },
      reply = { { "status", "JobStatus" }, { "summary", "any?" } },
    },
    {
      name = "job.list", id = 13, lane = "data", from = { "client" }, to = leaders, retry = "idempotent",
      fields = { { "limit", "integer?" }, { "state", "string?" } },
      reply = { { "jobs", "array:JobStatus" }, { "more", "boolean?" } },
    },
    {
      name = "job.watch", id = 14, lane = "dispatch", from = { "client" }, to = leaders, retry = "idempotent",
      doc = "events after from_seq are pushed to this connection",
      fields = { { "job", "string" }, { "from_seq", "integer" } },
      reply = { { "seq", "integer" }, { "status", "JobStatus" } },
    },
    {
      name = "job.status", id = 15, lane = "data", from = leaders, to = { "client" },
        asked_by = { "job.submit", "job.watch" },
      fields = { { "job", "string" }, { "seq", "integer" }, { "status", "JobStatus" } },
      reply = "bytes", -- ok | error
    },
    {
      name = "job.stats", id = 16, lane = "data", from = leaders, to = { "client" },
        asked_by = { "job.submit", "job.watch" },
      fields = { { "job", "string" }, { "seq", "integer" }, { "window_ms", "integer" }, { "rows", "array:StatsRow" } },
      reply = "bytes", -- ok | error
    },
    {
      name = "job.result", id = 17, lane = "data", from = leaders, to = { "client" },
        asked_by = { "job.submit", "job.watch" },
      timeout_ms = 10000, retry = "idempotent",
      fields = {
        { "job", "string" },
        { "seq", "integer" },
        { "state", "enum:completed|failed|cancelled|timed_out" },
        { "reason", "string?" },
        { "result", "any" },
      },
      reply = "bytes", -- ok | error
    },
    {
      name = "job.events", id = 18, lane = "data", from = { "client" }, to = leaders, retry = "idempotent",
      fields = { { "job", "string" }, { "from_seq", "integer" }, { "max", "integer?" } },
      reply = { { "events", "array:JobEvent" }, { "truncated_from", "integer?" }, { "next_seq", "integer" } },
    },
  },
}
