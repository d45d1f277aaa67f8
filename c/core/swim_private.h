/* swim_private: shared by the parts of swim. swim.c: events and actions · swim_table.c: the table · swim_members.c: merging ·
 * swim_gossip.c: rumours · swim_probe.c: probes and relays · swim_join.c: seeds, leaving · swim_tables.c: tables, streams ·
 * swim_wire.c: bytes · swim_user.c, swim_seen.c: events of users · swim_why.c, swim_place.c, swim_flap.c: evidence, coordinates, damping ·
 * swim_intro.c: namesakes and other clusters.
 *
 * A member is identified by its id, its index in the table, which never changes while the member is kept. The table moves when it
 * grows, so a pointer into it is valid only until the next add(). */
#ifndef SHOAL_SWIM_PRIVATE_H
#define SHOAL_SWIM_PRIVATE_H

#include "core/backoff.h"
#include "core/blobs.h"
#include "core/bytes.h"
#include "core/heap.h"
#include "core/rng.h"
#include "core/suspicion.h"
#include "core/swim.h"
#include "core/vivaldi.h"

#define NONE UINT32_MAX
#define NS_PER_MS UINT64_C(1000000)
#define USER_NUMBER_MAX (UINT32_MAX - SWIM_USER_WINDOW) /* Of an event, so that a window never reaches around zero. */

enum {
  SELF = 0,             /* Our own id. */
  SENDS_MAX = 64,       /* Datagrams that can wait for swim_next; more are dropped and counted. */
  EVENTS_MAX = 512,     /* Waiting for swim_next. */
  EVENTS_INPUT = 256,   /* The most that one input adds: 3 for a suspicion in a new life, 76 such records in a datagram. */
  EXPIRE_MAX = 64,      /* Suspicions that one tick ends; the deadline stays due for the rest. */
  PHASES = 4,           /* Instants in a period of the clock at which our periods may begin: swim_in_step. */
  PROBES_MAX = 16,      /* At once: of the round, of leaving and of hints. */
  RELAYS_MAX = 64,      /* Pings sent for others; beyond it the oldest is forgotten. */
  TRANSFERS_MAX = 8,    /* Tables being sent. */
  TABLE_BURST = 8,      /* Datagrams of a table in a row, */
  TABLE_GAP_MS = 10,    /* then a pause, so that no receiver's buffer overflows. */
  CONNS_MAX = 8,        /* Streams: half of them ours, half accepted. */
  FRAME_MAX = 2 + SWIM_DATAGRAM_MAX,
  SENT_MAX = 48,        /* Most transmissions of a rumour: 8 * ceil(log10(10^6)). */
  AGREED = 4,           /* Acks in a row with our own digest, after which rumours of live members are moot. */
  WITNESSES = 3,        /* Members that must acknowledge our leaving. */
  YOUNG = 10,           /* Periods in which a new node may gossip more. */
  BULK = 16,            /* From so many rumours on, tables may be cheaper than gossip. */
  PUSHES = 3,           /* Times that each member pushes an event of a user: most others have it then. The rest is asked for. */
  STORM = 64,           /* While so many wait to be pushed, once is enough: what others lack, their questions say. */
  ROUNDS = 4,           /* Rounds of pushing in an interval of gossip. */
  KEEP_LEAST = 10,      /* Periods for which an event is kept after it was last pushed or asked for; */
  KEEP_MOST = 60,       /* when nothing newer needs its room; */
  KEEP_LIMIT = 300,     /* and after it came, however often it is asked for. */
  ORIGIN_BUCKETS = 256,        /* For finding an origin. */
  ANSWERS_MAX = 2,      /* Members that are being sent what they lack, */
  ANSWER_EVENTS = 128,  /* and the most events for each. */
  SLOTS_MAX = SWIM_USERS_MAX + EVENTS_MAX + 1, /* Those kept; those only to be delivered here, and the last delivered. */
  FACTS_MAX = 256,      /* Facts of evidence, about all members together. */
  PLACE_VERSION_MAX = (1 << 24) - 1,
  PLACE_PERIODS = 10,   /* Least number of periods between two versions of our coordinates. */
  SWEEP = 8,            /* Table slots checked for reaping each period. */
  FANOUT_MAX = 8,
  IPV6_BYTES = 16,
  SOURCES_MAX = 8,      /* Nodes of other clusters that are remembered. */
  NOTICES_MAX = 8,      /* Waiting for swim_next. */
  WINDOW_MAX_MS = 600000 * 9, /* Of a probe: the longest interval in the worst health. */
};

enum type { PING = 1, ACK, PING_REQ, NACK, GOSSIP, SYNC, TABLE, ACK_AT, SEEN, INTRO };
enum { SYNC_NEW = 1, SYNC_DATAGRAMS = 2, TABLE_LAST = 1, TABLE_STREAM = 2 };

/* ---- wire ---- */

struct header {
  uint8_t type;
  uint32_t key;
  struct swim_incarnation incarnation;
};
struct claim {
  uint32_t key;
  struct swim_incarnation incarnation;
  uint8_t state;
  uint8_t place; /* The low 6 bits of the known version of its coordinates. */
};
struct place { /* Coordinates. */
  struct vivaldi at;
  uint32_t version; /* 1 .. PLACE_VERSION_MAX; 0: not known. */
  uint8_t error;
};
struct record { /* The bytes belong to the datagram. */
  const char *name;
  size_t name_length;
  struct shoal_address address;
  struct swim_incarnation incarnation;
  uint8_t state;
  bool forgotten; /* Only of state LEFT. */
  uint32_t accuser;
  const uint8_t *payload;
  size_t payload_length;
  uint32_t payload_version; /* 0: none follows. */
  struct place place;       /* Version 0: none follows. */
};
struct user_event { /* The bytes belong to the datagram. */
  uint32_t key, generation, number; /* Its sender, and its number in that life, from 1. */
  const uint8_t *bytes;
  size_t length;
};
struct cluster { /* Identifies datagrams of our cluster. */
  uint32_t crc;
};

void swim_wire_header(struct writer *w, const struct cluster *cluster, const struct header *header);
/* Set the checksum of a finished datagram. */
void swim_wire_seal(uint8_t *bytes, size_t length, const struct cluster *cluster);
/* Check and read the header, and move the reader behind it. 0, or minus (reason + 1). */
int swim_wire_open(const struct cluster *cluster, const uint8_t *bytes, size_t length, struct header *out, struct reader *r);
void swim_wire_write_claim(struct writer *w, const struct claim *claim);
void swim_wire_read_claim(struct reader *r, struct claim *out);
void swim_wire_write_address(struct writer *w, const struct shoal_address *address);
void swim_wire_read_address(struct reader *r, struct shoal_address *out);
size_t swim_wire_record_size(const struct record *record);
void swim_wire_write_record(struct writer *w, const struct record *record);
/* False: no more (at the end, or r->failed). For an event of a user the name is empty and *user is set. */
bool swim_wire_read_record(struct reader *r, struct record *out, struct user_event *user);
size_t swim_wire_user_size(const struct user_event *user);
void swim_wire_write_user(struct writer *w, const struct user_event *user);
void swim_wire_write_place(struct writer *w, const struct place *place);
void swim_wire_read_place(struct reader *r, struct place *out);
uint32_t swim_wire_key(const char *name, size_t name_length);

/* ---- state ---- */

struct member { /* 64 bytes: most of the table's memory. */
  uint32_t key;
  struct swim_incarnation incarnation;
  uint32_t payload_version;
  uint32_t blob;      /* The name, 16 bytes of address if it is IPv6, the payload. */
  uint32_t place;     /* Index among the living or the dead; NONE for left and for ourselves. Of a free slot: the next free one. */
  uint32_t suspicion; /* Handle in `suspicions`; NONE unless suspect. */
  uint32_t rumour;    /* Index in `rumours`; NONE without one. */
  uint8_t host[4];    /* If it is IPv4. */
  uint16_t port;
  uint16_t payload_length;
  uint8_t name_length; /* 0: the slot is free. */
  uint8_t state : 2, ipv6 : 1;
  uint8_t flapped : 1, held : 1; /* It has a struct flap; it is held. */
  uint8_t forgotten : 1; /* It is left, and not shown. */
  uint16_t changed_high; /* When the state last changed, in milliseconds. */
  uint32_t changed_low;
  uint16_t rtt;   /* Smoothed round trip of direct probes, as swim_rtt_ns() reads it; 0: not known. */
  uint16_t heard; /* The second, modulo 2^16, in which it last answered us; 0: never. */
  uint32_t place_version : 24, place_error : 8;
  struct vivaldi at;
};

struct suspect { /* A member under suspicion. */
  struct suspicion of;
  bool asked; /* Known from hearsay; its deadline passed, and we have pinged it ourselves. */
};

struct flap { /* The points of a member that gave trouble (swim_flap.c), at that time. */
  uint32_t id;
  double points;
  uint64_t at_ns;
};

struct rumour { /* News of a member; in the list of rumours sent equally often. Free ones are linked by `next`. */
  uint32_t id, next, previous;
  uint8_t sent;    /* Transmissions so far; the index of its list. */
  bool payload;    /* Its record carries the payload. */
};

struct list { /* Of rumours: added at the tail, removed at the head. */
  uint32_t head, tail;
};

enum stage { PROBE_FREE, PROBE_DIRECT, PROBE_INDIRECT };
enum purpose { FOR_ROUND, FOR_HINT, FOR_LEAVE };
struct probe {
  enum stage stage;
  enum purpose purpose;
  uint32_t target, key; /* Id, and key, because the slot may have been reaped and reused. */
  struct swim_incarnation incarnation; /* Of the target at the start: a newer one is a sign of life. */
  uint32_t sequence;
  uint64_t sent_ns, again_ns, indirect_ns, end_ns; /* again: when to repeat the ping next. */
  uint64_t first_ns, step_ns; /* The first repetition, and the interval between them. Each has its own sequence, one higher. */
  uint8_t repeats;       /* Repetitions sent. */
  uint8_t asked, nacks;  /* Members asked for an indirect probe, and their nacks. */
};
struct relay {
  uint32_t sequence; /* Of our ping; 0: free. */
  uint32_t key;      /* Of its target. */
  uint32_t asked;    /* The asker's sequence, */
  struct shoal_address asker;
  uint64_t nack_ns;  /* When to send the nack; UINT64_MAX: sent. */
  uint64_t until_ns; /* From then on an answer is of no use. */
};
struct seed {
  struct shoal_address address;
  uint64_t next_ns;    /* When to try it; UINT64_MAX once it has answered. */
  struct backoff backoff;
  uint32_t sequence;   /* Of the last SYNC to it. */
  uint32_t member;     /* The key of the member that answered; 0: none yet. */
  uint32_t tries;      /* Without an answer, */
  uint64_t since_ns;   /* since then. */
  int refused;         /* 1 + the reason for which the last datagram from there was refused; 0: none. */
};
enum rival_stage { RIVAL_NONE, RIVAL_ASKED /* Does it live? */, RIVAL_LIVES, RIVAL_GONE };
struct rival { /* Another node that has our name, or had it. */
  enum rival_stage stage;
  struct shoal_address address;
  uint32_t generation; /* The greatest known of it. */
  uint8_t knocks;      /* Introductions sent in this round. */
  uint64_t next_ns;    /* The next one; UINT64_MAX: none. */
  uint64_t told_ns;    /* When the last notice of it came; 0: none yet. */
};
struct source { /* A node of another cluster. */
  struct shoal_address address;
  uint64_t ask_ns, answer_ns, told_ns; /* The earliest time of the next introduction, answer, notice. */
  uint64_t used_ns;                    /* 0: free. */
};
struct intro { /* Allocated with the first need. */
  struct source sources[SOURCES_MAX];
  struct swim_notice notices[NOTICES_MAX], taken;
  uint32_t notices_count;
};
struct transfer { /* A table being sent. */
  bool active;
  bool by_stream;    /* Only the message that asks to fetch it over a stream. */
  struct shoal_address to;
  uint32_t channel;  /* On this stream; 0: as datagrams. */
  uint32_t first;    /* An id to send before all others, or NONE. */
  uint32_t cursor;   /* The next id; NONE: none. */
  uint32_t sequence;
  uint32_t burst;    /* Datagrams left before the pause. */
  uint64_t next_ns;
};
struct conn { /* A stream. */
  uint32_t channel;  /* Its number; 0: free. */
  bool ours, open_due, sync_due, close_due;
  bool whole;        /* The other's table is complete. */
  struct shoal_address to, back; /* The other end; and for our streams that member's datagram address. */
  uint32_t sequence; /* Of our SYNC. */
  uint64_t until_ns; /* Closed then, unless bytes come. */
  uint8_t *buffer;   /* FRAME_MAX bytes: the message being received, its length in front. */
  uint32_t length;
};

struct send { /* A datagram that is encoded when it is taken. */
  enum type type;
  uint8_t flags;
  struct shoal_address to;
  uint32_t about;    /* Id of the recipient, to send our belief about it first, or NONE. */
  uint32_t sequence;
  struct claim claim;
  struct shoal_address target; /* PING_REQ, */
  uint32_t window_ms;          /* and how long we wait for the answer. */
  bool self_first;   /* Our own record goes first. */
};
struct event {
  enum swim_event kind;
  uint32_t id;
  struct swim_incarnation incarnation;
  uint8_t state;
  uint8_t confirmations; /* Of the suspicion that it ended, and its duration. */
  uint32_t suspected_ms;
  uint32_t user; /* SWIM_EVENT_USER: its slot. */
};

struct user { /* An event of a user: a slot, free while its length is 0. */
  uint64_t at_ns, needed_ns; /* When it came here, and when it was last pushed or asked for. */
  uint32_t origin, number; /* The index of its origin. */
  uint32_t blob;           /* Its bytes. */
  uint32_t next, previous; /* In the list of those pushed equally often; of a free slot: the next free one. */
  uint16_t length;
  uint8_t sent;
  bool kept;    /* For others. */
  bool waiting; /* Still to be delivered here. */
};
struct origin { /* One life of a member, and which of its events we have seen: swim_seen.c. */
  uint32_t key, generation; /* key 0: free. */
  uint32_t base, low, newest, known;
  uint32_t held;     /* Events of it that are kept here. */
  uint32_t next;     /* With the same bucket, or the next free one. */
  uint32_t stamp, entry; /* The SEEN being handled names it, in that entry. */
  bool fresh;        /* We are new, and its first events may be from before our time. */
  uint64_t heard_ns; /* When there was last news of it, */
  uint64_t low_ns;   /* and since when there is a gap. */
  uint64_t *seen;    /* Bits of low + 1 .. newest, at their numbers modulo the window; NULL while there are none. */
};
struct seen { /* An entry of SEEN. The bits belong to the datagram. */
  uint32_t key, generation, base, low, top;
  const uint8_t *bits;
};
struct answer { /* Events that a member lacks, by slot. */
  struct shoal_address to;
  uint32_t count, sent;
  uint32_t at[ANSWER_EVENTS], origins[ANSWER_EVENTS], numbers[ANSWER_EVENTS];
};
struct users { /* Allocated with the first event. */
  struct user *at;
  uint32_t capacity, free, used, kept, unspent; /* Slots; taken; kept for others; of these, not yet pushed often enough. */
  struct list lists[PUSHES];
  struct blobs bytes;
  uint32_t delivered;  /* The slot whose bytes the last action points to; NONE. */
  uint64_t looked_ns;  /* No search for room before then. */
  struct origin *origins;
  uint32_t origins_capacity, origins_count, origins_free, buckets[ORIGIN_BUCKETS];
  uint32_t *own, own_origin; /* The slots of our own events by number, modulo the window. */
  uint64_t push_ns, seen_ns, seen_wait_ns; /* Next rounds of pushing and asking; the pause after that. */
  uint32_t seen_rounds, stamp;
  uint32_t cursor;     /* The origin with which the next SEEN begins. */
  struct answer answers[ANSWERS_MAX];
};

struct fact {
  uint64_t at_ns;
  uint32_t key, other;
  struct swim_incarnation incarnation;
  uint32_t value;
  uint8_t kind;
};

struct swim {
  struct swim_config config;
  struct cluster cluster;
  struct rng rng;
  uint64_t now_ns;
  struct swim_counts counts;

  struct member *members;
  uint32_t members_count; /* Slots in use or free; members[SELF] is ours. */
  uint32_t members_capacity;
  uint32_t free_head, kept; /* kept: slots in use. */
  struct blobs blobs;
  uint32_t *index, index_count; /* Ids by the hash of their names; NONE: empty. */
  uint32_t *order;     /* members_capacity ids: the living without ourselves from the front, the dead from the back. */
  uint32_t living, dead;
  uint32_t cursor;     /* The living at [0, cursor) were probed in this round. */
  uint32_t sweep_at;
  uint32_t digest;
  struct heap suspects; /* Deadlines; key: id. */
  struct suspect *suspicions; /* By handle of `suspects`. */
  uint32_t suspicions_capacity;
  uint32_t ended_ms;   /* Duration and confirmations of the suspicion that the last move ended. */
  uint8_t ended_confirmations;
  struct flap *flaps;  /* In no order. */
  uint32_t flaps_count, flaps_capacity, flaps_at; /* at: the next one to check for removal. */
  uint32_t held;       /* How many members are held. */
  double flaps_sum;    /* The decayed sum of all points, as of */
  uint64_t flaps_sum_ns;

  struct rumour *rumours;
  uint32_t rumours_capacity, rumours_count, rumours_free;
  struct list lists[SENT_MAX];
  int64_t budget_bytes; /* Bytes that rumours may still use, */
  uint64_t budget_ns;   /* as of when, */
  uint64_t young_ns;    /* and the end of the time in which they may use more. */
  int64_t user_budget_bytes; /* Bytes that events of users may still use, */
  int64_t seen_budget_bytes; /* those of them that SEEN may use, */
  uint64_t user_budget_ns;   /* as of when. */
  struct users *users;
  uint32_t user_number;      /* The number of our last event. */
  struct fact *facts;        /* A ring, once there are FACTS_MAX. */
  uint64_t facts_count;      /* Ever. */
  uint32_t facts_capacity;
  uint32_t agreed;           /* Acks in a row with our own digest. */
  struct vivaldi_self place; /* Ours, */
  uint64_t place_ns;         /* and the earliest time of its next version. */
  uint64_t gossip_ns; /* Next round; UINT64_MAX while there is nothing to gossip. */

  uint64_t probe_ns;  /* Next period; UINT64_MAX once we left. */
  struct probe probes[PROBES_MAX];
  struct relay *relays; /* RELAYS_MAX of them, allocated with the first request. */
  uint32_t relay_next;
  uint64_t relay_ns;  /* Earliest time of a nack; UINT64_MAX: none. */
  uint64_t relays_until_ns; /* No relay waits for an answer from then on. */
  uint32_t probes_used;
  uint32_t health;    /* Lifeguard's local health multiplier less one: 0 well .. config.health_max. */
  uint32_t sequence;

  char cluster_name[SWIM_CLUSTER_MAX];
  size_t cluster_name_length;
  uint32_t born;       /* Our generation at the start. */
  struct rival rival;
  struct intro *intro;
  bool apart;          /* We stay out: a namesake is a member. */
  uint32_t outbids;    /* In a row; */
  uint64_t outbid_ns;  /* none counts after that. */

  struct seed seeds[SWIM_SEEDS_MAX];
  uint32_t seeds_count;
  bool joined;         /* A table was received in this life. */
  bool joining_more;   /* The two further tables are still to be requested. */
  uint32_t first_table; /* The sequence of the first table of this life. */
  uint32_t syncing;    /* Sequence of the last SYNC not sent to a seed. */
  uint64_t sync_ns;    /* Earliest next exchange for differing digests; */
  uint64_t sync_wait_ns; /* the pause after that: a period once digests were equal, then doubling. */
  struct transfer transfers[TRANSFERS_MAX];
  struct conn conns[CONNS_MAX];
  bool tables_busy;    /* A transfer or a stream may be in progress. */
  uint32_t channels;   /* The last number given to a stream. */
  uint32_t channel;    /* The stream of the message being handled; 0: it is a datagram. */
  uint16_t stream_port; /* The port of our streams; 0: the driver has none. */

  bool leaving, left_told;
  uint32_t witnesses[WITNESSES], witnesses_count, witnesses_wanted; /* Ids of those that acknowledged our leaving. */
  uint64_t leave_ns; /* When to stop waiting; UINT64_MAX: not leaving. */

  /* Both are queues: added at head + count, taken at head. They grow on demand, so that a node at rest has small ones. */
  struct send *sends;
  uint32_t sends_head, sends_count, sends_capacity;
  struct event *events;
  uint32_t events_head, events_count, events_capacity;
  uint8_t out[FRAME_MAX];
};

static inline uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t ms(uint64_t n) { return n * NS_PER_MS; }
int swim_incarnation_compare(struct swim_incarnation a, struct swim_incarnation b);

/* swim.c */
/* The event just added, for the caller to complete; NULL without memory: then it is lost, and counted. */
struct event *swim_emit(struct swim *s, enum swim_event kind, uint32_t id, struct swim_incarnation incarnation, uint8_t state);
void swim_post(struct swim *s, const struct send *send);
uint32_t swim_next_sequence(struct swim *s); /* Never 0; the next FANOUT_MAX numbers are free too. */
void swim_view(const struct swim *s, uint32_t id, struct swim_member *out);

/* swim_table.c */
int swim_members_open(struct swim *s, const struct swim_identity *identity);
void swim_members_close(struct swim *s);
uint32_t swim_members_find(const struct swim *s, const char *name, size_t name_length);
/* The member with this key; if several share it, the one of this generation. Else NONE. */
uint32_t swim_members_by_key(const struct swim *s, uint32_t key, uint32_t generation);
/* A slot for this name, in state LEFT at first; NONE when the table or the memory is full. */
uint32_t swim_members_add(struct swim *s, const struct record *record);
/* `whole`: with its payload and coordinates. */
struct record swim_members_record(const struct swim *s, uint32_t id, bool whole);
struct shoal_address swim_address(const struct swim *s, const struct member *m);
int swim_set_address(struct swim *s, uint32_t id, const struct shoal_address *address); /* 0, or ERR_MEMORY. */
int swim_store_payload(struct swim *s, uint32_t id, const uint8_t *bytes, size_t length, uint32_t version);
uint32_t swim_trace(const struct member *m); /* The contribution of a live member to the digest. */
/* A new member takes any place of the round with equal chance: it may be among those still to be probed. */
void swim_order_add(struct swim *s, uint32_t id);
void swim_order_remove(struct swim *s, uint32_t id);
void swim_graves_add(struct swim *s, uint32_t id);
void swim_graves_remove(struct swim *s, uint32_t id);
uint32_t swim_grave(const struct swim *s, uint32_t place); /* The id of one of the dead; place < s->dead. */
/* Choose up to `count` distinct random living members without ourselves and `except`; alive ones rather than suspects, where
 * they are found quickly. Returns how many. */
uint32_t swim_choose(struct swim *s, uint32_t *ids, uint32_t count, uint32_t except);
/* The next of the round; NONE when no other member lives. */
uint32_t swim_round_next(struct swim *s);
void swim_sweep(struct swim *s);

static inline const char *swim_name(const struct swim *s, const struct member *m) {
  return (const char *)blobs_at(&s->blobs, m->blob);
}
static inline size_t swim_payload_at(const struct member *m) { return (size_t)m->name_length + (m->ipv6 ? IPV6_BYTES : 0u); }
static inline const uint8_t *swim_payload(const struct swim *s, const struct member *m) {
  return blobs_at(&s->blobs, m->blob) + swim_payload_at(m);
}
/* Includes ourselves until we leave, and held members: the N of sizes and probabilities. */
static inline uint32_t swim_living(const struct swim *s) { return s->living + (s->members[SELF].state == SWIM_ALIVE); }
static inline bool swim_lives(const struct member *m) { return m->state == SWIM_ALIVE || m->state == SWIM_SUSPECT; }
static inline uint64_t swim_changed_ns(const struct member *m) {
  return ((uint64_t)m->changed_high << 32 | m->changed_low) * NS_PER_MS;
}
static inline void swim_changed(struct swim *s, uint32_t id) { /* Its state changed now. */
  uint64_t at_ms = s->now_ns / NS_PER_MS;
  s->members[id].changed_low = (uint32_t)at_ms;
  s->members[id].changed_high = (uint16_t)(at_ms >> 32);
}

/* swim_members.c */
/* Merge one claim; `table`: it came in a TABLE, `quiet`: others know it already. */
void swim_merge(struct swim *s, const struct record *record, bool table, bool quiet);
/* Merge the claim of a datagram's header about its sender; returns the sender's id or NONE. */
uint32_t swim_merge_sender(struct swim *s, const struct header *header, const struct shoal_address *from);
/* Another member believes this about us. True when we raised our incarnation to refute it. */
bool swim_refute(struct swim *s, struct swim_incarnation incarnation, uint8_t state);
void swim_suspect(struct swim *s, uint32_t id, struct swim_incarnation incarnation, uint32_t accuser);
void swim_expire(struct swim *s);
void swim_self_left(struct swim *s);
bool swim_address_greater(const struct shoal_address *a, const struct shoal_address *b);
void swim_raise_self(struct swim *s); /* Our record changed: update the digest and gossip it. */

/* swim_flap.c: members that flap. Called after the event that it was suspected, or found dead, here. */
void swim_flap_suspected(struct swim *s, uint32_t id, uint32_t accuser);
void swim_flap_died(struct swim *s, uint32_t id);
void swim_flap_forget(struct swim *s, uint32_t id); /* It has a new life, or is gone. */
void swim_flap_tick(struct swim *s);                /* Release members that were stable for long enough. */
uint32_t swim_flap_held_living(const struct swim *s);
/* *until_ns: when it will be released, if it gives no more trouble; 0: it is not held. */
void swim_flap_why(const struct swim *s, uint32_t id, double *points, uint64_t *until_ns);

/* swim_why.c: evidence */
void swim_fact(struct swim *s, enum swim_fact_kind kind, uint32_t id, uint32_t other, uint32_t value);

/* swim_place.c: round trips and coordinates */
uint64_t swim_rtt_ns(uint16_t kept);
/* The member answered a ping of ours after rtt_ns; 0: not known. */
void swim_heard(struct swim *s, uint32_t id, uint64_t rtt_ns);
struct place swim_place(const struct member *m);
void swim_merge_place(struct swim *s, uint32_t id, const struct place *place);

/* swim_user.c: events of users */
void swim_merge_user(struct swim *s, const struct user_event *user);
bool swim_users_waiting(const struct swim *s);
/* Fill the rest of a datagram. Returns how many. */
uint32_t swim_tell_users(struct swim *s, struct writer *w);
void swim_user_deliver(struct swim *s, uint32_t at, struct swim_action *out);
void swim_users_tick(struct swim *s);
void swim_users_period(struct swim *s); /* Once a period: end what is old. O(events + origins). */
uint64_t swim_users_deadline(const struct swim *s);
void swim_users_close(struct swim *s);
void swim_users_check(const struct swim *s); /* For swim_check(). */
/* For swim_seen.c: */
bool swim_users_reserve(struct swim *s);
uint64_t swim_user_age_ns(const struct swim *s, uint32_t periods);
uint64_t swim_user_round_ns(const struct swim *s);
int64_t swim_user_depth(const struct swim *s); /* The most that may be saved up. */
bool swim_user_affords(struct swim *s);        /* The budget, up to now, is not spent; */
bool swim_seen_affords(struct swim *s);        /* that of SEEN. */
void swim_user_sent(struct swim *s, uint32_t at);
struct user_event swim_user_event(const struct swim *s, uint32_t at);
void swim_users_wake(struct swim *s); /* There is news. */
void swim_users_over(struct swim *s); /* The base of some origin rose. */

/* swim_seen.c */
bool swim_seen_valid(struct reader *r);
void swim_seen_write(struct swim *s, struct writer *w, uint8_t hops);
void swim_on_seen(struct swim *s, const struct shoal_address *from, uint32_t sender, struct reader *r);
void swim_seen_round(struct swim *s);
void swim_seen_probed(struct swim *s, uint32_t id); /* The member that is probed this period is asked too. */
/* Write events that a member lacks; false when there are none to send. */
bool swim_answer_next(struct swim *s, struct writer *w, struct shoal_address *to);
/* The origin of this key and generation; NONE: it is not to be heard. *id: its member. */
uint32_t swim_origin_of(struct swim *s, uint32_t key, uint32_t generation, uint32_t *id);
uint32_t swim_origin_add(struct swim *s, uint32_t key, uint32_t generation);
bool swim_origin_seen(const struct swim *s, uint32_t at, uint32_t number);
bool swim_origin_reserve(struct swim *s, uint32_t at, uint32_t number); /* False: no memory to mark it. */
void swim_origin_mark(struct swim *s, uint32_t at, uint32_t number);
void swim_origins_period(struct swim *s);
void swim_origins_close(struct users *u);
void swim_origins_check(const struct users *u);

/* swim_gossip.c */
void swim_rumour(struct swim *s, uint32_t id, bool with_payload);
void swim_rumour_end(struct swim *s, uint32_t id);
uint32_t swim_rumour_limit(const struct swim *s);
/* Fill the rest of a datagram: first the record of `about` (NONE: none), or our own if asked. Returns the number of records. */
uint32_t swim_piggyback(struct swim *s, struct writer *w, uint32_t about, bool self_first);
void swim_rumours_moot(struct swim *s); /* All members asked know which members live: end those rumours. */
void swim_gossip_wake(struct swim *s); /* There is news to gossip. */
void swim_gossip_tick(struct swim *s);

/* swim_probe.c */
void swim_probe_tick(struct swim *s);
uint64_t swim_probe_deadline(const struct swim *s);
void swim_send_ping(struct swim *s, uint32_t id, uint32_t sequence);
bool swim_probe_start(struct swim *s, uint32_t id, enum purpose purpose);
void swim_probe_suspect(struct swim *s, uint32_t id); /* A suspicion arrived: check it, if that is our task. */
void swim_probe_forgive(struct swim *s);              /* Forgive running probes: we could not receive the answers. */
void swim_on_ping(struct swim *s, const struct shoal_address *from, uint32_t sender, uint32_t sequence, const struct claim *claim);
void swim_on_ack(struct swim *s, uint32_t sender_key, uint32_t sender, uint32_t sequence, uint32_t digest);
void swim_on_ping_req(struct swim *s, const struct shoal_address *from, uint32_t sequence, const struct claim *claim,
                 const struct shoal_address *target, uint32_t window_ms);
void swim_on_nack(struct swim *s, uint32_t sequence);
void swim_ail(struct swim *s, int by); /* Worsen our local health by `by`, or improve it. */
/* The duration of a whole probe in our present health. */
uint64_t swim_window_ns(const struct swim *s);
uint64_t swim_in_step(const struct swim *s, uint64_t at_ns); /* The first instant from at_ns on at which periods may begin. */

/* swim_tables.c */
uint32_t swim_send_sync(struct swim *s, const struct shoal_address *to); /* Returns its sequence. */
void swim_sync_if_differing(struct swim *s, uint32_t sender, uint32_t digest);
void swim_on_sync(struct swim *s, const struct shoal_address *from, uint32_t sender, uint32_t sequence, uint8_t flags,
             uint32_t digest);
void swim_on_table(struct swim *s, const struct shoal_address *from, uint32_t sender_key, uint32_t sequence, uint8_t flags,
              uint32_t digest, uint16_t port);
bool swim_table_quiet(const struct swim *s, uint32_t sequence); /* Part of the first table of our life: others know everything in it. */
void swim_tables_tick(struct swim *s);
uint64_t swim_tables_deadline(const struct swim *s);
/* Write the next piece of a table that is due, with its records; false when none is due. */
bool swim_transfer_next(struct swim *s, struct writer *w, struct shoal_address *to, uint32_t *channel);
/* A stream to open; or with *sync > 0 a stream on which to send that SYNC. */
bool swim_conn_next(struct swim *s, struct swim_action *out, uint32_t *sync);
bool swim_conn_close_next(struct swim *s, struct swim_action *out);
void swim_conns_close(struct swim *s);
/* swim.c: a message that came on a stream. 0, or the reason of its refusal. */
int swim_receive_framed(struct swim *s, const struct shoal_address *from, uint32_t channel, const uint8_t *bytes, size_t length);
void swim_advance(struct swim *s, uint64_t now_ns);

/* swim_intro.c */
bool swim_silent(const struct swim *s); /* We must not appear as a member: a namesake is one, or is being asked. */
/* A claim about our name. True: it may be a namesake's, and must not be outbid now. */
bool swim_rival_heard(struct swim *s, const struct record *claim);
void swim_foreign_heard(struct swim *s, const struct shoal_address *from); /* A datagram of another cluster came. */
/* 0, or minus (reason + 1). */
int swim_intro_receive(struct swim *s, const struct shoal_address *from, const uint8_t *bytes, size_t length);
void swim_intro_write(const struct swim *s, struct writer *w, const struct send *send);
bool swim_intro_next(struct swim *s, struct swim_action *out);
void swim_intro_tick(struct swim *s);
uint64_t swim_intro_deadline(const struct swim *s);
void swim_intro_close(struct swim *s);

/* swim_join.c */
void swim_seed_refused(struct swim *s, const struct shoal_address *from, int reason);
void swim_join_tick(struct swim *s);
uint64_t swim_join_deadline(const struct swim *s);
void swim_retry_dead_or_seed(struct swim *s);
void swim_leave_heard(struct swim *s, uint32_t id);
void swim_leave_tick(struct swim *s);
bool swim_leave_over(const struct swim *s); /* Enough members acknowledged it, or the timeout has passed. */

/* swim_table.c, for specs: assert that the tables agree with each other. O(N). */
void swim_check(const struct swim *s);
/* For the fleet: make these newly opened ones know each other, as if all had joined long ago. O(count^2). 0, or ERR_MEMORY. */
int swim_preset(struct swim *const *all, uint32_t count);

#endif
