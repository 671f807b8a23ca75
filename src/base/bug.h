/*
 * A broken invariant of ours, never of the guest or the user: always compiled,
 * no side effects in the condition, ends the process with the place.
 */
#ifndef ARC_BASE_BUG_H
#define ARC_BASE_BUG_H

void bug_at(const char *file, int line, const char *cond)
	__attribute__((noreturn, cold));

#define bug_on(cond)                                       \
	do {                                               \
		if (__builtin_expect(!!(cond), 0))         \
			bug_at(__FILE__, __LINE__, #cond); \
	} while (0)

#endif
