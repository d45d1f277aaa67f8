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
  it("keeps one holder a key and rising fences; expires in time, never early; survives pauses and jumps; is bounded", function ()
    holds("lease_spec", 18)
  end)

  it("is held from the instant of sending; late, doubled, reordered answers are harmless (core/lease_holder)", function ()
    holds("lease_holder_spec", 11)
  end)
end)

describe("study lease", function ()
  local function study(options)
    local pipe = assert(io.popen(build .. "/spec/lease_study " .. options .. " 2>&1"))
    local output = pipe:read "a"
    local _, _, status = pipe:close()
    return status, output
  end

  it("finds one holder at any true instant, rising fences and hand-over in time, over random schedules", function ()
    local status, output = study "--schedules=600"
    assert.equal(0, status, output)
    assert.matches("bar lease_violations 0 want <= 0 ok", output, 1, true)
    assert.matches("bar lease_never_handed_over 0 want <= 0 ok", output, 1, true)
  end)

  it("finds violations when any one rule is removed", function ()
    local status, output = study "--schedules=400 --broken=7"
    assert.equal(0, status, output)
    local _, caught = output:gsub("_schedules_caught %d+ want >= 1 ok", "%0")
    assert.equal(6, caught, output)
  end)
end)
