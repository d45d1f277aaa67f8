#include "net/frame.h"

#include <assert.h>

const char *frame_fault_name(enum frame_fault fault) {
  static const char *const names[] = {"none",  "length", "lane", "flags", "id",     "order",
                                      "hello", "early",  "link", "message", "refusal"};
  static_assert(sizeof names / sizeof *names == FRAME_FAULTS_COUNT, "a name each");
  return names[fault];
}

const char *frame_fault_text(enum frame_fault fault) {
  static const char *const texts[] = {
#define ENTRY(name, text) text,
      FRAME_FAULTS(ENTRY)
#undef ENTRY
  };
  return texts[fault];
}

enum frame_fault frame_check(const struct frame *f) {
  uint8_t kind = f->flags & (FRAME_REQUEST | FRAME_REPLY | FRAME_LINK);
  if (f->length > FRAME_BODY_MAX) return FRAME_FAULT_LENGTH;
  if (f->length == 0 && !(f->flags & FRAME_LAST)) return FRAME_FAULT_LENGTH; /* Otherwise a message could go on for ever. */
  if (kind == FRAME_LINK && f->length > FRAME_LINK_MAX) return FRAME_FAULT_LENGTH;
  if (f->lane >= FRAME_LANES) return FRAME_FAULT_LANE;
  if (f->flags & ~FRAME_FLAGS || (kind & (kind - 1))) return FRAME_FAULT_FLAGS;
  if (f->flags & FRAME_REFUSAL && kind != FRAME_REPLY) return FRAME_FAULT_FLAGS;
  if (kind == FRAME_LINK && (f->lane != 0 || !(f->flags & FRAME_LAST))) return FRAME_FAULT_FLAGS;
  if ((kind == FRAME_REQUEST || kind == FRAME_REPLY) && f->id == 0) return FRAME_FAULT_ID;
  return FRAME_FAULT_NONE;
}

static const uint8_t magic[4] = {'s', 'h', 'o', 'l'};

static size_t put_string(uint8_t *out, const char *text) {
  size_t length = strnlen(text, 255);
  out[0] = (uint8_t)length;
  memcpy(out + 1, text, length);
  return length + 1;
}

size_t frame_hello_put(uint8_t *out, const struct frame_hello *hello) {
  uint8_t *p = out;
  memcpy(p, magic, sizeof magic);
  p[4] = (uint8_t)(hello->major >> 8), p[5] = (uint8_t)hello->major;
  p[6] = (uint8_t)(hello->minor >> 8), p[7] = (uint8_t)hello->minor;
  p += 8;
  p += put_string(p, hello->cluster);
  p += put_string(p, hello->node);
  p += put_string(p, hello->role);
  p += put_string(p, hello->dc);
  p += put_string(p, hello->advertise);
  if (hello->minor >= 1) {
    uint64_t life = __builtin_bswap64(hello->life);
    memcpy(p, &life, sizeof life);
    p += sizeof life;
  }
  assert(p - out <= FRAME_HELLO_MAX);
  return (size_t)(p - out);
}

static bool get_string(const uint8_t **p, const uint8_t *end, char out[256]) {
  if (*p == end) return false;
  size_t length = *(*p)++;
  if (length > (size_t)(end - *p) || memchr(*p, 0, length)) return false;
  memcpy(out, *p, length);
  out[length] = 0;
  *p += length;
  return true;
}

bool frame_hello_get(const uint8_t *bytes, size_t length, struct frame_hello *out) {
  if (length < 8 || memcmp(bytes, magic, sizeof magic) != 0) return false;
  out->major = (uint16_t)(bytes[4] << 8 | bytes[5]);
  out->minor = (uint16_t)(bytes[6] << 8 | bytes[7]);
  out->life = 0;
  out->cluster[0] = out->node[0] = out->role[0] = out->dc[0] = out->advertise[0] = 0;
  if (out->major != FRAME_MAJOR) return true; /* The rest has another version's form, and a refusal needs no more. */
  const uint8_t *p = bytes + 8, *end = bytes + length;
  bool named = get_string(&p, end, out->cluster) && get_string(&p, end, out->node) && get_string(&p, end, out->role) &&
               get_string(&p, end, out->dc) && get_string(&p, end, out->advertise) && out->node[0] != 0;
  if (!named || out->minor == 0) return named;
  if (end - p < 8) return false;
  out->life = frame_word(p);
  return true;
}

size_t frame_refusal_put(uint8_t *out, const char *name, const char *text, size_t text_length) {
  size_t name_length = strnlen(name, FRAME_NAME_MAX);
  if (text_length > FRAME_TEXT_MAX) text_length = FRAME_TEXT_MAX;
  out[0] = (uint8_t)name_length;
  memcpy(out + 1, name, name_length);
  memcpy(out + 1 + name_length, text, text_length);
  return 1 + name_length + text_length;
}

bool frame_refusal_get(const uint8_t *bytes, size_t length, struct frame_refusal *out) {
  if (length < 1 || bytes[0] == 0 || bytes[0] > FRAME_NAME_MAX || bytes[0] > length - 1) return false;
  size_t n = bytes[0];
  if (memchr(bytes + 1, 0, n)) return false;
  memcpy(out->name, bytes + 1, n);
  out->name[n] = 0;
  out->text = bytes + 1 + n;
  out->text_length = length - 1 - n;
  if (out->text_length > FRAME_TEXT_MAX) out->text_length = FRAME_TEXT_MAX;
  return true;
}
