/*
 * Run one instruction natively, from any register state, and come back.
 *
 * Theory of operation: a signal frame is made by hand, with the case's
 * registers, flags (TF set) and FXSAVE image, and given to rt_sigreturn(): the
 * kernel loads all of it at once and continues at the instruction, in 64-bit or,
 * by the CS in the frame, in 32-bit code. The trap after the instruction, or
 * its fault, is a signal on an alternate stack whose handler copies the state
 * out of *its* frame, trap number, error code and CR2 included, and leaves by a
 * jump back into native_run(). So a case costs one system call and one signal.
 *
 * The handler starts in the case's world: FS is not the C library's (so no
 * stack protector, no TLS, no errno until it is put back), AC may be set, the
 * data segment registers may hold anything.
 */
#include "native.h"

#include <asm/ldt.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "layout.h"

#define USER32_CS 0x23
#define USER_DS	  0x2b
#define USER_CS	  0x33
#define USER16_CS 0x07 /* our own, in the LDT: base CODE_LA, 64 KiB */

/* The kernel's flags in uc_flags. */
#define UC_SIGCONTEXT_SS 2

#define ALT_SIZE (64 << 10)

/* One thread, one case at a time: the handler finds all here. */
static struct {
	uint8_t *view[PAGE_COUNT];
	uint8_t *alt;
	uint64_t home_fs, home_gs;
	uint64_t code_base;
	void *resume[5]; /* __builtin_setjmp */
	struct outcome *out;
	ucontext_t frame __attribute__((aligned(64)));
	uint8_t fx[1024] __attribute__((aligned(64)));
} n;

#define BARE __attribute__((no_stack_protector, noinline))

static inline uint64_t rdfsbase(void)
{
	uint64_t v;

	asm volatile("rdfsbase %0" : "=r"(v));
	return v;
}

static inline uint64_t rdgsbase(void)
{
	uint64_t v;

	asm volatile("rdgsbase %0" : "=r"(v));
	return v;
}

static inline void wrfsbase(uint64_t v)
{
	asm volatile("wrfsbase %0" : : "r"(v));
}

static inline void wrgsbase(uint64_t v)
{
	asm volatile("wrgsbase %0" : : "r"(v));
}

#define GET_SEG(reg)                                             \
	({                                                       \
		uint32_t sel_;                                   \
		asm volatile("mov %%" #reg ", %0" : "=r"(sel_)); \
		(uint16_t) sel_;                                 \
	})
#define SET_SEG(reg, sel) \
	asm volatile("mov %0, %%" #reg : : "r"((uint32_t)(sel)))

static const uint8_t greg_of[16] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8,	 REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

BARE static void on_signal(int sig, siginfo_t *info, void *ctx)
{
	const ucontext_t *uc = ctx;
	const greg_t *g = uc->uc_mcontext.gregs;
	struct outcome *o = n.out;
	uint64_t fs_base, gs_base;
	uint16_t fs, gs;

	/* Clear AC and whatever else before anything else happens. */
	asm volatile("push $2\n\tpopf" : : : "memory", "cc");
	fs_base = rdfsbase();
	gs_base = rdgsbase();
	fs = GET_SEG(fs);
	gs = GET_SEG(gs);
	if (fs)
		SET_SEG(fs, 0);
	if (gs)
		SET_SEG(gs, 0);
	wrfsbase(n.home_fs);
	wrgsbase(n.home_gs);

	(void)sig;
	(void)info;
	if (!o) { /* the harness or the engine itself: die by it */
		dprintf(2, "oracle: vector %d at %#llx, address %#llx\n",
			(int)g[REG_TRAPNO], (unsigned long long)g[REG_RIP],
			(unsigned long long)g[REG_CR2]);
		_exit(99);
	}
	n.out = NULL;
	o->out.fs_base = fs_base;
	o->out.gs_base = gs_base;
	o->out.fs = fs;
	o->out.gs = gs;
	o->out.ds = GET_SEG(ds);
	o->out.es = GET_SEG(es);
	for (int i = 0; i < 16; i++)
		o->out.gpr[i] = (uint64_t)g[greg_of[i]];
	o->out.rip = (uint64_t)g[REG_RIP] + n.code_base;
	o->out.rflags = (uint64_t)g[REG_EFL];
	memcpy(o->out.fx, uc->uc_mcontext.fpregs, 512);
	o->vector = (uint8_t)g[REG_TRAPNO];
	o->error = (uint32_t)g[REG_ERR];
	o->cr2 = (uint64_t)g[REG_CR2];
	__builtin_longjmp(n.resume, 1);
}

static void build_frame(const struct ocase *c)
{
	greg_t *g = n.frame.uc_mcontext.gregs;
	uint64_t cs = c->compat == 2 ? USER16_CS
		      : c->compat    ? USER32_CS
				     : USER_CS;

	for (int i = 0; i < 16; i++)
		g[greg_of[i]] = (greg_t)c->in.gpr[i];
	/* Cases have linear addresses. */
	n.code_base = c->compat == 2 ? CODE_LA : 0;
	g[REG_RIP] = (greg_t)(c->in.rip - n.code_base);
	g[REG_EFL] = (greg_t)(c->in.rflags | (c->free_run ? 0 : 0x100));
	g[REG_CSGSFS] = (greg_t)(cs | (uint64_t)USER_DS << 48);
	n.frame.uc_flags = UC_SIGCONTEXT_SS;
	/* Without the extended magic in bytes 464.. it is FXSAVE and no more. */
	memcpy(n.fx, c->in.fx, 464);
	memset(n.fx + 464, 0, 48);
	n.frame.uc_mcontext.fpregs = (void *)n.fx;
}

/* Never returns here: the handler jumps to native_run(). */
BARE static void go(const struct ocase *c)
{
	uint64_t fs_base = c->in.fs_base, gs_base = c->in.gs_base;

	SET_SEG(ds, c->in.ds);
	SET_SEG(es, c->in.es);
	/* Loading a selector loads its base: ours comes after. */
	if (c->in.gs)
		SET_SEG(gs, c->in.gs);
	wrgsbase(gs_base);
	if (c->in.fs)
		SET_SEG(fs, c->in.fs);
	wrfsbase(fs_base);
	asm volatile("mov %0, %%rsp\n\t"
		     "mov $15, %%eax\n\t" /* rt_sigreturn */
		     "syscall\n\t"
		     "ud2"
		     :
		     : "r"(&n.frame)
		     : "memory");
	__builtin_unreachable();
}

BARE void native_run(const struct ocase *c, struct outcome *o)
{
	build_frame(c);
	n.out = o;
	if (!__builtin_setjmp(n.resume))
		go(c);
	/* The handler's frame on the alternate stack is simply forgotten. */
	SET_SEG(ds, USER_DS);
	SET_SEG(es, USER_DS);
}

uint8_t *native_page(unsigned i)
{
	return n.view[i];
}

static int map_pages(void)
{
	static const int prot[] = {
		[PAGE_RW] = PROT_READ | PROT_WRITE,
		[PAGE_RO] = PROT_READ,
		[PAGE_RX] = PROT_READ | PROT_EXEC,
	};
	int fd = memfd_create("oracle", MFD_CLOEXEC);
	uint8_t *all;

	if (fd < 0 || ftruncate(fd, PAGE_COUNT * PAGE))
		return -errno;
	all = mmap(NULL, PAGE_COUNT * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
		   fd, 0);
	if (all == MAP_FAILED)
		return -errno;
	for (unsigned i = 0; i < PAGE_COUNT; i++) {
		void *p = mmap((void *)(uintptr_t)pages[i].la, PAGE,
			       prot[pages[i].kind],
			       MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE,
			       fd, (off_t)i * PAGE);

		if (p == MAP_FAILED)
			return -errno;
		n.view[i] = all + i * PAGE;
	}
	close(fd);
	return 0;
}

/* A 16-bit code segment over the code pages. */
static int make_code16(void)
{
	struct user_desc d = { .base_addr = CODE_LA,
			       .limit = 0xffff,
			       .contents = 2 /* code */ };

	return syscall(SYS_modify_ldt, 0x11, &d, sizeof(d)) ? -errno : 0;
}

int native_init(void)
{
	static const int sigs[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE };
	struct sigaction sa = { .sa_sigaction = on_signal };
	stack_t ss = { .ss_size = ALT_SIZE };
	int rc = map_pages();

	if (!rc)
		rc = make_code16();
	if (rc)
		return rc;
	n.alt = mmap(NULL, ALT_SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (n.alt == MAP_FAILED)
		return -errno;
	ss.ss_sp = n.alt;
	if (sigaltstack(&ss, NULL))
		return -errno;
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	for (unsigned i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++)
		if (sigaction(sigs[i], &sa, NULL))
			return -errno;
	n.home_fs = rdfsbase();
	n.home_gs = rdgsbase();
	return 0;
}
