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
    holds("correlation_spec", 24)
  end)
end)

describe("core/dc_health", function ()
  it("judges a datacenter by its managers and cores, damped, and takes the worst of its managers' levels", function ()
    holds("dc_health_spec", 16)
  end)
end)

describe("the study of correlation", function ()
  it("F15: over random schedules detected and healed alternate, nobody is evicted while it holds, and at rest all flags are down", function ()
    local pipe = assert(io.popen(build .. "/spec/correlation_study --seeds=1000 2>&1"))
    local output = pipe:read "a"
    assert(pipe:close(), output)
    for _, bar in ipairs { "one_down_not_alone", "three_of_four_held", "three_of_four_evicted", "alternation_broken", "evicted_while_held",
      "flapping_detected", "flags_after_quiet" } do
      assert.truthy(output:find("\nbar correlation_" .. bar .. " %S+ want %S+ %S+ ok\n"), output)
    end
  end)
end)
