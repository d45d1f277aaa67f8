--- F72: a torn tail is cut off; any other damage is reported, with its offset.
local record = require "shoal.tier.record"

local HEADER = #record.LOG_HEADER

--- A log of n records; synced after every `batch` of them. Returns its bytes and where each record starts.
local function log_of(n, batch, size)
  local bytes, starts, durable = record.LOG_HEADER, {}, HEADER
  for i = 1, n do
    if (i - 1) % batch == 0 then durable = #bytes end
    starts[i] = #bytes
    bytes = bytes .. record.encode(i, durable, record.COMMAND, ("command %d "):format(i):rep(size or 1))
  end
  return bytes, starts
end

local function read(bytes)
  local found = {}
  local size, err, code = record.read_log(bytes, function (r) found[#found + 1] = r.index return true end)
  return size, err, code, found
end

local function flip(bytes, offset, with)
  return bytes:sub(1, offset) .. string.char(bytes:byte(offset + 1) ~ (with or 0x55)) .. bytes:sub(offset + 2)
end

describe("tier record", function ()
  it("gives back what was written", function ()
    local bytes = record.LOG_HEADER .. record.encode(7, 16, "c", "\0x") .. record.encode(8, 16, "l", "")
    local found = {}
    local size = record.read_log(bytes, function (r)
      found[#found + 1] = { r.index, r.durable, r.kind, r.command }
      return true
    end)
    assert.equal(#bytes, size)
    assert.same({ { 7, 16, "c", "\0x" }, { 8, 16, "l", "" } }, found)
  end)

  it("F72: cuts a tail torn at any byte, down to the last whole record", function ()
    local bytes, starts = log_of(4, 1)
    for stop = starts[4], #bytes - 1 do
      local size, err, _, found = read(bytes:sub(1, stop))
      assert.equal(starts[4], size, err)
      assert.same({ 1, 2, 3 }, found)
    end
    assert.equal(#bytes, (read(bytes)))
    assert.equal(HEADER, (read(record.LOG_HEADER)))
  end)

  it("F72: cuts a tail whose sectors never reached the disk", function ()
    local bytes, starts = log_of(5, 3, 60) -- records of some 600 bytes; 4 and 5 are one unsynced batch
    local torn = bytes:sub(1, starts[4] + 100) .. ("\0"):rep(starts[5] - starts[4] - 100) .. bytes:sub(starts[5] + 1)
    assert.equal(starts[4], (read(torn)))
    local grown = bytes .. ("\0"):rep(2000) -- the file grew, the data did not come
    assert.equal(#bytes, (read(grown)))
  end)

  it("F72: tells a flipped bit in every byte of what was acknowledged, and where", function ()
    local bytes, starts = log_of(6, 2)
    for offset = starts[1], starts[5] - 1 do
      local size, err, code = read(flip(bytes, offset))
      assert.is_nil(size)
      assert.equal("MALFORMED", code)
      local at = tonumber(err:match "^offset (%d+): a damaged record")
      assert.truthy(at and at <= offset and offset - at < 60, err)
    end
  end)

  it("F72: tells damage in the last record too, when it is there in full", function ()
    local bytes, starts = log_of(3, 1)
    for offset = starts[3], #bytes - 1 do
      local size, err = read(flip(bytes, offset))
      assert.is_nil(size, offset)
      assert.truthy(err:find(("offset %d: "):format(starts[3]), 1, true), err)
    end
  end)

  it("F72: cuts what no record of ours can have been, when nothing follows it: bytes of another writer, or of a disk", function ()
    local bytes = log_of(4, 1)
    local draw = 12345
    local function junk(count)
      local out = {}
      for i = 1, count do
        draw = (draw * 1103515245 + 12345) % (1 << 31)
        out[i] = string.char(draw >> 16 & 255)
      end
      return table.concat(out)
    end
    for _, count in ipairs { 1, 27, 28, 29, 300, 5000 } do
      local size, err, _, found = read(bytes .. junk(count))
      assert.equal(#bytes, size, err)
      assert.same({ 1, 2, 3, 4 }, found)
    end
    -- In front of whole records the same bytes are damage, and nothing is cut.
    local _, starts = log_of(4, 1)
    local size, err, code = read(bytes:sub(1, starts[3]) .. junk(300) .. bytes:sub(starts[3] + 1))
    assert.is_nil(size)
    assert.equal("MALFORMED", code)
    assert.truthy(err:find(("offset %d: a damaged record after number 2: "):format(starts[3]), 1, true), err)
  end)

  it("F72: tells a hole in what a later record says was on disk", function ()
    local bytes, starts = log_of(6, 1, 100)
    local holed = bytes:sub(1, starts[2]) .. ("\0"):rep(starts[3] - starts[2]) .. bytes:sub(starts[3] + 1)
    local size, err = read(holed)
    assert.is_nil(size)
    assert.truthy(err:find "a record at offset %d+ says that this was on disk before", err)
  end)

  it("refuses another file, a record that is missing or twice", function ()
    assert.equal("offset 0: this is not the log of a tier", (select(2, read "")))
    local gap = record.LOG_HEADER .. record.encode(1, 16, "c", "") .. record.encode(3, 16, "c", "")
    local size, err = read(gap)
    assert.is_nil(size)
    assert.equal("offset 45: record 3 follows record 1", err)
  end)

  it("stops where its reader says so", function ()
    local size, err, code = record.read_log((log_of(3, 1)), function (r)
      if r.index == 2 then return nil, "enough", "FAILED" end
      return true
    end)
    assert.same({ nil, "enough", "FAILED" }, { size, err, code })
  end)

  it("keeps a snapshot whole or tells", function ()
    local bytes = record.encode_snapshot(1 << 40, "state")
    assert.same({ 1 << 40, "state" }, { record.read_snapshot(bytes) })
    for offset = 0, #bytes - 1 do
      local index, err, code = record.read_snapshot(flip(bytes, offset))
      assert.is_nil(index)
      assert.truthy(err:find "^offset %d+: ", err)
      assert.equal("MALFORMED", code)
    end
    assert.is_nil((record.read_snapshot(bytes:sub(1, -2))))
  end)
end)
