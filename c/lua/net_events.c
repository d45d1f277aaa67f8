#include "lua/net_events.h"

#include <lauxlib.h>
#include <string.h>

#include "lua/lua_world.h"
#include "lua/net_peer.h"

bool net_fire(struct lua_net *self, const char *site, door_push_fn *push, struct net_event *e) {
  e->self = self;
  return self->handle.L && door_call(self->handle.L, site, push, 0, NULL, e);
}

void net_push_handler(lua_State *L, struct net_event *e, int value) {
  lua_handle_push(L, &e->self->handle);
  lua_getiuservalue(L, -1, value);
}

static int push_on_peer(lua_State *L, void *data) {
  struct net_event *e = data;
  net_push_handler(L, e, ON_PEER);
  net_push_peer(L, -2, e->peer);
  lua_pushstring(L, e->text);
  if (e->code >= 0) return 2;
  lua_pushlstring(L, (const char *)e->bytes, e->length);
  lua_pushstring(L, error_name(e->code));
  return 4;
}

static int nothing(lua_State *L) {
  (void)L; /* The push function has done all of the work. */
  return 0;
}

/* The peer is gone. Its userdata lives as long as Lua holds it, and refuses calls. */
static int push_forget(lua_State *L, void *data) {
  struct net_event *e = data;
  struct net_peer_info info;
  struct lua_peer *box = net_peer_data(e->peer);
  net_peer_info(e->peer, &info);
  lua_handle_push(L, &e->self->handle);
  lua_getiuservalue(L, -1, BY_ADDRESS);
  lua_push_address(L, &info.address);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, -3) == LUA_TUSERDATA && lua_touserdata(L, -1) == box) {
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_rawset(L, -3);
  }
  lua_settop(L, 1);
  lua_getiuservalue(L, 1, PEERS);
  lua_pushnil(L);
  lua_rawseti(L, -2, (lua_Integer)net_peer_index(e->peer) + 1);
  lua_pushcfunction(L, nothing);
  return 0;
}

void net_on_peer(void *data, struct net_peer *peer, enum net_peer_event event, int code, const char *text) {
  struct lua_net *self = data;
  struct net_event e = {.peer = peer, .code = code, .bytes = (const uint8_t *)text, .length = strlen(text)};
  if (!self->handle.L) return;
  if (event == NET_GONE) {
    struct lua_peer *box = net_peer_data(peer);
    if (!box) return;
    box->peer = NULL;
    (void)net_fire(self, "net.peer", push_forget, &e); /* The door told. */
    return;
  }
  e.text = event == NET_UP ? "up" : "down";
  if (self->wired[ON_PEER]) (void)net_fire(self, "net.peer", push_on_peer, &e); /* The door told. */
}

static int push_on_circuit(lua_State *L, void *data) {
  struct net_event *e = data;
  net_push_handler(L, e, ON_CIRCUIT);
  net_push_peer(L, -2, e->peer);
  lua_pushstring(L, e->text);
  return 2;
}

void net_on_circuit(void *data, struct net_peer *peer, enum breaker_status status) {
  struct lua_net *self = data;
  struct net_event e = {.peer = peer, .text = breaker_name(status)};
  if (self->wired[ON_CIRCUIT]) (void)net_fire(self, "net.circuit", push_on_circuit, &e); /* The door told. */
}

static int push_on_closed(lua_State *L, void *data) {
  net_push_handler(L, data, ON_CLOSED);
  return 0;
}

void net_on_closed(void *data) {
  struct lua_net *self = data;
  struct net_event e = {0};
  if (self->wired[ON_CLOSED]) (void)net_fire(self, "net.closed", push_on_closed, &e); /* The door told. */
  lua_handle_closed(&self->handle);
}

