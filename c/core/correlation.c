#include "core/correlation.h"

#include <assert.h>
#include <string.h>

#include "core/errors.h"

#define SECOND UINT64_C(1000000000)
#define NEVER UINT64_MAX

void correlation_defaults(struct correlation_config *config) {
  *config = (struct correlation_config){
      .window_ns = 30 * SECOND, .hold_ns = 60 * SECOND, .down_ns = 5 * SECOND, .up_ns = 30 * SECOND,
      .low = 2, .medium = 3, .high = 4, .flap_moves = 3, .flap_ns = 120 * SECOND, .cool_ns = 300 * SECOND,
  };
}

const char *correlation_config_check(const struct correlation_config *config) {
  const uint64_t most = UINT64_MAX / 8;
  if (config->window_ns < config->down_ns) return "window must be at least down";
  if (config->window_ns > most || config->hold_ns > most || config->up_ns > most || config->flap_ns > most || config->cool_ns > most)
    return "times must be less than 73 years";
  if (config->down_ns == 0) return "down must be greater than 0";
  if (config->up_ns == 0) return "up must be greater than 0";
  if (config->hold_ns == 0) return "hold must be greater than 0";
  if (config->low < 2) return "low must be at least 2: one failure is not several";
  if (config->medium <= config->low) return "medium must be greater than low";
  if (config->high <= config->medium) return "high must be greater than medium";
  if (config->flap_moves == 1 || config->flap_moves > CORRELATION_MOVES_MAX) return "flap_moves must be 0, or 2 to 8";
  return NULL;
}

void correlation_init(struct correlation *c, const struct correlation_config *config, uint64_t now_ns) {
  assert(!correlation_config_check(config));
  memset(c, 0, sizeof *c);
  c->config = *config;
  c->now_ns = now_ns;
}

/* If this call is long after its deadline, this process was stopped: the reports of that time are still unread. */
static void advance(struct correlation *c, uint64_t now_ns) {
  assert(now_ns >= c->now_ns);
  uint64_t deadline = correlation_deadline(c);
  c->now_ns = now_ns;
  if (now_ns < deadline) return;
  bool late = now_ns - deadline > CORRELATION_LATE_NS && !c->excused;
  c->excused = late;
  if (!late) return;
  c->quiet_until_ns = now_ns + CORRELATION_LATE_NS;
  c->counts.late++;
}

/* ---- dcs ---- */

static struct correlation_dc *at(struct correlation *c, uint32_t dc) {
  assert(dc < c->end && c->dcs[dc].name[0] != 0);
  return &c->dcs[dc];
}

int correlation_find(const struct correlation *c, const char *name, size_t length) {
  if (length == 0 || length > CORRELATION_NAME_MAX) return ERR_NOT_FOUND;
  for (uint32_t i = 0; i < c->end; i++)
    if (strlen(c->dcs[i].name) == length && memcmp(c->dcs[i].name, name, length) == 0) return (int)i;
  return ERR_NOT_FOUND;
}

int correlation_know(struct correlation *c, uint64_t now_ns, const char *name, size_t length) {
  advance(c, now_ns);
  if (length == 0 || length > CORRELATION_NAME_MAX || memchr(name, 0, length)) return ERR_TOO_LARGE;
  int found = correlation_find(c, name, length);
  if (found >= 0) return found;
  if (c->known == CORRELATION_DCS_MAX) {
    c->counts.full++;
    return ERR_FULL;
  }
  uint32_t dc = 0;
  while (c->dcs[dc].name[0] != 0) dc++;
  c->dcs[dc] = (struct correlation_dc){.status = CORRELATION_UP, .since_ns = now_ns};
  memcpy(c->dcs[dc].name, name, length);
  c->known++;
  if (dc == c->end) c->end++;
  return (int)dc;
}

int correlation_forget(struct correlation *c, uint64_t now_ns, const char *name, size_t length) {
  advance(c, now_ns);
  int found = correlation_find(c, name, length);
  if (found < 0) return found;
  memset(&c->dcs[found], 0, sizeof c->dcs[found]);
  c->known--;
  while (c->end > 0 && c->dcs[c->end - 1].name[0] == 0) c->end--;
  return 0;
}

/* ---- reports ---- */

/* Its report changed. Past flap_moves changes within flap_ns it is damped; while it is, each change makes that last longer. */
static void note_move(struct correlation *c, struct correlation_dc *d) {
  d->since_ns = c->now_ns;
  uint32_t most = c->config.flap_moves;
  if (most == 0) return;
  if (d->moves == most) memmove(d->moves_ns, d->moves_ns + 1, --d->moves * sizeof *d->moves_ns);
  d->moves_ns[d->moves++] = c->now_ns;
  bool damped = c->now_ns < d->damped_until_ns;
  if (!damped && (d->moves < most || c->now_ns - d->moves_ns[0] > c->config.flap_ns)) return;
  if (!damped) c->counts.damped++;
  d->damped_until_ns = c->now_ns + c->config.cool_ns;
  d->spent = true; /* Also when the damping ends before this failure does. */
}

void correlation_suspect(struct correlation *c, uint64_t now_ns, uint32_t dc) {
  advance(c, now_ns);
  struct correlation_dc *d = at(c, dc);
  if (d->suspect || d->status == CORRELATION_FALLING || d->status == CORRELATION_DOWN) {
    c->counts.repeated++;
    return;
  }
  d->suspect = true;
  c->counts.suspects++;
}

void correlation_down(struct correlation *c, uint64_t now_ns, uint32_t dc) {
  advance(c, now_ns);
  struct correlation_dc *d = at(c, dc);
  d->suspect = false;
  if (d->status == CORRELATION_FALLING || d->status == CORRELATION_DOWN) {
    c->counts.repeated++;
    return;
  }
  bool same = d->status == CORRELATION_RISING; /* It was not up for long enough: its failure goes on. */
  if (!same) d->fell_ns = c->now_ns, d->spent = correlation_damped(c, dc);
  note_move(c, d);
  d->status = same ? CORRELATION_DOWN : CORRELATION_FALLING;
  c->counts.downs++;
}

void correlation_up(struct correlation *c, uint64_t now_ns, uint32_t dc) {
  advance(c, now_ns);
  struct correlation_dc *d = at(c, dc);
  if (d->status == CORRELATION_UP || d->status == CORRELATION_RISING) {
    if (!d->suspect) c->counts.repeated++;
    else if (d->status == CORRELATION_RISING) d->since_ns = c->now_ns; /* Its up_ns begin again. */
    d->suspect = false;
    return;
  }
  note_move(c, d);
  d->evicted = d->judged = false;
  if (d->status == CORRELATION_FALLING) d->status = CORRELATION_UP, d->spent = false;
  else d->status = CORRELATION_RISING;
  c->counts.ups++;
}

/* ---- the evidence ---- */

static bool failed(const struct correlation_dc *d) { return d->status == CORRELATION_DOWN || d->status == CORRELATION_RISING; }
static bool is_member(const struct correlation *c, const struct correlation_dc *d) { return d->name[0] != 0 && d->event == c->event; }

/* Whether this dc's failure, real or feared, is evidence. */
static bool counts(const struct correlation *c, uint32_t dc) {
  const struct correlation_dc *d = &c->dcs[dc];
  return d->name[0] != 0 && !correlation_damped(c, dc) && !d->spent;
}

static uint32_t steady(const struct correlation *c) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < c->end; i++) count += c->dcs[i].name[0] != 0 && !correlation_damped(c, i);
  return count;
}

static enum correlation_severity severity_of(const struct correlation *c, uint32_t count) {
  if (count >= c->config.high) return CORRELATION_HIGH;
  if (count >= c->config.medium) return CORRELATION_MEDIUM;
  return count >= c->config.low ? CORRELATION_LOW : CORRELATION_NONE;
}

static enum correlation_severity weigh(const struct correlation *c, uint32_t count) {
  return 2 * count >= steady(c) ? severity_of(c, count) : CORRELATION_NONE;
}

static bool within(uint64_t a, uint64_t b, uint64_t window_ns) { return (a > b ? a - b : b - a) <= window_ns; }

/* Dcs that failed within the window of this instant; `out` gets them when it is given. */
static uint32_t failed_near(const struct correlation *c, uint64_t fell_ns, bool *out) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < c->end; i++) {
    bool near = counts(c, i) && failed(&c->dcs[i]) && within(c->dcs[i].fell_ns, fell_ns, c->config.window_ns);
    if (out) out[i] = near;
    count += near;
  }
  return count;
}

/* Whether dcs that may be failing could make this one's failure one of several. */
static bool awaits(const struct correlation *c, uint32_t dc) {
  const struct correlation_dc *d = &c->dcs[dc];
  if (!counts(c, dc)) return false;
  uint32_t feared = 0;
  for (uint32_t i = 0; i < c->end; i++) {
    const struct correlation_dc *o = &c->dcs[i];
    if (!counts(c, i)) continue;
    if (o->status == CORRELATION_FALLING) feared += within(o->fell_ns, d->fell_ns, c->config.window_ns);
    else feared += o->status == CORRELATION_UP && o->suspect && c->now_ns - d->fell_ns <= c->config.window_ns;
  }
  return feared > 0 && weigh(c, failed_near(c, d->fell_ns, NULL) + feared) != CORRELATION_NONE;
}

/* ---- steps ---- */

/* Let reports count that have lasted. */
static void confirm(struct correlation *c) {
  for (uint32_t i = 0; i < c->end; i++) {
    struct correlation_dc *d = &c->dcs[i];
    if (d->status == CORRELATION_FALLING && c->now_ns - d->since_ns >= c->config.down_ns) {
      d->status = CORRELATION_DOWN;
      if (!counts(c, i)) continue;
      c->fresh = true;
      if (correlation_holds(c)) c->members += d->event != c->event, d->event = c->event;
    } else if (d->status == CORRELATION_RISING && !d->suspect && c->now_ns - d->since_ns >= c->config.up_ns) {
      d->status = CORRELATION_UP;
      d->spent = false;
    }
  }
}

/* Is the newest confirmed failure one of several? */
static bool detect(struct correlation *c) {
  bool near[CORRELATION_DCS_MAX];
  uint64_t newest_ns = 0;
  for (uint32_t i = 0; i < c->end; i++)
    if (counts(c, i) && failed(&c->dcs[i]) && c->dcs[i].fell_ns > newest_ns) newest_ns = c->dcs[i].fell_ns;
  uint32_t count = failed_near(c, newest_ns, near);
  enum correlation_severity severity = weigh(c, count);
  if (severity == CORRELATION_NONE) return false;
  c->event++;
  for (uint32_t i = 0; i < c->end; i++)
    if (near[i]) c->dcs[i].event = c->event;
  c->members = count;
  c->severity = severity;
  c->detected_ns = c->now_ns;
  c->hold_until_ns = c->now_ns + c->config.hold_ns;
  c->counts.detected++;
  return true;
}

/* The event is over. Those of its dcs that are still down are evicted now; none of its failures is evidence any more. */
static void heal(struct correlation *c, enum correlation_cause cause) {
  for (uint32_t i = 0; i < c->end; i++) {
    struct correlation_dc *d = &c->dcs[i];
    if (!is_member(c, d) || !failed(d)) continue;
    d->spent = true;
    if (d->status != CORRELATION_DOWN || d->evicted) continue;
    d->judged = true;
    d->cause = cause == CORRELATION_EXPIRED ? CORRELATION_VAIN : CORRELATION_LEFT;
  }
  c->severity = CORRELATION_NONE;
  c->fresh = false;
  if (cause == CORRELATION_EXPIRED) c->counts.expired++;
  else c->counts.returned++;
}

static uint32_t still_down(const struct correlation *c) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < c->end; i++) count += is_member(c, &c->dcs[i]) && failed(&c->dcs[i]);
  return count;
}

/* A step of an event that holds. */
static bool hold_on(struct correlation *c, struct correlation_action *out) {
  uint32_t still = still_down(c);
  enum correlation_severity now = severity_of(c, still), was = c->severity;
  bool returned = still < 2 || 2 * still < c->members, expired = c->now_ns >= c->hold_until_ns;
  *out = (struct correlation_action){.event = c->event, .severity = was, .since_ns = c->detected_ns};
  if (returned || (expired && now <= was)) {
    out->kind = CORRELATION_HEALED;
    out->cause = returned ? CORRELATION_RETURNED : CORRELATION_EXPIRED;
    heal(c, out->cause);
    return true;
  }
  if (now <= was) return false;
  c->severity = out->severity = now;
  c->hold_until_ns = c->now_ns + c->config.hold_ns;
  c->counts.raised++;
  out->kind = CORRELATION_RAISED;
  return true;
}

static bool is_evictable(const struct correlation *c, uint32_t dc) {
  const struct correlation_dc *d = &c->dcs[dc];
  if (d->status != CORRELATION_DOWN || d->evicted) return false;
  return d->judged || (c->now_ns - d->since_ns >= 2 * c->config.down_ns && !awaits(c, dc));
}

static bool evict(struct correlation *c, struct correlation_action *out) {
  for (uint32_t i = 0; i < c->end; i++) {
    struct correlation_dc *d = &c->dcs[i];
    if (!is_evictable(c, i)) continue;
    enum correlation_cause cause = d->judged ? d->cause : CORRELATION_ALONE;
    d->evicted = true, d->judged = false;
    if (cause == CORRELATION_ALONE) c->counts.alone++;
    else if (cause == CORRELATION_LEFT) c->counts.left++;
    else c->counts.vain++;
    *out = (struct correlation_action){.kind = CORRELATION_EVICT, .cause = cause, .event = d->event, .dc = i, .since_ns = d->since_ns};
    return true;
  }
  return false;
}

bool correlation_next(struct correlation *c, uint64_t now_ns, struct correlation_action *out) {
  advance(c, now_ns);
  if (now_ns < c->quiet_until_ns) return false;
  confirm(c);
  if (correlation_holds(c)) return hold_on(c, out);
  bool fresh = c->fresh;
  c->fresh = false; /* Old failures are weighed no second time, however the number of known dcs changes. */
  if (fresh && detect(c)) {
    *out = (struct correlation_action){
        .kind = CORRELATION_DETECTED, .event = c->event, .severity = c->severity, .since_ns = c->detected_ns};
    return true;
  }
  return evict(c, out);
}

static uint64_t sooner(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* When time alone changes something about this dc. */
static uint64_t deadline_of(const struct correlation *c, uint32_t dc) {
  const struct correlation_dc *d = &c->dcs[dc];
  if (d->status == CORRELATION_FALLING) return d->since_ns + c->config.down_ns;
  if (d->status == CORRELATION_RISING) return d->suspect ? NEVER : d->since_ns + c->config.up_ns;
  if (d->status == CORRELATION_UP || d->evicted || correlation_holds(c)) return NEVER;
  uint64_t settled_ns = d->since_ns + 2 * c->config.down_ns;
  if (d->judged || c->now_ns < settled_ns) return d->judged ? c->now_ns : settled_ns;
  if (!awaits(c, dc)) return c->now_ns;
  uint64_t past_ns = d->fell_ns + c->config.window_ns + 1; /* Then suspects count no more; others have deadlines of their own. */
  return past_ns > c->now_ns ? past_ns : NEVER;
}

uint64_t correlation_deadline(const struct correlation *c) {
  uint64_t first = correlation_holds(c) ? c->hold_until_ns : NEVER;
  for (uint32_t i = 0; i < c->end; i++)
    if (c->dcs[i].name[0] != 0) first = sooner(first, deadline_of(c, i));
  return first < c->quiet_until_ns ? c->quiet_until_ns : first;
}

void correlation_check(const struct correlation *c) {
  uint32_t known = 0;
  for (uint32_t i = 0; i < CORRELATION_DCS_MAX; i++) {
    const struct correlation_dc *d = &c->dcs[i];
    if (d->name[0] == 0) continue;
    known++;
    assert(i < c->end && d->since_ns <= c->now_ns && d->event <= c->event && d->moves <= CORRELATION_MOVES_MAX);
    assert(!d->evicted || d->status == CORRELATION_DOWN);
    assert(!d->judged || (d->status == CORRELATION_DOWN && !d->evicted && d->spent));
    assert(d->status == CORRELATION_UP ? !d->spent : d->fell_ns <= d->since_ns);
  }
  assert(known == c->known && c->end <= CORRELATION_DCS_MAX);
  assert(c->counts.detected == c->event);
  assert(c->counts.detected == c->counts.returned + c->counts.expired + correlation_holds(c));
  assert(!correlation_holds(c) || still_down(c) <= c->members);
}

const char *correlation_status_name(enum correlation_status status) {
  static const char *const names[] = {"up", "falling", "down", "rising"};
  return names[status];
}

const char *correlation_severity_name(enum correlation_severity severity) {
  static const char *const names[] = {"none", "low", "medium", "high"};
  return names[severity];
}

const char *correlation_kind_name(enum correlation_kind kind) {
  static const char *const names[] = {"detected", "raised", "healed", "evict"};
  return names[kind];
}

const char *correlation_cause_name(enum correlation_cause cause) {
  static const char *const names[] = {"returned", "expired", "alone", "left", "vain"};
  return names[cause];
}
