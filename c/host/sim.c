/* shoal.core.sim: the simulator's driver in Lua; lua/shoal/sim/sim.lua is its face. The controlling state, which calls it, is
 * not a simulated node: it names nodes, and exchanges values with them only as copies.
 *
 *   new{ seed=, latency_ns=, jitter_ns=, loss=, ... (world/sim.h's link), home=? } -> sim
 *   sim:add(name, "ip:0") ; sim:start(name, entry, argv) ; sim:world(name) -> world of a machine without a program
 *   sim:call(name, module, fn, ...) -> results copied | nil, message, code      (through that node's door, at once)
 *   sim:run(until_ns) -> done?   sim:step() -> ran?   sim:now_ns()   sim:next_ns()   sim:interrupt()
 *   sim:crash(name) restart(name) pause(name, on) cut(from, to, on) link(from, to, {..}|nil)   (names; nil is any)
 *   sim:clog(from, to, on) drift(name, ppm) step_wall(name, ns) slow(name, per_s, queue) readdress(name, "ip:0") counts() -> {..}
 *   sim:command(name, fn) ; sim:copy_folder(name, from, to) ; sim:status(name) ; sim:log() ; sim:note(who, line)
 *   sim:trace(on) ; sim:close() */
#include "host/sim_lua.h"

#include <stdio.h>
#include <string.h>

#include "host/host.h"
#include "lua/door.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"

struct lua_sim *lua_sim_check(lua_State *L) {
  struct lua_sim *s = luaL_checkudata(L, 1, SIM_NAME);
  if (!s->driver.sim) luaL_argerror(L, 1, "this simulation is closed");
  return s;
}

struct machine *lua_sim_machine(lua_State *L, struct lua_sim *s, int index) {
  const char *name = luaL_checkstring(L, index);
  struct machine *m = driver_find(&s->driver, name);
  if (!m) luaL_argerror(L, index, lua_pushfstring(L, "there is no node '%s'", name));
  return m;
}

void lua_sim_outside(lua_State *L, const struct lua_sim *s, const char *what) {
  if (s->driver.depth > 0) luaL_error(L, "%s: not from within a step of the simulation; use sim:later(fn)", what);
}

void lua_sim_forget(lua_State *L, struct shoal_world *world) {
  lua_handle_abandon_all(L, world);
  lua_forget_world(L, world);
}

struct shoal_world *lua_sim_world(const struct machine *m) { return m->up ? sim_node_world(m->sim) : NULL; }

/* ---- fields of options ---- */

uint64_t lua_sim_field(lua_State *L, int table, const char *name, uint64_t otherwise) {
  uint64_t value = otherwise;
  if (lua_getfield(L, table, name) != LUA_TNIL) {
    lua_Integer given = luaL_checkinteger(L, -1);
    if (given < 0) luaL_error(L, "%s: expected 0 or more, got %I", name, (LUAI_UACINT)given);
    value = (uint64_t)given;
  }
  lua_pop(L, 1);
  return value;
}

static double field_share(lua_State *L, int table, const char *name) {
  double share = 0;
  if (lua_getfield(L, table, name) != LUA_TNIL) {
    share = luaL_checknumber(L, -1);
    if (!(share >= 0 && share <= 1)) luaL_error(L, "%s: expected 0 to 1", name);
  }
  lua_pop(L, 1);
  return share;
}

static uint32_t field_u32(lua_State *L, int table, const char *name) {
  uint64_t value = lua_sim_field(L, table, name, 0);
  if (value > UINT32_MAX) luaL_error(L, "%s: expected at most 4294967295", name);
  return (uint32_t)value;
}

struct sim_link lua_sim_link(lua_State *L, int table) {
  return (struct sim_link){.latency_ns = lua_sim_field(L, table, "latency_ns", 0), .jitter_ns = lua_sim_field(L, table, "jitter_ns", 0),
                           .loss = field_share(L, table, "loss"), .corrupt = field_share(L, table, "corrupt"),
                           .duplicate = field_share(L, table, "duplicate"), .reorder = field_share(L, table, "reorder"),
                           .reorder_ns = lua_sim_field(L, table, "reorder_ns", 0),
                           .bytes_per_s = lua_sim_field(L, table, "bytes_per_s", 0),
                           .queue_bytes = field_u32(L, table, "queue_bytes"), .size_max = field_u32(L, table, "size_max")};
}

/* ---- making ---- */

static int l_new(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  struct sim_config config = {.seed = lua_sim_field(L, 1, "seed", 1), .link = lua_sim_link(L, 1)};
  char home[4096];
  host_home(home, sizeof home);
  if (lua_getfield(L, 1, "home") == LUA_TSTRING) (void)snprintf(home, sizeof home, "%s", lua_tostring(L, -1));
  struct lua_sim *s = lua_newuserdatauv(L, sizeof *s, 1);
  memset(s, 0, sizeof *s);
  luaL_setmetatable(L, SIM_NAME);
  lua_newtable(L);
  lua_setiuservalue(L, -2, SIM_COMMANDS);
  s->L = door_main(L);
  int rc = driver_open(&s->driver, &config, home);
  if (rc < 0) return error_push(L, "sim", rc);
  s->driver.on_command = lua_sim_on_command;
  s->driver.data = s;
  lua_pushvalue(L, -1); /* Pinned while it is open: a step may call the functions it holds. */
  lua_rawsetp(L, LUA_REGISTRYINDEX, s);
  return 1;
}

static int l_add(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  const char *name = luaL_checkstring(L, 2);
  struct shoal_address address;
  struct machine *m;
  if (!lua_check_address(L, 3, name, &address)) return 3;
  return error_or_true(L, name, driver_add(&s->driver, name, &address, &m));
}

static int l_start(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  const char *entry = luaL_checkstring(L, 3);
  luaL_checktype(L, 4, LUA_TTABLE);
  lua_sim_outside(L, s, "start");
  size_t count = (size_t)luaL_len(L, 4);
  const char **argv = lua_newuserdatauv(L, (count + 1) * sizeof *argv, 0);
  for (size_t i = 0; i < count; i++) {
    if (lua_rawgeti(L, 4, (lua_Integer)i + 1) != LUA_TSTRING) luaL_error(L, "start: argv[%d] is no string", (int)i + 1);
    argv[i] = lua_tostring(L, -1);
    lua_pop(L, 1); /* The table keeps it. */
  }
  argv[count] = NULL;
  return error_or_true(L, m->name, driver_start(m, entry, argv));
}

static int l_world(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  if (!m->up) return error_push(L, m->name, ERR_CLOSED);
  lua_push_world(L, sim_node_world(m->sim));
  return 1;
}

/* ---- time ---- */

static int l_run(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  lua_Integer until = luaL_checkinteger(L, 2);
  lua_sim_outside(L, s, "run");
  uint64_t now = sim_now_ns(s->driver.sim);
  lua_pushboolean(L, driver_run(&s->driver, until > 0 && (uint64_t)until > now ? (uint64_t)until : now));
  return 1;
}

static int l_step(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  lua_sim_outside(L, s, "step");
  lua_pushboolean(L, driver_step(&s->driver));
  return 1;
}

static int l_now_ns(lua_State *L) { return lua_pushinteger(L, (lua_Integer)sim_now_ns(lua_sim_check(L)->driver.sim)), 1; }

static int l_events(lua_State *L) { return lua_pushinteger(L, (lua_Integer)sim_events(lua_sim_check(L)->driver.sim)), 1; }

/* nil when nothing will ever happen. */
static int l_next_ns(lua_State *L) {
  uint64_t next = sim_next_ns(lua_sim_check(L)->driver.sim);
  if (next == UINT64_MAX) lua_pushnil(L);
  else lua_pushinteger(L, (lua_Integer)next);
  return 1;
}

static int l_interrupt(lua_State *L) {
  lua_sim_check(L)->driver.interrupted = true;
  return 0;
}

static int l_stepping(lua_State *L) { return lua_pushboolean(L, lua_sim_check(L)->driver.depth > 0), 1; }

/* ---- the log, and the rest ---- */

static int l_log(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  lua_pushlstring(L, s->driver.log ? s->driver.log : "", s->driver.log_length);
  return 1;
}

static int l_note(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  size_t length;
  const char *who = luaL_checkstring(L, 2), *line = luaL_checklstring(L, 3, &length);
  luaL_argcheck(L, strlen(who) < 80, 2, "expected a name of less than 80 bytes");
  driver_log(&s->driver, who, line, length);
  return 0;
}

static int l_trace(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  s->driver.trace = lua_toboolean(L, 2);
  return 0;
}

static int l_copy_folder(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  const char *from = luaL_checkstring(L, 3);
  return error_or_true(L, from, driver_copy_folder(m, from, luaL_checkstring(L, 4)));
}

static int l_home(lua_State *L) { return lua_pushstring(L, lua_sim_check(L)->driver.home), 1; }

/* "up", "down" or "ended", the last exit code, the number of children, and open handles when it is up. */
static int l_status(lua_State *L) {
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  lua_Integer children = 0;
  for (struct program *p = m->children; p; p = p->next) children += !p->dead;
  lua_pushstring(L, !m->up ? "down" : m->program ? "up" : "ended");
  if (m->code < 0) lua_pushnil(L);
  else lua_pushinteger(L, m->code);
  lua_pushinteger(L, children);
  if (!m->up) return 3;
  struct world_telemetry t;
  world_telemetry(sim_node_world(m->sim), &t);
  lua_pushinteger(L, t.open_handles);
  return 4;
}

static void close_sim(lua_State *L, struct lua_sim *s) {
  if (!s->driver.sim) return;
  size_t count = 0;
  for (struct machine *m = s->driver.machines; m; m = m->next) count++;
  struct shoal_world **worlds = lua_newuserdatauv(L, (count + 1) * sizeof *worlds, 0);
  count = 0;
  for (struct machine *m = s->driver.machines; m; m = m->next)
    if (m->up) worlds[count++] = lua_sim_world(m);
  driver_close(&s->driver);
  for (size_t i = 0; i < count; i++) lua_sim_forget(L, worlds[i]);
  lua_pop(L, 1);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, s);
}

static int l_close(lua_State *L) {
  struct lua_sim *s = luaL_checkudata(L, 1, SIM_NAME);
  if (s->driver.sim) lua_sim_outside(L, s, "close");
  close_sim(L, s);
  return 0;
}

static int l_gc(lua_State *L) {
  close_sim(L, lua_touserdata(L, 1));
  return 0;
}

static const luaL_Reg methods[] = {
    {"add", l_add},         {"start", l_start},     {"world", l_world},         {"run", l_run},
    {"step", l_step},       {"now_ns", l_now_ns},   {"next_ns", l_next_ns},     {"events", l_events},
    {"log", l_log},         {"note", l_note},       {"trace", l_trace},         {"status", l_status},
    {"home", l_home},       {"close", l_close},     {"interrupt", l_interrupt}, {"stepping", l_stepping},
    {"copy_folder", l_copy_folder}, {NULL, NULL}};

int luaopen_shoal_core_sim(lua_State *L) {
  static const luaL_Reg functions[] = {{"new", l_new}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_gc}, {"__close", l_close}, {NULL, NULL}};
  lua_pushcfunction(L, luaopen_shoal_core_world); /* It makes the classes that worlds need. */
  lua_call(L, 0, 0);
  if (luaL_newmetatable(L, SIM_NAME)) {
    luaL_setfuncs(L, meta, 0);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    luaL_setfuncs(L, lua_sim_call_methods, 0);
    luaL_setfuncs(L, lua_sim_fault_methods, 0);
    luaL_setfuncs(L, lua_sim_command_methods, 0);
    lua_setfield(L, -2, "__index");
  }
  luaL_newlib(L, functions);
  return 1;
}
