-- Runs the C programs that study core/swim on the simulated world (spec/c/swim_spec.c): what F01, F10, F11, F12 and F70 ask of the
-- core. The families themselves are proved through the role scripts, elsewhere.
local build = os.getenv "SHOAL_BUILD" or "build/release"

--- Run a program; its output, and whether it ended well.
local function run(command)
  local pipe = assert(io.popen(build .. "/spec/" .. command .. " 2>&1"))
  local output = pipe:read "a"
  return pipe:close(), output
end

describe("core/swim", function()
  it("keeps membership true over many seeds, its invariants at every event", function()
    local ok, output = run "swim_spec"
    assert(ok, output)
    assert.is_nil(output:find "FAILED", output)
    local _, behaviours = output:gsub("ok ", "ok ")
    assert.equal(34, behaviours, output)
  end)

  it("keeps each rule that no other spec would miss (scripts/study mutants takes them away)", function()
    local ok, output = run "swim_rules_spec"
    assert(ok, output)
    local _, rules = output:gsub("ok ", "ok ")
    assert.equal(7, rules, output)
  end)

  it("F12: holds whoever comes and goes to be dead, and lets go of it when it has been well", function ()
    local ok, output = run "swim_flap_spec"
    assert(ok, output)
    local _, behaviours = output:gsub("ok ", "ok ")
    assert.equal(11, behaviours, output)
  end)

  it("merges in any order, tells rumours least-sent first, and its parts keep their promises", function()
    local ok, output = run "swim_parts_spec"
    assert(ok, output)
    local _, properties = output:gsub("ok ", "ok ")
    assert.equal(14, properties, output)
  end)

  it("tells distances, what users tell, and why it believes what it does; other values are taken while it runs", function()
    local ok, output = run "swim_more_spec"
    assert(ok, output)
    local _, behaviours = output:gsub("ok ", "ok ")
    assert.equal(8, behaviours, output)
  end)

  it("fetches long tables over streams, and does without where there are none", function ()
    local ok, output = run "swim_tables_spec"
    assert(ok, output)
    local _, behaviours = output:gsub("ok ", "ok ")
    assert.equal(5, behaviours, output)
  end)

  it("is recorded and replayed to the same decisions; a recording may be cut, or be any bytes", function ()
    local ok, output = run "swim_record_spec"
    assert(ok, output)
    local _, behaviours = output:gsub("ok ", "ok ")
    assert.equal(4, behaviours, output)
  end)

  it("keeps names and payloads packed (core/blobs)", function()
    local ok, output = run "blobs_spec"
    assert(ok, output)
    local _, properties = output:gsub("ok ", "ok ")
    assert.equal(3, properties, output)
  end)

  it("takes any bytes: 10^5 mutated datagrams, every refusal counted", function()
    local ok, output = run "swim_fuzz 100000"
    assert(ok, output)
    assert.is_truthy(output:find "\nok\n$", output)
  end)
end)
