/*
 * A virtual machine: engine, board, devices and threads put together.
 *
 *	vm_create() -> vm_start() -> vm_wait() -> vm_destroy()
 *
 * States: CREATED -> RUNNING <-> PAUSED -> ENDED. A run ends once: the first
 * reason wins. Functions marked [any thread] may be called at any time between
 * create and destroy.
 *
 * Threads: N vCPU threads ("vcpu0" ...), the loop that owns board and most
 * devices ("arcvmm-loop"), one loop for each device type that wants its own.
 */
#ifndef ARC_VM_VM_H
#define ARC_VM_VM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/strv.h"
#include "machine/board.h"

struct err;
struct vm;
struct vsock;

/* A device asked for: its type and its options as text. */
struct vm_device_config {
	char *type; /* name of the virtio device type: "blk" */
	char *options;
};

/* All strings may be NULL: not given. The struct owns them; see config.c. */
struct vm_config {
	struct log log;

	char *engine; /* "auto", "kvm", "soft" */
	uint64_t cpus, mem; /* vCPUs; bytes of RAM */
	enum board_cpu cpu_model;

	char *kernel, *modules, *cmdline, *cache;
	bool cmdline_defaults; /* add the board's own words */
	bool boot_messages; /* the kernel may print what it does */
	bool init; /* our init starts the guest */
	struct strv initrds, extra_modules;
	char *root; /* directory, tar archive or disk image */
	char *root_disk, *root_fstype, *root_flags; /* root on a disk */
	bool root_readonly, root_overlay;
	int root_owner; /* enum initramfs_owner */

	/* Options of the console device; "stdio" as the first word means the
	 * two descriptors below. NULL: "stdio". */
	char *console;
	int console_in, console_out;
	bool uart; /* COM1 goes to the console's output as well */
	bool rng;
	char *rng_options;
	bool vsock; /* the three below are for it */
	uint64_t cid;
	char *vsock_uds;
	char *gdb; /* where to listen for a debugger */
	char *trace; /* instruction trace: FILE,options */
	bool gdb_wait; /* do not start before it says so */
	bool vsock_hairpin;
	struct vm_device_config *devices;
	size_t ndevices;

	bool serve; /* run nothing but the agent */
	struct strv argv, env, mounts;
	struct strv limits; /* "RESOURCE SOFT HARD", numbers */
	char *cwd, *user, *hostname;
};

void vm_config_init(struct vm_config *c); /* the defaults */
void vm_config_free(struct vm_config *c);
/* A deep copy; 0 or -ENOMEM with @to empty. */
int vm_config_add_device(struct vm_config *c, const char *type,
			 const char *options);

enum vm_end {
	VM_END_POWER_OFF,
	VM_END_REBOOT,
	VM_END_PANIC,
	VM_END_CRASH,
	VM_END_KILLED,
	VM_END_ERROR,
};

struct vm_result {
	enum vm_end end;
	int status; /* exit status of the command, -1: none */
	char text[256];
};

/* @c must live until vm_destroy(). A failed create leaves nothing behind. */
int vm_create(struct vm **out, const struct vm_config *c, struct err *e);
/* Ends the run if need be. NULL-safe. */
void vm_destroy(struct vm *vm);

int vm_start(struct vm *vm, struct err *e);
/* [any thread] Sleeps until the run has ended and its output is out. */
int vm_wait(struct vm *vm, struct vm_result *res);
int vm_fd(const struct vm *vm); /* readable once ended */
int vm_agent_fd(const struct vm *vm); /* readable once the agent is up */
/*
 * [any thread] Sleep until the agent is up: 0, -ETIMEDOUT (@timeout_ms, -1:
 * none), -ENODEV when the run has ended; the sentence has the guest's reason if
 * it gave one.
 */
int vm_wait_agent(struct vm *vm, int timeout_ms, struct err *e);

/* [any thread] Asks init, presses the power button. -ESRCH: not running. */
int vm_shutdown(struct vm *vm);
/* [any thread] */
void vm_kill(struct vm *vm);

/*
 * [any thread] 0, or -ESRCH when it does not run. Where the guest's agent is
 * up, a resume has it set the guest's clock to ours, in the background.
 */
int vm_pause(struct vm *vm);
int vm_resume(struct vm *vm);

const char *vm_engine(const struct vm *vm);
const char *vm_engine_reason(const struct vm *vm);
const char *vm_cmdline(const struct vm *vm);

/* [any thread] */
void vm_console_resize(struct vm *vm, unsigned cols, unsigned rows);
const char *vm_console_pty(const struct vm *vm);

/* The core of the vsock device, NULL when there is none. */
struct vsock *vm_vsock(const struct vm *vm);

/* [any thread] A milestone; -ENOENT past the last. */
int vm_milestone(struct vm *vm, unsigned i, const char **name, uint64_t *ns);

/* [any thread] Counters as JSON text, malloc'd; NULL: out of memory. */
char *vm_stats(struct vm *vm);

#endif
