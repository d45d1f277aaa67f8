/* federation: is each datacenter reachable? A gate probes the leader of each one, over whatever carries the probes.
 *
 *                 an answer                                  no answer for federation_suspect_ns
 *   UNREACHABLE ------------>  REACHABLE  ------------------------------------------------->  SUSPECTED
 *        ^    [federation_ack]     ^                                    [federation_next]      |    |
 *        |                         +------------------------ an answer [federation_ack] -------+    |
 *        +-------------------------------------- suspicion_ns later [federation_next] --------------+
 *   federation_know adds a datacenter as UNREACHABLE; federation_forget removes it in any state.
 *
 * Probes go out at a fixed cadence, one each interval, answered or not; so up to FEDERATION_IN_FLIGHT of one datacenter are under way.
 * A sequence number tells their answers apart, so each answer is a sample of the round trip (no ambiguity as in Karn and Partridge,
 * SIGCOMM 1987). A probe's timeout is srtt + 4 * rttvar (RFC 6298), held to timeout_ns .. timeout_max_ns. An answer that comes later than that
 * still counts, until the probe is over at timeout_max_ns: otherwise a path that became slow could never be measured.
 *
 * The states depend on time alone. The clock starts at S, when the last answered probe was sent:
 *   SUSPECTED    at S + failures * interval + timeout: exactly when `failures` probes in a row, sent on time, have timed out
 *   UNREACHABLE  suspicion_ns after that
 * So a datacenter that is cut off is SUSPECTED at most failures * interval + timeout after the cut, and not sooner than one interval and one
 * round trip before that. It does not matter how many probes could be sent: our own errors do not postpone a verdict.
 *
 * Own errors (a raise, a refused send: federation_fail with `ours`) are no evidence about the datacenter. They delay only its own next
 * probe: by retry_ns, twice that, ... up to retry_max_ns, each +-20 %; one probe without such an error resets that. An unanswered probe
 * keeps the interval.
 *
 * Each datacenter has an incarnation of ours, which grows when its leader changes; an answer repeats it. Answers of an older one are
 * counted and dropped, so a new leader is accepted while probes of the old one are under way. An answer with a lower term than one
 * seen from this leader is dropped in the same way: it comes from a process that no longer leads.
 *
 * A stall of this process is nobody's silence. A call that comes more than half an interval after the deadline stops the clock in here
 * for that time: every later deadline moves by the length of the stall.
 *
 * First probes are spread: uniformly over the interval when FEDERATION_SPREAD datacenters are known, over a proportional part of it when
 * there are fewer, so that few start at once. From 2 * FEDERATION_LUMPS on, up to FEDERATION_TOGETHER that became known one after the other
 * have one phase: they lie together in memory, so that a step of a million costs little more than one of a thousand. Datacenters at the normal cadence stand in a line in the order of their next probes, so a
 * step is O(1); only those with another deadline are in a heap.
 *
 * Pure state: no clock, no I/O; time enters as now_ns and does not run back, chance as a seed. After the unreliable failure detectors of
 * Chandra and Toueg (JACM 43:2, 1996): a verdict may be wrong, and then it heals. */
#ifndef SHOAL_FEDERATION_H
#define SHOAL_FEDERATION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/heap.h"
#include "core/rng.h"

enum {
  FEDERATION_IN_FLIGHT = 8,     /* Probes under way of one datacenter; the oldest is over when one more is due. */
  FEDERATION_SPREAD = 100,      /* So many datacenters spread their first probes over a whole interval. */
  FEDERATION_LUMPS = 1024,      /* At least so many phases, when more datacenters than this share them. */
  FEDERATION_TOGETHER = 64,     /* With one phase at most. */
  FEDERATION_DCS_MAX = 1 << 24, /* dcs_max at most. */
};

enum federation_state { FEDERATION_UNREACHABLE, FEDERATION_REACHABLE, FEDERATION_SUSPECTED };
const char *federation_state_name(enum federation_state state); /* "unreachable", "reachable", "suspected" */

struct federation_config {
  uint64_t interval_ns;    /* Between two probes of one datacenter; 1 ms .. 1 h. Default 2 s. */
  uint64_t timeout_ns;     /* Of a probe, at least; 1 ms .. timeout_max_ns. Default 5 s. */
  uint64_t timeout_max_ns; /* At most, whatever the round trip; <= FEDERATION_IN_FLIGHT * interval_ns. Default 15 s. */
  uint64_t suspicion_ns;   /* From SUSPECTED to UNREACHABLE; 1 ms .. 24 h. Default 30 s. */
  uint64_t retry_ns;       /* After the first of our own errors; 1 ms .. retry_max_ns. Default 2 s. */
  uint64_t retry_max_ns;   /* <= 1 h. Default 30 s. */
  uint32_t failures;       /* Unanswered probes that raise a suspicion; 1 .. 100. Default 5. */
  uint32_t dcs_max;        /* 1 .. FEDERATION_DCS_MAX. Default 1000. */
  uint64_t incarnation;    /* Ours are greater; give a greater one in each life of the process. < 2^62. */
  uint64_t seed;
};

enum federation_kind {
  FEDERATION_PROBE, /* Send a probe; then call federation_ack, or federation_fail, or nothing. */
  FEDERATION_STATE, /* The state changed. */
  FEDERATION_OVER,  /* An answer to this probe no longer counts: stop waiting for it. */
};
struct federation_action {
  enum federation_kind kind;
  uint32_t dc;
  uint32_t seq;                    /* PROBE, OVER */
  uint64_t incarnation, term;      /* PROBE: to send with it. */
  uint64_t timeout_ns;             /* PROBE, STATE: the timeout as scaled now. */
  enum federation_state from, to;  /* STATE */
  uint32_t unanswered, own_errors; /* STATE: in a row, up to now. */
  uint64_t silent_ns;              /* STATE: since the last answered probe was sent; UINT64_MAX: none was. */
};

struct federation_counts {
  uint64_t probes, acks, unanswered, own_errors;
  uint64_t late;              /* Answers after their timeout that still counted (among acks). */
  uint64_t over;              /* Answers to a probe that was over, or the second one to a probe. Dropped. */
  uint64_t stale_incarnation; /* Answers of an older incarnation of ours: the leader has changed since. Dropped. */
  uint64_t stale_term;        /* Answers with a lower term than this leader had before. Dropped. */
  uint64_t leaders;           /* Changes of leader. */
  uint64_t full;              /* Datacenters refused. */
  uint64_t stalls, stalled_ns;
  uint64_t suspected, unreachable, reachable; /* Transitions. */
  uint32_t dcs, in_state[3];
};

struct federation_dc; /* federation.c: 128 bytes each. */
struct federation {
  struct federation_config config;
  struct federation_dc *dcs; /* By index; grows by doubling. */
  uint32_t capacity, free;   /* `free`: the first free index, `capacity` when none is. */
  uint32_t first, last;      /* The line of next probes. */
  struct heap heap;          /* Other deadlines; the key is the datacenter's index. */
  uint64_t now_ns;           /* Of the last call, less stalled_ns. All instants in here are. */
  uint64_t stalled_ns;
  uint64_t incarnation;      /* The greatest one given out. */
  uint64_t phase_ns;         /* Of the first probe of the last one known, and how many more will share it. */
  uint32_t together;
  struct rng rng;
  struct federation_counts counts;
};

void federation_config_default(struct federation_config *config);
/* NULL, or which field is wrong and what is expected of it. Static. */
const char *federation_config_check(const struct federation_config *config);

/* From the sending of the last answered probe to SUSPECTED, at this timeout; so it is also the most time from a cut to SUSPECTED. */
uint64_t federation_suspect_ns(const struct federation_config *config, uint64_t timeout_ns);
/* The same to UNREACHABLE. */
uint64_t federation_unreachable_ns(const struct federation_config *config, uint64_t timeout_ns);

/* The config must pass federation_config_check. Nothing is allocated yet. */
void federation_init(struct federation *f, const struct federation_config *config, uint64_t now_ns);
void federation_free(struct federation *f);

/* Begin to probe a datacenter, UNREACHABLE until it answers. 0 and its index, or ERR_FULL or ERR_MEMORY with nothing changed but a count.
 * Indexes of forgotten ones are used again. */
int federation_know(struct federation *f, uint64_t now_ns, uint64_t term, uint32_t *dc);
/* Its leader is another one (or has another address): probe that one now, and drop answers to earlier probes. The state stays. */
void federation_lead(struct federation *f, uint64_t now_ns, uint32_t dc, uint64_t term);
void federation_forget(struct federation *f, uint32_t dc);
bool federation_knows(const struct federation *f, uint32_t dc);

/* A probe was answered. 0; ERR_STALE: an old incarnation or term; ERR_NOT_FOUND: it was over or answered, or the datacenter is unknown.
 * With an error only a count changes. */
int federation_ack(struct federation *f, uint64_t now_ns, uint32_t dc, uint32_t seq, uint64_t incarnation, uint64_t term);
/* A probe will not be answered: by an error of our own, or (`ours` false) because the other side refused or the connection ended. 0 and for
 * an error of ours when the next probe is due from now and how many there were in a row; ERR_NOT_FOUND when it was over already. */
int federation_fail(struct federation *f, uint64_t now_ns, uint32_t dc, uint32_t seq, bool ours, uint64_t *delay_ns, uint32_t *errors);

/* Take one action that is due; false when none is. Call until false. */
bool federation_next(struct federation *f, uint64_t now_ns, struct federation_action *out);
/* When to call federation_next again; UINT64_MAX when nothing is to be done. */
uint64_t federation_deadline(const struct federation *f);

struct federation_view {
  enum federation_state state;
  uint32_t seq, unanswered, own_errors, in_flight;
  uint64_t incarnation, term, srtt_ns, rttvar_ns, timeout_ns;
  uint64_t silent_ns;    /* As in an action. */
  uint64_t next_ns;      /* Until the next probe. */
  uint64_t suspected_ns, unreachable_ns; /* Until then without an answer; 0: it is so, or past it. */
};
void federation_view(const struct federation *f, uint64_t now_ns, uint32_t dc, struct federation_view *out);
struct federation_counts federation_count(const struct federation *f);
/* Assert every invariant. O(dcs). */
void federation_check(const struct federation *f);
/* Bytes allocated. */
uint64_t federation_bytes(const struct federation *f);

#endif
