#include "lua/event.h"

#include <lauxlib.h>

#include "lua/door.h"
#include "lua/lua_error.h"

static int push_event(lua_State *L, void *data) {
  struct lua_event *e = data;
  lua_handle_push(L, e->handle);
  lua_handle_value(L, -1, e->value);
  lua_insert(L, -2);
  return e->push(L, e);
}

void lua_event_fire(const char *site, struct lua_event *e) {
  if (!e->handle->L || e->handle->closing) return;
  (void)door_call(e->handle->L, site, push_event, 0, NULL, e); /* The door reports it. */
}

int lua_event_error(lua_State *L, const char *what, int code) {
  lua_pushfstring(L, "%s: %s", what, error_text(code));
  lua_pushstring(L, error_name(code));
  return 2;
}

static int raise_error(lua_State *L) { return luaL_error(L, "%s", lua_tostring(L, 1)); }

void lua_event_function(lua_State *L, int index, int value) {
  if (lua_isnoneornil(L, index)) lua_pushcfunction(L, raise_error);
  else lua_pushvalue(L, index);
  lua_setiuservalue(L, -2, value);
}

void lua_event_closed(void *data) { lua_handle_closed(data); }

int lua_event_refused(lua_State *L, struct lua_handle *h, const char *what, int code) {
  lua_handle_unpin(h);
  return error_push(L, what, code);
}
