/*
 * Registers as GDB numbers them: one table makes target.xml, the g packet and
 * single registers. The feature names are GDB's ("Debugging with GDB", G.5.17);
 * org.arcvmm.system adds what only a system debugger wants.
 */
#include <stddef.h>
#include <string.h>

#include "base/bytes.h"
#include "base/util.h"
#include "gdb/server.h"
#include "hv/x86_state.h"

/* clang-format off */
#define GPR(n)	"<reg name='" n "' bitsize='64' type='int64'/>"
#define SEG(n)	"<reg name='" n "' bitsize='32' type='int32'/>"
#define ST(n)	"<reg name='st" n "' bitsize='80' type='i387_ext'/>"
#define FP(n)	"<reg name='" n "' bitsize='32' type='int' group='float'/>"
#define XMM(n)	"<reg name='xmm" n "' bitsize='128' type='vec128'/>"
#define SYS(n)	"<reg name='" n "' bitsize='64' type='int64' group='system'/>"

const char gdb_target_xml[] =
	"<?xml version='1.0'?><!DOCTYPE target SYSTEM 'gdb-target.dtd'>"
	"<target><architecture>i386:x86-64</architecture>"
	"<feature name='org.gnu.gdb.i386.core'>"
	"<flags id='eflags' size='4'>"
	"<field name='CF' start='0' end='0'/><field name='' start='1' end='1'/>"
	"<field name='PF' start='2' end='2'/><field name='AF' start='4' end='4'/>"
	"<field name='ZF' start='6' end='6'/><field name='SF' start='7' end='7'/>"
	"<field name='TF' start='8' end='8'/><field name='IF' start='9' end='9'/>"
	"<field name='DF' start='10' end='10'/><field name='OF' start='11' end='11'/>"
	"<field name='NT' start='14' end='14'/><field name='RF' start='16' end='16'/>"
	"<field name='VM' start='17' end='17'/><field name='AC' start='18' end='18'/>"
	"<field name='ID' start='21' end='21'/></flags>"
	GPR("rax") GPR("rbx") GPR("rcx") GPR("rdx") GPR("rsi") GPR("rdi")
	"<reg name='rbp' bitsize='64' type='data_ptr'/>"
	"<reg name='rsp' bitsize='64' type='data_ptr'/>"
	GPR("r8") GPR("r9") GPR("r10") GPR("r11") GPR("r12") GPR("r13")
	GPR("r14") GPR("r15")
	"<reg name='rip' bitsize='64' type='code_ptr'/>"
	"<reg name='eflags' bitsize='32' type='eflags'/>"
	SEG("cs") SEG("ss") SEG("ds") SEG("es") SEG("fs") SEG("gs")
	ST("0") ST("1") ST("2") ST("3") ST("4") ST("5") ST("6") ST("7")
	FP("fctrl") FP("fstat") FP("ftag") FP("fiseg") FP("fioff") FP("foseg")
	FP("fooff") FP("fop")
	"</feature><feature name='org.gnu.gdb.i386.sse'>"
	"<vector id='v4f' type='ieee_single' count='4'/>"
	"<vector id='v2d' type='ieee_double' count='2'/>"
	"<vector id='v16i8' type='int8' count='16'/>"
	"<vector id='v8i16' type='int16' count='8'/>"
	"<vector id='v4i32' type='int32' count='4'/>"
	"<vector id='v2i64' type='int64' count='2'/>"
	"<union id='vec128'><field name='v4_float' type='v4f'/>"
	"<field name='v2_double' type='v2d'/>"
	"<field name='v16_int8' type='v16i8'/><field name='v8_int16' type='v8i16'/>"
	"<field name='v4_int32' type='v4i32'/><field name='v2_int64' type='v2i64'/>"
	"<field name='uint128' type='uint128'/></union>"
	XMM("0") XMM("1") XMM("2") XMM("3") XMM("4") XMM("5") XMM("6") XMM("7")
	XMM("8") XMM("9") XMM("10") XMM("11") XMM("12") XMM("13") XMM("14")
	XMM("15")
	"<reg name='mxcsr' bitsize='32' type='int' group='vector'/>"
	"</feature><feature name='org.gnu.gdb.i386.segments'>"
	GPR("fs_base") GPR("gs_base")
	"</feature><feature name='org.arcvmm.system'>"
	SYS("k_gs_base") SYS("cr0") SYS("cr2") SYS("cr3") SYS("cr4") SYS("cr8")
	SYS("efer") SYS("gdtr") SYS("idtr") SYS("dr6") SYS("dr7")
	"</feature></target>";

#define ST_OFF(f) offsetof(struct hv_x86_vcpu_state, f)
#define FX	  ST_OFF(xsave)
#define SEG_OFF(s, f) \
	(ST_OFF(seg) + (s) * sizeof(struct hv_x86_segment) + \
	 offsetof(struct hv_x86_segment, f))

/* Where a register is in the state: @have bytes of it, shown as @size. */
struct reg {
	uint16_t off;
	uint8_t have, size;
	bool readonly;
};
#define R64(f)	   { ST_OFF(f), 8, 8, false }
#define RGPR(n)	   { ST_OFF(gpr) + 8 * (n), 8, 8, false }
#define RSEG(s)	   { SEG_OFF(s, selector), 2, 4, true }
#define RST(n)	   { FX + 32 + 16 * (n), 10, 10, false }
#define RXMM(n)	   { FX + 160 + 16 * (n), 16, 16, false }
#define RFX(o, have) { FX + (o), have, 4, false }
#define RNONE	   { 0, 0, 4, true }
#define RRO(f)	   { ST_OFF(f), 8, 8, true }

static const struct reg regs[] = {
	RGPR(X86_RAX), RGPR(X86_RBX), RGPR(X86_RCX), RGPR(X86_RDX),
	RGPR(X86_RSI), RGPR(X86_RDI), RGPR(X86_RBP), RGPR(X86_RSP),
	RGPR(8), RGPR(9), RGPR(10), RGPR(11), RGPR(12), RGPR(13), RGPR(14),
	RGPR(15), R64(rip), { ST_OFF(rflags), 4, 4, false },
	RSEG(X86_CS), RSEG(X86_SS), RSEG(X86_DS), RSEG(X86_ES), RSEG(X86_FS),
	RSEG(X86_GS),
	RST(0), RST(1), RST(2), RST(3), RST(4), RST(5), RST(6), RST(7),
	RFX(0, 2), RFX(2, 2), RFX(4, 1), RNONE, RFX(8, 4), RNONE, RFX(16, 4),
	RFX(6, 2),
	RXMM(0), RXMM(1), RXMM(2), RXMM(3), RXMM(4), RXMM(5), RXMM(6), RXMM(7),
	RXMM(8), RXMM(9), RXMM(10), RXMM(11), RXMM(12), RXMM(13), RXMM(14),
	RXMM(15), RFX(24, 4),
	{ SEG_OFF(X86_FS, base), 8, 8, false },
	{ SEG_OFF(X86_GS, base), 8, 8, false },
	{ ST_OFF(msr) + 8 * HV_MSR_KERNEL_GS_BASE, 8, 8, false },
	R64(cr0), R64(cr2), R64(cr3), R64(cr4), RRO(cr8), R64(efer),
	RRO(gdt.base), RRO(idt.base), R64(dr6), RRO(dr7),
};
/* clang-format on */

unsigned gdb_reg_count(void)
{
	return array_size(regs);
}

size_t gdb_regs_size(void)
{
	size_t n = 0;

	for (unsigned i = 0; i < array_size(regs); i++)
		n += regs[i].size;
	return n;
}

size_t gdb_reg_read(const struct hv_x86_vcpu_state *s, unsigned n, uint8_t *to)
{
	const struct reg *r = &regs[n];

	if (n >= array_size(regs))
		return 0;
	memset(to, 0, r->size);
	memcpy(to, (const uint8_t *)s + r->off, r->have);
	return r->size;
}

size_t gdb_reg_write(struct hv_x86_vcpu_state *s, unsigned n,
		     const uint8_t *from)
{
	const struct reg *r = &regs[n];

	if (n >= array_size(regs))
		return 0;
	if (!r->readonly)
		memcpy((uint8_t *)s + r->off, from, r->have);
	return r->size;
}

void gdb_regs_read(const struct hv_x86_vcpu_state *s, uint8_t *to)
{
	for (unsigned i = 0; i < array_size(regs); i++)
		to += gdb_reg_read(s, i, to);
}

void gdb_regs_write(struct hv_x86_vcpu_state *s, const uint8_t *from)
{
	for (unsigned i = 0; i < array_size(regs); i++)
		from += gdb_reg_write(s, i, from);
}
