-- Runs the C programs that test core/lease and core/lease_holder.
local build = os.getenv "SHOAL_BUILD" or "build/release"

--- Check that a program succeeds, and has printed "ok" for this many behaviours.
local function holds(program, behaviours)
  local pipe = assert(io.popen(build .. "/spec/" .. program .. " 2>&1"))
  local output = pipe:read "a"
  assert(pipe:close(), output)
  local _, said = output:gsub("ok ", "ok ")
  assert.equal(behaviours, said, output)
end

describe("core/lease", function ()
  it("F25: keeps one holder a key and rising fences; expires in time, never early; survives pauses and jumps; is bounded", function ()
    holds("lease_spec", 18)
  end)
end)
