/* Connections that greet as clients and then send messages without a last frame, for a gate to hold. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "jobs_bench.h"
#include "net/frame.h"

enum { QUIET_MS = 1000, TURN_MS = 50 };

struct half {
  int fd; /* -1 once the other end has closed it. */
  size_t hello_left, sent; /* Of the greeting, and of the frames after it. */
  uint8_t hello[FRAME_HEADER + FRAME_HELLO_MAX];
  size_t hello_length;
};

static uint8_t frames[FRAME_LANES][FRAME_MAX]; /* One frame of each lane; every connection sends them again and again. */

static void greet(struct half *h, int port, int number) {
  struct frame_hello hello = {.major = FRAME_MAJOR, .minor = FRAME_MINOR, .cluster = "shoal", .role = "client"};
  snprintf(hello.node, sizeof hello.node, "half-%d", number);
  size_t body = frame_hello_put(h->hello + FRAME_HEADER, &hello);
  frame_put(h->hello, &(struct frame){.length = (uint32_t)body, .type = FRAME_HELLO, .flags = FRAME_LINK | FRAME_LAST});
  h->hello_length = h->hello_left = FRAME_HEADER + body;
  h->fd = bench_connect(port);
  if (fcntl(h->fd, F_SETFL, O_NONBLOCK) < 0) bench_fail("fcntl");
}

static void give_up(struct half *h) {
  close(h->fd);
  h->fd = -1;
}

/* Send as much as the socket takes now, and discard all that arrives. Returns whether anything moved. */
static bool push(struct half *h, int lanes, size_t total) {
  bool moved = false;
  uint8_t heard[4096];
  ssize_t n;
  while ((n = recv(h->fd, heard, sizeof heard, 0)) > 0) moved = true;
  if (n == 0 || (n < 0 && errno != EAGAIN)) {
    give_up(h);
    return true;
  }
  while (h->hello_left > 0 || h->sent < total) {
    if (h->hello_left > 0) {
      n = send(h->fd, h->hello + h->hello_length - h->hello_left, h->hello_left, 0);
    } else {
      size_t frame = h->sent / FRAME_MAX, within = h->sent % FRAME_MAX;
      n = send(h->fd, frames[frame % (size_t)lanes] + within, FRAME_MAX - within, 0);
    }
    if (n < 0 && errno == EAGAIN) return moved;
    if (n < 0) {
      give_up(h);
      return true;
    }
    moved = true;
    if (h->hello_left > 0) {
      h->hello_left -= (size_t)n;
    } else {
      h->sent += (size_t)n;
    }
  }
  return moved;
}

static void report(const char *word, const struct half *all, int count) {
  size_t bytes = 0;
  int open = 0;
  for (int i = 0; i < count; i++) {
    bytes += all[i].sent;
    open += all[i].fd >= 0;
  }
  printf("%s %d %d %zu\n", word, open, count - open, bytes);
  fflush(stdout);
}

/* Prints "open CONNECTIONS CLOSED BYTES" when nothing has moved for a second, and goes on until stdin ends: then "end ..." */
int half_messages(int port, int count, int lanes, int frames_each) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0) bench_fail("setrlimit");
  }
  if (count < 1 || lanes < 1 || lanes > FRAME_LANES) return 2;
  struct half *all = calloc((size_t)count, sizeof *all);
  struct pollfd *polled = calloc((size_t)count + 1, sizeof *polled);
  if (!all || !polled) bench_fail("calloc");
  for (uint8_t lane = 0; lane < FRAME_LANES; lane++) {
    frame_put(frames[lane], &(struct frame){.length = FRAME_BODY_MAX, .type = 5, .lane = lane, .flags = FRAME_REQUEST, .id = 1});
    memset(frames[lane] + FRAME_HEADER, 'z', FRAME_BODY_MAX);
  }
  size_t total = (size_t)lanes * (size_t)frames_each * FRAME_MAX;
  for (int i = 0; i < count; i++) greet(&all[i], port, i);
  bool told = false;
  for (uint64_t moved_ns = bench_now_ns();;) {
    polled[count] = (struct pollfd){.fd = 0, .events = POLLIN};
    for (int i = 0; i < count; i++) {
      bool more = all[i].hello_left > 0 || all[i].sent < total;
      polled[i] = (struct pollfd){.fd = all[i].fd, .events = (short)(more ? POLLIN | POLLOUT : POLLIN)};
    }
    if (poll(polled, (nfds_t)count + 1, TURN_MS) < 0) bench_fail("poll");
    char byte;
    if (polled[count].revents && read(0, &byte, 1) <= 0) break;
    for (int i = 0; i < count; i++) {
      if (all[i].fd >= 0 && polled[i].revents && push(&all[i], lanes, total)) moved_ns = bench_now_ns();
    }
    if (!told && bench_now_ns() - moved_ns > QUIET_MS * 1000000ull) {
      told = true;
      report("open", all, count);
    }
  }
  report("end", all, count);
  free(polled);
  free(all);
  return 0;
}
