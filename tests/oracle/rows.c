#include "rows.h"

#include <stdio.h>
#include <string.h>

#include "hv/soft/decode.h"
#include "hv/soft/thunk.h"

struct row {
	const void *key;
	unsigned sub; /* what tells rows of one key apart */
	uint8_t map, op;
	char name[40];
};

static const char x87_key[] = "x87";
static struct row rows[ROWS_MAX];
static unsigned count;

static void add(const void *key, unsigned sub, unsigned map, unsigned op,
		const char *name)
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
	r->map = (uint8_t)map;
	r->op = (uint8_t)op;
	snprintf(r->name, sizeof(r->name), "%s", name);
}

static bool is_x87(const struct soft_row *row)
{
	return row->name && !strcmp(row->name, x87_key);
}

static bool is_sse(const struct soft_row *row)
{
	return row->name && !strncmp(row->name, "sse", 3);
}

/* Groups that one handler takes apart; 0: it is none. */
static unsigned system_group(const struct soft_row *row)
{
	for (unsigned n = 0; n < 3; n++) {
		static const uint8_t op[] = { 0x00, 0x01, 0xae };

		if (row == &soft_rows[1][op[n]])
			return (const unsigned[]){ 6, 7, 15 }[n];
	}
	return 0;
}

static void add_row(const struct soft_row *row, unsigned map, unsigned op)
{
	if (!row->name || is_x87(row) || is_sse(row) || system_group(row))
		return;
	if (row->set)
		add(row, 0, map, op, row->name);
	if (!row->sub)
		return;
	for (unsigned i = 0; i < (row->attr & RA_GROUP	 ? 8
				  : row->attr & RA_ALT64 ? 1
							 : 4);
	     i++)
		add_row(&row->sub[i], map, op);
}

/*
 * A form of x87 and group 7: by digit in memory, by the whole ModRM byte in
 * registers (but SMSW, LMSW). Of group 15 also by F3; of group 6 by digit.
 */
static unsigned form(unsigned group, unsigned modrm, bool mem, bool f3)
{
	unsigned digit = modrm >> 3 & 7;

	switch (group) {
	case 6:
		return digit;
	case 15:
		return digit + (mem ? 0 : 8) + (f3 ? 16 : 0);
	default:
		if (group == 7 && (digit == 4 || digit == 6))
			modrm &= ~7u;
		return mem ? digit : 8 + (modrm & 63);
	}
}

static void add_form(unsigned op, unsigned group, unsigned modrm, bool f3)
{
	bool mem = modrm < 0xc0;
	char name[40];

	if (mem)
		snprintf(name, sizeof(name), "group %u /%u%s", group,
			 modrm >> 3, group == 6 ? "" : " m");
	else
		snprintf(name, sizeof(name), "%s0f %02x %02x", f3 ? "f3 " : "",
			 op, modrm);
	add(&soft_rows[1][op], form(group, modrm, mem, f3), 1, op, name);
}

static void add_system_groups(void)
{
	for (unsigned d = 0; d < 8; d++) {
		if (d < 6)
			add_form(0x00, 6, d << 3, false);
		add_form(0x01, 7, d << 3, false);
		/* Of group 15 the decoder knows these only. */
		if (d < 4 || d == 7)
			add_form(0xae, 15, d << 3, false);
		if (d < 4)
			add_form(0xae, 15, 0xc0 | d << 3, true);
		if (d > 4)
			add_form(0xae, 15, 0xc0 | d << 3, false);
	}
	for (unsigned m = 0xc0; m < 0x100; m++)
		add_form(0x01, 7, m, false);
}

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
			add(x87_key, op << 8 | m, 0, op, name);
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
				add(&sse_ops[m][p][op], 0, m + 1, op, name);
			}
}

void rows_init(void)
{
	if (count)
		return;
	for (unsigned m = 0; m < 4; m++)
		for (unsigned op = 0; op < 256; op++)
			add_row(&soft_rows[m][op], m, op);
	add_system_groups();
	add_x87();
	add_sse();
}

int rows_find(const uint8_t *code, unsigned avail, unsigned mode, unsigned *len)
{
	const struct soft_row *row = NULL;
	const void *key;
	unsigned sub = 0, pfx, group;
	struct insn i;
	bool mem;

	memset(&i, 0, sizeof(i));
	*len = soft_decode(&i, code, avail, mode, &row);
	if (!*len || !row)
		return -1;
	key = row;
	mem = i.flags & INSN_MEM;
	group = system_group(row);
	if (is_x87(row)) {
		key = x87_key;
		sub = (unsigned)i.opcode << 8 | form(0, i.modrm, mem, false);
	} else if (group) {
		sub = form(group, i.modrm, mem, i.pfx == 0xf3);
	} else if (is_sse(row)) {
		pfx = i.pfx == 0x66   ? SSE_PFX_66
		      : i.pfx == 0xf3 ? SSE_PFX_F3
		      : i.pfx == 0xf2 ? SSE_PFX_F2
				      : SSE_PFX_NONE;
		key = &sse_ops[i.map - 1][pfx][i.opcode];
	}
	for (unsigned n = 0; n < count; n++)
		if (rows[n].key == key && rows[n].sub == sub)
			return (int)n;
	return -1;
}

void rows_mark(struct rows *r, const struct ocase *c, uint8_t bits)
{
	static const unsigned mode[] = { MODE_64, MODE_32, 0 };
	unsigned len;
	int n = rows_find(c->code, c->len, mode[c->compat], &len);

	if (n >= 0)
		r->mark[n] |= bits;
}

static bool ended(const struct rows *r, unsigned n)
{
	return r->mark[n] & ROW_DONE || r->by[n];
}

/* Only these have forms that do not exist; elsewhere a row is an instruction. */
static bool absent_form(const struct rows *r, unsigned n)
{
	const void *key = rows[n].key;

	return r->mark[n] & ROW_UD && (key == x87_key || system_group(key));
}

int rows_left(const struct rows *r, int n, int *map, int *op)
{
	for (; n < (int)count; n++)
		if (!ended(r, (unsigned)n)) {
			*map = rows[n].map;
			*op = rows[n].op;
			return n;
		}
	return -1;
}

unsigned rows_report(const struct rows *r, bool list)
{
	unsigned done = 0, absent = 0, priv = 0, left = 0;

	for (unsigned n = 0; n < count; n++) {
		if (r->mark[n] & ROW_DONE)
			done++;
		else if (r->by[n])
			priv++;
		else if (absent_form(r, n))
			absent++;
		else
			left++;
	}
	if (list) {
		printf("rows that CPL 3 cannot end, and the privileged case "
		       "that does:\n");
		for (unsigned n = 0; n < count; n++)
			if (r->by[n] && !(r->mark[n] & ROW_DONE))
				printf("  %s: %s\n", rows[n].name, r->by[n]);
	}
	printf("coverage: %u of %u rows of the opcode tables run to their end: "
	       "%u as on the host at CPL 3, %u in the privileged tables, %u "
	       "forms that do not exist are #UD; %u left out",
	       done + priv + absent, count, done, priv, absent, left);
	for (unsigned n = 0; n < count; n++)
		if (!ended(r, n) && !absent_form(r, n))
			printf(" (%s)", rows[n].name);
	putchar('\n');
	return left;
}
