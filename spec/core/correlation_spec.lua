-- Runs the C programs that test core/correlation and core/dc_health: the core's part of F15, F16 and F64. Other specs prove the families
-- themselves, through the role scripts.
local build = os.getenv "SHOAL_BUILD" or "build/release"

--- Run a program, which must print "ok" for this many behaviours.
local function holds(program, behaviours)
  local pipe = assert(io.popen(build .. "/spec/" .. program .. " 2>&1"))
  local output = pipe:read "a"
  assert(pipe:close(), output)
  local _, said = output:gsub("ok ", "ok ")
  assert.equal(behaviours, said, output)
end

describe("core/correlation", function ()
  it("tells failures of the network from those of datacenters, each rule at both sides of its boundary", function ()
    holds("correlation_spec", 23)
  end)
end)

describe("core/dc_health", function ()
  it("judges a datacenter by its managers and cores, damped, and takes the worst of its managers' levels", function ()
    holds("dc_health_spec", 16)
  end)
end)
