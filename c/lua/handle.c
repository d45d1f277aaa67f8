#include "lua/handle.h"

#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua/door.h"
#include "lua/lua_world.h"

/* One per state: the ring of open handles. */
struct list {
  struct lua_handle head;
  uint64_t made;
};
static char list_key;

static struct list *find_list(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &list_key);
  struct list *list = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return list;
}

static struct list *check_list(lua_State *L) {
  struct list *list = find_list(L);
  if (list) return list;
  list = lua_newuserdatauv(L, sizeof *list, 0);
  memset(list, 0, sizeof *list);
  list->head.next = list->head.previous = &list->head;
  lua_rawsetp(L, LUA_REGISTRYINDEX, &list_key);
  return list;
}

static void unlink_handle(struct lua_handle *h) {
  if (!h->next) return;
  h->next->previous = h->previous;
  h->previous->next = h->next;
  h->next = h->previous = NULL;
}

/* ---- the metatable ---- */

static const char *short_name(const struct lua_handle_type *type) {
  const char *dot = strrchr(type->name, '.');
  return dot ? dot + 1 : type->name;
}

static void describe(const struct lua_handle *h, char *out, size_t size) {
  (void)snprintf(out, size, "%s#%llu (%s)", short_name(h->type), (unsigned long long)h->number,
                 h->closing ? (h->open ? "closing" : "closed") : h->open ? "open" : "not open");
}

static int l_tostring(lua_State *L) {
  struct lua_handle **box = lua_touserdata(L, 1);
  char text[96];
  if (!box || !*box) return lua_pushliteral(L, "a handle of a closed state"), 1;
  describe(*box, text, sizeof text);
  lua_pushstring(L, text);
  return 1;
}

/* The handle is closed, or it leaked and the whole state is being closed: report that. The world still holds the struct of a
 * leaked one, so only its closed event may free it. */
static int l_gc(lua_State *L) {
  struct lua_handle **box = lua_touserdata(L, 1), *h = *box;
  *box = NULL;
  if (!h) return 0;
  unlink_handle(h);
  h->L = NULL;
  if (!h->open) {
    free(h);
    return 0;
  }
  if (!h->closing) {
    char text[96], message[160];
    describe(h, text, sizeof text);
    (void)snprintf(message, sizeof message, "%s was never closed", text);
    door_report(L, "handle.leaked", message);
    h->closing = true;
    h->type->close(h); /* May call lua_handle_closed at once, which frees it. */
  }
  return 0;
}

static int l_close(lua_State *L) {
  struct lua_handle **box = lua_touserdata(L, 1);
  if (box && *box) lua_handle_close(*box);
  return 0;
}

void lua_handle_type(lua_State *L, const struct lua_handle_type *type, const luaL_Reg *methods) {
  static const luaL_Reg meta[] = {{"__gc", l_gc}, {"__close", l_close}, {"__tostring", l_tostring}, {NULL, NULL}};
  if (luaL_newmetatable(L, type->name)) {
    luaL_setfuncs(L, meta, 0);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable"); /* Scripts cannot reach __gc. */
  }
  lua_pop(L, 1);
}

/* ---- a handle's life ---- */

void *lua_handle_new(lua_State *L, const struct lua_handle_type *type, int world_index, size_t size, int values) {
  assert(size >= sizeof(struct lua_handle));
  struct shoal_world *world = lua_check_world(L, world_index);
  world_index = lua_absindex(L, world_index);
  struct list *list = check_list(L);
  struct lua_handle **box = lua_newuserdatauv(L, sizeof *box, values + 1);
  *box = NULL;
  luaL_setmetatable(L, type->name);
  struct lua_handle *h = calloc(1, size);
  if (!h) luaL_error(L, "%s: out of memory", short_name(type));
  *box = h;
  h->type = type;
  h->L = door_main(L);
  h->world = world;
  h->number = ++list->made;
  lua_pushvalue(L, world_index);
  lua_setiuservalue(L, -2, 1);
  return h;
}

void lua_handle_pin(lua_State *L, struct lua_handle *h, int index) {
  assert(!h->open && !h->closing);
  struct list *list = check_list(L);
  lua_pushvalue(L, index);
  lua_rawsetp(L, LUA_REGISTRYINDEX, h);
  h->open = true;
  h->next = &list->head;
  h->previous = list->head.previous;
  h->previous->next = h->next->previous = h;
}

void lua_handle_unpin(struct lua_handle *h) {
  assert(h->open);
  h->open = false;
  h->closing = true;
  unlink_handle(h);
  if (!h->L) {
    free(h);
    return;
  }
  lua_pushnil(h->L); /* A key set to nil allocates nothing, so this cannot raise. */
  lua_rawsetp(h->L, LUA_REGISTRYINDEX, h);
}

void lua_handle_close(struct lua_handle *h) {
  if (h->closing) return;
  h->closing = true;
  if (h->open) h->type->close(h);
}

void lua_handle_closed(struct lua_handle *h) { lua_handle_unpin(h); }

void *lua_handle_check(lua_State *L, int index, const struct lua_handle_type *type, bool usable) {
  struct lua_handle **box = luaL_checkudata(L, index, type->name);
  if (!*box) luaL_argerror(L, index, "its state is closing");
  if (usable && (*box)->closing) luaL_argerror(L, index, lua_pushfstring(L, "this %s is closed", short_name(type)));
  return *box;
}

void lua_handle_push(lua_State *L, struct lua_handle *h) {
  int type = lua_rawgetp(L, LUA_REGISTRYINDEX, h);
  assert(type == LUA_TUSERDATA);
  (void)type; /* Only the assertion reads it. */
}

int lua_handle_value(lua_State *L, int index, int value) { return lua_getiuservalue(L, index, value); }

/* ---- all of them ---- */

void lua_handle_close_all(lua_State *L, struct shoal_world *world) {
  struct list *list = find_list(L);
  if (!list) return;
  bool again = true; /* A close may close others: restart after each. */
  while (again) {
    again = false;
    for (struct lua_handle *h = list->head.next; h != &list->head; h = h->next) {
      if (h->closing || (world && h->world != world)) continue;
      lua_handle_close(h);
      again = true;
      break;
    }
  }
}

void lua_handle_abandon_all(lua_State *L, struct shoal_world *world) {
  struct list *list = find_list(L);
  if (!list) return;
  bool again = true; /* One may own others, which are abandoned with it: restart after each. */
  while (again) {
    again = false;
    for (struct lua_handle *h = list->head.next; h != &list->head; h = h->next) {
      if (world && h->world != world) continue;
      h->closing = true;
      if (h->type->abandon) h->type->abandon(h);
      lua_handle_unpin(h);
      again = true;
      break;
    }
  }
}

size_t lua_handle_count(lua_State *L, struct shoal_world *world, void (*on_name)(void *data, const char *name), void *data) {
  struct list *list = find_list(L);
  size_t count = 0;
  for (struct lua_handle *h = list ? list->head.next : NULL; h && h != &list->head; h = h->next) {
    if (world && h->world != world) continue;
    char text[96];
    describe(h, text, sizeof text);
    if (on_name) on_name(data, text);
    count++;
  }
  return count;
}
