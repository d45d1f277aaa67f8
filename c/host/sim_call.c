/* sim:call: call a function of a node from outside, with copied values. */
#include "host/sim_lua.h"

#include <string.h>

#include "host/copy.h"
#include "lua/door.h"
#include "lua/lua_error.h"

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
  struct lua_sim *s = lua_sim_check(L);
  struct machine *m = lua_sim_machine(L, s, 2);
  int top = lua_gettop(L);
  struct far_call *c = new_call(L); /* The collector frees it, whatever raises. */
  c->module = luaL_checkstring(L, 3);
  c->function = luaL_checkstring(L, 4);
  for (int i = 5; i <= top; i++, c->count++) {
    const char *problem = copy_put(L, i, &c->arguments);
    if (problem) return luaL_argerror(L, i, problem);
  }
  if (!m->program || !m->program->node) return error_push(L, m->name, ERR_CLOSED);
  s->driver.depth++; /* The function must not end the node in which it runs. */
  bool ok = door_call(node_state(m->program->node), "sim.call", push_far, LUA_MULTRET, take_far, c);
  s->driver.depth--;
  if (!ok) return error_push(L, m->name, ERR_FAILED);
  if (c->problem) return luaL_error(L, "%s: %s", m->name, c->problem);
  size_t at = 0;
  luaL_checkstack(L, c->count, "results");
  for (int i = 0; i < c->count; i++) copy_get(L, &c->results, &at);
  int count = c->count;
  copy_free(&c->arguments); /* Now, not at some later collection. */
  copy_free(&c->results);
  return count;
}

const luaL_Reg lua_sim_call_methods[] = {{"call", l_call}, {NULL, NULL}};
