/* Process 1 of the guest. Does not return. */
#ifndef ARC_GUEST_INIT_H
#define ARC_GUEST_INIT_H

_Noreturn void init_run(void);

#endif
