/* shoal.core.correlation: the failures of several datacenters, weighed together (core/correlation.h is the manual).
 *
 * Time is given, so that a spec can drive it: now_ns is an integer that does not run back; a smaller one raises.
 *
 *   correlation.new(now_ns, config?) -> c | nil, message, "CONFIG"
 *     config: window_ms, hold_ms, down_ms, up_ms, low, medium, high, flap_moves, flap_ms, cool_ms; integers, each optional
 *   c:know(now_ns, dc) -> true | nil, message, "FULL" | "TOO_LARGE"
 *   c:forget(now_ns, dc)   c:suspect(now_ns, dc)   c:down(now_ns, dc)   c:up(now_ns, dc) -> true | nil, message, "NOT_FOUND"
 *   c:next(now_ns) -> action | nil     call it until nil, after each report and at the deadline
 *     action: { kind = "detected" | "raised" | "healed", event, severity, since_ns, cause = "returned" | "expired" of healed, dcs }
 *             { kind = "evict", dc, cause = "alone" | "left" | "vain", since_ns, event }
 *   c:deadline() -> integer | nil      when to call next again; nil: after the next report
 *   c:holds() -> boolean   c:severity() -> "none" | "low" | "medium" | "high"
 *   c:event() -> { event, dcs, since_ns, until_ns, severity } | nil     while it holds
 *   c:dc(name) -> { name, status, suspect, damped, evicted, event, since_ns } | nil
 *   c:dcs() -> rows of the same, by slot
 *   c:counts() -> table
 *   correlation.DCS_MAX, correlation.NAME_MAX */
#include "core/correlation.h"

#include <lauxlib.h>
#include <lua.h>

#include "core/errors.h"
#include "lua/lua_error.h"
#include "lua/modules.h"

static const char TYPE[] = "shoal.correlation";

static struct correlation *check(lua_State *L) { return luaL_checkudata(L, 1, TYPE); }

/* The time at argument 2, which must not run back. */
static uint64_t check_now(lua_State *L, const struct correlation *c) {
  lua_Integer now = luaL_checkinteger(L, 2);
  luaL_argcheck(L, now >= 0 && (uint64_t)now >= c->now_ns, 2, "time must not run back");
  return (uint64_t)now;
}

static void read_number(lua_State *L, const char *name, uint64_t scale, uint64_t most, uint64_t *out) {
  if (lua_getfield(L, 2, name) != LUA_TNIL) {
    int whole;
    lua_Integer value = lua_tointegerx(L, -1, &whole);
    if (!whole || value < 0 || (uint64_t)value > most) luaL_error(L, "correlation: %s: expected an integer >= 0", name);
    *out = (uint64_t)value * scale;
  }
  lua_pop(L, 1);
}

static void read_count(lua_State *L, const char *name, uint32_t *out) {
  uint64_t value = *out;
  read_number(L, name, 1, 1000000, &value);
  *out = (uint32_t)value;
}

static void read_config(lua_State *L, struct correlation_config *config) {
  const uint64_t ms = 1000000, most = UINT64_MAX / 1000000 / 2;
  read_number(L, "window_ms", ms, most, &config->window_ns);
  read_number(L, "hold_ms", ms, most, &config->hold_ns);
  read_number(L, "down_ms", ms, most, &config->down_ns);
  read_number(L, "up_ms", ms, most, &config->up_ns);
  read_number(L, "flap_ms", ms, most, &config->flap_ns);
  read_number(L, "cool_ms", ms, most, &config->cool_ns);
  read_count(L, "low", &config->low);
  read_count(L, "medium", &config->medium);
  read_count(L, "high", &config->high);
  read_count(L, "flap_moves", &config->flap_moves);
}

static int l_new(lua_State *L) {
  lua_Integer now = luaL_checkinteger(L, 1);
  luaL_argcheck(L, now >= 0, 1, "expected an instant in ns");
  struct correlation_config config;
  correlation_defaults(&config);
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    read_config(L, &config);
  }
  const char *problem = correlation_config_check(&config);
  if (problem) {
    lua_pushnil(L);
    lua_pushfstring(L, "correlation: %s", problem);
    lua_pushliteral(L, "CONFIG");
    return 3;
  }
  struct correlation *c = lua_newuserdatauv(L, sizeof *c, 0);
  correlation_init(c, &config, (uint64_t)now);
  luaL_setmetatable(L, TYPE);
  return 1;
}

static int refuse(lua_State *L, int rc) {
  const char *name = lua_tostring(L, 3);
  lua_pushnil(L);
  if (rc == ERR_NOT_FOUND) lua_pushfstring(L, "correlation: datacenter %s is not known", name);
  else if (rc == ERR_FULL) lua_pushfstring(L, "correlation: datacenter %s: at most %d are known", name, CORRELATION_DCS_MAX);
  else lua_pushfstring(L, "correlation: a datacenter's name has 1 to %d bytes, none of them 0", CORRELATION_NAME_MAX);
  lua_pushstring(L, error_name(rc));
  return 3;
}

static int l_know(lua_State *L) {
  struct correlation *c = check(L);
  size_t length;
  const char *name = luaL_checklstring(L, 3, &length);
  int rc = correlation_know(c, check_now(L, c), name, length);
  return rc < 0 ? refuse(L, rc) : (lua_pushboolean(L, 1), 1);
}

static int l_forget(lua_State *L) {
  struct correlation *c = check(L);
  size_t length;
  const char *name = luaL_checklstring(L, 3, &length);
  int rc = correlation_forget(c, check_now(L, c), name, length);
  return rc < 0 ? refuse(L, rc) : (lua_pushboolean(L, 1), 1);
}

static int report(lua_State *L, void (*tell)(struct correlation *, uint64_t, uint32_t)) {
  struct correlation *c = check(L);
  size_t length;
  const char *name = luaL_checklstring(L, 3, &length);
  uint64_t now_ns = check_now(L, c);
  int dc = correlation_find(c, name, length);
  if (dc < 0) return refuse(L, dc);
  tell(c, now_ns, (uint32_t)dc);
  return lua_pushboolean(L, 1), 1;
}

static int l_suspect(lua_State *L) { return report(L, correlation_suspect); }
static int l_down(lua_State *L) { return report(L, correlation_down); }
static int l_up(lua_State *L) { return report(L, correlation_up); }

static void set_integer(lua_State *L, const char *name, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}

static void set_string(lua_State *L, const char *name, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

static void set_true(lua_State *L, const char *name, bool value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, name);
}

/* Set `dcs`: the names of those that were part of the last event. */
static void set_members(lua_State *L, const struct correlation *c) {
  lua_Integer count = 0;
  lua_newtable(L);
  for (uint32_t i = 0; i < c->end; i++) {
    if (c->dcs[i].name[0] == 0 || c->dcs[i].event != c->event) continue;
    lua_pushstring(L, c->dcs[i].name);
    lua_rawseti(L, -2, ++count);
  }
  lua_setfield(L, -2, "dcs");
}

static int l_next(lua_State *L) {
  struct correlation *c = check(L);
  struct correlation_action action;
  luaL_checkstack(L, 4, NULL);
  lua_createtable(L, 0, 6); /* Before the step: what the core has decided must not be lost for want of memory. */
  if (!correlation_next(c, check_now(L, c), &action)) return lua_pushnil(L), 1;
  set_string(L, "kind", correlation_kind_name(action.kind));
  set_integer(L, "event", action.event);
  set_integer(L, "since_ns", action.since_ns);
  if (action.kind == CORRELATION_EVICT || action.kind == CORRELATION_HEALED) set_string(L, "cause", correlation_cause_name(action.cause));
  if (action.kind == CORRELATION_EVICT) {
    set_string(L, "dc", c->dcs[action.dc].name);
  } else {
    set_string(L, "severity", correlation_severity_name(action.severity));
    set_members(L, c);
  }
  return 1;
}

static int l_deadline(lua_State *L) {
  uint64_t at_ns = correlation_deadline(check(L));
  if (at_ns > INT64_MAX) lua_pushnil(L);
  else lua_pushinteger(L, (lua_Integer)at_ns);
  return 1;
}

static int l_holds(lua_State *L) { return lua_pushboolean(L, correlation_holds(check(L))), 1; }
static int l_severity(lua_State *L) { return lua_pushstring(L, correlation_severity_name(check(L)->severity)), 1; }

static int l_event(lua_State *L) {
  struct correlation *c = check(L);
  if (!correlation_holds(c)) return lua_pushnil(L), 1;
  lua_createtable(L, 0, 5);
  set_integer(L, "event", c->event);
  set_integer(L, "since_ns", c->detected_ns);
  set_integer(L, "until_ns", c->hold_until_ns);
  set_string(L, "severity", correlation_severity_name(c->severity));
  set_members(L, c);
  return 1;
}

static void push_dc(lua_State *L, const struct correlation *c, uint32_t dc) {
  const struct correlation_dc *d = &c->dcs[dc];
  lua_createtable(L, 0, 7);
  set_string(L, "name", d->name);
  set_string(L, "status", correlation_status_name(d->status));
  set_integer(L, "since_ns", d->since_ns);
  set_integer(L, "event", d->event);
  set_true(L, "suspect", d->suspect);
  set_true(L, "evicted", d->evicted);
  set_true(L, "damped", correlation_damped(c, dc));
}

static int l_dc(lua_State *L) {
  struct correlation *c = check(L);
  size_t length;
  const char *name = luaL_checklstring(L, 2, &length);
  int dc = correlation_find(c, name, length);
  if (dc < 0) lua_pushnil(L);
  else push_dc(L, c, (uint32_t)dc);
  return 1;
}

static int l_dcs(lua_State *L) {
  struct correlation *c = check(L);
  lua_Integer count = 0;
  lua_newtable(L);
  for (uint32_t i = 0; i < c->end; i++) {
    if (c->dcs[i].name[0] == 0) continue;
    push_dc(L, c, i);
    lua_rawseti(L, -2, ++count);
  }
  return 1;
}

static int l_counts(lua_State *L) {
  struct correlation *c = check(L);
  lua_createtable(L, 0, 16);
#define COUNT(name) set_integer(L, #name, c->counts.name)
  COUNT(suspects), COUNT(downs), COUNT(ups), COUNT(repeated), COUNT(full), COUNT(damped), COUNT(detected), COUNT(raised);
  COUNT(returned), COUNT(expired), COUNT(alone), COUNT(left), COUNT(vain), COUNT(late);
#undef COUNT
  set_integer(L, "known", c->known);
  return 1;
}

static int l_tostring(lua_State *L) {
  struct correlation *c = check(L);
  lua_pushfstring(L, "correlation: %d datacenters, severity %s", (int)c->known, correlation_severity_name(c->severity));
  return 1;
}

int luaopen_shoal_core_correlation(lua_State *L) {
  static const luaL_Reg functions[] = {{"new", l_new}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"know", l_know}, {"forget", l_forget},     {"suspect", l_suspect}, {"down", l_down},         {"up", l_up},
      {"next", l_next}, {"deadline", l_deadline}, {"holds", l_holds},     {"severity", l_severity}, {"event", l_event},
      {"dc", l_dc},     {"dcs", l_dcs},           {"counts", l_counts},   {NULL, NULL},
  };
  static const luaL_Reg meta[] = {{"__tostring", l_tostring}, {NULL, NULL}};
  luaL_newmetatable(L, TYPE);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, functions);
  set_integer(L, "DCS_MAX", CORRELATION_DCS_MAX);
  set_integer(L, "NAME_MAX", CORRELATION_NAME_MAX);
  return 1;
}
