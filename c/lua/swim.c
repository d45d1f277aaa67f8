/* shoal.core.swim: drive/swim_driver in Lua. lua/shoal/member/swim.lua is its face and its manual.
 *
 *   core.open(world, options, on_event, on_notice?) -> swim | nil, message, code     core.replay: swim_replay.h     core.predict: swim_predict.h
 *   swim:members()  swim:member(name)  swim:self()  swim:join(addresses)  swim:forget(address)  swim:leave(on_done?)
 *   swim:erase(name)  swim:seeds()  swim:is_out()
 *   swim:tell(bytes)  swim:why(name)  swim:distance_ns(a, b)  swim:reconfigure(options)
 *   swim:payload(bytes)  swim:hint(name)  swim:address()  swim:counts()  swim:close() */
#include <lauxlib.h>
#include <lua.h>

#include "core/errors.h"
#include "core/swim.h"
#include "drive/swim_driver.h"
#include "lua/door.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"
#include "lua/modules.h"
#include "lua/swim_options.h"
#include "lua/swim_predict.h"
#include "lua/swim_replay.h"

enum { ON_EVENT = 2, ON_LEFT = 3, ON_NOTICE = 4 }; /* User values. */

struct binding {
  struct lua_handle handle;
  struct swim_driver *driver;
};

static void close_binding(struct lua_handle *h) { swim_driver_close(((struct binding *)h)->driver); }
static void abandon(struct lua_handle *h) { swim_driver_abandon(((struct binding *)h)->driver); }
static const struct lua_handle_type type = {"shoal.swim", close_binding, abandon};

/* ---- events ---- */

struct said {
  struct binding *binding;
  const struct swim_action *action;
  const struct swim_notice *notice;
  uint32_t heard;
};

static int push_event(lua_State *L, void *data) {
  const struct said *said = data;
  const struct swim_action *a = said->action;
  lua_handle_push(L, &said->binding->handle);
  lua_handle_value(L, -1, ON_EVENT);
  lua_createtable(L, 0, 2);
  lua_pushstring(L, swim_event_name(a->event));
  lua_setfield(L, -2, "kind");
  swim_push_member(L, &a->member);
  lua_setfield(L, -2, "member");
  if (a->event == SWIM_EVENT_USER) {
    lua_pushlstring(L, (const char *)a->told, a->told_length);
    lua_setfield(L, -2, "told");
    lua_pushinteger(L, a->told_number);
    lua_setfield(L, -2, "number");
  }
  return 1;
}

static int push_left(lua_State *L, void *data) {
  const struct said *said = data;
  lua_handle_push(L, &said->binding->handle);
  lua_handle_value(L, -1, ON_LEFT);
  lua_pushinteger(L, said->heard);
  return 1;
}

static void on_event(void *data, const struct swim_action *action) {
  struct binding *b = data;
  (void)door_call(b->handle.L, "swim.callback", push_event, 0, NULL, &(struct said){.binding = b, .action = action}); /* The door reports it. */
}

static void on_left(void *data, uint32_t heard) {
  struct binding *b = data;
  (void)door_call(b->handle.L, "swim.left", push_left, 0, NULL, &(struct said){.binding = b, .heard = heard}); /* The door reports it. */
}

static int push_notice(lua_State *L, void *data) {
  static const char *const kinds[] = {"namesake", "namesake_gone", "foreign"};
  const struct said *said = data;
  const struct swim_notice *n = said->notice;
  lua_handle_push(L, &said->binding->handle);
  lua_handle_value(L, -1, ON_NOTICE);
  lua_createtable(L, 0, 7);
  lua_pushstring(L, kinds[n->kind]);
  lua_setfield(L, -2, "kind");
  lua_pushlstring(L, n->name, n->name_length);
  lua_setfield(L, -2, "name");
  lua_pushlstring(L, n->cluster, n->cluster_length);
  lua_setfield(L, -2, "cluster");
  lua_push_address(L, &n->one);
  lua_setfield(L, -2, "address");
  lua_push_address(L, &n->other);
  lua_setfield(L, -2, "other");
  lua_pushboolean(L, n->ours);
  lua_setfield(L, -2, "ours");
  lua_pushboolean(L, n->out);
  lua_setfield(L, -2, "out");
  return 1;
}

static void on_notice(void *data, const struct swim_notice *notice) {
  struct binding *b = data;
  (void)door_call(b->handle.L, "swim.notice", push_notice, 0, NULL, &(struct said){.binding = b, .notice = notice}); /* The door reports it. */
}

static void on_trouble(void *data, enum swim_driver_trouble which, int code) {
  struct binding *b = data;
  if (which == SWIM_DRIVER_SEND) return; /* Counted; a node reports the counts. */
  door_report(b->handle.L, which == SWIM_DRIVER_RECORD ? "swim.record" : "swim.receive", error_text(code));
}

static void on_closed(void *data) { lua_handle_closed(data); }

static const struct swim_driver_events events = {
    .event = on_event, .left = on_left, .notice = on_notice, .trouble = on_trouble, .closed = on_closed};

/* ---- opening ---- */

static int nobody_asks(lua_State *L) { return lua_settop(L, 0), 0; }

static int refuse(lua_State *L, const struct shoal_address *address, const char *why) {
  char text[ADDRESS_TEXT_MAX];
  address_format(address, text);
  lua_pushnil(L);
  lua_pushfstring(L, "swim: bind to %s: %s", text, why);
  lua_pushliteral(L, "CONFIG");
  return 3;
}

static int l_open(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1); /* 1. Arguments: may raise; nothing is ours yet. */
  struct swim_driver_options options;
  luaL_checktype(L, 3, LUA_TFUNCTION);
  if (lua_isnoneornil(L, 4)) lua_settop(L, 3), lua_pushcfunction(L, nobody_asks);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  lua_settop(L, 4);
  if (swim_check_options(L, 2, &options)) return 3;
  const char *why = swim_driver_refuses(world, &options);
  if (why) return refuse(L, &options.bind, why);
  options.identity.generation = swim_driver_generation(world, options.identity.generation);
  lua_settop(L, 4);

  struct binding *b = lua_handle_new(L, &type, 1, sizeof *b, 3); /* 2. Lua memory: may raise; it is the GC's. */
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, -2, ON_EVENT);
  lua_pushvalue(L, 4);
  lua_setiuservalue(L, -2, ON_NOTICE);
  lua_handle_pin(L, &b->handle, -1);

  int rc = swim_driver_open(world, &options.bind, &events, b, &b->driver); /* 3. The world: never raises. */
  if (rc < 0) {
    char text[ADDRESS_TEXT_MAX];
    address_format(&options.bind, text);
    lua_handle_unpin(&b->handle);
    return error_push(L, lua_pushfstring(L, "swim: bind to %s", text), rc);
  }
  rc = swim_driver_start(b->driver, &options);
  if (rc < 0) {
    lua_handle_close(&b->handle);
    return error_push(L, "swim", rc);
  }
  return 1;
}

/* ---- methods ---- */

static struct binding *check_open(lua_State *L) { return lua_handle_check(L, 1, &type, true); }
static struct swim_driver *check(lua_State *L) { return check_open(L)->driver; }
static const struct swim *check_core(lua_State *L) { return swim_driver_core(check(L)); }

static int l_members(lua_State *L) { return swim_push_members(L, check_core(L)), 1; }

static int l_member(lua_State *L) {
  const struct swim *core = check_core(L);
  size_t length;
  struct swim_member m;
  const char *name = luaL_checklstring(L, 2, &length);
  if (swim_find(core, name, length, &m)) swim_push_member(L, &m);
  else lua_pushnil(L);
  return 1;
}

static int l_self(lua_State *L) {
  struct swim_member m;
  swim_self(check_core(L), &m);
  return swim_push_member(L, &m), 1;
}

static int l_join(lua_State *L) {
  struct swim_driver *d = check(L);
  struct shoal_address seeds[SWIM_SEEDS_MAX];
  size_t count;
  if (swim_check_addresses(L, 2, "join", seeds, SWIM_SEEDS_MAX, &count)) return 3;
  int rc = 0;
  for (size_t i = 0; i < count && rc == 0; i++) rc = swim_driver_join(d, &seeds[i]);
  return error_or_true(L, "swim: join", rc);
}

static int l_forget(lua_State *L) {
  struct swim_driver *d = check(L);
  struct shoal_address address;
  if (!lua_check_address(L, 2, "swim: forget", &address)) return 3;
  lua_pushboolean(L, swim_driver_forget(d, &address));
  return 1;
}

static int l_erase(lua_State *L) {
  struct swim_driver *d = check(L);
  size_t length;
  const char *name = luaL_checklstring(L, 2, &length);
  int rc = swim_driver_erase(d, name, length);
  if (rc == 0) return lua_pushboolean(L, 1), 1;
  lua_pushnil(L);
  if (rc == ERR_BUSY) lua_pushfstring(L, "%s is alive", name);
  else lua_pushfstring(L, "%s is no member", name);
  lua_pushstring(L, error_name(rc));
  return 3;
}

static int l_seeds(lua_State *L) {
  struct binding *b = check_open(L);
  const struct swim *core = swim_driver_core(b->driver);
  uint64_t now_ns = world_now_ns(b->handle.world);
  uint32_t cursor = 0;
  struct swim_seed seed;
  lua_newtable(L);
  while (swim_each_seed(core, &cursor, &seed)) {
    lua_createtable(L, 0, 5);
    lua_push_address(L, &seed.address);
    lua_setfield(L, -2, "address");
    lua_pushboolean(L, seed.answered);
    lua_setfield(L, -2, "answered");
    lua_pushinteger(L, seed.tries);
    lua_setfield(L, -2, "tries");
    lua_pushinteger(L, seed.tries ? (lua_Integer)((now_ns - seed.since_ns) / 1000000) : 0);
    lua_setfield(L, -2, "silent_ms");
    if (seed.refused >= 0) lua_pushstring(L, swim_refusal_name((enum swim_refusal)seed.refused)), lua_setfield(L, -2, "refused");
    lua_rawseti(L, -2, (lua_Integer)cursor);
  }
  return 1;
}

static int l_is_out(lua_State *L) { return lua_pushboolean(L, swim_is_out(check_core(L))), 1; }

static int l_leave(lua_State *L) {
  struct swim_driver *d = check(L);
  if (lua_isnoneornil(L, 2)) lua_settop(L, 1);
  else luaL_checktype(L, 2, LUA_TFUNCTION);
  int rc = swim_driver_leave(d);
  if (rc < 0) return error_push(L, "swim: leave", rc);
  if (lua_gettop(L) < 2) lua_pushcfunction(L, nobody_asks);
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, ON_LEFT); /* In time, for the driver calls nobody before the next turn. */
  lua_pushboolean(L, 1);
  return 1;
}

static int l_payload(lua_State *L) {
  struct swim_driver *d = check(L);
  size_t length;
  const char *bytes = luaL_checklstring(L, 2, &length);
  return error_or_true(L, "swim: payload", swim_driver_payload(d, bytes, length));
}

static int l_hint(lua_State *L) {
  struct swim_driver *d = check(L);
  size_t length;
  const char *name = luaL_checklstring(L, 2, &length);
  lua_pushboolean(L, swim_driver_hint(d, name, length));
  return 1;
}

static int l_tell(lua_State *L) {
  struct binding *b = check_open(L);
  size_t length;
  const char *bytes = luaL_checklstring(L, 2, &length);
  int rc = swim_driver_tell(b->driver, bytes, length);
  if (rc != ERR_FULL) return error_or_true(L, "swim: tell", rc);
  uint64_t now_ns = world_now_ns(b->handle.world), after_ns = swim_tell_after_ns(swim_driver_core(b->driver));
  lua_Integer wait_ms = after_ns > now_ns ? (lua_Integer)((after_ns - now_ns) / 1000000 + 1) : 1;
  lua_pushnil(L);
  lua_pushfstring(L, "swim: tell: %d events of this member, or %d of all, are not over yet; tell it again in %I ms, or tell less",
                  (int)SWIM_USER_WINDOW, (int)SWIM_USERS_MAX, (LUAI_UACINT)wait_ms);
  lua_pushliteral(L, "FULL");
  lua_pushinteger(L, wait_ms);
  return 4;
}

static int l_why(lua_State *L) {
  struct binding *b = check_open(L);
  size_t length;
  struct swim_why why;
  const char *name = luaL_checklstring(L, 2, &length);
  if (swim_why(swim_driver_core(b->driver), name, length, &why)) swim_push_why(L, &why, world_now_ns(b->handle.world));
  else lua_pushnil(L);
  return 1;
}

static int l_distance(lua_State *L) {
  const struct swim *core = check_core(L);
  size_t a_length, b_length;
  const char *one = luaL_checklstring(L, 2, &a_length), *other = luaL_checklstring(L, 3, &b_length);
  uint64_t ns = swim_distance_ns(core, one, a_length, other, b_length);
  if (ns > 0) lua_pushinteger(L, (lua_Integer)ns);
  else lua_pushnil(L);
  return 1;
}

static int l_reconfigure(lua_State *L) {
  struct swim_driver *d = check(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  struct swim_config config = *swim_config_now(swim_driver_core(d));
  if (swim_check_only_tunables(L, 2) || swim_check_config(L, 2, &config)) return 3;
  return error_or_true(L, "swim: reconfigure", swim_driver_reconfigure(d, &config));
}

static int l_address(lua_State *L) { return lua_push_address(L, swim_driver_address(check(L))), 1; }

static int l_counts(lua_State *L) {
  struct swim_driver *d = check(L);
  swim_push_counts(L, swim_driver_core(d));
  swim_push_driver_counts(L, swim_driver_counts(d));
  return 1;
}

static int l_close(lua_State *L) { return lua_handle_close(lua_handle_check(L, 1, &type, false)), 0; }

int luaopen_shoal_core_swim(lua_State *L) {
  static const luaL_Reg functions[] = {{"open", l_open}, {"replay", swim_l_replay}, {"predict", swim_l_predict}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"members", l_members}, {"member", l_member},   {"self", l_self},       {"join", l_join},
      {"forget", l_forget},   {"leave", l_leave},     {"payload", l_payload}, {"hint", l_hint},
      {"address", l_address}, {"counts", l_counts},   {"close", l_close},     {"tell", l_tell},
      {"erase", l_erase},     {"seeds", l_seeds},     {"is_out", l_is_out},
      {"why", l_why},         {"distance_ns", l_distance}, {"reconfigure", l_reconfigure}, {NULL, NULL},
  };
  lua_handle_type(L, &type, methods);
  luaL_newlib(L, functions);
  return 1;
}
