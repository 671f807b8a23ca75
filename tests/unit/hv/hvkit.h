/*
 * A VM for small guest programs, written in assembly inside the tests.
 *
 *   GUEST(hello, "mov $0x500, %edx\n" "out %eax, %dx\n" GUEST_END);
 *   struct hvkit k;
 *   hvkit_open(&k, 1, NULL);
 *   hvkit_load(&k, 0, hello, hello_end, 0);
 *   hvkit_run(&k, 0);
 *
 * Memory is 4 MiB at 0, the low 4 GiB are mapped one to one. Programs lie at
 * HVKIT_CODE, in 64-bit mode, at CPL 0 or (HVKIT_USER) 3: a paravirtual KVM
 * runs only the latter natively and interprets the former.
 *
 * The engine is KVM, or what ARCVMM_TEST_ENGINE says.
 */
#ifndef ARC_TESTS_HVKIT_H
#define ARC_TESTS_HVKIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "bus/bus.h"
#include "hv/hv.h"
#include "hv/x86_flat.h"
#include "mem/gmem.h"

/* clang-format off */
#define GUEST(name, text) \
	__asm__(".pushsection .rodata\n" #name ":\n" text #name "_end:\n" \
		".popsection\n"); \
	extern const uint8_t name[], name##_end[]
/* clang-format on */
/* Ends hvkit_run(); the program does not go on by itself. */
#define GUEST_END "9: mov $0x5f0, %dx\n out %al, %dx\n jmp 9b\n"

enum {
	HVKIT_PML4 = 0x1000,
	HVKIT_GDT = 0x7000,
	HVKIT_IDT = 0x8000,
	HVKIT_CODE = 0x10000,
	HVKIT_STACK = 0x20000, /* top, of CPU 0; 4 KiB below the next one's */
	HVKIT_DATA = 0x100000,
	HVKIT_RAM = 0x400000,
	HVKIT_PORT = 0x500, /* what is written here is logged */
	HVKIT_PORT_END = 0x5f0,
	HVKIT_MAX_CPUS = 4,

	HVKIT_USER = 1 << 0, /* CPL 3 */
};

struct hvkit {
	const struct hv_ops *ops;
	struct gmem *mem;
	struct bus *bus;
	struct hv_vm *vm;
	struct hv_vcpu *cpu[HVKIT_MAX_CPUS];
	unsigned ncpus;
	struct hv_exit exit[HVKIT_MAX_CPUS];
	/* Writes to HVKIT_PORT. */
	struct {
		uint32_t value;
		unsigned len;
	} out[256];
	unsigned outs;
	unsigned ended; /* writes to HVKIT_PORT_END */
};

/* Before hvkit_open() makes the VM: more memory or devices. */
typedef void hvkit_prepare_fn(struct hvkit *k);

/* False, with a line that says why: the test should skip(). */
bool hvkit_open(struct hvkit *k, unsigned ncpus, hvkit_prepare_fn *prepare);
/* The same with an engine of the test's choice. */
bool hvkit_open_engine(struct hvkit *k, const struct hv_ops *ops,
		       unsigned ncpus, hvkit_prepare_fn *prepare);
void hvkit_close(struct hvkit *k);
void hvkit_load(struct hvkit *k, unsigned cpu, const uint8_t *code,
		const uint8_t *end, unsigned flags);
/* Only place the code, at @at. */
void hvkit_put(struct hvkit *k, uint64_t at, const uint8_t *code,
	       const uint8_t *end);
void hvkit_gate(struct hvkit *k, unsigned vector, uint64_t handler);
/* Run until the program ends (asserted). */
void hvkit_run(struct hvkit *k, unsigned cpu);
/* Run until anything; a watchdog fails the test after some seconds. */
enum hv_exit_reason hvkit_run_any(struct hvkit *k, unsigned cpu);
uint64_t hvkit_get64(struct hvkit *k, uint64_t at);
void hvkit_set64(struct hvkit *k, uint64_t at, uint64_t v);

/* Does the engine run supervisor code at speed, interrupts and all? */
bool hvkit_fit(void);
/* At the beginning of a test that needs it. */
#define hvkit_need_fit()                                                  \
	do {                                                              \
		if (!hvkit_fit())                                         \
			skip_because("this KVM only interprets kernels; " \
				     "run it in the L1 host");            \
	} while (0)
#define hvkit_open_or_skip(k, ncpus, prepare)             \
	do {                                              \
		if (!hvkit_open(k, ncpus, prepare))       \
			skip_because("no usable engine"); \
	} while (0)

#endif
