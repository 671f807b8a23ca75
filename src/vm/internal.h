/*
 * The inside of a VM, shared by the files of src/vm.
 *
 *	vm.c       create, destroy, wiring, the end of a run
 *	cpus.c     vCPU threads, pause and resume
 *	devices.c  virtio devices: made from the configuration, attached, torn
 *		   down
 *	debug.c    the VM as a debugger's target
 *	trace.c    instruction trace
 *	status.c   what the guest's init reports
 *	guest_clock.c  the guest's clock after a pause
 */
#ifndef ARC_VM_INTERNAL_H
#define ARC_VM_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/err.h"
#include "base/thread.h"
#include "base/util.h"
#include "hv/hv.h"
#include "loop/loop.h"
#include "machine/board.h"
#include "virtio/mmio.h"
#include "virtio/virtio.h"
#include "vm/timeline.h"
#include "vm/vm.h"

struct gdb;
struct trace;
struct stream;

#define VM_DEVICES_MAX 64

enum vm_state { VM_CREATED, VM_RUNNING, VM_ENDED };

struct vm_cpu {
	struct vm *vm;
	struct hv_vcpu *hv;
	struct thread thread;
	bool parked; /* under vm->lock: waits in the gate */
	bool held; /* under vm->lock: the debugger keeps it there */
};

struct vm_device {
	const struct virtio_dev_type *type;
	struct virtio_dev *dev;
	struct virtio_mmio *mmio;
	struct loop *own_loop; /* NULL: the VM's */
	struct board_slot slot;
};

/* The line to the guest's init (status.c), under the loop's lock. */
struct vm_status_port {
	struct stream *stream; /* the console device's */
	char line[256]; /* what has come of the current line */
	size_t len;
	char out[64]; /* orders not yet taken */
	size_t out_len;
	/* Milestones reported, and when the guest's clock was 0 by ours. */
	struct {
		struct timeline_entry *entry;
		uint64_t guest_ns;
	} marks[8];
	unsigned nmarks;
	uint64_t guest_start;
};

/* Telling the guest the time (guest_clock.c), under vm->lock. */
struct vm_guest_clock {
	struct loop_work work;
	bool queued; /* the work is the loop's */
	bool working; /* its part on the pool is not over */
	bool again; /* there was another resume */
	int fd; /* of the conversation, or -1 */
};

struct vm {
	const struct vm_config *config;
	struct log log;
	struct timeline timeline;

	const struct hv_ops *ops;
	char engine_reason[256];

	struct gmem *mem;
	struct bus *bus;
	struct loop *loop;
	struct board *board;
	struct hv_vm *hv;

	struct gdb *gdb; /* NULL: no debugger can come */
	struct trace *trace; /* NULL: none */
	struct vm_cpu *cpus;
	unsigned ncpus;
	struct vm_device devices[VM_DEVICES_MAX];
	unsigned ndevices;
	struct virtio_dev *console, *vsock; /* among them, or NULL */
	struct vm_status_port status_port;
	char root_serial[24]; /* of the disk that is the root, or "" */

	/* The state, under @lock; @changed tells every change of it. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum vm_state state;
	bool paused;
	bool ending; /* vCPUs leave the gate for good */
	struct vm_result result; /* valid once ending */
	int status; /* reported by the guest, -1 before */
	bool reaped; /* vCPU threads joined, output flushed */
	bool reaping; /* someone is at it */
	bool agent_up; /* it takes connections */
	char guest_error[200]; /* why our init gave up, or "" */
	struct vm_guest_clock guest_clock;
	int end_fd, agent_fd; /* eventfds, readable once it is so */
};

/* The first call decides how the run ends. Never blocks. [any thread] */
void vm_end(struct vm *vm, enum vm_end end, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* cpus.c */
int cpus_create(struct vm *vm, struct err *e);
int cpus_start(struct vm *vm, struct err *e);
void cpus_kick(struct vm *vm);
/* All are at the gate. vm->lock held. */
bool cpus_parked(const struct vm *vm);
void cpus_join(struct vm *vm);
void cpus_destroy(struct vm *vm);

/* devices.c */
int devices_create(struct vm *vm, struct err *e);
int devices_attach(struct vm *vm, struct err *e); /* to the engine */
int devices_start(struct vm *vm, struct err *e); /* loops of their own */
/* No vCPU runs: deliver what the guest sent, then come to rest. */
void devices_drain(struct vm *vm);
void devices_destroy(struct vm *vm);
/* What the guest writes to COM1 goes where the console's output goes. */
void devices_uart_tx(void *ctx, const uint8_t *buf, size_t len);

/* report.c: after devices_drain() */
void vm_report_silent_end(struct vm *vm);

/* debug.c */
int debug_open(struct vm *vm, struct err *e); /* after cpus_create() */
void debug_close(struct vm *vm); /* before cpus_destroy() */
/* The vCPU's run ended with HV_EXIT_DEBUG. */
void debug_exit(struct vm_cpu *cpu, const struct hv_exit *exit);
void debug_ended(struct vm *vm);

/* trace.c */
int trace_open(struct vm *vm, struct err *e); /* after cpus_create() */
void trace_close(struct vm *vm); /* no vCPU runs */
/* The vCPU's run ended with HV_EXIT_DEBUG. On its thread. */
void trace_step(struct vm_cpu *cpu);

/* guest_clock.c: set it right in the background; vm->lock held. */
void guest_clock_sync(struct vm *vm);
/* The run has ended: wait for what goes on, before its loops and devices go. */
void guest_clock_stop(struct vm *vm);

/* status.c */
int status_open(struct vm *vm, struct err *e);
/* Ask the guest's init to end. With the loop's lock. */
void status_stop(struct vm *vm);

#endif
