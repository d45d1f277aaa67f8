/* world_private: how world.h is made of one world or another. Seen by world.c, uv*.c and sim.c only.
 *
 * world.c holds the public functions: each asserts its preconditions, does what is the same in every world (calls on
 * a closing thing, the closing flag, the greatest datagram, the random stream, the deferred list), and goes through `ops`.
 * A world embeds `struct shoal_world` and each kind of thing embeds its base below as the first member:
 *
 *   struct uv_timer { struct world_timer base; uv_timer_t timer; ... };
 *
 * So ops functions get the base and find their own struct around it. */
#ifndef SHOAL_WORLD_PRIVATE_H
#define SHOAL_WORLD_PRIVATE_H

#include "core/rng.h"
#include "world/world.h"

/* The first member of everything that is opened. */
struct world_handle {
  struct shoal_world *world;
  bool closing; /* Set by world.c before ops is asked to close; never cleared. After it only on_closed may be called. */
};
struct world_timer { struct world_handle handle; };
struct world_udp { struct world_handle handle; };
struct world_stream { struct world_handle handle; };
struct world_listener { struct world_handle handle; };
struct world_lookup { struct world_handle handle; };
struct world_log { struct world_handle handle; };
struct world_put { struct world_handle handle; };
struct world_lock { struct world_handle handle; };
struct world_process { struct world_handle handle; };

/* Each has the meaning of the function of its name in world.h. Functions that take a thing and return nothing or a code are
 * never called for a closing one; X_close is called once. */
struct world_ops {
  bool simulated;
  uint64_t (*now_ns)(struct shoal_world *w);
  uint64_t (*fresh_ns)(struct shoal_world *w);
  int64_t (*wall_ns)(struct shoal_world *w);
  /* The deferred list is no longer empty: call world_run_deferred() before waiting. Also called while it runs. */
  void (*defer_armed)(struct shoal_world *w);

  int (*timer_open)(struct shoal_world *w, void (*on_timer)(void *data), world_closed_fn *on_closed, void *data,
                    struct world_timer **out);
  void (*timer_start)(struct world_timer *t, uint64_t at_ns);
  void (*timer_stop)(struct world_timer *t);
  void (*timer_close)(struct world_timer *t);

  int (*udp_open)(struct shoal_world *w, const struct shoal_address *bind, const struct world_udp_events *events,
                  void *data, struct world_udp **out);
  int (*udp_send)(struct world_udp *u, const struct shoal_address *to, const void *bytes, size_t length);
  void (*udp_address)(struct world_udp *u, struct shoal_address *out);
  void (*udp_close)(struct world_udp *u);

  int (*connect)(struct shoal_world *w, const struct shoal_address *to, const struct world_stream_events *events,
                 void *data, struct world_stream **out);
  void (*stream_attach)(struct world_stream *s, const struct world_stream_events *events, void *data);
  int (*stream_write)(struct world_stream *s, const struct world_buffer *buffers, size_t count);
  size_t (*stream_queued)(const struct world_stream *s); /* Called for closing ones too, as are peer and the addresses. */
  void (*stream_read)(struct world_stream *s, bool on);
  int (*stream_shutdown)(struct world_stream *s);
  void (*stream_window)(struct world_stream *s, size_t bytes);
  bool (*stream_peer)(const struct world_stream *s, struct shoal_address *out);
  void (*stream_close)(struct world_stream *s);

  int (*listen)(struct shoal_world *w, const struct shoal_address *bind, const struct world_listener_events *events,
                void *data, struct world_listener **out);
  void (*listener_address)(struct world_listener *l, struct shoal_address *out);
  void (*listener_close)(struct world_listener *l);

  int (*stdio)(struct shoal_world *w, int fd, struct world_stream **out);

  int (*resolve)(struct shoal_world *w, const char *host, uint16_t port,
                 void (*on_result)(void *data, int status, const struct shoal_address *addresses, size_t count),
                 world_closed_fn *on_closed, void *data, struct world_lookup **out);
  void (*lookup_close)(struct world_lookup *l);

  int (*read_file)(struct shoal_world *w, const char *path, uint8_t **bytes, size_t *length);
  int (*put_durable)(struct shoal_world *w, const char *path, const void *bytes, size_t length);
  int (*put_later)(struct shoal_world *w, const char *path, const void *bytes, size_t length,
                   void (*on_done)(void *data, int status), world_closed_fn *on_closed, void *data, struct world_put **out);
  void (*put_close)(struct world_put *p);
  int (*stat)(struct shoal_world *w, const char *path, struct world_stat *out);
  int (*rename)(struct shoal_world *w, const char *from, const char *to);
  int (*unlink)(struct shoal_world *w, const char *path);
  int (*make_directory)(struct shoal_world *w, const char *path);
  int (*make_private)(struct shoal_world *w, const char *path); /* NULL: unsupported, as the next two. */
  int (*check_private)(struct shoal_world *w, const char *path);
  int (*remove_directory)(struct shoal_world *w, const char *path);
  int (*list)(struct shoal_world *w, const char *path, void (*on_name)(void *data, const char *name), void *data);

  int (*lock)(struct shoal_world *w, const char *path, world_closed_fn *on_closed, void *data, int *holder,
              struct world_lock **out);
  void (*lock_close)(struct world_lock *l);
  int (*lock_check)(const struct world_lock *l);

  int (*log_open)(struct shoal_world *w, const char *path, const struct world_log_events *events, void *data,
                  struct world_log **out);
  int (*log_lock)(struct world_log *l, int *holder);
  int (*log_append)(struct world_log *l, const void *bytes, size_t length);
  int (*log_sync)(struct world_log *l);
  int (*log_truncate)(struct world_log *l, uint64_t size);
  uint64_t (*log_size)(const struct world_log *l);
  void (*log_close)(struct world_log *l);

  int (*spawn)(struct shoal_world *w, const struct world_spawn *options, const struct world_process_events *events,
               void *data, struct world_process **out);
  struct world_stream *(*process_stream)(struct world_process *p, int fd);
  int (*process_pid)(const struct world_process *p);
  int (*process_kill)(struct world_process *p, int signal);
  void (*process_close)(struct world_process *p);
  void (*process_ended)(const struct world_process *p, struct world_ended *out); /* NULL: knows nothing. */

  void (*telemetry)(struct shoal_world *w, struct world_telemetry *out); /* open_handles is filled in already. */
};

struct shoal_world {
  const struct world_ops *ops;
  uint32_t open_handles; /* Counted by world_handle_opened() and world_handle_closed(). */
  uint64_t seed;
  struct rng rng;
  struct world_defer deferred; /* Head of a ring; empty when it points to itself. */
};

/* Make the base of a world; `w` must not move after. */
void world_init(struct shoal_world *w, const struct world_ops *ops, uint64_t seed);

/* The worlds call these when a thing opens, and right before its on_closed. Streams count from when they are made, before they are
 * attached. */
void world_handle_opened(struct shoal_world *w, struct world_handle *h);
void world_handle_closed(struct world_handle *h);

/* Take the first deferred off the list, disarmed; NULL when there is none. */
struct world_defer *world_take_deferred(struct shoal_world *w);
bool world_has_deferred(const struct shoal_world *w);
/* Run deferred work, the work which that defers, and so on, 16 deep at most: work that always defers itself must not starve
 * the rest. True when something is left: then do not wait, and call again. */
bool world_run_deferred(struct shoal_world *w);
/* Disarm and forget all deferred work. */
void world_drop_deferred(struct shoal_world *w);

#endif
