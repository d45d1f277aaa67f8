/* bundle: the library's Lua, compiled when this program was built, with its lines.
 *
 *     +-------+-----------------+----------------------------------+
 *     | count | count x entries | names, and bytecode in two pieces |      made by bundler.c, native order; part of the program
 *     +-------+-----------------+----------------------------------+
 *
 * A module is taken from here only while its source is the one that was compiled: of the same size and time, or else (it was copied) of
 * the same bytes. So an edit of a file under lua/ takes effect at the next start. Bytecode names the path of its source in one place,
 * which lies between its two pieces: it is given the path where the source is now. */
#ifndef SHOAL_HOST_BUNDLE_H
#define SHOAL_HOST_BUNDLE_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bundle_entry {
  uint64_t size, hash; /* Of the source. */
  int64_t modified_ns;
  uint32_t name_at, head_at, head_bytes, tail_at, tail_bytes; /* From the beginning of the bundle. */
  uint32_t unused;
};
struct bundle_header {
  uint64_t count;
  struct bundle_entry entries[];
};

static inline uint64_t bundle_hash(const void *bytes, size_t length) { /* FNV-1a. */
  const unsigned char *at = bytes;
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < length; i++) hash = (hash ^ at[i]) * 0x100000001b3u;
  return hash;
}

/* The module of this name, or NULL. */
const struct bundle_entry *bundle_find(const char *name);
/* Is the file at `path` what the entry was made from? */
bool bundle_is_fresh(const struct bundle_entry *e, const char *path);
/* As luaL_loadfilex of `path`: pushes the function or a message, and returns a status of Lua. */
int bundle_load(lua_State *L, const struct bundle_entry *e, const char *path);

#endif
