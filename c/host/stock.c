/* Where luv and we meet: our door for luv's callbacks, and in stock lua5.4 our world on luv's loop.
 *
 * Every libuv handle of ours on that loop carries a luv_handle_t without references in its data, so that uv.walk and luv's
 * own closing see a foreign handle and not a wild pointer. At lua_close finalizers run in the reverse order of their making:
 * first what scripts opened (reported as leaked, and closed), then this world, then luv's loop. */
#include <assert.h>
#include <luv/lhandle.h>
#include <luv/luv.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/host.h"
#include "lua/door.h"
#include "lua/handle.h"
#include "lua/lua_world.h"
#include "world/uv.h"

/* ---- luv's callbacks through the door ---- */

static int call_back(lua_State *L, int arguments, int results, int flags) {
  (void)flags; /* They say whether to exit or to print: we never exit, and the door prints. */
  int left = door_call_stacked(L, "luv.callback", arguments, results);
  return left < 0 ? -LUA_ERRRUN : left;
}

void host_adopt_luv(lua_State *L) { luv_set_callback(L, call_back); }

static int l_adopt(lua_State *L) {
  host_adopt_luv(L);
  return 0;
}

static int l_release(lua_State *L) {
  luv_set_callback(L, luv_cfpcall);
  return 0;
}

int luaopen_shoal_core_luv(lua_State *L) {
  static const luaL_Reg functions[] = {{"adopt", l_adopt}, {"release", l_release}, {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}

/* ---- a world for stock lua5.4 ---- */

struct stock {
  luv_handle_t foreign;
  struct shoal_world *world;
  uv_loop_t *loop;
};

static void on_world_closed(void *data) { free(data); }

enum { TURNS_MAX = 10000 }; /* Turns of the loop until our handles are closed. One is enough, unless a disk is syncing. */

static int l_stock_gc(lua_State *L) {
  struct stock **box = lua_touserdata(L, 1), *stock = *box;
  struct world_telemetry t;
  *box = NULL;
  if (!stock) return 0;
  lua_handle_close_all(L, stock->world);
  lua_forget_world(L, stock->world);
  for (int turn = 0; turn < TURNS_MAX; turn++) {
    world_telemetry(stock->world, &t);
    if (t.open_handles == 0) {
      world_uv_close(stock->world, on_world_closed, stock); /* luv's loop is closed next and runs it. */
      return 0;
    }
    (void)uv_run(stock->loop, UV_RUN_ONCE); /* It does not matter here whether more is active. */
  }
  (void)fprintf(stderr, "shoal: %u handles did not close\n", t.open_handles);
  return 0;
}

static int push_require(lua_State *L, void *data) {
  (void)data;
  lua_getglobal(L, "require");
  lua_pushliteral(L, "luv");
  return 1;
}

/* luv's loop lives as long as luv's module, and package.loaded may drop that: busted does so after each file. */
static char luv_key;
static void keep_luv(lua_State *L, void *data) {
  (void)data;
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &luv_key);
}

static struct shoal_world *make_world(lua_State *L) {
  lua_State *main_thread = door_main(L); /* luv keeps the thread that opened it: never a coroutine. */
  if (!door_call(main_thread, "world.luv", push_require, 1, keep_luv, NULL)) luaL_error(L, "luv cannot be loaded");
  struct stock **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, l_stock_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, box);
  struct stock *stock = calloc(1, sizeof *stock);
  if (!stock) luaL_error(L, "world: out of memory");
  stock->foreign.ref = LUA_REFNIL;
  stock->foreign.callbacks[0] = stock->foreign.callbacks[1] = LUA_NOREF;
  stock->foreign.ctx = luv_context(L);
  stock->loop = luv_loop(L);
  struct world_uv_options options = {.loop = stock->loop, .handle_data = &stock->foreign, .seed = host_seed()};
  int rc = world_uv_open(&options, &stock->world);
  if (rc < 0) {
    free(stock);
    luaL_error(L, "world: %s", error_text(rc));
  }
  *box = stock;
  /* A write to a child that has just exited must be an error, not the end of the process. Another setting of the program stays. */
  struct sigaction pipe;
  /* Ignoring SIGPIPE cannot be refused. */
  if (sigaction(SIGPIPE, NULL, &pipe) == 0 && pipe.sa_handler == SIG_DFL) (void)signal(SIGPIPE, SIG_IGN);
  return stock->world;
}

__attribute__((constructor)) static void offer(void) { lua_on_missing_world(make_world); }
