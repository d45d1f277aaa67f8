--- A scope without garbage collection, for specs that fill the stack. Lua calls a finalizer once, on the running coroutine's stack. If
--- that stack is full, the call fails and the finalizer's memory leaks, which LeakSanitizer reports in some runs.
---
---     local _ <close> = uncollected()
return function ()
  collectgarbage()
  collectgarbage() -- Once more for objects with a finalizer.
  collectgarbage "stop"
  return setmetatable({}, { __close = function () collectgarbage "restart" end })
end
