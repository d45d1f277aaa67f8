/* Bodies of messages: any bytes are decoded, or refused with a message that a log can hold. A decoded body is encoded, and that, decoded
 * again, is encoded to the same bytes. The first byte selects whether a schema is used. */
#include "lua_target.h"

static const char source[] =
    "local msgpack = require 'shoal.core.msgpack'\n"
    "local schema = msgpack.compile({\n"
    "  { 'job', 'string' }, { 'seq', 'integer' }, { 'rate', 'number?' }, { 'share', 'bytes?' }, { 'last', 'boolean?' },\n"
    "  { 'state', 'enum:completed|failed|cancelled?' }, { 'tags', 'map:string?' }, { 'list', 'array:integer?' },\n"
    "  { 'detail', 'any?' }, { 'parts', 'array:Part?' }, { 'tree', 'Tree?' },\n"
    "}, {\n"
    "  Part = { { 'part', 'string' }, { 'stats', 'map:integer' } },\n"
    "  Tree = { { 'name', 'string?' }, { 'kids', 'array:Tree?' }, { 'by', 'map:Tree?' } },\n"
    "}, 'fuzz')\n"
    "local function any(bytes) return msgpack.unpack(bytes) end\n"
    "local function typed(bytes) return schema:decode(bytes) end\n"
    "return function (input)\n"
    "  local with = input:sub(1, 1) == 's'\n"
    "  local read, body = with and typed or any, input:sub(2)\n"
    "  local function write(value) return assert(with and schema:encode(value) or not with and msgpack.pack(value)) end\n"
    "  local value, err, code = read(body)\n"
    "  if err then\n"
    "    assert(value == nil and code == 'MALFORMED' and #err < 512 and not err:find '[^\\32-\\126]', err)\n"
    "    return\n"
    "  end\n"
    "  local once = write(value)\n"
    "  local again, problem = read(once)\n"
    "  assert(problem == nil, problem)\n"
    "  assert(write(again) == once, 'written otherwise the second time')\n"
    "end\n";

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
  if (length < 1) return 0;
  fuzz_lua(source, bytes, length);
  return 0;
}
