--- watch: no caller hears of what the transport and membership refuse or lose on their own, so each look reports the counts that
--- grew since the last one.
local errors = require "shoal.base.errors"
local joining = require "shoal.node.joining"
local sorted = require "shoal.base.sorted"

local WATCH_MS = 1000
local SWEEP_CYCLES = 30 -- A peer that cannot be reached is closed after one to two sweeps.

---@param self table  the node
---@return true
return function (self)
  local told = {}
  --- `from`: the source of the last one, by its name.
  local function look(site, prefix, counts, from)
    for what, total in sorted(counts) do
      local name = prefix .. what
      if type(total) == "number" and total > (told[name] or 0) then
        local ids = { what = name, more = total - (told[name] or 0), total = total, from = from and (from[what] or "?") }
        errors.report(site, ids, from and ("%s: %d datagrams, the last one from %s"):format(name, ids.more, ids.from) or name, "REFUSED")
        told[name] = total
      end
    end
  end
  --- A node whose datagrams do not leave is buried by the others, and should know why.
  local function look_unsent(counts)
    for what, total in sorted(counts.send_errors or { send_failed = counts.send_failed }) do
      local name = "unsent." .. what
      if total > (told[name] or 0) then
        local last = counts.send_last and counts.send_last[what] or { to = "?", bytes = 0 }
        local more = total - (told[name] or 0)
        errors.report("swim.unsent", { what = what, more = more, total = total, to = last.to, bytes = last.bytes },
          ("the network refused %d datagrams (%s), the last one of %d bytes to %s"):format(more, what, last.bytes, last.to), what)
        told[name] = total
      end
    end
  end
  self.scope:loop("node.watch", {}, { interval_ms = WATCH_MS }, function (cycle)
    local c = self.rpc:counts()
    look("net.refused", "", {
      accept_errors = c.accept_errors, unsent_replies = c.unsent_replies - self.rpc.unread_replies, -- Without those of clients that went away.
      stray_replies = c.stray_replies, control_overflows = c.control_overflows,
    })
    look("net.refused", "", c.refused)
    look("net.refused", "fault.", c.faults)
    if self.swim then
      local counts = self.swim:counts()
      if joining.explains_foreign(self) then told.CLUSTER, counts.refused.CLUSTER = counts.refused.CLUSTER, nil end
      look("swim.missed", "", { user_missed = counts.user_missed, user_dropped = counts.user_dropped })
      look("swim.refused", "", counts.refused, counts.refused_from)
      look_unsent(counts)
    end
    if cycle % SWEEP_CYCLES == 0 then self.rpc:sweep() end
  end)
  return true
end
