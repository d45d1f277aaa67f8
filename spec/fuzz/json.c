/* JSON: any text is read, or refused with a message that a log can hold and a place inside the text. A value that was read and has no
 * strings beyond UTF-8 is written, and that text, read again, is written the same. */
#include "lua_target.h"

static const char source[] =
    "local json = require 'shoal.core.json'\n"
    "return function (input)\n"
    "  local unique, large = input:byte(1) % 2 == 0, input:byte(1) % 4 > 1\n"
    "  local text = input:sub(2)\n"
    "  local value, err, offset = json.decode(text, unique, large)\n"
    "  if value == nil then\n"
    "    assert(#err < 512 and not err:find '[^\\32-\\126]', err)\n"
    "    assert(offset >= 1 and offset <= #text + 1, offset)\n"
    "    return\n"
    "  end\n"
    "  local once, problem = json.encode(value)\n"
    "  if not once then\n"
    "    assert(problem:find 'is no UTF%-8', problem)\n"
    "    return\n"
    "  end\n"
    "  assert(json.encode((json.decode(once, false, large))) == once, 'written otherwise the second time')\n"
    "end\n";

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
  if (length < 1) return 0;
  fuzz_lua(source, bytes, length);
  return 0;
}
