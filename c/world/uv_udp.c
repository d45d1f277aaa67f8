/* Datagrams and names of the real world. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world/uv_private.h"

/* ---- datagrams ---- */

enum {
  CHUNK_BYTES = 64 * 1024, /* What libuv gives each datagram of a batch. */
  CHUNKS = 20,             /* libuv's largest batch. Pages nobody writes to are never made real. */
  RECEIVE_BYTES = 1024 * 1024, /* With the kernel's default a quarter of 190,000 small datagrams a second was lost. */
};

struct real_udp {
  struct world_udp base;
  uv_udp_t uv;
  int fd;
  struct world_udp_events events;
  void *data;
};

static struct real_udp *udp_of(uv_handle_t *handle) { return CONTAINER(handle, struct real_udp, uv); }

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
  (void)suggested;
  struct real_world *w = real_world(udp_of(handle)->base.handle.world);
  *out = uv_buf_init((char *)w->datagrams, CHUNKS * CHUNK_BYTES);
}

static void on_receive(uv_udp_t *handle, ssize_t length, const uv_buf_t *buffer, const struct sockaddr *from,
                       unsigned flags) {
  struct real_udp *u = udp_of((uv_handle_t *)handle);
  struct shoal_address address;
  if (u->base.handle.closing) return; /* The rest of a batch still comes. */
  if (length < 0) {
    if (u->events.on_error) u->events.on_error(u->data, code_from_uv((int)length));
    return;
  }
  if (!from || !address_from_socket(from, &address)) return; /* The end of a batch: no datagram. */
  if (flags & UV_UDP_PARTIAL) {
    if (u->events.on_error) u->events.on_error(u->data, ERR_TOO_LARGE);
    return;
  }
  u->events.on_datagram(u->data, &address, (const uint8_t *)buffer->base, (size_t)length);
}

static void on_discarded(uv_handle_t *handle) { free(udp_of(handle)); }

static void on_closed(uv_handle_t *handle) {
  struct real_udp *u = udp_of(handle);
  world_handle_closed(&u->base.handle);
  if (u->events.on_closed) u->events.on_closed(u->data);
  free(u);
}

int real_udp_open(struct shoal_world *base, const struct shoal_address *bind, const struct world_udp_events *events,
                  void *data, struct world_udp **out) {
  struct real_world *w = real_world(base);
  struct sockaddr_storage name;
  if (address_to_socket(bind, &name) == 0) return -EINVAL;
  if (!w->datagrams) w->datagrams = malloc(CHUNKS * CHUNK_BYTES);
  struct real_udp *u = calloc(1, sizeof *u);
  if (!u || !w->datagrams) {
    free(u);
    return ERR_MEMORY;
  }
  u->events = *events;
  u->data = data;
  int rc = uv_udp_init_ex(w->loop, &u->uv, (unsigned)name.ss_family | UV_UDP_RECVMMSG);
  if (rc < 0) {
    free(u);
    return rc;
  }
  u->uv.data = w->handle_data;
  rc = uv_udp_bind(&u->uv, (const struct sockaddr *)&name, bind->family == 6 ? UV_UDP_IPV6ONLY : 0);
  if (rc == 0) rc = uv_fileno((uv_handle_t *)&u->uv, &u->fd);
  if (rc == 0) rc = uv_udp_recv_start(&u->uv, on_alloc, on_receive);
  if (rc < 0) {
    uv_close((uv_handle_t *)&u->uv, on_discarded);
    return rc;
  }
  int bytes = RECEIVE_BYTES; /* As much of it as the system allows. */
  (void)setsockopt(u->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
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
  if (base->handle.closing) memset(out, 0, sizeof *out); /* Its descriptor may be another's by now. */
  else address_of_socket(u->fd, out);
}

void real_udp_close(struct world_udp *base) {
  uv_close((uv_handle_t *)&CONTAINER(base, struct real_udp, base)->uv, on_closed);
}

/* ---- names ---- */

/* The request outlives its lookup when that is closed early: a lookup in libuv's threads cannot be stopped. */
struct request {
  uv_getaddrinfo_t uv;
  struct real_lookup *lookup; /* NULL once nobody wants the answer. */
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
  struct shoal_address addresses[32]; /* More are dropped: nobody tries them. */
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
    (void)uv_cancel((uv_req_t *)&l->request->uv); /* Too late is fine: the answer then finds nobody. */
  }
  world_defer(base->handle.world, &l->later);
}
