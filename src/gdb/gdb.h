/*
 * A GDB server for a virtual machine.
 *
 *	gdb_create() -> clients come and go -> gdb_destroy()
 *
 * Each vCPU is a thread (vCPU n is thread n + 1). A client that connects finds
 * the machine stopped; when it detaches or goes away, breakpoints are taken out
 * and the machine runs on. Memory is read and written through the page tables
 * of the thread that was selected. Software breakpoints are INT3 in guest
 * memory, hidden from reads; up to four hardware breakpoints and watchpoints
 * use the debug registers, the guest's own being set aside meanwhile.
 *
 * The server has a loop of its own, because stopping a machine waits for vCPUs
 * that may themselves wait for a device's loop.
 */
#ifndef ARC_GDB_GDB_H
#define ARC_GDB_GDB_H

#include <stdbool.h>

#include "hv/hv.h"

struct err;
struct log;
struct gdb;

/*
 * The machine being debugged. All are called on the server's own thread.
 */
struct gdb_target_ops {
	unsigned (*cpus)(void *t);
	/* vCPU @i; used while the machine is stopped only. */
	struct hv_vcpu *(*cpu)(void *t, unsigned i);
	struct gmem *(*mem)(void *t);
	/* Stop all vCPUs and wait until they rest. -ESRCH: the run is over. */
	int (*stop)(void *t);
	/* Let vCPU i run for each run[i]; the others rest. Does not wait. */
	int (*resume)(void *t, const bool *run);
	/* End the run. Does not wait. */
	void (*kill)(void *t);
};

/*
 * Listen at @where: "tcp:PORT" (on the loopback address), "tcp:HOST:PORT" (host
 * as digits), "unix:PATH". 0 or -errno with a sentence.
 */
int gdb_create(struct gdb **out, const char *where,
	       const struct gdb_target_ops *ops, void *target,
	       const struct log *log, struct err *e);
/* Not from the server's thread. NULL-safe. */
void gdb_destroy(struct gdb *g);

/* The port listened at ("tcp:0" takes a free one); 0 for a Unix socket. */
unsigned gdb_port(const struct gdb *g);

/*
 * vCPU @cpu's run returned HV_EXIT_DEBUG: it must rest from now on, and the
 * server will stop the others. [any thread]
 */
void gdb_debug_exit(struct gdb *g, unsigned cpu, const struct hv_exit *exit);
/* The run is over, with @status for a client that waits. [any thread] */
void gdb_run_ended(struct gdb *g, int status);

#endif
