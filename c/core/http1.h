/* http1: HTTP/1 messages from bytes (RFC 9112), and addresses taken apart (RFC 3986). No sockets, no bodies kept: bytes in, events out.
 *
 *   struct http1 p;
 *   http1_init(&p, true, HEAD_MAX, HEADERS_MAX);
 *   do used = http1_feed(&p, bytes, length, &event), bytes += used, length -= used; while (event is HEAD or BODY);
 *
 * States of a message:
 *
 *   START -> HEADERS -> (a 1xx response: START again)
 *               |-----> LENGTH ------------------------------> DONE      Content-Length
 *               |-----> CHUNK_SIZE -> CHUNK_DATA -> CHUNK_END -> ...     Transfer-Encoding: chunked
 *               |                     TRAILERS <-- size 0 ---> DONE
 *               |-----> UNTIL_END -- http1_finish -----------> DONE      a response with neither
 *               |--------------------------------------------> DONE      no body, whatever the headers say: HEAD, 204, 304, 101
 *   any of these -- a problem --> BROKEN, which repeats it
 *
 * The status comes first (RFC 9112, 6.3): only a response that may have a body has its framing headers looked at. Both framings at once
 * is chunked in a response, whose connection then ends, and a problem in a request. */
#ifndef SHOAL_HTTP1_H
#define SHOAL_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Code for programs, text for people. */
#define HTTP1_PROBLEMS(X)                                                                                         \
  X(START, "MALFORMED", "the first line is not that of an HTTP/1 message")                                        \
  X(VERSION, "UNSUPPORTED", "the version is not HTTP/1.0 or HTTP/1.1")                                            \
  X(COLON, "MALFORMED", "a header line has no colon")                                                             \
  X(NAME, "MALFORMED", "a header name is empty or has a byte that no name may have")                              \
  X(VALUE, "MALFORMED", "a header has a zero byte or a bare CR")                                                  \
  X(FOLD, "MALFORMED", "the first header line begins with a blank")                                               \
  X(INTERIM, "MALFORMED", "more than 100 interim (1xx) responses came before the final one")                      \
  X(HEAD_LARGE, "HEAD_TOO_LARGE", "the head is larger than its limit")                                            \
  X(HEADERS_MANY, "HEAD_TOO_LARGE", "there are more headers than the limit")                                      \
  X(LENGTH_FORM, "BAD_LENGTH", "a Content-Length is not a number below 2^63")                                     \
  X(LENGTH_TWICE, "BAD_LENGTH", "there are two different Content-Lengths")                                        \
  X(LENGTH_CHUNKED, "BAD_LENGTH", "a request has both a Content-Length and a Transfer-Encoding")                  \
  X(CODING, "BAD_CODING", "the Transfer-Encoding is not chunked, and no other was asked for")                     \
  X(CHUNK_SIZE, "BAD_CHUNK", "a chunk's size is not a hexadecimal number below 2^63")                             \
  X(CHUNK_END, "BAD_CHUNK", "a chunk's data does not end with a line break")                                      \
  X(CHUNK_EXTENSION, "BAD_CHUNK", "a chunk's extensions are longer than 16 KiB")                                  \
  X(TRAILERS_LARGE, "HEAD_TOO_LARGE", "the trailers are larger than the limit of a head")                         \
  X(TRUNCATED_HEAD, "TRUNCATED", "the connection ended within the head of a message")                             \
  X(TRUNCATED_LENGTH, "TRUNCATED", "the connection ended before the body had its Content-Length")                 \
  X(TRUNCATED_CHUNKS, "TRUNCATED", "the connection ended before the last chunk")                                  \
  X(NO_MEMORY, "MEMORY", "out of memory")

enum http1_problem {
  HTTP1_FINE,
#define HTTP1_ENUM(name, code, text) HTTP1_##name,
  HTTP1_PROBLEMS(HTTP1_ENUM)
#undef HTTP1_ENUM
};

const char *http1_code(enum http1_problem problem);
const char *http1_text(enum http1_problem problem);

enum http1_event {
  HTTP1_MORE, /* All bytes are used; it needs more. */
  HTTP1_HEAD, /* The head is complete: status, names, framing. */
  HTTP1_BODY, /* `body` points to bytes of the body, within the bytes that were fed. */
  HTTP1_DONE, /* The message is complete. The next feed begins another one. */
  HTTP1_BAD,  /* `problem` says why. */
};

enum http1_state {
  HTTP1_STATE_START, HTTP1_STATE_HEADERS, HTTP1_STATE_LENGTH, HTTP1_STATE_CHUNK_SIZE, HTTP1_STATE_CHUNK_EXTENSION,
  HTTP1_STATE_CHUNK_DATA, HTTP1_STATE_CHUNK_END, HTTP1_STATE_TRAILERS, HTTP1_STATE_UNTIL_END, HTTP1_STATE_DONE, HTTP1_STATE_BROKEN,
};

struct http1 {
  /* Settings. `no_body`: the next response answers a HEAD; it is cleared with that response. */
  bool response, no_body;
  size_t head_max, headers_max;
  /* The message: `head` holds method '\0' target '\0' (empty in a response), then name '\0' value '\0' ... with names in lower case and
   * values trimmed. */
  char *head;
  size_t head_length, head_capacity;
  size_t names_from;         /* Where the names begin in `head`. */
  size_t target_from;        /* Of a request. */
  size_t headers_count;
  int status, minor;
  bool keep_alive, chunked, has_length;
  uint64_t length;           /* Of the body, with has_length. */
  bool has_idle;             /* A Keep-Alive header gave a timeout. */
  bool last;                 /* A Keep-Alive header allows no further request: max=0. */
  uint32_t idle_s;
  const char *body;
  size_t body_length;
  enum http1_problem problem;
  enum http1_state state;
  /* Private. */
  size_t line_from;          /* Where the unfinished line begins in `head`. */
  uint64_t left;             /* Bytes of the body, or of the chunk, that are still to come. */
  size_t counted;            /* Hexadecimal digits, extensions or trailers so far. */
  bool blank_line;           /* Of the trailers: nothing but CR so far. */
  bool begun;
  unsigned interims;
};

void http1_init(struct http1 *p, bool response, size_t head_max, size_t headers_max);
void http1_free(struct http1 *p);

/* Use bytes until there is an event. Returns how many were used. */
size_t http1_feed(struct http1 *p, const char *bytes, size_t length, enum http1_event *event);

/* The other side finished: DONE, BAD, or MORE when no message had begun. */
enum http1_event http1_finish(struct http1 *p);

/* Whether bytes of an unfinished message were read. */
static inline bool http1_begun(const struct http1 *p) { return p->begun; }

/* A byte of a token (RFC 9110, 5.6.2): of methods and header names. */
bool http1_token_byte(unsigned char c);

/* ---- addresses ---- */

struct http1_part {
  size_t from, length;
};

struct http1_url {
  struct http1_part scheme, user, host, target; /* host without brackets; target with the query, without the fragment; may lack its "/" */
  bool has_user;
  uint16_t port;  /* 0: none was given. */
};

enum { HTTP1_URL_MAX = 8192 };

/* NULL, or what is wrong. */
const char *http1_url_parse(const char *text, size_t length, struct http1_url *out);

#endif
