/* shoal.core.dc_health: the health of one datacenter, and how hard its managers press back (core/dc_health.h is the manual).
 *
 * Time is given, so that a spec can drive it: now_ns is an integer that does not run back; a smaller one raises.
 *
 *   dc_health.new(now_ns, config?) -> h | nil, message, "CONFIG"
 *     config: degraded_percent, recovered_percent, busy_percent, idle_percent, worse_ms, better_ms, level_ms; integers, each optional
 *   h:judge(now_ns, facts) -> state
 *     facts: { reachable, suspect, managers, managers_alive, workers, cores, free }; a count that is absent is 0
 *   h:state(now_ns) -> "healthy" | "busy" | "degraded" | "unhealthy"
 *   h:press(now_ns, manager, level) -> true | nil, message, "FULL" | "TOO_LARGE"     level: "none" | "throttle" | "batch" | "reject"
 *   h:drop(manager)                    it is no more
 *   h:worst(now_ns) -> level
 *   h:deadline() -> integer | nil      when time alone may change state or level
 *   h:counts() -> { changes, refused, pressing }
 *   dc_health.MANAGERS_MAX, dc_health.NAME_MAX */
#include "core/dc_health.h"

#include <lauxlib.h>
#include <lua.h>

#include "core/errors.h"
#include "lua/modules.h"

static const char TYPE[] = "shoal.dc_health";

static struct dc_health *check(lua_State *L) { return luaL_checkudata(L, 1, TYPE); }

static uint64_t check_now(lua_State *L, const struct dc_health *h) {
  lua_Integer now = luaL_checkinteger(L, 2);
  luaL_argcheck(L, now >= 0 && (uint64_t)now >= h->now_ns, 2, "time must not run back");
  return (uint64_t)now;
}

/* A whole number in the table at `index`, 0..most; `otherwise` where there is none. */
static uint64_t number(lua_State *L, int index, const char *name, uint64_t most, uint64_t otherwise) {
  if (lua_getfield(L, index, name) != LUA_TNIL) {
    int whole;
    lua_Integer value = lua_tointegerx(L, -1, &whole);
    if (!whole || value < 0 || (uint64_t)value > most) luaL_error(L, "dc_health: %s: expected an integer >= 0", name);
    otherwise = (uint64_t)value;
  }
  lua_pop(L, 1);
  return otherwise;
}

static uint32_t count(lua_State *L, int index, const char *name, uint32_t otherwise) {
  return (uint32_t)number(L, index, name, UINT32_MAX, otherwise);
}

static uint64_t duration(lua_State *L, const char *name, uint64_t otherwise_ns) {
  return number(L, 2, name, UINT64_MAX / 2000000, otherwise_ns / 1000000) * 1000000;
}

static bool truth(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

static int l_new(lua_State *L) {
  lua_Integer now = luaL_checkinteger(L, 1);
  luaL_argcheck(L, now >= 0, 1, "expected an instant in ns");
  struct dc_health_config config;
  dc_health_defaults(&config);
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    config.degraded_percent = count(L, 2, "degraded_percent", config.degraded_percent);
    config.recovered_percent = count(L, 2, "recovered_percent", config.recovered_percent);
    config.busy_percent = count(L, 2, "busy_percent", config.busy_percent);
    config.idle_percent = count(L, 2, "idle_percent", config.idle_percent);
    config.worse_ns = duration(L, "worse_ms", config.worse_ns);
    config.better_ns = duration(L, "better_ms", config.better_ns);
    config.level_ns = duration(L, "level_ms", config.level_ns);
  }
  const char *problem = dc_health_config_check(&config);
  if (problem) {
    lua_pushnil(L);
    lua_pushfstring(L, "dc_health: %s", problem);
    lua_pushliteral(L, "CONFIG");
    return 3;
  }
  struct dc_health *h = lua_newuserdatauv(L, sizeof *h, 0);
  dc_health_init(h, &config, (uint64_t)now);
  luaL_setmetatable(L, TYPE);
  return 1;
}

static int l_judge(lua_State *L) {
  struct dc_health *h = check(L);
  uint64_t now_ns = check_now(L, h);
  luaL_checktype(L, 3, LUA_TTABLE);
  struct dc_health_facts facts = {
      .reachable = truth(L, 3, "reachable"), .suspect = truth(L, 3, "suspect"), .managers = count(L, 3, "managers", 0),
      .managers_alive = count(L, 3, "managers_alive", 0), .workers = count(L, 3, "workers", 0), .cores = count(L, 3, "cores", 0),
      .free = count(L, 3, "free", 0),
  };
  luaL_argcheck(L, facts.managers_alive <= facts.managers, 3, "more managers are alive than are known");
  luaL_argcheck(L, facts.free <= facts.cores, 3, "more cores are free than there are");
  return lua_pushstring(L, dc_health_status_name(dc_health_judge(h, now_ns, &facts))), 1;
}

static int l_state(lua_State *L) {
  struct dc_health *h = check(L);
  return lua_pushstring(L, dc_health_status_name(dc_health_state(h, check_now(L, h)))), 1;
}

static int l_press(lua_State *L) {
  static const char *const levels[] = {"none", "throttle", "batch", "reject", NULL};
  struct dc_health *h = check(L);
  uint64_t now_ns = check_now(L, h);
  size_t length;
  const char *manager = luaL_checklstring(L, 3, &length);
  int rc = dc_health_press(h, now_ns, manager, length, (enum dc_health_level)luaL_checkoption(L, 4, NULL, levels));
  if (rc == 0) return lua_pushboolean(L, 1), 1;
  lua_pushnil(L);
  if (rc == ERR_FULL) lua_pushfstring(L, "dc_health: manager %s: at most %d press back at once", manager, DC_HEALTH_MANAGERS_MAX);
  else lua_pushfstring(L, "dc_health: a manager's name has 1 to %d bytes, none of them 0", DC_HEALTH_NAME_MAX);
  lua_pushstring(L, error_name(rc));
  return 3;
}

static int l_drop(lua_State *L) {
  size_t length;
  const char *manager = luaL_checklstring(L, 2, &length);
  return dc_health_drop(check(L), manager, length), 0;
}

static int l_worst(lua_State *L) {
  struct dc_health *h = check(L);
  return lua_pushstring(L, dc_health_level_name(dc_health_worst(h, check_now(L, h)))), 1;
}

static int l_deadline(lua_State *L) {
  uint64_t at_ns = dc_health_deadline(check(L));
  if (at_ns > INT64_MAX) lua_pushnil(L);
  else lua_pushinteger(L, (lua_Integer)at_ns);
  return 1;
}

static int l_counts(lua_State *L) {
  struct dc_health *h = check(L);
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, (lua_Integer)h->changes);
  lua_setfield(L, -2, "changes");
  lua_pushinteger(L, (lua_Integer)h->refused);
  lua_setfield(L, -2, "refused");
  lua_pushinteger(L, (lua_Integer)h->pressing_count);
  lua_setfield(L, -2, "pressing");
  return 1;
}

static int l_tostring(lua_State *L) {
  struct dc_health *h = check(L);
  return lua_pushfstring(L, "dc_health: %s", dc_health_status_name(h->status)), 1;
}

int luaopen_shoal_core_dc_health(lua_State *L) {
  static const luaL_Reg functions[] = {{"new", l_new}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"judge", l_judge}, {"state", l_state},       {"press", l_press},   {"drop", l_drop},
      {"worst", l_worst}, {"deadline", l_deadline}, {"counts", l_counts}, {NULL, NULL},
  };
  static const luaL_Reg meta[] = {{"__tostring", l_tostring}, {NULL, NULL}};
  luaL_newmetatable(L, TYPE);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, functions);
  lua_pushinteger(L, DC_HEALTH_MANAGERS_MAX);
  lua_setfield(L, -2, "MANAGERS_MAX");
  lua_pushinteger(L, DC_HEALTH_NAME_MAX);
  lua_setfield(L, -2, "NAME_MAX");
  return 1;
}
