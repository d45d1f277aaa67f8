/* jobs_bench: the parts of the program that spec/bench/jobs.lua runs. Each takes the words after its own name. */
#ifndef SHOAL_JOBS_BENCH_H
#define SHOAL_JOBS_BENCH_H

#include <stddef.h>
#include <stdint.h>

void bench_fail(const char *what); /* Prints it with errno's text, and exits with 2. */
uint64_t bench_now_ns(void);
int bench_connect(int port); /* A blocking connection to loopback, without Nagle's wait; exits when there is none. */

/* Run the command of a job as the workers of the peers do: stdout and stderr in pipes, read to their end. Its status. */
int bench_child(char *const *argv);

int beanstalk_work(int port, int slots, char *const *argv);
int beanstalk_drive(int port);
int half_messages(int port, int count, int lanes, int frames);

#endif
