/* core.replay: core/swim_record's replay and its results in Lua. */
#include "lua/swim_replay.h"

#include <lauxlib.h>

#include "core/swim_record.h"
#include "lua/lua_error.h"
#include "lua/swim_options.h"

enum { EVENTS_KEPT = 100000 };

struct replaying { /* In Lua's memory, so that an error frees it. */
  struct swim_replay replay;
  bool open;
};

static int l_replaying_gc(lua_State *L) {
  struct replaying *r = luaL_checkudata(L, 1, "shoal.swim_replay");
  if (r->open) swim_replay_close(&r->replay);
  r->open = false;
  return 0;
}

static struct replaying *new_replaying(lua_State *L) {
  struct replaying *r = lua_newuserdatauv(L, sizeof *r, 0);
  r->open = false;
  if (luaL_newmetatable(L, "shoal.swim_replay")) {
    lua_pushcfunction(L, l_replaying_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return r;
}

static lua_Integer at_ms(const struct swim_replay *r) { return (lua_Integer)((r->now_ns - r->began_ns) / 1000000); }

static void push_event(lua_State *L, const struct swim_replay *r, const struct swim_action *a) {
  lua_createtable(L, 0, 4);
  lua_pushinteger(L, at_ms(r));
  lua_setfield(L, -2, "at_ms");
  lua_pushstring(L, swim_event_name(a->event));
  lua_setfield(L, -2, "kind");
  lua_pushlstring(L, a->member.name, a->member.name_length);
  lua_setfield(L, -2, "name");
  lua_pushinteger(L, (lua_Integer)r->steps);
  lua_setfield(L, -2, "step");
}

static void push_whys(lua_State *L, const struct swim_replay *r, int names) {
  lua_Integer count = (lua_Integer)lua_rawlen(L, names);
  lua_createtable(L, 0, (int)count);
  for (lua_Integer i = 1; i <= count; i++) {
    size_t length;
    struct swim_why why;
    lua_rawgeti(L, names, i);
    const char *name = luaL_checklstring(L, -1, &length);
    if (swim_why(r->swim, name, length, &why)) {
      swim_push_why(L, &why, r->now_ns);
      lua_settable(L, -3);
    } else {
      lua_pop(L, 1);
    }
  }
}

/* Add the results of the run to the table on top. */
static void finish(lua_State *L, const struct swim_replay *r, int rc, uint64_t sent) {
  lua_pushinteger(L, (lua_Integer)r->steps);
  lua_setfield(L, -2, "steps");
  lua_pushinteger(L, at_ms(r));
  lua_setfield(L, -2, "ms");
  lua_pushinteger(L, (lua_Integer)sent);
  lua_setfield(L, -2, "sent");
  lua_pushboolean(L, r->diverged == 0);
  lua_setfield(L, -2, "same");
  if (r->diverged) lua_pushinteger(L, (lua_Integer)r->diverged), lua_setfield(L, -2, "diverged");
  if (rc < 0) lua_pushinteger(L, (lua_Integer)swim_replay_offset(r)), lua_setfield(L, -2, "cut_at");
  swim_push_members(L, r->swim);
  lua_setfield(L, -2, "members");
  swim_push_counts(L, r->swim);
  lua_setfield(L, -2, "counts");
}

int swim_l_replay(lua_State *L) {
  size_t length;
  const char *bytes = luaL_checklstring(L, 1, &length);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lua_getfield(L, 2, "until_ms");
  lua_Integer until_ms = luaL_optinteger(L, 3, LUA_MAXINTEGER);
  if (lua_getfield(L, 2, "why") == LUA_TNIL) lua_pop(L, 1), lua_newtable(L);
  luaL_checktype(L, 4, LUA_TTABLE);
  struct replaying *r = new_replaying(L);
  int rc = swim_replay_open(&r->replay, bytes, length);
  if (rc < 0) return error_push(L, "swim: replay: the recording's beginning", rc);
  r->open = true;
  lua_createtable(L, 0, 10);
  lua_newtable(L);
  uint64_t sent = 0;
  lua_Integer events = 0;
  struct swim_action a;
  do {
    while (swim_replay_next(&r->replay, &a)) {
      sent += a.kind == SWIM_SEND;
      if (a.kind != SWIM_EVENT || ++events > EVENTS_KEPT) continue;
      push_event(L, &r->replay, &a);
      lua_rawseti(L, -2, events);
    }
  } while (at_ms(&r->replay) <= until_ms && (rc = swim_replay_step(&r->replay)) > 0);
  lua_setfield(L, -2, "events");
  finish(L, &r->replay, rc, sent);
  push_whys(L, &r->replay, 4);
  lua_setfield(L, -2, "why");
  swim_replay_close(&r->replay);
  r->open = false;
  return 1;
}
