/* shoal.core.msgpack: bodies of messages.
 *
 *   compile(fields, types?, name?) -> schema   fields: { {"job", "string"}, {"tags", "map:string?"}, ... }; the grammar of
 *                                              types is msgpack_schema.h's. A mistake in it raises, naming the field.
 *   schema:encode(table) -> bytes | nil, message, "MALFORMED"
 *   schema:decode(bytes) -> table | nil, message, "MALFORMED"
 *   schema:name() -> string
 *   pack(value, order?) -> bytes | nil, message, "MALFORMED"
 *   unpack(bytes) -> value | nil, message, "MALFORMED"
 *
 * pack, and fields of type "any", follow the value: a table with keys 1..n is an array (an empty one too), any other a map with
 * integers or strings as keys, in this order: those named by `order`, then integers, then strings, both sorted. So the same
 * value gives the same bytes in every process. Lua strings become str; str and bin become Lua strings. */
#include "msgpack_schema.h"

#include <lauxlib.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"
#include "lua/modules.h"

static const char *const TYPE = "shoal.msgpack.schema";

enum { NODES_MAX = 4096, TYPE_TEXT_MAX = 512 };

/* ---- the compiler; the schema's userdata owns all its memory, so it may raise anywhere ---- */

struct compiler {
  lua_State *L;
  struct mp_schema *schema;
  int names; /* The table of strings that fields and messages point into. */
  int types; /* The caller's declarations, or 0. */
  int known; /* Table: declared name -> node + 1, so that types can hold themselves. */
};

static const char *keep(struct compiler *c, const char *text, size_t length, int *index) {
  lua_pushlstring(c->L, text, length);
  const char *kept = lua_tostring(c->L, -1);
  int at = (int)lua_rawlen(c->L, c->names) + 1;
  lua_rawseti(c->L, c->names, at);
  if (index) *index = at;
  return kept;
}

static void *grow(lua_State *L, void *array, uint32_t *capacity, uint32_t needed, size_t size) {
  if (needed <= *capacity) return array;
  if (needed > NODES_MAX * 4) luaL_error(L, "msgpack: a schema of more than %d fields", NODES_MAX * 4);
  uint32_t larger = *capacity ? *capacity * 2 : 16;
  while (larger < needed) larger *= 2;
  void *grown = realloc(array, larger * size);
  if (!grown) luaL_error(L, "msgpack: out of memory");
  *capacity = larger;
  return grown;
}

static uint32_t add_node(struct compiler *c, struct mp_node node) {
  struct mp_schema *s = c->schema;
  s->nodes = grow(c->L, s->nodes, &s->nodes_capacity, s->nodes_count + 1, sizeof *s->nodes);
  s->nodes[s->nodes_count] = node;
  return s->nodes_count++;
}

static uint32_t add_fields(struct compiler *c, uint32_t count) {
  struct mp_schema *s = c->schema;
  if (count == 0) return s->fields_count; /* A record without fields: there may be no array yet. */
  s->fields = grow(c->L, s->fields, &s->fields_capacity, s->fields_count + count, sizeof *s->fields);
  memset(s->fields + s->fields_count, 0, count * sizeof *s->fields);
  s->fields_count += count;
  return s->fields_count - count;
}

static int append_packed(void *data, const char *bytes, size_t length) {
  struct mp_field *f = data;
  if (length > sizeof f->packed - f->packed_length) return -1;
  memcpy(f->packed + f->packed_length, bytes, length);
  f->packed_length = (uint8_t)(f->packed_length + length);
  return 0;
}

static void name_field(struct compiler *c, uint32_t index, const char *name, size_t length) {
  if (length == 0 || length > MP_NAME_MAX)
    luaL_error(c->L, "msgpack: a name of 1 to %d bytes expected, found '%s'", MP_NAME_MAX, name);
  int name_index;
  const char *kept = keep(c, name, length, &name_index);
  struct mp_field *f = &c->schema->fields[index];
  f->name = kept;
  f->length = length;
  f->name_index = name_index;
  msgpack_packer packer;
  msgpack_packer_init(&packer, f, append_packed);
  (void)msgpack_pack_str_with_body(&packer, name, length); /* It fits: the length was compared with MP_NAME_MAX. */
}

static uint32_t compile_type(struct compiler *c, const char *text, const char *field);

static uint32_t compile_enum(struct compiler *c, const char *words, const char *field) {
  uint32_t count = 1;
  for (const char *at = words; *at; at++) count += *at == '|';
  if (count > MP_FIELDS_MAX) luaL_error(c->L, "msgpack: %s: more than %d words", field, MP_FIELDS_MAX);
  uint32_t first = add_fields(c, count);
  const char *at = words;
  for (uint32_t i = 0; i < count; i++) {
    size_t length = strcspn(at, "|");
    name_field(c, first + i, at, length);
    at += length + 1;
  }
  const char *kept = keep(c, words, strlen(words), NULL);
  return add_node(c, (struct mp_node){.kind = MP_ENUM, .first = first, .count = count, .words = kept});
}

/* The record whose field list is on top of the stack; pops it. `node` exists already: the record may hold itself. */
static void compile_record(struct compiler *c, uint32_t node, const char *name) {
  lua_State *L = c->L;
  luaL_checkstack(L, 12, "types too deep");
  int list = lua_gettop(L);
  if (!lua_istable(L, list))
    luaL_error(L, "msgpack: %s: a list of fields expected, found %s", name, luaL_typename(L, list));
  size_t count = lua_rawlen(L, list);
  if (count > MP_FIELDS_MAX)
    luaL_error(L, "msgpack: %s has %d fields, %d is the limit", name, (int)count, MP_FIELDS_MAX);
  uint32_t first = add_fields(c, (uint32_t)count);
  uint64_t required = 0;
  for (uint32_t i = 0; i < count; i++) {
    if (lua_rawgeti(L, list, (lua_Integer)i + 1) != LUA_TTABLE || lua_rawgeti(L, -1, 1) != LUA_TSTRING ||
        lua_rawgeti(L, -2, 2) != LUA_TSTRING)
      luaL_error(L, "msgpack: %s: field %d must be { \"name\", \"type\" }", name, (int)i + 1);
    size_t length, text_length;
    const char *field = lua_tolstring(L, -2, &length);
    const char *text = lua_tolstring(L, -1, &text_length);
    for (uint32_t k = 0; k < i; k++)
      if (strcmp(c->schema->fields[first + k].name, field) == 0)
        luaL_error(L, "msgpack: %s: field '%s' is declared twice", name, field);
    name_field(c, first + i, field, length);
    bool optional = text_length > 0 && text[text_length - 1] == '?';
    lua_pushlstring(L, text, text_length - (optional ? 1 : 0));
    uint32_t of = compile_type(c, lua_tostring(L, -1), field); /* May move the arrays. */
    c->schema->fields[first + i].node = of;
    c->schema->fields[first + i].optional = optional;
    if (!optional) required |= UINT64_C(1) << i;
    lua_settop(L, list);
  }
  struct mp_node *n = &c->schema->nodes[node];
  n->first = first;
  n->count = (uint32_t)count;
  n->required = required;
  lua_pop(L, 1);
}

static uint32_t compile_named(struct compiler *c, const char *name, const char *field) {
  lua_State *L = c->L;
  lua_getfield(L, c->known, name);
  uint32_t node = (uint32_t)lua_tointeger(L, -1);
  lua_pop(L, 1);
  if (node) return node - 1;
  if (!c->types || lua_getfield(L, c->types, name) == LUA_TNIL)
    luaL_error(L, "msgpack: %s: there is no type '%s'", field, name);
  node = add_node(c, (struct mp_node){.kind = MP_RECORD});
  const char *kept = keep(c, name, strlen(name), NULL);
  c->schema->nodes[node].words = kept;
  lua_pushinteger(L, (lua_Integer)node + 1);
  lua_setfield(L, c->known, name);
  compile_record(c, node, name);
  return node;
}

static uint32_t compile_type(struct compiler *c, const char *text, const char *field) {
  static const struct {
    const char *name;
    enum mp_kind kind;
  } plain[] = {{"any", MP_ANY}, {"boolean", MP_BOOLEAN}, {"integer", MP_INTEGER}, {"number", MP_NUMBER},
      {"string", MP_STRING}, {"bytes", MP_BYTES}};
  if (c->schema->nodes_count >= NODES_MAX || strlen(text) > TYPE_TEXT_MAX)
    luaL_error(c->L, "msgpack: %s: the type is too large", field);
  luaL_checkstack(c->L, 8, "types too deep");
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
    if (strcmp(text, plain[i].name) == 0) return add_node(c, (struct mp_node){.kind = plain[i].kind});
  if (strncmp(text, "enum:", 5) == 0) return compile_enum(c, text + 5, field);
  bool array = strncmp(text, "array:", 6) == 0;
  if (array || strncmp(text, "map:", 4) == 0) {
    uint32_t of = compile_type(c, text + (array ? 6 : 4), field);
    return add_node(c, (struct mp_node){.kind = array ? MP_ARRAY : MP_MAP, .of = of});
  }
  return compile_named(c, text, field);
}

/* ---- for Lua ---- */

static int refused(lua_State *L, const char *error) {
  lua_pushnil(L);
  lua_pushstring(L, error);
  lua_pushstring(L, error_name(ERR_MALFORMED));
  return 3;
}

static int l_compile(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TTABLE);
  const char *name = luaL_optstring(L, 3, NULL);
  lua_settop(L, 3);
  struct mp_schema *s = lua_newuserdatauv(L, sizeof *s, 1); /* At 4. */
  *s = (struct mp_schema){0};
  luaL_setmetatable(L, TYPE);
  lua_newtable(L); /* At 5: the names. */
  lua_pushvalue(L, 5);
  lua_setiuservalue(L, 4, 1);
  lua_newtable(L); /* At 6: the known types. */
  struct compiler c = {.L = L, .schema = s, .names = 5, .types = lua_isnil(L, 2) ? 0 : 2, .known = 6};
  if (name) s->name = keep(&c, name, strlen(name), NULL);
  s->root = add_node(&c, (struct mp_node){.kind = MP_RECORD});
  lua_pushvalue(L, 1);
  compile_record(&c, s->root, name ? name : "the schema");
  lua_settop(L, 4);
  return 1;
}

static int l_encode(lua_State *L) {
  const struct mp_schema *s = luaL_checkudata(L, 1, TYPE);
  luaL_checkany(L, 2);
  lua_settop(L, 2);
  lua_getiuservalue(L, 1, 1);
  struct mp_buffer *out = lua_touserdata(L, lua_upvalueindex(1));
  char error[MP_ERROR_MAX];
  out->length = 0; /* An error in the last call may have left bytes. */
  out->failed = false;
  if (!mp_encode(L, s, 3, 2, out, error)) return refused(L, error);
  lua_pushlstring(L, out->bytes, out->length);
  mp_buffer_reset(out);
  return 1;
}

static int l_decode(lua_State *L) {
  const struct mp_schema *s = luaL_checkudata(L, 1, TYPE);
  size_t length;
  const char *bytes = luaL_checklstring(L, 2, &length);
  lua_settop(L, 2);
  lua_getiuservalue(L, 1, 1);
  char error[MP_ERROR_MAX];
  if (!mp_decode(L, s, 3, (const uint8_t *)bytes, length, error)) return refused(L, error);
  return 1;
}

static int l_pack(lua_State *L) {
  luaL_checkany(L, 1);
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  struct mp_buffer *out = lua_touserdata(L, lua_upvalueindex(1));
  char error[MP_ERROR_MAX];
  out->length = 0;
  out->failed = false;
  if (!mp_encode_any(L, 1, lua_isnil(L, 2) ? 0 : 2, out, error)) return refused(L, error);
  lua_pushlstring(L, out->bytes, out->length);
  mp_buffer_reset(out);
  return 1;
}

static int l_unpack(lua_State *L) {
  size_t length;
  const char *bytes = luaL_checklstring(L, 1, &length);
  lua_settop(L, 1);
  char error[MP_ERROR_MAX];
  if (!mp_decode_any(L, (const uint8_t *)bytes, length, error)) return refused(L, error);
  return 1;
}

static int l_name(lua_State *L) {
  const struct mp_schema *s = luaL_checkudata(L, 1, TYPE);
  lua_pushstring(L, s->name ? s->name : "");
  return 1;
}

static int l_tostring(lua_State *L) {
  const struct mp_schema *s = luaL_checkudata(L, 1, TYPE);
  lua_pushfstring(L, "%s: %s of %d fields", TYPE, s->name ? s->name : "a record", (int)s->nodes[s->root].count);
  return 1;
}

static int l_gc(lua_State *L) {
  struct mp_schema *s = luaL_checkudata(L, 1, TYPE);
  free(s->nodes);
  free(s->fields);
  *s = (struct mp_schema){0};
  return 0;
}

int luaopen_shoal_core_msgpack(lua_State *L) {
  static const luaL_Reg functions[] = {{"compile", l_compile}, {"unpack", l_unpack}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"decode", l_decode}, {"name", l_name}, {NULL, NULL}};
  static const luaL_Reg metamethods[] = {{"__gc", l_gc}, {"__tostring", l_tostring}, {NULL, NULL}};
  lua_settop(L, 0);
  mp_buffer_push(L); /* At 1: shared by all writers of this state, which never call back into Lua. */
  if (luaL_newmetatable(L, TYPE)) {
    luaL_setfuncs(L, metamethods, 0);
    luaL_newlib(L, methods);
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, l_encode, 1);
    lua_setfield(L, -2, "encode");
    lua_setfield(L, -2, "__index");
  }
  luaL_newlib(L, functions);
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, l_pack, 1);
  lua_setfield(L, -2, "pack");
  return 1;
}
