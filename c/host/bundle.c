#include "host/bundle.h"

#include <lauxlib.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

__asm__(".section .rodata\n"
        ".balign 16\n"
        "shoal_bundle: .incbin \"" BUNDLE_FILE "\"\n"
        ".byte 0\n"
        ".previous\n");
extern const unsigned char shoal_bundle[] __attribute__((visibility("hidden")));

static const struct bundle_header *header(void) { return (const void *)shoal_bundle; }

const struct bundle_entry *bundle_find(const char *name) {
  const struct bundle_header *h = header();
  for (uint64_t i = 0; i < h->count; i++)
    if (strcmp((const char *)shoal_bundle + h->entries[i].name_at, name) == 0) return &h->entries[i];
  return NULL;
}

/* Reading costs a tenth of compiling. */
static bool same_bytes(const struct bundle_entry *e, const char *path) {
  FILE *file = fopen(path, "rbe");
  char *bytes = file ? malloc(e->size + 1) : NULL;
  bool same = bytes && fread(bytes, 1, e->size + 1, file) == e->size && bundle_hash(bytes, e->size) == e->hash;
  free(bytes);
  if (file) fclose(file);
  return same;
}

bool bundle_is_fresh(const struct bundle_entry *e, const char *path) {
  struct stat about;
  if (stat(path, &about) < 0 || (uint64_t)about.st_size != e->size) return false;
  int64_t modified_ns = (int64_t)about.st_mtim.tv_sec * 1000000000 + about.st_mtim.tv_nsec;
  bool whole = modified_ns == e->modified_ns - e->modified_ns % 1000000000; /* An install, or a tar, keeps whole seconds. */
  return whole || modified_ns == e->modified_ns || same_bytes(e, path);
}

/* ---- the two pieces, and the source's name between them ---- */

struct pieces {
  const char *bytes[3];
  size_t length[3];
  int next;
};

static const char *read_piece(lua_State *L, void *data, size_t *length) {
  struct pieces *p = data;
  (void)L;
  if (p->next == 3) return NULL;
  *length = p->length[p->next];
  return p->bytes[p->next++];
}

/* As lua_dump writes a string: its size and 1, seven bits a byte, the greatest first, the last one marked. */
static size_t dump_name(const char *path, char *out, size_t room) {
  unsigned char digits[10];
  size_t length = strlen(path) + 1, size = length + 1, count = 0;
  do digits[count++] = size & 0x7f;
  while (size >>= 7);
  if (count + length > room) return 0;
  digits[0] |= 0x80;
  for (size_t i = 0; i < count; i++) out[i] = (char)digits[count - 1 - i];
  out[count] = '@';
  memcpy(out + count + 1, path, length - 1);
  return count + length;
}

int bundle_load(lua_State *L, const struct bundle_entry *e, const char *path) {
  char name[PATH_MAX + 16];
  size_t length = dump_name(path, name, sizeof name);
  if (length == 0) {
    lua_pushliteral(L, "its path is too long");
    return LUA_ERRFILE;
  }
  struct pieces p = {.bytes = {(const char *)shoal_bundle + e->head_at, name, (const char *)shoal_bundle + e->tail_at},
                     .length = {e->head_bytes, length, e->tail_bytes}};
  return lua_load(L, read_piece, &p, path, "b");
}
