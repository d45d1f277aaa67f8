-- Runs the transport's C specs: build/.../spec/net_*. Each prints one line a property that held.
local build = os.getenv "SHOAL_BUILD" or "build/release"

local function properties(program)
  local run = assert(io.popen(build .. "/spec/" .. program .. " 2>&1"))
  local output = run:read "a"
  local ok = run:close()
  assert(ok, output)
  local _, held = ("\n" .. output):gsub("\nok ", "")
  return held
end

describe("c/net", function()
  it("calls, answers, refuses and closes over real sockets", function()
    assert.equal(3, properties "net_loopback")
  end)
end)
