#include "lua/door.h"

#include <lauxlib.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "lua/budget.h"
#include "lua/modules.h"

enum { LINE_MAX_BYTES = 4096 };

/* One per Lua state, a userdata in the registry. */
struct door {
  uint64_t incidents; /* Incidents that C reported by itself. */
  bool reporting;     /* The sink is running. If it fails, we report that by ourselves. */
  door_line_fn *write;
  void *data;
};
/* Read by signals' handlers too. The model: a call of a function to find it would cost more than all else that is done for it. */
static _Thread_local struct door_frame *volatile now __attribute__((tls_model("initial-exec")));

const struct door_frame *door_now(void) { return now; }

static char door_key, sink_key, failing_key; /* Their addresses are the registry's keys. */
static _Thread_local unsigned failing; /* Lua states of this thread whose callbacks fail on purpose. One that closes meanwhile stays counted. */

lua_State *door_main(lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State *main_thread = lua_tothread(L, -1);
  lua_pop(L, 1);
  return main_thread;
}

/* NULL until it is made. A look-up never allocates, for it happens outside of protection. */
static struct door *find(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &door_key);
  struct door *door = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return door;
}

static struct door *check(lua_State *L) {
  struct door *door = find(L);
  if (door) return door;
  door = lua_newuserdatauv(L, sizeof *door, 0);
  memset(door, 0, sizeof *door);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &door_key);
  return door;
}

/* ---- the fallback: one line, no allocation, no Lua ---- */

static void put_line(lua_State *L, const char *site, const char *message) {
  const struct door *door = find(L);
  char line[LINE_MAX_BYTES];
  int length = snprintf(line, sizeof line, "shoal: incident at %s: %s", site, message);
  if (length < 0) length = 0;
  for (char *c = line; *c; c++) /* Keep it one line. */
    if (*c == '\n') *c = '|';
  if (door && door->write) {
    door->write(door->data, line);
  } else {
    (void)fprintf(stderr, "%s\n", line); /* The last resort: nowhere is left to report to. */
  }
}

static void fallback(lua_State *L, const char *site, const char *message) {
  struct door *door = find(L);
  if (door) door->incidents++;
  put_line(L, site, message);
}

/* ---- reporting ---- */

enum { TRACE_LEVELS = 24 }; /* The innermost ones, of a stack that is deeper than TRACE_WHOLE. */
enum { TRACE_WHOLE = 100 };

/* Pushes L1's traceback. luaL_traceback first counts all levels, several times: on a stack that overflowed that takes a second. */
static void push_trace(lua_State *L, lua_State *L1, const char *message, int level) {
  lua_Debug ar;
  if (!lua_getstack(L1, level + TRACE_WHOLE, &ar)) {
    luaL_traceback(L, L1, message, level);
    return;
  }
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  if (message) luaL_addstring(&b, message), luaL_addchar(&b, '\n');
  luaL_addstring(&b, "stack traceback:");
  for (int i = level; i < level + TRACE_LEVELS && lua_getstack(L1, i, &ar); i++) {
    lua_getinfo(L1, "Slnt", &ar);
    lua_pushfstring(L, "\n\t%s:", ar.short_src);
    luaL_addvalue(&b);
    if (ar.currentline > 0) lua_pushfstring(L, "%d:", ar.currentline), luaL_addvalue(&b);
    if (*ar.namewhat) lua_pushfstring(L, " in %s '%s'", ar.namewhat, ar.name);
    else if (*ar.what == 'm') lua_pushliteral(L, " in main chunk");
    else if (*ar.what != 'C') lua_pushfstring(L, " in function <%s:%d>", ar.short_src, ar.linedefined);
    else lua_pushliteral(L, " in ?");
    luaL_addvalue(&b);
  }
  luaL_addstring(&b, "\n\t... (more levels)");
  luaL_pushresult(&b);
}

/* trace(co or nil, level) -> the traceback */
static int l_trace(lua_State *L) {
  lua_State *L1 = lua_isthread(L, 1) ? lua_tothread(L, 1) : L;
  push_trace(L, L1, NULL, (int)luaL_checkinteger(L, 2));
  return 1;
}

/* [error] -> [error, traceback]. Runs where the error was raised. An error is any value, and is kept as it is; a table carries
 * both out of the protected call. */
static int on_error(lua_State *L) {
  lua_createtable(L, 2, 0);
  lua_insert(L, 1);
  lua_rawseti(L, 1, 1);
  lua_rawgeti(L, 1, 1);
  const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
  bool yielded = text && strstr(text, "attempt to yield");
  push_trace(L, L, yielded ? "this runs to its end and cannot wait: spawn a task for that" : NULL, 1);
  lua_rawseti(L, 1, 2);
  lua_settop(L, 1);
  return 1;
}

struct report {
  const char *site, *message;
};

/* lightuserdata report, error or box -> calls the sink; false when there is none. */
static int call_sink(lua_State *L) {
  const struct report *r = lua_touserdata(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &sink_key) != LUA_TFUNCTION) {
    lua_pushboolean(L, 0);
    return 1;
  }
  lua_pushstring(L, r->site);
  if (r->message) {
    lua_pushstring(L, r->message);
    lua_pushnil(L);
  } else if (lua_istable(L, 2)) {
    lua_rawgeti(L, 2, 1);
    lua_rawgeti(L, 2, 2);
  } else { /* Out of memory, or the handler failed: only the message is there. */
    lua_pushvalue(L, 2);
    lua_pushnil(L);
  }
  lua_call(L, 3, 0);
  lua_pushboolean(L, 1);
  return 1;
}

/* lightuserdata report, error or box -> its text, for the fallback. */
static int describe(lua_State *L) {
  if (lua_istable(L, 2)) {
    lua_rawgeti(L, 2, 1);
    const char *text = luaL_tolstring(L, -1, NULL);
    lua_rawgeti(L, 2, 2);
    const char *trace = lua_tostring(L, -1);
    lua_pushfstring(L, "%s\n%s", text, trace ? trace : "");
  } else {
    luaL_tolstring(L, 2, NULL);
  }
  return 1;
}

/* Pops the error (or box) on the top of the stack, unless r->message stands for it. */
static void report(lua_State *L, struct report *r) {
  int base = lua_gettop(L) - (r->message ? 0 : 1);
  struct door *door = find(L);
  bool told = false;
  const char *text = r->message;
  if (!lua_checkstack(L, 12)) {
    fallback(L, r->site, text ? text : "an error, and no stack left to tell of it");
    lua_settop(L, base);
    return;
  }
  if (r->message) lua_pushnil(L);
  if (!door || !door->reporting) {
    if (door) door->reporting = true;
    lua_pushcfunction(L, call_sink);
    lua_pushlightuserdata(L, r);
    lua_pushvalue(L, base + 1);
    if (lua_pcall(L, 2, 1, 0) == LUA_OK) {
      told = lua_toboolean(L, -1);
    } else {
      const char *why = lua_tostring(L, -1);
      fallback(L, "door.sink", why ? why : "the sink failed");
    }
    if (door) door->reporting = false;
  }
  if (!told) {
    if (!text) {
      lua_pushcfunction(L, describe);
      lua_pushlightuserdata(L, r);
      lua_pushvalue(L, base + 1);
      if (lua_pcall(L, 2, 1, 0) == LUA_OK) text = lua_tostring(L, -1);
      else text = "an error that cannot be put into words";
    }
    fallback(L, r->site, text ? text : "an error without words");
  }
  lua_settop(L, base);
}

void door_report(lua_State *L, const char *site, const char *message) {
  struct report r = {site, message};
  report(L, &r);
}

/* ---- the calls ---- */

struct call {
  const char *site;
  door_push_fn *push;
  door_take_fn *take;
  void *data;
  int results;
};

/* The function of door.failing raises when this call must fail. */
static void fail_on_purpose(lua_State *L, const char *site) {
  lua_settop(L, 0);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &failing_key) != LUA_TFUNCTION) return;
  lua_pushstring(L, site);
  lua_call(L, 1, 0);
}

static int run(lua_State *L) {
  struct call *c = lua_touserdata(L, 1);
  lua_settop(L, 0);
  int arguments = c->push(L, c->data);
  lua_call(L, arguments, c->results);
  if (c->take) c->take(L, c->data);
  if (failing) fail_on_purpose(L, c->site);
  return 0;
}

bool door_call(lua_State *L, const char *site, door_push_fn *push, int results, door_take_fn *take, void *data) {
  struct call c = {site, push, take, data, results};
  if (!lua_checkstack(L, 8)) {
    fallback(L, site, "no stack left to call Lua");
    return false;
  }
  lua_pushcfunction(L, on_error); /* Neither push allocates. */
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, &c);
  struct door_frame frame = {L, site, now};
  now = &frame;
  bool ok = lua_pcall(L, 1, 0, -3) == LUA_OK;
  now = frame.up;
  if (!ok) {
    struct report r = {site, NULL};
    report(L, &r);
  }
  lua_pop(L, 1);
  return ok;
}

int door_call_stacked(lua_State *L, const char *site, int arguments, int results) {
  int base = lua_gettop(L) - arguments - 1;
  if (!lua_checkstack(L, 8)) {
    fallback(L, site, "no stack left to call Lua");
    lua_settop(L, base);
    return -1;
  }
  lua_pushcfunction(L, on_error);
  lua_insert(L, base + 1);
  struct door_frame frame = {L, site, now};
  now = &frame;
  int rc = lua_pcall(L, arguments, results, base + 1);
  now = frame.up;
  if (rc != LUA_OK) {
    struct report r = {site, NULL};
    report(L, &r);
    lua_settop(L, base);
    return -1;
  }
  lua_remove(L, base + 1);
  return lua_gettop(L) - base;
}

void door_set_lines(lua_State *L, door_line_fn *write, void *data) {
  struct door *door = check(L);
  door->write = write;
  door->data = data;
}

/* ---- Lua's own calls, that keep what runs now ---- */

/* The `count` values on top of L into co, and its results back onto L. Their number, or -1: the error is on top. As lcorolib.c does it. */
static int resume_with(lua_State *L, lua_State *co, const char *site, int count) {
  if (!lua_checkstack(co, count)) {
    lua_pushliteral(L, "too many arguments to resume");
    return -1;
  }
  lua_xmove(L, co, count);
  int results;
  budget_pass(L, co);
  struct door_frame frame = {co, site, now};
  now = &frame;
  int rc = lua_resume(co, L, count, &results);
  now = frame.up;
  if (rc != LUA_OK && rc != LUA_YIELD) {
    lua_xmove(co, L, 1);
    return -1;
  }
  if (!lua_checkstack(L, results + 1)) {
    lua_pop(co, results);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(co, L, results);
  return results;
}

static lua_State *check_coroutine(lua_State *L, int index) {
  lua_State *co = lua_tothread(L, index);
  luaL_argexpected(L, co, index, "coroutine");
  return co;
}

static const char *inherited(void) { return now ? now->site : NULL; }

static int resumed(lua_State *L, int results) {
  lua_pushboolean(L, results >= 0);
  int count = results >= 0 ? results : 1;
  lua_insert(L, -(count + 1));
  return count + 1;
}

static int l_resume(lua_State *L) {
  lua_State *co = check_coroutine(L, 1);
  return resumed(L, resume_with(L, co, inherited(), lua_gettop(L) - 1));
}

static int l_resume_at(lua_State *L) {
  const char *site = luaL_checkstring(L, 1);
  lua_State *co = check_coroutine(L, 2);
  return resumed(L, resume_with(L, co, site, lua_gettop(L) - 2));
}

static int call_wrapped(lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(1));
  int results = resume_with(L, co, inherited(), lua_gettop(L));
  if (results >= 0) return results;
  int rc = lua_status(co);
  if (rc != LUA_OK && rc != LUA_YIELD) { /* It raised: its to-be-closed variables run. */
    rc = lua_resetthread(co);
    lua_xmove(co, L, 1);
  }
  if (rc != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int l_wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, call_wrapped, 1);
  return 1;
}

void door_adopt_coroutines(lua_State *L) {
  lua_getglobal(L, "coroutine");
  lua_pushcfunction(L, l_resume);
  lua_setfield(L, -2, "resume");
  lua_pushcfunction(L, l_wrap);
  lua_setfield(L, -2, "wrap");
  lua_pop(L, 1);
}

enum { UNDER = 3 }; /* xpcall's own values, under the results: site, function, handler. */

static int finish_call(lua_State *L, int rc, lua_KContext unused) {
  (void)unused;
  if (rc == LUA_OK || rc == LUA_YIELD) return lua_gettop(L) - UNDER;
  lua_pushboolean(L, 0);
  lua_pushvalue(L, -2);
  return 2;
}

/* A wait within leaves this frame behind, and the resume's with it: after it the site is the coroutine's again. */
static int l_xpcall_at(lua_State *L) {
  const char *site = luaL_checkstring(L, 1);
  int count = lua_gettop(L) - UNDER;
  luaL_checktype(L, UNDER, LUA_TFUNCTION);
  lua_pushboolean(L, 1); /* The first result. */
  lua_pushvalue(L, 2);
  lua_rotate(L, UNDER + 1, 2);
  struct door_frame *frame = now;
  const char *before = frame ? frame->site : NULL;
  if (frame) frame->site = site;
  int rc = lua_pcallk(L, count, LUA_MULTRET, UNDER, 0, finish_call);
  if (frame) frame->site = before;
  return finish_call(L, rc, 0);
}

/* ---- errors.call ---- */

enum { CALL_SITE = 1, CALL_IDS, CALL_RECORD, CALL_HANDLER };
enum { CALL_RECORDS = 1, CALL_FIND, CALL_FAILED, CALL_KEY }; /* Upvalues. */

static int finish_site_call(lua_State *L, int rc, lua_KContext unused) {
  (void)unused;
  if (rc == LUA_OK || rc == LUA_YIELD) {
    lua_pushboolean(L, 1);
    lua_replace(L, CALL_HANDLER);
    return lua_gettop(L) - CALL_RECORD;
  }
  lua_pushnil(L);
  lua_pushvalue(L, lua_upvalueindex(CALL_FAILED));
  lua_pushvalue(L, CALL_RECORD);
  lua_pushvalue(L, CALL_IDS);
  lua_pushvalue(L, -5); /* The error, or what the handler made of it. */
  lua_call(L, 3, 1);
  return 2;
}

/* call(site, ids, fn, ...) -> true, results... | nil, what `failed` returned */
static int l_site_call(lua_State *L) {
  const char *site = lua_tostring(L, CALL_SITE);
  int count = lua_gettop(L) - 3;
  if (count < 0) luaL_error(L, "errors.call: expected a site, ids and a function");
  luaL_checkstack(L, 8, NULL);
  lua_pushvalue(L, CALL_SITE);
  if (lua_rawget(L, lua_upvalueindex(CALL_RECORDS)) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_pushvalue(L, lua_upvalueindex(CALL_FIND)); /* Raises at an unknown name. */
    lua_pushvalue(L, CALL_SITE);
    lua_call(L, 1, 1);
  }
  lua_pushvalue(L, lua_upvalueindex(CALL_KEY));
  lua_rawget(L, -2);
  lua_rotate(L, CALL_RECORD, 2);
  struct door_frame *frame = now;
  const char *before = frame ? frame->site : NULL;
  if (frame) frame->site = site;
  int rc = lua_pcallk(L, count, LUA_MULTRET, CALL_HANDLER, 0, finish_site_call);
  if (frame) frame->site = before;
  return finish_site_call(L, rc, 0);
}

/* caller(records, find, failed) -> call: errors.call itself, in one step. records: site -> { handler = function }; find(site) gives a
 * record that is not there yet; failed(record, ids, error) gives the incident. */
static int l_caller(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lua_settop(L, 3);
  lua_pushliteral(L, "handler");
  lua_pushcclosure(L, l_site_call, 4);
  return 1;
}

/* ---- for code that has a budget ----
 *
 * Lua runs no hook within a hook (budget.c's), nor in what an error out of one calls before a protected call has caught it: a message
 * handler, and the to-be-closed variables of a coroutine that ends with it. Neither could be interrupted. */

enum { HOOK_LEVELS = 4 }; /* The handler, `error`, a hook in Lua, and one to spare. */

/* A hook, of whomever, raised the error that a handler is called for. */
static bool in_hook(lua_State *L) {
  lua_Debug ar;
  for (int level = 0; level < HOOK_LEVELS && lua_getstack(L, level, &ar); level++)
    if (lua_getinfo(L, "n", &ar) && strcmp(ar.namewhat, "hook") == 0) return true;
  return false;
}

/* [error] -> [what the operator's handler makes of it; the error itself when a hook raised it]. */
static int guarded_handler(lua_State *L) {
  if (budget_raised(L) || in_hook(L)) return 1;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  return 1;
}

static int finish_caught(lua_State *L, int rc, lua_KContext under) {
  if (rc == LUA_OK || rc == LUA_YIELD) return lua_gettop(L) - (int)under;
  lua_pushboolean(L, 0);
  lua_insert(L, -2);
  return 2;
}

/* xpcall(fn, handler, ...) for bounded code. */
static int l_caught(lua_State *L) {
  luaL_checktype(L, 2, LUA_TFUNCTION);
  int count = lua_gettop(L) - 2;
  lua_pushvalue(L, 2);
  lua_pushcclosure(L, guarded_handler, 1);
  lua_replace(L, 2);
  lua_pushboolean(L, 1); /* The first result. */
  lua_pushvalue(L, 1);
  lua_rotate(L, 3, 2);
  return finish_caught(L, lua_pcallk(L, count, LUA_MULTRET, 2, 2, finish_caught), 2);
}

static int finish_body(lua_State *L, int rc, lua_KContext unused) {
  (void)unused;
  return rc == LUA_OK || rc == LUA_YIELD ? lua_gettop(L) : lua_error(L);
}

/* A coroutine's function: its variables are closed where hooks run again, before the coroutine ends. */
static int body(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  return finish_body(L, lua_pcallk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, 0, finish_body), 0);
}

static void push_body(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_pushcclosure(L, body, 1);
}

static int l_body(lua_State *L) {
  push_body(L);
  return 1;
}

/* coroutine.create or coroutine.wrap, the upvalue, of such a function. */
static int of_body(lua_State *L) {
  push_body(L);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, -2);
  lua_call(L, 1, 1);
  return 1;
}

/* -> Lua's library of coroutines, for bounded code. */
static int l_threads(lua_State *L) {
  lua_settop(L, 0);
  lua_newtable(L);
  lua_getglobal(L, "coroutine");
  for (lua_pushnil(L); lua_next(L, 2);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_settable(L, 1);
  }
  for (const char *const *name = (const char *const[]){"create", "wrap", NULL}; *name; name++) {
    lua_getfield(L, 2, *name);
    lua_pushcclosure(L, of_body, 1);
    lua_setfield(L, 1, *name);
  }
  lua_settop(L, 1);
  return 1;
}

/* ---- the face ---- */

static int l_sink(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &sink_key);
  return 0;
}

/* failing(fn or nil): fn(site) is called after each callback from C, and raises where that must fail (base/errors/injecting.lua). */
static int l_failing(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  bool before = lua_rawgetp(L, LUA_REGISTRYINDEX, &failing_key) == LUA_TFUNCTION;
  lua_pop(L, 1);
  failing += (unsigned)!lua_isnil(L, 1) - (unsigned)before;
  lua_rawsetp(L, LUA_REGISTRYINDEX, &failing_key);
  return 0;
}

/* line(site, message): past everything, without an allocation. */
static int l_line(lua_State *L) {
  put_line(L, luaL_checkstring(L, 1), luaL_checkstring(L, 2));
  return 0;
}

static int l_incidents(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)check(L)->incidents);
  return 1;
}

static const luaL_Reg functions[] = {
    {"sink", l_sink}, {"incidents", l_incidents}, {"line", l_line}, {"failing", l_failing}, {"trace", l_trace}, {"caller", l_caller}, {"xpcall", l_xpcall_at}, {"resume", l_resume_at},
    {"caught", l_caught}, {"body", l_body}, {"threads", l_threads}, {NULL, NULL}};

int luaopen_shoal_core_door(lua_State *L) {
  (void)check(L); /* Made now, so that no incident stays uncounted when memory runs out. */
  luaL_newlib(L, functions);
  return 1;
}
