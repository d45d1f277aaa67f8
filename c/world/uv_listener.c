/* Accepting, on a poll handle of our own: when descriptors run out, libuv's listener silently accepts and drops the waiting
 * connections. Ours reports the error, and the connections go on waiting. */
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "world/uv_private.h"

enum {
  BACKLOG = 1024,
  BATCH = 64, /* Accepted in one turn at most, so that other handles get their turn. */
};
static const uint64_t pause_ns = 100 * 1000000u; /* Pause after a failed accept, which would fail again at once. */

struct real_listener {
  struct world_listener base;
  uv_poll_t poll;
  int fd;
  struct alarm resume;
  struct world_listener_events events;
  void *data;
};

static void on_readable(uv_poll_t *handle, int status, int events);

static void fail(struct real_listener *l, int code) {
  struct shoal_world *w = l->base.handle.world;
  uv_poll_stop(&l->poll);
  alarm_set(real_world(w), &l->resume, world_fresh_ns(w) + pause_ns);
  if (l->events.on_error) l->events.on_error(l->data, code);
}

static void on_resume(struct alarm *a) {
  struct real_listener *l = CONTAINER(a, struct real_listener, resume);
  int rc = uv_poll_start(&l->poll, UV_READABLE, on_readable);
  if (rc < 0) fail(l, rc);
}

static void on_readable(uv_poll_t *handle, int status, int events) {
  struct real_listener *l = CONTAINER(handle, struct real_listener, poll);
  (void)events;
  if (l->base.handle.closing) return;
  if (status < 0) {
    fail(l, status);
    return;
  }
  for (int i = 0; i < BATCH && !l->base.handle.closing; i++) {
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (fd < 0 && errno == EAGAIN) return;
    struct real_stream *s;
    int rc = fd < 0 ? -errno : stream_from_socket(real_world(l->base.handle.world), fd, &s);
    if (rc < 0) {
      fail(l, rc);
      return;
    }
    l->events.on_connection(l->data, &s->base);
  }
}

static int open_socket(const struct shoal_address *address, int *out) {
  struct sockaddr_storage name;
  socklen_t length = address_to_socket(address, &name);
  if (length == 0) return -EINVAL;
  int fd = socket(name.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int on = 1; /* A restarted node gets its port back at once; two live listeners are refused all the same. */
  int rc = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (rc == 0 && address->family == 6) rc = setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (rc == 0) rc = bind(fd, (const struct sockaddr *)&name, length);
  if (rc == 0) rc = listen(fd, BACKLOG);
  if (rc == 0) {
    *out = fd;
    return 0;
  }
  rc = -errno;
  close(fd);
  return rc;
}

static void on_discarded(uv_handle_t *handle) { free(CONTAINER(handle, struct real_listener, poll)); }

static void on_closed(uv_handle_t *handle) {
  struct real_listener *l = CONTAINER(handle, struct real_listener, poll);
  world_handle_closed(&l->base.handle);
  if (l->events.on_closed) l->events.on_closed(l->data);
  free(l);
}

/* All steps after the socket was made. */
static int start(struct real_world *w, struct real_listener *l) {
  int rc = alarm_reserve(w);
  if (rc == 0 && (rc = uv_poll_init(w->loop, &l->poll, l->fd)) < 0) alarm_release(w, &l->resume);
  if (rc < 0) {
    free(l);
    return rc;
  }
  l->poll.data = w->handle_data;
  rc = uv_poll_start(&l->poll, UV_READABLE, on_readable);
  if (rc < 0) {
    alarm_release(w, &l->resume);
    uv_close((uv_handle_t *)&l->poll, on_discarded);
  }
  return rc;
}

int real_listen(struct shoal_world *w, const struct shoal_address *address, const struct world_listener_events *events,
                void *data, struct world_listener **out) {
  int fd = -1, rc = open_socket(address, &fd);
  if (rc < 0) return rc;
  struct real_listener *l = calloc(1, sizeof *l);
  if (!l) rc = ERR_MEMORY;
  else {
    *l = (struct real_listener){.fd = fd, .resume.ring = on_resume, .events = *events, .data = data};
    rc = start(real_world(w), l);
  }
  if (rc < 0) {
    close(fd);
    return rc;
  }
  world_handle_opened(w, &l->base.handle);
  *out = &l->base;
  return 0;
}

void real_listener_address(struct world_listener *base, struct shoal_address *out) {
  if (base->handle.closing) memset(out, 0, sizeof *out); /* The descriptor may have been reused. */
  else address_of_socket(CONTAINER(base, struct real_listener, base)->fd, out);
}

void real_listener_close(struct world_listener *base) {
  struct real_listener *l = CONTAINER(base, struct real_listener, base);
  alarm_release(real_world(base->handle.world), &l->resume);
  uv_close((uv_handle_t *)&l->poll, on_closed);
  close(l->fd); /* At once, so that the port is free when the call returns. */
}
