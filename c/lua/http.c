/* shoal.core.http: HTTP/1 messages from bytes, over core/http1. It has no sockets: bytes in, messages out.
 *
 *   http.parser("response" | "request", limits?) -> parser     limits: head_bytes, headers, body_bytes
 *   parser:feed(bytes, from?) -> message, next    a whole message; `next` is where the bytes after it begin
 *                             -> false            it needs more
 *                             -> nil, text, code  nothing more can be read from this connection; codes below
 *   parser:finish() -> message | false | nil, text, code       the other side finished; false when no message had begun
 *   parser:expect(no_body, body?, body_bytes?)    for the next message: it answers a HEAD; `body` is "keep" (the default), "discard", or
 *                                                 "pieces" (taken by parser:take()); body_bytes is its limit, 0 for none
 *   parser:take() -> bytes                        the bytes of the body so far that were not taken
 *   parser:head() -> message | nil                the message under way once its head is complete, without its body
 *   parser:begun() -> boolean                     bytes of an unfinished message were read
 *   http.url(text) -> scheme, host, port, target, user | nil, text, code    scheme and host in lower case, the port by default,
 *                                                                           user ("name:password") only where there is one
 *   http.reason(status) -> text | nil
 *   http.token(text) -> boolean                   whether it may be a method or a header's name
 *
 *   message   { status | method + target, body, body_bytes, keep_alive, minor, idle_s (false without a Keep-Alive header) }; `headers`,
 *             made at its first use, is found by any case of a name and lists names in lower case; values of a repeated one are joined by
 *             ", ", but set-cookie is a list; message:values(name) lists them for any name
 *   codes     MALFORMED, UNSUPPORTED (another version), HEAD_TOO_LARGE, TOO_LARGE (the body), BAD_LENGTH, BAD_CODING, BAD_CHUNK, TRUNCATED
 *
 * No Lua is called while bytes are read. */
#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"
#include "core/http1.h"

int luaopen_shoal_core_http(lua_State *L);

static const char PARSER[] = "shoal.http.parser";
static const char MESSAGE[] = "shoal.http.message";
static const char HEADERS[] = "shoal.http.headers";

enum {
  HEAD_BYTES = 256 * 1024, /* All headers, and a request's method and target. */
  HEAD_BYTES_MAX = 1024 * 1024,
  HEADERS_COUNT = 1000,
  HEADERS_COUNT_MAX = 10000,
  BODY_BYTES = 16 * 1024 * 1024,
  KEEP_BYTES = 64 * 1024, /* A buffer that grew past this is freed after its message. */
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

enum body { BODY_KEEP, BODY_DISCARD, BODY_PIECES };

struct parser {
  struct http1 http;
  enum body mode;
  struct buffer body;
  const char *span; /* A first piece of the body that was not copied yet: often it is all of it. */
  size_t span_length;
  uint64_t body_read;
  size_t body_default, body_max; /* 0: no limit. */
  bool head_seen;
  int problem; /* ERR_TOO_LARGE (the body) or ERR_MEMORY; else http1's counts. */
  bool broken;
};

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
  size_t headers_max = limit(L, 2, "headers", HEADERS_COUNT, HEADERS_COUNT_MAX);
  size_t body_max = limit(L, 2, "body_bytes", BODY_BYTES, (size_t)1 << 40);
  struct parser *p = lua_newuserdatauv(L, sizeof *p, 0);
  *p = (struct parser){.body_default = body_max, .body_max = body_max};
  http1_init(&p->http, kind == 1, head_max, headers_max);
  luaL_setmetatable(L, PARSER);
  return 1;
}

/* ---- messages to Lua ---- */

/* The head as a message, without its body. */
static void push_head(lua_State *L, struct parser *p) {
  struct http1 *h = &p->http;
  lua_createtable(L, 0, 8);
  if (h->response) {
    lua_pushinteger(L, h->status);
    lua_setfield(L, -2, "status");
  } else {
    lua_pushstring(L, h->head);
    lua_setfield(L, -2, "method");
    lua_pushstring(L, h->head + h->target_from);
    lua_setfield(L, -2, "target");
  }
  lua_pushboolean(L, h->keep_alive);
  lua_setfield(L, -2, "keep_alive");
  lua_pushinteger(L, h->minor);
  lua_setfield(L, -2, "minor");
  lua_pushlstring(L, h->head_length ? h->head + h->names_from : "", h->head_length - h->names_from);
  lua_setfield(L, -2, "raw");
  if (h->has_idle) lua_pushinteger(L, h->idle_s);
  else lua_pushboolean(L, 0); /* Not nil, which would call __index. */
  lua_setfield(L, -2, "idle_s");
  luaL_setmetatable(L, MESSAGE);
}

/* The completed message. If Lua runs out of memory here, it stays in the buffers and is overwritten. */
static int push_message(lua_State *L, struct parser *p) {
  push_head(L, p);
  if (p->span) lua_pushlstring(L, p->span, p->span_length);
  else lua_pushlstring(L, p->body.length ? p->body.bytes : "", p->body.length);
  lua_setfield(L, -2, "body");
  lua_pushinteger(L, (lua_Integer)p->body_read);
  lua_setfield(L, -2, "body_bytes");
  p->span = NULL;
  p->body.length = 0;
  p->body_read = 0;
  p->head_seen = false;
  p->mode = BODY_KEEP;
  p->body_max = p->body_default;
  if (p->body.capacity > KEEP_BYTES) buffer_free(&p->body);
  return 1;
}

static int push_problem(lua_State *L, struct parser *p) {
  p->broken = true;
  lua_pushnil(L);
  if (p->problem == ERR_TOO_LARGE) {
    lua_pushfstring(L, "http: the body is larger than its limit of %I bytes", (lua_Integer)p->body_max);
    lua_pushstring(L, error_name(p->problem));
  } else if (p->problem) {
    lua_pushfstring(L, "http: %s", error_text(p->problem));
    lua_pushstring(L, error_name(p->problem));
  } else {
    lua_pushfstring(L, "http: %s", http1_text(p->http.problem));
    lua_pushstring(L, http1_code(p->http.problem));
  }
  return 3;
}

static bool keep_span(struct parser *p) {
  if (!p->span) return true;
  const char *span = p->span;
  p->span = NULL;
  return append(&p->body, span, p->span_length);
}

/* A piece of the body. Returns 0 or ERR_*. */
static int on_body(struct parser *p) {
  size_t length = p->http.body_length;
  if (p->body_max && length > p->body_max - p->body_read) return ERR_TOO_LARGE;
  p->body_read += length;
  if (p->mode == BODY_DISCARD) return 0;
  if (p->body.length == 0 && !p->span) {
    p->span = p->http.body;
    p->span_length = length;
    return 0;
  }
  return keep_span(p) && append(&p->body, p->http.body, length) ? 0 : ERR_MEMORY;
}

static int on_head(struct parser *p) {
  p->head_seen = true;
  return p->body_max && p->http.has_length && p->http.length > p->body_max ? ERR_TOO_LARGE : 0;
}

/* Feed until the message is complete, needs more, or is broken. */
static size_t run(struct parser *p, const char *bytes, size_t length, enum http1_event *event) {
  size_t used = 0;
  do {
    used += http1_feed(&p->http, bytes + used, length - used, event);
    if (*event == HTTP1_HEAD) p->problem = on_head(p);
    else if (*event == HTTP1_BODY) p->problem = on_body(p);
    if (p->problem) *event = HTTP1_BAD;
  } while (*event == HTTP1_HEAD || *event == HTTP1_BODY);
  return used;
}

static int l_feed(lua_State *L) {
  struct parser *p = check(L);
  size_t length;
  const char *bytes = luaL_checklstring(L, 2, &length);
  lua_Integer from = luaL_optinteger(L, 3, 1);
  luaL_argcheck(L, from >= 1 && (size_t)from <= length + 1, 3, "outside of the bytes");
  if (p->broken) return push_problem(L, p);
  size_t skip = (size_t)(from - 1);
  if (skip == length) {
    lua_pushboolean(L, 0);
    return 1;
  }
  enum http1_event event;
  size_t used = run(p, bytes + skip, length - skip, &event);
  if (event == HTTP1_DONE) {
    push_message(L, p);
    lua_pushinteger(L, (lua_Integer)(skip + used + 1));
    return 2;
  }
  if (event == HTTP1_MORE && !keep_span(p)) { /* The bytes are Lua's: they do not outlive this call. */
    p->problem = ERR_MEMORY;
    event = HTTP1_BAD;
  }
  p->span = NULL;
  if (event == HTTP1_BAD) return push_problem(L, p);
  lua_pushboolean(L, 0);
  return 1;
}

static int l_finish(lua_State *L) {
  struct parser *p = check(L);
  if (p->broken) return push_problem(L, p);
  switch (http1_finish(&p->http)) {
    case HTTP1_DONE: return push_message(L, p);
    case HTTP1_BAD: return push_problem(L, p);
    default: lua_pushboolean(L, 0); return 1;
  }
}

static int l_expect(lua_State *L) {
  static const char *const modes[] = {"keep", "discard", "pieces", NULL};
  struct parser *p = check(L);
  p->http.no_body = lua_toboolean(L, 2);
  p->mode = (enum body)luaL_checkoption(L, 3, "keep", modes);
  lua_Integer max = luaL_optinteger(L, 4, (lua_Integer)p->body_default);
  luaL_argcheck(L, max >= 0, 4, "expected a limit, or 0 for none");
  p->body_max = (size_t)max;
  return 0;
}

static int l_take(lua_State *L) {
  struct parser *p = check(L);
  lua_pushlstring(L, p->body.length ? p->body.bytes : "", p->body.length);
  p->body.length = 0;
  return 1;
}

static int l_head(lua_State *L) {
  struct parser *p = check(L);
  if (!p->head_seen) return 0;
  push_head(L, p);
  return 1;
}

static int l_begun(lua_State *L) {
  lua_pushboolean(L, http1_begun(&check(L)->http));
  return 1;
}

static int l_gc(lua_State *L) {
  struct parser *p = check(L);
  buffer_free(&p->body);
  http1_free(&p->http);
  return 0;
}

/* ---- headers ---- */

/* raw: name '\0' value '\0' ...; Lua strings end with a zero byte of their own, so no search runs past it. */
struct header {
  const char *name, *value;
  size_t name_length, value_length;
};

static bool next_header(const char **at, const char *end, struct header *out) {
  if (*at >= end) return false;
  out->name = *at;
  out->name_length = strlen(out->name);
  out->value = out->name + out->name_length + 1;
  if (out->value >= end) return false;
  out->value_length = strlen(out->value);
  *at = out->value + out->value_length + 1;
  return true;
}

static void push_headers(lua_State *L, const char *raw, size_t length) {
  lua_createtable(L, 0, 8);
  const char *at = raw, *end = raw + length;
  struct header h;
  while (next_header(&at, end, &h)) {
    lua_pushlstring(L, h.name, h.name_length);
    lua_pushvalue(L, -1);
    int found = lua_rawget(L, -3);
    if (h.name_length == 10 && memcmp(h.name, "set-cookie", 10) == 0) { /* Its values hold commas (RFC 9110, 5.3). */
      if (found == LUA_TNIL) {
        lua_pop(L, 1);
        lua_createtable(L, 2, 0);
      }
      lua_pushlstring(L, h.value, h.value_length);
      lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    } else if (found == LUA_TNIL) {
      lua_pop(L, 1);
      lua_pushlstring(L, h.value, h.value_length);
    } else {
      lua_pushliteral(L, ", ");
      lua_pushlstring(L, h.value, h.value_length);
      lua_concat(L, 3);
    }
    lua_rawset(L, -3);
  }
  luaL_setmetatable(L, HEADERS);
}

/* The text at `index` in lower case, pushed. */
static void push_lower(lua_State *L, int index) {
  size_t length;
  const char *text = lua_tolstring(L, index, &length);
  luaL_Buffer b;
  char *out = luaL_buffinitsize(L, &b, length);
  for (size_t i = 0; i < length; i++) out[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] | 0x20) : text[i];
  luaL_pushresultsize(&b, length);
}

/* __index of headers: the name in lower case. */
static int l_headers_index(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  push_lower(L, 2);
  lua_rawget(L, 1);
  return 1;
}

static const char *raw_of(lua_State *L, size_t *length) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_pushliteral(L, "raw");
  return lua_rawget(L, 1) == LUA_TSTRING ? lua_tolstring(L, -1, length) : NULL;
}

/* message:values(name) -> list */
static int l_values(lua_State *L) {
  luaL_checktype(L, 2, LUA_TSTRING);
  size_t length = 0, name_length;
  const char *raw = raw_of(L, &length);
  push_lower(L, 2);
  const char *name = lua_tolstring(L, -1, &name_length);
  lua_newtable(L);
  if (!raw) return 1;
  const char *at = raw, *end = raw + length;
  struct header h;
  lua_Integer n = 0;
  while (next_header(&at, end, &h)) {
    if (h.name_length != name_length || memcmp(h.name, name, name_length) != 0) continue;
    lua_pushlstring(L, h.value, h.value_length);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* __index of a message: makes `headers`, and stores it in the table. */
static int l_message_index(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_pushliteral(L, "values");
  if (lua_rawequal(L, 2, -1)) {
    lua_pushcfunction(L, l_values);
    return 1;
  }
  lua_pushliteral(L, "headers");
  if (!lua_rawequal(L, 2, -1)) return 0;
  size_t length = 0;
  const char *raw = raw_of(L, &length);
  if (!raw) return 0;
  push_headers(L, raw, length);
  lua_pushliteral(L, "headers");
  lua_pushvalue(L, -2);
  lua_rawset(L, 1);
  return 1;
}

/* ---- the rest ---- */

static void push_part(lua_State *L, const char *text, struct http1_part part) { lua_pushlstring(L, text + part.from, part.length); }

static void push_lower_part(lua_State *L, const char *text, struct http1_part part) {
  push_part(L, text, part);
  push_lower(L, -1);
  lua_remove(L, -2);
}

static int l_url(lua_State *L) {
  size_t length;
  const char *text = luaL_checklstring(L, 1, &length);
  struct http1_url u;
  const char *problem = http1_url_parse(text, length, &u);
  if (problem) {
    lua_pushnil(L);
    if (length <= 200) lua_pushfstring(L, "url %s: %s", text, problem);
    else lua_pushfstring(L, "url: %s", problem);
    lua_pushstring(L, error_name(ERR_MALFORMED));
    return 3;
  }
  push_lower_part(L, text, u.scheme);
  push_lower_part(L, text, u.host);
  lua_pushinteger(L, u.port ? u.port : u.scheme.length == 5 ? 443 : 80);
  if (u.target.length == 0 || text[u.target.from] != '/') {
    lua_pushliteral(L, "/");
    push_part(L, text, u.target);
    lua_concat(L, 2);
  } else {
    push_part(L, text, u.target);
  }
  if (!u.has_user) return 4;
  push_part(L, text, u.user);
  return 5;
}

static const struct {
  int status;
  const char *text;
} reasons[] = {
    {100, "Continue"}, {101, "Switching Protocols"}, {103, "Early Hints"}, {200, "OK"}, {201, "Created"}, {202, "Accepted"},
    {203, "Non-Authoritative Information"}, {204, "No Content"}, {205, "Reset Content"}, {206, "Partial Content"},
    {300, "Multiple Choices"}, {301, "Moved Permanently"}, {302, "Found"}, {303, "See Other"}, {304, "Not Modified"},
    {307, "Temporary Redirect"}, {308, "Permanent Redirect"}, {400, "Bad Request"}, {401, "Unauthorized"}, {402, "Payment Required"},
    {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"}, {406, "Not Acceptable"}, {408, "Request Timeout"},
    {409, "Conflict"}, {410, "Gone"}, {411, "Length Required"}, {412, "Precondition Failed"}, {413, "Content Too Large"},
    {414, "URI Too Long"}, {415, "Unsupported Media Type"}, {416, "Range Not Satisfiable"}, {417, "Expectation Failed"},
    {421, "Misdirected Request"}, {422, "Unprocessable Content"}, {425, "Too Early"}, {426, "Upgrade Required"},
    {428, "Precondition Required"}, {429, "Too Many Requests"}, {431, "Request Header Fields Too Large"},
    {451, "Unavailable For Legal Reasons"}, {500, "Internal Server Error"}, {501, "Not Implemented"}, {502, "Bad Gateway"},
    {503, "Service Unavailable"}, {504, "Gateway Timeout"}, {505, "HTTP Version Not Supported"}};

static int l_reason(lua_State *L) {
  lua_Integer status = luaL_checkinteger(L, 1);
  for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
    if (reasons[i].status == status) return lua_pushstring(L, reasons[i].text), 1;
  return 0;
}

static int l_token(lua_State *L) {
  size_t length, i = 0;
  const char *text = luaL_checklstring(L, 1, &length);
  while (i < length && http1_token_byte((unsigned char)text[i])) i++;
  lua_pushboolean(L, length > 0 && i == length);
  return 1;
}

static void class_of(lua_State *L, const char *name, lua_CFunction index) {
  luaL_newmetatable(L, name);
  lua_pushcfunction(L, index);
  lua_setfield(L, -2, "__index");
  lua_pushboolean(L, 0); /* Scripts see these tables, but not what makes them. */
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
}

__attribute__((visibility("default"))) int luaopen_shoal_core_http(lua_State *L) {
  static const luaL_Reg functions[] = {{"parser", l_parser}, {"url", l_url}, {"reason", l_reason}, {"token", l_token}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"feed", l_feed}, {"finish", l_finish}, {"expect", l_expect}, {"take", l_take},
                                     {"head", l_head}, {"begun", l_begun}, {NULL, NULL}};
  luaL_newmetatable(L, PARSER);
  lua_pushcfunction(L, l_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  class_of(L, MESSAGE, l_message_index);
  class_of(L, HEADERS, l_headers_index);
  luaL_newlib(L, functions);
  return 1;
}
