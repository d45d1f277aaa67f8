--- The rate limit: `burst` at once, then one per `per_ms`, for each fingerprint. A fingerprint is a site, a file:line and
--- a level: the level belongs to it, so that a failure that a policy raised to a warning is not held back with the
--- debug lines around it.

local limit = {}

local PRINTS_MAX = 64 -- Of one site; later ones share one, so that a flood of places cannot fill the memory.
local NS_PER_MS = 1000000

--- The fingerprint's record, made on first use.
function limit.print_of(site, where, level)
  local key = where .. " " .. level
  local found = site.prints[key]
  if found then return found end
  if site.prints_count >= PRINTS_MAX then
    key, where = "(others) " .. level, "(others)"
    found = site.prints[key]
    if found then return found end
  end
  site.prints_count = site.prints_count + 1
  found = { site = site.name, where = where, level = level, count = 0, held = 0 }
  site.prints[key] = found
  return found
end

--- Whether one more may be told now. A bucket of `burst`, refilled by one every `per_ms`.
---@return boolean admitted
---@return integer? window_ns  when the next one may
function limit.admit(print, burst, per_ms, now_ns)
  local per_ns = math.ceil(per_ms * NS_PER_MS)
  if not print.left then
    print.left, print.filled_ns = burst, now_ns
  else
    local earned = (now_ns - print.filled_ns) // per_ns
    if earned > 0 then
      print.left = print.left + earned
      print.filled_ns = print.filled_ns + earned * per_ns
    end
  end
  if print.left >= burst then -- Full: the window begins with what is taken now.
    print.left, print.filled_ns = burst, now_ns
  end
  if print.left > 0 then
    print.left = print.left - 1
    return true
  end
  return false, print.filled_ns + per_ns
end

--- Whether a traceback of this place is still wanted.
function limit.wants_trace(site, where) return (site.traced[where] or 0) < site.traces end

--- One was kept.
function limit.traced(site, where)
  local n = site.traced[where]
  if not n then
    site.traced_count = site.traced_count + 1
    if site.traced_count > PRINTS_MAX then -- Begin anew: a few tracebacks too many are no harm.
      site.traced, site.traced_count = {}, 1
    end
    n = 0
  end
  site.traced[where] = n + 1
end

return limit
