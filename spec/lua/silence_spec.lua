--- The judge of silence subtracts its own lateness.
local silence = require "shoal.base.silence"

describe("silence", function ()
  it("counts from the last word, and from no earlier than its own start", function ()
    local watch = silence.new(1000, 5000)
    assert.equal(0, watch:since(1000, 5000))
    assert.equal(1500, watch:since(1000, 6500))
    assert.equal(500, watch:since(6000, 6500))
    assert.equal(0, watch:since(7000, 6500))
  end)

  it("B5: begins anew at a look that comes later than two intervals after the one before, and not 1 ms sooner", function ()
    for gap, late in pairs { [2000] = false, [2001] = true } do -- order-free: each by itself
      local watch = silence.new(1000, 0)
      assert.is_false(watch:look(1000))
      assert.equal(late, watch:look(1000 + gap))
      assert.equal(late and 0 or 1000 + gap - 500, watch:since(500, 1000 + gap))
      assert.equal(late and 1 or 0, watch.late)
    end
  end)

  it("B5: excuses a pause once: who stays silent after it is silent one limit later", function ()
    local watch = silence.new(1000, 0)
    local now = 11000
    assert.is_true(watch:look(now))
    assert.equal(0, watch:since(0, now))
    for _ = 1, 10 do
      now = now + 1000
      assert.is_false(watch:look(now))
    end
    assert.equal(10000, watch:since(0, now))
    assert.equal(3000, watch:since(18000, now))
  end)

  it("stands still while a look is overdue: whoever asks before the late look hears of no silence that only we made", function ()
    local watch = silence.new(1000, 0)
    watch:look(1000)
    assert.equal(3000, watch:since(0, 11000))
    watch:look(11000)
    assert.equal(0, watch:since(0, 11000))
  end)
end)
