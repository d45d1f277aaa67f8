/* The C parts of `scripts/bench jobs`: a keeper of processes, a driver and workers of beanstalkd, and connections that send
 * unfinished messages.
 *
 *   jobs_bench keep PROGRAM [ARGUMENT...]          run a program; all its descendants stay below this process
 *   jobs_bench beanstalk-work PORT SLOTS COMMAND [ARGUMENT...]   take jobs, SLOTS at a time; run the command for each
 *   jobs_bench beanstalk-drive PORT                submit jobs and wait for their results, as stdin asks
 *   jobs_bench half PORT CONNECTIONS LANES FRAMES  greet, and send FRAMES frames in each of LANES lanes, never a last one
 *
 * keep is a subreaper: orphans of the program become its children, and the kernel adds the CPU of a child to the process that reaps
 * it. So the CPU of all processes that ever ran below is that of its reaped children and of the processes that still live. */
#include "jobs_bench/jobs_bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

void bench_fail(const char *what) {
  fprintf(stderr, "jobs_bench: %s: %s\n", what, strerror(errno));
  exit(2);
}

uint64_t bench_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int bench_connect(int port) {
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) bench_fail("connect");
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0) bench_fail("TCP_NODELAY");
  return fd;
}

int bench_child(char *const *argv) {
  int out[2], err[2];
  if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0) bench_fail("pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawn_file_actions_adddup2(&actions, err[1], 2);
  pid_t pid;
  errno = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
  if (errno != 0) bench_fail(argv[0]);
  posix_spawn_file_actions_destroy(&actions);
  close(out[1]);
  close(err[1]);
  struct pollfd ends[2] = {{.fd = out[0], .events = POLLIN}, {.fd = err[0], .events = POLLIN}};
  for (int open = 2; open > 0;) {
    if (poll(ends, 2, -1) < 0) bench_fail("poll");
    for (int i = 0; i < 2; i++) {
      char bytes[4096];
      if (ends[i].fd < 0 || ends[i].revents == 0) continue;
      if (read(ends[i].fd, bytes, sizeof bytes) > 0) continue;
      close(ends[i].fd);
      ends[i].fd = -1; /* poll() passes over it. */
      open--;
    }
  }
  int status;
  if (waitpid(pid, &status, 0) < 0) bench_fail("waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* ---- keep ---- */

static pid_t kept;

static void forward(int signal) { kill(kept, signal); }

/* The keeper dies with the bench, and the program with the keeper, so that no process is left over. */
static int keep(char **argv) {
  pid_t self = getpid();
  if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) bench_fail("prctl");
  kept = fork();
  if (kept < 0) bench_fail("fork");
  if (kept == 0) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != self) _exit(2);
    execvp(argv[0], argv);
    bench_fail(argv[0]);
  }
  signal(SIGTERM, forward);
  signal(SIGINT, forward);
  close(0); /* These pipes are the program's: they must end when it ends. */
  close(1);
  for (;;) {
    int status;
    pid_t pid = waitpid(-1, &status, 0);
    if (pid == kept) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (pid < 0 && errno != EINTR) bench_fail("waitpid");
  }
}

int main(int argc, char **argv) {
  const char *word = argc > 1 ? argv[1] : "";
  signal(SIGPIPE, SIG_IGN);
  if (strcmp(word, "keep") == 0 && argc > 2) {
    signal(SIGPIPE, SIG_DFL); /* The program inherits it. */
    return keep(argv + 2);
  }
  int port = argc > 2 ? atoi(argv[2]) : 0;
  if (strcmp(word, "beanstalk-work") == 0 && argc > 4) return beanstalk_work(port, atoi(argv[3]), argv + 4);
  if (strcmp(word, "beanstalk-drive") == 0 && argc == 3) return beanstalk_drive(port);
  if (strcmp(word, "half") == 0 && argc == 6) return half_messages(port, atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
  fprintf(stderr, "usage: jobs_bench keep|beanstalk-work|beanstalk-drive|half ...; see spec/bench/jobs_bench.c\n");
  return 2;
}
