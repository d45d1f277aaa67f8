#include "host/host.h"
#include "lua/modules.h"

void host_preload(lua_State *L) {
  static const luaL_Reg own[] = {{"shoal.core.node", luaopen_shoal_core_node},
                                 {"shoal.core.luv", luaopen_shoal_core_luv},
                                 {"shoal.core.sim", luaopen_shoal_core_sim},
                                 {NULL, NULL}};
  shoal_preload(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  luaL_setfuncs(L, own, 0);
  lua_pop(L, 1);
}
