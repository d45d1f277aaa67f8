/* A driver and workers of beanstalkd. Jobs travel in the tube "work", results in the tube "done"; both are jobs of beanstalkd, which
 * writes and syncs each put and each delete (-f 0). A worker puts the result before it deletes the job, so that none is lost. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jobs_bench.h"

enum { LINE_MAX_BYTES = 256 };

struct link {
  FILE *in;
  int fd;
};

static struct link open_link(int port) {
  struct link link = {.fd = bench_connect(port)};
  link.in = fdopen(link.fd, "r");
  if (!link.in) bench_fail("fdopen");
  return link;
}

static void say(const struct link *link, const char *format, ...) {
  char text[LINE_MAX_BYTES];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  for (int at = 0; at < length;) {
    ssize_t n = write(link->fd, text + at, (size_t)(length - at));
    if (n < 0) bench_fail("write to beanstalkd");
    at += (int)n;
  }
}

/* Read one line into text[LINE_MAX_BYTES]; it must begin as expected. */
static void hear(const struct link *link, const char *expected, char *text) {
  if (!fgets(text, LINE_MAX_BYTES, link->in)) {
    fprintf(stderr, "jobs_bench: beanstalkd closed the connection, expected %s\n", expected);
    exit(2);
  }
  if (strncmp(text, expected, strlen(expected)) != 0) {
    fprintf(stderr, "jobs_bench: beanstalkd said %sexpected %s\n", text, expected);
    exit(2);
  }
}

/* Read a reserved job: its id, and its body into body[LINE_MAX_BYTES]. */
static unsigned long long hear_job(const struct link *link, char *body) {
  char text[LINE_MAX_BYTES];
  hear(link, "RESERVED ", text);
  unsigned long long id = strtoull(text + strlen("RESERVED "), NULL, 10);
  hear(link, "", body);
  body[strcspn(body, "\r\n")] = '\0';
  return id;
}

static void use_tubes(const struct link *link, const char *put, const char *take) {
  char text[LINE_MAX_BYTES];
  say(link, "use %s\r\nwatch %s\r\nignore default\r\n", put, take);
  hear(link, "USING", text);
  hear(link, "WATCHING", text);
  hear(link, "WATCHING", text);
}

/* ---- a worker ---- */

static int work_port;
static char *const *work_argv;

static void *slot(void *unused) {
  (void)unused;
  struct link link = open_link(work_port);
  char body[LINE_MAX_BYTES], text[LINE_MAX_BYTES], result[LINE_MAX_BYTES];
  use_tubes(&link, "done", "work");
  for (;;) {
    say(&link, "reserve\r\n");
    unsigned long long id = hear_job(&link, body);
    int status = bench_child(work_argv);
    int length = snprintf(result, sizeof result, "%.64s %d", body, status);
    say(&link, "put 0 0 60 %d\r\n%s\r\ndelete %llu\r\n", length, result, id);
    hear(&link, "INSERTED", text);
    hear(&link, "DELETED", text);
  }
  return NULL;
}

int beanstalk_work(int port, int slots, char *const *argv) {
  work_port = port;
  work_argv = argv;
  for (int i = 0; i < slots; i++) {
    pthread_t thread;
    errno = pthread_create(&thread, NULL, slot, NULL);
    if (errno != 0) bench_fail("pthread_create");
  }
  for (;;) pause();
}

/* ---- the driver ---- */

static void put(const struct link *link, int number) {
  char body[LINE_MAX_BYTES];
  int length = snprintf(body, sizeof body, "job %d", number);
  say(link, "put 0 0 60 %d\r\n%s\r\n", length, body);
}

/* Keep the given number of jobs outstanding until all have ended. Two connections: one puts while the other deletes a result. */
static void run(const struct link *to, const struct link *from, int count, int flight) {
  char body[LINE_MAX_BYTES], text[LINE_MAX_BYTES];
  int put_count = 0;
  for (; put_count < count && put_count < flight; put_count++) put(to, put_count);
  for (int i = 0; i < put_count; i++) hear(to, "INSERTED", text);
  for (int ended = 0; ended < count; ended++) {
    say(from, "reserve\r\n");
    unsigned long long id = hear_job(from, body);
    size_t length = strlen(body);
    if (length < 2 || strcmp(body + length - 2, " 0") != 0) {
      fprintf(stderr, "jobs_bench: a job failed: %s\n", body);
      exit(2);
    }
    bool more = put_count < count;
    if (more) put(to, put_count++);
    say(from, "delete %llu\r\n", id);
    hear(from, "DELETED", text);
    if (more) hear(to, "INSERTED", text);
  }
}

/* Lines "run COUNT OUTSTANDING" come in; "done NS" is the answer to each. */
int beanstalk_drive(int port) {
  struct link to = open_link(port), from = open_link(port);
  use_tubes(&to, "work", "none");
  use_tubes(&from, "none", "done");
  char line[LINE_MAX_BYTES];
  printf("ready\n");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    int count, flight;
    if (sscanf(line, "run %d %d", &count, &flight) != 2 || flight < 1) {
      fprintf(stderr, "jobs_bench: expected run COUNT OUTSTANDING, found %s", line);
      return 2;
    }
    uint64_t began_ns = bench_now_ns();
    run(&to, &from, count, flight);
    printf("done %llu\n", (unsigned long long)(bench_now_ns() - began_ns));
    fflush(stdout);
  }
  return 0;
}
