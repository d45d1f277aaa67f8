#include "world/uv_launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "world/guard.h"

extern char **environ;

/* ---- in the child, in borrowed memory: system calls only, and nothing of ours is changed but `failure` ---- */

/* (void): these fail only for arguments that we never pass, or the child ends at once and its status shows it. */
static void reset_signals(void) {
  struct sigaction act = {.sa_handler = SIG_DFL};
  for (int number = 1; number < 32; number++)
    (void)sigaction(number, &act, NULL); /* Refused only for KILL and STOP, which have no handler. */
  sigset_t none;
  (void)sigemptyset(&none);
  (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* An inherited descriptor must block: the program expects it. A closed one would be taken by the first file the program opens. */
static int keep(int fd) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return open("/dev/null", O_RDWR) == fd ? 0 : -errno; /* The lowest free one: those below are set by now. */
  if (flags & O_NONBLOCK) (void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
  return 0;
}

static int set_descriptors(const struct launch *l) {
  for (int fd = 0; fd < 3; fd++) {
    int from = l->fds[fd];
    if (from < 0 && fd > 0) {
      int rc = keep(fd);
      if (rc < 0) return rc;
      continue;
    }
    int null = -1;
    if (from < 0) from = null = open("/dev/null", O_RDONLY);
    if (from < 0) return -errno;
    if (from != fd && dup2(from, fd) < 0) return -errno;
    if (null > 2) (void)close(null);
  }
  return 0;
}

static int announce(const struct launch *l, pid_t group, bool started) {
  uint8_t record[GUARD_RECORD_BYTES];
  if (l->guard < 0) return 0;
  guard_record(record, (uint32_t)group, started);
  ssize_t written = send(l->guard, record, sizeof record, MSG_NOSIGNAL);
  if (written < 0) return -errno;
  return written == (ssize_t)sizeof record ? 0 : -EAGAIN;
}

/* The program gets nothing but its three. Nearly all are closed by the exec too, but our parent goes on before that is done: a lock that it
 * lets go of at once would still be held. */
static void close_others(int but) {
  /* A kernel before 5.9 refuses, and then the exec is what closes. */
  if (but > 3) (void)close_range(3, (unsigned)but - 1, 0);
  (void)close_range(but < 3 ? 3 : (unsigned)but + 1, ~0u, 0);
}

static int limit(int what, uint64_t soft, uint64_t hard) {
  struct rlimit now;
  if (soft == 0) return 0;
  if (getrlimit((__rlimit_resource_t)what, &now) < 0) return -errno;
  if (hard > now.rlim_max) hard = now.rlim_max; /* Ours is narrower, and only root may widen it. */
  struct rlimit wanted = {.rlim_cur = soft < hard ? soft : hard, .rlim_max = hard};
  return setrlimit((__rlimit_resource_t)what, &wanted) < 0 ? -errno : 0;
}

static int set_limits(const struct world_limits *l) {
  int rc = limit(RLIMIT_CPU, l->cpu_s, l->cpu_s + 1);
  if (rc == 0) rc = limit(RLIMIT_DATA, l->memory_bytes, l->memory_bytes);
  return rc == 0 ? limit(RLIMIT_NOFILE, l->files, l->files) : rc;
}

/* Returns only what kept it from becoming the program. */
static int become(const struct launch *l) {
  if (l->group && setsid() < 0) return -errno;
  int rc = set_descriptors(l);
  if (rc < 0) return rc;
  close_others(l->guard);
  if (l->cwd && chdir(l->cwd) < 0) return -errno;
  rc = announce(l, getpid(), true);
  if (rc < 0) return rc;
  rc = set_limits(&l->limits);
  if (rc == 0) {
    reset_signals();
    (void)execvp(l->argv[0], (char *const *)(uintptr_t)l->argv);
    rc = -errno;
  }
  (void)announce(l, getpid(), false); /* There was room for the other record; a guard that has gone needs none. */
  return rc;
}

/* ---- the keeper ----
 *
 *      we            clone ---- wait until `starting` is 0 ---> go on                                    waitid: read `status`
 *      keeper          \--- setsid, announce, clone ---- close all, starting = 0 ---- wait4 ---- status, done, sweep, exit
 *      the program                               \--- descriptors, exec --------------/
 *
 * sweep: what the program left behind has become the keeper's own children by now, or does when its parent is killed; so the keeper kills
 * its children until it has none. Each kill keeps a process from forking again, so that this ends.
 *
 * It shares our memory, so it needs no program of its own, which would cost 0.4 ms. In return it keeps these rules: all signals stay
 * blocked, so that only KILL ends it and it never dumps the core of our memory, which would end us too; once we go on, it makes system
 * calls by `raw` alone, for `errno` is ours; it stands on a stack of its own, which stays until it is dead.
 *
 * The program may kill it at once, before it has written a word. So each of the two has a word that the kernel clears: the keeper's at its
 * death, the program's when it leaves our memory, by its exec or its end. */

enum { KEEPER_BYTES = 16 * 1024, EXEC_BYTES = 64 * 1024, READ_BYTES = 1024, STARTING_MS = 5 };

struct keeper {
  const struct launch *launch; /* Valid until `starting` is 0. */
  char *stack;                 /* The program's, until it is the program. */
  size_t stack_bytes;
  _Atomic uint32_t starting;   /* 1; 0 once the keeper has done its part, or is dead. */
  _Atomic uint32_t here;       /* 1; 0 once the program has left our memory. */
  _Atomic bool done;
  int failure;
  int status; /* Of wait4, when done. */
  pid_t program;
  struct world_ended ended;
};

#define ON_OTHER_STACK __attribute__((noinline, no_sanitize("address", "undefined")))

ON_OTHER_STACK static int program_main(void *data) {
  struct keeper *k = data;
  const struct launch *l = k->launch;
  int rc = set_descriptors(l);
  if (rc == 0) {
    close_others(-1);
    if (l->cwd && chdir(l->cwd) < 0) rc = -errno;
  }
  if (rc == 0) rc = set_limits(&l->limits);
  if (rc == 0) {
    reset_signals();
    (void)execvp(l->argv[0], (char *const *)(uintptr_t)l->argv);
    rc = -errno;
  }
  k->failure = rc;
  (void)syscall(SYS_exit_group, 127);
  return 0; /* Not reached. */
}

ON_OTHER_STACK static pid_t start_program(struct keeper *k) {
  if (setsid() < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0) return -errno;
  int rc = announce(k->launch, (pid_t)syscall(SYS_getpid), true);
  if (rc < 0) return rc;
  pid_t pid = clone(program_main, k->stack + k->stack_bytes, CLONE_VM | CLONE_VFORK | CLONE_CHILD_CLEARTID | SIGCHLD, k, NULL, NULL, &k->here);
  return pid < 0 ? -errno : pid;
}

/* A system call that leaves errno alone; a negative errno when it fails. */
ON_OTHER_STACK static long raw(long number, long a, long b, long c, long d) {
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = d;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory", "cc");
  return x0;
#else /* Another thread of ours may see a wrong errno, when it fails at the same instant. */
  int before = errno;
  long result = syscall(number, a, b, c, d);
  if (result < 0) result = -errno;
  errno = before;
  return result;
#endif
}

ON_OTHER_STACK static long raw_open(const char *path) { return raw(SYS_openat, AT_FDCWD, (long)(intptr_t)path, O_RDONLY | O_CLOEXEC, 0); }
ON_OTHER_STACK static long raw_read(long fd, char *bytes, long size) { return raw(SYS_read, fd, (long)(intptr_t)bytes, size, 0); }
ON_OTHER_STACK static long raw_wait(long pid, int *status, long options, struct rusage *usage) {
  return raw(SYS_wait4, pid, (long)(intptr_t)status, options, (long)(intptr_t)usage);
}

/* What this process is, from its command line. One that is ending has none, and is not named. */
ON_OTHER_STACK static void name_left(struct world_ended *e, pid_t pid) {
  char path[32] = "/proc/", digits[12];
  size_t length = sizeof "/proc/" - 1, count = 0;
  if (e->left_named == WORLD_LEFT_NAMED) return;
  for (uint32_t i = 0; i < e->left_named; i++)
    if (e->left[i].pid == pid) return;
  for (pid_t rest = pid; rest > 0; rest /= 10) digits[count++] = (char)('0' + rest % 10);
  while (count > 0) path[length++] = digits[--count];
  static const char tail[] = "/cmdline";
  for (size_t i = 0; i < sizeof tail; i++) path[length++] = tail[i];
  long fd = raw_open(path);
  if (fd < 0) return;
  char *command = e->left[e->left_named].command;
  long n = raw_read(fd, command, WORLD_LEFT_BYTES - 1);
  (void)raw(SYS_close, fd, 0, 0, 0);
  if (n <= 0) return;
  for (long i = 0; i < n; i++)
    if (command[i] == '\0') command[i] = ' ';
  while (n > 0 && command[n - 1] == ' ') n--;
  command[n] = '\0';
  e->left[e->left_named++].pid = pid;
}

/* False when the kernel does not list a process's children. */
ON_OTHER_STACK static bool kill_children(struct world_ended *e) {
  char bytes[READ_BYTES];
  pid_t pid = 0;
  long fd = raw_open("/proc/thread-self/children");
  if (fd < 0) return false;
  for (long n; (n = raw_read(fd, bytes, sizeof bytes)) > 0;)
    for (long i = 0; i < n; i++) {
      if (bytes[i] >= '0' && bytes[i] <= '9') {
        pid = (pid_t)(pid * 10 + (bytes[i] - '0'));
      } else if (pid > 0) {
        name_left(e, pid);
        (void)raw(SYS_kill, pid, SIGKILL, 0, 0);
        pid = 0;
      }
    }
  (void)raw(SYS_close, fd, 0, 0, 0);
  return true;
}

ON_OTHER_STACK static void sweep(struct world_ended *e) {
  for (int status = 0;;) {
    long pid = raw_wait(-1, &status, WNOHANG | __WALL, NULL);
    if (pid == 0) {
      if (!kill_children(e)) (void)raw(SYS_kill, 0, SIGKILL, 0, 0); /* The group, and us with it. */
      pid = raw_wait(-1, &status, __WALL, NULL);
    }
    if (pid < 0) return; /* None is left. */
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) e->left_count++; /* Else it had ended by itself. */
  }
}

ON_OTHER_STACK static uint64_t ms_of(struct timeval t) { return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_usec / 1000; }

ON_OTHER_STACK static int keeper_main(void *data) {
  struct keeper *k = data;
  pid_t pid = start_program(k);
  if (pid < 0) k->failure = pid;
  k->program = pid;
  (void)prctl(PR_SET_NAME, "shoal-keeper");
  (void)close_range(0, ~0u, 0); /* Before our parent goes on: close_others says why. */
  atomic_store(&k->starting, 0);
  (void)raw(SYS_futex, (long)(intptr_t)&k->starting, FUTEX_WAKE, 1, 0);
  int status;
  struct rusage usage;
  if (pid > 0 && raw_wait(pid, &status, 0, &usage) == pid) {
    k->status = status;
    k->ended.cpu_ms = ms_of(usage.ru_utime) + ms_of(usage.ru_stime);
    atomic_store(&k->done, true);
    sweep(&k->ended);
  }
  (void)raw(SYS_exit_group, 0, 0, 0, 0);
  return 0; /* Not reached. */
}

static struct keeper *keeper_new(const struct launch *l) {
  size_t words = 0;
  while (l->argv[words]) words++;
  /* Not from malloc: a world that closes leaves it to a keeper that still runs. */
  struct keeper *k = mmap(NULL, KEEPER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (k == MAP_FAILED) return NULL;
  k->launch = l;
  k->stack_bytes = (EXEC_BYTES + words * sizeof *l->argv + 63) & ~(size_t)63; /* execvp copies argv there for a script without a "#!". */
  k->stack = malloc(k->stack_bytes);
  k->starting = k->here = 1;
  if (k->stack) return k;
  keeper_free(k);
  return NULL;
}

void keeper_free(struct keeper *k) { (void)munmap(k, KEEPER_BYTES); }

bool keeper_status(const struct keeper *k, int *status) {
  *status = k->status;
  return k->done;
}

pid_t keeper_program(const struct keeper *k) { return k->done ? 0 : k->program; }
const struct world_ended *keeper_ended(const struct keeper *k) { return &k->ended; }

static void bury(pid_t pid) {
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
}

static pid_t keep_program(const struct launch *l, struct keeper **out) {
  struct keeper *k = keeper_new(l);
  if (!k) return -ENOMEM;
  pid_t pid = clone(keeper_main, (char *)k + KEEPER_BYTES, CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, k, NULL, NULL, &k->starting);
  int rc = pid < 0 ? -errno : 0;
  /* It returns early when the word has changed, or for no reason: the loop looks again. A program that stops its group, or its parent,
   * may do so before the keeper has done its part: it has to go on, or we would wait for ever. */
  const struct timespec patience = {.tv_nsec = STARTING_MS * 1000000L};
  while (pid > 0 && atomic_load(&k->starting))
    if (syscall(SYS_futex, &k->starting, FUTEX_WAIT, 1, &patience, NULL, 0) < 0 && errno == ETIMEDOUT)
      (void)kill(pid, SIGCONT); /* It cannot be gone: nobody has waited for it. */
  bool here = atomic_load(&k->here);
  if (pid > 0) rc = k->failure;
  if (rc == 0 && !here) {
    free(k->stack);
    *out = k;
    return pid;
  }
  if (pid > 0) {
    if (rc == 0) (void)kill(-pid, SIGKILL); /* A stranger killed the keeper before its program ran. */
    (void)announce(l, pid, false);
    bury(pid);
  }
  if (rc == 0) return -EAGAIN; /* The program may be about to die on its stack: that stays, and so does the keeper's. */
  free(k->stack);
  keeper_free(k);
  return rc;
}

/* ---- in the parent ---- */

/* A function of its own: a call that returns twice must not find its variables changed. */
__attribute__((noinline)) static pid_t split(const struct launch *l, volatile int *failure) {
  pid_t pid = vfork();
  if (pid == 0) {
    *failure = become(l);
    _exit(127);
  }
  return pid < 0 ? -errno : pid;
}

int launch(const struct launch *l, struct keeper **keeper) {
  volatile int failure = 0;
  sigset_t all, before;
  char **ours = environ;
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* No handler of ours may run in the child. */
  environ = l->env; /* execvp looks for PATH there. */
  pid_t pid = keeper ? keep_program(l, keeper) : split(l, &failure);
  environ = ours;
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (pid < 0 || failure == 0) return pid;
  bury(pid);
  return failure;
}
