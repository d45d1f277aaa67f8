/* A target that is a Lua function: bytes in; an error that it raises is a finding. One state serves all inputs, as in a node. */
#ifndef FUZZ_LUA_TARGET_H
#define FUZZ_LUA_TARGET_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "lua/modules.h"
#include "target.h"

static int on_panic(lua_State *L) {
  fprintf(stderr, "FAILED: %s\n", lua_tostring(L, -1));
  abort();
}

/* Close it before the sanitizer's leak check. */
static lua_State *fuzz_state;
static void close_state(void) { lua_close(fuzz_state); }

/* `source` returns the function. */
static inline void fuzz_lua(const char *source, const uint8_t *bytes, size_t length) {
  lua_State *L = fuzz_state;
  if (!L) {
    L = fuzz_state = luaL_newstate();
    lua_atpanic(L, on_panic);
    luaL_openlibs(L);
    shoal_preload(L);
    if (luaL_loadstring(L, source) != LUA_OK) on_panic(L);
    lua_call(L, 0, 1);
    atexit(close_state);
  }
  lua_pushvalue(L, 1);
  lua_pushlstring(L, (const char *)bytes, length);
  lua_call(L, 1, 0); /* Unprotected: an error is a panic. */
  lua_settop(L, 1);
}

#endif
