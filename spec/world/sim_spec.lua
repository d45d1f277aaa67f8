-- The simulated world beyond world.h: faults, clocks of their own, children, one seed one run. Each case of
-- spec/c/sim_faults.c is a spec here.
local build = os.getenv "SHOAL_BUILD" or "build/release"

describe("the simulated world", function ()
  local notes, cases = {}, {}
  local pipe = assert(io.popen(build .. "/spec/sim_faults 2>&1; echo status $?"))
  for line in pipe:lines() do
    local verdict, title = line:match "^(not ok) (.*)$"
    if not verdict then verdict, title = line:match "^(%a+) (.*)$" end
    if verdict == "ok" or verdict == "not ok" then
      cases[#cases + 1] = title
      local seen = table.concat(notes, "\n")
      it(title, function () assert.equal("ok", verdict, seen) end)
      notes = {}
    elseif verdict == "status" then
      local rest = table.concat(notes, "\n") -- The output after the last case, such as a sanitizer's report.
      it("ran to its end", function ()
        assert.equal("0", title, rest)
        assert.is_true(#cases > 30)
      end)
    else
      notes[#notes + 1] = line
    end
  end
  pipe:close()
end)
