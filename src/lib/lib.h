/* What the files of the public API share. */
#ifndef ARC_LIB_LIB_H
#define ARC_LIB_LIB_H

#include "arcvmm/arcvmm.h"
#include "base/err.h"

/* Hand the sentence over; returns @rc. */
int public_error(struct arcvmm_error *to, int rc, const struct err *from);

/* The VM inside. */
struct vm;
struct vm *public_vm(struct arcvmm_vm *vm);

#endif
