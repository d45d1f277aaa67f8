#include "lua/door.h"

#include <lauxlib.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "lua/modules.h"

enum { LINE_MAX_BYTES = 4096 };

/* One per Lua state, a userdata in the registry. */
struct door {
  uint64_t incidents; /* Incidents that C reported by itself. */
  bool reporting;     /* The sink is running. If it fails, we report that by ourselves. */
  door_line_fn *write;
  void *data;
};
static char door_key, sink_key; /* Their addresses are the registry's keys. */

lua_State *door_main(lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State *main_thread = lua_tothread(L, -1);
  lua_pop(L, 1);
  return main_thread;
}

/* NULL until it is made. A look-up never allocates, for it happens outside of protection. */
static struct door *find(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &door_key);
  struct door *door = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return door;
}

static struct door *check(lua_State *L) {
  struct door *door = find(L);
  if (door) return door;
  door = lua_newuserdatauv(L, sizeof *door, 0);
  memset(door, 0, sizeof *door);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &door_key);
  return door;
}

/* ---- the fallback: one line, no allocation, no Lua ---- */

static void fallback(lua_State *L, const char *site, const char *message) {
  struct door *door = find(L);
  char line[LINE_MAX_BYTES];
  int length = snprintf(line, sizeof line, "shoal: incident at %s: %s", site, message);
  if (length < 0) length = 0;
  for (char *c = line; *c; c++) /* Keep it one line. */
    if (*c == '\n') *c = '|';
  if (door) door->incidents++;
  if (door && door->write) {
    door->write(door->data, line);
  } else {
    (void)fprintf(stderr, "%s\n", line); /* The last resort: nowhere is left to report to. */
  }
}

/* ---- reporting ---- */

/* [error] -> [error, traceback]. Runs where the error was raised. An error is any value, and is kept as it is; a table carries
 * both out of the protected call. */
static int on_error(lua_State *L) {
  lua_createtable(L, 2, 0);
  lua_insert(L, 1);
  lua_rawseti(L, 1, 1);
  lua_rawgeti(L, 1, 1);
  const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
  bool yielded = text && strstr(text, "attempt to yield");
  luaL_traceback(L, L, yielded ? "this runs to its end and cannot wait: spawn a task for that" : NULL, 1);
  lua_rawseti(L, 1, 2);
  lua_settop(L, 1);
  return 1;
}

struct report {
  const char *site, *message;
};

/* lightuserdata report, error or box -> calls the sink; false when there is none. */
static int call_sink(lua_State *L) {
  const struct report *r = lua_touserdata(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &sink_key) != LUA_TFUNCTION) {
    lua_pushboolean(L, 0);
    return 1;
  }
  lua_pushstring(L, r->site);
  if (r->message) {
    lua_pushstring(L, r->message);
    lua_pushnil(L);
  } else if (lua_istable(L, 2)) {
    lua_rawgeti(L, 2, 1);
    lua_rawgeti(L, 2, 2);
  } else { /* Out of memory, or the handler failed: only the message is there. */
    lua_pushvalue(L, 2);
    lua_pushnil(L);
  }
  lua_call(L, 3, 0);
  lua_pushboolean(L, 1);
  return 1;
}

/* lightuserdata report, error or box -> its text, for the fallback. */
static int describe(lua_State *L) {
  if (lua_istable(L, 2)) {
    lua_rawgeti(L, 2, 1);
    const char *text = luaL_tolstring(L, -1, NULL);
    lua_rawgeti(L, 2, 2);
    const char *trace = lua_tostring(L, -1);
    lua_pushfstring(L, "%s\n%s", text, trace ? trace : "");
  } else {
    luaL_tolstring(L, 2, NULL);
  }
  return 1;
}

/* Pops the error (or box) on the top of the stack, unless r->message stands for it. */
static void report(lua_State *L, struct report *r) {
  int base = lua_gettop(L) - (r->message ? 0 : 1);
  struct door *door = find(L);
  bool told = false;
  const char *text = r->message;
  if (!lua_checkstack(L, 12)) {
    fallback(L, r->site, text ? text : "an error, and no stack left to tell of it");
    lua_settop(L, base);
    return;
  }
  if (r->message) lua_pushnil(L);
  if (!door || !door->reporting) {
    if (door) door->reporting = true;
    lua_pushcfunction(L, call_sink);
    lua_pushlightuserdata(L, r);
    lua_pushvalue(L, base + 1);
    if (lua_pcall(L, 2, 1, 0) == LUA_OK) {
      told = lua_toboolean(L, -1);
    } else {
      const char *why = lua_tostring(L, -1);
      fallback(L, "door.sink", why ? why : "the sink failed");
    }
    if (door) door->reporting = false;
  }
  if (!told) {
    if (!text) {
      lua_pushcfunction(L, describe);
      lua_pushlightuserdata(L, r);
      lua_pushvalue(L, base + 1);
      if (lua_pcall(L, 2, 1, 0) == LUA_OK) text = lua_tostring(L, -1);
      else text = "an error that cannot be put into words";
    }
    fallback(L, r->site, text ? text : "an error without words");
  }
  lua_settop(L, base);
}

void door_report(lua_State *L, const char *site, const char *message) {
  struct report r = {site, message};
  report(L, &r);
}

/* ---- the calls ---- */

struct call {
  door_push_fn *push;
  door_take_fn *take;
  void *data;
  int results;
};

static int run(lua_State *L) {
  struct call *c = lua_touserdata(L, 1);
  lua_settop(L, 0);
  int arguments = c->push(L, c->data);
  lua_call(L, arguments, c->results);
  if (c->take) c->take(L, c->data);
  return 0;
}

bool door_call(lua_State *L, const char *site, door_push_fn *push, int results, door_take_fn *take, void *data) {
  struct call c = {push, take, data, results};
  if (!lua_checkstack(L, 8)) {
    fallback(L, site, "no stack left to call Lua");
    return false;
  }
  lua_pushcfunction(L, on_error); /* Neither push allocates. */
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, &c);
  bool ok = lua_pcall(L, 1, 0, -3) == LUA_OK;
  if (!ok) {
    struct report r = {site, NULL};
    report(L, &r);
  }
  lua_pop(L, 1);
  return ok;
}

int door_call_stacked(lua_State *L, const char *site, int arguments, int results) {
  int base = lua_gettop(L) - arguments - 1;
  if (!lua_checkstack(L, 8)) {
    fallback(L, site, "no stack left to call Lua");
    lua_settop(L, base);
    return -1;
  }
  lua_pushcfunction(L, on_error);
  lua_insert(L, base + 1);
  if (lua_pcall(L, arguments, results, base + 1) != LUA_OK) {
    struct report r = {site, NULL};
    report(L, &r);
    lua_settop(L, base);
    return -1;
  }
  lua_remove(L, base + 1);
  return lua_gettop(L) - base;
}

void door_set_lines(lua_State *L, door_line_fn *write, void *data) {
  struct door *door = check(L);
  door->write = write;
  door->data = data;
}

/* ---- the face ---- */

static int l_sink(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &sink_key);
  return 0;
}

static int l_incidents(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)check(L)->incidents);
  return 1;
}

static const luaL_Reg functions[] = {{"sink", l_sink}, {"incidents", l_incidents}, {NULL, NULL}};

int luaopen_shoal_core_door(lua_State *L) {
  (void)check(L); /* Made now, so that no incident stays uncounted when memory runs out. */
  luaL_newlib(L, functions);
  return 1;
}
