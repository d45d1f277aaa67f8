/* swim: who is in the cluster, and who of them is alive.
 *
 * SWIM (Das, Gupta, Motivala, DSN 2002) with the suspicion timeouts of Lifeguard (arXiv 1707.00788). Each member probes one other
 * a period, in a shuffled round; who does not answer is probed through others, then suspected, and given time to refute
 * before it is declared dead. News (rumours) travels on the probes and their answers, and in gossip of its own while there
 * is any. Pure state: events go in with the time, actions come out of swim_next(); no clock, socket or Lua.
 *
 * A member as one observer sees it; a claim carries an incarnation (generation, version), chosen by its subject alone:
 *
 *                     first heard of, ALIVE                        [merge]
 *     (nobody) ─────────────────────────────> ALIVE <──────────────────────────┐
 *        │                                     │  ▲                            │
 *        │       a probe and k indirect ones   │  │ ALIVE, greater             │ ALIVE, greater incarnation:
 *        │       unanswered, or hearsay        │  │ incarnation: it refuted    │ it was alive after all, or
 *        │       [suspect]                     ▼  │ [merge]                    │ it started again  [merge]
 *        │                                    SUSPECT                          │
 *        │       timeout [tick], or hearsay    │   │ it left                   │
 *        │ heard of as dead or left,           ▼   ▼                           │
 *        └──────────────────────────────────> DEAD, LEFT ──────────────────────┘
 *          silently: a tombstone               │ tombstone_ms later [reap]
 *                                              ▼
 *                                           (nobody)
 *
 * Claims about one member are ordered by (generation, version, state) with ALIVE < SUSPECT < DEAD < LEFT, and merging takes
 * the greatest: it is order-free, idempotent and commutative, and what an observer believes never goes down. The payload
 * is merged apart, by (generation, payload version). An address goes with its (generation, version).
 *
 * Where this departs from the papers, and why:
 *  - A ping that is not answered is sent again, ping_repeats times, evenly until the probe ends: where nothing is lost this costs
 *    nothing, and at 20 % loss it makes a false suspicion twenty times as rare.
 *  - Rumours have a budget of bytes a second over all datagrams (gossip_bytes_per_s), spent on the least-sent first, so that a
 *    storm of deaths takes a little longer instead of drowning the network; a refutation is never held back. When there is more to
 *    tell than a quarter of the table, as in a burst of joins, whole tables are exchanged: they are cheaper then.
 *  - The k indirect probes come BEFORE the suspicion, and a period is probe_interval; the paper has it so, some programs do not.
 *  - A ping carries what the prober believes of the target, so that a falsely suspected node refutes with that very answer,
 *    and an answer to a node believed dead tells it so first.
 *  - Generation is (wall-clock seconds at start, or one more than any peer remembers), so a restart needs no disk, and a
 *    node whose clock was set back is not locked out. A node announces itself only after it has heard a table, hence what peers
 *    remember of it; a new generation ends the old life at every observer: dead, then join.
 *  - A table's DEAD is taken as a suspicion of a member that lives here: after a partition, each side's dead get to refute. A
 *    datagram's is too, until the member had half the least time to refute here: no node that was cut off kills by its word.
 *  - Each period, with probability 1 / live members, one dead member or seed is tried: about one try a period for each side
 *    of a partition at any size, for ever. So it heals with nobody's help.
 *  - Acks carry a digest of the sender's table; where digests differ once rumours are out, tables are exchanged: by datagrams when
 *    short, else over a stream. So there is no stream at rest.
 *  - Addresses that only a seed list names are UNCONFIRMED: tried for ever with backoff, never suspected, no member,
 *    and gone without a death (swim_forget). Only packets confirm; only what was confirmed is gossiped.
 *  - A period begins at one of four instants of a period of the world's clock, drawn at random: members of one process, which share
 *    that clock, wake up together, and that is most of what they cost. Those of others have clocks of their own, so that no network
 *    beats in step. Of many in one process theory's mean wait is half a percent longer.
 *  - Who knows a suspicion from hearsay only pings the suspect itself before it calls it dead, for it may have missed the
 *    refutation: one small datagram a death and member, and half a period more where the news of the death is slower.
 *  - A node whose own timers ran late accuses nobody until it has caught up, and counts it against its local health.
 *  - A nack is sent after four fifths of the time that the prober says it still waits, not of the relay's own timeout: late nacks
 *    cost a healthy prober its health at each true death. And a failed probe whose relays all answered costs none: it is the target.
 *  - A ping says which version of the target's coordinates is known, in bits that were free, and the ack carries them only when there
 *    is a newer one: at rest they cost nothing.
 *  - Who is suspected, or dead and back in the same life, again and again is held to be dead by each observer that sees it so, until it
 *    has been well for a while: else the half reachable swing for ever. Only what is shown is damped; a restart ends it.
 *  - Events of users have a budget and a quarter of each datagram of their own, so that neither they nor membership starve.
 *
 * ---- Wire. One datagram is one message of at most SWIM_DATAGRAM_MAX bytes. Integers big-endian, varints core/bytes.h.
 *
 *   header   u16     magic 0x5377
 *            u8      wire version (high 4 bits), 1; type (low 4 bits)
 *            u16     cluster: the low half of crc32c(name of the cluster), so that a foreign one is known by name
 *            u32     crc32c, begun with crc32c(name of the cluster) >> 16, over the whole datagram with this field left out
 *            u32     sender: crc32c(its name), its key; by itself no identity: matched with the generation
 *            u32     sender's generation
 *            varint  sender's version
 *   1 PING       u32 sequence · claim about the target · records to the end
 *   2 ACK        u32 sequence of the ping or ping_req · u32 digest of the sender's table · records
 *   3 PING_REQ   u32 sequence · claim about the target · address of the target · varint ms that the answer is waited for · records
 *   4 NACK       u32 sequence of the ping_req: the target has not answered, but we have
 *   5 GOSSIP     records
 *   6 SYNC       u32 sequence · u8 flags: 1 the sender is new and asks what is remembered of it, 2 it takes datagrams only
 *                u32 digest of its table
 *   8 ACK_AT     an ACK of which the coordinates of the sender stand between digest and records
 *   7 TABLE      u32 sequence of the SYNC, or 0 · u8 flags: 1 the last piece, 2 it is long: come and fetch it
 *                u32 digest of the sender's table · with flag 2: u16 the port of its streams · records
 *
 *   On a stream each message has its length before it, u16. Who opened it says SYNC, hears the other's table in TABLEs, tells its own
 *   in TABLEs if the digests still differ, and closes. Nothing else is said there.
 *
 *   claim    u32     key of the target
 *            u32     generation, varint version: what the sender believes of it
 *            u8      bits 0-1 its state; 2-7 the low bits of the version of its coordinates that the sender knows
 *   place    varint  version of the coordinates, 0 < it < 2^24; u8 their error, 255 for 1
 *            3 i16   where, u16 the height < 2^15, in 32nds of a millisecond (core/vivaldi.h)
 *   address  u8 family 4 or 6 · 4 or 16 bytes · u16 port
 *   record   u8      bits 0-1 state (0 alive, 1 suspect, 2 dead, 3 left) · 2 address is IPv6 · 3 payload follows ·
 *                    4 place follows; the rest 0. 128: an event of a user's
 *            u8      length of the name, 1 .. SWIM_NAME_MAX, and the name
 *            u32     generation < 2^32 - 1, varint version < 2^32 - 1
 *            4 or 16 bytes of address, u16 port > 0
 *            u32     key of the accuser, when the state is suspect
 *            varint  version of the payload, 0 < it < 2^32 - 1, varint its length, its bytes: when it follows
 *
 *            place:  when it follows (in tables; else an ACK_AT tells it to who does not know it)
 *   event    u8 128 · u32 key and u32 generation of whose it is · varint its number in that life > 0
 *            varint length 1 .. SWIM_USER_MAX, the bytes
 *
 * A PING with nothing to tell is 32 bytes, its ACK 26: two small datagrams a period for each member.
 *
 * The decoder takes any bytes: a datagram is checked whole before any of it is believed, and refusals are counted by
 * reason. Unsealed, the checksum guards against accidents only.
 *
 * Limits: config.members_max records (one more is refused and counted); SWIM_SEEDS_MAX seeds. Pick and update are O(1), a suspicion
 * O(log suspects). All memory is the table's own: 64 bytes a member, 9 for finding and choosing it, its name and payload in steps of 8,
 * 24 for one that gave trouble of late, and at most a sixteenth more; nothing is allocated once it has grown. */
#ifndef SHOAL_SWIM_H
#define SHOAL_SWIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/address.h"

enum {
  SWIM_DATAGRAM_MAX = 1400, /* Bytes; fits an IPv6 path of 1,500 with room for a seal. */
  SWIM_DATAGRAM_MIN = 768,  /* Least that may be configured: one record with the greatest payload, and headers. */
  SWIM_NAME_MAX = 64,       /* Bytes. */
  SWIM_CLUSTER_MAX = 64,    /* Bytes. */
  SWIM_PAYLOAD_MAX = 512,   /* Bytes. */
  SWIM_SEEDS_MAX = 32,
  SWIM_USER_MAX = 256,      /* Bytes of an event of a user's. */
};

struct swim;

enum swim_state { SWIM_ALIVE, SWIM_SUSPECT, SWIM_DEAD, SWIM_LEFT };
const char *swim_state_name(enum swim_state state); /* "alive", "suspect", "dead", "left" */

struct swim_incarnation {
  uint32_t generation, version;
};

struct swim_config {
  uint32_t probe_interval_ms;    /* A period: between two probes of ours. */
  uint32_t probe_timeout_ms;     /* Without an answer for so long, ask indirectly; < probe_interval_ms. */
  uint32_t indirect_probes;      /* k: how many are asked. 0 .. 8 */
  uint32_t ping_repeats;         /* An unanswered ping is repeated so often within its probe. 0 .. 8; the papers: 0 */
  uint32_t health_max;           /* Local health: probes of a node in bad health take up to 1 + this times as long. 0 .. 8; 0: off,
                                  * and late timers are not excused either. */
  uint32_t buddy;                /* 1: a suspect is told so first of all, by whoever pings it. 0 or 1 */
  uint32_t verify_deaths;        /* 1: a death is believed of a member that had its time to refute here, or did not answer a ping of ours.
                                  * 0, as in the papers: whoever says so. Of tables it is never believed so. 0 or 1 */
  uint32_t gossip_interval_ms;   /* Between two rounds of gossip, while there are rumours. */
  uint32_t gossip_fanout;        /* Members told in a round. 1 .. 8 */
  uint32_t retransmit_multiplier;/* A rumour is sent this many times ceil(log10(N + 1)). 1 .. 8 */
  uint32_t gossip_bytes_per_s;   /* Of rumours, on whatever datagram, at most; four times that in the first ten
                                  * periods. A datagram's worth may be saved up. 300 .. 10^7 */
  uint32_t user_bytes_per_s;     /* Of events of users, likewise, on top. 300 .. 10^7 */
  uint32_t suspicion_multiplier; /* Least time to refute, in periods; times max(1, log10 N). 1 .. 16 */
  uint32_t suspicion_max;        /* Most time to refute, in least times. 1 .. 16 */
  uint32_t confirmations;        /* K: further accusers that bring the time down to the least. 0 .. 7 */
  uint32_t sync_interval_ms;     /* While digests go on differing, pauses between exchanges of tables grow from a period to this. */
  uint32_t join_retry_ms;        /* First backoff of a seed that does not answer; doubles, */
  uint32_t join_retry_max_ms;    /* up to this. */
  uint32_t leave_timeout_ms;     /* Stop waiting for witnesses of our leaving. */
  uint32_t tombstone_ms;         /* How long a dead or departed member is remembered. */
  uint32_t datagram_max;         /* SWIM_DATAGRAM_MIN .. SWIM_DATAGRAM_MAX */
  uint32_t stream_bytes;         /* A table longer than about this is fetched over a stream, where the driver has them. 0 .. 10^8 */
  uint32_t members_max;          /* Records kept at most, tombstones and ourselves included. */
  uint32_t flap_limit;           /* Points (1 for each suspicion, 3 more for each death) at which one that comes and goes is held to be
                                  * dead, until a quarter of them is left. 2 .. 1000; 0: never */
  uint32_t flap_half_life_ms;    /* In which points decay by half. */
};

/* The values of a profile: "lan", "wan" or "local". 0, or ERR_NOT_FOUND. */
int swim_config_profile(const char *name, struct swim_config *out);
/* NULL, or what is wrong with it, such as "probe_timeout_ms must be less than probe_interval_ms". Static. */
const char *swim_config_check(const struct swim_config *config);

struct swim_identity {
  const char *name, *cluster; /* 1 .. SWIM_NAME_MAX and 0 .. SWIM_CLUSTER_MAX bytes. Copied. */
  size_t name_length, cluster_length;
  struct shoal_address address; /* Where others reach us; port > 0. */
  uint32_t generation;          /* Wall-clock seconds at start, or the stored one + 1 when that is greater. */
  const uint8_t *payload;       /* 0 .. SWIM_PAYLOAD_MAX bytes. Copied. */
  size_t payload_length;
};

/* Returns 0; ERR_CONFIG (a config that swim_config_check refuses), ERR_TOO_LARGE (a name or payload), ERR_MALFORMED (no
 * name, an address without port), ERR_MEMORY. */
int swim_open(const struct swim_config *config, const struct swim_identity *identity, uint64_t seed, uint64_t now_ns,
              struct swim **out);
void swim_close(struct swim *s); /* Frees it; tells nobody. */

/* ---- events. After each, take actions with swim_next() until there is none. ---- */

/* A datagram arrived. Returns 0, or why it was refused: ERR_MALFORMED, ERR_REFUSED (not for us); counted either way. */
int swim_receive(struct swim *s, uint64_t now_ns, const struct shoal_address *from, const void *bytes, size_t length);
/* Streams, for tables too long for datagrams. A driver that has them says once at which port it takes them, > 0; then it opens, writes
 * and closes as the actions below say, and tells here what happens. `stream` is a number that the core gives. */
void swim_streams(struct swim *s, uint16_t port);
void swim_stream_opened(struct swim *s, uint64_t now_ns, uint32_t stream);
uint32_t swim_stream_accepted(struct swim *s, uint64_t now_ns, const struct shoal_address *from); /* 0: close it, we have enough. */
void swim_stream_received(struct swim *s, uint64_t now_ns, uint32_t stream, const void *bytes, size_t length);
/* It could not be opened, or nothing more will come: the driver closes it by itself. */
void swim_stream_ended(struct swim *s, uint64_t now_ns, uint32_t stream);
/* Time passed; to be called at swim_deadline() or any time. */
void swim_tick(struct swim *s, uint64_t now_ns);
/* When swim_tick has something to do; UINT64_MAX: never. */
uint64_t swim_deadline(const struct swim *s);
/* Try this address until it answers, with backoff, and again later whenever it is not among the living. One already
 * listed is tried at once. Returns 0, or ERR_FULL. */
int swim_join(struct swim *s, uint64_t now_ns, const struct shoal_address *seed);
/* Strike it off the list. False when it was not there. */
bool swim_forget(struct swim *s, const struct shoal_address *seed);
/* Tell others that we go, and wait until a few have heard it: SWIM_LEFT_DONE comes then, or after leave_timeout_ms.
 * A second call changes nothing. We probe no more, but still answer. */
void swim_leave(struct swim *s, uint64_t now_ns);
bool swim_is_leaving(const struct swim *s); /* Or has left. */
/* Replace our payload; a version higher goes out. Returns 0, ERR_TOO_LARGE or ERR_MEMORY. */
int swim_set_payload(struct swim *s, uint64_t now_ns, const void *bytes, size_t length);
/* Tell every member something, once each while they live and hear us, in no order, by gossip: at most user_bytes_per_s. It comes out
 * elsewhere as SWIM_EVENT_USER, not here. Returns 0, ERR_TOO_LARGE, ERR_MEMORY, or ERR_FULL: so many are being told that one of
 * ours that nobody has heard would have to go. */
int swim_tell(struct swim *s, uint64_t now_ns, const void *bytes, size_t length);
/* Other values while it runs; what has begun keeps its deadline. Returns 0; ERR_CONFIG, or ERR_FULL when more records are kept than
 * members_max: nothing changed then. */
int swim_reconfigure(struct swim *s, uint64_t now_ns, const struct swim_config *config);
const struct swim_config *swim_config_now(const struct swim *s);
/* Something speaks against this member (a connection reset, a process's exit): probe it at once. It decides nothing
 * alone. False when it is not one of the living, or too many such probes run. */
bool swim_hint(struct swim *s, uint64_t now_ns, const char *name, size_t name_length);

/* ---- actions ---- */

enum swim_event {
  SWIM_EVENT_JOIN,    /* It is a member: new, back from the dead, held no more, or in a new life. */
  SWIM_EVENT_SUSPECT, /* It does not answer. */
  SWIM_EVENT_ALIVE,   /* It refuted a suspicion. */
  SWIM_EVENT_DEAD,    /* It was a member, and its incarnation shown is over, or it comes and goes: `held` then. */
  SWIM_EVENT_LEFT,    /* It said so itself. */
  SWIM_EVENT_UPDATE,  /* Its payload or address changed. */
  SWIM_EVENT_USER,    /* It tells something, swim_action.told: also one that is shown dead, for others may have heard it. */
};
const char *swim_event_name(enum swim_event event); /* "join", ... */

/* Pointers are valid until the next call into this swim. */
struct swim_member {
  const char *name;
  size_t name_length;
  struct shoal_address address;
  enum swim_state state;
  struct swim_incarnation incarnation;
  const uint8_t *payload;
  size_t payload_length;
  uint32_t payload_version; /* 0: not known yet. */
  bool held;                /* It is shown dead because it came and went too often. */
  uint64_t changed_ns;      /* When its state last changed here, by what it and others say. */
  /* Of the suspicion it is under here; of an event, the one that it ended. 0 without one (by hearsay). */
  uint32_t suspected_ms, confirmations;
  uint64_t rtt_ns; /* Smoothed round trip of our direct probes of it; 0: none was answered. Within 1/2048. */
};
enum swim_action_kind {
  SWIM_SEND,
  SWIM_EVENT,
  SWIM_LEFT_DONE,
  SWIM_STREAM_OPEN,  /* Connect `stream` to `to`. */
  SWIM_STREAM_SEND,  /* Write these bytes on `stream`. */
  SWIM_STREAM_CLOSE, /* Let what was written arrive, and close it; its number is no more. */
};
struct swim_action {
  enum swim_action_kind kind;
  struct shoal_address to; /* SWIM_SEND: this datagram, to here. Valid until the next call. */
  uint32_t stream;
  const uint8_t *bytes;
  size_t length;
  enum swim_event event; /* SWIM_EVENT. The member is as it is now, its incarnation and state those of the event. */
  struct swim_member member;
  const uint8_t *told; /* SWIM_EVENT_USER: what, and which of its events it is, from 1 in each life. */
  size_t told_length;
  uint32_t told_number;
  uint32_t heard; /* SWIM_LEFT_DONE: how many answered that they heard it. */
};
/* Take one; false when none is left. Datagrams come first, then events in the order they happened. */
bool swim_next(struct swim *s, struct swim_action *out);

/* ---- looking ---- */

/* Walk over the table: start with *cursor 0; false at the end. We are in it. The order is nobody's business. */
bool swim_each(const struct swim *s, uint32_t *cursor, struct swim_member *out);
bool swim_find(const struct swim *s, const char *name, size_t name_length, struct swim_member *out);
void swim_self(const struct swim *s, struct swim_member *out);
/* The round trip between two members that their coordinates foretell, in nanoseconds; 0 when one of them has not told any (none do
 * while all are within a millisecond or two of each other). */
uint64_t swim_distance_ns(const struct swim *s, const char *a, size_t a_length, const char *b, size_t b_length);

/* Why a member is believed to be what it is: the newest evidence first. */
#define SWIM_FACTS(X)                                                      \
  X(JOINED, "joined")                                                      \
  X(UNANSWERED, "probe unanswered: direct, repeated and indirect pings")   \
  X(SUSPECTED, "suspected")                                                \
  X(CONFIRMED, "suspicion confirmed")                                      \
  X(CHECKED, "suspicion ran out by hearsay: asked it ourselves")           \
  X(REFUTED, "refuted, or was heard again")                                \
  X(TIMED_OUT, "suspicion ran out")                                        \
  X(DEAD, "dead by hearsay")                                               \
  X(LEFT, "left")                                                          \
  X(RESTARTED, "began a new life")                                         \
  X(HELD, "came and went too often: held to be dead")                      \
  X(RELEASED, "held no more: well for long enough, or others are no better") \
  X(EXCUSED, "our own timers ran late: all running probes were forgiven")
enum swim_fact_kind {
#define SWIM_FACT_ENUM(name, text) SWIM_FACT_##name,
  SWIM_FACTS(SWIM_FACT_ENUM)
#undef SWIM_FACT_ENUM
  SWIM_FACTS_COUNT
};
const char *swim_fact_name(enum swim_fact_kind kind); /* "joined", "unanswered", ... */
const char *swim_fact_text(enum swim_fact_kind kind);
enum { SWIM_WHY_FACTS = 32, SWIM_WHY_ACCUSERS = 8 };
struct swim_why {
  struct swim_member member;
  bool answered;           /* It has answered us in the last 18 hours, and */
  uint32_t heard_s;        /* so long ago. */
  bool probing;            /* A probe of ours is waiting, since probe_ns, until probe_end_ns. */
  uint64_t probe_ns, probe_end_ns;
  uint32_t health;         /* Our own. */
  /* While it is suspect: since when, and when that ends if nothing else is heard, at least and at most; who accuses it, by name
   * (NULL: nobody that we know), the first one first. */
  uint64_t suspected_ns, deadline_ns, least_ns, most_ns;
  uint32_t accusers_count, wanted;
  const char *accusers[SWIM_WHY_ACCUSERS];
  size_t accusers_length[SWIM_WHY_ACCUSERS];
  double flap_points;      /* For coming and going, and while it is held for that, until when, if it gives no more trouble. */
  uint64_t held_until_ns;
  uint32_t facts_count;
  struct {
    enum swim_fact_kind kind;
    uint64_t at_ns;
    struct swim_incarnation incarnation;
    const char *other; /* Who said so; NULL: we, or somebody we do not know. */
    size_t other_length;
    uint32_t value;    /* UNANSWERED: members asked * 256 + nacks heard. TIMED_OUT: confirmations. HELD: points * 16. Else 0. */
  } facts[SWIM_WHY_FACTS];
};
/* False when it is not in the table. Pointers are valid until the next call into this swim. */
bool swim_why(const struct swim *s, const char *name, size_t name_length, struct swim_why *out);

uint32_t swim_live(const struct swim *s);    /* Shown alive or suspect, ourselves included until we leave. */
uint32_t swim_records(const struct swim *s); /* All that are kept, tombstones too. */
/* A digest of the living: equal tables have equal digests. Only specs and studies compare them from outside. */
uint32_t swim_digest(const struct swim *s);

#define SWIM_REFUSALS(X)                                             \
  X(SHORT)       /* shorter than a header, or longer than a datagram */  \
  X(MAGIC)       /* not of this protocol */                              \
  X(VERSION)     /* another wire version */                              \
  X(CLUSTER)     /* another cluster */                                   \
  X(CHECKSUM)    /* damaged on the way */                                \
  X(TYPE)        /* an unknown type */                                   \
  X(BODY)        /* a body that ends too soon or holds wrong values */   \
  X(RECORD)      /* a record that is cut short or holds wrong values */  \
  X(OWN)         /* sent by ourselves */                                 \
  X(MISDIRECTED) /* meant for another member at this address */          \
  X(FULL)        /* a record more than members_max */
enum swim_refusal {
#define SWIM_REFUSAL_ENUM(name) SWIM_REFUSED_##name,
  SWIM_REFUSALS(SWIM_REFUSAL_ENUM)
#undef SWIM_REFUSAL_ENUM
  SWIM_REFUSALS_COUNT
};
const char *swim_refusal_name(enum swim_refusal reason); /* "SHORT", ... */

enum { SWIM_TYPES = 9 }; /* By type number, 0 unused. */
const char *swim_type_name(unsigned type); /* "ping", ...; NULL for a number that is none. */

struct swim_counts {
  uint64_t sent[SWIM_TYPES], received[SWIM_TYPES]; /* Datagrams by type; received ones were taken whole. */
  uint64_t bytes_sent, bytes_received;
  uint64_t refused[SWIM_REFUSALS_COUNT];
  uint64_t probes, probes_failed;  /* Begun by the round or a hint; ended without direct or indirect answer. */
  uint64_t indirect;               /* Probes that needed others. */
  uint64_t suspicions, refuted;    /* Members suspected here; suspicions of us that we answered. */
  uint64_t deaths;                 /* Suspicions that ran out here. */
  uint64_t late_acks;              /* Answers that nobody waited for. */
  uint64_t syncs;                  /* Tables asked for. */
  uint64_t streams;                /* Of them, those that came whole over a stream; */
  uint64_t stream_failures, streams_refused; /* ours that ended too soon; others' for which there was no place. */
  uint64_t held;                   /* Members held to be dead for coming and going. */
  uint64_t stalls;                 /* Times that our own timers ran late. */
  uint64_t conflicts;              /* Claims to our name and incarnation from another address. */
  uint64_t user_sent, user_heard;  /* Events of users: of ours, and delivered here. */
  uint64_t user_dropped;           /* Made room for newer ones while still to be told, or came too late to be told from a repetition. */
  uint64_t dropped;                /* Datagrams given up unsent because actions were not taken in time. */
  uint64_t health;                 /* Local health now: 0 is well, up to config.health_max. */
  uint64_t rumours;                /* Waiting now. */
  uint64_t rtt_ns;                 /* Smoothed round trip of direct probes; 0: none yet. */
};
const struct swim_counts *swim_counts(const struct swim *s);

#endif
