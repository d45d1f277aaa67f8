/* A core among five members gets datagrams whose headers and checksums are right, so that the bodies are reached; between them
 * time passes and its user does things. The input is a row of events:
 *
 *   u8 what    low 4 bits: 1 .. 8 a datagram of that type, 0 one of type 9; 9 time; 10 .. 15 something that its user does
 *              0x80: the first four bytes of the body become the sequence of the last question that was asked (a right answer)
 *              0x40: the next four become our own key (a claim about us)
 *   u8 who     low 3 bits: n0 .. n7 sends it; the next 3: its generation, from 998; the last 2: its version
 *   u8 time    squared, in milliseconds, passes first
 *   u16 length of what follows, as far as there is as much */
#include "swim_target.h"

enum { STEPS_MAX = 64, BODY_MAX = SWIM_DATAGRAM_MAX - 19 };

static void put_u32(uint8_t *at, uint32_t value) {
  struct writer w = writer_of(at, 4);
  write_u32(&w, value);
}

static void datagram(uint8_t what, uint8_t who, const uint8_t *body, size_t length) {
  uint8_t bytes[SWIM_DATAGRAM_MAX];
  struct writer w = writer_of(bytes, sizeof bytes);
  if (length > BODY_MAX) length = BODY_MAX;
  swim_wire_header(&w, &core.swim->cluster, &(struct header){what & 15 ? what & 15 : SEEN, key_of(who & 7), {998 + (who >> 3 & 7), who >> 6}});
  size_t head = (size_t)(w.at - bytes);
  memcpy(bytes + head, body, length);
  if (what & 0x80 && length >= 4) put_u32(bytes + head, core.sequence);
  if (what & 0x40 && length >= 8) put_u32(bytes + head + 4, key_of(7));
  swim_wire_seal(bytes, head + length, &core.swim->cluster);
  receive(who & 7, bytes, head + length);
}

static void user(uint8_t what, uint8_t who, const uint8_t *bytes, size_t length) {
  struct shoal_address seed = address_of(who);
  char name[] = {'n', (char)('0' + (who & 7))};
  struct swim_config config = *swim_config_now(core.swim);
  struct swim_why why;
  int rc = 0;
  switch (what) {
    case 10:
      if (who == 10) swim_leave(core.swim, core.now_ns); /* Not too easily: little happens after it. */
      break;
    case 11: (void)swim_hint(core.swim, core.now_ns, name, 2); break; /* False: not one of the living. */
    case 12: rc = swim_set_payload(core.swim, core.now_ns, bytes, length); break;
    case 13: rc = swim_join(core.swim, core.now_ns, &seed); break;
    case 14: rc = swim_tell(core.swim, core.now_ns, bytes, length); break;
    default:
      config.health_max = who & 7, config.confirmations = who >> 3 & 7, config.indirect_probes = who >> 6;
      rc = swim_reconfigure(core.swim, core.now_ns, &config);
  }
  MUST(rc == 0 || rc == ERR_TOO_LARGE || rc == ERR_FULL);
  if (swim_why(core.swim, name, 2, &why)) MUST(why.facts_count <= SWIM_WHY_FACTS && why.accusers_count <= SWIM_WHY_ACCUSERS);
  settle();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
  struct input in = {bytes, bytes + length};
  core_open();
  for (unsigned n = 0; n < STEPS_MAX && input_left(&in); n++) {
    uint8_t what = input_byte(&in), who = input_byte(&in), time = input_byte(&in);
    size_t wanted = input_short(&in), size = wanted < input_left(&in) ? wanted : input_left(&in);
    const uint8_t *body = input_bytes(&in, size);
    pass((uint64_t)time * time);
    if ((what & 15) <= 8) datagram(what, who, body, size);
    else if ((what & 15) >= 10) user(what & 15, who, body, size);
  }
  pass(10000);
  core_close();
  return 0;
}
