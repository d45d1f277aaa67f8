#include "core/dc_health.h"

#include <assert.h>
#include <string.h>

#include "core/errors.h"

#define SECOND UINT64_C(1000000000)

void dc_health_defaults(struct dc_health_config *config) {
  *config = (struct dc_health_config){
      .degraded_percent = 50, .recovered_percent = 60, .busy_percent = 95, .idle_percent = 85,
      .worse_ns = 3 * SECOND, .better_ns = 10 * SECOND, .level_ns = 10 * SECOND,
  };
}

const char *dc_health_config_check(const struct dc_health_config *config) {
  const uint64_t most = UINT64_MAX / 8;
  if (config->recovered_percent > 100) return "recovered_percent must be at most 100";
  if (config->degraded_percent >= config->recovered_percent) return "degraded_percent must be less than recovered_percent";
  if (config->busy_percent > 100) return "busy_percent must be at most 100";
  if (config->idle_percent >= config->busy_percent) return "idle_percent must be less than busy_percent";
  if (config->level_ns == 0) return "level must be greater than 0";
  if (config->worse_ns > most || config->better_ns > most || config->level_ns > most) return "times must be less than 73 years";
  return NULL;
}

void dc_health_init(struct dc_health *h, const struct dc_health_config *config, uint64_t now_ns) {
  assert(!dc_health_config_check(config));
  memset(h, 0, sizeof *h);
  h->config = *config;
  h->status = h->pending = DC_UNHEALTHY;
  h->now_ns = now_ns;
}

static void expire(struct dc_health *h, uint64_t now_ns) {
  assert(now_ns >= h->now_ns);
  h->now_ns = now_ns;
  for (uint32_t i = 0; i < h->pressing_count;)
    if (now_ns - h->pressing[i].heard_ns >= h->config.level_ns) h->pressing[i] = h->pressing[--h->pressing_count];
    else i++;
}

static enum dc_health_level worst(const struct dc_health *h) {
  enum dc_health_level level = DC_LEVEL_NONE;
  for (uint32_t i = 0; i < h->pressing_count; i++)
    if (h->pressing[i].level > level) level = h->pressing[i].level;
  return level;
}

/* The state that the facts ask for. */
static enum dc_health_status asked(struct dc_health *h) {
  const struct dc_health_facts *f = &h->facts;
  const struct dc_health_config *config = &h->config;
  uint64_t used = 100 * (uint64_t)(f->cores - f->free), alive = 100 * (uint64_t)f->managers_alive;
  if (alive <= (uint64_t)f->managers * config->degraded_percent) h->few = true;
  else if (alive >= (uint64_t)f->managers * config->recovered_percent) h->few = false;
  if (f->free == 0 || used >= (uint64_t)f->cores * config->busy_percent) h->full = f->cores > 0;
  else if (used <= (uint64_t)f->cores * config->idle_percent) h->full = false;
  h->pressed = worst(h) > DC_LEVEL_NONE;
  if (!f->reachable || f->managers_alive == 0) return DC_UNHEALTHY;
  if (f->suspect || f->workers == 0 || h->few) return DC_DEGRADED;
  return h->full || h->pressed ? DC_BUSY : DC_HEALTHY;
}

static void move(struct dc_health *h, enum dc_health_status status) {
  if (h->status != status) h->changes++;
  h->status = h->pending = status;
}

/* Let time pass over what is asked for. */
static enum dc_health_status look(struct dc_health *h, uint64_t now_ns) {
  expire(h, now_ns);
  if (!h->judged) return h->status;
  enum dc_health_status wanted = asked(h);
  if (wanted == DC_UNHEALTHY) {
    move(h, DC_UNHEALTHY);
  } else if (h->status == DC_UNHEALTHY) {
    move(h, DC_DEGRADED);
  }
  if (wanted == h->status) {
    h->pending = wanted;
    return h->status;
  }
  bool worse = wanted > h->status;
  bool goes_on = h->pending != h->status && (h->pending > h->status) == worse;
  if (!goes_on) {
    h->since_ns = now_ns;
    h->pending = wanted;
  } else if (worse ? wanted < h->pending : wanted > h->pending) {
    h->pending = wanted;
  }
  if (now_ns - h->since_ns >= (worse ? h->config.worse_ns : h->config.better_ns)) {
    move(h, h->pending);
    h->pending = wanted; /* The rest of the way has its own time. */
    h->since_ns = now_ns;
  }
  return h->status;
}

enum dc_health_status dc_health_judge(struct dc_health *h, uint64_t now_ns, const struct dc_health_facts *facts) {
  assert(facts->managers_alive <= facts->managers && facts->free <= facts->cores);
  bool first = !h->judged;
  if (!first) (void)look(h, now_ns); /* What the last facts asked for until now counts until now. */
  h->facts = *facts;
  h->judged = true;
  if (first) {
    expire(h, now_ns);
    move(h, asked(h));
  }
  return look(h, now_ns);
}

enum dc_health_status dc_health_state(struct dc_health *h, uint64_t now_ns) { return look(h, now_ns); }

uint64_t dc_health_deadline(const struct dc_health *h) {
  uint64_t first = UINT64_MAX;
  if (h->pending != h->status)
    first = h->since_ns + (h->pending > h->status ? h->config.worse_ns : h->config.better_ns);
  for (uint32_t i = 0; i < h->pressing_count; i++) {
    uint64_t ends_ns = h->pressing[i].heard_ns + h->config.level_ns;
    if (ends_ns < first) first = ends_ns;
  }
  return first;
}

static struct dc_health_press *find(struct dc_health *h, const char *manager, size_t length) {
  for (uint32_t i = 0; i < h->pressing_count; i++)
    if (strlen(h->pressing[i].manager) == length && memcmp(h->pressing[i].manager, manager, length) == 0) return &h->pressing[i];
  return NULL;
}

void dc_health_drop(struct dc_health *h, const char *manager, size_t length) {
  struct dc_health_press *p = find(h, manager, length);
  if (p) *p = h->pressing[--h->pressing_count];
}

int dc_health_press(struct dc_health *h, uint64_t now_ns, const char *manager, size_t length, enum dc_health_level level) {
  expire(h, now_ns);
  if (length == 0 || length > DC_HEALTH_NAME_MAX || memchr(manager, 0, length)) return ERR_TOO_LARGE;
  struct dc_health_press *p = find(h, manager, length);
  if (level == DC_LEVEL_NONE) {
    if (p) *p = h->pressing[--h->pressing_count];
  } else if (p) {
    p->level = level, p->heard_ns = now_ns;
  } else if (h->pressing_count == DC_HEALTH_MANAGERS_MAX) {
    h->refused++;
    return ERR_FULL;
  } else {
    p = &h->pressing[h->pressing_count++];
    *p = (struct dc_health_press){.level = level, .heard_ns = now_ns};
    memcpy(p->manager, manager, length);
  }
  (void)look(h, now_ns); /* Whether it presses back counts from here on. */
  return 0;
}

enum dc_health_level dc_health_worst(struct dc_health *h, uint64_t now_ns) {
  expire(h, now_ns);
  return worst(h);
}

const char *dc_health_status_name(enum dc_health_status status) {
  static const char *const names[] = {"healthy", "busy", "degraded", "unhealthy"};
  return names[status];
}

const char *dc_health_level_name(enum dc_health_level level) {
  static const char *const names[] = {"none", "throttle", "batch", "reject"};
  return names[level];
}
