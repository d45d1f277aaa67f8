--- backoff: how long to wait before the next try. Exponential with full jitter and a floor of a tenth, so that many who
--- failed together do not come back together (SCENARIOS F61). Chance comes from the world.
local backoff = {}
backoff.__index = backoff

---@param world table   `world:unit()` is drawn from
---@param options { base_ms: number, cap_ms: number }
function backoff.new(world, options)
  return setmetatable({ world = world, base_ms = options.base_ms, cap_ms = options.cap_ms, tries = 0 }, backoff)
end

--- The next wait in milliseconds.
function backoff:next()
  local full = math.min(self.cap_ms, self.base_ms * 2 ^ self.tries)
  self.tries = math.min(self.tries + 1, 30)
  return full * (0.1 + 0.9 * self.world:unit())
end

--- A success: the next failure starts from the base.
function backoff:reset() self.tries = 0 end

return backoff
