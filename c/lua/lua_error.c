#include "lua/lua_error.h"

#include "core/errors.h"

int error_push(lua_State *L, const char *what, int code) {
  lua_pushnil(L);
  lua_pushfstring(L, "%s: %s", what, error_text(code));
  lua_pushstring(L, error_name(code));
  return 3;
}

int error_or_true(lua_State *L, const char *what, int code) {
  if (code < 0) return error_push(L, what, code);
  lua_pushboolean(L, 1);
  return 1;
}
