#include "lua/budget.h"

#include <assert.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lua/lua_world.h"
#include "lua/modules.h"
#include "world/world.h"

enum {
  LOOK_STEPS = 100, /* One C call may take a millisecond, so few of them go unseen. */
  SLACK_BYTES = 1024 * 1024, /* More, once memory was refused: for the report of that. */
  GRACE = 4, /* Code of lua/shoal gets so many times the limits: interrupted half-way it could leave its tables wrong. */
};

/* One per Lua state, in C memory: the allocator is used until the state's last byte is freed. */
struct account {
  lua_Alloc before;
  void *before_data;
  size_t total; /* Of the state, in bytes, exact. */
  struct budget *active;
};

struct budget {
  struct account *account;
  struct shoal_world *world;
  uint64_t steps_max, ns_max;
  size_t bytes_max;
  size_t base; /* The state's total when this was made. */
  /* Since enter: */
  struct budget *outer;
  bool entered;
  struct {
    const void *block;
    size_t bytes;
  } refused; /* Not 0 bytes: and not granted since. Lua may collect and ask again, before any step of the operator's code. */
  size_t collected; /* The total after the last collection that was ours. */
  const char *over; /* Which limit was passed. */
  uint64_t steps, began_ns;
};

static char account_key;
static const char type_name[] = "shoal.budget";

/* ---- memory ---- */

static bool refuses(struct budget *b, const void *block, size_t new_bytes, size_t more) {
  size_t most = b->base + b->bytes_max + (b->over ? SLACK_BYTES : 0), total = b->account->total;
  if (total < most && more <= most - total) return false;
  b->refused.block = block;
  b->refused.bytes = new_bytes;
  return true;
}

static void *allocate(void *data, void *block, size_t old_bytes, size_t new_bytes) {
  struct account *a = data;
  size_t had = block ? old_bytes : 0; /* For a new block Lua gives its kind instead of a size. */
  if (a->active && new_bytes > had && refuses(a->active, block, new_bytes, new_bytes - had)) return NULL;
  void *got = a->before(a->before_data, block, old_bytes, new_bytes);
  if (!got && new_bytes > 0) return NULL;
  if (a->active && a->active->refused.bytes == new_bytes && a->active->refused.block == block) a->active->refused.bytes = 0;
  assert(a->total >= had);
  a->total = a->total - had + new_bytes;
  if (a->total == 0) free(a); /* That was the state itself. */
  return got;
}

/* The state's account, made on first use. Raises. */
static struct account *adopt(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &account_key) == LUA_TLIGHTUSERDATA) {
    struct account *a = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return a;
  }
  lua_pop(L, 1);
  lua_pushlightuserdata(L, NULL);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &account_key); /* So that the real one below allocates nothing. */
  struct account *a = calloc(1, sizeof *a);
  if (!a) luaL_error(L, "not enough memory");
  a->before = lua_getallocf(L, &a->before_data);
  a->total = (size_t)lua_gc(L, LUA_GCCOUNT) * 1024 + (size_t)lua_gc(L, LUA_GCCOUNTB);
  lua_setallocf(L, allocate, a);
  lua_pushlightuserdata(L, a);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &account_key);
  return a;
}

/* ---- steps and time ---- */

static bool is_ours(lua_State *L, lua_Debug *ar) {
  if (!lua_getinfo(L, "S", ar)) return false;
  return strstr(ar->source, "lua/shoal/") && !strstr(ar->source, "errors/pattern.lua") &&
         !strstr(ar->source, "errors/bounded.lua"); /* Matching and sorting may take for ever, and leave nothing behind. */
}

static const char *passed(const struct budget *b, uint64_t times) {
  if (b->steps > b->steps_max * times) return "steps";
  if (world_fresh_ns(b->world) - b->began_ns > b->ns_max * times) return "ms";
  return NULL;
}

/* Buffers of Lua's library do not collect before they fail. */
static void collect(lua_State *L, struct budget *b) {
  size_t total = b->account->total;
  if (total < b->base + b->bytes_max / 2 || total < b->collected + b->bytes_max / 8) return;
  lua_gc(L, LUA_GCCOLLECT);
  b->collected = b->account->total;
}

static void on_hook(lua_State *L, lua_Debug *ar) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &account_key);
  const struct account *a = lua_touserdata(L, -1);
  lua_pop(L, 1);
  struct budget *b = a->active;
  int count = lua_gethookcount(L);
  if (!b) return;
  b->steps += (uint64_t)count;
  if (!b->over && b->refused.bytes) b->over = "bytes";
  if (!b->over) collect(L, b);
  bool ours = is_ours(L, ar);
  if (b->over ? ours : !passed(b, ours ? GRACE : 1)) {
    int next = b->over ? 1 : LOOK_STEPS; /* Once it is over, the operator's next step counts, wherever our code returns to it. */
    if (count != next) lua_sethook(L, on_hook, LUA_MASKCOUNT, next);
    return;
  }
  if (!b->over) b->over = passed(b, 1);
  lua_sethook(L, on_hook, LUA_MASKCOUNT, 1);
  luaL_where(L, 0);
  if (strcmp(b->over, "steps") == 0) lua_pushfstring(L, "still running after %I steps", (lua_Integer)b->steps_max);
  else if (strcmp(b->over, "ms") == 0) lua_pushfstring(L, "still running after %I ms", (lua_Integer)(b->ns_max / 1000000));
  else lua_pushfstring(L, "it made the process larger by %I bytes", (lua_Integer)b->bytes_max);
  lua_pushliteral(L, ", and this process has other things to do");
  lua_concat(L, 3);
  lua_error(L);
}

void budget_pass(lua_State *from, lua_State *to) {
  if (lua_gethook(from) == on_hook && !lua_gethook(to)) lua_sethook(to, on_hook, LUA_MASKCOUNT, LOOK_STEPS);
}

bool budget_raised(lua_State *L) { return lua_gethook(L) == on_hook && lua_gethookcount(L) == 1; }

/* ---- the face ---- */

static struct budget *check(lua_State *L) { return luaL_checkudata(L, 1, type_name); }

static uint64_t field(lua_State *L, const char *name) {
  lua_getfield(L, 2, name);
  lua_Integer value = lua_tointeger(L, -1);
  if (value <= 0) luaL_error(L, "budget: %s: expected a positive integer", name);
  lua_pop(L, 1);
  return (uint64_t)value;
}

static int l_new(lua_State *L) {
  struct shoal_world *world = lua_check_world(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  struct budget fresh = {.world = world, .steps_max = field(L, "steps"), .ns_max = field(L, "ms") * 1000000};
  fresh.bytes_max = (size_t)field(L, "bytes");
  fresh.account = adopt(L);
  struct budget *b = lua_newuserdatauv(L, sizeof *b, 1);
  *b = fresh;
  b->base = b->account->total;
  luaL_setmetatable(L, type_name);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1); /* The world lives as long. */
  return 1;
}

static int l_enter(lua_State *L) {
  struct budget *b = check(L);
  if (b->entered) return luaL_error(L, "budget: it is entered already");
  b->outer = b->account->active;
  b->entered = true;
  b->refused.bytes = b->collected = 0;
  b->over = NULL;
  b->steps = 0;
  b->began_ns = world_fresh_ns(b->world);
  lua_pushvalue(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, b); /* It is not collected while the account points to it. */
  b->account->active = b;
  return 0;
}

static int l_leave(lua_State *L) {
  struct budget *b = check(L);
  if (b->account->active != b) return luaL_error(L, "budget: another one was entered last");
  b->account->active = b->outer;
  b->outer = NULL;
  b->entered = false;
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, b);
  return 0;
}

static lua_State *coroutine_of(lua_State *L) {
  if (lua_isnoneornil(L, 2)) return L;
  lua_State *co = lua_tothread(L, 2);
  luaL_argexpected(L, co, 2, "coroutine");
  return co;
}

static int l_watch(lua_State *L) {
  (void)check(L); /* It raises; the hook finds the budget by itself. */
  lua_State *co = coroutine_of(L);
  bool free_one = !lua_gethook(co) || lua_gethook(co) == on_hook;
  if (free_one) lua_sethook(co, on_hook, LUA_MASKCOUNT, LOOK_STEPS);
  lua_pushboolean(L, free_one);
  return 1;
}

static int l_unwatch(lua_State *L) {
  (void)check(L); /* It raises. */
  lua_State *co = coroutine_of(L);
  if (lua_gethook(co) == on_hook) lua_sethook(co, NULL, 0, 0);
  return 0;
}

static int l_over(lua_State *L) {
  struct budget *b = check(L);
  lua_pushstring(L, !b->over && b->refused.bytes ? "bytes" : b->over); /* NULL gives nil. */
  return 1;
}

int luaopen_shoal_core_budget(lua_State *L) {
  static const luaL_Reg functions[] = {{"new", l_new}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"enter", l_enter},     {"leave", l_leave}, {"watch", l_watch},
                                     {"unwatch", l_unwatch}, {"over", l_over},   {NULL, NULL}};
  if (luaL_newmetatable(L, type_name)) {
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
  }
  lua_pop(L, 1);
  luaL_newlib(L, functions);
  return 1;
}
