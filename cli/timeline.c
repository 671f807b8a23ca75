#include "cli/timeline.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

#define POINTS_MAX 80

struct point {
	const char *name;
	double ms; /* since the process began */
};

static unsigned collect(struct arcvmm_vm *vm, struct point *p)
{
	struct arcvmm_milestone m;
	unsigned n = 0;

	p[n++] = (struct point){ "process-start", 0 };
	for (unsigned i = 0; n < POINTS_MAX && !arcvmm_vm_milestone(vm, i, &m);
	     i++)
		p[n++] = (struct point){
			m.name, (double)(m.ns - process_start_ns()) / 1e6
		};
	return n;
}

static void write_json(FILE *f, struct arcvmm_vm *vm, const struct point *p,
		       unsigned n)
{
	fprintf(f,
		"{\n  \"engine\": \"%s\",\n  \"unit\": \"ms\",\n"
		"  \"milestones\": [\n",
		arcvmm_vm_engine(vm));
	for (unsigned i = 0; i < n; i++)
		fprintf(f, "    { \"name\": \"%s\", \"at\": %.3f }%s\n",
			p[i].name, p[i].ms, i + 1 < n ? "," : "");
	fprintf(f, "  ]\n}\n");
}

/* One bar a step, from the milestone before to its own. */
static void write_svg(FILE *f, struct arcvmm_vm *vm, const struct point *p,
		      unsigned n)
{
	const unsigned left = 150, width = 560, row = 22, top = 40;
	double total = p[n - 1].ms > 0 ? p[n - 1].ms : 1;
	unsigned height = top + row * n + 16;

	fprintf(f,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" "
		"height=\"%u\" font-family=\"sans-serif\" font-size=\"12\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
		"<text x=\"12\" y=\"22\" font-size=\"15\">Boot timeline, "
		"engine %s: %.1f ms</text>\n",
		left + width + 110, height, arcvmm_vm_engine(vm), total);
	for (unsigned i = 0; i < n; i++) {
		double from = i ? p[i - 1].ms : 0;
		double x = left + from / total * width;
		double w = (p[i].ms - from) / total * width;
		unsigned y = top + row * i;

		fprintf(f,
			"<text x=\"%u\" y=\"%u\" text-anchor=\"end\">%s</text>"
			"<rect x=\"%.1f\" y=\"%u\" width=\"%.1f\" "
			"height=\"%u\" fill=\"#3b7dd8\"/>"
			"<text x=\"%.1f\" y=\"%u\">%.1f ms</text>\n",
			left - 8, y + 15, p[i].name, x, y + 4, w < 1 ? 1 : w,
			row - 8, x + w + 6, y + 15, p[i].ms);
	}
	fprintf(f, "</svg>\n");
}

typedef void writer_fn(FILE *f, struct arcvmm_vm *vm, const struct point *p,
		       unsigned n);

static int write_file(const char *path, writer_fn *fn, struct arcvmm_vm *vm,
		      const struct point *p, unsigned n)
{
	FILE *f = fopen(path, "we");
	int rc = 0;

	if (f) {
		fn(f, vm, p, n);
		if (ferror(f) | fclose(f))
			rc = -EIO;
	} else {
		rc = -errno;
	}
	if (rc)
		complain("boot timeline %s: %s", path, strerror(-rc));
	return rc;
}

int timeline_check(const char *path)
{
	FILE *f = fopen(path, "ae");

	if (!f)
		return complain("boot timeline %s: %s", path, strerror(errno));
	fclose(f);
	return 0;
}

int timeline_write(const char *path, struct arcvmm_vm *vm)
{
	struct point points[POINTS_MAX];
	unsigned n = collect(vm, points);
	size_t len = strlen(path);
	char *svg = malloc(len + 5);
	int rc;

	if (!svg)
		return -ENOMEM;
	if (len > 5 && !strcmp(path + len - 5, ".json"))
		len -= 5;
	memcpy(svg, path, len);
	memcpy(svg + len, ".svg", 5);
	rc = write_file(path, write_json, vm, points, n);
	if (!rc)
		rc = write_file(svg, write_svg, vm, points, n);
	free(svg);
	return rc;
}
