/* lease: the grantor's table of leases: who holds what, until when, with which fence; for a million of them.
 *
 * A lease is (key, holder, fence, deadline): the holder may act on the key until the deadline, unless it renews (Gray and Cheriton, Leases,
 * SOSP 1989). The fence is the sequencer of Chubby (Burrows, OSDI 2006): a number that rises with every owner of a key, so that whoever
 * is asked to act can refuse an earlier owner. Fences come from outside: they are indexes of one log (a tier's), so each grant and each
 * transfer has a greater one than all before it. Grants, transfers, releases and expiries belong into that log; renewals do not.
 *
 *            grant                                    deadline came [lease_tick]
 *   (none) --------> HELD -- renew: later deadline -- HELD ------------------------> DUE -- lease_take --> PAST
 *                     |  transfer: another holder, a greater fence                                      ^   |
 *                     +---------------------------------- release --------------------------------------+   |
 *   PAST -- grant with a greater fence --> HELD               PAST -- past_ms later, or its room is needed --> (none)
 *
 * Fences. A grant or transfer whose fence is not above the key's last one is STALE and counted. PAST is the memory of that last fence.
 * It is bounded: `leases_max` entries in all, HELD, DUE and PAST. What is forgotten leaves the greatest forgotten fence as the *floor*: a
 * grant of an unknown key at or below it is STALE too. So a lower fence is refused for ever, and past_ms decides only how precise the
 * answers about a past lease are. The price: all fences of one table must come from one log, and a grant must not come later than past_ms
 * after its place in that log: it might be STALE then, and needs a new one.
 *
 * Two clocks. No instant crosses the network. With d the drift bound, each clock's rate lies within 1 +- d of true time:
 *   the holder's deadline is   the instant it SENT the request + ttl * (1 - d)   by its clock (lease_holder.h),
 *   the grantor's is           the instant it RECEIVED it      + ttl * (1 + d)   by its own.
 * (A clock read at the beginning of the loop's turn may be from before the sending: the grantor needs a fresh one.)
 * It was sent before it was received, so the holder's ends first, in true time. This needs a monotonic clock. One that stands still
 * while its machine sleeps (a suspended laptop, a frozen virtual machine) is outside of the bound: then only fences protect.
 * A transfer, or a grant that the holder did not request, has no instant of sending: its holder must not act on it before its first
 * renewal was answered; and the former holder must have given up before it is transferred.
 *
 * Expiry happens in [deadline, deadline + one tick of 10 ms], never early: deadlines are rounded up to ticks of 2.1 ms, and the caller
 * calls lease_tick() at lease_deadline(). A renewal that arrives after the deadline and before the tick still counts: nobody else had it.
 * A renewal with an earlier fence, another holder or an old handle changes nothing.
 *
 * Pauses. Renewals that arrived while this process did not run wait in its sockets, so it must read them before it revokes anything.
 * The table therefore has its own *lease time*, by which all deadlines run. It follows the clock, except: when a call comes more than
 * late_ms after the instant of lease_deadline(), the time since the last call does not count, and lease time stands still for as long as
 * the call was late (at most catch_up_ms), in which the sockets are read. While leases are held, ticks are at most a second apart, and a
 * true expiry is preceded by one tick 3 * late_ms before it (the *eve*). So
 *   - a pause of more than late_ms revokes nothing, and renewals that it held up are in time;
 *   - a forward jump of the clock by more than a second and late_ms makes no lease shorter (monotonic clocks do not jump, but for faults);
 *   - a crashed holder's lease ends later by the grantor's own pauses, and each costs at most a second and catch_up_ms more.
 * A tick that is late again, after standing still, expires what was due before, and counts the time up to its own instant; so late ticks
 * alone never stop expiry. A hiccup of up to
 * late_ms is covered by the eve: the loop turns, and reads, between the two ticks.
 * lease_catch_up() is for a new leadership: from then on every lease has a whole ttl again.
 *
 * Renewal in constant time. It writes one instant into one entry of 64 bytes; the wheel (lease_wheel.h) is not touched: when an entry's
 * old deadline comes up, it is placed at its new one. lease_renew() takes handles, so nothing is hashed; both batched calls prefetch.
 * The *sweep*, each sweep_ms, looks at every entry in batches, for held ones whose deadline passed although the wheel did not bring them
 * up. There should be none; each is expired, and counted in `lost`.
 *
 * Pure state: no clock, chance or Lua; time enters as now_ns and must not run back. Memory: at most 64 bytes an entry, 11 to 21 for the
 * index, 4 for the wheel, and the key rounded up to 8; released when the table is empty. */
#ifndef SHOAL_LEASE_H
#define SHOAL_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/blobs.h"
#include "core/lease_index.h"
#include "core/lease_wheel.h"

enum {
  LEASE_KEY_MAX = 255,           /* Bytes, at least 1. */
  LEASE_HOLDER_MAX = 64,         /* Bytes of a holder's name, at least 1. */
  LEASE_HOLDERS_MAX = 65536,     /* Holders that have a lease at the same time, PAST ones included. */
  LEASE_TABLE_MAX = 4194304,     /* Of leases_max. */
  LEASE_TTL_MIN_MS = 50,
  LEASE_TTL_MAX_MS = 3600000,
  LEASE_DRIFT_MAX_PPM = 100000,
  LEASE_SWEEP_BATCH = 8192,      /* Entries in one step of the sweep; one step a tick. */
};

struct lease_config {
  uint32_t leases_max;  /* 1 .. LEASE_TABLE_MAX. */
  uint32_t drift_ppm;   /* The bound d, in millionths: 0 .. LEASE_DRIFT_MAX_PPM. */
  uint32_t late_ms;     /* 1 .. 60,000. */
  uint32_t catch_up_ms; /* 0 .. 60,000. */
  uint32_t past_ms;     /* 0 .. LEASE_TTL_MAX_MS. */
  uint32_t sweep_ms;    /* 10 .. 600,000. */
  uint64_t seed;        /* Of the hash. */
};

enum lease_state { LEASE_FREE, LEASE_HELD, LEASE_DUE, LEASE_PAST };

/* One entry: a cache line. */
struct lease {
  uint64_t renewed_ns; /* HELD: lease time of the grant or last renewal. DUE: of its deadline. PAST: when it became so. */
  uint64_t fence;
  uint32_t generation; /* Differs for every use of this entry. */
  uint32_t holder;     /* Number of a name. */
  uint32_t ttl_ms;
  uint32_t placed;       /* The wheel brings it up at this tick; valid while in_wheel. */
  uint32_t next, previous; /* DUE and FREE: a list by `next`. PAST: a ring, the oldest first. Number + 1, 0: none. */
  uint32_t hash, key;    /* Of the key; its blob. */
  uint8_t key_length, state, in_wheel, unused[13];
};

struct lease_counts {
  uint64_t grants, renewals, transfers, releases, expired;
  uint64_t stale, held_refused, full;   /* Refused grants and transfers. */
  uint64_t renewals_refused;            /* Of them stale_renewals by a lower fence. */
  uint64_t stale_renewals;
  uint64_t forgotten;                   /* PAST ones that raised the floor. */
  uint64_t late, late_ns;               /* Calls that came too late, and the time that did not count. */
  uint64_t catch_ups, sweeps, lost;
};

struct lease_holder_name {
  uint32_t blob, hash, leases; /* `leases`: entries that name it. */
  uint32_t next;               /* Free ones: number + 1. */
  uint8_t length;
};

struct leases {
  struct lease_config config;
  uint64_t now_ns, time_ns, behind_ns; /* Clock; lease time; by how much lease time is behind. */
  uint64_t due_ns;                     /* By the clock: what lease_deadline() said last. */
  uint64_t still_until_ns;             /* By the clock: lease time stands still, and nothing expires. */
  bool was_late;                       /* So was the last tick. */
  uint64_t ticked_ns;                  /* Lease time of the last tick. */
  uint64_t caught_up_ns;               /* Lease time: no lease counts as renewed before it. */
  uint64_t floor;
  struct lease **chunks;
  uint32_t chunks_count, chunks_capacity;
  uint32_t free, generation;
  uint32_t held, due, past;
  uint32_t due_first, due_last, past_first, past_last; /* Number + 1. */
  uint64_t sweep_at_ns;
  uint32_t sweep_next;
  struct lease_index keys, names;
  struct lease_holder_name *holders;
  uint32_t holders_count, holders_capacity, holders_free;
  struct blobs blobs;
  struct lease_wheel wheel;
  struct lease_counts counts;
};

/* A lease as its owner sees it; pointers are valid until the next call, and no zero byte follows. */
struct lease_view {
  uint64_t handle, fence;
  const char *key, *holder;
  uint32_t key_length, holder_length, ttl_ms;
  enum lease_state state;
  int64_t left_ns; /* To the deadline; HELD only. */
};
struct lease_expiry {
  struct lease_view lease;
  uint64_t expired_for_ns; /* Since its deadline, in lease time. */
};

/* Returns 0, or ERR_CONFIG: a value is outside of its bounds. */
int leases_init(struct leases *t, const struct lease_config *config, uint64_t now_ns);
void leases_free(struct leases *t);

/* Let `holder` hold `key` from now on. A holder may be granted its own key again, with a greater fence. Returns 0 and a handle for
 * lease_renew(); or with nothing changed ERR_STALE (the fence is not above the key's last one, or the floor), ERR_HELD (another holder's,
 * until its expiry was taken), ERR_FULL (leases_max are HELD or DUE, or LEASE_HOLDERS_MAX), ERR_TOO_LARGE (key or name), ERR_CONFIG (ttl
 * or fence 0), ERR_MEMORY. */
int lease_grant(struct leases *t, uint64_t now_ns, const char *key, size_t key_length, const char *holder, size_t holder_length,
                uint64_t fence, uint32_t ttl_ms, uint64_t *handle);

/* One grant of a batch: what lease_grant() takes, and what it returns. */
struct lease_grant_item {
  const char *key, *holder;
  uint32_t key_length, holder_length, ttl_ms;
  uint64_t fence, handle;
  int code;
  uint32_t hash; /* Used inside. */
};
/* Grant many, in order, as the commands of one sync of a log bring them, or the leases that a new leader found: the misses of the caches
 * overlap. Returns how many were granted. */
uint32_t lease_grant_all(struct leases *t, uint64_t now_ns, struct lease_grant_item *items, uint32_t count);

/* One renewal of a batch. `code` comes back: 0; ERR_STALE (the key has a greater fence), ERR_EXPIRED (this fence is over), ERR_HELD (of
 * this fence, by another holder), ERR_NOT_FOUND (no such lease, or none with so great a fence). */
struct lease_renewal {
  uint64_t handle; /* As granted; or 0, and the key below. */
  uint64_t fence;
  const char *key;
  uint32_t key_length;
  int code;
  uint32_t hash; /* Used inside. */
};
/* Renew all of one holder's; returns how many were. */
uint32_t lease_renew(struct leases *t, uint64_t now_ns, const char *holder, size_t holder_length, struct lease_renewal *renewals,
                     uint32_t count);

/* The fence's lease goes to another holder, with a greater fence and a whole ttl. Returns 0; or, unchanged: ERR_STALE (`fence` is below
 * the current one, or new_fence not above), ERR_EXPIRED, ERR_NOT_FOUND, ERR_FULL (holders), ERR_TOO_LARGE, ERR_MEMORY. */
int lease_transfer(struct leases *t, uint64_t now_ns, const char *key, size_t key_length, uint64_t fence, const char *holder,
                   size_t holder_length, uint64_t new_fence);
/* Its holder gives it up. Returns 0, ERR_STALE, ERR_EXPIRED or ERR_NOT_FOUND. */
int lease_release(struct leases *t, uint64_t now_ns, const char *key, size_t key_length, uint64_t fence);

/* Advance: expire what is due, sweep, forget. Looks at no more than about `max` entries; then lease_deadline() is now. */
void lease_tick(struct leases *t, uint64_t now_ns, uint32_t max);
/* The expired lease after *cursor, in the order of expiry; from the first on when *cursor is 0. False at the end. All are kept. */
bool lease_peek(const struct leases *t, uint32_t *cursor, struct lease_expiry *out);
/* The expired leases up to this cursor were reported: from now on their keys may be granted. */
void lease_take(struct leases *t, uint32_t cursor);
/* The instant for the next lease_tick(), by the clock; UINT64_MAX: none. Changes with every call above but lease_renew(). */
uint64_t lease_deadline(struct leases *t);
/* A leadership begins, or its state may be old: nothing expires before a whole ttl (and drift) from now. */
void lease_catch_up(struct leases *t, uint64_t now_ns);

/* The lease of a key; false when none is known. PAST ones are found too. */
bool lease_find(struct leases *t, uint64_t now_ns, const char *key, size_t key_length, struct lease_view *out);
size_t lease_bytes(const struct leases *t);

#endif
