/* The writer. Keys are written in the order of their bytes, so that equal values are equal texts in every process. */
#include "lua/json.h"

#include <lauxlib.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  KEYS_ON_STACK = 8,
  HOLES_MAX = 10, /* An array up to this index may have any holes; a longer one at most as many as elements. */
};

struct writer {
  lua_State *L;
  int array, depth;
  struct mp_buffer *out;
  char *error;
};

struct key {
  const char *text; /* Lua's own bytes, or NULL: `own`. */
  size_t length;
  lua_Integer integer;
  lua_Number number;
  int kind; /* 0 a string, 1 an integer, 2 a float. */
  char own[JSON_NUMBER_MAX];
};

static bool write_value(struct writer *w, int index, const struct mp_place *place);

static bool refuse(struct writer *w, const struct mp_place *place, const char *format, const char *what) {
  mp_fail(w->error, NULL, place, format, what);
  return false;
}

static bool put(struct writer *w, const char *bytes, size_t length) {
  return mp_buffer_add(w->out, bytes, length) || refuse(w, NULL, "%s", "out of memory");
}

/* ---- numbers ---- */

size_t json_integer(char out[JSON_NUMBER_MAX], lua_Integer n) {
  int length = snprintf(out, JSON_NUMBER_MAX, "%lld", (long long)n);
  return length > 0 ? (size_t)length : 0;
}

size_t json_float(char out[JSON_NUMBER_MAX], lua_Number n) {
  if (!isfinite(n)) return 0;
  int length = 0;
  if (n == 0 && signbit(n)) {
    length = snprintf(out, JSON_NUMBER_MAX, "-0.0");
    return (size_t)length;
  }
  if (n == floor(n) && n >= -9223372036854775808.0 && n < 9223372036854775808.0) return json_integer(out, (lua_Integer)n);
  for (int digits = 15; digits <= 17; digits++) {
    length = snprintf(out, JSON_NUMBER_MAX, "%.*g", digits, n);
    if (strtod(out, NULL) == n) break;
  }
  return length > 0 ? (size_t)length : 0;
}

/* ---- strings ---- */

/* The length of the UTF-8 sequence at `at`, which is no ASCII; 0 when it is none. */
static size_t sequence(const unsigned char *at, size_t left) {
  size_t length = at[0] >= 0xc2 && at[0] <= 0xdf ? 2 : (at[0] & 0xf0) == 0xe0 ? 3 : at[0] >= 0xf0 && at[0] <= 0xf4 ? 4 : 0;
  if (length == 0 || length > left) return 0;
  for (size_t i = 1; i < length; i++) {
    if ((at[i] & 0xc0) != 0x80) return 0;
  }
  if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f)) return 0; /* Overlong; a surrogate. */
  if ((at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f)) return 0; /* Overlong; beyond U+10FFFF. */
  return length;
}

static bool put_escape(struct writer *w, unsigned char c) {
  static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
  char text[8];
  const char *known = c ? strchr(from, c) : NULL;
  if (known) {
    text[0] = '\\';
    text[1] = to[known - from];
    return put(w, text, 2);
  }
  snprintf(text, sizeof text, "\\u%04x", c);
  return put(w, text, 6);
}

static bool put_text(struct writer *w, const char *bytes, size_t length, const struct mp_place *place) {
  if (!put(w, "\"", 1)) return false;
  size_t from = 0, at = 0;
  while (at < length) {
    unsigned char c = (unsigned char)bytes[at];
    if (c >= 0x80) {
      size_t step = sequence((const unsigned char *)bytes + at, length - at);
      if (step == 0) {
        mp_fail(w->error, NULL, place, "byte %zu of the string is no UTF-8", at + 1);
        return false;
      }
      at += step;
    } else if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f) {
      if (!put(w, bytes + from, at - from) || !put_escape(w, c)) return false;
      from = ++at;
    } else {
      at++;
    }
  }
  return put(w, bytes + from, length - from) && put(w, "\"", 1);
}

/* ---- tables ---- */

struct shape {
  size_t count;
  lua_Integer greatest; /* Of the keys, when all of them are whole numbers from 1 on; else 0. */
};

static struct shape shape_of(lua_State *L, int index) {
  struct shape s = {0};
  bool list = true;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    s.count++;
    if (!list || !lua_isinteger(L, -2) || lua_tointeger(L, -2) < 1) {
      list = false;
    } else if (lua_tointeger(L, -2) > s.greatest) {
      s.greatest = lua_tointeger(L, -2);
    }
  }
  if (!list) s.greatest = 0;
  return s;
}

static bool write_array(struct writer *w, int index, lua_Integer length, const struct mp_place *place) {
  if (!put(w, "[", 1)) return false;
  for (lua_Integer i = 1; i <= length; i++) {
    struct mp_place here = {place, NULL, 0, i};
    if (i > 1 && !put(w, ",", 1)) return false;
    lua_rawgeti(w->L, index, i);
    if (!write_value(w, lua_gettop(w->L), &here)) return false;
    lua_pop(w->L, 1);
  }
  return put(w, "]", 1);
}

static bool read_key(struct writer *w, int index, struct key *key, const struct mp_place *place) {
  lua_State *L = w->L;
  if (lua_type(L, index) == LUA_TSTRING) {
    *key = (struct key){.kind = 0};
    key->text = lua_tolstring(L, index, &key->length);
    return true;
  }
  if (lua_type(L, index) != LUA_TNUMBER) return refuse(w, place, "a %s cannot be a key", luaL_typename(L, index));
  if (lua_isinteger(L, index)) {
    *key = (struct key){.kind = 1, .integer = lua_tointeger(L, index)};
    key->length = json_integer(key->own, key->integer);
  } else {
    *key = (struct key){.kind = 2, .number = lua_tonumber(L, index)};
    key->length = json_float(key->own, key->number);
    if (key->length == 0) return refuse(w, place, "%s cannot be a key", "an infinity");
  }
  return true;
}

static const char *text_of(const struct key *key) { return key->text ? key->text : key->own; }

static int compare(const void *a, const void *b) {
  const struct key *x = a, *y = b;
  size_t shorter = x->length < y->length ? x->length : y->length;
  int order = memcmp(text_of(x), text_of(y), shorter);
  if (order != 0) return order;
  return (x->length > y->length) - (x->length < y->length);
}

/* Most objects have few keys, for which qsort costs more than it sorts. */
static void sort(struct key *keys, size_t n) {
  if (n > KEYS_ON_STACK) {
    qsort(keys, n, sizeof *keys, compare);
    return;
  }
  for (size_t i = 1; i < n; i++) {
    struct key moved = keys[i];
    size_t at = i;
    for (; at > 0 && compare(&keys[at - 1], &moved) > 0; at--) keys[at] = keys[at - 1];
    if (at < i) keys[at] = moved;
  }
}

static bool write_member(struct writer *w, int index, const struct key *key, const struct mp_place *place) {
  lua_State *L = w->L;
  struct mp_place here = {place, text_of(key), key->length, 0};
  if (!put_text(w, text_of(key), key->length, &here) || !put(w, ":", 1)) return false;
  if (key->kind == 0)
    lua_pushlstring(L, key->text, key->length);
  else if (key->kind == 1)
    lua_pushinteger(L, key->integer);
  else
    lua_pushnumber(L, key->number);
  lua_rawget(L, index);
  if (!write_value(w, lua_gettop(L), &here)) return false;
  lua_pop(L, 1);
  return true;
}

static bool write_object(struct writer *w, int index, size_t count, const struct mp_place *place) {
  lua_State *L = w->L;
  struct key few[KEYS_ON_STACK], *keys = few;
  if (count > KEYS_ON_STACK) keys = lua_newuserdatauv(L, count * sizeof *keys, 0); /* It stays on the stack until the end. */
  size_t n = 0;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (!read_key(w, -2, &keys[n++], place)) return false;
  }
  sort(keys, n);
  if (!put(w, "{", 1)) return false;
  for (size_t i = 0; i < n; i++) {
    if (i > 0 && compare(&keys[i - 1], &keys[i]) == 0) return refuse(w, place, "two keys are both written \"%.60s\"", text_of(&keys[i]));
    if (i > 0 && !put(w, ",", 1)) return false;
    if (!write_member(w, index, &keys[i], place)) return false;
  }
  if (count > KEYS_ON_STACK) lua_pop(L, 1);
  return put(w, "}", 1);
}

static bool is_marked(struct writer *w, int index) {
  if (!lua_getmetatable(w->L, index)) return false;
  bool marked = lua_rawequal(w->L, -1, w->array);
  lua_pop(w->L, 1);
  return marked;
}

static bool write_table(struct writer *w, int index, const struct mp_place *place) {
  if (w->depth == JSON_DEPTH_MAX) {
    mp_fail(w->error, NULL, NULL, "nested deeper than %d: does a table contain itself?", JSON_DEPTH_MAX);
    return false;
  }
  luaL_checkstack(w->L, 8, "JSON too deep"); /* The most that a level keeps on the stack. */
  w->depth++;
  struct shape s = shape_of(w->L, index);
  bool ok;
  if (s.count == 0) {
    ok = is_marked(w, index) ? put(w, "[]", 2) : put(w, "{}", 2);
  } else if (s.greatest == 0) {
    ok = write_object(w, index, s.count, place);
  } else if (s.greatest > HOLES_MAX && (size_t)s.greatest / 2 > s.count) {
    mp_fail(w->error, NULL, place, "a list of %zu elements with indices up to %lld: most would be null", s.count, (long long)s.greatest);
    ok = false;
  } else {
    ok = write_array(w, index, s.greatest, place);
  }
  w->depth--;
  return ok;
}

static bool write_number(struct writer *w, int index, const struct mp_place *place) {
  char text[JSON_NUMBER_MAX];
  lua_State *L = w->L;
  size_t length = lua_isinteger(L, index) ? json_integer(text, lua_tointeger(L, index)) : json_float(text, lua_tonumber(L, index));
  if (length > 0) return put(w, text, length);
  lua_Number n = lua_tonumber(L, index);
  return refuse(w, place, "%s has no form in JSON", isnan(n) ? "nan" : n > 0 ? "inf" : "-inf");
}

static bool write_value(struct writer *w, int index, const struct mp_place *place) {
  lua_State *L = w->L;
  size_t length;
  const char *bytes;
  switch (lua_type(L, index)) {
    case LUA_TNIL: return put(w, "null", 4);
    case LUA_TBOOLEAN: return lua_toboolean(L, index) ? put(w, "true", 4) : put(w, "false", 5);
    case LUA_TNUMBER: return write_number(w, index, place);
    case LUA_TSTRING:
      bytes = lua_tolstring(L, index, &length);
      return put_text(w, bytes, length, place);
    case LUA_TTABLE: return write_table(w, index, place);
    case LUA_TLIGHTUSERDATA:
      if (!lua_touserdata(L, index)) return put(w, "null", 4);
      break;
    default: break;
  }
  return refuse(w, place, "a %s has no form in JSON", luaL_typename(L, index));
}

bool json_encode(lua_State *L, int index, int array, struct mp_buffer *out, char error[MP_ERROR_MAX]) {
  struct writer w = {.L = L, .array = array, .out = out, .error = error};
  int top = lua_gettop(L);
  bool ok = write_value(&w, index, NULL);
  lua_settop(L, top);
  return ok;
}
