/* shoal-command: the parent of one command: shoal-command PROGRAM ARGUMENT... Static and tiny, for one is started for each command.
 *
 * A command may signal its parent (`kill $PPID`), and that must not be the worker. It waits for the command and then ends as the command
 * did: with the same status, or by the same signal. It stands in the command's group and ignores the signals that end the group politely;
 * the worker kills what is left of the group when this process has ended. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_STARTED = 127 };

static const int polite[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

static void set_polite(void (*handler)(int)) {
  for (size_t i = 0; i < sizeof polite / sizeof *polite; i++) (void)signal(polite[i], handler); /* None of them is refused. */
}

int main(int argc, char **argv) {
  volatile int failure = 0;
  int status;
  if (argc < 2) return NOT_STARTED;
  set_polite(SIG_IGN);
  pid_t pid = vfork();
  if (pid == 0) {
    set_polite(SIG_DFL);
    (void)execvp(argv[1], argv + 1); /* It returns only when it fails. */
    failure = errno;
    _exit(NOT_STARTED);
  }
  if (pid < 0) failure = errno;
  if (failure) {
    (void)fprintf(stderr, "cannot start %s: %s\n", argv[1], strerror(failure));
    return NOT_STARTED;
  }
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return NOT_STARTED;
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  const struct rlimit none = {0, 0};
  (void)setrlimit(RLIMIT_CORE, &none); /* The command's own dump, if any, is the one of interest. */
  (void)signal(WTERMSIG(status), SIG_DFL);
  (void)kill(getpid(), WTERMSIG(status)); /* Ends it, unless the signal has no such effect here. */
  return 128 + WTERMSIG(status);
}
