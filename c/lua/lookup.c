/* Look-ups of names in Lua. */
#include "lua/world_classes.h"

#include <lauxlib.h>

#include "lua/event.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"

struct lookup {
  struct lua_handle handle;
  struct world_lookup *lookup;
};

static void close_lookup(struct lua_handle *h) { world_lookup_close(((struct lookup *)h)->lookup); }
static const struct lua_handle_type lookup_type = {"shoal.lookup", close_lookup, NULL};

static int push_addresses(lua_State *L, struct lua_event *e) {
  lua_pop(L, 1);
  if (e->status < 0) {
    lua_pushnil(L);
    return 1 + lua_event_error(L, "resolve", e->status);
  }
  lua_createtable(L, (int)e->length, 0);
  for (size_t i = 0; i < e->length; i++) {
    lua_push_address(L, &e->address[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

static void on_result(void *data, int status, const struct shoal_address *addresses, size_t count) {
  struct lua_event e = {.handle = data, .value = LUA_EVENT_FUNCTION, .push = push_addresses, .status = status, .length = count,
                    .address = addresses};
  lua_event_fire("world.lookup", &e);
}

/* world:resolve(host, port, fn(addresses | nil, err, code)) -> lookup | nil, message, code
 * The world closes a lookup after its answer. */
static int l_resolve(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *host = luaL_checkstring(L, 2);
  lua_Integer port = luaL_checkinteger(L, 3);
  luaL_argcheck(L, port >= 0 && port <= UINT16_MAX, 3, "expected a port, 0 to 65535");
  luaL_checktype(L, 4, LUA_TFUNCTION);
  struct lookup *l = lua_handle_new(L, &lookup_type, 1, sizeof *l, 1);
  lua_event_function(L, 4, LUA_EVENT_FUNCTION);
  lua_handle_pin(L, &l->handle, -1);
  int rc = world_resolve(world, host, (uint16_t)port, on_result, lua_event_closed, l, &l->lookup);
  if (rc < 0) return lua_event_refused(L, &l->handle, lua_pushfstring(L, "resolve %s", host), rc);
  return 1;
}

static int l_lookup_close(lua_State *L) { return lua_handle_close(lua_handle_check(L, 1, &lookup_type, false)), 0; }

static const luaL_Reg lookup_methods[] = {{"close", l_lookup_close}, {NULL, NULL}};

void lua_world_lookup(lua_State *L) {
  lua_handle_type(L, &lookup_type, lookup_methods);
  lua_pushcfunction(L, l_resolve);
  lua_setfield(L, -2, "resolve");
}
