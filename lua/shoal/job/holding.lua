--- holding: cordon and drain: a worker gets no new parts, and is emptied. Durable; a gate hands it to the worker's datacenter.
---
---              cordon                  drain(timeout_ms)
---   (usable) ----------> cordoned <---------------------> draining     its parts may end until the timeout, then they move: an
---      ^                    |         cordon                 |         attempt is lost that does not count against `retries`
---      +------ uncordon ----+-----------<--------------------+
local sorted = require "shoal.base.sorted"

local MODES = { cordon = "cordoned", drain = "draining", uncordon = "none" }
local NAMED_MAX = 20

local function names_of(list)
  if #list == 0 then return "none" end
  return table.concat(list, ", ", 1, math.min(#list, NAMED_MAX)) .. (#list > NAMED_MAX and (" and %d more"):format(#list - NAMED_MAX) or "")
end

---@param lead table  the class of leaders, which gets these methods
return function (lead)
  local function answer(self, worker)
    return { worker = worker, dc = self.node.dc, state = self.ledger:hold_of(worker) or "", parts = self.ledger:count_on(worker) }
  end

  --- Cordon, uncordon or drain a worker of this datacenter, or ("look") tell how it is.
  ---@param body { worker: string, action: "cordon"|"uncordon"|"drain"|"look", timeout_ms: integer }
  ---@return { worker: string, dc: string, state: string, parts: integer }? answer  parts: attempts that are there still
  function lead:hold(body)
    if self.fence == 0 then return self:not_leading() end
    if not self.executors:get(body.worker) and not self.ledger:hold_of(body.worker) then
      return nil, ("no worker %s is known to %s; known: %s"):format(body.worker, self.node.name, names_of(sorted.keys(self.executors.byname))),
        "NOT_FOUND"
    end
    if body.action == "look" then return answer(self, body.worker) end
    local mode = MODES[body.action]
    local facts, err, code = self:propose {
      kind = "hold", executor = body.worker, mode = mode,
      until_ms = mode == "draining" and self:clock_ms() + math.max(0, body.timeout_ms) or nil,
    }
    if not facts then return nil, err, code end
    if facts.answer and facts.answer.full then
      return nil, ("%d workers are cordoned already, as many as can be; uncordon some that are gone"):format(facts.answer.full), "FULL"
    end
    return answer(self, body.worker)
  end
end
