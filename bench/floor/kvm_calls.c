/*
 * The least that any monitor does before a guest's first instruction: this
 * process's start, and the KVM calls for a VM of 128 MiB with an interrupt chip
 * and one vCPU in real mode. Prints milliseconds from process start to the first
 * KVM_RUN, and its share of KVM calls. For bench/start.sh, which builds it as
 * the CLI is built (static PIE).
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define RAM_SIZE (128UL << 20)
#define CODE	 0x1000

static double ms(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int must(int rc, const char *what)
{
	if (rc >= 0)
		return rc;
	perror(what);
	exit(1);
}
#define MUST(call) must(call, #call)

int main(void)
{
	/* CPU time is wall time so far: nothing has waited yet. */
	double start = ms(CLOCK_MONOTONIC) - ms(CLOCK_PROCESS_CPUTIME_ID);
	double kvm_start = ms(CLOCK_MONOTONIC);
	static union {
		struct kvm_cpuid2 set;
		char room[sizeof(struct kvm_cpuid2) +
			  256 * sizeof(struct kvm_cpuid_entry2)];
	} cpuid = { .set.nent = 256 };
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = CODE, .rflags = 2 };
	int kvm = MUST(open("/dev/kvm", O_RDWR | O_CLOEXEC));
	int vm = MUST(ioctl(kvm, KVM_CREATE_VM, 0));
	int run_size = MUST(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	char *ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct kvm_userspace_memory_region slot = {
		.memory_size = RAM_SIZE,
		.userspace_addr = (unsigned long)ram,
	};
	struct kvm_run *run;
	double end;
	int cpu;

	MUST(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot));
	MUST(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000));
	MUST(ioctl(vm, KVM_CREATE_IRQCHIP, 0));
	cpu = MUST(ioctl(vm, KVM_CREATE_VCPU, 0));
	run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		   cpu, 0);
	MUST(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid));
	MUST(ioctl(cpu, KVM_SET_CPUID2, &cpuid));
	MUST(ioctl(cpu, KVM_GET_SREGS, &sregs));
	sregs.cs.base = sregs.cs.selector = 0;
	MUST(ioctl(cpu, KVM_SET_SREGS, &sregs));
	MUST(ioctl(cpu, KVM_SET_REGS, &regs));
	memcpy(ram + CODE, "\xe6\xf4", 2); /* out %al, $0xf4 */
	end = ms(CLOCK_MONOTONIC);
	MUST(ioctl(cpu, KVM_RUN, 0));
	if (run->exit_reason != KVM_EXIT_IO)
		must(-1, "the guest's first instruction");
	printf("%.3f %.3f\n", end - start, end - kvm_start);
	return 0;
}
