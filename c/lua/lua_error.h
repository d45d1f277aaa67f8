/* lua_error: turns a refusal of the rooms below into Lua's `nil, message, code`. */
#ifndef SHOAL_LUA_ERROR_H
#define SHOAL_LUA_ERROR_H

#include <lua.h>

/* Push `nil, "what: text", "CODE"` for a negative code; returns 3. May raise (memory). */
int error_push(lua_State *L, const char *what, int code);

/* `true` when code is 0 or more (returns 1), else error_push. */
int error_or_true(lua_State *L, const char *what, int code);

#endif
