--- Messages between clients and the leaders of their jobs: a gate, or a manager in a cluster without gates.
local leaders = { "gate", "manager" }
local asked = { "job.submit", "job.watch" }

return {
  types = {
    JobRow = { -- times are milliseconds since 1970 by the leader's clock; started_ms: its first part was placed
      { "job", "string" }, { "name", "string" }, { "state", "string" }, { "reason", "string?" }, { "submitted_ms", "integer?" },
      { "started_ms", "integer?" }, { "ended_ms", "integer?" }, { "origin", "string?" },
    },
    JobEvent = { { "seq", "integer" }, { "kind", "enum:status|stats|result" }, { "body", "any" } },
  },
  messages = {
    {
      name = "job.submit", id = 10, lane = "dispatch", from = { "client" }, to = leaders, timeout_ms = 10000, retry = "idempotent",
      doc = "the same key again answers the same job; with another spec it is refused (CONFLICT)",
      fields = { { "key", "string" }, { "spec", "bytes" }, { "origin", "string?" } }, -- spec: shoal.job.encode; origin: user@host
      reply = { { "job", "string" }, { "duplicate", "boolean" }, { "retention_ms", "integer?" }, { "retention_bytes", "integer?" } },
    },
    {
      name = "job.cancel", id = 11, lane = "control", from = { "client" }, to = leaders, retry = "idempotent",
      fields = { { "job", "string" }, { "reason", "string?" } },
      reply = { { "state", "string" } },
    },
    {
      name = "job.get", id = 12, lane = "data", from = { "client" }, to = leaders, retry = "idempotent",
      fields = { { "job", "string" }, { "outputs", "boolean?" } }, -- outputs: of the parts that have ended, while the job runs
      reply = { { "job", "string" }, { "state", "string" }, { "detail", "any" } }, -- detail: shoal.lead.outcome.describe
    },
    {
      name = "job.list", id = 13, lane = "data", from = { "client" }, to = leaders, retry = "idempotent",
      doc = "the newest jobs: in this state, with this text in their name, submitted in the last within_ms, at most `limit`",
      fields = { { "state", "string?" }, { "name", "string?" }, { "within_ms", "integer?" }, { "limit", "integer?" } },
      reply = { { "jobs", "array:JobRow" }, { "now_ms", "integer?" }, { "more", "integer?" } }, -- more: jobs that the limit left out
    },
    {
      name = "job.watch", id = 14, lane = "dispatch", from = { "client" }, to = leaders, retry = "idempotent",
      doc = "events from from_seq on are pushed to this connection",
      fields = { { "job", "string" }, { "from_seq", "integer" } },
      reply = { { "seq", "integer" }, { "state", "string" } },
    },
    {
      name = "job.unwatch", id = 19, lane = "control", from = { "client" }, to = leaders,
      doc = "stop pushing events of the job to this connection; the reply is empty even if none were pushed",
      fields = { { "job", "string" } },
    },
    -- The three pushes share one sequence of numbers; truncated_from is set when older events are gone. fence: of the leadership that
    -- pushes; the answer is "stale" once a later one has pushed.
    {
      name = "job.status", id = 15, lane = "data", from = leaders, to = { "client" }, asked_by = asked,
      fields = { { "job", "string" }, { "seq", "integer" }, { "truncated_from", "integer?" }, { "body", "map:any" },
        { "fence", "integer?" } },
      reply = "bytes", -- ok | error
    },
    {
      name = "job.stats", id = 16, lane = "data", from = leaders, to = { "client" }, asked_by = asked,
      fields = { { "job", "string" }, { "seq", "integer" }, { "truncated_from", "integer?" }, { "body", "map:any" },
        { "fence", "integer?" } },
      reply = "bytes",
    },
    {
      name = "job.result", id = 17, lane = "data", from = leaders, to = { "client" }, asked_by = asked, timeout_ms = 10000,
      retry = "idempotent",
      fields = { { "job", "string" }, { "seq", "integer" }, { "truncated_from", "integer?" }, { "body", "map:any" },
        { "fence", "integer?" } },
      reply = "bytes",
    },
    {
      name = "job.push", id = 40, lane = "data", from = leaders, to = { "client" }, asked_by = asked, timeout_ms = 10000,
      retry = "idempotent",
      doc = "several events in one message, numbered from `seq` on, for a client that is behind",
      fields = { { "job", "string" }, { "seq", "integer" }, { "truncated_from", "integer?" }, { "events", "array:JobEvent" },
        { "fence", "integer?" } },
      reply = "bytes", -- ok | error: one of them was not taken | stale
    },
    {
      name = "job.events", id = 18, lane = "data", from = { "client" }, to = leaders, retry = "idempotent",
      fields = { { "job", "string" }, { "from_seq", "integer" }, { "max", "integer" } },
      reply = { { "events", "array:JobEvent" }, { "truncated_from", "integer" }, { "last", "integer" } },
    },
  },
}
