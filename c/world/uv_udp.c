/* Datagrams and names of the real world. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "world/uv_private.h"

/* ---- datagrams ---- */

enum {
  CHUNK_BYTES = 64 * 1024, /* No datagram is longer. Pages that are never written to use no memory. */
  CHUNKS = 20,             /* Received by one system call at most, */
  CHUNKS_FIRST = 3,        /* and by the first of a turn: mostly one waits, and getting fewer than asked for means that there are no more. */
  CHUNKS_TURN = 40,        /* After so many, other handles have their turn. */
  RECEIVE_BYTES = 1024 * 1024, /* With the kernel's default a quarter of 190,000 small datagrams a second was lost. */
};

/* A polled socket, not libuv's uv_udp_t, which makes one more receive call after each batch, in vain: a fifth of all system calls of a
 * member that receives a datagram now and then. */
struct real_udp {
  struct world_udp base;
  uv_poll_t uv;
  int fd;
  struct world_udp_events events;
  void *data;
};

static struct real_udp *udp_of(uv_handle_t *handle) { return CONTAINER(handle, struct real_udp, uv); }

static void tell_error(struct real_udp *u, int code) {
  if (u->events.on_error) u->events.on_error(u->data, code);
}

/* Returns how many came, or a code; the handlers have seen them, and may have closed u. */
static int receive_batch(struct real_udp *u, unsigned wanted) {
  uint8_t *chunks = real_world(u->base.handle.world)->datagrams;
  struct mmsghdr batch[CHUNKS];
  struct iovec spaces[CHUNKS];
  struct sockaddr_storage names[CHUNKS];
  for (unsigned i = 0; i < wanted; i++) {
    spaces[i] = (struct iovec){chunks + (size_t)i * CHUNK_BYTES, CHUNK_BYTES};
    batch[i] = (struct mmsghdr){
        .msg_hdr = {.msg_name = &names[i], .msg_namelen = sizeof names[i], .msg_iov = &spaces[i], .msg_iovlen = 1}};
  }
  int count;
  do count = recvmmsg(u->fd, batch, wanted, MSG_DONTWAIT, NULL);
  while (count < 0 && errno == EINTR);
  if (count < 0) return -errno;
  for (int i = 0; i < count && !u->base.handle.closing; i++) {
    struct shoal_address from;
    if (batch[i].msg_hdr.msg_flags & MSG_TRUNC) tell_error(u, ERR_TOO_LARGE);
    else if (address_from_socket((const struct sockaddr *)&names[i], &from))
      u->events.on_datagram(u->data, &from, spaces[i].iov_base, batch[i].msg_len);
  }
  return count;
}

static void on_readable(uv_poll_t *handle, int status, int events);

static int start_polling(struct real_udp *u) { return uv_poll_start(&u->uv, UV_READABLE, on_readable); }

static void on_readable(uv_poll_t *handle, int status, int events) {
  struct real_udp *u = udp_of((uv_handle_t *)handle);
  (void)events;
  unsigned wanted = CHUNKS_FIRST;
  int count, taken = 0;
  do {
    count = receive_batch(u, wanted);
    if (u->base.handle.closing) return;
    if (count < 0 && count != -EAGAIN) tell_error(u, count); /* It was taken off the socket. */
    if (u->base.handle.closing) return;
    taken += count;
    if (count < (int)wanted) break;
    wanted = CHUNKS;
  } while (taken < CHUNKS_TURN);
  if (status < 0) (void)start_polling(u); /* libuv stops at an error, which reading took off the socket. Cannot fail. */
}

static void on_discarded(uv_handle_t *handle) { free(udp_of(handle)); }

static void on_closed(uv_handle_t *handle) {
  struct real_udp *u = udp_of(handle);
  world_handle_closed(&u->base.handle);
  if (u->events.on_closed) u->events.on_closed(u->data);
  free(u);
}

static void close_socket(int fd) { (void)close(fd); /* It had nothing to write: there is nothing that could be lost. */ }

/* A socket of its own, bound; or a code. */
static int bound_socket(const struct shoal_address *bind_to) {
  struct sockaddr_storage name;
  socklen_t name_length = address_to_socket(bind_to, &name);
  if (name_length == 0) return -EINVAL;
  int fd = socket(name.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int on = 1, bytes = RECEIVE_BYTES, rc = 0;
  if (bind_to->family == 6) rc = setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (rc == 0) rc = bind(fd, (const struct sockaddr *)&name, name_length);
  if (rc < 0) {
    rc = -errno;
    close_socket(fd);
    return rc;
  }
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes); /* As much as there is. */
  return fd;
}

int real_udp_open(struct shoal_world *base, const struct shoal_address *bind_to, const struct world_udp_events *events,
                  void *data, struct world_udp **out) {
  struct real_world *w = real_world(base);
  if (!w->datagrams) w->datagrams = malloc(CHUNKS * CHUNK_BYTES);
  struct real_udp *u = calloc(1, sizeof *u);
  if (!u || !w->datagrams) {
    free(u);
    return ERR_MEMORY;
  }
  u->events = *events;
  u->data = data;
  u->fd = bound_socket(bind_to);
  int rc = u->fd < 0 ? u->fd : uv_poll_init(w->loop, &u->uv, u->fd);
  if (rc < 0) {
    if (u->fd >= 0) close_socket(u->fd);
    free(u);
    return rc;
  }
  u->uv.data = w->handle_data;
  rc = start_polling(u);
  if (rc < 0) {
    uv_close((uv_handle_t *)&u->uv, on_discarded);
    close_socket(u->fd);
    return rc;
  }
  world_handle_opened(base, &u->base.handle);
  *out = &u->base;
  return 0;
}

int real_udp_send(struct world_udp *base, const struct shoal_address *to, const void *bytes, size_t length) {
  struct real_udp *u = CONTAINER(base, struct real_udp, base);
  struct sockaddr_storage name;
  socklen_t name_length = address_to_socket(to, &name);
  if (name_length == 0) return -EINVAL;
  for (;;) { /* Not through libuv, which queues, and costs a tenth more. */
    ssize_t sent = sendto(u->fd, bytes, length, MSG_DONTWAIT, (const struct sockaddr *)&name, name_length);
    if (sent >= 0) return 0;
    if (errno == EINTR) continue;
    if (errno == ENOBUFS) return -EAGAIN;
    return errno == EMSGSIZE ? ERR_TOO_LARGE : -errno;
  }
}

void real_udp_address(struct world_udp *base, struct shoal_address *out) {
  struct real_udp *u = CONTAINER(base, struct real_udp, base);
  if (base->handle.closing) memset(out, 0, sizeof *out); /* The descriptor may have been reused. */
  else address_of_socket(u->fd, out);
}

void real_udp_close(struct world_udp *base) {
  struct real_udp *u = CONTAINER(base, struct real_udp, base);
  uv_close((uv_handle_t *)&u->uv, on_closed); /* It is not polled any more, */
  close_socket(u->fd);                        /* so that the port is free at once. */
}

/* ---- names ---- */

/* The request outlives its lookup when that is closed early: a lookup in libuv's threads cannot be stopped. */
struct request {
  uv_getaddrinfo_t uv;
  struct real_lookup *lookup; /* NULL once the lookup is closed. */
};

struct real_lookup {
  struct world_lookup base;
  struct request *request; /* NULL for a numeric host. */
  struct shoal_address numeric;
  void (*on_result)(void *data, int status, const struct shoal_address *addresses, size_t count);
  world_closed_fn *on_closed;
  void *data;
  struct world_defer later; /* Gives the numeric answer, or on_closed after an early close. */
};

static void lookup_end(struct real_lookup *l) {
  world_handle_closed(&l->base.handle);
  if (l->on_closed) l->on_closed(l->data);
  free(l);
}

static void lookup_answer(struct real_lookup *l, int status, const struct shoal_address *addresses, size_t count) {
  l->base.handle.closing = true; /* It closes itself; a close from on_result is harmless. */
  l->on_result(l->data, status, addresses, count);
  lookup_end(l);
}

static void on_later(void *data) {
  struct real_lookup *l = data;
  if (l->base.handle.closing) lookup_end(l);
  else lookup_answer(l, 0, &l->numeric, 1);
}

static bool seen(const struct shoal_address *addresses, size_t count, const struct shoal_address *a) {
  for (size_t i = 0; i < count; i++)
    if (address_equal(&addresses[i], a)) return true;
  return false;
}

static void on_addresses(uv_getaddrinfo_t *uv, int status, struct addrinfo *found) {
  struct request *r = CONTAINER(uv, struct request, uv);
  struct real_lookup *l = r->lookup;
  struct shoal_address addresses[32]; /* More are dropped: no caller tries that many. */
  size_t count = 0;
  for (struct addrinfo *i = found; i && count < 32; i = i->ai_next) {
    struct shoal_address a;
    if (address_from_socket(i->ai_addr, &a) && !seen(addresses, count, &a)) addresses[count++] = a;
  }
  uv_freeaddrinfo(found);
  free(r);
  if (!l) return;
  if (status == 0 && count == 0) status = ERR_NO_NAME;
  lookup_answer(l, code_from_uv(status), status == 0 ? addresses : NULL, status == 0 ? count : 0);
}

static bool parse_numeric(const char *host, uint16_t port, struct shoal_address *out) {
  *out = (struct shoal_address){.port = port};
  if (inet_pton(AF_INET, host, out->bytes) == 1) out->family = 4;
  else if (inet_pton(AF_INET6, host, out->bytes) == 1) out->family = 6;
  return out->family != 0;
}

static int request_start(struct real_world *w, struct real_lookup *l, const char *host, uint16_t port) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  char service[8];
  struct request *r = calloc(1, sizeof *r);
  if (!r) return ERR_MEMORY;
  r->lookup = l;
  l->request = r;
  snprintf(service, sizeof service, "%u", port);
  int rc = uv_getaddrinfo(w->loop, &r->uv, on_addresses, host, service, &hints);
  if (rc == 0) return 0;
  free(r);
  return rc == UV_EINVAL || rc == UV_ENAMETOOLONG ? ERR_NO_NAME : code_from_uv(rc); /* Not a name at all. */
}

int real_resolve(struct shoal_world *w, const char *host, uint16_t port,
                 void (*on_result)(void *data, int status, const struct shoal_address *addresses, size_t count),
                 world_closed_fn *closed, void *data, struct world_lookup **out) {
  struct real_lookup *l = calloc(1, sizeof *l);
  if (!l) return ERR_MEMORY;
  l->on_result = on_result;
  l->on_closed = closed;
  l->data = data;
  l->later = (struct world_defer){.run = on_later, .data = l};
  bool numeric = parse_numeric(host, port, &l->numeric);
  int rc = numeric ? 0 : request_start(real_world(w), l, host, port);
  if (rc < 0) {
    free(l);
    return rc;
  }
  world_handle_opened(w, &l->base.handle);
  if (numeric) world_defer(w, &l->later);
  *out = &l->base;
  return 0;
}

void real_lookup_close(struct world_lookup *base) {
  struct real_lookup *l = CONTAINER(base, struct real_lookup, base);
  if (l->request) {
    l->request->lookup = NULL;
    (void)uv_cancel((uv_req_t *)&l->request->uv); /* If it is too late, the answer is dropped. */
  }
  world_defer(base->handle.world, &l->later);
}
