/* shoal.core.histogram: counts of whole numbers, mergeable; quantiles within 1 % (core/histogram.h has the proof).
 *
 *   histogram.new() -> h
 *   histogram.decode(bytes) -> h | nil, message, "MALFORMED"
 *   histogram.RELATIVE_ERROR                the greatest error of a quantile, as a fraction
 *   h:record(value, count?)                 value and count are integers >= 0, in any unit; a fraction raises
 *   h:merge(other | bytes) -> true | nil, message, code
 *   h:quantile(q) -> integer | nil          nil while empty
 *   h:count()  h:sum()                      integers (the sum a float once it passes 2^63 - 1)
 *   h:min()  h:max()  h:mean()              nil while empty
 *   h:encode() -> bytes                     one histogram has one encoding
 *   h:buckets() -> { { low, high, count } ... }   in rising order, none empty
 *   h:reset()                               empty it */
#include <lauxlib.h>
#include <lua.h>

#include "core/errors.h"
#include "core/histogram.h"
#include "lua/modules.h"

static const char TYPE[] = "shoal.histogram";

static struct histogram *check(lua_State *L, int index) { return luaL_checkudata(L, index, TYPE); }

static struct histogram *push(lua_State *L) {
  struct histogram *h = lua_newuserdatauv(L, sizeof *h, 0);
  histogram_init(h);
  luaL_setmetatable(L, TYPE);
  return h;
}

static uint64_t check_natural(lua_State *L, int index) {
  if (lua_type(L, index) == LUA_TNUMBER && !lua_isinteger(L, index)) {
    int exact;
    lua_tointegerx(L, index, &exact);
    if (!exact) luaL_argerror(L, index, "not a whole number: record in a smaller unit, such as nanoseconds");
  }
  lua_Integer value = luaL_checkinteger(L, index);
  luaL_argcheck(L, value >= 0, index, "must not be negative");
  return (uint64_t)value;
}

static void push_natural(lua_State *L, uint64_t value) {
  if (value <= INT64_MAX) lua_pushinteger(L, (lua_Integer)value);
  else lua_pushnumber(L, (lua_Number)value);
}

static int refuse(lua_State *L, const char *what, int rc) {
  lua_pushnil(L);
  lua_pushfstring(L, "histogram: %s: %s", what, error_text(rc));
  lua_pushstring(L, error_name(rc));
  return 3;
}

static int l_new(lua_State *L) {
  push(L);
  return 1;
}

static int l_decode(lua_State *L) {
  size_t length;
  const char *bytes = luaL_checklstring(L, 1, &length);
  int rc = histogram_decode(push(L), bytes, length);
  return rc < 0 ? refuse(L, "decode", rc) : 1;
}

static int l_record(lua_State *L) {
  struct histogram *h = check(L, 1);
  uint64_t value = check_natural(L, 2), times = lua_isnoneornil(L, 3) ? 1 : check_natural(L, 3);
  int rc = histogram_record(h, value, times);
  if (rc < 0) return luaL_error(L, "histogram: record: %s", error_text(rc));
  return 0;
}

static int l_merge(lua_State *L) {
  struct histogram *h = check(L, 1);
  int rc;
  if (lua_type(L, 2) == LUA_TSTRING) {
    size_t length;
    const char *bytes = lua_tolstring(L, 2, &length);
    struct histogram *other = push(L); /* Owned by the collector, so an error below leaks nothing. */
    rc = histogram_decode(other, bytes, length);
    if (rc == 0) rc = histogram_merge(h, other);
    histogram_free(other);
  } else {
    rc = histogram_merge(h, check(L, 2));
  }
  if (rc < 0) return refuse(L, "merge", rc);
  lua_pushboolean(L, 1);
  return 1;
}

static int l_quantile(lua_State *L) {
  struct histogram *h = check(L, 1);
  lua_Number q = luaL_checknumber(L, 2);
  luaL_argcheck(L, q >= 0 && q <= 1, 2, "must lie within 0 .. 1");
  if (h->count == 0) return lua_pushnil(L), 1;
  push_natural(L, histogram_quantile(h, q));
  return 1;
}

static int l_count(lua_State *L) { return push_natural(L, check(L, 1)->count), 1; }

static int l_min(lua_State *L) {
  struct histogram *h = check(L, 1);
  if (h->count == 0) return lua_pushnil(L), 1;
  return push_natural(L, h->min), 1;
}

static int l_max(lua_State *L) {
  struct histogram *h = check(L, 1);
  if (h->count == 0) return lua_pushnil(L), 1;
  return push_natural(L, h->max), 1;
}

static int l_sum(lua_State *L) {
  struct histogram *h = check(L, 1);
  if (h->sum_high == 0) push_natural(L, h->sum_low);
  else lua_pushnumber(L, histogram_sum(h));
  return 1;
}

static int l_mean(lua_State *L) {
  struct histogram *h = check(L, 1);
  if (h->count == 0) return lua_pushnil(L), 1;
  return lua_pushnumber(L, histogram_mean(h)), 1;
}

static int l_encode(lua_State *L) {
  struct histogram *h = check(L, 1);
  luaL_Buffer buffer;
  uint8_t *room = (uint8_t *)luaL_buffinitsize(L, &buffer, HISTOGRAM_ENCODED_MAX);
  luaL_pushresultsize(&buffer, histogram_encode(h, room));
  return 1;
}

static int l_buckets(lua_State *L) {
  struct histogram *h = check(L, 1);
  lua_Integer row = 0;
  lua_newtable(L);
  for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
    uint64_t times = histogram_at(h, i);
    if (times == 0) continue;
    lua_createtable(L, 3, 0);
    push_natural(L, histogram_low(i));
    lua_rawseti(L, -2, 1);
    push_natural(L, histogram_high(i));
    lua_rawseti(L, -2, 2);
    push_natural(L, times);
    lua_rawseti(L, -2, 3);
    lua_rawseti(L, -2, ++row);
  }
  return 1;
}

static int l_free(lua_State *L) { return histogram_free(check(L, 1)), 0; }

static int l_tostring(lua_State *L) {
  struct histogram *h = check(L, 1);
  if (h->count == 0) lua_pushliteral(L, "histogram: empty");
  else
    lua_pushfstring(L, "histogram: %I values, p50 %I, p99 %I, max %I", (LUAI_UACINT)h->count,
                    (LUAI_UACINT)histogram_quantile(h, 0.5), (LUAI_UACINT)histogram_quantile(h, 0.99), (LUAI_UACINT)h->max);
  return 1;
}

int luaopen_shoal_core_histogram(lua_State *L) {
  static const luaL_Reg functions[] = {{"new", l_new}, {"decode", l_decode}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"record", l_record}, {"merge", l_merge},     {"quantile", l_quantile}, {"count", l_count},
      {"min", l_min},       {"max", l_max},         {"sum", l_sum},           {"mean", l_mean},
      {"encode", l_encode}, {"buckets", l_buckets}, {"reset", l_free},        {NULL, NULL},
  };
  static const luaL_Reg meta[] = {{"__gc", l_free}, {"__tostring", l_tostring}, {NULL, NULL}};
  luaL_newmetatable(L, TYPE);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, functions);
  lua_pushnumber(L, HISTOGRAM_RELATIVE_ERROR);
  lua_setfield(L, -2, "RELATIVE_ERROR");
  return 1;
}
