/* The transport in Lua: require "shoal.core.net". What it promises stands in net/net.h; lua/shoal/wire/net.lua is its face.
 *
 *   net.open(world, options, handlers) -> net | nil, message, code
 *   net:listen(address), :peer(address), :reply(request, bytes), :refuse(request, code, message), :counts(), :close(fn?)
 *   peer:call(type, lane, bytes, timeout_ms, fn), :send(type, lane, bytes, fn), :info(), :close()
 *
 * A peer's userdata is the same one for as long as the peer is; afterwards its calls are refused CLOSED. A request's
 * userdata is answered once; one that is dropped without an answer is refused FAILED, and an incident. */
#include <lauxlib.h>
#include <math.h>
#include <string.h>

#include "lua/door.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"
#include "lua/modules.h"
#include "lua/net_options.h"
#include "net/net.h"

#define PEER_NAME "shoal.net.peer"
#define REQUEST_NAME "shoal.net.request"

enum { /* User values of the net. */
  ON_REQUEST = 2,
  ON_PEER,
  ON_CIRCUIT,
  ON_CLOSED,
  CALLBACKS,   /* Slot of the request + 1 -> its function. */
  PEERS,       /* Index of the peer + 1 -> its userdata. */
  BY_ADDRESS,  /* Address as given -> userdata of the peer that is dialled there. */
  REQUESTS,    /* The metatable of requests, so that each costs no look into the registry. */
  CURRENT,     /* The request that is being handled: kept, so that `current` may be looked at afterwards. */
  VALUES = CURRENT - 1,
};

struct lua_net {
  struct lua_handle handle;
  struct net *net;
  struct lua_request *current;
  bool wired[ON_CLOSED + 1];
};
struct lua_peer {
  struct net_peer *peer; /* NULL once it is gone. */
  bool closed;
};
struct lua_request {
  struct net_request request;
  bool answered;
};

static void close_net(struct lua_handle *h) { net_close(((struct lua_net *)h)->net); }
static void abandon_net(struct lua_handle *h) { net_abandon(((struct lua_net *)h)->net); }
static const struct lua_handle_type net_type = {"shoal.net", close_net, abandon_net};

static const char *const lane_names[] = {"control", "dispatch", "data", "telemetry", NULL};

/* ---- pushing ---- */

/* The peer's userdata; the net's lies at `self`. */
static void push_peer(lua_State *L, int self, struct net_peer *peer) {
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

struct event {
  struct lua_net *self;
  const char *text;
  struct net_peer *peer;
  const struct net_request *request;
  const struct net_result *result;
  const uint8_t *bytes;
  size_t length;
  int code;
};

static bool fire(struct lua_net *self, const char *site, door_push_fn *push, struct event *e) {
  e->self = self;
  return self->handle.L && door_call(self->handle.L, site, push, 0, NULL, e);
}

/* Push the function that is user value `value`, over the net's userdata, which is left below it. */
static void push_handler(lua_State *L, struct event *e, int value) {
  lua_handle_push(L, &e->self->handle);
  lua_getiuservalue(L, -1, value);
}

static void push_request(lua_State *L, int self, struct event *e) {
  if (!e->request->id) {
    lua_pushnil(L);
    return;
  }
  self = lua_absindex(L, self);
  struct lua_request *r = lua_newuserdatauv(L, sizeof *r, 1);
  *r = (struct lua_request){.request = *e->request, .answered = true}; /* Until the metatable is there to look after it. */
  lua_pushvalue(L, self);
  lua_setiuservalue(L, -2, 1);
  lua_getiuservalue(L, self, REQUESTS);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, self, CURRENT);
  r->answered = false;
  e->self->current = r;
}

static int push_on_request(lua_State *L, void *data) {
  struct event *e = data;
  push_handler(L, e, ON_REQUEST);
  push_peer(L, -2, e->peer);
  lua_pushinteger(L, e->request->type);
  lua_pushstring(L, lane_names[e->request->lane]);
  push_request(L, -5, e);
  lua_pushlstring(L, (const char *)e->bytes, e->length);
  return 5;
}

/* Hold on to the current request no longer: who keeps it unanswered is the handler, or nobody. Allocates nothing, so that it
 * needs no protection. */
static void let_go(struct lua_net *self) {
  lua_State *L = self->handle.L;
  if (!L || !lua_checkstack(L, 2)) return; /* Then it is held until the next request comes. */
  lua_handle_push(L, &self->handle);
  lua_pushnil(L);
  lua_setiuservalue(L, -2, CURRENT);
  lua_pop(L, 1);
}

static void on_request(void *data, struct net_peer *peer, const struct net_request *request, const uint8_t *bytes,
                       size_t length) {
  struct lua_net *self = data;
  struct event e = {.peer = peer, .request = request, .bytes = bytes, .length = length};
  self->current = NULL;
  bool ran = fire(self, "net.request", push_on_request, &e);
  struct lua_request *r = self->current;
  bool open = r ? !r->answered : request->id != 0;
  self->current = NULL;
  if (!open) return;
  if (r && !ran) r->answered = true;
  if (r) let_go(self);
  if (ran) return;
  (void)net_refuse(self->net, request, "FAILED", "the request's handler failed"); /* Unsent ones are counted. */
}

static int push_on_peer(lua_State *L, void *data) {
  struct event *e = data;
  push_handler(L, e, ON_PEER);
  push_peer(L, -2, e->peer);
  lua_pushstring(L, e->text);
  if (e->code >= 0) return 2;
  lua_pushlstring(L, (const char *)e->bytes, e->length);
  lua_pushstring(L, error_name(e->code));
  return 4;
}

static int nothing(lua_State *L) {
  (void)L; /* What is called where only the pushing mattered. */
  return 0;
}

/* The peer is no more: its userdata lives on as long as somebody holds it, and knows. */
static int push_forget(lua_State *L, void *data) {
  struct event *e = data;
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

static void on_peer(void *data, struct net_peer *peer, enum net_peer_event event, int code, const char *text) {
  struct lua_net *self = data;
  struct event e = {.peer = peer, .code = code, .bytes = (const uint8_t *)text, .length = strlen(text)};
  if (!self->handle.L) return;
  if (event == NET_GONE) {
    struct lua_peer *box = net_peer_data(peer);
    if (!box) return;
    box->peer = NULL;
    (void)fire(self, "net.peer", push_forget, &e); /* The door told. */
    return;
  }
  e.text = event == NET_UP ? "up" : "down";
  if (self->wired[ON_PEER]) (void)fire(self, "net.peer", push_on_peer, &e); /* The door told. */
}

static int push_on_circuit(lua_State *L, void *data) {
  struct event *e = data;
  push_handler(L, e, ON_CIRCUIT);
  push_peer(L, -2, e->peer);
  lua_pushstring(L, e->text);
  return 2;
}

static void on_circuit(void *data, struct net_peer *peer, enum breaker_status status) {
  struct lua_net *self = data;
  struct event e = {.peer = peer, .text = breaker_name(status)};
  if (self->wired[ON_CIRCUIT]) (void)fire(self, "net.circuit", push_on_circuit, &e); /* The door told. */
}

static int push_on_closed(lua_State *L, void *data) {
  push_handler(L, data, ON_CLOSED);
  return 0;
}

static void on_closed(void *data) {
  struct lua_net *self = data;
  struct event e = {0};
  if (self->wired[ON_CLOSED]) (void)fire(self, "net.closed", push_on_closed, &e); /* The door told. */
  lua_handle_closed(&self->handle);
}

/* The function given with this call or send, taken out of the table. */
static void push_callback(lua_State *L, struct event *e) {
  lua_Integer slot = (lua_Integer)(uint32_t)e->result->id + 1;
  push_handler(L, e, CALLBACKS);
  lua_rawgeti(L, -1, slot);
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
  struct event *e = data;
  push_callback(L, e);
  if (e->result->code < 0) return push_failure(L, e->result);
  lua_pushlstring(L, (const char *)e->result->bytes, e->result->length);
  return 1;
}

static int push_sent(lua_State *L, void *data) {
  struct event *e = data;
  push_callback(L, e);
  if (e->result->code < 0) return push_failure(L, e->result);
  lua_pushboolean(L, 1);
  return 1;
}

static void on_answer(void *data, const struct net_result *result) {
  struct event e = {.result = result};
  (void)fire(data, "net.reply", push_answer, &e); /* The door told. */
}

static void on_sent(void *data, const struct net_result *result) {
  struct event e = {.result = result};
  (void)fire(data, "net.sent", push_sent, &e); /* The door told. */
}

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
  struct lua_net *self = lua_handle_new(L, &net_type, 1, sizeof *self, VALUES);
  take_handler(L, self, "on_request", ON_REQUEST);
  take_handler(L, self, "on_peer", ON_PEER);
  take_handler(L, self, "on_circuit", ON_CIRCUIT);
  set_table(L, CALLBACKS);
  set_table(L, PEERS);
  set_table(L, BY_ADDRESS);
  luaL_getmetatable(L, REQUEST_NAME);
  lua_setiuservalue(L, 4, REQUESTS);
  lua_handle_pin(L, &self->handle, 4);
  struct net_events events = {.on_request = self->wired[ON_REQUEST] ? on_request : NULL,
                              .on_peer = on_peer,
                              .on_circuit = on_circuit,
                              .on_closed = on_closed};
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
  struct lua_net *self = lua_handle_check(L, 1, &net_type, true);
  struct shoal_address bind, bound;
  if (!lua_check_address(L, 2, "listen", &bind)) return 3;
  int rc = net_listen(self->net, &bind, &bound);
  if (rc >= 0) return lua_push_address(L, &bound), 1;
  if (rc != ERR_CONFIG) return error_push(L, lua_pushfstring(L, "listen on %s", lua_tostring(L, 2)), rc);
  lua_pushnil(L);
  lua_pushfstring(L, "listen on %s: %s", lua_tostring(L, 2), net_needs_keys);
  lua_pushstring(L, error_name(rc));
  return 3;
}

static int l_peer(lua_State *L) {
  struct lua_net *self = lua_handle_check(L, 1, &net_type, true);
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
  push_peer(L, 1, peer);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -2);
  lua_rawset(L, 3);
  return 1;
}

/* The request at 2, marked answered. Answering twice is a mistake of the caller's. */
static struct lua_request *take_request(lua_State *L) {
  struct lua_request *r = luaL_checkudata(L, 2, REQUEST_NAME);
  luaL_argcheck(L, !r->answered, 2, "this request was answered already");
  return r;
}

static int l_reply(lua_State *L) {
  struct lua_net *self = lua_handle_check(L, 1, &net_type, false);
  struct lua_request *r = take_request(L);
  size_t length;
  const char *bytes = luaL_checklstring(L, 3, &length);
  r->answered = true;
  if (!self->handle.open) return error_push(L, "reply", ERR_CLOSED);
  return error_or_true(L, "reply", net_reply(self->net, &r->request, bytes, length));
}

static int l_refuse(lua_State *L) {
  struct lua_net *self = lua_handle_check(L, 1, &net_type, false);
  struct lua_request *r = take_request(L);
  size_t length;
  const char *name = luaL_checklstring(L, 3, &length), *text = luaL_optstring(L, 4, "");
  luaL_argcheck(L, length >= 1 && length <= FRAME_NAME_MAX && strlen(name) == length, 3, "expected a word of 1 to 64 bytes");
  r->answered = true;
  if (!self->handle.open) return error_push(L, "refuse", ERR_CLOSED);
  return error_or_true(L, "refuse", net_refuse(self->net, &r->request, name, text));
}

static int l_request_gc(lua_State *L) {
  struct lua_request *r = lua_touserdata(L, 1);
  if (r->answered) return 0;
  r->answered = true;
  lua_getiuservalue(L, 1, 1);
  struct lua_net **box = lua_touserdata(L, -1);
  if (!box || !*box || !(*box)->handle.open) return 0; /* All of it ends: nobody waits. */
  (void)net_refuse((*box)->net, &r->request, "FAILED", "the request was dropped without an answer"); /* Counted. */
  door_report(L, "net.request.dropped", lua_pushfstring(L, "a request of type %d was dropped without an answer",
                                                        (int)r->request.type));
  return 0;
}

static int l_counts(lua_State *L) {
  struct lua_net *self = lua_handle_check(L, 1, &net_type, false);
  if (!self->handle.open) return error_push(L, "counts", ERR_CLOSED);
  return net_push_counts(L, net_counts(self->net)), 1;
}

static int l_close(lua_State *L) {
  struct lua_net *self = lua_handle_check(L, 1, &net_type, false);
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

/* ---- peers ---- */

/* The peer at 1, its net's userdata pushed. False when there is nobody any more to talk to. */
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

/* Keep the function at `index` for the request with this id; the net's userdata is on top. */
static int keep_callback(lua_State *L, int index, uint64_t id) {
  lua_getiuservalue(L, -1, CALLBACKS);
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, (lua_Integer)(uint32_t)id + 1);
  lua_pushboolean(L, 1);
  return 1;
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
  uint64_t id;
  if (!check_peer(L, &box, &self)) return peer_error(L, "call to", box, ERR_CLOSED);
  int rc = net_call(box->peer, type, lane, bytes, length, (uint64_t)ceil(timeout_ms * 1e6), on_answer, self, &id);
  return rc < 0 ? peer_error(L, "call to", box, rc) : keep_callback(L, 6, id);
}

static int l_send(lua_State *L) {
  struct lua_peer *box;
  struct lua_net *self;
  uint16_t type = check_type(L, 2);
  enum net_lane lane = (enum net_lane)luaL_checkoption(L, 3, NULL, lane_names);
  size_t length;
  const char *bytes = luaL_checklstring(L, 4, &length);
  luaL_checktype(L, 5, LUA_TFUNCTION);
  uint64_t id;
  if (!check_peer(L, &box, &self)) return peer_error(L, "send to", box, ERR_CLOSED);
  int rc = net_send(box->peer, type, lane, bytes, length, on_sent, self, &id);
  return rc < 0 ? peer_error(L, "send to", box, rc) : keep_callback(L, 5, id);
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

/* ---- the module ---- */

static void make_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta) {
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

int luaopen_shoal_core_net(lua_State *L) {
  static const luaL_Reg functions[] = {{"open", l_open}, {NULL, NULL}};
  static const luaL_Reg none[] = {{NULL, NULL}};
  static const luaL_Reg net_methods[] = {{"listen", l_listen}, {"peer", l_peer},     {"reply", l_reply}, {"refuse", l_refuse},
                                         {"counts", l_counts}, {"close", l_close}, {NULL, NULL}};
  static const luaL_Reg peer_methods[] = {
      {"call", l_call}, {"send", l_send}, {"info", l_info}, {"close", l_peer_close}, {NULL, NULL}};
  static const luaL_Reg peer_meta[] = {{"__tostring", l_peer_tostring}, {NULL, NULL}};
  static const luaL_Reg request_meta[] = {{"__gc", l_request_gc}, {NULL, NULL}};
  lua_handle_type(L, &net_type, net_methods);
  make_class(L, PEER_NAME, peer_methods, peer_meta);
  make_class(L, REQUEST_NAME, none, request_meta);
  luaL_newlib(L, functions);
  lua_pushinteger(L, FRAME_MESSAGE_MAX);
  lua_setfield(L, -2, "message_max");
  return 1;
}
