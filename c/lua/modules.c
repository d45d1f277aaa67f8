#include "lua/modules.h"

const luaL_Reg shoal_modules[] = {
#define ENTRY(name, function) {name, function},
    SHOAL_MODULES(ENTRY)
#undef ENTRY
    {NULL, NULL}};

void shoal_preload(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  luaL_setfuncs(L, shoal_modules, 0);
  lua_pop(L, 1);
}
