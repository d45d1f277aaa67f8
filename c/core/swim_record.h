/* swim_record: record a member's inputs, and replay them later to the same decisions.
 *
 * A core is a function of its inputs: its configuration, identity and seed, and then each datagram, tick and call with its instant.
 * A recording is the sequence of inputs, each with a checksum of the core's actions since the one before. So an offline replay goes
 * through exactly the states of the node, and reports where it diverged: then the replaying program is not the recording one.
 *
 *   recording  "SWR2" · varint count of configuration values, each a varint · identity · u64 seed · u64 now_ns · steps to the end
 *   identity   u8 length and name · u8 length and cluster · address · u32 generation · varint length and payload
 *   address    u8 family 4 or 6 · 16 bytes · u16 port
 *   step       u8 input · varint ns since the last step · varint count and u32 crc32c of the actions taken since then · body
 *   body       RECEIVE: address, varint length, bytes · JOIN, FORGET: address · PAYLOAD, HINT, TELL, ERASE: varint length, bytes ·
 *              RECONFIGURE: as at the beginning · TICK, LEAVE: nothing · ACCEPTED: address · STREAMS: the port, OPENED, ENDED: the
 *              stream, STREAM: its bytes, all in u32 stream, varint length, bytes
 *
 * Integers as in core/bytes.h. A replay takes any bytes: a damaged or cut recording ends in ERR_MALFORMED, at an offset. */
#ifndef SHOAL_SWIM_RECORD_H
#define SHOAL_SWIM_RECORD_H

#include "core/bytes.h"
#include "core/swim.h"

enum swim_input {
  SWIM_INPUT_RECEIVE, SWIM_INPUT_TICK, SWIM_INPUT_JOIN, SWIM_INPUT_FORGET, SWIM_INPUT_LEAVE, SWIM_INPUT_PAYLOAD,
  SWIM_INPUT_HINT, SWIM_INPUT_TELL, SWIM_INPUT_RECONFIGURE,
  SWIM_INPUT_STREAMS, SWIM_INPUT_OPENED, SWIM_INPUT_ACCEPTED, SWIM_INPUT_STREAM, SWIM_INPUT_ENDED, SWIM_INPUT_ERASE,
  SWIM_INPUTS_COUNT
};
enum { SWIM_RECORD_STEP_MAX = SWIM_DATAGRAM_MAX + 64, SWIM_RECORD_BEGIN_MAX = 1024 }; /* The most bytes that one call writes. */

struct swim_recorder {
  uint64_t last_ns;
  uint32_t crc, actions; /* Of the actions since the last step; how many. */
};

/* All write into `out`, of at least so many bytes, and return the number written. */
size_t swim_record_begin(struct swim_recorder *r, const struct swim_config *config, const struct swim_identity *identity,
                         uint64_t seed, uint64_t now_ns, uint8_t *out);
/* The same for an input about a stream; bytes, if any, are at most SWIM_DATAGRAM_MAX. */
size_t swim_record_stream(struct swim_recorder *r, enum swim_input input, uint64_t now_ns, uint32_t stream, const void *bytes,
                          size_t length, uint8_t *out);
/* Call it before the core gets the input. Absent parts are NULL. Bytes longer than a datagram are recorded cut to one more than the
 * core takes, for it refuses them. */
size_t swim_record_step(struct swim_recorder *r, enum swim_input input, uint64_t now_ns, const struct shoal_address *address,
                        const void *bytes, size_t length, const struct swim_config *config, uint8_t *out);
/* Call it with each action of swim_next(). */
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
  struct swim_recorder recorder; /* Of the replay's own actions. */
  struct swim_replay_head head;
  uint64_t steps, now_ns, began_ns;
  uint64_t diverged; /* The first step before which the replay acted otherwise, from 1; 0: none so far. */
};
/* 0, ERR_MALFORMED, or the code of swim_open(). `bytes` must outlive it. */
int swim_replay_open(struct swim_replay *r, const void *bytes, size_t length);
/* Give the core its next input: 1, 0 at the end, or ERR_MALFORMED. Between steps take all actions
 * of swim_replay_next(): it gives as many as the node took, for an input may come while actions wait. */
int swim_replay_step(struct swim_replay *r);
bool swim_replay_next(struct swim_replay *r, struct swim_action *out);
size_t swim_replay_offset(const struct swim_replay *r); /* The position in the recording. */
void swim_replay_close(struct swim_replay *r);

#endif
