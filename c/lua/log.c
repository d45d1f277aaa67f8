/* Logs (files that only grow, synced on request) in Lua. */
#include "lua/world_classes.h"

#include <lauxlib.h>

#include "lua/event.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"

struct log {
  struct lua_handle handle;
  struct world_log *log;
};

static void close_log(struct lua_handle *h) { world_log_close(((struct log *)h)->log); }
static const struct lua_handle_type log_type = {"shoal.log", close_log, NULL};

static int push_synced(lua_State *L, struct lua_event *e) {
  lua_pop(L, 1);
  if (e->status < 0) {
    lua_pushnil(L);
    return 1 + lua_event_error(L, "sync", e->status);
  }
  lua_pushinteger(L, e->number);
  return 1;
}

static void on_synced(void *data, int status, uint64_t size) {
  struct lua_event e = {
      .handle = data, .value = LUA_EVENT_FUNCTION, .push = push_synced, .status = status, .number = (int64_t)size};
  lua_event_fire("world.log.synced", &e);
}

/* world:log(path, on_synced(size | nil, err, code)) -> log | nil, message, code */
static int l_log(lua_State *L) {
  static const struct world_log_events events = {on_synced, lua_event_closed};
  struct shoal_world *world = lua_check_world(L, 1);
  const char *path = luaL_checkstring(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  struct log *l = lua_handle_new(L, &log_type, 1, sizeof *l, 1);
  lua_event_function(L, 3, LUA_EVENT_FUNCTION);
  lua_handle_pin(L, &l->handle, -1);
  int rc = world_log_open(world, path, &events, l, &l->log);
  if (rc < 0) return lua_event_refused(L, &l->handle, lua_pushfstring(L, "open log %s", path), rc);
  return 1;
}

/* log:lock() -> true | nil, message, code ("BUSY": the message names the holder) */
static int l_log_lock(lua_State *L) {
  struct log *l = lua_handle_check(L, 1, &log_type, true);
  int holder = 0, rc = world_log_lock(l->log, &holder);
  if (rc != ERR_BUSY) return error_or_true(L, "lock", rc);
  lua_pushnil(L);
  if (holder > 0) lua_pushfstring(L, "process %d writes to it", holder);
  else lua_pushliteral(L, "another process writes to it");
  lua_pushstring(L, error_name(rc));
  return 3;
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

static const luaL_Reg log_methods[] = {{"lock", l_log_lock}, {"append", l_log_append},     {"sync", l_log_sync},   {"size", l_log_size},
                                       {"truncate", l_log_truncate}, {"close", l_log_close}, {NULL, NULL}};

void lua_world_log(lua_State *L) {
  lua_handle_type(L, &log_type, log_methods);
  lua_pushcfunction(L, l_log);
  lua_setfield(L, -2, "log");
}
