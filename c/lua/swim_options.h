/* swim_options: the Lua shapes of core/swim: options in, members and counts out. */
#ifndef SHOAL_LUA_SWIM_OPTIONS_H
#define SHOAL_LUA_SWIM_OPTIONS_H

#include <lua.h>

#include "drive/swim_driver.h"

/* Read the table at `index`, which keeps the strings of *out. Returns 0; or 3 with `nil, message, "CONFIG"` pushed. Raises on
 * wrong types. */
int swim_check_options(lua_State *L, int index, struct swim_driver_options *out);
/* Overwrite *out with the tunables and `profile` of the table at `index`. Returns 0, or 3 as above. */
int swim_check_config(lua_State *L, int index, struct swim_config *out);
/* Refuse fields that are no tunables. Returns 0, or 3 as above. */
int swim_check_only_tunables(lua_State *L, int index);
/* An array of "ip:port" at `index`. Returns 0, or 3 as above. */
int swim_check_addresses(lua_State *L, int index, const char *what, struct shoal_address *out, size_t max, size_t *count);

/* { name, address, state, incarnation = { generation, version }, payload = bytes | nil, payload_version }. Raises (memory). */
void swim_push_member(lua_State *L, const struct swim_member *m);
/* All members, sorted by name. */
void swim_push_members(lua_State *L, const struct swim *s);
void swim_push_counts(lua_State *L, const struct swim *s);
/* Add the driver's counts to the table on top: send_failed, and by the code's name send_errors = { ENETUNREACH = n, ...,
 * other = n }. */
void swim_push_driver_counts(lua_State *L, const struct swim_driver_counts *counts);
/* The SwimWhy of lua/shoal/member/swim.lua. */
void swim_push_why(lua_State *L, const struct swim_why *why, uint64_t now_ns);

#endif
