/* detector: which nodes are dead, and which do not respond for one job while their machine lives.
 *
 * Two layers, one structure: a suspicion has a key (node, job), and job "none" is the machine itself.
 *
 *                detector_suspect                     one more accuser: the deadline is nearer or equal   [detector_confirm]
 *   (no suspicion) ───────────────> SUSPECTED ──────────────────────────────────────────────────────────> SUSPECTED
 *        ▲                          │   │   │  an extension, a stall of ours: the deadline is later       [detector_extend, detector_tick]
 *        │   cleared, with a reason │   │   └──────────────────────────────────────────────────────────────────────────> SUSPECTED
 *        ├──────────────────────────┘   └── now >= deadline: expired   [detector_tick]
 *        └───────────────────────────────── of a job: reported, once; of a machine: the node is DEAD, and its jobs' suspicions are cleared
 *
 *   cleared by: progress for the job [detector_progress] · the end of the job, there or everywhere [detector_over] · the death of the
 *   machine · a new life of the node [detector_node] · the node being forgotten [detector_forget] · of a machine: a greater incarnation
 *
 * Sources: SWIM (Das, Gupta, Motivala, DSN 2002) for suspicion and incarnations; Lifeguard (arXiv 1707.00788) for timeouts that shrink
 * with each confirmation and grow with our own ill health (core/suspicion.h computes them); Chen, Toueg, Aguilera (IEEE Trans. Comp.
 * 51:5, 2002) for what makes a detector good: spec/study/quality_study.c measures their numbers.
 *
 * Layer one, the machine. With membership, its suspicion decides, and detector_node() repeats its verdicts here. Alone, suspect and
 * confirm a machine with job "none": the same rule as SWIM's, and expiry is the verdict. Claims about a node are ordered by
 * (generation, version, state), ALIVE < SUSPECT < HELD < DEAD < LEFT; a claim that is not greater than the last is stale: ignored and
 * counted. HELD is a node that membership shows as dead because it flaps; alone among these it is over by ALIVE of an equal incarnation.
 * A greater generation is a new life: it clears all suspicions of the old one. A greater version refutes the machine's suspicion only:
 * a node that hangs for a job must not escape by refuting.
 *
 * Layer two, a job. The caller decides when to suspect (silence, a failed call). The timeout lies within job_min_ms .. job_max_ms:
 * the members' number and our health move the least towards the greatest, never beyond it.
 *
 * Extensions: a node that is slow and knows it may ask for more time for a job. The n-th grant of a workflow is max(extension_min_ms,
 * extension_base_ms / 2^n), n from 1; at most extensions_max, each only after progress since the one before; each workflow has its
 * own. The first refusal for their number leaves a last grace of grace_ms. Time granted moves a running suspicion's deadline, and
 * a later suspicion begins to count only after it.
 *
 * Time. A suspicion expires in [deadline, deadline + DETECTOR_TICK_NS] if detector_tick() comes when detector_deadline() says, never
 * before. If the tick is late, the process was away, and what the node sent may wait unread. So a suspicion that is found more than a tick
 * past its deadline gets one tick more, once; and where no call came for longer than beat_ms + stall_ms, the time after beat_ms is given
 * back, up to the suspicion's whole timeout. So a loop that is always late delays expiry, and cannot prevent it.
 *
 * Caps refuse and count, they never evict: nodes_max nodes, job_suspicions_max suspicions of a job, suspicions_max in all. Extensions
 * have the same two caps, counted apart. Suspicions whose end was not taken by detector_next() still count.
 *
 * The deadlines stand in a wheel (core/wheel.h): a binary heap's removal walks log2 n levels, most of them a cache miss at a million
 * suspicions. Start, confirm and end are O(1); a death is O(suspicions of that node) (`scripts/bench core --only=detector`).
 * Memory: about 220 bytes a suspicion, tables included; 100 and its name for a node or a job.
 *
 * Accusers are told apart by number: detector_number(name). Two names of one number would count as one accuser, never as more.
 * Pure state: no clock, no chance, no Lua. Names are bytes, 1 .. DETECTOR_NAME_MAX. Each call takes the time; an earlier one than
 * the last counts as the last. */
#ifndef SHOAL_DETECTOR_H
#define SHOAL_DETECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/suspicion.h"

enum {
  DETECTOR_NAME_MAX = 255, /* Bytes of a node's, a job's or a workflow's name. */
  DETECTOR_TICK_NS = 10000000,
  DETECTOR_HEALTH_MAX = 8,
  DETECTOR_WORKFLOWS_MAX = 64, /* Of one job on one node, that asked for extensions. */
};

struct detector;

struct detector_text {
  const char *bytes; /* Not terminated. Job "none" has length 0. */
  size_t length;
};

enum detector_state { DETECTOR_ALIVE, DETECTOR_SUSPECT, DETECTOR_HELD, DETECTOR_DEAD, DETECTOR_LEFT, DETECTOR_STATES };
const char *detector_state_name(enum detector_state state); /* "alive", "suspect", "held", "dead", "left" */

struct detector_incarnation {
  uint32_t generation, version; /* A greater generation is a new life. */
};

struct detector_config {
  uint32_t node_min_ms, node_max_ms;   /* To refute a suspicion of a machine; both grow with log10(members) and our health. */
  uint32_t job_min_ms, job_max_ms;     /* To show progress for a job. */
  uint32_t confirmations;              /* K: further accusers that bring a timeout down to the least; 0 .. SUSPICION_CONFIRMATIONS_MAX. */
  uint32_t nodes_max, job_suspicions_max, suspicions_max;
  uint32_t extension_base_ms, extension_min_ms, extensions_max, grace_ms;
  uint32_t beat_ms, stall_ms;          /* While there are suspicions a tick is due each beat; no call until stall_ms later is a stall. */
  uint32_t dead_kept_ms;               /* A node that died or left is remembered so long, so that stale claims are recognised. */
};
/* Whose jobs: the workers of a manager (1 .. 10 s), the managers (2 .. 15 s), the gates (5 .. 30 s). */
enum detector_watches { DETECTOR_WORKERS, DETECTOR_MANAGERS, DETECTOR_GATES };
/* The starting values; `profile` "lan", "wan" or "local" gives the machine's. Returns ERR_CONFIG for another name. */
int detector_config_profile(const char *profile, enum detector_watches watches, struct detector_config *out);
/* NULL, or what is wrong. */
const char *detector_config_check(const struct detector_config *c);

/* NULL: no memory. The config was checked. */
struct detector *detector_new(const struct detector_config *config, uint64_t now_ns);
void detector_free(struct detector *d); /* NULL is allowed. */

uint32_t detector_number(const char *name, size_t length);

/* What we know of the observers when a suspicion begins. */
struct detector_scale {
  uint32_t members; /* Of the group, us and the suspect included: K is at most members - 2. 0: unknown. */
  uint32_t health;  /* Our own: 0 is well, up to DETECTOR_HEALTH_MAX. */
};

/* ---- events: each returns 1 if something changed, 0 if not, or a negative code with nothing changed ---- */

/* A claim about a node, of membership or of the node itself. ERR_FULL: one node more than nodes_max; ERR_TOO_LARGE: its name. */
int detector_node(struct detector *d, uint64_t now_ns, struct detector_text node, enum detector_state state,
                  struct detector_incarnation incarnation);
/* Begin a suspicion, or confirm the one that is there. A node that nobody named yet is taken to be alive. `generation`: the life that is
 * accused; of an older life: stale, 0. UINT32_MAX: the one known here. 0 too for a node that is dead, held or left. ERR_FULL: a cap. */
int detector_suspect(struct detector *d, uint64_t now_ns, struct detector_text job, struct detector_text node, uint32_t accuser,
                     uint32_t generation, struct detector_scale scale);
/* One more accuser of a suspicion that is there. 0: it accused already, no more are wanted, or there is no such suspicion. */
int detector_confirm(struct detector *d, uint64_t now_ns, struct detector_text job, struct detector_text node, uint32_t accuser);
/* The node made progress for this job. 1: that cleared a suspicion. O(1), and cheap while there is none. */
int detector_progress(struct detector *d, uint64_t now_ns, struct detector_text job, struct detector_text node);
enum detector_grant { DETECTOR_GRANTED, DETECTOR_NO_PROGRESS, DETECTOR_EXHAUSTED, DETECTOR_NOT_ALIVE };
/* More time for a node's work on a job. `progress`: what it has done so far by its own count, if it says that; else UINT64_MAX: then
 * calls of detector_progress() since the last grant are what counts, and a workflow's first grant needs none. *grant: the outcome;
 * *granted_ms: the time given, also of a grace. ERR_FULL: a cap. */
int detector_extend(struct detector *d, uint64_t now_ns, struct detector_text job, struct detector_text node,
                    struct detector_text workflow, uint64_t progress, enum detector_grant *grant, uint32_t *granted_ms);
/* The job ended on this node, or everywhere when node.length is 0. Returns how many suspicions that cleared. */
int detector_over(struct detector *d, uint64_t now_ns, struct detector_text job, struct detector_text node);
/* Nobody knows this node any more. Returns how many suspicions that cleared. */
int detector_forget(struct detector *d, uint64_t now_ns, struct detector_text node);
/* Time passes. Call it at detector_deadline(). */
void detector_tick(struct detector *d, uint64_t now_ns);
/* When to tick next; UINT64_MAX when nothing waits. */
uint64_t detector_deadline(const struct detector *d);

/* Change times, counts and caps while it runs; running suspicions keep their timeouts. ERR_CONFIG, ERR_FULL: a cap below what is there. */
int detector_reconfigure(struct detector *d, const struct detector_config *config);

/* ---- actions ---- */

enum detector_kind { DETECTOR_SUSPECTED, DETECTOR_EXPIRED, DETECTOR_CLEARED };
#define DETECTOR_WHYS(X)                                                         \
  X(SILENT, "suspected")                  /* of SUSPECTED */                     \
  X(TIMEOUT, "timeout")                   /* of EXPIRED */                       \
  X(PROGRESS, "progress")                 /* these of CLEARED */                 \
  X(OVER, "job over")                                                            \
  X(NODE_DEAD, "node dead")                                                      \
  X(NODE_LEFT, "node left")                                                      \
  X(REJOINED, "node rejoined")                                                   \
  X(REFUTED, "refuted")                   /* of a machine, by a greater version */ \
  X(FORGOTTEN, "node forgotten")
enum detector_why {
#define DETECTOR_WHY_ENUM(name, text) DETECTOR_WHY_##name,
  DETECTOR_WHYS(DETECTOR_WHY_ENUM)
#undef DETECTOR_WHY_ENUM
  DETECTOR_WHYS_COUNT
};
const char *detector_why_text(enum detector_why why);

struct detector_action {
  enum detector_kind kind;
  enum detector_why why;
  struct detector_text job, node;           /* job.length 0: the machine. Valid until the next detector_next(). */
  struct detector_incarnation incarnation;  /* Of the node when it was suspected. */
  uint32_t confirmations;
  uint64_t timeout_ns;                      /* As it stands now: with its confirmations and extensions. */
  uint64_t age_ns;                          /* Since it began. */
};
/* Take one; false when none is left. They come in the order in which they happened. A suspicion that began and was cleared since the
 * last look is not mentioned. */
bool detector_next(struct detector *d, struct detector_action *out);

/* ---- the reconcile pass: one node or job a call, each looked at once a cycle ---- */

enum detector_looked { DETECTOR_LOOKED_NODE, DETECTOR_LOOKED_JOB, DETECTOR_LOOKED_ALL };
/* Check the next one against the wheel and the other tables, mend what differs and count it, drop nodes that are long dead and grants
 * that have passed. `name` is what was looked at, for the owner to compare with what it knows (then call detector_forget() or
 * detector_over()); valid until the next call. DETECTOR_LOOKED_ALL: the cycle is complete; the next call begins another. */
enum detector_looked detector_look(struct detector *d, uint64_t now_ns, struct detector_text *name);

/* ---- looking ---- */

struct detector_counts {
  uint64_t suspected[2], confirmed[2], expired[2]; /* [0] machines, [1] jobs. */
  uint64_t cleared[DETECTOR_WHYS_COUNT];           /* By reason, both layers. */
  uint64_t repeated;           /* Accused again by the same, or more often than wanted. */
  uint64_t unmatched;          /* Confirmations of no suspicion. */
  uint64_t stale;              /* Claims not above the last, accusations of an older life. */
  uint64_t of_dead;            /* Accusations of a node that is dead, held or left. */
  uint64_t full_nodes, full_job, full_all; /* Refused at a cap. */
  uint64_t extended, extended_ms, no_progress, exhausted, graces, full_extensions;
  uint64_t stalls, stalled_ms; /* Of our own ticks. */
  uint64_t postponed;          /* Expiries that were put off for a late tick or a stall. */
  uint64_t cycles, looked;     /* Complete reconcile cycles; nodes and jobs looked at. */
  uint64_t mended, dropped_nodes, dropped_grants; /* Found by them: differences; long dead; past. */
  uint32_t nodes, jobs, machines, suspicions, extensions; /* Now; suspicions are of jobs. */
};
void detector_counts(const struct detector *d, struct detector_counts *out);

/* The evidence. */
struct detector_evidence {
  bool known;                   /* The node. Else only the rest below is 0. */
  enum detector_state state;
  struct detector_incarnation incarnation;
  uint64_t changed_ns;          /* When its state last changed here. */
  bool suspected;               /* The suspicion of this key: */
  uint64_t began_ns, deadline_ns, least_ns, most_ns, extended_ns, postponed_ns;
  uint32_t confirmations, wanted, accusers[SUSPICION_CONFIRMATIONS_MAX + 1];
  struct detector_text accuser_names[SUSPICION_CONFIRMATIONS_MAX + 1]; /* length 0: no node here has this number. */
  bool extension;               /* Of the workflow that asked last: */
  uint32_t grants;
  bool graced;                  /* The last grace was given. */
  bool progressed;              /* Since the last grant. */
  uint64_t granted_until_ns;
};
void detector_why(const struct detector *d, struct detector_text job, struct detector_text node, struct detector_evidence *out);

#endif
