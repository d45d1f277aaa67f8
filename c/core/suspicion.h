/* suspicion: how long a suspect has to refute, given how many accuse it (Lifeguard: Dadgar, Phillips, Currey,
 * arXiv 1707.00788).
 *
 *   suspicion_start ──> running ──── suspicion_confirm by one more accuser ───> running, deadline nearer or equal
 *                          └── the owner: now >= suspicion_deadline ──> expired
 *
 * With C of K wanted confirmations counted (the first accuser is none),
 *   timeout(C) = max - (max - min) * log(C + 1) / log(K + 1),   timeout(K) = min exactly; K = 0 gives min at once.
 * It falls as C grows, C never falls, and the start never moves: so a confirmation can only bring the deadline nearer,
 * and it is never sooner than start + min. An accuser counts once; those past K change nothing.
 *
 * A plain value: no clock, no allocation. The membership keeps one for each suspected member, the job detector one for
 * each (node, job), both in a core/heap. */
#ifndef SHOAL_SUSPICION_H
#define SHOAL_SUSPICION_H

#include <stdbool.h>
#include <stdint.h>

enum { SUSPICION_CONFIRMATIONS_MAX = 7 };

struct suspicion {
  uint64_t started_ns, min_ns, max_ns;
  uint32_t accusers[SUSPICION_CONFIRMATIONS_MAX + 1]; /* The first one, then those who confirmed, in order of arrival. */
  uint8_t confirmed, wanted;                          /* C and K. */
};

/* min_ns <= max_ns; `wanted` is held to SUSPICION_CONFIRMATIONS_MAX. Accusers are told apart by number. */
void suspicion_start(struct suspicion *s, uint64_t now_ns, uint64_t min_ns, uint64_t max_ns, uint32_t wanted,
                     uint32_t accuser);
/* Count an accuser. True if it was new and wanted: the deadline may then be nearer, and the owner should gossip it. */
bool suspicion_confirm(struct suspicion *s, uint32_t accuser);
/* Another member holds it dead: no more confirmations are wanted, so the deadline is start + min. */
void suspicion_hasten(struct suspicion *s);
uint64_t suspicion_deadline(const struct suspicion *s);
bool suspicion_accused_by(const struct suspicion *s, uint32_t accuser);
uint32_t suspicion_last_accuser(const struct suspicion *s);

#endif
