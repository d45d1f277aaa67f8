-- Runs spec/c/detector_spec.c. F09 and the findings are proved through the role scripts, in spec/sim.
local build = os.getenv "SHOAL_BUILD" or "build/release"

describe("core/detector", function ()
  it("keeps its rules at both sides of each boundary, and does what a simple model does under random operations", function ()
    local pipe = assert(io.popen(build .. "/spec/detector_spec 2>&1"))
    local output = pipe:read "a"
    assert(pipe:close(), output)
    assert.is_nil(output:find "FAILED", output)
    local _, said = output:gsub("ok ", "ok ")
    assert.equal(19, said, output)
  end)

  it("refuses what it has no memory for, with nothing changed, at each of its allocations", function ()
    local pipe = assert(io.popen(build .. "/spec/detector_memory 2>&1"))
    local output = pipe:read "a"
    assert(pipe:close(), output)
    assert.matches("^ok each_allocation", output)
  end)
end)
