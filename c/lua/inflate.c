/* shoal.core.inflate: gzip and deflate bodies, decoded by zlib with a bound.
 *
 *   inflate.open("gzip" | "deflate", max_bytes) -> decoder      max_bytes: of everything it gives; 0: none
 *   decoder:feed(bytes) -> bytes | nil, text, code        TOO_LARGE, or BAD_CODING: these bytes are not of that coding
 *   decoder:finish() -> true | nil, text, code            BAD_CODING: the end is missing
 *
 * "deflate" is the zlib format (RFC 9110, 8.4.1.2), or the raw one that some servers send; gzip may have several members (RFC 1952). */
#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <string.h>
#include <zlib.h>

#include "core/errors.h"

int luaopen_shoal_core_inflate(lua_State *L);

static const char DECODER[] = "shoal.inflate";

enum { STEP = 32 * 1024 };

struct decoder {
  z_stream z;
  bool open, gzip, ended, broken;
  unsigned char first[2]; /* Of a deflate body: they tell which of two formats it is. */
  int first_count;
  uint64_t given, max;
};

static int l_open(lua_State *L) {
  static const char *const kinds[] = {"gzip", "deflate", NULL};
  int kind = luaL_checkoption(L, 1, NULL, kinds);
  lua_Integer max = luaL_checkinteger(L, 2);
  luaL_argcheck(L, max >= 0, 2, "expected a limit, or 0 for none");
  struct decoder *d = lua_newuserdatauv(L, sizeof *d, 0);
  *d = (struct decoder){.gzip = kind == 0, .max = (uint64_t)max};
  luaL_setmetatable(L, DECODER);
  if (inflateInit2(&d->z, d->gzip ? 16 + MAX_WBITS : MAX_WBITS) != Z_OK) return luaL_error(L, "inflate: out of memory");
  d->open = true;
  return 1;
}

static struct decoder *check(lua_State *L) { return luaL_checkudata(L, 1, DECODER); }

static int bad(lua_State *L, struct decoder *d, const char *what) {
  d->broken = true;
  lua_pushnil(L);
  lua_pushfstring(L, "the body is not valid %s: %s", d->gzip ? "gzip" : "deflate", what);
  lua_pushliteral(L, "BAD_CODING");
  return 3;
}

/* The member ended with bytes left: another member of gzip, else bytes that belong to nothing. */
static const char *next_member(struct decoder *d) {
  if (!d->gzip) return "bytes after its end";
  if (d->z.next_in[0] != 0x1f) return "bytes after its end";
  d->ended = false;
  return inflateReset(&d->z) == Z_OK ? NULL : "it cannot begin again";
}

/* One call of inflate. Returns NULL, or what is wrong. */
static const char *step(struct decoder *d, unsigned char *out, size_t *made) {
  d->z.next_out = out;
  d->z.avail_out = STEP;
  int rc = inflate(&d->z, Z_NO_FLUSH);
  *made = STEP - d->z.avail_out;
  if (rc == Z_STREAM_END) d->ended = true;
  else if (rc == Z_NEED_DICT) return "it needs a dictionary";
  else if (rc == Z_MEM_ERROR) return "out of memory";
  else if (rc != Z_OK && rc != Z_BUF_ERROR) return d->z.msg ? d->z.msg : "wrong data";
  return NULL;
}

enum { FINE, WRONG, LARGE };

/* Decode these bytes into the buffer. */
static int decode(struct decoder *d, luaL_Buffer *b, const unsigned char *bytes, size_t length, const char **wrong) {
  d->z.next_in = (unsigned char *)(uintptr_t)bytes; /* zlib does not write there. */
  d->z.avail_in = (uInt)length;
  bool full = length > 0; /* The last step filled its buffer, so that more may wait inside of zlib. */
  while (d->z.avail_in > 0 || (full && !d->ended)) {
    size_t made = 0;
    *wrong = d->ended ? next_member(d) : NULL;
    if (!*wrong) *wrong = step(d, (unsigned char *)luaL_prepbuffsize(b, STEP), &made);
    if (*wrong) return WRONG;
    d->given += made;
    if (d->max && d->given > d->max) return LARGE;
    luaL_addsize(b, made);
    full = made == STEP;
  }
  return FINE;
}

/* The two bytes of a zlib header (RFC 1950, 2.2); a stream without one is raw. */
static bool zlib_header(const unsigned char *two) { return (two[0] & 15) == 8 && two[0] >> 4 <= 7 && (two[0] << 8 | two[1]) % 31 == 0; }

static int l_feed(lua_State *L) {
  struct decoder *d = check(L);
  size_t length;
  const unsigned char *bytes = (const unsigned char *)luaL_checklstring(L, 2, &length);
  luaL_argcheck(L, length <= UINT32_MAX / 2, 2, "more than 2 GiB at once");
  luaL_argcheck(L, d->open && !d->broken, 1, "the decoder failed before");
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  const char *wrong = NULL;
  int result = FINE;
  if (!d->gzip && d->first_count < 2) {
    while (length > 0 && d->first_count < 2) d->first[d->first_count++] = *bytes++, length--;
    if (d->first_count == 2) {
      if (!zlib_header(d->first) && inflateReset2(&d->z, -MAX_WBITS) != Z_OK) return bad(L, d, "it cannot begin");
      result = decode(d, &b, d->first, 2, &wrong);
    }
  }
  if (result == FINE && length > 0) result = decode(d, &b, bytes, length, &wrong);
  if (result == WRONG) return bad(L, d, wrong);
  if (result == LARGE) {
    d->broken = true;
    lua_pushnil(L);
    lua_pushfstring(L, "the decoded body is larger than its limit of %I bytes", (lua_Integer)d->max);
    lua_pushstring(L, error_name(ERR_TOO_LARGE));
    return 3;
  }
  luaL_pushresult(&b);
  return 1;
}

static int l_finish(lua_State *L) {
  struct decoder *d = check(L);
  if (d->broken || !d->ended) return bad(L, d, "its end is missing");
  lua_pushboolean(L, 1);
  return 1;
}

static int l_gc(lua_State *L) {
  struct decoder *d = check(L);
  if (d->open) (void)inflateEnd(&d->z); /* It only says whether the stream was complete. */
  d->open = false;
  return 0;
}

__attribute__((visibility("default"))) int luaopen_shoal_core_inflate(lua_State *L) {
  static const luaL_Reg functions[] = {{"open", l_open}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"feed", l_feed}, {"finish", l_finish}, {NULL, NULL}};
  luaL_newmetatable(L, DECODER);
  lua_pushcfunction(L, l_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_newlib(L, functions);
  return 1;
}
