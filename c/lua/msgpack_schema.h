/* msgpack_schema: compiled by msgpack.c, used by msgpack_encode.c and msgpack_decode.c.
 *
 * A schema is a record: named fields in a declared order. On the wire a record is a MessagePack map whose keys are the
 * field names, in that order. A field's type is one of
 *
 *   integer             int of MessagePack, exact in 64 bits signed; a uint above 2^63-1 is refused
 *   number              float or int
 *   string · bytes      str · bin
 *   boolean
 *   enum:a|b|c          str, one of these
 *   array:T · map:T     array · map from str to T, keys sorted bytewise
 *   any                 follows the value; see msgpack.c
 *   NAME                a record declared in `types`
 *
 * and ends in "?" when the field may be absent. Reading: fields come in any order, unknown ones are skipped, a repeated one is
 * refused, nil counts as absent. Writing: an unknown key is refused, for a misspelt field would otherwise be lost in silence.
 * Containers nest at most MP_DEPTH_MAX deep, skipped ones included. */
#ifndef MSGPACK_SCHEMA_H
#define MSGPACK_SCHEMA_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  MP_DEPTH_MAX = 16,  /* Nested containers, the body itself being the first. */
  MP_FIELDS_MAX = 64, /* Fields of one record: a reader marks those it saw in a uint64_t. */
  MP_NAME_MAX = 64,   /* Bytes of a field name. */
};

enum mp_kind {
  MP_ANY,
  MP_BOOLEAN,
  MP_INTEGER,
  MP_NUMBER,
  MP_STRING,
  MP_BYTES,
  MP_ENUM,
  MP_ARRAY,
  MP_MAP,
  MP_RECORD,
};

struct mp_field { /* Of a record; or one word of an enum. */
  const char *name; /* Lua's own bytes: the schema's names table holds the string. */
  size_t length;
  int name_index; /* In that table. */
  uint32_t node;  /* Its type. */
  bool optional;
  uint8_t packed[MP_NAME_MAX + 2]; /* The key in its wire form. */
  uint8_t packed_length;
};

struct mp_node {
  enum mp_kind kind;
  uint32_t of;    /* array, map: the type inside. */
  uint32_t first; /* record, enum: the index of its first field. */
  uint32_t count;
  uint64_t required; /* record: a bit a field. */
  const char *words; /* enum: "a|b|c", in the names table too; record: its name. */
};

struct mp_schema {
  struct mp_node *nodes;
  struct mp_field *fields;
  uint32_t nodes_count, nodes_capacity, fields_count, fields_capacity;
  uint32_t root;
  const char *name; /* Put before every message; in the names table. */
};

/* The position in a body, for messages; each step points to the enclosing one. */
struct mp_place {
  const struct mp_place *up;
  const char *name; /* NULL: an element, by `index`. */
  size_t length;
  lua_Integer index;
};

enum { MP_ERROR_MAX = 512 };
/* "SCHEMA: path.of[3].field: text" into `out`, cut to fit; `format` as for printf. Bytes of keys that came from outside
 * are shown as "?" unless printable. */
__attribute__((format(printf, 4, 5))) void mp_fail(char out[MP_ERROR_MAX], const char *schema,
                                                   const struct mp_place *place, const char *format, ...);

struct mp_buffer {
  char *bytes;
  size_t length, capacity;
  bool failed; /* It ran out of memory: its content is incomplete. */
};
/* Drop the content, and also the memory if a large body made it grow. */
void mp_buffer_reset(struct mp_buffer *b);
/* Append; false, and `failed` stays set, when memory ran out. */
bool mp_buffer_add(struct mp_buffer *b, const char *bytes, size_t length);
/* One buffer for any number of calls. A userdata owns it, so that an error in between leaks nothing. */
struct mp_buffer *mp_buffer_push(lua_State *L);

/* Write the value at `index` by the schema's root, whose names table stands at `names`. False: `error` says why. */
bool mp_encode(lua_State *L, const struct mp_schema *s, int names, int index, struct mp_buffer *out,
               char error[MP_ERROR_MAX]);
/* Write the value at `index`, of any type; keys named in the array at `order` (0: none) come first, in that order. */
bool mp_encode_any(lua_State *L, int index, int order, struct mp_buffer *out, char error[MP_ERROR_MAX]);

/* Push the table these bytes hold. False: nothing pushed, `error` says why. */
bool mp_decode(lua_State *L, const struct mp_schema *s, int names, const uint8_t *bytes, size_t length,
               char error[MP_ERROR_MAX]);
bool mp_decode_any(lua_State *L, const uint8_t *bytes, size_t length, char error[MP_ERROR_MAX]);

#endif
