--- workflow.blame: raise a mistake of a script at the line of the script that made the call, also where pcall stands between. A tail call
--- (`return vu:check(...)`) leaves no line: then the script alone is named.

---@param part table  with work.script.path; without, the error names the caller's line
---@param what string  the function that was called
---@param problem string
return function (part, what, problem)
  local path = part.work and part.work.script and part.work.script.path
  if not path then error(("%s: %s"):format(what, problem), 3) end
  local level = 3
  while true do
    local frame = debug.getinfo(level, "Sl")
    if not frame then error(("%s: %s: %s"):format(path, what, problem), 0) end
    if frame.source == "@" .. path then error(("%s:%d: %s: %s"):format(path, frame.currentline, what, problem), 0) end
    level = level + 1
  end
end
