#include "text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"

static const char *const gpr_name[16] = {
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15",
};

struct field {
	const char *name;
	size_t at;
	unsigned size;
};

#define F(name, member, size)                                 \
	{                                                     \
		name, offsetof(struct ocase, in.member), size \
	}
static const struct field fields[] = {
	F("rip", rip, 8),	 F("fl", rflags, 8), F("fsbase", fs_base, 8),
	F("gsbase", gs_base, 8), F("ds", ds, 2),     F("es", es, 2),
	F("fs", fs, 2),		 F("gs", gs, 2),
};

void text_default(struct ocase *c)
{
	memset(c, 0, sizeof(*c));
	c->in.rip = CODE_LA;
	c->in.gpr[4] = STACK_LA + 2 * PAGE;
	c->in.rflags = 0x202;
	c->in.ds = c->in.es = 0x2b;
	c->in.fx[0] = 0x7f;
	c->in.fx[1] = 0x03;
	c->in.fx[24] = 0x80;
	c->in.fx[25] = 0x1f;
}

static void write_hex(FILE *f, const uint8_t *p, unsigned n)
{
	while (n--)
		fprintf(f, "%02x", *p++);
}

static uint64_t field_get(const struct ocase *c, const struct field *fd)
{
	uint64_t v = 0;

	memcpy(&v, (const char *)c + fd->at, fd->size);
	return v;
}

void text_write(FILE *f, const struct ocase *c)
{
	struct ocase d;

	text_default(&d);
	fprintf(f, "mode=%s run=%s code=",
		c->compat == 2 ? "16"
		: c->compat    ? "32"
			       : "64",
		c->free_run ? "free" : "step");
	write_hex(f, c->code, c->len);
	if (c->pre_len) {
		fprintf(f, " pre=");
		write_hex(f, c->pre, c->pre_len);
	}
	for (int i = 0; i < 16; i++)
		if (c->in.gpr[i] != d.in.gpr[i])
			fprintf(f, " %s=%" PRIx64, gpr_name[i], c->in.gpr[i]);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (field_get(c, &fields[i]) != field_get(&d, &fields[i]))
			fprintf(f, " %s=%" PRIx64, fields[i].name,
				field_get(c, &fields[i]));
	for (int i = 0; i < 416; i += 16)
		if (memcmp(c->in.fx + i, d.in.fx + i, 16)) {
			fprintf(f, " fx%x=", i);
			write_hex(f, c->in.fx + i, 16);
		}
	for (int i = 0; i < 2; i++)
		if (c->patch[i].len) {
			fprintf(f, " m%x=", c->patch[i].la);
			write_hex(f, c->patch[i].bytes, c->patch[i].len);
		}
	fputc('\n', f);
}

static int read_hex(const char *s, size_t n, uint8_t *out, unsigned max)
{
	if (n % 2 || n / 2 > max)
		return -1;
	for (size_t i = 0; i < n; i += 2) {
		char b[3] = { s[i], s[i + 1], 0 }, *end;

		*out++ = (uint8_t)strtoul(b, &end, 16);
		if (*end)
			return -1;
	}
	return (int)(n / 2);
}

static bool read_item(struct ocase *c, const char *k, size_t kn, const char *v,
		      size_t vn, unsigned *patches)
{
	uint64_t num = strtoull(v, NULL, 16);
	int n;

#define IS(word) (kn == strlen(word) && !memcmp(k, word, kn))
	if (IS("mode")) {
		c->compat = num == 0x64 ? 0 : num == 0x32 ? 1 : 2;
		return true;
	}
	if (IS("run")) {
		c->free_run = vn == 4 && !memcmp(v, "free", 4);
		return true;
	}
	if (IS("code")) {
		n = read_hex(v, vn, c->code, CODE_MAX);
		c->len = n < 0 ? 0 : (uint8_t)n;
		return n > 0;
	}
	if (IS("pre")) {
		n = read_hex(v, vn, c->pre, CODE_MAX);
		c->pre_len = n < 0 ? 0 : (uint8_t)n;
		return n > 0;
	}
	for (int i = 0; i < 16; i++)
		if (IS(gpr_name[i])) {
			c->in.gpr[i] = num;
			return true;
		}
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (IS(fields[i].name)) {
			memcpy((char *)c + fields[i].at, &num, fields[i].size);
			return true;
		}
#undef IS
	if (kn > 2 && !memcmp(k, "fx", 2)) {
		unsigned long at = strtoul(k + 2, NULL, 16);

		return at <= 496 && read_hex(v, vn, c->in.fx + at, 16) == 16;
	}
	if (*k == 'm' && *patches < 2) {
		struct patch *p = &c->patch[(*patches)++];

		p->la = (uint32_t)strtoul(k + 1, NULL, 16);
		n = read_hex(v, vn, p->bytes, PATCH_MAX);
		p->len = n < 0 ? 0 : (uint8_t)n;
		return n >= 0;
	}
	return false;
}

bool text_read(struct ocase *c, const char *line, const char **at)
{
	unsigned patches = 0;

	text_default(c);
	for (;;) {
		size_t n, kn;

		line += strspn(line, " \t\r\n");
		*at = line;
		if (!*line)
			break;
		n = strcspn(line, " \t\r\n");
		kn = strcspn(line, "=");
		if (kn >= n || !read_item(c, line, kn, line + kn + 1,
					  n - kn - 1, &patches))
			return false;
		line += n;
	}
	return c->len > 0;
}
