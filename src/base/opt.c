#include "base/opt.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/util.h"

/* ---- nearest word ---- */

#define WORD_MAX 32

/* Insertions, deletions, replacements and swaps of neighbours, each one. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	size_t rows[3][WORD_MAX + 1];

	if (la > WORD_MAX || lb > WORD_MAX)
		return WORD_MAX;
	for (size_t i = 0; i <= la; i++) {
		size_t *row = rows[i % 3];
		const size_t *up = rows[(i + 2) % 3];
		const size_t *up2 = rows[(i + 1) % 3];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			if (!i) {
				row[j] = j;
				continue;
			}
			row[j] = min_of(up[j] + 1, row[j - 1] + 1);
			row[j] = min_of(row[j],
					up[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1])
				row[j] = min_of(row[j], up2[j - 2] + 1);
		}
	}
	return rows[la % 3][lb];
}

const char *opt_nearest(const char *word,
			const char *(*next)(const void *ctx, size_t i),
			const void *ctx)
{
	const char *best = NULL, *c;
	size_t best_d = max_of(strlen(word) / 3, (size_t)1) + 1;

	for (size_t i = 0; (c = next(ctx, i)); i++) {
		size_t d = edit_distance(word, c);

		/* A prefix is what people who abbreviate meant. */
		if (strlen(word) >= 2 && !strncmp(word, c, strlen(word)))
			d = 1;
		if (d < best_d) {
			best_d = d;
			best = c;
		}
	}
	return best;
}

/* ---- values ---- */

int opt_uint(const char *what, const char *text, uint64_t min, uint64_t max,
	     uint64_t *out, struct err *e)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 0);
	if (!isdigit((unsigned char)*text) || *end || errno)
		return err_set(e, -EINVAL, "%s: '%s' is not a number", what,
			       text);
	if (v < min || v > max)
		return err_set(e, -ERANGE, "%s: %s is not within %llu to %llu",
			       what, text, (unsigned long long)min,
			       (unsigned long long)max);
	*out = v;
	return 0;
}

/* "512", "4K", "1.5GiB": the shift of the unit, or -1. */
static int unit_shift(const char *s)
{
	static const char letters[] = "KMGT";
	const char *at;

	if (!*s || !strcasecmp(s, "B"))
		return 0;
	at = strchr(letters, toupper((unsigned char)*s));
	if (!at)
		return -1;
	if (s[1] && strcasecmp(s + 1, "B") && strcasecmp(s + 1, "iB"))
		return -1;
	return (int)(at - letters + 1) * 10;
}

static void size_text(uint64_t v, char *buf, size_t size)
{
	static const char units[] = "\0KMGT";
	unsigned u = 0;

	while (u < 4 && v && v % 1024 == 0) {
		v /= 1024;
		u++;
	}
	snprintf(buf, size, "%llu%.1s", (unsigned long long)v, units + u);
}

int opt_size(const char *what, const char *text, uint64_t min, uint64_t max,
	     uint64_t *out, struct err *e)
{
	char *end, lo[32], hi[32];
	double d;
	int shift;

	/* strtod alone would take "inf", "0x1p3" and " 5". */
	d = isdigit((unsigned char)*text) && strncasecmp(text, "0x", 2)
		    ? strtod(text, &end)
		    : -1;
	shift = d >= 0 ? unit_shift(end) : -1;
	if (shift < 0)
		return err_set(e, -EINVAL,
			       "%s: '%s' is not a size; write for example "
			       "512M or 2G",
			       what, text);
	d = ldexp(d, shift);
	if (d < (double)min || d > (double)max || d >= 0x1p64) {
		size_text(min, lo, sizeof(lo));
		size_text(max, hi, sizeof(hi));
		return err_set(e, -ERANGE, "%s: %s is not within %s to %s",
			       what, text, lo, hi);
	}
	*out = (uint64_t)d;
	return 0;
}

static int parse_bool(const char *key, const char *text, bool *out,
		      struct err *e)
{
	static const char *const words[] = { "off", "on", "no",	   "yes",
					     "0",   "1",  "false", "true" };

	if (!text) {
		*out = true;
		return 0;
	}
	for (unsigned i = 0; i < array_size(words); i++) {
		if (!strcmp(text, words[i])) {
			*out = i & 1;
			return 0;
		}
	}
	return err_set(e, -EINVAL, "%s: '%s' is neither on nor off", key, text);
}

static const char *name_at(const void *ctx, size_t i)
{
	return ((const char *const *)ctx)[i];
}

static int parse_enum(const struct opt_desc *d, const char *text, int *out,
		      struct err *e)
{
	char all[160] = "";
	const char *near;

	for (int i = 0; d->names[i]; i++) {
		size_t n = strlen(all);

		if (!strcmp(text, d->names[i])) {
			*out = i;
			return 0;
		}
		snprintf(all + n, sizeof(all) - n, "%s%s", i ? ", " : "",
			 d->names[i]);
	}
	near = opt_nearest(text, name_at, d->names);
	if (near)
		return err_set(e, -EINVAL,
			       "%s: '%s' is not one of %s; did you mean %s?",
			       d->key, text, all, near);
	return err_set(e, -EINVAL, "%s: '%s' is not one of %s", d->key, text,
		       all);
}

static int set_field(const struct opt_desc *d, void *cfg, const char *text,
		     struct err *e)
{
	void *field = (char *)cfg + d->offset;
	char **str = field;

	if (!text && d->type != OPT_T_BOOL)
		return err_set(e, -EINVAL, "%s needs a value: %s=%s", d->key,
			       d->key, d->arg ? d->arg : "VALUE");
	switch (d->type) {
	case OPT_T_BOOL:
		return parse_bool(d->key, text, field, e);
	case OPT_T_UINT:
		return opt_uint(d->key, text, d->min, d->max, field, e);
	case OPT_T_SIZE:
		return opt_size(d->key, text, d->min, d->max, field, e);
	case OPT_T_ENUM:
		return parse_enum(d, text, field, e);
	case OPT_T_STR:
		break;
	}
	if (*str)
		return err_set(e, -EINVAL, "%s is given twice: '%s' and '%s'",
			       d->key, *str, text);
	*str = strdup(text);
	return *str ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* ---- the list ---- */

static const char *key_at(const void *ctx, size_t i)
{
	return ((const struct opt_desc *)ctx)[i].key;
}

static const struct opt_desc *by_key(const struct opt_desc *t, const char *key)
{
	for (; t->key; t++)
		if (!strcmp(t->key, key))
			return t;
	return NULL;
}

/*
 * Cut the next item off *text in place, ",," becoming ","; NULL at the end.
 */
static char *next_item(char **text)
{
	char *item = *text, *from = item, *to = item;

	if (!item)
		return NULL;
	for (; *from; from++) {
		if (*from == ',') {
			if (from[1] != ',')
				break;
			from++;
		}
		*to++ = *from;
	}
	*text = *from ? from + 1 : NULL;
	*to = 0;
	return item;
}

static int parse_item(const struct opt_desc *table, void *cfg, char *item,
		      bool first, struct err *e)
{
	char *eq = strchr(item, '=');
	const struct opt_desc *d;
	const char *near;

	if (eq)
		*eq = 0;
	d = by_key(table, item);
	if (d)
		return set_field(d, cfg, eq ? eq + 1 : NULL, e);
	if (first && (!eq || strchr(item, '/'))) {
		/* A bare first value; "dir/a=b" is a path, not a key. */
		if (eq)
			*eq = '=';
		return set_field(&table[0], cfg, item, e);
	}
	near = opt_nearest(item, key_at, table);
	if (near)
		return err_set(e, -EINVAL,
			       "unknown option '%s'; did you mean %s?", item,
			       near);
	return err_set(e, -EINVAL, "unknown option '%s'", item);
}

int opt_parse(const struct opt_desc *table, void *cfg, const char *text,
	      struct err *e)
{
	char *copy, *rest, *item;
	bool first = true;
	int rc = 0;

	if (!text || !*text)
		return 0;
	copy = strdup(text);
	if (!copy)
		return err_set(e, -ENOMEM, "out of memory");
	rest = copy;
	while (!rc && (item = next_item(&rest))) {
		rc = parse_item(table, cfg, item, first, e);
		first = false;
	}
	free(copy);
	return rc;
}

void opt_free(const struct opt_desc *table, void *cfg)
{
	for (; table->key; table++) {
		char **str = (char **)(void *)((char *)cfg + table->offset);

		if (table->type != OPT_T_STR)
			continue;
		free(*str);
		*str = NULL;
	}
}

/* To the column where help stands, below a key too long to stand beside it. */
#define HELP_NEXT_LINE "\n                                "

int opt_help(const struct opt_desc *table, char *buf, size_t size)
{
	size_t len = 0;

	for (; table->key; table++) {
		char left[64], names[128] = "";
		const char *arg = table->arg;
		int n;

		for (int i = 0; table->type == OPT_T_ENUM && table->names[i];
		     i++) {
			size_t at = strlen(names);

			snprintf(names + at, sizeof(names) - at, "%s%s",
				 i ? "|" : "", table->names[i]);
			arg = names;
		}
		snprintf(left, sizeof(left), "%s%s%.50s", table->key,
			 arg ? "=" : "", arg ? arg : "");
		n = snprintf(len < size ? buf + len : NULL,
			     len < size ? size - len : 0, "    %-26s%s%s\n",
			     left, strlen(left) <= 26 ? "  " : HELP_NEXT_LINE,
			     table->help);
		len += (size_t)n;
	}
	return (int)len;
}
