#include "core/http1.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { INTERIMS_MAX = 100, EXTENSIONS_MAX = 16 * 1024, HEX_MAX = 16 };

static const struct {
  const char *code, *text;
} problems[] = {
    {"", ""},
#define ENTRY(name, code, text) {code, text},
    HTTP1_PROBLEMS(ENTRY)
#undef ENTRY
};

const char *http1_code(enum http1_problem problem) { return problems[problem].code; }
const char *http1_text(enum http1_problem problem) { return problems[problem].text; }

/* 1: a token byte; the value of `lower` is its lower case. */
static const unsigned char lower[256] = {
    ['!'] = '!', ['#'] = '#', ['$'] = '$', ['%'] = '%', ['&'] = '&', ['\''] = '\'', ['*'] = '*', ['+'] = '+', ['-'] = '-', ['.'] = '.',
    ['^'] = '^', ['_'] = '_', ['`'] = '`', ['|'] = '|', ['~'] = '~',
    ['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4', ['5'] = '5', ['6'] = '6', ['7'] = '7', ['8'] = '8', ['9'] = '9',
    ['a'] = 'a', ['b'] = 'b', ['c'] = 'c', ['d'] = 'd', ['e'] = 'e', ['f'] = 'f', ['g'] = 'g', ['h'] = 'h', ['i'] = 'i', ['j'] = 'j',
    ['k'] = 'k', ['l'] = 'l', ['m'] = 'm', ['n'] = 'n', ['o'] = 'o', ['p'] = 'p', ['q'] = 'q', ['r'] = 'r', ['s'] = 's', ['t'] = 't',
    ['u'] = 'u', ['v'] = 'v', ['w'] = 'w', ['x'] = 'x', ['y'] = 'y', ['z'] = 'z',
    ['A'] = 'a', ['B'] = 'b', ['C'] = 'c', ['D'] = 'd', ['E'] = 'e', ['F'] = 'f', ['G'] = 'g', ['H'] = 'h', ['I'] = 'i', ['J'] = 'j',
    ['K'] = 'k', ['L'] = 'l', ['M'] = 'm', ['N'] = 'n', ['O'] = 'o', ['P'] = 'p', ['Q'] = 'q', ['R'] = 'r', ['S'] = 's', ['T'] = 't',
    ['U'] = 'u', ['V'] = 'v', ['W'] = 'w', ['X'] = 'x', ['Y'] = 'y', ['Z'] = 'z'};

bool http1_token_byte(unsigned char c) { return lower[c] != 0; }

static bool is_blank(char c) { return c == ' ' || c == '\t'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

void http1_init(struct http1 *p, bool response, size_t head_max, size_t headers_max) {
  *p = (struct http1){.response = response, .head_max = head_max, .headers_max = headers_max};
}

void http1_free(struct http1 *p) { free(p->head); }

static void begin(struct http1 *p) {
  p->head_length = p->line_from = p->names_from = p->target_from = p->headers_count = p->counted = 0;
  p->status = 0;
  p->chunked = p->has_length = p->has_idle = p->last = p->keep_alive = false;
  p->state = HTTP1_STATE_START;
}

static enum http1_event bad(struct http1 *p, enum http1_problem problem) {
  p->problem = problem;
  p->state = HTTP1_STATE_BROKEN;
  return HTTP1_BAD;
}

static enum http1_event done(struct http1 *p) {
  p->state = HTTP1_STATE_DONE;
  p->begun = p->no_body = false;
  p->interims = 0;
  return HTTP1_DONE;
}

/* ---- the first line ---- */

/* "HTTP/1.x" at `at`: 1; another version: 0; else -1. */
static int version_at(struct http1 *p, const char *at, size_t length) {
  if (length < 8 || memcmp(at, "HTTP/", 5) != 0 || !is_digit(at[5])) return -1;
  if (at[6] != '.' || !is_digit(at[7]) || at[5] != '1') return 0;
  p->minor = at[7] - '0';
  return 1;
}

/* status-line = HTTP-version SP status-code SP [ reason-phrase ]; the last SP is often missing. */
static enum http1_problem status_line(struct http1 *p, const char *line, size_t length) {
  int version = version_at(p, line, length);
  if (version <= 0) return length >= 6 && version == 0 ? HTTP1_VERSION : HTTP1_START;
  if (length < 12 || line[8] != ' ' || !is_digit(line[9]) || !is_digit(line[10]) || !is_digit(line[11])) return HTTP1_START;
  if (length > 12 && line[12] != ' ') return HTTP1_START;
  p->status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + line[11] - '0';
  if (p->status < 100) return HTTP1_START;
  p->head_length = p->line_from = p->names_from = 0; /* Nobody reads the reason. */
  return HTTP1_FINE;
}

/* request-line = method SP request-target SP HTTP-version */
static enum http1_problem request_line(struct http1 *p, char *line, size_t length) {
  char *end = line + length, *space = memchr(line, ' ', length);
  if (!space || space == line) return HTTP1_START;
  for (char *c = line; c < space; c++)
    if (!lower[(unsigned char)*c]) return HTTP1_START;
  char *target = space + 1, *second = memchr(target, ' ', (size_t)(end - target));
  if (!second || second == target) return HTTP1_START;
  for (char *c = target; c < second; c++)
    if ((unsigned char)*c < ' ' || *c == 127) return HTTP1_START;
  int version = (end - second) == 9 ? version_at(p, second + 1, 8) : -1;
  if (version <= 0) return version == 0 ? HTTP1_VERSION : HTTP1_START;
  *space = *second = '\0';
  p->target_from = (size_t)(target - p->head);
  p->head_length = p->line_from = p->names_from = (size_t)(second + 1 - p->head);
  return HTTP1_FINE;
}

/* ---- headers ---- */

/* name ":" OWS value OWS: becomes name '\0' value '\0' in its place, which is never longer: the colon and the line break go. */
static enum http1_problem header_line(struct http1 *p, char *line, size_t length) {
  char *end = line + length, *out = line, *at = line;
  if (is_blank(*line)) { /* obs-fold: the value before goes on, with one blank between (RFC 9112, 5.2). */
    if (p->headers_count == 0) return HTTP1_FOLD;
    while (at < end && is_blank(*at)) at++;
    while (end > at && is_blank(end[-1])) end--;
    if (at == end) {
      p->head_length = p->line_from;
      return HTTP1_FINE;
    }
    if (out - p->head >= 2 && out[-2] == '\0') out--; /* The value before is empty: this is all of it. */
    else out[-1] = ' ';
  } else {
    while (at < end && lower[(unsigned char)*at]) {
      *at = (char)lower[(unsigned char)*at];
      at++;
    }
    if (at == end) return HTTP1_COLON;
    if (*at != ':') return memchr(at, ':', (size_t)(end - at)) ? HTTP1_NAME : HTTP1_COLON;
    if (at == line) return HTTP1_NAME;
    if (++p->headers_count > p->headers_max) return HTTP1_HEADERS_MANY;
    *at++ = '\0';
    out = at;
    while (at < end && is_blank(*at)) at++;
    while (end > at && is_blank(end[-1])) end--;
  }
  size_t value = (size_t)(end - at);
  if (memchr(at, '\0', value) || memchr(at, '\r', value)) return HTTP1_VALUE;
  memmove(out, at, value);
  out[value] = '\0'; /* There is room: at least the line's LF stood behind. */
  p->head_length = p->line_from = (size_t)(out + value + 1 - p->head);
  return HTTP1_FINE;
}

/* The next element of a comma-separated list, trimmed; false at the end. */
static bool element(const char **at, const char **out, size_t *length) {
  const char *from = *at;
  while (*from == ',' || is_blank(*from)) from++;
  if (!*from) return false;
  const char *end = from;
  while (*end && *end != ',') end++;
  *at = end;
  while (end > from && is_blank(end[-1])) end--;
  *out = from;
  *length = (size_t)(end - from);
  return true;
}

static bool is_word(const char *text, size_t length, const char *word) {
  return strlen(word) == length && strncasecmp(text, word, length) == 0;
}

static enum http1_problem content_length(struct http1 *p, const char *value) {
  const char *text;
  size_t length, elements = 0;
  while (element(&value, &text, &length)) { /* A list of equal numbers is one number (RFC 9110, 8.6). */
    uint64_t number = 0;
    for (size_t i = 0; i < length; i++) {
      if (!is_digit(text[i]) || number > (uint64_t)INT64_MAX / 10 - 1) return HTTP1_LENGTH_FORM;
      number = number * 10 + (uint64_t)(text[i] - '0');
    }
    if (p->has_length && number != p->length) return HTTP1_LENGTH_TWICE;
    p->has_length = true;
    p->length = number;
    elements++;
  }
  return elements ? HTTP1_FINE : HTTP1_LENGTH_FORM;
}

struct said {
  bool close, keep_alive, identity, other_coding;
};

static void connection(struct said *said, const char *value) {
  const char *text;
  size_t length;
  while (element(&value, &text, &length)) {
    said->close |= is_word(text, length, "close");
    said->keep_alive |= is_word(text, length, "keep-alive");
  }
}

static void transfer_encoding(struct http1 *p, struct said *said, const char *value) {
  const char *text;
  size_t length;
  while (element(&value, &text, &length)) {
    if (is_word(text, length, "identity")) { /* No coding, in RFC 2616; but not chunked either. */
      said->identity = true;
      continue;
    }
    if (p->chunked || !is_word(text, length, "chunked")) said->other_coding = true;
    p->chunked = true;
  }
}

/* Keep-Alive: timeout=5, max=100 */
static void keep_alive_hints(struct http1 *p, const char *value) {
  const char *text;
  size_t length;
  while (element(&value, &text, &length)) {
    if (length > 8 && strncasecmp(text, "timeout=", 8) == 0 && is_digit(text[8])) {
      unsigned long seconds = strtoul(text + 8, NULL, 10);
      p->has_idle = true;
      p->idle_s = seconds > 1000000 ? 1000000 : (uint32_t)seconds;
    } else if (is_word(text, length, "max=0")) {
      p->last = true;
    }
  }
}

/* Read the headers that frame the message. Few names have these lengths, so most headers cost one comparison. */
static enum http1_problem framing(struct http1 *p, struct said *said, bool body_possible) {
  const char *at = p->head + p->names_from, *end = p->head + p->head_length;
  while (at < end) {
    size_t length = strlen(at);
    const char *name = at, *value = at + length + 1;
    at = value + strlen(value) + 1;
    if (length == 10 && name[0] == 'c' && memcmp(name, "connection", 10) == 0) connection(said, value);
    else if (length == 10 && name[0] == 'k' && memcmp(name, "keep-alive", 10) == 0) keep_alive_hints(p, value);
    else if (length == 17 && memcmp(name, "transfer-encoding", 17) == 0) transfer_encoding(p, said, value);
    else if (length == 14 && body_possible && memcmp(name, "content-length", 14) == 0) {
      enum http1_problem problem = content_length(p, value);
      if (problem) return problem;
    }
  }
  return HTTP1_FINE;
}

static enum http1_event head_done(struct http1 *p) {
  if (p->response && p->status / 100 == 1 && p->status != 101) {
    if (++p->interims > INTERIMS_MAX) return bad(p, HTTP1_INTERIM);
    begin(p);
    return HTTP1_MORE;
  }
  bool body_possible = !(p->response && (p->no_body || p->status == 204 || p->status == 304 || p->status == 101));
  struct said said = {0};
  enum http1_problem problem = framing(p, &said, body_possible);
  if (problem) return bad(p, problem);
  p->keep_alive = !said.close && !p->last && (p->minor >= 1 || said.keep_alive) && p->status != 101;
  if (!body_possible) {
    p->chunked = false;
    p->state = HTTP1_STATE_LENGTH;
    p->left = 0;
    return HTTP1_HEAD;
  }
  if (said.other_coding || (said.identity && !p->response)) return bad(p, HTTP1_CODING);
  if (p->chunked) {
    if (p->has_length && !p->response) return bad(p, HTTP1_LENGTH_CHUNKED);
    if (p->has_length || p->minor == 0) p->keep_alive = false; /* RFC 9112, 6.1: the framing cannot be trusted twice. */
    p->has_length = false;
    p->state = HTTP1_STATE_CHUNK_SIZE;
    p->left = p->counted = 0;
  } else if ((p->has_length && !said.identity) || !p->response) {
    p->state = HTTP1_STATE_LENGTH;
    p->left = p->has_length ? p->length : 0;
  } else { /* Also with a Transfer-Encoding that does not end with chunked (RFC 9112, 6.3, 4.1). */
    p->state = HTTP1_STATE_UNTIL_END;
    p->keep_alive = p->has_length = false;
  }
  return HTTP1_HEAD;
}

/* A whole line stands in `head` from line_from on, without its line break. */
static enum http1_event line_done(struct http1 *p) {
  char *line = p->head + p->line_from;
  size_t length = p->head_length - p->line_from - 1;
  if (length > 0 && line[length - 1] == '\r') length--;
  enum http1_problem problem;
  if (p->state == HTTP1_STATE_START) {
    if (length == 0 && !p->response) { /* RFC 9112, 2.2: an empty line before a request is ignored. */
      p->head_length = p->line_from = 0;
      return HTTP1_MORE;
    }
    problem = p->response ? status_line(p, line, length) : request_line(p, line, length);
    p->state = HTTP1_STATE_HEADERS;
  } else if (length == 0) {
    p->head_length = p->line_from;
    return head_done(p);
  } else {
    problem = header_line(p, line, length);
  }
  return problem ? bad(p, problem) : HTTP1_MORE;
}

static bool reserve(struct http1 *p, size_t more) {
  size_t needed = p->head_length + more;
  if (needed <= p->head_capacity) return true;
  size_t capacity = p->head_capacity ? p->head_capacity : 512;
  while (capacity < needed) capacity *= 2; /* Bounded by head_max plus one line. */
  char *grown = realloc(p->head, capacity);
  if (!grown) return false;
  p->head = grown;
  p->head_capacity = capacity;
  return true;
}

static size_t feed_head(struct http1 *p, const char *bytes, size_t length, enum http1_event *event) {
  size_t used = 0;
  *event = HTTP1_MORE;
  while (used < length && *event == HTTP1_MORE) {
    const char *from = bytes + used, *found = memchr(from, '\n', length - used);
    size_t take = found ? (size_t)(found - from) + 1 : length - used;
    p->begun = true;
    if (take > p->head_max || p->head_length > p->head_max - take) {
      *event = bad(p, HTTP1_HEAD_LARGE);
      break;
    }
    if (!reserve(p, take)) {
      *event = bad(p, HTTP1_NO_MEMORY);
      break;
    }
    memcpy(p->head + p->head_length, from, take);
    p->head_length += take;
    used += take;
    if (found) *event = line_done(p);
    else if (p->response && p->state == HTTP1_STATE_START && p->head_length >= 5 && memcmp(p->head, "HTTP/", 5) != 0)
      *event = bad(p, HTTP1_START); /* Do not wait for a line break that a server of another protocol never sends. */
  }
  return used;
}

/* ---- bodies ---- */

static size_t feed_data(struct http1 *p, const char *bytes, size_t length, enum http1_event *event) {
  size_t take = length < p->left ? length : (size_t)p->left;
  p->body = bytes;
  p->body_length = take;
  p->left -= take;
  *event = HTTP1_BODY;
  return take;
}

static int hex(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

static void size_done(struct http1 *p) {
  p->counted = 0;
  p->blank_line = true;
  p->state = p->left == 0 ? HTTP1_STATE_TRAILERS : HTTP1_STATE_CHUNK_DATA;
}

static size_t feed_size(struct http1 *p, const char *bytes, size_t length, enum http1_event *event) {
  size_t i = 0;
  while (i < length && p->state == HTTP1_STATE_CHUNK_SIZE) {
    char c = bytes[i];
    int digit = hex(c);
    if (digit >= 0) {
      if (++p->counted > HEX_MAX || p->left > (uint64_t)INT64_MAX >> 4) return *event = bad(p, HTTP1_CHUNK_SIZE), i;
      p->left = p->left << 4 | (uint64_t)digit;
    } else if (p->counted == 0) {
      return *event = bad(p, HTTP1_CHUNK_SIZE), i;
    } else if (c == '\n') {
      size_done(p);
    } else if (c == '\r' || c == ';' || is_blank(c)) {
      p->state = HTTP1_STATE_CHUNK_EXTENSION;
      p->counted = 0;
    } else {
      return *event = bad(p, HTTP1_CHUNK_SIZE), i;
    }
    i++;
  }
  return i;
}

static size_t feed_extension(struct http1 *p, const char *bytes, size_t length, enum http1_event *event) {
  const char *found = memchr(bytes, '\n', length);
  size_t take = found ? (size_t)(found - bytes) + 1 : length;
  p->counted += take;
  if (p->counted > EXTENSIONS_MAX) return *event = bad(p, HTTP1_CHUNK_EXTENSION), take;
  if (found) size_done(p);
  return take;
}

/* [CR] LF after the data of a chunk. */
static size_t feed_chunk_end(struct http1 *p, const char *bytes, size_t length, enum http1_event *event) {
  size_t i = 0;
  for (; i < length; i++) {
    if (bytes[i] == '\n') {
      p->state = HTTP1_STATE_CHUNK_SIZE;
      p->left = p->counted = 0;
      return i + 1;
    }
    if (bytes[i] != '\r' || p->counted++ > 0) return *event = bad(p, HTTP1_CHUNK_END), i;
  }
  return i;
}

/* Trailers are skipped up to an empty line. */
static size_t feed_trailers(struct http1 *p, const char *bytes, size_t length, enum http1_event *event) {
  for (size_t i = 0; i < length; i++) {
    if (++p->counted > p->head_max) return *event = bad(p, HTTP1_TRAILERS_LARGE), i;
    if (bytes[i] == '\n') {
      if (p->blank_line) return *event = done(p), i + 1;
      p->blank_line = true;
    } else if (bytes[i] != '\r') {
      p->blank_line = false;
    }
  }
  return length;
}

size_t http1_feed(struct http1 *p, const char *bytes, size_t length, enum http1_event *event) {
  size_t used = 0;
  *event = HTTP1_MORE;
  if (p->state == HTTP1_STATE_DONE) begin(p);
  if (p->state == HTTP1_STATE_LENGTH && p->left == 0) return *event = done(p), 0;
  while (used < length && *event == HTTP1_MORE) {
    const char *at = bytes + used;
    size_t left = length - used;
    switch (p->state) {
      case HTTP1_STATE_START:
      case HTTP1_STATE_HEADERS: used += feed_head(p, at, left, event); break;
      case HTTP1_STATE_LENGTH: used += feed_data(p, at, left, event); break;
      case HTTP1_STATE_CHUNK_SIZE: used += feed_size(p, at, left, event); break;
      case HTTP1_STATE_CHUNK_EXTENSION: used += feed_extension(p, at, left, event); break;
      case HTTP1_STATE_CHUNK_DATA:
        used += feed_data(p, at, left, event);
        if (p->left == 0) p->state = HTTP1_STATE_CHUNK_END;
        break;
      case HTTP1_STATE_CHUNK_END: used += feed_chunk_end(p, at, left, event); break;
      case HTTP1_STATE_TRAILERS: used += feed_trailers(p, at, left, event); break;
      case HTTP1_STATE_UNTIL_END:
        p->left = UINT64_MAX;
        used += feed_data(p, at, left, event);
        break;
      case HTTP1_STATE_DONE:
      case HTTP1_STATE_BROKEN: *event = HTTP1_BAD; break;
    }
  }
  if (p->state == HTTP1_STATE_BROKEN) *event = HTTP1_BAD;
  return used;
}

enum http1_event http1_finish(struct http1 *p) {
  switch (p->state) {
    case HTTP1_STATE_DONE: return HTTP1_MORE;
    case HTTP1_STATE_BROKEN: return HTTP1_BAD;
    case HTTP1_STATE_UNTIL_END: return done(p);
    case HTTP1_STATE_START:
    case HTTP1_STATE_HEADERS: return p->begun ? bad(p, HTTP1_TRUNCATED_HEAD) : HTTP1_MORE;
    case HTTP1_STATE_LENGTH: return p->left == 0 ? done(p) : bad(p, HTTP1_TRUNCATED_LENGTH);
    default: return bad(p, HTTP1_TRUNCATED_CHUNKS);
  }
}

/* ---- addresses ---- */

static bool host_byte(unsigned char c) {
  return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c && strchr("-._~!$&'()*+,;=", c));
}

static const char *host_and_port(const char *text, size_t from, size_t end, struct http1_url *out) {
  size_t at = from;
  if (at < end && text[at] == '[') {
    size_t close = ++at;
    while (close < end && text[close] != ']') close++;
    if (close == end) return "the bracket before the IPv6 address is not closed";
    for (size_t i = at; i < close; i++)
      if (hex(text[i]) < 0 && text[i] != ':' && text[i] != '.') return "expected an IPv6 address without a zone between the brackets";
    out->host = (struct http1_part){at, close - at};
    at = close + 1;
  } else {
    while (at < end && text[at] != ':') {
      unsigned char c = (unsigned char)text[at++];
      if (c >= 128) return "the host has bytes that are not ASCII; write an international name in its xn-- form";
      if (!host_byte(c)) return "the host has a character that no name has";
    }
    out->host = (struct http1_part){from, at - from};
  }
  if (out->host.length == 0) return "there is no host";
  if (at == end) return NULL;
  if (text[at] != ':') return "expected a colon and a port after the host";
  uint32_t port = 0;
  for (size_t i = at + 1; i < end; i++) {
    if (!is_digit(text[i]) || port > UINT16_MAX) return "expected a port from 1 to 65535";
    port = port * 10 + (uint32_t)(text[i] - '0');
  }
  if (at + 1 < end && (port == 0 || port > UINT16_MAX)) return "expected a port from 1 to 65535";
  out->port = (uint16_t)port;
  return NULL;
}

const char *http1_url_parse(const char *text, size_t length, struct http1_url *out) {
  *out = (struct http1_url){0};
  if (length > HTTP1_URL_MAX) return "longer than 8192 bytes";
  for (size_t i = 0; i < length; i++)
    if ((unsigned char)text[i] <= ' ' || text[i] == 127) return "holds a blank or a control character";
  size_t at = 0;
  while (at < length && text[at] != ':' && text[at] != '/') at++;
  bool letter = at > 0 && (text[0] | 0x20) >= 'a' && (text[0] | 0x20) <= 'z';
  if (!letter || at + 3 > length || memcmp(text + at, "://", 3) != 0) return "expected http://host[:port]/path";
  out->scheme.length = at;
  size_t from = at + 3, end = from, user = 0;
  while (end < length && !strchr("/?#", text[end])) {
    if (text[end] == '@') user = end;
    end++;
  }
  if (user) {
    out->has_user = true;
    out->user = (struct http1_part){from, user - from};
    from = user + 1;
  }
  const char *problem = host_and_port(text, from, end, out);
  if (problem) return problem;
  size_t stop = end;
  while (stop < length && text[stop] != '#') stop++;
  out->target = (struct http1_part){end, stop - end};
  return NULL;
}
