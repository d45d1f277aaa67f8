--- exec.deadline: a timer that excuses its own lateness.
---
--- When this process was not run for a while (SIGSTOP, a suspend), its timers are rung before what came meanwhile is read: an attempt that
--- ended in time would be killed for its time. So a timer that rings late gives the pipes CATCH_UP_MS first.
local deadline = {}

local LATE_MS = 500
local CATCH_UP_MS = 2000

---@param world table
---@param ms number
---@param fn fun()
---@return table timer  the world's
function deadline.after(world, ms, fn)
  local due_ns = world:now_ns() + math.floor(ms * 1000000)
  local timer
  timer = world:timer(function ()
    if due_ns and world:now_ns() - due_ns > LATE_MS * 1000000 then
      due_ns = nil
      timer:start(CATCH_UP_MS)
      return
    end
    fn()
  end)
  timer:start(ms)
  return timer
end

return deadline
