#include "host/chunks.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "host/bundle.h"

static int append(lua_State *L, const void *bytes, size_t length, void *data) {
  struct chunk *chunk = data;
  (void)L;
  if (chunk->length + length > chunk->room) {
    size_t room = (chunk->room + length) * 2;
    char *grown = realloc(chunk->bytes, room);
    if (!grown) return 1;
    chunk->bytes = grown;
    chunk->room = room;
  }
  memcpy(chunk->bytes + chunk->length, bytes, length);
  chunk->length += length;
  return 0;
}

static void free_chunk(struct chunk *chunk) {
  free(chunk->path);
  free(chunk->bytes);
  free(chunk);
}

/* Keep the function on top. Out of memory it is not kept, which does no harm. */
static void keep(lua_State *L, struct chunks *c, const char *path) {
  struct chunk *chunk = calloc(1, sizeof *chunk);
  if (!chunk) return;
  chunk->path = strdup(path);
  if (!chunk->path || lua_dump(L, append, chunk, 0) != 0) { /* Not stripped: tracebacks need the lines. */
    free_chunk(chunk);
    return;
  }
  chunk->next = c->first;
  c->first = chunk;
}

/* ---- package.searchers[2] ---- */

/* Is `home`/lua the first place where package.path looks? */
static bool looks_at_home_first(lua_State *L, const char *home) {
  size_t length = strlen(home);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "path");
  const char *path = lua_tostring(L, -1);
  bool first = path && strncmp(path, home, length) == 0 && strncmp(path + length, "/lua/?.lua;", 11) == 0;
  lua_pop(L, 2);
  return first;
}

/* A module that the program has compiled, if its source is still the same: pushes the path, and returns the entry. */
static const struct bundle_entry *find_bundled(lua_State *L, const char *name, const char *home) {
  const struct bundle_entry *e = bundle_find(name);
  if (!e || !looks_at_home_first(L, home)) return NULL;
  luaL_gsub(L, name, ".", "/");
  const char *path = lua_pushfstring(L, "%s/lua/%s.lua", home, lua_tostring(L, -1));
  lua_remove(L, -2);
  if (bundle_is_fresh(e, path)) return e;
  lua_pop(L, 1);
  return NULL;
}

/* Pushes the path; or the text of where it was looked for, and returns false. */
static bool search_path(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_pushvalue(L, 1);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "path");
  lua_remove(L, -2);
  lua_call(L, 2, 2);
  if (lua_isnil(L, -2)) return false;
  lua_pop(L, 1);
  return true;
}

static const struct chunk *kept(const struct chunks *c, const char *path) {
  const struct chunk *chunk = c ? c->first : NULL;
  while (chunk && strcmp(chunk->path, path) != 0) chunk = chunk->next;
  return chunk;
}

/* name -> loader, path | why not. Upvalues: the cache, or a light NULL; package.searchpath; home. */
static int l_search(lua_State *L) {
  struct chunks *c = lua_touserdata(L, lua_upvalueindex(1));
  const char *name = luaL_checkstring(L, 1), *home = lua_tostring(L, lua_upvalueindex(3));
  lua_settop(L, 1);
  const struct bundle_entry *e = c ? NULL : find_bundled(L, name, home);
  if (!e && !search_path(L)) return 1;
  const char *path = lua_tostring(L, 2);
  const struct chunk *chunk = kept(c, path);
  int rc = e ? bundle_load(L, e, path)
    : chunk ? luaL_loadbufferx(L, chunk->bytes, chunk->length, path, "b")
            : luaL_loadfilex(L, path, "t");
  if (rc != LUA_OK) return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s", name, path, lua_tostring(L, -1));
  if (c && !chunk) keep(L, c, path);
  lua_pushvalue(L, 2);
  return 2;
}

void chunks_use(lua_State *L, struct chunks *c, const char *home) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "searchers");
  lua_pushlightuserdata(L, c);
  lua_getfield(L, -3, "searchpath");
  lua_pushstring(L, home);
  lua_pushcclosure(L, l_search, 3);
  lua_rawseti(L, -2, 2); /* In place of the one that reads Lua files. */
  lua_pop(L, 2);
}

void chunks_free(struct chunks *c) {
  while (c->first) {
    struct chunk *chunk = c->first;
    c->first = chunk->next;
    free_chunk(chunk);
  }
}
