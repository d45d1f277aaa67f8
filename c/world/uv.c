#include "world/uv.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "world/uv_private.h"

/* ---- codes and addresses ---- */

int code_from_uv(int code) {
  if (code == UV_EAI_MEMORY) return ERR_MEMORY;
  if (code <= UV_EAI_ADDRFAMILY && code >= UV_EAI_PROTOCOL) return ERR_NO_NAME; /* -3000 to -3014. */
  return code;
}

socklen_t address_to_socket(const struct shoal_address *address, struct sockaddr_storage *out) {
  memset(out, 0, sizeof *out);
  if (address->family == 4) {
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    in->sin_family = AF_INET;
    in->sin_port = htons(address->port);
    memcpy(&in->sin_addr, address->bytes, 4);
    return sizeof *in;
  }
  if (address->family != 6) return 0;
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
  in6->sin6_family = AF_INET6;
  in6->sin6_port = htons(address->port);
  memcpy(&in6->sin6_addr, address->bytes, 16);
  return sizeof *in6;
}

bool address_from_socket(const struct sockaddr *from, struct shoal_address *out) {
  memset(out, 0, sizeof *out);
  if (from->sa_family == AF_INET) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)from;
    out->family = 4;
    out->port = ntohs(in->sin_port);
    memcpy(out->bytes, &in->sin_addr, 4);
    return true;
  }
  if (from->sa_family != AF_INET6) return false;
  const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)from;
  out->family = 6;
  out->port = ntohs(in6->sin6_port);
  memcpy(out->bytes, &in6->sin6_addr, 16);
  return true;
}

void address_of_socket(int fd, struct shoal_address *out) {
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  memset(out, 0, sizeof *out);
  if (getsockname(fd, (struct sockaddr *)&name, &length) == 0) address_from_socket((struct sockaddr *)&name, out);
}

/* ---- clock ---- */

/* As in the simulator, no two nodes share an epoch. Otherwise code that compares instants of two nodes is right by chance on one machine,
 * and work that is aligned to the clock runs in all processes at the same instant. */
enum { EPOCH_SPAN_MS = 3600 * 1000 };

static uint64_t fresh_ns(struct shoal_world *base) { return uv_hrtime() + real_world(base)->epoch_ms * 1000000; }

uint64_t real_now_ns(struct shoal_world *base) {
  struct real_world *w = real_world(base);
  uint64_t loop_ms = uv_now(w->loop);
  /* A change of the loop's own clock means a new turn too, where no hook of ours runs in between (timers after closings). */
  if (!w->now_known || w->now_loop_ms != loop_ms) {
    w->now_ns = fresh_ns(base);
    w->now_loop_ms = loop_ms;
    w->now_known = true;
  }
  return w->now_ns;
}

static int64_t wall_ns(struct shoal_world *base) {
  (void)base;
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- alarms ---- */

static void on_clock(uv_timer_t *handle);
static void on_idle(uv_idle_t *handle);

static bool before(const struct alarm *a, const struct alarm *b) {
  return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->sequence < b->sequence;
}

static void put(struct real_world *w, size_t place, struct alarm *a) {
  w->alarms[place] = a;
  a->place = place;
}

/* Move the alarm at `place` up or down to where it belongs. */
static void sift(struct real_world *w, size_t place) {
  struct alarm *a = w->alarms[place];
  for (; place > 1 && before(a, w->alarms[place / 2]); place /= 2) put(w, place, w->alarms[place / 2]);
  for (;;) {
    size_t child = place * 2;
    if (child > w->alarms_count) break;
    if (child < w->alarms_count && before(w->alarms[child + 1], w->alarms[child])) child++;
    if (before(a, w->alarms[child])) break;
    put(w, place, w->alarms[child]);
    place = child;
  }
  put(w, place, a);
}

static void take_out(struct real_world *w, struct alarm *a) {
  size_t place = a->place;
  assert(place >= 1 && place <= w->alarms_count && w->alarms[place] == a);
  struct alarm *last = w->alarms[w->alarms_count--];
  a->place = 0;
  if (last == a) return;
  put(w, place, last);
  sift(w, place);
}

static void wake(struct real_world *w) {
  if (!w->closing && !uv_is_active((uv_handle_t *)&w->idle)) uv_idle_start(&w->idle, on_idle);
}

/* On the loop's clock. Rounded up: never early. */
static uint64_t due_ms(const struct real_world *w, const struct alarm *a) {
  uint64_t at_ms = a->at_ns / 1000000 + (a->at_ns % 1000000 != 0);
  return at_ms > w->epoch_ms ? at_ms - w->epoch_ms : 0;
}

/* Set the clock to the next alarm. It may be set too early until the end of the turn: see put_clock_off. */
static void set_clock(struct real_world *w) {
  if (w->closing) return;
  if (w->alarms_count == 0) {
    uv_timer_stop(&w->clock);
    w->clock_ms = 0;
    return;
  }
  uint64_t at_ns = w->alarms[1]->at_ns;
  if (at_ns <= real_now_ns(&w->base) + 1) {
    w->alarm_soon = true;
    wake(w);
    return;
  }
  uint64_t loop_ms = uv_now(w->loop), at_ms = due_ms(w, w->alarms[1]);
  if (w->clock_ms != 0 && w->clock_ms <= at_ms && w->clock_ms > loop_ms) return;
  uv_timer_start(&w->clock, on_clock, at_ms > loop_ms ? at_ms - loop_ms : 1, 0);
  w->clock_ms = at_ms;
}

/* Before the loop waits: the alarm that the clock was set for may have been stopped or moved later since, as happens to each deadline
 * that is met. Waking up in vain costs more than everything else in the turn. */
static void put_clock_off(struct real_world *w) {
  if (w->clock_ms == 0 || w->alarms_count == 0 || w->closing) return;
  uint64_t loop_ms = uv_now(w->loop), at_ms = due_ms(w, w->alarms[1]);
  if (at_ms <= w->clock_ms || at_ms <= loop_ms) return;
  uv_timer_start(&w->clock, on_clock, at_ms - loop_ms, 0);
  w->clock_ms = at_ms;
}

static void ring(struct real_world *w) {
  uint64_t now_ns = real_now_ns(&w->base);
  w->alarm_soon = false;
  /* An alarm set meanwhile is later than now_ns, so this ends. */
  while (w->alarms_count > 0 && w->alarms[1]->at_ns <= now_ns) {
    struct alarm *a = w->alarms[1];
    take_out(w, a);
    a->ring(a);
  }
  set_clock(w);
}

static void on_clock(uv_timer_t *handle) {
  struct real_world *w = CONTAINER(handle, struct real_world, clock);
  w->clock_ms = 0;
  ring(w);
}

int alarm_reserve(struct real_world *w) {
  if (w->alarms_reserved + 1 >= w->alarms_capacity) {
    size_t capacity = w->alarms_capacity ? w->alarms_capacity * 2 : 16;
    struct alarm **grown = realloc(w->alarms, capacity * sizeof *grown);
    if (!grown) return ERR_MEMORY;
    w->alarms = grown;
    w->alarms_capacity = capacity;
  }
  w->alarms_reserved++;
  return 0;
}

void alarm_release(struct real_world *w, struct alarm *a) {
  alarm_stop(w, a);
  assert(w->alarms_reserved > 0);
  w->alarms_reserved--;
}

void alarm_set(struct real_world *w, struct alarm *a, uint64_t at_ns) {
  uint64_t now_ns = real_now_ns(&w->base);
  a->at_ns = at_ns > now_ns ? at_ns : now_ns + 1;
  a->sequence = w->alarms_sequence++;
  if (a->place == 0) {
    assert(w->alarms_count < w->alarms_reserved);
    put(w, ++w->alarms_count, a);
  }
  sift(w, a->place);
  if (a->place == 1) set_clock(w);
}

void alarm_stop(struct real_world *w, struct alarm *a) {
  if (a->place == 0) return;
  take_out(w, a);
  if (w->alarms_count == 0) set_clock(w); /* Otherwise the clock would keep the loop alive. */
}

/* ---- turns ---- */

/* The end of a turn: go on without waiting only if there is work left. */
static void settle(struct real_world *w, bool more) {
  w->now_known = false;
  if (!more && !w->alarm_soon) uv_idle_stop(&w->idle);
}

static void on_prepare(uv_prepare_t *handle) {
  struct real_world *w = CONTAINER(handle, struct real_world, prepare);
  if (w->alarm_soon) ring(w);
  settle(w, world_run_deferred(&w->base));
  put_clock_off(w);
}

static void on_check(uv_check_t *handle) {
  struct real_world *w = CONTAINER(handle, struct real_world, check);
  settle(w, world_run_deferred(&w->base));
}

static void on_idle(uv_idle_t *handle) { (void)handle; /* It only has to be active. */ }

static void defer_armed(struct shoal_world *w) { wake(real_world(w)); }

/* ---- timers ---- */

struct real_timer {
  struct world_timer base;
  struct alarm alarm;
  void (*on_timer)(void *data);
  world_closed_fn *on_closed;
  void *data;
  struct world_defer closed;
};

static void on_ring(struct alarm *a) {
  struct real_timer *t = CONTAINER(a, struct real_timer, alarm);
  t->on_timer(t->data);
}

static void on_timer_closed(void *data) {
  struct real_timer *t = data;
  world_handle_closed(&t->base.handle);
  if (t->on_closed) t->on_closed(t->data);
  free(t);
}

static int timer_open(struct shoal_world *w, void (*on_timer)(void *data), world_closed_fn *on_closed, void *data,
                      struct world_timer **out) {
  struct real_timer *t = calloc(1, sizeof *t);
  if (!t) return ERR_MEMORY;
  int rc = alarm_reserve(real_world(w));
  if (rc < 0) {
    free(t);
    return rc;
  }
  t->alarm.ring = on_ring;
  t->on_timer = on_timer;
  t->on_closed = on_closed;
  t->data = data;
  t->closed = (struct world_defer){.run = on_timer_closed, .data = t};
  world_handle_opened(w, &t->base.handle);
  *out = &t->base;
  return 0;
}

static void timer_start(struct world_timer *base, uint64_t at_ns) {
  struct real_timer *t = CONTAINER(base, struct real_timer, base);
  alarm_set(real_world(base->handle.world), &t->alarm, at_ns);
}

static void timer_stop(struct world_timer *base) {
  struct real_timer *t = CONTAINER(base, struct real_timer, base);
  alarm_stop(real_world(base->handle.world), &t->alarm);
}

static void timer_close(struct world_timer *base) {
  struct real_timer *t = CONTAINER(base, struct real_timer, base);
  alarm_release(real_world(base->handle.world), &t->alarm);
  world_defer(base->handle.world, &t->closed);
}

/* ---- telemetry ---- */

static uint64_t to_ns(struct timeval t) { return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_usec * 1000u; }

static void telemetry(struct shoal_world *w, struct world_telemetry *out) {
  (void)w;
  struct rusage usage;
  if (getrusage(RUSAGE_SELF, &usage) == 0) out->cpu_ns = to_ns(usage.ru_utime) + to_ns(usage.ru_stime);
  FILE *statm = fopen("/proc/self/statm", "re");
  if (!statm) return; /* No /proc: the value stays 0, which no process has. */
  unsigned long long size, resident;
  if (fscanf(statm, "%llu %llu", &size, &resident) == 2) out->resident_bytes = resident * (uint64_t)sysconf(_SC_PAGESIZE);
  fclose(statm);
}

/* ---- the world ---- */

static const struct world_ops ops = {
    .now_ns = real_now_ns,
    .fresh_ns = fresh_ns,
    .wall_ns = wall_ns,
    .defer_armed = defer_armed,
    .timer_open = timer_open,
    .timer_start = timer_start,
    .timer_stop = timer_stop,
    .timer_close = timer_close,
    .udp_open = real_udp_open,
    .udp_send = real_udp_send,
    .udp_address = real_udp_address,
    .udp_close = real_udp_close,
    .connect = real_connect,
    .stream_attach = real_stream_attach,
    .stream_write = real_stream_write,
    .stream_queued = real_stream_queued,
    .stream_read = real_stream_read,
    .stream_shutdown = real_stream_shutdown,
    .stream_window = real_stream_window,
    .stream_peer = real_stream_peer,
    .stream_close = real_stream_close,
    .listen = real_listen,
    .listener_address = real_listener_address,
    .listener_close = real_listener_close,
    .stdio = real_stdio,
    .resolve = real_resolve,
    .lookup_close = real_lookup_close,
    .read_file = real_read_file,
    .put_durable = real_put_durable,
    .put_later = real_put_later,
    .put_close = real_put_close,
    .stat = real_stat,
    .rename = real_rename,
    .unlink = real_unlink,
    .make_directory = real_make_directory,
    .make_private = real_make_private,
    .check_private = real_check_private,
    .remove_directory = real_remove_directory,
    .list = real_list,
    .lock = real_lock,
    .lock_close = real_lock_close,
    .lock_check = real_lock_check,
    .log_open = real_log_open,
    .log_lock = real_log_lock,
    .log_append = real_log_append,
    .log_sync = real_log_sync,
    .log_truncate = real_log_truncate,
    .log_size = real_log_size,
    .log_close = real_log_close,
    .spawn = real_spawn,
    .process_stream = real_process_stream,
    .process_pid = real_process_pid,
    .process_kill = real_process_kill,
    .process_close = real_process_close,
    .process_ended = real_process_ended,
    .telemetry = telemetry,
};

static void adopt(struct real_world *w, uv_handle_t *handle) {
  handle->data = w->handle_data;
  w->handles++;
}

int world_uv_open(const struct world_uv_options *options, struct shoal_world **out) {
  struct real_world *w = calloc(1, sizeof *w);
  if (!w) return ERR_MEMORY;
  world_init(&w->base, &ops, options->seed);
  struct rng rng;
  rng_seed(&rng, ~options->seed); /* Another stream than the node's. */
  w->epoch_ms = rng_below(&rng, EPOCH_SPAN_MS);
  w->loop = options->loop;
  w->handle_data = options->handle_data;
  /* None of these can fail: they touch no descriptor. */
  uv_prepare_init(w->loop, &w->prepare);
  uv_check_init(w->loop, &w->check);
  uv_idle_init(w->loop, &w->idle);
  uv_timer_init(w->loop, &w->clock);
  uv_timer_init(w->loop, &w->strays);
  uv_signal_init(w->loop, &w->reaper); /* The loop has its own for the same, with the descriptor that both need. */
  adopt(w, (uv_handle_t *)&w->prepare);
  adopt(w, (uv_handle_t *)&w->check);
  adopt(w, (uv_handle_t *)&w->idle);
  adopt(w, (uv_handle_t *)&w->clock);
  adopt(w, (uv_handle_t *)&w->reaper);
  adopt(w, (uv_handle_t *)&w->strays);
  strays_open(w);
  uv_prepare_start(&w->prepare, on_prepare);
  uv_check_start(&w->check, on_check);
  uv_unref((uv_handle_t *)&w->prepare);
  uv_unref((uv_handle_t *)&w->check);
  *out = &w->base;
  return 0;
}

static void let_go(struct real_world *w) {
  if (--w->handles > 0) return;
  if (w->on_closed) w->on_closed(w->data);
  free(w->alarms);
  free(w->datagrams);
  free(w);
}
static void on_prepare_closed(uv_handle_t *h) { let_go(CONTAINER(h, struct real_world, prepare)); }
static void on_check_closed(uv_handle_t *h) { let_go(CONTAINER(h, struct real_world, check)); }
static void on_idle_closed(uv_handle_t *h) { let_go(CONTAINER(h, struct real_world, idle)); }
static void on_reaper_closed(uv_handle_t *h) { let_go(CONTAINER(h, struct real_world, reaper)); }
static void on_strays_closed(uv_handle_t *h) { let_go(CONTAINER(h, struct real_world, strays)); }
static void on_clock_closed(uv_handle_t *h) { let_go(CONTAINER(h, struct real_world, clock)); }

void world_uv_close(struct shoal_world *base, world_closed_fn *on_closed, void *data) {
  struct real_world *w = real_world(base);
  assert(!w->closing && w->base.open_handles == 0 && w->alarms_reserved == 0);
  world_drop_deferred(base);
  w->closing = true;
  w->on_closed = on_closed;
  w->data = data;
  orphans_close(w);
  uv_close((uv_handle_t *)&w->prepare, on_prepare_closed);
  uv_close((uv_handle_t *)&w->check, on_check_closed);
  uv_close((uv_handle_t *)&w->idle, on_idle_closed);
  uv_close((uv_handle_t *)&w->clock, on_clock_closed);
  uv_close((uv_handle_t *)&w->reaper, on_reaper_closed);
  uv_close((uv_handle_t *)&w->strays, on_strays_closed);
}
