#include "msgpack_schema.h"

#include <lauxlib.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

enum {
  KEEP_MAX = 256 * 1024, /* A buffer that grew past this is freed after the call. */
  KEYS_ON_STACK = 24,
};

struct writer {
  lua_State *L;
  const struct mp_schema *schema; /* NULL when there is none: all is "any". */
  int names;
  int depth;
  msgpack_packer packer;
  struct mp_buffer *out;
  char *error;
};

/* ---- the buffer: packing into it never refuses, so (void): append() remembers that memory ran out ---- */

static bool reserve(struct mp_buffer *b, size_t more) {
  if (more <= b->capacity - b->length) return true;
  size_t capacity = b->capacity ? b->capacity : 1024;
  while (capacity - b->length < more) {
    if (capacity > SIZE_MAX / 2) return false;
    capacity *= 2;
  }
  char *grown = realloc(b->bytes, capacity);
  if (!grown) return false;
  b->bytes = grown;
  b->capacity = capacity;
  return true;
}

bool mp_buffer_add(struct mp_buffer *b, const char *bytes, size_t length) {
  if (b->failed || !reserve(b, length)) {
    b->failed = true;
    return false;
  }
  if (length > 0) memcpy(b->bytes + b->length, bytes, length); /* An empty buffer may have no bytes yet: memcpy takes no NULL. */
  b->length += length;
  return true;
}

/* msgpack-c writes through this. The buffer remembers a failure, so that no caller of a pack function must check its result. */
static int append(void *data, const char *bytes, size_t length) { return mp_buffer_add(data, bytes, length) ? 0 : -1; }

/* For the result of a pack function: the buffer remembers a failure, and run() checks that once. */
static void packed(int result) { (void)result; /* See above. */ }

void mp_buffer_reset(struct mp_buffer *b) {
  b->length = 0;
  b->failed = false;
  if (b->capacity <= KEEP_MAX) return;
  free(b->bytes);
  b->bytes = NULL;
  b->capacity = 0;
}

static int l_buffer_gc(lua_State *L) {
  struct mp_buffer *b = lua_touserdata(L, 1);
  free(b->bytes);
  *b = (struct mp_buffer){0};
  return 0;
}

struct mp_buffer *mp_buffer_push(lua_State *L) {
  struct mp_buffer *b = lua_newuserdatauv(L, sizeof *b, 0);
  *b = (struct mp_buffer){0};
  if (luaL_newmetatable(L, "shoal.msgpack.buffer")) {
    lua_pushcfunction(L, l_buffer_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return b;
}

/* ---- values ---- */

static bool write_value(struct writer *w, const struct mp_node *node, int index, const struct mp_place *place);
static bool write_any(struct writer *w, int index, int order, const struct mp_place *place);

static const char *schema_name(const struct writer *w) { return w->schema ? w->schema->name : NULL; }

/* The name of the value's type, for messages: Lua's word, but with the two kinds of number distinguished. */
static const char *found(lua_State *L, int index) {
  if (lua_type(L, index) == LUA_TNUMBER) return lua_isinteger(L, index) ? "integer" : "float";
  return luaL_typename(L, index);
}

static bool refuse(struct writer *w, const struct mp_place *place, const char *expected, int index) {
  mp_fail(w->error, schema_name(w), place, "expected %s, found %s", expected, found(w->L, index));
  return false;
}

static bool enter(struct writer *w, const struct mp_place *place) {
  if (w->depth == MP_DEPTH_MAX) {
    mp_fail(w->error, schema_name(w), place, "nested deeper than %d", MP_DEPTH_MAX);
    return false;
  }
  luaL_checkstack(w->L, 8, "body too deep"); /* The most that a level keeps on the stack, apart from a record's values. */
  w->depth++;
  return true;
}

static size_t count_pairs(lua_State *L, int index) {
  size_t count = 0;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) count++;
  return count;
}

static bool write_text(struct writer *w, int index, bool binary, const struct mp_place *place) {
  size_t length;
  const char *bytes = lua_tolstring(w->L, index, &length);
  if (length > UINT32_MAX) {
    mp_fail(w->error, schema_name(w), place, "%zu bytes are more than MessagePack can say", length);
    return false;
  }
  if (binary)
    packed(msgpack_pack_bin_with_body(&w->packer, bytes, length));
  else
    packed(msgpack_pack_str_with_body(&w->packer, bytes, length));
  return true;
}

static bool write_enum(struct writer *w, const struct mp_node *node, int index, const struct mp_place *place) {
  size_t length;
  const char *word = lua_type(w->L, index) == LUA_TSTRING ? lua_tolstring(w->L, index, &length) : NULL;
  if (!word) return refuse(w, place, node->words, index);
  for (uint32_t i = 0; i < node->count; i++) {
    const struct mp_field *f = &w->schema->fields[node->first + i];
    if (f->length != length || memcmp(f->name, word, length) != 0) continue;
    packed(append(w->out, (const char *)f->packed, f->packed_length));
    return true;
  }
  mp_fail(w->error, schema_name(w), place, "expected %s, found \"%.40s\"", node->words, word);
  return false;
}

static bool write_array(struct writer *w, const struct mp_node *of, int index, const struct mp_place *place) {
  if (!lua_istable(w->L, index)) return refuse(w, place, "array", index);
  size_t length = lua_rawlen(w->L, index);
  if (count_pairs(w->L, index) != length) { /* Holes and named keys would be lost. */
    mp_fail(w->error, schema_name(w), place, "expected array, found a table whose keys are not 1..%zu", length);
    return false;
  }
  if (!enter(w, place)) return false;
  packed(msgpack_pack_array(&w->packer, length));
  for (size_t i = 1; i <= length; i++) {
    struct mp_place here = {place, NULL, 0, (lua_Integer)i};
    lua_rawgeti(w->L, index, (lua_Integer)i);
    bool ok = of ? write_value(w, of, lua_gettop(w->L), &here) : write_any(w, lua_gettop(w->L), 0, &here);
    lua_pop(w->L, 1);
    if (!ok) return false;
  }
  w->depth--;
  return true;
}

/* ---- maps with keys of their own ---- */

struct key {
  const char *text; /* NULL: an integer. */
  size_t length;
  lua_Integer integer;
  size_t rank; /* Its place in `order`; SIZE_MAX when it is not there. */
};

/* Named ones first, then integers rising, then strings bytewise. */
static int compare(const void *left, const void *right) {
  const struct key *a = left, *b = right;
  if (a->rank != b->rank) return a->rank < b->rank ? -1 : 1;
  if (!a->text != !b->text) return a->text ? 1 : -1;
  if (!a->text) return a->integer < b->integer ? -1 : 1;
  size_t shorter = a->length < b->length ? a->length : b->length;
  int difference = memcmp(a->text, b->text, shorter);
  if (difference) return difference;
  return a->length < b->length ? -1 : 1;
}

static size_t rank_of(lua_State *L, int key, int order) {
  if (!order) return SIZE_MAX;
  size_t length = lua_rawlen(L, order);
  for (size_t i = 1; i <= length; i++) {
    lua_rawgeti(L, order, (lua_Integer)i);
    bool same = lua_rawequal(L, -1, key);
    lua_pop(L, 1);
    if (same) return i;
  }
  return SIZE_MAX;
}

static bool collect(struct writer *w, int index, int order, bool text_only, struct key *keys,
                    const struct mp_place *place) {
  lua_State *L = w->L;
  size_t count = 0;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    struct key *k = &keys[count++];
    int key = lua_gettop(L) - 1;
    *k = (struct key){.rank = rank_of(L, key, order)};
    if (lua_type(L, key) == LUA_TSTRING) {
      k->text = lua_tolstring(L, key, &k->length);
    } else if (!text_only && lua_isinteger(L, key)) {
      k->integer = lua_tointeger(L, key);
    } else {
      refuse(w, place, text_only ? "keys that are strings" : "keys that are strings or integers", key);
      lua_pop(L, 2);
      return false;
    }
  }
  qsort(keys, count, sizeof *keys, compare);
  return true;
}

static bool write_keys(struct writer *w, const struct mp_node *of, int index, const struct key *keys, size_t count,
                       const struct mp_place *place) {
  lua_State *L = w->L;
  packed(msgpack_pack_map(&w->packer, count));
  for (size_t i = 0; i < count; i++) {
    const struct key *k = &keys[i];
    struct mp_place here = {place, k->text, k->length, k->integer};
    if (k->text) {
      lua_pushlstring(L, k->text, k->length);
      if (!write_text(w, lua_gettop(L), false, &here)) return false;
    } else {
      lua_pushinteger(L, k->integer);
      packed(msgpack_pack_int64(&w->packer, k->integer));
    }
    lua_rawget(L, index);
    bool ok = of ? write_value(w, of, lua_gettop(L), &here) : write_any(w, lua_gettop(L), 0, &here);
    lua_pop(L, 1);
    if (!ok) return false;
  }
  return true;
}

/* A map from strings to `of`, or (of NULL) from strings and integers to anything. */
static bool write_map(struct writer *w, const struct mp_node *of, int index, int order, const struct mp_place *place) {
  if (!lua_istable(w->L, index)) return refuse(w, place, "map", index);
  if (!enter(w, place)) return false;
  size_t count = count_pairs(w->L, index);
  struct key few[KEYS_ON_STACK];
  struct key *keys = few;
  if (count > KEYS_ON_STACK) keys = lua_newuserdatauv(w->L, count * sizeof *keys, 0);
  bool ok = collect(w, index, order, of != NULL, keys, place) && write_keys(w, of, index, keys, count, place);
  if (keys != few) lua_pop(w->L, 1);
  w->depth--;
  return ok;
}

static bool write_any(struct writer *w, int index, int order, const struct mp_place *place) {
  lua_State *L = w->L;
  switch (lua_type(L, index)) {
    case LUA_TNIL: packed(msgpack_pack_nil(&w->packer)); return true;
    case LUA_TBOOLEAN:
      if (lua_toboolean(L, index))
        packed(msgpack_pack_true(&w->packer));
      else
        packed(msgpack_pack_false(&w->packer));
      return true;
    case LUA_TNUMBER:
      if (lua_isinteger(L, index))
        packed(msgpack_pack_int64(&w->packer, lua_tointeger(L, index)));
      else
        packed(msgpack_pack_double(&w->packer, lua_tonumber(L, index)));
      return true;
    case LUA_TSTRING: return write_text(w, index, false, place);
    case LUA_TTABLE: {
      size_t length = lua_rawlen(L, index);
      if (count_pairs(L, index) == length) return write_array(w, NULL, index, place);
      return write_map(w, NULL, index, order, place);
    }
    default: return refuse(w, place, "nil, boolean, number, string or table", index);
  }
}

/* ---- records ---- */

/* The table has a key that is not in the schema: find and report it. */
static bool refuse_unknown(struct writer *w, const struct mp_node *node, int index, const struct mp_place *place) {
  lua_State *L = w->L;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    size_t length;
    if (lua_type(L, -2) != LUA_TSTRING) {
      refuse(w, place, "keys that are field names", lua_gettop(L) - 1);
      break;
    }
    const char *name = lua_tolstring(L, -2, &length);
    bool known = false;
    for (uint32_t i = 0; i < node->count && !known; i++) {
      const struct mp_field *f = &w->schema->fields[node->first + i];
      known = f->length == length && memcmp(f->name, name, length) == 0;
    }
    if (known) continue;
    struct mp_place here = {place, name, length, 0};
    mp_fail(w->error, schema_name(w), &here, "there is no such field");
    break;
  }
  lua_pop(L, 2);
  return false;
}

static bool write_record(struct writer *w, const struct mp_node *node, int index, const struct mp_place *place) {
  lua_State *L = w->L;
  if (!lua_istable(L, index)) return refuse(w, place, "table", index);
  if (!enter(w, place)) return false;
  luaL_checkstack(L, (int)node->count + 8, "body too deep");
  const struct mp_field *fields = &w->schema->fields[node->first];
  uint64_t present = 0;
  size_t count = 0;
  for (uint32_t i = 0; i < node->count; i++) { /* The map's length comes first on the wire: push all, then write. */
    lua_rawgeti(L, w->names, fields[i].name_index);
    if (lua_rawget(L, index) == LUA_TNIL) {
      if (!fields[i].optional) {
        struct mp_place here = {place, fields[i].name, fields[i].length, 0};
        mp_fail(w->error, schema_name(w), &here, "missing");
        return false;
      }
      lua_pop(L, 1);
      continue;
    }
    present |= UINT64_C(1) << i;
    count++;
  }
  if (count_pairs(L, index) != count) {
    lua_pop(L, (int)count);
    return refuse_unknown(w, node, index, place);
  }
  packed(msgpack_pack_map(&w->packer, count));
  int value = lua_gettop(L) - (int)count;
  for (uint32_t i = 0; i < node->count; i++) {
    if (!(present >> i & 1)) continue;
    struct mp_place here = {place, fields[i].name, fields[i].length, 0};
    packed(append(w->out, (const char *)fields[i].packed, fields[i].packed_length));
    if (!write_value(w, &w->schema->nodes[fields[i].node], ++value, &here)) return false;
  }
  lua_pop(L, (int)count);
  w->depth--;
  return true;
}

static bool write_value(struct writer *w, const struct mp_node *node, int index, const struct mp_place *place) {
  lua_State *L = w->L;
  switch (node->kind) {
    case MP_ANY:
      if (lua_isnil(L, index)) return refuse(w, place, "a value", index);
      return write_any(w, index, 0, place);
    case MP_BOOLEAN:
      if (!lua_isboolean(L, index)) return refuse(w, place, "boolean", index);
      return write_any(w, index, 0, place);
    case MP_INTEGER: { /* A float that is a whole number is accepted: JSON's readers produce such. */
      int whole;
      lua_Integer integer = lua_tointegerx(L, index, &whole);
      if (!whole || lua_type(L, index) != LUA_TNUMBER) return refuse(w, place, "integer", index);
      packed(msgpack_pack_int64(&w->packer, integer));
      return true;
    }
    case MP_NUMBER:
      if (lua_type(L, index) != LUA_TNUMBER) return refuse(w, place, "number", index);
      return write_any(w, index, 0, place);
    case MP_STRING:
      if (lua_type(L, index) != LUA_TSTRING) return refuse(w, place, "string", index);
      return write_text(w, index, false, place);
    case MP_BYTES:
      if (lua_type(L, index) != LUA_TSTRING) return refuse(w, place, "bytes", index);
      return write_text(w, index, true, place);
    case MP_ENUM: return write_enum(w, node, index, place);
    case MP_ARRAY: return write_array(w, &w->schema->nodes[node->of], index, place);
    case MP_MAP: return write_map(w, &w->schema->nodes[node->of], index, 0, place);
    case MP_RECORD: return write_record(w, node, index, place);
  }
  return false;
}

static bool run(struct writer *w, const struct mp_node *root, int index, int order) {
  int top = lua_gettop(w->L);
  msgpack_packer_init(&w->packer, w->out, append);
  bool ok = root ? write_value(w, root, index, NULL) : write_any(w, index, order, NULL);
  lua_settop(w->L, top);
  if (ok && w->out->failed) {
    mp_fail(w->error, schema_name(w), NULL, "out of memory");
    return false;
  }
  return ok;
}

bool mp_encode(lua_State *L, const struct mp_schema *s, int names, int index, struct mp_buffer *out,
               char error[MP_ERROR_MAX]) {
  struct writer w = {.L = L, .schema = s, .names = names, .out = out, .error = error};
  return run(&w, &s->nodes[s->root], index, 0);
}

bool mp_encode_any(lua_State *L, int index, int order, struct mp_buffer *out, char error[MP_ERROR_MAX]) {
  struct writer w = {.L = L, .out = out, .error = error};
  return run(&w, NULL, index, order);
}
