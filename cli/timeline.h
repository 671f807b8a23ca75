/* --boot-timeline: the milestones of a run as JSON and as a picture. */
#ifndef CLI_TIMELINE_H
#define CLI_TIMELINE_H

#include "arcvmm/arcvmm.h"

/* Can @path be written? Asked before the run, so that nothing is lost. */
int timeline_check(const char *path);

/*
 * Write the milestones of @vm to @path (JSON) and, beside it, to @path with
 * ".json" replaced by (or followed by) ".svg". 0, or -errno with a message on
 * stderr.
 */
int timeline_write(const char *path, struct arcvmm_vm *vm);

#endif
