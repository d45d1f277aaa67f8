/* Streams and listeners in Lua. */
#include "lua/world_classes.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "lua/door.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"

/* ---- streams ---- */

enum { ON_OPEN, ON_READ, ON_END, ON_DRAIN, ON_CLOSED, EVENTS };
static const char *const event_names[EVENTS] = {"on_open", "on_read", "on_end", "on_drain", "on_closed"};
static const char *const sites[EVENTS] = {"world.stream.open", "world.stream.read", "world.stream.end",
                                          "world.stream.drain", "world.stream.closed"};
enum { FIRST_VALUE = 2 }; /* The functions are user values from here on. */

struct stream {
  struct lua_handle handle;
  struct world_stream *stream;
  bool attached;
  bool wired[EVENTS];
};

static void close_stream(struct lua_handle *h) {
  struct stream *s = (struct stream *)h;
  struct world_stream *stream = s->stream;
  bool attached = s->attached;
  s->stream = NULL;
  if (!attached) lua_handle_closed(h); /* The world sends no events of a stream that was never attached; s may be gone. */
  world_stream_close(stream);
}

static const struct lua_handle_type stream_type = {"shoal.stream", close_stream, NULL};

struct event {
  struct stream *stream;
  int which, status;
  const uint8_t *bytes;
  size_t length;
};

static int push_event(lua_State *L, void *data) {
  struct event *e = data;
  lua_handle_push(L, &e->stream->handle);
  lua_handle_value(L, -1, FIRST_VALUE + e->which);
  lua_insert(L, -2);
  switch (e->which) {
    case ON_READ:
      lua_pushlstring(L, (const char *)e->bytes, e->length);
      return 2;
    case ON_OPEN:
    case ON_END:
      if (e->status >= 0) return 1;
      lua_pushstring(L, error_text(e->status));
      lua_pushstring(L, error_name(e->status));
      return 3;
    default:
      return 1;
  }
}

static void fire(struct event *e) {
  struct lua_handle *h = &e->stream->handle;
  if (!h->L || !e->stream->wired[e->which]) return;
  if (h->closing && e->which != ON_CLOSED) return;
  (void)door_call(h->L, sites[e->which], push_event, 0, NULL, e); /* The door reports it; the stream lives on. */
}

static void on_open(void *data, int status) { fire(&(struct event){data, ON_OPEN, status, NULL, 0}); }
static void on_end(void *data, int status) { fire(&(struct event){data, ON_END, status, NULL, 0}); }
static void on_drain(void *data) { fire(&(struct event){data, ON_DRAIN, 0, NULL, 0}); }
static void on_read(void *data, const uint8_t *bytes, size_t length) {
  fire(&(struct event){data, ON_READ, 0, bytes, length});
}
static void on_closed(void *data) {
  struct stream *s = data;
  fire(&(struct event){s, ON_CLOSED, 0, NULL, 0});
  lua_handle_closed(&s->handle);
}

static const struct world_stream_events stream_events = {on_open, on_read, on_end, on_drain, on_closed};

/* Store the functions of the table at `index` in the userdata at `self`. A misspelt name raises before anything changed: it
 * would be a handler that never runs. */
static void take_handlers(lua_State *L, struct stream *s, int self, int index) {
  luaL_checktype(L, index, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    int i = 0;
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "(a key that is no string)";
    while (i < EVENTS && strcmp(name, event_names[i]) != 0) i++;
    if (i == EVENTS) luaL_argerror(L, index, lua_pushfstring(L, "no such handler: %s", name));
    if (!lua_isfunction(L, -1)) luaL_argerror(L, index, lua_pushfstring(L, "%s is no function", name));
  }
  if (lua_getfield(L, index, event_names[ON_END]) == LUA_TNIL) luaL_argerror(L, index, "on_end is missing");
  lua_pop(L, 1);
  for (int i = 0; i < EVENTS; i++) {
    s->wired[i] = lua_getfield(L, index, event_names[i]) == LUA_TFUNCTION;
    lua_setiuservalue(L, self, FIRST_VALUE + i);
  }
}

/* A handle for a stream without handlers yet: open, so that it can be closed, and is reported when it leaks. The caller sets
 * the stream at once, or unpins it. */
static struct stream *push_bare(lua_State *L, int world_index) {
  struct stream *s = lua_handle_new(L, &stream_type, world_index, sizeof *s, EVENTS);
  lua_handle_pin(L, &s->handle, -1);
  return s;
}

int lua_push_process_stream(lua_State *L, int world_index, struct world_process *process, int fd) {
  struct stream *s = push_bare(L, world_index);
  s->stream = world_process_stream(process, fd);
  if (s->stream) return 1;
  lua_handle_unpin(&s->handle);
  lua_pushnil(L);
  return 1;
}

/* world:connect(address, handlers) -> stream | nil, message, code */
static int l_connect(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  struct shoal_address to;
  lua_settop(L, 3);
  luaL_checktype(L, 3, LUA_TTABLE);
  if (!lua_check_address(L, 2, "connect", &to)) return 3;
  struct stream *s = lua_handle_new(L, &stream_type, 1, sizeof *s, EVENTS);
  take_handlers(L, s, 4, 3);
  lua_handle_pin(L, &s->handle, 4);
  int rc = world_connect(world, &to, &stream_events, s, &s->stream);
  if (rc < 0) {
    lua_handle_unpin(&s->handle);
    return error_push(L, lua_pushfstring(L, "connect to %s", lua_tostring(L, 2)), rc);
  }
  s->attached = true;
  return 1;
}

struct world_stream *lua_check_stream(lua_State *L, int index) {
  return ((struct stream *)lua_handle_check(L, index, &stream_type, true))->stream;
}

static struct stream *check_stream(lua_State *L) { return lua_handle_check(L, 1, &stream_type, true); }

/* stream:attach(handlers) -> stream: give handlers to a stream that came without; reading starts. */
static int l_attach(lua_State *L) {
  struct stream *s = check_stream(L);
  luaL_argcheck(L, !s->attached, 1, "this stream has its handlers already");
  lua_settop(L, 2);
  take_handlers(L, s, 1, 2);
  s->attached = true;
  world_stream_attach(s->stream, &stream_events, s);
  lua_settop(L, 1);
  return 1;
}

static const char *peer_text(struct stream *s, char *out) {
  struct shoal_address peer;
  if (!world_stream_peer(s->stream, &peer)) return "a pipe";
  (void)address_format(&peer, out); /* Its length is not needed. */
  return out;
}

/* stream:write(bytes | { bytes... }) -> true | nil, message, code */
static int l_write(lua_State *L) {
  struct stream *s = check_stream(L);
  struct world_buffer one, *buffers = &one;
  size_t count = 1;
  if (lua_istable(L, 2)) {
    count = (size_t)luaL_len(L, 2);
    buffers = lua_newuserdatauv(L, (count + 1) * sizeof *buffers, 0);
    for (size_t i = 0; i < count; i++) {
      if (lua_rawgeti(L, 2, (lua_Integer)i + 1) != LUA_TSTRING) /* Only strings: a number's text would not stay alive. */
        return luaL_argerror(L, 2, lua_pushfstring(L, "piece %d is no string", (int)i + 1));
      buffers[i].bytes = lua_tolstring(L, -1, &buffers[i].length);
      lua_pop(L, 1); /* The table keeps it. */
    }
  } else {
    one.bytes = luaL_checklstring(L, 2, &one.length);
  }
  int rc = world_stream_write(s->stream, buffers, count);
  if (rc >= 0) return error_or_true(L, "write", rc);
  char text[ADDRESS_TEXT_MAX];
  return error_push(L, lua_pushfstring(L, "write to %s", peer_text(s, text)), rc);
}

static int l_queued(lua_State *L) {
  struct stream *s = check_stream(L);
  lua_pushinteger(L, (lua_Integer)world_stream_queued(s->stream));
  return 1;
}

static int l_read(lua_State *L) {
  struct stream *s = check_stream(L);
  luaL_checktype(L, 2, LUA_TBOOLEAN);
  world_stream_read(s->stream, lua_toboolean(L, 2));
  return 0;
}

static int l_window(lua_State *L) {
  struct stream *s = check_stream(L);
  lua_Integer bytes = luaL_checkinteger(L, 2);
  luaL_argcheck(L, bytes > 0, 2, "expected more than 0");
  world_stream_window(s->stream, (size_t)bytes);
  return 0;
}

static int l_shutdown(lua_State *L) {
  struct stream *s = check_stream(L);
  return error_or_true(L, "shutdown", world_stream_shutdown(s->stream));
}

static int l_peer(lua_State *L) {
  struct stream *s = check_stream(L);
  struct shoal_address peer;
  if (!world_stream_peer(s->stream, &peer)) return lua_pushnil(L), 1;
  return lua_push_address(L, &peer), 1;
}

static int l_stream_close(lua_State *L) {
  lua_handle_close(lua_handle_check(L, 1, &stream_type, false));
  return 0;
}

static const luaL_Reg stream_methods[] = {
    {"attach", l_attach}, {"write", l_write}, {"queued", l_queued}, {"read", l_read}, {"window", l_window},
    {"shutdown", l_shutdown}, {"peer", l_peer}, {"close", l_stream_close}, {NULL, NULL}};

/* world:stdio(fd) -> stream | nil, message, code */
static int l_stdio(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  lua_Integer fd = luaL_checkinteger(L, 2);
  luaL_argcheck(L, fd >= 0 && fd <= 2, 2, "expected 0, 1 or 2");
  struct stream *s = push_bare(L, 1);
  int rc = world_stdio(world, (int)fd, &s->stream);
  if (rc < 0) {
    lua_handle_unpin(&s->handle);
    return error_push(L, "stdio", rc);
  }
  return 1;
}

/* ---- listeners ---- */

struct listener {
  struct lua_handle handle;
  struct world_listener *listener;
};

static void close_listener(struct lua_handle *h) { world_listener_close(((struct listener *)h)->listener); }
static const struct lua_handle_type listener_type = {"shoal.listener", close_listener, NULL};
enum { LISTENER_ON_STREAM = 2, LISTENER_ON_ERROR };

struct connection {
  struct listener *listener;
  struct world_stream *stream;
  struct stream *taken; /* Lua's handle, once made. It may have been collected: check the registry first. */
  uint64_t number;      /* The handle's number. */
  int code;
};

static int push_connection(lua_State *L, void *data) {
  struct connection *c = data;
  lua_handle_push(L, &c->listener->handle);
  int self = lua_gettop(L);
  lua_handle_value(L, self, LISTENER_ON_STREAM);
  lua_handle_value(L, self, 1);
  c->taken = push_bare(L, -1);
  c->taken->stream = c->stream;
  c->number = c->taken->handle.number;
  lua_remove(L, -2);
  lua_remove(L, self);
  return 1;
}

static void on_connection(void *data, struct world_stream *stream) {
  struct listener *l = data;
  struct connection c = {l, stream, NULL, 0, 0};
  if (!l->handle.L || l->handle.closing) {
    world_stream_close(stream);
    return;
  }
  lua_State *L = l->handle.L;
  if (door_call(L, "world.listener.connection", push_connection, 0, NULL, &c)) return;
  /* The handler raised. If it had not attached the stream yet, we must close it. */
  if (!c.taken) {
    world_stream_close(stream);
    return;
  }
  bool pinned = lua_rawgetp(L, LUA_REGISTRYINDEX, c.taken) == LUA_TUSERDATA;
  lua_pop(L, 1);
  if (pinned && c.taken->handle.number == c.number && !c.taken->attached) lua_handle_close(&c.taken->handle);
}

static int push_listener_error(lua_State *L, void *data) {
  struct connection *c = data;
  lua_handle_push(L, &c->listener->handle);
  lua_handle_value(L, -1, LISTENER_ON_ERROR);
  lua_remove(L, -2);
  lua_pushfstring(L, "accept: %s", error_text(c->code));
  lua_pushstring(L, error_name(c->code));
  return 2;
}

static void on_listener_error(void *data, int code) {
  struct listener *l = data;
  struct connection c = {l, NULL, NULL, 0, code};
  if (!l->handle.L || l->handle.closing) return;
  (void)door_call(l->handle.L, "world.listener.error", push_listener_error, 0, NULL, &c); /* The door reports it. */
}

static void on_listener_closed(void *data) { lua_handle_closed(data); }

static int report_error(lua_State *L) { return luaL_error(L, "%s", lua_tostring(L, 1)); }

/* world:listen(address, on_stream, on_error?) -> listener | nil, message, code */
static int l_listen(lua_State *L) {
  static const struct world_listener_events events = {on_connection, on_listener_error, on_listener_closed};
  struct shoal_world *world = lua_check_world(L, 1);
  struct shoal_address bind;
  luaL_checktype(L, 3, LUA_TFUNCTION);
  if (!lua_isnoneornil(L, 4)) luaL_checktype(L, 4, LUA_TFUNCTION);
  lua_settop(L, 4);
  if (!lua_check_address(L, 2, "listen", &bind)) return 3;
  struct listener *l = lua_handle_new(L, &listener_type, 1, sizeof *l, 2);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, 5, LISTENER_ON_STREAM);
  if (lua_isnil(L, 4)) lua_pushcfunction(L, report_error); /* Without a handler an error becomes an incident. */
  else lua_pushvalue(L, 4);
  lua_setiuservalue(L, 5, LISTENER_ON_ERROR);
  lua_handle_pin(L, &l->handle, 5);
  int rc = world_listen(world, &bind, &events, l, &l->listener);
  if (rc < 0) {
    lua_handle_unpin(&l->handle);
    return error_push(L, lua_pushfstring(L, "listen on %s", lua_tostring(L, 2)), rc);
  }
  return 1;
}

static int l_listener_address(lua_State *L) {
  struct listener *l = lua_handle_check(L, 1, &listener_type, true);
  struct shoal_address address;
  world_listener_address(l->listener, &address);
  lua_push_address(L, &address);
  return 1;
}

static int l_listener_close(lua_State *L) {
  lua_handle_close(lua_handle_check(L, 1, &listener_type, false));
  return 0;
}

static const luaL_Reg listener_methods[] = {
    {"address", l_listener_address}, {"close", l_listener_close}, {NULL, NULL}};

void lua_world_stream(lua_State *L) {
  static const luaL_Reg functions[] = {{"connect", l_connect}, {"listen", l_listen}, {"stdio", l_stdio}, {NULL, NULL}};
  lua_handle_type(L, &stream_type, stream_methods);
  lua_handle_type(L, &listener_type, listener_methods);
  luaL_setfuncs(L, functions, 0);
}
