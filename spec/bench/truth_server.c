/* truth_server: the other side of `bench truth`, with clocks of its own.
 *
 *   truth_server serve [STALL_EVERY_MS STALL_MS]   answer on a port of 127.0.0.1, which it prints; end with stdin
 *       GET /report  {"count","p50_ns","p99_ns","first_ns"} of all answers since the last report: from reading a request until its answer
 *                    was written; first_ns is from /stall to the first request after it
 *       GET /stall   begin the cycle: STALL_MS without a look at any connection, in the middle of each STALL_EVERY_MS
 *       GET /5ms     an answer after 5 ms; any other: after a time drawn by DELAYS, 90 % from 2 to 4 ms, 10 % from 8 to 20 ms
 *   truth_server bare PORT RATE COUNT CONNECTIONS PATH   a bare loop: that many requests at that rate; prints {"count","p50_ns","p99_ns"} */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 1024, SAMPLES_MAX = 1 << 20, BUFFER = 4096, EVENTS = 64 };
#define NEVER UINT64_MAX
#define MS UINT64_C(1000000)

struct connection {
  int fd;
  bool busy; /* A request is under way. */
  uint64_t began_ns, due_ns;
  size_t length;
  char bytes[BUFFER];
};

static struct connection connections[CONNECTIONS_MAX];
static int connections_count;
static uint64_t samples[SAMPLES_MAX];
static size_t samples_count;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

/* ---- samples ---- */

static void sample(uint64_t ns) {
  if (samples_count < SAMPLES_MAX) samples[samples_count++] = ns;
}

static int by_size(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static uint64_t first_ns;

static int report(char *out, size_t size) {
  qsort(samples, samples_count, sizeof samples[0], by_size);
  size_t n = samples_count;
  uint64_t p50 = n ? samples[(n - 1) / 2] : 0, p99 = n ? samples[(n - 1) * 99 / 100] : 0;
  samples_count = 0;
  return snprintf(out, size, "{\"count\":%zu,\"p50_ns\":%llu,\"p99_ns\":%llu,\"first_ns\":%llu}", n, (unsigned long long)p50,
                  (unsigned long long)p99, (unsigned long long)first_ns);
}

/* ---- sockets ---- */

static int poller;

static void watch(int fd, uint32_t index) {
  struct epoll_event e = {.events = EPOLLIN, .data.u32 = index};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e) < 0) die("epoll_ctl");
}

static struct sockaddr_in loopback(uint16_t port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}

static void tune(int fd) {
  int one = 1;
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0) die("TCP_NODELAY");
  if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) die("fcntl");
}

static uint32_t add_connection(int fd) {
  uint32_t index = 0;
  while (index < (uint32_t)connections_count && connections[index].fd >= 0) index++;
  if (index == CONNECTIONS_MAX) {
    fputs("truth_server: too many connections\n", stderr);
    exit(1);
  }
  if (index == (uint32_t)connections_count) connections_count++;
  connections[index] = (struct connection){.fd = fd};
  tune(fd);
  watch(fd, index);
  return index;
}

static void drop(struct connection *c) {
  close(c->fd);
  c->fd = -1;
  c->busy = false;
}

/* Wait for events until this instant. */
static int await(struct epoll_event *events, uint64_t until_ns) {
  uint64_t now = now_ns(), left = until_ns == NEVER ? 1000 * MS : until_ns > now ? until_ns - now : 0;
  struct timespec t = {.tv_sec = (time_t)(left / (1000 * MS)), .tv_nsec = (long)(left % (1000 * MS))};
  int n = epoll_pwait2(poller, events, EVENTS, &t, NULL);
  if (n < 0 && errno != EINTR) die("epoll_pwait2");
  return n < 0 ? 0 : n;
}

static void send_all(struct connection *c, const char *bytes, size_t length) {
  if (write(c->fd, bytes, length) != (ssize_t)length) drop(c); /* A few bytes: the peer is gone. */
}

/* ---- the server ---- */

static uint64_t chance = 88172645463325252u;

static uint64_t draw(uint64_t below) {
  chance ^= chance << 13;
  chance ^= chance >> 7;
  chance ^= chance << 17;
  return chance % below;
}

static uint64_t delay_ns(void) {
  return draw(10) > 0 ? 2 * MS + draw(2 * MS) : 8 * MS + draw(12 * MS);
}

static uint64_t stall_every_ns, stall_ns, cycle_ns = NEVER; /* When the cycle of stalls began. */
static uint64_t stalls;

static uint64_t next_stall(void) {
  return cycle_ns == NEVER ? NEVER : cycle_ns + stalls * stall_every_ns + stall_every_ns / 2;
}

static void stall_if_due(void) {
  uint64_t begin = next_stall();
  if (begin == NEVER || now_ns() < begin) return;
  uint64_t end = begin + stall_ns;
  struct timespec t = {.tv_sec = (time_t)(end / (1000 * MS)), .tv_nsec = (long)(end % (1000 * MS))};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) continue;
  stalls++;
}

static void answer(struct connection *c, const char *body, int length) {
  char text[512];
  int n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", length, body);
  send_all(c, text, (size_t)n);
}

static void take(struct connection *c, uint64_t read_ns) {
  char body[256];
  c->length = 0;
  if (strncmp(c->bytes, "GET /report ", 12) == 0) {
    int n = report(body, sizeof body);
    answer(c, body, n);
  } else if (strncmp(c->bytes, "GET /stall ", 11) == 0) {
    cycle_ns = now_ns();
    answer(c, "ok", 2);
  } else {
    if (cycle_ns != NEVER && first_ns == 0) first_ns = read_ns - cycle_ns;
    c->busy = true;
    c->began_ns = read_ns;
    c->due_ns = read_ns + (strncmp(c->bytes, "GET /5ms ", 9) == 0 ? 5 * MS : delay_ns());
  }
}

static void hear(struct connection *c) {
  ssize_t n = read(c->fd, c->bytes + c->length, BUFFER - 1 - c->length);
  uint64_t read_ns = now_ns();
  if (n <= 0) {
    if (n == 0 || errno != EAGAIN) drop(c);
    return;
  }
  c->length += (size_t)n;
  c->bytes[c->length] = '\0';
  if (c->length >= 4 && memcmp(c->bytes + c->length - 4, "\r\n\r\n", 4) == 0) {
    take(c, read_ns);
  } else if (c->length == BUFFER - 1) {
    drop(c);
  }
}

/* Answer what is due; returns when the next answer is. */
static uint64_t serve_due(void) {
  uint64_t next = NEVER, now = now_ns();
  for (int i = 0; i < connections_count; i++) {
    struct connection *c = &connections[i];
    if (!c->busy) continue;
    if (c->due_ns > now) {
      if (c->due_ns < next) next = c->due_ns;
      continue;
    }
    c->busy = false;
    answer(c, "ok", 2);
    sample(now_ns() - c->began_ns);
  }
  return next;
}

static int serve(void) {
  struct sockaddr_in a = loopback(0);
  socklen_t length = sizeof a;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 512) < 0) die("listen");
  if (getsockname(listener, (struct sockaddr *)&a, &length) < 0 || fcntl(listener, F_SETFL, O_NONBLOCK) < 0) die("listen");
  watch(listener, UINT32_MAX);
  watch(0, UINT32_MAX - 1);
  printf("%d\n", ntohs(a.sin_port));
  fflush(stdout);
  struct epoll_event events[EVENTS];
  for (;;) {
    uint64_t next = serve_due(), stall = next_stall();
    int n = await(events, next < stall ? next : stall);
    stall_if_due();
    for (int i = 0; i < n; i++) {
      uint32_t index = events[i].data.u32;
      if (index == UINT32_MAX - 1) return 0;
      if (index != UINT32_MAX) {
        if (connections[index].fd >= 0) hear(&connections[index]);
        continue;
      }
      int fd = accept(listener, NULL, NULL);
      if (fd >= 0) add_connection(fd);
    }
  }
}

/* ---- the bare loop ---- */

static int bare(uint16_t port, uint64_t rate, uint64_t count, int wanted, const char *path) {
  char request[256];
  int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path);
  struct sockaddr_in a = loopback(port);
  for (int i = 0; i < wanted; i++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0) die("connect");
    add_connection(fd);
  }
  struct epoll_event events[EVENTS];
  uint64_t began = now_ns(), sent = 0, done = 0;
  while (done < count) {
    uint64_t due = sent < count ? began + sent * 1000 * MS / rate : NEVER;
    struct connection *idle = NULL;
    for (int i = 0; i < connections_count && !idle; i++) {
      if (connections[i].fd >= 0 && !connections[i].busy) idle = &connections[i];
    }
    if (idle && now_ns() >= due) {
      idle->busy = true;
      idle->began_ns = now_ns();
      send_all(idle, request, (size_t)length);
      sent++;
      continue;
    }
    int n = await(events, idle ? due : NEVER);
    for (int i = 0; i < n; i++) {
      struct connection *c = &connections[events[i].data.u32];
      ssize_t got = read(c->fd, c->bytes, BUFFER);
      if (got <= 0) die("the server closed a connection");
      sample(now_ns() - c->began_ns);
      c->busy = false;
      done++;
    }
  }
  char text[256];
  report(text, sizeof text);
  puts(text);
  return 0;
}

int main(int argc, char **argv) {
  poller = epoll_create1(0);
  if (poller < 0) die("epoll_create1");
  if (prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL) < 0) die("prctl");
  if (argc >= 2 && strcmp(argv[1], "serve") == 0) {
    if (argc == 4) {
      stall_every_ns = strtoull(argv[2], NULL, 10) * MS;
      stall_ns = strtoull(argv[3], NULL, 10) * MS;
    }
    return serve();
  }
  if (argc == 7 && strcmp(argv[1], "bare") == 0) {
    return bare((uint16_t)strtoul(argv[2], NULL, 10), strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10), atoi(argv[5]), argv[6]);
  }
  fputs("usage: truth_server serve [STALL_EVERY_MS STALL_MS] | bare PORT RATE COUNT CONNECTIONS PATH\n", stderr);
  return 2;
}
