#include "base/strv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int strv_add(struct strv *s, const char *text)
{
	char **v = realloc(s->v, (s->n + 2) * sizeof(*v));

	if (!v)
		return -ENOMEM;
	s->v = v;
	v[s->n] = strdup(text);
	if (!v[s->n])
		return -ENOMEM;
	v[++s->n] = NULL;
	return 0;
}

int strv_copy(struct strv *s, const char *const *from)
{
	strv_free(s);
	for (; *from; from++) {
		if (strv_add(s, *from)) {
			strv_free(s);
			return -ENOMEM;
		}
	}
	return 0;
}

void strv_free(struct strv *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	free(s->v);
	*s = (struct strv){ 0 };
}
