/* shoal.core.federation: which datacenters are reachable, by probes that the owner sends (core/federation.h is the manual).
 *
 *   federation.new(config) -> f | nil, message, "CONFIG"    config: the fields of struct federation_config in ms (interval_ms, timeout_ms,
 *                                     timeout_max_ms, suspicion_ms, retry_ms, retry_max_ms), failures, dcs_max, incarnation, seed; and now_ns
 *   federation.bounds(config, timeout_ms?) -> suspected_ms, unreachable_ms | nil, message, "CONFIG"   at most so long after a cut
 *   federation.IN_FLIGHT              probes of one datacenter that can be under way
 *   f:know(now_ns, term) -> dc | nil, message, code         "FULL"; a dc is a number here
 *   f:lead(now_ns, dc, term)          another leader, or another address of it
 *   f:forget(dc)
 *   f:ack(now_ns, dc, seq, incarnation, term) -> true | nil, message, code       "STALE", "NOT_FOUND"
 *   f:fail(now_ns, dc, seq, ours) -> true | nil, message, code                   "NOT_FOUND"; with `ours`: delay_ns, errors in a row
 *   f:next(now_ns) -> nil | "probe", dc, seq, incarnation, term, timeout_ns
 *                         | "state", dc, from, to, unanswered, own_errors, silent_ns | nil, timeout_ns
 *                         | "over", dc, seq
 *   f:deadline() -> now_ns | nil      when to call next again
 *   f:view(now_ns, dc) -> { state, seq, unanswered, own_errors, in_flight, incarnation, term, rtt_ns, rttvar_ns, timeout_ns, next_ns,
 *                           silent_ns?, suspected_ns?, unreachable_ns? } | nil
 *   f:counts() -> table
 *   f:close()                         idempotent; the other methods then raise */
#include <lauxlib.h>
#include <lua.h>

#include "core/errors.h"
#include "core/federation.h"
#include "lua/lua_error.h"
#include "lua/modules.h"

static const char TYPE[] = "shoal.federation";

struct lua_federation {
  bool open;
  struct federation core;
};

static struct federation *check(lua_State *L) {
  struct lua_federation *f = luaL_checkudata(L, 1, TYPE);
  if (!f->open) luaL_argerror(L, 1, "it is closed");
  return &f->core;
}

static uint64_t check_natural(lua_State *L, int index) {
  lua_Integer value = luaL_checkinteger(L, index);
  luaL_argcheck(L, value >= 0, index, "must not be negative");
  return (uint64_t)value;
}

/* Time does not run back: a caller's mistake, found here and not by an assertion of the core. */
static uint64_t check_now(lua_State *L, const struct federation *f) {
  uint64_t now = check_natural(L, 2);
  luaL_argcheck(L, now >= f->now_ns + f->stalled_ns, 2, "lies before the time of an earlier call");
  return now;
}

static uint32_t check_dc(lua_State *L, int index) {
  lua_Integer dc = luaL_checkinteger(L, index);
  return dc >= 0 && dc < UINT32_MAX ? (uint32_t)dc : UINT32_MAX;
}

static uint32_t check_known(lua_State *L, const struct federation *f, int index) {
  uint32_t dc = check_dc(L, index);
  luaL_argcheck(L, federation_knows(f, dc), index, "no datacenter has this number");
  return dc;
}

static bool take(lua_State *L, int index, const char *name, uint64_t *out, uint64_t unit) {
  bool given = lua_getfield(L, index, name) != LUA_TNIL;
  if (given) {
    int whole;
    lua_Integer value = lua_tointegerx(L, -1, &whole);
    if (!whole || value < 0 || (uint64_t)value > UINT64_MAX / unit) luaL_error(L, "%s: expected a natural number", name);
    *out = (uint64_t)value * unit;
  }
  lua_pop(L, 1);
  return given;
}

static struct federation_config take_config(lua_State *L, int index) {
  luaL_checktype(L, index, LUA_TTABLE);
  struct federation_config c;
  federation_config_default(&c);
  static const uint64_t ms = 1000000;
  uint64_t failures = c.failures, dcs_max = c.dcs_max;
  take(L, index, "interval_ms", &c.interval_ns, ms);
  take(L, index, "timeout_ms", &c.timeout_ns, ms);
  take(L, index, "timeout_max_ms", &c.timeout_max_ns, ms);
  take(L, index, "suspicion_ms", &c.suspicion_ns, ms);
  take(L, index, "retry_ms", &c.retry_ns, ms);
  take(L, index, "retry_max_ms", &c.retry_max_ns, ms);
  take(L, index, "failures", &failures, 1);
  take(L, index, "dcs_max", &dcs_max, 1);
  take(L, index, "incarnation", &c.incarnation, 1);
  take(L, index, "seed", &c.seed, 1);
  c.failures = failures < UINT32_MAX ? (uint32_t)failures : UINT32_MAX;
  c.dcs_max = dcs_max < UINT32_MAX ? (uint32_t)dcs_max : UINT32_MAX;
  return c;
}

static int refuse_config(lua_State *L, const char *problem) {
  lua_pushnil(L);
  lua_pushfstring(L, "federation: %s", problem);
  lua_pushstring(L, error_name(ERR_CONFIG));
  return 3;
}

static int l_new(lua_State *L) {
  struct federation_config c = take_config(L, 1);
  uint64_t now_ns = 0;
  take(L, 1, "now_ns", &now_ns, 1);
  const char *problem = federation_config_check(&c);
  if (problem) return refuse_config(L, problem);
  struct lua_federation *f = lua_newuserdatauv(L, sizeof *f, 0);
  f->open = false;
  luaL_setmetatable(L, TYPE);
  federation_init(&f->core, &c, now_ns);
  f->open = true;
  return 1;
}

static int l_bounds(lua_State *L) {
  struct federation_config c = take_config(L, 1);
  const char *problem = federation_config_check(&c);
  if (problem) return refuse_config(L, problem);
  uint64_t timeout_ns = lua_isnoneornil(L, 2) ? c.timeout_ns : check_natural(L, 2) * 1000000;
  lua_pushinteger(L, (lua_Integer)(federation_suspect_ns(&c, timeout_ns) / 1000000));
  lua_pushinteger(L, (lua_Integer)(federation_unreachable_ns(&c, timeout_ns) / 1000000));
  return 2;
}

static int l_know(lua_State *L) {
  struct federation *f = check(L);
  uint64_t now = check_now(L, f), term = check_natural(L, 3);
  uint32_t dc;
  int rc = federation_know(f, now, term, &dc);
  if (rc < 0) return error_push(L, "federation: one more datacenter", rc);
  lua_pushinteger(L, dc);
  return 1;
}

static int l_lead(lua_State *L) {
  struct federation *f = check(L);
  uint64_t now = check_now(L, f);
  uint32_t dc = check_known(L, f, 3);
  federation_lead(f, now, dc, check_natural(L, 4));
  return 0;
}

static int l_forget(lua_State *L) {
  struct federation *f = check(L);
  federation_forget(f, check_known(L, f, 2));
  return 0;
}

static int l_ack(lua_State *L) {
  struct federation *f = check(L);
  uint64_t now = check_now(L, f), seq = check_natural(L, 4), incarnation = check_natural(L, 5), term = check_natural(L, 6);
  int rc = federation_ack(f, now, check_dc(L, 3), seq < UINT32_MAX ? (uint32_t)seq : UINT32_MAX, incarnation, term);
  return error_or_true(L, "federation: an answer", rc);
}

static int l_fail(lua_State *L) {
  struct federation *f = check(L);
  uint64_t now = check_now(L, f), seq = check_natural(L, 4), delay_ns = 0;
  bool ours = lua_toboolean(L, 5);
  uint32_t errors = 0;
  int rc = federation_fail(f, now, check_dc(L, 3), seq < UINT32_MAX ? (uint32_t)seq : UINT32_MAX, ours, &delay_ns, &errors);
  if (rc < 0 || !ours) return error_or_true(L, "federation: a failure", rc);
  lua_pushinteger(L, (lua_Integer)delay_ns);
  lua_pushinteger(L, errors);
  return 2;
}

static void push_ns(lua_State *L, uint64_t ns) {
  if (ns > INT64_MAX) lua_pushnil(L);
  else lua_pushinteger(L, (lua_Integer)ns);
}

static int l_next(lua_State *L) {
  struct federation *f = check(L);
  struct federation_action a;
  if (!federation_next(f, check_now(L, f), &a)) return lua_pushnil(L), 1;
  switch (a.kind) {
    case FEDERATION_PROBE:
      lua_pushliteral(L, "probe");
      lua_pushinteger(L, a.dc);
      lua_pushinteger(L, a.seq);
      lua_pushinteger(L, (lua_Integer)a.incarnation);
      lua_pushinteger(L, (lua_Integer)a.term);
      lua_pushinteger(L, (lua_Integer)a.timeout_ns);
      return 6;
    case FEDERATION_STATE:
      lua_pushliteral(L, "state");
      lua_pushinteger(L, a.dc);
      lua_pushstring(L, federation_state_name(a.from));
      lua_pushstring(L, federation_state_name(a.to));
      lua_pushinteger(L, a.unanswered);
      lua_pushinteger(L, a.own_errors);
      push_ns(L, a.silent_ns);
      lua_pushinteger(L, (lua_Integer)a.timeout_ns);
      return 8;
    case FEDERATION_OVER: break;
  }
  lua_pushliteral(L, "over");
  lua_pushinteger(L, a.dc);
  lua_pushinteger(L, a.seq);
  return 3;
}

static int l_deadline(lua_State *L) {
  push_ns(L, federation_deadline(check(L)));
  return 1;
}

static void set_ns(lua_State *L, const char *name, uint64_t ns) {
  push_ns(L, ns);
  lua_setfield(L, -2, name);
}

static int l_view(lua_State *L) {
  struct federation *f = check(L);
  uint64_t now = check_natural(L, 2);
  uint32_t dc = check_dc(L, 3);
  if (!federation_knows(f, dc)) return lua_pushnil(L), 1;
  struct federation_view v;
  federation_view(f, now, dc, &v);
  lua_createtable(L, 0, 14);
  lua_pushstring(L, federation_state_name(v.state));
  lua_setfield(L, -2, "state");
  set_ns(L, "seq", v.seq), set_ns(L, "unanswered", v.unanswered), set_ns(L, "own_errors", v.own_errors);
  set_ns(L, "in_flight", v.in_flight), set_ns(L, "incarnation", v.incarnation), set_ns(L, "term", v.term);
  set_ns(L, "rtt_ns", v.srtt_ns), set_ns(L, "rttvar_ns", v.rttvar_ns), set_ns(L, "timeout_ns", v.timeout_ns);
  set_ns(L, "next_ns", v.next_ns), set_ns(L, "silent_ns", v.silent_ns);
  if (v.suspected_ns) set_ns(L, "suspected_ns", v.suspected_ns);
  if (v.unreachable_ns) set_ns(L, "unreachable_ns", v.unreachable_ns);
  return 1;
}

static int l_counts(lua_State *L) {
  struct federation *f = check(L);
  struct federation_counts n = federation_count(f);
  lua_createtable(L, 0, 20);
  set_ns(L, "probes", n.probes), set_ns(L, "acks", n.acks), set_ns(L, "unanswered", n.unanswered);
  set_ns(L, "own_errors", n.own_errors), set_ns(L, "late", n.late), set_ns(L, "over", n.over);
  set_ns(L, "stale_incarnation", n.stale_incarnation), set_ns(L, "stale_term", n.stale_term), set_ns(L, "leaders", n.leaders);
  set_ns(L, "full", n.full), set_ns(L, "stalls", n.stalls), set_ns(L, "stalled_ns", n.stalled_ns);
  set_ns(L, "became_suspected", n.suspected), set_ns(L, "became_unreachable", n.unreachable);
  set_ns(L, "became_reachable", n.reachable), set_ns(L, "dcs", n.dcs), set_ns(L, "bytes", federation_bytes(f));
  for (int s = 0; s < 3; s++) set_ns(L, federation_state_name((enum federation_state)s), n.in_state[s]);
  return 1;
}

static int l_close(lua_State *L) {
  struct lua_federation *f = luaL_checkudata(L, 1, TYPE);
  if (f->open) federation_free(&f->core);
  f->open = false;
  return 0;
}

static int l_tostring(lua_State *L) {
  struct lua_federation *f = luaL_checkudata(L, 1, TYPE);
  if (!f->open) return lua_pushliteral(L, "federation: closed"), 1;
  struct federation_counts n = federation_count(&f->core);
  lua_pushfstring(L, "federation: %d datacenters, %d reachable, %d suspected", (int)n.dcs, (int)n.in_state[FEDERATION_REACHABLE],
                  (int)n.in_state[FEDERATION_SUSPECTED]);
  return 1;
}

int luaopen_shoal_core_federation(lua_State *L) {
  static const luaL_Reg functions[] = {{"new", l_new}, {"bounds", l_bounds}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"know", l_know}, {"lead", l_lead},         {"forget", l_forget}, {"ack", l_ack},       {"fail", l_fail},
      {"next", l_next}, {"deadline", l_deadline}, {"view", l_view},     {"counts", l_counts}, {"close", l_close},
      {NULL, NULL},
  };
  static const luaL_Reg meta[] = {{"__gc", l_close}, {"__close", l_close}, {"__tostring", l_tostring}, {NULL, NULL}};
  luaL_newmetatable(L, TYPE);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, functions);
  lua_pushinteger(L, FEDERATION_IN_FLIGHT);
  lua_setfield(L, -2, "IN_FLIGHT");
  return 1;
}
