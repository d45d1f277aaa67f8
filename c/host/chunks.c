#include "host/chunks.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

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

/* As package.searchers[2]: name -> loader, path | why not. Upvalue 1: the cache; 2: package.searchpath. */
static int l_search(lua_State *L) {
  struct chunks *c = lua_touserdata(L, lua_upvalueindex(1));
  const char *name = luaL_checkstring(L, 1);
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_pushvalue(L, 1);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "path");
  lua_remove(L, -2);
  lua_call(L, 2, 2);
  if (lua_isnil(L, 2)) return 1; /* The list of places searched. */
  lua_settop(L, 2);
  const char *path = lua_tostring(L, 2);
  const struct chunk *chunk = c->first;
  while (chunk && strcmp(chunk->path, path) != 0) chunk = chunk->next;
  int rc = chunk ? luaL_loadbufferx(L, chunk->bytes, chunk->length, path, "b") : luaL_loadfilex(L, path, "t");
  if (rc != LUA_OK) return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s", name, path, lua_tostring(L, -1));
  if (!chunk) keep(L, c, path);
  lua_pushvalue(L, 2);
  return 2;
}

void chunks_use(lua_State *L, struct chunks *c) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "searchers");
  lua_pushlightuserdata(L, c);
  lua_getfield(L, -3, "searchpath");
  lua_pushcclosure(L, l_search, 2);
  lua_rawseti(L, -2, 2); /* Replaces the searcher that reads Lua files. */
  lua_pop(L, 2);
}

void chunks_free(struct chunks *c) {
  while (c->first) {
    struct chunk *chunk = c->first;
    c->first = chunk->next;
    free_chunk(chunk);
  }
}
