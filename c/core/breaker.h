/* breaker: stop asking a peer that keeps failing, and look again later with one trial.
 *
 *            `failures` failures within window_ns, no success between
 *   CLOSED ------------------------------------------------------->  OPEN        [breaker_failure]
 *     ^                                                                |  open_ns later  [breaker_state, breaker_allow]
 *     |                                                                |  or it came to us [breaker_heard]
 *     |         the trial succeeded                                    v
 *     +---------------------------------------------------------  HALF_OPEN      [breaker_success]
 *                                the trial failed: OPEN again                    [breaker_failure]
 *   OPEN, HALF_OPEN --> CLOSED: the peer answered something that passed nevertheless, or it restarted [breaker_close]
 *
 * A success clears what was counted: on a busy connection one slow request among a thousand answered ones says
 * nothing about the peer. While OPEN nothing counts, and while HALF_OPEN only the trial does: what was asked before it
 * opened may still end in either way, and proves nothing about now.
 *
 * Pure state: time enters as now_ns and does not run back. After Nygard, Release It! (2007), ch. 5. */
#ifndef SHOAL_BREAKER_H
#define SHOAL_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

enum { BREAKER_FAILURES_MAX = 16 };

enum breaker_status { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

struct breaker_config {
  uint32_t failures;  /* How many open it; 1..BREAKER_FAILURES_MAX. Default 3. */
  uint64_t window_ns; /* They lie at most this far apart, first to last. Default 30 s. */
  uint64_t open_ns;   /* From opening to half-open. Default 10 s. */
};

struct breaker {
  struct breaker_config config;
  enum breaker_status status;
  bool trial;                                /* HALF_OPEN, and the one trial is on its way. */
  uint32_t count;                            /* Failures remembered, oldest first. */
  uint64_t failed_at_ns[BREAKER_FAILURES_MAX];
  uint64_t opened_at_ns;
};

/* CLOSED, with nothing counted. */
void breaker_init(struct breaker *b, const struct breaker_config *config);

/* May something be asked of the peer now? When the answer makes this the trial, *trial is set, and the asker owes one
 * breaker_success, breaker_failure or breaker_release with it. */
bool breaker_allow(struct breaker *b, uint64_t now_ns, bool *trial);

/* The peer answered; `trial` as breaker_allow gave it. */
void breaker_success(struct breaker *b, bool trial);

/* The peer failed: no connection, no answer in time, a lost connection. */
void breaker_failure(struct breaker *b, uint64_t now_ns, bool trial);

/* The peer came to us by itself: an OPEN circuit is HALF_OPEN at once. It proves that the peer lives, not that it answers,
 * so the one trial is still asked. A restarted peer is then not kept waiting for open_ns. */
void breaker_heard(struct breaker *b);

/* The failures that were counted say nothing any more: the peer answered a message that passes whatever the circuit says, or
 * its process is another one. CLOSED with nothing counted; a trial that is on its way decides nothing any more, and its asker
 * must forget that it was one. */
void breaker_close(struct breaker *b);

/* The trial ended without saying anything about the peer (it was withdrawn here): the next one asked is the trial. */
void breaker_release(struct breaker *b);

/* The status at now_ns; an OPEN one whose time is over becomes HALF_OPEN here. */
enum breaker_status breaker_state(struct breaker *b, uint64_t now_ns);

/* When OPEN ends; UINT64_MAX when it is not OPEN. */
uint64_t breaker_deadline(const struct breaker *b);

const char *breaker_name(enum breaker_status status); /* "closed", "open", "half_open" */

#endif
