--- silence: for how long something has not been heard of, without the time in which this process could not have heard it.
---
--- A process that was paused (a suspend, a migration, swap) wakes with old clocks and full sockets, and its timers run before
--- its sockets are read. So the judge looks at a fixed interval, and a look that comes late excuses all silence before it:
--- every silence begins anew at that look.
---
---     local watch = silence.new(1000, now_ms)            -- looks come every 1000 ms
---     if watch:look(now_ms) then ... end                 -- true: this look is late, nobody is silent at it
---     local ms = watch:since(peer.heard_ms, now_ms)
---
--- Pure: time is an argument.
local silence = {}
silence.__index = silence

silence.LATE_INTERVALS = 2 -- A look is late when more than so many intervals have passed since the one before.

---@class shoal.Silence
---@field late integer  looks that were late

---@param interval_ms number  between two looks
---@param now_ms number
---@return shoal.Silence
function silence.new(interval_ms, now_ms)
  return setmetatable({ interval_ms = interval_ms, looked_ms = now_ms, excused_ms = now_ms, late = 0 }, silence)
end

--- Look: to be called at each interval, before anything is judged.
---@return boolean late
function silence:look(now_ms)
  local late = now_ms - self.looked_ms > silence.LATE_INTERVALS * self.interval_ms
  self.looked_ms = now_ms
  if late then self.excused_ms, self.late = now_ms, self.late + 1 end
  return late
end

--- How long something last heard at `heard_ms` has been silent. Between two looks too: while the next look is overdue,
--- time stands still.
---@return number ms
function silence:since(heard_ms, now_ms)
  local seen_ms = math.min(now_ms, self.looked_ms + silence.LATE_INTERVALS * self.interval_ms)
  return math.max(0, seen_ms - math.max(heard_ms, self.excused_ms))
end

return silence
