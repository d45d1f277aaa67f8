/* breaker: a circuit breaker: stop calling a peer that keeps failing, and try it again later with one trial.
 *
 *            `failures` failures within window_ns, no success between
 *   CLOSED ------------------------------------------------------->  OPEN        [breaker_failure]
 *     ^                                                                |  open_ns later  [breaker_state, breaker_allow]
 *     |                                                                |  or it contacted us [breaker_heard]
 *     |         the trial succeeded                                    v
 *     +---------------------------------------------------------  HALF_OPEN      [breaker_success]
 *                                the trial failed: OPEN again                    [breaker_failure]
 *   OPEN, HALF_OPEN --> CLOSED: the peer answered a message that bypasses the circuit, or it restarted [breaker_close]
 *
 * A success clears the counted failures: on a busy connection one slow request among a thousand answered ones is no
 * evidence about the peer. While OPEN nothing counts, and while HALF_OPEN only the trial does: requests from before it
 * opened may still succeed or fail, and are no evidence about the present.
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

/* Whether the peer may be called now. If this call is the trial, *trial is set, and the caller owes one breaker_success,
 * breaker_failure or breaker_release with it. */
bool breaker_allow(struct breaker *b, uint64_t now_ns, bool *trial);

/* The peer answered; `trial` as breaker_allow gave it. */
void breaker_success(struct breaker *b, bool trial);

/* The peer failed: no connection, no answer in time, a lost connection. */
void breaker_failure(struct breaker *b, uint64_t now_ns, bool trial);

/* The peer contacted us: an OPEN circuit becomes HALF_OPEN at once. This proves that the peer lives, not that it answers,
 * so the one trial is still needed. So a restarted peer does not wait for open_ns. */
void breaker_heard(struct breaker *b);

/* The counted failures are no longer evidence: the peer answered a message that bypasses the circuit, or its process has
 * restarted. CLOSED with nothing counted; a pending trial no longer decides anything, and its caller must forget that it was
 * one. */
void breaker_close(struct breaker *b);

/* The trial ended without evidence about the peer (it was withdrawn here): the next call is the trial. */
void breaker_release(struct breaker *b);

/* The status at now_ns; an OPEN one whose time is over becomes HALF_OPEN here. */
enum breaker_status breaker_state(struct breaker *b, uint64_t now_ns);

/* When OPEN ends; UINT64_MAX when it is not OPEN. */
uint64_t breaker_deadline(const struct breaker *b);

const char *breaker_name(enum breaker_status status); /* "closed", "open", "half_open" */

#endif
