#include "lua/net_request.h"

#include <lauxlib.h>
#include <string.h>

#include "lua/lua_error.h"
#include "lua/net_peer.h"

#define REQUEST_NAME "shoal.net.request"

struct lua_request {
  struct net_request request;
  bool answered;
  bool failed; /* We answered it, because its callback raised. What the callback began may still answer, and learns it. */
};

static void push_request(lua_State *L, int self, struct net_event *e) {
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
  struct net_event *e = data;
  net_push_handler(L, e, ON_REQUEST);
  net_push_peer(L, -2, e->peer);
  lua_pushinteger(L, e->request->type);
  lua_pushstring(L, net_lane_name((enum net_lane)e->request->lane));
  push_request(L, -5, e);
  lua_pushlstring(L, (const char *)e->bytes, e->length);
  return 5;
}

/* Release the current request: from now on only the handler keeps it. Allocates nothing, so it needs no protection. */
static void let_go(struct lua_net *self) {
  lua_State *L = self->handle.L;
  if (!L || !lua_checkstack(L, 2)) return; /* Then it is held until the next request comes. */
  lua_handle_push(L, &self->handle);
  lua_pushnil(L);
  lua_setiuservalue(L, -2, CURRENT);
  lua_pop(L, 1);
}

void net_on_request(void *data, struct net_peer *peer, const struct net_request *request, const uint8_t *bytes,
                       size_t length) {
  struct lua_net *self = data;
  struct net_event e = {.peer = peer, .request = request, .bytes = bytes, .length = length};
  self->current = NULL;
  bool ran = net_fire(self, "net.request", push_on_request, &e);
  struct lua_request *r = self->current;
  bool open = r ? !r->answered : request->id != 0;
  self->current = NULL;
  if (!open) return;
  if (r && !ran) r->answered = r->failed = true;
  if (r) let_go(self);
  if (ran) return;
  (void)net_refuse(self->net, request, "FAILED", "the request's handler failed"); /* Unsent ones are counted. */
}

/* The request at 2. Answering twice is a mistake of the caller's. */
static struct lua_request *take_request(lua_State *L) {
  struct lua_request *r = luaL_checkudata(L, 2, REQUEST_NAME);
  luaL_argcheck(L, !r->answered || r->failed, 2, "this request was answered already");
  return r;
}

int net_l_reply(lua_State *L) {
  struct lua_net *self = lua_handle_check(L, 1, &net_handle_type, false);
  struct lua_request *r = take_request(L);
  size_t length;
  const char *bytes = luaL_checklstring(L, 3, &length);
  if (r->failed) return error_push(L, "reply", ERR_FAILED);
  r->answered = true;
  if (!self->handle.open) return error_push(L, "reply", ERR_CLOSED);
  return error_or_true(L, "reply", net_reply(self->net, &r->request, bytes, length));
}

int net_l_refuse(lua_State *L) {
  struct lua_net *self = lua_handle_check(L, 1, &net_handle_type, false);
  struct lua_request *r = take_request(L);
  size_t length;
  const char *name = luaL_checklstring(L, 3, &length), *text = luaL_optstring(L, 4, "");
  luaL_argcheck(L, length >= 1 && length <= FRAME_NAME_MAX && strlen(name) == length, 3, "expected a word of 1 to 64 bytes");
  if (r->failed) return error_push(L, "refuse", ERR_FAILED);
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

void net_push_request_class(lua_State *L) { luaL_getmetatable(L, REQUEST_NAME); }

void net_request_class(lua_State *L) {
  static const luaL_Reg methods[] = {{NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_request_gc}, {NULL, NULL}};
  net_class(L, REQUEST_NAME, methods, meta);
}
