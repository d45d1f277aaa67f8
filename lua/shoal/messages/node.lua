--- Messages that any node answers about itself.
local all = { "gate", "manager", "worker", "client" }

return {
  types = {
    MemberInfo = {
      { "node", "string" },
      { "role", "string?" },
      { "dc", "string?" },
      { "address", "string" },
      { "state", "string" },
      { "generation", "integer?" },
      { "version", "integer?" },
    },
    SiteCounts = {
      { "site", "string" },
      { "raised", "integer" },
      { "reported", "integer" },
      { "suppressed", "integer" },
      { "handled", "integer" },
      { "in_flight", "integer?" },
    },
    IncidentInfo = { -- of the error value only its text crosses the wire
      { "id", "string" },
      { "site", "string" },
      { "level", "string" },
      { "ids", "map:any" },
      { "message", "string" },
      { "where", "string?" },
      { "traceback", "string?" },
      { "count", "integer" },
      { "node", "string?" },
      { "at_ns", "integer?" },
      { "wall_ns", "integer?" },
    },
  },
  messages = {
    {
      name = "node.info", id = 30, lane = "control", from = { "client" }, to = all, retry = "idempotent",
      fields = {},
      reply = {
        { "node", "string" },
        { "role", "string" },
        { "dc", "string?" },
        { "address", "string?" },
        { "version", "string" },
        { "uptime_ms", "integer" },
        { "leader", "string?" },
        { "cores", "integer?" },
        { "free", "integer?" },
        { "detail", "any?" },
      },
    },
    {
      name = "node.members", id = 31, lane = "control", from = { "client" }, to = all, retry = "idempotent",
      fields = {},
      reply = { { "members", "array:MemberInfo" } },
    },
    {
      name = "node.incidents", id = 32, lane = "control", from = { "client" }, to = all, retry = "idempotent",
      fields = { { "limit", "integer?" } },
      reply = { { "incidents", "array:IncidentInfo" } },
    },
    {
      name = "node.counts", id = 33, lane = "control", from = { "client" }, to = all, retry = "idempotent",
      fields = {},
      reply = { { "sites", "array:SiteCounts" }, { "balance", "string?" }, { "net", "any?" } },
    },
    {
      name = "repl.eval", id = 34, lane = "control", from = { "client" }, to = all, timeout_ms = 30000,
      fields = { { "code", "string" }, { "session", "string?" } },
      reply = { { "ok", "boolean" }, { "values", "array:string" }, { "output", "string?" }, { "incomplete", "boolean?" } },
    },
  },
}
