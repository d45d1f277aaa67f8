#include "host/node.h"

#include <assert.h>
#include <lauxlib.h>
#include <limits.h>
#include <lualib.h>
#include <luv/lhandle.h>
#include <luv/luv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/chunks.h"
#include "host/host.h"
#include "lua/door.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"

struct node {
  lua_State *L;
  struct node_options options; /* Its strings are valid during node_open only, except home. */
  char home[PATH_MAX], shown_home[PATH_MAX];
  struct world_defer ending, warning;
  bool exiting, ended, closing;
  int code;
  char warned[2048]; /* The pieces of a lua_warning, until it is reported. */
  size_t warned_length;
};
static char node_key; /* The registry's key. */

static struct node *find(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &node_key);
  struct node *n = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return n;
}

/* ---- the end ---- */

static void on_ending(void *data) {
  struct node *n = data;
  n->ended = true;
  if (n->options.on_exit) n->options.on_exit(n->options.data, n->code);
}

void node_exit(struct node *n, int code) {
  if (n->exiting || n->closing) return; /* The first reason counts. */
  n->exiting = true;
  n->code = code;
  world_defer(n->options.world, &n->ending); /* Not from inside Lua. */
}

/* ---- warnings: pieces come during garbage collection, when nothing may be called ---- */

static void on_warning_due(void *data) {
  struct node *n = data;
  n->warned[n->warned_length] = '\0';
  n->warned_length = 0;
  door_report(n->L, "lua.warning", n->warned);
}

static void on_warn(void *data, const char *message, int to_be_continued) {
  struct node *n = data;
  size_t room = sizeof n->warned - 1 - n->warned_length, length = strlen(message);
  if (message[0] == '@' && !to_be_continued && n->warned_length == 0) return; /* "@on" and "@off" are Lua's own control messages. */
  if (length > room) length = room;
  memcpy(n->warned + n->warned_length, message, length);
  n->warned_length += length;
  if (to_be_continued) return;
  if (n->closing) {
    on_warning_due(n);
    return;
  }
  if (n->warned_length + 2 < sizeof n->warned) { /* More may come before this one is reported. */
    n->warned[n->warned_length++] = ';';
    n->warned[n->warned_length++] = ' ';
  }
  world_defer(n->options.world, &n->warning);
}

/* ---- shoal.core.node ---- */

static int l_exit(lua_State *L) {
  struct node *n = find(L);
  lua_Integer code = luaL_optinteger(L, 1, 0);
  if (!n) return luaL_error(L, "exit: this state is no node; use os.exit");
  luaL_argcheck(L, code >= 0 && code <= 255, 1, "expected 0 to 255");
  node_exit(n, (int)code);
  return 0;
}

static int l_home(lua_State *L) {
  const struct node *n = find(L);
  char home[PATH_MAX];
  if (!n) host_home(home, sizeof home);
  lua_pushstring(L, n ? n->shown_home : home);
  return 1;
}

/* The shoal program that starts children: this executable, the build's in stock lua5.4, or just the name when simulated. */
static int l_program(lua_State *L) {
  const struct node *n = find(L);
  char path[PATH_MAX];
  if (n && n->options.simulated) return lua_pushliteral(L, "shoal"), 1;
  host_program(path, sizeof path);
  return lua_pushstring(L, path), 1;
}

static int l_version(lua_State *L) { return lua_pushliteral(L, SHOAL_VERSION), 1; }

static int l_simulated(lua_State *L) {
  const struct node *n = find(L);
  return lua_pushboolean(L, n && n->options.simulated), 1;
}

/* on_signal("INT" | "TERM" | "HUP", fn() | nil) -> true | nil, message, code */
static int l_on_signal(lua_State *L) {
  static const char *const names[] = {"INT", "TERM", "HUP", NULL};
  const struct node *n = find(L);
  const char *name = names[luaL_checkoption(L, 1, NULL, names)];
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
  if (!n) return error_push(L, "signals", ERR_UNSUPPORTED);
  lua_settop(L, 2);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, "shoal.signals");
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, name);
  return error_or_true(L, "signals", 0);
}

/* watch{ node =, log =, hang_ms = } -> true | nil, message, code: report a loop that does not turn, and interrupt an operator's callback
 * that ran for hang_ms (0: none). Called again, it changes these. A simulated node has no loop that could stand; errors.budget
 * bounds its callbacks. */
static int l_watch(lua_State *L) {
  const struct node *n = find(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_getfield(L, 1, "node");
  lua_getfield(L, 1, "log");
  lua_getfield(L, 1, "hang_ms");
  const char *name = luaL_optstring(L, 2, "?"), *log = luaL_optstring(L, 3, "");
  lua_Integer hang_ms = luaL_optinteger(L, 4, 0);
  luaL_argcheck(L, hang_ms >= 0 && hang_ms <= INT32_MAX, 1, "hang_ms: expected 0 to 2147483647");
  if (!n || !n->options.on_watch) return error_or_true(L, "watch", n ? 0 : ERR_UNSUPPORTED);
  return error_or_true(L, "watch", n->options.on_watch(n->options.data, name, log, (uint32_t)hang_ms));
}

static int l_log_sink(lua_State *L) {
  const struct node *n = find(L);
  size_t length;
  const char *line = luaL_checklstring(L, 1, &length);
  if (length > 0 && line[length - 1] == '\n') length--;
  assert(n && n->options.on_log);
  n->options.on_log(n->options.data, line, length);
  return 0;
}

int luaopen_shoal_core_node(lua_State *L) {
  static const luaL_Reg functions[] = {{"exit", l_exit},           {"home", l_home},
                                       {"version", l_version},     {"simulated", l_simulated},
                                       {"on_signal", l_on_signal}, {"program", l_program},
                                       {"watch", l_watch},
                                       {NULL, NULL}};
  const struct node *n = find(L);
  luaL_newlib(L, functions);
  lua_newtable(L);
  for (int i = 0; n && n->options.argv && n->options.argv[i]; i++) {
    lua_pushstring(L, n->options.argv[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "argv");
  if (n && n->options.on_log) {
    lua_pushcfunction(L, l_log_sink);
    lua_setfield(L, -2, "log_sink");
  }
  return 1;
}

/* Log each line of the text on top. */
static void say_lines(lua_State *L) {
  const struct node *n = find(L);
  size_t length;
  const char *text = lua_tolstring(L, -1, &length), *end = text + length;
  do {
    const char *stop = memchr(text, '\n', (size_t)(end - text));
    if (!stop) stop = end;
    n->options.on_log(n->options.data, text, (size_t)(stop - text));
    text = stop + 1;
  } while (text < end);
}

/* `print` of a node without a terminal. */
static int l_print(lua_State *L) {
  int count = lua_gettop(L);
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  for (int i = 1; i <= count; i++) {
    if (i > 1) luaL_addchar(&buffer, '\t');
    lua_getglobal(L, "tostring");
    lua_pushvalue(L, i);
    lua_call(L, 1, 1);
    luaL_addvalue(&buffer);
  }
  luaL_pushresult(&buffer);
  say_lines(L);
  return 0;
}

static void say_arguments(lua_State *L, int from) {
  int count = lua_gettop(L);
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  for (int i = from; i <= count; i++) {
    luaL_checkstring(L, i);
    lua_pushvalue(L, i);
    luaL_addvalue(&buffer);
  }
  luaL_pushresult(&buffer);
  say_lines(L);
}

static int l_io_write(lua_State *L) {
  say_arguments(L, 1);
  lua_pushboolean(L, 1);
  return 1;
}

static int l_file_write(lua_State *L) {
  say_arguments(L, 2);
  lua_settop(L, 1);
  return 1;
}

static int l_file_flush(lua_State *L) {
  lua_settop(L, 1);
  return 1;
}

/* In a simulated node print, io.write, io.stdout and io.stderr write to its log. The rest of io raises. */
static void set_output(lua_State *L) {
  static const char *const names[] = {"stdout", "stderr"};
  static const luaL_Reg methods[] = {
      {"write", l_file_write}, {"flush", l_file_flush}, {"setvbuf", l_file_flush}, {NULL, NULL}};
  lua_register(L, "print", l_print);
  lua_getglobal(L, "io");
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    luaL_newlib(L, methods);
    lua_setfield(L, -2, names[i]);
  }
  lua_pushcfunction(L, l_io_write);
  lua_setfield(L, -2, "write");
  lua_pop(L, 1);
}

/* ---- the start ---- */

static void write_line(void *data, const char *line) {
  const struct node *n = data;
  n->options.on_log(n->options.data, line, strlen(line));
}

static void set_paths(lua_State *L, const struct node *n) {
  lua_getglobal(L, "package");
  /* No "./": a file in the current directory must not become part of the node by accident. */
  lua_pushfstring(L, "%s/lua/?.lua;%s/lua/?/init.lua;/usr/local/share/lua/5.4/?.lua;/usr/local/share/lua/5.4/?/init.lua;"
                     "/usr/share/lua/5.4/?.lua;/usr/share/lua/5.4/?/init.lua", n->options.home, n->options.home);
  lua_setfield(L, -2, "path");
  lua_pop(L, 1);
}

static int nothing(lua_State *L) {
  (void)L;
  return 0;
}

/* It may raise (memory), so it runs behind the door. */
static int push_setup(lua_State *L, void *data) {
  struct node *n = data;
  lua_pushlightuserdata(L, n);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &node_key);
  luaL_openlibs(L);
  luaL_requiref(L, "shoal.core.door", luaopen_shoal_core_door, 0);
  lua_pop(L, 1);
  door_adopt_coroutines(L);
  if (n->options.on_log) door_set_lines(L, write_line, n);
  set_paths(L, n);
  chunks_use(L, n->options.chunks, n->options.home);
  host_preload(L);
  lua_set_current_world(L, n->options.world);
  if (n->options.uv_loop) {
    luv_set_loop(L, n->options.uv_loop);
    host_adopt_luv(L);
    luv_handle_t *foreign = n->options.uv_foreign;
    if (foreign) foreign->ctx = luv_context(L); /* uv.walk reads it from each handle. */
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_luv);
    lua_setfield(L, -2, "luv");
    lua_pop(L, 1);
  }
  host_sandbox(L, n->options.simulated);
  if (n->options.simulated && n->options.on_log) set_output(L);
  lua_pushcfunction(L, nothing);
  return 0;
}

static int push_entry(lua_State *L, void *data) {
  const struct node *n = data;
  lua_getglobal(L, "require");
  lua_pushstring(L, n->options.entry);
  lua_call(L, 1, 1);
  if (!lua_isfunction(L, -1)) luaL_error(L, "module '%s' returned no function", n->options.entry);
  int count = 0;
  for (; n->options.argv && n->options.argv[count]; count++) {
    luaL_checkstack(L, 2, "too many arguments");
    lua_pushstring(L, n->options.argv[count]);
  }
  return count;
}

/* An integer is an exit code; anything else means the node lives on. */
static void take_entry(lua_State *L, void *data) {
  if (lua_isinteger(L, -1)) node_exit(data, (int)(lua_tointeger(L, -1) & 0xff));
}

int node_open(const struct node_options *options, struct node **out) {
  assert(options->world && options->home && options->entry);
  struct node *n = calloc(1, sizeof *n);
  if (!n) return ERR_MEMORY;
  n->options = *options;
  (void)snprintf(n->home, sizeof n->home, "%s", options->home); /* If it was cut short, the first require reports it. */
  n->options.home = n->home;
  (void)snprintf(n->shown_home, sizeof n->shown_home, "%s", options->shown_home ? options->shown_home : options->home);
  n->ending = (struct world_defer){.run = on_ending, .data = n};
  n->warning = (struct world_defer){.run = on_warning_due, .data = n};
  n->L = luaL_newstate();
  if (!n->L || !door_call(n->L, "node.setup", push_setup, 0, NULL, n)) {
    n->closing = true;
    if (n->L) lua_close(n->L);
    free(n);
    return ERR_MEMORY;
  }
  lua_setwarnf(n->L, on_warn, n);
  *out = n;
  lua_gc(n->L, LUA_GCSTOP); /* The chunks loaded here are never garbage; marking them again and again would be most of a short child's work. */
  if (!door_call(n->L, "node.entry", push_entry, 1, take_entry, n)) node_exit(n, 1);
  lua_gc(n->L, LUA_GCRESTART);
  n->options.argv = NULL;
  n->options.entry = NULL;
  return 0;
}

/* uv.walk passes each of luv's own handles, and nil for the host's. */
static int l_close_luv(lua_State *L) {
  if (!lua_isuserdata(L, 1)) return 0;
  lua_settop(L, 1);
  lua_getfield(L, 1, "is_closing");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  if (lua_toboolean(L, -1)) return 0;
  lua_getfield(L, 1, "close");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 0);
  return 0;
}

static int push_close_luv(lua_State *L, void *data) {
  (void)data;
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "luv") != LUA_TTABLE || lua_getfield(L, -1, "walk") != LUA_TFUNCTION) {
    lua_pushcfunction(L, nothing);
    return 0;
  }
  lua_pushcfunction(L, l_close_luv);
  return 1;
}

void node_stop(struct node *n) {
  lua_handle_close_all(n->L, NULL);
  /* luv's close callbacks need the state: its handles must be closed before lua_close. */
  if (n->options.uv_loop) (void)door_call(n->L, "node.stop", push_close_luv, 0, NULL, NULL); /* The door reports it. */
}

void node_close(struct node *n, bool crash) {
  struct shoal_world *world = n->options.world;
  n->closing = true;
  if (crash) {
    lua_handle_abandon_all(n->L, NULL);
    lua_forget_world(n->L, world); /* A finalizer that still uses it raises, which becomes a warning. */
    n->options.on_log = NULL;
  } else {
    world_undefer(world, &n->ending);
    world_undefer(world, &n->warning);
    lua_handle_close_all(n->L, NULL);
  }
  lua_close(n->L);
  free(n);
}

lua_State *node_state(struct node *n) { return n->L; }

size_t node_open_things(struct node *n, void (*on_name)(void *data, const char *name), void *data) {
  return lua_handle_count(n->L, NULL, on_name, data);
}

/* ---- signals ---- */

struct signal {
  const char *name;
  bool handled;
};

static int push_signal(lua_State *L, void *data) {
  struct signal *s = data;
  luaL_getsubtable(L, LUA_REGISTRYINDEX, "shoal.signals");
  s->handled = lua_getfield(L, -1, s->name) == LUA_TFUNCTION;
  if (!s->handled) lua_pushcfunction(L, nothing);
  lua_remove(L, -2);
  return 0;
}

bool node_signal(struct node *n, const char *name) {
  struct signal s = {name, false};
  (void)door_call(n->L, "node.signal", push_signal, 0, NULL, &s); /* A handler that raised has handled it; the door reports that. */
  return s.handled;
}
