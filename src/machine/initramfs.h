/*
 * The initramfs, composed in memory: what the kernel unpacks before it starts
 * the first program.
 *
 * It is a row of newc cpio archives, which the kernel unpacks one over the
 * other in this order:
 *   1. the user's root (a directory or a tar archive), if it is to live in
 *      memory;
 *   2. the user's --initrd files, as they are (compressed or not);
 *   3. ours: /.arcvmm/init (the guest program linked into this library),
 *      /.arcvmm/config (what it shall do) and /.arcvmm/modules/ (the modules
 *      of *that* kernel which the board's devices and the root need), and the
 *      empty directories to mount on.
 * Ours is last, uncompressed and below one directory, and is started by
 * "rdinit=/.arcvmm/init" on the kernel command line, so it takes nothing away
 * from the user's files: an /init of theirs stays and is what our init
 * executes when it has no other order.
 *
 * Nothing big is copied: the result is a list of pieces (memory, or a range of
 * a file) that initramfs_load() writes once, straight to where the caller
 * wants the bytes, which is guest memory.
 *
 *     initramfs_build(&cfg, &in, &err)
 *     initramfs_size(in)                     where to put it
 *     initramfs_load(in, gmem_ptr(...), &err)
 *     initramfs_destroy(in)
 */
#ifndef ARC_MACHINE_INITRAMFS_H
#define ARC_MACHINE_INITRAMFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct log;

/* To be on the kernel command line of every boot with our initramfs. */
#define INITRAMFS_CMDLINE "rdinit=/.arcvmm/init"

/* The name of the virtio-console port on which the guest's init reports. */
#define INITRAMFS_STATUS_PORT "org.arcvmm.init"

/* The devices and abilities whose drivers the guest shall have. */
enum {
	INITRAMFS_WANT_BLK = 1 << 0,
	INITRAMFS_WANT_CONSOLE = 1 << 1,
	INITRAMFS_WANT_RNG = 1 << 2,
	INITRAMFS_WANT_VSOCK = 1 << 3,
	INITRAMFS_WANT_NET = 1 << 4,
	INITRAMFS_WANT_FS = 1 << 5, /* virtiofs */
	INITRAMFS_WANT_BALLOON = 1 << 6,
	INITRAMFS_WANT_MEM = 1 << 7,
	INITRAMFS_WANT_PVPANIC = 1 << 8, /* pvpanic-mmio */
};

/* What a path given as the root is. */
enum initramfs_root {
	INITRAMFS_ROOT_NONE, /* no root: only initrds, or nothing */
	INITRAMFS_ROOT_DIR, /* a directory, packed */
	INITRAMFS_ROOT_TAR, /* .tar, .tar.gz, .tar.xz, .tar.zst, ...: packed */
	INITRAMFS_ROOT_IMAGE, /* anything else: a disk image to attach */
};

/*
 * Who owns the files of a packed directory. A directory tree made by root is
 * packed as it is. One made by an ordinary user holds that user's ids, which
 * mean nothing in the guest: there, the caller's own uid and gid become 0.
 */
enum initramfs_owner {
	INITRAMFS_OWNER_AUTO, /* ROOT when the caller is not root, else KEEP */
	INITRAMFS_OWNER_KEEP, /* ids as on the host */
	INITRAMFS_OWNER_ROOT, /* the caller's own uid and gid become 0 */
};

struct initramfs_config {
	const struct log *log; /* may be NULL */

	/* The kernel, for its modules. */
	const char *kernel; /* path of the kernel image */
	const char *release; /* kernel_release(): "6.1.0-56-cloud-amd64" */
	/*
	 * --modules: the directory of that release or a parent of it; NULL:
	 * search beside the kernel, then /lib/modules; "none": the kernel
	 * needs no modules.
	 */
	const char *modules;
	/* Where composed modules are kept: as kernel_config.cache_dir. */
	const char *cache_dir;
	unsigned want; /* INITRAMFS_WANT_* */
	const char *const *extra_modules; /* names, NULL-terminated; or NULL */

	/* The files. */
	const char *root; /* a directory or tar archive; NULL: none */
	enum initramfs_owner owner;
	const char *const *initrds; /* NULL-terminated; or NULL */

	/*
	 * A root on a disk, instead: "serial=S" (of a virtio-blk device),
	 * "label=L", "uuid=U", "partuuid=U", "partlabel=L" or "/dev/vda1".
	 * NULL: the initramfs stays the root. @root is then NULL.
	 */
	const char *root_disk;
	const char *root_fstype; /* NULL: detected, by the superblock */
	/* The file behind that disk, to tell its filesystem now; or NULL. */
	const char *root_image;
	const char *root_flags; /* mount options; NULL: none */
	bool root_readonly;
	bool root_overlay; /* read-only below, a tmpfs above */

	/*
	 * What to run: @argv NULL-terminated, found in PATH of @env (or the
	 * default one). NULL: /init of the user's initrd or /sbin/init
	 * becomes process 1; where neither exists, a shell is started.
	 */
	const char *const *argv;
	const char *const *env; /* "NAME=value", NULL-terminated; or NULL */
	const char *cwd; /* NULL: "/" */
	const char *user; /* "name", "uid", "user:group"; NULL: root */
	/* "RLIMIT SOFT HARD" in numbers, NULL-terminated; or NULL */
	const char *const *limits;
	const char *hostname; /* NULL: "arcvmm" */
	const char *console; /* "hvc0", "ttyS0"; NULL: the kernel's own */
	/*
	 * Further mounts in the root: "fstype source target [options]", the
	 * four words with %XX where they need it.
	 */
	const char *const *mounts; /* NULL-terminated; or NULL */
	uint64_t max_size; /* of the whole, unpacked; 0: 4 GiB */
	/* Wait for orders by vsock (the agent) instead of running anything. */
	bool serve;
	unsigned agent_port; /* vsock port of the agent, 0: no agent */
	/* The console has a port INITRAMFS_STATUS_PORT: report there. */
	bool status_port;
};

struct initramfs;

/*
 * Look at @path: what kind of root it is. 0, or -errno with a sentence
 * (missing, unreadable, a device that is not a disk, an empty file).
 */
int initramfs_root_kind(const char *path, enum initramfs_root *kind,
			struct err *e);

/* 0 or -errno with a sentence; a failed build leaves nothing behind. */
int initramfs_build(const struct initramfs_config *cfg, struct initramfs **out,
		    struct err *e);
void initramfs_destroy(struct initramfs *in); /* NULL-safe */

/* Bytes of the whole; a multiple of 4. */
uint64_t initramfs_size(const struct initramfs *in);
/*
 * Write the whole to @dst, which has room for initramfs_size() bytes. A file
 * that changed its size or vanished since the build is an error. @in is a
 * struct initramfs; it is void so that this fits struct board_part.fill.
 */
int initramfs_load(const void *in, void *dst, struct err *e);

/* How many modules are in. */
unsigned initramfs_modules(const struct initramfs *in);

#endif
