/*
 * A VM from configuration to ruin.
 *
 * vm_create() does everything that can fail, what the user may have got wrong
 * first: memory and board, devices (their addresses are needed for ACPI), kernel
 * and initramfs into guest memory; then the engine, its VM over the finished
 * memory, interrupt chip, doorbells, vCPUs. Each step has its undoing in vm_destroy(),
 * which takes a VM in any stage, so there is one error path.
 *
 * The end of a run: vm_end() records the first reason and kicks the vCPUs; it
 * may be called from a vCPU, from the loop, from any thread, and never blocks.
 * Then whoever waits first (or destroys) *reaps*: joins the vCPU threads and
 * lets the devices deliver what the guest had already sent. So when vm_wait()
 * returns, the last byte of output is out.
 */
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/proto.h"
#include "base/clock.h"
#include "machine/initramfs.h"
#include "machine/kernel.h"
#include "vm/internal.h"

/* ---- the end of a run ---- */

void vm_end(struct vm *vm, enum vm_end end, const char *fmt, ...)
{
	uint64_t one = 1;
	bool first;
	va_list ap;

	pthread_mutex_lock(&vm->lock);
	first = !vm->ending;
	if (first) {
		vm->ending = true;
		vm->result.end = end;
		va_start(ap, fmt);
		vsnprintf(vm->result.text, sizeof(vm->result.text), fmt, ap);
		va_end(ap);
		pthread_cond_broadcast(&vm->changed);
	}
	pthread_mutex_unlock(&vm->lock);
	if (!first)
		return;
	timeline_mark(&vm->timeline, "end");
	cpus_kick(vm);
	if (write(vm->end_fd, &one, sizeof(one)) < 0)
		log_warn(&vm->log, "end of run: eventfd: %s", strerror(errno));
	debug_ended(vm);
}

/* Wait for the end, then join and drain; once, by whoever comes first. */
static void reap(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	while (!vm->ending || (vm->reaping && !vm->reaped))
		pthread_cond_wait(&vm->changed, &vm->lock);
	if (!vm->reaped) {
		vm->reaping = true;
		pthread_mutex_unlock(&vm->lock);
		cpus_join(vm);
		devices_drain(vm);
		vm_report_silent_end(vm);
		pthread_mutex_lock(&vm->lock);
		vm->reaped = true;
		vm->state = VM_ENDED;
		vm->result.status = vm->status;
		pthread_cond_broadcast(&vm->changed);
	}
	pthread_mutex_unlock(&vm->lock);
}

int vm_wait(struct vm *vm, struct vm_result *res)
{
	bool started;

	pthread_mutex_lock(&vm->lock);
	started = vm->state != VM_CREATED;
	pthread_mutex_unlock(&vm->lock);
	if (!started)
		return -ESRCH;
	reap(vm);
	*res = vm->result;
	return 0;
}

int vm_fd(const struct vm *vm)
{
	return vm->end_fd;
}

int vm_agent_fd(const struct vm *vm)
{
	return vm->agent_fd;
}

int vm_wait_agent(struct vm *vm, int timeout_ms, struct err *e)
{
	struct timespec until;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += timeout_ms % 1000 * 1000000;
	if (until.tv_nsec >= (long)NSEC_PER_SEC) {
		until.tv_sec++;
		until.tv_nsec -= (long)NSEC_PER_SEC;
	}
	pthread_mutex_lock(&vm->lock);
	while (!vm->agent_up && !vm->ending && !rc)
		rc = timeout_ms < 0 ? pthread_cond_wait(&vm->changed, &vm->lock)
				    : pthread_cond_timedwait(&vm->changed,
							     &vm->lock, &until);
	if (vm->ending && *vm->guest_error)
		rc = err_set(e, -ENODEV, "in the guest: %s", vm->guest_error);
	else if (vm->ending)
		rc = err_set(e, -ENODEV,
			     "the run ended before the guest's agent was up");
	else if (!vm->agent_up)
		rc = err_set(e, -ETIMEDOUT,
			     "the guest's agent did not come up in time");
	else
		rc = 0;
	pthread_mutex_unlock(&vm->lock);
	return rc;
}

/* ---- what the board tells ---- */

static void board_event(void *ctx, enum board_event event)
{
	struct vm *vm = ctx;

	switch (event) {
	case BOARD_POWER_OFF:
		vm_end(vm, VM_END_POWER_OFF, "%s", "");
		break;
	case BOARD_RESET:
		vm_end(vm, VM_END_REBOOT, "%s", "");
		break;
	case BOARD_PANIC:
		vm_end(vm, VM_END_PANIC, "the guest kernel panicked");
		break;
	}
}

/* ---- create ---- */

static int choose_engine(struct vm *vm, struct err *e)
{
	const char *name = vm->config->engine;
	struct hv_info info;
	int rc;

	if (!name || !strcmp(name, "auto")) {
		vm->ops =
			hv_choose(vm->engine_reason, sizeof(vm->engine_reason));
	} else {
		vm->ops = hv_by_name(name);
		snprintf(vm->engine_reason, sizeof(vm->engine_reason),
			 "engine %s: asked for", name);
	}
	if (!vm->ops)
		return err_set(e, -EINVAL,
			       "unknown engine '%s': use auto, kvm or soft",
			       name);
	rc = hv_probe(vm->ops, &info, e);
	if (rc)
		return rc;
	if (vm->config->cpus > info.max_cpus)
		return err_set(e, -ERANGE,
			       "%llu CPUs are more than engine %s can give "
			       "here (%u)",
			       (unsigned long long)vm->config->cpus,
			       vm->ops->name, info.max_cpus);
	log_info(&vm->log, "%s", vm->engine_reason);
	return 0;
}

static int create_machine(struct vm *vm, struct err *e)
{
	struct board_config bc = {
		.ncpus = (unsigned)vm->config->cpus,
		.mem_size = vm->config->mem,
		.no_uart = !vm->config->uart,
		.log = &vm->log,
		.event = board_event,
		.uart_tx = devices_uart_tx,
		.ctx = vm,
	};
	int rc = gmem_create(&vm->mem);

	if (!rc)
		rc = bus_create(&vm->bus);
	if (!rc)
		rc = loop_create(&vm->loop, &vm->log);
	if (rc)
		return err_set(e, rc, "creating the machine: %s",
			       strerror(-rc));
	bc.mem = vm->mem;
	bc.bus = vm->bus;
	bc.loop = vm->loop;
	return board_create(&vm->board, &bc, e);
}

static unsigned wanted_modules(const struct vm *vm)
{
	static const struct {
		const char *type;
		unsigned want;
	} table[] = {
		{ "blk", INITRAMFS_WANT_BLK },
		{ "console", INITRAMFS_WANT_CONSOLE },
		{ "rng", INITRAMFS_WANT_RNG },
		{ "vsock", INITRAMFS_WANT_VSOCK },
		{ "net", INITRAMFS_WANT_NET },
		{ "fs", INITRAMFS_WANT_FS },
	};
	unsigned want = INITRAMFS_WANT_PVPANIC;

	for (unsigned i = 0; i < vm->ndevices; i++)
		for (unsigned j = 0; j < array_size(table); j++)
			if (!strcmp(vm->devices[i].type->name, table[j].type))
				want |= table[j].want;
	return want;
}

static int compose_initramfs(struct vm *vm, const struct kernel *k,
			     struct initramfs **out, struct err *e)
{
	const struct vm_config *c = vm->config;
	char root_disk[64];
	struct initramfs_config ic = {
		.log = &vm->log,
		.kernel = c->kernel,
		.release = *kernel_release(k) ? kernel_release(k) : NULL,
		.modules = c->modules,
		.cache_dir = c->cache,
		.max_size = gmem_ram_size(vm->mem),
		.want = wanted_modules(vm),
		.extra_modules = strv_get(&c->extra_modules),
		.root = *vm->root_serial ? NULL : c->root,
		.owner = (enum initramfs_owner)c->root_owner,
		.initrds = strv_get(&c->initrds),
		.root_image = *vm->root_serial ? c->root : NULL,
		.root_disk = c->root_disk,
		.root_fstype = c->root_fstype,
		.root_flags = c->root_flags,
		.root_readonly = c->root_readonly,
		.root_overlay = c->root_overlay,
		.argv = strv_get(&c->argv),
		.env = strv_get(&c->env),
		.cwd = c->cwd,
		.user = c->user,
		.limits = strv_get(&c->limits),
		.hostname = c->hostname,
		.console = vm->console ? "hvc0"
			   : c->uart   ? "ttyS0"
				       : NULL,
		.mounts = strv_get(&c->mounts),
		.serve = c->serve,
		.agent_port = vm->vsock ? AGENT_PORT : 0,
		.status_port = vm->console != NULL,
	};

	if (*vm->root_serial && !ic.root_disk) {
		snprintf(root_disk, sizeof(root_disk), "serial=%s",
			 vm->root_serial);
		ic.root_disk = root_disk;
	}
	return initramfs_build(&ic, out, e);
}

static int fill_initramfs(const void *ctx, void *dst, struct err *e)
{
	return initramfs_load(ctx, dst, e);
}

/* What must be off when there is no init of ours to do it. */
static int check_no_init(const struct vm *vm, struct err *e)
{
	const struct vm_config *c = vm->config;
	const struct {
		bool given;
		const char *name;
	} needs[] = {
		{ c->argv.n, "a command" },
		{ c->serve, "--serve" },
		{ c->root && !*vm->root_serial, "--root with files" },
		{ c->root_disk, "--root-disk" },
		{ c->env.n, "--env" },
		{ c->cwd, "--workdir" },
		{ c->user, "--user" },
		{ c->limits.n, "--limit" },
		{ c->hostname, "--hostname" },
		{ c->mounts.n, "--mount" },
		{ c->extra_modules.n, "--module" },
	};

	for (unsigned i = 0; i < array_size(needs); i++)
		if (needs[i].given)
			return err_set(e, -EINVAL,
				       "%s needs our init: leave out --no-init",
				       needs[i].name);
	return 0;
}

/* The user's initrd files as they are. */
static int open_initrds(const struct vm *vm, struct board_part *parts,
			struct err *e)
{
	const struct strv *files = &vm->config->initrds;

	for (size_t i = 0; i < files->n; i++) {
		const char *path = files->v[i];
		struct stat st;

		parts[i].fd = open(path, O_RDONLY | O_CLOEXEC);
		if (parts[i].fd < 0 || fstat(parts[i].fd, &st))
			return err_set(e, -errno, "initrd %s: %s", path,
				       strerror(errno));
		if (!S_ISREG(st.st_mode))
			return err_set(e, -EINVAL,
				       "initrd %s: not a regular file", path);
		parts[i].len = (uint64_t)st.st_size;
		parts[i].name = path;
	}
	return 0;
}

/* Kernel, @parts of the initrd and command line into guest memory. */
static int load_parts(struct vm *vm, struct kernel *kernel,
		      const struct board_part *parts, size_t n,
		      const char *extra, struct err *e)
{
	const struct vm_config *c = vm->config;
	struct board_boot boot = {
		.kernel = kernel,
		.initrd = parts,
		.ninitrd = (unsigned)n,
		.cmdline = c->cmdline,
		.extra = extra,
		.no_defaults = !c->cmdline_defaults,
		.quiet = !c->boot_messages,
	};
	int rc = board_load(vm->board, &boot, e);

	if (!rc)
		timeline_mark(&vm->timeline, "guest-loaded");
	return rc;
}

static int load_with_init(struct vm *vm, struct kernel *kernel, struct err *e)
{
	struct board_part part = { .fill = fill_initramfs, .fd = -1 };
	struct initramfs *initramfs;
	int rc = compose_initramfs(vm, kernel, &initramfs, e);

	if (rc)
		return rc;
	timeline_mark(&vm->timeline, "initramfs-ready");
	part.ctx = initramfs;
	part.len = initramfs_size(initramfs);
	rc = load_parts(vm, kernel, &part, 1, INITRAMFS_CMDLINE, e);
	initramfs_destroy(initramfs);
	return rc;
}

static int load_without_init(struct vm *vm, struct kernel *kernel,
			     struct err *e)
{
	size_t n = vm->config->initrds.n;
	struct board_part *parts = calloc(n + 1, sizeof(*parts));
	int rc;

	if (!parts)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++)
		parts[i].fd = -1;
	rc = check_no_init(vm, e);
	if (!rc)
		rc = open_initrds(vm, parts, e);
	if (!rc)
		rc = load_parts(vm, kernel, parts, n, NULL, e);
	for (size_t i = 0; i < n; i++)
		if (parts[i].fd >= 0)
			close(parts[i].fd);
	free(parts);
	return rc;
}

static int load_guest(struct vm *vm, struct err *e)
{
	struct kernel_config kc = {
		.path = vm->config->kernel,
		.cache_dir = vm->config->cache,
		.log = &vm->log,
	};
	struct kernel *kernel;
	int rc = kernel_open(&kernel, &kc, e);

	if (rc)
		return rc;
	timeline_mark(&vm->timeline, "kernel-ready");
	rc = vm->config->init ? load_with_init(vm, kernel, e)
			      : load_without_init(vm, kernel, e);
	kernel_close(kernel);
	return rc;
}

static int create_engine_vm(struct vm *vm, struct err *e)
{
	struct hv_config hc = {
		.ncpus = (unsigned)vm->config->cpus,
		.mem = vm->mem,
		.bus = vm->bus,
		.log = &vm->log,
	};
	int rc;

	rc = hv_vm_create(vm->ops, &vm->hv, &hc, e);
	if (!rc)
		rc = hv_irqchip_create(vm->hv, e);
	if (rc)
		return rc;
	board_attach(vm->board, vm->hv);
	rc = devices_attach(vm, e);
	if (!rc)
		rc = cpus_create(vm, e);
	if (!rc)
		rc = debug_open(vm, e);
	if (!rc)
		rc = trace_open(vm, e);
	if (!rc)
		timeline_mark(&vm->timeline, "vm-created");
	return rc;
}

/* On the clock of deadlines, which nobody sets. */
static void init_condition(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

int vm_create(struct vm **out, const struct vm_config *c, struct err *e)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	int rc;

	if (!vm)
		return err_set(e, -ENOMEM, "out of memory");
	vm->config = c;
	vm->log = c->log;
	vm->status = -1;
	vm->guest_clock.fd = -1;
	pthread_mutex_init(&vm->lock, NULL);
	init_condition(&vm->changed);
	timeline_mark(&vm->timeline, "create");
	vm->end_fd = eventfd(0, EFD_CLOEXEC);
	vm->agent_fd = eventfd(0, EFD_CLOEXEC);
	rc = vm->end_fd < 0 || vm->agent_fd < 0
		     ? err_set(e, -errno, "eventfd: %s", strerror(errno))
		     : 0;
	if (!rc && !c->kernel)
		rc = err_set(e, -EINVAL, "no kernel given");
	if (!rc)
		rc = create_machine(vm, e);
	if (!rc)
		rc = devices_create(vm, e);
	if (!rc)
		rc = load_guest(vm, e);
	if (!rc)
		rc = choose_engine(vm, e);
	if (!rc)
		rc = create_engine_vm(vm, e);
	if (rc) {
		vm_destroy(vm);
		return rc;
	}
	*out = vm;
	return 0;
}

int vm_start(struct vm *vm, struct err *e)
{
	int rc;

	if (vm->state != VM_CREATED)
		return err_set(e, -EALREADY, "this VM was started before");
	vm->state = VM_RUNNING;
	rc = loop_start_thread(vm->loop, "arcvmm-loop");
	if (rc)
		err_set(e, rc, "thread of the event loop: %s", strerror(-rc));
	if (!rc)
		rc = devices_start(vm, e);
	if (!rc)
		rc = cpus_start(vm, e);
	if (rc)
		vm_end(vm, VM_END_ERROR, "%s", e ? e->text : "start failed");
	return rc;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	if (vm->state != VM_CREATED) {
		vm_end(vm, VM_END_KILLED, "%s", "");
		reap(vm);
	}
	guest_clock_stop(vm);
	if (vm->loop)
		loop_stop_thread(vm->loop);
	debug_close(vm);
	trace_close(vm);
	devices_destroy(vm);
	cpus_destroy(vm);
	if (vm->board)
		board_attach(vm->board, NULL);
	hv_vm_destroy(vm->hv);
	board_destroy(vm->board);
	loop_destroy(vm->loop);
	bus_destroy(vm->bus);
	gmem_destroy(vm->mem);
	if (vm->end_fd >= 0)
		close(vm->end_fd);
	if (vm->agent_fd >= 0)
		close(vm->agent_fd);
	pthread_mutex_destroy(&vm->lock);
	pthread_cond_destroy(&vm->changed);
	free(vm);
}

/* ---- while it runs ---- */

int vm_shutdown(struct vm *vm)
{
	bool running;

	pthread_mutex_lock(&vm->lock);
	running = vm->state == VM_RUNNING && !vm->ending;
	pthread_mutex_unlock(&vm->lock);
	if (!running)
		return -ESRCH;
	loop_lock(vm->loop);
	/* Our init listens to the one, any other to the other. */
	status_stop(vm);
	board_power_button(vm->board);
	loop_unlock(vm->loop);
	return 0;
}

void vm_kill(struct vm *vm)
{
	vm_end(vm, VM_END_KILLED, "%s", "");
}

const char *vm_engine(const struct vm *vm)
{
	return vm->ops->name;
}

const char *vm_engine_reason(const struct vm *vm)
{
	return vm->engine_reason;
}

const char *vm_cmdline(const struct vm *vm)
{
	return board_cmdline(vm->board);
}

int vm_milestone(struct vm *vm, unsigned i, const char **name, uint64_t *ns)
{
	const struct timeline_entry *t = timeline_get(&vm->timeline, i);

	if (!t)
		return -ENOENT;
	*name = t->name;
	*ns = atomic_load(&t->ns);
	return 0;
}
