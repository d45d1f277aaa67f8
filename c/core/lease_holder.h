/* lease_holder: the leases that this node holds: until when it may act on each, and which to renew now.
 *
 *          add, with the instant of sending                 left <= ttl / 3
 *   (none) --------------------------------> HELD --------------------------------> JEOPARDY
 *     |                                      ^  ^ <--------- renewed ---------------  |
 *     | add, without one                     |  |                                     | deadline came
 *     +-------------> PENDING -- renewed ----+  |                                     v
 *                        |  ttl over            +-- refused, dropped --------------> GONE -- a ttl later --> (none)
 *                        +------------------------------------------------------------^
 *
 * The deadline is the instant at which this node SENT the request or renewal that was granted, plus ttl * (1 - drift): the grantor
 * counted from a later instant, and adds what we subtract (lease.h). So an answer that comes late gives less time, and one after the
 * deadline gives none. A PENDING lease is one that we did not request: it may not be acted on before a renewal of it was answered.
 * Jeopardy (Chubby: Burrows, OSDI 2006, 2.8) is notice before the end: renewals have failed for a third of the ttl; the owner can still
 * save its work, or prepare to stop.
 *
 * A renewal is due a third of the ttl after the last one was sent, and again each twelfth until one is answered. Due instants are rounded
 * down to a twentieth of the ttl, so that leases of about the same age are renewed in one message.
 * Answers may be late, doubled or out of order: a renewal sent earlier than the one that counts changes nothing, and so does one for an
 * earlier fence, or for a lease that is over. A refusal of the current fence is final, whenever it was sent: fences only rise. A lease
 * that ended is remembered as GONE for a ttl: until no answer to a request that we sent before its end can be in time. So a grant of the
 * same or an earlier fence that was late on its way is STALE. (With answers out of order, and two requests under way, the earlier fence
 * may have the later instant of sending: without GONE it would be held after we gave the key up.)
 *
 * Pure state: no clock, Lua or chance; now_ns must not run back. Memory: 80 bytes a lease, 28 in the heap, 11 to 21 in the index, and the
 * key rounded up to 8. */
#ifndef SHOAL_LEASE_HOLDER_H
#define SHOAL_LEASE_HOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/blobs.h"
#include "core/heap.h"
#include "core/lease_index.h"

enum {
  LEASE_HOLDER_LEASES_MAX = 1048576, /* Of leases_max. */
  LEASE_HOLDER_GROUPS_MAX = 4096,    /* Grantors, numbered by the owner from 0. */
};

struct lease_holder_config {
  uint32_t leases_max; /* 1 .. LEASE_HOLDER_LEASES_MAX. */
  uint32_t drift_ppm;  /* As the grantor's. */
  uint64_t seed;       /* Of the hash. */
};

enum lease_held_state { LEASE_HOLDER_NONE, LEASE_HOLDER_PENDING, LEASE_HOLDER_HELD, LEASE_HOLDER_JEOPARDY, LEASE_HOLDER_GONE,
                        LEASE_HOLDER_OVER };

struct lease_held {
  uint64_t sent_ns, fence; /* sent_ns: of the request that counts; PENDING: when it was added; GONE: when it ended. */
  uint64_t due_ns;         /* Of its next renewal. */
  int64_t left_ns;         /* For the event of its end. */
  uint32_t ttl_ms, group;
  uint32_t timer;          /* Its heap handle. */
  uint32_t next, previous; /* The ring of its group's due ones; `next` alone: free ones. Number + 1. */
  uint32_t event_next;
  uint32_t hash, key;
  uint8_t key_length, state;
  bool due, event; /* It stands in the ring of due ones, in the queue of events. */
  bool ended, refused; /* The event: it ended, for it was refused. */
};

struct lease_holder_group {
  uint32_t first, last, count; /* Due ones. */
  uint32_t leases;             /* PENDING, HELD or JEOPARDY. */
};

struct lease_holder_counts {
  uint64_t added, renewed, late_answers, refused, jeopardies, expired, dropped;
};

struct lease_holder {
  struct lease_holder_config config;
  uint64_t now_ns;
  struct lease_held *leases;
  uint32_t leases_count, leases_capacity, free;
  uint32_t held, gone; /* PENDING, HELD or JEOPARDY; GONE. Both together at most 2 * leases_max. */
  uint32_t event_first, event_last;
  struct lease_holder_group *groups;
  uint32_t groups_count, due; /* `due`: of all groups. */
  struct heap timers;
  struct lease_index keys;
  struct blobs blobs;
  struct lease_holder_counts counts;
};

struct lease_held_view {
  const char *key;
  uint32_t key_length, group, ttl_ms;
  uint64_t fence;
  enum lease_held_state state;
  int64_t left_ns; /* To the deadline; negative past it. */
};
struct lease_holder_event {
  struct lease_held_view lease; /* state: LEASE_HOLDER_JEOPARDY; else it ended. */
  bool ended, refused;          /* `refused`: by the grantor. */
};

/* Returns 0 or ERR_CONFIG. */
int lease_holder_init(struct lease_holder *h, const struct lease_holder_config *config, uint64_t now_ns);
void lease_holder_free(struct lease_holder *h);

/* A lease was granted to us, by a request sent at sent_ns; or, with LEASE_NOT_SENT, without one. The fence that we have already counts as
 * renewed; a greater one replaces it. Returns 0; or ERR_STALE (also for one that is GONE), ERR_FULL, ERR_TOO_LARGE, ERR_CONFIG, ERR_MEMORY with nothing changed; or
 * ERR_EXPIRED: its time was over before it came, and it is not kept. */
#define LEASE_NOT_SENT UINT64_MAX
int lease_holder_add(struct lease_holder *h, uint64_t now_ns, const char *key, size_t key_length, uint64_t fence, uint32_t ttl_ms,
                     uint64_t sent_ns, uint32_t group);
/* A renewal sent at sent_ns was answered. True if it gave this lease more time. */
bool lease_holder_renewed(struct lease_holder *h, uint64_t now_ns, const char *key, size_t key_length, uint64_t fence, uint64_t sent_ns);
/* The grantor refused this fence: it is over. False when we do not hold it. */
bool lease_holder_refused(struct lease_holder *h, uint64_t now_ns, const char *key, size_t key_length, uint64_t fence);
/* Give it up, without an event. False when there is none. */
bool lease_holder_drop(struct lease_holder *h, uint64_t now_ns, const char *key, size_t key_length);

/* Notice what is due at now_ns: renewals, jeopardy, ends. */
void lease_holder_tick(struct lease_holder *h, uint64_t now_ns);
/* The event after *cursor, in order; from the first on when *cursor is 0. False at the end. All are kept. */
bool lease_holder_peek(const struct lease_holder *h, uint32_t *cursor, struct lease_holder_event *out);
/* The events up to this cursor were reported. */
void lease_holder_take(struct lease_holder *h, uint32_t cursor);
/* Take one lease of this group that is due for renewal; it is due again a twelfth of its ttl later. False when none is. */
bool lease_holder_due(struct lease_holder *h, uint64_t now_ns, uint32_t group, struct lease_held_view *out);
/* The instant for the next tick; UINT64_MAX: none. */
uint64_t lease_holder_deadline(const struct lease_holder *h);

/* Whether we hold it at now_ns, exactly: from its deadline on it is false, ticked or not. */
bool lease_holder_holds(const struct lease_holder *h, uint64_t now_ns, const char *key, size_t key_length);
bool lease_holder_find(const struct lease_holder *h, uint64_t now_ns, const char *key, size_t key_length, struct lease_held_view *out);
size_t lease_holder_bytes(const struct lease_holder *h);

#endif
