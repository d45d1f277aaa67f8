--- client: submits jobs and follows them. It listens nowhere; leaders push to the connection it made.
---
--- It takes `job.status`, `job.stats`, `job.result` and `job.push`, which is several of them (shoal.client wires them, for an
--- unreadable push has an answer of its own), and sends what a person may ask.
local client = require "shoal.client"

local role = { name = "client" }

role.sends = {
  "job.submit", "job.cancel", "job.get", "job.list", "job.watch", "job.unwatch", "job.events", "node.info",
  "node.members", "node.events", "node.why", "node.incidents", "node.counts", "repl.eval",
}

function role.start(node)
  return { client = client.open(node, node.config.connect) }
end

function role.stop(state)
  state.client:close()
end

return role
