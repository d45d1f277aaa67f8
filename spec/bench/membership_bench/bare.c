/* The floor of a member's cost: a libuv loop that sends one datagram a period to another member, and answers one with one. No
 * table, no checksum, no deadline; the sizes are those of our PING and ACK without gossip. Each member has its socket and its
 * timer; targets come in a shuffled order, as in SWIM. */
#include "membership_bench.h"

#include <arpa/inet.h>
#include <string.h>

#include "core/rng.h"

enum { PING_BYTES = 32, ACK_BYTES = 26 };

struct bare {
  uv_udp_t udp;
  uv_timer_t timer;
  uint64_t due_ms;
  uint32_t index, next;
  uint32_t *order;
  struct rng rng; /* The core's: phases that clump would make fewer wake-ups, and a floor that is too low. */
  int parts;
};
static struct bare *members[BENCH_MEMBERS_MAX];
static char received[65536];


static void shuffle(struct bare *m) {
  for (uint32_t i = bench.n - 1; i > 0; i--) {
    uint32_t j = (uint32_t)rng_below(&m->rng, i + 1), swap = m->order[i];
    m->order[i] = m->order[j];
    m->order[j] = swap;
  }
  m->next = 0;
}

static void send_to(struct bare *m, const struct sockaddr *to, char type, unsigned length) {
  char bytes[PING_BYTES] = {type};
  uv_buf_t buffer = uv_buf_init(bytes, length);
  (void)uv_udp_try_send(&m->udp, &buffer, 1, to); /* Lost, as any can be. */
}

/* At a phase of its own for ever. A repeating timer of libuv is late by what the loop was, and so all of a loop fall into one
 * step: fewer wake-ups, but not a datagram each period. */
static void on_timer(uv_timer_t *timer) {
  struct bare *m = timer->data;
  uint64_t now_ms = uv_now(timer->loop);
  do m->due_ms += bench.interval_ms;
  while (m->due_ms <= now_ms);
  BENCH_MUST(uv_timer_start(timer, on_timer, m->due_ms - now_ms, 0) == 0);
  if (m->next == bench.n) shuffle(m);
  uint32_t target = m->order[m->next++];
  if (target == m->index) target = (target + 1) % bench.n;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(bench.port + target)),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  send_to(m, (const struct sockaddr *)&to, 'p', PING_BYTES);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
  (void)handle, (void)suggested;
  *out = uv_buf_init(received, sizeof received);
}

static void on_receive(uv_udp_t *udp, ssize_t length, const uv_buf_t *buffer, const struct sockaddr *from, unsigned flags) {
  (void)flags;
  if (length > 0 && from && buffer->base[0] == 'p') send_to(udp->data, from, 'a', ACK_BYTES);
}

void bare_start(uint32_t index) {
  struct bare *m = calloc(1, sizeof *m);
  BENCH_MUST(m && !members[index] && index < bench.n);
  m->order = calloc(bench.n, sizeof *m->order);
  BENCH_MUST(m->order);
  for (uint32_t i = 0; i < bench.n; i++) m->order[i] = i;
  m->index = index;
  rng_seed(&m->rng, uv_hrtime() ^ (uint64_t)uv_os_getpid() << 40 ^ index);
  shuffle(m);
  uv_loop_t *loop = uv_default_loop();
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(bench.port + index)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  BENCH_MUST(uv_udp_init(loop, &m->udp) == 0 && uv_udp_bind(&m->udp, (const struct sockaddr *)&name, 0) == 0);
  BENCH_MUST(uv_udp_recv_start(&m->udp, on_alloc, on_receive) == 0);
  BENCH_MUST(uv_timer_init(loop, &m->timer) == 0);
  uint64_t phase_ms = rng_below(&m->rng, bench.interval_ms);
  m->due_ms = uv_now(loop) + phase_ms;
  BENCH_MUST(uv_timer_start(&m->timer, on_timer, phase_ms, 0) == 0);
  m->udp.data = m->timer.data = m;
  members[index] = m;
  bench_say(index, "up", index);
}

static void on_closed(uv_handle_t *handle) {
  struct bare *m = handle->data;
  if (++m->parts < 2) return;
  free(m->order);
  free(m);
}

void bare_kill(uint32_t index) {
  struct bare *m = members[index];
  BENCH_MUST(m);
  members[index] = NULL;
  uv_close((uv_handle_t *)&m->udp, on_closed);
  uv_close((uv_handle_t *)&m->timer, on_closed);
  bench_say(index, "killed", index);
}
