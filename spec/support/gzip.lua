--- One text in the codings of HTTP, written by hand, so that specs need no compressor.
---
---     gzip.text, gzip.gzip, gzip.deflate (zlib), gzip.raw, gzip.twice (two members), gzip.double (gzip of gzip),
---     gzip.bomb (17 MB of zeros)
local fixture = {}

--- CRC-32 of gzip (RFC 1952, 8).
local crc_table = {}
for n = 0, 255 do
  local c = n
  for _ = 1, 8 do c = c & 1 == 1 and 0xEDB88320 ~ (c >> 1) or c >> 1 end
  crc_table[n] = c
end
local function crc32(text)
  local c = 0xFFFFFFFF
  for i = 1, #text do c = crc_table[(c ~ text:byte(i)) & 255] ~ (c >> 8) end
  return c ~ 0xFFFFFFFF
end

local function adler32(text)
  local a, b = 1, 0
  for i = 1, #text do
    a = (a + text:byte(i)) % 65521
    b = (b + a) % 65521
  end
  return b << 16 | a
end

--- `n` equal bytes as one deflate block of fixed codes (RFC 1951, 3.2.6): a literal, then copies of 258 bytes at distance 1.
local function run_of(byte, n)
  assert(byte < 144 and n % 258 == 1)
  local bits, count, out = 0, 0, {}
  local function put(value, length) -- The lowest bit first.
    bits, count = bits | value << count, count + length
    while count >= 8 do
      out[#out + 1] = string.char(bits & 255)
      bits, count = bits >> 8, count - 8
    end
  end
  local function code(value, length) -- Codes are packed from their highest bit.
    for i = length - 1, 0, -1 do put(value >> i & 1, 1) end
  end
  put(1, 1)
  put(1, 2)
  code(0x30 + byte, 8)
  for _ = 1, n // 258 do
    code(0xC5, 8) -- 285: a length of 258
    code(0, 5)    -- distance 1
  end
  code(0, 7)
  put(0, (8 - count) % 8)
  return table.concat(out)
end

local HEADER = "\x1f\x8b\8\0\0\0\0\0\0\3"
local N = 258 * 400 + 1
fixture.text = ("a"):rep(N)
fixture.raw = run_of(97, N)
fixture.gzip = HEADER .. fixture.raw .. ("<I4I4"):pack(crc32(fixture.text), N)
fixture.deflate = "\x78\x9c" .. fixture.raw .. (">I4"):pack(adler32(fixture.text))
fixture.twice = fixture.gzip .. fixture.gzip
fixture.double = HEADER .. ("<BI2I2"):pack(1, #fixture.gzip, ~#fixture.gzip & 0xFFFF) .. fixture.gzip -- One stored block.
  .. ("<I4I4"):pack(crc32(fixture.gzip), #fixture.gzip)

local BOMB = 258 * 66000 + 1
local CRC_OF_BOMB = nil
setmetatable(fixture, { __index = function (self, name)
  if name ~= "bomb" then return nil end
  CRC_OF_BOMB = CRC_OF_BOMB or crc32(("\0"):rep(BOMB))
  self.bomb = HEADER .. run_of(0, BOMB) .. ("<I4I4"):pack(CRC_OF_BOMB, BOMB)
  return self.bomb
end })

return fixture
