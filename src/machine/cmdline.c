/*
 * The user's words win: they come last, as the kernel takes the last of two,
 * and a word of ours that they contradict is left out altogether, so that what
 * /proc/cmdline shows is what holds. "Contradict" is a table entry's list of
 * prefixes; for other words of ours, the same name before the '='.
 *
 * Words after "--" are for the guest's init and contradict nothing.
 *
 * What each default is worth was measured with Debian's 6.1 cloud kernel; the
 * figures are in docs/board.md.
 */
#include "machine/cmdline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/util.h"
#include "machine/board.h"

/* clang-format off */
static const struct board_word defaults[] = {
	{ "console=hvc0", "console=",
	  "The console is the virtio console, port 0: one exit for a line, not "
	  "several for a character. Boot messages appear when its driver has "
	  "loaded; \"console=ttyS0\" shows them from the start, slowly." },
	{ "panic=-1", "panic=",
	  "After a kernel panic reboot at once, which ends the run, instead of "
	  "hanging for ever." },
	{ "reboot=panic_warm", "reboot=panic_",
	  "Marks the reboot that follows a panic (a warm one), so that the run "
	  "ends with the exit status of a panic and not of a reboot; works "
	  "from the first instruction on, without a driver." },
	{ "cryptomgr.notests", "cryptomgr.",
	  "Leaves out the self-tests of the crypto code at boot, 60 % of the "
	  "instructions of a stock kernel's boot. The algorithms are there; "
	  "FIPS mode (fips=1) wants the tests." },
	{ "tsc=reliable", "tsc=|clocksource=",
	  "The time stamp counter is the host's and constant: no watchdog "
	  "timer compares it, no loop checks it when a CPU comes up." },
	{ "pci=noearly", "pci=",
	  "There is no PCI; early workarounds for chipsets need not look for "
	  "theirs on 32 slots (220 exits, a tenth of a boot's)." },
	{ "8250.nr_uarts=1", "8250.",
	  "There is one serial port; the kernel need not look for four." },
};
/* clang-format on */

static const struct board_word quiet_word = {
	"quiet", "quiet|loglevel=|debug|ignore_loglevel",
	"Keeps boot messages off the console (they are in dmesg)."
};

const struct board_word *board_default_word(unsigned i)
{
	if (i == array_size(defaults))
		return &quiet_word;
	return i < array_size(defaults) ? &defaults[i] : NULL;
}

/*
 * The next word in *at, up to white space outside of double quotes, as the
 * kernel splits. Its length, 0 at the end.
 */
static size_t next_word(const char **at)
{
	const char *p = *at + strspn(*at, " \t\n\r");
	bool quoted = false;
	size_t n = 0;

	*at = p;
	while (p[n] && (quoted || !strchr(" \t\n\r", p[n]))) {
		if (p[n] == '"')
			quoted = !quoted;
		n++;
	}
	return n;
}

/* The kernel treats '-' and '_' in a name alike. */
static bool same_char(char a, char b)
{
	return (a == '-' ? '_' : a) == (b == '-' ? '_' : b);
}

static bool has_prefix(const char *word, size_t n, const char *prefix,
		       size_t len)
{
	if (n < len)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!same_char(word[i], prefix[i]))
			return false;
	/* A whole name, unless the prefix ends in what may be continued. */
	return strchr("=._", prefix[len - 1]) || n == len || word[len] == '=';
}

/* Does a word of @user start with one of "a|b|c"? */
static bool displaced(const char *user, const char *prefixes, size_t plen)
{
	const char *end = prefixes + plen;
	size_t n;

	for (const char *w = user; (n = next_word(&w)) > 0; w += n) {
		if (n == 2 && !memcmp(w, "--", 2))
			return false;
		for (const char *p = prefixes; p < end;) {
			const char *bar =
				memchr(p, '|', (size_t)(end - p)) ?: end;

			if (has_prefix(w, n, p, (size_t)(bar - p)))
				return true;
			p = bar + 1;
		}
	}
	return false;
}

struct line {
	char *buf;
	size_t len, size;
};

static void append(struct line *l, const char *s, size_t n)
{
	if (l->len)
		l->buf[l->len++] = ' ';
	memcpy(l->buf + l->len, s, n);
	l->len += n;
}

static void append_default(struct line *l, const struct board_word *w,
			   const char *user)
{
	if (!displaced(user, w->unless, strlen(w->unless)))
		append(l, w->word, strlen(w->word));
}

static void append_extra(struct line *l, const char *extra, const char *user)
{
	size_t n;

	for (const char *w = extra; (n = next_word(&w)) > 0; w += n) {
		const char *eq = memchr(w, '=', n);

		if (!displaced(user, w, eq ? (size_t)(eq - w) + 1 : n))
			append(l, w, n);
	}
}

int cmdline_build(char **out, const struct cmdline_config *c, struct err *e)
{
	const char *user = c->user ?: "", *extra = c->extra ?: "";
	struct line l = { 0 };
	size_t n;

	l.size = strlen(user) + 1 + strlen(extra) + 1 +
		 strlen(quiet_word.word) + 1;
	for (unsigned i = 0; i < array_size(defaults); i++)
		l.size += strlen(defaults[i].word) + 1;
	l.buf = malloc(l.size + 1);
	if (!l.buf)
		return err_set(e, -ENOMEM, "no memory for a command line");
	for (unsigned i = 0; i < array_size(defaults) && !c->no_defaults; i++)
		append_default(&l, &defaults[i], user);
	if (c->quiet)
		append_default(&l, &quiet_word, user);
	append_extra(&l, extra, user);
	for (const char *w = user; (n = next_word(&w)) > 0; w += n)
		append(&l, w, n);
	l.buf[l.len] = 0;
	if (l.len > c->max) {
		n = l.len;
		free(l.buf);
		return err_set(e, -E2BIG,
			       "the kernel command line is %zu bytes long, "
			       "this kernel takes %zu (the board's own words "
			       "are %zu of them)",
			       n, c->max, n - min_of(n, strlen(user)));
	}
	*out = l.buf;
	return 0;
}
