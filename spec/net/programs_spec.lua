-- Runs the transport's C specs: build/.../spec/net_*. Each prints one line a property that held, and ends at the first
-- that does not.
local build = os.getenv "SHOAL_BUILD" or "build/release"

local function properties(program)
  local run = assert(io.popen(build .. "/spec/" .. program .. " 2>&1"))
  local output = run:read "a"
  local ok = run:close()
  assert(ok, output)
  local _, held = ("\n" .. output):gsub("\nok ", "")
  return held
end

describe("c/net", function ()
  it("F61 F68: circuit, backoff, deadlines, frames and queues keep their bounds, each alone", function ()
    assert.equal(9, properties "net_cores")
  end)
  it("F70: calls, answers, refuses, reconnects and closes, in virtual time", function ()
    assert.equal(14, properties "net_spec")
  end)
  it("F68: opens, tries and closes circuits; control passes them; another life closes them; F14: probes wait for none", function ()
    assert.equal(11, properties "net_circuit")
  end)
  it("F63 F66: holds its lanes, queues and sizes to their bounds, in virtual time", function ()
    assert.equal(8, properties "net_limits")
  end)
  it("F05 F63 F66: takes connections, unfinished messages and requests up to its limits, and says what it refuses", function ()
    assert.equal(11, properties "net_admission")
  end)
  it("F05: refuses what it has no memory for, and blames nobody", function ()
    assert.equal(3, properties "net_memory")
  end)
  it("F05: loses no callback to a lack of memory in Lua", function ()
    assert.equal(3, properties "net_callbacks")
  end)
  it("F70: takes 100,000 mutated frames", function ()
    assert.equal(1, properties "net_fuzz")
  end)
  it("calls, answers, refuses and closes over real sockets", function ()
    assert.equal(3, properties "net_loopback")
  end)
end)
