--- Messages between who leads a job and who works for it. The same on both hops: gate to manager, manager to worker.
local leaders, workers = { "gate", "manager" }, { "manager", "worker" }

return {
  types = {
    Share = { -- the VUs of a part: numbers first .. first + vus - 1 of `of`
      { "first", "integer" },
      { "vus", "integer" },
      { "of", "integer" },
    },
    RunningPart = {
      { "job", "string" },
      { "workflow", "string" },
      { "part", "string" },
      { "attempt", "integer" },
      { "fence", "integer" },
      { "state", "string" },
    },
  },
  messages = {
    {
      name = "part.dispatch", id = 20, lane = "dispatch", from = leaders, to = workers, timeout_ms = 5000,
        retry = "idempotent",
      doc = "a retry elsewhere sends the same payload with a greater fence",
      fields = {
        { "job", "string" },
        { "workflow", "string" },
        { "part", "string" },
        { "attempt", "integer" },
        { "fence", "integer" },
        { "leader", "string" },
        { "leader_address", "string" },
        { "cores", "integer" },
        { "timeout_ms", "integer" },
        { "share", "Share?" },
        { "payload", "bytes" }, -- script, context: exactly what the first attempt got
      },
      reply = { { "accepted", "boolean" }, { "reason", "string?" }, { "code", "string?" }, { "free", "integer?" } },
    },
    {
      name = "part.progress", id = 21, lane = "data", from = workers, to = leaders, timeout_ms = 5000,
      doc = "the newest of an attempt wins; the reply is read by shoal.ack and nobody else",
      fields = {
        { "node", "string" },
        { "job", "string" },
        { "workflow", "string" },
        { "part", "string" },
        { "attempt", "integer" },
        { "fence", "integer" },
        { "seq", "integer" },
        { "state", "enum:dispatched|running|completed|failed|cancelled" },
        { "counts", "map:integer" },
        { "errors", "map:integer?" },
        { "latency", "map:bytes?" }, -- by step: shoal.core.histogram
        { "vus", "integer?" },
      },
      reply = "bytes",
    },
    {
      name = "part.result", id = 22, lane = "dispatch", from = workers, to = leaders, timeout_ms = 10000,
        retry = "idempotent",
      fields = {
        { "node", "string" },
        { "job", "string" },
        { "workflow", "string" },
        { "part", "string" },
        { "attempt", "integer" },
        { "fence", "integer" },
        { "state", "enum:completed|failed|cancelled" },
        { "reason", "string?" },
        { "counts", "map:integer" },
        { "errors", "map:integer?" },
        { "latency", "map:bytes?" },
        { "status", "integer?" }, -- a command's exit status
        { "output", "bytes?" },
        { "context", "any?" }, -- what dependents are given
        { "detail", "any?" },
      },
      reply = { { "outcome", "enum:accepted|stale" } },
    },
    {
      name = "part.cancel", id = 23, lane = "control", from = leaders, to = workers, retry = "idempotent",
      doc = "without a part: all of the job",
      fields = { { "job", "string" }, { "part", "string?" }, { "fence", "integer" }, { "reason", "string?" } },
      reply = { { "parts", "array:RunningPart" } }, -- still to end
    },
    {
      name = "lead", id = 24, lane = "control", from = leaders, to = workers, retry = "idempotent",
      doc = "I lead this tier since this fence; answer what runs here",
      fields = { { "tier", "string" }, { "fence", "integer" }, { "node", "string" }, { "address", "string" } },
      reply = { { "parts", "array:RunningPart" }, { "cores", "integer" }, { "free", "integer" } },
    },
    {
      name = "dc.register", id = 25, lane = "control", from = { "manager" }, to = { "gate" }, retry = "idempotent",
      doc = "heartbeat of the manager that leads its datacenter",
      fields = {
        { "dc", "string" },
        { "node", "string" },
        { "address", "string" },
        { "cores", "integer" },
        { "free", "integer" },
        { "fence", "integer" },
        { "workers", "integer" },
      },
      reply = { { "accepted", "boolean" }, { "leader", "string?" }, { "leader_address", "string?" } },
    },
  },
}
