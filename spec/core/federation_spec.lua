-- Runs build/.../spec/federation_spec: the rules of core/federation at their exact instants, and a random run against a model.
local build = os.getenv "SHOAL_BUILD" or "build/release"

describe("core/federation", function()
  it("F14: keeps its rules to the nanosecond, and agrees with a model over 100 random runs", function()
    local pipe = assert(io.popen(build .. "/spec/federation_spec 100 2>&1"))
    local output = pipe:read "a"
    assert(pipe:close(), output)
    assert.is_nil(output:find("FAILED", 1, true), output)
    local _, said = output:gsub("ok ", "ok ")
    assert.equal(17, said, output)
  end)

  it("F14, F17: a simulated day of a wide-area network raises no suspicion; cuts and healing are noticed within their bounds", function ()
    local pipe = assert(io.popen(build .. "/spec/federation_study --cuts=150 2>&1"))
    local output = pipe:read "a"
    assert(pipe:close(), output)
    local _, bars = output:gsub("\nbar %S+ %S+ want %S+ %S+ ok", "")
    assert.equal(11, bars, output)
    assert.is_nil(output:find("short", 1, true), output)
  end)
end)
