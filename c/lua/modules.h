/* modules: all C modules that Lua can require. In stock lua5.4 the all-in-one searcher finds the functions in
 * shoal.so, so each is exported; the program preloads the same ones from this list. */
#ifndef SHOAL_LUA_MODULES_H
#define SHOAL_LUA_MODULES_H

#include <lauxlib.h>
#include <lua.h>

/* name, function; one line a module. A binding adds its line and nothing else. */
#define SHOAL_MODULES(X) \
  X("shoal.core.budget", luaopen_shoal_core_budget) \
  X("shoal.core.correlation", luaopen_shoal_core_correlation) \
  X("shoal.core.crc", luaopen_shoal_core_crc) \
  X("shoal.core.dc_health", luaopen_shoal_core_dc_health) \
  X("shoal.core.detector", luaopen_shoal_core_detector) \
  X("shoal.core.door", luaopen_shoal_core_door) \
  X("shoal.core.federation", luaopen_shoal_core_federation) \
  X("shoal.core.histogram", luaopen_shoal_core_histogram) \
  X("shoal.core.http", luaopen_shoal_core_http) \
  X("shoal.core.inflate", luaopen_shoal_core_inflate) \
  X("shoal.core.json", luaopen_shoal_core_json) \
  X("shoal.core.lease", luaopen_shoal_core_lease) \
  X("shoal.core.msgpack", luaopen_shoal_core_msgpack) \
  X("shoal.core.net", luaopen_shoal_core_net) \
  X("shoal.core.swim", luaopen_shoal_core_swim) \
  X("shoal.core.world", luaopen_shoal_core_world)

#define SHOAL_MODULE_DECLARE(name, function) __attribute__((visibility("default"))) int function(lua_State *L);
SHOAL_MODULES(SHOAL_MODULE_DECLARE)
#undef SHOAL_MODULE_DECLARE

/* Ends with {NULL, NULL}. */
extern const luaL_Reg shoal_modules[];

/* Put them all into package.preload. Raises. */
void shoal_preload(lua_State *L);

#endif
