/* Seeds, and leaving. */
#include <assert.h>

#include "core/errors.h"
#include "core/swim_private.h"

/* ---- seeds ---- */

static struct seed *seed_find(struct swim *s, const struct shoal_address *address) {
  for (uint32_t i = 0; i < s->seeds_count; i++)
    if (address_equal(&s->seeds[i].address, address)) return &s->seeds[i];
  return NULL;
}

int swim_join(struct swim *s, uint64_t now_ns, const struct shoal_address *seed) {
  assert(now_ns >= s->now_ns);
  s->now_ns = now_ns;
  struct shoal_address ours = swim_address(s, &s->members[SELF]);
  if (address_equal(seed, &ours)) return 0; /* A node does not join itself. */
  struct seed *known = seed_find(s, seed);
  if (!known && s->seeds_count == SWIM_SEEDS_MAX) return ERR_FULL;
  if (!known) known = &s->seeds[s->seeds_count++];
  *known = (struct seed){.address = *seed, .next_ns = now_ns};
  backoff_init(&known->backoff, &(struct backoff_config){ms(s->config.join_retry_ms), ms(s->config.join_retry_max_ms), 2});
  return 0;
}

bool swim_forget(struct swim *s, const struct shoal_address *seed) {
  struct seed *known = seed_find(s, seed);
  if (known) *known = s->seeds[--s->seeds_count];
  return known != NULL;
}

void swim_seed_refused(struct swim *s, const struct shoal_address *from, int reason) {
  struct seed *seed = seed_find(s, from);
  if (seed) seed->refused = 1 + reason;
}

bool swim_each_seed(const struct swim *s, uint32_t *cursor, struct swim_seed *out) {
  if (*cursor >= s->seeds_count) return false;
  const struct seed *seed = &s->seeds[(*cursor)++];
  *out = (struct swim_seed){.address = seed->address, .answered = seed->member != 0, .tries = seed->tries,
                            .since_ns = seed->since_ns, .refused = seed->refused - 1};
  return true;
}

bool swim_is_out(const struct swim *s) { return s->apart; }

static void try_seed(struct swim *s, struct seed *seed) {
  if (seed->tries++ == 0) seed->since_ns = s->now_ns;
  seed->sequence = swim_send_sync(s, &seed->address);
  seed->next_ns = s->now_ns + backoff_next(&seed->backoff, rng_next(&s->rng)); /* Jittered: nodes that start together ask apart. */
}

void swim_join_tick(struct swim *s) {
  if (s->leaving || swim_silent(s)) return;
  for (uint32_t i = 0; i < s->seeds_count; i++)
    if (s->now_ns >= s->seeds[i].next_ns) try_seed(s, &s->seeds[i]);
}

uint64_t swim_join_deadline(const struct swim *s) {
  uint64_t at = UINT64_MAX;
  for (uint32_t i = 0; i < s->seeds_count && !s->leaving && !swim_silent(s); i++) at = earlier(at, s->seeds[i].next_ns);
  return at;
}

/* Is the member that answered at this seed still alive at that address? */
static bool seed_lives(const struct swim *s, const struct seed *seed) {
  uint32_t id = seed->member ? swim_members_by_key(s, seed->member, 0) : NONE;
  if (id == NONE || !swim_lives(&s->members[id])) return false;
  struct shoal_address known = swim_address(s, &s->members[id]);
  return address_equal(&known, &seed->address);
}

void swim_retry_dead_or_seed(struct swim *s) {
  if (s->leaving || rng_below(&s->rng, swim_living(s)) != 0) return;
  uint64_t choices = (uint64_t)s->dead + s->seeds_count;
  if (choices == 0) return;
  uint64_t pick = rng_below(&s->rng, choices);
  if (pick < s->dead) {
    swim_send_ping(s, swim_grave(s, (uint32_t)pick), 0);
    return;
  }
  struct seed *seed = &s->seeds[pick - s->dead];
  if (seed->next_ns == UINT64_MAX && !seed_lives(s, seed)) seed->sequence = swim_send_sync(s, &seed->address);
}

/* ---- leaving ---- */

void swim_leave(struct swim *s, uint64_t now_ns) {
  assert(now_ns >= s->now_ns);
  s->now_ns = now_ns;
  if (s->leaving) return;
  swim_probe_forgive(s);
  s->leaving = true;
  s->probe_ns = UINT64_MAX;
  s->leave_ns = now_ns + ms(s->config.leave_timeout_ms);
  s->witnesses_wanted = s->living < WITNESSES ? s->living : WITNESSES;
  if (swim_silent(s)) s->witnesses_wanted = 0; /* Nobody knows us, but our namesake. */
  swim_self_left(s);
  swim_leave_tick(s);
}

bool swim_is_leaving(const struct swim *s) { return s->leaving; }

void swim_leave_heard(struct swim *s, uint32_t id) {
  for (uint32_t i = 0; i < s->witnesses_count; i++)
    if (s->witnesses[i] == id) return;
  if (s->witnesses_count < WITNESSES) s->witnesses[s->witnesses_count++] = id;
}

bool swim_leave_over(const struct swim *s) {
  return s->leaving && (s->witnesses_count >= s->witnesses_wanted || s->now_ns >= s->leave_ns);
}

void swim_leave_tick(struct swim *s) {
  if (!s->leaving || swim_leave_over(s)) return;
  uint32_t running = 0, ids[FANOUT_MAX];
  for (int i = 0; i < PROBES_MAX; i++)
    if (s->probes[i].stage != PROBE_FREE && s->probes[i].purpose == FOR_LEAVE) running++;
  uint32_t count = swim_choose(s, ids, FANOUT_MAX, NONE);
  for (uint32_t i = 0; i < count && s->witnesses_count + running < s->witnesses_wanted; i++) {
    bool heard = false;
    for (uint32_t j = 0; j < s->witnesses_count; j++) heard |= s->witnesses[j] == ids[i];
    for (int j = 0; j < PROBES_MAX; j++) heard |= s->probes[j].stage != PROBE_FREE && s->probes[j].target == ids[i];
    if (!heard && swim_probe_start(s, ids[i], FOR_LEAVE)) running++;
  }
}
