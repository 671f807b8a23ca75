/*
 * Native thunks: making and keeping them (thunk.h).
 *
 * Theory of operation
 * -------------------
 * A thunk is called as a C function with struct thunk_args in RDI and uses only
 * registers that the ABI lets a callee destroy. PADDB xmm, m128 becomes
 *
 *	mov	r8, [rdi]		the bytes of the guest's register
 *	mov	rsi, [rdi + 8]		the bytes of the memory operand
 *	movaps	xmm1, [r8]
 *	paddb	xmm1, [rsi]		the instruction, renamed
 *	movaps	[r8], xmm1
 *	ret
 *
 * Renaming: ModRM.reg becomes register 1 (RAX for a GPR), ModRM.rm register 2
 * (RCX for a GPR), or [rsi] with a memory operand. XMM0 stays itself where it
 * is an implicit operand. Around the instruction goes what it needs and no
 * more: MXCSR for floating point, PUSHFQ for those that set flags, EMMS after
 * the MMX registers were used, GPRs. MXCSR and the x87 control word of the
 * host thread are put back.
 *
 * An x87 instruction works on the whole stack, so its thunk is FXRSTOR, the
 * instruction, FXSAVE, FNINIT on an image that the caller made.
 *
 * The lean form of a thunk takes the two operands as arguments and leaves MXCSR
 * and the x87 registers alone: for callers that have the guest's there already.
 *
 *	movaps	xmm1, [rdi]
 *	paddb	xmm1, [rsi]
 *	movaps	[rdi], xmm1
 *	ret
 *
 * The caller masks all exceptions of SSE in args.mxcsr, so a thunk never traps:
 * sse.c finds out about unmasked ones from the flags. x87 exceptions are
 * delivered by hardware at the *next* x87 instruction, so the guest's own mask
 * is used there, and FXSAVE and FNINIT do not wait.
 *
 * Thunks are found by index: opcode row x {memory, W} or, for instructions with
 * an immediate, a second table per row. Readers take no lock: a pointer goes
 * from NULL to its value once, with release order (paired with the acquire in
 * pool_get()); writers hold the lock. The space needed by all thunks there can
 * be is below POOL_BYTES, see pool_emit().
 */
#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/err.h"
#include "base/util.h"
#include "hv/soft/fx.h"
#include "hv/soft/thunk.h"

#define POOL_BYTES MiB(8)
#define THUNK_MAX  112 /* bytes of the longest one */

/* Variants of a row: bit 0 memory operand, bit 1 REX.W, bit 2 lean. */
#define FORMS	   8
#define X87_THUNKS (8 * 256)

struct thunk_pool {
	pthread_mutex_t lock; /* writers of what follows */
	uint8_t *write, *exec; /* the same memory */
	size_t used;
	bool has[SSE_F_COUNT];
	/* Those without an immediate; those with: [digit or 0][imm][form]. */
	thunk_fn *plain[SSE_MAPS * SSE_PFXS * 256][FORMS];
	thunk_fn **with_imm[SSE_MAPS * SSE_PFXS * 256];
	thunk_fn *x87[X87_THUNKS], *x87_lean[X87_THUNKS];
};

static void find_features(bool has[SSE_F_COUNT])
{
	unsigned a, b, c = 0, d = 0;

	__get_cpuid(1, &a, &b, &c, &d);
	has[SSE_F_MMX] = d & bit_MMX;
	has[SSE_F_SSE] = d & bit_SSE;
	has[SSE_F_SSE2] = d & bit_SSE2;
	has[SSE_F_SSE3] = c & bit_SSE3;
	has[SSE_F_SSSE3] = c & bit_SSSE3;
	has[SSE_F_SSE41] = c & bit_SSE4_1;
	has[SSE_F_SSE42] = c & bit_SSE4_2;
	has[SSE_F_AES] = c & bit_AES;
	has[SSE_F_PCLMUL] = c & bit_PCLMUL;
}

uint32_t thunk_cpuid_1c(void)
{
	unsigned a, b, c = 0, d;

	__get_cpuid(1, &a, &b, &c, &d);
	return c & (bit_SSE3 | bit_SSSE3 | bit_SSE4_1 | bit_SSE4_2 | bit_AES |
		    bit_PCLMUL);
}

static int map_code(struct thunk_pool *p, struct err *e)
{
	int fd = memfd_create("arcvmm-thunks", MFD_CLOEXEC), rc;

	if (fd < 0)
		return err_set(e, -errno, "no memfd for thunks: errno %d",
			       errno);
	if (ftruncate(fd, POOL_BYTES) < 0)
		goto fail;
	p->write = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			fd, 0);
	if (p->write == MAP_FAILED)
		goto fail;
	p->exec = mmap(NULL, POOL_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd,
		       0);
	if (p->exec == MAP_FAILED) {
		rc = err_set(e, -errno,
			     "the host forbids executable memory, which the "
			     "software CPU needs for SSE and x87");
		munmap(p->write, POOL_BYTES);
		close(fd);
		return rc;
	}
	close(fd);
	return 0;
fail:
	rc = err_set(e, -errno, "no memory for thunks: errno %d", errno);
	close(fd);
	return rc;
}

int thunk_pool_create(struct thunk_pool **out, struct err *e)
{
	struct thunk_pool *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return err_set(e, -ENOMEM, "no memory for the thunk table");
	rc = map_code(p, e);
	if (rc < 0) {
		free(p);
		return rc;
	}
	pthread_mutex_init(&p->lock, NULL);
	find_features(p->has);
	*out = p;
	return 0;
}

void thunk_pool_destroy(struct thunk_pool *p)
{
	if (!p)
		return;
	munmap(p->write, POOL_BYTES);
	munmap(p->exec, POOL_BYTES);
	pthread_mutex_destroy(&p->lock);
	for (size_t i = 0; i < array_size(p->with_imm); i++)
		free(p->with_imm[i]);
	free(p);
}

bool thunk_has(const struct thunk_pool *p, enum sse_feature f)
{
	return p->has[f];
}

/* A code buffer being filled. */
struct code {
	uint8_t b[THUNK_MAX];
	unsigned n;
};

static void put(struct code *c, const void *bytes, unsigned n)
{
	bug_on(c->n + n > sizeof(c->b));
	memcpy(c->b + c->n, bytes, n);
	c->n += n;
}
#define PUT(c, ...)                                \
	put((c), (const uint8_t[]){ __VA_ARGS__ }, \
	    sizeof((const uint8_t[]){ __VA_ARGS__ }))

/*
 * Copy @c into the pool. All thunks there can be: about 60 rows with an
 * immediate (x 256, x 2 or 4 forms, x digits of the shift groups, x 2 lean or
 * not) make some 80,000, 800 without, 1,200 of x87; at 16-byte granularity, 60
 * bytes on average, 5 MiB.
 */
static thunk_fn *pool_emit(struct thunk_pool *p, const struct code *c)
{
	uint8_t *at = p->exec + p->used;

	bug_on(p->used + c->n > POOL_BYTES);
	memcpy(p->write + p->used, c->b, c->n);
	p->used += align_up(c->n, 16);
	return (thunk_fn *)(uintptr_t)at;
}

/* Load or store register @n (1 or 2) of @kind from [r8] or [rsi]. */
static void put_move(struct code *c, unsigned kind, unsigned n, bool store)
{
	/* [r8] is rm 0 with REX.B, [rsi] rm 6. */
	uint8_t modrm = (uint8_t)(n << 3 | (n == 1 ? 0 : 6));

	if (kind == SSE_XMM) { /* movaps */
		if (n == 1)
			PUT(c, 0x41);
		PUT(c, 0x0f, store ? 0x29 : 0x28, modrm);
	} else if (kind == SSE_MM) { /* movq */
		if (n == 1)
			PUT(c, 0x41);
		PUT(c, 0x0f, store ? 0x7f : 0x6f, modrm);
	}
}

static void put_insn(struct code *c, const struct sse_op *op,
		     const struct sse_code *s)
{
	static const uint8_t prefix[SSE_PFXS] = { 0, 0x66, 0xf3, 0xf2 };
	unsigned reg = op->reg == SSE_DIGIT ? s->digit
		       : op->reg == SSE_GPR ? 0
					    : 1;
	unsigned rm = op->rm == SSE_GPR ? 1 : 2;

	if (s->pfx)
		PUT(c, prefix[s->pfx]);
	if (s->w)
		PUT(c, 0x48);
	PUT(c, 0x0f);
	if (s->map == SSE_MAP_0F38)
		PUT(c, 0x38);
	if (s->map == SSE_MAP_0F3A)
		PUT(c, 0x3a);
	PUT(c, s->opcode,
	    (uint8_t)(s->mem ? reg << 3 | 6 : 0xc0 | reg << 3 | rm));
	if (op->flags & SSE_IMM)
		PUT(c, s->imm);
}

static void make_sse(struct code *c, const struct sse_op *op,
		     const struct sse_code *s)
{
	bool gpr = op->reg == SSE_GPR || (op->rm == SSE_GPR && !s->mem) ||
		   op->flags & SSE_STRING;
	bool mmx = op->reg == SSE_MM || (op->rm == SSE_MM && !s->mem);

	PUT(c, 0x4c, 0x8b, 0x07); /* mov r8, [rdi] */
	PUT(c, 0x48, 0x8b, 0x77, 8); /* mov rsi, [rdi + 8] */
	put_move(c, op->reg, 1, false);
	if (!s->mem)
		put_move(c, op->rm, 2, false);
	if (op->flags & (SSE_XMM0_IN | SSE_XMM0_OUT))
		PUT(c, 0x4c, 0x8b, 0x4f, 56); /* mov r9, [rdi + 56] */
	if (op->flags & SSE_XMM0_IN)
		PUT(c, 0x41, 0x0f, 0x28, 0x01); /* movaps xmm0, [r9] */
	if (gpr) {
		PUT(c, 0x48, 0x8b, 0x47, 16); /* mov rax, [rdi + 16] */
		PUT(c, 0x48, 0x8b, 0x4f, 24); /* mov rcx, [rdi + 24] */
		PUT(c, 0x48, 0x8b, 0x57, 32); /* mov rdx, [rdi + 32] */
	}
	if (op->flags & SSE_FP) {
		PUT(c, 0x0f, 0xae, 0x5f, 52); /* stmxcsr [rdi + 52] */
		PUT(c, 0x0f, 0xae, 0x57, 48); /* ldmxcsr [rdi + 48] */
	}
	put_insn(c, op, s);
	if (op->flags & SSE_EFLAGS)
		PUT(c, 0x9c, 0x8f, 0x47, 40); /* pushfq; pop [rdi + 40] */
	if (op->flags & SSE_FP) {
		PUT(c, 0x0f, 0xae, 0x5f, 48); /* stmxcsr [rdi + 48] */
		PUT(c, 0x0f, 0xae, 0x57, 52); /* ldmxcsr [rdi + 52] */
	}
	if (gpr) {
		PUT(c, 0x48, 0x89, 0x47, 16); /* mov [rdi + 16], rax */
		PUT(c, 0x48, 0x89, 0x4f, 24); /* mov [rdi + 24], rcx */
	}
	if (op->flags & SSE_XMM0_OUT)
		PUT(c, 0x41, 0x0f, 0x29, 0x01); /* movaps [r9], xmm0 */
	if (op->flags & SSE_TO_RM) {
		if (!s->mem)
			put_move(c, op->rm, 2, true);
	} else if (!(op->flags & SSE_NO_DST)) {
		put_move(c, op->reg, 1, true);
	}
	if (mmx)
		PUT(c, 0x0f, 0x77); /* emms */
	PUT(c, 0xc3);
}

/* Load or store register @n (1, 2) of @kind from [rdi] or [rsi]. */
static void put_lean_move(struct code *c, unsigned n, bool store)
{
	PUT(c, 0x0f, store ? 0x29 : 0x28, (uint8_t)(n << 3 | (n == 1 ? 7 : 6)));
}

static bool has_lean(const struct sse_op *op)
{
	return op->reg != SSE_MM && op->rm != SSE_MM &&
	       !(op->flags & (SSE_XMM0_IN | SSE_XMM0_OUT | SSE_STRING));
}

static void make_lean(struct code *c, const struct sse_op *op,
		      const struct sse_code *s)
{
	struct sse_code as = *s;

	/* A GPR in ModRM.rm is memory here: its low bytes come first. */
	if (op->rm == SSE_GPR && !s->mem) {
		as.mem = true;
		if (op->flags & SSE_TO_RM) /* mov qword [rsi], 0 */
			PUT(c, 0x48, 0xc7, 0x06, 0, 0, 0, 0);
	}
	if (op->reg == SSE_XMM)
		put_lean_move(c, 1, false);
	if (!as.mem)
		put_lean_move(c, 2, false);
	put_insn(c, op, &as);
	if (op->flags & SSE_EFLAGS)
		PUT(c, 0x9c, 0x58); /* pushfq; pop rax */
	if (op->reg == SSE_GPR)
		PUT(c, 0x48, 0x89, 0x07); /* mov [rdi], rax */
	else if (op->flags & SSE_TO_RM && !as.mem)
		put_lean_move(c, 2, true);
	else if (!(op->flags & (SSE_TO_RM | SSE_NO_DST)))
		put_lean_move(c, 1, true);
	PUT(c, 0xc3);
}

/* Where the pointer of @s is kept; NULL before its table exists. */
static thunk_fn **sse_slot(struct thunk_pool *p, const struct sse_op *op,
			   const struct sse_code *s, bool lean)
{
	size_t row = (size_t)(op - &sse_ops[0][0][0]);
	unsigned form =
		(unsigned)s->mem | (unsigned)s->w << 1 | (unsigned)lean << 2;
	thunk_fn **t;

	if (!(op->flags & SSE_IMM))
		return &p->plain[row][form];
	/* acquire: pairs with the release in thunk_sse() */
	t = __atomic_load_n(&p->with_imm[row], __ATOMIC_ACQUIRE);
	if (!t)
		return NULL;
	return &t[((unsigned)s->digit * 256 + s->imm) * FORMS + form];
}

static thunk_fn *make_locked(struct thunk_pool *p, const struct sse_op *op,
			     const struct sse_code *s, bool lean)
{
	thunk_fn **slot = sse_slot(p, op, s, lean), **t;
	struct code c = { .n = 0 };
	thunk_fn *fn;

	if (!slot) {
		t = calloc((op->reg == SSE_DIGIT ? 8u : 1u) * 256 * FORMS,
			   sizeof(*t));
		if (!t)
			return NULL;
		/* release: pairs with the acquire in sse_slot() */
		__atomic_store_n(&p->with_imm[op - &sse_ops[0][0][0]], t,
				 __ATOMIC_RELEASE);
		slot = sse_slot(p, op, s, lean);
	}
	if (*slot)
		return *slot;
	if (lean)
		make_lean(&c, op, s);
	else
		make_sse(&c, op, s);
	fn = pool_emit(p, &c);
	/* release: pairs with the acquire in thunk_sse() */
	__atomic_store_n(slot, fn, __ATOMIC_RELEASE);
	return fn;
}

static thunk_fn *find_sse(struct thunk_pool *p, const struct sse_code *c,
			  bool lean)
{
	const struct sse_op *op;
	struct sse_code s = *c;
	thunk_fn **slot, *fn;

	bug_on(s.map >= SSE_MAPS || s.pfx >= SSE_PFXS || s.digit > 7);
	op = &sse_ops[s.map][s.pfx][s.opcode];
	if (!p->has[op->feature] || (lean && !has_lean(op)))
		return NULL;
	if (op->flags & (s.mem ? SSE_REG_ONLY : SSE_MEM_ONLY))
		return NULL;
	if (op->reg != SSE_DIGIT)
		s.digit = 0;
	else if (!(op->digits >> s.digit & 1))
		return NULL;
	if (!(op->flags & SSE_REXW))
		s.w = false;
	if (!(op->flags & SSE_IMM))
		s.imm = 0;
	if (op->flags & SSE_IMM3)
		s.imm &= 7;

	slot = sse_slot(p, op, &s, lean);
	/* acquire: pairs with the release in make_locked() */
	fn = slot ? __atomic_load_n(slot, __ATOMIC_ACQUIRE) : NULL;
	if (fn)
		return fn;
	pthread_mutex_lock(&p->lock);
	fn = make_locked(p, op, &s, lean);
	pthread_mutex_unlock(&p->lock);
	return fn;
}

thunk_fn *thunk_sse(struct thunk_pool *p, const struct sse_code *c)
{
	return find_sse(p, c, false);
}

thunk_lean_fn *thunk_sse_lean(struct thunk_pool *p, const struct sse_code *c)
{
	return (thunk_lean_fn *)(uintptr_t)find_sse(p, c, true);
}

/* FCOMI and friends set flags, FCMOVcc reads them. */
static bool x87_flags_in(uint8_t opcode, uint8_t modrm)
{
	return (opcode == 0xda || opcode == 0xdb) && modrm >= 0xc0 &&
	       modrm < 0xe0;
}

static bool x87_flags_out(uint8_t opcode, uint8_t modrm)
{
	return (opcode == 0xdb || opcode == 0xdf) && modrm >= 0xe8;
}

static void put_x87(struct code *c, uint8_t opcode, uint8_t modrm)
{
	PUT(c, opcode, (uint8_t)(modrm >= 0xc0 ? modrm : (modrm & 0x38) | 6));
}

static void make_x87(struct code *c, uint8_t opcode, uint8_t modrm)
{
	PUT(c, 0x4c, 0x8b, 0x07); /* mov r8, [rdi] */
	PUT(c, 0x48, 0x8b, 0x77, 8); /* mov rsi, [rdi + 8] */
	PUT(c, 0x0f, 0xae, 0x5f, 52); /* stmxcsr [rdi + 52] */
	PUT(c, 0xd9, 0x7f, 64); /* fnstcw [rdi + 64] */
	PUT(c, 0x49, 0x0f, 0xae, 0x08); /* fxrstor64 [r8] */
	if (x87_flags_in(opcode, modrm))
		PUT(c, 0xff, 0x77, 40, 0x9d); /* push [rdi + 40]; popfq */
	put_x87(c, opcode, modrm);
	if (x87_flags_out(opcode, modrm))
		PUT(c, 0x9c, 0x8f, 0x47, 40); /* pushfq; pop [rdi + 40] */
	PUT(c, 0x49, 0x0f, 0xae, 0x00); /* fxsave64 [r8] */
	PUT(c, 0xdb, 0xe3); /* fninit */
	PUT(c, 0xd9, 0x6f, 64); /* fldcw [rdi + 64] */
	PUT(c, 0x0f, 0xae, 0x57, 52); /* ldmxcsr [rdi + 52] */
	PUT(c, 0xc3);
}

static void make_x87_lean(struct code *c, uint8_t opcode, uint8_t modrm)
{
	if (x87_flags_in(opcode, modrm))
		PUT(c, 0x57, 0x9d); /* push rdi; popfq */
	put_x87(c, opcode, modrm);
	if (x87_flags_out(opcode, modrm))
		PUT(c, 0x9c, 0x58); /* pushfq; pop rax */
	PUT(c, 0xc3);
}

static thunk_fn *find_x87(struct thunk_pool *p, uint8_t opcode, uint8_t modrm,
			  bool lean)
{
	thunk_fn **slot, *fn;
	struct code c = { .n = 0 };

	bug_on((opcode & 0xf8) != 0xd8);
	if (modrm < 0xc0)
		modrm &= 0x38;
	slot = &(lean ? p->x87_lean : p->x87)[(opcode & 7u) * 256 + modrm];
	/* acquire: pairs with the release below */
	fn = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
	if (fn)
		return fn;
	pthread_mutex_lock(&p->lock);
	if (!*slot) {
		if (lean)
			make_x87_lean(&c, opcode, modrm);
		else
			make_x87(&c, opcode, modrm);
		/* release: pairs with the acquire above */
		__atomic_store_n(slot, pool_emit(p, &c), __ATOMIC_RELEASE);
	}
	fn = *slot;
	pthread_mutex_unlock(&p->lock);
	return fn;
}

thunk_fn *thunk_x87(struct thunk_pool *p, uint8_t opcode, uint8_t modrm)
{
	return find_x87(p, opcode, modrm, false);
}

thunk_lean_x87_fn *thunk_x87_lean(struct thunk_pool *p, uint8_t opcode,
				  uint8_t modrm)
{
	return (thunk_lean_x87_fn *)(uintptr_t)find_x87(p, opcode, modrm, true);
}
