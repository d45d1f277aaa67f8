/* Puts off the loop, and locks, in Lua. */
#include "lua/world_classes.h"

#include <lauxlib.h>

#include "lua/event.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"

/* ---- puts: user value 2 is the function, 3 the bytes, which the world uses until it has closed the put ---- */

enum { BYTES = LUA_EVENT_FUNCTION + 1, PATH };

struct put {
  struct lua_handle handle;
  struct world_put *put;
};

static void close_put(struct lua_handle *h) { world_put_close(((struct put *)h)->put); }
static const struct lua_handle_type put_type = {"shoal.put", close_put, NULL};

static int push_done(lua_State *L, struct lua_event *e) {
  if (e->status >= 0) {
    lua_pop(L, 1);
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_handle_value(L, -1, PATH);
  lua_pushfstring(L, "write %s: %s", lua_tostring(L, -1), error_text(e->status));
  lua_replace(L, -3);
  lua_pop(L, 1);
  lua_pushnil(L);
  lua_insert(L, -2);
  lua_pushstring(L, error_name(e->status));
  return 3;
}

static void on_done(void *data, int status) {
  struct lua_event e = {.handle = data, .value = LUA_EVENT_FUNCTION, .push = push_done, .status = status};
  lua_event_fire("world.put.done", &e);
}

/* world:put_later(path, bytes, fn(true | nil, err, code)) -> true | nil, message, code */
static int l_put_later(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  size_t length;
  const char *path = luaL_checkstring(L, 2), *bytes = luaL_checklstring(L, 3, &length);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  struct put *p = lua_handle_new(L, &put_type, 1, sizeof *p, 3);
  lua_event_function(L, 4, LUA_EVENT_FUNCTION);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, -2, BYTES);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, -2, PATH);
  lua_handle_pin(L, &p->handle, -1);
  int rc = world_put_later(world, path, bytes, length, on_done, lua_event_closed, p, &p->put);
  if (rc < 0) return lua_event_refused(L, &p->handle, lua_pushfstring(L, "write %s", path), rc);
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- locks ---- */

struct lock {
  struct lua_handle handle;
  struct world_lock *lock;
};

static void close_lock(struct lua_handle *h) { world_lock_close(((struct lock *)h)->lock); }
static const struct lua_handle_type lock_type = {"shoal.lock", close_lock, NULL};

/* world:lock(path) -> lock | nil, message, code ("BUSY": the message names the holder's process id) */
static int l_lock(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *path = luaL_checkstring(L, 2);
  struct lock *l = lua_handle_new(L, &lock_type, 1, sizeof *l, 0);
  int holder = 0;
  lua_handle_pin(L, &l->handle, -1);
  int rc = world_lock(world, path, lua_event_closed, l, &holder, &l->lock);
  if (rc >= 0) return 1;
  const char *who = holder > 0 ? lua_pushfstring(L, "process %d", holder) : "another process";
  if (rc != ERR_BUSY) return lua_event_refused(L, &l->handle, lua_pushfstring(L, "lock %s", path), rc);
  lua_handle_unpin(&l->handle);
  lua_pushnil(L);
  lua_pushfstring(L, "lock %s: held by %s", path, who);
  lua_pushstring(L, error_name(rc));
  return 3;
}

/* lock:check() -> true | nil, message, code ("GONE": its file or folder was removed or replaced) */
static int l_lock_check(lua_State *L) {
  struct lock *l = lua_handle_check(L, 1, &lock_type, true);
  return error_or_true(L, "lock", world_lock_check(l->lock));
}

static int l_lock_close(lua_State *L) { return lua_handle_close(lua_handle_check(L, 1, &lock_type, false)), 0; }

void lua_world_put(lua_State *L) {
  static const luaL_Reg none[] = {{NULL, NULL}};
  static const luaL_Reg lock_methods[] = {{"check", l_lock_check}, {"close", l_lock_close}, {NULL, NULL}};
  lua_handle_type(L, &put_type, none);
  lua_handle_type(L, &lock_type, lock_methods);
  lua_pushcfunction(L, l_put_later);
  lua_setfield(L, -2, "put_later");
  lua_pushcfunction(L, l_lock);
  lua_setfield(L, -2, "lock");
}
