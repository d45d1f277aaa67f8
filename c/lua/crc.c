/* shoal.core.crc
 *   crc.crc32c(bytes, before?) -> integer   CRC-32C of `bytes`, after bytes whose checksum is `before` */
#include <lauxlib.h>
#include <lua.h>

#include "core/crc.h"
#include "lua/modules.h"

static int l_crc32c(lua_State *L) {
  size_t length;
  const char *bytes = luaL_checklstring(L, 1, &length);
  lua_Integer before = luaL_optinteger(L, 2, 0);
  luaL_argcheck(L, before >= 0 && before <= UINT32_MAX, 2, "a checksum has 32 bits");
  lua_pushinteger(L, crc32c((uint32_t)before, bytes, length));
  return 1;
}

int luaopen_shoal_core_crc(lua_State *L) {
  static const luaL_Reg functions[] = {{"crc32c", l_crc32c}, {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}
