/* json: a strict reader and writer of JSON text (RFC 8259), between json.c, json_decode.c and json_encode.c.
 *
 * Whole numbers are integers of 64 bits, exact in both directions; one past that range is refused, or read as its text. All other
 * numbers are doubles, written with as many digits as distinguish them. A double that is a whole number below 2^63 is written
 * as one: 5.0 as 5. nan and the infinities are refused. */
#ifndef SHOAL_LUA_JSON_H
#define SHOAL_LUA_JSON_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

#include "lua/msgpack_schema.h"

enum {
  JSON_DEPTH_MAX = 1000, /* Nested containers, the value itself being the first. */
  JSON_NUMBER_MAX = 40,  /* Bytes of any number's text, and a zero byte. */
};

struct json_options {
  bool unique;     /* A repeated key is refused; else the last one stays. */
  bool large_text; /* A whole number beyond 64 bits becomes its text; else it is refused. */
};

/* Push the value that these bytes hold; they end in a zero byte that `length` does not count. An empty array gets the metatable at
 * `array`. False: nothing is pushed, `error` says why, and `*at` is the offset of the byte that is wrong. */
bool json_decode(lua_State *L, const char *bytes, size_t length, int array, struct json_options options, struct mp_buffer *scratch,
                 char error[MP_ERROR_MAX], size_t *at);

/* Write the value at `index`; a table with the metatable at `array` is an array. False: `error` says where and why. */
bool json_encode(lua_State *L, int index, int array, struct mp_buffer *out, char error[MP_ERROR_MAX]);

/* The number as text; 0 when it has none (nan, an infinity). */
size_t json_integer(char out[JSON_NUMBER_MAX], lua_Integer n);
size_t json_float(char out[JSON_NUMBER_MAX], lua_Number n);

#endif
