/*
 * The composed initramfs, judged by cpio(1), with real directories, archives
 * and the modules of stock kernels where those are at hand.
 */
#include "test.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/thread.h"
#include "base/util.h"
#include "machine/initramfs.h"

static char dir[64]; /* of this test */

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/arcvmm-initramfs.XXXXXX");
	return mkdtemp(dir) && !chdir(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char cmd[128];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return chdir("/") || system(cmd);
}

static void sh(const char *cmd)
{
	if (system(cmd))
		fail_msg("failed: %s", cmd);
}

/* The output of @cmd, at most @size - 1 bytes. */
static void sh_out(const char *cmd, char *out, size_t size)
{
	FILE *f = popen(cmd, "r");
	size_t n;

	assert_non_null(f);
	n = fread(out, 1, size - 1, f);
	out[n] = 0;
	pclose(f);
}

static bool have(const char *cmd)
{
	char line[128];

	snprintf(line, sizeof(line), "command -v %s >/dev/null", cmd);
	return !system(line);
}

/* Build with @cfg and write the result to "out.cpio". */
static struct initramfs *build(const struct initramfs_config *cfg)
{
	struct err e = { 0 };
	struct initramfs *in;
	void *buf;
	FILE *f;

	if (initramfs_build(cfg, &in, &e))
		fail_msg("%s", e.text);
	buf = malloc(initramfs_size(in));
	assert_non_null(buf);
	assert_int_equal(initramfs_size(in) % 4, 0);
	if (initramfs_load(in, buf, &e))
		fail_msg("%s", e.text);
	f = fopen("out.cpio", "w");
	assert_int_equal(fwrite(buf, initramfs_size(in), 1, f), 1);
	assert_int_equal(fclose(f), 0);
	free(buf);
	return in;
}

static void expect_error(const struct initramfs_config *cfg, int code,
			 const char *part)
{
	struct err e = { 0 };
	struct initramfs *in;

	assert_int_equal(initramfs_build(cfg, &in, &e), code);
	if (!strstr(e.text, part))
		fail_msg("\"%s\" does not mention \"%s\"", e.text, part);
}

static void make_root(void)
{
	sh("mkdir -p r/bin r/etc/deep/er r/dev && echo hello >r/etc/motd && "
	   "ln -s motd r/etc/link && ln r/etc/motd r/etc/hard && "
	   "head -c 300000 /dev/urandom >r/bin/big && chmod 4755 r/bin/big && "
	   "touch -d @1000000000 r/bin/big && mkfifo r/etc/fifo && "
	   "printf x >'r/etc/a b' && : >r/etc/empty && chmod 1777 r/etc/deep");
	if (!geteuid())
		sh("mknod r/dev/null c 1 3 && chown 7:8 r/etc/empty");
}

/* Our archive is a second one: skip the first, or none. */
static void unpack_all(void)
{
	sh("mkdir -p x && cd x && "
	   "cpio -idm --quiet <../out.cpio 2>../cpio.err; "
	   "test ! -s ../cpio.err || { cat ../cpio.err >&2; false; }");
}

static void same_trees(void)
{
	static const char list[] =
		"cd %s && { find . -path ./.arcvmm -prune -o -type d ! -name . "
		"-printf '%%P %%m %%U:%%G\\n'; find . -path ./.arcvmm -prune "
		"-o ! -type d -printf '%%P %%y %%m %%l %%s %%U:%%G %%n "
		"%%Ts\\n'; } | sort | sed '/ l 777 /s/ [0-9]*$//'";
	char a[8192], b[8192], cmd[512];

	snprintf(cmd, sizeof(cmd), list, "r");
	sh_out(cmd, a, sizeof(a));
	snprintf(cmd, sizeof(cmd), list, "x");
	sh_out(cmd, b, sizeof(b));
	assert_string_equal(a, b);
	sh("cmp r/bin/big x/bin/big && cmp r/etc/motd x/etc/motd && "
	   "cmp r/etc/motd x/etc/hard");
}

static void test_dir(void **state)
{
	struct initramfs_config cfg = { .root = "r", .modules = "none" };

	(void)state;
	make_root();
	initramfs_destroy(build(&cfg));
	unpack_all();
	same_trees();
}

static void tar_round(const char *make)
{
	struct initramfs_config cfg = { .root = "r.tar", .modules = "none" };

	sh("rm -rf x r.tar");
	sh(make);
	initramfs_destroy(build(&cfg));
	unpack_all();
	same_trees();
}

static void test_tar(void **state)
{
	(void)state;
	if (!have("tar")) {
		skip_because("no tar");
	}
	make_root();
	tar_round("tar -C r -cf r.tar .");
	tar_round("tar -C r --format=ustar -cf r.tar .");
	tar_round("tar -C r --format=pax -cf r.tar .");
	tar_round("tar -C r --format=gnu -cf r.tar .");
	tar_round("tar -C r -c . | gzip >r.tar");
	tar_round("tar -C r -c . | xz -1 >r.tar");
	if (have("zstd"))
		tar_round("tar -C r -c . | zstd -q >r.tar");
	if (have("bzip2"))
		tar_round("tar -C r -c . | bzip2 >r.tar");
	/* Two gzip members, then zeros. */
	tar_round("tar -C r -cf t . && { head -c 5000 t | gzip; "
		  "tail -c +5001 t | gzip; head -c 999 /dev/zero; } >r.tar");
}

static void test_tar_names(void **state)
{
	struct initramfs_config cfg = { .root = "n.tar", .modules = "none" };
	static const char *const formats[] = { "gnu", "pax" };
	char cmd[512];

	(void)state;
	sh("d=n/$(printf '%0120d' 1)/$(printf '%0130d' 2); mkdir -p $d && "
	   "echo deep >$d/$(printf '%0200d' 3) && "
	   "ln -s $(printf '%0180d' 4) $d/link");
	for (int i = 0; i < 2; i++) {
		snprintf(cmd, sizeof(cmd),
			 "rm -rf x; tar -C n --format=%s -cf n.tar .",
			 formats[i]);
		sh(cmd);
		initramfs_destroy(build(&cfg));
		unpack_all();
		sh("rm -rf x/.arcvmm; diff -r --no-dereference n x");
	}
	/* Parents nobody packed; absolute names. */
	sh("rm -rf x; cd n && tar -P -cf ../n.tar --no-recursion "
	   "--transform='s,^,/top/,' $(find . -type f)");
	initramfs_destroy(build(&cfg));
	unpack_all();
	sh("test \"$(find x/top -type f | xargs cat)\" = deep");
}

/* Members that lie behind a symbolic link, and one named like the end. */
static void test_tar_links(void **state)
{
	struct initramfs_config cfg = { .root = "l.tar", .modules = "none" };

	(void)state;
	sh("mkdir -p l/usr/lib && ln -s usr/lib l/lib && echo 1 >l/usr/lib/a "
	   "&& "
	   "echo end >'l/TRAILER!!!' && echo last >l/zz && "
	   "tar -C l --sort=name -cf l.tar usr lib 'TRAILER!!!' zz && "
	   "mkdir -p m/lib/modules && echo 2 >m/lib/modules/b && "
	   "tar -C m -rf l.tar lib/modules/b");
	initramfs_destroy(build(&cfg));
	unpack_all();
	sh("test -L x/lib && test \"$(cat x/usr/lib/modules/b)\" = 2 && "
	   "test \"$(cat 'x/TRAILER!!!')\" = end && test -e x/zz");
	sh("ln -s $(printf '%05000d' 1) l/toolong 2>/dev/null; "
	   "tar -C l --format=pax --transform='flags=s;s,usr/lib,"
	   "'$(printf '%05000d' 1)',' -cf l.tar lib");
	expect_error(&cfg, -ENAMETOOLONG, "lib");
}

static void test_tar_bad(void **state)
{
	struct initramfs_config cfg = { .root = "b.tar", .modules = "none" };

	(void)state;
	sh("mkdir b && echo x >b/f && tar -cf g.tar b");
	sh("tar -P --transform='s,^,../,' -cf b.tar b");
	expect_error(&cfg, -EINVAL, "leaves the archive");
	sh("head -c 1025 g.tar >b.tar");
	expect_error(&cfg, -EBADMSG, "cut short");
	sh("{ head -c 1024 g.tar; head -c 1024 /dev/urandom; } >b.tar");
	expect_error(&cfg, -EBADMSG, "b.tar");
	sh("gzip <g.tar | head -c 30 >b.tar");
	expect_error(&cfg, -EINVAL, "neither");
	sh("head -c 100000 /dev/urandom >b/r; tar -c b | gzip | "
	   "head -c 50000 >b.tar");
	expect_error(&cfg, -EBADMSG, "damaged or cut short");
	sh("truncate -s 1M b/s; tar -S -cf b.tar b");
	expect_error(&cfg, -EOPNOTSUPP, "sparse");
	cfg.max_size = 1 << 20;
	sh("rm b/s; head -c 3000000 /dev/zero >b/z; tar -c b | gzip >b.tar");
	expect_error(&cfg, -EFBIG, "more than 1 MiB");
	sh("tar -cf b.tar b");
	expect_error(&cfg, -EFBIG, "more memory");
}

static void test_root_kind(void **state)
{
	enum initramfs_root kind;
	struct err e = { 0 };

	(void)state;
	sh("mkdir d; echo x >d/x; tar -cf t d; gzip <t >t.gz; "
	   "head -c 8192 /dev/urandom >img; gzip <img >img.gz; : >empty");
	assert_int_equal(initramfs_root_kind("d", &kind, &e), 0);
	assert_int_equal(kind, INITRAMFS_ROOT_DIR);
	assert_int_equal(initramfs_root_kind("t", &kind, &e), 0);
	assert_int_equal(kind, INITRAMFS_ROOT_TAR);
	assert_int_equal(initramfs_root_kind("t.gz", &kind, &e), 0);
	assert_int_equal(kind, INITRAMFS_ROOT_TAR);
	assert_int_equal(initramfs_root_kind("img", &kind, &e), 0);
	assert_int_equal(kind, INITRAMFS_ROOT_IMAGE);
	assert_int_equal(initramfs_root_kind("img.gz", &kind, &e), 0);
	assert_int_equal(kind, INITRAMFS_ROOT_IMAGE);
	assert_int_equal(initramfs_root_kind("none", &kind, &e), -ENOENT);
	assert_non_null(strstr(e.text, "none"));
	assert_int_equal(initramfs_root_kind("empty", &kind, &e), -EINVAL);
	assert_int_equal(initramfs_root_kind("/dev/null", &kind, &e), -EINVAL);
}

static void test_files_that_change(void **state)
{
	struct initramfs_config cfg = { .root = "r", .modules = "none" };
	struct initramfs *in;
	struct err e = { 0 };
	void *buf;

	(void)state;
	make_root();
	assert_int_equal(initramfs_build(&cfg, &in, &e), 0);
	buf = malloc(initramfs_size(in));
	sh("echo more >>r/etc/motd");
	assert_int_equal(initramfs_load(in, buf, &e), -ESTALE);
	assert_non_null(strstr(e.text, "etc/"));
	free(buf);
	initramfs_destroy(in);
}

static void test_config(void **state)
{
	static const char *const argv[] = { "/bin/echo", "a b\n\377%", "",
					    NULL };
	static const char *const env[] = { "A=b c", "X=", NULL };
	static const char *const initrds[] = { "i1", "i2", NULL };
	struct initramfs_config cfg = { .modules = "none",
					.argv = argv,
					.env = env,
					.initrds = initrds,
					.cwd = "/tmp",
					.user = "nobody",
					.hostname = "h",
					.console = "hvc0",
					.root_disk = "label=x y",
					.root_overlay = true,
					.agent_port = 1024 };
	char text[1024];

	(void)state;
	sh("mkdir a && echo 1 >a/one && (cd a && echo one | "
	   "cpio -o -H newc --quiet | gzip >../i1) && "
	   "printf 'xyz' >i2"); /* odd length: what follows is aligned */
	initramfs_destroy(build(&cfg));
	sh("head -c $(stat -c %s i1) out.cpio | cmp - i1");
	/* Ours follows at a multiple of 4. */
	sh("s=$(grep -abo '07070100' out.cpio | head -1 | cut -d: -f1); "
	   "test $((s % 4)) = 0 && mkdir x && cd x && "
	   "tail -c +$((s + 1)) ../out.cpio | cpio -id --quiet");
	sh("cmp x/.arcvmm/init /dev/null >/dev/null 2>&1; "
	   "test -x x/.arcvmm/init -a -d x/.arcvmm/modules");
	sh_out("cat x/.arcvmm/config", text, sizeof(text));
	assert_string_equal(text, "arcvmm 1\n"
				  "console hvc0\n"
				  "hostname h\n"
				  "root label=x%20y\n"
				  "root-overlay\n"
				  "env A=b%20c\n"
				  "env X=\n"
				  "cwd /tmp\n"
				  "user nobody\n"
				  "arg /bin/echo\n"
				  "arg a%20b%0A%FF%25\n"
				  "arg \n"
				  "agent 1024\n");
}

static void test_bad_input(void **state)
{
	static const char *const empty[] = { "empty", NULL };
	static const char *const missing[] = { "nope", NULL };
	static const char *const isdir[] = { "/tmp", NULL };
	struct initramfs_config cfg = { .modules = "none",
					.cache_dir = "",
					.root = "nope" };

	(void)state;
	sh(": >empty; echo text >text; mkdir -p m/9.9.9 e; "
	   ": >m/9.9.9/modules.order; mkdir k; echo >k/vmlinuz");
	expect_error(&cfg, -ENOENT, "root nope");
	cfg.root = "empty";
	expect_error(&cfg, -EINVAL, "empty");
	cfg.root = "text";
	expect_error(&cfg, -EINVAL, "neither");
	cfg.root = NULL;
	cfg.initrds = empty;
	expect_error(&cfg, -EINVAL, "empty");
	cfg.initrds = missing;
	expect_error(&cfg, -ENOENT, "nope");
	cfg.initrds = isdir;
	expect_error(&cfg, -EINVAL, "not a file");
	cfg.initrds = NULL;

	cfg.modules = NULL;
	cfg.kernel = "k/vmlinuz";
	expect_error(&cfg, -ENOEXEC, "--modules none");
	cfg.release = "1.2.3-test";
	expect_error(&cfg, -ENOENT, "--modules");
	cfg.modules = "m";
	expect_error(&cfg, -ENOENT, "9.9.9");
	cfg.modules = "e";
	expect_error(&cfg, -ENOENT, "holds no kernel modules");
	cfg.modules = "text";
	expect_error(&cfg, -ENOTDIR, "not a directory");
	cfg.modules = "nope";
	expect_error(&cfg, -ENOENT, "nope");
	cfg.modules = "m/9.9.9"; /* no virtio_mmio in it */
	expect_error(&cfg, -ENOENT, "virtio_mmio");
}

/* A kernel that has all built in needs no directory. */
static void test_builtin(void **state)
{
	struct initramfs_config cfg = { .kernel = "k/vmlinuz",
					.release = "1.2.3-test",
					.cache_dir = "",
					.want = INITRAMFS_WANT_BLK };
	struct initramfs *in;

	(void)state;
	sh("mkdir k && printf 'CONFIG_VIRTIO_MMIO=y\\nCONFIG_VIRTIO_BLK=y\\n"
	   "CONFIG_VIRTIO_CONSOLE=y\\n' >k/config-1.2.3-test");
	initramfs_destroy(build(&cfg));
	sh("d=k/modules/1.2.3-test; mkdir -p $d && : >$d/modules.order && "
	   "printf 'kernel/drivers/virtio/virtio_mmio.ko\\n"
	   "kernel/drivers/block/virtio_blk.ko\\n' >$d/modules.builtin");
	in = build(&cfg);
	assert_int_equal(initramfs_modules(in), 0);
	initramfs_destroy(in);
}

/* A kernel module as far as we look at one. */
static void write_module(const char *path, const char *info, size_t len)
{
	static const char names[] = "\0.modinfo\0.names";
	Elf64_Ehdr h = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64,
				      ELFDATA2LSB },
			 .e_shentsize = sizeof(Elf64_Shdr),
			 .e_shoff = sizeof(h),
			 .e_shnum = 2,
			 .e_shstrndx = 1 };
	Elf64_Shdr s[2] = { { .sh_name = 1,
			      .sh_offset = sizeof(h) + sizeof(s),
			      .sh_size = len },
			    { .sh_name = 10,
			      .sh_offset = sizeof(h) + sizeof(s) + len,
			      .sh_size = sizeof(names) } };
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fwrite(&h, sizeof(h), 1, f);
	fwrite(s, sizeof(s), 1, f);
	fwrite(info, len, 1, f);
	fwrite(names, sizeof(names), 1, f);
	assert_int_equal(fclose(f), 0);
}

#define VERMAGIC "vermagic=1.2.3-test SMP"

static void test_softdeps(void **state)
{
	static const char mmio[] = VERMAGIC "\0softdep=pre: virtio_console";
	static const char con[] = VERMAGIC "\0softdep=pre: virtio_mmio absent";
	static const char head[] = VERMAGIC "\0depends=virtio_mmio";
	const size_t many = 300000;
	struct initramfs_config cfg = { .release = "1.2.3-test",
					.cache_dir = "",
					.modules = "d",
					.want = INITRAMFS_WANT_CONSOLE |
						INITRAMFS_WANT_BLK };
	char *blk = calloc(1, sizeof(head) + 9 * many), *p = blk, text[500];
	struct initramfs *in;

	(void)state;
	/* Two that name each other, and one that never ends naming. */
	sh("mkdir d && printf 'virtio_mmio.ko\nvirtio_console.ko\n"
	   "virtio_blk.ko\n' >d/modules.order");
	write_module("d/virtio_mmio.ko", mmio, sizeof(mmio));
	write_module("d/virtio_console.ko", con, sizeof(con));
	memcpy(p, head, sizeof(head));
	p += sizeof(head);
	for (size_t i = 0; i < many; i++, p += 9)
		memcpy(p, "softdep=", 9);
	write_module("d/virtio_blk.ko", blk, (size_t)(p - blk));
	alarm(20);
	in = build(&cfg);
	alarm(0);
	assert_int_equal(initramfs_modules(in), 3);
	initramfs_destroy(in);
	unpack_all();
	sh_out("grep ^module x/.arcvmm/config", text, sizeof(text));
	assert_string_equal(text, "module virtio_console\n"
				  "module virtio_mmio virtio_console\n"
				  "module virtio_blk virtio_mmio\n");
	free(blk);
}

struct maker {
	struct initramfs_config cfg;
	struct thread thread;
	char *got;
	uint64_t size;
};

static void make_quietly(void *arg)
{
	struct maker *m = arg;
	struct initramfs *in;

	free(m->got);
	m->got = NULL;
	if (initramfs_build(&m->cfg, &in, NULL))
		return;
	m->size = initramfs_size(in);
	m->got = malloc(m->size);
	if (m->got && initramfs_load(in, m->got, NULL))
		memset(m->got, 0, m->size);
	initramfs_destroy(in);
}

/* VMs of one process that start together fill the cache together. */
static void test_cache_shared(void **state)
{
	static const char *const names[] = { "virtio_mmio", "virtio_console",
					     "virtio_blk" };
	static const size_t len = 2 << 20;
	struct maker m[2];
	char *info = calloc(1, len), *want[2], path[64];

	(void)state;
	memset(m, 0, sizeof(m));
	sh("mkdir d && printf 'virtio_mmio.ko\nvirtio_console.ko\n"
	   "virtio_blk.ko\n' >d/modules.order");
	for (size_t i = 0; i < array_size(names); i++) {
		memset(info, 'a' + (int)i, len);
		strcpy(info, VERMAGIC);
		snprintf(path, sizeof(path), "d/%s.ko", names[i]);
		write_module(path, info, len);
	}
	for (unsigned i = 0; i < 2; i++) {
		m[i].cfg = (struct initramfs_config){
			.release = "1.2.3-test",
			.modules = "d",
			.cache_dir = "",
			.want = i ? INITRAMFS_WANT_BLK : INITRAMFS_WANT_CONSOLE,
		};
		make_quietly(&m[i]);
		want[i] = m[i].got;
		m[i].got = NULL;
		m[i].cfg.cache_dir = "cache";
	}
	for (unsigned round = 0; round < 20; round++) {
		sh("rm -rf cache && mkdir cache");
		/* Made, then out of the cache. */
		for (unsigned pass = 0; pass < 2; pass++) {
			for (unsigned i = 0; i < 2; i++)
				thread_start(&m[i].thread, "maker",
					     make_quietly, &m[i]);
			for (unsigned i = 0; i < 2; i++) {
				thread_join(&m[i].thread);
				assert_non_null(m[i].got);
				assert_memory_equal(m[i].got, want[i],
						    m[i].size);
			}
		}
		sh("test $(ls -A cache | wc -l) = 2");
	}
	for (unsigned i = 0; i < 2; i++) {
		free(m[i].got);
		free(want[i]);
	}
	free(info);
}

/* ---- stock kernels ---- */

static const char *const kernels[] = { "/tmp/kernels/6.1",
				       "/tmp/kernels/6.12" };

/* Path and release of an unpacked kernel package, or false. */
static bool stock(const char *top, char path[256], const char **release)
{
	char pattern[128];
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/boot/vmlinuz-*", top);
	if (glob(pattern, 0, NULL, &g))
		return false;
	snprintf(path, 256, "%s", g.gl_pathv[0]);
	globfree(&g);
	*release = strstr(path, "vmlinuz-") + 8;
	return true;
}

static void test_stock_modules(void **state)
{
	struct initramfs_config cfg = {
		.want = INITRAMFS_WANT_BLK | INITRAMFS_WANT_CONSOLE |
			INITRAMFS_WANT_RNG | INITRAMFS_WANT_VSOCK |
			INITRAMFS_WANT_NET | INITRAMFS_WANT_PVPANIC,
		.root_disk = "label=root",
		.root_overlay = true,
		.cache_dir = "cache",
	};
	bool any = false;

	(void)state;
	sh("mkdir cache");
	for (size_t i = 0; i < 2; i++) {
		char path[256], text[4096];
		struct initramfs *in;

		if (!stock(kernels[i], path, &cfg.release))
			continue;
		any = true;
		cfg.kernel = path;
		in = build(&cfg);
		assert_true(initramfs_modules(in) >= 10);
		initramfs_destroy(in);
		sh("cp out.cpio first.cpio");
		/* Out of the cache it is the same. */
		initramfs_destroy(build(&cfg));
		sh("cmp out.cpio first.cpio");
		sh("rm -rf x");
		unpack_all();
		sh_out("cat x/.arcvmm/config", text, sizeof(text));
		assert_non_null(strstr(text, "module virtio_mmio"));
		assert_non_null(strstr(text, "load virtio_mmio\n"));
		assert_non_null(strstr(text, "load vmw_vsock_virtio_transport"
					     "\n"));
		assert_non_null(strstr(text, "module net_failover failover\n"));
		assert_non_null(strstr(text, "module btrfs "));
		assert_null(strstr(text, "load btrfs"));
		assert_null(strstr(text, "module ext4"));
		/* Each has what it needs before it, and is a module. */
		sh("awk '/^module/ { for (i = 3; i <= NF; i++) if (!seen[$i]) "
		   "exit 1; seen[$2] = 1; "
		   "if (system(\"head -c4 x/.arcvmm/modules/\" $2 \".ko | "
		   "grep -q ELF\")) exit 1 }' x/.arcvmm/config");
		if (have("modinfo"))
			sh("for m in x/.arcvmm/modules/*; do "
			   "modinfo -F vermagic $m >/dev/null || exit 1; done");
	}
	if (!any) {
		skip_because("no kernels in /tmp/kernels");
	}
}

static void test_stock_dep(void **state)
{
	struct initramfs_config cfg = { .want = INITRAMFS_WANT_BLK,
					.cache_dir = "",
					.modules = "m" };
	char path[256], cmd[640], with[4096], without[4096];
	const char *release;

	(void)state;
	if (!stock(kernels[0], path, &release) || !have("depmod")) {
		skip_because("no kernel or depmod");
	}
	cfg.release = release;
	cfg.kernel = path;
	snprintf(cmd, sizeof(cmd),
		 "mkdir -p m && cp -r --reflink=auto "
		 "%s/lib/modules/%s m/ && depmod -b . -C /dev/null %s "
		 "2>/dev/null; mkdir -p lib && mv m lib/modules && "
		 "depmod -b . %s && mv lib/modules m",
		 kernels[0], release, release, release);
	sh(cmd);
	initramfs_destroy(build(&cfg));
	unpack_all();
	sh_out("grep ^module x/.arcvmm/config", with, sizeof(with));
	cfg.modules = NULL;
	initramfs_destroy(build(&cfg));
	sh("rm -rf x");
	unpack_all();
	sh_out("grep ^module x/.arcvmm/config", without, sizeof(without));
	assert_non_null(strstr(with, "module virtio_blk"));
	assert_int_equal(strlen(with) > 0, strlen(without) > 0);

	/* The same directory under another kernel's name. */
	cfg.release = "6.1.0-1-other";
	cfg.modules = "m/6.1.0-1-other";
	snprintf(cmd, sizeof(cmd), "mv m/%s m/6.1.0-1-other", release);
	sh(cmd);
	expect_error(&cfg, -EXDEV, "of another kernel");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_dir),
		T(test_tar),
		T(test_tar_names),
		T(test_tar_bad),
		T(test_tar_links),
		T(test_root_kind),
		T(test_files_that_change),
		T(test_config),
		T(test_bad_input),
		T(test_builtin),
		T(test_softdeps),
		T(test_cache_shared),
		T(test_stock_modules),
		T(test_stock_dep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
