--- client: submits jobs and follows them. It has no listener; leaders push over the connection that it opened.
---
--- It handles `job.status`, `job.stats`, `job.result` and `job.push`, which holds several of them. shoal.client wires these handlers,
--- for an unreadable push has an answer of its own. It sends every message that a client may send.
local client = require "shoal.client"

local role = { name = "client" }

role.sends = {
  "job.submit", "job.cancel", "job.get", "job.list", "job.watch", "job.unwatch", "job.events", "node.info",
  "node.members", "node.events", "node.why", "node.forget", "node.incidents", "node.counts", "repl.eval",
  "executor.hold",
}

function role.start(node)
  local opened, err, code = client.open(node, node.config.connect)
  if not opened then return nil, err, code end
  return { client = opened }
end

function role.stop(state)
  state.client:close()
end

return role
