--- A gate that tells a file and a webhook when a job fails. Run it with
---   shoal run examples/roles/telling_gate.lua --bind 127.0.0.1:7000
---
--- Each hook is a task: it may wait. One that raises, or returns nil and a problem, is called again after a pause; after a restart of the
--- gate too, so an event may come twice, with the same id.
local http = require "shoal.http"
local role = require "shoal.role"
local world = require "shoal.core.world"

local FILE = "failed-jobs.log"
local WEBHOOK = "http://127.0.0.1:8080/hook"

return role.with_hooks(role.shipped "gate", function ()
  return {
    ["job.failed"] = function (event)
      local line = ("%s %s %s: %s\n"):format(event.id, event.job, event.state, event.reason or "")
      local ok, err, code = role.append(FILE, line)
      if not ok then return nil, err, code end
      local client <close> = http.client(world.current(), { timeout_ms = 5000 })
      local answer
      answer, err, code = client:post(WEBHOOK, { body = line, headers = { ["X-Event"] = event.id } })
      if answer and answer.status >= 300 then return nil, ("%s answered %d"):format(WEBHOOK, answer.status), "REFUSED" end
      return answer, err, code
    end,
  }
end)
