/* shoal.core.http: HTTP/1 messages from bytes, over Debian's http-parser. It has no sockets: bytes in, messages out.
 *
 *   http.parser("response" | "request", limits?) -> parser     limits: head_bytes, headers, body_bytes
 *   parser:feed(bytes, from?) -> message, next    a whole message; `next` is where the bytes after it begin
 *                             -> false            it needs more
 *                             -> nil, text, code  MALFORMED or TOO_LARGE: nothing more can be read from this connection
 *   parser:finish() -> message | false | nil, text, code       the other side finished; false when no message had begun
 *   parser:expect_no_body()                       the next response answers a HEAD
 *   parser:begun() -> boolean                     bytes of an unfinished message were read
 *   http.url(text) -> scheme, host, port, target | nil, text, code
 *   http.reason(status) -> text
 *
 *   message   { status | method + target, body, keep_alive, minor } and `headers`, made at its first use: names in
 *             lower case; values of a repeated one are joined by ", " (set-cookie: by a newline)
 *
 * States of a parser:
 *              first byte               last byte: pause
 *      IDLE --------------->  READING ------------------->  IDLE      (an interim 1xx response is skipped)
 *                                |
 *                                +--- an error ---> BROKEN: every later feed repeats it
 *
 * While http_parser_execute runs, no Lua is called: its callbacks fill our buffers, which only use malloc. */
#include <http_parser.h>
#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"

int luaopen_shoal_core_http(lua_State *L);

static const char PARSER[] = "shoal.http.parser";
static const char MESSAGE[] = "shoal.http.message";

enum {
  HEAD_BYTES = 32 * 1024,        /* Target, reason and all headers. */
  HEAD_BYTES_MAX = 64 * 1024,    /* http-parser itself stops at 80 KiB. */
  HEADERS = 128,
  BODY_BYTES = 16 * 1024 * 1024,
  KEEP_BYTES = 64 * 1024,        /* A buffer that grew past this is freed after its message. */
};

struct buffer {
  char *bytes;
  size_t length, capacity;
};

static void buffer_free(struct buffer *b) {
  free(b->bytes);
  *b = (struct buffer){0};
}

static bool reserve(struct buffer *b, size_t more) {
  size_t needed = b->length + more;
  if (needed <= b->capacity) return true;
  size_t capacity = b->capacity ? b->capacity : 512;
  while (capacity < needed) capacity *= 2; /* Both terms are bounded by the limits, far below SIZE_MAX. */
  char *grown = realloc(b->bytes, capacity);
  if (!grown) return false;
  b->bytes = grown;
  b->capacity = capacity;
  return true;
}

static bool append(struct buffer *b, const char *bytes, size_t length) {
  if (!reserve(b, length)) return false;
  memcpy(b->bytes + b->length, bytes, length);
  b->length += length;
  return true;
}

enum part { PART_NONE, PART_FIELD, PART_VALUE };

struct parser {
  http_parser http;
  struct buffer head;  /* target '\0', then name '\0' value '\0' ... with names in lower case */
  struct buffer body;
  size_t target_length;
  size_t head_max, headers_max, body_max;
  size_t headers_count;
  enum part last;
  bool head_done;      /* Later fields are trailers, and are skipped. */
  bool begun, complete, keep_alive, no_body;
  int problem;         /* Our own reason to stop, ERR_*; else http-parser's counts. */
  bool broken;
};

static struct parser *self_of(http_parser *http) { return http->data; }

static int stop(struct parser *p, int problem) {
  p->problem = problem;
  return -1;
}

static int on_begin(http_parser *http) {
  struct parser *p = self_of(http);
  p->head.length = p->body.length = p->target_length = p->headers_count = 0;
  p->last = PART_NONE;
  p->head_done = p->complete = false;
  p->begun = true;
  return 0;
}

/* Room in the head for so many bytes and the zero byte after them. */
static int head_room(struct parser *p, size_t length) {
  if (p->head.length + length + 2 > p->head_max) return stop(p, ERR_TOO_LARGE);
  return reserve(&p->head, length + 2) ? 0 : stop(p, ERR_MEMORY);
}

static int on_url(http_parser *http, const char *at, size_t length) {
  struct parser *p = self_of(http);
  if (head_room(p, length) < 0) return -1;
  memcpy(p->head.bytes + p->head.length, at, length);
  p->head.length += length;
  p->target_length += length;
  return 0;
}

static void end_text(struct parser *p) { p->head.bytes[p->head.length++] = '\0'; } /* head_room reserved its place. */

static int on_field(http_parser *http, const char *at, size_t length) {
  struct parser *p = self_of(http);
  if (p->head_done) return 0;
  if (head_room(p, length) < 0) return -1;
  if (p->last != PART_FIELD) {
    end_text(p); /* Of the target (empty in a response) or of the value before. */
    if (++p->headers_count > p->headers_max) return stop(p, ERR_TOO_LARGE);
  }
  p->last = PART_FIELD;
  for (size_t i = 0; i < length; i++) {
    char c = at[i];
    if (c == ' ') return stop(p, ERR_MALFORMED); /* http-parser accepts it, RFC 9112 does not. */
    p->head.bytes[p->head.length++] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
  }
  return 0;
}

static int on_value(http_parser *http, const char *at, size_t length) {
  struct parser *p = self_of(http);
  if (p->head_done) return 0;
  if (head_room(p, length) < 0) return -1;
  if (memchr(at, '\0', length)) return stop(p, ERR_MALFORMED); /* The same; and our head uses zero bytes as separators. */
  if (p->last == PART_FIELD) end_text(p);
  p->last = PART_VALUE;
  memcpy(p->head.bytes + p->head.length, at, length);
  p->head.length += length;
  return 0;
}

static bool interim(const http_parser *http) {
  return http->type == HTTP_RESPONSE && http->status_code / 100 == 1 && http->status_code != 101;
}

static int on_head(http_parser *http) {
  struct parser *p = self_of(http);
  if (head_room(p, 0) < 0) return -1;
  end_text(p);
  p->head_done = true;
  if (http->type == HTTP_RESPONSE && p->no_body && !interim(http)) return 1; /* 1: there is no body, whatever the headers say. */
  if ((http->flags & F_CONTENTLENGTH) && !(http->flags & F_CHUNKED)) {
    if (http->content_length > p->body_max) return stop(p, ERR_TOO_LARGE);
    size_t expected = (size_t)http->content_length;
    if (!reserve(&p->body, expected < KEEP_BYTES ? expected : KEEP_BYTES)) return stop(p, ERR_MEMORY);
  }
  return 0;
}

static int on_body(http_parser *http, const char *at, size_t length) {
  struct parser *p = self_of(http);
  if (length > p->body_max - p->body.length) return stop(p, ERR_TOO_LARGE);
  return append(&p->body, at, length) ? 0 : stop(p, ERR_MEMORY);
}

static int on_complete(http_parser *http) {
  struct parser *p = self_of(http);
  if (interim(http)) return 0; /* The final response follows. */
  p->complete = true;
  p->keep_alive = http_should_keep_alive(http) && !http->upgrade;
  http_parser_pause(http, 1);
  return 0;
}

static const http_parser_settings settings = {
    .on_message_begin = on_begin,
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_head,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

/* ---- to Lua ---- */

static struct parser *check(lua_State *L) { return luaL_checkudata(L, 1, PARSER); }

static size_t limit(lua_State *L, int index, const char *name, size_t fallback, size_t max) {
  if (lua_isnoneornil(L, index)) return fallback;
  luaL_checktype(L, index, LUA_TTABLE);
  lua_getfield(L, index, name);
  lua_Integer value = luaL_optinteger(L, -1, (lua_Integer)fallback);
  lua_pop(L, 1);
  if (value < 1 || (size_t)value > max) luaL_argerror(L, index, lua_pushfstring(L, "%s must be 1 to %I", name, (lua_Integer)max));
  return (size_t)value;
}

static int l_parser(lua_State *L) {
  static const char *const kinds[] = {"request", "response", NULL};
  int kind = luaL_checkoption(L, 1, NULL, kinds);
  size_t head_max = limit(L, 2, "head_bytes", HEAD_BYTES, HEAD_BYTES_MAX);
  size_t headers_max = limit(L, 2, "headers", HEADERS, 1024);
  size_t body_max = limit(L, 2, "body_bytes", BODY_BYTES, (size_t)1 << 30);
  struct parser *p = lua_newuserdatauv(L, sizeof *p, 0);
  *p = (struct parser){.head_max = head_max, .headers_max = headers_max, .body_max = body_max};
  http_parser_init(&p->http, kind == 0 ? HTTP_REQUEST : HTTP_RESPONSE);
  p->http.data = p;
  luaL_setmetatable(L, PARSER);
  return 1;
}

/* The completed message. If Lua runs out of memory here, it stays in the buffers and is overwritten. */
static int push_message(lua_State *L, struct parser *p) {
  bool response = p->http.type == HTTP_RESPONSE;
  lua_createtable(L, 0, 7);
  if (response) {
    lua_pushinteger(L, p->http.status_code);
    lua_setfield(L, -2, "status");
  } else {
    lua_pushstring(L, http_method_str((enum http_method)p->http.method));
    lua_setfield(L, -2, "method");
    lua_pushlstring(L, p->head.bytes, p->target_length);
    lua_setfield(L, -2, "target");
  }
  lua_pushlstring(L, p->body.bytes, p->body.length);
  lua_setfield(L, -2, "body");
  lua_pushboolean(L, p->keep_alive);
  lua_setfield(L, -2, "keep_alive");
  lua_pushinteger(L, p->http.http_minor);
  lua_setfield(L, -2, "minor");
  size_t from = p->target_length + 1;
  lua_pushlstring(L, p->head.bytes + from, p->head.length - from);
  lua_setfield(L, -2, "raw");
  luaL_setmetatable(L, MESSAGE);
  p->begun = p->complete = p->no_body = false;
  if (p->body.capacity > KEEP_BYTES) buffer_free(&p->body);
  return 1;
}

static int push_problem(lua_State *L, struct parser *p) {
  enum http_errno number = HTTP_PARSER_ERRNO(&p->http);
  int code = p->problem ? p->problem : number == HPE_HEADER_OVERFLOW ? ERR_TOO_LARGE : ERR_MALFORMED;
  p->broken = true;
  lua_pushnil(L);
  if (code == ERR_TOO_LARGE) lua_pushfstring(L, "http: the %s is larger than its limit", p->head_done ? "body" : "head");
  else if (p->problem) lua_pushfstring(L, "http: %s", error_text(code));
  else if (number == HPE_OK) lua_pushliteral(L, "http: the connection ended within a message");
  else lua_pushfstring(L, "http: %s", http_errno_description(number));
  lua_pushstring(L, error_name(code));
  return 3;
}

static int l_feed(lua_State *L) {
  struct parser *p = check(L);
  size_t length;
  const char *bytes = luaL_checklstring(L, 2, &length);
  lua_Integer from = luaL_optinteger(L, 3, 1);
  luaL_argcheck(L, from >= 1 && (size_t)from <= length + 1, 3, "outside of the bytes");
  if (p->broken) return push_problem(L, p);
  size_t skip = (size_t)(from - 1);
  if (skip == length) { /* To http-parser no bytes mean the end, which is finish() here. */
    lua_pushboolean(L, 0);
    return 1;
  }
  if (HTTP_PARSER_ERRNO(&p->http) == HPE_PAUSED) http_parser_pause(&p->http, 0);
  size_t read = http_parser_execute(&p->http, &settings, bytes + skip, length - skip);
  if (p->complete && (HTTP_PARSER_ERRNO(&p->http) == HPE_PAUSED || p->http.upgrade)) {
    push_message(L, p);
    lua_pushinteger(L, (lua_Integer)(skip + read + 1));
    return 2;
  }
  if (HTTP_PARSER_ERRNO(&p->http) != HPE_OK || read != length - skip) return push_problem(L, p);
  lua_pushboolean(L, 0);
  return 1;
}

static int l_finish(lua_State *L) {
  struct parser *p = check(L);
  if (p->broken) return push_problem(L, p);
  if (HTTP_PARSER_ERRNO(&p->http) == HPE_PAUSED) http_parser_pause(&p->http, 0);
  (void)http_parser_execute(&p->http, &settings, NULL, 0); /* Its result is in http_errno and in `complete`. */
  if (p->complete) return push_message(L, p);
  if (HTTP_PARSER_ERRNO(&p->http) != HPE_OK) return push_problem(L, p);
  if (p->begun) return push_problem(L, p); /* http-parser accepts the end at some places within a message. */
  lua_pushboolean(L, 0);
  return 1;
}

static int l_expect_no_body(lua_State *L) {
  check(L)->no_body = true;
  return 0;
}

static int l_begun(lua_State *L) {
  lua_pushboolean(L, check(L)->begun);
  return 1;
}

static int l_gc(lua_State *L) {
  struct parser *p = check(L);
  buffer_free(&p->head);
  buffer_free(&p->body);
  return 0;
}

/* raw: name '\0' value '\0' ...; Lua strings end with a zero byte of their own, so no search runs past it. */
static void push_headers(lua_State *L, const char *raw, size_t length) {
  lua_createtable(L, 0, 8);
  const char *at = raw, *end = raw + length;
  while (at < end) {
    const char *name = at;
    size_t name_length = strlen(name);
    const char *value = name + name_length + 1;
    if (value >= end) return;
    size_t value_length = strlen(value);
    at = value + value_length + 1;
    while (value_length > 0 && (value[value_length - 1] == ' ' || value[value_length - 1] == '\t')) value_length--;
    lua_pushlstring(L, name, name_length);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, -3) == LUA_TNIL) {
      lua_pop(L, 1);
      lua_pushlstring(L, value, value_length);
    } else {
      lua_pushstring(L, strcmp(name, "set-cookie") == 0 ? "\n" : ", ");
      lua_pushlstring(L, value, value_length);
      lua_concat(L, 3);
    }
    lua_rawset(L, -3);
  }
}

/* __index of a message: makes `headers`, and stores it in the table. */
static int l_message_index(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_pushliteral(L, "headers");
  if (!lua_rawequal(L, 2, -1)) return 0;
  size_t length = 0;
  lua_pushliteral(L, "raw");
  if (lua_rawget(L, 1) != LUA_TSTRING) return 0;
  const char *raw = lua_tolstring(L, -1, &length);
  push_headers(L, raw, length);
  lua_pushvalue(L, -3); /* "headers" */
  lua_pushvalue(L, -2);
  lua_rawset(L, 1);
  return 1;
}

static void push_field(lua_State *L, const char *text, const struct http_parser_url *u, int field) {
  lua_pushlstring(L, text + u->field_data[field].off, u->field_data[field].len);
}

static int url_problem(lua_State *L, const char *text, const char *what) {
  lua_pushnil(L);
  lua_pushfstring(L, "url %s: %s", text, what);
  lua_pushstring(L, error_name(ERR_MALFORMED));
  return 3;
}

static int l_url(lua_State *L) {
  size_t length;
  const char *text = luaL_checklstring(L, 1, &length);
  struct http_parser_url u;
  http_parser_url_init(&u);
  for (size_t i = 0; i < length; i++)
    if ((unsigned char)text[i] <= ' ' || text[i] == 127) return url_problem(L, "", "holds a blank or a control character");
  if (length > 8192) return url_problem(L, "", "is longer than 8192 bytes");
  if (http_parser_parse_url(text, length, 0, &u) != 0 || !(u.field_set & (1 << UF_SCHEMA)) || !(u.field_set & (1 << UF_HOST)))
    return url_problem(L, text, "expected http://host[:port]/path");
  if (u.field_set & (1 << UF_USERINFO)) return url_problem(L, text, "a user in the address is not supported; send an Authorization header");
  push_field(L, text, &u, UF_SCHEMA);
  push_field(L, text, &u, UF_HOST);
  if (u.field_set & (1 << UF_PORT)) lua_pushinteger(L, u.port);
  else lua_pushinteger(L, u.field_data[UF_SCHEMA].len == 5 ? 443 : 80);
  if (u.field_set & (1 << UF_PATH)) push_field(L, text, &u, UF_PATH);
  else lua_pushliteral(L, "/");
  if (u.field_set & (1 << UF_QUERY)) {
    lua_pushliteral(L, "?");
    push_field(L, text, &u, UF_QUERY);
    lua_concat(L, 3);
  }
  return 4;
}

static int l_reason(lua_State *L) {
  lua_pushstring(L, http_status_str((enum http_status)luaL_checkinteger(L, 1)));
  return 1;
}

__attribute__((visibility("default"))) int luaopen_shoal_core_http(lua_State *L) {
  static const luaL_Reg functions[] = {{"parser", l_parser}, {"url", l_url}, {"reason", l_reason}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"feed", l_feed},   {"finish", l_finish}, {"expect_no_body", l_expect_no_body},
                                     {"begun", l_begun}, {NULL, NULL}};
  luaL_newmetatable(L, PARSER);
  lua_pushcfunction(L, l_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  luaL_newmetatable(L, MESSAGE);
  lua_pushcfunction(L, l_message_index);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 2);
  luaL_newlib(L, functions);
  return 1;
}
