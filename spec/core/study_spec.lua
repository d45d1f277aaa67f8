-- The studies' quick forms: they run, their output is correct, and their bars hold where they are cheap.
local build = os.getenv "SHOAL_BUILD" or "build/release"

--- Run a command. Returns its status and its output.
local function run(command)
  local pipe = assert(io.popen("env -u LD_PRELOAD " .. command .. " 2>&1")) -- bash leaks; our programs bring their own sanitizer.
  local output = pipe:read "a"
  local _, _, status = pipe:close()
  return status, output
end

local function study(name, options) return run(build .. "/spec/" .. name .. "_study " .. (options or "")) end

describe("studies of membership", function()
  it("finds crashes as fast as theory says, in the mean and by chi-square", function()
    local status, output = study("detection", "--largest=100")
    assert.equal(0, status, output)
    assert.is_truthy(output:find "\nbar detection_mean_off_100 %S+ want <= 0.02 ok\n", output)
    assert.is_truthy(output:find "\nbar detection_chi_square_100 %S+ want <= 25.74 ok\n", output)
  end)

  it("tells all of a crash in time, and of nobody else", function()
    local status, output = study("crash", "--crashes=200")
    assert.equal(0, status, output)
    assert.is_truthy(output:find "bar crash_undecided_or_false_100 0 want <= 0 ok", output)
  end)

  it("sends two small datagrams a member and second at rest", function()
    local status, output = study("idle", "--largest=100 --seconds=20")
    assert.equal(0, status, output)
  end)

  it("keeps its invariants over random faults and settings, and is at rest when they stop", function()
    local status, output = study("chaos", "--seeds=40")
    assert.equal(0, status, output)
    assert.is_truthy(output:find "bar chaos_seeds_failed 0 want <= 0 ok", output)
  end)

  it("detects as fast as a fixed timeout, with a tenth of its mistakes, in both layers", function()
    for _, only in ipairs { 3, 6 } do -- local, workers_stalls
      local status, output = study("quality", "--crashes=20 --beats=3000 --subjects=12 --loss=0.3 --only=" .. only)
      assert.equal(0, status, output)
      local _, bars = output:gsub("bar quality_%S+ %S+ want %S+ %S+ ok\n", "")
      assert.equal(4, bars, output)
    end
  end)

  it("exits 1 and says so when a bar is short", function()
    local status, output = study("idle", "--largest=100 --seconds=5 --probe_interval_ms=600 --probe_timeout_ms=300")
    assert.equal(1, status, output)
    assert.is_truthy(output:find "bar idle_bytes_100 %S+ want <= 60 short", output)
  end)

  it("refuses an option or a study that is none", function()
    assert.equal(2, (study("idle", "--colour=3")))
    local status, output = run "scripts/study no_such_study"
    assert.equal(2, status)
    assert.is_truthy(output:find("no study is named no_such_study", 1, true), output)
  end)
end)
