/* One pass over the text, straight onto the Lua stack. */
#include "lua/json.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
  lua_State *L;
  const char *start, *at, *end; /* *end is a zero byte: reading one past the text needs no check. */
  int array, depth;
  struct json_options options;
  struct mp_buffer *scratch;
  char *error;
};

static bool read_value(struct reader *r);

static bool refuse(struct reader *r, const char *format, const char *what) {
  mp_fail(r->error, NULL, NULL, format, what);
  return false;
}

/* "expected X, found Y", where Y is what stands at the reader. */
static bool unexpected(struct reader *r, const char *expected) {
  char found[32];
  unsigned char c = (unsigned char)*r->at;
  if (r->at == r->end)
    snprintf(found, sizeof found, "the end");
  else if (c >= 0x20 && c < 0x7f)
    snprintf(found, sizeof found, "'%c'", c);
  else
    snprintf(found, sizeof found, "the byte 0x%02x", c);
  mp_fail(r->error, NULL, NULL, "expected %s, found %s", expected, found);
  return false;
}

static void skip_blanks(struct reader *r) {
  while (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r') r->at++;
}

static bool word(struct reader *r, const char *text) {
  size_t length = strlen(text);
  if ((size_t)(r->end - r->at) < length || memcmp(r->at, text, length) != 0) return unexpected(r, "a value");
  r->at += length;
  return true;
}

/* ---- numbers ---- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* The digits as a negative number, whose range is the larger one. False: it has none in 64 bits. */
static bool whole(const char *digits, const char *end, bool negative, lua_Integer *out) {
  lua_Integer n = 0;
  for (; digits < end; digits++) {
    if (n < INT64_MIN / 10) return false;
    n *= 10;
    lua_Integer digit = *digits - '0';
    if (n < INT64_MIN + digit) return false;
    n -= digit;
  }
  if (!negative && n == INT64_MIN) return false;
  *out = negative ? n : -n;
  return true;
}

static bool digits(struct reader *r) {
  if (!is_digit(*r->at)) return unexpected(r, "a digit");
  while (is_digit(*r->at)) r->at++;
  return true;
}

static bool read_integer(struct reader *r, const char *from, bool negative) {
  lua_Integer n;
  size_t length = (size_t)(r->at - from);
  if (whole(from + negative, r->at, negative, &n)) {
    lua_pushinteger(r->L, n);
  } else if (r->options.large_text) {
    lua_pushlstring(r->L, from, length);
  } else {
    char shown[48];
    snprintf(shown, sizeof shown, "%.*s%s", length > 40 ? 40 : (int)length, from, length > 40 ? "..." : "");
    r->at = from;
    return refuse(r, "the whole number %s does not fit 64 bits and would be rounded", shown);
  }
  return true;
}

static bool read_number(struct reader *r) {
  const char *from = r->at;
  bool negative = *r->at == '-', is_whole = true;
  if (negative) r->at++;
  if (*r->at == '0') {
    r->at++;
    if (is_digit(*r->at)) return refuse(r, "%s", "a number has no leading zero");
  } else if (!digits(r)) {
    return false;
  }
  if (*r->at == '.') {
    is_whole = false;
    r->at++;
    if (!digits(r)) return false;
  }
  if (*r->at == 'e' || *r->at == 'E') {
    is_whole = false;
    r->at++;
    if (*r->at == '+' || *r->at == '-') r->at++;
    if (!digits(r)) return false;
  }
  if (is_whole) return read_integer(r, from, negative);
  double n = strtod(from, NULL); /* It stops where the grammar above did. */
  if (n > 1.7976931348623157e308 || n < -1.7976931348623157e308) {
    r->at = from;
    return refuse(r, "%s", "the number is larger than a double can be");
  }
  lua_pushnumber(r->L, n);
  return true;
}

/* ---- strings ---- */

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* The four digits of a \u at the reader. */
static bool read_unit(struct reader *r, unsigned *unit) {
  *unit = 0;
  for (int i = 0; i < 4; i++, r->at++) {
    int digit = hex(*r->at);
    if (digit < 0) return unexpected(r, "four hexadecimal digits after \\u");
    *unit = *unit << 4 | (unsigned)digit;
  }
  return true;
}

static bool add(struct reader *r, const char *bytes, size_t length) {
  return mp_buffer_add(r->scratch, bytes, length) || refuse(r, "%s", "out of memory");
}

static bool add_character(struct reader *r, unsigned code) {
  char out[4];
  size_t length = 0;
  if (code < 0x80) {
    out[length++] = (char)code;
  } else if (code < 0x800) {
    out[length++] = (char)(0xc0 | code >> 6);
    out[length++] = (char)(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    out[length++] = (char)(0xe0 | code >> 12);
    out[length++] = (char)(0x80 | (code >> 6 & 0x3f));
    out[length++] = (char)(0x80 | (code & 0x3f));
  } else {
    out[length++] = (char)(0xf0 | code >> 18);
    out[length++] = (char)(0x80 | (code >> 12 & 0x3f));
    out[length++] = (char)(0x80 | (code >> 6 & 0x3f));
    out[length++] = (char)(0x80 | (code & 0x3f));
  }
  return add(r, out, length);
}

static bool read_unicode(struct reader *r) {
  const char *from = r->at - 2;
  unsigned high, low;
  if (!read_unit(r, &high)) return false;
  if (high < 0xd800 || high > 0xdfff) return add_character(r, high);
  if (high < 0xdc00 && r->at[0] == '\\' && r->at[1] == 'u') {
    r->at += 2;
    if (!read_unit(r, &low)) return false;
    if (low >= 0xdc00 && low <= 0xdfff) return add_character(r, 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
  }
  r->at = from;
  return refuse(r, "%s", "half of a surrogate pair is no character");
}

static bool read_escape(struct reader *r) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  char c = r->at[1];
  if (c == 'u') {
    r->at += 2;
    return read_unicode(r);
  }
  const char *known = c ? strchr(from, c) : NULL;
  if (!known) {
    r->at++;
    return unexpected(r, "one of \"\\/bfnrtu after a backslash");
  }
  r->at += 2;
  return add(r, &to[known - from], 1);
}

static const char *plain(const char *at) {
  while ((unsigned char)*at >= 0x20 && *at != '"' && *at != '\\') at++;
  return at;
}

static bool read_string(struct reader *r) {
  const char *from = ++r->at;
  r->at = plain(from);
  if (*r->at == '"') {
    lua_pushlstring(r->L, from, (size_t)(r->at++ - from));
    return true;
  }
  mp_buffer_reset(r->scratch);
  if (!add(r, from, (size_t)(r->at - from))) return false;
  while (*r->at != '"') {
    if (*r->at != '\\') {
      if (r->at == r->end) return unexpected(r, "the string's closing quote");
      return unexpected(r, "no control character in a string");
    }
    if (!read_escape(r)) return false;
    from = r->at;
    r->at = plain(from);
    if (!add(r, from, (size_t)(r->at - from))) return false;
  }
  r->at++;
  lua_pushlstring(r->L, r->scratch->bytes, r->scratch->length);
  return true;
}

/* ---- containers ---- */

static bool enter(struct reader *r) {
  if (r->depth == JSON_DEPTH_MAX) {
    mp_fail(r->error, NULL, NULL, "nested deeper than %d", JSON_DEPTH_MAX);
    return false;
  }
  luaL_checkstack(r->L, 5, "JSON too deep"); /* The most that a level keeps on the stack. */
  r->depth++;
  r->at++;
  skip_blanks(r);
  return true;
}

/* After an element: true at a comma, and *over at the closing bracket. */
static bool next(struct reader *r, char close, const char *expected, bool *over) {
  skip_blanks(r);
  *over = *r->at == close;
  if (!*over && *r->at != ',') return unexpected(r, expected);
  r->at++;
  skip_blanks(r);
  if (*over) r->depth--;
  return true;
}

static bool read_array(struct reader *r) {
  if (!enter(r)) return false;
  lua_newtable(r->L);
  bool over = *r->at == ']';
  if (over) {
    r->at++;
    r->depth--;
    lua_pushvalue(r->L, r->array);
    lua_setmetatable(r->L, -2);
  }
  for (lua_Integer i = 1; !over; i++) {
    if (!read_value(r)) return false;
    lua_rawseti(r->L, -2, i);
    if (!next(r, ']', "',' or ']'", &over)) return false;
  }
  return true;
}

/* The key on the stack is new to the table below it. */
static bool is_new(struct reader *r, const char *at) {
  if (!r->options.unique) return true;
  lua_pushvalue(r->L, -1);
  bool known = lua_rawget(r->L, -3) != LUA_TNIL;
  lua_pop(r->L, 1);
  if (!known) return true;
  r->at = at;
  return refuse(r, "the key \"%.60s\" stands twice in one object", lua_tostring(r->L, -1));
}

static bool read_object(struct reader *r) {
  if (!enter(r)) return false;
  lua_newtable(r->L);
  bool over = *r->at == '}';
  if (over) {
    r->at++;
    r->depth--;
  }
  while (!over) {
    const char *from = r->at;
    if (*r->at != '"') return unexpected(r, "a key in double quotes");
    if (!read_string(r) || !is_new(r, from)) return false;
    skip_blanks(r);
    if (*r->at != ':') return unexpected(r, "':'");
    r->at++;
    if (!read_value(r)) return false;
    lua_rawset(r->L, -3);
    if (!next(r, '}', "',' or '}'", &over)) return false;
  }
  return true;
}

static bool read_value(struct reader *r) {
  skip_blanks(r);
  switch (*r->at) {
    case '{': return read_object(r);
    case '[': return read_array(r);
    case '"': return read_string(r);
    case 't':
      if (!word(r, "true")) return false;
      lua_pushboolean(r->L, true);
      return true;
    case 'f':
      if (!word(r, "false")) return false;
      lua_pushboolean(r->L, false);
      return true;
    case 'n':
      if (!word(r, "null")) return false;
      lua_pushlightuserdata(r->L, NULL);
      return true;
    default:
      if (*r->at == '-' || is_digit(*r->at)) return read_number(r);
      return unexpected(r, "a value");
  }
}

bool json_decode(lua_State *L, const char *bytes, size_t length, int array, struct json_options options, struct mp_buffer *scratch,
                 char error[MP_ERROR_MAX], size_t *at) {
  struct reader r = {.L = L, .start = bytes, .at = bytes, .end = bytes + length, .array = array, .options = options,
                     .scratch = scratch, .error = error};
  int top = lua_gettop(L);
  luaL_checkstack(L, 5, "JSON too deep");
  if (length >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0) r.at += 3; /* A byte-order mark: RFC 8259 lets a reader ignore it. */
  bool ok = read_value(&r);
  if (ok) {
    skip_blanks(&r);
    ok = r.at == r.end || unexpected(&r, "the end");
  }
  if (ok) return true;
  lua_settop(L, top);
  *at = (size_t)(r.at - r.start);
  return false;
}
