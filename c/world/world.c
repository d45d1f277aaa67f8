#include "world/world.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "world/world_private.h"

/* ---- for the worlds ---- */

void world_init(struct shoal_world *w, const struct world_ops *ops, uint64_t seed) {
  *w = (struct shoal_world){.ops = ops, .seed = seed};
  rng_seed(&w->rng, seed);
  w->deferred.next = w->deferred.previous = &w->deferred;
}

void world_handle_opened(struct shoal_world *w, struct world_handle *h) {
  assert(w && !h->world);
  h->world = w;
  w->open_handles++;
}

void world_handle_closed(struct world_handle *h) {
  assert(h->closing && h->world->open_handles > 0);
  h->world->open_handles--;
}

/* ---- clock and chance ---- */

uint64_t world_now_ns(struct shoal_world *w) { return w->ops->now_ns(w); }
uint64_t world_fresh_ns(struct shoal_world *w) { return w->ops->fresh_ns(w); }
int64_t world_wall_ns(struct shoal_world *w) { return w->ops->wall_ns(w); }
uint64_t world_random(struct shoal_world *w) { return rng_next(&w->rng); }
uint64_t world_seed(struct shoal_world *w) { return w->seed; }
bool world_is_simulated(struct shoal_world *w) { return w->ops->simulated; }

/* ---- deferred work ---- */

static void link_last(struct shoal_world *w, struct world_defer *d) {
  d->next = &w->deferred;
  d->previous = w->deferred.previous;
  d->previous->next = d;
  w->deferred.previous = d;
}

static void unlink_deferred(struct world_defer *d) {
  d->previous->next = d->next;
  d->next->previous = d->previous;
  d->next = d->previous = NULL;
}

void world_defer(struct shoal_world *w, struct world_defer *d) {
  assert(d->run);
  if (d->armed) return;
  bool first = !world_has_deferred(w);
  d->armed = true;
  link_last(w, d);
  if (first) w->ops->defer_armed(w);
}

void world_undefer(struct shoal_world *w, struct world_defer *d) {
  (void)w; /* Unlinking needs no world; the parameter is there for other implementations. */
  if (!d->armed) return;
  d->armed = false;
  unlink_deferred(d);
}

bool world_has_deferred(const struct shoal_world *w) { return w->deferred.next != &w->deferred; }

struct world_defer *world_take_deferred(struct shoal_world *w) {
  struct world_defer *d = w->deferred.next;
  if (d == &w->deferred) return NULL;
  d->armed = false;
  unlink_deferred(d);
  return d;
}

bool world_run_deferred(struct shoal_world *w) {
  for (int depth = 0; depth < 16 && world_has_deferred(w); depth++) {
    struct world_defer mark = {0}; /* Work deferred while these run is linked behind it. */
    link_last(w, &mark);
    while (w->deferred.next != &mark) {
      struct world_defer *d = world_take_deferred(w);
      d->run(d->data); /* May free d. */
    }
    unlink_deferred(&mark);
  }
  return world_has_deferred(w);
}

void world_drop_deferred(struct shoal_world *w) {
  while (world_take_deferred(w)) continue;
}

/* ---- things: a closing one refuses with ERR_CLOSED, or does nothing ---- */

#define WORLD(thing) ((thing)->handle.world)
#define OPS(thing) (WORLD(thing)->ops)
#define CLOSE(thing, op) \
  do { \
    if ((thing)->handle.closing) return; \
    (thing)->handle.closing = true; \
    OPS(thing)->op(thing); \
  } while (0)

int world_timer_open(struct shoal_world *w, void (*on_timer)(void *data), world_closed_fn *on_closed, void *data,
                     struct world_timer **out) {
  assert(on_timer && out);
  return w->ops->timer_open(w, on_timer, on_closed, data, out);
}
void world_timer_start(struct world_timer *t, uint64_t at_ns) {
  if (!t->handle.closing) OPS(t)->timer_start(t, at_ns);
}
void world_timer_stop(struct world_timer *t) {
  if (!t->handle.closing) OPS(t)->timer_stop(t);
}
void world_timer_close(struct world_timer *t) { CLOSE(t, timer_close); }

int world_udp_open(struct shoal_world *w, const struct shoal_address *bind, const struct world_udp_events *events,
                   void *data, struct world_udp **out) {
  assert(events->on_datagram && out);
  return w->ops->udp_open(w, bind, events, data, out);
}
int world_udp_send(struct world_udp *u, const struct shoal_address *to, const void *bytes, size_t length) {
  if (u->handle.closing) return ERR_CLOSED;
  if (length > WORLD_DATAGRAM_MAX) return ERR_TOO_LARGE;
  return OPS(u)->udp_send(u, to, bytes, length);
}
void world_udp_address(struct world_udp *u, struct shoal_address *out) { OPS(u)->udp_address(u, out); }
void world_udp_close(struct world_udp *u) { CLOSE(u, udp_close); }

int world_connect(struct shoal_world *w, const struct shoal_address *to, const struct world_stream_events *events,
                  void *data, struct world_stream **out) {
  assert(events->on_open && events->on_read && events->on_end && out);
  return w->ops->connect(w, to, events, data, out);
}
void world_stream_attach(struct world_stream *s, const struct world_stream_events *events, void *data) {
  assert(events->on_read && events->on_end);
  if (!s->handle.closing) OPS(s)->stream_attach(s, events, data);
}
int world_stream_write(struct world_stream *s, const struct world_buffer *buffers, size_t count) {
  return s->handle.closing ? ERR_CLOSED : OPS(s)->stream_write(s, buffers, count);
}
size_t world_stream_queued(const struct world_stream *s) { return OPS(s)->stream_queued(s); }
void world_stream_read(struct world_stream *s, bool on) {
  if (!s->handle.closing) OPS(s)->stream_read(s, on);
}
int world_stream_shutdown(struct world_stream *s) {
  return s->handle.closing ? ERR_CLOSED : OPS(s)->stream_shutdown(s);
}
void world_stream_window(struct world_stream *s, size_t bytes) {
  if (!s->handle.closing) OPS(s)->stream_window(s, bytes);
}
bool world_stream_peer(const struct world_stream *s, struct shoal_address *out) { return OPS(s)->stream_peer(s, out); }
void world_stream_close(struct world_stream *s) { CLOSE(s, stream_close); }

int world_listen(struct shoal_world *w, const struct shoal_address *bind, const struct world_listener_events *events,
                 void *data, struct world_listener **out) {
  assert(events->on_connection && out);
  return w->ops->listen(w, bind, events, data, out);
}
void world_listener_address(struct world_listener *l, struct shoal_address *out) { OPS(l)->listener_address(l, out); }
void world_listener_close(struct world_listener *l) { CLOSE(l, listener_close); }

int world_stdio(struct shoal_world *w, int fd, struct world_stream **out) {
  if (fd < 0 || fd > 2) return -EBADF;
  return w->ops->stdio(w, fd, out);
}

int world_resolve(struct shoal_world *w, const char *host, uint16_t port,
                  void (*on_result)(void *data, int status, const struct shoal_address *addresses, size_t count),
                  world_closed_fn *on_closed, void *data, struct world_lookup **out) {
  assert(host && on_result && out);
  return w->ops->resolve(w, host, port, on_result, on_closed, data, out);
}
void world_lookup_close(struct world_lookup *l) { CLOSE(l, lookup_close); }

/* ---- files ---- */

int world_read_file(struct shoal_world *w, const char *path, uint8_t **bytes, size_t *length) {
  return w->ops->read_file(w, path, bytes, length);
}
int world_put_durable(struct shoal_world *w, const char *path, const void *bytes, size_t length) {
  return w->ops->put_durable(w, path, bytes, length);
}
int world_put_later(struct shoal_world *w, const char *path, const void *bytes, size_t length,
                    void (*on_done)(void *data, int status), world_closed_fn *on_closed, void *data, struct world_put **out) {
  assert(path && on_done && out && (bytes || length == 0));
  return w->ops->put_later(w, path, bytes, length, on_done, on_closed, data, out);
}
void world_put_close(struct world_put *p) { CLOSE(p, put_close); }
int world_stat(struct shoal_world *w, const char *path, struct world_stat *out) {
  *out = (struct world_stat){0};
  return w->ops->stat(w, path, out);
}
int world_rename(struct shoal_world *w, const char *from, const char *to) { return w->ops->rename(w, from, to); }
int world_unlink(struct shoal_world *w, const char *path) { return w->ops->unlink(w, path); }
int world_make_directory(struct shoal_world *w, const char *path) { return w->ops->make_directory(w, path); }
int world_make_private(struct shoal_world *w, const char *path) {
  return w->ops->make_private ? w->ops->make_private(w, path) : ERR_UNSUPPORTED;
}
int world_check_private(struct shoal_world *w, const char *path) {
  return w->ops->check_private ? w->ops->check_private(w, path) : ERR_UNSUPPORTED;
}
int world_remove_directory(struct shoal_world *w, const char *path) {
  return w->ops->remove_directory ? w->ops->remove_directory(w, path) : ERR_UNSUPPORTED;
}
int world_list(struct shoal_world *w, const char *path, void (*on_name)(void *data, const char *name), void *data) {
  assert(on_name);
  return w->ops->list(w, path, on_name, data);
}

int world_lock(struct shoal_world *w, const char *path, world_closed_fn *on_closed, void *data, int *holder,
               struct world_lock **out) {
  assert(path && holder && out);
  *holder = 0;
  return w->ops->lock(w, path, on_closed, data, holder, out);
}
void world_lock_close(struct world_lock *l) { CLOSE(l, lock_close); }
int world_lock_check(const struct world_lock *l) { return OPS(l)->lock_check(l); }

int world_log_open(struct shoal_world *w, const char *path, const struct world_log_events *events, void *data,
                   struct world_log **out) {
  assert(out);
  return w->ops->log_open(w, path, events, data, out);
}
int world_log_lock(struct world_log *l, int *holder) {
  *holder = 0;
  return l->handle.closing ? ERR_CLOSED : OPS(l)->log_lock(l, holder);
}
int world_log_append(struct world_log *l, const void *bytes, size_t length) {
  return l->handle.closing ? ERR_CLOSED : OPS(l)->log_append(l, bytes, length);
}
int world_log_sync(struct world_log *l) { return l->handle.closing ? ERR_CLOSED : OPS(l)->log_sync(l); }
int world_log_truncate(struct world_log *l, uint64_t size) {
  return l->handle.closing ? ERR_CLOSED : OPS(l)->log_truncate(l, size);
}
uint64_t world_log_size(const struct world_log *l) { return OPS(l)->log_size(l); }
void world_log_close(struct world_log *l) { CLOSE(l, log_close); }

/* ---- child processes, telemetry ---- */

int world_spawn(struct shoal_world *w, const struct world_spawn *options, const struct world_process_events *events,
                void *data, struct world_process **out) {
  assert(options->argv && options->argv[0] && events->on_exit && out);
  return w->ops->spawn(w, options, events, data, out);
}
struct world_stream *world_process_stream(struct world_process *p, int fd) {
  assert(fd >= 0 && fd <= 2);
  return p->handle.closing ? NULL : OPS(p)->process_stream(p, fd);
}
int world_process_pid(const struct world_process *p) { return OPS(p)->process_pid(p); }
int world_process_kill(struct world_process *p, int signal) {
  return p->handle.closing ? ERR_CLOSED : OPS(p)->process_kill(p, signal);
}
void world_process_close(struct world_process *p) { CLOSE(p, process_close); }
void world_process_ended(const struct world_process *p, struct world_ended *out) {
  *out = (struct world_ended){0};
  if (OPS(p)->process_ended) OPS(p)->process_ended(p, out);
}

void world_telemetry(struct shoal_world *w, struct world_telemetry *out) {
  *out = (struct world_telemetry){.open_handles = w->open_handles};
  w->ops->telemetry(w, out);
}
