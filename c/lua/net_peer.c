#include "lua/net_peer.h"

#include <assert.h>
#include <lauxlib.h>
#include <math.h>
#include <string.h>

#include "lua/lua_error.h"
#include "lua/lua_world.h"
#include "lua/net_options.h"

#define PEER_NAME "shoal.net.peer"

static const char *const lane_names[] = {"control", "dispatch", "data", "telemetry", NULL};

void net_push_peer(lua_State *L, int self, struct net_peer *peer) {
  self = lua_absindex(L, self);
  lua_getiuservalue(L, self, PEERS);
  lua_Integer index = (lua_Integer)net_peer_index(peer) + 1;
  if (!net_peer_data(peer)) {
    struct lua_peer *box = lua_newuserdatauv(L, sizeof *box, 1);
    *box = (struct lua_peer){0};
    luaL_setmetatable(L, PEER_NAME);
    lua_pushvalue(L, self);
    lua_setiuservalue(L, -2, 1);
    lua_rawseti(L, -2, index);
    box->peer = peer;
    net_peer_set_data(peer, box);
  }
  lua_rawgeti(L, -1, index);
  lua_remove(L, -2);
}

/* ---- callbacks ---- */

/* The arguments of a callback whose answer there was no memory for. The registry holds both strings, so pushing them allocates
 * nothing. */
static const char no_memory[] = "out of memory for the answer", memory_code[] = "MEMORY";

/* Push the function of this call or send and empty its slot. ANSWERING holds the function until the next answer. */
static void take_callback(lua_State *L, struct net_event *e) {
  lua_Integer slot = (lua_Integer)(uint32_t)e->result->id + 1;
  net_push_handler(L, e, CALLBACKS);
  lua_rawgeti(L, -1, slot);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, -4, ANSWERING);
  lua_pushnil(L);
  lua_rawseti(L, -3, slot);
}

static int push_failure(lua_State *L, const struct net_result *r) {
  lua_pushnil(L);
  lua_pushlstring(L, (const char *)r->bytes, r->length);
  lua_pushstring(L, r->name);
  return 3;
}

static int push_answer(lua_State *L, void *data) {
  struct net_event *e = data;
  take_callback(L, e);
  int count = 1;
  if (e->result->code < 0) count = push_failure(L, e->result);
  else lua_pushlstring(L, (const char *)e->result->bytes, e->result->length);
  e->pushed = true;
  return count;
}

static int push_sent(lua_State *L, void *data) {
  struct net_event *e = data;
  take_callback(L, e);
  int count = 1;
  if (e->result->code < 0) count = push_failure(L, e->result);
  else lua_pushboolean(L, 1);
  e->pushed = true;
  return count;
}

static int push_no_memory(lua_State *L, void *data) {
  net_push_handler(L, data, ANSWERING);
  lua_pushnil(L);
  lua_pushstring(L, no_memory);
  lua_pushstring(L, memory_code);
  return 3;
}

/* Run the callback. The door reports each failure. If the arguments could not be pushed, the callback has not run yet: run it with
 * MEMORY. */
static void answer(struct lua_net *self, const char *site, door_push_fn *push, const struct net_result *result) {
  struct net_event e = {.result = result};
  if (!net_fire(self, site, push, &e) && !e.pushed) (void)net_fire(self, site, push_no_memory, &e); /* The door has reported both. */
}

static void on_answer(void *data, const struct net_result *result) { answer(data, "net.reply", push_answer, result); }
static void on_sent(void *data, const struct net_result *result) { answer(data, "net.sent", push_sent, result); }

/* ---- methods ---- */

/* The peer at 1; pushes its net's userdata. False when the peer or its net is gone. */
static bool check_peer(lua_State *L, struct lua_peer **peer, struct lua_net **self) {
  *peer = luaL_checkudata(L, 1, PEER_NAME);
  lua_getiuservalue(L, 1, 1);
  struct lua_net **box = lua_touserdata(L, -1);
  *self = *box;
  if (!*self || !(*self)->handle.open) (*peer)->peer = NULL; /* It went with its net. */
  return (*peer)->peer != NULL;
}

static int peer_error(lua_State *L, const char *verb, struct lua_peer *box, int code) {
  char text[ADDRESS_TEXT_MAX] = "a peer that is gone";
  struct net_peer_info info;
  if (box->peer) {
    net_peer_info(box->peer, &info);
    (void)address_format(&info.address, text); /* Its length is not needed. */
  }
  return error_push(L, lua_pushfstring(L, "%s %s", verb, text), code);
}

/* Store the function at `index` as the callback of the next request. The net's userdata is on top; its table of callbacks is pushed.
 * Raises, or returns a code, before the transport is asked for anything. */
static int reserve_callback(lua_State *L, struct lua_net *self, int index, uint32_t *slot) {
  int rc = net_next_slot(self->net, slot);
  if (rc < 0) return rc;
  lua_getiuservalue(L, -1, CALLBACKS);
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, (lua_Integer)*slot + 1);
  return 0;
}

/* Push the results of a call or send. A refused one has no callback. */
static int asked(lua_State *L, const char *verb, struct lua_peer *box, int code, uint64_t id, uint32_t slot) {
  if (code >= 0) {
    assert((uint32_t)id == slot);
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushnil(L);
  lua_rawseti(L, -2, (lua_Integer)slot + 1); /* It is there, so this needs no memory. */
  return peer_error(L, verb, box, code);
}

static uint16_t check_type(lua_State *L, int index) {
  lua_Integer type = luaL_checkinteger(L, index);
  luaL_argcheck(L, type >= 0 && type <= UINT16_MAX, index, "expected a type, 0 to 65535");
  return (uint16_t)type;
}

static int l_call(lua_State *L) {
  struct lua_peer *box;
  struct lua_net *self;
  uint16_t type = check_type(L, 2);
  enum net_lane lane = (enum net_lane)luaL_checkoption(L, 3, NULL, lane_names);
  size_t length;
  const char *bytes = luaL_checklstring(L, 4, &length);
  double timeout_ms = luaL_checknumber(L, 5);
  luaL_argcheck(L, timeout_ms > 0 && timeout_ms < 1e12, 5, "expected a timeout in milliseconds, more than 0");
  luaL_checktype(L, 6, LUA_TFUNCTION);
  uint64_t id = 0;
  uint32_t slot;
  bool hurry = lua_toboolean(L, 7);
  if (!check_peer(L, &box, &self)) return peer_error(L, "call to", box, ERR_CLOSED);
  int rc = reserve_callback(L, self, 6, &slot);
  if (rc < 0) return peer_error(L, "call to", box, rc);
  if (hurry) net_hurry(box->peer); /* It calls nobody before it returns. */
  rc = net_call(box->peer, type, lane, bytes, length, (uint64_t)ceil(timeout_ms * 1e6), on_answer, self, &id);
  return asked(L, "call to", box, rc, id, slot);
}

static int l_send(lua_State *L) {
  struct lua_peer *box;
  struct lua_net *self;
  uint16_t type = check_type(L, 2);
  enum net_lane lane = (enum net_lane)luaL_checkoption(L, 3, NULL, lane_names);
  size_t length;
  const char *bytes = luaL_checklstring(L, 4, &length);
  luaL_checktype(L, 5, LUA_TFUNCTION);
  uint64_t id = 0;
  uint32_t slot;
  if (!check_peer(L, &box, &self)) return peer_error(L, "send to", box, ERR_CLOSED);
  int rc = reserve_callback(L, self, 5, &slot);
  if (rc < 0) return peer_error(L, "send to", box, rc);
  rc = net_send(box->peer, type, lane, bytes, length, on_sent, self, &id);
  return asked(L, "send to", box, rc, id, slot);
}

static int l_info(lua_State *L) {
  struct lua_peer *box;
  struct lua_net *self;
  if (!check_peer(L, &box, &self)) return peer_error(L, "info of", box, ERR_CLOSED);
  return net_push_info(L, box->peer), 1;
}

static int l_peer_close(lua_State *L) {
  struct lua_peer *box;
  struct lua_net *self;
  if (!check_peer(L, &box, &self) || box->closed) return 0;
  box->closed = true;
  net_peer_close(box->peer);
  return 0;
}

static int l_peer_tostring(lua_State *L) {
  struct lua_peer *box;
  struct lua_net *self;
  if (!check_peer(L, &box, &self)) return lua_pushliteral(L, "peer (gone)"), 1;
  struct net_peer_info info;
  char text[ADDRESS_TEXT_MAX];
  net_peer_info(box->peer, &info);
  (void)address_format(&info.address, text); /* Its length is not needed. */
  lua_pushfstring(L, "peer %s %s(%s)", text, info.node[0] ? lua_pushfstring(L, "%s ", info.node) : "",
                  info.up ? "up" : "down");
  return 1;
}

void net_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta) {
  if (luaL_newmetatable(L, name)) {
    luaL_setfuncs(L, meta, 0);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
  }
  lua_pop(L, 1);
}

void net_peer_class(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"call", l_call}, {"send", l_send}, {"info", l_info}, {"close", l_peer_close}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__tostring", l_peer_tostring}, {NULL, NULL}};
  net_class(L, PEER_NAME, methods, meta);
  lua_pushstring(L, memory_code);
  lua_setfield(L, LUA_REGISTRYINDEX, no_memory); /* Key and value stay. */
}
