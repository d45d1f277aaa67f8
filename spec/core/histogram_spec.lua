-- Runs build/.../spec/histogram_spec: the properties of core/histogram and core/crc over their whole range.
local build = os.getenv "SHOAL_BUILD" or "build/release"

describe("core/histogram and core/crc", function()
  it("keep their properties over the whole range, and take any bytes", function()
    local run = assert(io.popen(build .. "/spec/histogram_spec 2>&1"))
    local output = run:read "a"
    local ok = run:close()
    assert(ok, output)
    local _, held = output:gsub("\nok ", "\nok ")
    assert.equal(6, held + 1, output)
  end)
end)
