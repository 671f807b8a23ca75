/*
 * What `arcvmm doctor` finds out about this host: whether /dev/kvm exists, may
 * be opened and is fit for stock kernels, and what else would be of use.
 */
#ifndef ARC_VM_DOCTOR_H
#define ARC_VM_DOCTOR_H

enum doctor_level {
	DOCTOR_OK,
	DOCTOR_NOTE, /* works, could be better */
	DOCTOR_PROBLEM, /* something will not work */
};

struct doctor_finding {
	enum doctor_level level;
	const char *subject; /* "kvm", "io_uring": one word */
	const char *text; /* what was found, a sentence */
	const char *advice; /* what to do, a sentence; NULL: nothing */
};

/* Calls @fn for each finding; may take some milliseconds. */
void doctor_run(void (*fn)(void *ctx, const struct doctor_finding *f),
		void *ctx);

#endif
