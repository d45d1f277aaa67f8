/* The transport in Lua: require "shoal.core.net". What it promises stands in net/net.h; lua/shoal/wire/net.lua is its face.
 *
 *   net.open(world, options, handlers) -> net | nil, message, code
 *   net:listen(address), :peer(address), :reply(request, bytes), :refuse(request, code, message), :counts(), :close(fn?)
 *   peer:call(type, lane, bytes, timeout_ms, fn), :send(type, lane, bytes, fn), :info(), :close()
 *
 * A peer's userdata is the same one for as long as the peer is; afterwards its calls are refused CLOSED. A request's
 * userdata is answered once; one that is dropped without an answer is refused FAILED, and an incident. */
#include <lauxlib.h>

#include "lua/lua_error.h"
#include "lua/lua_world.h"
#include "lua/modules.h"
#include "lua/net_events.h"
#include "lua/net_options.h"
#include "lua/net_peer.h"
#include "lua/net_request.h"
#include "net/sealing.h"

static void close_net(struct lua_handle *h) { net_close(((struct lua_net *)h)->net); }
static void abandon_net(struct lua_handle *h) { net_abandon(((struct lua_net *)h)->net); }
const struct lua_handle_type net_handle_type = {"shoal.net", close_net, abandon_net};

/* ---- the net ---- */

/* The function called `name` of the handlers at 3, or nothing, becomes user value `value` of the userdata at 4. */
static void take_handler(lua_State *L, struct lua_net *self, const char *name, int value) {
  int type = lua_getfield(L, 3, name);
  if (type != LUA_TNIL && type != LUA_TFUNCTION)
    luaL_argerror(L, 3, lua_pushfstring(L, "%s: expected a function, got %s", name, luaL_typename(L, -1)));
  self->wired[value] = type == LUA_TFUNCTION;
  lua_setiuservalue(L, 4, value);
}

static void set_table(lua_State *L, int value) {
  lua_newtable(L);
  lua_setiuservalue(L, 4, value);
}

static int l_open(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  struct net_options options;
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  net_check_options(L, 2, &options);
  struct lua_net *self = lua_handle_new(L, &net_handle_type, 1, sizeof *self, NET_VALUES);
  take_handler(L, self, "on_request", ON_REQUEST);
  take_handler(L, self, "on_peer", ON_PEER);
  take_handler(L, self, "on_circuit", ON_CIRCUIT);
  set_table(L, CALLBACKS);
  set_table(L, PEERS);
  set_table(L, BY_ADDRESS);
  net_push_request_class(L);
  lua_setiuservalue(L, 4, REQUESTS);
  lua_handle_pin(L, &self->handle, 4);
  struct net_events events = {.on_request = self->wired[ON_REQUEST] ? net_on_request : NULL,
                              .on_peer = net_on_peer,
                              .on_circuit = net_on_circuit,
                              .on_closed = net_on_closed};
  int rc = net_open(world, &options, &events, self, &self->net);
  if (rc < 0) {
    lua_handle_unpin(&self->handle);
    return error_push(L, rc == ERR_CONFIG ? "net: node and cluster need a name of at most 255 bytes, idle_timeout_ms "
                                            "must exceed keepalive_ms, and assembly_bytes_max and queued_bytes_max must "
                                            "hold one and two messages" : "net", rc);
  }
  return 1;
}

static int l_listen(lua_State *L) {
  struct lua_net *self = lua_handle_check(L, 1, &net_handle_type, true);
  struct shoal_address bind, bound;
  if (!lua_check_address(L, 2, "listen", &bind)) return 3;
  int rc = net_listen(self->net, &bind, &bound);
  if (rc >= 0) return lua_push_address(L, &bound), 1;
  if (rc != ERR_CONFIG) return error_push(L, lua_pushfstring(L, "listen on %s", lua_tostring(L, 2)), rc);
  lua_pushnil(L);
  lua_pushfstring(L, "listen on %s: %s", lua_tostring(L, 2), sealing_refusal(self->handle.world, &bind));
  lua_pushstring(L, error_name(rc));
  return 3;
}

static int l_peer(lua_State *L) {
  struct lua_net *self = lua_handle_check(L, 1, &net_handle_type, true);
  struct shoal_address address;
  struct net_peer *peer;
  lua_settop(L, 2);
  lua_getiuservalue(L, 1, BY_ADDRESS);
  lua_pushvalue(L, 2);
  if (lua_isstring(L, 2) && lua_rawget(L, 3) == LUA_TUSERDATA) {
    struct lua_peer *known = lua_touserdata(L, -1);
    if (known->peer && !known->closed) return 1;
  }
  lua_settop(L, 3);
  if (!lua_check_address(L, 2, "peer", &address)) return 3;
  int rc = net_peer(self->net, &address, &peer);
  if (rc < 0) return error_push(L, lua_pushfstring(L, "peer %s", lua_tostring(L, 2)), rc);
  net_push_peer(L, 1, peer);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -2);
  lua_rawset(L, 3);
  return 1;
}

static int l_counts(lua_State *L) {
  struct lua_net *self = lua_handle_check(L, 1, &net_handle_type, false);
  if (!self->handle.open) return error_push(L, "counts", ERR_CLOSED);
  return net_push_counts(L, net_counts(self->net)), 1;
}

static int l_close(lua_State *L) {
  struct lua_net *self = lua_handle_check(L, 1, &net_handle_type, false);
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TFUNCTION);
    luaL_argcheck(L, !self->handle.closing, 1, "it is closing already: its on_closed is taken");
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, 1, ON_CLOSED);
    self->wired[ON_CLOSED] = true;
  }
  lua_handle_close(&self->handle);
  return 0;
}

/* ---- the module ---- */

int luaopen_shoal_core_net(lua_State *L) {
  static const luaL_Reg functions[] = {{"open", l_open}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"listen", l_listen},     {"peer", l_peer},     {"reply", net_l_reply},
                                     {"refuse", net_l_refuse}, {"counts", l_counts}, {"close", l_close},
                                     {NULL, NULL}};
  lua_handle_type(L, &net_handle_type, methods);
  net_peer_class(L);
  net_request_class(L);
  luaL_newlib(L, functions);
  lua_pushinteger(L, FRAME_MESSAGE_MAX);
  lua_setfield(L, -2, "message_max");
  return 1;
}
