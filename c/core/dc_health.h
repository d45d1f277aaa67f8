/* dc_health: how well one datacenter (dc) is, for routing: healthy, busy, degraded or unhealthy; and how hard its managers press back.
 *
 * From facts of a probe, the state that they ask for:
 *
 *   UNHEALTHY   it is not reachable, or none of its managers lives: nothing can be sent there
 *   DEGRADED    it is suspected, has no worker, or has lost managers: at most degraded_percent of them live, until recovered_percent do
 *   BUSY        its cores are in use: busy_percent of them, until at most idle_percent are; or a manager presses back
 *   HEALTHY     else
 *
 * A dc that is full is BUSY, never worse: work sent there waits, but is not lost. A manager that was reaped counts neither as known
 * nor as alive, so its dc is well again without it.
 *
 *              facts ask for worse for worse_ns                     it is not reachable
 *   any state -----------------------------------> a worse state   any state -----------> UNHEALTHY, at once
 *             <-----------------------------------
 *              facts ask for better for better_ns   UNHEALTHY ---- it is reachable again ----> DEGRADED, at once
 *                                                                                      [dc_health_judge, dc_health_state]
 *
 * Reachability is a verdict already, so it acts at once: the prober (core/federation) took its time. DEGRADED after that is damping that
 * costs no job: a dc that has just returned is used if there is no better one. In worse_ns the state becomes the least bad that the
 * facts asked for meanwhile, in better_ns the worst: a moment decides nothing. Two gates that get the same facts agree, at most one
 * probe apart.
 *
 * Back-pressure. Each manager of the dc has its own level. The dc's level is the worst of them, for a job may meet any of them. A level
 * that is not refreshed for level_ns has expired, so that a manager that dies under load blocks nothing.
 *
 * A plain value: time enters as now_ns and does not run back; no allocation. */
#ifndef SHOAL_DC_HEALTH_H
#define SHOAL_DC_HEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  DC_HEALTH_MANAGERS_MAX = 32, /* That press back at once; one past it: ERR_FULL, counted. The level is then not below the others'. */
  DC_HEALTH_NAME_MAX = 64,     /* Bytes of a manager's name, at least 1; else ERR_TOO_LARGE. */
};

enum dc_health_status { DC_HEALTHY, DC_BUSY, DC_DEGRADED, DC_UNHEALTHY };
enum dc_health_level { DC_LEVEL_NONE, DC_LEVEL_THROTTLE, DC_LEVEL_BATCH, DC_LEVEL_REJECT };

struct dc_health_config {
  uint32_t degraded_percent, recovered_percent; /* Of its managers; the first < the second <= 100. Defaults 50 and 60. */
  uint32_t busy_percent, idle_percent;          /* Of its cores; the first > the second, <= 100. Defaults 95 and 85. */
  uint64_t worse_ns;  /* Default 3 s: one bad probe among good ones, 2 s apart, changes nothing. */
  uint64_t better_ns; /* Default 10 s. */
  uint64_t level_ns;  /* Default 10 s. */
};

struct dc_health_facts {
  bool reachable;
  bool suspect;                      /* Reachable, with signs that it is not. */
  uint32_t managers, managers_alive; /* Known, and of them alive: managers_alive <= managers. */
  uint32_t workers, cores, free;     /* free <= cores. */
};

struct dc_health_press {
  char manager[DC_HEALTH_NAME_MAX + 1];
  enum dc_health_level level;
  uint64_t heard_ns;
};

struct dc_health {
  struct dc_health_config config;
  enum dc_health_status status;
  bool judged;                    /* Facts came once; before that it is UNHEALTHY: nothing is known of it. */
  bool few, full;                 /* Below the first threshold, and not past the second since. */
  bool pressed;                   /* The level that the state was last judged with was not none. */
  struct dc_health_facts facts;   /* The last ones. */
  enum dc_health_status pending;  /* Another state that is asked for, since_ns; `status` if none is. */
  uint64_t since_ns, now_ns;
  struct dc_health_press pressing[DC_HEALTH_MANAGERS_MAX]; /* Managers with a level above none. */
  uint32_t pressing_count;
  uint64_t changes, refused;      /* Changes of the state; levels refused because the table was full. */
};

void dc_health_defaults(struct dc_health_config *config);
/* A sentence about the first mistake of a configuration, which begins with the name of its field without the unit; NULL: none. */
const char *dc_health_config_check(const struct dc_health_config *config);
/* The configuration must be right. */
void dc_health_init(struct dc_health *h, const struct dc_health_config *config, uint64_t now_ns);

/* New facts. The first decide at once. Returns the state. */
enum dc_health_status dc_health_judge(struct dc_health *h, uint64_t now_ns, const struct dc_health_facts *facts);
/* The state now: time and expired levels change it too. */
enum dc_health_status dc_health_state(struct dc_health *h, uint64_t now_ns);
/* When time alone can next change the state or the level; UINT64_MAX: never. */
uint64_t dc_health_deadline(const struct dc_health *h);

/* A manager's level, as it told it now; none clears it. Returns 0, ERR_FULL or ERR_TOO_LARGE. */
int dc_health_press(struct dc_health *h, uint64_t now_ns, const char *manager, size_t length, enum dc_health_level level);
/* The manager is no more. */
void dc_health_drop(struct dc_health *h, const char *manager, size_t length);
/* The worst level that has not expired. */
enum dc_health_level dc_health_worst(struct dc_health *h, uint64_t now_ns);

const char *dc_health_status_name(enum dc_health_status status); /* "healthy", "busy", "degraded", "unhealthy" */
const char *dc_health_level_name(enum dc_health_level level);    /* "none", "throttle", "batch", "reject" */

#endif
