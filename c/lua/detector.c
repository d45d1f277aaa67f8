/* shoal.core.detector: two layers of failure detection (core/detector.h is its manual). Pure state: each call takes the time.
 *
 *   core.new(config, now_ns) -> d | nil, message, code     config: fields of struct detector_config over those of `profile` ("lan", "wan",
 *                                                          "local") and `watches` ("workers", "managers", "gates")
 *   d:node(now_ns, node, state, generation, version) -> changed | nil, message, code       state: "alive", "suspect", "held", "dead", "left"
 *   d:suspect(now_ns, job|nil, node, accuser, generation|nil, members, health) -> changed | nil, message, code
 *   d:confirm(now_ns, job|nil, node, accuser) -> changed
 *   d:progress(now_ns, job, node) -> cleared a suspicion?
 *   d:extend(now_ns, job, node, workflow, progress|nil) -> granted_ms | nil, message, code, grace_ms
 *   d:over(now_ns, job, node|nil), d:forget(now_ns, node) -> suspicions cleared
 *   d:tick(now_ns)    d:deadline() -> ns | nil     d:next() -> action | nil     d:look(now_ns) -> "node"|"job"|"all", name
 *   d:why(now_ns, job|nil, node) -> table | nil     d:counts() -> table          d:reconfigure(config) -> true | nil, message, code
 *
 * An accuser is a name, or a number below 2^32: core.number(name) is a name's. Job nil is the machine. */
#include <lauxlib.h>
#include <lua.h>
#include <string.h>

#include "core/detector.h"
#include "core/errors.h"
#include "lua/lua_error.h"
#include "lua/modules.h"

static const char TYPE[] = "shoal.detector";

struct binding {
  struct detector *core;
};

static struct detector *check(lua_State *L) {
  struct binding *b = luaL_checkudata(L, 1, TYPE);
  if (!b->core) luaL_argerror(L, 1, "its state is closing");
  return b->core;
}

static uint64_t check_time(lua_State *L) {
  lua_Integer now_ns = luaL_checkinteger(L, 2);
  luaL_argcheck(L, now_ns >= 0, 2, "expected nanoseconds, not below 0");
  return (uint64_t)now_ns;
}

static struct detector_text check_text(lua_State *L, int index) {
  struct detector_text text;
  text.bytes = luaL_checklstring(L, index, &text.length);
  luaL_argcheck(L, text.length > 0 && text.length <= DETECTOR_NAME_MAX, index, "expected 1 to 255 bytes");
  return text;
}

static struct detector_text check_job(lua_State *L, int index) {
  if (lua_isnoneornil(L, index)) return (struct detector_text){"", 0};
  return check_text(L, index);
}

static uint32_t check_u32(lua_State *L, int index) {
  lua_Integer value = luaL_checkinteger(L, index);
  luaL_argcheck(L, value >= 0 && value <= UINT32_MAX, index, "expected an integer from 0 to 2^32 - 1");
  return (uint32_t)value;
}

static uint32_t check_accuser(lua_State *L, int index) {
  if (lua_type(L, index) == LUA_TNUMBER) return check_u32(L, index);
  struct detector_text name = check_text(L, index);
  return detector_number(name.bytes, name.length);
}

/* ---- configuration ---- */

static const struct { const char *name; size_t offset; } fields[] = {
#define FIELD(name) {#name, offsetof(struct detector_config, name)}
    FIELD(node_min_ms), FIELD(node_max_ms), FIELD(job_min_ms), FIELD(job_max_ms), FIELD(confirmations),
    FIELD(nodes_max), FIELD(job_suspicions_max), FIELD(suspicions_max),
    FIELD(extension_base_ms), FIELD(extension_min_ms), FIELD(extensions_max), FIELD(grace_ms),
    FIELD(beat_ms), FIELD(stall_ms), FIELD(dead_kept_ms),
#undef FIELD
};

static const char *const watches[] = {"workers", "managers", "gates", NULL};
static const char *const profiles[] = {"lan", "wan", "local", NULL};

static int option(lua_State *L, int index, const char *name, const char *const *of) {
  lua_getfield(L, index, name);
  int at = luaL_checkoption(L, -1, of[0], of);
  lua_pop(L, 1);
  return at;
}

/* NULL, or what is wrong with it. */
static const char *check_config(lua_State *L, int index, struct detector_config *c) {
  luaL_checktype(L, index, LUA_TTABLE);
  int profile = option(L, index, "profile", profiles), who = option(L, index, "watches", watches);
  (void)detector_config_profile(profiles[profile], (enum detector_watches)who, c); /* The name is one of these. */
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    if (lua_getfield(L, index, fields[i].name) != LUA_TNIL) {
      int whole;
      lua_Integer value = lua_tointegerx(L, -1, &whole);
      if (!whole || value < 0 || value > UINT32_MAX) luaL_error(L, "%s: expected an integer from 0 to 2^32 - 1", fields[i].name);
      uint32_t given = (uint32_t)value;
      memcpy((char *)c + fields[i].offset, &given, sizeof given);
    }
    lua_pop(L, 1);
  }
  return detector_config_check(c);
}

static int refuse_config(lua_State *L, const char *wrong) {
  lua_pushnil(L);
  lua_pushfstring(L, "detector: %s", wrong);
  lua_pushliteral(L, "CONFIG");
  return 3;
}

static int l_new(lua_State *L) {
  struct detector_config config;
  const char *wrong = check_config(L, 1, &config);
  uint64_t now_ns = check_time(L);
  if (wrong) return refuse_config(L, wrong);
  struct binding *b = lua_newuserdatauv(L, sizeof *b, 0);
  b->core = NULL;
  luaL_setmetatable(L, TYPE);
  b->core = detector_new(&config, now_ns);
  return b->core ? 1 : error_push(L, "detector", ERR_MEMORY);
}

static int l_reconfigure(lua_State *L) {
  struct detector *d = check(L);
  struct detector_config config;
  const char *wrong = check_config(L, 2, &config);
  if (wrong) return refuse_config(L, wrong);
  return error_or_true(L, "detector: reconfigure", detector_reconfigure(d, &config));
}

/* ---- events ---- */

/* Push `changed`, or the refusal, with the cap that was reached. */
static int push_outcome(lua_State *L, struct detector *d, const struct detector_counts *before, int rc) {
  if (rc != ERR_FULL) return rc < 0 ? error_push(L, "detector", rc) : (lua_pushboolean(L, rc > 0), 1);
  struct detector_counts now;
  detector_counts(d, &now);
  lua_pushnil(L);
  if (now.full_nodes > before->full_nodes)
    lua_pushfstring(L, "detector: %d nodes are known, which is nodes_max: this one is refused", (int)now.nodes);
  else if (now.full_job > before->full_job)
    lua_pushliteral(L, "detector: this job has job_suspicions_max suspicions: one more is refused");
  else if (now.full_extensions > before->full_extensions)
    lua_pushliteral(L, "detector: this job, or all jobs, have as many extensions as suspicions are allowed: one more is refused");
  else
    lua_pushliteral(L, "detector: there are suspicions_max suspicions: one more is refused");
  lua_pushliteral(L, "FULL");
  return 3;
}

static const char *const states[] = {"alive", "suspect", "held", "dead", "left", NULL};

static int l_node(lua_State *L) {
  struct detector *d = check(L);
  uint64_t now_ns = check_time(L);
  struct detector_text node = check_text(L, 3);
  int state = luaL_checkoption(L, 4, NULL, states);
  struct detector_incarnation incarnation = {check_u32(L, 5), check_u32(L, 6)};
  struct detector_counts before;
  detector_counts(d, &before);
  return push_outcome(L, d, &before, detector_node(d, now_ns, node, (enum detector_state)state, incarnation));
}

static int l_suspect(lua_State *L) {
  struct detector *d = check(L);
  uint64_t now_ns = check_time(L);
  struct detector_text job = check_job(L, 3), node = check_text(L, 4);
  uint32_t accuser = check_accuser(L, 5), generation = lua_isnoneornil(L, 6) ? UINT32_MAX : check_u32(L, 6);
  struct detector_scale scale = {check_u32(L, 7), check_u32(L, 8)};
  struct detector_counts before;
  detector_counts(d, &before);
  return push_outcome(L, d, &before, detector_suspect(d, now_ns, job, node, accuser, generation, scale));
}

static int l_number(lua_State *L) {
  struct detector_text name = check_text(L, 1);
  lua_pushinteger(L, detector_number(name.bytes, name.length));
  return 1;
}

static int l_confirm(lua_State *L) {
  struct detector *d = check(L);
  uint64_t now_ns = check_time(L);
  struct detector_text job = check_job(L, 3), node = check_text(L, 4);
  lua_pushboolean(L, detector_confirm(d, now_ns, job, node, check_accuser(L, 5)) > 0);
  return 1;
}

static int l_progress(lua_State *L) {
  struct detector *d = check(L);
  uint64_t now_ns = check_time(L);
  lua_pushboolean(L, detector_progress(d, now_ns, check_text(L, 3), check_text(L, 4)) > 0);
  return 1;
}

static int l_extend(lua_State *L) {
  struct detector *d = check(L);
  uint64_t now_ns = check_time(L), progress = UINT64_MAX;
  struct detector_text job = check_text(L, 3), node = check_text(L, 4), workflow = check_text(L, 5);
  if (!lua_isnoneornil(L, 6)) {
    lua_Integer done = luaL_checkinteger(L, 6);
    luaL_argcheck(L, done >= 0, 6, "expected a count, not below 0");
    progress = (uint64_t)done;
  }
  struct detector_counts before;
  detector_counts(d, &before);
  enum detector_grant grant;
  uint32_t granted_ms;
  int rc = detector_extend(d, now_ns, job, node, workflow, progress, &grant, &granted_ms);
  if (rc < 0) return push_outcome(L, d, &before, rc);
  if (grant == DETECTOR_GRANTED) return lua_pushinteger(L, granted_ms), 1;
  lua_pushnil(L);
  if (grant == DETECTOR_EXHAUSTED) {
    if (granted_ms > 0)
      lua_pushfstring(L, "detector: no more time for %s: its extensions are used up; a last grace of %d ms begins", workflow.bytes, (int)granted_ms);
    else
      lua_pushfstring(L, "detector: no more time for %s: its extensions and its grace are used up", workflow.bytes);
    lua_pushliteral(L, "FULL");
  } else {
    if (grant == DETECTOR_NOT_ALIVE) lua_pushfstring(L, "detector: no more time for %s: %s is not alive", workflow.bytes, node.bytes);
    else lua_pushfstring(L, "detector: no more time for %s: no progress since its last extension", workflow.bytes);
    lua_pushliteral(L, "REFUSED");
  }
  lua_pushinteger(L, granted_ms);
  return 4;
}

static int l_over(lua_State *L) {
  struct detector *d = check(L);
  uint64_t now_ns = check_time(L);
  struct detector_text job = check_text(L, 3);
  lua_pushinteger(L, detector_over(d, now_ns, job, check_job(L, 4)));
  return 1;
}

static int l_forget(lua_State *L) {
  struct detector *d = check(L);
  uint64_t now_ns = check_time(L);
  lua_pushinteger(L, detector_forget(d, now_ns, check_text(L, 3)));
  return 1;
}

static int l_tick(lua_State *L) {
  struct detector *d = check(L);
  detector_tick(d, check_time(L));
  return 0;
}

static int l_deadline(lua_State *L) {
  uint64_t at_ns = detector_deadline(check(L));
  if (at_ns == UINT64_MAX) lua_pushnil(L);
  else lua_pushinteger(L, at_ns < INT64_MAX ? (lua_Integer)at_ns : INT64_MAX);
  return 1;
}

/* ---- actions and looking ---- */

static void set_integer(lua_State *L, const char *name, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}
static void set_ms(lua_State *L, const char *name, uint64_t ns) { set_integer(L, name, ns / 1000000); }
static void set_text(lua_State *L, const char *name, struct detector_text text) {
  lua_pushlstring(L, text.bytes, text.length);
  lua_setfield(L, -2, name);
}
static void set_word(lua_State *L, const char *name, const char *word) {
  lua_pushstring(L, word);
  lua_setfield(L, -2, name);
}
static void set_true(lua_State *L, const char *name, bool value) {
  if (!value) return;
  lua_pushboolean(L, 1);
  lua_setfield(L, -2, name);
}
static void set_incarnation(lua_State *L, struct detector_incarnation i) {
  lua_pushfstring(L, "%I.%I", (LUAI_UACINT)i.generation, (LUAI_UACINT)i.version);
  lua_setfield(L, -2, "incarnation");
}

static int l_next(lua_State *L) {
  static const char *const kinds[2][3] = {{"node_suspected", "node_expired", "node_cleared"},
                                          {"job_suspected", "job_expired", "job_cleared"}};
  struct detector_action a;
  if (!detector_next(check(L), &a)) return lua_pushnil(L), 1;
  lua_createtable(L, 0, 8);
  set_word(L, "kind", kinds[a.job.length > 0][a.kind]);
  if (a.job.length > 0) set_text(L, "job", a.job);
  set_text(L, "node", a.node);
  set_incarnation(L, a.incarnation);
  set_integer(L, "confirmations", a.confirmations);
  set_ms(L, "timeout_ms", a.timeout_ns);
  set_ms(L, "age_ms", a.age_ns);
  set_word(L, "why", detector_why_text(a.why));
  return 1;
}

static int l_look(lua_State *L) {
  static const char *const kinds[] = {"node", "job", "all"};
  struct detector *d = check(L);
  struct detector_text name;
  enum detector_looked looked = detector_look(d, check_time(L), &name);
  lua_pushstring(L, kinds[looked]);
  if (looked == DETECTOR_LOOKED_ALL) return 1;
  lua_pushlstring(L, name.bytes, name.length);
  return 2;
}

static void push_accusers(lua_State *L, const struct detector_evidence *e) {
  lua_createtable(L, (int)e->confirmations + 1, 0);
  for (uint32_t i = 0; i <= e->confirmations; i++) {
    if (e->accuser_names[i].length > 0) lua_pushlstring(L, e->accuser_names[i].bytes, e->accuser_names[i].length);
    else lua_pushfstring(L, "#%I", (LUAI_UACINT)e->accusers[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "accusers");
}

static uint64_t from(uint64_t earlier_ns, uint64_t later_ns) { return later_ns > earlier_ns ? later_ns - earlier_ns : 0; }

static int l_why(lua_State *L) {
  struct detector *d = check(L);
  uint64_t now_ns = check_time(L);
  struct detector_evidence e;
  struct detector_text job = check_job(L, 3), node = check_text(L, 4);
  detector_why(d, job, node, &e);
  if (!e.known) return lua_pushnil(L), 1;
  lua_createtable(L, 0, 8);
  set_text(L, "node", node);
  if (job.length > 0) set_text(L, "job", job);
  set_word(L, "state", states[e.state]);
  set_incarnation(L, e.incarnation);
  set_ms(L, "since_ms", from(e.changed_ns, now_ns));
  if (e.suspected) {
    lua_createtable(L, 0, 8);
    set_ms(L, "since_ms", from(e.began_ns, now_ns));
    set_ms(L, "ends_ms", from(now_ns, e.deadline_ns));
    set_ms(L, "least_ms", e.least_ns);
    set_ms(L, "most_ms", e.most_ns);
    set_ms(L, "extended_ms", e.extended_ns);
    set_ms(L, "postponed_ms", e.postponed_ns);
    set_integer(L, "confirmations", e.confirmations);
    set_integer(L, "wanted", e.wanted);
    push_accusers(L, &e);
    lua_setfield(L, -2, "suspicion");
  }
  if (e.extension) {
    lua_createtable(L, 0, 4);
    set_integer(L, "grants", e.grants);
    set_true(L, "graced", e.graced);
    set_true(L, "progressed", e.progressed);
    set_ms(L, "for_ms", from(now_ns, e.granted_until_ns));
    lua_setfield(L, -2, "extension");
  }
  return 1;
}

static int l_counts(lua_State *L) {
  struct detector_counts c;
  detector_counts(check(L), &c);
  lua_createtable(L, 0, 48);
  static const char *const layers[] = {"nodes", "jobs"};
  static const struct { const char *name; size_t offset; } pairs[] = {
      {"suspected", offsetof(struct detector_counts, suspected)}, {"confirmed", offsetof(struct detector_counts, confirmed)},
      {"expired", offsetof(struct detector_counts, expired)}};
  for (size_t i = 0; i < 3; i++) {
    for (int layer = 0; layer < 2; layer++) {
      uint64_t value;
      memcpy(&value, (char *)&c + pairs[i].offset + (size_t)layer * sizeof value, sizeof value);
      lua_pushfstring(L, "%s_%s", layers[layer], pairs[i].name);
      lua_pushinteger(L, (lua_Integer)value);
      lua_settable(L, -3);
    }
  }
  lua_createtable(L, 0, DETECTOR_WHYS_COUNT);
  for (int why = DETECTOR_WHY_PROGRESS; why < DETECTOR_WHYS_COUNT; why++)
    set_integer(L, detector_why_text((enum detector_why)why), c.cleared[why]);
  lua_setfield(L, -2, "cleared");
#define COUNT(name) set_integer(L, #name, c.name)
  COUNT(repeated), COUNT(unmatched), COUNT(stale), COUNT(of_dead), COUNT(full_nodes), COUNT(full_job), COUNT(full_all);
  COUNT(extended), COUNT(extended_ms), COUNT(no_progress), COUNT(exhausted), COUNT(graces), COUNT(full_extensions);
  COUNT(stalls), COUNT(stalled_ms), COUNT(postponed), COUNT(cycles), COUNT(looked), COUNT(mended), COUNT(dropped_nodes);
  COUNT(dropped_grants), COUNT(nodes), COUNT(jobs), COUNT(machines), COUNT(suspicions), COUNT(extensions);
#undef COUNT
  return 1;
}

static int l_free(lua_State *L) {
  struct binding *b = luaL_checkudata(L, 1, TYPE);
  detector_free(b->core);
  b->core = NULL;
  return 0;
}

static int l_tostring(lua_State *L) {
  struct detector_counts c;
  detector_counts(check(L), &c);
  lua_pushfstring(L, "detector: %d nodes, %d machines and %d (node, job) suspected", (int)c.nodes, (int)c.machines, (int)c.suspicions);
  return 1;
}

int luaopen_shoal_core_detector(lua_State *L) {
  static const luaL_Reg functions[] = {{"new", l_new}, {"number", l_number}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"node", l_node},   {"suspect", l_suspect},   {"confirm", l_confirm}, {"progress", l_progress},
      {"extend", l_extend}, {"over", l_over},       {"forget", l_forget},   {"tick", l_tick},
      {"deadline", l_deadline}, {"next", l_next},   {"look", l_look},       {"why", l_why},
      {"counts", l_counts}, {"reconfigure", l_reconfigure}, {NULL, NULL},
  };
  static const luaL_Reg meta[] = {{"__gc", l_free}, {"__tostring", l_tostring}, {NULL, NULL}};
  luaL_newmetatable(L, TYPE);
  luaL_setfuncs(L, meta, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, functions);
  return 1;
}
