#include "lua/net_options.h"

#include <lauxlib.h>
#include <math.h>
#include <stddef.h>

#include "lua/lua_world.h"

/* ---- options ---- */

static const char *text_field(lua_State *L, int index, const char *name) {
  if (lua_getfield(L, index, name) == LUA_TNIL) return lua_pop(L, 1), "";
  if (lua_type(L, -1) != LUA_TSTRING)
    luaL_error(L, "net: %s: expected a string, got %s", name, luaL_typename(L, -1));
  const char *text = lua_tostring(L, -1);
  lua_pop(L, 1); /* The table keeps it. */
  return text;
}

/* 0 when it is not there: the default. */
static uint32_t count_field(lua_State *L, int index, const char *name) {
  int is_integer;
  if (lua_getfield(L, index, name) == LUA_TNIL) return lua_pop(L, 1), 0;
  lua_Integer value = lua_tointegerx(L, -1, &is_integer);
  if (!is_integer || value < 1 || value > INT32_MAX)
    luaL_error(L, "net: %s: expected an integer, 1 to %d, got %s", name, INT32_MAX, luaL_tolstring(L, -1, NULL));
  lua_pop(L, 1);
  return (uint32_t)value;
}

static void lane_fields(lua_State *L, int index, const char *name, uint32_t out[NET_LANES]) {
  int type = lua_getfield(L, index, name);
  if (type != LUA_TNIL && type != LUA_TTABLE)
    luaL_error(L, "net: %s: expected a table by lane, got %s", name, luaL_typename(L, -1));
  for (int lane = 0; lane < NET_LANES; lane++)
    out[lane] = type == LUA_TNIL ? 0 : count_field(L, -1, net_lane_name((enum net_lane)lane));
  lua_pop(L, 1);
}

static bool open_table(lua_State *L, int index, const char *name) {
  int type = lua_getfield(L, index, name);
  if (type != LUA_TNIL && type != LUA_TTABLE) luaL_error(L, "net: %s: expected a table, got %s", name, luaL_typename(L, -1));
  if (type == LUA_TNIL) lua_pop(L, 1);
  return type == LUA_TTABLE;
}

static uint64_t ms_field(lua_State *L, const char *name, uint32_t fallback_ms) {
  uint32_t ms = count_field(L, lua_absindex(L, -1), name);
  return (ms ? ms : fallback_ms) * UINT64_C(1000000);
}

void net_check_options(lua_State *L, int index, struct net_options *out) {
  luaL_checktype(L, index, LUA_TTABLE);
  *out = (struct net_options){.cluster = text_field(L, index, "cluster"),
                              .node = text_field(L, index, "node"),
                              .role = text_field(L, index, "role"),
                              .dc = text_field(L, index, "dc"),
                              .advertise = text_field(L, index, "advertise"),
                              .connect_timeout_ms = count_field(L, index, "connect_timeout_ms"),
                              .keepalive_ms = count_field(L, index, "keepalive_ms"),
                              .idle_timeout_ms = count_field(L, index, "idle_timeout_ms"),
                              .linger_ms = count_field(L, index, "linger_ms"),
                              .in_flight_max = count_field(L, index, "in_flight_max"),
                              .unanswered_max = count_field(L, index, "unanswered_max"),
                              .unanswered_all_max = count_field(L, index, "unanswered_all_max"),
                              .connections_max = count_field(L, index, "connections_max"),
                              .assembly_bytes_max = count_field(L, index, "assembly_bytes_max"),
                              .queued_bytes_max = count_field(L, index, "queued_bytes_max")};
  lane_fields(L, index, "lane_in_flight_max", out->lane_in_flight_max);
  lane_fields(L, index, "lane_queue_max", out->lane_queue_max);
  lane_fields(L, index, "lane_queue_bytes_max", out->lane_queue_bytes_max);
  if (open_table(L, index, "circuit")) {
    uint32_t failures = count_field(L, lua_absindex(L, -1), "failures");
    out->breaker = (struct breaker_config){failures ? failures : 3, ms_field(L, "window_ms", 30000), ms_field(L, "open_ms", 10000)};
    lua_pop(L, 1);
  }
  if (open_table(L, index, "backoff")) {
    uint32_t factor = count_field(L, lua_absindex(L, -1), "factor");
    out->backoff = (struct backoff_config){ms_field(L, "base_ms", 500), ms_field(L, "cap_ms", 30000), factor ? factor : 2};
    lua_pop(L, 1);
  }
}

/* ---- counts ---- */

static void set_count(lua_State *L, const char *name, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}

#define COUNT(name) {#name, offsetof(struct net_counts, name)}
static const struct {
  const char *name;
  size_t offset;
} fields[] = {COUNT(messages_sent),      COUNT(messages_received), COUNT(bytes_sent),        COUNT(bytes_received),
              COUNT(writes),             COUNT(requests),          COUNT(replies),           COUNT(timeouts),
              COUNT(late_replies),       COUNT(stray_replies),     COUNT(unsent_replies),
              COUNT(dials),              COUNT(dials_failed),      COUNT(accepted),          COUNT(accept_errors),
              COUNT(handshakes_refused), COUNT(connections_lost),  COUNT(idle_closed),       COUNT(control_overflows),
              COUNT(connections_open),   COUNT(assembly_bytes),    COUNT(queued_bytes),      COUNT(unanswered)};

void net_push_counts(lua_State *L, const struct net_counts *counts) {
  lua_newtable(L);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    set_count(L, fields[i].name, *(const uint64_t *)(const void *)((const char *)counts + fields[i].offset));
  lua_newtable(L);
  for (int fault = 1; fault < FRAME_FAULTS_COUNT; fault++)
    set_count(L, frame_fault_name((enum frame_fault)fault), counts->faults[fault]);
  lua_setfield(L, -2, "faults");
  lua_newtable(L);
  for (int refusal = 0; refusal < NET_REFUSALS_COUNT; refusal++)
    set_count(L, net_refusal_name((enum net_refusal)refusal), counts->refused[refusal]);
  lua_setfield(L, -2, "refused");
  lua_newtable(L);
  for (int lane = 0; lane < NET_LANES; lane++) {
    lua_newtable(L);
    for (int drop = 0; drop < NET_DROPS_COUNT; drop++)
      set_count(L, net_drop_name((enum net_drop)drop), counts->drops[lane][drop]);
    lua_setfield(L, -2, net_lane_name((enum net_lane)lane));
  }
  lua_setfield(L, -2, "drops");
}

/* ---- info ---- */

static void set_text(lua_State *L, const char *name, const char *text) {
  if (!text[0]) return; /* Not known: nil. */
  lua_pushstring(L, text);
  lua_setfield(L, -2, name);
}

void net_push_info(lua_State *L, struct net_peer *peer) {
  struct net_peer_info info;
  net_peer_info(peer, &info);
  lua_newtable(L);
  set_text(L, "node", info.node);
  set_text(L, "role", info.role);
  set_text(L, "dc", info.dc);
  set_text(L, "advertise", info.advertise);
  set_text(L, "circuit", breaker_name(info.circuit));
  lua_push_address(L, &info.address);
  lua_setfield(L, -2, "address");
  lua_pushboolean(L, info.up);
  lua_setfield(L, -2, "up");
  lua_pushboolean(L, info.dialled);
  lua_setfield(L, -2, "dialled");
  set_count(L, "in_flight", info.in_flight);
  set_count(L, "queued_bytes", info.queued_bytes);
}
