/* Datagram sockets in Lua. */
#include "lua/world_classes.h"

#include <lauxlib.h>

#include "lua/event.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"

enum { ON_ERROR = LUA_EVENT_FUNCTION + 1 };

struct udp {
  struct lua_handle handle;
  struct world_udp *udp;
};

static void close_udp(struct lua_handle *h) { world_udp_close(((struct udp *)h)->udp); }
static const struct lua_handle_type udp_type = {"shoal.udp", close_udp, NULL};

static int push_datagram(lua_State *L, struct lua_event *e) {
  lua_pop(L, 1);
  lua_pushlstring(L, e->bytes, e->length);
  lua_push_address(L, e->address);
  return 2;
}

static void on_datagram(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct lua_event e = {
      .handle = data, .value = LUA_EVENT_FUNCTION, .push = push_datagram, .bytes = bytes, .length = length, .address = from};
  lua_event_fire("world.udp.datagram", &e);
}

static int push_udp_error(lua_State *L, struct lua_event *e) {
  lua_pop(L, 1);
  return lua_event_error(L, "receive", e->status);
}

static void on_udp_error(void *data, int code) {
  struct lua_event e = {.handle = data, .value = ON_ERROR, .push = push_udp_error, .status = code};
  lua_event_fire("world.udp.error", &e);
}

/* world:udp(address, on_datagram(bytes, from), on_error(err, code)?) -> udp | nil, message, code */
static int l_udp(lua_State *L) {
  static const struct world_udp_events events = {on_datagram, on_udp_error, lua_event_closed};
  struct shoal_world *world = lua_check_world(L, 1);
  struct shoal_address bind;
  luaL_checktype(L, 3, LUA_TFUNCTION);
  if (!lua_isnoneornil(L, 4)) luaL_checktype(L, 4, LUA_TFUNCTION);
  lua_settop(L, 4);
  if (!lua_check_address(L, 2, "udp", &bind)) return 3;
  struct udp *u = lua_handle_new(L, &udp_type, 1, sizeof *u, 2);
  lua_event_function(L, 3, LUA_EVENT_FUNCTION);
  lua_event_function(L, 4, ON_ERROR);
  lua_handle_pin(L, &u->handle, -1);
  int rc = world_udp_open(world, &bind, &events, u, &u->udp);
  if (rc < 0) return lua_event_refused(L, &u->handle, lua_pushfstring(L, "bind to %s", lua_tostring(L, 2)), rc);
  return 1;
}

static int l_udp_send(lua_State *L) {
  struct udp *u = lua_handle_check(L, 1, &udp_type, true);
  struct shoal_address to;
  size_t length;
  const char *bytes = luaL_checklstring(L, 3, &length);
  if (!lua_check_address(L, 2, "send", &to)) return 3;
  int rc = world_udp_send(u->udp, &to, bytes, length);
  if (rc >= 0) return lua_pushboolean(L, 1), 1;
  return error_push(L, lua_pushfstring(L, "send to %s", lua_tostring(L, 2)), rc);
}

static int l_udp_address(lua_State *L) {
  struct udp *u = lua_handle_check(L, 1, &udp_type, true);
  struct shoal_address address;
  world_udp_address(u->udp, &address);
  return lua_push_address(L, &address), 1;
}

static int l_udp_close(lua_State *L) { return lua_handle_close(lua_handle_check(L, 1, &udp_type, false)), 0; }

static const luaL_Reg udp_methods[] = {
    {"send", l_udp_send}, {"address", l_udp_address}, {"close", l_udp_close}, {NULL, NULL}};

void lua_world_udp(lua_State *L) {
  lua_handle_type(L, &udp_type, udp_methods);
  lua_pushcfunction(L, l_udp);
  lua_setfield(L, -2, "udp");
}
