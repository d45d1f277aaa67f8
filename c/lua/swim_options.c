#include "lua/swim_options.h"

#include <lauxlib.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "lua/lua_world.h"

/* ---- options in ---- */

static const struct {
  const char *name;
  size_t offset;
} tunables[] = {
#define TUNABLE(name) {#name, offsetof(struct swim_config, name)}
    TUNABLE(probe_interval_ms),  TUNABLE(probe_timeout_ms),      TUNABLE(indirect_probes),      TUNABLE(gossip_interval_ms),
    TUNABLE(ping_repeats),       TUNABLE(health_max),            TUNABLE(buddy),                TUNABLE(verify_deaths),
    TUNABLE(gossip_fanout),      TUNABLE(retransmit_multiplier), TUNABLE(gossip_bytes_per_s),   TUNABLE(user_bytes_per_s),
    TUNABLE(suspicion_multiplier), TUNABLE(suspicion_max),
    TUNABLE(confirmations),      TUNABLE(sync_interval_ms),      TUNABLE(join_retry_ms),        TUNABLE(join_retry_max_ms),
    TUNABLE(leave_timeout_ms),   TUNABLE(tombstone_ms),          TUNABLE(datagram_max),         TUNABLE(members_max),
    TUNABLE(stream_bytes),       TUNABLE(flap_limit),            TUNABLE(flap_half_life_ms),
};

static int refuse(lua_State *L, const char *problem) {
  lua_pushnil(L);
  lua_pushfstring(L, "swim: %s", problem);
  lua_pushliteral(L, "CONFIG");
  return 3;
}

static const char *text_field(lua_State *L, int index, const char *name, size_t *length) {
  *length = 0;
  int type = lua_getfield(L, index, name);
  if (type != LUA_TNIL && type != LUA_TSTRING) luaL_error(L, "swim: %s: expected a string, got %s", name, luaL_typename(L, -1));
  const char *text = type == LUA_TNIL ? NULL : lua_tolstring(L, -1, length);
  lua_pop(L, 1); /* The table keeps it. */
  return text;
}

static bool number_field(lua_State *L, int index, const char *name, uint32_t *out) {
  int exact = 0;
  if (lua_getfield(L, index, name) == LUA_TNIL) return lua_pop(L, 1), false;
  lua_Integer value = lua_tointegerx(L, -1, &exact);
  if (!exact || value < 0 || value > UINT32_MAX)
    luaL_error(L, "swim: %s: expected an integer, 0 to 2^32 - 1, got %s", name, luaL_tolstring(L, -1, NULL));
  *out = (uint32_t)value;
  return lua_pop(L, 1), true;
}

/* 0 and *out (family 0 when the field is not there); or 3. */
static int address_field(lua_State *L, int index, const char *name, struct shoal_address *out) {
  size_t length;
  const char *text = text_field(L, index, name, &length);
  *out = (struct shoal_address){0};
  if (!text || address_parse(text, length, out) == 0) return 0;
  return refuse(L, lua_pushfstring(L, "%s: expected ip:port, such as 127.0.0.1:7000 or [::1]:7000, found \"%s\"", name, text));
}

int swim_check_addresses(lua_State *L, int index, const char *what, struct shoal_address *out, size_t max, size_t *count) {
  luaL_checktype(L, index, LUA_TTABLE);
  lua_Unsigned n = lua_rawlen(L, index);
  if (n > max) return refuse(L, lua_pushfstring(L, "%s: at most %d addresses, found %I", what, (int)max, (LUAI_UACINT)n));
  for (lua_Unsigned i = 0; i < n; i++) {
    lua_rawgeti(L, index, (lua_Integer)i + 1);
    size_t length;
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
    if (!text || address_parse(text, length, &out[i]) < 0 || out[i].port == 0)
      return refuse(L, lua_pushfstring(L, "%s[%d]: expected ip:port, such as 127.0.0.1:7000, found %s", what, (int)i + 1,
                                       luaL_tolstring(L, -1, NULL)));
    lua_pop(L, 1);
  }
  *count = (size_t)n;
  return 0;
}

int swim_check_config(lua_State *L, int index, struct swim_config *out) {
  size_t profile_length;
  const char *profile = text_field(L, index, "profile", &profile_length);
  if (profile && swim_config_profile(profile, out) < 0)
    return refuse(L, lua_pushfstring(L, "profile: expected lan, wan or local, found \"%s\"", profile));
  for (size_t i = 0; i < sizeof tunables / sizeof *tunables; i++)
    number_field(L, index, tunables[i].name, (uint32_t *)((char *)out + tunables[i].offset));
  const char *problem = swim_config_check(out);
  return problem ? refuse(L, problem) : 0;
}

int swim_check_only_tunables(lua_State *L, int index) {
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "(not a name)";
    bool known = strcmp(key, "profile") == 0;
    for (size_t i = 0; i < sizeof tunables / sizeof *tunables; i++) known |= strcmp(key, tunables[i].name) == 0;
    if (!known) return refuse(L, lua_pushfstring(L, "%s: cannot be changed while it runs; what can are profile, probe_interval_ms and the like", key));
  }
  return 0;
}

int swim_check_options(lua_State *L, int index, struct swim_driver_options *out) {
  luaL_checktype(L, index, LUA_TTABLE);
  *out = (struct swim_driver_options){0};
  (void)swim_config_profile("lan", &out->config); /* This profile exists. */
  if (swim_check_config(L, index, &out->config)) return 3;
  struct swim_identity *id = &out->identity;
  id->name = text_field(L, index, "node", &id->name_length);
  id->cluster = text_field(L, index, "cluster", &id->cluster_length);
  id->payload = (const uint8_t *)text_field(L, index, "payload", &id->payload_length);
  number_field(L, index, "generation", &id->generation);
  if (id->name_length == 0 || id->name_length > SWIM_NAME_MAX) return refuse(L, "node: expected a name of 1 to 64 bytes");
  if (id->cluster_length > SWIM_CLUSTER_MAX) return refuse(L, "cluster: expected a name of at most 64 bytes");
  if (id->payload_length > SWIM_PAYLOAD_MAX)
    return refuse(L, lua_pushfstring(L, "payload: at most 512 bytes, found %I", (LUAI_UACINT)id->payload_length));
  size_t record_length;
  out->record = text_field(L, index, "record", &record_length);
  if (record_length == 0) out->record = NULL;
  if (address_field(L, index, "bind", &out->bind) || address_field(L, index, "advertise", &id->address)) return 3;
  if (out->bind.family == 0) return refuse(L, "bind: expected ip:port, found nothing");
  if (id->address.family && id->address.port == 0) return refuse(L, "advertise: needs a port");
  int refused = 0;
  if (lua_getfield(L, index, "seeds") != LUA_TNIL)
    refused = swim_check_addresses(L, lua_absindex(L, -1), "seeds", out->seeds, SWIM_SEEDS_MAX, &out->seeds_count);
  if (!refused) lua_pop(L, 1);
  return refused;
}

/* ---- members and counts out ---- */

void swim_push_member(lua_State *L, const struct swim_member *m) {
  lua_createtable(L, 0, 8);
  lua_pushlstring(L, m->name, m->name_length);
  lua_setfield(L, -2, "name");
  lua_push_address(L, &m->address);
  lua_setfield(L, -2, "address");
  lua_pushstring(L, swim_state_name(m->state));
  lua_setfield(L, -2, "state");
  lua_createtable(L, 0, 2);
  lua_pushinteger(L, m->incarnation.generation);
  lua_setfield(L, -2, "generation");
  lua_pushinteger(L, m->incarnation.version);
  lua_setfield(L, -2, "version");
  lua_setfield(L, -2, "incarnation");
  if (m->payload_version > 0) lua_pushlstring(L, (const char *)m->payload, m->payload_length);
  else lua_pushnil(L);
  lua_setfield(L, -2, "payload");
  lua_pushinteger(L, m->payload_version);
  lua_setfield(L, -2, "payload_version");
  if (m->held) lua_pushboolean(L, 1), lua_setfield(L, -2, "held");
  lua_pushinteger(L, m->suspected_ms);
  lua_setfield(L, -2, "suspected_ms");
  lua_pushinteger(L, m->confirmations);
  lua_setfield(L, -2, "confirmations");
  if (m->rtt_ns > 0) lua_pushinteger(L, (lua_Integer)m->rtt_ns), lua_setfield(L, -2, "rtt_ns");
}

static void set_ago(lua_State *L, const char *name, uint64_t now_ns, uint64_t at_ns) { /* Whole ms; below 0: in the future. */
  lua_pushinteger(L, (lua_Integer)(now_ns / 1000000) - (lua_Integer)(at_ns / 1000000));
  lua_setfield(L, -2, name);
}

static void set_name(lua_State *L, const char *field, const char *name, size_t length) {
  if (!name) return;
  lua_pushlstring(L, name, length);
  lua_setfield(L, -2, field);
}

static void push_suspicion(lua_State *L, const struct swim_why *why, uint64_t now_ns) {
  lua_createtable(L, 0, 6);
  set_ago(L, "since_ms", now_ns, why->suspected_ns);
  set_ago(L, "ends_ms", why->deadline_ns, now_ns);
  set_ago(L, "least_ms", why->least_ns, why->suspected_ns);
  set_ago(L, "most_ms", why->most_ns, why->suspected_ns);
  lua_pushinteger(L, why->wanted);
  lua_setfield(L, -2, "wanted");
  lua_createtable(L, (int)why->accusers_count, 0);
  for (uint32_t i = 0; i < why->accusers_count; i++) {
    if (why->accusers[i]) lua_pushlstring(L, why->accusers[i], why->accusers_length[i]);
    else lua_pushliteral(L, "?");
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "accusers");
}

static void push_facts(lua_State *L, const struct swim_why *why, uint64_t now_ns) {
  lua_createtable(L, (int)why->facts_count, 0);
  for (uint32_t i = 0; i < why->facts_count; i++) {
    enum swim_fact_kind kind = why->facts[i].kind;
    lua_createtable(L, 0, 6);
    lua_pushstring(L, swim_fact_name(kind));
    lua_setfield(L, -2, "kind");
    lua_pushstring(L, swim_fact_text(kind));
    lua_setfield(L, -2, "text");
    set_ago(L, "ago_ms", now_ns, why->facts[i].at_ns);
    lua_pushfstring(L, "%I.%I", (LUAI_UACINT)why->facts[i].incarnation.generation, (LUAI_UACINT)why->facts[i].incarnation.version);
    lua_setfield(L, -2, "incarnation");
    set_name(L, "by", why->facts[i].other, why->facts[i].other_length);
    if (kind == SWIM_FACT_UNANSWERED) {
      lua_pushinteger(L, why->facts[i].value / 256);
      lua_setfield(L, -2, "asked");
      lua_pushinteger(L, why->facts[i].value % 256);
      lua_setfield(L, -2, "nacks");
    }
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

void swim_push_why(lua_State *L, const struct swim_why *why, uint64_t now_ns) {
  lua_createtable(L, 0, 6);
  swim_push_member(L, &why->member);
  lua_setfield(L, -2, "member");
  lua_pushinteger(L, why->health);
  lua_setfield(L, -2, "health");
  if (why->answered) lua_pushinteger(L, why->heard_s), lua_setfield(L, -2, "heard_s");
  if (why->probing) {
    lua_createtable(L, 0, 2);
    set_ago(L, "since_ms", now_ns, why->probe_ns);
    set_ago(L, "ends_ms", why->probe_end_ns, now_ns);
    lua_setfield(L, -2, "probe");
  }
  lua_pushnumber(L, why->flap_points);
  lua_setfield(L, -2, "flap_points");
  if (why->held_until_ns > 0) set_ago(L, "held_for_ms", why->held_until_ns, now_ns);
  if (why->accusers_count > 0) push_suspicion(L, why, now_ns), lua_setfield(L, -2, "suspicion");
  push_facts(L, why, now_ns);
  lua_setfield(L, -2, "facts");
}

static int by_name(const void *left, const void *right) {
  const struct swim_member *a = left, *b = right;
  size_t shorter = a->name_length < b->name_length ? a->name_length : b->name_length;
  int order = memcmp(a->name, b->name, shorter);
  return order ? order : (a->name_length > b->name_length) - (a->name_length < b->name_length);
}

void swim_push_members(lua_State *L, const struct swim *s) {
  uint32_t cursor = 0, count = 0, kept = swim_records(s);
  struct swim_member *all = lua_newuserdatauv(L, kept * sizeof *all, 0);
  while (count < kept && swim_each(s, &cursor, &all[count])) count++;
  qsort(all, count, sizeof *all, by_name);
  lua_createtable(L, (int)count, 0);
  for (uint32_t i = 0; i < count; i++) {
    swim_push_member(L, &all[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_remove(L, -2);
}

static void set_count(lua_State *L, const char *name, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}

static void set_types(lua_State *L, const char *name, const uint64_t *counts) {
  lua_createtable(L, 0, SWIM_TYPES);
  for (unsigned type = 1; type < SWIM_TYPES; type++) set_count(L, swim_type_name(type), counts[type]);
  lua_setfield(L, -2, name);
}

void swim_push_counts(lua_State *L, const struct swim *s) {
  const struct swim_counts *c = swim_counts(s);
  lua_createtable(L, 0, 24);
  set_types(L, "sent", c->sent);
  set_types(L, "received", c->received);
  lua_createtable(L, 0, SWIM_REFUSALS_COUNT);
  for (int reason = 0; reason < SWIM_REFUSALS_COUNT; reason++)
    set_count(L, swim_refusal_name((enum swim_refusal)reason), c->refused[reason]);
  lua_setfield(L, -2, "refused");
  lua_newtable(L);
  for (int reason = 0; reason < SWIM_REFUSALS_COUNT; reason++) {
    if (c->refused_from[reason].family == 0) continue;
    lua_push_address(L, &c->refused_from[reason]);
    lua_setfield(L, -2, swim_refusal_name((enum swim_refusal)reason));
  }
  lua_setfield(L, -2, "refused_from");
#define COUNT(name) set_count(L, #name, c->name)
  COUNT(bytes_sent), COUNT(bytes_received), COUNT(probes), COUNT(probes_failed), COUNT(indirect), COUNT(suspicions);
  COUNT(refuted), COUNT(deaths), COUNT(late_acks), COUNT(syncs), COUNT(streams), COUNT(stream_failures), COUNT(streams_refused), COUNT(stalls), COUNT(held);
  COUNT(conflicts), COUNT(dropped);
  COUNT(rumours), COUNT(rtt_ns), COUNT(health), COUNT(user_sent), COUNT(user_heard), COUNT(user_full);
  COUNT(user_repeated), COUNT(user_missed), COUNT(user_dropped);
#undef COUNT
  set_count(L, "live", swim_live(s));
  set_count(L, "records", swim_records(s));
}

void swim_push_driver_counts(lua_State *L, const struct swim_driver_counts *counts) {
  uint64_t other = counts->send_failed;
  set_count(L, "send_failed", counts->send_failed);
  lua_createtable(L, 0, (int)counts->errors_count + 1);
  for (uint32_t i = 0; i < counts->errors_count; i++) {
    set_count(L, error_name(counts->errors[i].code), counts->errors[i].count);
    other -= counts->errors[i].count;
  }
  if (other > 0) set_count(L, "other", other);
  lua_setfield(L, -2, "send_errors");
  lua_createtable(L, 0, (int)counts->errors_count);
  for (uint32_t i = 0; i < counts->errors_count; i++) {
    lua_createtable(L, 0, 2);
    lua_push_address(L, &counts->errors[i].to);
    lua_setfield(L, -2, "to");
    set_count(L, "bytes", counts->errors[i].length);
    lua_setfield(L, -2, error_name(counts->errors[i].code));
  }
  lua_setfield(L, -2, "send_last");
}
