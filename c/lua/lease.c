/* shoal.core.lease: the grantor's table of leases and the holder's (core/lease.h and core/lease_holder.h are the manuals). Plain values:
 * every call takes now_ns, an integer of the caller's monotonic clock; one that runs back counts as the last one.
 * lua/shoal/tier/lease.lua runs them over a world.
 *
 *   lease.grantor(now_ns, config) -> g | nil, message, code        fields of struct lease_config
 *   g:grant(now_ns, key, holder, fence, ttl_ms) -> handle | nil, message, code
 *   g:grant_all(now_ns, { { key =, holder =, fence = } ... }, ttl_ms) -> granted, refused = { { key, fence, code } ... }
 *   g:renew(now_ns, holder, { { key = or handle =, fence = } ... }) -> renewed, refused = { { key, handle, fence, code } ... }
 *   g:transfer(now_ns, key, fence, holder, new_fence) -> true | nil, message, code
 *   g:release(now_ns, key, fence) -> true | nil, message, code
 *   g:get(now_ns, key) -> { key, holder, fence, state, ttl_ms, left_ms, handle } | nil
 *   g:tick(now_ns, entries)                 advance; looks at no more than about so many entries
 *   g:expired(max) -> { { key, holder, fence, expired_for_ms, duration_ms, remaining } ... }
 *   g:deadline() -> now_ns | nil            when to tick next
 *   g:catch_up(now_ns)  g:counts()  g:free()
 *
 *   lease.holder(now_ns, config) -> h | nil, message, code         fields of struct lease_holder_config
 *   h:add(now_ns, key, fence, ttl_ms, sent_ns or nil, group) -> true | nil, message, code
 *   h:due(now_ns, group, max) -> { { key, fence } ... }
 *   h:renewed(now_ns, sent_ns, items, refused or nil) -> renewed, over
 *   h:tick(now_ns)  h:events(max) -> { { kind = "jeopardy" | "expired", key, fence, left_ms, refused } ... }
 *   h:holds(now_ns, key) -> boolean   h:get(now_ns, key) -> { key, fence, state, ttl_ms, left_ms, group } | nil
 *   h:drop(now_ns, key) -> boolean   h:group(number) -> leases, due   h:deadline()   h:counts()   h:free() */
#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <string.h>

#include "core/errors.h"
#include "core/lease.h"
#include "core/lease_holder.h"
#include "lua/lua_error.h"
#include "lua/modules.h"

static const char GRANTOR[] = "shoal.lease.grantor", HOLDER[] = "shoal.lease.holder";
enum { BLOCK = 64, NS_PER_MS = 1000000 };

struct grantor {
  struct leases table;
  bool open;
};
struct holder {
  struct lease_holder table;
  bool open;
};

/* ---- arguments ---- */

static struct leases *check_grantor(lua_State *L) {
  struct grantor *g = luaL_checkudata(L, 1, GRANTOR);
  luaL_argcheck(L, g->open, 1, "this lease.grantor is closed");
  return &g->table;
}

static struct lease_holder *check_holder(lua_State *L) {
  struct holder *h = luaL_checkudata(L, 1, HOLDER);
  luaL_argcheck(L, h->open, 1, "this lease.holder is closed");
  return &h->table;
}

static uint64_t check_natural(lua_State *L, int index) {
  lua_Integer value = luaL_checkinteger(L, index);
  luaL_argcheck(L, value >= 0, index, "must not be negative");
  return (uint64_t)value;
}

static uint64_t check_now(lua_State *L, uint64_t last) {
  uint64_t now = check_natural(L, 2);
  return now > last ? now : last;
}

static uint32_t check_ms(lua_State *L, int index) {
  uint64_t value = check_natural(L, index);
  return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value; /* Past every limit. */
}

static uint32_t field(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  int whole;
  lua_Integer value = lua_tointegerx(L, -1, &whole);
  if (!whole || value < 0 || value > UINT32_MAX) luaL_error(L, "lease: %s: expected an integer of 0 to 2^32 - 1", name);
  lua_pop(L, 1);
  return (uint32_t)value;
}

static uint64_t seed_field(lua_State *L, int index) {
  lua_getfield(L, index, "seed");
  uint64_t seed = (uint64_t)lua_tointeger(L, -1);
  lua_pop(L, 1);
  return seed;
}

/* Field `name` of item `n`, on top of the stack: a natural number, or 0 with *found false when it is nil. */
static uint64_t item_number(lua_State *L, lua_Integer n, const char *name, bool *found) {
  int type = lua_getfield(L, -1, name), whole = 1;
  lua_Integer value = type == LUA_TNIL ? 0 : lua_tointegerx(L, -1, &whole);
  if (!whole || value < 0) luaL_error(L, "lease: item %I: %s: expected an integer of at least 0, found %s", n, name, luaL_typename(L, -1));
  *found = type != LUA_TNIL;
  lua_pop(L, 1);
  return (uint64_t)value;
}

/* A string of the item on top; valid while the item is. */
static const char *item_string(lua_State *L, lua_Integer n, const char *name, size_t *length) {
  if (lua_getfield(L, -1, name) != LUA_TSTRING)
    luaL_error(L, "lease: item %I: %s: expected a string, found %s", n, name, luaL_typename(L, -1));
  const char *text = lua_tolstring(L, -1, length);
  lua_pop(L, 1);
  return text;
}
static const char *item_key(lua_State *L, lua_Integer n, size_t *length) { return item_string(L, n, "key", length); }
static uint32_t short_length(size_t length) { return length > UINT32_MAX ? UINT32_MAX : (uint32_t)length; }

static void get_item(lua_State *L, int list, lua_Integer n) {
  if (lua_rawgeti(L, list, n) != LUA_TTABLE) luaL_error(L, "lease: item %I: expected a table, found %s", n, luaL_typename(L, -1));
}

/* ---- results ---- */

static void set_string(lua_State *L, const char *name, const char *bytes, size_t length) {
  lua_pushlstring(L, bytes, length);
  lua_setfield(L, -2, name);
}
static void set_integer(lua_State *L, const char *name, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}
static void set_ms(lua_State *L, const char *name, int64_t ns) {
  lua_pushnumber(L, (lua_Number)ns / NS_PER_MS);
  lua_setfield(L, -2, name);
}

static int push_instant(lua_State *L, uint64_t at_ns) {
  if (at_ns == UINT64_MAX) lua_pushnil(L);
  else lua_pushinteger(L, (lua_Integer)at_ns);
  return 1;
}

/* nil, "lease KEY: TEXT", code; `format` takes what lua_pushfstring does. */
#define REFUSE(L, rc, ...) (lua_pushnil(L), lua_pushfstring(L, __VA_ARGS__), lua_pushstring(L, error_name(rc)), 3)

/* Why a fence or a grant of this key was refused, in words. */
static int refuse(lua_State *L, struct leases *t, uint64_t now_ns, const char *key, size_t length, uint64_t fence, int rc) {
  struct lease_view v;
  lua_Integer given = (lua_Integer)fence;
  if (rc == ERR_TOO_LARGE)
    return REFUSE(L, rc, "lease: a key has 1 to %d bytes, a holder's name 1 to %d", LEASE_KEY_MAX, LEASE_HOLDER_MAX);
  if (rc == ERR_CONFIG)
    return REFUSE(L, rc, "lease: expected a key, a holder, a fence of at least 1 and a ttl_ms of %d to %d", LEASE_TTL_MIN_MS, LEASE_TTL_MAX_MS);
  bool known = lease_find(t, now_ns, key, length, &v);
  if (rc == ERR_STALE && known)
    return REFUSE(L, rc, "lease %s: fence %I is not above the last one, %I", key, given, (lua_Integer)v.fence);
  if (rc == ERR_STALE) return REFUSE(L, rc, "lease %s: fence %I is not above %I, which is forgotten", key, given, (lua_Integer)t->floor);
  if (rc == ERR_HELD && known) {
    lua_pushnil(L);
    lua_pushlstring(L, v.holder, v.holder_length);
    lua_pushfstring(L, "lease %s: %s holds it with fence %I, %s", key, lua_tostring(L, -1), (lua_Integer)v.fence,
                    v.state == LEASE_HELD ? "and it has not expired" : "and its expiry is being reported");
    lua_remove(L, -2);
    lua_pushstring(L, error_name(rc));
    return 3;
  }
  if (rc == ERR_FULL)
    return REFUSE(L, rc, "lease %s: %I leases are held, of at most %I", key, (lua_Integer)t->held, (lua_Integer)t->config.leases_max);
  if (rc == ERR_EXPIRED) return REFUSE(L, rc, "lease %s: fence %I has expired, or was released", key, given);
  if (rc == ERR_NOT_FOUND) return REFUSE(L, rc, "lease %s: there is none with fence %I", key, given);
  return error_push(L, "lease", rc);
}

/* ---- grantor ---- */

static int l_grantor(lua_State *L) {
  uint64_t now = check_natural(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  struct lease_config config = {.leases_max = field(L, 2, "leases_max"), .drift_ppm = field(L, 2, "drift_ppm"),
                                .late_ms = field(L, 2, "late_ms"), .catch_up_ms = field(L, 2, "catch_up_ms"),
                                .past_ms = field(L, 2, "past_ms"), .sweep_ms = field(L, 2, "sweep_ms"), .seed = seed_field(L, 2)};
  struct grantor *g = lua_newuserdatauv(L, sizeof *g, 0);
  g->open = false;
  luaL_setmetatable(L, GRANTOR);
  int rc = leases_init(&g->table, &config, now);
  if (rc < 0) return error_push(L, "lease: grantor", rc);
  g->open = true;
  return 1;
}

static int l_grant(lua_State *L) {
  struct leases *t = check_grantor(L);
  uint64_t now = check_now(L, t->now_ns), fence = check_natural(L, 5), handle;
  size_t key_length, holder_length;
  const char *key = luaL_checklstring(L, 3, &key_length), *holder = luaL_checklstring(L, 4, &holder_length);
  int rc = lease_grant(t, now, key, key_length, holder, holder_length, fence, check_ms(L, 6), &handle);
  if (rc < 0) return refuse(L, t, now, key, key_length, fence, rc);
  lua_pushinteger(L, (lua_Integer)handle);
  return 1;
}

static void read_item(lua_State *L, lua_Integer n, struct lease_renewal *out) {
  bool found;
  size_t length = 0;
  *out = (struct lease_renewal){.fence = item_number(L, n, "fence", &found)};
  if (!found) luaL_error(L, "lease: item %I: fence: expected an integer, found nil", n);
  out->handle = item_number(L, n, "handle", &found);
  if (!found) out->key = item_key(L, n, &length);
  out->key_length = short_length(length);
}

/* { key = or handle =, fence =, code = } */
static void push_refused(lua_State *L, uint64_t handle, const char *key, size_t length, uint64_t fence, int code) {
  lua_createtable(L, 0, 3);
  if (handle) set_integer(L, "handle", handle);
  else set_string(L, "key", key, length);
  set_integer(L, "fence", fence);
  set_string(L, "code", error_name(code), strlen(error_name(code)));
}

static void read_grant(lua_State *L, lua_Integer n, uint32_t ttl_ms, struct lease_grant_item *out) {
  bool found;
  size_t key, holder;
  *out = (struct lease_grant_item){.fence = item_number(L, n, "fence", &found), .ttl_ms = ttl_ms};
  if (!found) luaL_error(L, "lease: item %I: fence: expected an integer, found nil", n);
  out->key = item_key(L, n, &key);
  out->holder = item_string(L, n, "holder", &holder);
  out->key_length = short_length(key), out->holder_length = short_length(holder);
}

static int l_grant_all(lua_State *L) {
  struct leases *t = check_grantor(L);
  uint64_t now = check_now(L, t->now_ns);
  uint32_t ttl_ms = check_ms(L, 4);
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 4);
  lua_newtable(L);
  lua_Integer items = (lua_Integer)lua_rawlen(L, 3), refused = 0, granted = 0;
  struct lease_grant_item block[BLOCK];
  for (lua_Integer from = 0; from < items; from += BLOCK) {
    uint32_t count = items - from < BLOCK ? (uint32_t)(items - from) : BLOCK;
    for (uint32_t i = 0; i < count; i++) {
      get_item(L, 3, from + i + 1);
      read_grant(L, from + i + 1, ttl_ms, &block[i]);
      lua_pop(L, 1);
    }
    granted += lease_grant_all(t, now, block, count);
    for (uint32_t i = 0; i < count; i++) {
      if (block[i].code == 0) continue;
      push_refused(L, 0, block[i].key, block[i].key_length, block[i].fence, block[i].code);
      lua_rawseti(L, 5, ++refused);
    }
  }
  lua_pushinteger(L, granted);
  lua_insert(L, -2);
  return 2;
}

static int l_renew(lua_State *L) {
  struct leases *t = check_grantor(L);
  uint64_t now = check_now(L, t->now_ns);
  size_t length;
  const char *holder = luaL_checklstring(L, 3, &length);
  luaL_checktype(L, 4, LUA_TTABLE);
  lua_settop(L, 4);
  lua_newtable(L);
  lua_Integer items = (lua_Integer)lua_rawlen(L, 4), refused = 0, renewed = 0;
  struct lease_renewal block[BLOCK];
  for (lua_Integer from = 0; from < items; from += BLOCK) {
    uint32_t count = items - from < BLOCK ? (uint32_t)(items - from) : BLOCK;
    for (uint32_t i = 0; i < count; i++) {
      get_item(L, 4, from + i + 1);
      read_item(L, from + i + 1, &block[i]);
      lua_pop(L, 1);
    }
    renewed += lease_renew(t, now, holder, length, block, count);
    for (uint32_t i = 0; i < count; i++) {
      if (block[i].code == 0) continue;
      push_refused(L, block[i].handle, block[i].key, block[i].key_length, block[i].fence, block[i].code);
      lua_rawseti(L, 5, ++refused);
    }
  }
  lua_pushinteger(L, renewed);
  lua_insert(L, -2);
  return 2;
}

static int l_transfer(lua_State *L) {
  struct leases *t = check_grantor(L);
  uint64_t now = check_now(L, t->now_ns), fence = check_natural(L, 4), new_fence = check_natural(L, 6);
  size_t key_length, holder_length;
  const char *key = luaL_checklstring(L, 3, &key_length), *holder = luaL_checklstring(L, 5, &holder_length);
  int rc = lease_transfer(t, now, key, key_length, fence, holder, holder_length, new_fence);
  if (rc < 0) return refuse(L, t, now, key, key_length, rc == ERR_STALE && new_fence <= fence ? new_fence : fence, rc);
  return lua_pushboolean(L, 1), 1;
}

static int l_release(lua_State *L) {
  struct leases *t = check_grantor(L);
  uint64_t now = check_now(L, t->now_ns), fence = check_natural(L, 4);
  size_t length;
  const char *key = luaL_checklstring(L, 3, &length);
  int rc = lease_release(t, now, key, length, fence);
  if (rc < 0) return refuse(L, t, now, key, length, fence, rc);
  return lua_pushboolean(L, 1), 1;
}

static int l_get(lua_State *L) {
  static const char *const states[] = {"free", "held", "due", "past"};
  struct leases *t = check_grantor(L);
  uint64_t now = check_now(L, t->now_ns);
  size_t length;
  const char *key = luaL_checklstring(L, 3, &length);
  struct lease_view v;
  if (!lease_find(t, now, key, length, &v)) return lua_pushnil(L), 1;
  lua_createtable(L, 0, 7);
  set_string(L, "key", v.key, v.key_length);
  set_string(L, "holder", v.holder, v.holder_length);
  set_integer(L, "fence", v.fence);
  set_integer(L, "handle", v.handle);
  set_integer(L, "ttl_ms", v.ttl_ms);
  set_ms(L, "left_ms", v.left_ns);
  lua_pushstring(L, states[v.state]);
  lua_setfield(L, -2, "state");
  return 1;
}

static int l_tick(lua_State *L) {
  struct leases *t = check_grantor(L);
  lease_tick(t, check_now(L, t->now_ns), check_ms(L, 3));
  return 0;
}

static int l_expired(lua_State *L) {
  struct leases *t = check_grantor(L);
  lua_Integer max = luaL_checkinteger(L, 2);
  struct lease_expiry e;
  uint32_t cursor = 0;
  lua_newtable(L);
  for (lua_Integer i = 1; i <= max && lease_peek(t, &cursor, &e); i++) {
    lua_createtable(L, 0, 6);
    set_string(L, "key", e.lease.key, e.lease.key_length);
    set_string(L, "holder", e.lease.holder, e.lease.holder_length);
    set_integer(L, "fence", e.lease.fence);
    set_ms(L, "expired_for_ms", (int64_t)e.expired_for_ns);
    set_integer(L, "duration_ms", e.lease.ttl_ms);
    set_integer(L, "remaining", t->due - (uint64_t)i);
    lua_rawseti(L, -2, i);
  }
  lease_take(t, cursor); /* Only when all is in Lua's hands: an error before this loses none. */
  return 1;
}

static int l_deadline(lua_State *L) { return push_instant(L, lease_deadline(check_grantor(L))); }

static int l_catch_up(lua_State *L) {
  struct leases *t = check_grantor(L);
  lease_catch_up(t, check_now(L, t->now_ns));
  return 0;
}

static int l_counts(lua_State *L) {
  struct leases *t = check_grantor(L);
  const struct lease_counts *c = &t->counts;
  lua_createtable(L, 0, 24);
#define COUNT(name) set_integer(L, #name, c->name);
  COUNT(grants) COUNT(renewals) COUNT(transfers) COUNT(releases) COUNT(expired) COUNT(stale) COUNT(held_refused) COUNT(full)
  COUNT(renewals_refused) COUNT(stale_renewals) COUNT(forgotten) COUNT(late) COUNT(catch_ups) COUNT(sweeps) COUNT(lost)
#undef COUNT
  set_ms(L, "late_ms", (int64_t)c->late_ns);
  set_integer(L, "held", t->held);
  set_integer(L, "due", t->due);
  set_integer(L, "past", t->past);
  set_integer(L, "floor", t->floor);
  set_integer(L, "holders", t->names.count);
  set_integer(L, "bytes", lease_bytes(t));
  return 1;
}

static int l_grantor_free(lua_State *L) {
  struct grantor *g = luaL_checkudata(L, 1, GRANTOR);
  if (g->open) leases_free(&g->table);
  g->open = false;
  return 0;
}

static int l_grantor_tostring(lua_State *L) {
  struct grantor *g = luaL_checkudata(L, 1, GRANTOR);
  if (!g->open) return lua_pushliteral(L, "lease.grantor: closed"), 1;
  lua_pushfstring(L, "lease.grantor: %I held", (lua_Integer)g->table.held);
  return 1;
}

/* ---- holder ---- */

static int l_holder(lua_State *L) {
  uint64_t now = check_natural(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  struct lease_holder_config config = {.leases_max = field(L, 2, "leases_max"), .drift_ppm = field(L, 2, "drift_ppm"),
                                       .seed = seed_field(L, 2)};
  struct holder *h = lua_newuserdatauv(L, sizeof *h, 0);
  h->open = false;
  luaL_setmetatable(L, HOLDER);
  int rc = lease_holder_init(&h->table, &config, now);
  if (rc < 0) return error_push(L, "lease: holder", rc);
  h->open = true;
  return 1;
}

static int refuse_add(lua_State *L, struct lease_holder *h, const char *key, size_t length, uint64_t fence, int rc) {
  struct lease_held_view v;
  lua_Integer given = (lua_Integer)fence;
  if (rc == ERR_TOO_LARGE) return REFUSE(L, rc, "lease: a key has 1 to %d bytes", LEASE_KEY_MAX);
  if (rc == ERR_CONFIG)
    return REFUSE(L, rc, "lease %s: expected a fence of at least 1, a ttl_ms of %d to %d, an instant of sending that is not in the future, "
                  "and a group below %d", key, LEASE_TTL_MIN_MS, LEASE_TTL_MAX_MS, LEASE_HOLDER_GROUPS_MAX);
  if (rc == ERR_STALE && lease_holder_find(h, h->now_ns, key, length, &v))
    return REFUSE(L, rc, "lease %s: fence %I is below ours, %I", key, given, (lua_Integer)v.fence);
  if (rc == ERR_STALE) return REFUSE(L, rc, "lease %s: fence %I is over: it was refused or given up here", key, given);
  if (rc == ERR_EXPIRED) return REFUSE(L, rc, "lease %s: the answer with fence %I came after the lease's end", key, given);
  if (rc == ERR_FULL) return REFUSE(L, rc, "lease %s: this node holds %I leases, its limit", key, (lua_Integer)h->held);
  return error_push(L, "lease", rc);
}

static int l_add(lua_State *L) {
  struct lease_holder *h = check_holder(L);
  uint64_t now = check_now(L, h->now_ns), fence = check_natural(L, 4);
  size_t length;
  const char *key = luaL_checklstring(L, 3, &length);
  uint32_t ttl_ms = check_ms(L, 5), group = lua_isnoneornil(L, 7) ? 0 : check_ms(L, 7);
  uint64_t sent = lua_isnoneornil(L, 6) ? LEASE_NOT_SENT : check_natural(L, 6);
  int rc = lease_holder_add(h, now, key, length, fence, ttl_ms, sent, group);
  if (rc < 0) return refuse_add(L, h, key, length, fence, rc);
  return lua_pushboolean(L, 1), 1;
}

static int l_due(lua_State *L) {
  struct lease_holder *h = check_holder(L);
  uint64_t now = check_now(L, h->now_ns);
  uint32_t group = check_ms(L, 3);
  lua_Integer max = luaL_checkinteger(L, 4);
  struct lease_held_view v;
  lua_newtable(L);
  for (lua_Integer i = 1; i <= max && lease_holder_due(h, now, group, &v); i++) {
    lua_createtable(L, 0, 2);
    set_string(L, "key", v.key, v.key_length);
    set_integer(L, "fence", v.fence);
    lua_rawseti(L, -2, i);
  }
  return 1;
}

static int l_renewed(lua_State *L) {
  struct lease_holder *h = check_holder(L);
  uint64_t now = check_now(L, h->now_ns), sent = check_natural(L, 3);
  lua_Integer renewed = 0, over = 0;
  luaL_checktype(L, 4, LUA_TTABLE);
  bool any = !lua_isnoneornil(L, 5), found;
  if (any) luaL_checktype(L, 5, LUA_TTABLE);
  for (int list = any ? 5 : 4; list >= 4; list--) /* Refusals first: what is over is not renewed. */
    for (lua_Integer n = 1, items = (lua_Integer)lua_rawlen(L, list); n <= items; n++) {
      size_t length;
      get_item(L, list, n);
      const char *key = item_key(L, n, &length);
      uint64_t fence = item_number(L, n, "fence", &found);
      lua_pop(L, 1);
      if (list == 5) over += lease_holder_refused(h, now, key, length, fence);
      else renewed += lease_holder_renewed(h, now, key, length, fence, sent);
    }
  lua_pushinteger(L, renewed);
  lua_pushinteger(L, over);
  return 2;
}

static int l_holder_tick(lua_State *L) {
  struct lease_holder *h = check_holder(L);
  lease_holder_tick(h, check_now(L, h->now_ns));
  return 0;
}

static int l_events(lua_State *L) {
  struct lease_holder *h = check_holder(L);
  lua_Integer max = luaL_checkinteger(L, 2);
  struct lease_holder_event e;
  uint32_t cursor = 0;
  lua_newtable(L);
  for (lua_Integer i = 1; i <= max && lease_holder_peek(h, &cursor, &e); i++) {
    lua_createtable(L, 0, 5);
    set_string(L, "key", e.lease.key, e.lease.key_length);
    set_integer(L, "fence", e.lease.fence);
    set_integer(L, "group", e.lease.group);
    set_ms(L, "left_ms", e.lease.left_ns);
    lua_pushstring(L, e.ended ? "expired" : "jeopardy");
    lua_setfield(L, -2, "kind");
    lua_pushboolean(L, e.refused);
    lua_setfield(L, -2, "refused");
    lua_rawseti(L, -2, i);
  }
  lease_holder_take(h, cursor); /* Only when all is in Lua's hands: an error before this loses none. */
  return 1;
}

static int l_holds(lua_State *L) {
  struct lease_holder *h = check_holder(L);
  uint64_t now = check_now(L, h->now_ns);
  size_t length;
  const char *key = luaL_checklstring(L, 3, &length);
  return lua_pushboolean(L, lease_holder_holds(h, now, key, length)), 1;
}

static int l_holder_get(lua_State *L) {
  static const char *const states[] = {"none", "pending", "held", "jeopardy", "gone", "over"};
  struct lease_holder *h = check_holder(L);
  uint64_t now = check_now(L, h->now_ns);
  size_t length;
  const char *key = luaL_checklstring(L, 3, &length);
  struct lease_held_view v;
  if (!lease_holder_find(h, now, key, length, &v)) return lua_pushnil(L), 1;
  lua_createtable(L, 0, 6);
  set_string(L, "key", v.key, v.key_length);
  set_integer(L, "fence", v.fence);
  set_integer(L, "ttl_ms", v.ttl_ms);
  set_integer(L, "group", v.group);
  set_ms(L, "left_ms", v.left_ns);
  lua_pushstring(L, states[v.state]);
  lua_setfield(L, -2, "state");
  return 1;
}

static int l_drop(lua_State *L) {
  struct lease_holder *h = check_holder(L);
  uint64_t now = check_now(L, h->now_ns);
  size_t length;
  const char *key = luaL_checklstring(L, 3, &length);
  return lua_pushboolean(L, lease_holder_drop(h, now, key, length)), 1;
}

static int l_group(lua_State *L) {
  struct lease_holder *h = check_holder(L);
  uint32_t group = check_ms(L, 2);
  lua_pushinteger(L, group < h->groups_count ? h->groups[group].leases : 0);
  lua_pushinteger(L, group < h->groups_count ? h->groups[group].count : 0);
  return 2;
}

static int l_holder_deadline(lua_State *L) { return push_instant(L, lease_holder_deadline(check_holder(L))); }

static int l_holder_counts(lua_State *L) {
  struct lease_holder *h = check_holder(L);
  const struct lease_holder_counts *c = &h->counts;
  lua_createtable(L, 0, 10);
#define COUNT(name) set_integer(L, #name, c->name);
  COUNT(added) COUNT(renewed) COUNT(late_answers) COUNT(refused) COUNT(jeopardies) COUNT(expired) COUNT(dropped)
#undef COUNT
  set_integer(L, "held", h->held);
  set_integer(L, "due", h->due);
  set_integer(L, "bytes", lease_holder_bytes(h));
  return 1;
}

static int l_holder_free(lua_State *L) {
  struct holder *h = luaL_checkudata(L, 1, HOLDER);
  if (h->open) lease_holder_free(&h->table);
  h->open = false;
  return 0;
}

static int l_holder_tostring(lua_State *L) {
  struct holder *h = luaL_checkudata(L, 1, HOLDER);
  if (!h->open) return lua_pushliteral(L, "lease.holder: closed"), 1;
  lua_pushfstring(L, "lease.holder: %I held", (lua_Integer)h->table.held);
  return 1;
}

/* ---- the module ---- */

static void make_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction release, lua_CFunction show) {
  const luaL_Reg meta[] = {{"__gc", release}, {"__close", release}, {"__tostring", show}, {NULL, NULL}};
  luaL_newmetatable(L, name);
  luaL_setfuncs(L, meta, 0);
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  lua_setfield(L, -2, "__index");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable"); /* Scripts cannot reach __gc. */
  lua_pop(L, 1);
}

static void set_limit(lua_State *L, const char *name, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

int luaopen_shoal_core_lease(lua_State *L) {
  static const luaL_Reg functions[] = {{"grantor", l_grantor}, {"holder", l_holder}, {NULL, NULL}};
  static const luaL_Reg grantor[] = {{"grant", l_grant},       {"grant_all", l_grant_all}, {"renew", l_renew},       {"transfer", l_transfer}, {"release", l_release},
                                     {"get", l_get},           {"tick", l_tick},         {"expired", l_expired},   {"deadline", l_deadline},
                                     {"catch_up", l_catch_up}, {"counts", l_counts},     {"free", l_grantor_free}, {NULL, NULL}};
  static const luaL_Reg holder[] = {{"add", l_add},          {"due", l_due},       {"renewed", l_renewed}, {"tick", l_holder_tick},
                                    {"events", l_events},    {"holds", l_holds},   {"get", l_holder_get},  {"drop", l_drop},
                                    {"group", l_group},      {"deadline", l_holder_deadline},              {"counts", l_holder_counts},
                                    {"free", l_holder_free}, {NULL, NULL}};
  make_type(L, GRANTOR, grantor, l_grantor_free, l_grantor_tostring);
  make_type(L, HOLDER, holder, l_holder_free, l_holder_tostring);
  luaL_newlib(L, functions);
  set_limit(L, "KEY_MAX", LEASE_KEY_MAX);
  set_limit(L, "HOLDER_MAX", LEASE_HOLDER_MAX);
  set_limit(L, "TABLE_MAX", LEASE_TABLE_MAX);
  set_limit(L, "HELD_MAX", LEASE_HOLDER_LEASES_MAX);
  set_limit(L, "GRANTORS_MAX", LEASE_HOLDER_GROUPS_MAX);
  set_limit(L, "TTL_MIN_MS", LEASE_TTL_MIN_MS);
  set_limit(L, "TTL_MAX_MS", LEASE_TTL_MAX_MS);
  set_limit(L, "DRIFT_MAX_PPM", LEASE_DRIFT_MAX_PPM);
  return 1;
}
