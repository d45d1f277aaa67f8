/* correlation: failures of several datacenters at about the same time are the network's, not theirs: hold their evictions.
 *
 * A gate that loses sight of one datacenter (dc) starts its work elsewhere: the gate evicts it. If it loses sight of half of them
 * within seconds, the common cause is more likely near the gate than in each of them, and evicting them all would throw away work
 * that still runs. This core decides which of the two it is. It hears `suspect`, `down` and `up` of each dc from whoever probes them
 * (core/federation), and says when a dc is to be evicted, when failures are correlated, and when that is over.
 *
 * One dc, as it counts here. A report must last before it counts:
 *
 *             down                down_ns later              up                  up_ns later, not suspected
 *   UP ------------> FALLING ------------------> DOWN ------------> RISING ------------------------------> UP
 *      <------------                                  <------------
 *             up                                        down: the same failure, it never ended
 *   [correlation_down, correlation_up: arrows with a report;  correlation_next: arrows of time]
 *
 * The whole:
 *
 *                 DETECTED: `low` or more dcs, and at least half of the known ones, began to fail within window_ns
 *   SEVERITY_NONE --------------------------------------------------------------------------------> holding: LOW, MEDIUM, HIGH
 *                 <--------------------------------------------------------------------------------         RAISED: more failed
 *                 HEALED, CORRELATION_RETURNED: at most one, or fewer than half of its dcs, are still down
 *                 HEALED, CORRELATION_EXPIRED: hold_ns passed since it was detected or last raised            [correlation_next]
 *
 * DETECTED and HEALED alternate strictly. While it holds, no dc is evicted, whatever its own failure is, and a dc that goes down joins
 * the event. Time alone heals it, with no report at all: at most 3 * hold_ns after it was detected, since it can rise only twice.
 *
 * When it has healed:
 *  - a dc of the event that is up again was never evicted and has lost nothing;
 *  - if the hold expired, those that are still down are evicted (CORRELATION_VAIN). A cut that lasts longer than the hold cannot be
 *    told from a loss, and jobs must not wait for ever. A gate that was itself cut off evicts what it cannot reach, and nothing runs
 *    twice for it: fences refuse the older attempt when they meet again;
 *  - if the others returned, one that did not has failed by itself: it is evicted (CORRELATION_LEFT);
 *  - its failed dcs are no evidence for a further event until they have been up for up_ns. Otherwise one long cut would be detected
 *    again at once and held for ever.
 *
 * One dc down is its own failure, and it alone is evicted (CORRELATION_ALONE), but not before it is known not to be the first of
 * several: 2 * down_ns after its last report, so that one which fell up to down_ns later is confirmed too; and later while dcs that are
 * suspected or FALLING would, together with it, be correlated failures. That wait is bounded: one that falls more than window_ns after
 * it is not counted with it, so the wait ends at the latest window_ns + down_ns after its failure began. Suspicion only ever delays an
 * eviction; it detects nothing, for a suspicion can be wrong, and a slow link is no failure.
 *
 * Flapping. A dc whose report changed flap_moves times within flap_ns is damped until cool_ns after its last change. A damped dc is no
 * evidence and is not one of the known dcs of which half must fail; its failures are its own, and it is evicted like any other. One that
 * is part of an event when it is damped remains part of it.
 *
 * A process that was stopped hears nothing meanwhile, and its timers run before its sockets are read. So if correlation_next is more
 * than CORRELATION_LATE_NS late, nothing is decided in the CORRELATION_LATE_NS after that; once, so that a process that is always
 * late decides too.
 *
 * Pure state: time enters as now_ns and does not run back; nothing is allocated; O(dcs) a call, and O(dcs * those that wait for a
 * verdict) to find the deadline. Damping: RFC 2439, with counts in place of decaying penalties. */
#ifndef SHOAL_CORRELATION_H
#define SHOAL_CORRELATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  CORRELATION_DCS_MAX = 256, /* One past it: ERR_FULL, counted; that dc is unknown here. */
  CORRELATION_NAME_MAX = 64, /* Bytes of a name, at least 1; else ERR_TOO_LARGE. */
  CORRELATION_MOVES_MAX = 8, /* The most that flap_moves may be. */
};
#define CORRELATION_LATE_NS UINT64_C(1000000000)

enum correlation_status { CORRELATION_UP, CORRELATION_FALLING, CORRELATION_DOWN, CORRELATION_RISING };
enum correlation_severity { CORRELATION_NONE, CORRELATION_LOW, CORRELATION_MEDIUM, CORRELATION_HIGH };
enum correlation_kind { CORRELATION_DETECTED, CORRELATION_RAISED, CORRELATION_HEALED, CORRELATION_EVICT };
enum correlation_cause {
  CORRELATION_RETURNED, CORRELATION_EXPIRED,                /* Of HEALED. */
  CORRELATION_ALONE, CORRELATION_LEFT, CORRELATION_VAIN,    /* Of EVICT. */
};

struct correlation_config {
  uint64_t window_ns;  /* Failures that began at most so far apart are counted together. Default 30 s. */
  uint64_t hold_ns;    /* From detection, or from the last rise, until time heals. Default 60 s. */
  uint64_t down_ns;    /* A dc that was down for so long counts as down. > 0. Default 5 s. */
  uint64_t up_ns;      /* One that was up for so long counts as up again. > 0. Default 30 s. */
  uint32_t low, medium, high; /* Failed dcs; 2 <= low < medium < high. Defaults 2, 3, 4. */
  uint32_t flap_moves; /* 2..CORRELATION_MOVES_MAX; 0: no damping. Default 3. */
  uint64_t flap_ns;    /* Default 120 s. */
  uint64_t cool_ns;    /* Default 300 s. */
};

struct correlation_dc {
  char name[CORRELATION_NAME_MAX + 1]; /* Empty: this slot is free. */
  enum correlation_status status;
  bool suspect;  /* UP or RISING, and there are signs that it fails. */
  bool spent;    /* Its present failure is no evidence: its event is over, or it flaps. */
  bool evicted;  /* Since its last `down`. */
  bool judged;   /* It was left over when its event ended: evict it at once, for `cause`. */
  enum correlation_cause cause;
  uint64_t event;           /* The last one that it was part of; 0: none. */
  uint64_t since_ns;        /* Its last report. */
  uint64_t fell_ns;         /* Not UP: when its failure began. */
  uint64_t damped_until_ns;
  uint64_t moves_ns[CORRELATION_MOVES_MAX]; /* The latest changes of its report, oldest first. */
  uint32_t moves;
};

struct correlation_counts {
  uint64_t suspects, downs, ups; /* Reports that changed something ... */
  uint64_t repeated;             /* ... and those that did not. */
  uint64_t full, damped;         /* Refused dcs; dcs that began to be damped. */
  uint64_t detected, raised, returned, expired; /* detected = returned + expired, + 1 while it holds. */
  uint64_t alone, left, vain;    /* Evictions, by cause. */
  uint64_t late;                 /* Pauses of this process that were excused. */
};

struct correlation {
  struct correlation_config config;
  struct correlation_dc dcs[CORRELATION_DCS_MAX];
  uint32_t known;          /* Slots in use, which lie anywhere below `end`. */
  uint32_t end;
  enum correlation_severity severity;
  uint64_t event;          /* The number of the last event, from 1. */
  uint32_t members;        /* Dcs that were ever part of it. */
  uint64_t detected_ns, hold_until_ns;
  bool fresh;              /* A dc was confirmed as down since the evidence was last weighed. */
  bool excused;            /* The last pause was excused, so that the next is not. */
  uint64_t now_ns, quiet_until_ns;
  struct correlation_counts counts;
};

struct correlation_action {
  enum correlation_kind kind;
  enum correlation_cause cause;       /* Of HEALED and EVICT. */
  enum correlation_severity severity; /* Of HEALED: the highest that it had. */
  uint64_t event;                     /* Its dcs: those with this number. Of EVICT: of its last event, or 0. */
  uint32_t dc;                        /* Of EVICT. */
  uint64_t since_ns;                  /* Of EVICT: its last `down`; else when the event was detected. */
};

void correlation_defaults(struct correlation_config *config);
/* A sentence about the first mistake of a configuration, which begins with the name of its field without the unit; NULL: none. */
const char *correlation_config_check(const struct correlation_config *config);

/* The configuration must be right. No dc is known. */
void correlation_init(struct correlation *c, const struct correlation_config *config, uint64_t now_ns);

/* A dc exists, and counts as UP. Returns its slot, also when it was known; ERR_FULL, ERR_TOO_LARGE. */
int correlation_know(struct correlation *c, uint64_t now_ns, const char *name, size_t length);
/* It exists no more: its slot is free, and it is part of no event. Returns 0 or ERR_NOT_FOUND. */
int correlation_forget(struct correlation *c, uint64_t now_ns, const char *name, size_t length);
/* The slot of a known dc, or ERR_NOT_FOUND. */
int correlation_find(const struct correlation *c, const char *name, size_t length);

/* Reports about the dc in a slot. One that changes nothing is counted as repeated. `suspect` means signs of a failure; it is withdrawn by
 * the next `up`, and means nothing of a dc that is down. */
void correlation_suspect(struct correlation *c, uint64_t now_ns, uint32_t dc);
void correlation_down(struct correlation *c, uint64_t now_ns, uint32_t dc);
void correlation_up(struct correlation *c, uint64_t now_ns, uint32_t dc);

/* Take one step that is due: call it after each report and at the deadline, until it returns false. The state has moved before it
 * returns, so that correlation_holds is true when DETECTED comes out. */
bool correlation_next(struct correlation *c, uint64_t now_ns, struct correlation_action *out);

/* When time alone can next change something; UINT64_MAX: never. */
uint64_t correlation_deadline(const struct correlation *c);

static inline bool correlation_holds(const struct correlation *c) { return c->severity != CORRELATION_NONE; }
/* Whether a dc flaps at the time of the last call. */
static inline bool correlation_damped(const struct correlation *c, uint32_t dc) { return c->now_ns < c->dcs[dc].damped_until_ns; }

/* Assert all invariants; for specs. */
void correlation_check(const struct correlation *c);

const char *correlation_status_name(enum correlation_status status);       /* "up", "falling", "down", "rising" */
const char *correlation_severity_name(enum correlation_severity severity); /* "none", "low", "medium", "high" */
const char *correlation_kind_name(enum correlation_kind kind);             /* "detected", "raised", "healed", "evict" */
const char *correlation_cause_name(enum correlation_cause cause);          /* "returned", "expired", "alone", "left", "vain" */

#endif
