/* shoal.core.json: see json.h; lua/shoal/base/json.lua is its face.
 *   json.decode(text, unique?, large_text?) -> value | nil, message, offset (from 1)
 *   json.encode(value)                      -> text | nil, message
 *   json.number(n)                          -> text | nil: nan and the infinities have none
 *   json.null                               a light userdata
 *   json.array                              the metatable of tables that are arrays though they have no element */
#include "lua/json.h"

#include <lauxlib.h>

#include "lua/modules.h"

static int l_decode(lua_State *L) {
  size_t length, at = 0;
  const char *bytes = luaL_checklstring(L, 1, &length);
  struct json_options options = {.unique = lua_toboolean(L, 2), .large_text = lua_toboolean(L, 3)};
  struct mp_buffer *scratch = lua_touserdata(L, lua_upvalueindex(1));
  char error[MP_ERROR_MAX];
  if (json_decode(L, bytes, length, lua_upvalueindex(2), options, scratch, error, &at)) return 1;
  lua_pushnil(L);
  lua_pushstring(L, error);
  lua_pushinteger(L, (lua_Integer)at + 1);
  return 3;
}

static int l_encode(lua_State *L) {
  luaL_checkany(L, 1);
  struct mp_buffer *out = lua_touserdata(L, lua_upvalueindex(1));
  char error[MP_ERROR_MAX];
  mp_buffer_reset(out);
  if (json_encode(L, 1, lua_upvalueindex(2), out, error)) {
    lua_pushlstring(L, out->bytes, out->length);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, error);
  return 2;
}

static int l_number(lua_State *L) {
  luaL_checktype(L, 1, LUA_TNUMBER);
  char text[JSON_NUMBER_MAX];
  size_t length = lua_isinteger(L, 1) ? json_integer(text, lua_tointeger(L, 1)) : json_float(text, lua_tonumber(L, 1));
  if (length == 0) return 0;
  lua_pushlstring(L, text, length);
  return 1;
}

int luaopen_shoal_core_json(lua_State *L) {
  static const luaL_Reg functions[] = {{"decode", l_decode}, {"encode", l_encode}, {NULL, NULL}};
  lua_createtable(L, 0, 5);
  mp_buffer_push(L); /* Shared by all calls of this state, which never call back into Lua. */
  lua_createtable(L, 0, 2);
  lua_pushliteral(L, "json.array");
  lua_setfield(L, -2, "__name");
  lua_pushvalue(L, -1);
  lua_setfield(L, -4, "array");
  luaL_setfuncs(L, functions, 2);
  lua_pushcfunction(L, l_number);
  lua_setfield(L, -2, "number");
  lua_pushlightuserdata(L, NULL);
  lua_setfield(L, -2, "null");
  return 1;
}
