/* Commands of a simulation: children that are functions of the controlling state. */
#include "host/sim_lua.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/copy.h"
#include "lua/door.h"

enum { FORK_NS = 2000000 }; /* What fork and exec take. */

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
  /* The function's results. */
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
  lua_getiuservalue(L, -1, SIM_COMMANDS);
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
  (void)door_call(c->sim->L, "sim.command", push_command, 3, take_command, c); /* The door reports an error; the status is then 127. */
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
    assert(grown); /* A spec's input is short. */
    c->input.bytes = grown;
    c->input.room = room;
  }
  memcpy(c->input.bytes + c->input.length, bytes, length);
  c->input.length += length;
}

static void on_input_closed(void *data) { run_command(data); }

static void on_input_end(void *data, int status) {
  struct command *c = data;
  (void)status; /* Whatever ended the input, the command runs with the bytes that came. */
  world_stream_close(c->stdin_);
}

static void on_command_killed(void *data, int signal) {
  (void)signal; /* The simulator notifies the parent. */
  free_command(data);
}

/* The first word of a shell line. */
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

/* Not during the spawn, when the parent does not hold its end of the pipe yet. */
static void on_command_start(void *data) {
  static const struct world_stream_events events = {
      .on_read = on_input, .on_end = on_input_end, .on_closed = on_input_closed};
  struct command *c = data;
  world_timer_close(c->start);
  if (world_stdio(c->world, 0, &c->stdin_) < 0) run_command(c); /* It has no stdin after all. */
  else world_stream_attach(c->stdin_, &events, c);
}

int lua_sim_on_command(void *data, struct machine *parent, const struct world_spawn *options, struct sim_process *process) {
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
  lua_sim_check(L);
  luaL_checkstring(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lua_settop(L, 3);
  lua_getiuservalue(L, 1, SIM_COMMANDS);
  lua_insert(L, 2);
  lua_settable(L, 2);
  return 0;
}

const luaL_Reg lua_sim_command_methods[] = {{"command", l_command}, {NULL, NULL}};
