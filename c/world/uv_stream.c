/* Streams of the real world.
 *
 * Writing tries the kernel first and copies only the bytes it did not take: `flight` is the one write that libuv has under way,
 * `backlog` the bytes written after it. Reading uses the world's one buffer.
 *
 * How a stream ends: the reader reports it, in order behind the bytes that came before. A write that fails marks the
 * stream broken and leaves the report to the reader; only while the stream is not read does the failed write itself end it. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "world/uv_private.h"

enum {
  VECTOR = 64,              /* Buffers handed to the kernel in one call. */
  KEEP_BYTES = 64 * 1024,   /* The memory of a larger queue is freed when it has drained. */
};

static struct real_stream *of_handle(uv_handle_t *handle) { return CONTAINER(handle, struct real_stream, uv); }
static struct real_world *world_of(const struct real_stream *s) { return real_world(s->base.handle.world); }
static bool closing(const struct real_stream *s) { return s->base.handle.closing; }

static void release(struct bytes *b) {
  free(b->bytes);
  *b = (struct bytes){0};
}

static void empty(struct bytes *b) {
  b->length = 0;
  if (b->capacity > KEEP_BYTES) release(b);
}

static int append(struct bytes *b, const void *bytes, size_t length) {
  if (length == 0) return 0;
  if (length > b->capacity - b->length) {
    size_t capacity = b->capacity ? b->capacity : 4096;
    while (capacity - b->length < length) capacity *= 2;
    uint8_t *grown = realloc(b->bytes, capacity);
    if (!grown) return ERR_MEMORY;
    b->bytes = grown;
    b->capacity = capacity;
  }
  memcpy(b->bytes + b->length, bytes, length);
  b->length += length;
  return 0;
}

/* ---- the end ---- */

static void update_reading(struct real_stream *s);

static void end(struct real_stream *s, int status) {
  if (s->ended || closing(s) || !s->events) return;
  s->ended = true;
  if (status < 0) s->broken = true;
  update_reading(s);
  s->events->on_end(s->data, status);
}

static void drop_backlog(struct real_stream *s) { release(&s->backlog); }

/* Nothing can be written any more. */
static void fail(struct real_stream *s, int code) {
  if (s->broken) return;
  s->broken = true;
  s->failure = code;
  drop_backlog(s);
  if (!s->reading && !s->ended) world_defer(s->base.handle.world, &s->later);
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
  (void)suggested;
  *out = uv_buf_init((char *)world_of(of_handle(handle))->bytes, WORLD_READ_MAX);
}

static void on_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
  struct real_stream *s = of_handle((uv_handle_t *)stream);
  if (closing(s) || length == 0) return; /* 0: there was nothing to read. */
  if (length > 0) s->events->on_read(s->data, (const uint8_t *)buffer->base, (size_t)length);
  else end(s, length == UV_EOF ? s->failure : code_from_uv((int)length));
}

/* Read one piece of a regular file or device and defer the next, so that other handles get their turn. */
static void read_file(struct real_stream *s) {
  uint8_t *buffer = world_of(s)->bytes;
  ssize_t length = read(s->file, buffer, WORLD_READ_MAX);
  if (length < 0 && errno != EINTR && errno != EAGAIN) {
    end(s, -errno);
    return;
  }
  if (length == 0) {
    end(s, 0);
    return;
  }
  world_defer(s->base.handle.world, &s->later); /* Before the callback, which may pause. */
  if (length > 0) s->events->on_read(s->data, buffer, (size_t)length);
}

static void update_reading(struct real_stream *s) {
  bool want = s->open && s->readable && s->events && s->reading_wanted && !s->ended && !closing(s);
  if (want == s->reading) return;
  s->reading = want;
  if (s->kind == STREAM_FILE) {
    if (want) world_defer(s->base.handle.world, &s->later);
    else world_undefer(s->base.handle.world, &s->later);
    return;
  }
  int rc = want ? uv_read_start(&s->uv.stream, on_alloc, on_read) : uv_read_stop(&s->uv.stream);
  if (rc < 0) { /* Such as: found dead before it was attached. */
    s->reading = false;
    fail(s, rc);
  }
}

void real_stream_read(struct world_stream *base, bool on) {
  struct real_stream *s = real_stream(base);
  s->reading_wanted = on;
  update_reading(s);
  if (on && s->broken && !s->reading && !s->ended) world_defer(base->handle.world, &s->later);
}

void real_stream_attach(struct world_stream *base, const struct world_stream_events *events, void *data) {
  struct real_stream *s = real_stream(base);
  s->own = *events;
  s->events = &s->own;
  s->data = data;
  update_reading(s);
  if (s->broken && !s->reading) world_defer(base->handle.world, &s->later); /* It failed while it was not read. */
}

/* ---- writing ---- */

static void start_flight(struct real_stream *s);

static void on_shutdown(uv_shutdown_t *request, int status) {
  (void)request; /* A failure means that the connection is gone, which the reader reports. */
  (void)status;
}

/* A pipe is finished by closing its last descriptor; there is no half-close. */
static void finish_pipe(struct real_stream *s, int fd) {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  /* One open descriptor replaces another: this cannot fail. */
  (void)dup3(null, fd, O_CLOEXEC);
  if (s->shutdown_fd >= 0) (void)dup2(null, s->shutdown_fd);
  close(null);
}

static void finish(struct real_stream *s) {
  if (s->kind == STREAM_TTY || s->kind == STREAM_FILE) return; /* Nothing reads an end there. */
  int fd, type;
  socklen_t length = sizeof type;
  if (uv_fileno(&s->uv.handle, &fd) < 0) return;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0) finish_pipe(s, fd);
  else if (uv_shutdown(&s->shutdown, &s->uv.stream, on_shutdown) < 0) return; /* The connection is gone already, which the reader reports. */
}

static void on_written(uv_write_t *request, int status) {
  struct real_stream *s = CONTAINER(request, struct real_stream, write);
  s->writing = false;
  empty(&s->flight);
  if (closing(s)) return;
  if (status < 0) {
    fail(s, status);
    return;
  }
  if (s->backlog.length > 0) {
    start_flight(s);
    return;
  }
  if (s->finishing) finish(s);
  if (s->events && s->events->on_drain) s->events->on_drain(s->data);
}

static void start_flight(struct real_stream *s) {
  struct bytes empty_one = s->flight;
  s->flight = s->backlog;
  s->backlog = empty_one;
  uv_buf_t buffer = {(char *)s->flight.bytes, s->flight.length};
  int rc = uv_write(&s->write, &s->uv.stream, &buffer, 1, on_written);
  if (rc < 0) fail(s, rc);
  else s->writing = true;
}

static int queue_rest(struct real_stream *s, const struct world_buffer *buffers, size_t count, size_t skip) {
  for (size_t i = 0; i < count; i++, skip = 0) {
    int rc = append(&s->backlog, (const uint8_t *)buffers[i].bytes + skip, buffers[i].length - skip);
    if (rc < 0) {
      fail(s, rc); /* Half of it may have been sent: later bytes would not follow it correctly. */
      return rc;
    }
  }
  if (!s->writing && s->backlog.length > 0) start_flight(s);
  return s->broken ? s->failure : 0;
}

/* Hand the kernel one vector. Returns how many bytes it took, or a code. */
static int try_vector(struct real_stream *s, const struct world_buffer *buffers, size_t count, size_t *total) {
  uv_buf_t vector[VECTOR];
  *total = 0;
  for (size_t i = 0; i < count; i++) {
    vector[i] = uv_buf_init((char *)(uintptr_t)buffers[i].bytes, 0);
    vector[i].len = buffers[i].length;
    *total += buffers[i].length;
  }
  if (*total == 0) return 0;
  int rc = uv_try_write(&s->uv.stream, vector, (unsigned)count);
  return rc == UV_EAGAIN ? 0 : rc;
}

static int write_file(struct real_stream *s, const struct world_buffer *buffers, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const uint8_t *bytes = buffers[i].bytes;
    for (size_t done = 0; done < buffers[i].length;) {
      ssize_t n = write(s->file, bytes + done, buffers[i].length - done);
      if (n >= 0) done += (size_t)n;
      else if (errno != EINTR) return -errno;
    }
  }
  return 0;
}

int real_stream_write(struct world_stream *base, const struct world_buffer *buffers, size_t count) {
  struct real_stream *s = real_stream(base);
  if (!s->open) return -ENOTCONN;
  if (s->finishing || s->broken || !s->writable) return -EPIPE;
  if (s->kind == STREAM_FILE) return write_file(s, buffers, count);
  if (s->writing) return queue_rest(s, buffers, count, 0);
  for (size_t i = 0; i < count; i += VECTOR) {
    size_t total, n = count - i < VECTOR ? count - i : VECTOR;
    int rc = try_vector(s, buffers + i, n, &total);
    if (rc < 0) {
      fail(s, rc);
      return rc;
    }
    size_t taken = (size_t)rc;
    if (taken == total) continue;
    while (taken >= buffers[i].length) taken -= buffers[i++].length;
    return queue_rest(s, buffers + i, count - i, taken);
  }
  return 0;
}

size_t real_stream_queued(const struct world_stream *base) {
  const struct real_stream *s = real_stream(base);
  if (!s->writing) return s->backlog.length;
  return s->backlog.length + uv_stream_get_write_queue_size(&s->uv.stream);
}

int real_stream_shutdown(struct world_stream *base) {
  struct real_stream *s = real_stream(base);
  if (!s->open) return -ENOTCONN;
  if (s->broken || !s->writable) return -EPIPE;
  if (s->finishing) return 0;
  s->finishing = true;
  if (!s->writing) finish(s);
  return 0;
}

void real_stream_window(struct world_stream *base, size_t bytes) {
  int fd, size = bytes > INT32_MAX / 2 ? INT32_MAX / 2 : (int)bytes;
  struct real_stream *s = real_stream(base);
  if (s->kind == STREAM_FILE || uv_fileno(&s->uv.handle, &fd) < 0) return;
  (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size); /* No socket: its pipe holds 64 KiB. */
}

bool real_stream_peer(const struct world_stream *base, struct shoal_address *out) {
  const struct real_stream *s = real_stream(base);
  struct sockaddr_storage name;
  int length = sizeof name;
  if (s->kind != STREAM_TCP || closing(s)) return false;
  if (uv_tcp_getpeername(&s->uv.tcp, (struct sockaddr *)&name, &length) < 0) return false;
  return address_from_socket((const struct sockaddr *)&name, out);
}

/* ---- opening and closing ---- */

static void destroy(struct real_stream *s) {
  release(&s->flight);
  release(&s->backlog);
  free(s);
}

static void report_closed(struct real_stream *s) {
  world_handle_closed(&s->base.handle);
  if (s->events && s->events->on_closed) s->events->on_closed(s->data);
  destroy(s);
}

static void on_later(void *data) {
  struct real_stream *s = data;
  if (closing(s)) report_closed(s); /* Only a file is closed this way. */
  else if (s->broken && !s->ended) end(s, s->failure);
  else if (s->kind == STREAM_FILE && s->reading) read_file(s);
}

static void on_closed(uv_handle_t *handle) { report_closed(of_handle(handle)); }
static void on_discarded(uv_handle_t *handle) { destroy(of_handle(handle)); }

struct real_stream *stream_new(struct real_world *w, enum stream_kind kind) {
  struct real_stream *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->kind = kind;
  s->reading_wanted = s->readable = s->writable = true;
  s->file = s->shutdown_fd = -1;
  s->later = (struct world_defer){.run = on_later, .data = s};
  s->uv.handle.data = w->handle_data; /* uv_*_init leaves it alone. */
  return s;
}

void stream_opened(struct real_world *w, struct real_stream *s) { world_handle_opened(&w->base, &s->base.handle); }

void stream_discard(struct real_stream *s) {
  if (s->kind == STREAM_FILE || s->uv.handle.type == UV_UNKNOWN_HANDLE) destroy(s);
  else uv_close(&s->uv.handle, on_discarded);
}

int stream_from_socket(struct real_world *w, int fd, struct real_stream **out) {
  struct real_stream *s = stream_new(w, STREAM_TCP);
  int rc = s ? uv_tcp_init(w->loop, &s->uv.tcp) : ERR_MEMORY;
  if (rc == 0) rc = uv_tcp_open(&s->uv.tcp, fd);
  if (rc < 0) {
    close(fd);
    if (s) stream_discard(s);
    return rc;
  }
  (void)uv_tcp_nodelay(&s->uv.tcp, 1); /* It fails only on a connection that is gone already. */
  s->open = true;
  stream_opened(w, s);
  *out = s;
  return 0;
}

static void on_connect(uv_connect_t *request, int status) {
  struct real_stream *s = CONTAINER(request, struct real_stream, connect);
  if (closing(s)) return;
  s->open = status == 0;
  s->ended = status < 0; /* on_open has reported it. */
  s->events->on_open(s->data, code_from_uv(status));
  update_reading(s);
}

int real_connect(struct shoal_world *base, const struct shoal_address *to, const struct world_stream_events *events,
                 void *data, struct world_stream **out) {
  struct real_world *w = real_world(base);
  struct sockaddr_storage name;
  if (address_to_socket(to, &name) == 0) return -EINVAL;
  struct real_stream *s = stream_new(w, STREAM_TCP);
  if (!s) return ERR_MEMORY;
  s->own = *events;
  s->events = &s->own;
  s->data = data;
  int rc = uv_tcp_init_ex(w->loop, &s->uv.tcp, name.ss_family);
  if (rc < 0) s->uv.handle.type = UV_UNKNOWN_HANDLE; /* libuv takes it back itself. */
  if (rc == 0) rc = uv_tcp_nodelay(&s->uv.tcp, 1);
  if (rc == 0) rc = uv_tcp_connect(&s->connect, &s->uv.tcp, (const struct sockaddr *)&name, on_connect);
  if (rc < 0) {
    stream_discard(s);
    return rc;
  }
  stream_opened(w, s);
  *out = &s->base;
  return 0;
}

void real_stream_close(struct world_stream *base) {
  struct real_stream *s = real_stream(base);
  world_undefer(base->handle.world, &s->later);
  s->reading = false;
  if (s->kind == STREAM_FILE) {
    close(s->file);
    world_defer(base->handle.world, &s->later);
  } else {
    uv_close(&s->uv.handle, on_closed);
  }
}
