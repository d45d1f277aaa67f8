--- F61: waits that double up to a cap, drawn between a tenth and the whole, so that callers that failed together retry apart.
local backoff = require "shoal.backoff"

local function world(draws)
  local i = 0
  return { unit = function ()
    i = i % #draws + 1
    return draws[i]
  end }
end

describe("backoff", function ()
  it("F61: doubles to its cap, and a success begins anew", function ()
    local b = backoff.new(world { 1 - 1e-12 }, { base_ms = 100, cap_ms = 700 })
    local waits = {}
    for i = 1, 5 do waits[i] = math.floor(b:next() + 0.5) end
    assert.same({ 100, 200, 400, 700, 700 }, waits)
    b:reset()
    assert.equal(100, math.floor(b:next() + 0.5))
  end)

  it("F61: draws from the world, from a tenth of the wait up", function ()
    local b = backoff.new(world { 0, 0.5 }, { base_ms = 1000, cap_ms = 1000 })
    assert.equal(100, b:next())
    assert.equal(550, b:next())
  end)

  it("F61: stays at its cap for ever", function ()
    local b = backoff.new(world { 0.5 }, { base_ms = 1, cap_ms = 1000 })
    local last
    for _ = 1, 5000 do last = b:next() end
    assert.equal(550, last)
  end)
end)
