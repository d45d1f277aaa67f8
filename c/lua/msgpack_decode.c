/* One pass over the bytes, straight onto the Lua stack. msgpack-c's unpacker is not used: it allocates an array of objects by
 * the count in a header before it has seen the elements (5 bytes can request 48 GiB), so it would need a check of our own
 * first. Without that check it takes 470 ns for a body of ten fields (its zone, then a second walk over its objects, no
 * schema); this takes 400 ns and checks the schema.
 * Before a table is made, its count is compared with the remaining bytes, less one for each value already announced: so all
 * tables of a body together get no more room than the body has bytes. */
#include "msgpack_schema.h"

#include <inttypes.h>
#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct reader {
  lua_State *L;
  const struct mp_schema *schema; /* NULL: all is "any". */
  int names;
  int depth;
  size_t owed; /* Values announced by containers and not yet begun: each takes at least one of the remaining bytes. */
  const uint8_t *start, *at, *end;
  char *error;
};

/* ---- messages ---- */

static size_t put(char *out, size_t at, const char *text, size_t length, bool checked) {
  for (size_t i = 0; i < length && at < MP_ERROR_MAX - 1; i++) {
    char c = text[i];
    out[at++] = !checked && (c < 0x20 || c > 0x7e) ? '?' : c;
  }
  out[at] = '\0';
  return at;
}

static size_t put_place(char *out, size_t at, const struct mp_place *place) {
  if (!place) return at;
  enum { SHOWN_MAX = 40 };
  at = put_place(out, at, place->up);
  if (place->name) {
    if (place->up) at = put(out, at, ".", 1, true);
    return put(out, at, place->name, place->length < SHOWN_MAX ? place->length : SHOWN_MAX, false);
  }
  char number[32];
  int length = snprintf(number, sizeof number, "[%lld]", (long long)place->index);
  return put(out, at, number, (size_t)length, true);
}

void mp_fail(char out[MP_ERROR_MAX], const char *schema, const struct mp_place *place, const char *format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (length < 0) length = 0;
  if ((size_t)length >= sizeof text) length = sizeof text - 1;
  size_t at = 0;
  out[0] = '\0';
  if (schema) {
    at = put(out, at, schema, strlen(schema), false);
    at = put(out, at, ": ", 2, true);
  }
  if (place) {
    at = put_place(out, at, place);
    at = put(out, at, ": ", 2, true);
  }
  put(out, at, text, (size_t)length, false);
}

/* ---- heads: the first byte of a value, and the count or number that follows it ---- */

enum form { NIL, BOOLEAN, INTEGER, HUGE_INTEGER, FLOAT, TEXT, BINARY, ARRAY, MAP, EXTENSION, NONE };
static const char *const form_names[] = {"nil", "boolean", "integer", "integer above 2^63-1", "float", "string",
                                         "bytes", "array", "map", "extension", "a byte no value starts with"};

struct head {
  enum form form;
  union {
    bool truth;
    int64_t integer;
    double number;
    uint32_t count; /* Of bytes, elements or pairs; already compared with the remaining bytes. */
  };
};

static const char *schema_name(const struct reader *r) { return r->schema ? r->schema->name : NULL; }

static bool short_of(struct reader *r, const struct mp_place *place) {
  mp_fail(r->error, schema_name(r), place, "ends inside a value, at byte %td of %td", r->at - r->start,
      r->end - r->start);
  return false;
}

static bool refuse(struct reader *r, const struct mp_place *place, const char *expected, const struct head *head) {
  mp_fail(r->error, schema_name(r), place, "expected %s, found %s", expected, form_names[head->form]);
  return false;
}

static uint64_t big_endian(const uint8_t *at, size_t width) {
  uint64_t value = 0;
  for (size_t i = 0; i < width; i++) value = value << 8 | at[i];
  return value;
}

static int64_t sign_extend(uint64_t value, size_t width) {
  uint64_t sign = UINT64_C(1) << (8 * width - 1);
  uint64_t widened = (value ^ sign) - sign;
  int64_t result;
  memcpy(&result, &widened, sizeof result);
  return result;
}

static double to_double(uint64_t bits, size_t width) {
  if (width == 4) {
    uint32_t narrow = (uint32_t)bits;
    float single;
    memcpy(&single, &narrow, sizeof single);
    return (double)single;
  }
  double number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

/* The form that a first byte announces, and the number of bytes of the number or length after it. */
static enum form classify(uint8_t first, size_t *width) {
  *width = 0;
  switch (first) {
    case 0xc0: return NIL;
    case 0xc2: case 0xc3: return BOOLEAN;
    case 0xc4: case 0xc5: case 0xc6: *width = (size_t)1 << (first - 0xc4); return BINARY;
    case 0xc7: case 0xc8: case 0xc9: *width = (size_t)1 << (first - 0xc7); return EXTENSION;
    case 0xca: *width = 4; return FLOAT;
    case 0xcb: *width = 8; return FLOAT;
    case 0xcc: case 0xcd: case 0xce: case 0xcf: *width = (size_t)1 << (first - 0xcc); return INTEGER;
    case 0xd0: case 0xd1: case 0xd2: case 0xd3: *width = (size_t)1 << (first - 0xd0); return INTEGER;
    case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8: return EXTENSION;
    case 0xd9: case 0xda: case 0xdb: *width = (size_t)1 << (first - 0xd9); return TEXT;
    case 0xdc: *width = 2; return ARRAY;
    case 0xdd: *width = 4; return ARRAY;
    case 0xde: *width = 2; return MAP;
    case 0xdf: *width = 4; return MAP;
    default: break;
  }
  if (first < 0x80 || first >= 0xe0) return INTEGER;
  if (first < 0x90) return MAP;
  if (first < 0xa0) return ARRAY;
  if (first < 0xc0) return TEXT;
  return NONE; /* 0xc1 */
}

/* The count of a string, array, ... from its first byte and the number after it. */
static uint32_t count_of(uint8_t first, uint64_t number) {
  if (first < 0xa0) return first & 0x0f;
  if (first < 0xc0) return first & 0x1f;
  if (first >= 0xd4 && first <= 0xd8) return UINT32_C(1) << (first - 0xd4);
  return (uint32_t)number;
}

/* Read one head; the bytes of a string, bin or extension stand at `at` afterwards, all of them there. */
static bool read_head(struct reader *r, struct head *head, const struct mp_place *place) {
  if (r->at == r->end) return short_of(r, place);
  uint8_t first = *r->at;
  size_t width;
  head->form = classify(first, &width);
  if ((size_t)(r->end - r->at) < 1 + width) return short_of(r, place);
  uint64_t number = big_endian(r->at + 1, width);
  const uint8_t *after = r->at + 1 + width;
  size_t remaining = (size_t)(r->end - after);
  r->owed--; /* This one has begun. */
  if (remaining < r->owed) return short_of(r, place);
  remaining -= r->owed;
  size_t needed = 0;
  switch (head->form) {
    case NIL: break;
    case BOOLEAN: head->truth = first == 0xc3; break;
    case INTEGER:
      if (width == 0) head->integer = first < 0x80 ? first : (int64_t)first - 256;
      else if (first >= 0xd0) head->integer = sign_extend(number, width);
      else if (number <= INT64_MAX) head->integer = (int64_t)number;
      else head->form = HUGE_INTEGER;
      break;
    case FLOAT: head->number = to_double(number, width); break;
    case TEXT: case BINARY: head->count = count_of(first, number); needed = head->count; break;
    /* + 1: its type. */
    case EXTENSION: head->count = count_of(first, number) + 1; needed = (size_t)count_of(first, number) + 1; break;
    case ARRAY: head->count = count_of(first, number); needed = head->count; break; /* Each at least a byte. */
    case MAP: head->count = count_of(first, number); needed = (size_t)head->count * 2; break;
    case HUGE_INTEGER: case NONE: break;
  }
  if (needed > remaining) {
    mp_fail(r->error, schema_name(r), place, "%s of %" PRIu32 " needs more than the %zu bytes that remain",
            form_names[head->form], head->count, remaining);
    return false;
  }
  if (head->form == ARRAY || head->form == MAP) r->owed += needed;
  r->at = after;
  return true;
}

static bool enter(struct reader *r, const struct mp_place *place) {
  if (r->depth == MP_DEPTH_MAX) {
    mp_fail(r->error, schema_name(r), place, "nested deeper than %d", MP_DEPTH_MAX);
    return false;
  }
  luaL_checkstack(r->L, 8, "body too deep");
  r->depth++;
  return true;
}

/* ---- values: each pushes one, or nothing and returns false ---- */

static bool read_any(struct reader *r, const struct mp_place *place);
static bool read_node(struct reader *r, const struct mp_node *node, const struct mp_place *place);
static bool read_of(struct reader *r, const struct mp_node *of, const struct mp_place *place) {
  return of ? read_node(r, of, place) : read_any(r, place);
}

static void push_bytes(struct reader *r, uint32_t count) {
  lua_pushlstring(r->L, (const char *)r->at, count);
  r->at += count;
}

/* Skip an unknown value. It must still be whole and within the depth limit. */
static bool skip(struct reader *r, const struct mp_place *place) {
  struct head head;
  if (!read_head(r, &head, place)) return false;
  switch (head.form) {
    case TEXT: case BINARY: case EXTENSION: r->at += head.count; return true;
    case ARRAY: case MAP: {
      if (!enter(r, place)) return false;
      uint64_t values = head.form == MAP ? (uint64_t)head.count * 2 : head.count;
      for (; values > 0; values--)
        if (!skip(r, place)) return false;
      r->depth--;
      return true;
    }
    case NONE: return refuse(r, place, "a value", &head);
    default: return true;
  }
}

static bool read_elements(struct reader *r, uint32_t count, const struct mp_node *of, const struct mp_place *place) {
  if (!enter(r, place)) return false;
  lua_createtable(r->L, (int)(count < INT32_MAX ? count : INT32_MAX), 0);
  for (uint32_t i = 1; i <= count; i++) {
    struct mp_place here = {place, NULL, 0, i};
    if (!read_of(r, of, &here)) return false;
    if (lua_isnil(r->L, -1)) {
      mp_fail(r->error, schema_name(r), &here, "nil inside an array");
      return false;
    }
    lua_rawseti(r->L, -2, i);
  }
  r->depth--;
  return true;
}

/* Push a map's key, and note it in `here`. With a schema only strings are keys. */
static bool read_key(struct reader *r, bool text_only, struct mp_place *here) {
  struct head head;
  if (!read_head(r, &head, here->up)) return false;
  if (head.form == TEXT) {
    here->name = (const char *)r->at;
    here->length = head.count;
    push_bytes(r, head.count);
    return true;
  }
  if (text_only || head.form != INTEGER)
    return refuse(r, here->up, text_only ? "keys that are strings" : "keys that are strings or integers", &head);
  here->index = head.integer;
  lua_pushinteger(r->L, head.integer);
  return true;
}

static bool read_pairs(struct reader *r, uint32_t count, const struct mp_node *of, const struct mp_place *place) {
  lua_State *L = r->L;
  if (!enter(r, place)) return false;
  lua_createtable(L, 0, (int)(count < INT32_MAX ? count : INT32_MAX));
  for (uint32_t i = 0; i < count; i++) {
    struct mp_place here = {place, NULL, 0, 0};
    if (!read_key(r, of != NULL, &here)) return false;
    lua_pushvalue(L, -1);
    if (lua_rawget(L, -3) != LUA_TNIL) {
      mp_fail(r->error, schema_name(r), &here, "this key stands there twice");
      return false;
    }
    lua_pop(L, 1);
    if (!read_of(r, of, &here)) return false;
    if (lua_isnil(L, -1)) {
      mp_fail(r->error, schema_name(r), &here, "nil inside a map");
      return false;
    }
    lua_rawset(L, -3);
  }
  r->depth--;
  return true;
}

static bool push_scalar(struct reader *r, const struct head *head, const struct mp_place *place) {
  switch (head->form) {
    case NIL: lua_pushnil(r->L); return true;
    case BOOLEAN: lua_pushboolean(r->L, head->truth); return true;
    case INTEGER: lua_pushinteger(r->L, head->integer); return true;
    case FLOAT: lua_pushnumber(r->L, head->number); return true;
    case TEXT: case BINARY: push_bytes(r, head->count); return true;
    default: return refuse(r, place, "a value", head);
  }
}

static bool read_any(struct reader *r, const struct mp_place *place) {
  struct head head;
  if (!read_head(r, &head, place)) return false;
  if (head.form == ARRAY) return read_elements(r, head.count, NULL, place);
  if (head.form == MAP) return read_pairs(r, head.count, NULL, place);
  return push_scalar(r, &head, place);
}

/* ---- records ---- */

/* The field that this key names, or -1. Writers keep the declared order, so it is nearly always the next one. */
static int find(const struct reader *r, const struct mp_node *node, uint32_t next, const uint8_t *key,
    uint32_t length) {
  const struct mp_field *fields = &r->schema->fields[node->first];
  for (uint32_t i = 0; i < node->count; i++) {
    uint32_t index = next + i < node->count ? next + i : next + i - node->count;
    if (fields[index].length == length && memcmp(fields[index].name, key, length) == 0) return (int)index;
  }
  return -1;
}

static bool read_field(struct reader *r, const struct mp_node *node, uint32_t index, uint64_t *seen,
                       const struct mp_place *place) {
  const struct mp_field *field = &r->schema->fields[node->first + index];
  struct mp_place here = {place, field->name, field->length, 0};
  if (*seen >> index & 1) {
    mp_fail(r->error, schema_name(r), &here, "this field stands there twice");
    return false;
  }
  *seen |= UINT64_C(1) << index;
  if (r->at < r->end && *r->at == 0xc0) { /* nil counts as absent. */
    if (!field->optional) return refuse(r, &here, "a value", &(struct head){.form = NIL});
    r->at++;
    r->owed--;
    return true;
  }
  lua_rawgeti(r->L, r->names, field->name_index);
  if (!read_node(r, &r->schema->nodes[field->node], &here)) return false;
  lua_rawset(r->L, -3);
  return true;
}

static bool read_record(struct reader *r, uint32_t count, const struct mp_node *node, const struct mp_place *place) {
  if (!enter(r, place)) return false;
  lua_createtable(r->L, 0, (int)(count < node->count ? count : node->count));
  uint64_t seen = 0;
  uint32_t next = 0;
  for (uint32_t i = 0; i < count; i++) {
    struct head key;
    if (!read_head(r, &key, place)) return false;
    if (key.form != TEXT) return refuse(r, place, "keys that are field names", &key);
    int index = find(r, node, next, r->at, key.count);
    r->at += key.count;
    if (index < 0 ? !skip(r, place) : !read_field(r, node, (uint32_t)index, &seen, place)) return false;
    if (index >= 0) next = (uint32_t)index + 1 < node->count ? (uint32_t)index + 1 : 0;
  }
  uint64_t missing = node->required & ~seen;
  if (missing) {
    const struct mp_field *field = &r->schema->fields[node->first + (uint32_t)__builtin_ctzll(missing)];
    struct mp_place here = {place, field->name, field->length, 0};
    mp_fail(r->error, schema_name(r), &here, "missing");
    return false;
  }
  r->depth--;
  return true;
}

static bool read_enum(struct reader *r, const struct mp_node *node, const struct head *head,
    const struct mp_place *place) {
  if (head->form != TEXT) return refuse(r, place, node->words, head);
  for (uint32_t i = 0; i < node->count; i++) {
    const struct mp_field *word = &r->schema->fields[node->first + i];
    if (word->length != head->count || memcmp(word->name, r->at, head->count) != 0) continue;
    lua_rawgeti(r->L, r->names, word->name_index);
    r->at += head->count;
    return true;
  }
  mp_fail(r->error, schema_name(r), place, "expected %s, found \"%.*s\"", node->words,
          (int)(head->count < 40 ? head->count : 40), (const char *)r->at);
  return false;
}

static bool read_node(struct reader *r, const struct mp_node *node, const struct mp_place *place) {
  if (node->kind == MP_ANY) return read_any(r, place);
  struct head head;
  if (!read_head(r, &head, place)) return false;
  enum form form = head.form;
  switch (node->kind) {
    case MP_ANY: break;
    case MP_BOOLEAN: return form == BOOLEAN ? push_scalar(r, &head, place) : refuse(r, place, "boolean", &head);
    case MP_INTEGER: return form == INTEGER ? push_scalar(r, &head, place) : refuse(r, place, "integer", &head);
    case MP_NUMBER: return form == INTEGER || form == FLOAT ? push_scalar(r, &head, place)
        : refuse(r, place, "number", &head);
    case MP_STRING: return form == TEXT ? push_scalar(r, &head, place) : refuse(r, place, "string", &head);
    case MP_BYTES: return form == BINARY ? push_scalar(r, &head, place) : refuse(r, place, "bytes", &head);
    case MP_ENUM: return read_enum(r, node, &head, place);
    case MP_ARRAY:
      if (form != ARRAY) return refuse(r, place, "array", &head);
      return read_elements(r, head.count, &r->schema->nodes[node->of], place);
    case MP_MAP:
      if (form != MAP) return refuse(r, place, "map", &head);
      return read_pairs(r, head.count, &r->schema->nodes[node->of], place);
    case MP_RECORD: return form == MAP ? read_record(r, head.count, node, place) : refuse(r, place, "map", &head);
  }
  return false;
}

static bool run(struct reader *r, const struct mp_node *root) {
  int top = lua_gettop(r->L);
  r->owed = 1;
  bool ok = read_of(r, root, NULL);
  if (ok && r->at != r->end) {
    mp_fail(r->error, schema_name(r), NULL, "%td bytes after the end", r->end - r->at);
    ok = false;
  }
  if (!ok) lua_settop(r->L, top);
  return ok;
}

bool mp_decode(lua_State *L, const struct mp_schema *s, int names, const uint8_t *bytes, size_t length,
               char error[MP_ERROR_MAX]) {
  struct reader r = {.L = L, .schema = s, .names = names, .start = bytes, .at = bytes, .end = bytes + length,
      .error = error};
  return run(&r, &s->nodes[s->root]);
}

bool mp_decode_any(lua_State *L, const uint8_t *bytes, size_t length, char error[MP_ERROR_MAX]) {
  struct reader r = {.L = L, .start = bytes, .at = bytes, .end = bytes + length, .error = error};
  return run(&r, NULL);
}
