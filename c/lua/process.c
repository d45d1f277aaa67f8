/* Child processes in Lua. */
#include "lua/world_classes.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "lua/event.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"

struct process {
  struct lua_handle handle;
  struct world_process *process;
};

static void close_process(struct lua_handle *h) { world_process_close(((struct process *)h)->process); }
static const struct lua_handle_type process_type = {"shoal.process", close_process, NULL};

static int push_exit(lua_State *L, struct lua_event *e) {
  lua_pop(L, 1);
  lua_pushinteger(L, e->number);
  lua_pushinteger(L, e->status);
  return 2;
}

static void on_exit_event(void *data, int64_t status, int signal_number) {
  struct lua_event e = {
      .handle = data, .value = LUA_EVENT_FUNCTION, .push = push_exit, .status = signal_number, .number = status};
  lua_event_fire("world.process.exit", &e);
}

/* The strings of an array at `index`, NULL-terminated, in a userdata left on the stack; they live as long as the array. */
static const char **check_strings(lua_State *L, int index, const char *what) {
  luaL_checktype(L, index, LUA_TTABLE);
  size_t count = (size_t)luaL_len(L, index);
  const char **out = lua_newuserdatauv(L, (count + 1) * sizeof *out, 0);
  for (size_t i = 0; i < count; i++) {
    if (lua_rawgeti(L, index, (lua_Integer)i + 1) != LUA_TSTRING)
      luaL_error(L, "spawn: %s[%d] is no string", what, (int)i + 1);
    out[i] = lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  out[count] = NULL;
  return out;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* { NAME = value } at `index` -> sorted "NAME=value"s, NULL-terminated, in a userdata; it and the table that keeps the
 * strings alive stay on the stack. */
static const char **check_environment(lua_State *L, int index) {
  luaL_checktype(L, index, LUA_TTABLE);
  size_t count = 0;
  lua_newtable(L);
  int kept = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING || !lua_isstring(L, -1)) luaL_error(L, "spawn: env is a table of NAME = value");
    lua_pushfstring(L, "%s=%s", lua_tostring(L, -2), lua_tostring(L, -1));
    lua_rawseti(L, kept, (lua_Integer)++count);
  }
  const char **out = check_strings(L, kept, "env");
  qsort(out, count, sizeof *out, by_bytes);
  return out;
}

static bool field_set(lua_State *L, int table, const char *name) {
  lua_getfield(L, table, name);
  bool set = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return set;
}

/* A count in the table on top of the stack; 0 when it is not there. */
static uint64_t limit_of(lua_State *L, const char *name) {
  lua_getfield(L, -1, name);
  lua_Integer value = luaL_optinteger(L, -1, 0);
  if (value < 0) luaL_error(L, "spawn: limits.%s is below 0", name);
  lua_pop(L, 1);
  return (uint64_t)value;
}

static struct world_limits check_limits(lua_State *L) {
  struct world_limits limits = {0};
  if (lua_getfield(L, 2, "limits") == LUA_TTABLE)
    limits = (struct world_limits){
        .memory_bytes = limit_of(L, "memory"), .cpu_s = limit_of(L, "cpu_s"), .files = limit_of(L, "nofile")};
  lua_pop(L, 1);
  return limits;
}

/* world:spawn{ argv =, env =, inherit = { NAME, "LC_*", ... }, cwd =, limits = { memory =, cpu_s =, nofile = },
 * pipe = { stdin =, stdout =, stderr = }, group =, keeper =, guard = stream, on_exit = fn(status, signal) }
 * -> process | nil, message, code */
static int l_spawn(lua_State *L) {
  static const struct world_process_events events = {on_exit_event, lua_event_closed};
  struct shoal_world *world = lua_check_world(L, 1);
  struct world_spawn options = {0};
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  luaL_argcheck(L, lua_getfield(L, 2, "argv") == LUA_TTABLE && luaL_len(L, -1) > 0, 2, "argv is missing or empty");
  options.argv = check_strings(L, 3, "argv");
  if (lua_getfield(L, 2, "env") != LUA_TNIL) options.env = check_environment(L, lua_gettop(L));
  if (lua_getfield(L, 2, "inherit") != LUA_TNIL) options.inherit = check_strings(L, lua_gettop(L), "inherit");
  options.limits = check_limits(L);
  if (lua_getfield(L, 2, "cwd") != LUA_TNIL) options.cwd = luaL_checkstring(L, -1);
  if (lua_getfield(L, 2, "pipe") != LUA_TNIL) {
    luaL_argcheck(L, lua_istable(L, -1), 2, "pipe is no table");
    int pipe = lua_gettop(L);
    options.pipe[0] = field_set(L, pipe, "stdin");
    options.pipe[1] = field_set(L, pipe, "stdout");
    options.pipe[2] = field_set(L, pipe, "stderr");
  }
  options.group = field_set(L, 2, "group");
  options.keeper = field_set(L, 2, "keeper");
  if (lua_getfield(L, 2, "guard") != LUA_TNIL) options.guard = lua_check_stream(L, lua_gettop(L));
  luaL_argcheck(L, lua_getfield(L, 2, "on_exit") == LUA_TFUNCTION, 2, "on_exit is missing");
  int on_exit_index = lua_gettop(L);
  struct process *p = lua_handle_new(L, &process_type, 1, sizeof *p, 1);
  lua_event_function(L, on_exit_index, LUA_EVENT_FUNCTION);
  lua_handle_pin(L, &p->handle, -1);
  int rc = world_spawn(world, &options, &events, p, &p->process);
  if (rc < 0) return lua_event_refused(L, &p->handle, lua_pushfstring(L, "spawn %s", options.argv[0]), rc);
  return 1;
}

/* process:stream(fd) -> stream, once each; nil when there is none. Attach or close it. */
static int l_process_stream(lua_State *L) {
  struct process *p = lua_handle_check(L, 1, &process_type, true);
  lua_Integer fd = luaL_checkinteger(L, 2);
  luaL_argcheck(L, fd >= 0 && fd <= 2, 2, "expected 0, 1 or 2");
  lua_handle_value(L, 1, 1);
  return lua_push_process_stream(L, -1, p->process, (int)fd);
}

static int l_process_pid(lua_State *L) {
  struct process *p = lua_handle_check(L, 1, &process_type, true);
  return lua_pushinteger(L, world_process_pid(p->process)), 1;
}

/* process:ended() -> cpu_ms, left_count, { { pid =, command = }, ... } of some of those left. Once it has exited. */
static int l_process_ended(lua_State *L) {
  struct process *p = lua_handle_check(L, 1, &process_type, true);
  struct world_ended e;
  world_process_ended(p->process, &e);
  lua_pushinteger(L, (lua_Integer)e.cpu_ms);
  lua_pushinteger(L, e.left_count);
  if (e.left_count == 0) return 2;
  lua_createtable(L, (int)e.left_named, 0);
  for (uint32_t i = 0; i < e.left_named; i++) {
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, e.left[i].pid);
    lua_setfield(L, -2, "pid");
    lua_pushstring(L, e.left[i].command);
    lua_setfield(L, -2, "command");
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 3;
}

/* process:kill("TERM" | "KILL" | "INT" | number) -> true | nil, message, code */
static int l_process_kill(lua_State *L) {
  static const char *const names[] = {"TERM", "KILL", "INT", "HUP", "STOP", "CONT", "QUIT", NULL};
  static const int numbers[] = {SIGTERM, SIGKILL, SIGINT, SIGHUP, SIGSTOP, SIGCONT, SIGQUIT};
  struct process *p = lua_handle_check(L, 1, &process_type, true);
  int number = lua_isinteger(L, 2) ? (int)lua_tointeger(L, 2) : numbers[luaL_checkoption(L, 2, "TERM", names)];
  return error_or_true(L, "kill", world_process_kill(p->process, number));
}

static int l_process_close(lua_State *L) { return lua_handle_close(lua_handle_check(L, 1, &process_type, false)), 0; }

static const luaL_Reg process_methods[] = {{"stream", l_process_stream},
                                           {"pid", l_process_pid},
                                           {"kill", l_process_kill},
                                           {"ended", l_process_ended},
                                           {"close", l_process_close},
                                           {NULL, NULL}};

void lua_world_process(lua_State *L) {
  lua_handle_type(L, &process_type, process_methods);
  lua_pushcfunction(L, l_spawn);
  lua_setfield(L, -2, "spawn");
}
