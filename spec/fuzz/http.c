/* HTTP messages: any bytes are messages, an incomplete message, or a refusal; the places of the cuts do not matter.
 *   u8 mode    1 responses; else requests · 2 the first answers a HEAD · 4 small limits · 8 the text is an address (http.url)
 *   u8 piece   bytes at a time */
#include "lua_target.h"

static const char source[] =
    "local http = require 'shoal.core.http'\n"
    "local CODES = { MALFORMED = true, UNSUPPORTED = true, HEAD_TOO_LARGE = true, TOO_LARGE = true, BAD_LENGTH = true,\n"
    "  BAD_CODING = true, BAD_CHUNK = true, TRUNCATED = true }\n"
    "local function text_of(message)\n"
    "  local parts, names = {}, {}\n"
    "  for name in next, message.headers do names[#names + 1] = name end\n"
    "  table.sort(names)\n"
    "  for _, name in ipairs(names) do parts[#parts + 1] = ('%q=%q'):format(name, table.concat(message:values(name), ', ')) end\n"
    "  return ('%s %q %q %q %s.%d [%s]'):format(message.status or 0, message.method or '', message.target or '', message.body,\n"
    "    message.keep_alive, message.minor, table.concat(parts, ','))\n"
    "end\n"
    "local function run(mode, bytes, piece)\n"
    "  local parser = http.parser(mode & 1 == 1 and 'response' or 'request',\n"
    "    mode & 4 == 4 and { head_bytes = 200, headers = 4, body_bytes = 64 } or nil)\n"
    "  local seen, at = {}, 1\n"
    "  if mode & 2 == 2 then parser:expect(true) end\n"
    "  local function refused(err, code)\n"
    "    assert(type(err) == 'string' and CODES[code], code)\n"
    "    local none, same, word = parser:feed 'x'\n"
    "    assert(none == nil and same == err and word == code, 'broken, and then not')\n"
    "    seen[#seen + 1] = 'refused'\n" /* With two errors, the cuts decide which is found first. */
    "    return table.concat(seen, '\\n')\n"
    "  end\n"
    "  while at <= #bytes do\n"
    "    local last = math.min(#bytes, at + piece - 1)\n"
    "    local given, from = bytes:sub(at, last), 1\n"
    "    while true do\n"
    "      local message, next_at, code = parser:feed(given, from)\n"
    "      if message == nil then return refused(next_at, code) end\n"
    "      if message == false then break end\n"
    "      assert(next_at >= from and next_at <= #given + 1)\n"
    "      seen[#seen + 1], from = text_of(message), next_at\n"
    "      if from > #given then break end\n"
    "    end\n"
    "    at = last + 1\n"
    "  end\n"
    "  local message, err, code = parser:finish()\n"
    "  if message == nil then return refused(err, code) end\n"
    "  seen[#seen + 1] = message and text_of(message) or 'nothing'\n"
    "  return table.concat(seen, '\\n')\n"
    "end\n"
    "return function (input)\n"
    "  local mode, piece = input:byte(1, 2)\n"
    "  local bytes = input:sub(3)\n"
    "  if mode & 8 == 8 then\n"
    "    local scheme, host, port, target = http.url(bytes)\n"
    "    if scheme then\n"
    "      assert(#host > 0 and port >= 0 and port < 65536 and target:sub(1, 1) ~= '')\n"
    "    else assert(type(host) == 'string' and port == 'MALFORMED') end\n"
    "    return\n"
    "  end\n"
    "  local whole, cut = run(mode, bytes, math.max(1, #bytes)), run(mode, bytes, math.max(1, piece))\n"
    "  if whole ~= cut then error('at once:\\n' .. whole .. '\\nin pieces:\\n' .. cut) end\n"
    "end\n";

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
  if (length < 3) return 0;
  fuzz_lua(source, bytes, length);
  return 0;
}
