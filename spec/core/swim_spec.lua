-- Runs the C programs that test core/swim on the simulated world (spec/c/swim_spec.c): the core's part of F01, F10, F11, F12 and F70.
-- Other specs prove the families themselves, through the role scripts.
local build = os.getenv "SHOAL_BUILD" or "build/release"

--- Run a program; its output, and whether it ended well.
local function run(command)
  local pipe = assert(io.popen(build .. "/spec/" .. command .. " 2>&1"))
  local output = pipe:read "a"
  return pipe:close(), output
end

--- Check that it succeeds, and has printed "ok" for this many behaviours.
local function holds(program, behaviours)
  local ok, output = run(program)
  assert(ok, output)
  assert.is_nil(output:find "FAILED", output)
  local _, said = output:gsub("ok ", "ok ")
  assert.equal(behaviours, said, output)
end

describe("core/swim", function()
  it("keeps membership true over many seeds, its invariants at every event", function()
    holds("swim_spec", 34)
  end)

  it("keeps each rule that no other spec would miss (scripts/study mutants takes them away)", function()
    holds("swim_rules_spec", 7)
  end)

  it("F12: holds whoever comes and goes to be dead, and lets go of it when it has been well", function ()
    holds("swim_flap_spec", 12)
  end)

  it("merges in any order, tells rumours least-sent first, and its parts keep their promises", function()
    holds("swim_parts_spec", 16)
  end)

  it("tells distances, what users tell, and why it believes what it does; other values are taken while it runs", function()
    holds("swim_more_spec", 11)
  end)

  it("brings each event of a user to all once, in storms, over loss, cuts, stalls and restarts, within stated bounds", function()
    holds("swim_events_spec", 24)
  end)

  it("keeps namesakes and nodes of other clusters apart, and both sides know; an erased ghost stays away", function ()
    holds("swim_intro_spec", 8)
  end)

  it("fetches long tables over streams, and does without where there are none", function ()
    holds("swim_tables_spec", 5)
  end)

  it("is recorded and replayed to the same decisions; a recording may be cut, or be any bytes", function ()
    holds("swim_record_spec", 5)
  end)

  it("learns coordinates: by how far one round trip moves a node, and where many lead (core/vivaldi)", function ()
    holds("vivaldi_spec", 5)
  end)

  it("holds no more streams of tables than its bound (drive/tables)", function ()
    holds("tables_spec", 6)
  end)

  it("is run in fleets, and foretold (drive/fleet, drive/predict)", function ()
    holds("fleet_spec", 7)
  end)

  it("is driven over a world: inputs call nobody, refusals are counted by code, recordings replay (drive/swim_driver)", function ()
    holds("swim_driver_spec", 10)
  end)

  it("keeps names and payloads packed (core/blobs)", function()
    holds("blobs_spec", 4)
  end)

  it("takes any bytes: 10^5 mutated datagrams, every refusal counted", function()
    local ok, output = run "swim_fuzz 100000"
    assert(ok, output)
    assert.is_truthy(output:find "\nok\n$", output)
  end)
end)
