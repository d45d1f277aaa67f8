--- A time without garbage collection, for specs that fill the stack: Lua calls a finalizer once, on the stack of whoever happens to run,
--- and where that is full the call fails, and what it should have freed is lost. LeakSanitizer finds it, in some runs.
---
---     local _ <close> = uncollected()
return function ()
  collectgarbage()
  collectgarbage() -- Once more for what had a finalizer.
  collectgarbage "stop"
  return setmetatable({}, { __close = function () collectgarbage "restart" end })
end
