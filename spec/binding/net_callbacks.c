/* The transport's binding without memory: Lua's allocator fails on demand, at each allocation in turn. Each request that the
 * transport accepted has its callback run once, and one that was not accepted never has.
 * Prints one line a property; exits 1 at the first that does not hold. */
#include <lauxlib.h>
#include <lualib.h>

#include "../c/net_sim.h"
#include "lua/door.h"
#include "lua/handle.h"
#include "lua/lua_world.h"
#include "lua/modules.h"

static long fails_after = -1; /* This many allocations succeed, then all fail; -1: none fails. */
static size_t fails_from = SIZE_MAX; /* An allocation of this size fails. */
static int lines, answers, without_memory, sent;

static void *allocate(void *data, void *old, size_t before, size_t after) {
  (void)data;
  if (after == 0) return free(old), NULL;
  bool grows = !old || after > before;
  if (grows && (fails_after == 0 || after >= fails_from)) return NULL;
  if (grows && fails_after > 0) fails_after--;
  return realloc(old, after);
}

static void on_line(void *data, const char *line) {
  (void)data, (void)line;
  lines++;
}

/* Callbacks that allocate nothing. */
static int l_answered(lua_State *L) {
  answers++;
  if (lua_isnil(L, 1)) {
    MUST(strcmp(lua_tostring(L, 3), "MEMORY") == 0 && strcmp(lua_tostring(L, 2), "out of memory for the answer") == 0);
    without_memory++;
  }
  return 0;
}
static int l_sent(lua_State *L) {
  MUST(lua_toboolean(L, 1));
  sent++;
  return 0;
}

static const char source[] = "local world, address, answered, sent = ...\n"
                             "local a = assert(require('shoal.core.net').open(world, { node = 'a', cluster = 'spec' }, {}))\n"
                             "local peer = assert(a:peer(address))\n"
                             "function call() return peer:call(1, 'control', 'x', 60000, answered) end\n"
                             "function send() return peer:send(2, 'control', 'x', sent) end\n"
                             "function requests() return a:counts().requests end\n"
                             "function close() a:close() return true end\n";

static int push_source(lua_State *L, void *data) {
  char where[ADDRESS_TEXT_MAX];
  (void)data;
  MUST(luaL_loadstring(L, source) == LUA_OK);
  lua_push_world(L, nodes[0].world);
  address_format(&nodes[1].address, where);
  lua_pushstring(L, where);
  lua_pushcfunction(L, l_answered);
  lua_pushcfunction(L, l_sent);
  return 4;
}

static int push_global(lua_State *L, void *name) {
  lua_getglobal(L, name);
  return 0;
}
static void take_integer(lua_State *L, void *name) {
  (void)name;
  MUST(!lua_isnil(L, -1));
}
static bool run(lua_State *L, const char *name) { return door_call(L, "spec", push_global, 1, take_integer, (void *)(uintptr_t)name); }

static int the_requests;
static void take_requests(lua_State *L, void *name) {
  (void)name;
  the_requests = (int)lua_tointeger(L, -1);
}
static int requests(lua_State *L) {
  MUST(door_call(L, "spec", push_global, 1, take_requests, (void *)(uintptr_t) "requests"));
  return the_requests;
}

/* Run it while each allocation in turn fails, until it succeeds. Returns how often it failed. */
static int run_starved(lua_State *L, const char *name) {
  for (int failures = 0;; failures++) {
    fails_after = failures;
    bool ran = run(L, name);
    fails_after = -1;
    if (ran) return failures;
    MUST(failures < 100);
  }
}

int main(void) {
  enum { COUNT = 600 };
  setvbuf(stdout, NULL, _IOLBF, 0);
  begin_sim(1, 2);
  struct node *b = open_node(1, NULL);
  b->mode = HOLD;
  lua_State *L = lua_newstate(allocate, NULL);
  MUST(L);
  luaL_openlibs(L);
  shoal_preload(L);
  door_set_lines(L, on_line, NULL);
  MUST(door_call(L, "spec", push_source, 0, NULL, NULL));
  int failures = 0;
  for (int i = 0; i < COUNT; i++) failures += run_starved(L, "call"); /* All are outstanding, so the places must grow. */
  MUST(failures > 5 && requests(L) == COUNT && answers == 0);
  run_ms(100);
  MUST(b->held_count == COUNT);
  for (int i = 0; i < COUNT; i++) MUST(net_reply(b->net, &b->held[i], "answer", 6) == 0);
  run_ms(100);
  MUST(answers == COUNT && without_memory == 0);
  printf("ok a call that runs out of memory was not accepted; one that was accepted has its callback\n");

  failures = 0;
  for (int i = 0; i < COUNT; i++) failures += run_starved(L, "send");
  run_ms(100);
  MUST(sent == COUNT && b->told == COUNT);
  printf("ok so has a send\n");

  static const char text[5000] = "an answer that is kept nowhere yet"; /* With no memory at all Lua cannot even call. */
  answers = 0;
  b->held_count = 0;
  for (int i = 0; i < 10; i++) MUST(run(L, "call"));
  run_ms(100);
  for (int i = 0; i < 10; i++) MUST(net_reply(b->net, &b->held[i], text, sizeof text - (size_t)i) == 0);
  fails_from = 4000;
  run_ms(100);
  fails_from = SIZE_MAX;
  MUST(answers == 10 && without_memory == 10 && lines > 0);
  printf("ok an answer that there is no memory for ends its call with MEMORY\n");

  MUST(run(L, "close"));
  lua_handle_close_all(L, nodes[0].world);
  run_ms(5000);
  lua_close(L);
  end_sim();
  return 0;
}
