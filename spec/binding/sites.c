/* Runs a script of Lua in a state whose allocator fails on demand, and which can call through C's door at any site:
 *
 *   sites SCRIPT.lua [ARGS...]
 *
 * The script has `memory` and `door`:
 *   memory.fails_from(bytes)   an allocation of this size or more fails from now on
 *   memory.fails_after(n, m)   n allocations succeed, the next m fail (default: all)
 *   memory.heals() -> failed   none fails from now on; how many have failed since the last call
 *   door.call(site, fn) -> ok  door_call, as a callback from the world does it
 *   door.report(site, text)    door_report
 *   door.time(site, fn, count) -> ns   of one door_call */
#include <lauxlib.h>
#include <lualib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lua/door.h"
#include "lua/modules.h"

static size_t from = SIZE_MAX;
static long succeed = -1, fail = 0; /* succeed < 0: not counting. */
static long failed;
static int fn_key; /* Its address is the registry's key of the function that door.call calls. */

static void *allocate(void *data, void *old, size_t before, size_t after) {
  (void)data;
  if (after == 0) return free(old), NULL;
  if (!old || after > before) {
    if (after >= from) return failed++, NULL;
    if (succeed == 0 && fail > 0) return fail--, failed++, NULL;
    if (succeed > 0) succeed--;
  }
  return realloc(old, after);
}

static int l_fails_from(lua_State *L) {
  from = (size_t)luaL_checkinteger(L, 1);
  return 0;
}

static int l_fails_after(lua_State *L) {
  succeed = (long)luaL_checkinteger(L, 1);
  fail = (long)luaL_optinteger(L, 2, INT32_MAX);
  return 0;
}

static int l_heals(lua_State *L) {
  from = SIZE_MAX, succeed = -1, fail = 0;
  lua_pushinteger(L, failed);
  failed = 0;
  return 1;
}

static int push_fn(lua_State *L, void *data) {
  (void)data;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &fn_key);
  return 0;
}

static int l_call(lua_State *L) {
  const char *site = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushvalue(L, 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &fn_key);
  lua_pushboolean(L, door_call(L, site, push_fn, 0, NULL, NULL));
  return 1;
}

/* CPU time of one door_call of fn without an error, in ns: count of them, from C. */
static int l_time(lua_State *L) {
  const char *site = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_Integer count = luaL_checkinteger(L, 3);
  lua_pushvalue(L, 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &fn_key);
  struct timespec a, b;
  (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a); /* It cannot fail with this clock. */
  for (lua_Integer i = 0; i < count; i++) door_call(L, site, push_fn, 0, NULL, NULL);
  (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b); /* As above. */
  lua_pushnumber(L, ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / (double)count);
  return 1;
}

static int l_report(lua_State *L) {
  door_report(L, luaL_checkstring(L, 1), luaL_checkstring(L, 2));
  return 0;
}

static const luaL_Reg memory[] = {{"fails_from", l_fails_from}, {"fails_after", l_fails_after}, {"heals", l_heals}, {NULL, NULL}};
static const luaL_Reg door[] = {{"call", l_call}, {"report", l_report}, {"time", l_time}, {NULL, NULL}};

struct script {
  int argc;
  char **argv;
};

static int push_script(lua_State *L, void *data) {
  struct script *s = data;
  luaL_newlib(L, memory);
  lua_setglobal(L, "memory");
  luaL_newlib(L, door);
  lua_setglobal(L, "door");
  lua_newtable(L);
  for (int i = 1; i < s->argc; i++) {
    lua_pushstring(L, s->argv[i]);
    lua_rawseti(L, -2, i - 1);
  }
  lua_setglobal(L, "arg");
  lua_getglobal(L, "package");
  lua_pushliteral(L, "lua/?.lua;./?.lua");
  lua_setfield(L, -2, "path");
  lua_pop(L, 1);
  if (luaL_loadfile(L, s->argv[1]) != LUA_OK) lua_error(L);
  return 0;
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc < 2) return fprintf(stderr, "sites: expected a script\n"), 2;
  lua_State *L = lua_newstate(allocate, NULL);
  if (!L) return 1;
  luaL_openlibs(L);
  shoal_preload(L);
  bool ok = door_call(L, "spec.script", push_script, 0, NULL, &(struct script){argc, argv});
  lua_close(L);
  return ok ? 0 : 1;
}
