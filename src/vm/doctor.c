/*
 * Each check is a function that looks at one thing and reports one finding. A
 * check changes nothing on the host and needs no privilege.
 */
#include "vm/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/util.h"
#include "hv/hv.h"

struct doctor {
	void (*fn)(void *ctx, const struct doctor_finding *f);
	void *ctx;
};

static void report(const struct doctor *d, enum doctor_level level,
		   const char *subject, const char *advice, const char *fmt,
		   ...) __attribute__((format(printf, 5, 6)));

static void report(const struct doctor *d, enum doctor_level level,
		   const char *subject, const char *advice, const char *fmt,
		   ...)
{
	char text[512];
	struct doctor_finding f = { level, subject, text, advice };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	d->fn(d->ctx, &f);
}

/* The first line of a small file, without its newline; false: unreadable. */
static bool first_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok;

	if (!f)
		return false;
	ok = fgets(buf, (int)size, f);
	fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = 0;
	return ok;
}

static const char *kvm_advice(int code)
{
	switch (code) {
	case -ENOENT:
		return "load the module (modprobe kvm_intel or kvm_amd), turn "
		       "virtualization on in the firmware, or in a VM ask for "
		       "nested virtualization; without it arcvmm uses its "
		       "software CPU";
	case -EACCES:
	case -EPERM:
		return "add yourself to the group that owns /dev/kvm (usermod "
		       "-aG kvm $USER, then log in again); without it arcvmm "
		       "uses its software CPU";
	default:
		return "nothing: arcvmm uses its software CPU here";
	}
}

static void check_engines(const struct doctor *d)
{
	struct err e = { 0 };
	struct hv_info info;
	int rc = hv_kvm_fitness(&e);

	if (!rc)
		report(d, DOCTOR_OK, "kvm", NULL,
		       "/dev/kvm runs stock kernels");
	else
		report(d, DOCTOR_NOTE, "kvm", kvm_advice(rc), "%s", e.text);
	if (!hv_probe(&hv_soft_ops, &info, &e))
		report(d, DOCTOR_OK, "soft", NULL,
		       "the software CPU works here: %u CPUs at most",
		       info.max_cpus);
	else
		report(d, rc ? DOCTOR_PROBLEM : DOCTOR_NOTE, "soft", NULL, "%s",
		       e.text);
}

/*
 * Creating a VM starts a kernel thread, which moves into our cgroup under a
 * lock that costs an RCU grace period unless the hierarchy favours changes.
 * The best of three counts: a busy host is slow now and then.
 */
#define CREATE_SLOW_NS (10 * NSEC_PER_MSEC)

static int best_create_ns(uint64_t *best)
{
	struct hv_config c = { .ncpus = 1 };
	struct gmem *mem = NULL;
	struct bus *bus = NULL;
	int rc = gmem_create(&mem);

	if (!rc)
		rc = gmem_add_ram(mem, gpa(0), 0x10000, NULL);
	if (!rc)
		rc = bus_create(&bus);
	c.mem = mem;
	c.bus = bus;
	*best = ~0ull;
	for (int i = 0; !rc && i < 3; i++) {
		uint64_t begun = clock_ns();
		struct hv_vm *vm;

		rc = hv_vm_create(&hv_kvm_ops, &vm, &c, NULL);
		if (rc)
			break;
		*best = min_of(*best, clock_ns() - begun);
		hv_vm_destroy(vm);
	}
	bus_destroy(bus);
	gmem_destroy(mem);
	return rc;
}

static void check_create(const struct doctor *d)
{
	uint64_t ns;

	if (best_create_ns(&ns))
		return; /* no KVM: said before */
	if (ns < CREATE_SLOW_NS)
		report(d, DOCTOR_OK, "vm-create", NULL,
		       "KVM creates a VM in %.1f ms", (double)ns / 1e6);
	else
		report(d, DOCTOR_NOTE, "vm-create",
		       "mount -o remount,favordynmods /sys/fs/cgroup",
		       "KVM takes %.1f ms to create a VM: the cgroup hierarchy "
		       "takes its slow path",
		       (double)ns / 1e6);
}

/* Guest memory is anonymous and asks for huge pages (mem/gmem.h). */
static void check_hugepages(const struct doctor *d)
{
	static const char file[] =
		"/sys/kernel/mm/transparent_hugepage/enabled";
	char line[128];

	if (!first_line(file, line, sizeof(line)))
		report(d, DOCTOR_NOTE, "hugepages", NULL,
		       "this kernel has no transparent huge pages");
	else if (strstr(line, "[never]"))
		report(d, DOCTOR_NOTE, "hugepages",
		       "echo madvise > "
		       "/sys/kernel/mm/transparent_hugepage/enabled",
		       "guest memory is mapped in small pages: more faults, a "
		       "slower guest");
	else
		report(d, DOCTOR_OK, "hugepages", NULL,
		       "guest memory may be mapped in huge pages");
}

static void check_io_uring(const struct doctor *d)
{
	struct io_uring ring;
	int rc = io_uring_queue_init(4, &ring, 0);

	if (!rc) {
		io_uring_queue_exit(&ring);
		report(d, DOCTOR_OK, "io_uring", NULL, "disks use io_uring");
		return;
	}
	report(d, DOCTOR_NOTE, "io_uring",
	       rc == -EPERM ? "sysctl kernel.io_uring_disabled=0, or allow it "
			      "in the container's seccomp profile"
			    : NULL,
	       "io_uring cannot be used (%s): disks use threads, which is "
	       "slower",
	       strerror(-rc));
}

static void check_userfaultfd(const struct doctor *d)
{
	int fd = (int)syscall(SYS_userfaultfd,
			      O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd >= 0) {
		close(fd);
		report(d, DOCTOR_OK, "userfaultfd", NULL, "available");
		return;
	}
	report(d, DOCTOR_NOTE, "userfaultfd", NULL,
	       "not available (%s): memory cannot be loaded on demand",
	       strerror(errno));
}

static void check_tun(const struct doctor *d)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		report(d, DOCTOR_OK, "tun", NULL, "/dev/net/tun can be opened");
		return;
	}
	report(d, DOCTOR_NOTE, "tun",
	       errno == ENOENT ? "modprobe tun"
			       : "run as root or with CAP_NET_ADMIN; passt "
				 "needs neither",
	       "/dev/net/tun: %s", strerror(errno));
}

/* Is @name an executable somewhere in PATH? */
static bool in_path(const char *name)
{
	const char *path = getenv("PATH");
	char full[1024];

	while (path && *path) {
		size_t n = strcspn(path, ":");

		snprintf(full, sizeof(full), "%.*s/%s", (int)n, path, name);
		if (!access(full, X_OK))
			return true;
		path += n + (path[n] == ':');
	}
	return false;
}

static void check_passt(const struct doctor *d)
{
	if (in_path("passt"))
		report(d, DOCTOR_OK, "passt", NULL, "found");
	else
		report(d, DOCTOR_NOTE, "passt",
		       "apt-get install passt (or your distribution's package)",
		       "not found: no user-mode network without it");
}

void doctor_run(void (*fn)(void *ctx, const struct doctor_finding *f),
		void *ctx)
{
	static void (*const checks[])(const struct doctor *d) = {
		check_engines,	check_create,	   check_hugepages,
		check_io_uring, check_userfaultfd, check_tun,
		check_passt,
	};
	struct doctor d = { fn, ctx };

	for (unsigned i = 0; i < array_size(checks); i++)
		checks[i](&d);
}
