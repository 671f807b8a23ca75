/* The inside of the GDB server, shared by its files. */
#ifndef ARC_GDB_SERVER_H
#define ARC_GDB_SERVER_H

#include <pthread.h>

#include "gdb/gdb.h"
#include "gdb/rsp.h"
#include "loop/loop.h"
#include "mem/gmem.h"

#define GDB_MAX_CPUS	256
#define GDB_BREAKPOINTS 512
#define GDB_HW_SLOTS	4

struct gdb_soft_break {
	uint64_t va, pa;
	uint8_t saved; /* what INT3 replaced */
};

struct gdb_hw_break {
	bool used;
	uint8_t type; /* of DR7: 0 execute, 1 write, 3 access */
	uint8_t len; /* 1, 2, 4, 8 */
	uint64_t va;
};

struct gdb {
	struct loop *loop;
	const struct log *log;
	const struct gdb_target_ops *ops;
	void *target;
	unsigned ncpus;

	int listen_fd, fd; /* fd: the one client, or -1 */
	char *unlink_path;
	unsigned port;
	struct loop_watch listen_watch, watch;
	bool want_out;
	struct rsp rsp;
	char *scratch; /* 2 * RSP_PACKET_MAX */

	bool stopped;
	bool over; /* the run has ended */
	unsigned cpu_g, cpu_c; /* selected by Hg, Hc */
	bool stepping[GDB_MAX_CPUS];
	struct hv_x86_vcpu_state *state; /* scratch for registers */

	struct gdb_soft_break soft[GDB_BREAKPOINTS];
	unsigned nsoft;
	struct gdb_hw_break hw[GDB_HW_SLOTS];

	/* From vCPU threads, under @lock. */
	pthread_mutex_t lock;
	struct loop_post post;
	bool pending; /* exits[] has some */
	bool has_exit[GDB_MAX_CPUS];
	struct hv_exit exits[GDB_MAX_CPUS];
	bool run_over;
	int run_status;
};

/* regs.c: the registers in the order of target.xml. */
extern const char gdb_target_xml[];
size_t gdb_regs_size(void);
unsigned gdb_reg_count(void);
void gdb_regs_read(const struct hv_x86_vcpu_state *s, uint8_t *to);
void gdb_regs_write(struct hv_x86_vcpu_state *s, const uint8_t *from);
/* One register; its size, 0 when there is none. */
size_t gdb_reg_read(const struct hv_x86_vcpu_state *s, unsigned n, uint8_t *to);
size_t gdb_reg_write(struct hv_x86_vcpu_state *s, unsigned n,
		     const uint8_t *from);

/* mem.c */
bool gdb_mem_read(struct gdb *g, uint64_t va, void *to, size_t len);
bool gdb_mem_write(struct gdb *g, uint64_t va, const void *from, size_t len);

/* break.c: 0, -errno. Type as in the Z packets. */
int gdb_break_insert(struct gdb *g, unsigned type, uint64_t va, unsigned len);
int gdb_break_remove(struct gdb *g, unsigned type, uint64_t va, unsigned len);
void gdb_break_remove_all(struct gdb *g);
bool gdb_break_soft_at(const struct gdb *g, uint64_t va);
/* Put INT3s out of, or back into, a copy of memory. */
void gdb_break_hide(const struct gdb *g, uint64_t va, uint8_t *b, size_t len);
void gdb_break_keep(struct gdb *g, uint64_t va, uint8_t *b, size_t len);
/* Debug settings of all vCPUs for the next run. */
int gdb_break_apply(struct gdb *g);

/* command.c */
void gdb_command(struct gdb *g, char *p, size_t len);
/* The machine has stopped: say why. */
void gdb_report_stop(struct gdb *g);
void gdb_interrupt(struct gdb *g);

/* server.c */
int gdb_stop(struct gdb *g);
int gdb_resume(struct gdb *g, const bool *run);
void gdb_drop_client(struct gdb *g);

#endif
