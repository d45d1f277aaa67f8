-- Both worlds are held to world.h by one program; each of its cases is a spec here.
local build = os.getenv "SHOAL_BUILD" or "build/release"

--- Run the program for one world; the cases in order, each { verdict, title, checks that failed }.
local function run(world)
  local cases, notes = {}, {}
  local pipe = assert(io.popen("env -u LD_PRELOAD " .. build .. "/spec/world_conformance " .. world .. " 2>&1; echo status $?"))
  for line in pipe:lines() do
    local verdict, title = line:match "^(not ok) (.*)$"
    if not verdict then verdict, title = line:match "^(%a+) (.*)$" end
    if verdict == "status" then cases.status = title
    elseif verdict == "ok" or verdict == "skip" or verdict == "not ok" then
      cases[#cases + 1] = { verdict = verdict, title = title, notes = table.concat(notes, "\n") }
      notes = {}
    else notes[#notes + 1] = line
    end
  end
  pipe:close()
  cases.rest = table.concat(notes, "\n") -- The output after the last case: the reason for an early end, such as a sanitizer's report.
  return cases
end

for _, world in ipairs { "uv", "sim" } do
  describe("world.h over " .. world, function ()
    local cases = run(world)
    for _, case in ipairs(cases) do
      -- A case that this world skips is not registered, so nothing is pending.
      if case.verdict ~= "skip" then
        it(case.title, function () assert.equal("ok", case.verdict, case.notes) end)
      end
    end
    it("ran to its end", function () assert.equal("0", cases.status, cases.rest) end)
  end)
end
