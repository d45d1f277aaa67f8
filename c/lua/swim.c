/* shoal.core.swim: core/swim over the world's datagrams and one timer. lua/shoal/member/swim.lua is its face and its manual.
 *
 *   core.open(world, options, on_event) -> swim | nil, message, code     core.replay: swim_recording.h
 *   swim:members()  swim:member(name)  swim:self()  swim:join(addresses)  swim:forget(address)  swim:leave(on_done?)
 *   swim:tell(bytes)  swim:why(name)  swim:distance_ns(a, b)  swim:reconfigure(options)
 *   swim:payload(bytes)  swim:hint(name)  swim:address()  swim:counts()  swim:close() */
#include <lauxlib.h>
#include <lua.h>
#include <string.h>

#include "core/swim.h"
#include "lua/door.h"
#include "lua/handle.h"
#include "lua/lua_error.h"
#include "lua/lua_world.h"
#include "lua/modules.h"
#include "lua/swim_options.h"
#include "lua/swim_predict.h"
#include "lua/swim_recording.h"
#include "net/sealing.h"
#include "net/tables.h"

enum { ON_EVENT = 2, ON_LEFT = 3 }; /* User values. */

struct binding {
  struct lua_handle handle;
  struct swim *core;
  struct world_udp *udp;
  struct world_timer *timer;
  struct tables *tables;
  struct shoal_address bound;
  struct swim_action action;
  struct swim_recording *recording; /* NULL: none is made. */
  uint64_t send_failed; /* Datagrams that the network did not take: lost, as any can be. */
  int parts;            /* Things of the world that will still say they closed. */
  bool draining;
};

static void close_binding(struct lua_handle *h) {
  struct binding *b = (struct binding *)h;
  if (b->timer) world_timer_close(b->timer);
  if (b->tables) tables_close(b->tables);
  world_udp_close(b->udp);
}

static void free_core(struct binding *b) {
  if (b->core) swim_close(b->core);
  b->core = NULL;
}

static void abandon(struct lua_handle *h) {
  struct binding *b = (struct binding *)h;
  free_core(b);
  if (b->tables) tables_abandon(b->tables);
  swim_recording_abandon(b->recording);
  b->tables = NULL, b->recording = NULL;
}

static const struct lua_handle_type type = {"shoal.swim", close_binding, abandon};

static void on_part_closed(void *data) {
  struct binding *b = data;
  if (--b->parts > 0) return;
  free_core(b);
  swim_recording_close(b->recording);
  b->tables = NULL, b->recording = NULL;
  lua_handle_closed(&b->handle);
}

/* ---- from the core to the world and to Lua ---- */

static int push_event(lua_State *L, void *data) {
  struct binding *b = data;
  lua_handle_push(L, &b->handle);
  lua_handle_value(L, -1, ON_EVENT);
  lua_createtable(L, 0, 2);
  lua_pushstring(L, swim_event_name(b->action.event));
  lua_setfield(L, -2, "kind");
  swim_push_member(L, &b->action.member);
  lua_setfield(L, -2, "member");
  if (b->action.event == SWIM_EVENT_USER) {
    lua_pushlstring(L, (const char *)b->action.told, b->action.told_length);
    lua_setfield(L, -2, "told");
    lua_pushinteger(L, b->action.told_number);
    lua_setfield(L, -2, "number");
  }
  return 1;
}

static int push_left(lua_State *L, void *data) {
  struct binding *b = data;
  lua_handle_push(L, &b->handle);
  lua_handle_value(L, -1, ON_LEFT);
  lua_pushinteger(L, b->action.heard);
  return 1;
}

static void deliver(struct binding *b) {
  switch (b->action.kind) {
    case SWIM_SEND:
      if (world_udp_send(b->udp, &b->action.to, b->action.bytes, b->action.length) < 0) b->send_failed++;
      break;
    case SWIM_EVENT: (void)door_call(b->handle.L, "swim.event", push_event, 0, NULL, b); break; /* The door told. */
    case SWIM_STREAM_OPEN:
    case SWIM_STREAM_SEND:
    case SWIM_STREAM_CLOSE: tables_do(b->tables, &b->action); break;
    case SWIM_LEFT_DONE: (void)door_call(b->handle.L, "swim.left", push_left, 0, NULL, b); break; /* The door told. */
  }
}

static uint64_t now_ns(const struct binding *b) { return world_now_ns(b->handle.world); }
static bool usable(const struct binding *b) { return b->handle.L && !b->handle.closing; }

static void drain(struct binding *b) {
  if (b->draining) return; /* Called from a handler: the outer drain delivers it, in order. */
  b->draining = true;
  while (usable(b) && swim_next(b->core, &b->action)) {
    swim_recording_action(b->recording, &b->action);
    deliver(b);
  }
  b->draining = false;
  if (!usable(b)) return;
  int trouble = swim_recording_trouble(b->recording);
  if (trouble < 0) door_report(b->handle.L, "swim.record", error_text(trouble));
  uint64_t deadline_ns = swim_deadline(b->core);
  if (deadline_ns == UINT64_MAX) world_timer_stop(b->timer);
  else world_timer_start(b->timer, deadline_ns);
}

/* Before each input. */
static void record(struct binding *b, enum swim_input input, const struct shoal_address *address, const void *bytes, size_t length) {
  swim_recording_step(b->recording, input, now_ns(b), address, bytes, length, NULL);
}

static void on_timer(void *data) {
  struct binding *b = data;
  if (!usable(b)) return;
  record(b, SWIM_INPUT_TICK, NULL, NULL, 0);
  swim_tick(b->core, now_ns(b));
  drain(b);
}

static void on_datagram(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct binding *b = data;
  if (!usable(b)) return;
  record(b, SWIM_INPUT_RECEIVE, from, bytes, length);
  (void)swim_receive(b->core, now_ns(b), from, bytes, length); /* A refusal is counted by its reason. */
  drain(b);
}

static void on_error(void *data, int code) {
  struct binding *b = data;
  if (usable(b)) door_report(b->handle.L, "swim.receive", error_text(code));
}

/* ---- streams of tables ---- */

static void on_stream_opened(void *data, uint32_t stream) {
  struct binding *b = data;
  if (!usable(b)) return;
  swim_recording_stream(b->recording, SWIM_INPUT_OPENED, now_ns(b), stream, NULL, 0);
  swim_stream_opened(b->core, now_ns(b), stream);
  drain(b);
}

static uint32_t on_stream_accepted(void *data, const struct shoal_address *from) {
  struct binding *b = data;
  if (!usable(b)) return 0;
  record(b, SWIM_INPUT_ACCEPTED, from, NULL, 0);
  uint32_t stream = swim_stream_accepted(b->core, now_ns(b), from);
  drain(b);
  return stream;
}

static void on_stream_received(void *data, uint32_t stream, const uint8_t *bytes, size_t length) {
  struct binding *b = data;
  if (!usable(b)) return;
  swim_recording_stream(b->recording, SWIM_INPUT_STREAM, now_ns(b), stream, bytes, length);
  swim_stream_received(b->core, now_ns(b), stream, bytes, length);
  drain(b);
}

static void on_stream_ended(void *data, uint32_t stream) {
  struct binding *b = data;
  if (!usable(b)) return;
  swim_recording_stream(b->recording, SWIM_INPUT_ENDED, now_ns(b), stream, NULL, 0);
  swim_stream_ended(b->core, now_ns(b), stream);
  drain(b);
}

static const struct tables_events table_events = {
    on_stream_opened, on_stream_accepted, on_stream_received, on_stream_ended, on_error, on_part_closed,
};

/* A method gave the core something to do: it is done in the next turn, so that no method calls back before it returns. */
static void wake(struct binding *b) { world_timer_start(b->timer, now_ns(b)); }

/* ---- opening ---- */

static int refuse(lua_State *L, const struct shoal_address *address, const char *why) {
  char text[ADDRESS_TEXT_MAX];
  address_format(address, text);
  lua_pushnil(L);
  lua_pushfstring(L, "swim: bind to %s: %s", text, why);
  lua_pushliteral(L, "CONFIG");
  return 3;
}

static bool is_wildcard(const struct shoal_address *a) {
  static const struct shoal_address none;
  return memcmp(a->bytes, none.bytes, sizeof a->bytes) == 0;
}

static const char *why_not(struct shoal_world *world, const struct swim_options *o) {
  const char *unsealed = sealing_refusal(world, &o->bind);
  if (unsealed) return unsealed;
  if (is_wildcard(&o->bind) && o->identity.address.family == 0)
    return "needs `advertise`, the address at which others reach this node";
  return NULL;
}

static int join(struct binding *b, const struct shoal_address *seed) {
  record(b, SWIM_INPUT_JOIN, seed, NULL, 0);
  return swim_join(b->core, now_ns(b), seed);
}

static const struct world_udp_events udp_events = {on_datagram, on_error, on_part_closed};

static int start(struct binding *b, struct swim_options *o) {
  struct shoal_world *world = b->handle.world;
  b->parts = 1;
  world_udp_address(b->udp, &b->bound);
  if (o->identity.address.family == 0) o->identity.address = b->bound;
  uint64_t wall_s = (uint64_t)(world_wall_ns(world) / 1000000000);
  if (wall_s > o->identity.generation) o->identity.generation = (uint32_t)(wall_s < UINT32_MAX ? wall_s : UINT32_MAX);
  uint64_t seed = world_random(world);
  int rc = swim_open(&o->config, &o->identity, seed, now_ns(b), &b->core);
  if (rc < 0) return rc;
  if (o->record) rc = swim_recording_open(world, o->record, &o->config, &o->identity, seed, now_ns(b), &b->recording);
  if (rc < 0) return rc;
  rc = world_timer_open(world, on_timer, on_part_closed, b, &b->timer);
  if (rc < 0) return rc;
  b->parts = 2;
  rc = tables_open(world, &b->bound, &table_events, b, &b->tables);
  if (rc < 0) return rc;
  b->parts = 3;
  swim_recording_stream(b->recording, SWIM_INPUT_STREAMS, now_ns(b), tables_port(b->tables), NULL, 0);
  swim_streams(b->core, tables_port(b->tables));
  for (size_t i = 0; i < o->seeds_count && rc == 0; i++) rc = join(b, &o->seeds[i]);
  return rc;
}

static int l_open(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1); /* 1. Arguments: may raise; nothing is ours yet. */
  struct swim_options options;
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lua_settop(L, 3);
  if (swim_check_options(L, 2, &options)) return 3;
  const char *why = why_not(world, &options);
  if (why) return refuse(L, &options.bind, why);
  char text[ADDRESS_TEXT_MAX];
  address_format(&options.bind, text);
  lua_settop(L, 3);

  struct binding *b = lua_handle_new(L, &type, 1, sizeof *b, 2); /* 2. Lua memory: may raise; it is the GC's. */
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, -2, ON_EVENT);
  lua_handle_pin(L, &b->handle, -1);

  int rc = world_udp_open(world, &options.bind, &udp_events, b, &b->udp); /* 3. The world: never raises. */
  if (rc < 0) {
    lua_handle_unpin(&b->handle);
    return error_push(L, lua_pushfstring(L, "swim: bind to %s", text), rc);
  }
  rc = start(b, &options);
  if (rc < 0) {
    lua_handle_close(&b->handle);
    return error_push(L, "swim", rc);
  }
  wake(b);
  return 1;
}

/* ---- methods ---- */

static struct binding *check(lua_State *L) { return lua_handle_check(L, 1, &type, true); }

static int l_members(lua_State *L) { return swim_push_members(L, check(L)->core), 1; }

static int l_member(lua_State *L) {
  struct binding *b = check(L);
  size_t length;
  struct swim_member m;
  const char *name = luaL_checklstring(L, 2, &length);
  if (swim_find(b->core, name, length, &m)) swim_push_member(L, &m);
  else lua_pushnil(L);
  return 1;
}

static int l_self(lua_State *L) {
  struct swim_member m;
  swim_self(check(L)->core, &m);
  return swim_push_member(L, &m), 1;
}

static int l_join(lua_State *L) {
  struct binding *b = check(L);
  struct shoal_address seeds[SWIM_SEEDS_MAX];
  size_t count;
  if (swim_check_addresses(L, 2, "join", seeds, SWIM_SEEDS_MAX, &count)) return 3;
  int rc = 0;
  for (size_t i = 0; i < count && rc == 0; i++) rc = join(b, &seeds[i]);
  wake(b);
  return error_or_true(L, "swim: join", rc);
}

static int l_forget(lua_State *L) {
  struct binding *b = check(L);
  struct shoal_address address;
  if (!lua_check_address(L, 2, "swim: forget", &address)) return 3;
  record(b, SWIM_INPUT_FORGET, &address, NULL, 0);
  lua_pushboolean(L, swim_forget(b->core, &address));
  return 1;
}

static int nobody_asks(lua_State *L) { return lua_settop(L, 0), 0; }

static int l_leave(lua_State *L) {
  struct binding *b = check(L);
  if (lua_isnoneornil(L, 2)) lua_settop(L, 1);
  else luaL_checktype(L, 2, LUA_TFUNCTION);
  if (swim_is_leaving(b->core)) return error_push(L, "swim: leave", ERR_EXISTS);
  if (lua_gettop(L) < 2) lua_pushcfunction(L, nobody_asks);
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, ON_LEFT);
  record(b, SWIM_INPUT_LEAVE, NULL, NULL, 0);
  swim_leave(b->core, now_ns(b));
  wake(b);
  lua_pushboolean(L, 1);
  return 1;
}

static int l_payload(lua_State *L) {
  struct binding *b = check(L);
  size_t length;
  const char *bytes = luaL_checklstring(L, 2, &length);
  record(b, SWIM_INPUT_PAYLOAD, NULL, bytes, length);
  int rc = swim_set_payload(b->core, now_ns(b), bytes, length);
  wake(b);
  return error_or_true(L, "swim: payload", rc);
}

static int l_hint(lua_State *L) {
  struct binding *b = check(L);
  size_t length;
  const char *name = luaL_checklstring(L, 2, &length);
  record(b, SWIM_INPUT_HINT, NULL, name, length);
  lua_pushboolean(L, swim_hint(b->core, now_ns(b), name, length));
  wake(b);
  return 1;
}

static int l_tell(lua_State *L) {
  struct binding *b = check(L);
  size_t length;
  const char *bytes = luaL_checklstring(L, 2, &length);
  record(b, SWIM_INPUT_TELL, NULL, bytes, length);
  int rc = swim_tell(b->core, now_ns(b), bytes, length);
  wake(b);
  return error_or_true(L, "swim: tell", rc);
}

static int l_why(lua_State *L) {
  struct binding *b = check(L);
  size_t length;
  struct swim_why why;
  const char *name = luaL_checklstring(L, 2, &length);
  if (swim_why(b->core, name, length, &why)) swim_push_why(L, &why, now_ns(b));
  else lua_pushnil(L);
  return 1;
}

static int l_distance(lua_State *L) {
  struct binding *b = check(L);
  size_t a_length, b_length;
  const char *one = luaL_checklstring(L, 2, &a_length), *other = luaL_checklstring(L, 3, &b_length);
  uint64_t ns = swim_distance_ns(b->core, one, a_length, other, b_length);
  if (ns > 0) lua_pushinteger(L, (lua_Integer)ns);
  else lua_pushnil(L);
  return 1;
}

static int l_reconfigure(lua_State *L) {
  struct binding *b = check(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  struct swim_config config = *swim_config_now(b->core);
  if (swim_check_only_tunables(L, 2) || swim_check_config(L, 2, &config)) return 3;
  swim_recording_step(b->recording, SWIM_INPUT_RECONFIGURE, now_ns(b), NULL, NULL, 0, &config);
  int rc = swim_reconfigure(b->core, now_ns(b), &config);
  wake(b);
  return error_or_true(L, "swim: reconfigure", rc);
}

static int l_address(lua_State *L) { return lua_push_address(L, &check(L)->bound), 1; }

static int l_counts(lua_State *L) {
  struct binding *b = check(L);
  swim_push_counts(L, b->core);
  lua_pushinteger(L, (lua_Integer)b->send_failed);
  lua_setfield(L, -2, "send_failed");
  return 1;
}

static int l_close(lua_State *L) { return lua_handle_close(lua_handle_check(L, 1, &type, false)), 0; }

int luaopen_shoal_core_swim(lua_State *L) {
  static const luaL_Reg functions[] = {{"open", l_open}, {"replay", swim_l_replay}, {"predict", swim_l_predict}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"members", l_members}, {"member", l_member},   {"self", l_self},       {"join", l_join},
      {"forget", l_forget},   {"leave", l_leave},     {"payload", l_payload}, {"hint", l_hint},
      {"address", l_address}, {"counts", l_counts},   {"close", l_close},     {"tell", l_tell},
      {"why", l_why},         {"distance_ns", l_distance}, {"reconfigure", l_reconfigure}, {NULL, NULL},
  };
  lua_handle_type(L, &type, methods);
  luaL_newlib(L, functions);
  return 1;
}
