/*
 * Options in text: "value,key=value,flag" strings as CLI flags and API fields
 * carry them, described by a table that also makes the help text.
 *
 *	static const struct opt_desc blk_opts[] = {
 *		OPT_STR(struct blk_cfg, path, "path", "FILE", "image or device"),
 *		OPT_BOOL(struct blk_cfg, ro, "ro", "read-only"),
 *		OPT_SIZE(struct blk_cfg, size, "size", 0, UINT64_MAX, "..."),
 *		{ 0 },
 *	};
 *	rc = opt_parse(blk_opts, &cfg, "disk.img,ro", &err);
 *	... opt_free(blk_opts, &cfg);
 *
 * The first table entry may be given without its key. A comma inside a value
 * is written ",,". Wrong keys and values name the nearest right one.
 */
#ifndef ARC_BASE_OPT_H
#define ARC_BASE_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum opt_type {
	OPT_T_STR, /* char *, malloc'd; given twice: error */
	OPT_T_BOOL, /* bool: "key", "key=on|off|yes|no|true|false|1|0" */
	OPT_T_UINT, /* uint64_t, decimal or 0x */
	OPT_T_SIZE, /* uint64_t bytes: 512, 4K, 1.5G, 2GiB (powers of 1024) */
	OPT_T_ENUM, /* int: index into names[] */
};

struct opt_desc {
	const char *key; /* NULL ends the table */
	enum opt_type type;
	size_t offset; /* of the field in the caller's struct */
	const char *arg; /* what help calls the value, or NULL */
	const char *help;
	uint64_t min, max; /* OPT_T_UINT, OPT_T_SIZE; inclusive */
	const char *const *names; /* OPT_T_ENUM: NULL-terminated */
};

#define OPT_STR(type, field, key, arg, help)                                 \
	{                                                                    \
		key, OPT_T_STR, offsetof(type, field), arg, help, 0, 0, NULL \
	}
#define OPT_BOOL(type, field, key, help)                                       \
	{                                                                      \
		key, OPT_T_BOOL, offsetof(type, field), NULL, help, 0, 0, NULL \
	}
#define OPT_UINT(type, field, key, min, max, help)                           \
	{                                                                    \
		key, OPT_T_UINT, offsetof(type, field), "N", help, min, max, \
			NULL                                                 \
	}
#define OPT_SIZE(type, field, key, min, max, help)                         \
	{                                                                  \
		key, OPT_T_SIZE, offsetof(type, field), "SIZE", help, min, \
			max, NULL                                          \
	}
#define OPT_ENUM(type, field, key, arg, names, help)                           \
	{                                                                      \
		key, OPT_T_ENUM, offsetof(type, field), arg, help, 0, 0, names \
	}

/*
 * Parse @text (NULL or "": nothing given) into @cfg, whose defaults the caller
 * has set; string defaults must be NULL or malloc'd. On an error nothing is
 * leaked, but @cfg is to be given to opt_free() all the same.
 */
int opt_parse(const struct opt_desc *table, void *cfg, const char *text,
	      struct err *e);
void opt_free(const struct opt_desc *table, void *cfg);

/* Single values, for whoever parses flags by hand. */
int opt_uint(const char *what, const char *text, uint64_t min, uint64_t max,
	     uint64_t *out, struct err *e);
int opt_size(const char *what, const char *text, uint64_t min, uint64_t max,
	     uint64_t *out, struct err *e);

/*
 * The candidate nearest to @word (edit distance, at most a third of it), or
 * NULL. @next returns the i-th candidate or NULL at the end.
 */
const char *opt_nearest(const char *word,
			const char *(*next)(const void *ctx, size_t i),
			const void *ctx);

/* "key=ARG  help" lines for --help, into @buf; as snprintf. */
int opt_help(const struct opt_desc *table, char *buf, size_t size);

#endif
