local crc = require "shoal.core.crc"
local histogram = require "shoal.core.histogram"

describe("shoal.core.histogram", function()
  it("is exact for small values, in count, sum and extremes always", function()
    local h = histogram.new()
    for value = 1, 100 do h:record(value) end
    h:record(1 << 60, 3)
    assert.equal(103, h:count())
    assert.equal(5050 + 3 * (1 << 60), h:sum())
    assert.equal(1, h:min())
    assert.equal(1 << 60, h:max())
    assert.equal(52, h:quantile(0.5))
    assert.equal(1 << 60, h:quantile(1))
    assert.equal(1, h:quantile(0))
  end)

  it("answers nil while it is empty", function()
    local h = histogram.new()
    for _, name in ipairs { "min", "max", "mean" } do assert.is_nil(h[name](h)) end
    assert.is_nil(h:quantile(0.5))
    assert.equal(0, h:count())
    assert.equal(0, h:sum())
    assert.equal("histogram: empty", tostring(h))
  end)

  it("stays within one per cent over latencies from a microsecond to a minute", function()
    local h, n = histogram.new(), 0
    for exponent = 3, 10 do
      for step = 1, 99 do h:record(step * 10 ^ exponent // 1 | 0); n = n + 1 end
    end
    assert.equal(n, h:count())
    for value = 1000, 60 * 10 ^ 9 // 1 | 0, 7777777 do
      local one = histogram.new()
      one:record(value)
      one:record(value + 1, 5)
      one:record(value * 4)
      local got = one:quantile(0.5)
      assert.is_true(math.abs(got - (value + 1)) <= histogram.RELATIVE_ERROR * (value + 1))
    end
  end)

  it("merges histograms and encodings alike, in any order", function()
    local a, b, whole = histogram.new(), histogram.new(), histogram.new()
    for value = 1, 3000, 7 do a:record(value); whole:record(value) end
    for value = 5, 9000, 11 do b:record(value * value); whole:record(value * value) end
    local ab = histogram.new()
    assert.is_true(ab:merge(a))
    assert.is_true(ab:merge(b:encode()))
    local ba = assert(histogram.decode(b:encode()))
    assert.is_true(ba:merge(a))
    assert.equal(whole:encode(), ab:encode())
    assert.equal(whole:encode(), ba:encode())
  end)

  it("is compact", function()
    local h = histogram.new()
    for i = 1, 100000 do h:record(1000000 + i * 997) end
    assert.is_true(#h:encode() < 1500, #h:encode())
  end)

  it("lists its buckets in rising order", function()
    local h = histogram.new()
    h:record(300, 2)
    h:record(5)
    assert.same({ { 5, 5, 1 }, { 300, 303, 2 } }, h:buckets())
  end)

  it("refuses bytes that no encoder wrote, and keeps what it had", function()
    local h = histogram.new()
    h:record(42)
    local bytes = h:encode()
    for _, bad in ipairs { "", "\2", bytes:sub(1, -2), bytes .. "\0", bytes:sub(1, -2) .. "\2" } do
      local read, message, code = histogram.decode(bad)
      assert.is_nil(read)
      assert.equal("MALFORMED", code)
      assert.is_string(message)
      assert.equal("MALFORMED", select(3, h:merge(bad)))
    end
    assert.equal(bytes, h:encode())
  end)

  it("takes an integral float, and refuses fractions, negatives and wrong quantiles as mistakes", function()
    local h = histogram.new()
    h:record(3.0)
    assert.equal(3, h:min())
    assert.has_error(function() h:record(0.5) end)
    assert.has_error(function() h:record(-1) end)
    assert.has_error(function() h:record(1, -1) end)
    assert.has_error(function() h:record "many" end)
    assert.has_error(function() h:quantile(1.001) end)
    assert.has_error(function() h:quantile(0 / 0) end)
    assert.equal(1, h:count())
  end)

  it("refuses to count past 2^63 - 1", function()
    local h = histogram.new()
    h:record(1, math.maxinteger)
    assert.has_error(function() h:record(1) end)
    assert.equal("FULL", select(3, h:merge(h)))
    assert.equal(math.maxinteger, h:count())
  end)

  it("is empty again after a reset", function()
    local h = histogram.new()
    h:record(9)
    h:reset()
    assert.equal(histogram.new():encode(), h:encode())
  end)
end)

describe("shoal.core.crc", function()
  it("matches the published check value, and continues", function()
    assert.equal(0xe3069283, crc.crc32c "123456789")
    assert.equal(0xe3069283, crc.crc32c("6789", crc.crc32c "12345"))
    assert.equal(0, crc.crc32c "")
    assert.has_error(function() crc.crc32c("x", 1 << 32) end)
  end)
end)
