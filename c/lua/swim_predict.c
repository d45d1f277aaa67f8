/* core.predict: drive/predict from Lua. lua/shoal/member/swim.lua checks the question and is its manual. */
#include "lua/swim_predict.h"

#include <lauxlib.h>
#include <math.h>

#include "lua/lua_error.h"
#include "lua/swim_options.h"
#include "drive/predict.h"

static uint64_t whole(lua_State *L, const char *name, lua_Integer otherwise) {
  lua_getfield(L, 1, name);
  lua_Integer value = luaL_optinteger(L, -1, otherwise);
  luaL_argcheck(L, value >= 0, 1, name);
  lua_pop(L, 1);
  return (uint64_t)value;
}

static double number(lua_State *L, const char *name, double otherwise) {
  lua_getfield(L, 1, name);
  double value = luaL_optnumber(L, -1, otherwise);
  luaL_argcheck(L, value >= 0 && value < 1e9, 1, name);
  lua_pop(L, 1);
  return value;
}

static void set_number(lua_State *L, const char *name, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, name);
}

static void set_times(lua_State *L, const char *name, const struct predict_times *times) {
  if (isnan(times->p50)) return;
  lua_createtable(L, 0, 3);
  set_number(L, "p50", times->p50);
  set_number(L, "p99", times->p99);
  set_number(L, "max", times->max);
  lua_setfield(L, -2, name);
}

static void push_answer(lua_State *L, const struct predict_answer *a) {
  lua_createtable(L, 0, 9);
  set_number(L, "bytes_per_s", a->bytes_per_s);
  set_number(L, "datagrams_per_s", a->datagrams_per_s);
  set_number(L, "false_suspicions_per_hour", a->false_suspicions_per_hour);
  lua_pushinteger(L, (lua_Integer)a->false_deaths);
  lua_setfield(L, -2, "false_deaths");
  lua_pushinteger(L, a->undecided);
  lua_setfield(L, -2, "undecided");
  set_number(L, "virtual_s", a->virtual_s);
  set_times(L, "suspected_s", &a->suspected);
  set_times(L, "first_dead_s", &a->first_dead);
  set_times(L, "all_dead_s", &a->all_dead);
}

int swim_l_predict(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  struct predict_question q = {0};
  struct predict_answer answer;
  (void)swim_config_profile("lan", &q.config); /* This profile exists. */
  lua_getfield(L, 1, "config");
  luaL_checktype(L, 2, LUA_TTABLE);
  if (swim_check_config(L, 2, &q.config)) return 3;
  q.members = (uint32_t)whole(L, "n", 0), q.crashes = (uint32_t)whole(L, "crashes", 0), q.rest_s = (uint32_t)whole(L, "rest_s", 1);
  q.seed = whole(L, "seed", 1);
  q.link = (struct sim_link){.latency_ns = (uint64_t)(number(L, "latency_ms", 0) * 1e6), .jitter_ns = (uint64_t)(number(L, "jitter_ms", 0) * 1e6),
                             .loss = number(L, "loss", 0)};
  int rc = predict(&q, &answer);
  if (rc < 0) return error_push(L, "swim: predict", rc);
  push_answer(L, &answer);
  return 1;
}
