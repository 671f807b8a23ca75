#include "rows.h"

#include <stdio.h>
#include <string.h>

#include "hv/soft/decode.h"
#include "hv/soft/thunk.h"

struct row {
	const void *key;
	unsigned sub; /* what tells rows of one key apart */
	char name[40];
};

static struct row rows[ROWS_MAX];
static unsigned count;

static void add(const void *key, unsigned sub, const char *name)
{
	struct row *r;

	for (unsigned i = 0; i < count; i++)
		if (rows[i].key == key && rows[i].sub == sub)
			return;
	if (count == ROWS_MAX)
		return;
	r = &rows[count++];
	r->key = key;
	r->sub = sub;
	snprintf(r->name, sizeof(r->name), "%s", name);
}

static bool is_x87(const struct soft_row *row)
{
	return row->name && !strcmp(row->name, "x87");
}

static bool is_sse(const struct soft_row *row)
{
	return row->name && !strncmp(row->name, "sse", 3);
}

static void add_row(const struct soft_row *row)
{
	if (!row->name || is_x87(row) || is_sse(row))
		return;
	if (row->set)
		add(row, 0, row->name);
	if (!row->sub)
		return;
	for (unsigned i = 0; i < (row->attr & RA_GROUP	 ? 8
				  : row->attr & RA_ALT64 ? 1
							 : 4);
	     i++)
		add_row(&row->sub[i]);
}

/* D8..DF: by digit in memory, by the whole ModRM byte in registers. */
static void add_x87(void)
{
	char name[40];

	for (unsigned op = 0xd8; op < 0xe0; op++)
		for (unsigned m = 0; m < 72; m++) {
			if (m < 8)
				snprintf(name, sizeof(name), "x87 %02x /%u m",
					 op, m);
			else
				snprintf(name, sizeof(name), "x87 %02x %02x",
					 op, 0xc0 + m - 8);
			add("x87", op << 8 | m, name);
		}
}

static void add_sse(void)
{
	static const char *const map[] = { "0f", "0f38", "0f3a" };
	static const char *const pfx[] = { "", "66 ", "f3 ", "f2 " };
	char name[40];

	for (unsigned m = 0; m < SSE_MAPS; m++)
		for (unsigned p = 0; p < SSE_PFXS; p++)
			for (unsigned op = 0; op < 256; op++) {
				if (!sse_ops[m][p][op].feature)
					continue;
				snprintf(name, sizeof(name), "%s%s %02x",
					 pfx[p], map[m], op);
				add(&sse_ops[m][p][op], 0, name);
			}
}

void rows_init(void)
{
	if (count)
		return;
	for (unsigned m = 0; m < 4; m++)
		for (unsigned op = 0; op < 256; op++)
			add_row(&soft_rows[m][op]);
	add_x87();
	add_sse();
}

void rows_mark(struct rows *r, const struct ocase *c, uint8_t bits)
{
	const struct soft_row *row;
	static const unsigned mode[] = { MODE_64, MODE_32, 0 };
	const void *key;
	unsigned sub = 0, pfx;
	struct insn i;

	memset(&i, 0, sizeof(i));
	if (!soft_decode(&i, c->code, c->len, mode[c->compat], &row) || !row)
		return;
	key = row;
	if (is_x87(row)) {
		key = "x87";
		sub = (unsigned)i.opcode << 8 |
		      (i.flags & INSN_MEM ? i.modrm >> 3 & 7
					  : 8 + (i.modrm & 63u));
	} else if (is_sse(row)) {
		pfx = i.pfx == 0x66   ? SSE_PFX_66
		      : i.pfx == 0xf3 ? SSE_PFX_F3
		      : i.pfx == 0xf2 ? SSE_PFX_F2
				      : SSE_PFX_NONE;
		key = &sse_ops[i.map - 1][pfx][i.opcode];
	}
	for (unsigned n = 0; n < count; n++)
		if (rows[n].key == key && rows[n].sub == sub) {
			r->mark[n] |= bits;
			return;
		}
}

void rows_report(const struct rows *r)
{
	unsigned run = 0, done = 0, absent = 0;

	for (unsigned n = 0; n < count; n++) {
		run += r->mark[n] & ROW_RUN;
		done += r->mark[n] >> 1 & 1;
		absent += r->mark[n] == ROW_UD;
	}
	printf("rows of the engine's opcode tables: %u, of which run %u, "
	       "run to the end as on the host %u; %u more are #UD by their "
	       "form\n",
	       count - absent, run, done, absent);
	printf("never run:");
	for (unsigned n = 0; n < count; n++)
		if (!r->mark[n])
			printf(" (%s)", rows[n].name);
	printf("\nonly faulted:");
	for (unsigned n = 0; n < count; n++)
		if ((r->mark[n] & ~ROW_UD) == ROW_RUN)
			printf(" (%s)", rows[n].name);
	putchar('\n');
}
