/* The simulated world: N nodes in one process, one virtual clock, one seeded network. A run is its seed.
 *
 * The driver makes a `sim`, adds a node for each simulated machine, gives the node's world to the code under test, and
 * steps. Each event of the simulation is one callback into one node. Events of one instant run in the order they were
 * made; setting a timer again to the instant it already has keeps its place. Nothing here reads a real clock or real randomness, or
 * depends on the order of addresses.
 *
 * Network: every directed pair of nodes has the same default link (latency floor + exponential jitter, loss), which can
 * be overridden per directed pair. A lost datagram is gone. A lost segment of a stream is sent again: loss delays it by a
 * retransmission timeout (200 ms, doubling). A cut drops all datagrams and delays stream bytes; a stream cut for
 * longer than 15 s resets at both ends (-ECONNRESET); a connect to a dead or cut node fails with -ETIMEDOUT after 5 s, to a
 * live node without listener with -ECONNREFUSED after a round trip. A crash ends the node's sockets without FIN or RST: a peer that
 * holds a stream to it and writes reads -ECONNRESET, when the restarted machine answers or after 15 s without an answer. A peer that
 * writes nothing learns nothing.
 * `struct sim_link` lists what else a link can do to datagrams. An option that is off draws no random number, so it changes no
 * run. Of these options only the rate affects streams: TCP has checksums, segments and an order. A clogged link accepts traffic and
 * delivers none: datagrams wait at its far end, up to the link's queue_bytes, and the rest is dropped; segments wait as
 * their window allows, and a stream whose segments waited 15 s resets. Unclogging delivers everything at once, in order.
 * Names: world_resolve knows node names, "localhost" and numeric addresses. An address of no node that is a loopback or a
 * wildcard means the node itself; nodes may have loopback addresses. */
#ifndef SHOAL_WORLD_SIM_H
#define SHOAL_WORLD_SIM_H

#include "world/world.h"

struct sim;
struct sim_node;

struct sim_link {
  uint64_t latency_ns; /* Floor, one way. */
  uint64_t jitter_ns;  /* Mean of the exponential added to it. */
  double loss;         /* 0..1 */
  /* All of what follows is off when zero. Shares are 0..1. */
  double corrupt;       /* This share of datagrams arrives with 1 to 3 bits flipped (as if UDP's checksum had missed it). */
  double duplicate;     /* This share arrives twice; delay, bit flips and reordering are drawn again for the copy. */
  double reorder;       /* This share is delayed by up to reorder_ns more, so that later ones overtake it. */
  uint64_t reorder_ns;  /* 0: 10 ms. */
  uint64_t bytes_per_s; /* The rate of the wire, for streams and datagrams in one queue. */
  /* A datagram that would make the queue longer than this is dropped; an empty queue takes any. Segments wait however
   * long. Also the bound of a clog. 0: 64 KiB. */
  uint32_t queue_bytes;
  uint32_t size_max; /* Larger datagrams are dropped. */
};
struct sim_config {
  uint64_t seed;
  struct sim_link link; /* The default link. Between a node and itself: 20 us, no loss, unless overridden. */
};

/* Counts of datagrams by their fate, over all links, so that a spec can check that a fault took effect. */
struct sim_counts {
  uint64_t sent, delivered;       /* By a socket; to a socket. */
  uint64_t lost, cut;             /* By the link's loss; by a cut, when sent or under way. */
  uint64_t too_large, overflowed; /* Over size_max; no room in the queue of the rate. */
  uint64_t corrupted, duplicated, reordered;
  uint64_t throttled;             /* Datagrams and segments that waited for the rate. */
  uint64_t clogged, clog_dropped; /* Held at a clog; no room there. (Segments are not counted.) */
  uint64_t slowed, slow_dropped;  /* Held for a slow consumer; no room there. */
};

int sim_open(const struct sim_config *config, struct sim **out);
void sim_close(struct sim *s); /* All nodes' worlds go with it; their owners must have closed or abandoned what they opened. */

uint64_t sim_now_ns(const struct sim *s); /* True time since the start; no node sees it. */
const struct sim_counts *sim_counted(const struct sim *s);
/* Run the next event; false when there is none. */
bool sim_step(struct sim *s);
uint64_t sim_events(const struct sim *s); /* How many events have run. */
/* When the next event is due; UINT64_MAX when there is none. */
uint64_t sim_next_ns(struct sim *s);
/* Run events up to and including at_ns, then set the clock to it. */
void sim_run_until(struct sim *s, uint64_t at_ns);

/* Call on_event before each event runs, in order: the byte-identical log is made of these. `text` is one line
 * without newline, such as "deliver a>b udp 44". */
void sim_trace(struct sim *s, void (*on_event)(void *data, uint64_t now_ns, const char *text), void *data);

/* A machine named `name` with this address (port 0) and a disk that outlives its crashes. `epoch_ns` and
 * `wall_offset_ns` are drawn from the seed. */
int sim_node_add(struct sim *s, const char *name, const struct shoal_address *address, struct sim_node **out);
/* The node's world while it is up; a restart makes a new one. */
struct shoal_world *sim_node_world(struct sim_node *n);
/* The machine stops at once: traffic to and from it is dropped, its world's things are freed without on_closed, the
 * world is invalid. Unsynced log bytes are kept. The owner of the code under test frees its own memory. */
void sim_node_crash(struct sim_node *n);
/* Up again with an empty process and its old disk. */
struct shoal_world *sim_node_restart(struct sim_node *n);
/* Hold the timers and input of all its processes until it is resumed; then deliver them, late, timers first. */
void sim_node_pause(struct sim_node *n, bool paused);

/* Its first process does not run for this long, as under SIGSTOP and SIGCONT or in a call that blocks; then everything that came due
 * meanwhile is delivered at once, timers first. Its children and its kernel go on. Of two stalls at once the longer one counts. */
void sim_node_stall(struct sim_node *n, uint64_t for_ns);

/* The faults of a machine's disk, from now on and over restarts; all zero: none. */
struct sim_disk_faults {
  bool full;        /* Operations that need space fail with -ENOSPC: appends, puts, new files and directories. */
  int fail;         /* A code below 0: every use fails with it. */
  int fail_sync;    /* Only syncs, and so puts, fail with it; reads and appends reach the page cache. */
  uint64_t sync_ns; /* Every sync takes this long (0: 0.2 to 2 ms), and world_put_durable stalls its process for it. */
};
void sim_node_disk(struct sim_node *n, const struct sim_disk_faults *faults);

/* Its monotonic clock runs fast (or slow, below 0) by so many millionths, from now on and over restarts; the wall clock, which a
 * time service keeps, does not. Timers follow. 0, or -EINVAL beyond SIM_DRIFT_PPM_MAX. */
enum { SIM_DRIFT_PPM_MAX = 200 };
int sim_node_drift(struct sim_node *n, int32_t ppm);
/* Its wall clock jumps, forwards or back, and stays off over restarts. */
void sim_node_step_wall(struct sim_node *n, int64_t by_ns);
/* A slow consumer: it takes at most this many datagrams a second from its input queue; a datagram that arrives while `queue` of them
 * wait (0: 64) is dropped. 0 a second: no limit, and those that waited are delivered now. It holds over restarts; a crash empties the
 * queue. */
void sim_node_slow(struct sim_node *n, uint32_t datagrams_per_s, uint32_t queue);
/* Give a machine that is down another address. If another machine that is down has it, the two swap. Datagrams under way go to
 * the machine that has their address when they arrive. Ends of streams that the dead machine left go with the address, and the next
 * machine that has it answers them with a reset. Links and cuts stay with the machine. 0; -EBUSY: the machine is up; ERR_EXISTS: a
 * machine that is up has this address; ERR_MALFORMED: it is no address. */
int sim_node_readdress(struct sim_node *n, const struct shoal_address *address);

/* Cut or mend what flows from a to b; both ways is two calls. NULL: any node. */
void sim_cut(struct sim *s, struct sim_node *from, struct sim_node *to, bool cut);
/* Clog or unclog what flows from a to b; both ways is two calls. NULL: any node. */
void sim_clog(struct sim *s, struct sim_node *from, struct sim_node *to, bool clogged);
/* Override the link from a to b (NULL: any node); link NULL restores the default. */
void sim_set_link(struct sim *s, struct sim_node *from, struct sim_node *to, const struct sim_link *link);
/* Replace the default link. */
void sim_set_default_link(struct sim *s, const struct sim_link *link);

/* Child processes. When a node spawns, the driver's hook decides what the child is. */
struct sim_process; /* One simulated child. */
/* Return 0 and later call sim_process_exit; or a code, which world_spawn returns (-ENOENT for an unknown program).
 * The hook may keep `process`, until sim_process_exit or on_kill. options is valid during the call. */
typedef int sim_spawn_fn(void *data, struct sim_node *parent, const struct world_spawn *options,
                         struct sim_process *process);
void sim_on_spawn(struct sim *s, sim_spawn_fn *on_spawn, void *data);
/* Make the child a world of its own on the parent's machine (same address and clock, streams for fd 0..2 through
 * world_stdio): for children that are shoal programs. Valid until exit. */
struct shoal_world *sim_process_world(struct sim_process *p);
/* For children that are plain functions: bytes the child prints on fd 1 or 2, now. */
void sim_process_write(struct sim_process *p, int fd, const void *bytes, size_t length);
/* Call on_kill when the child is killed; the simulator crashes a child with a world after it returns. A crash of the
 * parent's machine kills its children too. */
void sim_process_on_kill(struct sim_process *p, void (*on_kill)(void *data, int signal), void *data);
/* After `after_ns` the pipes end, and the parent's on_exit is called. */
void sim_process_exit(struct sim_process *p, uint64_t after_ns, int64_t status, int signal);

#endif
