--- A build of an old commit, to run beside this one.
local old = { COMMIT = "7975c17" } -- The last commit before the job layer was rebuilt.

local function shell(line)
  local pipe = assert(io.popen(line))
  local text = pipe:read "a"
  return pipe:close() and text or nil, text
end

--- The given build, or one made from the history, once. Nil and the reason when there is none.
---@param given string  a checkout that is built, or ""
---@return string? folder, string? why
function old.build(given)
  local commit = old.COMMIT
  if given ~= "" then
    if shell(("test -x '%s/build/release/bin/shoal' && echo yes"):format(given)) then return given end
    error(("--old=%s: expected a checkout that is built (build/release/bin/shoal)"):format(given), 0)
  end
  local folder = "build/jobs-" .. commit
  if shell(("test -x %s/build/release/bin/shoal && echo yes"):format(folder)) then return folder end
  if not shell(("git cat-file -e %s^{commit} 2>/dev/null && echo yes"):format(commit)) then return nil, "the history here does not reach it" end
  io.stderr:write(("bench: building %s into %s, once\n"):format(commit, folder))
  local ok, said = shell(([[
    { rm -rf %s && git clone -q --shared --no-checkout . %s && cd %s && git checkout -q %s &&
    cmake --preset release -DSHOAL_SPECS=OFF && cmake --build --preset release -j$(nproc); } 2>&1]]):format(folder, folder, folder, commit))
  if not ok then return nil, "it could not be built:\n" .. said:sub(-2000) end
  return folder
end

return old
