/* The world in Lua: clock, chance, files, telemetry. world_classes.h lists the things that it can open. */
#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/address.h"
#include "lua/door.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"
#include "lua/modules.h"
#include "lua/world_classes.h"

#define WORLD_NAME "shoal.world"

struct lua_world {
  struct shoal_world *world; /* NULL once it is gone. */
};
static char worlds_key, current_key; /* The registry's keys: world pointer -> userdata; the current one. */
static lua_make_world_fn *make_world; /* Set once, by a constructor of the room above. */

struct shoal_world *lua_check_world(lua_State *L, int index) {
  struct lua_world *w = luaL_checkudata(L, index, WORLD_NAME);
  if (!w->world) luaL_argerror(L, index, "this world has ended");
  return w->world;
}

static void push_worlds(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &worlds_key) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &worlds_key);
}

static void make_classes(lua_State *L); /* Below, next to the methods. */

void lua_push_world(lua_State *L, struct shoal_world *world) {
  make_classes(L);
  push_worlds(L);
  if (lua_rawgetp(L, -1, world) == LUA_TNIL) {
    lua_pop(L, 1);
    struct lua_world *w = lua_newuserdatauv(L, sizeof *w, 0);
    w->world = world;
    luaL_setmetatable(L, WORLD_NAME);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, -3, world);
  }
  lua_remove(L, -2);
}

void lua_forget_world(lua_State *L, struct shoal_world *world) {
  push_worlds(L);
  if (lua_rawgetp(L, -1, world) == LUA_TUSERDATA) ((struct lua_world *)lua_touserdata(L, -1))->world = NULL;
  lua_pushnil(L);
  lua_rawsetp(L, -3, world);
  lua_pop(L, 2);
}

void lua_set_current_world(lua_State *L, struct shoal_world *world) {
  lua_push_world(L, world);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &current_key);
}

void lua_on_missing_world(lua_make_world_fn *make) { make_world = make; }

/* ---- clock and chance ---- */

static int l_now_ns(lua_State *L) { return lua_pushinteger(L, (lua_Integer)world_now_ns(lua_check_world(L, 1))), 1; }
static int l_fresh_ns(lua_State *L) { return lua_pushinteger(L, (lua_Integer)world_fresh_ns(lua_check_world(L, 1))), 1; }
static int l_wall_ns(lua_State *L) { return lua_pushinteger(L, (lua_Integer)world_wall_ns(lua_check_world(L, 1))), 1; }
static int l_seed(lua_State *L) { return lua_pushinteger(L, (lua_Integer)world_seed(lua_check_world(L, 1))), 1; }
static int l_simulated(lua_State *L) { return lua_pushboolean(L, world_is_simulated(lua_check_world(L, 1))), 1; }

/* 64 bits, or with n one of 1..n, evenly. */
static int l_random(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  if (lua_isnoneornil(L, 2)) return lua_pushinteger(L, (lua_Integer)world_random(world)), 1;
  lua_Integer n = luaL_checkinteger(L, 2);
  luaL_argcheck(L, n >= 1, 2, "expected 1 or more");
  uint64_t bound = (uint64_t)n, threshold = (0 - bound) % bound, x;
  do x = world_random(world);
  while (x < threshold);
  lua_pushinteger(L, (lua_Integer)(x % bound + 1));
  return 1;
}

static int l_unit(lua_State *L) {
  lua_pushnumber(L, (double)(world_random(lua_check_world(L, 1)) >> 11) * 0x1.0p-53);
  return 1;
}

/* ---- addresses ---- */

bool lua_check_address(lua_State *L, int index, const char *what, struct shoal_address *out) {
  size_t length;
  const char *text = luaL_checklstring(L, index, &length);
  if (address_parse(text, length, out) == 0) return true;
  lua_pushnil(L);
  lua_pushfstring(L, "%s: '%s' is not an address such as 10.0.0.1:7000 or [::1]:7000", what, text);
  lua_pushstring(L, error_name(ERR_MALFORMED));
  return false;
}

void lua_push_address(lua_State *L, const struct shoal_address *address) {
  char text[ADDRESS_TEXT_MAX];
  lua_pushlstring(L, text, address_format(address, text));
}

/* ---- files ---- */

static int push_file_error(lua_State *L, const char *verb, const char *path, int code) {
  lua_pushnil(L);
  lua_pushfstring(L, "%s %s: %s", verb, path, error_text(code));
  lua_pushstring(L, error_name(code));
  return 3;
}

static int file_result(lua_State *L, const char *verb, const char *path, int code) {
  if (code < 0) return push_file_error(L, verb, path, code);
  lua_pushboolean(L, 1);
  return 1;
}

static int free_later(lua_State *L) {
  void **box = lua_touserdata(L, 1);
  free(*box);
  *box = NULL;
  return 0;
}

/* Push a slot that frees its pointer, also when something raises. */
static void **new_slot(lua_State *L) {
  void **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, free_later);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  return box;
}

static int l_read_file(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *path = luaL_checkstring(L, 2);
  void **slot = new_slot(L);
  uint8_t *bytes = NULL;
  size_t length = 0;
  int rc = world_read_file(world, path, &bytes, &length);
  if (rc < 0) return push_file_error(L, "read", path, rc);
  *slot = bytes;
  lua_pushlstring(L, (const char *)bytes, length);
  free(bytes);
  *slot = NULL;
  return 1;
}

static int l_put_durable(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *path = luaL_checkstring(L, 2);
  size_t length;
  const char *bytes = luaL_checklstring(L, 3, &length);
  return file_result(L, "write", path, world_put_durable(world, path, bytes, length));
}

/* world:stat(path) -> { size =, modified_ns =, directory = } | nil, message, code */
static int l_stat(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *path = luaL_checkstring(L, 2);
  struct world_stat about;
  int rc = world_stat(world, path, &about);
  if (rc < 0) return push_file_error(L, "stat", path, rc);
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, (lua_Integer)about.size);
  lua_setfield(L, -2, "size");
  lua_pushinteger(L, (lua_Integer)about.modified_ns);
  lua_setfield(L, -2, "modified_ns");
  lua_pushboolean(L, about.directory);
  lua_setfield(L, -2, "directory");
  return 1;
}

static int l_rename(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *from = luaL_checkstring(L, 2), *to = luaL_checkstring(L, 3);
  return file_result(L, "rename", from, world_rename(world, from, to));
}

static int l_unlink(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *path = luaL_checkstring(L, 2);
  return file_result(L, "remove", path, world_unlink(world, path));
}

/* world:make_private(path): a new folder, for our user alone. */
static int l_make_private(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *path = luaL_checkstring(L, 2);
  return file_result(L, "make directory", path, world_make_private(world, path));
}

/* world:check_private(path): still as it was made. */
static int l_check_private(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *path = luaL_checkstring(L, 2);
  return file_result(L, "check directory", path, world_check_private(world, path));
}

/* world:remove_directory(path): an empty one. */
static int l_remove_directory(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *path = luaL_checkstring(L, 2);
  return file_result(L, "remove directory", path, world_remove_directory(world, path));
}

static int l_make_directory(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *path = luaL_checkstring(L, 2);
  return file_result(L, "make directory", path, world_make_directory(world, path));
}

/* Names are collected in C, for a Lua error must not jump across the world. */
struct names {
  char *bytes; /* Each name with its zero byte. */
  size_t length, room;
  bool full;
};

static void on_name(void *data, const char *name) {
  struct names *names = data;
  size_t length = strlen(name) + 1;
  if (names->full) return;
  if (names->length + length > names->room) {
    size_t room = (names->room + length) * 2;
    char *grown = realloc(names->bytes, room);
    if (!grown) {
      names->full = true;
      return;
    }
    names->bytes = grown;
    names->room = room;
  }
  memcpy(names->bytes + names->length, name, length);
  names->length += length;
}

static int l_list(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  const char *path = luaL_checkstring(L, 2);
  void **slot = new_slot(L);
  struct names names = {0};
  int rc = world_list(world, path, on_name, &names);
  *slot = names.bytes;
  if (rc >= 0 && names.full) rc = ERR_MEMORY;
  if (rc < 0) return push_file_error(L, "list", path, rc);
  lua_newtable(L);
  lua_Integer i = 0;
  for (size_t at = 0; at < names.length; at += strlen(names.bytes + at) + 1) {
    lua_pushstring(L, names.bytes + at);
    lua_rawseti(L, -2, ++i);
  }
  return 1;
}

/* ---- telemetry ---- */

static int l_telemetry(lua_State *L) {
  struct world_telemetry t;
  world_telemetry(lua_check_world(L, 1), &t);
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, (lua_Integer)t.cpu_ns);
  lua_setfield(L, -2, "cpu_ns");
  lua_pushinteger(L, (lua_Integer)t.resident_bytes);
  lua_setfield(L, -2, "resident_bytes");
  lua_pushinteger(L, (lua_Integer)t.open_handles);
  lua_setfield(L, -2, "open_handles");
  return 1;
}

static const luaL_Reg own[] = {
    {"now_ns", l_now_ns}, {"fresh_ns", l_fresh_ns}, {"wall_ns", l_wall_ns},
    {"random", l_random}, {"unit", l_unit}, {"seed", l_seed}, {"simulated", l_simulated},
    {"read_file", l_read_file}, {"put_durable", l_put_durable}, {"stat", l_stat}, {"rename", l_rename}, {"unlink", l_unlink},
    {"make_directory", l_make_directory}, {"make_private", l_make_private}, {"check_private", l_check_private},
    {"remove_directory", l_remove_directory}, {"list", l_list}, {"telemetry", l_telemetry},
    {NULL, NULL}};

/* ---- the module ---- */

static void make_classes(lua_State *L) {
  if (!luaL_newmetatable(L, WORLD_NAME)) {
    lua_pop(L, 1);
    return;
  }
  lua_newtable(L);
  luaL_setfuncs(L, own, 0);
  lua_world_stream(L);
  lua_world_timer(L);
  lua_world_udp(L);
  lua_world_lookup(L);
  lua_world_log(L);
  lua_world_put(L);
  lua_world_process(L);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "world");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
}

/* current() -> world: this node's; in stock lua5.4 one on luv's loop, made on first use. */
static int l_current(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &current_key) == LUA_TUSERDATA) return 1;
  if (!make_world) return luaL_error(L, "this state has no world");
  lua_set_current_world(L, make_world(L));
  lua_rawgetp(L, LUA_REGISTRYINDEX, &current_key);
  return 1;
}

static const luaL_Reg functions[] = {{"current", l_current}, {NULL, NULL}};

int luaopen_shoal_core_world(lua_State *L) {
  make_classes(L);
  luaL_newlib(L, functions);
  return 1;
}
