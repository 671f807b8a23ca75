/*
 * The KVM engine: VMs.
 *
 * Everything is in the kernel that can be: LAPICs, IOAPIC, doorbells
 * (ioeventfd) and interrupts (irqfd). We use the whole in-kernel irqchip
 * rather than the split one, so that a pin of the IOAPIC is an irqfd too. It
 * brings a pair of 8259 PICs that the board does not have: they are masked at
 * creation and taken out of the interrupt routing. There is no PIT.
 *
 * Order matters for time: a memslot added once irqchip or ioeventfds exist
 * waits for an SRCU grace period (6-8 ms), so vm_create() maps all of them.
 */
#include "hv/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/err.h"
#include "base/log.h"
#include "base/util.h"

/*
 * Intel without unrestricted guest runs real mode as virtual-8086 and needs
 * four pages of guest-physical space for it, in the hole below 4 GiB where no
 * board of ours has anything.
 */
#define KVM_IDENTITY_MAP 0xfffbc000ull
#define KVM_TSS		 0xfffbd000ull

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
	int r;

	do {
		r = ioctl(fd, request, arg);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static int kvm_cap(int fd, long cap)
{
	int r = ioctl(fd, KVM_CHECK_EXTENSION, cap);

	return r < 0 ? 0 : r;
}

int kvm_open(struct err *e)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int r;

	if (fd < 0) {
		r = -errno;
		switch (-r) {
		case ENOENT:
			return err_set(e, r,
				       "/dev/kvm does not exist: load the "
				       "module (modprobe kvm_amd or "
				       "kvm_intel), enable virtualisation in "
				       "the firmware, or use --engine soft");
		case EACCES:
		case EPERM:
			return err_set(e, r,
				       "/dev/kvm may not be opened by this "
				       "user: join the group that owns it "
				       "(usermod -aG kvm USER, then log in "
				       "again) or use --engine soft");
		case ENODEV:
		case ENXIO:
			return err_set(e, r,
				       "/dev/kvm exists but no KVM module "
				       "answers: modprobe kvm_amd or "
				       "kvm_intel, or use --engine soft");
		}
		return err_set(e, r, "cannot open /dev/kvm: %s", strerror(-r));
	}
	r = kvm_ioctl(fd, KVM_GET_API_VERSION, NULL);
	if (r != KVM_API_VERSION) {
		close(fd);
		return err_set(e, r < 0 ? r : -ENOTSUP,
			       "/dev/kvm speaks API version %d, not %d", r,
			       KVM_API_VERSION);
	}
	return fd;
}

static const struct {
	long cap;
	const char *what;
} kvm_needed[] = {
	{ KVM_CAP_USER_MEMORY, "user memory" },
	{ KVM_CAP_IRQCHIP, "an in-kernel irqchip" },
	{ KVM_CAP_IRQFD, "irqfd" },
	{ KVM_CAP_IOEVENTFD, "ioeventfd" },
	{ KVM_CAP_SIGNAL_MSI, "MSI" },
	{ KVM_CAP_IMMEDIATE_EXIT, "immediate exit" },
	{ KVM_CAP_MP_STATE, "multiprocessor state" },
	{ KVM_CAP_VCPU_EVENTS, "vCPU events" },
	{ KVM_CAP_ADJUST_CLOCK, "the VM clock" },
	{ KVM_CAP_EXT_CPUID, "CPUID configuration" },
};

static int kvm_check_needed(int fd, struct err *e)
{
	for (unsigned i = 0; i < array_size(kvm_needed); i++)
		if (!kvm_cap(fd, kvm_needed[i].cap))
			return err_set(e, -ENOTSUP,
				       "this host's KVM lacks %s: update its "
				       "kernel or use --engine soft",
				       kvm_needed[i].what);
	return 0;
}

static unsigned kvm_caps(int fd)
{
	unsigned caps = HV_CAP_IOEVENTFD | HV_CAP_IRQFD | HV_CAP_DIRTY_LOG;

	if (kvm_cap(fd, KVM_CAP_SET_GUEST_DEBUG) > 0)
		caps |= HV_CAP_DEBUG;
	if (kvm_cap(fd, KVM_CAP_READONLY_MEM) > 0)
		caps |= HV_CAP_READONLY_MEM;
	return caps;
}

/* What CPUID tells a guest is the host's, so it need not be asked from KVM. */
static unsigned kvm_phys_bits(void)
{
	uint32_t eax = 0x80000008, ebx, ecx = 0, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return eax & 0xff;
}

static int kvm_probe(struct hv_info *info, struct err *e)
{
	int fd = kvm_open(e);
	int r;

	if (fd < 0)
		return fd;
	r = kvm_check_needed(fd, e);
	if (!r) {
		info->name = "kvm";
		info->caps = kvm_caps(fd);
		info->max_cpus = (unsigned)kvm_cap(fd, KVM_CAP_MAX_VCPUS);
		if (!info->max_cpus)
			info->max_cpus = 4; /* as KVM's documentation says */
		info->phys_bits = kvm_phys_bits();
	}
	close(fd);
	return r;
}

static int kvm_set_slot(struct kvm_vm *kv, unsigned index, bool log)
{
	const struct gmem_region *r = gmem_region(kv->vm.config.mem, index);
	struct kvm_userspace_memory_region slot = {
		.slot = index,
		.flags = (r->flags & GMEM_READONLY ? KVM_MEM_READONLY : 0) |
			 (log ? KVM_MEM_LOG_DIRTY_PAGES : 0),
		.guest_phys_addr = r->base.v,
		.memory_size = r->size,
		.userspace_addr = (uintptr_t)r->host,
	};

	return kvm_ioctl(kv->fd, KVM_SET_USER_MEMORY_REGION, &slot);
}

static int kvm_map_all(struct kvm_vm *kv, struct err *e)
{
	const struct gmem_region *r;

	for (unsigned i = 0; (r = gmem_region(kv->vm.config.mem, i)); i++) {
		int err;

		if ((r->flags & GMEM_READONLY) &&
		    !(kv->vm.caps & HV_CAP_READONLY_MEM))
			return err_set(e, -ENOTSUP,
				       "this host's KVM has no read-only "
				       "memory");
		err = kvm_set_slot(kv, i, false);
		if (err)
			return err_set(e, err,
				       "KVM refuses memory at 0x%llx, %llu "
				       "bytes: %s",
				       (unsigned long long)r->base.v,
				       (unsigned long long)r->size,
				       strerror(-err));
	}
	return 0;
}

static void kvm_vm_destroy(struct hv_vm *vm)
{
	struct kvm_vm *kv = kvm_vm_of(vm);

	if (kv->fd >= 0)
		close(kv->fd);
	free(kv);
}

static int kvm_vm_create(struct hv_vm **out, const struct hv_config *c,
			 struct err *e)
{
	uint64_t identity = KVM_IDENTITY_MAP;
	struct kvm_vm *kv;
	int sys, r;

	sys = kvm_open(e);
	if (sys < 0)
		return sys;
	r = kvm_check_needed(sys, e);
	if (r)
		goto out_sys;
	kv = calloc(1, sizeof(*kv));
	if (!kv) {
		r = err_set(e, -ENOMEM, "out of memory");
		goto out_sys;
	}
	kv->vm.ops = &hv_kvm_ops;
	kv->vm.config = *c;
	kv->vm.caps = kvm_caps(sys);
	kv->fd = kvm_ioctl(sys, KVM_CREATE_VM, NULL);
	if (kv->fd < 0) {
		r = err_set(e, kv->fd, "KVM cannot create a VM: %s",
			    strerror(-kv->fd));
		goto out_vm;
	}
	r = kvm_ioctl(sys, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (r < (int)sizeof(struct kvm_run)) {
		r = err_set(e, r < 0 ? r : -EINVAL,
			    "KVM's vCPU area has an impossible size");
		goto out_vm;
	}
	kv->run_size = (size_t)r;
	kv->has_xsave = kvm_cap(kv->fd, KVM_CAP_XSAVE) > 0;
	kv->has_xcrs = kvm_cap(kv->fd, KVM_CAP_XCRS) > 0;
	kv->has_debugregs = kvm_cap(kv->fd, KVM_CAP_DEBUGREGS) > 0;
	kv->has_any_length = kvm_cap(kv->fd, KVM_CAP_IOEVENTFD_ANY_LENGTH) > 0;
	/* Before 5.17 only a vCPU knows: then vcpu_create() fills it. */
	r = kvm_ioctl(kv->fd, KVM_GET_TSC_KHZ, NULL);
	kv->vm.tsc_khz = r > 0 ? (uint64_t)r : 0;

	r = kvm_map_all(kv, e);
	if (r)
		goto out_vm;
	/* No-ops where the CPU does not need them; refused by none we know. */
	if (kvm_cap(kv->fd, KVM_CAP_SET_IDENTITY_MAP_ADDR))
		kvm_ioctl(kv->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (kvm_cap(kv->fd, KVM_CAP_SET_TSS_ADDR)) {
		r = kvm_ioctl(kv->fd, KVM_SET_TSS_ADDR, (void *)KVM_TSS);
		if (r) {
			r = err_set(e, r, "KVM cannot place its task state: %s",
				    strerror(-r));
			goto out_vm;
		}
	}
	close(sys);
	*out = &kv->vm;
	return 0;

out_vm:
	kvm_vm_destroy(&kv->vm);
out_sys:
	close(sys);
	return r;
}

/* The PICs of KVM's chipset are not part of our board: nothing reaches them. */
static int kvm_silence_pics(struct kvm_vm *kv)
{
	/* KVM's struct ends in an array of any length: give it room. */
	union {
		struct kvm_irq_routing k;
		uint8_t room[sizeof(struct kvm_irq_routing) +
			     HV_GSI_COUNT *
				     sizeof(struct kvm_irq_routing_entry)];
	} routing = { .k.nr = HV_GSI_COUNT };

	for (unsigned chip = KVM_IRQCHIP_PIC_MASTER;
	     chip <= KVM_IRQCHIP_PIC_SLAVE; chip++) {
		struct kvm_irqchip pic = { .chip_id = chip };
		int r = kvm_ioctl(kv->fd, KVM_GET_IRQCHIP, &pic);

		if (r)
			return r;
		pic.chip.pic.imr = 0xff;
		r = kvm_ioctl(kv->fd, KVM_SET_IRQCHIP, &pic);
		if (r)
			return r;
	}
	for (unsigned i = 0; i < HV_GSI_COUNT; i++)
		routing.k.entries[i] = (struct kvm_irq_routing_entry){
			.gsi = i,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { .irqchip = KVM_IRQCHIP_IOAPIC,
				       .pin = i },
		};
	return kvm_ioctl(kv->fd, KVM_SET_GSI_ROUTING, &routing);
}

static int kvm_irqchip_create(struct hv_vm *vm, struct err *e)
{
	struct kvm_vm *kv = kvm_vm_of(vm);
	int r = kvm_ioctl(kv->fd, KVM_CREATE_IRQCHIP, NULL);

	if (!r)
		r = kvm_silence_pics(kv);
	if (r)
		return err_set(e, r,
			       "KVM cannot create its interrupt "
			       "controllers: %s",
			       strerror(-r));
	return 0;
}

static int kvm_irq_line(struct hv_vm *vm, unsigned gsi, bool level)
{
	struct kvm_irq_level l = { .irq = gsi, .level = level };

	return kvm_ioctl(kvm_vm_of(vm)->fd, KVM_IRQ_LINE, &l);
}

/* KVM returns how many LAPICs took it; 0 (blocked by the guest) is fine. */
static int kvm_msi(struct hv_vm *vm, uint64_t addr, uint32_t data)
{
	struct kvm_msi msi = {
		.address_lo = (uint32_t)addr,
		.address_hi = (uint32_t)(addr >> 32),
		.data = data,
	};
	int r = kvm_ioctl(kvm_vm_of(vm)->fd, KVM_SIGNAL_MSI, &msi);

	return r < 0 ? r : 0;
}

static int kvm_irqfd(struct hv_vm *vm, unsigned gsi, int fd, bool add)
{
	struct kvm_irqfd irqfd = {
		.fd = (uint32_t)fd,
		.gsi = gsi,
		.flags = add ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	return kvm_ioctl(kvm_vm_of(vm)->fd, KVM_IRQFD, &irqfd);
}

static int kvm_ioeventfd(struct hv_vm *vm, const struct bus_ioeventfd *io,
			 bool add)
{
	struct kvm_vm *kv = kvm_vm_of(vm);
	struct kvm_ioeventfd k = {
		.addr = io->addr,
		.len = io->len,
		.fd = io->fd,
		.datamatch = io->match,
	};

	if (io->len == 0 && !kv->has_any_length)
		return -ENOTSUP;
	if (io->space == BUS_PIO)
		k.flags |= KVM_IOEVENTFD_FLAG_PIO;
	if (io->len && !io->match_any)
		k.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
	if (!add)
		k.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	return kvm_ioctl(kv->fd, KVM_IOEVENTFD, &k);
}

static int kvm_dirty_log(struct hv_vm *vm, unsigned region, bool enable)
{
	struct kvm_vm *kv = kvm_vm_of(vm);
	int r;

	if (!!(kv->logged & 1u << region) == enable)
		return 0;
	r = kvm_set_slot(kv, region, enable);
	if (!r)
		kv->logged ^= 1u << region;
	return r;
}

static int kvm_dirty_fetch(struct hv_vm *vm, unsigned region,
			   unsigned long *bitmap, size_t bytes)
{
	struct kvm_vm *kv = kvm_vm_of(vm);
	struct kvm_dirty_log log = { .slot = region, .dirty_bitmap = bitmap };

	(void)bytes; /* checked by hv_dirty_fetch() */
	if (!(kv->logged & 1u << region))
		return -EINVAL;
	return kvm_ioctl(kv->fd, KVM_GET_DIRTY_LOG, &log);
}
_Static_assert(GMEM_MAX_REGIONS <= 32, "kvm_vm.logged has a bit per region");

const struct hv_ops hv_kvm_ops = {
	.name = "kvm",
	.probe = kvm_probe,
	.vm_create = kvm_vm_create,
	.vm_destroy = kvm_vm_destroy,
	.irqchip_create = kvm_irqchip_create,
	.irq_line = kvm_irq_line,
	.msi = kvm_msi,
	.irqfd = kvm_irqfd,
	.ioeventfd = kvm_ioeventfd,
	.dirty_log = kvm_dirty_log,
	.dirty_fetch = kvm_dirty_fetch,
	.vm_get_state = kvm_vm_get_state,
	.vm_set_state = kvm_vm_set_state,
	.supported_cpuid = kvm_supported_cpuid,
	.vcpu_create = kvm_vcpu_create,
	.vcpu_destroy = kvm_vcpu_destroy,
	.vcpu_set_cpuid = kvm_vcpu_set_cpuid,
	.vcpu_get_state = kvm_vcpu_get_state,
	.vcpu_set_state = kvm_vcpu_set_state,
	.vcpu_set_debug = kvm_vcpu_set_debug,
	.vcpu_run = kvm_vcpu_run,
	.vcpu_kick = kvm_vcpu_kick,
	.vcpu_translate = kvm_vcpu_translate,
	.vcpu_counters = kvm_vcpu_counters,
};
