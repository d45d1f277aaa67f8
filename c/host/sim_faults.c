/* Faults of a simulation: crashes, signals, pauses, cuts, links, clocks; and their counts. */
#include "host/sim_lua.h"

#include "lua/lua_error.h"
#include "lua/lua_world.h"

static int l_crash(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  lua_sim_outside(L, s, "crash");
  struct shoal_world *world = lua_sim_world(m);
  driver_crash(m);
  if (world) lua_sim_forget(L, world);
  return 0;
}

static int l_restart(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  l_crash(L);
  driver_restart(m);
  return 0;
}

static int l_signal(lua_State *L) {
  static const char *const names[] = {"INT", "TERM", "HUP", NULL};
  static const int numbers[] = {2, 15, 1};
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  int which = luaL_checkoption(L, 3, NULL, names);
  lua_sim_outside(L, s, "signal");
  if (!m->program || !m->program->node) return 0;
  if (!node_signal(m->program->node, names[which])) node_exit(m->program->node, 128 + numbers[which]);
  return 0;
}

static int l_pause(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  sim_node_pause(m->sim, lua_toboolean(L, 3));
  return 0;
}

static int l_stall(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  lua_Integer for_ns = luaL_checkinteger(L, 3);
  luaL_argcheck(L, for_ns >= 0, 3, "stall: expected 0 or more");
  sim_node_stall(m->sim, (uint64_t)for_ns);
  return 0;
}

/* The code with the name in this field; 0 when there is none. */
static int field_code(lua_State *L, int table, const char *field) {
  int code = 0;
  if (lua_getfield(L, table, field) != LUA_TNIL) {
    const char *name = luaL_checkstring(L, -1);
    code = error_from_name(name);
    if (code == 0) luaL_error(L, "%s: there is no code '%s'", field, name);
  }
  lua_pop(L, 1);
  return code;
}

/* disk(name, { full =, fail = "EIO", fail_sync = "EIO", sync_ns = }): what is not said is well. */
static int l_disk(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  luaL_checktype(L, 3, LUA_TTABLE);
  struct sim_disk_faults faults = {.fail = field_code(L, 3, "fail"), .fail_sync = field_code(L, 3, "fail_sync"),
                                   .sync_ns = lua_sim_field(L, 3, "sync_ns", 0)};
  lua_getfield(L, 3, "full");
  faults.full = lua_toboolean(L, -1);
  sim_node_disk(m->sim, &faults);
  return 0;
}

static struct sim_node *opt_node(lua_State *L, struct lua_sim *s, int index) {
  return lua_isnil(L, index) ? NULL : lua_sim_machine(L, s, index)->sim;
}

static int l_cut(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  sim_cut(s->driver.sim, opt_node(L, s, 2), opt_node(L, s, 3), lua_toboolean(L, 4));
  return 0;
}

static int l_clog(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  sim_clog(s->driver.sim, opt_node(L, s, 2), opt_node(L, s, 3), lua_toboolean(L, 4));
  return 0;
}

static int l_drift(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  lua_Integer ppm = luaL_checkinteger(L, 3);
  luaL_argcheck(L, ppm >= -SIM_DRIFT_PPM_MAX && ppm <= SIM_DRIFT_PPM_MAX, 3, "drift: expected -200 to 200 ppm");
  (void)sim_node_drift(m->sim, (int32_t)ppm); /* It refuses only values that are refused above. */
  return 0;
}

static int l_step_wall(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  sim_node_step_wall(m->sim, luaL_checkinteger(L, 3));
  return 0;
}

/* slow(name, datagrams a second, queue); 0 a second ends the slowness. */
static int l_slow(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  lua_Integer per_s = luaL_checkinteger(L, 3), queue = luaL_optinteger(L, 4, 0);
  luaL_argcheck(L, per_s >= 0 && per_s <= 1000000000, 3, "slow: expected 0 to 10^9 datagrams a second");
  luaL_argcheck(L, queue >= 0 && queue <= UINT32_MAX, 4, "slow: expected a queue of 0 to 2^32-1 datagrams");
  sim_node_slow(m->sim, (uint32_t)per_s, (uint32_t)queue);
  return 0;
}

/* true, or nil, message, code. */
static int l_readdress(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  struct shoal_address address;
  if (!lua_check_address(L, 3, m->name, &address)) return 3;
  return error_or_true(L, m->name, sim_node_readdress(m->sim, &address));
}

static int l_counts(lua_State *L) {
  const struct sim_counts *c = sim_counted(lua_sim_check(L)->driver.sim);
  const struct { const char *name; uint64_t value; } all[] = {
      {"sent", c->sent},             {"delivered", c->delivered},       {"lost", c->lost},
      {"cut", c->cut},               {"too_large", c->too_large},       {"overflowed", c->overflowed},
      {"corrupted", c->corrupted},   {"duplicated", c->duplicated},     {"reordered", c->reordered},
      {"throttled", c->throttled},   {"clogged", c->clogged},           {"clog_dropped", c->clog_dropped},
      {"slowed", c->slowed},         {"slow_dropped", c->slow_dropped}};
  lua_createtable(L, 0, sizeof all / sizeof *all);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    lua_pushinteger(L, (lua_Integer)all[i].value);
    lua_setfield(L, -2, all[i].name);
  }
  return 1;
}

/* link(from, to, link | nil): nil restores the default. link(nil, nil, link) replaces the default. */
static int l_link(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct sim_link link = {0};
  if (!lua_isnil(L, 4)) link = lua_sim_link(L, 4);
  if (lua_isnil(L, 2) && lua_isnil(L, 3)) sim_set_default_link(s->driver.sim, &link);
  else sim_set_link(s->driver.sim, opt_node(L, s, 2), opt_node(L, s, 3), lua_isnil(L, 4) ? NULL : &link);
  return 0;
}

const luaL_Reg lua_sim_fault_methods[] = {
    {"crash", l_crash}, {"restart", l_restart}, {"signal", l_signal},       {"pause", l_pause},
    {"cut", l_cut},     {"clog", l_clog},       {"drift", l_drift},         {"step_wall", l_step_wall},
    {"slow", l_slow},   {"link", l_link},       {"readdress", l_readdress}, {"counts", l_counts},
    {"stall", l_stall}, {"disk", l_disk},
    {NULL, NULL}};
