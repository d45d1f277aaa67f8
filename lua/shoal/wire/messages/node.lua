--- Queries that any node answers about itself. Answers that may be long use the telemetry lane: a list of incidents must not delay a
--- cancel.
local all = { "gate", "manager", "worker" }

return {
  types = {
    SiteCounts = {
      { "site", "string" }, { "raised", "integer" }, { "reported", "integer" }, { "suppressed", "integer" },
      { "handled", "integer" }, { "in_flight", "integer" },
    },
    IncidentInfo = { -- the error value crosses the wire only as text
      { "id", "string" },
      { "node", "string" },
      { "site", "string" },
      { "level", "string" },
      { "message", "string" },
      { "where", "string" },
      { "count", "integer" },
      { "wall_ns", "integer" },
      { "ids", "map:string" },
    },
    SilentNode = { { "node", "string" }, { "address", "string" }, { "why", "string" } },
    MemberEvent = { -- `cursor` is the one after it
      { "cursor", "integer" }, { "wall_ns", "integer" }, { "kind", "string" }, { "name", "string" }, { "role", "string" },
      { "dc", "string" }, { "state", "string" }, { "address", "string" }, { "generation", "integer" }, { "version", "integer" },
      { "told", "bytes?" }, -- of the kind "user"
    },
  },
  messages = {
    {
      name = "node.info", id = 30, lane = "control", from = { "client" }, to = all, retry = "idempotent",
      fields = {},
      reply = {
        { "node", "string" }, { "role", "string" }, { "dc", "string" }, { "cluster", "string" }, { "address", "string" },
        { "version", "string" }, { "detail", "any" },
      },
    },
    {
      name = "node.members", id = 31, lane = "telemetry", from = { "client" }, to = all, retry = "idempotent",
      fields = {},
      reply = { { "members", "array:KnownMember" } },
    },
    {
      name = "node.incidents", id = 32, lane = "telemetry", from = { "client", "gate", "manager", "worker" }, to = all,
      retry = "idempotent", timeout_ms = 9000,
      doc = "the newest incidents of the node (scope absent), its group or the cluster (lua/shoal/node/incidents.lua), of this site or "
        .. "family, of the last within_ms, of this node; silent: nodes that did not answer; asked: how many answered",
      fields = {
        { "max", "integer" }, { "scope", "string?" }, { "site", "string?" }, { "within_ms", "integer?" }, { "node", "string?" },
      },
      reply = { { "incidents", "array:IncidentInfo" }, { "silent", "array:SilentNode?" }, { "asked", "integer?" }, { "more", "integer?" } },
    },
    {
      name = "node.counts", id = 33, lane = "telemetry", from = { "client" }, to = all, retry = "idempotent",
      fields = {},
      reply = { { "node", "string" }, { "balanced", "boolean" }, { "counts", "array:SiteCounts" } },
    },
    {
      name = "repl.eval", id = 34, lane = "control", from = { "client" }, to = all, timeout_ms = 30000,
      doc = "one line of Lua, run as a task; answered on loopback only",
      fields = { { "line", "string" } },
      reply = { { "ok", "boolean" }, { "output", "string" } },
    },
    {
      name = "node.events", id = 35, lane = "telemetry", from = { "client" }, to = all, retry = "idempotent", timeout_ms = 15000,
      doc = "member events after a cursor (lua/shoal/member/swim/journal.lua); with wait_ms the answer waits for one. With the code TRUNCATED "
        .. "or EPOCH `members` holds the living instead, and `lost` how many events are missed",
      fields = { { "cursor", "integer" }, { "most", "integer" }, { "wait_ms", "integer" } },
      reply = {
        { "node", "string" }, { "cursor", "integer" }, { "code", "string" }, { "lost", "integer" }, { "events", "array:MemberEvent" },
        { "members", "array:KnownMember" },
      },
    },
    {
      name = "node.forget", id = 37, lane = "control", from = { "client" }, to = all, retry = "idempotent", timeout_ms = 10000,
      doc = "remove a member that is dead, left or silent; refused while it lives",
      fields = { { "name", "string" } },
      reply = { { "node", "string" }, { "said", "string" } },
    },
    {
      name = "node.why", id = 36, lane = "telemetry", from = { "client" }, to = all, retry = "idempotent",
      doc = "the evidence for a member's state at this node (swim.lua: SwimWhy); text is for people",
      fields = { { "name", "string" } },
      reply = { { "node", "string" }, { "why", "any" }, { "text", "string" } },
    },
  },
}
