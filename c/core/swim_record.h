/* swim_record: what a member was told, written down, and replayed later to the same decisions.
 *
 * A core is a function of its inputs: its configuration, identity and seed, and then each datagram, tick and call with its instant.
 * A recording is these, one after another, and with each the checksum of all that the core did since the one before. So a replay
 * offline goes through the very states that the node went through, and says where it did otherwise: then the program that replays
 * is not the one that recorded.
 *
 *   recording  "SWR2" · varint count of configuration values, each a varint · identity · u64 seed · u64 now_ns · steps to the end
 *   identity   u8 length and name · u8 length and cluster · address · u32 generation · varint length and payload
 *   address    u8 family 4 or 6 · 16 bytes · u16 port
 *   step       u8 input · varint ns since the last step · varint count and u32 crc32c of the actions taken since then · body
 *   body       RECEIVE: address, varint length, bytes · JOIN, FORGET: address · PAYLOAD, HINT, TELL: varint length, bytes ·
 *              RECONFIGURE: as at the beginning · TICK, LEAVE: nothing · ACCEPTED: address · STREAMS: the port, OPENED, ENDED: the
 *              stream, STREAM: its bytes, all in u32 stream, varint length, bytes
 *
 * Integers as in core/bytes.h. Any bytes are taken: a damaged or cut recording ends in ERR_MALFORMED, at an offset. */
#ifndef SHOAL_SWIM_RECORD_H
#define SHOAL_SWIM_RECORD_H

#include "core/bytes.h"
#include "core/swim.h"

enum swim_input {
  SWIM_INPUT_RECEIVE, SWIM_INPUT_TICK, SWIM_INPUT_JOIN, SWIM_INPUT_FORGET, SWIM_INPUT_LEAVE, SWIM_INPUT_PAYLOAD,
  SWIM_INPUT_HINT, SWIM_INPUT_TELL, SWIM_INPUT_RECONFIGURE,
  SWIM_INPUT_STREAMS, SWIM_INPUT_OPENED, SWIM_INPUT_ACCEPTED, SWIM_INPUT_STREAM, SWIM_INPUT_ENDED, SWIM_INPUTS_COUNT
};
enum { SWIM_RECORD_STEP_MAX = SWIM_DATAGRAM_MAX + 64, SWIM_RECORD_BEGIN_MAX = 1024 }; /* Bytes that one call writes at most. */

struct swim_recorder {
  uint64_t last_ns;
  uint32_t crc, actions; /* Of the actions since the last step; how many. */
};

/* All write into `out`, of so many bytes or more, and return how many. */
size_t swim_record_begin(struct swim_recorder *r, const struct swim_config *config, const struct swim_identity *identity,
                         uint64_t seed, uint64_t now_ns, uint8_t *out);
/* The same for an input about a stream; bytes, if any, are at most SWIM_DATAGRAM_MAX. */
size_t swim_record_stream(struct swim_recorder *r, enum swim_input input, uint64_t now_ns, uint32_t stream, const void *bytes,
                          size_t length, uint8_t *out);
/* Before the core is given it. What the input has none of is NULL; bytes longer than a datagram are refused by the core, and are
 * recorded cut to one more than it takes. */
size_t swim_record_step(struct swim_recorder *r, enum swim_input input, uint64_t now_ns, const struct shoal_address *address,
                        const void *bytes, size_t length, const struct swim_config *config, uint8_t *out);
/* Each action that swim_next() gave. */
void swim_record_action(struct swim_recorder *r, const struct swim_action *action);

struct swim_replay_head { /* Of the next step. */
  bool there;
  uint8_t input;
  uint64_t after_ns;
  uint32_t actions, crc;
};
struct swim_replay {
  struct reader reader;
  const uint8_t *begin;
  struct swim *swim;
  struct swim_recorder recorder; /* Of what the replay does. */
  struct swim_replay_head head;
  uint64_t steps, now_ns, began_ns;
  uint64_t diverged; /* The first step before which it did otherwise, from 1; 0: none so far. */
};
/* 0, ERR_MALFORMED, or what swim_open() said. `bytes` must outlive it. */
int swim_replay_open(struct swim_replay *r, const void *bytes, size_t length);
/* Give the core its next input: 1, 0 at the end, or ERR_MALFORMED. Between steps take all actions that
 * swim_replay_next() gives: as many as the node took then, for an input may come while actions wait. */
int swim_replay_step(struct swim_replay *r);
bool swim_replay_next(struct swim_replay *r, struct swim_action *out);
size_t swim_replay_offset(const struct swim_replay *r); /* Of the recording: where it stands. */
void swim_replay_close(struct swim_replay *r);

#endif
