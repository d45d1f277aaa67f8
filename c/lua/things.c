/* Timers, datagram sockets, lookups, logs and child processes in Lua. */
#include <lauxlib.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "lua/door.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"

enum { FUNCTION = 2, ON_ERROR = 3 }; /* User values: what to call. */

/* All of these call one function, with the handle or with a few values. */
struct event {
  struct lua_handle *handle;
  int value; /* The user value with the function. */
  int (*push)(lua_State *L, struct event *e);
  int status;
  const void *bytes;
  size_t length; /* Of bytes, or a count. */
  const struct shoal_address *address;
  int64_t number;
};

static int push_event(lua_State *L, void *data) {
  struct event *e = data;
  lua_handle_push(L, e->handle);
  lua_handle_value(L, -1, e->value);
  lua_insert(L, -2);
  return e->push(L, e); /* The handle is on top: use it as the first argument, or pop it. */
}

static void fire(const char *site, struct event *e) {
  if (!e->handle->L || e->handle->closing) return;
  (void)door_call(e->handle->L, site, push_event, 0, NULL, e); /* The door told. */
}

static int push_error(lua_State *L, const char *what, int code) {
  lua_pushfstring(L, "%s: %s", what, error_text(code));
  lua_pushstring(L, error_name(code));
  return 2;
}

static int raise_error(lua_State *L) { return luaL_error(L, "%s", lua_tostring(L, 1)); }

/* The function at `index`, or one that makes the error an incident, becomes user value `value` of the userdata on top. */
static void set_function(lua_State *L, int index, int value) {
  if (lua_isnoneornil(L, index)) lua_pushcfunction(L, raise_error);
  else lua_pushvalue(L, index);
  lua_setiuservalue(L, -2, value);
}

static void on_closed(void *data) { lua_handle_closed(data); }

static int open_failed(lua_State *L, struct lua_handle *h, const char *what, int code) {
  lua_handle_unpin(h);
  return error_push(L, what, code);
}

/* ---- timers ---- */

struct timer {
  struct lua_handle handle;
  struct world_timer *timer;
};

static void close_timer(struct lua_handle *h) { world_timer_close(((struct timer *)h)->timer); }
static const struct lua_handle_type timer_type = {"shoal.timer", close_timer, NULL};

static int push_self(lua_State *L, struct event *e) {
  (void)L, (void)e; /* The handle is there already. */
  return 1;
}

static void on_timer(void *data) {
  struct event e = {.handle = data, .value = FUNCTION, .push = push_self};
  fire("world.timer", &e);
}

/* world:timer(fn(timer)) -> timer */
static int l_timer(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  struct timer *t = lua_handle_new(L, &timer_type, 1, sizeof *t, 1);
  set_function(L, 2, FUNCTION);
  lua_handle_pin(L, &t->handle, -1);
  int rc = world_timer_open(world, on_timer, on_closed, t, &t->timer);
  if (rc < 0) return open_failed(L, &t->handle, "timer", rc);
  return 1;
}

/* timer:start(ms): once, fractions of a millisecond allowed; past or negative means in the next turn. */
static int l_timer_start(lua_State *L) {
  struct timer *t = lua_handle_check(L, 1, &timer_type, true);
  double ms = luaL_checknumber(L, 2);
  luaL_argcheck(L, !isnan(ms), 2, "expected milliseconds, got nan");
  double ns = ceil(fmax(ms, 0) * 1e6);
  uint64_t now = world_now_ns(t->handle.world);
  world_timer_start(t->timer, ns >= 9e18 ? UINT64_MAX / 2 : now + (uint64_t)ns);
  return 0;
}

static int l_timer_start_at(lua_State *L) {
  struct timer *t = lua_handle_check(L, 1, &timer_type, true);
  lua_Integer at_ns = luaL_checkinteger(L, 2);
  world_timer_start(t->timer, at_ns > 0 ? (uint64_t)at_ns : 0);
  return 0;
}

static int l_timer_stop(lua_State *L) {
  struct timer *t = lua_handle_check(L, 1, &timer_type, false);
  if (!t->handle.closing) world_timer_stop(t->timer);
  return 0;
}

static int l_timer_close(lua_State *L) { return lua_handle_close(lua_handle_check(L, 1, &timer_type, false)), 0; }

static const luaL_Reg timer_methods[] = {{"start", l_timer_start},
                                         {"start_at", l_timer_start_at},
                                         {"stop", l_timer_stop},
                                         {"close", l_timer_close},
                                         {NULL, NULL}};

/* ---- datagrams ---- */

struct udp {
  struct lua_handle handle;
  struct world_udp *udp;
};

static void close_udp(struct lua_handle *h) { world_udp_close(((struct udp *)h)->udp); }
static const struct lua_handle_type udp_type = {"shoal.udp", close_udp, NULL};

static int push_datagram(lua_State *L, struct event *e) {
  lua_pop(L, 1);
  lua_pushlstring(L, e->bytes, e->length);
  lua_push_address(L, e->address);
  return 2;
}

static void on_datagram(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct event e = {
      .handle = data, .value = FUNCTION, .push = push_datagram, .bytes = bytes, .length = length, .address = from};
  fire("world.udp.datagram", &e);
}

static int push_udp_error(lua_State *L, struct event *e) {
  lua_pop(L, 1);
  return push_error(L, "receive", e->status);
}

static void on_udp_error(void *data, int code) {
  struct event e = {.handle = data, .value = ON_ERROR, .push = push_udp_error, .status = code};
  fire("world.udp.error", &e);
}

/* world:udp(address, on_datagram(bytes, from), on_error(err, code)?) -> udp | nil, message, code */
static int l_udp(lua_State *L) {
  static const struct world_udp_events events = {on_datagram, on_udp_error, on_closed};
  struct shoal_world *world = lua_check_world(L, 1);
  struct shoal_address bind;
  luaL_checktype(L, 3, LUA_TFUNCTION);
  if (!lua_isnoneornil(L, 4)) luaL_checktype(L, 4, LUA_TFUNCTION);
  lua_settop(L, 4);
  if (!lua_check_address(L, 2, "udp", &bind)) return 3;
  struct udp *u = lua_handle_new(L, &udp_type, 1, sizeof *u, 2);
  set_function(L, 3, FUNCTION);
  set_function(L, 4, ON_ERROR);
  lua_handle_pin(L, &u->handle, -1);
  int rc = world_udp_open(world, &bind, &events, u, &u->udp);
  if (rc < 0) return open_failed(L, &u->handle, lua_pushfstring(L, "bind to %s", lua_tostring(L, 2)), rc);
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

/* ---- names ---- */

struct lookup {
  struct lua_handle handle;
  struct world_lookup *lookup;
};

static void close_lookup(struct lua_handle *h) { world_lookup_close(((struct lookup *)h)->lookup); }
static const struct lua_handle_type lookup_type = {"shoal.lookup", close_lookup, NULL};

static int push_addresses(lua_State *L, struct event *e) {
  lua_pop(L, 1);
  if (e->status < 0) {
    lua_pushnil(L);
    return 1 + push_error(L, "resolve", e->status);
  }
  lua_createtable(L, (int)e->length, 0);
  for (size_t i = 0; i < e->length; i++) {
    lua_push_address(L, &e->address[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

static void on_result(void *data, int status, const struct shoal_address *addresses, size_t count) {
  struct event e = {.handle = data, .value = FUNCTION, .push = push_addresses, .status = status, .length = count,
                    .address = addresses};
  fire("world.lookup", &e);
}

/* The world closes a lookup by itself once it has answered. */
static void on_lookup_closed(void *data) { lua_handle_closed(data); }

/* world:resolve(host, port, fn(addresses | nil, err, code)) -> lookup | nil, message, code */
static int l_resolve(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *host = luaL_checkstring(L, 2);
  lua_Integer port = luaL_checkinteger(L, 3);
  luaL_argcheck(L, port >= 0 && port <= UINT16_MAX, 3, "expected a port, 0 to 65535");
  luaL_checktype(L, 4, LUA_TFUNCTION);
  struct lookup *l = lua_handle_new(L, &lookup_type, 1, sizeof *l, 1);
  set_function(L, 4, FUNCTION);
  lua_handle_pin(L, &l->handle, -1);
  int rc = world_resolve(world, host, (uint16_t)port, on_result, on_lookup_closed, l, &l->lookup);
  if (rc < 0) return open_failed(L, &l->handle, lua_pushfstring(L, "resolve %s", host), rc);
  return 1;
}

static int l_lookup_close(lua_State *L) { return lua_handle_close(lua_handle_check(L, 1, &lookup_type, false)), 0; }

static const luaL_Reg lookup_methods[] = {{"close", l_lookup_close}, {NULL, NULL}};

/* ---- logs ---- */

struct log {
  struct lua_handle handle;
  struct world_log *log;
};

static void close_log(struct lua_handle *h) { world_log_close(((struct log *)h)->log); }
static const struct lua_handle_type log_type = {"shoal.log", close_log, NULL};

static int push_synced(lua_State *L, struct event *e) {
  lua_pop(L, 1);
  if (e->status < 0) {
    lua_pushnil(L);
    return 1 + push_error(L, "sync", e->status);
  }
  lua_pushinteger(L, e->number);
  return 1;
}

static void on_synced(void *data, int status, uint64_t size) {
  struct event e = {
      .handle = data, .value = FUNCTION, .push = push_synced, .status = status, .number = (int64_t)size};
  fire("world.log.synced", &e);
}

/* world:log(path, on_synced(size | nil, err, code)) -> log | nil, message, code */
static int l_log(lua_State *L) {
  static const struct world_log_events events = {on_synced, on_closed};
  struct shoal_world *world = lua_check_world(L, 1);
  const char *path = luaL_checkstring(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  struct log *l = lua_handle_new(L, &log_type, 1, sizeof *l, 1);
  set_function(L, 3, FUNCTION);
  lua_handle_pin(L, &l->handle, -1);
  int rc = world_log_open(world, path, &events, l, &l->log);
  if (rc < 0) return open_failed(L, &l->handle, lua_pushfstring(L, "open log %s", path), rc);
  return 1;
}

static int l_log_append(lua_State *L) {
  struct log *l = lua_handle_check(L, 1, &log_type, true);
  size_t length;
  const char *bytes = luaL_checklstring(L, 2, &length);
  return error_or_true(L, "append", world_log_append(l->log, bytes, length));
}

static int l_log_sync(lua_State *L) {
  struct log *l = lua_handle_check(L, 1, &log_type, true);
  return error_or_true(L, "sync", world_log_sync(l->log));
}

static int l_log_truncate(lua_State *L) {
  struct log *l = lua_handle_check(L, 1, &log_type, true);
  lua_Integer size = luaL_checkinteger(L, 2);
  luaL_argcheck(L, size >= 0, 2, "expected 0 or more bytes");
  return error_or_true(L, "truncate", world_log_truncate(l->log, (uint64_t)size));
}

static int l_log_size(lua_State *L) {
  struct log *l = lua_handle_check(L, 1, &log_type, true);
  return lua_pushinteger(L, (lua_Integer)world_log_size(l->log)), 1;
}

static int l_log_close(lua_State *L) { return lua_handle_close(lua_handle_check(L, 1, &log_type, false)), 0; }

static const luaL_Reg log_methods[] = {{"append", l_log_append},     {"sync", l_log_sync},   {"size", l_log_size},
                                       {"truncate", l_log_truncate}, {"close", l_log_close}, {NULL, NULL}};

/* ---- child processes ---- */

struct process {
  struct lua_handle handle;
  struct world_process *process;
};

static void close_process(struct lua_handle *h) { world_process_close(((struct process *)h)->process); }
static const struct lua_handle_type process_type = {"shoal.process", close_process, NULL};

static int push_exit(lua_State *L, struct event *e) {
  lua_pop(L, 1);
  lua_pushinteger(L, e->number);
  lua_pushinteger(L, e->status);
  return 2;
}

static void on_exit_event(void *data, int64_t status, int signal_number) {
  struct event e = {
      .handle = data, .value = FUNCTION, .push = push_exit, .status = signal_number, .number = status};
  fire("world.process.exit", &e);
}

/* The strings of an array at `index`, NULL-terminated, in a userdata left on the stack; they live as long as the array. */
static const char **check_strings(lua_State *L, int index, const char *what) {
  luaL_checktype(L, index, LUA_TTABLE);
  size_t count = (size_t)luaL_len(L, index);
  const char **out = lua_newuserdatauv(L, (count + 1) * sizeof *out, 0);
  for (size_t i = 0; i < count; i++) {
    if (lua_rawgeti(L, index, (lua_Integer)i + 1) != LUA_TSTRING)
      luaL_error(L, "spawn: %s[%d] is no string", what, (int)i + 1);
    out[i] = lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  out[count] = NULL;
  return out;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* { NAME = value } at `index` -> sorted "NAME=value"s, NULL-terminated, in a userdata; both it and what keeps the
 * strings alive stay on the stack. */
static const char **check_environment(lua_State *L, int index) {
  luaL_checktype(L, index, LUA_TTABLE);
  size_t count = 0;
  lua_newtable(L);
  int kept = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING || !lua_isstring(L, -1)) luaL_error(L, "spawn: env is a table of NAME = value");
    lua_pushfstring(L, "%s=%s", lua_tostring(L, -2), lua_tostring(L, -1));
    lua_rawseti(L, kept, (lua_Integer)++count);
  }
  const char **out = check_strings(L, kept, "env");
  qsort(out, count, sizeof *out, by_bytes);
  return out;
}

static bool field_set(lua_State *L, int table, const char *name) {
  lua_getfield(L, table, name);
  bool set = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return set;
}

/* world:spawn{ argv =, env =, cwd =, pipe = { stdin =, stdout =, stderr = }, group =, on_exit = fn(status, signal) }
 * -> process | nil, message, code */
static int l_spawn(lua_State *L) {
  static const struct world_process_events events = {on_exit_event, on_closed};
  struct shoal_world *world = lua_check_world(L, 1);
  struct world_spawn options = {0};
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  luaL_argcheck(L, lua_getfield(L, 2, "argv") == LUA_TTABLE && luaL_len(L, -1) > 0, 2, "argv is missing or empty");
  options.argv = check_strings(L, 3, "argv");
  if (lua_getfield(L, 2, "env") != LUA_TNIL) options.env = check_environment(L, lua_gettop(L));
  if (lua_getfield(L, 2, "cwd") != LUA_TNIL) options.cwd = luaL_checkstring(L, -1);
  if (lua_getfield(L, 2, "pipe") != LUA_TNIL) {
    luaL_argcheck(L, lua_istable(L, -1), 2, "pipe is no table");
    int pipe = lua_gettop(L);
    options.pipe[0] = field_set(L, pipe, "stdin");
    options.pipe[1] = field_set(L, pipe, "stdout");
    options.pipe[2] = field_set(L, pipe, "stderr");
  }
  options.group = field_set(L, 2, "group");
  luaL_argcheck(L, lua_getfield(L, 2, "on_exit") == LUA_TFUNCTION, 2, "on_exit is missing");
  int on_exit_index = lua_gettop(L);
  struct process *p = lua_handle_new(L, &process_type, 1, sizeof *p, 1);
  set_function(L, on_exit_index, FUNCTION);
  lua_handle_pin(L, &p->handle, -1);
  int rc = world_spawn(world, &options, &events, p, &p->process);
  if (rc < 0) return open_failed(L, &p->handle, lua_pushfstring(L, "spawn %s", options.argv[0]), rc);
  return 1;
}

/* process:stream(fd) -> stream, once each; nil when there is none. Attach or close it. */
static int l_process_stream(lua_State *L) {
  struct process *p = lua_handle_check(L, 1, &process_type, true);
  lua_Integer fd = luaL_checkinteger(L, 2);
  luaL_argcheck(L, fd >= 0 && fd <= 2, 2, "expected 0, 1 or 2");
  lua_handle_value(L, 1, 1);
  return lua_push_process_stream(L, -1, p->process, (int)fd);
}

static int l_process_pid(lua_State *L) {
  struct process *p = lua_handle_check(L, 1, &process_type, true);
  return lua_pushinteger(L, world_process_pid(p->process)), 1;
}

/* process:kill("TERM" | "KILL" | "INT" | number) -> true | nil, message, code */
static int l_process_kill(lua_State *L) {
  static const char *const names[] = {"TERM", "KILL", "INT", "HUP", "STOP", "CONT", "QUIT", NULL};
  static const int numbers[] = {SIGTERM, SIGKILL, SIGINT, SIGHUP, SIGSTOP, SIGCONT, SIGQUIT};
  struct process *p = lua_handle_check(L, 1, &process_type, true);
  int number = lua_isinteger(L, 2) ? (int)lua_tointeger(L, 2) : numbers[luaL_checkoption(L, 2, "TERM", names)];
  return error_or_true(L, "kill", world_process_kill(p->process, number));
}

static int l_process_close(lua_State *L) { return lua_handle_close(lua_handle_check(L, 1, &process_type, false)), 0; }

static const luaL_Reg process_methods[] = {{"stream", l_process_stream},
                                           {"pid", l_process_pid},
                                           {"kill", l_process_kill},
                                           {"close", l_process_close},
                                           {NULL, NULL}};

const luaL_Reg lua_world_thing_functions[] = {{"timer", l_timer}, {"udp", l_udp},     {"resolve", l_resolve},
                                              {"log", l_log},     {"spawn", l_spawn}, {NULL, NULL}};

void lua_world_things(lua_State *L) {
  lua_handle_type(L, &timer_type, timer_methods);
  lua_handle_type(L, &udp_type, udp_methods);
  lua_handle_type(L, &lookup_type, lookup_methods);
  lua_handle_type(L, &log_type, log_methods);
  lua_handle_type(L, &process_type, process_methods);
}
