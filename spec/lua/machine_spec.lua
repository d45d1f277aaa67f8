--- base/machine: legal moves happen and are logged; others are refused with an incident and change nothing.
local errors = require "shoal.errors"
local log = require "shoal.log"
local machine = require "shoal.base.machine"

describe("machine", function ()
  local lines
  local function door()
    return machine.define { name = "door", first = "shut", moves = { shut = { "open", "gone" }, open = { "shut" }, gone = {} } }
  end

  before_each(function ()
    errors.reset()
    lines = {}
    log.open(nil, function (line) lines[#lines + 1] = line end)
    log.level "debug"
  end)
  after_each(function ()
    log.level "info"
    log.open(nil, function () end)
    errors.reset()
  end)

  it("moves along its table, and logs each move", function ()
    local kind = door()
    local d = kind:enter {}
    assert.equal("shut", d.state)
    assert.is_true(kind:move(d, "open", "the front door"))
    assert.equal("open", d.state)
    local line = lines[#lines]
    for _, word in ipairs { "machine.move", '"machine":"door"', '"from":"shut"', '"to":"open"', "the front door" } do
      assert.truthy(line:find(word, 1, true), line)
    end
  end)

  it("refuses another move: one incident, and the state stays", function ()
    local kind = door()
    local d = kind:enter {}
    kind:step(d, "gone")
    local ok, err, code = kind:move(d, "open", "it")
    assert.is_nil(ok)
    assert.equal("door it: there is no move from gone to open", err)
    assert.equal("ILLEGAL", code)
    assert.equal("gone", d.state)
    assert.equal(1, kind.refused)
    assert.equal(1, errors.count("machine.refused").raised)
  end)

  it("steps without a word where the caller is pure", function ()
    local kind = door()
    local d = kind:enter {}
    assert.is_true(kind:step(d, "open"))
    assert.is_false(kind:step(d, "gone"))
    assert.equal("open", d.state)
    assert.equal(0, errors.count("machine.refused").raised)
    assert.is_true(kind:may("open", "shut"))
    assert.is_false(kind:may("open", "open"))
    assert.is_false(kind:may("nowhere", "open"))
    assert.is_true(kind:final "gone")
    assert.is_false(kind:final "open")
  end)

  it("raises where its table names a state that it does not have", function ()
    assert.has_error(function () machine.define { name = "x", first = "a", moves = { a = { "b" } } } end)
    assert.has_error(function () machine.define { name = "x", first = "b", moves = { a = {} } } end)
  end)
end)
