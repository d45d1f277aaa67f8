/* copy: carry plain values from one Lua state to another, as bytes, so that an error in one never jumps across the other.
 * nil, booleans, numbers (integers stay integers), strings, and tables of these; no cycles, at most 32 deep. */
#ifndef SHOAL_HOST_COPY_H
#define SHOAL_HOST_COPY_H

#include <lua.h>
#include <stddef.h>

struct copy {
  char *bytes; /* malloc'ed; free with copy_free. */
  size_t length, room;
};

/* Append the value at `index`. Returns NULL, or the reason why it cannot be copied (static text). May raise (stack); the
 * caller still frees the bytes. */
const char *copy_put(lua_State *L, int index, struct copy *out);
/* Push the value at *at and advance. Raises (memory). */
void copy_get(lua_State *L, const struct copy *from, size_t *at);
void copy_free(struct copy *c);

#endif
