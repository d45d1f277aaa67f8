/* Replaces Lua's own clock and chance in a node's state; in a simulated node also iteration order and access to the outside. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/host.h"
#include "lua/lua_world.h"
#include "world/world.h"

#define WORLD lua_check_world(L, lua_upvalueindex(1)) /* The first upvalue of every closure below. */

/* ---- time and chance ---- */

/* As math.random: () a float in [0,1), (0) 64 bits, (n) 1..n, (m, n) m..n. */
static int l_random(lua_State *L) {
  struct shoal_world *world = WORLD;
  lua_Integer low = 1, high;
  switch (lua_gettop(L)) {
    case 0:
      lua_pushnumber(L, (double)(world_random(world) >> 11) * 0x1.0p-53);
      return 1;
    case 1:
      high = luaL_checkinteger(L, 1);
      if (high == 0) return lua_pushinteger(L, (lua_Integer)world_random(world)), 1;
      break;
    case 2:
      low = luaL_checkinteger(L, 1);
      high = luaL_checkinteger(L, 2);
      break;
    default:
      return luaL_error(L, "wrong number of arguments");
  }
  luaL_argcheck(L, low <= high, lua_gettop(L), "interval is empty");
  uint64_t span = (uint64_t)high - (uint64_t)low + 1, x = world_random(world);
  if (span != 0) {
    uint64_t threshold = (0 - span) % span;
    while (x < threshold) x = world_random(world);
    x %= span;
  }
  lua_pushinteger(L, (lua_Integer)((uint64_t)low + x));
  return 1;
}

static int l_randomseed(lua_State *L) {
  return luaL_error(L, "math.randomseed: chance is the world's, and its seed is the run's (world:seed())");
}

/* Not the time of the loop's turn, for scripts measure durations with it. */
static int l_clock(lua_State *L) { return lua_pushnumber(L, (double)world_fresh_ns(WORLD) * 1e-9), 1; }

static lua_Integer wall_s(struct shoal_world *world) { return (lua_Integer)(world_wall_ns(world) / 1000000000); }

/* Upvalue 2: Lua's own, for calls that only compute with a given time. */
static int l_time(lua_State *L) {
  if (lua_isnoneornil(L, 1)) return lua_pushinteger(L, wall_s(WORLD)), 1;
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  return 1;
}

/* Upvalue 2: Lua's own; 3: true to use UTC, so that a run is the same anywhere. */
static int l_date(lua_State *L) {
  const char *format = luaL_optstring(L, 1, "%c");
  lua_Integer at_s = lua_isnoneornil(L, 2) ? wall_s(WORLD) : luaL_checkinteger(L, 2);
  lua_pushvalue(L, lua_upvalueindex(2));
  if (lua_toboolean(L, lua_upvalueindex(3)) && *format != '!') lua_pushfstring(L, "!%s", format);
  else lua_pushstring(L, format);
  lua_pushinteger(L, at_s);
  lua_call(L, 2, 1);
  return 1;
}

/* ---- order ---- */

static char ids_key; /* The registry's weak table: object -> its number, in the order of first use. */

static lua_Integer object_id(lua_State *L, int index) {
  index = lua_absindex(L, index);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &ids_key) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &ids_key);
  }
  lua_pushvalue(L, index);
  if (lua_rawget(L, -2) == LUA_TNIL) {
    lua_rawgeti(L, -2, 1); /* Numbers are no objects, so key 1 is free for the last id. */
    lua_Integer id = lua_tointeger(L, -1) + 1;
    lua_pushinteger(L, id);
    lua_rawseti(L, -4, 1);
    lua_pushvalue(L, index);
    lua_pushinteger(L, id);
    lua_rawset(L, -5);
    lua_pop(L, 3);
    return id;
  }
  lua_Integer id = lua_tointeger(L, -1);
  lua_pop(L, 2);
  return id;
}

struct key {
  int rank; /* Numbers, strings, booleans, the rest. */
  bool integer;
  double number;
  lua_Integer whole;
  const char *text;
  size_t length;
  int index; /* In the array of keys. */
};

static int compare(const void *left, const void *right) {
  const struct key *a = left, *b = right;
  if (a->rank != b->rank) return a->rank < b->rank ? -1 : 1;
  if (a->rank == 1) {
    size_t shorter = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->text, b->text, shorter);
    if (order) return order;
    return a->length < b->length ? -1 : a->length > b->length;
  }
  if (a->integer && b->integer) return a->whole < b->whole ? -1 : a->whole > b->whole;
  if (a->number != b->number) return a->number < b->number ? -1 : 1;
  return a->whole < b->whole ? -1 : a->whole > b->whole;
}

static struct key describe_key(lua_State *L, int index) {
  struct key k = {.index = 0};
  switch (lua_type(L, index)) {
    case LUA_TNUMBER:
      k.integer = lua_isinteger(L, index);
      if (k.integer) k.whole = lua_tointeger(L, index);
      k.number = lua_tonumber(L, index);
      break;
    case LUA_TSTRING:
      k.rank = 1;
      k.text = lua_tolstring(L, index, &k.length);
      break;
    case LUA_TBOOLEAN:
      k.rank = 2;
      k.integer = true;
      k.whole = lua_toboolean(L, index);
      break;
    default:
      k.rank = 3;
      k.integer = true;
      k.whole = object_id(L, index);
  }
  return k;
}

/* The keys of the table at `index`, sorted, as an array on top of the stack. Returns how many. */
static size_t push_sorted_keys(lua_State *L, int index) {
  size_t count = 0, room = 0;
  lua_newtable(L);
  int keys = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    lua_pushvalue(L, -2);
    lua_rawseti(L, keys, (lua_Integer)++count);
  }
  room = count ? count : 1;
  struct key *order = lua_newuserdatauv(L, room * sizeof *order, 0);
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, keys, (lua_Integer)i + 1);
    order[i] = describe_key(L, -1);
    order[i].index = (int)i + 1;
    lua_pop(L, 1); /* The array keeps its text alive. */
  }
  qsort(order, count, sizeof *order, compare);
  lua_createtable(L, (int)count, 0);
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, keys, order[i].index);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_replace(L, keys);
  lua_settop(L, keys);
  return count;
}

/* Upvalues: keys, their count, the position. A key whose value was removed meanwhile is skipped, as Lua's own `next` does. */
static int l_walk(lua_State *L) {
  lua_Integer count = lua_tointeger(L, lua_upvalueindex(2)), at = lua_tointeger(L, lua_upvalueindex(3));
  while (at < count) {
    lua_rawgeti(L, lua_upvalueindex(1), ++at);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, 1) != LUA_TNIL) {
      lua_pushinteger(L, at);
      lua_replace(L, lua_upvalueindex(3));
      return 2;
    }
    lua_pop(L, 2);
  }
  lua_pushinteger(L, at);
  lua_replace(L, lua_upvalueindex(3));
  lua_pushnil(L);
  return 1;
}

static int l_pairs(lua_State *L) {
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  if (luaL_getmetafield(L, 1, "__pairs") != LUA_TNIL) {
    lua_pushvalue(L, 1);
    lua_call(L, 1, 3);
    return 3;
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  size_t count = push_sorted_keys(L, 1);
  lua_pushinteger(L, (lua_Integer)count);
  lua_pushinteger(L, 0);
  lua_pushcclosure(L, l_walk, 3);
  lua_pushvalue(L, 1);
  lua_pushnil(L);
  return 3;
}

/* The least key above the given one. O(n) a call: walk with `pairs`. */
static int l_next(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 2);
  bool first = lua_isnil(L, 2);
  struct key after = {0}, best = {0};
  if (!first) after = describe_key(L, 2);
  lua_pushnil(L); /* 3: the best key so far. */
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    struct key k = describe_key(L, -2);
    if (!first && compare(&k, &after) <= 0) continue;
    if (!lua_isnil(L, 3) && compare(&k, &best) >= 0) continue;
    best = k;
    lua_pushvalue(L, -2);
    lua_replace(L, 3);
  }
  lua_settop(L, 3);
  if (lua_isnil(L, 3)) return 1;
  lua_pushvalue(L, 3);
  lua_rawget(L, 1);
  return 2;
}

/* Without addresses, which differ from run to run. */
static int l_tostring(lua_State *L) {
  luaL_checkany(L, 1);
  int type = lua_type(L, 1);
  bool object = type == LUA_TTABLE || type == LUA_TFUNCTION || type == LUA_TTHREAD || type == LUA_TUSERDATA;
  if (!object || luaL_getmetafield(L, 1, "__tostring") != LUA_TNIL) {
    luaL_tolstring(L, 1, NULL);
    return 1;
  }
  const char *name = luaL_getmetafield(L, 1, "__name") == LUA_TSTRING ? lua_tostring(L, -1) : luaL_typename(L, 1);
  lua_pushfstring(L, "%s: #%I", name, (LUAI_UACINT)object_id(L, 1));
  return 1;
}

/* ---- access to the outside ---- */

struct way {
  const char *name, *instead;
};

static int l_barred(lua_State *L) {
  return luaL_error(L, "%s: not in a simulated node; %s", lua_tostring(L, lua_upvalueindex(1)),
                    lua_tostring(L, lua_upvalueindex(2)));
}

/* Upvalue 1: the table's name. */
static int l_barred_field(lua_State *L) {
  return luaL_error(L, "%s.%s: not in a simulated node; files are world:read_file, world:put_durable, world:log, and output "
                       "is shoal.log", lua_tostring(L, lua_upvalueindex(1)), luaL_tolstring(L, 2, NULL));
}

static void push_barred(lua_State *L, const char *name, const char *instead) {
  lua_pushstring(L, name);
  lua_pushstring(L, instead);
  lua_pushcclosure(L, l_barred, 2);
}

static void bar(lua_State *L) {
  static const struct way ways[] = {
      {"execute", "spawn with world:spawn"},         {"exit", "end the node with shoal.core.node.exit"},
      {"getenv", "pass settings as arguments"},      {"remove", "unlink with world:unlink"},
      {"rename", "rename with world:rename"},        {"tmpname", "name files in the node's own directory"},
      {"setlocale", "the locale is the C one"}};
  lua_getglobal(L, "os");
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    lua_pushfstring(L, "os.%s", ways[i].name);
    push_barred(L, lua_tostring(L, -1), ways[i].instead);
    lua_setfield(L, -3, ways[i].name);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  lua_newtable(L); /* io */
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "io");
  lua_pushcclosure(L, l_barred_field, 1);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_setglobal(L, "io");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_insert(L, -2);
  lua_setfield(L, -2, "io");
  lua_pop(L, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  push_barred(L, "require \"luv\"",
              "ask the world (shoal.core.world): timer, connect, listen, udp, resolve, spawn, read_file, log");
  lua_setfield(L, -2, "luv");
  lua_pop(L, 1);
}

/* loadfile(path, mode, env) and dofile(path) from the node's own disk. */
static int load_from_disk(lua_State *L, const char *path, const char *mode) {
  uint8_t *bytes = NULL;
  size_t length = 0;
  const char *name = lua_pushfstring(L, "@%s", path);
  int rc = world_read_file(WORLD, path, &bytes, &length);
  if (rc < 0) {
    lua_pushnil(L);
    lua_pushfstring(L, "cannot open %s: %s", path, error_text(rc));
    return LUA_ERRFILE;
  }
  rc = luaL_loadbufferx(L, (const char *)bytes, length, name, mode);
  free(bytes); /* Loading is protected: nothing raises between. */
  if (rc == LUA_OK) return LUA_OK;
  lua_pushnil(L);
  lua_insert(L, -2);
  return rc;
}

static int l_loadfile(lua_State *L) {
  const char *path = luaL_checkstring(L, 1), *mode = luaL_optstring(L, 2, NULL);
  bool environment = !lua_isnone(L, 3);
  if (load_from_disk(L, path, mode) != LUA_OK) return 2;
  if (environment) {
    lua_pushvalue(L, 3);
    if (!lua_setupvalue(L, -2, 1)) lua_pop(L, 1);
  }
  return 1;
}

static int l_dofile(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  if (load_from_disk(L, path, NULL) != LUA_OK) return lua_error(L);
  int base = lua_gettop(L) - 1;
  lua_call(L, 0, LUA_MULTRET);
  return lua_gettop(L) - base;
}

/* ---- the whole ---- */

static void set_closure(lua_State *L, int world, const char *name, lua_CFunction function) {
  lua_pushvalue(L, world);
  lua_pushcclosure(L, function, 1);
  lua_setfield(L, -2, name);
}

void host_sandbox(lua_State *L, int simulated) {
  luaL_requiref(L, "shoal.core.world", luaopen_shoal_core_world, 0);
  lua_getfield(L, -1, "current");
  lua_call(L, 0, 1);
  int world = lua_gettop(L);
  lua_getglobal(L, "math");
  set_closure(L, world, "random", l_random);
  lua_pushcfunction(L, l_randomseed);
  lua_setfield(L, -2, "randomseed");
  lua_pop(L, 1);
  lua_getglobal(L, "os");
  set_closure(L, world, "clock", l_clock);
  lua_pushvalue(L, world);
  lua_getfield(L, -2, "time");
  lua_pushcclosure(L, l_time, 2);
  lua_setfield(L, -2, "time");
  lua_pushvalue(L, world);
  lua_getfield(L, -2, "date");
  lua_pushboolean(L, simulated);
  lua_pushcclosure(L, l_date, 3);
  lua_setfield(L, -2, "date");
  lua_pop(L, 1);
  if (simulated) {
    bar(L);
    lua_pushglobaltable(L);
    lua_pushcfunction(L, l_pairs);
    lua_setfield(L, -2, "pairs");
    lua_pushcfunction(L, l_next);
    lua_setfield(L, -2, "next");
    lua_pushcfunction(L, l_tostring);
    lua_setfield(L, -2, "tostring");
    set_closure(L, world, "loadfile", l_loadfile);
    set_closure(L, world, "dofile", l_dofile);
    lua_pop(L, 1);
  }
  lua_pop(L, 2);
}
