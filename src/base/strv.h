/* A growing NULL-terminated array of strings it owns. Zeroed is empty. */
#ifndef ARC_BASE_STRV_H
#define ARC_BASE_STRV_H

#include <stddef.h>

struct strv {
	char **v; /* NULL while nothing was added */
	size_t n;
};

/* A copy of @s at the end; 0 or -ENOMEM. */
int strv_add(struct strv *s, const char *text);
/* Copies of all strings of a NULL-terminated array; 0, or -ENOMEM and empty. */
int strv_copy(struct strv *s, const char *const *from);
void strv_free(struct strv *s);

/* As execve() wants it. */
static inline const char *const *strv_get(const struct strv *s)
{
	return (const char *const *)s->v;
}

#endif
