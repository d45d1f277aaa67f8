/* swim: who is in the cluster, and who of them is alive.
 *
 * SWIM (Das, Gupta, Motivala, DSN 2002) with the suspicion timeouts of Lifeguard (arXiv 1707.00788). Each member probes one other
 * member a period, in a shuffled round. A member that does not answer is probed through others, then suspected; if it does not
 * refute the suspicion in time, it is declared dead. News (rumours) travels on probes and their answers, and in gossip while
 * there is any. Pure state: events go in with the time, actions come out of swim_next(); no clock, socket or Lua.
 *
 * A member as one observer sees it. A claim carries an incarnation (generation, version), which only its subject chooses:
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
 * Claims about one member are ordered by (generation, version, state) with ALIVE < SUSPECT < DEAD < LEFT. Merging takes the
 * greatest: it is order-free, idempotent and commutative, and an observer's belief never decreases. The payload is merged
 * separately, by (generation, payload version). An address belongs to its (generation, version).
 *
 * Where this departs from the papers, and why:
 *  - An unanswered ping is repeated, ping_repeats times, evenly until the probe ends: without loss this costs nothing, and at 20 %
 *    loss it makes a false suspicion twenty times as rare.
 *  - Rumours have a budget of bytes a second over all datagrams (gossip_bytes_per_s), spent on the least-sent first, so that a
 *    storm of deaths takes a little longer instead of flooding the network. A refutation ignores the budget. When the rumours
 *    exceed a quarter of the table, as in a burst of joins, members exchange whole tables, which is cheaper then.
 *  - The k indirect probes come BEFORE the suspicion, and a period is probe_interval, as in the paper; some programs differ.
 *  - A ping carries the prober's belief about the target, so that a falsely suspected node refutes with that very answer. An
 *    answer to a node believed dead carries that belief first.
 *  - Generation is wall-clock seconds at start, or one more than any peer remembers, so a restart needs no disk, and a node whose
 *    clock was set back is not locked out. A node announces itself only after it has received a table, and with it the peers'
 *    memory of its earlier lives. A new generation ends the old life at every observer: dead, then join.
 *  - DEAD in a table becomes a suspicion of a member that is alive here: after a partition, the dead of each side can refute.
 *    DEAD in a datagram does too, until the member has had half the least time to refute here: so a node that was cut off
 *    cannot kill others by its word.
 *  - Each period, with probability 1 / live members, a node tries one dead member or seed: about one try a period for each side
 *    of a partition at any size, for ever. So a partition heals without help.
 *  - Acks carry a digest of the sender's table. If digests still differ after the rumours are out, members exchange tables: by
 *    datagrams when short, else over a stream. So there is no stream at rest.
 *  - Addresses that only a seed list names are UNCONFIRMED: they are tried for ever with backoff, are never suspected, are no
 *    members, and leave without a death (swim_forget). Only packets confirm; only confirmed records are gossiped.
 *  - A period begins at one of four instants of a period of the world's clock, drawn at random. Members of one process share that
 *    clock and wake up together, which saves most of their cost. Other processes have other clocks, so that no network beats in
 *    step. With many members in one process the mean wait is half a percent longer than in theory.
 *  - An observer that knows a suspicion only from hearsay pings the suspect before it declares it dead, for it may have missed the
 *    refutation. This costs one small datagram for each death and member, and half a period where the news of the death is slower.
 *  - A node whose own timers ran late accuses nobody until it has caught up, and its local health worsens.
 *  - A relay sends its nack after four fifths of the time that the prober still waits, not of its own timeout: late nacks would cost
 *    a healthy prober its health at each true death. A failed probe whose relays all answered costs no health: the target is silent.
 *  - A ping tells, in spare bits, which version of the target's coordinates the prober knows, and the ack carries them only when
 *    there is a newer one: at rest they cost nothing.
 *  - A member that is suspected, or dies and returns in the same life, again and again is held: each observer that sees this shows
 *    it as dead until it has been stable for a while. Else half reachable members would flap for ever. Only the view is damped; a
 *    restart ends it.
 *  - Events of users have their own budget and a quarter of each datagram, so that neither they nor membership starve. They are
 *    pushed a few times, and then asked for: members compare what they have seen (SEEN), and send what the other lacks.
 *  - A record of our own name at another address, which peers believe alive, may be a namesake's: before a new node announces itself it
 *    asks that address, and stays out while its namesake answers. Two that are members both find each other by their outbidding, which is
 *    bounded; the one that was born first stays. Both, and the seeds, get a notice. An old life does not answer, and delays nobody for more
 *    than a period.
 *  - A forgotten member is a tombstone that nobody shows (swim_erase), so that gossip does not bring it back; a living one refutes that.
 *
 * ---- Wire. One datagram is one message of at most SWIM_DATAGRAM_MAX bytes. Integers big-endian, varints core/bytes.h.
 *
 *   header   u16     magic 0x5377
 *            u8      wire version (high 4 bits), 1; type (low 4 bits)
 *            u16     cluster: the low half of crc32c(name of the cluster), to recognise datagrams of other clusters
 *            u32     crc32c, begun with crc32c(name of the cluster) >> 16, over the whole datagram with this field left out
 *            u32     sender: crc32c(its name), its key; an identity only together with the generation
 *            u32     sender's generation
 *            varint  sender's version
 *   1 PING       u32 sequence · claim about the target · records to the end
 *   2 ACK        u32 sequence of the ping or ping_req · u32 digest of the sender's table · records
 *   3 PING_REQ   u32 sequence · claim about the target · address of the target · varint ms that the prober waits for the answer · records
 *   4 NACK       u32 sequence of the ping_req: the target has not answered, but we have
 *   5 GOSSIP     records
 *   6 SYNC       u32 sequence · u8 flags: 1 the sender is new and asks for its own record, 2 it takes datagrams only
 *                u32 digest of its table
 *   8 ACK_AT     an ACK with the sender's coordinates between digest and records
 *   9 SEEN       u8 flags: bits 0-1 how many answers of this type it may cause in turn, 4 not all origins had room · windows to the end.
 *                The answer is a SEEN if that is allowed and the answerer lacks something or has more to tell, and events in GOSSIP
 *  10 INTRO      who the sender is; read across clusters, so its checksum begins with 0
 *                u8 flags: 1 asks for an INTRO, 2 is a member, 4 reports two nodes of its name · u32 its generation at its start
 *                u8 length and cluster · u8 length and name · its address; with flag 4: the address of the one that stays, and of the other
 *   7 TABLE      u32 sequence of the SYNC, or 0 · u8 flags: 1 the last piece, 2 it is long: fetch it over a stream
 *                u32 digest of the sender's table · with flag 2: u16 the port of its streams · records
 *
 *   On a stream each message has its length before it, u16. The side that opened it sends SYNC, receives the other's table in
 *   TABLEs, sends its own in TABLEs if the digests still differ, and closes. No other message is sent there.
 *
 *   claim    u32     key of the target
 *            u32     generation, varint version: the sender's belief about it
 *            u8      bits 0-1 its state; 2-7 the low bits of the version of its coordinates that the sender knows
 *   place    varint  version of the coordinates, 0 < it < 2^24; u8 their error, 255 for 1
 *            3 i16   where, u16 the height < 2^15, in 32nds of a millisecond (core/vivaldi.h)
 *   address  u8 family 4 or 6 · 4 or 16 bytes · u16 port
 *   record   u8      bits 0-1 state (0 alive, 1 suspect, 2 dead, 3 left) · 2 address is IPv6 · 3 payload follows ·
 *                    4 place follows · 5 forgotten (it is left, and not shown); the rest 0. 128: an event of a user
 *            u8      length of the name, 1 .. SWIM_NAME_MAX, and the name
 *            u32     generation < 2^32 - 1, varint version < 2^32 - 1
 *            4 or 16 bytes of address, u16 port > 0
 *            u32     key of the accuser, when the state is suspect
 *            varint  version of the payload, 0 < it < 2^32 - 1, varint its length, its bytes: when it follows
 *
 *            place:  when it follows (in tables; others get it by ACK_AT)
 *   event    u8 128 · u32 key and u32 generation of its sender · varint its number in that life, 0 < it <= 2^32 - 1025
 *            varint length 1 .. SWIM_USER_MAX, the bytes
 *   window   u32 key and u32 generation of a sender of events · varint base: up to it they are over ·
 *            varint low - base: up to low the sender of this message has seen them · varint span 0 .. SWIM_USER_WINDOW,
 *            low + span <= 2^32 - 1025 ·
 *            span bits in whole bytes, the lowest first: for each of low + 1 .. low + span, whether it has seen it
 *
 * A PING with nothing to tell is 32 bytes, its ACK 26: two small datagrams a period for each member.
 *
 * A program from before SEEN counts it as a refusal (TYPE), takes the events that are pushed to it, and never asks.
 *
 * The decoder takes any bytes: it checks a whole datagram before it uses any of it, and counts refusals by reason. Without seals
 * the checksum guards against accidents only.
 *
 * Limits: config.members_max records (one more is refused and counted); SWIM_SEEDS_MAX seeds. Pick and update are O(1), a suspicion
 * O(log suspects). All memory belongs to the table: 64 bytes a member, 9 to find and choose it, its name and payload in steps of 8,
 * 24 for one that recently gave trouble, and at most a sixteenth more. Once the table has grown, nothing is
 * allocated.
 *
 * Events of users, and what may be relied on. An event is kept until it has been pushed, and then for others that ask: at least 10
 * periods after it was last pushed or asked for, 60 when nothing newer needs its room, at most 300 after it came. Its teller decides
 * when it is over, and others learn that from SEEN. So:
 *  - Each member that is reached within that time gets each event once. It gets them in no order: the number of an event is its place
 *    among those of its teller, from 1 in each generation.
 *  - A member that is new or restarted also gets the events that are not over then: so it may get some from before its join, and
 *    after a restart some once more. The last events of a member that left or died are still delivered for 60 periods.
 *  - Nothing told is dropped to make room for something newer: swim_tell() returns ERR_FULL while SWIM_USER_WINDOW events of ours are
 *    not over, or SWIM_USERS_MAX of all members are kept here. Each of the first can be over 10 periods after it was last asked for.
 *  - Of a teller that fails, all members get what any of them got. An event that had reached none is lost.
 *  - A member whose store is full delivers an event and does not keep it; others get it from its teller.
 *  - An event that was over before it reached us is counted (user_missed), if it was told in our time.
 * Bytes: events and the windows in SEEN take at most user_bytes_per_s, of which an eighth of a second's worth (at least a datagram's)
 * may be saved up; the last one may overdraw, and is paid back. SEEN gets a quarter of it where events would take all. While events wait, rounds of gossip come four
 * times as often. At rest nothing is sent; while any event is kept, one SEEN a period: 22 bytes of header and 12 for each teller.
 * Memory: nothing before the first event; then 5 KB, for each teller 72 bytes, and 128 while there are gaps; for each event kept 48 and
 * its bytes in steps of 8. So at most 1.5 MB, 200 bytes for each member that ever told something, and 4 KB once we told something ourselves.
 * CPU: a datagram takes O(events in it); a SEEN, and each period, O(events kept + tellers): about 20 microseconds at most. */
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
  SWIM_USER_MAX = 256,      /* Bytes of an event of a user. */
  SWIM_USER_WINDOW = 1024,  /* Events of one member that are not over, at most. */
  SWIM_USERS_MAX = 4096,    /* Events of all members that one member keeps, at most. */
};

struct swim;

enum swim_state { SWIM_ALIVE, SWIM_SUSPECT, SWIM_DEAD, SWIM_LEFT };
const char *swim_state_name(enum swim_state state); /* "alive", "suspect", "dead", "left" */

struct swim_incarnation {
  uint32_t generation, version;
};

struct swim_config {
  uint32_t probe_interval_ms;    /* A period: between two probes of ours. */
  uint32_t probe_timeout_ms;     /* Without an answer for so long, probe indirectly; < probe_interval_ms. */
  uint32_t indirect_probes;      /* k: members asked for it. 0 .. 8 */
  uint32_t ping_repeats;         /* Repetitions of an unanswered ping within its probe. 0 .. 8; the papers: 0 */
  uint32_t health_max;           /* Local health: probes of a node in bad health take up to 1 + this times as long. 0 .. 8; 0: off,
                                  * and late timers are not excused either. */
  uint32_t buddy;                /* 1: a ping to a suspect, and the answer to its ping, carry the suspicion first. 0 or 1 */
  uint32_t verify_deaths;        /* 1: believe a death only of a member that had its time to refute here, or did not answer a ping of ours.
                                  * 0, as in the papers: believe it from anybody. DEAD in a table is never believed. 0 or 1 */
  uint32_t gossip_interval_ms;   /* Between two rounds of gossip, while there are rumours. */
  uint32_t gossip_fanout;        /* Members told in a round. 1 .. 8 */
  uint32_t retransmit_multiplier;/* A rumour is sent this many times ceil(log10(N + 1)). 1 .. 8 */
  uint32_t gossip_bytes_per_s;   /* Of rumours, on whatever datagram, at most; four times that in the first ten
                                  * periods. Up to a datagram's worth may be saved up. 300 .. 10^7 */
  uint32_t user_bytes_per_s;     /* Of events of users and of asking for them, in addition, while there are any. 300 .. 10^7 */
  uint32_t suspicion_multiplier; /* Least time to refute, in periods; times max(1, log10 N). 1 .. 16 */
  uint32_t suspicion_max;        /* Most time to refute, in least times. 1 .. 16 */
  uint32_t confirmations;        /* K: further accusers that reduce the time to the least. 0 .. 7 */
  uint32_t sync_interval_ms;     /* While digests differ, pauses between exchanges of tables grow from a period to this. */
  uint32_t join_retry_ms;        /* First backoff of a seed that does not answer; doubles, */
  uint32_t join_retry_max_ms;    /* up to this. */
  uint32_t leave_timeout_ms;     /* Stop waiting for witnesses of our leaving. */
  uint32_t tombstone_ms;         /* How long a dead or departed member is remembered. */
  uint32_t datagram_max;         /* SWIM_DATAGRAM_MIN .. SWIM_DATAGRAM_MAX */
  uint32_t stream_bytes;         /* A table longer than about this is fetched over a stream, where the driver has them. 0 .. 10^8 */
  uint32_t members_max;          /* Records kept at most, tombstones and ourselves included. */
  uint32_t flap_limit;           /* Points (1 for each suspicion, 3 more for each death) from which a flapping member is held (shown as
                                  * dead), until a quarter of them is left. 2 .. 1000; 0: never */
  uint32_t flap_half_life_ms;    /* Half-life of points. */
};

/* The values of a profile: "lan", "wan" or "local". 0, or ERR_NOT_FOUND. */
int swim_config_profile(const char *name, struct swim_config *out);
/* NULL, or the problem, such as "probe_timeout_ms must be less than probe_interval_ms". Static. */
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
void swim_close(struct swim *s); /* Frees it; sends nothing. */

/* ---- events. After each, take actions with swim_next() until there is none. ---- */

/* A datagram arrived. Returns 0, or the reason of its refusal: ERR_MALFORMED, ERR_REFUSED (not for us); both are counted. */
int swim_receive(struct swim *s, uint64_t now_ns, const struct shoal_address *from, const void *bytes, size_t length);
/* Streams, for tables too long for datagrams. A driver that has streams sets the port at which it accepts them once, > 0. It then
 * opens, writes and closes by the actions below, and reports the events here. The core numbers the streams. */
void swim_streams(struct swim *s, uint16_t port);
void swim_stream_opened(struct swim *s, uint64_t now_ns, uint32_t stream);
uint32_t swim_stream_accepted(struct swim *s, uint64_t now_ns, const struct shoal_address *from); /* 0: close it, there are enough. */
void swim_stream_received(struct swim *s, uint64_t now_ns, uint32_t stream, const void *bytes, size_t length);
/* It could not be opened, or it ended: the driver closes it by itself. */
void swim_stream_ended(struct swim *s, uint64_t now_ns, uint32_t stream);
/* Time passed; to be called at swim_deadline() or any time. */
void swim_tick(struct swim *s, uint64_t now_ns);
/* When swim_tick is next due; UINT64_MAX: never. */
uint64_t swim_deadline(const struct swim *s);
/* Try this address with backoff until it answers, and again later whenever it is not alive. An address that is already listed is
 * tried at once. Returns 0, or ERR_FULL. */
int swim_join(struct swim *s, uint64_t now_ns, const struct shoal_address *seed);
/* Remove it from the list. False when it is not listed. */
bool swim_forget(struct swim *s, const struct shoal_address *seed);
/* Remove a member that is dead, or has left, here and everywhere: nobody shows it any more, and gossip does not bring it back. If it lives
 * after all it returns by itself, in the same life or a new one. Returns 0; ERR_NOT_FOUND; ERR_BUSY: it is alive or suspect, or
 * ourselves. */
int swim_erase(struct swim *s, uint64_t now_ns, const char *name, size_t name_length);
/* Tell others that we leave, and wait until a few have acknowledged it: SWIM_LEFT_DONE comes then, or after leave_timeout_ms.
 * A second call changes nothing. We stop probing, but still answer. */
void swim_leave(struct swim *s, uint64_t now_ns);
bool swim_is_leaving(const struct swim *s); /* Or has left. */
/* Replace our payload, with the next version. Returns 0, ERR_TOO_LARGE or ERR_MEMORY. */
int swim_set_payload(struct swim *s, uint64_t now_ns, const void *bytes, size_t length);
/* Tell bytes to every other member: each one that is reached gets them once, in no order, as SWIM_EVENT_USER; we do not. See the limits
 * above. Returns 0, ERR_TOO_LARGE (none, or more than SWIM_USER_MAX), ERR_MEMORY, or ERR_FULL: too many events are not over. Then
 * nothing changed; tell it again from swim_tell_after_ns() on, or tell less. */
int swim_tell(struct swim *s, uint64_t now_ns, const void *bytes, size_t length);
/* From when on swim_tell() may find room again; now, if it would now. */
uint64_t swim_tell_after_ns(const struct swim *s);
/* Change the configuration while it runs; probes and suspicions in progress keep their deadlines. Returns 0; ERR_CONFIG, or ERR_FULL
 * when there are more records than members_max: nothing changed then. */
int swim_reconfigure(struct swim *s, uint64_t now_ns, const struct swim_config *config);
const struct swim_config *swim_config_now(const struct swim *s);
/* There is a sign that this member has failed (a connection reset, the exit of a process): probe it at once. The hint alone decides
 * nothing. False when the member is not alive, or too many such probes are running. */
bool swim_hint(struct swim *s, uint64_t now_ns, const char *name, size_t name_length);

/* ---- actions ---- */

enum swim_event {
  SWIM_EVENT_JOIN,    /* It is a member: new, back from the dead, released from being held, or in a new life. */
  SWIM_EVENT_SUSPECT, /* It does not answer. */
  SWIM_EVENT_ALIVE,   /* It refuted a suspicion. */
  SWIM_EVENT_DEAD,    /* It was a member, and the incarnation shown has ended, or it is flapping: `held` then. */
  SWIM_EVENT_LEFT,    /* It announced that itself. */
  SWIM_EVENT_UPDATE,  /* Its payload or address changed. */
  SWIM_EVENT_FORGOTTEN, /* It was dead or had left, and was erased. The member as it was. */
  SWIM_EVENT_USER,    /* It sent bytes, swim_action.told. Also from a member shown as dead, for others may have received it. */
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
  bool held;                /* It is shown as dead because it flapped too often. */
  uint64_t changed_ns;      /* When its state last changed here, by its own claims and others'. */
  /* Of its present suspicion here; in an event, of the suspicion that it ended. 0 without one (by hearsay). */
  uint32_t suspected_ms, confirmations;
  uint64_t rtt_ns; /* Smoothed round trip of our direct probes of it; 0: none was answered. Within 1/2048. */
};
/* What people should know of nodes that cannot be members together. The same notice comes again each minute while it holds. */
enum swim_notice_kind {
  SWIM_NAMESAKE,      /* Two nodes have the name: `one` is a member and stays, `other` stays out. */
  SWIM_NAMESAKE_GONE, /* Our namesake `other` does not answer any more: we are in again. */
  SWIM_FOREIGN,       /* The node at `one` is of `cluster`, and we are not. */
};
struct swim_notice {
  enum swim_notice_kind kind;
  bool ours, out; /* SWIM_NAMESAKE: it is our name; we stay out. */
  char name[SWIM_NAME_MAX], cluster[SWIM_CLUSTER_MAX];
  size_t name_length, cluster_length;
  struct shoal_address one, other;
};

enum swim_action_kind {
  SWIM_SEND,
  SWIM_EVENT,
  SWIM_LEFT_DONE,
  SWIM_NOTICE,
  SWIM_STREAM_OPEN,  /* Connect `stream` to `to`. */
  SWIM_STREAM_SEND,  /* Write these bytes on `stream`. */
  SWIM_STREAM_CLOSE, /* Close it after everything written was sent; its number is invalid from now on. */
};
struct swim_action {
  enum swim_action_kind kind;
  struct shoal_address to; /* SWIM_SEND: this datagram, to here. Valid until the next call. */
  uint32_t stream;
  const uint8_t *bytes;
  size_t length;
  enum swim_event event; /* SWIM_EVENT. The member as it is now, but with the incarnation and state of the event. */
  struct swim_member member;
  const uint8_t *told; /* SWIM_EVENT_USER: the bytes, and the event's number, from 1 in each life. */
  size_t told_length;
  uint32_t told_number;
  const struct swim_notice *notice; /* SWIM_NOTICE: valid until the next call. */
  uint32_t heard; /* SWIM_LEFT_DONE: members that acknowledged it. */
};
/* Take one; false when none is left. Datagrams come first, then events in the order they happened. */
bool swim_next(struct swim *s, struct swim_action *out);

/* ---- looking ---- */

/* Walk over the table: start with *cursor 0; false at the end. It includes ourselves. The order is unspecified. */
bool swim_each(const struct swim *s, uint32_t *cursor, struct swim_member *out);
bool swim_find(const struct swim *s, const char *name, size_t name_length, struct swim_member *out);
void swim_self(const struct swim *s, struct swim_member *out);
/* The round trip between two members as predicted by their coordinates, in nanoseconds; 0 when one of them has announced none (no
 * member does while all are within a millisecond or two of each other). */
uint64_t swim_distance_ns(const struct swim *s, const char *a, size_t a_length, const char *b, size_t b_length);

/* The evidence for a member's state, the newest first. */
#define SWIM_FACTS(X)                                                      \
  X(JOINED, "joined")                                                      \
  X(UNANSWERED, "probe unanswered: direct, repeated and indirect pings")   \
  X(SUSPECTED, "suspected")                                                \
  X(CONFIRMED, "suspicion confirmed")                                      \
  X(CHECKED, "suspicion from hearsay timed out: pinged it ourselves")      \
  X(REFUTED, "refuted, or was heard again")                                \
  X(TIMED_OUT, "suspicion timed out")                                      \
  X(DEAD, "dead by hearsay")                                               \
  X(LEFT, "left")                                                          \
  X(RESTARTED, "restarted")                                                \
  X(HELD, "flapped too often: held, that is shown as dead")                \
  X(RELEASED, "released: stable for long enough, or others are no better") \
  X(EXCUSED, "our own timers ran late: all running probes were excused")
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
  bool answered;           /* It has answered us in the last 18 hours: */
  uint32_t heard_s;        /* this long ago. */
  bool probing;            /* We are probing it, from probe_ns until probe_end_ns. */
  uint64_t probe_ns, probe_end_ns;
  uint32_t health;         /* Our own local health. */
  /* While it is suspect: when that began; when it ends if nothing more is heard, at the earliest and at the latest; the names of
   * its accusers, the first one first (NULL: unknown). */
  uint64_t suspected_ns, deadline_ns, least_ns, most_ns;
  uint32_t accusers_count, wanted;
  const char *accusers[SWIM_WHY_ACCUSERS];
  size_t accusers_length[SWIM_WHY_ACCUSERS];
  double flap_points;      /* Its points; while it is held, also the time of its release if it gets no more. */
  uint64_t held_until_ns;
  uint32_t facts_count;
  struct {
    enum swim_fact_kind kind;
    uint64_t at_ns;
    struct swim_incarnation incarnation;
    const char *other; /* The source; NULL: ourselves, or unknown. */
    size_t other_length;
    uint32_t value;    /* UNANSWERED: members asked * 256 + nacks heard. TIMED_OUT: confirmations. HELD: points * 16. Else 0. */
  } facts[SWIM_WHY_FACTS];
};
/* False when it is not in the table. Pointers are valid until the next call into this swim. */
bool swim_why(const struct swim *s, const char *name, size_t name_length, struct swim_why *out);

/* A seed, as it stands. */
struct swim_seed {
  struct shoal_address address;
  bool answered;     /* It sent its table. */
  uint32_t tries;    /* Without an answer so far, */
  uint64_t since_ns; /* from then on. */
  int refused;       /* The last datagram from there was refused for this enum swim_refusal; -1: none was. */
};
bool swim_each_seed(const struct swim *s, uint32_t *cursor, struct swim_seed *out);
bool swim_is_out(const struct swim *s); /* We stay out of the cluster, for a namesake is in it. */

uint32_t swim_live(const struct swim *s);    /* Shown as alive or suspect, ourselves included until we leave. */
uint32_t swim_records(const struct swim *s); /* All kept, tombstones included. */
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

enum { SWIM_TYPES = 11 }; /* By type number, 0 unused. */
const char *swim_type_name(unsigned type); /* "ping", ...; NULL for a number that is none. */

struct swim_counts {
  uint64_t sent[SWIM_TYPES], received[SWIM_TYPES]; /* Datagrams by type; received ones were valid. */
  uint64_t bytes_sent, bytes_received;
  uint64_t refused[SWIM_REFUSALS_COUNT];
  struct shoal_address refused_from[SWIM_REFUSALS_COUNT]; /* The source of the last one. */
  uint64_t probes, probes_failed;  /* Begun by the round or a hint; ended without direct or indirect answer. */
  uint64_t indirect;               /* Probes that needed others. */
  uint64_t suspicions, refuted;    /* Members suspected here; suspicions of ourselves that we refuted. */
  uint64_t deaths;                 /* Suspicions that timed out here. */
  uint64_t late_acks;              /* Answers after their deadline, or to no probe of ours. */
  uint64_t syncs;                  /* Tables asked for. */
  uint64_t streams;                /* Of these, tables received completely over a stream. */
  uint64_t stream_failures, streams_refused; /* Our streams that ended too soon; others' beyond the bound. */
  uint64_t held;                   /* Members held for flapping. */
  uint64_t stalls;                 /* Times that our own timers ran late. */
  uint64_t conflicts;              /* Claims to our name and incarnation from another address. */
  uint64_t user_sent, user_heard;  /* Events of users: told by us, and delivered here. */
  uint64_t user_full;              /* swim_tell() returned ERR_FULL. */
  uint64_t user_repeated;          /* Came again. */
  uint64_t user_missed;            /* Over before they reached us. */
  uint64_t user_dropped;           /* Came while there was no memory. */
  uint64_t dropped;                /* Datagrams dropped unsent because actions were not taken in time. */
  uint64_t health;                 /* Local health now: 0 is well, up to config.health_max. */
  uint64_t rumours;                /* In progress now. */
  uint64_t rtt_ns;                 /* Smoothed round trip of direct probes; 0: none yet. */
};
const struct swim_counts *swim_counts(const struct swim *s);

#endif
