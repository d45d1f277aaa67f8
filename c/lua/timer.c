/* Timers in Lua. */
#include "lua/world_classes.h"

#include <lauxlib.h>
#include <math.h>

#include "lua/event.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"

struct timer {
  struct lua_handle handle;
  struct world_timer *timer;
};

static void close_timer(struct lua_handle *h) { world_timer_close(((struct timer *)h)->timer); }
static const struct lua_handle_type timer_type = {"shoal.timer", close_timer, NULL};

static int push_self(lua_State *L, struct lua_event *e) {
  (void)L, (void)e; /* The handle is the only argument. */
  return 1;
}

static void on_timer(void *data) {
  struct lua_event e = {.handle = data, .value = LUA_EVENT_FUNCTION, .push = push_self};
  lua_event_fire("world.timer", &e);
}

/* world:timer(fn(timer)) -> timer */
static int l_timer(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  struct timer *t = lua_handle_new(L, &timer_type, 1, sizeof *t, 1);
  lua_event_function(L, 2, LUA_EVENT_FUNCTION);
  lua_handle_pin(L, &t->handle, -1);
  int rc = world_timer_open(world, on_timer, lua_event_closed, t, &t->timer);
  if (rc < 0) return lua_event_refused(L, &t->handle, "timer", rc);
  return 1;
}

/* timer:start(ms): once, fractions of a millisecond allowed; past or negative means in the next turn. */
static int l_timer_start(lua_State *L) {
  struct timer *t = lua_handle_check(L, 1, &timer_type, true);
  double ms = luaL_checknumber(L, 2);
  luaL_argcheck(L, !isnan(ms), 2, "expected milliseconds, got nan");
  double ns = ceil(fmax(ms, 0) * 1e6);
  uint64_t now = world_now_ns(t->handle.world);
  world_timer_start(t->timer, ns >= 9e18 ? UINT64_MAX / 2 : now + (uint64_t)ns);
  return 0;
}

static int l_timer_start_at(lua_State *L) {
  struct timer *t = lua_handle_check(L, 1, &timer_type, true);
  lua_Integer at_ns = luaL_checkinteger(L, 2);
  world_timer_start(t->timer, at_ns > 0 ? (uint64_t)at_ns : 0);
  return 0;
}

static int l_timer_stop(lua_State *L) {
  struct timer *t = lua_handle_check(L, 1, &timer_type, false);
  if (!t->handle.closing) world_timer_stop(t->timer);
  return 0;
}

static int l_timer_close(lua_State *L) { return lua_handle_close(lua_handle_check(L, 1, &timer_type, false)), 0; }

static const luaL_Reg timer_methods[] = {{"start", l_timer_start},
                                         {"start_at", l_timer_start_at},
                                         {"stop", l_timer_stop},
                                         {"close", l_timer_close},
                                         {NULL, NULL}};

void lua_world_timer(lua_State *L) {
  lua_handle_type(L, &timer_type, timer_methods);
  lua_pushcfunction(L, l_timer);
  lua_setfield(L, -2, "timer");
}
