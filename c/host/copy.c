#include "host/copy.h"

#include <assert.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 32 };
enum { NIL, FALSE, TRUE, INTEGER, NUMBER, STRING, TABLE, END };

static const char *append(struct copy *c, const void *bytes, size_t length) {
  if (c->length + length > c->room) {
    size_t room = (c->room + length) * 2;
    char *grown = realloc(c->bytes, room);
    if (!grown) return "out of memory";
    c->bytes = grown;
    c->room = room;
  }
  memcpy(c->bytes + c->length, bytes, length);
  c->length += length;
  return NULL;
}

static const char *tag(struct copy *c, char which) { return append(c, &which, 1); }

static const char *put(lua_State *L, int index, struct copy *out, int depth) {
  const char *problem;
  switch (lua_type(L, index)) {
    case LUA_TNIL:
      return tag(out, NIL);
    case LUA_TBOOLEAN:
      return tag(out, lua_toboolean(L, index) ? TRUE : FALSE);
    case LUA_TNUMBER: {
      lua_Integer whole = lua_tointeger(L, index);
      lua_Number number = lua_tonumber(L, index);
      bool is_whole = lua_isinteger(L, index);
      problem = tag(out, is_whole ? INTEGER : NUMBER);
      if (problem) return problem;
      return is_whole ? append(out, &whole, sizeof whole) : append(out, &number, sizeof number);
    }
    case LUA_TSTRING: {
      size_t length;
      const char *bytes = lua_tolstring(L, index, &length);
      problem = tag(out, STRING);
      if (!problem) problem = append(out, &length, sizeof length);
      return problem ? problem : append(out, bytes, length);
    }
    case LUA_TTABLE:
      if (depth >= DEPTH_MAX) return "a table deeper than 32, or one that holds itself, cannot be copied";
      luaL_checkstack(L, 4, "copying a table");
      index = lua_absindex(L, index);
      problem = tag(out, TABLE);
      for (lua_pushnil(L); !problem && lua_next(L, index); lua_pop(L, 1)) {
        problem = put(L, -2, out, depth + 1);
        if (!problem) problem = put(L, -1, out, depth + 1);
        if (problem) {
          lua_pop(L, 2);
          return problem;
        }
      }
      return problem ? problem : tag(out, END);
    default:
      return "a function, coroutine or userdata cannot be copied: name it, and look it up there";
  }
}

const char *copy_put(lua_State *L, int index, struct copy *out) { return put(L, index, out, 0); }

static void take(const struct copy *from, size_t *at, void *out, size_t length) {
  assert(*at + length <= from->length); /* We wrote it. */
  memcpy(out, from->bytes + *at, length);
  *at += length;
}

void copy_get(lua_State *L, const struct copy *from, size_t *at) {
  char which;
  lua_Integer whole;
  lua_Number number;
  size_t length;
  luaL_checkstack(L, 4, "copying a table");
  take(from, at, &which, 1);
  switch (which) {
    case NIL:
      lua_pushnil(L);
      return;
    case FALSE:
    case TRUE:
      lua_pushboolean(L, which == TRUE);
      return;
    case INTEGER:
      take(from, at, &whole, sizeof whole);
      lua_pushinteger(L, whole);
      return;
    case NUMBER:
      take(from, at, &number, sizeof number);
      lua_pushnumber(L, number);
      return;
    case STRING:
      take(from, at, &length, sizeof length);
      assert(*at + length <= from->length);
      lua_pushlstring(L, from->bytes + *at, length);
      *at += length;
      return;
    default:
      assert(which == TABLE);
      lua_newtable(L);
      while (from->bytes[*at] != END) {
        copy_get(L, from, at);
        copy_get(L, from, at);
        lua_rawset(L, -3);
      }
      (*at)++;
  }
}

void copy_free(struct copy *c) {
  free(c->bytes);
  *c = (struct copy){0};
}
