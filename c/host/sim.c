/* shoal.core.sim: the simulator's driver in Lua; lua/shoal/sim/sim.lua is its face. The state that calls it, the controlling
 * one, is a state of its own: it sees simulated nodes by name, and values only as copies.
 *
 *   new{ seed=, latency_ns=, jitter_ns=, loss=, ... (world/sim.h's link), home=? } -> sim
 *   sim:add(name, "ip:0") ; sim:start(name, entry, argv) ; sim:world(name) -> world of a machine without a program
 *   sim:call(name, module, fn, ...) -> results copied | nil, message, code      (through that node's door, at once)
 *   sim:run(until_ns) -> done?   sim:step() -> ran?   sim:now_ns()   sim:next_ns()   sim:interrupt()
 *   sim:crash(name) restart(name) pause(name, on) cut(from, to, on) link(from, to, {..}|nil)   (names; nil is any)
 *   sim:clog(from, to, on) drift(name, ppm) step_wall(name, ns) slow(name, per_s, queue) readdress(name, "ip:0") counts() -> {..}
 *   sim:command(name, fn) ; sim:copy_folder(name, from, to) ; sim:status(name) ; sim:log() ; sim:note(who, line)
 *   sim:trace(on) ; sim:close() */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "host/copy.h"
#include "host/host.h"
#include "host/sim_driver.h"
#include "lua/door.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"

#define SIM_NAME "shoal.sim"

struct lua_sim {
  struct driver driver;
  lua_State *L; /* The controlling state's main thread. */
};
enum { FORK_NS = 2000000 }; /* What fork and exec take. */
enum { COMMANDS = 1 }; /* The user value: name -> function. */

static struct lua_sim *check_sim(lua_State *L) {
  struct lua_sim *s = luaL_checkudata(L, 1, SIM_NAME);
  if (!s->driver.sim) luaL_argerror(L, 1, "this simulation is closed");
  return s;
}

static struct machine *check_machine(lua_State *L, struct lua_sim *s, int index) {
  const char *name = luaL_checkstring(L, index);
  struct machine *m = driver_find(&s->driver, name);
  if (!m) luaL_argerror(L, index, lua_pushfstring(L, "there is no node '%s'", name));
  return m;
}

/* What ends a state cannot be asked for from within a step, for it may be that state's. */
static void check_outside(lua_State *L, const struct lua_sim *s, const char *what) {
  if (s->driver.depth > 0) luaL_error(L, "%s: not from within a step of the simulation; use sim:later(fn)", what);
}

/* ---- making ---- */

static uint64_t field_ns(lua_State *L, int table, const char *name, uint64_t otherwise) {
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
  uint64_t value = field_ns(L, table, name, 0);
  if (value > UINT32_MAX) luaL_error(L, "%s: expected at most 4294967295", name);
  return (uint32_t)value;
}

static struct sim_link check_link(lua_State *L, int table) {
  return (struct sim_link){.latency_ns = field_ns(L, table, "latency_ns", 0), .jitter_ns = field_ns(L, table, "jitter_ns", 0),
                           .loss = field_share(L, table, "loss"), .corrupt = field_share(L, table, "corrupt"),
                           .duplicate = field_share(L, table, "duplicate"), .reorder = field_share(L, table, "reorder"),
                           .reorder_ns = field_ns(L, table, "reorder_ns", 0),
                           .bytes_per_s = field_ns(L, table, "bytes_per_s", 0),
                           .queue_bytes = field_u32(L, table, "queue_bytes"), .size_max = field_u32(L, table, "size_max")};
}

static int on_command(void *data, struct machine *parent, const struct world_spawn *options, struct sim_process *process);

static int l_new(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  struct sim_config config = {.seed = field_ns(L, 1, "seed", 1), .link = check_link(L, 1)};
  char home[4096];
  host_home(home, sizeof home);
  if (lua_getfield(L, 1, "home") == LUA_TSTRING) (void)snprintf(home, sizeof home, "%s", lua_tostring(L, -1));
  struct lua_sim *s = lua_newuserdatauv(L, sizeof *s, 1);
  memset(s, 0, sizeof *s);
  luaL_setmetatable(L, SIM_NAME);
  lua_newtable(L);
  lua_setiuservalue(L, -2, COMMANDS);
  s->L = door_main(L);
  int rc = driver_open(&s->driver, &config, home);
  if (rc < 0) return error_push(L, "sim", rc);
  s->driver.on_command = on_command;
  s->driver.data = s;
  lua_pushvalue(L, -1); /* Pinned while it is open: a step may call the functions it holds. */
  lua_rawsetp(L, LUA_REGISTRYINDEX, s);
  return 1;
}

static int l_add(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  const char *name = luaL_checkstring(L, 2);
  struct shoal_address address;
  struct machine *m;
  if (!lua_check_address(L, 3, name, &address)) return 3;
  return error_or_true(L, name, driver_add(&s->driver, name, &address, &m));
}

static int l_start(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
  const char *entry = luaL_checkstring(L, 3);
  luaL_checktype(L, 4, LUA_TTABLE);
  check_outside(L, s, "start");
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
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
  if (!m->up) return error_push(L, m->name, ERR_CLOSED);
  lua_push_world(L, sim_node_world(m->sim));
  return 1;
}

/* ---- calling into a node ---- */

struct far_call {
  const char *module, *function, *problem;
  struct copy arguments, results;
  int count; /* Of arguments, then of results. */
};

static int push_far(lua_State *L, void *data) {
  struct far_call *c = data;
  size_t at = 0;
  lua_getglobal(L, "require");
  lua_pushstring(L, c->module);
  lua_call(L, 1, 1);
  lua_getfield(L, -1, c->function);
  lua_remove(L, -2);
  for (int i = 0; i < c->count; i++) copy_get(L, &c->arguments, &at);
  return c->count;
}

static void take_far(lua_State *L, void *data) {
  struct far_call *c = data;
  c->count = lua_gettop(L);
  for (int i = 1; i <= c->count && !c->problem; i++) c->problem = copy_put(L, i, &c->results);
}

static int free_call(lua_State *L) {
  struct far_call *c = lua_touserdata(L, 1);
  copy_free(&c->arguments);
  copy_free(&c->results);
  return 0;
}

static struct far_call *new_call(lua_State *L) {
  struct far_call *c = lua_newuserdatauv(L, sizeof *c, 0);
  memset(c, 0, sizeof *c);
  if (luaL_newmetatable(L, "shoal.sim.call")) {
    lua_pushcfunction(L, free_call);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return c;
}

static int l_call(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
  int top = lua_gettop(L);
  struct far_call *c = new_call(L); /* Freed by the collector, whatever raises. */
  c->module = luaL_checkstring(L, 3);
  c->function = luaL_checkstring(L, 4);
  for (int i = 5; i <= top; i++, c->count++) {
    const char *problem = copy_put(L, i, &c->arguments);
    if (problem) return luaL_argerror(L, i, problem);
  }
  if (!m->program || !m->program->node) return error_push(L, m->name, ERR_CLOSED);
  s->driver.depth++; /* What it calls must not end the node under it. */
  bool ok = door_call(node_state(m->program->node), "sim.call", push_far, LUA_MULTRET, take_far, c);
  s->driver.depth--;
  if (!ok) return error_push(L, m->name, ERR_FAILED);
  if (c->problem) return luaL_error(L, "%s: %s", m->name, c->problem);
  size_t at = 0;
  luaL_checkstack(L, c->count, "results");
  for (int i = 0; i < c->count; i++) copy_get(L, &c->results, &at);
  int count = c->count;
  copy_free(&c->arguments); /* Now, not when the collector comes by. */
  copy_free(&c->results);
  return count;
}

/* ---- time ---- */

static int l_run(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  lua_Integer until = luaL_checkinteger(L, 2);
  check_outside(L, s, "run");
  uint64_t now = sim_now_ns(s->driver.sim);
  lua_pushboolean(L, driver_run(&s->driver, until > 0 && (uint64_t)until > now ? (uint64_t)until : now));
  return 1;
}

static int l_step(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  check_outside(L, s, "step");
  lua_pushboolean(L, driver_step(&s->driver));
  return 1;
}

static int l_now_ns(lua_State *L) { return lua_pushinteger(L, (lua_Integer)sim_now_ns(check_sim(L)->driver.sim)), 1; }

static int l_events(lua_State *L) { return lua_pushinteger(L, (lua_Integer)sim_events(check_sim(L)->driver.sim)), 1; }

/* nil when nothing will ever happen. */
static int l_next_ns(lua_State *L) {
  uint64_t next = sim_next_ns(check_sim(L)->driver.sim);
  if (next == UINT64_MAX) lua_pushnil(L);
  else lua_pushinteger(L, (lua_Integer)next);
  return 1;
}

static int l_interrupt(lua_State *L) {
  check_sim(L)->driver.interrupted = true;
  return 0;
}

static int l_stepping(lua_State *L) { return lua_pushboolean(L, check_sim(L)->driver.depth > 0), 1; }

/* ---- faults ---- */

/* What the controlling state holds in the world of a machine without a program goes with that world. The world has gone
 * already, for it may still have held what those things deferred: its pointer is only a name. */
static void forget_world(lua_State *L, struct shoal_world *world) {
  lua_handle_abandon_all(L, world);
  lua_forget_world(L, world);
}

static struct shoal_world *world_of(const struct machine *m) { return m->up ? sim_node_world(m->sim) : NULL; }

static int l_crash(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
  check_outside(L, s, "crash");
  struct shoal_world *world = world_of(m);
  driver_crash(m);
  if (world) forget_world(L, world);
  return 0;
}

static int l_restart(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
  l_crash(L);
  driver_restart(m);
  return 0;
}

static int l_signal(lua_State *L) {
  static const char *const names[] = {"INT", "TERM", "HUP", NULL};
  static const int numbers[] = {2, 15, 1};
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
  int which = luaL_checkoption(L, 3, NULL, names);
  check_outside(L, s, "signal");
  if (!m->program || !m->program->node) return 0;
  if (!node_signal(m->program->node, names[which])) node_exit(m->program->node, 128 + numbers[which]);
  return 0;
}

static int l_pause(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
  sim_node_pause(m->sim, lua_toboolean(L, 3));
  return 0;
}

static struct sim_node *opt_node(lua_State *L, struct lua_sim *s, int index) {
  return lua_isnil(L, index) ? NULL : check_machine(L, s, index)->sim;
}

static int l_cut(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  sim_cut(s->driver.sim, opt_node(L, s, 2), opt_node(L, s, 3), lua_toboolean(L, 4));
  return 0;
}

static int l_clog(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  sim_clog(s->driver.sim, opt_node(L, s, 2), opt_node(L, s, 3), lua_toboolean(L, 4));
  return 0;
}

static int l_drift(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
  lua_Integer ppm = luaL_checkinteger(L, 3);
  luaL_argcheck(L, ppm >= -SIM_DRIFT_PPM_MAX && ppm <= SIM_DRIFT_PPM_MAX, 3, "drift: expected -200 to 200 ppm");
  (void)sim_node_drift(m->sim, (int32_t)ppm); /* It refuses only what was looked at here. */
  return 0;
}

static int l_step_wall(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
  sim_node_step_wall(m->sim, luaL_checkinteger(L, 3));
  return 0;
}

/* slow(name, datagrams a second, queue): 0 a second ends it. */
static int l_slow(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
  lua_Integer per_s = luaL_checkinteger(L, 3), queue = luaL_optinteger(L, 4, 0);
  luaL_argcheck(L, per_s >= 0 && per_s <= 1000000000, 3, "slow: expected 0 to 10^9 datagrams a second");
  luaL_argcheck(L, queue >= 0 && queue <= UINT32_MAX, 4, "slow: expected a queue of 0 to 2^32-1 datagrams");
  sim_node_slow(m->sim, (uint32_t)per_s, (uint32_t)queue);
  return 0;
}

/* true, or nil, message, code. */
static int l_readdress(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
  struct shoal_address address;
  if (!lua_check_address(L, 3, m->name, &address)) return 3;
  return error_or_true(L, m->name, sim_node_readdress(m->sim, &address));
}

static int l_counts(lua_State *L) {
  const struct sim_counts *c = sim_counted(check_sim(L)->driver.sim);
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
  struct lua_sim *s = check_sim(L);
  struct sim_link link = {0};
  if (!lua_isnil(L, 4)) link = check_link(L, 4);
  if (lua_isnil(L, 2) && lua_isnil(L, 3)) sim_set_default_link(s->driver.sim, &link);
  else sim_set_link(s->driver.sim, opt_node(L, s, 2), opt_node(L, s, 3), lua_isnil(L, 4) ? NULL : &link);
  return 0;
}

/* ---- commands: children that are functions of the controlling state ---- */

struct command {
  struct lua_sim *sim;
  struct sim_process *process;
  struct shoal_world *world;   /* Its own, when it reads stdin. */
  struct world_timer *start;
  struct world_stream *stdin_; /* Until its end. */
  struct copy input;
  char name[128];
  size_t argc;
  char **argv;
  /* What the function said. */
  bool found;
  lua_Integer status;
  uint64_t duration_ns;
};

static void free_command(struct command *c) {
  for (size_t i = 0; i < c->argc; i++) free(c->argv[i]);
  free(c->argv);
  copy_free(&c->input);
  free(c);
}

static void push_commands(lua_State *L, const struct command *c) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, c->sim);
  lua_getiuservalue(L, -1, COMMANDS);
  lua_getfield(L, -1, c->name);
  lua_replace(L, 1);
  lua_settop(L, 1);
}

static int nothing(lua_State *L) {
  (void)L;
  return 0;
}

static int push_lookup(lua_State *L, void *data) {
  struct command *c = data;
  push_commands(L, c);
  c->found = lua_isfunction(L, 1);
  lua_settop(L, 0);
  lua_pushcfunction(L, nothing);
  return 0;
}

static int push_command(lua_State *L, void *data) {
  struct command *c = data;
  push_commands(L, c);
  lua_createtable(L, (int)c->argc, 0);
  for (size_t i = 0; i < c->argc; i++) {
    lua_pushstring(L, c->argv[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_pushlstring(L, c->input.bytes ? c->input.bytes : "", c->input.length);
  return 2;
}

/* output, status, duration_ms; each may be nil. */
static void take_command(lua_State *L, void *data) {
  struct command *c = data;
  size_t length;
  if (lua_isstring(L, 1)) {
    const char *output = lua_tolstring(L, 1, &length);
    if (length > 0) sim_process_write(c->process, 1, output, length);
  }
  c->status = lua_isnil(L, 2) ? 0 : luaL_checkinteger(L, 2);
  double ms = luaL_optnumber(L, 3, 1);
  c->duration_ns = ms > 0 && ms < 1e12 ? (uint64_t)(ms * 1e6) : 0;
}

static void run_command(struct command *c) {
  c->status = 127;
  (void)door_call(c->sim->L, "sim.command", push_command, 3, take_command, c); /* A raise is told there, and is status 127. */
  struct sim_process *process = c->process;
  int64_t status = c->status;
  uint64_t duration_ns = c->duration_ns;
  free_command(c);
  sim_process_exit(process, duration_ns, status, 0);
}

static void on_input(void *data, const uint8_t *bytes, size_t length) {
  struct command *c = data;
  if (c->input.length + length > c->input.room) {
    size_t room = (c->input.room + length) * 2;
    char *grown = realloc(c->input.bytes, room);
    assert(grown); /* A few bytes of a spec. */
    c->input.bytes = grown;
    c->input.room = room;
  }
  memcpy(c->input.bytes + c->input.length, bytes, length);
  c->input.length += length;
}

static void on_input_closed(void *data) { run_command(data); }

static void on_input_end(void *data, int status) {
  struct command *c = data;
  (void)status; /* However it ended, what came is what there is. */
  world_stream_close(c->stdin_);
}

static void on_command_killed(void *data, int signal) {
  (void)signal; /* The simulator tells the parent. */
  free_command(data);
}

/* The name a line of shell begins with. */
static void first_word(const char *line, char *out, size_t size) {
  size_t start = strspn(line, " \t"), length = strcspn(line + start, " \t\n;|&<>");
  (void)snprintf(out, size, "%.*s", (int)(length < size ? length : size - 1), line + start);
}

static int take_words(struct command *c, const struct world_spawn *options) {
  size_t count = 0;
  while (options->argv[count]) count++;
  c->argv = calloc(count, sizeof *c->argv);
  for (; c->argv && c->argc < count; c->argc++) {
    c->argv[c->argc] = strdup(options->argv[c->argc]);
    if (!c->argv[c->argc]) return ERR_MEMORY;
  }
  if (!c->argv) return ERR_MEMORY;
  bool shell = count >= 3 && strcmp(c->argv[0], "sh") == 0 && strcmp(c->argv[1], "-c") == 0;
  const char *slash = strrchr(c->argv[0], '/');
  if (shell) first_word(c->argv[2], c->name, sizeof c->name);
  else (void)snprintf(c->name, sizeof c->name, "%s", slash ? slash + 1 : c->argv[0]);
  return 0;
}

/* Not within the spawn: the parent has no end of the pipe yet. */
static void on_command_start(void *data) {
  static const struct world_stream_events events = {
      .on_read = on_input, .on_end = on_input_end, .on_closed = on_input_closed};
  struct command *c = data;
  world_timer_close(c->start);
  if (world_stdio(c->world, 0, &c->stdin_) < 0) run_command(c); /* It has none after all. */
  else world_stream_attach(c->stdin_, &events, c);
}

static int on_command(void *data, struct machine *parent, const struct world_spawn *options, struct sim_process *process) {
  struct command *c = calloc(1, sizeof *c);
  (void)parent; /* A command is the same everywhere; its arguments may say where. */
  if (!c) return ERR_MEMORY;
  c->sim = data;
  c->process = process;
  int rc = take_words(c, options);
  if (rc == 0 && !door_call(c->sim->L, "sim.command", push_lookup, 0, NULL, c)) rc = ERR_FAILED;
  if (rc == 0 && !c->found) rc = -ENOENT;
  if (rc == 0 && options->pipe[0]) {
    c->world = sim_process_world(process);
    rc = world_timer_open(c->world, on_command_start, NULL, c, &c->start);
  }
  if (rc < 0) {
    free_command(c);
    return rc;
  }
  if (!c->start) {
    run_command(c);
    return 0;
  }
  sim_process_on_kill(process, on_command_killed, c);
  world_timer_start(c->start, world_now_ns(c->world) + FORK_NS);
  return 0;
}

static int l_command(lua_State *L) {
  check_sim(L);
  luaL_checkstring(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lua_settop(L, 3);
  lua_getiuservalue(L, 1, COMMANDS);
  lua_insert(L, 2);
  lua_settable(L, 2);
  return 0;
}

/* ---- the log, and the rest ---- */

static int l_log(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  lua_pushlstring(L, s->driver.log ? s->driver.log : "", s->driver.log_length);
  return 1;
}

static int l_note(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  size_t length;
  const char *who = luaL_checkstring(L, 2), *line = luaL_checklstring(L, 3, &length);
  luaL_argcheck(L, strlen(who) < 80, 2, "expected a name of less than 80 bytes");
  driver_log(&s->driver, who, line, length);
  return 0;
}

static int l_trace(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  s->driver.trace = lua_toboolean(L, 2);
  return 0;
}

static int l_copy_folder(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
  const char *from = luaL_checkstring(L, 3);
  return error_or_true(L, from, driver_copy_folder(m, from, luaL_checkstring(L, 4)));
}

static int l_home(lua_State *L) { return lua_pushstring(L, check_sim(L)->driver.home), 1; }

/* "up", "down" or "ended", the last exit code, the number of children, and open handles when it is up. */
static int l_status(lua_State *L) {
  struct lua_sim *s = check_sim(L);
  struct machine *m = check_machine(L, s, 2);
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
    if (m->up) worlds[count++] = world_of(m);
  driver_close(&s->driver);
  for (size_t i = 0; i < count; i++) forget_world(L, worlds[i]);
  lua_pop(L, 1);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, s);
}

static int l_close(lua_State *L) {
  struct lua_sim *s = luaL_checkudata(L, 1, SIM_NAME);
  if (s->driver.sim) check_outside(L, s, "close");
  close_sim(L, s);
  return 0;
}

static int l_gc(lua_State *L) {
  close_sim(L, lua_touserdata(L, 1));
  return 0;
}

static const luaL_Reg methods[] = {
    {"add", l_add},         {"start", l_start},         {"world", l_world},       {"call", l_call},
    {"run", l_run},         {"step", l_step},           {"now_ns", l_now_ns},     {"next_ns", l_next_ns},
    {"events", l_events},
    {"crash", l_crash},     {"restart", l_restart},     {"signal", l_signal}, {"pause", l_pause},       {"cut", l_cut},
    {"clog", l_clog},       {"drift", l_drift},         {"step_wall", l_step_wall}, {"slow", l_slow},
    {"readdress", l_readdress}, {"counts", l_counts},
    {"link", l_link},       {"command", l_command},     {"log", l_log},           {"note", l_note},
    {"trace", l_trace},     {"status", l_status},       {"home", l_home},         {"interrupt", l_interrupt},
    {"stepping", l_stepping}, {"copy_folder", l_copy_folder}, {"close", l_close}, {NULL, NULL}};

int luaopen_shoal_core_sim(lua_State *L) {
  static const luaL_Reg functions[] = {{"new", l_new}, {NULL, NULL}};
  static const luaL_Reg meta[] = {{"__gc", l_gc}, {"__close", l_close}, {NULL, NULL}};
  lua_pushcfunction(L, luaopen_shoal_core_world); /* For the classes of what worlds hold. */
  lua_call(L, 0, 0);
  if (luaL_newmetatable(L, SIM_NAME)) {
    luaL_setfuncs(L, meta, 0);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
  }
  luaL_newlib(L, functions);
  return 1;
}
