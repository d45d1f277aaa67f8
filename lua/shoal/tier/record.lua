--- record: the tier's log and snapshot as bytes. No I/O here.
---
--- The log is a file header, then records, all numbers little-endian:
---
---     16 bytes  "shoal tier log 1"
---     record:   u32 length | u32 crc of body | u64 index | u64 durable | u32 crc of the 24 bytes before | body
---     body:     1 byte kind ("c" a command, "l" a leadership begins) | the command
---
--- Indexes rise by one from record to record. `durable` is the number of bytes of the file that were known to be on disk when the
--- record was written. With it a reader distinguishes a torn tail, which was never acknowledged, from damage to acknowledged records.
---
--- The snapshot is "shoal snapshot 2" | u64 index | u64 length | u32 crc of the state and then of those 16 bytes | state. The crc covers
--- the state first, so that it can be computed piece by piece before the length is known.
local crc32c = require("shoal.core.crc").crc32c

local record = {}

local HEAD = "<I4I4I8I8"
local HEAD_BYTES = 28
local SECTOR = 512 -- A disk writes a sector whole: a torn write leaves a sector of zeros, or an early end.
local SNAPSHOT_HEAD = "<I8I8"
local SNAPSHOT_BYTES = 36

record.LOG_HEADER = "shoal tier log 1"
record.SNAPSHOT_HEADER = "shoal snapshot 2"
record.OVERHEAD = HEAD_BYTES + 1
record.COMMAND, record.LEADS = "c", "l"

---@param index integer
---@param durable integer
---@param kind string
---@param command string
---@return string
function record.encode(index, durable, kind, command)
  local body = kind .. command
  local head = string.pack(HEAD, #body, crc32c(body), index, durable)
  return head .. string.pack("<I4", crc32c(head)) .. body
end

--- The record at this offset (0-based): nil and "short" when the file ends inside it, "no head" when these bytes begin none, "wrong" when
--- its body is another than the head says.
local function read(bytes, offset)
  if #bytes - offset < HEAD_BYTES then return nil, "short" end
  local length, body_crc, index, durable = string.unpack(HEAD, bytes, offset + 1)
  if string.unpack("<I4", bytes, offset + 25) ~= crc32c(bytes:sub(offset + 1, offset + 24)) then return nil, "no head" end
  if length > #bytes - offset - HEAD_BYTES then return nil, "short" end
  local body = bytes:sub(offset + HEAD_BYTES + 1, offset + HEAD_BYTES + length)
  if length == 0 or crc32c(body) ~= body_crc then return nil, "wrong" end
  return { index = index, durable = durable, kind = body:sub(1, 1), command = body:sub(2),
    stop = offset + HEAD_BYTES + length }
end

--- The first sound record after this offset whose index can follow `index`, and where it starts.
local function find_later(bytes, offset, index)
  local highest = index > 0 and index + #bytes // HEAD_BYTES + 1 or math.maxinteger -- Without a record before it, any index may follow.
  for at = offset + 1, #bytes - HEAD_BYTES do
    local candidate = string.unpack("<i8", bytes, at + 9) -- Check the index first: it rules out nearly all candidates.
    if candidate > index and candidate <= highest then
      local found = read(bytes, at)
      if found then return found, at end
    end
  end
  return nil, #bytes
end

--- Whether one of the file's sectors in this range holds only zeros; partial sectors at the ends do not count.
local function has_zero_piece(bytes, first, stop)
  local at = first
  while at < stop do
    local next_at = math.min((at // SECTOR + 1) * SECTOR, stop)
    local other = bytes:find("[^\0]", at + 1)
    if next_at - at >= 16 and (not other or other > next_at) then return true end
    at = next_at
  end
  return false
end

--- Do these bytes, whose head's checksum is wrong, still show the record that follows `index`? Then it was one, and was damaged in place;
--- it may have been acknowledged. Anything else at the end of a file is no record of ours.
local function was_record(bytes, offset, index)
  if #bytes - offset < HEAD_BYTES then return false end
  local length, _, number = string.unpack(HEAD, bytes, offset + 1)
  return number == index + 1 or length == #bytes - offset - HEAD_BYTES
end

--- Classify a bad record at `offset` by its position: true for a tail that was never acknowledged, or nil and the reason that it is damage.
local function torn(bytes, offset, index, problem)
  local later, at = find_later(bytes, offset, index)
  if later and later.durable > offset then
    return nil, ("a record at offset %d says that this was on disk before"):format(at)
  end
  if has_zero_piece(bytes, offset, at) then return true end
  if later then return nil, ("sound records follow at offset %d"):format(at) end
  if problem == "short" or problem == "no head" and not was_record(bytes, offset, index) then return true end
  return nil, "it is whole in length and wrong in content"
end

--- Read a log. `each(record)` is called in order for every sound record; a torn tail is left out.
---@param bytes string
---@param each fun(record: table): true?, string?, string?  stops the reading with its nil, err, code
---@return integer? size   the number of sound bytes of the file
---@return string? err     where and why it cannot be read
---@return string? code    "MALFORMED", or what `each` gave
function record.read_log(bytes, each)
  if bytes:sub(1, #record.LOG_HEADER) ~= record.LOG_HEADER then
    return nil, "offset 0: this is not the log of a tier", "MALFORMED"
  end
  local offset, index = #record.LOG_HEADER, 0
  while offset < #bytes do
    local found, problem = read(bytes, offset)
    if found and index > 0 and found.index ~= index + 1 then
      return nil, ("offset %d: record %d follows record %d"):format(offset, found.index, index), "MALFORMED"
    end
    if not found then
      local is_torn, why = torn(bytes, offset, index, problem)
      if is_torn then return offset end
      return nil, ("offset %d: a damaged record after number %d: %s"):format(offset, index, why), "MALFORMED"
    end
    local ok, err, code = each(found)
    if not ok then return nil, err, code end
    offset, index = found.stop, found.index
  end
  return offset
end

--- The bytes before the state.
---@param index integer
---@param length integer  of the state
---@param crc integer  of the state, as `record.sum` gives it
---@return string
function record.snapshot_head(index, length, crc)
  local head = string.pack(SNAPSHOT_HEAD, index, length)
  return record.SNAPSHOT_HEADER .. head .. string.pack("<I4", crc32c(head, crc))
end

--- Continue the checksum over one more piece.
---@param piece string
---@param crc? integer
---@return integer
function record.sum(piece, crc) return crc32c(piece, crc or 0) end

---@param index integer
---@param state string
---@return string
function record.encode_snapshot(index, state)
  return record.snapshot_head(index, #state, record.sum(state)) .. state
end

---@param bytes string
---@return integer? index, string state_or_err, string? code
function record.read_snapshot(bytes)
  if #bytes < SNAPSHOT_BYTES or bytes:sub(1, 16) ~= record.SNAPSHOT_HEADER then
    return nil, "offset 0: this is not a snapshot of a tier in the format of this program", "MALFORMED"
  end
  local index, length = string.unpack(SNAPSHOT_HEAD, bytes, 17)
  local state = bytes:sub(SNAPSHOT_BYTES + 1)
  if length ~= #state then
    return nil, ("offset 24: %d bytes of state expected, found %d"):format(length, #state), "MALFORMED"
  end
  if string.unpack("<I4", bytes, 33) ~= crc32c(bytes:sub(17, 32), crc32c(state)) then
    return nil, "offset 32: the checksum is wrong", "MALFORMED"
  end
  return index, state
end

return record
