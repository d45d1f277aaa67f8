--- spine: the one run that the spec of the spine and `scripts/bench sim` share: 3 datacenters, 20 workers, 2,000 requests, 2 % loss,
--- and a worker that dies in the middle of its work.
---
---   warm --+--> browse --+--> summary (a command)
---          +--> buy -----+
local simcluster = require "spec.support.simcluster"

local spine = {}

spine.WARM, spine.BROWSE, spine.BUY = 200, 900, 900
spine.REQUESTS = spine.WARM + spine.BROWSE + spine.BUY

---@param options { seed: integer, pace_ms?: number, vus?: integer, checked?: boolean, set?: table }
---  pace_ms: a user's rest between two requests, on average; vus: of browse and buy, each
---@return SimCluster cluster, string id, table final
function spine.run(options)
  local pace_ms, vus = options.pace_ms or 100, options.vus or 60
  local c = simcluster.new {
    seed = options.seed, loss = 0.02, gates = 1, dcs = { "a", "b", "c" }, workers = { 7, 7, 6 }, set = options.set,
  }
  if options.checked == false then c.check = function (self) self.checked_ms = self.s:now_ms() end end
  local env = { PACE_MS = tostring(pace_ms) }
  local spec = c:job({
    warm = { vus = 40, iterations = spine.WARM, env = env },
    browse = { after = { "warm" }, vus = vus, iterations = spine.BROWSE, env = env },
    buy = { after = { "warm" }, vus = vus, iterations = spine.BUY, env = env },
    summary = { after = { "browse", "buy" }, work = "summary 30" },
  })
  local id = assert(c:submit(spec))
  c.started_ms = c.s:now_ms()
  c:watch(id)
  -- Each seed kills another worker, once half of the browsing requests have been sent.
  local victim, crashed = c.workers[options.seed % #c.workers + 1], false
  local function half()
    local asked = 0
    for key, count in pairs(c.hits[id] or {}) do asked = asked + (key:find "^browse" and count or 0) end -- order-free: a sum
    return asked >= spine.BROWSE // 2
  end
  local final
  c:until_true(function ()
    if not crashed and half() then
      crashed = true
      c:crash(victim)
    end
    final = c:final(id)
    return final
  end, 300000, 50)
  c.ended_ms, c.victim = c.s:now_ms(), victim
  return c, id, final
end

return spine
