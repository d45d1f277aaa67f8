/* bundler: makes the bundle (bundle.h) of a build: bundler OUT LUA_FOLDER FILE... It is a program of the build alone, with the program's own
 * Lua in it: bytecode fits the Lua that made it. */
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/bundle.h"

enum {
  SOURCE_AT = 32, /* Where Lua 5.4 dumps the source's name: behind its header and the count of upvalues. */
};
static const char MARK[] = "@source";

struct text {
  char *bytes;
  size_t length, room;
};
static struct text data; /* All behind the entries. */
static size_t data_at;

static void fail(const char *what, const char *why) {
  (void)fprintf(stderr, "bundler: %s: %s\n", what, why);
  exit(EXIT_FAILURE);
}

static void append(struct text *t, const void *bytes, size_t length) {
  if (t->length + length > t->room) {
    t->room = (t->room + length) * 2;
    t->bytes = realloc(t->bytes, t->room);
    if (!t->bytes) fail("memory", "there is none");
  }
  memcpy(t->bytes + t->length, bytes, length);
  t->length += length;
}

static uint32_t add(const void *bytes, size_t length) {
  size_t at = data_at + data.length;
  append(&data, bytes, length);
  return (uint32_t)at;
}

static int on_dumped(lua_State *L, const void *bytes, size_t length, void *text) {
  (void)L;
  append(text, bytes, length);
  return 0;
}

static struct text read_source(const char *path, struct bundle_entry *e) {
  struct stat about;
  struct text t = {0};
  char bytes[65536];
  size_t length;
  FILE *file = fopen(path, "rb");
  if (!file || fstat(fileno(file), &about) < 0) fail(path, "it cannot be read");
  while ((length = fread(bytes, 1, sizeof bytes, file)) > 0) append(&t, bytes, length);
  if (ferror(file) || t.length != (size_t)about.st_size) fail(path, "it changed while it was read");
  fclose(file);
  e->size = t.length;
  e->hash = bundle_hash(t.bytes, t.length);
  e->modified_ns = (int64_t)about.st_mtim.tv_sec * 1000000000 + about.st_mtim.tv_nsec;
  return t;
}

static void compile(lua_State *L, const char *path, struct bundle_entry *e) {
  struct text source = read_source(path, e), code = {0};
  if (luaL_loadbufferx(L, source.bytes ? source.bytes : "", source.length, MARK, "t") != LUA_OK) fail(path, lua_tostring(L, -1));
  if (lua_dump(L, on_dumped, &code, 0) != 0) fail(path, "it cannot be dumped"); /* Not stripped: lines are for people. */
  size_t mark = strlen(MARK);
  bool there = code.length > SOURCE_AT + 1 + mark && (unsigned char)code.bytes[SOURCE_AT] == (0x80 | (mark + 1))
    && memcmp(code.bytes + SOURCE_AT + 1, MARK, mark) == 0;
  if (!there) fail(path, "its bytecode has the source's name elsewhere: this Lua is no 5.4, and bundle.c must learn its format");
  e->head_at = add(code.bytes, e->head_bytes = SOURCE_AT);
  size_t rest = SOURCE_AT + 1 + mark;
  e->tail_at = add(code.bytes + rest, e->tail_bytes = (uint32_t)(code.length - rest));
  lua_settop(L, 0);
  free(source.bytes);
  free(code.bytes);
}

/* "FOLDER/shoal/run/exec.lua" -> "shoal.run.exec"; the path of a package ends in "/init.lua". */
static uint32_t add_name(const char *folder, const char *path) {
  char name[512];
  size_t length = strlen(folder);
  if (strncmp(path, folder, length) != 0 || path[length] != '/') fail(path, "it is not in the folder");
  if ((size_t)snprintf(name, sizeof name, "%s", path + length + 1) >= sizeof name) fail(path, "its path is too long");
  char *end = strrchr(name, '.');
  if (!end || strcmp(end, ".lua") != 0) fail(path, "it is no .lua file");
  *end = '\0';
  for (char *at = name; *at; at++)
    if (*at == '/') *at = '.';
  return add(name, strlen(name) + 1);
}

int main(int argc, char **argv) {
  if (argc < 3) fail("usage", "bundler OUT LUA_FOLDER FILE...");
  struct bundle_header h = {.count = (uint64_t)argc - 3};
  struct bundle_entry *entries = calloc(h.count + 1, sizeof *entries);
  lua_State *L = luaL_newstate();
  if (!entries || !L) fail("memory", "there is none");
  data_at = sizeof h + h.count * sizeof *entries;
  for (uint64_t i = 0; i < h.count; i++) {
    const char *path = argv[i + 3];
    compile(L, path, &entries[i]);
    entries[i].name_at = add_name(argv[2], path);
  }
  FILE *out = fopen(argv[1], "wb");
  if (!out || fwrite(&h, sizeof h, 1, out) != 1 || fwrite(entries, sizeof *entries, h.count, out) != h.count ||
      fwrite(data.bytes, 1, data.length, out) != data.length || fclose(out) != 0)
    fail(argv[1], "it cannot be written");
  lua_close(L);
  free(entries);
  free(data.bytes);
  return EXIT_SUCCESS;
}
